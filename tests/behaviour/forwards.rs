//! Port forwards and the exposed host.

use nat_core::decision::DropReason;
use nat_core::flow::Protocol;
use nat_core::policy::{Filtering, Forward, Limits, Policy};

use crate::packets::{A, B, S, T, WAN, tcp, udp};
use crate::world::{Out, World, forward, sent};

fn udp_forward(first: u16, last: u16, internal: u16) -> Forward {
    forward(Protocol::Udp, first, last, A, internal)
}

#[test]
fn a_forward_lets_everyone_in_whatever_the_filtering() {
    for filtering in [Filtering::EndpointIndependent, Filtering::AddressAndPortDependent] {
        let mut w =
            World::with(Policy { forwards: vec![udp_forward(80, 80, 8080)], filtering, ..Policy::default() });
        for sender in [(S, 1), (T, 2), (T, 3)] {
            let packet = udp(sender, (WAN, 80));
            assert_eq!(w.wan(&packet), sent(&packet.to(A, 8080)));
            let reply = udp((A, 8080), sender);
            assert_eq!(w.lan(&reply), sent(&reply.from(WAN, 80)));
        }
    }
}

#[test]
fn a_range_keeps_its_order_and_ends_where_it_says() {
    let mut w = World::forwards(&[udp_forward(8000, 8010, 9000)]);
    for n in [0, 1, 10] {
        let packet = udp((S, 1), (WAN, 8000 + n));
        assert_eq!(w.wan(&packet), sent(&packet.to(A, 9000 + n)));
    }
    for port in [7999, 8011, 9000] {
        assert_eq!(w.wan(&udp((S, 1), (WAN, port))), Out::Passed);
    }
    assert_eq!(w.wan(&tcp((S, 1), (WAN, 8000)).syn(1)), Out::Passed); // another protocol
}

#[test]
fn a_forwarded_endpoint_sends_from_the_forwards_port() {
    let mut w = World::forwards(&[udp_forward(8000, 8010, 9000)]);
    let packet = udp((A, 9003), (S, 53));
    assert_eq!(w.lan(&packet), sent(&packet.from(WAN, 8003)));
    // And is open to everyone from then on.
    let stranger = udp((T, 9), (WAN, 8003));
    assert_eq!(w.wan(&stranger), sent(&stranger.to(A, 9003)));
    // The same port of another device is not.
    assert_eq!(w.lan(&udp((B, 9003), (S, 53))).sent().src().1, 9003);
}

#[test]
fn a_forwarded_port_is_given_to_nobody_else() {
    let mut w = World::forwards(&[udp_forward(8000, 8010, 8000)]);
    for _ in 0..2 {
        let port = w.lan(&udp((B, 8003), (S, 53))).sent().src().1;
        assert!(!(8000..=8010).contains(&port));
        let port = w.router(&udp((WAN, 8004), (S, 53))).sent().src().1;
        assert!(!(8000..=8010).contains(&port));
    }
}

#[test]
fn two_forwards_lead_to_one_endpoint() {
    let mut w = World::forwards(&[udp_forward(80, 80, 8080), udp_forward(81, 81, 8080)]);
    for (sender, port) in [((S, 1), 81), ((T, 1), 80), ((S, 2), 80)] {
        let packet = udp(sender, (WAN, port));
        assert_eq!(w.wan(&packet), sent(&packet.to(A, 8080)));
        let reply = udp((A, 8080), sender);
        assert_eq!(w.lan(&reply), sent(&reply.from(WAN, port)));
    }
    // One peer through both at once cannot be told apart: refused, not confused.
    assert_eq!(w.wan(&udp((S, 1), (WAN, 80))), Out::Dropped(DropReason::Conflict));
    let reply = udp((A, 8080), (S, 1));
    assert_eq!(w.lan(&reply), sent(&reply.from(WAN, 81)));
}

#[test]
fn a_forward_works_again_after_its_mapping_ended() {
    let mut w = World::forwards(&[udp_forward(80, 80, 8080), udp_forward(81, 81, 8080)]);
    for _ in 0..3 {
        for port in [81, 80] {
            let packet = udp((S, port), (WAN, port));
            assert_eq!(w.wan(&packet), sent(&packet.to(A, 8080)));
        }
        w.advance(1000);
        assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (0, 0));
    }
}

#[test]
fn a_tcp_forward_opens_from_outside() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 443, 443, A, 8443)]);
    let syn = tcp((S, 5000), (WAN, 443)).syn(100);
    assert_eq!(w.wan(&syn), sent(&syn.to(A, 8443)));
    let answer = tcp((A, 8443), (S, 5000)).syn_ack(500, 101);
    assert_eq!(w.lan(&answer), sent(&answer.from(WAN, 443)));
    w.wan(&tcp((S, 5000), (WAN, 443)).ack(101, 501)).sent();
    assert_eq!(w.left(), 7440);
}

#[test]
fn a_refused_connection_to_a_forward_is_told_to_the_caller() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 443, 443, A, 8443)]);
    w.wan(&tcp((S, 5000), (WAN, 443)).syn(100)).sent();
    let reset = tcp((A, 8443), (S, 5000)).rst_ack(0, 101);
    assert_eq!(w.lan(&reset), sent(&reset.from(WAN, 443)));
    assert_eq!(w.left(), 240);
}

#[test]
fn inbound_packets_alone_do_not_keep_a_session() {
    let mut w = World::forwards(&[udp_forward(80, 80, 8080)]);
    w.wan(&udp((S, 1), (WAN, 80))).sent();
    w.advance(200);
    w.wan(&udp((S, 1), (WAN, 80))).sent();
    assert_eq!(w.left(), 100);
}

