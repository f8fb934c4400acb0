use nat_core::flow::Direction::{self, Inbound, Outbound};

use super::*;
use crate::finding::Finding;
use crate::flow::exercise::{ask, household};
use crate::observation::{IcmpKind, Peers, at};
use crate::pair::Pair;
use crate::router::Router;

#[test]
fn three_initiations_without_an_answer_are_no_reply() {
    let mut story = Story::default();
    story.initiations(&[0, 5_200]);
    assert_eq!(story.codes(8_000), []);
    story.initiations(&[10_500]);
    assert_eq!(story.codes(10_600), [(Code::WgNoReply, Confidence::High)]);
    assert_eq!(story.phase(10_600), (Phase::Handshake, ""));
    assert_eq!(story.phase(200_000), (Phase::Closed, "no answer"));
}

#[test]
fn ipv6_is_no_different() {
    let peers = Peers {
        device: [0x2001, 0xdb8, 0, 1, 0, 0, 0, 11].into(),
        server: [0x2001, 0xdb8, 0, 2, 0, 0, 0, 10].into(),
    };
    let pair = Pair::new(peers.device, peers.server, at(0));
    let mut story = Story { peers, pair, ..Story::default() };
    story.initiations(&[0, 5_000, 10_000]);
    assert_eq!(story.codes(10_500), [(Code::WgNoReply, Confidence::High)]);
    story.error(10_600, peers.server, IcmpKind::PortUnreachable);
    story.error(15_600, peers.server, IcmpKind::PortUnreachable);
    assert_eq!(story.codes(16_000), [(Code::ServerDown, Confidence::High)]);
}

#[test]
fn no_bytes_make_it_panic() {
    let mut story = Story::default();
    let mut state = 51_820_u32;
    for round in 0..50_000_u64 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = [148, 92, 64, 32, 96][usize::try_from(state >> 16).unwrap() % 5];
        let kind = [1, 2, 3, 4, 4][usize::try_from(state >> 16).unwrap() % 5];
        let mut message = vec![kind, 0, 0, 0];
        message.extend(state.to_be_bytes().repeat(2));
        // Counters up to the largest that is believed.
        message.extend([state.to_le_bytes()[1], 0xff, 0, 0]);
        message.resize(len, 0xff);
        let direction = if state & 0x100 == 0 { Outbound } else { Inbound };
        let trace = story.send(round * 37, direction, &message);
        if state & 0x600 == 0 {
            story.tracker.passage(&trace, Passage::Undelivered);
        }
        if round % 1_000 == 0 {
            let _ = (story.found(round * 37), story.sessions(round * 37));
        }
    }
    assert!(story.sessions(0).len() <= TUNNELS);
}

#[test]
fn one_lost_initiation_and_a_slow_start_are_nothing() {
    let mut story = Story::default();
    story.initiations(&[0, 5_200, 10_500]);
    story.response(10_900, 1);
    story.data(11_000, Outbound, 1, 0, 96);
    story.data(11_100, Inbound, 9, 0, 96);
    assert_eq!(story.codes(11_200), []);
    assert_eq!(story.codes(400_000), []);
    assert_eq!(story.phase(11_200), (Phase::Data, ""));
}

#[test]
fn a_phone_that_asks_once_and_sleeps_is_nothing() {
    let mut story = Story::default();
    story.initiations(&[0]);
    assert_eq!(story.codes(600_000), []);
}

#[test]
fn a_cookie_shows_that_the_server_is_there() {
    let mut story = Story::default();
    story.initiations(&[0, 5_000]);
    let mut cookie = vec![3, 0, 0, 0, 7, 0, 0, 0];
    cookie.resize(64, 1);
    story.send(5_050, Inbound, &cookie);
    story.initiations(&[10_000]);
    story.response(10_050, 1);
    story.data(10_060, Outbound, 1, 0, 32);
    assert_eq!(story.codes(20_000), []);
}

#[test]
fn responses_that_the_device_does_not_use_are_a_loop() {
    let mut story = Story::default();
    for round in 0..3 {
        story.initiations(&[round * 5_000]);
        story.response(round * 5_000 + 40, 100 + u32::try_from(round).unwrap());
    }
    assert_eq!(story.codes(10_100), [(Code::WgLoop, Confidence::High)]);
    // The same again, but a late first answer: the device uses the newest.
    story.data(10_200, Outbound, 102, 0, 32);
    assert_eq!(story.codes(10_300), []);
}

