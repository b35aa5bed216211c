//! Agents that misbehave, as real processes: whatever they do, the run ends, nothing of them is
//! left, and what they printed is not lost.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/agent_run.rs"]
mod agent_run;
#[path = "support/frozen.rs"]
mod frozen;

use std::{fs, time::Duration};

use agent_run::{Bench, content, eventually, state};
use archon_awo::{
    agent::{
        AgentKind, AgentReport, CommandSettings, KillPlan, LeaseSignal, OutputChunk, OutputStream,
    },
    clock::boot_time,
    domain::{ErrorClass, Redactor},
    process::command,
};
use frozen::is_frozen;
use tokio::time::Instant;

/// An agent that is a script for `interpreter` (`sh` or `python3`).
fn script(bench: &Bench, interpreter: &str, text: &str) -> AgentKind {
    let file = bench.path("agent-script");
    fs::write(&file, text).unwrap();
    AgentKind::Command(CommandSettings {
        command_line: format!("{interpreter} {}", file.display()),
    })
}

/// Renews the lease for that long.
fn hold(bench: &Bench, time: Duration) {
    let until = boot_time() + time;
    bench.lease.send_replace(LeaseSignal::Held { until });
}

fn class(report: &AgentReport) -> Option<ErrorClass> {
    report.verdict.as_ref().err().map(|failure| failure.class)
}

fn text_of(chunks: &[OutputChunk], stream: OutputStream) -> Vec<u8> {
    let of = chunks.iter().filter(|chunk| chunk.stream == stream);
    of.flat_map(|chunk| chunk.data.clone()).collect()
}

