//! Trees that fork faster than anybody can list them: frozen they make no progress at all, thawed
//! they go on, killed they are gone. By cgroups and by tracing where this host lets us; where it does not,
//! the refusal is what is tested.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "support/agent_run.rs"]
mod agent_run;
#[path = "support/frozen.rs"]
mod frozen;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use agent_run::{Bench, arguments, content, eventually, marked, state};
use archon_awo::{
    agent::{AgentKind, CommandSettings, FreezerReport, LeaseSignal, find_freezer},
    clock::boot_time,
    config::Freezer,
    domain::ErrorClass,
    process::blocking_command,
};
use frozen::{is_frozen, letters};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

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

/// Writes a byte now and then until it is killed.
const TICKING: &str = "while :; do printf . >> ticks; sleep 0.002; done";

/// Starts a program by vfork whose child waits at a gate, so that the parent waits in the kernel. With an
/// argument it has a second thread, which goes on meanwhile.
const SPAWNING: &str = r#"
import ctypes, os, signal, sys, threading, time
# Else the news that the child was stopped would wake the second thread, with the signal that waits for it.
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
libc = ctypes.CDLL(None)
def tick():
    ticks = os.open("ticks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while not os.path.exists("stop"):
        os.write(ticks, b".")
        time.sleep(0.002)
if len(sys.argv) > 1:
    threading.Thread(target=tick).start()
os.mkfifo("gate")
actions = ctypes.create_string_buffer(1024)
libc.posix_spawn_file_actions_init(actions)
libc.posix_spawn_file_actions_addopen(actions, 0, b"gate", os.O_RDONLY, 0)
words = (ctypes.c_char_p * 4)(b"sh", b"-c", b"echo child > child", None)
environment = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
child = ctypes.c_int()
# Unlike os.posix_spawn it lets other threads run.
failed = libc.posix_spawn(ctypes.byref(child), b"/bin/sh", actions, None, words, environment)
assert failed == 0, os.strerror(failed)
open("parent", "w").write("parent\n")
while not os.path.exists("stop"):
    time.sleep(0.002)
"#;

/// Ends its first thread alone: the process looks as if it had ended, and its second thread runs on.
const HEADLESS: &str = r#"
import ctypes, os, platform, threading, time
def tick():
    ticks = os.open("ticks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while not os.path.exists("stop"):
        os.write(ticks, b".")
        time.sleep(0.002)
    os._exit(0)
threading.Thread(target=tick).start()
open("up", "w").write(f"{os.getpid()}\n")
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"#;

fn python(bench: &Bench, script: &str, argument: &str) -> AgentKind {
    let file = bench.path("agent-script");
    fs::write(&file, script).unwrap();
    let command_line = format!("python3 {} {argument}", file.display());
    AgentKind::Command(CommandSettings { command_line })
}

fn forking(bench: &Bench) -> AgentKind {
    python(bench, FORKING, "")
}

fn hold(bench: &Bench, time: Duration) {
    bench.lease.send_replace(LeaseSignal::Held { until: boot_time() + time });
}

fn ticks(bench: &Bench) -> u64 {
    fs::metadata(bench.request.checkout.join("ticks")).map_or(0, |file| file.len())
}

/// A process of the same kind that nobody freezes: while it makes progress, so could a frozen one.
struct Control {
    process: Child,
    folder: TempDir,
}

impl Control {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = blocking_command("/bin/sh")
            .args(["-c", TICKING])
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        Self { process, folder }
    }

    /// Waits until it has made as much progress as is plain to see.
    async fn runs(&self) {
        let ticks = || fs::metadata(self.folder.path().join("ticks")).map_or(0, |file| file.len());
        let before = ticks();
        eventually("the control makes progress", || async { ticks() > before + 50 }).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until no process of the agent runs code; tells what each did when that does not come.
async fn until_frozen(bench: &Bench) {
    let mut seen: Vec<(Vec<String>, Vec<char>, bool)> = Vec::new();
    let wait = async {
        while seen.is_empty() || !seen.iter().all(|(.., frozen)| *frozen) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let look = |(pid, _)| (arguments(pid), letters(pid), is_frozen(pid));
            seen = bench.agents().into_iter().map(look).collect();
        }
    };
    let frozen = tokio::time::timeout(Duration::from_secs(15), wait).await.is_ok();
    assert!(frozen, "not all are frozen: {seen:?}");
}

/// Where cgroups of runs are made; `None` where this host does not let us, for a stated reason.
fn cgroups() -> Option<PathBuf> {
    let found = |wanted| find_freezer(Path::new(env!("CARGO_BIN_EXE_archon-awo")), wanted);
    match (found(Freezer::Auto).unwrap(), found(Freezer::Cgroup)) {
        (FreezerReport::Cgroup(folder), Ok(FreezerReport::Cgroup(same))) => {
            assert_eq!(folder, same);
            Some(folder)
        }
        (FreezerReport::Ptrace(reason), Err(said)) => {
            assert_eq!(reason, said);
            eprintln!("no cgroups here: {reason}");
            None
        }
        (FreezerReport::Signals(reason), Err(said)) => {
            assert!(reason.starts_with(&said), "{reason}");
            eprintln!("no cgroups here: {reason}");
            None
        }
        other => panic!("the two answers do not agree: {other:?}"),
    }
}

/// Whether this host can hold agents in this way; where it cannot, that is said and refused.
async fn can(bench: &mut Bench, freezer: Freezer) -> bool {
    bench.freezer = freezer;
    let found = find_freezer(Path::new(env!("CARGO_BIN_EXE_archon-awo")), freezer);
    if let Err(reason) = &found {
        eprintln!("not by {} here: {reason}", freezer.as_str());
        let (report, _) = bench.run(forking(bench)).await;
        let failure = report.verdict.unwrap_err();
        let words = format!("AWO_FREEZER is {}, and", freezer.as_str());
        assert!(failure.message.contains(&words), "{failure:?}");
        assert!(bench.processes().is_empty());
    }
    found.is_ok()
}

/// The cgroups of a run.
fn cgroups_of(bench: &Bench) -> Vec<PathBuf> {
    let Some(folder) = cgroups() else { return Vec::new() };
    let run = bench.request.run_id.to_string();
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(&run)).collect()
}

fn assert_gone(bench: &Bench) {
    assert_eq!(bench.processes(), [], "of the run");
    assert_eq!(marked(&format!("AWO_SANDBOX={}", bench.request.sandbox_root.display())), []);
    assert_eq!(cgroups_of(bench), Vec::<PathBuf>::new(), "its cgroup is left");
}

async fn a_forking_tree_is_frozen_thawed_and_killed(freezer: Freezer) {
    let mut bench = Bench::new();
    if !can(&mut bench, freezer).await {
        return;
    }
    let (run, _output) = bench.start(forking(&bench));
    content(&bench.request.checkout.join("up")).await;
    assert_eq!(cgroups_of(&bench).len(), usize::from(freezer == Freezer::Cgroup));
    let control = Control::start();
    for _ in 0..5 {
        let before = ticks(&bench);
        eventually("it makes progress", || async { ticks(&bench) > before + 20 }).await;
        bench.lease.send_replace(LeaseSignal::Suspended);
        until_frozen(&bench).await;
        let frozen = ticks(&bench);
        control.runs().await;
        assert_eq!(ticks(&bench), frozen, "something ran while it was frozen");
        hold(&bench, Duration::from_mins(1));
        eventually("it goes on", || async { ticks(&bench) > frozen + 20 }).await;
    }
    // Frozen, and then the lease is lost: killed where it stands.
    bench.lease.send_replace(LeaseSignal::Suspended);
    until_frozen(&bench).await;
    bench.lease.send_replace(LeaseSignal::Lost);
    let report = run.await.unwrap();
    assert_eq!(report.verdict.clone().unwrap_err().class, ErrorClass::LostWorker);
    assert!(report.tree_empty_after.is_some(), "{report:?}");
    let last = ticks(&bench);
    assert_gone(&bench);
    Control::start().runs().await;
    assert_eq!(ticks(&bench), last, "something outlived the kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_forks_without_end_is_frozen_thawed_and_killed_completely_by_its_cgroup() {
    a_forking_tree_is_frozen_thawed_and_killed(Freezer::Cgroup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_forks_without_end_is_frozen_thawed_and_killed_completely_by_its_tracer() {
    a_forking_tree_is_frozen_thawed_and_killed(Freezer::Ptrace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_forks_when_the_agent_ends_is_ended_too() {
    for freezer in [Freezer::Cgroup, Freezer::Ptrace] {
        let mut bench = Bench::new();
        if !can(&mut bench, freezer).await {
            continue;
        }
        let (run, _output) = bench.start(forking(&bench));
        content(&bench.request.checkout.join("up")).await;
        fs::write(bench.request.checkout.join("stop"), "").unwrap();
        let report = run.await.unwrap();
        assert_eq!((report.verdict.clone(), report.text.as_str()), (Ok(()), "up\ndone\n"));
        assert!(report.tree_empty_after.is_some(), "{report:?}");
        let last = ticks(&bench);
        assert_gone(&bench);
        Control::start().runs().await;
        assert_eq!(ticks(&bench), last, "something outlived the agent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_whose_shim_is_killed_leaves_no_process_and_no_cgroup() {
    for freezer in [Freezer::Cgroup, Freezer::Ptrace] {
        let mut bench = Bench::new();
        if !can(&mut bench, freezer).await {
            continue;
        }
        let (run, _output) = bench.start(forking(&bench));
        content(&bench.request.checkout.join("up")).await;
        let agents = bench.agents();
        let shim = bench.processes().into_iter().find(|one| !agents.contains(one)).unwrap().0;
        let shim_is_outside = !is_frozen(shim);
        assert!(shim_is_outside);
        kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
        let report = run.await.unwrap();
        assert_eq!(report.verdict.clone().unwrap_err().class, ErrorClass::LostWorker);
        assert_eq!(report.tree_empty_after, None, "nobody saw that it was empty");
        assert_gone(&bench);
    }
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
    until_frozen(&bench).await;
    let frozen = ticks(&bench);
    Control::start().runs().await;
    assert_eq!(ticks(&bench), frozen);
    hold(&bench, Duration::from_mins(1));
    eventually("it goes on", || async { ticks(&bench) > frozen + 3 }).await;
    fs::write(bench.request.checkout.join("stop"), "").unwrap();
    assert_eq!(run.await.unwrap().verdict, Ok(()));
    assert_eq!(bench.processes(), []);
}

/// How often the shim has gone to sleep.
fn sleeps(shim: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

/// A parent that waits in the kernel for a child that was stopped: neither runs, and both go on.
async fn a_parent_in_vfork_is_frozen_and_continued(argument: &str, signalled: bool) {
    let mut bench = Bench::new();
    bench.freezer = Freezer::Signal;
    let file = |name: &str| bench.request.checkout.join(name);
    let (run, _output) = bench.start(python(&bench, SPAWNING, argument));
    let waits = |state: char| state == 'D';
    eventually("it waits for its child", || async {
        let agents = bench.agents();
        agents.len() == 2 && agents.iter().any(|(_, state)| waits(*state))
    })
    .await;
    let agents = bench.agents();
    let parent = agents.iter().find(|(_, state)| waits(*state)).unwrap().0;
    let child = agents.iter().find(|(_, state)| !waits(*state)).unwrap().0;
    let shim = bench.processes().into_iter().find(|one| !agents.contains(one)).unwrap().0;
    if signalled {
        // As if it had begun to wait while it was sent its signal: the second thread runs on.
        kill(Pid::from_raw(parent), Signal::SIGSTOP).unwrap();
        let before = ticks(&bench);
        eventually("its thread runs", || async { ticks(&bench) > before + 3 }).await;
    }
    bench.lease.send_replace(LeaseSignal::Suspended);
    until_frozen(&bench).await;
    assert_eq!((state(parent), state(child)), (Some('D'), Some('T')));

    // The freeze is done: the shim sleeps, and looks once a second whether somebody was continued.
    let (frozen, slept, began) = (ticks(&bench), sleeps(shim), boot_time());
    eventually("it has looked twice", || async { sleeps(shim) > slept + 2 }).await;
    Control::start().runs().await;
    assert_eq!(ticks(&bench), frozen, "a thread ran while it was frozen");
    let allowed = 20 * (boot_time().saturating_sub(began).as_secs() + 1);
    assert!(sleeps(shim) - slept < allowed, "slept {} times", sleeps(shim) - slept);

    // When its child lets go of it the parent stops before it runs code of its own.
    let _gate = fs::File::options().read(true).write(true).open(file("gate")).unwrap();
    eventually("it is stopped", || async {
        // Again, for the shim may have been faster.
        let _ = kill(Pid::from_raw(child), Signal::SIGCONT);
        state(parent) == Some('T')
    })
    .await;
    assert_eq!((ticks(&bench), file("parent").exists()), (frozen, false));

    hold(&bench, Duration::from_mins(1));
    assert_eq!(content(&file("parent")).await, "parent");
    assert_eq!(content(&file("child")).await, "child");
    if !argument.is_empty() {
        eventually("its thread goes on", || async { ticks(&bench) > frozen + 3 }).await;
    }
    fs::write(file("stop"), "").unwrap();
    assert_eq!(run.await.unwrap().verdict, Ok(()));
    assert_eq!(bench.processes(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_freeze_a_parent_that_waits_for_a_stopped_child() {
    a_parent_in_vfork_is_frozen_and_continued("", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_freeze_the_threads_beside_one_that_waits_for_a_stopped_child() {
    a_parent_in_vfork_is_frozen_and_continued("threads", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_freeze_threads_when_the_one_that_waits_has_the_signal() {
    a_parent_in_vfork_is_frozen_and_continued("threads", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_freeze_continue_and_kill_a_process_whose_first_thread_has_ended() {
    let mut bench = Bench::new();
    bench.freezer = Freezer::Signal;
    let (run, _output) = bench.start(python(&bench, HEADLESS, ""));
    let pid = content(&bench.request.checkout.join("up")).await.parse().unwrap();
    eventually("its first thread has ended", || async { state(pid) == Some('Z') }).await;
    bench.lease.send_replace(LeaseSignal::Suspended);
    eventually("it is frozen", || async { is_frozen(pid) }).await;
    let frozen = ticks(&bench);
    Control::start().runs().await;
    assert_eq!(ticks(&bench), frozen, "a thread ran while it was frozen");
    hold(&bench, Duration::from_mins(1));
    eventually("it goes on", || async { ticks(&bench) > frozen + 3 }).await;
    bench.lease.send_replace(LeaseSignal::Lost);
    assert_eq!(run.await.unwrap().verdict.unwrap_err().class, ErrorClass::LostWorker);
    assert!(letters(pid).is_empty(), "it runs on");
}
