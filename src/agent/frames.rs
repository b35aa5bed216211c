//! Cuts a byte stream into lines without ever holding more than a fixed amount of it.
//!
//! Bytes, not text: a line may hold NUL, half a character or 50 MB, and the run goes on.

/// Longest line that is kept whole, in bytes. The agent's largest real lines (images and files in
/// tool results) are some megabytes.
pub const LONGEST_LINE: usize = 16 * 1024 * 1024;
/// How much of a longer line is kept, in bytes: enough to see what it was.
pub const KEPT_HEAD: usize = 64 * 1024;

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes; only the beginning when it was cut.
    pub bytes: Vec<u8>,
    /// Whether it was longer than the limit.
    pub truncated: bool,
}

/// Bytes in, lines out; where the bytes are cut into chunks makes no difference.
#[derive(Debug)]
pub struct Framer {
    line: Vec<u8>,
    longest: usize,
    head: usize,
    truncated: bool,
}

impl Default for Framer {
    fn default() -> Self {
        Self::with_limits(LONGEST_LINE, KEPT_HEAD)
    }
}

impl Framer {
    /// A framer with its own limits: lines over `longest` bytes are cut to `head` bytes.
    pub fn with_limits(longest: usize, head: usize) -> Self {
        Self { line: Vec::new(), longest, head: head.min(longest), truncated: false }
    }

    /// Takes the next bytes and returns the lines they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if let Some(end) = piece.strip_suffix(b"\n") {
                self.extend(end);
                frames.push(self.cut());
            } else {
                self.extend(piece);
            }
        }
        frames
    }

    /// Ends the stream and returns a last line that had no end.
    pub fn finish(mut self) -> Option<Frame> {
        (!self.line.is_empty()).then(|| self.cut())
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.truncated {
            return;
        }
        if self.line.len() + bytes.len() > self.longest {
            let missing = self.head.saturating_sub(self.line.len()).min(bytes.len());
            self.line.extend_from_slice(&bytes[..missing]);
            self.line.truncate(self.head);
            self.line.shrink_to_fit();
            self.truncated = true;
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn cut(&mut self) -> Frame {
        let mut bytes = std::mem::take(&mut self.line);
        let truncated = std::mem::take(&mut self.truncated);
        if !truncated && bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Frame { bytes, truncated }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Frame, Framer};

    fn cut_up(mut framer: Framer, chunks: impl Iterator<Item = Vec<u8>>) -> Vec<Frame> {
        let mut all: Vec<Frame> = chunks.flat_map(|chunk| framer.push(&chunk)).collect();
        all.extend(framer.finish());
        all
    }

    fn whole(text: &[u8]) -> Frame {
        Frame { bytes: text.to_vec(), truncated: false }
    }

    #[test]
    fn lines_end_at_newlines_and_the_last_may_have_none() {
        let all = cut_up(Framer::default(), [b"a\r\n\nb\xff\0c".to_vec()].into_iter());
        assert_eq!(all, [whole(b"a"), whole(b""), whole(b"b\xff\0c")]);
    }

    #[test]
    fn a_line_over_the_limit_keeps_its_head_and_the_next_is_whole() {
        let all =
            cut_up(Framer::with_limits(8, 3), [b"123456789\n12345678\n".to_vec()].into_iter());
        assert_eq!(all, [Frame { bytes: b"123".to_vec(), truncated: true }, whole(b"12345678")]);
    }

    proptest! {
        #[test]
        fn chunk_borders_make_no_difference(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            size in 1..40usize,
        ) {
            let at_once = cut_up(Framer::with_limits(12, 5), [text.clone()].into_iter());
            let pieces = text.chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>();
            prop_assert_eq!(cut_up(Framer::with_limits(12, 5), pieces.into_iter()), at_once);
        }
    }
}
