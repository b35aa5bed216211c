//! Takes the sandboxes of ended orders away: judged, saved, judged again, moved to the trash, judged once
//! more, deleted. Any number of replicas may do it on one volume at once.
//!
//! Nobody who wants a sandbox waits for an upload of it: its lock is let go of meanwhile.

mod order_folders;
mod saving;
mod verdict;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use futures::StreamExt;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    archive::{Archive, ArchiveError},
    clock::Clock,
    config::{AgentUsers, Config, RetentionPolicy},
    domain::{Credentials, RemoteRules, RepositoryUrl, WorkOrderId},
    git::{Claim, FoundSandbox, Git, GitError, Remote},
    store::{Standing, Store, StoreError},
};
use saving::Saved;
pub use verdict::Urgency;
use verdict::{Verdict, judge};

/// Sandboxes that one process takes away at once; each is deleted by several threads.
const AT_ONCE: usize = 2;
/// Orders that are looked up in one statement.
const CHUNK: usize = 1000;

/// Cleans the volumes of this host.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    /// The database.
    pub store: Store,
    /// The repository volume.
    pub git: Git,
    /// `AWO_WORK_ORDER_DIR`, where saved work goes.
    pub work_orders: PathBuf,
    /// Which remotes may be asked what they have.
    pub remotes: RemoteRules,
    /// What opens those on a server.
    pub credentials: Credentials,
    /// The worker's variables that repositories may ask for: what is saved holds no value of those that they
    /// have.
    pub inheritable: BTreeMap<String, String>,
    /// Where the agents' own files go before they are deleted, if they are kept.
    pub archive: Option<Archive>,
    /// The users of which each run of an agent gets one: what dead runs had is taken back first.
    pub users: Option<AgentUsers>,
    /// Randomness.
    pub clock: Clock,
}

/// What to take away.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// From which age on.
    pub policy: RetentionPolicy,
    /// After how many days the files of orders go that the database has forgotten; `None`: never.
    pub history_days: Option<i32>,
    /// How badly space is needed.
    pub urgency: Urgency,
    /// Whether sandboxes go too whose orders this database never had: they may be another database's.
    pub unknown: bool,
    /// Whether only to say what would go.
    pub dry_run: bool,
}

/// What was done about one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is gone.
    Removed,
    /// It would go, were this no dry run.
    WouldRemove,
    /// It stays, for a reason.
    Kept,
    /// Somebody holds it: an agent, git, another replica that takes it away.
    Busy,
    /// It should go and could not, for a reason.
    Failed,
}

/// One sandbox, and what was done about it.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// The order.
    pub order: String,
    /// The order's status; `None` when the database does not know it.
    pub status: Option<String>,
    /// What was done.
    pub action: Action,
    /// Why.
    pub reason: Option<String>,
    /// The bundle its unpushed work went into, below `AWO_WORK_ORDER_DIR`.
    pub saved: Option<String>,
    /// Files and folders that were deleted.
    pub entries: u64,
}

/// What a sweep did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SweepReport {
    /// Every sandbox on the volume.
    pub items: Vec<Item>,
    /// Files and folders that were deleted from the trash, where a dead process had left them.
    pub leftovers: u64,
    /// Folders of `AWO_WORK_ORDER_DIR` whose orders the database has forgotten, and that went.
    pub order_folders: Vec<String>,
    /// What could not be done besides, in sentences.
    pub problems: Vec<String>,
    /// Whether it was told to stop before its end.
    pub stopped: bool,
}

impl SweepReport {
    /// How many sandboxes met this end.
    pub fn count(&self, action: Action) -> usize {
        self.items.iter().filter(|item| item.action == action).count()
    }

    /// Files and folders that were deleted.
    pub fn entries(&self) -> u64 {
        self.leftovers + self.items.iter().map(|item| item.entries).sum::<u64>()
    }
}

/// Why one sandbox stays although it should go.
enum Obstacle {
    /// There is nothing wrong with that.
    None(Box<Item>),
    Store(StoreError),
    Git(&'static str, GitError),
    Archive(ArchiveError),
}

impl Sandboxes {
    /// What the settings of this process say about it.
    pub fn new(
        config: &Config,
        store: Store,
        git: Git,
        archive: Option<Archive>,
        clock: Clock,
    ) -> Self {
        let (remotes, credentials) = (config.remotes.clone(), config.credentials.clone());
        let work_orders = config.folders.work_orders.clone();
        let inheritable = config.agent.inheritable.clone();
        let users = config.agent.isolation.users.clone();
        Self { store, git, work_orders, remotes, credentials, inheritable, archive, users, clock }
    }

