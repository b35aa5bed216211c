//! What a hostile agent tries, what has to hold it back, and the table of it in `docs/security.md`.

use std::{collections::BTreeMap, fs, path::Path};

/// Set to something, the test writes the table instead of comparing it.
const REWRITE: &str = "AWO_WRITE_SECURITY_TABLE";

/// What holds an attempt back, as far as a host may lack it.
#[derive(Clone, Copy, PartialEq)]
pub enum Needs {
    /// Our own doing.
    Nothing,
    /// A version of Landlock.
    Landlock(u8),
    /// seccomp.
    Calls,
    /// A bound of processes.
    Processes,
    /// A bound of memory.
    Memory,
    /// Nothing holds it back but another user.
    OtherUser,
}

/// Who has to succeed where nothing shuts the attempts in.
#[derive(Clone, Copy, PartialEq)]
pub enum Control {
    /// Whoever tries.
    Anybody,
    /// Root.
    Root,
    /// Root, in one of the ways: a container may refuse the others by itself.
    OneWay,
    /// It makes no sense there.
    None,
}

pub struct Attempt {
    pub name: &'static str,
    words: &'static str,
    by: &'static str,
    pub needs: Needs,
    pub control: Control,
}

const fn attempt(
    name: &'static str,
    words: &'static str,
    by: &'static str,
    needs: Needs,
    control: Control,
) -> Attempt {
    Attempt { name, words, by, needs, control }
}

use Control::{Anybody, OneWay, Root};
use Needs::{Calls, Landlock, Nothing, OtherUser};

