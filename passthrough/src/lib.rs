//! VPN passthrough: what VPN protocols need of a NAT beyond ports.
//!
//! # Theory of operation
//!
//! The NAT translates TCP, UDP and ICMP by itself. ESP and GRE have no ports, PPTP and L2TP carry numbers that two
//! devices may both have chosen, and old IKE servers want every client on port 500. [`Passthrough`] stands before
//! the NAT and looks only at packets that [concern](Passthrough::concerns) it. It either decides by itself, from its
//! own tables, or has the NAT decide and looks at the result: what a control connection says is believed only of a
//! flow that the NAT has found.
//!
//! What is switched off is refused, not ignored: the device is told at once, and the reason is counted and logged.
//!
//! Parsers and recognisers know nothing of NAT; they serve diagnosis as well.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        reason = "test values are made by hand"
    )
)]

extern crate alloc;

mod bytes;
mod carry;
pub mod esp;
pub mod gre;
pub mod ike;
mod ipsec;
pub mod keyed;
pub mod l2tp;
pub mod openvpn;
pub mod pptp;
pub mod settings;
pub mod sighting;
pub mod usage;
pub mod view;
pub mod wireguard;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::decision::{Decision, DropReason, Effect, Forward, HoldId, KernelTuple, Note, Outcome};
use nat_core::flow::{Direction, Protocol, Tuple};
use nat_core::nat::{Nat, Origin};
use nat_core::packet::{Body, IcmpError, PacketView};
use nat_core::session::SessionView;
use nat_core::time::Timestamp;

use self::carry::Key;
use self::esp::EspHeader;
use self::ipsec::{IKE, Inbound, Ipsec, NAT_T};
use self::settings::{Access, Scope, Settings};
pub use self::view::Vpn;
use self::view::{Phase, TunnelView};

/// L2TP's port (RFC 2661 section 8.1).
const L2TP: u16 = 1701;
/// PPTP's port (RFC 2637 section 1.2).
const PPTP: u16 = 1723;
const ESP: u8 = 50;
const AH: u8 = 51;
const GRE: u8 = 47;
const L2TP_IP: u8 = 115;

/// Packets that wait for their owner, of one remote host and of all.
const MAX_HELD_PER_REMOTE: usize = 16;
const MAX_HELD: usize = 64;
/// A refusal is logged again after this long.
const COMPLAIN_EVERY: Duration = Duration::from_secs(600);
const MAX_COMPLAINTS: usize = 256;

/// Kinds of VPN that the owner switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Switch {
    Ipsec,
    Pptp,
    L2tp,
}

impl Switch {
    const fn name(self) -> &'static str {
        match self {
            Self::Ipsec => "ipsec",
            Self::Pptp => "pptp",
            Self::L2tp => "l2tp",
        }
    }
}

/// A packet that waits for its owner to be known.
#[derive(Debug)]
struct Held {
    id: HoldId,
    until: Timestamp,
    /// Why it is dropped when it has waited long enough.
    reason: DropReason,
    /// What was known of its remote host when it was last asked about.
    changes: u32,
    bytes: Vec<u8>,
}

/// VPN passthrough.
#[derive(Debug)]
pub struct Passthrough {
    settings: Settings,
    ipsec: Ipsec,
    held: BTreeMap<(Ipv4Addr, HoldId), Held>,
    complaints: BTreeMap<(Ipv4Addr, Ipv4Addr, DropReason), Timestamp>,
}

