use nat_core::flow::Direction::{self, Inbound, Outbound};

use super::*;
use crate::finding::Finding;
use crate::flow::exercise::{ask, household};
use crate::observation::{IcmpKind, Peers, at};
use crate::pair::Pair;
use crate::router::Router;

const RESET: u8 = 0x38;
const SERVER_RESET: u8 = 0x40;
const CONTROL: u8 = 0x20;
const DATA: u8 = 0x48;

#[test]
fn resets_without_an_answer_are_no_reply() {
    let mut story = Story::default();
    story.resets(&[0, 2_000]);
    assert_eq!(story.codes(4_000), []);
    story.resets(&[6_000, 14_000]);
    let found = story.found(14_100);
    assert_eq!(codes(&found), [(Code::OvpnNoReply, Confidence::High)]);
    assert_eq!(found[0].owner, Code::OvpnNoReply.owner());
    assert_eq!(story.phases(14_100), [(Phase::Handshake, "")]);
    assert_eq!(story.phases(80_000), [(Phase::Closed, "no answer")]);
}

#[test]
fn a_server_with_tls_crypt_may_only_lack_the_key() {
    let mut story = Story::default();
    for millis in [0, 2_000, 6_000, 14_000] {
        let mut reset = [&[RESET][..], &[1; 8], &[0, 0, 0, 1], &[5; 4], &[9; 32]].concat();
        reset.resize(54, 9);
        story.send(millis, Outbound, &reset);
    }
    let found = story.found(15_000);
    assert_eq!(codes(&found), [(Code::OvpnNoReply, Confidence::High)]);
    assert!(found[0].owner.contains(&Party::User));
    assert!(found[0].evidence.iter().any(|evidence| evidence.what.starts_with("tls-crypt:")));
}

#[test]
fn one_reset_sent_again_and_a_session_with_pings_are_nothing() {
    let mut story = Story::default();
    story.resets(&[0, 2_000]);
    story.connect(2_100);
    assert_eq!(story.phases(2_200), [(Phase::Established, "")]);
    for second in 1..100 {
        story.data(second * 10_000, Outbound, 40);
        story.data(second * 10_000 + 50, Inbound, 40);
    }
    assert_eq!(story.codes(1_000_000), []);
    assert_eq!(story.phases(1_000_000), [(Phase::Keepalive, "")]);
    story.data(1_001_000, Inbound, 1200);
    assert_eq!(story.phases(1_001_000), [(Phase::Data, "")]);
    story.control(1_002_000, Outbound, 0x18, 14);
    assert_eq!(story.phases(1_002_100), [(Phase::Rekey, "")]);
    assert_eq!(story.codes(1_100_000), []);
}

#[test]
fn packets_on_tcp_that_are_cut_off_are_packets() {
    let mut story = Story { tcp: true, seen: 108, ..Story::default() };
    story.resets(&[0]);
    story.connect(50);
    story.data(300, Outbound, 1300);
    story.data(350, Inbound, 1300);
    assert_eq!(story.phases(400), [(Phase::Data, "")]);
    assert_eq!(story.codes(100_000), []);
}

#[test]
fn a_session_that_runs_already_is_not_over_for_want_of_tls() {
    let mut story = Story::default();
    for second in [0, 200, 400] {
        story.data(second * 1_000, Outbound, 40);
        story.data(second * 1_000 + 90_000, Inbound, 1);
        assert_ne!(story.phases(second * 1_000 + 199_000)[0].0, Phase::Closed);
    }
}

#[test]
fn udp_without_an_answer_and_tcp_with_one_is_udp_blocked() {
    let mut story = Story::default();
    story.resets(&[0, 2_000, 6_000, 14_000]);
    story.tcp = true;
    story.resets(&[60_000]);
    story.connect(60_100);
    story.data(60_300, Outbound, 100);
    story.data(60_400, Inbound, 100);
    let found = story.found(62_000);
    assert_eq!(codes(&found), [(Code::OvpnUdpBlocked, Confidence::High)]);
    assert_eq!(found[0].attempt, 2);
}