fn assert_gone(bench: &Bench, report: &AgentReport) {
    assert_eq!(bench.processes(), [], "processes are left");
    assert!(report.tree_empty_after.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reads_its_prompt_and_finds_only_the_environment_made_for_it() {
    let mut bench = Bench::new();
    bench.request.extra_env = vec![("TZ".to_owned(), "UTC".to_owned())];
    let agent = script(&bench, "sh", "cat; echo; pwd; env | sort; echo oops >&2");
    let (report, chunks) = bench.run(agent).await;
    assert_eq!(report.verdict, Ok(()));
    let text = report.text.clone();
    assert!(text.starts_with("do it\n"), "{text}");
    let names: Vec<&str> =
        text.lines().skip(2).filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let expected = [
        "AWO_ATTEMPT",
        "AWO_RUN_ID",
        "AWO_SANDBOX",
        "AWO_SESSION_DIR",
        "AWO_SESSION_ID",
        "AWO_STEP",
        "AWO_TASK",
        "AWO_WORK_ORDER_ID",
        "CI",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_KEY_0",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_VALUE_0",
        "GIT_SSH_COMMAND",
        "GIT_TERMINAL_PROMPT",
        "HOME",
        "LANG",
        "PATH",
        "PWD",
        "TERM",
        "TMPDIR",
        "TZ",
    ];
    // The shell's own, and those that a count of coverage adds to every process.
    let added = |name: &str| name == "_" || (cfg!(tarpaulin) && name.contains("LLVM_PROFILE"));
    let names: Vec<&str> = names.into_iter().filter(|name| !added(name)).collect();
    assert_eq!(names, expected);
    assert!(text.contains("AWO_WORK_ORDER_ID=wo-test\n") && text.contains("AWO_STEP=execute\n"));
    assert_eq!(text_of(&chunks, OutputStream::Stderr), b"oops\n");
    assert_eq!(text_of(&chunks, OutputStream::Stdout), fs::read(&bench.request.spool).unwrap());
    assert_gone(&bench, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_inherits_no_descriptor_but_its_streams() {
    let bench = Bench::new();
    let (report, _) = bench.run(script(&bench, "sh", "ls /proc/self/fd | tr '\\n' ' '")).await;
    // The fourth is the folder that ls itself has open.
    assert_eq!(report.text.trim(), "0 1 2 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_reported_with_the_last_words() {
    let bench = Bench::new();
    let (report, _) = bench.run(script(&bench, "sh", "echo no luck >&2; exit 3")).await;
    let failure = report.verdict.unwrap_err();
    assert_eq!(failure.message, "the agent ended with exit code 3 (no luck)");
    let (report, _) = bench.run(script(&bench, "sh", "kill -9 $$")).await;
    assert_eq!(class(&report), Some(ErrorClass::ToolError));
    assert_eq!(report.exit.and_then(|exit| exit.signal), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_cannot_be_started_are_named() {
    let bench = Bench::new();
    let unusable = bench.path("not-a-program");
    fs::write(&unusable, "text").unwrap();
    let missing = bench.path("missing").display().to_string();
    for program in [missing, unusable.display().to_string(), String::new()] {
        let agent = AgentKind::Command(CommandSettings { command_line: program.clone() });
        let (report, _) = bench.run(agent).await;
        let failure = report.verdict.unwrap_err();
        assert_eq!(failure.class, ErrorClass::Invalid);
        assert!(failure.message.contains(&program), "{}", failure.message);
    }
    // Executable by its mode, but nothing the kernel can run.
    let broken = bench.path("broken");
    fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let agent = AgentKind::Command(CommandSettings { command_line: broken.display().to_string() });
    let failure = bench.run(agent).await.0.verdict.unwrap_err();
    assert_eq!(failure.class, ErrorClass::Invalid);
    assert!(failure.message.contains("broken did not start"), "{}", failure.message);
    assert!(failure.message.contains("the interpreter that its first line"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_is_stalled_and_a_chatty_one_times_out() {
    let mut bench = Bench::new();
    bench.request.idle_timeout = Duration::from_millis(500);
    let (report, _) = bench.run(script(&bench, "sh", "echo hi; sleep 60")).await;
    assert_eq!(class(&report), Some(ErrorClass::Stalled));
    assert_gone(&bench, &report);
    bench.request.hard_timeout = Duration::from_millis(1500);
    let (report, _) = bench.run(script(&bench, "sh", "while :; do echo hi; sleep 0.1; done")).await;
    assert_eq!(class(&report), Some(ErrorClass::Timeout));
    assert_gone(&bench, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_agent_that_ignores_every_signal_is_gone_within_fifteen_seconds() {
    let mut bench = Bench::new();
    bench.kill_plan = KillPlan::default();
    let stubborn = "import signal, subprocess, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(['setsid', 'sh', '-c', 'trap \"\" INT TERM; echo up > up; sleep 99'])
time.sleep(99)";
    let (run, _output) = bench.start(script(&bench, "python3", stubborn));
    content(&bench.request.checkout.join("up")).await;
    let cancelled = Instant::now();
    bench.cancel.cancel();
    let report = run.await.unwrap();
    assert!(cancelled.elapsed() < Duration::from_secs(15), "{:?}", cancelled.elapsed());
    assert_eq!(class(&report), Some(ErrorClass::Cancelled));
    assert_gone(&bench, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polite_agent_ends_at_the_first_signal_and_its_success_is_not_believed() {
    let mut bench = Bench::new();
    // Long enough for a busy host: a second signal would end it another way.
    bench.kill_plan = KillPlan { interrupt: Duration::from_secs(20), ..KillPlan::default() };
    // A shell cannot trap what was ignored when it began, as under a test run in the background.
    let agent = "import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
print('up', file=open('up', 'w'))
time.sleep(99)";
    let (run, _output) = bench.start(script(&bench, "python3", agent));
    content(&bench.request.checkout.join("up")).await;
    bench.cancel.cancel();
    let report = run.await.unwrap();
    assert_eq!(class(&report), Some(ErrorClass::Cancelled));
    assert_eq!(report.exit.and_then(|exit| exit.code), Some(0), "{report:?}");
    assert!(report.tree_empty_after.unwrap() < bench.kill_plan.interrupt, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_an_agent_leaves_behind_are_ended_with_it() {
    let bench = Bench::new();
    let agent = "import os, time
def daemon(name, environment):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve('/bin/sh', [name, '-c', f'echo $$ > {name}; sleep 98'], environment)
        os._exit(0)
daemon('kept', dict(os.environ))
daemon('renamed', {})
while not all(os.path.exists(f) and open(f).read().endswith('\\n') for f in ('kept', 'renamed')):
    time.sleep(0.01)
print('done')";
    let (report, _) = bench.run(script(&bench, "python3", agent)).await;
    assert_eq!((report.verdict.clone(), report.text.as_str()), (Ok(()), "done\n"));
    assert_gone(&bench, &report);
    for name in ["kept", "renamed"] {
        let pid = content(&bench.request.checkout.join(name)).await.parse().unwrap();
        assert!(matches!(state(pid), None | Some('Z')), "{name} lives on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_arrive_unchanged() {
    let bench = Bench::new();
    let agent = "import sys, time
out = sys.stdout.buffer
for piece in (b'a\\0b \\xe2\\x82', b'\\xac \\xff\\xfe\\n', b'\\xed\\xa0\\x80 no end'):
    out.write(piece); out.flush(); time.sleep(0.05)";
    let (report, chunks) = bench.run(script(&bench, "python3", agent)).await;
    assert_eq!(report.verdict, Ok(()));
    let expected = b"a\0b \xe2\x82\xac \xff\xfe\n\xed\xa0\x80 no end";
    assert_eq!(text_of(&chunks, OutputStream::Stdout), expected);
    assert!(report.text.starts_with("a\u{fffd}b \u{20ac} \u{fffd}\u{fffd}\n"));
    assert_eq!(chunks.iter().map(|chunk| chunk.lines).sum::<u32>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_fifty_megabytes_is_cut_and_the_next_line_counts() {
    let bench = Bench::new();
    let agent = "import sys
for _ in range(50):
    sys.stdout.write('x' * 2**20)
print()
print('{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"fine\"}')";
    let (report, chunks) = bench.run(script(&bench, "python3", agent)).await;
    assert_eq!((report.verdict.clone(), report.text.as_str()), (Ok(()), "fine"));
    assert!(report.truncated);
    let output = text_of(&chunks, OutputStream::Stdout);
    assert!(output.len() > 16 << 20 && output.len() < 17 << 20, "{}", output.len());
    assert!(chunks.iter().all(|chunk| chunk.data.len() <= 64 * 1024));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_never_reads_does_not_hold_up_the_agent() {
    let mut bench = Bench::new();
    bench.request.prompt = "x".repeat(1 << 20);
    bench.limits.spool = 8 << 20;
    bench.limits.delivery = Duration::from_millis(200);
    let agent = script(&bench, "python3", "for i in range(400_000): print('line', i, 'x' * 40)");
    let (run, output) = bench.start(agent);
    let report = run.await.unwrap();
    assert_eq!(report.verdict, Ok(()));
    assert!(report.truncated && report.text.contains("line 399999"));
    let spooled = fs::metadata(&bench.request.spool).unwrap().len();
    assert_eq!(spooled, report.delivered.stdout_spooled);
    assert!((8 << 20..9 << 20).contains(&spooled), "{spooled}");
    assert!(report.delivered.stdout_sent < spooled);
    assert_gone(&bench, &report);
    drop(output);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_neither_spool_nor_channel_nor_report() {
    let mut bench = Bench::new();
    bench.redactor = Redactor::new(["ghp_0123456789abcdef".to_owned().into()]);
    let agent = "import sys, time
for half in ('token ghp_01234567', '89abcdef!\\n'):
    sys.stdout.write(half); sys.stdout.flush(); time.sleep(0.4)
sys.stderr.write('fatal: ghp_0123456789abcdef\\n'); sys.exit(1)";
    let (report, chunks) = bench.run(script(&bench, "python3", agent)).await;
    assert_eq!(fs::read(&bench.request.spool).unwrap(), b"token [redacted]!\n");
    assert_eq!(text_of(&chunks, OutputStream::Stdout), b"token [redacted]!\n");
    assert_eq!(text_of(&chunks, OutputStream::Stderr), b"fatal: [redacted]\n");
    assert!(!format!("{report:?}").contains("ghp_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_deadline_stops_every_process_and_a_renewal_continues_them() {
    let bench = Bench::new();
    let agent = "(setsid sh -c 'while :; do date +%N > beat; sleep 0.02; done') &
        echo up > up; while [ ! -e stop ]; do sleep 0.02; done; echo done";
    hold(&bench, Duration::from_millis(1500));
    let (run, _output) = bench.start(script(&bench, "sh", agent));
    content(&bench.request.checkout.join("up")).await;
    assert!(!bench.agents().is_empty());
    eventually("all are stopped", || async {
        let agents = bench.agents();
        !agents.is_empty() && agents.iter().all(|(pid, _)| is_frozen(*pid))
    })
    .await;
    // Stopped means that nothing moves, in other sessions neither.
    let beat = fs::read(bench.request.checkout.join("beat")).unwrap();
    // As long as it takes one of the same kind to beat ten times, however busy this machine is.
    let other = "for beat in 1 2 3 4 5 6 7 8 9 10; do date +%N > other-beat; sleep 0.02; done";
    let beats = command("sh").args(["-c", other]).current_dir(bench.path("")).status();
    assert!(beats.await.unwrap().success());
    assert_eq!(fs::read(bench.request.checkout.join("beat")).unwrap(), beat);
    hold(&bench, Duration::from_mins(1));
    fs::write(bench.request.checkout.join("stop"), "").unwrap();
    let report = run.await.unwrap();
    assert_eq!((report.verdict.clone(), report.text.as_str()), (Ok(()), "done\n"));
    assert_gone(&bench, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_lease_freezes_at_once_and_a_lost_one_kills() {
    let bench = Bench::new();
    let (run, _output) = bench.start(script(&bench, "sh", "echo up > up; sleep 60"));
    content(&bench.request.checkout.join("up")).await;
    bench.lease.send_replace(LeaseSignal::Suspended);
    eventually("all are stopped", || async {
        bench.agents().iter().all(|(pid, _)| is_frozen(*pid))
    })
    .await;
    bench.lease.send_replace(LeaseSignal::Lost);
    let report = run.await.unwrap();
    assert_eq!(class(&report), Some(ErrorClass::LostWorker));
    assert_gone(&bench, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_stays_frozen_is_killed() {
    let mut bench = Bench::new();
    bench.limits.longest_freeze = Duration::from_millis(300);
    hold(&bench, Duration::from_millis(500));
    let (report, _) = bench.run(script(&bench, "sh", "sleep 60")).await;
    assert_eq!(class(&report), Some(ErrorClass::LostWorker));
    assert_gone(&bench, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_agent_starts_without_a_living_lease() {
    let bench = Bench::new();
    bench.lease.send_replace(LeaseSignal::Suspended);
    let (run, _output) = bench.start(script(&bench, "sh", "echo up > up"));
    eventually("the shim is there", || async { !bench.processes().is_empty() }).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!bench.request.checkout.join("up").exists());
    hold(&bench, Duration::from_mins(1));
    assert_eq!(run.await.unwrap().verdict, Ok(()));
    assert!(bench.request.checkout.join("up").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_run_ends_its_processes() {
    let bench = Bench::new();
    let (run, _output) =
        bench.start(script(&bench, "sh", "setsid sleep 97 & echo up > up; sleep 97"));
    content(&bench.request.checkout.join("up")).await;
    run.abort();
    eventually("nothing is left", || async { bench.processes().is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_tree_along() {
    let bench = Bench::new();
    let (run, _output) =
        bench.start(script(&bench, "sh", "setsid sleep 96 & echo $PPID > up; sleep 96"));
    let shim: i32 = content(&bench.request.checkout.join("up")).await.parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::SIGKILL).unwrap();
    let report = run.await.unwrap();
    assert_eq!(class(&report), Some(ErrorClass::LostWorker));
    assert_eq!(bench.processes(), [], "processes are left");
    assert_eq!(report.tree_empty_after, None, "nobody saw the tree empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_in_use_is_waited_for_and_then_refused() {
    let mut bench = Bench::new();
    let (first, _output) = bench.start(script(&bench, "sh", "echo up > up; sleep 60"));
    content(&bench.request.checkout.join("up")).await;
    let first_run = bench.request.run_id;
    bench.request.run_id = uuid::Uuid::new_v4();
    bench.request.spool = bench.path("second.ndjson");
    bench.limits.lock_wait = Duration::from_millis(300);
    let agent = AgentKind::Command(CommandSettings { command_line: "echo second".to_owned() });
    let (report, _) = bench.run(agent.clone()).await;
    let failure = report.verdict.unwrap_err();
    assert_eq!(failure.class, ErrorClass::LostWorker);
    assert!(failure.message.contains("still in use"), "{}", failure.message);
    assert!(!failure.sandbox_free);
    assert!(!agent_run::marked(&format!("AWO_RUN_ID={first_run}")).is_empty());

    bench.limits.lock_wait = Duration::from_secs(10);
    let (second, _output) = bench.start(agent);
    first.abort();
    assert_eq!(second.await.unwrap().verdict, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_left_without_a_shim_is_ended_before_the_next_starts() {
    let bench = Bench::new();
    // Like everything a shim starts it has fewer capabilities than root: what has more than the
    // shim itself cannot be looked into.
    let fewer: &[&str] = if nix::unistd::geteuid().is_root() {
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    } else {
        &["env"]
    };
    #[expect(clippy::disallowed_methods, reason = "this process shall look like a leftover")]
    let mut leftover = std::process::Command::new(fewer[0])
        .args(&fewer[1..])
        .args(["sleep", "95"])
        .env_clear()
        .env("AWO_SANDBOX", &bench.request.sandbox_root)
        .env("AWO_RUN_ID", "earlier")
        .spawn()
        .unwrap();
    let (report, _) = bench.run(script(&bench, "sh", "echo next")).await;
    assert_eq!(report.verdict, Ok(()));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&leftover.wait().unwrap()), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_the_lock_or_the_spool_is_not_followed() {
    let bench = Bench::new();
    let victim = bench.path("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &bench.request.spool).unwrap();
    let (report, _) = bench.run(script(&bench, "sh", "echo x")).await;
    assert_eq!(class(&report), Some(ErrorClass::Invalid));
    fs::remove_file(&bench.request.spool).unwrap();
    std::os::unix::fs::symlink(&victim, bench.path(".lock")).unwrap();
    let (report, _) = bench.run(script(&bench, "sh", "echo x")).await;
    assert_eq!(class(&report), Some(ErrorClass::ToolError));
    assert_eq!(fs::read(victim).unwrap(), b"precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_exit_after_its_result_is_ended_and_counts() {
    let mut bench = Bench::new();
    bench.limits.exit_grace = Duration::from_millis(300);
    let agent = r#"echo '{"type":"result","subtype":"success","is_error":false,"result":"ok"}'
        trap '' INT TERM; sleep 60"#;
    let (report, _) = bench.run(script(&bench, "sh", agent)).await;
    assert_eq!((report.verdict.clone(), report.text.as_str()), (Ok(()), "ok"));
    assert_gone(&bench, &report);
}

/// Name of the variable with which this test program is told to be a worker.
const WORKER_IN: &str = "AWO_TEST_WORKER_IN";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is the worker that the next test kills"]
#[expect(clippy::disallowed_methods, reason = "the parent test speaks through the environment")]
async fn worker_that_is_going_to_be_killed() {
    let folder = std::env::var(WORKER_IN).expect("only the test below starts this one");
    let mut bench = Bench::new();
    bench.isolation.write_paths.push(folder.clone().into());
    bench.request.run_id = folder.rsplit('/').next().unwrap().parse().unwrap();
    let agent = format!("setsid sh -c 'sleep 94' & echo up > {folder}/up; sleep 94");
    let (run, _output) = bench.start(script(&bench, "sh", &agent));
    run.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_of_a_killed_worker_vanishes_without_anybodys_help() {
    let bench = Bench::new();
    let folder = bench.path(&bench.request.run_id.to_string());
    fs::create_dir(&folder).unwrap();
    #[expect(clippy::disallowed_methods, reason = "starts this very test program again")]
    let mut worker = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_that_is_going_to_be_killed", "--ignored"])
        .env(WORKER_IN, &folder)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    content(&folder.join("up")).await;
    assert!(bench.agents().len() >= 2);
    worker.kill().unwrap();
    let killed = Instant::now();
    eventually("nothing is left", || async { bench.processes().is_empty() }).await;
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    worker.wait().unwrap();
}
