//! Pull requests of `file://` remotes: a file and a ref in the remote, once per head. Runs against
//! real git repositories.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use archon_awo::{
    clock::Clock,
    domain::{ErrorClass, Redactor, RemoteRules, RepositoryUrl},
    forge::{
        Forge, ForgeSettings, PullRequest, PullRequestOutcome as Outcome, PullRequestState, marker,
    },
    process,
};
use tempfile::TempDir;

/// What the branch is said to end with; the remote knows better.
const COMMIT: &str = "0000000000000000000000000000000000000001";
const BRANCH: &str = "feat/more-wo-1";

/// A remote with the branches `main`, `BRANCH` (one commit ahead) and `feat/idle` (none ahead).
struct Remote {
    dir: TempDir,
    folder: PathBuf,
    git_dir: PathBuf,
}

impl Remote {
    fn bare() -> Self {
        let remote = Self::with_work_tree();
        let bare = remote.dir.path().join("app.git");
        git(remote.dir.path(), &["clone", "-q", "--bare", "work", "app.git"]);
        Self { folder: bare.clone(), git_dir: bare, ..remote }
    }

    fn with_work_tree() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("work");
        git(dir.path(), &["init", "-q", "-b", "main", "work"]);
        git(&folder, &["commit", "-q", "--allow-empty", "-m", "first"]);
        git(&folder, &["branch", "feat/idle"]);
        git(&folder, &["checkout", "-q", "-b", BRANCH]);
        git(&folder, &["commit", "-q", "--allow-empty", "-m", "second"]);
        git(&folder, &["checkout", "-q", "main"]);
        let git_dir = folder.join(".git");
        Self { dir, folder, git_dir }
    }

    fn forge(&self) -> Forge {
        forge_of(&self.folder)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.git_dir.join(format!("awo/pulls/{number}.md"))
    }

    fn text(&self, number: u64) -> String {
        std::fs::read_to_string(self.file(number)).unwrap()
    }

    /// Number and commit of every pull request's ref.
    fn refs(&self) -> Vec<String> {
        let format = "--format=%(refname:lstrip=3) %(objectname)";
        let refs = git(&self.git_dir, &["for-each-ref", format, "refs/awo/pulls"]);
        refs.lines().map(str::to_owned).collect()
    }

    fn commit(&self, name: &str) -> String {
        git(&self.git_dir, &["rev-parse", name]).trim().to_owned()
    }

    fn files(&self) -> usize {
        let entries = std::fs::read_dir(self.git_dir.join("awo/pulls")).unwrap();
        let is_pull = |name: &str| Path::new(name).extension().is_some_and(|e| e == "md");
        entries
            .filter(|entry| is_pull(entry.as_ref().unwrap().file_name().to_str().unwrap()))
            .count()
    }

    fn assert_exactly_one(&self) {
        assert_eq!(self.files(), 1);
        assert_eq!(self.refs(), [format!("1 {}", self.commit(BRANCH))]);
        assert!(self.text(1).contains(&format!("head: {BRANCH}\n")), "{}", self.text(1));
    }
}

fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = process::blocking_command("git");
    for (name, value) in [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "Test"),
        ("GIT_AUTHOR_EMAIL", "test@example.org"),
        ("GIT_COMMITTER_NAME", "Test"),
        ("GIT_COMMITTER_EMAIL", "test@example.org"),
    ] {
        command.env(name, value);
    }
    let output = command.current_dir(folder).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn settings() -> ForgeSettings {
    ForgeSettings::new(
        "https://api.github.com".parse().unwrap(),
        "github.com",
        "git",
        Clock::system(),
    )
}

fn forge_of(folder: &Path) -> Forge {
    let rules = RemoteRules { allowed_hosts: Vec::new(), allow_local: true };
    let url = RepositoryUrl::parse(&format!("file://{}", folder.display()), &rules).unwrap();
    Forge::for_remote(&url, None, &settings(), Redactor::default()).unwrap()
}

fn request() -> PullRequest {
    PullRequest {
        order: "wo-1".parse().unwrap(),
        head: BRANCH.parse().unwrap(),
        base: "main".to_owned(),
        title: "Add \"more\": now".to_owned(),
        body: "There was less.".to_owned(),
        commit: COMMIT.to_owned(),
        reopen: false,
    }
}

async fn opened(remote: &Remote) -> Outcome {
    remote.forge().ensure_pull_request(&request()).await.unwrap()
}

#[tokio::test]
async fn a_pull_request_is_a_ref_and_a_file_in_bare_and_plain_remotes() {
    for remote in [Remote::bare(), Remote::with_work_tree()] {
        let url = format!("file://{}", remote.file(1).display());
        assert_eq!(opened(&remote).await, Outcome::Opened { url, number: 1 });
        remote.assert_exactly_one();
        let text = remote.text(1);
        for part in ["Add \"more\": now", "base: \"main\"", "There was less."] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
        assert!(text.contains(&marker(&request().order)));
    }
}

