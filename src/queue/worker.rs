//! A worker process from its start to its last settled job.

use std::{convert::Infallible, io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::FutureExt;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    JobContext, backend,
    claimer::{Claimer, Lane},
    cron::Schedules,
    engine::Engine,
    kinds,
    notifications::Notifications,
    rescue,
    wake::Pace,
};
use crate::{
    agent::{self, AgentKind, FreezerReport, Isolation, IsolationLevel, Supervisor, Watchman},
    archive::Archive,
    backoff::Backoff,
    clock::Clock,
    config::{
        self, Config, DatabaseConfig, Freezer, NotRunnable, freezer_problem, isolation_problem,
    },
    disk::SystemDisk,
    domain::Redactor,
    forge::ForgeSettings,
    git::{CacheLimits, Git},
    lease::LeaseKeeper,
    maintenance::{DiskWatch, Maintenance, SandboxPolicy, Sandboxes, claim_report},
    services::Services,
    shutdown::Shutdown,
    store::{self, Database, DatabaseMode, Dial, Store, WorkerRecord},
    telemetry::Metrics,
    workflow::{Workflow, WorkflowSettings, prompts::CommandFiles, quota::Quota},
};

/// How long a worker that was told twice to stop tries to give its orders back. Longer than an agent
/// takes to end; a database that is away must not keep the process for ever.
const HARD_STOP: Duration = Duration::from_secs(18);
/// How often a worker that ends looks whether its last run has ended.
const GLANCE: Duration = Duration::from_millis(50);
/// Longest wait for the last statement of a worker.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the server shows as the name of the connection that renews the leases.
const HEARTBEAT_NAME: &str = "archon-awo heartbeat";

/// The queue of the jobs that keep the product itself in order.
const MAINTENANCE: &str = "maintenance";
/// How often a worker looks for such jobs; nobody waits for them.
const MAINTENANCE_PACE: Pace = Pace {
    min: Duration::from_secs(10),
    max: Duration::from_secs(20),
    idle: Duration::from_mins(1),
};

/// A worker that has checked its settings and opened the database, and has not claimed anything.
pub struct Worker {
    config: Config,
    engine: Arc<Engine>,
    orders: Arc<Claimer>,
    maintenance: Arc<Claimer>,
    disk: Arc<DiskWatch>,
    isolation: Isolation,
    /// Ends what worker and shims leave when they are killed together, where a cgroup holds it.
    _watchman: Option<Watchman>,
    context: Arc<JobContext>,
    shutdown: Shutdown,
    interrupt: CancellationToken,
}

/// The database, once it has all that a worker needs.
async fn open_database(config: &DatabaseConfig) -> anyhow::Result<Database> {
    let pool = store::connect(config.required_url()?, config.mode, config.max_connections).await?;
    store::Server::look(&pool).await?.writable()?;
    if config.auto_migrate {
        store::migrate(&pool).await?;
    } else {
        store::schema_state(&pool).await?.check()?;
    }
    store::check_rights(&pool).await?;
    let connections = store::Connections::look(&pool, config.max_connections).await?;
    match connections.lacking() {
        None => info!("database connections: {}", connections.describe()),
        Some(remedy) => warn!("database connections: {}; {remedy}", connections.describe()),
    }
    Ok(pool)
}

