//! The bench of the sandboxes runs and gives every value it promises. Its numbers are for the
//! report of a release: a shared test machine is no place to judge them.

use archon_awo::{
    bench::sandbox::{SandboxBench, run},
    clock::Clock,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_promised_value_is_measured_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan =
        SandboxBench::new(folder.path().to_owned(), env!("CARGO_BIN_EXE_archon-awo").into());
    (plan.files, plan.commits, plan.rounds, plan.churn) = (200, 40, 2, 3);
    let report = run(&plan, &Clock::system(), &|_, _, _| ()).await.unwrap();
    let names: Vec<&str> = report.results.iter().map(|result| result.name).collect();
    assert_eq!(
        names,
        ["sandbox_cold", "sandbox_disk", "sandbox_warm", "sandbox_delete", "sandbox_warm_churned"]
    );
    for result in &report.results {
        assert!(result.value > 0.0 && result.ratio.is_some_and(|ratio| ratio > 0.0), "{result:?}");
    }
    let disk = report.results.iter().find(|result| result.name == "sandbox_disk").unwrap();
    assert!(disk.value < disk.floor.unwrap(), "{disk:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
