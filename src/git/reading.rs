//! What one look at the files of an agent may cost, and how its end is heard: whoever made them may have made
//! them so that reading never ends.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{GitError, blocking};
use crate::clock::boot_time;

/// The most files and folders that are looked at: as many as a checkout may have.
pub(super) const MOST_ENTRIES: usize = 4_000_000;
/// The deepest a folder may lie.
pub(super) const DEEPEST: usize = 1000;
/// The most bytes that all files with rules of a checkout may have: a hundred times those of the largest ones.
pub(super) const MOST_RULE_BYTES: usize = 4 << 20;
/// And the most lines in them that say something.
pub(super) const MOST_RULES: usize = 200_000;
/// How long all of it may take.
const LONGEST: Duration = Duration::from_mins(15);
/// After how much work it is asked whether anybody waits for it.
const STRIDE: u64 = 1 << 20;

/// One look: it belongs to the thread that does it.
#[derive(Debug)]
pub(super) struct Reading {
    /// Whoever asked for it has gone away.
    given_up: Arc<AtomicBool>,
    until: Duration,
    work: Rc<Work>,
}

/// What the comparing of rules has cost so far.
#[derive(Debug)]
pub(super) struct Work {
    left: Cell<u64>,
    /// When it is time to listen again.
    listen_at: Cell<u64>,
    given_up: Arc<AtomicBool>,
}

/// Tells the thread that nobody waits for its look any more.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs work that reads what an agent wrote away from the runtime's threads. It ends soon after its caller
/// is dropped: by a cancel, a timeout or a lost lease.
pub(super) async fn reading<T: Send + 'static>(
    work: impl FnOnce(&Reading) -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    let given_up = Arc::new(AtomicBool::new(false));
    let _caller = GiveUp(Arc::clone(&given_up));
    blocking(move || work(&Reading::new(given_up, LONGEST, u64::MAX))).await
}

impl Reading {
    fn new(given_up: Arc<AtomicBool>, longest: Duration, most_work: u64) -> Self {
        let work = Work {
            left: Cell::new(most_work),
            listen_at: Cell::new(most_work.saturating_sub(STRIDE)),
            given_up: Arc::clone(&given_up),
        };
        Self { given_up, until: boot_time().saturating_add(longest), work: Rc::new(work) }
    }

    /// Asked before each file and each part of one.
    ///
    /// # Errors
    /// Nobody waits for it, or it has taken too long.
    pub(super) fn go_on(&self) -> Result<(), GitError> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(GitError::Interrupted);
        }
        if boot_time() > self.until {
            let minutes = LONGEST.as_secs() / 60;
            return Err(GitError::Unusable(format!(
                "the files of the sandbox could not be read within {minutes} minutes: have the agent \
                 remove what no commit needs, and requeue the order"
            )));
        }
        Ok(())
    }

    /// Bounds what comparing rules may cost from now on.
    pub(super) fn bound(&self, work: u64) {
        let left = self.work.left.get().min(work);
        self.work.left.set(left);
        self.work.listen_at.set(left.saturating_sub(STRIDE));
    }

    /// What rules that belong to this look are charged to.
    pub(super) fn work(&self) -> Rc<Work> {
        Rc::clone(&self.work)
    }

    /// Why rules say nothing any more: there were too many comparisons.
    pub(super) fn exhausted(&self) -> Option<GitError> {
        self.work.is_spent().then(|| {
            GitError::Unusable(
                "the rules in .gitignore and .gitattributes are too many, or too long, for the files that \
                 are there: shorten them, or remove files, and requeue the order"
                    .to_owned(),
            )
        })
    }
}

impl Work {
    /// Work without a limit, for rules of ours.
    #[cfg(test)]
    pub(super) fn unlimited() -> Rc<Self> {
        Reading::new(Arc::default(), LONGEST, u64::MAX).work()
    }

    /// Whether rules say nothing any more.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// Charges some work; `false` when there is none left to be done.
    pub(super) fn charge(&self, cost: usize) -> bool {
        let left = self.left.get().saturating_sub(cost as u64);
        self.left.set(left);
        if left <= self.listen_at.get() {
            self.listen_at.set(left.saturating_sub(STRIDE));
            if self.given_up.load(Ordering::Relaxed) {
                self.left.set(0);
            }
        }
        self.left.get() > 0
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::{Reading, STRIDE};
    use crate::git::GitError;

    #[test]
    fn a_look_ends_with_its_caller_its_time_and_its_work() {
        let given_up = Arc::default();
        let look = Reading::new(Arc::clone(&given_up), Duration::from_mins(1), 2 * STRIDE);
        assert!(look.go_on().is_ok() && look.work().charge(1) && look.exhausted().is_none());
        given_up.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(look.go_on(), Err(GitError::Interrupted)));
        assert!(!look.work().charge(usize::try_from(STRIDE).unwrap()), "heard while it compares");
        let late = Reading::new(Arc::default(), Duration::ZERO, 10);
        std::thread::sleep(Duration::from_millis(5));
        let error = late.go_on().unwrap_err();
        assert!(error.to_string().contains("within 15 minutes"), "{error}");
        assert!(late.work().charge(9) && !late.work().charge(1));
        assert!(late.exhausted().unwrap().to_string().contains("shorten them"));
    }
}
