//! All devices and servers: who is who in a packet, which packets are the same one, and who is told.

mod crossing;
mod findings;
mod fragments;
mod icmp;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::sighting::recognise_payload;
use passthrough::sorted::SortedMap;
use passthrough::view::Phase;

use crate::finding::Mark;
use crate::observation::{Fragment, Observation, Passage, Point, TcpHead, Trace, Transport};
use crate::packet::Packet;
use crate::pair::Pair;
use crate::router::{Router, Stray, Vantage};
use crate::session::{Session, SessionEvent};
use crate::{dns, tally, tls};
use crossing::{Crossings, Outcome, Seen};
use findings::family;
use fragments::Fragments;

/// How the household is watched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Networks of the devices: address and length of the prefix. Empty: private addresses are devices'.
    pub lan: Vec<(IpAddr, u8)>,
    /// The most pairs of a device and a server that are remembered.
    pub pairs: usize,
    /// How long a pair is remembered after its last packet.
    pub memory: Duration,
    /// What can be seen.
    pub vantage: Vantage,
    /// Servers that the user named: whatever goes there is a VPN.
    pub servers: Vec<IpAddr>,
    /// Does somebody fetch [`Household::poll_event`]?
    pub events: bool,
}

/// What a question is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The moment.
    pub now: Timestamp,
    /// Everything.
    pub household: &'a Household,
    /// The pair in question; `None` for what is not about one.
    pub pair: Option<&'a Pair>,
    /// What the router knows of itself.
    pub router: &'a Router,
    /// What can be seen.
    pub vantage: &'a Vantage,
}

impl<'a> Context<'a> {
    /// Other devices' pairs with the same server.
    pub fn others_to_server(&self) -> impl Iterator<Item = &'a Pair> {
        let pair = self.pair;
        self.household.pairs().filter(move |other| {
            pair.is_some_and(|pair| other.server == pair.server && other.device != pair.device)
        })
    }

    /// The same device's pairs with other servers.
    pub fn others_of_device(&self) -> impl Iterator<Item = &'a Pair> {
        let pair = self.pair;
        self.household.pairs().filter(move |other| {
            pair.is_some_and(|pair| other.device == pair.device && other.server != pair.server)
        })
    }
}

/// Where a NAT put a device's port: protocol, port on the WAN, and server, to the device and its port.
type Mappings = SortedMap<(u8, u16, IpAddr), (IpAddr, u16, Timestamp)>;

/// All devices and servers.
#[derive(Debug)]
pub struct Household {
    settings: Settings,
    /// What the router knows of itself; to be kept up to date by whoever runs on it.
    pub router: Router,
    /// TLS connections.
    pub tls: tls::Watch,
    /// DNS.
    pub dns: dns::Watch,
    pairs: SortedMap<(IpAddr, IpAddr), Box<Pair>>,
    crossings: Crossings,
    fragments: Fragments,
    mappings: Mappings,
    /// Addresses that stand for devices beyond the NAT.
    aliases: Vec<IpAddr>,
    errors: VecDeque<(Timestamp, u64)>,
    events: VecDeque<SessionEvent>,
    packets: u64,
    now: Timestamp,
    next_round: Timestamp,
    heard: Option<Mark>,
}

/// How often sessions are looked at for what has changed, and old ones are forgotten.
const ROUND: Duration = Duration::from_secs(1);
/// Session events that wait for somebody to fetch them.
const EVENTS: usize = 256;
/// A session without a packet for so long has nothing new to tell.
const CHANGING: Duration = Duration::from_secs(600);
/// Mappings that are remembered.
const MAPPINGS: usize = 512;
/// Addresses beyond the NAT that are remembered.
const ALIASES: usize = 8;
/// Kinds of inbound packets for nobody that are remembered.
const STRAYS: usize = 64;

/// Who is who in a packet.
#[derive(Clone, Copy, Debug)]
struct Roles {
    direction: Direction,
    device: IpAddr,
    server: IpAddr,
}

