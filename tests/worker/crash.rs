//! SIGKILL of the worker before every step and inside every step: one branch, one pull request, and
//! no finished step runs again.
//!
//! The points are exact: a trigger makes the worker's own statement wait on a lock of the test,
//! once as the step is about to start and once as its effect is done and not yet recorded.

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::harness::Harness;

const LOCK: i64 = 4_242;

/// Runs an order until its worker is killed at that point; answers it and its finished steps.
async fn kill_at(harness: &mut Harness, step: &str, inside: bool) -> (String, Vec<String>) {
    sqlx::raw_sql(
        "create table kill_point (step text, inside boolean);
         create function wait_at_kill_point() returns trigger language plpgsql as $$ begin
             if exists (select 1 from kill_point p where p.step = new.step_name
                        and p.inside = (new.finished_at is not null)) then
                 perform pg_advisory_xact_lock(4242);
             end if;
             return new;
         end $$;
         create trigger wait_at_kill_point before insert or update on awo.steps
             for each row execute function wait_at_kill_point()",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    sqlx::query("insert into kill_point values ($1, $2)")
        .bind(step)
        .bind(inside)
        .execute(&harness.pool)
        .await
        .unwrap();
    let mut lock = harness.pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock($1)").bind(LOCK).execute(&mut *lock).await.unwrap();

    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness
        .until("select exists (select 1 from pg_locks l join pg_database d on d.oid = l.database
                where d.datname = current_database() and l.locktype = 'advisory' and not l.granted)")
        .await;
    harness.signal(first, Signal::SIGKILL);
    harness.ended(first).await;
    // The server does not notice that its client is dead: the statement must die with it.
    sqlx::query(
        "select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database
         where d.datname = current_database() and l.locktype = 'advisory' and not l.granted",
    )
    .execute(&harness.pool)
    .await
    .unwrap();
    sqlx::query("delete from kill_point").execute(&harness.pool).await.unwrap();
    sqlx::query("select pg_advisory_unlock($1)").bind(LOCK).execute(&mut *lock).await.unwrap();
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
    // The work is done again, with another outcome.
    harness.tell_agent("more", "and more\n");
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    harness.git(&["-C", "remote.git", "show", &format!("{}:more.txt", branches[0])]);
    harness.assert_sound().await;
}
