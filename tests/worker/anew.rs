//! `awo_requeue(id, from_step => 'create-branch')`: the order begins anew, and nothing of before is lost.

use std::fs;

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::{halt::Halt, harness::Harness};

const ADDS: &str = "[ \"$AWO_STEP\" = execute ] && echo run > \"added-$AWO_ATTEMPT.txt\"\ntrue\n";

impl Harness {
    fn main_moves_on(&self) {
        fs::write(self.path("seed/of-main.txt"), "1\n").unwrap();
        self.git(&["-C", "seed", "checkout", "--quiet", "main"]);
        self.git(&["-C", "seed", "add", "--all"]);
        self.git(&["-C", "seed", "commit", "--quiet", "--message=Main moves on"]);
        self.git(&["-C", "seed", "push", "--quiet", "origin", "main"]);
    }

    fn begin_anew(&self, order: &str) {
        let (code, said) = self.command(&["requeue", order, "--from-step", "create-branch"]);
        assert_eq!(code, Some(0), "{said}");
    }

    async fn anew_until(&self, order: &str, status: &str) {
        self.until("select status in ('pending', 'running') from agent_work_orders").await;
        self.until_status(order, status).await;
    }

    /// Fails unless the branch is one commit on the present `main` with these files of the order.
    fn assert_fresh(&self, files: &[&str]) {
        let (branches, pulls) = self.deliveries();
        assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
        let parent = self.git(&["-C", "remote.git", "rev-parse", &format!("{}^", branches[0])]);
        assert_eq!(parent, self.git(&["-C", "remote.git", "rev-parse", "main"]));
        let changed = self.git(&["-C", "remote.git", "diff", "--name-only", "main", &branches[0]]);
        assert_eq!(changed.lines().collect::<Vec<_>>(), files);
        let pull = self.git(&["-C", "remote.git", "rev-parse", &pulls[0]]);
        assert_eq!(pull, self.git(&["-C", "remote.git", "rev-parse", &branches[0]]));
    }

