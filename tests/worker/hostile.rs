//! What an agent prints is anybody's: no byte and no number of it may wedge its order.

use sqlx::PgPool;

use crate::harness::Harness;

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_failure_whose_words_no_column_can_hold_is_a_failure_all_the_same(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("stderr-execute", "core \0 dumped \u{1b}[31m\n");
    harness.tell_agent("fail-execute", "3");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    let (class, message, crashes): (String, String, i32) = sqlx::query_as(
        "select o.error_class, o.error_message, j.crash_count
         from agent_work_orders o join awo.jobs j on j.id = o.awo_job_id",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!((class.as_str(), crashes), ("tool_error", 0), "{message}");
    assert!(message.contains("dumped"), "{message}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn numbers_beyond_all_measure_neither_fail_an_order_nor_park_it_for_ever(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent(
        "stdout-planning",
        r#"{"type":"result","subtype":"success","result":"1. Do it.","total_cost_usd":1e300,"usage":{"input_tokens":18446744073709551615,"output_tokens":18446744073709551615}}
"#,
    );
    harness.tell_agent(
        "stdout-execute",
        r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":18446744073709551615}}
{"type":"result","subtype":"success","is_error":true,"result":"wait","api_error_status":429}
"#,
    );
    // Long enough to be seen waiting.
    harness.start_worker_with(&[("AWO_RETRY_BASE", "2m"), ("AWO_RETRY_MAX", "2m")]);
    let order = harness.order("Write a file").await;
    harness.until("select state = 'queued' and waits = 1 from awo.jobs").await;
    let (class, soon): (String, bool) =
        sqlx::query_as("select error_class, run_at < now() + interval '8 days' from awo.jobs")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!((class.as_str(), soon), ("rate_limited", true));
    insta::assert_debug_snapshot!(harness.steps(&order).await, @r#"
    [
        "create-branch 1 ok",
        "planning 1 ok",
        "execute 1 failed rate_limited",
    ]
    "#);
    harness.assert_sound().await;
}
