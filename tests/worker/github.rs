//! Whole orders against a FAKE of GitHub that keeps state over the repository the orders push to: what
//! people and GitHub do with repository and pull request, and what becomes of the order.

use axum::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    fake_github::{Fault, Merge},
    harness::until,
    https_place::Place,
};

const ORDER: &str = "wo-91a7";
const BRANCH: &str = "feat/write-a-file-wo-91a7";
const STEPS: &str = "create-branch planning execute prp-review commit create-pr";
/// The address of the first pull request.
const PULL_1: &str = "https://github.com/acme/app/pull/1";
/// An agent that adds a file for each run of `execute`.
const ADDS: &str =
    "[ \"$AWO_STEP\" = execute ] && echo \"run $AWO_ATTEMPT\" > \"added-$AWO_ATTEMPT.txt\"\ntrue\n";

/// A place whose workers have the token.
async fn place(pool: PgPool) -> Place {
    let mut place = Place::new(pool).await;
    let token = place.token.clone();
    place.harness.set("GITHUB_TOKEN", token);
    place.harness.tell_agent("extra", ADDS);
    place
}

/// A place with an order whose pull request is open.
async fn delivered(pool: PgPool) -> Place {
    let mut place = place(pool).await;
    place.harness.start_worker();
    place.order().await;
    place.harness.until_status(ORDER, "completed").await;
    place
}

impl Place {
    async fn order(&self) {
        self.harness.order_named(ORDER, "Write a file", STEPS).await;
    }

    /// Runs a command of the product about the order.
    fn say(&self, arguments: &[&str]) {
        let (code, said) = self.harness.command(arguments);
        assert_eq!(code, Some(0), "{said}");
    }

    /// Fails unless the order ended at once as `class` with all these words.
    async fn assert_failed(&self, class: &str, words: &[&str]) {
        self.assert_order_failed(ORDER, class, words).await;
    }

    async fn assert_order_failed(&self, order: &str, class: &str, words: &[&str]) {
        self.harness.until_status(order, "failed").await;
        let (_, found, message, attempts) = self.harness.outcome(order).await;
        assert_eq!((found.as_deref(), attempts), (Some(class), 1), "{message:?}");
        let message = message.unwrap();
        for words in words {
            assert!(message.contains(words), "{words:?} is not in: {message}");
        }
    }

    /// The same for an order that is made for it, and no agent.
    async fn assert_refused(&self, order: &str, class: &str, words: &[&str]) {
        self.harness.order_named(order, "Write a file", STEPS).await;
        self.assert_order_failed(order, class, words).await;
    }

    async fn completed(&self) {
        self.harness.until_status(ORDER, "completed").await;
        self.harness.assert_sound().await;
    }

    fn log(&self) -> String {
        let (code, log) = self.harness.command(&["logs", ORDER]);
        assert_eq!(code, Some(0), "{log}");
        log
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.harness.git(&[&["-C", "remote.git"], arguments].concat()).trim().to_owned()
    }

    /// State and address of every pull request, and whose head it is.
    fn pulls(&self) -> Vec<String> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = |pull: &Value| {
            let merged = if pull["merged_at"].is_null() { "" } else { " merged" };
            format!("{}{merged} {}", word(&pull["state"]), word(&pull["head"]["ref"]))
        };
        self.github.pulls().iter().map(line).collect()
    }

    async fn pull_request_url(&self) -> Option<String> {
        sqlx::query_scalar("select github_pull_request_url from agent_work_orders")
            .fetch_one(&self.harness.pool)
            .await
            .unwrap()
    }

    /// Subjects of the commits that a branch has and `main` lacks, and the files of the branch.
    fn new_on_branch(&self) -> (usize, Vec<String>) {
        let count = self.git(&["rev-list", "--count", &format!("main..{BRANCH}")]);
        let files = self.git(&["ls-tree", "--name-only", BRANCH]);
        (count.parse().unwrap(), files.lines().map(str::to_owned).collect())
    }
}

