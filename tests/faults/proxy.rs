//! The way of one worker to Postgres: a proxy on loopback that can cut it, or let it go silent.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::plan::Thaw;

/// What happens to the bytes now. Each change has a number of its own, so that a connection knows
/// whether it was there during a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing passes; `swallow`: it is lost as well.
    Silent {
        swallow: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Line {
    state: State,
    /// Connections with a lower number than this are reset.
    reset_below: u64,
}

/// A running proxy.
pub struct Proxy {
    pub port: u16,
    line: watch::Sender<Line>,
    made: Arc<AtomicU64>,
    /// The server knows its connections by these ports.
    ports: Ports,
}

type Ports = Arc<Mutex<Vec<u16>>>;

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (line, watching) = watch::channel(Line { state: State::Open, reset_below: 0 });
        let made = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&made);
        let ports = Ports::default();
        let seen = Arc::clone(&ports);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, target, number, watching.clone(), Arc::clone(&seen)));
            }
        });
        Self { port, line, made, ports }
    }

    /// The ports of all connections to the server so far, as it sees them.
    pub fn server_ports(&self) -> Vec<i32> {
        self.ports.lock().unwrap().iter().copied().map(i32::from).collect()
    }

    /// Resets every connection.
    pub fn cut(&self) {
        let made = self.made.load(Ordering::SeqCst);
        self.line.send_modify(|line| line.reset_below = made);
    }

    /// Lets nothing pass from now on, and says nothing.
    pub fn freeze(&self, thaw: Thaw) {
        let swallow = thaw != Thaw::Late;
        self.line.send_modify(|line| line.state = State::Silent { swallow });
    }

    /// Ends the silence. What was lost stays lost.
    pub fn thaw(&self, thaw: Thaw) {
        if thaw == Thaw::Reset {
            self.cut();
        }
        self.line.send_modify(|line| line.state = State::Open);
    }
}

async fn carry(
    client: TcpStream,
    target: SocketAddr,
    number: u64,
    line: watch::Receiver<Line>,
    ports: Ports,
) {
    // A server that is not there refuses, also through here.
    let Ok(server) = TcpStream::connect(target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    ports.lock().unwrap().extend(server.local_addr().map(|address| address.port()));
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _ = (client.set_zero_linger(), server.set_zero_linger());
    let (client_in, mut client_out) = client.into_split();
    let (server_in, mut server_out) = server.into_split();
    tokio::select! {
        () = pump(client_in, &mut server_out, number, line.clone()) => {}
        () = pump(server_in, &mut client_out, number, line) => {}
    }
    // With linger off and without a goodbye, closing is a reset for whoever still talks.
    client_out.forget();
    server_out.forget();
}

async fn pump(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    number: u64,
    mut line: watch::Receiver<Line>,
) {
    let mut buffer = vec![0; 16 * 1024];
    // Bytes are missing: whatever follows is not to be understood, so it goes the same way.
    let mut dead = false;
    loop {
        let now = *line.borrow_and_update();
        if number < now.reset_below {
            return;
        }
        if now.state == (State::Silent { swallow: true }) {
            dead = true;
        }
        if now.state == (State::Silent { swallow: false }) {
            if line.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = line.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) if dead => {
                    // This side has given up; the other one is not told while the line is dead.
                    dead_end(&mut line, number).await;
                    return;
                }
                Ok(0) | Err(_) => {
                    let _ = to.shutdown().await;
                    return;
                }
                Ok(_) if dead => {}
                Ok(length) => if to.write_all(&buffer[..length]).await.is_err() { return },
            }
        }
    }
}

/// Waits until the silence is over.
async fn dead_end(line: &mut watch::Receiver<Line>, number: u64) {
    loop {
        let now = *line.borrow_and_update();
        if now.state == State::Open || number < now.reset_below || line.changed().await.is_err() {
            return;
        }
    }
}

/// The proxy passes, holds back, loses and cuts.
pub async fn check() {
    use std::time::Duration;
    use tokio::time::timeout;

    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = echo.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let proxy = Proxy::start(target).await;
    let connect = || async { TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap() };
    let short = Duration::from_millis(150);
    let mut byte = [0];

    let mut one = connect().await;
    one.write_all(b"a").await.unwrap();
    assert_eq!(one.read(&mut byte).await.unwrap(), 1);
    proxy.freeze(Thaw::Late);
    one.write_all(b"b").await.unwrap();
    assert!(timeout(short, one.read(&mut byte)).await.is_err(), "silent");
    proxy.thaw(Thaw::Late);
    assert_eq!(timeout(short * 10, one.read(&mut byte)).await.unwrap().unwrap(), 1);
    assert_eq!(byte, *b"b", "what was held back arrives");

    proxy.freeze(Thaw::Never);
    one.write_all(b"c").await.unwrap();
    assert!(timeout(short, one.read(&mut byte)).await.is_err(), "silent");
    proxy.thaw(Thaw::Never);
    assert!(timeout(short, one.read(&mut byte)).await.is_err(), "lost for good");
    let mut two = connect().await;
    two.write_all(b"d").await.unwrap();
    assert_eq!(two.read(&mut byte).await.unwrap(), 1, "new connections pass");
    proxy.cut();
    let cut = timeout(short * 10, two.read(&mut byte)).await.unwrap();
    assert!(cut.is_err(), "a reset, not an end: {cut:?}");
}
