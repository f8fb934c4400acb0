//! Hairpinning (RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7): devices reach each other through the WAN
//! address, and the peer sees an external address and port.

use std::io;

use testkit::address::{D1, D2, GUEST, S1, WAN, at};
use testkit::{Forward, Lab, socket, tcp, traffic};

#[test]
fn a_device_reaches_a_forwarded_udp_port_on_its_own_lan() {
    let Some(lab) = Lab::household().forward(Forward::udp(5000, D1, 5001)).start() else { return };
    let host = lab.d1.udp(at(D1, 5001));
    let peer = lab.d2.udp(at(D2, 6000));
    let seen = socket::deliver(&peer, at(WAN, 5000), &host, b"hello");
    assert_eq!(*seen.ip(), WAN, "the host sees the external address (REQ-9)");
    assert_eq!(socket::deliver(&host, seen, &peer, b"answer"), at(WAN, 5000));
}

#[test]
fn a_device_reaches_a_forwarded_tcp_port_on_its_own_lan() {
    let Some(lab) = Lab::household().forward(Forward::tcp(8080, D1, 80)).start() else { return };
    let mut connection = tcp::pair_through(&lab.d2, at(D2, 0), at(WAN, 8080), &lab.d1, at(D1, 80));
    assert_eq!(*connection.peer.ip(), WAN);
    connection.expect_alive("hairpinned");
    let (mut sender, mut receiver) = (connection.client, connection.server);
    let sending = std::thread::spawn(move || tcp::send_blocks(&mut sender, 64));
    assert_eq!(tcp::receive_blocks(&mut receiver).expect("4 MB"), 64);
    sending.join().expect("no panic").expect("all is sent");
}

#[test]
fn a_device_reaches_its_own_forwarded_port() {
    let Some(lab) = Lab::household().forward(Forward::udp(5000, D1, 5001)).start() else { return };
    let host = lab.d1.udp(at(D1, 5001));
    let own = lab.d1.udp(at(D1, 6000));
    let seen = socket::deliver(&own, at(WAN, 5000), &host, b"hello");
    assert_eq!(*seen.ip(), WAN);
    assert_eq!(socket::deliver(&host, seen, &own, b"answer"), at(WAN, 5000));
}

#[test]
fn devices_on_two_lan_interfaces_reach_each_other_through_the_wan_address() {
    let Some(lab) = Lab::household()
        .second_lan()
        .forward(Forward::udp(5000, D1, 5001))
        .forward(Forward::tcp(8080, GUEST, 80))
        .start()
    else {
        return;
    };
    let host = lab.d1.udp(at(D1, 5001));
    let guest = lab.guest().udp(at(GUEST, 6000));
    let seen = socket::deliver(&guest, at(WAN, 5000), &host, b"hello");
    assert_eq!(*seen.ip(), WAN);
    assert_eq!(socket::deliver(&host, seen, &guest, b"answer"), at(WAN, 5000));
    let mut connection = tcp::pair_through(&lab.d2, at(D2, 0), at(WAN, 8080), lab.guest(), at(GUEST, 80));
    assert_eq!(*connection.peer.ip(), WAN);
    connection.expect_alive("between two LANs");
}

#[test]
fn two_mapped_ports_reach_each_other_when_the_filter_lets_anyone_in() {
    let Some(lab) = Lab::household()
        .natd("filtering = \"endpoint-independent\"")
        .beyond_kernel("it filters by address and port")
        .start()
    else {
        return;
    };
    let server = lab.s1.udp(at(S1, 3478));
    let (one, two) = (lab.d1.udp(at(D1, 6001)), lab.d2.udp(at(D2, 6002)));
    let wan_one = socket::deliver(&one, at(S1, 3478), &server, b"map me");
    let wan_two = socket::deliver(&two, at(S1, 3478), &server, b"map me");
    assert_eq!(socket::deliver(&one, wan_two, &two, b"peer to peer"), wan_one);
    assert_eq!(socket::deliver(&two, wan_one, &one, b"and back"), wan_two);
}

