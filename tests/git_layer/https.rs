//! Git over HTTPS with a private certificate authority and a password, and where the token may be.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::git_place::{Place, branch, git_in, order};
use crate::https_remote::HttpsRemote;
use archon_awo::{
    domain::{Credential, ErrorClass, RemoteRules, RepositoryUrl},
    git::{GitError, Remote, Transfer},
};

const TOKEN: &str = "ghp_x7Kq2vN9pWmL4tRz8sYb3cDf6gHj1aEu";

/// A server with `acme/app.git`, and a place whose git trusts it.
fn serve() -> (HttpsRemote, Place) {
    let server = HttpsRemote::start(TOKEN);
    let place = Place::with(|settings| settings.ca_file = Some(server.ca_file()));
    let home = server.repositories().join("acme");
    fs::create_dir(&home).unwrap();
    fs::rename(place.path("remote/app.git"), home.join("app.git")).unwrap();
    git_in(&home.join("app.git"), &["config", "http.receivepack", "true"]);
    (server, place)
}

fn remote(server: &HttpsRemote, path: &str, token: Option<&str>) -> Remote {
    let rules = RemoteRules { allowed_hosts: vec![server.host()], allow_local: false };
    let url = format!("https://{}/{path}", server.host());
    let url = RepositoryUrl::parse(&url, &rules).unwrap();
    Remote { url, credential: token.map(Credential::token) }
}

