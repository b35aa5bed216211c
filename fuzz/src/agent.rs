//! What reads the output of an agent.

pub mod frames;
pub mod json_lines;
