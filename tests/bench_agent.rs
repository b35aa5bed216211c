//! The bench of agents runs, gives every value it promises and leaves nothing behind. Its numbers are
//! for the report of a release: a shared test machine is no place to judge them.

use archon_awo::{
    bench::agent::{AgentBench, run},
    clock::Clock,
};

#[test]
fn every_promised_value_is_measured_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = AgentBench::new(env!("CARGO_BIN_EXE_archon-awo").into());
    (plan.folder, plan.rounds) = (folder.path().to_owned(), 2);
    let report = run(&plan, &Clock::system(), &|_, _, _| ()).unwrap();
    let names: Vec<&str> = report.results.iter().map(|result| result.name).collect();
    assert_eq!(names, ["agent_start", "redaction"]);
    for result in &report.results {
        assert!(result.value > 0.0, "{result:?}");
        assert_eq!(result.floor.is_none(), result.name == "redaction", "{result:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
