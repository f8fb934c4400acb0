//! IKE through the whole engine: which port a device shows, whose an exchange is, and what is refused.

use std::net::Ipv4Addr;

use nat_core::decision::{DropReason, Effect, Note};
use nat_core::flow::Protocol;
use passthrough::settings::{Access, Prefix, Settings};
use passthrough::view::{Phase, Vpn};

use crate::packets::{A, B, End, HOP, Packet, ROUTER, S, T, WAN, Wire, error, portless, too_big, udp};
use crate::world::{Out, World, forward, sent};

pub(crate) const C: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 13);
pub(crate) const D: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 14);
/// Exchange types.
pub(crate) const MAIN: u8 = 2;
pub(crate) const AGGRESSIVE: u8 = 4;
pub(crate) const QUICK: u8 = 32;
pub(crate) const SA_INIT: u8 = 34;
pub(crate) const AUTH: u8 = 35;
pub(crate) const CREATE_CHILD: u8 = 36;
pub(crate) const INFORMATIONAL: u8 = 37;
/// Flags of IKEv2: sent by the initiator of the IKE SA, and answering a request.
pub(crate) const INITIATOR: u8 = 0x08;
pub(crate) const RESPONSE: u8 = 0x20;

#[test]
fn the_first_device_keeps_500_and_a_further_one_that_offers_nat_t_gets_an_ordinary_port() {
    let mut w = World::new();
    for (n, kind) in [(0, MAIN), (1, AGGRESSIVE), (2, SA_INIT)] {
        let server = Ipv4Addr::new(203, 0, 113, 30 + n);
        let (first, second) = (u64::from(n) * 2 + 1, u64::from(n) * 2 + 2);
        for (device, spi, keeps) in [(A, first, true), (B, second, false)] {
            let begin = from(device, &begins(kind, spi, true)).to(server, 500);
            let out = w.lan(&begin).sent();
            assert_eq!(out.src().1 == 500, keeps, "exchange {kind}");
            assert_eq!(out, Wire(begin.from(WAN, out.src().1).bytes()), "nothing else changes");
            let answer = udp((server, 500), out.src()).payload(&answers(kind, spi, 900 + spi, true));
            assert_eq!(w.wan(&answer), sent(&answer.to(device, 500)));
        }
    }
}

#[test]
fn without_nat_t_devices_share_500_and_are_told_apart_by_server_and_initiator_spi() {
    for kind in [MAIN, AGGRESSIVE, SA_INIT] {
        let mut w = World::new();
        // C uses with T the very SPI that B uses with S.
        let rows = [(A, S, 1), (B, S, 2), (C, S, 3), (C, T, 2)];
        for (device, server, spi) in rows {
            let begin = from(device, &begins(kind, spi, false)).to(server, 500);
            assert_eq!(w.lan(&begin), sent(&begin.from(WAN, 500)), "exchange {kind}");
        }
        for (device, server, spi) in rows {
            let answer = udp((server, 500), (WAN, 500)).payload(&answers(kind, spi, 900 + spi, false));
            assert_eq!(w.wan(&answer), sent(&answer.to(device, 500)), "exchange {kind}");
            let on = from(device, &encrypted(kind, spi, 900 + spi, 0)).to(server, 500);
            assert_eq!(w.lan(&on), sent(&on.from(WAN, 500)), "exchange {kind}");
        }
    }
}

#[test]
fn a_server_that_answers_without_nat_t_gets_500_at_the_next_attempt_of_anyone() {
    let mut w = World::new();
    keep_500(&mut w);
    let port = w.lan(&from(B, &begins(MAIN, 2, true))).sent().src().1;
    assert_ne!(port, 500);
    let answer = udp((S, 500), (WAN, port)).payload(&answers(MAIN, 2, 902, false));
    assert_eq!(w.wan(&answer), sent(&answer.to(B, 500)));
    // The exchange goes on where it began, and so does its repetition.
    for message in [encrypted(MAIN, 2, 902, 0), begins(MAIN, 2, true)] {
        assert_eq!(w.lan(&from(B, &message)).sent().src(), (WAN, port));
    }
    for (device, spi) in [(B, 3), (C, 4)] {
        assert_eq!(w.lan(&from(device, &begins(MAIN, spi, true))).sent().src(), (WAN, 500));
    }
    let elsewhere = w.lan(&from(C, &begins(MAIN, 5, true)).to(T, 500)).sent();
    assert_ne!(elsewhere.src().1, 500, "another server");
    // What a server needs outlives an hour of silence, and the WAN address.
    w.advance(3 * 3600);
    w.lan(&from(A, &begins(MAIN, 6, true)).to(T, 500)).sent();
    assert_eq!(w.lan(&from(B, &begins(MAIN, 7, true))).sent().src(), (WAN, 500));
}

