//! ESP, while IKE is well.

use super::*;
use Confidence::{High, Low, Medium};

/// An IKEv2 session without a NAT in the way: ESP is not in UDP.
fn agreed() -> Line {
    let mut line = Line::new();
    let offer: &[(u8, &[u8])] = &[(41, &notify2(16389, &[1; 20]))];
    line.ike(0, Outbound, 500, &sa_init(1, offer));
    line.ike(30, Inbound, 500, &sa_init_answer(1, offer));
    line.ike(60, Outbound, 500, &sealed(V2, 35, 1, REQUEST, 1, 300));
    line.ike(90, Inbound, 500, &sealed(V2, 35, 1, RESPONSE, 1, 250));
    line
}

/// One ESP packet each second, from 1 s on.
fn send(line: &mut Line, count: u32) {
    for seq in 1..=count {
        line.raw(u64::from(seq) * 1000, Outbound, 0xd1, seq, 140);
    }
}

#[test]
fn esp_that_gets_no_answer() {
    let mut line = agreed();
    send(&mut line, 9);
    assert_eq!(line.codes(9500), []);
    line.raw(10_000, Outbound, 0xd1, 10, 140);
    assert_eq!(line.codes(10_500), [(Code::EspNoReturn, Medium)]);
    send(&mut line, 12);
    line.raw(13_000, Outbound, 0xd1, 13, 140);
    assert_eq!(line.codes(13_500), [(Code::EspNoReturn, High)]);
    line.raw(13_600, Inbound, 0xc1, 1, 140);
    assert_eq!(line.codes(60_000), []);
}

#[test]
fn volumes_come_from_sequence_numbers() {
    let mut line = agreed();
    line.raw(1000, Outbound, 0xd1, 1, 140);
    line.raw(8000, Outbound, 0xd1, 64, 140);
    assert_eq!(line.findings(8500)[0].evidence[0].count, 64);
}

#[test]
fn of_what_runs_already_too_little_is_shown_live() {
    for way in [Outbound, Inbound] {
        let mut line = Line::new();
        for round in 20..26 {
            line.esp(u64::from(round) * 10_000, way, 0xd1, round * 64, 140);
            assert_eq!(line.codes(u64::from(round) * 10_000 + 5_000), []);
        }
    }
}

#[test]
fn lines_that_share_an_address_carry_no_esp() {
    let mut line = agreed();
    send(&mut line, 20);
    line.router.wan_mtu = Some(1460);
    assert_eq!(line.codes(20_500), [(Code::SharedIpv4Proto, Medium)]);
    line.router.wan.push([192, 0, 0, 2].into());
    assert_eq!(line.codes(20_500), [(Code::SharedIpv4Proto, High)]);
}

#[test]
fn icmp_about_esp() {
    let mut line = agreed();
    send(&mut line, 3);
    line.icmp(3020, [198, 51, 100, 10], IcmpKind::ProtocolUnreachable, 50, 0);
    assert_eq!(line.codes(3500), [(Code::EspNoReturn, Medium)]);
    assert_eq!(line.owner(3500), [Party::Server]);
}

#[test]
fn esp_that_comes_back_and_finds_nobody() {
    let mut line = agreed();
    send(&mut line, 12);
    let stray = line.peers.packet(3000, Inbound, 50, &esp(0xc9, 2, 100)).trace();
    let server = [198, 51, 100, 10].into();
    line.router.strays.push(Stray { server, trace: stray, count: 4, first: at(2000) });
    assert_eq!(line.codes(20_000), [(Code::EspMisrouted, Medium)]);
}

#[test]
fn late_esp_of_a_session_that_is_known_is_not_misrouted() {
    let mut line = agreed();
    line.raw(500, Inbound, 0xc1, 1, 140);
    send(&mut line, 12);
    let stray = line.peers.packet(3000, Inbound, 50, &esp(0xc1, 2, 100)).trace();
    let server = [198, 51, 100, 10].into();
    line.router.strays.push(Stray { server, trace: stray, count: 4, first: at(2000) });
    assert_eq!(line.codes(12_500), []);
}

