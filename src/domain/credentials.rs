//! Which credential opens which host: one for each, and none for any other host.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::{RepositoryUrl, Scheme};

/// The user name that goes with a token of GitHub.
const TOKEN_USER: &str = "x-access-token";

/// A user and a password, as git sends them.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Not a secret: git shows it.
    pub user: String,
    /// A password or a token.
    pub password: SecretString,
}

impl Credential {
    /// A token of GitHub.
    pub fn token(token: impl Into<SecretString>) -> Self {
        Self { user: TOKEN_USER.to_owned(), password: token.into() }
    }
}

/// The credentials of this installation, each bound to its host.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// By host in lower case, with the port when it is not 443.
    hosts: BTreeMap<String, Credential>,
}

impl Credentials {
    /// Binds a credential to a host (`name` or `name:port`, as [`RepositoryUrl::host`] has it);
    /// false when that host has one already, which then stays.
    #[must_use]
    pub fn add(&mut self, host: &str, credential: Credential) -> bool {
        match self.hosts.entry(canonical(host)) {
            std::collections::btree_map::Entry::Occupied(_) => false,
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(credential);
                true
            }
        }
    }

    /// What opens `host`, if anything does.
    pub fn for_host(&self, host: &str) -> Option<&Credential> {
        self.hosts.get(host)
    }

    /// What opens the server of `url`; a folder needs nothing.
    pub fn for_url(&self, url: &RepositoryUrl) -> Option<Credential> {
        match url.scheme() {
            Scheme::Https => self.for_host(url.host()).cloned(),
            Scheme::File => None,
        }
    }

    /// The hosts that have one.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// Every password, for the redactor.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        self.hosts.values().map(|credential| &credential.password)
    }
}

/// A host as addresses of repositories have it.
fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(":443").unwrap_or(&host).to_owned()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::{Credential, Credentials};
    use crate::domain::{RemoteRules, RepositoryUrl};

    #[test]
    fn a_credential_opens_its_own_host_and_no_other() {
        let mut credentials = Credentials::default();
        assert!(credentials.add("GitHub.com:443", Credential::token("ghp_one")));
        assert!(!credentials.add("github.com", Credential::token("ghp_two")));
        let hosts = ["github.com", "github.com:8443", "github.com.evil.example", "api.github.com"];
        let rules = RemoteRules {
            allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            allow_local: true,
        };
        let password = |text: &str| {
            let url = RepositoryUrl::parse(text, &rules).unwrap();
            let found = credentials.for_url(&url);
            found.map(|found| found.password.expose_secret().to_owned())
        };
        assert_eq!(password("acme/app").as_deref(), Some("ghp_one"));
        assert_eq!(password("git@github.com:acme/app.git").as_deref(), Some("ghp_one"));
        for host in &hosts[1..] {
            assert_eq!(password(&format!("https://{host}/acme/app")), None, "{host}");
        }
        assert_eq!(password("file:///github.com/app"), None);
    }
}