#[test]
fn an_answer_that_does_not_tell_whether_the_server_knows_nat_changes_nothing() {
    let mut w = World::new();
    keep_500(&mut w);
    let port = w.lan(&from(B, &begins(SA_INIT, 2, true))).sent().src().1;
    // A request for a cookie: no nonce and no NAT detection.
    let cookie = v2(2, 0, SA_INIT, RESPONSE, 0, &[(41, &[0, 0, 0x40, 0x06, 1, 2, 3, 4])]);
    w.wan(&udp((S, 500), (WAN, port)).payload(&cookie)).sent();
    w.wan(&udp((S, 500), (WAN, port)).payload(&answers(SA_INIT, 2, 902, true))).sent();
    assert_ne!(w.lan(&from(B, &begins(SA_INIT, 3, true))).sent().src().1, 500);
}

#[test]
fn after_three_sends_without_answer_that_pair_s_next_attempt_shares_500() {
    let mut w = World::new();
    keep_500(&mut w);
    let port = w.lan(&from(B, &begins(SA_INIT, 2, true))).sent().src().1;
    w.lan(&from(B, &begins(SA_INIT, 2, true))).sent();
    assert_ne!(w.lan(&from(B, &begins(SA_INIT, 3, true))).sent().src().1, 500, "only two yet");
    for _ in 0..3 {
        w.advance(4);
        let out = w.lan(&from(B, &begins(SA_INIT, 2, true))).sent();
        assert_eq!(out.src(), (WAN, port), "a running exchange never changes its port");
    }
    assert_eq!(w.lan(&from(B, &begins(SA_INIT, 4, true))).sent().src(), (WAN, 500));
    assert_ne!(w.lan(&from(C, &begins(SA_INIT, 5, true))).sent().src().1, 500, "another device");
    assert_ne!(w.lan(&from(B, &begins(SA_INIT, 6, true)).to(T, 500)).sent().src().1, 500, "another server");
}

#[test]
fn three_sends_of_an_exchange_that_is_answered_are_no_sign() {
    let mut w = World::new();
    keep_500(&mut w);
    let port = w.lan(&from(B, &begins(SA_INIT, 2, true))).sent().src().1;
    w.wan(&udp((S, 500), (WAN, port)).payload(&answers(SA_INIT, 2, 902, true))).sent();
    for _ in 0..4 {
        w.lan(&from(B, &begins(SA_INIT, 2, true))).sent();
    }
    // Nor are the fragments of one message (RFC 7383), which have one message id.
    for number in 1..=5 {
        w.lan(&from(B, &fragment(2, 902, number))).sent();
    }
    assert_ne!(w.lan(&from(B, &begins(SA_INIT, 3, true))).sent().src().1, 500);
}

#[test]
fn a_listener_of_the_router_or_a_forward_has_500_before_any_device() {
    let server = forward(Protocol::Udp, 500, 500, D, 500);
    for forwards in [vec![], vec![server]] {
        let mut w = World::forwards(&forwards);
        if forwards.is_empty() {
            w.listen(&[], &[500]);
        }
        assert_ne!(w.lan(&from(A, &begins(MAIN, 1, true))).sent().src().1, 500);
        for (device, spi) in [(B, 2), (C, 3)] {
            assert_eq!(w.lan(&from(device, &begins(MAIN, spi, false))).sent().src(), (WAN, 500));
            let answer = udp((S, 500), (WAN, 500)).payload(&answers(MAIN, spi, 900 + spi, false));
            assert_eq!(w.wan(&answer), sent(&answer.to(device, 500)));
        }
        // A stranger's exchange is the listener's or the server's.
        let stranger = udp((T, 500), (WAN, 500)).payload(&begins(MAIN, 9, false));
        let own = if forwards.is_empty() { Out::Passed } else { sent(&stranger.to(D, 500)) };
        assert_eq!(w.wan(&stranger), own);
    }
}

