//! `archon-awo agent try`: one call of the agent, without a database, over a copy of a repository.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/agents_page.rs"]
mod agents_page;
mod command;
#[path = "support/fake_cli.rs"]
mod fake_cli;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use agents_page::{example, program};
use archon_awo::process::blocking_command;
use command::Program;
use fake_cli::FakeCli;
use serde_json::Value;

/// A repository with one commit, and a change that is not committed.
fn repository(program: &Program) -> PathBuf {
    let folder = program.home().join("project");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("README.md"), "# A project\n").unwrap();
    let git = |arguments: &[&str]| {
        let output = blocking_command("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
            .args(arguments)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message=First"]);
    fs::write(folder.join("mine.txt"), "not committed\n").unwrap();
    folder
}

fn with_agent(agent: &Path) -> Program {
    Program::new().with("AWO_AGENT_COMMAND", agent.to_str().unwrap())
}

fn attempt(program: &Program, repository: &Path, step: &str, more: &[&str]) -> command::Ran {
    let repository = repository.to_str().unwrap();
    let mut arguments = vec!["agent", "try", "--step", step, "--repository", repository];
    arguments.extend(["--prompt", "Write notes"]);
    arguments.extend(more);
    program.run(&arguments)
}

#[test]
fn the_steps_can_be_tried_one_after_another_in_one_folder() {
    let place = tempfile::tempdir().unwrap();
    let program = with_agent(&example("sh", place.path()));
    let repository = repository(&program);
    let folder = place.path().join("trial");
    let folder = ["--folder", folder.to_str().unwrap()];
    let json =
        |step: &str| attempt(&program, &repository, step, &["--json", folder[0], folder[1]]).json();

    let plan = json("planning");
    assert_eq!((&plan["ok"], &plan["task"]), (&true.into(), &"plan".into()));
    assert_eq!(plan["answer"]["plan"], "1. Write NOTES.md.");
    assert_eq!(plan["files"], Value::Array(Vec::new()));

    // What an earlier step left is there.
    let change = json("execute");
    assert_eq!(change["files"], serde_json::json!(["NOTES.md"]));
    assert!(change["answer"]["report"].as_str().unwrap().contains("call 1 of this conversation"));
    let notes = Path::new(change["checkout"].as_str().unwrap()).join("NOTES.md");
    let notes = fs::read_to_string(notes).unwrap();
    assert!(notes.contains("Write notes") && notes.contains("1. Write NOTES.md."), "{notes}");
    let again = json("execute");
    assert!(again["answer"]["report"].as_str().unwrap().contains("call 2 of this conversation"));

    assert_eq!(json("prp-review")["answer"]["review"]["passed"], true);
    let message = json("commit");
    let message = message["answer"]["commit_message"].as_str().unwrap();
    assert!(message.starts_with("docs: add notes\n"), "{message}");
    let pull = json("create-pr");
    assert_eq!(pull["answer"]["pull_request"]["title"], "Add notes");
    for fact in ["duration_seconds", "exit_code", "isolation", "usage", "session_id"] {
        assert!(!pull[fact].is_null(), "{fact} is missing in {pull:#}");
    }

    // The person's own files are as they were.
    let left: Vec<_> = fs::read_dir(&repository).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn people_see_the_output_and_what_the_step_makes_of_it() {
    let place = tempfile::tempdir().unwrap();
    let program = with_agent(&example("python", place.path()));
    let repository = repository(&program);
    let text = attempt(&program, &repository, "execute", &["--keep"]).ok();
    for words in [
        "On it.",
        "the step would go on",
        "1 changed, +1 -0",
        "ANSWERS.md",
        "900 tokens in",
        "$0.0100",
        "exit code 0",
        "checkout",
    ] {
        assert!(text.contains(words), "{words:?} is missing in {text}");
    }
    let checkout = text.lines().find_map(|line| line.strip_prefix("checkout")).unwrap().trim();
    let kept = Path::new(checkout).ancestors().nth(3).unwrap();
    assert!(kept.join("repositories").is_dir());
    fs::remove_dir_all(kept).unwrap();
}

#[test]
fn a_step_that_would_fail_ends_with_code_5() {
    let place = tempfile::tempdir().unwrap();
    for (script, step, words) in [
        ("#!/bin/sh\necho 'not today' >&2\nexit 3\n", "execute", "exit code 3 (not today)"),
        ("#!/bin/sh\nexit 75\n", "execute", "(overloaded): the agent cannot work now"),
        ("#!/bin/sh\nexit 77\n", "planning", "(auth): the agent's credential was refused"),
        ("#!/bin/sh\ncat >/dev/null\n", "planning", "planning gave no plan"),
        ("#!/bin/sh\necho fine\n", "prp-review", "does not end with a JSON object"),
    ] {
        let program = with_agent(&program(script, &place.path().join("agent")));
        let repository = repository(&program);
        let ran = attempt(&program, &repository, step, &["--json"]);
        assert_eq!(ran.code, 5, "{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{words:?} is missing in {}", ran.stderr);
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["ok"], false);
    }
}

#[test]
fn planning_may_write_its_plan_into_a_file_and_knows_its_ports() {
    let place = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\ncat >/dev/null\n. ./.ports.env\n\
                  printf '1. Listen at a port of ours.\\n' > PLAN.md\n\
                  echo \"See PLAN.md ($PORT)\"\n";
    let program = with_agent(&program(script, &place.path().join("agent")))
        .with("AWO_PORT_RANGE", "31400-31499");
    let repository = repository(&program);
    let document = attempt(&program, &repository, "planning", &["--json"]).json();
    assert_eq!(document["answer"]["plan"], "1. Listen at a port of ours.");
    assert_eq!(document["files_changed"], 0, "it was put back: {document}");
    let text = document["text"].as_str().unwrap();
    assert!(text.starts_with("See PLAN.md (314"), "{text}");
}

#[test]
fn what_keeps_a_try_from_starting_is_said_in_a_sentence() {
    let program = Program::new();
    let repository = repository(&program);
    attempt(&program, &repository, "exceute", &[]).refused(2, "execute");
    attempt(&program, Path::new("/no/such/repository"), "execute", &[])
        .refused(6, "there is no repository at \"/no/such/repository\"");
    let empty = program.home().join("empty");
    fs::create_dir(&empty).unwrap();
    let ran = attempt(&program, &empty, "execute", &[]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("empty"), "{}", ran.stderr);
    let nobody = Program::new().with("AWO_AGENT_COMMAND", "no-such-agent");
    attempt(&nobody, &repository, "execute", &[]).refused(3, "which is not in PATH");
    let unknown = Program::new().with("AWO_AGENT", "copilot");
    attempt(&unknown, &repository, "execute", &[])
        .refused(3, "expected claude, codex, gemini, opencode or command");
    let missing = Program::new().with("AWO_AGENT", "codex").with("AWO_AGENT_PROGRAM", "no-codex");
    attempt(&missing, &repository, "execute", &[])
        .refused(3, "AWO_AGENT_PROGRAM names the agent \"no-codex\", which is not in PATH");
}

#[test]
fn a_known_cli_gets_its_credential_and_no_other() {
    let program = Program::new();
    let cli = FakeCli::new(program.home(), "codex");
    let repository = repository(&program);
    let program = program
        .with("AWO_AGENT", "codex")
        .with("AWO_AGENT_PROGRAM", cli.program().to_str().unwrap())
        .with("AWO_AGENT_ARGUMENTS", "--model='with a blank'")
        .with("AWO_AGENT_WRITE_PATHS", cli.folder().to_str().unwrap())
        .with("OPENAI_API_KEY", "sk-of-openai-0123456789")
        .with("ANTHROPIC_API_KEY", "sk-of-anthropic-0123456789")
        .with("GITHUB_TOKEN", "ghp_0123456789abcdef");
    let document = attempt(&program, &repository, "execute", &["--json"]).json();
    assert_eq!(document["usage"]["output_tokens"], 122);
    let calls = cli.calls();
    let environment = &calls[0]["environment"];
    assert_eq!(environment["CODEX_API_KEY"], "sk-of-openai-0123456789");
    for name in ["ANTHROPIC_API_KEY", "GITHUB_TOKEN"] {
        assert!(environment.get(name).is_none(), "{name}");
    }
    assert!(cli.arguments()[0].contains(&"--model=with a blank".to_owned()));

    let ours = program.with("AWO_AGENT_CREDENTIALS", "GITHUB_TOKEN");
    attempt(&ours, &repository, "execute", &[])
        .refused(3, "AWO_AGENT_CREDENTIALS is \"GITHUB_TOKEN\"");
}

#[test]
fn an_interrupt_ends_the_agent_and_all_it_started() {
    let place = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\necho $$ >pid\n(setsid sleep 300 &)\nsleep 300\n";
    let program = with_agent(&program(script, &place.path().join("agent")));
    let repository = repository(&program);
    let folder = place.path().join("trial");
    let (repository, trial) = (repository.to_str().unwrap(), folder.to_str().unwrap());
    let mut child = program.spawn(&[
        "agent",
        "try",
        "--step",
        "execute",
        "--repository",
        repository,
        "--prompt",
        "wait",
        "--folder",
        trial,
    ]);
    let started = folder.join("repositories/wo-try/project/pid");
    until(|| fs::read_to_string(&started).is_ok_and(|pid| pid.ends_with('\n')));
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let agent = fs::read_to_string(&started).unwrap();
    assert!(!Path::new("/proc").join(agent.trim()).exists());
    let marked = fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(trial)
    });
    assert_eq!(marked.count(), 0);
}

/// Waits until a condition holds, at most a minute.
fn until(condition: impl Fn() -> bool) {
    const GLANCE: Duration = Duration::from_millis(20);
    for _ in 0..3_000 {
        if condition() {
            return;
        }
        std::thread::sleep(GLANCE);
    }
    panic!("never");
}
