//! Turns a request into a program, its arguments and its environment, which is built from nothing.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{home, kind::AgentKind, presets::Preset, report::Failure, request::AgentRequest};
use crate::{disk, domain::ErrorClass};

/// Where programs are looked for unless the request's environment says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The agent's own git settings: who it is, and no way to a credential or a hook of the host.
const GIT_CONFIG: &str = "[user]\n\tname = archon-awo\n\temail = archon-awo@localhost\n\
                          [credential]\n\thelper =\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n";

/// The class and the cause behind an exit code that has a meaning.
pub type ExitMeaning = fn(i32) -> Option<(ErrorClass, &'static str)>;

/// A program ready to be started by the shim.
#[derive(Default)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Those of the arguments without which it does its work as well, should its version not know them.
    pub optional: &'static [&'static str],
    /// A later entry replaces an earlier one of its name.
    pub environment: Vec<(String, String)>,
    /// Folders of its own in its home, each after the one that it is in.
    pub folders: Vec<PathBuf>,
    /// Files in those folders.
    pub files: Vec<(PathBuf, String)>,
    /// The conversation of this run; the agent may report another one.
    pub session: Option<Uuid>,
    pub resumed: bool,
    /// Whether this kind of agent always ends with a result line.
    pub needs_result: bool,
    /// It exits without waiting until what it printed is read, so it gets a file in the place of a pipe.
    pub prints_to_file: bool,
    /// Whose lines are to be translated.
    pub preset: Option<Preset>,
    /// What exit codes other than 0 mean, where the agent gave no result.
    pub exit_meaning: Option<ExitMeaning>,
}

impl AgentKind {
    /// Finds the program and makes the folders it needs. `may_resume` is false when resuming was
    /// tried and failed.
    pub fn prepare(&self, request: &AgentRequest, may_resume: bool) -> Result<Launch, Failure> {
        let invalid = |message: String| Failure::new(ErrorClass::Invalid, message);
        if !request.checkout.is_dir() {
            let path = request.checkout.display();
            return Err(invalid(format!("the agent's working directory {path} is missing")));
        }
        let mut environment = common_environment(request);
        let path = environment.iter().rfind(|(name, _)| name == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_str()).to_owned();
        let unprepared = |error: io::Error| {
            let class = if disk::is_full(&error) { ErrorClass::Disk } else { ErrorClass::Invalid };
            let home = request.home.display();
            Failure::new(class, format!("the agent's home {home} cannot be prepared: {error}"))
        };
        if request.renew {
            home::renew(request, may_resume).map_err(unprepared)?;
        }
        let mut launch =
            self.launch(request, &path, may_resume).map_err(|error| invalid(error.to_string()))?;
        environment.append(&mut launch.environment);
        launch.environment = environment;
        make_folders(request, &launch).map_err(unprepared)?;
        Ok(launch)
    }
}

/// What every agent finds, whichever it is. A later entry replaces an earlier one of its name.
fn common_environment(request: &AgentRequest) -> Vec<(String, String)> {
    let home = request.home.display().to_string();
    let path = |path: &Path| path.display().to_string();
    let mut environment: Vec<(String, String)> = [
        ("PATH", DEFAULT_PATH.to_owned()),
        ("HOME", home),
        ("LANG", "C.UTF-8".to_owned()),
        ("TERM", "dumb".to_owned()),
        ("TMPDIR", path(&request.tmp)),
        ("CI", "1".to_owned()),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ("GIT_CONFIG_GLOBAL", path(&request.home.join(".gitconfig"))),
        ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
        // Read last, so it also empties what the checkout's own settings name.
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", "credential.helper".to_owned()),
        ("GIT_CONFIG_VALUE_0", String::new()),
        ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    environment.extend(request.extra_env.iter().cloned());
    environment.extend(
        [
            ("AWO_WORK_ORDER_ID", request.order.to_string()),
            ("AWO_STEP", request.step.to_string()),
            ("AWO_TASK", request.task.to_string()),
            ("AWO_ATTEMPT", request.attempt.to_string()),
            ("AWO_RUN_ID", request.run_id.to_string()),
            ("AWO_SESSION_ID", request.session.to_string()),
            ("AWO_SANDBOX", path(&request.sandbox_root)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    environment
}

/// Makes the folders and the files of settings. An earlier run could write here, so nothing it may have
/// put in the place of a folder or a file is followed.
fn make_folders(request: &AgentRequest, launch: &Launch) -> io::Result<()> {
    for folder in [&request.home, &request.tmp].into_iter().chain(&launch.folders) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        if !fs::symlink_metadata(folder)?.is_dir() {
            let message = format!("{} is not a folder of its own", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
        }
    }
    write_new(&request.home.join(".gitconfig"), GIT_CONFIG, request.run_id)?;
    launch.files.iter().try_for_each(|(file, text)| write_new(file, text, request.run_id))
}

/// Puts a file in its place, whatever was there.
fn write_new(file: &Path, text: &str, run_id: Uuid) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{run_id}"));
    let new = PathBuf::from(name);
    let mut writer = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writer.write_all(text.as_bytes())?;
    fs::rename(new, file)
}
