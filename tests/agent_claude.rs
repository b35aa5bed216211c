//! The real Claude Code CLI under supervision, against a fake of the Messages API on loopback.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support/agent_run.rs"]
mod agent_run;
#[path = "support/claude_cli.rs"]
mod claude_cli;
#[path = "support/messages_api.rs"]
mod messages_api;

use std::{fs, time::Duration};

use agent_run::{Bench, content};
use archon_awo::{
    agent::{AgentKind, AgentReport, ClaudeCredential, ClaudeSettings, KillPlan},
    domain::ErrorClass,
};
use messages_api::{MessagesApi, PROMPT, Turn};
use serde_json::json;

/// No real key has this form.
const KEY: &str = "sk-fake-key-of-the-test";

fn settings(api: &MessagesApi) -> ClaudeSettings {
    let mut settings = ClaudeSettings::new(claude_cli::claude_cli());
    settings.base_url = Some(api.url.clone());
    settings.credential = Some(ClaudeCredential::ApiKey(KEY.to_owned().into()));
    settings.max_retries = Some(1);
    settings
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.request.prompt = format!("Please {PROMPT}.");
    bench.request.hard_timeout = Duration::from_secs(30);
    bench
}

fn class(report: &AgentReport) -> Option<ErrorClass> {
    report.verdict.as_ref().err().map(|failure| failure.class)
}

fn bash(command: &str) -> Turn {
    Turn::Tool("Bash", json!({"command": command, "description": "runs"}))
}

