//! L2TP: version 2 (RFC 2661) and version 3 (RFC 3931), on UDP 1701 and IP protocol 115.
//!
//! # Theory of operation
//!
//! The device opens a tunnel: SCCRQ, SCCRP, SCCCN; then a session in it, whose PPP is as readable as PPTP's. A side
//! that does not want ends it with StopCCN, which has a result. Both repeat control messages until they are
//! acknowledged, and ask with HELLO whether the other one is there when nothing was heard for a minute.
//! Each names its own tunnel ID in AVP 9 of its first message; from then on headers have the receiver's.
//!
//! A `Tunnel` is what one SCCRQ began, or what runs between two ports whose SCCRQ was not seen. Nothing is seen of
//! L2TP inside IPsec; a server that wants it there says so with result 4, or not at all.
//!
//! ```text
//! .11:1701 SCCRQ, AVP 9 = 1 ⇒ 198.51.100.10:1701, at 0, 1, 3, 7, 15 s, no answer: L2TP-1701-NO-REPLY
//! .11:1701 StopCCN, result 4 ⇐                                                  : L2TP-PLAIN-REFUSED
//! ```

mod judge;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::VecDeque;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::l2tp::message::{self, Assigned, Body, Control, Kind, Message, Version};
use passthrough::sighting::Sighting;
use passthrough::view::{Phase, Vpn};

use crate::attempts::Attempts;
use crate::finding::{Findings, Mark};
use crate::household::Context;
use crate::observation::{IcmpReport, Observation, Passage, Trace, Transport};
use crate::ppp::Ppp;
use crate::session::Session;
use crate::tally::{Both, Flow, Outside, Unreachable, again};

/// Tunnels that are remembered.
const TUNNELS: usize = 6;
const PORT: u16 = 1701;
const UDP: u8 = 17;
const L2TP_IP: u8 = 115;
/// An SCCRQ that comes later than that after the last one is no repetition.
const RETRIES: Duration = Duration::from_secs(60);
/// HELLO comes once a minute and is repeated for half a minute.
const GONE: Duration = Duration::from_secs(300);

/// What was seen of L2TP between a device and a server.
#[derive(Debug, Default)]
pub struct Tracker {
    tunnels: VecDeque<Tunnel>,
    attempts: u32,
}

/// A tunnel.
#[derive(Debug)]
struct Tunnel {
    attempt: u32,
    vpn: Vpn,
    /// IP protocol and the device's port.
    carrier: (u8, u16),
    since: Timestamp,
    last: Mark,
    flow: Both<Flow>,
    /// Who opened it; `None`: not seen.
    opener: Option<Direction>,
    request: Option<Attempts>,
    /// The opener's own tunnel ID.
    assigned: Assigned,
    /// The same in version 3.
    connection: Option<u32>,
    /// May the router change the ID?
    sealed: bool,
    reply: Option<Mark>,
    connected: Option<Mark>,
    stop: Both<Option<Stop>>,
    /// The opener is to show that it knows the tunnel's secret: the Challenge AVP, 11.
    challenge: Option<Mark>,
    /// The device's request for a session, as long as it does not take that back.
    asked: Option<Mark>,
    /// A session was opened in it.
    session: Option<Mark>,
    /// The device's HELLO that is not acknowledged, or was not when it gave the tunnel up.
    hello: Option<(Attempts, u16)>,
    /// What the device sent since the server's last packet.
    unheard: Option<Attempts>,
    data: Both<Flow>,
    ppp: Ppp,
    outside: Outside,
    errors: Option<Unreachable>,
}

/// A StopCCN.
#[derive(Clone, Copy, Debug)]
struct Stop {
    mark: Mark,
    /// 0: not to be read.
    result: u16,
    error: Option<u16>,
}

