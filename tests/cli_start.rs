//! What keeps a command from starting, each said in a sentence; and what every command promises.
#![expect(clippy::unwrap_used, reason = "tests")]

mod command;

use std::{fs, io::Read, net::TcpListener, os::unix::fs::PermissionsExt};

use command::Program;
use serde_json::Value;

/// An address nobody listens on.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("postgres://ada:hunter2@127.0.0.1:{port}/orders")
}

#[test]
fn an_invalid_setting_stops_every_command() {
    let program = Program::new().with("AWO_LEASE", "soon");
    for command in ["worker", "list", "migrate", "config"] {
        program.run(&[command]).refused(3, "AWO_LEASE is \"soon\": expected a duration");
    }
    let program = Program::new();
    program.run(&["list"]).refused(3, "DATABASE_URL is not set: expected postgres://");
}

#[test]
fn times_that_do_not_fit_each_other_stop_the_start() {
    let cases: [(&str, &str, &str); 10] = [
        ("AWO_HEARTBEAT", "25s", "AWO_HEARTBEAT is 25s: expected two heartbeats to fit"),
        ("AWO_HEARTBEAT", "10s", "so less than half of AWO_SELF_FENCE (20s)"),
        ("AWO_SELF_FENCE", "8s", "AWO_HEARTBEAT is 5s: expected two heartbeats to fit"),
        ("AWO_SELF_FENCE", "30s", "AWO_SELF_FENCE is 30s: expected agents to stand still"),
        ("AWO_SELF_FENCE", "29.6", "so at least 500ms less than AWO_LEASE (30s)"),
        ("AWO_LEASE", "20s", "AWO_SELF_FENCE is 20s: expected agents to stand still"),
        ("AWO_POLL_MIN", "3s", "AWO_POLL_MIN is 3s: expected no more than AWO_POLL_MAX (2s)"),
        ("AWO_POLL_MAX", "20s", "AWO_POLL_MAX is 20s: expected no more than AWO_POLL_IDLE (15s)"),
        ("AWO_POLL_IDLE", "1s", "AWO_POLL_MAX is 2s: expected no more than AWO_POLL_IDLE (1s)"),
        ("AWO_RETRY_BASE", "1h", "AWO_RETRY_BASE is 1h: expected no more than AWO_RETRY_MAX (10m)"),
    ];
    for (name, value, words) in cases {
        Program::new().with(name, value).run(&["worker"]).refused(3, words);
    }
    // The tightest that fit: the start fails for another reason.
    let tight = [("AWO_HEARTBEAT", "9.9"), ("AWO_SELF_FENCE", "20"), ("AWO_LEASE", "20.5")];
    let program =
        tight.iter().fold(Program::new(), |program, (name, value)| program.with(name, value));
    program.run(&["worker"]).refused(3, "DATABASE_URL is not set");
}

#[test]
fn an_unreachable_database_is_named_without_its_password() {
    let program = Program::new().with("DATABASE_URL", &nobody());
    let ran = program.run(&["list"]);
    assert!(ran.stderr.contains("Connection refused"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    ran.refused(4, "cannot reach the database 127.0.0.1:");
}

#[test]
fn a_worker_does_not_start_without_its_agent() {
    let program = Program::new().with("AWO_AGENT_COMMAND", "/nonexistent/agent --fast");
    program.run(&["worker"]).refused(3, "AWO_AGENT_COMMAND names the agent \"/nonexistent/agent\"");
    let program = Program::new().with("AWO_AGENT_COMMAND", "no-such-agent");
    program.run(&["worker"]).refused(3, "which is not in PATH");

    let program = Program::new();
    let agent = program.home().join("claude");
    fs::write(&agent, "#!/bin/sh\n").unwrap();
    let program =
        program.with("AWO_AGENT", "claude").with("CLAUDE_CLI_PATH", agent.to_str().unwrap());
    program.run(&["worker"]).refused(3, "which is not executable");
}

#[test]
fn a_worker_does_not_start_without_folders_it_can_write_to() {
    let program = Program::new();
    let file = program.home().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("below");
    for name in ["AWO_REPOSITORY_DIR", "AWO_WORK_ORDER_DIR"] {
        let program = Program::new().with(name, below.to_str().unwrap());
        program.run(&["worker"]).refused(3, &format!("{name} is"));
    }
}

#[test]
fn a_worker_does_not_start_without_its_command_files() {
    let program = Program::new().with("AGENT_WORK_ORDER_COMMANDS_DIR", "/nonexistent/commands");
    let words = "AGENT_WORK_ORDER_COMMANDS_DIR is \"/nonexistent/commands\", which cannot be read";
    program.run(&["worker"]).refused(3, words);

    let program = Program::new();
    let folder = program.home().join("commands");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("planning.md"), b"\xff\xfe").unwrap();
    let program = program.with("AGENT_WORK_ORDER_COMMANDS_DIR", folder.to_str().unwrap());
    program.run(&["worker"]).refused(3, "planning.md\" cannot be read");
}

#[test]
fn config_prints_every_setting_with_its_source_and_no_secret() {
    let program = Program::new().with("GITHUB_TOKEN", "ghp_abcdefghijklmnop1234");
    let text = program.run(&["config"]).ok();
    assert!(text.contains("ghp_…1234") && !text.contains("abcdefgh"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("AWO_LEASE ") && line.ends_with(" default")));
    let settings = program.run(&["config", "--json"]).json();
    let token = settings["settings"].as_array().unwrap();
    let token = token.iter().find(|setting| setting["name"] == "GITHUB_TOKEN").unwrap();
    assert_eq!((&token["value"], &token["source"]), (&"ghp_…1234".into(), &"environment".into()));
}

#[test]
fn doctor_names_every_problem_and_what_to_do() {
    let program = Program::new()
        .with("DATABASE_URL", &nobody())
        .with("AWO_AGENT_COMMAND", "no-such-agent")
        .with("AWO_REPOSITORY_DIR", "/dev/null/x");
    let ran = program.run(&["doctor"]);
    assert_eq!(ran.code, 7, "{}", ran.stdout);
    for line in [
        "✔ settings: valid",
        "✘ database: cannot reach the database",
        "✘ repositories folder: AWO_REPOSITORY_DIR is \"/dev/null/x\"",
        "✔ disk of the work orders: ",
        "✔ git: git version",
        "✔ freezer: ",
        "✘ agent: AWO_AGENT_COMMAND names the agent \"no-such-agent\"",
        "✘ github token: GITHUB_TOKEN is not set",
    ] {
        assert!(ran.stdout.contains(line), "{line} is not in {}", ran.stdout);
    }
    let ran = Program::new().with("AWO_LEASE", "x").run(&["doctor", "--json"]);
    assert_eq!(ran.code, 7);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["ok"], &report["checks"][0]["name"]), (&false.into(), &"settings".into()));
}

