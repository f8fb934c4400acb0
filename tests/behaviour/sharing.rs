//! The router shares the WAN address with its devices.

use nat_core::decision::DropReason;
use nat_core::flow::Protocol;
use nat_core::policy::{Filtering, Policy};

use crate::packets::{A, B, End, HOP, NEW_WAN, ROUTER, S, T, WAN, error, ping, pong, tcp, too_big, udp};
use crate::world::{Out, World, forward, sent};

#[test]
fn the_routers_own_traffic_keeps_its_ports_and_passes_untouched() {
    let mut w = World::new();
    for packet in [
        udp((WAN, 40_000), (S, 53)),
        tcp((WAN, 40_001), (S, 80)).syn(1),
        ping(WAN, S, 7),
        udp((WAN, 123), (S, 123)),
    ] {
        assert_eq!(w.router(&packet), Out::Passed, "{packet:?}");
    }
    for packet in [udp((S, 53), (WAN, 40_000)), tcp((S, 80), (WAN, 40_001)).syn_ack(5, 2), pong(S, WAN, 7)] {
        assert_eq!(w.wan(&packet), Out::Passed, "{packet:?}");
        assert_eq!(w.wan_socket(&packet), Out::Passed, "{packet:?}");
    }
}

#[test]
fn a_device_never_gets_a_port_that_the_router_has() {
    let mut w = World::new();
    assert_eq!(w.router(&udp((WAN, 40_000), (T, 53))), Out::Passed);
    assert_eq!(w.router(&tcp((WAN, 40_000), (T, 53)).syn(1)), Out::Passed);
    assert_eq!(w.router(&ping(WAN, T, 777)), Out::Passed);
    assert_ne!(w.lan(&udp((A, 40_000), (S, 53))).sent().src().1, 40_000);
    assert_ne!(w.lan(&tcp((A, 40_000), (S, 53)).syn(1)).sent().src().1, 40_000);
    assert_ne!(w.lan(&ping(A, S, 777)).sent().src().1, 777);
}

#[test]
fn a_device_never_gets_a_port_on_which_the_router_listens() {
    let mut w = World::new();
    w.listen(&[8080], &[5353]);
    assert_ne!(w.lan(&udp((A, 5353), (S, 53))).sent().src().1, 5353);
    assert_ne!(w.lan(&tcp((A, 8080), (S, 53)).syn(1)).sent().src().1, 8080);
    assert_eq!(w.lan(&udp((A, 8080), (S, 53))).sent().src().1, 8080); // that is TCP's
}

#[test]
fn the_router_gets_its_answers_on_a_port_that_a_device_has() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (T, 9))).sent();
    w.lan(&tcp((A, 40_000), (T, 9)).syn(1)).sent();
    w.lan(&ping(A, T, 777)).sent();
    let query = udp((WAN, 40_000), (S, 53));
    let out = w.router(&query).sent();
    assert_eq!(out.src().0, WAN);
    assert_ne!(out.src().1, 40_000);
    let answer = udp((S, 53), out.src());
    assert_eq!(w.wan(&answer), sent(&answer.to(WAN, 40_000)));

    let port = w.router(&tcp((WAN, 40_000), (S, 80)).syn(1)).sent().src().1;
    let answer = tcp((S, 80), (WAN, port)).syn_ack(5, 2);
    assert_eq!(w.wan(&answer), sent(&answer.to(WAN, 40_000)));

    let id = w.router(&ping(WAN, S, 777)).sent().src().1;
    assert_eq!(w.wan(&pong(S, WAN, id)), sent(&pong(S, WAN, 777)));
    // The device's mapping goes on.
    let packet = udp((T, 9), (WAN, 40_000));
    assert_eq!(w.wan(&packet), sent(&packet.to(A, 40_000)));
}

#[test]
fn five_hundred_queries_while_a_device_has_every_ephemeral_port() {
    let mut w = World::with(Policy {
        limits: nat_core::policy::Limits { sessions_per_device: 30_000, ..Default::default() },
        ..Policy::default()
    });
    for port in 32_768..=60_999 {
        assert_eq!(w.lan(&udp((A, port), (T, 9))).sent().src().1, port);
    }
    for n in 0..500 {
        let port = 32_768 + n * 56;
        let out = w.router(&udp((WAN, port), (S, 53))).sent();
        let answer = udp((S, 53), out.src());
        assert_eq!(w.wan(&answer), sent(&answer.to(WAN, port)));
    }
    for port in 32_768..=60_999 {
        let packet = udp((T, 9), (WAN, port));
        assert_eq!(w.wan(&packet), sent(&packet.to(A, port)));
    }
}