impl Household {
    /// An empty household.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            router: Router::default(),
            tls: tls::Watch::default(),
            dns: dns::Watch::default(),
            pairs: SortedMap::new(),
            crossings: Crossings::default(),
            fragments: Fragments::default(),
            mappings: SortedMap::new(),
            aliases: Vec::new(),
            errors: VecDeque::new(),
            events: VecDeque::new(),
            packets: 0,
            now: Timestamp::ZERO,
            next_round: Timestamp::ZERO,
            heard: None,
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its settings, to follow changes of the router's networks.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Every pair, by device and server.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.values().map(|pair| &**pair)
    }

    /// A pair, made if it is not there.
    #[cfg(test)]
    pub(crate) fn pair_between(&mut self, device: IpAddr, server: IpAddr) -> &mut Pair {
        let ends = (device, server);
        if !self.pairs.contains_key(&ends) {
            self.pairs.insert(ends, Box::new(Pair::new(device, server, self.now)));
        }
        self.pairs.get_mut(&ends).expect("just inserted")
    }

    /// How many packets were taken in.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The last packet from any server to any device.
    pub fn heard(&self) -> Option<Mark> {
        self.heard
    }

    /// The time of the last packet or [`Self::pass_time`].
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Is this a server that a VPN is likely run with, though a packet does not show it?
    pub fn is_vpn_server(&self, server: IpAddr) -> bool {
        self.settings.servers.contains(&server)
            || self.dns.names_vpn(server)
            || self.pairs().any(|pair| pair.server == server)
    }

    /// Takes in a packet, the `number`th, seen at `at`.
    ///
    /// `direction` is which way it goes where its place tells that, as a router's interfaces do; where it does
    /// not, addresses have to. A time before that of an earlier packet counts as the earlier one's.
    pub fn packet(
        &mut self,
        at: Timestamp,
        number: u64,
        point: Point,
        direction: Option<Direction>,
        packet: &Packet<'_>,
    ) {
        self.packets += 1;
        self.pass_time(at);
        // Packets of several sources are not always in order, and clocks are set back: for trackers time only goes on.
        let mark = Mark { at: self.now, number };
        if matches!((packet.protocol, packet.src), (1, IpAddr::V4(_)) | (58, IpAddr::V6(_))) {
            self.icmp(mark, packet);
            return;
        }
        let ports = self.fragments.ports(packet);
        let sighting = match packet.fragment {
            Fragment::Whole | Fragment::First => recognise_payload(packet.protocol, packet.payload),
            Fragment::Later => None,
        };
        let concerns = sighting.is_some()
            || packet.protocol == 6
            || packet.protocol == 17
                && (packet.fragment == Fragment::Later
                    || ports.0 == 53
                    || ports.1 == 53
                    || is_dtls(packet.payload))
            || self.pairs.contains_key(&(packet.src, packet.dst))
            || self.pairs.contains_key(&(packet.dst, packet.src));
        if !concerns {
            return;
        }
        let Some(roles) = self.roles(direction, packet, ports) else { return };
        let Some((transport, header)) = transport(packet) else { return };
        let (device_port, server_port) = match roles.direction {
            Direction::Outbound => ports,
            Direction::Inbound => (ports.1, ports.0),
        };
        let header_len = u32::try_from(header).unwrap_or(u32::MAX);
        let payload_len = match (transport, packet.fragment) {
            (Transport::Udp, Fragment::First) => udp_length(packet.payload),
            (_, Fragment::Whole | Fragment::First | Fragment::Later) => packet.payload_len,
        }
        .saturating_sub(header_len);
        let seen = Observation {
            mark,
            direction: roles.direction,
            device: roles.device,
            server: roles.server,
            device_port,
            server_port,
            point,
            transport,
            ttl: packet.ttl,
            ident: packet.ident,
            dont_fragment: packet.dont_fragment,
            fragment: packet.fragment,
            ip_len: packet.ip_len,
            payload_len,
            payload: packet.payload.get(header..).unwrap_or_default(),
            sighting,
        };
        self.recognise_again(&seen);
    }

    /// Time passed without a packet.
    pub fn pass_time(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        let now = self.now;
        while let Some(seen) = self.crossings.overdue(now) {
            self.stayed(&seen);
        }
        if now >= self.next_round {
            self.next_round = now + ROUND;
            self.round(now);
        }
    }

    /// Nothing more will come: what sessions did lately is told of now, not at the next round.
    pub fn finish(&mut self, now: Timestamp) {
        self.next_round = now;
        self.pass_time(now);
    }

    /// Every session at `now`.
    pub fn sessions(&self, now: Timestamp) -> Vec<Session> {
        self.pairs().flat_map(|pair| pair.sessions(now)).collect()
    }

    /// The next thing that happened to a session.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Hands the packet on if it is not one that was seen before.
    fn recognise_again(&mut self, seen: &Observation<'_>) {
        let Some(key) = crossing::key(seen) else {
            // Only one sight of what cannot be known again: the LAN's, but of the router's own VPN.
            let twice = seen.point == Point::Wan && self.settings.vantage.lan;
            let own = || self.is_own(seen.device) && self.pairs.contains_key(&(seen.device, seen.server));
            let counts = if twice { own() } else { !self.is_beyond(seen) };
            if counts {
                self.observe(seen);
            } else if seen.fragment == Fragment::Later && !seen.is_outbound() && seen.server_port == 0 {
                self.headless(seen);
            }
            return;
        };
        match self.crossings.look(key, seen) {
            Outcome::Copy => {}
            Outcome::Crossed(before) => self.crossed(&before, seen),
            Outcome::New => {
                let withheld = self.is_beyond(seen);
                let waits = self.sees_both() && (withheld || seen.is_outbound() && self.is_inside(seen));
                self.crossings.remember(key, seen, waits, withheld);
                if !withheld {
                    self.observe(seen);
                }
            }
        }
    }

    /// A packet was seen on both sides: `before` on the one, now on the other.
    fn crossed(&mut self, before: &Seen, seen: &Observation<'_>) {
        let known = before.device == seen.device && !before.withheld;
        match seen.direction {
            // Of two sights of one moment the inner one may be heard of first, too.
            Direction::Inbound if !before.withheld && self.is_beyond(seen) => {
                let (wan, port) = (seen.device, seen.device_port);
                self.learn(&before.trace, before.device, before.server, wan, port);
                self.passage(before.device, before.server, &before.trace, Passage::Delivered);
            }
            Direction::Inbound => {
                // Beyond the NAT it was for the router's address, inside it is for the device.
                if !known {
                    self.observe(seen);
                }
                let (wan, port) = (before.device, before.trace.device_port);
                self.learn(&seen.trace(), seen.device, seen.server, wan, port);
                self.passage(seen.device, seen.server, &seen.trace(), Passage::Delivered);
            }
            // Of two sights of one moment the outer one may be heard of first.
            Direction::Outbound if before.withheld => {
                self.observe(seen);
                self.left(seen.device, &seen.trace(), seen.server, before.device, before.trace.device_port);
            }
            Direction::Outbound => {
                self.left(before.device, &before.trace, seen.server, seen.device, seen.device_port);
            }
        }
    }

    fn left(&mut self, device: IpAddr, trace: &Trace, server: IpAddr, wan: IpAddr, port: u16) {
        self.learn(trace, device, server, wan, port);
        self.passage(device, server, trace, Passage::Left { wan, port });
    }

    fn passage(&mut self, device: IpAddr, server: IpAddr, trace: &Trace, passage: Passage) {
        if let Some(pair) = self.pairs.get_mut(&(device, server)) {
            pair.passage(trace, passage);
        }
    }

    /// A packet was seen on one side only.
    fn stayed(&mut self, seen: &Seen) {
        match seen.trace.direction {
            Direction::Outbound if !seen.withheld => {
                if let Some(pair) = self.pairs.get_mut(&(seen.device, seen.server)) {
                    pair.passage(&seen.trace, Passage::Swallowed);
                }
            }
            // Sent by the router itself.
            Direction::Outbound => {}
            Direction::Inbound => match self.owner(seen) {
                Some((device, port)) => {
                    let trace = Trace { device_port: port, ..seen.trace };
                    let Some(pair) = self.pairs.get_mut(&(device, seen.server)) else { return };
                    if seen.first {
                        pair.fragment_lost(seen.trace.mark);
                    } else {
                        pair.passage(&trace, Passage::Undelivered);
                    }
                }
                None if seen.first => {}
                None => self.stray(seen),
            },
        }
    }

    /// An inbound later fragment on the WAN whose first one did not come before it: nobody can tell whose it is,
    /// where several devices talk to the server.
    fn headless(&mut self, seen: &Observation<'_>) {
        let server = |pair: &Pair| pair.server == seen.server && pair.ipsec.is_some();
        let mut pairs = self.pairs.iter_mut().map(|(_, pair)| pair).filter(|pair| server(pair));
        if let (Some(pair), None) = (pairs.next(), pairs.next()) {
            pair.fragment_lost(seen.mark);
        }
    }

    /// Which device an inbound packet on the WAN is for, and its port there.
    fn owner(&self, seen: &Seen) -> Option<(IpAddr, u16)> {
        let key = (seen.trace.protocol, seen.trace.device_port, seen.server);
        if seen.trace.device_port != 0 {
            return self.mappings.get(&key).map(|&(device, port, _)| (device, port));
        }
        let mut candidates = self.pairs().filter(|pair| {
            let uses = |crossing: &crate::pair::Crossing| crossing.protocol.0 == seen.trace.protocol;
            pair.server == seen.server && pair.crossings.iter().any(uses)
        });
        match (candidates.next(), candidates.next()) {
            (Some(pair), None) => Some((pair.device, 0)),
            _ => None,
        }
    }

    fn stray(&mut self, seen: &Seen) {
        let known = self.pairs().any(|pair| pair.server == seen.server);
        let strays = &mut self.router.strays;
        let same = |stray: &&mut Stray| {
            let (old, new) = (&stray.trace, &seen.trace);
            stray.server == seen.server && (old.protocol, old.id) == (new.protocol, new.id)
        };
        if let Some(stray) = strays.iter_mut().find(same) {
            stray.count += 1;
            stray.trace = seen.trace;
        } else if known {
            if strays.len() >= STRAYS {
                strays.remove(0);
            }
            let first = seen.trace.mark.at;
            strays.push(Stray { server: seen.server, trace: seen.trace, count: 1, first });
        }
    }

    /// Remembers what stands for a device beyond the NAT.
    fn learn(&mut self, trace: &Trace, device: IpAddr, server: IpAddr, wan: IpAddr, port: u16) {
        if wan != device && !self.aliases.contains(&wan) {
            if self.aliases.len() >= ALIASES {
                self.aliases.remove(0);
            }
            self.aliases.push(wan);
        }
        if port == 0 {
            return;
        }
        let key = (trace.protocol, port, server);
        if self.mappings.len() >= MAPPINGS && !self.mappings.contains_key(&key) {
            let oldest = self.mappings.iter().min_by_key(|(_, (_, _, at))| *at).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.mappings.remove(&oldest);
            }
        }
        self.mappings.insert(key, (device, trace.device_port, trace.mark.at));
    }

    /// Does the packet show what is only a device's stand-in, so that its own sight is to be waited for?
    fn is_beyond(&self, seen: &Observation<'_>) -> bool {
        let own = || self.pairs.contains_key(&(seen.device, seen.server));
        match seen.point {
            Point::Lan => false,
            // The router's own VPN is seen on the WAN alone.
            Point::Wan if self.settings.vantage.lan && seen.is_outbound() => {
                !own() && self.pairs().any(|pair| pair.server == seen.server && !self.is_own(pair.device))
            }
            Point::Wan => self.settings.vantage.lan && !(self.is_own(seen.device) && own()),
            Point::Unknown => self.aliases.contains(&seen.device),
        }
    }

    fn is_inside(&self, seen: &Observation<'_>) -> bool {
        match seen.point {
            Point::Lan => true,
            Point::Wan => false,
            Point::Unknown => !self.aliases.is_empty() && !self.aliases.contains(&seen.device),
        }
    }

    fn sees_both(&self) -> bool {
        self.settings.vantage.lan && self.settings.vantage.wan || !self.aliases.is_empty()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.router.wan.contains(&address) || self.aliases.contains(&address)
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        if !seen.is_outbound() {
            self.heard = Some(seen.mark);
        }
        match seen.transport {
            Transport::Udp if seen.server_port == 53 => self.dns.observe(seen),
            Transport::Tcp(_) if seen.server_port != 1723 => self.tls.observe(seen),
            Transport::Udp => self.tls.observe(seen),
            Transport::Tcp(_) | Transport::Other(_) => {}
        }
        let ends = (seen.device, seen.server);
        if let Some(pair) = self.pairs.get_mut(&ends) {
            pair.observe(seen);
        } else if Pair::begins(seen) {
            self.make_room();
            let mut pair = Box::new(Pair::new(seen.device, seen.server, seen.at()));
            pair.observe(seen);
            self.pairs.insert(ends, pair);
        }
    }

    /// Forgets the oldest quarter when there are too many: one at a time would make a flood of new ones dear.
    fn make_room(&mut self) {
        if self.pairs.len() < self.settings.pairs {
            return;
        }
        let mut ages: Vec<Timestamp> = self.pairs().map(|pair| pair.last_seen).collect();
        let quarter = ages.len() / 4;
        if quarter < ages.len() {
            let (_, &mut limit, _) = ages.select_nth_unstable(quarter);
            self.pairs.retain(|_, pair| pair.last_seen > limit);
        }
    }

    /// Who is the device, and which way the packet goes; `None`: it stays among devices.
    fn roles(&self, direction: Option<Direction>, packet: &Packet<'_>, ports: (u16, u16)) -> Option<Roles> {
        let (src, dst) = (packet.src, packet.dst);
        let outbound = Roles { direction: Direction::Outbound, device: src, server: dst };
        let inbound = Roles { direction: Direction::Inbound, device: dst, server: src };
        if is_multicast(dst) {
            return None;
        }
        let named = !self.settings.lan.is_empty();
        let home = |address| if named { self.in_lan(address) } else { is_private(address) };
        if named && home(src) && home(dst) && ports.0 != 53 && ports.1 != 53 {
            return None;
        }
        match direction {
            Some(Direction::Outbound) => return Some(outbound),
            Some(Direction::Inbound) => return Some(inbound),
            None => {}
        }
        match (home(src), home(dst)) {
            (true, false) => return Some(outbound),
            (false, true) => return Some(inbound),
            (true, true) | (false, false) => {}
        }
        let alias = |address| self.aliases.contains(&address);
        match (alias(src), alias(dst)) {
            (true, false) => return Some(outbound),
            (false, true) => return Some(inbound),
            (true, true) | (false, false) => {}
        }
        if self.pairs.contains_key(&(src, dst)) {
            return Some(outbound);
        }
        if self.pairs.contains_key(&(dst, src)) {
            return Some(inbound);
        }
        // The first packet is the device's, unless its ports or a SYN with ACK say that it is an answer.
        let is_servers = |port| matches!(port, 53 | 443 | 500 | 1194 | 1701 | 1723 | 4500 | 51820);
        let answer = packet.protocol == 6 && packet.payload.get(13).is_some_and(|flags| flags & 0x12 == 0x12);
        if answer || is_servers(ports.0) && !is_servers(ports.1) { Some(inbound) } else { Some(outbound) }
    }

    fn in_lan(&self, address: IpAddr) -> bool {
        self.settings.lan.iter().any(|&(network, len)| is_within(address, network, len))
    }

    /// Looks at what changed, and forgets what is old.
    fn round(&mut self, now: Timestamp) {
        let memory = self.settings.memory;
        self.pairs.retain(|_, pair| now.since(pair.last_seen) < memory);
        if !self.settings.events {
            return;
        }
        let events = &mut self.events;
        for (_, pair) in self.pairs.iter_mut() {
            if now.since(pair.last_seen) < CHANGING {
                tell(pair, now, events);
            }
        }
    }
}

