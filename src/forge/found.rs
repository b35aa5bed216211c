//! A pull request that exists: its state, and whether it holds the work that it is about.

/// What became of a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullRequestState {
    /// It waits for its reviewers.
    Open,
    /// Its commits are in the base, in one form or another.
    Merged,
    /// Somebody closed it without merging it.
    Closed,
}

/// The pull request of a branch: the open one, else the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPullRequest {
    /// Number in its repository.
    pub number: u64,
    /// Address for people.
    pub url: String,
    /// What became of it.
    pub state: PullRequestState,
    /// The commit it ends with.
    pub head: String,
    /// Whether it holds the commit that was asked about.
    pub complete: bool,
}
