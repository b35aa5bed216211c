//! An order as a run needs it: read from its row, and checked before anything is done for it.

use std::str::FromStr;

use super::{
    Workflow,
    failure::{Failure, StepError},
};
use crate::{
    domain::{
        BranchName, ErrorClass, InvalidSandboxType, InvalidSparsePath, RepositoryUrl, Steps,
        WorkOrderId,
    },
    git::{History, Parts, Plan},
    store::{OrderRecord, Prompt},
};

/// An order that was found to be in order.
pub struct Order {
    /// Its id.
    pub id: WorkOrderId,
    /// Where the code is.
    pub url: RepositoryUrl,
    /// What to do.
    pub request: String,
    /// What was said after the request, oldest first.
    pub prompts: Vec<Prompt>,
    /// The chosen steps.
    pub steps: Steps,
    /// An issue to quote.
    pub issue: Option<u64>,
    /// The branch, if a run made one.
    pub branch: Option<BranchName>,
    /// The pull request, if a run made one.
    pub pull_request: Option<String>,
    /// Whether another one is opened where that was merged or closed.
    pub reopen: bool,
    /// How its sandbox is made.
    pub plan: Plan,
    /// Whether the agent configuration that the repository brings along is obeyed.
    pub trusted: bool,
    /// Names of variables of the worker that its agents get.
    pub agent_environment: Vec<String>,
}

impl Order {
    /// Checks a row: whatever cannot be run is a lasting failure with a sentence.
    pub fn check(
        workflow: &Workflow,
        record: OrderRecord,
        prompts: Vec<Prompt>,
    ) -> Result<Self, StepError> {
        let invalid = |text: String| Failure::lasting(ErrorClass::Invalid, text);
        let branch = |name: Option<String>| -> Result<Option<BranchName>, StepError> {
            let name = name.map(|name| BranchName::from_str(&name)).transpose();
            Ok(name.map_err(|error| invalid(error.to_string()))?)
        };
        let plan = Plan {
            base: branch(record.base_branch.or(record.default_branch))?,
            sandbox_type: record
                .sandbox_type
                .parse()
                .map_err(|error: InvalidSandboxType| StepError::from(invalid(error.to_string())))?,
            history: match record.clone_depth.as_str() {
                "shallow" => History::Shallow,
                _ => History::Full,
            },
            parts: Parts {
                sparse: record
                    .sparse_paths
                    .iter()
                    .map(|path| path.parse())
                    .collect::<Result<_, InvalidSparsePath>>()
                    .map_err(|error| invalid(error.to_string()))?,
                lfs: record.lfs,
                submodules: record.submodules,
            },
            generation: Some(record.created_at.timestamp_micros()),
            restarts: record.restarts,
        };
        Ok(Self {
            id: record.agent_work_order_id.parse().map_err(
                |error: crate::domain::InvalidOrderId| StepError::from(invalid(error.to_string())),
            )?,
            url: RepositoryUrl::parse(&record.repository_url, &workflow.settings.remotes)?,
            request: record.user_request,
            prompts,
            steps: Steps::parse(&record.selected_commands)?,
            issue: record.github_issue_number.and_then(|number| number.parse().ok()),
            branch: branch(record.git_branch_name)?,
            pull_request: record.github_pull_request_url,
            reopen: record.reopen,
            plan,
            trusted: record.trusted,
            agent_environment: record.agent_environment,
        })
    }

    /// What the agent has not been told yet, as one text; `None` when nothing waits.
    pub fn waiting_prompts(&self) -> Option<String> {
        let waiting = self.prompts.iter().filter(|said| said.answered_at.is_none());
        let words: Vec<&str> = waiting.map(|said| said.prompt.as_str()).collect();
        (!words.is_empty()).then(|| words.join("\n\n"))
    }

    /// `request` and what the agent was told after it.
    pub fn with_answered(&self, request: &str) -> String {
        with_later(request, self.prompts.iter().filter(|said| said.answered_at.is_some()))
    }

    /// The request and all that was said after it.
    pub fn whole_request(&self) -> String {
        with_later(&self.request, self.prompts.iter())
    }

    /// The words that the next commit is about.
    pub fn latest_words(&self) -> &str {
        self.prompts.last().map_or(&self.request, |said| &said.prompt)
    }
}

fn with_later<'a>(request: &str, said: impl Iterator<Item = &'a Prompt>) -> String {
    said.fold(request.to_owned(), |text, said| {
        format!("{text}\n\nSaid later, in addition:\n\n{}", said.prompt)
    })
}
