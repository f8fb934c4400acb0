//! Sessions that worked.

use super::*;
use Confidence::{High, Low, Medium};

/// DPD of the device's: a request, three times in all if nobody answers.
fn dpd(line: &mut Line, millis: u64, id: u32, answered: bool) {
    let request = sealed(V2, 37, 1, REQUEST, id, 80);
    line.ike(millis, Outbound, 4500, &request);
    if answered {
        line.ike(millis + 30, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, id, 80));
    } else {
        line.ike(millis + 2000, Outbound, 4500, &request);
        line.ike(millis + 6000, Outbound, 4500, &request);
        line.ike(millis + 13_000, Outbound, 4500, &request);
    }
}

#[test]
fn dpd_that_is_answered_is_healthy_and_dpd_in_vain_is_not() {
    let mut line = Line::new();
    line.up(0, 1);
    for round in 1..=5 {
        dpd(&mut line, u64::from(round) * 20_000, 1 + round, true);
    }
    assert_eq!(line.codes(120_000), []);
    dpd(&mut line, 120_000, 7, false);
    assert_eq!(line.codes(134_000), [(Code::DpdDead, High)]);
    line.up(140_000, 2);
    let findings = line.findings(160_000);
    assert_eq!((findings[0].code, findings[0].attempt), (Code::DpdDead, 1), "still told of the first");
    assert_eq!(line.phases(146_000), [(Phase::Closed, "replaced by a new one"), (Phase::Data, "")]);
}

#[test]
fn dpd_of_version_1_in_vain() {
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.quick_mode(100, 1, 8);
    for seq in 1..=5 {
        line.esp(1000 * u64::from(seq), Outbound, 0xd1, seq, 140);
        line.esp(1000 * u64::from(seq) + 20, Inbound, 0xc1, seq, 140);
    }
    line.ike(30_000, Outbound, 4500, &sealed(V1, 5, 1, 1, 70, 92));
    line.ike(30_030, Inbound, 4500, &sealed(V1, 5, 1, 1, 71, 92));
    assert_eq!(line.codes(80_000), []);
    for id in 1..=4 {
        line.ike(80_000 + 5000 * u64::from(id), Outbound, 4500, &sealed(V1, 5, 1, 1, 80 + id, 92));
    }
    assert_eq!(line.codes(101_000), [(Code::DpdDead, High)]);
}

#[test]
fn a_sleeping_phone_and_keepalives_are_healthy() {
    let mut line = Line::new();
    line.up(0, 1);
    assert_eq!(line.codes(600_000), []);
    assert_eq!(line.phases(600_000), [(Phase::Idle, "")]);
    for round in 1..=60 {
        line.udp(600_000 + round * 20_000, Outbound, 4500, &[0xff]);
    }
    assert_eq!(line.codes(1_800_000), []);
    assert_eq!(line.phases(1_800_000), [(Phase::Keepalive, "")]);
    line.esp(1_800_100, Outbound, 0xd1, 6, 140);
    line.esp(1_800_130, Inbound, 0xc1, 6, 140);
    assert_eq!(line.codes(1_900_000), []);
}

#[test]
fn a_closed_session_says_who_closed_it() {
    let mut line = Line::new();
    line.up(0, 1);
    line.ike(5000, Outbound, 4500, &sealed(V2, 37, 1, REQUEST, 2, 57));
    line.ike(5030, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, 2, 57));
    line.ike(9000, Outbound, 4500, &sealed(V2, 37, 1, REQUEST, 3, 65));
    line.ike(9030, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, 3, 57));
    assert_eq!(line.phases(20_000), [(Phase::Closed, "closed by the device")]);
    assert_eq!(line.codes(20_000), []);
    line.udp(21_000, Outbound, 4500, &[0xff]);
    assert_eq!(line.phases(30_000), [(Phase::Data, "")], "it was something else");
}

