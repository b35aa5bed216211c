//! Which index each hot statement walks, on tables as full as a busy year leaves them. A plan that
//! reads whole tables is invisible on the ten rows of other tests.
#![expect(clippy::unwrap_used, reason = "tests")]

use archon_awo::sql;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

/// 20,000 waiting jobs of 50 repositories, 20,000 finished ones, 2,000 running under 4 workers.
const ROWS: &str = "
    INSERT INTO awo.repositories (repo_key, max_concurrent)
        SELECT 'r' || n, 64 FROM generate_series(0, 49) AS n;
    INSERT INTO awo.workers (worker_id, hostname, pid, version, queues, max_concurrent)
        SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'h', n, '1', '{default}', 64
        FROM generate_series(1, 4) AS n;
    ALTER TABLE awo.jobs DISABLE TRIGGER USER;
    INSERT INTO awo.jobs (kind, repo_key, priority, run_at)
        SELECT 'noop', 'r' || n % 50, n % 5, now() - n * interval '1 s' FROM generate_series(1, 20000) AS n;
    INSERT INTO awo.jobs (kind, repo_key, state, finished_at, run_at, lease_epoch)
        SELECT 'noop', 'r' || n % 50, 'succeeded', t, t, 1
        FROM generate_series(1, 20000) AS n, LATERAL (SELECT now() - n * interval '1 min') AS x (t);
    INSERT INTO awo.jobs (kind, repo_key, state, lease_epoch)
        SELECT 'noop', 'r' || n % 50, 'running', 1 FROM generate_series(0, 1999) AS n;
    ALTER TABLE awo.jobs ENABLE TRIGGER USER;
    INSERT INTO awo.leases (job_id, epoch, worker_id, repo_key, slot, expires_at)
        SELECT id, 1, ('00000000-0000-0000-0000-00000000000' || 1 + id % 4)::uuid, repo_key,
            row_number() OVER (PARTITION BY repo_key ORDER BY id), now() + interval '30 s'
        FROM awo.jobs WHERE state = 'running';
    INSERT INTO awo.attempts (job_id, epoch, attempt, worker_id)
        SELECT id, 1, 1, gen_random_uuid() FROM awo.jobs WHERE lease_epoch = 1;
    INSERT INTO awo.steps (job_id, step_name, epoch)
        SELECT id, 'execute', 1 FROM awo.jobs WHERE lease_epoch = 1;
";

/// A node that reads a table: `relation by index` for a lookup, `all of index` for a walk through the
/// whole of one, `relation in full`.
fn reads(plan: &Value, found: &mut Vec<String>) {
    match plan {
        Value::Array(nodes) => nodes.iter().for_each(|node| reads(node, found)),
        Value::Object(node) => {
            let text = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default();
            match (text("Node Type"), text("Relation Name"), text("Index Name")) {
                ("Seq Scan", relation, _) => found.push(format!("{relation} in full")),
                ("Index Scan" | "Index Only Scan", relation, index) => {
                    let lookup = node.contains_key("Index Cond");
                    let whole = format!("all of {index}");
                    found.push(if lookup { format!("{relation} by {index}") } else { whole });
                }
                ("Bitmap Index Scan", _, index) => found.push(format!("by {index}")),
                _ => {}
            }
            node.values().for_each(|value| reads(value, found));
        }
        _ => {}
    }
}

/// What a statement reads when it is planned once for all parameters, as a worker's connection does.
async fn plan(connection: &mut PgConnection, text: &str, parameters: &str) -> Vec<String> {
    let raw = |text: String| sqlx::raw_sql(AssertSqlSafe(text));
    raw(format!("SET plan_cache_mode = force_generic_plan; DEALLOCATE ALL; PREPARE hot AS {text}"))
        .execute(&mut *connection)
        .await
        .unwrap();
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE hot ({parameters})");
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain))
        .persistent(false)
        .fetch_one(connection)
        .await
        .unwrap();
    let mut found = Vec::new();
    reads(&plan, &mut found);
    found.sort();
    found.dedup();
    found
}

async fn full(pool: &PgPool) -> PgConnection {
    let mut connection = pool.acquire().await.unwrap().detach();
    // One transaction each: rows whose foreign keys are not checked yet forbid ALTER TABLE.
    for statement in ROWS.split_inclusive(';').chain(["ANALYZE"]) {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
    connection
}

/// Reads of `awo.jobs`, the table that grows.
fn of_jobs(reads: &[String]) -> Vec<&str> {
    let jobs = |read: &&String| read.starts_with("jobs ") || read.contains(" jobs_");
    reads.iter().filter(jobs).map(String::as_str).collect()
}

const WORKER: &str = "'00000000-0000-0000-0000-000000000001'";

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_claim_walks_the_indexes_made_for_it(pool: PgPool) {
    let mut connection = full(&pool).await;
    let parameters = format!("{WORKER}, '{{default}}', 5, 30, 900");
    let reads = plan(&mut connection, sql!("queue/claim"), &parameters).await;
    assert_eq!(
        of_jobs(&reads),
        [
            "jobs by jobs_claim",
            "jobs by jobs_due",
            "jobs by jobs_first",
            "jobs by jobs_oldest",
            "jobs by jobs_pkey"
        ],
        "{reads:?}"
    );
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_rescue_reads_leases_and_their_jobs_alone(pool: PgPool) {
    let mut connection = full(&pool).await;
    let reads =
        plan(&mut connection, sql!("queue/rescue"), "5, 30, '{1}', '{1}', '{2026-01-01}'").await;
    assert_eq!(of_jobs(&reads), ["jobs by jobs_running"], "{reads:?}");
    assert!(reads.contains(&"attempts by attempts_pkey".to_owned()), "{reads:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_heartbeat_finds_its_leases_and_jobs_by_key(pool: PgPool) {
    let mut connection = full(&pool).await;
    let parameters = format!("{WORKER}, '{{1,2}}', '{{1,1}}', '{{a,b}}', '{{0,0}}', 30");
    let reads = plan(&mut connection, sql!("queue/heartbeat"), &parameters).await;
    assert_eq!(of_jobs(&reads), ["jobs by jobs_pkey"], "{reads:?}");
    assert!(reads.contains(&"leases by leases_pkey".to_owned()), "{reads:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_settlement_finds_everything_by_key(pool: PgPool) {
    let mut connection = full(&pool).await;
    let parameters = "'{1,2}', '{1,1}', '{succeeded,retried}', '{NULL,NULL}', '{NULL,NULL}', '{0,0}', '{NULL,60}', '{NULL,0}'";
    let reads = plan(&mut connection, sql!("queue/settle"), parameters).await;
    assert_eq!(of_jobs(&reads), ["jobs by jobs_pkey", "jobs by jobs_running"], "{reads:?}");
    assert!(reads.iter().all(|read| read.contains(" by ")), "{reads:?}");
}

/// Nothing of a heartbeat touches an index, so that its updates stay within their page (HOT).
#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn no_index_covers_what_a_heartbeat_changes(pool: PgPool) {
    let indexed: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT c.relname || '.' || a.attname FROM pg_index i
         JOIN pg_class c ON c.oid = i.indrelid
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
         WHERE c.oid IN ('awo.leases'::regclass, 'awo.workers'::regclass) ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(indexed, ["leases.job_id", "leases.repo_key", "leases.slot", "workers.worker_id"]);
}
