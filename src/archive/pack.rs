//! Folders of an agent as one compressed stream, and back: files, folders and links, nothing else, and no
//! more of them than a limit allows.

use std::{
    fs,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use crate::{
    disk::{About, Beneath, Cut, Kept, Kind, Redacted, judge},
    domain::Redactor,
};

/// Deepest nesting of folders: the walk calls itself.
const DEPTH: usize = 256;
/// Most files, folders and links, as many as a checkout may have.
const MOST: u64 = 4_000_000;

/// What a stream holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Packed {
    /// Files, folders and links.
    pub(super) entries: u64,
    /// Bytes of the files.
    pub(super) bytes: u64,
    /// Whether the limit ended it: the stream is of no use then.
    pub(super) over_limit: bool,
}

/// Writes folders, each under a name of its own, to `out`. No link is followed; devices, pipes and
/// sockets are left out. It ends early when the files have more than `limit` bytes.
pub(super) fn pack<W: Write>(
    folders: &[Folder],
    limit: u64,
    redactor: &Redactor,
    out: W,
) -> io::Result<(Packed, W)> {
    let mut builder = Builder::new(GzEncoder::new(out, Compression::fast()));
    builder.follow_symlinks(false);
    let mut packed = Packed::default();
    for Folder { name, path, cut } in folders {
        let how = How { limit, redactor, cut: *cut };
        let top = match Beneath::open(path) {
            Ok(top) => top,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let name = Path::new(name);
        builder.append_data(
            &mut header(&top.itself()?, EntryType::Directory),
            name,
            io::empty(),
        )?;
        packed.entries += 1;
        fill(&mut builder, name, &top, &how, &mut packed, 0)?;
    }
    let out = builder.into_inner()?.finish()?;
    Ok((packed, out))
}

/// A folder, and what it is called in the stream.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) cut: Cut,
}

struct How<'a> {
    limit: u64,
    redactor: &'a Redactor,
    cut: Cut,
}

/// Adds what is in a folder.
fn fill<W: Write>(
    builder: &mut Builder<W>,
    name: &Path,
    folder: &Beneath,
    how: &How<'_>,
    packed: &mut Packed,
    depth: usize,
) -> io::Result<()> {
    if depth > DEPTH {
        return Err(io::Error::other(format!("{} is nested too deeply", name.display())));
    }
    let (mut names, mut seen) = (Vec::new(), packed.entries);
    folder.names(|name| {
        names.push(name.to_owned());
        seen += 1;
        seen <= MOST
    })?;
    if seen > MOST {
        return Err(io::Error::other(format!("there are more than {MOST} files")));
    }
    for below in names {
        add(builder, name, Path::new(&below), folder, how, packed, depth)?;
        if packed.over_limit {
            break;
        }
    }
    Ok(())
}

fn add<W: Write>(
    builder: &mut Builder<W>,
    above: &Path,
    name: &Path,
    folder: &Beneath,
    how: &How<'_>,
    packed: &mut Packed,
    depth: usize,
) -> io::Result<()> {
    let shown = above.join(name);
    let about = match folder.about(name) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match about.kind {
        Kind::Folder => {
            let below = folder.folder(name)?;
            let mut header = header(&below.itself()?, EntryType::Directory);
            builder.append_data(&mut header, &shown, io::empty())?;
            packed.entries += 1;
            return fill(builder, &shown, &below, how, packed, depth + 1);
        }
        Kind::Link => {
            let (target, about) = folder.link(name)?;
            builder.append_link(&mut header(&about, EntryType::Symlink), &shown, target)?;
            packed.entries += 1;
        }
        Kind::File => {
            let (mut file, about) = folder.file(name)?;
            packed.bytes = packed.bytes.saturating_add(about.size);
            if packed.bytes > how.limit {
                packed.over_limit = true;
                return Ok(());
            }
            let judged = judge((&file).take(about.size), how.redactor, how.cut)?;
            file.rewind()?;
            let content = file.take(about.size);
            let (length, content): (u64, Box<dyn Read>) = match judged {
                Kept::Whole => (about.size, Box::new(content)),
                Kept::Redacted(length) => (length, Box::new(Redacted::new(content, how.redactor))),
            };
            let mut header = header(&about, EntryType::Regular);
            header.set_size(length);
            header.set_cksum();
            // Exactly as many bytes as were announced, whatever the file has become.
            builder.append_data(&mut header, &shown, content.chain(io::repeat(0)).take(length))?;
            packed.entries += 1;
        }
        Kind::Socket | Kind::Pipe | Kind::Device | Kind::Mount => {}
    }
    Ok(())
}

