//! Keyed GRE, EoIP and L2TPv3 on IP protocol 115 through the whole engine.

use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::DropReason;
use nat_core::flow::Endpoint;
use passthrough::settings::{Access, Carrier, InsideServer, Settings};
use passthrough::view::{Phase, Vpn};

use crate::packets::{A, B, HOP, Packet, S, T, WAN, error, portless, too_big};
use crate::world::{Out, World, sent};

const C: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 13);
const GRE: u8 = 47;
const L2TP_IP: u8 = 115;

#[test]
fn two_devices_with_two_keys_at_one_server() {
    let mut w = World::new();
    for (device, key) in [(A, 1), (B, 2)] {
        assert_eq!(w.lan(&gre(device, S, key)), sent(&gre(WAN, S, key)));
        assert!(!w.resend);
        w.lan(&gre(device, S, key)).sent();
        assert!(w.resend, "conntrack has not entered the first one yet");
    }
    for (device, key) in [(A, 1), (B, 2)] {
        assert_eq!(w.wan(&gre(S, WAN, key)), sent(&gre(S, device, key)));
        assert_eq!(w.admission, None, "the device has just spoken");
    }
    assert_eq!(w.wan(&gre(S, WAN, 3)), Out::Dropped(DropReason::KeyUnknown));
    assert_eq!(w.wan(&gre(T, WAN, 1)), Out::Passed, "nobody's, as far as is known");
    w.pass_time(Duration::from_secs(30));
    w.wan(&gre(S, WAN, 2)).sent();
    let original = w.admission.unwrap().original;
    assert_eq!((original.protocol, original.src, original.dst), (GRE, end(B), end(S)));
}

#[test]
fn a_key_that_another_device_has_is_refused_until_it_is_idle() {
    let mut w = World::vpn(Settings { gre_idle: Duration::from_secs(50), ..Settings::default() });
    w.lan(&gre(A, S, 1)).sent();
    w.wan(&gre(S, WAN, 1)).sent();
    assert_eq!(w.lan(&gre(B, S, 1)), Out::Dropped(DropReason::KeyConflict));
    assert_eq!(w.transmits().remove(0).carried()[..2], [3, 13]);
    w.lan(&gre(B, T, 1)).sent();
    w.pass_time(Duration::from_secs(49));
    assert_eq!(w.lan(&gre(B, S, 1)), Out::Dropped(DropReason::KeyConflict));
    w.pass_time(Duration::from_secs(2));
    assert_eq!(w.lan(&gre(B, S, 1)), sent(&gre(WAN, S, 1)));
    assert_eq!(w.wan(&gre(S, WAN, 1)), sent(&gre(S, B, 1)));
}

#[test]
fn gre_without_a_key_is_the_device_s_that_sent_it() {
    let mut w = World::new();
    let plain = |src, dst| portless(GRE, src, dst, &[0, 0, 8, 0, 1, 2, 3, 4]);
    w.lan(&plain(A, S)).sent();
    assert_eq!(w.wan(&plain(S, WAN)), sent(&plain(S, A)));
}

#[test]
fn eoip_is_told_apart_by_its_tunnel_id() {
    let mut w = World::new();
    let eoip = |src, dst, id| portless(GRE, src, dst, &[0x20, 1, 0x64, 0, 0, 4, id, 0, 9, 9, 9, 9]);
    for (device, id) in [(A, 1), (B, 2)] {
        assert_eq!(w.lan(&eoip(device, S, id)), sent(&eoip(WAN, S, id)));
    }
    for (device, id) in [(A, 1), (B, 2)] {
        assert_eq!(w.wan(&eoip(S, WAN, id)), sent(&eoip(S, device, id)));
    }
}