impl Tracker {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        let (carrier, message) = match (seen.transport, seen.sighting) {
            (Transport::Udp, Some(Sighting::L2tp { .. })) => {
                ((UDP, seen.device_port), message::parse(seen.payload))
            }
            (Transport::Other(L2TP_IP), Some(Sighting::L2tpIp { .. })) => {
                ((L2TP_IP, 0), message::parse_ip(seen.payload))
            }
            _ => return,
        };
        let control = match message {
            Some(Message { body: Body::Control(control), .. }) => Some(control),
            _ => None,
        };
        let request = control.filter(|control| control.kind == Kind::StartRequest);
        let version3 = carrier.0 == L2TP_IP
            || matches!(seen.sighting, Some(Sighting::L2tp { version: 3, .. }))
            || message.is_some_and(|message| message.to.version() == Version::V3);
        let vpn = if version3 { Vpn::L2tpV3 } else { Vpn::L2tp };
        let known = self.tunnels.iter().rposition(|tunnel| match &request {
            Some(request) => tunnel.repeats(carrier, seen, request),
            None => tunnel.carrier == carrier && tunnel.vpn == vpn,
        });
        // Answers may come from and go to other ports than 1701, but then the device's is the same.
        let tunnel = match known.and_then(|at| self.tunnels.get_mut(at)) {
            Some(tunnel) => tunnel,
            None => self.begin(vpn, carrier, seen.mark),
        };
        tunnel.packet(seen, message.as_ref(), control.as_ref());
    }

    fn begin(&mut self, vpn: Vpn, carrier: (u8, u16), mark: Mark) -> &mut Tunnel {
        if self.tunnels.len() >= TUNNELS {
            self.tunnels.pop_front();
        }
        self.attempts += 1;
        self.tunnels.push_back(Tunnel {
            attempt: self.attempts,
            vpn,
            carrier,
            since: mark.at,
            last: mark,
            flow: Both::default(),
            opener: None,
            request: None,
            assigned: Assigned::Absent,
            connection: None,
            sealed: false,
            reply: None,
            connected: None,
            stop: Both::default(),
            challenge: None,
            asked: None,
            session: None,
            hello: None,
            unheard: None,
            data: Both::default(),
            ppp: Ppp::default(),
            outside: Outside::default(),
            errors: None,
        });
        self.tunnels.back_mut().expect("just pushed")
    }

    /// Takes note of an ICMP error about one of its packets.
    pub fn error(&mut self, report: &IcmpReport) {
        let carrier = match report.protocol {
            UDP if report.server_port == PORT => (UDP, report.device_port),
            L2TP_IP => (L2TP_IP, 0),
            _ => return,
        };
        if let Some(tunnel) = self.tunnels.iter_mut().rev().find(|tunnel| tunnel.carrier == carrier) {
            Unreachable::note(&mut tunnel.errors, report);
        }
    }

    /// Takes note of what became of a packet inside the router.
    pub fn passage(&mut self, trace: &Trace, passage: Passage) {
        let carrier = (trace.protocol, trace.device_port);
        if let Some(tunnel) = self.tunnels.iter_mut().rev().find(|tunnel| tunnel.carrier == carrier) {
            tunnel.outside.note(trace.mark, passage);
        }
    }

    /// What is wrong.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        let others: Vec<&Self> = context.others_to_server().filter_map(|pair| pair.l2tp.as_deref()).collect();
        self.judge(context, &others, findings);
    }

    /// The sessions; device and server are filled in later.
    pub fn sessions(&self, now: Timestamp, sessions: &mut Vec<Session>) {
        sessions.extend(self.tunnels.iter().map(|tunnel| {
            let (phase, reason) = tunnel.phase(now);
            let Both { outbound, inbound } = &tunnel.flow;
            Session {
                vpn: tunnel.vpn,
                device: [0, 0, 0, 0].into(),
                server: [0, 0, 0, 0].into(),
                attempt: tunnel.attempt,
                phase,
                reason,
                since: tunnel.since,
                last_seen: tunnel.last.at,
                packets: [outbound.count, inbound.count],
                bytes: [outbound.bytes, inbound.bytes],
            }
        }));
    }
}

