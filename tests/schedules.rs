//! Schedules: what may be stored, when they fire, and that any number of replicas fire them once.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use archon_awo::{
    clock::Clock,
    queue::Schedules,
    store::{Schedule, Store},
};
use chrono::TimeDelta;
use rows::{count, refusal, run, text};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::Barrier;

const PAYLOAD: &str =
    r#"{"repository_url": "acme/app", "user_request": "Update the dependencies"}"#;

/// A work order by schedule; `columns` and `values` are added to the statement.
async fn schedule(pool: &PgPool, name: &str, expression: &str, more: &[(&str, &str)]) {
    let columns: Vec<&str> = ["name", "expression", "payload"]
        .into_iter()
        .chain(more.iter().map(|(column, _)| *column))
        .collect();
    let own = [format!("'{name}'"), format!("'{expression}'"), format!("'{PAYLOAD}'")];
    let values: Vec<String> =
        own.into_iter().chain(more.iter().map(|(_, value)| (*value).to_owned())).collect();
    let (columns, values) = (columns.join(", "), values.join(", "));
    let insert = format!("INSERT INTO awo.schedules ({columns}) VALUES ({values})");
    run(pool, &insert).await.unwrap();
}

/// Leaves the database without the schedules it comes with.
async fn only_ours(pool: &PgPool) {
    run(pool, "DELETE FROM awo.schedules").await.unwrap();
}

/// Lets a schedule have been there for as long as `interval`, and nobody having fired it.
async fn age(pool: &PgPool, name: &str, interval: &str) {
    run(pool, "ALTER TABLE awo.schedules DISABLE TRIGGER prepare_schedule").await.unwrap();
    let old = format!(
        "UPDATE awo.schedules SET active_since = now() - interval '{interval}', last_fire_at = NULL
         WHERE name = '{name}'"
    );
    run(pool, &old).await.unwrap();
    run(pool, "ALTER TABLE awo.schedules ENABLE TRIGGER prepare_schedule").await.unwrap();
}

/// A replica of its own: a pool and what looks at the schedules.
async fn replica(pool: &PgPool) -> (Store, Schedules) {
    let options = (*pool.connect_options()).clone();
    let own = PgPoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let store = Store::new(own);
    (store.clone(), Schedules::new(store, Clock::system()))
}

async fn look(pool: &PgPool) -> Option<Duration> {
    Schedules::new(Store::new(pool.clone()), Clock::system()).look().await.unwrap()
}

