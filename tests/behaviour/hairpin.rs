//! One device reaches another through the WAN address (RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7).

use nat_core::decision::{DropReason, Note, TcpProgress};
use nat_core::flow::{Protocol, Tuple};
use nat_core::policy::{Filtering, Limits, Policy};
use nat_core::session::SessionState;

use crate::packets::{A, B, End, S, WAN, error, ping, tcp, udp};
use crate::world::{Out, World, endpoint, forward, sent};

/// The devices' endpoints, and what the other side sees of them.
const ALICE: End = (A, 4000);
const BOB: End = (B, 5000);
const ALICE_OUTSIDE: End = (WAN, 4000);
const BOB_OUTSIDE: End = (WAN, 5000);

fn between(a: End, b: End) -> Tuple {
    Tuple { protocol: Protocol::Udp, src: endpoint(a), dst: endpoint(b) }
}

#[test]
fn rfc4787_req9_the_receiver_sees_the_senders_external_endpoint() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp(BOB, (S, 53))).sent();
    let packet = udp(ALICE, BOB_OUTSIDE);
    assert_eq!(w.across(&packet), sent(&packet.from(WAN, 4000).to(B, 5000)));
    let reply = udp(BOB, ALICE_OUTSIDE);
    assert_eq!(w.across(&reply), sent(&reply.from(WAN, 5000).to(A, 4000)));
    assert_eq!(w.engine.nat.counters().hairpin.packets, 2);
}

#[test]
fn rfc4787_req9_the_first_pass_changes_the_destination_and_the_second_the_source() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp(BOB, (S, 53))).sent();
    let packet = udp(ALICE, BOB_OUTSIDE);
    assert_eq!(w.hairpin_in(&packet), sent(&packet.to(B, 5000)));
    let out = w.at(natd::engine::Stage::HairpinOut, &packet.to(B, 5000).bytes());
    assert_eq!(out, sent(&packet.to(B, 5000).from(WAN, 4000)));
}

#[test]
fn rfc4787_req9_the_external_endpoint_is_the_one_that_servers_see() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp((B, 4000), (S, 53))).sent(); // takes Alice's port
    w.lan(&udp(BOB, (S, 53))).sent();
    let seen = w.lan(&udp(ALICE, (S, 53))).sent().src();
    assert_ne!(seen.1, 4000);
    assert_eq!(w.across(&udp(ALICE, BOB_OUTSIDE)).sent().src(), seen);
}

#[test]
fn rfc4787_req9_filtering_holds_between_devices_too() {
    let mut w = World::new(); // address-dependent
    w.lan(&udp(BOB, (S, 53))).sent();
    assert_eq!(w.across(&udp(ALICE, BOB_OUTSIDE)), Out::Dropped(DropReason::HairpinRefused));
    // Hole punching: what Alice sent opens her side, and after Bob's own packet both talk.
    let punch = udp(BOB, ALICE_OUTSIDE);
    assert_eq!(w.across(&punch), sent(&punch.from(WAN, 5000).to(A, 4000)));
    let packet = udp(ALICE, BOB_OUTSIDE);
    assert_eq!(w.across(&packet), sent(&packet.from(WAN, 4000).to(B, 5000)));
}

#[test]
fn rfc4787_req9_conntrack_learns_both_devices_as_they_are() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp(BOB, (S, 53))).sent();
    w.across(&udp(ALICE, BOB_OUTSIDE)).sent();
    assert_eq!(w.admission.unwrap().original, between(ALICE, BOB));
    w.across(&udp(ALICE, BOB_OUTSIDE)).sent();
    assert_eq!(w.admission, None);
    w.across(&udp(BOB, ALICE_OUTSIDE)).sent();
    assert_eq!(w.admission, None);
    w.advance(100);
    w.across(&udp(BOB, ALICE_OUTSIDE)).sent();
    assert_eq!(w.admission.unwrap().original, between(ALICE, BOB));
}

