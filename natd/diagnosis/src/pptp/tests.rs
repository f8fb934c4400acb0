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

#[test]
fn a_healthy_call_has_no_finding_at_any_time() {
    let dialogue = Dialogue::default().work();
    for millis in [2_100, 12_000, 60_000, LATE, 1_000_000] {
        assert_eq!(dialogue.codes(millis), [], "{millis}");
    }
    assert_eq!(dialogue.session(2_100), (Phase::Data, ""));
    assert_eq!(dialogue.session(100_000), (Phase::Keepalive, ""));
    assert_eq!(dialogue.session(200_000), (Phase::Idle, ""));
}

#[test]
fn a_call_that_the_device_clears_has_ended_well() {
    let mut dialogue = Dialogue::default().work();
    dialogue.gre(60_000, Outbound, 7, LCP_TERMINATE);
    dialogue.tcp(60_010, Outbound, ACK, &message(12, 0, 0, 0));
    dialogue.tcp(60_020, Outbound, ACK, &message(3, 0, 0, 0));
    dialogue.tcp(60_040, Inbound, FIN, &message(4, 0, 0, 1));
    dialogue.tcp(60_050, Outbound, FIN, &[]);
    assert_eq!(dialogue.codes(LATE), []);
    assert_eq!(dialogue.session(LATE), (Phase::Closed, "closed by the device"));
}

#[test]
fn a_syn_that_is_repeated_and_then_answered_is_nothing() {
    let mut dialogue = Dialogue::default();
    let first = dialogue.next;
    for millis in [0, 1000, 3000] {
        dialogue.next = first;
        dialogue.tcp(millis, Outbound, SYN, &[]);
    }
    dialogue.tcp(3020, Inbound, SYN_ACK, &[]);
    assert_eq!(dialogue.codes(3_100), []);
    assert_eq!(dialogue.session(3_100), (Phase::Handshake, ""));
}

