//! The ports of running orders: told to the agent, never shared, never committed.

use std::{collections::HashSet, fs};

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::{
    harness::{Harness, until},
    ports_alone::ports_alone,
};

/// Writes down what the agent was told, and does its worst to have the file committed.
const NOTE_PORTS: &str = r#"
[ "$AWO_STEP" = execute ] || return 0
cp .ports.env "$folder/file-$AWO_WORK_ORDER_ID" 2>/dev/null
env | grep '^PORT' | sort > "$folder/.part-$AWO_RUN_ID"
git status --porcelain > "$folder/status-$AWO_WORK_ORDER_ID"
mv "$folder/.part-$AWO_RUN_ID" "$folder/ports-$AWO_WORK_ORDER_ID-$AWO_ATTEMPT"
git add --force --all && git commit --quiet --message=mine
while [ -e "$folder/hold-after" ]; do sleep 0.05; done
"#;
const STEPS: &str = "create-branch planning execute commit";

fn told(harness: &Harness, order: &str, attempt: u32) -> Vec<String> {
    let note = harness.path(&format!("agent/ports-{order}-{attempt}"));
    fs::read_to_string(note).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn value(told: &[String], name: &str) -> u16 {
    let line = told.iter().find_map(|line| line.strip_prefix(&format!("{name}=")));
    line.unwrap_or_else(|| panic!("no {name} in {told:?}")).parse().unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn orders_of_two_workers_have_ports_of_their_own_which_are_never_committed(pool: PgPool) {
    let _turn = ports_alone();
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", NOTE_PORTS);
    harness.hold("after");
    // Just enough for all: nobody may be refused, nobody may share.
    harness.set("AWO_PORT_RANGE", "19500-19539");
    harness.set("AWO_MAX_CONCURRENT", "2");
    sqlx::query("select awo_set_repository_limit($1, 4)")
        .bind(harness.remote_url())
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.start_worker();
    harness.start_worker();
    let orders = ["wo-a", "wo-b", "wo-c", "wo-d"];
    for order in orders {
        harness.order_named(order, "Write a file", STEPS).await;
    }
    until("four agents", || orders.iter().all(|id| !told(&harness, id, 1).is_empty())).await;
    let mut ports = HashSet::new();
    for order in orders {
        let told = told(&harness, order, 1);
        let (first, last) = (value(&told, "PORT_RANGE_START"), value(&told, "PORT_RANGE_END"));
        assert_eq!((value(&told, "PORT"), value(&told, "PORT_RANGE_SIZE")), (first, 10));
        assert_eq!((value(&told, "PORT_0"), value(&told, "PORT_9")), (first, last));
        assert!((first..=last).all(|port| ports.insert(port)), "{order} shares ports: {told:?}");
        let file = fs::read_to_string(harness.path(&format!("agent/file-{order}"))).unwrap();
        let mut lines: Vec<String> =
            file.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, told);
        let status = fs::read_to_string(harness.path(&format!("agent/status-{order}"))).unwrap();
        assert_eq!(status, "", "the agent's own git sees the file");
    }
    assert_eq!(ports.len(), 40);
    harness.let_go("after");
    for order in orders {
        harness.until_status(order, "completed").await;
    }
    let (branches, _) = harness.deliveries();
    assert_eq!(branches.len(), 4);
    for branch in branches {
        let files = harness.git(&["-C", "remote.git", "ls-tree", "-r", "--name-only", &branch]);
        assert!(files.contains("wo-") && !files.contains(".ports.env"), "{branch}: {files}");
    }
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_ports_file_of_the_repository_is_its_own(pool: PgPool) {
    let mut harness = Harness::new(pool);
    fs::write(harness.path("seed/.ports.env"), "MINE=1\n").unwrap();
    for arguments in [
        &["add", "--force", ".ports.env"][..],
        &["commit", "--quiet", "--message=Ports"],
        &["push", "--quiet", "origin", "main"],
    ] {
        harness.git(&[&["-C", "seed"], arguments].concat());
    }
    let note = "env | grep ^PORT= > \"$folder/port\"";
    let change = "[ \"$AWO_STEP\" = execute ] && echo MORE=1 >> .ports.env";
    harness.tell_agent("extra", &format!("{note}; {change}"));
    harness.start_worker();
    harness.order_named("wo-own", "Write a file", STEPS).await;
    harness.until_status("wo-own", "completed").await;
    assert!(fs::read_to_string(harness.path("agent/port")).unwrap().starts_with("PORT="));
    let (branches, _) = harness.deliveries();
    let file = harness.git(&["-C", "remote.git", "show", &format!("{}:.ports.env", branches[0])]);
    assert_eq!(file, "MINE=1\nMORE=1\n");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_keeps_its_ports_when_its_worker_is_killed(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", NOTE_PORTS);
    harness.hold("after");
    let first = harness.start_worker();
    harness.order_named("wo-kept", "Write a file", STEPS).await;
    until("the ports", || !told(&harness, "wo-kept", 1).is_empty()).await;
    harness.signal(first, Signal::SIGKILL);
    // What was noted decides, not the name alone.
    let note = harness.path("work-orders/wo-kept/ports");
    let before = value(&told(&harness, "wo-kept", 1), "PORT");
    assert_eq!(fs::read_to_string(&note).unwrap().trim(), before.to_string());
    let other = if before == 29_990 { 29_980 } else { 29_990 };
    fs::write(&note, format!("{other}\n")).unwrap();
    harness.start_worker();
    until("the ports again", || !told(&harness, "wo-kept", 2).is_empty()).await;
    assert_eq!(value(&told(&harness, "wo-kept", 2), "PORT"), other);
    harness.let_go("after");
    harness.until_status("wo-kept", "completed").await;
    harness.assert_sound().await;
}
