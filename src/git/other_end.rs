//! What git runs on the other end where that is a folder of this host: with the rights of the worker, and so
//! without what the folder's own hooks and configuration would have it run.

use super::Remote;
use crate::domain::Scheme;

/// What a repository there may not decide; git gives that program none of our own settings. An empty command
/// would run what follows it.
const OTHER_END: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "gc.auto=0",
    "maintenance.auto=false",
];
/// ... and when it is sent something: a checkout there would be brought up to date by its own filters.
const TAKING: &[&str] = &["receive.autogc=false", "receive.denyCurrentBranch=refuse"];

/// The argument of `verb` that names the program of the other end; none for a server.
pub(super) fn other_end(verb: &str, remote: Option<&Remote>) -> Option<String> {
    remote.filter(|remote| remote.url.scheme() == Scheme::File)?;
    let git = |more: &[&str]| {
        let settings = OTHER_END.iter().chain(more).map(|setting| format!(" -c {setting}"));
        format!("git{}", settings.collect::<String>())
    };
    match verb {
        "fetch" | "clone" | "ls-remote" => Some(format!("--upload-pack={} upload-pack", git(&[]))),
        "push" => Some(format!("--receive-pack={} receive-pack", git(TAKING))),
        _ => None,
    }
}
