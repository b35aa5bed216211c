//! The bench of agents runs, gives every value it promises and leaves nothing behind. Its numbers are
//! for the report of a release: a shared test machine is no place to judge them.

use std::path::Path;

use archon_awo::{
    agent::find_freezer,
    bench::agent::{AgentBench, run},
    clock::Clock,
    config::Freezer,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_promised_value_is_measured_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = AgentBench::new(env!("CARGO_BIN_EXE_archon-awo").into());
    (plan.folder, plan.rounds) = (folder.path().to_owned(), 2);
    (plan.starts, plan.load_rounds) = (20, 1);
    plan.command = Some("/bin/sh -c 'exit 0'".to_owned());
    let report = run(&plan, &Clock::system(), &|_, _, _| ()).await.unwrap();
    let names: Vec<&str> = report.results.iter().map(|result| result.name).collect();
    let mut promised = vec!["agent_start", "redaction"];
    let program = Path::new(env!("CARGO_BIN_EXE_archon-awo"));
    for (freezer, loads) in [
        (Freezer::Cgroup, ["starts_cgroup", "command_cgroup"]),
        (Freezer::Ptrace, ["starts_ptrace", "command_ptrace"]),
    ] {
        if find_freezer(program, freezer).is_ok() {
            promised.extend(loads);
        }
    }
    assert_eq!(names, promised);
    for result in &report.results {
        assert!(result.value > 0.0, "{result:?}");
        assert_eq!(result.floor.is_none(), result.name == "redaction", "{result:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
