//! Planning, author and reviewer stay apart: by the real Claude Code CLI, and by a program that looks around.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::PgPool;

use crate::{
    claude::{ALL, EXECUTE, ORDER, PLANNING, Place, REVIEW, bash},
    harness::Harness,
    messages_api::Turn,
};

const PASSED: &str = r#"{"passed": true, "summary": "good", "issues": []}"#;
const REFUSED: &str = r#"{"passed": false, "summary": "It says hallo.", "issues":
    [{"severity": "blocker", "file": "hello.txt", "description": "It says hallo."}]}"#;

impl Place {
    /// The bodies of the requests whose last prompt has this heading and none of the others.
    fn asked(&self, heading: &str) -> Vec<String> {
        let others = [PLANNING, EXECUTE, REVIEW];
        let others = others.iter().filter(|other| **other != heading);
        let is_of =
            |text: &String| text.contains(heading) && !others.clone().any(|o| text.contains(o));
        self.api.requests().iter().map(ToString::to_string).filter(is_of).collect()
    }
}

/// An artifact of a kind, and the output of the last run of a step.
async fn kept(harness: &Harness, kind: &str, step: &str) -> (Option<String>, Option<String>) {
    let artifact =
        "select content from agent_work_order_artifacts where artifact_type = $1 order by id desc";
    let output = "select output from agent_work_order_steps where step_name = $1 order by id desc";
    let artifact = sqlx::query_scalar(artifact).bind(kind).fetch_optional(&harness.pool);
    let output = sqlx::query_scalar(output).bind(step).fetch_optional(&harness.pool);
    (artifact.await.unwrap(), output.await.unwrap().flatten())
}

