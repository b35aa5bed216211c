//! One walk over the files of an agent, from the top down: what a commit has to look at, and what it leaves
//! out. Links are never followed, and no `.git` is entered.

use std::{
    collections::HashSet, ffi::OsStr, fs::Metadata, io, os::unix::ffi::OsStrExt, path::Path,
};

use git2::{Index, IndexEntry, Repository};

use super::{
    GitError,
    disguises::{is_git_folder, is_submodule_list},
    index_entry::{SUBMODULE, is_unchanged},
    left_out::{LeftOut, Reason},
    nested::{self, Nested},
    reading::{DEEPEST, MOST_ENTRIES, MOST_RULE_BYTES, MOST_RULES, Reading},
    rule_file,
    rules::{ATTRIBUTES, IGNORE, Rules},
    sparse::Cone,
};
use crate::disk::{About, Beneath, Kind, beneath::is_shortage};

/// Bytes of a path in a sentence.
const SHOWN: usize = 120;

/// The files, and what is known of them.
pub(super) struct Walk<'a> {
    /// Where the contents of tracked files are.
    pub(super) repository: &'a Repository,
    /// The top of the files.
    pub(super) top: &'a Beneath,
    /// What it may cost.
    pub(super) reading: &'a Reading,
    /// What is tracked.
    pub(super) index: &'a Index,
    /// When that was written.
    pub(super) written: Option<&'a Metadata>,
    /// What was checked out.
    pub(super) cone: Cone<'a>,
    /// A file at the top that is not part of the work.
    pub(super) hidden: Option<&'a str>,
}

/// A file whose content has to be read.
pub(super) struct Changed {
    pub(super) path: Vec<u8>,
    pub(super) rules: Rules,
}

/// What a walk found.
#[derive(Default)]
pub(super) struct Found {
    /// The tracked files that are there.
    present: HashSet<Vec<u8>>,
    /// Folders of which nobody knows what is there.
    closed: Vec<Vec<u8>>,
    pub(super) changed: Vec<Changed>,
    /// How many bytes these have.
    pub(super) bytes: u64,
    pub(super) left_out: LeftOut,
    /// The files with rules that count, from the top down.
    pub(super) rule_files: Vec<Vec<u8>>,
    /// Rules that could not be read.
    pub(super) refused: Option<GitError>,
    seen: usize,
    rule_bytes: usize,
    rules: usize,
}

struct Folder {
    path: Vec<u8>,
    rules: Rules,
    depth: usize,
    is_ignored: bool,
}

struct Entry {
    path: Vec<u8>,
    about: About,
}

