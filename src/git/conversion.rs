//! What git does to the bytes of a file on the way into a commit: encoding, line endings, `$Id$`.

use std::borrow::Cow;

use super::{
    attributes::{Attributes, Value},
    encoding::{self, WorkingEncoding},
};

/// Longer files, in bytes, are stored as they are: forges take none of this size outside of Git LFS.
pub(super) const LONGEST: u64 = 128 << 20;

/// What the attributes of a file ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conversion {
    endings: Endings,
    ident: bool,
    encoding: Option<WorkingEncoding>,
    /// Whether Git LFS keeps the content.
    pub(super) is_lfs: bool,
}

/// What becomes of CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endings {
    /// It stays.
    Kept,
    /// It becomes LF.
    Unix,
    /// It becomes LF in text, unless the committed file has CRLF already.
    Guessed,
}

/// What a content consists of.
#[derive(Debug, Default)]
struct Census {
    crlf: u64,
    lone_cr: u64,
    nul: u64,
    printable: u64,
    other: u64,
}

impl Conversion {
    /// Reads the attributes of a file.
    ///
    /// # Errors
    /// A sentence's end: why its encoding is none.
    pub(super) fn of(attributes: &Attributes<'_>) -> Result<Self, String> {
        let is_text = |value: Option<&Value>, text: &str| matches!(value, Some(Value::Text(found)) if found == text.as_bytes());
        Ok(Self {
            endings: endings(attributes),
            ident: attributes.get("ident") == Some(&Value::True),
            encoding: encoding::of(attributes)?,
            is_lfs: is_text(attributes.get("filter"), "lfs"),
        })
    }

    /// Files are stored as they are.
    pub(super) const fn none() -> Self {
        Self { endings: Endings::Kept, ident: false, encoding: None, is_lfs: false }
    }

    /// Whether the file is in another encoding than its commit.
    pub(super) fn is_encoded(self) -> bool {
        self.encoding.is_some()
    }

    /// The content as git commits it; `before` is asked for the content the branch has.
    ///
    /// # Errors
    /// A sentence's end: why it cannot be.
    pub(super) fn apply(
        self,
        content: &[u8],
        before: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<Cow<'_, [u8]>, String> {
        let mut content = match self.encoding {
            Some(encoding) if !content.is_empty() => Cow::Owned(encoding.decode(content)?),
            _ => Cow::Borrowed(content),
        };
        if self.endings != Endings::Kept {
            let census = Census::of(&content);
            let is_guess = self.endings == Endings::Guessed;
            let has_crlf = |content: &[u8]| {
                let census = Census::of(content);
                census.crlf > 0 && !census.is_binary()
            };
            let stays = is_guess
                && census.crlf > 0
                && (census.is_binary() || before().is_some_and(|before| has_crlf(&before)));
            if census.crlf > 0 && !stays {
                content = Cow::Owned(without_crlf(&content));
            }
        }
        Ok(if self.ident { Cow::Owned(without_ident(&content)) } else { content })
    }
}

fn endings(attributes: &Attributes<'_>) -> Endings {
    enum Text {
        Yes,
        No,
        Guess,
        Input,
    }
    let read = |name| match attributes.get(name) {
        Some(Value::True) => Some(Text::Yes),
        Some(Value::False) => Some(Text::No),
        Some(Value::Text(text)) if text == b"auto" => Some(Text::Guess),
        Some(Value::Text(text)) if text == b"input" => Some(Text::Input),
        _ => None,
    };
    let has_eol = matches!(attributes.get("eol"),
        Some(Value::Text(text)) if text == b"lf" || text == b"crlf");
    match read("text").or_else(|| read("crlf")) {
        Some(Text::Guess) => Endings::Guessed,
        Some(Text::Yes | Text::Input) => Endings::Unix,
        None if has_eol => Endings::Unix,
        None | Some(Text::No) => Endings::Kept,
    }
}

impl Census {
    fn of(content: &[u8]) -> Self {
        let mut census = Self::default();
        let mut bytes = content.iter().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\r' if bytes.next_if_eq(&&b'\n').is_some() => census.crlf += 1,
                b'\r' => census.lone_cr += 1,
                b'\n' => {}
                8 | b'\t' | 27 | 12 => census.printable += 1,
                0 => {
                    census.nul += 1;
                    census.other += 1;
                }
                127 | 1..32 => census.other += 1,
                _ => census.printable += 1,
            }
        }
        // The end of a file in DOS.
        if content.last() == Some(&26) {
            census.other -= 1;
        }
        census
    }

    fn is_binary(&self) -> bool {
        self.lone_cr > 0 || self.nul > 0 || self.printable >> 7 < self.other
    }
}

fn without_crlf(content: &[u8]) -> Vec<u8> {
    let mut converted = Vec::with_capacity(content.len());
    for (at, byte) in content.iter().enumerate() {
        if *byte != b'\r' || content.get(at + 1) != Some(&b'\n') {
            converted.push(*byte);
        }
    }
    converted
}

/// `$Id: something $` becomes `$Id$`.
fn without_ident(content: &[u8]) -> Vec<u8> {
    let mut converted = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        converted.extend_from_slice(&rest[..=at]);
        rest = &rest[at + 1..];
        let Some(inner) = rest.strip_prefix(b"Id:") else { continue };
        let Some(end) = inner.iter().position(|byte| *byte == b'$') else { break };
        if !inner[..end].contains(&b'\n') {
            converted.extend_from_slice(b"Id$");
            rest = &inner[end + 1..];
        }
    }
    converted.extend_from_slice(rest);
    converted
}

#[cfg(test)]
mod tests {
    use super::{Conversion, without_ident};
    use crate::git::{
        attributes::{AttributeRules, Attributes},
        reading::Work,
    };

    fn converted(rules: &str, content: &[u8], before: Option<&[u8]>) -> Vec<u8> {
        let rules = AttributeRules::parse(format!("* {rules}\n").as_bytes(), true);
        let attributes = Attributes::of(&[(&rules, b"x")], &Work::unlimited());
        let conversion = Conversion::of(&attributes).unwrap();
        conversion.apply(content, || before.map(<[u8]>::to_vec)).unwrap().into_owned()
    }

    #[test]
    fn line_endings_become_those_of_a_commit() {
        assert_eq!(converted("text", b"a\r\nb\rc\r\n", None), b"a\nb\rc\n");
        assert_eq!(converted("eol=crlf", b"a\r\n", None), b"a\n");
        assert_eq!(converted("text=auto", b"a\r\nb\n", None), b"a\nb\n");
        assert_eq!(converted("text=auto", b"a\r\n\0", None), b"a\r\n\0");
        assert_eq!(converted("text=auto", b"a\r\n", Some(b"b\r\n")), b"a\r\n");
        assert_eq!(converted("-text eol=lf", b"a\r\n", None), b"a\r\n");
        assert_eq!(converted("text working-tree-encoding=UTF-16LE", b"a\0\r\0\n\0", None), b"a\n");
    }

    #[test]
    fn an_expanded_ident_is_folded() {
        assert_eq!(
            without_ident(b"$Id: 12 $ $Id$ $Id: a\n$ $Ix: $ $Id: z"),
            b"$Id$ $Id$ $Id: a\n$ $Ix: $ $Id: z"
        );
    }
}
