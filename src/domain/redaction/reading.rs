//! Reads a text step by step: a character, an escape, a sequence, or what a tool puts in front of a line.

use super::{
    controls::{self, Character, Opening},
    line::{Line, Place},
};

/// Stands for a gap; it is a control character, so that no needle has it.
const GAP: u8 = 1;
/// More bytes than this are left out between two bytes of no secret.
const LONGEST_GAP: u16 = 256;
/// Most backslashes in front of a character: those of JSON, in JSON, in JSON, …
const MOST_BACKSLASHES: usize = 64;
/// Digits of an address in front of a line of a dump.
const ADDRESS: std::ops::RangeInclusive<usize> = 6..=16;
/// Longest number of a line that a tool puts in front of it, and most spaces before either.
const LINE_NUMBER: usize = 9;
const INDENT: usize = 24;
/// Spaces in front of a line that shows the bytes of the one above in another way.
const SECOND: usize = 4;
/// Most bytes that are read at once.
pub(super) const RUN: usize = 256;
/// Longest group of a dump, and longest character in one that is no number.
const GROUP: usize = 16;
const CHARACTER: usize = 4;
/// Most spaces between two groups, and most characters beside them.
const PADDING: usize = 128;
const COLUMN: u16 = 256;
/// Reads a text from one place on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    pub(super) place: Place,
    /// Nothing comes behind the text.
    pub(super) at_end: bool,
}

/// What a byte of ordinary text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kept,
    LeftOut,
    /// To be looked at.
    Special,
}

static KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Kept; 256];
    let mut byte = 0;
    while byte < 0x21 {
        kinds[byte] = Kind::LeftOut;
        byte += 1;
    }
    kinds[0x7f] = Kind::LeftOut;
    kinds[b',' as usize] = Kind::LeftOut;
    let special = *b"\n\r\x1b\\\"\xc2\xcd\xd8\xe1\xe2\xe3\xef\xf3";
    byte = 0;
    while byte < special.len() {
        kinds[special[byte] as usize] = Kind::Special;
        byte += 1;
    }
    kinds
};

impl<'a> Reading<'a> {
    /// Reads ordinary text, up to `end` or to what has to be looked at.
    pub(super) fn plain_run(&mut self, end: usize, bytes: &mut Vec<u8>) {
        if self.place.line != Line::Text {
            return;
        }
        let rest = &self.text[self.at..end.min(self.text.len())];
        let before = rest.iter().position(|b| KINDS[usize::from(*b)] != Kind::LeftOut);
        let before = before.unwrap_or(rest.len());
        self.skip(before, bytes);
        let rest = &rest[before..];
        // Indices, so that tests, which are not optimized, have time for it too.
        let mut kept = [0; RUN];
        let (mut at, mut length, mut kept_to) = (0, 0, 0);
        while at < rest.len() && length < RUN {
            let byte = rest[at];
            match KINDS[usize::from(byte)] {
                Kind::Special => break,
                Kind::Kept => {
                    kept[length] = byte;
                    length += 1;
                    at += 1;
                    kept_to = at;
                }
                Kind::LeftOut => at += 1,
            }
        }
        bytes.extend_from_slice(&kept[..length]);
        self.at += at;
        let left_out = at - kept_to;
        if kept_to > 0 {
            self.place.gap = 0;
        }
        self.leave_out(left_out, bytes);
    }

