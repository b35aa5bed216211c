//! Values that files name for good reasons.

use url::Url;

/// Whether a value is a folder or an address without a password, as of a registry.
pub fn is_place(value: &str) -> bool {
    let open = |url: Url| url.password().is_none() && url.username().is_empty();
    value.starts_with('/')
        || Url::parse(value).is_ok_and(|url| url.has_host() && url.query().is_none() && open(url))
}

#[cfg(test)]
mod tests {
    use super::is_place;

    #[test]
    fn folders_and_addresses_without_a_password_are_places() {
        for place in ["/usr/lib/jvm/java-17", "https://npm.corp3.example/all/"] {
            assert!(is_place(place), "{place}");
        }
        for secret in [
            "npm_0123456789abcdef0123",
            "https://me:pass0word@npm.example/",
            "https://token0123456789@npm.example/",
            "https://npm.example/?key=0123456789",
            "postgres://u:p@h/d",
            "token:0123456789",
        ] {
            assert!(!is_place(secret), "{secret}");
        }
    }
}