#[test]
fn rfc4787_req9_it_can_be_switched_off() {
    let mut w = World::with(Policy {
        hairpin: false,
        filtering: Filtering::EndpointIndependent,
        ..Policy::default()
    });
    w.lan(&udp(BOB, (S, 53))).sent();
    assert_eq!(w.across(&udp(ALICE, BOB_OUTSIDE)), Out::Dropped(DropReason::HairpinRefused));
    assert_eq!(w.across(&udp(ALICE, (WAN, 53))), Out::Passed); // the router's own services stay
}

#[test]
fn rfc4787_req9_to_a_forward_and_back() {
    let mut w = World::forwards(&[forward(Protocol::Udp, 8000, 8010, B, 9000)]);
    let packet = udp(ALICE, (WAN, 8003));
    assert_eq!(w.across(&packet), sent(&packet.from(WAN, 4000).to(B, 9003)));
    let reply = udp((B, 9003), ALICE_OUTSIDE);
    assert_eq!(w.across(&reply), sent(&reply.from(WAN, 8003).to(A, 4000)));
}

#[test]
fn rfc4787_req9_two_forwards_to_one_endpoint_answer_each_from_its_own_port() {
    let mut w = World::forwards(&[
        forward(Protocol::Udp, 8000, 8000, B, 9000),
        forward(Protocol::Udp, 8080, 8080, B, 9000),
    ]);
    for (alice, port) in [(4001, 8080), (4002, 8000), (4003, 8080)] {
        let packet = udp((A, alice), (WAN, port));
        assert_eq!(w.across(&packet), sent(&packet.from(WAN, alice).to(B, 9000)));
        let reply = udp((B, 9000), (WAN, alice));
        assert_eq!(w.across(&reply), sent(&reply.from(WAN, port).to(A, alice)));
    }
}

#[test]
fn rfc4787_req9_from_a_forwarded_endpoint() {
    let mut w = World::with(Policy {
        forwards: vec![forward(Protocol::Udp, 8000, 8000, B, 9000)],
        filtering: Filtering::EndpointIndependent,
        ..Policy::default()
    });
    w.lan(&udp(ALICE, (S, 53))).sent();
    let packet = udp((B, 9000), ALICE_OUTSIDE);
    assert_eq!(w.across(&packet), sent(&packet.from(WAN, 8000).to(A, 4000)));
}

#[test]
fn rfc4787_req9_a_device_reaches_itself() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp(ALICE, (S, 53))).sent();
    // Its own mapping, from another port and from the very same.
    let packet = udp((A, 4001), ALICE_OUTSIDE);
    assert_eq!(w.across(&packet), sent(&packet.from(WAN, 4001).to(A, 4000)));
    let packet = udp(ALICE, ALICE_OUTSIDE);
    assert_eq!(w.across(&packet), sent(&packet.from(WAN, 4000).to(A, 4000)));
}

#[test]
fn rfc4787_req9_the_routers_services_stay_reachable() {
    let mut w = World::new();
    w.listen(&[80], &[53]);
    for packet in
        [udp(ALICE, (WAN, 53)), tcp(ALICE, (WAN, 80)).syn(1), ping(A, WAN, 7), tcp(ALICE, (WAN, 9)).syn(1)]
    {
        assert_eq!(w.across(&packet), Out::Passed, "{packet:?}");
    }
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn rfc4787_req9_the_routers_services_stay_reachable_on_a_port_that_a_device_has() {
    let mut w = World::new();
    w.lan(&tcp((B, 8080), (S, 80)).syn(1)).sent();
    w.listen(&[8080], &[]);
    assert_eq!(w.across(&tcp(ALICE, (WAN, 8080)).syn(1)), Out::Passed);
    assert_eq!(w.sessions().len(), 1, "{:?}", w.sessions());
}

#[test]
fn rfc5382_req8_a_connection_between_devices_opens_and_closes() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 80, 80, B, 8080)]);
    let up = || tcp(ALICE, (WAN, 80));
    let down = || tcp((B, 8080), ALICE_OUTSIDE);
    let syn = up().syn(100);
    assert_eq!(w.across(&syn), sent(&syn.from(WAN, 4000).to(B, 8080)));
    assert_eq!(w.admission.unwrap().tcp, Some(TcpProgress::Opening));
    let answer = down().syn_ack(500, 101);
    assert_eq!(w.across(&answer), sent(&answer.from(WAN, 80).to(A, 4000)));
    w.across(&up().ack(101, 501)).sent();
    assert!(w.sessions().iter().all(|s| s.state == SessionState::Established), "{:?}", w.sessions());
    w.across(&up().data(101, 501, 100)).sent();
    w.across(&down().data(501, 201, 100)).sent();
    w.across(&up().fin(201, 601)).sent();
    w.across(&down().fin(601, 202)).sent();
    w.across(&up().ack(202, 602)).sent();
    assert!(w.sessions().iter().all(|s| s.state == SessionState::Closing), "{:?}", w.sessions());
    assert_eq!((w.sessions().len(), w.notes(Note::OutOfWindow)), (2, 0));
    w.advance(240);
    assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (0, 0));
}

