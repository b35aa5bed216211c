//! What a remote in a folder really refuses, and whether the next try is let through.

use std::fs;

use crate::git_place::{Place, branch, order};
use archon_awo::git::GitError;

#[tokio::test]
async fn a_branch_that_another_git_holds_on_the_server_is_pushed_later() {
    let place = Place::new();
    let remote = place.remote();
    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    let sandbox =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap();
    fs::write(sandbox.checkout.join("a.txt"), "a").unwrap();
    let commit = sandbox.commit("feat: a").await.unwrap().unwrap();
    let lock = place.path("remote/app.git/refs/heads/feat/x.lock");
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    fs::write(&lock, "").unwrap();
    let error = sandbox.push(&remote, &[]).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    assert!(error.to_string().contains("could not move the branch feat/x"), "{error}");
    assert!(error.to_string().contains("x.lock': File exists"), "{error}");
    fs::remove_file(&lock).unwrap();
    assert_eq!(sandbox.push(&remote, &[]).await.unwrap().sha, commit.sha);
}

#[tokio::test]
async fn a_name_that_became_impossible_meanwhile_is_no_race() {
    let place = Place::new();
    let remote = place.remote();
    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    let sandbox =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("Feat/x"), None).await.unwrap();
    fs::write(sandbox.checkout.join("a.txt"), "a").unwrap();
    sandbox.commit("feat: a").await.unwrap();
    place.ask_remote(&["branch", "Feat", "main"]);
    let error = sandbox.push(&remote, &[]).await.unwrap_err();
    let named = |error: &GitError| matches!(error, GitError::BranchConflict { existing, .. } if existing == "Feat");
    assert!(named(&error) && !error.retryable(), "{error}");
}

#[tokio::test]
async fn a_folder_of_another_user_is_not_tried_again() {
    // Git itself is told to take every folder for another user's.
    let place = Place::with(|settings| {
        let name = "GIT_TEST_ASSUME_DIFFERENT_OWNER".into();
        settings.environment.push((name, "1".into()));
    });
    let error = place.git.verify(&place.remote()).await.unwrap_err();
    assert!(!error.retryable(), "{error}");
    let folder = place.path("remote/app.git").display().to_string();
    let user = nix::unistd::geteuid();
    assert!(error.to_string().contains(&format!("chown -R {user} {folder}")), "{error}");
}
