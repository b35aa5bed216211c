//! A remote, a scripted agent, and worker processes that a test may kill.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::{schedules::without_schedules, small_volume::Volume};

/// The lease of the workers that are started here.
pub const LEASE: Duration = Duration::from_secs(4);
/// Longest wait for anything; a healthy run needs a fraction of it.
const PATIENCE: Duration = Duration::from_mins(1);

/// The scripted agent: it does what its step asks for. A file `hold-<step>` in its folder makes it
/// wait until the file is gone, `fail-<step>` makes it end with that code, what is in
/// `stdout-<step>` and `stderr-<step>` it prints, and `extra` is a script that it runs first.
const AGENT: &str = include_str!("agent.sh");

/// Orders that say something else than the runs of their agents or, once completed, than their steps.
const MISCOUNTED: &str = "
    with orders as (
        select o.agent_work_order_id as id, o.awo_job_id, o.status, o.total_input_tokens as input,
            o.total_output_tokens as output, o.total_cache_read_tokens as cache_read,
            o.total_cache_creation_tokens as cache_creation,
            o.total_cache_creation_1h_tokens as cache_creation_1h, o.total_cost_usd as cost, o.usage_by_model
        from agent_work_orders o
    ),
    said as (
        select id, status, jsonb_build_array(input, output, cache_read, cache_creation, cache_creation_1h, cost) as sums
        from orders
        union all
        select id, status, (select jsonb_build_array(sum((m.value->>'input_tokens')::numeric),
            sum((m.value->>'output_tokens')::numeric), sum((m.value->>'cache_read_tokens')::numeric),
            sum((m.value->>'cache_creation_5m_tokens')::numeric + (m.value->>'cache_creation_1h_tokens')::numeric),
            sum((m.value->>'cache_creation_1h_tokens')::numeric), sum((m.value->>'cost_usd')::numeric(14, 6)))
            from jsonb_each(usage_by_model) m)
        from orders where usage_by_model <> '{}'
        union all
        select o.id, o.status, jsonb_build_array(sum(r.input_tokens), sum(r.output_tokens), sum(r.cache_read_tokens),
            sum(r.cache_creation_tokens), sum(r.cache_creation_1h_tokens), sum(r.cost_usd))
        from orders o join awo.agent_runs r on r.job_id = o.awo_job_id group by 1, 2
        union all
        select o.id, o.status, jsonb_build_array(sum(s.input_tokens), sum(s.output_tokens), sum(s.cache_read_tokens),
            sum(s.cache_creation_tokens), sum(s.cache_creation_1h_tokens), sum(s.cost_usd))
        from orders o join agent_work_order_steps s on s.agent_work_order_id = o.id
        where o.status = 'completed' group by 1, 2
    )
    select id || ': ' || jsonb_agg(sums) from said group by id having count(distinct sums) > 1";

/// Everything one test needs; gone when dropped.
pub struct Harness {
    pub pool: PgPool,
    folder: TempDir,
    workers: Vec<Child>,
    pub settings: Vec<(String, String)>,
    remote: Option<String>,
    /// A volume that only the workers see.
    pub volume: Option<Volume>,
    /// What workers and commands run from now on.
    pub program: PathBuf,
    /// The user whom programs of the product run as, when it is not that of the tests.
    pub user: Option<u32>,
    /// Whether that user has the rights to start agents as others.
    pub rights: bool,
}

