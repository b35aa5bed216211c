//! Parts of a repository, over HTTPS: some of its folders, and little of its history.

use std::{fs, path::Path};

use crate::{
    git_place::git_in,
    parts_yard::{Yard, parts, read, write},
};
use archon_awo::git::{History, Parts, Plan, Transfer};

fn sparse(folders: &[&str]) -> Plan {
    let sparse = folders.iter().map(|folder| folder.parse().unwrap()).collect();
    parts(|plan| plan.parts = Parts { sparse, ..Parts::default() })
}

const FILES: &[(&str, &str)] = &[
    ("services/api/main.txt", "api\n"),
    ("services/api/deep/er.txt", "deeper\n"),
    ("services/web/main.txt", "web\n"),
    ("services/README.md", "services\n"),
    ("docs/guide.md", "guide\n"),
];

#[tokio::test]
async fn a_sparse_checkout_has_its_folders_and_loses_nothing_of_the_others() {
    let yard = Yard::new();
    yard.change(FILES);
    let sandbox = yard.open("wo-1", &sparse(&["services/api"])).await.unwrap();
    let here = |name: &str| sandbox.checkout.join(name).exists();
    for name in ["README.md", "services/README.md", "services/api/deep/er.txt"] {
        assert!(here(name), "{name}");
    }
    assert!(!here("services/web") && !here("docs") && !here("src"));
    let ask = |arguments: &[&str]| git_in(&sandbox.checkout, arguments);
    assert_eq!(ask(&["sparse-checkout", "list"]), "services/api");
    assert_eq!(ask(&["status", "--porcelain"]), "");

    write(&sandbox.checkout, &[("services/api/main.txt", "changed\n"), ("docs/new.md", "new\n")]);
    fs::remove_file(sandbox.checkout.join("services/api/deep/er.txt")).unwrap();
    let changes = sandbox.changes().await.unwrap();
    assert_eq!((changes.files_changed, changes.uncommitted), (3, true), "{}", changes.diff);
    // Not checked out, so not removed, although it was there for a while.
    fs::remove_file(sandbox.checkout.join("docs/new.md")).unwrap();
    write(&sandbox.checkout, &[("docs/other.md", "other\n")]);
    let commit = sandbox.commit("feat: change").await.unwrap().unwrap();
    assert_eq!(commit.files_changed, 3, "a file that was there for a while is none of them");
    sandbox.push(&yard.remote(), &[]).await.unwrap();
    let served = yard.served("feat/wo-1");
    for name in ["services/web/main.txt", "docs/guide.md", "src/main.txt", "docs/other.md"] {
        assert!(served.iter().any(|file| file == name), "{name}: {served:?}");
    }
    assert!(!served.iter().any(|file| file.contains("er.txt")), "{served:?}");
    git_in(&yard.bare("app"), &["fsck", "--strict"]);
}

#[tokio::test]
async fn a_sparse_checkout_is_made_again_as_it_was() {
    let yard = Yard::new();
    yard.change(FILES);
    let plan = sparse(&["services/api"]);
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    write(&sandbox.checkout, &[("services/api/main.txt", "changed\n")]);
    sandbox.commit("feat: change").await.unwrap().unwrap();
    write(&sandbox.checkout, &[("services/api/new.txt", "new\n")]);
    let folder = yard.place.path("bundles");
    let git = &yard.place.git;
    let bundle = git.save_unpushed(&sandbox.order, None, &folder).await.unwrap().unwrap();
    yard.lose_volume();

    let mirror = git.refresh_mirror(&yard.remote()).await.unwrap();
    let (id, name) = (&sandbox.order, &sandbox.branch);
    let again = git.restore_sandbox(&mirror, id, name, &plan, &bundle.path).await.unwrap();
    assert!(!again.checkout.join("docs").exists() && !again.checkout.join("services/web").exists());
    let status = git_in(&again.checkout, &["status", "--porcelain"]);
    assert_eq!(status, "?? services/api/new.txt");
    assert_eq!(git_in(&again.checkout, &["log", "--format=%s", "-1"]), "feat: change");
    let commit = again.commit("feat: new").await.unwrap().unwrap();
    assert_eq!((commit.files_changed, commit.commit_count), (2, 2));
}

