//! Lines come out the same however the bytes are cut, and as a plain split says.
#![no_main]

use archon_awo_fuzz::agent::frames::{Frame, Framer};
use libfuzzer_sys::fuzz_target;

/// What is expected of a whole text.
fn plain(text: &[u8], longest: usize, head: usize) -> Vec<Frame> {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let cut = |line: &[u8]| {
        if line.len() > longest {
            return Frame { bytes: line[..head].to_vec(), truncated: true };
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Frame { bytes: line.to_vec(), truncated: false }
    };
    lines.into_iter().map(cut).collect()
}

fuzz_target!(|input: (u8, u8, Vec<u8>, &[u8])| {
    let (longest, head, cuts, text) = input;
    let longest = usize::from(longest);
    let head = usize::from(head).min(longest);
    let mut framer = Framer::with_limits(longest, head);
    let (mut frames, mut rest) = (Vec::new(), text);
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(cut).min(rest.len()));
        frames.extend(framer.push(piece));
        rest = after;
    }
    frames.extend(framer.push(rest));
    frames.extend(framer.finish());
    // A last line of which nothing is kept is no line.
    let mut expected = plain(text, longest, head);
    if head == 0 && !text.ends_with(b"\n") && expected.last().is_some_and(|last| last.truncated) {
        expected.pop();
    }
    assert_eq!(frames, expected);
});