impl Found {
    /// Takes the content of a file with rules into account.
    fn afford(&mut self, content: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, GitError> {
        self.rule_bytes += content.as_ref().map_or(0, Vec::len);
        if self.rule_bytes > MOST_RULE_BYTES {
            let mib = MOST_RULE_BYTES >> 20;
            return Err(GitError::Unusable(format!(
                "the files .gitignore and .gitattributes have more than {mib} MiB of rules: shorten them"
            )));
        }
        Ok(content)
    }

    /// Whether a tracked file is gone.
    pub(super) fn lacks(&self, path: &[u8]) -> bool {
        let is_below = |folder: &Vec<u8>| {
            path.strip_prefix(folder.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        };
        !self.present.contains(path) && !self.closed.iter().any(is_below)
    }
}

impl Walk<'_> {
    /// Walks; `rules` are those above the top.
    pub(super) fn run(&self, tracked: &[IndexEntry], rules: Rules) -> Result<Found, GitError> {
        let folders = folders_of(tracked);
        let mut found = Found::default();
        let top = Folder { path: Vec::new(), rules, depth: 0, is_ignored: false };
        let mut pending = vec![top];
        while let Some(folder) = pending.pop() {
            self.reading.go_on()?;
            let Some((here, entries)) = self.list(&folder, &mut found)? else {
                if folders.contains(&folder.path) {
                    found.closed.push(folder.path.clone());
                }
                found.left_out.add(&folder.path, Reason::Unreadable);
                continue;
            };
            let rules = self.rules_within(&folder, &here, &entries, &mut found);
            let folder = Folder { rules, ..folder };
            for entry in entries {
                self.reading.go_on()?;
                let is_tracked = folders.contains(&entry.path);
                if entry.about.kind == Kind::Folder {
                    pending.extend(self.enter(&folder, &here, entry, is_tracked, &mut found));
                    continue;
                }
                if entry.about.kind == Kind::Mount && is_tracked {
                    found.closed.push(entry.path.clone());
                }
                self.meet(&folder, entry, &mut found);
            }
        }
        self.reading.go_on()?;
        if let Some(exhausted) = self.reading.exhausted() {
            found.refused.get_or_insert(exhausted);
        }
        found.left_out.sort();
        Ok(found)
    }

    /// A folder and the names in it; `None`: they cannot be read.
    fn list(
        &self,
        folder: &Folder,
        found: &mut Found,
    ) -> Result<Option<(Beneath, Vec<Entry>)>, GitError> {
        let place = Path::new(OsStr::from_bytes(&folder.path));
        let here = match self.top.folder(place) {
            Ok(here) => here,
            Err(error) if folder.path.is_empty() || is_shortage(&error) => {
                return Err(GitError::file("list the folder", place)(error));
            }
            Err(_) => return Ok(None),
        };
        let mut entries = Vec::new();
        let mut stopped = Ok(());
        let listed = here.names(|name| {
            stopped = self.notice(folder, &here, name, &mut entries, found);
            stopped.is_ok()
        });
        stopped?;
        listed.map_err(GitError::file("list the folder", place))?;
        Ok(Some((here, entries)))
    }

    /// A name in a folder.
    fn notice(
        &self,
        folder: &Folder,
        here: &Beneath,
        name: &OsStr,
        entries: &mut Vec<Entry>,
        found: &mut Found,
    ) -> Result<(), GitError> {
        self.reading.go_on()?;
        found.seen += 1;
        if found.seen > MOST_ENTRIES {
            return Err(GitError::Unusable(format!(
                "the sandbox has more than {MOST_ENTRIES} files: remove what no commit needs"
            )));
        }
        let mut path = folder.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let is_hidden = self.hidden.is_some_and(|hidden| path == hidden.as_bytes());
        if name == ".git" || is_hidden {
            return Ok(());
        }
        match here.about(Path::new(name)) {
            Ok(about) => entries.push(Entry { path, about }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => found.left_out.add(&path, Reason::Unreadable),
        }
        Ok(())
    }

    /// The rules in a folder: those of its own files, or of tracked ones that were not checked out.
    fn rules_within(
        &self,
        folder: &Folder,
        here: &Beneath,
        entries: &[Entry],
        found: &mut Found,
    ) -> Rules {
        let mut content = |name: &str| {
            let mut path = folder.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            if entries.iter().any(|entry| entry.path == path) {
                let read = rule_file::read(here, Path::new(name));
                let read = read.map_err(|problem| within(&folder.path, problem));
                found.rule_files.push(path);
                return read.and_then(|content| found.afford(content)).unwrap_or_else(|error| {
                    found.refused.get_or_insert(error);
                    None
                });
            }
            if self.cone.holds(&path) {
                return None;
            }
            let known = self.index.get_path(Path::new(OsStr::from_bytes(&path)), 0)?;
            Some(self.repository.find_blob(known.id).ok()?.content().to_vec())
        };
        let (ignore, attributes) = (content(IGNORE), content(ATTRIBUTES));
        let rules = folder.rules.within(&folder.path, ignore.as_deref(), attributes.as_deref());
        if ignore.is_some() || attributes.is_some() {
            found.rules += rules.count();
        }
        if found.rules > MOST_RULES {
            let problem = format!(
                "the files .gitignore and .gitattributes have more than {MOST_RULES} lines: shorten them"
            );
            found.refused.get_or_insert(GitError::Unusable(problem));
            return folder.rules.clone();
        }
        rules
    }

    /// A folder in a folder; answers it when it has to be walked.
    fn enter(
        &self,
        folder: &Folder,
        here: &Beneath,
        entry: Entry,
        is_tracked: bool,
        found: &mut Found,
    ) -> Option<Folder> {
        let Entry { path, .. } = entry;
        if self.known(&path).is_some_and(|known| known.mode == SUBMODULE) {
            return None;
        }
        let is_ignored = folder.is_ignored || folder.rules.ignore(&path, true);
        if is_ignored && !is_tracked {
            return None;
        }
        if is_git_folder(name_of(&path)) {
            found.left_out.add(&path, Reason::Name);
            return None;
        }
        match nested::look(here, Path::new(name_of(&path))) {
            Nested::Committed if is_tracked => {
                found.left_out.add(&[&path[..], b"/.git"].concat(), Reason::History);
            }
            Nested::Committed => {
                found.left_out.add(&path, Reason::Repository);
                return None;
            }
            Nested::Empty | Nested::No => {}
        }
        let depth = folder.depth + 1;
        if depth > DEEPEST {
            let shown = String::from_utf8_lossy(&path[..path.len().min(SHOWN)]);
            let problem = format!(
                "the sandbox has folders more than {DEEPEST} levels deep, below {shown}: remove them"
            );
            found.refused.get_or_insert(GitError::Unusable(problem));
            found.left_out.add(&path, Reason::Deep);
            return None;
        }
        Some(Folder { path, rules: folder.rules.clone(), depth, is_ignored })
    }

    /// Anything else in a folder.
    fn meet(&self, folder: &Folder, entry: Entry, found: &mut Found) {
        let Entry { path, about } = entry;
        let known = self.known(&path);
        let is_known = known.is_some();
        if !is_known && (folder.is_ignored || folder.rules.ignore(&path, false)) {
            return;
        }
        if is_known {
            found.present.insert(path.clone());
        }
        if let Some(reason) = special(&about) {
            found.left_out.add(&path, reason);
        } else if is_git_folder(name_of(&path))
            || (about.kind == Kind::Link && is_submodule_list(name_of(&path)))
        {
            found.left_out.add(&path, Reason::Name);
        } else if !known.is_some_and(|known| is_unchanged(&known, &about, self.written)) {
            found.bytes = found.bytes.saturating_add(about.size);
            found.changed.push(Changed { path, rules: folder.rules.clone() });
        }
    }

    fn known(&self, path: &[u8]) -> Option<IndexEntry> {
        self.index.get_path(Path::new(OsStr::from_bytes(path)), 0)
    }
}

/// What no commit can hold.
fn special(about: &About) -> Option<Reason> {
    match about.kind {
        Kind::File | Kind::Link | Kind::Folder => None,
        Kind::Socket => Some(Reason::Socket),
        Kind::Pipe => Some(Reason::Pipe),
        Kind::Device => Some(Reason::Device),
        Kind::Mount => Some(Reason::Mount),
    }
}

/// A problem of a file with rules, with the folder that it is in.
fn within(folder: &[u8], problem: GitError) -> GitError {
    match problem {
        GitError::Unusable(problem) if !folder.is_empty() => {
            let folder = String::from_utf8_lossy(&folder[..folder.len().min(SHOWN)]);
            GitError::Unusable(format!("{folder}/{problem}"))
        }
        other => other,
    }
}

/// Every folder that has a tracked file somewhere below it.
fn folders_of(tracked: &[IndexEntry]) -> HashSet<Vec<u8>> {
    let mut folders = HashSet::new();
    for entry in tracked {
        let mut path = entry.path.as_slice();
        while let Some(at) = path.iter().rposition(|byte| *byte == b'/') {
            path = &path[..at];
            if !folders.insert(path.to_vec()) {
                break;
            }
        }
    }
    folders
}

fn name_of(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path))
}
