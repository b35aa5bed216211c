//! What the words mean that git prints when it fails.

#[cfg(test)]
mod tests;

/// Words of git and curl, in lower case, and what they mean. The first match decides, so the
/// specific ones stand first. Git's own words are fixed by `LC_ALL=C`; they are those of git 2.39 and
/// 2.47, with curl on either of its two usual TLS libraries.
const MEANINGS: &[(&str, Meaning)] = &[
    ("no space left on device", Meaning::Full),
    ("disk quota exceeded", Meaning::Full),
    // A write that fails for another reason than space is next to unheard of, and git names none.
    ("unable to write file", Meaning::Full),
    ("unable to write new index file", Meaning::Full),
    ("unable to write new_index file", Meaning::Full),
    ("write error: broken pipe", Meaning::Network),
    ("fatal: write error", Meaning::Full),
    ("sha1 file write error", Meaning::Full),
    ("dubious ownership", Meaning::Owner),
    ("without `workflow` scope", Meaning::Auth),
    ("authentication failed", Meaning::Auth),
    ("authentication required", Meaning::Auth),
    ("could not read username", Meaning::Auth),
    ("could not read password", Meaning::Auth),
    ("returned error: 401", Meaning::Auth),
    ("returned error: 403", Meaning::Auth),
    ("http code = 403", Meaning::Auth),
    ("permission to ", Meaning::Auth),
    ("write access to repository not granted", Meaning::Auth),
    ("returned error: 404", Meaning::NotFound),
    ("repository not found", Meaning::NotFound),
    // Of git-lfs: about all contents it asked for, and about one.
    ("404 not found", Meaning::NotFound),
    (": [404]", Meaning::NotFound),
    ("does not appear to be a git repository", Meaning::NotFound),
    ("returned error: 413", Meaning::TooLarge),
    ("http 413", Meaning::TooLarge),
    ("http code = 413", Meaning::TooLarge),
    ("request entity too large", Meaning::TooLarge),
    ("certificate verification failed", Meaning::Certificate),
    ("certificate problem", Meaning::Certificate),
    ("no alternative certificate subject name", Meaning::Certificate),
    ("certificate verify locations", Meaning::Certificate),
    ("returned error: 408", Meaning::Server),
    ("returned error: 429", Meaning::Server),
    ("returned error: 5", Meaning::Server),
    ("http code = 5", Meaning::Server),
    ("remote failed to report status", Meaning::Server),
    ("could not resolve host", Meaning::Network),
    ("could not resolve proxy", Meaning::Network),
    ("failed to connect", Meaning::Network),
    ("couldn't connect to server", Meaning::Network),
    ("connection refused", Meaning::Network),
    ("connection reset", Meaning::Network),
    ("connection was reset", Meaning::Network),
    ("connection was aborted", Meaning::Network),
    ("timed out", Meaning::Network),
    ("connection timeout", Meaning::Network),
    ("operation too slow", Meaning::Network),
    ("no route to host", Meaning::Network),
    ("network is unreachable", Meaning::Network),
    ("unexpected disconnect", Meaning::Network),
    ("the remote end hung up", Meaning::Network),
    ("early eof", Meaning::Network),
    ("unexpected eof", Meaning::Network),
    ("rpc failed", Meaning::Network),
    ("transfer closed", Meaning::Network),
    ("send failure", Meaning::Network),
    ("recv failure", Meaning::Network),
    ("empty reply from server", Meaning::Network),
    ("http/2 stream", Meaning::Network),
    ("http2 framing", Meaning::Network),
    ("gnutls_handshake", Meaning::Network),
    ("gnutls recv error", Meaning::Network),
    ("tls connect error", Meaning::Network),
    ("ssl_connect", Meaning::Network),
    ("ssl_read", Meaning::Network),
    ("ssl_write", Meaning::Network),
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
    /// A volume of ours.
    Full,
    Auth,
    NotFound,
    /// The connection.
    Network,
    /// The server itself: it failed, or asks to wait.
    Server,
    /// The server takes no request of this size.
    TooLarge,
    /// The server's certificate.
    Certificate,
    /// A folder of another user.
    Owner,
    Damaged,
}

/// Why a remote did not move a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Something else held or moved it at the same moment.
    Contended,
    /// The server failed.
    Server,
    /// The name stands above or below that of another branch, which is this one where the server says so.
    Name(Option<String>),
    /// A rule of the server.
    Rule,
}

/// Reasons of git and of GitHub, in lower case, which a later push may not meet.
const CONTENDED: &[&str] = &[
    "cannot lock ref",
    "cannot update ref",
    "failed to update ref",
    "failed to lock",
    "unable to create lock file",
    "reference already exists",
    "incorrect old value",
    "transaction failed",
];
const SERVER: &[&str] = &[
    "internal server error",
    "fatal error in commit_refs",
    "failed to report status",
    "no space left on device",
    "disk quota exceeded",
    "unable to migrate objects",
];

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
    // What the server reports of itself is no news about our own volumes.
    let (theirs, ours): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.trim_start().starts_with("remote:"));
    let (theirs, ours) = (theirs.join("\n"), ours.join("\n"));
    let found = MEANINGS.iter().find(|(words, meaning)| match meaning {
        Meaning::Full => ours.contains(words),
        _ => text.contains(words),
    });
    match found {
        // The connection ends because of it.
        None | Some((_, Meaning::Network)) if SERVER.iter().any(|words| theirs.contains(words)) => {
            Some(Meaning::Server)
        }
        found => found.map(|(_, meaning)| *meaning),
    }
}

/// The folder that git does not read because it is another user's.
pub(super) fn foreign_folder(stderr: &str) -> Option<&str> {
    let (_, rest) = stderr.split_once("dubious ownership in repository at '")?;
    rest.split_once('\'').map(|(folder, _)| folder)
}

/// Why a push was refused: `reason` is what git reports for the branch, `stderr` all it printed.
pub(super) fn refusal(reason: &str, stderr: &str) -> Refusal {
    let in_the_way = name_in_the_way(stderr);
    let (reason, stderr) = (reason.to_ascii_lowercase(), stderr.to_ascii_lowercase());
    // A hook says in its own words what it does not like.
    if reason.contains("hook declined") {
        return Refusal::Rule;
    }
    if in_the_way.is_some() {
        return Refusal::Name(in_the_way);
    }
    if reason.contains("directory file conflict") {
        return Refusal::Name(None);
    }
    let of_server = |words: &&str| reason.contains(*words) || stderr.contains(*words);
    match () {
        () if SERVER.iter().any(of_server) => Refusal::Server,
        () if CONTENDED.iter().any(|words| reason.contains(words)) => Refusal::Contended,
        () => Refusal::Rule,
    }
}

/// The branch that stands in the way of one: "'refs/heads/test' exists; cannot create …".
fn name_in_the_way(stderr: &str) -> Option<String> {
    let (before, _) = stderr.split_once("' exists; cannot create '")?;
    let name = before.rsplit('\'').next()?;
    Some(name.strip_prefix("refs/heads/").unwrap_or(name).to_owned())
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
