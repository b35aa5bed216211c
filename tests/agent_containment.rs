//! Nothing outlives its run, however slow its shim is and whoever is killed; and programs work as they do
//! where nobody traces them. By cgroup, by tracing and by signals, where this host lets us.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

#[path = "support/agent_run.rs"]
mod agent_run;
#[path = "support/frozen.rs"]
mod frozen;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use agent_run::{Bench, content, eventually, state};
use archon_awo::{
    agent::{AgentKind, AgentReport, CommandSettings, LeaseSignal, find_freezer},
    clock::boot_time,
    config::Freezer,
    domain::ErrorClass,
    process::blocking_command,
};
use frozen::is_frozen;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::task::JoinHandle;

const EACH: [Freezer; 3] = [Freezer::Cgroup, Freezer::Ptrace, Freezer::Signal];

/// A sandbox whose agents are held in this way; `None` where this host does not let us.
fn bench(freezer: Freezer) -> Option<Bench> {
    let program = Path::new(env!("CARGO_BIN_EXE_archon-awo"));
    if let Err(reason) = find_freezer(program, freezer) {
        eprintln!("not by {} here: {reason}", freezer.as_str());
        return None;
    }
    let mut bench = Bench::new();
    bench.freezer = freezer;
    Some(bench)
}

fn python(bench: &Bench, script: &str) -> AgentKind {
    let file = bench.path("agent-script");
    fs::write(&file, script).unwrap();
    AgentKind::Command(CommandSettings { command_line: format!("python3 {}", file.display()) })
}

fn shim_of(bench: &Bench) -> Pid {
    let agents = bench.agents();
    let shim = bench.processes().into_iter().find(|one| !agents.contains(one));
    Pid::from_raw(shim.unwrap().0)
}

fn is_dead(pid: i32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}

/// Leaves a process that was forked twice, has a session of its own, and is a program with an empty
/// environment; then goes on as if nothing were.
const SURVIVOR: &str = r#"
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sh", ["sh", "-c", "echo $$ > survivor; while :; do sleep 1; done"], {})
    os._exit(0)