#[test]
fn datagrams_of_4000_bytes_hairpin() {
    let Some(lab) = Lab::household().forward(Forward::udp(5000, D1, 5001)).start() else { return };
    let host = lab.d1.udp(at(D1, 5001));
    let peer = lab.d2.udp(at(D2, 6000));
    let seen = socket::deliver(&peer, at(WAN, 5000), &host, &[1; 4000]);
    assert_eq!(socket::deliver(&host, seen, &peer, &[2; 4000]), at(WAN, 5000));
}

#[test]
fn an_error_from_a_hairpinned_device_finds_its_way_back() {
    let Some(lab) = Lab::household().forward(Forward::udp(5000, D1, 5001)).start() else { return };
    let peer = lab.d2.udp(at(D2, 6000));
    peer.connect(at(WAN, 5000)).expect("a UDP socket can be connected");
    peer.send(b"anyone?").expect("it is sent");
    let refused = socket::receive(&peer).map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
}

#[test]
fn with_hairpin_off_nothing_is_delivered() {
    let Some(lab) = Lab::household()
        .natd("hairpin = false")
        .forward(Forward::udp(5000, D1, 5001))
        .beyond_kernel("the lab's rules for it always hairpin")
        .start()
    else {
        return;
    };
    let host = lab.d1.udp(at(D1, 5001));
    lab.d2.udp(at(D2, 6000)).send_to(b"hello", at(WAN, 5000)).expect("it is sent");
    socket::expect_silence(&host, "hairpin = false");
}

#[test]
fn the_routers_own_service_on_the_wan_address_is_reachable_from_the_lan() {
    let Some(lab) = Lab::household().start() else { return };
    let _web = traffic::tcp_answer(&lab.router, at(WAN, 80), b"router");
    let _wildcard = traffic::tcp_answer(&lab.router, at(std::net::Ipv4Addr::UNSPECIFIED, 8081), b"wildcard");
    let dns = lab.router.udp(at(WAN, 53));
    for (device, addr) in [(&lab.d1, D1), (&lab.d2, D2)] {
        assert_eq!(traffic::ask(device, at(addr, 40_000), at(WAN, 80)).unwrap(), b"router");
        assert_eq!(traffic::ask(device, at(addr, 40_001), at(WAN, 8081)).unwrap(), b"wildcard");
        let socket = device.udp(at(addr, 40_002));
        let seen = socket::deliver(&socket, at(WAN, 53), &dns, b"question");
        assert_eq!(socket::deliver(&dns, seen, &socket, b"answer"), at(WAN, 53));
    }
    let said = lab.d1.run(&["ping", "-c", "3", "-i", "0.01", "-W", "2", &WAN.to_string()]);
    assert!(said.stdout.contains(" 0% packet loss"), "{said}");
}

#[test]
fn hairpin_works_where_bridged_packets_pass_the_ip_hooks() {
    let Some(lab) = Lab::household()
        .bridge_filter()
        .forward(Forward::udp(5000, D1, 5001))
        .beyond_kernel("bridged DNAT keeps the device's own source address")
        .start()
    else {
        return;
    };
    let host = lab.d1.udp(at(D1, 5001));
    let peer = lab.d2.udp(at(D2, 6000));
    let seen = socket::deliver(&peer, at(WAN, 5000), &host, b"hello");
    assert_eq!(*seen.ip(), WAN);
    assert_eq!(socket::deliver(&host, seen, &peer, b"answer"), at(WAN, 5000));
}

#[test]
fn what_the_router_says_of_a_hairpinned_packet_names_what_the_device_sent_to() {
    let Some(lab) =
        Lab::household().forward(Forward::udp(5000, D1, 5001)).beyond_kernel("no hairpin").start()
    else {
        return;
    };
    let inside = lab.d2.capture("eth0", testkit::capture::Keep::All);
    let peer = lab.d2.udp(at(D2, 6000));
    peer.set_ttl(1).expect("a TTL can be set");
    peer.send_to(b"too short a life", at(WAN, 5000)).expect("it is sent");
    let error =
        inside.wait_for("time exceeded", std::time::Duration::from_secs(3), |wire| wire.is_icmp(11, 0));
    let quote = error.wire.quote.clone().expect("it quotes");
    assert_eq!((quote.from(), quote.to()), (at(D2, 6000), at(WAN, 5000)), "RFC 5508 REQ-7");
    assert!(testkit::packet::checksums_are_right(&error.bytes));
}
