//! A hostile agent in a whole order, by a real worker, beside the order of somebody else: what it tries,
//! and what comes of it in each of the ways in which agents are run.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{SocketAddr, UnixListener},
        },
    },
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use archon_awo::{
    domain::{RemoteRules, RepositoryUrl},
    git::{self, History},
    process::blocking_command,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::{
    harness::Harness,
    hostile_rows::{Control, attempts},
    hostile_table::{Outcomes, Reached, Table, assert_held, check_page, machine},
    https_place::Place,
    leaks,
};

const STEPS: &str = "create-branch planning execute commit create-pr";
/// Users that nobody else is: the agents', the worker's, the owner of a setuid program.
const AGENTS: &str = "72000-72099";
const WORKER: u32 = 64_124;
const OWNER: u32 = 64_999;

/// The hostile agent.
const SCRIPTS: [(&str, &str); 6] = [
    ("attempts.py", include_str!("attempts/attempts.py")),
    ("ground.py", include_str!("attempts/ground.py")),
    ("of_files.py", include_str!("attempts/of_files.py")),
    ("of_network.py", include_str!("attempts/of_network.py")),
    ("of_processes.py", include_str!("attempts/of_processes.py")),
    ("of_secrets.py", include_str!("attempts/of_secrets.py")),
];

/// What the agents do beside their work.
const EXTRA: &str = r#"
case "$AWO_WORK_ORDER_ID-$AWO_STEP" in
wo-victim-*-planning)
    while [ -e "$folder/hold-victim" ]; do sleep 0.05; done ;;
wo-attack-*-execute)
    python3 -B "$folder/attempts/attempts.py" "$folder/facts.json" "$folder/report" || exit 7 ;;
wo-fill-*-execute)
    for number in $(seq 200); do head -c 1000000 /dev/zero > "fill-$number" || exit 8; done
    sleep 30 ;;
wo-eat-*-execute)
    exec python3 -c 'x = b"x" * (900 << 20)' ;;
esac
"#;

/// One way to run agents.
struct Setup {
    name: &'static str,
    isolation: &'static str,
    users: Option<&'static str>,
}

/// A terminal of somebody else.
struct Terminal {
    name: String,
    owner: Child,
}

impl Terminal {
    fn open() -> Self {
        let open =
            "import os; ends = os.openpty(); print(os.ttyname(ends[1]), flush=True); input()";
        let mut owner = blocking_command("/usr/bin/python3")
            .args(["-c", open])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut name = String::new();
        BufReader::new(owner.stdout.take().unwrap()).read_line(&mut name).unwrap();
        Self { name: name.trim().to_owned(), owner }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.owner.kill();
        let _ = self.owner.wait();
    }
}

