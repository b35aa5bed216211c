//! The scripted agent: this same program in another role. It does what its step asks for, and says
//! that it lives for as long as it does.

use std::{
    fs,
    io::{Read, Write},
    net::UdpSocket,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};
use sha2::{Digest, Sha256};

use crate::witness::{Tick, now};

/// Time between two ticks.
const TICK: Duration = Duration::from_millis(20);
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
    match act(&run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the agent could not write: {error}");
            ExitCode::FAILURE
        }
    }
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
