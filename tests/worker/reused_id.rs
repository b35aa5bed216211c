//! An id that is used again after its order was deleted: the new order begins anew, and nothing of the old
//! one is lost.

use std::fs;

use sqlx::PgPool;

use crate::harness::Harness;

const ORDER: &str = "wo-again";
const STEPS: &str = "create-branch planning execute";

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_id_used_again_does_not_adopt_the_old_sandbox(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent(
        "extra",
        "[ $AWO_STEP = execute ] && ls > seen.txt && cat \"$0\" > /dev/null && echo x >> old.txt; true",
    );
    harness.start_worker();
    harness.order_named(ORDER, "Write the first thing", STEPS).await;
    harness.until_status(ORDER, "completed").await;
    sqlx::query("delete from agent_work_orders").execute(&harness.pool).await.unwrap();
    harness.order_named(ORDER, "Write the second thing", STEPS).await;
    harness.until_status(ORDER, "completed").await;

    let checkout = harness.path(&format!("repositories/{ORDER}/remote"));
    let seen = fs::read_to_string(checkout.join("seen.txt")).unwrap();
    assert!(!seen.contains("old.txt"), "the second agent saw the files of the first: {seen}");
    let branch: String = sqlx::query_scalar("select git_branch_name from agent_work_orders")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert!(branch.contains("second"), "{branch}");
    let (facts, level): (serde_json::Value, String) = sqlx::query_as(
        "select e, e ->> 'level' from awo.log_chunks,
             lateral (select convert_from(data, 'UTF8')::jsonb as e) e
         where stream = 'event' and e ->> 'event' = 'former_order_set_aside'",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert_eq!(level, "warning");
    let aside = harness.path("work-orders").join(facts["files"].as_str().unwrap());
    assert!(aside.join(facts["bundle"].as_str().unwrap()).is_file(), "{facts}");
    assert!(fs::read_dir(aside.join("outputs")).unwrap().count() > 0);
    let kept = harness.path(&format!("work-orders/{ORDER}/bundles"));
    assert!(!kept.exists(), "the second order has a bundle of the first");
    harness.assert_sound().await;
}
