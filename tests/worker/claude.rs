//! Whole orders by the real Claude Code CLI, against a fake of the Messages API on loopback.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    claude_cli::claude_cli,
    harness::{Harness, processes_of},
    leaks::{self, Watch},
    messages_api::{MessagesApi, Script, Turn},
};

/// No real key has this form.
pub const KEY: &str = "sk-fake-key-of-the-whole-order-test-0123456789";
/// The id of the order, so that the fake knows where the sandbox is.
pub const ORDER: &str = "wo-c1a0de";
pub const ALL: &str = "create-branch planning execute prp-review commit create-pr";
pub const SHORT: &str = "create-branch planning execute commit create-pr";

/// The headings of our command files, by which the fake knows the step.
pub const PLANNING: &str = "# Plan the work";
pub const EXECUTE: &str = "# Carry out the plan";
pub const FOLLOW_UP: &str = "# Go on with the change";
pub const REVIEW: &str = "# Review the change";
pub const COMMIT: &str = "# Propose a commit message";
pub const PULL_REQUEST: &str = "# Propose a title and a description";

/// A worker with the real CLI, and the fake it talks to.
pub struct Place {
    pub harness: Harness,
    pub api: MessagesApi,
}

impl Place {
    pub async fn new(pool: PgPool) -> Self {
        let mut harness = Harness::new(pool);
        let api = MessagesApi::start_with(Vec::new()).await;
        harness.set("AWO_AGENT", "claude");
        harness.set("CLAUDE_CLI_PATH", claude_cli().display().to_string());
        harness.set("ANTHROPIC_BASE_URL", api.url.clone());
        harness.set("ANTHROPIC_API_KEY", KEY);
        let place = Self { harness, api };
        place.api.play(place.healthy());
        place
    }

    /// Has the CLI repeat a refused call once: by itself it takes minutes before it gives up.
    fn retry_once(&mut self) {
        let (cli, once) = (claude_cli(), self.harness.path("agent/claude-once"));
        let script =
            format!("#!/bin/sh\nCLAUDE_CODE_MAX_RETRIES=1 exec '{}' \"$@\"\n", cli.display());
        fs::write(&once, script).unwrap();
        fs::set_permissions(&once, fs::Permissions::from_mode(0o755)).unwrap();
        self.harness.set("CLAUDE_CLI_PATH", once.display().to_string());
        let folder = cli.parent().unwrap().display().to_string();
        self.harness.set("AWO_AGENT_READ_PATHS", folder);
    }

    /// What a good model says in each step.
    pub fn healthy(&self) -> Vec<Script> {
        let file = self.harness.path(&format!("repositories/{ORDER}/remote/hello.txt"));
        let write = json!({"file_path": file, "content": "hello from the whole order\n"});
        let verdict = r#"{"passed": true, "summary": "good", "issues": []}"#;
        vec![
            (PLANNING, vec![Turn::Text("1. Write hello.txt.")]),
            (EXECUTE, vec![Turn::Tool("Write", write), Turn::Text("I wrote hello.txt.")]),
            (REVIEW, vec![Turn::Text(verdict)]),
            (COMMIT, vec![Turn::Text("feat: say hello\n\nPeople asked for it.")]),
            (PULL_REQUEST, vec![Turn::Text("Say hello\n\nThis adds hello.txt.")]),
        ]
    }

    /// The same, but one step goes another way.
    pub fn but(&self, heading: &'static str, turns: Vec<Turn>) -> Vec<Script> {
        let mut scripts = self.healthy();
        scripts.retain(|(words, _)| *words != heading);
        scripts.push((heading, turns));
        scripts
    }

    /// Waits until a run of a step has been recorded as failed with `class`.
    async fn until_failed_step(&self, class: &str) {
        let what = match class {
            "overloaded" => {
                "select exists (select from agent_work_order_steps where error_class = 'overloaded')"
            }
            "stalled" => {
                "select exists (select from agent_work_order_steps where error_class = 'stalled')"
            }
            other => panic!("no question for {other}"),
        };
        self.harness.until(what).await;
    }

    /// What the pull request delivers of hello.txt.
    pub fn delivered(&self) -> String {
        let (branches, pulls) = self.harness.deliveries();
        assert_eq!((branches.len(), pulls.len()), (1, 1), "{branches:?} {pulls:?}");
        self.harness.git(&["-C", "remote.git", "show", &format!("{}:hello.txt", pulls[0])])
    }

