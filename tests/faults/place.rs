//! Everything that runs during a fault run, and how each fault is done to it.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use archon_awo::store::{self, DatabaseMode};
use nix::sys::signal::Signal;
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::{sync::Mutex, time::sleep};

use crate::{
    audit,
    cluster::{self, Cluster, PASSWORD, WORKER},
    plan::{Fault, KINDS, Thaw},
    pooler::Pooler,
    proxy::Proxy,
    remote::Remote,
    replica::{Blueprint, Replica},
    volume::{self, Volume},
    witness::Witness,
};

/// What a place is made of.
pub struct Needs {
    pub replicas: usize,
    pub remotes: usize,
    /// pgbouncer in transaction mode stands between workers and Postgres.
    pub pooler: bool,
    /// Settings of the workers.
    pub settings: Vec<(String, String)>,
}

/// Servers, remotes, workers and the witness.
pub struct Place {
    pub folder: PathBuf,
    pub pool: PgPool,
    pub witness: Witness,
    pub remotes: Vec<Remote>,
    pub replicas: Vec<Replica>,
    pub volume: Arc<Volume>,
    /// What was done, by kind. A remote's failure counts when a push met it.
    pub injected: [AtomicUsize; KINDS.len()],
    /// Every fault with the time of the wall clock at which it began and was over.
    pub happened: std::sync::Mutex<Vec<(Fault, f64, f64)>>,
    pooled: bool,
    cluster: Mutex<Cluster>,
    disk: Mutex<()>,
    _pooler: Option<Pooler>,
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    pub async fn prepare(needs: Needs) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("awo-faults-").tempdir()?;
        // The servers' user must get through to its own folder.
        fs::set_permissions(temporary.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let folder = temporary.path().to_owned();
        for name in ["logs", "notes", "work-orders", "config"] {
            fs::create_dir(folder.join(name))?;
        }
        let volume = Arc::new(Volume::mount(&folder.join("volume"), volume::OPTIONS).await?);
        let cluster = Cluster::start(&folder).await?;
        let pool = cluster.pool();
        let role = format!("create role {WORKER} login password '{PASSWORD}' in role postgres");
        sqlx::raw_sql(AssertSqlSafe(role)).execute(&pool).await?;
        let (pooler, target) = if needs.pooler {
            let pooler = Pooler::start(&folder, cluster.port).await?;
            let address = pooler.address();
            (Some(pooler), address)
        } else {
            (None, cluster.address())
        };
        let mode = if needs.pooler { DatabaseMode::Pooler } else { DatabaseMode::Direct };
        let url = SecretString::from(cluster::worker_url(target.port()));
        let database = store::connect(&url, mode, 6).await?;
        // Several workers of a new deployment do this at once.
        let migrations = (0..3).map(|_| store::migrate(&database));
        futures::future::try_join_all(migrations).await?;
        audit::install(&pool).await?;
        let names = (0..needs.remotes).map(|n| folder.join("remotes").join(format!("app-{n}.git")));
        let remotes = names.map(Remote::create).collect::<anyhow::Result<_>>()?;
        let witness = Witness::start();
        let program = std::env::current_exe()?;
        let mut settings = needs.settings;
        if needs.pooler {
            settings.push(("AWO_DATABASE_MODE".to_owned(), "pooler".to_owned()));
        }
        let blueprint = Arc::new(Blueprint {
            folder: folder.clone(),
            volume: Arc::clone(&volume),
            agent_command: shell_words::join([
                program.to_str().context("the path of this program is not text")?,
                "agent",
                &witness.port.to_string(),
                folder.join("notes").to_str().context("the folder's path is not text")?,
            ]),
            settings,
        });
        let mut replicas = Vec::new();
        for number in 0..needs.replicas {
            let proxy = Proxy::start(target).await;
            replicas.push(Replica::new(Arc::clone(&blueprint), number, proxy));
        }
        Ok(Self {
            folder,
            pool,
            witness,
            remotes,
            replicas,
            volume,
            injected: Default::default(),
            happened: std::sync::Mutex::default(),
            pooled: needs.pooler,
            cluster: Mutex::new(cluster),
            disk: Mutex::new(()),
            _pooler: pooler,
            temporary: Some(temporary),
        })
    }

    pub fn remote_urls(&self) -> Vec<String> {
        self.remotes.iter().map(Remote::url).collect()
    }

