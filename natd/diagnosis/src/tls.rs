//! TLS connections that could be VPNs: SSTP, AnyConnect, SoftEther, OpenVPN on TCP and others.
//!
//! From outside they look like a website's, and websites that hang or reset are nobody's VPN. So facts are kept
//! of all connections, and findings made only of those with a server that is known to be a VPN's, by whatever
//! means ([`crate::Household::is_vpn_server`]), or by the name that the device asks it for.
//!
//! A RST that somebody on the way forged is told from the server's by its TTL, which follows the way it took, or
//! by the server's going on as if nothing were (Weaver, Sommer, Paxson: Detecting Forged TCP Reset Packets, NDSS
//! 2009). Where in doubt it is the server's.

use core::time::Duration;
use std::collections::VecDeque;
use std::net::IpAddr;

use nat_core::time::Timestamp;
use passthrough::sorted::SortedMap;

use crate::attempts::{Attempts, SENDS};
use crate::code::Code;
use crate::dns::looks_like_vpn;
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::household::Context;
use crate::observation::{Observation, TcpHead, Transport};

mod hello;

/// Connections that are remembered.
const CONNECTIONS: usize = 256;
/// How many of the oldest are looked at for one that works, to be forgotten first.
const LOOK: usize = 32;
/// Servers that were asked for by a VPN's name.
const NAMED: usize = 64;
/// TTLs on the same way differ by less (NDSS 2009, section 4).
const TTL_APART: u8 = 3;
/// The server's packets that follow a forged RST come that soon.
const FOLLOWS: Duration = Duration::from_secs(2);
/// A RST that much later than the last packet of the device has another reason.
const SOON: Duration = Duration::from_secs(10);
/// Attempts of the same device belong together within that time.
const TOGETHER: Duration = Duration::from_secs(600);
/// And these are one.
const AT_ONCE: Duration = Duration::from_secs(30);
/// Ports on which VPNs use TCP: HTTPS and its likes, OpenVPN, SoftEther, Fortinet.
const PORTS: [u16; 9] = [443, 943, 992, OPENVPN, 4433, 4443, 5555, 8443, 10443];

/// Whatever goes there is a VPN's.
const OPENVPN: u16 = 1194;

/// Device, its port, server, its port.
type Key = (IpAddr, u16, IpAddr, u16);

/// What was seen, of all devices.
#[derive(Debug, Default)]
pub struct Watch {
    connections: SortedMap<Key, Box<Connection>>,
    /// The oldest first.
    order: VecDeque<Key>,
    named: VecDeque<IpAddr>,
    dtls: VecDeque<Dtls>,
    count: u32,
}

/// A TCP connection that was seen from its beginning on.
#[derive(Debug)]
struct Connection {
    attempt: u32,
    syn: Attempts,
    /// The server's answer, and its TTL.
    accepted: Option<(Mark, u8)>,
    /// The first payload of the device and its repetitions.
    hello: Option<Attempts>,
    hello_seq: u32,
    named: bool,
    /// The server's payload: packets, the first and the last.
    answered: Option<(u64, Mark, Mark)>,
    /// The device ended it.
    closed: Option<Timestamp>,
    /// The server did.
    hung_up: bool,
    reset: Option<Reset>,
}

/// A RST to the device.
#[derive(Clone, Copy, Debug)]
struct Reset {
    mark: Mark,
    ttl: u8,
    seq: u32,
    /// How long after the last packet of the device.
    after: Duration,
    /// What the server sent although.
    although: Option<Mark>,
}

/// A DTLS handshake (RFC 9147) over UDP.
#[derive(Debug)]
struct Dtls {
    attempt: u32,
    key: Key,
    hello: Attempts,
    answered: bool,
}

