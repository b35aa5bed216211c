//! Whole orders through real worker processes: Postgres, git, agents and signals are real.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

#[path = "../support/agents_page.rs"]
mod agents_page;
mod anew;
mod answers;
mod backup;
mod branches;
mod cancel;
mod claude;
#[path = "../support/claude_cli.rs"]
mod claude_cli;
mod clone;
mod closed;
mod confinement;
mod cost;
mod cost_claude;
mod crash;
mod database;
mod defaults;
mod disk;
mod disk_marks;
mod drain;
#[path = "../support/fake_cli.rs"]
mod fake_cli;
#[path = "../support/fake_github.rs"]
mod fake_github;
mod follow_up;
#[path = "../support/frozen.rs"]
mod frozen;
mod github;
mod halt;
mod hammer;
mod harness;
mod heartbeat;
mod hostile;
mod hostile_order;
mod hostile_rows;
mod hostile_table;
mod https;
mod https_place;
#[path = "../support/https_remote.rs"]
mod https_remote;
mod leaks;
mod left_out;
#[path = "../support/lfs_server.rs"]
mod lfs_server;
mod maintenance;
#[path = "../support/messages_api.rs"]
mod messages_api;
mod orders;
mod orphans;
mod others;
mod outage;
mod outage_postgres;
mod page;
mod parts;
mod patience;
mod ports;
#[path = "../support/ports_alone.rs"]
mod ports_alone;
mod presets;
mod programs;
mod put_back;
#[path = "../support/python_place.rs"]
mod python_place;
mod redaction;
mod refused;
mod replay;
mod rescue;
mod reused_id;
mod roles;
mod rolling;
mod schedules;
mod skew;
#[path = "../support/small_volume.rs"]
mod small_volume;
mod stalls;
mod telemetry;
mod thrift;
mod users;
mod words;
