//! Which conversation of a CLI belongs to which of ours.
//!
//! These CLIs name their conversations themselves. The name is noted beside the output of the run, where no
//! agent can write: none chooses what another goes on with.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::Preset;

/// Longest name of a conversation.
const LONGEST: usize = 128;

/// The CLI's name for a conversation of ours, if an earlier run has told one.
pub(super) fn recall(spool: &Path, session: Uuid, preset: Preset) -> Option<String> {
    let text = fs::read_to_string(file(spool, session)).ok()?;
    let (agent, name) = text.trim_end().split_once(' ')?;
    (agent == preset.as_str() && is_name(name)).then(|| name.to_owned())
}

/// Notes the CLI's name for a conversation of ours.
///
/// # Errors
/// The file cannot be written.
pub fn note(spool: &Path, session: Uuid, preset: Preset, name: &str) -> io::Result<()> {
    if !is_name(name) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} names its conversation {name:?}", preset.as_str()),
        ));
    }
    let file = file(spool, session);
    let staged = file.with_extension("part");
    fs::write(&staged, format!("{} {name}\n", preset.as_str()))?;
    fs::rename(staged, file)
}

fn file(spool: &Path, session: Uuid) -> PathBuf {
    spool.with_file_name(format!("{session}.conversation"))
}

/// Whether it can be an argument without being an option, and a part of a path without leading anywhere.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= LONGEST
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{super::Preset, note, recall};

    #[test]
    fn a_name_is_recalled_for_its_agent_and_its_conversation_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, session) = (folder.path().join("3-execute-1.ndjson"), Uuid::from_u128(1));
        assert_eq!(recall(&spool, session, Preset::OpenCode), None);
        note(&spool, session, Preset::OpenCode, "ses_44f9562d4ffe").unwrap();
        let other_run = folder.path().join("3-execute-2.ndjson");
        let found = recall(&other_run, session, Preset::OpenCode);
        assert_eq!(found.as_deref(), Some("ses_44f9562d4ffe"));
        assert_eq!(recall(&spool, session, Preset::Codex), None);
        assert_eq!(recall(&spool, Uuid::from_u128(2), Preset::OpenCode), None);
    }

    #[test]
    fn no_name_is_an_option_or_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, session) = (folder.path().join("out"), Uuid::from_u128(1));
        for name in ["", "--last", "../x", "a b", "a\nb", &"a".repeat(129)] {
            assert!(note(&spool, session, Preset::Codex, name).is_err(), "{name:?}");
        }
        assert_eq!(recall(&spool, session, Preset::Codex), None);
    }
}
