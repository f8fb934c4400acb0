//! OpenVPN, over UDP and over TCP.
//!
//! # Theory of operation
//!
//! A client begins with a hard reset that carries its session ID, again after 2, 4, 8 … seconds; the server's
//! reset answers. TLS follows in control packets, for which both sides have a minute, then data packets, which
//! carry no session ID: they belong to the conversation of their ports. A client that got no further begins again
//! with another ID, mostly from another port; that is another attempt. A soft reset renews keys.
//!
//! With tls-auth or tls-crypt the server is silent to whoever lacks its key, so a reset without answer does not
//! tell a wrong key from a closed line.

use core::time::Duration;
use std::collections::VecDeque;

use nat_core::time::Timestamp;
use passthrough::openvpn::{Opcode, Packet, read_tcp, read_udp};
use passthrough::sighting::Sighting;
use passthrough::view::{Phase, Vpn};

use crate::attempts::{Attempts, CERTAIN, SENDS};
use crate::code::{Code, Party};
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::flow::{self, Flow};
use crate::household::Context;
use crate::line::control;
use crate::observation::{IcmpReport, Observation, Passage, Trace, Transport};
use crate::session::Session;

/// Conversations that are remembered.
const CONVERSATIONS: usize = 8;
/// Both sides agree within that time, or the client begins again (--hand-window).
const HAND_WINDOW: Duration = Duration::from_secs(60);
/// Without a packet for that long it is over: new keys are agreed on every hour. Sooner nothing is certain, of
/// data only one packet in 32 is seen live.
const OVER: Duration = Duration::from_secs(3900);
/// A larger packet is no keepalive: 16 bytes, encrypted.
const PING: u32 = 96;
/// No payload for that long: keepalives only.
const PAUSE: Duration = Duration::from_secs(60);
/// No packet for that long: idle.
const IDLE: Duration = Duration::from_secs(120);
/// What goes quiet so long after the server's TLS, with nothing unanswered, is agreed on.
const SETTLED: Duration = Duration::from_secs(5);
/// New keys are agreed on within that time as a rule.
const REKEY: Duration = Duration::from_secs(5);
/// A client that begins again so soon is the same one that failed before.
const AGAIN: Duration = Duration::from_secs(120);
/// A reset in the clear, with and without the flags of early negotiation.
const PLAIN_RESET: [u32; 2] = [14, 20];
/// Resets under tls-crypt, the same.
const CRYPT_RESET: [u32; 2] = [54, 60];
/// How a connection ends.
const RESET: &str = "reset by the server";
const HUNG_UP: &str = "closed by the server";
/// TCP's packets come behind their length.
const LENGTH: u32 = 2;

/// What was seen of OpenVPN between a device and a server.
#[derive(Debug, Default)]
pub struct Tracker {
    talks: VecDeque<Talk>,
    count: u32,
}

/// What the first packet shows of the control channel's protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    Unknown,
    None,
    TlsAuth,
    TlsCrypt,
    TlsCryptV2,
}

/// A conversation, from one client reset to the next.
#[derive(Debug)]
struct Talk {
    attempt: u32,
    flow: Flow,
    client: Option<u64>,
    guard: Guard,
    resets: Option<Attempts>,
    answered: Option<Mark>,
    /// Control packets outbound since the last inbound packet.
    control: Option<Attempts>,
    /// The last control packet outbound.
    controlled: Option<Mark>,
    /// How many of them, up to a few.
    said: u8,
    /// Did TLS of the server's come?
    served: bool,
    /// The length of the last packet of it.
    served_last: Option<u32>,
    /// Was TLS quiet after that, with nothing unanswered?
    settled: bool,
    /// The first data packet outbound and inbound.
    data: [Option<Mark>; 2],
    payload: Option<Mark>,
    rekey: Option<Mark>,
    closed: Option<&'static str>,
}

