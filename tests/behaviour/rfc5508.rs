//! RFC 5508: NAT behavioural requirements for ICMP. Hairpinned errors (REQ-7) are in `hairpin.rs`.

use std::time::Duration;

use nat_core::decision::DropReason;
use nat_core::policy::{Filtering, Limits, Policy, Timeouts};

use crate::packets::{A, B, HOP, Kind, Packet, S, T, WAN, error, ping, pong, query, tcp, too_big, udp};
use crate::world::{Out, World, sent};

/// The error with the message changed by `change`, its checksum not made right again.
fn spoiled(packet: &Packet, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = packet.bytes();
    change(&mut bytes);
    bytes
}

fn from_wan(w: &mut World, bytes: &[u8]) -> Out {
    w.at(natd::engine::Stage::FromWan { local_socket: false }, bytes)
}

#[test]
fn rfc5508_req1_queries_pass_and_are_answered() {
    for (ask, answer) in [(8, 0), (13, 14), (15, 16), (17, 18)] {
        let mut w = World::new();
        let request = query(ask, A, S, 777);
        assert_eq!(w.lan(&request), sent(&query(ask, WAN, S, 777)), "{ask}");
        assert_eq!(w.wan(&query(answer, S, WAN, 777)), sent(&query(answer, S, A, 777)), "{answer}");
    }
}

#[test]
fn rfc5508_req1a_query_mapping_is_endpoint_independent() {
    let mut w = World::new();
    w.lan(&ping(B, T, 777)).sent();
    let id = w.lan(&ping(A, S, 777)).sent().src().1;
    assert_ne!(id, 777);
    assert_eq!(w.lan(&ping(A, T, 777)), sent(&ping(WAN, T, id)));
    assert_eq!(w.wan(&pong(T, WAN, id)), sent(&pong(T, A, 777)));
    assert_eq!(w.wan(&pong(T, WAN, 777)), sent(&pong(T, B, 777)));
}

#[test]
fn rfc5508_req1_queries_from_outside_are_for_the_router() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    for id in [0, 1, 777] {
        w.lan(&ping(A, S, id)).sent();
        assert_eq!(w.wan(&ping(T, WAN, id)), Out::Passed, "id {id}");
        assert_eq!(w.wan(&ping(S, WAN, id)), Out::Passed, "id {id}");
    }
}

#[test]
fn rfc5508_req1_an_id_of_zero_is_answered_too() {
    let mut w = World::new();
    let id = w.lan(&ping(A, S, 0)).sent().src().1;
    assert_eq!(w.wan(&pong(S, WAN, id)), sent(&pong(S, A, 0)));
}

#[test]
fn rfc5508_req1_answers_come_only_from_who_was_asked() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&ping(A, S, 777)).sent();
    assert_eq!(w.wan(&pong(T, WAN, 777)), Out::Dropped(DropReason::Filtered));
}