/// Permissions and time; no owner, no special bits.
fn header(about: &About, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(about.mode & 0o777);
    header.set_mtime(u64::try_from(about.modified.0).unwrap_or_default());
    header.set_size(0);
    header.set_cksum();
    header
}

/// Reads a stream of [`pack`] into the empty folder `into`. Entries that lead outside, and kinds that
/// `pack` does not write, are refused; so is more than `limit` bytes.
pub(super) fn unpack(stream: impl Read, limit: u64, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(ShortNames::new(GzDecoder::new(stream)));
    archive.set_preserve_permissions(false);
    archive.set_overwrite(false);
    let refuse = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut bytes = 0u64;
    // Folders get their permissions last: one that may not be written has files too.
    let mut folders = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        bytes = bytes.saturating_add(entry.size());
        if bytes > limit {
            return Err(refuse(format!("it holds more than {limit} bytes")));
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                folders.push((into.join(&name), entry.header().mode()?));
            }
            EntryType::Regular | EntryType::Symlink => {}
            other => return Err(refuse(format!("{} is of kind {other:?}", name.display()))),
        }
        let folder = entry.header().entry_type() == EntryType::Directory;
        if !entry.unpack_in(into)? {
            return Err(refuse(format!("{} leads outside", name.display())));
        }
        if folder {
            set_mode(&into.join(&name), 0o700)?;
        }
    }
    for (folder, mode) in folders.iter().rev() {
        set_mode(folder, mode & 0o777)?;
    }
    Ok(())
}

/// Longest name or target in an entry of its own, in bytes; the system takes 4096.
const LONGEST_NAME: u64 = 8192;
/// What a tar archive is made of, in bytes.
const BLOCK: usize = 512;

/// A tar archive on its way to the reader, which keeps a long name in memory as a whole and takes extended
/// headers of any size: names have an end here, and headers that [`pack`] does not write are refused.
struct ShortNames<R> {
    inner: R,
    header: Vec<u8>,
    /// Bytes until the next header.
    content: u64,
}

impl<R> ShortNames<R> {
    fn new(inner: R) -> Self {
        Self { inner, header: Vec::with_capacity(BLOCK), content: 0 }
    }

    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
            bytes = &bytes[skipped..];
            self.content -= skipped as u64;
            let of_header = bytes.len().min(BLOCK - self.header.len());
            self.header.extend_from_slice(&bytes[..of_header]);
            bytes = &bytes[of_header..];
            if self.header.len() == BLOCK {
                self.content = content_behind(&self.header)?;
                self.header.clear();
            }
        }
        Ok(())
    }
}

/// The bytes of content that a header announces, whole blocks.
fn content_behind(header: &[u8]) -> io::Result<u64> {
    let refuse = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    if header.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let header = Header::from_byte_slice(header);
    let size = header.entry_size()?;
    match header.entry_type() {
        EntryType::GNULongName | EntryType::GNULongLink if size > LONGEST_NAME => {
            return refuse("it holds a name that is longer than a name can be");
        }
        EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNUSparse => {
            return refuse("it holds an extended header");
        }
        _ => {}
    }
    let whole = size.checked_next_multiple_of(BLOCK as u64);
    whole.map_or_else(|| refuse("it holds an entry without an end"), Ok)
}

