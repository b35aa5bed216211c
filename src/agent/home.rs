//! The home of an agent that starts clean: what anybody left there is gone, its own conversation goes on.
//!
//! Nearly every tool reads files of the home and obeys them (`~/.claude`, `~/.gitconfig`, `~/.npmrc`,
//! `~/.bashrc`, Python's user site ...), so there is no list of those to take out.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, mkdirat, renameat},
    io::Errno,
};

use super::{claude, request::AgentRequest};
use crate::disk::{Beneath, Kind, trash};

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
            keep_conversation(&Beneath::open(&old)?, request)?;
        }
        let deleted = trash::delete(&old)?;
        if let Some((path, error)) = deleted.told.first() {
            tracing::warn!(path = %path.display(), "cannot be deleted from an agent's home: {error}");
        }
    }
    Ok(())
}

/// Moves the conversation, with what the CLI keeps beside it.
fn keep_conversation(old: &Beneath, request: &AgentRequest) -> io::Result<()> {
    let home = &request.home;
    fs::create_dir(home)?;
    let new = Beneath::open(home)?;
    rustix::fs::fchmod(&new, Mode::RWXU)?;
    let session = Path::new(&request.session.to_string()).to_owned();
    let [all, _] = request.session_folders();
    let own = inside(home, &all);
    if is_folder(old, &own.join(&session)) {
        let from = old.folder(&own)?;
        let into = made(&new, &own)?;
        renameat(&from, &session, &into, &session)?;
    }
    let projects = inside(home, &claude::projects(home));
    let transcript = session.with_extension("jsonl");
    for project in folders_of(old, &projects) {
        let at = projects.join(&project);
        let from = old.folder(&at)?;
        if !from.about(&transcript).is_ok_and(|about| about.kind == Kind::File) {
            continue;
        }
        let into = made(&new, &at)?;
        renameat(&from, &transcript, &into, &transcript)?;
        if is_folder(&from, &session) {
            renameat(&from, &session, &into, &session)?;
        }
    }
    Ok(())
}

/// A folder of the home, as seen from it.
fn inside(home: &Path, folder: &Path) -> PathBuf {
    folder.strip_prefix(home).unwrap_or(folder).to_owned()
}

/// Makes a folder and those above it, each in the one before.
fn made(top: &Beneath, path: &Path) -> io::Result<Beneath> {
    let mut at = top.clone();
    for name in path {
        match mkdirat(&at, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at = at.folder(Path::new(name))?;
    }
    Ok(at)
}

/// The folders with conversations, where each on the way to them is a real folder.
fn folders_of(home: &Beneath, projects: &Path) -> Vec<OsString> {
    let Ok(projects) = home.folder(projects) else { return Vec::new() };
    let mut found = Vec::new();
    // What cannot be listed holds no conversation that goes on.
    let _ = projects.names(|name| {
        if is_folder(&projects, Path::new(name)) {
            found.push(name.to_owned());
        }
        true
    });
    found
}

fn is_folder(above: &Beneath, path: &Path) -> bool {
    above.about(path).is_ok_and(|about| about.kind == Kind::Folder)
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
        assert!(fs::read_dir(&request.home).unwrap().next().is_none() && transcript.exists());
    }
}
