//! Spoofing changes nothing: the attacks of the yardstick (Y13 to Y16) and their relatives.

use nat_core::decision::{DropReason, Note};
use nat_core::flow::Protocol;
use nat_core::policy::Filtering;
use nat_core::session::SessionState;

use crate::packets::{A, B, End, HOP, Packet, ROUTER, S, T, WAN, error, tcp, too_big, udp};
use crate::world::{Out, World, forward, sent};

const DEVICE: End = (A, 40_000);
const SERVER: End = (S, 443);

fn up() -> Packet {
    tcp(DEVICE, SERVER)
}

fn down() -> Packet {
    tcp(SERVER, (WAN, 40_000))
}

#[test]
fn y13_a_reset_far_outside_the_window_is_dropped() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.advance(10);
    let before = w.sessions();
    for seq in [0, 500, 501 + 60_001, 501u32.wrapping_sub(60_000), 0x8000_0000, u32::MAX] {
        assert_eq!(w.wan(&down().rst(seq)), Out::Dropped(DropReason::BogusReset), "{seq}");
        assert_eq!(w.wan(&down().rst_ack(seq, 101)), Out::Dropped(DropReason::BogusReset), "{seq}");
    }
    let after = w.sessions();
    assert_eq!((after[0].state, after[0].deadline), (SessionState::Established, before[0].deadline));
}

#[test]
fn y14_a_reset_inside_the_window_but_not_exact_has_no_effect() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.advance(10);
    let before = w.sessions();
    for seq in [502, 5000, 501 + 59_999] {
        assert_eq!(w.wan(&down().rst(seq)), sent(&down().rst(seq).to(A, 40_000)));
    }
    assert_eq!((w.sessions()[0].state, w.sessions()[0].deadline), (before[0].state, before[0].deadline));
    assert_eq!(w.notes(Note::InexactReset), 3);
}

#[test]
fn y15_an_exact_reset_is_forwarded_and_the_connection_can_go_on() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.wan(&down().rst(501)).sent();
    assert_eq!((w.sessions()[0].state, w.left()), (SessionState::Reset, 240));
    w.advance(100);
    w.lan(&up().data(101, 501, 10)).sent();
    w.wan(&down().data(501, 111, 10)).sent();
    assert_eq!((w.sessions()[0].state, w.left()), (SessionState::Established, 7440));
}

#[test]
fn y15_a_reset_counts_as_exact_after_what_the_device_acknowledged() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.wan(&down().data(501, 101, 1000)).sent();
    w.lan(&up().ack(101, 1501)).sent();
    w.wan(&down().data(1501, 101, 1000)).sent(); // lost on the LAN
    w.wan(&down().rst(1501)).sent();
    assert_eq!(w.sessions()[0].state, SessionState::Reset);
}

#[test]
fn y16_an_error_that_quotes_tcp_out_of_the_window_is_dropped() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    let packet = up().data(101, 501, 1000);
    let quote = w.lan(&packet).sent().0;
    let before = w.sessions();
    for seq in [0xdead_beef, 99, 1102, 60_000] {
        let forged = tcp((WAN, 40_000), SERVER).data(seq, 501, 8).bytes();
        for sender in [S, T, HOP] {
            for code in [1, 3] {
                let out = w.wan(&error(3, code, sender, WAN, &forged));
                assert_eq!(out, Out::Dropped(DropReason::StaleQuote), "{seq}");
            }
            assert_eq!(w.wan(&too_big(1400, sender, WAN, &forged)), Out::Dropped(DropReason::StaleQuote));
        }
    }
    assert_eq!(w.sessions(), before);
    // A right one gets through, from anywhere.
    for sender in [S, T, HOP] {
        let out = w.wan(&too_big(1400, sender, WAN, &quote[..28]));
        assert_eq!(out, sent(&too_big(1400, sender, A, &packet.head(8))));
    }
    // What is acknowledged is no longer in flight.
    w.wan(&down().ack(501, 1101)).sent();
    assert_eq!(w.wan(&too_big(1400, HOP, WAN, &quote)), Out::Dropped(DropReason::StaleQuote));
}

