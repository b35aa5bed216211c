//! archon-awo runs agent work orders: it claims them from Postgres, works on them in sandboxes with
//! an agent CLI, and ends them as pull requests.
//!
//! Layers, each using only those before it: [`domain`], [`clock`], [`process`], [`agent`].

pub mod agent;
pub mod clock;
pub mod domain;
pub mod process;
