//! How Postgres is reached.

use std::{fs, path::Path};

use clap::ValueEnum;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{ConfigError, addresses, keys, source::Reader, values};
use crate::store::DatabaseMode;

/// The connection to Postgres.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `DATABASE_URL` or `SUPABASE_DB_URL`, with the password of `DATABASE_PASSWORD_FILE` where it
    /// has none. Commands that need no database run without.
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
        let url = reader.optional(&keys::DATABASE_URL, |text| {
            let postgres = ["postgres://", "postgresql://"];
            postgres.iter().any(|scheme| text.starts_with(scheme)).then(|| text.into())
        })?;
        let home = reader.host().home();
        let password_file = reader
            .optional(&keys::DATABASE_PASSWORD_FILE, |text| values::path(text, home.as_deref()))?;
        Ok(Self {
            url: match (url, password_file) {
                (Some(url), Some(file)) => Some(with_password(url, &file)?),
                (url, _) => url,
            },
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

/// The address with the password that `file` holds; as it is when it has one of its own.
fn with_password(address: SecretString, file: &Path) -> Result<SecretString, ConfigError> {
    if !addresses::passwords(address.expose_secret()).is_empty() {
        return Ok(address);
    }
    let refused = |reason: &str| ConfigError::Invalid {
        name: keys::DATABASE_PASSWORD_FILE.name().to_owned(),
        value: format!("{:?}", file.display()),
        place: String::new(),
        expected: format!("{} ({reason})", keys::DATABASE_PASSWORD_FILE.expected),
    };
    let text = fs::read_to_string(file).map_err(|error| refused(&error.to_string()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(refused("it is empty"));
    }
    // The rest of what an address cannot hold is encoded by the setter.
    let password = password.replace('%', "%25");
    let mut url = Url::parse(address.expose_secret()).map_err(|error| {
        refused(&format!("{} is no address: {error}", keys::DATABASE_URL.name()))
    })?;
    url.set_password(Some(&password))
        .map_err(|()| refused(&format!("{} names no host", keys::DATABASE_URL.name())))?;
    Ok(String::from(url).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str, password: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), password).unwrap();
        with_password(url.into(), file.path())
            .map(|url| url.expose_secret().to_owned())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_from_a_file_survives_the_address_whatever_is_in_it() {
        for password in ["plain", "p@ss/w:rd?#%41+ \u{e4}", "%"] {
            let url = address("postgres://awo@db/x", &format!("{password}\n")).unwrap();
            let known = addresses::passwords(&url);
            let known: Vec<&str> = known.iter().map(ExposeSecret::expose_secret).collect();
            assert!(known.contains(&password), "{password} became {url}");
            let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
            assert!(format!("{options:?}").contains(&format!("{password:?}")), "{options:?}");
        }
    }

    #[test]
    fn the_password_of_the_address_wins_and_the_file_is_not_looked_for() {
        for url in ["postgres://awo:own@db/x", "postgres://awo@db/x?password=own"] {
            let answer = with_password(url.into(), Path::new("/does/not/exist")).unwrap();
            assert_eq!(answer.expose_secret(), url);
        }
    }

    #[test]
    fn an_unusable_password_file_is_named_with_the_reason() {
        let error = address("postgres://awo@db/x", "\n").unwrap_err();
        assert!(error.contains("DATABASE_PASSWORD_FILE") && error.contains("empty"), "{error}");
        let missing = Path::new("/does/not/exist");
        let error = with_password("postgres://awo@db/x".into(), missing).unwrap_err().to_string();
        assert!(error.contains("\"/does/not/exist\"") && error.contains("No such file"), "{error}");
        let error = address("postgres:///x", "secret").unwrap_err();
        assert!(
            error.contains("DATABASE_URL names no host") && !error.contains("secret"),
            "{error}"
        );
    }
}
