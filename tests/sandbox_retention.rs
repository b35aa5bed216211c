//! Which sandboxes go, which never do, and what is saved before.
#![expect(clippy::unwrap_used, reason = "tests")]

mod command;
#[path = "support/git_place.rs"]
mod git_place;
#[path = "support/rows.rs"]
mod rows;

use std::{fs, path::PathBuf, time::Duration};

use archon_awo::{
    clock::Clock,
    config::{Config, Host, RetentionPolicy},
    domain::{Credentials, JobState, RemoteRules},
    git::Sandbox,
    maintenance::{Action, Item, SandboxPolicy, Sandboxes, Sweep, SweepReport, Urgency},
    store::Store,
};
use command::Program;
use git_place::{Place, branch};
use rows::{job_in, run, set_state, text};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_hours(24);
const POLICY: RetentionPolicy = RetentionPolicy {
    completed: Some(DAY),
    failed: Some(DAY),
    cancelled: Some(DAY),
    orphans: Some(DAY),
};

/// A volume, a remote and a database with orders.
struct Setting {
    pool: PgPool,
    place: Place,
    sandboxes: Sandboxes,
}

impl Setting {
    fn new(pool: PgPool) -> Self {
        let place = Place::new();
        let sandboxes = Sandboxes {
            store: Store::new(pool.clone()),
            git: place.git.clone(),
            work_orders: place.path("work-orders"),
            remotes: RemoteRules { allowed_hosts: Vec::new(), allow_local: true },
            credentials: Credentials::default(),
            inheritable: std::collections::BTreeMap::new(),
            archive: None,
            users: None,
            clock: Clock::system(),
        };
        Self { pool, place, sandboxes }
    }

    /// An order in a state, which it has had for two days, and its sandbox.
    async fn order(&self, state: JobState) -> (String, Sandbox) {
        let (order, job) = job_in(&self.pool, state).await;
        let age = format!(
            "UPDATE awo.jobs SET created_at = created_at - interval '2 days',
                 finished_at = finished_at - interval '2 days' WHERE id = {job}"
        );
        run(&self.pool, &age).await.unwrap();
        let sandbox = self.sandbox(&order).await;
        (order, sandbox)
    }

    async fn sandbox(&self, order: &str) -> Sandbox {
        let git = &self.place.git;
        let mirror = git.refresh_mirror(&self.place.remote()).await.unwrap();
        let name = branch(&format!("feat/{order}"));
        git.open_sandbox(&mirror, &order.parse().unwrap(), &name, None).await.unwrap()
    }

    async fn sweep(&self, policy: RetentionPolicy, urgency: Urgency) -> SweepReport {
        self.sweep_with(policy, urgency, false).await
    }

    async fn sweep_with(
        &self,
        policy: RetentionPolicy,
        urgency: Urgency,
        unknown: bool,
    ) -> SweepReport {
        let sweep = Sweep { policy, history_days: Some(90), urgency, unknown, dry_run: false };
        self.sandboxes.sweep(&sweep, &|_, _| (), &CancellationToken::new()).await.unwrap()
    }

    fn volume(&self) -> PathBuf {
        self.place.path("volume")
    }

    fn program(&self) -> Program {
        let path = |name: &str| self.place.path(name).to_str().unwrap().to_owned();
        Program::on(&self.pool)
            .with("AWO_REPOSITORY_DIR", &path("volume"))
            .with("AWO_WORK_ORDER_DIR", &path("work-orders"))
            .with("AWO_ALLOW_LOCAL_REMOTES", "true")
    }
}

