//! Broken promises that the database itself can see, noted as each transaction commits.

use std::time::Duration;

use archon_awo::store::{MIGRATOR, Settlement, Store};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{cluster::Cluster, orders::order};

/// Installs the audit in a migrated database.
pub async fn install(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(include_str!("audit.sql")).execute(pool).await.map(drop)
}

/// What was noted: the sort of violation, and its particulars.
pub async fn violations(pool: &PgPool) -> Result<Vec<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "select what, concat_ws(' ', what, 'job', job_id, 'epoch', epoch, at, detail)
         from audit.violations order by at",
    )
    .fetch_all(pool)
    .await
}

/// The audit is silent about what an owner does, and notes everything else.
pub async fn check() {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let cluster = Cluster::start(folder.path()).await.unwrap();
    let pool = cluster.pool();
    MIGRATOR.run(&pool).await.unwrap();
    install(&pool).await.unwrap();
    order(&pool, "wo-f00000", "file:///srv/app.git").await.unwrap();
    let store = Store::new(&pool);
    let claim = async || {
        let queues = ["default".to_owned()];
        let minute = Duration::from_mins(1);
        let claim = store.claim(Uuid::new_v4(), &queues, 1, minute, Duration::ZERO).await.unwrap();
        claim.into_jobs()[0].fence()
    };
    let run = async |statement: &'static str| {
        sqlx::raw_sql(statement).execute(&pool).await.unwrap();
    };
    let sorts = async || {
        let found = violations(&pool).await.unwrap();
        found.into_iter().map(|(what, _)| what).collect::<Vec<_>>()
    };

    let first = claim().await;
    run("insert into awo.steps (job_id, step_name, epoch) select id, 'planning', 1 from awo.jobs")
        .await;
    let ended = Settlement::Interrupted("restarted".to_owned());
    assert_eq!(store.settle(&[(first, &ended)]).await.unwrap().len(), 1);
    assert_eq!(sorts().await, [""; 0], "an owner writes and settles");

    run("insert into awo.steps (job_id, step_name, epoch) select id, 'execute', 1 from awo.jobs")
        .await;
    assert_eq!(sorts().await, ["write without a lease"]);
    let second = claim().await;
    assert_eq!(second.epoch, 2);
    run("update awo.steps set output = '{}' where step_name = 'planning'").await;
    assert_eq!(sorts().await.last().unwrap(), "stale write");
    run("update awo.steps set epoch = 2, finished_at = now() where step_name = 'planning'").await;
    assert_eq!(sorts().await.len(), 2, "the new owner goes on with the step");
    run("update awo.steps set runs = runs + 1 where step_name = 'planning'").await;
    run("delete from awo.steps where step_name = 'planning'").await;
    assert_eq!(sorts().await[2..], ["finished step touched"; 2]);
    // The product's own rule refuses this, so it steps aside here.
    run(
        "alter table awo.jobs disable trigger guard_job_state; update awo.jobs set lease_epoch = 1",
    )
    .await;
    assert_eq!(sorts().await[4..], ["job went backwards"]);
}
