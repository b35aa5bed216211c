//! Work that is nowhere but in a sandbox, saved as a bundle and put back.

use std::{fs, path::PathBuf};

use crate::git_place::{Place, branch, git_in, order};
use archon_awo::{
    domain::WorkOrderId,
    git::{Bundle, Sandbox},
};

async fn open(place: &Place, id: &WorkOrderId) -> Sandbox {
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    place.git.open_sandbox(&mirror, id, &branch("feat/x"), None).await.unwrap()
}

async fn save(place: &Place, id: &WorkOrderId) -> Option<Bundle> {
    let remote = place.remote();
    place.git.save_unpushed(id, Some(&remote), &folder(place)).await.unwrap()
}

async fn restore(place: &Place, id: &WorkOrderId, bundle: &Bundle) -> Sandbox {
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let name = branch("feat/x");
    place.git.restore_sandbox(&mirror, id, &name, None, &bundle.path).await.unwrap()
}

fn folder(place: &Place) -> PathBuf {
    place.path("work-orders/wo-1/bundles")
}

#[tokio::test]
async fn what_is_pushed_or_never_was_needs_no_bundle() {
    let place = Place::new();
    let id = order("wo-1");
    assert_eq!(save(&place, &id).await, None, "there is no sandbox");
    let sandbox = open(&place, &id).await;
    assert_eq!(save(&place, &id).await, None, "nothing was changed");
    fs::write(sandbox.checkout.join("README.md"), "# changed\n").unwrap();
    sandbox.commit("docs: change").await.unwrap().unwrap();
    let bundle = save(&place, &id).await.expect("nothing is pushed yet");
    assert_eq!(bundle.head, bundle.files);
    sandbox.push(&place.remote(), &[]).await.unwrap();
    assert_eq!(save(&place, &id).await, None, "the remote has it");

    fs::write(sandbox.checkout.join("later.txt"), "later\n").unwrap();
    let late = save(&place, &id).await.expect("a file came after the push");
    assert_ne!(late.files, late.head);
    fs::remove_file(sandbox.checkout.join("later.txt")).unwrap();
    place.ask_remote(&["branch", "-D", "feat/x"]);
    assert!(save(&place, &id).await.is_some(), "the branch was deleted from the remote");
    fs::rename(place.path("remote"), place.path("away")).unwrap();
    assert!(save(&place, &id).await.is_some(), "the remote does not answer");
}

#[tokio::test]
async fn commits_and_uncommitted_files_come_back_as_they_were() {
    let place = Place::new();
    let id = order("wo-1");
    let sandbox = open(&place, &id).await;
    let base = sandbox.base_commit.clone();
    let at = |name: &str| sandbox.checkout.join(name);
    fs::write(at("README.md"), "# committed\n").unwrap();
    let commit = sandbox.commit("docs: change").await.unwrap().unwrap();
    fs::write(at("src/new.txt"), "not committed\n").unwrap();
    fs::remove_file(at("src/main.txt")).unwrap();
    fs::write(at("build.log"), "ignored\n").unwrap();
    let bundle = save(&place, &id).await.unwrap();
    assert_eq!((bundle.base.as_str(), bundle.head.as_str()), (base.as_str(), commit.sha.as_str()));
    assert_eq!(bundle.size, fs::metadata(&bundle.path).unwrap().len());
    assert_eq!(save(&place, &id).await.unwrap(), bundle, "the same work is saved once");
    assert_eq!(fs::read_dir(folder(&place)).unwrap().count(), 1);

    place.git.remove_sandbox(&id).await.unwrap();
    // Meanwhile the repository goes on.
    fs::write(place.path("seed/src/other.txt"), "of somebody else\n").unwrap();
    place.seed_commit("Go on");
    place.publish();

    let restored = restore(&place, &id, &bundle).await;
    assert_eq!(restored.base_commit, base);
    assert_eq!(restored.head().await.unwrap().unwrap().sha, commit.sha);
    assert_eq!(fs::read_to_string(at("README.md")).unwrap(), "# committed\n");
    assert_eq!(fs::read_to_string(at("src/new.txt")).unwrap(), "not committed\n");
    for gone in ["src/main.txt", "src/other.txt", "build.log"] {
        assert!(!at(gone).exists(), "{gone}");
    }
    // The agent sees its own branch, with the rest as changes of its own.
    assert_eq!(git_in(&restored.checkout, &["rev-parse", "HEAD"]), commit.sha);
    let status = git_in(&restored.checkout, &["status", "--short"]);
    assert_eq!(status.trim(), "D src/main.txt\n?? src/new.txt");
    assert_eq!(git_in(&restored.checkout, &["branch", "--show-current"]), "feat/x");
    git_in(&restored.checkout, &["fsck", "--no-dangling"]);

    let found = place.git.find_sandbox(&id, &place.remote().url).await.unwrap().unwrap();
    assert_eq!(found.base_commit, base, "the record says so too");
    let next = found.commit("feat: the rest").await.unwrap().unwrap();
    assert_eq!((next.parent, next.commit_count), (commit.sha, 2));
    found.push(&place.remote(), &[]).await.unwrap();
    let files = place.ask_remote(&["ls-tree", "-r", "--name-only", "feat/x"]);
    assert_eq!(files, ".gitignore\nREADME.md\nsrc/new.txt");
}

