//! What is put back because it cannot run: again and again, less and less often, and not for ever.

use std::{fs::File, time::Duration};

use archon_awo::store::{Settlement, Store};
use nix::sys::signal::Signal;
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::Harness;

/// The only job: state, how often it was put back, whether the time of the first is known.
async fn put_backs(pool: &PgPool) -> (String, i32, bool) {
    sqlx::query_as("select state::text, put_back_count, put_back_since is not null from awo.jobs")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// The job was put back as often as it may be.
async fn spend(pool: &PgPool) {
    sqlx::query(
        "update awo.jobs set run_at = now(), put_back_count = 60, put_back_since = '2026-03-01 12:00:00Z'",
    )
    .execute(pool)
    .await
    .unwrap();
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_sandbox_that_stays_locked_ends_its_order_with_lock_and_host(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    harness.signal(first, Signal::SIGKILL);
    harness.ended(first).await;
    let path = harness.path("repositories").join(&order).join(".lock");
    // Waits for the shim of the dead worker to go.
    let lock = File::options().write(true).open(&path).unwrap();
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap();
    let lock = lock.unwrap();
    harness.let_go("execute");

    harness.start_worker();
    harness.until("select put_back_count = 1 from awo.jobs").await;
    assert_eq!(put_backs(&harness.pool).await, ("queued".to_owned(), 1, true));
    spend(&harness.pool).await;
    harness.until("select status = 'failed' from agent_work_orders").await;
    let (_, class, message, _) = harness.outcome(&order).await;
    let (message, host) = (message.unwrap(), hostname::get().unwrap());
    assert_eq!(class.as_deref(), Some("lost_worker"), "{message}");
    for words in [
        format!("its lock {} was held for 20 s", path.display()),
        format!("as seen from host {}", host.display()),
        "put back 60 times since 2026-03-01 12:00:00 UTC".to_owned(),
        format!("its worker before this one was on host {} (pid {first})", host.display()),
    ] {
        assert!(message.contains(&words), "{words:?} is not in {message:?}");
    }
    drop(lock);

    // What is requeued begins to count anew, and gets through.
    sqlx::query("select awo_requeue($1)").bind(&order).execute(&harness.pool).await.unwrap();
    harness.until_status(&order, "completed").await;
    assert_eq!(put_backs(&harness.pool).await, ("succeeded".to_owned(), 0, false));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_kind_that_nobody_knows_ends_its_job_with_the_versions_that_are_alive(pool: PgPool) {
    let mut harness = Harness::new(pool);
    sqlx::query("insert into awo.jobs (kind, queue) values ('prune_artifacts', 'maintenance')")
        .execute(&harness.pool)
        .await
        .unwrap();
    spend(&harness.pool).await;
    harness.start_worker();
    harness.until("select state = 'failed' from awo.jobs").await;
    let (class, sentence): (String, String) =
        sqlx::query_as("select error_class, last_error from awo.jobs")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(class, "invalid");
    let version = env!("CARGO_PKG_VERSION");
    for words in [
        "no worker knows the kind \"prune_artifacts\"".to_owned(),
        "put back 60 times since 2026-03-01 12:00:00 UTC".to_owned(),
        format!("versions of the workers that are alive: {version} (1 worker);"),
    ] {
        assert!(sentence.contains(&words), "{words:?} is not in {sentence:?}");
    }
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn put_backs_are_counted_until_a_claim_ends_otherwise(pool: PgPool) {
    let store = Store::new(pool.clone());
    sqlx::query("select awo_enqueue('https://github.com/o/r', 'x')").execute(&pool).await.unwrap();
    let end = async |settlement: Settlement| {
        sqlx::query("update awo.jobs set run_at = now()").execute(&pool).await.unwrap();
        let (minute, queues) = (Duration::from_mins(1), ["default".to_owned()]);
        let claim = store.claim(Uuid::new_v4(), &queues, 1, minute, Duration::ZERO).await.unwrap();
        let job = claim.into_jobs().remove(0);
        assert_eq!(job.put_back_since.is_some(), job.put_back_count > 0);
        store.settle(&[(job.fence(), &settlement)]).await.unwrap();
        put_backs(&pool).await.1
    };
    let put_back = || Settlement::PutBack("locked".to_owned(), Duration::from_mins(1));
    assert_eq!(end(put_back()).await, 1);
    assert_eq!(end(put_back()).await, 2);
    assert_eq!(end(Settlement::Interrupted("restarted".to_owned())).await, 0);
    assert_eq!(end(put_back()).await, 1, "the epoch is no count");
    sqlx::query("select awo_cancel(work_order_id) from awo.jobs").execute(&pool).await.unwrap();
    sqlx::query("select awo_requeue(work_order_id) from awo.jobs").execute(&pool).await.unwrap();
    assert_eq!(put_backs(&pool).await, ("queued".to_owned(), 0, false), "requeued");
    let outcomes: Vec<String> =
        sqlx::query_scalar("select outcome from awo.attempts order by epoch")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(outcomes, ["interrupted"; 4]);
}
