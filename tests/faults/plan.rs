//! What goes wrong, when and to whom: drawn from a seed, so that a run can be repeated.

use std::{collections::HashMap, time::Duration};

/// Random numbers that stay the same for a seed, whatever versions of libraries come.
#[derive(Debug, Clone)]
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `SplitMix64`.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_micros()).unwrap() + 1;
        low + Duration::from_micros(self.next() % span)
    }
}

/// How a connection that was frozen goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thaw {
    /// What was held back arrives late.
    Late,
    /// What was sent is lost, and the next packet is answered with a reset.
    Reset,
    /// What was sent is lost, and nobody ever says so.
    Never,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; another process takes the place after `back`.
    Kill { worker: usize, back: Duration },
    /// SIGSTOP for longer than a lease, then SIGCONT.
    Stop { worker: usize, length: Duration },
    /// SIGTERM; another process takes the place when it has ended.
    Terminate { worker: usize },
    /// A fast shutdown of Postgres.
    PostgresStopped { length: Duration },
    /// SIGKILL of the server's first process.
    PostgresKilled { length: Duration },
    /// All connections of a worker are reset.
    Cut { worker: usize },
    /// Nothing passes between a worker and Postgres, and neither is told.
    Freeze { worker: usize, length: Duration, thaw: Thaw },
    /// Not a byte is left on the volume of the sandboxes.
    DiskFull { length: Duration },
    /// The remote takes the next push and then fails.
    PushAccepted { remote: usize },
    /// The server ends the connection for the heartbeats of a worker and takes no new one from any
    /// worker: the role has too many.
    Refuse { worker: usize, length: Duration },
}

pub const KINDS: [&str; 10] = [
    "worker SIGKILL",
    "worker SIGSTOP past its lease",
    "worker SIGTERM",
    "Postgres stopped",
    "Postgres SIGKILL",
    "connections cut",
    "connections frozen half-open",
    "sandbox volume full",
    "push accepted, then the remote fails",
    "new connections refused",
];
/// How often each kind is drawn, out of their sum.
const WEIGHTS: [usize; 10] = [18, 10, 12, 4, 6, 18, 14, 6, 12, 8];

impl Fault {
    /// Its place in [`KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Self::Kill { .. } => 0,
            Self::Stop { .. } => 1,
            Self::Terminate { .. } => 2,
            Self::PostgresStopped { .. } => 3,
            Self::PostgresKilled { .. } => 4,
            Self::Cut { .. } => 5,
            Self::Freeze { .. } => 6,
            Self::DiskFull { .. } => 7,
            Self::PushAccepted { .. } => 8,
            Self::Refuse { .. } => 9,
        }
    }

    /// Whether it keeps the worker `worker` from renewing its leases, whatever the worker does.
    pub fn cuts_off(&self, worker: Option<usize>) -> bool {
        match *self {
            Self::Kill { worker: one, .. }
            | Self::Stop { worker: one, .. }
            | Self::Terminate { worker: one }
            | Self::Cut { worker: one }
            | Self::Freeze { worker: one, .. } => worker.is_none_or(|worker| worker == one),
            Self::PostgresStopped { .. } | Self::PostgresKilled { .. } => true,
            Self::DiskFull { .. } | Self::PushAccepted { .. } | Self::Refuse { .. } => false,
        }
    }

    /// What it breaks, which nothing else may break meanwhile, and for about how long.
    fn claims(&self, lease: Duration) -> (Part, Duration) {
        match *self {
            Self::Kill { worker, back } => (Part::Process(worker), back + lease / 2),
            Self::Stop { worker, length } => (Part::Process(worker), length + lease / 2),
            Self::Terminate { worker } => (Part::Process(worker), lease),
            Self::PostgresStopped { length } | Self::PostgresKilled { length } => {
                (Part::Postgres, length + lease * 2)
            }
            Self::Refuse { length, .. } => (Part::Postgres, length + lease),
            Self::Cut { worker } => (Part::Connections(worker), lease / 10),
            Self::Freeze { worker, length, .. } => (Part::Connections(worker), length + lease / 2),
            Self::DiskFull { length } => (Part::Disk, length + lease),
            Self::PushAccepted { remote } => (Part::Remote(remote), lease / 2),
        }
    }
}

