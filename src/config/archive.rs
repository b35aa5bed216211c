//! Where sandboxes are archived before they go.

use secrecy::SecretString;
use url::Url;

use super::{ConfigError, keys, source::Reader, values};

/// An object storage.
#[derive(Debug, Clone)]
pub struct ArchiveConfig {
    /// `AWO_ARCHIVE_URL`.
    pub url: Url,
    /// What the storage needs to know, by the names of the crate `object_store`.
    pub options: Vec<(&'static str, SecretString)>,
    /// `AWO_ARCHIVE_MAX`: sandboxes with more bytes are not archived.
    pub max_bytes: u64,
}

impl ArchiveConfig {
    /// `None` when nothing is archived.
    pub(super) fn read(reader: &mut Reader) -> Result<Option<Self>, ConfigError> {
        let url = reader.optional(&keys::ARCHIVE_URL, address)?;
        let endpoint = reader.optional(&keys::ARCHIVE_ENDPOINT, |text| {
            values::web_address(text).map(|_| text.trim_end_matches('/').to_owned())
        })?;
        let region = reader.optional(&keys::ARCHIVE_REGION, values::text)?;
        let key_id = reader.optional(&keys::ARCHIVE_ACCESS_KEY_ID, values::text)?;
        let secret = reader.optional(&keys::ARCHIVE_SECRET_ACCESS_KEY, values::secret)?;
        let max_bytes = reader.value(&keys::ARCHIVE_MAX, values::size)?;
        let Some(url) = url else { return Ok(None) };
        let mut options = Vec::new();
        if let Some(endpoint) = endpoint {
            if endpoint.starts_with("http://") {
                options.push(("aws_allow_http", "true".into()));
            }
            options.push(("aws_endpoint", endpoint.into()));
        }
        options.extend(region.map(|region| ("aws_region", region.into())));
        options.extend(key_id.map(|id| ("aws_access_key_id", id.into())));
        options.extend(secret.map(|secret| ("aws_secret_access_key", secret)));
        Ok(Some(Self { url, options, max_bytes }))
    }

    /// The credential among the options.
    pub(super) fn secret(&self) -> Option<SecretString> {
        let found = self.options.iter().find(|(name, _)| *name == "aws_secret_access_key");
        found.map(|(_, secret)| secret.clone())
    }
}

fn address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let known = match url.scheme() {
        "file" => url.to_file_path().is_ok_and(|path| path.parent().is_some()),
        "s3" => url.host_str().is_some(),
        _ => false,
    };
    (plain && known).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn folders_and_buckets_are_accepted_and_credentials_are_not() {
        for good in ["file:///srv/archive", "s3://bucket", "s3://bucket/awo/eu"] {
            assert!(address(good).is_some(), "{good}");
        }
        for bad in ["", "/srv", "file:///", "s3://", "s3://k:s@bucket", "https://x/y"] {
            assert!(address(bad).is_none(), "{bad}");
        }
    }
}
