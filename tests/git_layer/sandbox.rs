//! Caches, sandboxes, commits and pushes against a real repository in a folder.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use crate::git_place::{Place, branch, git_in, order};
use archon_awo::{
    domain::ErrorClass,
    git::{GitError, Transfer},
    process,
};

#[tokio::test]
async fn a_second_refresh_moves_nothing_and_a_new_commit_is_fetched() {
    let place = Place::new();
    let remote = place.remote();
    let first = place.git.refresh_mirror(&remote).await.unwrap();
    assert_eq!((first.transfer, first.default_branch.as_str()), (Transfer::Cloned, "main"));
    let objects = || git_in(&first.path, &["count-objects", "-v"]);
    let before = objects();
    assert_eq!(place.git.refresh_mirror(&remote).await.unwrap().transfer, Transfer::UpToDate);
    assert_eq!(objects(), before);

    place.seed_commit("More");
    place.publish();
    assert_eq!(place.git.refresh_mirror(&remote).await.unwrap().transfer, Transfer::Fetched);
    let (ours, theirs) =
        (git_in(&first.path, &["rev-parse", "main"]), place.ask_remote(&["rev-parse", "main"]));
    assert_eq!(ours, theirs);
}

#[tokio::test]
async fn branches_that_became_folders_are_followed() {
    let place = Place::new();
    git_in(&place.path("seed"), &["branch", "topic"]);
    place.publish();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    place.ask_remote(&["branch", "-D", "topic"]);
    place.ask_remote(&["branch", "topic/one", "main"]);
    place.git.refresh_mirror(&place.remote()).await.unwrap();
    assert_eq!(git_in(&mirror.path, &["branch", "--format=%(refname:short)"]), "main\ntopic/one");
}

#[tokio::test]
async fn several_orders_that_start_at_once_clone_the_repository_once() {
    let place = Place::new();
    let remote = place.remote();
    let refreshes = (0..6).map(|_| place.git.refresh_mirror(&remote));
    let mirrors = futures::future::try_join_all(refreshes).await.unwrap();
    let cloned = mirrors.iter().filter(|mirror| mirror.transfer == Transfer::Cloned).count();
    assert_eq!(cloned, 1, "{mirrors:?}");
}

#[tokio::test]
async fn a_damaged_cache_is_made_again_and_sandboxes_on_it_survive() {
    let place = Place::new();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let sandbox =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap();
    for pack in fs::read_dir(mirror.path.join("objects/pack")).unwrap() {
        let path = pack.unwrap().path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"garbage").unwrap();
    }
    let again = place.git.refresh_mirror(&place.remote()).await.unwrap();
    assert_eq!(again.transfer, Transfer::Cloned);
    assert_eq!(
        place.git.refresh_mirror(&place.remote()).await.unwrap().transfer,
        Transfer::UpToDate
    );
    fs::write(sandbox.checkout.join("new.txt"), "x").unwrap();
    assert!(sandbox.commit("feat: new").await.unwrap().is_some());
}

#[tokio::test]
async fn damage_that_only_a_checkout_finds_is_healed_by_the_next_try() {
    let place = Place::new();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let blob = git_in(&mirror.path, &["rev-parse", "main:README.md"]);
    git_in(&mirror.path, &["config", "core.compression", "0"]);
    for pack in fs::read_dir(mirror.path.join("objects/pack")).unwrap() {
        let path = pack.unwrap().path();
        let moved = mirror.path.join(path.file_name().unwrap());
        fs::rename(&path, &moved).unwrap();
        if moved.extension().is_some_and(|kind| kind == "pack") {
            let line = format!("git unpack-objects -q < {}", moved.display());
            let mut shell = process::blocking_command("/bin/sh");
            shell.env("PATH", "/usr/local/bin:/usr/bin:/bin").arg("-c").arg(line);
            assert!(shell.current_dir(&mirror.path).status().unwrap().success());
        }
    }
    let loose = mirror.path.join("objects").join(&blob[..2]).join(&blob[2..]);
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&loose, b"garbage").unwrap();

    assert_eq!(
        place.git.refresh_mirror(&place.remote()).await.unwrap().transfer,
        Transfer::UpToDate
    );
    let open = async |mirror| {
        place.git.open_sandbox(mirror, &order("wo-1"), &branch("feat/x"), None).await
    };
    let error = open(&mirror).await.unwrap_err();
    assert!(matches!(error, GitError::DamagedCache { .. }) && error.retryable(), "{error}");
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    assert_eq!(mirror.transfer, Transfer::Cloned);
    assert!(open(&mirror).await.unwrap().checkout.join("README.md").exists());
}

