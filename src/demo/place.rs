//! Everything that runs during a demo: the server, the remote, the agent and the replicas.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    folder::Folder,
    postgres::{PrivatePostgres, find_binaries},
    progress::Narrator,
    remote::DemoRemote,
    replicas::{Replicas, TIMINGS},
};
use crate::{
    clock::Clock,
    config::{self, Config, Host, keys},
    sql,
    store::{self, DatabaseMode},
};

/// The scripted agent.
const AGENT: &str = include_str!("agent.sh");
/// How long its `execute` takes, in seconds: long enough to be killed in the middle.
const EXECUTE_SECONDS: u32 = 2;
/// Longest time until every replica has registered.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// Most orders on the one repository at once; the database allows no more.
const REPOSITORY_LIMIT: i32 = 64;
/// How it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// Worker processes.
    pub replicas: u16,
    /// Most orders of each at once.
    pub slots: u16,
    /// Whether to leave a real agent alone.
    pub scripted: bool,
}

/// Who works on the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// Our script.
    Scripted,
    /// Claude Code.
    Claude,
}

impl Agent {
    /// How it is called wherever it shows.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Scripted => "scripted agent, not a model",
            Self::Claude => "Claude Code",
        }
    }

    /// Claude where its program and a credential are present.
    fn choose(config: &Config, scripted: bool) -> Self {
        let claude = &config.agent.claude;
        let credential = claude.api_key.is_some() || claude.oauth_token.is_some();
        let present = config::find_program(&claude.cli, &config.search_path).is_ok();
        if credential && present && !scripted { Self::Claude } else { Self::Scripted }
    }
}

/// A running place. The order of the fields is the order of the end: who uses something goes
/// before it.
pub struct Place {
    /// The workers.
    pub replicas: Replicas,
    /// The database.
    pub pool: PgPool,
    /// Who works.
    pub agent: Agent,
    /// The repository.
    pub remote: DemoRemote,
    postgres: PrivatePostgres,
    folder: Folder,
}

impl Place {
    /// Starts everything; what was started ends again when a part fails.
    pub async fn start(
        folder: Folder,
        wishes: Wishes,
        host: &Host,
        clock: &Clock,
        narrator: &Narrator,
    ) -> anyhow::Result<Self> {
        let config = Config::load(host)?;
        let agent = Agent::choose(&config, wishes.scripted);
        let bin = find_binaries(host, &config.search_path).await?;
        let logs = folder.make("logs")?;
        let (cluster, log) = (folder.path().join("postgres"), logs.join("postgres.log"));
        let connections = 40 + 20 * usize::from(wishes.replicas);
        let remotes = folder.make("remote")?;
        let (postgres, remote) = tokio::try_join!(
            PrivatePostgres::start(&bin, &cluster, &log, connections, clock),
            DemoRemote::create(&remotes, &config.search_path),
        )?;
        let database = store::connect(&postgres.url(), DatabaseMode::Direct, 4).await?;
        store::migrate(&database).await?;
        let pool = database.connections().clone();
        let from = bin.display();
        narrator.say(clock.now(), format_args!("private Postgres from {from}, schema migrated"));
        narrator.say(clock.now(), format_args!("git remote {}", remote.url()));
        narrator.say(clock.now(), format_args!("agent: {}", agent.label()));

        let replicas = Replicas::default();
        let mut place = Self { replicas, pool, agent, remote, postgres, folder };
        let environment = place.environment(&config, wishes)?;
        for _ in 0..wishes.replicas {
            place.replicas.start(&environment, &logs)?;
        }
        sqlx::query(sql!("demo/set_limit"))
            .bind(place.remote.url())
            .bind(REPOSITORY_LIMIT)
            .execute(&place.pool)
            .await?;
        place.registered(usize::from(wishes.replicas), clock).await?;
        for replica in place.replicas.all() {
            let (number, pid, port) = (replica.number, replica.pid, replica.port);
            let line = format!("replica {number}: process {pid}, http://127.0.0.1:{port}/health");
            narrator.say(clock.now(), line);
        }
        let changed: Vec<_> =
            TIMINGS.iter().map(|(name, value)| format!("{name}={value}")).collect();
        narrator.line(&format!("          shortened for the demo: {}", changed.join(" ")));
        Ok(place)
    }

