//! Finds the sandbox of an order that goes on, or makes it again from what is left of its work.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};
use tracing::{info, warn};

use super::{failure::StepError, order_run::OrderRun};
use crate::{
    domain::{BranchName, StepName},
    git::{GitError, Mirror, Sandbox},
    store::RebuildSource,
};

/// A place that holds work of an order.
#[derive(Debug)]
enum Source {
    /// The bundle that was saved before the sandbox was taken away.
    Bundle(PathBuf),
    /// The branch on the remote, with what we pushed to it.
    Branch(Vec<String>),
}

impl Source {
    const fn name(&self) -> &'static str {
        match self {
            Self::Bundle(_) => "bundle",
            Self::Branch(_) => "branch",
        }
    }
}

impl OrderRun<'_> {
    /// Finds the sandbox of an order that goes on. When it is gone (another volume, a cleaned disk) it is
    /// made from the saved or the pushed work; without either it is made anew, and the steps whose work was
    /// only in it run again.
    pub(super) async fn recover_sandbox(&mut self) -> Result<(), StepError> {
        if !self.results.contains_key(&StepName::CreateBranch) {
            return Ok(());
        }
        let git = &self.workflow.git;
        if let Some(sandbox) = git.find_sandbox(&self.order.id, &self.order.url).await? {
            if sandbox.restarts == self.order.plan.restarts {
                let keeps_lfs = self.order.plan.parts.lfs;
                let sandbox = if keeps_lfs { sandbox.keep_lfs().await? } else { sandbox };
                self.undo_unfinished(&sandbox).await?;
                let sandbox = self.follow_branch(sandbox).await?;
                self.enter_sandbox(sandbox);
                return Ok(());
            }
            // The order began anew on another volume.
            self.set_sandbox_aside().await?;
        }
        if self.results.contains_key(&StepName::Commit) {
            // The work is on the remote: nothing that is left needs the files.
            return Ok(());
        }
        if let Some((sandbox, from, files)) = self.rebuild().await? {
            info!(work_order.id = %self.order.id, from, "the sandbox was gone and is made again");
            let facts = json!({ "from": from, "archived_files": files });
            self.journal.event("info", "sandbox_rebuilt", None, facts).await;
            let sandbox = self.follow_branch(sandbox).await?;
            self.enter_sandbox(sandbox);
            return Ok(());
        }
        let lost = [StepName::CreateBranch, StepName::Execute, StepName::PrpReview];
        warn!(work_order.id = %self.order.id, "the sandbox is gone, its steps run again");
        self.journal.event("warning", "sandbox_lost", None, json!({})).await;
        self.store.forget_steps(&lost).await?;
        self.results.retain(|step, _| !lost.contains(step));
        Ok(())
    }

    /// The sandbox, from what it was made, and whether the agent's own files came back too.
    async fn rebuild(&self) -> Result<Option<(Sandbox, &'static str, bool)>, StepError> {
        let Some(found) = self.store.rebuild_source().await? else { return Ok(None) };
        let restarts = self.order.plan.restarts;
        let sources = sources(&found, restarts, &self.workflow.settings.work_orders).await;
        let made = self.results.get(&StepName::CreateBranch);
        let base = made.and_then(|made| made.get("base_commit")).and_then(Value::as_str);
        let (Some(branch), Some(base), false) = (&self.order.branch, base, sources.is_empty())
        else {
            return Ok(None);
        };
        let git = &self.workflow.git;
        let mirror = git.refresh_mirror_of(&self.remote(), self.order.plan.history).await?;
        for source in &sources {
            match self.rebuild_from(source, &mirror, branch, base).await {
                Ok(Some(sandbox)) => {
                    let files = self.bring_back(&found, &sandbox).await?;
                    return Ok(Some((sandbox, source.name(), files)));
                }
                Ok(None) => {}
                // The next attempt may find it in order.
                Err(error) if error.retryable() => return Err(error.into()),
                Err(error) => {
                    warn!(work_order.id = %self.order.id, from = source.name(),
                        "the sandbox cannot be made again: {}", error.sentence());
                }
            }
        }
        Ok(None)
    }

    async fn rebuild_from(
        &self,
        source: &Source,
        mirror: &Mirror,
        branch: &BranchName,
        base_commit: &str,
    ) -> Result<Option<Sandbox>, GitError> {
        let (git, id, plan) = (&self.workflow.git, &self.order.id, &self.order.plan);
        match source {
            Source::Bundle(file) => {
                git.restore_sandbox(mirror, id, branch, plan, file).await.map(Some)
            }
            Source::Branch(pushed) => {
                git.rebuild_sandbox(mirror, id, branch, plan, base_commit, pushed).await
            }
        }
    }

    /// Brings the agent's own files back from the archive, with its conversation. Without them the work
    /// is complete all the same, so an archive that fails is told and passed over.
    async fn bring_back(
        &self,
        found: &RebuildSource,
        sandbox: &Sandbox,
    ) -> Result<bool, StepError> {
        let (Some(archive), Some(key), Some(sha256), true) =
            (&self.workflow.archive, &found.archive, &found.archive_sha256, found.archive_is_newer)
        else {
            return Ok(false);
        };
        let folder = sandbox.returning_folder().await?;
        if let Err(error) = archive.fetch(key, sha256, &folder).await {
            warn!(work_order.id = %self.order.id, "the agent's files stay in the archive: {error}");
            return Ok(false);
        }
        sandbox.adopt_agent_files().await?;
        Ok(true)
    }
}

/// What holds work of the order, the newest first. A bundle on another host's volume is none.
async fn sources(found: &RebuildSource, restarts: i32, work_orders: &Path) -> Vec<Source> {
    let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    let bundle = found.bundle.as_ref().map(Path::new).filter(|path| plain(path));
    let bundle = match bundle.map(|path| work_orders.join(path)) {
        Some(path) => {
            let is_file = tokio::fs::metadata(&path).await.is_ok_and(|about| about.is_file());
            is_file.then_some(Source::Bundle(path))
        }
        None => None,
    };
    let pushed = found.pushed(restarts);
    let branch = (!pushed.is_empty()).then_some(Source::Branch(pushed));
    let both = if found.bundle_is_newer { [bundle, branch] } else { [branch, bundle] };
    both.into_iter().flatten().collect()
}
