//! The queue: claims jobs, keeps their leases alive, records how they end and takes back those of
//! dead workers. Replicas know nothing of each other; the database decides.

mod backend;
mod kinds;
mod rescue;
mod settle;
mod wake;
mod worker;

pub use kinds::JobContext;
pub use worker::Worker;
