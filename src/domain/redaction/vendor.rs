//! Tokens that are recognised by their look: of vendors that mark theirs with a prefix.
//!
//! A token counts wherever it begins, also right behind a letter: that may be the `m` of a colour or
//! the `n` of an escaped line end.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::{
    line::Place,
    stream::{Finder, Findings, Found},
};

/// A prefix, and which bytes follow it how often.
struct Rule {
    prefix: &'static str,
    class: Class,
    min: usize,
    max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Alphanumeric,
    /// Base32 in capitals.
    Capitals,
    Word,
    WordDash,
    WordDashDot,
    Path,
    /// The lines of a key, up to the dashes behind it; also indented, escaped or with headers.
    Key,
}

impl Class {
    const COUNT: usize = 7;

    fn has(self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric() && self != Self::Capitals
            || match self {
                Self::Alphanumeric => false,
                Self::Capitals => byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte),
                Self::Word => byte == b'_',
                Self::WordDash => matches!(byte, b'_' | b'-'),
                Self::WordDashDot => matches!(byte, b'_' | b'-' | b'.'),
                Self::Path => matches!(byte, b'_' | b'-' | b'/'),
                Self::Key => b"+/=\\-:,. \n\r\t".contains(&byte),
            }
    }
}

const fn rule(prefix: &'static str, class: Class, min: usize, max: usize) -> Rule {
    Rule { prefix, class, min, max }
}

/// Most bytes of a token behind its prefix.
const TOKEN: usize = 255;

static RULES: [Rule; 45] = [
    // GitHub.
    rule("ghp_", Class::Word, 20, TOKEN),
    rule("gho_", Class::Word, 20, TOKEN),
    rule("ghu_", Class::Word, 20, TOKEN),
    rule("ghs_", Class::WordDashDot, 20, 1024),
    rule("ghr_", Class::Word, 20, TOKEN),
    rule("github_pat_", Class::Word, 20, TOKEN),
    // GitLab.
    rule("glpat-", Class::WordDashDot, 20, TOKEN),
    rule("gldt-", Class::WordDash, 20, TOKEN),
    rule("glrt-", Class::WordDashDot, 20, TOKEN),
    rule("glptt-", Class::WordDash, 20, TOKEN),
    rule("glcbt-", Class::WordDash, 20, TOKEN),
    // Providers of models.
    rule("sk-ant-", Class::WordDash, 20, TOKEN),
    rule("sk-proj-", Class::WordDash, 20, TOKEN),
    rule("sk-svcacct-", Class::WordDash, 20, TOKEN),
    rule("sk-or-v1-", Class::Alphanumeric, 32, TOKEN),
    rule("gsk_", Class::Alphanumeric, 40, TOKEN),
    rule("hf_", Class::Alphanumeric, 30, TOKEN),
    // Clouds.
    rule("AKIA", Class::Capitals, 16, 16),
    rule("ASIA", Class::Capitals, 16, 16),
    rule("AIza", Class::WordDash, 35, 35),
    rule("GOCSPX-", Class::WordDash, 28, 28),
    rule("ya29.", Class::WordDash, 20, 1024),
    rule("dop_v1_", Class::Alphanumeric, 64, 64),
    rule("sbp_", Class::Alphanumeric, 40, TOKEN),
    rule("sb_secret_", Class::WordDash, 20, TOKEN),
    // Slack.
    rule("xoxb-", Class::WordDash, 10, TOKEN),
    rule("xoxp-", Class::WordDash, 10, TOKEN),
    rule("xoxa-", Class::WordDash, 10, TOKEN),
    rule("xoxr-", Class::WordDash, 10, TOKEN),
    rule("xoxs-", Class::WordDash, 10, TOKEN),
    rule("xoxe-", Class::WordDash, 10, 512),
    rule("xoxc-", Class::WordDash, 10, TOKEN),
    rule("xoxd-", Class::WordDash, 10, 512),
    rule("xapp-", Class::WordDash, 20, TOKEN),
    rule("hooks.slack.com/services/", Class::Path, 20, TOKEN),
    rule("hooks.slack.com/workflows/", Class::Path, 20, TOKEN),
    // Registries and payments.
    rule("npm_", Class::Alphanumeric, 36, TOKEN),
    rule("pypi-AgE", Class::WordDash, 50, 1024),
    rule("dckr_pat_", Class::WordDash, 20, TOKEN),
    rule("sk_live_", Class::Alphanumeric, 20, TOKEN),
    rule("rk_live_", Class::Alphanumeric, 20, TOKEN),
    rule("shpat_", Class::Alphanumeric, 32, TOKEN),
    // The claims and the signature of a JSON web token; its head says nothing secret.
    rule(".eyJ", Class::WordDashDot, 20, 8192),
    // Private keys in PEM.
    rule("PRIVATE KEY-----", Class::Key, 32, 16 * 1024),
    rule("PRIVATE KEY BLOCK-----", Class::Key, 32, 16 * 1024),
];

/// What ends the lines of a key.
const KEY_END: &[u8] = b"-----";

/// All rules; the automaton of a fixed list of prefixes is always there.
pub(super) struct Vendors {
    automaton: Option<AhoCorasick>,
}

pub(super) static VENDORS: LazyLock<Vendors> = LazyLock::new(|| {
    let prefixes = RULES.iter().map(|rule| rule.prefix);
    let kind = Some(AhoCorasickKind::DFA);
    Vendors { automaton: AhoCorasick::builder().kind(kind).build(prefixes).ok() }
});

impl Finder for Vendors {
    fn find(&self, text: &[u8], place: Place, at_end: bool) -> Findings {
        let mut findings = Findings { found: Vec::new(), open: text.len(), place, begun: 0 };
        // Where the run of a class ends that was looked at last: tokens that begin in the same run
        // share its end, so that a text of nothing but prefixes is read once per class.
        let mut ends = [0; Class::COUNT];
        for found in self.automaton.iter().flat_map(|all| all.find_overlapping_iter(text)) {
            let (rule, from) = (&RULES[found.pattern()], found.end());
            let end = &mut ends[rule.class as usize];
            if *end < from {
                *end = run_end(rule.class, text, from);
            }
            let length = (*end - from).min(rule.max);
            // The dashes that end a key may have begun.
            let may_grow = *end == text.len() && length < rule.max;
            if may_grow {
                findings.open = findings.open.min(found.start());
            }
            if length >= rule.min && (at_end || !may_grow) {
                let range = found.start()..from + length;
                findings.found.push(Found { range, strong: false });
            }
        }
        findings.found.sort_unstable_by_key(|found| (found.range.start, found.range.end));
        let begins =
            |tail: &[u8]| RULES.iter().any(|rule| rule.prefix.as_bytes().starts_with(tail));
        let longest = RULES.iter().map(|rule| rule.prefix.len()).max().unwrap_or_default();
        let first = (text.len() + 1).saturating_sub(longest);
        if let Some(at) = (first..text.len()).find(|at| begins(&text[*at..])) {
            findings.open = findings.open.min(at);
        }
        findings.begun = text.len() - findings.open;
        findings
    }
}

/// Where the bytes of a class end that begin at `from`.
fn run_end(class: Class, text: &[u8], from: usize) -> usize {
    let rest = &text[from..];
    let ends = |at: &usize| {
        !class.has(rest[*at]) || (class == Class::Key && rest[*at..].starts_with(KEY_END))
    };
    from + (0..rest.len()).find(ends).unwrap_or(rest.len())
}
