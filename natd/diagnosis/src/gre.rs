//! GRE other than PPTP's (RFC 2784, RFC 2890), and EoIP.
//!
//! # Theory of operation
//!
//! There is no handshake, and nothing that has to be answered: a tunnel is known by its packets alone. Without a
//! key nothing in them says which device they are for, so that a NAT can serve one device at each server; with
//! the key of RFC 2890 one for each key. Silence from the other side is judged only where the line cannot carry
//! GRE, where an ICMP error says so, or where another device hears the same server in the meantime.

#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::VecDeque;

use nat_core::time::Timestamp;
use passthrough::sighting::Sighting;
use passthrough::view::{Phase, Vpn};

use crate::attempts::Attempts;
use crate::code::Code;
use crate::finding::{Evidence, Findings, Mark};
use crate::household::Context;
use crate::observation::{IcmpReport, Observation, Passage, Trace, Transport};
use crate::session::Session;
use crate::tally::{Both, Flow, Unreachable, again, shared_line};

/// Tunnels that are remembered.
const TUNNELS: usize = 4;
const GRE: u8 = 47;
/// Some tunnels ask after the other side every ten seconds, some never.
const IDLE: Duration = Duration::from_secs(120);
/// One that is silent for so long is over.
const GONE: Duration = Duration::from_secs(600);

/// What was seen of plain GRE between a device and a server.
#[derive(Debug, Default)]
pub struct Tracker {
    tunnels: VecDeque<Tunnel>,
    attempts: u32,
}

#[derive(Debug)]
struct Tunnel {
    attempt: u32,
    key: Option<u32>,
    since: Mark,
    last: Mark,
    flow: Both<Flow>,
    /// What the device sent since the server's last packet.
    unheard: Option<Attempts>,
    errors: Option<Unreachable>,
}

impl Tracker {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        let (Transport::Other(GRE), Some(Sighting::Gre { key, .. })) = (seen.transport, seen.sighting) else {
            return;
        };
        let gone = |tunnel: &Tunnel| seen.at().since(tunnel.last.at) >= GONE;
        let known = self.tunnels.iter().rposition(|tunnel| tunnel.key == key && !gone(tunnel));
        let tunnel = match known.and_then(|at| self.tunnels.get_mut(at)) {
            Some(tunnel) => tunnel,
            None => self.begin(key, seen.mark),
        };
        tunnel.flow.of_mut(seen.direction).add(seen, None);
        tunnel.last = seen.mark;
        if seen.is_outbound() {
            again(&mut tunnel.unheard, seen.mark);
        } else {
            tunnel.unheard = None;
            tunnel.errors = None;
        }
    }

    fn begin(&mut self, key: Option<u32>, mark: Mark) -> &mut Tunnel {
        if self.tunnels.len() >= TUNNELS {
            self.tunnels.pop_front();
        }
        self.attempts += 1;
        self.tunnels.push_back(Tunnel {
            attempt: self.attempts,
            key,
            since: mark,
            last: mark,
            flow: Both::default(),
            unheard: None,
            errors: None,
        });
        self.tunnels.back_mut().expect("just pushed")
    }

    /// Takes note of an ICMP error about one of its packets.
    pub fn error(&mut self, report: &IcmpReport) {
        // A Call ID says that it is about PPTP.
        if report.protocol == GRE {
            let by_key = |tunnel: &&mut Tunnel| tunnel.key.unwrap_or(0) == report.id;
            if let Some(tunnel) = self.tunnels.iter_mut().rev().find(by_key) {
                Unreachable::note(&mut tunnel.errors, report);
            }
        }
    }

    /// Takes note of what became of a packet inside the router.
    pub fn passage(&mut self, trace: &Trace, passage: Passage) {
        let _ = (trace, passage);
    }

    /// What is wrong.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        let others: Vec<&Self> = context.others_to_server().filter_map(|pair| pair.gre.as_deref()).collect();
        self.judge(context, &others, findings);
    }

    fn judge(&self, context: &Context<'_>, others: &[&Self], findings: &mut Findings) {
        for tunnel in &self.tunnels {
            let Some(sent) = tunnel.unheard.filter(|sent| sent.sends >= 3) else { continue };
            let Some(sure) = sent.unanswered(context.now) else { continue };
            let who = (tunnel.attempt, tunnel.since.at);
            if tunnel.errors.is_some_and(|errors| errors.find(context, Vpn::Gre, who, findings)) {
                continue;
            }
            let mut evidence = vec![sent.evidence("GRE sent, no answer")];
            let (code, sure) = if let Some(fact) = tunnel.conflict(context, others, sent) {
                evidence.push(fact);
                (Code::GreV0Multi, sure)
            } else if let Some((sure, line)) = shared_line(context).filter(|_| tunnel.flow.inbound.count == 0)
            {
                evidence.insert(0, line);
                (Code::SharedIpv4Proto, sure)
            } else {
                continue;
            };
            findings.add(code, sure, Some(Vpn::Gre), tunnel.attempt, tunnel.since.at, evidence);
        }
    }

    /// The sessions; device and server are filled in later.
    pub fn sessions(&self, now: Timestamp, sessions: &mut Vec<Session>) {
        sessions.extend(self.tunnels.iter().map(|tunnel| {
            let Both { outbound, inbound } = &tunnel.flow;
            let quiet = now.since(tunnel.last.at);
            let (phase, reason) = match inbound.count {
                _ if quiet >= GONE => {
                    (Phase::Closed, if inbound.count == 0 { "no answer" } else { "silent" })
                }
                _ if quiet >= IDLE => (Phase::Idle, ""),
                0 => (Phase::Established, ""),
                _ => (Phase::Data, ""),
            };
            Session {
                vpn: Vpn::Gre,
                device: [0, 0, 0, 0].into(),
                server: [0, 0, 0, 0].into(),
                attempt: tunnel.attempt,
                phase,
                reason,
                since: tunnel.since.at,
                last_seen: tunnel.last.at,
                packets: [outbound.count, inbound.count],
                bytes: [outbound.bytes, inbound.bytes],
            }
        }));
    }
}

impl Tunnel {
    /// Another device that hears the server in the meantime, or natd's word that it knows of one.
    fn conflict(&self, context: &Context<'_>, others: &[&Tracker], sent: Attempts) -> Option<Evidence> {
        let pair = context.pair?;
        let mut refusals = context.router.refused(pair.device, pair.server, GRE);
        let known =
            refusals.find(|refusal| refusal.reason == "key-conflict" && refusal.last >= self.since.at);
        if let Some(refusal) = known {
            let mut fact = Evidence::fact("natd refused it: another device uses the same tunnel");
            fact.count = refusal.count;
            return Some(fact);
        }
        let theirs = others.iter().flat_map(|other| &other.tunnels).filter(|other| other.key == self.key);
        let last = theirs.filter_map(|other| other.flow.inbound.last()).max()?;
        let meanwhile = last.at > sent.first.at;
        meanwhile.then(|| Evidence::packet("the server's GRE goes to another device", last))
    }
}
