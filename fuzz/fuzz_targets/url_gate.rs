//! What passes the gate is canonical, on an allowed host, and nothing git takes for an option.
#![no_main]

use archon_awo_fuzz::domain::{RemoteRules, RepositoryUrl, Scheme};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &str)| {
    let (allow_local, text) = input;
    let hosts = ["github.com", "git.example:8443"];
    let rules = RemoteRules { allowed_hosts: hosts.map(str::to_owned).to_vec(), allow_local };
    let Ok(url) = RepositoryUrl::parse(text, &rules) else { return };
    let canonical = url.clone_url();
    assert_eq!(RepositoryUrl::parse(canonical, &rules).as_ref(), Ok(&url));
    assert!(!canonical.chars().any(|c| c.is_control() || c.is_whitespace()), "{canonical:?}");
    assert!(!canonical.contains("::"), "{canonical:?}");
    let name = url.name();
    assert!(!name.is_empty() && !name.starts_with(['-', '.']) && !name.contains('/'), "{name:?}");
    match url.scheme() {
        Scheme::Https => {
            let rest = canonical.strip_prefix("https://").expect("https");
            let (host, path) = rest.split_once('/').expect("a path");
            assert!(hosts.contains(&host), "{canonical:?}");
            assert!(
                !rest.contains('@') && path.split('/').all(|part| part != ".." && !part.is_empty())
            );
        }
        Scheme::File => {
            assert!(allow_local, "{canonical:?}");
            assert!(canonical.starts_with("file:///"), "{canonical:?}");
            assert!(!canonical.split('/').any(|part| part == ".."), "{canonical:?}");
        }
    }
});
