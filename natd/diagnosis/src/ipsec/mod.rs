//! IPsec: IKE of both versions, ESP as it is and in UDP, AH.
//!
//! An IKE SA is told by the SPI of its initiator, which stands in every message of it, on 500 as on 4500. What it
//! agrees on is encrypted: that keys for ESP exist shows by ESP, by a Quick Mode that was answered, or by an
//! answer to IKE_AUTH that is too long for a refusal. ESP belongs to the IKE SA that was agreed on last.
//! A rekeyed IKEv2 SA has a new SPI that nobody announces: a message with an unknown SPI that opens nothing, soon
//! after keys were renewed, goes on with the old one.

mod child;
mod death;
mod esp;
mod exchange;
mod handshake;
mod line;
mod session;
#[cfg(test)]
mod tests;

use core::ops::Deref;
use core::time::Duration;
use std::net::IpAddr;

use nat_core::time::Timestamp;
use passthrough::ike::{IkeHeader, IkeSpi, invalid_spi};
use passthrough::sighting::Sighting;
use passthrough::view::Vpn;

use self::child::Children;
use self::exchange::{Sa, side};
use crate::attempts::Attempts;
use crate::code::Code;
use crate::finding::{Confidence, Evidence, Finding, Findings, Mark};
use crate::household::Context;
use crate::observation::{Fragment, IcmpKind, IcmpReport, Observation, Passage, Point, Trace};
use crate::pair::Pair;
use crate::session::Session;

/// IKE SAs that are remembered.
const SAS: usize = 8;
/// Kinds of ICMP errors, flows, pieces and foreign SPIs that are remembered.
const FEW: usize = 8;
/// Soon after new keys were asked for, an unknown SPI is the old SA's new one.
const RENAMED: Duration = Duration::from_secs(120);

/// What comes that long after a refusal is a new try.
const NEW_TRY: Duration = Duration::from_secs(3);

/// An ICMP error and its repetitions.
#[derive(Clone, Copy, Debug)]
struct Said {
    attempt: u32,
    report: IcmpReport,
    count: u64,
    first: Mark,
    last: Mark,
}

/// Ports of a device and a server, and what stands for them on the WAN. ESP has no ports: both are 0.
#[derive(Clone, Copy, Debug)]
struct Flow {
    ports: (u16, u16),
    protocol: u8,
    last: Mark,
    last_out: Option<Mark>,
    /// The last silence worth that name: its last packet before, and its first after.
    pause: Option<(Mark, Mark)>,
    wan: Option<(IpAddr, u16)>,
    moved: Option<Moved>,
    /// Inbound packets that did not reach the LAN since the last one that did or was sent.
    undelivered: Option<Attempts>,
}

/// The router gave a flow another address or port.
#[derive(Clone, Copy, Debug)]
struct Moved {
    at: Mark,
    before: (IpAddr, u16),
    after: (IpAddr, u16),
    pause: Option<(Mark, Mark)>,
}

/// A fragmented inbound datagram.
#[derive(Clone, Copy, Debug)]
struct Piece {
    ident: u32,
    first: bool,
    later: bool,
    mark: Mark,
}

/// Packets that were too large for the line, and went on being so.
#[derive(Clone, Copy, Debug)]
struct TooBig {
    mtu: u32,
    mark: Mark,
    after: Option<Attempts>,
}

/// ESP whose IKE was not seen.
#[derive(Clone, Copy, Debug)]
struct Bare {
    attempt: u32,
    first: Mark,
    last: Mark,
    packets: [u64; 2],
    bytes: [u64; 2],
}

/// What is asked about, and the other devices' pairs with the same server.
struct Scene<'a> {
    context: &'a Context<'a>,
    others: Vec<&'a Pair>,
}

impl<'a> Deref for Scene<'a> {
    type Target = Context<'a>;

    fn deref(&self) -> &Context<'a> {
        self.context
    }
}