/// Prints a run whose verdict is not the expected one.
fn told(bench: &Bench, report: &AgentReport) -> String {
    let read = |name: &str| fs::read_to_string(bench.path(name)).unwrap_or_default();
    format!("{report:?}\n{}\n{}", read("spool.ndjson"), read("spool.ndjson.stderr"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_writes_a_file_by_its_own_tool_and_a_second_run_continues() {
    let mut bench = bench();
    let file = bench.request.checkout.join("hello.txt");
    fs::write(bench.request.checkout.join("CLAUDE.md"), "The password is xyzzy-of-the-repo.\n")
        .unwrap();
    fs::create_dir(bench.request.checkout.join(".claude")).unwrap();
    let hook = json!({"type": "command", "command": "touch hook-ran"});
    let hooks = json!({"hooks": {"PreToolUse": [{"matcher": "*", "hooks": [hook]}]}});
    fs::write(bench.request.checkout.join(".claude/settings.json"), hooks.to_string()).unwrap();
    let write = json!({"file_path": file, "content": "hello from the fake\n"});
    let env = bash("env > env.txt; echo done");
    let turns = vec![Turn::Tool("Write", write), env, Turn::Text("I wrote hello.txt.")];
    let api = MessagesApi::start(turns).await;
    let agent = AgentKind::Claude(settings(&api));
    let (report, chunks) = bench.run(agent.clone()).await;
    assert_eq!(report.verdict, Ok(()), "{}", told(&bench, &report));
    assert_eq!(report.text, "I wrote hello.txt.");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello from the fake\n");
    assert_eq!((report.session, report.resumed), (Some(bench.request.session), false));
    let used = report.usage.consumed(&[]).total();
    assert!(used.output_tokens > 0 && report.usage.num_turns == 3, "{:?}", report.usage);
    assert!(!chunks.is_empty() && bench.processes().is_empty());

    let bodies = format!("{:?}", api.requests());
    assert!(bodies.contains("xyzzy-of-the-repo"), "CLAUDE.md did not reach the model");
    let hook_ran = bench.request.checkout.join("hook-ran").exists();
    assert!(!hook_ran, "a hook of the repository ran");
    let environment = fs::read_to_string(bench.request.checkout.join("env.txt")).unwrap();
    assert!(environment.contains("AWO_RUN_ID="), "{environment}");

    bench.request.resume = true;
    bench.request.run_id = uuid::Uuid::new_v4();
    let (report, _) = bench.run(agent).await;
    assert_eq!(report.verdict, Ok(()), "{}", told(&bench, &report));
    assert_eq!((report.session, report.resumed), (Some(bench.request.session), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_is_lost_is_started_afresh() {
    let mut bench = bench();
    let api = MessagesApi::start(vec![Turn::Text("fine")]).await;
    let agent = AgentKind::Claude(settings(&api));
    let (report, _) = bench.run(agent.clone()).await;
    assert_eq!(report.verdict, Ok(()), "{}", told(&bench, &report));
    // Half of it is lost: the file is there, the conversation is not.
    let projects = bench.request.home.join(".claude/projects");
    let name = format!("{}.jsonl", bench.request.session);
    let project = fs::read_dir(projects).unwrap().next().unwrap().unwrap().path();
    fs::write(project.join(name), "").unwrap();
    bench.request.resume = true;
    bench.request.run_id = uuid::Uuid::new_v4();
    let (report, _) = bench.run(agent).await;
    assert_eq!(report.verdict, Ok(()), "{}", told(&bench, &report));
    assert_eq!((report.text.as_str(), report.resumed), ("fine", false));
    assert!(report.session.is_some_and(|session| session != bench.request.session));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_auth_at_once() {
    let bench = bench();
    let api = MessagesApi::start(vec![Turn::Refuse(401, "authentication_error")]).await;
    let mut settings = settings(&api);
    settings.max_retries = None;
    let (report, _) = bench.run(AgentKind::Claude(settings)).await;
    assert_eq!(class(&report), Some(ErrorClass::Auth), "{}", told(&bench, &report));
    assert!(api.requests().len() <= 3, "{} requests", api.requests().len());
    assert_eq!(bench.processes(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_provider_is_overloaded() {
    let bench = bench();
    let api = MessagesApi::start(vec![Turn::Refuse(529, "overloaded_error")]).await;
    let (report, _) = bench.run(AgentKind::Claude(settings(&api))).await;
    assert_eq!(class(&report), Some(ErrorClass::Overloaded), "{}", told(&bench, &report));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_turn_limit_is_max_turns() {
    let bench = bench();
    let api = MessagesApi::start(vec![bash("echo again")]).await;
    let mut settings = settings(&api);
    settings.max_turns = Some(2);
    let (report, _) = bench.run(AgentKind::Claude(settings)).await;
    assert_eq!(class(&report), Some(ErrorClass::MaxTurns), "{}", told(&bench, &report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_never_answers_is_a_stall() {
    let mut bench = bench();
    bench.request.idle_timeout = Duration::from_secs(4);
    bench.kill_plan = KillPlan::default();
    let api = MessagesApi::start(vec![Turn::Hang]).await;
    let (report, _) = bench.run(AgentKind::Claude(settings(&api))).await;
    assert_eq!(class(&report), Some(ErrorClass::Stalled), "{}", told(&bench, &report));
    assert!(!api.requests().is_empty());
    assert_eq!(bench.processes(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_survives_a_kill_of_the_cli_in_a_tool() {
    let bench = bench();
    let api = MessagesApi::start(vec![bash(
        "echo $$ > tool.pid; python3 -c 'import time; time.sleep(121)'",
    )])
    .await;
    let (run, _output) = bench.start(AgentKind::Claude(settings(&api)));
    let tool = content(&bench.request.checkout.join("tool.pid")).await;
    let cli = bench.agents().into_iter().map(|(pid, _)| pid).find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(13).any(|part| part == b"--session-id=")
    });
    let cli = nix::unistd::Pid::from_raw(cli.expect("the CLI runs"));
    assert!(bench.agents().len() >= 2, "tool {tool}: {:?}", bench.agents());
    nix::sys::signal::kill(cli, nix::sys::signal::SIGKILL).unwrap();
    let report = run.await.unwrap();
    assert_eq!(class(&report), Some(ErrorClass::ToolError), "{}", told(&bench, &report));
    assert!(report.tree_empty_after.is_some_and(|time| time < Duration::from_secs(5)));
    assert_eq!(bench.processes(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_in_a_tool_leaves_no_process() {
    let mut bench = bench();
    bench.kill_plan = KillPlan::default();
    let api = MessagesApi::start(vec![bash(
        "echo up > tool.up; python3 -c 'import time; time.sleep(122)'",
    )])
    .await;
    let (run, _output) = bench.start(AgentKind::Claude(settings(&api)));
    content(&bench.request.checkout.join("tool.up")).await;
    bench.cancel.cancel();
    let report = run.await.unwrap();
    assert_eq!(class(&report), Some(ErrorClass::Cancelled));
    assert!(report.tree_empty_after.is_some_and(|time| time < Duration::from_secs(15)));
    assert_eq!(bench.processes(), []);
}
