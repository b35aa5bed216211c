//! How the programs of the product are run: with which folders, in which namespace, as which user.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
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
                if self.rights {
                    // As in compose.hardened.yaml.
                    command.args([
                        "--no-new-privs",
                        "--inh-caps=-all,+chown,+kill,+setgid,+setuid",
                        "--ambient-caps=-all,+chown,+kill,+setgid,+setuid",
                        "--bounding-set=-all,+chown,+kill,+setgid,+setuid",
                    ]);
                }
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
        if self.program != program {
            fs::copy(&self.program, &program).unwrap();
        }
        self.program = program;
        self.give("", user);
        (self.user, self.rights) = (Some(user), false);
    }

    /// The same, with the rights to start agents as other users, to which the agent's script is open.
    pub fn run_with_rights(&mut self, user: u32) {
        self.run_as(user);
        self.rights = true;
        self.open_to_users();
    }

    /// Lets users of agents come to the script of the agent, and leave their notes there.
    pub fn open_to_users(&self) {
        fs::set_permissions(self.folder(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(self.path("agent"), fs::Permissions::from_mode(0o777)).unwrap();
        let runs = self.path("agent/runs");
        fs::File::options().create(true).append(true).open(&runs).unwrap();
        fs::set_permissions(runs, fs::Permissions::from_mode(0o666)).unwrap();
    }
}
