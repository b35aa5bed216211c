//! The two forms of a sandbox: objects of the cache, or objects of its own.

use std::{fs, path::Path};

use crate::git_place::{Place, branch, git_in, order};
use archon_awo::{
    domain::SandboxType,
    git::{Plan, Sandbox},
};

fn own() -> Plan {
    Plan { sandbox_type: SandboxType::GitBranch, ..Plan::default() }
}

async fn open(place: &Place, id: &str, plan: &Plan) -> Sandbox {
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let name = branch(&format!("feat/{id}"));
    place.git.open_sandbox(&mirror, &order(id), &name, plan).await.unwrap()
}

fn mentions(folder: &Path, words: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(mentions(&entry.path(), words));
        } else if String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).contains(words) {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test]
async fn a_sandbox_of_its_own_outlives_the_cache() {
    let place = Place::new();
    place.seed_commit("A second commit");
    place.publish();
    let sandbox = open(&place, "wo-1", &own()).await;
    assert_eq!(sandbox.borrowed_objects().await.unwrap(), Vec::<std::path::PathBuf>::new());
    assert_eq!(mentions(&sandbox.checkout, ".cache/mirrors"), Vec::<std::path::PathBuf>::new());
    fs::remove_dir_all(place.git.volume().root().join(".cache/mirrors")).unwrap();

    // The agent has the history, and works with it.
    assert_eq!(git_in(&sandbox.checkout, &["log", "--format=%s"]), "A second commit\nStart");
    git_in(&sandbox.checkout, &["fsck", "--strict"]);
    assert_eq!(git_in(&sandbox.checkout, &["status", "--porcelain"]), "");
    fs::write(sandbox.checkout.join("new.txt"), "new\n").unwrap();
    git_in(&sandbox.checkout, &["add", "-A"]);
    git_in(&sandbox.checkout, &["commit", "--quiet", "-m", "The agent's own"]);

    // So does the runner.
    let commit = sandbox.commit("feat: new").await.unwrap().unwrap();
    assert_eq!((commit.files_changed, commit.commit_count), (1, 1));
    sandbox.push(&place.remote(), &[]).await.unwrap();
    assert_eq!(place.ask_remote(&["rev-parse", "feat/wo-1"]), commit.sha);
    place.ask_remote(&["fsck", "--strict"]);
}

#[tokio::test]
async fn a_change_of_the_agents_objects_reaches_neither_cache_nor_trusted_repository() {
    let place = Place::new();
    let sandbox = open(&place, "wo-1", &own()).await;
    for folder in fs::read_dir(sandbox.checkout.join(".git/objects")).unwrap().flatten() {
        fs::remove_dir_all(folder.path()).unwrap();
    }
    fs::write(sandbox.checkout.join("new.txt"), "new\n").unwrap();
    assert!(sandbox.commit("feat: new").await.unwrap().is_some());
    sandbox.push(&place.remote(), &[]).await.unwrap();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    git_in(&mirror.path, &["fsck", "--strict"]);
}

#[tokio::test]
async fn both_forms_give_the_agent_the_same_repository() {
    let place = Place::new();
    git_in(&place.path("seed"), &["branch", "release/2.x"]);
    place.publish();
    let base = branch("release/2.x");
    let mut seen = Vec::new();
    for (id, sandbox_type) in [("wo-1", SandboxType::GitWorktree), ("wo-2", SandboxType::GitBranch)]
    {
        let plan = Plan { base: Some(base.clone()), sandbox_type, ..Plan::default() };
        let sandbox = open(&place, id, &plan).await;
        assert_eq!(sandbox.base_branch, "release/2.x");
        let ask = |arguments: &[&str]| git_in(&sandbox.checkout, arguments).replace(id, "ID");
        seen.push([
            ask(&["for-each-ref", "--format=%(refname) %(objectname)"]),
            ask(&["ls-files", "--stage"]),
            ask(&["config", "--local", "--list"]),
            ask(&["symbolic-ref", "HEAD"]),
        ]);
    }
    assert_eq!(seen[0], seen[1]);
    let refs = &seen[0][0];
    assert!(refs.contains("refs/remotes/origin/release/2.x ") && !refs.contains("main"), "{refs}");
}
