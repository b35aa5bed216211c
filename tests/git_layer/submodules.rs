//! Submodules, over HTTPS and through the gate for addresses.

use std::{fs, path::Path};

use crate::{
    git_place::git_in,
    parts_yard::{Yard, read, write},
};
use archon_awo::{
    domain::{ErrorClass, SandboxType},
    git::{History, Parts, Plan, Sandbox},
};

/// Serves `acme/lib` and `acme/inner`, one inside the other, and makes the app use the first.
fn add_submodules(yard: &Yard) -> String {
    let checkout = |name: &str| {
        let folder = yard.place.path(name);
        fs::create_dir(&folder).unwrap();
        git_in(&folder, &["init", "--quiet", "--initial-branch=main"]);
        write(&folder, &[("code.txt", &format!("{name}\n"))]);
        folder
    };
    let commit = |folder: &Path| {
        git_in(folder, &["add", "-A"]);
        git_in(folder, &["commit", "--quiet", "-m", "Start"]);
        git_in(folder, &["rev-parse", "HEAD"])
    };
    let link = |folder: &Path, path: &str, url: &str, sha: &str| {
        let list = format!("[submodule \"x/../{path}\"]\n\tpath = {path}\n\turl = {url}\n");
        write(folder, &[(".gitmodules", &list)]);
        git_in(folder, &["add", ".gitmodules"]);
        git_in(folder, &["update-index", "--add", "--cacheinfo", &format!("160000,{sha},{path}")]);
        git_in(folder, &["commit", "--quiet", "-m", "Use another repository"]);
        git_in(folder, &["rev-parse", "HEAD"])
    };
    let inner = checkout("inner");
    let inner_sha = commit(&inner);
    yard.serve("inner", &inner);
    let lib = checkout("lib");
    commit(&lib);
    let lib_sha = link(&lib, "inner", "../inner.git", &inner_sha);
    yard.serve("lib", &lib);
    // The branch of the library moves on; the app stays with what it named.
    write(&lib, &[("code.txt", "newer\n")]);
    git_in(&lib, &["commit", "--quiet", "-am", "Newer"]);
    yard.serve("lib", &lib);
    let url = format!("https://{}/acme/lib.git", yard.server.host());
    let seed = yard.place.path("seed");
    // Without its folder, the next `git add` would take the link away.
    fs::create_dir_all(seed.join("libs/lib")).unwrap();
    link(&seed, "libs/lib", &url, &lib_sha);
    yard.serve("app", &yard.place.path("seed"));
    lib_sha
}

fn with_submodules(sandbox_type: SandboxType) -> Plan {
    let parts = Parts { submodules: true, ..Parts::default() };
    Plan { parts, sandbox_type, ..Plan::default() }
}

#[tokio::test]
async fn submodules_are_fetched_and_left_out_of_commits() {
    let yard = Yard::new();
    let lib = add_submodules(&yard);
    let without = yard.open("wo-0", &Plan::default()).await.unwrap();
    assert_eq!(fs::read_dir(without.checkout.join("libs/lib")).unwrap().count(), 0);
    for (id, form) in [("wo-1", SandboxType::GitWorktree), ("wo-2", SandboxType::GitBranch)] {
        let sandbox = yard.open(id, &with_submodules(form)).await.unwrap();
        let folder = sandbox.checkout.join("libs/lib");
        assert_eq!(read(&folder, "code.txt"), "lib\n");
        assert_eq!(read(&folder, "inner/code.txt"), "inner\n");
        assert_eq!(git_in(&folder, &["rev-parse", "HEAD"]), lib);
        assert_eq!(git_in(&folder, &["status", "--porcelain"]), "");
        assert_eq!(git_in(&sandbox.checkout, &["status", "--porcelain"]), "");
        let borrowed = sandbox.borrowed_objects().await.unwrap().len();
        assert_eq!(borrowed, if form == SandboxType::GitWorktree { 3 } else { 0 });

        // What an agent does in there is not part of the order.
        write(&folder, &[("code.txt", "changed\n"), ("inner/new.txt", "new\n")]);
        assert_eq!(sandbox.commit("feat: nothing").await.unwrap(), None);
        write(&sandbox.checkout, &[("new.txt", "new\n")]);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(sandbox.commit("feat: new").await.unwrap().unwrap().files_changed, 1);
        sandbox.push(&yard.remote(), &[]).await.unwrap();
        let entry = git_in(&yard.bare("app"), &["ls-tree", &format!("feat/{id}"), "libs/lib"]);
        assert!(entry.contains(&format!("160000 commit {lib}")), "{entry}");
    }
}

#[tokio::test]
async fn submodules_come_back_with_little_history_and_after_a_loss() {
    let yard = Yard::new();
    let lib = add_submodules(&yard);
    let plan = Plan { history: History::Shallow, ..with_submodules(SandboxType::GitWorktree) };
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    // The commit is behind the head of its branch, which is all that is fetched at first.
    let folder = |sandbox: &Sandbox| sandbox.checkout.join("libs/lib");
    assert_eq!(git_in(&folder(&sandbox), &["rev-list", "--count", "HEAD"]), "1");
    write(&sandbox.checkout, &[("new.txt", "new\n")]);
    let git = &yard.place.git;
    let bundles = yard.place.path("bundles");
    let bundle = git.save_unpushed(&sandbox.order, None, &bundles).await.unwrap().unwrap();
    yard.lose_volume();
    let mirror = git.refresh_mirror_of(&yard.remote(), plan.history).await.unwrap();
    let (id, name) = (&sandbox.order, &sandbox.branch);
    let again = git.restore_sandbox(&mirror, id, name, &plan, &bundle.path).await.unwrap();
    assert_eq!(git_in(&folder(&again), &["rev-parse", "HEAD"]), lib);
    assert_eq!(read(&folder(&again), "inner/code.txt"), "inner\n");
    assert_eq!(again.borrowed_objects().await.unwrap().len(), 3);
    assert_eq!(git_in(&again.checkout, &["status", "--porcelain"]), "?? new.txt");
}

