//! The words of the product and the rules that hold for them: no IO, no clock, no database calls.

mod branch;
mod credentials;
mod cron;
mod crontab;
mod error_class;
mod log_cursor;
mod missed_fires;
mod order_id;
mod redaction;
mod repository_url;
mod role;
mod sandbox_type;
mod sparse_path;
mod status;
mod step;
mod task;
mod usage;
mod waiting;

pub use branch::{BranchName, Clash, InvalidBranch, branch_kind, branch_name, clash, slug};
pub use credentials::{Credential, Credentials};
pub use cron::{Cron, CronError};
pub use error_class::{ErrorClass, UnknownErrorClass};
pub use log_cursor::{InvalidLogCursor, LogCursor};
pub use missed_fires::MissedFires;
pub use order_id::{InvalidOrderId, WorkOrderId};
pub use redaction::{RedactStream, Redactor, is_place, is_weak_secret};
pub use repository_url::{InvalidRepositoryUrl, RemoteRules, RepositoryUrl, Scheme};
pub use role::Role;
pub use sandbox_type::{InvalidSandboxType, SandboxType};
pub use sparse_path::{InvalidSparsePath, SparsePath};
pub use status::{JobState, OrderStatus};
pub use step::{InvalidSteps, StepName, Steps};
pub use task::Task;
pub use usage::{EarlierRun, ModelUsage, RunUsage, Usage};
pub use waiting::{Waiting, WaitingFor};