#[test]
fn a_rekey_is_healthy_also_of_the_ike_sa() {
    let mut line = Line::new();
    line.up(0, 1);
    let create = |id, flags, len| sealed(V2, 36, 1, flags, id, len);
    line.ike(60_000, Outbound, 4500, &create(2, REQUEST, 300));
    line.ike(60_030, Inbound, 4500, &create(2, RESPONSE, 280));
    line.esp(60_100, Outbound, 0xd2, 1, 140);
    line.esp(60_130, Inbound, 0xc2, 1, 140);
    line.ike(90_000, Outbound, 4500, &create(3, REQUEST, 400));
    line.ike(90_030, Inbound, 4500, &create(3, RESPONSE, 380));
    line.ike(95_000, Outbound, 4500, &sealed(V2, 37, 2, REQUEST, 0, 80));
    line.ike(95_030, Inbound, 4500, &sealed(V2, 37, 2, RESPONSE, 0, 80));
    assert_eq!(line.codes(200_000), []);
    assert_eq!(line.sessions(100_000).len(), 1, "the new SPI is the same session");
}

#[test]
fn keys_that_last_too_short_a_time() {
    let mut line = Line::new();
    line.up(0, 1);
    for round in 1..=4_u32 {
        let millis = u64::from(round) * 120_000;
        line.ike(millis, Outbound, 4500, &sealed(V2, 36, 1, REQUEST, 1 + round, 300));
        line.ike(millis + 30, Inbound, 4500, &sealed(V2, 36, 1, RESPONSE, 1 + round, 280));
        let found = line.codes(millis + 1000);
        let expected = [None, None, Some(Medium), Some(High)][usize::try_from(round - 1).unwrap()];
        assert_eq!(found, expected.map(|sure| (Code::RekeyShort, sure)).into_iter().collect::<Vec<_>>());
    }
}

/// New keys at `millis`; the deletion of the old ones follows where `replaces`.
fn renew(line: &mut Line, millis: u64, id: u32, replaces: bool) {
    line.ike(millis, Inbound, 4500, &sealed(V2, 36, 1, 0, id, 208));
    line.ike(millis + 1, Outbound, 4500, &sealed(V2, 36, 1, RESPONSE, id, 208));
    if replaces {
        line.ike(millis + 2, Inbound, 4500, &sealed(V2, 37, 1, 0, id + 1, 80));
        line.ike(millis + 3, Outbound, 4500, &sealed(V2, 37, 1, RESPONSE, id + 1, 80));
    }
}

