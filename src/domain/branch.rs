//! The name of the branch of a work order: made by the runner, never taken from a model unchecked.

use std::{fmt, str::FromStr};

use super::WorkOrderId;

/// Longest slug in a branch name, in bytes.
const SLUG_LENGTH: usize = 40;
/// Longest branch name that is accepted, in bytes.
const MAX_LENGTH: usize = 200;

/// A branch name that git accepts and that cannot be an option, a revision or a path trick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchName(String);

/// A name git or a careful reader would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "branch name {0:?} is not usable: expected letters, digits, '/', '-', '_' and single '.', \
     without a leading '-' or '/', and no part that starts with '.' or ends in '.lock'"
)]
pub struct InvalidBranch(String);

impl BranchName {
    /// The name without `refs/heads/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The full name of the ref.
    pub fn full_ref(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

impl FromStr for BranchName {
    type Err = InvalidBranch;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '+');
        let part_ok = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.ends_with('.')
                && !part.to_ascii_lowercase().ends_with(".lock")
        };
        let usable = text.len() <= MAX_LENGTH
            && text.chars().all(allowed)
            && !text.contains("..")
            && text != "HEAD"
            && text.split('/').all(part_ok);
        if usable { Ok(Self(text.to_owned())) } else { Err(InvalidBranch(text.to_owned())) }
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns a request into lower-case words joined by `-`, at most 40 bytes; `work` when none is left.
pub fn slug(request: &str) -> String {
    let mut slug = String::new();
    let words = request.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    for word in words {
        let word = word.to_ascii_lowercase();
        let separator = usize::from(!slug.is_empty());
        if slug.len() + separator + word.len() > SLUG_LENGTH {
            if slug.is_empty() {
                slug.push_str(&word[..SLUG_LENGTH]);
            }
            break;
        }
        if separator == 1 {
            slug.push('-');
        }
        slug.push_str(&word);
    }
    if slug.is_empty() { "work".to_owned() } else { slug }
}

/// The branch of an order: `{type}/{slug}-{id}`, the type guessed from the request's first words.
pub fn branch_name(request: &str, id: &WorkOrderId) -> BranchName {
    let lower = request.to_ascii_lowercase();
    let begins = |words: &[&str]| {
        lower.split(|c: char| !c.is_ascii_alphanumeric()).take(3).any(|word| words.contains(&word))
    };
    let kind = if begins(&["fix", "bug", "bugfix", "repair", "hotfix"]) {
        "fix"
    } else if begins(&["doc", "docs", "document", "readme"]) {
        "docs"
    } else if begins(&["test", "tests"]) {
        "test"
    } else if begins(&["refactor", "clean", "cleanup", "rename"]) {
        "refactor"
    } else if begins(&["chore", "bump", "upgrade", "update"]) {
        "chore"
    } else {
        "feat"
    };
    // The id's rule is stricter than the branch rule, so the name is always usable.
    BranchName(format!("{kind}/{}-{id}", slug(request)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BranchName, branch_name, slug};
    use crate::domain::WorkOrderId;

    #[test]
    fn names_that_git_or_a_shell_could_misread_are_refused() {
        for bad in [
            "", "-x", "a b", "a..b", "a/", "/a", "a//b", "a.lock", "a/.b", "a@{1}", "HEAD", "a~1",
            "a\u{7}",
        ] {
            assert!(bad.parse::<BranchName>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn every_request_gives_a_usable_branch(request in ".*", id in "[a-z0-9]{1,12}") {
            let id: WorkOrderId = id.parse().unwrap();
            let branch = branch_name(&request, &id);
            prop_assert!(branch.as_str().parse::<BranchName>().is_ok());
            prop_assert!(slug(&request).len() <= 40);
        }
    }
}