impl Harness {
    pub fn new(pool: PgPool) -> Self {
        without_schedules(&pool);
        let folder = tempfile::tempdir().unwrap();
        let agent = folder.path().join("agent");
        fs::create_dir(&agent).unwrap();
        let program = agent.join("agent.sh");
        fs::write(&program, AGENT).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let (workers, remote) = (Vec::new(), None);
        // To run all tests in each way that agents can be held.
        let freezer = std::env::var("AWO_TEST_FREEZER").ok();
        let settings = freezer.map(|word| ("AWO_FREEZER".to_owned(), word)).into_iter().collect();
        let (volume, user) = (None, None);
        let program = env!("CARGO_BIN_EXE_archon-awo").into();
        let rights = false;
        let harness =
            Self { pool, folder, workers, settings, remote, volume, program, user, rights };
        harness.git(&["init", "--quiet", "--bare", "--initial-branch=main", "remote.git"]);
        harness.git(&["clone", "--quiet", "remote.git", "seed"]);
        fs::write(harness.path("seed/README.md"), "# A project\n").unwrap();
        harness.git(&["-C", "seed", "checkout", "--quiet", "-B", "main"]);
        harness.git(&["-C", "seed", "add", "--all"]);
        harness.git(&["-C", "seed", "commit", "--quiet", "--message=First"]);
        harness.git(&["-C", "seed", "push", "--quiet", "origin", "main"]);
        harness
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
            // Where workers have another user, it is theirs.
            .args(["-c", "safe.directory=*"])
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Where orders find their code, as they name it.
    pub fn remote_url(&self) -> String {
        let local = || format!("file://{}", self.path("remote.git").display());
        self.remote.clone().unwrap_or_else(local)
    }

    /// Orders name `url` from now on; what is served there is the repository `remote.git`, which
    /// moves to the folder `served`.
    pub fn serve_remote(&mut self, served: &Path, url: String) {
        self.git(&["-C", "remote.git", "config", "http.receivepack", "true"]);
        fs::create_dir_all(served.parent().unwrap()).unwrap();
        fs::rename(self.path("remote.git"), served).unwrap();
        std::os::unix::fs::symlink(served, self.path("remote.git")).unwrap();
        self.remote = Some(url);
    }

    /// A setting of all workers that are started from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.settings.push((name.to_owned(), value.into()));
    }

    /// Makes the agent wait in `step` until [`Self::let_go`].
    pub fn hold(&self, step: &str) {
        fs::write(self.path("agent").join(format!("hold-{step}")), "").unwrap();
    }

    pub fn let_go(&self, step: &str) {
        fs::remove_file(self.path("agent").join(format!("hold-{step}"))).unwrap();
    }

    /// Leaves a note for the agent.
    pub fn tell_agent(&self, name: &str, content: &str) {
        fs::write(self.path("agent").join(name), content).unwrap();
    }

