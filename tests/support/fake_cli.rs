//! Programs that stand in for codex, gemini and opencode: `fake_cli.py` under their names, with the samples
//! that were made by hand. Shared by several test binaries.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of it")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// One of them, in a folder of its own.
pub struct FakeCli {
    folder: PathBuf,
    name: &'static str,
}

impl FakeCli {
    /// Makes it below `place`.
    pub fn new(place: &Path, name: &'static str) -> Self {
        let folder = place.join(name);
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        fs::create_dir_all(folder.join("samples")).unwrap();
        for sample in fs::read_dir(samples).unwrap() {
            let sample = sample.unwrap();
            fs::copy(sample.path(), folder.join("samples").join(sample.file_name())).unwrap();
        }
        let program = folder.join(name);
        fs::write(&program, include_str!("fake_cli.py")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, name }
    }

    pub fn program(&self) -> PathBuf {
        self.folder.join(self.name)
    }

    /// Where it notes its calls.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it plays from now on, and its exit code.
    pub fn play(&self, sample: &str, exit_code: i32) {
        fs::write(self.folder.join("sample"), format!("{sample} {exit_code}")).unwrap();
    }

    /// What it was called with so far.
    pub fn calls(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The arguments of each call.
    pub fn arguments(&self) -> Vec<Vec<String>> {
        let calls = self.calls().into_iter();
        calls.map(|call| serde_json::from_value(call["arguments"].clone()).unwrap()).collect()
    }
}