/// The place of an attack, with what its agents are after.
struct Battlefield {
    place: Place,
    secret: String,
    /// Kept open.
    _sockets: [UnixListener; 2],
    terminal: Terminal,
    abstract_name: String,
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Battlefield {
    async fn new(pool: PgPool) -> Self {
        let mut place = Place::new(pool).await;
        // In hexadecimal: base64 of it can be told from the rest of a log.
        let secret = format!("s3/{}+\"", uuid::Uuid::new_v4().simple());
        let harness = &mut place.harness;
        harness.set("GITHUB_TOKEN", &place.token);
        harness.set("LOG_LEVEL", "info");
        harness.set("REGISTRY_PASSWORD", &secret);
        for (name, value) in [
            ("AWO_AGENT_PROCESSES", "200"),
            ("AWO_AGENT_FILE_SIZE", "8M"),
            ("AWO_AGENT_OPEN_FILES", "256"),
            ("AWO_AGENT_PROXY", "http://127.0.0.1:9"),
            ("AWO_AGENT_NETWORK", "proxy"),
            ("AWO_AGENT_MEMORY", "512M"),
            ("AWO_SANDBOX_QUOTA", "64MiB"),
        ] {
            harness.set(name, value);
        }
        sqlx::query("select awo_set_repository_policy($1, '{\"agent_environment\": [\"REGISTRY_PASSWORD\"]}')")
            .bind(harness.remote_url())
            .execute(&harness.pool)
            .await
            .unwrap();
        for folder in ["config", "repositories", "work-orders"] {
            fs::create_dir(harness.path(folder)).unwrap();
        }
        fs::write(harness.path("config/secret"), "s").unwrap();
        harness.tell_agent("extra", EXTRA);
        fs::create_dir(harness.path("agent/attempts")).unwrap();
        for (name, text) in SCRIPTS {
            harness.tell_agent(&format!("attempts/{name}"), text);
        }
        let abstract_name = format!("archon-awo-test-{}", uuid::Uuid::new_v4());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let sockets = [
            UnixListener::bind_addr(&address).unwrap(),
            UnixListener::bind(harness.path("socket")).unwrap(),
        ];
        for folder in [harness.folder(), place.server.ca_file().parent().unwrap()] {
            // As volumes are: users that are not the worker's pass through.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
        }
        fs::set_permissions(place.server.ca_file(), fs::Permissions::from_mode(0o644)).unwrap();
        Self { place, secret, _sockets: sockets, terminal: Terminal::open(), abstract_name }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.harness.path(name)
    }

    /// Files outside, anew, and a setuid program.
    fn lay_out(&self, owner: Option<u32>) {
        let outside = self.path("outside");
        let _ = fs::remove_dir_all(&outside);
        fs::create_dir_all(outside.join("kept")).unwrap();
        for name in ["to-link", "to-move", "to-remove", "kept/file"] {
            fs::write(outside.join(name), "precious").unwrap();
        }
        if let Some(owner) = owner {
            self.place.harness.give("outside", owner);
        }
        if is_root() {
            let program = self.path("agent/id");
            fs::copy("/usr/bin/id", &program).unwrap();
            std::os::unix::fs::chown(&program, Some(OWNER), Some(OWNER)).unwrap();
            fs::set_permissions(program, fs::Permissions::from_mode(0o4755)).unwrap();
        }
    }

    /// What the script is told.
    fn facts(&self, worker: u32, victim_pid: u32, setup: &Setup) -> Value {
        let maps = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap_or_default();
        let address = maps.split('-').next().and_then(|text| u64::from_str_radix(text, 16).ok());
        let rules =
            RemoteRules { allowed_hosts: vec![self.place.server.host()], allow_local: false };
        let url = RepositoryUrl::parse(&self.place.harness.remote_url(), &rules).unwrap();
        let volume = git::Volume::new(self.path("repositories"));
        let mirror = volume.mirror_folder(&url, History::Full).join("mirror.git");
        let victim = format!("wo-victim-{}", setup.name);
        let prompts = fs::read_dir(self.path(&format!("work-orders/{victim}/prompts"))).unwrap();
        let prompt = prompts.map(|entry| entry.unwrap().file_name()).next().unwrap();
        let hash = hex(&Sha256::digest(self.place.token.as_bytes()));
        json!({
            "worker": worker,
            "victim": victim_pid,
            "address": address,
            "victim_checkout": self.path(&format!("repositories/{victim}/app")),
            "victim_record": self.path(&format!("work-orders/{victim}")),
            "victim_prompt": prompt.to_str(),
            "own_record": self.path(&format!("work-orders/wo-attack-{}", setup.name)),
            "mirror": mirror,
            "trusted": volume.trusted(&victim.parse().unwrap()),
            "config": self.path("config"),
            "home": self.path(""),
            "outside": self.path("outside"),
            "abstract": self.abstract_name,
            "socket": self.path("socket"),
            "terminal": self.terminal.name,
            "setuid": if is_root() { vec![self.path("agent/id")] } else { vec![] },
            "token_sha256": hash,
            // What is taken out of a pipe is missed by its reader.
            "steal": setup.isolation != "off",
            "enough": self.path("agent/enough"),
            "beats": self.path("agent/beats"),
            "loot": self.path("agent/loot"),
        })
    }

    /// The attempts as a plain process, to show that they work.
    async fn plain(&self, mut facts: Value) -> Outcomes {
        let control = self.path("control");
        for folder in ["checkout", "tmp", "home", "record/outputs", "beats"] {
            fs::create_dir_all(control.join(folder)).unwrap();
        }
        fs::write(control.join(".lock"), "").unwrap();
        let own = |name: &str| json!(control.join(name));
        for (key, name) in
            [("own_record", "record"), ("beats", "beats"), ("loot", "loot"), ("enough", ".lock")]
        {
            facts[key] = own(name);
        }
        fs::write(control.join("facts.json"), facts.to_string()).unwrap();
        let mut command = blocking_command("python3");
        command
            .arg("-B")
            .arg(self.path("agent/attempts/attempts.py"))
            .args([control.join("facts.json"), control.join("report")])
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", control.join("home"))
            .env("TMPDIR", control.join("tmp"))
            .current_dir(control.join("checkout"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // The fakes answer meanwhile.
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let mut outcomes = read_report(&control.join("report")).0;
        for (attempt, name) in [("daemon-stays", "stays"), ("daemon-hops", "hops")] {
            outcomes.insert(attempt, Some(beats_on(&control.join("beats").join(name)).await));
            fs::write(control.join(format!("beats/{name}.stop")), "").unwrap();
        }
        outcomes
    }

    /// One attack; answers how far the agent was shut in and what came of its attempts.
    async fn attack(&mut self, setup: &Setup, plain: Option<&mut Outcomes>) -> (Reached, Outcomes) {
        let harness = &mut self.place.harness;
        for old in ["facts.json", "report", "enough", "loot"] {
            let _ = fs::remove_file(harness.path("agent").join(old));
        }
        let _ = fs::remove_dir_all(harness.path("agent/beats"));
        harness.set("AWO_ISOLATION", setup.isolation);
        if let Some(users) = setup.users {
            harness.set("AWO_AGENT_USERS", users);
            harness.open_to_users();
        }
        harness.tell_agent("hold-victim", "");
        let before = harness.agent_runs().len();
        let worker = harness.start_worker();
        let victim = format!("wo-victim-{}", setup.name);
        harness.order_named(&victim, "Write a file", STEPS).await;
        let begun = || harness.agent_runs().len() > before;
        until_done(harness, &victim, "its agent begins", begun).await;
        let pid: u32 = harness.agent_runs().last().unwrap()[3].parse().unwrap();
        let facts = self.facts(worker, pid, setup);
        if let Some(plain) = plain {
            self.lay_out(None);
            *plain = self.plain(facts.clone()).await;
        }
        self.lay_out(self.place.harness.user);
        self.place.harness.tell_agent("facts.json", &facts.to_string());
        let harness = &self.place.harness;
        let attack = format!("wo-attack-{}", setup.name);
        harness.order_named(&attack, "Write a file", STEPS).await;
        let report = harness.path("agent/report");
        let tried = || fs::read_to_string(&report).unwrap_or_default().contains("\"tried\"");
        until_done(harness, &attack, "the attempts", tried).await;
        // While it looks for the token, git works for the other order.
        fs::remove_file(harness.path("agent/hold-victim")).unwrap();
        harness.until_status(&victim, "completed").await;
        harness.tell_agent("enough", "");
        harness.until_status(&attack, "completed").await;
        let (mut outcomes, git_seen) = read_report(&report);
        assert!(git_seen > 0, "no git was seen at work: nothing was searched");
        for (attempt, name) in [("daemon-stays", "stays"), ("daemon-hops", "hops")] {
            let beats = harness.path("agent/beats").join(name);
            assert!(beats.exists(), "the daemon {name} never was");
            outcomes.insert(attempt, Some(beats_on(&beats).await));
        }
        let isolation: String = sqlx::query_scalar(
            "select isolation from agent_work_order_steps
             where agent_work_order_id = $1 and step_name = 'execute'",
        )
        .bind(&attack)
        .fetch_one(&harness.pool)
        .await
        .unwrap();
        let events: Vec<String> = sqlx::query_scalar(
            "select convert_from(data, 'UTF8') from awo.log_chunks
             where agent_work_order_id = $1 and step_name = 'execute' and stream = 'event'
               and position('agent_isolation' in convert_from(data, 'UTF8')) > 0",
        )
        .bind(&attack)
        .fetch_all(&harness.pool)
        .await
        .unwrap();
        assert!(events.len() == 1 && events[0].contains(&isolation), "{isolation}: {events:?}");
        let reached = Reached(isolation);
        outcomes.insert("secret", Some(self.secret_is_told().await));
        outcomes.insert("traps", Some(self.clean_up(&attack).await));
        outcomes.extend(self.use_up(setup, &reached).await);
        self.place.harness.assert_sound().await;
        self.place.harness.signal(worker, Signal::SIGTERM);
        self.place.harness.ended(worker).await;
        (reached, outcomes)
    }

    /// Whether the secret, in any form, is in a row or in a file that is kept.
    async fn secret_is_told(&self) -> bool {
        let harness = &self.place.harness;
        assert_eq!(fs::read_to_string(harness.path("agent/loot")).unwrap(), self.secret);
        let hex = hex(self.secret.as_bytes());
        let url = self.secret.replace('/', "%2F").replace('+', "%2B").replace('"', "%22");
        let json = self.secret.replace('"', "\\\"");
        let mut forms = leaks::forms(&self.secret);
        forms.extend([hex, url, json]);
        let files = leaks::forms_in_files(&harness.path("work-orders"), &forms);
        let mut found = leaks::forms_in_rows(&harness.pool, forms).await;
        found.extend(files.iter().map(|path| path.display().to_string()));
        let logged: Vec<(String, i64, String)> = sqlx::query_as(
            "select stream, coalesce(file_offset, -1), convert_from(data, 'UTF8')
             from awo.log_chunks
             where step_name = 'execute' and stream in ('stdout', 'stderr')
             order by agent_work_order_id, stream, file_offset",
        )
        .fetch_all(&harness.pool)
        .await
        .unwrap();
        let marks: usize = logged.iter().map(|(.., text)| text.matches("[redacted]").count()).sum();
        assert!(marks >= 7, "seven forms were printed, {marks} were redacted: {logged:#?}");
        eprintln!("found of the secret: {found:?}");
        !found.is_empty()
    }

    /// Lets `gc` take the sandbox away; answers whether anything outside of it was changed.
    async fn clean_up(&self, attack: &str) -> bool {
        let harness = &self.place.harness;
        let sandbox = harness.path("repositories").join(attack);
        for trap in ["app/way-out", ".tmp/way-out", ".home/closed", ".home/file-out"] {
            assert!(fs::symlink_metadata(sandbox.join(trap)).is_ok(), "{trap} was never laid");
        }
        let look = || {
            let outside = harness.path("outside");
            ["", "kept", "kept/file", "to-link"].map(|name| {
                let facts = fs::symlink_metadata(outside.join(name)).unwrap();
                (facts.mode(), facts.mtime(), facts.ctime(), facts.ctime_nsec(), facts.nlink())
            })
        };
        let before = look();
        sqlx::query(
            "update awo.jobs set created_at = created_at - interval '90 days',
                 finished_at = finished_at - interval '90 days' where state = 'succeeded'",
        )
        .execute(&harness.pool)
        .await
        .unwrap();
        let (code, printed) = harness.command(&["gc"]);
        assert_eq!(code, Some(0), "{printed}");
        assert!(!sandbox.exists(), "{printed}");
        let trash = harness.path("repositories/.cache/trash");
        let left = fs::read_dir(&trash).map(Iterator::count).unwrap_or_default();
        assert_eq!(left, 0, "{}: {printed}", trash.display());
        before != look()
    }

    /// Orders that use up disk and memory; answers whether they could.
    async fn use_up(&self, setup: &Setup, reached: &Reached) -> Outcomes {
        let harness = &self.place.harness;
        let mut outcomes = Outcomes::new();
        for (name, class) in [("fill", "disk"), ("eat", "oom")] {
            if name == "eat" && !reached.0.contains("memory by cgroup") {
                outcomes.insert("eat", None);
                continue;
            }
            let order = format!("wo-{name}-{}", setup.name);
            harness.order_named(&order, "Write a file", STEPS).await;
            let seen: (bool, Option<String>) = loop {
                let step = sqlx::query_as(
                    "select success, error_class from agent_work_order_steps
                     where agent_work_order_id = $1 and step_name = 'execute'",
                );
                if let Some(step) = step.bind(&order).fetch_optional(&harness.pool).await.unwrap() {
                    break step;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            let cancel = sqlx::query("select awo_cancel($1)").bind(&order);
            // One that has failed cannot be cancelled, and need not.
            let _ = cancel.execute(&harness.pool).await;
            assert!(seen.0 || seen.1.as_deref() == Some(class), "{order}: {seen:?}");
            outcomes.insert(name, Some(seen.0));
        }
        outcomes
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Waits for something that the agent of an order does; an order that fails before is shown.
async fn until_done(harness: &Harness, order: &str, what: &str, done: impl Fn() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        let status = harness.outcome(order).await;
        assert!(status.1.is_none(), "{order}: {status:?}\n{}", harness.logs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{order}: never: {what}\n{}", harness.logs());
}

/// Whether a daemon still makes its mark.
async fn beats_on(file: &std::path::Path) -> bool {
    // Whoever was ended before its first beat has left no file.
    let length = || fs::metadata(file).map_or(0, |about| about.len());
    let before = length();
    tokio::time::sleep(Duration::from_millis(700)).await;
    length() > before
}

/// What the script noted: which attempts were done in one of their ways, and the programs of git it saw.
fn read_report(file: &std::path::Path) -> (Outcomes, u64) {
    let (mut outcomes, mut git_seen) = (Outcomes::new(), 0);
    for line in fs::read_to_string(file).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        git_seen += line["git_seen"].as_u64().unwrap_or_default();
        let Some(attempt) = attempts().find(|attempt| line["attempt"] == attempt.name) else {
            assert!(line["attempt"].is_null(), "no row for {line}");
            continue;
        };
        eprintln!("{line}");
        let ways = line["outcomes"].as_array().unwrap();
        let tried: Vec<bool> =
            ways.iter().filter(|way| **way != "untried").map(|way| way == "done").collect();
        let done = tried.iter().any(|done| *done);
        outcomes.insert(attempt.name, (!tried.is_empty()).then_some(done));
    }
    (outcomes, git_seen)
}

/// Each way of each attempt works where nothing shuts it in.
fn assert_control(file: &std::path::Path) {
    let mut failed = Vec::new();
    let lines = fs::read_to_string(file).unwrap();
    let lines: BTreeMap<String, Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| Some((line["attempt"].as_str()?.to_owned(), line)))
        .collect();
    for attempt in attempts() {
        let Some(line) = lines.get(attempt.name) else { continue };
        let ways = line["outcomes"].as_array().unwrap();
        let works = match attempt.control {
            Control::Root | Control::OneWay if !is_root() => true,
            Control::OneWay => ways.iter().any(|way| way == "done"),
            Control::Anybody | Control::Root => ways.iter().all(|way| way == "done"),
            Control::None => true,
        };
        if !works {
            failed.push(line.to_string());
        }
    }
    assert!(failed.is_empty(), "attempts that show nothing: {failed:#?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_a_hostile_agent_can_do_is_what_the_page_on_security_says(pool: PgPool) {
    let mut field = Battlefield::new(pool).await;
    let mut outside = Outcomes::new();
    let setup = Setup { name: "off", isolation: "off", users: None };
    let (_, off) = field.attack(&setup, Some(&mut outside)).await;
    assert_control(&field.path("control/report"));
    assert_eq!(outside["daemon-stays"], Some(true));
    assert_eq!(outside["daemon-hops"], Some(true));
    if !is_root() {
        let setup = Setup { name: "image", isolation: "auto", users: None };
        let image = field.attack(&setup, None).await;
        assert_held("image", &image.0, &image.1);
        eprintln!("the table is compared where root runs the tests: only root can change its user");
        return;
    }
    let setup = Setup { name: "root", isolation: "auto", users: None };
    let root = field.attack(&setup, None).await;
    assert_held("root", &root.0, &root.1);
    // As compose.hardened.yaml has it: a user for each run, and no cgroup that could bound memory.
    field.place.harness.set("AWO_AGENT_MEMORY", "");
    field.place.harness.run_with_rights(WORKER);
    let setup = Setup { name: "hardened", isolation: "required", users: Some(AGENTS) };
    let hardened = field.attack(&setup, None).await;
    assert_held("hardened", &hardened.0, &hardened.1);
    assert!(hardened.0.0.starts_with("full "), "{}", hardened.0.0);
    // As in the image: one user for the worker and its agents, without any privilege.
    field.place.harness.set("AWO_AGENT_USERS", "");
    field.place.harness.run_as(WORKER);
    let setup = Setup { name: "image", isolation: "auto", users: None };
    let image = field.attack(&setup, None).await;
    assert_held("image", &image.0, &image.1);
    let tried = image.1.values().filter(|outcome| outcome.is_some()).count();
    assert!(tried > 25, "{:?}", image.1);
    let worked = fs::metadata(field.path("work-orders/wo-attack-image")).unwrap().uid();
    assert_eq!(worked, WORKER, "the worker ran as somebody else");
    let line = machine(&[("image", &image.0), ("hardened", &hardened.0), ("root", &root.0)]);
    eprintln!("{line}");
    let table = Table { outside, off, image, hardened, root };
    check_page(&[("attempts", table.render()), ("machine", line)]);
}
