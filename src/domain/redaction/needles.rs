//! Finds the forms of known secrets.
//!
//! The automaton knows only the first bytes of each form, which keeps it small enough for the
//! processor's cache; what begins like a form is then compared in full.

use std::{collections::BTreeMap, ops::Range};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use secrecy::{ExposeSecret, SecretString};

use super::{
    MIN_LENGTH,
    forms::{self, Forms},
    stream::{Finder, Findings},
};

/// At the end of a text this much of the beginning of a secret counts as one that was cut, in bytes.
const MIN_CUT: usize = 16;
/// Up to so many beginnings the automaton is a table: faster, and larger.
const TABLE: usize = 4096;

/// The known secrets, ready to be searched for.
#[derive(Default)]
pub(super) struct Needles {
    pub(super) secrets: Vec<SecretString>,
    /// The first bytes of every form, sorted, each with the forms that begin so.
    stems: Vec<(Vec<u8>, Vec<Needle>)>,
    /// `None` when there is nothing to search for.
    automaton: Option<AhoCorasick>,
    /// There are secrets, but they cannot be searched for: everything is withheld.
    pub(super) unsearchable: bool,
}

struct Needle {
    form: Vec<u8>,
    strong: bool,
}

impl Needles {
    pub(super) fn new(secrets: Vec<SecretString>) -> Self {
        let mut forms = Forms::new();
        for secret in &secrets {
            forms::add(secret.expose_secret(), &mut forms);
        }
        let mut stems: BTreeMap<Vec<u8>, Vec<Needle>> = BTreeMap::new();
        for (form, strong) in forms {
            let stem = form[..MIN_LENGTH].to_vec();
            stems.entry(stem).or_default().push(Needle { form, strong });
        }
        let stems: Vec<_> = stems.into_iter().collect();
        let kind = (stems.len() <= TABLE).then_some(AhoCorasickKind::DFA);
        let automaton =
            || AhoCorasick::builder().kind(kind).build(stems.iter().map(|(stem, _)| stem));
        // Building fails only for more patterns than memory could hold; then nothing may pass.
        let built = (!stems.is_empty()).then(automaton);
        let unsearchable = matches!(built, Some(Err(_)));
        let automaton = built.and_then(Result::ok);
        Self { secrets, stems, automaton, unsearchable }
    }

    /// Whether `text` holds a secret that is no ordinary word, in any form.
    pub(super) fn betrayed_by(&self, text: &[u8]) -> bool {
        let mut candidates = self.candidates(text);
        candidates.any(|(at, needles)| {
            needles.iter().any(|needle| needle.strong && text[at..].starts_with(&needle.form))
        })
    }

    /// Where `text` has the first bytes of some forms, and which forms these are.
    fn candidates<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, &'a [Needle])> {
        let found = self.automaton.iter().flat_map(move |all| all.find_overlapping_iter(text));
        found.map(|found| (found.start(), self.stems[found.pattern()].1.as_slice()))
    }
}

impl Finder for Needles {
    fn find(&self, text: &[u8], at_end: bool) -> Findings {
        let mut findings = Findings { found: Vec::new(), open: text.len() };
        if self.automaton.is_none() {
            return findings;
        }
        for (at, needles) in self.candidates(text) {
            let rest = &text[at..];
            let mut longest: Option<Range<usize>> = None;
            for Needle { form, .. } in needles {
                let cut = rest.len() < form.len();
                if cut && form.starts_with(rest) {
                    findings.open = findings.open.min(at);
                    if at_end && rest.len() >= MIN_CUT {
                        longest = Some(at..text.len());
                    }
                } else if !cut && rest.starts_with(form) {
                    let end = longest.as_ref().map_or(0, |range| range.end);
                    longest = Some(at..end.max(at + form.len()));
                }
            }
            findings.found.extend(longest);
        }
        let begins = |tail: &[u8]| {
            // The stems that begin with `tail` stand right behind all that are smaller.
            let after = self.stems.partition_point(|(stem, _)| stem.as_slice() < tail);
            self.stems.get(after).is_some_and(|(stem, _)| stem.starts_with(tail))
        };
        let first = (text.len() + 1).saturating_sub(MIN_LENGTH);
        if let Some(at) = (first..text.len()).find(|at| begins(&text[*at..])) {
            findings.open = findings.open.min(at);
        }
        findings
    }
}
