//! What a checkout tells agents about how to work: instructions, settings, hooks. What the author wrote there must not
//! steer whoever judges its change.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io,
    path::{Component, Path, PathBuf},
};

use git2::Tree;

use super::{GitError, Sandbox, blocking, rewrite::changes, undo::remembered};
use crate::disk::{Beneath, Kind};

/// Files that agents read wherever they are.
const FILES: [&str; 5] = ["CLAUDE.md", "CLAUDE.local.md", "AGENTS.md", "GEMINI.md", ".mcp.json"];
/// Folders all of which are for agents.
const FOLDERS: [&str; 5] = [".claude", ".codex", ".gemini", ".opencode", ".agents"];
/// What Claude Code puts there by itself, and does not read in a run of ours.
const OF_THE_CLI: [&str; 2] = [".claude/settings.local.json", ".claude/worktrees"];
/// Most of it that is looked at, and how deep; what has more counts as changed.
const MOST: usize = 2000;
const DEEPEST: usize = 8;

impl Sandbox {
    /// What the author changed of it, as far as the files are remembered; also what git ignores, since agents read that
    /// as well. A link among it counts as changed unless it leads to more of it: elsewhere may be anything.
    pub async fn changed_guidance(&self) -> Result<Vec<PathBuf>, GitError> {
        let sandbox = self.clone();
        blocking(move || {
            let repository = sandbox.open_trusted()?;
            let library =
                || GitError::library("compare what the checkout tells agents with the base");
            let base = sandbox.base(&repository)?.tree().map_err(library())?;
            let mut found = BTreeSet::new();
            if let Some(now) = remembered(&repository) {
                let changed = changes(&repository, base.id(), now).map_err(library())?;
                found.extend(
                    changed.into_iter().map(|change| change.path).filter(|path| is_guidance(path)),
                );
            }
            let mut walk = Walk { base: &base, found, left: MOST };
            // A checkout that cannot be opened tells nobody anything.
            if let Ok(root) = sandbox.files() {
                for name in FILES.iter().chain(&FOLDERS) {
                    walk.look(&root, OsStr::new(name), Path::new(""), 0);
                }
            }
            Ok(walk.found.into_iter().collect())
        })
        .await
    }
}

fn is_guidance(path: &Path) -> bool {
    let is_one_of = |names: &[&str], name: &OsStr| names.iter().any(|known| name == *known);
    let is_for_agents = path.file_name().is_some_and(|name| is_one_of(&FILES, name))
        || path.iter().any(|name| is_one_of(&FOLDERS, name));
    is_for_agents && !OF_THE_CLI.iter().any(|own| path.starts_with(own))
}

/// A look at what lies in the checkout and is in no tree that was compared.
struct Walk<'t> {
    base: &'t Tree<'t>,
    found: BTreeSet<PathBuf>,
    left: usize,
}

impl Walk<'_> {
    /// The agent can write all of this.
    fn look(&mut self, at: &Beneath, name: &OsStr, parent: &Path, depth: usize) {
        let path = parent.join(name);
        if OF_THE_CLI.iter().any(|own| path == Path::new(own)) {
            return;
        }
        let Ok(about) = at.about(Path::new(name)) else { return };
        if self.left == 0 || depth > DEEPEST {
            self.found.insert(path);
            return;
        }
        self.left -= 1;
        match about.kind {
            Kind::Folder => {
                if self.look_into(at, name, &path, depth).is_err() {
                    self.found.insert(path);
                }
            }
            Kind::File if self.base.get_path(&path).is_ok() => {}
            Kind::Link
                if self.base.get_path(&path).is_ok() && leads_to_guidance(at, name, parent) => {}
            _ => {
                self.found.insert(path);
            }
        }
    }

    fn look_into(
        &mut self,
        at: &Beneath,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let folder = at.folder(Path::new(name))?;
        folder.names(|name| {
            self.look(&folder, name, path, depth + 1);
            self.left > 0
        })
    }
}

/// Whether a link, such as `CLAUDE.md` to `AGENTS.md`, leads to what is compared as well.
fn leads_to_guidance(at: &Beneath, name: &OsStr, parent: &Path) -> bool {
    let Ok((target, _)) = at.link(Path::new(name)) else { return false };
    let target = PathBuf::from(target);
    let stays =
        target.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    stays && is_guidance(&parent.join(target))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_guidance;

    #[test]
    fn instructions_settings_and_hooks_are_known_wherever_they_are() {
        for path in [
            "CLAUDE.md",
            "docs/CLAUDE.md",
            ".claude/settings.json",
            "a/.claude/hooks/x.sh",
            ".mcp.json",
        ] {
            assert!(is_guidance(Path::new(path)), "{path}");
        }
        for path in ["README.md", "claude/settings.json", "docs/CLAUDE.md.txt", "src/AGENTS.rs"] {
            assert!(!is_guidance(Path::new(path)), "{path}");
        }
    }
}
