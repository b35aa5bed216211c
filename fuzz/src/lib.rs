//! The code under test: links to the sources of archon-awo.

pub mod agent;
pub mod domain;
pub mod workflow;
