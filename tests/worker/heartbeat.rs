//! A worker that cannot renew leases claims nothing, and nothing but the database keeps it from
//! renewing them.

use std::{
    sync::{Arc, Barrier, mpsc},
    time::{Duration, Instant},
};

use archon_awo::{
    clock::Clock,
    config::{Config, Host, QueueConfig},
    lease::{LeaseKeeper, Pulse},
    queue::{Claimer, Engine, Lane, Pace},
    services::Services,
    store::{DatabaseMode, Dial, Settlement, Store},
    telemetry::Metrics,
};
use futures::FutureExt;
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_mins(1);

fn timings() -> QueueConfig {
    let times = [
        ("HOME", "/nonexistent"),
        ("AWO_AGENT", "command"),
        ("AWO_AGENT_COMMAND", "/bin/true"),
        ("AWO_LEASE", "3s"),
        ("AWO_SELF_FENCE", "2s"),
        ("AWO_HEARTBEAT", "300ms"),
        ("AWO_POLL_MIN", "50ms"),
        ("AWO_POLL_MAX", "100ms"),
    ];
    Config::load(&Host::with(times)).unwrap().queue
}

/// A role that may do what the owner may, but is counted.
struct Role {
    name: String,
    owner: PgPool,
    dial: Dial,
}

impl Role {
    async fn with_limit(owner: &PgPool, connections: i32) -> Self {
        let name = format!("worker_{}", Uuid::new_v4().simple());
        let options = (*owner.connect_options()).clone();
        let options = options.username(&name).password("secret").application_name("heartbeat");
        let dial = Dial { options, mode: DatabaseMode::Direct, spare: None };
        let role = Self { name, owner: owner.clone(), dial };
        role.run("create role {} login password 'secret' in role postgres").await;
        role.limit(connections).await;
        role
    }

