//! L2TP over UDP through the whole engine.

use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::DropReason;
use nat_core::flow::{Endpoint, Protocol};
use nat_core::policy::{Forward, Policy, PortRange};
use passthrough::settings::{Access, Scope, Settings};
use passthrough::view::Vpn;

use crate::packets::{A, B, HOP, Packet, S, T, WAN, Wire, error, too_big, udp};
use crate::world::{Out, World, sent};

const C: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 13);
const L2TP: u16 = 1701;
const SCCRQ: u16 = 1;
const SCCRP: u16 = 2;
const HELLO: u16 = 6;

#[test]
fn two_clients_with_one_tunnel_id_of_a_server_that_answers_to_1701_alone() {
    let mut w = World::new();
    assert_eq!(w.lan(&from(A, &request(1))), sent(&from(A, &request(1)).from(WAN, L2TP)));
    let second = w.lan(&from(B, &request(1))).sent();
    let port = second.src().1;
    assert_ne!(port, L2TP);
    let outside = assigned(&second);
    assert_ne!(outside, 1);
    assert_eq!(second, Wire(from(B, &request(outside)).from(WAN, port).bytes()));

    assert_eq!(w.wan(&to_wan(L2TP, &reply(1, 101))), sent(&to(A, &reply(1, 101))));
    assert_eq!(w.wan(&to_wan(L2TP, &reply(outside, 102))), sent(&to(B, &reply(1, 102))));
    let original = w.admission.unwrap().original;
    assert_eq!((original.src, original.dst), (Endpoint::new(B, L2TP), Endpoint::new(S, L2TP)));
    assert_eq!(w.wan(&to_wan(L2TP, &data(outside))), sent(&to(B, &data(1))));
    assert_eq!(w.admission, None, "conntrack knows it");
    assert_eq!(w.wan(&to_wan(L2TP, &data(1))), sent(&to(A, &data(1))));
    w.pass_time(Duration::from_secs(30));
    w.wan(&to_wan(L2TP, &data(outside))).sent();
    assert!(w.admission.is_some(), "conntrack may have forgotten it");
    assert_eq!(w.lan(&from(B, &data(102))), sent(&from(B, &data(102)).from(WAN, port)), "it stays there");
}

#[test]
fn the_next_client_of_such_a_server_shares_port_1701() {
    let mut w = World::new();
    let outside = share(&mut w);
    assert_eq!(w.lan(&from(C, &data(103))), sent(&from(C, &data(103)).from(WAN, L2TP)));
    assert_eq!(w.wan(&to_wan(L2TP, &data(outside))), sent(&to(C, &data(1))));
    assert_eq!(w.wan(&to_wan(L2TP, &data(1))), sent(&to(A, &data(1))));
    assert_eq!(w.wan(&to_wan(L2TP, &data(77))), Out::Dropped(DropReason::L2tpRefused));
    assert_eq!(w.wan(&to_wan(L2TP, &data(outside)).from(T, L2TP)), Out::Dropped(DropReason::Filtered));
    // Another server sees it from a port of its own.
    let elsewhere = w.lan(&from(C, &request(1)).to(T, L2TP)).sent();
    assert_ne!(elsewhere.src().1, L2TP);
}

#[test]
fn a_server_may_answer_from_another_port() {
    let mut w = World::new();
    w.lan(&from(A, &request(1))).sent();
    let answer = to_wan(L2TP, &reply(1, 101)).from(S, 50_000);
    assert_eq!(w.wan(&answer), sent(&answer.to(A, L2TP)));
    let on = udp((A, L2TP), (S, 50_000)).payload(&data(101));
    assert_eq!(w.lan(&on), sent(&on.from(WAN, L2TP)));
    // Both ports are others than 1701: a second device, whose server answers from another one.
    let port = w.lan(&from(B, &request(1))).sent().src().1;
    let answer = to_wan(port, &reply(0x8001, 102)).from(S, 50_000);
    assert_eq!(w.wan(&answer), sent(&to(B, &reply(1, 102)).from(S, 50_000)));
    assert_eq!(w.wan(&answer.from(T, 50_000)), Out::Dropped(DropReason::Filtered));
}

