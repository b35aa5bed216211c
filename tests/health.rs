//! The worker's HTTP server, asked over real connections.
#![expect(clippy::unwrap_used, reason = "tests")]

mod command;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use archon_awo::{
    clock::Clock,
    config::{Config, Host},
    http::{self, HttpState, WorkerStatus},
    store::Store,
    telemetry::Metrics,
};
use command::Program;
use nix::{
    sys::{
        resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
        signal::{Signal, kill},
        time::TimeValLike,
    },
    unistd::Pid,
};
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    status: watch::Sender<WorkerStatus>,
    metrics: Metrics,
    stop: CancellationToken,
    _home: TempDir,
}

async fn server(pool: &PgPool, more: &[(&str, &str)]) -> Server {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    let mut variables = vec![
        ("HOME", path),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("ARCHON_AWO_PORT", "0"),
        ("AWO_AGENT", "command"),
        ("AWO_AGENT_COMMAND", "/bin/true"),
    ];
    variables.extend(more);
    let config = Arc::new(Config::load(&Host::with(variables)).unwrap());
    let metrics = Metrics::local().unwrap();
    let mut beating = WorkerStatus::default();
    beating.pulse.acknowledged = Some(Clock::system().now());
    let (status, worker) = watch::channel(beating);
    let listener = http::listen(&config).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let store = Store::new(pool.clone());
    let state = HttpState::new(store, config, Clock::system(), metrics.clone(), worker);
    tokio::spawn(http::serve(listener, state, stop.clone()));
    Server { address, status, metrics, stop, _home: home }
}

