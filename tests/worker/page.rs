//! Programs written from docs/agents.md alone, as the agents of whole orders.

use sqlx::PgPool;

use crate::{
    agents_page::{example, program},
    harness::Harness,
};

/// Written by somebody who had read the page and nothing else: a reviewer that refuses the first version,
/// so that every task but `verdict` comes up.
const FROM_THE_PAGE: &str = include_str!("from_the_page.sh");

/// Runs an order and a follow-up with an agent; answers the files and the subjects that were delivered.
async fn delivered(pool: PgPool, agent: &std::path::Path) -> (Harness, String) {
    let mut harness = Harness::new(pool);
    harness.start_worker_with(&[("AWO_AGENT_COMMAND", agent.to_str().unwrap())]);
    let order = harness.order("Write down what is asked").await;
    harness.until_status(&order, "completed").await;
    assert_eq!(
        harness.steps(&order).await,
        [
            "create-branch 1 ok",
            "planning 1 ok",
            "execute 1 ok",
            "prp-review 1 ok",
            "commit 1 ok",
            "create-pr 1 ok"
        ]
    );
    let (code, printed) = harness.command(&["prompt", &order, "Say more", "--wait"]);
    assert_eq!(code, Some(0), "{printed}\n{}", harness.logs());
    harness.assert_sound().await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1));
    (harness, branches[0].clone())
}

impl Harness {
    /// A file as it was delivered.
    fn delivered_file(&self, branch: &str, file: &str) -> String {
        self.git(&["-C", "remote.git", "show", &format!("{branch}:{file}")])
    }

    /// The subjects of the commits of a branch, the newest first.
    fn subjects_of(&self, branch: &str) -> Vec<String> {
        let range = format!("main..{branch}");
        let log = self.git(&["-C", "remote.git", "log", "--format=%s", &range]);
        log.lines().map(str::to_owned).collect()
    }

    /// What an order consumed: tokens read, tokens written, dollars.
    async fn consumed(&self) -> (i64, i64, f64) {
        sqlx::query_as(
            "select sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cost_usd)::float8
             from agent_work_order_steps",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_example_in_sh_completes_an_order(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let agent = example("sh", folder.path());
    let (harness, branch) = delivered(pool, &agent).await;
    let notes = harness.delivered_file(&branch, "NOTES.md");
    assert!(notes.contains("Say more"), "{notes}");
    assert_eq!(harness.subjects_of(&branch), ["docs: add notes", "docs: add notes"]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_example_in_python_completes_an_order(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let agent = example("python", folder.path());
    let (harness, branch) = delivered(pool, &agent).await;
    // The follow-up went on in the conversation of `execute`.
    let answers = harness.delivered_file(&branch, "ANSWERS.md");
    assert!(answers.starts_with("Answer 1.\nAnswer "), "{answers}");
    assert!(!answers.ends_with("Answer 1.\n"), "{answers}");
    let (input, output, usd) = harness.consumed().await;
    let calls = input / 900;
    assert!(calls >= 5 && input == calls * 900 && output == calls * 40, "{input} {output}");
    assert!((usd - 0.01 * f64::from(i32::try_from(calls).unwrap())).abs() < 1e-6, "{usd}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_program_written_from_the_page_alone_completes_an_order(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let agent = program(FROM_THE_PAGE, &folder.path().join("from-the-page"));
    let (harness, branch) = delivered(pool, &agent).await;
    let list = harness.delivered_file(&branch, "TODO.md");
    // The blocker was mended in the conversation that had made it.
    assert_eq!(list, "- [ ] 1 (change)\n- [x] 2 (fix)\n- [x] 3 (follow-up)\n");
    assert_eq!(harness.subjects_of(&branch)[0], "docs(todo): keep a list");
}