fn has(files: &[String], name: &str) -> bool {
    files.iter().any(|file| file == name)
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_follow_up_after_the_merge_is_refused_and_then_reopened(pool: PgPool) {
    let place = delivered(pool).await;
    place.github.merge(1, Merge::Squash);
    let (runs, head) = (place.harness.agent_runs().len(), place.git(&["rev-parse", BRANCH]));
    place.say(&["prompt", ORDER, "Now add another"]);
    let reopen = "awo_requeue('wo-91a7', reopen => true)";
    place.assert_failed("forge", &[PULL_1, "was merged", "awo_enqueue", reopen]).await;
    assert_eq!(place.harness.agent_runs().len(), runs, "no agent was paid for");
    assert_eq!(place.git(&["rev-parse", BRANCH]), head);
    assert_eq!(place.pulls(), [format!("closed merged {BRANCH}")]);

    // The prompt still waits; what is new comes from the present main, on the same branch.
    place.say(&["requeue", ORDER, "--reopen"]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("closed merged {BRANCH}"), format!("open {BRANCH}")]);
    let (commits, files) = place.new_on_branch();
    assert_eq!(commits, 1, "nothing of what was merged comes again");
    assert!(has(&files, "added-1.txt") && has(&files, "added-2.txt"), "{files:?}");
    let changed = place.git(&["diff", "--name-only", &format!("main...{BRANCH}")]);
    assert_eq!(changed, "added-2.txt");
    assert_eq!(
        place.pull_request_url().await.as_deref(),
        Some("https://github.com/acme/app/pull/2")
    );
    assert!(place.log().contains("pull_request_reopened"), "{}", place.log());
    let prompt =
        std::fs::read_to_string(place.harness.path(&format!("agent/prompt-{ORDER}-execute-2")))
            .unwrap();
    assert!(prompt.contains("Now add another"), "{prompt}");

    // The new one is open: a third round adds to it without being asked to reopen.
    place.say(&["prompt", ORDER, "And a third"]);
    place.completed().await;
    assert_eq!(place.pulls().len(), 2);
    assert_eq!(place.new_on_branch().0, 2);

    // What was asked for once does not hold for ever.
    place.github.merge(2, Merge::Commit);
    place.say(&["prompt", ORDER, "And a fourth"]);
    place.assert_failed("forge", &["acme/app/pull/2 was merged"]).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_branch_that_was_deleted_after_the_merge_is_made_again(pool: PgPool) {
    let place = delivered(pool).await;
    place.github.merge(1, Merge::Commit);
    place.github.delete_branch(BRANCH);
    place.say(&["prompt", ORDER, "Now add another", "--reopen"]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("closed merged {BRANCH}"), format!("open {BRANCH}")]);
    assert_eq!(place.new_on_branch().0, 1);
    assert_eq!(place.harness.deliveries().0, [format!("refs/heads/{BRANCH}")]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_follow_up_after_the_close_is_refused_and_then_reopened(pool: PgPool) {
    let place = delivered(pool).await;
    place.github.close(1);
    let runs = place.harness.agent_runs().len();
    place.say(&["prompt", ORDER, "Now add another"]);
    place.assert_failed("forge", &[PULL_1, "closed without being merged", "--reopen"]).await;
    assert_eq!(place.harness.agent_runs().len(), runs, "no agent was paid for");

    place.say(&["requeue", ORDER, "--reopen"]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("closed {BRANCH}"), format!("open {BRANCH}")]);
    // All of the work, for none of it was merged.
    assert_eq!(place.new_on_branch().0, 2);

    // A person who opens it again on its page needs no word for it.
    place.github.close(2);
    place.say(&["prompt", ORDER, "And a third"]);
    place.assert_failed("forge", &["acme/app/pull/2 was closed"]).await;
    place.github.open_again(2);
    place.say(&["requeue", ORDER]);
    place.completed().await;
    assert_eq!((place.pulls().len(), place.new_on_branch().0), (2, 3));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_requeue_after_the_merge_is_refused_and_then_reopened(pool: PgPool) {
    let place = delivered(pool).await;
    place.harness.tell_agent("fail-prp-review", "1");
    place.say(&["prompt", ORDER, "Now add another"]);
    place.harness.until_status(ORDER, "failed").await;
    std::fs::remove_file(place.harness.path("agent/fail-prp-review")).unwrap();
    place.github.merge(1, Merge::Squash);
    let runs = place.harness.agent_runs().len();
    for step in [None, Some("execute"), Some("create-branch")] {
        let step = step.map(|step| ["--from-step", step]).unwrap_or_default();
        let words: Vec<&str> = step.into_iter().filter(|word| !word.is_empty()).collect();
        place.say(&[&["requeue", ORDER], words.as_slice()].concat());
        place.assert_failed("forge", &["acme/app/pull/1 was merged"]).await;
    }
    assert_eq!(place.harness.agent_runs().len(), runs, "no agent was paid for");

    place.say(&["requeue", ORDER, "--reopen"]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("closed merged {BRANCH}"), format!("open {BRANCH}")]);
    assert_eq!(place.new_on_branch().0, 1);
    // What the first try had left uncommitted is in a file that the log names.
    let bundles = place.harness.path(&format!("work-orders/{ORDER}/bundles"));
    let bundles: Vec<_> = std::fs::read_dir(bundles).unwrap().collect();
    assert_eq!(bundles.len(), 1, "{bundles:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_is_merged_while_the_agent_works_is_never_completed_unseen(pool: PgPool) {
    let place = delivered(pool).await;
    place.harness.hold("prp-review");
    let reviews = |place: &Place| {
        place.harness.agent_runs().iter().filter(|run| run[1] == "prp-review").count()
    };
    place.say(&["prompt", ORDER, "Now add another"]);
    until("the second review", || reviews(&place) == 2).await;
    place.github.merge(1, Merge::Squash);
    place.harness.let_go("prp-review");
    place
        .assert_failed("forge", &["was merged while this order worked", BRANCH, "'create-pr'"])
        .await;
    assert_eq!(place.pulls(), [format!("closed merged {BRANCH}")]);
    let head = place.git(&["rev-parse", BRANCH]);

    place.say(&["requeue", ORDER, "--from-step", "create-pr", "--reopen"]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("closed merged {BRANCH}"), format!("open {BRANCH}")]);
    assert_eq!(place.git(&["rev-parse", BRANCH]), head, "what was pushed is what is seen");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_pull_request_merged_before_its_order_noted_it_is_its_delivery(pool: PgPool) {
    let mut place = place(pool).await;
    place.harness.hold("create-pr");
    let worker = place.harness.start_worker();
    place.order().await;
    place.harness.until_agent_in("create-pr").await;
    // The answer is lost, and the worker dies while it looks for what came of its request.
    place.github.fail_next(Method::POST, Fault::LoseAnswer);
    place.github.fail_next(Method::GET, Fault::Pass);
    place.github.fail_next(Method::GET, Fault::Hang);
    place.harness.let_go("create-pr");
    until("the pull request", || place.pulls().len() == 1).await;
    place.harness.signal(worker, nix::sys::signal::Signal::SIGKILL);
    place.github.merge(1, Merge::Commit);
    place.github.delete_branch(BRANCH);
    place.harness.start_worker();
    place.completed().await;
    assert_eq!(place.pulls(), [format!("closed merged {BRANCH}")]);
    assert_eq!(place.pull_request_url().await.as_deref(), Some(PULL_1));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_repository_that_was_renamed_is_followed(pool: PgPool) {
    let mut place = place(pool).await;
    place.github.called_before("former/app");
    place.harness.hold("create-pr");
    place.harness.start_worker();
    sqlx::query("select awo_enqueue($1, 'Write a file', agent_work_order_id => $2)")
        .bind(format!("https://{}/former/app", place.server.host()))
        .bind(ORDER)
        .execute(&place.harness.pool)
        .await
        .unwrap();
    place.harness.until_agent_in("create-pr").await;
    assert_eq!(place.harness.deliveries().0, [format!("refs/heads/{BRANCH}")]);
    // Once more, between the push and the pull request.
    place.github.rename("other/name");
    place.harness.let_go("create-pr");
    place.completed().await;
    let url = place.pull_request_url().await;
    assert_eq!(url.as_deref(), Some("https://github.com/other/name/pull/1"));
    assert_eq!(place.pulls(), [format!("open {BRANCH}")]);
    let log = place.log();
    assert!(log.contains("repository_moved") && log.contains("acme/app"), "{log}");

    // The pull request is the same under every name.
    place.say(&["prompt", ORDER, "Now add another"]);
    place.completed().await;
    assert_eq!((place.pulls().len(), place.new_on_branch().0), (1, 2));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_no_agent_could_deliver_is_told_before_one_is_paid_for(pool: PgPool) {
    let mut place = place(pool).await;
    place.github.file_issue(7, "It is slow", None);
    place.harness.start_worker();
    let github = &place.github;
    let fault = |fault| github.fail_next(Method::GET, fault);
    let elsewhere = [("location", "https://git.example/api/v3/repositories/7".to_owned())];
    let elsewhere = Fault::Answer(301, elsewhere.to_vec(), json!({"message": "Moved Permanently"}));
    let classic = Fault::Answer(404, vec![], json!({"message": "Not Found"}));
    github.archive(true);
    place.assert_refused("wo-a", "forge", &["acme/app is archived", "unarchive it"]).await;
    github.archive(false);
    github.read_only(true);
    place.assert_refused("wo-b", "auth", &["may read acme/app but not push", "GITHUB_TOKEN"]).await;
    github.read_only(false);
    fault(elsewhere);
    place.assert_refused("wo-c", "forge", &["acme/app has moved", "git.example"]).await;
    fault(classic);
    place.assert_refused("wo-d", "forge", &["does not know acme/app", "the token may read"]).await;
    for (order, number, words) in [
        ("wo-e", 8, &["issue 8 of acme/app"][..]),
        ("wo-f", 7, &["issue 7", "transferred to https://github.com/acme/other/issues/12"]),
        ("wo-g", 7, &["issue 7 of acme/app was deleted"]),
        ("wo-h", 7, &["acme/app has its issues switched off", "github_issue_number"]),
    ] {
        match order {
            "wo-f" => github.transfer_issue(7, "acme/other/issues/12"),
            "wo-g" => github.delete_issue(7),
            "wo-h" => github.disable_issues(),
            _ => {}
        }
        sqlx::query(
            "insert into agent_work_orders
                 (agent_work_order_id, repository_url, user_request, github_issue_number)
             values ($1, $2, 'Write a file', $3)",
        )
        .bind(order)
        .bind(place.harness.remote_url())
        .bind(number.to_string())
        .execute(&place.harness.pool)
        .await
        .unwrap();
        place.assert_order_failed(order, "forge", words).await;
    }
    assert!(place.harness.agent_runs().is_empty(), "no agent was paid for");
    assert_eq!((place.harness.deliveries().0, place.pulls()), (vec![], vec![]));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_page_of_a_proxy_is_named_and_waited_for(pool: PgPool) {
    let mut place = place(pool).await;
    let page = "<!DOCTYPE html><html><head><title>Sign in to the Firm</title></head></html>";
    for status in [200, 403, 502, 200] {
        place.github.fail_next(Method::GET, Fault::Page(status, page));
    }
    place.harness.start_worker();
    place.order().await;
    place.completed().await;
    assert_eq!(place.pulls(), [format!("open {BRANCH}")]);
    let (class, message): (String, String) = sqlx::query_as(
        "select error_class, error_message from agent_work_order_steps where not success",
    )
    .fetch_one(&place.harness.pool)
    .await
    .unwrap();
    assert_eq!(class, "forge");
    for words in ["a page instead of data", "\"Sign in to the Firm\"", "GITHUB_API_URL"] {
        assert!(message.contains(words), "{message}");
    }
}

/// Prepares an order whose work is pushed and whose pull request is about to be opened.
async fn about_to_open(pool: PgPool) -> Place {
    let mut place = place(pool).await;
    place.harness.hold("create-pr");
    place.harness.start_worker();
    place.order().await;
    place.harness.until_agent_in("create-pr").await;
    place
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn every_limit_is_waited_for(pool: PgPool) {
    let place = about_to_open(pool).await;
    place.github.fail_next(Method::POST, Fault::secondary_limit(403, Some(1)));
    place.github.fail_next(Method::POST, Fault::too_quickly());
    place.harness.let_go("create-pr");
    // One wait is over by itself, the other takes a minute, as GitHub asks where it names none.
    place
        .harness
        .until(
            "select state = 'queued' and last_error like '%submitted too quickly%'
                 and run_at > now() + interval '40 seconds' from awo.jobs",
        )
        .await;
    let steps = place.harness.steps(ORDER).await;
    let limited = steps.iter().filter(|step| step.ends_with("failed rate_limited")).count();
    assert_eq!(limited, 2, "{steps:?}");
    place.say(&["requeue", ORDER]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("open {BRANCH}")]);
    // The secondary limit without a wait is the same.
    place.github.fail_next(Method::GET, Fault::secondary_limit(429, None));
    place.say(&["prompt", ORDER, "Now add another"]);
    place
        .harness
        .until("select state = 'queued' and run_at > now() + interval '40 seconds' from awo.jobs")
        .await;
    place.say(&["requeue", ORDER]);
    place.completed().await;
    assert_eq!((place.pulls().len(), place.new_on_branch().0), (1, 2));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn lists_that_lag_make_no_second_pull_request(pool: PgPool) {
    let place = about_to_open(pool).await;
    place.github.fail_next(Method::POST, Fault::LoseAnswer);
    place.github.lag(4);
    place.harness.let_go("create-pr");
    place.completed().await;
    assert_eq!(place.pulls(), [format!("open {BRANCH}")]);
    assert_eq!(place.pull_request_url().await.as_deref(), Some(PULL_1));

    // Nor is one that is not listed taken for one that is not there.
    place.github.merge(1, Merge::Commit);
    place.github.lag(1);
    place.say(&["prompt", ORDER, "Now add another"]);
    place.assert_failed("forge", &[PULL_1, "was merged"]).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_head_that_github_does_not_know_yet_is_waited_for(pool: PgPool) {
    let place = about_to_open(pool).await;
    let error = json!({"resource": "PullRequest", "field": "head", "code": "invalid"});
    let unknown = json!({"message": "Validation Failed", "errors": [error]});
    place.github.fail_next(Method::POST, Fault::Answer(422, vec![], unknown));
    place.harness.let_go("create-pr");
    place.completed().await;
    assert_eq!(place.pulls(), [format!("open {BRANCH}")]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_base_without_what_is_missing_in_it_is_no_changes(pool: PgPool) {
    let place = about_to_open(pool).await;
    place.git(&["update-ref", "refs/heads/main", BRANCH]);
    place.harness.let_go("create-pr");
    place.completed().await;
    let (_, class, ..) = place.harness.outcome(ORDER).await;
    assert_eq!((class.as_deref(), place.pulls()), (Some("no_changes"), vec![]));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_github_refuses_is_told_and_the_work_stays_on_its_branch(pool: PgPool) {
    let place = about_to_open(pool).await;
    let error = |message: &str| {
        let error = json!({"resource": "PullRequest", "code": "custom", "message": message});
        Fault::Answer(422, vec![], json!({"message": "Validation Failed", "errors": [error]}))
    };
    let words = "has no history in common with main";
    place.github.fail_next(Method::POST, error(words));
    place.harness.let_go("create-pr");
    place.assert_failed("forge", &[words, "open the pull request of acme/app"]).await;
    let head = place.git(&["rev-parse", BRANCH]);

    // The base goes: the sentence says which one, and where the work is.
    place.git(&["update-ref", "refs/heads/kept", "main"]);
    place.git(&["symbolic-ref", "HEAD", "refs/heads/kept"]);
    place.git(&["update-ref", "-d", "refs/heads/main"]);
    place.say(&["requeue", ORDER]);
    place.assert_failed("forge", &["has no branch \"main\"", BRANCH]).await;
    place.git(&["update-ref", "refs/heads/main", "kept"]);

    // It is archived meanwhile.
    place.github.archive(true);
    place.say(&["requeue", ORDER]);
    place.assert_failed("forge", &["acme/app is archived"]).await;
    place.github.archive(false);

    // A right that is missing looks like nothing there.
    let nothing = Fault::Answer(404, vec![], json!({"message": "Not Found"}));
    place.github.fail_next(Method::POST, nothing);
    place.say(&["requeue", ORDER]);
    place.assert_failed("auth", &["no right to open a pull request", "Pull requests"]).await;

    place.say(&["requeue", ORDER]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("open {BRANCH}")]);
    assert_eq!(place.git(&["rev-parse", BRANCH]), head);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_persons_commit_on_the_branch_stays_in_the_pull_request(pool: PgPool) {
    let place = delivered(pool).await;
    let theirs = place.github.push_onto(BRANCH);
    place.say(&["prompt", ORDER, "Now add another"]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("open {BRANCH}")]);
    assert_eq!(place.new_on_branch().0, 3);
    place.git(&["merge-base", "--is-ancestor", &theirs, BRANCH]);
    assert!(place.log().contains("branch_followed"), "{}", place.log());

    // Merged with one more of theirs: what is new begins after it, and replaces the branch.
    place.github.push_onto(BRANCH);
    place.github.merge(1, Merge::Squash);
    place.say(&["prompt", ORDER, "And a third", "--reopen"]);
    place.completed().await;
    assert_eq!(place.pulls(), [format!("closed merged {BRANCH}"), format!("open {BRANCH}")]);
    assert_eq!(place.new_on_branch().0, 1);

    // What is pushed after the merge is nobody's to replace.
    place.github.merge(2, Merge::Squash);
    let theirs = place.github.push_onto(BRANCH);
    let runs = place.harness.agent_runs().len();
    place.say(&["prompt", ORDER, "And a fourth", "--reopen"]);
    place.assert_failed("git", &[BRANCH]).await;
    assert_eq!(place.git(&["rev-parse", BRANCH]), theirs);
    assert_eq!(place.harness.agent_runs().len(), runs, "no agent was paid for");
}
