//! Commits of others on the branch of an order, taken up into sandboxes of every form.

use std::{fs, os::unix::fs::symlink};

use archon_awo::{
    domain::SandboxType,
    git::{Followed, GitError, History, Known, Parts, Plan, Remote, Sandbox},
};

use crate::git_place::{Place, branch, git_in, order};

const BRANCH: &str = "feat/x";

/// A sandbox whose first commit is on the remote.
async fn pushed(place: &Place, plan: &Plan) -> (Sandbox, Remote) {
    let remote = place.remote();
    let mirror = place.git.refresh_mirror_of(&remote, plan.history).await.unwrap();
    let (id, name) = (order("wo-1"), branch(BRANCH));
    let sandbox = place.git.open_sandbox(&mirror, &id, &name, plan).await.unwrap();
    fs::write(sandbox.checkout.join("ours.txt"), "1\n").unwrap();
    sandbox.commit("feat: ours").await.unwrap().unwrap();
    sandbox.push(&remote, &[]).await.unwrap();
    (sandbox, remote)
}

/// A person commits on the branch, after `change` in a clone, and pushes.
fn person(place: &Place, change: impl FnOnce(&std::path::Path)) -> String {
    let remote = place.path("remote/app.git");
    let clone = place.path("person");
    if !clone.exists() {
        let (from, to) = (remote.to_str().unwrap(), clone.to_str().unwrap());
        git_in(place.folder.path(), &["clone", "--quiet", "--branch", BRANCH, from, to]);
    }
    change(&clone);
    git_in(&clone, &["add", "-A"]);
    git_in(&clone, &["commit", "--quiet", "--message=By a person"]);
    git_in(&clone, &["push", "--quiet", "origin", BRANCH]);
    git_in(&clone, &["rev-parse", "HEAD"])
}

fn known(sandbox: &Sandbox, place: &Place, marks: bool) -> Known {
    let arrived = git_in(&place.git.volume().trusted(&sandbox.order), &["rev-parse", BRANCH]);
    Known { arrived: Some(arrived), marks, ..Known::default() }
}

async fn follow(sandbox: Sandbox, place: &Place) -> (Sandbox, Followed) {
    let known = known(&sandbox, place, false);
    let (sandbox, followed) = sandbox.follow(&place.remote(), &known).await.unwrap();
    (sandbox, followed.unwrap())
}

#[tokio::test]
async fn every_form_of_sandbox_goes_on_from_the_commit_of_a_person() {
    for (history, sandbox_type) in [
        (History::Full, SandboxType::GitWorktree),
        (History::Shallow, SandboxType::GitWorktree),
        (History::Shallow, SandboxType::GitBranch),
    ] {
        let place = Place::new();
        place.seed_commit("Second");
        place.publish();
        let plan = Plan { history, sandbox_type, ..Plan::default() };
        let (sandbox, remote) = pushed(&place, &plan).await;
        let theirs = person(&place, |clone| {
            fs::write(clone.join("theirs.txt"), "2\n").unwrap();
            fs::remove_file(clone.join("src/main.txt")).unwrap();
        });
        fs::write(sandbox.checkout.join("wip.txt"), "3\n").unwrap();
        fs::write(sandbox.checkout.join("README.md"), "# ours\n").unwrap();
        let (sandbox, followed) = follow(sandbox, &place).await;
        assert_eq!(
            (followed.head.as_str(), followed.commits, followed.files),
            (theirs.as_str(), 1, 2)
        );
        let read = |name: &str| fs::read_to_string(sandbox.checkout.join(name)).unwrap();
        assert_eq!(
            (read("theirs.txt"), read("wip.txt"), read("README.md")),
            ("2\n".into(), "3\n".into(), "# ours\n".into())
        );
        assert!(!sandbox.checkout.join("src").exists(), "an empty folder stays behind");
        let commit = sandbox.commit("feat: more").await.unwrap().unwrap();
        assert_eq!(commit.parent, theirs);
        sandbox.push(&remote, &[]).await.unwrap();
        let changed = place.ask_remote(&["diff", "--name-only", &theirs, BRANCH]);
        assert_eq!(changed, "README.md\nwip.txt");
        // Said again, there is nothing to do.
        let known = known(&sandbox, &place, false);
        assert_eq!(sandbox.follow(&remote, &known).await.unwrap().1, None);
    }
}