pub const ATTEMPTS: [Attempt; 33] = [
    attempt(
        "worker-environment",
        "read the worker's environment",
        "Landlock; the worker is not dumpable",
        Landlock(1),
        Root,
    ),
    attempt(
        "worker-memory",
        "read or trace the worker's memory: `mem`, `maps`, `process_vm_readv`, `ptrace`",
        "Landlock, seccomp; the worker is not dumpable",
        Landlock(1),
        Root,
    ),
    attempt(
        "worker-descriptors",
        "take the worker's open files: `/proc`, `pidfd_getfd`",
        "Landlock, seccomp",
        Landlock(1),
        Root,
    ),
    attempt("worker-signals", "signal the worker and the shim", "Landlock 6", Landlock(6), Anybody),
    attempt("worker-limits", "lower the limits of the worker", "seccomp", Calls, Root),
    attempt(
        "token",
        "find the GitHub token in any process, also while git of other orders runs: environments, \
         command lines, pipes",
        "it is in the worker and in a pipe to git alone; Landlock",
        Landlock(1),
        Root,
    ),
    attempt(
        "other-agent",
        "read the environment and memory of another order's agent, signal it, lower its limits",
        "Landlock 6, seccomp",
        Landlock(6),
        Anybody,
    ),
    attempt(
        "other-sandbox",
        "list, read and write another order's checkout",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt(
        "records",
        "read another order's prompts, forge outputs of its own order",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt("mirror", "read and change the cached mirror", "Landlock", Landlock(1), Anybody),
    attempt(
        "trusted",
        "read and change a trusted repository, from which is pushed",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt(
        "sandbox-lock",
        "take the lock of its sandbox, write beside its checkout",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt("config", "read and write the folder of settings", "Landlock", Landlock(1), Anybody),
    attempt("shadow", "read `/etc/shadow`", "Landlock", Landlock(1), Root),
    attempt(
        "write-outside",
        "write to the worker's home, `/tmp`, `/var/tmp`, `/dev/shm`",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt(
        "move-outside",
        "link, move and remove files outside",
        "Landlock",
        Landlock(1),
        Anybody,
    ),
    attempt(
        "change-outside",
        "change mode and times of a file outside that its user owns",
        "another user alone: Landlock does not cover it",
        OtherUser,
        Anybody,
    ),
    attempt(
        "kernel-files",
        "write to `/proc/sys`, to another process's `oom_score_adj`, to the cgroup above",
        "Landlock",
        Landlock(1),
        OneWay,
    ),
    attempt("devices", "make a device", "Landlock, capabilities", Landlock(1), Root),
    attempt("namespaces", "mount, make namespaces", "seccomp", Calls, Root),
    attempt("kernel-calls", "keys, BPF, io_uring, raw packets", "seccomp", Calls, Root),
    attempt(
        "abstract-socket",
        "connect to an abstract socket of others",
        "Landlock 6",
        Landlock(6),
        Anybody,
    ),
    attempt(
        "path-socket",
        "connect to a socket with a path, of its own user",
        "another user alone: Landlock does not cover it",
        OtherUser,
        Anybody,
    ),
    attempt("setuid", "run a setuid program as its owner", "`no_new_privs`", Nothing, Root),
    attempt("large-file", "write a file larger than allowed", "`RLIMIT_FSIZE`", Nothing, Anybody),
    attempt("open-files", "open more files than allowed", "`RLIMIT_NOFILE`", Nothing, Anybody),
    attempt("forks", "fork without end", "`pids.max`, `RLIMIT_NPROC`", Needs::Processes, Anybody),
    attempt(
        "fill",
        "fill the disk with many files",
        "`AWO_SANDBOX_QUOTA`, sampled: the run ends as class `disk`",
        Nothing,
        Control::None,
    ),
    attempt(
        "eat",
        "take more memory than allowed",
        "`memory.max`: the run ends as class `oom`",
        Needs::Memory,
        Control::None,
    ),
    attempt(
        "daemon-stays",
        "leave a daemon: forked twice, own session, renamed, environment cleared",
        "the shim is its reaper; the cgroup of the run",
        Nothing,
        Anybody,
    ),
    attempt(
        "daemon-hops",
        "the same, forking on and on so that no process lives long",
        "the shim is its reaper; the cgroup of the run",
        Nothing,
        Anybody,
    ),
    attempt(
        "secret",
        "print a secret in pieces, in base64 (three shifts), hex, URL and JSON code",
        "the log is redacted",
        Nothing,
        Control::None,
    ),
    attempt(
        "traps",
        "leave links that lead out, closed and deep folders for whoever deletes the sandbox",
        "the removal follows no link; only the sandbox goes",
        Nothing,
        Control::None,
    ),
];

/// How far the agent was shut in, as its step says.
pub struct Reached(pub String);

impl Reached {
    pub fn landlock(&self) -> u8 {
        let after = self.0.split_once("Landlock ").map(|(_, rest)| rest).unwrap_or_default();
        let digits = after.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().unwrap_or(0)
    }

    /// Whether an attempt has to be held back.
    fn holds(&self, needs: Needs) -> bool {
        match needs {
            Nothing => true,
            Landlock(version) => self.landlock() >= version,
            Calls => self.0.contains("seccomp"),
            Needs::Processes => self.0.contains("processes by"),
            Needs::Memory => self.0.contains("memory by cgroup"),
            OtherUser => self.0.contains("user "),
        }
    }
}

/// What came of the attempts of one run: `None` where one could not be tried.
pub type Outcomes = BTreeMap<&'static str, Option<bool>>;

/// Fails unless every attempt was held back that has to be where so much was reached.
pub fn assert_held(what: &str, reached: &Reached, outcomes: &Outcomes) {
    let through: Vec<_> = ATTEMPTS
        .iter()
        .filter(|attempt| reached.holds(attempt.needs))
        .filter(|attempt| outcomes.get(attempt.name) == Some(&Some(true)))
        .map(|attempt| attempt.name)
        .collect();
    assert!(through.is_empty(), "{what}, {}: done {through:?}", reached.0);
}

/// The columns: plain, `off`, shut in, shut in as another user.
pub struct Table {
    pub plain: Outcomes,
    pub off: Outcomes,
    pub shut_in: (Reached, Outcomes),
    pub other_user: (Reached, Outcomes),
}

impl Table {
    pub fn render(&self) -> String {
        let mut text =
            "| attempt | outside | `off` | shut in | and `AWO_AGENT_USER` | held back by |\n\
                        |---|---|---|---|---|---|\n"
                .to_owned();
        for attempt in &ATTEMPTS {
            let cells = [
                word(self.plain.get(attempt.name)),
                word(self.off.get(attempt.name)),
                expected(attempt, &self.shut_in),
                expected(attempt, &self.other_user),
            ];
            let line = format!("| {} | {} | {} |\n", attempt.words, cells.join(" | "), attempt.by);
            text.push_str(&line);
        }
        text
    }
}

fn word(outcome: Option<&Option<bool>>) -> &'static str {
    match outcome {
        Some(Some(true)) => "done",
        Some(Some(false)) => "refused",
        Some(None) | None => "–",
    }
}

/// What was seen; where this host lacks what the attempt is held back by, what a better one shows.
fn expected(attempt: &Attempt, (reached, outcomes): &(Reached, Outcomes)) -> &'static str {
    let own = attempt.needs == OtherUser;
    if own || reached.holds(attempt.needs) {
        return word(outcomes.get(attempt.name));
    }
    eprintln!("not shown here, for it reaches {}: {}", reached.0, attempt.words);
    "refused"
}

/// Compares a part of the page with what it should be, or writes it.
pub fn check_page(parts: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut new = page.clone();
    let rewrite = std::env::var_os(REWRITE).is_some();
    for (name, text) in parts {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let from = new.find(&begin).unwrap() + begin.len();
        let to = from + new[from..].find(&end).unwrap();
        // What the machine is may differ from page to page, and not what it does.
        if !rewrite && *name != "machine" {
            assert_eq!(
                new[from..to].trim(),
                text.trim(),
                "{} is not what was seen; {REWRITE}=1 writes it",
                path.display()
            );
        }
        new.replace_range(from..to, &format!("\n{}\n\n", text.trim()));
    }
    if rewrite {
        fs::write(path, new).unwrap();
    }
}

/// The kernel and what of it was used.
pub fn machine(reached: &Reached) -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroups = match (mounts.contains(" - cgroup2 "), mounts.contains(" - cgroup cgroup")) {
        (true, false) => "version 2",
        (true, true) => "version 2, with controllers of version 1",
        (false, true) => "version 1",
        (false, false) => "none",
    };
    format!(
        "Last written on Linux {}, cgroups {cgroups}; the agents ran {}.",
        release.trim(),
        reached.0
    )
}
