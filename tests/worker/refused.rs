//! Pushes that the remote refuses, and the way out: mended work is delivered without what was refused.

use std::{fs, os::unix::fs::PermissionsExt};

use sqlx::PgPool;

use crate::{halt::Halt, harness::Harness, https_place::Place};

/// What a server does with new commits: `look` decides by `$commit`, and then `answer` is printed.
fn hook(look: &str, answer: &str) -> String {
    format!(
        "#!/bin/sh\nwhile read -r old new ref; do\n\
         for commit in $(git rev-list \"$new\" --not --all); do\n\
         if {look}; then cat >&2 <<'ANSWER'\n{answer}\nANSWER\nexit 1; fi\ndone\ndone\n"
    )
}

const HOLDS_BIG: &str = "git ls-tree -r --name-only \"$commit\" | grep -qx big.bin";
/// GitHub's words about a file that is too large.
const TOO_LARGE: &str = "error: Trace: 5e9fd0f2b9c4d7
error: See https://gh.io/lfs for more information.
error: File big.bin is 123.45 MB; this exceeds GitHub's file size limit of 100.00 MB
error: GH001: Large files detected. You may want to try Git Large File Storage - https://git-lfs.github.com.";

const HOLDS_KEY: &str = "git grep -q key_of_a_provider \"$commit\"";
/// GitHub's words about a secret.
const PROTECTED: &str = "error: GH013: Repository rule violations found for refs/heads/feat/x.

- GITHUB PUSH PROTECTION
  —————————————————————————————————————————
    Resolve the following violations before pushing again

    - Push cannot contain secrets


     (?) Learn how to resolve a blocked push
     https://docs.github.com/code-security/secret-scanning/working-with-secret-scanning-and-push-protection


      —— Provider Access Token ——————————————————————————————
       locations:
         - commit: 8728dbe67b3f0cd0
           path: config.txt:1

       (?) To push, remove secret from commit(s) or follow this URL to allow the secret.
       https://github.com/acme/app/security/secret-scanning/unblock-secret/2abCdEf

";

/// A server with a hook: those of a remote that is a folder are not run.
async fn refusing(pool: PgPool, hook: &str) -> Place {
    let mut place = Place::new(pool).await;
    place.harness.refuse(hook);
    place.harness.set("GITHUB_TOKEN", place.token.clone());
    place
}

impl Harness {
    fn refuse(&self, hook: &str) {
        let file = self.path("remote.git/hooks/pre-receive");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, hook).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Names of all files in all commits of a branch that `main` does not have.
    fn history(&self, branch: &str) -> String {
        let names = ["--format=", "--name-only", &format!("main..{branch}")];
        self.git(&[&["-C", "remote.git", "log"], &names[..]].concat())
    }

    async fn refused(&self, order: &str) -> String {
        self.until_status(order, "failed").await;
        let (_, class, message, attempts) = self.outcome(order).await;
        assert_eq!((class.as_deref(), attempts), (Some("git"), 1), "{message:?}");
        message.unwrap()
    }

    fn log_of(&self, order: &str) -> String {
        let (code, log) = self.command(&["logs", order, "--json"]);
        assert_eq!(code, Some(0), "{log}");
        log
    }

    fn say_more(&self, order: &str, words: &str) {
        let (code, printed) = self.command(&["prompt", order, words]);
        assert_eq!(code, Some(0), "{printed}");
    }

