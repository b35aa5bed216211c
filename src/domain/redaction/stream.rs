//! Replaces what a finder finds in a stream, however the stream is cut into chunks.

use std::{ops::Range, sync::Arc};

use super::{MARK, line::Place, needles::Needles, vendor::VENDORS};

/// Most bytes of the beginning of a secret that a pause gives out.
const GIVEN_IN_PAUSE: usize = 4;

/// Finds secrets in the bytes that are there so far.
pub(super) trait Finder {
    /// Looks at `text`, which begins at `place`, and behind which nothing comes when `at_end`.
    fn find(&self, text: &[u8], place: Place, at_end: bool) -> Findings;
}

/// What is known of a text.
pub(super) struct Findings {
    /// Secrets, overlapping ones too, by where they start.
    pub(super) found: Vec<Found>,
    /// From here on the text may still become a secret, or a longer one.
    pub(super) open: usize,
    /// What is known of that point.
    pub(super) place: Place,
    /// How much of a secret the end of the text may be, in bytes.
    pub(super) begun: usize,
}

/// A secret in a text.
pub(super) struct Found {
    pub(super) range: Range<usize>,
    /// It is a known one, whole, and no ordinary word.
    pub(super) strong: bool,
}

/// A [`super::Redactor`] over a byte stream: a secret split over two chunks is found too.
///
/// It holds back only bytes that may still become a secret, a few hundred kilobytes at most.
#[derive(Default)]
pub struct RedactStream {
    pub(super) needles: Arc<Needles>,
    known: Stage,
    vendors: Stage,
}

/// Looks for known secrets in something of any length, and changes nothing.
///
/// Found are secrets in any form that are not weak and have at least 16 bytes and both letters and digits:
/// others may be ordinary words. What only looks like a token of a vendor does not count, nor does anything
/// inside an archive.
#[derive(Default)]
pub struct SecretSearch {
    needles: Arc<Needles>,
    known: Stage,
}

impl SecretSearch {
    pub(super) fn new(needles: Arc<Needles>) -> Self {
        Self { needles, ..Self::default() }
    }

    /// Takes the next bytes, and says whether a secret was found so far.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        self.known.push(&*self.needles, bytes);
        self.known.betrayed
    }

    /// Whether there was one, now that nothing more comes.
    pub fn finish(mut self) -> bool {
        self.known.finish(&*self.needles);
        self.known.betrayed
    }
}

/// One finder's place in the stream.
#[derive(Default)]
struct Stage {
    /// Bytes whose fate is open.
    held: Vec<u8>,
    /// How many of the held bytes belong to a secret whose mark was already given out.
    covered: usize,
    /// How many of the held bytes were given out in a pause.
    given: usize,
    /// What is known of where the held bytes begin.
    place: Place,
    /// How much of a secret they may be the beginning of.
    begun: usize,
    /// A strong secret was found.
    betrayed: bool,
}

impl RedactStream {
    pub(super) fn new(needles: Arc<Needles>) -> Self {
        Self { needles, ..Self::default() }
    }

    /// Takes the next bytes and returns those that can no longer be part of a secret.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let bytes = self.known.push(&*self.needles, bytes);
        self.vendors.push(&*VENDORS, &bytes)
    }

    /// Returns what is held back when nothing more comes for a while, if at most 4 bytes of it may begin a
    /// secret: more than that is hardly there by chance. What was given out is remembered, so that a secret
    /// that goes on later loses all but these bytes.
    pub fn pause(&mut self) -> Vec<u8> {
        let bytes = self.known.pause();
        let mut out = self.vendors.push(&*VENDORS, &bytes);
        out.extend(self.vendors.pause());
        out
    }

    /// Ends the stream and returns what was held back.
    pub fn finish(mut self) -> Vec<u8> {
        let bytes = self.known.finish(&*self.needles);
        let mut out = self.vendors.push(&*VENDORS, &bytes);
        out.extend(self.vendors.finish(&*VENDORS));
        out
    }

    /// Whether anything is held back.
    pub fn holds(&self) -> bool {
        self.held() > 0
    }

    /// How many bytes are held back.
    pub(super) fn held(&self) -> usize {
        self.known.held.len() + self.vendors.held.len()
    }
}

impl Stage {
    fn push(&mut self, finder: &impl Finder, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let findings = finder.find(&self.held, self.place, false);
        (self.place, self.begun) = (findings.place, findings.begun);
        self.release(&findings.found, findings.open)
    }

    fn finish(&mut self, finder: &impl Finder) -> Vec<u8> {
        let found = finder.find(&self.held, self.place, true).found;
        self.release(&found, self.held.len())
    }

    fn pause(&mut self) -> Vec<u8> {
        let from = self.covered.max(self.given);
        if self.begun > GIVEN_IN_PAUSE {
            return Vec::new();
        }
        self.given = self.held.len();
        self.held.get(from..).unwrap_or_default().to_vec()
    }

    /// Gives out `held[..end]` with the secrets replaced, and keeps the rest.
    fn release(&mut self, found: &[Found], end: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(end + MARK.len());
        let mut written = self.covered.max(self.given).min(end);
        let mut covered_to = self.covered;
        for Found { range: found, strong } in found {
            self.betrayed |= strong;
            if found.start >= end {
                break;
            }
            // A secret that begins inside an earlier one prolongs that one's mark.
            if found.start >= covered_to {
                let plain = found.start.max(written);
                out.extend_from_slice(&self.held[written..plain]);
                out.extend_from_slice(MARK);
            }
            covered_to = covered_to.max(found.end);
            written = written.max(covered_to.min(end));
        }
        out.extend_from_slice(&self.held[written..end]);
        self.held.drain(..end);
        self.covered = covered_to.saturating_sub(end);
        self.given = self.given.saturating_sub(end);
        out
    }
}
