//! RFC 5382: NAT behavioural requirements for TCP.

use std::time::Duration;

use nat_core::decision::{DropReason, Effect, Note, Outcome};
use nat_core::flow::Protocol;
use nat_core::policy::{Filtering, Policy, Timeouts};
use nat_core::session::SessionState;

use crate::packets::{A, B, HOP, S, T, WAN, error, tcp};
use crate::world::{Out, World, forward, sent};

const DEVICE: (std::net::Ipv4Addr, u16) = (A, 40_000);
const SERVER: (std::net::Ipv4Addr, u16) = (S, 443);
const OUTSIDE: (std::net::Ipv4Addr, u16) = (WAN, 40_000);

/// From the device, from the server.
fn up() -> crate::packets::Packet {
    tcp(DEVICE, SERVER)
}

fn down() -> crate::packets::Packet {
    tcp(SERVER, OUTSIDE)
}

fn state(w: &World) -> SessionState {
    let sessions = w.sessions();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions[0].state
}

#[test]
fn rfc5382_req1_mapping_is_endpoint_independent() {
    let mut w = World::new();
    for remote in [(S, 80), (S, 443), (T, 80)] {
        let syn = tcp(DEVICE, remote).syn(1);
        assert_eq!(w.lan(&syn), sent(&syn.from(WAN, 40_000)));
    }
    let other = w.lan(&tcp((B, 40_000), (S, 22)).syn(1)).sent().src().1;
    assert_ne!(other, 40_000);
    assert_eq!(w.lan(&tcp((B, 40_000), (T, 23)).syn(1)).sent().src().1, other);
}

#[test]
fn rfc5382_req2_a_connection_opens_carries_data_and_closes() {
    let mut w = World::new();
    let steps = [
        (up().syn(100), SessionState::Opening),
        (down().syn_ack(500, 101), SessionState::Opening),
        (up().ack(101, 501), SessionState::Established),
        (up().data(101, 501, 1000), SessionState::Established),
        (down().data(501, 1101, 1460), SessionState::Established),
        (down().data(1961, 1101, 1460), SessionState::Established),
        (up().ack(1101, 3421), SessionState::Established),
        (up().fin(1101, 3421), SessionState::Established),
        (down().ack(3421, 1102), SessionState::Established),
        (down().data(3421, 1102, 500), SessionState::Established), // half closed: the server goes on
        (up().ack(1102, 3921), SessionState::Established),
        (down().fin(3921, 1102), SessionState::Closing),
        (up().ack(1102, 3922), SessionState::Closing),
    ];
    for (packet, expected) in steps {
        if packet.src.0 == A {
            assert_eq!(w.lan(&packet), sent(&packet.from(WAN, 40_000)));
        } else {
            assert_eq!(w.wan(&packet), sent(&packet.to(A, 40_000)));
        }
        assert_eq!(state(&w), expected, "{packet:?}");
    }
    assert_eq!(w.notes(Note::OutOfWindow) + w.notes(Note::StraySyn), 0);
}

#[test]
fn rfc5382_req2_syn_may_carry_data_that_the_server_does_not_take() {
    // TCP Fast Open (RFC 7413 section 4.2): the server may acknowledge only the SYN, or the data too.
    for acked in [101, 601] {
        let mut w = World::new();
        w.lan(&up().syn(100).payload(&[1; 500])).sent();
        w.wan(&down().syn_ack(500, acked)).sent();
        w.lan(&up().ack(acked, 501)).sent();
        assert_eq!(state(&w), SessionState::Established, "acknowledged {acked}");
        w.advance(3600);
        w.wan(&down().data(501, acked, 10)).sent();
        assert_eq!((w.notes(Note::OutOfWindow), w.notes(Note::StraySyn)), (0, 0), "acknowledged {acked}");
    }
}