fn item<'a>(report: &'a SweepReport, order: &str) -> &'a Item {
    report.items.iter().find(|item| item.order == order).unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_ended_long_ago_goes_and_what_is_open_or_not_ours_stays(pool: PgPool) {
    let setting = Setting::new(pool);
    let mut expected = Vec::new();
    for state in JobState::ALL {
        let over = matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled);
        let (order, sandbox) = setting.order(state).await;
        expected.push((order, sandbox.root, if over { Action::Removed } else { Action::Kept }));
    }
    let (young, _) = job_in(&setting.pool, JobState::Failed).await;
    expected.push((young.clone(), setting.sandbox(&young).await.root, Action::Kept));
    // Folders that others made, one with the name of an order that ended.
    let (foreign, _) = job_in(&setting.pool, JobState::Cancelled).await;
    run(
        &setting.pool,
        "UPDATE awo.jobs SET finished_at = finished_at - interval '30 days'
         WHERE state = 'cancelled'",
    )
    .await
    .unwrap();
    for name in [foreign.as_str(), "photos"] {
        fs::create_dir(setting.volume().join(name)).unwrap();
        fs::write(setting.volume().join(name).join("file"), "precious").unwrap();
    }
    expected.push((foreign.clone(), setting.volume().join(&foreign), Action::Kept));

    let report = setting.sweep(POLICY, Urgency::Scheduled).await;
    for (order, root, action) in &expected {
        let item = item(&report, order);
        assert_eq!(item.action, *action, "{item:?}");
        assert_eq!(root.exists(), *action == Action::Kept, "{item:?}");
        let trusted = setting.volume().join(format!(".cache/trusted/{order}.git"));
        assert_eq!(trusted.exists(), *action == Action::Kept && *order != foreign, "{item:?}");
    }
    assert!(setting.volume().join("photos/file").exists());
    assert!(item(&report, &foreign).reason.as_deref().unwrap().contains("no .archon-sandbox"));
    assert_eq!(fs::read_dir(setting.volume().join(".trash")).unwrap().count(), 0);
    assert_eq!(report.count(Action::Removed), 3);

    // Nearly full: what is young goes too, what is open does not.
    let report = setting.sweep(POLICY, Urgency::Pressing).await;
    assert_eq!(item(&report, &young).action, Action::Removed);
    assert_eq!(report.count(Action::Removed), 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn unpushed_work_is_saved_first_and_can_be_restored(pool: PgPool) {
    let setting = Setting::new(pool);
    let (failed, sandbox) = setting.order(JobState::Failed).await;
    fs::write(sandbox.checkout.join("work.txt"), "hours of work\n").unwrap();
    let (done, pushed) = setting.order(JobState::Succeeded).await;
    fs::write(pushed.checkout.join("work.txt"), "pushed\n").unwrap();
    pushed.commit("feat: work").await.unwrap().unwrap();
    pushed.push(&setting.place.remote(), &[]).await.unwrap();

    let report = setting.sweep(POLICY, Urgency::Scheduled).await;
    assert_eq!(report.count(Action::Removed), 2, "{report:?}");
    assert_eq!(item(&report, &done).saved, None, "the remote has it");
    let id = failed.parse().unwrap();
    let saved = setting.sandboxes.store.artifacts(&failed).await.unwrap().pop().unwrap();
    assert_eq!(
        (saved.artifact_type.as_str(), &saved.path),
        ("bundle", &item(&report, &failed).saved)
    );
    let file = setting.place.path("work-orders").join(saved.path.unwrap());
    assert_eq!(fs::metadata(&file).unwrap().len(), u64::try_from(saved.size_bytes).unwrap());

    let git = &setting.place.git;
    let mirror = git.refresh_mirror(&setting.place.remote()).await.unwrap();
    let restored = git.restore_sandbox(&mirror, &id, &sandbox.branch, None, &file).await.unwrap();
    let text = fs::read_to_string(restored.checkout.join("work.txt")).unwrap();
    assert_eq!(text, "hours of work\n");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_sandbox_whose_work_cannot_be_saved_or_that_somebody_holds_stays(pool: PgPool) {
    let setting = Setting::new(pool);
    let (failed, sandbox) = setting.order(JobState::Failed).await;
    fs::write(sandbox.checkout.join("work.txt"), "hours of work\n").unwrap();
    let (held, agent) = setting.order(JobState::Cancelled).await;
    let lock = fs::File::create(agent.root.join(".lock")).unwrap();
    lock.lock().unwrap();
    fs::write(setting.place.path("work-orders"), "a file is in the way").unwrap();

    let report = setting.sweep(POLICY, Urgency::Pressing).await;
    assert_eq!(item(&report, &failed).action, Action::Failed);
    let reason = item(&report, &failed).reason.clone().unwrap();
    assert!(reason.starts_with("its work cannot be saved, so it stays: "), "{reason}");
    assert_eq!(item(&report, &held).action, Action::Busy);
    assert!(sandbox.checkout.join("work.txt").exists() && agent.checkout.exists());

    drop(lock);
    fs::remove_file(setting.place.path("work-orders")).unwrap();
    let report = setting.sweep(POLICY, Urgency::Scheduled).await;
    assert_eq!(report.count(Action::Removed), 2, "{report:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_that_is_requeued_meanwhile_finds_its_sandbox_whole_or_not_at_all(pool: PgPool) {
    let setting = Setting::new(pool);
    let (order, sandbox) = setting.order(JobState::Failed).await;
    fs::write(sandbox.checkout.join("work.txt"), "work\n").unwrap();
    let other = setting.order(JobState::Failed).await.0.parse().unwrap();
    let (git, url) = (setting.place.git.clone(), setting.place.remote().url);
    let id = order.parse().unwrap();
    let claim = git.claim_sandbox(&id).await.unwrap().unwrap();
    assert!(git.claim_sandbox(&id).await.unwrap().is_none(), "one at a time");
    let discarded = claim.discard().await.unwrap();
    assert!(!sandbox.root.exists());
    // A worker that resumes the order waits for the answer, and other replicas leave the trash alone.
    let finding = tokio::spawn({
        let (git, id, url) = (git.clone(), id.clone(), url.clone());
        async move { git.find_sandbox(&id, &url).await.unwrap() }
    });
    assert_eq!(git.empty_trash().await.unwrap().entries, 0);
    // Whoever looks for a sandbox that nobody holds has it by now, three times over.
    for _ in 0..3 {
        assert!(git.find_sandbox(&other, &url).await.unwrap().is_some());
    }
    assert!(!finding.is_finished());
    discarded.put_back().await.unwrap();
    let found = finding.await.unwrap().expect("it is whole again");
    assert_eq!(fs::read_to_string(found.checkout.join("work.txt")).unwrap(), "work\n");
    assert!(found.head().await.unwrap().is_none());

    // What a process leaves that is killed after the move: a clean absence, and work for the next.
    let discarded = git.claim_sandbox(&id).await.unwrap().unwrap().discard().await.unwrap();
    drop(discarded);
    assert!(git.find_sandbox(&id, &url).await.unwrap().is_none());
    assert!(git.empty_trash().await.unwrap().entries > 5);
    assert_eq!(fs::read_dir(setting.volume().join(".trash")).unwrap().count(), 0);

    // Requeued before anything was done.
    let (order, sandbox) = setting.order(JobState::Failed).await;
    let job = format!(
        "SELECT awo_job_id::text FROM agent_work_orders WHERE agent_work_order_id = '{order}'"
    );
    let job = text(&setting.pool, &job).await.unwrap().parse().unwrap();
    set_state(&setting.pool, job, JobState::Queued).await.unwrap();
    let report = setting.sweep(POLICY, Urgency::Pressing).await;
    assert_eq!(item(&report, &order).action, Action::Kept);
    assert!(sandbox.checkout.exists());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn folders_of_orders_this_database_never_had_go_on_request_alone_and_with_their_work_saved(
    pool: PgPool,
) {
    let setting = Setting::new(pool);
    let sandbox = setting.sandbox("wo-forgotten").await;
    fs::write(sandbox.checkout.join("work.txt"), "work\n").unwrap();
    let report = setting.sweep_with(POLICY, Urgency::Pressing, true).await;
    assert_eq!(item(&report, "wo-forgotten").action, Action::Kept, "it is young");
    let short = RetentionPolicy { orphans: Some(Duration::ZERO), ..POLICY };
    for urgency in [Urgency::Scheduled, Urgency::Pressing] {
        let report = setting.sweep(short, urgency).await;
        let item = item(&report, "wo-forgotten");
        assert_eq!(item.action, Action::Kept, "{item:?}");
        assert!(item.reason.as_ref().unwrap().contains("gc --unknown"), "{item:?}");
    }
    let report = setting.sweep_with(short, Urgency::Scheduled, true).await;
    let item = item(&report, "wo-forgotten");
    assert_eq!(item.action, Action::Removed, "{item:?}");
    let saved = setting.place.path("work-orders").join(item.saved.as_ref().unwrap());
    assert!(saved.exists(), "its files stay as long as history does");
    assert!(report.order_folders.is_empty());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_sandbox_of_a_deleted_order_goes_after_its_time_with_its_work_saved(pool: PgPool) {
    let setting = Setting::new(pool);
    let (order, sandbox) = setting.order(JobState::Failed).await;
    fs::write(sandbox.checkout.join("work.txt"), "work\n").unwrap();
    run(&setting.pool, "DELETE FROM agent_work_orders").await.unwrap();
    let keep = RetentionPolicy { orphans: None, ..POLICY };
    for policy in [POLICY, keep] {
        let report = setting.sweep(policy, Urgency::Scheduled).await;
        assert_eq!(item(&report, &order).action, Action::Kept);
    }
    let aged = "UPDATE awo.deleted_orders SET deleted_at = deleted_at - interval '2 days'";
    run(&setting.pool, aged).await.unwrap();
    let report = setting.sweep(POLICY, Urgency::Scheduled).await;
    let item = item(&report, &order);
    assert_eq!((item.action, item.status.as_deref()), (Action::Removed, None), "{item:?}");
    let saved = setting.place.path("work-orders").join(item.saved.as_ref().unwrap());
    assert!(saved.exists() && !sandbox.root.exists());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_change_of_the_settings_counts_without_a_restart_and_nonsense_does_not(pool: PgPool) {
    let store = Store::new(pool.clone());
    let home = tempfile::tempdir().unwrap();
    let host = Host::with([("HOME", home.path().to_str().unwrap())]);
    let policy = SandboxPolicy::new(Config::load(&host).unwrap().retention);
    let week = Some(7 * DAY);
    let all = RetentionPolicy { completed: week, failed: week, cancelled: week, orphans: week };
    assert_eq!(policy.current(&store).await, all);
    let file = home.path().join(".archon/config/agent-settings.yaml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "awo_retention_completed: 12h\nawo_retention_failed: off\n").unwrap();
    let half = Some(DAY / 2);
    let changed = RetentionPolicy { completed: half, failed: None, ..all };
    assert_eq!(policy.current(&store).await, changed);
    run(&pool, "INSERT INTO archon_settings (key, value, category)
         VALUES ('awo_retention_days', '3', 'agent_work_orders'), ('awo_retention_failed', '1h', 'x')")
        .await
        .unwrap();
    let rows = RetentionPolicy {
        completed: half,
        failed: Some(Duration::from_hours(1)),
        cancelled: Some(3 * DAY),
        orphans: Some(3 * DAY),
    };
    assert_eq!(policy.current(&store).await, rows);
    run(&pool, "UPDATE archon_settings SET value = 'soon' WHERE key = 'awo_retention_days'")
        .await
        .unwrap();
    assert_eq!(policy.current(&store).await, rows, "what is nonsense does not count");
    run(&pool, "DELETE FROM archon_settings WHERE key LIKE 'awo_retention_%'").await.unwrap();
    fs::write(&file, "awo_retention_completed: whenever\n").unwrap();
    assert_eq!(policy.current(&store).await, rows);
    fs::remove_file(&file).unwrap();
    assert_eq!(policy.current(&store).await, all);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn gc_says_what_would_go_and_then_takes_it_away(pool: PgPool) {
    let setting = Setting::new(pool);
    let (failed, sandbox) = setting.order(JobState::Failed).await;
    fs::write(sandbox.checkout.join("work.txt"), "work\n").unwrap();
    let (running, busy) = setting.order(JobState::Running).await;
    let program = setting.program().with("AWO_RETENTION_FAILED", "1d");

    let plan = program.run(&["gc", "--dry-run", "--json"]).json();
    let action = |document: &serde_json::Value, order: &str| {
        let items = document["items"].as_array().unwrap().clone();
        let item = items.into_iter().find(|item| item["order"] == order).unwrap();
        item["action"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (action(&plan, &failed), action(&plan, &running)),
        ("would_remove".into(), "kept".into())
    );
    assert!(sandbox.root.exists() && !setting.place.path("work-orders").exists());

    let ran = program.run(&["gc"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("1 removed"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains(&format!("1/1 {failed} removed, work saved in {failed}/bundles/")),
        "{}",
        ran.stderr
    );
    assert!(!sandbox.root.exists() && busy.checkout.exists());
    assert!(program.run(&["gc"]).stdout.contains("0 removed"));
}
