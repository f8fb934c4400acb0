//! RFC 4787: NAT behavioural requirements for unicast UDP. Hairpinning (REQ-9) has a file of its own.

use std::collections::BTreeSet;

use std::time::Duration;

use nat_core::decision::DropReason;
use nat_core::policy::{Filtering, Limits, Policy, PortRange, Timeouts};
use natd::engine::{Arrival, Stage, decide};

use crate::packets::{A, B, HOP, S, T, WAN, error, ping, pong, tcp, udp};
use crate::world::{Out, World, sent};

#[test]
fn rfc4787_req1_mapping_is_endpoint_independent() {
    let mut w = World::new();
    for remote in [(S, 53), (S, 54), (T, 53), (T, 9999)] {
        let packet = udp((A, 40_000), remote);
        assert_eq!(w.lan(&packet), sent(&packet.from(WAN, 40_000)));
    }
    assert_eq!(w.engine.nat.sizes().mappings, 1);
}

#[test]
fn rfc4787_req1_mapping_is_endpoint_independent_after_a_collision() {
    let mut w = World::new();
    w.lan(&udp((B, 40_000), (T, 1))).sent();
    let first = w.lan(&udp((A, 40_000), (S, 53))).sent().src();
    assert_ne!(first, (WAN, 40_000));
    for remote in [(S, 54), (T, 53), (T, 1)] {
        let packet = udp((A, 40_000), remote);
        assert_eq!(w.lan(&packet), sent(&packet.from(WAN, first.1)));
    }
}

#[test]
fn rfc4787_req2_pooling_is_paired() {
    let mut w = World::new();
    for port in [500, 1024, 40_000, 65_535] {
        assert_eq!(w.lan(&udp((A, port), (S, 53))).sent().src(), (WAN, port));
    }
}

#[test]
fn rfc4787_req3_ports_are_never_overloaded() {
    let mut w = World::with(Policy { ports: PortRange::new(50_000, 50_003).unwrap(), ..Policy::default() });
    let mut given = BTreeSet::new();
    for port in 50_000..50_004 {
        given.insert(w.lan(&udp((A, port), (S, 53))).sent().src().1);
    }
    assert_eq!(given, (50_000..50_004).collect());
    // Another device, another server: no external port is shared, even where the remotes differ.
    assert_eq!(w.lan(&udp((B, 50_000), (T, 99))), Out::Dropped(DropReason::NoPort));
    let refusal = w.transmits().remove(0);
    assert_eq!((refusal.0[20], refusal.0[21], refusal.dst().0), (3, 13, B));
}

#[test]
fn rfc4787_req3_a_port_of_one_protocol_is_free_for_the_other() {
    let mut w = World::new();
    assert_eq!(w.lan(&udp((A, 40_000), (S, 53))).sent().src().1, 40_000);
    assert_eq!(w.lan(&tcp((B, 40_000), (S, 53)).syn(1)).sent().src().1, 40_000);
    assert_eq!(w.lan(&ping(B, S, 40_000)).sent().src().1, 40_000);
}

#[test]
fn rfc4787_req3a_ports_below_1024_stay_there() {
    let mut w = World::new();
    assert_eq!(w.lan(&udp((A, 500), (S, 500))).sent().src().1, 500);
    for (host, low) in (2..=200).zip([500].into_iter().cycle()) {
        let port = w.lan(&udp(([192, 168, 1, host].into(), low), (T, 500))).sent().src().1;
        assert!((1..1024).contains(&port), "{port}");
    }
}

#[test]
fn rfc4787_req3a_ports_from_1024_stay_there() {
    let mut w = World::with(Policy { ports: PortRange::new(2000, 2999).unwrap(), ..Policy::default() });
    for port in [1024, 1999, 3000, 65_535] {
        let external = w.lan(&udp((A, port), (S, 53))).sent().src().1;
        assert!((2000..3000).contains(&external), "{port} became {external}");
    }
}

#[test]
fn rfc4787_req4_parity_is_kept_under_collision() {
    let mut w = World::new();
    for wanted in [40_000, 40_001, 77, 78] {
        w.lan(&udp((A, wanted), (S, 53))).sent();
        for host in 20..40 {
            let port = w.lan(&udp(([192, 168, 1, host].into(), wanted), (S, 53))).sent().src().1;
            assert_eq!(port % 2, wanted % 2, "{wanted} became {port}");
            assert_ne!(port, wanted);
        }
    }
}

