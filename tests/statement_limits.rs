//! No statement waits for ever and none commits after its caller is gone; a write of a run is tried again
//! for as long as its kind of error is worth it.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

#[path = "support/role.rs"]
mod role;

use std::time::{Duration, Instant};

use archon_awo::{
    clock::Clock,
    store::{self, Claimed, Database, DatabaseMode, OrderFacts, RunError, RunStore, Store},
};
use role::{Role, say, url_of};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest wait of a test for what must come; far above every limit that is tested.
const PATIENCE: Duration = Duration::from_secs(90);

async fn until(what: &str, pool: &PgPool, question: &'static str) {
    let start = Instant::now();
    while !sqlx::query_scalar::<_, bool>(question).fetch_one(pool).await.unwrap() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn connect(pool: &PgPool, mode: DatabaseMode) -> Database {
    store::connect(&url_of(pool).as_str().into(), mode, 3).await.unwrap()
}

async fn enqueue(pool: &PgPool) {
    say(pool, "SELECT awo_enqueue('acme/app', 'x', agent_work_order_id => 'one')").await;
}

async fn claim(store: &Store) -> Claimed {
    let queues = ["default".to_owned()];
    let (lease, aging) = (Duration::from_secs(30), Duration::ZERO);
    store.claim(Uuid::new_v4(), &queues, 1, lease, aging).await.unwrap().into_jobs().remove(0)
}

/// What a statement may take on the server: of the whole statement, of one wait for a lock, and of a
/// transaction that stands still.
async fn limits(database: &Database) -> (String, String, String) {
    sqlx::query_as(
        "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
            current_setting('idle_in_transaction_session_timeout')",
    )
    .fetch_one(database)
    .await
    .unwrap()
}

/// Whether somebody waits for a lock in this database ...
const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock')";
/// ... and whether nobody does any more.
const GONE: &str = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock')";

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_server_limits_every_statement_in_both_modes(pool: PgPool) {
    for mode in [DatabaseMode::Direct, DatabaseMode::Pooler] {
        let database = connect(&pool, mode).await;
        let of = |statement: &str| (statement.to_owned(), "5s".to_owned(), "1min".to_owned());
        assert_eq!(limits(&database).await, of("30s"), "{mode:?}");
        assert_eq!(limits(&database.at_length()).await, of("5min"), "{mode:?}");
        // The longer one was of its transaction alone.
        assert_eq!(limits(&database).await, of("30s"), "{mode:?}");
        database.connections().close().await;
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_claim_whose_answer_nobody_waits_for_takes_no_job_later(pool: PgPool) {
    enqueue(&pool).await;
    for mode in [DatabaseMode::Direct, DatabaseMode::Pooler] {
        let database = connect(&pool, mode).await;
        let mut locked = pool.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE awo.jobs IN ACCESS EXCLUSIVE MODE")
            .execute(&mut *locked)
            .await
            .unwrap();
        let store = Store::new(database.clone());
        let claiming = tokio::spawn(async move { claim(&store).await });
        until("the claim waits for the lock", &pool, WAITS).await;
        claiming.abort();
        // The lock is still held: the server itself must let the claim go.
        until("the server ends the claim", &pool, GONE).await;
        locked.rollback().await.unwrap();
        database.connections().close().await;
        let claimed: i64 =
            sqlx::query_scalar("SELECT count(*) FROM awo.leases").fetch_one(&pool).await.unwrap();
        assert_eq!(claimed, 0, "{mode:?}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_answer_that_does_not_come_is_given_up_and_its_connection_closed(pool: PgPool) {
    let database = connect(&pool, DatabaseMode::Direct).await;
    let hasty = database.answering_within(Duration::from_millis(300));
    let late = sqlx::query("SELECT pg_sleep(20)").execute(&hasty).await.unwrap_err();
    assert!(late.to_string().contains("no answer for 0 s"), "{late}");
    // The connection of the statement is not used again: all three of the pool are free at once.
    let all = (0..3).map(|_| sqlx::query("SELECT pg_sleep(0.1)").execute(&database));
    futures::future::try_join_all(all).await.unwrap();
}

/// A run of the order, on connections of a role that is not the owner of the schema.
struct Run {
    role: Role,
    database: Database,
    store: RunStore,
    lost: CancellationToken,
}

impl Run {
    async fn start(pool: &PgPool) -> Self {
        enqueue(pool).await;
        let role = Role::new(pool, "").await;
        role.may_work(pool).await;
        let database =
            store::connect(&role.url.as_str().into(), DatabaseMode::Direct, 2).await.unwrap();
        let store = Store::new(database.clone());
        let job = claim(&store).await;
        let lost = CancellationToken::new();
        let store = RunStore::new(store, job.fence(), lost.clone(), Clock::system());
        Self { role, database, store, lost }
    }

    fn write(store: &RunStore) -> tokio::task::JoinHandle<Result<(), RunError>> {
        let store = store.clone();
        tokio::spawn(async move {
            let facts = OrderFacts { commits: Some(1), ..OrderFacts::default() };
            store.update_order(&"one".parse().unwrap(), &facts).await
        })
    }

    async fn end(self, pool: &PgPool) {
        self.database.connections().close().await;
        self.role.drop(pool).await;
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_right_that_is_missing_is_waited_for_and_not_for_ever(pool: PgPool) {
    let run = Run::start(&pool).await;
    let revoke = format!("REVOKE ALL ON awo.leases FROM {}", run.role.name);
    say(&pool, &revoke).await;
    let writing = Run::write(&run.store);
    let patience = Duration::from_millis(200);
    let start = Instant::now();
    let given_up = Run::write(&run.store.clone().waiting_out(patience));
    let error = given_up.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("permission denied"), "{error}");
    assert!(start.elapsed() >= patience, "it was given up at once");
    assert!(!writing.is_finished(), "the other one may take minutes");
    say(&pool, &format!("GRANT ALL ON awo.leases TO {}", run.role.name)).await;
    writing.await.unwrap().unwrap();
    run.end(&pool).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_no_second_try_can_mend_is_told_at_once(pool: PgPool) {
    let run = Run::start(&pool).await;
    say(&pool, "ALTER TABLE awo.leases RENAME TO leases_away").await;
    let error = Run::write(&run.store).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("awo.leases"), "{error}");
    say(&pool, "ALTER TABLE awo.leases_away RENAME TO leases").await;
    run.end(&pool).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_database_that_is_away_is_waited_for_as_long_as_the_lease(pool: PgPool) {
    let run = Run::start(&pool).await;
    let name = run.role.name.clone();
    // Nobody of this role gets in: the server closes what is there and refuses what comes.
    say(&pool, &format!("ALTER ROLE {name} NOLOGIN")).await;
    let end =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'");
    say(&pool, &end).await;
    // A refusal would be given up at once.
    let hasty = run.store.clone().waiting_out(Duration::ZERO);
    let (written, lost) = (Run::write(&hasty), Run::write(&hasty));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!written.is_finished() && !lost.is_finished(), "the database may come back");
    say(&pool, &format!("ALTER ROLE {name} LOGIN")).await;
    written.await.unwrap().unwrap();
    lost.await.unwrap().unwrap();

    say(&pool, &format!("ALTER ROLE {name} NOLOGIN")).await;
    say(&pool, &end).await;
    let writing = Run::write(&hasty);
    run.lost.cancel();
    let error = writing.await.unwrap().unwrap_err();
    assert!(matches!(error, RunError::Stale(_)), "{error}");
    run.end(&pool).await;
}
