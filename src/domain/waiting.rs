//! What a work order waits for: the vocabulary of `awo.waiting_for`, and a sentence for each.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Why an order does not run, since when, and until when where that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Since when this is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// When it is looked at again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// The reason with its facts.
    #[serde(flatten)]
    pub reason: WaitingFor,
}

/// The reason. `migrations/0029_say_what_orders_wait_for.sql` says which one wins where several hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the facts that the sentence names")]
pub enum WaitingFor {
    /// A person's decision.
    Approval,
    /// Nothing of its queue is claimed.
    QueuePaused { queue: String },
    /// Nothing of its repository is claimed.
    RepositoryPaused { repository: String },
    /// A worker had it and could not run it for now.
    PutBack { times: u32, error: Option<String> },
    /// Its last attempt failed.
    Retry {
        error_class: Option<String>,
        error: Option<String>,
        attempt: u32,
        max_attempts: u32,
        gives_up_at: Option<DateTime<Utc>>,
    },
    /// It is not due yet.
    Scheduled,
    /// No worker that is alive serves its queue.
    NoWorker { queue: String, draining: u32 },
    /// No such worker can run its kind of job.
    KindUnknown { kind: String },
    /// A volume of every such worker is below its mark.
    DiskLow { queue: String, workers: u32 },
    /// As many orders of its repository run as may at once.
    RepositoryFull { repository: String, running: u32, limit: u32 },
    /// Every slot is taken. `place` is 1 for the next one to run.
    WorkersBusy { queue: String, workers: u32, running: u32, slots: u32, place: Option<u32> },
    /// Nothing: a free worker takes it in a moment.
    NextClaim,
    /// A reason that only a newer schema knows.
    #[serde(other)]
    Other,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.map_or_else(String::new, |at| format!(" since {}", utc(at)));
        let until = self.until.map_or_else(|| "soon".to_owned(), |at| format!("at {}", utc(at)));
        match &self.reason {
            WaitingFor::Approval => write!(f, "an approval{since}"),
            WaitingFor::QueuePaused { queue } => write!(
                f,
                "queue {queue} to be resumed: it is paused{since} (`archon-awo resume {queue}`)"
            ),
            WaitingFor::RepositoryPaused { repository } => write!(
                f,
                "repository {repository} to be resumed: it is paused{since} \
                 (`archon-awo resume --repository {repository}`)"
            ),
            WaitingFor::PutBack { times, error } => {
                write!(f, "another try {until}, put back {times} times{since}")?;
                error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
            }
            WaitingFor::Retry { error_class, error, attempt, max_attempts, gives_up_at } => {
                write!(f, "the next attempt {until}")?;
                match gives_up_at {
                    Some(end) => write!(f, ", gives up at {}", utc(*end))?,
                    None => write!(f, ", {attempt} of {max_attempts} are spent")?,
                }
                match (error_class, error) {
                    (Some(class), Some(error)) => {
                        write!(f, "; the last one failed with {class}: {error}")
                    }
                    (None, Some(error)) => write!(f, "; the last one failed: {error}"),
                    (_, None) => Ok(()),
                }
            }
            WaitingFor::Scheduled => write!(f, "its time: it is due {until}"),
            WaitingFor::NoWorker { queue, draining: 0 } => {
                write!(
                    f,
                    "a worker: none that is alive serves queue {queue} (`archon-awo worker` starts one)"
                )
            }
            WaitingFor::NoWorker { queue, draining } => {
                write!(f, "a worker: {draining} of queue {queue} drain and no other is alive")
            }
            WaitingFor::KindUnknown { kind } => {
                write!(f, "a newer worker: none that is alive can run jobs of kind {kind}")
            }
            WaitingFor::DiskLow { queue, workers } => write!(
                f,
                "room on disk: each of the {workers} workers of queue {queue} has a volume below its mark \
                 (`archon-awo gc`)"
            ),
            WaitingFor::RepositoryFull { repository, running, limit } => write!(
                f,
                "a place in repository {repository}: {running} of at most {limit} orders run"
            ),
            WaitingFor::WorkersBusy { queue, running, slots, place, .. } => {
                write!(f, "a free slot: {running} of {slots} in queue {queue} are taken")?;
                match place {
                    Some(1) => write!(f, ", it is next"),
                    Some(place) => write!(f, ", {} orders are before it", place - 1),
                    None => write!(f, ", more than 1,000 orders are before it"),
                }
            }
            WaitingFor::NextClaim => write!(f, "the next claim: a worker is free"),
            WaitingFor::Other => write!(f, "something that only a newer archon-awo knows"),
        }
    }
}

fn utc(at: DateTime<Utc>) -> impl fmt::Display {
    at.format("%Y-%m-%d %H:%M:%S UTC")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Waiting, WaitingFor};

    fn words(document: serde_json::Value) -> String {
        serde_json::from_value::<Waiting>(document).unwrap().to_string()
    }

    #[test]
    fn each_reason_has_a_sentence_with_its_facts() {
        let at = "2026-03-01T10:00:00+02:00";
        let cases = [
            (
                json!({"reason": "queue_paused", "since": at, "queue": "default"}),
                "queue default to be resumed: it is paused since 2026-03-01 08:00:00 UTC (`archon-awo resume default`)",
            ),
            (
                json!({"reason": "retry", "until": at, "error_class": "overloaded", "error": "busy",
                       "attempt": 1, "max_attempts": 3}),
                "the next attempt at 2026-03-01 08:00:00 UTC, 1 of 3 are spent; the last one failed with overloaded: busy",
            ),
            (
                json!({"reason": "workers_busy", "queue": "default", "workers": 2, "running": 4, "slots": 4, "place": 3}),
                "a free slot: 4 of 4 in queue default are taken, 2 orders are before it",
            ),
            (
                json!({"reason": "scheduled", "until": at}),
                "its time: it is due at 2026-03-01 08:00:00 UTC",
            ),
            (
                json!({"reason": "repository_full", "repository": "github.com/acme/app", "running": 2, "limit": 2}),
                "a place in repository github.com/acme/app: 2 of at most 2 orders run",
            ),
        ];
        for (document, sentence) in cases {
            assert_eq!(words(document), sentence);
        }
    }

    #[test]
    fn a_reason_of_a_newer_schema_is_no_error() {
        let newer = json!({"reason": "moon_phase", "phase": "full"});
        assert_eq!(serde_json::from_value::<Waiting>(newer).unwrap().reason, WaitingFor::Other);
    }
}