#[test]
fn an_exchange_that_the_server_begins_goes_to_the_device_with_a_live_ike_sa() {
    let mut w = World::new();
    keep_500(&mut w); // A, whom S has not answered
    establish(&mut w, B, 2);
    let request = udp((S, 500), (WAN, 500)).payload(&begins(MAIN, 77, false));
    assert_eq!(w.wan(&request), sent(&request.to(B, 500)));
    // And stays there.
    let answer = from(B, &answers(MAIN, 77, 78, false));
    assert_eq!(w.lan(&answer), sent(&answer.from(WAN, 500)));
    establish(&mut w, C, 3);
    let next = udp((S, 500), (WAN, 500)).payload(&encrypted(MAIN, 77, 78, 0));
    assert_eq!(w.wan(&next), sent(&next.to(B, 500)), "it is B's now");
    assert_eq!(w.effects(), vec![]);
}

#[test]
fn an_exchange_that_the_server_begins_is_nobody_s_while_no_device_has_a_live_ike_sa() {
    let mut w = World::new();
    keep_500(&mut w);
    w.lan(&from(B, &begins(MAIN, 2, false))).sent();
    let request = udp((S, 500), (WAN, 500)).payload(&begins(MAIN, 77, false));
    assert_eq!(w.wan(&request), Out::Dropped(DropReason::Filtered));
    w.wan(&udp((S, 500), (WAN, 500)).payload(&answers(MAIN, 0xa, 901, false))).sent();
    assert_eq!(w.wan(&request), sent(&request.to(A, 500)));
}

#[test]
fn of_several_devices_with_a_live_ike_sa_each_gets_a_copy_up_to_fan_out() {
    for (fan_out, expected) in [(3, true), (2, false), (0, false)] {
        let mut w = World::vpn(Settings { fan_out, ..Settings::default() });
        for (device, spi) in [(A, 1), (B, 2), (C, 3)] {
            establish(&mut w, device, spi);
        }
        let request = udp((S, 500), (WAN, 500)).payload(&begins(MAIN, 77, false));
        let out = w.wan(&request);
        let copies = copies(&mut w);
        if expected {
            let wires = [A, B].map(|device| (device, Wire(request.to(device, 500).bytes())));
            assert_eq!(copies, wires);
            assert_eq!(out, sent(&request.to(C, 500)));
        } else {
            assert_eq!((out, copies), (Out::Dropped(DropReason::EspAmbiguous), vec![]));
            assert_eq!(w.drops(DropReason::EspAmbiguous), 1);
        }
    }
    // One device is never ambiguous.
    let mut w = World::vpn(Settings { fan_out: 0, ..Settings::default() });
    keep_500(&mut w);
    establish(&mut w, B, 2);
    establish(&mut w, B, 3);
    let request = udp((S, 500), (WAN, 500)).payload(&begins(MAIN, 77, false));
    assert_eq!(w.wan(&request), sent(&request.to(B, 500)));
}

#[test]
fn a_device_that_went_on_to_4500_gets_no_exchange_that_begins_on_500() {
    let mut w = World::new();
    establish(&mut w, A, 1);
    establish(&mut w, B, 2);
    let on = udp((A, 4500), (S, 4500)).payload(&marked(&encrypted(MAIN, 1, 901, 0)));
    w.lan(&on).sent();
    let request = udp((S, 500), (WAN, 500)).payload(&begins(MAIN, 77, false));
    assert_eq!(w.wan(&request), sent(&request.to(B, 500)));
    assert_eq!(w.effects(), vec![]);
}

#[test]
fn from_a_stranger_no_exchange_reaches_a_shared_500() {
    let mut w = World::new();
    establish(&mut w, A, 1);
    establish(&mut w, B, 2);
    for spi in [1, 2, 77] {
        let request = udp((T, 500), (WAN, 500)).payload(&begins(MAIN, spi, false));
        assert_eq!(w.wan(&request), Out::Dropped(DropReason::Filtered));
    }
}

#[test]
fn an_answer_may_come_from_another_port_than_500() {
    let mut w = World::new();
    keep_500(&mut w);
    w.lan(&from(B, &begins(MAIN, 2, false))).sent();
    let answer = udp((S, 50_001), (WAN, 500)).payload(&answers(MAIN, 2, 902, false));
    assert_eq!(w.wan(&answer), sent(&answer.to(B, 500)));
    let admission = w.admission.unwrap().original;
    assert_eq!((admission.src.addr, admission.dst.id.0), (B, 50_001));
    let port = w.lan(&from(C, &begins(MAIN, 3, true))).sent().src().1;
    let answer = udp((S, 50_002), (WAN, port)).payload(&answers(MAIN, 3, 903, true));
    assert_eq!(w.wan(&answer), sent(&answer.to(C, 500)));
}