#[test]
fn rfc5508_req1_an_answer_without_a_question_does_not_leave() {
    let mut w = World::new();
    assert_eq!(w.lan(&pong(A, S, 777)), Out::Dropped(DropReason::NoSession));
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn rfc5508_req2_queries_live_sixty_seconds_and_longer_if_wished() {
    for (icmp, secs) in [(Timeouts::default().icmp, 60), (Duration::from_secs(90), 90)] {
        let timeouts = Timeouts { icmp, ..Timeouts::default() };
        let mut w = World::with(Policy { timeouts, ..Policy::default() });
        w.lan(&ping(A, S, 777)).sent();
        assert_eq!(w.left(), secs);
        w.advance(secs - 1);
        w.wan(&pong(S, WAN, 777)).sent();
        w.advance(secs);
        assert_eq!(w.wan(&pong(S, WAN, 777)), Out::Passed);
    }
}

#[test]
fn rfc5508_req3_an_error_with_a_wrong_checksum_is_dropped() {
    let mut w = World::new();
    let quote = w.lan(&udp((A, 40_000), (S, 53))).sent().0;
    let bytes = spoiled(&error(3, 3, S, WAN, &quote), |bytes| bytes[22] ^= 1);
    assert_eq!(from_wan(&mut w, &bytes), Out::Dropped(DropReason::BadChecksum));
}

#[test]
fn rfc5508_req3_a_quoted_header_with_a_wrong_checksum_is_dropped() {
    let mut w = World::new();
    let mut quote = w.lan(&udp((A, 40_000), (S, 53))).sent().0;
    quote[8] ^= 1; // TTL
    assert_eq!(w.wan(&error(3, 3, S, WAN, &quote)), Out::Dropped(DropReason::Malformed));
    // A TTL that a router lowered, and the checksum with it, is right.
    quote[8] ^= 1;
    quote[8] -= 1;
    quote[10] = quote[10].wrapping_add(1);
    w.wan(&error(11, 0, HOP, WAN, &quote)).sent();
}

#[test]
fn rfc5508_req3_the_quoted_transport_checksum_is_not_checked() {
    let mut w = World::new();
    let mut quote = w.lan(&udp((A, 40_000), (S, 53))).sent().0;
    quote[26] ^= 0x55;
    assert!(matches!(w.wan(&error(3, 3, S, WAN, &quote)), Out::Sent(_)));
}

#[test]
fn rfc5508_req3_options_of_the_quoted_header_are_walked() {
    let mut w = World::new();
    let packet = udp((A, 40_000), (S, 53)).options(&[1, 1, 1, 1, 7, 7, 4, 0, 0, 0, 0, 0]);
    let quote = w.lan(&packet).sent();
    assert_eq!(w.wan(&error(3, 3, HOP, WAN, &quote.0)), sent(&error(3, 3, HOP, A, &packet.bytes())));
    // And those of the error's own header.
    let e = error(3, 3, HOP, WAN, &quote.0).options(&[1, 1, 1, 1]);
    assert_eq!(w.wan(&e), sent(&error(3, 3, HOP, A, &packet.bytes()).options(&[1, 1, 1, 1])));
}

#[test]
fn rfc5508_req3_extensions_pass_unharmed() {
    // RFC 4884: the quote padded to 128 bytes, its length in 32-bit words in the second word's second byte,
    // and an extension structure (an MPLS label stack) behind it.
    let mut w = World::new();
    let packet = udp((A, 40_000), (S, 53)).payload(&[9; 100]);
    let extension = [0x20, 0, 0xde, 0xad, 0, 8, 1, 1, 0, 1, 0x21, 0xff];
    let with = |quote: &[u8], src, dst| {
        let mut e = error(11, 0, src, dst, &[quote, &extension].concat());
        e.kind = Kind::Error(11, 0, 32 << 16);
        e
    };
    let quote = w.lan(&packet).sent().0;
    assert_eq!(quote.len(), 128);
    assert_eq!(w.wan(&with(&quote, HOP, WAN)), sent(&with(&packet.bytes(), HOP, A)));
}

#[test]
fn rfc5508_req4_errors_from_outside_are_translated_whatever_is_quoted() {
    let mut w = World::new();
    w.lan(&udp((B, 40_000), (S, 1))).sent();
    w.lan(&tcp((B, 40_000), (S, 1)).syn(1)).sent();
    w.lan(&ping(B, S, 40_000)).sent();
    for packet in [udp((A, 40_000), (S, 53)), tcp((A, 40_000), (S, 53)).syn(77), ping(A, S, 40_000)] {
        let quote = w.lan(&packet).sent();
        for len in [8, 12, 20, 1000] {
            let cut = |bytes: &[u8]| bytes[..bytes.len().min(20 + len)].to_vec();
            let e = error(3, 1, HOP, WAN, &cut(&quote.0));
            let expected = error(3, 1, HOP, A, &cut(&packet.bytes()));
            assert_eq!(w.wan(&e), sent(&expected), "{len} bytes of {packet:?}");
        }
    }
}

#[test]
fn rfc5508_req4_errors_without_a_session_are_dropped() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    for quoted in [
        udp((WAN, 40_001), (S, 53)),
        udp((WAN, 40_000), (S, 54)),
        udp((WAN, 40_000), (T, 53)),
        udp((S, 53), (WAN, 40_000)), // the answer: we did not send it
        udp((A, 40_000), (S, 53)),   // not what was seen on the WAN
    ] {
        let e = error(3, 3, HOP, WAN, &quoted.bytes());
        assert_eq!(w.wan(&e), Out::Dropped(DropReason::UnknownQuote), "{quoted:?}");
    }
}

#[test]
fn rfc5508_req4_quotes_too_short_to_tell_are_dropped() {
    let mut w = World::new();
    let quote = w.lan(&tcp((A, 40_000), (S, 53)).syn(1)).sent().0;
    for len in 0..28 {
        let out = w.wan(&error(3, 1, HOP, WAN, &quote[..len]));
        assert_eq!(out, Out::Dropped(DropReason::Malformed), "{len} bytes");
    }
}

#[test]
fn rfc5508_req5_errors_from_inside_are_translated() {
    let mut w = World::new();
    for (packet, answer) in
        [(udp((A, 40_000), (S, 53)), udp((S, 53), (WAN, 40_000))), (ping(A, S, 777), pong(S, WAN, 777))]
    {
        w.lan(&packet).sent();
        let seen = w.wan(&answer).sent();
        // The device itself, and a router behind which it is: neither address may show.
        for source in [A, B] {
            let e = error(3, 3, source, S, &seen.0);
            assert_eq!(w.lan(&e), sent(&error(3, 3, WAN, S, &answer.bytes())));
        }
        let e = error(3, 3, A, S, &seen.0[..28]);
        assert_eq!(w.lan(&e), sent(&error(3, 3, WAN, S, &answer.bytes()[..28])));
    }
}

#[test]
fn rfc5508_req5_errors_from_inside_without_a_session_are_dropped() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    for quoted in [
        udp((S, 54), (A, 40_000)),
        udp((S, 53), (B, 40_000)),
        udp((A, 40_000), (S, 53)),
        udp((S, 53), (WAN, 40_000)),
    ] {
        let e = error(3, 3, A, S, &quoted.bytes());
        assert_eq!(w.lan(&e), Out::Dropped(DropReason::UnknownQuote), "{quoted:?}");
    }
}