#[test]
fn other_services_of_such_a_server_are_left_alone() {
    let mut w = World::new();
    w.lan(&from(A, &request(1))).sent();
    let dns = udp((B, 40_000), (S, 53)).payload(&data(1));
    assert_eq!(w.lan(&dns), sent(&dns.from(WAN, 40_000)));
    let answer = udp((S, 53), (WAN, 40_000)).payload(&data(1));
    assert_eq!(w.wan(&answer), sent(&answer.to(B, 40_000)));
}

#[test]
fn without_a_checksum_none_is_made() {
    let mut w = World::new();
    w.lan(&from(A, &request(1))).sent();
    let second = w.lan(&from(B, &request(1)).unchecked()).sent();
    assert_eq!(second.0[26..28], [0, 0]);
    assert_ne!(assigned(&second), 1);
}

#[test]
fn an_error_about_the_shared_port_finds_its_device() {
    let mut w = World::new();
    let outside = share(&mut w);
    let (quote, inner) = (from(C, &data(103)).from(WAN, L2TP), from(C, &data(103)));
    for len in [12, 14, 18] {
        let shown = w.wan(&too_big(1400, HOP, WAN, &quote.head(len))).sent();
        assert_eq!((shown.dst().0, shown.quote().unwrap().src()), (C, (C, L2TP)), "{len}");
    }
    assert_eq!(w.wan(&too_big(1400, HOP, WAN, &quote.bytes())), sent(&too_big(1400, HOP, C, &inner.bytes())));
    let small = too_big(500, HOP, WAN, &quote.bytes());
    assert_eq!(w.wan(&small), Out::Dropped(DropReason::MtuTooSmall));
    // And the device's own about what it got.
    w.wan(&to_wan(L2TP, &data(outside))).sent();
    let out = w.lan(&error(3, 3, C, S, &to(C, &data(1)).bytes())).sent();
    assert_eq!((out.src().0, out.quote().unwrap().dst()), (WAN, (WAN, L2TP)));
    // The holder of the port has the NAT.
    let quote = from(A, &data(101)).from(WAN, L2TP);
    assert_eq!(w.wan(&too_big(1400, HOP, WAN, &quote.bytes())).sent().dst().0, A);
}

