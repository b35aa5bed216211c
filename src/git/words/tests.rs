//! What git, curl and servers really print, and what it means for an order.

use std::{os::unix::process::ExitStatusExt, path::PathBuf, process::ExitStatus};

use super::{Meaning, Refusal, meaning, refusal, summary};
use crate::git::invocation::Outcome;

/// Words of one failed command; whether another try may help; how the sentence begins.
const FAILURES: &[(&str, Meaning, bool, &str)] = &[
    ("fatal: Authentication failed for 'https://h/a/b/'", Meaning::Auth, false, "git was refused"),
    (
        "fatal: could not read Username for 'https://h': terminal prompts disabled",
        Meaning::Auth,
        false,
        "git was refused",
    ),
    (
        "remote: Permission to a/b.git denied to bot.\nfatal: unable to access 'https://h/': The requested URL returned error: 403",
        Meaning::Auth,
        false,
        "git was refused",
    ),
    (
        "remote: Repository not found.\nfatal: repository 'https://h/a/b/' not found",
        Meaning::NotFound,
        false,
        "repository https://h/a/b was not found",
    ),
    (
        "fatal: '/srv/x' does not appear to be a git repository\nfatal: Could not read from remote repository.",
        Meaning::NotFound,
        false,
        "repository https://h/a/b was not found",
    ),
    (
        "fatal: unable to access 'https://h/': Could not resolve host: h",
        Meaning::Network,
        true,
        "git could not reach https://h/a/b",
    ),
    (
        "fatal: unable to access 'https://h/': gnutls_handshake() failed: The TLS connection was non-properly terminated.",
        Meaning::Network,
        true,
        "git could not reach",
    ),
    (
        "fatal: unable to access 'https://h/': GnuTLS recv error (-110): The TLS connection was non-properly terminated.",
        Meaning::Network,
        true,
        "git could not reach",
    ),
    (
        "fatal: unable to access 'https://h/': OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to h:443",
        Meaning::Network,
        true,
        "git could not reach",
    ),
    (
        "fatal: unable to access 'https://h/': TLS connect error: error:0A000126:SSL routines::unexpected eof while reading",
        Meaning::Network,
        true,
        "git could not reach",
    ),
    (
        "error: RPC failed; curl 92 HTTP/2 stream 0 was not closed cleanly: CANCEL (err 8)\nsend-pack: unexpected disconnect while reading sideband packet\nfatal: the remote end hung up unexpectedly\nEverything up-to-date",
        Meaning::Network,
        true,
        "git could not reach",
    ),
    (
        "error: 2154 bytes of body are still expected\nfetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF\nfatal: fetch-pack: invalid index-pack output",
        Meaning::Network,
        true,
        "git could not reach",
    ),
    ("fatal: write error: Broken pipe", Meaning::Network, true, "git could not reach"),
    (
        "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502\nfatal: the remote end hung up unexpectedly",
        Meaning::Server,
        true,
        "the git server of https://h/a/b failed or is overloaded",
    ),
    (
        "error: RPC failed; result=22, HTTP code = 503\nfatal: The remote end hung up unexpectedly",
        Meaning::Server,
        true,
        "the git server of",
    ),
    (
        "fatal: unable to access 'https://h/a/b/': The requested URL returned error: 429",
        Meaning::Server,
        true,
        "the git server of",
    ),
    (
        "remote: fatal: write error: No space left on device\nfatal: the remote end hung up unexpectedly",
        Meaning::Server,
        true,
        "the git server of",
    ),
    (
        "error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413\nsend-pack: unexpected disconnect while reading sideband packet\nfatal: the remote end hung up unexpectedly\nEverything up-to-date",
        Meaning::TooLarge,
        false,
        "the git server of https://h/a/b takes no push as large",
    ),
    (
        "error: RPC failed; result=22, HTTP code = 413\nfatal: The remote end hung up unexpectedly",
        Meaning::TooLarge,
        false,
        "the git server of https://h/a/b takes no push as large",
    ),
    (
        "fatal: unable to access 'https://h/': server certificate verification failed. CAfile: none CRLfile: none",
        Meaning::Certificate,
        false,
        "the certificate of https://h/a/b is not trusted",
    ),
    (
        "fatal: unable to access 'https://h/': SSL certificate problem: unable to get local issuer certificate",
        Meaning::Certificate,
        false,
        "the certificate of https://h/a/b is not trusted",
    ),
    (
        "fatal: detected dubious ownership in repository at '/srv/git/a.git'\nTo add an exception for this directory, call:\n\n\tgit config --global --add safe.directory /srv/git/a.git\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.",
        Meaning::Owner,
        false,
        "git does not read the folder /srv/git/a.git, because it belongs to another user",
    ),
    (
        "fatal: write error: No space left on device",
        Meaning::Full,
        true,
        "the disk is full while git fetch",
    ),
    (
        "error: inflate: data stream error (incorrect data check)",
        Meaning::Damaged,
        true,
        "the repository cache /cache is damaged",
    ),
];

