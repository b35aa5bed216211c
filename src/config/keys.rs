//! Every setting, one entry each: its names, its default and what a valid value looks like.
//!
//! A setting that is missing here cannot be read, so this list is also what the file is checked
//! against and what `archon-awo config` prints.

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// The environment variables it is read from, the first that is set wins. The first one in
    /// lower case is its name in files.
    pub variables: &'static [&'static str],
    /// The value used when nobody sets it, as it would be written; `None` when it stays unset or
    /// depends on the host.
    pub default: Option<&'static str>,
    /// What a valid value looks like, to follow the word "expected".
    pub expected: &'static str,
    /// Whether the value is a credential: masked when shown.
    pub secret: bool,
    /// What it does, in one line.
    pub help: &'static str,
}

impl Key {
    /// The name people know it by.
    pub const fn name(&self) -> &'static str {
        self.variables[0]
    }

    /// Its name in a settings file.
    pub fn file_name(&self) -> String {
        self.name().to_ascii_lowercase()
    }
}

const DURATION: &str = "a duration such as 30s, 15m, 1h 30m, or plain seconds";
const DAYS: &str = "a whole number of days from 1 to 36500, or off";
const FREE_BYTES: &str = "a size such as 5GiB, a share such as 10%, both with a comma, or off";
const FREE_INODES: &str = "a number, a share such as 10%, both with a comma, or off";
const AGE: &str = "a duration such as 12h or 30d, or off";
const BOOLEAN: &str = "true or false";
const FOLDER: &str = "the path of a folder";
const TEXT: &str = "text that is not empty";
const COLLECTOR: &str = "an address that starts with http:// or https://";
const PATHS: &str = "absolute paths separated by ':', apart from the folders of archon-awo itself";
const SIZE: &str = "a size of at least 1MiB such as 512MiB or 4G";
const WEB_ADDRESS: &str = "an address that starts with http:// or https://";

macro_rules! keys {
    ($($ident:ident: $variables:expr, $default:expr, $expected:expr, $secret:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $ident: Key = Key {
                variables: &$variables,
                default: $default,
                expected: $expected,
                secret: $secret,
                help: $help,
            };
        )*
        /// Every setting, in the order in which they are shown.
        pub static ALL: &[&Key] = &[$(&$ident),*];
    };
}