#[test]
fn rfc4787_req5_udp_mappings_live_five_minutes_by_default() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    w.advance(299);
    let answer = udp((S, 53), (WAN, 40_000));
    assert_eq!(w.wan(&answer), sent(&answer.to(A, 40_000)));
    w.advance(301);
    assert_eq!(w.wan(&answer), Out::Passed);
    assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (0, 0));
}

#[test]
fn rfc4787_req5_the_timer_is_configurable() {
    let timeouts = Timeouts { udp: Duration::from_secs(120), ..Timeouts::default() };
    let mut w = World::with(Policy { timeouts, ..Policy::default() });
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    assert_eq!(w.left(), 120);
}

#[test]
fn rfc4787_req5a_a_live_mapping_belongs_to_its_device_alone() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    w.advance(250);
    assert_ne!(w.lan(&udp((B, 40_000), (S, 53))).sent().src().1, 40_000);
    let answer = udp((S, 53), (WAN, 40_000));
    assert_eq!(w.wan(&answer), sent(&answer.to(A, 40_000)));
}

#[test]
fn rfc4787_req6_outbound_packets_refresh_the_mapping() {
    let mut w = World::new();
    for _ in 0..20 {
        w.lan(&udp((A, 40_000), (S, 53))).sent();
        w.advance(290);
    }
    let answer = udp((S, 53), (WAN, 40_000));
    assert_eq!(w.wan(&answer), sent(&answer.to(A, 40_000)));
}

#[test]
fn rfc4787_req6_inbound_refresh_is_the_owners_choice() {
    for (inbound_refresh, left) in [(true, 300), (false, 200)] {
        let mut w = World::with(Policy { inbound_refresh, ..Policy::default() });
        w.lan(&udp((A, 40_000), (S, 53))).sent();
        w.advance(100);
        w.wan(&udp((S, 53), (WAN, 40_000))).sent();
        assert_eq!(w.left(), left);
    }
}

#[test]
fn rfc4787_req6_a_stranger_keeps_no_mapping_alive() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    for _ in 0..4 {
        w.advance(90);
        w.wan(&udp((T, 7), (WAN, 40_000)));
    }
    assert_eq!(w.engine.nat.sizes().mappings, 0, "{:?}", w.sessions());
}

#[test]
fn rfc4787_req8_filtering_decides_who_gets_in() {
    // From the address and port sent to, from another port of that address, from a stranger.
    for (filtering, expected) in [
        (Filtering::EndpointIndependent, [true, true, true]),
        (Filtering::AddressDependent, [true, true, false]),
        (Filtering::AddressAndPortDependent, [true, false, false]),
    ] {
        for (sender, accepted) in [(S, 53), (S, 54), (T, 53)].into_iter().zip(expected) {
            let mut w = World::filtering(filtering);
            w.lan(&udp((A, 40_000), (S, 53))).sent();
            let packet = udp(sender, (WAN, 40_000));
            let out = if accepted { sent(&packet.to(A, 40_000)) } else { Out::Dropped(DropReason::Filtered) };
            assert_eq!(w.wan(&packet), out, "{filtering:?} {sender:?}");
            assert_eq!(w.drops(DropReason::Filtered), u64::from(!accepted));
            assert_eq!(w.sessions().len(), if accepted && sender != (S, 53) { 2 } else { 1 });
        }
    }
}

#[test]
fn rfc4787_req8_address_dependent_is_the_default() {
    assert_eq!(Policy::default().filtering, Filtering::AddressDependent);
}

#[test]
fn rfc4787_req8_a_permission_ends_with_its_session() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    w.advance(200);
    w.lan(&udp((A, 40_000), (T, 53))).sent();
    w.advance(150);
    assert_eq!(w.wan(&udp((S, 53), (WAN, 40_000))), Out::Dropped(DropReason::Filtered));
    w.wan(&udp((T, 54), (WAN, 40_000))).sent();
}

#[test]
fn rfc4787_req8_what_one_device_sent_permits_nothing_for_another() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    w.lan(&udp((B, 50_000), (T, 53))).sent();
    w.lan(&udp((A, 40_001), (T, 53))).sent();
    assert_eq!(w.wan(&udp((T, 53), (WAN, 40_000))), Out::Dropped(DropReason::Filtered));
    assert_eq!(w.wan(&udp((S, 53), (WAN, 50_000))), Out::Dropped(DropReason::Filtered));
}

