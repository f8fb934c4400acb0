//! PPTP as it goes right, and each way in which it goes wrong.

use std::net::IpAddr;

use nat_core::flow::Direction::{self, Inbound, Outbound};
use passthrough::view::Phase;

use super::*;
use crate::code::{Code, Party};
use crate::finding::{Confidence, Finding};
use crate::observation::{IcmpKind, Peers, at};
use crate::router::{Refusal, Stray};
use crate::tally::scene::Scene;

mod call;
mod control;

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;
const FIN: u8 = 17;
const RST: u8 = 4;
const LCP_REQUEST: &[u8] = &[0xff, 3, 0xc0, 0x21, 1, 1, 0, 4];
const LCP_ACK: &[u8] = &[0xff, 3, 0xc0, 0x21, 2, 1, 0, 4];
const LCP_TERMINATE: &[u8] = &[0xc0, 0x21, 5, 2, 0, 4];
const CHAP_CHALLENGE: &[u8] = &[0xc2, 0x23, 1, 1, 0, 4];
const CHAP_RESPONSE: &[u8] = &[0xc2, 0x23, 2, 1, 0, 4];
const CHAP_SUCCESS: &[u8] = &[0xc2, 0x23, 3, 1, 0, 4];
const CHAP_FAILURE: &[u8] = b"\xc2\x23\x04\x01\0\x10E=691 R=0";
const CCP_REQUEST: &[u8] = &[0x80, 0xfd, 1, 1, 0, 4];
const IPCP_ACK: &[u8] = &[0x80, 0x21, 2, 1, 0, 4];
const PACKET: &[u8] = &[0x00, 0xfd, 0x90, 0, 1, 2, 3, 4];

/// A device's dialogue with a server.
struct Dialogue {
    tracker: Tracker,
    scene: Scene,
    peers: Peers,
    port: u16,
    /// Does the router let the SYN out?
    out: bool,
    /// The next sequence number of each side.
    next: [u32; 2],
    ttl: u8,
    sequence: u32,
}

impl Default for Dialogue {
    fn default() -> Self {
        Self {
            tracker: Tracker::default(),
            scene: Scene::default(),
            peers: Peers::default(),
            port: 40_000,
            out: true,
            next: [1000, 5000],
            ttl: 57,
            sequence: 0,
        }
    }
}

impl Dialogue {
    fn raw(&mut self, millis: u64, direction: Direction, numbers: [u32; 2], flags: u8, payload: &[u8]) {
        let ports = if direction == Outbound { (self.port, 1723) } else { (1723, self.port) };
        let bytes = Peers::tcp(ports.0, ports.1, numbers[0], numbers[1], flags, payload);
        let mut seen = self.peers.packet(millis, direction, 6, &bytes);
        seen.ttl = if direction == Inbound { self.ttl } else { 64 };
        self.tracker.observe(&seen);
        if flags == SYN && self.out {
            let wan = [203, 0, 113, 1].into();
            self.tracker.passage(&seen.trace(), Passage::Left { wan, port: self.port });
        }
    }

    fn tcp(&mut self, millis: u64, direction: Direction, flags: u8, payload: &[u8]) {
        let side = usize::from(direction == Inbound);
        let numbers = [self.next[side], self.next[1 - side]];
        self.raw(millis, direction, numbers, flags, payload);
        let length = u32::try_from(payload.len()).unwrap() + u32::from(flags & 3 != 0);
        self.next[side] = self.next[side].wrapping_add(length);
    }

    fn gre(&mut self, millis: u64, direction: Direction, id: u16, frame: &[u8]) {
        self.sequence += 1;
        let length = u16::try_from(frame.len()).unwrap();
        let mut bytes = [&[0x30, 1, 0x88, 0x0b][..], &length.to_be_bytes(), &id.to_be_bytes()].concat();
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(frame);
        self.tracker.observe(&self.peers.packet(millis, direction, 47, &bytes));
    }

    /// The device's, and the server's: Call IDs 0 and 7.
    fn both(&mut self, millis: u64, frame: &[u8]) {
        self.gre(millis, Outbound, 7, frame);
        self.gre(millis + 20, Inbound, 0, frame);
    }