impl Tunnel {
    /// Is this SCCRQ this tunnel's again?
    fn repeats(&self, carrier: (u8, u16), seen: &Observation<'_>, request: &Control) -> bool {
        let same_id = match (self.assigned, request.assigned_tunnel) {
            (Assigned::Clear { id: one, .. }, Assigned::Clear { id: other, .. }) => one == other,
            (one, other) => one == other && self.connection == request.assigned_connection,
        };
        let recent = self.request.is_some_and(|last| seen.at().since(last.last.at) < RETRIES);
        let over = self.stop.outbound.is_some() || self.stop.inbound.is_some();
        self.carrier == carrier && self.opener == Some(seen.direction) && same_id && recent && !over
    }

    fn packet(&mut self, seen: &Observation<'_>, message: Option<&Message>, control: Option<&Control>) {
        self.flow.of_mut(seen.direction).add(seen, None);
        self.last = seen.mark;
        if seen.is_outbound() {
            again(&mut self.unheard, seen.mark);
        } else {
            self.unheard = None;
            if self.stop.outbound.is_none() {
                self.hello = None;
            }
        }
        if let Some(control) = control {
            self.control(seen, control);
        } else if !matches!(message, Some(Message { body: Body::Ack, .. })) {
            self.data.of_mut(seen.direction).add(seen, None);
            if let Some(frame) = frame(seen) {
                self.ppp.read(seen.direction, seen.mark, frame);
            }
        }
    }

    fn control(&mut self, seen: &Observation<'_>, control: &Control) {
        let skip = if self.carrier.0 == L2TP_IP { 4 } else { 0 };
        let avp = |attribute| message::value(seen.payload.get(skip..)?, attribute);
        let opened_here = self.opener == Some(Direction::Outbound);
        match control.kind {
            Kind::StartRequest => {
                self.opener = Some(seen.direction);
                self.assigned = control.assigned_tunnel;
                self.connection = control.assigned_connection;
                self.sealed = control.digest || control.assigned_tunnel == Assigned::Hidden;
                again(&mut self.request, seen.mark);
            }
            Kind::StartReply if opened_here != seen.is_outbound() => {
                self.reply.get_or_insert(seen.mark);
                self.challenge = avp(11).map(|_| seen.mark);
            }
            Kind::StartConnected => {
                self.connected.get_or_insert(seen.mark);
            }
            Kind::Stop => {
                let mut numbers = avp(1)
                    .unwrap_or_default()
                    .chunks_exact(2)
                    .map_while(|number| number.first_chunk().map(|&number| u16::from_be_bytes(number)));
                let (result, error) = (numbers.next().unwrap_or(0), numbers.next());
                let stop = Stop { mark: seen.mark, result, error };
                self.stop.of_mut(seen.direction).get_or_insert(stop);
            }
            Kind::Hello if seen.is_outbound() && self.stop.outbound.is_none() => {
                let number = seen.payload.get(8..).and_then(<[u8]>::first_chunk);
                let number = number.map_or(0, |&number| u16::from_be_bytes(number));
                match &mut self.hello {
                    Some((attempts, known)) if *known == number => attempts.again(seen.mark),
                    Some(_) => {}
                    None => self.hello = Some((Attempts::new(seen.mark), number)),
                }
            }
            // OCRQ; ICRQ.
            Kind::Other(7 | 10) if seen.is_outbound() => {
                self.asked.get_or_insert(seen.mark);
            }
            Kind::Disconnect if seen.is_outbound() => self.asked = None,
            // OCRP, OCCN; ICRP, ICCN.
            Kind::Other(8 | 9 | 11 | 12) => {
                self.session.get_or_insert(seen.mark);
            }
            Kind::StartReply | Kind::Hello | Kind::Disconnect | Kind::Other(_) => {}
        }
    }

