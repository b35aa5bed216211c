//! Finds the real Claude Code CLI, and installs it once into the user's cache when it is missing.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The versions of the CLI that are tried, newest first, each with the package that bundles it.
pub const VERSIONS: [(&str, &str); 2] =
    [("2.1.332", "claude-agent-sdk==0.2.189"), ("2.1.138", "claude-agent-sdk==0.1.80")];

/// Takes the one program out of the package; the rest of it is not needed.
const UNPACK: &str = "import glob, os, sys, zipfile
folder = sys.argv[1]
wheel, = glob.glob(os.path.join(folder, '*.whl'))
with zipfile.ZipFile(wheel) as archive:
    with archive.open('claude_agent_sdk/_bundled/claude') as source:
        with open(os.path.join(folder, 'claude'), 'wb') as target:
            while chunk := source.read(1 << 20):
                target.write(chunk)
os.chmod(os.path.join(folder, 'claude'), 0o755)
os.remove(wheel)
";

/// The CLI: `$AWO_TEST_CLAUDE_CLI`, else the newest of [`VERSIONS`].
#[expect(clippy::disallowed_methods, reason = "tests take this one setting from the environment")]
pub fn claude_cli() -> PathBuf {
    match std::env::var_os("AWO_TEST_CLAUDE_CLI") {
        Some(given) => given.into(),
        None => claude_cli_version(VERSIONS[0].0),
    }
}

/// The CLI of one of [`VERSIONS`], below `~/.cache/archon-awo`; installed if need be.
#[expect(clippy::disallowed_methods, reason = "the cache is the user's")]
pub fn claude_cli_version(version: &str) -> PathBuf {
    let known = VERSIONS.iter().find(|(known, _)| *known == version);
    let (_, package) = known.unwrap_or_else(|| {
        panic!("no package is known for the Claude Code CLI {version}: VERSIONS has {VERSIONS:?}")
    });
    let home = std::env::var_os("HOME").expect("HOME is set, or AWO_TEST_CLAUDE_CLI is");
    let cache = Path::new(&home).join(".cache/archon-awo");
    let folder = cache.join(format!("claude-{version}"));
    let cli = folder.join("claude");
    fs::create_dir_all(&cache).unwrap();
    // Tests run side by side; one of them installs.
    let lock = File::create(cache.join(".claude.lock")).unwrap();
    lock.lock().unwrap();
    if !cli.exists() {
        install(&cache, &folder, package);
    }
    cli
}

fn install(cache: &Path, folder: &Path, package: &str) {
    let staged = tempfile::tempdir_in(cache).unwrap();
    let into = staged.path().to_str().unwrap();
    python(package, &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", into, package]);
    python(package, &["-c", UNPACK, into]);
    fs::rename(staged.keep(), folder).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "pip needs the user's own settings")]
fn python(package: &str, arguments: &[&str]) {
    let ended = std::process::Command::new("python3").args(arguments).output();
    let done = ended.as_ref().is_ok_and(|output| output.status.success());
    assert!(
        done,
        "the Claude Code CLI of {package} is missing and could not be installed: install python3 \
         with pip and let it reach its package index, or set AWO_TEST_CLAUDE_CLI to the program: \
         {ended:?}"
    );
}
