//! Remotes that are folders of this host: which may be, and that nothing in them is run.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::git_place::{Place, branch, git_in, order};
use archon_awo::{
    domain::{ErrorClass, RemoteRules, RepositoryUrl, SandboxType},
    git::{GitError, Plan, Remote},
    local_remotes::LocalRemotes,
};

const HOOKS: [&str; 8] = [
    "pre-receive",
    "update",
    "proc-receive",
    "post-receive",
    "post-update",
    "reference-transaction",
    "push-to-checkout",
    "pre-auto-gc",
];

fn folder(path: &Path) -> Remote {
    let rules = RemoteRules { allowed_hosts: Vec::new(), allow_local: true };
    let url = RepositoryUrl::parse(&format!("file://{}", path.display()), &rules).unwrap();
    Remote { url, credential: None }
}

/// Has a repository run a program wherever git lets it.
fn arm(repository: &Path, ran: &Path) {
    let script = format!("#!/bin/sh\necho \"$0 $*\" >> {}\n", ran.display());
    let hooks = repository.join("hooks");
    fs::create_dir_all(&hooks).unwrap();
    let program = repository.join("program");
    for file in HOOKS.map(|name| hooks.join(name)).iter().chain([&program]) {
        fs::write(file, &script).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = program.display().to_string();
    for (key, value) in [
        ("core.alternateRefsCommand", &*program),
        ("core.fsmonitor", &program),
        ("uploadpack.packObjectsHook", &program),
        ("receive.procReceiveRefs", "refs/nothing"),
        ("receive.autogc", "true"),
        ("gc.auto", "1"),
    ] {
        git_in(repository, &["config", key, value]);
    }
    let others = repository.with_extension("others");
    git_in(repository, &["clone", "--quiet", "--bare", ".", others.to_str().unwrap()]);
    let objects = format!("{}\n", others.join("objects").display());
    fs::write(repository.join("objects/info/alternates"), objects).unwrap();
}

#[tokio::test]
async fn nothing_of_a_folder_is_run_when_it_is_fetched_from_or_pushed_to() {
    let place = Place::new();
    let (repository, ran) = (place.path("remote/app.git"), place.path("ran"));
    arm(&repository, &ran);
    // So it is where git does as the folder says.
    git_in(
        &place.path("seed"),
        &["push", "--quiet", repository.to_str().unwrap(), "HEAD:refs/heads/x"],
    );
    let run = fs::read_to_string(&ran).unwrap();
    for name in ["program", "pre-receive", "post-receive", "reference-transaction"] {
        assert!(run.contains(name), "{name} was not run: {run}");
    }
    fs::remove_file(&ran).unwrap();

    let remote = folder(&repository);
    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    let sandbox =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap();
    fs::write(sandbox.checkout.join("a.txt"), "a").unwrap();
    sandbox.commit("feat: a").await.unwrap();
    sandbox.push(&remote, &[]).await.unwrap();
    place.git.refresh_mirror(&remote).await.unwrap();
    let run = fs::read_to_string(&ran).unwrap_or_default();
    assert_eq!(run, "");
}

#[tokio::test]
async fn the_folders_of_other_orders_are_no_remotes_however_they_are_named() {
    let place = Place::new();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let name = branch("feat/x");
    let sandbox = place.git.open_sandbox(&mirror, &order("wo-1"), &name, None).await.unwrap();
    let link = place.path("remote/link.git");
    std::os::unix::fs::symlink(sandbox.checkout.join(".git"), &link).unwrap();
    let volume = place.git.volume().root().to_owned();
    for path in [&sandbox.checkout, &mirror.path, &volume, &link] {
        let error = place.git.refresh_mirror(&folder(path)).await.unwrap_err();
        assert!(matches!(error, GitError::Unusable(_)), "{}: {error}", path.display());
        assert!(error.to_string().contains("archon-awo keeps"), "{error}");
        assert_eq!((error.class(), error.retryable()), (ErrorClass::Invalid, false));
        let error = sandbox.push(&folder(path), &[]).await.unwrap_err();
        assert!(matches!(error, GitError::Unusable(_)), "{}: {error}", path.display());
    }
    // A plain copy of git reads it.
    git_in(&place.path("remote"), &["ls-remote", link.to_str().unwrap()]);
    // Judged when it is used, not when it was ordered.
    let moved = place.path("remote/moved.git");
    fs::rename(place.path("remote/app.git"), &moved).unwrap();
    std::os::unix::fs::symlink(&mirror.path, place.path("remote/app.git")).unwrap();
    assert!(place.git.refresh_mirror(&place.remote()).await.is_err());
}

#[tokio::test]
async fn only_folders_below_a_named_root_are_remotes() {
    let place = Place::with(|settings| {
        let root = settings.home.with_file_name("remote");
        settings.local_remotes = LocalRemotes { roots: vec![root], kept: Vec::new() };
    });
    place.git.refresh_mirror(&place.remote()).await.unwrap();
    let seed = folder(&place.path("seed"));
    let error = place.git.refresh_mirror(&seed).await.unwrap_err();
    assert!(error.to_string().contains("AWO_LOCAL_REMOTES"), "{error}");
    let missing = folder(&place.path("remote/none.git"));
    let error = place.git.refresh_mirror(&missing).await.unwrap_err();
    assert!(matches!(error, GitError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_submodule_is_a_folder_only_below_a_named_root() {
    for named in [false, true] {
        let place = Place::with(|settings| {
            settings.remotes.allow_local = true;
            let root = settings.home.with_file_name("remote");
            let roots = if named { vec![root] } else { Vec::new() };
            settings.local_remotes = LocalRemotes { roots, kept: Vec::new() };
        });
        for (folder, allowed) in [("remote/lib.git", named), ("elsewhere/lib.git", false)] {
            let lib = place.path(folder);
            let seed = place.path("seed");
            git_in(&seed, &["clone", "--quiet", "--bare", ".", lib.to_str().unwrap()]);
            let commit = git_in(&lib, &["rev-parse", "HEAD"]);
            let list =
                format!("[submodule \"l\"]\n\tpath = lib\n\turl = file://{}\n", lib.display());
            fs::write(seed.join(".gitmodules"), list).unwrap();
            git_in(&seed, &["add", ".gitmodules"]);
            let entry = format!("160000,{commit},lib");
            git_in(&seed, &["update-index", "--add", "--cacheinfo", &entry]);
            git_in(&seed, &["commit", "--quiet", "-m", "Use a library"]);
            place.publish();
            let mut plan = Plan { sandbox_type: SandboxType::GitBranch, ..Plan::default() };
            plan.parts.submodules = true;
            let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
            let id = order(if allowed { "wo-in" } else { "wo-out" });
            let opened = place.git.open_sandbox(&mirror, &id, &branch("feat/x"), &plan).await;
            match opened {
                Ok(sandbox) => assert!(allowed && sandbox.checkout.join("lib/.git").exists()),
                Err(error) => {
                    assert!(!allowed, "{error}");
                    assert!(error.to_string().contains("AWO_LOCAL_REMOTES"), "{error}");
                }
            }
        }
    }
}
