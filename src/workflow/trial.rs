//! One call of the agent, tried out: no database, a copy of the repository, and everything else as a worker
//! would have it.

use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    agent_environment::{credential_environment, proxy_address, proxy_environment},
    message::commit_message,
    prompts::{CommandFiles, PromptError},
    pull_request_text::title_and_body,
    review::{self, Review},
    steps::{plan_of, stat},
};
use crate::{
    agent::{AgentKind, AgentReport, AgentRequest, LeaseSignal, OutputChunk, Supervisor},
    clock::Clock,
    config::Config,
    domain::{
        ErrorClass, InvalidBranch, Redactor, RepositoryUrl, Role, StepName, Task, WorkOrderId,
    },
    git::{Changes, Git, GitError, Remote, Sandbox, Undone},
    ports::{PortError, PortRange},
};

/// The branch of the copy.
const BRANCH: &str = "try/agent";
/// Where the plan of an earlier trial in the same folder is kept, for the next ones.
const PLAN: &str = "plan.md";

/// What is tried.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The order that it pretends to be.
    pub order: WorkOrderId,
    /// The step; one that asks an agent.
    pub step: StepName,
    /// The repository a copy of which is worked on.
    pub url: RepositoryUrl,
    /// What is ordered, in words.
    pub request: String,
    /// Where everything of the trial lies. A trial in the folder of an earlier one goes on in its checkout.
    pub folder: PathBuf,
}

/// How a trial ended.
#[derive(Debug)]
pub struct TrialReport {
    /// What was asked for.
    pub task: Task,
    /// The run.
    pub run: AgentReport,
    /// What the step would make of the answer.
    pub answer: Result<Answer, String>,
    /// How the checkout differs from the repository.
    pub changes: Changes,
    /// The names of its files that do.
    pub files: Vec<String>,
    /// The checkout.
    pub checkout: PathBuf,
}

/// An answer as its step understands it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Of `planning`.
    Plan(String),
    /// Of `execute`: words for people.
    Report(String),
    /// Of `prp-review`.
    Review(Review),
    /// Of `commit`.
    CommitMessage(String),
    /// Of `create-pr`.
    PullRequest {
        /// Its title.
        title: String,
        /// Its description.
        body: String,
    },
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The repository, or its copy.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The command file of the step.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The branch of the copy.
    #[error(transparent)]
    Branch(#[from] InvalidBranch),
    /// The ports that the agent may use.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// What looks for them ended.
    #[error("cannot look for free ports: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
    /// The folder of the trial.
    #[error("cannot use the folder {folder}: {error}", folder = folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The proxy of its agent has no address.
    #[error("{0}")]
    Proxy(String),
}

impl Trial {
    /// Runs the agent of the settings. Its output goes to `output` as it comes; `cancel` ends it with all it
    /// started.
    ///
    /// # Errors
    /// Nothing was run: no repository, no command file, no folder.
    pub async fn run(
        &self,
        config: &Config,
        clock: &Clock,
        cancel: CancellationToken,
        output: mpsc::Sender<OutputChunk>,
    ) -> Result<TrialReport, TrialError> {
        let redactor = Redactor::new(config.secrets());
        let this_binary = std::env::current_exe().map_err(|error| self.folder_error(error))?;
        let mut settings = config.clone();
        settings.folders.repositories = self.folder.join("repositories");
        settings.remotes.allow_local = true;
        // Whoever tries it out names a folder of their own.
        settings.local_remotes.roots.clear();
        let git = Git::configured(&settings, this_binary.clone(), redactor.clone());
        let sandbox = self.sandbox(&git, config).await?;
        let plan = self.earlier_plan().await;
        let (task, prompt) = self.prompt(config, &sandbox, &plan).await?;
        let mut request = self.request(config, &sandbox, task, prompt).await?;
        let ports = self.ports(config).await?;
        if let Some(range) = &ports {
            request.extra_env.extend(range.environment());
            sandbox.write_ports_file(range.file()).await?;
        }
        let looks = !Role::of(task).writes();
        if looks {
            sandbox.remember_files().await?;
        }

        let supervisor = Supervisor::configured(config, this_binary, redactor, clock.clone());
        // Nobody else wants the order.
        let until = clock.boot_time() + config.agent.timeout * 2;
        let (_lease, held) = watch::channel(LeaseSignal::Held { until });
        let agent = AgentKind::configured(config);
        let run = supervisor.run(&agent, request, held, cancel, output).await;

        drop(ports);
        // Whoever only looks at the files has what it changed put back, and a plan may have been such a file.
        let undone = if looks { sandbox.put_files_back().await? } else { Undone::default() };
        let changes = sandbox.changes().await?;
        let answer = match self.step {
            StepName::Planning => match plan_of(&sandbox, &undone, run.text.trim()).await {
                plan if plan.is_empty() => {
                    Err("planning gave no plan: expected it as the agent's answer \
                                                or as a Markdown file"
                        .to_owned())
                }
                plan => Ok(Answer::Plan(plan)),
            },
            _ => self.understand(&run, &plan, &changes),
        };
        if let Ok(Answer::Plan(plan)) = &answer {
            let file = self.folder.join(PLAN);
            tokio::fs::write(&file, plan).await.map_err(|error| self.folder_error(error))?;
        }
        let files = names_of(&changes);
        Ok(TrialReport { task, run, answer, changes, files, checkout: sandbox.checkout })
    }

    fn folder_error(&self, error: std::io::Error) -> TrialError {
        TrialError::Folder { folder: self.folder.clone(), error }
    }