#[test]
fn handshakes_every_two_minutes_are_the_same_session() {
    let mut story = Story::default();
    for round in 0..5 {
        let start = round * 120_000;
        let index = u32::try_from(round).unwrap() + 1;
        story.initiations(&[start]);
        assert_eq!(story.phase(start + 10).0, if round == 0 { Phase::Handshake } else { Phase::Rekey });
        story.response(start + 50, index);
        for counter in 0..4 {
            story.data(start + 100 + counter * 25_000, Outbound, index, counter, 32);
            story.data(start + 150 + counter * 25_000, Inbound, 70 + index, counter, 32);
        }
        assert_eq!(story.phase(start + 80_000), (Phase::Keepalive, ""));
        assert_eq!(story.codes(start + 119_000), []);
    }
    let sessions = story.sessions(600_000);
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].packets, [25, 25]);
}

#[test]
fn volumes_come_from_the_counters() {
    let mut story = Story::connected();
    story.data(200, Inbound, 9, 64, 1400);
    story.data(300, Inbound, 9, 6400, 1400);
    assert_eq!(story.sessions(400)[0].packets[1], 6401);
    // New keys, and a straggler under the old ones.
    story.data(400, Inbound, 10, 0, 1400);
    story.data(410, Inbound, 9, 6464, 1400);
    assert_eq!(story.sessions(420)[0].packets[1], 6402);
    assert_eq!(story.codes(400), []);
}

#[test]
fn a_tunnel_that_hears_no_more_is_stale() {
    let mut story = Story::connected();
    story.data(60_000, Outbound, 1, 1, 96);
    story.data(60_040, Inbound, 9, 1, 96);
    story.data(90_000, Outbound, 1, 2, 96);
    story.initiations(&[105_000, 110_200, 115_300, 120_400]);
    assert_eq!(story.codes(121_000), [(Code::WgStale, Confidence::High)]);
    // It lasted too long for a black hole.
    story.pair.beside.heard = Some(Mark { at: at(119_000), number: 1 });
    assert_eq!(story.codes(121_000), [(Code::WgStale, Confidence::High)]);
    assert_eq!(story.phase(121_000), (Phase::Rekey, ""));
    assert_eq!(story.phase(300_000), (Phase::Closed, "answered no more"));
}

#[test]
fn a_server_that_was_restarted_is_nothing() {
    let mut story = Story::connected();
    story.data(90_000, Outbound, 1, 2, 96);
    story.initiations(&[105_000, 110_200]);
    story.response(110_300, 2);
    story.data(110_400, Outbound, 2, 0, 96);
    story.data(110_500, Inbound, 12, 0, 96);
    assert_eq!(story.codes(130_000), []);
}

#[test]
fn a_device_that_comes_back_after_hours_finds_no_answer() {
    let mut story = Story::connected();
    story.initiations(&[7_200_000, 7_205_000, 7_210_000]);
    let found = story.found(7_210_100);
    assert_eq!(codes(&found), [(Code::WgNoReply, Confidence::High)]);
    assert_eq!(found[0].attempt, 2);
}

#[test]
fn a_pause_makes_silence_that_of_a_new_beginning() {
    let mut story = Story::connected();
    story.initiations(&[400_000, 405_000, 410_000]);
    let found = story.found(410_100);
    assert_eq!(codes(&found), [(Code::WgNoReply, Confidence::High)]);
    assert_eq!((found[0].attempt, found[0].owner), (1, &[Party::Line, Party::Server][..]));
}

#[test]
fn a_device_that_is_out_of_reach_after_every_pause_lacks_keepalives() {
    let mut story = Story::connected();
    for round in 1..3 {
        let start = round * 300_000;
        let seen = story.data(start, Inbound, 9, round, 96);
        story.tracker.passage(&seen, Passage::Undelivered);
        story.data(start + 60_000, Outbound, 1, round, 96);
        story.data(start + 60_050, Inbound, 9, 10 + round, 96);
        let expected = if round == 2 { vec![(Code::WgNoKeepalive, Confidence::Medium)] } else { vec![] };
        assert_eq!(story.codes(start + 61_000), expected);
    }
}

#[test]
fn a_tunnel_that_breaks_off_at_once_while_the_server_lives_is_a_black_hole() {
    let mut story = Story::connected();
    for second in 1..10 {
        story.data(1_000 * second, Outbound, 1, second, 96);
    }
    story.initiations(&[16_000, 21_000, 26_000]);
    assert_eq!(story.codes(27_000), [(Code::WgStale, Confidence::High)]);
    story.pair.beside.heard = Some(Mark { at: at(25_000), number: 1 });
    assert_eq!(story.codes(27_000), [(Code::DpiUdpBlackhole, Confidence::Medium)]);
}

