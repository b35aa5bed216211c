//! `archon-awo worker`: checks that this host can run orders, opens the database, runs the queue.

use anyhow::Context;

use crate::{
    config::{Config, check_runnable},
    exit::CommandError,
    queue,
    store::{self, Store},
    telemetry::Metrics,
};

pub(super) async fn run(config: Config, metrics: Metrics) -> anyhow::Result<()> {
    let checked = config.clone();
    tokio::task::spawn_blocking(move || check_runnable(&checked))
        .await
        .context("the check of this host failed")?
        .map_err(CommandError::NotRunnable)?;
    let store = open(&config).await?;
    queue::run_worker(config, store, metrics).await
}

/// Opens the database and brings its schema up to date, or checks it where that is switched off.
async fn open(config: &Config) -> anyhow::Result<Store> {
    let database = &config.database;
    let url = database.required_url()?;
    let pool = store::connect(url, database.mode, database.max_connections).await?;
    if database.auto_migrate {
        store::migrate(&pool).await?;
    } else {
        store::schema_state(&pool).await?.check()?;
    }
    Ok(Store::new(pool))
}
