//! Ways into the database that need no password. An agent has none, so whoever can take such a way from where it
//! runs has the whole queue, with the work of everybody.
//!
//! The rules of the server (`pg_hba.conf`) can be read by few roles, so the ways are tried.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use futures::future::join_all;
use nix::unistd::{User, geteuid};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, Error, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError, PgSslMode},
};

use crate::config::AgentsBounds;

/// Where servers put their sockets.
const SOCKET_FOLDERS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];
/// Longest wait for one way.
const PATIENCE: Duration = Duration::from_secs(3);
/// A role that no server has.
const NOBODY: &str = "archon-awo nobody";
/// The function of the server that finds out that a role is not there; before it nobody asked who we are.
const ROLE_IS_MISSING: &str = "InitializeSessionUserId";

/// One way in that needs no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    place: Place,
    role: String,
    /// Whom the server lets in there.
    open_to: OpenTo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Socket(PathBuf, u16),
    Port(String, u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenTo {
    /// Whoever connects (`trust`).
    Everybody,
    /// The user of the system that this process has (`peer`).
    ThisUser,
}

/// The database lets agents in.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database lets agents in without a password: {}; give its roles a password and have the server ask for it \
     (`scram-sha-256` in pg_hba.conf), or keep agents away: from `peer` by a user of their own (AWO_AGENT_USERS), \
     from ports by AWO_AGENT_NETWORK=proxy", ways(.0))]
pub struct OpenDatabase(pub Vec<Entrance>);

fn ways(entrances: &[Entrance]) -> String {
    let ways: Vec<String> = entrances.iter().map(Entrance::to_string).collect();
    ways.join(", and ")
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = match self.open_to {
            OpenTo::Everybody => "whoever connects (trust)",
            OpenTo::ThisUser => "the worker's user (peer)",
        };
        match &self.place {
            Place::Socket(folder, _) => write!(f, "the socket in {}", folder.display())?,
            Place::Port(host, port) => write!(f, "port {port} of {host}")?,
        }
        write!(f, " is open to {whom} as the role {}", self.role)
    }
}

impl Entrance {
    /// Whether an agent within these bounds gets in.
    fn is_open_to(&self, agents: AgentsBounds) -> bool {
        match (&self.place, self.open_to) {
            // No bound of ours is about sockets with a path.
            (Place::Socket(..), OpenTo::Everybody) => true,
            (Place::Socket(..), OpenTo::ThisUser) => !agents.other_user,
            (Place::Port(_, port), _) => agents.only_port.is_none_or(|only| only == *port),
        }
    }
}

/// An error that names the ways by which agents get in.
pub fn check_entrances(entrances: Vec<Entrance>, agents: AgentsBounds) -> Result<(), OpenDatabase> {
    let open: Vec<Entrance> =
        entrances.into_iter().filter(|entrance| entrance.is_open_to(agents)).collect();
    if open.is_empty() { Ok(()) } else { Err(OpenDatabase(open)) }
}

/// Tries the ways there are from this host: that of the address, and for a server on this host the other usual
/// ones. A server that does not answer has none.
pub async fn entrances(url: &SecretString) -> Vec<Entrance> {
    let Ok(options) = PgConnectOptions::from_str(url.expose_secret()) else { return Vec::new() };
    let mut roles = vec![options.get_username().to_owned()];
    roles.extend(User::from_uid(geteuid()).ok().flatten().map(|user| user.name));
    roles.dedup();
    let tried = places(&options).into_iter().flat_map(|place| {
        let database = options.get_database().map(str::to_owned);
        roles.iter().map(move |role| attempt(place.clone(), role.clone(), database.clone()))
    });
    join_all(tried).await.into_iter().flatten().collect()
}

fn places(options: &PgConnectOptions) -> Vec<Place> {
    let (host, port) = (options.get_host(), options.get_port());
    let socket = options.get_socket().cloned();
    let socket = socket.or_else(|| host.starts_with('/').then(|| PathBuf::from(host)));
    let own = socket
        .clone()
        .map_or_else(|| Place::Port(host.to_owned(), port), |folder| Place::Socket(folder, port));
    let is_near = socket.is_some()
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|number| number.is_loopback());
    let mut found = vec![own];
    if !is_near {
        return found;
    }
    if socket.is_some() {
        found.push(Place::Port("127.0.0.1".to_owned(), port));
    }
    let mut folders: Vec<PathBuf> =
        socket.iter().filter_map(|path| path.canonicalize().ok()).collect();
    for folder in SOCKET_FOLDERS {
        let Ok(real) = PathBuf::from(folder).canonicalize() else { continue };
        if real.join(format!(".s.PGSQL.{port}")).exists() && !folders.contains(&real) {
            found.push(Place::Socket(PathBuf::from(folder), port));
            folders.push(real);
        }
    }
    found
}

async fn attempt(place: Place, role: String, database: Option<String>) -> Option<Entrance> {
    let connect = |role: &str| {
        let options = PgConnectOptions::new_without_pgpass()
            .username(role)
            // In the place of one that the environment may hold.
            .password("")
            .ssl_mode(PgSslMode::Prefer)
            .extra_float_digits(None)
            .application_name("archon-awo");
        let options = match &database {
            Some(database) => options.database(database),
            None => options,
        };
        let options = match &place {
            Place::Socket(folder, port) => options.socket(folder).port(*port),
            Place::Port(host, port) => options.host(host).port(*port),
        };
        async move { tokio::time::timeout(PATIENCE, options.connect()).await.ok() }
    };
    close(connect(&role).await?.ok()?).await;
    let open_to = match (&place, connect(NOBODY).await) {
        (Place::Socket(..), Some(Err(error))) if !is_missing_role(&error) => OpenTo::ThisUser,
        _ => OpenTo::Everybody,
    };
    Some(Entrance { place, role, open_to })
}

async fn close(connection: PgConnection) {
    // It is gone one way or the other.
    let _ = tokio::time::timeout(PATIENCE, connection.close()).await;
}

/// Whether the server let a role in and then did not find it.
fn is_missing_role(error: &Error) -> bool {
    let error =
        error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.and_then(PgDatabaseError::routine) == Some(ROLE_IS_MISSING)
}

#[cfg(test)]
mod tests {
    use super::{Entrance, OpenTo, Place, check_entrances};
    use crate::config::AgentsBounds;

    #[test]
    fn an_entrance_counts_where_agents_can_take_it() {
        let entrance = |place, open_to| Entrance { place, role: "awo".to_owned(), open_to };
        let socket = |open_to| entrance(Place::Socket("/run/postgresql".into(), 5432), open_to);
        let port = entrance(Place::Port("db".to_owned(), 5432), OpenTo::Everybody);
        let open = AgentsBounds { other_user: false, only_port: None };
        let user = AgentsBounds { other_user: true, ..open };
        let proxy = AgentsBounds { only_port: Some(3128), ..open };
        let same_port = AgentsBounds { only_port: Some(5432), ..open };
        for (entrance, bounds, refused) in [
            (socket(OpenTo::ThisUser), open, true),
            (socket(OpenTo::ThisUser), proxy, true),
            (socket(OpenTo::ThisUser), user, false),
            (socket(OpenTo::Everybody), user, true),
            (port.clone(), open, true),
            (port.clone(), user, true),
            (port.clone(), proxy, false),
            (port, same_port, true),
        ] {
            let checked = check_entrances(vec![entrance.clone()], bounds);
            assert_eq!(checked.is_err(), refused, "{entrance} {bounds:?}");
        }
        check_entrances(Vec::new(), open).unwrap();
    }
}
