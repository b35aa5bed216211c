//! What may be ordered: both inserts and `awo_enqueue`, and every way in which an order is refused.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/rows.rs"]
mod rows;

use archon_awo::domain::{InvalidRepositoryUrl, RemoteRules, RepositoryUrl, StepName, Steps};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rows::{REPOSITORY, broken, count, refusal, run, text};
use sqlx::{PgPool, postgres::PgPoolOptions};

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_inserted_order_is_queued_in_the_same_transaction(pool: PgPool) {
    let insert = "INSERT INTO agent_work_orders (repository_url, user_request)
                  VALUES ('https://github.com/acme/app.git', 'Add a test')";
    let mut undone = pool.begin().await.unwrap();
    sqlx::query(insert).execute(&mut *undone).await.unwrap();
    undone.rollback().await.unwrap();
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 0);

    run(&pool, insert).await.unwrap();
    let row = text(
        &pool,
        "SELECT concat_ws(' ', j.kind, j.state, j.queue, j.repo_key, o.status, o.sandbox_type,
             array_to_string(o.selected_commands, ','), j.work_order_id = o.agent_work_order_id,
             o.agent_work_order_id ~ '^wo-[0-9a-f]{12}$')
         FROM agent_work_orders o JOIN awo.jobs j ON j.id = o.awo_job_id",
    );
    assert_eq!(
        row.await.unwrap(),
        "work_order queued default github.com/acme/app pending git_worktree \
         create-branch,planning,execute,prp-review,commit,create-pr t t"
    );
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_inserted_job_makes_its_order(pool: PgPool) {
    let id: String = sqlx::query_scalar(
        r#"INSERT INTO awo.jobs (kind, payload, priority) VALUES ('work_order', '{
            "agent_work_order_id": "team-7", "repository_url": "acme/app", "user_request": "Fix it",
            "selected_commands": ["create-branch", "planning", "execute", "commit"],
            "github_issue_number": 12, "sandbox_type": "git_branch", "base_branch": "release/2.x",
            "unknown": true}', 5)
        RETURNING work_order_id"#,
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(id, "team-7");
    let row = text(
        &pool,
        "SELECT concat_ws(' ', repository_url, user_request, array_to_string(selected_commands, ','),
             github_issue_number, sandbox_type, base_branch, status) FROM agent_work_orders",
    );
    assert_eq!(
        row.await.unwrap(),
        "acme/app Fix it create-branch,planning,execute,commit 12 git_branch release/2.x pending"
    );
    assert_eq!(broken(&pool).await, [""; 0]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_job_that_a_conflict_drops_leaves_no_order_behind(pool: PgPool) {
    let insert = r#"INSERT INTO awo.jobs (payload, idempotency_key)
        VALUES ('{"repository_url": "acme/app", "user_request": "x"}', 'once') ON CONFLICT DO NOTHING"#;
    run(&pool, insert).await.unwrap();
    run(&pool, insert).await.unwrap();
    assert_eq!(count(&pool, "SELECT count(*) FROM agent_work_orders").await, 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn jobs_of_other_kinds_need_no_repository(pool: PgPool) {
    run(&pool, "INSERT INTO awo.jobs (kind, queue) VALUES ('prune', 'night')").await.unwrap();
    let row =
        text(&pool, "SELECT concat_ws(' ', repo_key, queue, work_order_id IS NULL) FROM awo.jobs");
    assert_eq!(row.await.unwrap(), "@prune night t");
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.queues WHERE name = 'night'").await, 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_payload_that_cannot_be_run_is_refused_with_the_name_of_its_field(pool: PgPool) {
    let with =
        |more: &str| format!(r#"{{"repository_url": "acme/app", "user_request": "x"{more}}}"#);
    let cases = [
        ("[]".to_owned(), "payload is of type array"),
        ("{}".to_owned(), "repository_url is empty"),
        (
            r#"{"repository_url": 5, "user_request": "x"}"#.to_owned(),
            "payload field repository_url is of type number",
        ),
        (r#"{"repository_url": "acme/app"}"#.to_owned(), "user_request is empty"),
        (
            format!(
                r#"{{"repository_url": "acme/app", "user_request": "{}"}}"#,
                "é".repeat(1 << 19) + "x"
            ),
            "user_request has 1048577 bytes: expected at most 1048576",
        ),
        (
            r#"{"repository_url": "acme/app", "user_request": " \n\t"}"#.to_owned(),
            "user_request is empty",
        ),
        (
            r#"{"repository_url": "acme/app", "user_request": ["x"]}"#.to_owned(),
            "payload field user_request is of type array",
        ),
        (
            with(r#", "selected_commands": "execute""#),
            "payload field selected_commands is of type string",
        ),
        (with(r#", "selected_commands": []"#), "selected_commands is empty"),
        (with(r#", "selected_commands": [1]"#), "selected_commands contains \"1\""),
        (with(r#", "selected_commands": [null]"#), "selected_commands contains \"NULL\""),
        (with(r#", "selected_commands": ["create-pr"]"#), "create-pr without commit"),
        (
            with(r#", "agent_work_order_id": "../x""#),
            "agent_work_order_id \"../x\" cannot be used as a folder name",
        ),
        (
            with(r#", "agent_work_order_id": 7"#),
            "payload field agent_work_order_id is of type number",
        ),
        (with(r#", "github_issue_number": "abc""#), "github_issue_number is \"abc\""),
        (with(r#", "github_issue_number": 1.5"#), "github_issue_number is \"1.5\""),
        (with(r#", "sandbox_type": "docker""#), "sandbox_type is \"docker\""),
        (with(r#", "base_branch": "-x""#), "base_branch is \"-x\""),
        (with(r#", "base_branch": ["main"]"#), "payload field base_branch is of type array"),
        (with(r#", "workflow_type": {}"#), "payload field workflow_type is of type object"),
    ];
    for (payload, words) in cases {
        let insert = sqlx::query(
            "INSERT INTO awo.jobs (kind, payload) VALUES ('work_order', $1::text::jsonb)",
        );
        let said = refusal(insert.bind(&payload).execute(&pool).await);
        assert!(said.contains(words), "{payload}: {said}");
    }
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 0);
    assert_eq!(count(&pool, "SELECT count(*) FROM agent_work_orders").await, 0);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn columns_that_cannot_be_run_are_refused_with_their_name(pool: PgPool) {
    let order = |columns: &str, values: &str| {
        format!(
            "INSERT INTO agent_work_orders (repository_url, user_request{columns}) VALUES ('acme/app', 'x'{values})"
        )
    };
    let job = |columns: &str, values: &str| {
        format!(
            r#"INSERT INTO awo.jobs (payload{columns}) VALUES ('{{"repository_url": "acme/app", "user_request": "x"}}'{values})"#
        )
    };
    let cases = [
        (
            "INSERT INTO agent_work_orders (user_request) VALUES ('x')".to_owned(),
            "repository_url is empty",
        ),
        (
            "INSERT INTO agent_work_orders (repository_url) VALUES ('acme/app')".to_owned(),
            "user_request is empty",
        ),
        (order(", selected_commands", ", '{deploy}'"), "selected_commands contains \"deploy\""),
        (
            order(", selected_commands", ", '{{create-branch},{planning}}'"),
            "selected_commands is a nested array",
        ),
        (order(", status", ", 'completed'"), "status of a new order is \"completed\""),
        (order(", awo_job_id", ", 77"), "awo_job_id is 77"),
        (order(", agent_work_order_id", ", 'a.lock'"), "agent_work_order_id \"a.lock\""),
        (order(", github_issue_number", ", '-3'"), "github_issue_number is \"-3\""),
        (job(", state", ", 'succeeded'"), "state of a new job is \"succeeded\""),
        (job(", queue", ", 'Bad Queue'"), "queue is \"Bad Queue\""),
        (job(", work_order_id", ", 'none'"), "work_order_id is \"none\""),
        (job(", max_attempts", ", 0"), "max_attempts"),
        ("INSERT INTO awo.jobs (kind) VALUES ('Prune!')".to_owned(), "kind is \"Prune!\""),
        ("SELECT awo_enqueue('acme/app', 'x', priority => 40000)".to_owned(), "priority is 40000"),
        ("SELECT awo_enqueue('acme/app', '')".to_owned(), "user_request is empty"),
    ];
    for (statement, words) in cases {
        let said = refusal(run(&pool, &statement).await);
        assert!(said.contains(words), "{statement}: {said}");
    }
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 0);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_id_that_is_taken_is_refused_in_words(pool: PgPool) {
    let enqueue = "SELECT awo_enqueue('acme/app', 'x', agent_work_order_id => 'mine')";
    run(&pool, enqueue).await.unwrap();
    assert!(refusal(run(&pool, enqueue).await).contains("agent_work_order_id \"mine\" is taken"));
    assert_eq!(count(&pool, "SELECT count(*) FROM awo.jobs").await, 1);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn twenty_racing_calls_with_one_key_make_one_order(pool: PgPool) {
    let many = PgPoolOptions::new().max_connections(20);
    let many = many.connect_with((*pool.connect_options()).clone()).await.unwrap();
    let calls = (0..20).map(|_| {
        sqlx::query_scalar::<_, String>("SELECT awo_enqueue($1, 'x', idempotency_key => 'issue-7')")
            .bind(REPOSITORY)
            .fetch_one(&many)
    });
    let mut ids = futures::future::try_join_all(calls).await.unwrap();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(count(&pool, "SELECT count(*) FROM agent_work_orders").await, 1);

    run(&pool, "UPDATE awo.jobs SET state = 'cancelled'").await.unwrap();
    let again =
        text(&pool, "SELECT awo_enqueue('acme/app', 'x', idempotency_key => 'issue-7')").await;
    assert_ne!(again.unwrap(), ids[0], "an ended order does not hold its key");
    many.close().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_can_be_edited_only_to_something_that_can_be_run(pool: PgPool) {
    rows::order(&pool).await;
    for (change, words) in [
        ("repository_url = 'acme/other'", "repository_url of order"),
        ("agent_work_order_id = 'x'", "agent_work_order_id"),
        ("user_request = ''", "user_request is empty"),
        ("selected_commands = '{execute}'", "execute without planning"),
        ("status = 'completed'", "it follows the queue, call awo_cancel("),
        ("status = 'running'", "it follows the queue, call awo_cancel("),
    ] {
        let said = refusal(run(&pool, &format!("UPDATE agent_work_orders SET {change}")).await);
        assert!(said.contains(words), "{change}: {said}");
    }
    run(&pool, "UPDATE agent_work_orders SET user_request = 'Something else'").await.unwrap();
}

/// Every refusal by `function` of `$1`'s elements, NULL where one is accepted.
async fn verdicts<T>(pool: &PgPool, function: &str, cases: Vec<T>) -> Vec<Option<String>>
where
    T: serde::Serialize,
{
    // jsonb carries lists of lists; the helper turns an exception into its words.
    let kind = if function == "awo.check_steps" {
        "ARRAY(SELECT jsonb_array_elements_text(c))"
    } else {
        "c #>> '{}'"
    };
    run(
        pool,
        &format!(
            "CREATE OR REPLACE FUNCTION public.verdict(c jsonb) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN PERFORM {function}({kind}); RETURN NULL;
             EXCEPTION WHEN invalid_parameter_value THEN RETURN SQLERRM; END $$"
        ),
    )
    .await
    .unwrap();
    sqlx::query_scalar(
        "SELECT public.verdict(c) FROM jsonb_array_elements($1) WITH ORDINALITY AS t (c, n) ORDER BY n",
    )
    .bind(serde_json::to_value(cases).unwrap())
    .fetch_all(pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_rules_for_steps_are_those_of_the_domain_word_for_word(pool: PgPool) {
    let mut words: Vec<&str> = StepName::ALL.map(StepName::as_str).to_vec();
    let mut lists: Vec<Vec<&str>> = vec![vec![]];
    // Every subset in order.
    for bits in 0..64_u32 {
        lists.push((0..6).filter(|i| bits >> i & 1 == 1).map(|i| words[i]).collect());
    }
    words.push("deploy");
    // Every list of up to three, repetitions included.
    for &a in &words {
        lists.push(vec![a]);
        for &b in &words {
            lists.push(vec![a, b]);
            lists.extend(words.iter().map(|&c| vec![a, b, c]));
        }
    }
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..600 {
        let length = rng.random_range(3..8);
        lists.push((0..length).map(|_| words[rng.random_range(0..6)]).collect());
    }
    let said = verdicts(&pool, "awo.check_steps", lists.clone()).await;
    for (list, said) in lists.iter().zip(said) {
        assert_eq!(said, Steps::parse(list).err().map(|error| error.to_string()), "{list:?}");
    }
}

fn rules() -> RemoteRules {
    let allowed_hosts = ["github.com", "git.example.com:8443", "gitlab.com"];
    RemoteRules { allowed_hosts: allowed_hosts.map(str::to_owned).to_vec(), allow_local: true }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn every_address_the_domain_refuses_is_refused_at_the_insert(pool: PgPool) {
    let refused = vec![
        "",
        " ",
        "\t",
        "-",
        "--upload-pack=touch x",
        "-oProxyCommand=x",
        "ext::sh -c id",
        "ext::sh",
        "fd::17",
        "https://github.com/a\n/b",
        "https://github.com/a/b\r",
        "https://github.com/a b/c",
        "https://github.com/a/b\u{a0}",
        "https://github.com/a/b\u{2028}",
        "https://github.com/a/b\u{85}",
        "https://u:hunter2@github.com/a/b",
        "https://hunter2@github.com/a/b",
        "ssh://u:hunter2@github.com/a/b",
        "http://u:hunter2@github.com/a/b",
        "u:hunter2@github.com/a/b",
        "git@u:hunter2@github.com/a/b",
        "ssh://git@github.com/a/b",
        "http://github.com/a/b",
        "git://github.com/a/b",
        "HTTPS://github.com/a/b",
        "ftp://github.com/a/b",
        "https://github.com",
        "https://github.com/",
        "https://github.com/only",
        "https://github.com/only/",
        "https://github.com//b",
        "https://github.com/a//b",
        "https://github.com/a/../b",
        "https://github.com/a/..",
        "https://github.com/./b",
        "https://github.com/a/.git",
        "https://github.com/a/-b",
        "https://github.com/-a/b",
        "https://github.com/.a/b",
        "https://github.com/a/b?x=1",
        "https://github.com/a/b#x",
        "https://github.com/a/%2e%2e/b",
        "https://github.com/a/b%00",
        "https://github.com/a/b;id",
        "https://github.com/a/ü",
        "https://github.com/a/$(id)",
        "https:///a/b",
        "git@github.com",
        "git@github.com:only",
        "git@github.com:/a/b",
        "git@github.com:a/../b",
        "git@:a/b",
        "a/b/c",
        "a/",
        "/a",
        "a",
        "a/..",
        "./b",
        "../b",
        "a/-b",
        "a/.git",
        "C:\\a\\b",
        "file://host/a",
        "file:///",
        "file:///srv/../etc",
        "file:///srv/./x",
        "file:///srv/-x",
        "file:///srv/.git",
        "file:///srv/..",
        "file://srv",
        "/srv/repository",
        "a/b:c",
        "a:b/c",
    ];
    let said = verdicts(&pool, "awo.check_repository_url", refused.clone()).await;
    for (url, said) in refused.iter().zip(said) {
        assert!(RepositoryUrl::parse(url, &rules()).is_err(), "the domain accepts {url:?}");
        let said = said.unwrap_or_else(|| panic!("the database accepts {url:?}"));
        assert!(
            said.starts_with("repository_url ")
                && said.contains("expected ") | said.contains("remove"),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
    }
    let null: Result<(), _> = run(&pool, "SELECT awo.check_repository_url(NULL)").await;
    assert!(refusal(null).contains("repository_url is empty"));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn every_spelling_of_a_repository_has_one_key(pool: PgPool) {
    for (url, key) in [
        ("https://github.com/acme/app", "github.com/acme/app"),
        ("https://GitHub.com:443/Acme/App.git", "github.com/acme/app"),
        ("https://github.com/acme/app.git/", "github.com/acme/app"),
        ("https://github.com/acme/app//", "github.com/acme/app"),
        ("git@github.com:acme/app.git", "github.com/acme/app"),
        ("Acme/app", "github.com/acme/app"),
        ("https://gitlab.com/group/sub/app", "gitlab.com/group/sub/app"),
        ("https://git.example.com:8443/acme/app", "git.example.com:8443/acme/app"),
        ("file:///srv/git/App.git", "file:///srv/git/App"),
        ("file:///srv/git/a@b", "file:///srv/git/a@b"),
    ] {
        let parsed = RepositoryUrl::parse(url, &rules()).unwrap();
        if parsed.local_path().is_none() {
            let own = format!("{}/{}/{}", parsed.host(), parsed.owner(), parsed.name());
            assert_eq!(own.to_lowercase(), key);
        }
        let (_, job) = rows::order_in(&pool, url).await;
        let stored = text(&pool, &format!("SELECT repo_key FROM awo.jobs WHERE id = {job}")).await;
        assert_eq!(stored.as_deref(), Some(key), "{url}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn addresses_made_of_random_pieces_are_judged_alike(pool: PgPool) {
    const PIECES: [&str; 26] = [
        "https://",
        "http://",
        "file://",
        "git@",
        "ssh://",
        "github.com",
        "git.example.com:8443",
        "gitlab.com",
        "/",
        "/",
        "/",
        ":",
        "@",
        "acme",
        "app",
        ".git",
        ".",
        "..",
        "-",
        "_",
        "a.b",
        "::",
        ":443",
        " ",
        "é",
        "~",
    ];
    let mut rng = StdRng::seed_from_u64(11);
    let mut urls = Vec::new();
    for _ in 0..6000 {
        let length = rng.random_range(1..9);
        urls.push(
            (0..length).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect::<String>(),
        );
    }
    let said = verdicts(&pool, "awo.check_repository_url", urls.clone()).await;
    let mut accepted = 0;
    for (url, said) in urls.iter().zip(said) {
        match RepositoryUrl::parse(url, &rules()) {
            // Which hosts are allowed is the worker's setting, unknown to the database.
            Err(InvalidRepositoryUrl::HostNotAllowed { .. }) => {}
            Err(error) => assert!(said.is_some(), "the database accepts {url:?}: {error}"),
            Ok(_) => {
                accepted += 1;
                assert_eq!(said, None, "the domain accepts {url:?}");
            }
        }
    }
    assert!(accepted > 20, "only {accepted} addresses were usable: the pieces say nothing");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_database_and_the_program_know_the_same_branch_names(pool: PgPool) {
    for name in [
        "main",
        "release/2.x",
        "a",
        "a-b_c+d",
        "v1.2.3",
        "-x",
        "a b",
        "a..b",
        "a/",
        "/a",
        "a//b",
        "a.lock",
        "a.LOCK/b",
        "a/.b",
        "a/-b",
        "a.",
        "a./b",
        "a@{1}",
        "HEAD",
        "a~1",
        "a\u{7}",
        "\u{e9}",
        "",
    ] {
        let known: bool = sqlx::query_scalar("SELECT awo.is_branch($1)")
            .bind(name)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(known, name.parse::<archon_awo::domain::BranchName>().is_ok(), "{name:?}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_an_order_leaves_out_comes_from_its_repository(pool: PgPool) {
    let form = "SELECT concat_ws(' ', sandbox_type, base_branch) FROM agent_work_orders
         WHERE agent_work_order_id = $$";
    let ask = |id: &str| form.replace("$$", &format!("'{id}'"));
    run(&pool, "SELECT awo_enqueue('acme/app', 'x', agent_work_order_id => 'one')").await.unwrap();
    assert_eq!(text(&pool, &ask("one")).await.unwrap(), "git_worktree");
    run(&pool, "UPDATE awo.repositories SET default_sandbox_type = 'git_branch'").await.unwrap();
    run(&pool, "SELECT awo_enqueue('acme/app', 'x', agent_work_order_id => 'two')").await.unwrap();
    assert_eq!(text(&pool, &ask("two")).await.unwrap(), "git_branch");
    let named = "SELECT awo_enqueue('acme/app', 'x', agent_work_order_id => 'three',
        base_branch => 'develop', sandbox_type => 'git_worktree')";
    run(&pool, named).await.unwrap();
    assert_eq!(text(&pool, &ask("three")).await.unwrap(), "git_worktree develop");
    let by_hand = "UPDATE agent_work_orders SET base_branch = 'a b'";
    assert!(refusal(run(&pool, by_hand).await).contains("agent_work_orders_base_branch"));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_request_of_one_mebibyte_is_the_longest_however_it_is_written(pool: PgPool) {
    let insert =
        "INSERT INTO agent_work_orders (repository_url, user_request) VALUES ('acme/app', $1)";
    sqlx::query(insert).bind("é".repeat(1 << 19)).execute(&pool).await.unwrap();
    let longer = "x".repeat((1 << 20) + 1);
    let said = refusal(sqlx::query(insert).bind(&longer).execute(&pool).await);
    assert!(said.contains("user_request has 1048577 bytes"), "{said}");
    let update = "UPDATE agent_work_orders SET user_request = $1";
    let said = refusal(sqlx::query(update).bind(&longer).execute(&pool).await);
    assert!(said.contains("user_request has 1048577 bytes"), "{said}");
    // Who may switch triggers off is held by the table itself.
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("SET LOCAL session_replication_role = replica")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let said = refusal(sqlx::query(update).bind(&longer).execute(&mut *transaction).await);
    assert!(said.contains("agent_work_orders_user_request"), "{said}");
}
