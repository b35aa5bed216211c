//! When a usage limit ends, as the Claude CLI tells it in words.
//!
//! Wordings of versions 1.0 to 2.1: `…limit reached|1760000400`, `resets 3pm (Asia/Tokyo)`,
//! `resets Jun 7, 4:30pm (Europe/Rome)`, `resets Sep 15 at 7pm`, `resets Jan 2, 2027, 9am`,
//! `Your limit will reset at 12am.`, `Limits will reset at 9:30 AM.`, `It resets Oct 24.`; and of the
//! provider itself: `You will regain access on 2026-12-01 at 00:00 UTC.` Gateways say `resets in 2h 5m`,
//! `try again in 20 seconds`, `resets at 2026-12-01T00:00:00Z` and the like.

use std::time::Duration;

use chrono::{
    DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;

/// Seconds since 1970 of a time that is believed: from 2001 on, and within the range of dates.
const PLAUSIBLE: std::ops::Range<i64> = 1_000_000_000..100_000_000_000;
/// What stands before a time that is reckoned from now.
const LATER: [&str; 5] = ["resets in ", "reset in ", "try again in ", "retry in ", "retry after "];
/// The longest such time that is believed.
const LONGEST: Duration = Duration::from_hours(24 * 32);
/// A time of day that passed so recently is meant, and not the one of tomorrow.
const JUST_PASSED: TimeDelta = TimeDelta::minutes(15);

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// From `now` until the moment that `text` names, zero when it has passed; `local` is the zone of a time
/// without one.
pub(super) fn until_reset<Z: TimeZone>(
    text: &str,
    now: DateTime<Utc>,
    local: &Z,
) -> Option<Duration> {
    let lower = text.to_ascii_lowercase();
    if let Some(wait) = later(&lower) {
        return Some(wait);
    }
    let named = seconds(text).or_else(|| access(text)).or_else(|| stamp(text));
    let moment = named.or_else(|| {
        let (_, rest) = lower.split_once("reset")?;
        let rest = rest.strip_prefix('s').unwrap_or(rest);
        zone(text).map_or_else(|| moment(rest, now, local), |zone| moment(rest, now, &zone))
    })?;
    Some((moment - now).to_std().unwrap_or_default())
}

/// Seconds since 1970 behind a bar.
fn seconds(text: &str) -> Option<DateTime<Utc>> {
    let (_, rest) = text.split_once('|')?;
    let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
    let number: i64 = digits.parse().ok()?;
    // Some count in milliseconds.
    let seconds = [number, number / 1000].into_iter().find(|one| PLAUSIBLE.contains(one))?;
    DateTime::from_timestamp(seconds, 0)
}

/// A time reckoned from now: `2 hours 5 minutes`, `2h5m`, `20s`.
fn later(lower: &str) -> Option<Duration> {
    let mut rest = LATER.iter().find_map(|words| Some(lower.split_once(words)?.1))?;
    let mut sum = None;
    loop {
        rest = rest.trim_start_matches([' ', ',', '~']);
        rest = rest.strip_prefix("and ").unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(number) = rest[..end].parse::<u32>() else { break };
        let behind = rest[end..].trim_start_matches([' ', '-']);
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let unit = match &behind[..end] {
            "d" | "day" | "days" => 86_400,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            _ => break,
        };
        sum = Some(sum.unwrap_or(0_u64) + u64::from(number) * unit);
        rest = &behind[end..];
    }
    sum.map(Duration::from_secs).filter(|wait| *wait <= LONGEST)
}

/// A time as machines write it.
fn stamp(text: &str) -> Option<DateTime<Utc>> {
    let mut words = text.split([' ', ',', '(', ')', '"', '|']);
    words.find_map(|word| word.trim_end_matches('.').parse::<DateTime<Utc>>().ok())
}

/// The moment from which there is access again.
fn access(text: &str) -> Option<DateTime<Utc>> {
    let (_, rest) = text.split_once("regain access on ")?;
    let named = rest.get(.."2026-12-01 at 00:00".len())?;
    Some(NaiveDateTime::parse_from_str(named, "%Y-%m-%d at %H:%M").ok()?.and_utc())
}

/// A zone in parentheses.
fn zone(text: &str) -> Option<Tz> {
    let mut inside = text.split('(').skip(1).filter_map(|rest| rest.split(')').next());
    inside.find_map(|name| name.trim().parse().ok())
}

/// The moment that the words behind `reset` name.
fn moment<Z: TimeZone>(words: &str, now: DateTime<Utc>, zone: &Z) -> Option<DateTime<Utc>> {
    // What stands behind the moment is about something else.
    let end = words.find(['(', '·', '\n', '|']).unwrap_or(words.len());
    let words: Vec<&str> = words[..end]
        .split([' ', ',', '\u{a0}', '\u{202f}'])
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| !matches!(*word, "" | "at" | "on"))
        .collect();
    let here = now.with_timezone(zone).naive_local();
    let month = |word: &str| MONTHS.iter().position(|month| word.starts_with(month));
    let Some(month) = words.first().and_then(|word| month(word)) else {
        return next(time(&words)?, here, now, zone);
    };
    let day: u32 = words.get(1)?.parse().ok()?;
    let mut rest = words.get(2..).unwrap_or_default();
    let year: Option<i32> =
        rest.first().filter(|word| word.len() == 4).and_then(|y| y.parse().ok());
    if year.is_some() {
        rest = &rest[1..];
    }
    let time = time(rest).unwrap_or_default();
    let month = u32::try_from(month).ok()? + 1;
    let at = |year| NaiveDate::from_ymd_opt(year, month, day).map(|date| date.and_time(time));
    let this_year = at(year.unwrap_or_else(|| here.year()))?;
    // In December the limit may end in January.
    let long_gone = year.is_none() && here - this_year > TimeDelta::days(180);
    let named = if long_gone { at(here.year() + 1)? } else { this_year };
    in_zone(named, zone)
}

