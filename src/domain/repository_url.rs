//! The gate every repository URL passes before git, a path or a forge sees it.

use std::fmt;

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A server, over TLS.
    Https,
    /// A folder on this host; only with `AWO_ALLOW_LOCAL_REMOTES=true`.
    File,
}

/// Which remotes this installation works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRules {
    /// Hosts that may be contacted, with `:port` where it is not 443, in lower case.
    pub allowed_hosts: Vec<String>,
    /// Whether `file://` is accepted (`AWO_ALLOW_LOCAL_REMOTES`).
    pub allow_local: bool,
}

/// A repository address that is safe to hand to git: absolute, without credentials or options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryUrl {
    scheme: Scheme,
    host: String,
    owner: String,
    name: String,
    clone_url: String,
}

/// Why an address was refused; the text names the field, the value and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRepositoryUrl {
    /// No address at all.
    #[error("repository_url is empty: expected https://host/owner/repository")]
    Empty,
    /// A byte that could be mistaken for something else in a terminal, a log or a header.
    #[error("repository_url {0:?} contains a control character or a space: remove it")]
    ControlCharacter(String),
    /// Git would read it as an option.
    #[error("repository_url {0:?} starts with '-': expected https://host/owner/repository")]
    LeadingDash(String),
    /// A git transport helper, which runs a command.
    #[error(
        "repository_url {0:?} names a git transport helper ('::'): expected https://host/owner/repository"
    )]
    TransportHelper(String),
    /// A credential in the address. The value is not repeated: it holds a secret.
    #[error(
        "repository_url contains a user name or password: expected https://host/owner/repository, \
         with the credential in GITHUB_TOKEN or the file of AWO_GIT_CREDENTIALS"
    )]
    UserInfo,
    /// Neither https nor an allowed file.
    #[error("repository_url {0:?} is not supported: expected https://host/owner/repository")]
    Unsupported(String),
    /// `file://` without the switch.
    #[error(
        "repository_url {0:?} is a local folder: set AWO_ALLOW_LOCAL_REMOTES=true to allow file:// remotes"
    )]
    LocalNotAllowed(String),
    /// A host outside the list.
    #[error(
        "repository_url {url:?} has the host {host:?}, which is not allowed: expected one of {allowed} (AWO_ALLOWED_HOSTS)"
    )]
    HostNotAllowed {
        /// The address.
        url: String,
        /// Its host.
        host: String,
        /// The hosts that are allowed.
        allowed: String,
    },
    /// A path that has no owner and repository, or leaves its folder.
    #[error("repository_url {0:?} has no usable path: expected https://host/owner/repository")]
    Path(String),
}