    /// Names of the files in the last bundle of the order.
    async fn saved(&self) -> String {
        let bundle: String = sqlx::query_scalar(
            "select path from agent_work_order_artifacts where artifact_type = 'bundle' order by id desc limit 1",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        let bundle = self.path("work-orders").join(bundle);
        let bundle = bundle.to_str().unwrap();
        self.git(&["-C", "seed", "fetch", "--quiet", bundle, "+refs/awo/bundle/files:refs/saved"]);
        self.git(&["-C", "seed", "ls-tree", "-r", "--name-only", "refs/saved"])
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn work_that_was_never_pushed_is_saved_and_done_anew(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", ADDS);
    harness.tell_agent("fail-prp-review", "1");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    fs::remove_file(harness.path("agent/fail-prp-review")).unwrap();
    harness.main_moves_on();
    harness.begin_anew(&order);
    harness.anew_until(&order, "completed").await;
    let own = format!("{order}.txt");
    harness.assert_fresh(&["added-2.txt", &own]);
    assert!(harness.saved().await.contains("added-1.txt"));
    let (_, log) = harness.command(&["logs", &order, "--json"]);
    assert!(log.contains("work_saved"), "{log}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_was_pushed_is_saved_and_replaced_on_the_same_branch(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", ADDS);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    harness.tell_agent("fail-execute", "1");
    let (code, said) = harness.command(&["prompt", &order, "More"]);
    assert_eq!(code, Some(0), "{said}");
    harness.anew_until(&order, "failed").await;
    fs::remove_file(harness.path("agent/fail-execute")).unwrap();
    harness.begin_anew(&order);
    harness.anew_until(&order, "completed").await;
    let own = format!("{order}.txt");
    harness.assert_fresh(&["added-3.txt", &own]);
    assert!(harness.saved().await.contains("added-1.txt"));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_lost_sandbox_does_not_bring_the_old_work_back(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", ADDS);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("planning").await;
    fs::write(harness.path("remote.git/awo"), "in the way").unwrap();
    harness.until_status(&order, "failed").await;
    assert_eq!(harness.deliveries().0.len(), 1);
    fs::remove_file(harness.path("remote.git/awo")).unwrap();
    fs::remove_dir_all(harness.path("repositories")).unwrap();
    harness.hold("execute");
    harness.begin_anew(&order);
    let waits =
        "select exists (select from awo.steps where step_name = 'execute' and finished_at is null)";
    harness.until(waits).await;
    assert!(harness.saved().await.contains("added-1.txt"), "saved from the remote");
    // Lost once more, in the middle of the new work.
    let (code, said) = harness.command(&["cancel", &order]);
    assert!(code.is_some(), "{said}");
    harness.until_status(&order, "cancelled").await;
    harness.let_go("execute");
    fs::remove_dir_all(harness.path("repositories")).unwrap();
    let (code, said) = harness.command(&["requeue", &order]);
    assert_eq!(code, Some(0), "{said}");
    harness.anew_until(&order, "completed").await;
    let (branches, _) = harness.deliveries();
    let files = harness.git(&["-C", "remote.git", "ls-tree", "--name-only", &branches[0]]);
    assert!(!files.contains("added-1.txt") && files.contains("added-"), "{files}");
    let count = format!("main..{}", branches[0]);
    assert_eq!(harness.git(&["-C", "remote.git", "rev-list", "--count", &count]).trim(), "1");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_branch_with_a_persons_commits_is_not_begun_anew(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", ADDS);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("planning").await;
    fs::write(harness.path("remote.git/awo"), "in the way").unwrap();
    harness.until_status(&order, "failed").await;
    fs::remove_file(harness.path("remote.git/awo")).unwrap();
    let branch = harness.deliveries().0[0].trim_start_matches("refs/heads/").to_owned();
    harness.git(&["-C", "seed", "fetch", "--quiet", "origin"]);
    harness.git(&["-C", "seed", "checkout", "--quiet", "-b", "mine", &format!("origin/{branch}")]);
    harness.git(&["-C", "seed", "commit", "--quiet", "--allow-empty", "--message=Review"]);
    harness.git(&["-C", "seed", "push", "--quiet", "origin", &format!("mine:{branch}")]);
    let theirs = harness.git(&["-C", "remote.git", "rev-parse", &branch]);
    let runs = harness.agent_runs().len();
    harness.begin_anew(&order);
    harness.anew_until(&order, "failed").await;
    let (_, class, message, attempts) = harness.outcome(&order).await;
    let message = message.unwrap();
    assert_eq!((class.as_deref(), attempts), (Some("git"), 1), "{message}");
    assert!(message.contains(&branch) && message.contains(&theirs[..12]), "{message}");
    assert_eq!(harness.agent_runs().len(), runs);
    assert_eq!(harness.git(&["-C", "remote.git", "rev-parse", &branch]), theirs);
    let checkout = harness.path(&format!("repositories/{order}/remote/added-1.txt"));
    assert!(checkout.exists(), "the sandbox is as it was");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_kill_while_an_order_begins_anew_changes_nothing(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", ADDS);
    harness.tell_agent("fail-prp-review", "1");
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    fs::remove_file(harness.path("agent/fail-prp-review")).unwrap();
    harness.main_moves_on();
    let halt = Halt::at(&harness.pool, "create-branch", true).await;
    harness.begin_anew(&order);
    halt.until_reached(&harness).await;
    harness.signal(worker, Signal::SIGKILL);
    harness.ended(worker).await;
    halt.end_statement(&harness.pool).await;
    halt.lift(&harness.pool).await;
    harness.start_worker();
    harness.anew_until(&order, "completed").await;
    let own = format!("{order}.txt");
    harness.assert_fresh(&["added-2.txt", &own]);
    assert!(harness.saved().await.contains("added-1.txt"));
    let bundles: i64 = sqlx::query_scalar(
        "select count(*) from agent_work_order_artifacts where artifact_type = 'bundle'",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(bundles, 1, "saved once");
    harness.assert_sound().await;
}
