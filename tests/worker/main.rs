//! Whole orders through real worker processes: Postgres, git, agents and signals are real.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod cancel;
mod crash;
mod database;
mod drain;
mod halt;
mod hammer;
mod harness;
mod hostile;
mod orders;
mod outage;
mod outage_postgres;
mod replay;