impl Watch {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        let key = (seen.device, seen.device_port, seen.server, seen.server_port);
        match seen.transport {
            Transport::Tcp(head) => self.segment(key, seen, head),
            Transport::Udp => self.datagram(key, seen),
            Transport::Other(_) => {}
        }
    }

    /// What is wrong; here device and server of a finding are to be filled in.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        for (key, connection) in self.connections.iter() {
            let &(device, _, server, port) = key;
            // The port counts where no name does: a VPN's server may well be asked for a website in vain.
            let named = connection.named || self.named.contains(&server);
            let own = named || port == OPENVPN;
            if !(own || PORTS.contains(&port) && context.household.is_vpn_server(server)) {
                continue;
            }
            let of_device = || {
                self.connections
                    .iter()
                    .filter(move |(other, _)| (other.0, other.2, other.3) == (device, server, port))
            };
            let newest = of_device().map(|(_, other)| other.attempt).max();
            // A later one works, or did just before, as browsers open several at once.
            let begun = connection.syn.first.at;
            let works = of_device().any(|(_, other)| {
                let at = other.syn.first.at;
                other.works() && at.since(begun) <= TOGETHER && begun.since(at) <= AT_ONCE
            });
            // Another VPN with the same server works, so that this is something else.
            let spared = context.household.pairs().any(|pair| {
                (pair.device, pair.server) == (device, server)
                    && pair.heard.is_some_and(|heard| heard.at >= connection.syn.first.at)
            });
            // One finding for all attempts in a row: the last one's.
            if works || newest != Some(connection.attempt) {
                continue;
            }
            let alike = |test: fn(&Connection) -> bool| {
                of_device()
                    .filter(|(_, other)| {
                        test(other) && connection.syn.first.at.since(other.syn.first.at) <= TOGETHER
                    })
                    .count()
            };
            let Some((code, sure, evidence)) = self.judge(context.now, key, connection, &alike) else {
                continue;
            };
            if spared && code != Code::DpiRst {
                continue;
            }
            let since = connection.syn.first.at;
            let finding = findings.add(code, sure, None, connection.attempt, since, evidence);
            (finding.device, finding.server) = (Some(device), Some(server));
        }
        self.fallbacks(context, findings);
    }

    /// Is this address likely a VPN server's?
    pub fn names_vpn(&self, server: IpAddr) -> bool {
        self.named.contains(&server)
    }

    /// A connection that works and began within `spell` before `now`.
    pub(crate) fn works_since(&self, now: Timestamp, spell: Duration) -> Option<Evidence> {
        let (key, connection) = self.connections.iter().find(|&(&(.., port), connection)| {
            port == 443 && connection.works() && now.since(connection.syn.first.at) <= spell
        })?;
        Some(Evidence::packet(format!("TLS with {} works", key.2), connection.syn.first))
    }

    fn segment(&mut self, key: Key, seen: &Observation<'_>, head: TcpHead) {
        if seen.is_outbound() && head.syn() && !head.ack() {
            self.open(key, seen.mark);
            return;
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.observe(seen, head) && !self.named.contains(&seen.server) {
            if self.named.len() >= NAMED {
                self.named.pop_front();
            }
            self.named.push_back(seen.server);
        }
    }

    fn open(&mut self, key: Key, mark: Mark) {
        if let Some(known) = self.connections.get_mut(&key) {
            if known.accepted.is_none() && known.reset.is_none() {
                known.syn.again(mark);
                return;
            }
            self.order.retain(|other| *other != key);
        } else if self.connections.len() >= CONNECTIONS {
            let works = |key: &Key| self.connections.get(key).is_some_and(|connection| connection.works());
            let at = self.order.iter().take(LOOK).position(works).unwrap_or(0);
            if let Some(oldest) = self.order.remove(at) {
                self.connections.remove(&oldest);
            }
        }
        self.count = self.count.wrapping_add(1);
        self.order.push_back(key);
        self.connections.insert(key, Box::new(Connection::new(self.count, mark)));
    }

    /// DTLS alone counts: QUIC, which uses the same port, falls back without anybody's noticing.
    fn datagram(&mut self, key: Key, seen: &Observation<'_>) {
        if !PORTS.contains(&seen.server_port) {
            return;
        }
        let known = self.dtls.iter_mut().find(|dtls| dtls.key == key);
        match (known, seen.is_outbound()) {
            (Some(dtls), false) => dtls.answered = true,
            (Some(dtls), true) => dtls.hello.again(seen.mark),
            (None, true) if matches!(seen.payload, [0x16, 0xfe, 0xfd | 0xff, ..]) => {
                if self.dtls.len() >= NAMED {
                    self.dtls.pop_front();
                }
                self.count = self.count.wrapping_add(1);
                let hello = Attempts::new(seen.mark);
                self.dtls.push_back(Dtls { attempt: self.count, key, hello, answered: false });
            }
            (None, _) => {}
        }
    }

    fn judge(
        &self,
        now: Timestamp,
        key: &Key,
        connection: &Connection,
        alike: &dyn Fn(fn(&Connection) -> bool) -> usize,
    ) -> Option<(Code, Confidence, Vec<Evidence>)> {
        let &(_, _, server, port) = key;
        let twice = |count: usize| if count >= 2 { Confidence::High } else { Confidence::Medium };
        let Some((accepted, ttl)) = connection.accepted else {
            if let Some(reset) = connection.reset {
                // The same server's other connections show which TTL is plausible.
                let usual = self.connections.iter().find_map(|(other, connection)| {
                    connection.accepted.filter(|_| other.2 == server).map(|(_, ttl)| ttl)
                });
                let forged = usual.is_some_and(|usual| usual.abs_diff(reset.ttl) >= TTL_APART);
                let code = if forged { Code::DpiRst } else { Code::ServerDown };
                let what = format!("TCP {port} answered with RST, TTL {}", reset.ttl);
                let sure = twice(alike(|other| other.accepted.is_none() && other.reset.is_some()));
                return Some((code, sure, vec![Evidence::packet(what, reset.mark)]));
            }
            let sure = connection.syn.unanswered(now).filter(|_| connection.syn.sends >= SENDS)?;
            let evidence = vec![connection.syn.evidence(format!("SYN to TCP {port}, no answer"))];
            return Some((Code::TlsVpnSilent, sure, evidence));
        };
        let hello = connection.hello?;
        let begun = Evidence::packet(format!("TCP {port} connected, TTL {ttl}"), accepted);
        if let Some(reset) = connection.reset {
            let early = connection.answered.is_none_or(|(packets, ..)| packets <= 2);
            if !early || connection.closed.is_some() || connection.hung_up || reset.after > SOON {
                return None;
            }
            let mut evidence =
                vec![begun, Evidence::packet(format!("RST to the device, TTL {}", reset.ttl), reset.mark)];
            if reset.ttl.abs_diff(ttl) >= TTL_APART {
                return Some((Code::DpiRst, twice(alike(Connection::odd_reset)), evidence));
            }
            if let Some(although) = reset.although {
                evidence.push(Evidence::packet("the server goes on as if it had not sent it", although));
                return Some((Code::DpiRst, twice(alike(Connection::odd_reset)), evidence));
            }
            let refused = connection.answered.is_none();
            return refused.then(|| (Code::TlsVpnRst, twice(alike(Connection::early_reset)), evidence));
        }
        if connection.answered.is_some() || connection.hung_up {
            return None;
        }
        let now = connection.closed.unwrap_or(now);
        let sure =
            hello.unanswered(now).filter(|_| hello.sends >= 2 || now.since(hello.first.at) >= SOON * 2)?;
        let evidence = vec![begun, hello.evidence("the device's first TLS message, no answer")];
        Some((Code::TlsVpnSilent, sure, evidence))
    }

    fn fallbacks(&self, context: &Context<'_>, findings: &mut Findings) {
        for dtls in &self.dtls {
            let (device, _, server, port) = dtls.key;
            let later = self
                .dtls
                .iter()
                .any(|other| (other.key.0, other.key.2) == (device, server) && other.answered);
            let Some(sure) = dtls.hello.unanswered(context.now).filter(|_| dtls.hello.sends >= SENDS) else {
                continue;
            };
            let tls = self
                .connections
                .iter()
                .find(|(other, connection)| (other.0, other.2) == (device, server) && connection.works());
            let Some((_, tls)) = tls.filter(|_| !dtls.answered && !later) else { continue };
            let evidence = vec![
                dtls.hello.evidence(format!("DTLS to UDP {port}, no answer")),
                Evidence::packet("TLS with the same server works", tls.syn.first),
            ];
            let since = dtls.hello.first.at;
            let finding = findings.add(Code::DtlsFallback, sure, None, dtls.attempt, since, evidence);
            (finding.device, finding.server) = (Some(device), Some(server));
        }
    }
}

