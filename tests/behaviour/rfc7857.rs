//! RFC 7857: updates to the behavioural requirements.

use std::collections::BTreeSet;

use nat_core::decision::{DropReason, Note};
use nat_core::policy::{Filtering, Policy, PortRange};
use nat_core::session::SessionState;

use crate::packets::{A, B, End, Packet, S, T, WAN, error, ping, tcp, udp};
use crate::world::{Out, World, sent};

const DEVICE: End = (A, 40_000);
const SERVER: End = (S, 443);
const OUTSIDE: End = (WAN, 40_000);

fn up() -> Packet {
    tcp(DEVICE, SERVER)
}

fn down() -> Packet {
    tcp(SERVER, OUTSIDE)
}

#[test]
fn rfc7857_2_1_both_fins_start_the_transitory_timer_and_one_does_not() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.wan(&down().fin(501, 101)).sent();
    assert_eq!(w.left(), 7440);
    w.lan(&up().fin(101, 502)).sent();
    assert_eq!(w.left(), 240);
}

#[test]
fn rfc7857_2_2_an_exact_reset_is_forwarded_and_the_mapping_stays_four_minutes() {
    let reset = down().rst(501);
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    assert_eq!(w.wan(&reset), sent(&reset.to(A, 40_000)));
    assert_eq!((w.sessions()[0].state, w.left()), (SessionState::Reset, 240));
    w.advance(239);
    assert_ne!(w.lan(&tcp((B, 40_000), SERVER).syn(1)).sent().src().1, 40_000);
    w.advance(1);
    assert!(w.sessions().iter().all(|s| s.internal.addr == B));
    // From the inside too.
    let reset = up().rst(101);
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    assert_eq!(w.lan(&reset), sent(&reset.from(WAN, 40_000)));
    assert_eq!((w.sessions()[0].state, w.left()), (SessionState::Reset, 240));
}

#[test]
fn rfc7857_2_2_data_after_a_reset_restores_the_session() {
    for from_inside in [true, false] {
        let mut w = World::new();
        w.connect(DEVICE, SERVER);
        w.wan(&down().rst(501)).sent();
        w.advance(200);
        if from_inside {
            w.lan(&up().data(101, 501, 10)).sent();
        } else {
            w.wan(&down().data(501, 101, 10)).sent();
        }
        assert_eq!((w.sessions()[0].state, w.left()), (SessionState::Established, 7440));
    }
}

#[test]
fn rfc7857_3_port_overlapping_is_not_done() {
    let mut w = World::new();
    let first = w.lan(&udp((A, 40_000), (S, 53))).sent().src();
    let second = w.lan(&udp((B, 40_000), (T, 53))).sent().src();
    assert_ne!(first, second);
}

#[test]
fn rfc7857_5_mappings_do_not_depend_on_the_protocol() {
    let mut w = World::new();
    w.lan(&tcp((B, 40_000), (S, 53)).syn(1)).sent();
    assert_eq!(w.lan(&udp((A, 40_000), (S, 53))).sent().src().1, 40_000);
}

#[test]
fn rfc7857_6_filtering_is_chosen_and_eim_holds_with_each() {
    for filtering in
        [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent]
    {
        let mut w = World::filtering(filtering);
        w.lan(&udp((B, 40_000), (T, 1))).sent();
        let port = w.lan(&udp((A, 40_000), (S, 53))).sent().src().1;
        assert_eq!(w.lan(&udp((A, 40_000), (T, 53))).sent().src().1, port);
    }
}

#[test]
fn rfc7857_7_1_outbound_errors_and_resets_do_not_refresh() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    let seen = w.wan(&udp((S, 53), (WAN, 40_000))).sent().0;
    w.advance(100);
    w.lan(&error(3, 3, A, S, &seen)).sent();
    assert_eq!(w.left(), 200);

    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.advance(100);
    w.lan(&up().rst(9_999_999)).sent(); // not exact
    assert_eq!(w.left(), 7340);
    w.lan(&up().rst(101)).sent();
    assert_eq!(w.left(), 240);
    for _ in 0..5 {
        w.advance(40);
        w.lan(&up().rst(101)).sent();
        w.wan(&down().rst(501)).sent();
    }
    assert_eq!(w.left(), 40);
}

#[test]
fn rfc7857_8_parity_is_kept_where_the_port_is_not() {
    let mut w = World::new();
    w.lan(&udp((B, 5004), (S, 1))).sent();
    w.lan(&udp((B, 5005), (S, 1))).sent();
    assert_eq!(w.lan(&udp((A, 5004), (S, 1))).sent().src().1 % 2, 0);
    assert_eq!(w.lan(&udp((A, 5005), (S, 1))).sent().src().1 % 2, 1);
}

#[test]
fn rfc7857_11_a_query_mapping_ends_with_its_last_session() {
    let mut w = World::new();
    w.lan(&ping(A, S, 7)).sent();
    w.advance(30);
    w.lan(&ping(A, T, 7)).sent();
    w.advance(30);
    assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (1, 1));
    w.advance(30);
    assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (0, 0));
}

#[test]
fn rfc7857_9_outside_ports_are_random() {
    // A thousand replacements: spread over the whole range, no order in them, another set with another seed.
    let draw = |seed: u8| -> Vec<u16> {
        let mut w = World::seeded(Policy::default(), [seed; 16]);
        w.lan(&udp((B, 40_000), (S, 1))).sent();
        (0..1000u32)
            .map(|n| {
                let [_, _, c, d] = (n + 256).to_be_bytes();
                w.lan(&udp(([10, 0, c, d].into(), 40_000), (S, 1))).sent().src().1
            })
            .collect()
    };
    let ports = draw(1);
    for quarter in 0..4 {
        let first = 1024 + quarter * 16_128;
        let range = PortRange::new(first, first.saturating_add(16_127)).unwrap();
        let count = ports.iter().filter(|&&port| range.contains(port)).count();
        assert!((180..320).contains(&count), "{count} of 1000 in {range:?}");
    }
    let rising = ports.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((430..570).contains(&rising), "{rising} of 999 rise");
    let near = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count();
    assert!(near < 30, "{near} of 999 are near the one before");
    let other: BTreeSet<u16> = draw(2).into_iter().collect();
    let common = ports.iter().filter(|port| other.contains(port)).count();
    assert!(common < 100, "{common} of 1000 with another seed too");
}

#[test]
fn rfc7857_2_2_an_inbound_reset_that_is_not_exact_refreshes_nothing() {
    let mut w = World::new();
    w.connect(DEVICE, SERVER);
    w.advance(100);
    w.wan(&down().rst(600)).sent();
    assert_eq!((w.left(), w.notes(Note::InexactReset)), (7340, 1));
    assert_eq!(w.wan(&down().rst(501 + 200_000)), Out::Dropped(DropReason::BogusReset));
    assert_eq!((w.left(), w.drops(DropReason::BogusReset)), (7340, 1));
}
