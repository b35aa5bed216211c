//! Characters that a reader does not see: controls, the sequences that terminals obey, invisible ones, each as
//! it is or in an escape of JSON, a shell or a program.

/// Longest parameters of a sequence, and longest text that one carries (a title, a link), in bytes.
const PARAMETERS: usize = 64;
const CARRIED: usize = 512;

/// What stands at the beginning of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Character {
    /// Nothing that can be told before more comes.
    Cut,
    /// A character that is seen, of so many bytes.
    Visible(usize),
    /// One that is not seen, or is white space.
    Invisible(usize),
    /// The first character of a sequence.
    Opens(usize, Opening),
}

/// How a sequence begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// With ESC, which the next character explains.
    Escape,
    /// With parameters.
    Parameters,
    /// With a text.
    Text,
}

/// Whether text can say one thing to a person and another to a program with this character: zero-width
/// characters, direction marks and tags.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{feff}'
        | '\u{3164}' | '\u{ffa0}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// The character with this code, which is written in `length` bytes.
fn kind(code: u32, length: usize) -> Character {
    let opening = match code {
        0x1b => Some(Opening::Escape),
        0x9b => Some(Opening::Parameters),
        0x90 | 0x98 | 0x9d..=0x9f => Some(Opening::Text),
        _ => None,
    };
    let varies = |c: char| matches!(c, '\u{fe00}'..='\u{fe0f}');
    let hides =
        |c: char| c == ',' || c.is_control() || c.is_whitespace() || is_invisible(c) || varies(c);
    match opening {
        Some(opening) => Character::Opens(length, opening),
        None if char::from_u32(code).is_none_or(hides) => Character::Invisible(length),
        None => Character::Visible(length),
    }
}

/// The first character of a text in UTF-8; a byte that is none is seen.
pub(super) fn first(text: &[u8]) -> Character {
    let width = match text.first() {
        None => return Character::Cut,
        Some(0..0x80) => 1,
        Some(0xc2..0xe0) => 2,
        Some(0xe0..0xf0) => 3,
        Some(0xf0..0xf5) => 4,
        Some(_) => return Character::Visible(1),
    };
    let known = &text[..width.min(text.len())];
    match str::from_utf8(known) {
        Ok(text) => text.chars().next().map_or(Character::Cut, |c| kind(c.into(), width)),
        Err(error) if error.error_len().is_none() => Character::Cut,
        Err(_) => Character::Visible(1),
    }
}

/// What an escape says, whose backslashes are in front of `text`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escaped {
    Cut,
    /// It is none.
    Plain,
    Code {
        code: u32,
        length: usize,
        byte: bool,
    },
}

pub(super) fn escaped(text: &[u8]) -> Escaped {
    let Some(first) = text.first() else { return Escaped::Cut };
    match first {
        b'0'..=b'7' => {
            let digits = text.iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            match number(&text[..digits], 8) {
                Some(code) if digits == 3 || *first == b'0' && digits < text.len() => {
                    Escaped::Code { code: code & 0xff, length: digits, byte: true }
                }
                _ if digits == text.len() => Escaped::Cut,
                _ => Escaped::Plain,
            }
        }
        b'x' => match hex(&text[1..], 2) {
            Hex::Code(code) => Escaped::Code { code, length: 3, byte: true },
            Hex::Cut => Escaped::Cut,
            Hex::Other => Escaped::Plain,
        },
        b'u' if text.get(1) == Some(&b'{') => {
            let digits = text[2..].iter().take(7).take_while(|b| b.is_ascii_hexdigit()).count();
            match (text.get(2 + digits), number(&text[2..2 + digits], 16)) {
                (None, _) => Escaped::Cut,
                (Some(b'}'), Some(code)) => Escaped::Code { code, length: digits + 3, byte: false },
                _ => Escaped::Plain,
            }
        }
        b'u' => unit(text),
        _ => Escaped::Plain,
    }
}

/// `uXXXX`, or two of them that make one character.
fn unit(text: &[u8]) -> Escaped {
    let high = match hex(&text[1..], 4) {
        Hex::Code(code) => code,
        Hex::Cut => return Escaped::Cut,
        Hex::Other => return Escaped::Plain,
    };
    let alone = Escaped::Code { code: high, length: 5, byte: false };
    if !(0xd800..0xdc00).contains(&high) {
        return alone;
    }
    let backslashes = text[5..].iter().take(PARAMETERS).take_while(|byte| **byte == b'\\').count();
    let at = 5 + backslashes;
    match text.get(at) {
        None => Escaped::Cut,
        Some(b'u') if backslashes > 0 => match hex(&text[at + 1..], 4) {
            Hex::Code(low) if (0xdc00..0xe000).contains(&low) => {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                Escaped::Code { code, length: at + 5, byte: false }
            }
            Hex::Cut => Escaped::Cut,
            _ => alone,
        },
        Some(_) => alone,
    }
}