#[test]
fn handshakes_that_pass_and_payload_that_does_not_are_a_black_hole() {
    let mut story = Story::default();
    for round in 0..3 {
        let (start, index) = (round * 15_000, u32::try_from(round).unwrap() + 1);
        story.initiations(&[start]);
        story.response(start + 40, index);
        story.data(start + 50, Outbound, index, 0, 96);
        story.data(start + 9_000, Outbound, index, 1, 96);
    }
    assert_eq!(story.codes(40_000), [(Code::DpiUdpBlackhole, Confidence::Medium)]);
}

#[test]
fn a_server_with_nothing_to_say_is_no_black_hole() {
    let mut story = Story::default();
    for round in 0..4 {
        let (start, index) = (round * 120_000, u32::try_from(round).unwrap() + 1);
        story.initiations(&[start]);
        story.response(start + 40, index);
        for counter in 0..4 {
            story.data(start + 50 + counter * 25_000, Outbound, index, counter, 32);
        }
    }
    assert_eq!(story.codes(480_000), []);
}

#[test]
fn a_closed_port_is_a_server_that_is_down_and_an_unreachable_network_is_the_path() {
    for (from, kind, code, sure) in [
        ([198, 51, 100, 10], IcmpKind::PortUnreachable, Code::ServerDown, Confidence::High),
        ([203, 0, 113, 1], IcmpKind::HostUnreachable, Code::ServerDown, Confidence::Medium),
        ([192, 168, 1, 1], IcmpKind::HostUnreachable, Code::ServerPath, Confidence::High),
        ([203, 0, 113, 1], IcmpKind::NetUnreachable, Code::ServerPath, Confidence::High),
        ([203, 0, 113, 1], IcmpKind::HopLimit, Code::ServerPath, Confidence::High),
    ] {
        let mut story = Story::default();
        story.initiations(&[0]);
        story.error(20, from.into(), kind);
        assert_eq!(story.codes(1_000), []);
        story.initiations(&[5_000]);
        story.error(5_020, from.into(), kind);
        assert_eq!(story.codes(5_100), [(code, sure)]);
        // The server is started.
        story.initiations(&[10_000]);
        story.response(10_030, 1);
        story.data(10_040, Outbound, 1, 0, 32);
        assert_eq!(story.codes(11_000), []);
    }
}

#[test]
fn a_port_that_the_device_itself_closed_is_nothing() {
    let mut story = Story::connected();
    let mut report = report(5_000, [192, 168, 1, 11].into(), IcmpKind::PortUnreachable);
    report.about_outbound = false;
    for _ in 0..3 {
        story.tracker.error(&report);
    }
    assert_eq!(story.codes(30_000), []);
}

#[test]
fn another_wan_address_counts_only_if_the_tunnel_does_not_follow() {
    let mut story = Story::connected();
    story.router.wan_changed = Some((at(20_000), [203, 0, 113, 5].into()));
    story.data(25_000, Outbound, 1, 1, 96);
    let mut follows = Story { router: story.router.clone(), ..Story::connected() };
    follows.data(25_000, Outbound, 1, 1, 96);
    follows.data(25_050, Inbound, 9, 1, 96);
    assert_eq!(follows.codes(100_000), []);
    story.initiations(&[40_000, 45_000, 50_000]);
    assert_eq!(story.codes(51_000), [(Code::WanAddrChanged, Confidence::High)]);
}

#[test]
fn a_mapping_that_the_router_forgot_is_the_routers_or_the_devices_by_how_soon() {
    for (silence, code) in [(60_000, Code::NatIdleTimeout), (300_000, Code::WgNoKeepalive)] {
        let mut story = Story::connected();
        for millis in [0, 5_000, 10_000] {
            let seen = story.data(silence + millis, Inbound, 9, 1 + millis / 5_000, 96);
            story.tracker.passage(&seen, Passage::Undelivered);
            if millis < 10_000 {
                assert_eq!(story.codes(silence + millis + 100), []);
            }
        }
        assert_eq!(story.codes(silence + 11_000), [(code, Confidence::High)]);
        // The device speaks: the way is open again, and once is no pattern.
        story.data(silence + 12_000, Outbound, 1, 1, 96);
        assert_eq!(story.codes(silence + 13_000), []);
    }
}

