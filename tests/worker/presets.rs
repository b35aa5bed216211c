//! Whole orders with codex, gemini and opencode: stand-ins for the CLIs, everything else is real.

use sqlx::PgPool;

use crate::{fake_cli::FakeCli, harness::Harness};

/// Starts a worker whose agent is a stand-in with this name.
fn start(harness: &mut Harness, cli: &FakeCli, name: &str) {
    harness.start_worker_with(&[
        ("AWO_AGENT", name),
        ("AWO_AGENT_PROGRAM", cli.program().to_str().unwrap()),
        ("AWO_AGENT_MODEL", "some/model"),
        ("AWO_AGENT_WRITE_PATHS", cli.folder().to_str().unwrap()),
        ("AWO_AGENT_READ_PATHS", cli.folder().to_str().unwrap()),
        ("GEMINI_API_KEY", "key-of-the-provider-0123456789"),
        ("OPENAI_API_KEY", "key-of-the-provider-0123456789"),
    ]);
}

async fn completes(pool: PgPool, name: &'static str) {
    let mut harness = Harness::new(pool);
    let cli = FakeCli::new(harness.folder(), name);
    start(&mut harness, &cli, name);
    let order = harness.order("Write notes").await;
    harness.until_status(&order, "completed").await;
    harness.assert_sound().await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1));
    let show = |what: &str| harness.git(&["-C", "remote.git", "show", what]);
    assert_eq!(show(&format!("{}:notes.txt", branches[0])), format!("change by {name}\n"));
    let message = harness.git(&["-C", "remote.git", "log", "-1", "--format=%s", &branches[0]]);
    assert_eq!(message.trim(), "feat: write notes");

    let (agent, tokens): (String, i64) = sqlx::query_as(
        "select agent_name, output_tokens from agent_work_order_steps
         where agent_work_order_id = $1 and step_name = 'execute'",
    )
    .bind(&order)
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(agent, name);
    assert!(tokens > 0);
    for call in cli.calls() {
        let environment = call["environment"].as_object().unwrap();
        assert!(!environment.contains_key("DATABASE_URL"));
        let arguments = call["arguments"].to_string();
        assert!(!arguments.contains("key-of-the-provider"), "{arguments}");
    }

    // A follow-up goes on in the conversation of `execute`.
    let (code, printed) = harness.command(&["prompt", &order, "Say more", "--wait"]);
    assert_eq!(code, Some(0), "{printed}\n{}", harness.logs());
    let calls = cli.calls();
    let of = |task: &str| calls.iter().find(|call| call["task"] == task).unwrap();
    let session = |task: &str| of(task)["environment"]["AWO_SESSION_ID"].clone();
    assert_eq!(session("change"), session("follow-up"));
    let follow_up = of("follow-up")["arguments"].to_string();
    assert!(follow_up.contains("resume") || follow_up.contains("--session="), "{follow_up}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn codex_completes_an_order_and_goes_on_with_it(pool: PgPool) {
    completes(pool, "codex").await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn gemini_completes_an_order_and_goes_on_with_it(pool: PgPool) {
    completes(pool, "gemini").await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn opencode_completes_an_order_and_goes_on_with_it(pool: PgPool) {
    completes(pool, "opencode").await;
}
