//! The queue: claims jobs, keeps their leases alive, records how they end and takes back those of
//! dead workers. Replicas know nothing of each other; the database decides.

mod backend;
mod claimer;
mod cron;
mod engine;
mod kinds;
mod notifications;
mod rescue;
mod settle;
mod wake;
mod worker;

pub use backend::run as run_lane;
pub use claimer::{Claimer, Lane};
pub use cron::Schedules;
pub use engine::{Engine, Handler};
pub use kinds::JobContext;
pub use notifications::Notifications;
pub use wake::{Pace, Wake};
pub use worker::Worker;
