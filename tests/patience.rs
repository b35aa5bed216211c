//! How long an order waits for what fails outside of it: in time, kept in the database, and shown.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use std::time::Duration;

use archon_awo::{
    domain::ErrorClass,
    store::{Claimed, Settlement, Store, Wait},
};
use rows::{order, order_in, run, text};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

const HOUR: Duration = Duration::from_hours(1);
const WEEK: Duration = Duration::from_hours(7 * 24);

/// Ends the only run there is.
struct Runner {
    pool: PgPool,
    store: Store,
}

/// The job as it waits; times in seconds from now.
#[derive(Debug, PartialEq, FromRow)]
struct Waiting {
    state: String,
    attempt: i32,
    waits: i32,
    next: f64,
    waited: Option<f64>,
    left: Option<f64>,
}

impl Runner {
    fn new(pool: &PgPool) -> Self {
        Self { pool: pool.clone(), store: Store::new(pool.clone()) }
    }

    /// Runs what waits, whatever its time, and ends it.
    async fn run(&self, end: &Settlement) -> Waiting {
        let job = self.claim().await;
        self.settle(&job, end).await
    }

    async fn claim(&self) -> Claimed {
        let due = "UPDATE awo.jobs SET run_at = now(), waiting_since = waiting_since WHERE run_at > now()";
        // Its time comes, without anybody who brings it forward.
        run(&self.pool, "ALTER TABLE awo.jobs DISABLE TRIGGER guard_job_state").await.unwrap();
        run(&self.pool, due).await.unwrap();
        run(&self.pool, "ALTER TABLE awo.jobs ENABLE TRIGGER guard_job_state").await.unwrap();
        let (queues, lease) = (["default".to_owned()], Duration::from_secs(30));
        let claim = self.store.claim(Uuid::new_v4(), &queues, 1, lease, Duration::ZERO);
        claim.await.unwrap().into_jobs().remove(0)
    }

    async fn settle(&self, job: &Claimed, end: &Settlement) -> Waiting {
        assert_eq!(self.store.settle(&[(job.fence(), end)]).await.unwrap().len(), 1);
        self.waiting().await
    }

