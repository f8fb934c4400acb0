//! Port forwards and the exposed host.

use std::net::Ipv4Addr;

use testkit::address::{D1, D2, S1, S3, WAN, at};
use testkit::nat::Transport;
use testkit::{Forward, Lab, socket, tcp, traffic};

#[test]
fn a_forwarded_tcp_port_reaches_the_device_and_shows_it_the_client() {
    let Some(lab) = Lab::household().forward(Forward::tcp(8080, D1, 80)).start() else { return };
    let leaks = lab.watch_for_leaks();
    let mut connection = tcp::pair_through(&lab.s1, at(S1, 41_000), at(WAN, 8080), &lab.d1, at(D1, 80));
    assert_eq!(connection.peer, at(S1, 41_000), "the device sees who it is");
    connection.expect_alive("forwarded");
    leaks.expect_no_leak();
}

#[test]
fn a_forwarded_udp_port_reaches_the_device_and_answers_come_from_the_forwarded_port() {
    let Some(lab) = Lab::household().forward(Forward::udp(5000, D1, 5001)).start() else { return };
    let host = lab.d1.udp(at(D1, 5001));
    for (server, addr) in [(&lab.s1, S1), (&lab.s3, S3)] {
        let client = server.udp(at(addr, 6000));
        assert_eq!(socket::deliver(&client, at(WAN, 5000), &host, b"hello"), at(addr, 6000));
        assert_eq!(socket::deliver(&host, at(addr, 6000), &client, b"answer"), at(WAN, 5000));
    }
}

#[test]
fn a_forwarded_range_maps_port_by_port_to_another_range() {
    let range = Forward { transport: Transport::Udp, external: (7000, 7010), host: D2, internal: 9000 };
    let Some(lab) = Lab::household().forward(range).start() else { return };
    let client = lab.s1.udp(at(S1, 6000));
    for (external, internal) in [(7000, 9000), (7005, 9005), (7010, 9010)] {
        let host = lab.d2.udp(at(D2, internal));
        assert_eq!(socket::deliver(&client, at(WAN, external), &host, b"hello"), at(S1, 6000));
        assert_eq!(socket::deliver(&host, at(S1, 6000), &client, b"answer"), at(WAN, external));
    }
    let above = lab.d2.udp(at(D2, 9011));
    client.send_to(b"hello", at(WAN, 7011)).expect("it is sent");
    socket::expect_silence(&above, "7011 is outside the range");
}

#[test]
fn a_device_that_sends_from_its_forwarded_port_shows_the_forwarded_port() {
    let Some(lab) = Lab::household()
        .forward(Forward::udp(5000, D1, 5001))
        .beyond_kernel("its port forwards work in one direction only")
        .start()
    else {
        return;
    };
    let server = lab.s1.udp(at(S1, 53));
    let host = lab.d1.udp(at(D1, 5001));
    assert_eq!(socket::deliver(&host, at(S1, 53), &server, b"I am here"), at(WAN, 5000));
}

#[test]
fn port_443_is_forwarded_while_the_router_listens_on_443() {
    let Some(lab) = Lab::household().forward(Forward::tcp(443, D1, 443)).start() else { return };
    let _router = traffic::tcp_answer(&lab.router, at(Ipv4Addr::UNSPECIFIED, 443), b"router");
    let _device = traffic::tcp_answer(&lab.d1, at(D1, 443), b"device");
    assert_eq!(
        traffic::ask(&lab.s1, at(S1, 0), at(WAN, 443)).unwrap(),
        b"device",
        "an explicit forward wins"
    );
    assert_eq!(traffic::ask(&lab.d2, at(D2, 0), at(testkit::address::ROUTER_LAN, 443)).unwrap(), b"router");
    assert_eq!(traffic::ask(&lab.d2, at(D2, 0), at(WAN, 443)).unwrap(), b"device", "also from the LAN");
}

#[test]
fn the_exposed_host_gets_what_nothing_else_claims() {
    let Some(lab) = Lab::household()
        .natd(&format!("exposed_host = \"{D1}\""))
        .forward(Forward::udp(5000, D2, 5000))
        .beyond_kernel("the lab has no such rule for it")
        .start()
    else {
        return;
    };
    let (exposed, forwarded) = (lab.d1.udp(at(D1, 4444)), lab.d2.udp(at(D2, 5000)));
    let router = lab.router.udp(at(WAN, 6666));
    let client = lab.s1.udp(at(S1, 6000));
    assert_eq!(socket::deliver(&client, at(WAN, 4444), &exposed, b"for d1"), at(S1, 6000));
    assert_eq!(socket::deliver(&exposed, at(S1, 6000), &client, b"answer"), at(WAN, 4444));
    assert_eq!(socket::deliver(&client, at(WAN, 5000), &forwarded, b"for d2"), at(S1, 6000));
    assert_eq!(socket::deliver(&client, at(WAN, 6666), &router, b"for the router"), at(S1, 6000));
    let mut connection = tcp::pair_through(&lab.s1, at(S1, 0), at(WAN, 2222), &lab.d1, at(D1, 2222));
    connection.expect_alive("exposed");
}

#[test]
fn an_unsolicited_datagram_reaches_no_device() {
    let Some(lab) = Lab::household().start() else { return };
    let inside = lab.router.capture("br-lan", testkit::capture::Keep::All);
    let client = lab.s1.udp(at(S1, 6000));
    for port in [1, 80, 5000, 40_000, 65_535] {
        client.send_to(b"hello", at(WAN, port)).expect("it is sent");
    }
    socket::deliver(&lab.d1.udp(at(D1, 6001)), at(S1, 6000), &client, b"the lab works");
    let strays = inside.find(|wire| wire.src == S1);
    assert!(strays.is_empty(), "{strays:?}");
}
