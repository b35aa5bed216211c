//! What an agent says that the runner does not use, and the conversation that an order is said to have.

use sqlx::PgPool;

use crate::harness::Harness;

/// No line of such an agent is an answer but that of its result, and it names its conversation.
const SPEAKS: &str = r#"
speak() {
    printf '{"type":"system","subtype":"init","session_id":"%s"}\n' "$1"
    printf '{"type":"result","subtype":"success","is_error":false,"result":"%s"}\n' "$2"
    exit 0
}
case "$AWO_STEP $AWO_ATTEMPT" in
"execute 1") echo one > one.txt; speak 11111111-1111-4111-8111-111111111111 "I wrote one.txt." ;;
"execute 2") echo two > two.txt ;;
"commit 1") speak 22222222-2222-4222-8222-222222222222 "feat: write one" ;;
"create-pr 1") speak 33333333-3333-4333-8333-333333333333 "Write one" ;;
esac
"#;
/// The conversation of the first `execute`.
const EXECUTE: &str = "11111111-1111-4111-8111-111111111111";

impl Harness {
    async fn text(&self, query: &'static str) -> Option<String> {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }
}

fn log_of(harness: &Harness, order: &str) -> String {
    let (code, log) = harness.command(&["logs", order]);
    assert_eq!(code, Some(0), "{log}");
    log
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_conversation_of_an_order_is_the_one_that_a_follow_up_continues(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", SPEAKS);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    let session = "select agent_session_id from agent_work_orders";
    assert_eq!(harness.text(session).await.as_deref(), Some(EXECUTE));

    // The second run names none: it was meant to continue the first.
    let (code, said) = harness.command(&["prompt", &order, "Write another", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    let continued = "select session_id from agent_work_order_steps
                     where step_name = 'execute' and attempt = 2";
    assert_eq!(harness.text(continued).await.as_deref(), Some(EXECUTE));
    assert_eq!(harness.text(session).await.as_deref(), Some(EXECUTE));
    assert!(!log_of(&harness, &order).contains("agent_words_unused"));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn words_that_are_not_used_are_in_the_log_with_the_reason(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("stdout-commit", "I changed a file, as you wanted.\n");
    harness.tell_agent("stdout-create-pr", "Let me look at the diff first.\n");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    let log = log_of(&harness, &order);
    for words in [
        "agent_words_unused",
        "I changed a file, as you wanted.",
        "no paragraph of it begins with",
        "Let me look at the diff first.",
        "it holds nothing but",
    ] {
        assert!(log.contains(words), "{words:?} is not in\n{log}");
    }
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_verdict_that_is_overruled_or_missing_is_in_the_log(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("AWO_REVIEW_ROUNDS", "0");
    let verdict =
        r#"{"passed": true, "issues": [{"severity": "blocker", "description": "it loses data"}]}"#;
    harness.tell_agent("stdout-prp-review", verdict);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    let log = log_of(&harness, &order);
    assert!(log.contains("a change with blockers has not passed"), "{log}");

    harness.tell_agent("stdout-prp-review", "It looks fine to me.\n");
    let (code, said) = harness.command(&["requeue", &order]);
    assert_eq!(code, Some(0), "{said}");
    harness
        .until("select exists (select from agent_work_orders where error_class = 'invalid')")
        .await;
    let log = log_of(&harness, &order);
    assert!(
        log.contains("It looks fine to me.") && log.contains("does not end with a JSON"),
        "{log}"
    );
    harness.assert_sound().await;
}
