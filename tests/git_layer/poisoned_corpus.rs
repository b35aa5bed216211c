//! Every git operation of the product over every hostile case, under `strace`: the list of the
//! programs that were executed is the tripwire nothing can slip past.
//!
//! The operations run in a process of their own (the ignored test below), so that what a test runs
//! to arrange its case is not in the list.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use archon_awo::{
    git::{Git, History, Mirror, Parts, Plan},
    process,
};

use crate::{
    corpus::{
        End, left_behind,
        left_behind::{FILES, PRELUDE, PROGRAMS, REPOSITORIES},
        served,
        yard::{Results, Yard},
    },
    git_place::{branch, git_in, order},
};

/// A number for each file that is nobody's business.
type Surroundings = BTreeMap<PathBuf, u64>;

/// Where the child finds its yard, and what it has to do there.
const FOLDER: &str = "AWO_CORPUS_FOLDER";
const PHASE: &str = "AWO_CORPUS_PHASE";

/// What it is, what may be run: git itself, and the marking of folders for ext4.
fn may_run(line: &str, git_programs: &str) -> bool {
    let mut words = line.split('"').skip(1).step_by(2);
    let program = Path::new(words.next().unwrap_or_default());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let arguments: Vec<&str> = words.collect();
    // Ours, which ends git with its worker; what it runs is told on a line of its own.
    if program == Path::new(env!("CARGO_BIN_EXE_archon-awo")) {
        return arguments.get(1) == Some(&"keep-git");
    }
    let folders = [
        "/usr/bin",
        "/usr/local/bin",
        "/usr/sbin",
        "/sbin",
        "/bin",
        "/usr/local/sbin",
        git_programs,
    ];
    let ours =
        program.parent().is_some_and(|at| folders.iter().any(|folder| at == Path::new(folder)));
    let git = name == "git" || name.starts_with("git-") || name == "chattr";
    // Git starts the other end of a file:// remote like this.
    let end = |command: &str| {
        command.starts_with("git -c core.hooksPath=/dev/null -c ")
            && [" upload-pack '/", " receive-pack '/"].iter().any(|word| command.contains(word))
            && command.matches('\'').count() == 2
            && command.ends_with('\'')
    };
    // ... and git-lfs the program that copies contents from such a remote.
    let copy = |command: &str| command == "git-lfs standalone-file";
    let shell = |command: &str| end(command) || copy(command);
    // ... and this where others would be asked for what they have.
    let asked = name == "true" && arguments.len() == 2;
    ours && (git
        || asked
        || (name == "sh"
            && matches!(arguments.as_slice(), [_, "-c", command, ..] if shell(command))))
}

/// Runs a phase of the child under strace; answers the programs that were executed by it.
fn traced(yard: &Yard, phase: &str) -> Vec<String> {
    let list = yard.path(&format!("executed-{}", phase.replace(' ', "-")));
    let own = std::env::current_exe().unwrap();
    let mut command = process::blocking_command("strace");
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .args([
            "-f",
            "-qq",
            "-s",
            "600",
            "--seccomp-bpf",
            "-e",
            "trace=execve,execveat",
            "-e",
            "signal=none",
            "-o",
        ])
        .arg(&list)
        .arg(&own)
        .args(["--ignored", "--exact", "poisoned_corpus::operations_of_the_corpus", "--nocapture"])
        .env(FOLDER, &yard.folder)
        .env(PHASE, phase)
        .env("TRAP", yard.trap())
        .stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("{error}: apt-get install strace"));
    let words = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.contains("1 passed"), "{words}\n{errors}");
    let lines = fs::read_to_string(&list).unwrap();
    let lines = lines.lines().filter(|line| line.contains("execve") && !line.contains("resumed>"));
    // The first is the child itself.
    lines.skip(1).map(str::to_owned).collect()
}

