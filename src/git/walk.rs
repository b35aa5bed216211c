//! One walk over the files of an agent, from the top down: what a commit has to look at, and what it leaves
//! out. Links are never followed, and no `.git` is entered.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt, fs::FileTypeExt},
    path::Path,
};

use git2::{Index, IndexEntry, Repository};

use super::{
    GitError,
    index_entry::{SUBMODULE, is_unchanged},
    left_out::{LeftOut, Reason},
    nested::{self, Nested},
    rule_file,
    rules::{ATTRIBUTES, IGNORE, Rules},
    sparse::Cone,
};

/// The most files and folders that are looked at: as many as a checkout may have.
const MOST: usize = 4_000_000;
/// The deepest a folder may lie.
const DEEPEST: usize = 1000;

/// The files, and what is known of them.
pub(super) struct Walk<'a> {
    /// Where the contents of tracked files are.
    pub(super) repository: &'a Repository,
    /// The top of the files.
    pub(super) top: &'a Path,
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
}

struct Folder {
    path: Vec<u8>,
    rules: Rules,
    depth: usize,
    is_ignored: bool,
}

struct Entry {
    path: Vec<u8>,
    about: Metadata,
}

impl Found {
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
            let Some(entries) = self.list(&folder, &mut found)? else {
                if folders.contains(&folder.path) {
                    found.closed.push(folder.path.clone());
                }
                found.left_out.add(&folder.path, Reason::Unreadable);
                continue;
            };
            let rules = self.rules_within(&folder, &entries, &mut found);
            let folder = Folder { rules, ..folder };
            for entry in entries {
                if entry.about.is_dir() {
                    let is_tracked = folders.contains(&entry.path);
                    pending.extend(self.enter(&folder, entry, is_tracked, &mut found));
                } else {
                    self.meet(&folder, entry, &mut found);
                }
            }
        }
        found.left_out.sort();
        Ok(found)
    }

    /// The names in a folder; `None`: they cannot be read.
    fn list(&self, folder: &Folder, found: &mut Found) -> Result<Option<Vec<Entry>>, GitError> {
        let here = self.top.join(OsStr::from_bytes(&folder.path));
        let listed = match fs::read_dir(&here) {
            Ok(listed) => listed,
            Err(error) if folder.path.is_empty() => {
                return Err(GitError::file("list the folder", &here)(error));
            }
            Err(_) => return Ok(None),
        };
        let mut entries = Vec::new();
        for entry in listed {
            let entry = entry.map_err(GitError::file("list the folder", &here))?;
            found.seen += 1;
            if found.seen > MOST {
                let problem =
                    format!("the sandbox has more than {MOST} files: remove what no commit needs");
                return Err(GitError::Unusable(problem));
            }
            let mut path = folder.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.file_name().as_bytes());
            let is_hidden = self.hidden.is_some_and(|hidden| path == hidden.as_bytes());
            if entry.file_name() == ".git" || is_hidden {
                continue;
            }
            match entry.metadata() {
                Ok(about) => entries.push(Entry { path, about }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(_) => found.left_out.add(&path, Reason::Unreadable),
            }
        }
        Ok(Some(entries))
    }

    /// The rules in a folder: those of its own files, or of tracked ones that were not checked out.
    fn rules_within(&self, folder: &Folder, entries: &[Entry], found: &mut Found) -> Rules {
        let mut content = |name: &str| {
            let mut path = folder.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            if entries.iter().any(|entry| entry.path == path) {
                let read = rule_file::read(&self.top.join(OsStr::from_bytes(&path)));
                found.rule_files.push(path);
                return read.unwrap_or_else(|error| {
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
        folder.rules.within(&folder.path, ignore.as_deref(), attributes.as_deref())
    }

    /// A folder in a folder; answers it when it has to be walked.
    fn enter(
        &self,
        folder: &Folder,
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
        let place = self.top.join(OsStr::from_bytes(&path));
        match nested::look(&place) {
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
            || (about.is_symlink() && is_submodule_list(name_of(&path)))
        {
            found.left_out.add(&path, Reason::Name);
        } else if !known.is_some_and(|known| is_unchanged(&known, &about, self.written)) {
            found.bytes = found.bytes.saturating_add(about.len());
            found.changed.push(Changed { path, rules: folder.rules.clone() });
        }
    }

    fn known(&self, path: &[u8]) -> Option<IndexEntry> {
        self.index.get_path(Path::new(OsStr::from_bytes(path)), 0)
    }
}

/// What no commit can hold.
fn special(about: &Metadata) -> Option<Reason> {
    let kind = about.file_type();
    if kind.is_file() || kind.is_symlink() {
        None
    } else if kind.is_socket() {
        Some(Reason::Socket)
    } else if kind.is_fifo() {
        Some(Reason::Pipe)
    } else {
        Some(Reason::Device)
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

/// Whether git would take the name for its own folder on some file system.
fn is_git_folder(name: &OsStr) -> bool {
    matches!(plain_name(name).as_str(), ".git" | "git~1")
}

/// Whether git would take the name for its list of submodules on some file system: it refuses links of
/// that name.
fn is_submodule_list(name: &OsStr) -> bool {
    let name = plain_name(name);
    let short =
        name.strip_prefix("gitmod~").is_some_and(|rest| matches!(rest, "1" | "2" | "3" | "4"));
    // The names that Windows makes when those four are taken.
    name == ".gitmodules" || short || (name.starts_with("gi7eb") && name.contains('~'))
}

/// A name as other systems see it: on Windows what follows a colon and dots and blanks at the end do not
/// count, on a Mac some invisible letters, on both the case.
fn plain_name(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let seen = name.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    let invisible = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    seen.chars().filter(|c| !invisible(c)).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::{is_git_folder, is_submodule_list};

    #[test]
    fn a_git_folder_is_known_in_every_disguise() {
        for name in
            [".git", ".GIT", "git~1", ".git ", ".git...", ".git::$INDEX_ALLOCATION", ".g\u{200c}it"]
        {
            assert!(is_git_folder(name.as_ref()), "{name:?}");
        }
        for name in [".gitignore", "git", ".github", "a.git", ".git2", "git~2"] {
            assert!(!is_git_folder(name.as_ref()), "{name:?}");
        }
    }

    #[test]
    fn a_list_of_submodules_is_known_in_every_disguise() {
        for name in [".gitmodules", ".GitModules", ".gitmodules .", "gitmod~1", "GI7EBA~1"] {
            assert!(is_submodule_list(name.as_ref()), "{name:?}");
        }
        for name in ["gitmodules", ".gitmodules2", "gitmod~9", ".gitignore"] {
            assert!(!is_submodule_list(name.as_ref()), "{name:?}");
        }
    }
}
