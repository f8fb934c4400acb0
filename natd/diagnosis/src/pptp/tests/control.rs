//! The control connection.

use super::*;

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

/// A recording has what natd refuses on the LAN only.
#[test]
fn a_reset_in_answer_to_a_syn_that_did_not_leave_is_the_router_s() {
    let mut dialogue = Dialogue { out: false, ..Dialogue::default() };
    dialogue.tcp(0, Outbound, SYN, &[]);
    dialogue.tcp(1, Inbound, RST | ACK, &[]);
    assert_eq!(dialogue.codes(1), [(Code::PptpGrePassOff, Confidence::Medium)]);
    // natd would say if it had refused it: the firewall has.
    dialogue.scene.vantage.router = true;
    assert_eq!(dialogue.codes(100), []);
    assert_eq!(dialogue.codes(3000), [(Code::LocalFirewall, Confidence::Medium)]);
    dialogue.scene.vantage.wan = false;
    assert_eq!(dialogue.codes(3000), [(Code::PptpRefused, HIGH)]);
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
fn resets_two_routers_nearer_each_time_are_injected() {
    for (ttl, times, injected) in [(59, 2, false), (59, 3, true), (58, 3, false)] {
        let mut dialogue = Dialogue::default();
        let usual = dialogue.ttl;
        for round in 0..times {
            let begin = round * 5000;
            dialogue.port += 1;
            dialogue.ttl = usual;
            dialogue.tcp(begin, Outbound, SYN, &[]);
            dialogue.tcp(begin + 10, Inbound, SYN_ACK, &[]);
            dialogue.tcp(begin + 20, Outbound, ACK, &message(1, 0, 0, 0));
            dialogue.ttl = ttl;
            dialogue.tcp(begin + 30, Inbound, RST, &[]);
        }
        let found = dialogue.codes(times * 5000);
        let all = found.iter().filter(|(code, _)| *code == Code::DpiRst).count();
        assert_eq!(all, if injected { 3 } else { 0 }, "{ttl}, {times} times: {found:?}");
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
        (ROUTER.into(), IcmpKind::HostUnreachable, Code::ServerDown),
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
fn a_server_at_home_is_not_judged() {
    let mut dialogue = Dialogue::default();
    let bytes = Peers::tcp(1723, 50_000, 0, 0, RST, &[]);
    dialogue.tracker.observe(&dialogue.peers.packet(0, Outbound, 6, &bytes));
    assert!(dialogue.tracker.connections.is_empty());
}

#[test]
fn a_refusal_after_an_attempt_is_a_later_one_s() {
    let mut dialogue = Dialogue::default();
    dialogue.tcp(0, Outbound, SYN, &[]);
    dialogue.tcp(20, Inbound, RST | ACK, &[]);
    dialogue = dialogue.refused(6, "pptp-off");
    dialogue.scene.router.refusals[0].first = at(60_000);
    dialogue.scene.router.refusals[0].last = at(60_000);
    assert_eq!(dialogue.codes(61_000), [(Code::PptpRefused, HIGH)]);
}

#[test]
fn a_device_that_gives_up_soon_says_nothing_about_the_server() {
    let mut dialogue = Dialogue::default().connect();
    dialogue.tcp(30, Outbound, ACK, &message(1, 0, 0, 0));
    dialogue.tcp(3000, Outbound, FIN, &[]);
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn a_segment_that_a_reset_overtook_is_no_sign_of_a_forged_one() {
    let mut dialogue = Dialogue::default().connect();
    dialogue.tcp(30, Outbound, ACK, &message(1, 0, 0, 0));
    let [device, server] = dialogue.next;
    dialogue.raw(60, Inbound, [server + 156, device], RST, &[]);
    dialogue.raw(61, Inbound, [server, device], ACK, &message(2, 0, 0, 1));
    assert_eq!(dialogue.codes(1000), []);
}

#[test]
fn a_reset_in_answer_to_the_device_s_own_is_no_sign_of_a_forged_one() {
    let mut dialogue = Dialogue::default().connect();
    dialogue.tcp(30, Outbound, RST, &[]);
    dialogue.ttl = 40;
    dialogue.tcp(60, Inbound, RST, &[]);
    assert_eq!(dialogue.codes(1000), []);
}
