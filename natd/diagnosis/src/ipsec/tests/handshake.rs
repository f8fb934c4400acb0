//! IKE SAs that do not come to be, and what looks like that.

use super::*;
use Confidence::{High, Low, Medium};

#[test]
fn a_first_message_that_nobody_answers() {
    let mut line = Line::new();
    for millis in [0, 2000] {
        line.ike(millis, Outbound, 500, &sa_init(1, &[]));
    }
    assert_eq!(line.codes(2500), []);
    line.ike(6000, Outbound, 500, &sa_init(1, &[]));
    assert_eq!(line.codes(6500), [(Code::Ike500NoReply, Medium)]);
    assert_eq!(line.codes(10_000), [(Code::Ike500NoReply, High)]);
    assert_eq!(line.phases(10_000), [(Phase::Handshake, "")]);
    assert_eq!(line.phases(70_000), [(Phase::Closed, "no answer")]);
}

#[test]
fn copies_of_one_packet_are_no_repetitions() {
    let mut line = Line::new();
    for millis in [0, 1, 2, 3] {
        line.ike(millis, Outbound, 500, &sa_init(1, &[]));
    }
    assert_eq!(line.codes(6000), []);
}

#[test]
fn attempts_with_new_spis_count_together() {
    let mut line = Line::new();
    for spi in 1..=4 {
        line.ike(spi * 3000, Outbound, 500, &sa_init(spi, &[]));
    }
    let findings = line.findings(14_000);
    assert_eq!((findings.len(), findings[0].code, findings[0].confidence), (1, Code::Ike500NoReply, High));
    assert_eq!((findings[0].attempt, findings[0].evidence[0].count), (4, 4));
}

#[test]
fn attempts_far_apart_are_told_of_one_by_one() {
    let mut line = Line::new();
    for begin in [0, 600_000] {
        for millis in [0, 2000, 6000, 13_000] {
            line.ike(begin + millis, Outbound, 500, &sa_init(begin + 1, &[]));
        }
    }
    assert_eq!(line.codes(620_000), [(Code::Ike500NoReply, High); 2]);
}

#[test]
fn a_server_that_falls_silent_amid_the_login() {
    let mut line = Line::new();
    line.init(0, 1);
    line.ike(100, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 90));
    line.ike(130, Inbound, 4500, &sealed(V2, 35, 1, RESPONSE, 1, 1200));
    for millis in [200, 2200, 6200, 13_200] {
        line.ike(millis, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 2, 90));
    }
    assert_eq!(line.codes(14_000), [(Code::IkeAuthRejected, Low)]);
    assert_eq!(line.owner(14_000), [Party::Server, Party::User]);
}

#[test]
fn a_slow_answer_and_one_repetition_are_healthy() {
    let mut line = Line::new();
    line.ike(0, Outbound, 500, &sa_init(1, &[]));
    line.up(2000, 1);
    assert_eq!(line.codes(60_000), []);
    assert_eq!(line.phases(4000), [(Phase::Data, "")]);
}

#[test]
fn icmp_tells_the_server_from_the_way() {
    let server = [198, 51, 100, 10];
    let router = [203, 0, 113, 1];
    let rows = [
        (server, IcmpKind::PortUnreachable, Code::Ike500IcmpPort, Party::Server),
        (router, IcmpKind::PortUnreachable, Code::Ike500Admin, Party::Line),
        (router, IcmpKind::Prohibited, Code::Ike500Admin, Party::Line),
        (server, IcmpKind::HostUnreachable, Code::ServerDown, Party::Server),
        (router, IcmpKind::HostUnreachable, Code::ServerDown, Party::Server),
        ([192, 168, 1, 1], IcmpKind::HostUnreachable, Code::ServerPath, Party::Line),
        (router, IcmpKind::NetUnreachable, Code::ServerPath, Party::Line),
    ];
    for (from, kind, code, party) in rows {
        let mut line = Line::new();
        for millis in [0, 2000, 6000] {
            line.ike(millis, Outbound, 500, &sa_init(1, &[]));
            line.icmp(millis + 20, from, kind, 17, 500);
        }
        // A router's word about a host is another's than the host's.
        let sure = if (from, kind) == (router, IcmpKind::HostUnreachable) { Medium } else { High };
        assert_eq!(line.codes(7000), [(code, sure)], "{kind:?}");
        assert_eq!(line.owner(7000)[0], party);
    }
    let mut line = Line::new();
    line.ike(0, Outbound, 500, &sa_init(1, &[]));
    line.icmp(20, router, IcmpKind::HostUnreachable, 17, 500);
    line.up(2000, 1);
    assert_eq!(line.codes(9000), [], "it was for a moment only");
}

