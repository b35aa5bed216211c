//! Files of an agent on their way to where they are kept: without secrets, at any length and in little memory.

use std::io::{self, Read};

use crate::domain::{RedactStream, Redactor};

/// Bytes that are looked at together.
const CHUNK: usize = 1 << 20;

/// What is cut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Everything that a log is kept clean of.
    Everything,
    /// The same, but only in files that a commit would be refused for: others may have to stay as they are.
    WhereKnown,
}

/// How a file is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// As it is.
    Whole,
    /// Through [`Redacted`], which then has so many bytes.
    Redacted(u64),
}

/// Reads a file to its end, to say how it is to be kept.
pub(crate) fn judge(mut file: impl Read, redactor: &Redactor, cut: Cut) -> io::Result<Kept> {
    let (mut stream, mut length, mut read) = (redactor.stream(), 0, 0);
    let (mut known, mut differs) = (false, false);
    let (mut chunk, mut search) = (vec![0; CHUNK], redactor.search());
    let mut before = Vec::new();
    loop {
        let count = file.read(&mut chunk)?;
        let bytes = &chunk[..count];
        read += count as u64;
        let out =
            if count == 0 { std::mem::take(&mut stream).finish() } else { stream.push(bytes) };
        length += out.len() as u64;
        // What comes out is what went in, a little later, as long as nothing is cut.
        before.extend_from_slice(bytes);
        differs = differs || !before.starts_with(&out);
        before.drain(..out.len().min(before.len()));
        if cut == Cut::WhereKnown && !known {
            known = match count {
                0 => std::mem::take(&mut search).finish(),
                _ => search.push(bytes),
            };
        }
        if count == 0 {
            let is_cut = (differs || length != read) && (known || cut == Cut::Everything);
            return Ok(if is_cut { Kept::Redacted(length) } else { Kept::Whole });
        }
    }
}

/// Whether a file of any length holds a secret that a commit would be refused for.
pub(crate) fn holds_secret(mut file: impl Read, redactor: &Redactor) -> io::Result<bool> {
    let (mut search, mut chunk) = (redactor.search(), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(search.finish()),
            count if search.push(&chunk[..count]) => return Ok(true),
            _ => {}
        }
    }
}

/// A file without secrets.
pub(crate) struct Redacted<R> {
    file: R,
    stream: Option<RedactStream>,
    ready: Vec<u8>,
    given: usize,
}

impl<R: Read> Redacted<R> {
    pub(crate) fn new(file: R, redactor: &Redactor) -> Self {
        Self { file, stream: Some(redactor.stream()), ready: Vec::new(), given: 0 }
    }
}

impl<R: Read> Read for Redacted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() {
            let Some(stream) = &mut self.stream else { return Ok(0) };
            let mut chunk = vec![0; CHUNK];
            let count = self.file.read(&mut chunk)?;
            self.given = 0;
            self.ready = match count {
                0 => self.stream.take().map(RedactStream::finish).unwrap_or_default(),
                _ => stream.push(&chunk[..count]),
            };
        }
        let count = buffer.len().min(self.ready.len() - self.given);
        buffer[..count].copy_from_slice(&self.ready[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{CHUNK, Cut, Kept, Redacted, judge};
    use crate::domain::Redactor;

    const SECRET: &str = "k3y-0123456789-abcdefghij";
    const TOKEN: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

    fn kept(content: &[u8], cut: Cut) -> Option<Vec<u8>> {
        let redactor = Redactor::new([SECRET.to_owned().into()]);
        let Kept::Redacted(length) = judge(content, &redactor, cut).unwrap() else { return None };
        let mut out = Vec::new();
        Redacted::new(content, &redactor).read_to_end(&mut out).unwrap();
        assert_eq!(out.len() as u64, length);
        Some(out)
    }

    #[test]
    fn a_secret_is_cut_out_wherever_it_stands() {
        for before in [0, 7, CHUNK - 3, CHUNK, 2 * CHUNK - 1] {
            let text = format!("{}{SECRET} end", "x".repeat(before));
            for cut in [Cut::Everything, Cut::WhereKnown] {
                let out = kept(text.as_bytes(), cut).unwrap();
                assert!(out.ends_with(b"[redacted] end"), "{before}");
            }
        }
    }

    #[test]
    fn files_without_secrets_are_whole_and_examples_stay_in_a_checkout() {
        let long = "x".repeat(2 * CHUNK + 5);
        for content in ["", "text", long.as_str()] {
            assert_eq!(kept(content.as_bytes(), Cut::Everything), None);
        }
        let example = format!("token = {TOKEN}\n");
        assert_eq!(kept(example.as_bytes(), Cut::WhereKnown), None);
        assert_eq!(kept(example.as_bytes(), Cut::Everything).unwrap(), b"token = [redacted]\n");
        // As long as what stands in its place.
        let weak = Redactor::new(["k3y-98XqZ7".to_owned().into()]);
        let judged = judge(&b"a k3y-98XqZ7 b"[..], &weak, Cut::Everything).unwrap();
        assert_eq!(judged, Kept::Redacted(14));
    }
}
