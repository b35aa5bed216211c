//! Jobs that cannot run for now through no fault of their own: how long each is left alone, and when
//! it has waited enough.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    clock::Clock,
    store::{Claimed, Settlement},
};

/// How often in a row a job is put back before it fails. With the pauses, and the time for which a
/// claim waits for a lock, that is about an hour.
pub const LIMIT: i32 = 60;
/// First and longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));

/// Whether a job was put back as often as it may be.
pub fn is_spent(job: &Claimed) -> bool {
    job.put_back_count >= LIMIT
}

/// Puts a job back because of `why`, for longer each time.
pub fn put_back(clock: &Clock, job: &Claimed, why: String) -> Settlement {
    let (first, longest) = PAUSES;
    let doublings = u32::try_from(job.put_back_count).unwrap_or_default().min(10);
    let ceiling = first.saturating_mul(1 << doublings).min(longest);
    Settlement::PutBack(why, clock.between(ceiling / 2, ceiling))
}

/// How often a job was put back and since when, for a sentence: `put back 60 times since …`.
pub fn history(job: &Claimed) -> String {
    let times = job.put_back_count;
    let since = job.put_back_since.as_ref().map(spelled);
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    format!("put back {times} times{since}")
}

fn spelled(at: &DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;

    use super::{LIMIT, history, is_spent, put_back};
    use crate::{
        clock::Clock,
        store::{Claimed, Settlement},
    };

    fn job(put_back_count: i32) -> Claimed {
        Claimed {
            job_id: 1,
            epoch: 1,
            kind: "prune_artifacts".to_owned(),
            work_order_id: None,
            attempt: 1,
            max_attempts: 3,
            crash_count: 0,
            waits: 0,
            put_back_count,
            put_back_since: DateTime::from_timestamp(1_790_000_000, 0),
            payload: serde_json::json!({}),
            traceparent: None,
            queue: "maintenance".to_owned(),
            waited_seconds: 0.0,
        }
    }

    #[test]
    fn pauses_grow_to_a_minute_and_end_after_about_an_hour() {
        let pause =
            |random, count| match put_back(&Clock::with_random(random), &job(count), String::new())
            {
                Settlement::PutBack(_, pause) => pause,
                other => panic!("{other:?}"),
            };
        let longest: Vec<u64> = (0..6).map(|count| pause(1.0, count).as_secs()).collect();
        assert_eq!(longest, [5, 10, 20, 40, 60, 60]);
        assert_eq!(pause(0.0, 0), Duration::from_millis(2500), "a floor under the jitter");
        let whole: Duration = (0..LIMIT).map(|count| pause(0.5, count)).sum();
        assert!((40..60).contains(&(whole.as_secs() / 60)), "{whole:?}");
        assert!(!is_spent(&job(LIMIT - 1)) && is_spent(&job(LIMIT)));
    }

    #[test]
    fn the_history_says_how_often_and_since_when() {
        assert_eq!(history(&job(60)), "put back 60 times since 2026-09-21 14:13:20 UTC");
    }
}
