//! The patterns of one `.gitignore`, and what they say of a path.

use super::{pattern::Pattern, reading::Work};

/// What one file with patterns says; the last pattern that speaks of a path decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct IgnoreRules(Vec<Pattern>);

impl IgnoreRules {
    /// Reads a file as git does.
    pub(super) fn parse(content: &[u8]) -> Self {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let mut lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
        // What follows the last line break is a line only when it is not empty.
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        let patterns = lines
            .into_iter()
            .filter(|line| !line.is_empty() && line[0] != b'#')
            .map(|line| Pattern::new(without_trailing_blanks(text_of(line))));
        Self(patterns.collect())
    }

    /// Whether it says nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many patterns there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a path below the folder of the file is ignored; `None`: it does not say.
    pub(super) fn verdict(&self, path: &[u8], is_folder: bool, work: &Work) -> Option<bool> {
        let last = self.0.iter().rev().find(|pattern| pattern.matches(path, is_folder, work))?;
        Some(!last.is_negative)
    }
}

/// A line without the end that Windows gives it; git stops at a NUL.
fn text_of(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Blanks at the end do not count unless a backslash stands before them.
fn without_trailing_blanks(line: &[u8]) -> &[u8] {
    let (mut end, mut at) = (None, 0);
    while let Some(byte) = line.get(at) {
        match byte {
            b' ' => {
                end.get_or_insert(at);
            }
            b'\\' => {
                at += 1;
                if at == line.len() {
                    return line;
                }
                end = None;
            }
            _ => end = None,
        }
        at += 1;
    }
    &line[..end.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::IgnoreRules;
    use crate::git::reading::Work;

    #[test]
    fn the_last_pattern_decides_and_odd_lines_are_read_as_git_reads_them() {
        let rules = IgnoreRules::parse(
            b"\xef\xbb\xbf*.log\r\n!keep.log  \n# no\n\\#yes\nblank\\ \ncut\0off\nlast",
        );
        let work = Work::unlimited();
        let verdict = |path: &str| rules.verdict(path.as_bytes(), false, &work);
        assert_eq!(verdict("a/x.log"), Some(true));
        assert_eq!(verdict("a/keep.log"), Some(false));
        assert_eq!(verdict("# no"), None);
        for path in ["#yes", "blank ", "cut", "last"] {
            assert_eq!(verdict(path), Some(true), "{path}");
        }
    }
}
