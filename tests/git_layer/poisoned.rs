//! An agent that owns its checkout plants every trap git knows; the runner steps into none.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::git_place::{Place, branch, git_in, order};
use archon_awo::{git::Sandbox, process};

/// A program that leaves a trace when anything runs it.
fn tripwire(place: &Place) -> (PathBuf, PathBuf) {
    let (program, trace) = (place.path("tripwire"), place.path("tripped"));
    let text = format!("#!/bin/sh\necho \"$0 $*\" >> {}\ncat\n", trace.display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, trace)
}

/// Arms a git folder: each setting and each hook runs the program.
fn arm(git_dir: &Path, program: &Path) {
    let program = program.display();
    let elsewhere = git_dir.parent().unwrap().join("..");
    let config = format!(
        "[core]\n\tfsmonitor = {program}\n\tsshCommand = {program}\n\tpager = {program}\n\
         \teditor = {program}\n\taskPass = {program}\n\tworktree = {}\n\thooksPath = {}\n\
         [filter \"trap\"]\n\tclean = {program}\n\tsmudge = {program}\n\tprocess = {program}\n\trequired = true\n\
         [diff \"trap\"]\n\tcommand = {program}\n\ttextconv = {program}\n\
         [merge \"trap\"]\n\tdriver = {program}\n\
         [credential]\n\thelper = !{program}\n[gpg]\n\tprogram = {program}\n\
         [commit]\n\tgpgSign = true\n[push]\n\tgpgSign = if-asked\n\
         [uploadpack]\n\tpackObjectsHook = {program}\n\
         [remote \"origin\"]\n\turl = ext::{program}\n\tuploadpack = {program}\n\treceivepack = {program}\n\
         [url \"ext::{program}\"]\n\tinsteadOf = file://\n\
         [user]\n\tname = Somebody Else\n",
        elsewhere.display(),
        git_dir.join("hooks").display(),
    );
    fs::write(git_dir.join("config"), config).unwrap();
    fs::create_dir_all(git_dir.join("hooks")).unwrap();
    for hook in [
        "pre-commit",
        "commit-msg",
        "prepare-commit-msg",
        "post-commit",
        "pre-push",
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "post-merge",
        "fsmonitor-watchman",
        "update",
        "pre-receive",
        "post-receive",
        "push-to-checkout",
    ] {
        let path = git_dir.join("hooks").join(hook);
        fs::write(&path, format!("#!/bin/sh\nexec {program} {hook}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn plant(sandbox: &Sandbox, program: &Path, outside: &Path) {
    let file = |name: &str| sandbox.checkout.join(name);
    arm(&file(".git"), program);
    fs::write(file(".gitattributes"), "* filter=trap diff=trap merge=trap\n").unwrap();
    fs::write(file("work.txt"), "honest work\n").unwrap();
    // Links out of the checkout, one in the place of a tracked folder.
    symlink("/etc/passwd", file("passwd")).unwrap();
    symlink(outside, file("docs")).unwrap();
    fs::remove_dir_all(file("src")).unwrap();
    symlink(outside, file("src")).unwrap();
    // A repository without commits inside, one in a tracked folder, and names that are .git elsewhere.
    for inner in ["vendor/inner", "lib"] {
        fs::create_dir_all(file(inner)).unwrap();
        fs::write(file(inner).join("inner.txt"), "inner\n").unwrap();
        git_in(&file(inner), &["init", "--quiet"]);
        arm(&file(inner).join(".git"), program);
    }
    fs::create_dir_all(file("pointer")).unwrap();
    fs::write(file("pointer/.git"), format!("gitdir: {}\n", file(".git").display())).unwrap();
    fs::write(file("pointer/file.txt"), "x\n").unwrap();
    fs::create_dir_all(file("deep/.GIT")).unwrap();
    fs::write(file("deep/.GIT/config"), "x\n").unwrap();
    nix::unistd::mkfifo(&file("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
}

async fn prepare(place: &Place) -> Sandbox {
    fs::create_dir_all(place.path("seed/lib")).unwrap();
    fs::write(place.path("seed/lib/lib.txt"), "lib\n").unwrap();
    place.seed_commit("A library");
    place.publish();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap()
}

#[tokio::test]
async fn nothing_an_agent_plants_is_run_and_the_commit_holds_its_files_only() {
    let place = Place::new();
    let sandbox = prepare(&place).await;
    let (program, trace) = tripwire(&place);
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret.txt"), "a secret of the host\n").unwrap();
    plant(&sandbox, &program, &outside);

    let changes = sandbox.changes().await.unwrap();
    let commit = sandbox.commit("feat: honest work").await.unwrap().unwrap();
    sandbox.push(&place.remote(), &[]).await.unwrap();
    let traps = fs::read_to_string(&trace).unwrap_or_default();
    assert_eq!(traps, "", "a trap was run");

    let listing = place.ask_remote(&["ls-tree", "-r", "--format=%(objectmode) %(path)", "feat/x"]);
    assert_eq!(
        listing,
        "100644 .gitattributes\n100644 .gitignore\n100644 README.md\n120000 docs\n\
         100644 lib/inner.txt\n100644 lib/lib.txt\n120000 passwd\n120000 src\n\
         100644 vendor/inner/inner.txt\n100644 work.txt"
    );
    assert_eq!(place.ask_remote(&["cat-file", "blob", "feat/x:work.txt"]), "honest work");
    assert_eq!(place.ask_remote(&["cat-file", "blob", "feat/x:passwd"]), "/etc/passwd");
    assert_eq!(place.ask_remote(&["log", "-1", "--format=%an", "feat/x"]), "archon-awo");
    assert!(!changes.diff.contains("a secret of the host"));
    assert_eq!(commit.files_changed, changes.files_changed);

    place.git.find_sandbox(&order("wo-1"), &place.remote().url).await.unwrap().unwrap();
    place.git.remove_sandbox(&order("wo-1")).await.unwrap();
    assert!(outside.join("secret.txt").exists());
    assert!(!trace.exists(), "a trap was run by the removal");
}

#[tokio::test]
async fn the_traps_of_this_test_do_fire_for_a_careless_runner() {
    let place = Place::new();
    let sandbox = prepare(&place).await;
    let (program, trace) = tripwire(&place);
    let git_dir = sandbox.checkout.join(".git");
    arm(&git_dir, &program);
    // Only the work tree is put right: with it, plain git runs what was planted.
    let mut command = process::blocking_command("git");
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir(&sandbox.checkout);
    command.arg(format!("--work-tree={}", sandbox.checkout.display()));
    command.args(["status", "--porcelain"]).output().unwrap();
    assert!(trace.exists());
}

#[tokio::test]
async fn a_git_folder_that_was_replaced_or_removed_changes_nothing() {
    let place = Place::new();
    let sandbox = prepare(&place).await;
    let (program, trace) = tripwire(&place);
    let git_dir = sandbox.checkout.join(".git");
    fs::write(sandbox.checkout.join("work.txt"), "1\n").unwrap();

    fs::remove_dir_all(&git_dir).unwrap();
    let first = sandbox.commit("feat: one").await.unwrap().unwrap();
    assert_eq!(first.files_changed, 1);

    let evil = place.path("evil.git");
    git_in(place.folder.path(), &["init", "--quiet", "--bare", "evil.git"]);
    arm(&evil, &program);
    fs::write(&git_dir, format!("gitdir: {}\n", evil.display())).unwrap();
    fs::write(sandbox.checkout.join("work.txt"), "2\n").unwrap();
    let second = sandbox.commit("feat: two").await.unwrap().unwrap();
    assert_eq!(second.parent, first.sha);
    sandbox.push(&place.remote(), &[]).await.unwrap();
    assert!(!trace.exists());
}

#[tokio::test]
async fn a_checkout_that_became_a_link_is_refused() {
    let place = Place::new();
    let sandbox = prepare(&place).await;
    fs::remove_dir_all(&sandbox.checkout).unwrap();
    symlink("/etc", &sandbox.checkout).unwrap();
    assert!(sandbox.commit("feat: the host").await.is_err());
    assert!(sandbox.changes().await.is_err());
    let found = place.git.find_sandbox(&order("wo-1"), &place.remote().url).await.unwrap();
    assert!(found.is_none());
    place.git.remove_sandbox(&order("wo-1")).await.unwrap();
    assert!(Path::new("/etc/passwd").exists());
}

#[tokio::test]
async fn a_change_with_forged_size_and_times_is_still_committed() {
    let place = Place::new();
    let sandbox = prepare(&place).await;
    let file = sandbox.checkout.join("src/main.txt");
    let before = fs::metadata(&file).unwrap();
    fs::write(&file, "ONE\nTWO\n").unwrap();
    let times = fs::FileTimes::new()
        .set_modified(before.modified().unwrap())
        .set_accessed(before.accessed().unwrap());
    fs::File::options().write(true).open(&file).unwrap().set_times(times).unwrap();
    let commit = sandbox.commit("feat: shout").await.unwrap().unwrap();
    assert_eq!(commit.files_changed, 1);
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_rule_file_does_not_hang_the_runner() {
    let place = Place::new();
    let sandbox = prepare(&place).await;
    let folder = sandbox.checkout.join("new/deeper");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("file.txt"), "1\n").unwrap();
    for name in [".gitignore", ".gitattributes"] {
        let pipe = folder.join(name);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let commit = tokio::time::timeout(Duration::from_secs(20), sandbox.commit("feat: x")).await;
        let error = commit.unwrap_or_else(|_| panic!("{name} hangs the commit")).unwrap_err();
        assert!(error.to_string().contains(name) && !error.retryable(), "{error}");
        fs::remove_file(&pipe).unwrap();
    }
    assert!(sandbox.commit("feat: x").await.unwrap().is_some());
}