#[test]
fn esp_that_the_device_does_not_answer() {
    let mut line = agreed();
    for seq in 1..=40 {
        line.raw(u64::from(seq) * 1000, Inbound, 0xc1, seq, 140);
        let found = line.codes(u64::from(seq) * 1000 + 10);
        let expected = match seq {
            ..=10 => None,
            11..=30 => Some(Low),
            _ => Some(Medium),
        };
        assert_eq!(found, expected.map(|sure| (Code::EspOnewayIn, sure)).into_iter().collect::<Vec<_>>());
    }
    line.raw(41_500, Outbound, 0xd1, 1, 140);
    assert_eq!(line.codes(60_000), []);
}

#[test]
fn esp_that_the_device_answered_and_answers_no_more() {
    // Asked every second or two, and asked once by the server whether it lives.
    let story = |dpd: bool| {
        let mut line = agreed();
        for seq in 1..=8 {
            line.raw(u64::from(seq) * 700, Outbound, 0xd1, seq, 132);
            line.raw(u64::from(seq) * 700 + 1, Inbound, 0xc1, seq, 132);
        }
        for seq in 9..=22 {
            line.raw(5600 + u64::from(seq - 8) * 2005, Inbound, 0xc1, seq, 132);
            if seq == 20 && dpd {
                line.ike(5700 + u64::from(seq - 8) * 2005, Inbound, 500, &sealed(V2, 37, 1, 0, 0, 80));
                line.ike(
                    5701 + u64::from(seq - 8) * 2005,
                    Outbound,
                    500,
                    &sealed(V2, 37, 1, RESPONSE, 0, 80),
                );
            }
        }
        line
    };
    assert_eq!(story(true).codes(36_000), [(Code::EspOnewayIn, Low)]);
    let mut line = story(true);
    line.raw(36_000, Inbound, 0xc1, 23, 132);
    assert_eq!(line.codes(36_100), [(Code::EspOnewayIn, Medium)]);
    assert_eq!(story(false).codes(36_000), [], "it may sleep");
}

#[test]
fn what_is_sent_again_to_a_device_that_sleeps_is_healthy() {
    let mut line = agreed();
    for seq in 1..=20 {
        line.raw(u64::from(seq) * 300, Outbound, 0xd1, seq, 132);
        line.raw(u64::from(seq) * 300 + 1, Inbound, 0xc1, seq, 132);
    }
    // Two connections' segments, again after ever longer pauses, and a stream that wants no answer.
    let mut seq = 20;
    for pause in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600] {
        for more in [0, 70] {
            seq += 1;
            line.raw(6000 + 2 * pause + more, Inbound, 0xc1, seq, 132);
        }
    }
    line.ike(58_000, Inbound, 500, &sealed(V2, 37, 1, 0, 0, 80));
    line.ike(58_030, Outbound, 500, &sealed(V2, 37, 1, RESPONSE, 0, 80));
    assert_eq!(line.codes(58_100), []);
    line.raw(59_000, Outbound, 0xd1, 21, 132);
    for packet in 1..=600 {
        line.raw(59_000 + packet * 50, Inbound, 0xc1, seq + u32::try_from(packet).unwrap(), 132);
    }
    line.ike(88_000, Inbound, 500, &sealed(V2, 37, 1, 0, 1, 80));
    line.ike(88_030, Outbound, 500, &sealed(V2, 37, 1, RESPONSE, 1, 80));
    assert_eq!(line.codes(89_100), []);
}

#[test]
fn large_packets_that_are_sent_again_after_ever_longer_pauses() {
    let mut line = Line::new();
    line.up(0, 1);
    for (seq, millis) in [(6, 2000), (8, 3000), (10, 5000), (12, 9000), (14, 17_000)] {
        line.esp(millis, Outbound, 0xd1, seq, 1452);
        line.esp(millis + 500, Outbound, 0xd1, seq + 1, 140);
        line.esp(millis + 530, Inbound, 0xc1, seq, 140);
    }
    assert_eq!(line.codes(18_000), [(Code::PmtuBlackhole, High)]);
}

