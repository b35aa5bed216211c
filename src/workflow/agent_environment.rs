//! What the environment of an agent holds because an administrator said so: variables that its
//! repository may have, and the way to the proxy.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{
    Workflow,
    failure::{Failure, StepError},
    order_run::OrderRun,
};
use crate::{
    config::is_reserved,
    domain::{ErrorClass, is_place},
};

/// Longest wait for the number of the proxy.
const LOOK_UP: Duration = Duration::from_secs(10);

impl Workflow {
    /// The values of the variables that an order's repository may have. They count as secrets: many
    /// are, and nobody says which.
    pub(super) fn allowed_secrets(&self, names: &[String]) -> Vec<SecretString> {
        let values = names.iter().filter_map(|name| self.settings.inheritable.get(name));
        values.map(|value| SecretString::from(value.as_str())).collect()
    }

    /// The same tools for one order that has secrets of its own.
    pub(super) fn keeping(&self, secrets: Vec<SecretString>) -> Self {
        // Files name folders and addresses for good reasons: those stop no commit.
        let told = secrets.iter().filter(|secret| !is_place(secret.expose_secret())).cloned();
        let git = self.git.with_redactor(self.redactor.with(told));
        let redactor = self.redactor.with(secrets);
        let supervisor = self.supervisor.clone().with_redactor(redactor.clone());
        Self { git, supervisor, redactor, ..self.clone() }
    }
}

impl OrderRun<'_> {
    /// The worker's variables that the order's repository may have; those that are not set are left out.
    pub(super) fn allowed_environment(&self) -> Result<Vec<(String, String)>, StepError> {
        let inheritable = &self.workflow.settings.inheritable;
        let mut found = Vec::new();
        for name in &self.order.agent_environment {
            if is_reserved(name) {
                let message = format!(
                    "the repository's agent_environment names {name}, which no agent may have: it is a \
                     setting of archon-awo or steers programs; take it out of awo.repositories"
                );
                return Err(Failure::lasting(ErrorClass::Invalid, message).into());
            }
            found.extend(inheritable.get(name).map(|value| (name.clone(), value.clone())));
        }
        Ok(found)
    }
}

/// What opens the agent's own model provider, as it is handed over.
pub fn credential_environment(
    credentials: &[(String, SecretString)],
) -> impl Iterator<Item = (String, String)> {
    credentials.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
}

/// The address of the proxy, with the number of its host in the place of its name where agents cannot ask
/// for that; looked up each time, since it may change.
pub async fn proxy_address(proxy: Option<&str>, by_number: bool) -> Result<Option<String>, String> {
    let Some(address) = proxy else { return Ok(None) };
    let as_it_is = || Ok(Some(address.to_owned()));
    if !by_number {
        return as_it_is();
    }
    let Ok(mut url) = url::Url::parse(address) else { return as_it_is() };
    let name = url.domain().map(str::to_owned);
    let Some((name, port)) = name.zip(url.port_or_known_default()) else {
        return as_it_is();
    };
    let asked = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((name.as_str(), port))).await;
    let found = match asked {
        Ok(Ok(mut found)) => found.next().ok_or_else(|| "it has no address".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("nobody answered".to_owned()),
    };
    let failed =
        |reason: String| format!("the proxy {name} of AWO_AGENT_PROXY is not found: {reason}");
    let number = found.map_err(failed)?.ip();
    url.set_ip_host(number)
        .map_err(|()| failed(format!("{number} cannot stand in its address")))?;
    Ok(Some(url.to_string().trim_end_matches('/').to_owned()))
}

/// What tells programs of the proxy, in the two ways in which they look for it.
pub fn proxy_environment(proxy: Option<&str>) -> Vec<(String, String)> {
    let Some(proxy) = proxy else { return Vec::new() };
    let pairs = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, proxy));
    let pairs = pairs.into_iter().chain([("NO_PROXY", "localhost,127.0.0.1,::1")]);
    let both = |(name, value): (&str, &str)| {
        [name.to_owned(), name.to_lowercase()].map(|name| (name, value.to_owned()))
    };
    pairs.flat_map(both).collect()
}