    /// The runs of the agent so far: run id, step, attempt, pid.
    pub fn agent_runs(&self) -> Vec<[String; 4]> {
        let text = fs::read_to_string(self.path("agent/runs")).unwrap_or_default();
        let line = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            words.try_into().unwrap()
        };
        text.lines().map(line).collect()
    }

    pub fn start_worker(&mut self) -> u32 {
        self.start_worker_with(&[])
    }

    /// Starts a worker with short times, and more settings of the test's own.
    pub fn start_worker_with(&mut self, settings: &[(&str, &str)]) -> u32 {
        let log =
            fs::File::create(self.path(&format!("worker-{}.log", self.workers.len()))).unwrap();
        let child = self
            .product()
            .arg("worker")
            .env("AWO_ALLOW_LOCAL_REMOTES", "true")
            .env("AWO_AGENT", "command")
            .env("AWO_AGENT_COMMAND", self.path("agent/agent.sh"))
            // Where it keeps what it tells the tests.
            .env("AWO_AGENT_WRITE_PATHS", self.path("agent"))
            .env("ARCHON_AWO_PORT", "0")
            .envs([
                ("AWO_LEASE", "4s"),
                ("AWO_HEARTBEAT", "500ms"),
                ("AWO_SELF_FENCE", "3s"),
                ("AWO_RESCUE_GRACE", "500ms"),
                ("AWO_POLL_MIN", "200ms"),
                ("AWO_POLL_MAX", "400ms"),
                ("AWO_DRAIN_GRACE", "100ms"),
                ("AWO_RETRY_BASE", "100ms"),
                ("AWO_RETRY_MAX", "1s"),
            ])
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .envs(settings.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = child.id();
        self.workers.push(child);
        pid
    }

    /// Signals a worker that this test started.
    pub fn signal(&self, pid: u32, signal: Signal) {
        assert!(self.workers.iter().any(|worker| worker.id() == pid), "not ours: {pid}");
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    /// Waits until a worker has ended; answers its exit code.
    pub async fn ended(&mut self, pid: u32) -> Option<i32> {
        let worker = self.workers.iter_mut().find(|worker| worker.id() == pid).unwrap();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = worker.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("worker {pid} did not end");
    }

    /// Inserts an order with an id of the test's own; `steps` are separated by blanks.
    pub async fn order_named(&self, id: &str, request: &str, steps: &str) {
        sqlx::query(
            "insert into agent_work_orders
                 (agent_work_order_id, repository_url, user_request, selected_commands)
             values ($1, $2, $3, string_to_array($4, ' '))",
        )
        .bind(id)
        .bind(self.remote_url())
        .bind(request)
        .bind(steps)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// How an order ended: status, class, sentence, attempts of its job.
    pub async fn outcome(&self, order: &str) -> (String, Option<String>, Option<String>, i32) {
        sqlx::query_as(
            "select o.status, o.error_class, o.error_message, j.attempt
             from agent_work_orders o join awo.jobs j on j.id = o.awo_job_id
             where o.agent_work_order_id = $1",
        )
        .bind(order)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// The folder with everything that workers and agents write.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub async fn order(&self, request: &str) -> String {
        sqlx::query_scalar("select awo_enqueue($1, $2)")
            .bind(self.remote_url())
            .bind(request)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until a query that answers a boolean answers true.
    pub async fn until(&self, what: &'static str) {
        let start = Instant::now();
        loop {
            let query = sqlx::query_scalar(what);
            if query.fetch_optional(&self.pool).await.unwrap() == Some(true) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "never true: {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until a condition that has to be asked for is true.
    pub async fn eventually<F: Future<Output = bool>>(&self, what: &str, is_true: impl Fn() -> F) {
        let start = Instant::now();
        while !is_true().await {
            assert!(start.elapsed() < PATIENCE, "never: {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until an order has a status.
    pub async fn until_status(&self, order: &str, status: &str) {
        let start = Instant::now();
        loop {
            let now: String = sqlx::query_scalar(
                "select status from agent_work_orders where agent_work_order_id = $1",
            )
            .bind(order)
            .fetch_one(&self.pool)
            .await
            .unwrap();
            if now == status {
                return;
            }
            let late = start.elapsed() > PATIENCE;
            let ended = matches!(now.as_str(), "completed" | "failed" | "cancelled");
            assert!(!late && !ended, "{order} is {now}, not {status}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until the agent has begun a step.
    pub async fn until_agent_in(&self, step: &str) {
        let start = Instant::now();
        while !self.agent_runs().iter().any(|run| run[1] == step) {
            assert!(start.elapsed() < PATIENCE, "no agent in {step}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Step rows as `name attempt success class`.
    pub async fn steps(&self, order: &str) -> Vec<String> {
        sqlx::query_scalar(
            "select concat_ws(' ', step_name, attempt, case when success then 'ok' else 'failed' end, error_class)
             from agent_work_order_steps where agent_work_order_id = $1 order by id",
        )
        .bind(order)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// Branches of orders and pull requests on the remote.
    pub fn deliveries(&self) -> (Vec<String>, Vec<String>) {
        let refs = self.git(&["-C", "remote.git", "for-each-ref", "--format=%(refname)"]);
        let branches =
            refs.lines().filter(|r| r.starts_with("refs/heads/") && *r != "refs/heads/main");
        let pulls = refs.lines().filter(|r| r.starts_with("refs/awo/pulls/"));
        (branches.map(str::to_owned).collect(), pulls.map(str::to_owned).collect())
    }

    /// Fails when a promise of the queue is broken, or a step succeeded twice.
    pub async fn assert_sound(&self) {
        let broken: Vec<(String, String)> =
            sqlx::query_as("select broken, subject from awo.invariants")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        assert!(broken.is_empty(), "{broken:?}");
        let twice: Vec<String> = sqlx::query_scalar(
            "select step_name from agent_work_order_steps where success and superseded_at is null
             group by agent_work_order_id, step_name having count(*) > 1",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        assert!(twice.is_empty(), "steps that succeeded twice: {twice:?}");
        let miscounted: Vec<String> =
            sqlx::query_scalar(MISCOUNTED).fetch_all(&self.pool).await.unwrap();
        assert!(
            miscounted.is_empty(),
            "orders whose sums are not those of their runs: {miscounted:?}"
        );
    }

    /// Waits until a worker has logged these words.
    pub async fn until_logged(&self, words: &str) {
        until(words, || self.logs_of(usize::MAX).contains(words)).await;
    }

    /// The ends of what the workers logged.
    pub fn logs(&self) -> String {
        self.logs_of(25)
    }

    fn logs_of(&self, lines: usize) -> String {
        let mut text = String::new();
        for number in 0..self.workers.len() {
            let log =
                fs::read_to_string(self.path(&format!("worker-{number}.log"))).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(lines).collect();
            text.push_str(&tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        text
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // A stopped process takes no SIGTERM; SIGKILL always works, and the shims follow.
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The processes of a run of an agent, found in `/proc` by the marker they inherit.
pub fn processes_of(run_id: &str) -> Vec<u32> {
    let needle = format!("AWO_RUN_ID={run_id}");
    let has = |pid: &u32| {
        let environ = fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
        environ.is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|entry| entry == needle.as_bytes()))
    };
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(has).collect()
}