#[test]
fn small_logins_on_4500_that_nobody_answers() {
    let mut line = Line::new();
    line.init(0, 1);
    for millis in [100, 2100, 6100, 13_100] {
        line.ike(millis, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 500));
    }
    assert_eq!(line.codes(14_000), [(Code::Ike4500NoReply, High)]);
    assert_eq!(line.sessions(14_000)[0].vpn, passthrough::view::Vpn::NatTraversal);
}

#[test]
fn logins_in_ip_fragments_that_nobody_answers() {
    let mut line = Line::new();
    line.init(0, 1);
    let login = [&[0; 4], &sealed(V2, 35, 1, REQUEST, 1, 3500)[..]].concat();
    for millis in [100, 1100, 2100] {
        line.udp_cut(millis, Outbound, 4500, &login, Fragment::First);
        line.udp_cut(millis + 1, Outbound, 4500, &[7; 1000], Fragment::Later);
    }
    assert_eq!(line.codes(3000), [(Code::IkeAuthFragLost, Medium)]);
    assert_eq!(line.codes(13_000), [(Code::IkeAuthFragLost, High)]);
    let mut line = Line::new();
    line.init(0, 1);
    for millis in [100, 4100, 10_100] {
        line.ike(millis, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 2500));
    }
    assert_eq!(line.codes(11_000), [(Code::IkeAuthFragLost, High)], "put together before it was seen");
}

#[test]
fn ike_fragments_that_nobody_answers_are_no_large_packets() {
    let mut line = Line::new();
    line.init(0, 1);
    for millis in [100, 4100, 10_100] {
        for number in 1..=3 {
            let body = [&[0, number, 0, 3][..], &[9; 1100]].concat();
            line.ike(
                millis + u64::from(number),
                Outbound,
                4500,
                &clear(V2, 35, (1, 9), REQUEST, 1, &[(53, &body)]),
            );
        }
    }
    let findings = line.findings(11_000);
    assert_eq!((findings[0].code, findings[0].confidence), (Code::Ike4500NoReply, High));
    assert_eq!(findings[0].evidence[0].count, 3, "parts of one message are no repetitions");
}

#[test]
fn answers_that_come_in_incomplete_fragments() {
    let mut line = Line::new();
    line.init(0, 1);
    for millis in [100, 2100, 6100] {
        line.ike(millis, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 500));
        let datagram = Peers::udp(4500, 4500, &[7; 1000]);
        let mut seen = line.peers.packet(millis + 30, Inbound, 17, &datagram);
        (seen.fragment, seen.sighting, seen.ident) = (Fragment::Later, None, u32::try_from(millis).unwrap());
        line.pair.observe(&seen);
    }
    assert_eq!(line.codes(7000), [(Code::IkeReplyFragLost, High)]);
}

#[test]
fn no_proposal_chosen_of_either_version_and_side() {
    let mut line = Line::new();
    line.ike(0, Outbound, 500, &sa_init(1, &[]));
    line.ike(30, Inbound, 500, &clear(V2, 34, (1, 0), RESPONSE, 0, &[(41, &notify2(14, &[]))]));
    assert_eq!(line.codes(100), [(Code::IkeNoProposal, High)]);
    assert_eq!(line.owner(100)[0], Party::Server);
    assert_eq!(line.phases(10_000), [(Phase::Closed, "refused: no proposal chosen")]);

    let mut line = Line::new();
    line.ike(0, Outbound, 500, &clear(V1, 2, (1, 0), 0, 0, &[(1, &[1; 48])]));
    line.ike(30, Inbound, 500, &clear(V1, 5, (1, 9), 0, 77, &[(11, &notify1(14))]));
    assert_eq!(line.codes(100), [(Code::IkeNoProposal, High)]);

    let mut line = Line::new();
    line.ike(0, Outbound, 500, &clear(V1, 2, (1, 0), 0, 0, &[(1, &[1; 48])]));
    line.ike(30, Inbound, 500, &clear(V1, 2, (1, 9), 0, 0, &[(1, &[1; 40])]));
    line.ike(60, Outbound, 500, &clear(V1, 5, (1, 9), 0, 77, &[(11, &notify1(14))]));
    assert_eq!(line.codes(100), [(Code::IkeNoProposal, High)]);
    assert_eq!(line.owner(100)[0], Party::Device);
}

