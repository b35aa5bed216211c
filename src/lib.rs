//! archon-awo runs agent work orders: it claims them from Postgres, works on them in sandboxes with
//! an agent CLI, and ends them as pull requests.
//!
//! Layers, each using only those before it: [`domain`], [`clock`], [`process`], [`store`].

pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod exit;
pub mod http;
pub mod process;
pub mod queue;
pub mod shutdown;
pub mod store;
pub mod telemetry;
