//! seccomp: the ways out beside TCP's own `connect`, which is the one that Landlock's rule about ports sees.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompRule,
};
use serde::{Deserialize, Serialize};

/// Which sockets an agent may have that reaches one port alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Datagrams {
    /// None for the internet: its proxy is told by its number.
    Refused,
    /// UDP: without it nobody finds out the number of the proxy.
    Udp,
}

/// Kinds of sockets that stay what they are: those of this host, and the list of its own addresses.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The types of sockets beside streams that the kernel knows.
const TYPES: [libc::c_int; 5] =
    [libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP];

/// The bits of a type that are not flags.
const TYPE_BITS: u64 = 0xf;

/// Where the flags of a call stand that sends; with one of them it connects besides.
const SENDING: [(libc::c_long, u8); 3] =
    [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// Sockets that connect past Landlock: MPTCP, SMC, SCTP and whatever is not TCP. They are answered as on a
/// kernel without them, so programs fall back to TCP.
pub fn kinds(datagrams: Datagrams) -> Result<Rules, BackendError> {
    let mut refused = vec![rule(&FAMILIES.map(|family| (0, SeccompCmpOp::Ne, number(family))))?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = (0, SeccompCmpOp::Eq, number(family));
        let of = |kind: libc::c_int| (1, SeccompCmpOp::MaskedEq(TYPE_BITS), number(kind));
        let other_than = |kind, protocol: libc::c_int| {
            let standard = (2, SeccompCmpOp::Ne, 0);
            rule(&[family.clone(), of(kind), standard, (2, SeccompCmpOp::Ne, number(protocol))])
        };
        refused.push(other_than(libc::SOCK_STREAM, libc::IPPROTO_TCP)?);
        for kind in TYPES {
            refused.push(match (kind, datagrams) {
                (libc::SOCK_DGRAM, Datagrams::Udp) => other_than(kind, libc::IPPROTO_UDP)?,
                _ => rule(&[family.clone(), of(kind)])?,
            });
        }
    }
    Ok(BTreeMap::from([(libc::SYS_socket, refused)]))
}

/// Sending that connects: TCP Fast Open. Programs then connect first.
pub fn fast_open() -> Result<Rules, BackendError> {
    let flag = number(libc::MSG_FASTOPEN);
    SENDING
        .map(|(call, argument)| {
            Ok((call, vec![rule(&[(argument, SeccompCmpOp::MaskedEq(flag), flag)])?]))
        })
        .into_iter()
        .collect()
}

fn number(value: libc::c_int) -> u64 {
    u64::from(value.unsigned_abs())
}

fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions
        .iter()
        .map(|(argument, how, value)| SeccompCondition::new(*argument, Dword, how.clone(), *value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
