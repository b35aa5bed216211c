//! The forge of a `file://` remote: a pull request is a file and a ref in the remote itself.
//!
//! Both are written under one lock, the file first: whoever finds a file without its ref finishes
//! the work of a process that died in between.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::fs;

use super::{
    ForgeError, ForgeSettings, FoundPullRequest, Issue, PullRequest, PullRequestOutcome,
    PullRequestState, RepositoryFacts, marker,
    pull_file::{self, PullFile},
};
use crate::{
    clock::Clock,
    domain::{BranchName, Redactor, RepositoryUrl},
    local_remotes::{LocalRemotes, NamedBy, RefusedFolder},
    process,
};

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Wait between two tries to get the lock.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// One repository in a folder on this host.
#[derive(Debug, Clone)]
pub struct LocalForge {
    /// The folder that was ordered.
    folder: PathBuf,
    name: String,
    git_binary: PathBuf,
    search_path: String,
    timeout: Duration,
    clock: Clock,
    rules: LocalRemotes,
    redactor: Redactor,
}

/// A pull request that was found.
struct Found {
    number: u64,
    pull: PullFile,
    text: String,
}

impl LocalForge {
    pub(super) fn new(
        url: &RepositoryUrl,
        settings: &ForgeSettings,
        redactor: Redactor,
    ) -> Result<Self, ForgeError> {
        let folder = url.local_path().ok_or_else(|| {
            ForgeError::Unusable(format!("repository_url {url} is not a folder: expected file://"))
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            name: url.name().to_owned(),
            git_binary: settings.git_binary.clone(),
            search_path: settings.search_path.clone(),
            timeout: settings.timeout,
            clock: settings.clock.clone(),
            rules: settings.local_remotes.clone(),
            redactor,
        })
    }

    pub(super) async fn ensure_pull_request(
        &self,
        request: &PullRequest,
    ) -> Result<PullRequestOutcome, ForgeError> {
        let request = request.presentable(&self.redactor);
        let git_dir = self.git_dir().await?;
        let pulls = git_dir.join("awo/pulls");
        fs::create_dir_all(&pulls).await.map_err(file_error("create", &pulls))?;
        let _lock = self.lock(&pulls.join(".lock")).await?;

        let head = self.commit(&git_dir, &request.head.full_ref()).await?;
        let head = head.ok_or_else(|| {
            self.missing(format!("branch {}", request.head), "push it before its pull request")
        })?;
        let base = self.commit(&git_dir, &format!("refs/heads/{}", request.base)).await?;
        let base = base.ok_or_else(|| {
            self.missing(
                format!("branch {:?}", request.base),
                "order the work against one that exists",
            )
        })?;
        let ahead =
            self.git(&git_dir, &["rev-list", "--count", &format!("{base}..{head}")]).await?;
        let ahead = ahead.trim() != "0";

        let (found, highest) = find(&pulls, request.head.as_str()).await?;
        let Some(found) = found else {
            if !ahead {
                return Ok(PullRequestOutcome::NoChanges);
            }
            return self.open(&git_dir, &pulls, highest, &request, &head).await;
        };
        let (number, url) = (found.number, address(&pulls, found.number));
        let state = self.state(&git_dir, &found).await?;
        if state != PullRequestState::Open {
            let merged = state == PullRequestState::Merged;
            let complete = !ahead || self.holds(&git_dir, number, &head).await;
            if !complete && request.reopen {
                return self.open(&git_dir, &pulls, highest, &request, &head).await;
            }
            return Ok(PullRequestOutcome::AlreadyClosed { url, number, merged, complete });
        }
        if found.text.contains(&marker(&request.order))
            && found.text != pull_file::render(number, &request)
        {
            self.write(&pulls, number, &request).await?;
        }
        self.point(&git_dir, number, &head).await?;
        Ok(PullRequestOutcome::Updated { url, number })
    }

    async fn open(
        &self,
        git_dir: &Path,
        pulls: &Path,
        highest: u64,
        request: &PullRequest,
        head: &str,
    ) -> Result<PullRequestOutcome, ForgeError> {
        let number = self.free_number(git_dir, highest, head).await?;
        self.write(pulls, number, request).await?;
        self.point(git_dir, number, head).await?;
        Ok(PullRequestOutcome::Opened { url: address(pulls, number), number })
    }

    pub(super) async fn find_pull_request(
        &self,
        head: &BranchName,
        commit: Option<&str>,
    ) -> Result<Option<FoundPullRequest>, ForgeError> {
        let git_dir = self.git_dir().await?;
        let pulls = git_dir.join("awo/pulls");
        if !fs::try_exists(&pulls).await.map_err(file_error("read", &pulls))? {
            return Ok(None);
        }
        let Some(found) = find(&pulls, head.as_str()).await?.0 else { return Ok(None) };
        let number = found.number;
        let complete = match commit {
            Some(commit) => self.holds(&git_dir, number, commit).await,
            None => false,
        };
        Ok(Some(FoundPullRequest {
            number,
            url: address(&pulls, number),
            state: self.state(&git_dir, &found).await?,
            head: self.commit(&git_dir, &pull_ref(number)).await?.unwrap_or_default(),
            complete,
        }))
    }

