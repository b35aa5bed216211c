//! `archon-awo doctor`: checks everything a worker needs, and says what to do about what is missing.

use std::{path::Path, time::Duration};

use console::style;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::{
    COMMAND_CONNECTIONS,
    output::{Output, first_line, plain},
};
use crate::{
    agent::Isolation,
    archive::Archive,
    config::{self, AgentKind, AgentsBounds, Config, Host, Problem, find_program},
    disk::{Level, SystemDisk, VolumeState},
    domain::Redactor,
    exit::CommandError,
    process,
    store::{self, Database},
};

/// Longest time a program may take to say its version, and GitHub to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// The outcome of one check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What was found.
    detail: String,
    /// What to do, when it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Check {
    fn well(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: true, detail: shown(detail), help: None }
    }

    fn ill(name: &'static str, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self { name, ok: false, detail: shown(detail), help: Some(shown(help)) }
    }

    fn from(name: &'static str, result: Result<String, Problem>) -> Self {
        match result {
            Ok(detail) => Self::well(name, detail),
            Err(problem) => Self::ill(name, problem.problem, problem.help),
        }
    }
}

/// What servers and programs say, and addresses of the settings: without passwords and without what a terminal
/// would obey.
fn shown(text: impl Into<String>) -> String {
    plain(&config::without_passwords(&text.into()))
}

pub(super) async fn run(host: &Host, output: &Output) -> anyhow::Result<()> {
    let mut redactor = Redactor::default();
    let mut checks = match Config::load(host) {
        Ok(config) => {
            redactor = Redactor::new(config.secrets());
            check_all(&config).await
        }
        Err(error) => vec![Check::ill(
            "settings",
            error.to_string(),
            "correct it; the other checks need valid settings",
        )],
    };
    for check in &mut checks {
        check.detail = redactor.text(&check.detail);
        check.help = check.help.take().map(|help| redactor.text(&help));
    }
    let problems = checks.iter().filter(|check| !check.ok).count();
    if output.is_json() {
        output.document(&serde_json::json!({ "ok": problems == 0, "checks": checks }))?;
    } else {
        for check in &checks {
            let mark = if check.ok { style("✔").green() } else { style("✘").red() };
            output.line(format!("{mark} {}: {}", check.name, check.detail))?;
            if let Some(help) = &check.help {
                output.line(format!("    {help}"))?;
            }
        }
    }
    if problems == 0 { Ok(()) } else { Err(CommandError::ProblemsFound(problems).into()) }
}

async fn check_all(config: &Config) -> Vec<Check> {
    let mut checks = vec![settings(config)];
    checks.extend(config.weak_secrets().map(|words| Check::well("weak credentials", words)));
    checks.extend(database(config).await);
    let folders = &config.folders;
    for (name, key, folder) in [
        ("repositories folder", &config::keys::REPOSITORY_DIR, &folders.repositories),
        ("work orders folder", &config::keys::WORK_ORDER_DIR, &folders.work_orders),
        ("config folder", &config::keys::CONFIG_DIR, &folders.config),
    ] {
        let writable = config::check_folder(key.name(), folder);
        let detail = || format!("{} can be written to", folder.display());
        checks.push(Check::from(name, writable.map(|()| detail())));
    }
    checks.extend(disk(config));
    checks.extend(archive(config).await);
    checks.push(git(config).await);
    checks.push(agent(config).await);
    checks.push(freezer(config).await);
    checks.extend(isolation(config).await);
    let built_in = || match &config.agent.commands_dir {
        Some(folder) => format!("{} can be read", folder.display()),
        None => "the built-in ones".to_owned(),
    };
    checks.push(Check::from("command files", config::check_commands(config).map(|()| built_in())));
    if config.git.ca_file.is_some() {
        let checked = config::check_ca_file(config).map(|()| "can be read".to_owned());
        checks.push(Check::from("certificate authorities", checked));
    }
    checks.push(github(config).await);
    checks
}

fn settings(config: &Config) -> Check {
    let detail = match config.warnings.as_slice() {
        [] => "valid".to_owned(),
        warnings => format!("valid, but: {}", warnings.join("; ")),
    };
    Check::well("settings", detail)
}

