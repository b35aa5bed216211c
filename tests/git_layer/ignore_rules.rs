//! Which new files belong to a commit: exactly those that git itself would add, for any rules.

use std::fs;

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};

use crate::{
    git_place::{Place, git_in},
    peer::{Files, Peer, open},
};

const NAMES: &[&str] =
    &["a", "b", "lib", "web", "x", "y.log", "build", "[z]", "w ", "-q", "é", ".env", "#c", "a!b"];
const PIECES: &[&str] = &[
    "a",
    "b",
    "lib",
    "web",
    "x",
    "y",
    ".log",
    "build",
    "/",
    "/",
    "/",
    "**",
    "**/",
    "*",
    "*",
    "?",
    "[a-b]",
    "[!a]",
    "[^x]",
    "[]z]",
    "[[:alpha:]]",
    "[[:nope:]]",
    "[z",
    "\\",
    "\\ ",
    "\\[",
    " ",
    "w",
    "!",
    "#",
    ".env",
    "-q",
    "é",
    "\t",
    "z]",
];
const PLACES: &[&str] = &["", "a/", "b/", "a/b/", "lib/", "web/", "web/lib/", "build/"];

fn line() -> impl Strategy<Value = String> {
    let start = select(vec!["", "", "", "!", "!", "/", "\\", "#"]);
    let end = select(vec!["", "", "", "/", "/", " ", "  ", "\\ ", "\r", "/*", "/**"]);
    (start, vec(select(PIECES), 1..5), end)
        .prop_map(|(start, pieces, end)| format!("{start}{}{end}", pieces.concat()))
}

fn rules() -> impl Strategy<Value = Vec<u8>> {
    (vec(line(), 0..5), any::<bool>(), 0..20).prop_map(|(lines, whole, mark)| {
        let mark = if mark == 0 { "\u{feff}" } else { "" };
        format!("{mark}{}{}", lines.join("\n"), if whole { "\n" } else { "" }).into_bytes()
    })
}

fn path() -> impl Strategy<Value = String> {
    vec(select(NAMES), 1..5).prop_map(|names| names.join("/"))
}

fn tracked() -> Files {
    ["build/kept/t", "lib/t.log", "web/lib/t", "a/x"]
        .map(|path| (path.to_owned(), b"tracked\n".to_vec()))
        .into()
}

#[test]
fn the_files_of_a_commit_are_those_that_git_would_add() {
    let peer = Peer::new(&tracked());
    let places = vec((select(PLACES), rules()), 0..4);
    let changed = vec(any::<bool>(), 4);
    let everything = (vec(path(), 1..25), places, (rules(), rules()), changed);
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, ..ProptestConfig::default() });
    let found = runner.run(&everything, |(paths, places, (exclude, excludes), changed)| {
        let mut files: Files = paths.into_iter().map(|path| (path, b"new\n".to_vec())).collect();
        for ((path, content), changed) in tracked().into_iter().zip(changed) {
            files.insert(path, if changed { b"changed\n".to_vec() } else { content });
        }
        for (place, rules) in places {
            files.insert(format!("{place}.gitignore"), rules);
        }
        peer.say(&exclude, b"", &excludes);
        let (_, ours, theirs) = peer.compare(&files);
        prop_assert_eq!(ours, theirs.unwrap());
        Ok(())
    });
    found.unwrap();
}

#[tokio::test]
async fn a_folder_that_is_taken_back_below_is_committed() {
    let place = Place::new();
    fs::write(place.path("seed/.gitignore"), "lib/\nbuild\n*.log\n.env*\n").unwrap();
    fs::create_dir(place.path("seed/web")).unwrap();
    fs::write(place.path("seed/web/.gitignore"), "!lib/\n!build\n!*.log\n!.env.example\n").unwrap();
    place.seed_commit("Rules");
    place.publish();
    let sandbox = open(&place).await;
    for folder in ["lib", "web/lib", "web/build"] {
        fs::create_dir_all(sandbox.checkout.join(folder)).unwrap();
    }
    for file in ["lib/x", "x.log", ".env.example"] {
        fs::write(sandbox.checkout.join(file), "left\n").unwrap();
        fs::write(sandbox.checkout.join("web").join(file), "taken\n").unwrap();
    }
    fs::write(sandbox.checkout.join("web/build/x"), "taken\n").unwrap();
    sandbox.commit("feat: files").await.unwrap().unwrap();
    sandbox.push(&place.remote(), &[]).await.unwrap();
    let listing = place.ask_remote(&["diff", "--name-only", "main", "feat/x"]);
    assert_eq!(listing, "web/.env.example\nweb/build/x\nweb/lib/x\nweb/x.log");
}

#[tokio::test]
async fn what_the_worker_excludes_is_known_to_the_agent_and_in_no_commit() {
    let excludes = tempfile::tempdir().unwrap();
    let file = excludes.path().join("ignore");
    fs::write(&file, ".idea/\n").unwrap();
    let place = Place::with(|settings| settings.excludes = Some(file.clone()));
    let sandbox = open(&place).await;
    fs::create_dir(sandbox.checkout.join(".idea")).unwrap();
    fs::write(sandbox.checkout.join(".idea/workspace.xml"), "mine\n").unwrap();
    assert_eq!(git_in(&sandbox.checkout, &["status", "--porcelain"]), "");
    assert_eq!(sandbox.commit("feat: nothing").await.unwrap(), None);
}
