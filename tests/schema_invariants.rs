//! `awo.invariants` is empty whatever people and workers do by the rules, and speaks when they are broken.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use archon_awo::domain::JobState;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rows::{broken, claim, count, job_in, run, settle};
use sqlx::{AssertSqlSafe, PgPool};

/// The seed of this run: `AWO_TEST_SEED`, or a new one each time.
fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "repeats a run that failed")]
    let given = std::env::var("AWO_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0)
}

async fn jobs(pool: &PgPool, condition: &str) -> Vec<(i64, String)> {
    let list = format!("SELECT id, work_order_id FROM awo.jobs WHERE {condition} ORDER BY id");
    sqlx::query_as(AssertSqlSafe(list)).fetch_all(pool).await.unwrap()
}

/// Whether a refusal was one of ours, as opposed to a statement that is wrong.
fn refused_by_rule(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code().map(std::borrow::Cow::into_owned));
    ["22023", "23505", "23514", "55000", "55006", "P0002"]
        .contains(&code.unwrap_or_default().as_str())
}

/// One thing that somebody may do. Answers whether it was accepted.
async fn act(pool: &PgPool, rng: &mut StdRng) -> Result<(), sqlx::Error> {
    let repo = ["acme/app", "acme/web", "acme/lib"].choose(rng).unwrap();
    let all = jobs(pool, "true").await;
    let any = all.choose(rng).cloned().unwrap_or((0, "nobody".to_owned()));
    let running = jobs(pool, "state = 'running'").await;
    let (id, order) = &any;
    let statement = match rng.random_range(0..16) {
        0 | 1 => format!(
            "INSERT INTO agent_work_orders (repository_url, user_request) VALUES ('{repo}', 'x')"
        ),
        2 => format!(
            r#"INSERT INTO awo.jobs (payload, priority) VALUES ('{{"repository_url": "{repo}", "user_request": "x"}}', {})"#,
            rng.random_range(-9..9)
        ),
        3 => format!(
            "SELECT awo_enqueue('{repo}', 'x', idempotency_key => 'k{}')",
            rng.random_range(0..4)
        ),
        4..7 => {
            let Some((id, _)) = jobs(pool, "state = 'queued'").await.choose(rng).cloned() else {
                return Ok(());
            };
            return claim(pool, id).await.map(drop);
        }
        7..9 => {
            let Some((id, _)) = running.choose(rng).cloned() else { return Ok(()) };
            let to =
                JobState::ALL.into_iter().filter(|s| *s != JobState::Running).collect::<Vec<_>>();
            return settle(pool, id, *to.choose(rng).unwrap()).await;
        }
        9 => format!("SELECT awo_cancel('{order}')"),
        10 => format!("SELECT awo_requeue('{order}')"),
        11 => format!("SELECT awo_requeue('{order}', from_step => 'planning')"),
        12 => format!("UPDATE awo.jobs SET state = 'queued' WHERE id = {id}"),
        13 => {
            // Raised only: lowering one lets its surplus drain, which the view reports.
            format!(
                "UPDATE awo.repositories SET max_concurrent = least(max_concurrent + 1, 5) WHERE display_name = '{repo}'"
            )
        }
        14 => {
            let status =
                ["pending", "running", "completed", "failed", "cancelled"].choose(rng).unwrap();
            format!("UPDATE agent_work_orders SET status = '{status}' WHERE awo_job_id = {id}")
        }
        _ => format!("DELETE FROM agent_work_orders WHERE awo_job_id = {id}"),
    };
    run(pool, &statement).await
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn nothing_is_broken_after_random_acts(pool: PgPool) {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut accepted, mut refused) = (0, 0);
    for step in 1..=400 {
        match act(&pool, &mut rng).await {
            Ok(()) => accepted += 1,
            Err(error) => {
                assert!(refused_by_rule(&error), "AWO_TEST_SEED={seed}, act {step}: {error}");
                refused += 1;
            }
        }
        if step % 20 == 0 {
            assert_eq!(broken(&pool).await, [""; 0], "AWO_TEST_SEED={seed}, act {step}");
        }
    }
    assert!(
        accepted > 200 && refused > 5,
        "AWO_TEST_SEED={seed}: {accepted} accepted, {refused} refused"
    );
    let pairs = "SELECT count(*) FROM agent_work_orders o FULL JOIN awo.jobs j
        ON j.id = o.awo_job_id AND j.work_order_id = o.agent_work_order_id
        WHERE o.awo_job_id IS NULL OR j.id IS NULL";
    assert_eq!(
        count(&pool, pairs).await,
        0,
        "AWO_TEST_SEED={seed}: an order or a job stands alone"
    );
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn each_broken_promise_is_shown(pool: PgPool) {
    let (queued, queued_job) = job_in(&pool, JobState::Queued).await;
    let (_, running) = job_in(&pool, JobState::Running).await;
    let (_, succeeded) = job_in(&pool, JobState::Succeeded).await;
    assert_eq!(broken(&pool).await, [""; 0]);
    let lease = |epoch: i64| {
        format!(
            "INSERT INTO awo.leases (job_id, epoch, worker_id, repo_key, slot, expires_at)
         VALUES ({queued_job}, {epoch}, gen_random_uuid(), 'github.com/acme/queued', 1, now())"
        )
    };
    let chunk = |seq: i64| {
        format!(
            "INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, stream, data) VALUES ('{queued}', {seq}, 1, 'stdout', 'x')"
        )
    };
    let cases: [(Vec<String>, String); 8] = [
        (
            vec![
                format!("DELETE FROM awo.leases WHERE job_id = {running}"),
                format!("DELETE FROM awo.attempts WHERE job_id = {running}"),
            ],
            format!("running without lease {running}"),
        ),
        (vec![lease(1)], format!("lease without running job {queued_job}")),
        (
            vec![
                format!("UPDATE awo.jobs SET lease_epoch = 9 WHERE id = {running}"),
                format!("DELETE FROM awo.attempts WHERE job_id = {running}"),
            ],
            format!("lease without running job {running}"),
        ),
        (
            vec![format!(
                "UPDATE agent_work_orders SET status = 'failed' WHERE awo_job_id = {queued_job}"
            )],
            format!("order status differs from job state {queued}"),
        ),
        (
            vec!["UPDATE awo.repositories SET max_concurrent = 0".to_owned()],
            "repository over its limit github.com/acme/running".to_owned(),
        ),
        (vec![chunk(1), chunk(2), chunk(4)], format!("gap in the log {queued}")),
        (
            vec![format!(
                "INSERT INTO awo.side_effects (job_id, kind, key, intent, intent_epoch) VALUES ({succeeded}, 'push', 'refs/heads/x', '{{}}', 1)"
            )],
            format!("side effect without result {succeeded}"),
        ),
        (
            vec![format!(
                "INSERT INTO awo.attempts (job_id, epoch, attempt, worker_id) VALUES ({queued_job}, 1, 1, gen_random_uuid())"
            )],
            format!("attempt left open {queued_job}"),
        ),
    ];
    for (statements, expected) in cases {
        let mut breaking = pool.begin().await.unwrap();
        // Triggers and foreign keys sleep, as they do when a backup is restored.
        sqlx::query("SET LOCAL session_replication_role = replica")
            .execute(&mut *breaking)
            .await
            .unwrap();
        for statement in &statements {
            sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut *breaking).await.unwrap();
        }
        let shown: Vec<String> =
            sqlx::query_scalar("SELECT broken || ' ' || subject FROM awo.invariants")
                .fetch_all(&mut *breaking)
                .await
                .unwrap();
        breaking.rollback().await.unwrap();
        assert_eq!(shown, [expected], "{statements:?}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_views_for_operators_show_what_is_there(pool: PgPool) {
    job_in(&pool, JobState::Queued).await;
    let (order, job) = job_in(&pool, JobState::Running).await;
    job_in(&pool, JobState::Succeeded).await;
    run(&pool, "INSERT INTO awo.jobs (kind, run_at) VALUES ('prune', now() + interval '1 hour')")
        .await
        .unwrap();
    let text = async |query: &str| rows::text(&pool, query).await.unwrap_or_default();
    let depth = "SELECT string_agg(concat_ws(' ', repo_key, ready, scheduled), '; ' ORDER BY repo_key) FROM awo.queue_depth";
    assert_eq!(text(depth).await, "@prune 0 1; github.com/acme/queued 1 0");
    let now = "SELECT string_agg(concat_ws(' ', work_order_id, slot, attempt, epoch), '; ') FROM awo.running_now";
    assert_eq!(text(now).await, format!("{order} 1 1 1"));
    let done = "SELECT string_agg(concat_ws(' ', kind, succeeded, failed, cancelled), '; ') FROM awo.throughput";
    assert_eq!(text(done).await, "work_order 1 0 0");

    let stuck = "SELECT string_agg(problem || ' ' || job_id, '; ' ORDER BY problem) FROM awo.stuck";
    assert_eq!(text(stuck).await, "");
    run(&pool, "UPDATE awo.leases SET expires_at = now() - interval '2 minutes', progress_at = now() - interval '1 hour'").await.unwrap();
    run(&pool, "UPDATE awo.jobs SET cancel_requested_at = now() - interval '2 minutes' WHERE state = 'running'").await.unwrap();
    run(&pool, "UPDATE awo.jobs SET run_at = now() - interval '20 minutes' WHERE state = 'queued'")
        .await
        .unwrap();
    run(&pool, "DELETE FROM awo.jobs WHERE kind = 'prune'").await.unwrap();
    let waiting = text("SELECT min(id)::text FROM awo.jobs WHERE state = 'queued'").await;
    assert_eq!(
        text(stuck).await,
        format!(
            "cancel not acknowledged {job}; lease expired {job}; no output {job}; not claimed {waiting}"
        )
    );
    run(&pool, "SELECT awo_pause_queue('default')").await.unwrap();
    assert!(!text(stuck).await.contains("not claimed"), "a paused queue waits on purpose");
}