impl Passthrough {
    /// Passthrough that knows no session yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ipsec: Ipsec::default(), held: BTreeMap::new(), complaints: BTreeMap::new() }
    }

    /// Takes over new settings; what they do not allow any more is refused from the next packet on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Is everything else the kernel's (`scope = "vpn"`)?
    pub fn is_alone(&self) -> bool {
        self.settings.scope == Scope::Vpn
    }

    /// Does this packet go to [`Self::inbound`] and [`Self::outbound`] rather than to the NAT?
    #[inline]
    pub fn concerns(&self, packet: &PacketView<'_>) -> bool {
        match packet.body {
            Body::Udp { src_port, dst_port } => is_udp_port(src_port) || is_udp_port(dst_port),
            Body::Tcp(segment) => segment.src_port == PPTP || segment.dst_port == PPTP,
            Body::Other(protocol) => is_protocol(protocol),
            Body::IcmpError(ref error) => quotes_vpn(error),
            Body::IcmpQuery { .. } | Body::Fragment => false,
        }
    }

    /// The access list that a packet with these ports or this protocol falls under.
    fn switch(packet: &PacketView<'_>) -> Option<Switch> {
        match packet.body {
            Body::Udp { dst_port: IKE | NAT_T, .. } => Some(Switch::Ipsec),
            Body::Udp { dst_port: L2TP, .. } => Some(Switch::L2tp),
            Body::Tcp(segment) if segment.dst_port == PPTP => Some(Switch::Pptp),
            Body::Other(ESP | AH) => Some(Switch::Ipsec),
            Body::Other(L2TP_IP) => Some(Switch::L2tp),
            Body::Other(GRE) if is_pptp_gre(packet.payload()) => Some(Switch::Pptp),
            Body::Udp { .. }
            | Body::Tcp(_)
            | Body::Other(_)
            | Body::IcmpQuery { .. }
            | Body::IcmpError(_)
            | Body::Fragment => None,
        }
    }

    fn access(&self, switch: Switch) -> &Access {
        match switch {
            Switch::Ipsec => &self.settings.ipsec,
            Switch::Pptp => &self.settings.pptp,
            Switch::L2tp => &self.settings.l2tp,
        }
    }

    /// May the device send this? Why not?
    fn permits(&self, packet: &PacketView<'_>) -> Result<(), (Switch, DropReason)> {
        let Some(switch) = Self::switch(packet) else { return Ok(()) };
        let (device, server) = (packet.src, packet.dst);
        let access = self.access(switch);
        if !access.on {
            return Err((switch, DropReason::VpnOff));
        }
        if !access.allows(device, server) {
            return Err((switch, DropReason::VpnNotAllowed));
        }
        if !self.settings.multi && self.has_other(switch, server, device) {
            return Err((switch, DropReason::VpnSecondDevice));
        }
        Ok(())
    }

    fn has_other(&self, switch: Switch, server: Ipv4Addr, device: Ipv4Addr) -> bool {
        match switch {
            Switch::Ipsec => self.ipsec.has_other(server, device),
            Switch::Pptp | Switch::L2tp => false,
        }
    }

    /// A packet on its way to the WAN.
    pub fn outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        origin: Origin,
        nat: &mut Nat,
    ) -> Decision {
        if let Body::IcmpError(ref error) = packet.body {
            return self.error_outbound(now, packet, error, origin, nat);
        }
        if origin == Origin::Router {
            if Self::switch(packet) == Some(Switch::Ipsec) {
                self.ipsec.router_speaks(now, packet.dst);
            }
            return nat.outbound(now, packet, origin);
        }
        if let Err((switch, reason)) = self.permits(packet) {
            self.complain(now, packet, switch, reason);
            nat.note(Note::VpnRefused);
            return nat.turn_away(now, packet, reason);
        }
        let by_nat = |nat: &mut Nat| nat.outbound(now, packet, origin);
        match (packet.body, packet.tuple()) {
            (Body::Udp { src_port, dst_port }, Some(tuple))
                if is_ipsec_port(src_port) || is_ipsec_port(dst_port) =>
            {
                let decision = self.ipsec.udp_outbound(now, packet, &tuple, nat, by_nat);
                self.release(now, packet.dst, nat);
                decision
            }
            (Body::Other(ESP), _) => {
                let decision = self.ipsec.esp_outbound(now, packet, nat);
                self.release(now, packet.dst, nat);
                decision
            }
            (Body::Other(AH), _) => {
                self.complain(now, packet, Switch::Ipsec, DropReason::AhUntranslatable);
                nat.turn_away(now, packet, DropReason::AhUntranslatable)
            }
            _ => by_nat(nat),
        }
    }

    /// A packet from the WAN.
    pub fn inbound(&mut self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
        if Some(packet.dst) != nat.address() || nat.in_lan(packet.src) || packet.src == packet.dst {
            return nat.inbound(now, packet, false);
        }
        if let Body::IcmpError(ref error) = packet.body {
            return self.error_inbound(now, packet, error, nat);
        }
        match (packet.body, packet.tuple()) {
            (Body::Udp { src_port, dst_port }, Some(tuple))
                if is_ipsec_port(src_port) || is_ipsec_port(dst_port) =>
            {
                let decision = match self.ipsec.udp_inbound(now, packet, &tuple, nat, &self.settings) {
                    Some(decision) => decision,
                    None => {
                        let decision = self.by_nat(now, packet, nat);
                        if let Decision::Forward(forward) = &decision {
                            self.ipsec.udp_delivered(now, packet, &tuple, forward.endpoints().1);
                        }
                        decision
                    }
                };
                self.release(now, packet.src, nat);
                decision
            }
            (Body::Other(ESP), _) => self.esp_inbound(now, packet, nat),
            (Body::Other(AH), _) => nat.inbound(now, packet, false),
            _ => self.by_nat(now, packet, nat),
        }
    }

    /// What the NAT says; where the rest is the kernel's, it may have what the NAT does not know.
    fn by_nat(&self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
        let unknown = packet.tuple().is_none_or(|tuple| nat.flow(&tuple).is_none());
        match nat.inbound(now, packet, false) {
            Decision::Drop(DropReason::Filtered) if self.is_alone() && unknown => Decision::Pass,
            decision @ (Decision::Forward(_) | Decision::Pass | Decision::Hold(_) | Decision::Drop(_)) => {
                decision
            }
        }
    }

    fn esp_inbound(&mut self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
        match self.ipsec.esp_inbound(now, packet, nat, &self.settings) {
            Inbound::Decided(decision) => {
                self.release(now, packet.src, nat);
                decision
            }
            Inbound::Wait(reason) => self.hold(now, packet, reason, nat),
        }
    }

    /// Keeps a packet until its owner is known.
    fn hold(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        reason: DropReason,
        nat: &mut Nat,
    ) -> Decision {
        if self.settings.hold.is_zero() {
            return nat.refuse(reason);
        }
        let of_remote = self.held.range((packet.src, HoldId(0))..=(packet.src, HoldId(u64::MAX))).count();
        if of_remote >= MAX_HELD_PER_REMOTE || self.held.len() >= MAX_HELD {
            return nat.refuse(DropReason::VpnHoldFull);
        }
        let id = nat.new_hold();
        nat.note(Note::VpnHeld);
        let changes = self.ipsec.changes(packet.src);
        let held =
            Held { id, until: now + self.settings.hold, reason, changes, bytes: packet.bytes.to_vec() };
        self.held.insert((packet.src, id), held);
        Decision::Hold(id)
    }

    /// Lets go what was held of `remote` and is now known.
    fn release(&mut self, now: Timestamp, remote: Ipv4Addr, nat: &mut Nat) {
        if self.held.is_empty() {
            return;
        }
        let changes = self.ipsec.changes(remote);
        let of_remote = self.held.range((remote, HoldId(0))..=(remote, HoldId(u64::MAX)));
        let waiting: Vec<HoldId> =
            of_remote.filter(|(_, held)| held.changes != changes).map(|(key, _)| key.1).collect();
        for id in waiting {
            let Some(mut held) = self.held.remove(&(remote, id)) else { continue };
            held.changes = changes;
            let Ok(packet) = PacketView::parse(&held.bytes) else { continue };
            match self.again(now, &packet, nat) {
                Inbound::Decided(decision) => release_as(id, decision, nat),
                Inbound::Wait(_) => {
                    self.held.insert((remote, id), held);
                }
            }
        }
    }

    /// Asks anew about a held packet.
    fn again(&mut self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Inbound {
        match packet.body {
            Body::Other(ESP) => self.ipsec.esp_inbound(now, packet, nat, &self.settings),
            Body::Tcp(_)
            | Body::Udp { .. }
            | Body::IcmpQuery { .. }
            | Body::IcmpError(_)
            | Body::Fragment
            | Body::Other(_) => Inbound::Decided(nat.refuse(DropReason::Internal)),
        }
    }

    /// An ICMP error from the WAN that quotes a packet of a VPN.
    fn error_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        nat: &mut Nat,
    ) -> Decision {
        let Ok(quote) = PacketView::parse_quote(error.quote) else {
            return nat.refuse(DropReason::Malformed);
        };
        let owner = match quote.body {
            Body::Other(ESP) => {
                let sender = EspHeader::parse(quote.payload())
                    .and_then(|header| self.ipsec.esp_sender(quote.dst, header.spi.0));
                sender.map(|device| (device, None))
            }
            Body::Udp { .. } => {
                return match self.ipsec.ike_error(error) {
                    None => self.error_by_nat(now, packet, nat),
                    Some(Err(reason)) => nat.refuse(reason),
                    Some(Ok(device)) => match nat.judge_error(error) {
                        Some(reason) => nat.refuse(reason),
                        None => self.error_about_shared(now, packet, error, device, nat),
                    },
                };
            }
            Body::Tcp(_) => return self.error_by_nat(now, packet, nat),
            Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment | Body::Other(_) => None,
        };
        let Some((device, edit)) = owner else {
            // The router's own, or nobody's: the kernel knows.
            return if quote.src == packet.dst && self.is_routers(&quote) {
                Decision::Pass
            } else {
                nat.refuse(DropReason::UnknownQuote)
            };
        };
        if let Some(reason) = nat.judge_error(error) {
            return nat.refuse(reason);
        }
        let outer = (packet.src, device);
        match Forward::of_error(packet, error, outer, (device, quote.dst), edit) {
            Some(mut forward) => {
                nat.carried(now, Direction::Inbound, device, packet.total_len);
                // The firewall must see that the error is related to something.
                let about = PacketView { src: quote.dst, ..quote };
                forward.admission = Some(carry::admission(&about, device, Key::None));
                Decision::Forward(forward)
            }
            None => nat.refuse(DropReason::Malformed),
        }
    }

    fn error_about_shared(
        &self,
        now: Timestamp,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        device: nat_core::flow::Endpoint,
        nat: &mut Nat,
    ) -> Decision {
        let Ok(quote) = PacketView::parse_quote(error.quote) else {
            return nat.refuse(DropReason::Malformed);
        };
        let Some(shown) = quote.tuple() else { return nat.refuse(DropReason::Malformed) };
        let original = Tuple { src: device, ..shown };
        match Forward::of_udp_error(packet, error, (packet.src, device.addr), &shown, &original) {
            Some(mut forward) => {
                nat.carried(now, Direction::Inbound, device.addr, packet.total_len);
                forward.admission = Some(carry::udp_admission(device, shown.dst));
                Decision::Forward(forward)
            }
            None => nat.refuse(DropReason::Malformed),
        }
    }

    fn error_by_nat(&self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
        match nat.inbound(now, packet, false) {
            Decision::Drop(DropReason::UnknownQuote) if self.is_alone() => Decision::Pass,
            decision @ (Decision::Forward(_) | Decision::Pass | Decision::Hold(_) | Decision::Drop(_)) => {
                decision
            }
        }
    }

    fn is_routers(&self, quote: &PacketView<'_>) -> bool {
        match quote.body {
            Body::Other(ESP | AH) => self.ipsec.router_spoke(quote.dst),
            Body::Other(_) => true,
            Body::Tcp(_)
            | Body::Udp { .. }
            | Body::IcmpQuery { .. }
            | Body::IcmpError(_)
            | Body::Fragment => false,
        }
    }

    /// An ICMP error on its way to the WAN that quotes a packet of a VPN.
    fn error_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        origin: Origin,
        nat: &mut Nat,
    ) -> Decision {
        let Ok(quote) = PacketView::parse_quote(error.quote) else {
            return nat.refuse(DropReason::Malformed);
        };
        let edit = match quote.body {
            Body::Other(ESP) => {
                let got = EspHeader::parse(quote.payload())
                    .is_some_and(|header| self.ipsec.esp_received(quote.dst, quote.src, header.spi.0));
                got.then_some(None)
            }
            Body::Tcp(_) | Body::Udp { .. } => return nat.outbound(now, packet, origin),
            Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment | Body::Other(_) => None,
        };
        let Some(edit) = edit else {
            return if origin == Origin::Router {
                nat.outbound(now, packet, origin)
            } else {
                nat.refuse(DropReason::UnknownQuote)
            };
        };
        if let Some(reason) = nat.judge_error(error) {
            return nat.refuse(reason);
        }
        let Some(wan) = nat.address() else { return nat.refuse(DropReason::NoAddress) };
        match Forward::of_error(packet, error, (wan, packet.dst), (quote.src, wan), edit) {
            Some(forward) => {
                nat.carried(now, Direction::Outbound, quote.dst, packet.total_len);
                Decision::Forward(forward)
            }
            None => nat.refuse(DropReason::Malformed),
        }
    }

    /// Says once in a while why a device's VPN does not pass.
    fn complain(&mut self, now: Timestamp, packet: &PacketView<'_>, switch: Switch, reason: DropReason) {
        let key = (packet.src, packet.dst, reason);
        if self.complaints.get(&key).is_some_and(|&last| now.since(last) < COMPLAIN_EVERY) {
            return;
        }
        if self.complaints.len() >= MAX_COMPLAINTS {
            self.complaints.retain(|_, &mut last| now.since(last) < COMPLAIN_EVERY);
            if self.complaints.len() >= MAX_COMPLAINTS {
                return;
            }
        }
        self.complaints.insert(key, now);
        log::warn!(
            "{} is refused the VPN server {}: {} (see passthrough.{})",
            packet.src,
            packet.dst,
            reason.explanation(),
            switch.name()
        );
    }

    /// Conntrack knew this flow of a protocol without ports when natd started.
    pub fn adopt(&mut self, now: Timestamp, original: &KernelTuple) {
        if original.protocol == ESP {
            self.ipsec.adopt(now, original.src.addr, original.dst.addr);
        }
    }

    /// The WAN address is another one: sessions at the old one are over.
    pub fn address_changed(&mut self, nat: &mut Nat) {
        self.ipsec.clear();
        for (_, held) in core::mem::take(&mut self.held) {
            nat.push_effect(Effect::Release { hold: held.id, outcome: Outcome::Drop });
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let held = self.held.values().map(|held| held.until).min();
        [held, self.ipsec.poll_timeout()].into_iter().flatten().min()
    }

    /// Ends what is over at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp, nat: &mut Nat) {
        let over: Vec<(Ipv4Addr, HoldId)> =
            self.held.iter().filter(|(_, held)| held.until <= now).map(|(&key, _)| key).collect();
        for key in over {
            let Some(held) = self.held.remove(&key) else { continue };
            let Ok(packet) = PacketView::parse(&held.bytes) else { continue };
            let decision = match self.again(now, &packet, nat) {
                Inbound::Decided(decision) => decision,
                Inbound::Wait(_) => nat.refuse(held.reason),
            };
            release_as(held.id, decision, nat);
        }
        self.ipsec.handle_timeout(now, &self.settings);
    }

    /// Every VPN session: those that need help, and those that the NAT alone carries.
    pub fn sessions(&self, now: Timestamp, nat: &Nat) -> Vec<TunnelView> {
        let mut views = Vec::new();
        self.ipsec.views(now, &mut views);
        let (flows, _) = nat.sessions(0, usize::MAX);
        views.extend(flows.iter().filter_map(|flow| plain(now, flow)));
        views
    }
}