    /// Runs the order of this place until it has failed; answers class, sentence and attempts.
    async fn failed(&self) -> (String, String, i32) {
        self.harness.until_status(ORDER, "failed").await;
        let (_, class, message, attempts) = self.harness.outcome(ORDER).await;
        (class.unwrap(), message.unwrap(), attempts)
    }
}

pub fn bash(command: &str) -> Turn {
    Turn::Tool("Bash", json!({"command": command, "description": "runs"}))
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_real_cli_takes_an_order_to_its_pull_request(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let worker = place.harness.start_worker();
    let watch = Watch::start(worker, place.harness.folder(), KEY, false);
    place.harness.order_named(ORDER, "Say hello", ALL).await;
    place.harness.until_status(ORDER, "completed").await;
    let sightings = watch.end();

    assert_eq!(place.delivered(), "hello from the whole order\n");
    let branch = format!("refs/heads/feat/say-hello-{ORDER}");
    let message = place.harness.git(&["-C", "remote.git", "log", "-1", "--format=%B", &branch]);
    assert!(message.starts_with("feat: say hello\n\nPeople asked for it."), "{message}");
    let page = fs::read_to_string(place.harness.path("remote.git/awo/pulls/1.md")).unwrap();
    assert!(page.contains("Say hello") && page.contains("This adds hello.txt."), "{page}");

    steps_have_sessions_and_costs(&place.harness).await;
    let (code, log) = place.harness.command(&["logs", ORDER]);
    assert_eq!(code, Some(0), "{log}");
    for words in ["1. Write hello.txt.", "I wrote hello.txt.", "Write", "step_completed"] {
        assert!(log.contains(words), "{words:?} is not in the log:\n{log}");
    }

    assert!(sightings.saw("--session-id="), "{:?}", sightings.programs);
    assert_eq!(sightings.leaks, Vec::<String>::new());
    assert_eq!(leaks::in_files(place.harness.folder(), KEY), Vec::<std::path::PathBuf>::new());
    assert_eq!(leaks::in_rows(&place.harness.pool, KEY).await, Vec::<String>::new());
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_follow_up_goes_on_in_the_conversation_of_the_real_cli(pool: PgPool) {
    let mut place = Place::new(pool).await;
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    place.harness.until_status(ORDER, "completed").await;
    let asked = place.api.requests().len();

    let file = place.harness.path(&format!("repositories/{ORDER}/remote/hello.txt"));
    let write = json!({"file_path": file, "content": "hello again\n"});
    let turns = vec![Turn::Tool("Write", write), Turn::Text("It says hello again.")];
    let mut scripts = place.healthy();
    scripts.push((FOLLOW_UP, turns));
    place.api.play(scripts);
    let (code, said) = place.harness.command(&["prompt", ORDER, "Say it again"]);
    assert_eq!(code, Some(0), "{said}");
    place.harness.until_status(ORDER, "completed").await;

    assert_eq!(place.delivered(), "hello again\n");
    let requests = place.api.requests();
    let mut asked = requests[asked..].iter().map(|request| request["messages"].to_string());
    let follow_up = asked.find(|messages| messages.contains("Say it again")).unwrap();
    assert!(follow_up.contains("I wrote hello.txt."), "the earlier conversation: {follow_up}");
    place.harness.assert_sound().await;
}

/// The steps have sessions, those of the agent have tokens, and the order has the sums.
async fn steps_have_sessions_and_costs(harness: &Harness) {
    let steps: Vec<(String, String, Option<String>, i64, i64, f64)> = sqlx::query_as(
        "select step_name, agent_name, session_id, input_tokens, output_tokens, cost_usd::float8
         from agent_work_order_steps order by id",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    let sessions: BTreeSet<_> = steps.iter().filter_map(|step| step.2.clone()).collect();
    // Commit message and text of the pull request come from one.
    assert_eq!((steps.len(), sessions.len()), (6, 5), "{steps:?}");
    for (name, agent, _, input, output, cost) in &steps {
        let by_agent = ["planning", "execute", "prp-review"].contains(&name.as_str());
        assert_eq!(agent, if by_agent { "claude" } else { "runner" });
        let spent = *input > 0 && *output > 0 && *cost > 0.0;
        assert_eq!(spent, name != "create-branch", "{name}: {input} {output} {cost}");
    }
    let (input, output, cost, session): (i64, i64, f64, Option<String>) = sqlx::query_as(
        "select total_input_tokens, total_output_tokens, total_cost_usd::float8, agent_session_id
         from agent_work_orders",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(input, steps.iter().map(|step| step.3).sum::<i64>());
    assert_eq!(output, steps.iter().map(|step| step.4).sum::<i64>());
    assert!((cost - steps.iter().map(|step| step.5).sum::<f64>()).abs() < 1e-4, "{cost}");
    assert!(session.is_some_and(|session| sessions.contains(&session)));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_refused_key_fails_the_order_at_once(pool: PgPool) {
    let mut place = Place::new(pool).await;
    place.api.play(place.but(PLANNING, vec![Turn::Refuse(401, "authentication_error")]));
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", ALL).await;
    let (class, message, attempts) = place.failed().await;
    assert_eq!((class.as_str(), attempts), ("auth", 1));
    assert!(message.contains("ANTHROPIC_API_KEY"), "{message}");
    let steps = place.harness.steps(ORDER).await;
    assert_eq!(steps, ["create-branch 1 ok", "planning 1 failed auth"]);
    assert_eq!(place.harness.deliveries(), (vec![], vec![]));
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_overloaded_provider_is_asked_again_until_it_recovers(pool: PgPool) {
    let mut place = Place::new(pool).await;
    place.retry_once();
    place.api.play(place.but(EXECUTE, vec![Turn::Refuse(529, "overloaded_error")]));
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    place.until_failed_step("overloaded").await;
    place.api.play(place.healthy());
    place.harness.until_status(ORDER, "completed").await;
    assert_eq!(place.delivered(), "hello from the whole order\n");
    let steps = place.harness.steps(ORDER).await;
    assert!(steps.contains(&"execute 1 failed overloaded".to_owned()), "{steps:?}");
    assert!(!steps.iter().any(|step| step.starts_with("planning 2")), "{steps:?}");
    let (_, _, _, attempts) = place.harness.outcome(ORDER).await;
    assert_eq!(attempts, 1, "what fails outside of an order spends none of its attempts");
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_agent_that_uses_up_its_turns_fails_the_order(pool: PgPool) {
    let mut place = Place::new(pool).await;
    place.harness.set("CLAUDE_CLI_MAX_TURNS", "2");
    place.api.play(place.but(EXECUTE, vec![bash("env")]));
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    let (class, message, attempts) = place.failed().await;
    assert_eq!((class.as_str(), attempts), ("max_turns", 1), "{message}");
    let last = place.harness.steps(ORDER).await.pop();
    assert_eq!(last.as_deref(), Some("execute 1 failed max_turns"));

    // The tool printed the key: nothing of ours has kept it. (The CLI's own transcript below its
    // home has, as it has everything the agent saw.)
    let told = leaks::in_rows(&place.harness.pool, "AWO_RUN_ID=").await;
    assert!(told.iter().any(|table| table.starts_with("awo.log_chunks")), "{told:?}");
    assert_eq!(leaks::in_rows(&place.harness.pool, KEY).await, Vec::<String>::new());
    let kept = leaks::in_files(&place.harness.path("work-orders"), KEY);
    assert_eq!(kept, Vec::<std::path::PathBuf>::new());
    assert!(!place.harness.logs().contains(KEY));
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_provider_that_goes_silent_is_a_stall_and_the_order_goes_on_later(pool: PgPool) {
    let mut place = Place::new(pool).await;
    place.harness.set("AWO_AGENT_IDLE_TIMEOUT", "5s");
    place.api.play(place.but(EXECUTE, vec![Turn::Hang]));
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", "create-branch planning execute").await;
    place.until_failed_step("stalled").await;
    place.api.play(place.healthy());
    place.harness.until_status(ORDER, "completed").await;
    let file = place.harness.path(&format!("repositories/{ORDER}/remote/hello.txt"));
    assert_eq!(fs::read_to_string(file).unwrap(), "hello from the whole order\n");
    let steps = place.harness.steps(ORDER).await;
    assert!(steps.contains(&"execute 1 failed stalled".to_owned()), "{steps:?}");
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_cli_killed_in_a_tool_leaves_no_process_and_fails_the_order(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let tool = "echo $AWO_RUN_ID $PPID > tool.run; \
                setsid sleep 119 < /dev/null > /dev/null 2>&1 & \
                python3 -c 'import time; time.sleep(123)'";
    place.api.play(place.but(EXECUTE, vec![bash(tool)]));
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    let file = place.harness.path(&format!("repositories/{ORDER}/remote/tool.run"));
    let run = content(&file, &place.harness).await;
    let run = run.split(' ').next().unwrap().to_owned();
    let before = processes_of(&run);
    assert!(before.len() >= 3, "{before:?}");
    let is_cli = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = String::from_utf8_lossy(line.split(|b| *b == 0).next().unwrap()).into_owned();
        let has_session = line.windows(13).any(|part| part == b"--session-id=");
        has_session && first.ends_with("claude")
    };
    let cli = before.into_iter().find(is_cli).expect("the CLI runs");
    kill(Pid::from_raw(cli.try_into().unwrap()), Signal::SIGKILL).unwrap();

    let (class, message, attempts) = place.failed().await;
    assert_eq!((class.as_str(), attempts), ("tool_error", 1), "{message}");
    assert!(message.contains("killed"), "{message}");
    assert_eq!(processes_of(&run), Vec::<u32>::new());
    let last = place.harness.steps(ORDER).await.pop();
    assert_eq!(last.as_deref(), Some("execute 1 failed tool_error"));
    place.harness.assert_sound().await;
}

/// A repository that brings along hooks, a server and words for the model: which of them counted.
async fn brought_along(pool: PgPool, trusted: bool) -> [bool; 3] {
    let mut place = Place::new(pool).await;
    let agent = place.harness.path("agent");
    let mark = |name: &str| agent.join(name);
    let hook = |name: &str| {
        let command = format!("touch {}", mark(name).display());
        json!([{"matcher": "*", "hooks": [{"type": "command", "command": command}]}])
    };
    let settings = json!({
        "hooks": {"PreToolUse": hook("hook-ran"), "SessionStart": hook("hook-ran")},
        "enableAllProjectMcpServers": true,
    });
    let server = format!("touch {}; exec cat", mark("server-ran").display());
    let servers = json!({"mcpServers": {"trap": {"command": "sh", "args": ["-c", server]}}});
    let seed = place.harness.path("seed");
    fs::create_dir(seed.join(".claude")).unwrap();
    fs::write(seed.join(".claude/settings.json"), settings.to_string()).unwrap();
    fs::write(seed.join(".mcp.json"), servers.to_string()).unwrap();
    fs::write(seed.join("CLAUDE.md"), "The password is xyzzy-of-the-repo.\n").unwrap();
    for words in [
        &["add", "--all"][..],
        &["commit", "--quiet", "--message=Traps"],
        &["push", "origin", "main"],
    ] {
        place.harness.git(&[&["-C", "seed"][..], words].concat());
    }
    sqlx::query("select awo_set_repository_policy($1, jsonb_build_object('trusted', $2))")
        .bind(place.harness.remote_url())
        .bind(trusted)
        .execute(&place.harness.pool)
        .await
        .unwrap();
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", SHORT).await;
    place.harness.until_status(ORDER, "completed").await;
    assert_eq!(place.delivered(), "hello from the whole order\n");
    let told = format!("{:?}", place.api.requests()).contains("xyzzy-of-the-repo");
    place.harness.assert_sound().await;
    [mark("hook-ran").exists(), mark("server-ran").exists(), told]
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_an_untrusted_repository_brings_along_is_read_and_never_run(pool: PgPool) {
    assert_eq!(brought_along(pool, false).await, [false, false, true]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_a_trusted_repository_brings_along_counts(pool: PgPool) {
    assert_eq!(brought_along(pool, true).await, [true, true, true]);
}

/// Waits for a file of one line.
async fn content(file: &std::path::Path, harness: &Harness) -> String {
    for _ in 0..1500 {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.ends_with('\n') {
            return text.trim().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} was never written\n{}", file.display(), harness.logs());
}
