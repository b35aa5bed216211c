//! What an agent left in its checkout and no commit of ours holds: nothing of it is passed over in silence.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt, path::PathBuf};

/// Things that are remembered by name.
const MOST: usize = 10_000;
/// Things that a sentence names.
const NAMED: usize = 5;
/// Things that an event of the log names: it has 4 KiB.
const LISTED: usize = 20;
/// Letters of a path in a sentence.
const LONGEST: usize = 120;

/// Why something is in no commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// A folder with a repository of its own.
    Repository,
    /// The commits of a repository whose files are committed as files.
    History,
    /// A submodule in which something changed.
    Submodule,
    /// A file or folder that cannot be read.
    Unreadable,
    /// A name that git takes on no system, or not on every one.
    Name,
    /// Deeper than folders are followed.
    Deep,
    /// A socket.
    Socket,
    /// A pipe.
    Pipe,
    /// A device.
    Device,
    /// The top of another file system.
    Mount,
}

impl Reason {
    const fn words(self) -> &'static str {
        match self {
            Self::Repository => "a git repository of its own with commits",
            Self::History => "commits of another git repository",
            Self::Submodule => "changes inside of a submodule",
            Self::Unreadable => "it cannot be read",
            Self::Name => "git does not take this name",
            Self::Deep => "nested too deeply",
            Self::Socket => "a socket",
            Self::Pipe => "a pipe",
            Self::Device => "a device",
            Self::Mount => "another file system is mounted there",
        }
    }

    /// Whether it has content that can be kept elsewhere.
    const fn has_content(self) -> bool {
        !matches!(self, Self::Socket | Self::Pipe | Self::Device | Self::Mount)
    }
}

/// What a commit left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    count: u64,
    things: Vec<(Vec<u8>, Reason)>,
    with_content: u64,
}

impl LeftOut {
    pub(super) fn add(&mut self, path: &[u8], reason: Reason) {
        tracing::debug!(path = %String::from_utf8_lossy(path), ?reason, "left out of the commit");
        self.count += 1;
        self.with_content += u64::from(reason.has_content());
        if self.things.len() < MOST {
            self.things.push((path.to_vec(), reason));
        } else if reason.has_content()
            && let Some(other) =
                self.things.iter_mut().rev().find(|(_, known)| !known.has_content())
        {
            // What can be saved is not forgotten for what cannot.
            *other = (path.to_vec(), reason);
        }
    }

    pub(super) fn sort(&mut self) {
        self.things.sort();
    }

    /// Whether everything was committed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many files and folders there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first of them, each with why it is in no commit, for the log.
    pub fn listed(&self) -> Vec<(String, &'static str)> {
        let first = self.things.iter().take(LISTED);
        first.map(|(path, reason)| (shortened(path), reason.words())).collect()
    }

    /// The folders with repositories of their own, when there is nothing else.
    pub(super) fn repositories(&self) -> Option<Vec<PathBuf>> {
        let is_all = self.things.len() as u64 == self.count;
        let is_one = |reason: &Reason| *reason == Reason::Repository;
        let paths = self.things.iter().filter(|(_, reason)| is_one(reason));
        let paths: Vec<PathBuf> =
            paths.map(|(path, _)| PathBuf::from(OsStr::from_bytes(path))).collect();
        (is_all && paths.len() == self.things.len()).then_some(paths)
    }

    /// What of it can be kept elsewhere, from the top of the checkout; `None`: there is more of it than we
    /// remember.
    pub(super) fn with_content(&self) -> Option<Vec<PathBuf>> {
        let found = self.things.iter().filter(|(_, reason)| reason.has_content());
        let paths: Vec<PathBuf> =
            found.map(|(path, _)| PathBuf::from(OsStr::from_bytes(path))).collect();
        (paths.len() as u64 == self.with_content).then_some(paths)
    }
}

/// `3 files or folders: "a" (a socket), …`
impl fmt::Display for LeftOut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (path, reason)) in self.things.iter().take(NAMED).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(out, "{comma}{:?} ({})", shortened(path), reason.words())?;
        }
        match self.count.saturating_sub(NAMED as u64) {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

/// A path for people: not endless.
fn shortened(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.chars().count() <= LONGEST {
        return text.into_owned();
    }
    let beginning: String = text.chars().take(LONGEST).collect();
    format!("{beginning}…")
}

#[cfg(test)]
mod tests {
    use super::{LeftOut, MOST, Reason};

    #[test]
    fn what_is_left_out_is_named_up_to_a_bound_and_counted_beyond_it() {
        let mut left = LeftOut::default();
        for number in 0..MOST {
            left.add(format!("pipe{number:05}").as_bytes(), Reason::Pipe);
        }
        left.add(b"inner", Reason::Repository);
        left.sort();
        assert_eq!(left.count(), MOST as u64 + 1);
        assert_eq!(left.with_content().unwrap(), [std::path::PathBuf::from("inner")]);
        let text = left.to_string();
        assert!(
            text.starts_with(
                "\"inner\" (a git repository of its own with commits), \"pipe00000\" (a pipe)"
            ),
            "{text}"
        );
        assert!(text.ends_with(" and 9996 more"), "{text}");
        assert_eq!(left.listed().len(), 20);
    }
}
