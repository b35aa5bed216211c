//! The name of the branch of a work order: made by the runner, never taken from a model unchecked.

use std::{collections::BTreeSet, fmt, str::FromStr};

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

/// How a branch that exists keeps another one from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash<'a> {
    /// A branch is named like a folder of the new one.
    Above(&'a str),
    /// A branch has the new one's name, or has it as a folder.
    Same(&'a str),
}

impl<'a> Clash<'a> {
    /// The branch that exists.
    pub fn existing(self) -> &'a str {
        match self {
            Self::Above(name) | Self::Same(name) => name,
        }
    }
}

/// The branch among `existing` that keeps `wanted` from being made, whatever the case of its letters: refs are
/// files, and some servers keep them where case does not count.
pub fn clash<'a>(
    wanted: &BranchName,
    existing: impl Iterator<Item = &'a str>,
) -> Option<Clash<'a>> {
    let wanted = wanted.as_str().to_ascii_lowercase();
    let below = |longer: &str, shorter: &str| {
        longer.strip_prefix(shorter).is_some_and(|rest| rest.starts_with('/'))
    };
    let mut same = None;
    for name in existing {
        let lower = name.to_ascii_lowercase();
        if below(&wanted, &lower) {
            return Some(Clash::Above(name));
        }
        if wanted == lower || below(&lower, &wanted) {
            same = Some(Clash::Same(name));
        }
    }
    same
}

/// The branch of an order: `{type}/{slug}-{id}`, the type guessed from the request's first words. Where a branch
/// is named like the type it is `{type}-{slug}-{id}`, and where the name is taken it ends in a number from 2.
pub fn branch_name(request: &str, id: &WorkOrderId, existing: &BTreeSet<String>) -> BranchName {
    let kind = branch_kind(request);
    // The id's rule is stricter than the branch rule, so the name is always usable.
    let rest = format!("{}-{id}", slug(request));
    let named = |separator, number: &str| BranchName(format!("{kind}{separator}{rest}{number}"));
    // Each number is taken by another branch, so one more than there are is free.
    for number in 1..=existing.len() + 1 {
        let number = if number == 1 { String::new() } else { format!("-{number}") };
        for separator in ['/', '-'] {
            let name = named(separator, &number);
            match clash(&name, existing.iter().map(String::as_str)) {
                None => return name,
                Some(Clash::Above(_)) => {}
                Some(Clash::Same(_)) => break,
            }
        }
    }
    named('-', &format!("-{}", existing.len() + 2))
}

/// The type of work that a request is about, guessed from its first words.
pub fn branch_kind(request: &str) -> &'static str {
    let lower = request.to_ascii_lowercase();
    let begins = |words: &[&str]| {
        lower.split(|c: char| !c.is_ascii_alphanumeric()).take(3).any(|word| words.contains(&word))
    };
    if begins(&["fix", "bug", "bugfix", "repair", "hotfix"]) {
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
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BranchName, branch_name, clash, slug};
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

    #[test]
    fn a_name_stands_beside_what_exists() {
        let id: WorkOrderId = "wo-1".parse().unwrap();
        for (existing, expected) in [
            (&[][..], "feat/x-wo-1"),
            (&["feat/x-wo-10", "feature", "feat/x"], "feat/x-wo-1"),
            (&["FEAT"], "feat-x-wo-1"),
            (&["feat/X-wo-1"], "feat/x-wo-1-2"),
            (&["feat/x-wo-1/deep/er"], "feat/x-wo-1-2"),
            (&["feat", "feat-x-wo-1/y", "feat-x-wo-1-2"], "feat-x-wo-1-3"),
        ] {
            let existing = existing.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(branch_name("x", &id, &existing).as_str(), expected);
        }
    }

    proptest! {
        #[test]
        fn every_request_gives_a_usable_branch(
            request in ".*",
            id in "[a-z0-9]{1,12}",
            existing in prop::collection::btree_set("feat|fix|(feat|Feat)[/-]work-a(-[2-4])?(/x)?", 0..12),
        ) {
            let id: WorkOrderId = id.parse().unwrap();
            let branch = branch_name(&request, &id, &existing);
            prop_assert!(branch.as_str().parse::<BranchName>().is_ok());
            prop_assert_eq!(clash(&branch, existing.iter().map(String::as_str)), None);
            let short = branch_name("!", &"a".parse().unwrap(), &existing);
            prop_assert_eq!(clash(&short, existing.iter().map(String::as_str)), None);
            prop_assert!(slug(&request).len() <= 40);
        }
    }
}