#[tokio::test]
async fn repeating_it_updates_text_and_ref() {
    let remote = Remote::with_work_tree();
    opened(&remote).await;
    git(&remote.folder, &["checkout", "-q", BRANCH]);
    git(&remote.folder, &["commit", "-q", "--allow-empty", "-m", "third"]);
    let changed = PullRequest { title: "Add much more".to_owned(), ..request() };
    let outcome = remote.forge().ensure_pull_request(&changed).await.unwrap();
    assert!(matches!(outcome, Outcome::Updated { number: 1, .. }), "{outcome:?}");
    remote.assert_exactly_one();
    assert!(remote.text(1).contains("# Add much more"));
}

#[tokio::test]
async fn a_person_who_removes_the_marker_keeps_their_words() {
    let remote = Remote::bare();
    opened(&remote).await;
    let text = format!("---\nnumber: 1\nhead: {BRANCH}\n---\n\n# My title\n");
    std::fs::write(remote.file(1), &text).unwrap();
    let outcome = opened(&remote).await;
    assert!(matches!(outcome, Outcome::Updated { number: 1, .. }), "{outcome:?}");
    assert_eq!(remote.text(1), text);
}

#[tokio::test]
async fn a_crash_after_the_file_is_completed() {
    let remote = Remote::bare();
    opened(&remote).await;
    git(&remote.git_dir, &["update-ref", "-d", "refs/awo/pulls/1"]);
    let outcome = opened(&remote).await;
    assert!(matches!(outcome, Outcome::Updated { number: 1, .. }), "{outcome:?}");
    remote.assert_exactly_one();
}

#[tokio::test]
async fn a_ref_without_its_file_is_completed_and_not_doubled() {
    let remote = Remote::bare();
    git(&remote.git_dir, &["update-ref", "refs/awo/pulls/1", BRANCH]);
    let outcome = opened(&remote).await;
    assert!(matches!(outcome, Outcome::Opened { number: 1, .. }), "{outcome:?}");
    remote.assert_exactly_one();
}

#[tokio::test]
async fn a_half_written_file_of_a_crash_is_not_taken_for_a_pull_request() {
    let remote = Remote::bare();
    std::fs::create_dir_all(remote.git_dir.join("awo/pulls")).unwrap();
    std::fs::write(remote.git_dir.join("awo/pulls/.new"), "---\nhead: fe").unwrap();
    opened(&remote).await;
    remote.assert_exactly_one();
}

#[tokio::test]
async fn numbers_of_others_are_never_taken() {
    let remote = Remote::bare();
    git(&remote.git_dir, &["update-ref", "refs/awo/pulls/7", "main"]);
    std::fs::create_dir_all(remote.git_dir.join("awo/pulls")).unwrap();
    std::fs::write(remote.file(8), "notes of a person").unwrap();
    let outcome = opened(&remote).await;
    assert!(matches!(outcome, Outcome::Opened { number: 9, .. }), "{outcome:?}");
    assert_eq!(remote.text(8), "notes of a person");
}

#[tokio::test]
async fn a_merged_or_closed_one_is_recorded() {
    let remote = Remote::bare();
    opened(&remote).await;
    let text = remote.text(1).replace("state: open", "state: closed");
    std::fs::write(remote.file(1), text).unwrap();
    assert!(matches!(opened(&remote).await, Outcome::AlreadyClosed { merged: false, .. }));
    git(&remote.git_dir, &["update-ref", "refs/heads/main", BRANCH]);
    assert!(matches!(opened(&remote).await, Outcome::AlreadyClosed { merged: true, .. }));
    assert_eq!(remote.files(), 1);
}

#[tokio::test]
async fn work_that_a_closed_one_does_not_hold_gets_another_where_that_is_wanted() {
    let remote = Remote::with_work_tree();
    opened(&remote).await;
    git(&remote.folder, &["update-ref", "refs/heads/main", BRANCH]);
    let merged = remote.commit(BRANCH);
    let find = async |commit: &str| {
        let found = remote.forge().find_pull_request(&request().head, None, Some(commit)).await;
        found.unwrap().unwrap()
    };
    let found = find(&merged).await;
    assert_eq!((found.number, found.state), (1, PullRequestState::Merged));
    assert_eq!((found.complete, &found.head), (true, &merged));
    git(&remote.folder, &["checkout", "-q", BRANCH]);
    git(&remote.folder, &["commit", "-q", "--allow-empty", "-m", "third"]);
    assert!(!find(&remote.commit(BRANCH)).await.complete);
    let outcome = opened(&remote).await;
    let expected = matches!(outcome, Outcome::AlreadyClosed { merged: true, complete: false, .. });
    assert!(expected, "{outcome:?}");
    let wanted = PullRequest { reopen: true, ..request() };
    let outcome = remote.forge().ensure_pull_request(&wanted).await.unwrap();
    assert!(matches!(outcome, Outcome::Opened { number: 2, .. }), "{outcome:?}");
    assert_eq!(find(&merged).await.state, PullRequestState::Open);
    assert_eq!(remote.files(), 2);
}

