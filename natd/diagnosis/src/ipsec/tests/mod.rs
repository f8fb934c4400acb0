//! Sessions between a device and a server, packet by packet.

mod captures;
mod esp;
mod handshake;
mod life;
mod line;
mod several;

use nat_core::flow::Direction::{self, Inbound, Outbound};
use passthrough::view::Phase;

use crate::code::{Code, Party};
use crate::finding::{Confidence, Finding, Findings};
use crate::household::{Context, Household, Settings};
use crate::observation::{Fragment, IcmpKind, IcmpReport, Passage, Peers, Point, at};
use crate::pair::Pair;
use crate::router::{Refusal, Router, Stray, Timeouts, Vantage};
use crate::session::Session;

const V1: u8 = 0x10;
const V2: u8 = 0x20;
const REQUEST: u8 = 0x08;
const RESPONSE: u8 = 0x20;

/// A device and a server, and what passes between them.
struct Line {
    peers: Peers,
    pair: Pair,
    household: Household,
    router: Router,
    point: Point,
}

impl Line {
    fn new() -> Self {
        let peers = Peers::default();
        let vantage = Vantage { lan: true, wan: true, router: true, dns: true };
        let settings = Settings {
            events: false,
            lan: Vec::new(),
            pairs: 16,
            memory: core::time::Duration::from_secs(3600),
            vantage,
            servers: Vec::new(),
        };
        Self {
            peers,
            pair: Pair::new(peers.device, peers.server, at(0)),
            household: Household::new(settings),
            router: Router::default(),
            point: Point::Lan,
        }
    }

    /// Another device of the household.
    fn other() -> Self {
        let mut line = Self::new();
        line.peers.device = [192, 168, 1, 12].into();
        line.pair = Pair::new(line.peers.device, line.peers.server, at(0));
        line
    }

    /// A UDP datagram; ports are those of the server, and the device has the same.
    fn udp(&mut self, millis: u64, direction: Direction, port: u16, payload: &[u8]) {
        self.udp_cut(millis, direction, port, payload, Fragment::Whole);
    }

    fn udp_cut(&mut self, millis: u64, direction: Direction, port: u16, payload: &[u8], fragment: Fragment) {
        let datagram = Peers::udp(port, port, payload);
        let mut seen = self.peers.packet(millis, direction, 17, &datagram);
        (seen.fragment, seen.point) = (fragment, self.point);
        if fragment == Fragment::Later {
            seen.sighting = None;
        }
        self.pair.observe(&seen);
    }

    /// An IKE message on 500, or behind a marker on 4500.
    fn ike(&mut self, millis: u64, direction: Direction, port: u16, message: &[u8]) {
        let marked = [&[0; 4], message].concat();
        self.udp(millis, direction, port, if port == 4500 { &marked } else { message });
    }

    /// ESP of `len` bytes as IP packets, in UDP.
    fn esp(&mut self, millis: u64, direction: Direction, spi: u32, seq: u32, len: usize) {
        self.udp(millis, direction, 4500, &esp(spi, seq, len - 28));
    }

    /// ESP as it is.
    fn raw(&mut self, millis: u64, direction: Direction, spi: u32, seq: u32, len: usize) {
        let bytes = esp(spi, seq, len - 20);
        let mut seen = self.peers.packet(millis, direction, 50, &bytes);
        seen.point = self.point;
        self.pair.observe(&seen);
    }

    fn icmp(&mut self, millis: u64, from: [u8; 4], kind: IcmpKind, protocol: u8, port: u16) {
        let mark = crate::finding::Mark { at: at(millis), number: millis };
        let (from, about_outbound) = (from.into(), true);
        let (device_port, server_port, id) = (port, port, 0);
        self.pair.error(&IcmpReport {
            mark,
            from,
            about_outbound,
            kind,
            protocol,
            device_port,
            server_port,
            id,
        });
    }

    /// The last outbound packet on that port left the WAN with this port.
    fn left(&mut self, millis: u64, port: u16, wan: [u8; 4], wan_port: u16) {
        let datagram = Peers::udp(port, port, &[0xff]);
        let trace = self.peers.packet(millis, Outbound, 17, &datagram).trace();
        self.pair.passage(&trace, Passage::Left { wan: wan.into(), port: wan_port });
    }

    fn findings(&self, millis: u64) -> Vec<Finding> {
        self.findings_among(millis, &[])
    }

    fn codes_among(&self, millis: u64, others: &[&Self]) -> Vec<(Code, Confidence)> {
        let findings = self.findings_among(millis, others);
        findings.iter().map(|finding| (finding.code, finding.confidence)).collect()
    }

    fn findings_among(&self, millis: u64, others: &[&Self]) -> Vec<Finding> {
        let vantage = self.household.settings().vantage;
        let context = Context {
            now: at(millis),
            household: &self.household,
            pair: Some(&self.pair),
            router: &self.router,
            vantage: &vantage,
        };
        let mut findings = Findings::default();
        let others = others.iter().map(|line| &line.pair).collect();
        if let Some(tracker) = &self.pair.ipsec {
            tracker.among(&super::Scene { context: &context, others }, &mut findings);
        }
        findings.list
    }

    fn codes(&self, millis: u64) -> Vec<(Code, Confidence)> {
        self.findings(millis).iter().map(|finding| (finding.code, finding.confidence)).collect()
    }

