//! The one door through which git and git-lfs reach servers: a proxy on this host that lives as long as one
//! command and connects to allowed hosts alone.
//!
//! An address is checked before git gets it, and then the server may answer with another one: a redirect, or
//! where the contents of Git LFS are. Neither program can be told which hosts it may follow to.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{GitError, GitSettings, Remote, lfs::LFS};
use crate::domain::Scheme;

/// Longest wait for a server to take a connection.
const CONNECT: Duration = Duration::from_mins(1);
/// Longest request for a connection, in bytes, and how long it may take.
const LONGEST_HEAD: usize = 8 << 10;
const TIME_TO_ASK: Duration = Duration::from_secs(10);
/// Wait after the system had nothing left for one more connection.
const SHORTAGE: Duration = Duration::from_millis(100);

/// Why a connection was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closed {
    /// Its host is none that may be reached; with its port where that is not 443.
    Host(String),
    /// The system's words for what went wrong.
    Failed(String),
}

/// An open door. It closes, with all connections through it, when this is dropped.
pub(super) struct Gate {
    port: u16,
    hosts: Arc<Vec<String>>,
    closed: Arc<Mutex<Option<Closed>>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// The door that a command of git needs to reach `remote`; none where that is a folder.
    pub(super) async fn of(
        settings: &GitSettings,
        verb: &str,
        remote: Option<&Remote>,
    ) -> Result<Option<Self>, GitError> {
        let Some(remote) = remote.filter(|remote| remote.url.scheme() == Scheme::Https) else {
            return Ok(None);
        };
        let mut hosts = settings.remotes.allowed_hosts.clone();
        hosts.push(remote.url.host().to_owned());
        if verb == LFS {
            hosts.extend(settings.lfs_hosts.iter().cloned());
        }
        let failed = |error| GitError::Unreachable {
            url: remote.url.to_string(),
            detail: format!("no port of this host can be opened for git: {error}"),
        };
        Ok(Some(Self::open(hosts).await.map_err(failed)?))
    }

    /// Opens one that leads to `hosts`, each with `:port` where that is not 443.
    async fn open(hosts: Vec<String>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let closed = Arc::new(Mutex::new(None));
        let hosts = Arc::new(hosts);
        let task = tokio::spawn(take(listener, Arc::clone(&hosts), Arc::clone(&closed)));
        Ok(Self { port, hosts, closed, task })
    }

    /// Its port on the loopback address.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// All ports that a program may connect to which goes past proxies where a host is on loopback: its own,
    /// and those of such hosts that are allowed.
    pub(super) fn ports(&self) -> Vec<u16> {
        let near = self.hosts.iter().filter_map(|host| {
            let (name, port) = host.rsplit_once(':').unwrap_or((host, "443"));
            let number = name.trim_matches(['[', ']']).parse::<IpAddr>();
            let is_near = name == "localhost" || number.is_ok_and(|number| number.is_loopback());
            is_near.then(|| port.parse().ok())?
        });
        std::iter::once(self.port).chain(near).collect()
    }

    /// The first connection that was not made, if any; what a server may not be asked for comes first.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(listener: TcpListener, hosts: Arc<Vec<String>>, closed: Arc<Mutex<Option<Closed>>>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (hosts, closed) = (Arc::clone(&hosts), Arc::clone(&closed));
                    connections.spawn(async move {
                        if let Err(reason) = lead(stream, &hosts).await {
                            note(&closed, reason);
                        }
                    });
                }
                Err(_) => tokio::time::sleep(SHORTAGE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn note(closed: &Mutex<Option<Closed>>, reason: Closed) {
    let mut known = closed.lock().unwrap_or_else(PoisonError::into_inner);
    if !matches!(*known, Some(Closed::Host(_))) {
        *known = Some(reason);
    }
}

/// Connects `client` with the server it names, if that is allowed.
async fn lead(mut client: TcpStream, hosts: &[String]) -> Result<(), Closed> {
    let failed = |error: io::Error| Closed::Failed(error.to_string());
    let Some(target) = timeout(TIME_TO_ASK, asked(&mut client)).await.ok().flatten() else {
        // Git asks for nothing else.
        refuse(&mut client, "405 Method Not Allowed").await;
        return Ok(());
    };
    let named = target.strip_suffix(":443").unwrap_or(&target);
    if !hosts.iter().any(|host| host == named) {
        refuse(&mut client, "403 Forbidden").await;
        return Err(Closed::Host(named.to_owned()));
    }
    let server = timeout(CONNECT, TcpStream::connect(&target)).await;
    let mut server = match server.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(server) => server,
        Err(error) => {
            refuse(&mut client, "502 Bad Gateway").await;
            return Err(Closed::Failed(format!("cannot connect to {named}: {error}")));
        }
    };
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.map_err(failed)?;
    // How it ends is for the two to tell each other.
    let _ = copy_bidirectional(&mut client, &mut server).await;
    Ok(())
}

async fn refuse(client: &mut TcpStream, status: &str) {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    // Whoever asked may be gone.
    let _ = client.write_all(answer.as_bytes()).await;
}

/// The host and port that a request for a connection names, in lower case; nothing for any other request.
async fn asked(client: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    // Byte by byte: what follows belongs to the server.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LONGEST_HEAD || client.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = std::str::from_utf8(&head).ok()?;
    let target = head.lines().next()?.strip_prefix("CONNECT ")?.split(' ').next()?;
    target.contains(':').then(|| target.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::{Closed, Gate};

    async fn ask(gate: &Gate, request: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", gate.port())).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        (stream, String::from_utf8_lossy(&answer).into_owned())
    }

    #[tokio::test]
    async fn it_leads_to_allowed_hosts_alone_and_closes_when_it_is_dropped() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let gate = Gate::open(vec![format!("127.0.0.1:{port}")]).await.unwrap();
        for request in ["GET http://127.0.0.1/ HTTP/1.1\r\n\r\n", "CONNECT x HTTP/1.1\r\n\r\n"] {
            assert_eq!(ask(&gate, request).await.1, "HTTP/1.1 405");
        }
        assert_eq!(gate.closed(), None);
        let (mut open, answer) =
            ask(&gate, &format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(answer, "HTTP/1.1 200");
        let (mut peer, _) = server.accept().await.unwrap();
        let other = format!("CONNECT localhost:{port} HTTP/1.1\r\n\r\n");
        assert_eq!(ask(&gate, &other).await.1, "HTTP/1.1 403");
        assert_eq!(gate.closed(), Some(Closed::Host(format!("localhost:{port}"))));
        drop(gate);
        let mut rest = Vec::new();
        open.read_to_end(&mut rest).await.unwrap();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let gate = Gate::open(vec![format!("127.0.0.1:{port}"), "127.0.0.1".into()]).await.unwrap();
        let request = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n");
        assert_eq!(ask(&gate, &request).await.1, "HTTP/1.1 502");
        assert!(
            matches!(gate.closed(), Some(Closed::Failed(reason)) if reason.contains("refused"))
        );
    }
}
