//! Every way in which an order can end, in any order: its log tells each end once, and as the row does.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use std::{collections::BTreeMap, time::Duration};

use archon_awo::{
    clock::Clock,
    domain::ErrorClass,
    store::{Claimed, NewLogChunk, RunStore, Settlement, Store, Wait},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rows::{broken, count, run};
use serde_json::Value;
use sqlx::{FromRow, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);

/// The seed of this run: `AWO_TEST_SEED`, or a new one each time.
fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "repeats a run that failed")]
    let given = std::env::var("AWO_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0)
}

fn wait(patience: Duration) -> Wait {
    Wait { delay: Duration::from_secs(9), patience, asked: Duration::ZERO }
}

/// How an order stands.
#[derive(Debug, Clone, PartialEq, FromRow)]
struct Standing {
    id: String,
    status: String,
    error_class: Option<String>,
    error_message: Option<String>,
    finished_at: Option<chrono::DateTime<chrono::Utc>>,
}

impl Standing {
    fn has_ended(&self) -> bool {
        self.finished_at.is_some()
    }
}

async fn standings(pool: &PgPool) -> BTreeMap<String, Standing> {
    let read = "SELECT agent_work_order_id AS id, status, error_class, error_message, finished_at
                FROM agent_work_orders";
    let rows: Vec<Standing> = sqlx::query_as(read).fetch_all(pool).await.unwrap();
    rows.into_iter().map(|row| (row.id.clone(), row)).collect()
}

/// The events of an order, and whether its log is numbered from 1 without a gap.
async fn events(pool: &PgPool, order: &str) -> Vec<Value> {
    let read = "SELECT seq, convert_from(data, 'UTF8')::jsonb FROM awo.log_chunks
                WHERE agent_work_order_id = $1 ORDER BY seq";
    let rows: Vec<(i64, Value)> = sqlx::query_as(read).bind(order).fetch_all(pool).await.unwrap();
    for ((seq, event), expected) in rows.iter().zip(1..) {
        assert_eq!(*seq, expected, "{order}: {event}");
        assert!(event.to_string().len() <= 4096, "{event}");
    }
    rows.into_iter().map(|(_, event)| event).collect()
}

fn is_end(event: &Value) -> bool {
    ["workflow_completed", "workflow_failed"].iter().any(|name| event["event"] == **name)
}

/// Somebody who runs, breaks and stops orders.
struct Actor {
    pool: PgPool,
    store: Store,
    rng: StdRng,
    worker: Uuid,
    held: Vec<Claimed>,
    former: Vec<Claimed>,
}

impl Actor {
    fn new(pool: &PgPool, seed: u64) -> Self {
        Self {
            pool: pool.clone(),
            store: Store::new(pool.clone()),
            rng: StdRng::seed_from_u64(seed),
            worker: Uuid::new_v4(),
            held: Vec::new(),
            former: Vec::new(),
        }
    }

    async fn any_order(&mut self) -> String {
        let all: Vec<String> = standings(&self.pool).await.into_keys().collect();
        all.choose(&mut self.rng).cloned().unwrap_or_default()
    }

    async fn claim(&mut self) {
        run(&self.pool, "UPDATE awo.jobs SET run_at = now() WHERE state = 'queued'").await.unwrap();
        let queues = ["default".to_owned()];
        let claim = self.store.claim(self.worker, &queues, 2, LEASE, Duration::ZERO).await.unwrap();
        self.held.extend(claim.into_jobs());
    }

    fn settlement(&mut self) -> Settlement {
        let words = match self.rng.random_range(0..4) {
            0 => "long \u{1f4a5} ".repeat(3000),
            _ => "it said \"no\"\n\tand left".to_owned(),
        };
        match self.rng.random_range(0..9) {
            0 => Settlement::Succeeded(None),
            1 => Settlement::Succeeded(Some(ErrorClass::NoChanges)),
            2 => Settlement::Failed(ErrorClass::ToolError, words),
            3 | 4 => Settlement::Retried(ErrorClass::Stalled, words, Duration::from_secs(3)),
            5 => Settlement::WaitedOut(ErrorClass::Overloaded, words, wait(HOUR)),
            6 => Settlement::WaitedOut(ErrorClass::Git, words, wait(Duration::ZERO)),
            7 => Settlement::Cancelled(words),
            _ => Settlement::Interrupted(words),
        }
    }