    /// What a replica sees: nothing of ours but this.
    fn environment(
        &self,
        config: &Config,
        wishes: Wishes,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let folder = |name: &str| -> anyhow::Result<String> {
            Ok(self.folder.make(name)?.display().to_string())
        };
        let mut environment: Vec<(String, String)> = [
            ("PATH", config.search_path.clone()),
            ("HOME", folder("home")?),
            ("DATABASE_URL", self.postgres.url().expose_secret().to_owned()),
            ("AWO_REPOSITORY_DIR", folder("repositories")?),
            ("AWO_WORK_ORDER_DIR", folder("work-orders")?),
            ("AWO_CONFIG_DIR", folder("config")?),
            ("AWO_LOCAL_REMOTES", folder("remote")?),
            ("AWO_MAX_CONCURRENT", wishes.slots.to_string()),
            ("AWO_LOG_FORMAT", "human".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        environment.extend(TIMINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        match self.agent {
            Agent::Scripted => {
                let script = self.folder.path().join("agent.sh");
                fs::write(&script, AGENT)
                    .with_context(|| format!("cannot write {}", script.display()))?;
                let script = script.display().to_string();
                let seconds = EXECUTE_SECONDS.to_string();
                let command = shell_words::join(["/bin/sh", script.as_str(), seconds.as_str()]);
                environment.push(("AWO_AGENT".to_owned(), "command".to_owned()));
                environment.push(("AWO_AGENT_COMMAND".to_owned(), command));
            }
            Agent::Claude => environment.extend(claude(config)),
        }
        Ok(environment)
    }

    /// Waits until `count` workers have registered.
    async fn registered(&mut self, count: usize, clock: &Clock) -> anyhow::Result<()> {
        let deadline = clock.now() + START_TIMEOUT;
        while self.workers().await?.len() < count {
            self.replicas.check()?;
            anyhow::ensure!(
                clock.now() < deadline,
                "the replicas did not start in {START_TIMEOUT:?}"
            );
            clock.sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Which worker is which replica, by process id.
    pub async fn workers(&self) -> anyhow::Result<Vec<(Uuid, usize)>> {
        let rows: Vec<(Uuid, i32)> =
            sqlx::query_as(sql!("demo/workers")).fetch_all(&self.pool).await?;
        let number = |pid: i32| {
            let found = self.replicas.all().iter().find(|r| u32::try_from(pid) == Ok(r.pid));
            found.map(|replica| replica.number)
        };
        Ok(rows.into_iter().filter_map(|(id, pid)| Some((id, number(pid)?))).collect())
    }

    /// Waits for a replica to end, which none should.
    pub async fn watch(&mut self, clock: &Clock) -> anyhow::Result<()> {
        loop {
            self.replicas.check()?;
            clock.sleep(Duration::from_millis(500)).await;
        }
    }

    /// Where to begin, for a person who has it to themselves.
    pub fn invitation(&self) -> String {
        let url = self.postgres.url();
        let (psql, url) = (self.postgres.psql().display(), url.expose_secret());
        let remote = self.remote.url();
        let mut text = format!(
            "\nDATABASE_URL={url}\nremote      {remote}\nfolder      {}\n",
            self.folder.path().display()
        );
        for replica in self.replicas.all() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "health      http://127.0.0.1:{}/health", replica.port);
        }
        let _ = write!(
            text,
            "\nOrder something:\n  {psql} '{url}' -c \"insert into agent_work_orders \
             (repository_url, user_request) values ('{remote}', 'Add a command \\`count\\` that prints \
             how many words it reads')\"\nLook at it:\n  {psql} '{url}' -c 'select * from \
             awo.running_now'\n  {psql} '{url}' -c 'select agent_work_order_id, status, current_phase, \
             github_pull_request_url from agent_work_orders'\n\nCtrl-C stops everything.",
        );
        text
    }

    /// Takes everything down in order.
    pub async fn stop(mut self, clock: &Clock) {
        self.replicas.stop(clock).await;
        self.pool.close().await;
        // The rest ends as it is dropped: the server, then the folder.
    }
}

/// The settings of the real agent, wherever they came from.
fn claude(config: &Config) -> Vec<(String, String)> {
    let claude = &config.agent.claude;
    let secret =
        |value: &Option<SecretString>| value.as_ref().map(|value| value.expose_secret().to_owned());
    let settings = [
        (&keys::CLAUDE_CLI, Some(claude.cli.display().to_string())),
        (&keys::CLAUDE_MODEL, claude.model.clone()),
        (&keys::CLAUDE_MAX_TURNS, claude.max_turns.map(|turns| turns.to_string())),
        (&keys::CLAUDE_MAX_BUDGET, claude.max_budget_usd.map(|amount| amount.to_string())),
        (&keys::ANTHROPIC_API_KEY, secret(&claude.api_key)),
        (&keys::CLAUDE_OAUTH_TOKEN, secret(&claude.oauth_token)),
        (&keys::ANTHROPIC_BASE_URL, claude.base_url.clone()),
        (&keys::AGENT_TIMEOUT, Some(config.agent.timeout.as_secs().to_string())),
    ];
    let set = settings.into_iter().filter_map(|(key, value)| Some((key.name().to_owned(), value?)));
    set.collect()
}