#[test]
fn keys_that_last_for_seconds() {
    let mut line = Line::new();
    line.up(0, 1);
    line.ike(1671, Inbound, 4500, &sealed(V2, 37, 1, 0, 0, 80));
    line.ike(1672, Outbound, 4500, &sealed(V2, 37, 1, RESPONSE, 0, 80));
    for round in 1..=4_u32 {
        let millis = 663 + 7000 * u64::from(round);
        renew(&mut line, millis, 2 * round - 1, true);
        line.esp(millis + 500, Outbound, 0xd1 + round, 1, 140);
        line.esp(millis + 530, Inbound, 0xc1 + round, 1, 140);
        let found = line.codes(millis + 1000);
        let expected = [None, None, Some(Medium), Some(High)][usize::try_from(round - 1).unwrap()];
        assert_eq!(found, expected.map(|sure| (Code::RekeyShort, sure)).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn several_sas_for_esp_are_no_short_life() {
    // Agreed on one after the other, as they are needed.
    let mut line = Line::new();
    line.up(0, 1);
    for round in 1..=5_u32 {
        renew(&mut line, 5000 * u64::from(round), 2 * round - 1, false);
    }
    assert_eq!(line.codes(40_000), []);
    // In use side by side, each renewed once within some minutes.
    let mut line = Line::new();
    line.up(0, 1);
    for round in 1..=4_u32 {
        line.esp(1000 + u64::from(round), Outbound, 0xd1 + round, 1, 140);
    }
    for second in (10..3000_u32).step_by(10) {
        for spi in 0..5 {
            line.esp(u64::from(second) * 1000 + u64::from(spi), Outbound, 0xd1 + spi, second, 140);
            line.esp(u64::from(second) * 1000 + u64::from(spi) + 30, Inbound, 0xc1 + spi, second, 140);
        }
    }
    for round in 1..=5_u32 {
        renew(&mut line, 3_000_000 + 60_000 * u64::from(round), 2 * round - 1, true);
    }
    assert_eq!(line.codes(3_400_000), []);
}

#[test]
fn a_rekey_that_kills_and_two_that_cross() {
    let mut line = Line::new();
    line.up(0, 1);
    line.esp(3_599_000, Outbound, 0xd1, 900, 140);
    line.esp(3_599_030, Inbound, 0xc1, 900, 140);
    for millis in [3_600_000, 3_602_000, 3_606_000, 3_613_000] {
        line.ike(millis, Outbound, 4500, &sealed(V2, 36, 1, REQUEST, 2, 300));
    }
    assert_eq!(line.codes(3_613_500), [(Code::RekeyFail, Medium)]);

    let mut line = Line::new();
    line.up(0, 1);
    line.esp(3_599_000, Outbound, 0xd1, 900, 140);
    line.esp(3_599_030, Inbound, 0xc1, 900, 140);
    line.ike(3_600_000, Inbound, 4500, &sealed(V2, 36, 1, 0, 0, 300));
    for millis in [3_600_100, 3_602_100, 3_606_100, 3_613_100] {
        line.ike(millis, Outbound, 4500, &sealed(V2, 36, 1, REQUEST, 2, 300));
    }
    assert_eq!(line.codes(3_613_500), [(Code::RekeyCollision, Medium)]);
}

#[test]
fn new_keys_that_the_server_refuses() {
    let mut line = Line::new();
    line.up(0, 1);
    line.ike(60_000, Outbound, 4500, &sealed(V2, 36, 1, REQUEST, 2, 300));
    line.ike(60_030, Inbound, 4500, &sealed(V2, 36, 1, RESPONSE, 2, 80));
    assert_eq!(line.codes(70_000), [], "one refusal may be temporary");
    line.init(70_000, 2);
    assert_eq!(line.codes(70_100), [(Code::RekeyFail, Medium)]);
}

#[test]
fn a_new_wan_address_after_which_nothing_comes() {
    let mut line = Line::new();
    line.up(0, 1);
    line.router.wan_changed = Some((at(20_000), [203, 0, 113, 5].into()));
    dpd(&mut line, 25_000, 2, false);
    assert_eq!(line.codes(45_000), [], "it may recover");
    assert_eq!(line.codes(51_000), [(Code::WanAddrChanged, High)]);
    line.up(48_000, 2);
    assert_eq!(line.codes(60_000), [], "within 30 s it did");
}

#[test]
fn mobike_recovers_from_a_new_wan_address() {
    let mut line = Line::new();
    line.up(0, 1);
    line.router.wan_changed = Some((at(20_000), [203, 0, 113, 5].into()));
    dpd(&mut line, 25_000, 2, true);
    line.esp(26_000, Outbound, 0xd1, 6, 140);
    line.esp(26_030, Inbound, 0xc1, 6, 140);
    assert_eq!(line.codes(100_000), []);
}

#[test]
fn a_mapping_that_timed_out_on_the_router() {
    let mut line = Line::new();
    line.router.timeouts = Some(Timeouts { udp: 120, esp: 600, gre: 600, tcp: 7200 });
    line.up(0, 1);
    line.left(600, 4500, [203, 0, 113, 5], 4500);
    let request = sealed(V2, 37, 1, REQUEST, 2, 80);
    for millis in [200_000, 202_000, 206_000, 213_000] {
        line.ike(millis, Outbound, 4500, &request);
        line.left(millis, 4500, [203, 0, 113, 5], 41_000);
    }
    assert_eq!(line.codes(213_500), [(Code::NatIdleTimeout, High)]);
    line.ike(214_000, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, 2, 80));
    assert_eq!(line.codes(230_000), [], "the server follows");
}

#[test]
fn a_session_that_is_dead_after_a_silence_without_keepalives() {
    let mut line = Line::new();
    line.up(0, 1);
    dpd(&mut line, 200_000, 2, false);
    assert_eq!(line.codes(214_000), [(Code::NatKeepaliveMissing, Medium)]);

    let mut line = Line::new();
    line.up(0, 1);
    for round in 1..=9 {
        line.udp(round * 20_000, Outbound, 4500, &[0xff]);
    }
    dpd(&mut line, 200_000, 2, false);
    assert_eq!(line.codes(214_000), [(Code::DpdDead, High)], "keepalives were sent");
}

#[test]
fn a_server_that_forgot_the_session() {
    let mut line = Line::new();
    line.up(0, 1);
    let complaint = clear(V2, 37, (0, 0), 0, 0, &[(41, &notify2(11, &[0, 0, 0, 0xd1]))]);
    for seq in 6..=8 {
        line.esp(u64::from(seq) * 1000, Outbound, 0xd1, seq, 140);
        line.ike(u64::from(seq) * 1000 + 30, Inbound, 500, &complaint);
    }
    assert_eq!(line.codes(20_000), [(Code::PeerReboot, High)]);
    line.esp(21_000, Inbound, 0xc1, 6, 140);
    assert_eq!(line.codes(30_000), [], "it goes on");
}

#[test]
fn sessions_that_are_let_begin_and_then_silenced() {
    let mut line = Line::new();
    for round in 0..2 {
        let begin = round * 60_000;
        line.up(begin, 1 + round);
        let request = sealed(V2, 37, 1 + round, REQUEST, 2, 80);
        for millis in [5000, 7000, 11_000, 18_000] {
            line.ike(begin + millis, Outbound, 4500, &request);
        }
        if round == 0 {
            assert_eq!(line.codes(20_000), [(Code::DpdDead, High)], "once is chance");
        }
    }
    assert_eq!(line.codes(90_000), [(Code::DpiUdpBlackhole, Medium); 2]);
}

#[test]
fn errors_of_routers_about_a_session_that_fell_silent() {
    let mut line = Line::new();
    line.up(0, 1);
    dpd(&mut line, 100_000, 2, false);
    line.icmp(106_020, [203, 0, 113, 1], IcmpKind::HostUnreachable, 17, 4500);
    assert_eq!(line.codes(114_000), [(Code::ServerDown, Medium)]);
}

#[test]
fn what_is_not_shown_live_is_no_silence() {
    let mut line = Line::new();
    line.up(0, 1);
    for seq in 6..64 {
        line.esp(u64::from(seq) * 500, Outbound, 0xd1, seq, 140);
        line.esp(u64::from(seq) * 500 + 30, Inbound, 0xc1, seq, 140);
    }
    // From here on every 64th is shown, and of a slow stream none for long.
    for round in 1..=4 {
        line.esp(u64::from(round) * 60_000, Outbound, 0xd1, round * 64, 140);
        assert_eq!(line.codes(u64::from(round) * 60_000 + 1000), []);
    }
    for round in 5..=9 {
        line.esp(u64::from(round) * 60_000, Outbound, 0xd1, round * 64, 140);
    }
    assert_eq!(line.codes(600_000), [(Code::DpdDead, Low)], "by now some must have been shown");
}

#[test]
fn a_session_without_traffic_dies_too() {
    let mut line = Line::new();
    line.init(0, 1);
    line.ike(60, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 300));
    line.ike(90, Inbound, 4500, &sealed(V2, 35, 1, RESPONSE, 1, 250));
    dpd(&mut line, 30_000, 2, true);
    dpd(&mut line, 60_000, 3, false);
    assert_eq!(line.codes(74_000), [(Code::DpdDead, High)]);
}

#[test]
fn a_device_that_breaks_off_the_login() {
    let mut line = Line::new();
    line.init(0, 1);
    line.ike(60, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 300));
    line.ike(90, Inbound, 4500, &sealed(V2, 35, 1, RESPONSE, 1, 1250));
    line.ike(120, Outbound, 4500, &sealed(V2, 37, 1, REQUEST, 2, 80));
    line.ike(150, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, 2, 80));
    assert_eq!(line.codes(20_000), [], "it may have been closed by hand");
    line.init(20_000, 2);
    assert_eq!(line.codes(20_100), [(Code::IkeAuthRejected, Medium)]);
    assert_eq!(line.owner(20_100), [Party::Server, Party::Device]);
}