fn log(harness: &Harness, order: &str) -> String {
    let (code, log) = harness.command(&["logs", order, "--json"]);
    assert_eq!(code, Some(0), "{log}");
    log
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_the_author_leaves_in_its_home_steers_neither_reviewer_nor_planning(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let mark = place.harness.path("agent/hook-ran");
    let hook = format!("echo $AWO_STEP >> {}", mark.display());
    let hooks = json!([{"hooks": [{"type": "command", "command": hook}]}]);
    let settings = json!({"hooks": {"SessionStart": hooks, "UserPromptSubmit": hooks}}).to_string();
    let traps = format!(
        "mkdir -p ~/.claude/agents ~/.claude/skills/trap ~/.claude/commands && cd ~/.claude && \
         echo 'The author says xyzzy-home.' > CLAUDE.md && echo '{settings}' > settings.json && \
         printf -- '---\\nname: trap\\ndescription: xyzzy-agent\\n---\\nTrap.\\n' > agents/trap.md && \
         printf -- '---\\nname: trap\\ndescription: xyzzy-skill\\n---\\nTrap.\\n' > skills/trap/SKILL.md && \
         for p in projects/*; do mkdir -p $p/memory; echo xyzzy-memory > $p/memory/MEMORY.md; done; \
         printf '[alias]\\n\\ttrap = !echo xyzzy-git\\n' >> ~/.gitconfig; echo x > ~/.npmrc; echo x > $TMPDIR/x"
    );
    let file = place.harness.path(&format!("repositories/{ORDER}/remote/hello.txt"));
    let write = json!({"file_path": file, "content": "hello from the whole order\n"});
    let author = vec![bash(&traps), Turn::Tool("Write", write), Turn::Text("I wrote hello.txt.")];
    let look = "ls -A ~ $TMPDIR > seen.txt; git trap >> seen.txt 2>&1; mv seen.txt ../../../agent/";
    let mut scripts = place.but(EXECUTE, author);
    scripts.retain(|(words, _)| *words != REVIEW);
    scripts.push((REVIEW, vec![bash(look), Turn::Text(REFUSED)]));
    place.api.play(scripts.clone());
    place.harness.set("AWO_REVIEW_ROUNDS", "0");
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", ALL).await;
    place.harness.until_status(ORDER, "failed").await;
    let reviews = place.asked(REVIEW);
    assert!(!reviews.is_empty());
    assert!(!reviews.iter().any(|body| body.contains("xyzzy")), "{reviews:?}");
    let seen = fs::read_to_string(place.harness.path("agent/seen.txt")).unwrap();
    assert!(seen.contains(".claude") && !seen.contains(".npmrc"), "{seen}");
    assert!(!seen.contains("xyzzy"), "{seen}");

    // Planning again, and the author in its own home, where the traps do work.
    scripts.retain(|(words, _)| *words != REVIEW);
    scripts.push((REVIEW, vec![Turn::Text(PASSED)]));
    place.api.play(scripts);
    let before = place.api.requests().len();
    let (code, said) = place.harness.command(&["requeue", ORDER, "--from-step", "planning"]);
    assert_eq!(code, Some(0), "{said}");
    place.harness.until_status(ORDER, "completed").await;
    let plans = place.asked(PLANNING);
    assert!(plans.len() > 1 && !plans.iter().any(|body| body.contains("xyzzy")), "{plans:?}");
    let later: Vec<String> =
        place.api.requests()[before..].iter().map(ToString::to_string).collect();
    assert!(later.iter().any(|body| body.contains("xyzzy-home")), "the author reads its own");
    let ran = fs::read_to_string(&mark).unwrap();
    assert!(ran.contains("execute"), "the hook works: {ran}");
    assert!(!ran.contains("prp-review") && !ran.contains("planning"), "{ran}");
    assert_eq!(place.delivered(), "hello from the whole order\n");
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_reviewer_goes_on_in_its_conversation_from_round_to_round(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let file = place.harness.path(&format!("repositories/{ORDER}/remote/hello.txt"));
    let write = json!({"file_path": file, "content": "hello from the whole order\n"});
    let fix = "found problems that must be fixed";
    // The second review ends as soon as the words of the first are heard in it.
    let mut scripts = place.but(REVIEW, vec![Turn::Text(REFUSED)]);
    scripts.push((fix, vec![Turn::Tool("Write", write), Turn::Text("Fixed.")]));
    place.api.play(scripts);
    place.harness.set("AWO_REVIEW_ROUNDS", "1");
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", ALL).await;
    place.harness.until_status(ORDER, "failed").await;
    let reviews = place.asked(REVIEW);
    assert_eq!(reviews.len(), 2);
    assert!(!reviews[0].contains("It says hallo.") && reviews[1].contains("It says hallo."));
    assert!(!reviews[1].contains("Fixed."), "the author's conversation is another one");
    let fixes: Vec<String> = place.api.requests().iter().map(ToString::to_string).collect();
    let fix = fixes.iter().find(|body| body.contains(fix) && !body.contains(REVIEW)).unwrap();
    assert!(fix.contains("I wrote hello.txt."), "the author goes on in its own");
    // What the reviewer said is kept although the step failed.
    let (artifact, output) = kept(&place.harness, "review", "prp-review").await;
    for text in [artifact, output] {
        assert!(text.as_ref().is_some_and(|text| text.contains("It says hallo.")), "{text:?}");
    }
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_reviewer_and_planning_change_is_put_back_and_said(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let plan = "1. Write hello.txt, as it stands in the plan file.\n";
    let path = place.harness.path(&format!("repositories/{ORDER}/remote/docs/hello-plan.md"));
    let planning = json!({"file_path": path, "content": plan});
    let mut scripts = place
        .but(PLANNING, vec![Turn::Tool("Write", planning), Turn::Text("See docs/hello-plan.md.")]);
    scripts.retain(|(words, _)| *words != REVIEW);
    let edits =
        "echo broken > hello.txt && rm README.md && echo '*' > .gitignore && echo x > extra.txt";
    scripts.push((REVIEW, vec![bash(edits), Turn::Text(PASSED)]));
    place.api.play(scripts);
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", ALL).await;
    place.harness.until_status(ORDER, "completed").await;
    assert_eq!(place.delivered(), "hello from the whole order\n");
    let (_, pulls) = place.harness.deliveries();
    let files = place.harness.git(&["-C", "remote.git", "ls-tree", "-r", "--name-only", &pulls[0]]);
    assert_eq!(files, "README.md\nhello.txt\n");
    assert!(place.asked(EXECUTE)[0].contains("as it stands in the plan file"));
    let log = log(&place.harness, ORDER);
    let events: Vec<&str> = log.lines().filter(|line| line.contains("files_put_back")).collect();
    assert_eq!(events.len(), 2, "{events:?}");
    for words in ["docs/hello-plan.md", "info"] {
        assert!(events[0].contains(words), "{words}: {}", events[0]);
    }
    for words in ["hello.txt", "README.md", "extra.txt", "warning"] {
        assert!(events[1].contains(words), "{words}: {}", events[1]);
    }
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_empty_change_is_not_reviewed(pool: PgPool) {
    let mut place = Place::new(pool).await;
    place.api.play(place.but(EXECUTE, vec![Turn::Text("There is nothing to do.")]));
    place.harness.start_worker();
    place.harness.order_named(ORDER, "Say hello", ALL).await;
    place.harness.until_status(ORDER, "completed").await;
    assert_eq!(place.asked(REVIEW), Vec::<String>::new());
    let steps = place.harness.steps(ORDER).await;
    assert!(steps.contains(&"prp-review 1 ok no_changes".to_owned()), "{steps:?}");
    let (_, class, _, _) = place.harness.outcome(ORDER).await;
    assert_eq!(class.as_deref(), Some("no_changes"));
    assert_eq!(place.harness.deliveries(), (vec![], vec![]));
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_review_without_a_verdict_fails_and_its_words_are_kept(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.tell_agent("stdout-prp-review", "The lock is taken twice in one path.\n");
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    let (_, class, _, _) = harness.outcome(&order).await;
    assert_eq!(class.as_deref(), Some("invalid"));
    let (artifact, output) = kept(&harness, "review", "prp-review").await;
    for text in [artifact, output] {
        assert!(text.as_ref().is_some_and(|text| text.contains("taken twice")), "{text:?}");
    }
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_program_finds_only_the_home_of_its_own_role(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let look = r#"{ echo "$AWO_STEP:" $(ls -A "$HOME") "|" $(ls -A "$TMPDIR"); } >> "$folder/homes"
[ "$AWO_STEP" = commit ] && exit 1
echo "$AWO_STEP" > "$HOME/.npmrc-of-$AWO_STEP"; echo x > "$TMPDIR/of-$AWO_STEP"; true
"#;
    harness.tell_agent("extra", look);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;
    let homes = fs::read_to_string(harness.path("agent/homes")).unwrap();
    let of = |step: &str| homes.lines().find(|line| line.starts_with(step)).unwrap().to_owned();
    for step in ["planning", "execute", "prp-review"] {
        assert!(!of(step).contains("-of-"), "{homes}");
    }
    // The author's own words are asked for in its home.
    assert!(of("create-pr").contains(".npmrc-of-execute"), "{homes}");
    assert!(!of("create-pr").contains("of-prp-review"), "{homes}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_reviewer_that_dies_over_its_edits_costs_the_author_nothing(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let edit = r#"[ "$AWO_STEP" = prp-review ] || return 0
if [ -e "$folder/edited" ]; then git status --porcelain > "$folder/status"; cat $AWO_WORK_ORDER_ID.txt > "$folder/seen"; return 0; fi
echo ruined > "$AWO_WORK_ORDER_ID.txt"; echo x > left.txt; mkdir -p sub; echo '*' > sub/.gitignore
touch "$folder/edited"
while [ ! -e "$folder/go" ]; do sleep 0.05; done
"#;
    harness.tell_agent("extra", edit);
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    let edited = harness.path("agent/edited");
    crate::harness::until("the reviewer edits", || edited.exists()).await;
    harness.signal(first, Signal::SIGKILL);
    harness.start_worker();
    harness.until_status(&order, "completed").await;
    let seen = fs::read_to_string(harness.path("agent/seen")).unwrap();
    assert_eq!(seen, format!("written for {order}\n"), "before the second reviewer began");
    let (_, pulls) = harness.deliveries();
    let files = harness.git(&["-C", "remote.git", "ls-tree", "-r", "--name-only", &pulls[0]]);
    assert_eq!(files, format!("README.md\n{order}.txt\n"));
    assert!(log(&harness, &order).contains("files_put_back"));
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn only_an_interrupted_step_is_told_that_it_was(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let prompt = |harness: &Harness, order: &str, run: &str| {
        fs::read_to_string(harness.path(&format!("agent/prompt-{order}-{run}"))).unwrap()
    };
    let sentence = "was interrupted";
    harness.hold("execute");
    let first = harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_agent_in("execute").await;
    harness.signal(first, Signal::SIGKILL);
    harness.let_go("execute");
    harness.tell_agent("fail-prp-review", "1");
    harness.start_worker();
    harness.until_status(&order, "failed").await;
    assert!(!prompt(&harness, &order, "execute-1").contains(sentence));
    assert!(prompt(&harness, &order, "execute-2").contains(sentence));
    // Asked for anew, nothing was interrupted; what failed by itself was not either.
    fs::remove_file(harness.path("agent/fail-prp-review")).unwrap();
    let (code, said) = harness.command(&["requeue", &order]);
    assert_eq!(code, Some(0), "{said}");
    harness.until_status(&order, "completed").await;
    assert!(!prompt(&harness, &order, "prp-review-2").contains(sentence));
    let (code, said) = harness.command(&["prompt", &order, "And more", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!prompt(&harness, &order, "execute-3").contains(sentence));
    assert!(!prompt(&harness, &order, "prp-review-3").contains(sentence));
}
