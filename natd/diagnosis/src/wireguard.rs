//! WireGuard, on whatever port (the WireGuard paper, section 6, for its timers).
//!
//! # Theory of operation
//!
//! Whoever has something to send begins: an initiation every 5 seconds until a response comes, for 90 seconds.
//! Then packets flow under a number that the receiver chose, counted from 0; every two minutes of use begin with
//! a handshake of the same two ports, and after nine minutes without use nothing is left to resume. A server is
//! silent to keys it does not know, so an initiation without answer does not tell a wrong key from a closed line;
//! but it answers packets it understood, if only with an empty one after 10 seconds, so silence after a
//! completed handshake is a matter of the way.
//!
//! Of the packets under a number those below 64 are always seen, of later ones every 64th. Nothing is concluded
//! from a later one that is not seen.

use core::time::Duration;
use std::collections::VecDeque;

use nat_core::time::Timestamp;
use passthrough::sighting::Sighting;
use passthrough::view::{Phase, Vpn};
use passthrough::wireguard::Message;

use crate::attempts::{Attempts, PATIENCE, SENDS};
use crate::code::{Code, Party};
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::flow::{self, Flow, MAPPING_LIFE};
use crate::household::Context;
use crate::line::control;
use crate::observation::{IcmpReport, Observation, Passage, Trace};
use crate::session::Session;

/// Tunnels that are remembered.
const TUNNELS: usize = 8;
/// An initiator gives up after that long.
const GIVE_UP: Duration = Duration::from_secs(90);
/// Keys are not used longer.
const KEY_LIFE: Duration = Duration::from_secs(180);
/// After that the keys are wiped, and whoever comes back begins anew.
const WIPED: Duration = Duration::from_secs(540);
/// Without a packet for that long, whoever sent payload hears at least an empty packet.
const ANSWERED: Duration = Duration::from_secs(15);
/// No payload for that long: keepalives only.
const PAUSE: Duration = Duration::from_secs(60);
/// No packet for that long: idle.
const IDLE: Duration = Duration::from_secs(120);
/// A packet without payload.
const EMPTY: u32 = 32;
/// Counters below that are always seen.
const SEEN: u64 = 64;

/// What was seen of WireGuard between a device and a server.
#[derive(Debug, Default)]
pub struct Tracker {
    tunnels: VecDeque<Tunnel>,
    count: u32,
}

/// A conversation between two ports, with one handshake after the other.
#[derive(Debug)]
struct Tunnel {
    attempt: u32,
    flow: Flow,
    /// Initiations outbound since the last response.
    asking: Option<Attempts>,
    cookie: Option<Mark>,
    /// The first response of either side, or packets both ways.
    established: Option<Mark>,
    /// Responses inbound since the device last used one, and the numbers by which it could.
    ignored: Option<Attempts>,
    responders: [u32; 2],
    responses: u64,
    /// The first and last payload, outbound and inbound.
    payload: [Option<(Mark, Mark)>; 2],
    /// The first inbound packet under a number, empty or not.
    delivered: Option<Mark>,
    counts: [Count; 2],
    missed: Missed,
}

/// Packets under the receiver's number.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    index: u32,
    last: u64,
    /// Under earlier numbers.
    before: u64,
    seen: bool,
}

/// Inbound packets that were sent in a long silence and did not come, as the counter shows.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    silences: u64,
    packets: u64,
    span: Option<(Mark, Mark)>,
}

impl Tracker {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        let Some(Sighting::WireGuard(message)) = seen.sighting else { return };
        let begins = seen.is_outbound() && matches!(message, Message::Initiation { .. });
        let known = self
            .tunnels
            .iter()
            .rposition(|tunnel| tunnel.flow.holds(seen) && !(begins && tunnel.closed(seen.at()).is_some()));
        let tunnel = match known.and_then(|at| self.tunnels.get_mut(at)) {
            Some(tunnel) => tunnel,
            None => {
                if self.tunnels.len() >= TUNNELS {
                    self.tunnels.pop_front();
                }
                self.count = self.count.wrapping_add(1);
                self.tunnels.push_back(Tunnel::new(self.count, seen));
                self.tunnels.back_mut().expect("just pushed")
            }
        };
        tunnel.observe(seen, message);
    }

    /// Takes note of an ICMP error about one of its packets.
    pub fn error(&mut self, report: &IcmpReport) {
        // The newest of these ports.
        let _known = self.tunnels.iter_mut().rev().any(|tunnel| tunnel.flow.error(report));
    }

    /// Takes note of what became of a packet inside the router.
    pub fn passage(&mut self, trace: &Trace, passage: Passage) {
        let _known = self.tunnels.iter_mut().rev().any(|tunnel| tunnel.flow.passage(trace, passage));
    }

    /// What is wrong.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        for tunnel in &self.tunnels {
            let others = || self.tunnels.iter().filter(|other| other.attempt != tunnel.attempt);
            tunnel.findings(context, others().any(|other| other.flow.died_early()), findings);
        }
    }

    /// The sessions; device and server are filled in later.
    pub fn sessions(&self, now: Timestamp, sessions: &mut Vec<Session>) {
        sessions.extend(self.tunnels.iter().map(|tunnel| tunnel.session(now)));
    }
}

