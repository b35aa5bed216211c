//! Paths that lead out, and a kernel that lacks the call.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    os::{fd::AsFd, unix::fs::symlink},
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};

use super::{Beneath, FOLDER, Kind, open_at, step_by_step};
use crate::process::blocking_command;

struct Yard(tempfile::TempDir);

impl Yard {
    /// A folder `in` with everything that leads out of it, and `out` with what must not be read.
    fn new() -> Self {
        let yard = Self(tempfile::tempdir().unwrap());
        for folder in ["in/a/b", "out"] {
            fs::create_dir_all(yard.at(folder)).unwrap();
        }
        fs::write(yard.at("out/precious"), "precious").unwrap();
        fs::write(yard.at("in/a/b/file"), "content").unwrap();
        symlink("../out", yard.at("in/up")).unwrap();
        symlink(yard.at("out"), yard.at("in/away")).unwrap();
        symlink("a", yard.at("in/inside")).unwrap();
        symlink(yard.at("out/precious"), yard.at("in/a/leak")).unwrap();
        nix::unistd::mkfifo(&yard.at("in/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        yard
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn top(&self) -> Beneath {
        Beneath::open(&self.at("in")).unwrap()
    }
}

#[test]
fn nothing_outside_is_reached_by_any_path() {
    let yard = Yard::new();
    let top = yard.top();
    let absolute = yard.at("out/precious").display().to_string();
    for path in [
        "up/precious",
        "away/precious",
        "a/leak",
        "../out/precious",
        "a/../../out/precious",
        "inside/b/file",
        "/etc/passwd",
        &absolute,
        "pipe",
        "a",
        "nowhere",
        "",
    ] {
        let path = Path::new(path);
        assert!(top.file(path).is_err(), "{path:?}");
        let above = path.parent().unwrap_or(path);
        let is_inside = above == Path::new("") || above == Path::new("a");
        assert!(is_inside || top.folder(above).is_err(), "{above:?}");
        assert!(is_inside || top.about(path).is_err(), "{path:?}");
    }
    let mut text = String::new();
    top.file(Path::new("a/b/file")).unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    assert_eq!(top.about(Path::new("a/leak")).unwrap().kind, Kind::Link);
    assert_eq!(top.about(Path::new("pipe")).unwrap().kind, Kind::Pipe);
    let (target, about) = top.link(Path::new("inside")).unwrap();
    assert_eq!((target, about.kind), (OsString::from("a"), Kind::Link));
    assert!(Beneath::open(&yard.at("in/inside")).is_err());
}

#[test]
fn a_kernel_without_the_call_answers_the_same() {
    let yard = Yard::new();
    let top = yard.top();
    for path in [
        "a/b/file",
        "up/precious",
        "a/leak",
        "../out/precious",
        "a/../a/b",
        "inside/b/file",
        "/etc",
    ] {
        let path = Path::new(path);
        let walked = step_by_step(top.as_fd(), path, OFlags::NOFOLLOW | OFlags::CLOEXEC);
        assert_eq!(walked.is_ok(), path == Path::new("a/b/file"), "{path:?}");
    }
}

#[test]
fn a_listing_is_whole_twice_and_ends_when_it_is_told_to() {
    let yard = Yard::new();
    let top = yard.top();
    for _ in 0..2 {
        let mut names = Vec::new();
        top.names(|name| {
            names.push(name.to_owned());
            true
        })
        .unwrap();
        names.sort();
        assert_eq!(names, ["a", "away", "inside", "pipe", "up"]);
    }
    let mut seen = 0;
    top.names(|_| {
        seen += 1;
        false
    })
    .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn what_its_owner_has_closed_is_opened_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let yard = Yard::new();
    let mode = |path: &str| fs::metadata(yard.at(path)).unwrap().permissions().mode() & 0o777;
    let close = |path: &str| {
        fs::set_permissions(yard.at(path), fs::Permissions::from_mode(0o000)).unwrap();
    };
    ["in/a/b/file", "in/a/b", "out/precious"].into_iter().for_each(close);
    let top = yard.top();
    assert!(top.open_up(Path::new("a/leak")).is_err());
    top.open_up(Path::new("a/b")).unwrap();
    top.open_up(Path::new("a/b/file")).unwrap();
    assert_eq!((mode("in/a/b"), mode("in/a/b/file"), mode("out/precious")), (0o700, 0o400, 0));
}

#[test]
fn a_mount_is_seen_and_not_entered() {
    let yard = Yard::new();
    fs::create_dir(yard.at("in/mounted")).unwrap();
    fs::write(yard.at("in/covered"), "").unwrap();
    let mount = |from: &str, to: &str| {
        let mut mount = blocking_command("mount");
        let done = mount.arg("--bind").arg(yard.at(from)).arg(yard.at(to)).status();
        done.is_ok_and(|status| status.success())
    };
    if !mount("out", "in/mounted") {
        // Only root may, and not in every container.
        return;
    }
    let covered = mount("out/precious", "in/covered");
    let top = yard.top();
    let refused = [
        open_at(&top, Path::new("mounted"), FOLDER).err(),
        open_at(&top, Path::new("mounted/precious"), OFlags::NOFOLLOW).err(),
        open_at(&top, Path::new("covered"), OFlags::NOFOLLOW).err(),
        step_by_step(top.as_fd(), Path::new("mounted"), FOLDER).err(),
        step_by_step(top.as_fd(), Path::new("covered"), OFlags::NOFOLLOW).err(),
    ];
    let kinds = ["mounted", "covered"].map(|name| top.about(Path::new(name)).unwrap().kind);
    for place in ["in/mounted", "in/covered"] {
        let _ = blocking_command("umount").arg(yard.at(place)).status();
    }
    assert!(covered);
    assert_eq!(refused, [Some(Errno::XDEV); 5]);
    assert_eq!(kinds, [Kind::Mount; 2]);
}
