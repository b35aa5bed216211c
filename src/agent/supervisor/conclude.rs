//! What came of one start of an agent: put together from what the shim, the streams and we ourselves know.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::{
    again::unknown_option,
    beside_lines::{named_by_exit, said_nothing, told_on_stderr},
    streams::Drained,
    watch_over::Ended,
};
use crate::{
    agent::{
        isolation::Isolation,
        launch::Launch,
        report::{AgentReport, Delivered, Failure},
        setting_names::SettingNames,
        verdict::{Evidence, Intervention, answer_is_lost, judge, session_is_unknown},
    },
    domain::{Redactor, RunUsage},
};

/// What came of one start of the agent.
pub struct Attempt {
    pub report: AgentReport,
    pub session_is_unknown: bool,
    pub unknown_option: Option<&'static str>,
}

/// Puts together what the shim, the streams and we ourselves know.
pub fn conclude(
    launch: &Launch,
    names: SettingNames,
    redactor: &Redactor,
    ended: &Ended,
    drained: &Drained,
    out_of_memory: bool,
    disk_full: bool,
) -> Attempt {
    let conversation = &drained.stdout.conversation;
    let (answer, last_words) = (conversation.answer(), conversation.last_words());
    // What it says after our own signal takes nothing back.
    let result = match ended.intervention {
        Some(Intervention::ExitGrace) => conversation.last_result(),
        _ => conversation.result.as_ref(),
    };
    let told_elsewhere = told_on_stderr(launch, ended, drained);
    let evidence = Evidence {
        needs_result: launch.needs_result,
        names,
        exit: ended.exit,
        result,
        provider_error: conversation.provider_error.as_ref().or(told_elsewhere.as_ref()),
        usage_limit: conversation.usage_limit,
        network: ended.isolation.as_ref().map(Isolation::agent_network),
        now: now(),
        intervention: ended.intervention,
        stderr: &drained.stderr.tail,
        stdout: &last_words,
        out_of_memory,
        disk_full,
    };
    let verdict = match &ended.problem {
        Some(problem) => Err(problem.clone()),
        None => judge(&evidence).map_err(|failure| named_by_exit(launch, &evidence, failure)),
    };
    let answer_is_lost = ended.problem.is_none() && answer_is_lost(&evidence);
    let verdict =
        verdict.map_err(|failure| Failure { message: redactor.text(&failure.message), ..failure });
    let report = AgentReport {
        verdict,
        // Once more: text that was read out of JSON is no longer what was redacted.
        text: redactor.text(&answer),
        answer_is_lost,
        denied: conversation.denied.redacted(redactor),
        session: conversation.session.or(launch.session),
        resumed: launch.resumed,
        usage: conversation.usage(),
        exit: ended.exit,
        tree_empty_after: ended.tree_empty_after,
        duration: Duration::ZERO,
        truncated: drained.stdout.truncated || drained.stderr.truncated,
        delivered: drained.delivered,
        isolation: ended.isolation.clone(),
    };
    let session_is_unknown = session_is_unknown(result) || said_nothing(launch, ended, drained);
    let unknown_option = unknown_option(launch, ended, drained);
    Attempt { report, session_is_unknown, unknown_option }
}

/// A run whose agent was never started.
pub fn refused(failure: Failure) -> AgentReport {
    AgentReport {
        verdict: Err(failure),
        text: String::new(),
        answer_is_lost: false,
        denied: Vec::new(),
        session: None,
        resumed: false,
        usage: RunUsage::default(),
        exit: None,
        tree_empty_after: Some(Duration::ZERO),
        duration: Duration::ZERO,
        truncated: false,
        delivered: Delivered::default(),
        isolation: None,
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    now.as_secs()
}