#[test]
fn sessions_of_l2tpv3_are_told_apart_by_their_ids() {
    let mut w = World::new();
    for (device, own, peer) in [(A, 0x1000, 0x2001), (B, 0x1001, 0x2002)] {
        assert_eq!(w.lan(&sccrq(device, S, own)), sent(&sccrq(WAN, S, own)));
        assert_eq!(w.wan(&control(S, WAN, own)), sent(&control(S, device, own)));
        w.lan(&control(device, S, peer)).sent();
    }
    assert_eq!(w.lan(&sccrq(C, S, 0x1000)), Out::Dropped(DropReason::KeyConflict));
    // Static sessions: an id that is nobody's yet, and of whom there are two.
    assert_eq!(w.wan(&session(S, WAN, 0x77)), Out::Dropped(DropReason::KeyUnknown));
    assert_eq!(w.wan(&control(T, WAN, 0x1000)), Out::Passed);
}

#[test]
fn l2tpv3_is_refused_where_l2tp_is_off() {
    let off = Settings { l2tp: Access { on: false, ..Settings::default().l2tp }, ..Settings::default() };
    let mut w = World::new();
    w.lan(&session(A, S, 7)).sent();
    w.wan(&session(S, WAN, 8)).sent();
    w.engine.vpn.set_settings(off);
    assert_eq!(w.lan(&session(A, S, 7)), Out::Dropped(DropReason::L2tpOff));
    assert_eq!(w.wan(&session(S, WAN, 8)), Out::Dropped(DropReason::L2tpOff));
    assert_eq!(w.transmits().remove(0).carried()[..2], [3, 13]);
    w.lan(&gre(A, S, 1)).sent();
}

#[test]
fn the_second_device_at_a_server_is_refused_without_multi() {
    let mut w = World::vpn(Settings { multi: false, ..Settings::default() });
    w.lan(&session(A, S, 7)).sent();
    assert_eq!(w.lan(&session(B, S, 8)), Out::Dropped(DropReason::VpnSecondDevice));
    w.lan(&session(B, T, 8)).sent();
    w.lan(&gre(B, S, 1)).sent();
}

#[test]
fn a_server_inside_gets_what_is_nobody_s() {
    let servers = [(Carrier::Gre, A), (Carrier::L2tpIp, B)];
    let servers = servers.map(|(carrier, host)| InsideServer { carrier, host }).to_vec();
    let mut w = World::vpn(Settings { servers, ..Settings::default() });
    assert_eq!(w.wan(&gre(S, WAN, 1)), sent(&gre(S, A, 1)));
    assert!(w.admission.is_some());
    assert_eq!(w.wan(&session(S, WAN, 7)), sent(&session(S, B, 7)));
    assert_eq!(w.lan(&gre(A, S, 1)), sent(&gre(WAN, S, 1)));
    w.lan(&gre(C, T, 1)).sent();
    assert_eq!(w.wan(&gre(T, WAN, 1)), sent(&gre(T, C, 1)));
    w.engine.vpn.set_settings(Settings::default());
    assert_eq!(w.wan(&session(T, WAN, 7)), Out::Passed);
}

#[test]
fn icmp_errors_follow_the_key() {
    let mut w = World::new();
    for (device, key) in [(A, 1), (B, 2)] {
        w.lan(&gre(device, S, key)).sent();
    }
    for len in [8, 12] {
        let (out, inner) = (gre(WAN, S, 2).head(len), gre(B, S, 2).head(len));
        assert_eq!(w.wan(&too_big(1400, HOP, WAN, &out)), sent(&too_big(1400, HOP, B, &inner)), "{len}");
        let (got, on_wan) = (gre(S, B, 2).head(len), gre(S, WAN, 2).head(len));
        assert_eq!(w.lan(&error(3, 2, B, S, &got)), sent(&error(3, 2, WAN, S, &on_wan)), "{len}");
    }
    let unknown = gre(WAN, S, 9).head(8);
    assert_eq!(w.wan(&too_big(1400, HOP, WAN, &unknown)), Out::Dropped(DropReason::UnknownQuote));
    let foreign = gre(S, B, 1).head(8);
    assert_eq!(w.lan(&error(3, 2, B, S, &foreign)), Out::Dropped(DropReason::UnknownQuote));

    w.lan(&sccrq(A, S, 0x1000)).sent();
    w.lan(&session(A, S, 0x77)).sent();
    let (out, inner) = (session(WAN, S, 0x77).head(8), session(A, S, 0x77).head(8));
    assert_eq!(w.wan(&too_big(1400, HOP, WAN, &out)), sent(&too_big(1400, HOP, A, &inner)));
    let (got, on_wan) = (control(S, A, 0x1000).head(12), control(S, WAN, 0x1000).head(12));
    assert_eq!(w.lan(&error(3, 2, A, S, &got)), sent(&error(3, 2, WAN, S, &on_wan)));
}