print("up", flush=True)
while True:
    time.sleep(1)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_cut_every_tie_dies_with_its_shim_and_the_run_is_not_believed() {
    for freezer in EACH {
        let Some(bench) = bench(freezer) else { continue };
        // Its result was given before: it counts no more.
        let result = "print('{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"x\"}', flush=True)";
        let script = format!("{result}\n{SURVIVOR}");
        let (run, _output) = bench.start(python(&bench, &script));
        let survivor = content(&bench.request.checkout.join("survivor")).await.parse().unwrap();
        kill(shim_of(&bench), Signal::SIGKILL).unwrap();
        let report = run.await.unwrap();
        assert!(is_dead(survivor), "{}: it lives on", freezer.as_str());
        assert_eq!(report.verdict.unwrap_err().class, ErrorClass::LostWorker);
        assert_eq!(report.tree_empty_after, None, "nobody saw the tree empty");
        // Nothing is left of it, not even for our own process to collect.
        assert_eq!(state(survivor), None);
        let lock = fs::File::open(bench.path(".lock")).unwrap();
        assert!(lock.try_lock().is_ok(), "the sandbox is free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cut_every_tie_dies_with_its_worker() {
    for freezer in EACH {
        let Some(bench) = bench(freezer) else { continue };
        let (run, _output) = bench.start(python(&bench, SURVIVOR));
        let survivor = content(&bench.request.checkout.join("survivor")).await.parse().unwrap();
        // All that a shim has of its worker is the lifeline, which the end of the worker closes.
        run.abort();
        eventually("it is dead", || async { is_dead(survivor) }).await;
        eventually("nothing is left", || async { bench.processes().is_empty() }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_traced_dies_when_nobody_is_left_to_kill_it() {
    let Some(bench) = bench(Freezer::Ptrace) else { return };
    let (run, _output) = bench.start(python(&bench, SURVIVOR));
    let survivor = content(&bench.request.checkout.join("survivor")).await.parse().unwrap();
    let shim = shim_of(&bench);
    // As when the kernel kills worker and shim for memory: neither does anything any more.
    kill(shim, Signal::SIGSTOP).unwrap();
    run.abort();
    kill(shim, Signal::SIGKILL).unwrap();
    eventually("it is dead", || async { is_dead(survivor) }).await;
    eventually("nothing is left", || async { bench.processes().is_empty() }).await;
}

/// As many processes as the argument says, or as can be had, that become busy together when all are there.
const BUSY: &str = r#"
import os, sys
count = 0
reader, writer = os.pipe()
for _ in range(COUNT):
    try:
        child = os.fork()
    except OSError:
        break
    if child == 0:
        os.dup2(reader, 0)
        os.close(writer)
        APART
        os.execv("/bin/sh", ["sh", "-c", "read go; while :; do :; done"])
    count += 1
open("up", "w").write(f"{count}\n")
os.close(writer)
while True:
    pass
"#;

/// What the kernel takes by itself, measured once.
/// How many busy processes, and how long their end may take. `AWO_TEST_CROWD=4000` makes as many as an
/// agent may have and holds us to our word, a second; without it a test takes no machine for itself.
fn crowd() -> (usize, Duration) {
    let wanted = std::env::var("AWO_TEST_CROWD").ok().and_then(|text| text.parse().ok());
    wanted.map_or((100, Duration::from_secs(15)), |count| (count, Duration::from_secs(1)))
}

/// How crowds are held, and whether each process has a session of its own.
const CROWDS: [(Freezer, bool); 6] = [
    (Freezer::Cgroup, false),
    (Freezer::Cgroup, true),
    (Freezer::Ptrace, false),
    (Freezer::Ptrace, true),
    (Freezer::Signal, false),
    (Freezer::Signal, true),
];

/// Waits until all are as they should be; answers how long that took.
async fn until_each(pids: &[i32], since: Duration, is_so: impl Fn(i32) -> bool) -> Duration {
    for pid in pids {
        while !is_so(*pid) {
            let took = boot_time().saturating_sub(since);
            assert!(took < Duration::from_mins(1), "{pid} is {:?}", state(*pid));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    boot_time().saturating_sub(since)
}

/// Starts a crowd and waits until it is complete.
async fn start_crowd(bench: &mut Bench, apart: bool) -> (JoinHandle<AgentReport>, Vec<i32>) {
    bench.isolation.processes = 8_192;
    bench.request.hard_timeout = Duration::from_mins(5);
    bench.request.idle_timeout = Duration::from_mins(5);
    let script = BUSY.replace("COUNT", &crowd().0.to_string());
    let script = script.replace("APART", if apart { "os.setsid()" } else { "pass" });
    let (run, _output) = bench.start(python(bench, &script));
    let up = bench.request.checkout.join("up");
    let began = Instant::now();
    while !fs::read_to_string(&up).is_ok_and(|text| text.ends_with('\n')) {
        assert!(began.elapsed() < Duration::from_mins(3), "the crowd is not complete");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pids: Vec<i32> = bench.agents().into_iter().map(|(pid, _)| pid).collect();
    let began = Instant::now();
    // Some wait for a page or for their tracer at any moment.
    while pids.iter().filter(|pid| state(**pid) == Some('R')).count() < pids.len() * 9 / 10 {
        assert!(began.elapsed() < Duration::from_mins(2), "the crowd does not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (run, pids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_busy_processes_does_not_outlive_its_worker() {
    for (freezer, apart) in CROWDS {
        let Some(mut bench) = bench(freezer) else { continue };
        let (run, pids) = start_crowd(&mut bench, apart).await;
        run.abort();
        let took = until_each(&pids, boot_time(), is_dead).await;
        let (by, count) = (freezer.as_str(), pids.len());
        eprintln!("{by}, sessions of their own: {apart}: {count} processes dead after {took:?}");
        assert!(took < crowd().1, "{took:?}");
        eventually("nothing is left", || async { bench.processes().is_empty() }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_busy_processes_does_not_run_past_its_lease() {
    for (freezer, apart) in CROWDS {
        let Some(mut bench) = bench(freezer) else { continue };
        let (run, pids) = start_crowd(&mut bench, apart).await;
        let until = boot_time() + Duration::from_millis(500);
        bench.lease.send_replace(LeaseSignal::Held { until });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let took = until_each(&pids, until, is_frozen).await;
        let (by, count) = (freezer.as_str(), pids.len());
        eprintln!("{by}, sessions of their own: {apart}: {count} processes stand after {took:?}");
        assert!(took < crowd().1, "{took:?}");
        bench.lease.send_replace(LeaseSignal::Lost);
        let report = run.await.unwrap();
        assert!(report.tree_empty_after.is_some(), "{report:?}");
        assert_eq!(bench.processes(), []);
    }
}

/// What honest programs do, checked by the agent itself.
const HONEST: &str = r#"
import ctypes, os, shutil, signal, subprocess, sys, threading, time
def job_control():
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        while True:
            time.sleep(0.01)
    time.sleep(0.05)
    for stop in (signal.SIGSTOP, signal.SIGTSTP):
        os.kill(child, stop)
        pid, status = os.waitpid(child, os.WUNTRACED)
        assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == stop, status
        os.kill(child, signal.SIGCONT)
        pid, status = os.waitpid(child, os.WCONTINUED)
        assert os.WIFCONTINUED(status), status
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
def shell_jobs():
    script = "set -m; sleep 60 & kill -STOP %1; sleep 0.1; jobs; kill -CONT %1; kill %1; wait %1; echo $?"
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
    assert "Stopped" in said.stdout and said.stdout.endswith("143\n"), said
def time_limit():
    assert subprocess.run(["timeout", "0.2", "sleep", "30"]).returncode == 124
def every_signal():
    seen = []
    for number in (signal.SIGUSR1, signal.SIGURG, signal.SIGRTMIN, signal.SIGRTMIN + 7, signal.SIGRTMAX):
        signal.signal(number, lambda got, frame: seen.append(got))
        os.kill(os.getpid(), number)
        while not seen or seen[-1] != number:
            time.sleep(0.001)
def vfork():
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], os.environ)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
def threads():
    done, gate = [], threading.Event()
    def work():
        gate.wait()
        done.append(1)
    all = [threading.Thread(target=work) for _ in range(500)]
    [one.start() for one in all]
    gate.set()
    [one.join() for one in all]
    assert len(done) == 500
def cancel_thread():
    libc = ctypes.CDLL(None)
    cancelled = ctypes.c_void_p()
    start = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    thread = ctypes.c_ulong()
    pause = ctypes.cast(libc.pause, start)
    assert libc.pthread_create(ctypes.byref(thread), None, pause, None) == 0
    time.sleep(0.05)
    assert libc.pthread_cancel(thread) == 0
    assert libc.pthread_join(thread, ctypes.byref(cancelled)) == 0
    assert cancelled.value == ctypes.c_void_p(-1).value
def exec_from_a_thread():
    script = "import os,threading,time\nt=threading.Thread(target=lambda: os.execv('/bin/sh',['sh','-c','exit 9']))\nt.start()\ntime.sleep(60)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
def crash():
    assert subprocess.run(["sh", "-c", "kill -SEGV $$"]).returncode == -signal.SIGSEGV
def pipeline():
    said = subprocess.run("seq 1 1000 | xargs -n 50 -P 8 echo | wc -w", shell=True, capture_output=True)
    assert said.stdout.strip() == b"1000", said
def nicer():
    assert subprocess.run(["nice", "-n", "1", "true"]).returncode == 0
    assert subprocess.run(["taskset", "-c", "0", "true"]).returncode == 0
    assert subprocess.run(["ionice", "-c", "3", "true"]).returncode == 0
def debuggers():
    for words in (["strace", "true"], ["gdb", "-batch", "-ex", "run", "/bin/true"]):
        if shutil.which(words[0]):
            subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
for attempt in (job_control, shell_jobs, time_limit, every_signal, vfork, threads, cancel_thread,
                exec_from_a_thread, crash, pipeline, nicer, debuggers):
    try:
        attempt()
    except BaseException as error:
        print(attempt.__name__, repr(error))
print("done")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn programs_work_as_they_do_where_nobody_holds_them() {
    for freezer in EACH {
        let Some(bench) = bench(freezer) else { continue };
        let (report, _) = bench.run(python(&bench, HONEST)).await;
        assert_eq!((report.text.as_str(), report.verdict), ("done\n", Ok(())), "{freezer:?}");
        assert_eq!(bench.processes(), []);
    }
}

/// A process that was stopped by its own parent, and is continued when told to.
const STOPPED: &str = r#"
import os, signal, time
child = os.fork()
if child == 0:
    while True:
        open("ticks", "a").write(".")
        time.sleep(0.002)
while not os.path.exists("ticks"):
    time.sleep(0.002)
os.kill(child, signal.SIGSTOP)
os.waitpid(child, os.WUNTRACED)
open("up", "w").write(f"{child}\n")
while not os.path.exists("go"):
    time.sleep(0.002)
os.kill(child, signal.SIGCONT)
while not os.path.exists("stop"):
    time.sleep(0.002)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print("done")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_stopped_stays_stopped_over_a_freeze_and_a_thaw() {
    for freezer in EACH {
        let Some(bench) = bench(freezer) else { continue };
        let file = |name: &str| bench.request.checkout.join(name);
        let (run, _output) = bench.start(python(&bench, STOPPED));
        let stopped: i32 = content(&file("up")).await.parse().unwrap();
        bench.lease.send_replace(LeaseSignal::Suspended);
        let agents = bench.agents();
        eventually("all stand", || async { agents.iter().all(|(pid, _)| is_frozen(*pid)) }).await;
        let until = boot_time() + Duration::from_mins(1);
        bench.lease.send_replace(LeaseSignal::Held { until });
        let others: Vec<_> = agents.iter().filter(|(pid, _)| *pid != stopped).collect();
        eventually("they go on", || async { others.iter().all(|(pid, _)| !is_frozen(*pid)) }).await;
        let ticks = || fs::metadata(file("ticks")).unwrap().len();
        let before = ticks();
        blocking_command("/bin/sleep").arg("0.2").status().unwrap();
        assert_eq!(ticks(), before, "{freezer:?} continued what the agent had stopped");
        fs::write(file("go"), "").unwrap();
        eventually("it goes on", || async { ticks() > before + 2 }).await;
        fs::write(file("stop"), "").unwrap();
        assert_eq!(run.await.unwrap().text, "done\n");
    }
}