impl Connection {
    fn new(attempt: u32, mark: Mark) -> Self {
        Self {
            attempt,
            syn: Attempts::new(mark),
            accepted: None,
            hello: None,
            hello_seq: 0,
            named: false,
            answered: None,
            closed: None,
            hung_up: false,
            reset: None,
        }
    }

    /// The server answered more than a greeting.
    fn works(&self) -> bool {
        self.answered.is_some_and(|(packets, ..)| packets > 2)
            && self.reset.is_none_or(|reset| reset.after > SOON)
            || self.answered.is_some() && self.reset.is_none()
    }

    fn odd_reset(&self) -> bool {
        let odd = |reset: Reset| {
            reset.although.is_some()
                || self.accepted.is_some_and(|(_, ttl)| ttl.abs_diff(reset.ttl) >= TTL_APART)
        };
        self.reset.is_some_and(odd)
    }

    fn early_reset(&self) -> bool {
        self.reset.is_some() && self.answered.is_none() && self.hello.is_some()
    }

    /// Takes note of a segment; `true`: the device asks for a VPN by its name.
    fn observe(&mut self, seen: &Observation<'_>, head: TcpHead) -> bool {
        if seen.is_outbound() {
            if head.fin() || head.rst() {
                self.closed.get_or_insert(seen.at());
            }
            if seen.payload_len == 0 {
                return false;
            }
            match &mut self.hello {
                None => {
                    (self.hello, self.hello_seq) = (Some(Attempts::new(seen.mark)), head.seq);
                    self.named = hello::server_name(seen.payload).is_some_and(|name| looks_like_vpn(&name));
                    return self.named;
                }
                // Repetitions of the first segment, not what follows it.
                Some(hello) if head.seq == self.hello_seq => hello.again(seen.mark),
                Some(_) => {}
            }
            return false;
        }
        if head.rst() {
            if self.reset.is_none() {
                let last = self.hello.map_or(self.syn.last, |hello| hello.last);
                let after = seen.at().since(last.at);
                self.reset =
                    Some(Reset { mark: seen.mark, ttl: seen.ttl, seq: head.seq, after, although: None });
            }
            return false;
        }
        if head.syn() && head.ack() {
            self.accepted.get_or_insert((seen.mark, seen.ttl));
        }
        if let (Some(reset), Some((_, ttl))) = (&mut self.reset, self.accepted) {
            // New bytes, not a late repetition of older ones.
            let new = head.seq.wrapping_sub(reset.seq) < 1 << 31 && seen.payload_len > 0;
            let soon = seen.at().since(reset.mark.at) <= FOLLOWS && seen.ttl.abs_diff(ttl) < TTL_APART;
            if new && soon && self.closed.is_none() {
                reset.although.get_or_insert(seen.mark);
            }
            return false;
        }
        self.hung_up |= head.fin();
        if seen.payload_len > 0 {
            let (packets, first, _) = self.answered.unwrap_or((0, seen.mark, seen.mark));
            self.answered = Some((packets + 1, first, seen.mark));
        }
        false
    }
}

#[cfg(test)]
mod tests;