keys! {
    DATABASE_URL: ["DATABASE_URL", "SUPABASE_DB_URL"], None,
        "postgres://user:password@host:port/database", true,
        "Postgres that holds the queue and the work orders.";
    DATABASE_PASSWORD_FILE: ["DATABASE_PASSWORD_FILE"], None, "the path of a file that holds a password", false,
        "File with the password, read when the address of the database has none.";
    DATABASE_MODE: ["AWO_DATABASE_MODE"], Some("direct"), "direct or pooler", false,
        "direct, or pooler behind a pooler in transaction mode.";
    AUTO_MIGRATE: ["AWO_AUTO_MIGRATE"], Some("true"), BOOLEAN, false,
        "Whether a worker brings the schema up to date when it starts.";
    DATABASE_CONNECTIONS: ["AWO_DATABASE_CONNECTIONS"], Some("10"),
        "a whole number from 2 to 200", false,
        "Most connections one process opens.";

    REPOSITORY_DIR: ["AWO_REPOSITORY_DIR"], None, FOLDER, false,
        "Folder of the repository caches and the sandboxes.";
    WORK_ORDER_DIR: ["AWO_WORK_ORDER_DIR"], None, FOLDER, false,
        "Folder of the prompts and outputs of every work order.";
    CONFIG_DIR: ["AWO_CONFIG_DIR", "ARCHON_CONFIG_DIR"], None, FOLDER, false,
        "Folder of agent-settings.yaml and of the agents' own configuration.";

    MAX_CONCURRENT: ["AWO_MAX_CONCURRENT"], Some("5"), "a whole number from 1 to 256", false,
        "Most work orders this worker runs at once.";
    QUEUES: ["AWO_QUEUES"], Some("default"),
        "queue names of lower-case letters, digits, '-' and '_', separated by commas", false,
        "The queues this worker takes orders from.";
    LEASE: ["AWO_LEASE"], Some("30s"), DURATION, false,
        "How long an order stays its worker's without a heartbeat.";
    HEARTBEAT: ["AWO_HEARTBEAT"], Some("5s"), DURATION, false,
        "How often a worker renews its leases.";
    SELF_FENCE: ["AWO_SELF_FENCE"], Some("20s"), DURATION, false,
        "After how long without an acknowledged heartbeat a worker freezes its agents.";
    RESCUE_GRACE: ["AWO_RESCUE_GRACE"], Some("5s"), DURATION, false,
        "How long after the end of a lease another worker takes the order.";
    POLL_MIN: ["AWO_POLL_MIN"], Some("1s"), DURATION, false,
        "Shortest time between two looks for work.";
    POLL_MAX: ["AWO_POLL_MAX"], Some("2s"), DURATION, false,
        "Longest time between two looks for work.";
    POLL_IDLE: ["AWO_POLL_IDLE"], Some("15s"), DURATION, false,
        "Longest time between two looks for work while notifications are proven to arrive.";
    DRAIN_GRACE: ["AWO_DRAIN_GRACE"], Some("60s"), DURATION, false,
        "How long running steps may take to finish after SIGTERM.";
    PRIORITY_AGING: ["AWO_PRIORITY_AGING"], Some("15m"),
        "a duration such as 30s, 15m, 1h 30m, or off", false,
        "How long a waiting job takes to gain one step of priority; off, and urgent jobs always go first.";
    RETRY_BASE: ["AWO_RETRY_BASE"], Some("10s"), DURATION, false,
        "Longest wait before the first retry, at least the half of it; doubles with each.";
    RETRY_MAX: ["AWO_RETRY_MAX"], Some("10m"), DURATION, false,
        "Longest wait before any retry.";
    RETRY_FOR: ["AWO_RETRY_FOR"], Some("1h"), DURATION, false,
        "How long an order waits for a model provider, forge or git server that fails, a time they named not counted.";

    RETENTION_DAYS: ["AWO_RETENTION_DAYS"], Some("7"), DAYS, false,
        "How long the sandboxes of ended orders are kept, unless said otherwise for their state.";
    RETENTION_COMPLETED: ["AWO_RETENTION_COMPLETED"], None, AGE, false,
        "How long the sandboxes of completed orders are kept.";
    RETENTION_FAILED: ["AWO_RETENTION_FAILED"], None, AGE, false,
        "How long the sandboxes of failed orders are kept.";
    RETENTION_CANCELLED: ["AWO_RETENTION_CANCELLED"], None, AGE, false,
        "How long the sandboxes of cancelled orders are kept.";
    RETENTION_ORPHANS: ["AWO_RETENTION_ORPHANS"], None, AGE, false,
        "How long the sandboxes of deleted orders are kept, and by gc --unknown those of unknown ones.";

    ARCHIVE_URL: ["AWO_ARCHIVE_URL"], None,
        "file:///folder or s3://bucket/prefix, without a user name, password or query", false,
        "Object storage for what agents leave in their sandboxes, before those go.";
    ARCHIVE_ENDPOINT: ["AWO_ARCHIVE_ENDPOINT", "AWS_ENDPOINT_URL"], None, WEB_ADDRESS, false,
        "The address of the S3 API, when it is not Amazon's.";
    ARCHIVE_REGION: ["AWO_ARCHIVE_REGION", "AWS_REGION"], None, TEXT, false,
        "The region of the bucket.";
    ARCHIVE_ACCESS_KEY_ID: ["AWO_ARCHIVE_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"], None, TEXT, false,
        "The id of the key that opens the bucket; the role of the host without one.";
    ARCHIVE_SECRET_ACCESS_KEY: ["AWO_ARCHIVE_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"], None,
        TEXT, true,
        "The key itself.";
    ARCHIVE_MAX: ["AWO_ARCHIVE_MAX"], Some("2G"), SIZE, false,
        "Most bytes of a sandbox that is archived.";

    CACHE_DAYS: ["AWO_CACHE_DAYS"], Some("30"), DAYS, false,
        "How long the cache of a repository stays that nobody uses.";
    CACHE_MAX: ["AWO_CACHE_MAX"], Some("off"), "a size such as 100GiB, or off", false,
        "Most that the caches of all repositories may take; those used longest ago go first.";

    HISTORY_DAYS: ["AWO_HISTORY_DAYS"], Some("90"), DAYS, false,
        "For how many days orders that have ended are kept; off, and for ever.";
    LOG_DAYS: ["AWO_LOG_DAYS"], Some("30"), DAYS, false,
        "For how many days the log of an order is kept; off, and as long as the order.";

    AGENT: ["AWO_AGENT"], Some("claude"), "claude, codex, gemini, opencode or command", false,
        "Which agent runs the steps.";
    AGENT_COMMAND: ["AWO_AGENT_COMMAND"], None,
        "a program and its arguments, quoted as for a shell", false,
        "The program that is the agent, when that is \"command\".";
    AGENT_PROGRAM: ["AWO_AGENT_PROGRAM"], None, "a program's name or path", false,
        "The program of codex, gemini or opencode; the one of that name when unset.";
    AGENT_MODEL: ["AWO_AGENT_MODEL"], None, TEXT, false,
        "The model codex, gemini or opencode is asked to use, as it names it; its own default when unset.";
    AGENT_ARGUMENTS: ["AWO_AGENT_ARGUMENTS"], None, "arguments, quoted as for a shell", false,
        "More arguments for codex, gemini or opencode.";
    AGENT_CREDENTIALS: ["AWO_AGENT_CREDENTIALS"], None,
        "names of variables separated by commas, none of them a setting of archon-awo", false,
        "The variables with credentials that the agent gets; those that codex, gemini or opencode reads when unset.";
    CLAUDE_CLI: ["CLAUDE_CLI_PATH"], Some("claude"), "a program's name or path", false,
        "The Claude Code CLI.";
    CLAUDE_MODEL: ["CLAUDE_CLI_MODEL"], None, TEXT, false,
        "The model the Claude Code CLI is asked to use; its own default when unset.";
    CLAUDE_MAX_TURNS: ["CLAUDE_CLI_MAX_TURNS"], None, "a whole number from 1 to 10000", false,
        "Most turns of one agent run; unlimited when unset.";
    CLAUDE_MAX_BUDGET: ["CLAUDE_CLI_MAX_BUDGET_USD"], None,
        "an amount in US dollars above 0, such as 2.50", false,
        "Most money one agent run may cost; unlimited when unset.";
    ANTHROPIC_API_KEY: ["ANTHROPIC_API_KEY"], None, TEXT, true,
        "API key of the model provider.";
    CLAUDE_OAUTH_TOKEN: ["CLAUDE_CODE_OAUTH_TOKEN"], None, TEXT, true,
        "Subscription token of the Claude Code CLI; used instead of the API key when both are set.";
    ANTHROPIC_BASE_URL: ["ANTHROPIC_BASE_URL"], None, WEB_ADDRESS, false,
        "Another address of the model provider's API.";
    AGENT_TIMEOUT: ["AGENT_WORK_ORDER_TIMEOUT"], Some("3600"), DURATION, false,
        "Longest time one step may take.";
    AGENT_IDLE_TIMEOUT: ["AWO_AGENT_IDLE_TIMEOUT"], Some("15m"), DURATION, false,
        "Longest time an agent may stay silent.";
    COMMANDS_DIR: ["AGENT_WORK_ORDER_COMMANDS_DIR"], None, FOLDER, false,
        "Folder whose command files replace the built-in ones.";
    REVIEW_ROUNDS: ["AWO_REVIEW_ROUNDS"], Some("2"), "a whole number from 0 to 20", false,
        "How often the blockers of a review are handed back to the agent.";
    FREEZER: ["AWO_FREEZER"], Some("auto"), "auto, cgroup, ptrace or signal", false,
        "How agents are held together, frozen and killed: by cgroups of version 2, by tracing, or by signals.";
    DISK_SOFT_FREE: ["AWO_DISK_SOFT_FREE"], Some("5%, 2GiB"), FREE_BYTES, false,
        "With less free on one of its volumes a worker claims no orders; of two amounts the smaller counts.";
    DISK_HARD_FREE: ["AWO_DISK_HARD_FREE"], Some("1%, 512MiB"), FREE_BYTES, false,
        "With less free a worker is not ready, and cleans up at once.";
    DISK_SOFT_INODES: ["AWO_DISK_SOFT_INODES"], Some("2%, 50000"), FREE_INODES, false,
        "With fewer inodes free on one of its volumes a worker claims no orders.";
    DISK_HARD_INODES: ["AWO_DISK_HARD_INODES"], Some("1%, 10000"), FREE_INODES, false,
        "With fewer inodes free a worker is not ready, and cleans up at once.";
    SANDBOX_QUOTA: ["AWO_SANDBOX_QUOTA"], Some("20GiB"), "a size such as 20GiB, or off", false,
        "Most a sandbox may take on disk; an agent that exceeds it is stopped.";

    PORT_RANGE: ["AWO_PORT_RANGE"], Some("20000-29999"),
        "two ports from 1024 to 65535 such as 20000-29999, or off", false,
        "The ports that running orders get, each a range of its own; off, and they get none.";
    PORTS_PER_ORDER: ["AWO_PORTS_PER_ORDER"], Some("10"), "a whole number from 1 to 100", false,
        "How many ports a running order gets; whole tens are set aside for it.";

    ISOLATION: ["AWO_ISOLATION"], Some("auto"), "auto, required or off", false,
        "How far agents are shut in: as far as the kernel can, completely or not at all, or off.";
    AGENT_READ_PATHS: ["AWO_AGENT_READ_PATHS"], None, PATHS, false,
        "More files and folders that agents may read and run, such as toolchains.";
    AGENT_WRITE_PATHS: ["AWO_AGENT_WRITE_PATHS"], None, PATHS, false,
        "Files and folders outside their sandbox that agents may write.";
    AGENT_USER: ["AWO_AGENT_USER"], None, "the name or number of a user", false,
        "The user that agents run as, when the worker is root; the worker's own when unset.";
    AGENT_USERS: ["AWO_AGENT_USERS"], None, "two numbers of users from 1 such as 64000-64999", false,
        "Numbers of users of which each run of an agent gets one of its own, where the worker may.";
    AGENT_PROCESSES: ["AWO_AGENT_PROCESSES"], Some("4096"), "a whole number from 16 to 4194304", false,
        "Most processes and threads: of each agent where a cgroup can be made, else of their user.";
    AGENT_MEMORY: ["AWO_AGENT_MEMORY"], None, SIZE, false,
        "Most memory of one agent and all it starts, where a cgroup can be made; unlimited when unset.";
    AGENT_OPEN_FILES: ["AWO_AGENT_OPEN_FILES"], Some("65536"), "a whole number from 64 to 1048576", false,
        "Most open files of one process of an agent.";
    AGENT_FILE_SIZE: ["AWO_AGENT_FILE_SIZE"], Some("16G"), SIZE, false,
        "Largest file that a process of an agent may write.";
    AGENT_PROXY: ["AWO_AGENT_PROXY"], None, WEB_ADDRESS, false,
        "The proxy that agents are told to use for HTTP and HTTPS.";
    AGENT_NETWORK: ["AWO_AGENT_NETWORK"], Some("open"), "open or proxy", false,
        "Where agents may connect: open, or proxy for TCP to the port of the proxy alone.";

    ALLOWED_HOSTS: ["AWO_ALLOWED_HOSTS"], Some("github.com"),
        "host names, with :port where it is not 443, separated by commas", false,
        "The hosts work orders may name.";
    LFS_HOSTS: ["AWO_LFS_HOSTS"],
        Some("github-cloud.githubusercontent.com,github-cloud.s3.amazonaws.com"),
        "host names, with :port where it is not 443, separated by commas", false,
        "Where servers may keep the contents of Git LFS besides the hosts of `AWO_ALLOWED_HOSTS`.";
    LOCAL_REMOTES: ["AWO_LOCAL_REMOTES"], None, PATHS, false,
        "The folders below which `file://` remotes may lie; without it there are none.";
    ALLOW_LOCAL_REMOTES: ["AWO_ALLOW_LOCAL_REMOTES"], Some("false"), BOOLEAN, false,
        "Whether `file://` remotes may lie anywhere; `AWO_LOCAL_REMOTES` takes its place.";
    GITHUB_TOKEN: ["GITHUB_TOKEN", "GH_TOKEN", "GITHUB_PAT_TOKEN"], None, TEXT, true,
        "Token for cloning, pushing and pull requests on GitHub's host, and on no other.";
    GITHUB_API_URL: ["GITHUB_API_URL"], Some("https://api.github.com"), WEB_ADDRESS, false,
        "Address of GitHub's REST API.";
    GITHUB_HOST: ["AWO_GITHUB_HOST"], None, "a host name, with :port where it is not 443", false,
        "The host of the repositories that API is about; follows from its address when unset.";
    GIT_CREDENTIALS: ["AWO_GIT_CREDENTIALS"], None, "the path of a file", false,
        "File with the credentials of other git hosts; git/credentials in the config folder when unset.";
    GIT_CA_FILE: ["AWO_GIT_CA_FILE"], None, "the path of a PEM file", false,
        "Certificate authorities git trusts besides the host's.";
    GIT_AUTHOR_NAME: ["AWO_GIT_AUTHOR_NAME"], Some("Archon"), TEXT, false,
        "Author of the commits.";
    GIT_AUTHOR_EMAIL: ["AWO_GIT_AUTHOR_EMAIL"], Some("archon@localhost"),
        "an e-mail address", false,
        "E-mail address of the commits' author.";

    HTTP_ENABLED: ["ARCHON_AWO_ENABLED"], Some("true"), BOOLEAN, false,
        "Whether the worker answers health checks and metrics over HTTP.";
    HTTP_PORT: ["ARCHON_AWO_PORT"], Some("8888"), "a port from 0 to 65535, 0 for any free one", false,
        "Port of the HTTP server.";
    HTTP_BIND: ["AWO_BIND"], Some("127.0.0.1"), "an IP address such as 127.0.0.1 or 0.0.0.0", false,
        "Address the HTTP server listens on.";

    LOG_LEVEL: ["LOG_LEVEL"], Some("info"),
        "error, warn, info, debug, trace, or filter directives such as archon_awo=debug,sqlx=info",
        false, "How much is logged.";
    LOG_FORMAT: ["AWO_LOG_FORMAT"], Some("auto"), "auto, json or human", false,
        "Form of the log; auto is human on a terminal and json elsewhere.";
    OTLP_ENDPOINT: ["OTEL_EXPORTER_OTLP_ENDPOINT"], None, COLLECTOR, false,
        "Collector that receives traces and metrics; nothing is sent when unset.";
    OTLP_TRACES_ENDPOINT: ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"], None, COLLECTOR, false,
        "Collector for traces alone.";
    OTLP_METRICS_ENDPOINT: ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"], None, COLLECTOR, false,
        "Collector for metrics alone.";
    OTLP_CERTIFICATE: ["OTEL_EXPORTER_OTLP_CERTIFICATE"], None,
        "a file of certificates in PEM form", false,
        "Authorities that a collector's certificate may come from, instead of the system's.";
    OTLP_PROTOCOL: ["OTEL_EXPORTER_OTLP_PROTOCOL"], Some("grpc"), "grpc or http/protobuf", false,
        "How traces and metrics are sent.";
    OTLP_HEADERS: ["OTEL_EXPORTER_OTLP_HEADERS"], None,
        "name=value pairs separated by commas", true,
        "Headers sent with traces and metrics.";
    SERVICE_NAME: ["OTEL_SERVICE_NAME"], Some("archon-awo"), TEXT, false,
        "Name of this service in traces and metrics.";
}
