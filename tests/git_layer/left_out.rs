//! What an agent leaves that no commit holds: it is named, and saved before the sandbox goes.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    git_place::{Place, git_in},
    peer::open,
};

fn repository(folder: &Path, has_commits: bool) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("inner.txt"), "inner\n").unwrap();
    git_in(folder, &["init", "--quiet"]);
    if has_commits {
        git_in(folder, &["add", "--all"]);
        git_in(folder, &["commit", "--quiet", "-m", "Inner"]);
    }
}

#[tokio::test]
async fn everything_that_is_in_no_commit_is_named() {
    let place = Place::new();
    let sandbox = open(&place).await;
    let path = |name: &str| sandbox.checkout.join(name);
    repository(&path("generated"), false);
    repository(&path("vendor/inner"), true);
    repository(&path("src"), true);
    repository(&path("target/inner"), true);
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("agent.sock")).unwrap();
    fs::create_dir_all(path("deep/.GIT")).unwrap();
    fs::write(path("deep/.GIT/config"), "x\n").unwrap();

    let changes = sandbox.changes().await.unwrap();
    let listed = changes.left_out.listed();
    let listed: Vec<(&str, &str)> = listed.iter().map(|(path, why)| (&**path, *why)).collect();
    assert_eq!(
        listed,
        [
            ("agent.sock", "a socket"),
            ("deep/.GIT", "git does not take this name"),
            ("pipe", "a pipe"),
            ("src/.git", "commits of another git repository"),
            ("vendor/inner", "a git repository of its own with commits"),
        ]
    );
    assert_eq!(changes.left_out.count(), 5);
    sandbox.commit("feat: what there is").await.unwrap().unwrap();
    sandbox.push(&place.remote(), &[]).await.unwrap();
    let files = place.ask_remote(&["diff", "--name-only", "main", "feat/x"]);
    assert_eq!(files, "generated/inner.txt\nsrc/inner.txt");
}

#[tokio::test]
async fn what_is_left_out_is_saved_and_comes_back_out_of_its_file() {
    let place = Place::new();
    let sandbox = open(&place).await;
    repository(&sandbox.checkout.join("vendor/inner"), true);
    let closed = sandbox.checkout.join("vendor/inner/closed");
    fs::write(&closed, "closed\n").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    nix::unistd::mkfifo(&sandbox.checkout.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let bundles = place.path("bundles");
    let claim = place.git.claim_sandbox(&sandbox.order).await.unwrap().unwrap();
    assert!(claim.save(None, &bundles).await.unwrap().is_none(), "nothing else is new");
    let saved = claim.save_left_out(&bundles).await.unwrap().unwrap();
    let again = claim.save_left_out(&bundles).await.unwrap().unwrap();
    assert_eq!(saved, again, "the same is saved once");
    assert_eq!(fs::read_dir(&bundles).unwrap().count(), 1);
    assert_eq!(fs::metadata(&saved.path).unwrap().permissions().mode() & 0o777, 0o600);

    let mut tar =
        tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&saved.path).unwrap()));
    let into = place.path("into");
    tar.unpack(&into).unwrap();
    let inner = into.join("vendor/inner");
    assert_eq!(git_in(&inner, &["log", "--format=%s"]), "Inner");
    assert_eq!(fs::metadata(inner.join("closed")).unwrap().len(), 7);
    assert!(!into.join("pipe").exists(), "a pipe has no content");
}
