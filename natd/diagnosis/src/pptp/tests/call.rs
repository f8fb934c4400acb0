//! Calls and what is in them.

use super::*;

#[test]
fn a_call_is_no_tunnel_before_somebody_is_let_in() {
    let mut dialogue = Dialogue::default().link();
    dialogue.gre(1400, Inbound, 0, CHAP_CHALLENGE);
    assert_eq!(dialogue.session(2_000), (Phase::Handshake, ""));
    dialogue.gre(1420, Outbound, 7, CHAP_RESPONSE);
    dialogue.gre(1500, Inbound, 0, CHAP_SUCCESS);
    assert_eq!(dialogue.session(2_000), (Phase::Established, ""));
}

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
fn a_device_that_answers_none_of_the_gre_that_reaches_it_has_a_firewall() {
    for hears in [false, true] {
        let mut dialogue = Dialogue::default().dial(1);
        for round in 0..8 {
            dialogue.gre(1200 + round * 3000, Outbound, 7, LCP_REQUEST);
            dialogue.gre(1210 + round * 3000, Inbound, 0, LCP_ACK);
            dialogue.gre(1220 + round * 3000, Inbound, 0, LCP_REQUEST);
        }
        assert_eq!(dialogue.codes(25_000), [(Code::PptpGreInOnly, HIGH)]);
        assert_eq!(dialogue.asked(25_000, &[])[0].owner, [Party::Device]);
        if hears {
            // It only took its time.
            dialogue.gre(25_100, Outbound, 7, LCP_ACK);
            assert_eq!(dialogue.codes(26_000), []);
        }
        dialogue.tcp(30_000, Outbound, ACK, &message(12, 0, 0, 0));
        let found: &[_] = if hears { &[] } else { &[(Code::PptpGreInOnly, HIGH)] };
        assert_eq!(dialogue.codes(LATE), found);
    }
}

#[test]
fn a_device_that_hears_shows_it_by_gre_s_own_number() {
    let mut dialogue = Dialogue::default().dial(1);
    for round in 0..5 {
        dialogue.gre(1200 + round * 3000, Outbound, 7, LCP_REQUEST);
        dialogue.gre(1210 + round * 3000, Inbound, 0, LCP_REQUEST);
    }
    assert_eq!(dialogue.codes(14_000), [(Code::PptpGreInOnly, MEDIUM)]);
    // Nothing but a number of a packet received.
    let bytes = [0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 7, 0, 0, 0, 9];
    dialogue.tracker.observe(&dialogue.peers.packet(14_100, Outbound, 47, &bytes));
    assert_eq!(dialogue.codes(15_000), [(Code::PptpGreBlocked, HIGH)], "it hears, and is not heard");
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

#[test]
fn a_goodbye_that_is_not_answered_is_no_forgotten_connection() {
    let mut dialogue = Dialogue::default().work();
    let first = dialogue.next;
    for millis in [62_000, 62_500, 63_500, 65_500, 69_500] {
        dialogue.next = first;
        dialogue.tcp(millis, Outbound, ACK, &message(3, 0, 0, 0));
        dialogue.gre(millis + 100, Inbound, 0, PACKET);
    }
    assert_eq!(dialogue.codes(LATE), []);
}

#[test]
fn blocked_gre_beside_another_device_s_that_works_is_not_the_line_s() {
    let first = Dialogue::default().work();
    let mut second = Dialogue::default().start(1);
    second.peers.device = [192, 168, 1, 12].into();
    second.tcp(1060, Outbound, ACK, &message(7, 5, 0, 0));
    second.tcp(1100, Inbound, ACK, &message(8, 8, 5, 1));
    for round in 0..5 {
        second.gre(1200 + round * 3000, Outbound, 8, LCP_REQUEST);
    }
    let found = second.asked(20_000, &[&first.tracker]);
    let found: Vec<_> = found.iter().map(|finding| (finding.code, finding.owner)).collect();
    assert_eq!(found, [(Code::PptpGreBlocked, &[Party::Router, Party::Server][..])]);
}

#[test]
fn seen_from_the_wan_two_devices_have_one_address() {
    let mut dialogue = Dialogue::default().work();
    dialogue.scene.vantage.lan = false;
    dialogue.port = 40_001;
    dialogue.tcp(5000, Outbound, SYN, &[]);
    dialogue.tcp(5020, Inbound, RST | ACK, &[]);
    assert_eq!(dialogue.codes(6000), [(Code::PptpOnePerIp, MEDIUM)]);
    dialogue.scene.vantage.lan = true;
    assert_eq!(dialogue.codes(6000), [(Code::PptpRefused, HIGH)]);
}
