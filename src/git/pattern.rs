//! One pattern of a `.gitignore` or `.gitattributes`, read and matched as git does.

use super::{
    glob::{Glob, Slashes},
    reading::Work,
};

/// A pattern, without the folder of the file it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Whether it takes back what another pattern says.
    pub(super) is_negative: bool,
    folders_only: bool,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// The last part of a path, without wildcards.
    Name(Vec<u8>),
    /// The end of the last part of a path.
    Ending(Vec<u8>),
    /// The last part of a path.
    Names(Glob),
    /// A whole path: its beginning, and what is left of it.
    Path(Vec<u8>, Option<Glob>),
}

impl Pattern {
    /// Reads a pattern.
    pub(super) fn new(text: &[u8]) -> Self {
        let is_negative = text.first() == Some(&b'!');
        let text = &text[usize::from(is_negative)..];
        let folders_only = text.last() == Some(&b'/');
        let body = &text[..text.len() - usize::from(folders_only)];
        let plain = plain_length(body);
        let form = if body.contains(&b'/') {
            let (body, plain) = match body.strip_prefix(b"/") {
                Some(body) => (body, plain - 1),
                None => (body, plain),
            };
            // What is left is a pattern of its own: stars at its beginning count as if nothing stood before.
            let rest = (plain < body.len() || plain == 0)
                .then(|| Glob::new(&body[plain..], Slashes::Separate));
            Form::Path(body[..plain].to_vec(), rest)
        } else if plain == body.len() {
            Form::Name(body.to_vec())
        } else if body[0] == b'*' && plain_length(&text[1..]) == text.len() - 1 {
            Form::Ending(body[1..].to_vec())
        } else {
            Form::Names(Glob::new(body, Slashes::Ordinary))
        };
        Self { is_negative, folders_only, form }
    }

    /// Whether it speaks of a path below the folder of its file.
    pub(super) fn matches(&self, path: &[u8], is_folder: bool, work: &Work) -> bool {
        if (self.folders_only && !is_folder) || !work.charge(1) {
            return false;
        }
        let name = || path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        match &self.form {
            Form::Name(expected) => name() == expected.as_slice(),
            Form::Ending(end) => name().ends_with(end),
            Form::Names(glob) => glob.matches(name(), work),
            Form::Path(beginning, rest) => {
                path.strip_prefix(beginning.as_slice()).is_some_and(|left| match rest {
                    Some(glob) => glob.matches(left, work),
                    None => left.is_empty(),
                })
            }
        }
    }
}

/// How much of a pattern has no special letter.
fn plain_length(text: &[u8]) -> usize {
    text.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\')).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::Pattern;
    use crate::git::reading::Work;

    #[test]
    fn a_pattern_without_a_slash_speaks_of_names_and_one_with_it_of_paths() {
        let matches = |text: &str, path: &str, is_folder| {
            Pattern::new(text.as_bytes()).matches(path.as_bytes(), is_folder, &Work::unlimited())
        };
        assert!(matches("lib/", "web/lib", true) && !matches("lib/", "web/lib", false));
        assert!(matches("/lib", "lib", false) && !matches("/lib", "web/lib", false));
        assert!(matches("web/lib", "web/lib", true) && !matches("web/lib", "x/web/lib", true));
        assert!(matches("*.log", "a/b.log", false) && matches("a*.log", "x/ab.log", false));
        assert!(matches("foo**/bar", "foox/y/bar", false), "as git has it");
        for odd in ["", "!", "/", "!/", "//"] {
            assert!(!matches(odd, "x", true), "{odd:?}");
        }
    }
}