#[test]
fn a_cookie_and_one_other_group_are_healthy() {
    let mut line = Line::new();
    line.ike(0, Outbound, 500, &sa_init(1, &[]));
    line.ike(30, Inbound, 500, &clear(V2, 34, (1, 0), RESPONSE, 0, &[(41, &notify2(16390, &[7; 20]))]));
    line.ike(60, Outbound, 500, &sa_init(1, &[(41, &notify2(16390, &[7; 20]))]));
    line.ike(90, Inbound, 500, &clear(V2, 34, (1, 0), RESPONSE, 0, &[(41, &notify2(17, &[0, 14]))]));
    assert_eq!(line.codes(3000), []);
    line.up(120, 1);
    assert_eq!(line.codes(60_000), []);
}

#[test]
fn groups_that_are_refused_again_and_again() {
    let mut line = Line::new();
    for round in 0..2 {
        line.ike(round * 100, Outbound, 500, &sa_init(1, &[(43, &[u8::try_from(round).unwrap()])]));
        let answer = clear(V2, 34, (1, 0), RESPONSE, 0, &[(41, &notify2(17, &[0, 14]))]);
        line.ike(round * 100 + 30, Inbound, 500, &answer);
    }
    assert_eq!(line.codes(1000), [(Code::IkeInvalidKe, High)]);
}

#[test]
fn a_server_without_that_version() {
    let mut line = Line::new();
    line.ike(0, Outbound, 500, &sa_init(1, &[]));
    line.ike(30, Inbound, 500, &clear(V2, 34, (1, 0), RESPONSE, 0, &[(41, &notify2(5, &[]))]));
    assert_eq!(line.codes(100), [(Code::IkeVersion, High)]);
    let mut line = Line::new();
    line.ike(0, Outbound, 500, &sa_init(1, &[]));
    line.ike(30, Inbound, 500, &clear(V1, 5, (1, 9), 0, 3, &[(11, &notify1(5))]));
    assert_eq!(line.codes(100), [(Code::IkeVersion, High)]);
}

#[test]
fn a_short_answer_to_the_login_and_then_nothing() {
    let mut line = Line::new();
    line.init(0, 1);
    line.ike(60, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 400));
    line.ike(90, Inbound, 4500, &sealed(V2, 35, 1, RESPONSE, 1, 80));
    assert_eq!(line.codes(1000), [], "EAP could go on");
    assert_eq!(line.codes(6000), [(Code::IkeAuthRejected, Medium)]);
    assert_eq!(line.phases(6000), [(Phase::Closed, "login refused")]);
    line.router.clock_skew = Some(-40_000_000);
    assert_eq!(line.codes(6000), [(Code::IkeAuthClock, Medium)]);
    line.ike(2000, Outbound, 500, &sa_init(2, &[]));
    assert_eq!(line.codes(2100), [(Code::IkeAuthClock, Medium)], "it begins anew");
}

#[test]
fn eap_with_many_rounds_is_healthy_and_its_failure_is_not() {
    let rounds = |last: usize| {
        let mut line = Line::new();
        line.init(0, 1);
        for round in 1..=5_u32 {
            let millis = u64::from(round) * 100;
            line.ike(millis, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, round, 90));
            let len = match round {
                1 => 1200,
                5 => last,
                _ => 84,
            };
            line.ike(millis + 30, Inbound, 4500, &sealed(V2, 35, 1, RESPONSE, round, len));
        }
        line
    };
    let mut line = rounds(260);
    assert_eq!(line.codes(30_000), []);
    // Another round may follow.
    assert_eq!(line.phases(1000), [(Phase::Handshake, "")]);
    assert_eq!(line.phases(1600), [(Phase::Established, "")]);
    line.esp(2000, Outbound, 0xd1, 1, 100);
    line.esp(2030, Inbound, 0xc1, 1, 100);
    assert_eq!(line.codes(30_000), []);
    assert_eq!(rounds(80).codes(30_000), [(Code::IkeAuthRejected, Medium)]);
}

