//! The commands around work orders, run as the real program on a real database.
#![expect(clippy::unwrap_used, reason = "tests")]

mod command;

use std::{
    io::{BufRead, BufReader},
    time::Duration,
};

use command::{Program, Ran};
use serde_json::{Value, json};
use sqlx::PgPool;

const URL: &str = "https://github.com/o/r";

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn count(pool: &PgPool, table: &str) -> i64 {
    let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

async fn execute(pool: &PgPool, statement: &'static str, id: &str) {
    sqlx::query(statement).bind(id).execute(pool).await.unwrap();
}

fn enqueue(program: &Program) -> String {
    let id = program.run(&["enqueue", "--repository-url", URL, "--request", "Fix the bug"]).ok();
    id.trim().to_owned()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_enqueued_order_is_listed_and_shown(pool: PgPool) {
    let program = Program::on(&pool);
    off_thread(move || {
        let arguments = ["enqueue", "--repository-url", URL, "--request", "Fix\nthe bug"];
        let more = ["--commands", "create-branch, planning", "--priority", "-3", "--issue", "42"];
        let named = ["--id", "wo-mine", "--run-at", "2h", "--base-branch", "develop"];
        let id = program.run(&[&arguments[..], &more, &named].concat()).ok();
        assert_eq!(id, "wo-mine\n");

        let list = program.run(&["list"]).ok();
        assert!(list.contains("wo-mine") && list.contains("pending"), "{list}");
        let list = program.run(&["list", "--status", "running", "--json"]).json();
        assert_eq!(list, Value::Array(vec![]));

        let shown = program.run(&["show", "wo-mine", "--json"]).json();
        assert_eq!(shown["user_request"], "Fix\nthe bug");
        assert_eq!(shown["selected_commands"], serde_json::json!(["create-branch", "planning"]));
        assert_eq!(
            (&shown["priority"], &shown["github_issue_number"]),
            (&(-3).into(), &"42".into())
        );
        assert_eq!(shown["steps"], Value::Array(vec![]));
        assert_eq!(
            (&shown["base_branch"], &shown["sandbox_type"]),
            (&"develop".into(), &"git_worktree".into())
        );
        assert!(shown["run_at"].as_str() > shown["created_at"].as_str());
        let shown = program.run(&["show", "wo-mine"]).ok();
        assert!(shown.contains("create-branch, planning"), "{shown}");
    })
    .await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn bad_orders_are_refused_with_field_value_and_expectation(pool: PgPool) {
    let program = Program::on(&pool);
    off_thread(move || {
        let refuse = |arguments: &[&str], words: &str| {
            program.run(&[&["enqueue"], arguments].concat()).refused(2, words);
        };
        for (url, words) in [
            ("https://me:secret@github.com/o/r", "contains a user name or password"),
            ("-uploadpack=x", "starts with '-'"),
            ("ext::sh -c id", "control character or a space"),
            ("ext::x", "git transport helper"),
            ("https://github.com/o/r\u{7}", "control character"),
            ("https://example.org/o/r", "\"example.org\", which is not allowed"),
            ("ssh://github.com/o/r", "is not supported"),
            ("file:///tmp/r", "AWO_ALLOW_LOCAL_REMOTES"),
            ("", "repository_url is empty"),
        ] {
            refuse(&["--repository-url", url, "--request", "x"], words);
        }
        let good = ["--repository-url", URL, "--request"];
        refuse(&[&good[..], &[" \n"]].concat(), "user_request is empty");
        for (steps, words) in [
            ("deploy", "contains \"deploy\""),
            ("create-branch,create-branch", "more than once"),
            ("planning,create-branch", "planning before create-branch"),
            ("create-pr", "create-pr without commit"),
            ("create-branch,execute", "execute without planning"),
            ("", "selected_commands"),
        ] {
            refuse(&[&good[..], &["x", "--commands", steps]].concat(), words);
        }
        for id in ["../x", "a/b", ".hidden", "x.lock"] {
            refuse(&[&good[..], &["x", "--id", id]].concat(), "cannot be used as a folder name");
        }
        refuse(&[&good[..], &["x", "--run-at", "someday"]].concat(), "expected a time such as");
        refuse(&[&good[..], &["x", "--priority", "40000"]].concat(), "--priority");
        refuse(&[&good[..], &["x", "--issue", "0"]].concat(), "--issue");
    })
    .await;
    assert_eq!(count(&pool, "awo.jobs").await, 0);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_request_can_come_from_standard_input(pool: PgPool) {
    let program = Program::on(&pool);
    off_thread(move || {
        let arguments = ["enqueue", "--repository-url", URL, "--request", "-", "--json"];
        let answer = program.run_with_input(&arguments, "Größer\nmachen".as_bytes()).json();
        let id = answer["agent_work_order_id"].as_str().unwrap();
        let shown = program.run(&["show", id, "--json"]).json();
        assert_eq!(shown["user_request"], "Größer\nmachen");
        program.run_with_input(&arguments, b"\xff").refused(2, "not text in UTF-8");
        program.run_with_input(&arguments, b"a\0b").refused(2, "NUL character");
        program.run_with_input(&arguments, &vec![b'x'; 300_000]).refused(2, "longer than 256 KiB");
    })
    .await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_same_idempotency_key_gives_the_same_order(pool: PgPool) {
    let program = Program::on(&pool);
    off_thread(move || {
        let arguments = ["enqueue", "--repository-url", URL, "--request", "x"];
        let keyed = [&arguments[..], &["--idempotency-key", "k"]].concat();
        let first = program.run(&keyed).ok();
        assert_eq!(program.run(&keyed).ok(), first);
        let named = [&arguments[..], &["--id", first.trim()]].concat();
        program.run(&named).refused(6, "");
    })
    .await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_waiting_order_is_cancelled_and_queued_again(pool: PgPool) {
    let program = Program::on(&pool);
    off_thread(move || {
        let id = enqueue(&program);
        program.run(&["requeue", &id, "--from-step", "dance"]).refused(2, "dance");
        let cancelled = program.run(&["cancel", &id, "--reason", "not now"]).ok();
        assert_eq!(cancelled, format!("{id} is cancelled\n"));
        let shown = program.run(&["show", &id, "--json"]).json();
        assert_eq!(shown["status"], "cancelled");
        assert_eq!(shown["error_message"], "Cancelled: not now");
        assert_eq!(program.run(&["cancel", &id]).ok(), cancelled);
        let proof = program.run(&["cancel", &id, "--wait"]).ok();
        assert!(proof.contains("0.0 s  the sandbox is free"), "{proof}");
        assert!(proof.ends_with(&cancelled), "{proof}");
        let requeued = program.run(&["requeue", &id, "--json"]).json();
        assert_eq!(requeued["status"], "pending");
        assert_eq!(program.run(&["show", &id, "--json"]).json()["status"], "pending");

        program.run(&["cancel", "nope"]).refused(6, "there is no work order \"nope\"");
        program.run(&["show", "nope"]).refused(6, "there is no work order \"nope\"");
        program.run(&["logs", "nope"]).refused(6, "there is no work order \"nope\"");
    })
    .await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_queue_is_paused_and_resumed(pool: PgPool) {
    let program = Program::on(&pool);
    let paused = "SELECT paused_at IS NOT NULL FROM awo.queues WHERE name = 'default'";
    let program = off_thread(move || {
        program.run(&["pause"]).ok();
        program
    })
    .await;
    assert!(sqlx::query_scalar::<_, bool>(paused).fetch_one(&pool).await.unwrap());
    off_thread(move || {
        program.run(&["resume", "default"]).ok();
        program.run(&["pause", "nope"]).refused(6, "there is no queue \"nope\"");
        let paused = program.run(&["pause", "--repository", "o/r", "--json"]).json();
        assert_eq!(paused, serde_json::json!({ "repository": "o/r", "paused": true }));
        let opened = program.run(&["resume", "--repository", "github.com/o/r"]).ok();
        assert_eq!(opened, "repository github.com/o/r is open\n");
        program.run(&["pause", "--repository=-x"]).refused(6, "starts with \"-\"");
        program.run(&["pause", "a", "--repository", "o/r"]).refused(2, "cannot be used with");
    })
    .await;
    assert!(!sqlx::query_scalar::<_, bool>(paused).fetch_one(&pool).await.unwrap());
}

const ADD_LOG: &str =
    "INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, step_name, stream, data)
    SELECT $1, coalesce(max(seq), 0) + 1, 1, 'execute', 'stdout', E'plain \\\\377 text\\n'::bytea
    FROM awo.log_chunks WHERE agent_work_order_id = $1";

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_that_waits_is_shown_with_what_it_waits_for(pool: PgPool) {
    let order = "INSERT INTO agent_work_orders (agent_work_order_id, repository_url, user_request)
                 VALUES ('wo-waits', 'acme/app', 'x')";
    let failed = "UPDATE awo.jobs SET run_at = '2100-01-02 03:04:05Z', last_error = 'it is away',
                  error_class = 'overloaded', waiting_since = now(), gives_up_at = '2100-01-02 04:00:00Z'";
    for statement in [order, failed] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let program = Program::on(&pool);
    off_thread(move || {
        let shown = program.run(&["show", "wo-waits"]).ok();
        let line = "waiting for  the next attempt at 2100-01-02 03:04:05 UTC, gives up at \
                    2100-01-02 04:00:00 UTC; the last one failed with overloaded: it is away";
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
        let shown = program.run(&["show", "wo-waits", "--json"]).json();
        assert_eq!(shown["next_attempt_at"], "2100-01-02T03:04:05Z");
        assert_eq!(shown["waiting_for"]["reason"], "retry");
        assert_eq!(shown["waiting_for"]["until"], "2100-01-02T03:04:05Z");
        let listed = program.run(&["list"]).ok();
        assert!(listed.contains("the next attempt at 2100-01-02 03:04:05 UTC"), "{listed}");
        assert_eq!(
            shown["error_message"],
            "waiting until 2100-01-02T03:04:05Z for the next attempt: it is away"
        );
    })
    .await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_log_is_shown_readable_raw_and_as_json(pool: PgPool) {
    let program = Program::on(&pool);
    let (program, id) = off_thread(move || {
        let id = enqueue(&program);
        (program, id)
    })
    .await;
    execute(&pool, ADD_LOG, &id).await;
    execute(
        &pool,
        r#"INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, step_name, stream, data)
        VALUES ($1, 2, 1, 'commit', 'event', '{"event": "step_started", "step": "commit"}'::bytea)"#,
        &id,
    )
    .await;
    off_thread(move || {
        let lines = program.run(&["logs", &id]).ok();
        assert!(lines.contains("execute       plain \u{fffd} text\n"), "{lines}");
        assert!(lines.contains("commit        step_started\n"), "{lines}");
        let lines = program.run(&["logs", &id, "--step", "commit"]).ok();
        assert_eq!(lines.lines().count(), 1);
        let entries = program.run(&["logs", &id, "--json"]).ok();
        let first: Value = serde_json::from_str(entries.lines().next().unwrap()).unwrap();
        assert_eq!((&first["seq"], &first["step"]), (&1.into(), &"execute".into()));

        let raw = program.spawn(&["logs", &id, "--raw"]).wait_with_output().unwrap();
        assert_eq!(raw.stdout, b"plain \xff text\n");
    })
    .await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_followed_log_ends_with_its_order_and_misses_nothing(pool: PgPool) {
    let program = Program::on(&pool);
    let (program, id) = off_thread(move || {
        let id = enqueue(&program);
        (program, id)
    })
    .await;
    execute(&pool, ADD_LOG, &id).await;
    let mut child = program.spawn(&["logs", &id, "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = off_thread(move || {
        assert!(lines.next().unwrap().unwrap().contains("plain"));
        lines
    })
    .await;
    execute(&pool, ADD_LOG, &id).await;
    let lines = off_thread(move || {
        assert!(lines.next().unwrap().unwrap().contains("plain"));
        lines
    })
    .await;
    assert!(child.try_wait().unwrap().is_none(), "it ended before its order");
    execute(&pool, ADD_LOG, &id).await;
    execute(&pool, "SELECT public.awo_cancel($1)", &id).await;
    let rest = off_thread(move || lines.map(Result::unwrap).collect::<Vec<String>>()).await;
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert!(rest[0].contains("plain") && rest[1].contains("workflow_failed"), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// What a worker's claim does to the rows.
async fn claim(pool: &PgPool, id: &str) {
    for statement in [
        "INSERT INTO awo.leases (job_id, epoch, worker_id, repo_key, slot, expires_at)
         SELECT id, 1, gen_random_uuid(), repo_key, 1, now() + interval '1 minute'
         FROM awo.jobs WHERE work_order_id = $1",
        "UPDATE awo.jobs SET state = 'running', lease_epoch = 1, attempt = 1 WHERE work_order_id = $1",
        "UPDATE public.agent_work_orders SET current_phase = 'planning',
         github_pull_request_url = 'https://github.com/o/r/pull/7' WHERE agent_work_order_id = $1",
    ] {
        sqlx::query(statement).bind(id).execute(pool).await.unwrap();
    }
}

/// What the end of a run does to the rows.
async fn succeed(pool: &PgPool, id: &str) {
    for statement in [
        "DELETE FROM awo.leases USING awo.jobs j WHERE job_id = j.id AND j.work_order_id = $1",
        "UPDATE awo.jobs SET state = 'succeeded' WHERE work_order_id = $1",
    ] {
        sqlx::query(statement).bind(id).execute(pool).await.unwrap();
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn waiting_shows_progress_and_ends_with_the_order(pool: PgPool) {
    let program = Program::on(&pool);
    let arguments = ["enqueue", "--repository-url", URL, "--request", "x", "--wait", "--id"];
    let mut child = program.spawn(&[&arguments[..], &["good"]].concat());
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    until(&pool, "good").await;
    let mut lines = off_thread(move || {
        assert_eq!(lines.next().unwrap().unwrap(), "0/6 pending, waiting for a worker: none that is alive serves queue default (`archon-awo worker` starts one)");
        lines
    })
    .await;
    claim(&pool, "good").await;
    let lines = off_thread(move || {
        // The claim is two statements here, and may be seen between them.
        while lines.next().unwrap().unwrap() != "0/6 planning" {}
        lines
    })
    .await;
    succeed(&pool, "good").await;
    let rest = off_thread(move || lines.map(Result::unwrap).collect::<Vec<String>>()).await;
    assert_eq!(rest, ["0/6 completed"]);
    let ran = off_thread(move || Ran::from(child.wait_with_output().unwrap())).await;
    assert_eq!(ran.code, 0);
    assert_eq!(ran.stdout, "good\ncompleted https://github.com/o/r/pull/7\n");

    let child = program.spawn(&[&arguments[..], &["bad", "--json"]].concat());
    until(&pool, "bad").await;
    execute(&pool, "SELECT public.awo_cancel($1, 'enough')", "bad").await;
    let ran = off_thread(move || Ran::from(child.wait_with_output().unwrap())).await;
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown["status"], "cancelled");
    assert!(ran.stderr.contains("work order bad ended cancelled: Cancelled: enough"));
}

/// Waits until the order is stored.
async fn until(pool: &PgPool, id: &str) {
    let statement = "SELECT count(*) FROM public.agent_work_orders WHERE agent_work_order_id = $1";
    for _ in 0..300 {
        let stored: i64 = sqlx::query_scalar(statement).bind(id).fetch_one(pool).await.unwrap();
        if stored == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("order {id} was not stored within 15 s");
}

#[sqlx::test(migrations = false)]
async fn an_older_schema_is_refused_and_a_newer_one_is_used(pool: PgPool) {
    let program = Program::on(&pool).with("AWO_AUTO_MIGRATE", "false");
    let program = off_thread(move || {
        program.run(&["list"]).refused(4, "is on schema version 0");
        program.run(&["worker"]).refused(4, "run `archon-awo migrate`");
        let check = program.run(&["migrate", "--check", "--json"]);
        assert_eq!(check.code, 4);
        assert_eq!(serde_json::from_str::<Value>(&check.stdout).unwrap()["up_to_date"], false);
        let migrated = program.run(&["migrate"]).ok();
        assert!(migrated.contains("from version 0 to"), "{migrated}");
        program.run(&["migrate", "--check"]).ok();
        program
    })
    .await;
    sqlx::query(
        "INSERT INTO awo._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'future', true, '', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    off_thread(move || {
        assert_eq!(program.run(&["list"]).code, 0);
        let said = program.run(&["migrate", "--check"]).ok();
        assert!(said.contains("newer than this program (version 9999"), "{said}");
    })
    .await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_repository_is_set_and_shown(pool: PgPool) {
    let program = Program::on(&pool);
    off_thread(move || {
        let repository = |more: &[&str]| program.run(&[&["repository", URL], more].concat());
        repository(&[]).refused(6, "nothing is known of the repository");
        let set =
            repository(&["--lfs", "true", "--sparse-paths", "services/api, docs", "--limit", "5"]);
        let shown = set.ok();
        for words in ["github.com/o/r", "Git LFS            yes", "services/api, docs"] {
            assert!(shown.contains(words), "{shown}");
        }
        let change = [
            "--sparse-paths",
            "",
            "--default-branch",
            "develop",
            "--clone-depth",
            "shallow",
            "--json",
        ];
        let shown = repository(&change).json();
        let facts =
            [&shown["lfs"], &shown["limit"], &shown["default_branch"], &shown["clone_depth"]];
        assert_eq!(facts, [&json!(true), &json!(5), &json!("develop"), &json!("shallow")]);
        assert_eq!(shown["sparse_paths"], json!([]));
        // By its key too, and all or nothing.
        let refused = ["repository", "github.com/o/r", "--clone-depth", "blobless", "--limit", "1"];
        program.run(&refused).refused(6, "policy field clone_depth is \"blobless\"");
        let shown = program.run(&["repository", "github.com/o/r", "--json"]).json();
        assert_eq!((&shown["limit"], &shown["clone_depth"]), (&json!(5), &json!("shallow")));
        let cleared = repository(&["--default-branch", "", "--json"]).json();
        assert_eq!(cleared["default_branch"], Value::Null);
        program.run(&["repository", "ext::sh", "--lfs", "true"]).refused(6, "git transport helper");
        repository(&["--limit", "65"]).refused(2, "65");
        repository(&["--lfs", "maybe"]).refused(2, "maybe");
    })
    .await;
}
