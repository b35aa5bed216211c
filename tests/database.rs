//! Databases a worker cannot use, or not as it wants: each said in a sentence with what to do, by the real
//! program against a real server whose roles and settings the test makes.
#![expect(clippy::unwrap_used, reason = "tests")]

mod command;
#[path = "database/entrances.rs"]
mod entrances;
#[path = "support/pgbouncer.rs"]
mod pgbouncer;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/role.rs"]
mod role;

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr},
    time::Duration,
};

use archon_awo::store::{self, DatabaseMode, MIGRATOR};
use command::{Program, Ran};
use futures::future::try_join_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgbouncer::Pgbouncer;
use postgres::Postgres;
use role::{Role, say};
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool};

/// Runs the program off the threads of the test.
async fn run(program: Program, arguments: &[&'static str]) -> (Program, Ran) {
    let arguments = arguments.to_vec();
    tokio::task::spawn_blocking(move || {
        let ran = program.run(&arguments);
        (program, ran)
    })
    .await
    .unwrap()
}

/// The check `name` of `doctor`: whether all is well, what was found, and what to do.
async fn doctor(program: Program, name: &str) -> (Program, (bool, String, String)) {
    let (program, ran) = run(program, &["doctor", "--json"]).await;
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name} in {}", ran.stdout));
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    (program, (check["ok"] == true, text("detail"), text("help")))
}

/// A worker, and what it logs.
struct Worker {
    child: Child,
    lines: BufReader<ChildStderr>,
    log: String,
}

impl Worker {
    fn start(program: &Program) -> Self {
        let mut child = program.spawn(&["worker"]);
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines, log: String::new() }
    }

    /// Reads its log until a line has all of `words`; the log ends when the worker does.
    fn says(&mut self, words: &[&str]) -> String {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "the worker ended without saying {words:?}: {}", self.log);
            self.log.push_str(&line);
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    /// Its whole log, once it has ended in order.
    fn stop(mut self) -> String {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        std::io::Read::read_to_string(&mut self.lines, &mut self.log).unwrap();
        let code = self.child.wait().unwrap().code();
        assert_eq!(code, Some(0), "{}", self.log);
        self.log
    }
}

fn worker_program(program: Program) -> Program {
    program.with("ARCHON_AWO_ENABLED", "false").with("AWO_ALLOWED_HOSTS", "git.example")
}