#[test]
fn the_router_s_own_tunnel_is_left_to_the_kernel() {
    let mut w = World::new();
    w.lan(&gre(A, S, 1)).sent();
    w.wan(&gre(S, WAN, 1)).sent();
    w.lan(&gre(B, S, 2)).sent();
    assert_eq!(w.router(&gre(WAN, S, 7)), Out::Passed);
    assert_eq!(w.wan(&gre(S, WAN, 7)), Out::Passed);
    assert_eq!(w.wan(&gre(S, WAN, 1)), sent(&gre(S, A, 1)));
    assert_eq!(w.wan(&error(3, 3, HOP, WAN, &gre(WAN, S, 7).bytes())), Out::Passed);
}

#[test]
fn a_conversation_is_reported_and_forgotten() {
    let mut w = World::new();
    w.lan(&gre(A, S, 5)).sent();
    w.wan(&gre(S, WAN, 5)).sent();
    w.lan(&session(B, S, 7)).sent();
    let views = w.engine.sessions(w.now);
    let found: Vec<_> = views.iter().map(|v| (v.vpn, v.device, v.server, v.phase, v.packets)).collect();
    assert_eq!(found, [(Vpn::Gre, A, S, Phase::Data, [1, 1]), (Vpn::L2tpV3, B, S, Phase::Handshake, [1, 0])]);
    assert_eq!((views[0].ids[0].what, views[0].ids[0].inside), ("key", Some(5)));
    assert_eq!((views[1].ids[0].what, views[1].ids[0].remote), ("session", Some(7)));
    w.advance(3600);
    assert_eq!((w.engine.sessions(w.now), w.engine.poll_timeout()), (vec![], None));
    w.lan(&gre(A, S, 5)).sent();
    w.engine.vpn.address_changed(&mut w.engine.nat);
    assert_eq!(w.engine.sessions(w.now), vec![]);
}

fn end(addr: Ipv4Addr) -> Endpoint {
    Endpoint::new(addr, 0)
}

/// GRE with a key (RFC 2890) and a sequence number.
pub(crate) fn gre(src: Ipv4Addr, dst: Ipv4Addr, key: u8) -> Packet {
    portless(GRE, src, dst, &[0x30, 0, 8, 0, 0, 0, 0, key, 0, 0, 0, 1, 0x45, 0, 0, 0])
}

/// A data message on IP (RFC 3931 section 4.1.1.1).
pub(crate) fn session(src: Ipv4Addr, dst: Ipv4Addr, id: u32) -> Packet {
    portless(L2TP_IP, src, dst, &[&id.to_be_bytes()[..], &[0xff, 3, 0, 0x21]].concat())
}

/// A HELLO on IP (RFC 3931 section 4.1.1.2) to the side that calls itself `to`.
pub(crate) fn control(src: Ipv4Addr, dst: Ipv4Addr, to: u32) -> Packet {
    portless(L2TP_IP, src, dst, &message(to, &[0x80, 8, 0, 0, 0, 0, 0, 6]))
}

/// An SCCRQ whose sender calls itself `own` in AVP 61.
pub(crate) fn sccrq(src: Ipv4Addr, dst: Ipv4Addr, own: u32) -> Packet {
    let avps = [&[0x80, 8, 0, 0, 0, 0, 0, 1, 0x80, 10, 0, 0, 0, 61][..], &own.to_be_bytes()].concat();
    portless(L2TP_IP, src, dst, &message(0, &avps))
}

fn message(to: u32, avps: &[u8]) -> Vec<u8> {
    let length = 12 + u16::try_from(avps.len()).unwrap();
    let head = [&[0, 0, 0, 0, 0xc8, 3][..], &length.to_be_bytes(), &to.to_be_bytes(), &[0; 4]].concat();
    [&head, avps].concat()
}