#[test]
fn tcp_of_which_no_data_is_shown_is_an_answer_too() {
    let mut story = Story::default();
    story.resets(&[0, 2_400, 6_000]);
    story.tcp = true;
    story.resets(&[10_600]);
    story.control(10_610, Inbound, SERVER_RESET, 26);
    story.control(10_620, Outbound, CONTROL, 303);
    story.control(10_630, Inbound, CONTROL, 1222);
    story.control(10_640, Outbound, CONTROL, 1446);
    story.control(10_650, Inbound, CONTROL, 443);
    assert_eq!(story.phases(12_000)[1], (Phase::Handshake, ""));
    let found = story.found(20_000);
    assert_eq!(codes(&found), [(Code::OvpnUdpBlocked, Confidence::High)]);
    assert_eq!((found[0].owner, found[0].attempt), (&[Party::Line][..], 2));
    assert_eq!(story.phases(20_000)[1], (Phase::Established, ""));
    assert_eq!(story.phases(200_000)[1], (Phase::Idle, ""));
    story.raw(201_000, Inbound, 17, &[]);
    assert_eq!(story.phases(202_000)[1], (Phase::Closed, "closed by the server"));
}

#[test]
fn tcp_without_an_answer_does_not_make_udp_blocked() {
    let mut story = Story::default();
    story.resets(&[0, 2_000, 6_000, 14_000]);
    story.tcp = true;
    story.resets(&[60_000]);
    story.raw(60_050, Inbound, 16, &[]);
    assert_eq!(story.codes(62_000), [(Code::OvpnNoReply, Confidence::High)]);
}

#[test]
fn udp_that_works_from_another_port_is_not_blocked() {
    let mut story = Story::default();
    story.resets(&[0, 2_000, 6_000, 14_000]);
    story.port += 1;
    story.resets(&[60_000]);
    story.connect(60_100);
    story.data(60_300, Outbound, 100);
    story.data(60_400, Inbound, 100);
    let found = story.found(62_000);
    assert_eq!(codes(&found), [(Code::OvpnNoReply, Confidence::High)]);
    assert_eq!(found[0].attempt, 1);
}

#[test]
fn new_keys_that_are_not_agreed_on_are_no_stall() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.connect(50);
    story.data(300, Inbound, 400);
    for second in [60, 62, 66, 74] {
        story.control(second * 1_000, Outbound, CONTROL, 300);
    }
    assert_eq!(story.codes(130_000), []);
}

#[test]
fn tls_that_gets_no_further_is_a_stall() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.control(50, Inbound, SERVER_RESET, 26);
    for millis in [100, 1_100, 3_100] {
        story.control(millis, Outbound, CONTROL, 300);
    }
    assert_eq!(story.codes(4_000), []);
    story.control(7_100, Outbound, CONTROL, 300);
    story.control(15_100, Outbound, CONTROL, 300);
    assert_eq!(story.codes(16_000), [(Code::OvpnTlsStall, Confidence::Medium)]);
    assert_eq!(story.codes(61_000), [(Code::OvpnTlsStall, Confidence::High)]);
    assert_eq!(story.phases(90_000), [(Phase::Closed, "TLS came to no end")]);
}

#[test]
fn tls_that_goes_on_for_a_minute_without_the_servers_part_is_a_stall() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.control(50, Inbound, SERVER_RESET, 26);
    for second in 1..30 {
        story.control(second * 2_000, Outbound, CONTROL, 300);
        story.control(second * 2_000 + 50, Inbound, 0x28, 22);
    }
    assert_eq!(story.codes(30_000), []);
    let found = story.found(61_000);
    assert_eq!(codes(&found), [(Code::OvpnTlsStall, Confidence::Medium)]);
    assert!(found[0].evidence.iter().any(|evidence| evidence.what.contains("larger")));
}

#[test]
fn a_server_whose_tls_breaks_off_is_a_stall() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.control(50, Inbound, SERVER_RESET, 26);
    story.control(60, Outbound, CONTROL, 300);
    story.control(80, Inbound, CONTROL, 875);
    story.control(90, Outbound, 0x28, 26);
    assert_eq!(story.codes(9_000), []);
    assert_eq!(story.codes(11_000), [(Code::OvpnTlsStall, Confidence::Medium)]);
    // The client had a part in it: then it is only quiet, and of data a part is shown.
    story.control(11_500, Inbound, CONTROL, 1100);
    story.control(11_600, Outbound, CONTROL, 1100);
    story.control(11_700, Inbound, CONTROL, 200);
    assert_eq!(story.codes(30_000), []);
}