#[test]
fn doctor_calls_a_known_cli_for_its_version() {
    let place = tempfile::tempdir().unwrap();
    let told = &|kind: &str, name: &str, script: &str| {
        let cli = place.path().join(format!("{kind}-that-{name}"));
        fs::write(&cli, script).unwrap();
        fs::set_permissions(&cli, fs::Permissions::from_mode(0o755)).unwrap();
        let program = Program::new()
            .with("DATABASE_URL", &nobody())
            .with("AWO_AGENT", kind)
            .with("AWO_AGENT_PROGRAM", cli.to_str().unwrap());
        let report: Value =
            serde_json::from_str(&program.run(&["doctor", "--json"]).stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "agent").unwrap();
        (check["ok"].as_bool().unwrap(), check["detail"].as_str().unwrap().to_owned())
    };
    // Each waits for a database that is not there.
    std::thread::scope(|scope| {
        for kind in ["codex", "gemini", "opencode"] {
            scope.spawn(move || {
                let script =
                    format!("#!/bin/sh\n[ \"$*\" = --version ] && echo {kind}-cli 1.2.3\n");
                let (well, detail) = told(kind, "works", &script);
                assert!(well && detail.contains(&format!("{kind}-cli 1.2.3")), "{detail}");
            });
            scope.spawn(move || {
                let script = "#!/bin/sh\necho no libraries >&2\nexit 3\n";
                let (well, detail) = told(kind, "fails", script);
                assert!(!well && detail.contains("no libraries"), "{detail}");
            });
        }
    });
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let mut child = Program::new().spawn(&["config", "--json"]);
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_command_line_that_is_not_understood_ends_with_code_2() {
    let program = Program::new();
    program.run(&["enqueue", "--repository-url", "o/r"]).refused(2, "--request");
    program.run(&["lst"]).refused(2, "list");
    program.run(&["list", "--limit", "0"]).refused(2, "--limit");
    assert!(program.run(&["--version"]).ok().starts_with("archon-awo "));
}

#[test]
fn a_worker_told_to_use_cgroups_says_why_it_cannot() {
    // As in a container whose cgroups are read-only: found by what doctor says of this host.
    let program = Program::new().with("AWO_FREEZER", "ice");
    program
        .run(&["worker"])
        .refused(3, "AWO_FREEZER is \"ice\": expected auto, cgroup, ptrace or signal");
    let found = |word: &str| {
        let ran = Program::new().with("AWO_FREEZER", word).run(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "freezer").unwrap()
    };
    assert_eq!(found("signal")["detail"], "SIGSTOP: AWO_FREEZER is signal");
    let traced = found("ptrace");
    if traced["ok"] == true {
        assert_eq!(traced["detail"], "tracing: AWO_FREEZER is ptrace");
    }
    let (auto, forced) = (found("auto"), found("cgroup"));
    assert_eq!(auto["ok"], true);
    let by_cgroup = auto["detail"].as_str().unwrap().starts_with("a cgroup for each run below /");
    assert_eq!(forced["ok"], by_cgroup, "{auto} {forced}");
    if !by_cgroup {
        let program = Program::new().with("AWO_FREEZER", "cgroup");
        program.run(&["worker"]).refused(3, "AWO_FREEZER is cgroup, and ");
    }
}