fn judge(name: &str, end: End, results: &Results, complaints: &mut Vec<String>) {
    for (class, sentence) in results.failures() {
        if !["git", "invalid"].contains(&class.as_str()) {
            complaints.push(format!("{name}: class {class}: {sentence}"));
        }
    }
    match end {
        End::Works => {
            complaints.extend(results.failures().map(|failure| format!("{name}: {failure:?}")));
        }
        End::Refused(words) | End::WantsLfs(words) => {
            if !results.failures().any(|(_, sentence)| sentence.contains(words)) {
                complaints.push(format!("{name}: not refused with {words:?}: {results:?}"));
            }
        }
    }
}

fn check(yard: &Yard, executed: &[String], before: &Surroundings, after: &Surroundings) {
    assert_eq!(yard.sprung(), Vec::<String>::new(), "a trap was run");
    assert!(executed.len() > 50, "strace saw hardly anything: {executed:?}");
    let others = others(yard, executed);
    assert!(others.is_empty(), "other programs than git were run: {others:#?}");
    assert!(before == after, "something outside was changed");
}

/// The first executed programs that are none of git's.
fn others(yard: &Yard, executed: &[String]) -> Vec<String> {
    let programs = git_in(&yard.folder, &["--exec-path"]);
    let others = executed.iter().filter(|line| !may_run(line, &programs));
    others.take(20).cloned().collect()
}

fn results(yard: &Yard, name: &str) -> Results {
    let path = yard.path(&format!("results/{name}"));
    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()
}

#[test]
fn no_program_an_agent_names_in_its_configuration_is_run() {
    nothing_is_run("programs", "plain");
}

#[test]
fn no_repository_an_agent_leaves_behind_is_obeyed() {
    nothing_is_run("repositories", "plain");
}

#[test]
fn no_file_an_agent_leaves_behind_leads_outside() {
    nothing_is_run("files", "plain");
}

#[test]
fn no_program_an_agent_names_in_its_configuration_is_run_with_every_part_fetched() {
    nothing_is_run("programs", "whole");
}

#[test]
fn no_repository_an_agent_leaves_behind_is_obeyed_with_every_part_fetched() {
    nothing_is_run("repositories", "whole");
}

#[test]
fn no_file_an_agent_leaves_behind_leads_outside_with_every_part_fetched() {
    nothing_is_run("files", "whole");
}