#[test]
fn rfc5382_req2a_simultaneous_open_works() {
    let mut w = World::new();
    w.lan(&up().syn(100)).sent();
    let peers = down().syn(500);
    assert_eq!(w.wan(&peers), sent(&peers.to(A, 40_000)));
    w.lan(&up().syn_ack(100, 501)).sent();
    w.wan(&down().syn_ack(500, 101)).sent();
    assert_eq!(state(&w), SessionState::Established);
    w.lan(&up().data(101, 501, 10)).sent();
    w.wan(&down().data(501, 111, 10)).sent();
    assert_eq!((w.notes(Note::OutOfWindow), w.notes(Note::StraySyn)), (0, 0));
}

#[test]
fn rfc5382_req2_lost_and_repeated_segments_of_the_handshake() {
    let mut w = World::new();
    for _ in 0..3 {
        w.lan(&up().syn(100)).sent();
    }
    w.wan(&down().syn_ack(500, 101)).sent();
    w.lan(&up().syn(100)).sent(); // the answer was lost on the LAN
    w.wan(&down().syn_ack(500, 101)).sent();
    w.lan(&up().ack(101, 501)).sent();
    w.wan(&down().syn_ack(500, 101)).sent(); // the acknowledgement was lost on the WAN
    w.lan(&up().data(101, 501, 10)).sent();
    w.wan(&down().data(501, 111, 10)).sent();
    assert_eq!((state(&w), w.notes(Note::OutOfWindow)), (SessionState::Established, 0));
}

#[test]
fn rfc5382_req2_a_syn_with_a_new_sequence_number_replaces_the_first() {
    let mut w = World::new();
    w.lan(&up().syn(100)).sent();
    w.lan(&up().syn(7_000_000)).sent();
    w.wan(&down().syn_ack(500, 7_000_001)).sent();
    w.lan(&up().ack(7_000_001, 501)).sent();
    assert_eq!(state(&w), SessionState::Established);
}

#[test]
fn rfc5382_req2_reordered_and_repeated_data_belongs() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.wan(&down().data(1961, 101, 1460)).sent(); // a hole before it
    w.wan(&down().data(3421, 101, 1460)).sent();
    w.lan(&up().ack(101, 501)).sent(); // duplicate acknowledgements; SACK blocks change nothing here
    w.lan(&up().ack(101, 501)).sent();
    w.wan(&down().data(501, 101, 1460)).sent();
    w.lan(&up().ack(101, 4881)).sent();
    w.wan(&down().data(501, 101, 1460)).sent(); // a useless repetition
    assert_eq!(w.notes(Note::OutOfWindow), 0);
}

#[test]
fn rfc5382_req2_zero_windows_and_their_probes() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.wan(&down().data(501, 101, 1000)).sent();
    w.lan(&up().ack(101, 1501).window(0)).sent();
    for _ in 0..3 {
        w.wan(&down().data(1501, 101, 1)).sent(); // probe with a byte
        w.lan(&up().ack(101, 1501).window(0)).sent();
        w.wan(&down().ack(1500, 101)).sent(); // probe as Linux sends it
        w.lan(&up().ack(101, 1501).window(0)).sent();
    }
    w.lan(&up().ack(101, 1501).window(50_000)).sent();
    w.wan(&down().data(1501, 101, 1400)).sent();
    assert_eq!(w.notes(Note::OutOfWindow), 0);
}

#[test]
fn rfc5382_req2_windows_are_scaled_when_both_offer_it() {
    let mut w = World::new();
    w.lan(&up().syn(100).scale(7)).sent();
    w.wan(&down().syn_ack(500, 101).scale(9)).sent();
    w.lan(&up().ack(101, 501).window(8000)).sent(); // a million bytes
    for n in 0..60 {
        w.wan(&down().data(501 + n * 16_000, 101, 16_000)).sent();
    }
    assert_eq!(w.notes(Note::OutOfWindow), 0);
    w.wan(&down().data(501 + 8000 * 128 + 70_000, 101, 1)).sent();
    assert_eq!(w.notes(Note::OutOfWindow), 1);
}