#[test]
fn rfc4787_req10_payload_is_never_touched() {
    let mut w = World::new();
    let inside = [&A.octets()[..], &40_000u16.to_be_bytes(), b"192.168.1.11:40000"].concat();
    let packet = udp((A, 40_000), (S, 3478)).payload(&inside);
    assert_eq!(w.lan(&packet), sent(&packet.from(WAN, 40_000)));
    let packet = udp((S, 3478), (WAN, 40_000)).payload(&[&WAN.octets()[..], b"198.51.100.1"].concat());
    assert_eq!(w.wan(&packet), sent(&packet.to(A, 40_000)));
}

#[test]
fn rfc4787_req11_behaviour_does_not_change_with_ten_thousand_flows() {
    let mut w = World::new();
    for n in 0..10_000u16 {
        w.lan(&udp((B, 20_000 + n), (T, n % 50 + 1))).sent();
    }
    for remote in [(S, 53), (S, 54), (T, 53)] {
        assert_eq!(w.lan(&udp((A, 40_000), remote)).sent().src(), (WAN, 40_000));
    }
    assert_eq!(w.wan(&udp((HOP, 53), (WAN, 40_000))), Out::Dropped(DropReason::Filtered));
    let port = w.lan(&udp((A, 20_000), (S, 53))).sent().src().1;
    assert!(port >= 1024 && port % 2 == 0 && !(20_000..30_000).contains(&port) && port != 40_000);
}

#[test]
fn rfc4787_req11_first_and_last_port_of_the_range_are_used() {
    let mut w = World::with(Policy { ports: PortRange::new(60_001, 60_003).unwrap(), ..Policy::default() });
    let odd: BTreeSet<u16> = [1025, 1027].map(|p| w.lan(&udp((A, p), (S, 53))).sent().src().1).into();
    assert_eq!(odd, [60_001, 60_003].into());
    assert_eq!(w.lan(&udp((A, 1024), (S, 53))).sent().src().1, 60_002);
    assert_eq!(w.lan(&udp((A, 1026), (S, 53))), Out::Dropped(DropReason::NoPort));
}

#[test]
fn rfc4787_req12_icmp_neither_ends_nor_shortens_nor_refreshes_a_mapping() {
    let kinds = (0..=15).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0), (4, 0)]);
    for (kind, code) in kinds {
        let mut w = World::new();
        let packet = udp((A, 40_000), (S, 53));
        let quote = w.lan(&packet).sent().0;
        w.advance(100);
        let before = w.sessions();
        w.wan(&error(kind, code, HOP, WAN, &quote));
        assert_eq!(w.sessions(), before, "{kind}/{code}");
    }
}

#[test]
fn rfc4787_req12a_icmp_is_not_filtered_by_its_sender() {
    let mut w = World::new();
    let packet = udp((A, 40_000), (S, 53));
    let quote = w.lan(&packet).sent().0;
    for sender in [S, HOP, T] {
        let e = error(3, 3, sender, WAN, &quote);
        assert_eq!(w.wan(&e), sent(&error(3, 3, sender, A, &packet.bytes())), "{sender}");
    }
}

#[test]
fn rfc4787_req14_a_fragment_that_reaches_the_nat_is_dropped_and_counted() {
    let mut w = World::new();
    let mut fragment = udp((A, 40_000), (S, 53)).bytes();
    fragment[6] = 0x20; // more fragments
    fragment[10] ^= 0x60; // no longer DF: the header checksum with it
    assert_eq!(w.at(Stage::ToWan(nat_core::nat::Origin::Lan), &fragment), Out::Dropped(DropReason::Fragment));
    let mut fragment = udp((S, 53), (WAN, 40_000)).bytes();
    fragment[7] = 1;
    assert_eq!(w.at(Stage::FromWan { local_socket: false }, &fragment), Out::Dropped(DropReason::Fragment));
    assert_eq!(w.at(Stage::HairpinIn, &fragment), Out::Dropped(DropReason::Fragment));
    assert_eq!((w.drops(DropReason::Fragment), w.sessions().len()), (3, 0));
}

