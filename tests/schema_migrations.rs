//! The migrations: on an empty database, on Archon's, by five processes at once, on a newer server.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rows.rs"]
mod rows;

use std::{fs, path::Path, process::Stdio, time::Duration};

use archon_awo::{
    process::blocking_command,
    store::{ConnectError, MIGRATOR, SchemaState, migrate, schema_state},
};
use postgres::Postgres;
use rows::{broken, count, refusal, run, text};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool};

const ARCHON: &str = include_str!("data/archon_tables.sql");

/// Every table, column, function, trigger, policy, constraint and grant, as one hash.
async fn fingerprint(pool: &PgPool) -> String {
    let everything = "SELECT md5(string_agg(line, E'\n' ORDER BY line)) FROM (
        SELECT table_schema || table_name || column_name || data_type || is_nullable AS line
        FROM information_schema.columns WHERE table_schema IN ('public', 'awo')
        UNION ALL SELECT p.oid::regprocedure::text || md5(p.prosrc) || coalesce(p.proacl::text, '')
        FROM pg_proc p WHERE pronamespace::regnamespace::text IN ('public', 'awo')
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
        UNION ALL SELECT polname || polrelid::regclass FROM pg_policy
        UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
        UNION ALL SELECT oid::regclass || coalesce(relacl::text, '') || relrowsecurity FROM pg_class
        WHERE relnamespace::regnamespace::text IN ('public', 'awo')
        UNION ALL SELECT to_jsonb(m)::text FROM awo._sqlx_migrations m) AS t";
    text(pool, everything).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn an_empty_database_is_brought_to_the_newest_version(pool: PgPool) {
    let before = schema_state(&pool).await.unwrap();
    assert_eq!(before.found, 0);
    let behind = before.check().unwrap_err();
    assert_eq!(
        behind.to_string(),
        format!(
            "the database is on schema version 0, this archon-awo needs {}: run `archon-awo migrate`",
            before.expected
        )
    );
    migrate(&pool).await.unwrap();
    let after = schema_state(&pool).await.unwrap();
    assert_eq!(after, SchemaState { found: before.expected, expected: before.expected, oldest: 1 });
    after.check().unwrap();
    check_surface(&pool).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_second_run_changes_nothing(pool: PgPool) {
    let before = fingerprint(&pool).await;
    migrate(&pool).await.unwrap();
    assert_eq!(fingerprint(&pool).await, before);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_newer_schema_is_used_and_left_alone(pool: PgPool) {
    rows::newer_schema(&pool).await;
    let before = fingerprint(&pool).await;
    migrate(&pool).await.unwrap();
    assert_eq!(fingerprint(&pool).await, before);
    let state = schema_state(&pool).await.unwrap();
    assert!(state.is_newer() && state.check().is_ok(), "{state:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_schema_that_left_this_program_behind_is_refused(pool: PgPool) {
    rows::newer_schema(&pool).await;
    run(
        &pool,
        "CREATE OR REPLACE FUNCTION awo.oldest_program() RETURNS bigint LANGUAGE sql AS 'SELECT 9000::bigint'",
    )
    .await
    .unwrap();
    let error = migrate(&pool).await.unwrap_err();
    assert!(matches!(error, ConnectError::TooNew { oldest: 9000, .. }), "{error}");
    let expected = schema_state(&pool).await.unwrap().expected;
    assert_eq!(
        error.to_string(),
        format!(
            "the database is on schema version 9999, where programs made for a version before 9000 do not \
             work any more; this archon-awo was made for {expected}: update archon-awo"
        )
    );
}

#[sqlx::test(migrations = false)]
async fn statements_pass_while_a_migration_waits_for_a_lock(pool: PgPool) {
    MIGRATOR.run_to(12, &pool).await.unwrap();
    // As a backup does: it reads, in a transaction that stays open.
    let mut backup = pool.begin().await.unwrap();
    let read = "SELECT count(*) FROM agent_work_order_steps";
    backup.execute(read).await.unwrap();
    let migrating = tokio::spawn({
        let pool = pool.clone();
        async move { migrate(&pool).await }
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted
        AND relation = 'agent_work_order_steps'::regclass";
    while count(&pool, waits).await == 0 {
        assert!(!migrating.is_finished(), "the migration did not need the lock");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Whoever comes later stands behind the migration, which steps aside after 3 s.
    let later = tokio::time::timeout(Duration::from_secs(5), count(&pool, read)).await;
    assert_eq!(later.unwrap(), 0);
    backup.rollback().await.unwrap();
    migrating.await.unwrap().unwrap();
    schema_state(&pool).await.unwrap().check().unwrap();
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_migration_that_was_edited_after_it_ran_is_refused(pool: PgPool) {
    run(&pool, "UPDATE awo._sqlx_migrations SET checksum = '\\x00' WHERE version = 1")
        .await
        .unwrap();
    let error = migrate(&pool).await.unwrap_err();
    assert!(matches!(error, ConnectError::Migrate(_)), "{error}");
    assert!(error.to_string().starts_with("cannot migrate the database: migration 1 "), "{error}");
}

/// Archon's rows, without those of the tables that are ours.
async fn archons_rows(pool: &PgPool) -> String {
    let rows = "SELECT (SELECT string_agg(to_jsonb(s)::text, ',' ORDER BY key) FROM archon_settings s)
        || (SELECT string_agg(to_jsonb(p)::text, ',') FROM archon_projects p)
        || (SELECT string_agg(to_jsonb(m)::text, ',') FROM archon_migrations m)
        || (SELECT string_agg(pg_get_triggerdef(oid), ',' ORDER BY tgname) FROM pg_trigger
            WHERE tgrelid IN ('archon_settings'::regclass, 'archon_projects'::regclass))
        || (SELECT string_agg(polname, ',') FROM pg_policy WHERE polrelid = 'archon_settings'::regclass)
        || (SELECT relacl::text FROM pg_class WHERE oid = 'archon_settings'::regclass)
        || pg_get_functiondef('update_updated_at_column'::regproc)";
    text(pool, rows).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn archons_tables_keep_their_rows_and_our_tables_keep_its_clients_out(pool: PgPool) {
    pool.execute(ARCHON).await.unwrap();
    let before = archons_rows(&pool).await;
    migrate(&pool).await.unwrap();
    assert_eq!(archons_rows(&pool).await, before);
    run(
        &pool,
        "UPDATE archon_settings SET value = '6', updated_at = 'epoch' WHERE key = 'MATCH_COUNT'",
    )
    .await
    .unwrap();
    let moved =
        "SELECT count(*) FROM archon_settings WHERE updated_at > now() - interval '1 minute'";
    assert_eq!(count(&pool, moved).await, 3, "Archon's trigger works on");
    check_surface(&pool).await;
    check_rights(&pool).await;
}

#[sqlx::test(migrations = false)]
async fn a_settings_table_of_our_own_is_closed_to_clients(pool: PgPool) {
    pool.execute(ARCHON).await.unwrap();
    run(&pool, "DROP TABLE archon_settings").await.unwrap();
    migrate(&pool).await.unwrap();
    for role in ["anon", "authenticated"] {
        assert_eq!(
            as_role(&pool, role, "SELECT count(*) FROM archon_settings").await,
            Err("42501".to_owned()),
            "{role}"
        );
    }
    assert_eq!(
        as_role(
            &pool,
            "service_role",
            "INSERT INTO archon_settings (key, value) VALUES ('a', 'b')"
        )
        .await,
        Ok(())
    );
}

/// Runs one statement as `role` and undoes it; the error is its SQLSTATE.
async fn as_role(pool: &PgPool, role: &str, statement: &str) -> Result<(), String> {
    let mut transaction = pool.begin().await.unwrap();
    transaction.execute(AssertSqlSafe(format!("SET LOCAL ROLE {role}"))).await.unwrap();
    let result = transaction.execute(AssertSqlSafe(statement.to_owned())).await;
    transaction.rollback().await.unwrap();
    result.map(drop).map_err(|error| {
        error
            .as_database_error()
            .unwrap()
            .code()
            .map_or_else(|| panic!("{error}"), std::borrow::Cow::into_owned)
    })
}

/// What each of Supabase's roles may do.
async fn check_rights(pool: &PgPool) {
    run(pool, "SELECT awo_enqueue('acme/app', 'x', agent_work_order_id => 'one')").await.unwrap();
    let allowed = [
        "INSERT INTO agent_work_orders (repository_url, user_request) VALUES ('acme/app', 'x')",
        r#"INSERT INTO awo.jobs (kind, payload) VALUES ('work_order', '{"repository_url": "acme/app", "user_request": "x"}')"#,
        "UPDATE awo.jobs SET priority = 2",
        "UPDATE awo.jobs SET state = 'cancelled'",
        "UPDATE agent_work_orders SET user_request = 'y'",
        "SELECT * FROM agent_work_orders",
        "SELECT * FROM agent_work_order_steps",
        "SELECT * FROM agent_work_order_artifacts",
        "DELETE FROM agent_work_orders",
        "SELECT * FROM awo.jobs",
        "SELECT * FROM awo.log_chunks",
        "SELECT * FROM awo.queue_depth",
        "SELECT * FROM awo.running_now",
        "SELECT * FROM awo.stuck",
        "SELECT * FROM awo.throughput",
        "SELECT * FROM awo.invariants",
        "SELECT * FROM awo.cancellations",
        "SELECT awo_enqueue('acme/app', 'x')",
        "SELECT awo_cancel('one')",
        "SELECT awo_requeue('one')",
        "SELECT awo_pause_queue('default')",
        "SELECT awo_resume_queue('default')",
        "SELECT awo_set_repository_limit('acme/app', 3)",
        "SELECT awo_pause_repository('acme/app')",
        "SELECT awo_resume_repository('acme/app')",
        "SELECT awo_set_repository_policy('acme/app', '{}')",
    ];
    for statement in allowed {
        assert_eq!(as_role(pool, "service_role", statement).await, Ok(()), "{statement}");
        for role in ["anon", "authenticated"] {
            let refused = as_role(pool, role, statement).await;
            assert_eq!(refused, Err("42501".to_owned()), "{role}: {statement}");
        }
    }
    for statement in [
        "SELECT nextval('agent_work_order_steps_id_seq')",
        "SELECT setval('agent_work_order_artifacts_id_seq', 1)",
        "SELECT awo.check_steps('{planning}')",
        "SELECT awo.job_of('one')",
        "TRUNCATE agent_work_orders CASCADE",
    ] {
        for role in ["anon", "authenticated"] {
            assert_eq!(
                as_role(pool, role, statement).await,
                Err("42501".to_owned()),
                "{role}: {statement}"
            );
        }
    }
    // The engine's own tables are not for clients, whoever they are.
    for statement in [
        "INSERT INTO awo.leases (job_id, epoch, worker_id, repo_key, slot, expires_at) VALUES (1, 1, gen_random_uuid(), 'x', 1, now())",
        "DELETE FROM awo.jobs",
        "UPDATE awo.log_chunks SET seq = 1",
        "SELECT awo_after_restore()",
        "SELECT awo.job_of('one')",
    ] {
        assert_eq!(
            as_role(pool, "service_role", statement).await,
            Err("42501".to_owned()),
            "{statement}"
        );
    }
}

/// The SQL surface in short; `schema_inserts.rs` and `schema_states.rs` have it in full.
async fn check_surface(pool: &PgPool) {
    run(pool, "INSERT INTO agent_work_orders (agent_work_order_id, repository_url, user_request) VALUES ('first', 'acme/app', 'x')").await.unwrap();
    run(pool, r#"INSERT INTO awo.jobs (kind, payload) VALUES ('work_order', '{"agent_work_order_id": "second", "repository_url": "https://github.com/acme/app", "user_request": "x"}')"#).await.unwrap();
    run(pool, "SELECT awo_enqueue('acme/app', 'x', '{create-branch,planning}', priority => 5, agent_work_order_id => 'third')").await.unwrap();
    let queued = "SELECT string_agg(work_order_id, ' ' ORDER BY work_order_id) FROM awo.jobs WHERE state = 'queued'";
    assert_eq!(text(pool, queued).await.unwrap(), "first second third");
    let said = refusal(run(pool, "SELECT awo_enqueue('ext::sh', 'x')").await);
    assert!(said.starts_with("repository_url \"ext::sh\" names a git transport helper"), "{said}");
    assert_eq!(text(pool, "SELECT awo_cancel('second')").await.unwrap(), "cancelled");
    assert_eq!(text(pool, "SELECT awo_requeue('second')").await.unwrap(), "second");
    run(pool, "SELECT awo_set_repository_limit('acme/app', 1)").await.unwrap();
    let first: i64 = count(pool, "SELECT id FROM awo.jobs WHERE work_order_id = 'first'").await;
    let third: i64 = count(pool, "SELECT id FROM awo.jobs WHERE work_order_id = 'third'").await;
    assert_eq!(rows::claim(pool, first).await.unwrap(), Some(1));
    assert_eq!(rows::claim(pool, third).await.unwrap(), None);
    let said =
        refusal(run(pool, "UPDATE awo.jobs SET state = 'queued' WHERE state = 'running'").await);
    assert!(said.contains("is running: call awo_cancel('first')"), "{said}");
    assert_eq!(text(pool, "SELECT awo_cancel('first')").await.unwrap(), "requested");
    rows::settle(pool, first, archon_awo::domain::JobState::Cancelled).await.unwrap();
    assert_eq!(rows::status(pool, "first").await, "cancelled");
    run(pool, "SELECT awo_pause_queue('default'), awo_resume_queue('default')").await.unwrap();
    assert_eq!(count(pool, "SELECT sum(ready)::bigint FROM awo.queue_depth").await, 2);
    for view in ["running_now", "stuck"] {
        assert_eq!(count(pool, &format!("SELECT count(*) FROM awo.{view}")).await, 0, "{view}");
    }
    assert_eq!(count(pool, "SELECT count(*) FROM awo.throughput").await, 1);
    assert_eq!(broken(pool).await, [""; 0]);
    run(pool, "DELETE FROM agent_work_orders").await.unwrap();
}

#[sqlx::test(migrations = false)]
async fn five_processes_migrate_one_empty_database_at_once(pool: PgPool) {
    let url = pool.connect_options().to_url_lossy().to_string();
    let home = tempfile::tempdir().unwrap();
    let start = || {
        let mut child = blocking_command(env!("CARGO_BIN_EXE_archon-awo"));
        child.arg("migrate").env("DATABASE_URL", &url).env("HOME", home.path());
        child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = [start(), start(), start(), start(), start()];
    let wait = |child: std::process::Child| child.wait_with_output().unwrap();
    for output in children.map(wait) {
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("the schema"), "{said}{complained}");
    }
    schema_state(&pool).await.unwrap().check().unwrap();
    let applied = "SELECT count(*) FROM awo._sqlx_migrations WHERE success";
    assert_eq!(count(&pool, applied).await, i64::try_from(MIGRATOR.iter().count()).unwrap());
    check_surface(&pool).await;
}

/// A new database on `server`.
async fn database(server: &Postgres, name: &str) -> PgPool {
    let mut admin = PgConnection::connect(&server.url("postgres")).await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    PgPool::connect(&server.url(name)).await.unwrap()
}

#[tokio::test]
async fn everything_holds_on_postgres_18_with_and_without_supabases_roles() {
    let server = Postgres::start_18();
    let bare = database(&server, "bare").await;
    let version = text(&bare, "SHOW server_version_num").await.unwrap();
    assert!(version.starts_with("18"), "{version}");
    migrate(&bare).await.unwrap();
    check_surface(&bare).await;
    assert_eq!(count(&bare, "SELECT count(*) FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')").await, 0);

    let archon = database(&server, "archon").await;
    archon.execute(ARCHON).await.unwrap();
    let before = archons_rows(&archon).await;
    migrate(&archon).await.unwrap();
    assert_eq!(archons_rows(&archon).await, before);
    check_surface(&archon).await;
    check_rights(&archon).await;
    bare.close().await;
    archon.close().await;
}

#[test]
fn each_migration_says_first_what_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    names.sort();
    assert!(!names.is_empty());
    for (path, number) in names.iter().zip(1..) {
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(
            name.starts_with(&format!("{number:04}_")),
            "{name}: expected number {number:04}, without a gap"
        );
        let content = fs::read_to_string(path).unwrap();
        assert!(content.starts_with("-- "), "{name} does not begin with a comment");
        let longest = content.lines().map(str::len).max().unwrap();
        assert!(longest <= 260, "{name} has a line of {longest} characters");
        assert!(!content.contains('\t'), "{name} holds a tab");
    }
}