    async fn run(&self, statement: &str) {
        let statement = statement.replace("{}", &self.name);
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.owner).await.unwrap();
    }

    async fn limit(&self, connections: i32) {
        self.run(&format!("alter role {{}} connection limit {connections}")).await;
    }

    /// Ends the connections of the role by which heartbeats are sent.
    async fn end_heartbeats(&self) {
        self.run(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where usename = '{}' and application_name = 'heartbeat'",
        )
        .await;
    }

    async fn gone(self) {
        let ended = async || {
            sqlx::query_scalar::<_, bool>(
                "select count(pg_terminate_backend(pid)) = 0 from pg_stat_activity where usename = $1",
            )
            .bind(&self.name)
            .fetch_one(&self.owner)
            .await
            .unwrap()
        };
        until("the role has no connections", ended).await;
        self.run("drop role {}").await;
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn keeper(dial: Dial, worker: Uuid) -> Arc<LeaseKeeper> {
    let (drain, interrupt) = (CancellationToken::new(), CancellationToken::new());
    let metrics = Metrics::local().unwrap();
    LeaseKeeper::new(worker, timings(), Clock::system(), dial, drain, interrupt, metrics)
}

/// Starts the beats of `keeper`; they end with the second value.
fn beat(keeper: &Arc<LeaseKeeper>, services: &mut Services) -> CancellationToken {
    let (stop, beating) = (CancellationToken::new(), Arc::clone(keeper));
    let until = stop.clone();
    let beating = async move { beating.run(until).await };
    services.thread("heartbeat", stop.clone(), beating.map(Ok)).unwrap();
    stop
}

fn claimer(pool: &PgPool, keeper: &Arc<LeaseKeeper>, worker: Uuid) -> Arc<Claimer> {
    let (timings, drain) = (timings(), CancellationToken::new());
    let (store, metrics) = (Store::new(pool.clone()), Metrics::local().unwrap());
    let pace = Pace { min: timings.poll_min, max: timings.poll_max, idle: timings.poll_max };
    let keeper = Arc::clone(keeper);
    let engine = Engine::new(worker, store, Clock::system(), metrics, timings, keeper, drain);
    let handler = Arc::new(|_, _| async { Settlement::Succeeded(None) }.boxed());
    let queues = vec!["default".to_owned()];
    Claimer::new(engine, Lane { queues, slots: 4, pace, handler, gate: None })
}

async fn order(pool: &PgPool) {
    sqlx::query("select awo_enqueue('https://github.com/o/' || gen_random_uuid(), 'x')")
        .execute(pool)
        .await
        .unwrap();
}

async fn claims(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from awo.attempts").fetch_one(pool).await.unwrap()
}

/// Waits until `count` more beats have failed; a claimer had the time to look for each of them.
async fn until_failed(keeper: &LeaseKeeper, count: usize) {
    let mut pulse = keeper.pulse();
    pulse.borrow_and_update();
    let failing = async {
        for _ in 0..count {
            pulse.wait_for(Pulse::is_failing).await.unwrap();
            pulse.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, failing).await.expect("beats that fail");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_whose_heartbeats_are_refused_claims_nothing(pool: PgPool) {
    let (role, worker) = (Role::with_limit(&pool, 0).await, Uuid::new_v4());
    let (keeper, mut services) = (keeper(role.dial.clone(), worker), Services::default());
    let claimer = claimer(&pool, &keeper, worker);
    order(&pool).await;
    let claim = tokio::spawn(Arc::clone(&claimer).next());
    assert!(keeper.problem().unwrap().starts_with("no heartbeat was acknowledged yet"));
    let stop = beat(&keeper, &mut services);
    until_failed(&keeper, 5).await;
    assert_eq!(claims(&pool).await, 0, "the pool works, and yet");
    let problem = keeper.problem().unwrap();
    assert!(problem.contains("too many connections for role"), "{problem}");

    role.limit(-1).await;
    let claimed = tokio::time::timeout(PATIENCE, claim).await.unwrap().unwrap();
    assert_eq!(claimed.len(), 1, "as soon as one was acknowledged");
    assert_eq!(keeper.problem(), None);

    role.limit(0).await;
    role.end_heartbeats().await;
    until("the beats fail", async || keeper.problem().is_some()).await;
    order(&pool).await;
    let claim = tokio::spawn(Arc::clone(&claimer).next());
    until_failed(&keeper, 5).await;
    assert_eq!(claims(&pool).await, 1, "none after beats had worked before");
    claim.abort();
    stop.cancel();
    services.finish(PATIENCE).await;
    role.gone().await;
}

/// Whether the only lease is held, and how many seconds ago the server was asked to note `since`.
async fn held_since(pool: &PgPool, since: f64) -> bool {
    let (held, passed): (bool, f64) = sqlx::query_as(
        "select bool_and(expires_at > clock_timestamp()) and count(*) = 1,
             (extract(epoch from clock_timestamp()) - $1)::double precision from awo.leases",
    )
    .bind(since)
    .fetch_one(pool)
    .await
    .unwrap();
    assert!(held, "the lease ran out within {passed} s");
    passed > (LEASE * 2).as_secs_f64()
}

async fn now(pool: &PgPool) -> f64 {
    let now = "select extract(epoch from clock_timestamp())::double precision";
    sqlx::query_scalar(now).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn leases_are_renewed_over_the_pool_when_no_other_connection_is_to_be_had(pool: PgPool) {
    let (role, worker) = (Role::with_limit(&pool, -1).await, Uuid::new_v4());
    let own = PgPoolOptions::new().max_connections(2);
    let options = role.dial.options.clone().application_name("pool");
    let own = own.connect_with(options).await.unwrap();
    let dial = Dial { spare: Some((&own).into()), ..role.dial.clone() };
    let (keeper, mut services) = (keeper(dial, worker), Services::default());
    order(&pool).await;
    let stop = beat(&keeper, &mut services);
    let claimed = claimer(&own, &keeper, worker).next().await;
    assert_eq!(claimed.len(), 1);
    let connected = async || {
        let all = "select count(*) = 2 from pg_stat_activity where usename = $1";
        sqlx::query_scalar(all).bind(&role.name).fetch_one(&pool).await.unwrap()
    };
    until("pool and heartbeat are connected", connected).await;

    role.limit(1).await;
    role.end_heartbeats().await;
    let since = now(&pool).await;
    until("two leases later", async || held_since(&pool, since).await).await;
    stop.cancel();
    services.finish(PATIENCE).await;
    drop(claimed);
    own.close().await;
    role.gone().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn threads_that_are_blocked_longer_than_a_lease_cost_no_lease(pool: PgPool) {
    const THREADS: usize = 2;
    let worker = Uuid::new_v4();
    let dial = Dial::from((*pool.connect_options()).clone());
    let keeper = keeper(dial, worker);
    let main = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .unwrap();
    let mut services = Services::default();
    let stop = {
        let _on_main = main.enter();
        beat(&keeper, &mut services)
    };
    order(&pool).await;
    let claimed = claimer(&pool, &keeper, worker).next().await;
    assert_eq!(claimed.len(), 1);

    let all_blocked = Arc::new(Barrier::new(THREADS + 1));
    let mut releases = Vec::new();
    for _ in 0..THREADS {
        let ((release, released), blocked) = (mpsc::channel::<()>(), Arc::clone(&all_blocked));
        releases.push(release);
        main.spawn(async move {
            blocked.wait();
            released.recv().unwrap_err();
        });
    }
    tokio::task::spawn_blocking(move || all_blocked.wait()).await.unwrap();
    let since = now(&pool).await;
    until("two leases later", async || held_since(&pool, since).await).await;
    drop(releases);
    stop.cancel();
    drop(claimed);
    main.spawn(services.finish(PATIENCE)).await.unwrap();
    main.shutdown_background();
}
