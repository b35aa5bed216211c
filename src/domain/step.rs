//! The six steps of a work order and the rules for choosing among them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One step, in the order in which steps run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepName {
    /// The runner makes the sandbox and its branch.
    CreateBranch,
    /// The agent writes a plan.
    Planning,
    /// The agent changes the code.
    Execute,
    /// The agent reviews what it changed; blockers go back to it.
    PrpReview,
    /// The runner commits and pushes.
    Commit,
    /// The runner opens or updates the pull request.
    CreatePr,
}

impl StepName {
    /// Every step, in running order.
    pub const ALL: [Self; 6] = [
        Self::CreateBranch,
        Self::Planning,
        Self::Execute,
        Self::PrpReview,
        Self::Commit,
        Self::CreatePr,
    ];

    /// The name used in `selected_commands`, rows, logs and file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateBranch => "create-branch",
            Self::Planning => "planning",
            Self::Execute => "execute",
            Self::PrpReview => "prp-review",
            Self::Commit => "commit",
            Self::CreatePr => "create-pr",
        }
    }

    /// The step that must have been chosen too for this one to make sense.
    pub const fn requires(self) -> Option<Self> {
        match self {
            Self::CreateBranch => None,
            Self::Planning | Self::Commit => Some(Self::CreateBranch),
            Self::Execute => Some(Self::Planning),
            Self::PrpReview => Some(Self::Execute),
            Self::CreatePr => Some(Self::Commit),
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StepName {
    type Err = InvalidSteps;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|step| step.as_str() == text)
            .ok_or_else(|| InvalidSteps::Unknown(text.to_owned()))
    }
}

/// The steps chosen for one order: known, each once, in order, each with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps(Vec<StepName>);

/// Why a list of steps was refused. The database function `awo.check_steps` says the same words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSteps {
    /// The list has no entry.
    #[error("selected_commands is empty: expected at least create-branch")]
    Empty,
    /// A word that names no step.
    #[error(
        "selected_commands contains {0:?}: expected create-branch, planning, execute, prp-review, \
         commit or create-pr"
    )]
    Unknown(String),
    /// A step appears twice.
    #[error("selected_commands contains {0} more than once")]
    Repeated(StepName),
    /// A step stands after one that must follow it.
    #[error("selected_commands has {later} before {earlier}: expected the order {}", order())]
    OutOfOrder {
        /// The step that stands too early.
        later: StepName,
        /// The step it must follow.
        earlier: StepName,
    },
    /// A step is chosen without the one it builds on.
    #[error("selected_commands has {step} without {missing}, which it needs")]
    Missing {
        /// The step that cannot run.
        step: StepName,
        /// What it needs.
        missing: StepName,
    },
}

fn order() -> String {
    StepName::ALL.map(StepName::as_str).join(", ")
}

impl Steps {
    /// Checks names as they come from a caller.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, InvalidSteps> {
        let steps =
            names.iter().map(|name| name.as_ref().parse()).collect::<Result<Vec<StepName>, _>>()?;
        if steps.is_empty() {
            return Err(InvalidSteps::Empty);
        }
        for (i, step) in steps.iter().enumerate() {
            let before = &steps[..i];
            if before.contains(step) {
                return Err(InvalidSteps::Repeated(*step));
            }
            if let Some(later) = before.iter().find(|other| *other > step) {
                return Err(InvalidSteps::OutOfOrder { later: *later, earlier: *step });
            }
            if let Some(missing) = step.requires().filter(|needed| !steps.contains(needed)) {
                return Err(InvalidSteps::Missing { step: *step, missing });
            }
        }
        Ok(Self(steps))
    }

    /// The steps in running order.
    pub fn as_slice(&self) -> &[StepName] {
        &self.0
    }

    /// Whether `step` was chosen.
    pub fn contains(&self, step: StepName) -> bool {
        self.0.contains(&step)
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self(StepName::ALL.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidSteps, StepName, Steps};

    #[test]
    fn default_and_archons_list_without_review_are_valid() {
        assert_eq!(Steps::default().as_slice(), StepName::ALL);
        let archon = ["create-branch", "planning", "execute", "commit", "create-pr"];
        assert!(Steps::parse(&archon).is_ok());
    }

    #[test]
    fn lists_that_cannot_run_are_refused_with_the_reason() {
        let cases: [(&[&str], &str); 6] = [
            (&[], "empty"),
            (&["deploy"], "\"deploy\""),
            (&["create-branch", "create-branch"], "more than once"),
            (&["planning", "create-branch"], "planning before create-branch"),
            (&["create-pr"], "create-pr without commit"),
            (&["create-branch", "execute"], "execute without planning"),
        ];
        for (names, words) in cases {
            let error = Steps::parse(names).map(|_| ()).map_err(|e: InvalidSteps| e.to_string());
            assert!(error.clone().is_err_and(|e| e.contains(words)), "{names:?}: {error:?}");
        }
    }
}
