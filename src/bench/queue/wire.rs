//! A door in front of the server that counts the statements that pass through it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

/// Messages of a client that make the server run a statement: Query and Execute.
const STATEMENTS: [u8; 2] = [b'Q', b'E'];

/// A proxy on the loopback interface; it ends when dropped.
pub struct Wire {
    /// Where clients connect, without TLS.
    pub address: SocketAddr,
    count: Arc<AtomicU64>,
    _accepting: JoinSet<()>,
}

impl Wire {
    /// Forwards to the server at `host` and `port`.
    pub async fn open(host: String, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let count = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&count);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (host, counting) = (host.clone(), Arc::clone(&counting));
                connections.spawn(async move {
                    // Either side may hang up; the other notices.
                    let _ = forward(client, &host, port, &counting).await;
                });
            }
        });
        Ok(Self { address, count, _accepting: accepting })
    }

    /// Statements so far.
    pub fn statements(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

async fn forward(client: TcpStream, host: &str, port: u16, count: &AtomicU64) -> io::Result<()> {
    let server = TcpStream::connect((host, port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    tokio::select! {
        sent = counted(from_client, to_server, count) => sent,
        answered = copy(&mut from_server, &mut to_client) => answered.map(drop),
    }
}

/// Passes the client's messages on. The first has no type: it opens the session.
async fn counted(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut opened = false;
    loop {
        if opened {
            let kind = client.read_u8().await?;
            if STATEMENTS.contains(&kind) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            server.write_u8(kind).await?;
        }
        opened = true;
        let length = client.read_u32().await?;
        server.write_u32(length).await?;
        let mut body = (&mut client).take(u64::from(length).saturating_sub(4));
        copy(&mut body, &mut server).await?;
    }
}
