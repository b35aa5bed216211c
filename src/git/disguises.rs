//! Names that git takes for its own on some file system, in every disguise.

use std::ffi::OsStr;

/// Whether git would take the name for its own folder on some file system.
pub(super) fn is_git_folder(name: &OsStr) -> bool {
    matches!(plain_name(name).as_str(), ".git" | "git~1")
}

/// Whether git would take the name for its list of submodules on some file system: it refuses links of
/// that name.
pub(super) fn is_submodule_list(name: &OsStr) -> bool {
    let name = plain_name(name);
    let short =
        name.strip_prefix("gitmod~").is_some_and(|rest| matches!(rest, "1" | "2" | "3" | "4"));
    // The names that Windows makes when those four are taken.
    name == ".gitmodules" || short || (name.starts_with("gi7eb") && name.contains('~'))
}

/// A name as other systems see it: on Windows what follows a colon and dots and blanks at the end do not
/// count, on a Mac some invisible letters, on both the case.
fn plain_name(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let seen = name.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    let invisible = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    seen.chars().filter(|c| !invisible(c)).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::{is_git_folder, is_submodule_list};

    #[test]
    fn a_git_folder_is_known_in_every_disguise() {
        for name in
            [".git", ".GIT", "git~1", ".git ", ".git...", ".git::$INDEX_ALLOCATION", ".g\u{200c}it"]
        {
            assert!(is_git_folder(name.as_ref()), "{name:?}");
        }
        for name in [".gitignore", "git", ".github", "a.git", ".git2", "git~2"] {
            assert!(!is_git_folder(name.as_ref()), "{name:?}");
        }
    }

    #[test]
    fn a_list_of_submodules_is_known_in_every_disguise() {
        for name in [".gitmodules", ".GitModules", ".gitmodules .", "gitmod~1", "GI7EBA~1"] {
            assert!(is_submodule_list(name.as_ref()), "{name:?}");
        }
        for name in ["gitmodules", ".gitmodules2", "gitmod~9", ".gitignore"] {
            assert!(!is_submodule_list(name.as_ref()), "{name:?}");
        }
    }
}