#[tokio::test]
async fn what_is_not_checked_out_is_theirs_and_lines_end_as_the_rules_say() {
    let place = Place::new();
    let seed = place.path("seed");
    fs::create_dir_all(seed.join("far/away")).unwrap();
    fs::write(seed.join("far/away/file.txt"), "1\n").unwrap();
    fs::write(seed.join(".gitattributes"), "*.bat text eol=crlf\n").unwrap();
    place.seed_commit("More");
    place.publish();
    let parts = Parts { sparse: vec!["src".parse().unwrap()], ..Parts::default() };
    let (sandbox, remote) = pushed(&place, &Plan { parts, ..Plan::default() }).await;
    let theirs = person(&place, |clone| {
        fs::write(clone.join("far/away/file.txt"), "theirs\n").unwrap();
        fs::write(clone.join("src/run.bat"), "a\r\nb\r\n").unwrap();
    });
    let (sandbox, _) = follow(sandbox, &place).await;
    assert!(!sandbox.checkout.join("far").exists());
    assert_eq!(fs::read(sandbox.checkout.join("src/run.bat")).unwrap(), b"a\r\nb\r\n");
    assert!(!sandbox.changes().await.unwrap().uncommitted, "the files are as committed");
    fs::write(sandbox.checkout.join("src/main.txt"), "ours\n").unwrap();
    sandbox.commit("feat: more").await.unwrap().unwrap();
    sandbox.push(&remote, &[]).await.unwrap();
    assert_eq!(place.ask_remote(&["diff", "--name-only", &theirs, BRANCH]), "src/main.txt");
    assert_eq!(place.ask_remote(&["show", &format!("{BRANCH}:far/away/file.txt")]), "theirs");
}

#[tokio::test]
async fn a_link_that_the_agent_left_leads_nowhere_and_is_a_conflict() {
    let place = Place::new();
    let (sandbox, remote) = pushed(&place, &Plan::default()).await;
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("main.txt"), "precious\n").unwrap();
    fs::remove_dir_all(sandbox.checkout.join("src")).unwrap();
    symlink(&outside, sandbox.checkout.join("src")).unwrap();
    // One that git ignores, where a folder is about to be.
    symlink(&outside, sandbox.checkout.join("dir.log")).unwrap();
    person(&place, |clone| {
        fs::write(clone.join("src/main.txt"), "theirs\n").unwrap();
        fs::create_dir(clone.join("dir.log")).unwrap();
        fs::write(clone.join("dir.log/main.txt"), "theirs\n").unwrap();
        git_in(clone, &["add", "--force", "dir.log/main.txt"]);
    });
    let refused = sandbox.clone().follow(&remote, &known(&sandbox, &place, false)).await;
    let Err(GitError::Conflict { files, .. }) = refused else { panic!("{refused:?}") };
    assert!(files.contains("src/main.txt"), "{files}");
    assert!(fs::symlink_metadata(sandbox.checkout.join("src")).unwrap().is_symlink());
    let (sandbox, followed) =
        sandbox.clone().follow(&remote, &known(&sandbox, &place, true)).await.unwrap();
    assert!(followed.unwrap().conflicts.contains(&"src/main.txt".to_owned()));
    assert!(fs::symlink_metadata(sandbox.checkout.join("src")).unwrap().is_symlink());
    let there = |name: &str| fs::read_to_string(sandbox.checkout.join(name)).unwrap();
    assert_eq!(there("dir.log/main.txt"), "theirs\n");
    assert_eq!(fs::read_to_string(outside.join("main.txt")).unwrap(), "precious\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn commits_that_were_taken_off_the_branch_are_not_put_back() {
    let place = Place::new();
    let (sandbox, remote) = pushed(&place, &Plan::default()).await;
    let first = place.ask_remote(&["rev-parse", BRANCH]);
    fs::write(sandbox.checkout.join("ours.txt"), "2\n").unwrap();
    sandbox.commit("feat: second").await.unwrap().unwrap();
    sandbox.push(&remote, &[]).await.unwrap();
    place.ask_remote(&["update-ref", &format!("refs/heads/{BRANCH}"), &first]);
    let known = known(&sandbox, &place, true);
    let refused = sandbox.follow(&remote, &known).await;
    let Err(error @ GitError::Diverged { only_ours: 1, only_theirs: 0, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(!error.retryable() && error.to_string().contains("1 commit that"), "{error}");
    assert_eq!(place.ask_remote(&["rev-parse", BRANCH]), first);
}
