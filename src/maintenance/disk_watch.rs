//! Watches the free space of the volumes: holds back claims below the soft mark, cleans up below the
//! hard one, keeps the reserve.

use std::{panic::resume_unwind, path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock::Clock,
    config::FoldersConfig,
    disk::{DiskMarks, DiskSpace, DiskState, Level, Reserve, VolumeState},
    telemetry::Metrics,
};

/// How often it looks while there is room ...
const CALM: Duration = Duration::from_secs(5);
/// ... and while there is not: what was freed should not wait for long.
const TENSE: Duration = Duration::from_secs(1);
/// How old a look may be that lets a claim pass.
const FRESH: Duration = Duration::from_millis(500);
/// From the end of a cleanup that did not help to the next one.
const BETWEEN_CLEANUPS: Duration = Duration::from_mins(1);

/// What frees space on the volumes of this worker.
pub type Cleanup = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The watch over the volumes of one worker.
#[derive(Debug)]
pub struct DiskWatch {
    volumes: Vec<Volume>,
    marks: DiskMarks,
    disk: Arc<dyn DiskSpace>,
    clock: Clock,
    metrics: Metrics,
    state: watch::Sender<DiskState>,
    /// When it last looked; whoever holds it looks.
    looked: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct Volume {
    name: &'static str,
    folder: std::path::PathBuf,
    reserve: Reserve,
}

impl DiskWatch {
    /// A watch that has not looked yet.
    pub fn new(
        folders: &FoldersConfig,
        marks: DiskMarks,
        disk: Arc<dyn DiskSpace>,
        clock: Clock,
        metrics: Metrics,
    ) -> Arc<Self> {
        let volume = |name, folder: &Path| Volume {
            name,
            folder: folder.to_owned(),
            reserve: Reserve::on(folder),
        };
        let volumes = vec![
            volume("repositories", &folders.repositories),
            volume("work-orders", &folders.work_orders),
        ];
        let (state, looked) = (watch::Sender::default(), Mutex::default());
        Arc::new(Self { volumes, marks, disk, clock, metrics, state, looked })
    }

    /// Follows what it sees.
    pub fn state(&self) -> watch::Receiver<DiskState> {
        self.state.subscribe()
    }

    /// Waits until an order may be claimed: there is room on every volume, as of just now.
    pub async fn admits(&self) {
        let mut state = self.state.subscribe();
        while self.look_unless(FRESH).await != Level::Ample {
            // The loop below looks often while there is no room.
            if state.wait_for(|state| state.level() == Level::Ample).await.is_err() {
                return;
            }
        }
    }

    /// Something failed for want of space: the next claim looks again.
    pub async fn distrust(&self) {
        *self.looked.lock().await = None;
    }

