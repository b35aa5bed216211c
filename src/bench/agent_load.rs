//! What it costs a busy agent to be shut in and held together: the same program by a real shim, with isolation
//! and without, turn and turn about.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Measurement, Progress, agent::AgentBench, median};
use crate::{
    agent::{
        AgentKind, AgentRequest, CommandSettings, KillPlan, LeaseSignal, Limits, Supervisor,
        find_freezer,
    },
    clock::{Clock, boot_time},
    config::{Freezer, IsolationConfig, IsolationMode},
    domain::{Redactor, StepName, Task},
};

/// Longest time of one run.
const LONGEST: Duration = Duration::from_hours(1);

/// A way to hold agents: what is asked for, and the names of its values.
struct Way {
    freezer: Freezer,
    starts: &'static str,
    command: &'static str,
}

const WAYS: [Way; 2] = [
    Way { freezer: Freezer::Cgroup, starts: "starts_cgroup", command: "command_cgroup" },
    Way { freezer: Freezer::Ptrace, starts: "starts_ptrace", command: "command_ptrace" },
];

/// Thousands of process starts, and the command that was asked for, in each way this host lets us.
pub(super) async fn run(
    plan: &AgentBench,
    folder: &Path,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<Measurement>> {
    let script = folder.join("starts.sh");
    let lines = format!("i=0\nwhile [ $i -lt {} ]; do /bin/true; i=$((i+1)); done\n", plan.starts);
    fs::write(&script, lines).with_context(|| script.display().to_string())?;
    let starts = format!("/bin/sh {}", script.display());
    let mut results = Vec::new();
    for way in WAYS.iter().filter(|way| find_freezer(&plan.program, way.freezer).is_ok()) {
        let loads = [(way.starts, Some(&starts)), (way.command, plan.command.as_ref())];
        for (name, line) in loads {
            let Some(line) = line else { continue };
            let (mut ours, mut floor) = (Vec::new(), Vec::new());
            for round in 0..plan.load_rounds {
                (progress)(name, round, plan.load_rounds);
                let isolation = IsolationConfig::default();
                ours.push(one(plan, folder, clock, line, isolation, way.freezer).await?);
                let off =
                    IsolationConfig { mode: IsolationMode::Off, ..IsolationConfig::default() };
                floor.push(one(plan, folder, clock, line, off, Freezer::Signal).await?);
            }
            results.push(Measurement::new(name, "s", median(&ours), median(&floor)));
        }
    }
    Ok(results)
}

/// Runs it once and answers how many seconds that took, from its order to the end of its last process.
async fn one(
    plan: &AgentBench,
    folder: &Path,
    clock: &Clock,
    line: &str,
    mut isolation: IsolationConfig,
    freezer: Freezer,
) -> anyhow::Result<f64> {
    let root = folder.join(Uuid::new_v4().simple().to_string());
    let checkout = root.join("checkout");
    fs::create_dir_all(&checkout).with_context(|| checkout.display().to_string())?;
    isolation.read_paths.push(folder.to_owned());
    let request = AgentRequest {
        order: "wo-bench".parse().map_err(anyhow::Error::msg)?,
        step: StepName::Execute,
        task: Task::Change,
        attempt: 1,
        run_id: Uuid::new_v4(),
        checkout,
        home: root.join("home"),
        tmp: root.join("tmp"),
        spool: root.join("spool"),
        sandbox_root: root.clone(),
        renew: false,
        objects: Vec::new(),
        trusted: false,
        unguided: false,
        prompt: String::new(),
        session: Uuid::new_v4(),
        resume: false,
        hard_timeout: LONGEST,
        idle_timeout: LONGEST,
        extra_env: Vec::new(),
    };
    let supervisor =
        Supervisor::new(&plan.program, Redactor::default(), clock.clone(), KillPlan::default())
            .with_limits(Limits::default())
            .with_isolation(isolation)
            .with_freezer(freezer);
    let held = watch::Sender::new(LeaseSignal::Held { until: boot_time() + LONGEST });
    let agent = AgentKind::Command(CommandSettings { command_line: line.to_owned() });
    // Nobody reads what it prints; it is in its spool.
    let (output, _) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let report = supervisor.run(&agent, request, held.subscribe(), cancel, output).await;
    let removed = fs::remove_dir_all(&root);
    if let Err(failure) = report.verdict {
        anyhow::bail!("{line} failed: {}", failure.message);
    }
    ensure!(removed.is_ok(), "{} cannot be removed", root.display());
    Ok(report.duration.as_secs_f64())
}
