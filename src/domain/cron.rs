//! When a schedule fires: a cron expression, read in its time zone, through changes of the clock.

use std::str::FromStr;

use chrono::{DateTime, Duration, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::crontab;

/// Where the search for a change of the clock looks, and how finely: no zone changes twice within it.
const STRIDE: TimeDelta = TimeDelta::hours(12);
/// Most steps of one search: repeated hours and changes of the clock that are passed over.
const PATIENCE: usize = 10_000;

/// Why a schedule cannot fire; a sentence for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// The expression.
    #[error(
        "expression is {expression:?}: expected five fields (minute hour day month weekday), or six with seconds first ({problem})"
    )]
    Expression {
        /// As it was written.
        expression: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The zone.
    #[error(
        "time_zone is {0:?}: expected a name of the IANA database such as Europe/Berlin or UTC"
    )]
    Zone(String),
    /// It names no time that is still to come, like the 30th of February.
    #[error("expression is {0:?}, which never fires again: pause or delete the schedule")]
    Never(String),
}

/// The times of one schedule.
///
/// Where the clock is put forward, a time of day that is left out fires at the moment of the change.
/// Where it is put back, a time of day fires when it comes first. Expressions whose hour begins with
/// `*` count hours and not times of day: they fire in a repeated hour again, and make up for none.
#[derive(Debug, Clone)]
pub struct Cron {
    expression: String,
    zone: Tz,
    /// The earliest of all counts: crontab joins day of month and weekday with "or".
    alternatives: Vec<cron::Schedule>,
    every_hour: bool,
}

