//! Orders whose agents leave what no commit can hold: said, not passed over, and saved before it is deleted.

use std::fs;

use sqlx::PgPool;

use crate::harness::Harness;

/// An agent that leaves a repository with commits, and no other change when it is told to be `idle`.
const NESTED: &str = r#"
if [ "$AWO_STEP" = execute ]; then
    mkdir -p vendor/inner
    echo inner > vendor/inner/inner.txt
    git -C vendor/inner init --quiet
    git -C vendor/inner add --all
    git -C vendor/inner -c user.name=a -c user.email=a@b commit --quiet -m Inner
fi
true
"#;

async fn artifacts(harness: &Harness, order: &str) -> Vec<(String, i64)> {
    sqlx::query_as(
        "select path, size_bytes from agent_work_order_artifacts
         where agent_work_order_id = $1 and artifact_type = 'left_out'",
    )
    .bind(order)
    .fetch_all(&harness.pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_a_commit_does_not_hold_is_named_and_saved(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", NESTED);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    let text: String = sqlx::query_scalar(
        "select output from agent_work_order_steps where agent_work_order_id = $1 and step_name = 'commit'",
    )
    .bind(&order)
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    let line = "Not committed: \"vendor/inner\" (a git repository of its own with commits). It is saved \
                before the sandbox is removed.";
    assert!(text.ends_with(line), "{text}");
    let (_, log) = harness.command(&["logs", &order]);
    assert!(log.contains("files_left_out") && log.contains("vendor/inner"), "{log}");

    sqlx::query("update awo.jobs set finished_at = now() - interval '30 days'")
        .execute(&harness.pool)
        .await
        .unwrap();
    let (code, printed) = harness.command(&["gc"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(!harness.path(&format!("repositories/{order}")).exists(), "{printed}");
    let kept = artifacts(&harness, &order).await;
    assert_eq!(kept.len(), 1, "{printed}");
    let file = harness.path("work-orders").join(&kept[0].0);
    assert_eq!(fs::metadata(&file).unwrap().len(), u64::try_from(kept[0].1).unwrap());
    let tar = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&file).unwrap()));
    let into = harness.path("into");
    { tar }.unpack(&into).unwrap();
    let inner = into.join("vendor/inner");
    assert_eq!(harness.git(&["-C", inner.to_str().unwrap(), "log", "--format=%s"]), "Inner\n");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_with_nothing_but_that_fails_and_says_what_to_do(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("extra", NESTED);
    harness.tell_agent("idle", "");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    let (class, message): (String, String) = sqlx::query_as(
        "select error_class, error_message from agent_work_orders where agent_work_order_id = $1",
    )
    .bind(&order)
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(class, "invalid", "{message}");
    assert!(
        message.starts_with(
            "there is nothing to commit, but the agent left what no commit can hold: \"vendor/inner\" (a \
             git repository of its own with commits); say what should become of it with archon-awo prompt"
        ),
        "{message}"
    );
    harness.assert_sound().await;
}
