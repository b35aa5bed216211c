//! The scripted agent: this same program in another role. It does what its step asks for, and says
//! that it lives for as long as it does.

use std::{
    fs,
    io::{Read, Write},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};
use sha2::{Digest, Sha256};

use crate::witness::{Tick, now};

/// Time between two ticks.
const TICK: Duration = Duration::from_millis(20);
/// The file in the folder of notes that keeps agents from fighting back.
pub const HONEST: &str = "honest";
/// How many processes of one agent never rest.
const CROWD: usize = 20;
/// Longer than it takes to end a run: an agent may do in its checkout what it likes while it lives.
const RESPITE: Duration = Duration::from_secs(2);
/// A child that nobody ends goes after this time, so that a failed run leaves nothing for long.
const LONGEST_LIFE: Duration = Duration::from_mins(10);

/// What the run is about, from its environment.
struct Run {
    order: String,
    step: String,
    attempt: i32,
    id: String,
    port: u16,
}

impl Run {
    fn of_environment(port: &str) -> Self {
        let variable = |name| std::env::var(name).unwrap();
        Self {
            order: variable("AWO_WORK_ORDER_ID"),
            step: variable("AWO_STEP"),
            attempt: variable("AWO_ATTEMPT").parse().unwrap(),
            id: variable("AWO_RUN_ID"),
            port: port.parse().unwrap(),
        }
    }

    /// Ticks until `ended` says so, and says something now and then.
    fn live(&self, ended: impl Fn() -> bool, mut say: impl FnMut()) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        while !ended() {
            let Self { order, step, attempt, id, .. } = self;
            let (order, step, run) = (order.clone(), step.clone(), id.clone());
            let (pid, at) = (std::process::id(), now());
            let tick = Tick { order, step, attempt: *attempt, run, pid, at };
            // A full queue of the listener is no reason to end.
            let _ = socket.send_to(tick.line().as_bytes(), ("127.0.0.1", self.port));
            say();
            std::thread::sleep(TICK);
        }
    }

    /// Number `nth` that is drawn for this run, below `limit`.
    fn drawn(&self, nth: usize, limit: u64) -> u64 {
        let digest = Sha256::digest(format!("{} {} {}", self.order, self.step, self.attempt));
        let bytes: [u8; 4] = digest[nth * 4..nth * 4 + 4].try_into().unwrap();
        u64::from(u32::from_be_bytes(bytes)) % limit
    }
}

/// The agent: `port` of the witness, and the folder with notes for it.
pub fn run(port: &str, folder: &str) -> ExitCode {
    let run = Run::of_environment(port);
    if run.drawn(0, 5) == 0 || run.order.contains("stubborn") {
        // Blocked signals are as good as ignored ones, and children inherit them.
        let deaf: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        deaf.thread_block().unwrap();
    }
    if run.drawn(1, 4) == 0 || run.order.contains("daemon") {
        // It leaves its parent, its group and its session.
        let started = Command::new("setsid")
            .arg("--fork")
            .arg(std::env::current_exe().unwrap())
            .args(["agent-child", port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        started.expect("setsid is there");
    }
    let starving =
        if PathBuf::from(folder).join(HONEST).exists() { Vec::new() } else { fight(&run) };
    let mut prompt = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut prompt);
    let hold = PathBuf::from(folder).join(format!("hold-{}", run.step));
    let short = Duration::from_millis(60 + run.drawn(2, 340));
    let long = Duration::from_millis(200 + run.drawn(2, 1800));
    // Far longer than a lease and a rescue: whoever loses its worker must be stopped, and does not
    // just end in time.
    let longer = Duration::from_millis(8000 + run.drawn(2, 6000));
    let length = match run.step.as_str() {
        "planning" | "execute" if run.drawn(3, 4) == 0 => longer,
        "planning" | "execute" => long,
        _ => short,
    };
    let until = now() + length;
    // There is nearly always a part of the log under way when something breaks.
    let talks = matches!(run.step.as_str(), "planning" | "execute");
    let mut said: u32 = 0;
    let ended = || now() >= until && !hold.exists();
    run.live(ended, || {
        said += 1;
        if talks && said.is_multiple_of(5) {
            println!("still at it: {said}");
        }
    });
    // These it leaves to whoever ends it.
    drop(starving);
    match act(&run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the agent could not write: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What some agents do against whoever watches them: starve the shim by processes that never rest, each in a
/// session of its own, and leave one behind that nothing in its environment tells.
fn fight(run: &Run) -> Vec<Child> {
    let draw = run.drawn(4, 8);
    if draw < 2 {
        survive(run);
    }
    if (draw != 1 && draw != 2) || run.step != "execute" {
        return Vec::new();
    }
    let busy = || {
        let mut command = Command::new("setsid");
        command.args(["/bin/sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
    };
    (0..CROWD).filter_map(|_| busy()).collect()
}

/// Starts the one that stays, with what it has to say for its arguments and an empty environment.
fn survive(run: &Run) {
    let Run { order, step, attempt, id, port } = run;
    let started = Command::new("setsid")
        .arg("--fork")
        .arg(std::env::current_exe().unwrap())
        .args(["agent-survivor", order, step, &attempt.to_string(), id, &port.to_string()])
        .arg(std::process::id().to_string())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    started.expect("setsid is there");
}

/// Lives on after its agent, and then swaps what was made for a link that leads out, again and again, while
/// somebody may read it.
pub fn survivor(words: &[&str]) -> ExitCode {
    let [order, step, attempt, id, port, agent] = words else { return ExitCode::FAILURE };
    let run = Run {
        order: (*order).to_owned(),
        step: (*step).to_owned(),
        attempt: attempt.parse().unwrap(),
        id: (*id).to_owned(),
        port: port.parse().unwrap(),
    };
    let agent = format!("/proc/{agent}");
    let end = now() + LONGEST_LIFE;
    // Whoever ends its run has ended it long before.
    let mut alone = None;
    let made = format!("{}.txt", run.order);
    run.live(
        || now() >= end,
        || {
            if alone.is_none() && !PathBuf::from(&agent).exists() {
                alone = Some(now());
            }
            if alone.is_some_and(|since| now() > since + RESPITE) {
                let _ = fs::remove_file(&made);
                let _ = std::os::unix::fs::symlink("/etc/hostname", &made);
            }
        },
    );
    ExitCode::SUCCESS
}

/// What is left running behind an agent's back.
pub fn child(port: &str) -> ExitCode {
    let end = now() + LONGEST_LIFE;
    Run::of_environment(port).live(|| now() >= end, || ());
    ExitCode::SUCCESS
}

fn act(run: &Run) -> std::io::Result<()> {
    let mut answer = std::io::stdout().lock();
    match run.step.as_str() {
        "planning" => writeln!(answer, "1. Write a file."),
        "execute" => {
            let mut file = fs::File::create(format!("{}.txt", run.order))?;
            writeln!(file, "written for {}", run.order)?;
            // Enough to notice a full disk.
            file.write_all(&vec![b'.'; 64 * 1024])?;
            writeln!(answer, "Done.")
        }
        "prp-review" => {
            writeln!(answer, r#"{{"passed": true, "summary": "good", "issues": []}}"#)
        }
        "commit" => writeln!(answer, "feat: write a file"),
        _ => writeln!(answer, "Write a file\n\nAs ordered."),
    }
}
