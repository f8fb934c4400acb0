//! PPTP through a NAT (RFC 2637).
//!
//! # Theory of operation
//!
//! A PPTP client opens a TCP connection to port 1723 of its server. Over it the two agree (Start-Control-
//! Connection-Request and -Reply) and set up calls; a call's PPP frames travel in enhanced GRE (IP protocol
//! 47, section 4.1), which has no ports, only the *receiver's* 16-bit Call ID. Each side chooses its own, so
//! that two devices with one Call ID at one server cannot be told apart by it: and 0 is what many choose.
//!
//! What is done: the control connection is read as the byte stream that it is. The device's Call ID gets a
//! name that is unique among all calls with that remote address, its own if that is free; wherever the ID
//! stands in a control message it is changed, in GRE too. The remote's Call ID stays as it is. This is the
//! same whether the client or the server is inside, and whichever side asks for the call. No length ever
//! changes, so that no sequence number does.
//!
//! ```text
//! 192.168.1.10 ── Outgoing-Call-Request, id 0 ──────▶ id 0 ──▶ 198.51.100.7
//! 192.168.1.11 ── Outgoing-Call-Request, id 0 ──────▶ id 1 ──▶ 198.51.100.7
//!              ◀── Reply, id 128, peer 0 ── peer 1 ◀──────────
//!              ── GRE 128 ──────────────────────────▶ 128 ───▶
//!              ◀── GRE 0 ────────────────────── GRE 1 ◀───────
//! ```
//!
//! # Decisions
//!
//! * A name differs from the ID in its low byte only: a segment may end between the two bytes, and the first
//!   one is then let through before the second is known. At most 256 calls with one remote can therefore have
//!   IDs that share their high byte.
//! * A stream is parsed from its first byte, after both SYNs, or never. A segment beyond a gap is dropped, as
//!   it cannot be parsed; TCP sends it again. Data in a SYN is dropped for the same reason.
//! * A changed byte is remembered by its sequence number and changed again in every retransmission, whatever
//!   its cut. The last 64 changes are kept, acknowledged or not (an acknowledgement can be lost behind us). If
//!   64 are in flight, what needs another is dropped until one is acknowledged; a retransmission from before
//!   the changes that are kept is dropped, so that no ID gets out unchanged.
//! * A message of an unknown type, or whose length is not its type's, passes untouched and is counted. If the
//!   length or the magic cookie cannot be PPTP's, the stream is none: its calls end, it passes unparsed from
//!   there on, and it opens nothing any more.
//! * The IDs in Call-Disconnect-Notify, Call-Clear-Request, Set-Link-Info, WAN-Error-Notify and
//!   Incoming-Call-Connected are told by value among both sides of the connection's calls, since servers put
//!   either side's there. A Call-Disconnect-Notify that fits two calls ends neither.
//! * Only a complete request answered positively by its own kind of reply opens a call, after a complete
//!   handshake that the connection's opener began. GRE passes between that one device and that one remote with
//!   those two IDs; nothing else is ever opened.
//! * A call lives as long as its control connection; it has no idle time of its own. After
//!   Call-Disconnect-Notify, Stop-Control-Connection, FIN or RST its GRE passes for [`GRACE`], and its name is
//!   not given to another call for [`QUARANTINE`].
//! * A request waits [`REQUEST_LIFETIME`] for its reply. GRE that is ahead of the reply is to be held.
//! * A connection found in mid-stream, which is older than natd, opens nothing, since what is left of its
//!   stream may be anything. Its GRE is dropped with a reason of its own.

mod call;
mod connection;
#[doc(hidden)]
pub mod exercise;
mod message;
pub(crate) mod packets;
mod stream;
mod view;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::flow::{Direction, Endpoint};
use nat_core::time::Timestamp;

use crate::sorted::SortedMap;
use call::{Calls, Phase, with_remote};
use connection::{Context, Control, Stage};
pub use view::{CallView, Traffic, View, ViewPhase};

/// How long a request for a call waits for its reply.
pub const REQUEST_LIFETIME: Duration = Duration::from_secs(30);
/// How long GRE of a call that has ended still passes.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long the name of a call that has ended is not given to another.
pub const QUARANTINE: Duration = Duration::from_secs(30);
/// How long a packet of GRE waits for the reply that it is ahead of.
pub const HOLD: Duration = Duration::from_secs(1);