#[test]
fn the_port_that_a_message_comes_to_goes_before_its_spi() {
    let mut w = World::new();
    keep_500(&mut w);
    establish(&mut w, B, 2);
    let port = w.lan(&from(C, &begins(MAIN, 3, true))).sent().src().1;
    let message = udp((S, 500), (WAN, port)).payload(&encrypted(MAIN, 2, 902, 0));
    assert_eq!(w.wan(&message), sent(&message.to(C, 500)));
    // What a mapping of the NAT's is for, the NAT counts and keeps alive.
    w.wan(&udp((S, 500), (WAN, port)).payload(&answers(MAIN, 3, 903, true))).sent();
    let session = w.sessions().into_iter().find(|session| session.internal.addr == C).unwrap();
    assert_eq!(session.packets, [1, 2]);
}

#[test]
fn a_server_s_messages_on_4500_make_no_ike_sas() {
    let mut w = World::new();
    let port = w.lan(&udp((A, 4500), (S, 4500)).payload(&[0xff])).sent().src().1;
    for spi in 1..100 {
        w.wan(&udp((S, 4500), (WAN, port)).payload(&marked(&begins(SA_INIT, spi, true)))).sent();
    }
    assert_eq!(w.engine.vpn.memory().ike, vec![]);
}

#[test]
fn two_devices_with_one_initiator_spi_on_a_shared_port_cannot_be_told_apart() {
    let mut w = World::new();
    keep_500(&mut w);
    establish(&mut w, B, 2);
    w.effects();
    assert_eq!(w.lan(&from(C, &begins(MAIN, 2, false))), Out::Dropped(DropReason::Conflict));
    assert_eq!(refusals(&mut w), [C], "it is told");
    let answer = udp((S, 500), (WAN, 500)).payload(&encrypted(MAIN, 2, 902, 0));
    assert_eq!(w.wan(&answer), sent(&answer.to(B, 500)), "the first one goes on");
    assert_eq!(w.lan(&from(B, &encrypted(MAIN, 2, 902, 0))).sent().src(), (WAN, 500));
}

#[test]
fn on_ports_of_their_own_two_devices_with_one_initiator_spi_both_go_on() {
    let mut w = World::new();
    let mut ports = Vec::new();
    for (device, responder) in [(A, 901), (B, 902)] {
        let port = w.lan(&from(device, &begins(SA_INIT, 1, true))).sent().src().1;
        let answer = udp((S, 500), (WAN, port)).payload(&answers(SA_INIT, 1, responder, true));
        assert_eq!(w.wan(&answer), sent(&answer.to(device, 500)));
        w.lan(&from(device, &v2_encrypted(1, responder, AUTH, INITIATOR, 1))).sent();
        ports.push(port);
    }
    // The second is not the first at a new address: what came for A goes on to come for A.
    for (device, responder, port) in [(A, 901, ports[0]), (B, 902, ports[1])] {
        let message = udp((S, 500), (WAN, port)).payload(&v2_encrypted(1, responder, AUTH, RESPONSE, 1));
        assert_eq!(w.wan(&message), sent(&message.to(device, 500)));
        let on = from(device, &v2_encrypted(1, responder, INFORMATIONAL, INITIATOR, 2));
        assert_eq!(w.lan(&on), sent(&on.from(WAN, port)));
    }
}

#[test]
fn mobike_moves_an_ike_sa_to_a_new_address_but_only_with_both_spis() {
    let mut w = World::new();
    keep_500(&mut w);
    w.lan(&from(B, &begins(SA_INIT, 2, false))).sent();
    w.wan(&udp((S, 500), (WAN, 500)).payload(&answers(SA_INIT, 2, 902, false))).sent();
    let forged = from(C, &v2_encrypted(2, 999, INFORMATIONAL, INITIATOR, 5));
    for _ in 0..3 {
        assert_eq!(w.lan(&forged), Out::Dropped(DropReason::Conflict), "with a wrong responder SPI");
    }
    w.effects();
    let request = udp((S, 500), (WAN, 500)).payload(&v2_encrypted(2, 902, INFORMATIONAL, 0, 0));
    assert_eq!(w.wan(&request), sent(&request.to(B, 500)));
    let moved = from(D, &v2_encrypted(2, 902, INFORMATIONAL, INITIATOR, 5));
    assert_eq!(w.lan(&moved), sent(&moved.from(WAN, 500)));
    assert_eq!(w.wan(&request), sent(&request.to(D, 500)));
}

