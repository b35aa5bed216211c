//! A range of free ports for each running order, which no other worker on this host gives away.
//!
//! A range is held by sockets with abstract names: the kernel keeps those apart for each network
//! namespace, as it does ports, and frees them with the last descriptor, however its holder ends. No
//! file is needed, so workers with different volumes, users or settings meet here too.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    ops::RangeInclusive,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixDatagram},
    },
};

/// Ports that are locked together. Ranges of any size are made of whole blocks, so that workers with
/// different settings contend for the same locks.
const BLOCK: u16 = 10;

/// The ports that orders may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPool {
    range: RangeInclusive<u16>,
    size: u16,
}

/// A range that is held until this is dropped or its process ends.
#[derive(Debug)]
pub struct PortRange {
    first: u16,
    size: u16,
    _locks: Vec<UnixDatagram>,
}

/// Why no range was handed out.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Others hold all of them, or listen there.
    #[error(
        "none of the {ranges} port ranges in {pool} is free on this host: widen AWO_PORT_RANGE, or \
         lower AWO_PORTS_PER_ORDER or AWO_MAX_CONCURRENT"
    )]
    Exhausted {
        /// How many there are.
        ranges: usize,
        /// The pool.
        pool: PortPool,
    },
    /// The kernel gave no socket.
    #[error("cannot look for free ports: {0}")]
    Socket(#[from] io::Error),
}

impl PortPool {
    /// Ranges of `size` ports within `range`, at least one of each.
    pub fn new(range: RangeInclusive<u16>, size: u16) -> Self {
        Self { range, size: size.max(1) }
    }

    /// How many orders can have a range at once.
    pub fn ranges(&self) -> usize {
        self.starts().count()
    }

    /// The first ports of all ranges. Each begins with a block, and takes whole ones.
    fn starts(&self) -> impl Iterator<Item = u16> + use<> {
        let (low, high) = (u32::from(*self.range.start()), u32::from(*self.range.end()));
        let block = u32::from(BLOCK);
        let step = u32::from(self.size).next_multiple_of(block);
        let first = low.next_multiple_of(block);
        (0..)
            .map(move |place| first + place * step)
            .take_while(move |start| start + step - 1 <= high)
            .filter_map(|start| u16::try_from(start).ok())
    }

    /// Takes a free range: the one that begins at `before` when it can be had, else the first one
    /// from a place that depends on `name`, so that an order finds the same range again. Blocks
    /// for as long as a few thousand system calls take.
    pub fn take(&self, name: &str, before: Option<u16>) -> Result<PortRange, PortError> {
        let starts: Vec<u16> = self.starts().collect();
        let ranges = starts.len();
        let from = place(name, ranges);
        let before = before.filter(|start| starts.contains(start));
        let all = (0..ranges).filter_map(|step| starts.get((from + step) % ranges).copied());
        for first in before.into_iter().chain(all) {
            if let Some(range) = PortRange::attempt(first, self.size)? {
                return Ok(range);
            }
        }
        Err(PortError::Exhausted { ranges, pool: self.clone() })
    }
}

impl fmt::Display for PortPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.range.start(), self.range.end())
    }
}

/// A place below `places` that depends on nothing but the name (FNV-1a).
fn place(name: &str, places: usize) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let places = u64::try_from(places.max(1)).unwrap_or(1);
    usize::try_from(hash % places).unwrap_or_default()
}

impl PortRange {
    /// The range when no other worker holds a part of it and nobody listens in it.
    fn attempt(first: u16, size: u16) -> io::Result<Option<Self>> {
        let mut locks = Vec::new();
        for block in (first..first.saturating_add(size)).step_by(usize::from(BLOCK)) {
            match lock(block)? {
                Some(lock) => locks.push(lock),
                None => return Ok(None),
            }
        }
        let range = Self { first, size, _locks: locks };
        for port in range.ports() {
            if !is_free(port)? {
                return Ok(None);
            }
        }
        Ok(Some(range))
    }

    /// The first port.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(&self) -> u16 {
        self.first + (self.size - 1)
    }

    /// All ports.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.first()..=self.last()
    }

    /// The variables that tell an agent, and what it starts, about its ports.
    pub fn environment(&self) -> Vec<(String, String)> {
        let named = [
            ("PORT", self.first),
            ("PORT_RANGE_START", self.first),
            ("PORT_RANGE_END", self.last()),
            ("PORT_RANGE_SIZE", self.size),
        ];
        let named = named.into_iter().map(|(name, value)| (name.to_owned(), value.to_string()));
        let each = self.ports().enumerate();
        named.chain(each.map(|(at, port)| (format!("PORT_{at}"), port.to_string()))).collect()
    }

    /// The same as a file that shells and dotenv readers understand.
    pub fn file(&self) -> String {
        let lines = self.environment().into_iter().map(|(name, value)| format!("{name}={value}\n"));
        let head = "# The ports of this work order, made by archon-awo; never committed.\n";
        std::iter::once(head.to_owned()).chain(lines).collect()
    }
}

/// The lock of a block, `None` when somebody in this network namespace holds it.
fn lock(block: u16) -> io::Result<Option<UnixDatagram>> {
    let address = UnixAddress::from_abstract_name(format!("archon-awo.ports.{block}"))?;
    match UnixDatagram::bind_addr(&address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a server could listen on this port now, on any address of the host.
fn is_free(port: u16) -> io::Result<bool> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    for address in [v4, v6] {
        let tcp = TcpListener::bind(address).map(drop);
        for bound in [tcp, UdpSocket::bind(address).map(drop)] {
            match bound.map_err(|error| (error.kind(), error)) {
                Ok(()) => {}
                Err((ErrorKind::AddrInUse | ErrorKind::PermissionDenied, _)) => return Ok(false),
                // A host without IPv6 has nobody who listens there.
                Err((ErrorKind::AddrNotAvailable | ErrorKind::Unsupported, _))
                    if address.is_ipv6() => {}
                Err((_, error)) if address.is_ipv6() && no_ipv6(&error) => {}
                Err((_, error)) => return Err(error),
            }
        }
    }
    Ok(true)
}

fn no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

#[cfg(test)]
mod tests {
    use super::PortPool;

    #[test]
    fn ranges_begin_with_a_block_and_stay_within_the_pool() {
        let starts = |low, high, size| PortPool::new(low..=high, size).starts().collect::<Vec<_>>();
        assert_eq!(starts(20_000, 20_029, 10), [20_000, 20_010, 20_020]);
        assert_eq!(starts(20_001, 20_029, 3), [20_010, 20_020]);
        assert_eq!(starts(20_000, 20_059, 25), [20_000, 20_030]);
        assert_eq!(starts(65_500, 65_535, 10), [65_500, 65_510, 65_520]);
        assert_eq!(starts(20_001, 20_009, 1), Vec::<u16>::new());
    }
}
