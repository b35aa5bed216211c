//! Finds the forms of known secrets, in a text as it is and as it is read: condensed.

use std::ops::Range;

use secrecy::{ExposeSecret, SecretString};

use super::{
    MIN_LENGTH,
    condensed::Condensed,
    forms::{self, Forms},
    line::Place,
    matcher::{Matcher, Needle},
    stream::{Finder, Findings, Found},
};

/// At the end of a text this much of the beginning of a secret counts as one that was cut, in bytes.
const MIN_CUT: usize = 16;
/// Most bytes that are held back, whatever they may become.
const MOST_HELD: usize = 256 << 10;
/// The end of a text with so many digits may be a word of a dump that belongs to what follows.
const WORD: usize = 16;

/// The known secrets, ready to be searched for.
#[derive(Default)]
pub(super) struct Needles {
    pub(super) secrets: Vec<SecretString>,
    matcher: Matcher,
}

impl Needles {
    pub(super) fn new(secrets: Vec<SecretString>) -> Self {
        let mut forms = Forms::new();
        for secret in &secrets {
            forms::add(secret.expose_secret(), &mut forms);
        }
        let condensed: Vec<_> = forms
            .iter()
            .map(|(form, about)| (Condensed::of_needle(form), *about))
            .filter(|(form, _)| form.len() >= MIN_LENGTH)
            .collect();
        for (form, about) in condensed {
            forms.entry(form).or_default().merge(about);
        }
        let needles = forms.into_iter().map(|(form, about)| Needle {
            form,
            strong: about.strong,
            margin: about.margin,
        });
        Self { secrets, matcher: Matcher::new(needles) }
    }
}

/// What one reading of a text tells.
struct Look {
    /// Where needles are, the strongest and the widest first known.
    found: Vec<(Range<usize>, bool)>,
    /// From here on the text may still become a secret, or a longer one.
    open: usize,
}

impl Needles {
    fn look(&self, text: &[u8], at_end: bool) -> Look {
        let mut look = Look { found: Vec::new(), open: text.len() };
        self.matcher.candidates(text, |at, needles| {
            let rest = &text[at..];
            let mut longest: Option<(Range<usize>, bool)> = None;
            for Needle { form, strong, margin } in needles {
                if rest.len() < form.len() {
                    if form.starts_with(rest) {
                        look.open = look.open.min(at.saturating_sub(*margin));
                        if at_end && rest.len() >= MIN_CUT {
                            longest = Some((at..text.len(), false));
                        }
                    }
                } else if rest.starts_with(form) {
                    let end = at + form.len();
                    let start = at - digits(text[..at].iter().rev(), *margin);
                    let more = digits(text[end..].iter(), *margin);
                    let (range, sure) = longest.unwrap_or((start..end, false));
                    let range = range.start.min(start)..range.end.max(end + more);
                    longest = Some((range, sure || *strong));
                    if !at_end && more < *margin && end + more == text.len() {
                        look.open = look.open.min(start);
                    }
                }
            }
            look.found.extend(longest);
        });
        if let Some(at) = self.matcher.begun(text) {
            look.open = look.open.min(at);
        }
        look
    }
}

impl Finder for Needles {
    fn find(&self, text: &[u8], place: Place, at_end: bool) -> Findings {
        if self.matcher.is_empty() {
            return Findings { found: Vec::new(), open: text.len(), place, begun: 0 };
        }
        let condensed = Condensed::new(text, place, at_end);
        let raw = self.look(text, at_end);
        let read = self.look(&condensed.bytes, at_end);
        let length = condensed.bytes.len();
        let mut open = raw.open.min(condensed.read_to);
        if read.open < length {
            open = open.min(condensed.origin(read.open, read.open + 1).0);
        }
        let digits = digits(condensed.bytes.iter().rev(), WORD);
        if digits * 4 >= WORD {
            open = open.min(condensed.origin(length - digits, length).0);
        }
        let found = |range, strong| Found { range, strong };
        let mut all: Vec<Found> =
            raw.found.into_iter().map(|(r, strong)| found(r, strong)).collect();
        for (range, strong) in read.found {
            match condensed.origin(range.start, range.end) {
                (start, Some(end)) => all.push(found(start..end, strong)),
                // The line of a dump goes on.
                (start, None) => open = open.min(start),
            }
        }
        all.sort_unstable_by_key(|found| (found.range.start, found.range.end));
        let begun = (text.len() - raw.open).max(length - read.open);
        if !at_end {
            open = open.max(text.len().saturating_sub(MOST_HELD));
        }
        let (open, place) = if at_end { (text.len(), place) } else { condensed.place_before(open) };
        Findings { found: all, open, place, begun }
    }
}

/// How many digits there are, up to `most`.
fn digits<'a>(bytes: impl Iterator<Item = &'a u8>, most: usize) -> usize {
    bytes.take(most).take_while(|byte| byte.is_ascii_hexdigit()).count()
}
