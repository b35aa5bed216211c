//! Servers that are written in Python: each in a place of its own in the user's cache, made when it is missing.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// A python with these packages; `name` changes with their versions.
#[expect(clippy::disallowed_methods, reason = "pip needs the user's own settings")]
pub fn python_with(name: &str, packages: &[&str]) -> PathBuf {
    let home = std::env::var_os("HOME").unwrap();
    let cache = Path::new(&home).join(".cache/archon-awo");
    let folder = cache.join(name);
    fs::create_dir_all(&cache).unwrap();
    // Tests run side by side; one of them installs.
    let lock = File::create(cache.join(format!(".{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let done = folder.join(".complete");
    if !done.exists() {
        let run = |program: &Path, arguments: &[&str]| {
            let ended = Command::new(program).args(arguments).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(ended.status.success(), "cannot install {packages:?} for tests: {said}");
        };
        run(Path::new("python3"), &["-m", "venv", "--clear", folder.to_str().unwrap()]);
        let install = [&["-m", "pip", "install", "--quiet"], packages].concat();
        run(&folder.join("bin/python"), &install);
        File::create(done).unwrap();
    }
    folder.join("bin/python")
}
