//! PPTP (RFC 2637).
//!
//! # Theory of operation
//!
//! A device opens TCP 1723, and both sides agree on it there (SCCRQ, SCCRP) and on a call (OCRQ, OCRP); the call's
//! PPP goes in GRE, whose header has the *receiver's* Call ID. All that is readable until MPPE encrypts PPP's
//! payload: LCP, the login, and whether encryption could be agreed on.
//!
//! A `Connection` is followed from its SYN on. Control messages are read out of the
//! segments as they come; what is missing is skipped. GRE belongs to the call that announced its Call ID; seen
//! beyond a NAT that changes the IDs, or without the control connection, to the last call there is.
//!
//! ```text
//! .11 SYN, SCCRQ, OCRQ (own ID 0)          ⇒ 198.51.100.10:1723
//! .11 SYN-ACK, SCCRP 1, OCRP 1 (ID 7 to 0) ⇐
//! .11 GRE to 7: LCP Configure-Request × 3  ⇒  and no GRE to 0: PPTP-GRE-BLOCKED-OUT-OR-IN
//! ```
//!
//! A server at home, whose clients are outside, is not judged.

mod connection;
mod dies;
mod judge;
mod reason;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::gre::GreHeader;
use passthrough::sighting::Sighting;
use passthrough::view::Vpn;

use self::connection::{Call, Connection};
use crate::attempts::Attempts;
use crate::finding::{Findings, Mark};
use crate::household::Context;
use crate::observation::{IcmpReport, Observation, Passage, Point, TcpHead, Trace, Transport};
use crate::session::Session;
use crate::tally::{Unreachable, again};

/// Connections that are remembered.
const CONNECTIONS: usize = 6;
const PORT: u16 = 1723;
const TCP: u8 = 6;
const GRE: u8 = 47;

/// What was seen of PPTP between a device and a server.
#[derive(Debug, Default)]
pub struct Tracker {
    connections: VecDeque<Connection>,
    attempts: u32,
    /// GRE that reached the device's LAN with a Call ID that it never announced, and the last such ID.
    strange: Option<(Attempts, u16)>,
}

