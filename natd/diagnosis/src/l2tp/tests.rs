//! L2TP as it goes right, and each way in which it goes wrong.

use std::net::IpAddr;

use nat_core::flow::Direction::{self, Inbound, Outbound};

use super::*;
use crate::code::{Code, Party};
use crate::finding::{Confidence, Finding};
use crate::observation::{IcmpKind, Peers, at};
use crate::router::{Refusal, Stray};
use crate::tally::scene::Scene;

const HIGH: Confidence = Confidence::High;
const MEDIUM: Confidence = Confidence::Medium;
const LATE: u64 = 120_000;
const WAN: [u8; 4] = [203, 0, 113, 1];
const RETRIED: [u64; 5] = [0, 1000, 3000, 7000, 15_000];

struct Dialogue {
    tracker: Tracker,
    scene: Scene,
    peers: Peers,
    port: u16,
    number: u16,
}

impl Default for Dialogue {
    fn default() -> Self {
        let tracker = Tracker::default();
        Self { tracker, scene: Scene::default(), peers: Peers::default(), port: 1701, number: 0 }
    }
}

impl Dialogue {
    fn udp(&mut self, millis: u64, direction: Direction, payload: &[u8]) {
        let ports = if direction == Outbound { (self.port, 1701) } else { (1701, self.port) };
        let bytes = Peers::udp(ports.0, ports.1, payload);
        self.tracker.observe(&self.peers.packet(millis, direction, 17, &bytes));
    }

    /// A control message of version 2: kind 0 only acknowledges.
    fn control(&mut self, millis: u64, direction: Direction, tunnel: u16, kind: u16, avps: &[Vec<u8>]) {
        let head = [0xc802, 0, tunnel, 0, self.number, 0];
        self.udp(millis, direction, &control(head, kind, avps));
    }

    fn request(&mut self, times: &[u64], assigned: &[u8], hidden: bool) {
        let mut id = avp(9, assigned);
        if hidden {
            id[0] |= 0x40;
        }
        for &millis in times {
            self.control(millis, Outbound, 0, 1, std::slice::from_ref(&id));
        }
    }

    /// Tunnel 1 of the device, tunnel 7 of the server, with a session.
    fn up(mut self) -> Self {
        self.request(&[0], &[0, 1], false);
        self.control(30, Inbound, 1, 2, &[avp(9, &[0, 7])]);
        self.control(40, Outbound, 7, 3, &[]);
        self.control(60, Outbound, 7, 10, &[avp(14, &[0, 1])]);
        self.control(80, Inbound, 1, 11, &[avp(14, &[0, 2])]);
        self.control(90, Outbound, 7, 12, &[]);
        for millis in [100, 1000] {
            self.data(millis, Outbound, 7);
            self.data(millis + 20, Inbound, 1);
        }
        self
    }

    fn data(&mut self, millis: u64, direction: Direction, tunnel: u16) {
        let head = [2, tunnel, 1].map(u16::to_be_bytes).concat();
        self.udp(millis, direction, &[&head[..], &[0xff, 3, 0, 0x21, 0x45, 0]].concat());
    }

    fn left(&mut self, millis: u64, port: u16) {
        let bytes = Peers::udp(self.port, 1701, &[0xc8, 2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0]);
        let trace = self.peers.packet(millis, Outbound, 17, &bytes).trace();
        self.tracker.passage(&trace, Passage::Left { wan: WAN.into(), port });
    }

    fn asked(&self, millis: u64, others: &[&Tracker]) -> Vec<Finding> {
        let mut findings = Findings::default();
        self.tracker.judge(&self.scene.at(millis), others, &mut findings);
        findings.list
    }

    fn codes(&self, millis: u64) -> Vec<(Code, Confidence)> {
        self.asked(millis, &[]).iter().map(|finding| (finding.code, finding.confidence)).collect()
    }

    fn with(&self, others: &[&Tracker]) -> Vec<Code> {
        self.asked(20_000, others).iter().map(|finding| finding.code).collect()
    }

    fn session(&self, millis: u64) -> (Vpn, Phase, &'static str) {
        let mut sessions = Vec::new();
        self.tracker.sessions(at(millis), &mut sessions);
        sessions.last().map(|session| (session.vpn, session.phase, session.reason)).unwrap()
    }

    fn refusing(mut self, protocol: u8, reason: &'static str) -> Self {
        self.scene.router.refusals.push(Refusal {
            device: Some(self.peers.device),
            server: None,
            protocol,
            port: if protocol == 17 { 1701 } else { 0 },
            reason,
            count: 1,
            first: at(0),
            last: at(2000),
        });
        self
    }
}

