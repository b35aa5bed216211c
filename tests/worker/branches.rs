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

/// Branches that exist before an order with this request, and the name that it gets instead.
async fn beside(pool: PgPool, existing: &[&str], request: &str, expected: &str) {
    let mut harness = Harness::new(pool);
    for branch in existing {
        harness.git(&["-C", "remote.git", "branch", branch, "main"]);
    }
    harness.start_worker();
    let steps = "create-branch planning execute commit create-pr";
    harness.order_named("wo-n", request, steps).await;
    harness.until_status("wo-n", "completed").await;
    let (branches, pulls) = harness.deliveries();
    assert!(branches.contains(&format!("refs/heads/{expected}")), "{branches:?}");
    assert_eq!((branches.len(), pulls.len()), (existing.len() + 1, 1), "{branches:?}");
    let name: Option<String> = sqlx::query_scalar("select git_branch_name from agent_work_orders")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert_eq!(name.as_deref(), Some(expected));
    harness.assert_sound().await;
}

macro_rules! names_beside {
    ($($name:ident: $existing:expr, $request:literal => $expected:literal,)*) => {$(
        #[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
        async fn $name(pool: PgPool) {
            beside(pool, &$existing, $request, $expected).await;
        }
    )*};
}

names_beside! {
    a_branch_named_like_a_type_is_stepped_around: ["test"], "Test the parser" => "test-test-the-parser-wo-n",
    so_is_one_in_other_letters: ["Feat"], "Write a file" => "feat-write-a-file-wo-n",
    a_branch_below_the_wanted_one_is_stepped_around: ["feat/write-a-file-wo-n/x/y"], "Write a file" => "feat/write-a-file-wo-n-2",
    a_name_that_is_taken_gets_a_number: ["feat/write-a-file-wo-n", "Feat/Write-a-file-wo-n-2"], "Write a file" => "feat/write-a-file-wo-n-3",
    both_at_once_are_stepped_around: ["feat", "feat-write-a-file-wo-n"], "Write a file" => "feat-write-a-file-wo-n-2",
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_branch_that_gets_in_the_way_while_the_agent_works_is_named_with_the_way_out(
    pool: PgPool,
) {
    let mut harness = Harness::new(pool);
    harness.hold("execute");
    harness.start_worker();
    harness.order_named("wo-n", "Write a file", "create-branch planning execute commit").await;
    harness.until_agent_in("execute").await;
    harness.git(&["-C", "remote.git", "branch", "feat", "main"]);
    harness.let_go("execute");
    harness.until_status("wo-n", "failed").await;
    let (_, _, message, attempts) = harness.outcome("wo-n").await;
    let message = message.unwrap();
    assert!(message.contains("\"feat\"") && message.contains("create-branch"), "{message}");
    assert_eq!(attempts, 1, "{message}");
    let (code, said) = harness.command(&["requeue", "wo-n", "--from-step", "create-branch"]);
    assert_eq!(code, Some(0), "{said}");
    harness.until("select status = 'completed' from agent_work_orders").await;
    let (branches, _) = harness.deliveries();
    assert!(branches.contains(&"refs/heads/feat-write-a-file-wo-n".to_owned()), "{branches:?}");
    harness.assert_sound().await;
}
