//! archon-awo runs agent work orders: it claims them from Postgres, works on them in sandboxes with
//! an agent CLI, and ends them as pull requests.
//!
//! Layers, each using only those before it: [`domain`], [`clock`], [`process`], [`disk`], [`ports`], [`local_remotes`], [`config`], [`archive`],
//! [`store`], [`git`], [`agent`], [`forge`], [`telemetry`], [`lease`], `put_back`, [`services`], [`workflow`], [`queue`], [`http`], [`cli`].

pub mod agent;
pub mod archive;
pub mod backoff;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod disk;
pub mod domain;
pub mod exit;
pub mod forge;
pub mod git;
pub mod http;
pub mod lease;
pub mod local_remotes;
pub mod maintenance;
pub mod ports;
pub mod process;
mod put_back;
pub mod queue;
pub mod services;
pub mod shutdown;
pub mod store;
pub mod telemetry;
mod tls;
pub mod workflow;