impl Worker {
    /// Checks everything that can be wrong before the first job, so that it is a sentence at the
    /// start and not a failed order in the night.
    pub async fn prepare(
        config: Config,
        worker_id: Uuid,
        metrics: Metrics,
        clock: Clock,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        config::check_runnable(&config)?;
        let freezer = freezer(config.agent.freezer).await?;
        let isolation = isolation(&config).await?;
        let commands = CommandFiles::new(config.agent.commands_dir.clone());
        commands.check()?;
        let database = &config.database;
        let pool = open_database(database).await?;
        let found = store::entrances(database.required_url()?).await;
        store::check_entrances(found, isolation.bounds(&config.agent.isolation))?;
        let store = Store::new(pool);
        if let Err(error) = store.ensure_log_days().await {
            warn!("cannot make the log's tables for the coming days: {error}");
        }
        let workflow = workflow(&config, store.clone(), commands, metrics.clone(), clock.clone())?;
        workflow.git.prepare().await?;
        if let FreezerReport::Signals(_) = freezer {
            warn!(%freezer, "agents are held together by signals alone, for as long as their shim lives");
        } else {
            info!(%freezer, "agents can be frozen and held together");
        }
        if isolation.level == IsolationLevel::None {
            warn!(%isolation, "nothing keeps agents out of the files of their user");
        } else {
            info!(%isolation, "agents are shut in");
        }
        end_orphans().await;
        take_back(&config).await;
        let watchman = watchman(&freezer).await?;

        let timings = config.queue.clone();
        let interrupt = CancellationToken::new();
        let keeper = LeaseKeeper::new(
            worker_id,
            timings.clone(),
            clock.clone(),
            heartbeat_dial(&config, &store)?,
            shutdown.soft.clone(),
            interrupt.clone(),
            metrics.clone(),
        );
        let drain = shutdown.soft.clone();
        let maintenance = Maintenance {
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            history: config.history,
            keeper: Arc::clone(&keeper),
            git: workflow.git.clone(),
            cache: CacheLimits { idle: config.cache.idle, bytes: config.cache.bytes },
            sandboxes: Sandboxes::new(
                &config,
                store.clone(),
                workflow.git.clone(),
                workflow.archive.clone(),
                clock.clone(),
            ),
            sandbox_policy: SandboxPolicy::new(config.retention.clone()),
        };
        let context = Arc::new(JobContext {
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            workflow,
            maintenance,
        });
        let disk = DiskWatch::new(
            &config.folders,
            config.disk.marks,
            Arc::new(SystemDisk),
            clock.clone(),
            metrics.clone(),
        );
        let engine = Engine::new(worker_id, store, clock, metrics, timings.clone(), keeper, drain);
        let orders = Lane {
            queues: timings.queues,
            slots: timings.max_concurrent.into(),
            pace: Pace { min: timings.poll_min, max: timings.poll_max, idle: timings.poll_idle },
            handler: kinds::handler(Arc::clone(&context)),
            gate: Some(Arc::clone(&disk)),
        };
        let maintenance = Lane {
            queues: vec![MAINTENANCE.to_owned()],
            slots: 1,
            pace: MAINTENANCE_PACE,
            handler: kinds::handler(Arc::clone(&context)),
            gate: None,
        };
        Ok(Self {
            config,
            orders: Claimer::new(Arc::clone(&engine), orders),
            maintenance: Claimer::new(Arc::clone(&engine), maintenance),
            engine,
            disk,
            isolation,
            _watchman: watchman,
            context,
            shutdown,
            interrupt,
        })
    }

    /// The store, for the health endpoints.
    pub fn store(&self) -> &Store {
        &self.engine.store
    }

    /// The keeper of its leases, for the health endpoints.
    pub fn keeper(&self) -> &Arc<LeaseKeeper> {
        &self.engine.keeper
    }

    /// How far its agents are shut in.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// How its volumes stand, for the health endpoints.
    pub fn disk(&self) -> &Arc<DiskWatch> {
        &self.disk
    }