/// Tells of what changed in a pair's sessions.
fn tell(pair: &mut Pair, now: Timestamp, events: &mut VecDeque<SessionEvent>) {
    let sessions = pair.sessions(now);
    // IKE that goes on in UDP 4500 is still the same session.
    let same =
        |session: &Session, vpn, attempt| session.attempt == attempt && family(session.vpn) == family(vpn);
    pair.told.retain(|&(vpn, attempt, _)| sessions.iter().any(|session| same(session, vpn, attempt)));
    for session in sessions {
        let told = pair.told.iter_mut().find(|(vpn, attempt, _)| same(&session, *vpn, *attempt));
        let before = match told {
            Some((_, _, phase)) if *phase == session.phase => continue,
            Some((_, _, phase)) => Some(std::mem::replace(phase, session.phase)),
            // What was over before it could be told of would be told of again and again.
            None if session.phase == Phase::Closed && now.since(session.last_seen) > CHANGING => continue,
            None => {
                pair.told.push((session.vpn, session.attempt, session.phase));
                None
            }
        };
        if events.len() >= EVENTS {
            events.pop_front();
        }
        events.push_back(SessionEvent { at: now, before, session });
    }
}

/// The transport and the length of its header.
fn transport(packet: &Packet<'_>) -> Option<(Transport, usize)> {
    if packet.fragment == Fragment::Later {
        return Some(match packet.protocol {
            17 => (Transport::Udp, 0),
            other => (Transport::Other(other), 0),
        });
    }
    match packet.protocol {
        6 => {
            let word = |at: usize| {
                packet.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
            };
            let (seq, ack, rest) = (word(4)?, word(8)?, word(12)?);
            let [offset, flags, high, low] = rest.to_be_bytes();
            let head = TcpHead { seq, ack, flags, window: u16::from_be_bytes([high, low]) };
            Some((Transport::Tcp(head), usize::from(offset >> 4) * 4))
        }
        17 => Some((Transport::Udp, 8)),
        other => Some((Transport::Other(other), 0)),
    }
}

/// Is this a datagram of DTLS (RFC 6347 section 4.1)?
fn is_dtls(payload: &[u8]) -> bool {
    matches!(payload.get(8..11), Some([20..=25, 0xfe, 0xfd..=0xff]))
}

/// The length that a UDP header states, itself included.
fn udp_length(payload: &[u8]) -> u32 {
    match payload {
        &[_, _, _, _, high, low, ..] => u32::from(u16::from_be_bytes([high, low])),
        _ => 0,
    }
}

fn is_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// Addresses that are used at home: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 section 2.5.6.
fn is_private(address: IpAddr) -> bool {
    tally::is_private(address)
        || matches!(address, IpAddr::V4(v4) if matches!(v4.octets(), [100, second, ..] if second & 0xc0 == 64))
}

/// Is `address` in the network of these `len` first bits?
pub fn is_within(address: IpAddr, network: IpAddr, len: u8) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((a, width), (b, other)) = (bits(address), bits(network));
    let shift = 128 - u32::from(len.min(width));
    width == other && (a ^ b).checked_shr(shift).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests;
