//! Marks of free space, quotas of sandboxes, and a database that is out of space.

use std::fs;

use serde_json::Value;
use sqlx::PgPool;

use crate::{
    harness::{Harness, until},
    small_volume::Volume,
    telemetry::{address, get},
};

const STEPS: &str = "create-branch planning execute commit create-pr";

async fn health(address: &str) -> Value {
    let (code, body) = get(address, "/health").await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn below_the_marks_nothing_new_is_claimed_and_what_runs_goes_on(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let volume = Volume::mount(&harness.path("repositories"), "size=64m").await;
    harness.volume = Some(volume.unwrap());
    harness.hold("execute");
    harness.start_worker();
    let address = address(&harness, "worker-0.log").await;
    harness.order_named("wo-runs", "Write a file", STEPS).await;
    harness.until_agent_in("execute").await;
    assert_eq!(health(&address).await["status"], "healthy");

    // 5% of 64 MiB is the soft mark, 1% the hard one.
    let volume = || harness.volume.as_ref().unwrap();
    volume().fill(2 << 20).unwrap();
    harness.until_logged("no orders are claimed").await;
    let low = health(&address).await;
    assert_eq!(low["status"], "degraded");
    let warning = low["warnings"][0].as_str().unwrap();
    assert!(warning.contains("less than AWO_DISK_SOFT_FREE (3.1 MiB)"), "{warning}");
    assert_eq!(low["volumes"][0]["level"], "low");
    assert_eq!(get(&address, "/readyz").await.0, 200);
    harness.order_named("wo-waits", "Write a file", STEPS).await;
    harness.let_go("execute");
    harness.until_status("wo-runs", "completed").await;
    assert_eq!(harness.outcome("wo-waits").await.0, "pending");
    harness.until("SELECT awo.waiting_for('wo-waits') ->> 'reason' = 'disk_low'").await;

    volume().fill(512 << 10).unwrap();
    harness.until_logged("cleaning up at once").await;
    assert_eq!(get(&address, "/readyz").await, (503, "a volume is full\n".to_owned()));
    assert_eq!(health(&address).await["volumes"][0]["level"], "full");
    let (_, metrics) = get(&address, "/metrics").await;
    for line in [
        "awo_disk_level{volume=\"repositories\"} 2",
        "awo_disk_level{volume=\"work-orders\"} 0",
        "awo_disk_cleanups_total 1",
        "awo_disk_total_bytes{volume=\"repositories\"} 67108864",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert_eq!(harness.outcome("wo-waits").await.0, "pending");

    volume().free().unwrap();
    harness.until_status("wo-waits", "completed").await;
    harness.until("SELECT bool_and(claims_nothing_because IS NULL) FROM awo.workers").await;
    assert_eq!(health(&address).await["status"], "healthy");
    assert_eq!(get(&address, "/readyz").await.0, 200);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn below_the_hard_mark_leftovers_go_and_orders_run_again(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let volume = Volume::mount(&harness.path("repositories"), "size=64m").await.unwrap();
    let leftover = volume.outside(".cache/mirrors/0123456789abcdef/staging.git");
    fs::create_dir_all(&leftover).unwrap();
    fs::write(leftover.join("tmp_pack"), vec![1; 32 << 20]).unwrap();
    volume.fill(0).unwrap();
    harness.volume = Some(volume);
    harness.start_worker();
    harness.order_named("wo-1", "Write a file", STEPS).await;
    harness.until_status("wo-1", "completed").await;
    assert!(!leftover.exists());
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_agent_over_the_quota_of_its_sandbox_is_stopped(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("AWO_SANDBOX_QUOTA", "4MiB");
    let script = "[ $AWO_STEP = execute ] || return 0\nhead -c 9000000 /dev/zero > big.bin\n\
                  while [ -e \"$folder/hold-after\" ]; do sleep 0.05; done";
    harness.tell_agent("extra", script);
    harness.hold("after");
    harness.start_worker();
    harness.order_named("wo-large", "Write a file", STEPS).await;
    harness.until_status("wo-large", "failed").await;
    let (_, class, sentence, attempt) = harness.outcome("wo-large").await;
    assert_eq!((class.as_deref(), attempt), (Some("disk"), 1), "no retry mends a quota");
    let sentence = sentence.unwrap();
    assert!(sentence.contains("more than AWO_SANDBOX_QUOTA (4 MiB)"), "{sentence}");
    let runs = harness.agent_runs();
    let run = &runs.iter().find(|run| run[1] == "execute").unwrap()[0];
    until("no process of the agent", || crate::harness::processes_of(run).is_empty()).await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_database_without_space_is_waited_for(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    harness.start_worker();
    harness.order_named("wo-1", "Write a file", STEPS).await;
    harness.until_agent_in("execute").await;
    // What Postgres says when it cannot extend a file, for all that a run and its end write.
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin
            raise exception 'could not extend file: No space left on device' using errcode = '53100';
        end $$";
    sqlx::query(refuse).execute(&harness.pool).await.unwrap();
    for table in ["agent_work_order_steps", "awo.steps", "awo.log_heads"] {
        let statement = format!(
            "create trigger refuse before insert or update on {table}
             for each statement execute function refuse()"
        );
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&harness.pool).await.unwrap();
    }
    harness.let_go("execute");
    harness.until_logged("waiting for the database").await;
    sqlx::query("drop function refuse cascade").execute(&harness.pool).await.unwrap();
    harness.until_status("wo-1", "completed").await;
    assert_eq!(harness.outcome("wo-1").await.3, 1, "it cost an attempt");
    let steps = harness.steps("wo-1").await;
    assert!(steps.iter().all(|step| step.ends_with(" 1 ok")), "{steps:?}");
    harness.assert_sound().await;
}