#[test]
fn another_port_after_silence_counts_only_if_the_server_does_not_follow() {
    for (answered, expected) in [(true, vec![]), (false, vec![(Code::NatIdleTimeout, Confidence::High)])] {
        let mut story = Story::connected();
        let wan = [203, 0, 113, 5].into();
        let first = story.data(200, Outbound, 1, 1, 96);
        story.tracker.passage(&first, Passage::Left { wan, port: 40_000 });
        story.data(250, Inbound, 9, 1, 96);
        let second = story.data(100_000, Outbound, 1, 2, 96);
        story.tracker.passage(&second, Passage::Left { wan, port: 40_001 });
        if answered {
            story.data(100_040, Inbound, 9, 2, 96);
        } else {
            story.initiations(&[115_000, 120_000, 125_000]);
        }
        assert_eq!(story.codes(126_000), expected);
    }
}

#[test]
fn packets_lost_in_every_silence_are_a_nat_upstream() {
    let mut story = Story::connected();
    for round in 1..4 {
        story.data(round * 60_000, Outbound, 1, round, 96);
        story.data(round * 60_000 + 50, Inbound, 9, round * 4, 96);
    }
    assert_eq!(story.codes(200_000), [(Code::NatUpstreamTimeout, Confidence::High)]);
    let mut quiet = Story::connected();
    for round in 1..4 {
        quiet.data(round * 60_000, Outbound, 1, round, 96);
        quiet.data(round * 60_000 + 50, Inbound, 9, round, 96);
    }
    assert_eq!(quiet.codes(200_000), []);
}

#[test]
fn a_flood_of_ports_leaves_few_tunnels() {
    let mut story = Story::default();
    for port in 1..2_000 {
        story.port = port;
        story.initiations(&[u64::from(port)]);
    }
    assert_eq!(story.sessions(3_000).len(), TUNNELS);
}

struct Story {
    tracker: Tracker,
    pair: Pair,
    router: Router,
    port: u16,
    peers: Peers,
}

impl Default for Story {
    fn default() -> Self {
        let peers = Peers::default();
        let pair = Pair::new(peers.device, peers.server, at(0));
        Self { tracker: Tracker::default(), pair, router: Router::default(), port: 40_000, peers }
    }
}

impl Story {
    /// A tunnel that both sides have used.
    fn connected() -> Self {
        let mut story = Self::default();
        story.initiations(&[0]);
        story.response(40, 1);
        story.data(50, Outbound, 1, 0, 96);
        story.data(90, Inbound, 9, 0, 96);
        story
    }

    fn send(&mut self, millis: u64, direction: Direction, message: &[u8]) -> Trace {
        let (src, dst) = if direction == Outbound { (self.port, 5555) } else { (5555, self.port) };
        let datagram = Peers::udp(src, dst, message);
        let seen = self.peers.packet(millis, direction, 17, &datagram);
        self.tracker.observe(&seen);
        seen.trace()
    }

    fn initiations(&mut self, times: &[u64]) {
        let mut message = vec![1, 0, 0, 0, 7, 0, 0, 0];
        message.resize(148, 1);
        for &millis in times {
            self.send(millis, Outbound, &message);
        }
    }

    fn response(&mut self, millis: u64, sender: u32) {
        let mut message = [&[2, 0, 0, 0], &sender.to_le_bytes()[..], &[7, 0, 0, 0]].concat();
        message.resize(92, 1);
        self.send(millis, Inbound, &message);
    }

    fn data(&mut self, millis: u64, direction: Direction, receiver: u32, counter: u64, len: usize) -> Trace {
        let mut message = [&[4, 0, 0, 0], &receiver.to_le_bytes()[..], &counter.to_le_bytes()].concat();
        message.resize(len, 1);
        self.send(millis, direction, &message)
    }

    fn error(&mut self, millis: u64, from: std::net::IpAddr, kind: IcmpKind) {
        self.tracker.error(&report(millis, from, kind));
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

    fn sessions(&self, millis: u64) -> Vec<Session> {
        let mut sessions = Vec::new();
        self.tracker.sessions(at(millis), &mut sessions);
        sessions
    }

    fn phase(&self, millis: u64) -> (Phase, &'static str) {
        let sessions = self.sessions(millis);
        let last = sessions.last().unwrap();
        (last.phase, last.reason)
    }
}

fn report(millis: u64, from: std::net::IpAddr, kind: IcmpKind) -> IcmpReport {
    IcmpReport {
        mark: Mark { at: at(millis), number: millis },
        from,
        about_outbound: true,
        kind,
        protocol: 17,
        device_port: 40_000,
        server_port: 5555,
        id: 0,
    }
}

fn codes(found: &[Finding]) -> Vec<(Code, Confidence)> {
    found.iter().map(|finding| (finding.code, finding.confidence)).collect()
}