#[test]
fn a_clients_long_packets_that_get_lost_are_a_stall_though_the_server_repeats_its_own() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.control(50, Inbound, SERVER_RESET, 26);
    story.control(60, Outbound, CONTROL, 300);
    story.control(80, Inbound, CONTROL, 1222);
    story.control(81, Inbound, CONTROL, 875);
    for millis in [90, 2_090, 6_090, 14_100, 30_100] {
        story.control(millis, Outbound, CONTROL, 1222);
    }
    for millis in [3_000, 7_000, 20_000] {
        story.control(millis, Inbound, CONTROL, 875);
        story.control(millis + 1, Outbound, 0x28, 34);
    }
    assert_eq!(story.codes(31_000), [(Code::OvpnTlsStall, Confidence::Medium)]);
    assert_eq!(story.phases(31_000), [(Phase::Handshake, "")]);
}

#[test]
fn a_server_that_acknowledges_and_whose_own_part_does_not_come_is_a_stall() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.control(50, Inbound, SERVER_RESET, 26);
    for millis in [60, 2_060, 6_060, 14_060] {
        story.control(millis, Outbound, CONTROL, 300);
    }
    story.control(14_070, Inbound, 0x28, 22);
    assert_eq!(story.codes(22_000), []);
    assert_eq!(story.codes(25_000), [(Code::OvpnTlsStall, Confidence::Medium)]);
}

#[test]
fn a_certificate_that_the_server_dislikes_is_no_black_hole() {
    let mut story = Story::default();
    for round in 0..2 {
        story.port += 1;
        let start = round * 70_000;
        story.resets(&[start]);
        story.control(start + 50, Inbound, SERVER_RESET, 26);
        story.control(start + 60, Inbound, CONTROL, 1100);
        for millis in [100, 2_100, 6_100, 14_100, 30_100] {
            story.control(start + millis, Outbound, CONTROL, 300);
        }
    }
    let found: Vec<Code> = story.found(140_000).iter().map(|finding| finding.code).collect();
    assert_eq!(found, [Code::OvpnTlsStall, Code::OvpnTlsStall]);
}

#[test]
fn a_server_that_hangs_up_or_is_silent_on_tcp_is_no_reply() {
    for (flags, millis, expected) in [
        (17, 1_000, vec![(Code::OvpnNoReply, Confidence::Medium)]),
        (16, 9_000, vec![]),
        (16, 11_000, vec![(Code::OvpnNoReply, Confidence::Medium)]),
        // The connections' watch tells of it.
        (4, 11_000, vec![]),
    ] {
        let mut story = Story { tcp: true, ..Story::default() };
        story.resets(&[0]);
        story.raw(40, Inbound, flags, &[]);
        assert_eq!(story.codes(millis), expected);
    }
}

#[test]
fn a_wrong_password_is_no_stall() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.control(50, Inbound, SERVER_RESET, 26);
    for round in 1..6 {
        story.control(100 * round, Outbound, CONTROL, 300);
        story.control(100 * round + 50, Inbound, CONTROL, 1100);
    }
    assert_eq!(story.codes(100_000), []);
}

#[test]
fn a_session_that_breaks_off_at_once_again_and_again_is_a_black_hole() {
    let mut story = Story::default();
    for round in 0..2 {
        let start = round * 100_000;
        story.port += 1;
        story.resets(&[start]);
        story.connect(start + 50);
        story.data(start + 300, Outbound, 400);
        story.data(start + 350, Inbound, 400);
        for second in 1..20 {
            story.data(start + second * 1_000, Outbound, 400);
        }
        if round == 0 {
            // Once may be a server that was stopped.
            assert_eq!(story.codes(start + 30_000), []);
        }
    }
    let expected = (Code::DpiUdpBlackhole, Confidence::Medium);
    // The second may only be seen in part: the client does not begin again yet.
    assert_eq!(story.codes(130_000), [expected]);
    assert_eq!(story.phases(130_000).first(), Some(&(Phase::Closed, "begun again")));
    story.port += 1;
    story.resets(&[150_000]);
    assert_eq!(story.codes(150_100), [expected, expected]);
}

#[test]
fn a_closed_port_is_a_server_that_is_down() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.error(20, [198, 51, 100, 10].into());
    story.resets(&[2_000]);
    story.error(2_020, [198, 51, 100, 10].into());
    story.resets(&[6_000]);
    assert_eq!(story.codes(6_100), [(Code::ServerDown, Confidence::High)]);
    let mut path = Story::default();
    path.resets(&[0, 2_000]);
    path.error(20, [203, 0, 113, 1].into());
    assert_eq!(path.codes(6_100), [(Code::ServerPath, Confidence::Medium)]);
    path.control(7_000, Inbound, SERVER_RESET, 26);
    assert_eq!(path.codes(8_000), []);
}

