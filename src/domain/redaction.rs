//! Keeps live secrets out of everything that is stored or shown.

use std::{collections::BTreeSet, fmt, ops::Range, sync::Arc};

use aho_corasick::AhoCorasick;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use secrecy::{ExposeSecret, SecretString};

/// What stands in the place of a secret.
const MARK: &[u8] = b"[redacted]";
/// Shortest secret, and shortest encoded form, that is searched for, in bytes: shorter ones are
/// ordinary words, and replacing those would destroy the log.
const MIN_LENGTH: usize = 8;

/// Replaces every known secret by `[redacted]`, in text and in streams.
#[derive(Clone, Default)]
pub struct Redactor {
    needles: Arc<Needles>,
}

/// A [`Redactor`] over a byte stream: a secret split over two chunks is found too.
///
/// It holds back only bytes that may still become a secret, never more than the longest form.
#[derive(Default)]
pub struct RedactStream {
    needles: Arc<Needles>,
    /// Bytes whose fate is open: they are the beginning of some needle.
    held: Vec<u8>,
    /// How many of the held bytes belong to a secret whose mark was already given out.
    covered: usize,
}

#[derive(Default)]
struct Needles {
    secrets: Vec<SecretString>,
    /// Every form of every secret, sorted, so that "is this the beginning of one" is a search.
    sorted: Vec<Vec<u8>>,
    longest: usize,
    /// `None` when there is nothing to search for.
    automaton: Option<AhoCorasick>,
    /// There are secrets, but they cannot be searched for: everything is withheld.
    unsearchable: bool,
}

impl Redactor {
    /// Knows the given secrets, each in its raw, base64, percent-encoded and JSON-escaped forms.
    /// Secrets shorter than 8 bytes are left alone.
    pub fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        Self { needles: Arc::new(Needles::new(secrets.into_iter().collect())) }
    }

    /// This redactor, with more secrets.
    #[must_use]
    pub fn with(&self, secrets: impl IntoIterator<Item = SecretString>) -> Self {
        Self::new(self.needles.secrets.iter().cloned().chain(secrets))
    }

    /// The text without the secrets.
    pub fn text(&self, text: &str) -> String {
        let mut stream = self.stream();
        let mut bytes = stream.push(text.as_bytes());
        bytes.extend(stream.finish());
        // Needles are UTF-8, so cutting them out of UTF-8 leaves UTF-8.
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into())
    }

    /// A redactor for one stream.
    pub fn stream(&self) -> RedactStream {
        RedactStream { needles: Arc::clone(&self.needles), ..RedactStream::default() }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("secrets", &self.needles.secrets.len()).finish()
    }
}

impl fmt::Debug for RedactStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactStream").field("held_bytes", &self.held.len()).finish_non_exhaustive()
    }
}

impl RedactStream {
    /// Takes the next bytes and returns those that can no longer be part of a secret.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let needles = Arc::clone(&self.needles);
        if needles.unsearchable {
            return Vec::new();
        }
        if needles.automaton.is_none() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let open = needles.open_tail(&self.held);
        self.release(&needles, open)
    }

    /// Ends the stream and returns what was held back.
    pub fn finish(mut self) -> Vec<u8> {
        let needles = Arc::clone(&self.needles);
        let all = self.held.len();
        self.release(&needles, all)
    }

    /// Gives out `held[..end]` with the secrets replaced, and keeps the rest.
    fn release(&mut self, needles: &Needles, end: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(end);
        let mut written = self.covered.min(end);
        let mut covered_to = self.covered;
        for found in needles.matches(&self.held) {
            if found.start >= end {
                break;
            }
            // A secret that begins inside an earlier one prolongs that one's mark.
            if found.start >= covered_to {
                out.extend_from_slice(&self.held[written..found.start]);
                out.extend_from_slice(MARK);
            }
            covered_to = covered_to.max(found.end);
            written = covered_to.min(end);
        }
        out.extend_from_slice(&self.held[written..end]);
        self.held.drain(..end);
        self.covered = covered_to.saturating_sub(end);
        out
    }
}

impl Needles {
    fn new(secrets: Vec<SecretString>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in &secrets {
            let secret = secret.expose_secret().trim();
            add_forms(secret, &mut forms);
            // A key of several lines also shows up line by line.
            let lines = secret.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
            for line in lines.filter(|line| *line != secret) {
                add_forms(line, &mut forms);
            }
        }
        let sorted: Vec<Vec<u8>> = forms.into_iter().collect();
        let longest = sorted.iter().map(Vec::len).max().unwrap_or_default();
        // Building fails only for more patterns than memory could hold; then nothing may pass.
        let built = (!sorted.is_empty()).then(|| AhoCorasick::new(&sorted));
        let unsearchable = matches!(built, Some(Err(_)));
        let automaton = built.and_then(Result::ok);
        Self { secrets, sorted, longest, automaton, unsearchable }
    }

    /// Every occurrence, overlapping ones too, by where it starts.
    fn matches(&self, text: &[u8]) -> Vec<Range<usize>> {
        let Some(automaton) = &self.automaton else { return Vec::new() };
        let mut found: Vec<_> =
            automaton.find_overlapping_iter(text).map(|found| found.range()).collect();
        found.sort_unstable_by_key(|range| (range.start, range.end));
        found
    }

