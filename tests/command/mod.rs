//! Runs the real program with an environment written down by the test.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of it")]

use std::{
    io::Write,
    path::Path,
    process::{Child, Output, Stdio},
};

use archon_awo::process::blocking_command;
use sqlx::{ConnectOptions, PgPool};
use tempfile::TempDir;

/// The program with its own home and folders.
pub struct Program {
    home: TempDir,
    variables: Vec<(String, String)>,
}

/// What a run left behind.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// With folders it can write to, an agent that exists, and no database.
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        let variables = vec![
            ("HOME".to_owned(), home.path().to_str().unwrap().to_owned()),
            ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("AWO_REPOSITORY_DIR".to_owned(), folder("repositories")),
            ("AWO_WORK_ORDER_DIR".to_owned(), folder("work-orders")),
            ("AWO_CONFIG_DIR".to_owned(), folder("config")),
            ("AWO_AGENT".to_owned(), "command".to_owned()),
            ("AWO_AGENT_COMMAND".to_owned(), "/bin/true".to_owned()),
        ];
        Self { home, variables }
    }

    /// Like `new`, on the database of `pool`.
    pub fn on(pool: &PgPool) -> Self {
        Self::new().with("DATABASE_URL", pool.connect_options().to_url_lossy().as_str())
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with_input(arguments, b"")
    }

    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = self.spawn(arguments);
        // A program that refuses its arguments does not read: a broken pipe is no failure here.
        let _ = child.stdin.take().unwrap().write_all(input);
        Ran::from(child.wait_with_output().unwrap())
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        blocking_command(env!("CARGO_BIN_EXE_archon-awo"))
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The standard output of a run that succeeded and had nothing to complain about.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "stdout: {}", self.stdout);
        self.stdout
    }

    /// The standard output of a run that succeeded, as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// A refusal with this exit code, these words in its error, and nothing on standard output.
    #[track_caller]
    pub fn refused(self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        assert!(self.stderr.contains(words), "expected {words:?} in {}", self.stderr);
        assert_eq!(self.stdout, "");
    }
}
