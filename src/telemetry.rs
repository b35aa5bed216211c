//! stub until merge
use crate::{agent::Usage, domain::StepName, store::Settlement};
use std::time::Duration;
/// m
#[derive(Debug, Clone, Default)]
pub struct Metrics {}
impl Metrics {
    /// x
    pub fn claimed(&self, _: Duration) {}
    /// x
    pub fn finished(&self, _: &Settlement) {}
    /// x
    pub fn rescued(&self) {}
    /// x
    pub fn stale_write_refused(&self) {}
    /// x
    pub fn step_ended(&self, _: StepName, _: bool, _: Duration) {}
    /// x
    pub fn agent_used(&self, _: &Usage) {}
}
/// x
pub fn continue_trace(_: &tracing::Span, _: &str) {}