    /// Does one thing to the place, and makes it good again after its time.
    pub async fn inject(&self, fault: Fault) -> anyhow::Result<()> {
        let began = wall_clock()?;
        self.do_to_it(fault).await?;
        self.happened.lock().unwrap().push((fault, began, wall_clock()?));
        Ok(())
    }

    /// The server ends the connection by which `worker` renews its leases, and lets no worker have
    /// a new one for a while.
    async fn refuse(&self, worker: usize) -> anyhow::Result<()> {
        self.limit_connections(1).await?;
        // Behind a pooler it is not known whose connection is whose.
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where usename = $1 and application_name = 'archon-awo heartbeat'
               and ($2 or client_port = any($3))",
        )
        .bind(WORKER)
        .bind(self.pooled)
        .bind(self.replicas[worker].proxy.server_ports())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// How many connections the workers may have together, of which those that are open stay; -1
    /// for as many as they like.
    async fn limit_connections(&self, most: i32) -> anyhow::Result<()> {
        let limit = format!("alter role {WORKER} connection limit {most}");
        sqlx::raw_sql(AssertSqlSafe(limit)).execute(&self.pool).await?;
        Ok(())
    }

    async fn do_to_it(&self, fault: Fault) -> anyhow::Result<()> {
        let kind = fault.kind();
        let done = || {
            self.injected[kind].fetch_add(1, Ordering::Relaxed);
        };
        match fault {
            Fault::Kill { worker, back } => {
                let mut process = self.replicas[worker].process().await;
                process.kill().await?;
                done();
                sleep(back).await;
                self.replicas[worker].spawn(&mut process)?;
            }
            Fault::Stop { worker, length } => {
                let process = self.replicas[worker].process().await;
                process.signal(Signal::SIGSTOP)?;
                done();
                sleep(length).await;
                process.signal(Signal::SIGCONT)?;
            }
            Fault::Terminate { worker } => {
                let mut process = self.replicas[worker].process().await;
                process.terminate().await?;
                done();
                self.replicas[worker].spawn(&mut process)?;
            }
            Fault::PostgresStopped { length } => {
                let mut cluster = self.cluster.lock().await;
                cluster.stop().await?;
                done();
                sleep(length).await;
                cluster.start_again().await?;
            }
            Fault::PostgresKilled { length } => {
                let mut cluster = self.cluster.lock().await;
                cluster.kill().await?;
                done();
                sleep(length).await;
                cluster.start_again().await?;
            }
            Fault::Cut { worker } => {
                self.replicas[worker].proxy.cut();
                done();
            }
            Fault::Freeze { worker, length, thaw } => {
                self.replicas[worker].proxy.freeze(thaw);
                done();
                sleep(length).await;
                self.replicas[worker].proxy.thaw(thaw);
            }
            Fault::DiskFull { length } => {
                let _disk = self.disk.lock().await;
                self.volume.fill(0)?;
                done();
                sleep(length).await;
                self.volume.free()?;
            }
            Fault::PushAccepted { remote } => self.remotes[remote].fail_next_push()?,
            Fault::Refuse { worker, length } => {
                let _cluster = self.cluster.lock().await;
                self.refuse(worker).await?;
                done();
                sleep(length).await;
                self.limit_connections(-1).await?;
            }
        }
        Ok(())
    }

    /// How often each kind was injected.
    pub fn counts(&self) -> [usize; KINDS.len()] {
        let mut counts: [usize; KINDS.len()] =
            std::array::from_fn(|kind| self.injected[kind].load(Ordering::Relaxed));
        let pushes = Fault::PushAccepted { remote: 0 }.kind();
        counts[pushes] = self.remotes.iter().map(Remote::failed_pushes).sum();
        counts
    }

    /// Ends every worker as a deployment does.
    pub async fn end_workers(&self) -> anyhow::Result<()> {
        let ends = self.replicas.iter().map(|replica| async {
            replica.proxy.thaw(Thaw::Reset);
            replica.process().await.terminate().await
        });
        futures::future::try_join_all(ends).await.map(drop)
    }

    /// Leaves the files for whoever looks into a failure.
    pub fn keep_folder(&mut self) -> PathBuf {
        if let Some(temporary) = self.temporary.take() {
            return temporary.keep();
        }
        self.folder.clone()
    }
}

/// Seconds since 1970, which the database counts by the same clock.
pub fn wall_clock() -> anyhow::Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}