impl Server {
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn health(&self) -> (u16, Value) {
        let (code, body) = self.get("/health").await;
        (code, serde_json::from_str(&body).unwrap())
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_that_can_work_is_healthy(pool: PgPool) {
    let server = server(&pool, &[]).await;
    let (code, health) = server.health().await;
    assert_eq!((code, &health["status"]), (200, &"healthy".into()), "{health}");
    assert_eq!(health["service"], "agent-work-orders");
    assert_eq!((&health["enabled"], &health["storage_type"]), (&true.into(), &"postgres".into()));
    assert_eq!(health["dependencies"]["database"], serde_json::json!({ "available": true }));
    assert_eq!(health["dependencies"]["git"]["available"], true);
    assert_eq!(health["dependencies"]["claude_cli"]["available"], false);
    assert_eq!(server.get("/livez").await.0, 200);
    assert_eq!(server.get("/readyz").await.0, 200);
    assert_eq!(server.get("/nothing").await.0, 404);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_without_its_agent_is_unhealthy(pool: PgPool) {
    let server = server(&pool, &[("AWO_AGENT", "claude"), ("CLAUDE_CLI_PATH", "/no/claude")]).await;
    let (code, health) = server.health().await;
    assert_eq!((code, &health["status"]), (503, &"unhealthy".into()));
    let problem = health["problems"][0].as_str().unwrap();
    assert!(problem.contains("CLAUDE_CLI_PATH names the agent \"/no/claude\""), "{problem}");

    let url = format!("http://{}", server.address);
    let asked = move || Program::new().run(&["health", "--url", &url]);
    let ran = tokio::task::spawn_blocking(asked).await.unwrap();
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "unhealthy\n"));
    assert!(ran.stderr.contains("cannot work: CLAUDE_CLI_PATH"), "{}", ran.stderr);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_without_database_is_unhealthy_but_alive(pool: PgPool) {
    let server = server(&pool, &[]).await;
    pool.close().await;
    let (code, health) = server.health().await;
    assert_eq!((code, &health["dependencies"]["database"]["available"]), (503, &false.into()));
    assert_eq!(server.get("/readyz").await.0, 503);
    assert_eq!(server.get("/livez").await.0, 200);
    assert_eq!(server.get("/metrics").await.0, 200);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_draining_worker_is_degraded_and_not_ready(pool: PgPool) {
    let server = server(&pool, &[]).await;
    server.status.send_modify(|status| (status.draining, status.running) = (true, 2));
    let (code, health) = server.health().await;
    assert_eq!((code, &health["status"]), (200, &"degraded".into()));
    assert_eq!(health["worker"], serde_json::json!({ "draining": true, "running": 2 }));
    assert_eq!(server.get("/readyz").await.0, 503);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_workers_of_all_hosts_are_counted(pool: PgPool) {
    sqlx::query(
        "INSERT INTO awo.workers (worker_id, hostname, pid, version, queues, max_concurrent,
             heartbeat_at, draining_at, stopped_at)
         VALUES (gen_random_uuid(), 'a', 1, '1', '{}', 1, now() - interval '3 seconds', NULL, NULL),
                (gen_random_uuid(), 'b', 1, '1', '{}', 1, now() - interval '9 seconds', NULL, NULL),
                (gen_random_uuid(), 'c', 1, '1', '{}', 1, now() - interval '9 seconds', now(), NULL),
                (gen_random_uuid(), 'd', 1, '1', '{}', 1, now() - interval '2 minutes', NULL, NULL),
                (gen_random_uuid(), 'e', 1, '1', '{}', 1, now(), NULL, now())",
    )
    .execute(&pool)
    .await
    .unwrap();
    let workers = server(&pool, &[]).await.health().await.1["workers"].clone();
    let count = |state| workers[state].as_i64();
    assert_eq!(
        (count("alive"), count("draining"), count("dead")),
        (Some(2), Some(1), Some(1)),
        "{workers}"
    );
    let last = workers["last_heartbeat_seconds"].as_f64().unwrap();
    assert!((3.0..9.0).contains(&last), "{workers}");

    let server = server(&pool, &[]).await;
    pool.close().await;
    assert_eq!(server.health().await.1["workers"], Value::Null, "nobody knows");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_whose_heartbeats_are_lost_is_unhealthy(pool: PgPool) {
    let times = [("AWO_HEARTBEAT", "10ms"), ("AWO_SELF_FENCE", "30ms"), ("AWO_LEASE", "1s")];
    let server = server(&pool, &times).await;
    let long_ago = tokio::time::Instant::now().checked_sub(Duration::from_secs(1));
    server.status.send_modify(|status| status.pulse.acknowledged = long_ago);
    let (code, health) = server.health().await;
    let problem = health["problems"][0].as_str().unwrap();
    assert_eq!(code, 503);
    assert!(problem.starts_with("no heartbeat was acknowledged for 1."), "{problem}");
    assert_eq!(server.get("/readyz").await.0, 503);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_that_cannot_renew_leases_is_degraded_and_not_ready(pool: PgPool) {
    let server = server(&pool, &[]).await;
    let now = Clock::system().now();
    let not_yet = "no heartbeat was acknowledged yet: no orders are claimed before";
    let failed = "the last heartbeat failed (too many connections for role \"awo\"): no orders are \
                  claimed until one is acknowledged";
    for (failing, sentence) in [(false, not_yet), (true, failed)] {
        server.status.send_modify(|status| {
            status.pulse.acknowledged = failing.then_some(now);
            status.pulse.failed = failing.then_some(now + Duration::from_millis(1));
            status.pulse.reason = failing.then(|| "too many connections for role \"awo\"".into());
        });
        let (code, health) = server.health().await;
        assert_eq!((code, &health["status"]), (200, &"degraded".into()), "{health}");
        assert_eq!(health["warnings"], serde_json::json!([sentence]));
        let ready = server.get("/readyz").await;
        let words = "heartbeats are not acknowledged: no orders are claimed\n";
        assert_eq!(ready, (503, words.to_owned()));
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn metrics_hold_counters_from_the_start_and_the_depth_of_the_queues(pool: PgPool) {
    sqlx::query(
        "INSERT INTO public.agent_work_orders (repository_url, user_request)
         VALUES ('https://github.com/o/r', 'x'), ('https://github.com/o/s', 'y')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let server = server(&pool, &[]).await;
    server.metrics.job_finished("failed", Some("auth"));
    let hours = Duration::from_secs(7000);
    server.metrics.step_finished(archon_awo::domain::StepName::Execute, "succeeded", hours);
    let (code, text) = server.get("/metrics").await;
    assert_eq!(code, 200);
    let lacks = |line: &str| !text.lines().any(|known| known.starts_with(line));
    for line in [
        "awo_queue_depth{queue=\"default\"} 2",
        "awo_queue_oldest_wait_seconds{queue=\"default\"} 0.",
        "awo_jobs_finished_total{error_class=\"auth\",outcome=\"failed\"} 1",
        "awo_step_duration_seconds_bucket{outcome=\"succeeded\",step=\"execute\",le=\"3600\"} 0",
        "awo_step_duration_seconds_bucket{outcome=\"succeeded\",step=\"execute\",le=\"7200\"} 1",
        "awo_rescues_total 0",
        "awo_stale_writes_refused_total 0",
        "awo_self_fences_total 0",
        "awo_cancels_total 0",
        "awo_workers{state=\"alive\"} 0",
        "awo_stuck_jobs 0",
        "awo_orders_ended{status=\"failed\"} 0",
        "awo_heartbeat_failures_total 0",
        "awo_cost_usd_total 0",
    ] {
        assert!(!lacks(line), "{line} is not in\n{text}");
    }
}

/// The lines of `/metrics` that name an instrument.
async fn shown(server: &Server, name: &str) -> Vec<String> {
    let (code, text) = server.get("/metrics").await;
    assert_eq!(code, 200);
    let named = |line: &&str| line.starts_with(name) && !line.starts_with('#');
    text.lines().filter(named).map(str::to_owned).collect()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn figures_of_the_fleet_are_read_at_the_scrape_by_whoever_is_asked(pool: PgPool) {
    let run = async |statement: &'static str| sqlx::query(statement).execute(&pool).await.unwrap();
    run("INSERT INTO awo.workers (worker_id, hostname, pid, version, queues, max_concurrent)
         VALUES (gen_random_uuid(), 'a', 1, '1', '{default}', 1)")
    .await;
    run("INSERT INTO agent_work_orders (repository_url, user_request)
         SELECT 'https://github.com/o/r', 'x' FROM generate_series(1, 3)")
    .await;
    run("SELECT awo_cancel(min(agent_work_order_id)) FROM agent_work_orders").await;
    run("UPDATE awo.jobs SET state = 'failed' WHERE id = (SELECT max(id) FROM awo.jobs WHERE state = 'queued')").await;
    run("UPDATE awo.jobs SET run_at = now() - interval '20 minutes' WHERE state = 'queued'").await;
    run("INSERT INTO awo.checks (name, found) VALUES ('broken_promises', 2)").await;
    // Two replicas that have run no maintenance: each knows.
    for replica in [server(&pool, &[]).await, server(&pool, &[]).await] {
        assert_eq!(shown(&replica, "awo_stuck_jobs").await, ["awo_stuck_jobs 1"]);
        assert_eq!(shown(&replica, "awo_broken_promises").await, ["awo_broken_promises 2"]);
        assert_eq!(
            shown(&replica, "awo_workers").await,
            [
                "awo_workers{state=\"alive\"} 1",
                "awo_workers{state=\"dead\"} 0",
                "awo_workers{state=\"draining\"} 0"
            ]
        );
        // Nobody ran the two that have ended: they are counted all the same.
        assert_eq!(
            shown(&replica, "awo_orders_ended").await,
            [
                "awo_orders_ended{status=\"cancelled\"} 1",
                "awo_orders_ended{status=\"completed\"} 0",
                "awo_orders_ended{status=\"failed\"} 1"
            ]
        );
    }
    // They clear by themselves, and a check that is too old says nothing.
    run("UPDATE awo.jobs SET run_at = now() WHERE state = 'queued'").await;
    run("UPDATE awo.checks SET checked_at = now() - interval '31 minutes'").await;
    let replica = server(&pool, &[]).await;
    assert_eq!(shown(&replica, "awo_stuck_jobs").await, ["awo_stuck_jobs 0"]);
    assert_eq!(shown(&replica, "awo_broken_promises").await, [""; 0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn figures_that_cannot_be_read_any_more_are_not_shown(pool: PgPool) {
    let server = server(&pool, &[]).await;
    assert_eq!(shown(&server, "awo_queue_depth").await, ["awo_queue_depth{queue=\"default\"} 0"]);
    pool.close().await;
    let begin = Clock::system().now();
    // The last reading counts for a moment.
    while !shown(&server, "awo_queue_depth").await.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(30), "shown for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for name in ["awo_workers", "awo_stuck_jobs", "awo_orders_ended"] {
        assert_eq!(shown(&server, name).await, [""; 0]);
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_server_stops_when_told_to(pool: PgPool) {
    let server = server(&pool, &[]).await;
    assert_eq!(server.get("/livez").await.0, 200);
    server.stop.cancel();
    let begin = Clock::system().now();
    while TcpStream::connect(server.address).await.is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the port is still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrations = false)]
async fn a_real_worker_migrates_answers_health_and_ends_on_sigterm(pool: PgPool) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = Program::on(&pool).with("ARCHON_AWO_PORT", &port.to_string());
    tokio::task::spawn_blocking(move || {
        let child = program.spawn(&["worker"]);
        let begin = Clock::system().now();
        while program.run(&["health"]).code != 0 {
            assert!(begin.elapsed() < Duration::from_secs(20), "the worker is not healthy");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(program.run(&["health"]).ok(), "ok\n");
        // The worker has brought the schema up to date.
        assert_eq!(program.run(&["migrate", "--check"]).code, 0);
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        // Its log is JSON, and standard output is left alone.
        assert_eq!(output.stdout, b"");
        for line in String::from_utf8(output.stderr).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
        }
        let error = program.run(&["health"]);
        assert_eq!(error.code, 1);
        assert!(error.stderr.contains("cannot ask the worker at http://127.0.0.1:"));
    })
    .await
    .unwrap();
}

#[test]
fn health_refuses_an_address_it_cannot_ask() {
    Program::new().run(&["health", "--url", "ftp://x"]).refused(2, "expected http://host:port");
}

/// Opens a connection and says `words` on it.
async fn connection(address: SocketAddr, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    stream
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn connections_that_ask_for_nothing_end_and_keep_nobody_out(pool: PgPool) {
    let server = server(&pool, &[]).await;
    let began = Clock::system().now();
    let mut slow = connection(server.address, "GET /livez HTTP/1.1\r\nHost: x\r\n").await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connection(server.address, "").await);
    }
    // More than there may be: the oldest went, and whoever asks is answered.
    assert_eq!(server.get("/livez").await.0, 200);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the oldest one was kept");
    let mut youngest = silent.pop().unwrap();
    let ended =
        tokio::time::timeout(Duration::from_secs(30), youngest.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "a connection may stay without asking");
    assert!(Clock::system().now() - began >= Duration::from_secs(8), "it had no time to ask");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_shortage_of_descriptors_passes(pool: PgPool) {
    let server = server(&pool, &[]).await;
    assert_eq!(server.get("/livez").await.0, 200);
    let first = connection(server.address, "").await;
    // The clients are of this process too, so they take what is left.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, open + 40, hard).unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect(server.address).await {
        held.push(stream);
    }
    let spent = || getrusage(UsageWho::RUSAGE_SELF).unwrap().user_time().num_milliseconds();
    let before = spent();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(spent() - before < 500, "it spins: {} ms", spent() - before);
    drop(held);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let asked = async { while server.get("/livez").await.0 != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
    drop(first);
}
