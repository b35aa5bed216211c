//! History that stays small: what is deleted, what never is, and by which index it is found.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use std::collections::BTreeSet;

use archon_awo::{
    domain::{JobState, WorkOrderId},
    store::{Artifact, History, SavedForm, SavedWork, Store},
};
use rows::{broken, count, job_in, order, run, set_state, text};
use sqlx::{AssertSqlSafe, PgPool};

/// Lets every job have ended, and been ordered, that many days ago.
async fn age(pool: &PgPool, days: i32) {
    let jobs = format!(
        "UPDATE awo.jobs SET created_at = created_at - interval '{days} days',
             finished_at = finished_at - interval '{days} days'"
    );
    run(pool, &jobs).await.unwrap();
    let orders =
        format!("UPDATE agent_work_orders SET created_at = created_at - interval '{days} days'");
    run(pool, &orders).await.unwrap();
}

async fn ids(pool: &PgPool) -> BTreeSet<String> {
    let read = sqlx::query_scalar("SELECT agent_work_order_id FROM agent_work_orders");
    read.fetch_all(pool).await.unwrap().into_iter().collect()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn saved_work_is_noted_once_and_only_for_an_order(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (order, _) = job_in(&pool, JobState::Failed).await;
    let id = order.parse().unwrap();
    assert!(store.artifacts(&order).await.unwrap().is_empty());
    let saved = |name: &str| SavedWork {
        path: format!("{order}/bundles/{name}.bundle"),
        sha256: "a".repeat(64),
        size_bytes: 7,
    };
    for name in ["one", "two", "two"] {
        store.add_saved(&id, None, SavedForm::Bundle, &saved(name)).await.unwrap();
    }
    let found = store.artifacts(&order).await.unwrap();
    assert!(found.iter().all(|artifact| artifact.artifact_type == "bundle"), "{found:?}");
    let found: Vec<SavedWork> = found
        .into_iter()
        .map(|Artifact { path, sha256, size_bytes, .. }| SavedWork {
            path: path.unwrap(),
            sha256,
            size_bytes,
        })
        .collect();
    assert_eq!(found, [saved("one"), saved("two")]);
    let stranger: WorkOrderId = "wo-nobody".parse().unwrap();
    store.add_saved(&stranger, None, SavedForm::Bundle, &saved("one")).await.unwrap();
    assert!(store.artifacts(stranger.as_str()).await.unwrap().is_empty());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn only_an_order_that_is_over_in_every_way_is_not_open(pool: PgPool) {
    let store = Store::new(pool.clone());
    let mut expected = Vec::new();
    for state in JobState::ALL {
        let over = matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled);
        expected.push((job_in(&pool, state).await.0, !over));
    }
    // Still leased: whoever holds it may be at work.
    let (leased, job) = job_in(&pool, JobState::Running).await;
    run(&pool, "ALTER TABLE awo.jobs DISABLE TRIGGER USER").await.unwrap();
    let ended =
        format!("UPDATE awo.jobs SET state = 'failed', finished_at = now() WHERE id = {job}");
    run(&pool, &ended).await.unwrap();
    expected.push((leased, true));
    let names: Vec<String> = expected.iter().map(|(id, _)| id.clone()).collect();
    let asked: Vec<_> = names.iter().map(|name| (name.clone(), None)).collect();
    let standing = store.standing(&asked).await.unwrap();
    for (id, open) in expected {
        let found = standing.iter().find(|row| row.id == id).unwrap();
        assert_eq!(found.is_open, open, "{found:?}");
    }
    let nobody = store.standing(&[("wo-nobody".to_owned(), None)]).await.unwrap();
    assert_eq!((nobody[0].status.as_deref(), nobody[0].is_open), (None, false));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn only_what_ended_long_ago_is_deleted_and_everything_of_it(pool: PgPool) {
    let store = Store::new(pool.clone());
    let mut live = BTreeSet::new();
    let mut ended = Vec::new();
    for state in JobState::ALL {
        let (order, job) = job_in(&pool, state).await;
        for statement in [
            "INSERT INTO agent_work_order_steps (agent_work_order_id, step_order, step_name, agent_name, attempt, success, epoch)
             VALUES ('ORDER', 1, 'planning', 'runner', 1, true, 1)",
            "INSERT INTO agent_work_order_artifacts (agent_work_order_id, artifact_type, content, sha256, size_bytes)
             VALUES ('ORDER', 'plan', 'x', repeat('a', 64), 1)",
            // One that has ended has its end in its log.
            "INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, stream, data) SELECT 'ORDER', 1, 1, 'event', 'x'
             WHERE NOT EXISTS (SELECT FROM awo.log_heads WHERE agent_work_order_id = 'ORDER')",
            "INSERT INTO awo.log_heads (agent_work_order_id, epoch, next_seq) VALUES ('ORDER', 1, 2)
             ON CONFLICT (agent_work_order_id) DO NOTHING",
            "INSERT INTO awo.steps (job_id, step_name, epoch) VALUES (JOB, 'planning', 1)",
            "INSERT INTO awo.side_effects (job_id, kind, key, intent, intent_epoch, completed_at) VALUES (JOB, 'push', 'k', '{}', 1, now())",
        ] {
            let statement = statement.replace("ORDER", &order).replace("JOB", &job.to_string());
            run(&pool, &statement).await.unwrap();
        }
        if matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled) {
            ended.push((order, job));
        } else {
            live.insert(order);
        }
    }
    age(&pool, 91).await;
    // One that has just ended, and one that ended long ago and was requeued.
    let (fresh, _) = job_in(&pool, JobState::Succeeded).await;
    let (requeued, job) = order(&pool).await;
    set_state(&pool, job, JobState::Failed).await.unwrap();
    run(&pool, "UPDATE awo.jobs SET finished_at = now() - interval '1 year' WHERE work_order_id IS NOT NULL AND state = 'failed'").await.unwrap();
    run(&pool, &format!("SELECT awo_requeue('{requeued}')")).await.unwrap();
    live.extend([fresh, requeued]);

    assert_eq!(store.delete_history(History::Ended(90), 1000).await.unwrap(), 3);
    assert_eq!(store.delete_history(History::Ended(90), 1000).await.unwrap(), 0);
    assert_eq!(ids(&pool).await, live);
    for (table, column) in [
        ("agent_work_order_steps", "agent_work_order_id"),
        ("agent_work_order_artifacts", "agent_work_order_id"),
        ("awo.log_chunks", "agent_work_order_id"),
        ("awo.log_heads", "agent_work_order_id"),
        ("awo.jobs", "work_order_id"),
    ] {
        for (order, _) in &ended {
            let left = format!("SELECT count(*) FROM {table} WHERE {column} = '{order}'");
            assert_eq!(count(&pool, &left).await, 0, "{table}");
        }
        let kept = format!("SELECT count(*) FROM {table}");
        assert!(count(&pool, &kept).await >= 3, "{table} of live orders");
    }
    for table in ["awo.attempts", "awo.steps", "awo.side_effects"] {
        for (_, job) in &ended {
            let left = format!("SELECT count(*) FROM {table} WHERE job_id = {job}");
            assert_eq!(count(&pool, &left).await, 0, "{table}");
        }
    }
    assert_eq!(broken(&pool).await, [""; 0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn batches_are_limited_and_two_replicas_share_the_work(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(&pool, "INSERT INTO awo.jobs (kind) SELECT 'other' FROM generate_series(1, 300)")
        .await
        .unwrap();
    run(&pool, "UPDATE awo.jobs SET state = 'cancelled'").await.unwrap();
    age(&pool, 91).await;
    assert_eq!(store.delete_history(History::Ended(90), 100).await.unwrap(), 100);
    let one = store.delete_history(History::Ended(90), 120);
    let two = store.delete_history(History::Ended(90), 120);
    let (one, two) = tokio::join!(one, two);
    let (one, two) = (one.unwrap(), two.unwrap());
    let left = count(&pool, "SELECT count(*) FROM awo.jobs").await;
    assert_eq!(one + two + left, 200, "{one} and {two}: none is counted twice");

    // A job somebody holds is left alone, and one that is requeued meanwhile stays.
    run(&pool, "INSERT INTO awo.jobs (kind) VALUES ('held'), ('free')").await.unwrap();
    run(&pool, "UPDATE awo.jobs SET state = 'cancelled' WHERE state = 'queued'").await.unwrap();
    age(&pool, 91).await;
    let held = count(&pool, "SELECT id FROM awo.jobs WHERE kind = 'held'").await;
    let mut transaction = pool.begin().await.unwrap();
    let requeue = sqlx::query("UPDATE awo.jobs SET state = 'queued' WHERE id = $1").bind(held);
    requeue.execute(&mut *transaction).await.unwrap();
    store.delete_history(History::Ended(90), 1000).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(store.delete_history(History::Ended(90), 1000).await.unwrap(), 0);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_product_s_own_jobs_and_fires_do_not_pile_up(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(&pool, "INSERT INTO awo.jobs (kind, queue) VALUES ('retention', 'maintenance'), ('rescue_check', 'maintenance'), ('other', 'default')").await.unwrap();
    run(&pool, "UPDATE awo.jobs SET state = 'cancelled' WHERE kind <> 'rescue_check'")
        .await
        .unwrap();
    age(&pool, 2).await;
    assert_eq!(store.delete_history(History::Maintenance, 1000).await.unwrap(), 1);
    let left = "SELECT string_agg(kind, ' ' ORDER BY kind) FROM awo.jobs";
    assert_eq!(text(&pool, left).await.unwrap(), "other rescue_check");

    run(&pool, "INSERT INTO awo.cron_fires (name, fire_at) VALUES ('a', now() - interval '91 days'), ('b', now())").await.unwrap();
    assert_eq!(store.delete_history(History::Fires(90), 1000).await.unwrap(), 1);
    assert_eq!(text(&pool, "SELECT name FROM awo.cron_fires").await.unwrap(), "b");
}

/// How Postgres would run a statement of the product.
async fn plan(pool: &PgPool, statement: &str, days: Option<i32>) -> String {
    let explain = AssertSqlSafe(format!("EXPLAIN {statement}"));
    let mut query = sqlx::query_scalar(explain);
    if let Some(days) = days {
        query = query.bind(days);
    }
    let lines: Vec<String> = query.bind(1000_i64).fetch_all(pool).await.unwrap();
    lines.join("\n")
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_is_old_is_found_by_an_index(pool: PgPool) {
    run(&pool, "ALTER TABLE awo.jobs DISABLE TRIGGER USER").await.unwrap();
    run(&pool, "INSERT INTO awo.repositories (repo_key) VALUES ('@other')").await.unwrap();
    run(
        &pool,
        "INSERT INTO awo.jobs (kind, repo_key, queue, state, finished_at)
        SELECT 'other', '@other', CASE WHEN n % 50 = 0 THEN 'maintenance' ELSE 'default' END,
            CASE WHEN n % 2 = 0 THEN 'succeeded' ELSE 'queued' END::awo.job_state,
            CASE WHEN n % 2 = 0 THEN now() - n * interval '4 minutes' END
        FROM generate_series(1, 60000) AS n",
    )
    .await
    .unwrap();
    run(&pool, "INSERT INTO awo.cron_fires (name, fire_at) SELECT 'x', now() - n * interval '4 minutes' FROM generate_series(1, 60000) AS n").await.unwrap();
    run(&pool, "VACUUM ANALYZE awo.jobs, awo.cron_fires").await.unwrap();
    for (statement, days, index) in [
        (
            include_str!("../sql/history/delete_ended.sql"),
            Some(90),
            "Index Scan using jobs_retention ",
        ),
        (
            include_str!("../sql/history/delete_maintenance.sql"),
            None,
            "Index Scan using jobs_maintenance_retention ",
        ),
        (
            include_str!("../sql/history/delete_fires.sql"),
            Some(90),
            "Index Scan using cron_fires_retention ",
        ),
    ] {
        let plan = plan(&pool, statement, days).await;
        assert!(plan.contains(index), "{plan}");
        assert!(!plan.contains("Seq Scan on jobs") && !plan.contains("Seq Scan on cron"), "{plan}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn workers_that_are_long_gone_are_marked_and_then_forgotten(pool: PgPool) {
    let store = Store::new(pool.clone());
    let worker = |name: &str, silent: &str, more: &str, value: &str| {
        format!(
            "INSERT INTO awo.workers (worker_id, hostname, pid, version, queues, max_concurrent, heartbeat_at{more})
             VALUES (gen_random_uuid(), '{name}', 1, '1', '{{default}}', 5, now() - interval '{silent}'{value})"
        )
    };
    for (name, silent, more, value) in [
        ("alive", "1 second", "", ""),
        ("draining", "2 seconds", ", draining_at", ", now()"),
        ("dead", "2 minutes", "", ""),
        ("stopped", "2 days", ", stopped_at", ", now() - interval '2 days'"),
        ("lost", "25 hours", "", ""),
        ("gone", "8 days", "", ""),
        ("holder", "8 days", "", ""),
    ] {
        run(&pool, &worker(name, silent, more, value)).await.unwrap();
    }
    let (_, job) = job_in(&pool, JobState::Running).await;
    run(&pool, &format!("UPDATE awo.leases SET worker_id = (SELECT worker_id FROM awo.workers WHERE hostname = 'holder') WHERE job_id = {job}")).await.unwrap();
    let states = "SELECT string_agg(hostname || '=' || state || ':' || running, ' ' ORDER BY hostname) FROM awo.worker_health";
    assert_eq!(
        text(&pool, states).await.unwrap(),
        "alive=alive:0 dead=dead:0 draining=draining:0 gone=dead:0 holder=dead:1 lost=dead:0 stopped=stopped:0"
    );
    let dead = store.dead_workers().await.unwrap();
    assert_eq!(dead[0].hostname, "dead");
    assert!(dead[0].silent_seconds > 119.0 && dead.len() == 4, "{dead:?}");
    assert_eq!(store.forget_workers().await.unwrap(), (1, 1));
    assert_eq!(
        text(&pool, states).await.unwrap(),
        "alive=alive:0 dead=dead:0 draining=draining:0 holder=dead:1 lost=stopped:0 stopped=stopped:0"
    );
    let counts = store.worker_counts().await.unwrap();
    assert_eq!((counts.alive, counts.draining, counts.dead), (1, 1, 2));
    assert!(counts.last_heartbeat_seconds.unwrap() < 60.0);
    // One that stood still for a day and goes on is alive again.
    run(&pool, "UPDATE awo.workers SET heartbeat_at = now() WHERE hostname = 'lost'")
        .await
        .unwrap();
    assert_eq!(store.worker_counts().await.unwrap().alive, 2);
    assert_eq!(broken(&pool).await, [""; 0]);
}
