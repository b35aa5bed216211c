//! What an agent leaves so that reading it never ends: each has a limit, a sentence, and hears a cancel.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use archon_awo::{
    domain::ErrorClass,
    git::{GitError, Sandbox},
    process,
};
use tokio::time::{Instant, sleep, timeout};

use crate::git_place::{Place, branch, order};

/// Far more than any of it takes, in a debug build on two busy cores.
const PATIENCE: Duration = Duration::from_mins(3);

async fn open(place: &Place) -> Sandbox {
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap()
}

fn names(folder: &Path, name: &str, count: usize) {
    fs::create_dir_all(folder).unwrap();
    for number in 0..count {
        fs::write(folder.join(format!("{name}{number}")), "x\n").unwrap();
    }
}

/// The commit is refused as invalid, and what is there can still be saved.
async fn refused(place: &Place, sandbox: &Sandbox) -> String {
    let error = timeout(PATIENCE, sandbox.commit("feat: x")).await.unwrap().unwrap_err();
    assert_eq!((error.class(), error.retryable()), (ErrorClass::Invalid, false), "{error:?}");
    let claim = place.git.claim_sandbox(&sandbox.order).await.unwrap().unwrap();
    let saved = timeout(PATIENCE, claim.save(None, &place.path("bundles"))).await;
    assert!(saved.unwrap().unwrap().is_some());
    error.sentence()
}

/// Patterns that nothing matches and that take long to say so.
fn costly() -> String {
    format!("{}b*\n", "*a".repeat(90)).repeat(4000)
}

#[tokio::test]
async fn one_long_file_of_rules_is_named() {
    let (place, rules) = (Place::new(), "a?z*q\n".repeat(400_000));
    let sandbox = open(&place).await;
    assert!(rules.len() == 2_400_000);
    fs::write(sandbox.checkout.join(".gitignore"), rules).unwrap();
    names(&sandbox.checkout.join("many"), "name", 1000);
    let text = refused(&place, &sandbox).await;
    assert!(text.contains(".gitignore has more than 1024 KiB of rules"), "{text}");
}

#[tokio::test]
async fn many_files_of_rules_are_too_many_together() {
    let place = Place::new();
    let sandbox = open(&place).await;
    let mut folder = sandbox.checkout.clone();
    for _ in 0..3 {
        fs::write(folder.join(".gitignore"), "a?z*q\n".repeat(130_000)).unwrap();
        folder.push("deeper");
        names(&folder, "name", 20);
    }
    let text = refused(&place, &sandbox).await;
    assert!(text.contains("more than 200000 lines"), "{text}");
}

#[tokio::test]
async fn rules_that_take_long_to_compare_have_an_end() {
    // The usual bound takes minutes in a build without optimization.
    let place = Place::with(|settings| settings.rule_work = 50_000_000);
    let sandbox = open(&place).await;
    fs::write(sandbox.checkout.join(".gitignore"), costly()).unwrap();
    names(&sandbox.checkout.join("many"), &"a".repeat(190), 1000);
    let text = refused(&place, &sandbox).await;
    assert!(text.contains("too many, or too long, for the files"), "{text}");
}

#[tokio::test]
async fn folders_in_folders_have_an_end() {
    let place = Place::new();
    let sandbox = open(&place).await;
    // A shell asks where it is each time, which takes ever longer.
    let script = "import os\nfor level in range(2000):\n os.mkdir('d'); os.chdir('d')\n \
                  with open('.gitignore', 'w') as rules: rules.write('x\\n')";
    let made = process::blocking_command("/usr/bin/env")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .arg("python3")
        .args(["-c", script])
        .current_dir(&sandbox.checkout)
        .status();
    assert!(made.unwrap().success());
    let text = refused(&place, &sandbox).await;
    assert!(text.contains("folders more than 1000 levels deep, below d/d/d"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_ends_with_whoever_asked_for_it() {
    let place = Place::new();
    let sandbox = open(&place).await;
    fs::write(sandbox.checkout.join(".gitignore"), costly()).unwrap();
    names(&sandbox.checkout.join("many"), &"a".repeat(190), 1000);
    let began = Instant::now();
    assert!(timeout(Duration::from_millis(500), sandbox.commit("feat: x")).await.is_err());
    // The lock of the order is free when the thread has heard of it.
    let free = async {
        while !place.git.sandbox_is_free(&sandbox.order).await.unwrap() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(1), free).await.expect("it goes on for nobody");
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_commit_that_names_more_than_the_quota_is_not_laid_out() {
    let place = Place::with(|settings| settings.quota = Some(64 << 20));
    let seed = place.path("seed");
    // One blob of 1 MiB under a hundred names: a few kilobytes to fetch.
    fs::write(seed.join("first"), vec![0; 1 << 20]).unwrap();
    for number in 0..100 {
        fs::hard_link(seed.join("first"), seed.join(format!("name-{number}"))).unwrap();
    }
    place.seed_commit("A bomb");
    place.publish();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let opened =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap_err();
    assert_eq!((opened.class(), opened.retryable()), (ErrorClass::Invalid, false));
    let text = opened.to_string();
    assert!(text.contains("101 MiB") && text.contains("AWO_SANDBOX_QUOTA (64 MiB)"), "{text}");
    let root = place.git.volume().sandbox(&order("wo-1"));
    assert!(!root.exists(), "nothing was written");
}

#[tokio::test]
async fn a_checkout_that_grows_over_the_quota_is_stopped() {
    let place = Place::with(|settings| settings.quota = Some(2 << 20));
    let seed = place.path("seed");
    // Written in an encoding of four bytes a letter, and with two bytes at each end of a line.
    fs::write(
        seed.join(".gitattributes"),
        "grows-*.txt text eol=crlf working-tree-encoding=UTF-32LE\n",
    )
    .unwrap();
    let text: Vec<u8> = b"a\r\n".iter().flat_map(|letter| [*letter, 0, 0, 0]).collect();
    for number in 0..8 {
        fs::write(seed.join(format!("grows-{number}.txt")), text.repeat(100_000)).unwrap();
    }
    place.seed_commit("Grows");
    place.publish();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let opened =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap_err();
    assert!(matches!(opened, GitError::Unusable(_)), "{opened:?}");
    assert!(opened.to_string().contains("AWO_SANDBOX_QUOTA (2 MiB)"), "{opened}");
}

#[test]
fn a_git_that_writes_files_ends_with_its_worker() {
    let mut keeper = process::blocking_command(env!("CARGO_BIN_EXE_archon-awo"))
        .args(["keep-git", "/bin/sh", "-c", "sleep 300 & echo $!; wait"])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let helper = PathBuf::from(format!("/proc/{}", line.trim()));
    assert!(helper.exists());
    // As when the worker is gone.
    drop(keeper.stdin.take());
    let status = keeper.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "{status:?}");
    for _ in 0..200 {
        // A zombie has no program any more; its new parent may take its time.
        if fs::read_link(helper.join("exe")).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("a helper of git lives on");
}
