//! What Claude says counts as an answer, and what it did besides is in the order's log. A script stands in for
//! the CLI here, so that it says exactly what it should.

use sqlx::PgPool;

use crate::harness::Harness;

const STEPS: &str = "create-branch planning execute commit create-pr";

/// Ends a run as the CLI does: with a text and, if given, more members of the result line.
const SAYS: &str = r#"
says() {
    printf '{"type":"system","subtype":"init"}\n'
    printf '{"type":"result","subtype":"success","is_error":false,"result":"%s"%s}\n' "$1" "$2"
    exit 0
}
"#;

/// Loses its last words the first time, then works in its checkout and in a worktree of it.
const LOSES_ITS_WORDS: &str = r#"
case "$AWO_STEP" in
planning) says "1. Write a file." ;;
execute)
    [ -e "$folder/lost" ] || { touch "$folder/lost"; exit 0; }
    echo written > file.txt
    git worktree add --quiet .claude/worktrees/side >&2
    says "Done." ',"permission_denials":[{"tool_name":"Bash","tool_use_id":"1","tool_input":{"command":"rm -rf build/*"}}]' ;;
commit) says "feat: write a file" ;;
create-pr) says 'Write a file\n\nAs ordered.' ;;
esac
"#;

/// Says something on the way to a tool, and nothing in the end.
const NO_ANSWER: &str = r#"
printf '{"type":"assistant","message":{"id":"1","content":[{"type":"text","text":"Let me look first."}]}}\n'
printf '{"type":"assistant","message":{"id":"1","content":[{"type":"tool_use","id":"t","name":"Read"}]}}\n'
printf '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t"}]}}\n'
says ""
"#;

fn claude(pool: PgPool, script: &str) -> Harness {
    let mut harness = Harness::new(pool);
    harness.set("AWO_AGENT", "claude");
    harness.set("CLAUDE_CLI_PATH", harness.path("agent/agent.sh").display().to_string());
    harness.tell_agent("extra", &format!("{SAYS}{script}"));
    harness.start_worker();
    harness
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn lost_words_refused_calls_and_other_worktrees_are_told_and_fail_nothing(pool: PgPool) {
    let harness = claude(pool, LOSES_ITS_WORDS);
    harness.order_named("wo-words", "Write a file", STEPS).await;
    harness.until_status("wo-words", "completed").await;
    let (_, log) = harness.command(&["logs", "wo-words"]);
    for words in ["answer_lost", "tool_refused", "rm -rf build/*", "worktrees_left"] {
        assert!(log.contains(words), "{words:?} is not in the log:\n{log}");
    }
    assert!(log.contains(".claude/worktrees/side"), "{log}");
    let steps = harness.steps("wo-words").await;
    assert!(steps.contains(&"execute 1 ok".to_owned()), "{steps:?}");
    let runs = harness.agent_runs().iter().filter(|run| run[1] == "execute").count();
    assert_eq!(runs, 2);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_agent_that_loses_its_words_twice_fails_its_step(pool: PgPool) {
    let harness = claude(pool, "exit 0\n");
    harness.order_named("wo-words", "Write a file", STEPS).await;
    harness.until_status("wo-words", "failed").await;
    let (_, class, message, _) = harness.outcome("wo-words").await;
    assert_eq!(class.as_deref(), Some("tool_error"));
    assert!(message.unwrap().contains("without a result line"));
    assert_eq!(harness.agent_runs().len(), 2);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_remark_on_the_way_is_no_plan(pool: PgPool) {
    let harness = claude(pool, NO_ANSWER);
    harness.order_named("wo-words", "Write a file", STEPS).await;
    harness.until_status("wo-words", "failed").await;
    let (_, class, message, _) = harness.outcome("wo-words").await;
    assert_eq!(class.as_deref(), Some("tool_error"));
    assert!(message.unwrap().starts_with("planning gave no plan"));
    harness.assert_sound().await;
}