#[test]
fn the_exposed_host_gets_what_nothing_else_claims() {
    let mut w = World::with(Policy {
        exposed_host: Some(B),
        forwards: vec![udp_forward(80, 80, 8080)],
        ..Policy::default()
    });
    w.listen(&[22], &[53]);
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    for (packet, out) in [
        (udp((T, 1), (WAN, 80)), Some((A, 8080))),
        (udp((T, 1), (WAN, 7)), Some((B, 7))),
        (tcp((T, 1), (WAN, 7)).syn(1), Some((B, 7))),
        (udp((T, 1), (WAN, 53)), None),
        (tcp((T, 1), (WAN, 22)).syn(1), None),
        (crate::packets::ping(T, WAN, 7), None),
        (udp((S, 53), (WAN, 40_000)), Some((A, 40_000))),
    ] {
        let expected = out.map_or(Out::Passed, |(addr, port)| sent(&packet.to(addr, port)));
        assert_eq!(w.wan(&packet), expected, "{packet:?}");
    }
}

#[test]
fn the_exposed_host_is_open_whether_it_spoke_first_or_not() {
    // RFC 4787 REQ-11: the same behaviour in whichever order things happen.
    for speaks_first in [false, true] {
        let mut w = World::with(Policy { exposed_host: Some(B), ..Policy::default() });
        if speaks_first {
            w.lan(&udp((B, 7000), (S, 53))).sent();
        }
        let packet = udp((T, 1), (WAN, 7000));
        assert_eq!(w.wan(&packet), sent(&packet.to(B, 7000)), "speaks first: {speaks_first}");
    }
}

#[test]
fn a_forward_wins_over_a_wildcard_listener_and_leaves_the_others_alone() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 443, 443, A, 8443)]);
    w.listen(&[443, 22], &[]);
    let syn = tcp((S, 5000), (WAN, 443)).syn(1);
    assert_eq!(w.wan(&syn), sent(&syn.to(A, 8443)));
    assert_eq!(w.wan(&tcp((S, 5000), (WAN, 22)).syn(1)), Out::Passed);
}

#[test]
fn a_reload_ends_what_it_no_longer_allows_and_keeps_the_rest() {
    let mut w = World::forwards(&[udp_forward(80, 80, 8080), udp_forward(90, 90, 9090)]);
    w.lan(&udp((B, 5000), (S, 53))).sent();
    w.wan(&udp((S, 1), (WAN, 80))).sent();
    w.wan(&udp((S, 1), (WAN, 90))).sent();
    let policy = Policy {
        forwards: vec![udp_forward(90, 90, 9090), udp_forward(5000, 5000, 5000)],
        ..Policy::default()
    };
    w.engine.nat.set_policy(policy);
    assert_eq!(w.wan(&udp((S, 1), (WAN, 80))), Out::Passed);
    w.wan(&udp((S, 1), (WAN, 90))).sent();
    // Port 5000 was Bob's mapping and is now Alice's forward.
    let packet = udp((S, 53), (WAN, 5000));
    assert_eq!(w.wan(&packet), sent(&packet.to(A, 5000)));
    assert_eq!(w.sessions().len(), 2);
}

#[test]
fn a_new_forward_opens_the_mapping_that_its_endpoint_already_has() {
    let mut w = World::new();
    w.lan(&udp((A, 5000), (S, 53))).sent();
    assert_eq!(w.wan(&udp((T, 1), (WAN, 5000))), Out::Dropped(DropReason::Filtered));
    w.engine.nat.set_policy(Policy { forwards: vec![udp_forward(5000, 5000, 5000)], ..Policy::default() });
    let packet = udp((T, 1), (WAN, 5000));
    assert_eq!(w.wan(&packet), sent(&packet.to(A, 5000)));
    let answer = udp((S, 53), (WAN, 5000));
    assert_eq!(w.wan(&answer), sent(&answer.to(A, 5000)));
}

#[test]
fn a_reload_of_timeouts_and_limits_counts_from_the_next_packet() {
    let mut w = World::new();
    w.lan(&udp((A, 5000), (S, 53))).sent();
    let mut policy = Policy { limits: Limits { sessions: 1, ..Limits::default() }, ..Policy::default() };
    policy.timeouts.udp = std::time::Duration::from_secs(130);
    w.engine.nat.set_policy(policy);
    w.lan(&udp((A, 5000), (S, 53))).sent();
    assert_eq!(w.left(), 130);
    assert_eq!(w.lan(&udp((A, 5000), (T, 53))), Out::Dropped(DropReason::TableFull));
    w.advance(130);
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn strangers_who_are_not_answered_leave_the_device_room_for_its_own_sessions() {
    let limits = Limits { sessions_per_device: 64, ..Limits::default() };
    let mut w =
        World::with(Policy { forwards: vec![udp_forward(80, 80, 8080)], limits, ..Policy::default() });
    let got_in =
        (0..200).filter(|n| w.wan(&udp((T, 1000 + n), (WAN, 80))) != Out::Dropped(DropReason::DeviceQuota));
    assert_eq!(got_in.count(), 16, "one session in four");
    let own = udp((A, 5000), (S, 53));
    assert_eq!(w.lan(&own), sent(&own.from(WAN, 5000)));
    // One that is answered does not count as a stranger's any more.
    let reply = udp((A, 8080), (T, 1000));
    assert_eq!(w.lan(&reply), sent(&reply.from(WAN, 80)));
    let next = udp((T, 1200), (WAN, 80));
    assert_eq!(w.wan(&next), sent(&next.to(A, 8080)));
    // And when their sessions are over there is room again.
    w.advance(301);
    for n in 0..16 {
        let again = udp((T, 2000 + n), (WAN, 80));
        assert_eq!(w.wan(&again), sent(&again.to(A, 8080)), "{n}");
    }
}
