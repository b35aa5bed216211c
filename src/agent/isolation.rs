//! How far an agent is shut in: what was reached, what is missing, and the orders to the process that
//! shuts itself in before it becomes the agent.

mod grants;
mod ruleset;
mod sockets;
mod syscalls;

use std::{fmt, path::PathBuf};

use nix::unistd::{Gid, Uid, User};
use serde::{Deserialize, Serialize};

use super::{
    containment::{Containment, Mechanism},
    users::may_change_users,
};
use crate::config::{AgentNetwork, AgentUsers, AgentsBounds, IsolationConfig, IsolationMode};
pub use grants::Places;
pub(super) use ruleset::{InForce, reach_only, scope_signals, shut_in};
pub use sockets::Datagrams;
pub(super) use syscalls::forbid;

/// The Landlock version from which on files, signals and abstract sockets are covered.
const COMPLETE_LANDLOCK: u8 = 6;

/// How much of the isolation was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsolationLevel {
    /// Everything.
    Full,
    /// The agent is kept out of files that are not its own, but not of everything else.
    Partial,
    /// Only the rights of its user hold it back.
    None,
}

impl IsolationLevel {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }
}

/// What shuts an agent in, as it was reached and not as it was wished for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "one for each mechanism")]
pub struct Isolation {
    /// How much that is.
    pub level: IsolationLevel,
    /// The version of Landlock that is in force; 0 for none.
    pub landlock: u8,
    /// Calls of the kernel that no agent needs are refused.
    pub syscalls: bool,
    /// Connections go to the port of the proxy alone.
    pub network: bool,
    /// Besides them there is UDP.
    #[serde(default)]
    pub udp: bool,
    /// What holds all its processes.
    pub containment: Mechanism,
    /// The user, when it is not the worker's.
    pub user: Option<u32>,
    /// Whether no other run has that user.
    pub own_user: bool,
    /// What bounds the number of processes: `cgroup`, `user`, `shared user`, or nothing.
    pub processes: Option<String>,
    /// A cgroup bounds the memory.
    pub memory: bool,
    /// What is missing, in words, each to follow "without".
    pub missing: Vec<String>,
}

impl Isolation {
    /// Nothing at all, because that was asked for.
    pub fn off(containment: Mechanism) -> Self {
        let missing = vec!["any isolation: AWO_ISOLATION is off".to_owned()];
        Self { missing, ..Self::nothing(containment) }
    }

    fn nothing(containment: Mechanism) -> Self {
        Self {
            containment,
            level: IsolationLevel::None,
            landlock: 0,
            syscalls: false,
            network: false,
            udp: false,
            user: None,
            own_user: false,
            processes: None,
            memory: false,
            missing: Vec::new(),
        }
    }

    /// Sets what is missing and the level, from the facts and from what was wished for.
    fn judged(mut self, wanted: &Confinement, held: Containment) -> Self {
        let mut miss = |text: &str| self.missing.push(text.to_owned());
        if let Some(reason) = held.missing {
            miss(&format!("a hold on its processes that outlasts the shim: {reason}"));
        }
        if self.landlock == 0 {
            miss(
                "Landlock: the kernel has none (Linux 5.13 or newer, with landlock among its lsm=)",
            );
        } else if self.landlock < COMPLETE_LANDLOCK {
            miss("bounds for signals and abstract sockets: Landlock 6 (Linux 6.12) has them");
        }
        if !self.syscalls {
            miss("a filter of system calls: the kernel has no seccomp");
        }
        if wanted.only_port.is_some() && !self.network {
            miss("a bound for connections: Landlock 4 (Linux 6.7) has it, with seccomp");
        }
        if self.udp {
            miss(
                "a bound for UDP: a proxy of https:// is looked up by its name; AWO_AGENT_PROXY with http:// \
                  or a number needs none",
            );
        }
        if !self.own_user {
            miss(
                "a user of its own for each run (AWO_AGENT_USERS): files that its user owns it can close, \
                 and such sockets it can use",
            );
        }
        match self.processes.as_deref() {
            Some("cgroup" | "user") => {}
            Some(_) => miss(
                "a bound for processes of each run: no cgroup with pids.max can be made, and the limit of a \
                 user counts all that it runs",
            ),
            None => miss(
                "a bound for processes: no cgroup with pids.max can be made, and for root no other holds; \
                 set AWO_AGENT_USERS",
            ),
        }
        if wanted.memory.is_some() && !self.memory {
            miss("a bound for memory: no cgroup with memory.max can be made");
        }
        self.level = match self.landlock {
            0 => IsolationLevel::None,
            _ if self.missing.is_empty() => IsolationLevel::Full,
            _ => IsolationLevel::Partial,
        };
        self
    }

    /// What keeps agents from the ways of the worker into its database.
    pub fn bounds(&self, config: &IsolationConfig) -> AgentsBounds {
        let only_port = config.only_port.filter(|_| self.network);
        AgentsBounds { other_user: self.user.is_some(), only_port }
    }