#[test]
fn silence_that_another_port_ends_badly_is_the_routers_timeout() {
    let wan = [203, 0, 113, 5].into();
    for (port, expected) in [
        (40_001, Some(Code::NatIdleTimeout)),
        (40_000, Some(Code::NatUpstreamTimeout)),
        // Answered; and not known to have left.
        (0, None),
        (1, None),
    ] {
        let mut story = Story::default();
        story.resets(&[0]);
        story.connect(50);
        story.data(300, Inbound, 400);
        let first = story.data(350, Outbound, 400);
        story.tracker.passage(&first, Passage::Left { wan, port: 40_000 });
        story.data(400, Inbound, 400);
        let second = story.data(100_000, Outbound, 400);
        if port == 0 {
            story.data(100_050, Inbound, 400);
        } else if port > 1 {
            story.tracker.passage(&second, Passage::Left { wan, port });
        }
        for millis in [105_000, 110_000, 115_000] {
            story.data(millis, Outbound, 400);
            if port == 0 {
                story.data(millis + 50, Inbound, 400);
            }
        }
        story.port += 1;
        story.resets(&[160_000]);
        story.connect(160_050);
        story.data(160_300, Outbound, 400);
        story.data(160_350, Inbound, 400);
        let found: Vec<Code> = story.found(161_000).iter().map(|finding| finding.code).collect();
        assert_eq!(found, Vec::from_iter(expected));
    }
}

#[test]
fn another_wan_address_ends_a_session_that_does_not_follow() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.connect(50);
    story.data(300, Outbound, 400);
    story.data(350, Inbound, 400);
    story.router.wan_changed = Some((at(5_000), [203, 0, 113, 5].into()));
    story.data(10_000, Outbound, 60);
    story.data(20_000, Outbound, 60);
    story.data(30_000, Outbound, 60);
    assert_eq!(story.codes(34_900), []);
    assert_eq!(story.codes(36_000), [(Code::WanAddrChanged, Confidence::High)]);
    // It followed; what ends it later is something else.
    story.data(37_000, Inbound, 60);
    assert_eq!(story.codes(38_000), []);
    for millis in [40_000, 50_000, 60_000] {
        story.data(millis, Outbound, 60);
    }
    assert_eq!(story.codes(80_000), []);
}

#[test]
fn a_tcp_session_ends_with_its_connection_and_data_in_parts_counts() {
    let mut story = Story { tcp: true, ..Story::default() };
    story.resets(&[0]);
    story.connect(50);
    story.data(300, Outbound, 400);
    story.data(350, Inbound, 400);
    story.raw(400, Inbound, 16, &[0xaa; 1400]);
    assert_eq!(story.phases(500), [(Phase::Data, "")]);
    story.raw(600, Inbound, 17, &[]);
    assert_eq!(story.phases(700), [(Phase::Closed, "closed by the server")]);
    assert_eq!(story.codes(60_000), []);
}

#[test]
fn no_bytes_make_it_panic_and_conversations_are_bounded() {
    let mut story = Story::default();
    let mut state = 7_u32;
    for round in 0..20_000_u32 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        story.port = u16::try_from(1 + round % 3000).unwrap();
        let mut bytes = state.to_be_bytes().repeat(8);
        bytes[0] =
            [RESET, SERVER_RESET, CONTROL, DATA, 0x50, 0x58][usize::try_from(state >> 20).unwrap() % 6];
        bytes.truncate(usize::try_from(state >> 24).unwrap() % 33);
        story.tcp = round % 2 == 0;
        let direction = if state & 64 == 0 { Outbound } else { Inbound };
        story.raw(u64::from(round), direction, u8::try_from(state & 31).unwrap(), &bytes);
    }
    let _ = story.found(30_000);
    assert_eq!(story.phases(30_000).len(), CONVERSATIONS);
}

struct Story {
    tracker: Tracker,
    pair: Pair,
    router: Router,
    port: u16,
    tcp: bool,
    /// How much of a packet behind its IP header is seen.
    seen: usize,
}

impl Default for Story {
    fn default() -> Self {
        let Peers { device, server } = Peers::default();
        let pair = Pair::new(device, server, at(0));
        Self {
            tracker: Tracker::default(),
            pair,
            router: Router::default(),
            port: 40_000,
            tcp: false,
            seen: 1500,
        }
    }
}