#[test]
fn an_ike_sa_that_was_rekeyed_out_of_sight_stays_on_its_port() {
    let mut w = World::new();
    keep_500(&mut w);
    w.lan(&from(B, &begins(SA_INIT, 2, false))).sent();
    w.wan(&udp((S, 500), (WAN, 500)).payload(&answers(SA_INIT, 2, 902, false))).sent();
    // SPIs that no message in the clear has named.
    let on = from(B, &v2_encrypted(0x2222, 0x9999, INFORMATIONAL, INITIATOR, 0));
    assert_eq!(w.lan(&on), sent(&on.from(WAN, 500)));
    let answer = udp((S, 500), (WAN, 500)).payload(&v2_encrypted(0x2222, 0x9999, INFORMATIONAL, RESPONSE, 0));
    assert_eq!(w.wan(&answer), sent(&answer.to(B, 500)));
}

#[test]
fn an_error_about_a_shared_500_reaches_its_device_by_the_quoted_ike_header() {
    let mut w = World::new();
    keep_500(&mut w);
    establish(&mut w, B, 2);
    let message = from(B, &encrypted(MAIN, 2, 902, 0));
    let quote = message.from(WAN, 500);
    assert_eq!(
        w.wan(&too_big(1400, HOP, WAN, &quote.bytes())),
        sent(&too_big(1400, HOP, B, &message.bytes()))
    );
    for len in [16, 20] {
        let out = w.wan(&error(3, 3, HOP, WAN, &quote.head(len))).sent();
        assert_eq!((out.dst().0, out.quote().unwrap().src()), (B, (B, 500)));
    }
    // Without the SPI nobody can tell; with one that is nobody's, or an absurd MTU, it is dropped.
    let stranger = from(B, &encrypted(MAIN, 99, 902, 0)).from(WAN, 500);
    let rows = [
        (error(3, 3, HOP, WAN, &quote.head(8)), DropReason::UnknownQuote),
        (error(3, 3, HOP, WAN, &quote.head(15)), DropReason::UnknownQuote),
        (error(3, 3, HOP, WAN, &stranger.bytes()), DropReason::UnknownQuote),
        (too_big(575, HOP, WAN, &quote.bytes()), DropReason::MtuTooSmall),
        (error(5, 1, HOP, WAN, &quote.bytes()), DropReason::RefusedIcmp),
    ];
    for (packet, reason) in rows {
        assert_eq!(w.wan(&packet), Out::Dropped(reason));
    }
    // The holder of 500 has the NAT.
    let quote = from(A, &begins(MAIN, 0xa, false)).from(WAN, 500);
    assert_eq!(w.wan(&error(3, 3, HOP, WAN, &quote.bytes())).sent().dst().0, A);
}

#[test]
fn switched_off_all_of_ipsec_is_refused_at_once() {
    let off = Access { on: false, ..Settings::default().ipsec };
    let mut w = World::vpn(Settings { ipsec: off, ..Settings::default() });
    let packets = [
        from(A, &begins(MAIN, 1, false)),
        udp((A, 4500), (S, 4500)).payload(&[0xff]),
        udp((A, 40_000), (S, 4500)).payload(&[0xff]),
        portless(50, A, S, &[0, 0, 0x10, 0, 0, 0, 0, 1]),
        portless(51, A, S, &[4, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]),
    ];
    for (n, packet) in (1..).zip(&packets) {
        assert_eq!(w.lan(packet), Out::Dropped(DropReason::IpsecOff), "{packet:?}");
        let told = w.transmits();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].src().0, told[0].dst().0, &told[0].0[20..22]), (ROUTER, A, &[3, 13][..]));
        assert_eq!(told[0].quote().unwrap().0[..20], packet.bytes()[..20]);
        assert_eq!((w.drops(DropReason::IpsecOff), w.notes(Note::VpnRefused)), (n, n));
        w.advance(1);
    }
    assert_eq!((w.sessions(), w.engine.sessions(w.now)), (vec![], vec![]), "nothing is remembered");
    assert_eq!(
        w.wan(&portless(50, S, WAN, &[0, 0, 0x10, 0, 0, 0, 0, 1])),
        Out::Dropped(DropReason::EspNoGate)
    );
    w.lan(&udp((A, 40_000), (S, 53))).sent();
}

