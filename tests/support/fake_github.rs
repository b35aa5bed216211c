//! A FAKE of GitHub's REST API on loopback, for tests: it keeps pull requests and issues, enforces
//! the rules the product relies on with GitHub's own error bodies, and fails on request.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// The repository it serves.
pub const REPOSITORY: &str = "acme/app";
/// The only token it accepts, unless a test names another.
pub const TOKEN: &str = "ghp_fakeTokenOfTheTests0123456789abcdef";

/// How the next matching request goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer instead of the real one; nothing is done.
    Answer(u16, Vec<(&'static str, String)>, Value),
    /// The work is done, then the connection is dropped without an answer.
    LoseAnswer,
    /// The connection is dropped, nothing is done.
    Drop,
    /// No answer, ever; nothing is done.
    Hang,
}

/// The running server; it ends when this is dropped.
pub struct FakeGitHub {
    /// Root of its API, with a path in it as on GitHub Enterprise.
    pub api_url: String,
    world: Arc<Mutex<World>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct World {
    /// Branch name, and whether it has commits that `main` lacks.
    branches: HashMap<String, bool>,
    pulls: Vec<Value>,
    issues: HashMap<u64, Value>,
    faults: HashMap<Method, VecDeque<Fault>>,
    requests: Vec<String>,
    token: String,
}

impl FakeGitHub {
    /// Starts on a free port.
    pub async fn start() -> Self {
        Self::start_for(TOKEN).await
    }

    /// Starts on a free port and accepts only `token`.
    pub async fn start_for(token: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}/api/v3", listener.local_addr().unwrap());
        let world = Arc::new(Mutex::new(World { token: token.to_owned(), ..World::default() }));
        let router = Router::new().fallback(answer).with_state(world.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { api_url, world, task }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Makes a pushed branch known; `ahead`: it has commits that `main` lacks.
    pub fn push(&self, branch: &str, ahead: bool) {
        self.world().branches.insert(branch.to_owned(), ahead);
    }

    /// Makes an issue known.
    pub fn file_issue(&self, number: u64, title: &str, body: Option<&str>) {
        let url = format!("https://github.com/{REPOSITORY}/issues/{number}");
        let issue = json!({"number": number, "title": title, "body": body, "html_url": url});
        self.world().issues.insert(number, issue);
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

    /// Every pull request, oldest first.
    pub fn pulls(&self) -> Vec<Value> {
        self.world().pulls.clone()
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
    let path = uri.path().strip_prefix("/api/v3/repos/").unwrap_or("?").to_owned();
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
        let Some(rest) = path.strip_prefix(REPOSITORY) else {
            return problem(404, "Not Found", json!(null));
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        world.lock().unwrap().work(&method, rest, &query(&uri), &body)
    };
    match fault {
        None => work(),
        Some(Fault::Answer(status, headers, body)) => {
            let mut response = (status_code(status), axum::Json(body)).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
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
    fn work(
        &mut self,
        method: &Method,
        path: &str,
        query: &HashMap<String, String>,
        body: &Value,
    ) -> Response {
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match (method.as_str(), segments.as_slice()) {
            ("GET", []) => ok(
                200,
                json!({
                    "id": 1, "name": "app", "full_name": REPOSITORY, "owner": {"login": "acme", "id": 2},
                    "default_branch": "main", "private": true
                }),
            ),
            ("GET", ["issues", number]) => {
                match number.parse().ok().and_then(|number: u64| self.issues.get(&number)) {
                    Some(issue) => ok(200, issue.clone()),
                    None => problem(404, "Not Found", json!(null)),
                }
            }
            ("GET", ["pulls"]) => self.list(query),
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

    fn list(&self, query: &HashMap<String, String>) -> Response {
        let state = query.get("state").map_or("open", String::as_str);
        let head = query.get("head");
        let matches = |pull: &&Value| {
            (state == "all" || pull["state"] == state)
                && head.is_none_or(|head| pull["head"]["label"] == head.as_str())
        };
        let pulls: Vec<&Value> = self.pulls.iter().rev().filter(matches).collect();
        ok(200, json!(pulls))
    }

    fn create(&mut self, body: &Value) -> Response {
        let (head, base) = (body["head"].as_str().unwrap(), body["base"].as_str().unwrap());
        let invalid = |field: &str, code: &str| json!([{"resource": "PullRequest", "field": field, "code": code}]);
        let custom = |message: String| json!([{"resource": "PullRequest", "code": "custom", "message": message}]);
        let Some(ahead) = self.branches.get(head) else {
            return problem(422, "Validation Failed", invalid("head", "invalid"));
        };
        if base != "main" {
            return problem(422, "Validation Failed", invalid("base", "invalid"));
        }
        if !ahead {
            let message = format!("No commits between {base} and {head}");
            return problem(422, "Validation Failed", custom(message));
        }
        let label = format!("acme:{head}");
        let taken = |pull: &Value| pull["state"] == "open" && pull["head"]["label"] == *label;
        if self.pulls.iter().any(taken) {
            let message = format!("A pull request already exists for {label}.");
            return problem(422, "Validation Failed", custom(message));
        }
        let number = self.pulls.len() + 1;
        let pull = json!({
            "id": 1000 + number, "node_id": "PR_x", "number": number, "state": "open",
            "html_url": format!("https://github.com/{REPOSITORY}/pull/{number}"),
            "title": body["title"], "body": body["body"], "merged_at": null, "draft": false,
            "head": {"ref": head, "label": label, "sha": "0".repeat(40), "repo": null},
            "base": {"ref": base, "label": format!("acme:{base}")},
            "something_new": {"of": ["next", "year"]}
        });
        self.pulls.push(pull.clone());
        ok(201, pull)
    }
}

fn query(uri: &Uri) -> HashMap<String, String> {
    let query = uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
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