#[tokio::test]
async fn a_restore_that_was_cut_short_is_begun_again() {
    let place = Place::new();
    let id = order("wo-1");
    let sandbox = open(&place, &id).await;
    fs::write(sandbox.checkout.join("new.txt"), "work\n").unwrap();
    let bundle = save(&place, &id).await.unwrap();
    place.git.remove_sandbox(&id).await.unwrap();

    // What a crash leaves between the making of the sandbox and the end of its restore.
    open(&place, &id).await;
    let note = place.git.volume().root().join(".cache/restoring/wo-1");
    fs::create_dir_all(note.parent().unwrap()).unwrap();
    fs::write(&note, "").unwrap();
    let url = place.remote().url;
    assert!(place.git.find_sandbox(&id, &url).await.unwrap().is_none(), "it is not complete");
    let restored = restore(&place, &id, &bundle).await;
    assert_eq!(fs::read_to_string(restored.checkout.join("new.txt")).unwrap(), "work\n");
    assert!(!note.exists());

    // Who starts anew instead of restoring gets a sandbox that counts.
    fs::write(&note, "").unwrap();
    assert!(!open(&place, &id).await.checkout.join("new.txt").exists());
    assert!(place.git.find_sandbox(&id, &url).await.unwrap().is_some());
}

#[tokio::test]
async fn a_bundle_that_is_damaged_or_has_no_base_any_more_is_refused() {
    let place = Place::new();
    let id = order("wo-1");
    let sandbox = open(&place, &id).await;
    fs::write(sandbox.checkout.join("new.txt"), "work\n".repeat(500)).unwrap();
    let bundle = save(&place, &id).await.unwrap();
    place.git.remove_sandbox(&id).await.unwrap();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let try_file = async |path: PathBuf| {
        let name = branch("feat/x");
        let tried = place.git.restore_sandbox(&mirror, &id, &name, None, &path).await;
        assert!(place.git.find_sandbox(&id, &place.remote().url).await.unwrap().is_none());
        tried.unwrap_err().to_string()
    };
    let bytes = fs::read(&bundle.path).unwrap();
    let cut = place.path("cut.bundle");
    fs::write(&cut, &bytes[..bytes.len() - 30]).unwrap();
    try_file(cut).await;
    let text = place.path("text.bundle");
    fs::write(&text, "hello").unwrap();
    assert!(try_file(text).await.contains("is not a bundle of archon-awo"));
    let other = place.path("other.bundle");
    let head = String::from_utf8_lossy(&bytes[..200]).replace(&bundle.base, &"1".repeat(40));
    fs::write(&other, head).unwrap();
    assert!(try_file(other).await.contains("does not have any more"));
}

#[tokio::test]
async fn an_agent_that_removed_or_replaced_its_checkout_loses_no_commit() {
    let place = Place::new();
    let id = order("wo-1");
    let sandbox = open(&place, &id).await;
    fs::write(sandbox.checkout.join("new.txt"), "work\n").unwrap();
    let commit = sandbox.commit("feat: work").await.unwrap().unwrap();
    fs::remove_dir_all(&sandbox.checkout).unwrap();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("private.txt"), "not of the order\n").unwrap();
    std::os::unix::fs::symlink(&outside, &sandbox.checkout).unwrap();
    let bundle = save(&place, &id).await.unwrap();
    assert_eq!((&bundle.head, &bundle.files), (&commit.sha, &commit.sha));
    let restored = restore(&place, &id, &bundle).await;
    assert_eq!(fs::read_to_string(restored.checkout.join("new.txt")).unwrap(), "work\n");
    assert!(outside.join("private.txt").exists());
}