impl RepositoryUrl {
    /// Reads `https://host/owner/repo`, `git@host:owner/repo`, `owner/repo` (GitHub) or, where
    /// allowed, `file:///path`.
    pub fn parse(text: &str, rules: &RemoteRules) -> Result<Self, InvalidRepositoryUrl> {
        use InvalidRepositoryUrl as E;
        let given = || text.to_owned();
        if text.trim().is_empty() {
            return Err(E::Empty);
        }
        // Before anything repeats the address: whatever has an '@' may hold a password. A folder
        // has none.
        let bare = text.strip_prefix("git@").unwrap_or(text);
        if bare.contains('@') && !text.starts_with("file:///") {
            return Err(E::UserInfo);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(E::ControlCharacter(given()));
        }
        if text.starts_with('-') {
            return Err(E::LeadingDash(given()));
        }
        if text.contains("::") {
            return Err(E::TransportHelper(given()));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return Self::local(text, path, rules);
        }
        let (host, path) = if let Some(rest) = text.strip_prefix("https://") {
            rest.split_once('/').ok_or_else(|| E::Path(given()))?
        } else if text.contains("://") {
            return Err(E::Unsupported(given()));
        } else if let Some(rest) = text.strip_prefix("git@") {
            rest.split_once(':').ok_or_else(|| E::Unsupported(given()))?
        } else if text.matches('/').count() == 1 && !text.contains(':') {
            ("github.com", text)
        } else {
            return Err(E::Unsupported(given()));
        };
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix(":443").unwrap_or(&host).to_owned();
        if !rules.allowed_hosts.contains(&host) {
            let allowed = rules.allowed_hosts.join(", ");
            return Err(E::HostNotAllowed { url: given(), host, allowed });
        }
        let path = path.trim_end_matches('/');
        let (owner, name) = path.rsplit_once('/').ok_or_else(|| E::Path(given()))?;
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['-', '.'])
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let repository = name.strip_suffix(".git").unwrap_or(name);
        if !owner.split('/').all(plain) || !plain(repository) {
            return Err(E::Path(given()));
        }
        Ok(Self {
            scheme: Scheme::Https,
            clone_url: format!("https://{host}/{path}"),
            host,
            owner: owner.to_owned(),
            name: repository.to_owned(),
        })
    }

    /// Reads an address that archon-awo wrote down itself, whichever hosts are allowed by now.
    pub fn recorded(text: &str) -> Option<Self> {
        let host = text.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        let allowed_hosts = host.map(str::to_owned).into_iter().collect();
        Self::parse(text, &RemoteRules { allowed_hosts, allow_local: true }).ok()
    }

    fn local(text: &str, path: &str, rules: &RemoteRules) -> Result<Self, InvalidRepositoryUrl> {
        if !rules.allow_local {
            return Err(InvalidRepositoryUrl::LocalNotAllowed(text.to_owned()));
        }
        let path = path.trim_end_matches('/');
        let leaves = path.split('/').any(|part| part == ".." || part == ".");
        let name = path.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".git").unwrap_or(name);
        if !path.starts_with('/') || leaves || name.is_empty() || name.starts_with(['-', '.']) {
            return Err(InvalidRepositoryUrl::Path(text.to_owned()));
        }
        Ok(Self {
            scheme: Scheme::File,
            host: String::new(),
            owner: "local".to_owned(),
            name: name.to_owned(),
            clone_url: format!("file://{path}"),
        })
    }

    /// Whether the remote is a server or a folder.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host in lower case, with the port when it is not 443; empty for a folder.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Everything between the host and the last path segment.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Last path segment without `.git`; also the folder name of the checkout.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What git is given. It never holds a credential.
    pub fn clone_url(&self) -> &str {
        &self.clone_url
    }

    /// The folder of a `file://` remote.
    pub fn local_path(&self) -> Option<&std::path::Path> {
        self.clone_url.strip_prefix("file://").map(std::path::Path::new)
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.clone_url)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{InvalidRepositoryUrl as E, RemoteRules, RepositoryUrl, Scheme};

    fn parse(text: &str) -> Result<RepositoryUrl, E> {
        let allowed_hosts = vec!["github.com".to_owned(), "127.0.0.1:8443".to_owned()];
        RepositoryUrl::parse(text, &RemoteRules { allowed_hosts, allow_local: true })
    }

    #[test]
    fn usual_spellings_of_one_repository_agree() {
        for text in [
            "https://github.com/acme/app",
            "https://GitHub.com:443/acme/app.git",
            "git@github.com:acme/app.git",
            "acme/app",
        ] {
            let url = parse(text).expect(text);
            assert_eq!((url.host(), url.owner(), url.name()), ("github.com", "acme", "app"));
        }
    }

    #[test]
    fn dangerous_addresses_are_refused_for_the_right_reason() {
        assert!(matches!(parse(""), Err(E::Empty)));
        assert!(matches!(parse("--upload-pack=x"), Err(E::LeadingDash(_))));
        assert!(matches!(parse("ext::sh -c id"), Err(E::ControlCharacter(_))));
        assert!(matches!(parse("ext::sh"), Err(E::TransportHelper(_))));
        assert!(matches!(parse("https://u:p@github.com/a/b"), Err(E::UserInfo)));
        assert!(matches!(parse("ssh://u:p@github.com/a/b"), Err(E::UserInfo)));
        assert!(matches!(parse("https://github.com/a\n/b"), Err(E::ControlCharacter(_))));
        assert!(matches!(parse("https://evil.example/a/b"), Err(E::HostNotAllowed { .. })));
        assert!(matches!(parse("http://github.com/a/b"), Err(E::Unsupported(_))));
        assert!(matches!(parse("https://github.com/a/../b"), Err(E::Path(_))));
        assert!(matches!(parse("https://github.com/only"), Err(E::Path(_))));
        assert!(matches!(parse("file:///srv/../etc"), Err(E::Path(_))));
    }

    #[test]
    fn a_refusal_never_repeats_a_password() {
        for text in [
            "https://u:hunter2@github.com/a/b",
            "http://u:hunter2@github.com/a/b",
            "https://u:hunter2/x@github.com/a/b",
            "https://u:hunter2@github.com/a b",
            "-https://u:hunter2@github.com/a/b",
            "u:hunter2@github.com/a/b",
        ] {
            let refusal = parse(text).map_err(|error| error.to_string());
            assert!(refusal.is_err_and(|text| !text.contains("hunter2")));
        }
    }

    /// Pieces that addresses, and tricks with them, are made of.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "https://",
                "file://",
                "git@",
                "ext::",
                "github.com",
                "127.0.0.1:8443",
                "evil.example",
                "/",
                ":",
                "@",
                "..",
                ".",
                ".git",
                "%2e",
                "%40",
                "\\",
                "?",
                "#",
                "-",
                " ",
                "\n",
                "acme",
                "app",
            ])
            .prop_map(str::to_owned),
            "[a-zA-Z0-9:/@.%-]{0,6}",
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_passes_is_canonical_and_on_an_allowed_host(text in pieces()) {
            let Ok(url) = parse(&text) else { return Ok(()) };
            let canonical = url.clone_url();
            prop_assert_eq!(&parse(canonical).unwrap(), &url);
            prop_assert!(!canonical.contains("::") && !canonical.contains(char::is_whitespace));
            prop_assert!(!canonical.split('/').any(|part| part == ".."), "{}", canonical);
            if url.scheme() == Scheme::Https {
                let host = canonical.trim_start_matches("https://").split('/').next();
                prop_assert!(host == Some("github.com") || host == Some("127.0.0.1:8443"), "{}", canonical);
            }
        }

        #[test]
        fn every_spelling_of_a_repository_passes(
            owner in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}[A-Za-z0-9]", name in "[A-Za-z0-9_]{1,12}",
        ) {
            let https = parse(&format!("https://github.com/{owner}/{name}")).unwrap();
            for text in [format!("{owner}/{name}"), format!("git@github.com:{owner}/{name}.git")] {
                let same = parse(&text).unwrap();
                prop_assert_eq!(
                    (same.host(), same.owner(), same.name()),
                    (https.host(), https.owner(), https.name())
                );
            }
        }
    }
}
