//! What a replica costs that has nothing to do: statements a second and memory.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use sqlx::{ConnectOptions, postgres::PgSslMode};

use super::{
    super::{Measurement, Progress, Scratch, real},
    QueueBench,
    place::Place,
    wire::Wire,
};
use crate::{clock::Clock, process};

/// Time for a worker to start and to prove that it hears notifications.
const WARM_UP: Duration = Duration::from_secs(5);
/// How often its memory is read.
const LOOK: Duration = Duration::from_secs(1);

/// A worker as a process of its own, over connections whose statements are counted.
pub async fn measure(
    plan: &QueueBench,
    place: &Place,
    clock: &Clock,
    progress: Progress<'_>,
) -> anyhow::Result<Vec<Measurement>> {
    place.empty().await?;
    let server = place.options()?;
    let wire = Wire::open(server.get_host().to_owned(), server.get_port()).await?;
    let port = wire.address.port();
    // What is encrypted cannot be counted.
    let options = server.host("127.0.0.1").port(port).ssl_mode(PgSslMode::Disable);
    let folder = Scratch::make(&plan.folder)?;
    let log = fs::File::create(folder.path().join("worker.log"))?;
    let mut worker = process::command(&plan.program)
        .arg("worker")
        .env("PATH", &plan.search_path)
        .env("HOME", folder.path())
        .env("DATABASE_URL", options.to_url_lossy().to_string())
        .env("AWO_CONFIG_DIR", folder.path())
        .env("AWO_REPOSITORY_DIR", folder.path().join("repositories"))
        .env("AWO_WORK_ORDER_DIR", folder.path().join("work-orders"))
        .env("AWO_AGENT", "command")
        .env("AWO_AGENT_COMMAND", "/bin/true")
        .env("ARCHON_AWO_PORT", "0")
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", plan.program.display()))?;
    let pid = worker.id().context("the worker ended at once")?;
    clock.sleep(WARM_UP).await;
    let looks = usize::try_from(plan.idle.as_secs())?.max(1);
    let (before, start) = (wire.statements(), clock.now());
    let mut memory = Vec::with_capacity(looks + 1);
    for look in 0..looks {
        (progress)("idle replica", look, looks);
        memory.push(resident(pid)?);
        clock.sleep(LOOK).await;
    }
    memory.push(resident(pid)?);
    let statements = wire.statements() - before;
    let seconds = (clock.now() - start).as_secs_f64();
    let ended = worker.try_wait()?;
    let words = || fs::read_to_string(folder.path().join("worker.log")).unwrap_or_default();
    ensure!(ended.is_none(), "the idle worker ended: {}", words());
    // It listens, polls and beats: silence would mean that it does nothing of that.
    ensure!(statements > 0, "the idle worker sent nothing: {}", words());
    worker.kill().await?;
    let first = memory.first().copied().unwrap_or_default();
    let most = memory.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Measurement::alone("idle_statements", "per s", real(statements) / seconds),
        // Beside its own start, so that growth shows.
        Measurement::new("idle_memory", "MiB", most, first),
    ])
}

/// Resident memory of a process, in MiB.
fn resident(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(real(kib.with_context(|| format!("{path} has no VmRSS"))?) / 1024.0)
}
