//! Orders that go on after their end: in the same sandbox, or in one made again from what was saved.

use std::fs;

use sqlx::PgPool;

use crate::harness::Harness;

/// An agent that adds a file for each run of `execute`.
const ADDS: &str =
    r#"[ "$AWO_STEP" = execute ] && echo "run $AWO_ATTEMPT" > "added-$AWO_ATTEMPT.txt""#;

async fn completed(pool: PgPool) -> (Harness, String, u32) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", &format!("{ADDS}\ntrue\n"));
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    (harness, order, worker)
}

impl Harness {
    /// Says more by the command line, and waits for the end.
    fn say(&self, order: &str, words: &str) {
        let (code, printed) = self.command(&["prompt", order, words, "--wait"]);
        assert_eq!(code, Some(0), "{printed}\n{}", self.logs());
        assert!(printed.contains("completed file://"), "{printed}");
    }

    /// The one branch of the one pull request: subjects of its commits, and its files.
    fn delivered(&self) -> (Vec<String>, Vec<String>) {
        let (branches, pulls) = self.deliveries();
        assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let subjects = format!("main..{}", pulls[0]);
        (
            lines(self.git(&["-C", "remote.git", "log", "--format=%s", &subjects])),
            lines(self.git(&["-C", "remote.git", "ls-tree", "--name-only", &pulls[0]])),
        )
    }