#[test]
fn a_port_scan_is_nothing() {
    let mut dialogue = Dialogue::default();
    dialogue.tcp(0, Outbound, SYN, &[]);
    dialogue.tcp(20, Inbound, SYN_ACK, &[]);
    dialogue.tcp(21, Outbound, RST, &[]);
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn a_syn_without_any_answer_is_told_after_three() {
    let mut dialogue = Dialogue::default();
    let first = dialogue.next;
    for millis in [0, 1000, 3000, 7000] {
        assert_eq!(dialogue.codes(millis), [], "{millis}");
        dialogue.next = first;
        dialogue.tcp(millis, Outbound, SYN, &[]);
        if millis == 3000 {
            assert_eq!(dialogue.codes(3001), [(Code::PptpNoReply, MEDIUM)]);
            dialogue.tracker = Dialogue::default().tracker;
        }
    }
    let mut dialogue = Dialogue::default();
    for millis in [0, 1000, 3000, 7000] {
        dialogue.next = first;
        dialogue.tcp(millis, Outbound, SYN, &[]);
    }
    assert_eq!(dialogue.codes(11_000), [(Code::PptpNoReply, HIGH)]);
    assert_eq!(dialogue.session(LATE), (Phase::Closed, "no answer"));
}

#[test]
fn a_reset_in_answer_to_the_syn_is_the_server_s() {
    let mut dialogue = Dialogue::default();
    dialogue.tcp(0, Outbound, SYN, &[]);
    dialogue.tcp(20, Inbound, RST | ACK, &[]);
    assert_eq!(dialogue.codes(100), [(Code::PptpRefused, HIGH)]);
    assert_eq!(dialogue.session(100), (Phase::Closed, "refused by the server"));
}

#[test]
fn a_reset_while_natd_has_pptp_off_is_natd_s() {
    for (protocol, reason) in [(6, "pptp-off"), (47, "pptp-off"), (6, "vpn-not-allowed")] {
        let mut dialogue = Dialogue::default().refused(protocol, reason);
        dialogue.tcp(0, Outbound, SYN, &[]);
        dialogue.tcp(1, Inbound, RST | ACK, &[]);
        let [ref finding] = dialogue.asked(100, &[])[..] else { panic!("not one finding") };
        assert_eq!((finding.code, finding.owner), (Code::PptpGrePassOff, &[Party::Router][..]), "{reason}");
    }
    let mut dialogue = Dialogue::default();
    dialogue.scene.router.pptp = Some(false);
    dialogue.tcp(0, Outbound, SYN, &[]);
    dialogue.tcp(1, Inbound, RST | ACK, &[]);
    assert_eq!(dialogue.codes(100), [(Code::PptpGrePassOff, HIGH)]);
}

#[test]
fn a_second_device_while_natd_lets_only_one_is_a_clash() {
    let mut dialogue = Dialogue::default().refused(6, "vpn-second-device");
    dialogue.tcp(0, Outbound, SYN, &[]);
    dialogue.tcp(1, Inbound, RST | ACK, &[]);
    assert_eq!(dialogue.codes(100), [(Code::PptpCallIdClash, HIGH)]);
}

#[test]
fn a_reset_with_another_ttl_than_the_syn_ack_is_injected() {
    for (ttl, expected) in [(57, None), (59, None), (54, Some(MEDIUM)), (120, Some(MEDIUM))] {
        let mut dialogue = Dialogue::default().connect();
        dialogue.tcp(30, Outbound, ACK, &message(1, 0, 0, 0));
        dialogue.ttl = ttl;
        dialogue.tcp(40, Inbound, RST, &[]);
        let injected =
            dialogue.codes(1000).iter().find(|(code, _)| *code == Code::DpiRst).map(|&(_, sure)| sure);
        assert_eq!(injected, expected, "{ttl}");
    }
}

#[test]
fn a_reset_of_the_home_router_s_own_is_not_injected() {
    let mut dialogue = Dialogue::default().connect();
    dialogue.ttl = 64;
    dialogue.tcp(40, Inbound, RST, &[]);
    assert_eq!(dialogue.codes(1000), []);
}

#[test]
fn a_server_that_goes_on_behind_its_reset_did_not_send_it() {
    let mut dialogue = Dialogue::default().connect();
    dialogue.tcp(30, Outbound, ACK, &message(1, 0, 0, 0));
    dialogue.tcp(40, Inbound, RST, &[]);
    dialogue.tcp(60, Inbound, ACK, &message(2, 0, 0, 1));
    assert_eq!(dialogue.codes(1000), [(Code::DpiRst, HIGH)]);

    let mut dialogue = Dialogue::default();
    dialogue.tcp(0, Outbound, SYN, &[]);
    dialogue.raw(10, Inbound, [0, 1001], RST | ACK, &[]);
    dialogue.tcp(20, Inbound, SYN_ACK, &[]);
    assert_eq!(dialogue.codes(1000), [(Code::DpiRst, HIGH)]);
}

#[test]
fn unreachable_from_the_server_is_the_server_s_and_from_a_router_the_way_s() {
    let server = Peers::default().server;
    for (from, kind, code) in [
        (server, IcmpKind::HostUnreachable, Code::ServerDown),
        (server, IcmpKind::PortUnreachable, Code::PptpRefused),
        (ROUTER.into(), IcmpKind::NetUnreachable, Code::ServerPath),
        (ROUTER.into(), IcmpKind::HostUnreachable, Code::ServerPath),
        (ROUTER.into(), IcmpKind::HopLimit, Code::ServerPath),
    ] {
        let mut dialogue = Dialogue::default();
        dialogue.tcp(0, Outbound, SYN, &[]);
        dialogue.icmp(30, from, kind, 6);
        let [(found, _)] = dialogue.codes(2000)[..] else { panic!("not one finding: {kind:?}") };
        assert_eq!(found, code, "{kind:?} from {from}");
        dialogue.tcp(1020, Inbound, SYN_ACK, &[]);
        assert_eq!(dialogue.codes(2000), [], "answered in the end");
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_has_no_pptp() {
    let mut dialogue = Dialogue::default().connect();
    dialogue.tcp(30, Outbound, ACK, &message(1, 0, 0, 0));
    dialogue.tcp(50, Inbound, ACK, &[]);
    assert_eq!(dialogue.codes(9_000), []);
    assert_eq!(dialogue.codes(11_000), [(Code::PptpNoSccrp, HIGH)]);
    dialogue.tcp(12_000, Inbound, FIN, &[]);
    assert_eq!(dialogue.codes(12_001), [(Code::PptpNoSccrp, HIGH)]);
}

#[test]
fn a_request_that_is_never_acknowledged_blames_the_line_first() {
    let mut dialogue = Dialogue::default().connect();
    let first = dialogue.next;
    for millis in [30, 300, 900, 2100, 4500] {
        dialogue.next = first;
        dialogue.tcp(millis, Outbound, ACK, &message(1, 0, 0, 0));
    }
    let [ref finding] = dialogue.asked(12_000, &[])[..] else { panic!("not one finding") };
    assert_eq!((finding.code, finding.owner), (Code::PptpNoSccrp, &[Party::Line, Party::Server][..]));
}

#[test]
fn something_else_on_the_port_is_no_pptp_server() {
    let mut dialogue = Dialogue::default().connect();
    dialogue.tcp(30, Outbound, ACK, &message(1, 0, 0, 0));
    dialogue.tcp(50, Inbound, ACK, b"HTTP/1.1 400 Bad Request\r\n");
    assert_eq!(dialogue.codes(100), [(Code::PptpNoSccrp, HIGH)]);
}

#[test]
fn a_start_that_is_refused_says_why() {
    for result in 2..=5 {
        let mut dialogue = Dialogue::default().start(result);
        assert_eq!(dialogue.codes(100), [(Code::PptpControlRefused, HIGH)]);
        dialogue.tcp(90, Inbound, FIN, &[]);
        assert_eq!(dialogue.session(100), (Phase::Closed, reason::start_words(result)));
    }
    assert_eq!(Dialogue::default().start(1).codes(LATE), [], "and then the device sleeps");
}

#[test]
fn a_call_that_is_refused_or_not_answered_is_the_server_s() {
    for result in 2..=7 {
        assert_eq!(Dialogue::default().dial(result).codes(2000), [(Code::PptpCallRefused, HIGH)]);
    }
    let mut dialogue = Dialogue::default().start(1);
    dialogue.tcp(1060, Outbound, ACK, &message(7, 0, 0, 0));
    assert_eq!(dialogue.codes(5_000), []);
    assert_eq!(dialogue.codes(12_000), [(Code::PptpCallRefused, MEDIUM)]);
}

#[test]
fn a_call_that_succeeds_on_the_same_connection_makes_up_for_a_refused_one() {
    let mut dialogue = Dialogue::default().dial(4);
    dialogue.tcp(3000, Outbound, ACK, &message(7, 1, 0, 0));
    dialogue.tcp(3050, Inbound, ACK, &message(8, 8, 1, 1));
    dialogue.gre(3100, Outbound, 8, LCP_REQUEST);
    dialogue.gre(3120, Inbound, 1, LCP_ACK);
    dialogue.gre(3200, Inbound, 1, IPCP_ACK);
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn a_refusal_while_another_device_is_connected_is_one_per_address() {
    let first = Dialogue::default().work();
    let later = |mut dialogue: Dialogue| {
        dialogue.peers.device = [192, 168, 1, 12].into();
        dialogue
    };
    let shifted = |result| {
        let mut dialogue = later(Dialogue::default());
        dialogue.tcp(10_000, Outbound, SYN, &[]);
        if result == 0 {
            dialogue.tcp(10_020, Inbound, RST | ACK, &[]);
        } else {
            dialogue.tcp(10_020, Inbound, SYN_ACK, &[]);
            dialogue.tcp(10_030, Outbound, ACK, &message(1, 0, 0, 0));
            dialogue.tcp(10_060, Inbound, ACK, &message(2, 0, 0, result));
        }
        dialogue
    };
    for (result, alone, code) in [
        (0, Code::PptpRefused, Code::PptpOnePerIp),
        (3, Code::PptpControlRefused, Code::PptpOnePerIp),
        (4, Code::PptpControlRefused, Code::PptpControlRefused),
    ] {
        let dialogue = shifted(result);
        assert_eq!(dialogue.asked(11_000, &[&first.tracker])[0].code, code);
        assert_eq!(dialogue.asked(11_000, &[])[0].code, alone);
    }
}

#[test]
fn a_healthy_call_may_need_several_rounds_of_lcp() {
    let mut dialogue = Dialogue::default().dial(1);
    for millis in [1200, 4200] {
        dialogue.gre(millis, Outbound, 7, LCP_REQUEST);
    }
    assert_eq!(dialogue.codes(4_300), []);
    dialogue.both(5_000, LCP_REQUEST);
    dialogue.gre(7_000, Inbound, 0, LCP_ACK);
    dialogue.both(7_200, LCP_REQUEST);
    dialogue.both(7_300, LCP_ACK);
    assert_eq!(dialogue.codes(30_000), []);
}

#[test]
fn gre_without_answer_is_blocked_whether_out_or_in() {
    for comes_in in [false, true] {
        let mut dialogue = Dialogue::default().dial(1);
        for round in 0..5 {
            dialogue.gre(1200 + round * 3000, Outbound, 7, LCP_REQUEST);
            if comes_in {
                dialogue.gre(1210 + round * 3000, Inbound, 0, LCP_REQUEST);
                dialogue.gre(1220 + round * 3000, Outbound, 7, LCP_ACK);
            }
        }
        assert_eq!(dialogue.codes(4_300), [], "{comes_in}");
        assert_eq!(dialogue.codes(9_500), [(Code::PptpGreBlocked, MEDIUM)]);
        assert_eq!(dialogue.codes(32_000), [(Code::PptpGreBlocked, HIGH)], "{comes_in}");
        dialogue.tcp(33_000, Inbound, ACK, &message(13, 0, 0, 0));
        assert_eq!(dialogue.session(33_000), (Phase::Closed, "GRE silent"));
    }
}

#[test]
fn a_device_that_clears_at_once_says_nothing_about_gre() {
    let mut dialogue = Dialogue::default().dial(1);
    dialogue.gre(1200, Outbound, 7, LCP_REQUEST);
    dialogue.tcp(2000, Outbound, ACK, &message(12, 0, 0, 0));
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn gre_that_the_server_has_no_use_for_is_rejected_by_icmp() {
    for (from, owner) in [(Peers::default().server, Party::Server), (ROUTER.into(), Party::Line)] {
        let mut dialogue = Dialogue::default().dial(1);
        dialogue.gre(1200, Outbound, 7, LCP_REQUEST);
        dialogue.icmp(1230, from, IcmpKind::ProtocolUnreachable, 47);
        let [ref finding] = dialogue.asked(3000, &[])[..] else { panic!("not one finding") };
        assert_eq!(
            (finding.code, finding.confidence, finding.owner),
            (Code::PptpGreBlocked, HIGH, &[owner][..])
        );
    }
}

#[test]
fn gre_on_a_line_that_shares_its_address_cannot_pass() {
    for (wan, mtu, sure) in [([192, 0, 0, 2], None, HIGH), ([203, 0, 113, 1], Some(1460), MEDIUM)] {
        let mut dialogue = Dialogue::default().dial(1);
        for round in 0..5 {
            dialogue.gre(1200 + round * 3000, Outbound, 7, LCP_REQUEST);
        }
        dialogue.scene.router.wan = vec![wan.into()];
        dialogue.scene.router.wan_mtu = mtu;
        let found = dialogue.codes(32_000);
        assert_eq!(found, [(Code::SharedIpv4Proto, sure), (Code::PptpGreBlocked, HIGH)]);
    }
}

#[test]
fn a_device_without_gre_of_its_own_has_a_firewall() {
    let mut dialogue = Dialogue::default().dial(1);
    assert_eq!(dialogue.codes(5_000), []);
    assert_eq!(dialogue.codes(15_000), [(Code::PptpGreNoOut, MEDIUM)]);
    assert_eq!(dialogue.codes(LATE), [], "kept for so long, it has GRE that was not captured");
    dialogue.tcp(1120, Outbound, ACK, &message(12, 0, 0, 0));
    assert_eq!(dialogue.codes(LATE), [(Code::PptpGreNoOut, LOW)]);
}

#[test]
fn a_device_that_does_not_answer_gre_has_a_firewall() {
    let mut dialogue = Dialogue::default().dial(1);
    for round in 0..5 {
        dialogue.gre(1200 + round * 3000, Inbound, 0, LCP_REQUEST);
    }
    assert_eq!(dialogue.codes(15_000), [(Code::PptpGreInOnly, HIGH)]);
}

#[test]
fn gre_with_another_device_s_call_id_went_astray() {
    let first = Dialogue::default().work();
    let mut second = Dialogue::default();
    second.peers.device = [192, 168, 1, 12].into();
    second = second.start(1);
    second.tcp(1060, Outbound, ACK, &message(7, 9, 0, 0));
    second.tcp(1100, Inbound, ACK, &message(8, 8, 9, 1));
    for round in 0..5 {
        second.gre(1200 + round * 3000, Outbound, 8, LCP_REQUEST);
        second.gre(1220 + round * 3000, Inbound, 0, PACKET);
    }
    let found = second.asked(20_000, &[&first.tracker]);
    assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Code::PptpGreMisrouted]);
}

#[test]
fn gre_that_reaches_nobody_went_astray() {
    let mut dialogue = Dialogue::default().dial(1);
    for round in 0..5 {
        dialogue.gre(1200 + round * 3000, Outbound, 7, LCP_REQUEST);
    }
    let bytes = [0x30, 1, 0x88, 0x0b, 0, 1, 0, 44, 0, 0, 0, 1, 0];
    let trace = dialogue.peers.packet(13_000, Inbound, 47, &bytes).trace();
    let stray = Stray { server: dialogue.peers.server, trace, count: 4, first: at(2000) };
    dialogue.scene.router.strays.push(stray);
    assert_eq!(dialogue.asked(20_000, &[])[0].code, Code::PptpGreMisrouted);
    dialogue.scene.router.strays[0].first = at(500);
    assert_eq!(dialogue.asked(20_000, &[])[0].code, Code::PptpGreBlocked, "that was another call's");
}

#[test]
fn the_same_call_id_on_two_devices_clashes_where_the_router_does_not_change_it() {
    let first = Dialogue::default().work();
    let mut second = Dialogue::default();
    second.peers.device = [192, 168, 1, 12].into();
    second = second.dial(1);
    for round in 0..5 {
        second.gre(1200 + round * 3000, Outbound, 7, LCP_REQUEST);
    }
    assert_eq!(second.asked(20_000, &[&first.tracker])[0].code, Code::PptpCallIdClash);
    second.scene.vantage.router = true;
    let found = second.asked(20_000, &[&first.tracker]);
    assert_eq!((found[0].code, found[0].owner), (Code::PptpGreBlocked, &[Party::Server][..]));
}

#[test]
fn a_login_that_is_refused_is_the_user_s() {
    let pap = &[0xc0, 0x23, 3, 1, 0, 4];
    for refusal in [CHAP_FAILURE, pap] {
        let mut dialogue = Dialogue::default().link();
        dialogue.gre(1420, Outbound, 7, CHAP_RESPONSE);
        dialogue.gre(1500, Inbound, 0, refusal);
        assert_eq!(dialogue.codes(1600), [(Code::PptpAuthFail, HIGH)]);
        dialogue.tcp(1700, Inbound, FIN, &[]);
        assert_eq!(dialogue.session(1800), (Phase::Closed, "login refused"));
    }
}

#[test]
fn a_server_that_hangs_up_on_the_login_refuses_it() {
    let mut dialogue = Dialogue::default().link();
    dialogue.gre(1420, Outbound, 7, CHAP_RESPONSE);
    dialogue.gre(2500, Inbound, 0, LCP_TERMINATE);
    assert_eq!(dialogue.codes(2600), [(Code::PptpAuthFail, MEDIUM)]);
}

#[test]
fn a_second_try_that_is_accepted_makes_up_for_a_refused_login() {
    let mut dialogue = Dialogue::default().link();
    dialogue.gre(1420, Outbound, 7, CHAP_RESPONSE);
    dialogue.gre(1500, Inbound, 0, CHAP_FAILURE);
    dialogue.gre(5000, Outbound, 7, CHAP_RESPONSE);
    dialogue.gre(5100, Inbound, 0, CHAP_SUCCESS);
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn a_link_that_ends_over_encryption_says_so() {
    let rejected: &[u8] = &[0xc0, 0x21, 8, 3, 0, 10, 0x80, 0xfd, 1, 1, 0, 4];
    let spoken: &[u8] = b"\xc0\x21\x05\x02\x00\x1cMPPE required but peer refused";
    for (frame, last, sure) in [(rejected, LCP_TERMINATE, MEDIUM), (CCP_REQUEST, spoken, HIGH)] {
        let mut dialogue = Dialogue::default().link();
        dialogue.gre(1420, Outbound, 7, CHAP_RESPONSE);
        dialogue.gre(1500, Inbound, 0, CHAP_SUCCESS);
        dialogue.gre(1600, Inbound, 0, frame);
        assert_eq!(dialogue.codes(1700), []);
        dialogue.gre(1800, Outbound, 7, last);
        assert_eq!(dialogue.codes(2000), [(Code::PptpMppeFail, sure)]);
    }
}

#[test]
fn a_link_that_goes_on_without_encryption_is_fine() {
    let mut dialogue = Dialogue::default().link();
    dialogue.gre(1500, Inbound, 0, CHAP_SUCCESS);
    dialogue.gre(1600, Inbound, 0, &[0xc0, 0x21, 8, 3, 0, 10, 0x80, 0xfd, 1, 1, 0, 4]);
    dialogue.both(1700, IPCP_ACK);
    dialogue.gre(9000, Outbound, 7, LCP_TERMINATE);
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn a_control_connection_that_dies_while_gre_flows_was_forgotten() {
    let mut dialogue = Dialogue::default().work();
    let first = dialogue.next;
    for millis in [62_000, 62_500, 63_500, 65_500, 69_500] {
        dialogue.next = first;
        dialogue.tcp(millis, Outbound, ACK, &message(5, 0, 0, 0));
        dialogue.both(millis + 100, PACKET);
    }
    assert_eq!(dialogue.codes(75_000), [(Code::PptpIdleKilled, HIGH)]);
}

#[test]
fn an_echo_that_is_answered_late_is_nothing() {
    let mut dialogue = Dialogue::default().work();
    let first = dialogue.next;
    for millis in [62_000, 62_500] {
        dialogue.next = first;
        dialogue.tcp(millis, Outbound, ACK, &message(5, 0, 0, 0));
        dialogue.both(millis + 100, PACKET);
    }
    dialogue.tcp(63_000, Inbound, ACK, &message(6, 0, 0, 0));
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn a_session_whose_address_changed_and_hears_nothing_is_the_line_s() {
    let mut dialogue = Dialogue::default().work();
    dialogue.scene.router.wan_changed = Some((at(10_000), [203, 0, 113, 1].into()));
    for round in 0..5 {
        dialogue.gre(11_000 + round * 3000, Outbound, 7, PACKET);
    }
    assert_eq!(dialogue.codes(25_000), [(Code::WanAddrChanged, HIGH)]);
    dialogue.both(26_000, PACKET);
    assert_eq!(dialogue.codes(27_000), [], "it recovered");
}

#[test]
fn a_reset_of_natd_s_own_after_a_change_of_address_is_the_line_s() {
    let mut dialogue = Dialogue::default().work();
    dialogue.scene.router.wan_changed = Some((at(10_000), [203, 0, 113, 1].into()));
    dialogue.ttl = 64;
    dialogue.tcp(11_000, Inbound, RST, &[]);
    assert_eq!(dialogue.codes(12_000), [(Code::WanAddrChanged, HIGH)]);
}

#[test]
fn a_connection_that_leaves_from_another_port_was_forgotten() {
    let mut dialogue = Dialogue::default().work();
    let pass = |dialogue: &mut Dialogue, millis, port| {
        let bytes = Peers::tcp(40_000, 1723, 0, 0, ACK, &[]);
        let trace = dialogue.peers.packet(millis, Outbound, 6, &bytes).trace();
        dialogue.tracker.passage(&trace, Passage::Left { wan: [203, 0, 113, 1].into(), port });
    };
    pass(&mut dialogue, 1_100, 40_000);
    let first = dialogue.next;
    for millis in [62_000, 62_500, 63_500, 65_500] {
        dialogue.next = first;
        dialogue.tcp(millis, Outbound, ACK, &message(5, 0, 0, 0));
        pass(&mut dialogue, millis, 50_001);
    }
    assert_eq!(dialogue.codes(75_000), [(Code::NatIdleTimeout, HIGH)]);
}

#[test]
fn gre_alone_is_a_session_without_findings() {
    let mut dialogue = Dialogue::default();
    for round in 0..5 {
        dialogue.gre(round * 3000, Outbound, 7, PACKET);
    }
    assert_eq!(dialogue.codes(LATE), []);
    assert_eq!(dialogue.session(13_000).0, Phase::Data);
}

#[test]
fn a_working_call_that_is_switched_off_says_so() {
    let mut dialogue = Dialogue::default().work().refused(47, "pptp-off");
    assert_eq!(dialogue.codes(10_000), [(Code::PptpGrePassOff, HIGH)]);
    dialogue.both(12_000, PACKET);
    assert_eq!(dialogue.codes(20_000), [], "and on again");
}

#[test]
fn an_echo_of_the_server_s_that_reaches_nobody_shows_a_forgotten_connection() {
    let mut dialogue = Dialogue::default().work();
    let bytes = Peers::tcp(1723, 40_000, 0, 0, ACK, &message(5, 0, 0, 0));
    let trace = dialogue.peers.packet(64_000, Inbound, 6, &bytes).trace();
    let stray = Stray { server: dialogue.peers.server, trace, count: 4, first: at(61_500) };
    dialogue.scene.router.strays.push(stray);
    assert_eq!(dialogue.codes(70_000), [(Code::PptpIdleKilled, MEDIUM)]);
    dialogue.scene.router.strays[0].trace.device_port = 40_001;
    assert_eq!(dialogue.codes(70_000), [], "another connection's");
}

#[test]
fn call_ids_that_a_nat_has_changed_are_the_same_call_s_beyond_it() {
    let mut dialogue = Dialogue::default().dial(1);
    for (millis, frame) in [(1200, LCP_REQUEST), (1250, LCP_ACK), (1300, IPCP_ACK)] {
        dialogue.gre(millis, Outbound, 7, frame);
        let bytes = [&[0x30, 1, 0x88, 0x0b, 0, 8, 0x12, 0x34, 0, 0, 0, 1][..], frame].concat();
        let mut seen = dialogue.peers.packet(millis + 20, Inbound, 47, &bytes);
        seen.point = Point::Wan;
        dialogue.tracker.observe(&seen);
    }
    assert_eq!(dialogue.codes(LATE), []);
    assert_eq!(dialogue.session(2000).0, Phase::Data);
}

#[test]
fn gre_of_a_connection_whose_beginning_was_not_seen_is_its_own() {
    let mut dialogue = Dialogue::default();
    dialogue.tcp(0, Outbound, ACK, &message(5, 0, 0, 0));
    dialogue.tcp(50, Inbound, ACK, &message(6, 0, 0, 0));
    dialogue.both(1000, PACKET);
    assert_eq!(dialogue.codes(LATE), []);
    assert_eq!(dialogue.tracker.connections.len(), 1);
    assert_eq!(dialogue.session(2000), (Phase::Data, ""));
}

#[test]
fn a_connection_that_the_server_uses_again_is_judged_by_its_last_call() {
    let mut dialogue = Dialogue::default().work();
    dialogue.tcp(9000, Outbound, ACK, &message(12, 0, 0, 0));
    dialogue.tcp(9100, Inbound, ACK, &message(13, 7, 0, 0));
    assert_eq!(dialogue.codes(LATE), []);
    dialogue.tcp(9500, Outbound, ACK, &message(7, 1, 0, 0));
    dialogue.tcp(9600, Inbound, ACK, &message(8, 8, 1, 1));
    dialogue.gre(9700, Outbound, 8, LCP_REQUEST);
    dialogue.gre(9800, Inbound, 1, LCP_ACK);
    assert_eq!(dialogue.codes(LATE), []);
    dialogue.gre(9900, Inbound, 1, CHAP_FAILURE);
    assert_eq!(dialogue.codes(LATE), [(Code::PptpAuthFail, HIGH)]);
}

#[test]
fn messages_split_and_merged_are_read_alike() {
    let mut dialogue = Dialogue::default().connect();
    dialogue.tcp(30, Outbound, ACK, &message(1, 0, 0, 0));
    let both = [message(2, 0, 0, 1), message(8, 7, 0, 4)].concat();
    dialogue.tcp(31, Outbound, ACK, &message(7, 0, 0, 0));
    for (index, part) in both.chunks(7).enumerate() {
        dialogue.tcp(40 + u64::try_from(index).unwrap(), Inbound, ACK, part);
    }
    assert_eq!(dialogue.codes(2000), [(Code::PptpCallRefused, HIGH)]);
}

#[test]
fn a_missing_segment_is_skipped() {
    let mut dialogue = Dialogue::default().start(1);
    dialogue.next[1] += 500;
    dialogue.tcp(1060, Outbound, ACK, &message(7, 0, 0, 0));
    dialogue.tcp(1100, Inbound, ACK, &message(8, 7, 0, 4));
    assert_eq!(dialogue.codes(2000), [(Code::PptpCallRefused, HIGH)]);
}

#[test]
fn a_connection_from_the_same_port_is_another_attempt() {
    let mut dialogue = Dialogue::default();
    dialogue.tcp(0, Outbound, SYN, &[]);
    dialogue.tcp(20, Inbound, RST | ACK, &[]);
    dialogue.next = [90_000, 70_000];
    dialogue = dialogue.work();
    let found = dialogue.asked(LATE, &[]);
    assert_eq!(
        found.iter().map(|finding| (finding.attempt, finding.code)).collect::<Vec<_>>(),
        [(1, Code::PptpRefused)]
    );
}

#[test]
fn a_server_at_home_is_not_judged() {
    let mut dialogue = Dialogue::default();
    let bytes = Peers::tcp(1723, 50_000, 0, 0, RST, &[]);
    dialogue.tracker.observe(&dialogue.peers.packet(0, Outbound, 6, &bytes));
    assert!(dialogue.tracker.connections.is_empty());
}

#[test]
fn noise_neither_panics_nor_grows() {
    let mut dialogue = Dialogue::default();
    let mut state = 7_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u8::try_from(state >> 56).unwrap()
    };
    for round in 0..50_000 {
        let direction = if byte() & 1 == 0 { Outbound } else { Inbound };
        let mut payload =
            message(u16::from(byte() % 16), u16::from(byte() % 3), u16::from(byte() % 3), byte() % 3);
        for _ in 0..byte() % 4 {
            let at = usize::from(byte()) % payload.len();
            payload[at] = byte();
        }
        payload.truncate(usize::from(byte()));
        dialogue.port = 40_000 + u16::from(byte() % 8);
        if byte() & 1 == 0 {
            dialogue.tcp(round * 100, direction, byte(), &payload);
        } else {
            dialogue.gre(round * 100, direction, u16::from(byte() % 4), &payload[..payload.len().min(40)]);
        }
        if round % 1000 == 999 {
            dialogue.codes(round * 100);
            dialogue.session(round * 100);
        }
    }
    assert!(dialogue.tracker.connections.len() <= CONNECTIONS);
}
