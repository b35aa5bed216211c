//! What makes prompts.

mod plain_text;
pub mod prompts;