#[tokio::test]
async fn little_history_is_enough_for_an_order() {
    let yard = Yard::new();
    for number in 0..5 {
        yard.change(&[("count.txt", &number.to_string())]);
    }
    let plan = parts(|plan| plan.history = History::Shallow);
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    let count = |folder: &Path| git_in(folder, &["rev-list", "--count", "HEAD"]);
    assert_eq!(count(&sandbox.checkout), "1");
    let mirror = yard.place.git.refresh_mirror_of(&yard.remote(), plan.history).await.unwrap();
    assert_eq!((mirror.transfer, count(&mirror.path).as_str()), (Transfer::UpToDate, "1"));

    // The branch moves on, and another one starts before everything that we have.
    yard.change(&[("count.txt", "moved on\n")]);
    git_in(&yard.bare("app"), &["branch", "old", "main~4"]);
    let next = yard.open("wo-2", &plan).await.unwrap();
    assert_eq!(
        (read(&next.checkout, "count.txt"), count(&next.checkout)),
        ("moved on\n".into(), "1".into())
    );
    assert_eq!(git_in(&mirror.path, &["rev-list", "--count", "old"]), "1");
    for sandbox in [&sandbox, &next] {
        write(&sandbox.checkout, &[("new.txt", "new\n")]);
        let commit = sandbox.commit("feat: new").await.unwrap().unwrap();
        assert_eq!((commit.files_changed, commit.commit_count), (1, 1));
        sandbox.push(&yard.remote(), &[]).await.unwrap();
        assert!(sandbox.push(&yard.remote(), &[]).await.unwrap().already_there);
        git_in(&sandbox.checkout, &["fsck"]);
    }
    git_in(&yard.bare("app"), &["fsck", "--strict"]);
    assert_eq!(git_in(&yard.bare("app"), &["rev-list", "--count", "feat/wo-1"]), "7");
    // A cache with all of it is another one.
    let whole = yard.place.git.refresh_mirror(&yard.remote()).await.unwrap();
    assert_eq!((whole.transfer, count(&whole.path).as_str()), (Transfer::Cloned, "7"));
}

#[tokio::test]
async fn work_on_little_history_is_found_again() {
    let yard = Yard::new();
    // More than are fetched beyond our own commits.
    for number in 0..30 {
        yard.change(&[("number.txt", &number.to_string())]);
    }
    yard.change(&[("count.txt", "1")]);
    let plan = parts(|plan| plan.history = History::Shallow);
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    write(&sandbox.checkout, &[("new.txt", "new\n")]);
    sandbox.commit("feat: new").await.unwrap().unwrap();
    sandbox.push(&yard.remote(), &[]).await.unwrap();
    write(&sandbox.checkout, &[("second.txt", "second\n")]);
    let commit = sandbox.commit("feat: second").await.unwrap().unwrap();
    assert_eq!(commit.commit_count, 2);
    // The answer to the first push was lost.
    sandbox.push(&yard.remote(), &[]).await.unwrap();
    write(&sandbox.checkout, &[("newer.txt", "newer\n")]);
    let git = &yard.place.git;
    let folder = yard.place.path("bundles");
    let bundle = git.save_unpushed(&sandbox.order, None, &folder).await.unwrap().unwrap();
    // Nothing of what the order started from is at the head of a branch any more.
    yard.change(&[("count.txt", "2")]);
    let (id, name, base) = (&sandbox.order, &sandbox.branch, &sandbox.base_commit);

    yard.lose_volume();
    let mirror = git.refresh_mirror_of(&yard.remote(), plan.history).await.unwrap();
    let pushed = [commit.sha.clone()];
    let again = git.rebuild_sandbox(&mirror, id, name, &plan, base, &pushed).await.unwrap();
    let again = again.expect("the work is on the branch");
    assert_eq!(again.base_commit, *base);
    assert_eq!(git_in(&again.checkout, &["status", "--porcelain"]), "");
    assert_eq!(git_in(&again.checkout, &["rev-parse", "HEAD"]), commit.sha);
    assert_eq!(
        (read(&again.checkout, "new.txt"), read(&again.checkout, "count.txt")),
        ("new\n".into(), "1".into())
    );
    assert_eq!(again.head().await.unwrap().unwrap().commit_count, 2);

    yard.lose_volume();
    let mirror = git.refresh_mirror_of(&yard.remote(), plan.history).await.unwrap();
    let again = git.restore_sandbox(&mirror, id, name, &plan, &bundle.path).await.unwrap();
    assert_eq!(git_in(&again.checkout, &["status", "--porcelain"]), "?? newer.txt");
    again.commit("feat: newer").await.unwrap().unwrap();
    again.push(&yard.remote(), &[]).await.unwrap();
    git_in(&yard.bare("app"), &["fsck", "--strict"]);
}