impl Tracker {
    /// Is this a packet of a conversation known to be OpenVPN's, though nothing in it shows that?
    pub fn owns(&self, seen: &Observation<'_>) -> bool {
        seen.sighting.is_none() && self.talks.iter().any(|talk| talk.flow.holds(seen))
    }

    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        let packet = match (seen.sighting, seen.transport) {
            (Some(Sighting::OpenVpn(packet)), _) => Some(packet),
            (_, Transport::Udp) => read_udp(seen.payload),
            (_, Transport::Tcp(_)) => read_segment(seen),
            (_, Transport::Other(_)) => return,
        };
        let known = self.talks.iter().rposition(|talk| talk.flow.holds(seen));
        let client = packet.filter(|packet| seen.is_outbound() && resets(packet.opcode));
        let begins = client.is_some_and(|packet| {
            let talk = known.and_then(|at| self.talks.get(at));
            talk.is_none_or(|talk| talk.client.is_some_and(|client| Some(client) != packet.session))
        });
        let talk = match known.and_then(|at| self.talks.get_mut(at)) {
            Some(talk) if !begins => talk,
            older => {
                if let Some(older) = older {
                    older.closed.get_or_insert("begun again");
                }
                // Bytes in the middle of a TCP stream begin nothing.
                if packet.is_none() {
                    return;
                }
                if self.talks.len() >= CONVERSATIONS {
                    self.talks.pop_front();
                }
                self.count = self.count.wrapping_add(1);
                self.talks.push_back(Talk::new(self.count, seen));
                self.talks.back_mut().expect("just pushed")
            }
        };
        talk.observe(seen, packet);
    }

    /// Takes note of an ICMP error about one of its packets.
    pub fn error(&mut self, report: &IcmpReport) {
        // The newest of these ports.
        let _known = self.talks.iter_mut().rev().any(|talk| talk.flow.error(report));
    }

    /// Takes note of what became of a packet inside the router.
    pub fn passage(&mut self, trace: &Trace, passage: Passage) {
        let _known = self.talks.iter_mut().rev().any(|talk| talk.flow.passage(trace, passage));
    }

    /// What is wrong.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        for (at, talk) in self.talks.iter().enumerate() {
            let later = || self.talks.iter().skip(at + 1);
            let on_tcp = self.talks.iter().rfind(|other| {
                other.flow.ports.0 == 6 && other.answers() && other.flow.last_seen() >= talk.flow.first.at
            });
            let died =
                self.talks.iter().any(|other| other.attempt != talk.attempt && other.flow.died_early());
            let resumed =
                later().find(|next| next.works() && next.flow.first.at.since(talk.flow.last_seen()) <= AGAIN);
            let again = later().any(|next| next.flow.first.at.since(talk.flow.last_seen()) <= AGAIN);
            talk.findings(context, &Others { on_tcp, died, resumed, again }, findings);
        }
    }

    /// The sessions; device and server are filled in later.
    pub fn sessions(&self, now: Timestamp, sessions: &mut Vec<Session>) {
        for (at, talk) in self.talks.iter().enumerate() {
            let (protocol, _, port) = talk.flow.ports;
            let again = self.talks.iter().skip(at + 1).any(|next| {
                let (other, _, server_port) = next.flow.ports;
                (other, server_port) == (protocol, port) && next.flow.first.at >= talk.flow.last_seen()
            });
            sessions.push(talk.session(now, again));
        }
    }
}

/// The first packet in a TCP segment, if all of it was sent: of what was seen the end may be cut off.
fn read_segment(seen: &Observation<'_>) -> Option<Packet> {
    let (&[high, low], rest) = seen.payload.split_first_chunk()?;
    let whole = u32::from(u16::from_be_bytes([high, low])) + 2 <= seen.payload_len;
    let is_cut = u32::try_from(seen.payload.len()).is_ok_and(|seen_len| seen_len < seen.payload_len);
    if whole && is_cut { read_udp(rest) } else { read_tcp(seen.payload) }
}

/// What other conversations of the pair show.
struct Others<'a> {
    /// One over TCP is answered.
    on_tcp: Option<&'a Talk>,
    /// One broke off soon after it began.
    died: bool,
    /// A later one works.
    resumed: Option<&'a Talk>,
    /// The client began again.
    again: bool,
}

impl Talk {
    fn new(attempt: u32, seen: &Observation<'_>) -> Self {
        Self {
            attempt,
            flow: Flow::new(seen),
            client: None,
            guard: Guard::Unknown,
            resets: None,
            answered: None,
            control: None,
            controlled: None,
            said: 0,
            served: false,
            served_last: None,
            settled: false,
            data: [None; 2],
            payload: None,
            rekey: None,
            closed: None,
        }
    }

    fn works(&self) -> bool {
        self.data.iter().all(Option::is_some)
    }

