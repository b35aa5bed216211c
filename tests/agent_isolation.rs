//! An agent that tries to leave its sandbox, as a real process on this kernel; and the controls, which
//! show that each attempt works where nothing shuts it in.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/agent_run.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod agent_run;

use std::{collections::BTreeMap, fs, time::Duration};

use agent_run::Bench;
use archon_awo::{
    agent::{AgentKind, AgentReport, CommandSettings, IsolationLevel, find_isolation},
    config::{Freezer, IsolationConfig, IsolationMode},
};

/// Tries one thing after the other and writes `name=done` or `name=refused` into its checkout.
const ATTEMPTS: &str = r#"
import ctypes, os, signal, struct, sys
outside, worker = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")
def fork_much():
    children = []
    try:
        for _ in range(400):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
def named(call, *arguments):
    numbers = {"setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setattr": (314, 274), "clone": (56, 220)}
    return numbers[call][os.uname().machine != "x86_64"], *arguments
def untraced_child():
    child = libc.syscall(*named("clone", 0x00800000 | signal.SIGCHLD, 0, 0, 0, 0))
    if child == 0:
        os._exit(0)
    if child == -1:
        raise OSError(ctypes.get_errno(), "refused")
    os.waitpid(child, 0)
def large_file():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("large", "wb") as file:
        file.seek(3 << 20)
        file.write(b"x")
attempts = {
    "own file": lambda: open("mine", "w").write("x"),
    "own child": lambda: os.system("test -f mine") and 1 / 0,
    "tmp of its own": lambda: open(os.environ["TMPDIR"] + "/x", "w").write("x"),
    "shadow": lambda: open("/etc/shadow").read(),
    "stranger's file": lambda: open(outside + "/secret").read(),
    "stranger's folder": lambda: os.listdir(outside),
    "worker's environment": lambda: open(f"/proc/{worker}/environ").read(),
    "worker's memory": lambda: open(f"/proc/{worker}/mem", "rb"),
    "write outside": lambda: open(outside + "/planted", "w").write("x"),
    "write /tmp": lambda: open("/tmp/archon-awo-planted-" + str(worker), "w").write("x"),
    "lock of the sandbox": lambda: open("../.lock", "w"),
    "signal the worker": lambda: os.kill(worker, 0),
    "policy of the worker": lambda: os.sched_setscheduler(worker, os.SCHED_OTHER, os.sched_param(0)),
    "parameter of the worker": lambda: os.sched_setparam(worker, os.sched_param(0)),
    "attributes of the worker": lambda: call(*named("sched_setattr", worker, struct.pack("IIQiIQQQ", 48, 0, 0, 0, 0, 0, 0, 0), 0)),
    "processors of the worker": lambda: os.sched_setaffinity(worker, os.sched_getaffinity(worker)),
    "priority of the worker": lambda: call(*named("setpriority", 0, worker, 0)),
    "priority of the user": lambda: call(*named("setpriority", 2, 0, os.nice(0))),
    "disk priority of the worker": lambda: call(*named("ioprio_set", 1, worker, 0)),
    "own priority": lambda: os.nice(1),
    "own processors": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "own disk priority": lambda: call(*named("ioprio_set", 1, 0, 3 << 13)),
    "untraced child": untraced_child,
    "mount": lambda: call(165, b"none", b"/mnt", b"tmpfs", 0, None),
    "namespace": lambda: call(272, 0x10000000),
    "keys": lambda: call(250, 0, -3, 1),
    "large file": large_file,
    "fork without end": fork_much,
}
with open("report", "w") as report:
    for name, attempt in attempts.items():
        try:
            attempt()
            outcome = "done"
        except OSError as error:
            outcome = "refused"
        print(f"{name}={outcome}", file=report, flush=True)
"#;

async fn attempt(config: IsolationConfig) -> (AgentReport, BTreeMap<String, String>) {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let mut bench = Bench::new();
    bench.isolation = config;
    bench.request.hard_timeout = Duration::from_mins(1);
    let script = bench.path("attempts.py");
    fs::write(&script, ATTEMPTS).unwrap();
    let command_line =
        format!("python3 {} {} {}", script.display(), outside.path().display(), std::process::id());
    let (report, _) = bench.run(AgentKind::Command(CommandSettings { command_line })).await;
    let _ = fs::remove_file(format!("/tmp/archon-awo-planted-{}", std::process::id()));
    let text = fs::read_to_string(bench.path("checkout/report")).unwrap_or_default();
    let outcomes = text.lines().filter_map(|line| line.split_once('='));
    (report, outcomes.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect())
}

fn bounded(mode: IsolationMode) -> IsolationConfig {
    IsolationConfig { mode, processes: 200, file_size: 2 << 20, ..IsolationConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cannot_leave_its_sandbox() {
    let (report, outcomes) = attempt(bounded(IsolationMode::Auto)).await;
    assert_eq!(report.verdict, Ok(()), "{outcomes:?}");
    let isolation = report.isolation.unwrap();
    // The host's part: without it there is nothing to show.
    assert!(isolation.landlock >= 6, "this test needs Linux 6.12 with Landlock; here: {isolation}");
    assert!(isolation.syscalls, "{isolation}");
    let mut expected: BTreeMap<String, String> =
        outcomes.keys().map(|name| (name.clone(), "refused".to_owned())).collect();
    for allowed in [
        "own file",
        "own child",
        "tmp of its own",
        "own priority",
        "own processors",
        "own disk priority",
    ] {
        expected.insert(allowed.to_owned(), "done".to_owned());
    }
    if isolation.processes.is_none() {
        expected.remove("fork without end");
        eprintln!("processes are not bounded here: {isolation}");
    }
    let mut seen = outcomes.clone();
    seen.retain(|name, _| expected.contains_key(name));
    assert_eq!(outcomes.len(), 28, "{outcomes:?}");
    assert_eq!(seen, expected, "{isolation}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_attempts_succeed_where_nothing_shuts_it_in() {
    let (report, outcomes) = attempt(bounded(IsolationMode::Off)).await;
    assert_eq!(report.verdict, Ok(()), "{outcomes:?}");
    assert_eq!(report.isolation.unwrap().level, IsolationLevel::None);
    for name in [
        "stranger's file",
        "stranger's folder",
        "write outside",
        "write /tmp",
        "lock of the sandbox",
        "signal the worker",
        "namespace",
        "policy of the worker",
        "parameter of the worker",
        "attributes of the worker",
        "processors of the worker",
        "disk priority of the worker",
        "priority of the worker",
        "priority of the user",
        "own priority",
        "untraced child",
    ] {
        assert_eq!(outcomes[name], "done", "{name}");
    }
}

#[test]
fn what_this_host_reaches_is_known_before_an_agent_starts() {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_archon-awo"));
    let found = find_isolation(program, &IsolationConfig::default(), Freezer::Auto).unwrap();
    assert!(found.landlock > 0, "{found}");
    let required = IsolationConfig {
        mode: IsolationMode::Required,
        memory: Some(1 << 30),
        ..IsolationConfig::default()
    };
    match find_isolation(program, &required, Freezer::Auto) {
        Ok(full) => assert_eq!(full.level, IsolationLevel::Full, "{full}"),
        Err(reason) => assert!(reason.starts_with("AWO_ISOLATION is required"), "{reason}"),
    }
}
