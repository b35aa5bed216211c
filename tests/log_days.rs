//! The log in one table per day: moving there, making days, dropping them, and appending once.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use std::sync::Arc;

use archon_awo::store::{History, MIGRATOR, Store, migrate};
use rows::{broken, claim, count, order, refusal, run, text};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use tokio::sync::Barrier;
use uuid::Uuid;

const DAYS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'awo.log_chunks'::regclass";

async fn drop_days(pool: &PgPool) {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'awo.log_chunks'::regclass
         AND inhrelid <> 'awo.log_chunks_default'::regclass",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for name in names {
        run(pool, &format!("DROP TABLE {name}")).await.unwrap();
    }
}

/// Stores a chunk as of `days` ago.
async fn chunk(pool: &PgPool, order: &str, seq: i64, days: i32) {
    let insert = format!(
        "INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, stream, data, created_at)
         VALUES ('{order}', {seq}, 1, 'stdout', 'x', now() - interval '{days} days')"
    );
    run(pool, &insert).await.unwrap();
}

/// Which tables hold rows of the log.
async fn places(pool: &PgPool) -> String {
    let places = "SELECT string_agg(DISTINCT CASE tableoid::regclass::text
            WHEN 'awo.log_chunks_default' THEN 'default' ELSE 'day' END, ' ') FROM awo.log_chunks";
    text(pool, places).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_log_from_before_is_moved_to_its_days(pool: PgPool) {
    // As the release before left it: all migrations up to this one.
    run(&pool, "CREATE SCHEMA awo").await.unwrap();
    for migration in MIGRATOR.iter().filter(|migration| migration.version < 7) {
        sqlx::raw_sql(migration.sql.clone()).execute(&pool).await.unwrap();
    }
    let (order, job) = order(&pool).await;
    for (seq, days) in [(1, 40), (2, 2), (3, 2), (4, 0)] {
        chunk(&pool, &order, seq, days).await;
    }
    let before =
        "SELECT string_agg(seq || ' ' || created_at, ', ' ORDER BY seq) FROM awo.log_chunks";
    let rows = text(&pool, before).await.unwrap();
    for migration in MIGRATOR.iter().filter(|migration| migration.version >= 7) {
        sqlx::raw_sql(migration.sql.clone()).execute(&pool).await.unwrap();
    }
    assert_eq!(text(&pool, before).await.unwrap(), rows);
    assert_eq!(places(&pool).await, "day");
    // Today and a week ahead, two days of old rows, and the default.
    assert_eq!(count(&pool, DAYS).await, 8 + 2 + 1);
    // The next owner goes on where the log ends.
    let epoch = claim(&pool, job).await.unwrap().unwrap();
    assert!(append(&pool, job, epoch, &order, &[(Uuid::new_v4(), 0)]).await);
    let last = format!("SELECT max(seq) FROM awo.log_chunks WHERE agent_work_order_id = '{order}'");
    assert_eq!(count(&pool, &last).await, 5);
    assert_eq!(broken(&pool).await, [""; 0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn eight_replicas_make_the_days_at_once_while_others_write(pool: PgPool) {
    drop_days(&pool).await;
    let (order, _) = order(&pool).await;
    let barrier = Arc::new(Barrier::new(8));
    let mut replicas = Vec::new();
    for n in 0..8 {
        let options = (*pool.connect_options()).clone();
        let own = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let (barrier, order) = (Arc::clone(&barrier), order.clone());
        replicas.push(tokio::spawn(async move {
            barrier.wait().await;
            chunk(&own, &order, n, 0).await;
            let made = Store::new(own.clone()).ensure_log_days().await.unwrap();
            chunk(&own, &order, 100 + n, 0).await;
            made
        }));
    }
    let mut made = 0;
    for replica in replicas {
        made += replica.await.unwrap();
    }
    assert_eq!(made, 8);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.log_chunks").await, 16);
    // What had gone into the safety net was moved when its day was made.
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.log_chunks_default").await, 0);
    assert_eq!(Store::new(pool.clone()).ensure_log_days().await.unwrap(), 0);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn days_are_dropped_when_their_time_is_over_and_no_sooner(pool: PgPool) {
    let store = Store::new(pool.clone());
    run(&pool, "SELECT awo.ensure_log_partitions(current_date - 33, current_date - 29)")
        .await
        .unwrap();
    let (order, _) = order(&pool).await;
    for (seq, days) in [(1, 40), (2, 32), (3, 28), (4, 0)] {
        chunk(&pool, &order, seq, days).await;
    }
    let mut dropped = Vec::new();
    while let Some(day) = store.drop_log_day(30).await.unwrap() {
        dropped.push(day);
    }
    let expected: Vec<String> = sqlx::query_scalar(
        "SELECT 'log_chunks_' || to_char((now() AT TIME ZONE 'UTC')::date - n, 'YYYYMMDD') FROM unnest(ARRAY[33, 32, 31]) AS n",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(dropped, expected);
    assert_eq!(store.delete_history(History::StrayLog(30), 1000).await.unwrap(), 1);
    let left = "SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM awo.log_chunks";
    assert_eq!(
        text(&pool, left).await.unwrap(),
        "3 4",
        "a log that is cut off at its start has no gap"
    );
    assert_eq!(broken(&pool).await, [""; 0]);
    let said = refusal(run(&pool, "SELECT awo.drop_log_partition(0)").await);
    assert_eq!(said, "days is 0: expected 1 or more");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_reader_who_stays_long_delays_nobody_for_long(pool: PgPool) {
    run(&pool, "SELECT awo.ensure_log_partitions(current_date - 33, current_date - 33)")
        .await
        .unwrap();
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("SELECT * FROM awo.log_chunks").fetch_all(&mut *reader).await.unwrap();
    let store = Store::new(pool.clone());
    let error = store.drop_log_day(30).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    reader.rollback().await.unwrap();
    assert!(store.drop_log_day(30).await.unwrap().is_some());
}

async fn append(pool: &PgPool, job: i64, epoch: i64, order: &str, chunks: &[(Uuid, i64)]) -> bool {
    let count = chunks.len();
    sqlx::query_scalar(include_str!("../sql/run/append_log.sql"))
        .bind(job)
        .bind(epoch)
        .bind(order)
        .bind(vec![None::<String>; count])
        .bind(chunks.iter().map(|chunk| chunk.0).collect::<Vec<_>>())
        .bind(vec!["stdout"; count])
        .bind(chunks.iter().map(|chunk| chunk.1).collect::<Vec<_>>())
        .bind(vec![1; count])
        .bind(vec![b"x".to_vec(); count])
        .fetch_one(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn chunks_sent_by_many_at_once_are_stored_once_and_without_a_gap(pool: PgPool) {
    let (order, job) = order(&pool).await;
    let epoch = claim(&pool, job).await.unwrap().unwrap();
    let runs: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    let barrier = Arc::new(Barrier::new(6));
    let mut senders = Vec::new();
    for n in 0..6 {
        let (pool, order, runs) = (pool.clone(), order.clone(), runs.clone());
        let barrier = Arc::clone(&barrier);
        senders.push(tokio::spawn(async move {
            for offset in 0..20 {
                barrier.wait().await;
                // Two senders for each run: the second is the retry of a reply that seemed lost.
                let run = runs[n % 3];
                assert!(
                    append(&pool, job, epoch, &order, &[(run, offset * 2), (run, offset * 2 + 1)])
                        .await
                );
            }
        }));
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let once = "SELECT count(*) FROM (SELECT DISTINCT run_id, stream, file_offset FROM awo.log_chunks) AS c";
    assert_eq!(count(&pool, once).await, 120);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.log_chunks").await, 120);
    assert_eq!(count(&pool, "SELECT max(seq) FROM awo.log_chunks").await, 120);
    assert_eq!(broken(&pool).await, [""; 0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_stale_owner_appends_nothing_and_a_new_one_goes_on_after_an_older_release(pool: PgPool) {
    let (order, job) = order(&pool).await;
    let epoch = claim(&pool, job).await.unwrap().unwrap();
    let run_id = Uuid::new_v4();
    assert!(append(&pool, job, epoch, &order, &[(run_id, 0)]).await);
    assert!(!append(&pool, job, epoch + 1, &order, &[(run_id, 1)]).await);
    assert!(!append(&pool, job, epoch - 1, &order, &[(run_id, 1)]).await);
    // A worker of the release before wrote without the head.
    chunk(&pool, &order, 2, 0).await;
    chunk(&pool, &order, 3, 0).await;
    run(&pool, "UPDATE awo.leases SET epoch = epoch + 1").await.unwrap();
    assert!(append(&pool, job, epoch + 1, &order, &[(run_id, 9)]).await);
    let seqs = "SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM awo.log_chunks";
    assert_eq!(text(&pool, seqs).await.unwrap(), "1 2 3 4");
    run(&pool, "DELETE FROM awo.leases").await.unwrap();
    run(&pool, &format!("DELETE FROM agent_work_orders WHERE agent_work_order_id = '{order}'"))
        .await
        .unwrap();
    assert_eq!(
        count(&pool, "SELECT count(*) FROM awo.log_chunks").await,
        0,
        "it goes with its order"
    );
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.log_heads").await, 0);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_page_of_a_log_is_read_by_the_index_of_each_day(pool: PgPool) {
    run(&pool, "SELECT awo.ensure_log_partitions(current_date - 9, current_date)").await.unwrap();
    run(&pool, "INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, stream, data, created_at)
        SELECT 'wo-' || n % 40, n / 40, 1, 'stdout', 'x', now() - interval '9 days' + n * interval '13 seconds'
        FROM generate_series(1, 60000) AS n").await.unwrap();
    run(&pool, "ANALYZE awo.log_chunks").await.unwrap();
    let explain = format!("EXPLAIN {}", include_str!("../sql/orders/log_chunks.sql"));
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
        .bind("wo-7")
        .bind(500_i64)
        .bind(None::<String>)
        .bind(200_i64)
        .fetch_all(&pool)
        .await
        .unwrap();
    let plan = lines.join("\n");
    assert!(plan.contains("Index Scan using log_chunks_") && !plan.contains("Seq Scan"), "{plan}");
    migrate(&pool).await.unwrap();
}
