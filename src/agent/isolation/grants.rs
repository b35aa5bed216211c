//! Which files an agent may open: the tools of the system, its own program, its sandbox, and nothing
//! that belongs to the product, to other orders or to the host's secrets.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What is read and run on every system; what is not there is passed over.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix/store",
    "/gnu/store",
    // Reading the memory and the environment of others is refused by Landlock itself, as tracing is.
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager/resolv.conf",
];

/// The parts of `/etc` without secrets that tools look for: names, addresses, certificates, shells.
const ETC: &[&str] = &[
    "alternatives",
    "bash.bashrc",
    "bash_completion.d",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "default/locale",
    "fonts",
    "gai.conf",
    "gitattributes",
    "gitconfig",
    "gnutls",
    "gradle",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "inputrc",
    "issue",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "lsb-release",
    "magic",
    "magic.mime",
    "mailcap",
    "manpath.config",
    "maven",
    "mime.types",
    "networks",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "perl",
    "php",
    "pki/ca-trust",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "postgresql-common",
    "profile",
    "profile.d",
    "protocols",
    "redhat-release",
    "resolv.conf",
    "rpc",
    "services",
    "shells",
    "ssh/ssh_config",
    "ssh/ssh_config.d",
    "ssh/ssh_known_hosts",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "vim",
];

/// Names in `/etc` that carry a version.
const ETC_PREFIXES: &[&str] = &["java-", "python", "ruby", "lua"];

/// Devices that every program may use.
const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// Folders of version managers: what lies below is toolchains and no credentials.
const TOOLCHAINS: &[&str] = &[
    ".asdf", ".bun", ".deno", ".nodenv", ".nvm", ".pyenv", ".rbenv", ".rustup", ".sdkman",
    ".volta", "mise",
];

/// Longest first line of a script that is looked at.
const LONGEST_FIRST_LINE: u64 = 4096;

/// Where an agent may read and write besides what every program of the system may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Its program, and the files it is started with, such as a script.
    pub programs: Vec<PathBuf>,
    /// The folders in which it looks for programs, as in `PATH`.
    pub search_path: String,
    /// Read, run and written by it alone, and its user's: checkout, home, temporary files.
    pub own: Vec<PathBuf>,
    /// Read and run.
    pub read: Vec<PathBuf>,
    /// Read, run and written.
    pub write: Vec<PathBuf>,
    /// Not to be opened by any rule about something larger.
    pub protected: Vec<PathBuf>,
}

/// Paths by what may be done with them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Read and run.
    pub read: BTreeSet<PathBuf>,
    /// Everything but making devices.
    pub write: BTreeSet<PathBuf>,
    /// Read, write and control.
    pub devices: BTreeSet<PathBuf>,
}

impl Places {
    /// Looks at the file system for what may be opened.
    pub fn grants(&self) -> Grants {
        let protected: Vec<PathBuf> =
            self.protected.iter().flat_map(|path| [path.clone(), resolved(path)]).collect();
        let mut read = BTreeSet::new();
        for path in SYSTEM.iter().map(Path::new) {
            except(path, &protected, &mut read);
        }
        let etc = Path::new("/etc");
        read.extend(ETC.iter().map(|name| etc.join(name)));
        read.extend(entries(etc).into_iter().filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            ETC_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        }));
        let apart = |path: &Path| {
            let near = |kept: &PathBuf| path.starts_with(kept) || kept.starts_with(path);
            path.parent().is_some() && !protected.iter().any(near)
        };
        for program in self.programs.iter().flat_map(|program| with_interpreter(program)) {
            for file in with_targets(&program) {
                let folders = file.parent().into_iter().flat_map(|bin| beside(bin, true));
                read.extend(folders.filter(|folder| apart(folder)));
                // Where its folder is not for it, the file alone.
                read.insert(file);
            }
        }
        let folders = self.search_path.split(':').map(Path::new).filter(|path| path.is_absolute());
        for folder in folders.flat_map(|bin| beside(bin, false)) {
            if apart(&folder) {
                read.insert(folder);
            }
        }
        read.extend(self.read.iter().cloned());
        Grants {
            read,
            write: self.own.iter().chain(&self.write).cloned().collect(),
            devices: DEVICES.iter().map(PathBuf::from).collect(),
        }
    }
}