/// Flags, length (filled in), tunnel, session, Ns, Nr.
fn control(mut head: [u16; 6], kind: u16, avps: &[Vec<u8>]) -> Vec<u8> {
    let kind = if kind == 0 { Vec::new() } else { avp(0, &kind.to_be_bytes()) };
    let body = [kind, avps.concat()].concat();
    head[1] = u16::try_from(12 + body.len()).unwrap();
    [head.map(u16::to_be_bytes).concat(), body].concat()
}

fn avp(attribute: u16, value: &[u8]) -> Vec<u8> {
    let flags = 0x8000 | u16::try_from(6 + value.len()).unwrap();
    [&[flags, 0, attribute].map(u16::to_be_bytes).concat()[..], value].concat()
}

fn second() -> Dialogue {
    let mut dialogue = Dialogue::default();
    dialogue.peers.device = [192, 168, 1, 12].into();
    dialogue
}

#[test]
fn a_healthy_tunnel_has_no_finding_at_any_time() {
    let dialogue = Dialogue::default().up();
    for millis in [35, 2000, 15_000, LATE, 1_000_000] {
        assert_eq!(dialogue.codes(millis), [], "{millis}");
    }
    assert_eq!(dialogue.session(2000), (Vpn::L2tp, Phase::Data, ""));
    assert_eq!(dialogue.session(90_000), (Vpn::L2tp, Phase::Keepalive, ""));
}