/// A Call ID in host byte order; every value is valid, 0 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u16);

/// A control connection, by its two ends as the LAN sees them.
// The order of the fields is that of the tables: all connections with one remote address lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// The host on the WAN.
    pub remote: Endpoint,
    /// The device on the LAN.
    pub device: Endpoint,
}

/// A TCP segment of a control connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number, if it has one.
    pub acknowledgement: Option<u32>,
    /// SYN flag.
    pub syn: bool,
    /// FIN flag.
    pub fin: bool,
    /// RST flag; not to be set for a reset that the NAT does not believe.
    pub rst: bool,
    /// What it carries, up to a whole GSO train of 65,535 bytes.
    pub payload: &'a [u8],
}

/// A byte to change in a segment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Offset from the start of the payload.
    pub offset: usize,
    /// What stands there.
    pub old: u8,
    /// What shall stand there.
    pub new: u8,
}

/// What to do with a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Let it go as it is.
    Pass,
    /// Change these bytes, in ascending order, and let it go.
    Edit(Vec<Edit>),
    /// Drop it; TCP sends it again.
    Drop(Refusal),
}

impl Verdict {
    fn of(edits: Vec<Edit>) -> Self {
        if edits.is_empty() { Self::Pass } else { Self::Edit(edits) }
    }
}

/// A call, by a name that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallRef(u64);

impl CallRef {
    const FIRST: Self = Self(0);
    const LAST: Self = Self(u64::MAX);
}

/// What to do with a packet of GRE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum GreVerdict {
    /// Let it go.
    Forward {
        /// Whose it is, for [`Pptp::account`].
        call: CallRef,
        /// The device that sends or gets it.
        device: Ipv4Addr,
        /// What its Call ID is to be.
        call_id: CallId,
    },
    /// The reply that makes it a call's packet is awaited: ask again when [`Pptp::generation`] has changed, at
    /// the latest then.
    Hold {
        /// When waiting is of no use any more.
        until: Timestamp,
    },
    /// Drop it. An inbound packet with [`Refusal::NoControlConnection`] may be the router's own.
    Drop(Refusal),
}

/// Why something is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Control: data before it is missing.
    Gap,
    /// Control: too many changes are in flight.
    Unacknowledged,
    /// Control: older than the changes that are kept.
    Stale,
    /// Control: data in a SYN.
    SynData,
    /// Control: too many connections.
    ConnectionLimit,
    /// Control: too many calls.
    CallLimit,
    /// GRE: no PPTP connection between the two is known.
    NoControlConnection,
    /// GRE: the connection is older than natd.
    BeforeStart,
    /// GRE: the connection has no such call.
    UnknownCall,
    /// GRE: the call is over.
    CallEnded,
}

impl Refusal {
    /// A stable name for counters and scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "pptp-gap",
            Self::Unacknowledged => "pptp-unacknowledged",
            Self::Stale => "pptp-stale",
            Self::SynData => "pptp-syn-data",
            Self::ConnectionLimit => "pptp-connection-limit",
            Self::CallLimit => "pptp-call-limit",
            Self::NoControlConnection => "pptp-no-control-connection",
            Self::BeforeStart => "pptp-before-start",
            Self::UnknownCall => "pptp-unknown-call",
            Self::CallEnded => "pptp-call-ended",
        }
    }

    /// The same in a sentence.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Gap => "PPTP control data behind a segment that is missing",
            Self::Unacknowledged => "PPTP control data with too many Call IDs in flight",
            Self::Stale => "PPTP control data repeated that is long acknowledged",
            Self::SynData => "data in the SYN of a PPTP control connection",
            Self::ConnectionLimit => "too many PPTP control connections",
            Self::CallLimit => "too many PPTP calls",
            Self::NoControlConnection => "PPTP's GRE without a control connection between the two",
            Self::BeforeStart => "PPTP's GRE of a call that began before natd did: dial again",
            Self::UnknownCall => "PPTP's GRE with a Call ID that no control connection has agreed on",
            Self::CallEnded => "PPTP's GRE of a call that is over",
        }
    }
}

/// Bounds on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Control connections of all devices together.
    pub connections: usize,
    /// Of one device.
    pub connections_per_device: usize,
    /// With one remote address.
    pub connections_per_remote: usize,
    /// Calls of all devices together; those that ended within [`QUARANTINE`] count.
    pub calls: usize,
    /// Of one device.
    pub calls_per_device: usize,
    /// Of one control connection.
    pub calls_per_connection: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_device: 256,
            connections_per_remote: 128,
            calls: 4096,
            calls_per_device: 512,
            calls_per_connection: 64,
        }
    }
}