impl<R: Read> Read for ShortNames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pass(&buffer[..count])?;
        Ok(count)
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Through a link it would change what lies elsewhere.
    if fs::symlink_metadata(path)?.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, os::unix::fs::PermissionsExt, path::Path};

    use super::{Folder, Packed, pack, unpack};
    use crate::{disk::Cut, domain::Redactor};

    const LIMIT: u64 = 1 << 20;

    fn packed(folder: &Path, limit: u64) -> (Packed, Vec<u8>) {
        let folder = Folder { name: "checkout", path: folder.to_owned(), cut: Cut::WhereKnown };
        pack(&[folder], limit, &Redactor::default(), Vec::new()).unwrap()
    }

    #[test]
    fn a_tree_comes_back_as_it_was_without_following_links() {
        let (from, outside, to) = (folder(), folder(), folder());
        fs::write(outside.path().join("secret"), "precious").unwrap();
        fs::create_dir_all(from.path().join("a/b")).unwrap();
        fs::write(from.path().join("a/b/run.sh"), "#!/bin/sh\n").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&from.path().join("a/b/run.sh"), 0o4755);
        mode(&from.path().join("a/b"), 0o555);
        std::os::unix::fs::symlink(outside.path(), from.path().join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap();
        let (packed, stream) = packed(from.path(), LIMIT);
        assert_eq!((packed.entries, packed.bytes, packed.over_limit), (5, 10, false));
        unpack(&stream[..], LIMIT, to.path()).unwrap();
        let got = to.path().join("checkout");
        let bits = |name: &str| fs::metadata(got.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((bits("a/b/run.sh"), bits("a/b")), (0o755, 0o555));
        assert_eq!(fs::read_link(got.join("link")).unwrap(), outside.path());
        assert!(!got.join("socket").exists());
        mode(&got.join("a/b"), 0o755);
        mode(&from.path().join("a/b"), 0o755);
    }

    #[test]
    fn more_than_the_limit_is_neither_written_nor_read() {
        let (from, to) = (folder(), folder());
        fs::write(from.path().join("large"), vec![0; 4096]).unwrap();
        assert!(packed(from.path(), 4095).0.over_limit);
        let (_, stream) = packed(from.path(), LIMIT);
        let error = unpack(&stream[..], 4095, to.path()).unwrap_err().to_string();
        assert!(error.contains("more than 4095 bytes"), "{error}");
    }

    #[test]
    fn a_stream_that_leads_outside_is_refused() {
        let (outside, to) = (folder(), folder());
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(
            Vec::new(),
            flate2::Compression::fast(),
        ));
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "checkout", outside.path()).unwrap();
        let mut file = tar::Header::new_gnu();
        file.set_size(1);
        file.set_mode(0o644);
        builder.append_data(&mut file, "checkout/planted", &b"x"[..]).unwrap();
        let stream = builder.into_inner().unwrap().finish().unwrap();
        assert!(unpack(&stream[..], LIMIT, to.path()).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_without_end_and_extended_headers_are_refused() {
        let long = "x".repeat(200);
        let from = folder();
        fs::write(from.path().join(&long), "long").unwrap();
        let (_, stream) = packed(from.path(), LIMIT);
        let to = folder();
        unpack(&stream[..], LIMIT, to.path()).unwrap();
        assert!(to.path().join("checkout").join(&long).exists());

        let with = |kind, size: u64| {
            let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            let mut builder = tar::Builder::new(gzip);
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            builder.append(&header, std::io::repeat(b'x').take(size)).unwrap();
            let stream = builder.into_inner().unwrap().finish().unwrap();
            unpack(&stream[..], LIMIT, folder().path()).unwrap_err().to_string()
        };
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink] {
            let said = with(kind, 1 << 24);
            assert!(said.contains("longer than a name can be"), "{said}");
        }
        let said = with(tar::EntryType::XHeader, 100);
        assert!(said.contains("an extended header"), "{said}");
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }
}
