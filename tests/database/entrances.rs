//! A database that lets in who has no password: no worker starts whose agents could take that way.

use std::time::Duration;

use sqlx::{ConnectOptions, PgPool};

use super::{Worker, doctor, run, worker_program};
use crate::{
    command::Program,
    role::{Role, say, url_of},
};

/// Puts a rule for one role before those of the server.
async fn rule(pool: &PgPool, line: &str) {
    let file: String = sqlx::query_scalar("show hba_file").fetch_one(pool).await.unwrap();
    // Other tests do the same.
    let put = format!(
        "COPY (SELECT '{line}') TO PROGRAM 'flock {file}.lock sh -c ''cat - {file} > {file}.new && mv {file}.new {file}'''"
    );
    say(pool, &put).await;
    say(pool, "SELECT pg_reload_conf()").await;
}

/// The address without the password, once the server takes it.
async fn opened(role: &Role) -> String {
    let mut url = url::Url::parse(&role.url).unwrap();
    url.set_password(None).unwrap();
    for _ in 0..200 {
        let options: sqlx::postgres::PgConnectOptions = url.as_str().parse().unwrap();
        if options.connect().await.is_ok() {
            return url.into();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the rule does not hold for {}", role.name);
}

/// A worker that ends with a sentence instead of starting.
async fn refused(program: Program, words: &[&str]) -> Program {
    let (program, ran) = run(program, &["worker"]).await;
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    let said = |word: &&str| ran.stderr.contains(*word);
    assert!(words.iter().all(said), "{words:?}: {}", ran.stderr);
    program
}

async fn starts(program: Program) {
    let work = tokio::task::spawn_blocking(move || {
        let mut worker = Worker::start(&program);
        worker.says(&["worker started"]);
        worker.stop()
    });
    work.await.unwrap();
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_port_that_is_open_without_a_password_is_refused_unless_no_agent_reaches_it(
    pool: PgPool,
) {
    let role = Role::new(&pool, "SUPERUSER").await;
    starts(worker_program(Program::new().with("DATABASE_URL", &role.url))).await;

    rule(&pool, &format!("host all {} 127.0.0.1/32 trust", role.name)).await;
    let open = opened(&role).await;
    // With a password in the address it is as open as without.
    for url in [&open, &role.url] {
        let program = worker_program(Program::new().with("DATABASE_URL", url));
        let words = ["without a password", "port ", "(trust)", &role.name, "AWO_AGENT_NETWORK"];
        let program = refused(program, &words).await;
        let (program, (well, detail, _)) = doctor(program, "database password").await;
        assert!(!well && detail.contains("(trust)"), "{detail}");
        let shut = program
            .with("AWO_AGENT_PROXY", "http://127.0.0.1:9")
            .with("AWO_AGENT_NETWORK", "proxy");
        let (shut, (well, detail, _)) = doctor(shut, "database password").await;
        assert!(well, "this needs Linux 6.7 with Landlock: {detail}");
        starts(shut).await;
    }
    role.drop(&pool).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_socket_that_knows_its_users_is_refused_unless_agents_are_others(pool: PgPool) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "only root reaches the server's socket, and starts others"
    );
    let folder: String =
        sqlx::query_scalar("show unix_socket_directories").fetch_one(&pool).await.unwrap();
    let port = url_of(&pool).port().unwrap();
    let at = |role: &str| {
        let database = url_of(&pool).path().to_owned();
        format!("postgres://{role}@localhost:{port}{database}?host={folder}")
    };
    // The server of the tests trusts its socket.
    let role = Role::new(&pool, "SUPERUSER").await;
    let program = worker_program(Program::new().with("DATABASE_URL", &at(&role.name)));
    let program = program.with("AWO_AGENT_USER", "64123");
    refused(program, &["the socket in", "whoever connects (trust)"]).await;

    rule(&pool, &format!("local all {} peer map={}", role.name, role.name)).await;
    let known: String = sqlx::query_scalar("show ident_file").fetch_one(&pool).await.unwrap();
    let map = format!("COPY (SELECT '{0} root {0}') TO PROGRAM 'cat >> {known}'", role.name);
    say(&pool, &map).await;
    say(&pool, "SELECT pg_reload_conf()").await;
    rule(&pool, "local all \"archon-awo nobody\" peer").await;
    let program = worker_program(Program::new().with("DATABASE_URL", &at(&role.name)));
    let words = ["the socket in", "the worker\u{27}s user (peer)", &role.name];
    let program = refused(program, &words).await;
    starts(program.with("AWO_AGENT_USER", "64123")).await;
    role.drop(&pool).await;
}