#[test]
fn rekeys_of_version_1_are_healthy() {
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.quick_mode(100, 1, 8);
    for seq in 1..=5 {
        line.esp(1000 * u64::from(seq), Outbound, 0xd1, seq, 140);
        line.esp(1000 * u64::from(seq) + 20, Inbound, 0xc1, seq, 140);
    }
    // Two more SAs for ESP by the device, then one by the server, then a new Main Mode and a deletion.
    line.quick_mode(6000, 1, 9);
    line.quick_mode(6200, 1, 10);
    line.ike(2_000_000, Inbound, 4500, &sealed(V1, 32, 1, 1, 11, 300));
    line.ike(2_000_020, Outbound, 4500, &sealed(V1, 32, 1, 1, 11, 301));
    line.ike(2_000_040, Inbound, 4500, &sealed(V1, 32, 1, 1, 11, 60));
    line.esp(2_000_100, Outbound, 0xd2, 1, 140);
    line.esp(2_000_120, Inbound, 0xc2, 1, 140);
    line.main_mode(3_000_000, 2, &[]);
    line.quick_mode(3_000_100, 2, 12);
    line.ike(3_000_200, Outbound, 4500, &sealed(V1, 5, 1, 1, 13, 92));
    line.esp(3_000_300, Outbound, 0xd3, 1, 140);
    line.esp(3_000_320, Inbound, 0xc3, 1, 140);
    assert_eq!(line.codes(3_100_000), []);
    assert_eq!(line.phases(3_010_000), [(Phase::Closed, "replaced by a new one"), (Phase::Data, "")]);
}

