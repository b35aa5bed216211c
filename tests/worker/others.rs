//! People push to the branch of an order too: their commits stay, and the order goes on from them.

use std::fs;

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::harness::{Harness, until};

const ADDS: &str = "[ \"$AWO_STEP\" = execute ] && echo run > \"added-$AWO_ATTEMPT.txt\"\n\
     [ -e person.txt ] && cp person.txt \"$folder/seen-$AWO_STEP-$AWO_ATTEMPT\"\ntrue\n";

impl Harness {
    /// The branch of the only order, without `refs/heads/`.
    fn branch(&self) -> String {
        self.deliveries().0[0].trim_start_matches("refs/heads/").to_owned()
    }

    /// A person takes the branch, as everybody does.
    fn take_branch(&self) {
        let branch = self.branch();
        self.git(&["-C", "seed", "fetch", "--quiet", "origin"]);
        self.git(&[
            "-C",
            "seed",
            "checkout",
            "--quiet",
            "-B",
            &branch,
            &format!("origin/{branch}"),
        ]);
    }

    fn person_commits(&self, file: &str, text: &str) {
        let path = self.path("seed").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self.git(&["-C", "seed", "add", "--all"]);
        self.git(&["-C", "seed", "commit", "--quiet", "--message=By a person"]);
    }

    fn person_pushes(&self, options: &[&str]) -> String {
        let branch = self.branch();
        let arguments = ["-C", "seed", "push", "--quiet", "origin", &branch];
        self.git(&[&arguments[..], options].concat());
        self.remote_head()
    }

    fn remote_head(&self) -> String {
        self.git(&["-C", "remote.git", "rev-parse", &self.branch()]).trim().to_owned()
    }

    fn file_on_branch(&self, name: &str) -> String {
        self.git(&["-C", "remote.git", "show", &format!("{}:{name}", self.branch())])
    }

    fn subjects(&self) -> Vec<String> {
        let range = format!("main..{}", self.branch());
        let text = self.git(&["-C", "remote.git", "log", "--first-parent", "--format=%s", &range]);
        text.lines().map(str::to_owned).collect()
    }

    fn runs_of(&self, step: &str) -> usize {
        self.agent_runs().iter().filter(|run| run[1] == step).count()
    }

    fn prompt(&self, order: &str, words: &str) {
        let (code, printed) = self.command(&["prompt", order, words]);
        assert_eq!(code, Some(0), "{printed}");
    }

    async fn until_ended(&self, order: &str, status: &str) {
        self.until("select status in ('pending', 'running') from agent_work_orders").await;
        self.until_status(order, status).await;
    }
}