/// How many files below `folder` hold `needle`.
fn files_with(folder: &Path, needle: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
            } else if fs::read(&path).is_ok_and(|bytes| contains(&bytes, needle)) {
                found.push(path);
            }
        }
    }
    found
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// Looks at every process until told to stop: how many looks saw a push, and where a token was.
fn watch(stop: Arc<AtomicBool>, pushes: Arc<AtomicUsize>) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut leaks = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for process in fs::read_dir("/proc").unwrap().flatten() {
                let folder = process.path();
                let Ok(arguments) = fs::read(folder.join("cmdline")) else { continue };
                if contains(&arguments, "git-remote-https") || contains(&arguments, "--porcelain") {
                    pushes.fetch_add(1, Ordering::Relaxed);
                }
                let environment = fs::read(folder.join("environ")).unwrap_or_default();
                for (place, bytes) in [("arguments", &arguments), ("environment", &environment)] {
                    if contains(bytes, TOKEN) {
                        leaks.push(format!("{place} of {}", String::from_utf8_lossy(&arguments)));
                    }
                }
            }
        }
        leaks
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_cloned_and_pushed_and_the_token_is_nowhere() {
    let (server, place) = serve();
    let remote = remote(&server, "acme/app", Some(TOKEN));
    let (stop, pushes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let watcher = watch(stop.clone(), pushes.clone());

    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    assert_eq!(mirror.transfer, Transfer::Cloned);
    let sandbox =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap();
    // Bytes that do not compress, so that the push takes a moment.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(4 << 20)
    .collect();
    fs::write(sandbox.checkout.join("noise.bin"), noise).unwrap();
    let commit = sandbox.commit("feat: noise").await.unwrap().unwrap();
    let answer = sandbox.push(&remote, &[]).await.unwrap();
    assert!(!answer.already_there && answer.sha == commit.sha);
    assert!(sandbox.push(&remote, &[]).await.unwrap().already_there);
    assert_eq!(place.git.branch_head(&remote, &sandbox.branch).await.unwrap(), Some(commit.sha));

    stop.store(true, Ordering::Relaxed);
    let leaks = watcher.join().unwrap();
    assert!(pushes.load(Ordering::Relaxed) > 0, "no push was seen");
    assert!(leaks.is_empty(), "{leaks:?}");
    let files = files_with(place.folder.path(), TOKEN);
    assert!(files.is_empty(), "{files:?}");
}

#[tokio::test]
async fn a_wrong_or_missing_token_is_an_auth_failure_that_is_not_retried() {
    let (server, place) = serve();
    for token in [Some("ghp_wrongwrongwrong"), None] {
        let error = place.git.verify(&remote(&server, "acme/app", token)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth, "{error}");
        assert!(!error.retryable() && !error.to_string().contains("wrongwrong"), "{error}");
    }
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_told_from_a_network_that_is_not() {
    let (server, place) = serve();
    let error = place.git.verify(&remote(&server, "acme/none", Some(TOKEN))).await.unwrap_err();
    assert!(matches!(error, GitError::NotFound { .. }) && !error.retryable(), "{error}");
    let remote = remote(&server, "acme/app", Some(TOKEN));
    drop(server);
    let error = place.git.verify(&remote).await.unwrap_err();
    assert!(matches!(error, GitError::Unreachable { .. }) && error.retryable(), "{error}");
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let (server, _trusting) = serve();
    let place = Place::new();
    let error = place.git.verify(&remote(&server, "acme/app", Some(TOKEN))).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// A remote whose host is allowed, and more hosts that are.
fn serve_beside(hosts: impl Fn(&HttpsRemote) -> Vec<String>) -> (HttpsRemote, Place) {
    let server = HttpsRemote::start(TOKEN);
    let place = Place::with(|settings| {
        settings.ca_file = Some(server.ca_file());
        settings.remotes.allowed_hosts = hosts(&server);
    });
    let home = server.repositories().join("acme");
    fs::create_dir(&home).unwrap();
    fs::rename(place.path("remote/app.git"), home.join("app.git")).unwrap();
    (server, place)
}

#[tokio::test]
async fn a_redirect_to_another_allowed_host_does_not_carry_the_token_away() {
    let (server, place) =
        serve_beside(|server| vec![server.host().replace("127.0.0.1", "localhost")]);
    // The second one redirects to a user whose name ends like the beginning of our own address.
    for path in ["moved/app", "tricked/app"] {
        let error = place.git.verify(&remote(&server, path, Some(TOKEN))).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Auth, "{path}: {error}");
    }
    let asked = server.requests();
    let elsewhere = |path: &str| asked.iter().filter(|line| line.contains(path)).count();
    assert!(elsewhere("/acme/app/info/refs") >= 2, "the redirects were not followed: {asked:?}");
    let with_password = asked.iter().filter(|line| line.contains(" 200 ")).count();
    assert_eq!(with_password, 0, "{asked:?}");
}

#[tokio::test]
async fn a_redirect_to_a_host_that_no_order_may_name_is_not_followed() {
    let (server, place) = serve();
    let elsewhere = server.host().replace("127.0.0.1", "localhost");
    for path in ["moved/app", "tricked/app"] {
        let moved = remote(&server, path, Some(TOKEN));
        let fetched = place.git.refresh_mirror(&moved).await.map(drop);
        let read = place.git.branch_head(&moved, &branch("feat/x")).await.map(drop);
        for error in [fetched.unwrap_err(), read.unwrap_err()] {
            assert!(
                matches!(&error, GitError::LedAway { host, .. } if *host == elsewhere),
                "{error}"
            );
            assert!(!error.retryable() && error.class() == ErrorClass::Invalid, "{error}");
            assert!(error.to_string().contains("AWO_ALLOWED_HOSTS"), "{error}");
        }
    }
    let asked = server.requests();
    assert!(!asked.iter().any(|line| line.contains("/acme/app/info/refs")), "{asked:?}");
    assert!(asked.len() >= 4, "the server was never asked: {asked:?}");
}

#[tokio::test]
async fn a_push_follows_no_redirect_to_a_host_that_no_order_may_name() {
    let (server, place) = serve();
    let own = remote(&server, "acme/app", Some(TOKEN));
    let mirror = place.git.refresh_mirror(&own).await.unwrap();
    let sandbox =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap();
    fs::write(sandbox.checkout.join("a.txt"), "a").unwrap();
    sandbox.commit("feat: a").await.unwrap();
    let moved = remote(&server, "moved/app", Some(TOKEN));
    let error = sandbox.push(&moved, &[]).await.unwrap_err();
    assert!(matches!(error, GitError::LedAway { .. }), "{error}");
    sandbox.push(&own, &[]).await.unwrap();
}

#[tokio::test]
async fn a_rule_of_the_server_is_reported_in_its_own_words() {
    let (server, place) = serve();
    let hook = server.repositories().join("acme/app.git/hooks/pre-receive");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\necho 'branches must be named after a ticket' >&2\nexit 1\n")
        .unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let remote = remote(&server, "acme/app", Some(TOKEN));
    let mirror = place.git.refresh_mirror(&remote).await.unwrap();
    let sandbox =
        place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap();
    fs::write(sandbox.checkout.join("a.txt"), "a").unwrap();
    sandbox.commit("feat: a").await.unwrap();
    let error = sandbox.push(&remote, &[]).await.unwrap_err();
    assert!(matches!(error, GitError::Rejected { .. }) && !error.retryable(), "{error}");
    assert!(error.to_string().contains("named after a ticket"), "{error}");
}