#[test]
fn a_new_ike_sa_beside_the_old_one_is_healthy() {
    let mut line = Line::new();
    line.up(0, 1);
    line.up(1_000_000, 2);
    line.ike(1_001_000, Outbound, 4500, &sealed(V2, 37, 1, REQUEST, 2, 80));
    line.ike(1_001_030, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, 2, 80));
    assert_eq!(line.codes(1_100_000), []);
}

#[test]
fn a_login_that_is_repeated_once_is_healthy() {
    let mut line = Line::new();
    line.init(0, 1);
    line.ike(60, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 300));
    line.ike(4060, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 300));
    line.ike(4090, Inbound, 4500, &sealed(V2, 35, 1, RESPONSE, 1, 250));
    assert_eq!(line.codes(60_000), []);
}

#[test]
fn a_new_wan_address_shows_in_what_leaves_the_router() {
    let mut line = Line::new();
    line.up(0, 1);
    line.left(600, 4500, [203, 0, 113, 5], 4500);
    let request = sealed(V2, 37, 1, REQUEST, 2, 80);
    for millis in [10_000, 12_000, 16_000, 23_000] {
        line.ike(millis, Outbound, 4500, &request);
        line.left(millis, 4500, [203, 0, 113, 77], 4500);
    }
    assert_eq!(line.codes(39_000), []);
    assert_eq!(line.codes(41_000), [(Code::WanAddrChanged, High)]);
}

#[test]
fn a_rekey_long_over_is_not_what_killed() {
    let mut line = Line::new();
    line.up(0, 1);
    line.ike(100_000, Outbound, 4500, &sealed(V2, 36, 1, REQUEST, 2, 300));
    line.ike(100_030, Inbound, 4500, &sealed(V2, 36, 1, RESPONSE, 2, 280));
    for seq in 1..=20 {
        line.esp(100_000 + 1000 * u64::from(seq), Outbound, 0xd2, seq, 140);
        line.esp(100_020 + 1000 * u64::from(seq), Inbound, 0xc2, seq, 140);
    }
    dpd(&mut line, 125_000, 3, false);
    assert_eq!(line.codes(139_000), [(Code::DpdDead, High)]);
}

/// A session of version 1 on `port` 500 with raw ESP each way, from 0 to 10 s.
fn raw_session() -> Line {
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.quick_mode(100, 1, 7);
    for seq in 1..=10 {
        line.raw(u64::from(seq) * 1000, Outbound, 0xd1, seq, 140);
        line.raw(u64::from(seq) * 1000 + 30, Inbound, 0xc1, seq, 140);
    }
    line.router.wan_changed = Some((at(10_500), [203, 0, 113, 5].into()));
    line
}