#[test]
fn eap_that_the_device_breaks_off_did_not_work() {
    let mut line = Line::new();
    for (begin, spi) in [(0, 1), (7000, 2)] {
        line.init(begin, spi);
        let mut auth = |millis, direction, flags, round, len| {
            line.ike(begin + millis, direction, 4500, &sealed(V2, 35, spi, flags, round, len));
        };
        auth(100, Outbound, REQUEST, 1, 256);
        auth(160, Inbound, RESPONSE, 1, 1236);
        auth(170, Outbound, REQUEST, 2, 80);
        auth(172, Inbound, RESPONSE, 2, 132);
        auth(173, Outbound, REQUEST, 3, 144);
        auth(1173, Outbound, REQUEST, 3, 144);
        assert_eq!(line.phases(begin + 1500).last(), Some(&(Phase::Handshake, "")), "it goes on");
        // The server says why not after two seconds, and the device gives up.
        line.ike(begin + 2175, Inbound, 4500, &sealed(V2, 35, spi, RESPONSE, 3, 128));
        line.ike(begin + 2176, Outbound, 4500, &sealed(V2, 37, spi, REQUEST, 4, 80));
        line.ike(begin + 2178, Inbound, 4500, &sealed(V2, 37, spi, RESPONSE, 4, 80));
    }
    assert_eq!(line.codes(9500), [(Code::IkeAuthRejected, Medium)]);
    assert_eq!(line.owner(9500), [Party::User, Party::Server]);
    let over = (Phase::Closed, "broken off by the device");
    assert_eq!(line.phases(9500), [over, (Phase::Handshake, "")]);
    assert_eq!(line.phases(80_000), [over; 2]);
}

#[test]
fn an_informational_message_right_after_the_login_is_healthy() {
    let mut line = Line::new();
    line.init(0, 1);
    line.ike(60, Outbound, 4500, &sealed(V2, 35, 1, REQUEST, 1, 300));
    line.ike(90, Inbound, 4500, &sealed(V2, 35, 1, RESPONSE, 1, 250));
    line.ike(120, Outbound, 4500, &sealed(V2, 37, 1, REQUEST, 2, 80));
    line.ike(150, Inbound, 4500, &sealed(V2, 37, 1, RESPONSE, 2, 80));
    line.esp(3000, Outbound, 0xd1, 1, 100);
    assert_eq!(line.phases(3100), [(Phase::Data, "")]);
    assert_eq!(line.codes(3100), []);
}

#[test]
fn a_login_of_version_1_that_is_refused() {
    let mut line = Line::new();
    line.ike(0, Outbound, 500, &clear(V1, 2, (1, 0), 0, 0, &[(1, &[1; 48])]));
    line.ike(10, Inbound, 500, &clear(V1, 2, (1, 9), 0, 0, &[(1, &[1; 40])]));
    line.ike(20, Outbound, 500, &clear(V1, 2, (1, 9), 0, 0, &[(4, &[1; 128]), (10, &[1; 16])]));
    line.ike(30, Inbound, 500, &clear(V1, 2, (1, 9), 0, 0, &[(4, &[2; 128]), (10, &[2; 16])]));
    for millis in [40, 4040, 8040] {
        line.ike(millis, Outbound, 500, &sealed(V1, 2, 1, 1, 0, 100));
        line.ike(millis + 10, Inbound, 500, &clear(V1, 5, (1, 9), 0, 3, &[(11, &notify1(16))]));
    }
    assert_eq!(line.codes(20_000), [(Code::IkeAuthRejected, Medium)]);
}

#[test]
fn xauth_that_is_refused_and_quick_mode_that_is_refused() {
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.ike(100, Inbound, 4500, &sealed(V1, 6, 1, 1, 8, 76));
    line.ike(2100, Outbound, 4500, &sealed(V1, 6, 1, 1, 8, 100));
    line.ike(2200, Inbound, 4500, &sealed(V1, 5, 1, 1, 44, 92));
    assert_eq!(line.codes(9000), [(Code::IkeAuthRejected, Medium)]);

    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.ike(100, Outbound, 4500, &sealed(V1, 32, 1, 1, 8, 300));
    line.ike(130, Inbound, 4500, &sealed(V1, 5, 1, 1, 44, 92));
    assert_eq!(line.codes(9000), [(Code::IkeNoProposal, Medium)]);
}

/// vpnc with a wrong group password: it finds the server's hash wrong and ends.
#[test]
fn aggressive_mode_that_the_device_breaks_off() {
    let mut line = Line::new();
    line.ike(0, Outbound, 500, &clear(V1, 4, (1, 0), 0, 0, &[(1, &[1; 48]), (4, &[1; 128])]));
    for millis in [40, 1000, 2800] {
        line.ike(millis, Inbound, 500, &clear(V1, 4, (1, 9), 0, 0, &[(1, &[1; 40]), (4, &[2; 128])]));
    }
    assert_eq!(line.codes(2900), [(Code::IkeAuthRejected, Medium)]);
    assert_eq!(line.codes(60_000), [(Code::IkeAuthRejected, Medium)]);

    let mut line = Line::new();
    line.ike(0, Outbound, 500, &clear(V1, 4, (1, 0), 0, 0, &[(1, &[1; 48]), (4, &[1; 128])]));
    line.ike(40, Inbound, 500, &clear(V1, 4, (1, 9), 0, 0, &[(1, &[1; 40]), (4, &[2; 128])]));
    assert_eq!(line.codes(3000), []);
}

