//! Trees that fork faster than anybody can list them: frozen they make no progress at all, thawed
//! they go on, killed they are gone. By cgroups where this host lets us make them; where it does not,
//! the refusal is what is tested.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "support/agent_run.rs"]
mod agent_run;
#[path = "support/frozen.rs"]
mod frozen;

use std::{fs, path::PathBuf, time::Duration};

use agent_run::{Bench, content, eventually, marked};
use archon_awo::{
    agent::{AgentKind, AgentReport, CommandSettings, FreezerReport, LeaseSignal, find_freezer},
    clock::boot_time,
    config::Freezer,
    domain::ErrorClass,
};
use frozen::is_frozen;

/// Chains of processes, each of which starts the next in a session of its own, writes a byte and
/// ends: at no moment does a list of the tree hold for long.
const FORKING: &str = r#"
import os, time
def chain():
    ticks = os.open("ticks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        if os.fork() == 0:
            os.setsid()
            os.write(ticks, b".")
            time.sleep(0.001)
        else:
            os._exit(0)
for _ in range(4):
    if os.fork() == 0:
        chain()
print("up", flush=True)
open("up", "w").write("up\n")
while not os.path.exists("stop"):
    time.sleep(0.01)
print("done")
"#;

fn forking(bench: &Bench) -> AgentKind {
    let file = bench.path("agent-script");
    fs::write(&file, FORKING).unwrap();
    AgentKind::Command(CommandSettings { command_line: format!("python3 {}", file.display()) })
}

fn hold(bench: &Bench, time: Duration) {
    bench.lease.send_replace(LeaseSignal::Held { until: boot_time() + time });
}

fn ticks(bench: &Bench) -> u64 {
    fs::metadata(bench.request.checkout.join("ticks")).map_or(0, |file| file.len())
}

/// Where cgroups of runs are made; `None` where this host does not let us, for a stated reason.
fn cgroups() -> Option<PathBuf> {
    match (find_freezer(Freezer::Auto).unwrap(), find_freezer(Freezer::Cgroup)) {
        (FreezerReport::Cgroup(folder), Ok(FreezerReport::Cgroup(same))) => {
            assert_eq!(folder, same);
            Some(folder)
        }
        (FreezerReport::Signals(reason), Err(said)) => {
            assert_eq!(reason, said);
            eprintln!("no cgroups here: {reason}");
            None
        }
        other => panic!("the two answers do not agree: {other:?}"),
    }
}

/// The cgroups of a run.
fn cgroups_of(bench: &Bench, folder: &PathBuf) -> Vec<PathBuf> {
    let run = bench.request.run_id.to_string();
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(&run)).collect()
}

async fn refused(bench: &Bench) {
    let (report, _) = bench.run(forking(bench)).await;
    let failure = report.verdict.unwrap_err();
    assert!(failure.message.contains("AWO_FREEZER is cgroup, and"), "{failure:?}");
    assert!(bench.processes().is_empty());
}

fn assert_gone(bench: &Bench, report: &AgentReport, folder: &PathBuf) {
    assert!(report.tree_empty_after.is_some(), "{report:?}");
    assert_eq!(bench.processes(), [], "of the run");
    assert_eq!(marked(&format!("AWO_SANDBOX={}", bench.request.sandbox_root.display())), []);
    assert_eq!(cgroups_of(bench, folder), Vec::<PathBuf>::new(), "its cgroup is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_forks_without_end_is_frozen_thawed_and_killed_completely() {
    let mut bench = Bench::new();
    bench.freezer = Freezer::Cgroup;
    let Some(folder) = cgroups() else { return refused(&bench).await };
    let (run, _output) = bench.start(forking(&bench));
    content(&bench.request.checkout.join("up")).await;
    assert_eq!(cgroups_of(&bench, &folder).len(), 1);
    for _ in 0..5 {
        let before = ticks(&bench);
        eventually("it makes progress", || async { ticks(&bench) > before + 20 }).await;
        bench.lease.send_replace(LeaseSignal::Suspended);
        eventually("it is frozen", || async {
            let agents = bench.agents();
            !agents.is_empty() && agents.iter().all(|(pid, _)| is_frozen(*pid))
        })
        .await;
        let frozen = ticks(&bench);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(ticks(&bench), frozen, "something ran while it was frozen");
        hold(&bench, Duration::from_mins(1));
        eventually("it goes on", || async { ticks(&bench) > frozen + 20 }).await;
    }
    // Frozen, and then the lease is lost: killed where it stands.
    bench.lease.send_replace(LeaseSignal::Suspended);
    eventually("it is frozen", || async { bench.agents().iter().all(|(pid, _)| is_frozen(*pid)) })
        .await;
    bench.lease.send_replace(LeaseSignal::Lost);
    let report = run.await.unwrap();
    assert_eq!(report.verdict.clone().unwrap_err().class, ErrorClass::LostWorker);
    let last = ticks(&bench);
    assert_gone(&bench, &report, &folder);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ticks(&bench), last, "something outlived the kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_forks_when_the_agent_ends_is_ended_too() {
    let mut bench = Bench::new();
    bench.freezer = Freezer::Cgroup;
    let Some(folder) = cgroups() else { return refused(&bench).await };
    let (run, _output) = bench.start(forking(&bench));
    content(&bench.request.checkout.join("up")).await;
    fs::write(bench.request.checkout.join("stop"), "").unwrap();
    let report = run.await.unwrap();
    assert_eq!((report.verdict.clone(), report.text.as_str()), (Ok(()), "up\ndone\n"));
    let last = ticks(&bench);
    assert_gone(&bench, &report, &folder);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ticks(&bench), last, "something outlived the agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_whose_shim_is_killed_leaves_no_process_and_no_cgroup() {
    let mut bench = Bench::new();
    bench.freezer = Freezer::Cgroup;
    let Some(folder) = cgroups() else { return refused(&bench).await };
    let (run, _output) = bench.start(forking(&bench));
    content(&bench.request.checkout.join("up")).await;
    let agents = bench.agents();
    let shim = bench.processes().into_iter().find(|one| !agents.contains(one)).unwrap().0;
    let shim_is_outside = !is_frozen(shim);
    assert!(shim_is_outside);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let report = run.await.unwrap();
    assert_eq!(report.verdict.clone().unwrap_err().class, ErrorClass::LostWorker);
    assert_gone(&bench, &report, &folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_alone_freeze_and_continue_a_tree() {
    let mut bench = Bench::new();
    bench.freezer = Freezer::Signal;
    let agent = bench.path("agent-script");
    fs::write(
        &agent,
        "(setsid sh -c 'while :; do printf . >> ticks; sleep 0.02; done') &
         echo up > up; while [ ! -e stop ]; do sleep 0.02; done",
    )
    .unwrap();
    let command_line = format!("sh {}", agent.display());
    let (run, _output) = bench.start(AgentKind::Command(CommandSettings { command_line }));
    content(&bench.request.checkout.join("up")).await;
    bench.lease.send_replace(LeaseSignal::Suspended);
    eventually("all are stopped", || async {
        let agents = bench.agents();
        !agents.is_empty() && agents.iter().all(|(_, state)| *state == 'T')
    })
    .await;
    let frozen = ticks(&bench);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ticks(&bench), frozen);
    hold(&bench, Duration::from_mins(1));
    eventually("it goes on", || async { ticks(&bench) > frozen + 3 }).await;
    fs::write(bench.request.checkout.join("stop"), "").unwrap();
    assert_eq!(run.await.unwrap().verdict, Ok(()));
    assert_eq!(bench.processes(), []);
}
