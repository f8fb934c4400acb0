//! The words for what a packet shows on the wire: protocol, endpoints, tuple, direction.

use core::fmt;
use core::net::Ipv4Addr;

/// Which way a packet crosses the NAT (RFC 2663 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the LAN to the WAN.
    Outbound,
    /// From the WAN to the LAN.
    Inbound,
}

impl Direction {
    /// The opposite direction.
    pub const fn reverse(self) -> Self {
        match self {
            Self::Outbound => Self::Inbound,
            Self::Inbound => Self::Outbound,
        }
    }
}

/// A transport protocol that the NAT translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP; identifiers are ports.
    Tcp,
    /// UDP; identifiers are ports.
    Udp,
    /// ICMP queries (RFC 5508 section 3); the identifier is the query id.
    Icmp,
}

impl Protocol {
    /// Every protocol, in the order of [`Protocol::index`].
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// The protocol number of the IPv4 header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp => 1,
        }
    }

    /// A dense index for tables with one entry a protocol.
    pub const fn index(self) -> usize {
        match self {
            Self::Tcp => 0,
            Self::Udp => 1,
            Self::Icmp => 2,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

/// What tells several conversations of one address apart: a port or an ICMP query id, in host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(pub u16);

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address and the identifier behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The IPv4 address.
    pub addr: Ipv4Addr,
    /// Port or ICMP query id.
    pub id: Identifier,
}

impl Endpoint {
    /// The endpoint `addr:id`, with `id` in host byte order.
    pub const fn new(addr: Ipv4Addr, id: u16) -> Self {
        Self { addr, id: Identifier(id) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.addr, self.id)
    }
}

/// What one packet shows on the wire.
///
/// An ICMP query has its id on the side of the host that asked; the other side's identifier is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source.
    pub src: Endpoint,
    /// Destination.
    pub dst: Endpoint,
}

impl Tuple {
    /// The tuple of an answer to this packet, as the same observer would see it.
    pub const fn reverse(self) -> Self {
        Self { protocol: self.protocol, src: self.dst, dst: self.src }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → {}", self.protocol, self.src, self.dst)
    }
}
