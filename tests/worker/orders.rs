//! Orders from their insert to their pull request, and what happens to those that cannot be run.

use sqlx::PgPool;

use crate::harness::Harness;

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn both_plain_inserts_end_as_pull_requests(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.start_worker();
    let first: String = sqlx::query_scalar(
        "insert into agent_work_orders (repository_url, user_request) values ($1, 'Write a file')
         returning agent_work_order_id",
    )
    .bind(harness.remote_url())
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    let second: String = sqlx::query_scalar(
        "insert into awo.jobs (kind, payload) values ('work_order', jsonb_build_object(
             'repository_url', $1::text, 'user_request', 'Fix the file'))
         returning work_order_id",
    )
    .bind(harness.remote_url())
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    harness.until_status(&first, "completed").await;
    harness.until_status(&second, "completed").await;

    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (2, 2));
    let feature = format!("refs/heads/feat/write-a-file-{first}");
    let fix = format!("refs/heads/fix/fix-the-file-{second}");
    assert!(branches.contains(&feature) && branches.contains(&fix), "{branches:?}");
    let file = harness.git(&["-C", "remote.git", "show", &format!("{feature}:{first}.txt")]);
    assert_eq!(file, format!("written for {first}\n"));

    insta::assert_debug_snapshot!(harness.steps(&first).await, @r#"
    [
        "create-branch 1 ok",
        "planning 1 ok",
        "execute 1 ok",
        "prp-review 1 ok",
        "commit 1 ok",
        "create-pr 1 ok",
    ]
    "#);
    let url: String = sqlx::query_scalar(
        "select github_pull_request_url from agent_work_orders where agent_work_order_id = $1",
    )
    .bind(&first)
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    let page = std::fs::read_to_string(url.strip_prefix("file://").unwrap()).unwrap();
    assert!(page.contains("Write a file"), "{page}");
    for file in ["metadata.json", "prompts/2-planning-1.md", "outputs/3-execute-1.ndjson"] {
        assert!(harness.path(&format!("work-orders/{first}/{file}")).is_file(), "{file}");
    }
    let kinds: Vec<String> = sqlx::query_scalar(
        "select distinct artifact_type from agent_work_order_artifacts order by 1",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    assert_eq!(kinds, ["diff", "output", "plan", "prompt", "review"]);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_that_changes_nothing_completes_without_a_pull_request(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("idle", "");
    harness.start_worker();
    let order = harness.order("Look around").await;
    harness.until_status(&order, "completed").await;
    assert_eq!(harness.deliveries(), (vec![], vec![]));
    let class: Option<String> = sqlx::query_scalar("select error_class from agent_work_orders")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert_eq!(class.as_deref(), Some("no_changes"));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_failed_order_says_why_and_a_plain_update_runs_it_again(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("fail-execute", "3");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    let (class, message): (String, String) =
        sqlx::query_as("select error_class, error_message from agent_work_orders")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(class, "tool_error");
    assert!(message.contains('3'), "{message}");

    std::fs::remove_file(harness.path("agent/fail-execute")).unwrap();
    sqlx::query("update awo.jobs set state = 'queued' where work_order_id = $1")
        .bind(&order)
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.until("select status = 'completed' from agent_work_orders").await;
    insta::assert_debug_snapshot!(harness.steps(&order).await, @r#"
    [
        "create-branch 1 ok",
        "planning 1 ok",
        "execute 1 failed tool_error",
        "execute 2 ok",
        "prp-review 1 ok",
        "commit 1 ok",
        "create-pr 1 ok",
    ]
    "#);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_requeue_from_a_step_repeats_it_and_what_follows(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("fail-create-pr", "1");
    harness.tell_agent("fail-prp-review", "1");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    std::fs::remove_file(harness.path("agent/fail-prp-review")).unwrap();
    sqlx::query("select awo_requeue($1, from_step => 'planning')")
        .bind(&order)
        .execute(&harness.pool)
        .await
        .unwrap();
    harness.until("select status = 'completed' from agent_work_orders").await;
    let steps = harness.steps(&order).await;
    assert!(steps.contains(&"planning 2 ok".to_owned()), "{steps:?}");
    assert!(steps.contains(&"execute 2 ok".to_owned()), "{steps:?}");
    assert!(!steps.iter().any(|step| step.starts_with("create-branch 2")), "{steps:?}");
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn orders_this_worker_may_not_run_fail_with_a_sentence(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.start_worker();
    let order: String = sqlx::query_scalar("select awo_enqueue('https://forge.example/a/b', 'x')")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    harness.until_status(&order, "failed").await;
    let (class, message): (String, String) =
        sqlx::query_as("select error_class, error_message from agent_work_orders")
            .fetch_one(&harness.pool)
            .await
            .unwrap();
    assert_eq!(class, "invalid");
    assert!(
        message.contains("forge.example") && message.contains("AWO_ALLOWED_HOSTS"),
        "{message}"
    );
    assert!(harness.steps(&order).await.is_empty());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_limit_of_a_repository_holds_however_many_slots_are_free(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.hold("planning");
    harness.start_worker();
    harness.start_worker();
    for _ in 0..5 {
        harness.order("Write a file").await;
    }
    harness.until("select count(*) = 2 from awo.leases").await;
    harness.until("select count(*) = 2 from awo.steps where step_name = 'planning'").await;
    let (running, queued): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where state = 'running'), count(*) filter (where state = 'queued') from awo.jobs",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!((running, queued), (2, 3));
    harness.let_go("planning");
    harness.until("select count(*) = 5 from agent_work_orders where status = 'completed'").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn files_that_nothing_depends_on_fail_no_order(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let kept = harness.path("work-orders/wo-1");
    for name in ["metadata.json", "outputs/2-planning-1.md", "outputs/2-planning-1.plan"] {
        // Nothing replaces a folder that is not empty.
        std::fs::create_dir_all(kept.join(name).join("in-the-way")).unwrap();
    }
    harness.start_worker();
    let steps = "create-branch planning execute";
    harness.order_named("wo-1", "Write a file", steps).await;
    harness.until_status("wo-1", "completed").await;
    let plans: Vec<(String, Option<String>)> = sqlx::query_as(
        "select content, path from agent_work_order_artifacts where artifact_type = 'plan'",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    assert_eq!(plans, [("1. Write a file.".to_owned(), None)]);
    let told: Vec<String> = sqlx::query_scalar(
        "select e ->> 'error' from awo.log_chunks,
             lateral (select convert_from(data, 'UTF8')::jsonb as e) e
         where stream = 'event' and e ->> 'event' = 'file_not_written' and e ->> 'level' = 'warning'",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    for name in ["metadata.json", "2-planning-1.md", "2-planning-1.plan"] {
        assert!(told.iter().any(|words| words.contains(name)), "{name}: {told:?}");
    }
    harness.assert_sound().await;
}
