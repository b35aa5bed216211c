//! Passwords inside addresses, which any setting may hold: they count as secrets and are never shown.

use secrecy::SecretString;
use url::Url;

use super::values::percent_decoded;
use crate::domain::is_weak_secret;

/// What stands for a password.
const MASK: &str = "***";
/// A user name of this length that is no word is a token: `https://<token>@host`, in characters.
const TOKEN: usize = 16;
/// Words in the names of parameters whose value opens something.
const OPENERS: [&str; 6] = ["pass", "token", "key", "secret", "auth", "sig"];

/// Where the addresses of a text are: behind a scheme, up to white space, a quote or a comma.
fn addresses(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let part_of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.match_indices("://").map(move |(at, _)| {
        let start = text[..at].trim_end_matches(part_of_scheme).len();
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | '<' | '>');
        let end = text[at + 3..].find(ends).map_or(text.len(), |length| at + 3 + length);
        start..end
    })
}

/// Every password and token in the addresses of a text, as written and decoded.
pub(super) fn passwords(text: &str) -> Vec<SecretString> {
    let mut all: Vec<String> = addresses(text).flat_map(|place| within(&text[place])).collect();
    all.retain(|password| !password.is_empty());
    all.sort();
    all.dedup();
    all.into_iter().map(SecretString::from).collect()
}

fn within(address: &str) -> Vec<String> {
    let Ok(url) = Url::parse(address) else { return unreadable(address).into_iter().collect() };
    let mut found = Vec::new();
    let mut add = |written: &str| found.extend([percent_decoded(written), written.to_owned()]);
    if let Some(password) = url.password() {
        add(password);
        // The parser writes some characters in another way than people do.
        found.extend(as_written(address));
    }
    let user = percent_decoded(url.username());
    let is_web = matches!(url.scheme(), "http" | "https");
    if is_web && user.chars().count() >= TOKEN && !is_weak_secret(&user) {
        found.extend([user, url.username().to_owned()]);
    }
    let opens = |name: &str| OPENERS.iter().any(|word| name.to_lowercase().contains(word));
    for (name, value) in url.query_pairs().filter(|(name, _)| opens(name)) {
        found.push(value.into_owned());
        let written = url.query().unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
        found.extend(written.filter(|(n, _)| *n == name).map(|(_, value)| value.to_owned()));
    }
    found
}

/// The password between the user's colon and the last `@`, exactly as it stands there.
fn as_written(address: &str) -> Option<String> {
    let (_, behind) = address.split_once("://")?;
    let authority = behind.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password.to_owned())
}

/// What may be a password in an address that cannot be read.
fn unreadable(address: &str) -> Option<String> {
    let (_, behind) = address.split_once("://")?;
    let (user, _) = behind.rsplit_once('@')?;
    Some(user.split_once(':').map_or(user, |(_, password)| password).to_owned())
}

/// The text with every password in its addresses masked, and what follows a `?` in one.
pub fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for place in addresses(text) {
        if place.start < done {
            continue;
        }
        out.push_str(&text[done..place.start]);
        out.push_str(&masked_address(&text[place.clone()]));
        done = place.end;
    }
    out.push_str(&text[done..]);
    out
}

fn masked_address(address: &str) -> String {
    let Some((scheme, behind)) = address.split_once("://") else { return address.to_owned() };
    let readable = Url::parse(address).is_ok();
    let end = behind.find(['/', '?', '#']).filter(|_| readable).unwrap_or(behind.len());
    let (authority, rest) = behind.split_at(end);
    let authority = match authority.rsplit_once('@') {
        None => authority.to_owned(),
        Some((_, host)) if !readable => format!("{MASK}@{host}"),
        Some((user, host)) => {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let token = name.chars().count() >= TOKEN && !is_weak_secret(&percent_decoded(name));
            let name = if token { MASK } else { name };
            let colon = if password.is_empty() { "" } else { ":***" };
            format!("{name}{colon}@{host}")
        }
    };
    let rest = match rest.split_once('?') {
        Some((path, _)) => format!("{path}?{MASK}"),
        None => rest.to_owned(),
    };
    format!("{scheme}://{authority}{rest}")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::{masked, passwords};

    #[test]
    fn a_password_is_found_and_masked_wherever_an_address_stands() {
        for (text, shown, secrets) in [
            ("http://me:k3y%40x@proxy:3128", "http://me:***@proxy:3128", vec!["k3y%40x", "k3y@x"]),
            (
                "https://0a1b2c3d4e5f6a7b8c@h.example/v1",
                "https://***@h.example/v1",
                vec!["0a1b2c3d4e5f6a7b8c"],
            ),
            ("https://h.example/v1?api_key=abc", "https://h.example/v1?***", vec!["abc"]),
            ("run --proxy 'http://a:b@c' x", "run --proxy 'http://a:***@c' x", vec!["b"]),
            ("http://a:b/c@d:x/", "http://***@d:x/", vec!["b/c"]),
            ("http://a:b@c,http://d:e@f", "http://a:***@c,http://d:***@f", vec!["b", "e"]),
            ("https://h.example/@scope/x", "https://h.example/@scope/x", vec![]),
            ("postgres://awo@db/x", "postgres://awo@db/x", vec![]),
            ("plain a@b :// text", "plain a@b :// text", vec![]),
        ] {
            assert_eq!(masked(text), shown, "{text}");
            let found = passwords(text);
            let found: Vec<&str> = found.iter().map(ExposeSecret::expose_secret).collect();
            for secret in &secrets {
                assert!(found.contains(secret), "{secret} of {text} is not in {found:?}");
            }
            assert_eq!(found.is_empty(), secrets.is_empty(), "{text}: {found:?}");
        }
    }
}
