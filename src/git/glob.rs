//! Wildcards of git: the same answers as git's own matcher, in time bounded by the product of the lengths of
//! pattern and name, whatever an agent writes as a pattern.

use super::reading::Work;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    parts: Vec<Part>,
    /// How many of them may stand for nothing.
    open_parts: usize,
    slashes: Slashes,
}

/// What a slash in a name is for wildcards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slashes {
    /// A letter like any other.
    Ordinary,
    /// The end of a name: only `**` goes past it.
    Separate,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Some,
    /// `**`
    All,
    /// `**/`: what follows may also begin right here. The two parts behind it are `All` and a slash.
    Folders,
    Class {
        negated: bool,
        members: Vec<Member>,
    },
    /// Something malformed: it matches nothing.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    Byte(u8),
    Range(u8, u8),
    Named(Named),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Alphanumeric,
    Alphabetic,
    Blank,
    Control,
    Digit,
    Graphic,
    Lower,
    Printed,
    Punctuation,
    Space,
    Upper,
    HexDigit,
}

impl Glob {
    /// Compiles a pattern.
    pub(super) fn new(pattern: &[u8], slashes: Slashes) -> Self {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            match byte {
                b'?' => parts.push(Part::One),
                b'*' => at = stars(pattern, at, slashes, &mut parts),
                b'\\' => match pattern.get(at) {
                    Some(&escaped) => {
                        parts.push(Part::Byte(escaped));
                        at += 1;
                    }
                    None => parts.push(Part::Never),
                },
                b'[' => {
                    let (class, end) = class(pattern, at).unwrap_or((Part::Never, pattern.len()));
                    parts.push(class);
                    at = end;
                }
                other => parts.push(Part::Byte(other)),
            }
        }
        let may_be_nothing = |part: &&Part| matches!(part, Part::Some | Part::All | Part::Folders);
        // The slash behind `**` in `**/` goes with it.
        let folders = parts.iter().filter(|part| matches!(part, Part::Folders)).count();
        let open_parts = parts.iter().filter(may_be_nothing).count() + folders;
        Self { parts, open_parts, slashes }
    }

    /// Whether all of `name` is what the pattern says; `work` pays for it, and without any it is not.
    pub(super) fn matches(&self, name: &[u8], work: &Work) -> bool {
        let end = self.parts.len();
        // What takes one letter each is more than there are.
        if end > self.open_parts + name.len() || !self.may_match(name) || !work.charge(end) {
            return false;
        }
        // The places in the pattern that the name so far may have led to.
        let (mut now, mut next) = (vec![false; end + 1], vec![false; end + 1]);
        now[0] = true;
        self.skip(&mut now);
        for &byte in name {
            if !work.charge(end) {
                return false;
            }
            next.fill(false);
            let mut alive = false;
            for (at, part) in self.parts.iter().enumerate().filter(|(at, _)| now[*at]) {
                let to = match part {
                    Part::Some if !self.is_border(byte) => at,
                    Part::All => at,
                    Part::Byte(expected) if *expected == byte => at + 1,
                    Part::One if !self.is_border(byte) => at + 1,
                    Part::Class { negated, members }
                        if !self.is_border(byte) && *negated != holds(members, byte) =>
                    {
                        at + 1
                    }
                    _ => continue,
                };
                next[to] = true;
                alive = true;
            }
            if !alive {
                return false;
            }
            self.skip(&mut next);
            std::mem::swap(&mut now, &mut next);
        }
        now[end]
    }

    /// Whether the letters at both ends are those of the pattern, which is soon seen.
    fn may_match(&self, name: &[u8]) -> bool {
        let fits = |part: Option<&Part>, byte: Option<&u8>| match part {
            // One of these may go together with what stands before it.
            Some(Part::Byte(b'/')) => true,
            Some(Part::Byte(expected)) => byte == Some(expected),
            _ => true,
        };
        fits(self.parts.first(), name.first()) && fits(self.parts.last(), name.last())
    }

    fn is_border(&self, byte: u8) -> bool {
        byte == b'/' && self.slashes == Slashes::Separate
    }

    /// Adds the places that are reached without another letter.
    fn skip(&self, places: &mut [bool]) {
        for (at, part) in self.parts.iter().enumerate() {
            if places[at] {
                match part {
                    Part::Some | Part::All => places[at + 1] = true,
                    Part::Folders => {
                        places[at + 1] = true;
                        places[at + 3] = true;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Reads a run of stars, of which one stands before `at`; answers where the pattern goes on.
fn stars(pattern: &[u8], at: usize, slashes: Slashes, parts: &mut Vec<Part>) -> usize {
    let begin = at - 1;
    let mut end = at;
    while pattern.get(end) == Some(&b'*') {
        end += 1;
    }
    let is_double = end - begin > 1;
    let opens = begin == 0 || pattern[begin - 1] == b'/';
    let rest = &pattern[end..];
    let closes = rest.is_empty() || rest.starts_with(b"/") || rest.starts_with(b"\\/");
    if slashes == Slashes::Separate && is_double && opens && closes {
        if rest.starts_with(b"/") {
            parts.extend([Part::Folders, Part::All, Part::Byte(b'/')]);
            return end + 1;
        }
        parts.push(Part::All);
    } else {
        parts.push(Part::Some);
    }
    end
}

/// Reads a class, whose bracket stands before `at`; `None` when it is malformed.
fn class(pattern: &[u8], mut at: usize) -> Option<(Part, usize)> {
    let negated = matches!(pattern.get(at)?, b'!' | b'^');
    at += usize::from(negated);
    let mut members = Vec::new();
    // The letter that a range would begin with.
    let mut last = None;
    let mut first = true;
    loop {
        let byte = *pattern.get(at)?;
        at += 1;
        if byte == b']' && !first {
            return Some((Part::Class { negated, members }, at));
        }
        first = false;
        let after = pattern.get(at);
        if byte == b'\\' {
            let escaped = *after?;
            at += 1;
            members.push(Member::Byte(escaped));
            last = Some(escaped);
        } else if let (b'-', Some(from), Some(_)) =
            (byte, last, after.filter(|after| **after != b']'))
        {
            let mut to = *pattern.get(at)?;
            at += 1;
            if to == b'\\' {
                to = *pattern.get(at)?;
                at += 1;
            }
            members.push(Member::Range(from, to));
            last = None;
        } else if byte == b'[' && after == Some(&b':') {
            let rest = &pattern[at + 1..];
            let end = rest.iter().position(|byte| *byte == b']')?;
            if let Some(name) = rest[..end].strip_suffix(b":") {
                members.push(Member::Named(Named::of(name)?));
                at += 1 + end + 1;
                last = None;
            } else {
                members.push(Member::Byte(b'['));
                last = Some(b'[');
            }
        } else {
            members.push(Member::Byte(byte));
            last = Some(byte);
        }
    }
}

fn holds(members: &[Member], byte: u8) -> bool {
    members.iter().any(|member| match member {
        Member::Byte(one) => *one == byte,
        Member::Range(from, to) => (*from..=*to).contains(&byte),
        Member::Named(class) => class.holds(byte),
    })
}

impl Named {
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"alnum" => Self::Alphanumeric,
            b"alpha" => Self::Alphabetic,
            b"blank" => Self::Blank,
            b"cntrl" => Self::Control,
            b"digit" => Self::Digit,
            b"graph" => Self::Graphic,
            b"lower" => Self::Lower,
            b"print" => Self::Printed,
            b"punct" => Self::Punctuation,
            b"space" => Self::Space,
            b"upper" => Self::Upper,
            b"xdigit" => Self::HexDigit,
            _ => return None,
        })
    }

    /// The letters of the class, as git has them.
    fn holds(self, byte: u8) -> bool {
        match self {
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Alphabetic => byte.is_ascii_alphabetic(),
            Self::Blank => matches!(byte, b' ' | b'\t'),
            Self::Control => byte.is_ascii_control(),
            Self::Digit => byte.is_ascii_digit(),
            Self::Graphic => byte.is_ascii_graphic(),
            Self::Lower => byte.is_ascii_lowercase(),
            Self::Printed => byte.is_ascii_graphic() || byte == b' ',
            Self::Punctuation => byte.is_ascii_punctuation(),
            Self::Space => matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
            Self::Upper => byte.is_ascii_uppercase(),
            Self::HexDigit => byte.is_ascii_hexdigit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Glob, Slashes};
    use crate::git::reading::Work;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern.as_bytes(), Slashes::Separate)
            .matches(name.as_bytes(), &Work::unlimited())
    }

    #[test]
    fn stars_stop_at_slashes_and_double_ones_do_not() {
        for (pattern, name) in [
            ("*.c", "a.c"),
            ("a/*/c", "a/b/c"),
            ("**/c", "c"),
            ("**/c", "a/b/c"),
            ("a/**/c", "a/c"),
            ("a/**/c", "a/x/y/c"),
            ("a/**", "a/x/y"),
            ("**/**/c", "c"),
            ("a?c", "abc"),
            ("[]-]x", "]x"),
            ("[!a-c]", "d"),
            ("[[:digit:]-]", "-"),
            ("\\*", "*"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.c", "a/b.c"),
            ("a**c", "a/c"),
            ("a/**/c", "ac"),
            ("a/**", "a"),
            ("a?c", "a/c"),
            ("a[!x]c", "a/c"),
            ("[a", "a"),
            ("[[:nothing:]]", "a"),
            ("a\\", "a\\"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length() {
        let name = "a/".repeat(2000);
        assert!(!matches(&format!("{}b", "**/*a*".repeat(400)), &name));
        assert!(!matches(&format!("{}b", "**/".repeat(400)), &name));
    }
}