/// `path`, or what is in it when something protected is below it.
fn except(path: &Path, protected: &[PathBuf], into: &mut BTreeSet<PathBuf>) {
    if protected.iter().any(|kept| path.starts_with(kept)) {
        return;
    }
    if !protected.iter().any(|kept| kept.starts_with(path) || kept.starts_with(resolved(path))) {
        into.insert(path.to_owned());
        return;
    }
    for entry in entries(path) {
        except(&entry, protected, into);
    }
}

/// A folder of programs, and what belongs to it: a virtual environment, a version manager.
fn beside(bin: &Path, of_program: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [bin.to_owned(), resolved(bin)] {
        if let Some(root) = folder.parent() {
            let settings = fs::read_to_string(root.join("pyvenv.cfg")).unwrap_or_default();
            if !settings.is_empty() {
                found.push(root.to_owned());
            }
            let base = settings.lines().find_map(|line| line.strip_prefix("home = "));
            if let Some(bin) = base.map(Path::new).filter(|_| of_program) {
                // The interpreter it was made from, with its library.
                found.extend(toolchain(&resolved(bin)));
            }
        }
        found.extend(toolchain(&folder));
        found.push(folder);
    }
    found
}

/// The folder of the version manager that `path` lies in.
fn toolchain(path: &Path) -> Option<PathBuf> {
    let named = |folder: &&Path| {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        TOOLCHAINS.contains(&name)
    };
    path.ancestors().find(named).map(Path::to_owned)
}

/// A program, and when it is a script what it is run by.
fn with_interpreter(program: &Path) -> Vec<PathBuf> {
    let mut found = vec![program.to_owned()];
    let Ok(file) = fs::File::open(program) else { return found };
    let mut line = Vec::new();
    let mut start = BufReader::new(file.take(LONGEST_FIRST_LINE));
    if start.read_until(b'\n', &mut line).is_ok()
        && let Some(rest) = line.strip_prefix(b"#!")
        && let Ok(rest) = std::str::from_utf8(rest)
        && let Some(interpreter) = rest.split_whitespace().next()
        && interpreter.starts_with('/')
    {
        found.push(PathBuf::from(interpreter));
    }
    found
}

/// A file, and what it links to, link by link.
fn with_targets(file: &Path) -> Vec<PathBuf> {
    let mut found = vec![file.to_owned()];
    // Bounded: links may go in circles.
    for _ in 0..16 {
        let Some(last) = found.last() else { break };
        let Ok(target) = fs::read_link(last) else { break };
        let folder = last.parent().unwrap_or(Path::new("/")).to_owned();
        found.push(folder.join(target));
    }
    found.push(resolved(file));
    found
}

fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::Places;

    #[test]
    fn a_program_opens_its_folder_but_nothing_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["a/bin", "b/bin", "c/volume", "home/.pyenv/shims"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("b/bin/agent"), "#!/bin/sh\n").unwrap();
        symlink("../../b/bin/agent", root.join("a/bin/agent")).unwrap();
        fs::write(root.join("c/agent"), "x").unwrap();
        let places = |program: &str| Places {
            programs: vec![root.join(program)],
            search_path: format!("{}:relative", root.join("home/.pyenv/shims").display()),
            protected: vec![root.join("c/volume")],
            ..Places::default()
        };
        let linked = places("a/bin/agent").grants().read;
        for name in ["a/bin", "b/bin", "b/bin/agent", "home/.pyenv"] {
            assert!(linked.contains(&root.join(name)), "{name} is not in {linked:?}");
        }
        let beside_ours = places("c/agent").grants().read;
        assert!(beside_ours.contains(&root.join("c/agent")), "{beside_ours:?}");
        assert!(!beside_ours.contains(&root.join("c")), "{beside_ours:?}");
        assert!(!linked.iter().any(|path| path == std::path::Path::new("/etc")));
    }

    #[test]
    fn a_system_folder_with_something_of_ours_is_opened_around_it() {
        let places = Places { protected: vec!["/usr/share/archon".into()], ..Places::default() };
        let read = places.grants().read;
        assert!(!read.contains(std::path::Path::new("/usr")));
        assert!(!read.contains(std::path::Path::new("/usr/share")));
        assert!(read.contains(std::path::Path::new("/usr/bin")));
    }
}
