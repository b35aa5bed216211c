//! Words between the runner and the model: prompts that go in, and what is accepted back.

pub mod message;
mod plain_text;
pub mod prompts;
pub mod pull_request_text;
pub mod review;