async fn database(config: &Config) -> Vec<Check> {
    let database = &config.database;
    let name = "database";
    let url = match database.required_url() {
        Ok(url) => url,
        Err(error) => {
            let help = "set it in the environment or in agent-settings.yaml";
            return vec![Check::ill(name, error.to_string(), help)];
        }
    };
    let pool = match store::connect(url, database.mode, COMMAND_CONNECTIONS).await {
        Ok(pool) => pool,
        Err(error) => {
            let help = "start the server, or correct DATABASE_URL; \
                        the server must be PostgreSQL 14 or newer, and the database UTF8";
            return vec![Check::ill(name, error.to_string(), help)];
        }
    };
    let server = match store::Server::look(&pool).await {
        Ok(server) => server.writable().map(|()| format!("PostgreSQL {}", server.version)),
        Err(error) => Err(error),
    };
    let reachable = match server {
        Ok(version) => Check::well(name, version),
        Err(error) => Check::ill(name, error.to_string(), "a worker does not start on it"),
    };
    let connections = connections(&pool, database.max_connections).await;
    vec![reachable, connections, schema(&pool).await, rights(&pool).await]
}

/// Whether a worker gets the connections it may use.
async fn connections(pool: &Database, most: u32) -> Check {
    let name = "connections";
    match store::Connections::look(pool, most).await {
        Ok(found) => match found.lacking() {
            None => Check::well(name, found.describe()),
            Some(remedy) => Check::ill(name, found.describe(), remedy),
        },
        Err(error) => Check::ill(name, error.to_string(), "look into the server's log"),
    }
}

/// Whether the role of this database may do a worker's work: make the schema, or use the one there is.
async fn rights(pool: &Database) -> Check {
    let name = "rights";
    let checked = match store::schema_state(pool).await {
        Ok(state) if state.found < state.expected => store::check_migration_rights(pool).await,
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    let checked = match checked {
        Ok(()) => store::check_rights(pool).await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => Check::well(name, "the role may do what a worker does"),
        Err(error) => Check::ill(name, error.to_string(), "a worker does not start without them"),
    }
}

async fn schema(pool: &Database) -> Check {
    match store::schema_state(pool).await {
        Ok(state) => match state.check() {
            Ok(()) if state.is_newer() => {
                let (found, expected) = (state.found, state.expected);
                let words = format!("version {found}, newer than the {expected} of this program");
                Check::well("schema", words)
            }
            Ok(()) => Check::well("schema", format!("version {}", state.found)),
            Err(error) => {
                let help = if state.is_newer() {
                    "install a newer archon-awo"
                } else {
                    "run `archon-awo migrate`; a worker does so too unless AWO_AUTO_MIGRATE=false"
                };
                Check::ill("schema", error.to_string(), help)
            }
        },
        Err(error) => {
            Check::ill("schema", error.to_string(), "check the rights of the database user")
        }
    }
}

/// Whether there is room on the volumes.
fn disk(config: &Config) -> Vec<Check> {
    let folders = &config.folders;
    let volumes = [
        ("disk of the repositories", "repositories", &folders.repositories),
        ("disk of the work orders", "work-orders", &folders.work_orders),
    ];
    let check = |(name, volume, folder): (_, _, &std::path::PathBuf)| {
        let found = VolumeState::look(volume, folder.clone(), &SystemDisk, &config.disk.marks);
        match &found.lacks {
            None => Check::well(name, found.describe()),
            Some(lacks) if found.level == Level::Closed => {
                Check::ill(name, lacks, "no orders are claimed while it is so")
            }
            Some(lacks) => {
                let help = "free space there: no orders are claimed while it is so";
                Check::ill(name, format!("{}: {lacks}", found.describe()), help)
            }
        }
    };
    volumes.into_iter().map(check).collect()
}

async fn archive(config: &Config) -> Option<Check> {
    let settings = config.archive.as_ref()?;
    let asked = match Archive::open(settings) {
        Ok(archive) => archive.check().await,
        Err(error) => Err(error),
    };
    Some(match asked {
        Ok(()) => Check::well("archive", settings.url.as_str()),
        Err(error) => Check::ill(
            "archive",
            error.to_string(),
            "correct AWO_ARCHIVE_URL and the key, region and endpoint that belong to it",
        ),
    })
}

async fn git(config: &Config) -> Check {
    let name = "git";
    let help = "install git, and see that it is in PATH";
    match find_program(Path::new("git"), &config.search_path) {
        Ok(path) => match version(&path, config).await {
            Ok(version) => Check::well(name, format!("{version}, {}", git_lfs(config).await)),
            Err(reason) => Check::ill(name, format!("{} {reason}", path.display()), help),
        },
        Err(reason) => Check::ill(name, format!("git {reason}"), help),
    }
}

/// Only repositories whose policy wants it need this.
async fn git_lfs(config: &Config) -> String {
    let found = match find_program(Path::new("git-lfs"), &config.search_path) {
        Ok(path) => version(&path, config).await.ok(),
        Err(_) => None,
    };
    let version = found.and_then(|text| text.split(' ').next().map(str::to_owned));
    version.unwrap_or_else(|| "without git-lfs, which repositories with lfs need".to_owned())
}

async fn agent(config: &Config) -> Check {
    let name = "agent";
    let path = match config::check_agent(config) {
        Ok(path) => path,
        Err(problem) => return Check::from(name, Err(problem)),
    };
    if config.agent.kind == AgentKind::Command {
        // Any program may be the agent: what it does with `--version` is not known.
        return Check::well(name, format!("{} can be executed", path.display()));
    }
    match version(&path, config).await {
        Ok(version) => Check::well(name, format!("{} {version}", path.display())),
        Err(reason) => Check::ill(
            name,
            format!("{} {reason}", path.display()),
            format!("see that `{} --version` works for this user", path.display()),
        ),
    }
}

/// How agents are frozen here and held together.
async fn freezer(config: &Config) -> Check {
    let wanted = config.agent.freezer;
    let found = tokio::task::spawn_blocking(move || {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        crate::agent::find_freezer(&program, wanted)
    });
    let found = found.await.unwrap_or_else(|error| Err(error.to_string()));
    let result = found
        .map(|freezer| freezer.to_string())
        .map_err(|reason| config::freezer_problem(wanted, &reason));
    Check::from("freezer", result)
}

/// How far agents are shut in here.
async fn isolation(config: &Config) -> Vec<Check> {
    let (wanted, freezer) = (config.agent.isolation.clone(), config.agent.freezer);
    let found = tokio::task::spawn_blocking(move || {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        crate::agent::find_isolation(&program, &wanted, freezer)
    });
    let found = found.await.unwrap_or_else(|error| Err(error.to_string()));
    let entrances = entrances(config, found.as_ref().ok()).await;
    let result = found
        .map(|isolation| isolation.to_string())
        .map_err(|reason| config::isolation_problem(&reason));
    [Some(Check::from("isolation", result)), entrances].into_iter().flatten().collect()
}

/// Whether agents, who know no password, get into the database.
async fn entrances(config: &Config, isolation: Option<&Isolation>) -> Option<Check> {
    let url = config.database.url.as_ref()?;
    let none = AgentsBounds { other_user: false, only_port: None };
    let bounds = isolation.map_or(none, |found| found.bounds(&config.agent.isolation));
    let checked = store::check_entrances(store::entrances(url).await, bounds);
    let name = "database password";
    Some(match checked {
        Ok(()) => Check::well(name, "no agent gets in without it"),
        Err(error) => Check::ill(name, error.to_string(), "a worker does not start so"),
    })
}

/// What `program --version` prints; the error follows the program's name.
async fn version(program: &Path, config: &Config) -> Result<String, String> {
    let mut command = process::command(program);
    command.arg("--version").env("PATH", &config.search_path);
    if let Some(home) = &config.home {
        command.env("HOME", home);
    }
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => return Err("did not answer --version within 15s".to_owned()),
        Ok(Err(error)) => return Err(format!("cannot be started: {error}")),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = output.status;
        return Err(format!("--version ended with {status}: {}", first_line(&stderr, 120)));
    }
    Ok(first_line(&String::from_utf8_lossy(&output.stdout), 80))
}

