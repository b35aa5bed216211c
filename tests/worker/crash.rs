//! SIGKILL of the worker before every step and inside every step: one branch, one pull request, and
//! no finished step runs again.

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::{halt::Halt, harness::Harness};

/// Runs an order until its worker is killed at that point; answers it and its finished steps.
async fn kill_at(harness: &mut Harness, step: &str, inside: bool) -> (String, Vec<String>) {
    let halt = Halt::at(&harness.pool, step, inside).await;
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    halt.until_reached(harness).await;
    harness.signal(first, Signal::SIGKILL);
    harness.ended(first).await;
    halt.end_statement(&harness.pool).await;
    halt.lift(&harness.pool).await;
    let finished: Vec<String> =
        sqlx::query_scalar("select step_name from awo.steps where finished_at is not null")
            .fetch_all(&harness.pool)
            .await
            .unwrap();
    assert!(!finished.iter().any(|done| done == step), "{step} was not to be finished");
    (order, finished)
}

async fn run_with_a_kill_at(pool: PgPool, step: &str, inside: bool) {
    let mut harness = Harness::new(pool);
    let (order, finished) = kill_at(&mut harness, step, inside).await;
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    let (crashes, attempt): (i32, i32) =
        sqlx::query_as("select crash_count, attempt from awo.jobs")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!((crashes, attempt), (1, 1), "a crash spends its own budget");
    let resumed: String =
        sqlx::query_scalar("select first_step from awo.attempts order by epoch desc limit 1")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(resumed, step, "resumed at the step that was interrupted");
    let steps = harness.steps(&order).await;
    for done in &finished {
        let runs = steps.iter().filter(|row| row.split(' ').next() == Some(done)).count();
        assert_eq!(runs, 1, "{done} had finished and ran again: {steps:?}");
    }
    let lost = steps.iter().filter(|row| row.contains("lost_worker")).count();
    assert_eq!(lost, usize::from(inside), "{steps:?}");
    harness.assert_sound().await;
}

macro_rules! kill_points {
    ($($name:ident: $step:literal $inside:literal,)*) => {$(
        #[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
        async fn $name(pool: PgPool) {
            run_with_a_kill_at(pool, $step, $inside).await;
        }
    )*};
}

kill_points! {
    a_kill_before_create_branch_costs_nothing: "create-branch" false,
    a_kill_inside_create_branch_repeats_only_it: "create-branch" true,
    a_kill_before_planning_costs_nothing: "planning" false,
    a_kill_inside_planning_repeats_only_it: "planning" true,
    a_kill_before_execute_costs_nothing: "execute" false,
    a_kill_inside_execute_repeats_only_it: "execute" true,
    a_kill_before_prp_review_costs_nothing: "prp-review" false,
    a_kill_inside_prp_review_repeats_only_it: "prp-review" true,
    a_kill_before_commit_costs_nothing: "commit" false,
    a_kill_inside_commit_repeats_only_it: "commit" true,
    a_kill_before_create_pr_costs_nothing: "create-pr" false,
    a_kill_inside_create_pr_repeats_only_it: "create-pr" true,
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_kill_after_the_push_and_the_loss_of_the_volume_leave_one_branch(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let (order, _) = kill_at(&mut harness, "commit", true).await;
    assert_eq!(harness.deliveries().0.len(), 1, "pushed, and nobody knows");
    std::fs::remove_dir_all(harness.path("repositories")).unwrap();
    std::fs::create_dir(harness.path("repositories")).unwrap();
    // What the push was meant to be was stored before it, so the work is found on the branch.
    harness.tell_agent("more", "and more\n");
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    let files = harness.git(&["-C", "remote.git", "ls-tree", "--name-only", &branches[0]]);
    assert!(!files.contains("more.txt"), "the work was done again: {files}");
    let runs = harness.agent_runs();
    assert_eq!(runs.iter().filter(|run| run[1] == "execute").count(), 1, "{runs:?}");
    harness.assert_sound().await;
}