#[test]
fn rfc5382_req2_sequence_numbers_wrap() {
    let mut w = World::new();
    w.lan(&up().syn(0xffff_fff0)).sent();
    w.wan(&down().syn_ack(0xffff_ff00, 0xffff_fff1)).sent();
    w.lan(&up().ack(0xffff_fff1, 0xffff_ff01)).sent();
    w.lan(&up().data(0xffff_fff1, 0xffff_ff01, 100)).sent();
    w.wan(&down().data(0xffff_ff01, 85, 1000)).sent();
    w.lan(&up().ack(85, 745)).sent();
    w.wan(&down().data(745, 85, 1000)).sent();
    assert_eq!((state(&w), w.notes(Note::OutOfWindow)), (SessionState::Established, 0));
}

#[test]
fn rfc5382_req2_a_port_is_used_again_during_time_wait() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.lan(&up().fin(101, 501)).sent();
    w.wan(&down().fin(501, 102)).sent();
    w.lan(&up().ack(102, 502)).sent();
    assert_eq!(state(&w), SessionState::Closing);
    w.lan(&up().syn(9_000_000)).sent();
    w.wan(&down().syn_ack(77_000, 9_000_001)).sent();
    w.lan(&up().ack(9_000_001, 77_001)).sent();
    assert_eq!(state(&w), SessionState::Established);
    assert_eq!((w.left(), w.notes(Note::StraySyn)), (7440, 0));
}

#[test]
fn rfc5382_req2_a_port_is_used_again_after_a_reset() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.wan(&down().rst(501)).sent();
    w.lan(&up().syn(9_000_000)).sent();
    w.wan(&down().syn_ack(77_000, 9_000_001)).sent();
    w.lan(&up().ack(9_000_001, 77_001)).sent();
    assert_eq!(state(&w), SessionState::Established);
}

#[test]
fn rfc5382_req2_a_device_that_forgot_its_connection_can_open_it_again() {
    // RFC 9293 section 3.5.1: the server answers the SYN with an acknowledgement, the device resets.
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.lan(&up().data(101, 501, 50)).sent();
    w.wan(&down().ack(501, 151)).sent();
    w.lan(&up().syn(9_000_000)).sent();
    assert_eq!(state(&w), SessionState::Established);
    w.wan(&down().ack(501, 151)).sent();
    w.lan(&up().rst(151)).sent();
    assert_eq!(state(&w), SessionState::Reset);
    w.lan(&up().syn(9_000_000)).sent();
    w.wan(&down().syn_ack(77_000, 9_000_001)).sent();
    w.lan(&up().ack(9_000_001, 77_001)).sent();
    assert_eq!(state(&w), SessionState::Established);
}

#[test]
fn rfc5382_req2_a_connection_that_both_ends_forgot_opens_again() {
    // The server forgot it too (a restart), so the SYN is answered at once.
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.lan(&up().syn(9_000_000)).sent();
    w.wan(&down().syn_ack(77_000, 9_000_001)).sent();
    w.lan(&up().ack(9_000_001, 77_001)).sent();
    w.advance(7000);
    w.lan(&up().data(9_000_001, 77_001, 10)).sent();
    w.wan(&down().data(77_001, 9_000_011, 10)).sent();
    assert_eq!((state(&w), w.left()), (SessionState::Established, 7440));
    w.wan(&down().rst(77_011)).sent();
    assert_eq!(state(&w), SessionState::Reset);
}