    /// Where the agent can connect to.
    pub fn agent_network(&self) -> AgentNetwork {
        if self.network { AgentNetwork::Proxy } else { AgentNetwork::Open }
    }

    /// An error unless it is as complete as it has to be.
    pub fn check(&self, mode: IsolationMode) -> Result<(), String> {
        if mode == IsolationMode::Required && self.level != IsolationLevel::Full {
            return Err(format!("AWO_ISOLATION is required, and agents would run {self}"));
        }
        Ok(())
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level.as_str())?;
        let mut parts = vec![format!("held by {}", self.containment)];
        if self.landlock > 0 {
            parts.push(format!("Landlock {}", self.landlock));
        }
        if self.syscalls {
            parts.push("seccomp".to_owned());
        }
        if self.network {
            let besides = if self.udp { "UDP besides" } else { "no UDP" };
            parts.push(format!("proxy only by TCP, {besides}"));
        }
        let own = if self.own_user { " of its own" } else { "" };
        parts.extend(self.user.map(|user| format!("user {user}{own}")));
        parts.extend(self.processes.as_ref().map(|by| format!("processes by {by}")));
        if self.memory {
            parts.push("memory by cgroup".to_owned());
        }
        write!(f, " ({})", parts.join(", "))?;
        if !self.missing.is_empty() {
            write!(f, ", without {}", self.missing.join("; without "))?;
        }
        Ok(())
    }
}

/// The orders to the process that becomes the agent. Nothing here is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// How far it has to go.
    pub mode: IsolationMode,
    /// Where it may read and write.
    pub places: Places,
    /// Whom it runs as.
    pub user: Option<AgentUser>,
    /// Of whom it gets one of its own before it starts.
    pub users: Option<AgentUsers>,
    /// Most processes and threads.
    pub processes: u32,
    /// Most bytes of memory.
    pub memory: Option<u64>,
    /// Most open files.
    pub open_files: u64,
    /// Largest file in bytes.
    pub file_size: u64,
    /// The only port it may connect to.
    pub only_port: Option<u16>,
    /// What it may have besides TCP when there is such a port.
    pub datagrams: Datagrams,
}

impl Confinement {
    /// What the settings say; the places of the run are to be added.
    pub fn of(config: &IsolationConfig) -> Result<Self, String> {
        Ok(Self {
            mode: config.mode,
            places: Places {
                read: config.read_paths.clone(),
                write: config.write_paths.clone(),
                protected: config.protected.clone(),
                terminals: config.users.is_some(),
                ..Places::default()
            },
            // Before one was taken the last stands for all: nothing is noted of whoever only tries.
            user: match (&config.user, &config.users) {
                (Some(user), _) => Some(AgentUser::find(user)?),
                (None, Some(users)) => Some(AgentUser::last_of(users)?),
                (None, None) => None,
            },
            users: config.users.clone(),
            processes: config.processes,
            memory: config.memory,
            open_files: config.open_files,
            file_size: config.file_size,
            only_port: config.only_port,
            datagrams: if config.looks_up_proxy { Datagrams::Udp } else { Datagrams::Refused },
        })
    }
}

/// A user that agents run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentUser {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

impl AgentUser {
    /// The last of a range; the error names the setting.
    fn last_of(users: &AgentUsers) -> Result<Self, String> {
        let AgentUsers { first, last, .. } = users;
        let failed = |why: &str| Err(format!("AWO_AGENT_USERS is {first}-{last}, {why}"));
        if (*first..=*last).contains(&nix::unistd::geteuid().as_raw()) {
            return failed("and the worker itself is one of them");
        }
        if !may_change_users() {
            return failed(MAY_NOT);
        }
        Ok(Self { uid: *last, gid: *last })
    }

    /// Finds a user by name or number; the error names the setting.
    fn find(text: &str) -> Result<Self, String> {
        let failed = |why: &str| Err(format!("AWO_AGENT_USER is {text:?}, {why}"));
        if !may_change_users() {
            return failed(MAY_NOT);
        }
        let known = match text.parse::<u32>() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)).ok().flatten().or_else(|| {
                // A number needs no entry in the list of users: containers seldom have one.
                Some(User { uid: Uid::from_raw(uid), gid: Gid::from_raw(uid), ..nobody() })
            }),
            Err(_) => User::from_name(text).ok().flatten(),
        };
        match known {
            None => failed("and there is no such user"),
            Some(user) if user.uid.is_root() => failed("and root is whom agents shall not be"),
            Some(user) => Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        }
    }
}

/// Why nobody else can be had.
const MAY_NOT: &str = "and the worker may not start agents as another user: it has to be root, or have CAP_SETUID, \
                       CAP_SETGID, CAP_CHOWN and CAP_KILL (compose.hardened.yaml)";

