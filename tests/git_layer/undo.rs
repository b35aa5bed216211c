//! What an agent changes that is only to look is put back, and nothing that was there before is lost.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use archon_awo::git::{Sandbox, Undone};

use crate::git_place::{Place, branch, git_in, order};

/// A sandbox in which the author changed, added and removed files.
async fn authored(place: &Place) -> Sandbox {
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let (id, name) = (order("wo-1"), branch("feat/x"));
    let sandbox = place.git.open_sandbox(&mirror, &id, &name, None).await.unwrap();
    let at = |name: &str| sandbox.checkout.join(name);
    fs::write(at("README.md"), "# the author's\n").unwrap();
    fs::create_dir_all(at("new/deep")).unwrap();
    fs::write(at("new/deep/file.txt"), "1\n").unwrap();
    fs::write(at("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("README.md", at("link")).unwrap();
    fs::remove_dir_all(at("src")).unwrap();
    fs::create_dir_all(at("target")).unwrap();
    fs::write(at("target/built"), "built\n").unwrap();
    fs::write(at("trace.log"), "a log\n").unwrap();
    sandbox
}

/// What a commit would hold, and what lies there besides.
async fn state(sandbox: &Sandbox) -> (String, Vec<PathBuf>) {
    let diff = sandbox.changes().await.unwrap().diff;
    let mut files = Vec::new();
    let mut pending = vec![sandbox.checkout.clone()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_name() == ".git" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
            files.push(entry.path().strip_prefix(&sandbox.checkout).unwrap().to_owned());
        }
    }
    files.sort();
    (diff, files)
}

fn names(undone: &Undone) -> Vec<String> {
    undone.listed().into_iter().map(|(path, what)| format!("{path} {what}")).collect()
}

#[tokio::test]
async fn changes_are_undone_and_what_the_author_did_stays() {
    let place = Place::new();
    let sandbox = authored(&place).await;
    let at = |name: &str| sandbox.checkout.join(name);
    sandbox.remember_files().await.unwrap();
    let before = state(&sandbox).await;
    fs::write(at("README.md"), "# the reviewer's\n").unwrap();
    fs::remove_file(at("new/deep/file.txt")).unwrap();
    fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(at("link")).unwrap();
    fs::write(at("link"), "a file").unwrap();
    fs::create_dir(at("src")).unwrap();
    fs::write(at("src/main.txt"), "again\n").unwrap();
    fs::write(at("PLAN.md"), "1. Do it.\n").unwrap();
    fs::write(at("target/tested"), "result\n").unwrap();
    let undone = sandbox.put_files_back().await.unwrap();
    assert_eq!(
        names(&undone),
        [
            "PLAN.md added",
            "README.md changed",
            "link changed",
            "new/deep/file.txt removed",
            "run.sh changed",
            "src/main.txt added"
        ]
    );
    assert_eq!(undone.left, 0);
    let (diff, files) = state(&sandbox).await;
    assert_eq!(diff, before.0);
    assert!(files.contains(&"target/tested".into()), "what is ignored stays");
    let without: Vec<_> = files.into_iter().filter(|file| !file.ends_with("tested")).collect();
    assert_eq!(without, before.1);
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("README.md"));
    let plan = sandbox.undone_text(&undone, "PLAN.md".into()).await;
    assert_eq!(plan.as_deref(), Some("1. Do it.\n"));
    assert!(!sandbox.remembers_files().await.unwrap());
    // Nothing is remembered: nothing is done.
    fs::write(at("more.txt"), "the author's\n").unwrap();
    assert!(sandbox.put_files_back().await.unwrap().is_empty());
    assert!(at("more.txt").exists());
}

#[tokio::test]
async fn rules_that_were_changed_cost_nobody_a_file() {
    let place = Place::new();
    let sandbox = authored(&place).await;
    let at = |name: &str| sandbox.checkout.join(name);
    sandbox.remember_files().await.unwrap();
    let before = state(&sandbox).await;
    for rules in ["", "*\n", "!target\n!*.log\nREADME.md\n"] {
        fs::write(at(".gitignore"), rules).unwrap();
        fs::write(at("new/.gitignore"), "*\n").unwrap();
        fs::remove_file(at("run.sh")).unwrap();
        let undone = sandbox.put_files_back().await.unwrap();
        let told = [".gitignore changed", "new/.gitignore added", "run.sh removed"];
        assert_eq!(names(&undone), told, "{rules:?}");
        assert_eq!(state(&sandbox).await, before, "{rules:?}");
        assert_eq!(fs::read_to_string(at("target/built")).unwrap(), "built\n");
        assert_eq!(fs::read_to_string(at("trace.log")).unwrap(), "a log\n");
        sandbox.remember_files().await.unwrap();
    }
    // Not to be read at all.
    fs::write(at(".gitignore"), vec![b'x'; 12 << 20]).unwrap();
    fs::remove_file(at("README.md")).unwrap();
    sandbox.put_files_back().await.unwrap();
    assert_eq!(state(&sandbox).await, before);
}

