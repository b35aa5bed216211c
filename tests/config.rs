//! Settings: which layer wins, which values are refused and with which words.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use archon_awo::config::{Config, Host, Source, keys};
use secrecy::ExposeSecret;

/// A host with an empty home folder and these variables.
fn host(home: &Path, variables: &[(&str, &str)]) -> Host {
    let home = ("HOME".to_owned(), home.to_str().unwrap().to_owned());
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Host::with(variables.chain([home]))
}

fn load(variables: &[(&str, &str)]) -> Result<Config, String> {
    let home = tempfile::tempdir().unwrap();
    Config::load(&host(home.path(), variables)).map_err(|error| error.to_string())
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn every_setting_is_read_once_and_shown_with_its_source() {
    let config = load(&[("AWO_LEASE", "40")]).unwrap();
    let mut shown: Vec<&str> = config.settings().iter().map(|setting| setting.name).collect();
    let mut expected: Vec<&str> = keys::ALL.iter().map(|key| key.name()).collect();
    shown.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shown, expected);

    let source = |name| config.settings().iter().find(|s| s.name == name).unwrap().source.clone();
    assert_eq!(source("AWO_LEASE"), Source::Environment);
    assert_eq!(source("AWO_HEARTBEAT"), Source::Default);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let home = tempfile::tempdir().unwrap();
    let config = Config::load(&host(home.path(), &[])).unwrap();
    assert_eq!(config.queue.max_concurrent, 5);
    assert_eq!(config.queue.queues, ["default"]);
    assert_eq!(config.queue.lease, Duration::from_secs(30));
    assert_eq!(config.agent.timeout, Duration::from_hours(1));
    assert_eq!(config.remotes.allowed_hosts, ["github.com"]);
    assert!(!config.remotes.allow_local);
    assert_eq!(config.http.address().to_string(), "127.0.0.1:8888");
    assert_eq!(config.folders.repositories, home.path().join(".archon/repositories"));
    assert!(config.database.url.is_none());
    assert!(config.telemetry.traces_endpoint.is_none());
}

#[test]
fn in_a_container_the_folders_are_the_volumes() {
    let mut host = Host::with([("HOME", "/nonexistent")]);
    host.in_container = true;
    let folders = Config::load(&host).unwrap().folders;
    assert_eq!(folders.work_orders, Path::new("/var/archon/work-orders"));
    assert_eq!(folders.config, Path::new("/var/archon/config"));
}

#[test]
fn environment_wins_over_agent_settings_over_home_config_over_default() {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("conf/agent-settings.yaml");
    write(&settings, "awo_lease: 50s\nawo_heartbeat: 7\nawo_queues: [fast, slow]\n");
    let shared = home.path().join(".archon/config.yaml");
    write(&shared, "botName: x\nassistants: {claude: {}}\nawo_lease: 60s\nawo_self_fence: 21s\n");
    let folder = home.path().join("conf");
    let variables = [("ARCHON_CONFIG_DIR", folder.to_str().unwrap()), ("AWO_HEARTBEAT", "6")];
    let config = Config::load(&host(home.path(), &variables)).unwrap();

    assert_eq!(config.queue.heartbeat, Duration::from_secs(6));
    assert_eq!(config.queue.lease, Duration::from_secs(50));
    assert_eq!(config.queue.self_fence, Duration::from_secs(21));
    assert_eq!(config.queue.queues, ["fast", "slow"]);
    let lease = config.settings().iter().find(|setting| setting.name == "AWO_LEASE").unwrap();
    assert_eq!(lease.source, Source::File(settings));
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let config = load(&[("GITHUB_TOKEN", ""), ("GH_TOKEN", "ghp_second"), ("AWO_LEASE", "")]);
    let config = config.unwrap();
    assert_eq!(config.github.token.unwrap().expose_secret(), "ghp_second");
    assert_eq!(config.queue.lease, Duration::from_secs(30));
}

