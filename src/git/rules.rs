//! The rules that hold in a folder of a checkout: its own, those of the folders above it, and the worker's.

use std::{path::Path, rc::Rc};

use super::{
    GitError,
    attributes::{AttributeRules, Attributes, Source},
    ignore::IgnoreRules,
    reading::Work,
    rule_file,
};

/// Files that say what is not part of the work.
pub(super) const IGNORE: &str = ".gitignore";
/// Files that say what becomes of bytes.
pub(super) const ATTRIBUTES: &str = ".gitattributes";

/// Rules that no file of the checkout holds.
#[derive(Debug, Default)]
pub(super) struct Outside {
    /// Of the trusted repository, `info/exclude`.
    exclude: IgnoreRules,
    /// Of the worker, `git/ignore` in its configuration.
    excludes: IgnoreRules,
    /// Of the trusted repository, `info/attributes`.
    attributes: AttributeRules,
}

/// The rules that hold in a folder.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    work: Rc<Work>,
    outside: Rc<Outside>,
    nearest: Option<Rc<Folder>>,
}

/// A folder with rules of its own.
#[derive(Debug)]
struct Folder {
    /// How much of a path names it, the slash behind it included.
    length: usize,
    ignore: IgnoreRules,
    attributes: AttributeRules,
    above: Option<Rc<Folder>>,
}

impl Outside {
    /// Reads what trusted repository and worker say.
    pub(super) fn read(trusted: &Path, excludes: Option<&Path>) -> Result<Self, GitError> {
        let info = |name: &str| rule_file::read_own(&trusted.join("info").join(name));
        let excludes = excludes.map(rule_file::read_own).transpose()?.flatten();
        Ok(Self {
            exclude: IgnoreRules::parse(&info("exclude")?.unwrap_or_default()),
            excludes: IgnoreRules::parse(&excludes.unwrap_or_default()),
            attributes: AttributeRules::parse(&info("attributes")?.unwrap_or_default(), true),
        })
    }
}

impl Rules {
    /// The rules above the top of a checkout.
    pub(super) fn new(outside: Outside, work: Rc<Work>) -> Self {
        Self { work, outside: Rc::new(outside), nearest: None }
    }

    /// The rules in a folder below, whose files of rules have these contents.
    pub(super) fn within(
        &self,
        folder: &[u8],
        ignore: Option<&[u8]>,
        attributes: Option<&[u8]>,
    ) -> Self {
        let is_top = folder.is_empty();
        let ignore = ignore.map(IgnoreRules::parse).unwrap_or_default();
        let attributes =
            attributes.map(|content| AttributeRules::parse(content, is_top)).unwrap_or_default();
        if ignore.is_empty() && attributes.is_empty() {
            return self.clone();
        }
        let length = if is_top { 0 } else { folder.len() + 1 };
        let above = self.nearest.clone();
        let nearest = Some(Rc::new(Folder { length, ignore, attributes, above }));
        Self { work: Rc::clone(&self.work), outside: Rc::clone(&self.outside), nearest }
    }

    /// How many lines of the nearest files say something.
    pub(super) fn count(&self) -> usize {
        self.nearest.as_ref().map_or(0, |folder| folder.ignore.len() + folder.attributes.len())
    }

    /// Whether a path in the folder is ignored; the folder itself is not.
    pub(super) fn ignore(&self, path: &[u8], is_folder: bool) -> bool {
        let work = &*self.work;
        self.folders()
            .find_map(|folder| folder.ignore.verdict(&path[folder.length..], is_folder, work))
            .or_else(|| self.outside.exclude.verdict(path, is_folder, work))
            .or_else(|| self.outside.excludes.verdict(path, is_folder, work))
            .unwrap_or(false)
    }

    /// Has `look` see the attributes of a file in the folder.
    pub(super) fn attributes<T>(&self, path: &[u8], look: impl FnOnce(&Attributes<'_>) -> T) -> T {
        let mut sources: Vec<Source<'_>> = vec![(&self.outside.attributes, path)];
        sources.extend(self.folders().map(|folder| (&folder.attributes, &path[folder.length..])));
        look(&Attributes::of(&sources, &self.work))
    }

    fn folders(&self) -> impl Iterator<Item = &Folder> {
        std::iter::successors(self.nearest.as_deref(), |folder| folder.above.as_deref())
    }
}