#[sqlx::test(migrations = false)]
async fn a_pgbouncer_in_session_mode_needs_no_setting(pool: PgPool) {
    let pooler = Pgbouncer::start(&pool, "session");
    let program = worker_program(Program::new().with("DATABASE_URL", pooler.url()));
    let (program, ran) = run(program, &["migrate"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    say(&pool, "SELECT awo_enqueue('acme/app', 'x', agent_work_order_id => 'one')").await;
    let (program, ran) = run(program, &["list", "--json"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("\"one\""), "{}", ran.stderr);
    say(&pool, "SELECT awo_pause_queue('default')").await;
    let work = tokio::task::spawn_blocking(move || {
        let mut worker = Worker::start(&program);
        worker.says(&["worker started"]);
        worker.stop()
    });
    let log = work.await.unwrap();
    assert!(!log.contains("cannot listen") && !log.contains("heartbeat failed"), "{log}");
}

#[sqlx::test(migrations = false)]
async fn a_pgbouncer_in_transaction_mode_needs_its_mode_named(pool: PgPool) {
    let pooler = Pgbouncer::start(&pool, "transaction");
    let program = worker_program(Program::new().with("DATABASE_URL", pooler.url()))
        .with("AWO_DATABASE_MODE", "pooler");
    let (program, ran) = run(program, &["migrate"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    say(&pool, "SELECT awo_enqueue('acme/app', 'x', agent_work_order_id => 'one')").await;
    let (program, ran) = run(program, &["list", "--json"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("\"one\""), "{}", ran.stderr);
    let (_program, (well, detail, _)) = doctor(program, "database").await;
    assert!(well, "{detail}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_pool_goes_on_with_the_connections_the_server_gives(pool: PgPool) {
    let role = Role::new(&pool, "SUPERUSER").await;
    // The limit holds for whoever is no superuser.
    say(&pool, &format!("ALTER ROLE {} NOSUPERUSER CONNECTION LIMIT 3", role.name)).await;
    let url = role.url.as_str().into();
    let database = store::connect(&url, DatabaseMode::Direct, 10).await.unwrap();
    // Ten at once, then more than there are connections, several times over: each waits for its turn.
    for _ in 0..3 {
        let statement = || sqlx::query("SELECT pg_sleep(0.05)").execute(&database);
        try_join_all((0..30).map(|_| statement())).await.unwrap();
    }
    // One more than the limit has room for.
    say(&pool, &format!("ALTER ROLE {} CONNECTION LIMIT 10", role.name)).await;
    let statement = || sqlx::query("SELECT pg_sleep(0.05)").execute(&database);
    try_join_all((0..30).map(|_| statement())).await.unwrap();
    database.connections().close().await;
    role.drop(&pool).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_server_that_gives_no_connection_is_quoted(pool: PgPool) {
    let role = Role::new(&pool, "CONNECTION LIMIT 0").await;
    let program = Program::new().with("DATABASE_URL", &role.url);
    let (_program, ran) = run(program, &["list"]).await;
    let said = format!("too many connections for role \"{}\"", role.name);
    assert!(!ran.stderr.contains("timed out"), "{}", ran.stderr);
    ran.refused(4, &said);
    role.drop(&pool).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_says_how_many_connections_it_needs_and_works_with_fewer(pool: PgPool) {
    let role = Role::new(&pool, "CONNECTION LIMIT 3").await;
    role.may_work(&pool).await;
    let program = worker_program(Program::new().with("DATABASE_URL", &role.url))
        .with("AWO_DATABASE_CONNECTIONS", "10");
    let (program, (well, detail, help)) = doctor(program, "connections").await;
    assert!(!well, "{detail}");
    let expected = format!(
        "this worker uses up to 12 (AWO_DATABASE_CONNECTIONS is 10, and two more); the role {} may have 3",
        role.name
    );
    assert!(detail.starts_with(&expected), "{detail}");
    assert_eq!(
        help,
        format!(
            "run `ALTER ROLE {} CONNECTION LIMIT 12` (12 for each worker), or lower AWO_DATABASE_CONNECTIONS",
            role.name
        )
    );
    let orders = "INSERT INTO agent_work_orders (repository_url, user_request)
        SELECT 'https://git.example/acme/r' || n, 'x' FROM generate_series(1, 20) n";
    say(&pool, orders).await;
    let name = role.name.clone();
    let work = tokio::task::spawn_blocking(move || {
        let mut worker = Worker::start(&program);
        worker.says(&["uses up to 12", &format!("the role {name} may have 3")]);
        worker.says(&["worker started"]);
        worker
    });
    let worker = work.await.unwrap();
    let ended =
        "SELECT count(*) FROM agent_work_orders WHERE status = 'failed' OR status = 'completed'";
    // The host does not exist: each ends with a sentence, after many statements.
    let mut done = 0;
    for _ in 0..600 {
        done = sqlx::query_scalar::<_, i64>(ended).fetch_one(&pool).await.unwrap();
        if done > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = tokio::task::spawn_blocking(move || worker.stop()).await.unwrap();
    assert!(done > 0, "{log}");
    assert!(!log.contains("pool timed out") && !log.contains("heartbeat failed"), "{log}");
    role.drop(&pool).await;
}

/// A database of another encoding beside that of `pool`, and its address.
async fn encoded(pool: &PgPool, encoding: &str) -> (String, String) {
    let name = format!("awo_{}", uuid::Uuid::new_v4().simple());
    say(
        pool,
        &format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"),
    )
    .await;
    let mut url = role::url_of(pool);
    url.set_path(&name);
    (name, url.into())
}

#[sqlx::test(migrations = false)]
async fn a_database_of_another_encoding_is_refused(pool: PgPool) {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let (name, url) = encoded(&pool, encoding).await;
        let mut program = Program::new().with("DATABASE_URL", &url);
        let sentence = format!(
            "the database {name} has the encoding {encoding}, which cannot keep every text: make one with \
             `CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0` and name it in DATABASE_URL"
        );
        for command in ["migrate", "worker"] {
            let ran;
            (program, ran) = run(program, &[command]).await;
            ran.refused(4, &sentence);
        }
        let (_program, (well, detail, _)) = doctor(program, "database").await;
        assert_eq!((well, detail), (false, sentence));
        let mut other = PgConnection::connect(&url).await.unwrap();
        let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'awo'";
        let made: i64 = sqlx::query_scalar(made).fetch_one(&mut other).await.unwrap();
        assert_eq!(made, 0);
        other.close().await.unwrap();
        say(&pool, &format!("DROP DATABASE {name}")).await;
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_database_that_may_only_be_read_is_refused_by_what_writes(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    role.may_work(&pool).await;
    let database = role::url_of(&pool).path().trim_start_matches('/').to_owned();
    let program = worker_program(Program::new().with("DATABASE_URL", &role.url));
    say(&pool, &format!("ALTER ROLE {} SET default_transaction_read_only = on", role.name)).await;
    let sentence = format!(
        "the database {database} may only be read by the role {0} (default_transaction_read_only is on): \
         run `BEGIN READ WRITE; ALTER ROLE {0} RESET default_transaction_read_only; COMMIT`",
        role.name
    );
    let (program, ran) = run(program, &["worker"]).await;
    ran.refused(4, &sentence);
    let (program, ran) = run(program, &["migrate"]).await;
    ran.refused(4, &sentence);
    let (program, (well, detail, _)) = doctor(program, "database").await;
    assert_eq!((well, detail), (false, sentence));
    // What only reads goes on.
    let (program, ran) = run(program, &["list"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    say(&pool, &format!("ALTER ROLE {} RESET default_transaction_read_only", role.name)).await;
    say(&pool, &format!("ALTER DATABASE \"{database}\" SET default_transaction_read_only = on"))
        .await;
    let remedy = format!(
        "BEGIN READ WRITE; ALTER DATABASE \"{database}\" RESET default_transaction_read_only; COMMIT"
    );
    let (program, ran) = run(program, &["worker"]).await;
    ran.refused(4, &format!("run `{remedy}`"));
    let address = "https://git.example/o/r";
    let arguments = ["enqueue", "--repository-url", address, "--request", "x"];
    let (program, ran) = run(program, &arguments).await;
    ran.refused(
        4,
        "cannot execute INSERT in a read-only transaction (SQLSTATE 25006); `archon-awo doctor` says why",
    );
    // What it says to run works, also for somebody whom the setting hits.
    let mut admin = PgConnection::connect(role::url_of(&pool).as_str()).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(remedy)).execute(&mut admin).await.unwrap();
    let (_program, (well, detail, _)) = doctor(program, "database").await;
    assert!(well, "{detail}");
    role.drop(&pool).await;
}

#[tokio::test]
async fn a_standby_is_told_from_its_primary() {
    let standby = Postgres::start_standby();
    let program = worker_program(Program::new().with("DATABASE_URL", &standby.url("postgres")));
    let sentence = "the server of the database postgres is a standby, which can only be read: name its \
                    primary in DATABASE_URL, or promote it";
    let (program, (well, detail, _)) = doctor(program, "database").await;
    assert_eq!((well, detail.as_str()), (false, sentence));
    let (program, ran) = run(program, &["worker"]).await;
    ran.refused(4, sentence);
    let (_program, ran) = run(program, &["migrate"]).await;
    ran.refused(4, sentence);
}

#[sqlx::test(migrations = false)]
async fn a_migration_may_take_longer_than_a_statement_of_its_role(pool: PgPool) {
    MIGRATOR.run_to(12, &pool).await.unwrap();
    let role = Role::new(&pool, "SUPERUSER").await;
    for setting in ["statement_timeout = '1s'", "idle_in_transaction_session_timeout = '1s'"] {
        say(&pool, &format!("ALTER ROLE {} SET {setting}", role.name)).await;
    }
    // A statement of the migration takes over a second: somebody holds a lock that it needs.
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM agent_work_order_steps").execute(&mut *reader).await.unwrap();
    let migrating = tokio::spawn(run(Program::new().with("DATABASE_URL", &role.url), &["migrate"]));
    let waits = "SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
        WHERE NOT l.granted AND l.relation = 'agent_work_order_steps'::regclass
            AND now() - a.query_start > interval '1.3 s'";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 {
        if migrating.is_finished() {
            let (_, ran) = migrating.await.unwrap();
            panic!("the migration ended while it was to wait: {}", ran.stderr);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    reader.rollback().await.unwrap();
    let (_, ran) = migrating.await.unwrap();
    assert!(ran.ok().contains("the schema went from version 12 to"));
    role.drop(&pool).await;
}

#[sqlx::test(migrations = false)]
async fn a_role_that_may_not_migrate_is_told_the_grants(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    let database = role::url_of(&pool).path().trim_start_matches('/').to_owned();
    let mut program = Program::new().with("DATABASE_URL", &role.url);
    let grants = format!(
        "GRANT CREATE ON DATABASE \"{database}\" TO {0}; GRANT CREATE, USAGE ON SCHEMA public TO {0}",
        role.name
    );
    let sentence = format!(
        "the role {} lacks rights to make the schema: run `{grants}` as a superuser or the owner",
        role.name
    );
    for command in ["migrate", "worker"] {
        let ran;
        (program, ran) = run(program, &[command]).await;
        ran.refused(4, &sentence);
    }
    let (program, (well, detail, _)) = doctor(program, "rights").await;
    assert_eq!((well, detail), (false, sentence));
    for grant in grants.split("; ") {
        say(&pool, grant).await;
    }
    let (_program, ran) = run(program, &["migrate"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    role.drop(&pool).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn missing_grants_are_named_until_there_are_none(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    let program = worker_program(Program::new().with("DATABASE_URL", &role.url));
    let (program, ran) = run(program, &["list"]).await;
    assert!(!ran.stderr.contains("at line"), "{}", ran.stderr);
    ran.refused(4, &format!("run `GRANT USAGE ON SCHEMA awo TO {}; GRANT ", role.name));

    let (program, (well, sentence, _)) = doctor(program, "rights").await;
    assert!(!well);
    let opening = format!("the role {} lacks rights on the schema: run `", role.name);
    let grants = sentence.strip_prefix(&opening).unwrap_or_else(|| panic!("{sentence}"));
    let grants = grants.strip_suffix("` as a superuser or the owner").unwrap();
    assert!(
        grants.starts_with(&format!("GRANT USAGE ON SCHEMA awo TO {}; ", role.name)),
        "{grants}"
    );
    let (program, ran) = run(program, &["worker"]).await;
    ran.refused(4, &sentence);

    for grant in grants.split("; ") {
        say(&pool, grant).await;
    }
    let (program, (well, detail, _)) = doctor(program, "rights").await;
    assert!(well, "{detail}");
    let order = "INSERT INTO agent_work_orders (agent_work_order_id, repository_url, user_request)
        VALUES ('one', 'https://git.example/acme/r', 'x')";
    say(&pool, order).await;
    let mut worker = tokio::task::spawn_blocking(move || Worker::start(&program)).await.unwrap();
    let claimed = "SELECT count(*) FROM awo.attempts";
    while sqlx::query_scalar::<_, i64>(claimed).fetch_one(&pool).await.unwrap() == 0 {
        assert!(worker.child.try_wait().unwrap().is_none(), "the worker ended: {}", worker.log);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = tokio::task::spawn_blocking(move || worker.stop()).await.unwrap();
    assert!(!log.contains("permission denied") && !log.contains("row-level"), "{log}");
    role.drop(&pool).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_right_that_one_statement_lacks_is_told_without_a_line_of_postgres(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    for grant in ["USAGE ON SCHEMA awo", "SELECT ON awo._sqlx_migrations"] {
        say(&pool, &format!("GRANT {grant} TO {}", role.name)).await;
    }
    say(&pool, &format!("GRANT EXECUTE ON FUNCTION awo.oldest_program() TO {}", role.name)).await;
    let (_program, ran) = run(Program::new().with("DATABASE_URL", &role.url), &["list"]).await;
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            1,
            "error: database statement orders/list failed: permission denied for table agent_work_orders \
             (SQLSTATE 42501)\nhelp: `archon-awo doctor` names the GRANT that is missing\n"
        )
    );
    role.drop(&pool).await;
}

#[sqlx::test(migrations = false)]
async fn rows_hidden_from_their_owner_stop_the_start(pool: PgPool) {
    let role = Role::new(&pool, "").await;
    let database = role::url_of(&pool).path().trim_start_matches('/').to_owned();
    say(&pool, &format!("GRANT CREATE ON DATABASE \"{database}\" TO {}", role.name)).await;
    say(&pool, &format!("GRANT CREATE, USAGE ON SCHEMA public TO {}", role.name)).await;
    let program = worker_program(Program::new().with("DATABASE_URL", &role.url));
    let (program, ran) = run(program, &["migrate"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let (program, (well, detail, _)) = doctor(program, "rights").await;
    assert!(well, "{detail}");
    for table in ["public.agent_work_orders", "awo.jobs"] {
        let enable = format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY");
        say(&pool, &enable).await;
        say(&pool, &format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY")).await;
    }
    let sentence = format!(
        "the role {} lacks rights on the schema: run `ALTER TABLE awo.jobs NO FORCE ROW LEVEL SECURITY; \
         ALTER TABLE public.agent_work_orders NO FORCE ROW LEVEL SECURITY` as a superuser or the owner",
        role.name
    );
    let (program, ran) = run(program, &["worker"]).await;
    ran.refused(4, &sentence);
    let (program, (well, detail, _)) = doctor(program, "rights").await;
    assert_eq!((well, detail), (false, sentence));
    for table in ["public.agent_work_orders", "awo.jobs"] {
        say(&pool, &format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")).await;
    }
    let (_program, (well, detail, _)) = doctor(program, "rights").await;
    assert!(well, "{detail}");
    role.drop(&pool).await;
}