/// The next time it is `time` where the clock shows `here`.
fn next<Z: TimeZone>(
    time: NaiveTime,
    here: NaiveDateTime,
    now: DateTime<Utc>,
    zone: &Z,
) -> Option<DateTime<Utc>> {
    let days = [here.date().pred_opt()?, here.date(), here.date().checked_add_days(Days::new(1))?];
    let mut moments = days.into_iter().filter_map(|day| in_zone(day.and_time(time), zone));
    moments.find(|moment| *moment >= now - JUST_PASSED)
}

/// `3pm`, `4:30pm`, `9:30 AM` or `14:00`.
fn time(words: &[&str]) -> Option<NaiveTime> {
    let first = words.first()?;
    let half = |text: &str| match text {
        "am" => Some(0),
        "pm" => Some(12),
        _ => None,
    };
    let digits = first.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let half = half(&first[digits.len()..]).or_else(|| words.get(1).and_then(|word| half(word)));
    let (hour, minute) = digits.split_once(':').unwrap_or((digits, "0"));
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    match half {
        Some(half) if (1..=12).contains(&hour) => {
            NaiveTime::from_hms_opt(hour % 12 + half, minute, 0)
        }
        None if digits.contains(':') => NaiveTime::from_hms_opt(hour, minute, 0),
        _ => None,
    }
}

/// A time that the clock leaves out is taken for an hour later.
fn in_zone<Z: TimeZone>(local: NaiveDateTime, zone: &Z) -> Option<DateTime<Utc>> {
    let found = |local| zone.from_local_datetime(&local).earliest();
    let moment = found(local).or_else(|| found(local + TimeDelta::hours(1)))?;
    Some(moment.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::until_reset;

    /// A Sunday evening in December.
    const NOW: &str = "2026-12-27T20:00:00Z";

    fn reset(text: &str) -> Option<String> {
        let now: DateTime<Utc> = NOW.parse().unwrap();
        let wait = until_reset(text, now, &chrono_tz::America::New_York)?;
        Some((now + wait).format("%m-%d %H:%M").to_string())
    }

    #[test]
    fn every_wording_of_the_cli_is_understood() {
        for (text, expected) in [
            ("Claude AI usage limit reached|1798405200", "12-27 21:00"),
            (
                "Claude usage limit reached. Your limit will reset at 6pm (America/Santiago).",
                "12-27 21:00",
            ),
            ("5-hour limit reached ∙ resets 5pm", "12-27 22:00"),
            ("You've hit your limit · resets 1:30am (Asia/Dhaka)", "12-28 19:30"),
            ("You've hit your session limit · resets 12am (Europe/Berlin)", "12-27 23:00"),
            (
                "You've hit your session limit · resets 12:50am (America/Los_Angeles)\n/upgrade",
                "12-28 08:50",
            ),
            ("Weekly limit reached · resets 10am (Asia/Seoul) · /upgrade to Max", "12-28 01:00"),
            ("You've hit your weekly limit · resets Dec 30, 4:30pm (Europe/Rome)", "12-30 15:30"),
            ("You've hit your weekly limit · resets Dec 29 at 7pm", "12-30 00:00"),
            ("You've hit your weekly limit · resets Jan 2, 2027, 9am (UTC)", "01-02 09:00"),
            ("Opus weekly limit reached ∙ resets Jan 2, 9am", "01-02 14:00"),
            ("Opus weekly limit reached ∙ resets Dec 31", "12-31 05:00"),
            (
                "You’ve hit your limit for Claude messages. Limits will reset at 9:30 PM. View",
                "12-28 02:30",
            ),
            (
                "You've hit your Fable limit. It resets 3pm (UTC). /model to switch models.",
                "12-28 15:00",
            ),
            ("resets 7:55pm (UTC)", "12-27 20:00"),
            ("resets Dec 25 at 7pm (UTC)", "12-27 20:00"),
            (
                "API Error: 400 You have reached your specified API usage limits. You will regain access on 2026-12-28 at 00:00 UTC.",
                "12-28 00:00",
            ),
            ("You're out of extra usage · resets 22:15 (UTC)", "12-27 22:15"),
            ("Claude AI usage limit reached|1798405200000", "12-27 21:00"),
            ("5-hour limit reached - resets 5:30pm", "12-27 22:30"),
            ("You've hit your limit · resets 1am", "12-28 06:00"),
            ("You've hit your weekly limit · resets in 2 hours 5 minutes", "12-27 22:05"),
            ("Rate limit reached. Please try again in 1h30m.", "12-27 21:30"),
            ("too many requests, retry after 90 s", "12-27 20:01"),
            ("limit reached, resets at 2026-12-28T01:02:03Z.", "12-28 01:02"),
            (
                "You've hit your individual spend limit · resets Jan 1, 12am (UTC) · your 5-hour limit resets 3pm",
                "01-01 00:00",
            ),
        ] {
            assert_eq!(reset(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_names_no_time_is_not_made_one() {
        for text in [
            "",
            "limit reached",
            "resets",
            "resets soon",
            "resets 25pm",
            "resets 7",
            "resets Feb 31, 9am",
            "resets Foo 3, 9am",
            "limit reached|12",
            "limit reached|99999999999999999999",
            "resets é3pm",
            "reset at 13pm (Mars/Olympus)",
            "resets in a while",
            "try again in 3 fortnights",
            "retry after 4000000000 days",
            "try again in a moment",
        ] {
            assert_eq!(reset(text), None, "{text}");
        }
    }
}
