//! What the engine answers: values that the daemon carries out.

use core::net::Ipv4Addr;
use core::time::Duration;

use crate::flow::Tuple;

/// What the kernel left open in a packet's transport checksum; the matrix is in the module documentation
/// of [`crate::decision`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumState {
    /// The checksum is complete: adjust it by the difference (RFC 1624).
    #[default]
    Complete,
    /// The sender left it to its hardware: compute it over the whole payload.
    Partial,
    /// The same, and the packet is a train of segments (GSO): write the un-complemented pseudo-header sum.
    PartialGso,
}

/// How far a TCP connection is, as far as the kernel's conntrack needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpProgress {
    /// The packet about to be released is its SYN.
    Opening,
    /// It carries data.
    Established,
}

/// A conntrack entry, in the LAN's view, that must exist before a packet is released, so that a stateful
/// firewall takes the packet for part of an established flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The flow's original direction as conntrack sees it: internal and remote endpoints, never the WAN's.
    pub original: Tuple,
    /// For TCP: how far the connection is.
    pub tcp: Option<TcpProgress>,
    /// The entry's timeout if it is created.
    pub timeout: Duration,
}

/// A flow that the kernel's conntrack knows, read at start to take it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFlow {
    /// Original direction: as the first packet was before any kernel NAT.
    pub original: Tuple,
    /// What an answer looks like on the wire; differs from `original.reverse()` where the kernel translates.
    pub reply: Tuple,
    /// Source NAT by the kernel (`IPS_SRC_NAT`).
    pub snat: bool,
    /// Destination NAT by the kernel (`IPS_DST_NAT`).
    pub dnat: bool,
    /// Packets were seen both ways (`IPS_SEEN_REPLY`).
    pub replied: bool,
    /// For TCP: is it established?
    pub tcp: Option<TcpProgress>,
    /// Time left.
    pub timeout: Duration,
}

/// An address of the router itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub addr: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
}
