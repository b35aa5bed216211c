//! Totals of a run and of a conversation, split among runs that ended well and others.

use super::{EarlierRun, ModelUsage, Prices, RunUsage, Usage};

/// A thousandth as much input and a hundredth as much output as read from the cache.
fn spent(cache_read: u64) -> Usage {
    let mut usage = Usage::default();
    let cost_usd = f64::from(u32::try_from(cache_read).unwrap()) / 1e6;
    let tokens = [cache_read / 1000, cache_read / 100, cache_read, cache_read / 10, 0];
    usage.add("claude-a[1m]", ModelUsage { cost_usd, ..tokens.into() });
    usage
}

fn sum(parts: &[u64]) -> Usage {
    let mut sum = Usage::default();
    for part in parts {
        sum.merge(&spent(*part));
    }
    sum
}

/// A run that reported `total` and of which `heard` was heard.
fn reported(total: &Usage, heard: u64) -> RunUsage {
    RunUsage { reported: Some(total.clone()), heard: spent(heard), ..RunUsage::default() }
}

/// A run that was interrupted.
fn interrupted(unreported: u64) -> RunUsage {
    let (unreported, unreported_ended) = (spent(unreported), spent(unreported));
    RunUsage { unreported, unreported_ended, ..RunUsage::default() }
}

fn left_behind(runs: &[RunUsage]) -> Vec<EarlierRun> {
    runs.iter().map(RunUsage::left_behind).collect()
}

fn read(usage: &Usage) -> u64 {
    usage.total().cache_read_tokens
}

#[test]
fn a_total_of_the_session_is_split_among_its_runs() {
    let first = reported(&spent(10_000), 10_000);
    let second = reported(&sum(&[10_000, 40_000]), 40_000);
    let third = reported(&sum(&[10_000, 40_000, 5_000]), 5_000);
    assert_eq!(read(&first.consumed(&[])), 10_000);
    assert_eq!(read(&second.consumed(&left_behind(std::slice::from_ref(&first)))), 40_000);
    let part = third.consumed(&left_behind(&[first, second]));
    assert_eq!(read(&part), 5_000);
    assert!((part.total().cost_usd - 0.005).abs() < 1e-9);
}

#[test]
fn a_total_of_the_run_counts_whole_whether_it_is_smaller_or_larger_than_the_last_one() {
    let first = left_behind(&[reported(&spent(10_000), 10_000)]);
    for total in [3_000, 10_000, 11_000, 400_000] {
        assert_eq!(read(&reported(&spent(total), total).consumed(&first)), total);
    }
}

#[test]
fn a_total_that_is_of_the_run_by_its_form_counts_whole_although_nothing_was_heard() {
    let first = left_behind(&[reported(&spent(10_000), 0)]);
    let second = reported(&spent(12_000), 0);
    assert_eq!(read(&second.consumed(&first)), 2_000, "a session in which nothing else was said");
    let second = RunUsage { is_of_run: true, ..second };
    assert_eq!(read(&second.consumed(&first)), 12_000);
}

#[test]
fn what_helpers_used_unheard_belongs_to_the_run_that_had_them() {
    let first = left_behind(&[reported(&spent(50_000), 50_000)]);
    let session = reported(&sum(&[50_000, 30_000]), 10_000);
    assert_eq!(read(&session.consumed(&first)), 30_000);
    assert_eq!(read(&reported(&spent(60_000), 50_000).consumed(&first)), 60_000);
}

#[test]
fn an_interrupted_run_counts_once_whether_the_agent_has_noted_it_or_not() {
    let (first, second) = (reported(&spent(10_000), 10_000), interrupted(7_000));
    let earlier = left_behind(&[first, second.clone()]);
    assert_eq!(read(&second.consumed(&earlier[..1])), 7_000);
    for total in [sum(&[10_000, 7_000, 20_000]), sum(&[10_000, 20_000]), spent(20_000)] {
        assert_eq!(read(&reported(&total, 20_000).consumed(&earlier)), 20_000);
    }
    // One of two was noted: the first or the second.
    let earlier = left_behind(&[interrupted(7_000), interrupted(900)]);
    for noted in [7_000, 900] {
        assert_eq!(read(&reported(&sum(&[noted, 20_000]), 20_000).consumed(&earlier)), 20_000);
    }
}

#[test]
fn what_came_after_the_last_report_is_added() {
    let mut run = reported(&spent(10_000), 10_000);
    run.unreported = spent(3_000);
    assert_eq!(read(&run.consumed(&[])), 13_000);
}

#[test]
fn a_run_without_a_report_is_estimated_once_whether_a_later_total_has_it_or_not() {
    let mut prices = Prices::default();
    for (model, usage) in spent(10_000).models() {
        prices.learn(model, *usage);
    }
    let mut run = interrupted(7_000);
    assert_eq!(run.unpriced(), ["claude-a"]);
    for usage in [&mut run.unreported, &mut run.unreported_ended] {
        usage.by_model.values_mut().for_each(|usage| usage.cost_usd = 0.0);
    }
    run.estimate(&prices);
    let alone = run.consumed(&[]).total();
    assert!((alone.cost_usd - 0.007).abs() < 1e-9, "{alone:?}");
    assert!((alone.estimated_usd - 0.007).abs() < 1e-9, "{alone:?}");
    let earlier = left_behind(&[run]);
    for total in [sum(&[7_000, 20_000]), spent(20_000)] {
        let later = reported(&total, 20_000).consumed(&earlier).total();
        assert!((later.cost_usd - 0.02).abs() < 1e-9, "{later:?}");
        assert!(later.estimated_usd <= 0.0, "the agent told it: {later:?}");
    }
}

#[test]
fn numbers_and_names_that_no_agent_can_mean_do_not_spoil_the_sum() {
    let mut usage = Usage::default();
    for cost_usd in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        usage.add("a\0b", ModelUsage { cost_usd, ..[u64::MAX; 5].into() });
    }
    assert_eq!(usage.models().map(|(name, _)| name).collect::<Vec<_>>(), ["unknown"]);
    assert!(usage.total().cost_usd <= 100_000.0 && usage.total().input_tokens < u64::MAX);
    for number in 0..1000 {
        usage.add(&format!("model-{number}"), [1, 1, 1, 1, 1].into());
    }
    assert!(usage.models().count() <= 17);
    let stored = serde_json::to_string(&usage).unwrap();
    assert_eq!(serde_json::from_str::<Usage>(&stored).unwrap(), usage);
}