#[test]
fn the_router_and_a_device_ask_one_server_from_one_port() {
    let mut w = World::new();
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    let port = w.router(&udp((WAN, 40_000), (S, 53))).sent().src().1;
    // Each gets its own answer; the router's socket matches the device's one too, but did not ask for it.
    let routers = udp((S, 53), (WAN, port));
    assert_eq!(w.wan(&routers), sent(&routers.to(WAN, 40_000)));
    let devices = udp((S, 53), (WAN, 40_000));
    assert_eq!(w.wan_socket(&devices), sent(&devices.to(A, 40_000)));
}

#[test]
fn a_connected_socket_wins_over_a_mapping_and_a_listener_does_not() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp((A, 40_000), (T, 9))).sent();
    let packet = udp((S, 53), (WAN, 40_000));
    assert_eq!(w.wan_socket(&packet), Out::Passed);
    assert_eq!(w.wan(&packet), sent(&packet.to(A, 40_000)));
    // A connection from before natd's start, which the forward would claim.
    let mut w = World::forwards(&[forward(Protocol::Tcp, 443, 443, A, 443)]);
    w.listen(&[443], &[]);
    assert_eq!(w.wan_socket(&tcp((S, 5000), (WAN, 443)).ack(1, 1)), Out::Passed);
    w.wan(&tcp((S, 5001), (WAN, 443)).syn(1)).sent();
}

#[test]
fn strangers_reach_a_service_of_the_router_on_a_port_that_a_device_has() {
    let mut w = World::new();
    w.lan(&tcp((A, 8080), (S, 80)).syn(1)).sent();
    w.listen(&[8080], &[]);
    assert_eq!(w.wan(&tcp((T, 5), (WAN, 8080)).syn(1)), Out::Passed);
    w.wan(&tcp((S, 80), (WAN, 8080)).syn_ack(1, 2)).sent();
}

#[test]
fn services_of_the_router_answer_without_filling_the_table() {
    let mut w = World::new();
    w.listen(&[22], &[53]);
    for n in 1..=100 {
        assert_eq!(w.wan(&udp((T, n), (WAN, 53))), Out::Passed);
        assert_eq!(w.router(&udp((WAN, 53), (T, n))), Out::Passed);
        assert_eq!(w.router(&tcp((WAN, 22), (T, n)).syn_ack(1, 1)), Out::Passed);
        assert_eq!(w.router(&tcp((WAN, 7777), (T, n)).rst_ack(0, 1)), Out::Passed);
        assert_eq!(w.router(&pong(WAN, T, n)), Out::Passed);
    }
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn a_full_table_does_not_stop_the_router() {
    let limits = nat_core::policy::Limits { sessions: 1, ..Default::default() };
    let mut w = World::with(Policy { limits, ..Policy::default() });
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    assert_eq!(w.router(&udp((WAN, 50_000), (S, 53))), Out::Passed);
    // But it does not speak with a device's port.
    assert!(matches!(w.router(&udp((WAN, 40_000), (T, 53))), Out::Dropped(_)));
}

#[test]
fn what_the_router_sends_from_its_lan_address_is_translated() {
    let mut w = World::new();
    let packet = udp((ROUTER, 40_000), (S, 53));
    assert_eq!(w.router(&packet), sent(&packet.from(WAN, 40_000)));
    let answer = udp((S, 53), (WAN, 40_000));
    assert_eq!(w.wan(&answer), sent(&answer.to(ROUTER, 40_000)));
}

#[test]
fn other_addresses_and_broadcasts_are_none_of_ours() {
    let mut w = World::new();
    for (src, dst) in [
        (WAN, [224, 0, 0, 251].into()),
        (WAN, std::net::Ipv4Addr::BROADCAST),
        (NEW_WAN, S),
        (std::net::Ipv4Addr::UNSPECIFIED, std::net::Ipv4Addr::BROADCAST),
    ] {
        assert_eq!(w.router(&udp((src, 68), (dst, 67))), Out::Passed);
    }
    assert_eq!(w.wan(&udp((S, 67), (std::net::Ipv4Addr::BROADCAST, 68))), Out::Passed);
    assert_eq!(w.wan(&udp((S, 67), (NEW_WAN, 68))), Out::Passed);
    assert_eq!(w.sessions().len(), 0);
}

/// The router's errors about what the server sent to the device, with the router's address `src`.
fn router_errors(w: &mut World, src: std::net::Ipv4Addr) {
    let device: End = (A, 40_000);
    w.lan(&udp(device, (S, 53))).sent();
    let answer = udp((S, 53), (WAN, 40_000));
    let seen = w.wan(&answer).sent().0;
    for (kind, code) in [(11, 0), (3, 1), (3, 13), (3, 3)] {
        let out = w.router(&error(kind, code, src, S, &seen));
        assert_eq!(out, sent(&error(kind, code, WAN, S, &answer.bytes())), "{kind}/{code} from {src}");
        let out = w.router(&error(kind, code, src, S, &seen[..28]));
        assert_eq!(out, sent(&error(kind, code, WAN, S, &answer.bytes()[..28])), "{kind}/{code} from {src}");
    }
    let out = w.router(&too_big(1280, src, S, &seen));
    assert_eq!(out, sent(&too_big(1280, WAN, S, &answer.bytes())));
}

#[test]
fn errors_that_the_router_makes_are_translated_back() {
    for src in [WAN, ROUTER, NEW_WAN] {
        router_errors(&mut World::new(), src);
    }
}

#[test]
fn an_error_that_the_router_makes_about_a_forward_shows_the_external_port() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 443, 443, A, 8443)]);
    let syn = tcp((S, 5000), (WAN, 443)).syn(1);
    let seen = w.wan(&syn).sent().0;
    assert_eq!(w.router(&error(3, 1, WAN, S, &seen)), sent(&error(3, 1, WAN, S, &syn.bytes())));
}