#[test]
fn the_lists_say_which_devices_and_servers() {
    let only = |addr| vec![Prefix { addr, len: 32 }];
    let ipsec = Access { devices: only(A), servers: only(S), ..Settings::default().ipsec };
    let mut w = World::vpn(Settings { ipsec, ..Settings::default() });
    for (device, server, may) in [(A, S, true), (A, T, false), (B, S, false)] {
        for packet in [
            from(device, &begins(MAIN, 1, false)).to(server, 500),
            portless(50, device, server, &[0, 0, 0x10, 0, 0, 0, 0, 1]),
        ] {
            let out = w.lan(&packet);
            if may {
                out.sent();
            } else {
                assert_eq!(out, Out::Dropped(DropReason::VpnNotAllowed));
                assert_eq!(refusals(&mut w), [device]);
            }
        }
    }
}

#[test]
fn with_multi_off_the_second_device_of_a_server_is_refused_until_the_first_is_gone() {
    let mut w = World::vpn(Settings { multi: false, ..Settings::default() });
    establish(&mut w, A, 1);
    for packet in [
        from(B, &begins(MAIN, 2, true)),
        udp((B, 4500), (S, 4500)).payload(&marked(&begins(MAIN, 2, true))),
        portless(50, B, S, &[0, 0, 0x10, 0, 0, 0, 0, 1]),
    ] {
        assert_eq!(w.lan(&packet), Out::Dropped(DropReason::VpnSecondDevice));
        assert_eq!(refusals(&mut w), [B]);
    }
    w.lan(&from(B, &begins(MAIN, 2, true)).to(T, 500)).sent();
    let on = from(A, &encrypted(MAIN, 1, 901, 0));
    assert_eq!(w.lan(&on), sent(&on.from(WAN, 500)), "the first goes on");
    let answer = udp((S, 500), (WAN, 500)).payload(&encrypted(MAIN, 1, 901, 0));
    assert_eq!(w.wan(&answer), sent(&answer.to(A, 500)));
    w.advance(3700);
    w.lan(&from(B, &begins(MAIN, 3, true))).sent();
    assert_eq!(w.lan(&from(A, &begins(MAIN, 4, true))), Out::Dropped(DropReason::VpnSecondDevice));
    // ESP without IKE counts as well.
    let esp = portless(50, C, T, &[0, 0, 0x10, 0, 0, 0, 0, 1]);
    w.advance(3700);
    w.lan(&esp).sent();
    assert_eq!(w.lan(&from(B, &begins(MAIN, 5, true)).to(T, 500)), Out::Dropped(DropReason::VpnSecondDevice));
    w.lan(&esp).sent();
}

#[test]
fn ah_is_refused_and_named() {
    let mut w = World::new();
    let ah = portless(51, A, S, &[4, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]);
    assert_eq!(w.lan(&ah), Out::Dropped(DropReason::AhUntranslatable));
    assert_eq!(refusals(&mut w), [A]);
    assert_eq!(w.drops(DropReason::AhUntranslatable), 1);
    let inbound = portless(51, S, WAN, &[4, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]);
    assert_ne!(w.wan(&inbound), sent(&inbound.to(A, 0)));
    assert_eq!(w.engine.sessions(w.now), vec![]);
}

#[test]
fn the_router_s_own_ike_passes() {
    let mut w = World::new();
    let begin = udp((WAN, 500), (S, 500)).payload(&begins(SA_INIT, 1, true));
    assert_eq!(w.router(&begin), Out::Passed);
    let answer = udp((S, 500), (WAN, 500)).payload(&answers(SA_INIT, 1, 901, true));
    assert_eq!(w.wan(&answer), Out::Passed);
    // A device that comes later shares 500 with it.
    w.lan(&from(B, &begins(SA_INIT, 2, false))).sent();
    let for_b = udp((S, 500), (WAN, 500)).payload(&answers(SA_INIT, 2, 902, false));
    assert_eq!(w.wan(&for_b), sent(&for_b.to(B, 500)));
    assert_eq!(w.wan(&answer), Out::Passed, "the router's is still the router's");
}