#[tokio::test]
async fn what_a_killed_fetch_left_is_swept_away() {
    let place = Place::new();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    fs::write(mirror.path.join("packed-refs.lock"), "").unwrap();
    fs::write(mirror.path.join("refs/heads/main.lock"), "").unwrap();
    fs::write(mirror.path.join("objects/pack/tmp_pack_x"), "half").unwrap();
    fs::create_dir_all(mirror.path.with_file_name("staging.git/objects")).unwrap();
    place.seed_commit("More");
    place.publish();
    assert_eq!(
        place.git.refresh_mirror(&place.remote()).await.unwrap().transfer,
        Transfer::Fetched
    );
    assert!(!mirror.path.join("objects/pack/tmp_pack_x").exists());
}

#[tokio::test]
async fn an_order_goes_from_checkout_to_a_pushed_branch() {
    let place = Place::new();
    let remote = place.remote();
    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    let (id, name) = (order("wo-1"), branch("feat/x-wo-1"));
    let sandbox = place.git.open_sandbox(&mirror, &id, &name, None).await.unwrap();
    assert_eq!(git_in(&sandbox.checkout, &["symbolic-ref", "HEAD"]), name.full_ref());
    assert_eq!(git_in(&sandbox.checkout, &["status", "--porcelain"]), "");
    assert_eq!(git_in(&sandbox.checkout, &["remote", "get-url", "origin"]), remote.url.clone_url());
    assert_eq!(sandbox.base_commit, place.ask_remote(&["rev-parse", "main"]));
    assert!(sandbox.home.is_dir() && sandbox.tmp.is_dir());
    assert_eq!(sandbox.commit("nothing").await.unwrap(), None);
    assert!(sandbox.head().await.unwrap().is_none());

    let work = |name: &str, text: &str| fs::write(sandbox.checkout.join(name), text).unwrap();
    work("src/main.txt", "one\n2\n");
    work("new file.txt", "new\n");
    work("run.sh", "#!/bin/sh\n");
    work("build.log", "noise");
    fs::set_permissions(sandbox.checkout.join("run.sh"), fs::Permissions::from_mode(0o755))
        .unwrap();
    fs::create_dir(sandbox.checkout.join("target")).unwrap();
    work("target/out.bin", "noise");
    fs::remove_file(sandbox.checkout.join("README.md")).unwrap();

    let changes = sandbox.changes().await.unwrap();
    assert_eq!((changes.files_changed, changes.insertions, changes.deletions), (4, 3, 2));
    assert!(changes.diff.contains("-two\n+2\n") && !changes.truncated, "{}", changes.diff);
    let commit = sandbox.commit("feat: change things").await.unwrap().unwrap();
    assert_eq!((commit.files_changed, commit.commit_count), (4, 1));
    assert_eq!(commit.parent, sandbox.base_commit);
    let again = sandbox.commit("feat: another message").await.unwrap().unwrap();
    assert_eq!(again, commit, "a repeated commit returns the first one");

    let pushed = sandbox.push(&remote, &[]).await.unwrap();
    assert_eq!((pushed.sha.as_str(), pushed.already_there), (commit.sha.as_str(), false));
    assert!(sandbox.push(&remote, &[]).await.unwrap().already_there, "a lost answer is found out");
    assert_eq!(
        place.ask_remote(&["show", "--format=%an|%B", "--name-status", &commit.sha]),
        "archon-awo|feat: change things\n\nArchon-Work-Order: wo-1\n\n\n\
         D\tREADME.md\nA\tnew file.txt\nA\trun.sh\nM\tsrc/main.txt"
    );
    let mode = place.ask_remote(&["ls-tree", &commit.sha, "run.sh"]);
    assert!(mode.starts_with("100755"), "{mode}");

    work("src/main.txt", "one\n3\n");
    let second = sandbox.commit("fix: more").await.unwrap().unwrap();
    assert_eq!((second.commit_count, second.parent.as_str()), (2, commit.sha.as_str()));
    let pushed = sandbox.push(&remote, &[]).await.unwrap();
    assert_eq!(place.ask_remote(&["rev-parse", name.as_str()]), pushed.sha);
}

