//! What `awo.waiting_for` says an order waits for, for each reason there is.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use archon_awo::{
    domain::{JobState, OrderStatus, Waiting, WaitingFor},
    store::{Store, WorkerRecord},
};
use rows::{REPOSITORY, claim, order, order_in, run, settle};
use sqlx::PgPool;
use uuid::Uuid;

const KEY: &str = "github.com/acme/app";

/// A worker of the default queue that has just beaten.
async fn worker(store: &Store, slots: i32) -> Uuid {
    let worker_id = Uuid::new_v4();
    let record = WorkerRecord {
        worker_id,
        hostname: "host".to_owned(),
        pid: 7,
        queues: vec!["default".to_owned()],
        max_concurrent: slots,
        kinds: Some(vec!["work_order".to_owned()]),
    };
    store.register_worker(&record).await.unwrap();
    worker_id
}

async fn waiting(store: &Store, id: &str) -> Option<Waiting> {
    store.find_order(id).await.unwrap().unwrap().waiting_for.map(|json| json.0)
}

async fn reason(store: &Store, id: &str) -> WaitingFor {
    waiting(store, id).await.unwrap().reason
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn each_reason_is_told_with_its_facts(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (id, job) = order(&pool).await;
    let queue = || "default".to_owned();
    assert_eq!(reason(&store, &id).await, WaitingFor::NoWorker { queue: queue(), draining: 0 });

    let first = worker(&store, 1).await;
    assert_eq!(reason(&store, &id).await, WaitingFor::NextClaim);

    store.note_claims_nothing(first, Some("disk")).await.unwrap();
    assert_eq!(reason(&store, &id).await, WaitingFor::DiskLow { queue: queue(), workers: 1 });
    store.note_claims_nothing(first, None).await.unwrap();

    store.drain_worker(first).await.unwrap();
    assert_eq!(reason(&store, &id).await, WaitingFor::NoWorker { queue: queue(), draining: 1 });
    store.retire_worker(first).await.unwrap();
    assert_eq!(reason(&store, &id).await, WaitingFor::NoWorker { queue: queue(), draining: 0 });

    let second = worker(&store, 1).await;
    store.pause_queue("default").await.unwrap();
    assert_eq!(reason(&store, &id).await, WaitingFor::QueuePaused { queue: queue() });
    assert!(waiting(&store, &id).await.unwrap().since.is_some(), "since when it is paused");
    store.resume_queue("default").await.unwrap();
    store.pause_repository(KEY).await.unwrap();
    let repository = KEY.to_owned();
    assert_eq!(
        reason(&store, &id).await,
        WaitingFor::RepositoryPaused { repository: repository.clone() }
    );
    store.resume_repository(KEY).await.unwrap();

    run(&pool, "UPDATE awo.jobs SET run_at = now() + interval '1 hour'").await.unwrap();
    let scheduled = waiting(&store, &id).await.unwrap();
    assert_eq!(scheduled.reason, WaitingFor::Scheduled);
    let due = sqlx::query_scalar("SELECT run_at FROM awo.jobs").fetch_one(&pool).await.unwrap();
    assert_eq!(scheduled.until, Some(due), "when it is due");
    let failed = "UPDATE awo.jobs SET last_error = 'busy', error_class = 'overloaded', attempt = 1";
    run(&pool, failed).await.unwrap();
    let retry = WaitingFor::Retry {
        error_class: Some("overloaded".to_owned()),
        error: Some("busy".to_owned()),
        attempt: 1,
        max_attempts: 3,
        gives_up_at: None,
    };
    assert_eq!(reason(&store, &id).await, retry);
    run(&pool, "UPDATE awo.jobs SET put_back_count = 2, put_back_since = now()").await.unwrap();
    assert_eq!(reason(&store, &id).await, WaitingFor::PutBack { times: 2, error: None });
    run(&pool, "UPDATE awo.jobs SET run_at = now(), put_back_count = 0").await.unwrap();

    run(&pool, "UPDATE awo.workers SET kinds = '{retention}'").await.unwrap();
    assert_eq!(
        reason(&store, &id).await,
        WaitingFor::KindUnknown { kind: "work_order".to_owned() }
    );
    run(&pool, "UPDATE awo.workers SET kinds = NULL").await.unwrap();
    assert_eq!(reason(&store, &id).await, WaitingFor::NextClaim);

    // A neighbour takes the only place of the repository, then only the only slot of the worker.
    let (other, neighbour) = order(&pool).await;
    run(&pool, "UPDATE awo.repositories SET max_concurrent = 1").await.unwrap();
    claim(&pool, neighbour).await.unwrap().unwrap();
    let full = WaitingFor::RepositoryFull { repository, running: 1, limit: 1 };
    assert_eq!(reason(&store, &id).await, full);
    assert_eq!(waiting(&store, &other).await, None, "it runs");
    run(&pool, "UPDATE awo.repositories SET max_concurrent = 8").await.unwrap();
    run(&pool, &format!("UPDATE awo.leases SET worker_id = '{second}'")).await.unwrap();
    let (later, _) = order_in(&pool, "https://github.com/acme/other").await;
    let busy = |place| WaitingFor::WorkersBusy {
        queue: queue(),
        workers: 1,
        running: 1,
        slots: 1,
        place: Some(place),
    };
    assert_eq!(reason(&store, &id).await, busy(1));
    assert_eq!(reason(&store, &later).await, busy(2));
    run(&pool, &format!("UPDATE awo.jobs SET priority = 9 WHERE work_order_id = '{later}'"))
        .await
        .unwrap();
    assert_eq!(reason(&store, &later).await, busy(1), "a higher priority goes first");

    claim(&pool, job).await.unwrap().unwrap();
    settle(&pool, job, JobState::Waiting).await.unwrap();
    assert_eq!(reason(&store, &id).await, WaitingFor::Approval);
    store.cancel(&id, None).await.unwrap();
    assert_eq!(waiting(&store, &id).await, None, "it has ended");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_list_the_progress_and_the_view_say_the_same(pool: PgPool) {
    let store = Store::new(pool.clone());
    let (id, _) = order(&pool).await;
    run(&pool, "SELECT awo_pause_queue('default')").await.unwrap();
    let shown = waiting(&store, &id).await.unwrap();
    let listed = store.list_orders(Some(OrderStatus::Pending), 5).await.unwrap().remove(0);
    assert_eq!(listed.waiting_for.unwrap().0, shown);
    let progress = store.order_progress(&id).await.unwrap().unwrap();
    assert_eq!(progress.waiting_for.unwrap().0, shown);
    let row: (String, serde_json::Value) =
        sqlx::query_as("SELECT reason, facts FROM awo.waiting").fetch_one(&pool).await.unwrap();
    assert_eq!(row, ("queue_paused".to_owned(), serde_json::json!({"queue": "default"})));
}

/// A list of 500 orders out of a backlog costs what one look at the queue costs, not 500 of them.
#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_list_of_500_in_a_long_backlog_looks_at_the_queue_once(pool: PgPool) {
    let store = Store::new(pool.clone());
    let id = worker(&store, 1).await;
    order(&pool).await;
    let fill = format!(
        "INSERT INTO agent_work_orders (repository_url, user_request)
         SELECT '{REPOSITORY}', 'Add a test' FROM generate_series(1, 5000)"
    );
    run(&pool, &fill).await.unwrap();
    run(&pool, "UPDATE awo.repositories SET max_concurrent = 8").await.unwrap();
    let (_, busy) = order(&pool).await;
    claim(&pool, busy).await.unwrap().unwrap();
    run(&pool, &format!("UPDATE awo.leases SET worker_id = '{id}'")).await.unwrap();
    run(&pool, "ANALYZE").await.unwrap();
    let blocks: i64 = {
        let plan: serde_json::Value = sqlx::query_scalar(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM awo.waiting_for(ARRAY(
                 SELECT awo_job_id FROM agent_work_orders WHERE status = 'pending' LIMIT 500))",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        let top = &plan[0]["Plan"];
        top["Shared Hit Blocks"].as_i64().unwrap() + top["Shared Read Blocks"].as_i64().unwrap()
    };
    // 500 jobs by their key are about 1,500 blocks, the first 1,000 of the queue some hundreds.
    assert!(blocks < 6000, "{blocks} blocks");
    let listed = store.list_orders(Some(OrderStatus::Pending), 500).await.unwrap();
    assert_eq!(listed.len(), 500);
    let busy = |order: &archon_awo::store::OrderSummary| {
        matches!(order.waiting_for.as_ref().unwrap().reason, WaitingFor::WorkersBusy { .. })
    };
    assert!(listed.iter().all(busy));
}
