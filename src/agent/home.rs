//! The home of an agent that starts clean: what anybody left there is gone, its own conversation goes on.
//!
//! Nearly every tool reads files of the home and obeys them (`~/.claude`, `~/.gitconfig`, `~/.npmrc`,
//! `~/.bashrc`, Python's user site ...), so there is no list of those to take out.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{claude, request::AgentRequest};
use crate::disk::trash;

/// Empties home and temporary files, but for the conversation of the request if that `may_resume`. Nothing
/// in them is followed, and no agent is at work.
pub(super) fn renew(request: &AgentRequest, may_resume: bool) -> io::Result<()> {
    let aside = |folder: &Path| {
        let mut name = folder.file_name().unwrap_or_default().to_owned();
        name.push(format!(".old-{}", request.run_id));
        folder.with_file_name(name)
    };
    for folder in [&request.home, &request.tmp] {
        let old = aside(folder);
        match fs::rename(folder, &old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        if folder == &request.home && request.resume && may_resume {
            keep_conversation(&old, request)?;
        }
        let deleted = trash::delete(&old)?;
        if let Some((path, error)) = deleted.told.first() {
            tracing::warn!(path = %path.display(), "cannot be deleted from an agent's home: {error}");
        }
    }
    Ok(())
}

/// Moves the conversation, with what the CLI keeps beside it.
fn keep_conversation(old: &Path, request: &AgentRequest) -> io::Result<()> {
    let (home, session) = (&request.home, request.session);
    let [all, own] = request.session_folders();
    let before = old.join(all.file_name().unwrap_or_default());
    let own_before = before.join(session.to_string());
    if [old, &before, &own_before].into_iter().all(is_folder) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&all)?;
        fs::rename(own_before, own)?;
    }
    for project in folders_of(old) {
        let (transcript, beside) = (format!("{session}.jsonl"), session.to_string());
        if !fs::symlink_metadata(project.join(&transcript)).is_ok_and(|about| about.is_file()) {
            continue;
        }
        let into = claude::projects(home).join(project.file_name().unwrap_or_default());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&into)?;
        fs::rename(project.join(&transcript), into.join(&transcript))?;
        if is_folder(&project.join(&beside)) {
            fs::rename(project.join(&beside), into.join(&beside))?;
        }
    }
    Ok(())
}

/// The folders with conversations, where each on the way to them is a real folder.
fn folders_of(home: &Path) -> Vec<PathBuf> {
    let projects = claude::projects(home);
    if ![home, &claude::config_dir(home), &projects].into_iter().all(is_folder) {
        return Vec::new();
    }
    let entries = fs::read_dir(projects).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(is_folder).collect()
}

fn is_folder(path: &(impl AsRef<Path> + ?Sized)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.is_dir())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

    use uuid::Uuid;

    use super::renew;
    use crate::{
        agent::AgentRequest,
        domain::{StepName, Task},
    };

    fn request(root: &Path) -> AgentRequest {
        AgentRequest {
            order: "wo-test".parse().unwrap(),
            step: StepName::PrpReview,
            task: Task::Review,
            attempt: 1,
            run_id: Uuid::new_v4(),
            checkout: root.join("checkout"),
            sandbox_root: root.to_owned(),
            home: root.join(".home-reviewer"),
            tmp: root.join(".tmp-reviewer"),
            renew: true,
            objects: Vec::new(),
            trusted: false,
            unguided: false,
            prompt: String::new(),
            session: Uuid::from_u128(7),
            resume: true,
            hard_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            spool: root.join("spool"),
            extra_env: Vec::new(),
        }
    }

    #[test]
    fn a_home_begins_empty_but_for_its_conversation() {
        let root = tempfile::tempdir().unwrap();
        let mut request = request(root.path());
        renew(&request, true).unwrap();
        let project = request.home.join(".claude/projects/-there");
        let transcript = project.join(format!("{}.jsonl", request.session));
        let write = |path: &Path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        let result = project.join(request.session.to_string()).join("tool-results/1.txt");
        let kept = [transcript.clone(), result, request.session_folder().join("state")];
        let gone = [
            request.home.join(".claude/CLAUDE.md"),
            request.home.join(".gitconfig"),
            project.join("memory/MEMORY.md"),
            project.join(format!("{}.jsonl", Uuid::from_u128(8))),
            request.tmp.join("left"),
        ];
        kept.iter().chain(&gone).for_each(|path| write(path));
        renew(&request, true).unwrap();
        assert!(kept.iter().all(|path| path.is_file()));
        assert!(!gone.iter().any(|path| path.exists()));
        request.run_id = Uuid::new_v4();
        renew(&request, false).unwrap();
        assert!(!transcript.exists());
        let left: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn no_conversation_comes_from_behind_a_link() {
        let root = tempfile::tempdir().unwrap();
        let request = request(root.path());
        let forged = root.path().join("elsewhere/projects/-there");
        fs::create_dir_all(&forged).unwrap();
        let transcript = forged.join(format!("{}.jsonl", request.session));
        fs::write(&transcript, "forged").unwrap();
        fs::create_dir_all(&request.home).unwrap();
        symlink(root.path().join("elsewhere"), request.home.join(".claude")).unwrap();
        renew(&request, true).unwrap();
        assert!(!request.home.exists() && transcript.exists());
    }
}
