//! What the words mean that git prints when it fails.

/// Words of git and curl, in lower case, and what they mean. The first match decides, so the
/// specific ones stand first. Git's own words are fixed by `LC_ALL=C`.
const MEANINGS: &[(&str, Meaning)] = &[
    ("no space left on device", Meaning::Full),
    ("disk quota exceeded", Meaning::Full),
    // A write that fails for another reason than space is next to unheard of, and git names none.
    ("unable to write file", Meaning::Full),
    ("unable to write new index file", Meaning::Full),
    ("unable to write new_index file", Meaning::Full),
    ("fatal: write error", Meaning::Full),
    ("sha1 file write error", Meaning::Full),
    ("without `workflow` scope", Meaning::Auth),
    ("authentication failed", Meaning::Auth),
    ("authentication required", Meaning::Auth),
    ("could not read username", Meaning::Auth),
    ("could not read password", Meaning::Auth),
    ("returned error: 401", Meaning::Auth),
    ("returned error: 403", Meaning::Auth),
    ("permission to ", Meaning::Auth),
    ("write access to repository not granted", Meaning::Auth),
    ("returned error: 404", Meaning::NotFound),
    ("repository not found", Meaning::NotFound),
    // Of git-lfs: about all contents it asked for, and about one.
    ("404 not found", Meaning::NotFound),
    (": [404]", Meaning::NotFound),
    ("does not appear to be a git repository", Meaning::NotFound),
    ("returned error: 5", Meaning::Network),
    ("returned error: 429", Meaning::Network),
    ("could not resolve host", Meaning::Network),
    ("could not resolve proxy", Meaning::Network),
    ("failed to connect", Meaning::Network),
    ("couldn't connect to server", Meaning::Network),
    ("connection refused", Meaning::Network),
    ("connection reset", Meaning::Network),
    ("connection timed out", Meaning::Network),
    ("operation timed out", Meaning::Network),
    ("operation too slow", Meaning::Network),
    ("unexpected disconnect", Meaning::Network),
    ("the remote end hung up", Meaning::Network),
    ("early eof", Meaning::Network),
    ("rpc failed", Meaning::Network),
    ("empty reply from server", Meaning::Network),
    ("gnutls_handshake", Meaning::Network),
    ("ssl_error_syscall", Meaning::Network),
    ("loose object", Meaning::Damaged),
    ("bad object", Meaning::Damaged),
    ("bad tree object", Meaning::Damaged),
    ("missing blob", Meaning::Damaged),
    ("unable to read tree", Meaning::Damaged),
    ("unable to read sha1 file", Meaning::Damaged),
    ("inflate: data stream error", Meaning::Damaged),
    ("packfile", Meaning::Damaged),
    ("object file", Meaning::Damaged),
    ("did not send all necessary objects", Meaning::Damaged),
    ("not a git repository", Meaning::Damaged),
    ("bad config", Meaning::Damaged),
    ("reference broken", Meaning::Damaged),
    ("invalid sha1 pointer", Meaning::Damaged),
];

/// What a failed command was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Full,
    Auth,
    NotFound,
    Network,
    Damaged,
}

/// What the words of a failed git command mean.
pub(super) fn meaning(stderr: &str) -> Option<Meaning> {
    let text = stderr.to_ascii_lowercase();
    // These have a name in their middle: "repository 'https://…' not found", and the same for a
    // remote in a folder, which must not be taken for a damaged cache.
    if text.contains("repository '")
        && ["' not found", "' does not exist"].iter().any(|words| text.contains(words))
    {
        return Some(Meaning::NotFound);
    }
    MEANINGS.iter().find(|(words, _)| text.contains(words)).map(|(_, meaning)| *meaning)
}

/// The lines of git's output that say what is wrong, on one line.
pub(super) fn summary(stderr: &str) -> String {
    const LIMIT: usize = 600;
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = |line: &&str| {
        ["fatal:", "error:", "remote:", "!", "batch response:"]
            .iter()
            .any(|mark| line.starts_with(mark))
    };
    let mut chosen: Vec<&str> = lines().filter(told).collect();
    if chosen.is_empty() {
        chosen = lines().collect();
    }
    let mut text = chosen.join("; ");
    if text.len() > LIMIT {
        let end = (0..=LIMIT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    if text.is_empty() { "it gave no reason".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::{Meaning, meaning, summary};

    #[test]
    fn gits_words_have_one_meaning_each() {
        let cases = [
            ("fatal: Authentication failed for 'https://h/a/b/'", Meaning::Auth),
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                Meaning::Auth,
            ),
            (
                "remote: Permission to a/b.git denied to bot.\nfatal: unable to access 'https://h/': The requested URL returned error: 403",
                Meaning::Auth,
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://h/a/b/' not found",
                Meaning::NotFound,
            ),
            ("fatal: repository 'https://h/a/b/' not found", Meaning::NotFound),
            ("fatal: '/srv/x' does not appear to be a git repository", Meaning::NotFound),
            ("fatal: unable to access 'https://h/': Could not resolve host: h", Meaning::Network),
            (
                "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502",
                Meaning::Network,
            ),
            ("fatal: write error: No space left on device", Meaning::Full),
            ("error: inflate: data stream error (incorrect data check)", Meaning::Damaged),
        ];
        for (words, expected) in cases {
            assert_eq!(meaning(words), Some(expected), "{words}");
        }
        assert_eq!(meaning("fatal: something new"), None);
    }

    #[test]
    fn a_summary_keeps_the_reason_and_has_a_limit() {
        let stderr = format!("Cloning into 'x'...\nfatal: no\n{}", "error: é\n".repeat(500));
        let text = summary(&stderr);
        assert!(text.starts_with("fatal: no; error"), "{text}");
        assert!(text.len() < 610);
        assert_eq!(summary(""), "it gave no reason");
    }
}
