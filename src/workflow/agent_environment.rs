//! What the environment of an agent holds because an administrator said so: variables that its
//! repository may have, and the way to the proxy.

use super::{
    failure::{Failure, StepError},
    order_run::OrderRun,
};
use crate::{config::is_reserved, domain::ErrorClass};

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
