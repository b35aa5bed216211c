//! How Postgres is reached.

use clap::ValueEnum;
use secrecy::{ExposeSecret, SecretString};

use super::{ConfigError, keys, source::Reader, values};
use crate::store::DatabaseMode;

/// The connection to Postgres.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `DATABASE_URL` or `SUPABASE_DB_URL`. Commands that need no database run without.
    pub url: Option<SecretString>,
    /// `AWO_DATABASE_MODE`.
    pub mode: DatabaseMode,
    /// `AWO_AUTO_MIGRATE`: whether a worker brings the schema up to date when it starts.
    pub auto_migrate: bool,
    /// `AWO_DATABASE_CONNECTIONS`: most connections of this process.
    pub max_connections: u32,
}

impl DatabaseConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            url: reader.optional(&keys::DATABASE_URL, |text| {
                let postgres = ["postgres://", "postgresql://"];
                postgres.iter().any(|scheme| text.starts_with(scheme)).then(|| text.into())
            })?,
            mode: reader
                .value(&keys::DATABASE_MODE, |text| DatabaseMode::from_str(text, true).ok())?,
            auto_migrate: reader.value(&keys::AUTO_MIGRATE, values::boolean)?,
            max_connections: reader.value(&keys::DATABASE_CONNECTIONS, values::number(2..=200))?,
        })
    }

    /// The address, or the error that asks for it.
    pub fn required_url(&self) -> Result<&SecretString, ConfigError> {
        let (name, expected) = (keys::DATABASE_URL.name(), keys::DATABASE_URL.expected);
        self.url.as_ref().ok_or(ConfigError::Unset { name, expected })
    }
}

/// The passwords inside an address, as written and decoded.
pub(super) fn passwords(url: &SecretString) -> Vec<SecretString> {
    let Ok(url) = url::Url::parse(url.expose_secret()) else { return vec![url.clone()] };
    let written = url.password().unwrap_or_default().to_owned();
    let decoded = std::iter::once(values::percent_decoded(&written));
    let named = url.query_pairs().filter(|(name, _)| name == "password");
    let mut all: Vec<String> = decoded.chain(named.map(|(_, value)| value.into_owned())).collect();
    all.push(written);
    all.sort();
    all.dedup();
    all.into_iter().filter(|password| !password.is_empty()).map(SecretString::from).collect()
}
