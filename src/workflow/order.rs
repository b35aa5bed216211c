//! An order as a run needs it: read from its row, and checked before anything is done for it.

use std::str::FromStr;

use super::{
    Workflow,
    failure::{Failure, StepError},
};
use crate::{
    domain::{BranchName, ErrorClass, RepositoryUrl, Steps, WorkOrderId},
    store::OrderRecord,
};

/// An order that was found to be in order.
pub struct Order {
    /// Its id.
    pub id: WorkOrderId,
    /// Where the code is.
    pub url: RepositoryUrl,
    /// What to do.
    pub request: String,
    /// The chosen steps.
    pub steps: Steps,
    /// An issue to quote.
    pub issue: Option<u64>,
    /// The branch, if a run made one.
    pub branch: Option<BranchName>,
    /// The branch to start from, if not the default one.
    pub base: Option<BranchName>,
    /// Whether the agent configuration that the repository brings along is obeyed.
    pub trusted: bool,
    /// Names of variables of the worker that its agents get.
    pub agent_environment: Vec<String>,
}

impl Order {
    /// Checks a row: whatever cannot be run is a lasting failure with a sentence.
    pub fn check(workflow: &Workflow, record: OrderRecord) -> Result<Self, StepError> {
        let invalid = |text: String| Failure::lasting(ErrorClass::Invalid, text);
        let branch = |name: Option<String>| -> Result<Option<BranchName>, StepError> {
            let name = name.map(|name| BranchName::from_str(&name)).transpose();
            Ok(name.map_err(|error| invalid(error.to_string()))?)
        };
        Ok(Self {
            id: record.agent_work_order_id.parse().map_err(
                |error: crate::domain::InvalidOrderId| StepError::from(invalid(error.to_string())),
            )?,
            url: RepositoryUrl::parse(&record.repository_url, &workflow.settings.remotes)?,
            request: record.user_request,
            steps: Steps::parse(&record.selected_commands)?,
            issue: record.github_issue_number.and_then(|number| number.parse().ok()),
            branch: branch(record.git_branch_name)?,
            base: branch(record.default_branch)?,
            trusted: record.trusted,
            agent_environment: record.agent_environment,
        })
    }
}