    /// What became of a pull request: merged where git shows that, else what its file says.
    async fn state(&self, git_dir: &Path, found: &Found) -> Result<PullRequestState, ForgeError> {
        let told = match found.pull.state.as_str() {
            "open" => PullRequestState::Open,
            "merged" => PullRequestState::Merged,
            _ => PullRequestState::Closed,
        };
        let base = self.commit(git_dir, &format!("refs/heads/{}", found.pull.base)).await?;
        let ours = self.commit(git_dir, &pull_ref(found.number)).await?;
        let (Some(base), Some(ours)) = (base, ours) else { return Ok(told) };
        let left = self.git(git_dir, &["rev-list", "--count", &format!("{base}..{ours}")]).await?;
        Ok(if left.trim() == "0" { PullRequestState::Merged } else { told })
    }

    /// Whether a pull request holds a commit. One that the remote does not have it does not.
    async fn holds(&self, git_dir: &Path, number: u64, commit: &str) -> bool {
        let range = format!("{}..{commit}", pull_ref(number));
        let left = self.git(git_dir, &["rev-list", "--count", &range, "--"]).await;
        left.is_ok_and(|left| left.trim() == "0")
    }

    pub(super) async fn issue(&self, number: u64) -> Result<Issue, ForgeError> {
        let path = self.git_dir().await?.join(format!("awo/issues/{number}.md"));
        let text = read(&path).await?.ok_or_else(|| {
            self.missing(format!("issue {number}"), "write awo/issues/N.md in its git directory")
        })?;
        let (title, body) = text.split_once('\n').unwrap_or((&text, ""));
        Ok(Issue {
            title: title.trim_start_matches('#').trim().to_owned(),
            body: body.trim().to_owned(),
            url: format!("file://{}", path.display()),
        })
    }

    pub(super) async fn verify(&self) -> Result<RepositoryFacts, ForgeError> {
        let git_dir = self.git_dir().await?;
        let branch = self.git(&git_dir, &["symbolic-ref", "--short", "HEAD"]).await?;
        Ok(RepositoryFacts {
            name: self.name.clone(),
            owner: "local".to_owned(),
            default_branch: branch.trim().to_owned(),
            archived: false,
            disabled: false,
            may_push: None,
        })
    }

    /// The folder itself when it is bare, else its `.git`.
    async fn git_dir(&self) -> Result<PathBuf, ForgeError> {
        let (rules, folder) = (self.rules.clone(), self.folder.clone());
        let checked =
            tokio::task::spawn_blocking(move || rules.check(&folder, NamedBy::Order)).await;
        match checked {
            // What is missing is told below, with what to do.
            Ok(Ok(()) | Err(RefusedFolder::Missing(_))) => {}
            Ok(Err(error)) => return Err(ForgeError::Unusable(error.to_string())),
            Err(error) => return Err(ForgeError::Unusable(error.to_string())),
        }
        for candidate in [self.folder.join(".git"), self.folder.clone()] {
            let is_file = fs::metadata(candidate.join("HEAD")).await.is_ok_and(|m| m.is_file());
            let is_dir = fs::metadata(candidate.join("objects")).await.is_ok_and(|m| m.is_dir());
            if is_file && is_dir {
                return Ok(candidate);
            }
        }
        Err(self.missing("a git repository".to_owned(), "check the folder in repository_url"))
    }

    /// Waits for the lock of all replicas on this host. It ends with the file handle, so a process
    /// that dies lets go of it.
    async fn lock(&self, path: &Path) -> Result<Arc<File>, ForgeError> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(path).await;
        let file = Arc::new(file.map_err(file_error("open", path))?.into_std().await);
        let deadline = self.clock.now() + self.timeout;
        loop {
            // A remote file system may take its time for the answer.
            let asked = Arc::clone(&file);
            let locked = tokio::task::spawn_blocking(move || asked.try_lock()).await;
            let ended = |error| TryLockError::Error(io::Error::other(error));
            match locked.unwrap_or_else(|error| Err(ended(error))) {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if self.clock.now() < deadline => {
                    self.clock.sleep(self.clock.between(LOCK_POLL / 2, LOCK_POLL)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(ForgeError::Locked { path: path.to_owned(), waited: self.timeout });
                }
                Err(TryLockError::Error(error)) => return Err(file_error("lock", path)(error)),
            }
        }
    }