#[test]
fn a_device_has_a_limited_number_of_ike_sas_and_takes_none_from_others() {
    let mut w = World::new();
    establish(&mut w, B, 2);
    for spi in 1000..1500 {
        w.lan(&from(A, &begins(MAIN, spi, false))).sent();
    }
    let count = |w: &World, device| {
        let views = w.engine.sessions(w.now);
        views.iter().filter(|view| view.device == device).map(|view| view.ids.len()).sum::<usize>()
    };
    assert_eq!((count(&w, A), count(&w, B)), (64, 1));
    establish(&mut w, C, 3);
    // Nor does what comes from outside make any.
    for spi in 2000..2500 {
        w.wan(&udp((S, 500), (WAN, 500)).payload(&begins(MAIN, spi, false)));
    }
    w.effects();
    assert_eq!((count(&w, A), count(&w, B), count(&w, C)), (64, 1, 1));
    // What nobody has answered is forgotten soon.
    w.advance(200);
    assert_eq!((count(&w, A), count(&w, B)), (0, 1));
}

#[test]
fn a_session_shows_its_phase_port_and_spis() {
    let mut w = World::new();
    keep_500(&mut w);
    w.lan(&from(B, &begins(SA_INIT, 2, false))).sent();
    let view = |w: &World| w.engine.sessions(w.now).into_iter().find(|view| view.device == B).unwrap();
    assert_eq!(
        (view(&w).vpn, view(&w).phase, view(&w).remark),
        (Vpn::Ike, Phase::Handshake, "shares port 500")
    );
    w.wan(&udp((S, 500), (WAN, 500)).payload(&answers(SA_INIT, 2, 902, false))).sent();
    w.lan(&from(B, &v2_encrypted(2, 902, AUTH, INITIATOR, 1))).sent();
    let shown = view(&w);
    assert_eq!((shown.vpn, shown.phase, shown.packets), (Vpn::Esp, Phase::Established, [2, 1]));
    let ids = shown.ids[0];
    assert_eq!((ids.what, ids.inside, ids.outside, ids.remote), ("ike", Some(2), Some(500), Some(902)));
    w.advance(121);
    assert_eq!(view(&w).phase, Phase::Idle);
}

#[test]
fn nat_t_is_told_from_ike_and_followed_in_both_directions() {
    let mut w = World::new();
    let port = w.lan(&from(A, &begins(SA_INIT, 1, true))).sent().src().1;
    w.wan(&udp((S, 500), (WAN, port)).payload(&answers(SA_INIT, 1, 901, true))).sent();
    let auth = udp((A, 4500), (S, 4500)).payload(&marked(&v2_encrypted(1, 901, AUTH, INITIATOR, 1)));
    let port = w.lan(&auth).sent().src().1;
    let view = |w: &World| w.engine.sessions(w.now).remove(0);
    assert_eq!((view(&w).vpn, view(&w).phase), (Vpn::NatTraversal, Phase::Established));
    let esp = udp((S, 4500), (WAN, port)).payload(&[0, 0, 0x10, 0, 0, 0, 0, 1, 9, 9]);
    assert_eq!(w.wan(&esp), sent(&esp.to(A, 4500)));
    assert_eq!(view(&w).phase, Phase::Data);
    w.advance(60);
    w.lan(&udp((A, 4500), (S, 4500)).payload(&[0xff])).sent();
    assert_eq!(view(&w).phase, Phase::Keepalive);
    let mapped = too_big(1400, HOP, WAN, &udp((WAN, port), (S, 4500)).payload(&[0xff]).bytes());
    assert_eq!(w.wan(&mapped).sent().dst().0, A, "an error about UDP 4500");
}

/// A holds 500 and does not offer NAT-T; nobody has answered it.
pub(crate) fn keep_500(w: &mut World) {
    assert_eq!(w.lan(&from(A, &begins(MAIN, 0xa, false))).sent().src(), (WAN, 500));
}

/// An IKEv1 SA without NAT-T of `device` with S; the responder's SPI is 900 more.
pub(crate) fn establish(w: &mut World, device: Ipv4Addr, spi: u64) {
    assert_eq!(w.lan(&from(device, &begins(MAIN, spi, false))).sent().src(), (WAN, 500));
    let answer = udp((S, 500), (WAN, 500)).payload(&answers(MAIN, spi, 900 + spi, false));
    assert_eq!(w.wan(&answer), sent(&answer.to(device, 500)));
}

/// What the engine sends beside the packet that was decided: to whom, and that conntrack was told before.
pub(crate) fn copies(w: &mut World) -> Vec<(Ipv4Addr, Wire)> {
    let mut admitted = None;
    let mut copies = Vec::new();
    for effect in w.effects() {
        match effect {
            Effect::Admit(admission) => {
                assert_eq!(admitted.replace(admission.original.src.addr), None);
            }
            Effect::Transmit(bytes) => {
                let wire = Wire(bytes);
                assert!(crate::packets::checksums_hold(&wire.0));
                assert_eq!(admitted.take(), Some(wire.dst().0), "conntrack is told first");
                copies.push((wire.dst().0, wire));
            }
            Effect::Release { .. } => panic!("{effect:?}"),
        }
    }
    assert_eq!(admitted, None);
    copies
}

