//! One tunnel of L2TP over UDP: its ends, its identifiers and how far it is.

use alloc::vec::Vec;
use core::time::Duration;

use nat_core::flow::Endpoint;
use nat_core::time::Timestamp;

use super::message::{Body, Id, Kind, Message, PORT, Version};
use crate::usage::{Pulse, Usage};
use crate::view::Phase;

/// The name of a tunnel for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelHandle(pub(super) u32);

/// A tunnel as reports show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelView {
    /// Its handle.
    pub tunnel: TunnelHandle,
    /// The device's endpoint.
    pub device: Endpoint,
    /// The other side's endpoint, as the device last addressed it.
    pub remote: Endpoint,
    /// The version of L2TP.
    pub version: Version,
    /// The identifier that the device chose; `None` while it cannot be known.
    pub inside: Option<u32>,
    /// The same on the WAN.
    pub outside: Option<u32>,
    /// The identifier that the other side chose.
    pub peer: Option<u32>,
    /// The port on the WAN address.
    pub external: u16,
    /// Is that port shared with other devices?
    pub shared: bool,
    /// How far it is.
    pub phase: Phase,
    /// What it carried.
    pub usage: Usage,
}

/// Five HELLOs of the usual 60 s (RFC 2661 section 6.5).
const IDLE: Duration = Duration::from_secs(300);
/// An SCCRQ is sent again for 31 s as RFC 2661 section 5.8 recommends; a client redials after 30 s or so.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// RFC 2661 section 5.7: a full retransmission cycle, 31 s.
pub(super) const CLOSING: Duration = Duration::from_secs(31);

#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) device: Endpoint,
    pub(super) remote: Endpoint,
    pub(super) version: Version,
    /// The device's own identifier.
    pub(super) own: Option<u32>,
    pub(super) outside: Option<u32>,
    pub(super) peer: Option<u32>,
    /// All identifiers on the WAN by which the device is addressed here.
    pub(super) ids: Vec<Id>,
    /// The port that the NAT gives the device.
    pub(super) external: u16,
    pub(super) shared: bool,
    /// SCCRQs without an answer.
    pub(super) sends: u32,
    /// The first of them.
    pub(super) called: Timestamp,
    pub(super) pulse: Pulse,
    pub(super) deadline: Timestamp,
    pub(super) usage: Usage,
    /// When something last came to the device beside its port, and from which port.
    pub(super) delivered: Option<(u16, Timestamp)>,
}

impl Tunnel {
    /// One of which nothing but its ends is known.
    pub(super) const fn new(
        now: Timestamp,
        device: Endpoint,
        remote: Endpoint,
        external: u16,
        version: Version,
    ) -> Self {
        Self {
            device,
            remote,
            version,
            own: None,
            outside: None,
            peer: None,
            ids: Vec::new(),
            external,
            shared: false,
            sends: 0,
            called: now,
            pulse: Pulse { answered: false, closed: false, payload: None, keepalive: None },
            deadline: now,
            usage: Usage::new(now),
            delivered: None,
        }
    }

    /// The port that the other side sees.
    pub(super) const fn wan_port(&self) -> u16 {
        if self.shared { PORT } else { self.external }
    }

    /// Is it known only by its port?
    pub(super) const fn is_opaque(&self) -> bool {
        self.own.is_none()
    }

    pub(super) fn heard(&mut self, now: Timestamp, message: &Message) {
        match message.body {
            Body::Data => self.pulse.payload = Some(now),
            Body::Ack => {}
            Body::Control(control) => match control.kind {
                Kind::Hello => self.pulse.keepalive = Some(now),
                Kind::Stop => self.pulse.closed = true,
                Kind::Disconnect => self.pulse.payload = None,
                Kind::StartRequest | Kind::StartReply | Kind::StartConnected | Kind::Other(_) => {}
            },
        }
    }

    pub(super) fn refresh(&mut self, now: Timestamp) {
        let idle = match (self.pulse.closed, self.pulse.answered) {
            (true, _) => CLOSING,
            (false, false) => HANDSHAKE,
            (false, true) => IDLE,
        };
        self.deadline = now + idle;
    }

    pub(super) fn view(&self, number: u32, now: Timestamp) -> TunnelView {
        TunnelView {
            tunnel: TunnelHandle(number),
            device: self.device,
            remote: self.remote,
            version: self.version,
            inside: self.own,
            outside: self.outside,
            peer: self.peer,
            external: self.wan_port(),
            shared: self.shared,
            phase: self.pulse.phase(&self.usage, now),
            usage: self.usage,
        }
    }
}
