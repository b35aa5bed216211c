//! `archon-awo repository`: what is set for a repository, and setting it.

use serde_json::{Map, Value, json};

use super::{
    open_store,
    output::{Output, plain, time},
};
use crate::{config::Config, exit::CommandError, store::RepositorySettings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The repository: its address or its key.
    #[arg(value_name = "URL")]
    repository: String,
    #[command(flatten)]
    change: Change,
}

/// What is to be set; the rest stays as it is.
#[derive(Debug, clap::Args)]
struct Change {
    /// How many of its orders may run at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=64))]
    limit: Option<u8>,
    /// The branch its orders start from; empty for the remote's own.
    #[arg(long, value_name = "NAME")]
    default_branch: Option<String>,
    /// The form of a sandbox: `git_worktree` or `git_branch`.
    #[arg(long, value_name = "FORM")]
    sandbox_type: Option<String>,
    /// Whether the agent configuration that it brings along is obeyed.
    #[arg(long, value_name = "BOOL")]
    trusted: Option<bool>,
    /// Variables of the worker that its agents get too, by name; empty for none.
    #[arg(long, value_name = "NAME,…")]
    agent_environment: Option<String>,
    /// Whether submodules are fetched.
    #[arg(long, value_name = "BOOL")]
    submodules: Option<bool>,
    /// Whether contents of Git LFS are fetched.
    #[arg(long, value_name = "BOOL")]
    lfs: Option<bool>,
    /// Folders that are checked out; empty for everything.
    #[arg(long, value_name = "FOLDER,…")]
    sparse_paths: Option<String>,
    /// How much of its history is fetched: `full` or `shallow`.
    #[arg(long, value_name = "DEPTH")]
    clone_depth: Option<String>,
}

impl Change {
    /// What is named of it, as a policy; the database checks the values.
    fn policy(&self) -> Map<String, Value> {
        let branch = self.default_branch.as_deref().map(|name| match name {
            "" => Value::Null,
            name => json!(name),
        });
        let list = |text: &Option<String>| {
            let items = |text: &String| -> Value {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
            };
            text.as_ref().map(items)
        };
        let named = [
            ("default_branch", branch),
            ("default_sandbox_type", self.sandbox_type.as_ref().map(|form| json!(form))),
            ("trusted", self.trusted.map(Value::from)),
            ("agent_environment", list(&self.agent_environment)),
            ("submodules", self.submodules.map(Value::from)),
            ("lfs", self.lfs.map(Value::from)),
            ("sparse_paths", list(&self.sparse_paths)),
            ("clone_depth", self.clone_depth.as_ref().map(|depth| json!(depth))),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

pub(super) async fn run(args: &Args, config: &Config, output: &Output) -> anyhow::Result<()> {
    let (store, policy) = (open_store(config).await?, args.change.policy());
    if !policy.is_empty() || args.change.limit.is_some() {
        store.set_repository(&args.repository, &Value::Object(policy), args.change.limit).await?;
    }
    let found = store.find_repository(&args.repository).await?;
    let found = found.ok_or_else(|| CommandError::NoSuchRepository(args.repository.clone()))?;
    if output.is_json() { output.document(&found) } else { print(&found, output) }
}

fn print(found: &RepositorySettings, output: &Output) -> anyhow::Result<()> {
    let list = |items: &[String], none: &str| match items {
        [] => none.to_owned(),
        items => items.join(", "),
    };
    let truth = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let branch = found.default_branch.clone();
    let paused = found.paused_at.map(|at| format!("since {} (UTC)", time(at)));
    let rows = [
        ("repository", found.repo_key.clone()),
        ("orders at once", found.limit.to_string()),
        ("paused", paused.unwrap_or_else(|| "no".to_owned())),
        ("default branch", branch.unwrap_or_else(|| "the remote's own".to_owned())),
        ("sandbox type", found.default_sandbox_type.clone()),
        ("trusted", truth(found.trusted)),
        ("agent environment", list(&found.agent_environment, "nothing of the worker's")),
        ("submodules", truth(found.submodules)),
        ("Git LFS", truth(found.lfs)),
        ("checked out", list(&found.sparse_paths, "everything")),
        ("history", found.clone_depth.clone()),
    ];
    for (name, value) in rows {
        output.line(format!("{name:<18} {}", plain(&value)))?;
    }
    Ok(())
}