    /// Claims and runs jobs until the soft stop; then gives back what cannot end in time. A task of
    /// `services` that is lost before ends it too, with an error.
    pub async fn run(self, services: &mut Services) -> anyhow::Result<()> {
        let Engine { worker_id, store, clock, keeper, .. } = &*self.engine;
        let record = WorkerRecord {
            worker_id: *worker_id,
            hostname: hostname::get()
                .map_or_else(|_| String::new(), |name| name.to_string_lossy().into()),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            queues: self.config.queue.queues.clone(),
            max_concurrent: i32::from(self.config.queue.max_concurrent),
            kinds: Some(kinds::KINDS.map(str::to_owned).to_vec()),
        };
        store.register_worker(&record).await.context("cannot register this worker")?;
        info!(worker.id = %worker_id, slots = record.max_concurrent, "worker started");

        let stop = CancellationToken::new();
        self.start_tasks(services, &stop).context("cannot start a thread for the heartbeats")?;
        let mut lanes = self.start_lanes(services);
        let given_up = async {
            self.shutdown.hard.cancelled().await;
            clock.sleep(HARD_STOP).await;
        };
        let lost = tokio::select! {
            biased;
            lost = services.lost() => Some(lost),
            _ = lanes.recv() => None,
            () = given_up => {
                // Their agents die with this process; other workers take the orders over.
                warn!(orders = keeper.held(), "stopping with orders that could not be given back");
                None
            }
        };
        if let Some(lost) = &lost {
            error!("{lost}");
            self.give_back_all(&mut lanes).await;
        }
        stop.cancel();
        match timeout(FAREWELL, store.retire_worker(*worker_id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("cannot record that this worker stopped: {error}"),
            Err(_) => warn!("cannot record that this worker stopped: the database does not answer"),
        }
        info!(worker.id = %worker_id, "worker stopped");
        lost.map_or(Ok(()), |lost| Err(lost.into()))
    }

    /// Everything that runs beside the orders.
    fn start_tasks(&self, services: &mut Services, stop: &CancellationToken) -> io::Result<()> {
        let Self { engine, disk, context, shutdown, interrupt, .. } = self;
        let Engine { store, clock, keeper, .. } = &**engine;
        // Its connections, with their name lookups and TLS, are made on that thread as well.
        let (beating, ended) = (Arc::clone(keeper), stop.clone());
        let beating = async move { beating.run(ended).await };
        services.thread("heartbeat", stop.clone(), beating.map(Ok))?;
        let context = Arc::clone(context);
        let cleanup = move || {
            let context = Arc::clone(&context);
            async move { context.maintenance.free_space().await }.boxed()
        };
        let watching = Arc::clone(disk).run(Box::new(cleanup), stop.clone());
        services.spawn("disk watch", stop.clone(), watching.map(Ok));
        let report = claim_report::run(
            Arc::clone(disk),
            store.clone(),
            engine.worker_id,
            clock.clone(),
            stop.clone(),
        );
        services.spawn("claim report", stop.clone(), report.map(Ok));
        let workflow = self.context.workflow.clone();
        let rescuing = rescue::run(Arc::clone(engine), workflow, stop.clone());
        services.spawn("rescue", stop.clone(), rescuing.map(Ok));
        let schedules = Schedules::new(store.clone(), clock.clone());
        let changed = Arc::clone(&schedules.wake);
        // A worker that drains may be about to go: others fire meanwhile, or it makes up at its start.
        let firing = schedules.run(engine.drain.clone());
        services.spawn("schedules", engine.drain.clone(), firing.map(Ok));
        if self.config.database.mode == DatabaseMode::Direct {
            let notifications = Notifications {
                database: store.pool().clone(),
                lanes: vec![Arc::clone(&self.orders.wake), Arc::clone(&self.maintenance.wake)],
                schedules: changed,
                keeper: Arc::clone(keeper),
                clock: clock.clone(),
            };
            services.spawn("listener", stop.clone(), notifications.run(stop.clone()).map(Ok));
        }
        let draining = drain(Arc::clone(engine), shutdown.clone(), interrupt.clone());
        services.spawn("drain", shutdown.soft.clone(), draining.map(Ok));
        Ok(())
    }

    /// Starts the lanes. Nothing is ever sent through what this answers: it closes when both have ended.
    fn start_lanes(&self, services: &mut Services) -> mpsc::Receiver<Infallible> {
        let (running, ended) = mpsc::channel(1);
        for (task, claimer) in [("orders", &self.orders), ("maintenance", &self.maintenance)] {
            let (claimer, running) = (Arc::clone(claimer), running.clone());
            let lane = async move {
                let _running = running;
                backend::run(claimer).await.map_err(|error| anyhow::anyhow!("{error}"))
            };
            services.spawn(task, self.engine.drain.clone(), lane);
        }
        ended
    }

    /// Ends what runs at once and gives it back, as well as that can be done without whatever is gone.
    async fn give_back_all(&self, lanes: &mut mpsc::Receiver<Infallible>) {
        let Engine { worker_id, store, clock, keeper, .. } = &*self.engine;
        self.shutdown.soft.cancel();
        self.shutdown.hard.cancel();
        self.interrupt.cancel();
        let idle = async {
            lanes.recv().await;
            // Runs go on without their lane.
            while keeper.held() > 0 {
                clock.sleep(GLANCE).await;
            }
            // What a lane had claimed and not begun as it was lost.
            for claimer in [&self.orders, &self.maintenance] {
                let back = store.give_back_unheld(*worker_id, &claimer.lane.queues, &[]).await;
                if let Err(error) = back {
                    warn!("cannot give back what was claimed and not begun: {error}");
                }
            }
        };
        if timeout(HARD_STOP, idle).await.is_err() {
            warn!(orders = keeper.held(), "stopping with orders that could not be given back");
        }
    }
}

/// After the soft stop: lets running steps end by themselves for the grace period, then interrupts
/// their agents. The hard stop interrupts at once.
async fn drain(engine: Arc<Engine>, shutdown: Shutdown, interrupt: CancellationToken) {
    shutdown.soft.cancelled().await;
    let over = async {
        tokio::select! {
            () = shutdown.hard.cancelled() => {}
            () = engine.clock.sleep(engine.timings.drain_grace) => {}
        }
        interrupt.cancel();
    };
    let record = async {
        // The database may be the reason for the stop, so nothing waits for it.
        if let Err(error) = engine.store.drain_worker(engine.worker_id).await {
            warn!("cannot record that this worker drains: {error}");
        }
    };
    tokio::join!(over, record);
}

/// How the heartbeats reach the database.
fn heartbeat_dial(config: &Config, store: &Store) -> anyhow::Result<Dial> {
    let database = &config.database;
    let options = store::options(database.required_url()?, database.mode)?;
    Ok(Dial {
        options: options.application_name(HEARTBEAT_NAME),
        mode: database.mode,
        // A worker whose heartbeats find no connection would lose what it runs.
        spare: Some(store.pool().clone()),
    })
}

/// What freezes agents here, or why nothing that was asked for does.
async fn freezer(wanted: Freezer) -> anyhow::Result<FreezerReport> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let found = tokio::task::spawn_blocking(move || agent::find_freezer(&program, wanted)).await;
    let found = found.context("cannot look for what holds agents")?;
    found.map_err(|reason| NotRunnable(vec![freezer_problem(wanted, &reason)]).into())
}