    /// Does the server speak OpenVPN with this client?
    fn answers(&self) -> bool {
        self.works() || self.answered.is_some()
    }

    /// Did TLS come to its end? Live, few data packets are shown, and of a session that only pings maybe none for
    /// minutes. But who fails sends his TLS again, closes, or begins again.
    fn agreed(&self, silent: Duration) -> bool {
        self.settled || self.data.iter().any(Option::is_some) || self.quiet(silent)
    }

    fn quiet(&self, silent: Duration) -> bool {
        self.served && self.control.is_none() && silent >= SETTLED
    }

    fn observe(&mut self, seen: &Observation<'_>, packet: Option<Packet>) {
        if let Transport::Tcp(head) = seen.transport {
            let end = match (head.rst(), head.fin(), seen.is_outbound()) {
                (true, _, true) => Some("reset by the device"),
                (true, _, false) => Some(RESET),
                (false, true, true) => Some("closed by the device"),
                (false, true, false) => Some(HUNG_UP),
                (false, false, _) => None,
            };
            if let Some(end) = end {
                self.closed.get_or_insert(end);
            }
        }
        self.settled |= self.quiet(seen.at().since(self.flow.last_seen()));
        // What only acknowledges on TCP proves that the way is open, and is no packet of OpenVPN's.
        self.flow.observe(seen);
        // What the server sends again, for want of an answer, is none itself.
        let controls = packet.is_some_and(|packet| packet.opcode == Opcode::Control);
        let again = controls && self.served_last == Some(seen.payload_len) && !self.works();
        if !seen.is_outbound() && seen.payload_len > 0 && !again {
            self.control = None;
        }
        let Some(packet) = packet else {
            // The middle of a stream that works: payload, unless it is short.
            if self.works() && seen.payload_len > PING {
                self.payload = Some(seen.mark);
            }
            return;
        };
        match packet.opcode {
            Opcode::HardResetClientV1 | Opcode::HardResetClientV2 | Opcode::HardResetClientV3 => {
                if !seen.is_outbound() {
                    return;
                }
                self.client = packet.session;
                match &mut self.resets {
                    Some(resets) => resets.again(seen.mark),
                    None => {
                        self.resets = Some(Attempts::new(seen.mark));
                        self.guard = Guard::of(packet.opcode, seen);
                    }
                }
            }
            Opcode::HardResetServerV1 | Opcode::HardResetServerV2 => {
                if !seen.is_outbound() {
                    self.answered.get_or_insert(seen.mark);
                }
            }
            Opcode::Control | Opcode::ControlWkc => {
                self.served |= !seen.is_outbound();
                if !seen.is_outbound() {
                    self.served_last = Some(seen.payload_len);
                }
                if seen.is_outbound() {
                    // TLS went on though it had seemed to be over; new keys begin with a reset of their own.
                    self.settled &= self.works() || self.rekey.is_some();
                    self.controlled = Some(seen.mark);
                    self.said = self.said.saturating_add(1);
                    match &mut self.control {
                        Some(control) => control.again(seen.mark),
                        None => self.control = Some(Attempts::new(seen.mark)),
                    }
                }
            }
            Opcode::SoftReset => self.rekey = Some(seen.mark),
            Opcode::Ack => {}
            Opcode::DataV1 | Opcode::DataV2 => {
                let [out, into] = &mut self.data;
                if seen.is_outbound() { out } else { into }.get_or_insert(seen.mark);
                if seen.payload_len > PING {
                    self.payload = Some(seen.mark);
                }
            }
        }
    }