/// What was seen of IPsec between a device and a server.
#[derive(Debug, Default)]
pub struct Tracker {
    attempts: u32,
    sas: Vec<Sa>,
    bare: Option<Bare>,
    children: Children,
    said: Vec<Said>,
    flows: Vec<Flow>,
    pieces: Vec<Piece>,
    /// Inbound IKE of SAs that are not this device's, as far as is known.
    foreign: Vec<IkeSpi>,
    /// Somebody got ESP that he has no SA for: the device 0, the server 1, with the SPI.
    unknown_spi: [Option<(u32, Attempts)>; 2],
    /// AH by direction.
    ah: [Option<Attempts>; 2],
    too_big: Option<TooBig>,
    /// The last IKE or ESP from the server.
    heard: Option<Mark>,
    /// From where the packets were seen, and the device's address there.
    seen_at: Option<(Point, IpAddr)>,
}

impl Tracker {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        self.seen_at = Some((seen.point, seen.device));
        if !seen.is_outbound() && seen.fragment != Fragment::Whole {
            self.piece(seen);
        }
        let Some(sighting) = &seen.sighting else { return };
        self.flow(seen);
        if !seen.is_outbound() {
            self.heard = Some(seen.mark);
        }
        match *sighting {
            Sighting::Ike { header, nat_t_port, message } => self.ike(&header, message, nat_t_port, seen),
            Sighting::NatTEsp(header) => self.esp(header, true, seen),
            Sighting::Esp(header) => self.esp(header, false, seen),
            Sighting::Ah(_) => {
                if let Some(ah) = self.ah.get_mut(side(seen.direction)) {
                    note(ah, seen.mark);
                }
            }
            Sighting::NatTKeepalive => {
                if let Some(sa) = self.sas.last_mut() {
                    sa.count(seen, 1);
                    sa.keepalive = Some(seen.mark);
                }
            }
            Sighting::PptpControl
            | Sighting::PptpGre { .. }
            | Sighting::Gre { .. }
            | Sighting::L2tp { .. }
            | Sighting::L2tpIp { .. }
            | Sighting::WireGuard(_)
            | Sighting::OpenVpn(_) => {}
        }
    }

    fn ike(&mut self, header: &IkeHeader, message: &[u8], marked: bool, seen: &Observation<'_>) {
        if let Some(spi) = invalid_spi(message) {
            // An INVALID_SPI from the device is about what it got.
            if let Some(known) = self.unknown_spi.get_mut(side(seen.direction)) {
                match known {
                    Some((_, attempts)) => attempts.again(seen.mark),
                    None => *known = Some((spi, Attempts::new(seen.mark))),
                }
            }
        }
        if header.initiator == IkeSpi(0) {
            return;
        }
        if let Some(sa) = self.sas.iter_mut().rev().find(|sa| sa.initiator == header.initiator) {
            let again = sa.refused() && header.is_opening() && seen.at().since(sa.last.at) >= NEW_TRY;
            if !again {
                sa.observe(header, message, marked, seen);
                return;
            }
            // Some try again with the same SPIs after a refusal.
            self.attempts += 1;
            let mut retry = Sa::again(self.attempts, sa, header, seen);
            retry.observe(header, message, marked, seen);
            self.begin(retry);
            return;
        }
        let recent = |sa: &&mut Sa| {
            let asked = sa.steps.iter().rev().find(|step| {
                matches!(step.exchange, passthrough::ike::Exchange::CreateChildSa) && step.answered.is_some()
            });
            asked.is_some_and(|step| seen.at().since(step.sends.first.at) < RENAMED)
        };
        if !header.is_opening() {
            if let Some(sa) = self.sas.iter_mut().rev().find(recent) {
                sa.renamed(header.initiator);
                sa.observe(header, message, marked, seen);
                return;
            }
            if let Some(sa) = self.sas.last_mut().filter(|_| !seen.is_outbound()) {
                // Some refuse in the clear with SPIs of their own.
                if header.is_encrypted() || header.is_response() {
                    push(&mut self.foreign, header.initiator);
                } else if sa.established.is_none() {
                    sa.observe(header, message, marked, seen);
                }
                return;
            }
        }
        if header.is_response() && !seen.is_outbound() {
            // The answer to somebody else's request.
            push(&mut self.foreign, header.initiator);
            if !self.sas.is_empty() {
                return;
            }
        }
        self.attempts += 1;
        let mut sa = Sa::new(self.attempts, header, seen);
        sa.observe(header, message, marked, seen);
        self.begin(sa);
    }

    fn begin(&mut self, sa: Sa) {
        if self.sas.len() >= SAS {
            self.sas.remove(0);
        }
        self.sas.push(sa);
    }

    fn esp(&mut self, header: passthrough::esp::EspHeader, in_udp: bool, seen: &Observation<'_>) {
        let packets = self.children.observe(header, in_udp, seen);
        if packets > 1 {
            // Packets that were not shown: it was no silence.
            let ports = (seen.device_port, seen.server_port);
            self.flows.iter_mut().filter(|flow| flow.ports == ports).for_each(|flow| flow.pause = None);
        }
        let too_big = self.too_big.as_mut().filter(|big| {
            let later = seen.at().since(big.mark.at) > Duration::from_secs(1);
            seen.is_outbound() && seen.ip_len > big.mtu && later
        });
        if let Some(big) = too_big {
            note(&mut big.after, seen.mark);
        }
        // Until a new IKE SA has agreed on something, ESP is of the one before it.
        let agreed = |sa: &&mut Sa| sa.agreed().is_some() || sa.auth.is_some();
        let owner = match self.sas.iter_mut().rev().find(agreed) {
            Some(sa) => sa,
            None => {
                let mark = seen.mark;
                let attempts = &mut self.attempts;
                let bare = self.bare.get_or_insert_with(|| {
                    *attempts += 1;
                    Bare { attempt: *attempts, first: mark, last: mark, packets: [0; 2], bytes: [0; 2] }
                });
                bare.last = mark;
                let side = side(seen.direction);
                if let (Some(sum), Some(bytes)) = (bare.packets.get_mut(side), bare.bytes.get_mut(side)) {
                    (*sum, *bytes) = (*sum + packets, *bytes + u64::from(seen.ip_len));
                }
                return;
            }
        };
        owner.count(seen, packets);
        // ESP of the device's after a refusal may be of the SA before.
        if owner.auth.is_none_or(|(_, len)| len >= exchange::SHORT) || owner.rounds > 1 {
            owner.works(seen.mark);
        }
        owner.esp_longest = owner.esp_longest.max(seen.ip_len);
        if let Some(span) = owner.esp.get_mut(side(seen.direction)) {
            *span = Some((span.map_or(seen.mark, |(first, _)| first), seen.mark));
        }
    }

    fn flow(&mut self, seen: &Observation<'_>) {
        let ports = (seen.device_port, seen.server_port);
        let protocol = seen.transport.protocol();
        let mark = seen.mark;
        let known = self.flows.iter_mut().find(|flow| (flow.ports, flow.protocol) == (ports, protocol));
        let Some(flow) = known else {
            let last_out = seen.is_outbound().then_some(mark);
            push(
                &mut self.flows,
                Flow {
                    ports,
                    protocol,
                    last: mark,
                    last_out,
                    pause: None,
                    wan: None,
                    moved: None,
                    undelivered: None,
                },
            );
            return;
        };
        if mark.at.since(flow.last.at) >= line::PAUSE {
            flow.pause = Some((flow.last, mark));
        }
        flow.last = mark;
        if seen.is_outbound() {
            flow.last_out = Some(mark);
        }
    }

    fn piece(&mut self, seen: &Observation<'_>) {
        let first = seen.fragment == Fragment::First;
        let fresh = |piece: &&mut Piece| {
            piece.ident == seen.ident && seen.at().since(piece.mark.at) < Duration::from_secs(30)
        };
        if let Some(piece) = self.pieces.iter_mut().find(fresh) {
            (piece.first, piece.later) = (piece.first || first, piece.later || !first);
        } else {
            push(&mut self.pieces, Piece { ident: seen.ident, first, later: !first, mark: seen.mark });
        }
    }

    /// Takes note of an ICMP error about one of its packets.
    pub fn error(&mut self, report: &IcmpReport) {
        if !report.about_outbound {
            return;
        }
        if let IcmpKind::TooBig(mtu) = report.kind {
            let known = self.too_big.filter(|big| big.mtu <= mtu);
            if mtu > 0 && known.is_none() {
                self.too_big = Some(TooBig { mtu, mark: report.mark, after: None });
            }
            return;
        }
        let attempt = self.sas.last().map_or(0, |sa| sa.attempt);
        let alike = |said: &&mut Said| {
            let mark = said.report.mark;
            said.attempt == attempt && said.report == IcmpReport { mark, id: said.report.id, ..*report }
        };
        if let Some(said) = self.said.iter_mut().find(alike) {
            (said.count, said.last) = (said.count + 1, report.mark);
        } else {
            let (count, first) = (1, report.mark);
            push(&mut self.said, Said { attempt, report: *report, count, first, last: first });
        }
    }

    /// Takes note of what became of a packet inside the router.
    pub fn passage(&mut self, trace: &Trace, passage: Passage) {
        let ports = (trace.device_port, trace.server_port);
        let same = |flow: &&mut Flow| (flow.ports, flow.protocol) == (ports, trace.protocol);
        let Some(flow) = self.flows.iter_mut().find(same) else { return };
        match passage {
            Passage::Left { wan, port } => {
                let after = (wan, port);
                if let Some(before) = flow.wan.filter(|before| *before != after) {
                    let pause = flow.pause.filter(|(_, end)| end.at <= trace.mark.at);
                    flow.moved = Some(Moved { at: trace.mark, before, after, pause });
                }
                flow.wan = Some(after);
                flow.undelivered = None;
            }
            Passage::Delivered => flow.undelivered = None,
            Passage::Undelivered => note(&mut flow.undelivered, trace.mark),
            Passage::Swallowed => {}
        }
    }

    /// An inbound fragment came to the router at `mark`, and others of its datagram did not.
    pub(crate) fn fragment_lost(&mut self, mark: Mark) {
        push(&mut self.pieces, Piece { ident: 0, first: true, later: false, mark });
    }

    /// What is wrong.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        self.among(&Scene { context, others: context.others_to_server().collect() }, findings);
    }

    fn among(&self, context: &Scene<'_>, findings: &mut Findings) {
        if self.refused_here(context, findings) {
            return;
        }
        self.ah(findings);
        self.handshakes(context, findings);
        self.lives(context, findings);
        self.esp_findings(context, findings);
        self.line_findings(context, findings);
    }

    /// The sessions; device and server are filled in later.
    pub fn sessions(&self, now: Timestamp, sessions: &mut Vec<Session>) {
        sessions.extend(self.sas.iter().enumerate().map(|(at, sa)| session::session(self, at, sa, now)));
        if let Some(bare) = &self.bare {
            sessions.push(session::bare(bare, now));
        }
    }

    /// The IKE SA that came after this one.
    fn after(&self, at: usize) -> Option<&Sa> {
        self.sas.get(at + 1)
    }
}

/// Adds to a few that are remembered; the oldest goes.
fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() >= FEW {
        list.remove(0);
    }
    list.push(item);
}

/// Counts something, copies aside.
fn note(known: &mut Option<Attempts>, mark: Mark) {
    match known {
        Some(known) => known.again(mark),
        None => *known = Some(Attempts::new(mark)),
    }
}

/// Adds a finding about an IKE SA.
fn find<'a>(
    findings: &'a mut Findings,
    code: Code,
    confidence: Confidence,
    sa: &Sa,
    evidence: Vec<Evidence>,
) -> &'a mut Finding {
    findings.add(code, confidence, Some(sa.vpn()), sa.attempt, sa.first.at, evidence)
}

/// The kind of VPN that is neither IKE nor behind it.
const ESP: Option<Vpn> = Some(Vpn::Esp);
