//! Calls and control connections as reports show them.

use alloc::vec::Vec;
use core::time::Duration;

use nat_core::time::Timestamp;

use super::call::{Call, Phase};
use super::connection::{Control, Stage};
use super::{CallId, Connection, Pptp};

/// Without GRE for so long, a call is kept alive at best: PPP's own echoes are at most 30 s apart by custom.
const QUIET: Duration = Duration::from_secs(60);
/// Echo-Requests come after 60 s without a message and are answered within 60 s (RFC 2637 section 3.1.4).
const SILENT: Duration = Duration::from_secs(120);

/// One direction of a call's GRE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes, as told to [`Pptp::account`].
    pub bytes: u64,
    /// When the first one came.
    pub first: Option<Timestamp>,
    /// When the last one came.
    pub last: Option<Timestamp>,
}

/// How far a connection or its call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewPhase {
    /// The two sides have not agreed yet, or the call is not answered.
    Handshake,
    /// Agreed; no GRE yet.
    Established,
    /// GRE within the last minute.
    Data,
    /// No GRE, but the control connection is kept alive.
    Keepalive,
    /// Neither GRE nor control messages.
    Idle,
    /// Over.
    Closed,
    /// The connection is older than natd: it has to be dialled again.
    BeforeStart,
    /// What runs over the connection is no PPTP.
    Foreign,
}

impl ViewPhase {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Established => "established",
            Self::Data => "data",
            Self::Keepalive => "keepalive",
            Self::Idle => "idle",
            Self::Closed => "closed",
            Self::BeforeStart => "before-start",
            Self::Foreign => "foreign",
        }
    }
}

/// A call, or a control connection that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The control connection.
    pub connection: Connection,
    /// How far it is.
    pub phase: ViewPhase,
    /// When the call, or the connection, began.
    pub created: Timestamp,
    /// When a control message or GRE was last seen.
    pub last: Timestamp,
    /// The call.
    pub call: Option<CallView>,
}

/// A call's part of a [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallView {
    /// The device's Call ID as it knows it.
    pub inside: CallId,
    /// The same as the remote knows it.
    pub outside: CallId,
    /// The remote's Call ID, the same on both sides; `None` while it is not known.
    pub remote: Option<CallId>,
    /// GRE from the device.
    pub outbound: Traffic,
    /// GRE to the device.
    pub inbound: Traffic,
}

impl Pptp {
    /// Every call, and every control connection that has none.
    pub fn views(&self, now: Timestamp) -> Vec<View> {
        let calls =
            self.calls.iter().map(|(_, call)| of_call(now, call, self.connections.get(&call.connection)));
        let without =
            self.connections.iter().filter(|(connection, _)| self.calls.of(**connection).next().is_none());
        calls.chain(without.map(|(&connection, control)| of_connection(now, connection, control))).collect()
    }
}

fn of_call(now: Timestamp, call: &Call, control: Option<&Control>) -> View {
    let carried = call.outbound.last.max(call.inbound.last);
    let spoke = control.map_or(call.since, |control| control.spoke);
    let phase = match call.phase {
        Phase::Asked(_) | Phase::Answering => ViewPhase::Handshake,
        Phase::Ended(_) => ViewPhase::Closed,
        Phase::Up => match carried {
            Some(last) if now.since(last) < QUIET => ViewPhase::Data,
            None if now.since(call.since) < QUIET => ViewPhase::Established,
            Some(_) | None => kept_alive(now, spoke),
        },
    };
    let &Call { connection, inside, outside, remote, since, outbound, inbound, .. } = call;
    let last = spoke.max(carried.unwrap_or(since));
    let call = CallView { inside, outside, remote, outbound, inbound };
    View { connection, phase, created: since, last, call: Some(call) }
}

fn of_connection(now: Timestamp, connection: Connection, control: &Control) -> View {
    let phase = match control.stage {
        Stage::Unknown => ViewPhase::BeforeStart,
        Stage::Opening | Stage::Open | Stage::Requested => ViewPhase::Handshake,
        Stage::Established if now.since(control.spoke) < QUIET => ViewPhase::Established,
        Stage::Established => kept_alive(now, control.spoke),
        Stage::Closed => ViewPhase::Closed,
        Stage::Foreign => ViewPhase::Foreign,
    };
    View { connection, phase, created: control.since, last: control.spoke, call: None }
}

fn kept_alive(now: Timestamp, spoke: Timestamp) -> ViewPhase {
    if now.since(spoke) < SILENT { ViewPhase::Keepalive } else { ViewPhase::Idle }
}
