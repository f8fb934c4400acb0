//! Keyed protocols in packets: GRE other than PPTP's, and L2TPv3 on IP protocol 115.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use nat_core::decision::{Decision, DropReason};
use nat_core::nat::Nat;
use nat_core::packet::{Body, PacketView};
use nat_core::time::Timestamp;

use super::{Carrier, Key, Keyed, Refusal, Wire};
use crate::carry;
use crate::gre::GreHeader;
use crate::view::{Ids, TunnelView, Vpn};

impl Keyed {
    /// A packet of a device.
    pub(crate) fn carry_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        nat: &mut Nat,
    ) -> Decision {
        let Some(wire) = wire(packet) else { return nat.refuse(DropReason::Malformed) };
        match self.outbound(now, packet.src, packet.dst, wire) {
            Ok(conversation) => {
                let usage = self.usage(conversation);
                let burst = |created| now.since(created) < carry::FIRST_BURST;
                let resend = usage.is_some_and(|usage| usage.packets != [1, 0] && burst(usage.created));
                carry::outbound(now, packet, resend, nat)
            }
            Err(refusal) => nat.turn_away(now, packet, reason(refusal)),
        }
    }

    /// A packet to the WAN address. `own`: the router itself speaks that protocol with its sender.
    pub(crate) fn carry_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        own: bool,
        on: bool,
        nat: &mut Nat,
    ) -> Decision {
        let Some(wire) = wire(packet) else { return nat.refuse(DropReason::Malformed) };
        match self.inbound(now, packet.src, wire) {
            Ok(_) if !on => nat.refuse(DropReason::L2tpOff),
            Ok(arrival) => {
                let silent = arrival.conversation.and_then(|conversation| self.silent_since(conversation));
                let stale = silent.is_none_or(|since| now.since(since) > nat.patience());
                let admission = stale.then(|| carry::admission(packet, arrival.device, carry::Key::None));
                carry::inbound(now, packet, arrival.device, admission, nat)
            }
            // The router's own, or nobody's: the kernel knows.
            Err(Refusal::Stranger) => nat.inbound(now, packet, false),
            Err(_) if own => nat.inbound(now, packet, false),
            Err(refusal) => nat.refuse(reason(refusal)),
        }
    }

    /// The device that sent the packet which an ICMP error from the WAN quotes.
    pub(crate) fn sender_of(&self, quote: &PacketView<'_>) -> Option<Ipv4Addr> {
        self.quoted(quote.dst, wire_of_quote(quote)?)
    }

    /// Did the device that it went to get the packet which an ICMP error of its own quotes?
    pub(crate) fn has_received(&self, quote: &PacketView<'_>) -> bool {
        wire_of_quote(quote).and_then(|wire| self.quoted_inbound(quote.src, wire)) == Some(quote.dst)
    }

    /// Its conversations as all VPNs' are reported.
    pub(crate) fn report(&self, now: Timestamp, views: &mut Vec<TunnelView>) {
        views.extend(self.views(now).map(|view| {
            let mut ids = Vec::new();
            ids.extend(view.inbound.iter().filter_map(|&key| {
                let (what, id) = named(key)?;
                Some(Ids { what, inside: Some(id), outside: Some(id), remote: None, learned: None })
            }));
            ids.extend(view.outbound.iter().filter_map(|&key| {
                let (what, id) = named(key)?;
                Some(Ids { what, inside: None, outside: None, remote: Some(id), learned: None })
            }));
            TunnelView {
                vpn: match view.carrier {
                    Carrier::Gre => Vpn::Gre,
                    Carrier::L2tpV3 => Vpn::L2tpV3,
                },
                device: view.device,
                server: view.remote,
                phase: view.phase,
                reason: view.phase.reason(),
                created: view.usage.created,
                last_seen: view.usage.last_seen,
                packets: view.usage.packets,
                bytes: view.usage.bytes,
                ids,
                remark: "",
            }
        }));
    }
}

fn wire<'a>(packet: &PacketView<'a>) -> Option<Wire<'a>> {
    let payload = packet.payload();
    match packet.body {
        Body::Other(47) => Some(Wire::Gre { header: GreHeader::parse(payload)?, len: payload.len() }),
        Body::Other(115) => Some(Wire::L2tpV3(payload)),
        Body::Tcp(_)
        | Body::Udp { .. }
        | Body::IcmpQuery { .. }
        | Body::IcmpError(_)
        | Body::Fragment
        | Body::Other(_) => None,
    }
}

/// The same of a packet that may be cut off behind its eighth byte.
fn wire_of_quote<'a>(quote: &PacketView<'a>) -> Option<Wire<'a>> {
    let payload = quote.payload();
    match quote.body {
        Body::Other(47) => {
            let header = GreHeader::parse(&[payload.get(..payload.len().min(16))?, &[0; 16]].concat())?;
            let key_end = if header.checksum || header.routed { 12 } else { 8 };
            let whole = payload.len() >= if header.key.is_some() { key_end } else { 4 };
            whole.then_some(Wire::Gre { header, len: payload.len() })
        }
        Body::Other(_)
        | Body::Tcp(_)
        | Body::Udp { .. }
        | Body::IcmpQuery { .. }
        | Body::IcmpError(_)
        | Body::Fragment => wire(quote),
    }
}

const fn reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Malformed => DropReason::Malformed,
        Refusal::Conflict(_) => DropReason::KeyConflict,
        Refusal::Stranger | Refusal::Ambiguous => DropReason::KeyUnknown,
        Refusal::Full | Refusal::DeviceQuota | Refusal::RemoteQuota => DropReason::VpnLimit,
    }
}

fn named(key: Key) -> Option<(&'static str, u64)> {
    match key {
        Key::Gre { key, .. } => key.map(|key| ("key", key.into())),
        Key::Session(id) => Some(("session", id.into())),
        Key::Connection(id) => Some(("tunnel", id.into())),
    }
}
