//! The credentials of git hosts other than GitHub: a file with one address per line.

use std::{
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};

use super::{ConfigError, GithubConfig, keys, source::Reader, values};
use crate::domain::{Credential, Credentials};

/// Longest file that is read, in bytes: thousands of hosts.
const LONGEST_FILE: u64 = 1 << 20;
/// Where it is below the folder of configuration, unless a setting says otherwise.
const PLACE: &str = "git/credentials";
/// What a line looks like.
const FORM: &str = "expected https://user:password@host, with :port where it is not 443, \
                    percent-encoded, and nothing behind it";

/// Everything that opens a git host: GitHub's token for GitHub's host, and what the file has for others.
pub(super) fn read(
    reader: &mut Reader,
    config: &Path,
    github: &GithubConfig,
) -> Result<Credentials, ConfigError> {
    let home = reader.host().home();
    let named =
        reader.optional(&keys::GIT_CREDENTIALS, |text| values::path(text, home.as_deref()))?;
    let mut credentials = Credentials::default();
    let file = named.clone().unwrap_or_else(|| config.join(PLACE));
    let problem = |problem: String| ConfigError::Credentials { file: file.clone(), problem };
    let text = match contents(&file) {
        Ok(text) => text,
        Err(Obstacle::Absent) if named.is_none() => SecretString::default(),
        Err(Obstacle::Absent) => return Err(problem("does not exist".to_owned())),
        Err(Obstacle::OpenToOthers) => {
            let key = "a git credential".to_owned();
            return Err(ConfigError::FileOpenToOthers { file, key });
        }
        Err(Obstacle::Other(words)) => return Err(problem(words)),
    };
    for (number, line) in text.expose_secret().lines().enumerate() {
        let (number, line) = (number + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line is never repeated: whatever it is, it may hold a password.
        let (host, credential) = entry(line)
            .ok_or_else(|| problem(format!("has a line {number} of another form: {FORM}")))?;
        if host == github.host {
            let words = format!(
                "names {host} in line {number}, which GITHUB_TOKEN is for: set GITHUB_TOKEN, or \
                 AWO_GITHUB_HOST to another host"
            );
            return Err(problem(words));
        }
        if !credentials.add(&host, credential) {
            return Err(problem(format!("names {host} a second time in line {number}")));
        }
    }
    if let Some(token) = &github.token {
        // The file has been searched for this host.
        let _ = credentials.add(&github.host, Credential::token(token.clone()));
    }
    Ok(credentials)
}

enum Obstacle {
    Absent,
    OpenToOthers,
    Other(String),
}

fn contents(file: &PathBuf) -> Result<SecretString, Obstacle> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Obstacle::Absent,
        _ => Obstacle::Other(format!("cannot be read: {error}")),
    };
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > LONGEST_FILE {
        return Err(Obstacle::Other("is not a file of at most 1 MiB".to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Obstacle::OpenToOthers);
    }
    std::fs::read_to_string(file).map(SecretString::from).map_err(unreadable)
}

/// Host and credential of one line.
fn entry(line: &str) -> Option<(String, Credential)> {
    let url = url::Url::parse(line).ok()?;
    let plain = url.scheme() == "https"
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = format!("{}{port}", url.host_str()?);
    let user = values::percent_decoded(url.username());
    let password = values::percent_decoded(url.password()?);
    let one_line = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
    // Git puts the user between quotes and before an '@' when it asks; see git::askpass.
    (plain && one_line(&user) && one_line(&password) && !user.contains('\''))
        .then(|| (host, Credential { user, password: SecretString::from(password) }))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::entry;

    #[test]
    fn a_line_is_one_host_with_user_and_password() {
        let (host, found) = entry("https://me%40firm.example:p%2Fw+%25@Git.Example:8443").unwrap();
        assert_eq!((host.as_str(), found.user.as_str()), ("git.example:8443", "me@firm.example"));
        assert_eq!(found.password.expose_secret(), "p/w+%");
        assert_eq!(entry("https://u:p@h.example:443/").unwrap().0, "h.example");
        for line in [
            "https://h.example",
            "https://token@h.example",
            "https://:p@h.example",
            "https://u:@h.example",
            "http://u:p@h.example",
            "https://u:p@h.example/group",
            "https://u:p@h.example?x",
            "https://u:p%0Aq@h.example",
            "https://u%27:p@h.example",
            "h.example u p",
        ] {
            assert!(entry(line).is_none(), "{line:?} was accepted");
        }
    }
}
