//! A role of the test's own on the server the tests run on.
#![expect(clippy::unwrap_used, reason = "tests")]

use sqlx::{AssertSqlSafe, ConnectOptions, PgPool};
use url::Url;

/// A role that may sign in.
pub struct Role {
    /// Its name, which no other test has.
    pub name: String,
    /// The address of the database for it.
    pub url: String,
}

/// The address of a pool's database.
pub fn url_of(pool: &PgPool) -> Url {
    pool.connect_options().to_url_lossy()
}

/// Runs one statement as the owner of the server.
pub async fn say(pool: &PgPool, statement: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

impl Role {
    /// With these attributes, as in `CREATE ROLE`.
    pub async fn new(pool: &PgPool, attributes: &str) -> Self {
        let name = format!("awo_{}", uuid::Uuid::new_v4().simple());
        // A short word would be warned of.
        let password = uuid::Uuid::new_v4().simple().to_string();
        say(pool, &format!("CREATE ROLE {name} LOGIN PASSWORD '{password}' {attributes}")).await;
        let mut url = url_of(pool);
        url.set_username(&name).unwrap();
        url.set_password(Some(&password)).unwrap();
        Self { name, url: url.into() }
    }

    /// Gives it what a worker needs on a schema that belongs to somebody else.
    pub async fn may_work(&self, pool: &PgPool) {
        let name = &self.name;
        for statement in [
            format!("ALTER ROLE {name} BYPASSRLS"),
            format!("GRANT USAGE ON SCHEMA awo, public TO {name}"),
            format!("GRANT ALL ON ALL TABLES IN SCHEMA awo, public TO {name}"),
            format!("GRANT ALL ON ALL SEQUENCES IN SCHEMA awo, public TO {name}"),
            format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA awo, public TO {name}"),
        ] {
            say(pool, &statement).await;
        }
    }

    /// Takes it away with all that it has.
    pub async fn drop(self, pool: &PgPool) {
        let name = &self.name;
        // What it has open would keep it.
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"
        );
        say(pool, &end).await;
        say(pool, &format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}")).await;
    }
}
