//! Finds the real Claude Code CLI, and installs it once into the user's cache when it is missing.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The package that bundles the CLI, and the CLI's version in it.
const PACKAGE: &str = "claude-agent-sdk==0.2.187";
const VERSION: &str = "2.1.330";

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

/// The CLI: `$AWO_TEST_CLAUDE_CLI`, else the one in `~/.cache/archon-awo`, installed if need be.
#[expect(clippy::disallowed_methods, reason = "tests take this one setting from the environment")]
pub fn claude_cli() -> PathBuf {
    if let Some(given) = std::env::var_os("AWO_TEST_CLAUDE_CLI") {
        return given.into();
    }
    let home = std::env::var_os("HOME").expect("HOME is set, or AWO_TEST_CLAUDE_CLI is");
    let cache = Path::new(&home).join(".cache/archon-awo");
    let folder = cache.join(format!("claude-{VERSION}"));
    let cli = folder.join("claude");
    fs::create_dir_all(&cache).unwrap();
    // Tests run side by side; one of them installs.
    let lock = File::create(cache.join(".claude.lock")).unwrap();
    lock.lock().unwrap();
    if !cli.exists() {
        install(&cache, &folder);
    }
    cli
}

fn install(cache: &Path, folder: &Path) {
    let staged = tempfile::tempdir_in(cache).unwrap();
    let into = staged.path().to_str().unwrap();
    python(&["-m", "pip", "download", "--quiet", "--no-deps", "--dest", into, PACKAGE]);
    python(&["-c", UNPACK, into]);
    fs::rename(staged.keep(), folder).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "pip needs the user's own settings")]
fn python(arguments: &[&str]) {
    let ended = std::process::Command::new("python3").args(arguments).output();
    let done = ended.as_ref().is_ok_and(|output| output.status.success());
    assert!(
        done,
        "the Claude Code CLI {VERSION} is missing and could not be installed: install python3 with \
         pip and let it reach its package index, or set AWO_TEST_CLAUDE_CLI to the program: \
         {ended:?}"
    );
}