async fn github(config: &Config) -> Check {
    let name = "github token";
    let Some(token) = &config.github.token else {
        let elsewhere = !config.remotes.allowed_hosts.contains(&config.github.host);
        return if config.remotes.allow_local || elsewhere {
            Check::well(name, "not set; the remotes that orders may name need none")
        } else {
            Check::ill(
                name,
                "GITHUB_TOKEN is not set",
                "set it to a token that may push and open pull requests",
            )
        };
    };
    let api = &config.github.api_url;
    let client = octocrab::Octocrab::builder()
        .personal_token(token.expose_secret().to_owned())
        .base_uri(api.as_str());
    let client = match client {
        Ok(builder) => builder.build(),
        Err(error) => Err(error),
    };
    let client = match client {
        Ok(client) => client,
        Err(error) => return Check::ill(name, error.to_string(), "correct GITHUB_API_URL"),
    };
    // Every kind of token may ask for its limits; a wrong one is told so.
    match tokio::time::timeout(PATIENCE, client.ratelimit().get()).await {
        Ok(Ok(limits)) => {
            let left = limits.resources.core.remaining;
            Check::well(name, format!("accepted by {api}, {left} requests left this hour"))
        }
        Ok(Err(octocrab::Error::GitHub { source, .. })) => Check::ill(
            name,
            format!("{api} answered {}: {}", source.status_code, source.message),
            "make a new token, and set GITHUB_TOKEN to it",
        ),
        Ok(Err(error)) => {
            let help = "check the network, and GITHUB_API_URL";
            Check::ill(name, format!("cannot ask {api}: {error}"), help)
        }
        Err(_) => Check::ill(name, format!("{api} did not answer within 15s"), "check the network"),
    }
}
