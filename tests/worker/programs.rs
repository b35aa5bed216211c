//! How the programs of the product are run: with which folders, in which namespace, as which user.

use std::{
    fs,
    process::{Command, Stdio},
};

use archon_awo::process::blocking_command;
use sqlx::ConnectOptions;

use crate::harness::Harness;

impl Harness {
    /// The program, with its user, its folders and its database.
    pub fn product(&self) -> Command {
        let mut command = match (&self.volume, self.user) {
            (None, None) => blocking_command(&self.program),
            (Some(volume), _) => {
                let mut command = volume.command().into_std();
                command.arg(&self.program);
                command
            }
            (None, Some(user)) => {
                let mut command = blocking_command("setpriv");
                command.args(["--reuid", &user.to_string(), "--regid", &user.to_string()]);
                command.args(["--clear-groups", "--"]).arg(&self.program);
                command
            }
        };
        let url = self.pool.connect_options().to_url_lossy().to_string();
        command
            .env("PATH", std::env::var("PATH").unwrap())
            .env("HOME", self.folder())
            .env("DATABASE_URL", url)
            .env("AWO_REPOSITORY_DIR", self.path("repositories"))
            .env("AWO_WORK_ORDER_DIR", self.path("work-orders"))
            .env("AWO_CONFIG_DIR", self.path("config"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the product to its end; answers its exit code and what it printed.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let settings = self.settings.iter().map(|(name, value)| (name, value));
        let output = self
            .product()
            .args(arguments)
            .env("AWO_ALLOW_LOCAL_REMOTES", "true")
            .envs(settings)
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Gives a folder of this place, with all that is in it, to a user.
    pub fn give(&self, name: &str, user: u32) {
        let owner = format!("{user}:{user}");
        let given = Command::new("chown").args(["-R", "-h", &owner]).arg(self.path(name)).status();
        assert!(given.unwrap().success());
    }

    /// Programs run as this user from now on, to whom everything here belongs.
    pub fn run_as(&mut self, user: u32) {
        // Where the build is, others may not be able to look.
        let program = self.path("archon-awo");
        fs::copy(&self.program, &program).unwrap();
        self.program = program;
        self.give("", user);
        self.user = Some(user);
    }
}