impl Tunnel {
    fn new(attempt: u32, seen: &Observation<'_>) -> Self {
        Self {
            attempt,
            flow: Flow::new(seen),
            asking: None,
            cookie: None,
            established: None,
            ignored: None,
            responders: [0; 2],
            responses: 0,
            payload: [None; 2],
            delivered: None,
            counts: [Count::default(); 2],
            missed: Missed::default(),
        }
    }

    fn observe(&mut self, seen: &Observation<'_>, message: Message) {
        match (message, seen.is_outbound()) {
            (Message::Initiation { .. }, true) => match &mut self.asking {
                Some(asking) => asking.again(seen.mark),
                None => self.asking = Some(Attempts::new(seen.mark)),
            },
            (Message::Response { sender, .. }, false) => {
                self.asking = None;
                self.established.get_or_insert(seen.mark);
                let [newest, before] = &mut self.responders;
                if *newest != sender {
                    self.responses += 1;
                    (*before, *newest) = (*newest, sender);
                }
                match &mut self.ignored {
                    Some(ignored) => ignored.again(seen.mark),
                    None => self.ignored = Some(Attempts::new(seen.mark)),
                }
            }
            (Message::Response { .. }, true) => {
                self.established.get_or_insert(seen.mark);
            }
            (Message::CookieReply { .. }, false) => self.cookie = Some(seen.mark),
            (Message::Data { receiver, counter }, outbound) => self.count(seen, outbound, receiver, counter),
            (Message::Initiation { .. }, false) | (Message::CookieReply { .. }, true) => {}
        }
        self.flow.observe(seen);
    }

    fn count(&mut self, seen: &Observation<'_>, outbound: bool, receiver: u32, counter: u64) {
        let ([count_out, count_in], [payload_out, payload_in]) = (&mut self.counts, &mut self.payload);
        let (count, payload) = if outbound { (count_out, payload_out) } else { (count_in, payload_in) };
        if outbound {
            if self.responders.contains(&receiver) {
                self.ignored = None;
            }
        } else {
            self.delivered.get_or_insert(seen.mark);
            if count.seen && count.index == receiver && counter < SEEN {
                let lost = counter.saturating_sub(count.last).saturating_sub(1);
                let [_, heard] = self.flow.last;
                let late = self.flow.gap.zip(heard).is_some_and(|((_, end), heard)| {
                    heard.at < end.at && seen.at().since(end.at) <= PATIENCE
                });
                if lost > 0 && late {
                    self.missed.silences += 1;
                    self.missed.packets += lost;
                    self.missed.span =
                        Some((self.missed.span.map_or(seen.mark, |(first, _)| first), seen.mark));
                }
            }
        }
        count.add(receiver, counter);
        if seen.payload_len > EMPTY {
            *payload = Some((payload.map_or(seen.mark, |(first, _)| first), seen.mark));
        }
        if self.counts.iter().all(|count| count.seen) {
            self.established.get_or_insert(seen.mark);
        }
    }

    fn findings(&self, context: &Context<'_>, died_before: bool, findings: &mut Findings) {
        let (vpn, attempt, since) = (Some(Vpn::WireGuard), self.attempt, self.flow.first.at);
        if self.flow.refused(context, Vpn::WireGuard, attempt, findings) {
            return;
        }
        self.chronic(context, findings);
        let ignored = self.ignored.filter(|ignored| ignored.sends >= SENDS);
        if let Some((ignored, sure)) =
            ignored.and_then(|ignored| Some((ignored, ignored.unanswered(context.now)?)))
        {
            let evidence = vec![ignored.evidence("responses that the device does not use: it asks again")];
            findings.add(Code::WgLoop, sure, vpn, attempt, since, evidence);
            return;
        }
        if let Some(evidence) = self.swallowed() {
            let sure = if self.responses > SENDS { Confidence::High } else { Confidence::Medium };
            findings.add(Code::DpiUdpBlackhole, sure, vpn, attempt, since, evidence);
            return;
        }
        let silent =
            self.asking.filter(|asking| asking.sends >= SENDS && !self.flow.heard_since(asking.first));
        let Some(asking) = silent else { return };
        let Some(sure) = asking.unanswered(context.now) else { return };
        let [_, heard] = self.flow.last;
        let alive = heard.filter(|heard| asking.first.at.since(heard.at) <= KEY_LIFE);
        let mut evidence =
            vec![asking.evidence(format!("initiations to UDP {}, no answer", self.flow.ports.2))];
        let Some(heard) = alive.filter(|_| self.established.is_some()) else {
            let finding = findings.add(Code::WgNoReply, sure, vpn, attempt, since, evidence);
            if let Some(heard) = heard {
                finding.evidence.push(Evidence::packet("last answer before that", heard));
                finding.owner = &[Party::Line, Party::Server];
            } else if let Some(alive) = flow::alive_since(context, asking.first) {
                finding.evidence.push(alive);
                finding.owner = &[Party::User, Party::Line, Party::Server];
            }
            finding.evidence.extend(control(context, Vpn::WireGuard));
            return;
        };
        if self.flow.left_behind(context, Vpn::WireGuard, attempt, findings)
            || self.flow.nat_idle(context, Vpn::WireGuard, attempt, findings)
        {
            return;
        }
        evidence.insert(0, Evidence::packet("last packet from the server", heard));
        let alive = flow::alive_since(context, asking.first);
        if self.flow.died_early() && (died_before || alive.is_some()) {
            let sure = if died_before && alive.is_some() { Confidence::High } else { Confidence::Medium };
            if died_before {
                evidence.push(Evidence::fact("an earlier tunnel broke off as soon"));
            }
            evidence.extend(alive);
            findings.add(Code::DpiUdpBlackhole, sure, vpn, attempt, since, evidence);
        } else {
            evidence.extend(alive);
            findings.add(Code::WgStale, sure, vpn, attempt, since, evidence);
        }
    }