    fn findings(&self, context: &Context<'_>, others: &Others<'_>, findings: &mut Findings) {
        let (vpn, attempt, since) = (Some(Vpn::OpenVpn), self.attempt, self.flow.first.at);
        let (protocol, _, port) = self.flow.ports;
        if protocol != 17 {
            self.unwelcome(context, findings);
            return self.stalled(context, others, findings);
        }
        if self.flow.refused(context, Vpn::OpenVpn, attempt, findings) {
            return;
        }
        if let Some(resets) = self.resets.filter(|resets| resets.sends >= SENDS && self.flow.heard.is_none())
        {
            let Some(sure) = resets.unanswered(context.now) else { return };
            let mut evidence = vec![resets.evidence(format!("resets to UDP {port}, no answer"))];
            if let Some(tcp) = others.on_tcp {
                let heard = tcp.flow.heard.unwrap_or(tcp.flow.first);
                evidence.push(Evidence::packet("the same server answers over TCP", heard));
                // The one over TCP does not make this one undone.
                findings.add(Code::OvpnUdpBlocked, sure, vpn, tcp.attempt, since, evidence);
                return;
            }
            let guarded = self.guard.wording();
            if let Some(guarded) = guarded {
                evidence.push(Evidence::fact(guarded));
            }
            evidence.extend(control(context, Vpn::OpenVpn));
            let finding = findings.add(Code::OvpnNoReply, sure, vpn, attempt, since, evidence);
            if guarded.is_some() {
                finding.owner = &[Party::Server, Party::Line, Party::User];
            }
            return;
        }
        let Some(silent) = self.flow.unanswered.filter(|silent| silent.sends >= SENDS) else {
            return self.stalled(context, others, findings);
        };
        if silent.unanswered(context.now) != Some(Confidence::High) {
            return self.stalled(context, others, findings);
        }
        if self.works() {
            if self.flow.left_behind(context, Vpn::OpenVpn, attempt, findings)
                || self.flow.nat_idle(context, Vpn::OpenVpn, attempt, findings)
            {
                return;
            }
            if let (Some(mut evidence), Some(next)) = (self.flow.lost_upstream(context), others.resumed) {
                evidence.push(Evidence::packet("a new conversation is answered", next.flow.first));
                findings.add(Code::NatUpstreamTimeout, Confidence::Medium, vpn, attempt, since, evidence);
                return;
            }
        }
        let alive = flow::alive_since(context, silent.first);
        // Before there is data, a server that dislikes the certificate is as silent.
        // And live only a client that begins again shows that nothing came.
        let certain = self.works() && (others.again || !context.vantage.router);
        if certain && self.flow.died_early() && (others.died || alive.is_some()) {
            let sure = if others.died && alive.is_some() { Confidence::High } else { Confidence::Medium };
            let mut evidence = vec![silent.evidence("sent after the last answer, no answer")];
            if others.died {
                evidence.push(Evidence::fact("another conversation broke off as soon"));
            }
            evidence.extend(alive);
            findings.add(Code::DpiUdpBlackhole, sure, vpn, attempt, since, evidence);
            return;
        }
        self.stalled(context, others, findings);
    }

    /// Over TCP a reset is sent once; a server that does not want it closes, or says nothing. What a RST means
    /// is told by [`crate::tls`].
    fn unwelcome(&self, context: &Context<'_>, findings: &mut Findings) {
        let Some(resets) = self.resets.filter(|_| self.answered.is_none() && self.data == [None; 2]) else {
            return;
        };
        let mut evidence = vec![resets.evidence("reset sent over TCP, no answer")];
        if self.closed == Some(HUNG_UP) {
            evidence.push(Evidence::fact(HUNG_UP));
        } else if self.closed == Some(RESET) || context.now.since(resets.first.at) < CERTAIN {
            return;
        }
        evidence.extend(self.guard.wording().map(Evidence::fact));
        let (attempt, since) = (self.attempt, self.flow.first.at);
        let vpn = Some(Vpn::OpenVpn);
        let finding = findings.add(Code::OvpnNoReply, Confidence::Medium, vpn, attempt, since, evidence);
        // The line let the connection pass.
        finding.owner = &[Party::Server, Party::User, Party::Line];
    }

    /// The reset was answered, and TLS does not come to an end.
    fn stalled(&self, context: &Context<'_>, others: &Others<'_>, findings: &mut Findings) {
        let (Some(answered), Some(last)) = (self.answered, self.controlled) else { return };
        if self.data.iter().any(Option::is_some) {
            return;
        }
        let waited = context.now.since(answered.at);
        let silent = self.control.filter(|control| control.sends >= SENDS);
        let sure = match silent.and_then(|control| control.unanswered(context.now)) {
            Some(_) if waited >= HAND_WINDOW || others.again => Confidence::High,
            Some(Confidence::High) => Confidence::Medium,
            _ if self.waits(context.now) => Confidence::Medium,
            // It goes back and forth, and a minute is long.
            _ if last.at.since(answered.at) >= HAND_WINDOW / 2 && (waited >= HAND_WINDOW || others.again) => {
                Confidence::Medium
            }
            _ => return,
        };
        let mut evidence = vec![Evidence::packet("the server answers the reset", answered)];
        if let Some(control) = silent {
            evidence.push(control.evidence("TLS packets, no answer"));
        } else if self.waits(context.now) {
            let what = "the server has this TLS packet, and its own part does not come or broke off";
            evidence.push(Evidence::packet(what, last));
        } else {
            evidence.push(Evidence::packet("TLS still goes on, no data yet", last));
        }
        if self.lacks_large() {
            evidence.push(Evidence::fact("the server acknowledges, but its own, larger packets do not come"));
        }
        let since = self.flow.first.at;
        findings.add(Code::OvpnTlsStall, sure, Some(Vpn::OpenVpn), self.attempt, since, evidence);
    }