    fn events(&self, order: &str) -> String {
        let (code, log) = self.command(&["logs", order]);
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// The prompt that a run of `execute` got.
    fn prompt_of(&self, order: &str, run: u32) -> String {
        fs::read_to_string(self.path(&format!("agent/prompt-{order}-execute-{run}"))).unwrap()
    }

    /// Loses the volume with the sandboxes and the caches.
    fn lose_the_volume(&self) {
        fs::remove_dir_all(self.path("repositories")).unwrap();
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_completed_order_goes_on_with_a_second_commit_on_its_pull_request(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    harness.say(&order, "Now add $ARGUMENTS and 'more'");
    let (subjects, files) = harness.delivered();
    assert_eq!(subjects, ["feat: write a file", "feat: write a file"]);
    assert!(["added-1.txt", "added-2.txt"].iter().all(|name| files.contains(&name.to_string())));
    let prompt = harness.prompt_of(&order, 2);
    assert!(prompt.contains("Now add $ARGUMENTS and 'more'"), "{prompt}");
    assert!(prompt.contains("Write a file") && prompt.contains("1. Write a file."), "{prompt}");
    assert!(!harness.events(&order).contains("sandbox_rebuilt"));

    // A third round is told of the second.
    harness.say(&order, "And a third");
    let prompt = harness.prompt_of(&order, 3);
    assert!(prompt.contains("Said later, in addition:\n\nNow add $ARGUMENTS"), "{prompt}");
    assert_eq!(harness.delivered().0.len(), 3);
    let (_, shown) = harness.command(&["show", &order]);
    assert!(shown.contains("SAID LATER") && shown.contains("And a third"), "{shown}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_lost_sandbox_is_made_again_from_what_was_pushed(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    harness.lose_the_volume();
    harness.say(&order, "Add another");
    let (subjects, files) = harness.delivered();
    assert_eq!(subjects.len(), 2);
    assert!(["added-1.txt", "added-2.txt"].iter().all(|name| files.contains(&name.to_string())));
    let log = harness.events(&order);
    assert!(log.contains("sandbox_rebuilt") && !log.contains("sandbox_lost"), "{log}");
    let steps = harness.steps(&order).await;
    assert_eq!(steps.iter().filter(|step| step.starts_with("planning")).count(), 1, "{steps:?}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_failed_order_goes_on_with_the_work_that_retention_saved(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", &format!("{ADDS}\ntrue\n"));
    harness.tell_agent("fail-prp-review", "1");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    sqlx::query("update awo.jobs set finished_at = now() - interval '30 days'")
        .execute(&harness.pool)
        .await
        .unwrap();
    let (code, said) = harness.command(&["gc"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!harness.path(&format!("repositories/{order}")).exists(), "{said}");
    assert_eq!(harness.deliveries(), (vec![], vec![]), "nothing was pushed");

    fs::remove_file(harness.path("agent/fail-prp-review")).unwrap();
    harness.say(&order, "Finish it");
    let (_, files) = harness.delivered();
    assert!(["added-1.txt", "added-2.txt"].iter().all(|name| files.contains(&name.to_string())));
    assert!(harness.events(&order).contains("sandbox_rebuilt"));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_archived_sandbox_comes_back_with_what_git_ignores(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let archive = format!("file://{}", harness.path("archive").display());
    harness.set("AWO_ARCHIVE_URL", archive);
    harness.tell_agent("extra", &format!("{ADDS}\n[ \"$AWO_ATTEMPT\" = 1 ] && echo '*.built' > .gitignore && echo built > it.built\n[ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ] && cp it.built seen.txt\ntrue\n"));
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    sqlx::query("update awo.jobs set finished_at = now() - interval '30 days'")
        .execute(&harness.pool)
        .await
        .unwrap();
    let (code, said) = harness.command(&["gc"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!harness.path(&format!("repositories/{order}")).exists(), "{said}");
    harness.say(&order, "Look at what was built");
    assert!(harness.delivered().1.contains(&"seen.txt".to_owned()));
    let log = harness.events(&order);
    assert!(log.contains("sandbox_rebuilt"), "{log}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_requeue_from_a_step_makes_a_lost_sandbox_again(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", &format!("{ADDS}\ntrue\n"));
    harness.start_worker();
    // The forge refuses: the branch is pushed, the order fails.
    let order = harness.order("Write a file").await;
    harness.until_agent_in("planning").await;
    fs::write(harness.path("remote.git/awo"), "in the way").unwrap();
    harness.until_status(&order, "failed").await;
    harness.lose_the_volume();
    fs::remove_file(harness.path("remote.git/awo")).unwrap();
    let (code, said) = harness.command(&["requeue", &order, "--from-step", "prp-review"]);
    assert_eq!(code, Some(0), "{said}");
    harness.until_status(&order, "completed").await;
    assert_eq!(harness.delivered().0.len(), 1);
    assert!(harness.events(&order).contains("sandbox_rebuilt"));
    let runs = harness.agent_runs();
    assert_eq!(runs.iter().filter(|run| run[1] == "execute").count(), 1, "{runs:?}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_follow_up_after_the_merge_goes_on_when_it_is_asked_to_reopen(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    let branch = harness.deliveries().0[0].clone();
    harness.git(&["-C", "remote.git", "update-ref", "refs/heads/main", &branch]);
    let runs = harness.agent_runs().len();
    let (code, said) = harness.command(&["prompt", &order, "Add another", "--wait"]);
    assert!(code == Some(5) && said.contains("/awo/pulls/1.md was merged"), "{said}");
    assert_eq!(harness.agent_runs().len(), runs, "no agent was paid for");
    let (code, said) = harness.command(&["requeue", &order, "--reopen"]);
    assert_eq!(code, Some(0), "{said}");
    harness.until_status(&order, "completed").await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.as_slice(), pulls.len()), ([branch].as_slice(), 2));
    let new = harness.git(&["-C", "remote.git", "diff", "--name-only", "main", &pulls[1]]);
    assert_eq!(new, "added-2.txt\n");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_prompt_survives_the_death_of_the_worker_and_is_answered_once(pool: PgPool) {
    let (mut harness, order, pid) = completed(pool).await;
    harness.hold("execute");
    let (code, said) = harness.command(&["prompt", &order, "Add another", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let waiting = "select exists (select from awo.prompts where answered_at is null)
         and exists (select from awo.steps s where step_name = 'execute' and finished_at is null)";
    harness.until(waiting).await;
    harness.signal(pid, nix::sys::signal::Signal::SIGKILL);
    harness.let_go("execute");
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    assert_eq!(harness.delivered().0.len(), 2);
    harness.until("select count(*) = 1 from awo.prompts where answered_at is not null").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_cannot_go_on_is_refused_with_a_sentence(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("planning");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("planning").await;
    for (arguments, words) in [
        (["prompt", &order, "More"], "is running: wait for its end"),
        (["prompt", &order, " "], "prompt is empty"),
        (["prompt", "nobody", "More"], "there is no work order \"nobody\""),
    ] {
        let (code, said) = harness.command(&arguments);
        assert!(code != Some(0) && said.contains(words), "{said}");
    }
    harness.let_go("planning");
    harness.until_status(&order, "completed").await;
    harness.order_named("wo-short", "Plan", "create-branch planning").await;
    harness.until_status("wo-short", "completed").await;
    let (code, said) = harness.command(&["prompt", "wo-short", "More"]);
    assert!(code != Some(0) && said.contains("has no step execute"), "{said}");
    // Without a prompt a completed order stays as it is.
    let update = "update awo.jobs set state = 'queued'";
    let refused = sqlx::query(update).execute(&harness.pool).await.unwrap_err().to_string();
    assert!(refused.contains("cannot go from succeeded to queued"), "{refused}");
}
