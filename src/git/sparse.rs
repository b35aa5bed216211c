//! Which files of a large repository are checked out: whole folders, and the files above them, as git's
//! cone mode has it.

use std::collections::BTreeSet;

use crate::domain::SparsePath;

/// The folders of a sparse checkout; none stands for everything.
pub(super) struct Cone<'a>(&'a [SparsePath]);

impl<'a> Cone<'a> {
    pub(super) fn of(folders: &'a [SparsePath]) -> Self {
        Self(folders)
    }

    /// Whether all files are checked out.
    pub(super) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the file with this path is checked out.
    pub(super) fn holds(&self, path: &[u8]) -> bool {
        let folder = path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &path[..at]);
        self.is_everything()
            || folder.is_empty()
            || self.0.iter().any(|wanted| {
                let wanted = wanted.as_str().as_bytes();
                is_within(folder, wanted) || is_within(wanted, folder)
            })
    }

    /// The file `info/sparse-checkout` in the form that git writes and reads quickly.
    pub(super) fn patterns(&self) -> String {
        let whole: BTreeSet<&str> = self.0.iter().map(SparsePath::as_str).collect();
        let above = |path: &'a str| path.match_indices('/').map(move |(at, _)| &path[..at]);
        let is_below = |path: &'a str| above(path).any(|parent| whole.contains(parent));
        let parents: BTreeSet<&str> = self.0.iter().flat_map(|path| above(path.as_str())).collect();
        let folder = |path: &&str| {
            let below = if whole.contains(path) { String::new() } else { format!("!/{path}/*/\n") };
            format!("/{path}/\n{below}")
        };
        let named = parents.union(&whole).filter(|path| !is_below(path)).map(folder);
        std::iter::once("/*\n!/*/\n".to_owned()).chain(named).collect()
    }
}

/// Whether `path` is `folder` or lies below it.
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::Cone;
    use crate::domain::SparsePath;

    fn folders(names: &[&str]) -> Vec<SparsePath> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_cone_holds_its_folders_and_the_files_above_them() {
        let folders = folders(&["services/api", "docs"]);
        let cone = Cone::of(&folders);
        for path in ["README.md", "services/x", "services/api/a", "services/api/b/c", "docs/d/e"] {
            assert!(cone.holds(path.as_bytes()), "{path}");
        }
        for path in ["services/apis/a", "services/web/a", "doc/a", "docs2/a", "x/docs/a"] {
            assert!(!cone.holds(path.as_bytes()), "{path}");
        }
        assert!(Cone::of(&[]).holds(b"any/thing"));
    }

    #[test]
    fn the_patterns_are_those_of_git() {
        let folders = folders(&["services/api/v1", "docs", "services/api/v1/deep", "services/web"]);
        let expected = "/*\n!/*/\n/docs/\n/services/\n!/services/*/\n/services/api/\n\
                        !/services/api/*/\n/services/api/v1/\n/services/web/\n";
        assert_eq!(Cone::of(&folders).patterns(), expected);
    }
}
