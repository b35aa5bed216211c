//! Which repositories may be named, and how git and GitHub are spoken to.

use std::path::PathBuf;

use secrecy::SecretString;

use super::{ConfigError, FoldersConfig, keys, source::Reader, values};
use crate::{domain::RemoteRules, local_remotes::LocalRemotes};

/// GitHub's API.
#[derive(Debug, Clone)]
pub struct GithubConfig {
    /// `GITHUB_TOKEN`, `GH_TOKEN` or `GITHUB_PAT_TOKEN`.
    pub token: Option<SecretString>,
    /// `GITHUB_API_URL`, without a trailing slash.
    pub api_url: String,
    /// `AWO_GITHUB_HOST`: the only host that the token is for, besides the API's.
    pub host: String,
}

/// Identity and trust of git.
#[derive(Debug, Clone)]
pub struct GitConfig {
    /// `AWO_LFS_HOSTS`: hosts to which a server may send git-lfs for contents.
    pub lfs_hosts: Vec<String>,
    /// `AWO_GIT_CA_FILE`: PEM file of authorities trusted besides the host's.
    pub ca_file: Option<PathBuf>,
    /// `AWO_GIT_AUTHOR_NAME`.
    pub author_name: String,
    /// `AWO_GIT_AUTHOR_EMAIL`.
    pub author_email: String,
}

/// Which addresses may be named, and which folders those of `file://` may lead to.
pub(super) fn rules(
    reader: &mut Reader,
    folders: &FoldersConfig,
    written_by_agents: &[PathBuf],
    warnings: &mut Vec<String>,
) -> Result<(RemoteRules, LocalRemotes), ConfigError> {
    let home = reader.host().home();
    let mut kept =
        vec![folders.repositories.clone(), folders.work_orders.clone(), folders.config.clone()];
    kept.extend(home.as_ref().map(|home| home.join(".archon")));
    kept.extend_from_slice(written_by_agents);
    let apart = |path: &PathBuf| !kept.iter().any(|kept| path.starts_with(kept));
    let roots = reader.optional(&keys::LOCAL_REMOTES, |text| {
        values::paths(text, home.as_deref()).filter(|roots| roots.iter().all(apart))
    })?;
    let anywhere = reader.value(&keys::ALLOW_LOCAL_REMOTES, values::boolean)?;
    if anywhere && roots.is_none() {
        warnings.push(
            "AWO_ALLOW_LOCAL_REMOTES lets orders name any folder outside of archon-awo's own that this user may \
             read: set AWO_LOCAL_REMOTES to the folders in which repositories are instead"
                .to_owned(),
        );
    }
    let is_named = roots.is_some();
    let local = LocalRemotes { roots: roots.unwrap_or_default(), kept };
    let rules = RemoteRules {
        allowed_hosts: reader.value(&keys::ALLOWED_HOSTS, |text| {
            values::list(&text.to_ascii_lowercase(), is_host)
        })?,
        allow_local: anywhere || is_named,
    };
    Ok((rules, local))
}

/// A host with an optional port, and nothing else of an address.
fn is_host(text: &str) -> bool {
    let Ok(url) = url::Url::parse(&format!("ssh://{text}/")) else { return false };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    url.host_str().is_some_and(|host| format!("{host}{port}") == text)
}

impl GithubConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let token = reader.optional(&keys::GITHUB_TOKEN, values::secret)?;
        let api = reader.value(&keys::GITHUB_API_URL, |text| {
            values::web_address(text).map(|url| (text.trim_end_matches('/').to_owned(), url))
        })?;
        let named = |text: &str| Some(text.to_ascii_lowercase()).filter(|text| is_host(text));
        let host = reader.required(&keys::GITHUB_HOST, named, || {
            let host = repository_host(&api.1);
            Some((host.clone(), host))
        })?;
        let host = host.strip_suffix(":443").unwrap_or(&host).to_owned();
        Ok(Self { token, api_url: api.0, host })
    }
}

/// The host of the repositories that an API of GitHub is about: that of the API itself, but for the
/// two services that have an API host of its own.
fn repository_host(api: &url::Url) -> String {
    let host = api.host_str().unwrap_or_default();
    let port = api.port().map(|port| format!(":{port}")).unwrap_or_default();
    let without = host
        .strip_prefix("api.")
        .filter(|rest| port.is_empty() && (*rest == "github.com" || rest.ends_with(".ghe.com")));
    without.map_or_else(|| format!("{host}{port}"), str::to_owned)
}

impl GitConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        let home = reader.host().home();
        // Git ends a name at '<' and a mail address at '>': they would change the commit's header.
        let plain = |text: &str| values::text(text).filter(|text| !text.contains(['<', '>']));
        Ok(Self {
            lfs_hosts: reader.value(&keys::LFS_HOSTS, |text| {
                values::list(&text.to_ascii_lowercase(), is_host)
            })?,
            ca_file: reader
                .optional(&keys::GIT_CA_FILE, |text| values::path(text, home.as_deref()))?,
            author_name: reader.value(&keys::GIT_AUTHOR_NAME, plain)?,
            author_email: reader.value(&keys::GIT_AUTHOR_EMAIL, |text| {
                plain(text).filter(|text| text.contains('@') && !text.contains(' '))
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::repository_host;

    #[test]
    fn the_host_of_the_token_follows_from_the_address_of_the_api() {
        for (api, host) in [
            ("https://api.github.com", "github.com"),
            ("https://api.firm.ghe.com", "firm.ghe.com"),
            ("https://git.firm.example/api/v3", "git.firm.example"),
            ("https://api.firm.example:8443/v3", "api.firm.example:8443"),
            ("https://api.github.com:444", "api.github.com:444"),
            ("https://api.github.com.evil.example", "api.github.com.evil.example"),
        ] {
            assert_eq!(repository_host(&api.parse().unwrap()), host);
        }
    }
}
