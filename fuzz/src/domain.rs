//! The rules under test. The folder is a link to those of archon-awo.

mod branch;
mod error_class;
mod log_cursor;
mod order_id;
mod redaction;
mod repository_url;
mod step;

pub use branch::{BranchName, InvalidBranch, branch_name, slug};
pub use error_class::ErrorClass;
pub use log_cursor::LogCursor;
pub use order_id::{InvalidOrderId, WorkOrderId};
pub use redaction::{RedactStream, Redactor};
pub use repository_url::{InvalidRepositoryUrl, RemoteRules, RepositoryUrl, Scheme};
pub use step::StepName;
