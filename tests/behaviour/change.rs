//! The WAN address comes, goes and changes.

use nat_core::decision::{DropReason, Effect, Note, Outcome};
use nat_core::flow::Protocol;

use crate::packets::{A, B, HOP, NEW_WAN, S, T, WAN, error, ping, tcp, udp};
use crate::world::{Out, World, forward, sent};

#[test]
fn after_a_change_new_mappings_use_the_new_address_and_nothing_the_old() {
    let mut w = World::new();
    let packet = udp((A, 40_000), (S, 53));
    let quote = w.lan(&packet).sent().0;
    w.connect((A, 40_001), (S, 443));
    w.router(&udp((WAN, 40_002), (S, 53)));
    w.lan(&ping(A, S, 7)).sent();
    w.engine.nat.set_address(Some(NEW_WAN));
    assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (0, 0));
    w.transmits();
    assert_eq!(w.lan(&packet), sent(&packet.from(NEW_WAN, 40_000)));
    let answer = udp((S, 53), (NEW_WAN, 40_000));
    assert_eq!(w.wan(&answer), sent(&answer.to(A, 40_000)));
    assert_eq!(w.wan(&udp((S, 53), (WAN, 40_000))), Out::Passed); // some other host's
    assert_eq!(w.wan(&error(3, 3, HOP, NEW_WAN, &quote)), Out::Dropped(DropReason::UnknownQuote));
    assert_eq!(w.lan(&udp((B, 40_002), (S, 53))).sent().src(), (NEW_WAN, 40_002));
}

#[test]
fn devices_are_told_by_an_exact_reset() {
    let mut w = World::new();
    w.connect((A, 40_000), (S, 443));
    w.wan(&tcp((S, 443), (WAN, 40_000)).data(501, 101, 1000)).sent();
    w.lan(&tcp((A, 40_000), (S, 443)).data(101, 1501, 200)).sent();
    w.engine.nat.set_address(Some(NEW_WAN));
    let told = w.transmits();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].src(), told[0].dst()), ((S, 443), (A, 40_000)));
    let tcp = &told[0].0[20..];
    assert_eq!(tcp[4..12], [&1501u32.to_be_bytes()[..], &301u32.to_be_bytes()].concat());
    assert_eq!(tcp[13], 0x14); // RST, ACK
    assert_eq!(w.notes(Note::ResetSent), 1);
}

#[test]
fn only_open_connections_of_devices_are_reset() {
    let mut w = World::new();
    w.lan(&tcp((A, 1000), (S, 443)).syn(1)).sent(); // unanswered
    w.connect((A, 1001), (S, 443));
    w.lan(&tcp((A, 1001), (S, 443)).rst(101)).sent(); // over
    w.router(&tcp((WAN, 1002), (S, 443)).syn(1)); // the router's
    w.lan(&udp((A, 1003), (S, 443))).sent();
    w.engine.nat.set_address(Some(NEW_WAN));
    assert_eq!(w.effects(), []);
}

#[test]
fn both_devices_of_a_hairpinned_connection_are_told() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 80, 80, B, 80)]);
    w.across(&tcp((A, 4000), (WAN, 80)).syn(100)).sent();
    w.across(&tcp((B, 80), (WAN, 4000)).syn_ack(500, 101)).sent();
    w.across(&tcp((A, 4000), (WAN, 80)).ack(101, 501)).sent();
    w.engine.nat.set_address(Some(NEW_WAN));
    let mut told: Vec<_> = w.transmits().iter().map(|t| (t.src(), t.dst())).collect();
    told.sort();
    assert_eq!(told, [((WAN, 80), (A, 4000)), ((WAN, 4000), (B, 80))]);
}

#[test]
fn losing_and_regaining_the_same_address_keeps_everything() {
    let mut w = World::new();
    let packet = udp((A, 40_000), (S, 53));
    w.lan(&packet).sent();
    w.connect((A, 40_001), (S, 443));
    let before = w.sessions();
    w.engine.nat.set_address(None);
    assert_eq!(w.lan(&packet), Out::Dropped(DropReason::NoAddress));
    w.engine.nat.set_address(Some(WAN));
    w.engine.nat.set_address(Some(WAN));
    assert_eq!((w.sessions(), w.effects()), (before, vec![]));
    assert_eq!(w.lan(&packet), sent(&packet.from(WAN, 40_000)));
}

#[test]
fn without_an_address_the_router_shows_no_device_either() {
    let mut w = World::new();
    w.connect((A, 40_000), (S, 443));
    let seen = w.wan(&tcp((S, 443), (WAN, 40_000)).ack(501, 101)).sent().0;
    w.engine.nat.set_address(None);
    let reset = tcp((A, 40_000), (S, 443)).rst_ack(101, 501); // made by the firewall in the device's name
    assert_eq!(w.router(&reset), Out::Dropped(DropReason::NoAddress));
    assert_eq!(w.router(&error(3, 1, WAN, S, &seen)), Out::Dropped(DropReason::NoAddress));
}

#[test]
fn another_address_after_a_gap_ends_everything() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    w.connect((A, 40_001), (S, 443));
    w.engine.nat.set_address(None);
    w.engine.nat.set_address(Some(NEW_WAN));
    assert_eq!((w.sessions().len(), w.transmits().len()), (0, 1));
}

#[test]
fn a_syn_held_for_the_old_address_is_not_answered() {
    let mut w = World::new();
    let Out::Held(hold) = w.unclaimed(&tcp((S, 5), (WAN, 7000)).syn(500)) else { panic!("not held") };
    w.engine.nat.set_address(Some(NEW_WAN));
    assert_eq!(w.effects(), [Effect::Release { hold, outcome: Outcome::Drop }]);
    w.advance(60);
    assert_eq!((w.effects(), w.engine.nat.sizes().held), (vec![], 0));
}

#[test]
fn timers_of_ended_sessions_do_not_disturb_new_ones() {
    let mut w = World::new();
    for address in [NEW_WAN, WAN, NEW_WAN, WAN] {
        for port in 1..100 {
            w.lan(&udp((A, port), (S, 53))).sent();
        }
        w.advance(150);
        w.engine.nat.set_address(Some(address));
    }
    w.lan(&udp((A, 40_000), (T, 53))).sent();
    w.advance(299);
    assert_eq!(w.sessions().len(), 1);
    w.advance(1);
    assert_eq!((w.sessions().len(), w.engine.nat.poll_timeout()), (0, None));
}