fn nothing_is_run(table: &str, parts: &str) {
    let cases = left_behind::table(table);
    let folder = tempfile::tempdir().unwrap();
    let yard = Yard::new(folder.path());
    seed(&yard, &yard.path("remote/app.git"));
    let mut executed = traced(&yard, &format!("open {table} {parts}"));
    for case in cases {
        let checkout = yard.path(&format!("volume/wo-{}/app", case.name));
        let planted = yard.shell(&checkout, &format!("{PRELUDE}{}", case.plant));
        assert!(planted.status.success(), "{}: {planted:?}", case.name);
    }
    // What only the planting did is no failure of the runner.
    fs::remove_file(yard.path("witness")).ok();
    let before = yard.surroundings();
    executed.extend(traced(&yard, &format!("work {table} {parts}")));
    check(&yard, &executed, &before, &yard.surroundings());
    let mut complaints = Vec::new();
    for case in cases {
        let end = case.end.with(parts);
        judge(case.name, end, &results(&yard, case.name), &mut complaints);
        let listing =
            ["ls-tree", "-r", "--name-only", "-z", &format!("feat/{}", case.name)].join(" ");
        let listing = yard.shell(&yard.path("remote/app.git"), &format!("git {listing}")).stdout;
        let names: Vec<String> = listing
            .split(|byte| *byte == 0)
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        if matches!(end, End::Works) && !names.iter().any(|name| name == "honest-2.txt") {
            complaints
                .push(format!("{}: the honest work is not on the remote: {names:?}", case.name));
        }
        let odd = |name: &&String| {
            name.split('/').any(|part| {
                [".git", "git~1", ".git ", ".git."].contains(&part.to_lowercase().as_str())
            })
        };
        complaints.extend(
            names.iter().find(odd).map(|name| format!("{}: {name} was committed", case.name)),
        );
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_traps_an_agent_leaves_do_run_for_plain_git() {
    let folder = tempfile::tempdir().unwrap();
    let yard = Yard::new(folder.path());
    seed(&yard, &yard.path("remote/app.git"));
    let mut asleep = Vec::new();
    let cases = PROGRAMS.iter().chain(REPOSITORIES).chain(FILES);
    for case in cases.filter(|case| !case.careless.is_empty()) {
        let checkout = yard.path(&format!("volume/wo-{}/app", case.name));
        fs::create_dir_all(checkout.parent().unwrap()).unwrap();
        let remote = yard.path("remote/app.git");
        git_in(
            &yard.folder,
            &["clone", "--quiet", remote.to_str().unwrap(), checkout.to_str().unwrap()],
        );
        let planted = yard.shell(&checkout, &format!("{PRELUDE}{}", case.plant));
        assert!(planted.status.success(), "{}: {planted:?}", case.name);
        fs::remove_file(yard.path("witness")).ok();
        yard.shell_until_sprung(&checkout, case.careless);
        if yard.sprung().is_empty() {
            asleep.push(case.name);
        }
    }
    assert!(asleep.is_empty(), "these traps prove nothing: {asleep:#?}");
}

#[test]
fn nothing_a_server_serves_is_run_or_leads_outside() {
    nothing_served_is_run("plain");
}

#[test]
fn nothing_a_server_serves_is_run_or_leads_outside_with_every_part_fetched() {
    nothing_served_is_run("whole");
}

fn nothing_served_is_run(parts: &str) {
    let folder = tempfile::tempdir().unwrap();
    let yard = Yard::new(folder.path());
    for case in served::CASES {
        (case.build)(&served::Builder::new(&yard.path(&format!("served/{}.git", case.name))));
    }
    let before = yard.surroundings();
    let executed = traced(&yard, &format!("served {parts}"));
    check(&yard, &executed, &before, &before_without_caches(&yard));
    let mut complaints = Vec::new();
    for case in served::CASES {
        let end = if parts == "whole" { case.whole } else { case.end };
        judge(case.name, end, &results(&yard, case.name), &mut complaints);
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// The surroundings without the caches, which are made meanwhile.
fn before_without_caches(yard: &Yard) -> Surroundings {
    let mut found = yard.surroundings();
    found.retain(|path, _| !path.starts_with(yard.path("volume")));
    found
}

#[test]
fn an_executed_program_that_is_not_git_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let yard = Yard::new(folder.path());
    let executed = traced(&yard, "control");
    let others = others(&yard, &executed);
    assert!(others.iter().any(|line| line.contains("/trap")), "{executed:?}");
    for line in [
        r#"1 execve("/tmp/git", ["git"], 0x1) = 0"#,
        r#"1 execve("/bin/sh", ["sh", "-c", "git-upload-pack '/x'; id '/y'", "x"], 0x1) = 0"#,
        r#"1 execve("/bin/sh", ["sh", "-c", "id"], 0x1) = 0"#,
        r#"1 execve("/usr/bin/ssh", ["ssh"], 0x1) = 0"#,
    ] {
        assert!(!may_run(line, "/usr/lib/git-core"), "{line}");
    }
}

fn seed(yard: &Yard, remote: &Path) {
    let seed = yard.path("seed");
    fs::create_dir_all(seed.join("src")).unwrap();
    for (name, text) in
        [("README.md", "# app\n"), ("src/main.txt", "one\n"), (".gitignore", "*.log\n")]
    {
        fs::write(seed.join(name), text).unwrap();
    }
    git_in(&seed, &["init", "--quiet", "--initial-branch=main"]);
    git_in(&seed, &["add", "-A"]);
    git_in(&seed, &["commit", "--quiet", "-m", "Start"]);
    fs::create_dir_all(remote.parent().unwrap()).unwrap();
    git_in(&yard.folder, &["clone", "--quiet", "--bare", "seed", remote.to_str().unwrap()]);
}

/// The child of the tests above, which start it under strace.
#[tokio::test]
#[ignore = "started by the other tests of this file"]
async fn operations_of_the_corpus() {
    #[expect(clippy::disallowed_methods, reason = "this is how the parent speaks to its child")]
    let told = |name: &str| {
        std::env::var(name)
            .unwrap_or_else(|_| panic!("{name} is not set: the other tests start this one"))
    };
    let yard = Yard::at(Path::new(&told(FOLDER)));
    fs::create_dir_all(yard.path("results")).unwrap();
    let phase = told(PHASE);
    match *phase.split(' ').collect::<Vec<_>>().as_slice() {
        ["open", table, parts] => {
            open_all(&yard, left_behind::table(table), &plan(parts)).await;
        }
        ["work", table, parts] => {
            let (git, mut first, plan) = (yard.git(), Vec::new(), plan(parts));
            for case in left_behind::table(table) {
                first.push((case.name, work_on(&yard, &git, case.name).await));
            }
            let remote = yard.remote("remote/app.git");
            let mirror = git.refresh_mirror_of(&remote, plan.history).await.unwrap();
            git.tidy().await.unwrap();
            for (name, results) in first {
                let results = come_back(&yard, &git, &mirror, name, &plan, results).await;
                write(&yard, name, &follow_on(&git, &mirror, name, &plan, results).await);
            }
        }
        ["served", parts] => {
            let (git, plan) = (yard.git(), plan(parts));
            for case in served::CASES {
                write(&yard, case.name, &work_from(&yard, &git, case.name, &plan).await);
            }
            git.tidy().await.unwrap();
        }
        ["control"] => {
            process::blocking_command(yard.trap()).stdin(Stdio::null()).output().unwrap();
        }
        _ => panic!("no phase {phase}"),
    }
}

fn write(yard: &Yard, name: &str, results: &Results) {
    fs::write(yard.path(&format!("results/{name}")), serde_json::to_vec(results).unwrap()).unwrap();
}

/// Nothing beside the files, or all there is.
fn plan(parts: &str) -> Plan {
    let whole = parts == "whole";
    let parts = Parts { lfs: whole, submodules: whole, sparse: Vec::new() };
    Plan { parts, history: if whole { History::Shallow } else { History::Full }, ..Plan::default() }
}

async fn open_all(yard: &Yard, cases: &[left_behind::Case], plan: &Plan) {
    let git = yard.git();
    let remote = yard.remote("remote/app.git");
    let mirror = git.refresh_mirror_of(&remote, plan.history).await.unwrap();
    for name in cases.iter().map(|case| case.name).chain(["victim"]) {
        let (id, branch) = (order(&format!("wo-{name}")), branch(&format!("feat/{name}")));
        git.open_sandbox(&mirror, &id, &branch, plan).await.unwrap();
    }
}

/// A step after the other, as orders do them, over what the agent left.
async fn work_on(yard: &Yard, git: &Git, name: &str) -> Results {
    let remote = yard.remote("remote/app.git");
    let id = order(&format!("wo-{name}"));
    let mut results = Results::default();
    // A resumed run finds it, a repeated step opens it again.
    let found = results.note("find", git.find_sandbox(&id, &remote.url).await).flatten();
    results.note("is free", git.sandbox_is_free(&id).await);
    let Some(sandbox) = found else {
        // Its checkout is no folder any more: nothing may be taken from it.
        let gone =
            archon_awo::git::GitError::NoCheckout { path: yard.path("volume").join(id.as_str()) };
        results.note::<()>("find", Err(gone));
        return results;
    };
    for round in ["honest-1.txt", "honest-2.txt"] {
        let honest = sandbox.checkout.join(round);
        fs::write(&honest, round).unwrap();
        results.note("changes", sandbox.changes().await);
        results.note("commit", sandbox.commit("feat: honest work").await);
    }
    results.note("head", sandbox.head().await);
    // A reviewer looks at it, and leaves something.
    results.note("remember", sandbox.remember_files().await);
    let _ = fs::write(sandbox.checkout.join("left-by-a-reviewer.txt"), "x");
    results.note("put back", sandbox.put_files_back().await);
    if results.failures().next().is_none() {
        results.note("push", sandbox.push(&remote, &[]).await);
    }
    results
}

/// Retention saves the work and takes the sandbox away, and the order comes back: from what was saved, then
/// from what was pushed.
async fn come_back(
    yard: &Yard,
    git: &Git,
    mirror: &Mirror,
    name: &str,
    plan: &Plan,
    mut results: Results,
) -> Results {
    let (id, own) = (order(&format!("wo-{name}")), branch(&format!("feat/{name}")));
    let works = results.failures().next().is_none();
    let head = results.note("find", git.find_sandbox(&id, &mirror.remote.url).await).flatten();
    let Some(claim) = results.note("claim", git.claim_sandbox(&id).await).flatten() else {
        return results;
    };
    let saved = claim.save(None, &yard.path(&format!("bundles/{name}"))).await;
    // What cannot be committed cannot be saved either, and is told in the same words.
    let saved = results.note("save", saved).flatten();
    results.note("name the agent's folders", claim.agent_folders().await);
    if !works {
        return results;
    }
    if let Some(discarded) = results.note("discard", claim.discard().await) {
        results.note("delete", discarded.delete().await);
    }
    let bundle = saved.unwrap();
    let restored = git.restore_sandbox(mirror, &id, &own, plan, &bundle.path).await;
    if let Some(sandbox) = results.note("restore", restored) {
        results.note("changes after the restore", sandbox.changes().await);
    }
    results.note("remove", git.remove_sandbox(&id).await);
    let base = head.unwrap().base_commit;
    let rebuilt = git.rebuild_sandbox(mirror, &id, &own, plan, &base, &[bundle.head]).await;
    if let Some(sandbox) = results.note("rebuild", rebuilt).flatten() {
        results.note("changes after the rebuild", sandbox.changes().await);
    }
    results
}

/// What was pushed is what the next order starts from; then everything goes.
async fn follow_on(
    git: &Git,
    mirror: &Mirror,
    name: &str,
    plan: &Plan,
    mut results: Results,
) -> Results {
    let (id, own) = (order(&format!("wo-{name}")), branch(&format!("feat/{name}")));
    if results.failures().next().is_none() {
        results.note("reopen", git.open_sandbox(mirror, &id, &own, plan).await);
        let (next, next_branch) = (order(&format!("wo-{name}-2")), branch(&format!("fix/{name}")));
        let plan = Plan { base: Some(own), ..plan.clone() };
        let opened = git.open_sandbox(mirror, &next, &next_branch, &plan).await;
        if let Some(sandbox) = results.note("open on it", opened) {
            results.note("changes", sandbox.changes().await);
        }
        results.note("remove", git.remove_sandbox(&next).await);
    }
    results.note("remove", git.remove_sandbox(&id).await);
    results
}

/// An order on a hostile repository.
async fn work_from(yard: &Yard, git: &Git, name: &str, plan: &Plan) -> Results {
    let remote = yard.remote(&format!("served/{name}.git"));
    let (id, own) = (order(&format!("wo-{name}")), branch(&format!("feat/{name}")));
    let mut results = Results::default();
    let refreshed = git.refresh_mirror_of(&remote, plan.history).await;
    let Some(mirror) = results.note("refresh", refreshed) else {
        return results;
    };
    results.note("refresh", git.refresh_mirror_of(&remote, plan.history).await);
    let opened = git.open_sandbox(&mirror, &id, &own, plan).await;
    if let Some(sandbox) = results.note("open", opened) {
        results.note("changes", sandbox.changes().await);
        fs::write(sandbox.checkout.join("honest.txt"), "honest\n").unwrap();
        results.note("changes", sandbox.changes().await);
        results.note("commit", sandbox.commit("feat: honest work").await);
        results.note("push", sandbox.push(&remote, &[]).await);
        results.note("find", git.find_sandbox(&id, &remote.url).await);
    }
    results.note("remove", git.remove_sandbox(&id).await);
    results
}