#[test]
fn large_packets_at_an_even_pace_are_healthy() {
    let mut line = Line::new();
    line.up(0, 1);
    for seq in 6..60 {
        line.esp(2000 + u64::from(seq) * 1000, Outbound, 0xd1, seq, 1452);
        line.esp(2030 + u64::from(seq) * 1000, Inbound, 0xc1, seq, 140);
    }
    assert_eq!(line.codes(70_000), []);
}

#[test]
fn the_servers_large_packets_are_missing() {
    let mut line = Line::new();
    line.up(0, 1);
    for (seq, millis) in [(6, 2000), (14, 3000), (15, 5000), (17, 9000)] {
        line.esp(millis, Outbound, 0xd1, seq, 140);
        line.esp(millis + 30, Inbound, 0xc1, seq, 140);
    }
    assert_eq!(line.codes(10_000), [(Code::PmtuBlackhole, Medium)]);
    line.esp(11_000, Inbound, 0xc1, 18, 1400);
    assert_eq!(line.codes(12_000), [], "a large one got through");
}

#[test]
fn a_device_that_does_not_heed_too_big() {
    let mut line = Line::new();
    line.up(0, 1);
    line.icmp(2000, [203, 0, 113, 1], IcmpKind::TooBig(1400), 17, 4500);
    for seq in 6..9 {
        line.esp(u64::from(seq) * 1000, Outbound, 0xd1, seq, 1380);
        line.esp(u64::from(seq) * 1000 + 30, Inbound, 0xc1, seq, 140);
    }
    assert_eq!(line.codes(9000), []);
    for seq in 9..12 {
        line.esp(u64::from(seq) * 1000, Outbound, 0xd1, seq, 1452);
        line.esp(u64::from(seq) * 1000 + 30, Inbound, 0xc1, seq, 140);
    }
    assert_eq!(line.codes(12_000), [(Code::FragNeededSeen, Medium)]);
}

#[test]
fn l2tp_in_ipsec_that_gets_no_further_than_ppp() {
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.quick_mode(100, 1, 8);
    for seq in 1..=12 {
        line.esp(u64::from(seq) * 1000, Outbound, 0xd1, seq, 150);
        line.esp(u64::from(seq) * 1000 + 30, Inbound, 0xc1, seq, 150);
    }
    assert_eq!(line.codes(30_000), [], "a short silence is none");
    line.main_mode(30_000, 2, &[]);
    assert_eq!(line.codes(31_000), [(Code::L2tpIpsecNoPpp, Medium)]);
}

#[test]
fn esp_without_ike_is_a_session_too() {
    let mut line = Line::new();
    for seq in 1..=20 {
        line.raw(u64::from(seq) * 1000, Outbound, 0xd1, seq, 140);
        line.raw(u64::from(seq) * 1000 + 30, Inbound, 0xc1, seq, 140);
    }
    assert_eq!(line.codes(30_000), []);
    assert_eq!(line.phases(21_000), [(Phase::Data, "")]);
    assert_eq!(line.sessions(21_000)[0].packets, [20, 20]);
}

#[test]
fn one_packet_of_those_shown_live_is_no_silence_and_a_strangers_esp_no_misrouting() {
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.quick_mode(100, 1, 7);
    for seq in 1..64 {
        line.raw(u64::from(seq) * 150, Outbound, 0xd1, seq, 140);
        line.raw(u64::from(seq) * 150 + 30, Inbound, 0xc1, seq, 140);
    }
    for (seq, millis) in [(192, 10_500), (256, 14_000), (320, 18_000)] {
        line.raw(millis, Inbound, 0xc1, seq, 140);
    }
    let trace = line.peers.packet(20_000, Inbound, 50, &esp(0xee, 64, 120)).trace();
    let (server, first) = (line.peers.server, at(20_000));
    line.router.strays.push(Stray { server, trace, count: 1, first });
    line.raw(24_000, Outbound, 0xd1, 128, 140);
    assert_eq!(line.codes(25_000), []);
}