#[test]
fn switched_off_it_is_refused_at_once() {
    let external = PortRange::new(L2TP, L2TP).unwrap();
    let forward = Forward { protocol: Protocol::Udp, external, host: A, internal_first: L2TP };
    let off = Settings { l2tp: Access { on: false, ..Settings::default().l2tp }, ..Settings::default() };
    let mut w = World::both(Policy { forwards: vec![forward], ..Policy::default() }, off, [7; 16]);
    assert_eq!(w.lan(&from(A, &request(1))), Out::Dropped(DropReason::L2tpOff));
    assert_eq!(w.transmits().remove(0).carried()[..2], [3, 13]);
    assert_eq!(w.wan(&to_wan(L2TP, &request(1))), Out::Dropped(DropReason::L2tpOff));
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn the_second_device_at_a_server_is_refused_without_multi() {
    let mut w = World::vpn(Settings { multi: false, ..Settings::default() });
    w.lan(&from(A, &request(1))).sent();
    assert_eq!(w.lan(&from(B, &request(1))), Out::Dropped(DropReason::VpnSecondDevice));
    w.lan(&from(B, &request(1)).to(T, L2TP)).sent();
    w.lan(&from(A, &v2(0, HELLO, &[]))).sent();
}

#[test]
fn a_server_inside_has_clients_with_one_tunnel_id() {
    let external = PortRange::new(L2TP, L2TP).unwrap();
    let forward = Forward { protocol: Protocol::Udp, external, host: A, internal_first: L2TP };
    let mut w = World::forwards(&[forward]);
    for client in [S, T] {
        let call = to_wan(L2TP, &request(1)).from(client, 40_000);
        assert_eq!(w.wan(&call), sent(&call.to(A, L2TP)));
        let answer = udp((A, L2TP), (client, 40_000)).payload(&reply(1, 9));
        assert_eq!(w.lan(&answer), sent(&answer.from(WAN, L2TP)));
        let on = to_wan(L2TP, &data(9)).from(client, 40_000);
        assert_eq!(w.wan(&on), sent(&on.to(A, L2TP)));
    }
}

#[test]
fn another_wan_address_ends_every_tunnel() {
    let mut w = World::new();
    share(&mut w);
    w.engine.set_address(None);
    assert_ne!(w.engine.sessions(w.now), vec![], "the same address may come back");
    w.engine.set_address(Some(Ipv4Addr::new(198, 51, 100, 77)));
    assert_eq!(w.engine.sessions(w.now), vec![]);
    w.advance(48 * 3600);
    assert_eq!(w.engine.poll_timeout(), None, "everything is forgotten in time");
}

#[test]
fn in_scope_vpn_what_the_nat_does_not_know_is_the_kernel_s() {
    let mut w = World::vpn(Settings { scope: Scope::Vpn, ..Settings::default() });
    w.lan(&from(A, &request(1))).sent();
    assert_eq!(w.wan(&to_wan(L2TP, &reply(1, 101))), sent(&to(A, &reply(1, 101))));
    assert_eq!(w.wan(&udp((T, L2TP), (WAN, 50_000))), Out::Passed);
}

#[test]
fn a_tunnel_is_reported_with_its_ids() {
    let mut w = World::new();
    let outside = share(&mut w);
    let views = w.engine.sessions(w.now);
    let found: Vec<_> = views.iter().map(|v| (v.vpn, v.device, v.server, v.remark)).collect();
    assert_eq!(found, [(Vpn::L2tp, A, S, ""), (Vpn::L2tp, B, S, ""), (Vpn::L2tp, C, S, "shares port 1701")]);
    let ids = views[2].ids[0];
    assert_eq!((ids.what, ids.inside, ids.outside), ("tunnel", Some(1), Some(outside.into())));
    assert_eq!(ids.remote, Some(103));
}

/// A and B have tunnels with S, which answers to 1701 alone, and so C shares that port; its tunnel's id on the WAN.
fn share(w: &mut World) -> u16 {
    w.lan(&from(A, &request(1))).sent();
    w.wan(&to_wan(L2TP, &reply(1, 101))).sent();
    let second = assigned(&w.lan(&from(B, &request(1))).sent());
    w.wan(&to_wan(L2TP, &reply(second, 102))).sent();
    let third = w.lan(&from(C, &request(1))).sent();
    let outside = assigned(&third);
    assert_eq!(third, Wire(from(C, &request(outside)).from(WAN, L2TP).bytes()));
    assert_eq!(w.wan(&to_wan(L2TP, &reply(outside, 103))), sent(&to(C, &reply(1, 103))));
    outside
}

fn from(device: Ipv4Addr, bytes: &[u8]) -> Packet {
    udp((device, L2TP), (S, L2TP)).payload(bytes)
}

fn to(device: Ipv4Addr, bytes: &[u8]) -> Packet {
    udp((S, L2TP), (device, L2TP)).payload(bytes)
}

fn to_wan(port: u16, bytes: &[u8]) -> Packet {
    udp((S, L2TP), (WAN, port)).payload(bytes)
}

/// AVP 9 of a request on the wire.
fn assigned(wire: &Wire) -> u16 {
    let bytes = &wire.carried()[26..28];
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn request(own: u16) -> Vec<u8> {
    v2(0, SCCRQ, &own.to_be_bytes())
}

fn reply(to: u16, own: u16) -> Vec<u8> {
    v2(to, SCCRP, &own.to_be_bytes())
}

/// A control message (RFC 2661 section 3.1) to `tunnel`, with AVP 9 unless `assigned` is empty.
pub(crate) fn v2(tunnel: u16, kind: u16, assigned: &[u8]) -> Vec<u8> {
    let avp = |attribute: u16, value: &[u8]| {
        let length = 6 + u16::try_from(value.len()).unwrap();
        [&(0x8000 | length).to_be_bytes()[..], &[0, 0], &attribute.to_be_bytes(), value].concat()
    };
    let own = if assigned.is_empty() { Vec::new() } else { avp(9, assigned) };
    let body = [avp(0, &kind.to_be_bytes()), own].concat();
    let length = 12 + u16::try_from(body.len()).unwrap();
    let words = [0xc802, length, tunnel, 0, 0, 0];
    [words.iter().flat_map(|word: &u16| word.to_be_bytes()).collect(), body].concat()
}

/// A data message of session 1.
pub(crate) fn data(tunnel: u16) -> Vec<u8> {
    [&[0, 2][..], &tunnel.to_be_bytes(), &[0, 1, 0xff, 3, 0, 0x21]].concat()
}
