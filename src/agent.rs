//! Runs agent programs: starts them under supervision, reads what they say, ends them with
//! everything they started, and judges the run.
//!
//! [`Supervisor::run`] is the way in. Between it and the agent stands the [shim](run_shim), which
//! holds the sandbox's lock and ends the agent's processes when the worker cannot.

mod adopted;
mod answer;
mod cgroup;
mod cgroup_limits;
mod claude;
mod command;
mod confine;
mod containment;
mod conversation;
mod denied_calls;
mod frames;
mod freezer;
mod headless;
mod home;
mod interpreter;
mod isolation;
mod json_lines;
mod kind;
mod launch;
mod lifeline;
mod message;
mod open_work;
mod presets;
mod probe;
mod process_table;
mod pump;
mod reach;
mod refusal;
mod report;
mod request;
mod reset_time;
mod setting_names;
mod shim;
mod spool;
mod stop;
mod supervisor;
mod usage;
mod users;
mod verdict;
mod watchman;

pub use answer::MAX_ANSWER;
pub use claude::{ClaudeCredential, ClaudeSettings};
pub use command::{CommandSettings, InvalidCommand};
pub use confine::run_confine;
pub use containment::Mechanism;
pub use conversation::{Conversation, ProviderError, ResultLine};
pub use denied_calls::DeniedCall;
pub use frames::{Frame, Framer};
pub use freezer::{FreezerReport, end_orphans, find_freezer};
pub use isolation::{Isolation, IsolationLevel};
pub use kind::AgentKind;
pub use launch::DEFAULT_PATH;
pub use presets::{Preset, PresetSettings};
pub use probe::{find_isolation, run_shut_in};
pub use reach::run_reach;
pub use report::{AgentReport, Delivered, Exit, Failure};
pub use request::{AgentRequest, LeaseSignal, OutputChunk, OutputStream};
pub use shim::run_shim;
pub use supervisor::{KillPlan, Limits, Supervisor, deliver_rest};
pub use usage::spooled_usage;
pub use users::{looking_as_owner, may_change_users, run_end_user};
pub use verdict::{Evidence, Intervention, judge};
pub use watchman::{ROLE as WATCHMAN, Watchman, run_watchman};
