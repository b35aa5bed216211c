//! The words that the worker and the shim say to each other over two pipes.
//!
//! The lifeline goes down: that it exists means that the worker lives, and its last deadline says
//! until when the agent may run. Statuses come up, one JSON object a line.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::isolation::Isolation;

/// Descriptor of the shim's end of the lifeline.
pub const LIFELINE_FD: i32 = 3;
/// Descriptor of the shim's end of the status pipe.
pub const STATUS_FD: i32 = 4;
/// Exit code of a shim that found the sandbox still in the hands of an earlier one.
pub const EXIT_LOCKED: u8 = 75;
/// Exit code of a shim that could not set itself up or start the agent.
pub const EXIT_SETUP: u8 = 70;

/// An order to the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The agent may run until this reading of the boot clock; ends a freeze the shim began itself.
    Deadline(u64),
    /// Stop every process of the tree where it stands.
    Freeze,
    /// Continue, until this reading of the boot clock.
    Thaw(u64),
    /// Ask the agent to end, then make it.
    Interrupt,
    /// End the tree at once.
    Kill,
}

impl Order {
    /// The line that says it.
    pub fn to_line(self) -> String {
        match self {
            Self::Deadline(at) => format!("deadline {at}\n"),
            Self::Freeze => "freeze\n".to_owned(),
            Self::Thaw(at) => format!("thaw {at}\n"),
            Self::Interrupt => "interrupt\n".to_owned(),
            Self::Kill => "kill\n".to_owned(),
        }
    }

    /// Reads a line; `None` for words it does not know.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let order = match (words.next()?, words.next()) {
            ("deadline", Some(at)) => Self::Deadline(at.parse().ok()?),
            ("thaw", Some(at)) => Self::Thaw(at.parse().ok()?),
            ("freeze", None) => Self::Freeze,
            ("interrupt", None) => Self::Interrupt,
            ("kill", None) => Self::Kill,
            _ => return None,
        };
        words.next().is_none().then_some(order)
    }
}

/// What the shim tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Status {
    /// The agent runs.
    Started {
        /// Its process id.
        pid: i32,
        /// How far it is shut in.
        isolation: Isolation,
    },
    /// The agent's own process has ended.
    Exited {
        /// Its exit code, when it ended by itself.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// Every process of the tree is stopped.
    Frozen {
        /// Whether the shim did it by itself because the deadline had passed.
        missed: bool,
    },
    /// The tree runs again.
    Thawed,
    /// The tree was killed because it had been frozen for too long.
    Expired,
    /// No process of the run is left.
    TreeEmpty {
        /// Milliseconds since the agent ended or was first told to, whichever came first.
        ms: u64,
        /// How many processes outlived the agent and had to be killed.
        swept: u64,
        /// Whether the kernel killed one of them for memory; `None` where its cgroup does not say.
        out_of_memory: Option<bool>,
    },
    /// Another shim still holds the sandbox.
    Locked,
    /// Other runs have what this one needs.
    Busy {
        /// What that is.
        message: String,
    },
    /// The shim or the agent could not be started.
    Setup {
        /// Why.
        message: String,
        /// Whether the agent's program itself could not be started.
        agent: bool,
    },
}

/// A duration as the nanoseconds of an [`Order`]; saturates after 584 years.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn every_order_survives_the_pipe() {
        for order in [
            Order::Deadline(7),
            Order::Freeze,
            Order::Thaw(u64::MAX),
            Order::Interrupt,
            Order::Kill,
        ] {
            assert_eq!(Order::parse(order.to_line().trim_end()), Some(order));
        }
    }

    #[test]
    fn words_the_shim_does_not_know_are_no_order() {
        for line in ["", "deadline", "deadline x", "kill now", "freeze 1", "thaw -1"] {
            assert_eq!(Order::parse(line), None, "{line:?}");
        }
    }
}