#[tokio::test]
async fn a_submodule_from_anywhere_else_is_refused_before_it_is_asked_for() {
    let yard = Yard::new();
    let lib = add_submodules(&yard);
    let secret = yard.place.path("lib").display().to_string();
    for (number, (url, expected)) in [
        ("https://evil.example/acme/lib.git", "not allowed"),
        (&*secret, "has no host"),
        ("acme/lib", "has no host"),
        (&*format!("file://{secret}"), "local folder"),
        ("ext::sh -c touch% /tmp/x", "control character or a space"),
        ("ext::touch", "transport helper"),
        ("ssh://git@evil.example/acme/lib", "user name or password"),
        ("--upload-pack=touch:x", "starts with '-'"),
        ("../../../../../../etc", "has no host"),
    ]
    .into_iter()
    .enumerate()
    {
        let list = format!("[submodule \"lib\"]\n\tpath = libs/lib\n\turl = {url}\n");
        yard.change(&[(".gitmodules", &list)]);
        let plan = with_submodules(SandboxType::GitWorktree);
        let error = yard.open(&format!("wo-{number}"), &plan).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("\"libs/lib\""), "{url}: {text}");
        assert_eq!((error.class(), error.retryable()), (ErrorClass::Invalid, false), "{url}");
    }
    let gone = "0".repeat(39) + "1";
    let seed = yard.place.path("seed");
    yard.change(&[(".gitmodules", "[submodule \"l\"]\n\tpath = libs/lib\n\turl = ../lib.git\n")]);
    git_in(&seed, &["update-index", "--cacheinfo", &format!("160000,{gone},libs/lib")]);
    git_in(&seed, &["commit", "--quiet", "-m", "Name a commit that is nowhere"]);
    yard.serve("app", &seed);
    let plan = with_submodules(SandboxType::GitWorktree);
    let error = yard.open("wo-gone", &plan).await.unwrap_err().to_string();
    assert!(error.contains(&gone) && error.contains("push it there"), "{error}");
    yard.change(&[(".gitmodules", "[submodule \"l\n")]);
    let error = yard.open("wo-bad", &plan).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
    assert!(!lib.is_empty());
}

#[tokio::test]
async fn a_repository_inside_itself_ends() {
    let yard = Yard::new();
    let seed = yard.place.path("seed");
    let own = git_in(&seed, &["rev-parse", "HEAD"]);
    let list = "[submodule \"me\"]\n\tpath = me\n\turl = ../app.git\n";
    let mut named = own;
    for _ in 0..8 {
        write(&seed, &[(".gitmodules", list)]);
        git_in(&seed, &["add", ".gitmodules"]);
        git_in(&seed, &["update-index", "--add", "--cacheinfo", &format!("160000,{named},me")]);
        git_in(&seed, &["commit", "--quiet", "-m", "Deeper"]);
        named = git_in(&seed, &["rev-parse", "HEAD"]);
    }
    yard.serve("app", &seed);
    let plan = with_submodules(SandboxType::GitWorktree);
    let error = yard.open("wo-1", &plan).await.unwrap_err().to_string();
    assert!(error.contains("more than 6 in each other"), "{error}");
}

#[tokio::test]
async fn changes_inside_of_a_submodule_are_named_and_what_it_ignores_is_not() {
    let yard = Yard::new();
    add_submodules(&yard);
    for (id, form) in [("wo-1", SandboxType::GitWorktree), ("wo-2", SandboxType::GitBranch)] {
        let sandbox = yard.open(id, &with_submodules(form)).await.unwrap();
        let folder = sandbox.checkout.join("libs/lib");
        let named = async || {
            let listed = sandbox.changes().await.unwrap().left_out.listed();
            listed.into_iter().map(|(path, why)| format!("{path}: {why}")).collect::<Vec<_>>()
        };
        assert_eq!(named().await, [""; 0], "{form:?}");
        git_in(&folder, &["status", "--porcelain"]);
        write(&sandbox.checkout, &[("README.md", "changed\n")]);
        assert_eq!(named().await, [""; 0], "{form:?}");
        for file in ["code.txt", "new.txt", "inner/code.txt"] {
            let before = fs::read(folder.join(file)).ok();
            write(&folder, &[(file, "mine\n")]);
            assert_eq!(named().await, ["libs/lib: changes inside of a submodule"], "{file}");
            match before {
                Some(content) => fs::write(folder.join(file), content).unwrap(),
                None => fs::remove_file(folder.join(file)).unwrap(),
            }
        }
        // One that stands alone has its objects where we do not look: touched counts as changed there.
        let expected: &[&str] = match form {
            SandboxType::GitWorktree => &[],
            SandboxType::GitBranch => &["libs/lib: changes inside of a submodule"],
        };
        assert_eq!(named().await, expected, "{form:?}");
        git_in(&folder, &["commit", "--quiet", "--allow-empty", "-m", "Mine"]);
        assert_eq!(named().await, ["libs/lib: changes inside of a submodule"], "{form:?}");
    }
}
