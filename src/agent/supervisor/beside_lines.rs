//! What an agent tells beside its lines: by its exit code, on its standard error, and with the name of its
//! conversation.

use super::{streams::Drained, watch_over::Ended};
use crate::{
    agent::{
        conversation::ProviderError,
        launch::Launch,
        presets::{self, error_in},
        report::{Exit, Failure},
        request::AgentRequest,
        verdict::Evidence,
    },
    domain::ErrorClass,
};

/// The error of the provider that a CLI told on its standard error alone, and in no line.
pub fn told_on_stderr(launch: &Launch, ended: &Ended, drained: &Drained) -> Option<ProviderError> {
    launch.preset?;
    let stderr = drained.stderr.tail.trim();
    let said = drained.stdout.conversation.result.is_some();
    if !failed(ended) || said || meaning(launch, ended.exit).is_some() {
        return None;
    }
    let (name, status) = error_in(stderr);
    (name != "unknown").then(|| ProviderError {
        status,
        name: name.to_owned(),
        said: stderr.to_owned(),
        ..ProviderError::default()
    })
}

/// The failure by what the exit code means, when the agent gave no result and we did nothing to it.
pub fn named_by_exit(launch: &Launch, evidence: &Evidence<'_>, failure: Failure) -> Failure {
    let others = evidence.intervention.is_some() || evidence.disk_full || evidence.result.is_some();
    match meaning(launch, evidence.exit).filter(|_| !others) {
        None => failure,
        Some((class, cause)) => {
            Failure { class, message: format!("{cause}: {}", failure.message), ..failure }
        }
    }
}

fn meaning(launch: &Launch, exit: Option<Exit>) -> Option<(ErrorClass, &'static str)> {
    launch.exit_meaning.and_then(|meaning| meaning(exit?.code?))
}

/// Notes what the agent calls the conversation, so that a later run can go on with it.
pub async fn note_conversation(launch: &Launch, request: &AgentRequest, own_name: Option<String>) {
    let (Some(preset), Some(name)) = (launch.preset, own_name) else { return };
    let (spool, session) = (request.spool.clone(), request.session);
    let noted =
        tokio::task::spawn_blocking(move || presets::note(&spool, session, preset, &name)).await;
    match noted {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the agent's conversation cannot be noted: {error}"),
        Err(error) => tracing::warn!("the agent's conversation was not noted: {error}"),
    }
}

/// Whether a CLI ended before it said anything: one that should go on with a conversation does not have it.
pub fn said_nothing(launch: &Launch, ended: &Ended, drained: &Drained) -> bool {
    launch.preset.is_some()
        && drained.stdout.own_name.is_none()
        && ended.intervention.is_none()
        && failed(ended)
}

fn failed(ended: &Ended) -> bool {
    ended.exit.is_some_and(|exit| exit.code.is_some_and(|code| code != 0))
}