impl Tracker {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        match seen.transport {
            Transport::Tcp(_) if seen.device_port == PORT && seen.server_port != PORT => {}
            Transport::Tcp(head) => self.segment(seen, head),
            Transport::Other(_) => {
                if let Some(Sighting::PptpGre { call_id, .. }) = seen.sighting {
                    self.gre(seen, call_id);
                }
            }
            Transport::Udp => {}
        }
    }

    fn segment(&mut self, seen: &Observation<'_>, head: TcpHead) {
        let ports = (seen.device_port, seen.server_port);
        let opens = head.syn() && !head.ack() && seen.is_outbound();
        let known = self.connections.iter_mut().rev().find(|known| known.ports == ports);
        let same = |known: &&mut Connection| match known.syn {
            Some(_) => known.number == head.seq,
            None => !known.joined,
        };
        if let Some(connection) = known.filter(|known| !opens || same(known)) {
            connection.segment(seen, head);
            return;
        }
        let begins = head.syn() && (opens || head.ack() && !seen.is_outbound());
        if begins || seen.payload_len > 0 && !head.rst() {
            self.begin(ports, !begins, seen.mark).segment(seen, head);
        }
    }

    fn begin(&mut self, ports: (u16, u16), joined: bool, mark: Mark) -> &mut Connection {
        if self.connections.len() >= CONNECTIONS {
            self.connections.pop_front();
        }
        self.attempts += 1;
        self.connections.push_back(Connection::new(self.attempts, ports, joined, mark));
        self.connections.back_mut().expect("just pushed")
    }

    fn gre(&mut self, seen: &Observation<'_>, id: u16) {
        let Some(header) = GreHeader::parse(seen.payload) else { return };
        let announced = |call: &Call| match seen.direction {
            Direction::Inbound => call.own == Some(id),
            Direction::Outbound => call.remote == Some(id),
        };
        let now = seen.at();
        let Some((connection, call)) = self.place(now, announced).or_else(|| {
            // On the LAN a device knows what it announced; elsewhere a NAT may have put another ID in its place.
            let foreign = seen.point == Point::Lan && !seen.is_outbound();
            let any = self.place(now, |call| call.ended.is_none() && (!foreign || call.own.is_none()));
            let dials =
                |known: &Connection| known.lives(now) && known.calls.iter().any(|call| call.own.is_some());
            if any.is_none() && foreign && self.connections.iter().any(dials) {
                let mut attempts = self.strange.map(|(attempts, _)| attempts);
                again(&mut attempts, seen.mark);
                self.strange = attempts.map(|attempts| (attempts, id));
                return None;
            }
            any.or_else(|| self.join(seen))
        }) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(connection) else { return };
        connection.last = seen.mark;
        if let Some(call) = connection.calls.get_mut(call) {
            call.gre(seen, id, &header);
        }
    }

    /// Where the last such call stands, preferably one that is not over.
    fn place(&self, now: Timestamp, is: impl Fn(&Call) -> bool) -> Option<(usize, usize)> {
        let find = |lives: bool| {
            self.connections.iter().enumerate().rev().find_map(|(at, connection)| {
                let fits = |call: &Call| (!lives || call.ended.is_none()) && is(call);
                let call = connection.calls.iter().rposition(fits)?;
                (!lives || connection.lives(now)).then_some((at, call))
            })
        };
        find(true).or_else(|| find(false))
    }

    /// A call whose control messages were not seen.
    fn join(&mut self, seen: &Observation<'_>) -> Option<(usize, usize)> {
        let live = self.connections.iter().rposition(|known| known.joined && known.lives(seen.at()));
        let at = live.unwrap_or_else(|| {
            self.begin((0, 0), true, seen.mark);
            self.connections.len() - 1
        });
        let connection = self.connections.get_mut(at)?;
        if connection.calls.iter().all(|call| call.ended.is_some()) {
            connection.calls.clear();
            connection.calls.push_back(Call::new(seen.mark, None));
        }
        Some((at, connection.calls.len() - 1))
    }

    /// Takes note of an ICMP error about one of its packets.
    pub fn error(&mut self, report: &IcmpReport) {
        let ports = (report.device_port, report.server_port);
        match report.protocol {
            TCP => {
                if let Some(known) = self.connections.iter_mut().rev().find(|known| known.ports == ports) {
                    Unreachable::note(&mut known.errors, report);
                }
            }
            GRE => {
                let call = self.connections.back_mut().and_then(|known| known.calls.back_mut());
                if let Some(call) = call {
                    Unreachable::note(&mut call.errors, report);
                }
            }
            _ => {}
        }
    }

    /// Takes note of what became of a packet inside the router.
    pub fn passage(&mut self, trace: &Trace, passage: Passage) {
        let ports = (trace.device_port, trace.server_port);
        if trace.protocol == TCP {
            if let Some(known) = self.connections.iter_mut().rev().find(|known| known.ports == ports) {
                known.outside.note(trace.mark, passage);
            }
        }
    }

    /// What is wrong.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        let others: Vec<&Self> = context.others_to_server().filter_map(|pair| pair.pptp.as_deref()).collect();
        self.judge(context, &others, findings);
    }

    /// The sessions; device and server are filled in later.
    pub fn sessions(&self, now: Timestamp, sessions: &mut Vec<Session>) {
        for connection in &self.connections {
            let (phase, reason) = connection.phase(now);
            let mut session = Session {
                vpn: Vpn::Pptp,
                device: [0, 0, 0, 0].into(),
                server: [0, 0, 0, 0].into(),
                attempt: connection.attempt,
                phase,
                reason,
                since: connection.since,
                last_seen: connection.last.at,
                packets: [0; 2],
                bytes: [0; 2],
            };
            let flows = [connection.flow].into_iter().chain(connection.calls.iter().map(|call| call.gre));
            for flow in flows {
                for (sum, part) in session.packets.iter_mut().zip([flow.outbound, flow.inbound]) {
                    *sum += part.volume();
                }
                for (sum, part) in session.bytes.iter_mut().zip([flow.outbound, flow.inbound]) {
                    *sum += part.bytes;
                }
            }
            sessions.push(session);
        }
    }

    /// Is a call up that hears its server, or did one at `at`?
    fn is_up(&self, at: Timestamp) -> bool {
        self.connections.iter().any(|known| {
            let up = known.calls.iter().any(|call| call.ended.is_none() && call.heard_us.is_some());
            up && known.over().is_none_or(|(over, _)| over.at > at) && known.since <= at
        })
    }
}
