//! Contents that Git LFS keeps outside of git: what stands for them in a commit, and where they are on
//! this volume. The format is that of <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// The most bytes that a pointer has.
pub(super) const LONGEST: u64 = 1024;
/// How the agent's own git turns pointers into contents and back. Ours never runs a filter.
pub(super) const FILTER: &[(&str, &str)] = &[
    ("filter.lfs.clean", "git-lfs clean -- %f"),
    ("filter.lfs.smudge", "git-lfs smudge -- %f"),
    ("filter.lfs.process", "git-lfs filter-process"),
    // Without the program, or without the network, a pointer is what the agent sees.
    ("filter.lfs.required", "false"),
];
const VERSIONS: &[&str] =
    &["version https://git-lfs.github.com/spec/v1", "version https://hawser.github.com/spec/v1"];

/// What a commit holds in the place of a large file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pointer {
    /// SHA-256 of the content in hex.
    pub(super) oid: String,
    /// Its size in bytes.
    pub(super) size: u64,
}

impl Pointer {
    /// Reads a pointer; `None` for every other content.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        if content.len() as u64 > LONGEST {
            return None;
        }
        let mut lines = std::str::from_utf8(content).ok()?.lines();
        if !VERSIONS.contains(&lines.next()?) {
            return None;
        }
        let (mut oid, mut size) = (None, None);
        for line in lines {
            match line.split_once(' ')? {
                ("oid", value) => oid = value.strip_prefix("sha256:"),
                ("size", value) => size = value.parse().ok(),
                // Extensions change the content by programs that we do not run.
                _ => return None,
            }
        }
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let oid = oid.filter(|oid| oid.len() == 64 && oid.bytes().all(is_digit))?;
        Some(Self { oid: oid.to_owned(), size: size? })
    }

    /// The pointer as a commit holds it.
    pub(super) fn text(&self) -> String {
        format!("{}\noid sha256:{}\nsize {}\n", VERSIONS[0], self.oid, self.size)
    }

    /// Where its content is in a repository of ours, as the program `git-lfs` has it.
    pub(super) fn place(&self, git_dir: &Path) -> PathBuf {
        let (first, second) = (&self.oid[..2], &self.oid[2..4]);
        git_dir.join("lfs/objects").join(first).join(second).join(&self.oid)
    }

    /// The file with its content, when this repository of ours has it whole.
    pub(super) fn stored(&self, git_dir: &Path) -> Option<PathBuf> {
        let place = self.place(git_dir);
        let whole = |file: fs::Metadata| file.is_file() && file.len() == self.size;
        fs::symlink_metadata(&place).is_ok_and(whole).then_some(place)
    }
}

/// Takes the first `length` bytes of a file of the agent into the store of the trusted repository, as long as
/// `go_on` says so; answers what stands for it. `None`: it is a pointer already, or empty, which stands for
/// itself.
pub(super) fn take(
    source: &mut File,
    length: u64,
    trusted: &Path,
    go_on: &dyn Fn() -> bool,
) -> io::Result<Option<Pointer>> {
    let folder = trusted.join("lfs/incoming");
    fs::create_dir_all(&folder)?;
    let staged = folder.join(uuid::Uuid::new_v4().simple().to_string());
    let taken = take_to(source.take(length), &staged, trusted, go_on);
    if taken.is_err() {
        let _ = fs::remove_file(&staged);
    }
    taken
}

fn take_to(
    mut source: impl Read,
    staged: &Path,
    trusted: &Path,
    go_on: &dyn Fn() -> bool,
) -> io::Result<Option<Pointer>> {
    let mut copy = File::create_new(staged)?;
    let (mut digest, mut size, mut chunk) = (Sha256::new(), 0u64, vec![0; 256 << 10]);
    let mut beginning = Vec::new();
    loop {
        if !go_on() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        if size <= LONGEST {
            beginning.extend_from_slice(&chunk[..read]);
        }
        digest.update(&chunk[..read]);
        copy.write_all(&chunk[..read])?;
        size += read as u64;
    }
    if size == 0 || Pointer::parse(&beginning).is_some() {
        fs::remove_file(staged)?;
        return Ok(None);
    }
    let pointer = Pointer { oid: format!("{:x}", digest.finalize()), size };
    let place = pointer.place(trusted);
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    copy.sync_data()?;
    fs::rename(staged, &place)?;
    Ok(Some(pointer))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Pointer, take};

    const OID: &str = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";

    fn text(middle: &str) -> String {
        format!("version https://git-lfs.github.com/spec/v1\n{middle}")
    }

    #[test]
    fn a_pointer_is_read_and_written_as_git_lfs_does() {
        let whole = text(&format!("oid sha256:{OID}\nsize 12345\n"));
        let pointer = Pointer::parse(whole.as_bytes()).unwrap();
        assert_eq!((pointer.oid.as_str(), pointer.size), (OID, 12345));
        assert_eq!(pointer.text(), whole);
        let place = pointer.place("/r".as_ref());
        assert_eq!(place.to_str(), Some(format!("/r/lfs/objects/4d/7a/{OID}").as_str()));
    }

    #[test]
    fn what_is_no_pointer_is_a_file_like_any_other() {
        let upper = OID.to_uppercase();
        for other in [
            String::new(),
            "version 1\n".to_owned(),
            text(&format!("oid sha256:{OID}\n")),
            text("size 1\n"),
            text(&format!("oid sha256:{upper}\nsize 1\n")),
            text("oid sha256:../../../../etc/passwd\nsize 1\n"),
            text(&format!("oid sha256:{OID}\nsize -1\n")),
            text(&format!("ext-0-x sha256:{OID}\noid sha256:{OID}\nsize 1\n")),
            text(&format!("oid sha256:{OID}\nsize 1\n{}", "x 1\n".repeat(400))),
        ] {
            assert_eq!(Pointer::parse(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(Pointer::parse(b"\xff\xfe"), None);
    }

    #[test]
    fn a_file_is_taken_whole_and_a_pointer_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, trusted) = (folder.path().join("file"), folder.path().join("trusted"));
        let content = vec![7; 700_000];
        fs::write(&file, &content).unwrap();
        let take = |length, go_on: bool| {
            take(&mut fs::File::open(&file).unwrap(), length, &trusted, &|| go_on)
        };
        let pointer = take(700_000, true).unwrap().unwrap();
        assert_eq!(pointer.size, 700_000);
        assert_eq!(fs::read(pointer.stored(&trusted).unwrap()).unwrap(), content);
        assert!(take(700_000, false).is_err(), "nobody waits for it");
        for plain in [String::new(), pointer.text()] {
            fs::write(&file, plain).unwrap();
            assert!(take(4096, true).unwrap().is_none());
        }
        assert_eq!(fs::read_dir(trusted.join("lfs/incoming")).unwrap().count(), 0);
    }
}