    /// Takes away what may go on the volumes of this host. `each` hears of every sandbox as it is
    /// dealt with, with the number of all; after `stop` those that are not saved yet stay.
    pub async fn sweep(
        &self,
        sweep: &Sweep,
        each: &(dyn Fn(&Item, usize) + Sync),
        stop: &CancellationToken,
    ) -> Result<SweepReport, SweepError> {
        self.take_back().await;
        let knowing = self.knowing_variables().await.map_err(SweepError::Store)?;
        knowing.sweep_volume(sweep, each, stop).await
    }

    /// Of a run whose worker and shim were killed its user still has the files: nobody else could save or
    /// delete them.
    async fn take_back(&self) {
        let Some(users) = self.users.clone() else { return };
        match tokio::task::spawn_blocking(move || users.reclaim(None)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(error) => tracing::warn!("what dead runs had cannot be taken back: {error}"),
        }
    }

    async fn sweep_volume(
        &self,
        sweep: &Sweep,
        each: &(dyn Fn(&Item, usize) + Sync),
        stop: &CancellationToken,
    ) -> Result<SweepReport, SweepError> {
        let mut found = self.git.found_sandboxes().await.map_err(SweepError::Volume)?;
        // Replicas that start together do not all begin at the same one.
        if !found.is_empty() {
            let start = self.clock.between(Duration::ZERO, Duration::from_secs(1)).as_nanos();
            let start = usize::try_from(start).unwrap_or_default() % found.len();
            found.rotate_left(start);
        }
        let mut report = SweepReport::default();
        let mut candidates = Vec::new();
        for chunk in found.chunks(CHUNK) {
            let ids: Vec<_> = chunk.iter().map(known_by).collect();
            let standings = self.store.standing(&ids).await.map_err(SweepError::Store)?;
            for found in chunk {
                let Some(standing) = standings.iter().find(|row| row.id == found.order.as_str())
                else {
                    continue;
                };
                match judge(found, standing, sweep) {
                    Verdict::Keep(reason) => {
                        report.items.push(Item::new(standing, Action::Kept, Some(reason)));
                    }
                    Verdict::Remove if sweep.dry_run => {
                        report.items.push(Item::new(standing, Action::WouldRemove, None));
                    }
                    Verdict::Remove => candidates.push((found.clone(), standing.clone())),
                }
            }
        }
        let total = candidates.len();
        let work = candidates.into_iter().map(|(found, standing)| async move {
            let item = self.take_away(&found, &standing, sweep, stop).await;
            each(&item, total);
            item
        });
        let done: Vec<Item> = futures::stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        report.items.extend(done);
        report.stopped = stop.is_cancelled();
        if sweep.dry_run || report.stopped {
            return Ok(report);
        }
        match self.git.empty_trash().await {
            Ok(removed) => {
                report.leftovers = removed.entries;
                report.problems.extend(removed.reason);
            }
            Err(error) => report.problems.push(error.sentence()),
        }
        self.sweep_order_folders(sweep, &mut report).await;
        Ok(report)
    }

    async fn take_away(
        &self,
        found: &FoundSandbox,
        standing: &Standing,
        sweep: &Sweep,
        stop: &CancellationToken,
    ) -> Item {
        // Up to here nothing has changed, so it can be dropped; what follows is short, or only deletes.
        let saved = tokio::select! {
            biased;
            () = stop.cancelled() => {
                return Item::new(standing, Action::Kept, Some("told to stop".to_owned()));
            }
            saved = self.save(found, standing, sweep) => saved,
        };
        let done = match saved {
            Ok(saved) => self.discard(saved, found, standing, sweep).await,
            Err(obstacle) => Err(obstacle),
        };
        match done {
            Ok(item) => item,
            Err(obstacle) => {
                let reason = match obstacle {
                    Obstacle::None(item) => return *item,
                    Obstacle::Store(error) => format!("the database did not answer: {error}"),
                    Obstacle::Git(doing, error) => format!("{doing}: {}", error.sentence()),
                    Obstacle::Archive(error) => format!("it is not archived, so it stays: {error}"),
                };
                Item::new(standing, Action::Failed, Some(reason))
            }
        }
    }

