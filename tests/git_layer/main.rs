//! The git layer against real repositories: in folders, over HTTPS, and with a hostile agent.
#![expect(clippy::unwrap_used, reason = "tests")]

mod attribute_rules;
mod bench;
mod budgets;
mod bundle;
mod cache;
mod corpus;
mod follow;
mod forms;
#[path = "../support/git_place.rs"]
mod git_place;
mod https;
#[path = "../support/https_remote.rs"]
mod https_remote;
mod ignore_rules;
mod left_out;
mod lfs;
#[path = "../support/lfs_server.rs"]
mod lfs_server;
mod local_remotes;
mod moving;
mod parts;
mod parts_yard;
mod peer;
mod places;
mod poisoned;
mod poisoned_corpus;
mod ports_file;
#[path = "../support/python_place.rs"]
mod python_place;
mod refusals;
mod sandbox;
mod submodules;
mod undo;
