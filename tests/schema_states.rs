//! Which state may follow which, what operators may do to a job, and who is told of it.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use archon_awo::domain::{JobState, SparsePath};
use rows::{broken, claim, count, job_in, refusal, run, set_state, settle, state, status, text};
use sqlx::{PgPool, postgres::PgListener};

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_database_allows_the_transitions_of_the_domain_and_no_other(pool: PgPool) {
    for from in JobState::ALL {
        for to in JobState::ALL.into_iter().filter(|to| *to != from) {
            let (order, job) = job_in(&pool, from).await;
            let result = match (from, to) {
                (JobState::Running, _) => settle(&pool, job, to).await,
                (_, JobState::Running) => claim(&pool, job).await.map(drop),
                _ => set_state(&pool, job, to).await,
            };
            let allowed = to.predecessors().contains(&from);
            assert_eq!(result.is_ok(), allowed, "{from:?} to {to:?}: {result:?}");
            let now = if allowed { to } else { from };
            assert_eq!(state(&pool, job).await, now);
            assert_eq!(
                status(&pool, &order).await,
                now.order_status().as_str(),
                "{from:?} to {to:?}"
            );
            if !allowed {
                assert!(refusal(result).contains("cannot go from"));
            }
        }
    }
    assert_eq!(broken(&pool).await, [""; 0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn only_a_claim_starts_a_job(pool: PgPool) {
    for from in [JobState::Queued, JobState::Waiting, JobState::Failed] {
        let (_, job) = job_in(&pool, from).await;
        let said = refusal(set_state(&pool, job, JobState::Running).await);
        assert!(said.contains("to running"), "{said}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_job_that_runs_cannot_be_moved_by_hand(pool: PgPool) {
    let (order, job) = job_in(&pool, JobState::Running).await;
    for to in [
        JobState::Queued,
        JobState::Waiting,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Cancelled,
    ] {
        let said = refusal(set_state(&pool, job, to).await);
        assert_eq!(
            said,
            format!(
                "job {job} is running: call awo_cancel('{order}') to stop it, then awo_requeue('{order}') to run it again"
            )
        );
    }
    let said = refusal(run(&pool, "DELETE FROM agent_work_orders").await);
    assert_eq!(said, format!("order {order} is running: call awo_cancel('{order}') first"));
    let said = refusal(run(&pool, "UPDATE awo.jobs SET lease_epoch = 0").await);
    assert!(said.contains("may not go back"), "{said}");
    for change in ["kind = 'prune'", "work_order_id = 'x'", "id = 99"] {
        let said = refusal(run(&pool, &format!("UPDATE awo.jobs SET {change}")).await);
        assert!(said.contains("cannot change"), "{said}");
    }
    assert_eq!(state(&pool, job).await, JobState::Running);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_that_does_not_run_can_be_deleted_whole(pool: PgPool) {
    for from in JobState::ALL.into_iter().filter(|s| *s != JobState::Running) {
        job_in(&pool, from).await;
    }
    run(&pool, "DELETE FROM agent_work_orders").await.unwrap();
    for table in ["awo.jobs", "awo.attempts", "awo.steps", "awo.leases"] {
        assert_eq!(count(&pool, &format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

/// Uses up every budget of a job that has ended.
async fn spend(pool: &PgPool, job: i64) {
    let spent = "UPDATE awo.jobs SET attempt = 3, crash_count = 2, interrupted_count = 4,
        last_error = 'the disk is full', error_class = 'disk', run_at = now() - interval '1 day'
        WHERE id = $1";
    sqlx::query(spent).bind(job).execute(pool).await.unwrap();
}

const BUDGETS: &str = "SELECT concat_ws(' ', attempt, crash_count, interrupted_count,
    coalesce(last_error, '-'), coalesce(error_class, '-'), finished_at IS NULL,
    run_at > now() - interval '1 minute', lease_epoch) FROM awo.jobs WHERE id = ";

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_plain_update_requeues_what_has_ended_with_fresh_budgets(pool: PgPool) {
    for from in [JobState::Failed, JobState::Cancelled] {
        let (order, job) = job_in(&pool, JobState::Running).await;
        settle(&pool, job, from).await.unwrap();
        spend(&pool, job).await;
        run(&pool, &format!("UPDATE awo.jobs SET state = 'queued' WHERE id = {job}"))
            .await
            .unwrap();
        let row = text(&pool, &format!("{BUDGETS}{job}")).await.unwrap();
        assert_eq!(row, "0 0 0 - - t t 1", "the epoch alone goes on");
        assert_eq!(status(&pool, &order).await, "pending");
        let shown = "SELECT coalesce(error_message, error_class, finished_at::text, '-') FROM agent_work_orders";
        assert_eq!(text(&pool, &format!("{shown} WHERE awo_job_id = {job}")).await.unwrap(), "-");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_end_by_hand_carries_a_class_and_a_sentence(pool: PgPool) {
    job_in(&pool, JobState::Failed).await;
    job_in(&pool, JobState::Cancelled).await;
    let shown = "SELECT string_agg(concat_ws(' ', status, error_class, error_message), '; ' ORDER BY status)
        FROM agent_work_orders WHERE finished_at IS NOT NULL";
    assert_eq!(
        text(&pool, shown).await.unwrap(),
        "cancelled cancelled Cancelled by request; failed invalid Set to failed by hand"
    );
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn requeue_works_in_every_state_it_makes_sense_in(pool: PgPool) {
    for from in [JobState::Waiting, JobState::Failed, JobState::Cancelled] {
        let (order, job) = job_in(&pool, from).await;
        let answer = text(&pool, &format!("SELECT awo_requeue('{order}')")).await;
        assert_eq!(answer.as_ref(), Some(&order));
        assert_eq!(state(&pool, job).await, JobState::Queued, "{from:?}");
    }
    // A queued one is made due.
    let (order, job) = job_in(&pool, JobState::Queued).await;
    run(&pool, &format!("UPDATE awo.jobs SET run_at = now() + interval '1 day' WHERE id = {job}"))
        .await
        .unwrap();
    run(&pool, &format!("SELECT awo_requeue('{order}')")).await.unwrap();
    let due = format!("SELECT count(*) FROM awo.jobs WHERE id = {job} AND run_at <= now()");
    assert_eq!(count(&pool, &due).await, 1);

    let (order, job) = job_in(&pool, JobState::Running).await;
    let said = refusal(run(&pool, &format!("SELECT awo_requeue('{order}')")).await);
    assert!(
        said.starts_with(&format!("job {job} is running: call awo_cancel('{order}')")),
        "{said}"
    );
    let (order, _) = job_in(&pool, JobState::Succeeded).await;
    let said = refusal(run(&pool, &format!("SELECT awo_requeue('{order}')")).await);
    assert_eq!(said, format!("order \"{order}\" has completed: order it anew with awo_enqueue"));
    let said = refusal(run(&pool, "SELECT awo_requeue('nobody')").await);
    assert_eq!(said, "there is no work order \"nobody\"");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn requeue_from_a_step_forgets_that_step_and_those_after_it(pool: PgPool) {
    let (order, job) = job_in(&pool, JobState::Failed).await;
    for (n, step) in ["create-branch", "planning", "execute"].into_iter().enumerate() {
        run(&pool, &format!("INSERT INTO awo.steps (job_id, step_name, epoch, finished_at) VALUES ({job}, '{step}', 1, now())")).await.unwrap();
        run(&pool, &format!(
            "INSERT INTO agent_work_order_steps (agent_work_order_id, step_order, step_name, agent_name, attempt, success, epoch)
             VALUES ('{order}', {n}, '{step}', 'command', 1, true, 1)")).await.unwrap();
    }
    for wrong in ["deploy", ""] {
        let said = refusal(
            run(&pool, &format!("SELECT awo_requeue('{order}', from_step => '{wrong}')")).await,
        );
        assert!(
            said.starts_with(&format!(
                "from_step is \"{wrong}\": expected one of create-branch, planning"
            )),
            "{said}"
        );
    }
    run(&pool, &format!("SELECT awo_requeue('{order}', from_step => 'planning')")).await.unwrap();
    let kept = "SELECT string_agg(step_name, ',') FROM awo.steps";
    assert_eq!(text(&pool, kept).await.unwrap(), "create-branch");
    let shown = "SELECT string_agg(step_name, ',' ORDER BY step_order) FROM agent_work_order_steps WHERE superseded_at IS NOT NULL";
    assert_eq!(text(&pool, shown).await.unwrap(), "planning,execute");
    assert_eq!(state(&pool, job).await, JobState::Queued);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_wish_to_reopen_holds_until_the_order_completes(pool: PgPool) {
    let (order, job) = job_in(&pool, JobState::Failed).await;
    let wished = async || count(&pool, "SELECT count(*) FROM awo.jobs WHERE reopen").await == 1;
    let ended = async |state| {
        claim(&pool, job).await.unwrap().unwrap();
        settle(&pool, job, state).await.unwrap();
    };
    run(&pool, &format!("SELECT awo_requeue('{order}')")).await.unwrap();
    assert!(!wished().await);
    // Also while it waits already.
    run(&pool, &format!("SELECT awo_requeue('{order}', reopen => true)")).await.unwrap();
    assert!(wished().await);
    ended(JobState::Failed).await;
    run(&pool, &format!("SELECT awo_requeue('{order}', 'execute')")).await.unwrap();
    run(&pool, &format!("SELECT awo_prompt('{order}', 'More')")).await.unwrap();
    assert!(wished().await, "asked for once");
    ended(JobState::Succeeded).await;
    run(&pool, &format!("SELECT awo_prompt('{order}', 'More', reopen => NULL)")).await.unwrap();
    assert!(!wished().await, "it was fulfilled");
    run(&pool, &format!("SELECT awo_prompt('{order}', 'Still more', reopen => true)"))
        .await
        .unwrap();
    assert!(wished().await);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn requeue_is_refused_while_another_order_holds_the_key(pool: PgPool) {
    let enqueue = "SELECT awo_enqueue('acme/app', 'x', idempotency_key => 'k')";
    let first = text(&pool, enqueue).await.unwrap();
    run(&pool, "UPDATE awo.jobs SET state = 'failed'").await.unwrap();
    let second = text(&pool, enqueue).await.unwrap();
    let said = refusal(run(&pool, &format!("SELECT awo_requeue('{first}')")).await);
    assert!(
        said.contains(&format!("\"{second}\" is open with the same idempotency_key \"k\"")),
        "{said}"
    );
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn cancel_ends_what_waits_and_asks_what_runs(pool: PgPool) {
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("awo_cancel").await.unwrap();
    for from in [JobState::Queued, JobState::Waiting] {
        let (order, job) = job_in(&pool, from).await;
        let answer = text(&pool, &format!("SELECT awo_cancel('{order}', 'not needed')")).await;
        assert_eq!(answer.unwrap(), "cancelled");
        assert_eq!(state(&pool, job).await, JobState::Cancelled);
        let shown = format!(
            "SELECT concat_ws(' ', status, error_class, error_message) FROM agent_work_orders WHERE awo_job_id = {job}"
        );
        assert_eq!(text(&pool, &shown).await.unwrap(), "cancelled cancelled Cancelled: not needed");
    }
    let (order, job) = job_in(&pool, JobState::Running).await;
    for _ in 0..2 {
        let answer = text(&pool, &format!("SELECT awo_cancel('{order}')")).await;
        assert_eq!(answer.unwrap(), "requested");
        assert_eq!(listener.recv().await.unwrap().payload(), job.to_string());
    }
    assert_eq!(state(&pool, job).await, JobState::Running);
    let asked = format!(
        "SELECT cancel_reason FROM awo.jobs WHERE id = {job} AND cancel_requested_at IS NOT NULL"
    );
    assert_eq!(text(&pool, &asked).await.unwrap(), "Cancelled by request");
    settle(&pool, job, JobState::Cancelled).await.unwrap();
    let answer = text(&pool, &format!("SELECT awo_cancel('{job}')")).await;
    assert_eq!(answer.unwrap(), "cancelled", "an ended order answers its state, by its number too");
    // Run again, the old request is forgotten.
    run(&pool, &format!("SELECT awo_requeue('{order}')")).await.unwrap();
    let open =
        format!("SELECT count(*) FROM awo.jobs WHERE id = {job} AND cancel_requested_at IS NULL");
    assert_eq!(count(&pool, &open).await, 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn queues_pause_and_resume_and_unknown_ones_are_refused(pool: PgPool) {
    let paused = "SELECT count(*) FROM awo.queues WHERE paused_at IS NOT NULL";
    run(&pool, "SELECT awo_pause_queue('default')").await.unwrap();
    run(&pool, "SELECT awo_pause_queue('default')").await.unwrap();
    assert_eq!(count(&pool, paused).await, 1);
    run(&pool, "SELECT awo_resume_queue('default')").await.unwrap();
    assert_eq!(count(&pool, paused).await, 0);
    for function in ["awo_pause_queue", "awo_resume_queue"] {
        let said = refusal(run(&pool, &format!("SELECT {function}('nobody')")).await);
        assert_eq!(said, "there is no queue \"nobody\"");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn repositories_pause_and_resume_by_address_and_by_key(pool: PgPool) {
    let paused = "SELECT count(*) FROM awo.repositories WHERE paused_at IS NOT NULL";
    // One that nobody has ordered from can be paused before the first order.
    run(&pool, "SELECT awo_pause_repository('https://github.com/Acme/App.git')").await.unwrap();
    run(&pool, "SELECT awo_pause_repository('github.com/acme/app')").await.unwrap();
    assert_eq!(count(&pool, paused).await, 1);
    run(&pool, "SELECT awo_resume_repository('acme/app')").await.unwrap();
    assert_eq!(count(&pool, paused).await, 0);
    for function in ["awo_pause_repository", "awo_resume_repository"] {
        let said = refusal(run(&pool, &format!("SELECT {function}('ext::sh')")).await);
        assert!(said.contains("names a git transport helper"), "{said}");
        let said = refusal(run(&pool, &format!("SELECT {function}(NULL)")).await);
        assert!(said.contains("repository_url is empty"), "{said}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_policy_of_a_repository_is_set_as_a_whole_or_not_at_all(pool: PgPool) {
    let set = |policy: &str| format!("SELECT awo_set_repository_policy('acme/app', '{policy}')");
    let now =
        "SELECT concat_ws(' ', coalesce(default_branch, '-'), trusted, agent_environment::text)
               FROM awo.repositories WHERE repo_key = 'github.com/acme/app'";
    let all =
        r#"{"default_branch": "release/2", "trusted": true, "agent_environment": ["CARGO_HOME"]}"#;
    run(&pool, &set(all)).await.unwrap();
    assert_eq!(text(&pool, now).await.unwrap(), "release/2 t {CARGO_HOME}");
    // What is not named stays.
    run(&pool, &set(r#"{"default_branch": null}"#)).await.unwrap();
    assert_eq!(text(&pool, now).await.unwrap(), "- t {CARGO_HOME}");
    for (policy, words) in [
        ("[]", "policy is of type array: expected an object"),
        (r#"{"trusted": false, "colour": 1}"#, "policy field \"colour\" is unknown"),
        (r#"{"trusted": "yes"}"#, "policy field trusted is \"yes\": expected true or false"),
        (r#"{"trusted": null}"#, "policy field trusted is null"),
        (r#"{"agent_environment": ["A=B"]}"#, "policy field agent_environment"),
        (r#"{"agent_environment": null}"#, "policy field agent_environment"),
        (r#"{"default_branch": "-x"}"#, "policy field default_branch"),
        (r#"{"default_branch": "a..b"}"#, "policy field default_branch"),
        (r#"{"default_branch": 3}"#, "policy field default_branch"),
        (r#"{"default_sandbox_type": "docker"}"#, "policy field default_sandbox_type"),
        (r#"{"default_sandbox_type": null}"#, "policy field default_sandbox_type is null"),
        (r#"{"submodules": 1}"#, "policy field submodules is 1: expected true or false"),
        (r#"{"lfs": "on"}"#, "policy field lfs is \"on\""),
        (r#"{"clone_depth": "blobless"}"#, "clone_depth is \"blobless\": expected \"full\" or"),
        (r#"{"sparse_paths": "docs"}"#, "policy field sparse_paths"),
    ] {
        let said = refusal(run(&pool, &set(policy)).await);
        assert!(said.contains(words), "{policy}: {said}");
    }
    assert_eq!(text(&pool, now).await.unwrap(), "- t {CARGO_HOME}", "nothing of a refused policy");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_policy_says_what_is_fetched_of_a_repository(pool: PgPool) {
    let set = |policy: &str| format!("SELECT awo_set_repository_policy('acme/app', '{policy}')");
    let now = "SELECT concat_ws(' ', submodules, lfs, sparse_paths::text, clone_depth, default_sandbox_type)
               FROM awo.repositories WHERE repo_key = 'github.com/acme/app'";
    run(&pool, &set("{}")).await.unwrap();
    assert_eq!(text(&pool, now).await.unwrap(), "f f {} full git_worktree");
    let all = r#"{"submodules": true, "lfs": true, "sparse_paths": ["services/api", "docs"],
                  "clone_depth": "shallow", "default_sandbox_type": "git_branch"}"#;
    run(&pool, &set(all)).await.unwrap();
    assert_eq!(text(&pool, now).await.unwrap(), "t t {services/api,docs} shallow git_branch");
    run(&pool, &set(r#"{"sparse_paths": []}"#)).await.unwrap();
    assert_eq!(text(&pool, now).await.unwrap(), "t t {} shallow git_branch");
}

/// The database and the worker must agree, or a policy that was taken fails every order.
#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_folder_to_check_out_is_the_same_to_the_database_and_to_the_worker(pool: PgPool) {
    let long = "a/".repeat(499) + "a";
    let longer = "a/".repeat(500) + "a";
    for path in [
        "services/api",
        "docs",
        "a b/c",
        "Größe/ü",
        ".github/workflows",
        "...",
        "a.b",
        "-x",
        "$x",
        &long,
        "",
        "/",
        "/docs",
        "docs/",
        "a//b",
        "..",
        "a/../b",
        "./a",
        "a/.",
        ".git",
        "a/.GIT/b",
        "a*",
        "a?b",
        "!a",
        "#a",
        "[a]",
        "a]",
        "a\\b",
        "a\"b",
        "a'b",
        "a\nb",
        "a\u{7f}",
        " a",
        "a ",
        "a/ b",
        "a/b /c",
        &longer,
    ] {
        let says: bool = sqlx::query_scalar("SELECT awo.is_sparse_path($1)")
            .bind(path)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(says, path.parse::<SparsePath>().is_ok(), "{path:?}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cancel_while_queued_is_proven_at_once(pool: PgPool) {
    let (order, job) = rows::order(&pool).await;
    run(&pool, &format!("SELECT awo_cancel('{order}')")).await.unwrap();
    let stages = format!(
        "SELECT concat_ws(' ', epoch, outcome, acknowledged_seconds, tree_empty_seconds, released_seconds)
         FROM awo.cancellations WHERE job_id = {job}"
    );
    assert_eq!(text(&pool, &stages).await.unwrap(), "cancelled 0 0 0");
    let (order, job) = job_in(&pool, JobState::Running).await;
    run(&pool, &format!("SELECT awo_cancel('{order}')")).await.unwrap();
    let stages = format!(
        "SELECT concat_ws(' ', epoch, coalesce(outcome, '-'), requested_at IS NOT NULL, num_nulls(acknowledged_at, tree_empty_at, released_at))
         FROM awo.cancellations WHERE job_id = {job}"
    );
    assert_eq!(text(&pool, &stages).await.unwrap(), "1 - t 3", "only asked for");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_limit_of_a_repository_is_held_by_its_slots(pool: PgPool) {
    let limit = |repo: &str, n: &str| format!("SELECT awo_set_repository_limit('{repo}', {n})");
    run(&pool, &limit("acme/app", "1")).await.unwrap();
    let (_, first) = rows::order(&pool).await;
    let (_, second) = rows::order(&pool).await;
    assert!(claim(&pool, first).await.unwrap().is_some());
    assert!(claim(&pool, second).await.unwrap().is_none(), "no slot was free");
    let said = refusal(
        run(
            &pool,
            "INSERT INTO awo.leases (job_id, epoch, worker_id, repo_key, slot, expires_at)
         SELECT id, 1, gen_random_uuid(), repo_key, 1, now() FROM awo.jobs WHERE state = 'queued'",
        )
        .await,
    );
    assert!(said.contains("leases_repo_key_slot_key"), "{said}");
    // By its key too, as the views show it.
    run(&pool, &limit("github.com/acme/app", "2")).await.unwrap();
    assert!(claim(&pool, second).await.unwrap().is_some());
    for (repo, n, words) in [
        ("acme/app", "65", "n is 65: expected 0 to 64"),
        ("acme/app", "-1", "n is -1: expected 0 to 64"),
        ("acme/app", "NULL", "n is <NULL>: expected 0 to 64"),
        ("nonsense", "1", "repository_url \"nonsense\" is not supported"),
    ] {
        let said = refusal(run(&pool, &limit(repo, n)).await);
        assert!(said.contains(words), "{said}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn workers_are_notified_of_rows_that_become_queued_and_of_nothing_else(pool: PgPool) {
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("awo_jobs").await.unwrap();
    // Everything sent before this word arrives before it.
    let said = async |listener: &mut PgListener| {
        run(&pool, "SELECT pg_notify('awo_jobs', 'that was all')").await.unwrap();
        let mut heard = Vec::new();
        loop {
            let payload = listener.recv().await.unwrap().payload().to_owned();
            if payload == "that was all" {
                return heard;
            }
            heard.push(payload);
        }
    };
    let (order, job) = rows::order(&pool).await;
    assert_eq!(said(&mut listener).await, ["default"], "an insert");
    claim(&pool, job).await.unwrap().unwrap();
    run(&pool, "UPDATE awo.leases SET heartbeat_at = now(), expires_at = now() + interval '30 s'")
        .await
        .unwrap();
    run(&pool, "UPDATE awo.jobs SET priority = 3").await.unwrap();
    settle(&pool, job, JobState::Failed).await.unwrap();
    assert_eq!(said(&mut listener).await, [""; 0], "a claim, a heartbeat, an end");
    run(&pool, &format!("SELECT awo_requeue('{order}')")).await.unwrap();
    assert_eq!(said(&mut listener).await, ["default"], "a requeue");
    claim(&pool, job).await.unwrap().unwrap();
    settle(&pool, job, JobState::Queued).await.unwrap();
    assert_eq!(said(&mut listener).await, ["default"], "a job given back");
    run(&pool, "INSERT INTO awo.jobs (kind, queue) VALUES ('prune', 'night')").await.unwrap();
    assert_eq!(said(&mut listener).await, ["night"], "another queue");
    let mut undone = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO awo.jobs (kind) VALUES ('prune')")
        .execute(&mut *undone)
        .await
        .unwrap();
    undone.rollback().await.unwrap();
    assert_eq!(said(&mut listener).await, [""; 0], "an insert that was rolled back");
}
