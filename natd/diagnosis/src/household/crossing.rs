//! The same packet, seen again: on a bridge, or on the other side of the router.
//!
//! A NAT changes addresses and ports, PPTP's Call ID and L2TP's tunnel. A packet is known again by what no NAT
//! changes: the server's side of it and its contents ([`key`]). One that is seen on one side and within
//! [`PATIENCE`] not on the other stayed in the router.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::openvpn::Opcode;
use passthrough::sighting::Sighting;

use super::is_private;
use crate::attempts::COPY;
use crate::observation::{Fragment, Observation, Point, Trace, Transport};

/// How long a packet may take through the router: longer than natd holds any back.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Routers and bridges that count inside one box, at most.
const HOPS: u8 = 3;
/// Packets that are remembered at one time; a power of two.
const SLOTS: usize = 1024;
/// Bytes of a payload that tell it from others.
const HEAD: usize = 48;

/// A packet that was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    key: u64,
    at: Timestamp,
    pub(super) device: IpAddr,
    pub(super) server: IpAddr,
    pub(super) point: Point,
    pub(super) trace: Trace,
    ttl: u8,
    ident: u32,
    matched: bool,
    /// The device that it was seen on its way to last, when it had come in.
    given: Option<IpAddr>,
    /// Is it the first fragment of more? It stays in the router until all of them are there.
    pub(super) first: bool,
    /// Nobody was told of it yet: an inbound packet on the WAN waits for itself on the LAN.
    pub(super) withheld: bool,
}

impl Seen {
    /// Can this be the same packet on the other side of the router, rather than another device's that says the
    /// same? Where interfaces do not tell, a router counts the TTL down, and gives a private address a public one.
    fn may_be_across(&self, seen: &Observation<'_>) -> bool {
        match (self.point, seen.point) {
            (Point::Unknown, _) | (_, Point::Unknown) => {
                matches!(self.ttl.abs_diff(seen.ttl), 1..=HOPS)
                    || is_private(self.device) != is_private(seen.device)
            }
            (one, other) => one != other,
        }
    }
}

/// What another sight of a packet means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// It was not seen before.
    New,
    /// The same at the same place.
    Copy,
    /// The same on the other side of the router; as it was seen first.
    Crossed(Seen),
}

/// The packets of the last two seconds.
#[derive(Debug)]
pub(super) struct Crossings {
    slots: Vec<Option<Seen>>,
    due: VecDeque<(Timestamp, usize, u64)>,
}

impl Default for Crossings {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS], due: VecDeque::new() }
    }
}

impl Crossings {
    /// What it means that this packet is seen; [`Self::remember`] is next where it is new.
    pub(super) fn look(&mut self, key: u64, seen: &Observation<'_>) -> Outcome {
        let Some(Some(before)) = self.slots.get_mut(slot(key)) else { return Outcome::New };
        let age = seen.at().since(before.at);
        if before.key != key || age > PATIENCE || before.trace.direction != seen.direction {
            return Outcome::New;
        }
        let same_ends = before.device == seen.device && before.trace.device_port == seen.device_port;
        let same_place = same_ends && before.point == seen.point;
        if same_place && before.ttl == seen.ttl {
            // Sent again, it mostly has another identification; a VPN's own sequence numbers do not come twice.
            return if age < COPY && before.ident == seen.ident { Outcome::Copy } else { Outcome::New };
        }
        if !same_ends && !before.may_be_across(seen) {
            return Outcome::New;
        }
        let other_side = !same_ends || before.point != seen.point || before.ttl != seen.ttl;
        // natd gives a packet to several devices where it is not known whose it is.
        if before.withheld && before.given.is_some_and(|device| device != seen.device) {
            before.given = Some(seen.device);
            return Outcome::Crossed(*before);
        }
        if before.matched {
            return if other_side && age < COPY { Outcome::Copy } else { Outcome::New };
        }
        before.matched = true;
        before.given = (seen.direction == Direction::Inbound).then_some(seen.device);
        Outcome::Crossed(*before)
    }

    /// Remembers a new packet. `waits`: it is to be seen on the other side too.
    pub(super) fn remember(&mut self, key: u64, seen: &Observation<'_>, waits: bool, withheld: bool) {
        let at = slot(key);
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(Seen {
                key,
                at: seen.at(),
                device: seen.device,
                server: seen.server,
                point: seen.point,
                trace: seen.trace(),
                ttl: seen.ttl,
                ident: seen.ident,
                matched: false,
                given: None,
                first: seen.fragment == Fragment::First,
                withheld,
            });
            if waits && self.due.len() < SLOTS {
                self.due.push_back((seen.at() + PATIENCE, at, key));
            }
        }
    }

    /// The next packet that should have been seen on the other side by `now` and was not.
    pub(super) fn overdue(&mut self, now: Timestamp) -> Option<Seen> {
        while let Some(&(deadline, at, key)) = self.due.front() {
            if deadline > now {
                return None;
            }
            self.due.pop_front();
            match self.slots.get_mut(at) {
                // A later packet in the same slot, or the same message sent again: then that one is waited for.
                Some(Some(seen)) if seen.key == key && !seen.matched && seen.at + PATIENCE == deadline => {
                    seen.matched = true;
                    return Some(*seen);
                }
                Some(_) | None => {}
            }
        }
        None
    }
}

fn slot(key: u64) -> usize {
    usize::try_from(key).unwrap_or(0) & (SLOTS - 1)
}

/// By what a packet is known again; `None` where two packets can be the same, or where only some are seen.
pub(super) fn key(seen: &Observation<'_>) -> Option<u64> {
    // The router puts fragments together, and may cut them anew: only a first one says of what datagram it is.
    let cut = match seen.fragment {
        Fragment::Whole => false,
        Fragment::First => seen.direction == Direction::Outbound,
        Fragment::Later => true,
    };
    if cut {
        return None;
    }
    let (skip, end) = match seen.sighting {
        Some(Sighting::NatTKeepalive | Sighting::Gre { .. } | Sighting::L2tp { control: false, .. }) => {
            return None;
        }
        Some(Sighting::L2tpIp { session }) if session != 0 => return None,
        Some(Sighting::OpenVpn(packet)) if matches!(packet.opcode, Opcode::DataV1 | Opcode::DataV2) => {
            return None;
        }
        // A NAT may change the tunnel in the header, and behind the header the one that is assigned.
        Some(Sighting::L2tp { control: true, .. }) => (6, 12),
        Some(Sighting::PptpGre { .. }) => (8, 8 + HEAD),
        Some(
            Sighting::Ike { .. }
            | Sighting::NatTEsp(_)
            | Sighting::Esp(_)
            | Sighting::Ah(_)
            | Sighting::PptpControl
            | Sighting::L2tpIp { .. }
            | Sighting::WireGuard(_)
            | Sighting::OpenVpn(_),
        ) => (0, HEAD),
        None if seen.server_port == 1723 && matches!(seen.transport, Transport::Tcp(_)) => (0, 0),
        None => return None,
    };
    let mut hasher = DefaultHasher::new();
    (seen.direction == Direction::Outbound, seen.server, seen.transport.protocol()).hash(&mut hasher);
    (seen.server_port, seen.payload_len).hash(&mut hasher);
    if let Transport::Tcp(head) = seen.transport {
        (head.seq, head.flags).hash(&mut hasher);
    } else {
        seen.payload.get(skip..end.min(seen.payload.len()))?.hash(&mut hasher);
    }
    Some(hasher.finish())
}
