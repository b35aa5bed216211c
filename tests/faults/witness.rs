//! Sees every agent process live, outside the database and outside its sandbox: each sends a
//! datagram every few milliseconds for as long as it runs.

use std::{
    collections::{BTreeSet, HashMap},
    net::UdpSocket,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};

/// Time since the host started, which all processes share.
pub fn now() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap())
}

/// What a process says with each tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    pub order: String,
    pub step: String,
    pub attempt: i32,
    pub run: String,
    pub pid: u32,
    pub at: Duration,
}

impl Tick {
    pub fn line(&self) -> String {
        let Self { order, step, attempt, run, pid, at } = self;
        format!("{order} {step} {attempt} {run} {pid} {}", at.as_nanos())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').map(str::to_owned);
        Some(Self {
            order: words.next()?,
            step: words.next()?,
            attempt: words.next()?.parse().ok()?,
            run: words.next()?,
            pid: words.next()?.parse().ok()?,
            at: Duration::from_nanos(words.next()?.parse().ok()?),
        })
    }
}

/// The life of one run of an agent, all of its processes together.
#[derive(Debug, Clone)]
pub struct Life {
    pub order: String,
    pub step: String,
    pub attempt: i32,
    pub run: String,
    pub first: Duration,
    pub last: Duration,
    pub ticks: u64,
    pub pids: BTreeSet<u32>,
}

/// Collects ticks until the program ends.
#[derive(Clone)]
pub struct Witness {
    pub port: u16,
    lives: Arc<Mutex<HashMap<String, Life>>>,
    /// The wall clock when the host's clock was zero.
    epoch: Duration,
}

impl Witness {
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let lives = Arc::<Mutex<HashMap<String, Life>>>::default();
        let seen = Arc::clone(&lives);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                let tick = std::str::from_utf8(&buffer[..length]).ok().and_then(Tick::parse);
                if let Some(tick) = tick {
                    note(&mut seen.lock().unwrap(), tick);
                }
            }
        });
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let epoch = wall.saturating_sub(now());
        Self { port, lives, epoch }
    }

    /// Every life so far, by order and beginning.
    pub fn lives(&self) -> Vec<Life> {
        let mut lives: Vec<Life> = self.lives.lock().unwrap().values().cloned().collect();
        lives.sort_by(|a, b| (&a.order, a.first).cmp(&(&b.order, b.first)));
        lives
    }

    /// A time of the database as one of this clock.
    pub fn at(&self, wall_seconds: f64) -> Duration {
        Duration::from_secs_f64(wall_seconds).saturating_sub(self.epoch)
    }
}

fn note(lives: &mut HashMap<String, Life>, tick: Tick) {
    let Tick { order, step, attempt, run, pid, at } = tick;
    let life = lives.entry(run.clone()).or_insert_with(|| Life {
        order,
        step,
        attempt,
        run,
        first: at,
        last: at,
        ticks: 0,
        pids: BTreeSet::new(),
    });
    life.first = life.first.min(at);
    life.last = life.last.max(at);
    life.ticks += 1;
    life.pids.insert(pid);
}

/// Runs of one order of which the earlier still lived when the later had begun; `lives` as
/// [`Witness::lives`] answers them.
pub fn overlaps(lives: &[Life]) -> Vec<String> {
    let mut found = Vec::new();
    let mut latest: Option<&Life> = None;
    for life in lives {
        match latest {
            Some(before) if before.order == life.order => {
                if before.last > life.first {
                    found.push(format!(
                        "{}: {} of run {} (processes {:?}) lived for {:?} beside {} of run {} ({:?})",
                        life.order, before.step, before.run, before.pids,
                        before.last.saturating_sub(life.first), life.step, life.run, life.pids
                    ));
                }
                if life.last > before.last {
                    latest = Some(life);
                }
            }
            _ => latest = Some(life),
        }
    }
    found
}

/// The witness tells an overlap from a change of owner.
pub fn check() {
    let tick = |order: &str, run: &str, at: u64| Tick {
        order: order.to_owned(),
        step: "execute".to_owned(),
        attempt: 1,
        run: run.to_owned(),
        pid: 1,
        at: Duration::from_millis(at),
    };
    let line = tick("wo-1", "r", 5).line();
    assert_eq!(Tick::parse(&line), Some(tick("wo-1", "r", 5)));
    let count = |ticks: &[(&str, &str, u64)]| {
        let mut lives = HashMap::new();
        for (order, run, at) in ticks {
            note(&mut lives, tick(order, run, *at));
        }
        let mut lives: Vec<Life> = lives.into_values().collect();
        lives.sort_by(|a, b| (&a.order, a.first).cmp(&(&b.order, b.first)));
        overlaps(&lives).len()
    };
    assert_eq!(count(&[("a", "1", 0), ("a", "1", 20), ("a", "2", 21), ("b", "3", 5)]), 0);
    assert_eq!(count(&[("a", "1", 0), ("a", "2", 10), ("a", "1", 20)]), 1, "interleaved");
    assert_eq!(
        count(&[("a", "1", 0), ("a", "2", 10), ("a", "2", 15), ("a", "3", 17), ("a", "1", 99)]),
        2
    );

    // And by the way that agents take.
    let witness = Witness::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(line.as_bytes(), ("127.0.0.1", witness.port)).unwrap();
    let heard = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        witness.lives().len() == 1
    });
    assert!(heard, "a tick must arrive");
}