#[test]
fn y16_an_error_about_a_connection_on_which_the_device_never_spoke_is_dropped() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 80, 80, A, 80)]);
    w.wan(&tcp((S, 5000), (WAN, 80)).syn(500)).sent();
    let forged = tcp((WAN, 80), (S, 5000)).data(0xdead_beef, 501, 8).bytes();
    assert_eq!(w.wan(&error(3, 3, HOP, WAN, &forged)), Out::Dropped(DropReason::StaleQuote));
}

#[test]
fn y16_an_error_from_inside_about_tcp_out_of_the_window_is_dropped() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.wan(&down().data(501, 101, 1000)).sent();
    let quote = |seq| tcp(SERVER, DEVICE).data(seq, 101, 8).bytes();
    w.lan(&error(3, 3, A, S, &quote(501))).sent();
    assert_eq!(w.lan(&error(3, 3, A, S, &quote(70_000))), Out::Dropped(DropReason::StaleQuote));
}

#[test]
fn redan_a_forged_syn_ack_or_data_after_a_forged_reset_opens_nothing() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.wan(&down().rst(77)); // arbitrary
    for forged in [down().syn_ack(9, 9), down().data(99_999, 7, 10), down().syn(9)] {
        w.wan(&forged);
    }
    assert_eq!((w.sessions()[0].state, w.left()), (SessionState::Established, 7440));
    w.lan(&up().data(101, 501, 10)).sent();
    w.wan(&down().data(501, 111, 10)).sent();
    assert_eq!(w.sessions()[0].state, SessionState::Established);
}

#[test]
fn a_forged_syn_does_not_change_a_connection_that_is_being_opened() {
    let mut w = World::new();
    w.lan(&up().syn(100)).sent();
    w.wan(&down().syn(9)).sent(); // it might be simultaneous open
    w.wan(&down().syn(77)).sent(); // but it cannot change its mind
    w.wan(&down().syn_ack(500, 101)).sent();
    w.lan(&up().ack(101, 501)).sent();
    assert_eq!((w.sessions()[0].state, w.notes(Note::StraySyn)), (SessionState::Established, 1));
    w.wan(&down().data(501, 101, 100)).sent();
    assert_eq!(w.notes(Note::OutOfWindow), 0);
}

#[test]
fn a_forged_answer_to_a_syn_needs_its_sequence_number() {
    let mut w = World::new();
    w.lan(&up().syn(100)).sent();
    w.wan(&down().syn_ack(9, 99_999)).sent();
    assert_eq!(w.notes(Note::StraySyn), 1);
    assert_eq!(w.wan(&down().rst_ack(0, 99_999)), Out::Dropped(DropReason::BogusReset));
    w.wan(&down().rst_ack(0, 101)).sent();
    assert_eq!(w.sessions()[0].state, SessionState::Reset);
}

#[test]
fn a_packet_from_the_wan_with_an_address_of_the_lan_is_dropped() {
    for filtering in [Filtering::EndpointIndependent, Filtering::AddressDependent] {
        let mut w = World::filtering(filtering);
        w.lan(&udp(DEVICE, (S, 53))).sent();
        // Hairpin sessions exist, which such a packet would fit.
        w.lan(&udp((B, 50_000), (S, 53))).sent();
        w.across(&udp((B, 50_000), (WAN, 40_000)));
        let before = w.sessions();
        for src in [(B, 50_000), (A, 40_000), (ROUTER, 53), (WAN, 50_000), (WAN, 9)] {
            let out = w.wan(&udp(src, (WAN, 40_000)));
            assert!(matches!(out, Out::Dropped(_)), "{src:?}: {out:?}");
            assert_eq!(w.admission, None);
        }
        assert_eq!(w.sessions(), before);
    }
}

#[test]
fn dropped_packets_leave_no_state() {
    let mut w = World::new();
    w.lan(&udp(DEVICE, (S, 53))).sent();
    let before = (w.sessions(), w.engine.nat.sizes());
    w.wan(&udp((T, 53), (WAN, 40_000)));
    w.wan(&tcp((T, 53), (WAN, 40_000)).syn(1));
    w.wan(&error(3, 3, T, WAN, &udp((WAN, 1), (S, 53)).bytes()));
    w.lan(&tcp((B, 1), SERVER).rst(1));
    w.lan(&crate::packets::pong(B, S, 1));
    assert_eq!((w.sessions(), w.engine.nat.sizes()), before);
}
