//! A repository on an HTTPS server with a password, and a volume whose git may use it.

use std::{fs, path::Path};

use crate::{
    git_place::{Place, branch, git_in, order},
    https_remote::HttpsRemote,
    lfs_server::LfsServer,
};
use archon_awo::{
    domain::{Credential, Credentials, RemoteRules, RepositoryUrl},
    git::{GitError, Plan, Remote, Sandbox},
};

pub const TOKEN: &str = "ghp_x7Kq2vN9pWmL4tRz8sYb3cDf6gHj1aEu";

/// A server with `acme/app.git`, of which `seed` is a checkout, and a place whose git may use it.
pub struct Yard {
    pub place: Place,
    pub server: HttpsRemote,
}

impl Yard {
    pub fn new() -> Self {
        Self::with(None)
    }

    pub fn with(lfs: Option<&LfsServer>) -> Self {
        let server = HttpsRemote::start_with(TOKEN, lfs.map(|server| server.port));
        let rules = RemoteRules { allowed_hosts: vec![server.host()], allow_local: false };
        let mut credentials = Credentials::default();
        assert!(credentials.add(&server.host(), Credential::token(TOKEN)));
        let place = Place::with(|settings| {
            settings.ca_file = Some(server.ca_file());
            settings.remotes = rules;
            settings.credentials = credentials;
        });
        let yard = Self { place, server };
        fs::remove_dir_all(yard.place.path("remote/app.git")).unwrap();
        yard.serve("app", &yard.place.path("seed"));
        yard
    }

    /// Serves what is in a checkout as `acme/NAME.git`, from now on.
    pub fn serve(&self, name: &str, checkout: &Path) {
        let bare = self.bare(name);
        if !bare.exists() {
            fs::create_dir_all(&bare).unwrap();
            git_in(&bare, &["init", "--quiet", "--bare", "--initial-branch=main"]);
            git_in(&bare, &["config", "http.receivepack", "true"]);
        }
        git_in(checkout, &["push", "--quiet", "--all", "--force", bare.to_str().unwrap()]);
    }

    pub fn bare(&self, name: &str) -> std::path::PathBuf {
        self.server.repositories().join(format!("acme/{name}.git"))
    }

    pub fn remote(&self) -> Remote {
        let rules = RemoteRules { allowed_hosts: vec![self.server.host()], allow_local: false };
        let url = format!("https://{}/acme/app", self.server.host());
        let url = RepositoryUrl::parse(&url, &rules).unwrap();
        Remote { url, credential: Some(Credential::token(TOKEN)) }
    }

    /// Writes files in `seed` and serves them.
    pub fn change(&self, files: &[(&str, &str)]) {
        let seed = self.place.path("seed");
        write(&seed, files);
        self.place.seed_commit("Change");
        self.serve("app", &seed);
    }

    pub async fn open(&self, id: &str, plan: &Plan) -> Result<Sandbox, GitError> {
        let git = &self.place.git;
        let mirror = git.refresh_mirror_of(&self.remote(), plan.history).await?;
        git.open_sandbox(&mirror, &order(id), &branch(&format!("feat/{id}")), plan).await
    }

    /// The files of a branch on the server.
    pub fn served(&self, branch: &str) -> Vec<String> {
        let listing = git_in(&self.bare("app"), &["ls-tree", "-r", "--name-only", branch]);
        listing.lines().map(str::to_owned).collect()
    }

    /// Loses the volume with its caches and sandboxes.
    pub fn lose_volume(&self) {
        fs::remove_dir_all(self.place.git.volume().root()).unwrap();
    }
}

pub fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

pub fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| format!("{name}: {error}"))
}

pub fn parts(change: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = Plan::default();
    change(&mut plan);
    plan
}
