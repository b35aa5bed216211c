//! Files are read while a process that outlived its agent moves them: folders, links, files and mounts.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use archon_awo::{
    archive::Archive,
    config::ArchiveConfig,
    domain::{Redactor, WorkOrderId},
    git::{GitError, Sandbox},
    process,
};

use crate::git_place::{Place, branch, git_in, order};

/// What stands in everything outside, and in nothing that an agent writes.
const PRECIOUS: &[u8] = b"precious";
/// A file that the rules outside hide, and no others.
const ORACLE: &str = "oracle.txt";
/// The longest that one read may take, with a survivor at work.
const PATIENCE: Duration = Duration::from_mins(1);

#[expect(clippy::disallowed_methods, reason = "not a setting of the product")]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_is_read_whatever_a_survivor_moves() {
    let runs: u64 = asked("AWO_TEST_COMMIT_RACES")
        .map_or(8, |runs| runs.parse().expect("AWO_TEST_COMMIT_RACES: a number"));
    let (mut committed, mut refused) = (0, 0);
    for run in 0..runs {
        let yard = Yard::new(run).await;
        let won = yard.race(run).await;
        committed += won.committed;
        refused += won.refused;
        yard.judge();
    }
    println!("{runs} runs: {committed} reads ended well, {refused} said why not");
    assert!(committed >= runs, "{committed} of {runs}: too few reads to say anything");
}

struct Won {
    committed: u64,
    refused: u64,
}

struct Yard {
    place: Place,
    sandbox: Sandbox,
    id: WorkOrderId,
}

impl Yard {
    async fn new(run: u64) -> Self {
        let place = Place::new();
        let id = order(&format!("wo-race-{run}"));
        let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
        let sandbox =
            place.git.open_sandbox(&mirror, &id, &branch("feat/race"), None).await.unwrap();
        // The same names inside and outside, so that what is followed is found.
        for (at, word) in
            [(sandbox.checkout.clone(), "inside"), (place.path("outside"), "precious")]
        {
            for name in
                ["lib/notes.txt", "lib/inner/more.txt", "src/main.txt", "deep/a/b/c.txt", "a.txt"]
            {
                let file = at.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{word}\n")).unwrap();
            }
        }
        for name in [".gitignore", "lib/.gitignore", "src/.gitattributes", ".gitattributes"] {
            fs::write(sandbox.checkout.join(name), "# inside\n").unwrap();
            let rules = format!("# precious\n{ORACLE}\n{ORACLE} filter=lfs\n");
            fs::write(place.path("outside").join(name), rules).unwrap();
        }
        fs::write(sandbox.checkout.join(ORACLE), "inside\n").unwrap();
        fs::write(sandbox.checkout.join("README.md"), "inside\n").unwrap();
        Self { place, sandbox, id }
    }

    async fn race(&self, run: u64) -> Won {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/git_layer/moving/survivor.py");
        let mut survivor = process::command("/usr/bin/env")
            .env("PATH", asked("PATH").unwrap())
            .args(["python3", script])
            .arg(&self.sandbox.checkout)
            .arg(self.place.path("outside"))
            .arg(run.to_string())
            .spawn()
            .unwrap();
        let mut won = Won { committed: 0, refused: 0 };
        let began = Instant::now();
        // What it reads at once says little: it goes on until something was committed.
        for round in 0..100 {
            let reads = tokio::time::timeout(PATIENCE, self.read(&mut won));
            assert!(reads.await.is_ok(), "a read hangs");
            if round >= 3 && (won.committed > 0 || began.elapsed() > Duration::from_secs(20)) {
                break;
            }
        }
        assert!(survivor.try_wait().unwrap().is_none(), "the survivor is gone");
        survivor.kill().await.unwrap();
        self.unmount();
        won
    }

    /// Everything that reads a checkout, once.
    async fn read(&self, won: &mut Won) {
        match self.sandbox.changes().await {
            Ok(_) => {}
            Err(error) => expected(&error),
        }
        match self.sandbox.commit("feat: race").await {
            Ok(Some(commit)) => {
                won.committed += 1;
                self.judge_commit(&commit.sha);
            }
            Ok(None) => panic!("the oracle was not seen"),
            Err(error) => {
                won.refused += 1;
                expected(&error);
            }
        }
        let bundles = self.place.path("bundles");
        let claim = self.place.git.claim_sandbox(&self.id).await.unwrap().unwrap();
        for error in
            [claim.save(None, &bundles).await.err(), claim.save_left_out(&bundles).await.err()]
        {
            error.iter().for_each(expected);
        }
        let folders = claim.agent_folders().await.unwrap();
        drop(claim);
        let url = url::Url::from_directory_path(self.place.path("")).unwrap();
        let config = ArchiveConfig { url, options: Vec::new(), max_bytes: 1 << 30 };
        let archive = Archive::open(&config).unwrap();
        // Names that vanish end a save; what it has sent by then is judged too.
        let _ = archive.save(&self.id, "race", folders, &Redactor::default()).await;
        self.sandbox.write_ports_file("PORT=1\n".to_owned()).await.unwrap();
    }

    fn judge_commit(&self, sha: &str) {
        let trusted = self.trusted();
        let tree = git_in(&trusted, &["ls-tree", "-r", "--name-only", sha]);
        assert!(tree.lines().any(|name| name == ORACLE), "rules outside hid a file: {tree}");
        let oracle = git_in(&trusted, &["show", &format!("{sha}:{ORACLE}")]);
        assert_eq!(oracle, "inside");
    }

    /// Nothing outside is in any object, bundle or archive.
    fn judge(&self) {
        let all = git_in(&self.trusted(), &["cat-file", "--batch-all-objects", "--batch"]);
        let own = self.place.folder.path().as_os_str().as_encoded_bytes();
        let found = |bytes: &[u8], place: &Path| {
            assert!(!bytes.is_empty(), "{}", place.display());
            let bytes = bytes.windows(PRECIOUS.len()).filter(|some| *some == PRECIOUS).count();
            assert_eq!(bytes, 0, "something from outside is in {}", place.display());
        };
        assert!(!own.windows(PRECIOUS.len()).any(|some| some == PRECIOUS));
        found(all.as_bytes(), &self.trusted());
        for folder in [self.place.path("bundles"), self.place.path(self.id.as_str())] {
            for file in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = file.path();
                if path.extension().is_some_and(|kind| kind == "gz") {
                    let mut content = Vec::new();
                    let file = fs::File::open(&path).unwrap();
                    flate2::read::GzDecoder::new(file).read_to_end(&mut content).unwrap();
                    found(&content, &path);
                }
            }
        }
        let kept = fs::read(self.place.path("outside/a.txt")).unwrap();
        assert_eq!(kept, b"precious\n", "something outside was written");
    }

    fn trusted(&self) -> PathBuf {
        self.place.git.volume().trusted(&self.id)
    }

    /// What the survivor had mounted when it was killed.
    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let top = self.sandbox.checkout.to_str().unwrap();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in ours.filter(|mount| mount.starts_with(top)) {
            let done = process::blocking_command("umount").args(["-l", mount]).status();
            assert!(done.unwrap().success(), "{mount}");
        }
    }
}

/// An error that tells what is the matter with the files.
fn expected(error: &GitError) {
    let text = error.sentence();
    let known = matches!(
        error,
        GitError::Moving { .. }
            | GitError::File { .. }
            | GitError::Unusable(_)
            | GitError::NeedsLfs { .. }
    );
    assert!(known, "{text}");
    assert!(!matches!(error, GitError::NeedsLfs { .. }), "rules outside were obeyed: {text}");
}