#[tokio::test]
async fn a_branch_without_commits_is_no_changes() {
    let remote = Remote::bare();
    let idle = PullRequest { head: "feat/idle".parse().unwrap(), ..request() };
    let outcome = remote.forge().ensure_pull_request(&idle).await.unwrap();
    assert_eq!(outcome, Outcome::NoChanges);
    assert_eq!((remote.files(), remote.refs().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_callers_at_once_leave_one_pull_request() {
    let remote = Remote::bare();
    let calls = (0..8).map(|_| {
        let forge = remote.forge();
        tokio::spawn(async move { forge.ensure_pull_request(&request()).await })
    });
    let outcomes: Vec<Outcome> = futures::future::join_all(calls)
        .await
        .into_iter()
        .map(|outcome| outcome.unwrap().unwrap())
        .collect();
    let opened = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Opened { .. }));
    assert_eq!(opened.count(), 1, "{outcomes:?}");
    remote.assert_exactly_one();
}

#[tokio::test]
async fn a_lock_that_is_never_freed_ends_as_a_retryable_error() {
    let remote = Remote::bare();
    std::fs::create_dir_all(remote.git_dir.join("awo/pulls")).unwrap();
    let lock = std::fs::File::create(remote.git_dir.join("awo/pulls/.lock")).unwrap();
    lock.lock().unwrap();
    let rules = RemoteRules { allowed_hosts: Vec::new(), allow_local: true };
    let url = format!("file://{}", remote.folder.display());
    let url = RepositoryUrl::parse(&url, &rules).unwrap();
    let settings = ForgeSettings { timeout: Duration::from_millis(50), ..settings() };
    let forge = Forge::for_remote(&url, None, &settings, Redactor::default()).unwrap();
    let error = forge.ensure_pull_request(&request()).await.unwrap_err();
    assert_eq!((error.class(), error.is_retryable()), (ErrorClass::Forge, true), "{error}");
}

#[tokio::test]
async fn what_is_missing_is_named_and_not_tried_again() {
    let remote = Remote::bare();
    let unpushed = PullRequest { head: "feat/ghost".parse().unwrap(), ..request() };
    let no_base = PullRequest { base: "--output=x".to_owned(), ..request() };
    for (request, words) in [(unpushed, "feat/ghost"), (no_base, "--output=x")] {
        let error = remote.forge().ensure_pull_request(&request).await.unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.to_string().contains(words), "{error}");
    }
    let nowhere = forge_of(&remote.folder.join("nowhere"));
    let error = nowhere.verify().await.unwrap_err();
    assert!(error.to_string().contains("a git repository is missing"), "{error}");
}

#[tokio::test]
async fn hooks_of_the_remote_are_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let remote = Remote::bare();
    let hook = remote.git_dir.join("hooks/reference-transaction");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\ntouch \"$GIT_DIR/ran\"\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    git(&remote.git_dir, &["update-ref", "refs/heads/proof", "main"]);
    assert!(remote.git_dir.join("ran").exists(), "the hook of this test does not work");
    std::fs::remove_file(remote.git_dir.join("ran")).unwrap();
    opened(&remote).await;
    assert!(!remote.git_dir.join("ran").exists());
}

#[tokio::test]
async fn issues_and_facts_are_read() {
    let remote = Remote::bare();
    std::fs::create_dir_all(remote.git_dir.join("awo/issues")).unwrap();
    std::fs::write(remote.git_dir.join("awo/issues/3.md"), "# It is slow\n\nMake it fast.\n")
        .unwrap();
    let issue = remote.forge().issue(3).await.unwrap();
    assert_eq!((&*issue.title, &*issue.body), ("It is slow", "Make it fast."));
    assert!(issue.url.ends_with("/awo/issues/3.md"));
    let error = remote.forge().issue(4).await.unwrap_err();
    assert!(error.to_string().contains("issue 4 is missing"), "{error}");
    let facts = remote.forge().verify().await.unwrap();
    assert_eq!((&*facts.owner, &*facts.name, &*facts.default_branch), ("local", "app", "main"));
}
