//! stub until merge
use crate::domain::{ErrorClass, StepName};
use std::time::Duration;
/// m
#[derive(Debug, Clone, Default)]
pub struct Metrics {}
/// t
pub struct TokenCounts {
    /// x
    pub input: u64,
    /// x
    pub output: u64,
    /// x
    pub cache_read: u64,
    /// x
    pub cache_creation: u64,
}
impl Metrics {
    /// x
    pub fn claimed(&self, _: Duration) {}
    /// x
    pub fn job_finished(&self, _: &'static str, _: Option<ErrorClass>) {}
    /// x
    pub fn rescued(&self, _: u64) {}
    /// x
    pub fn stale_write_refused(&self) {}
    /// x
    pub fn self_fenced(&self) {}
    /// x
    pub fn cancelled(&self) {}
    /// x
    pub fn heartbeat_failed(&self) {}
    /// x
    pub fn step_finished(&self, _: StepName, _: &'static str, _: Duration) {}
    /// x
    pub fn agent_used(&self, _: TokenCounts, _: f64) {}
    /// x
    pub fn slots(&self, _: u64, _: u64) {}
}
/// x
pub fn link_or_parent(_: &tracing::Span, _: &str) {}