#[tokio::test]
async fn a_branch_somebody_else_moved_is_left_alone() {
    let place = Place::new();
    let remote = place.remote();
    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    let name = branch("feat/x");
    let sandbox = place.git.open_sandbox(&mirror, &order("wo-1"), &name, None).await.unwrap();
    fs::write(sandbox.checkout.join("a.txt"), "a").unwrap();
    let commit = sandbox.commit("feat: a").await.unwrap().unwrap();
    place.seed_commit("Theirs");
    git_in(&place.path("seed"), &["branch", "feat/x"]);
    place.publish();
    let theirs = place.ask_remote(&["rev-parse", "feat/x"]);
    for replaced in [vec![], vec![commit.sha.clone()]] {
        let error = sandbox.push(&remote, &replaced).await.unwrap_err();
        assert!(
            matches!(&error, GitError::BranchMoved { found, .. } if *found == theirs),
            "{error}"
        );
        // The next try looks at what it is.
        assert!(error.class() == ErrorClass::Git && error.retryable());
    }
    assert_eq!(place.ask_remote(&["rev-parse", "feat/x"]), theirs);
}

#[tokio::test]
async fn an_own_push_whose_answer_was_lost_is_built_upon() {
    let place = Place::new();
    let remote = place.remote();
    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    let name = branch("feat/x");
    let sandbox = place.git.open_sandbox(&mirror, &order("wo-1"), &name, None).await.unwrap();
    for round in ["1", "2"] {
        fs::write(sandbox.checkout.join("a.txt"), round).unwrap();
        let commit = sandbox.commit("feat: a").await.unwrap().unwrap();
        sandbox.push(&remote, &[]).await.unwrap();
        assert_eq!(place.ask_remote(&["rev-parse", "feat/x"]), commit.sha);
    }
}

#[tokio::test]
async fn a_sandbox_is_reopened_and_an_interrupted_one_is_made_again() {
    let place = Place::new();
    let remote = place.remote();
    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    let (id, name) = (order("wo-1"), branch("feat/x"));
    assert!(place.git.find_sandbox(&id, &remote.url).await.unwrap().is_none());
    // A crash between making the folder and publishing the checkout.
    let folder = place.git.volume().sandbox(&id);
    fs::create_dir_all(folder.join(".staging/.git")).unwrap();
    fs::write(folder.join(".archon-sandbox"), "wo-1\n").unwrap();
    fs::create_dir_all(place.git.volume().trusted(&id).with_extension("staging")).unwrap();
    let sandbox = place.git.open_sandbox(&mirror, &id, &name, None).await.unwrap();
    fs::write(sandbox.checkout.join("kept.txt"), "kept").unwrap();

    let found = place.git.find_sandbox(&id, &remote.url).await.unwrap().unwrap();
    assert_eq!(
        (found.base_commit, found.checkout),
        (sandbox.base_commit.clone(), sandbox.checkout.clone())
    );
    place.git.open_sandbox(&mirror, &id, &name, None).await.unwrap();
    assert!(sandbox.checkout.join("kept.txt").exists());
    let other = place.git.open_sandbox(&mirror, &id, &branch("feat/y"), None).await;
    assert!(matches!(other, Err(GitError::OtherBranch { .. })), "{other:?}");

    fs::remove_dir_all(&sandbox.checkout).unwrap();
    assert!(place.git.find_sandbox(&id, &remote.url).await.unwrap().is_none());
    let new = place.git.open_sandbox(&mirror, &id, &name, None).await.unwrap();
    assert!(new.checkout.join("README.md").exists());
}