impl Story {
    fn raw(&mut self, millis: u64, direction: Direction, flags: u8, payload: &[u8]) -> Trace {
        let (src, dst) = if direction == Outbound { (self.port, 1194) } else { (1194, self.port) };
        let (protocol, bytes) = if self.tcp {
            (6, Peers::tcp(src, dst, 1, 1, flags, payload))
        } else {
            (17, Peers::udp(src, dst, payload))
        };
        let whole = Peers::default().packet(millis, direction, protocol, &bytes);
        let part = Peers::default().packet(millis, direction, protocol, &bytes[..bytes.len().min(self.seen)]);
        let seen = Observation { ip_len: whole.ip_len, payload_len: whole.payload_len, ..part };
        self.tracker.observe(&seen);
        seen.trace()
    }

    fn send(&mut self, millis: u64, direction: Direction, packet: &[u8]) -> Trace {
        if !self.tcp {
            return self.raw(millis, direction, 0, packet);
        }
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        self.raw(millis, direction, 24, &[&length, packet].concat())
    }

    /// Each port's resets carry a session ID of their own.
    fn resets(&mut self, times: &[u64]) {
        for &millis in times {
            let session = (u64::from(self.port) << 1) + u64::from(self.tcp);
            let reset = [&[RESET][..], &session.to_be_bytes(), &[0; 5]].concat();
            self.send(millis, Outbound, &reset);
        }
    }

    fn control(&mut self, millis: u64, direction: Direction, opcode: u8, len: usize) {
        let mut packet = vec![opcode];
        packet.resize(len, 1);
        self.send(millis, direction, &packet);
    }

    fn data(&mut self, millis: u64, direction: Direction, len: usize) -> Trace {
        let mut packet = vec![DATA];
        packet.resize(len, 1);
        self.send(millis, direction, &packet)
    }

    /// From the server's reset to the first ping of the device.
    fn connect(&mut self, millis: u64) {
        self.control(millis, Inbound, SERVER_RESET, 26);
        self.control(millis + 10, Outbound, CONTROL, 300);
        self.control(millis + 20, Inbound, CONTROL, 1100);
        self.control(millis + 30, Outbound, CONTROL, 900);
        self.control(millis + 40, Inbound, CONTROL, 400);
        self.data(millis + 50, Outbound, 40);
    }

    fn error(&mut self, millis: u64, from: std::net::IpAddr) {
        self.tracker.error(&IcmpReport {
            mark: Mark { at: at(millis), number: millis },
            from,
            about_outbound: true,
            kind: IcmpKind::PortUnreachable,
            protocol: 17,
            device_port: 40_000,
            server_port: 1194,
            id: 0,
        });
    }

    fn found(&self, millis: u64) -> Vec<Finding> {
        let household = household(Vec::new());
        ask(millis, &household, Some(&self.pair), &self.router, |context, findings| {
            self.tracker.findings(context, findings);
        })
    }

    fn codes(&self, millis: u64) -> Vec<(Code, Confidence)> {
        codes(&self.found(millis))
    }

    fn phases(&self, millis: u64) -> Vec<(Phase, &'static str)> {
        let mut sessions = Vec::new();
        self.tracker.sessions(at(millis), &mut sessions);
        sessions.iter().map(|session| (session.phase, session.reason)).collect()
    }
}

fn codes(found: &[Finding]) -> Vec<(Code, Confidence)> {
    found.iter().map(|finding| (finding.code, finding.confidence)).collect()
}

#[test]
fn pings_of_which_none_is_shown_are_no_end() {
    let mut story = Story::default();
    story.resets(&[0]);
    story.control(50, Inbound, SERVER_RESET, 26);
    story.control(100, Outbound, CONTROL, 300);
    story.control(150, Inbound, CONTROL, 1200);
    assert_eq!(story.phases(1_000), [(Phase::Handshake, "")]);
    assert_eq!(story.phases(10_000), [(Phase::Established, "")]);
    assert_eq!(story.phases(1_000_000), [(Phase::Idle, "")]);
    story.data(1_000_000, Outbound, 80);
    assert_eq!(story.phases(1_000_100), [(Phase::Established, "")]);
    story.data(1_320_000, Inbound, 80);
    assert_eq!(story.phases(1_320_100), [(Phase::Keepalive, "")]);
}

#[test]
fn pings_of_one_side_only_are_no_end_where_the_beginning_was_not_seen() {
    let mut story = Story::default();
    story.data(0, Outbound, 80);
    assert_eq!(story.phases(100_000), [(Phase::Established, "")]);
    assert_eq!(story.phases(300_000), [(Phase::Idle, "")]);
    story.data(310_000, Inbound, 80);
    assert_eq!(story.phases(310_100), [(Phase::Keepalive, "")]);
}