/// A user of whom nothing is known.
fn nobody() -> User {
    User {
        name: String::new(),
        passwd: std::ffi::CString::default(),
        uid: Uid::from_raw(u32::MAX),
        gid: Gid::from_raw(u32::MAX),
        gecos: std::ffi::CString::default(),
        dir: PathBuf::new(),
        shell: PathBuf::new(),
    }
}

/// The facts that the process found when it shut itself in.
pub(super) fn facts(
    wanted: &Confinement,
    in_force: InForce,
    syscalls: bool,
    limits: Limits,
    held: Containment,
) -> Isolation {
    let other = wanted.user.is_some() || !nix::unistd::geteuid().is_root();
    let own_user = wanted.users.is_some();
    let processes = match (limits.processes, own_user, other) {
        (true, _, _) => Some("cgroup".to_owned()),
        (false, true, _) => Some("user".to_owned()),
        (false, false, true) => Some("shared user".to_owned()),
        (false, false, false) => None,
    };
    Isolation {
        landlock: in_force.version,
        network: in_force.network && syscalls,
        udp: in_force.network && syscalls && wanted.datagrams == Datagrams::Udp,
        syscalls,
        user: wanted.user.map(|user| user.uid),
        own_user,
        processes,
        memory: limits.memory,
        ..Isolation::nothing(held.by)
    }
    .judged(wanted, held)
}

/// What cgroups bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The number of processes.
    pub processes: bool,
    /// The memory.
    pub memory: bool,
    /// Its weight against others who want to run.
    pub processors: bool,
}

#[cfg(test)]
mod tests {
    use super::{
        AgentUser, Confinement, Containment, InForce, IsolationLevel, Limits, Mechanism, facts,
    };
    use crate::config::{AgentUsers, IsolationConfig, IsolationMode};

    fn landlock(version: u8) -> InForce {
        InForce { version, network: false }
    }

    fn with_users(config: &IsolationConfig) -> Confinement {
        let users = Some(AgentUsers { first: 64_000, last: 64_999, notes: "/notes".into() });
        Confinement { users, ..Confinement::of(config).unwrap() }
    }

    #[test]
    fn signals_alone_are_not_all_that_can_be_had() {
        let wanted = with_users(&IsolationConfig::default());
        let limits = Limits { processes: true, memory: true, processors: true };
        let level = |held| facts(&wanted, landlock(7), true, limits, held);
        for firm in [Mechanism::Cgroup, Mechanism::Ptrace] {
            let reached = level(Containment::firm(firm));
            assert_eq!(reached.level, IsolationLevel::Full, "{reached}");
            assert!(reached.to_string().contains(&format!("held by {firm}")), "{reached}");
        }
        let reached = level(Containment::signals("tracing is refused"));
        assert_eq!(reached.level, IsolationLevel::Partial);
        assert!(
            reached.to_string().ends_with("outlasts the shim: tracing is refused"),
            "{reached}"
        );
    }

    #[test]
    fn what_is_missing_lowers_the_level_and_is_said() {
        let config = IsolationConfig { memory: Some(1 << 30), ..IsolationConfig::default() };
        let wanted = with_users(&config);
        let limits = Limits { processes: true, memory: true, processors: true };
        let held = || Containment::firm(Mechanism::Ptrace);
        let full = facts(&wanted, landlock(7), true, limits, held());
        assert_eq!(full.level, IsolationLevel::Full, "{full}");
        assert_eq!(full.check(IsolationMode::Required), Ok(()));
        let limited = Limits { memory: false, ..limits };
        let partial = facts(&wanted, landlock(5), true, limited, held());
        assert_eq!(partial.level, IsolationLevel::Partial);
        let said = partial.check(IsolationMode::Required).unwrap_err();
        assert!(said.contains("signals") && said.contains("memory.max"), "{said}");
        assert_eq!(partial.check(IsolationMode::Auto), Ok(()));
        let none = facts(&wanted, landlock(0), false, limits, held());
        assert_eq!(none.level, IsolationLevel::None, "{none}");
    }
    #[test]
    fn a_user_that_runs_share_is_not_one_of_their_own() {
        let limits = |processes| Limits { processes, memory: true, processors: true };
        let held = || Containment::firm(Mechanism::Ptrace);
        let reached = |wanted: &Confinement, by_cgroup| {
            facts(wanted, landlock(7), true, limits(by_cgroup), held())
        };
        let own = with_users(&IsolationConfig::default());
        let bounded = reached(&own, false);
        assert_eq!(
            (bounded.level, bounded.processes.as_deref()),
            (IsolationLevel::Full, Some("user"))
        );
        let shared =
            Confinement { user: Some(AgentUser { uid: 64_000, gid: 64_000 }), users: None, ..own };
        for by_cgroup in [false, true] {
            let less = reached(&shared, by_cgroup);
            let said = less.check(IsolationMode::Required).unwrap_err();
            assert!(said.contains("AWO_AGENT_USERS"), "{said}");
            assert_eq!(said.contains("the limit of a user counts all that it runs"), !by_cgroup);
        }
    }
}