    async fn until_completed(&self, order: &str) {
        self.until("select status <> 'failed' from agent_work_orders").await;
        self.until_status(order, "completed").await;
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_file_the_remote_refuses_is_taken_out_by_a_follow_up(pool: PgPool) {
    let mut place = refusing(pool, &hook(HOLDS_BIG, TOO_LARGE)).await;
    let harness = &mut place.harness;
    harness.tell_agent(
        "extra",
        "[ \"$AWO_STEP$AWO_ATTEMPT\" = execute1 ] && echo big > big.bin\n[ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ] && rm big.bin\ntrue\n",
    );
    harness.start_worker();
    let order = harness.order("Write a file").await;
    let message = harness.refused(&order).await;
    for words in ["pre-receive hook declined", "GH001", "File big.bin is 123.45 MB"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(message.contains("prompt") && !message.contains("Trace:"), "{message}");
    let log = harness.log_of(&order);
    assert!(log.contains("push_refused") && log.contains("Trace: 5e9fd0f2b9c4d7"), "{log}");

    harness.say_more(&order, "Take big.bin out");
    harness.until_completed(&order).await;
    let (branches, _) = harness.deliveries();
    let pulls = place.github.pulls();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    assert_eq!(harness.history(&branches[0]).trim(), format!("{order}.txt"));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_secret_the_remote_found_is_gone_from_the_history_after_a_requeue(pool: PgPool) {
    let mut place = refusing(pool, &hook(HOLDS_KEY, PROTECTED)).await;
    let harness = &mut place.harness;
    harness.tell_agent(
        "extra",
        "[ \"$AWO_STEP\" = execute ] && echo \"$(cat \"$folder/key\")\" > config.txt\ntrue\n",
    );
    harness.tell_agent("key", "key_of_a_provider");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    let message = harness.refused(&order).await;
    for words in [
        "GH013",
        "GITHUB PUSH PROTECTION",
        "Push cannot contain secrets",
        "path: config.txt:1",
        "https://github.com/acme/app/security/secret-scanning/unblock-secret/2abCdEf",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!message.contains('—') && !message.contains("Learn how"), "{message}");
    harness.tell_agent("key", "none");
    let (code, said) = harness.command(&["requeue", &order, "--from-step", "execute"]);
    assert_eq!(code, Some(0), "{said}");
    harness.until_completed(&order).await;
    let (branches, _) = harness.deliveries();
    let text = harness.git(&["-C", "remote.git", "log", "-p", &branches[0]]);
    assert!(!text.contains("key_of_a_provider") && text.contains("+none"), "{text}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_refusal_over_https_has_the_same_way_out(pool: PgPool) {
    const ORDER: &str = "wo-5ec7e8";
    const BRANCH: &str = "feat/write-a-file-wo-5ec7e8";
    let mut place = refusing(pool, &hook(HOLDS_KEY, PROTECTED)).await;
    place.harness.tell_agent("extra", "[ \"$AWO_STEP$AWO_ATTEMPT\" = execute1 ] && echo key_of_a_provider > config.txt\n[ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ] && echo none > config.txt\ntrue\n");
    place.harness.start_worker();
    let steps = "create-branch planning execute prp-review commit create-pr";
    place.harness.order_named(ORDER, "Write a file", steps).await;
    let message = place.harness.refused(ORDER).await;
    assert!(message.contains("path: config.txt:1") && message.contains("unblock-secret"));
    place.harness.say_more(ORDER, "Take the key out");
    place.harness.until_completed(ORDER).await;
    let text = place.harness.git(&["-C", "remote.git", "log", "-p", BRANCH]);
    assert!(!text.contains("key_of_a_provider") && text.contains("+none"), "{text}");
    assert_eq!(place.github.pulls().len(), 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_is_on_the_remote_stays_when_a_later_commit_is_refused(pool: PgPool) {
    let mut place = refusing(pool, &hook(HOLDS_BIG, TOO_LARGE)).await;
    let harness = &mut place.harness;
    harness.tell_agent(
        "extra",
        "[ \"$AWO_STEP\" = execute ] && echo run > \"added-$AWO_ATTEMPT.txt\"\n[ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ] && echo big > big.bin\n[ \"$AWO_STEP$AWO_ATTEMPT\" = execute3 ] && rm big.bin\ntrue\n",
    );
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    let branch = harness.deliveries().0.remove(0);
    let first = harness.git(&["-C", "remote.git", "rev-parse", &branch]);
    harness.say_more(&order, "Add a large file");
    harness.until("select status = 'failed' from agent_work_orders").await;
    harness.say_more(&order, "Without the large file");
    harness.until_completed(&order).await;
    let parent = harness.git(&["-C", "remote.git", "rev-parse", &format!("{branch}^")]);
    assert_eq!(parent, first, "one commit on what was there");
    let history = harness.history(&branch);
    assert!(history.contains("added-3.txt") && !history.contains("big.bin"), "{history}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_secret_that_became_known_later_is_kept_out_and_can_be_mended(pool: PgPool) {
    const KEY: &str = "sk-ant-api03-becameKnownLater0123456789";
    let mut place = refusing(pool, "#!/bin/sh\necho 'closed for today' >&2\nexit 1\n").await;
    let harness = &mut place.harness;
    harness.tell_agent(
        "extra",
        "[ \"$AWO_STEP\" = execute ] && cp \"$folder/key\" config.txt\ntrue\n",
    );
    harness.tell_agent("key", KEY);
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    assert!(harness.refused(&order).await.contains("closed for today"));
    harness.signal(worker, nix::sys::signal::Signal::SIGTERM);
    harness.ended(worker).await;
    fs::remove_file(harness.path("remote.git/hooks/pre-receive")).unwrap();
    harness.start_worker_with(&[("ANTHROPIC_API_KEY", KEY)]);
    let (code, said) = harness.command(&["requeue", &order]);
    assert_eq!(code, Some(0), "{said}");
    harness.until("select status = 'failed' from agent_work_orders").await;
    let (_, class, message, _) = harness.outcome(&order).await;
    let message = message.unwrap();
    assert!(class.as_deref() == Some("invalid") && message.contains("config.txt"), "{message}");
    assert_eq!(harness.deliveries().0.len(), 0, "nothing was pushed");
    harness.tell_agent("key", "none");
    harness.say_more(&order, "Take the key out");
    harness.until_completed(&order).await;
    let (branches, _) = harness.deliveries();
    let text = harness.git(&["-C", "remote.git", "log", "-p", &branches[0]]);
    assert!(!text.contains(KEY) && text.contains("+none"), "{text}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_kill_after_the_mended_push_leaves_one_mended_commit(pool: PgPool) {
    let mut place = refusing(pool, &hook(HOLDS_BIG, TOO_LARGE)).await;
    let harness = &mut place.harness;
    harness.tell_agent(
        "extra",
        "[ \"$AWO_STEP$AWO_ATTEMPT\" = execute1 ] && echo big > big.bin\n[ \"$AWO_STEP$AWO_ATTEMPT\" = execute2 ] && rm big.bin\ntrue\n",
    );
    let worker = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.refused(&order).await;
    let halt = Halt::at(&harness.pool, "commit", true).await;
    harness.say_more(&order, "Take big.bin out");
    halt.until_reached(harness).await;
    harness.signal(worker, nix::sys::signal::Signal::SIGKILL);
    harness.ended(worker).await;
    halt.end_statement(&harness.pool).await;
    halt.lift(&harness.pool).await;
    harness.start_worker();
    harness.until_completed(&order).await;
    let (branches, _) = harness.deliveries();
    let pulls = place.github.pulls();
    assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
    assert_eq!(harness.history(&branches[0]).trim(), format!("{order}.txt"));
    harness.assert_sound().await;
}
