//! Every statement of the queue at once, from many tasks with leases of a moment: no interleaving
//! may give a job two owners, lose it, or bring two transactions into a deadlock.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use archon_awo::{
    clock::Clock,
    domain::{ErrorClass, StepName},
    store::{
        Beat, Claim, Claimed, Fence, NewLogChunk, RunError, RunStore, Settlement, StepEnd, Store,
        StoreError, heartbeat,
    },
};
use sqlx::{ConnectOptions, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LEASE: Duration = Duration::from_millis(250);
const GRACE: Duration = Duration::from_millis(30);
const HAMMERED_FOR: Duration = Duration::from_secs(5);
const WORKERS: u64 = 8;
const ORDERS: usize = 60;

/// Numbers that come again with the same seed (`xorshift`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn moment(&mut self, up_to_ms: u64) -> Duration {
        Duration::from_micros(self.below(up_to_ms * 1000))
    }
}

/// What the tasks saw.
#[derive(Default)]
struct Seen {
    /// The highest epoch claimed of each job.
    epochs: Mutex<HashMap<i64, i64>>,
    /// Settlements and whether they were taken.
    settled: Mutex<Vec<(Fence, bool)>>,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
    claims: AtomicU64,
    rescues: AtomicU64,
}

impl Seen {
    fn complain(&self, what: impl Into<String>) {
        self.wrong.lock().unwrap().push(what.into());
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The answer, or a complaint: no statement of the queue may fail here, for whatever reason.
    fn check<T>(&self, answer: Result<T, StoreError>) -> Option<T> {
        answer.map_err(|error| self.complain(error.to_string())).ok()
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn claimed(&self, job: &Claimed) {
        self.claims.fetch_add(1, Ordering::Relaxed);
        let before = self.epochs.lock().unwrap().insert(job.job_id, job.epoch);
        if before.is_some_and(|before| before >= job.epoch) {
            self.complain(format!("job {}: epoch {} after {before:?}", job.job_id, job.epoch));
        }
    }
}

async fn connect(pool: &PgPool) -> PgConnection {
    pool.connect_options().as_ref().clone().connect().await.unwrap()
}

/// Claims, works for a moment, renews, and settles in time or too late.
async fn work(store: Store, seen: Arc<Seen>, mut dice: Dice) {
    let worker = Uuid::new_v4();
    let queues = vec!["default".to_owned()];
    let mut beating = connect(store.pool().connections()).await;
    while seen.goes_on() {
        let limit = usize::try_from(1 + dice.below(4)).unwrap();
        let aging = if dice.below(2) == 0 { Duration::ZERO } else { Duration::from_millis(50) };
        let claim = store.claim(worker, &queues, limit, LEASE, aging).await;
        let Some(jobs) = seen.check(claim).map(Claim::into_jobs) else {
            return;
        };
        for job in &jobs {
            seen.claimed(job);
        }
        for job in &jobs {
            write_something(&store, &seen, job, &mut dice).await;
        }
        // One in four is as good as dead for a while, and comes back.
        let dead = dice.below(4) == 0;
        sleep(if dead { LEASE + GRACE + dice.moment(60) } else { dice.moment(20) }).await;
        let beat = |job: &Claimed| Beat {
            fence: job.fence(),
            step: "execute".to_owned(),
            silent: Duration::ZERO,
        };
        let beats: Vec<Beat> = jobs.iter().map(beat).collect();
        if seen.check(heartbeat(&mut beating, worker, &beats, LEASE).await).is_none() {
            return;
        }
        // One by one, or together as one statement.
        let together = if dice.below(2) == 0 { 1 } else { jobs.len().max(1) };
        for jobs in jobs.chunks(together) {
            sleep(dice.moment(10)).await;
            let settlements: Vec<_> =
                jobs.iter().map(|job| (job.fence(), settlement(&mut dice))).collect();
            let asked: Vec<_> = settlements.iter().map(|(fence, how)| (*fence, how)).collect();
            let Some(settled) = seen.check(store.settle(&asked).await) else {
                return;
            };
            for (fence, _) in &asked {
                let taken = settled.iter().any(|row| row.fence() == *fence);
                seen.settled.lock().unwrap().push((*fence, taken));
            }
            if seen.check(store.settle(&asked).await).is_some_and(|again| !again.is_empty()) {
                seen.complain(format!("of {settlements:?} one was settled twice"));
            }
        }
    }
}

/// Few succeed: those are out of the game.
fn settlement(dice: &mut Dice) -> Settlement {
    let words = "hammered".to_owned();
    match dice.below(16) {
        0 => Settlement::Succeeded(None),
        1..=3 => Settlement::Failed(ErrorClass::ToolError, words),
        4..=8 => Settlement::Retried(ErrorClass::Overloaded, words, dice.moment(20)),
        9 => Settlement::Cancelled(words),
        _ => Settlement::Interrupted(words),
    }
}

/// The writes of a run, which share rows with claim, settle and rescue.
async fn write_something(store: &Store, seen: &Seen, job: &Claimed, dice: &mut Dice) {
    let run = RunStore::new(
        store.clone(),
        job.fence(),
        CancellationToken::new(),
        Clock::with_random(0.5),
    );
    let order = job.work_order_id.as_ref().unwrap().parse().unwrap();
    let chunk = |n: u64| NewLogChunk {
        step: None,
        run_id: None,
        stream: "event",
        file_offset: None,
        line_count: 1,
        data: vec![b'x'; usize::try_from(n).unwrap()],
    };
    let end = StepEnd {
        agent_name: "command",
        success: dice.below(2) == 0,
        output: serde_json::Value::Null,
        text: None,
        error_class: None,
        error_message: None,
        session: None,
        isolation: None,
    };
    let step = StepName::Execute;
    let chunks: Vec<_> = (0..=dice.below(3)).map(chunk).collect();
    let writes = async {
        run.start_step(&order, step, 3, "command", Uuid::nil()).await?;
        run.append_log(&order, &chunks).await?;
        sleep(dice.moment(30)).await;
        run.append_log(&order, &chunks).await?;
        run.end_step(&order, step, 3, &end).await
    };
    match writes.await {
        Ok(_) | Err(RunError::Stale(_)) => {}
        Err(RunError::Store(error)) => seen.complain(error.to_string()),
    }
}

/// Takes back what looks dead, as every replica does.
async fn rescue(store: Store, seen: Arc<Seen>, mut dice: Dice) {
    while seen.goes_on() {
        let Some(expired) = seen.check(store.expired_leases().await) else { return };
        sleep(dice.moment(10)).await;
        if let Some(rescued) = seen.check(store.rescue(&expired, GRACE, LEASE).await) {
            seen.rescues.fetch_add(rescued.len() as u64, Ordering::Relaxed);
        }
        sleep(dice.moment(20)).await;
    }
}

/// Somebody at psql: cancels and requeues whatever comes to hand.
async fn meddle(pool: PgPool, seen: Arc<Seen>, mut dice: Dice) {
    while seen.goes_on() {
        let statement = match dice.below(8) {
            0 => "select awo_cancel($1)",
            1 | 2 => "select awo_requeue($1)",
            3 => "select awo_requeue($1, from_step => 'execute')",
            _ => {
                "update awo.jobs set state = 'queued'
                 where work_order_id = $1 and state in ('failed', 'cancelled')"
            }
        };
        let order: String = sqlx::query_scalar(
            "select agent_work_order_id from agent_work_orders order by random() limit 1",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        if let Err(error) = sqlx::query(statement).bind(&order).execute(&pool).await {
            let refused = error.as_database_error();
            let code = refused.and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
            // Refusals of ours: it runs, or it has completed.
            if !["55006", "55000"].contains(&code.as_ref()) {
                seen.complain(format!("{statement}: {error}"));
            }
        }
        sleep(dice.moment(5)).await;
    }
}

/// Every change is one transaction, so the promises hold at any moment.
async fn look(pool: PgPool, seen: Arc<Seen>) {
    while seen.goes_on() {
        let broken = broken(&pool).await;
        if !broken.is_empty() {
            seen.complain(format!("{broken:?}"));
        }
        sleep(Duration::from_millis(15)).await;
    }
}

async fn broken(pool: &PgPool) -> Vec<(String, String)> {
    sqlx::query_as("select broken, subject from awo.invariants").fetch_all(pool).await.unwrap()
}

/// Ends every job that is left, as one calm worker would.
async fn finish(store: &Store) {
    let queues = vec!["default".to_owned()];
    for _ in 0..500 {
        sleep(LEASE / 4).await;
        let expired = store.expired_leases().await.unwrap();
        store.rescue(&expired, GRACE, LEASE).await.unwrap();
        let claim = store.claim(Uuid::new_v4(), &queues, 64, LEASE, Duration::ZERO).await.unwrap();
        for job in claim.into_jobs() {
            store.settle(&[(job.fence(), &Settlement::Succeeded(None))]).await.unwrap();
        }
        let open: i64 = sqlx::query_scalar(
            "select count(*) from awo.jobs where state not in ('succeeded', 'failed', 'cancelled')",
        )
        .fetch_one(store.pool().connections())
        .await
        .unwrap();
        if open == 0 {
            return;
        }
    }
    panic!("jobs are left that nobody can end");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn no_interleaving_breaks_a_promise_of_the_queue(pool: PgPool) {
    let seed = std::env::var("AWO_HAMMER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
    println!("AWO_HAMMER_SEED={seed}");
    let options = pool.connect_options().as_ref().clone();
    let pool = PgPoolOptions::new().max_connections(16).connect_with(options).await.unwrap();
    for n in 0..ORDERS {
        sqlx::query("select awo_enqueue($1, 'Work', priority => $2)")
            .bind(format!("https://github.com/acme/app{}", n % 5))
            .bind(i32::try_from(n * 7 % 11).unwrap())
            .execute(&pool)
            .await
            .unwrap();
    }
    sqlx::query(
        "update awo.repositories set max_concurrent = 1 + length(repo_key) % 3 + random() * 2",
    )
    .execute(&pool)
    .await
    .unwrap();

    let store = Store::new(pool.clone());
    let seen = Arc::new(Seen::default());
    let dice = |n: u64| Dice((seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..WORKERS {
        tasks.spawn(work(store.clone(), Arc::clone(&seen), dice(n + 1)));
    }
    for n in 0..3 {
        tasks.spawn(rescue(store.clone(), Arc::clone(&seen), dice(n + 100)));
        tasks.spawn(meddle(pool.clone(), Arc::clone(&seen), dice(n + 200)));
    }
    tasks.spawn(look(pool.clone(), Arc::clone(&seen)));
    let begun = tokio::time::Instant::now();
    // Longer on a host so busy that little has happened by then.
    let enough = || {
        let (claims, rescues) = (&seen.claims, &seen.rescues);
        let happened = claims.load(Ordering::Relaxed) > 100 && rescues.load(Ordering::Relaxed) > 10;
        begun.elapsed() > if happened { HAMMERED_FOR } else { HAMMERED_FOR * 12 }
    };
    while seen.goes_on() && !enough() {
        sleep(Duration::from_millis(50)).await;
    }
    seen.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let wrong = seen.wrong.lock().unwrap().clone();
    assert!(wrong.is_empty(), "{wrong:#?}");

    finish(&store).await;
    assert_eq!(broken(&pool).await, []);
    let jobs: i64 =
        sqlx::query_scalar("select count(*) from awo.jobs").fetch_one(&pool).await.unwrap();
    assert_eq!(usize::try_from(jobs).unwrap(), ORDERS, "a job was lost");
    let gaps: i64 = sqlx::query_scalar(
        "select count(*) from awo.jobs j where lease_epoch
         <> (select count(*) from awo.attempts a where a.job_id = j.id and a.ended_at is not null)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(gaps, 0, "every claim has one ended attempt");
    let settled = seen.settled.lock().unwrap().clone();
    for (Fence { job_id, epoch }, taken) in &settled {
        let outcome: String =
            sqlx::query_scalar("select outcome from awo.attempts where job_id = $1 and epoch = $2")
                .bind(job_id)
                .bind(epoch)
                .fetch_one(&pool)
                .await
                .unwrap();
        assert_eq!(*taken, outcome != "crashed", "job {job_id} epoch {epoch} is {outcome}");
    }
    let refused = settled.iter().filter(|(_, taken)| !taken).count();
    let (claims, rescues) =
        (seen.claims.load(Ordering::Relaxed), seen.rescues.load(Ordering::Relaxed));
    println!("{claims} claims, {rescues} rescues, {refused} stale settlements refused");
    assert!(claims > 50 && rescues > 3 && refused > 3, "{claims} {rescues} {refused}");
}