    /// Claims a sandbox that may go. While the claim is held no worker opens it, so what the database says
    /// then counts.
    async fn claim(
        &self,
        found: &FoundSandbox,
        standing: &Standing,
        sweep: &Sweep,
    ) -> Result<Claim, Obstacle> {
        let claim = self.git.claim_sandbox(&found.order).await;
        let claim = claim.map_err(|error| Obstacle::Git("it cannot be locked", error))?;
        let Some(claim) = claim else { return Err(busy(standing)) };
        match self.changed(found, standing, sweep).await? {
            Some(kept) => Err(Obstacle::None(Box::new(kept))),
            None => Ok(claim),
        }
    }

    /// Takes away what is saved.
    async fn discard(
        &self,
        Saved { claim, bundle }: Saved,
        found: &FoundSandbox,
        standing: &Standing,
        sweep: &Sweep,
    ) -> Result<Item, Obstacle> {
        let git = |doing| move |error| Obstacle::Git(doing, error);
        let discarded = claim.discard().await.map_err(git("it cannot be moved to the trash"))?;
        if discarded.is_empty() {
            discarded.delete().await.map_err(git("its lock cannot be removed"))?;
            let reason = "another process took it away".to_owned();
            return Ok(Item::new(standing, Action::Busy, Some(reason)));
        }
        let again = self.changed(found, standing, sweep).await;
        let free = discarded.is_free().await;
        if !matches!((&again, &free), (Ok(None), Ok(true))) {
            discarded.put_back().await.map_err(git("it cannot be put back"))?;
            free.map_err(git("it cannot be locked"))?;
            return Ok(again?.unwrap_or_else(|| Item::new(standing, Action::Busy, None)));
        }
        let removed =
            discarded.delete().await.map_err(git("it is in the trash and stays there"))?;
        let mut item = Item::new(standing, Action::Removed, removed.reason);
        item.saved = bundle.map(|bundle| bundle.path);
        item.entries = removed.entries;
        Ok(item)
    }

    /// Judges a sandbox again, which was judged as its order stood `before`; an item when it may not go
    /// any more.
    async fn changed(
        &self,
        found: &FoundSandbox,
        before: &Standing,
        sweep: &Sweep,
    ) -> Result<Option<Item>, Obstacle> {
        let ids = [known_by(found)];
        let standing = self.store.standing(&ids).await.map_err(Obstacle::Store)?;
        let Some(standing) = standing.first() else { return Ok(None) };
        if standing.ended_seconds < before.ended_seconds {
            let reason = "its order ran again meanwhile".to_owned();
            return Ok(Some(Item::new(standing, Action::Kept, Some(reason))));
        }
        Ok(match judge(found, standing, sweep) {
            Verdict::Remove => None,
            Verdict::Keep(reason) => Some(Item::new(standing, Action::Kept, Some(reason))),
        })
    }

    /// The remote of an order, if it may be asked.
    async fn remote(&self, order: &WorkOrderId) -> Option<Remote> {
        let url = self.git.recorded_url(order).await.ok().flatten()?;
        let url = RepositoryUrl::parse(url.clone_url(), &self.remotes).ok()?;
        let credential = self.credentials.for_url(&url);
        Some(Remote { url, credential })
    }
}

/// What the database is asked about a sandbox.
fn known_by(found: &FoundSandbox) -> (String, Option<i64>) {
    (found.order.to_string(), found.generation)
}

fn busy(standing: &Standing) -> Obstacle {
    Obstacle::None(Box::new(Item::new(standing, Action::Busy, None)))
}

impl Item {
    fn new(standing: &Standing, action: Action, reason: Option<String>) -> Self {
        let (order, status) = (standing.id.clone(), standing.status.clone());
        Self { order, status, action, reason, saved: None, entries: 0 }
    }
}

/// Why a volume could not be swept at all.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The database refused.
    #[error("cannot ask how the orders stand: {0}")]
    Store(StoreError),
    /// The volume refused.
    #[error("cannot read the repository volume: {0}")]
    Volume(GitError),
}
