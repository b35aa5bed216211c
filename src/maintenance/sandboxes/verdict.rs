//! Whether a sandbox may go: by the state of its order and its age, and never while the order is open.

use std::time::Duration;

use super::Sweep;
use crate::{git::FoundSandbox, store::Standing};

/// How badly space is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// What is old enough goes.
    Scheduled,
    /// A volume is nearly full: every sandbox of an order that has ended goes, however young, except
    /// where its state is to be kept for ever.
    Pressing,
}

/// Whether a sandbox may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Remove,
    Keep(String),
}

/// Judges one sandbox; `standing` is what the database says now.
pub(super) fn judge(found: &FoundSandbox, standing: &Standing, sweep: &Sweep) -> Verdict {
    let Sweep { policy, urgency, unknown, .. } = *sweep;
    let keep = |reason: &str| Verdict::Keep(reason.to_owned());
    if !found.ours {
        return keep("it has no .archon-sandbox marker: archon-awo did not make it");
    }
    if standing.is_open {
        return keep("its order waits or runs");
    }
    let age = |seconds: Option<f64>| seconds.and_then(|age| Duration::try_from_secs_f64(age).ok());
    let ended = age(standing.ended_seconds);
    let (limit, age) = match standing.status.as_deref() {
        Some("completed") => (policy.completed, ended),
        Some("failed") => (policy.failed, ended),
        Some("cancelled") => (policy.cancelled, ended),
        Some(_) => return keep("its order has not ended"),
        None => match age(standing.deleted_seconds) {
            Some(deleted) => (policy.orphans, Some(deleted)),
            None => return unknown_order(found, policy.orphans.filter(|_| unknown)),
        },
    };
    match (limit, age) {
        (None, _) => keep("orders in this state keep theirs"),
        (Some(_), None) => keep("nobody knows when its order ended"),
        (Some(limit), Some(age)) if age >= limit || urgency == Urgency::Pressing => Verdict::Remove,
        (Some(limit), Some(age)) => {
            let left = Duration::from_secs(limit.saturating_sub(age).as_secs() + 1);
            keep(&format!("it has {} left", humantime::format_duration(left)))
        }
    }
}

/// This may be another database, or an older state of it. Space is no reason to touch what nobody can
/// explain.
fn unknown_order(found: &FoundSandbox, limit: Option<Duration>) -> Verdict {
    match limit {
        Some(limit) if found.untouched >= limit => Verdict::Remove,
        Some(_) => Verdict::Keep("this database never had its order, and it is young".to_owned()),
        None => Verdict::Keep(
            "this database never had its order: it may belong to another one, or to a later state of \
             this one; `archon-awo gc --unknown` takes it away"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Sweep, Urgency, Verdict, judge};
    use crate::{config::RetentionPolicy, git::FoundSandbox, store::Standing};

    const HOUR: Duration = Duration::from_hours(1);
    const POLICY: RetentionPolicy = RetentionPolicy {
        completed: Some(HOUR),
        failed: Some(Duration::from_hours(5)),
        cancelled: None,
        orphans: Some(Duration::from_hours(24)),
    };

    fn goes(status: Option<&str>, open: bool, hours: f64, urgency: Urgency) -> bool {
        let seconds = hours * 3600.0;
        let deleted = status == Some("deleted");
        let standing = Standing {
            id: "wo-1".to_owned(),
            status: status.filter(|_| !deleted).map(str::to_owned),
            repository_url: None,
            is_open: open,
            ended_seconds: Some(seconds),
            deleted_seconds: deleted.then_some(seconds),
        };
        let untouched = Duration::from_secs_f64(seconds);
        let order = "wo-1".parse().unwrap();
        let found = FoundSandbox { order, untouched, ours: true, generation: None };
        let foreign = FoundSandbox { ours: false, ..found.clone() };
        let asked = sweep(urgency, true);
        assert_ne!(judge(&foreign, &standing, &asked), Verdict::Remove);
        let goes = |unknown| {
            let verdict = judge(&found, &standing, &sweep(urgency, unknown));
            verdict == Verdict::Remove
        };
        // Only of orders that the database never had does it matter who asks.
        assert!(status.is_none() || goes(false) == goes(true));
        assert!(status.is_some() || !goes(false));
        goes(true)
    }

    fn sweep(urgency: Urgency, unknown: bool) -> Sweep {
        Sweep { policy: POLICY, history_days: None, urgency, unknown, dry_run: false }
    }

    #[test]
    fn each_state_has_its_age_and_an_open_order_keeps_its_sandbox_whatever_its_age() {
        use Urgency::{Pressing, Scheduled};
        for (status, hours, scheduled, pressing) in [
            (Some("completed"), 0.9, false, true),
            (Some("completed"), 1.1, true, true),
            (Some("failed"), 1.1, false, true),
            (Some("failed"), 5.1, true, true),
            (Some("cancelled"), 5000.0, false, false),
            (Some("pending"), 5000.0, false, false),
            (Some("running"), 5000.0, false, false),
            (Some("deleted"), 23.0, false, true),
            (Some("deleted"), 25.0, true, true),
            (None, 23.0, false, false),
            (None, 25.0, true, true),
        ] {
            assert_eq!(goes(status, false, hours, Scheduled), scheduled, "{status:?} {hours}");
            assert_eq!(goes(status, false, hours, Pressing), pressing, "{status:?} {hours}");
            assert!(!goes(status, true, hours, Pressing), "{status:?} {hours}");
        }
    }
}