#[test]
fn rfc5382_req2_a_connection_found_in_midstream_goes_on_from_the_inside() {
    let mut w = World::new();
    let data = up().data(1_000_000, 2_000_000, 100);
    assert_eq!(w.lan(&data), sent(&data.from(WAN, 40_000)));
    assert_eq!((state(&w), w.left()), (SessionState::Opening, 240));
    w.wan(&down().data(2_000_000, 1_000_100, 60_000)).sent();
    assert_eq!((state(&w), w.left()), (SessionState::Established, 7440));
    w.lan(&up().ack(1_000_100, 2_060_000)).sent();
    w.wan(&down().data(4_000_000, 1_000_100, 1400)).sent(); // a scaled window that we never saw
    assert_eq!(w.notes(Note::OutOfWindow), 0);
}

#[test]
fn rfc5382_req2_strangers_cannot_start_in_midstream() {
    let mut w = World::new();
    for packet in [down().data(1, 1, 10), down().fin(1, 1), down().syn_ack(1, 1), down().rst(1)] {
        assert_eq!(w.wan(&packet), Out::Passed);
    }
    w.connect(DEVICE, SERVER);
    for packet in [down().data(1, 1, 10), down().syn(1), down().syn_ack(1, 1)] {
        assert!(matches!(w.wan(&packet.from(T, 443)), Out::Dropped(_)));
    }
    assert_eq!(w.sessions().len(), 1);
}

#[test]
fn rfc5382_req2_outside_the_window_nothing_changes() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.advance(100);
    let deadline = w.sessions()[0].deadline;
    for packet in [
        down().data(501 + 200_000, 101, 10),
        down().data(501u32.wrapping_sub(200_000), 101, 10),
        down().data(501, 101 + 5000, 10),
        down().fin(501 + 200_000, 101),
        down().syn(12_345),
        down().syn_ack(12_345, 101),
    ] {
        assert_eq!(w.wan(&packet), sent(&packet.to(A, 40_000)));
    }
    let session = &w.sessions()[0];
    assert_eq!((session.state, session.deadline), (SessionState::Established, deadline));
    // And the true next segments still count.
    w.wan(&down().fin(501, 101)).sent();
    w.lan(&up().fin(101, 502)).sent();
    assert_eq!(state(&w), SessionState::Closing);
}

#[test]
fn rfc5382_req3_filtering_is_the_same_as_for_udp() {
    for (filtering, expected) in [
        (Filtering::EndpointIndependent, [true, true]),
        (Filtering::AddressDependent, [true, false]),
        (Filtering::AddressAndPortDependent, [false, false]),
    ] {
        for (sender, accepted) in [(S, 444), (T, 443)].into_iter().zip(expected) {
            let mut w = World::filtering(filtering);
            w.connect(DEVICE, SERVER);
            let syn = tcp(sender, OUTSIDE).syn(9);
            let out = if accepted { sent(&syn.to(A, 40_000)) } else { Out::Dropped(DropReason::Filtered) };
            assert_eq!(w.wan(&syn), out, "{filtering:?} {sender:?}");
        }
    }
}

#[test]
fn rfc5382_req4_an_unsolicited_syn_is_held_six_seconds_and_then_released() {
    let mut w = World::new();
    let syn = tcp(SERVER, (WAN, 7000)).syn(500);
    assert_eq!(w.wan(&syn), Out::Passed);
    let Out::Held(hold) = w.unclaimed(&syn) else { panic!("not held") };
    w.pass_time(Duration::from_millis(5999));
    assert_eq!(w.effects(), []);
    w.pass_time(Duration::from_millis(1));
    assert_eq!(w.effects(), [Effect::Release { hold, outcome: Outcome::Pass }]);
    w.advance(60);
    assert_eq!((w.effects(), w.engine.nat.sizes().held), (vec![], 0));
}

