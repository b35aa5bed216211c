//! A worker process from its start to its last settled job.
/// x
pub type WorkerError = anyhow::Error;
/// x
pub async fn run_worker() {}