    /// The server has acknowledged the client's TLS, and its own part does not come or broke off: what it sends again
    /// does not come either.
    fn waits(&self, now: Timestamp) -> bool {
        // Over TCP not every part of a stream is shown.
        let (protocol, ..) = self.flow.ports;
        (self.said == 1 && self.served || protocol == 17 && !self.served)
            && self.control.is_none()
            && self.closed.is_none()
            && now.since(self.flow.last_seen()) >= CERTAIN
    }

    /// Small packets of the server's come, its TLS does not.
    fn lacks_large(&self) -> bool {
        let [_, packets] = self.flow.packets;
        !self.served && packets >= 3
    }

    /// `again`: the client began again after its last packet.
    fn session(&self, now: Timestamp, again: bool) -> Session {
        let silent = now.since(self.flow.last_seen());
        let reason = self.closed.or_else(|| match () {
            () if again && self.flow.heard.is_some() => Some("begun again"),
            // Live, a session that is joined may show pings of one side only for a while.
            () if self.flow.heard.is_none() && self.resets.is_some() => {
                (silent >= HAND_WINDOW).then_some("no answer")
            }
            () if !self.agreed(silent) && self.resets.is_some() => {
                (silent >= HAND_WINDOW).then_some("TLS came to no end")
            }
            () if silent >= OVER => {
                Some(if self.flow.unanswered.is_some() { "answered no more" } else { "ended" })
            }
            () => None,
        });
        let phase = if reason.is_some() {
            Phase::Closed
        } else if !self.agreed(silent) {
            Phase::Handshake
        } else if self.rekey.is_some_and(|rekey| now.since(rekey.at) < REKEY) {
            Phase::Rekey
        } else if silent >= IDLE {
            Phase::Idle
        } else if !self.works() {
            Phase::Established
        } else if self.payload.is_some_and(|last| now.since(last.at) < PAUSE) {
            Phase::Data
        } else {
            Phase::Keepalive
        };
        self.flow.session(Vpn::OpenVpn, self.attempt, phase, reason.unwrap_or(""))
    }
}

impl Guard {
    fn of(opcode: Opcode, seen: &Observation<'_>) -> Self {
        let tcp = matches!(seen.transport, Transport::Tcp(_));
        let length = if tcp { seen.payload_len.saturating_sub(LENGTH) } else { seen.payload_len };
        if opcode == Opcode::HardResetClientV3 {
            Self::TlsCryptV2
        } else if PLAIN_RESET.contains(&length) {
            Self::None
        } else if CRYPT_RESET.contains(&length) && replay_at_9(seen.payload, tcp) {
            // As long as tls-auth's with SHA-256, which has its replay number elsewhere.
            Self::TlsCrypt
        } else {
            Self::TlsAuth
        }
    }

    const fn wording(self) -> Option<&'static str> {
        match self {
            Self::Unknown | Self::None => None,
            Self::TlsAuth => Some("tls-auth: the server is silent to a wrong key"),
            Self::TlsCrypt => Some("tls-crypt: the server is silent to a wrong key"),
            Self::TlsCryptV2 => Some("tls-crypt-v2: the server is silent to a wrong key"),
        }
    }
}

/// Does a small replay number follow the session ID, as tls-crypt has it?
fn replay_at_9(payload: &[u8], tcp: bool) -> bool {
    let at = if tcp { 11 } else { 9 };
    matches!(payload.get(at..), Some(&[0 | 0x0f, 0, 0, id, ..]) if id > 0)
}

const fn resets(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::HardResetClientV1 | Opcode::HardResetClientV2 | Opcode::HardResetClientV3)
}

#[cfg(test)]
mod tests;