/// What can be broken by one fault at a time. Different parts break at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Process(usize),
    Connections(usize),
    Postgres,
    Disk,
    Remote(usize),
}

/// A fault and when it happens, from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
}

/// What a plan is made for.
#[derive(Debug, Clone)]
pub struct Shape {
    pub faults: usize,
    pub workers: usize,
    pub remotes: usize,
    /// Average time from one fault to the next.
    pub every: Duration,
    pub lease: Duration,
    /// Whether connections may stay dead without a word: then whoever waits on them waits for the
    /// statement's own limit, a minute.
    pub forever: bool,
}

/// Draws a plan.
pub fn plan(seed: u64, shape: &Shape) -> Vec<Planned> {
    let mut draw = Draw::new(seed);
    let mut busy: HashMap<Part, Duration> = HashMap::new();
    let mut planned = Vec::new();
    let mut at = shape.every;
    while planned.len() < shape.faults {
        let fault = draw_fault(&mut draw, shape, planned.len());
        let (part, length) = fault.claims(shape.lease);
        if busy.get(&part).is_none_or(|until| *until <= at) {
            busy.insert(part, at + length);
            planned.push(Planned { at, fault });
            at += draw.between(shape.every / 5, shape.every * 9 / 5);
        } else {
            // The part is broken already; another draw, a little later so that there is an end.
            at += shape.every / 50;
        }
    }
    planned
}

fn draw_fault(draw: &mut Draw, shape: &Shape, number: usize) -> Fault {
    let kind = if number < KINDS.len() { number } else { weighted(draw) };
    let worker = draw.below(shape.workers);
    let lease = shape.lease;
    match kind {
        0 => Fault::Kill { worker, back: draw.between(Duration::ZERO, lease / 2) },
        1 => Fault::Stop { worker, length: draw.between(lease * 11 / 10, lease * 5 / 2) },
        2 => Fault::Terminate { worker },
        3 => Fault::PostgresStopped { length: outage(draw, lease) },
        4 => Fault::PostgresKilled { length: outage(draw, lease) },
        5 => Fault::Cut { worker },
        6 => {
            let length = draw.between(lease / 10, lease * 2);
            let thaw = match draw.below(4) {
                0 | 1 => Thaw::Late,
                2 if shape.forever => Thaw::Never,
                _ => Thaw::Reset,
            };
            Fault::Freeze { worker, length, thaw }
        }
        7 => Fault::DiskFull { length: draw.between(lease / 5, lease) },
        8 => Fault::PushAccepted { remote: draw.below(shape.remotes) },
        // Longer than a lease: a worker that could not renew would lose what it holds.
        _ => Fault::Refuse { worker, length: draw.between(lease * 3 / 2, lease * 5 / 2) },
    }
}

/// Most outages are short; one in four outlasts the lease.
fn outage(draw: &mut Draw, lease: Duration) -> Duration {
    if draw.below(4) == 0 {
        draw.between(lease, lease * 3 / 2)
    } else {
        draw.between(Duration::ZERO, lease / 3)
    }
}

fn weighted(draw: &mut Draw) -> usize {
    let mut left = draw.below(WEIGHTS.iter().sum());
    for (kind, weight) in WEIGHTS.iter().enumerate() {
        if left < *weight {
            return kind;
        }
        left -= weight;
    }
    unreachable!("the weights were summed")
}

/// A plan is the same for a seed, holds every kind, and breaks nothing twice at once.
pub fn check() {
    let shape = Shape {
        faults: 400,
        workers: 3,
        remotes: 2,
        every: Duration::from_secs(1),
        lease: Duration::from_secs(3),
        forever: true,
    };
    let one = plan(7, &shape);
    assert_eq!(one, plan(7, &shape));
    assert_ne!(one, plan(8, &shape));
    for (kind, name) in KINDS.iter().enumerate() {
        assert!(one.iter().filter(|p| p.fault.kind() == kind).count() > 3, "{name}");
    }
    let overlapping = one.windows(2).any(|two| {
        let (first, second) = (two[0].fault.claims(shape.lease), two[1].fault.claims(shape.lease));
        first.0 != second.0 && two[0].at + first.1 > two[1].at
    });
    assert!(overlapping, "different parts break at once");
}