    /// Settles some of what is held in one statement, some of it again, and some that others hold by now.
    async fn settle(&mut self) {
        let mut asked = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            if !self.held.is_empty() {
                let place = self.rng.random_range(0..self.held.len());
                let job = self.held.swap_remove(place);
                asked.push((job.fence(), self.settlement()));
                self.former.push(job);
            }
        }
        if let Some(job) = self.former.choose(&mut self.rng)
            && asked.iter().all(|(fence, _)| *fence != job.fence())
        {
            asked.push((job.fence(), Settlement::Failed(ErrorClass::Oom, "late".to_owned())));
        }
        let asked: Vec<_> = asked.iter().map(|(fence, one)| (*fence, one)).collect();
        let settled = self.store.settle(&asked).await.unwrap();
        // The answer is what was recorded.
        for row in &settled {
            let read =
                "SELECT outcome, error_class FROM awo.attempts WHERE job_id = $1 AND epoch = $2";
            let recorded: (String, Option<String>) = sqlx::query_as(read)
                .bind(row.job_id)
                .bind(row.epoch)
                .fetch_one(&self.pool)
                .await
                .unwrap();
            assert_eq!((&row.outcome, &row.class), (&recorded.0, &recorded.1));
        }
        let again = self.store.settle(&asked).await.unwrap();
        assert_eq!(again, [], "settled twice");
    }

    /// The worker dies; another one takes over.
    async fn rescue(&mut self) {
        let past = "UPDATE awo.leases SET heartbeat_at = now() - interval '5 minutes',
                    expires_at = now() - interval '4 minutes' WHERE random() < 0.5";
        run(&self.pool, past).await.unwrap();
        let seen = self.store.expired_leases().await.unwrap();
        let rescued = self.store.rescue(&seen, Duration::ZERO, Duration::ZERO).await.unwrap();
        let gone = |job: &Claimed| rescued.iter().any(|rescued| rescued.job_id == job.job_id);
        let (lost, kept) = self.held.drain(..).partition(gone);
        self.held = kept;
        self.former.extend::<Vec<_>>(lost);
    }

    /// A line in the log of something that runs.
    async fn append(&mut self) {
        let Some(job) = self.held.choose(&mut self.rng) else { return };
        let order = job.work_order_id.clone().unwrap().parse().unwrap();
        let clock = Clock::with_random(0.5);
        let owner = RunStore::new(self.store.clone(), job.fence(), CancellationToken::new(), clock);
        let chunk = NewLogChunk {
            step: None,
            run_id: None,
            stream: "event",
            file_offset: None,
            line_count: 1,
            data: b"{\"level\": \"info\", \"event\": \"step_started\"}\n".to_vec(),
        };
        owner.append_log(&order, &[chunk]).await.unwrap();
    }

    async fn call(&mut self, template: &str) {
        let statement = template.replace("{order}", &self.any_order().await);
        // Refused by a rule, for most states of an order.
        let _ = run(&self.pool, &statement).await;
    }

    async fn act(&mut self) {
        match self.rng.random_range(0..20) {
            0 | 1 => {
                self.call("SELECT awo_enqueue('acme/app', 'x')").await;
            }
            2..6 => self.claim().await,
            6..10 => self.settle().await,
            10 => self.rescue().await,
            11 => self.append().await,
            12 | 13 => self.call("SELECT awo_cancel('{order}', 'enough')").await,
            14 => self.call("SELECT awo_requeue('{order}')").await,
            15 => self.call("SELECT awo_prompt('{order}', 'more')").await,
            16 => {
                self.call("UPDATE awo.jobs SET state = 'failed' WHERE work_order_id = '{order}'")
                    .await;
            }
            17 => {
                self.call(
                    "UPDATE awo.jobs SET state = 'cancelled' WHERE work_order_id = '{order}'",
                )
                .await;
            }
            18 => {
                let queues = ["default".to_owned()];
                let held: Vec<i64> = self.held.iter().skip(1).map(|job| job.job_id).collect();
                self.store.give_back_unheld(self.worker, &queues, &held).await.unwrap();
                let lost: Vec<_> = self.held.drain(..self.held.len().min(1)).collect();
                self.former.extend(lost);
            }
            _ => {
                self.call("SELECT awo_after_restore()").await;
                self.former.append(&mut self.held);
            }
        }
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn every_end_is_told_once_and_as_the_order_says(pool: PgPool) {
    let seed = seed();
    let mut actor = Actor::new(&pool, seed);
    let (mut ends, mut ways) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let mut before = standings(&pool).await;
    for step in 1..=400 {
        actor.act().await;
        let after = standings(&pool).await;
        for (order, now) in &after {
            let then = before.get(order);
            if !now.has_ended() || then.is_some_and(|then| then.finished_at == now.finished_at) {
                continue;
            }
            *ends.entry(order.clone()).or_default() += 1;
            *ways.entry(now.status.clone()).or_default() += 1;
            let told = events(&pool, order).await;
            let all = || format!("AWO_TEST_SEED={seed}, act {step}, {now:?}: {told:#?}");
            assert_eq!(told.iter().filter(|event| is_end(event)).count(), ends[order], "{}", all());
            let end = told.last().filter(|event| is_end(event));
            let end = end.unwrap_or_else(|| panic!("the end is not the last event: {}", all()));
            let (name, level) = match now.status.as_str() {
                "completed" => ("workflow_completed", "info"),
                "failed" => ("workflow_failed", "error"),
                "cancelled" => ("workflow_failed", "warning"),
                other => panic!("{other} is no end"),
            };
            assert_eq!((&end["event"], &end["level"]), (&name.into(), &level.into()), "{}", all());
            assert_eq!(end["error_class"].as_str(), now.error_class.as_deref(), "{}", all());
            let words = end["error"].as_str().map(|text| text.trim_end_matches(" [cut]"));
            let sentence = now.error_message.as_deref().filter(|_| name == "workflow_failed");
            assert_eq!(words.is_some(), sentence.is_some(), "{}", all());
            assert!(
                sentence.unwrap_or_default().starts_with(words.unwrap_or_default()),
                "{}",
                all()
            );
        }
        before = after;
    }
    for status in ["completed", "failed", "cancelled"] {
        assert!(ways.get(status).is_some_and(|n| *n > 3), "AWO_TEST_SEED={seed}: {ways:?}");
    }
    told_as_recorded(&pool, seed).await;
    assert_eq!(broken(&pool).await, [""; 0], "AWO_TEST_SEED={seed}");
}

/// Attempts that were not the end are told as they are recorded, and nothing but a failed order is an error.
async fn told_as_recorded(pool: &PgPool, seed: u64) {
    // A restore that finds a cancel wanted ends the order instead of interrupting it.
    const RESTORED: &str = "'the database was restored from a backup'";
    for (event, outcome) in [
        ("attempt_failed", "retried"),
        ("workflow_interrupted", "interrupted"),
        ("workflow_rescued", "crashed"),
    ] {
        let told = format!(
            "SELECT count(*) FROM (SELECT convert_from(data, 'UTF8')::jsonb AS event FROM awo.log_chunks) AS e
             WHERE event ->> 'event' = '{event}' AND event ->> 'reason' IS DISTINCT FROM {RESTORED}"
        );
        let recorded = format!(
            "SELECT count(*) FROM awo.attempts
             WHERE outcome = '{outcome}' AND error_message IS DISTINCT FROM {RESTORED}"
        );
        let (told, recorded) = (count(pool, &told).await, count(pool, &recorded).await);
        assert_eq!(told, recorded, "AWO_TEST_SEED={seed}: {event}");
        assert!(told > 0, "AWO_TEST_SEED={seed}: no {event}");
    }
    let wrong = "SELECT count(*) FROM (
            SELECT convert_from(data, 'UTF8')::jsonb AS event FROM awo.log_chunks) AS e
        WHERE (event ->> 'level' = 'error') <> (event ->> 'event' = 'workflow_failed' AND event ->> 'cancelled' IS NULL)
           OR event ->> 'event' = 'attempt_failed' AND (event ->> 'retry_at' IS NULL
              OR position(event ->> 'retry_at' IN event ->> 'message') = 0)";
    assert_eq!(count(pool, wrong).await, 0, "AWO_TEST_SEED={seed}");
}