/// The view of a VPN that a NAT can carry without knowing it.
fn plain(now: Timestamp, flow: &SessionView) -> Option<TunnelView> {
    let vpn = by_port(flow.protocol, flow.internal.id.0, flow.remote.id.0)
        .filter(|vpn| matches!(vpn, Vpn::OpenVpn | Vpn::WireGuard))?;
    let [sent, received] = flow.packets;
    let phase = match received {
        _ if now.since(flow.last_seen) >= Duration::from_secs(120) => Phase::Idle,
        0 => Phase::Handshake,
        _ if sent.min(received) < 4 => Phase::Established,
        _ => Phase::Data,
    };
    Some(TunnelView {
        vpn,
        device: flow.internal.addr,
        server: flow.remote.addr,
        phase,
        reason: "",
        created: flow.created,
        last_seen: flow.last_seen,
        packets: flow.packets.map(u64::from),
        bytes: flow.bytes,
        ids: Vec::new(),
        remark: "",
    })
}

fn release_as(hold: HoldId, decision: Decision, nat: &mut Nat) {
    let outcome = match decision {
        Decision::Forward(forward) => Outcome::Forward(forward),
        Decision::Pass => Outcome::Pass,
        Decision::Hold(_) | Decision::Drop(_) => Outcome::Drop,
    };
    nat.push_effect(Effect::Release { hold, outcome });
}

