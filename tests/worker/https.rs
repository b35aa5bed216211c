//! Orders on a remote behind HTTPS, a private certificate authority and a token, and a search for
//! that token everywhere afterwards.

use std::{fs, path::PathBuf};

use sqlx::PgPool;

use crate::{
    fake_github,
    https_place::Place,
    leaks::{self, Watch},
};

const ORDER: &str = "wo-5ec7e7";
const BRANCH: &str = "feat/write-a-file-wo-5ec7e7";
const STEPS: &str = "create-branch planning execute prp-review commit create-pr";

/// An agent that wants the token: it tells its whole environment to everybody, and writes what it
/// finds in places that could hold a token into files that nobody redacts.
const NOSY: &str = r#"
env >&2
{
    env
    tr '\0' '\n' < /proc/self/environ
    for process in /proc/[0-9]*; do
        tr '\0' '\n' < "$process/environ"
        tr '\0' '\n' < "$process/cmdline"
    done
    for descriptor in /proc/$$/fd/[3-9]* /proc/$PPID/fd/*; do timeout 0.2 head -c 4096 "$descriptor"; done
    git config --list --show-origin
    printf 'url=%s\n\n' "$(git config remote.origin.url)" | timeout 2 git credential fill
    find ../.. -name config -path '*git*' -exec cat {} +
    cat "$HOME/.git-credentials" "$HOME/.netrc"
} > "$folder/loot-$AWO_STEP" 2> /dev/null
"#;

/// Fails when the token is in a file of the test, in a row, or was seen at a process.
async fn assert_no_trace(place: &Place, token: &str, watch: Watch) {
    let sightings = watch.end();
    for program in ["git-remote-https", "archon-awo shim"] {
        assert!(sightings.saw(program), "{program} was not seen: {:?}", sightings.programs);
    }
    assert_eq!(sightings.leaks, Vec::<String>::new());
    assert_eq!(leaks::in_files(place.harness.folder(), token), Vec::<PathBuf>::new());
    assert_eq!(leaks::in_rows(&place.harness.pool, token).await, Vec::<String>::new());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_over_https_leaves_no_trace_of_its_token(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let token = place.token.clone();
    place.harness.tell_agent("extra", NOSY);
    place.harness.set("GITHUB_TOKEN", &token);
    let worker = place.harness.start_worker();
    let watch = Watch::start(worker, place.harness.folder(), &token, true);
    place.harness.order_named(ORDER, "Write a file", STEPS).await;
    place.harness.until_status(ORDER, "completed").await;

    let (branches, _) = place.harness.deliveries();
    assert_eq!(branches, [format!("refs/heads/{BRANCH}")]);
    let file = format!("{BRANCH}:{ORDER}.txt");
    let file = place.harness.git(&["-C", "remote.git", "show", &file]);
    assert_eq!(file, format!("written for {ORDER}\n"));
    let pulls = place.github.pulls();
    assert_eq!(pulls.len(), 1, "{pulls:?}");
    assert_eq!(
        (&pulls[0]["head"]["ref"], &pulls[0]["base"]["ref"]),
        (&BRANCH.into(), &"main".into())
    );
    assert_eq!(pulls[0]["title"], "Write a file");
    let url: Option<String> =
        sqlx::query_scalar("select github_pull_request_url from agent_work_orders")
            .fetch_one(&place.harness.pool)
            .await
            .unwrap();
    assert_eq!(url.as_deref(), pulls[0]["html_url"].as_str());

    // The agent did look, and what it printed did arrive.
    for step in ["planning", "execute", "prp-review", "commit", "create-pr"] {
        let loot = fs::read_to_string(place.harness.path(&format!("agent/loot-{step}"))).unwrap();
        for place in ["AWO_RUN_ID=", "remote.origin.url"] {
            assert!(loot.contains(place), "{step} did not see {place}: {loot}");
        }
    }
    let database = place.harness.pool.connect_options();
    let database = format!("/{}?", database.get_database().unwrap());
    let agent = place.harness.path("agent");
    assert_eq!(leaks::in_files(&agent, &database), Vec::<PathBuf>::new(), "the database's address");
    // ... where the search finds it.
    let told = leaks::in_rows(&place.harness.pool, "AWO_RUN_ID=").await;
    assert!(told.iter().any(|table| table.starts_with("awo.log_chunks")), "{told:?}");
    assert_no_trace(&place, &token, watch).await;
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_wrong_token_fails_the_order_at_once(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let token = "ghp_thisTokenIsNotTheRightOne98765432100";
    place.harness.set("GITHUB_TOKEN", token);
    let worker = place.harness.start_worker();
    let sightings = Watch::start(worker, place.harness.folder(), token, true);
    place.harness.order_named(ORDER, "Write a file", STEPS).await;
    place.harness.until_status(ORDER, "failed").await;
    let (_, class, message, attempts) = place.harness.outcome(ORDER).await;
    assert_eq!((class.as_deref(), attempts), (Some("auth"), 1), "{message:?}");
    let message = message.unwrap();
    assert!(message.contains("GITHUB_TOKEN"), "{message}");
    assert_eq!(place.harness.steps(ORDER).await, ["create-branch 1 failed auth"]);
    assert!(place.github.requests().is_empty(), "{:?}", place.github.requests());
    // Nothing but git was started: there was no agent to see.
    let sightings = sightings.end();
    assert!(sightings.saw("git-remote-https"), "{:?}", sightings.programs);
    assert_eq!(sightings.leaks, Vec::<String>::new());
    assert_eq!(leaks::in_files(place.harness.folder(), token), Vec::<PathBuf>::new());
    assert_eq!(leaks::in_rows(&place.harness.pool, token).await, Vec::<String>::new());
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_token_the_forge_refuses_fails_the_order_after_the_push(pool: PgPool) {
    let mut place = Place::new(pool).await;
    place.harness.set("GITHUB_TOKEN", place.token.clone());
    let refusal = serde_json::json!({"message": "Bad credentials", "status": "401"});
    let refusal = fake_github::Fault::Answer(401, vec![], refusal);
    place.harness.hold("create-pr");
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Write a file", STEPS).await;
    place.harness.until_agent_in("create-pr").await;
    place.github.fail_next(axum::http::Method::GET, refusal);
    place.harness.let_go("create-pr");
    place.harness.until_status(ORDER, "failed").await;
    let (_, class, message, attempts) = place.harness.outcome(ORDER).await;
    assert_eq!((class.as_deref(), attempts), (Some("auth"), 1), "{message:?}");
    assert_eq!(place.github.pulls().len(), 0);

    // With a good token again, only the step that failed is repeated.
    sqlx::query("select awo_requeue($1)").bind(ORDER).execute(&place.harness.pool).await.unwrap();
    place.harness.until("select status = 'completed' from agent_work_orders").await;
    assert_eq!(place.github.pulls().len(), 1);
    let steps = place.harness.steps(ORDER).await;
    assert!(steps.contains(&"create-pr 1 failed auth".to_owned()), "{steps:?}");
    assert!(steps.contains(&"create-pr 2 ok".to_owned()), "{steps:?}");
    assert!(!steps.iter().any(|step| step.starts_with("commit 2")), "{steps:?}");
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_token_of_github_opens_no_other_host(pool: PgPool) {
    let mut place = Place::new(pool).await;
    // It would open this host, if it were sent.
    place.harness.set("GITHUB_TOKEN", place.token.clone());
    place.harness.set("AWO_GITHUB_HOST", "github.com");
    place.harness.start_worker();
    let steps = "create-branch planning execute commit";
    place.harness.order_named(ORDER, "Write a file", steps).await;
    place.harness.until_status(ORDER, "failed").await;
    let (_, class, message, _) = place.harness.outcome(ORDER).await;
    assert_eq!(class.as_deref(), Some("auth"), "{message:?}");
    assert!(message.unwrap().contains("AWO_GIT_CREDENTIALS"));
    let requests = place.server.requests();
    assert!(!requests.is_empty());
    assert!(requests.iter().all(|line| line.contains(" - - ") && line.contains(" 401 ")));

    // An order that could never end as a pull request is told so at its first step.
    place.harness.order_named("wo-b", "Write a file", STEPS).await;
    place.harness.until_status("wo-b", "failed").await;
    let (_, class, message, _) = place.harness.outcome("wo-b").await;
    let message = message.unwrap();
    assert!(class.as_deref() == Some("invalid") && message.contains("create-pr"), "{message}");
    assert_eq!(place.github.requests(), Vec::<String>::new());
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_host_of_its_own_is_opened_by_its_own_credential(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let token = place.token.clone();
    let other = "ghp_theTokenOfAnotherHost0123456789abc";
    place.harness.tell_agent("extra", NOSY);
    place.harness.set("GITHUB_TOKEN", other);
    place.harness.set("AWO_GITHUB_HOST", "github.com");
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = format!("https://x-access-token:{token}@{}\n", place.server.host());
    fs::write(file.path(), line).unwrap();
    place.harness.set("AWO_GIT_CREDENTIALS", file.path().display().to_string());
    let worker = place.harness.start_worker();
    let watch = Watch::start(worker, place.harness.folder(), &token, true);
    let steps = "create-branch planning execute prp-review commit";
    place.harness.order_named(ORDER, "Write a file", steps).await;
    place.harness.until_status(ORDER, "completed").await;
    let (branches, _) = place.harness.deliveries();
    assert_eq!(branches, [format!("refs/heads/{BRANCH}")]);
    assert_eq!(place.github.requests(), Vec::<String>::new());
    assert_no_trace(&place, &token, watch).await;
    assert_eq!(leaks::in_files(place.harness.folder(), other), Vec::<PathBuf>::new());
    place.harness.assert_sound().await;
}
