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
mod complaints;
mod errors;
pub mod esp;
pub mod gre;
mod holding;
pub mod ike;
mod ipsec;
pub mod keyed;
pub mod l2tp;
pub mod openvpn;
pub mod pptp;
pub mod refused;
pub mod settings;
pub mod sighting;
pub mod sorted;
pub mod usage;
pub mod view;
pub mod wireguard;

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::decision::{Decision, DropReason, Effect, HoldId, KernelTuple, Note, Outcome};
use nat_core::flow::{Direction, Protocol};
use nat_core::nat::{Nat, Origin};
use nat_core::packet::{Body, IcmpError, PacketView};
use nat_core::session::SessionView;
use nat_core::time::Timestamp;

use self::carry::Answer;
use self::complaints::Complaints;
use self::ipsec::{IKE, Inbound, Ipsec, NAT_T};
pub use self::ipsec::{KnownIkeSa, KnownPair, Memory, Undecided};
use self::keyed::Keyed;
use self::l2tp::L2tp;
use self::l2tp::message::PORT as L2TP;
use self::pptp::Pptp;
use self::pptp::packets::PORT as PPTP;
use self::refused::{Refusals, Refused};
use self::settings::{Access, Carrier, Scope, Settings};
use self::sorted::SortedMap;
pub use self::view::Vpn;
use self::view::{Phase, TunnelView};

const ESP: u8 = 50;
const AH: u8 = 51;
const GRE: u8 = 47;
const UDP: u8 = 17;
const L2TP_IP: u8 = 115;

/// Packets that wait for their owner, of one remote host and of all.
const MAX_HELD_PER_REMOTE: usize = 16;
const MAX_HELD: usize = 64;
/// Remote hosts to which the router itself speaks a VPN protocol, and how long that is remembered.
const MAX_ROUTER_TALKS: usize = 1024;
const ROUTER_MEMORY: Duration = Duration::from_secs(600);

/// Kinds of VPN that the owner switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Switch {
    Ipsec,
    Pptp,
    L2tp,
}

impl Switch {
    /// Why a packet is refused where the switch is off.
    const fn off(self) -> DropReason {
        match self {
            Self::Ipsec => DropReason::IpsecOff,
            Self::Pptp => DropReason::PptpOff,
            Self::L2tp => DropReason::L2tpOff,
        }
    }

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
    direction: Direction,
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
    pptp: Pptp,
    l2tp: L2tp,
    keyed: Keyed,
    /// To whom the router itself speaks, by IP protocol: 47, PPTP included; 115; 17 for L2TP over UDP.
    router: SortedMap<(Ipv4Addr, u8), Timestamp>,
    /// Packets that wait, by the remote host.
    held: SortedMap<(Ipv4Addr, HoldId), Held>,
    complaints: Complaints,
    refusals: Refusals,
}

impl Passthrough {
    /// Passthrough that knows no session yet.
    pub fn new(settings: Settings) -> Self {
        let mut this = Self {
            settings: Settings::default(),
            ipsec: Ipsec::default(),
            pptp: Pptp::default(),
            l2tp: L2tp::default(),
            keyed: Keyed::default(),
            router: SortedMap::new(),
            held: SortedMap::new(),
            complaints: Complaints::default(),
            refusals: Refusals::default(),
        };
        this.set_settings(settings);
        this
    }