    /// Where the first suffix of `text` begins that is the beginning of a needle, but not all of
    /// it.
    fn open_tail(&self, text: &[u8]) -> usize {
        let first = (text.len() + 1).saturating_sub(self.longest);
        let begins = |tail: &[u8]| {
            // The longer needles that begin with `tail` stand right after all that are not greater.
            let after = self.sorted.partition_point(|needle| needle.as_slice() <= tail);
            self.sorted.get(after).is_some_and(|needle| needle.starts_with(tail))
        };
        (first..text.len()).find(|&at| begins(&text[at..])).unwrap_or(text.len())
    }
}

/// Adds every form in which `secret` may be printed.
fn add_forms(secret: &str, forms: &mut BTreeSet<Vec<u8>>) {
    if secret.len() < MIN_LENGTH {
        return;
    }
    let mut add = |form: Vec<u8>| {
        if form.len() >= MIN_LENGTH {
            forms.insert(form);
        }
    };
    add(secret.as_bytes().to_vec());
    for engine in [STANDARD, URL_SAFE] {
        add(engine.encode(secret).into_bytes());
        // What git and the forge's own tools send as basic authentication.
        add(engine.encode(format!("x-access-token:{secret}")).into_bytes());
        for shift in 0..3 {
            add(base64_inside(&engine, secret.as_bytes(), shift));
        }
    }
    for upper in [true, false] {
        add(percent_encoded(secret, upper).into_bytes());
    }
    let json = serde_json::Value::from(secret).to_string();
    let inside = &json[1..json.len() - 1];
    add(inside.into());
    add(inside.replace('/', "\\/").into());
}

/// The base64 characters that depend on `secret` alone when `shift` bytes (modulo 3) precede it.
fn base64_inside(engine: &impl Engine, secret: &[u8], shift: usize) -> Vec<u8> {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(secret);
    let first = (shift * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    engine.encode(&padded).as_bytes()[first..end].to_vec()
}

fn percent_encoded(secret: &str, upper: bool) -> String {
    use fmt::Write as _;
    let mut out = String::new();
    for byte in secret.bytes() {
        let written = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
                Ok(())
            }
            _ if upper => write!(out, "%{byte:02X}"),
            _ => write!(out, "%{byte:02x}"),
        };
        // Writing to a string does not fail.
        debug_assert!(written.is_ok());
    }
    out
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    use super::Redactor;

    const TOKEN: &str = "ghp_s3cr3t/with+odd \"chars\"%";

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|secret| (*secret).to_owned().into()))
    }

    #[test]
    fn every_form_of_a_secret_is_replaced() {
        let redactor = redactor(&[TOKEN]);
        let json = serde_json::Value::from(TOKEN).to_string();
        let forms = [
            TOKEN.to_owned(),
            STANDARD.encode(TOKEN),
            STANDARD.encode(format!("x-access-token:{TOKEN}")),
            "ghp_s3cr3t%2Fwith%2Bodd%20%22chars%22%25".to_owned(),
            json[1..json.len() - 1].to_owned(),
        ];
        for form in forms {
            assert_eq!(redactor.text(&format!("<{form}>")), "<[redacted]>", "{form}");
        }
        for before in ["", "a", "ab", "user:"] {
            let text = redactor.text(&STANDARD.encode(format!("{before}{TOKEN} and more")));
            assert!(text.contains("[redacted]") && text.len() < 40, "{before:?}: {text}");
        }
    }

    #[test]
    fn short_words_and_other_text_are_left_alone() {
        let redactor = redactor(&["short", TOKEN]);
        assert_eq!(redactor.text("a short text, ghp_s3cr3t"), "a short text, ghp_s3cr3t");
    }

    #[test]
    fn overlapping_secrets_leave_no_part_behind() {
        let redactor = redactor(&["abcdefgh", "efghijkl"]);
        assert_eq!(redactor.text("-abcdefghijkl-"), "-[redacted]-");
    }

    #[test]
    fn each_line_of_a_key_is_a_secret() {
        let redactor =
            redactor(&["-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ\n-----END-----"]);
        assert_eq!(redactor.text("x MIIEvQIBADANBg y"), "x [redacted] y");
        assert_eq!(redactor.text("kqhkiG9w0BAQ"), "[redacted]");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        assert!(!format!("{:?}", redactor(&[TOKEN])).contains("ghp_"));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_what_the_whole_text_gives(
            secrets in prop::collection::vec("[xyz%/]{8,14}", 1..4),
            parts in prop::collection::vec(prop_oneof![
                "[xyz%/é\\n]{0,12}".prop_map(|text| (text, None)),
                (0..3usize, 0..4usize).prop_map(|(at, form)| (String::new(), Some((at, form)))),
            ], 0..12),
            cuts in prop::collection::vec(0..9usize, 1..40),
        ) {
            let mut text = String::new();
            for (plain, secret) in parts {
                text.push_str(&plain);
                if let Some((at, form)) = secret {
                    let secret = &secrets[at % secrets.len()];
                    match form {
                        0 => text.push_str(&STANDARD.encode(secret)),
                        1 => text.push_str(&secret[..5]),
                        _ => text.push_str(secret),
                    }
                }
            }
            let redactor = Redactor::new(secrets.iter().map(|secret| secret.clone().into()));
            let whole = redactor.text(&text);
            let mut stream = redactor.stream();
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((cut + 1).min(rest.len()));
                pieces.extend(stream.push(head));
                rest = tail;
            }
            pieces.extend(stream.finish());
            prop_assert_eq!(String::from_utf8_lossy(&pieces), whole.as_str());
            for secret in &secrets {
                prop_assert!(!whole.contains(secret.as_str()));
            }
        }
    }
}
