//! The remotes of the orders: bare repositories, each with a hook that can fail after the push was
//! taken.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, ensure};
use archon_awo::process::blocking_command;

/// Runs when the refs have moved; the pusher is not answered when its parent is gone.
const HOOK: &str = r#"#!/bin/sh
folder=$(dirname "$0")/..
rm "$folder/fail-next-push" 2> /dev/null || exit 0
echo failed >> "$folder/failed-pushes"
kill -9 "$PPID"
"#;

/// One bare repository.
pub struct Remote {
    folder: PathBuf,
}

/// What the remotes hold for one order.
#[derive(Debug, Default, Clone)]
pub struct Delivered {
    pub branches: Vec<String>,
    pub pulls: Vec<String>,
}

impl Remote {
    pub fn create(folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        let remote = Self { folder };
        remote.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."])?;
        let tree = remote.git(&["mktree"])?;
        let commit = remote.git(&["commit-tree", "-m", "First", tree.trim()])?;
        remote.git(&["update-ref", "refs/heads/main", commit.trim()])?;
        let hook = remote.folder.join("hooks/post-receive");
        fs::create_dir_all(remote.folder.join("hooks"))?;
        fs::write(&hook, HOOK)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        Ok(remote)
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    /// The next push fails after it was taken.
    pub fn fail_next_push(&self) -> anyhow::Result<()> {
        Ok(fs::write(self.folder.join("fail-next-push"), "")?)
    }

    /// How many did.
    pub fn failed_pushes(&self) -> usize {
        let lines = fs::read_to_string(self.folder.join("failed-pushes")).unwrap_or_default();
        lines.lines().count()
    }

    /// Adds what is here to what is known of each order in `orders`.
    pub fn deliveries(&self, orders: &mut BTreeMap<String, Delivered>) -> anyhow::Result<()> {
        let refs = self.git(&["for-each-ref", "--format=%(refname)", "refs/heads"])?;
        for branch in refs.lines().filter(|name| *name != "refs/heads/main") {
            let order = orders.iter_mut().find(|(id, _)| branch.contains(id.as_str()));
            let (_, order) = order.with_context(|| format!("{branch} belongs to no order"))?;
            order.branches.push(branch.to_owned());
        }
        for entry in fs::read_dir(self.folder.join("awo/pulls")).into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path)?;
                let order = orders.iter_mut().find(|(id, _)| text.contains(id.as_str()));
                let named = || format!("{} belongs to no order", path.display());
                order.with_context(named)?.1.pulls.push(path.display().to_string());
            }
        }
        Ok(())
    }

    /// Whether a branch holds what was ordered, as one commit on top of main.
    pub fn holds(&self, branch: &str, order: &str) -> anyhow::Result<bool> {
        let commits = self.git(&["rev-list", "--count", &format!("main..{branch}")])?;
        let file = self.git(&["show", &format!("{branch}:{order}.txt")])?;
        Ok(commits.trim() == "1" && file.starts_with(&format!("written for {order}\n")))
    }

    fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = blocking_command("git");
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("HOME", &self.folder).current_dir(&self.folder);
        command.args(["-c", "user.name=test", "-c", "user.email=test@localhost"]).args(arguments);
        let output = command.output().context("git")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "git {arguments:?}: {words}");
        Ok(String::from_utf8(output.stdout)?)
    }
}
