//! Reads the forms in which values are written: durations, numbers, lists, paths.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use secrecy::SecretString;

use crate::disk::parse_size;

/// The longest duration any setting takes: a year. More is a mistake, and sums cannot overflow.
const LONGEST: Duration = Duration::from_hours(366 * 24);
/// The shortest: less would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);

/// `30s`, `1h 30m`, or plain seconds (`90`, `0.5`).
pub fn duration(text: &str) -> Option<Duration> {
    let seconds = || Duration::try_from_secs_f64(text.parse().ok()?).ok();
    let duration = seconds().or_else(|| humantime::parse_duration(text).ok())?;
    (SHORTEST..=LONGEST).contains(&duration).then_some(duration)
}

/// A duration, or zero for `off`.
pub fn duration_or_off(text: &str) -> Option<Duration> {
    if text.eq_ignore_ascii_case("off") || text == "0" {
        Some(Duration::ZERO)
    } else {
        duration(text)
    }
}

/// A number of days, or nothing for `off`.
#[expect(clippy::option_option, reason = "outside: understood or not; inside: a limit or none")]
pub fn days_or_off(text: &str) -> Option<Option<i32>> {
    if text.eq_ignore_ascii_case("off") {
        return Some(None);
    }
    number(1..=36_500)(text).map(Some)
}

/// A size in bytes, or nothing for `off`.
#[expect(clippy::option_option, reason = "outside: understood or not; inside: a limit or none")]
pub fn size_or_off(text: &str) -> Option<Option<u64>> {
    if text.eq_ignore_ascii_case("off") {
        return Some(None);
    }
    parse_size(text).filter(|size| *size > 0).map(Some)
}

/// `true`/`false` and the usual other spellings.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A number within a range.
pub fn number<T: FromStr + PartialOrd>(range: RangeInclusive<T>) -> impl FnOnce(&str) -> Option<T> {
    move |text| text.parse().ok().filter(|number| range.contains(number))
}

/// Entries separated by commas, at least one, each passing `valid`.
pub fn list(text: &str, valid: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let entries: Vec<String> = entries.map(ToOwned::to_owned).collect();
    (!entries.is_empty() && entries.iter().all(|entry| valid(entry))).then_some(entries)
}

/// Text that fits one line.
pub fn text(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.chars().any(char::is_control);
    plain.then(|| text.to_owned())
}

/// What a part of an address says when its percent signs are read.
pub fn percent_decoded(written: &str) -> String {
    // A query pair is the simplest reader of percent encoding at hand; it reads '+' as a space.
    let pair = format!("p={}", written.replace('+', "%2B"));
    let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
    pairs.next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// A credential: one line, no spaces inside.
pub fn secret(text: &str) -> Option<SecretString> {
    let plain = !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    plain.then(|| SecretString::from(text))
}

/// An absolute path; `~/` stands for the home folder and other relative paths begin at the working
/// folder.
pub fn path(text: &str, home: Option<&Path>) -> Option<PathBuf> {
    if text.chars().any(char::is_control) {
        return None;
    }
    if text == "~" {
        return home.map(Path::to_owned);
    }
    if let Some(rest) = text.strip_prefix("~/") {
        return home.map(|home| home.join(rest));
    }
    std::path::absolute(text).ok()
}

/// Absolute paths separated by colons, at least one; none of them the root of everything.
pub fn paths(text: &str, home: Option<&Path>) -> Option<Vec<PathBuf>> {
    let entries = text.split(':').map(str::trim).filter(|entry| !entry.is_empty());
    let entries: Option<Vec<PathBuf>> = entries
        .map(|entry| {
            let named = entry.starts_with('/') || entry == "~" || entry.starts_with("~/");
            let path = path(entry, home).filter(|_| named)?;
            let plain = path.components().all(|part| part != std::path::Component::ParentDir);
            (plain && path.parent().is_some()).then_some(path)
        })
        .collect();
    entries.filter(|entries| !entries.is_empty())
}

/// A size in bytes of at least 1 MiB.
pub fn size(text: &str) -> Option<u64> {
    parse_size(text).filter(|bytes| *bytes >= 1 << 20)
}

/// An http or https address with a host.
pub fn web_address(text: &str) -> Option<url::Url> {
    let url = url::Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{boolean, duration, list, path, paths, size};

    #[test]
    fn durations_are_humantime_or_plain_seconds() {
        assert_eq!(duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(duration("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1h 30m"), Some(Duration::from_mins(90)));
        for bad in ["", "0", "-1", "soon", "1e300", "NaN", "inf", "900 years"] {
            assert_eq!(duration(bad), None, "{bad:?} was accepted");
        }
    }

    #[test]
    fn lists_drop_blanks_and_need_an_entry() {
        let any = |_: &str| true;
        assert_eq!(list(" a, b,", any), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(list(" , ", any), None);
    }

    #[test]
    fn sizes_and_lists_of_paths_are_read_or_refused() {
        for (text, bytes) in
            [("4G", 4 << 30), ("512MiB", 512 << 20), ("512M", 512 << 20), ("1048576", 1 << 20)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "1", "1048575", "1023KiB"] {
            assert_eq!(size(bad), None, "{bad:?} was accepted");
        }
        let home = std::path::Path::new("/home/ada");
        assert_eq!(paths("/opt/x: ~/y", Some(home)), Some(vec!["/opt/x".into(), home.join("y")]));
        for bad in ["", ":", "/", "x", "/opt:../y", "/opt/../root"] {
            assert_eq!(paths(bad, Some(home)), None, "{bad:?} was accepted");
        }
    }

    #[test]
    fn booleans_and_paths_are_read_as_people_write_them() {
        assert_eq!((boolean("Yes"), boolean("maybe")), (Some(true), None));
        let home = std::path::Path::new("/home/ada");
        assert_eq!(path("~/x", Some(home)), Some(home.join("x")));
        assert!(path("x", None).is_some_and(|path| path.is_absolute()));
    }
}