#[test]
fn rfc5508_req6_errors_touch_no_session_in_either_direction() {
    let mut w = World::new();
    let quote = w.lan(&udp((A, 40_000), (S, 53))).sent().0;
    let seen = w.wan(&udp((S, 53), (WAN, 40_000))).sent().0;
    w.advance(100);
    let before = w.sessions();
    w.wan(&error(3, 3, S, WAN, &quote)).sent();
    w.wan(&too_big(1400, HOP, WAN, &quote)).sent();
    w.lan(&error(3, 3, A, S, &seen)).sent();
    assert_eq!(w.sessions(), before);
}

#[test]
fn rfc5508_req8_a_refused_query_is_answered_with_prohibited() {
    let limits = Limits { sessions: 1, ..Limits::default() };
    let mut w = World::with(Policy { limits, ..Policy::default() });
    w.lan(&ping(A, S, 1)).sent();
    let refused = ping(B, S, 2);
    assert_eq!(w.lan(&refused), Out::Dropped(DropReason::TableFull));
    let told = w.transmits().remove(0);
    assert_eq!((told.0[20..22].to_vec(), told.dst().0), (vec![3, 13], B));
    assert_eq!(told.quote().unwrap().0, refused.bytes());
}

#[test]
fn rfc5508_req8_a_refusal_quotes_at_most_what_fits_576_bytes() {
    let limits = Limits { sessions: 0, ..Limits::default() };
    let mut w = World::with(Policy { limits, ..Policy::default() });
    let refused = udp((B, 1), (S, 2)).payload(&[3; 1400]);
    w.lan(&refused);
    let told = w.transmits().remove(0);
    assert_eq!(told.0.len(), 576);
    assert_eq!(told.quote().unwrap().0, refused.bytes()[..548]);
}

#[test]
fn rfc5508_req9_deprecated_and_routing_messages_do_not_cross() {
    let mut w = World::new();
    let quote = w.lan(&udp((A, 40_000), (S, 53))).sent().0;
    assert_eq!(w.wan(&error(4, 0, HOP, WAN, &quote)), Out::Dropped(DropReason::RefusedIcmp)); // RFC 6633
    assert_eq!(w.lan(&error(5, 1, A, S, &quote)), Out::Dropped(DropReason::RefusedIcmp));
    assert_eq!(w.wan(&error(5, 1, HOP, WAN, &quote)), Out::Passed); // the router's own business
    for kind in [9, 10, 40, 200] {
        assert_eq!(w.lan(&error(kind, 0, A, S, &[])), Out::Dropped(DropReason::UnsupportedProtocol));
        assert_eq!(w.wan(&error(kind, 0, S, WAN, &[])), Out::Passed);
    }
}

#[test]
fn rfc5508_req10_the_three_kinds_of_unreachability_of_rfc1812_pass() {
    let mut w = World::new();
    let packet = udp((A, 40_000), (S, 53));
    let quote = w.lan(&packet).sent().0;
    for (kind, code) in
        [(3, 0), (3, 1), (3, 2), (3, 3), (3, 5), (3, 9), (3, 10), (3, 13), (11, 0), (11, 1), (12, 0)]
    {
        let e = error(kind, code, HOP, WAN, &quote);
        assert_eq!(w.wan(&e), sent(&error(kind, code, HOP, A, &packet.bytes())), "{kind}/{code}");
    }
}

#[test]
fn fragmentation_needed_keeps_its_mtu_and_has_a_lower_bound() {
    let mut w = World::new();
    let packet = udp((A, 40_000), (S, 53));
    let quote = w.lan(&packet).sent().0;
    for mtu in [576, 1280, 1492, 65_535] {
        assert_eq!(w.wan(&too_big(mtu, HOP, WAN, &quote)), sent(&too_big(mtu, HOP, A, &packet.bytes())));
    }
    for mtu in [0, 68, 552, 575] {
        assert_eq!(w.wan(&too_big(mtu, HOP, WAN, &quote)), Out::Dropped(DropReason::MtuTooSmall));
    }
    assert_eq!(w.drops(DropReason::MtuTooSmall), 4);
}

#[test]
fn an_error_about_an_error_is_dropped() {
    let mut w = World::new();
    let quote = w.lan(&udp((A, 40_000), (S, 53))).sent().0;
    let inner = error(3, 3, WAN, S, &quote).bytes();
    assert_eq!(w.wan(&error(3, 3, S, WAN, &inner)), Out::Dropped(DropReason::Malformed));
}

#[test]
fn an_error_about_a_later_fragment_is_dropped() {
    let mut w = World::new();
    let mut quote = w.lan(&udp((A, 40_000), (S, 53))).sent().0;
    (quote[6], quote[7]) = (0, 10);
    (quote[10], quote[11]) = (0, 0);
    let sum = !crate::packets::naive_sum(&quote[..20]);
    quote[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(w.wan(&error(11, 1, HOP, WAN, &quote)), Out::Dropped(DropReason::UnknownQuote));
}