impl Cron {
    /// Reads an expression and the name of a zone.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, CronError> {
        let invalid =
            |problem| CronError::Expression { expression: expression.to_owned(), problem };
        let plain = crontab::normalize(expression).map_err(invalid)?;
        let read = |text: &String| {
            cron::Schedule::from_str(text).map_err(|error| invalid(error.to_string()))
        };
        let alternatives = plain.expressions.iter().map(read).collect::<Result<_, _>>()?;
        let zone = Tz::from_str(zone).map_err(|_| CronError::Zone(zone.to_owned()))?;
        let expression = expression.to_owned();
        Ok(Self { expression, zone, alternatives, every_hour: plain.every_hour })
    }

    /// The first time it fires after `after`.
    pub fn next(&self, after: DateTime<Utc>) -> Result<DateTime<Utc>, CronError> {
        let mut since = after;
        // What the clock on the wall shows, after which the next match is looked for.
        let mut wall = self.wall(since);
        for _ in 0..PATIENCE {
            let offset = self.offset(since);
            let matched = self.matched(wall)?;
            let candidate = (matched - offset).and_utc();
            let Some((change, new)) = self.change(since, candidate) else {
                if self.every_hour || !self.is_repeat(candidate) {
                    return Ok(candidate);
                }
                wall = matched;
                continue;
            };
            let (left, entered) = (change.naive_utc() + offset, change.naive_utc() + new);
            if !self.every_hour && left <= matched && matched < entered {
                return Ok(change);
            }
            since = change;
            wall = entered - Duration::nanoseconds(1);
        }
        Err(CronError::Never(self.expression.clone()))
    }

    /// The last times it fires after `after` and up to `until`, at most `limit`, oldest first.
    pub fn last(
        &self,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<DateTime<Utc>>, CronError> {
        let mut times = Vec::new();
        let mut until = until;
        while times.len() < limit {
            let Some(time) = self.latest(after, until)? else { break };
            times.push(time);
            until = time - Duration::nanoseconds(1);
        }
        times.reverse();
        Ok(times)
    }

    /// The last time it fires after `after` and up to `until`. Halves what is between them, because a
    /// long outage may hide any number of times.
    fn latest(
        &self,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, CronError> {
        let within = |since| match self.next(since) {
            Ok(time) if time <= until => Ok(Some(time)),
            Ok(_) | Err(CronError::Never(_)) => Ok(None),
            Err(error) => Err(error),
        };
        let Some(mut found) = within(after)? else { return Ok(None) };
        let mut end = until;
        while end - found > Duration::seconds(1) {
            let middle = found + (end - found) / 2;
            match within(middle)? {
                Some(later) => found = later,
                None => end = middle,
            }
        }
        Ok(Some(within(found)?.unwrap_or(found)))
    }

    /// The first match of the fields after what the clock on the wall shows.
    fn matched(&self, wall: NaiveDateTime) -> Result<NaiveDateTime, CronError> {
        let first = |schedule: &cron::Schedule| schedule.after(&wall.and_utc()).next();
        let earliest = self.alternatives.iter().filter_map(first).min();
        let earliest = earliest.ok_or_else(|| CronError::Never(self.expression.clone()))?;
        Ok(earliest.naive_utc())
    }

    fn offset(&self, at: DateTime<Utc>) -> TimeDelta {
        let offset = self.zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        TimeDelta::seconds(offset.local_minus_utc().into())
    }

    fn wall(&self, at: DateTime<Utc>) -> NaiveDateTime {
        at.naive_utc() + self.offset(at)
    }

    /// Whether the clock on the wall showed the same a while before.
    fn is_repeat(&self, at: DateTime<Utc>) -> bool {
        let earliest = self.zone.from_local_datetime(&self.wall(at)).earliest();
        earliest.is_some_and(|earliest| earliest < at)
    }

    /// The first change of the clock after `since` and up to `until`, and the offset from then on.
    fn change(
        &self,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Option<(DateTime<Utc>, TimeDelta)> {
        let old = self.offset(since);
        let mut before = since;
        while before < until {
            let mut after = (before + STRIDE).min(until);
            if self.offset(after) == old {
                before = after;
                continue;
            }
            while after - before > Duration::seconds(1) {
                let middle = before + (after - before) / 2;
                if self.offset(middle) == old {
                    before = middle;
                } else {
                    after = middle;
                }
            }
            // Changes happen on whole seconds.
            let change = after.timestamp();
            let change = DateTime::from_timestamp(change, 0).filter(|at| self.offset(*at) != old);
            let change = change.unwrap_or(after);
            return Some((change, self.offset(change)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::{Cron, CronError};

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The next `count` times, in short.
    fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(expression, zone).unwrap();
        let mut at = time(after);
        let next = |_| {
            at = cron.next(at).unwrap();
            at.format("%m-%d %H:%M:%S").to_string()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn expressions_are_read_in_the_zone_of_the_schedule() {
        let berlin = times("30 9 * * 1-5", "Europe/Berlin", "2026-01-02T09:00:00Z", 2);
        assert_eq!(berlin, ["01-05 08:30:00", "01-06 08:30:00"]);
        let kolkata = times("0 0 1 * *", "Asia/Kolkata", "2026-01-02T00:00:00Z", 1);
        assert_eq!(kolkata, ["01-31 18:30:00"]);
        let seconds = times("*/20 * * * * *", "UTC", "2026-01-01T00:00:00.5Z", 3);
        assert_eq!(seconds, ["01-01 00:00:20", "01-01 00:00:40", "01-01 00:01:00"]);
    }

    #[test]
    fn a_time_that_is_left_out_in_spring_fires_at_the_change() {
        // Berlin leaves out 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
        let daily = times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3);
        assert_eq!(daily, ["03-28 01:30:00", "03-29 01:00:00", "03-30 00:30:00"]);
        let twice = times("15,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(twice, ["03-29 01:00:00", "03-30 00:15:00"]);
        let sharp = times("0 3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(sharp, ["03-29 01:00:00", "03-30 01:00:00"]);
        let hourly = times("30 * * * *", "Europe/Berlin", "2026-03-28T23:45:00Z", 3);
        assert_eq!(hourly, ["03-29 00:30:00", "03-29 01:30:00", "03-29 02:30:00"]);
    }

    #[test]
    fn a_time_that_is_repeated_in_autumn_fires_once_and_an_hourly_one_goes_on() {
        // New York repeats 01:00 to 02:00 on 1 November 2026, from 06:00 UTC.
        let daily = times("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2);
        assert_eq!(daily, ["11-01 05:30:00", "11-02 06:30:00"]);
        let within = times("30 1 * * *", "America/New_York", "2026-11-01T06:10:00Z", 1);
        assert_eq!(within, ["11-02 06:30:00"], "also for who looks during the repeated hour");
        let hourly = times("30 * * * *", "America/New_York", "2026-11-01T05:00:00Z", 3);
        assert_eq!(hourly, ["11-01 05:30:00", "11-01 06:30:00", "11-01 07:30:00"]);
        let two = times("0 2 * * *", "America/New_York", "2026-10-31T12:00:00Z", 1);
        assert_eq!(two, ["11-01 07:00:00"]);
    }

    #[test]
    fn changes_of_half_an_hour_and_of_a_whole_day_are_passed() {
        // Lord Howe leaves out 02:00 to 02:30 on 4 October 2026 (15:30 UTC the day before).
        let howe = times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 2);
        assert_eq!(howe, ["10-03 15:30:00", "10-04 15:15:00"]);
        // Samoa had no 30 December 2011.
        let apia = times("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", 1);
        assert_eq!(apia, ["12-30 10:00:00"]);
    }

    #[test]
    fn the_last_times_are_found_however_many_there_were() {
        let cron = Cron::parse("* * * * * *", "UTC").unwrap();
        let (after, until) = (time("2020-01-01T00:00:00Z"), time("2026-01-01T00:00:00.9Z"));
        let last = cron.last(after, until, 2).unwrap();
        assert_eq!(last, [time("2025-12-31T23:59:59Z"), time("2026-01-01T00:00:00Z")]);
        let cron = Cron::parse("0 0 29 2 *", "Europe/Berlin").unwrap();
        let last = cron.last(after, until, 9).unwrap();
        assert_eq!(last, [time("2020-02-28T23:00:00Z"), time("2024-02-28T23:00:00Z")]);
        assert!(cron.last(until, until, 9).unwrap().is_empty());
        let exact = Cron::parse("0 12 * * *", "UTC").unwrap();
        let noon = time("2026-05-05T12:00:00Z");
        assert_eq!(exact.last(after, noon, 1).unwrap(), [noon], "the end is within");
        assert!(exact.last(noon, noon, 1).unwrap().is_empty(), "the beginning is not");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let said = |expression, zone| Cron::parse(expression, zone).unwrap_err().to_string();
        assert!(
            said("61 * * * *", "UTC").starts_with("expression is \"61 * * * *\": expected five")
        );
        assert_eq!(
            said("* * * * *", "Mars/Olympus"),
            "time_zone is \"Mars/Olympus\": expected a name of the IANA database such as Europe/Berlin or UTC"
        );
        let never = Cron::parse("0 0 30 2 *", "UTC").unwrap();
        assert_eq!(
            never.next(time("2026-01-01T00:00:00Z")),
            Err(CronError::Never("0 0 30 2 *".to_owned()))
        );
    }
}