#[test]
fn rfc5382_req4_an_unsolicited_syn_whose_counterpart_leaves_is_dropped() {
    let mut w = World::new();
    let Out::Held(hold) = w.unclaimed(&tcp(SERVER, (WAN, 40_000)).syn(500)) else { panic!("not held") };
    w.advance(3);
    w.lan(&up().syn(100)).sent();
    assert_eq!(w.effects(), [Effect::Release { hold, outcome: Outcome::Drop }]);
    assert_eq!(w.drops(DropReason::HoldAnswered), 1);
    // The peer repeats its SYN, which is now simultaneous open.
    w.wan(&down().syn(500)).sent();
    w.lan(&up().syn_ack(100, 501)).sent();
    w.wan(&down().syn_ack(500, 101)).sent();
    assert_eq!(state(&w), SessionState::Established);
}

#[test]
fn rfc5382_req4_a_held_syn_of_somebody_else_is_not_met() {
    let mut w = World::new();
    assert!(matches!(w.unclaimed(&tcp((T, 443), OUTSIDE).syn(500)), Out::Held(_)));
    assert!(matches!(w.unclaimed(&tcp((S, 444), OUTSIDE).syn(500)), Out::Held(_)));
    assert!(matches!(w.unclaimed(&tcp(SERVER, (WAN, 40_001)).syn(500)), Out::Held(_)));
    w.lan(&up().syn(100)).sent();
    assert_eq!((w.effects(), w.engine.nat.sizes().held), (vec![], 3));
}

#[test]
fn rfc5382_req4_a_repeated_syn_is_dropped_while_the_first_is_held() {
    let mut w = World::new();
    let syn = tcp(SERVER, (WAN, 7000)).syn(500);
    assert!(matches!(w.unclaimed(&syn), Out::Held(_)));
    w.advance(3);
    assert_eq!(w.unclaimed(&syn), Out::Dropped(DropReason::HoldRepeated));
    w.advance(3);
    assert_eq!(w.effects().len(), 1);
    assert!(matches!(w.unclaimed(&syn), Out::Held(_)));
}

#[test]
fn rfc5382_req4_held_syns_are_bounded() {
    let mut w = World::new();
    let most = w.engine.nat.policy().limits.held_syns;
    for n in 0..most {
        let port = u16::try_from(n + 1).unwrap();
        assert!(matches!(w.unclaimed(&tcp((T, port), (WAN, 7000)).syn(500)), Out::Held(_)));
    }
    assert_eq!(w.unclaimed(&tcp((S, 1), (WAN, 7000)).syn(500)), Out::Dropped(DropReason::HoldFull));
    assert_eq!(w.engine.nat.sizes().held, most);
    w.advance(6);
    assert_eq!((w.effects().len(), w.engine.nat.sizes().held), (most as usize, 0));
}

#[test]
fn rfc5382_req4_holding_can_be_switched_off() {
    let timeouts = Timeouts { tcp_syn_hold: Duration::ZERO, ..Timeouts::default() };
    let mut w = World::with(Policy { timeouts, ..Policy::default() });
    assert_eq!(w.unclaimed(&tcp(SERVER, (WAN, 7000)).syn(500)), Out::Passed);
}

#[test]
fn rfc5382_req4_only_syns_are_held() {
    let mut w = World::new(); // long after its start
    let stray = tcp(SERVER, (WAN, 7000));
    for packet in
        [stray.clone().ack(1, 1), stray.clone().syn_ack(1, 1), stray.clone().rst(1), stray.fin(1, 1)]
    {
        assert_eq!(w.unclaimed(&packet), Out::Passed);
    }
}

#[test]
fn a_midstream_segment_right_after_the_start_is_not_refused() {
    // A refusal would end a connection that its device can still take up again.
    let mut w = World::new();
    w.now = nat_core::time::Timestamp::from_secs(5010);
    let stray = tcp(SERVER, OUTSIDE).data(2000, 1000, 100);
    assert_eq!(w.wan(&stray), Out::Passed);
    assert_eq!(w.unclaimed(&stray), Out::Dropped(DropReason::AfterStart));
    w.lan(&up().ack(1000, 2000)).sent();
    assert_eq!(w.wan(&stray), sent(&stray.to(A, 40_000)));
    w.now = nat_core::time::Timestamp::from_secs(5000 + 600);
    assert_eq!(w.unclaimed(&tcp(SERVER, (WAN, 7000)).ack(1, 1)), Out::Passed);
}

