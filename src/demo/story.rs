//! What happens in a demo: orders by SQL, the wait for their end, and one replica killed on request.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    DemoArgs,
    place::{Agent, Place},
    progress::{Narrator, Standing},
    report::{Kill, Report},
};
use crate::{clock::Clock, sql};

/// What is ordered, in turn. The scripted agent knows the commands named here.
const REQUESTS: [&str; 6] = [
    "Add a command `count` that prints how many words it reads",
    "Add a command `shout` that prints what it reads in capitals",
    "Add a command `flip` that prints the words of each line from last to first",
    "Add a command `rank` that prints each word with how often it occurs",
    "Add a command `longest` that prints the longest word it reads",
    "Add a command `number` that prints what it reads with a number before each line",
];
/// Time between two looks at the database.
const LOOK: Duration = Duration::from_millis(150);

/// Inserts the orders, follows them to their end and reads the report.
pub async fn tell(
    place: &mut Place,
    args: &DemoArgs,
    clock: &Clock,
    narrator: &mut Narrator,
) -> anyhow::Result<Report> {
    narrator.say(clock.now(), "orders, inserted with plain SQL:");
    for number in 0..usize::from(args.orders) {
        order(place, number, narrator).await?;
    }
    let began = clock.now();
    let limit = match place.agent {
        Agent::Scripted => Duration::from_secs(120 + 5 * u64::from(args.orders)),
        Agent::Claude => Duration::from_hours(2),
    };
    let mut kill: Option<Kill> = None;
    let mut names: HashMap<Uuid, usize> = HashMap::new();
    loop {
        let standings: Vec<Standing> =
            sqlx::query_as(sql!("demo/progress")).fetch_all(&place.pool).await?;
        names.extend(place.workers().await?);
        for standing in &standings {
            let worker = standing.worker_id.and_then(|id| names.get(&id));
            let worker = worker.map_or_else(String::new, |number| format!("replica {number}"));
            narrator.show(clock.now(), standing, &worker);
        }
        if args.kill_one && kill.is_none() {
            kill = kill_inside_execute(place, &names, clock, narrator).await?;
        }
        if standings.iter().all(Standing::has_ended) {
            break;
        }
        place.replicas.check()?;
        if clock.now() - began > limit {
            let open: Vec<_> = standings.iter().filter(|s| !s.has_ended()).map(|s| &s.id).collect();
            bail!("still not finished after {limit:?}: {open:?}");
        }
        clock.sleep(LOOK).await;
    }
    let seconds = (clock.now() - began).as_secs_f64();
    narrator
        .say(clock.now(), format_args!("all orders have ended, {seconds:.1} s after the insert"));
    if args.kill_one && kill.is_none() {
        bail!("no replica was caught inside execute, so none was killed");
    }
    Report::read(place, names, kill, seconds).await
}

/// Inserts one order and prints the statement.
async fn order(place: &Place, number: usize, narrator: &Narrator) -> anyhow::Result<()> {
    let request = match REQUESTS.get(number) {
        Some(request) => (*request).to_owned(),
        None => format!("Write a note about topic {}", number + 1),
    };
    let statement = sql!("demo/insert_order");
    let url = place.remote.url();
    let id: String = sqlx::query_scalar(statement)
        .bind(&url)
        .bind(&request)
        .fetch_one(&place.pool)
        .await
        .context("cannot insert an order")?;
    // No quotes in either value: both are ours.
    let text = statement.replace("$1", &format!("'{url}'")).replace("$2", &format!("'{request}'"));
    narrator.line(&format!("    {}", text.trim_end().replace('\n', "\n    ")));
    narrator.line(&format!("    -> {id}"));
    Ok(())
}

/// Kills the replica of a worker that is inside `execute`, if there is one.
async fn kill_inside_execute(
    place: &mut Place,
    names: &HashMap<Uuid, usize>,
    clock: &Clock,
    narrator: &Narrator,
) -> anyhow::Result<Option<Kill>> {
    let worker: Option<Uuid> =
        sqlx::query_scalar(sql!("demo/executing")).fetch_optional(&place.pool).await?;
    let Some((worker_id, replica)) = worker.and_then(|id| Some((id, *names.get(&id)?))) else {
        return Ok(None);
    };
    let pid = place.replicas.all().iter().find(|r| r.number == replica).map_or(0, |r| r.pid);
    let killed_at: DateTime<Utc> =
        sqlx::query_scalar(sql!("demo/database_time")).fetch_one(&place.pool).await?;
    place.replicas.kill(replica).await?;
    narrator.say(
        clock.now(),
        format_args!(
            "SIGKILL to replica {replica} (process {pid}) inside execute, at {} by the database",
            killed_at.format("%H:%M:%S%.3f UTC")
        ),
    );
    Ok(Some(Kill { replica, pid, worker_id, killed_at, orders: Vec::new() }))
}
