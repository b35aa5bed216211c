//! How an agent is started, and started once more when its first start came to nothing: the conversation to go on with
//! was unknown, or an option was that only newer versions of the CLI have.

use super::{conclude::Attempt, streams::Drained, watch_over::Ended};
use crate::agent::{launch::Launch, report::Delivered};

/// One start.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// What was handed over of earlier starts, to whose spool this one appends.
    pub before: Option<Delivered>,
    /// Resuming was tried and failed.
    pub afresh: bool,
    /// Options that the CLI does not know.
    pub without: Vec<&'static str>,
}

impl Start {
    /// The start that makes good for one that came to nothing.
    pub(super) fn after(&self, attempt: &Attempt) -> Option<Self> {
        let mut next = Self { before: Some(attempt.report.delivered), ..self.clone() };
        if let Some(option) = attempt.unknown_option {
            tracing::info!(
                option,
                "the agent's program does not know an option, starting without it"
            );
            next.without.push(option);
            return Some(next);
        }
        if attempt.report.resumed && attempt.session_is_unknown && !self.afresh {
            tracing::info!("the conversation to resume is unknown, starting afresh");
            next.afresh = true;
            return Some(next);
        }
        None
    }
}

/// The option of those that may be missing which the CLI refused, before it did anything.
pub(super) fn unknown_option(
    launch: &Launch,
    ended: &Ended,
    drained: &Drained,
) -> Option<&'static str> {
    let failed = ended.exit.is_some_and(|exit| exit.code.is_some_and(|code| code != 0));
    if !failed || ended.intervention.is_some() || drained.stdout.conversation.result.is_some() {
        return None;
    }
    let refused = |option: &&&str| {
        drained.stderr.tail.contains(&format!("unknown option '{option}'"))
            && launch.arguments.iter().any(|argument| argument == **option)
    };
    launch.optional.iter().find(refused).copied()
}