#[test]
fn invalid_values_are_refused_with_variable_value_and_expectation() {
    let cases = [
        ("AWO_MAX_CONCURRENT", "0", "AWO_MAX_CONCURRENT is \"0\": expected a whole number from 1"),
        ("AWO_MAX_CONCURRENT", "many", "from 1 to 256"),
        ("AWO_LEASE", "soon", "AWO_LEASE is \"soon\": expected a duration such as 30s"),
        ("AWO_DATABASE_MODE", "pool", "expected direct or pooler"),
        ("AWO_AUTO_MIGRATE", "perhaps", "expected true or false"),
        ("AWO_QUEUES", "Fast!", "expected queue names"),
        ("AWO_AGENT", "gpt", "expected claude, codex, gemini, opencode or command"),
        ("CLAUDE_CLI_MAX_BUDGET_USD", "-1", "expected an amount in US dollars above 0"),
        ("AWO_ALLOWED_HOSTS", "https://github.com", "expected host names"),
        ("AWO_ALLOWED_HOSTS", "user@github.com", "expected host names"),
        ("GITHUB_API_URL", "api.github.com", "expected an address that starts with http"),
        ("ARCHON_AWO_PORT", "65536", "expected a port"),
        ("AWO_BIND", "localhost", "expected an IP address"),
        ("LOG_LEVEL", "loud", "expected error, warn, info"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon", "expected grpc or http/protobuf"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "ftp://c:4318",
            "expected an address that starts with http:// or https://",
        ),
        ("AWO_GIT_AUTHOR_EMAIL", "nobody", "expected an e-mail address"),
        ("AWO_DISK_SOFT_FREE", "lots", "expected a size such as 5GiB, a share such as 10%"),
        ("AWO_DISK_HARD_INODES", "5GiB", "expected a number, a share such as 10%"),
        ("AWO_AGENT_USERS", "0-64999", "expected two numbers of users from 1 such as 64000-64999"),
        ("AWO_AGENT_USERS", "64999-64000", "expected two numbers of users"),
        ("AWO_AGENT_USERS", "64000", "expected two numbers of users"),
        ("AWO_SANDBOX_QUOTA", "0", "expected a size such as 20GiB, or off"),
        ("AWO_PORT_RANGE", "80-90", "expected two ports from 1024 to 65535"),
        ("AWO_PORT_RANGE", "30000-20000", "expected two ports from 1024 to 65535"),
        (
            "AWO_PORT_RANGE",
            "20000-20039",
            "expected room for AWO_MAX_CONCURRENT (5) ranges of 10 ports, or off",
        ),
        ("AWO_PORTS_PER_ORDER", "0", "expected a whole number from 1 to 100"),
        ("AWO_RESCUE_GRACE", "0", "AWO_RESCUE_GRACE is \"0\": expected a duration"),
    ];
    for (name, value, words) in cases {
        let error = load(&[(name, value)]).map(|_| ()).unwrap_err();
        assert!(error.contains(words), "{name}={value}: {error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn disk_and_ports_can_be_left_alone() {
    let config = load(&[
        ("AWO_DISK_SOFT_FREE", "off"),
        ("AWO_SANDBOX_QUOTA", "off"),
        ("AWO_PORT_RANGE", "off"),
    ]);
    let config = config.unwrap();
    assert_eq!(config.disk.marks.soft_bytes.of(1 << 40), 0);
    assert_eq!(config.disk.marks.hard_bytes.of(1 << 40), 512 << 20);
    assert_eq!((config.disk.sandbox_quota, config.ports), (None, None));
}

#[test]
fn the_command_agent_needs_a_command() {
    let error = load(&[("AWO_AGENT", "command")]).map(|_| ()).unwrap_err();
    assert!(error.contains("AWO_AGENT_COMMAND is not set: expected a program"), "{error}");
    let config = load(&[("AWO_AGENT", "command"), ("AWO_AGENT_COMMAND", "/bin/sh -c 'a b'")]);
    assert_eq!(config.unwrap().agent.command_line.unwrap(), ["/bin/sh", "-c", "a b"]);
    let error = load(&[("AWO_AGENT_COMMAND", "sh 'open")]).map(|_| ()).unwrap_err();
    assert!(error.contains("quoted as for a shell"), "{error}");
}

#[test]
fn an_agent_gets_the_credentials_that_are_named_for_it_and_none_of_ours() {
    let names = |variables: &[(&str, &str)]| {
        let config = load(variables).unwrap();
        let names = config.agent.credentials.iter().map(|(name, _)| name.clone());
        (names.collect::<Vec<_>>(), config.secrets().len())
    };
    let keys = [("GEMINI_API_KEY", "g-0123456789abcdef"), ("OPENAI_API_KEY", "o-0123456789abcdef")];
    let with = |name, value| [(name, value), keys[0], keys[1]];
    assert_eq!(names(&with("AWO_AGENT", "gemini")), (vec!["GEMINI_API_KEY".to_owned()], 1));
    // `codex exec` reads one name alone.
    let codex = names(&with("AWO_AGENT", "codex")).0;
    assert_eq!(codex, ["OPENAI_API_KEY", "CODEX_API_KEY"]);
    assert!(names(&with("AWO_AGENT", "claude")).0.is_empty());
    let chosen = names(&with("AWO_AGENT_CREDENTIALS", "OPENAI_API_KEY, NOT_SET_ANYWHERE"));
    assert_eq!(chosen, (vec!["OPENAI_API_KEY".to_owned()], 1));
    for name in ["DATABASE_URL", "GITHUB_TOKEN", "AWO_LEASE", "PATH", "LD_PRELOAD", "A B", ""] {
        let error = load(&[("AWO_AGENT_CREDENTIALS", &format!("{name},OPENAI_API_KEY,{name}"))]);
        assert_eq!(error.is_err(), !name.is_empty(), "{name}");
    }
    let config = load(&[("AWO_AGENT", "codex"), ("AWO_AGENT_ARGUMENTS", "-c 'a b'")]).unwrap();
    assert_eq!(
        (config.agent.program(), config.agent.arguments),
        ("codex".into(), vec!["-c".into(), "a b".into()])
    );
    let config = load(&[("AWO_AGENT_MODEL", "gpt")]).unwrap();
    assert!(config.warnings[0].contains("AWO_AGENT is claude"), "{:?}", config.warnings);
}

#[test]
fn an_unknown_key_in_a_file_names_key_file_and_the_nearest_known_one() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".archon/config/agent-settings.yaml");
    write(&path, "awo_leese: 30s\n");
    let error = Config::load(&host(home.path(), &[])).unwrap_err().to_string();
    let place = path.display();
    assert_eq!(error, format!("awo_leese in {place} is not a setting: did you mean awo_lease?"));

    for (text, words) in [
        ("- a\n- b\n", "is not a list of `key: value` lines"),
        ("a: [", "is not YAML"),
        ("awo_lease: {seconds: 3}\n", "awo_lease is a nested value"),
        ("awo_config_dir: /tmp\n", "decides where this file is"),
        ("awo_lease: never\n", "awo_lease is \"never\" in "),
    ] {
        write(&path, text);
        let error = Config::load(&host(home.path(), &[])).unwrap_err().to_string();
        assert!(error.contains(words), "{text:?}: {error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn the_file_shared_with_other_programs_refuses_only_what_looks_like_ours() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".archon/config.yaml");
    write(&path, "defaultAssistant: claude\n");
    assert!(Config::load(&host(home.path(), &[])).is_ok());
    write(&path, "awo_unheard_of: 1\n");
    assert!(Config::load(&host(home.path(), &[])).is_err());
}

#[test]
fn a_credential_in_a_file_others_can_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".archon/config/agent-settings.yaml");
    write(&path, "github_token: ghp_abcdefghijklmnop1234\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Config::load(&host(home.path(), &[])).unwrap_err().to_string();
    assert!(error.contains("chmod 600") && !error.contains("ghp_abc"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Config::load(&host(home.path(), &[])).unwrap().github.token.is_some());
}

#[test]
fn each_git_host_has_the_credential_that_is_named_for_it_and_no_other() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".archon/config/git/credentials");
    write(&path, "# ours\nhttps://oauth2:glpat-sixteen-or-more@git.example:8443\n\n");
    let token = ("GITHUB_TOKEN", "ghp_abcdefghijklmnop1234");
    let load = |more: &[(&str, &str)]| {
        let all: Vec<(&str, &str)> = more.iter().copied().chain([token]).collect();
        Config::load(&host(home.path(), &all)).map_err(|error| error.to_string())
    };
    let error = load(&[]).unwrap_err();
    assert!(error.contains("chmod 600") && !error.contains("glpat"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

    let config = load(&[]).unwrap();
    let hosts: Vec<&str> = config.credentials.hosts().collect();
    assert_eq!(hosts, ["git.example:8443", "github.com"]);
    let found = config.credentials.for_host("git.example:8443").unwrap();
    assert_eq!(found.user, "oauth2");
    let secrets = config.secrets();
    let known = secrets.iter().any(|one| one.expose_secret() == found.password.expose_secret());
    assert!(known && !format!("{config:?}").contains("glpat"));

    // The token goes where the API is, and then github.com has nothing.
    let config = load(&[("GITHUB_API_URL", "https://git.firm.example/api/v3")]).unwrap();
    assert!(config.credentials.for_host("github.com").is_none());
    assert!(config.credentials.for_host("git.firm.example").is_some());

    for (text, words) in [
        ("https://u:glpat-one@github.com\n", "GITHUB_TOKEN is for"),
        (
            "https://u:glpat-one@h.example\nhttps://u:glpat-two@H.example\n",
            "a second time in line 2",
        ),
        ("https://glpat-one@h.example\n", "a line 1 of another form"),
        ("https://u:glpat-one@h.example/group\n", "a line 1 of another form"),
    ] {
        write(&path, text);
        let error = load(&[]).unwrap_err();
        assert!(error.contains(words) && !error.contains("glpat"), "{error}");
    }
    let error = load(&[("AWO_GIT_CREDENTIALS", "/nonexistent/file")]).unwrap_err();
    assert!(error.contains("/nonexistent/file does not exist"), "{error}");
}

#[test]
fn credentials_are_masked_when_shown_and_known_to_the_redactor() {
    let config = load(&[
        ("GITHUB_TOKEN", "ghp_abcdefghijklmnop1234"),
        ("DATABASE_URL", "postgres://awo:p%40ss+word@db:5432/archon?sslmode=require"),
        ("ANTHROPIC_API_KEY", "short"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-key"),
    ])
    .unwrap();
    let shown = serde_json::to_string(config.settings()).unwrap();
    assert!(shown.contains("ghp_…1234"), "{shown}");
    assert!(shown.contains("postgres://awo:***@db:5432/archon"), "{shown}");
    for secret in ["ghp_abcde", "p%40ss", "short\"", "collector-key"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
    let secrets = config.secrets();
    let secrets: Vec<&str> = secrets.iter().map(ExposeSecret::expose_secret).collect();
    for secret in
        ["ghp_abcdefghijklmnop1234", "p@ss+word", "p%40ss+word", "short", "Bearer collector-key"]
    {
        assert!(secrets.contains(&secret), "{secret} is not in {secrets:?}");
    }
    assert!(!format!("{config:?}").contains("ghp_abcdefghijklmnop"));
}

#[test]
fn a_password_inside_any_address_is_masked_and_known_to_the_redactor() {
    let settings = [
        ("AWO_AGENT_PROXY", "http://me:pr0xy%2Bword@proxy:3128", "pr0xy+word"),
        ("ANTHROPIC_BASE_URL", "https://me:m0del-word-x9@models.example/v1", "m0del-word-x9"),
        ("AWO_ARCHIVE_ENDPOINT", "https://me:st0re-word-x9@s3.example", "st0re-word-x9"),
        ("GITHUB_API_URL", "https://me:f0rge-word-x9@git.example/api", "f0rge-word-x9"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:c0llect-x9@otlp:4317", "c0llect-x9"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otlp/?api-key=tr4ce-x9", "tr4ce-x9"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://me:m3tric-x9@otlp:4317", "m3tric-x9"),
        ("AWO_AGENT_ARGUMENTS", "--proxy 'http://me:argum3nt-x9@proxy'", "argum3nt-x9"),
        ("AWO_AGENT_COMMAND", "run --url=http://me:c0mmand-x9@h/", "c0mmand-x9"),
    ];
    let pairs: Vec<(&str, &str)> =
        settings.iter().map(|(name, value, _)| (*name, *value)).collect();
    let config = load(&pairs).unwrap();
    let shown = serde_json::to_string(config.settings()).unwrap();
    let secrets = config.secrets();
    let secrets: Vec<&str> = secrets.iter().map(ExposeSecret::expose_secret).collect();
    for (name, value, secret) in settings {
        assert!(secrets.contains(&secret), "{secret} of {name} is not in {secrets:?}");
        assert!(!shown.contains(secret), "{secret} of {name} is in {shown}");
        assert!(!shown.contains(value), "{value} of {name} is in {shown}");
    }
    assert!(shown.contains("http://me:***@proxy:3128"), "{shown}");
    let error = load(&[("AWO_AGENT_PROXY", "ftp://me:hunter2@h")]).map(|_| ()).unwrap_err();
    assert!(error.contains("AWO_AGENT_PROXY") && !error.contains("hunter2"), "{error}");
}

#[test]
fn an_invalid_credential_is_not_repeated_in_its_error() {
    let error = load(&[("GITHUB_TOKEN", "ghp_abcdef secret 1234")]).map(|_| ()).unwrap_err();
    assert!(error.contains("GITHUB_TOKEN") && !error.contains("secret"), "{error}");
    let error = load(&[("DATABASE_URL", "mysql://root:hunter2@db/x")]).map(|_| ()).unwrap_err();
    assert!(error.contains("expected postgres://") && !error.contains("hunter2"), "{error}");
}

#[test]
fn with_both_claude_credentials_the_token_is_used_and_a_warning_says_so() {
    let config =
        load(&[("ANTHROPIC_API_KEY", "sk-api"), ("CLAUDE_CODE_OAUTH_TOKEN", "oauth")]).unwrap();
    assert!(config.agent.claude.api_key.is_none());
    assert!(config.agent.claude.oauth_token.is_some());
    assert_eq!(config.warnings.len(), 1);
    let secrets = config.secrets();
    assert!(secrets.iter().any(|secret| secret.expose_secret() == "sk-api"));
}

#[test]
fn the_common_collector_address_gets_the_path_of_each_signal_over_http() {
    let config = load(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/custom"),
    ])
    .unwrap();
    assert_eq!(config.telemetry.traces_endpoint.unwrap(), "http://traces:1/custom");
    assert_eq!(config.telemetry.metrics_endpoint.unwrap(), "http://collector:4318/v1/metrics");
}

#[test]
fn the_readme_names_settings_that_exist_with_their_defaults() {
    let readme = include_str!("../README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut seen = 0;
    for row in rows.filter(|row| row.starts_with(|c: char| c.is_ascii_uppercase())) {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next().unwrap().trim_end_matches('`');
        let key = keys::ALL.iter().find(|key| key.variables.contains(&name));
        let key = key.unwrap_or_else(|| panic!("{name} is no setting"));
        let default = cells.next().unwrap().trim_matches('`');
        // Folders depend on the host, and a required one has no default.
        if let Some(known) = key.default {
            assert_eq!(default, known, "{name}");
        } else {
            assert!(
                default.is_empty() || default == "required" || default.starts_with('~'),
                "{name}"
            );
        }
        seen += 1;
    }
    assert!(seen >= 20, "the table was not found");
}

#[test]
fn history_is_kept_for_days_or_for_ever() {
    fn kept(variables: &[(&str, &str)]) -> Result<(Option<i32>, Option<i32>), String> {
        load(variables).map(|config| (config.history.orders, config.history.logs))
    }
    assert_eq!(kept(&[]), Ok((Some(90), Some(30))));
    assert_eq!(kept(&[("AWO_HISTORY_DAYS", "7"), ("AWO_LOG_DAYS", "off")]), Ok((Some(7), None)));
    for days in ["0", "-1", "1.5", "40000", "30d"] {
        let said = kept(&[("AWO_LOG_DAYS", days)]).unwrap_err();
        let expected = "expected a whole number of days from 1 to 36500, or off";
        assert_eq!(said, format!("AWO_LOG_DAYS is \"{days}\": {expected}"));
    }
}

/// What agents and tools are given under these names, and nobody sets.
const GIVEN: &[&str] = &[
    "AWO_WORK_ORDER_ID",
    "AWO_STEP",
    "AWO_ATTEMPT",
    "AWO_RUN_ID",
    "AWO_SANDBOX",
    "AWO_SESSION_DIR",
    "AWO_SESSION_ID",
    "AWO_TASK",
    "AWO_ASKPASS_FD",
    "AWO_ASKPASS_HOST",
    "AWO_ASKPASS_USER",
    "AWO_CONTAINER",
    "AWO_PG_BIN",
    "ANTHROPIC_AUTH_TOKEN",
];

/// Names of settings in the sentences of a source file: upper case, and no comment.
fn names_in(source: &str) -> impl Iterator<Item = &str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let words =
        code.flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    words.filter(|word| {
        let ours = ["AWO_", "CLAUDE_CLI_", "ANTHROPIC_", "AGENT_WORK_ORDER_", "ARCHON_"];
        ours.iter().any(|begin| word.starts_with(begin)) && !word.ends_with('_')
    })
}

#[test]
fn sentences_name_settings_as_they_are_set() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            for name in names_in(&source) {
                let known = keys::ALL.iter().any(|key| key.variables.contains(&name));
                assert!(known || GIVEN.contains(&name), "{name} in {}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen} names were found");
}