    /// Reads one thing; false when the text does not say yet what it is.
    pub(super) fn step(&mut self, bytes: &mut Vec<u8>) -> bool {
        if self.at >= self.text.len() {
            return false;
        }
        match self.place.line {
            Line::Start | Line::AfterDump => self.line_start(bytes),
            Line::Dump { groups, colon, numbers } => self.group(groups, colon, numbers, bytes),
            Line::Column(width) => self.column(width, bytes),
            Line::Text => self.one(bytes),
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    fn leave_out(&mut self, count: usize, bytes: &mut Vec<u8>) {
        let before = self.place.gap;
        self.place.gap = before.saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
        if before <= LONGEST_GAP && self.place.gap > LONGEST_GAP {
            bytes.push(GAP);
        }
    }

    fn skip(&mut self, count: usize, bytes: &mut Vec<u8>) {
        self.at += count;
        self.leave_out(count, bytes);
    }

    fn keep(&mut self, count: usize, kept: &[u8], bytes: &mut Vec<u8>) {
        self.at += count;
        self.place.gap = 0;
        bytes.extend_from_slice(kept);
    }

    /// What tools put in front of a line: its number, or the address of a dump.
    fn line_start(&mut self, bytes: &mut Vec<u8>) -> bool {
        let rest = self.rest();
        let spaces = count(rest, INDENT, |byte| byte == b' ');
        let indented = &rest[spaces..];
        let number = count(indented, LINE_NUMBER, |byte| byte.is_ascii_digit());
        let digits = count(indented, ADDRESS.end() + 1, |byte| byte.is_ascii_hexdigit());
        let colon = indented.get(digits) == Some(&b':');
        let behind = &indented[number..];
        let backslashes = count(behind, MOST_BACKSLASHES, |byte| byte == b'\\');
        // What may become either must be known to its end.
        let is_open = |tab: &[u8], rest: &[u8]| tab.starts_with(rest);
        let escaped = &behind[backslashes..];
        let open = is_open("→".as_bytes(), behind)
            || backslashes > 0 && is_open(b"u2192", escaped)
            || spaces + digits + usize::from(colon) == rest.len() && digits <= *ADDRESS.end();
        if open && !self.at_end {
            return false;
        }
        let tab = match behind {
            [b'\t', ..] => 1,
            _ if behind.starts_with("→".as_bytes()) => "→".len(),
            _ if backslashes > 0 && escaped.starts_with(b"t") => backslashes + 1,
            _ if backslashes > 0 && escaped.starts_with(b"u2192") => backslashes + 5,
            _ => 0,
        };
        if number > 0 && tab > 0 {
            self.skip(spaces + number + tab, bytes);
            return true;
        }
        let after = indented.get(digits + usize::from(colon));
        // A word of a dump without addresses may begin a line too, and the end of a word that was broken.
        let is_address = ADDRESS.contains(&digits)
            && indented[0] == b'0'
            && (spaces == 0 || digits > *ADDRESS.start() || colon)
            && matches!(after, Some(b' ' | b'\t'));
        if is_address {
            self.skip(spaces + digits + usize::from(colon), bytes);
            self.place.line = Line::Dump { groups: 0, colon, numbers: true };
        } else if self.place.line == Line::AfterDump && spaces >= SECOND && !indented.is_empty() {
            self.skip(spaces, bytes);
            self.place.line = Line::Column(0);
        } else {
            self.place.line = Line::Text;
        }
        true
    }

    /// The next group of a dump and the spaces before it.
    fn group(&mut self, groups: u8, colon: bool, numbers: bool, bytes: &mut Vec<u8>) -> bool {
        let rest = self.rest();
        let spaces = count(rest, PADDING, |byte| byte == b' ');
        let Some(first) = rest.get(spaces) else {
            if self.at_end {
                self.skip(spaces, bytes);
            }
            return self.at_end;
        };
        let beside = matches!(first, b'|' | b'>') && numbers;
        if groups > 0 && !first.is_ascii_control() && (beside || (colon && spaces > 1)) {
            self.skip(spaces, bytes);
            self.place.line = Line::Column(0);
            return true;
        }
        let ends = |byte: u8| byte <= b' ' || matches!(byte, b'\\' | b'"' | 0x7f);
        let width = count(&rest[spaces..], GROUP + 1, |byte| !ends(byte));
        if width == 0 {
            // A line end, an escape, a colour; or there are too many spaces.
            if spaces == PADDING {
                self.place.line = Line::Text;
            }
            return if spaces > 0 {
                self.skip(spaces, bytes);
                true
            } else {
                self.one(bytes)
            };
        }
        if spaces + width == rest.len() && width <= GROUP && !self.at_end {
            return false;
        }
        let group = &rest[spaces..spaces + width];
        let number = group.iter().all(u8::is_ascii_hexdigit);
        if width > if number { GROUP } else { CHARACTER } {
            self.place.line = Line::Text;
            return true;
        }
        let numbers = numbers && number && width > 1;
        self.place.line = Line::Dump { groups: groups.saturating_add(1), colon, numbers };
        self.keep(spaces + width, group, bytes);
        true
    }

    /// A character beside the numbers, up to the end of the line or of the text in quotes.
    fn column(&mut self, width: u16, bytes: &mut Vec<u8>) -> bool {
        let rest = self.rest();
        let backslashes = count(rest, MOST_BACKSLASHES, |byte| byte == b'\\');
        let Some(next) = rest.get(backslashes) else { return self.undecided(rest.len(), bytes) };
        let level = self.place.level;
        let ends = match next {
            b'\n' | b'\r' => true,
            b'n' | b'r' if level > 0 => backslashes % (2 * level) == level,
            b'"' if level > 0 => backslashes % (2 * level) == level - 1,
            _ => false,
        };
        if ends {
            return self.one(bytes);
        }
        if width > COLUMN {
            self.place.line = Line::Text;
            return true;
        }
        self.place.line = Line::Column(width + 1);
        self.place.gap = 0;
        self.skip(backslashes + 1, bytes);
        true
    }

    /// What is at the end of a text may be the beginning of something.
    fn undecided(&mut self, length: usize, bytes: &mut Vec<u8>) -> bool {
        if self.at_end {
            self.skip(length, bytes);
        }
        self.at_end
    }

    /// One character, sequence or escape.
    fn one(&mut self, bytes: &mut Vec<u8>) -> bool {
        let rest = self.rest();
        match rest[0] {
            b'\n' | b'\r' => self.line_end(1, 0, bytes),
            b'"' => self.quote(0, bytes),
            b'\\' => self.escape(bytes),
            b'\x1b' => self.control(1, Opening::Escape, 0, bytes),
            byte if KINDS[usize::from(byte)] == Kind::LeftOut => {
                self.skip(1, bytes);
                true
            }
            byte if KINDS[usize::from(byte)] == Kind::Kept => {
                self.keep(1, &[byte], bytes);
                true
            }
            _ => match controls::first(rest) {
                Character::Cut if !self.at_end => false,
                character => self.take(character, 0, &rest[..1], bytes),
            },
        }
    }

    /// Reads a character; `kept` is what stands for it if it is seen.
    fn take(
        &mut self,
        character: Character,
        backslashes: usize,
        kept: &[u8],
        bytes: &mut Vec<u8>,
    ) -> bool {
        match character {
            Character::Cut => self.keep(1, kept, bytes),
            Character::Invisible(length) => self.skip(length, bytes),
            Character::Opens(length, opening) => {
                return self.control(length, opening, backslashes, bytes);
            }
            Character::Visible(length) if backslashes == 0 => {
                let kept = &self.rest()[..length];
                self.keep(length, kept, bytes);
            }
            Character::Visible(length) => self.keep(length, kept, bytes),
        }
        true
    }

    fn line_end(&mut self, length: usize, backslashes: usize, bytes: &mut Vec<u8>) -> bool {
        self.skip(length, bytes);
        if self.place.in_dump() {
            self.place.line = Line::AfterDump;
        } else {
            self.begin_line();
        }
        // Those in front of them belong to a backslash that was printed.
        self.place.level = backslashes & backslashes.wrapping_neg();
        true
    }

    /// Only digits and spaces are worth a look.
    fn begin_line(&mut self) {
        let plain = |byte: &u8| *byte != b' ' && !byte.is_ascii_hexdigit();
        let plain = self.text.get(self.at).is_some_and(plain);
        self.place.line = if plain { Line::Text } else { Line::Start };
    }

    /// A quote may begin a text of JSON, whose line ends have one backslash more.
    fn quote(&mut self, backslashes: usize, bytes: &mut Vec<u8>) -> bool {
        self.keep(backslashes + 1, b"\"", bytes);
        self.begin_line();
        self.place.level = backslashes + 1;
        true
    }

    /// A sequence whose first character, of `length` bytes, was seen.
    fn control(
        &mut self,
        length: usize,
        opening: Opening,
        backslashes: usize,
        bytes: &mut Vec<u8>,
    ) -> bool {
        match controls::sequence(self.rest(), length, opening, backslashes) {
            Some(end) => self.skip(end, bytes),
            None if self.at_end => self.skip(length, bytes),
            None => return false,
        }
        true
    }

    /// Backslashes and what they change.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> bool {
        let rest = self.rest();
        let backslashes = count(rest, MOST_BACKSLASHES, |byte| byte == b'\\');
        let Some(next) = rest.get(backslashes) else { return self.undecided(rest.len(), bytes) };
        let of_dump = self.place.in_dump() && self.place.level > 0;
        let length = backslashes + 1;
        match next {
            b'n' | b'r' if !of_dump || backslashes % (2 * self.place.level) == self.place.level => {
                return self.line_end(length, backslashes, bytes);
            }
            b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'a' => self.skip(length, bytes),
            b'"' => return self.quote(backslashes, bytes),
            b'e' | b'E' => return self.control(length, Opening::Escape, backslashes, bytes),
            _ => {
                let escaped = controls::escaped(&rest[backslashes..]);
                return match escaped.character(backslashes) {
                    Character::Cut if !self.at_end => false,
                    // Only the backslashes are read.
                    Character::Cut | Character::Visible(0) => {
                        self.skip(backslashes, bytes);
                        true
                    }
                    character => self.take(character, backslashes, &escaped.bytes(), bytes),
                };
            }
        }
        true
    }
}

fn count(bytes: &[u8], most: usize, has: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take(most).take_while(|byte| has(**byte)).count()
}
