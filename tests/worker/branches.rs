//! Where an order starts and where its pull request goes.

use sqlx::PgPool;

use crate::harness::Harness;

const STEPS: &str = "{create-branch,planning,execute,prp-review,commit,create-pr}";

/// Orders work from `base` in a sandbox of a form; answers the file of its pull request.
async fn deliver(harness: &Harness, id: &str, base: Option<&str>, form: Option<&str>) -> String {
    sqlx::query(
        "select awo_enqueue($1, 'Write a file', $2::text::text[], agent_work_order_id => $3,
             base_branch => $4, sandbox_type => $5)",
    )
    .bind(harness.remote_url())
    .bind(STEPS)
    .bind(id)
    .bind(base)
    .bind(form)
    .execute(&harness.pool)
    .await
    .unwrap();
    harness.until_status(id, "completed").await;
    let pulls = std::fs::read_dir(harness.path("remote.git/awo/pulls")).unwrap();
    let texts = pulls.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    texts.filter(|text| text.contains(id)).collect()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_starts_from_its_branch_and_its_pull_request_goes_there(pool: PgPool) {
    let mut harness = Harness::new(pool);
    std::fs::write(harness.path("seed/RELEASE"), "2\n").unwrap();
    harness.git(&["-C", "seed", "checkout", "--quiet", "-b", "release/2.x"]);
    harness.git(&["-C", "seed", "add", "--all"]);
    harness.git(&["-C", "seed", "commit", "--quiet", "--message=Release"]);
    harness.git(&["-C", "seed", "push", "--quiet", "origin", "release/2.x"]);
    harness.start_worker();
    for (id, form) in [("wo-a1", "git_worktree"), ("wo-a2", "git_branch")] {
        let pull = deliver(&harness, id, Some("release/2.x"), Some(form)).await;
        assert!(pull.lines().any(|line| line == "base: \"release/2.x\""), "{pull}");
        let (branches, _) = harness.deliveries();
        let branch = branches.iter().find(|branch| branch.ends_with(id)).unwrap();
        let parent = harness.git(&["-C", "remote.git", "rev-parse", &format!("{branch}^")]);
        assert_eq!(parent, harness.git(&["-C", "remote.git", "rev-parse", "release/2.x"]));
    }

    // The repository's own branch is for orders that name none.
    let policy = "select awo_set_repository_policy($1, '{\"default_branch\": \"release/2.x\"}')";
    sqlx::query(policy).bind(harness.remote_url()).execute(&harness.pool).await.unwrap();
    let pull = deliver(&harness, "wo-a3", None, None).await;
    assert!(pull.lines().any(|line| line == "base: \"release/2.x\""), "{pull}");
    let pull = deliver(&harness, "wo-a4", Some("main"), None).await;
    assert!(pull.lines().any(|line| line == "base: \"main\"" || line == "base: main"), "{pull}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_branch_that_is_not_there_is_named(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.start_worker();
    sqlx::query(
        "select awo_enqueue($1, 'x', agent_work_order_id => 'wo-b', base_branch => 'gone')",
    )
    .bind(harness.remote_url())
    .execute(&harness.pool)
    .await
    .unwrap();
    harness.until_status("wo-b", "failed").await;
    let (_, class, message, attempts) = harness.outcome("wo-b").await;
    assert_eq!((class.as_deref(), attempts), (Some("invalid"), 1), "{message:?}");
    assert!(message.unwrap().contains("no branch \"gone\""));
}