/// What has been seen that is not as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of a length that their type does not have.
    pub malformed: u32,
    /// Messages of no type of RFC 2637.
    pub unknown: u32,
    /// Messages out of turn: a reply without its request, a call before the handshake.
    pub unasked: u32,
    /// Streams that turned out to be no PPTP.
    pub foreign: u32,
    /// Requests for a call that were not answered in time.
    pub unanswered: u32,
}

/// PPTP's part of the NAT: control connections, calls and the Call IDs that stand for them.
#[derive(Debug, Default)]
pub struct Pptp {
    limits: Limits,
    connections: SortedMap<Connection, Control>,
    calls: Calls,
    counters: Counters,
    /// When the NAT is next asked which connections it still has.
    next_check: Timestamp,
}

impl Pptp {
    /// Knows no connection yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A segment of a TCP session with port 1723 at one end, which the NAT has found to belong to `connection`.
    ///
    /// `opener` is the way of the SYN that may open the connection: outbound when the device is the client,
    /// inbound when a port is forwarded to it. Every segment is to be shown, SYNs that the NAT does not believe
    /// too: only the answer to a SYN has an effect.
    pub fn control(
        &mut self,
        now: Timestamp,
        connection: Connection,
        direction: Direction,
        opener: Direction,
        segment: &Segment<'_>,
    ) -> Verdict {
        if segment.syn && !segment.payload.is_empty() {
            return Verdict::Drop(Refusal::SynData);
        }
        let asks = segment.syn && segment.acknowledgement.is_none() && direction == opener && !segment.rst;
        if !self.connections.contains_key(&connection) {
            let running = !segment.syn && !segment.rst && !segment.payload.is_empty();
            let stage = match direction {
                _ if asks => Stage::Opening,
                Direction::Outbound if running => Stage::Unknown,
                Direction::Outbound | Direction::Inbound => return Verdict::Pass,
            };
            if !self.make_room(connection) {
                return if asks { Verdict::Drop(Refusal::ConnectionLimit) } else { Verdict::Pass };
            }
            self.connections.insert(connection, Control::new(now, opener, stage));
        }
        let Self { limits, connections, calls, counters, .. } = self;
        let Some(control) = connections.get_mut(&connection) else { return Verdict::Pass };
        let mut context = Context { now, connection, direction, calls, limits, counters };
        if segment.rst {
            control.close(&mut context);
        } else if asks {
            control.ask(segment.sequence);
        } else if segment.syn {
            if let Some(acknowledgement) = segment.acknowledgement.filter(|_| direction != opener) {
                control.answer(segment.sequence, acknowledgement, &mut context);
            }
        } else {
            return control.segment(segment, &mut context);
        }
        Verdict::Pass
    }

    /// Enhanced GRE from a device, with its Call ID.
    pub fn gre_outbound(
        &mut self,
        now: Timestamp,
        device: Ipv4Addr,
        remote: Ipv4Addr,
        call_id: CallId,
    ) -> GreVerdict {
        let mut over = false;
        for reference in self.calls.by_remote(remote, call_id, device) {
            if self.calls.find(reference).is_some_and(|call| call.flows(now)) {
                return GreVerdict::Forward { call: reference, device, call_id };
            }
            over = true;
        }
        let known =
            || self.connections.range(with_remote(remote)).filter(|(key, _)| key.device.addr == device);
        let awaited = known().find_map(|(_, control)| control.awaits_answer(call_id, now));
        match awaited {
            Some(until) => GreVerdict::Hold { until: until.min(now + HOLD) },
            None if over => GreVerdict::Drop(Refusal::CallEnded),
            None => GreVerdict::Drop(why_unknown(known().map(|(_, control)| control))),
        }
    }

