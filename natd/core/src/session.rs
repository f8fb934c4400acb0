//! What is remembered: mappings, the sessions on them, the devices they belong to.

use core::net::Ipv4Addr;

use crate::expiry::Second;
use crate::flow::{Direction, Endpoint, Protocol, Tuple};
use crate::slab::Index;
use crate::tcp::{Connection, Phase};
use crate::time::Timestamp;

/// Why a mapping exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A device spoke first.
    Dynamic,
    /// The owner's port forward, or the exposed host: open to everyone.
    Forwarded,
    /// The router's own socket; filtering is the kernel's business.
    Router,
}

/// Ties an internal endpoint to an external one (RFC 4787 section 4).
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) protocol: Protocol,
    pub(crate) kind: Kind,
    pub(crate) internal: Endpoint,
    pub(crate) external: Endpoint,
    pub(crate) device: Index,
    /// Head of the list of its sessions.
    pub(crate) sessions: Index,
    /// How many there are.
    pub(crate) count: u32,
    /// On how many of them the device has spoken: without any, a dynamic mapping ends.
    pub(crate) spoken: u32,
}

/// A conversation with one remote endpoint: what is read and written for each of its packets, on two cache
/// lines. The rest is in [`crate::tables`].
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Session {
    /// What outbound packets show before translation.
    pub(crate) outbound: Tuple,
    /// What stands in place of its source after translation.
    pub(crate) external: Endpoint,
    /// Who began.
    pub(crate) origin: Direction,
    /// The device has sent.
    pub(crate) spoken: bool,
    /// The remote has sent.
    pub(crate) answered: bool,
    /// Conntrack's entry is believed to exist.
    pub(crate) kernel_known: bool,
    pub(crate) mapping: Index,
    pub(crate) device: Index,
    /// The bucket that counts.
    pub(crate) bucket: Second,
    pub(crate) last_seen: Timestamp,
    pub(crate) deadline: Timestamp,
    /// Outbound, inbound.
    pub(crate) packets: [u32; 2],
    pub(crate) bytes: [u64; 2],
    pub(crate) tcp: Connection,
}

impl Session {
    /// What inbound packets show before translation.
    #[inline]
    pub(crate) fn inbound(&self) -> Tuple {
        Tuple { protocol: self.outbound.protocol, src: self.outbound.dst, dst: self.external }
    }

    /// What a packet in `direction` shows after translation.
    #[inline]
    pub(crate) fn translated(&self, direction: Direction) -> Tuple {
        match direction {
            Direction::Outbound => self.inbound().reverse(),
            Direction::Inbound => self.outbound.reverse(),
        }
    }

    /// What a packet in `direction` shows before translation.
    #[inline]
    pub(crate) fn shown(&self, direction: Direction) -> Tuple {
        match direction {
            Direction::Outbound => self.outbound,
            Direction::Inbound => self.inbound(),
        }
    }

    pub(crate) fn state(&self) -> SessionState {
        if self.outbound.protocol == Protocol::Tcp {
            return match self.tcp.phase() {
                Phase::Opening => SessionState::Opening,
                Phase::Established => SessionState::Established,
                Phase::Closing => SessionState::Closing,
                Phase::Reset => SessionState::Reset,
            };
        }
        if self.spoken && self.answered { SessionState::Replied } else { SessionState::New }
    }
}

/// A host on the LAN side, or the router itself.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) addr: Ipv4Addr,
    pub(crate) router: bool,
    pub(crate) sessions: u32,
    /// Those of them that strangers began and the device has not answered.
    pub(crate) unanswered: u32,
    pub(crate) refused: u64,
    pub(crate) last_seen: Timestamp,
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// One side has sent (UDP, ICMP).
    New,
    /// Both sides have sent (UDP, ICMP).
    Replied,
    /// TCP, before both SYNs are acknowledged.
    Opening,
    /// TCP, open.
    Established,
    /// TCP, both sides sent FIN.
    Closing,
    /// TCP, reset.
    Reset,
}

impl SessionState {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Replied => "replied",
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Reset => "reset",
        }
    }
}

/// A session as reported: endpoints, state, times and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The device's endpoint.
    pub internal: Endpoint,
    /// The endpoint on the WAN address.
    pub external: Endpoint,
    /// The peer.
    pub remote: Endpoint,
    /// Who began.
    pub origin: Direction,
    /// Does it belong to the router itself?
    pub router: bool,
    /// What it is doing.
    pub state: SessionState,
    /// When it began.
    pub created: Timestamp,
    /// Its last packet.
    pub last_seen: Timestamp,
    /// When it ends unless another packet comes.
    pub deadline: Timestamp,
    /// Packets outbound and inbound.
    pub packets: [u32; 2],
    /// Bytes outbound and inbound.
    pub bytes: [u64; 2],
}

/// A device as reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// Its address.
    pub addr: Ipv4Addr,
    /// Is it the router itself?
    pub router: bool,
    /// Live sessions.
    pub sessions: u32,
    /// Sessions that were refused.
    pub refused: u64,
    /// Packets outbound and inbound.
    pub packets: [u64; 2],
    /// Bytes outbound and inbound.
    pub bytes: [u64; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_fills_two_cache_lines() {
        assert_eq!(size_of::<Option<Session>>(), 128);
    }
}