    /// Takes over new settings; what they do not allow any more is refused from the next packet on.
    pub fn set_settings(&mut self, settings: Settings) {
        for (carrier, keyed) in
            [(Carrier::Gre, keyed::Carrier::Gre), (Carrier::L2tpIp, keyed::Carrier::L2tpV3)]
        {
            let server = settings.servers.iter().find(|server| server.carrier == carrier);
            self.keyed.set_server(keyed, server.map(|server| server.host));
        }
        self.keyed.set_idle(settings.gre_idle);
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
            Body::Udp { src_port, dst_port } => {
                is_udp_port(src_port)
                    || is_udp_port(dst_port)
                    || (!self.l2tp.is_empty() && !self.is_alone() && self.has_tunnel(packet))
            }
            Body::Tcp(segment) => segment.src_port == PPTP || segment.dst_port == PPTP,
            Body::Other(protocol) => is_protocol(protocol),
            Body::IcmpError(ref error) => quotes_vpn(error),
            Body::IcmpQuery { .. } | Body::Fragment => false,
        }
    }

    /// Is this of or to a host that a device has an L2TP tunnel with? Such a tunnel may use any port.
    fn has_tunnel(&self, packet: &PacketView<'_>) -> bool {
        self.l2tp.concerns(packet.dst) || self.l2tp.concerns(packet.src)
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
            return Err((switch, switch.off()));
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
            Switch::Pptp => self.pptp.taken_by_other(device, server),
            Switch::L2tp => {
                self.l2tp.taken_by_other(device, server)
                    || self.keyed.taken_by_other(keyed::Carrier::L2tpV3, device, server)
            }
        }
    }

    /// The router itself sent this.
    fn router_speaks(&mut self, now: Timestamp, packet: &PacketView<'_>) {
        let protocol = match packet.body {
            Body::Tcp(segment) if segment.src_port == PPTP || segment.dst_port == PPTP => GRE,
            Body::Other(protocol @ (GRE | L2TP_IP)) => protocol,
            Body::Udp { src_port, dst_port } if src_port == L2TP || dst_port == L2TP => UDP,
            Body::Tcp(_)
            | Body::Udp { .. }
            | Body::IcmpQuery { .. }
            | Body::IcmpError(_)
            | Body::Fragment
            | Body::Other(_) => return,
        };
        let key = (packet.dst, protocol);
        if self.router.len() >= MAX_ROUTER_TALKS && !self.router.contains_key(&key) {
            self.router.retain(|_, &mut last| now.since(last) < ROUTER_MEMORY);
            if self.router.len() >= MAX_ROUTER_TALKS {
                return;
            }
        }
        self.router.insert(key, now);
    }

    fn router_spoke(&self, now: Timestamp, remote: Ipv4Addr, protocol: u8) -> bool {
        self.router.get(&(remote, protocol)).is_some_and(|&last| now.since(last) < ROUTER_MEMORY)
    }

    /// What was refused lately, of at most 64 kinds; in no order.
    pub fn refusals(&self) -> &[Refused] {
        self.refusals.list()
    }

    /// A packet on its way to the WAN.
    pub fn outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        origin: Origin,
        nat: &mut Nat,
    ) -> Decision {
        let decision = self.let_out(now, packet, origin, nat);
        if let (Decision::Drop(reason), Origin::Lan) = (&decision, origin) {
            self.refusals.note(now, packet, Direction::Outbound, *reason);
        }
        decision
    }

    fn let_out(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        origin: Origin,
        nat: &mut Nat,
    ) -> Decision {
        if nat.in_lan(packet.dst) {
            // The LAN's route is gone: its sender may be outside and must not even be told.
            return nat.outbound(now, packet, origin);
        }
        if let Body::IcmpError(ref error) = packet.body {
            return self.error_outbound(now, packet, error, origin, nat);
        }
        if origin == Origin::Router {
            if Self::switch(packet) == Some(Switch::Ipsec) {
                self.ipsec.router_speaks(now, packet.dst);
            }
            self.router_speaks(now, packet);
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
            (Body::Tcp(_), _) => {
                let decided = by_nat(nat);
                self.control(now, packet, Direction::Outbound, decided, nat)
            }
            (Body::Udp { .. }, Some(tuple)) => {
                let decided = by_nat(nat);
                self.l2tp.carry_outbound(now, packet, &tuple, decided)
            }
            (Body::Other(GRE), _) if is_pptp_gre(packet.payload()) => {
                let answer = self.pptp.carry_outbound(now, packet, nat);
                self.call_answered(now, packet, Direction::Outbound, answer, nat)
            }
            (Body::Other(GRE | L2TP_IP), _) => {
                let decision = self.keyed.carry_outbound(now, packet, nat);
                if let Decision::Drop(reason) = decision {
                    self.complain_of(now, packet, reason);
                }
                decision
            }
            _ => by_nat(nat),
        }
    }

    /// A segment of PPTP's control connection, and what the NAT has `decided`.
    fn control(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        direction: Direction,
        decided: Decision,
        nat: &mut Nat,
    ) -> Decision {
        let on = self.settings.pptp.on;
        let decision = self.pptp.carry_control(now, packet, direction, decided, on, nat);
        self.release(now, far_end(packet, direction), nat);
        decision
    }

    /// What PPTP says of GRE.
    fn call_answered(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        direction: Direction,
        answer: Answer,
        nat: &mut Nat,
    ) -> Decision {
        match answer {
            Answer::Decided(decision) => {
                if let Decision::Drop(reason @ (DropReason::GreNoControl | DropReason::GreAfterStart)) =
                    decision
                {
                    self.complain_of_call(now, packet, reason);
                }
                decision
            }
            Answer::Wait { reason, until } => self.hold(now, packet, direction, reason, until, nat),
        }
    }

    /// A packet from the WAN.
    pub fn inbound(&mut self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
        let decision = self.let_in(now, packet, nat);
        if let Decision::Drop(reason) = &decision {
            if refused::matters_inbound(*reason) {
                self.refusals.note(now, packet, Direction::Inbound, *reason);
            }
        }
        decision
    }

    fn let_in(&mut self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
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
            (Body::Tcp(segment), _) => {
                if segment.dst_port == PPTP && self.is_closed_to_strangers(Switch::Pptp, Protocol::Tcp, nat) {
                    return nat.refuse(DropReason::PptpOff);
                }
                let decided = self.by_nat(now, packet, nat);
                self.control(now, packet, Direction::Inbound, decided, nat)
            }
            (Body::Udp { dst_port, .. }, Some(tuple)) => {
                if dst_port == L2TP && self.is_closed_to_strangers(Switch::L2tp, Protocol::Udp, nat) {
                    return nat.refuse(DropReason::L2tpOff);
                }
                let own = self.router_spoke(now, packet.src, UDP);
                let alone = self.is_alone();
                let by_nat = |nat: &mut Nat| nat_says(alone, now, packet, nat);
                self.l2tp.carry_inbound(now, packet, &tuple, own, nat, by_nat)
            }
            (Body::Other(GRE), _) if is_pptp_gre(packet.payload()) => {
                let answer = self.call_inbound(now, packet, nat);
                self.call_answered(now, packet, Direction::Inbound, answer, nat)
            }
            (Body::Other(protocol @ (GRE | L2TP_IP)), _) => {
                let own = self.router_spoke(now, packet.src, protocol);
                let on = protocol == GRE || self.settings.l2tp.on;
                self.keyed.carry_inbound(now, packet, own, on, nat)
            }
            _ => self.by_nat(now, packet, nat),
        }
    }

    /// Is a kind of VPN off that the owner forwards to a server on the LAN?
    fn is_closed_to_strangers(&self, switch: Switch, protocol: Protocol, nat: &Nat) -> bool {
        let port = if switch == Switch::Pptp { PPTP } else { L2TP };
        !self.access(switch).on && nat.policy().has_forward(protocol, port)
    }

    fn call_inbound(&mut self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Answer {
        let own = self.router_spoke(now, packet.src, GRE);
        self.pptp.carry_inbound(now, packet, own, self.settings.pptp.on, nat)
    }

    fn by_nat(&self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
        nat_says(self.is_alone(), now, packet, nat)
    }

    fn esp_inbound(&mut self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
        match self.ipsec.esp_inbound(now, packet, nat, &self.settings) {
            Inbound::Decided(decision) => {
                self.release(now, packet.src, nat);
                decision
            }
            Inbound::Wait(reason) => {
                let until = now + self.settings.hold;
                self.hold(now, packet, Direction::Inbound, reason, until, nat)
            }
        }
    }

    /// What must outlive natd, so that IPsec goes on after a restart.
    pub fn memory(&self) -> Memory {
        self.ipsec.memory()
    }

    /// Has [`Self::memory`] changed for the first time since [`Self::take_news`]?
    #[inline]
    pub fn tells_news(&mut self) -> bool {
        self.ipsec.tells_news()
    }

    /// Has [`Self::memory`] changed since this was asked?
    pub fn take_news(&mut self) -> bool {
        self.ipsec.take_news()
    }

    /// Takes up what was known before natd was restarted; before [`Self::adopt`].
    pub fn recall(&mut self, now: Timestamp, memory: &Memory) {
        self.ipsec.recall(now, memory);
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
        self.pptp.clear();
        self.l2tp.clear();
        self.keyed.clear();
        for (_, held) in core::mem::take(&mut self.held) {
            nat.push_effect(Effect::Release { hold: held.id, outcome: Outcome::Drop });
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let held = self.held.values().map(|held| held.until).min();
        let vpns = [
            self.ipsec.poll_timeout(),
            self.pptp.next_tick(),
            self.l2tp.poll_timeout(),
            self.keyed.poll_timeout(),
            self.complaints.poll_timeout(),
        ];
        vpns.into_iter().chain([held]).flatten().min()
    }

    /// Ends what is over at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp, nat: &mut Nat) {
        let over: Vec<(Ipv4Addr, HoldId)> =
            self.held.iter().filter(|(_, held)| held.until <= now).map(|(&key, _)| key).collect();
        for key in over {
            let Some(held) = self.held.remove(&key) else { continue };
            let Ok(packet) = PacketView::parse(&held.bytes) else { continue };
            let decision = match self.again(now, &packet, held.direction, nat) {
                Answer::Decided(decision) => decision,
                Answer::Wait { .. } => nat.refuse(held.reason),
            };
            if let Decision::Drop(reason) = &decision {
                self.refusals.note(now, &packet, held.direction, *reason);
            }
            release_as(held.id, decision, nat);
        }
        self.ipsec.handle_timeout(now, &self.settings);
        self.pptp.tick(now, nat);
        self.l2tp.handle_timeout(now);
        self.keyed.handle_timeout(now);
        self.complaints.handle_timeout(now);
    }

    /// Every VPN session: those that need help, and those that the NAT alone carries.
    pub fn sessions(&self, now: Timestamp, nat: &Nat) -> Vec<TunnelView> {
        let mut views = Vec::new();
        self.ipsec.views(now, &mut views);
        self.pptp.report(now, &mut views);
        self.l2tp.report(now, &mut views);
        self.keyed.report(now, &mut views);
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

/// What the NAT says; where the rest is the kernel's (`alone`), it may have what the NAT does not know.
fn nat_says(alone: bool, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
    let unknown = packet.tuple().is_none_or(|tuple| nat.flow(&tuple).is_none());
    match nat.inbound(now, packet, false) {
        Decision::Drop(DropReason::Filtered) if alone && unknown => Decision::Pass,
        decision @ (Decision::Forward(_) | Decision::Pass | Decision::Hold(_) | Decision::Drop(_)) => {
            decision
        }
    }
}

/// The host on the WAN.
const fn far_end(packet: &PacketView<'_>, direction: Direction) -> Ipv4Addr {
    match direction {
        Direction::Outbound => packet.dst,
        Direction::Inbound => packet.src,
    }
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