/// How far agents are shut in here; an error when that is less than what is required.
async fn isolation(config: &Config) -> anyhow::Result<Isolation> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let (wanted, freezer) = (config.agent.isolation.clone(), config.agent.freezer);
    let look = move || agent::find_isolation(&program, &wanted, freezer);
    let found = tokio::task::spawn_blocking(look).await;
    let found = found.context("cannot try how agents are shut in")?;
    found.map_err(|reason| NotRunnable(vec![isolation_problem(&reason)]).into())
}

/// Ends agents whose worker and shim were killed together.
async fn end_orphans() {
    match tokio::task::spawn_blocking(agent::end_orphans).await {
        Ok(0) => {}
        Ok(processes) => warn!(processes, "ended agents that a dead worker had left behind"),
        Err(error) => warn!("cannot look for agents of dead workers: {error}"),
    }
}

/// Takes back what was given to users of agents whose worker and shim were killed together.
async fn take_back(config: &Config) {
    let Some(users) = config.agent.isolation.users.clone() else { return };
    match tokio::task::spawn_blocking(move || users.reclaim(None)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(runs)) => info!(runs, "took back what dead runs of agents had"),
        Ok(Err(error)) => warn!("{error}"),
        Err(error) => warn!("what dead runs of agents had cannot be taken back: {error}"),
    }
}

/// Starts who outlives this worker, where something has to.
async fn watchman(freezer: &FreezerReport) -> anyhow::Result<Option<Watchman>> {
    let FreezerReport::Cgroup(_) = freezer else { return Ok(None) };
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let started = tokio::task::spawn_blocking(move || Watchman::start(&program)).await?;
    started.map(Some).context("cannot start the process that ends agents after their worker")
}

fn workflow(
    config: &Config,
    store: Store,
    commands: CommandFiles,
    metrics: Metrics,
    clock: Clock,
) -> anyhow::Result<Workflow> {
    let this_binary = std::env::current_exe().context("cannot find the path of this program")?;
    let redactor = Redactor::new(config.secrets());
    let git = Git::configured(config, this_binary.clone(), redactor.clone());
    let api_url = config.github.api_url.parse().context("GITHUB_API_URL is not a URL")?;
    let mut forge =
        ForgeSettings::new(api_url, &config.github.host, PathBuf::from("git"), clock.clone());
    forge.search_path.clone_from(&config.search_path);
    forge.local_remotes.clone_from(&config.local_remotes);
    let archive = config.archive.as_ref().map(Archive::open).transpose()?;
    Ok(Workflow {
        settings: WorkflowSettings {
            remotes: config.remotes.clone(),
            credentials: config.credentials.clone(),
            github_token: config.github.token.clone(),
            agent: AgentKind::configured(config),
            timeout: config.agent.timeout,
            idle_timeout: config.agent.idle_timeout,
            review_rounds: config.agent.review_rounds,
            backoff: Backoff { base: config.queue.retry_base, max: config.queue.retry_max },
            retry_for: config.queue.retry_for,
            work_orders: config.folders.work_orders.clone(),
            quota: config
                .disk
                .sandbox_quota
                .map(|bytes| Quota { bytes, disk: Arc::new(SystemDisk) }),
            ports: config.ports.clone(),
            search_path: config.search_path.clone(),
            proxy: config.agent.isolation.proxy.clone(),
            proxy_by_number: config.agent.isolation.proxy_by_number(),
            agent_credentials: config.agent.credentials.clone(),
            inheritable: config.agent.inheritable.clone(),
        },
        store,
        git,
        archive,
        forge,
        commands,
        supervisor: Supervisor::configured(config, this_binary, redactor.clone(), clock.clone()),
        redactor,
        clock,
        metrics,
    })
}
