//! The long-lived tasks of a worker: one that ends before its time ends the worker, with a sentence.
//!
//! A task that is gone without anybody knowing would leave a worker that looks well and, say, never
//! rescues again.

use std::{
    any::Any, future::pending, io, panic::AssertUnwindSafe, sync::Arc, thread, time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{runtime, sync::oneshot, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// What a task does.
pub type Work = BoxFuture<'static, anyhow::Result<()>>;
/// Gets every task with its name before it is started, and answers what is started in its place. A
/// worker changes nothing; tests end one task this way.
pub type Wrap = Arc<dyn Fn(&'static str, Work) -> Work + Send + Sync>;

/// A task that ended before its time.
#[derive(Debug, thiserror::Error)]
#[error(
    "the {task} of this worker {how}, so the worker gives back what it holds and ends: start it again, \
     and report this with its log"
)]
pub struct TaskLost {
    /// Its name.
    pub task: &'static str,
    how: String,
}

type Panic = Box<dyn Any + Send>;

/// The long-lived tasks of one worker. They are aborted when this is dropped.
pub struct Services {
    tasks: JoinSet<Option<TaskLost>>,
    wrap: Wrap,
}

impl Default for Services {
    fn default() -> Self {
        Self::wrapped(Arc::new(|_, work| work))
    }
}

impl Services {
    /// None yet; each is passed through `wrap`.
    pub fn wrapped(wrap: Wrap) -> Self {
        Self { tasks: JoinSet::new(), wrap }
    }

    /// Starts a task that may end well only once `until` is cancelled.
    pub fn spawn(
        &mut self,
        task: &'static str,
        until: CancellationToken,
        work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let work = AssertUnwindSafe((self.wrap)(task, work.boxed())).catch_unwind();
        self.tasks.spawn(async move { judge(task, &until, work.await) });
    }

    /// The same on a thread and a runtime of its own: whatever blocks the threads of the others does
    /// not block this task.
    pub fn thread(
        &mut self,
        task: &'static str,
        until: CancellationToken,
        work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> io::Result<()> {
        let work = AssertUnwindSafe((self.wrap)(task, work.boxed())).catch_unwind();
        let own = runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, ended) = oneshot::channel();
        thread::Builder::new().name(task.to_owned()).spawn(move || {
            // Nobody waits for it when the process ends anyway.
            let _ = sender.send(own.block_on(work));
            own.shutdown_background();
        })?;
        self.tasks.spawn(async move {
            judge(task, &until, ended.await.unwrap_or_else(|gone| Ok(Err(gone.into()))))
        });
        Ok(())
    }

    /// Waits for the first task that ends before its time.
    pub async fn lost(&mut self) -> TaskLost {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Some(lost))) => return lost,
                Some(_) => {}
                None => pending().await,
            }
        }
    }

    /// Lets the tasks end, whose time is over, and aborts what takes longer than `patience`.
    pub async fn finish(mut self, patience: Duration) {
        let ended = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok(Some(lost)) = ended {
                    error!("{lost}");
                }
            }
        };
        // What is left is aborted as `self` is dropped.
        let _ = timeout(patience, ended).await;
    }
}

/// What the end of a task means.
fn judge(
    task: &'static str,
    until: &CancellationToken,
    ended: Result<anyhow::Result<()>, Panic>,
) -> Option<TaskLost> {
    let how = match ended {
        Err(panic) => format!("panicked ({})", words(panic.as_ref())),
        Ok(Err(error)) => format!("failed ({error:#})"),
        Ok(Ok(())) if until.is_cancelled() => return None,
        Ok(Ok(())) => "ended though nobody had told it to".to_owned(),
    };
    Some(TaskLost { task, how })
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc, time::Duration};

    use futures::FutureExt;
    use tokio_util::sync::CancellationToken;

    use super::{Services, Wrap};

    #[tokio::test]
    async fn the_end_of_a_task_before_its_time_is_told_in_a_sentence() {
        let stop = CancellationToken::new();
        for on_thread in [false, true] {
            for (work, how) in [
                (async { panic!("at the disco") }.boxed(), "panicked (at the disco)"),
                (async { anyhow::bail!("no port") }.boxed(), "failed (no port)"),
                (async { Ok(()) }.boxed(), "ended though nobody had told it to"),
            ] {
                let mut services = Services::default();
                services.spawn("other", stop.clone(), pending());
                if on_thread {
                    services.thread("heartbeat", stop.clone(), work).unwrap();
                } else {
                    services.spawn("heartbeat", stop.clone(), work);
                }
                let lost = services.lost().await;
                assert_eq!(lost.task, "heartbeat");
                let sentence = lost.to_string();
                let begin = format!("the heartbeat of this worker {how}, so the worker gives back");
                assert!(sentence.starts_with(&begin), "{sentence}");
            }
        }
    }

    #[tokio::test]
    async fn an_end_after_the_stop_is_no_loss() {
        let stop = CancellationToken::new();
        let mut services = Services::default();
        let until_told = || stop.clone().cancelled_owned().map(Ok);
        services.thread("heartbeat", stop.clone(), until_told()).unwrap();
        services.spawn("rescue", stop.clone(), until_told());
        stop.cancel();
        tokio::select! {
            biased;
            lost = services.lost() => panic!("{lost}"),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        services.finish(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn what_wraps_the_tasks_may_end_one_of_them() {
        let stop = CancellationToken::new();
        let wrap: Wrap = Arc::new(|task, work| match task {
            "rescue" => async { Ok(()) }.boxed(),
            _ => work,
        });
        let mut services = Services::wrapped(wrap);
        services.spawn("schedules", stop.clone(), pending());
        services.spawn("rescue", stop, pending());
        assert_eq!(services.lost().await.task, "rescue");
    }
}