/// strongSwan says no in a transaction that looks like one that says yes.
#[test]
fn xauth_that_is_refused_by_its_status() {
    let login = |status: u32| {
        let mut line = Line::new();
        line.main_mode(0, 1, &[]);
        line.ike(100, Inbound, 4500, &sealed(V1, 6, 1, 1, 8, 76));
        line.ike(200, Outbound, 4500, &sealed(V1, 6, 1, 1, 8, 100));
        line.ike(300, Inbound, 4500, &sealed(V1, 6, 1, 1, status, 76));
        line.ike(310, Outbound, 4500, &sealed(V1, 6, 1, 1, status, 76));
        line
    };
    assert_eq!(login(9).codes(4000), []);
    assert_eq!(login(9).codes(9000), [(Code::IkeAuthRejected, Medium)]);

    // An address is asked for, and the person is asked for a password.
    let mut line = login(9);
    line.ike(320, Outbound, 4500, &sealed(V1, 6, 1, 1, 10, 100));
    line.ike(330, Inbound, 4500, &sealed(V1, 6, 1, 1, 10, 100));
    assert_eq!(line.codes(9000), []);
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.ike(100, Inbound, 4500, &sealed(V1, 6, 1, 1, 8, 76));
    assert_eq!(line.codes(9000), []);
}

#[test]
fn main_mode_and_aggressive_mode_are_healthy() {
    let mut line = Line::new();
    line.main_mode(0, 1, &[]);
    line.quick_mode(100, 1, 8);
    assert_eq!(line.codes(60_000), []);
    assert_eq!(line.phases(1000), [(Phase::Established, "")]);

    let mut line = Line::new();
    line.ike(0, Outbound, 500, &clear(V1, 4, (1, 0), 0, 0, &[(1, &[1; 48]), (4, &[1; 128])]));
    line.ike(30, Inbound, 500, &clear(V1, 4, (1, 9), 0, 0, &[(1, &[1; 48]), (4, &[2; 128])]));
    line.ike(60, Outbound, 500, &sealed(V1, 4, 1, 1, 0, 100));
    line.ike(70, Outbound, 500, &sealed(V1, 32, 1, 1, 7, 200));
    line.ike(90, Inbound, 500, &sealed(V1, 32, 1, 1, 7, 201));
    line.ike(99, Outbound, 500, &sealed(V1, 32, 1, 1, 7, 60));
    assert_eq!(line.codes(60_000), []);
}

#[test]
fn what_natd_refuses_explains_everything_else() {
    let refusal = |reason, port| Refusal {
        device: Some([192, 168, 1, 11].into()),
        server: Some([198, 51, 100, 10].into()),
        protocol: 17,
        port,
        reason,
        count: 3,
        first: at(0),
        last: at(6000),
    };
    for (reason, code) in [("ipsec-off", Code::EspPassOff), ("vpn-second-device", Code::MultiClash)] {
        let mut line = Line::new();
        for millis in [0, 2000, 6000] {
            line.ike(millis, Outbound, 500, &sa_init(1, &[]));
            line.icmp(millis + 1, [192, 168, 1, 1], IcmpKind::Prohibited, 17, 500);
        }
        line.router.refusals.push(refusal(reason, 1701));
        assert_eq!(line.codes(9000), [(Code::Ike500Admin, High)], "that refusal is L2TP's");
        line.router.refusals.push(refusal(reason, 500));
        assert_eq!(line.codes(9000), [(code, High)]);
        line.up(9000, 2);
        let found = line.codes(60_000);
        assert!(!found.contains(&(code, High)), "it was switched on since: {found:?}");
    }
}

#[test]
fn a_port_that_the_router_changed() {
    let mut line = Line::new();
    for millis in [0, 2000, 6000] {
        line.ike(millis, Outbound, 500, &sa_init(1, &[]));
        line.left(millis, 500, [203, 0, 113, 5], 40_500);
    }
    let found = line.codes(12_000);
    assert_eq!(found, [(Code::IkePortRewritten, Low), (Code::Ike500NoReply, High)]);
}

#[test]
fn ah_is_named_unless_it_works() {
    let mut line = Line::new();
    let packet = [6, 4, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 9, 0xaa, 0xbb];
    line.pair.observe(&line.peers.packet(0, Outbound, 51, &packet));
    assert_eq!(line.codes(100), [(Code::IpsecAh, High)]);
    line.pair.observe(&line.peers.packet(50, Inbound, 51, &packet));
    assert_eq!(line.codes(100), []);
}
