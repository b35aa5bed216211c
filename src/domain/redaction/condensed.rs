//! A text without what hides a secret from a search and not from a reader: colours and other controls,
//! invisible characters, white space and line ends, escapes, and what a dump prints beside its bytes.
//!
//! It is read step by step, so that each byte can be led back to where it stands in the text, and so that a
//! stream can go on from any step. What is left out without a word between, however long, would have to be held
//! back: a long gap separates.

use super::{
    line::Place,
    reading::{RUN, Reading},
};

/// A place from which can be read again.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: usize,
    length: usize,
    place: Place,
}

/// A text as it is searched.
pub(super) struct Condensed<'a> {
    text: &'a [u8],
    at_end: bool,
    pub(super) bytes: Vec<u8>,
    marks: Vec<Mark>,
    /// From here on more must be known.
    pub(super) read_to: usize,
}

impl<'a> Condensed<'a> {
    pub(super) fn new(text: &'a [u8], place: Place, at_end: bool) -> Self {
        let mut reading = Reading { text, at: 0, place, at_end };
        let mut bytes = Vec::with_capacity(text.len());
        let mut marks = Vec::with_capacity(text.len() / RUN + 1);
        let mut next_mark = 0;
        loop {
            if reading.at >= next_mark {
                let Reading { at, place, .. } = reading;
                marks.push(Mark { at, length: bytes.len(), place });
                next_mark = at + RUN;
            }
            reading.plain_run(next_mark, &mut bytes);
            if reading.at < next_mark && !reading.step(&mut bytes) {
                break;
            }
        }
        Self { text, at_end, bytes, marks, read_to: reading.at }
    }

    /// A needle, as it is found in a text that was condensed.
    pub(super) fn of_needle(form: &[u8]) -> Vec<u8> {
        Condensed::new(form, Place::inside(), true).bytes
    }

    /// Where the bytes `from..to` come from, to the end of the line if that is of a dump; the end is not known
    /// when the text may go on.
    pub(super) fn origin(&self, from: usize, to: usize) -> (usize, Option<usize>) {
        let (start, _) = self.step_of(from);
        let (_, reading) = self.step_of(to.max(from + 1) - 1);
        let end =
            if reading.place.in_dump() { self.end_of_dump(reading) } else { Some(reading.at) };
        (start, end)
    }

    /// Where the line of a dump ends, with those that show the same bytes in another way.
    fn end_of_dump(&self, mut reading: Reading<'_>) -> Option<usize> {
        let mut nowhere = Vec::new();
        loop {
            let before = reading.at;
            if !reading.step(&mut nowhere) {
                return self.at_end.then_some(self.text.len());
            }
            while reading.place.behind_dump() {
                if !reading.step(&mut nowhere) {
                    return self.at_end.then_some(before);
                }
                if reading.place.has_address() {
                    return Some(before);
                }
            }
            if !reading.place.in_dump() {
                return Some(before);
            }
        }
    }

    /// The last place at or before `at`.
    pub(super) fn place_before(&self, at: usize) -> (usize, Place) {
        let mark = self.mark(|mark| mark.at <= at);
        let mut reading = self.read_from(mark);
        let mut found = (reading.at, reading.place);
        let mut nowhere = Vec::new();
        while reading.at <= at {
            found = (reading.at, reading.place);
            if !reading.step(&mut nowhere) {
                break;
            }
        }
        found
    }

    /// Where the step begins that wrote the byte at `index`, and what is read behind it.
    fn step_of(&self, index: usize) -> (usize, Reading<'a>) {
        let mark = self.mark(|mark| mark.length <= index);
        let mut reading = self.read_from(mark);
        let mut bytes = Vec::new();
        loop {
            let start = reading.at;
            if !reading.step(&mut bytes) || mark.length + bytes.len() > index {
                return (start, reading);
            }
        }
    }

    fn mark(&self, is_before: impl Fn(&Mark) -> bool) -> Mark {
        let after = self.marks.partition_point(is_before);
        let first = Mark { at: 0, length: 0, place: Place::default() };
        self.marks.get(after.saturating_sub(1)).copied().unwrap_or(first)
    }

    fn read_from(&self, mark: Mark) -> Reading<'a> {
        let Mark { at, place, .. } = mark;
        Reading { text: self.text, at, place, at_end: self.at_end }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Condensed, Place, Reading};

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            "[a-z ,\\n\"\\\\]{0,30}".prop_map(String::into_bytes),
            "(0[0-9a-f]{6,8}:?( [0-9a-f]{2,8}){1,9}  [|>]?[a-z.]{0,16}[|]?(\\n|\\\\n)){1,3}"
                .prop_map(String::into_bytes),
            "(\u{1b}|\\\\u001b)[\\[\\]P][0-9;]{0,9}[mK\u{7}]?".prop_map(String::into_bytes),
            "[\u{80}-\u{a0}\u{200b}-\u{202f}\u{e0001}é中]{0,9}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..9),
            " {0,400}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn each_step_writes_what_the_whole_does(text in text(), at_end in any::<bool>()) {
            let whole = Condensed::new(&text, Place::default(), at_end);
            let mut steps = Vec::new();
            let mut reading = Reading { text: &text, at: 0, place: Place::default(), at_end };
            let mut last = 0;
            while reading.step(&mut steps) {
                prop_assert!(reading.at >= last);
                last = reading.at;
            }
            prop_assert_eq!(&steps, &whole.bytes);
            let mut before = 0;
            for index in 0..whole.bytes.len() {
                let (start, end) = whole.origin(index, index + 1);
                prop_assert!(start >= before && end.is_none_or(|end| end > start), "{index}");
                before = start;
            }
        }

        #[test]
        fn a_text_can_be_read_on_from_any_step(text in text(), at in any::<prop::sample::Index>()) {
            let whole = Condensed::new(&text, Place::default(), true);
            let (at, place) = whole.place_before(at.index(text.len() + 1));
            let known = Condensed::new(&text[..at], Place::default(), true);
            let rest = Condensed::new(&text[at..], place, true);
            // What ends where the first part does may have been read further.
            if known.bytes.len() + rest.bytes.len() == whole.bytes.len() {
                prop_assert_eq!([known.bytes, rest.bytes].concat(), whole.bytes);
            } else {
                prop_assert!(whole.bytes.ends_with(&rest.bytes));
            }
        }
    }
}