    /// The first StopCCN.
    fn stopped(&self) -> Option<(Stop, Direction)> {
        let of = |direction| self.stop.of(direction).map(|stop| (stop, direction));
        [of(Direction::Outbound), of(Direction::Inbound)]
            .into_iter()
            .flatten()
            .min_by_key(|(stop, _)| stop.mark)
    }

    /// The server's StopCCN before anything worked, other than the end of a tunnel that nobody wants any more.
    fn refusal(&self) -> Option<Stop> {
        let stop = match self.stopped() {
            Some((stop, Direction::Inbound)) => stop,
            Some((_, Direction::Outbound)) | None => return None,
        };
        let used = self.session.is_some() || self.data.inbound.count > 0 || self.data.outbound.count > 0;
        let cleared = matches!(stop.result, 1 | 6);
        let wanted = match self.connected {
            None => self.request.is_some(),
            Some(_) => self.asked.is_some(),
        };
        (!used && (wanted || !cleared)).then_some(stop)
    }

    fn is_up(&self, now: Timestamp) -> bool {
        let heard = self.reply.is_some() || self.data.inbound.count > 0;
        heard && self.stopped().is_none() && now.since(self.last.at) < GONE
    }

    /// How far it is, and why it is over.
    fn phase(&self, now: Timestamp) -> (Phase, &'static str) {
        let quiet = now.since(self.last.at);
        if let Some((_, by)) = self.stopped() {
            let reason = match (by, self.refusal()) {
                _ if self.ppp.refusal().is_some() => "login refused",
                (Direction::Outbound, _) => "closed by the device",
                (Direction::Inbound, Some(stop)) => refusal_words(stop.result),
                (Direction::Inbound, None) => "closed by the server",
            };
            return (Phase::Closed, reason);
        }
        let answered = self.flow.inbound.count > 0;
        let asked = self.request.is_some() && self.opener == Some(Direction::Outbound);
        if asked && !answered {
            let reason = if self.errors.is_some() { "unreachable" } else { "no answer" };
            let over = quiet >= RETRIES || self.errors.is_some();
            return if over { (Phase::Closed, reason) } else { (Phase::Handshake, "") };
        }
        let data = self.data.outbound.last().max(self.data.inbound.last());
        let phase = match data {
            _ if quiet >= GONE => return (Phase::Closed, "silent"),
            _ if quiet >= Duration::from_secs(120) => Phase::Idle,
            Some(last) if now.since(last.at) < Duration::from_secs(60) => Phase::Data,
            Some(_) => Phase::Keepalive,
            None if self.opener.is_some() && self.connected.is_none() => Phase::Handshake,
            None => Phase::Established,
        };
        (phase, "")
    }
}

/// What a StopCCN says (RFC 2661 section 4.4.2).
const fn refusal_words(result: u16) -> &'static str {
    match result {
        1 => "refused by the server: clears the tunnel",
        2 => "refused by the server: general error",
        3 => "refused by the server: control channel already exists",
        4 => "refused by the server: not authorised",
        5 => "refused by the server: protocol version",
        6 => "refused by the server: shutting down",
        _ => "refused by the server",
    }
}

/// The PPP frame in a data message of version 2 (RFC 2661 section 3.1).
fn frame<'a>(seen: &Observation<'a>) -> Option<&'a [u8]> {
    let &[high, low, ..] = seen.payload else { return None };
    let flags = u16::from_be_bytes([high, low]);
    if flags & 0x800f != 2 {
        return None;
    }
    let mut at = 6;
    at += if flags & 0x4000 != 0 { 2 } else { 0 };
    at += if flags & 0x0800 != 0 { 4 } else { 0 };
    if flags & 0x0200 != 0 {
        let size = seen.payload.get(at..)?.first_chunk().map(|&size| u16::from_be_bytes(size))?;
        at += 2 + usize::from(size);
    }
    seen.payload.get(at..)
}
