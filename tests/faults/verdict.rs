//! What came of a run, asked of everybody who could know: the database, the audit beside its rules,
//! the witness, the remotes, the kernel.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    time::Duration,
};

use sqlx::PgPool;

use crate::{
    audit::violations,
    orders::Orders,
    place::Place,
    plan::Fault,
    remote::Delivered,
    witness::{Life, overlaps},
};

/// Seconds after a fault in which a worker may still suffer from it.
const AFTERMATH: f64 = 3.0;
/// How far the clocks of the database and of the witness may be apart, both being this host's.
const CLOCKS: Duration = Duration::from_millis(5);

/// Broken promises, each by its name.
#[derive(Debug, Default, serde::Serialize)]
pub struct Verdict {
    pub orders_lost: Vec<String>,
    pub overlaps: Vec<String>,
    pub outlived_their_lease: Vec<String>,
    pub stale_writes: Vec<String>,
    pub finished_steps_repeated: Vec<String>,
    pub deliveries: Vec<String>,
    pub invariants: Vec<String>,
    pub left_behind: Vec<String>,
    pub workers: Vec<String>,
    pub crash_budget: Vec<String>,
}

impl Verdict {
    /// Every broken promise under its name.
    pub fn all(&self) -> [(&'static str, &[String]); 10] {
        [
            ("orders lost", &self.orders_lost),
            ("overlaps of two owners", &self.overlaps),
            ("agents that outlived their lease", &self.outlived_their_lease),
            ("stale writes accepted", &self.stale_writes),
            ("finished steps repeated", &self.finished_steps_repeated),
            ("missing or duplicate branches and pull requests", &self.deliveries),
            ("rows in awo.invariants", &self.invariants),
            ("processes or locks left behind", &self.left_behind),
            ("workers that failed", &self.workers),
            ("crash budget spent while connections were refused", &self.crash_budget),
        ]
    }

    /// Every broken promise, one a line.
    pub fn broken(&self) -> String {
        let all = self.all();
        let lines = all
            .iter()
            .flat_map(|(name, found)| found.iter().map(move |words| format!("{name}: {words}")));
        lines.collect::<Vec<_>>().join("\n")
    }

    pub fn is_clean(&self) -> bool {
        self.all().iter().all(|(_, found)| found.is_empty())
    }
}

/// Judges a place whose orders have ended and whose workers are gone.
pub async fn judge(place: &Place, orders: &Orders) -> anyhow::Result<Verdict> {
    let lives = place.witness.lives();
    let ends = ends(&place.pool, orders).await?;
    let mut verdict = Verdict {
        orders_lost: lost(orders, &ends),
        overlaps: overlaps(&lives),
        outlived_their_lease: outlived(place, &lives).await?,
        deliveries: deliveries(place, orders, &ends)?,
        left_behind: left_behind(place)?,
        crash_budget: spent_by_the_sick(place).await?,
        ..Verdict::default()
    };
    for (what, words) in violations(&place.pool).await? {
        let repeated = what == "finished step touched";
        let list =
            if repeated { &mut verdict.finished_steps_repeated } else { &mut verdict.stale_writes };
        list.push(words);
    }
    let twice: Vec<String> = sqlx::query_scalar(
        "select agent_work_order_id || ' ' || step_name from agent_work_order_steps
         where success group by agent_work_order_id, step_name having count(*) > 1",
    )
    .fetch_all(&place.pool)
    .await?;
    verdict.finished_steps_repeated.extend(twice);
    verdict.invariants = sqlx::query_scalar("select broken || ' ' || subject from awo.invariants")
        .fetch_all(&place.pool)
        .await?;
    for replica in &place.replicas {
        let process = replica.process().await;
        if process.overdue > 0 {
            verdict.workers.push(format!("{} drains did not end", process.overdue));
        }
    }
    let [panics] = crate::replica::count_logged(&place.folder, ["panicked at"]);
    if panics > 0 {
        verdict.workers.push(format!("{panics} panics in the workers' logs"));
    }
    Ok(verdict)
}

/// Orders that were taken from a worker which lived, because the server refused it connections: it
/// could have renewed their leases, or not have claimed them. What else was done to the worker, or to the
/// server, in the time without a renewal is another reason.
async fn spent_by_the_sick(place: &Place) -> anyhow::Result<Vec<String>> {
    let crashed: Vec<(String, i64, i32, f64, f64)> = sqlx::query_as(
        "select coalesce(j.work_order_id, j.kind), a.epoch, w.pid,
             extract(epoch from a.ended_at)::double precision - a.silent_seconds,
             extract(epoch from a.ended_at)::double precision
         from awo.attempts a join awo.jobs j on j.id = a.job_id
         join awo.workers w on w.worker_id = a.worker_id
         where a.outcome = 'crashed'",
    )
    .fetch_all(&place.pool)
    .await?;
    let happened = place.happened.lock().unwrap().clone();
    let mut found = Vec::new();
    for (order, epoch, pid, silent_since, ended) in crashed {
        let mut owner = None;
        for (number, replica) in place.replicas.iter().enumerate() {
            if replica.process().await.pids.iter().any(|own| i64::from(*own) == i64::from(pid)) {
                owner = Some(number);
            }
        }
        let meanwhile = |from: f64, until: f64| from < ended && until > silent_since - AFTERMATH;
        let refused = happened.iter().any(|(fault, from, until)| {
            matches!(fault, Fault::Refuse { .. }) && meanwhile(*from, *until)
        });
        let excused = happened
            .iter()
            .any(|(fault, from, until)| fault.cuts_off(owner) && meanwhile(*from, *until));
        if refused && !excused {
            found
                .push(format!("{order} epoch {epoch} was taken from worker {owner:?} (pid {pid})"));
        }
    }
    Ok(found)
}

/// How one order ended.
struct End {
    status: String,
    words: String,
    branch: Option<String>,
}

async fn ends(pool: &PgPool, orders: &Orders) -> anyhow::Result<HashMap<String, End>> {
    let rows: Vec<(String, String, String, Option<String>)> = sqlx::query_as(
        "select agent_work_order_id, status, concat_ws(' ', status, error_class, error_message),
             git_branch_name
         from agent_work_orders where agent_work_order_id = any($1)",
    )
    .bind(&orders.accepted)
    .fetch_all(pool)
    .await?;
    let named = |(id, status, words, branch)| (id, End { status, words, branch });
    Ok(rows.into_iter().map(named).collect())
}

fn lost(orders: &Orders, ends: &HashMap<String, End>) -> Vec<String> {
    let judged = orders.accepted.iter().filter_map(|id| match ends.get(id) {
        None => Some(format!("{id} was accepted and is gone")),
        Some(end) => {
            let asked = end.status == "cancelled" && orders.cancelled.contains(id);
            (end.status != "completed" && !asked).then(|| format!("{id}: {}", end.words))
        }
    });
    judged.collect()
}

/// Runs of agents that still ticked when their attempt had ended: whoever ended it, their owner or
/// a rescue, has said that nothing of it runs.
async fn outlived(place: &Place, lives: &[Life]) -> anyhow::Result<Vec<String>> {
    let rows: Vec<(String, String, i32, i64, f64, String)> = sqlx::query_as(
        "select s.agent_work_order_id, s.step_name, s.attempt, a.epoch,
             extract(epoch from a.ended_at)::double precision, a.outcome
         from agent_work_order_steps s
         join agent_work_orders o using (agent_work_order_id)
         join awo.attempts a on a.job_id = o.awo_job_id and a.epoch = s.epoch
         where a.ended_at is not null",
    )
    .fetch_all(&place.pool)
    .await?;
    let ends: HashMap<(String, String, i32), (i64, f64, String)> = rows
        .into_iter()
        .map(|(id, step, attempt, epoch, at, outcome)| ((id, step, attempt), (epoch, at, outcome)))
        .collect();
    let late = lives.iter().filter_map(|life| {
        let (epoch, at, outcome) =
            ends.get(&(life.order.clone(), life.step.clone(), life.attempt))?;
        let over = life.last.checked_sub(place.witness.at(*at) + CLOCKS)?;
        Some(format!(
            "{} {} (run {}, epoch {epoch}, {outcome}) lived {over:?} longer than its attempt",
            life.order, life.step, life.run
        ))
    });
    Ok(late.collect())
}

fn deliveries(
    place: &Place,
    orders: &Orders,
    ends: &HashMap<String, End>,
) -> anyhow::Result<Vec<String>> {
    let mut delivered: BTreeMap<String, Delivered> =
        orders.accepted.iter().map(|id| (id.clone(), Delivered::default())).collect();
    let mut wrong = Vec::new();
    for remote in &place.remotes {
        let mut here: BTreeMap<String, Delivered> =
            orders.accepted.iter().map(|id| (id.clone(), Delivered::default())).collect();
        remote.deliveries(&mut here)?;
        for (id, found) in here {
            for branch in &found.branches {
                if !remote.holds(branch, &id)? {
                    wrong.push(format!("{branch} does not hold one commit with what was ordered"));
                }
            }
            let all = delivered.entry(id).or_default();
            all.branches.extend(found.branches);
            all.pulls.extend(found.pulls);
        }
    }
    for (id, found) in delivered {
        let Some(end) = ends.get(&id) else { continue };
        let counts = (found.branches.len(), found.pulls.len());
        let right = if end.status == "completed" {
            let named = found.branches.first().and_then(|name| name.strip_prefix("refs/heads/"));
            counts == (1, 1) && named == end.branch.as_deref()
        } else {
            counts.0 <= 1 && counts.1 <= 1
        };
        if !right {
            wrong.push(format!("{id} ({}): {found:?}, recorded {:?}", end.status, end.branch));
        }
    }
    Ok(wrong)
}

/// Processes of agents and shims, and locks of sandboxes, when nobody runs any more.
fn left_behind(place: &Place) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let notes = place.folder.join("notes");
    let marker = notes.to_str().unwrap_or_default().as_bytes().to_owned();
    let sandboxes = format!("AWO_SANDBOX={}", place.volume.folder.display()).into_bytes();
    let holds = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|window| window == part);
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let command = read("cmdline");
        if pid != std::process::id()
            && (holds(&command, &marker) || holds(&read("environ"), &sandboxes))
        {
            let words = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("process {pid}: {words}"));
        }
    }
    for entry in fs::read_dir(place.volume.outside(".cache/locks"))?.flatten() {
        let file = File::options().write(true).open(entry.path())?;
        if file.try_lock().is_err() {
            found.push(format!("the sandbox {} is still locked", entry.file_name().display()));
        }
    }
    Ok(found)
}