async fn named(store: &Store, name: &str) -> Schedule {
    let schedules = store.active_schedules().await.unwrap();
    schedules.into_iter().find(|schedule| schedule.name == name).unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn eight_replicas_fire_two_hundred_times_exactly_once(pool: PgPool) {
    only_ours(&pool).await;
    schedule(&pool, "nightly", "* * * * * *", &[]).await;
    let barrier = Arc::new(Barrier::new(8));
    let mut replicas = Vec::new();
    for _ in 0..8 {
        let (store, _) = replica(&pool).await;
        let barrier = Arc::clone(&barrier);
        replicas.push(tokio::spawn(async move {
            let schedule = named(&store, "nightly").await;
            let mut won = 0;
            for second in 1..=200 {
                barrier.wait().await;
                let time = [schedule.after + TimeDelta::seconds(second)];
                won += store.fire_schedule(&schedule, &time).await.unwrap().len();
            }
            won
        }));
    }
    let mut won = Vec::new();
    for replica in replicas {
        won.push(replica.await.unwrap());
    }
    assert_eq!(won.iter().sum::<usize>(), 200, "{won:?}");
    let fires = "SELECT count(DISTINCT fire_at) FROM awo.cron_fires WHERE name = 'nightly'";
    assert_eq!(count(&pool, fires).await, 200);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 200);
    assert_eq!(count(&pool, "SELECT count(*) FROM agent_work_orders").await, 200);
    let pairs =
        "SELECT count(DISTINCT j.id) FROM awo.cron_fires f JOIN awo.jobs j ON j.id = f.job_id";
    assert_eq!(count(&pool, pairs).await, 200, "each fire names its job");
    println!("fires won by each of eight replicas: {won:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn eight_replicas_that_start_after_an_outage_make_up_for_it_once(pool: PgPool) {
    only_ours(&pool).await;
    schedule(
        &pool,
        "each",
        "* * * * *",
        &[("missed_fires", "'catch_up'"), ("catch_up_limit", "100")],
    )
    .await;
    schedule(&pool, "once", "* * * * *", &[]).await;
    schedule(&pool, "never", "* * * * *", &[("missed_fires", "'skip'")]).await;
    for name in ["each", "once", "never"] {
        age(&pool, name, "50 minutes").await;
    }
    let barrier = Arc::new(Barrier::new(8));
    let mut looks = Vec::new();
    for _ in 0..8 {
        let (_, schedules) = replica(&pool).await;
        let barrier = Arc::clone(&barrier);
        looks.push(tokio::spawn(async move {
            barrier.wait().await;
            schedules.look().await.unwrap()
        }));
    }
    for look in looks {
        let next = look.await.unwrap().unwrap();
        assert!(next <= Duration::from_mins(1), "{next:?}");
    }
    let fires = |name| format!("SELECT count(*) FROM awo.cron_fires WHERE name = '{name}'");
    // A minute may have begun while they looked.
    let each = count(&pool, &fires("each")).await;
    assert!((50..=51).contains(&each), "{each}");
    let (once, never) = (count(&pool, &fires("once")).await, count(&pool, &fires("never")).await);
    assert!((1..=2).contains(&once) && (1..=2).contains(&never), "{once} {never}");
    let jobs = count(&pool, "SELECT count(*) FROM awo.jobs").await;
    assert_eq!(jobs, each + once + never);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_schedule_fires_nothing_from_before_it_was_made_changed_or_resumed(pool: PgPool) {
    only_ours(&pool).await;
    schedule(&pool, "yearly", "0 0 1 1 *", &[("active_since", "'2001-01-01'")]).await;
    let next = look(&pool).await.unwrap();
    assert!(next > Duration::ZERO);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 0);

    schedule(&pool, "minutely", "* * * * *", &[]).await;
    age(&pool, "minutely", "3 hours").await;
    run(&pool, "UPDATE awo.schedules SET paused_at = now() WHERE name = 'minutely'").await.unwrap();
    look(&pool).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 0, "it is paused");
    run(&pool, "UPDATE awo.schedules SET paused_at = NULL WHERE name = 'minutely'").await.unwrap();
    let settled = "SELECT count(*) FROM awo.schedules WHERE name = 'minutely' AND active_since > now() - interval '1 minute'";
    assert_eq!(count(&pool, settled).await, 1, "what it missed while paused is not made up for");
    age(&pool, "minutely", "3 hours").await;
    run(&pool, "UPDATE awo.schedules SET time_zone = 'asia/tokyo' WHERE name = 'minutely'")
        .await
        .unwrap();
    assert_eq!(count(&pool, settled).await, 1, "nor what an older wording would have meant");
    let zone = "SELECT time_zone FROM awo.schedules WHERE name = 'minutely'";
    assert_eq!(text(&pool, zone).await.unwrap(), "Asia/Tokyo");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_fire_reckoned_from_a_row_that_changed_is_dropped(pool: PgPool) {
    only_ours(&pool).await;
    schedule(&pool, "s", "* * * * *", &[]).await;
    let store = Store::new(pool.clone());
    let seen = named(&store, "s").await;
    let time = [seen.after + TimeDelta::minutes(1)];
    run(&pool, "UPDATE awo.schedules SET expression = '5 * * * *'").await.unwrap();
    assert_eq!(store.fire_schedule(&seen, &time).await.unwrap(), []);
    let seen = named(&store, "s").await;
    run(&pool, "UPDATE awo.schedules SET paused_at = now()").await.unwrap();
    assert_eq!(store.fire_schedule(&seen, &time).await.unwrap(), []);
    run(&pool, "UPDATE awo.schedules SET paused_at = NULL").await.unwrap();
    assert_eq!(store.fire_schedule(&seen, &time).await.unwrap().len(), 1);
    assert_eq!(store.fire_schedule(&seen, &time).await.unwrap(), []);
    let earlier = [time[0] - TimeDelta::seconds(1)];
    assert_eq!(store.fire_schedule(&seen, &earlier).await.unwrap(), [], "time does not go back");
    // A schedule of the same name made anew does not fire what the old one fired.
    run(&pool, "DELETE FROM awo.schedules").await.unwrap();
    schedule(&pool, "s", "* * * * *", &[]).await;
    let seen = named(&store, "s").await;
    assert_eq!(store.fire_schedule(&seen, &time).await.unwrap(), []);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_schedule_may_wait_for_its_last_job(pool: PgPool) {
    only_ours(&pool).await;
    schedule(
        &pool,
        "s",
        "* * * * *",
        &[("skip_while_open", "true"), ("priority", "7"), ("queue", "'night'")],
    )
    .await;
    let store = Store::new(pool.clone());
    let seen = named(&store, "s").await;
    let time = |minutes| [seen.after + TimeDelta::minutes(minutes)];
    let first = store.fire_schedule(&seen, &time(1)).await.unwrap()[0].job_id.unwrap();
    assert_eq!(store.fire_schedule(&seen, &time(2)).await.unwrap()[0].job_id, None);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 1);
    let kept = "SELECT concat_ws(' ', priority, queue, kind) FROM awo.jobs";
    assert_eq!(text(&pool, kept).await.unwrap(), "7 night work_order");
    rows::set_state(&pool, first, archon_awo::domain::JobState::Cancelled).await.unwrap();
    let later = [time(3)[0], time(4)[0]];
    let fired = store.fire_schedule(&seen, &later).await.unwrap();
    assert_eq!((fired.len(), fired[0].job_id, fired[1].job_id.is_some()), (2, None, true));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_cannot_be_scheduled_is_refused_with_a_sentence(pool: PgPool) {
    let insert = |columns: &str, values: &str| {
        format!("INSERT INTO awo.schedules (name, {columns}) VALUES ('s', {values})")
    };
    let good = format!("'{PAYLOAD}'");
    let cases = [
        ("expression, payload", format!("'at noon', {good}"), "expression is \"at noon\": expected five fields"),
        ("expression, payload", format!("'* * * *', {good}"), "expression is \"* * * *\": expected five fields"),
        ("expression, payload, time_zone", format!("'@daily', {good}, 'Berlin'"), "time_zone is \"Berlin\": expected a name such as Europe/Berlin or UTC"),
        ("expression, payload, missed_fires", format!("'@daily', {good}, 'all'"), "missed_fires is \"all\": expected skip, coalesce or catch_up"),
        ("expression, payload, catch_up_limit", format!("'@daily', {good}, 0"), "catch_up_limit is 0: expected 1 to 100"),
        ("expression, payload, queue", format!("'@daily', {good}, 'A B'"), "queue is \"A B\": expected lower-case letters"),
        ("expression, kind", "'@daily', 'No'".to_owned(), "kind is \"No\": expected lower-case letters"),
        ("expression", "'@daily'".to_owned(), "repository_url is empty: expected https://host/owner/repository"),
        ("expression, payload", "'@daily', '[]'".to_owned(), "payload is of type array: expected an object"),
        ("expression, payload", r#"'@daily', '{"repository_url": "acme/app"}'"#.to_owned(), "user_request is empty"),
        ("expression, payload", r#"'@daily', '{"repository_url": "acme/app", "user_request": "x", "selected_commands": ["commit"]}'"#.to_owned(), "selected_commands has commit without create-branch"),
        ("expression, payload", r#"'@daily', '{"repository_url": "acme/app", "user_request": "x", "agent_work_order_id": "one"}'"#.to_owned(), "payload field agent_work_order_id is set: leave it out"),
        ("expression, payload", r#"'@daily', '{"repository_url": "acme/app", "user_request": "x", "github_issue_number": "seven"}'"#.to_owned(), "github_issue_number is \"seven\": expected a number"),
    ];
    for (columns, values, sentence) in cases {
        let said = refusal(run(&pool, &insert(columns, &values)).await);
        assert!(said.starts_with(sentence), "{values}: {said}");
    }
    schedule(&pool, "s", "@daily", &[]).await;
    let said =
        refusal(run(&pool, "UPDATE awo.schedules SET payload = '{}' WHERE name = 's'").await);
    assert!(said.starts_with("repository_url is empty"), "{said}");
    let said = refusal(run(&pool, "UPDATE awo.schedules SET name = 't' WHERE name = 's'").await);
    assert!(said.starts_with("name of schedule \"s\" cannot change"), "{said}");
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 0, "the trial left nothing");
    assert_eq!(
        count(&pool, "SELECT count(*) FROM awo.repositories").await,
        0,
        "the trial left nothing"
    );
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_only_the_calendar_refuses_is_said_in_the_row_and_stops_nobody_else(pool: PgPool) {
    only_ours(&pool).await;
    schedule(&pool, "bad", "0 25 * * *", &[]).await;
    schedule(&pool, "february", "0 0 30 2 *", &[]).await;
    schedule(&pool, "good", "* * * * *", &[]).await;
    age(&pool, "good", "2 minutes").await;
    assert!(look(&pool).await.unwrap() <= Duration::from_mins(1));
    let error = |name| format!("SELECT last_error FROM awo.schedules WHERE name = '{name}'");
    let said = text(&pool, &error("bad")).await.unwrap();
    assert!(said.starts_with("expression is \"0 25 * * *\": expected five fields"), "{said}");
    let said = text(&pool, &error("february")).await.unwrap();
    assert!(said.ends_with("which never fires again: pause or delete the schedule"), "{said}");
    assert_eq!(text(&pool, &error("good")).await, None);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 1);
    run(&pool, "UPDATE awo.schedules SET expression = '0 23 * * *' WHERE name = 'bad'")
        .await
        .unwrap();
    assert_eq!(text(&pool, &error("bad")).await, None);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_job_that_is_refused_later_is_said_in_the_row_and_made_up_for_when_that_is_mended(
    pool: PgPool,
) {
    only_ours(&pool).await;
    schedule(&pool, "s", "* * * * *", &[]).await;
    age(&pool, "s", "3 minutes").await;
    let defaults = |steps: &str| format!("UPDATE awo.repositories SET default_commands = {steps}");
    run(&pool, "INSERT INTO awo.repositories (repo_key, default_commands) VALUES ('github.com/acme/app', '{commit}')").await.unwrap();
    look(&pool).await;
    let error = "SELECT last_error FROM awo.schedules";
    let said = text(&pool, error).await.unwrap();
    assert!(said.starts_with("selected_commands has commit without create-branch"), "{said}");
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.cron_fires").await, 0);
    run(&pool, &defaults("NULL")).await.unwrap();
    look(&pool).await;
    assert_eq!(text(&pool, error).await, None);
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_change_is_notified_and_a_fire_is_not(pool: PgPool) {
    let mut listener = sqlx::postgres::PgListener::connect_with(&pool).await.unwrap();
    listener.listen("awo_schedules").await.unwrap();
    schedule(&pool, "s", "* * * * *", &[]).await;
    let heard =
        tokio::time::timeout(Duration::from_secs(10), listener.recv()).await.unwrap().unwrap();
    assert_eq!(heard.channel(), "awo_schedules");
    age(&pool, "s", "3 minutes").await;
    look(&pool).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.cron_fires WHERE name = 's'").await, 1);
    let quiet = tokio::time::timeout(Duration::from_millis(300), listener.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_product_s_own_schedules_can_be_read_changed_and_paused(pool: PgPool) {
    let store = Store::new(pool.clone());
    let names = |schedules: Vec<Schedule>| -> BTreeSet<String> {
        schedules.into_iter().map(|schedule| schedule.name).collect()
    };
    let all = names(store.active_schedules().await.unwrap());
    let own = [
        "heartbeat_report",
        "repository_cache_maintenance",
        "rescue_check",
        "retention",
        "sandbox_retention",
    ];
    assert_eq!(all, own.map(str::to_owned).into());
    // One of them is due every ten minutes.
    assert!(look(&pool).await.unwrap() <= Duration::from_mins(10), "all of them can be reckoned");
    let errors = "SELECT count(*) FROM awo.schedules WHERE last_error IS NOT NULL";
    assert_eq!(count(&pool, errors).await, 0);
    run(&pool, "UPDATE awo.schedules SET expression = '@hourly' WHERE name = 'rescue_check'")
        .await
        .unwrap();
    run(&pool, "UPDATE awo.schedules SET paused_at = now() WHERE name = 'retention'")
        .await
        .unwrap();
    assert_eq!(names(store.active_schedules().await.unwrap()).len(), 4);
}
