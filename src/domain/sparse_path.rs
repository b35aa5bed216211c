//! The name of a folder that is checked out of a large repository.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
const LONGEST: usize = 1000;

/// A folder of a repository: relative, without anything that git would read as a pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SparsePath(String);

/// Why a text is no such folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "sparse path {0:?} cannot be checked out: expected a folder like \"services/api\", without \
     \"..\", \".git\", \"*\", \"?\", \"[\", \"]\", \"!\", \"#\", quotes, backslashes and control \
     characters"
)]
pub struct InvalidSparsePath(String);

impl SparsePath {
    /// The name, without slashes at its ends.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SparsePath {
    type Err = InvalidSparsePath;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.trim() == part
                && !part.eq_ignore_ascii_case(".git")
                && !part.contains(['*', '?', '[', ']', '!', '#', '"', '\'', '\\'])
                && !part.contains(char::is_control)
        };
        if path.len() > LONGEST || !path.split('/').all(plain) {
            return Err(InvalidSparsePath(path.to_owned()));
        }
        Ok(Self(path.to_owned()))
    }
}

impl TryFrom<String> for SparsePath {
    type Error = InvalidSparsePath;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SparsePath> for String {
    fn from(path: SparsePath) -> Self {
        path.0
    }
}

impl fmt::Display for SparsePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SparsePath;

    #[test]
    fn folders_are_told_from_patterns_and_from_ways_out() {
        let read = |text: &str| text.parse::<SparsePath>().map(String::from).ok();
        assert_eq!(read("services/api").as_deref(), Some("services/api"));
        assert_eq!(read("docs").as_deref(), Some("docs"));
        assert_eq!(read("Größe/b c").as_deref(), Some("Größe/b c"));
        for bad in [
            "", "/", "/docs", "docs/", "a//b", "..", "a/../b", "./a", ".git", "a/.GIT/b", "a*",
            "a/?", "!a", "#a", "[a]", "a\\b", "a\"b", "a\nb", " a", "a ",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(read(&"a/".repeat(600)), None);
    }
}
