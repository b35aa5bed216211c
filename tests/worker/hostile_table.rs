//! What came of the attempts of a hostile agent, and the table of it in `docs/security.md`.

use std::{collections::BTreeMap, fs, path::Path};

use crate::hostile_rows::{
    Attempt,
    Needs::{self, Calls, Landlock, Memory, Nothing, OtherUser, Processes},
    attempts,
};

/// Set to something, the test writes the table instead of comparing it.
const REWRITE: &str = "AWO_WRITE_SECURITY_TABLE";

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
            Processes => self.0.contains("processes by"),
            Memory => self.0.contains("memory by cgroup"),
            // Not what stands behind "without".
            OtherUser => self.0.split(')').next().is_some_and(|has| has.contains(" of its own")),
        }
    }
}

/// What came of the attempts of one run: `None` where one could not be tried.
pub type Outcomes = BTreeMap<&'static str, Option<bool>>;

/// Fails unless every attempt was held back that has to be where so much was reached.
pub fn assert_held(what: &str, reached: &Reached, outcomes: &Outcomes) {
    let through: Vec<_> = attempts()
        .filter(|attempt| reached.holds(attempt.needs))
        .filter(|attempt| outcomes.get(attempt.name) == Some(&Some(true)))
        .map(|attempt| attempt.name)
        .collect();
    assert!(through.is_empty(), "{what}, {}: done {through:?}", reached.0);
}

/// The columns: where nothing holds the attempts back, and the four ways in which agents are run.
pub struct Table {
    pub outside: Outcomes,
    /// `AWO_ISOLATION=off`.
    pub off: Outcomes,
    /// One user without any privilege for worker and agents, and no cgroup.
    pub image: (Reached, Outcomes),
    /// Agents have a user of their own.
    pub hardened: (Reached, Outcomes),
    /// A worker that is root, on a host with cgroups.
    pub root: (Reached, Outcomes),
}

impl Table {
    pub fn render(&self) -> String {
        let mut text = "| attempt | outside | `off` | image | hardened image | root, cgroup | held back by |\n\
                        |---|---|---|---|---|---|---|\n"
            .to_owned();
        for attempt in attempts() {
            let cells = [
                word(self.outside.get(attempt.name)),
                word(self.off.get(attempt.name)),
                expected(attempt, &self.image, &[OtherUser, Processes, Memory]),
                expected(attempt, &self.hardened, &[OtherUser, Processes, Memory]),
                expected(attempt, &self.root, &[OtherUser]),
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

/// What was seen; where this host lacks what the attempt is held back by, what a better one shows. What
/// this way of running agents lacks on any host is `own`.
fn expected(
    attempt: &Attempt,
    (reached, outcomes): &(Reached, Outcomes),
    own: &[Needs],
) -> &'static str {
    if own.contains(&attempt.needs) || reached.holds(attempt.needs) {
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
pub fn machine(ways: &[(&str, &Reached)]) -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroups = match (mounts.contains(" - cgroup2 "), mounts.contains(" - cgroup cgroup")) {
        (true, false) => "version 2",
        (true, true) => "version 2, with controllers of version 1",
        (false, true) => "version 1",
        (false, false) => "none",
    };
    let ways = ways.iter().map(|(name, reached)| format!("{name} ran {}", reached.0));
    format!(
        "Last written on Linux {}, cgroups {cgroups}. Agents of {}.",
        release.trim(),
        ways.collect::<Vec<_>>().join("; of ")
    )
}