#[test]
fn every_failure_has_one_meaning_and_says_whether_to_try_again() {
    for (words, expected, retryable, sentence) in FAILURES {
        assert_eq!(meaning(words), Some(*expected), "{words}");
        let outcome = Outcome {
            status: ExitStatus::from_raw(128 << 8),
            stdout: String::new(),
            stderr: (*words).to_owned(),
            closed: None,
        };
        let error = outcome.failure(
            "fetch",
            Some("https://h/a/b"),
            Some(PathBuf::from("/cache").as_path()),
        );
        assert_eq!(error.retryable(), *retryable, "{words}");
        assert!(error.sentence().starts_with(sentence), "{words}\n{}", error.sentence());
    }
    assert_eq!(meaning("fatal: something new"), None);
}

#[test]
fn a_refused_push_is_told_apart_from_one_that_met_another() {
    let moved = "cannot lock ref 'refs/heads/x': is at 66a9 but expected cdec";
    let locked = "remote: error: cannot lock ref 'refs/heads/x': Unable to create '/r.git/./refs/heads/x.lock': File exists.";
    let below = "remote: error: cannot lock ref 'refs/heads/Test/x': 'refs/heads/Test' exists; cannot create 'refs/heads/Test/x'";
    let full = "remote: fatal: unable to write file: No space left on device";
    let cases = [
        (moved, "", Refusal::Contended),
        ("failed to update ref", locked, Refusal::Contended),
        (
            "failed to update ref",
            "remote: error: cannot lock ref 'refs/heads/y': reference already exists",
            Refusal::Contended,
        ),
        ("failed to lock", "", Refusal::Contended),
        ("incorrect old value provided", "", Refusal::Contended),
        ("failed to update ref", below, Refusal::Name(Some("Test".to_owned()))),
        ("directory file conflict", "", Refusal::Name(None)),
        ("Internal Server Error", "", Refusal::Server),
        ("fatal error in commit_refs", "", Refusal::Server),
        ("remote failed to report status", "", Refusal::Server),
        ("unpacker error", full, Refusal::Server),
        ("unpacker error", "remote: fatal: pack exceeds maximum allowed size", Refusal::Rule),
        ("pre-receive hook declined", locked, Refusal::Rule),
        ("protected branch hook declined", "remote: error: GH006", Refusal::Rule),
        ("shallow update not allowed", "", Refusal::Rule),
    ];
    for (reason, stderr, expected) in cases {
        assert_eq!(refusal(reason, stderr), expected, "{reason} {stderr}");
    }
}

#[test]
fn a_summary_keeps_the_reason_and_has_a_limit() {
    let stderr = format!("Cloning into 'x'...\nfatal: no\n{}", "error: é\n".repeat(500));
    let text = summary(&stderr);
    assert!(text.starts_with("fatal: no; error"), "{text}");
    assert!(text.len() < 610);
    assert_eq!(summary(""), "it gave no reason");
}