    /// What comes back again and again, though the device's next packet mends it.
    fn chronic(&self, context: &Context<'_>, findings: &mut Findings) {
        let (vpn, attempt, since) = (Some(Vpn::WireGuard), self.attempt, self.flow.first.at);
        let recurring = self.flow.expired.filter(|_| self.flow.expiries >= 2);
        let now = self.flow.forgotten(context);
        let expired = now.or(recurring.map(|expired| (Confidence::Medium, expired)));
        if let Some((sure, expired)) = expired.filter(|(_, expired)| expired.undelivered > 0) {
            // Nobody need keep a mapping longer; sooner is the router's doing.
            let code =
                if expired.silence >= MAPPING_LIFE { Code::WgNoKeepalive } else { Code::NatIdleTimeout };
            findings.add(code, sure, vpn, attempt, since, expired.evidence(context));
        }
        let Missed { silences, packets, span: Some((first, last)) } = self.missed else { return };
        if context.vantage.wan && silences >= 2 {
            let evidence = vec![
                Evidence::packets("the server's counter jumps after silence", silences, first, last),
                Evidence::fact(format!("{packets} packets were sent meanwhile and did not come")),
            ];
            let sure = if silences >= 3 { Confidence::High } else { Confidence::Medium };
            findings.add(Code::NatUpstreamTimeout, sure, vpn, attempt, since, evidence);
        }
    }

    /// Handshakes are answered, and no packet under the keys ever is.
    fn swallowed(&self) -> Option<Vec<Evidence>> {
        let [Some((first, last)), _] = self.payload else { return None };
        let nothing = self.delivered.is_none() && self.responses >= 2;
        (nothing && last.at.since(first.at) >= ANSWERED).then(|| {
            let [count, _] = self.counts;
            vec![
                Evidence::packets(
                    "handshakes answered",
                    self.responses,
                    self.flow.heard.unwrap_or(first),
                    last,
                ),
                Evidence::packets("packets with payload, no answer", count.total(), first, last),
            ]
        })
    }

    /// Why it is over; `None`: it is not.
    fn closed(&self, now: Timestamp) -> Option<&'static str> {
        let silent = now.since(self.flow.last_seen());
        let [_, heard] = self.flow.last;
        match self.asking {
            Some(_) if self.established.is_none() && heard.is_none() => {
                (silent >= GIVE_UP).then_some("no answer")
            }
            Some(asking) if !self.flow.heard_since(asking.first) => {
                (silent >= GIVE_UP).then_some("answered no more")
            }
            _ => (silent >= WIPED).then_some("not used any more"),
        }
    }

    fn session(&self, now: Timestamp) -> Session {
        let silent = now.since(self.flow.last_seen());
        let reason = self.closed(now);
        let payload = self.payload.iter().flatten().map(|(_, last)| last.at).max();
        let phase = if reason.is_some() {
            Phase::Closed
        } else if self.established.is_none() {
            Phase::Handshake
        } else if self.asking.is_some() {
            Phase::Rekey
        } else if silent >= IDLE {
            Phase::Idle
        } else if payload.is_some_and(|last| now.since(last) < PAUSE) {
            Phase::Data
        } else if self.counts.iter().any(|count| count.seen) {
            Phase::Keepalive
        } else {
            Phase::Established
        };
        let mut session = self.flow.session(Vpn::WireGuard, self.attempt, phase, reason.unwrap_or(""));
        for (packets, count) in session.packets.iter_mut().zip(&self.counts) {
            *packets = (*packets).max(count.total());
        }
        session
    }
}

impl Count {
    fn add(&mut self, index: u32, counter: u64) {
        if !self.seen {
            *self = Self { index, last: counter, before: 0, seen: true };
        } else if self.index == index {
            self.last = self.last.max(counter);
        } else if counter < SEEN {
            // Stragglers under the old number have high counters.
            *self = Self { index, last: counter, before: self.total(), seen: true };
        }
    }

    /// All packets, those that were not seen too.
    fn total(&self) -> u64 {
        if self.seen { self.before.saturating_add(self.last).saturating_add(1) } else { 0 }
    }
}

#[cfg(test)]
mod tests;
