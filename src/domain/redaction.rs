//! Keeps live secrets out of everything that is stored or shown.

mod condensed;
mod controls;
mod dumps;
mod forms;
mod line;
mod matcher;
mod needles;
mod place;
mod reading;
mod rendered;
mod stream;
mod strength;
#[cfg(test)]
mod tests;
mod vendor;

use std::{fmt, sync::Arc};

use secrecy::SecretString;
use serde_json::Value;

pub use controls::is_invisible;
use needles::Needles;
pub use place::is_place;
pub use stream::{RedactStream, SecretSearch};
pub use strength::is_weak_secret;

/// What stands in the place of a secret.
const MARK: &[u8] = b"[redacted]";
/// Shortest secret, and shortest encoded form, that is searched for, in bytes: shorter ones are
/// ordinary words, and replacing those would destroy the log.
const MIN_LENGTH: usize = 8;

/// Replaces every known secret by `[redacted]`, in text and in streams, and whatever looks like a
/// token of a vendor.
#[derive(Clone, Default)]
pub struct Redactor {
    needles: Arc<Needles>,
}

impl Redactor {
    /// Knows the given secrets, each raw, in base64 (at any offset), hex, percent-encoded, as JSON and
    /// XML escape it and shells quote it, in UTF-16, in dumps of `od`, `xxd` and `hexdump`, and each line of one
    /// that has several; also where colours, controls, white space and line ends come between. Weak ones
    /// ([`is_weak_secret`]) are left alone: they may be words, and what people wrote is not rewritten.
    pub fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        Self { needles: Arc::new(Needles::new(secrets.into_iter().collect())) }
    }

    /// This redactor, with more secrets.
    #[must_use]
    pub fn with(&self, secrets: impl IntoIterator<Item = SecretString>) -> Self {
        let mut more = secrets.into_iter().peekable();
        if more.peek().is_none() {
            return self.clone();
        }
        Self::new(self.needles.secrets.iter().cloned().chain(more))
    }

    /// The text without the secrets.
    pub fn text(&self, text: &str) -> String {
        let mut stream = self.stream();
        let mut bytes = stream.push(text.as_bytes());
        bytes.extend(stream.finish());
        // Forms are UTF-8, so cutting them out of UTF-8 leaves UTF-8.
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into())
    }

    /// A text for the page of a forge, without the secrets: also without those that only the page would show,
    /// put together from entities or around comments. Such a text loses its marks.
    pub fn page(&self, text: &str) -> String {
        let clean = self.text(text);
        let shown = [false, true].map(|plain| rendered::rendered(&clean, plain));
        let betrays = shown.into_iter().map(|shown| (self.text(&shown), shown));
        let betrays = betrays.rev().find(|(clean, shown)| clean != shown);
        betrays.map_or(clean, |(clean, _)| clean)
    }

    /// The value with every text in it, names too, without the secrets.
    #[must_use]
    pub fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(name, value)| (self.text(&name), self.value(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other,
        }
    }

    /// Whether the bytes hold one of the known secrets, in any form, that is not weak and has at least 16
    /// bytes and both letters and digits: others may be ordinary words. What only looks like a token of a
    /// vendor does not count, nor does anything inside an archive.
    pub fn finds_secret(&self, bytes: &[u8]) -> bool {
        let mut search = self.search();
        search.push(bytes) || search.finish()
    }

    /// The same for something of any length, piece by piece.
    pub fn search(&self) -> SecretSearch {
        SecretSearch::new(Arc::clone(&self.needles))
    }

    /// A redactor for one stream.
    pub fn stream(&self) -> RedactStream {
        RedactStream::new(Arc::clone(&self.needles))
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("secrets", &self.needles.secrets.len()).finish()
    }
}

impl fmt::Debug for RedactStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactStream").field("held_bytes", &self.held()).finish_non_exhaustive()
    }
}