#[test]
fn esp_that_still_goes_to_the_old_wan_address_while_ike_goes_on() {
    let mut line = raw_session();
    for seq in 11..=50 {
        let millis = u64::from(seq) * 1000;
        line.raw(millis, Outbound, 0xd1, seq, 140);
        // DPD is answered.
        line.ike(millis + 100, Outbound, 500, &sealed(V1, 5, 1, 1, seq, 92));
        line.ike(millis + 130, Inbound, 500, &sealed(V1, 5, 1, 1, seq + 1000, 92));
        let expected = match seq {
            ..=20 => None,
            21..=40 => Some(Medium),
            41.. => Some(High),
        };
        let found = line.codes(millis + 200);
        assert_eq!(found, expected.map(|sure| (Code::WanAddrChanged, sure)).into_iter().collect::<Vec<_>>());
        if seq == 15 {
            line.quick_mode(millis + 300, 1, 8);
        }
    }
    line.raw(51_000, Inbound, 0xc1, 11, 140);
    assert_eq!(line.codes(51_100), [], "it recovered");
}

#[test]
fn a_new_wan_address_under_an_idle_tunnel_is_nothing() {
    let mut line = raw_session();
    for (seq, millis) in [(11, 60_000), (12, 90_000), (13, 120_000)] {
        line.ike(millis, Outbound, 500, &sealed(V1, 5, 1, 1, seq, 92));
        line.ike(millis + 30, Inbound, 500, &sealed(V1, 5, 1, 1, seq + 1000, 92));
        assert_eq!(line.codes(millis + 5000), []);
    }
}

#[test]
fn dpd_after_a_shorter_deletion_of_keys_is_no_end() {
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.quick_mode(100, 1, 7);
    line.esp(300, Outbound, 0xd1, 1, 140);
    line.esp(330, Inbound, 0xc1, 1, 140);
    line.quick_mode(60_000, 1, 8);
    line.ike(60_100, Outbound, 4500, &sealed(V1, 5, 1, 1, 20, 76));
    for round in 0..5_u32 {
        let millis = 100_000 + u64::from(round) * 30_000;
        line.ike(millis, Outbound, 4500, &sealed(V1, 5, 1, 1, 30 + round, 92));
        assert_ne!(line.phases(millis + 7000)[0].0, Phase::Closed, "the answer may be late");
        line.ike(millis + 8000, Inbound, 4500, &sealed(V1, 5, 1, 1, 40 + round, 92));
        assert_ne!(line.phases(millis + 20_000)[0].0, Phase::Closed);
    }
    // The end: ESP's keys, then the IKE SA.
    line.ike(300_000, Outbound, 4500, &sealed(V1, 5, 1, 1, 50, 76));
    line.ike(300_010, Outbound, 4500, &sealed(V1, 5, 1, 1, 51, 92));
    line.ike(300_040, Inbound, 4500, &sealed(V1, 5, 1, 1, 52, 76));
    line.ike(300_050, Inbound, 4500, &sealed(V1, 5, 1, 1, 53, 92));
    assert_eq!(line.phases(306_000), [(Phase::Closed, "closed by the device")]);
}

#[test]
fn keys_of_esp_that_are_deleted_after_new_ones_are_no_end() {
    let mut line = Line::new();
    line.up(0, 1);
    line.ike(5000, Outbound, 4500, &sealed(V2, 37, 1, REQUEST, 2, 57));
    line.ike(5030, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, 2, 57));
    line.ike(60_000, Outbound, 4500, &sealed(V2, 36, 1, REQUEST, 3, 300));
    line.ike(60_030, Inbound, 4500, &sealed(V2, 36, 1, RESPONSE, 3, 280));
    line.ike(60_050, Outbound, 4500, &sealed(V2, 37, 1, REQUEST, 4, 69));
    line.ike(60_080, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, 4, 69));
    assert_eq!(line.phases(70_000), [(Phase::Data, "")]);
}