    /// The copy that an earlier trial in this folder made, else a fresh one.
    async fn sandbox(&self, git: &Git, config: &Config) -> Result<Sandbox, TrialError> {
        if let Some(sandbox) = git.find_sandbox(&self.order, &self.url).await? {
            return Ok(sandbox);
        }
        let credential = config.credentials.for_url(&self.url);
        let remote = Remote { url: self.url.clone(), credential };
        let mirror = git.refresh_mirror(&remote).await?;
        let branch = BRANCH.parse()?;
        Ok(git.open_sandbox(&mirror, &self.order, &branch, None).await?)
    }

    /// The ports that the agent may use, held as long as it runs.
    async fn ports(&self, config: &Config) -> Result<Option<PortRange>, TrialError> {
        let (Some(pool), name) = (config.ports.clone(), self.order.to_string()) else {
            return Ok(None);
        };
        Ok(Some(tokio::task::spawn_blocking(move || pool.take(&name, None)).await??))
    }

    async fn earlier_plan(&self) -> String {
        tokio::fs::read_to_string(self.folder.join(PLAN)).await.unwrap_or_default()
    }

    /// What the step would ask.
    async fn prompt(
        &self,
        config: &Config,
        sandbox: &Sandbox,
        plan: &str,
    ) -> Result<(Task, String), TrialError> {
        let commands = CommandFiles::new(config.agent.commands_dir.clone());
        let command = commands.read(self.step).await?;
        let changes = sandbox.changes().await?;
        let (request, stat) = (self.request.as_str(), stat(&changes));
        let numbers = stat.lines().next().unwrap_or_default();
        Ok(match self.step {
            StepName::Planning => (Task::Plan, command.render(&[request])),
            StepName::PrpReview => (Task::Review, command.render(&[request, plan, numbers])),
            StepName::Commit => (Task::CommitMessage, command.render(&[request, &stat])),
            StepName::CreatePr => {
                let message = commit_message(None, request, &self.order);
                (Task::PullRequest, command.render(&[request, plan, numbers, &message]))
            }
            // `create-branch` has no command file, so it does not come this far.
            StepName::Execute | StepName::CreateBranch => {
                (Task::Change, command.render(&[plan, request]))
            }
        })
    }

    async fn request(
        &self,
        config: &Config,
        sandbox: &Sandbox,
        task: Task,
        prompt: String,
    ) -> Result<AgentRequest, TrialError> {
        let spool = self.folder.join("outputs").join(format!("{}.ndjson", self.step));
        let outputs = spool.parent().unwrap_or(Path::new("."));
        tokio::fs::create_dir_all(outputs).await.map_err(|error| self.folder_error(error))?;
        let mut extra_env = vec![("PATH".to_owned(), config.search_path.clone())];
        extra_env.extend(credential_environment(&config.agent.credentials));
        let isolation = &config.agent.isolation;
        let proxy = proxy_address(isolation.proxy.as_deref(), isolation.proxy_by_number()).await;
        extra_env.extend(proxy_environment(proxy.map_err(TrialError::Proxy)?.as_deref()));
        let role = Role::of(task);
        let (home, tmp) = sandbox.rooms(role);
        Ok(AgentRequest {
            order: sandbox.order.clone(),
            step: self.step,
            task,
            attempt: 1,
            run_id: Uuid::new_v4(),
            checkout: sandbox.checkout.clone(),
            sandbox_root: sandbox.root.clone(),
            home,
            tmp,
            renew: !role.writes(),
            objects: sandbox.borrowed_objects().await?,
            trusted: false,
            unguided: false,
            prompt,
            // The same in every trial in one folder.
            session: Uuid::new_v5(&Uuid::NAMESPACE_OID, self.step.as_str().as_bytes()),
            resume: true,
            hard_timeout: config.agent.timeout,
            idle_timeout: config.agent.idle_timeout,
            spool,
            extra_env,
        })
    }

    /// What the step would make of the answer; a sentence when it would fail.
    fn understand(
        &self,
        run: &AgentReport,
        plan: &str,
        changes: &Changes,
    ) -> Result<Answer, String> {
        let text = run.text.trim();
        match self.step {
            StepName::Planning | StepName::Execute | StepName::CreateBranch => {
                Ok(Answer::Report(text.to_owned()))
            }
            StepName::PrpReview => {
                review::parse(text).map(Answer::Review).map_err(|error| error.to_string())
            }
            StepName::Commit => {
                Ok(Answer::CommitMessage(commit_message(Some(text), &self.request, &self.order)))
            }
            StepName::CreatePr => {
                let files = changes.files_changed.into();
                let (title, body) =
                    title_and_body(Some(text), &self.request, plan, files, &self.order);
                Ok(Answer::PullRequest { title, body })
            }
        }
    }
}

impl TrialReport {
    /// Why the step would not go on, if so.
    pub fn failure(&self) -> Option<(ErrorClass, String)> {
        match (&self.run.verdict, &self.answer) {
            (Err(failure), _) => Some((failure.class, failure.message.clone())),
            (Ok(()), Err(reason)) => Some((ErrorClass::Invalid, reason.clone())),
            (Ok(()), Ok(_)) => None,
        }
    }
}

/// The names of the files that differ.
fn names_of(changes: &Changes) -> Vec<String> {
    let heads = changes.diff.lines().filter_map(|line| line.strip_prefix("diff --git a/"));
    heads.filter_map(|head| head.rsplit_once(" b/")).map(|(_, name)| name.to_owned()).collect()
}