#[tokio::test]
async fn a_base_that_is_missing_or_in_the_way_is_named() {
    let place = Place::new();
    git_in(&place.path("seed"), &["branch", "feat"]);
    git_in(&place.path("seed"), &["branch", "docs/a/b"]);
    place.publish();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let open = async |name: &str, base: Option<&str>| {
        let base = base.map(branch);
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch(name), base.as_ref()).await
    };
    let error = open("fix/x", Some("release")).await.unwrap_err();
    assert!(matches!(error, GitError::NoBranch { .. }) && error.class() == ErrorClass::Invalid);
    for name in ["feat/x", "docs/a"] {
        let error = open(name, None).await.unwrap_err();
        assert!(matches!(error, GitError::BranchConflict { .. }), "{error}");
    }
    let sandbox = open("fix/x", Some("docs/a/b")).await.unwrap();
    assert_eq!(sandbox.base_branch, "docs/a/b");
}

#[tokio::test]
async fn removal_copes_with_what_an_agent_leaves_and_follows_no_link() {
    let place = Place::new();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let id = order("wo-1");
    let sandbox = place.git.open_sandbox(&mirror, &id, &branch("feat/x"), None).await.unwrap();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "1").unwrap();
    std::os::unix::fs::symlink(&outside, sandbox.checkout.join("link")).unwrap();
    let locked = sandbox.checkout.join("locked/deeper");
    fs::create_dir_all(&locked).unwrap();
    fs::write(locked.join("file"), "1").unwrap();
    for folder in [locked.as_path(), locked.parent().unwrap()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
    }
    fs::remove_file(sandbox.root.join(".archon-sandbox")).unwrap();
    place.git.remove_sandbox(&id).await.unwrap();
    place.git.remove_sandbox(&id).await.unwrap();
    assert!(!sandbox.root.exists() && !place.git.volume().trusted(&id).exists());
    assert_eq!(fs::read_dir(place.git.volume().trash()).unwrap().count(), 0);
    assert!(outside.join("precious").exists() && mirror.path.exists());

    let foreign = place.git.volume().sandbox(&order("not-ours"));
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("data"), "1").unwrap();
    let refused = place.git.remove_sandbox(&order("not-ours")).await;
    assert!(matches!(refused, Err(GitError::NotASandbox { .. })), "{refused:?}");
    assert!(foreign.join("data").exists());
}

#[tokio::test]
async fn a_repository_that_is_missing_or_empty_is_told_apart() {
    let place = Place::new();
    fs::rename(place.path("remote/app.git"), place.path("remote/away")).unwrap();
    let error = place.git.verify(&place.remote()).await.unwrap_err();
    assert!(matches!(error, GitError::NotFound { .. }) && !error.retryable(), "{error}");
    git_in(place.folder.path(), &["init", "--quiet", "--bare", "remote/app.git"]);
    let error = place.git.refresh_mirror(&place.remote()).await.unwrap_err();
    assert!(matches!(error, GitError::Empty { .. }) && !error.retryable(), "{error}");
}

/// A stand-in for git that hangs with a child, as git does with its transport helpers.
fn hanging_git(folder: &Path) -> std::path::PathBuf {
    let script = folder.join("hanging-git");
    let text = "#!/bin/sh\nsleep 300 &\necho $$ $! > \"$HOME/pids\"\nwait\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn git_and_its_children_die_with_their_caller_and_at_the_time_limit() {
    let scripts = tempfile::tempdir().unwrap();
    let script = hanging_git(scripts.path());
    let place = Place::with(|settings| {
        settings.binary = script.clone();
        settings.fetch_timeout = Duration::from_secs(2);
    });
    let pids = place.path("git-home/pids");
    let alive = |pids: &str| {
        let running = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        pids.split_whitespace().any(running)
    };
    let read = || fs::read_to_string(&pids).unwrap_or_default();

    let (git, remote) = (place.git.clone(), place.remote());
    let task = tokio::spawn(async move { git.verify(&remote).await });
    until("git runs", || read().ends_with('\n')).await;
    let started = read();
    assert!(alive(&started));
    task.abort();
    until("a dropped git is gone", || !alive(&started)).await;

    fs::remove_file(&pids).unwrap();
    let error = place.git.verify(&place.remote()).await.unwrap_err();
    assert!(matches!(error, GitError::Timeout { .. }) && error.class() == ErrorClass::Timeout);
    let started = read();
    assert!(!started.is_empty());
    until("a late git is gone", || !alive(&started)).await;
}