    fn owner(&self, millis: u64) -> &'static [Party] {
        self.findings(millis)[0].owner
    }

    fn phases(&self, millis: u64) -> Vec<(Phase, &'static str)> {
        self.sessions(millis).iter().map(|session| (session.phase, session.reason)).collect()
    }

    fn sessions(&self, millis: u64) -> Vec<Session> {
        self.pair.sessions(at(millis))
    }

    /// IKE_SA_INIT and its answer.
    fn init(&mut self, millis: u64, spi: u64) {
        self.ike(millis, Outbound, 500, &sa_init(spi, &[]));
        self.ike(millis + 30, Inbound, 500, &sa_init_answer(spi, &[]));
    }

    /// An IKEv2 session that is up on 4500, ESP included: device SPI 0xc1, server SPI 0xd1.
    fn up(&mut self, millis: u64, spi: u64) {
        self.init(millis, spi);
        self.ike(millis + 60, Outbound, 4500, &sealed(V2, 35, spi, REQUEST, 1, 300));
        self.ike(millis + 90, Inbound, 4500, &sealed(V2, 35, spi, RESPONSE, 1, 250));
        for seq in 1..=5 {
            self.esp(millis + 100 + u64::from(seq) * 100, Outbound, 0xd1, seq, 140);
            self.esp(millis + 130 + u64::from(seq) * 100, Inbound, 0xc1, seq, 140);
        }
    }

    /// IKEv1 up to the end of Main Mode, on 4500.
    fn main_mode(&mut self, millis: u64, spi: u64, vendor: &[(u8, &[u8])]) {
        let rfc3947 = 0x4a13_1c81_0703_5845_5c57_28f2_0e95_452f_u128.to_be_bytes();
        let chain: Vec<(u8, &[u8])> = [&[(1, &[1; 48][..]), (13, &rfc3947)], vendor].concat();
        self.ike(millis, Outbound, 500, &clear(V1, 2, (spi, 0), 0, 0, &chain));
        self.ike(millis + 10, Inbound, 500, &clear(V1, 2, (spi, 9), 0, 0, &[(1, &[1; 40]), (13, &rfc3947)]));
        let keys: &[(u8, &[u8])] = &[(4, &[1; 128]), (10, &[1; 16]), (20, &[1; 32]), (20, &[2; 32])];
        self.ike(millis + 20, Outbound, 500, &clear(V1, 2, (spi, 9), 0, 0, keys));
        let keys: &[(u8, &[u8])] = &[(4, &[2; 128]), (10, &[2; 16]), (20, &[1; 32]), (20, &[2; 32])];
        self.ike(millis + 30, Inbound, 500, &clear(V1, 2, (spi, 9), 0, 0, keys));
        self.ike(millis + 40, Outbound, 4500, &sealed(V1, 2, spi, 1, 0, 100));
        self.ike(millis + 50, Inbound, 4500, &sealed(V1, 2, spi, 1, 0, 101));
    }

    /// Quick Mode.
    fn quick_mode(&mut self, millis: u64, spi: u64, id: u32) {
        self.ike(millis, Outbound, 4500, &sealed(V1, 32, spi, 1, id, 300));
        self.ike(millis + 20, Inbound, 4500, &sealed(V1, 32, spi, 1, id, 301));
        self.ike(millis + 40, Outbound, 4500, &sealed(V1, 32, spi, 1, id, 60));
    }
}

fn esp(spi: u32, seq: u32, len: usize) -> Vec<u8> {
    let mut bytes = [spi.to_be_bytes(), seq.to_be_bytes()].concat();
    bytes.resize(len, 0xab);
    bytes
}

/// A message of clear payloads.
fn clear(version: u8, exchange: u8, spis: (u64, u64), flags: u8, id: u32, chain: &[(u8, &[u8])]) -> Vec<u8> {
    let first = chain.first().map_or(0, |(kind, _)| *kind);
    let mut bytes = [spis.0.to_be_bytes(), spis.1.to_be_bytes()].concat();
    bytes.extend([first, version, exchange, flags]);
    bytes.extend(id.to_be_bytes());
    bytes.extend([0; 4]);
    for (place, (_, body)) in chain.iter().enumerate() {
        let next = chain.get(place + 1).map_or(0, |(kind, _)| *kind);
        let [high, low] = u16::try_from(body.len() + 4).unwrap().to_be_bytes();
        bytes.extend([next, 0, high, low]);
        bytes.extend(*body);
    }
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[24..28].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// An encrypted message of `len` bytes.
fn sealed(version: u8, exchange: u8, spi: u64, flags: u8, id: u32, len: usize) -> Vec<u8> {
    let kind = if version == V2 { 46 } else { 8 };
    clear(version, exchange, (spi, 9), flags, id, &[(kind, &vec![0x5a; len - 32])])
}

/// An IKEv2 notify about no SA.
fn notify2(kind: u16, data: &[u8]) -> Vec<u8> {
    let [high, low] = kind.to_be_bytes();
    [&[0, 0, high, low], data].concat()
}

/// An IKEv1 notify about the IKE SA.
fn notify1(kind: u16) -> Vec<u8> {
    let [high, low] = kind.to_be_bytes();
    vec![0, 0, 0, 1, 1, 0, high, low]
}

fn sa_init(spi: u64, more: &[(u8, &[u8])]) -> Vec<u8> {
    let chain: Vec<(u8, &[u8])> = [&[(33, &[1; 40][..]), (34, &[2; 64]), (40, &[3; 32])], more].concat();
    clear(V2, 34, (spi, 0), REQUEST, 0, &chain)
}

fn sa_init_answer(spi: u64, more: &[(u8, &[u8])]) -> Vec<u8> {
    let chain: Vec<(u8, &[u8])> = [&[(33, &[1; 40][..]), (34, &[2; 64]), (40, &[4; 32])], more].concat();
    clear(V2, 34, (spi, 9), RESPONSE, 0, &chain)
}