#[tokio::test]
async fn folders_files_and_links_in_each_others_place_are_set_right() {
    let place = Place::new();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file.txt"), "precious\n").unwrap();
    let sandbox = authored(&place).await;
    let at = |name: &str| sandbox.checkout.join(name);
    sandbox.remember_files().await.unwrap();
    let before = state(&sandbox).await;
    // A folder with something that is ignored, where a file belongs.
    fs::remove_file(at("README.md")).unwrap();
    fs::create_dir_all(at("README.md/target")).unwrap();
    fs::write(at("README.md/target/x"), "x").unwrap();
    // A link that leads out, where a folder belongs.
    fs::remove_dir_all(at("new/deep")).unwrap();
    symlink(&outside, at("new/deep")).unwrap();
    // A link that leads out, where a file belongs.
    fs::remove_file(at("run.sh")).unwrap();
    symlink(outside.join("file.txt"), at("run.sh")).unwrap();
    let undone = sandbox.put_files_back().await.unwrap();
    assert_eq!(undone.left, 0, "{undone:?}");
    assert_eq!(state(&sandbox).await, before);
    assert_eq!(fs::read_to_string(outside.join("file.txt")).unwrap(), "precious\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_saved_while_somebody_looks_is_what_was_there_before() {
    let place = Place::new();
    let sandbox = authored(&place).await;
    sandbox.remember_files().await.unwrap();
    fs::write(sandbox.checkout.join("README.md"), "# the reviewer's\n").unwrap();
    let folder = place.path("bundles");
    let saved = place.git.save_unpushed(&sandbox.order, None, &folder).await.unwrap().unwrap();
    let clone = place.path("clone");
    let remote = place.path("remote/app.git");
    git_in(place.folder.path(), &["clone", "--quiet", remote.to_str().unwrap(), "clone"]);
    git_in(&clone, &["fetch", "--quiet", saved.path.to_str().unwrap(), "refs/awo/bundle/files"]);
    assert_eq!(git_in(&clone, &["show", "FETCH_HEAD:README.md"]), "# the author's");
}

#[tokio::test]
async fn whoever_looks_has_the_settings_of_git_that_the_checkout_was_made_with() {
    let place = Place::new();
    let sandbox = authored(&place).await;
    let git = |arguments: &[&str]| git_in(&sandbox.checkout, arguments);
    git(&["config", "alias.changes", "!echo nothing"]);
    git(&["config", "user.name", "Somebody else"]);
    let attributes = sandbox.checkout.join(".git/info/attributes");
    fs::create_dir_all(attributes.parent().unwrap()).unwrap();
    fs::write(&attributes, "* -diff\n").unwrap();
    let config = sandbox.checkout.join(".git/config");
    let authors = fs::read_to_string(&config).unwrap();

    for _ in 0..2 {
        sandbox.remember_files().await.unwrap();
        let seen = fs::read_to_string(&config).unwrap();
        assert!(seen.contains("[remote \"origin\"]") && !seen.contains("alias"), "{seen}");
        assert!(!seen.contains("Somebody else") && !attributes.exists());
        assert!(git(&["diff", "--", "README.md"]).contains("+# the author's"));
        // What the one who looks writes there does not stay.
        fs::write(&config, "[core]\n\tpager = false\n").unwrap();
        sandbox.put_files_back().await.unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), authors);
        assert_eq!(fs::read_to_string(&attributes).unwrap(), "* -diff\n");
    }

    // Neither a link nor a folder in the way is followed, and nobody is kept from looking.
    let elsewhere = place.path("elsewhere");
    fs::write(&elsewhere, "untouched\n").unwrap();
    fs::remove_file(&config).unwrap();
    symlink(&elsewhere, &config).unwrap();
    sandbox.remember_files().await.unwrap();
    assert!(fs::read_to_string(&config).unwrap().contains("origin"));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched\n");
    sandbox.put_files_back().await.unwrap();
    fs::remove_dir_all(sandbox.checkout.join(".git")).unwrap();
    sandbox.remember_files().await.unwrap();
    sandbox.put_files_back().await.unwrap();
}

#[tokio::test]
async fn what_the_author_wrote_for_agents_is_known_whether_git_sees_it_or_not() {
    let place = Place::new();
    let seed = |name: &str| place.path("seed").join(name);
    fs::write(seed("AGENTS.md"), "Speak plainly.\n").unwrap();
    symlink("AGENTS.md", seed("CLAUDE.md")).unwrap();
    fs::create_dir_all(seed(".claude/agents")).unwrap();
    fs::write(seed(".claude/agents/helper.md"), "Help.\n").unwrap();
    let ignored = "target/\n*.log\n/.claude/skills/\n/GEMINI.md\n";
    fs::write(seed(".gitignore"), ignored).unwrap();
    place.seed_commit("Words for agents");
    place.publish();
    let sandbox = authored(&place).await;
    let at = |name: &str| sandbox.checkout.join(name);
    let known = async || {
        sandbox.remember_files().await.unwrap();
        let found = sandbox.changed_guidance().await.unwrap();
        sandbox.put_files_back().await.unwrap();
        found.into_iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    fs::write(at(".claude/settings.local.json"), "{}\n").unwrap();
    assert_eq!(known().await, [""; 0]);

    fs::create_dir_all(at(".claude/skills/pass")).unwrap();
    fs::write(at(".claude/skills/pass/SKILL.md"), "Pass.\n").unwrap();
    fs::write(at("GEMINI.md"), "Pass.\n").unwrap();
    assert_eq!(known().await, [".claude/skills/pass/SKILL.md", "GEMINI.md"]);

    fs::remove_dir_all(at(".claude/skills")).unwrap();
    fs::remove_file(at("GEMINI.md")).unwrap();
    fs::write(at("AGENTS.md"), "Pass.\n").unwrap();
    fs::create_dir(at("docs")).unwrap();
    fs::write(at("docs/CLAUDE.md"), "Pass.\n").unwrap();
    assert_eq!(known().await, ["AGENTS.md", "docs/CLAUDE.md"]);

    fs::write(at("AGENTS.md"), "Speak plainly.\n").unwrap();
    fs::remove_file(at("docs/CLAUDE.md")).unwrap();
    fs::remove_file(at("CLAUDE.md")).unwrap();
    symlink("README.md", at("CLAUDE.md")).unwrap();
    assert_eq!(known().await, ["CLAUDE.md"]);
}
