//! A FAKE of GitHub's REST API on loopback, for tests. It keeps pull requests over a real bare
//! repository, answers with GitHub's own statuses and error bodies, and fails on request.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use archon_awo::process::blocking_command;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// The repository it serves, as long as nobody renames it.
pub const REPOSITORY: &str = "acme/app";
/// The only token it accepts, unless a test names another.
pub const TOKEN: &str = "ghp_fakeTokenOfTheTests0123456789abcdef";
/// Where its API begins, as on GitHub Enterprise.
const ROOT: &str = "/api/v3";
/// The number under which it serves the repository whatever that is called.
const NUMBER: &str = "/api/v3/repositories/1296269";

/// How the next matching request goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// None: the request before the one that goes wrong.
    Pass,
    /// This answer instead of the real one; nothing is done.
    Answer(u16, Vec<(&'static str, String)>, Value),
    /// A page for people instead of an answer; nothing is done.
    Page(u16, &'static str),
    /// The work is done, then the connection is dropped without an answer.
    LoseAnswer,
    /// The connection is dropped, nothing is done.
    Drop,
    /// No answer, ever; nothing is done.
    Hang,
}

impl Fault {
    /// The limit for what makes content, as 422.
    pub fn too_quickly() -> Self {
        let error = json!({"resource": "PullRequest", "code": "custom", "message": "was submitted too quickly"});
        Self::Answer(422, Vec::new(), json!({"message": "Validation Failed", "errors": [error]}))
    }

    /// The secondary limit, which names a wait or does not.
    pub fn secondary_limit(status: u16, seconds: Option<u64>) -> Self {
        let headers = seconds.map(|seconds| ("retry-after", seconds.to_string()));
        let message = "You have exceeded a secondary rate limit and have been temporarily blocked from \
            content creation. Please retry your request again later.";
        Self::Answer(status, headers.into_iter().collect(), json!({ "message": message }))
    }
}

/// How a person merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// With a commit of two parents.
    Commit,
    /// As one new commit.
    Squash,
}

/// The running server; it ends when this is dropped.
pub struct FakeGitHub {
    /// Root of its API, with a path in it as on GitHub Enterprise.
    pub api_url: String,
    world: Arc<Mutex<World>>,
    task: tokio::task::JoinHandle<()>,
    /// The repository, where the test brings none of its own.
    own: Option<tempfile::TempDir>,
}

#[derive(Default)]
struct World {
    /// The bare repository with the branches.
    git_dir: PathBuf,
    /// What it is called now.
    full_name: String,
    /// What it was called before.
    former: Vec<String>,
    archived: bool,
    read_only: bool,
    issues_disabled: bool,
    pulls: Vec<Value>,
    /// How many lists still lack the newest pull request.
    lag: usize,
    issues: HashMap<u64, Value>,
    /// Numbers of issues that were transferred, and where they are.
    transferred: HashMap<u64, String>,
    deleted_issues: Vec<u64>,
    faults: HashMap<Method, VecDeque<Fault>>,
    requests: Vec<String>,
    token: String,
}

impl FakeGitHub {
    /// Starts on a free port, over a repository of its own.
    pub async fn start() -> Self {
        let own = tempfile::tempdir().unwrap();
        let bare = own.path().join("app.git");
        let path = bare.to_str().unwrap();
        git(own.path(), &["init", "--quiet", "--bare", "--initial-branch=main", path]);
        let first = commit(&bare, "First", &[]);
        git(&bare, &["update-ref", "refs/heads/main", &first]);
        let mut github = Self::start_over(&bare, TOKEN).await;
        github.own = Some(own);
        github
    }

    /// Starts on a free port over a bare repository, and accepts only `token`.
    pub async fn start_over(git_dir: &Path, token: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}{ROOT}", listener.local_addr().unwrap());
        let world = World {
            token: token.to_owned(),
            git_dir: git_dir.to_owned(),
            full_name: REPOSITORY.to_owned(),
            ..World::default()
        };
        let world = Arc::new(Mutex::new(world));
        let router = Router::new().fallback(answer).with_state(world.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { api_url, world, task, own: None }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Pushes a branch; `ahead`: with a commit that `main` lacks. Answers its commit.
    pub fn push(&self, branch: &str, ahead: bool) -> String {
        let git_dir = self.world().git_dir.clone();
        let main = git(&git_dir, &["rev-parse", "main"]);
        let head = if ahead { commit(&git_dir, "More", &[&main]) } else { main };
        git(&git_dir, &["update-ref", &format!("refs/heads/{branch}"), &head]);
        head
    }

    /// Pushes one more commit to a branch; answers it.
    pub fn push_onto(&self, branch: &str) -> String {
        let git_dir = self.world().git_dir.clone();
        let head = git(&git_dir, &["rev-parse", branch]);
        let head = commit(&git_dir, "Even more", &[&head]);
        git(&git_dir, &["update-ref", &format!("refs/heads/{branch}"), &head]);
        head
    }

    /// The bare repository with the branches.
    pub fn git_dir(&self) -> PathBuf {
        self.world().git_dir.clone()
    }

    /// Makes an issue known.
    pub fn file_issue(&self, number: u64, title: &str, body: Option<&str>) {
        let url = format!("https://github.com/{REPOSITORY}/issues/{number}");
        let issue = json!({"number": number, "title": title, "body": body, "html_url": url});
        self.world().issues.insert(number, issue);
    }

    /// An issue moves to another repository, `to` of which is its path there.
    pub fn transfer_issue(&self, number: u64, to: &str) {
        self.world().transferred.insert(number, to.to_owned());
    }

    /// An issue is deleted.
    pub fn delete_issue(&self, number: u64) {
        self.world().deleted_issues.push(number);
    }

    /// The owner switches the issues off.
    pub fn disable_issues(&self) {
        self.world().issues_disabled = true;
    }

    /// The owner archives the repository, or brings it back.
    pub fn archive(&self, archived: bool) {
        self.world().archived = archived;
    }

    /// The user of the token loses the right to write, or gets it again.
    pub fn read_only(&self, read_only: bool) {
        self.world().read_only = read_only;
    }

    /// The owner renames the repository or gives it away.
    pub fn rename(&self, full_name: &str) {
        let mut world = self.world();
        let former = std::mem::replace(&mut world.full_name, full_name.to_owned());
        world.former.push(former);
    }

    /// The repository was called this before.
    pub fn called_before(&self, full_name: &str) {
        self.world().former.push(full_name.to_owned());
    }

    /// The next lists do not have the newest pull request yet.
    pub fn lag(&self, lists: usize) {
        self.world().lag = lists;
    }

    /// The next request with `method` goes wrong; several queue up.
    pub fn fail_next(&self, method: Method, fault: Fault) {
        self.world().faults.entry(method).or_default().push_back(fault);
    }

    /// Changes fields of a pull request as a person would.
    pub fn edit_pull(&self, number: usize, fields: &Value) {
        let mut world = self.world();
        let pull = world.pulls[number - 1].as_object_mut().unwrap();
        pull.extend(fields.as_object().unwrap().clone());
    }

    /// A person closes a pull request without merging it.
    pub fn close(&self, number: usize) {
        self.world().close(number, None);
    }

    /// A person opens a closed pull request again.
    pub fn open_again(&self, number: usize) {
        self.edit_pull(number, &json!({"state": "open", "closed_at": null}));
    }

    /// A person merges a pull request.
    pub fn merge(&self, number: usize, how: Merge) {
        let mut world = self.world();
        let pull = world.shown(number);
        let text = |part: &str, name: &str| pull[part][name].as_str().unwrap().to_owned();
        let (head, base) = (text("head", "sha"), text("base", "ref"));
        let main = git(&world.git_dir, &["rev-parse", &base]);
        let merged = git(&world.git_dir, &["merge-tree", "--write-tree", &main, &head]);
        let mut parents = vec![main.as_str()];
        if how == Merge::Commit {
            parents.push(&head);
        }
        let commit = commit_tree(&world.git_dir, &merged, "Merge", &parents);
        git(&world.git_dir, &["update-ref", &format!("refs/heads/{base}"), &commit]);
        world.close(number, Some(&commit));
    }

    /// A person deletes a branch, which closes its pull request.
    pub fn delete_branch(&self, branch: &str) {
        let mut world = self.world();
        let open = |pull: &Value| pull["state"] == "open" && pull["head"]["ref"] == branch;
        let numbers: Vec<usize> =
            (1..=world.pulls.len()).filter(|number| open(&world.pulls[number - 1])).collect();
        for number in numbers {
            world.close(number, None);
        }
        git(&world.git_dir, &["update-ref", "-d", &format!("refs/heads/{branch}")]);
    }

    /// Every pull request, oldest first.
    pub fn pulls(&self) -> Vec<Value> {
        let world = self.world();
        (1..=world.pulls.len()).map(|number| world.shown(number)).collect()
    }

    /// Method and path of every request so far, without queries.
    pub fn requests(&self) -> Vec<String> {
        self.world().requests.clone()
    }
}

impl Drop for FakeGitHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(world): State<Arc<Mutex<World>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().strip_prefix(&format!("{ROOT}/repos/")).unwrap_or(uri.path()).to_owned();
    let fault = {
        let mut world = world.lock().unwrap();
        world.requests.push(format!("{method} {path}"));
        world.faults.get_mut(&method).and_then(VecDeque::pop_front)
    };
    let work = || {
        let expected = format!("Bearer {}", world.lock().unwrap().token);
        let token = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
        if token != Some(&expected) {
            return problem(401, "Bad credentials", json!(null));
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        world.lock().unwrap().route(&method, &uri, &body)
    };
    match fault {
        None | Some(Fault::Pass) => work(),
        Some(Fault::Answer(status, headers, body)) => {
            let mut response = (status_code(status), axum::Json(body)).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Some(Fault::Page(status, page)) => {
            (status_code(status), axum::response::Html(page)).into_response()
        }
        Some(Fault::LoseAnswer) => {
            work();
            drop_connection()
        }
        Some(Fault::Drop) => drop_connection(),
        Some(Fault::Hang) => loop {
            tokio::time::sleep(Duration::from_mins(10)).await;
        },
    }
}

/// Ends the task of the connection, and with it the connection, without calling the panic hook.
fn drop_connection() -> Response {
    std::panic::resume_unwind(Box::new("the fake drops the connection"))
}

impl World {
    /// Finds the repository under its name, its number or a former name, which redirects.
    fn route(&mut self, method: &Method, uri: &Uri, body: &Value) -> Response {
        let under = |start: &str| {
            let rest = uri.path().strip_prefix(start)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
        };
        let named = |name: &String| under(&format!("{ROOT}/repos/{name}"));
        if let Some(rest) = named(&self.full_name).or_else(|| under(NUMBER)) {
            return self.work(method, &rest, &query(uri), body);
        }
        let there = |to: &&String| uri.path() == format!("{ROOT}/repos/{to}");
        if let Some(to) = self.transferred.values().find(there) {
            let url = format!("https://github.com/{to}");
            return ok(200, json!({"title": "", "body": null, "html_url": url}));
        }
        match self.former.iter().find_map(named) {
            // What is posted must be posted again.
            Some(rest) => moved(if method == Method::GET { 301 } else { 307 }, &rest, uri.query()),
            None => problem(404, "Not Found", json!(null)),
        }
    }

    fn work(
        &mut self,
        method: &Method,
        path: &str,
        query: &HashMap<String, String>,
        body: &Value,
    ) -> Response {
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if method != Method::GET && self.archived {
            return problem(403, "Repository was archived so is read-only.", json!(null));
        }
        if method != Method::GET && self.read_only {
            return problem(403, "Resource not accessible by personal access token", json!(null));
        }
        match (method.as_str(), segments.as_slice()) {
            ("GET", []) => ok(200, self.facts()),
            ("GET", ["issues", number]) => self.issue(number.parse().unwrap()),
            ("GET", ["pulls"]) => self.list(query),
            ("GET", ["pulls", number]) => match number.parse() {
                Ok(number) if (1..=self.pulls.len()).contains(&number) => {
                    ok(200, self.shown(number))
                }
                _ => problem(404, "Not Found", json!(null)),
            },
            ("GET", ["compare", range]) => self.compare(range),
            ("POST", ["pulls"]) => self.create(body),
            ("PATCH", ["pulls", number]) => {
                let index = number.parse::<usize>().unwrap() - 1;
                let Some(pull) = self.pulls.get_mut(index) else {
                    return problem(404, "Not Found", json!(null));
                };
                pull.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
                ok(200, pull.clone())
            }
            _ => problem(404, "Not Found", json!(null)),
        }
    }

    fn owner(&self) -> &str {
        self.full_name.split_once('/').unwrap().0
    }

    fn facts(&self) -> Value {
        let (owner, name) = self.full_name.split_once('/').unwrap();
        json!({
            "id": 1_296_269, "name": name, "full_name": self.full_name,
            "owner": {"login": owner, "id": 2}, "default_branch": "main", "private": true,
            "archived": self.archived, "disabled": false, "has_issues": !self.issues_disabled,
            "permissions": {"admin": false, "maintain": false, "push": !self.read_only,
                "triage": true, "pull": true}
        })
    }

    fn issue(&self, number: u64) -> Response {
        if self.issues_disabled {
            return problem(410, "Issues are disabled for this repo", json!(null));
        }
        if self.deleted_issues.contains(&number) {
            return problem(410, "This issue was deleted", json!(null));
        }
        if let Some(to) = self.transferred.get(&number) {
            return redirect(301, &format!("{ROOT}/repos/{to}"));
        }
        match self.issues.get(&number) {
            Some(issue) => ok(200, issue.clone()),
            None => problem(404, "Not Found", json!(null)),
        }
    }

    /// A pull request as it is shown: an open one ends with what its branch has now.
    fn shown(&self, number: usize) -> Value {
        let mut pull = self.pulls[number - 1].clone();
        let branch = pull["head"]["ref"].as_str().unwrap().to_owned();
        if pull["state"] == "open"
            && let Some(head) = self.commit_of(&branch)
        {
            pull["head"]["sha"] = head.into();
        }
        pull["head"]["label"] = format!("{}:{branch}", self.owner()).into();
        pull["html_url"] = format!("https://github.com/{}/pull/{number}", self.full_name).into();
        pull
    }

    fn close(&mut self, number: usize, merged_as: Option<&str>) {
        let mut pull = self.shown(number);
        pull["state"] = "closed".into();
        if let Some(commit) = merged_as {
            pull["merged_at"] = "2026-01-01T00:00:00Z".into();
            pull["merge_commit_sha"] = commit.into();
        }
        self.pulls[number - 1] = pull;
    }

    fn list(&mut self, query: &HashMap<String, String>) -> Response {
        let state = query.get("state").map_or("open", String::as_str);
        let head = query.get("head");
        let matches = |pull: &Value| {
            (state == "all" || pull["state"] == state)
                && head.is_none_or(|head| pull["head"]["label"] == head.as_str())
        };
        let late = usize::from(self.lag > 0);
        self.lag = self.lag.saturating_sub(1);
        let known = self.pulls.len().saturating_sub(late);
        let pulls = (1..=known).rev().map(|number| self.shown(number)).filter(matches);
        ok(200, json!(pulls.collect::<Vec<_>>()))
    }

    fn compare(&self, range: &str) -> Response {
        let (base, head) = range.split_once("...").unwrap();
        let known = |commit: &str| self.try_git(&["cat-file", "-e", commit]).is_some();
        if !known(base) || !known(head) {
            return problem(404, "Not Found", json!(null));
        }
        let count = |range: String| {
            git(&self.git_dir, &["rev-list", "--count", &range]).parse::<u64>().unwrap()
        };
        let ahead = count(format!("{base}..{head}"));
        ok(200, json!({"ahead_by": ahead, "behind_by": count(format!("{head}..{base}"))}))
    }

    fn create(&mut self, body: &Value) -> Response {
        let (head, base) = (body["head"].as_str().unwrap(), body["base"].as_str().unwrap());
        let invalid = |field: &str, code: &str| json!([{"resource": "PullRequest", "field": field, "code": code}]);
        let custom = |message: String| json!([{"resource": "PullRequest", "code": "custom", "message": message}]);
        let Some(sha) = self.commit_of(head) else {
            return problem(422, "Validation Failed", invalid("head", "invalid"));
        };
        let Some(onto) = self.commit_of(base) else {
            return problem(422, "Validation Failed", invalid("base", "invalid"));
        };
        if git(&self.git_dir, &["rev-list", "--count", &format!("{onto}..{sha}")]) == "0" {
            let message = format!("No commits between {base} and {head}");
            return problem(422, "Validation Failed", custom(message));
        }
        let label = format!("{}:{head}", self.owner());
        let taken = |pull: &Value| pull["state"] == "open" && pull["head"]["ref"] == *head;
        if self.pulls.iter().any(taken) {
            let message = format!("A pull request already exists for {label}.");
            return problem(422, "Validation Failed", custom(message));
        }
        let number = self.pulls.len() + 1;
        self.pulls.push(json!({
            "id": 1000 + number, "node_id": "PR_x", "number": number, "state": "open",
            "title": body["title"], "body": body["body"], "merged_at": null, "draft": false,
            "head": {"ref": head, "label": label, "sha": sha, "repo": null},
            "base": {"ref": base, "label": format!("{}:{base}", self.owner())},
            "something_new": {"of": ["next", "year"]}
        }));
        ok(201, self.shown(number))
    }

    fn commit_of(&self, branch: &str) -> Option<String> {
        self.try_git(&[
            "rev-parse",
            "--verify",
            "--quiet",
            &format!("refs/heads/{branch}^{{commit}}"),
        ])
    }

    fn try_git(&self, arguments: &[&str]) -> Option<String> {
        try_git(&self.git_dir, arguments).ok()
    }
}

/// A commit with the tree of its first parent, or an empty one.
fn commit(git_dir: &Path, message: &str, parents: &[&str]) -> String {
    let tree = match parents.first() {
        Some(parent) => git(git_dir, &["rev-parse", &format!("{parent}^{{tree}}")]),
        None => git(git_dir, &["mktree"]),
    };
    commit_tree(git_dir, &tree, message, parents)
}

fn commit_tree(git_dir: &Path, tree: &str, message: &str, parents: &[&str]) -> String {
    let mut arguments = vec!["commit-tree", tree, "-m", message];
    for parent in parents {
        arguments.extend(["-p", parent]);
    }
    git(git_dir, &arguments)
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    try_git(folder, arguments).unwrap()
}

fn try_git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = blocking_command("git")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .args(["-c", "user.name=A Person", "-c", "user.email=person@localhost"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("git {arguments:?}: {}", text(&output.stderr)))
    }
}

fn query(uri: &Uri) -> HashMap<String, String> {
    let query = uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// The way to the repository by its number.
fn moved(status: u16, rest: &str, query: Option<&str>) -> Response {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    redirect(status, &format!("{NUMBER}{rest}{query}"))
}

fn redirect(status: u16, location: &str) -> Response {
    let mut response = problem(status, "Moved Permanently", json!(null));
    response.headers_mut().insert(header::LOCATION, location.parse().unwrap());
    response
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap()
}

fn ok(status: u16, body: Value) -> Response {
    (status_code(status), axum::Json(body)).into_response()
}

fn problem(status: u16, message: &str, errors: Value) -> Response {
    let mut body = json!({
        "message": message, "documentation_url": "https://docs.github.com/rest", "status": status.to_string()
    });
    if !errors.is_null() {
        body["errors"] = errors;
    }
    (status_code(status), axum::Json(body)).into_response()
}
