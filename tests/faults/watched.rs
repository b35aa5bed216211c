//! Every long-lived task of a worker is watched: whichever is lost, the process ends with a sentence
//! and an exit code, and what it held is given back.
//!
//! The worker here is this program, with the product's own code in it; only one of its tasks is ended
//! or panics when it is told to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use archon_awo::{
    cli,
    config::{Config, Host},
    domain::Redactor,
    exit,
    services::{Services, Wrap},
    telemetry::{self, Audience},
};
use futures::FutureExt;

use crate::{
    orders::order,
    place::{Needs, Place},
    storm,
};

/// The tasks of a worker, and whether each panics here or just ends.
const TASKS: [(&str, &str); 12] = [
    ("heartbeat", "panics"),
    ("rescue", "panics"),
    ("listener", "ends"),
    ("disk watch", "panics"),
    ("claim report", "panics"),
    ("schedules", "ends"),
    ("drain", "panics"),
    ("orders", "panics"),
    ("maintenance", "ends"),
    ("HTTP server", "ends"),
    ("health report", "panics"),
    ("signal handler", "ends"),
];
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);
/// The step in which the order's agent waits.
const STEP: &str = "execute";

/// A worker whose task `task` ends or panics as soon as the file `signal` is there.
pub fn worker(task: &str, how: &str, signal: &str) -> ExitCode {
    let (task, panics, signal) = (task.to_owned(), how == "panics", PathBuf::from(signal));
    let wrap: Wrap = Arc::new(move |name, work| {
        eprintln!("starts the task {name}.");
        if name != task {
            return work;
        }
        let signal = signal.clone();
        async move {
            tokio::select! {
                ended = work => ended,
                () = there_is(&signal) => {
                    assert!(!panics, "told to panic");
                    Ok(())
                }
            }
        }
        .boxed()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async {
        let config = Config::load(&Host::system())?;
        let id = uuid::Uuid::new_v4();
        let telemetry = telemetry::init(&config, Audience::Service, Some(id))?;
        let (services, metrics) = (Services::wrapped(wrap), telemetry.metrics().clone());
        let result = Box::pin(cli::worker::serve(config, id, metrics, services)).await;
        telemetry.shutdown().await;
        result
    });
    runtime.shutdown_background();
    exit::report(result, &Redactor::default())
}

async fn there_is(file: &Path) {
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A worker ends for the loss of any of its tasks, and gives its order back.
pub async fn check() {
    let needs = Needs { replicas: 1, remotes: 1, pooler: false, settings: storm::short_times() };
    let place = Place::prepare(needs).await.unwrap();
    fs::write(place.folder.join("notes").join(format!("hold-{STEP}")), "").unwrap();
    let signal = place.folder.join("signal");
    for (number, (task, how)) in TASKS.into_iter().enumerate() {
        let id = format!("wo-w{number:05}");
        order(&place.pool, &id, &place.remotes[0].url()).await.unwrap();
        let replica = &place.replicas[0];
        let mut process = replica.process().await;
        let this = std::env::current_exe().unwrap();
        let words = ["worker-losing".as_ref(), task.as_ref(), how.as_ref(), signal.as_os_str()];
        replica.spawn_as(&mut process, &this, &words).unwrap();
        until(&format!("{id} is in {STEP}"), async || {
            let lives = place.witness.lives();
            lives.iter().any(|life| life.order == id && life.step == STEP)
        })
        .await;
        fs::write(&signal, "").unwrap();
        let status = process.ended(PATIENCE).await.unwrap();
        fs::remove_file(&signal).unwrap();

        let log = fs::read_to_string(replica.log(&process)).unwrap();
        assert_eq!(status.code(), Some(1), "{task}: {status}\n{log}");
        let sentence = match how {
            "panics" => format!("error: the {task} of this worker panicked (told to panic), so"),
            _ => format!("error: the {task} of this worker ended though nobody had told it to, so"),
        };
        assert!(log.contains(&sentence), "{sentence:?} is not in\n{log}");
        let started: BTreeSet<&str> = log
            .lines()
            .filter_map(|line| line.strip_prefix("starts the task ")?.strip_suffix('.'))
            .collect();
        assert_eq!(started, TASKS.into_iter().map(|(name, _)| name).collect(), "tasks of a worker");
        let given_back: (String, i32, Vec<String>) = sqlx::query_as(
            "select j.state::text, j.crash_count, array_agg(a.outcome)
             from awo.jobs j join awo.attempts a on a.job_id = j.id
             where j.work_order_id = $1 group by j.id",
        )
        .bind(&id)
        .fetch_one(&place.pool)
        .await
        .unwrap();
        let expected = ("queued".to_owned(), 0, vec!["interrupted".to_owned()]);
        assert_eq!(given_back, expected, "after the loss of {task}\n{log}");
        let cancel = sqlx::query("select awo_cancel($1)").bind(&id);
        cancel.execute(&place.pool).await.unwrap();
    }
}
