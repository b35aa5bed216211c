//! Whether a sandbox may go: by the state of its order and its age, and never while the order is open.

use std::time::Duration;

use crate::{config::RetentionPolicy, git::FoundSandbox, store::Standing};

/// How badly space is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// What is old enough goes.
    Scheduled,
    /// A volume is nearly full: every sandbox of an order that has ended goes, however young, except
    /// where its state is to be kept for ever.
    Pressing,
}

/// Whether a sandbox may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Remove,
    Keep(String),
}

/// Judges one sandbox; `standing` is what the database says now.
pub(super) fn judge(
    found: &FoundSandbox,
    standing: &Standing,
    policy: RetentionPolicy,
    urgency: Urgency,
) -> Verdict {
    let keep = |reason: &str| Verdict::Keep(reason.to_owned());
    if !found.ours {
        return keep("it has no .archon-sandbox marker: archon-awo did not make it");
    }
    if standing.is_open {
        return keep("its order waits or runs");
    }
    let ended = standing.ended_seconds.and_then(|age| Duration::try_from_secs_f64(age).ok());
    let (limit, age) = match standing.status.as_deref() {
        Some("completed") => (policy.completed, ended),
        Some("failed") => (policy.failed, ended),
        Some("cancelled") => (policy.cancelled, ended),
        Some(_) => return keep("its order has not ended"),
        // Space is no reason to touch what nobody can explain.
        None => {
            let old = policy.orphans.is_some_and(|limit| found.untouched >= limit);
            return if old {
                Verdict::Remove
            } else {
                keep("its order is not known, and it is young")
            };
        }
    };
    match (limit, age) {
        (None, _) => keep("orders in this state keep theirs"),
        (Some(_), None) => keep("nobody knows when its order ended"),
        (Some(limit), Some(age)) if age >= limit || urgency == Urgency::Pressing => Verdict::Remove,
        (Some(limit), Some(age)) => {
            let left = Duration::from_secs(limit.saturating_sub(age).as_secs() + 1);
            keep(&format!("it has {} left", humantime::format_duration(left)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Urgency, Verdict, judge};
    use crate::{config::RetentionPolicy, git::FoundSandbox, store::Standing};

    const HOUR: Duration = Duration::from_hours(1);
    const POLICY: RetentionPolicy = RetentionPolicy {
        completed: Some(HOUR),
        failed: Some(Duration::from_hours(5)),
        cancelled: None,
        orphans: Some(Duration::from_hours(24)),
    };

    fn goes(status: Option<&str>, open: bool, hours: f64, urgency: Urgency) -> bool {
        let standing = Standing {
            id: "wo-1".to_owned(),
            status: status.map(str::to_owned),
            repository_url: None,
            is_open: open,
            ended_seconds: Some(hours * 3600.0),
        };
        let untouched = Duration::from_secs_f64(hours * 3600.0);
        let found = FoundSandbox { order: "wo-1".parse().unwrap(), untouched, ours: true };
        let foreign = FoundSandbox { ours: false, ..found.clone() };
        assert_ne!(judge(&foreign, &standing, POLICY, urgency), Verdict::Remove);
        judge(&found, &standing, POLICY, urgency) == Verdict::Remove
    }

    #[test]
    fn each_state_has_its_age_and_an_open_order_keeps_its_sandbox_whatever_its_age() {
        use Urgency::{Pressing, Scheduled};
        for (status, hours, scheduled, pressing) in [
            (Some("completed"), 0.9, false, true),
            (Some("completed"), 1.1, true, true),
            (Some("failed"), 1.1, false, true),
            (Some("failed"), 5.1, true, true),
            (Some("cancelled"), 5000.0, false, false),
            (Some("pending"), 5000.0, false, false),
            (Some("running"), 5000.0, false, false),
            (None, 23.0, false, false),
            (None, 25.0, true, true),
        ] {
            assert_eq!(goes(status, false, hours, Scheduled), scheduled, "{status:?} {hours}");
            assert_eq!(goes(status, false, hours, Pressing), pressing, "{status:?} {hours}");
            assert!(!goes(status, true, hours, Pressing), "{status:?} {hours}");
        }
    }
}