    /// Looks until `stop`, and does what is due.
    pub async fn run(self: Arc<Self>, cleanup: Cleanup, stop: CancellationToken) {
        let mut cleanups = JoinSet::new();
        let mut cleaned: Option<Instant> = None;
        while !stop.is_cancelled() {
            let level = self.look_unless(Duration::ZERO).await;
            self.tend_reserves().await;
            while cleanups.try_join_next().is_some() {
                cleaned = Some(self.clock.now());
            }
            let rested = cleaned.is_none_or(|at| self.clock.now() - at >= BETWEEN_CLEANUPS);
            if level == Level::Full && rested && cleanups.is_empty() {
                warn!("cleaning up at once: a volume is below its hard mark");
                self.metrics.disk_cleanup();
                cleanups.spawn(cleanup());
            }
            let pause = if level == Level::Ample { CALM } else { TENSE };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    /// Looks, unless the last look is younger than `age`; answers how the worst volume stands.
    async fn look_unless(&self, age: Duration) -> Level {
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|at| self.clock.now() - at < age) {
            return self.state.borrow().level();
        }
        let (volumes, marks, disk) = (self.volumes.clone(), self.marks, Arc::clone(&self.disk));
        let look = move || {
            let look =
                |volume: Volume| VolumeState::look(volume.name, volume.folder, &*disk, &marks);
            DiskState { volumes: volumes.into_iter().map(look).collect() }
        };
        let state = match tokio::task::spawn_blocking(look).await {
            Ok(state) => state,
            Err(error) => match error.try_into_panic() {
                // It would never look again: the watch ends with it, and the worker with the watch.
                Ok(panic) => resume_unwind(panic),
                Err(_the_process_ends) => return Level::Full,
            },
        };
        *looked = Some(self.clock.now());
        let level = state.level();
        for volume in &state.volumes {
            self.metrics.disk(volume);
        }
        let before = self.state.send_replace(state).level();
        if before != level {
            let lacks = self.state.borrow().problems().join("; ");
            if level == Level::Ample {
                info!("there is room on the volumes again: orders are claimed");
            } else {
                warn!(%level, "no orders are claimed: {lacks}");
            }
        }
        level
    }

    /// Makes the reserve where there is room for it, and gives up that of a volume with nothing left,
    /// for the cleanup and for what must be written at the end of a run.
    async fn tend_reserves(&self) {
        let states = self.state.borrow().volumes.clone();
        let (volumes, marks) = (self.volumes.clone(), self.marks);
        let tend = move || {
            for (volume, state) in volumes.iter().zip(states) {
                let Some(space) = state.space else { continue };
                let needs = marks.soft_bytes.of(space.total_bytes) + 2 * Reserve::size_on(&space);
                if space.is_full() {
                    if volume.reserve.release() {
                        warn!(volume = volume.name, "the reserve was given up: the volume is full");
                    }
                } else if state.level == Level::Ample
                    && space.free_bytes > needs
                    && let Err(error) = volume.reserve.fill(&space)
                {
                    warn!(volume = volume.name, "cannot keep space in reserve: {error}");
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(tend).await
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicU64, AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use futures::FutureExt;
    use tokio_util::sync::CancellationToken;

    use super::{BETWEEN_CLEANUPS, DiskWatch};
    use crate::{
        clock::Clock,
        config::FoldersConfig,
        disk::{DiskMarks, DiskSpace, Level, Mark, Space, parse_size},
        telemetry::Metrics,
    };

    /// A disk with as much free as it is told.
    #[derive(Debug, Default)]
    struct Told(AtomicU64);

    impl DiskSpace for Told {
        fn space(&self, _: &Path) -> io::Result<Space> {
            let free_bytes = self.0.load(Ordering::SeqCst);
            Ok(Space { total_bytes: 1000, free_bytes, ..Space::default() })
        }
    }

    fn watch(free: u64) -> (Arc<DiskWatch>, Arc<Told>) {
        let mark = |text| Mark::parse(text, parse_size).unwrap();
        let marks =
            DiskMarks { soft_bytes: mark("100"), hard_bytes: mark("10"), ..DiskMarks::default() };
        let folder = Path::new("/nonexistent");
        let folders = FoldersConfig {
            repositories: folder.to_owned(),
            work_orders: folder.to_owned(),
            config: folder.to_owned(),
        };
        let disk = Arc::new(Told(AtomicU64::new(free)));
        let metrics = Metrics::local().unwrap();
        (DiskWatch::new(&folders, marks, disk.clone(), Clock::system(), metrics), disk)
    }

    #[tokio::test(start_paused = true)]
    async fn claims_wait_for_room_and_go_on_when_there_is_some() {
        let (watch, disk) = watch(99);
        let stop = CancellationToken::new();
        let looking = Arc::clone(&watch);
        tokio::spawn(looking.run(Box::new(|| async {}.boxed()), stop.clone()));
        assert!(tokio::time::timeout(Duration::from_mins(1), watch.admits()).await.is_err());
        assert_eq!(watch.state().borrow().level(), Level::Low);
        disk.0.store(100, Ordering::SeqCst);
        tokio::time::timeout(Duration::from_secs(3), watch.admits()).await.unwrap();
        // A claim right after trouble does not trust an earlier look.
        disk.0.store(5, Ordering::SeqCst);
        watch.distrust().await;
        assert!(tokio::time::timeout(Duration::from_millis(100), watch.admits()).await.is_err());
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn below_the_hard_mark_one_cleanup_runs_at_a_time_and_not_without_pause() {
        let (watch, disk) = watch(9);
        let stop = CancellationToken::new();
        let (runs, freeing) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&disk));
        let counted = Arc::clone(&runs);
        let cleanup = move || {
            let (counted, freeing) = (Arc::clone(&counted), Arc::clone(&freeing));
            async move {
                tokio::time::sleep(Duration::from_secs(30)).await;
                if counted.fetch_add(1, Ordering::SeqCst) == 1 {
                    freeing.0.store(500, Ordering::SeqCst);
                }
            }
            .boxed()
        };
        let looking = Arc::clone(&watch);
        tokio::spawn(looking.run(Box::new(cleanup), stop.clone()));
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        tokio::time::sleep(BETWEEN_CLEANUPS).await;
        assert_eq!(runs.load(Ordering::SeqCst), 1, "the first did not help, the next waits");
        tokio::time::timeout(Duration::from_mins(2), watch.admits()).await.unwrap();
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 2, "there is room: nothing to clean");
        stop.cancel();
    }
}
