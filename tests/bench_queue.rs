//! The bench of the queue runs, gives every value it promises and leaves nothing behind. Its numbers
//! are for the report of a release: a shared test machine is no place to judge them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::PathBuf, time::Duration};

use archon_awo::{
    bench::queue::{QueueBench, run},
    clock::Clock,
    config::{Config, Host},
};
use sqlx::{ConnectOptions, PgPool};

async fn leftovers(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname LIKE 'awo_bench_%'")
        .fetch_all(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrations = false)]
async fn every_promised_value_is_measured_and_nothing_is_left_behind(pool: PgPool) {
    let url = pool.connect_options().to_url_lossy().to_string();
    let mut host = Host::system();
    host.variables.insert("DATABASE_URL".into(), url.as_str().into());
    let config = Config::load(&host).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_archon-awo"));
    let mut plan = QueueBench::new(url.into(), config.queue, program, config.search_path);
    plan.folder = folder.path().to_owned();
    (plan.rounds, plan.jobs, plan.pickups) = (1, 300, 5);
    (plan.idle, plan.claims, plan.backlog) = (Duration::from_secs(6), 20, 20_000);
    let report = run(&plan, &Clock::system(), &|_, _, _| ()).await.unwrap();
    let names: Vec<&str> = report.results.iter().map(|result| result.name).collect();
    assert_eq!(
        names,
        [
            "claim_complete_c8",
            "claim_complete_c64",
            "claim_complete_c64_batched",
            "pickup_p50",
            "pickup_p99",
            "pickup_p50_enqueue",
            "idle_statements",
            "idle_memory",
            "claim_p99_1k",
            "claim_p99_100k",
            "claim_p99_1m",
            "claim_growth_1m",
            "claim_blocked_100k",
        ]
    );
    for result in &report.results {
        assert!(result.value > 0.0, "{result:?}");
        assert_eq!(result.floor.is_none(), result.name == "idle_statements", "{result:?}");
    }
    assert!(report.database.is_some_and(|database| !database.version.is_empty()));
    assert_eq!(leftovers(&pool).await, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
