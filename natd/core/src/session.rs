//! What is remembered: mappings, the sessions on them, the devices they belong to.

use core::net::Ipv4Addr;
use core::num::NonZeroU16;

use crate::flow::{Direction, Endpoint, Identifier, Protocol, Tuple};
use crate::slab::Index;
use crate::tally::Tally;
use crate::tcp::{Connection, Phase};
use crate::time::{Tick, Timestamp};

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

/// A conversation with one remote endpoint: what is read and written for each of its packets, on one cache
/// line. With many flows, a further line would be a further wait for memory. The rest, and the external address,
/// which all sessions have in common, is in [`crate::tables`].
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Session {
    internal_addr: Ipv4Addr,
    remote_addr: Ipv4Addr,
    internal_id: Identifier,
    remote_id: Identifier,
    external_id: Identifier,
    pub(crate) device: DeviceNumber,
    /// Rounded down.
    pub(crate) last_seen: Tick,
    /// Rounded up.
    pub(crate) deadline: Tick,
    /// Outbound, inbound: what is not in the larger counts yet.
    pub(crate) tallies: [Tally; 2],
    pub(crate) tcp: Connection,
    /// The protocol's index, and above it [`FROM_OUTSIDE`] to [`KERNEL_KNOWN`].
    marks: u8,
}

const PROTOCOL: u8 = 0b11;
/// The remote began.
const FROM_OUTSIDE: u8 = 1 << 2;
/// The session is the router's own.
const ROUTER: u8 = 1 << 3;
/// The device has sent.
const SPOKEN: u8 = 1 << 4;
/// The remote has sent.
const ANSWERED: u8 = 1 << 5;
/// Conntrack's entry is believed to exist.
const KERNEL_KNOWN: u8 = 1 << 6;

impl Session {
    /// A session that begins at `now` with what `outbound` shows before translation, and `external` in place of
    /// its source's identifier after it.
    pub(crate) fn new(
        now: Timestamp,
        outbound: &Tuple,
        external: Identifier,
        origin: Direction,
        device: DeviceNumber,
        kind: Kind,
    ) -> Self {
        let protocol = match outbound.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Icmp => 2,
        };
        let origin = if origin == Direction::Inbound { FROM_OUTSIDE } else { 0 };
        let router = if kind == Kind::Router { ROUTER } else { 0 };
        Self {
            internal_addr: outbound.src.addr,
            remote_addr: outbound.dst.addr,
            internal_id: outbound.src.id,
            remote_id: outbound.dst.id,
            external_id: external,
            device,
            last_seen: Tick::before(now),
            deadline: Tick::after(now),
            tallies: Default::default(),
            tcp: Connection::default(),
            marks: protocol | origin | router,
        }
    }

    #[inline]
    pub(crate) const fn protocol(&self) -> Protocol {
        match self.marks & PROTOCOL {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            _ => Protocol::Icmp,
        }
    }

    /// Who began.
    pub(crate) const fn origin(&self) -> Direction {
        if self.has(FROM_OUTSIDE) { Direction::Inbound } else { Direction::Outbound }
    }

    /// Is it the router's own?
    pub(crate) const fn is_routers(&self) -> bool {
        self.has(ROUTER)
    }

    /// Has the device sent?
    #[inline]
    pub(crate) const fn is_spoken(&self) -> bool {
        self.has(SPOKEN)
    }

    pub(crate) const fn set_spoken(&mut self) {
        self.marks |= SPOKEN;
    }

    /// The remote has sent if it had before or `now`.
    #[inline]
    pub(crate) const fn set_answered(&mut self, now: bool) {
        if now {
            self.marks |= ANSWERED;
        }
    }

    /// Is conntrack's entry believed to exist?
    #[inline]
    pub(crate) const fn is_kernel_known(&self) -> bool {
        self.has(KERNEL_KNOWN)
    }

    #[inline]
    pub(crate) const fn set_kernel_known(&mut self, known: bool) {
        self.marks = if known { self.marks | KERNEL_KNOWN } else { self.marks & !KERNEL_KNOWN };
    }

    #[inline]
    const fn has(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    #[inline]
    pub(crate) const fn internal(&self) -> Endpoint {
        Endpoint { addr: self.internal_addr, id: self.internal_id }
    }

    #[inline]
    pub(crate) const fn remote(&self) -> Endpoint {
        Endpoint { addr: self.remote_addr, id: self.remote_id }
    }

    /// What stands in place of the internal endpoint outside, where `wan` is the external address.
    #[inline]
    pub(crate) const fn external(&self, wan: Ipv4Addr) -> Endpoint {
        Endpoint { addr: wan, id: self.external_id }
    }

    /// What outbound packets show before translation.
    #[inline]
    pub(crate) const fn outbound(&self) -> Tuple {
        Tuple { protocol: self.protocol(), src: self.internal(), dst: self.remote() }
    }

    /// What inbound packets show before translation.
    #[inline]
    pub(crate) const fn inbound(&self, wan: Ipv4Addr) -> Tuple {
        Tuple { protocol: self.protocol(), src: self.remote(), dst: self.external(wan) }
    }

    /// What a packet in `direction` shows after translation.
    #[inline]
    pub(crate) const fn translated(&self, direction: Direction, wan: Ipv4Addr) -> Tuple {
        match direction {
            Direction::Outbound => self.inbound(wan).reverse(),
            Direction::Inbound => self.outbound().reverse(),
        }
    }

    /// What a packet in `direction` shows before translation.
    #[inline]
    pub(crate) const fn shown(&self, direction: Direction, wan: Ipv4Addr) -> Tuple {
        match direction {
            Direction::Outbound => self.outbound(),
            Direction::Inbound => self.inbound(wan),
        }
    }

    pub(crate) fn state(&self) -> SessionState {
        if self.protocol() == Protocol::Tcp {
            return match self.tcp.phase() {
                Phase::Opening => SessionState::Opening,
                Phase::Established => SessionState::Established,
                Phase::Closing => SessionState::Closing,
                Phase::Reset => SessionState::Reset,
            };
        }
        if self.has(SPOKEN) && self.has(ANSWERED) { SessionState::Replied } else { SessionState::New }
    }
}

/// A device's [`Index`] in two bytes. It is never 0, so that a place without a session needs no byte to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceNumber(NonZeroU16);

impl DeviceNumber {
    /// `None` for an index that is far beyond the most devices there are.
    pub(crate) fn new(device: Index) -> Option<Self> {
        u16::try_from(device).ok()?.checked_add(1).and_then(NonZeroU16::new).map(Self)
    }

    #[inline]
    pub(crate) fn index(self) -> Index {
        Index::from(self.0.get() - 1)
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
    fn a_session_fills_one_cache_line() {
        assert_eq!(size_of::<Option<Session>>(), 64);
    }

    #[test]
    fn device_numbers_lead_back_to_their_index() {
        for index in [0, 8191, 65_534] {
            assert_eq!(DeviceNumber::new(index).map(DeviceNumber::index), Some(index));
        }
        assert_eq!(DeviceNumber::new(65_535), None);
    }
}