#[test]
fn an_error_of_the_router_that_cannot_be_translated_does_not_leave() {
    let mut w = World::new();
    for quoted in [udp((S, 53), (A, 40_000)), udp((A, 40_000), (S, 53)), udp((S, 53), (B, 1))] {
        for src in [WAN, ROUTER, NEW_WAN] {
            let out = w.router(&error(11, 0, src, S, &quoted.bytes()));
            assert!(matches!(out, Out::Dropped(_)), "{quoted:?} from {src}: {out:?}");
            // Cut off too short to tell the ports, the addresses still show.
            let out = w.router(&error(11, 0, src, S, &quoted.head(4)));
            assert!(matches!(out, Out::Dropped(_)), "{quoted:?} from {src}: {out:?}");
        }
    }
}

#[test]
fn an_error_of_the_router_about_what_was_sent_to_itself_passes() {
    let mut w = World::new();
    let stray = udp((T, 9), (WAN, 7777));
    assert_eq!(w.wan(&stray), Out::Passed);
    assert_eq!(w.router(&error(3, 3, WAN, T, &stray.bytes())), Out::Passed);
}

#[test]
fn errors_about_the_routers_own_packets_are_the_routers() {
    let mut w = World::new();
    let query = udp((WAN, 40_000), (S, 53));
    assert_eq!(w.router(&query), Out::Passed);
    assert_eq!(w.wan(&error(3, 3, S, WAN, &query.bytes())), Out::Passed);
    // What the server sent is not the router's to hear of.
    let answer = udp((S, 53), (WAN, 40_000)).bytes();
    assert_eq!(w.wan(&error(3, 3, S, WAN, &answer)), Out::Dropped(DropReason::UnknownQuote));
    // Translated because a device has the port: the router must recognise its packet.
    w.lan(&udp((A, 50_000), (T, 9))).sent();
    let query = udp((WAN, 50_000), (S, 53));
    let quote = w.router(&query).sent().0;
    assert_eq!(w.wan(&error(3, 3, S, WAN, &quote)), sent(&error(3, 3, S, WAN, &query.bytes())));
}

#[test]
fn errors_about_a_service_of_the_router_reach_its_socket() {
    // Path MTU discovery of a connection to the router itself, of which natd keeps no record.
    let mut w = World::new();
    w.listen(&[22], &[]);
    let data = tcp((WAN, 22), (T, 5000)).data(1, 1, 1400);
    assert_eq!(w.router(&data), Out::Passed);
    assert_eq!(w.wan_socket(&too_big(1400, HOP, WAN, &data.head(8))), Out::Passed);
    // Without a socket it is about nothing that was sent.
    assert_eq!(w.wan(&too_big(1400, HOP, WAN, &data.head(8))), Out::Dropped(DropReason::UnknownQuote));
}

#[test]
fn a_reset_that_the_firewall_makes_in_a_devices_name_is_translated() {
    let mut w = World::new();
    w.connect((A, 40_000), (S, 443));
    let reset = tcp((A, 40_000), (S, 443)).rst_ack(101, 501);
    assert_eq!(w.router(&reset), sent(&reset.from(WAN, 40_000)));
    // In the name of a connection that we do not know, it may not leave.
    let reset = tcp((A, 40_001), (S, 443)).rst_ack(101, 501);
    assert_eq!(w.router(&reset), Out::Dropped(DropReason::NoSession));
}