/// Who was told by ICMP 3/13 that it may not.
pub(crate) fn refusals(w: &mut World) -> Vec<Ipv4Addr> {
    let told = w.transmits().into_iter();
    told.map(|wire| {
        assert_eq!(wire.0[20..22], [3, 13]);
        wire.dst().0
    })
    .collect()
}

/// A datagram from port 500 of `device` to that of S.
pub(crate) fn from(device: Ipv4Addr, message: &[u8]) -> Packet {
    let ends: (End, End) = ((device, 500), (S, 500));
    udp(ends.0, ends.1).payload(message)
}

/// The message behind the marker of RFC 3948.
pub(crate) fn marked(message: &[u8]) -> Vec<u8> {
    [&[0; 4], message].concat()
}

const NAT_T_VENDOR: [u8; 16] =
    [0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28, 0xf2, 0x0e, 0x95, 0x45, 0x2f];
const NAT_DETECTION: [u8; 12] = [0, 0, 0x40, 0x04, 1, 2, 3, 4, 5, 6, 7, 8];

/// The first message of an IKE SA.
pub(crate) fn begins(exchange: u8, spi: u64, offers: bool) -> Vec<u8> {
    opening(exchange, spi, 0, INITIATOR, offers)
}

/// Its answer.
pub(crate) fn answers(exchange: u8, spi: u64, responder: u64, offers: bool) -> Vec<u8> {
    opening(exchange, spi, responder, RESPONSE, offers)
}

fn opening(exchange: u8, spi: u64, responder: u64, flags: u8, offers: bool) -> Vec<u8> {
    if exchange == SA_INIT {
        let all: [(u8, &[u8]); 3] = [(33, &[1; 12]), (40, &[2; 16]), (41, &NAT_DETECTION)];
        return v2(spi, responder, exchange, flags, 0, &all[..2 + usize::from(offers)]);
    }
    let all: [(u8, &[u8]); 2] = [(1, &[1; 12]), (13, &NAT_T_VENDOR)];
    message(0x10, spi, responder, exchange, 0, 0, &all[..1 + usize::from(offers)])
}

/// A later message of the exchange of IKEv1, or of IKE_AUTH: nothing in it can be read.
pub(crate) fn encrypted(exchange: u8, spi: u64, responder: u64, id: u32) -> Vec<u8> {
    match exchange {
        SA_INIT => v2_encrypted(spi, responder, AUTH, INITIATOR, 1),
        _ => message(0x10, spi, responder, exchange, 1, id, &[(8, &[7; 24])]),
    }
}

/// An encrypted message of IKEv2.
pub(crate) fn v2_encrypted(spi: u64, responder: u64, exchange: u8, flags: u8, id: u32) -> Vec<u8> {
    v2(spi, responder, exchange, flags, id, &[(46, &[7; 32])])
}

/// A fragment of an IKE_AUTH request (RFC 7383 section 2.5).
pub(crate) fn fragment(spi: u64, responder: u64, number: u8) -> Vec<u8> {
    v2(spi, responder, AUTH, INITIATOR, 1, &[(53, &[0, number, 0, 5, 1, 2, 3, 4])])
}

fn v2(spi: u64, responder: u64, exchange: u8, flags: u8, id: u32, payloads: &[(u8, &[u8])]) -> Vec<u8> {
    message(0x20, spi, responder, exchange, flags, id, payloads)
}

fn message(
    version: u8,
    spi: u64,
    responder: u64,
    exchange: u8,
    flags: u8,
    id: u32,
    payloads: &[(u8, &[u8])],
) -> Vec<u8> {
    let mut bytes = [spi.to_be_bytes(), responder.to_be_bytes()].concat();
    bytes.extend([payloads[0].0, version, exchange, flags]);
    bytes.extend(id.to_be_bytes());
    let length = 28 + payloads.iter().map(|(_, body)| 4 + body.len()).sum::<usize>();
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    for (n, (_, body)) in payloads.iter().enumerate() {
        let next = payloads.get(n + 1).map_or(0, |next| next.0);
        bytes.extend([next, 0]);
        bytes.extend(u16::try_from(4 + body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
    }
    bytes
}