async fn completed(pool: PgPool) -> (Harness, String, u32) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", ADDS);
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    (harness, order, worker)
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_follow_up_goes_on_from_the_commit_of_a_person(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    harness.take_branch();
    harness.person_commits("person.txt", "by hand\n");
    harness.person_commits("README.md", "# Better\n");
    let theirs = harness.person_pushes(&[]);
    harness.prompt(&order, "More");
    harness.until_ended(&order, "completed").await;
    let ours = harness.remote_head();
    let parent = harness.git(&["-C", "remote.git", "rev-parse", &format!("{ours}^")]);
    assert_eq!(parent.trim(), theirs);
    assert_eq!(harness.file_on_branch("README.md"), "# Better\n");
    assert_eq!(harness.file_on_branch("added-2.txt"), "run\n");
    let seen = fs::read_to_string(harness.path("agent/seen-execute-2")).unwrap();
    assert_eq!(seen, "by hand\n", "the agent had the file");
    let (_, log) = harness.command(&["logs", &order, "--json"]);
    assert!(log.contains("branch_followed"), "{log}");
    assert_eq!(harness.deliveries().1.len(), 1);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn uncommitted_work_and_a_persons_commit_come_together_in_a_requeue(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    harness.take_branch();
    harness.tell_agent(
        "extra",
        "if [ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ]; then echo wip > wip.txt; rm added-1.txt; exit 7; fi\n",
    );
    harness.prompt(&order, "More");
    harness.until_ended(&order, "failed").await;
    harness.person_commits("person.txt", "by hand\n");
    let theirs = harness.person_pushes(&[]);
    let (code, said) = harness.command(&["requeue", &order]);
    assert_eq!(code, Some(0), "{said}");
    harness.until_ended(&order, "completed").await;
    let files = harness.git(&["-C", "remote.git", "ls-tree", "--name-only", &harness.branch()]);
    assert!(files.contains("wip.txt") && files.contains("person.txt"), "{files}");
    assert!(!files.contains("added-1.txt"), "{files}");
    let above = format!("{theirs}..{}", harness.branch());
    assert_eq!(harness.git(&["-C", "remote.git", "rev-list", "--count", &above]).trim(), "1");
    harness.assert_sound().await;
}

async fn updated(pool: PgPool, from_main: bool) {
    let (harness, order, _) = completed(pool).await;
    let branch = harness.branch();
    harness.git(&["-C", "seed", "checkout", "--quiet", "main"]);
    harness.person_commits("of-main.txt", "1\n");
    harness.person_commits("of-main-2.txt", "2\n");
    harness.git(&["-C", "seed", "push", "--quiet", "origin", "main"]);
    harness.take_branch();
    if from_main {
        // The merge the other way round: its first parent is main.
        harness.git(&["-C", "seed", "checkout", "--quiet", "--detach", "main"]);
        harness.git(&["-C", "seed", "merge", "--quiet", "--no-ff", "--no-edit", &branch]);
        harness.git(&["-C", "seed", "branch", "--force", &branch, "HEAD"]);
    } else {
        harness.git(&["-C", "seed", "merge", "--quiet", "--no-edit", "main"]);
    }
    let theirs = harness.person_pushes(&[]);
    harness.prompt(&order, "More");
    harness.until_ended(&order, "completed").await;
    let parent = harness.git(&["-C", "remote.git", "rev-parse", &format!("{branch}^")]);
    assert_eq!(parent.trim(), theirs);
    assert_eq!(harness.file_on_branch("of-main.txt"), "1\n");
    let changed: i32 = sqlx::query_scalar("select git_files_changed from agent_work_orders")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert_eq!(changed, 3, "the files of main are not the order's");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_branch_that_was_updated_from_its_base_is_gone_on_from(pool: PgPool) {
    updated(pool, false).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_merge_whose_first_parent_is_the_base_is_gone_on_from_too(pool: PgPool) {
    updated(pool, true).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_rewritten_branch_is_left_alone_and_no_agent_runs(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    let ours = harness.remote_head();
    harness.take_branch();
    harness.person_commits("person.txt", "by hand\n");
    harness.git(&["-C", "seed", "commit", "--quiet", "--amend", "--message=Reworded"]);
    harness.git(&["-C", "seed", "reset", "--quiet", "--soft", "main"]);
    harness.git(&["-C", "seed", "commit", "--quiet", "--message=Squashed"]);
    let theirs = harness.person_pushes(&["--force"]);
    harness.prompt(&order, "More");
    harness.until_ended(&order, "failed").await;
    let (_, class, message, attempts) = harness.outcome(&order).await;
    let message = message.unwrap();
    assert_eq!((class.as_deref(), attempts), (Some("git"), 1), "{message}");
    for words in [&theirs[..12], &ours[..12], "1 commit", &harness.branch()] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!message.contains("delete"), "{message}");
    assert_eq!((harness.runs_of("execute"), harness.remote_head()), (1, theirs));

    // The way out: the branch holds the work of the order again.
    harness.git(&["-C", "seed", "reset", "--quiet", "--hard", &ours]);
    harness.person_pushes(&["--force"]);
    let (code, said) = harness.command(&["requeue", &order]);
    assert_eq!(code, Some(0), "{said}");
    harness.until_ended(&order, "completed").await;
    assert_eq!(harness.subjects().len(), 2);
    harness.assert_sound().await;
}

/// A follow-up during whose `execute` a person pushes; answers their commit.
async fn raced(harness: &Harness, order: &str, file: &str, text: &str) -> String {
    harness.take_branch();
    harness.hold("execute");
    harness.prompt(order, "More");
    until("the agent works again", || harness.runs_of("execute") == 2).await;
    harness.person_commits(file, text);
    let theirs = harness.person_pushes(&[]);
    harness.let_go("execute");
    theirs
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_push_that_comes_in_between_is_taken_up_by_the_retry(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    let theirs = raced(&harness, &order, "person.txt", "by hand\n").await;
    harness.until_status(&order, "completed").await;
    assert_eq!(harness.runs_of("execute"), 2, "the agent did its work once");
    let above = format!("{theirs}..{}", harness.branch());
    assert_eq!(harness.git(&["-C", "remote.git", "rev-list", "--count", &above]).trim(), "1");
    assert_eq!(harness.file_on_branch("added-2.txt"), "run\n");
    assert_eq!(harness.file_on_branch("person.txt"), "by hand\n");
    let steps = harness.steps(&order).await;
    assert!(steps.contains(&"commit 2 failed git".to_owned()), "{steps:?}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_conflict_is_named_and_the_agent_may_solve_it(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    harness.tell_agent(
        "extra",
        "[ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ] && echo '# Of the agent' > README.md\n\
         [ \"$AWO_STEP$AWO_ATTEMPT\" = execute3 ] && cp README.md \"$folder/conflict\" && echo '# Of both' > README.md\ntrue\n",
    );
    let theirs = raced(&harness, &order, "README.md", "# Of a person\n").await;
    harness.until_status(&order, "failed").await;
    let (_, class, message, _) = harness.outcome(&order).await;
    let message = message.unwrap();
    assert_eq!(class.as_deref(), Some("git"), "{message}");
    assert!(message.contains("README.md") && message.contains(&theirs[..12]), "{message}");
    assert_eq!(harness.remote_head(), theirs);

    harness.prompt(&order, "Make one of both");
    harness.until_ended(&order, "completed").await;
    let conflict = fs::read_to_string(harness.path("agent/conflict")).unwrap();
    for words in ["<<<<<<<", "# Of the agent", "# Of a person", ">>>>>>>"] {
        assert!(conflict.contains(words), "{words}: {conflict}");
    }
    let prompt = format!("agent/prompt-{order}-execute-3");
    let prompt = fs::read_to_string(harness.path(&prompt)).unwrap();
    assert!(prompt.contains("README.md") && prompt.contains("conflict"), "{prompt}");
    assert_eq!(harness.file_on_branch("README.md"), "# Of both\n");
    let parent = format!("{}^", harness.branch());
    assert_eq!(harness.git(&["-C", "remote.git", "rev-parse", &parent]).trim(), theirs);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_conflict_that_nobody_solved_is_not_pushed(pool: PgPool) {
    let (harness, order, _) = completed(pool).await;
    harness.tell_agent(
        "extra",
        "[ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ] && echo '# Of the agent' > README.md\ntrue\n",
    );
    let theirs = raced(&harness, &order, "README.md", "# Of a person\n").await;
    harness.until_status(&order, "failed").await;
    harness.prompt(&order, "Do as you like");
    harness.until_ended(&order, "failed").await;
    let (_, class, message, _) = harness.outcome(&order).await;
    let message = message.unwrap();
    assert!(class.as_deref() == Some("git") && message.contains("README.md"), "{message}");
    assert!(message.contains("both versions of a conflict"), "{message}");
    assert_eq!(harness.remote_head(), theirs);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_kill_while_a_persons_files_come_in_loses_nothing(pool: PgPool) {
    let (mut harness, order, worker) = completed(pool).await;
    harness.take_branch();
    harness.tell_agent(
        "extra",
        "if [ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ]; then echo wip > wip.txt; echo '# A\n\n# Of the agent' > README.md; exit 7; fi\n",
    );
    harness.prompt(&order, "More");
    harness.until_ended(&order, "failed").await;
    for number in 0..4000 {
        let path = harness.path(&format!("seed/many/{}/{number}.txt", number % 40));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{number}\n")).unwrap();
    }
    harness.person_commits("person.txt", "by hand\n");
    let theirs = harness.person_pushes(&[]);
    let (code, said) = harness.command(&["requeue", &order]);
    assert_eq!(code, Some(0), "{said}");
    let checkout = harness.path(&format!("repositories/{order}/remote/many"));
    until("some of the files are there", || checkout.join("1/1.txt").exists()).await;
    harness.signal(worker, Signal::SIGKILL);
    harness.ended(worker).await;
    harness.start_worker();
    harness.until_ended(&order, "completed").await;
    let above = format!("{theirs}..{}", harness.branch());
    let changed = harness.git(&["-C", "remote.git", "diff", "--name-only", &above]);
    assert_eq!(changed, "README.md\nwip.txt\n");
    harness.assert_sound().await;
}