const fn is_udp_port(port: u16) -> bool {
    matches!(port, IKE | NAT_T | L2TP)
}

const fn is_ipsec_port(port: u16) -> bool {
    matches!(port, IKE | NAT_T)
}

const fn is_protocol(protocol: u8) -> bool {
    matches!(protocol, ESP | AH | GRE | L2TP_IP)
}

/// GRE version 1 that carries PPP (RFC 2637 section 4.1).
fn is_pptp_gre(payload: &[u8]) -> bool {
    matches!(payload, [_, version, 0x88, 0x0b, ..] if version & 7 == 1)
}

/// Does an ICMP error quote a packet of a VPN?
fn quotes_vpn(error: &IcmpError<'_>) -> bool {
    let Some(&[first, .., protocol]) = error.quote.first_chunk::<10>() else { return false };
    let ports = usize::from(first & 15) * 4;
    let port = |at| bytes::be16(error.quote, ports + at).unwrap_or(0);
    match protocol {
        17 => is_udp_port(port(0)) || is_udp_port(port(2)),
        6 => port(0) == PPTP || port(2) == PPTP,
        other => is_protocol(other),
    }
}

/// Is this a flow of a VPN, as `scope = "vpn"` means it?
pub fn is_vpn(tuple: &KernelTuple) -> bool {
    let ports = [tuple.src.id.0, tuple.dst.id.0];
    match tuple.protocol {
        17 => ports.into_iter().any(is_udp_port),
        6 => ports.contains(&PPTP),
        other => is_protocol(other),
    }
}

