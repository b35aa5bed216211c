//! What can go wrong with git, as a class, a sentence, and whether trying again may help.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{disk, domain::ErrorClass};

/// A failed git operation. No text in it holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The credential is missing, wrong, or may not do this.
    #[error(
        "git was refused by {url}: {detail}; check that the credential of its host is \
         valid and may use it (GITHUB_TOKEN for GitHub's, a line in AWO_GIT_CREDENTIALS for any other)"
    )]
    Auth {
        /// The remote.
        url: String,
        /// What git said.
        detail: String,
    },
    /// The remote says that there is no such repository.
    #[error(
        "repository {url} was not found: check its spelling, and that the credential of its host \
         may read it (GITHUB_TOKEN for GitHub's, a line in AWO_GIT_CREDENTIALS for any other)"
    )]
    NotFound {
        /// The remote.
        url: String,
    },
    /// The repository has no commit to start from.
    #[error("repository {url} is empty: push a first commit to it")]
    Empty {
        /// The remote.
        url: String,
    },
    /// The branch to start from is not there.
    #[error("repository {url} has no branch {branch:?}: name one that exists")]
    NoBranch {
        /// The remote.
        url: String,
        /// What was asked for.
        branch: String,
    },
    /// A name that cannot stand beside one that exists, because refs are files.
    #[error(
        "branch {branch:?} cannot be made because the repository has a branch {existing:?}: rename that \
         one, or requeue the order from create-branch, which takes another name"
    )]
    BranchConflict {
        /// The new branch.
        branch: String,
        /// The one in its way.
        existing: String,
    },
    /// The connection could not be made, or broke.
    #[error("git could not reach {url}, or lost the connection to it: {detail}")]
    Unreachable {
        /// The remote.
        url: String,
        /// What git said.
        detail: String,
    },
    /// The server sent git to a host that no order may name.
    #[error(
        "the git server of {url} leads to {host}, which is not allowed: if it belongs to that server, add it to \
         AWO_ALLOWED_HOSTS, or to AWO_LFS_HOSTS where only contents of Git LFS are there"
    )]
    LedAway {
        /// The remote.
        url: String,
        /// Where it leads.
        host: String,
    },
    /// The server failed, or asks to be left alone for a while.
    #[error("the git server of {url} failed or is overloaded: {detail}")]
    ServerFailed {
        /// The remote.
        url: String,
        /// What git said.
        detail: String,
    },
    /// The server takes no push of this size.
    #[error(
        "the git server of {url} takes no push as large as this one (HTTP 413): raise its limit \
         (client_max_body_size where nginx stands before it), or have the order leave large files out"
    )]
    TooLarge {
        /// The remote.
        url: String,
    },
    /// Nobody we trust vouches for the server.
    #[error(
        "the certificate of {url} is not trusted: {detail}; if the server has an authority of its \
         own, name the file of its certificate in AWO_GIT_CA_FILE"
    )]
    Certificate {
        /// The remote.
        url: String,
        /// What git said.
        detail: String,
    },
    /// Git does not read what belongs to another user.
    #[error(
        "git does not read the folder {folder}, because it belongs to another user than archon-awo: \
         give it to that user (chown -R {user} {folder}); git's setting safe.directory does not help, \
         because archon-awo obeys no settings of git's but its own"
    )]
    ForeignFolder {
        /// The folder.
        folder: PathBuf,
        /// The number of the user that archon-awo runs as.
        user: u32,
    },
    /// Something else held the branch on the server, or moved it, at the same moment.
    #[error(
        "the git server of {url} could not move the branch {branch} because something else was at it \
         at the same moment: {detail}; if that does not pass, look on the server for a .lock file that \
         a git which died left beside the branch"
    )]
    Contended {
        /// The remote.
        url: String,
        /// The branch.
        branch: String,
        /// What the server said.
        detail: String,
    },
    /// A git command took too long.
    #[error("git {verb} took longer than {}", humantime::format_duration(*after))]
    Timeout {
        /// The command.
        verb: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Another process held a repository cache for too long.
    #[error(
        "the lock {path} was held by another process for {}",
        humantime::format_duration(*after)
    )]
    LockTimeout {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        after: Duration,
    },
    /// A volume is full.
    #[error("the disk is full while {doing}: {detail}")]
    DiskFull {
        /// What needed the space.
        doing: String,
        /// What the system said.
        detail: String,
    },
    /// Somebody else wrote to the branch of the order a moment ago.
    #[error(
        "somebody pushed to the branch {branch} meanwhile, it is at {found}: nothing was pushed, and the \
         next attempt goes on from there"
    )]
    BranchMoved {
        /// The branch.
        branch: String,
        /// Where it is now.
        found: String,
    },
    /// The branch on the remote does not build on what the order pushed.
    #[error(
        "the branch {branch} does not hold the work of this order any more: it is at {theirs:.12}, with {} that this order does not have, and \
         the order is at {ours:.12}, with {} that the branch does not have. No agent ran and nothing was \
         pushed. Merge {ours:.12} into the branch and requeue the order, or order what is left with {branch} \
         as its base_branch",
        commits(*only_theirs), commits(*only_ours)
    )]
    Diverged {
        /// The branch.
        branch: String,
        /// The head of the order.
        ours: String,
        /// The head of the branch.
        theirs: String,
        /// How many commits only the order has.
        only_ours: u64,
        /// How many only the branch has.
        only_theirs: u64,
    },
    /// An order was to begin anew on a branch with the work of others.
    #[error(
        "others have worked on the branch {branch}, which is at {found:.12}: the order does not begin anew \
         there, and nothing was changed. Order the work anew with awo_enqueue (with {branch} as its \
         base_branch it goes on from theirs), or put the branch back on the order's own commits and requeue \
         the order"
    )]
    OthersWork {
        /// The branch.
        branch: String,
        /// Its head.
        found: String,
    },
    /// Others and the agent changed the same places.
    #[error(
        "others pushed to the branch {branch}, which is at {head:.12}, and changed the same places as this \
         order in {files}: nothing was pushed. Say what shall become of them (archon-awo prompt {order} \
         \"…\", or awo_prompt): the agent then finds both versions in these files"
    )]
    Conflict {
        /// The branch.
        branch: String,
        /// The order.
        order: String,
        /// The head of the branch.
        head: String,
        /// The files.
        files: String,
    },
    /// A conflict is left in files that were to be committed.
    #[error(
        "both versions of a conflict with the work of others are still in {files}, between lines that begin \
         with <<<<<<< and >>>>>>>: nothing was committed. Tell the agent which shall stay (archon-awo prompt \
         {order} \"…\", or awo_prompt)"
    )]
    Unsolved {
        /// The order.
        order: String,
        /// The files.
        files: String,
    },
    /// The server has a rule against this push.
    #[error(
        "{url} refused the branch {branch}: {detail}. Nothing of this push is there. Tell the agent what to \
         mend (archon-awo prompt {order} \"…\", or awo_prompt), or change the rule and requeue the order: \
         what was refused is then left out of the history"
    )]
    Rejected {
        /// The remote.
        url: String,
        /// The branch.
        branch: String,
        /// The order.
        order: String,
        /// What matters of what the server said.
        detail: String,
        /// All that it said, within limits.
        answer: Box<str>,
    },
    /// The repository cache is damaged; the next refresh makes a new one.
    #[error("the repository cache {path} is damaged ({detail}): it is made again on the next try")]
    DamagedCache {
        /// The mirror.
        path: PathBuf,
        /// What git said.
        detail: String,
    },
    /// A folder that archon-awo did not make, so it is neither used nor removed.
    #[error("{path} has no .archon-sandbox marker: move it away if archon-awo may use this name")]
    NotASandbox {
        /// The folder.
        path: PathBuf,
    },
    /// An order came back with another branch.
    #[error("the sandbox of this order is on branch {found:?}, not on {expected:?}")]
    OtherBranch {
        /// What was asked for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The checkout was replaced or removed.
    #[error("the checkout {path} is gone or is not a folder any more")]
    NoCheckout {
        /// The checkout.
        path: PathBuf,
    },
    /// The agent left more than a commit should hold.
    #[error(
        "the sandbox has {found_mib} MiB of new or changed files, more than {limit_mib} MiB: add \
         build output to .gitignore"
    )]
    TooMuch {
        /// What was found, in MiB.
        found_mib: u64,
        /// The limit, in MiB.
        limit_mib: u64,
    },
    /// The agent wrote a credential of this installation into a file.
    #[error(
        "the file {path:?} holds a secret of this installation: nothing of it was committed or \
         pushed; take the secret out of the file and requeue the order"
    )]
    Secret {
        /// The file.
        path: String,
    },
    /// A file belongs to Git LFS, and the repository's policy is to leave that alone.
    #[error(
        "the file {path:?} belongs to Git LFS (filter=lfs in .gitattributes) and the policy of this \
         repository does not have its contents kept there: nothing was committed or pushed; run \
         archon-awo repository URL --lfs true and requeue the order, or have the agent take the file out"
    )]
    NeedsLfs {
        /// The file.
        path: String,
    },
    /// A file is not in the encoding that its attributes name.
    #[error(
        "the file {path:?} cannot be converted from working-tree-encoding={encoding} to UTF-8: {reason}; \
         nothing was committed or pushed; have the agent correct the file or .gitattributes"
    )]
    Encoding {
        /// The file.
        path: String,
        /// What `.gitattributes` says.
        encoding: String,
        /// Why not.
        reason: String,
    },
    /// Something still writes where no agent is at work.
    #[error(
        "the file {path:?} changes while it is read: a process of the agent is still alive; nothing was \
         committed or pushed"
    )]
    Moving {
        /// The file.
        path: String,
    },
    /// A value git could not be given.
    #[error("{0}")]
    Unusable(String),
    /// The git program could not be started.
    #[error("cannot start {program}: install git, or correct its path")]
    NoGit {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A git command failed in a way that has no name here.
    #[error("git {verb} failed: {detail}")]
    Failed {
        /// The command.
        verb: &'static str,
        /// What git said.
        detail: String,
    },
    /// libgit2 failed.
    #[error("cannot {doing}")]
    Library {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: git2::Error,
    },
    /// The file system failed.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The runtime is shutting down.
    #[error("the work was interrupted by a shutdown")]
    Interrupted,
}

