//! A database of a scenario's own on the server the tests run on.

use std::str::FromStr;

use archon_awo::store::MIGRATOR;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The database; [`Self::remove`] ends it.
pub struct Database {
    pub pool: PgPool,
    name: String,
    server: PgConnectOptions,
}

impl Database {
    /// Makes one, with today's schema.
    pub async fn create() -> Self {
        let url = std::env::var("DATABASE_URL").expect(
            "DATABASE_URL names no server for the tests: run them by `make test` or `make test-claude`",
        );
        let server = PgConnectOptions::from_str(&url).unwrap();
        let name = format!("awo_scenario_{}", uuid::Uuid::new_v4().simple());
        say(&server, &format!("CREATE DATABASE {name}")).await;
        let options = server.clone().database(&name);
        let pool = PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
        MIGRATOR.run(&pool).await.unwrap();
        Self { pool, name, server }
    }

    /// Removes it, whoever is connected.
    pub async fn remove(self) {
        self.pool.close().await;
        say(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

async fn say(server: &PgConnectOptions, statement: &str) {
    let mut connection = server.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
