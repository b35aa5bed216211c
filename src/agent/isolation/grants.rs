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
    // Not its settings, which hold passwords: see `without_passwords`.
    "maven/logging",
    "maven/m2.conf",
    "maven/toolchains.xml",
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

/// Settings of the system that may hold passwords and that their program insists on reading.
const ETC_WITHOUT_PASSWORDS: &[&str] = &["maven/settings.xml"];

/// Where terminals are. A rule is about the folder, and what is in it belongs to everybody who has one, whose
/// input and output its user may read and write.
const TERMINALS: &[&str] = &["/dev/pts"];

/// Devices that every program may use.
const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/null",
    "/dev/ptmx",
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

/// What belongs to the programs in the `bin` of a folder below `/opt`, as archives lay it out.
const PREFIX: &[&str] = &[
    "bin", "boot", "conf", "etc", "include", "jmods", "jre", "lib", "lib64", "libexec", "release",
    "share",
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
    /// Whether its user is its own: then no terminal of its user is somebody else's.
    #[serde(default)]
    pub terminals: bool,
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
        let settings = ETC_WITHOUT_PASSWORDS.iter().map(|name| etc.join(name));
        read.extend(settings.filter(|path| without_passwords(path)));
        let apart = |path: &Path| {
            let near = |kept: &PathBuf| path.starts_with(kept) || kept.starts_with(path);
            path.parent().is_some() && !protected.iter().any(near)
        };
        for program in self.programs.iter().flat_map(|program| with_interpreter(program)) {
            for file in with_targets(&program) {
                let parts = file.parent().into_iter().flat_map(|bin| beside(bin, true));
                read.extend(parts.chain(package(&file)).filter(|folder| apart(folder)));
                // Its folder is not opened: it may be a home, or that of a project with its secrets.
                read.insert(file);
            }
        }
        let folders = self.search_path.split(':').map(Path::new).filter(|path| path.is_absolute());
        for bin in folders {
            let parts = beside(bin, false).into_iter().chain([bin.to_owned(), resolved(bin)]);
            read.extend(parts.filter(|folder| apart(folder)));
        }
        read.extend(self.read.iter().cloned());
        Grants {
            read,
            write: self.own.iter().chain(&self.write).cloned().collect(),
            devices: DEVICES
                .iter()
                .chain(TERMINALS.iter().filter(|_| self.terminals))
                .map(PathBuf::from)
                .collect(),
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

/// What belongs to the programs of a folder: a virtual environment, a version manager, the libraries of an
/// archive that was unpacked below `/opt`.
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
        let root =
            folder.parent().filter(|root| root.starts_with("/opt/") && folder.ends_with("bin"));
        found.extend(root.into_iter().flat_map(|root| PREFIX.iter().map(|name| root.join(name))));
    }
    found
}

/// The packages of Node among which `file` lies: a program there loads the others.
fn package(file: &Path) -> Option<PathBuf> {
    let packages = file.ancestors().filter(|folder| folder.ends_with("node_modules"));
    packages.last().map(Path::to_owned)
}

/// Whether a file of settings in XML can be read and holds no credential, its comments aside.
fn without_passwords(path: &Path) -> bool {
    let Ok(text) = fs::read_to_string(path) else { return false };
    let told = text.split("<!--").enumerate().map(|(number, part)| match part.split_once("-->") {
        Some((_, after)) if number > 0 => after,
        // A comment that does not end is none for everybody.
        _ => part,
    });
    let told = told.collect::<String>().to_ascii_lowercase();
    !["password", "passphrase", "token", "authorization", "privatekey"]
        .iter()
        .any(|word| told.contains(word))
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
    fn a_program_opens_its_own_file_and_nothing_beside_it() {
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
        for name in ["a/bin/agent", "b/bin/agent", "home/.pyenv", "home/.pyenv/shims"] {
            assert!(linked.contains(&root.join(name)), "{name} is not in {linked:?}");
        }
        for name in ["a/bin", "b/bin"] {
            assert!(!linked.contains(&root.join(name)), "{name} is in {linked:?}");
        }
        let beside_ours = places("c/agent").grants().read;
        assert!(beside_ours.contains(&root.join("c/agent")), "{beside_ours:?}");
        assert!(!beside_ours.contains(&root.join("c")), "{beside_ours:?}");
        assert!(!linked.iter().any(|path| path == std::path::Path::new("/etc")));
    }

    #[test]
    fn what_a_program_is_made_of_is_opened_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (bin, packages) = (root.join("bin"), root.join("lib/node_modules"));
        for folder in [&bin, &packages.join("agent")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(packages.join("agent/cli.js"), "#!/usr/bin/env node\n").unwrap();
        symlink("../lib/node_modules/agent/cli.js", bin.join("agent")).unwrap();
        let places = Places { programs: vec![bin.join("agent")], ..Places::default() };
        let read = places.grants().read;
        assert!(read.contains(&packages), "{read:?}");
        assert!(!read.contains(&bin) && !read.contains(&root) && !read.contains(&root.join("lib")));
        assert!(!read.iter().any(|path| path == std::path::Path::new("/opt")));
        let java = Places { search_path: "/opt/java/bin".to_owned(), ..Places::default() };
        let read = java.grants().read;
        assert!(read.contains(std::path::Path::new("/opt/java/lib")), "{read:?}");
        assert!(!read.contains(std::path::Path::new("/opt/java")), "{read:?}");
    }

    #[test]
    fn settings_are_read_when_only_their_comments_speak_of_passwords() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, plain) in [
            ("<settings><!-- <password>x</password> --><a/></settings>", true),
            ("<settings><!-- a --><server><Password>x</Password></server></settings>", false),
            ("<settings><!-- <passphrase>x</passphrase>", false),
            ("<password>x</password> --> <!-- -->", false),
        ] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(super::without_passwords(file.path()), plain, "{text}");
        }
        assert!(!super::without_passwords(std::path::Path::new("/does/not/exist")));
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