impl GitError {
    /// The class that is stored with a failed step.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Auth { .. } => ErrorClass::Auth,
            Self::Timeout { .. } => ErrorClass::Timeout,
            Self::DiskFull { .. } => ErrorClass::Disk,
            Self::File { source, .. } if disk::is_full(source) => ErrorClass::Disk,
            Self::Library { source, .. } if library_is_full(source) => ErrorClass::Disk,
            Self::NoBranch { .. }
            | Self::LedAway { .. }
            | Self::BranchConflict { .. }
            | Self::OtherBranch { .. }
            | Self::TooMuch { .. }
            | Self::Secret { .. }
            | Self::NeedsLfs { .. }
            | Self::Encoding { .. }
            | Self::Unusable(_) => ErrorClass::Invalid,
            _ => ErrorClass::Git,
        }
    }

    /// Whether the same call may succeed later without anybody's help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::ServerFailed { .. }
            | Self::Contended { .. }
            | Self::Timeout { .. }
            | Self::LockTimeout { .. }
            | Self::DiskFull { .. }
            | Self::DamagedCache { .. }
            | Self::BranchMoved { .. }
            | Self::Failed { .. }
            | Self::Library { .. }
            | Self::File { .. }
            | Self::Moving { .. }
            | Self::Interrupted => true,
            Self::Auth { .. }
            | Self::LedAway { .. }
            | Self::NotFound { .. }
            | Self::TooLarge { .. }
            | Self::Certificate { .. }
            | Self::ForeignFolder { .. }
            | Self::Empty { .. }
            | Self::NoBranch { .. }
            | Self::BranchConflict { .. }
            | Self::Diverged { .. }
            | Self::OthersWork { .. }
            | Self::Conflict { .. }
            | Self::Unsolved { .. }
            | Self::Rejected { .. }
            | Self::NotASandbox { .. }
            | Self::OtherBranch { .. }
            | Self::NoCheckout { .. }
            | Self::TooMuch { .. }
            | Self::Secret { .. }
            | Self::NeedsLfs { .. }
            | Self::Encoding { .. }
            | Self::Unusable(_)
            | Self::NoGit { .. } => false,
        }
    }

    /// Whether the remote is away, or another order holds what this one needs: no fault of this order, so that it
    /// waits for the end of it.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::ServerFailed { .. }
                | Self::Contended { .. }
                | Self::Timeout { .. }
                | Self::LockTimeout { .. }
        )
    }

    /// Whether a full volume may be behind it although it does not say so.
    pub(super) fn may_be_for_want_of_space(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::DamagedCache { .. } | Self::Unreachable { .. })
    }

    /// The error and its causes as one sentence, for people who see nothing else.
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    pub(super) fn library(doing: &'static str) -> impl FnOnce(git2::Error) -> Self {
        move |source| Self::Library { doing, source }
    }

    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

/// Whether libgit2 failed because a volume is full: it puts the system's words behind its own.
pub(super) fn library_is_full(error: &git2::Error) -> bool {
    disk::says_full(error.message())
}

fn commits(number: u64) -> String {
    if number == 1 { "1 commit".to_owned() } else { format!("{number} commits") }
}