    /// Enhanced GRE to the WAN address, with its Call ID.
    pub fn gre_inbound(&mut self, now: Timestamp, remote: Ipv4Addr, call_id: CallId) -> GreVerdict {
        let found = self.calls.by_outside(remote, call_id);
        let Some((reference, call)) = found.and_then(|found| Some((found, self.calls.find(found)?))) else {
            let known = self.connections.range(with_remote(remote)).map(|(_, control)| control);
            return GreVerdict::Drop(why_unknown(known));
        };
        if call.flows(now) {
            let device = call.connection.device.addr;
            return GreVerdict::Forward { call: reference, device, call_id: call.inside };
        }
        match call.phase {
            Phase::Asked(_) | Phase::Answering => {
                GreVerdict::Hold { until: (call.since + REQUEST_LIFETIME).min(now + HOLD) }
            }
            Phase::Up | Phase::Ended(_) => GreVerdict::Drop(Refusal::CallEnded),
        }
    }

    /// Counts a packet of GRE that is let go, of so many bytes. Answers what had been counted before it.
    pub fn account(&mut self, now: Timestamp, call: CallRef, direction: Direction, bytes: u16) -> Traffic {
        self.calls.account(now, call, direction, bytes)
    }

    /// The device that sent the GRE to `remote` which an ICMP error from the WAN quotes; the Call ID in the
    /// quote is also the one that the device sent. `None` when it was nobody, or could have been several.
    pub fn quoted_outbound(&self, remote: Ipv4Addr, call_id: CallId) -> Option<Ipv4Addr> {
        let mut devices = self.calls.devices_by_remote(remote, call_id);
        let first = devices.next()?;
        devices.all(|device| device == first).then_some(first)
    }

    /// The Call ID on the WAN of the GRE from `remote` which an ICMP error from `device` quotes. `None` when the
    /// device has no such call, or several.
    pub fn quoted_inbound(&self, device: Ipv4Addr, remote: Ipv4Addr, call_id: CallId) -> Option<CallId> {
        let connections = self.connections.range(with_remote(remote)).map(|(&connection, _)| connection);
        let mut names = connections
            .filter(|connection| connection.device.addr == device)
            .filter_map(|connection| self.calls.find(self.calls.by_inside(connection, call_id)?))
            .map(|call| call.outside);
        let name = names.next()?;
        names.next().is_none().then_some(name)
    }

    /// The NAT's TCP session is gone.
    pub fn end_connection(&mut self, now: Timestamp, connection: Connection) {
        if self.connections.remove(&connection).is_some() {
            self.calls.end_all(now, connection);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.counters.unanswered += self.calls.expire(now);
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.calls.next_due()
    }

    /// Changes whenever a call comes up or is gone: packets that are held are then to be asked about again.
    pub const fn generation(&self) -> u32 {
        self.calls.generation
    }

    /// What has been seen that is not as it should be.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Is there room for another connection? One that has come to nothing, the oldest first, makes way.
    fn make_room(&mut self, connection: Connection) -> bool {
        let (device, remote) = (connection.device.addr, connection.remote.addr);
        let Limits { connections, connections_per_device, connections_per_remote, .. } = self.limits;
        self.keep_below(connections_per_device, |other| other.device.addr == device)
            && self.keep_below(connections_per_remote, |other| other.remote.addr == remote)
            && self.keep_below(connections, |_| true)
    }

    fn keep_below(&mut self, limit: usize, counts: impl Fn(&Connection) -> bool) -> bool {
        let counted = || self.connections.iter().filter(|(other, _)| counts(other));
        if counted().count() < limit {
            return true;
        }
        let idle = counted().filter(|(_, control)| control.stage != Stage::Established);
        let oldest = idle.min_by_key(|(_, control)| control.since).map(|(&oldest, _)| oldest);
        oldest.is_some_and(|oldest| self.connections.remove(&oldest).is_some())
    }

    /// Do the tables agree, within their bounds, and has every call that is up an established connection?
    fn is_consistent(&self) -> bool {
        let established = |connection| {
            self.connections.get(connection).is_some_and(|control| control.stage == Stage::Established)
        };
        self.calls.is_consistent()
            && self.connections.len() <= self.limits.connections
            && self.calls.iter().count() <= self.limits.calls
            && self.calls.iter().all(|(_, call)| call.phase != Phase::Up || established(&call.connection))
    }
}

/// Why GRE between the ends of these connections is of no call.
fn why_unknown<'a>(mut known: impl Iterator<Item = &'a Control>) -> Refusal {
    let Some(first) = known.next() else { return Refusal::NoControlConnection };
    let unknown = |control: &Control| control.stage == Stage::Unknown;
    if unknown(first) || known.any(unknown) { Refusal::BeforeStart } else { Refusal::UnknownCall }
}