    async fn waiting(&self) -> Waiting {
        sqlx::query_as(
            "SELECT state::text, attempt, waits,
                 extract(epoch FROM run_at - now())::double precision AS next,
                 extract(epoch FROM now() - waiting_since)::double precision AS waited,
                 extract(epoch FROM gives_up_at - now())::double precision AS left
             FROM awo.jobs",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// Everything that was noted was noted this much earlier.
    async fn pass(&self, time: Duration) {
        let earlier = format!(
            "UPDATE awo.jobs SET waiting_since = waiting_since - interval '{0} s',
                 gives_up_at = gives_up_at - interval '{0} s'",
            time.as_secs()
        );
        run(&self.pool, &earlier).await.unwrap();
    }
}

fn away(delay: u64) -> Settlement {
    let delay = Duration::from_secs(delay);
    let wait = Wait { delay, patience: HOUR, asked: Duration::ZERO };
    Settlement::WaitedOut(ErrorClass::Overloaded, "the provider is away".to_owned(), wait)
}

fn limited(asked: Duration) -> Settlement {
    let wait = Wait { delay: asked + Duration::from_mins(1), patience: HOUR, asked };
    Settlement::WaitedOut(ErrorClass::RateLimited, "the limit is reached".to_owned(), wait)
}

/// Whether a number of seconds is about another.
fn about(seconds: Option<f64>, expected: Duration) -> bool {
    seconds.is_some_and(|seconds| (seconds - expected.as_secs_f64()).abs() < 20.0)
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_fails_outside_of_an_order_is_retried_for_a_time_and_spends_no_attempt(pool: PgPool) {
    order(&pool).await;
    let runner = Runner::new(&pool);
    for failure in 1..=12 {
        let waiting = runner.run(&away(60)).await;
        assert_eq!((waiting.state.as_str(), waiting.attempt), ("queued", 0), "{waiting:?}");
        assert_eq!(waiting.waits, failure);
        assert!(about(Some(waiting.next), Duration::from_mins(1)), "{waiting:?}");
        runner.pass(Duration::from_mins(4)).await;
    }
    // The last attempt is made when the hour ends, and not after it.
    runner.pass(Duration::from_mins(11)).await;
    let last = runner.run(&away(600)).await;
    assert!(
        about(last.left, Duration::from_mins(1)) && about(Some(last.next), Duration::from_mins(1))
    );
    runner.pass(Duration::from_mins(1)).await;
    let ended = runner.run(&away(600)).await;
    assert_eq!((ended.state.as_str(), ended.attempt), ("failed", 1), "{ended:?}");
    let sentence = text(&pool, "SELECT error_message FROM agent_work_orders").await.unwrap();
    let (what, advice) = sentence.split_once("; tried again for 01:00:0").unwrap();
    assert_eq!(what, "the provider is away");
    assert!(
        advice.ends_with(" and gave up (AWO_RETRY_FOR): requeue the order when the cause is gone"),
        "{advice}"
    );

    // A requeue begins anew.
    run(&pool, "SELECT awo_requeue(agent_work_order_id) FROM agent_work_orders").await.unwrap();
    let waiting = runner.run(&away(60)).await;
    assert!(waiting.state == "queued" && waiting.waits == 1, "{waiting:?}");
    assert!(about(waiting.left, HOUR), "{waiting:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_wait_is_over_when_a_step_succeeds_or_somebody_wants_it_sooner(pool: PgPool) {
    order(&pool).await;
    let runner = Runner::new(&pool);
    runner.run(&away(60)).await;
    runner.pass(Duration::from_mins(50)).await;
    let job = runner.claim().await;
    assert_eq!(job.waits, 1, "the next attempt knows how many failed");
    let step = "INSERT INTO awo.steps (job_id, step_name, epoch, finished_at)
                SELECT id, 'create-branch', lease_epoch, now() FROM awo.jobs";
    run(&pool, step).await.unwrap();
    let waiting = runner.settle(&job, &away(60)).await;
    assert!(about(waiting.left, HOUR) && waiting.waits == 1, "{waiting:?}");

    // The same step is no progress once more; an interruption is none either.
    runner.pass(Duration::from_mins(50)).await;
    run(&pool, "UPDATE awo.steps SET finished_at = finished_at - interval '1 h'").await.unwrap();
    runner.run(&Settlement::Interrupted("restarted".to_owned())).await;
    let waiting = runner.run(&away(60)).await;
    assert!(about(waiting.left, Duration::from_mins(10)) && waiting.waits == 2, "{waiting:?}");

    run(&pool, "SELECT awo_requeue(agent_work_order_id) FROM agent_work_orders").await.unwrap();
    let waiting = runner.waiting().await;
    assert!(waiting.next <= 0.0 && waiting.left.is_none() && waiting.waits == 0, "{waiting:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn failures_of_the_order_itself_keep_their_count(pool: PgPool) {
    order(&pool).await;
    let runner = Runner::new(&pool);
    let stalled = || {
        Settlement::Retried(ErrorClass::Stalled, "it was silent".to_owned(), Duration::from_secs(9))
    };
    for attempt in 1..=2 {
        // Waits in between neither spend the count nor give it back.
        assert_eq!(runner.run(&away(60)).await.attempt, attempt - 1);
        let waiting = runner.run(&stalled()).await;
        assert_eq!((waiting.state.as_str(), waiting.attempt), ("queued", attempt));
        assert_eq!((waiting.waits, waiting.left), (0, None), "the agent ran: the outage is over");
    }
    let ended = runner.run(&stalled()).await;
    assert_eq!((ended.state.as_str(), ended.attempt), ("failed", 3));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_time_that_the_provider_names_is_not_counted_up_to_a_week(pool: PgPool) {
    order(&pool).await;
    let runner = Runner::new(&pool);
    let five_hours = 5 * HOUR;
    let waiting = runner.run(&limited(five_hours)).await;
    assert!(about(Some(waiting.next), five_hours + Duration::from_mins(1)), "{waiting:?}");
    assert!(about(waiting.left, five_hours + HOUR), "{waiting:?}");
    // Others have used up the next window too.
    for window in 1..=33 {
        runner.pass(five_hours).await;
        let waiting = runner.run(&limited(five_hours)).await;
        assert_eq!(waiting.state, "queued", "{waiting:?}");
        let since = Duration::from_secs_f64(waiting.waited.unwrap());
        let ends = (WEEK + HOUR).saturating_sub(since).min(five_hours + HOUR);
        assert!(about(waiting.left, ends), "window {window}: {waiting:?}");
        assert!(waiting.next <= waiting.left.unwrap() + 1.0, "{waiting:?}");
    }
    runner.pass(five_hours).await;
    let ended = runner.run(&limited(five_hours)).await;
    assert_eq!((ended.state.as_str(), ended.attempt), ("failed", 1), "{ended:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_that_waits_says_for_what_and_until_when(pool: PgPool) {
    let (id, _) = order(&pool).await;
    let runner = Runner::new(&pool);
    runner.run(&away(90)).await;
    let (sentence, class, next): (String, String, String) = sqlx::query_as(
        "SELECT o.error_message, o.error_class, awo.utc(j.run_at)
         FROM agent_work_orders o JOIN awo.jobs j ON j.id = o.awo_job_id",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(
        sentence,
        format!("waiting until {next} for the next attempt: the provider is away")
    );
    assert_eq!(class, "overloaded");
    let event = "SELECT convert_from(data, 'UTF8')::jsonb FROM awo.log_chunks";
    let event: serde_json::Value = sqlx::query_scalar(event).fetch_one(&pool).await.unwrap();
    assert_eq!(event["event"], "attempt_failed");
    assert_eq!(
        event["message"],
        format!("attempt 1 failed, retried at {next} because the provider is away")
    );
    let waiting: (String, String, i32) =
        sqlx::query_as("SELECT work_order_id, last_error, waits FROM awo.waiting")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(waiting, (id, "the provider is away".to_owned(), 1));

    run(&pool, "SELECT awo_requeue(agent_work_order_id) FROM agent_work_orders").await.unwrap();
    let sentence = text(&pool, "SELECT error_message FROM agent_work_orders").await;
    assert_eq!(sentence.as_deref(), Some("the provider is away"), "it waits for nothing any more");
    runner.run(&Settlement::Succeeded(None)).await;
    assert_eq!(text(&pool, "SELECT error_message FROM agent_work_orders").await, None);
}

/// The jobs that `awo.stuck` shows as not claimed.
async fn not_claimed(pool: &PgPool) -> i64 {
    let read = "SELECT count(*) FROM awo.stuck WHERE problem = 'not claimed'";
    sqlx::query_scalar(read).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_backlog_that_waits_for_a_free_slot_is_not_stuck(pool: PgPool) {
    for repository in ["a", "b", "c"] {
        order_in(&pool, &format!("https://github.com/acme/{repository}")).await;
    }
    run(&pool, "UPDATE awo.jobs SET run_at = now() - interval '20 minutes'").await.unwrap();
    assert_eq!(not_claimed(&pool).await, 3, "no worker takes orders from the queue");

    let worker = Uuid::new_v4();
    let record = archon_awo::store::WorkerRecord {
        worker_id: worker,
        hostname: "host".to_owned(),
        pid: 7,
        queues: vec!["default".to_owned()],
        max_concurrent: 1,
        kinds: None,
    };
    let store = Store::new(pool.clone());
    store.register_worker(&record).await.unwrap();
    assert_eq!(not_claimed(&pool).await, 3, "a worker that could take them does not");

    let (queues, lease) = (["default".to_owned()], Duration::from_secs(30));
    let claimed = store.claim(worker, &queues, 1, lease, Duration::ZERO).await.unwrap();
    assert_eq!(not_claimed(&pool).await, 0, "its only slot is taken");
    run(&pool, "UPDATE awo.leases SET claimed_at = now() - interval '2 hours'").await.unwrap();
    assert_eq!(not_claimed(&pool).await, 0, "however long it takes");

    let fence = claimed.into_jobs()[0].fence();
    store.settle(&[(fence, &Settlement::Succeeded(None))]).await.unwrap();
    assert_eq!(not_claimed(&pool).await, 2, "the slot is free, and the queue stands still");
    store.claim(worker, &queues, 1, lease, Duration::ZERO).await.unwrap();
    run(&pool, "UPDATE awo.workers SET max_concurrent = 2").await.unwrap();
    assert_eq!(not_claimed(&pool).await, 0, "the queue moves");
    store.drain_worker(worker).await.unwrap();
    assert_eq!(not_claimed(&pool).await, 1, "it takes nothing any more");
}