/// The VPN that a conversation's ports speak of: the remote one, or the device's own where a device serves. Ports
/// are a convention, not a proof.
pub fn by_port(protocol: Protocol, internal: u16, remote: u16) -> Option<Vpn> {
    let known = |port| match (protocol, port) {
        (Protocol::Udp, IKE) => Some(Vpn::Ike),
        (Protocol::Udp, NAT_T) => Some(Vpn::NatTraversal),
        (Protocol::Udp, L2TP) => Some(Vpn::L2tp),
        (Protocol::Tcp, PPTP) => Some(Vpn::Pptp),
        (Protocol::Tcp | Protocol::Udp, 1194) => Some(Vpn::OpenVpn),
        (Protocol::Udp, 51820) => Some(Vpn::WireGuard),
        (Protocol::Tcp | Protocol::Udp | Protocol::Icmp, _) => None,
    };
    known(remote).or_else(|| known(internal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vpn_is_named_by_its_server_s_port_or_the_device_s_own() {
        assert_eq!(by_port(Protocol::Udp, 40_000, 500), Some(Vpn::Ike));
        assert_eq!(by_port(Protocol::Udp, 51_820, 40_000), Some(Vpn::WireGuard));
        assert_eq!(by_port(Protocol::Tcp, 40_000, 500), None);
        assert_eq!(by_port(Protocol::Udp, 1723, 1723), None);
    }
}