#[test]
fn a_datagram_too_large_for_the_queue_is_dropped_and_counted() {
    let mut w = World::new();
    let bytes = udp((A, 40_000), (S, 53)).bytes();
    let arrival = Arrival { stage: Stage::ToWan(nat_core::nat::Origin::Lan), bytes: &bytes, truncated: true };
    let decision = decide(&mut w.engine.nat, w.now, &arrival);
    assert_eq!(decision, nat_core::decision::Decision::Drop(DropReason::TooLarge));
    assert_eq!((w.drops(DropReason::TooLarge), w.sessions().len()), (1, 0));
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    let mut w = World::new();
    w.lan(&udp((B, 40_000), (S, 53))).sent();
    let packet = udp((A, 40_000), (S, 53)).unchecked();
    let out = w.lan(&packet).sent();
    assert_eq!(out.0, packet.from(WAN, out.src().1).bytes());
}

#[test]
fn a_full_table_refuses_new_sessions_only_and_tells_the_sender() {
    let limits = Limits { sessions: 2, ..Limits::default() };
    let mut w = World::with(Policy { limits, ..Policy::default() });
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    w.lan(&udp((A, 40_000), (T, 53))).sent();
    let refused = udp((B, 1234), (S, 53));
    assert_eq!(w.lan(&refused), Out::Dropped(DropReason::TableFull));
    let told = w.transmits();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].src().0, told[0].dst().0), (crate::packets::ROUTER, B));
    assert_eq!(told[0].0[20..22], [3, 13]);
    assert_eq!(told[0].quote().unwrap().0, refused.bytes());
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    w.wan(&udp((S, 53), (WAN, 40_000))).sent();
    assert_eq!((w.sessions().len(), w.drops(DropReason::TableFull)), (2, 1));
}

#[test]
fn a_device_over_its_quota_is_refused_and_others_are_not() {
    let limits = Limits { sessions_per_device: 3, ..Limits::default() };
    let mut w = World::with(Policy { limits, ..Policy::default() });
    for port in 1..=3 {
        w.lan(&udp((A, 40_000), (S, port))).sent();
    }
    let refused = udp((A, 40_001), (S, 4));
    assert_eq!(w.lan(&refused), Out::Dropped(DropReason::DeviceQuota));
    assert_eq!(w.transmits()[0].quote().unwrap().0, refused.bytes());
    w.lan(&udp((A, 40_000), (S, 1))).sent();
    w.lan(&udp((B, 40_001), (S, 4))).sent();
    let device = w.engine.nat.devices().find(|d| d.addr == A).unwrap();
    assert_eq!((device.sessions, device.refused), (3, 1));
    w.advance(300);
    w.lan(&refused).sent();
}

#[test]
fn refusals_are_not_sent_without_bound() {
    let limits = Limits { sessions: 1, ..Limits::default() };
    let mut w = World::with(Policy { limits, ..Policy::default() });
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    for port in 1..1000 {
        assert_eq!(w.lan(&udp((B, port), (S, 53))), Out::Dropped(DropReason::TableFull));
    }
    let told = w.transmits().len();
    assert!((1..100).contains(&told), "{told}");
}

#[test]
fn other_protocols_are_refused_outbound_and_left_to_the_router_inbound() {
    let mut w = World::new();
    let mut sctp = udp((A, 0), (S, 0));
    sctp.kind = crate::packets::Kind::Other(132);
    assert_eq!(w.lan(&sctp), Out::Dropped(DropReason::UnsupportedProtocol));
    assert_eq!(w.router(&sctp.from(WAN, 0)), Out::Passed);
    assert_eq!(w.wan(&sctp.from(S, 0).to(WAN, 0)), Out::Passed);
}

#[test]
fn an_answer_to_a_query_nobody_sent_is_the_routers() {
    let mut w = World::new();
    assert_eq!(w.wan(&pong(S, WAN, 77)), Out::Passed);
}

#[test]
fn without_an_address_nothing_is_forwarded() {
    let mut w = World::new();
    w.engine.nat.set_address(None);
    assert_eq!(w.lan(&udp((A, 40_000), (S, 53))), Out::Dropped(DropReason::NoAddress));
    assert_eq!(w.wan(&udp((S, 53), (A, 40_000))), Out::Dropped(DropReason::InboundToLan));
    assert_eq!(
        w.router(&udp((std::net::Ipv4Addr::UNSPECIFIED, 68), (std::net::Ipv4Addr::BROADCAST, 67))),
        Out::Passed
    );
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn nothing_from_the_wan_reaches_the_lan_by_its_own_addresses() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    assert_eq!(w.wan(&udp((S, 53), (A, 40_000))), Out::Dropped(DropReason::InboundToLan));
    assert_eq!(w.wan_socket(&udp((S, 53), (A, 40_000))), Out::Dropped(DropReason::InboundToLan));
}