#[test]
fn rfc5382_req5_each_state_has_its_timer() {
    let mut w = World::new();
    w.lan(&up().syn(100)).sent();
    assert_eq!(w.left(), 240);
    w.wan(&down().syn_ack(500, 101)).sent();
    assert_eq!(w.left(), 240);
    w.lan(&up().ack(101, 501)).sent();
    assert_eq!(w.left(), 7440); // 2 hours 4 minutes
    w.advance(7439);
    w.wan(&down().ack(501, 101)).sent();
    assert_eq!(w.left(), 7440);
    w.lan(&up().fin(101, 501)).sent();
    assert_eq!(w.left(), 7440); // half closed
    w.wan(&down().fin(501, 102)).sent();
    assert_eq!(w.left(), 240);
    w.advance(240);
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn rfc5382_req5_the_timers_are_configurable() {
    let secs = Duration::from_secs;
    let timeouts = Timeouts {
        tcp_established: secs(9000),
        tcp_transitory: secs(300),
        tcp_reset: secs(250),
        ..Timeouts::default()
    };
    let mut w = World::with(Policy { timeouts, ..Policy::default() });
    w.lan(&up().syn(100)).sent();
    assert_eq!(w.left(), 300);
    w.wan(&down().syn_ack(500, 101)).sent();
    w.lan(&up().ack(101, 501)).sent();
    assert_eq!(w.left(), 9000);
    w.wan(&down().rst(501)).sent();
    assert_eq!(w.left(), 250);
}

#[test]
fn rfc5382_req7_ports_are_never_overloaded() {
    let mut w = World::new();
    let mut given = std::collections::BTreeSet::new();
    for host in 10..110 {
        let port = w.lan(&tcp(([192, 168, 1, host].into(), 40_000), SERVER).syn(1)).sent().src().1;
        assert!(given.insert(port), "{port} twice");
    }
    assert_eq!(w.engine.nat.sizes().mappings, 100);
}

#[test]
fn rfc5382_req9_unreachable_is_translated_for_tcp() {
    let mut w = World::new();
    let syn = up().syn(100);
    let quote = w.lan(&syn).sent();
    for code in [0, 1, 3, 13] {
        let e = error(3, code, HOP, WAN, &quote.0);
        assert_eq!(w.wan(&e), sent(&error(3, code, HOP, A, &syn.bytes())));
        let e = error(3, code, HOP, WAN, &quote.0[..28]);
        assert_eq!(w.wan(&e), sent(&error(3, code, HOP, A, &syn.head(8))));
    }
}

#[test]
fn rfc5382_req10_icmp_does_not_end_a_connection() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    let quote = w.lan(&up().data(101, 501, 100)).sent().0;
    w.advance(50);
    let before = w.sessions();
    for (kind, code) in [(3, 0), (3, 1), (3, 2), (3, 3), (11, 0), (12, 0)] {
        w.wan(&error(kind, code, HOP, WAN, &quote)).sent();
    }
    assert_eq!(w.sessions(), before);
}

#[test]
fn tcp_resets_and_answers_from_nowhere_make_no_state() {
    let mut w = World::new();
    for packet in [up().rst(1), up().rst_ack(1, 1), up().syn_ack(1, 1)] {
        assert_eq!(w.lan(&packet), Out::Dropped(DropReason::NoSession));
    }
    let mut w = World::forwards(&[forward(Protocol::Tcp, 40_000, 40_000, A, 40_000)]);
    for packet in [down().rst(1), down().rst_ack(1, 1), down().syn_ack(1, 1)] {
        assert_eq!(w.wan(&packet), Out::Dropped(DropReason::NoSession));
    }
    assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (0, 0));
}