#[test]
fn rfc5382_req8_simultaneous_open_between_devices() {
    let mut w = World::new(); // address-dependent: the first SYN is dropped, the second gets through
    w.lan(&tcp(ALICE, (S, 80)).syn(1)).sent();
    w.lan(&tcp(BOB, (S, 80)).syn(1)).sent();
    assert_eq!(w.across(&tcp(ALICE, BOB_OUTSIDE).syn(100)), Out::Dropped(DropReason::HairpinRefused));
    let syn = tcp(BOB, ALICE_OUTSIDE).syn(500);
    assert_eq!(w.across(&syn), sent(&syn.from(WAN, 5000).to(A, 4000)));
    w.across(&tcp(ALICE, BOB_OUTSIDE).syn_ack(100, 501)).sent();
    w.across(&tcp(BOB, ALICE_OUTSIDE).syn_ack(500, 101)).sent();
    w.across(&tcp(ALICE, BOB_OUTSIDE).data(101, 501, 5)).sent();
    let between = w.sessions().into_iter().filter(|s| s.remote.addr == WAN);
    assert!(between.clone().all(|s| s.state == SessionState::Established), "{:?}", w.sessions());
    assert_eq!(between.count(), 2);
}

#[test]
fn rfc5508_req7_errors_between_devices_show_neither_to_the_other() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp(BOB, (S, 53))).sent();
    let packet = udp(ALICE, BOB_OUTSIDE);
    let seen = w.across(&packet).sent();
    // Bob's host complains of Alice's packet, to where it seems to come from.
    let complaint = error(3, 3, B, WAN, &seen.0);
    assert_eq!(w.across(&complaint), sent(&error(3, 3, WAN, A, &packet.bytes())));
    let complaint = error(3, 3, B, WAN, &seen.0[..28]);
    assert_eq!(w.across(&complaint), sent(&error(3, 3, WAN, A, &packet.head(8))));
}

#[test]
fn rfc5508_req7_errors_between_devices_must_quote_what_was_sent() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 80, 80, B, 80)]);
    w.across(&tcp(ALICE, (WAN, 80)).syn(100)).sent();
    let forged = tcp(ALICE_OUTSIDE, (B, 80)).syn(0xdead).bytes();
    let out = w.across(&error(3, 3, B, WAN, &forged));
    assert!(!matches!(out, Out::Sent(_)), "{out:?}");
}

#[test]
fn rfc5508_req7_an_error_that_the_router_makes_between_the_passes_is_translated() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp(BOB, (S, 53))).sent();
    let packet = udp(ALICE, BOB_OUTSIDE);
    let middle = w.hairpin_in(&packet).sent();
    let e = error(3, 1, crate::packets::ROUTER, A, &middle.0);
    let out = w.at(natd::engine::Stage::HairpinOut, &e.bytes());
    assert_eq!(out, sent(&error(3, 1, WAN, A, &packet.bytes())));
}

#[test]
fn a_quota_holds_between_devices_too() {
    let limits = Limits { sessions_per_device: 1, ..Limits::default() };
    let mut w = World::with(Policy {
        limits,
        forwards: vec![forward(Protocol::Udp, 8000, 8000, B, 9000)],
        ..Policy::default()
    });
    w.lan(&udp(ALICE, (S, 53))).sent();
    assert_eq!(w.across(&udp(ALICE, (WAN, 8000))), Out::Dropped(DropReason::DeviceQuota));
    assert_eq!(w.transmits().len(), 1);
}