    /// The first number that is used by no file, and by no ref but one that was left for `head`.
    async fn free_number(
        &self,
        git_dir: &Path,
        highest: u64,
        head: &str,
    ) -> Result<u64, ForgeError> {
        let format = "--format=%(objectname) %(refname:lstrip=3)";
        let refs = self.git(git_dir, &["for-each-ref", format, "refs/awo/pulls"]).await?;
        let mut number = highest + 1;
        for line in refs.lines() {
            let Some((object, name)) = line.split_once(' ') else { continue };
            let Ok(used) = name.parse::<u64>() else { continue };
            if used > highest && object == head {
                return Ok(used);
            }
            number = number.max(used.saturating_add(1));
        }
        Ok(number)
    }

    async fn write(
        &self,
        pulls: &Path,
        number: u64,
        request: &PullRequest,
    ) -> Result<(), ForgeError> {
        use tokio::io::AsyncWriteExt as _;
        // The lock is held, so the name is ours; a remainder of a crash is overwritten.
        let temporary = pulls.join(".new");
        let path = pulls.join(format!("{number}.md"));
        let written = async {
            let mut file = fs::File::create(&temporary).await?;
            file.write_all(pull_file::render(number, request).as_bytes()).await?;
            file.sync_all().await?;
            fs::rename(&temporary, &path).await
        };
        written.await.map_err(file_error("write", &path))
    }

    async fn point(&self, git_dir: &Path, number: u64, head: &str) -> Result<(), ForgeError> {
        self.git(git_dir, &["update-ref", &pull_ref(number), head]).await.map(drop)
    }

    /// The commit a full ref name points at, if it exists.
    async fn commit(&self, git_dir: &Path, name: &str) -> Result<Option<String>, ForgeError> {
        let format = "--format=%(refname) %(objectname)";
        let refs = self.git(git_dir, &["for-each-ref", format, "--", name]).await?;
        // The pattern also matches everything below the name, hence the comparison.
        let found = refs.lines().filter_map(|line| line.split_once(' ')).find(|(n, _)| *n == name);
        Ok(found.map(|(_, object)| object.to_owned()))
    }

    /// Runs git on the remote, without its hooks and without anybody's configuration.
    async fn git(&self, git_dir: &Path, args: &[&str]) -> Result<String, ForgeError> {
        let verb = match args.first() {
            Some(&"for-each-ref") => "for-each-ref",
            Some(&"rev-list") => "rev-list",
            Some(&"update-ref") => "update-ref",
            _ => "symbolic-ref",
        };
        let failed = |message: &str| ForgeError::Git {
            verb,
            repository: self.folder.clone(),
            message: self.redactor.text(message.trim()).chars().take(500).collect(),
        };
        let mut command = process::command(&self.git_binary);
        command
            .env("PATH", &self.search_path)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "--git-dir"])
            .arg(git_dir)
            .args(args);
        let output = tokio::time::timeout(self.timeout, command.output())
            .await
            .map_err(|_| failed(&format!("it took longer than {:?}", self.timeout)))?
            .map_err(|error| {
                failed(&format!("cannot start {}: {error}", self.git_binary.display()))
            })?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(failed(&String::from_utf8_lossy(&output.stderr)))
        }
    }

    fn missing(&self, what: String, advice: &'static str) -> ForgeError {
        ForgeError::Missing { what, repository: self.folder.clone(), advice }
    }
}

/// The pull request of `head`, and the highest number that has a file.
async fn find(pulls: &Path, head: &str) -> Result<(Option<Found>, u64), ForgeError> {
    let mut entries = fs::read_dir(pulls).await.map_err(file_error("read", pulls))?;
    let (mut found, mut highest) = (None::<Found>, 0);
    while let Some(entry) = entries.next_entry().await.map_err(file_error("read", pulls))? {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".md")?.parse::<u64>().ok());
        let Some(number) = number else { continue };
        highest = highest.max(number);
        let Some(text) = read(&entry.path()).await? else { continue };
        match pull_file::parse(&text) {
            Some(pull) if pull.head == head && found.as_ref().is_none_or(|f| f.number < number) => {
                found = Some(Found { number, pull, text });
            }
            Some(_) => {}
            None => tracing::warn!(path = %entry.path().display(), "not a pull request file"),
        }
    }
    Ok((found, highest))
}

/// At most [`MAX_FILE`] bytes of a file as text; nothing when there is no such file.
async fn read(path: &Path) -> Result<Option<String>, ForgeError> {
    use tokio::io::AsyncReadExt as _;
    let file = match fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).await.map_err(file_error("read", path))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn pull_ref(number: u64) -> String {
    format!("refs/awo/pulls/{number}")
}

fn address(pulls: &Path, number: u64) -> String {
    format!("file://{}/{number}.md", pulls.display())
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ForgeError {
    move |source| ForgeError::File { action, path: path.to_owned(), source }
}