#[test]
fn a_request_that_is_repeated_once_is_nothing() {
    let mut dialogue = Dialogue::default();
    dialogue.request(&[0, 1000], &[0, 1], false);
    assert_eq!(dialogue.codes(1100), []);
    dialogue.control(1200, Inbound, 1, 2, &[avp(9, &[0, 7])]);
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn a_request_without_any_answer_is_told_after_three() {
    let mut dialogue = Dialogue::default();
    dialogue.request(&RETRIED[..3], &[0, 1], false);
    assert_eq!(dialogue.codes(3001), [(Code::L2tpNoReply, MEDIUM)]);
    dialogue.request(&RETRIED[3..], &[0, 1], false);
    assert_eq!(dialogue.codes(16_000), [(Code::L2tpNoReply, HIGH)]);
    assert_eq!(dialogue.session(LATE), (Vpn::L2tp, Phase::Closed, "no answer"));
    dialogue.request(&[200_000], &[0, 1], false);
    assert_eq!(dialogue.tracker.tunnels.len(), 2, "another attempt");
}

#[test]
fn version_3_without_answer_is_told_likewise() {
    let mut dialogue = Dialogue::default();
    let request = control([0xc803, 0, 0, 0, 0, 0], 1, &[avp(61, &[0, 0, 1, 0])]);
    for millis in RETRIED {
        dialogue.udp(millis, Outbound, &request);
    }
    assert_eq!(dialogue.codes(16_000), [(Code::L2tpNoReply, HIGH)]);
    assert_eq!(dialogue.session(16_000), (Vpn::L2tpV3, Phase::Handshake, ""));
}

#[test]
fn a_server_that_wants_ipsec_refuses() {
    for (result, sure) in [(4, HIGH), (2, MEDIUM), (5, MEDIUM)] {
        let mut dialogue = Dialogue::default();
        dialogue.request(&[0], &[0, 1], false);
        dialogue.control(30, Inbound, 1, 4, &[avp(9, &[0, 7]), avp(1, &[0, result])]);
        assert_eq!(dialogue.codes(100), [(Code::L2tpPlainRefused, sure)]);
        assert_eq!(dialogue.session(100).2, refusal_words(u16::from(result)));
    }
}

#[test]
fn a_server_that_knows_another_secret_refuses_behind_the_device_s_answer() {
    let start = |challenge: bool| {
        let mut dialogue = Dialogue::default();
        dialogue.request(&[0], &[0, 1], false);
        let mut reply = vec![avp(9, &[0, 7])];
        reply.extend(challenge.then(|| avp(11, &[9; 16])));
        dialogue.control(10, Inbound, 1, 2, &reply);
        dialogue.control(11, Outbound, 7, 3, &[avp(13, &[8; 16])]);
        dialogue
    };
    let said = avp(1, b"\0\x02\0\x06Invalid challenge");
    for asks in [true, false] {
        let mut dialogue = start(true);
        if asks {
            dialogue.control(12, Outbound, 7, 10, &[avp(14, &[0, 1])]);
        }
        dialogue.control(30, Inbound, 1, 4, &[avp(9, &[0, 7]), said.clone()]);
        let [ref finding] = dialogue.asked(1000, &[])[..] else { panic!("not one finding") };
        assert_eq!((finding.code, finding.confidence), (Code::L2tpPlainRefused, HIGH));
        assert_eq!(finding.owner, [Party::User, Party::Server]);
        let words = "refused by the server: general error (result 2, error 6)";
        assert_eq!(finding.evidence[1].what, words);
        assert_eq!(dialogue.session(1000).2, "refused by the server: general error");
    }
    // Nobody asked for a secret, and a session is refused.
    let mut dialogue = start(false);
    dialogue.control(12, Outbound, 7, 10, &[avp(14, &[0, 1])]);
    dialogue.control(30, Inbound, 1, 4, &[avp(9, &[0, 7]), said]);
    let [ref finding] = dialogue.asked(1000, &[])[..] else { panic!("not one finding") };
    assert_eq!((finding.code, finding.confidence), (Code::L2tpPlainRefused, MEDIUM));
    assert_eq!(finding.owner, Code::L2tpPlainRefused.owner());
}

#[test]
fn a_tunnel_that_nobody_wants_any_more_may_be_cleared() {
    for cancelled in [false, true] {
        let mut dialogue = Dialogue::default();
        dialogue.request(&[0], &[0, 1], false);
        dialogue.control(10, Inbound, 1, 2, &[avp(9, &[0, 7]), avp(11, &[9; 16])]);
        dialogue.control(11, Outbound, 7, 3, &[avp(13, &[8; 16])]);
        if cancelled {
            dialogue.control(12, Outbound, 7, 10, &[avp(14, &[0, 1])]);
            dialogue.control(13, Outbound, 7, 14, &[avp(14, &[0, 1])]);
        }
        dialogue.control(60_000, Inbound, 1, 4, &[avp(9, &[0, 7]), avp(1, &[0, 1])]);
        assert_eq!(dialogue.codes(LATE), [], "{cancelled}");
    }
    let mut joined = Dialogue::default();
    joined.data(0, Inbound, 1);
    joined.control(1000, Inbound, 1, 4, &[avp(9, &[0, 7]), avp(1, &[0, 6])]);
    assert_eq!(joined.codes(LATE), [], "it was up before anybody watched");
}

#[test]
fn a_tunnel_that_exists_already_is_a_clash() {
    for (hidden, code) in [(false, Code::L2tpTunnelClash), (true, Code::L2tpHiddenId)] {
        let mut dialogue = second();
        let id: &[u8] = if hidden { &[1, 2, 3, 4] } else { &[0, 1] };
        dialogue.request(&[0], id, hidden);
        dialogue.control(30, Inbound, 1, 4, &[avp(9, &[0, 7]), avp(1, &[0, 3])]);
        assert_eq!(dialogue.with(&[&Dialogue::default().up().tracker]), [code]);
        assert_eq!(dialogue.with(&[]), [Code::L2tpTunnelClash]);
    }
}

#[test]
fn a_tunnel_that_either_side_closes_in_order_is_nothing() {
    for by in [Outbound, Inbound] {
        let mut dialogue = Dialogue::default().up();
        let tunnel = if by == Outbound { 7 } else { 1 };
        dialogue.control(50_000, by, tunnel, 4, &[avp(9, &[0, 1]), avp(1, &[0, 1])]);
        assert_eq!(dialogue.codes(LATE), []);
        assert_eq!(dialogue.session(LATE).1, Phase::Closed);
        // Its beginning was not seen.
        let mut dialogue = Dialogue::default();
        dialogue.data(40_000, Outbound, 7);
        dialogue.control(50_000, by, tunnel, 4, &[avp(9, &[0, 1]), avp(1, &[0, 1])]);
        assert_eq!(dialogue.codes(LATE), []);
    }
}

#[test]
fn natd_names_what_it_refuses() {
    for (reason, code) in [
        ("l2tp-off", Code::L2tpPassOff),
        ("vpn-not-allowed", Code::L2tpPassOff),
        ("vpn-second-device", Code::L2tpTunnelClash),
    ] {
        let mut dialogue = Dialogue::default().refusing(17, reason);
        dialogue.request(&[0], &[0, 1], false);
        assert_eq!(dialogue.codes(100), [(code, HIGH)], "{reason}");
    }
    let mut dialogue = Dialogue::default();
    dialogue.scene.router.l2tp = Some(false);
    dialogue.request(&RETRIED, &[0, 1], false);
    assert_eq!(dialogue.codes(16_000), [(Code::L2tpPassOff, HIGH)]);
}

#[test]
fn a_refusal_before_the_tunnel_was_asked_for_is_another_s() {
    let mut dialogue = Dialogue::default().refusing(17, "l2tp-off");
    dialogue.request(&[60_000, 61_000, 63_000, 67_000], &[0, 1], false);
    assert_eq!(dialogue.codes(75_000), [(Code::L2tpNoReply, HIGH)]);
}

#[test]
fn l2tp_without_udp_is_refused_and_shut_out_like_any_other() {
    let mut dialogue = Dialogue::default();
    for millis in RETRIED {
        let seen = dialogue.peers.packet(millis, Outbound, 115, &[0, 0, 0, 5, 1, 2, 3, 4]);
        dialogue.tracker.observe(&seen);
    }
    assert_eq!(dialogue.codes(20_000), [], "nothing has to answer data");
    dialogue.scene.router.wan = vec![[192, 0, 0, 2].into()];
    assert_eq!(dialogue.codes(20_000), [(Code::SharedIpv4Proto, HIGH)]);
    let dialogue = dialogue.refusing(115, "l2tp-off");
    assert_eq!(dialogue.codes(20_000), [(Code::L2tpPassOff, HIGH)]);
    assert_eq!(dialogue.session(20_000).0, Vpn::L2tpV3);
}

#[test]
fn a_port_other_than_1701_is_to_blame_where_1701_is_answered() {
    let mut first = Dialogue::default().up();
    first.left(10, 1701);
    let mut dialogue = second();
    dialogue.request(&RETRIED, &[0, 2], false);
    dialogue.left(16_000, 40_001);
    assert_eq!(dialogue.with(&[&first.tracker]), [Code::L2tpSourcePort]);
    assert_eq!(dialogue.with(&[]), [Code::L2tpNoReply], "no port is known to be answered");
    first.left(2000, 40_009);
    assert_eq!(dialogue.with(&[&first.tracker]), [Code::L2tpNoReply], "it answers to any");
}

#[test]
fn the_same_tunnel_id_on_two_devices_clashes_where_the_router_does_not_change_it() {
    let first = Dialogue::default().up();
    let mut dialogue = second();
    dialogue.request(&RETRIED, &[0, 1], false);
    assert_eq!(dialogue.with(&[&first.tracker]), [Code::L2tpTunnelClash]);
    dialogue.scene.vantage.router = true;
    let found = dialogue.asked(20_000, &[&first.tracker]);
    assert_eq!((found[0].code, found[0].owner), (Code::L2tpNoReply, &[Party::Server, Party::Router][..]));
}

#[test]
fn a_hidden_id_cannot_be_changed() {
    let first = Dialogue::default().up();
    let mut dialogue = second();
    dialogue.scene.vantage.router = true;
    dialogue.request(&RETRIED, &[9, 9, 9, 9], true);
    assert_eq!(dialogue.with(&[&first.tracker]), [Code::L2tpHiddenId]);
    assert_eq!(dialogue.with(&[]), [Code::L2tpNoReply], "alone it does not matter");
}

#[test]
fn a_hello_that_is_never_acknowledged_is_lost() {
    let mut dialogue = Dialogue::default().up();
    dialogue.number = 4;
    for millis in [61_000, 62_000, 64_000, 68_000] {
        dialogue.control(millis, Outbound, 7, 6, &[]);
    }
    assert_eq!(dialogue.codes(75_000), [(Code::L2tpHelloLost, HIGH)]);
    dialogue.control(75_100, Inbound, 1, 0, &[]);
    assert_eq!(dialogue.codes(LATE), [], "acknowledged in the end");
}

#[test]
fn a_tunnel_that_its_device_gives_up_because_of_its_hellos_is_lost() {
    for (sent, found) in [(5, &[(Code::L2tpHelloLost, HIGH)][..]), (2, &[]), (0, &[])] {
        let mut dialogue = Dialogue::default().up();
        dialogue.number = 4;
        for millis in [61_000, 62_000, 64_000, 68_000, 76_000].into_iter().take(sent) {
            dialogue.control(millis, Outbound, 7, 6, &[]);
            dialogue.data(millis + 500, Outbound, 7);
        }
        dialogue.number = 5;
        for millis in [92_000, 93_000, 95_000] {
            dialogue.control(millis, Outbound, 7, 4, &[avp(9, &[0, 1]), avp(1, &[0, 1, 0, 0])]);
        }
        assert_eq!(dialogue.codes(96_000), found, "{sent} hellos");
        dialogue.control(97_000, Inbound, 1, 0, &[]);
        assert_eq!(dialogue.codes(LATE), found, "the server is there again when it is over");
    }
}

#[test]
fn a_tunnel_whose_way_the_nat_forgot_says_so() {
    let mut dialogue = Dialogue::default().up();
    dialogue.left(1000, 1701);
    dialogue.number = 4;
    for millis in [61_000, 62_000, 64_000, 68_000] {
        dialogue.control(millis, Outbound, 7, 6, &[]);
        dialogue.left(millis, 40_001);
    }
    assert_eq!(dialogue.codes(75_000), [(Code::NatIdleTimeout, HIGH)]);
    dialogue.control(76_000, Inbound, 1, 0, &[]);
    assert_eq!(dialogue.codes(LATE), [], "it answers to the new port");
}

#[test]
fn another_port_without_a_silence_before_is_no_timeout() {
    let mut dialogue = Dialogue::default().up();
    dialogue.left(1000, 1701);
    for millis in [5000, 6000, 8000, 12_000] {
        dialogue.data(millis, Outbound, 7);
        dialogue.left(millis, 40_001);
    }
    assert_eq!(dialogue.codes(75_000), []);
}

#[test]
fn what_comes_for_a_forgotten_tunnel_says_so() {
    let mut dialogue = Dialogue::default().up();
    let bytes = Peers::udp(1701, 1701, &control([0xc802, 0, 1, 0, 4, 4], 6, &[]));
    let trace = dialogue.peers.packet(70_000, Inbound, 17, &bytes).trace();
    let server = dialogue.peers.server;
    dialogue.scene.router.strays.push(Stray { server, trace, count: 4, first: at(61_000) });
    assert_eq!(dialogue.codes(75_000), [(Code::NatIdleTimeout, MEDIUM)]);
    dialogue.data(80_000, Inbound, 1);
    assert_eq!(dialogue.codes(90_000), []);
}

#[test]
fn a_session_whose_address_changed_and_hears_nothing_is_the_line_s() {
    let mut dialogue = Dialogue::default().up();
    dialogue.scene.router.wan_changed = Some((at(10_000), WAN.into()));
    for millis in [11_000, 14_000, 17_000, 20_000] {
        dialogue.data(millis, Outbound, 7);
    }
    assert_eq!(dialogue.codes(25_000), [(Code::WanAddrChanged, HIGH)]);
    dialogue.data(26_000, Inbound, 1);
    assert_eq!(dialogue.codes(27_000), []);
}

#[test]
fn unreachable_from_the_server_is_the_server_s_and_from_a_router_the_way_s() {
    let server = Peers::default().server;
    let router: IpAddr = [203, 0, 113, 9].into();
    for (from, kind, code) in [
        (server, IcmpKind::PortUnreachable, Code::ServerDown),
        (router, IcmpKind::HostUnreachable, Code::ServerDown),
        (router, IcmpKind::Prohibited, Code::ServerPath),
    ] {
        let mut dialogue = Dialogue::default();
        dialogue.request(&[0], &[0, 1], false);
        dialogue.tracker.error(&IcmpReport {
            mark: Mark { at: at(30), number: 30 },
            from,
            about_outbound: true,
            kind,
            protocol: 17,
            device_port: 1701,
            server_port: 1701,
            id: 0,
        });
        assert_eq!(dialogue.codes(2000), [(code, MEDIUM)], "{kind:?}");
        assert_eq!(dialogue.session(2000).2, "unreachable");
        dialogue.control(2100, Inbound, 1, 2, &[avp(9, &[0, 7])]);
        assert_eq!(dialogue.codes(LATE), []);
    }
}

#[test]
fn a_server_at_home_is_not_judged() {
    let mut dialogue = Dialogue::default();
    dialogue.control(0, Inbound, 0, 1, &[avp(9, &[0, 1])]);
    for millis in RETRIED {
        dialogue.control(millis + 10, Outbound, 1, 2, &[avp(9, &[0, 7])]);
    }
    assert_eq!(dialogue.codes(LATE), []);
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
        let avps = [avp(9, &[0, byte() % 4]), avp(1, &[0, byte() % 8])];
        let version = 0xc802 + u16::from(byte() & 1);
        let mut payload =
            control([version, 0, u16::from(byte() % 3), 0, 0, 0], u16::from(byte() % 17), &avps);
        for _ in 0..byte() % 4 {
            let at = usize::from(byte()) % payload.len();
            payload[at] = byte();
        }
        payload.truncate(usize::from(byte()));
        dialogue.port = 1701 + u16::from(byte() % 8);
        dialogue.udp(round * 100, direction, &payload);
        if round % 1000 == 999 {
            dialogue.codes(round * 100);
            dialogue.session(round * 100);
        }
    }
    assert!(dialogue.tracker.tunnels.len() <= TUNNELS);
}
