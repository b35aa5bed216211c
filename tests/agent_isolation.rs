//! An agent that tries to leave its sandbox, as a real process on this kernel; and the controls, which
//! show that each attempt works where nothing shuts it in.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/agent_run.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod agent_run;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    time::Duration,
};

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
    "own file to another folder": lambda: (os.mkdir("folder"), os.rename("mine", "folder/mine")),
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
        "own file to another folder",
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
    assert_eq!(outcomes.len(), 29, "{outcomes:?}");
    assert_eq!(seen, expected, "{isolation}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_attempts_succeed_where_nothing_shuts_it_in() {
    let (report, outcomes) = attempt(bounded(IsolationMode::Off)).await;
    assert_eq!(report.verdict, Ok(()), "{outcomes:?}");
    assert_eq!(report.isolation.unwrap().level, IsolationLevel::None);
    for name in [
        "own file to another folder",
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

/// Tries to reach a port that is not the proxy's, in every way that is not a plain `connect` of TCP, and to
/// read what lies around the program.
const WAYS_OUT: &str = r#"
import os, socket, sys
port, udp, terminal, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
def connected(*kind):
    with socket.socket(*kind) as peer:
        peer.connect(("127.0.0.1", port))
def sent(call):
    with socket.socket() as peer:
        call(peer, 0x20000000, ("127.0.0.1", port))
def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"x", ("127.0.0.1", udp))
attempts = {
    "tcp": lambda: connected(socket.AF_INET, socket.SOCK_STREAM),
    "mptcp": lambda: connected(socket.AF_INET, socket.SOCK_STREAM, 262),
    "smc": lambda: socket.socket(43, socket.SOCK_STREAM, 0).close(),
    "fast open by sendto": lambda: sent(lambda peer, flag, to: peer.sendto(b"x", flag, to)),
    "fast open by sendmsg": lambda: sent(lambda peer, flag, to: peer.sendmsg([b"x"], [], flag, to)),
    "udp": datagram,
    "ping": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close(),
    "terminal": lambda: os.close(os.open(terminal, os.O_RDWR | os.O_NOCTTY)),
    "beside its program": lambda: open(folder + "/.env").read(),
    "plain socket": lambda: socket.socket().close(),
    "path socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "own addresses": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
}
with open("report", "w") as report:
    for name, attempt in attempts.items():
        try:
            attempt()
            outcome = "done"
        except OSError as error:
            outcome = "refused" if error.errno in (1, 13, 93, 95) else str(error)
        print(f"{name}={outcome}", file=report, flush=True)
"#;

/// How an agent fares that runs from a folder with a secret, beside somebody's terminal.
async fn ways_out(config: IsolationConfig) -> (AgentReport, BTreeMap<String, String>) {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (port, udp) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let (mut owner, terminal) = somebodys_terminal();
    let mut bench = Bench::new();
    bench.isolation = config;
    let project = tempfile::tempdir().unwrap();
    let (agent, folder) = (project.path().join("agent.py"), project.path().display());
    fs::write(&agent, WAYS_OUT).unwrap();
    fs::write(project.path().join(".env"), "TOKEN=x").unwrap();
    let command_line = format!("python3 {} {port} {udp} {terminal} {folder}", agent.display());
    let (report, _) = bench.run(AgentKind::Command(CommandSettings { command_line })).await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    let text = fs::read_to_string(bench.path("checkout/report")).unwrap_or_default();
    let outcomes = text.lines().filter_map(|line| line.split_once('='));
    (report, outcomes.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect())
}

/// A process with a terminal, and its name.
fn somebodys_terminal() -> (std::process::Child, String) {
    let open = "import os; ends = os.openpty(); print(os.ttyname(ends[1]), flush=True); input()";
    let mut owner = archon_awo::process::blocking_command("/usr/bin/python3")
        .args(["-c", open])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut name = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut name).unwrap();
    (owner, name.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reaches_its_proxy_alone_has_no_other_way_out() {
    let proxy = IsolationConfig { only_port: Some(9), ..IsolationConfig::default() };
    let (report, outcomes) = ways_out(proxy.clone()).await;
    assert_eq!(report.verdict, Ok(()), "{outcomes:?}");
    let isolation = report.isolation.unwrap();
    assert!(isolation.network, "this test needs Linux 6.7 with Landlock; here: {isolation}");
    assert!(isolation.to_string().contains("proxy only by TCP, no UDP"), "{isolation}");
    let (kept, refused): (Vec<_>, Vec<_>) = outcomes.iter().partition(|(_, how)| *how == "done");
    let kept: Vec<&str> = kept.into_iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(kept, ["own addresses", "path socket", "plain socket"], "{outcomes:?}");
    assert!(refused.iter().all(|(_, how)| *how == "refused"), "{outcomes:?}");

    // A proxy that only its name leads to, and its certificate is for that.
    let (report, outcomes) = ways_out(IsolationConfig { looks_up_proxy: true, ..proxy }).await;
    let isolation = report.isolation.unwrap();
    assert_eq!((outcomes["udp"].as_str(), outcomes["mptcp"].as_str()), ("done", "refused"));
    assert_eq!(isolation.level, IsolationLevel::Partial, "{isolation}");
    assert!(isolation.to_string().contains("without a bound for UDP"), "{isolation}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_ways_are_open_where_nothing_shuts_it_in() {
    let off = IsolationConfig { mode: IsolationMode::Off, ..IsolationConfig::default() };
    let (report, outcomes) = ways_out(off).await;
    assert_eq!(report.verdict, Ok(()), "{outcomes:?}");
    // Not every kernel has SMC, and not every user may ping.
    for (name, outcome) in
        outcomes.iter().filter(|(name, _)| !["smc", "ping"].contains(&name.as_str()))
    {
        assert_eq!(outcome, "done", "{name}");
    }
    assert_eq!(outcomes.len(), 12, "{outcomes:?}");
}