enum Hex {
    Code(u32),
    Cut,
    Other,
}

fn hex(text: &[u8], digits: usize) -> Hex {
    let known = &text[..digits.min(text.len())];
    match number(known, 16) {
        Some(code) if known.len() == digits => Hex::Code(code),
        None if !known.is_empty() => Hex::Other,
        _ => Hex::Cut,
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let plain = digits.iter().all(u8::is_ascii_alphanumeric);
    str::from_utf8(digits).ok().filter(|_| plain).and_then(|s| u32::from_str_radix(s, radix).ok())
}

impl Escaped {
    /// The character it stands for; of `length` bytes with what was read of the escape before.
    pub(super) fn character(self, before: usize) -> Character {
        match self {
            Self::Cut => Character::Cut,
            Self::Plain => Character::Visible(0),
            // A byte of a longer character is no control.
            Self::Code { code: 0x80.., length, byte: true } => Character::Visible(before + length),
            Self::Code { code, length, .. } => kind(code, before + length),
        }
    }

    /// Its bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Cut | Self::Plain => Vec::new(),
            Self::Code { code, byte: true, .. } => code.to_le_bytes()[..1].to_vec(),
            Self::Code { code, .. } => {
                char::from_u32(code).map(String::from).unwrap_or_default().into_bytes()
            }
        }
    }
}

/// The length of the sequence whose first character, of `length` bytes, opens it; `None` when the text ends
/// inside. `backslashes` are in front of that character.
pub(super) fn sequence(
    text: &[u8],
    length: usize,
    opening: Opening,
    backslashes: usize,
) -> Option<usize> {
    let body = &text[length..];
    let inner = match opening {
        Opening::Parameters => parameters(body)?,
        Opening::Text => carried(body, backslashes)?,
        Opening::Escape => match body.first()? {
            b'[' => 1 + parameters(&body[1..])?,
            b']' | b'P' | b'^' | b'_' | b'X' => 1 + carried(&body[1..], backslashes)?,
            b'"' | b'\\' => 0,
            0x20..0x30 => {
                let between = body.iter().take(4).take_while(|b| matches!(b, 0x20..0x30)).count();
                let last = body.get(between)?;
                between + usize::from(matches!(last, 0x30..0x7f))
            }
            0x30..0x7f => 1,
            _ => 0,
        },
    };
    Some(length + inner)
}

fn parameters(text: &[u8]) -> Option<usize> {
    let length = text.iter().take(PARAMETERS).take_while(|b| matches!(b, 0x20..0x40)).count();
    match text.get(length) {
        None => None,
        Some(0x40..0x7f) if length < PARAMETERS => Some(length + 1),
        Some(_) if length == PARAMETERS => Some(0),
        Some(_) => Some(length),
    }
}

/// The length of a text with its end; nothing when it has none.
fn carried(text: &[u8], before: usize) -> Option<usize> {
    let mut at = 0;
    while at < CARRIED {
        let rest = &text[at..];
        let backslashes = rest.iter().take(PARAMETERS).take_while(|b| **b == b'\\').count();
        let behind = &rest[backslashes..];
        let next = *behind.first()?;
        let (code, length) = match next {
            b'a' if backslashes > 0 => (7, 1),
            b'e' | b'E' if backslashes > 0 => (0x1b, 1),
            b'n' | b'r' if backslashes > 0 => return Some(0),
            b'\n' | b'\r' => return Some(0),
            0xc2 => (0x80 | u32::from(*behind.get(1)? & 0x3f), 2),
            _ if backslashes == 0 => (u32::from(next), 1),
            _ => match escaped(behind) {
                Escaped::Cut => return None,
                Escaped::Plain => (u32::from(next), 1),
                Escaped::Code { code, length, .. } => (code, length),
            },
        };
        at += backslashes + length;
        match code {
            7 | 0x9c => return Some(at),
            0x1b => {
                // With a backslash behind it, which escapes double.
                let most = (2 * before).max(1);
                let own = text[at..].iter().take(most).take_while(|b| **b == b'\\').count();
                return (at + own < text.len()).then_some(at + own);
            }
            _ => {}
        }
    }
    Some(0)
}