    /// Connected at 20 ms.
    fn connect(mut self) -> Self {
        self.tcp(0, Outbound, SYN, &[]);
        self.tcp(20, Inbound, SYN_ACK, &[]);
        self.tcp(21, Outbound, ACK, &[]);
        self
    }

    /// SCCRP at 60 ms.
    fn start(mut self, result: u8) -> Self {
        self = self.connect();
        self.tcp(30, Outbound, ACK, &message(1, 0, 0, 0));
        self.tcp(60, Inbound, ACK, &message(2, 0, 0, result));
        self
    }

    /// OCRP at 1,100 ms: clients sleep a second before the call.
    fn dial(mut self, result: u8) -> Self {
        self = self.start(1);
        self.tcp(1060, Outbound, ACK, &message(7, 0, 0, 0));
        self.tcp(1100, Inbound, ACK, &message(8, 7, 0, result));
        self
    }

    /// LCP open at 1.3 s.
    fn link(mut self) -> Self {
        self = self.dial(1);
        self.both(1200, LCP_REQUEST);
        self.both(1250, LCP_ACK);
        self
    }

    /// Logged in and with data at 2 s.
    fn work(mut self) -> Self {
        self = self.link();
        self.gre(1400, Inbound, 0, CHAP_CHALLENGE);
        self.gre(1420, Outbound, 7, CHAP_RESPONSE);
        self.gre(1500, Inbound, 0, CHAP_SUCCESS);
        self.both(1600, CCP_REQUEST);
        self.both(1700, IPCP_ACK);
        self.both(2000, PACKET);
        self
    }

    fn asked(&self, millis: u64, others: &[&Tracker]) -> Vec<Finding> {
        let mut findings = Findings::default();
        self.tracker.judge(&self.scene.at(millis), others, &mut findings);
        findings.list
    }

    fn codes(&self, millis: u64) -> Vec<(Code, Confidence)> {
        self.asked(millis, &[]).iter().map(|finding| (finding.code, finding.confidence)).collect()
    }

    fn session(&self, millis: u64) -> (Phase, &'static str) {
        let mut sessions = Vec::new();
        self.tracker.sessions(at(millis), &mut sessions);
        sessions.last().map(|session| (session.phase, session.reason)).unwrap()
    }

    fn icmp(&mut self, millis: u64, from: impl Into<IpAddr>, kind: IcmpKind, protocol: u8) {
        let ports = if protocol == 6 { (self.port, 1723) } else { (0, 0) };
        let mark = Mark { at: at(millis), number: millis };
        self.tracker.error(&IcmpReport {
            mark,
            from: from.into(),
            about_outbound: true,
            kind,
            protocol,
            device_port: ports.0,
            server_port: ports.1,
            id: 0,
        });
    }

    fn refused(mut self, protocol: u8, reason: &'static str) -> Self {
        self.scene.vantage.router = true;
        self.scene.router.refusals.push(Refusal {
            device: Some(self.peers.device),
            server: Some(self.peers.server),
            protocol,
            port: if protocol == 6 { 1723 } else { 0 },
            reason,
            count: 1,
            first: at(0),
            last: at(2000),
        });
        self
    }
}

/// A control message (RFC 2637 section 2): its first two Call IDs and its result.
fn message(kind: u16, first: u16, second: u16, result: u8) -> Vec<u8> {
    let length: u16 = match kind {
        1 | 2 => 156,
        7 => 168,
        8 => 32,
        13 => 148,
        _ => 16,
    };
    let mut bytes = [&length.to_be_bytes()[..], &[0, 1, 0x1a, 0x2b, 0x3c, 0x4d]].concat();
    bytes.extend([kind, 0, first].map(u16::to_be_bytes).concat());
    bytes.extend(if kind == 2 { [result, 0] } else { second.to_be_bytes() });
    bytes.push(result);
    bytes.resize(usize::from(length), 0);
    bytes
}

const HIGH: Confidence = Confidence::High;
const MEDIUM: Confidence = Confidence::Medium;
const LOW: Confidence = Confidence::Low;
const LATE: u64 = 120_000;
const ROUTER: [u8; 4] = [203, 0, 113, 9];
