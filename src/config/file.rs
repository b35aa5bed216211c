//! Settings files: flat YAML, one key per setting, nothing unknown.

use std::{
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_norway::{Mapping, Value};

use super::{
    ConfigError,
    keys::{self, Key},
};

/// Longest settings file that is read, in bytes; real ones have a few hundred.
const LONGEST_FILE: u64 = 1 << 20;

/// A settings file that was read and whose keys are all known.
#[derive(Debug)]
pub(super) struct SettingsFile {
    path: PathBuf,
    values: Mapping,
}

/// Who else writes into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Every key must be ours.
    Ours,
    /// Other programs keep their keys there too; only those that look like ours must be known.
    Shared,
}

impl SettingsFile {
    /// Reads the file at `path`; `None` when there is none.
    pub fn read(path: &Path, ownership: Ownership) -> Result<Option<Self>, ConfigError> {
        let unreadable = |source| ConfigError::FileUnreadable { file: path.to_owned(), source };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(unreadable(error)),
        };
        if metadata.len() > LONGEST_FILE {
            return Err(ConfigError::FileForm {
                file: path.to_owned(),
                problem: "is larger than 1 MiB".to_owned(),
            });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let file = Self::parse(path, &text, ownership)?;
        let open_to_others = metadata.permissions().mode() & 0o077 != 0;
        if open_to_others && let Some(key) = keys::ALL.iter().find(|key| file.secret_named(key)) {
            return Err(ConfigError::FileOpenToOthers {
                file: path.to_owned(),
                key: key.file_name(),
            });
        }
        Ok(Some(file))
    }

    fn parse(path: &Path, text: &str, ownership: Ownership) -> Result<Self, ConfigError> {
        let problem = |problem| ConfigError::FileForm { file: path.to_owned(), problem };
        let values = match serde_norway::from_str(text) {
            Ok(Value::Mapping(values)) => values,
            Ok(Value::Null) => Mapping::new(),
            Ok(_) => return Err(problem("is not a list of `key: value` lines".to_owned())),
            Err(error) => return Err(problem(format!("is not YAML: {error}"))),
        };
        for key in values.keys() {
            let name = key.as_str().map_or_else(|| format!("{key:?}"), ToOwned::to_owned);
            if keys::ALL.iter().any(|known| known.file_name() == name) {
                continue;
            }
            let (nearest, distance) = nearest_key(&name);
            if ownership == Ownership::Ours || name.starts_with("awo_") || distance <= 2 {
                return Err(ConfigError::UnknownKey { file: path.to_owned(), key: name, nearest });
            }
        }
        Ok(Self { path: path.to_owned(), values })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails when the file sets `key`.
    pub fn refuse(&self, key: &Key) -> Result<(), ConfigError> {
        if !self.values.contains_key(key.file_name()) {
            return Ok(());
        }
        Err(ConfigError::FileForm {
            file: self.path.clone(),
            problem: format!(
                "sets {}, which decides where this file is: set {} in the environment",
                key.file_name(),
                key.name()
            ),
        })
    }

    fn secret_named(&self, key: &Key) -> bool {
        key.secret && self.values.contains_key(key.file_name())
    }

    /// The value of `key` as text; `None` when it is not in the file, empty or null.
    pub fn value(&self, key: &Key) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.values.get(key.file_name()) else { return Ok(None) };
        let text = match value {
            Value::Null => return Ok(None),
            Value::Sequence(entries) => {
                let entries: Option<Vec<String>> = entries.iter().map(scalar).collect();
                entries.map(|entries| entries.join(","))
            }
            other => scalar(other),
        };
        let text = text.ok_or_else(|| ConfigError::Invalid {
            name: key.file_name(),
            value: "a nested value".to_owned(),
            place: format!(" in {}", self.path.display()),
            expected: key.expected.to_owned(),
        })?;
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

/// The known key that is spelled most like `name`, and how many letters differ.
fn nearest_key(name: &str) -> (String, usize) {
    let by_distance = keys::ALL.iter().map(|key| {
        let known = key.file_name();
        let distance = edit_distance(name, &known);
        (known, distance)
    });
    by_distance.min_by_key(|(_, distance)| *distance).unwrap_or_default()
}

/// Letters to insert, remove or replace to turn `left` into `right`.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, letter) in left.chars().take(128).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{edit_distance, nearest_key};

    #[test]
    fn a_misspelled_key_finds_the_known_one() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(nearest_key("awo_leese"), ("awo_lease".to_owned(), 1));
    }
}
