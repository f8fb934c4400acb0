//! The router shares the WAN address with its devices: its own sockets get their answers, whatever ports the
//! devices' mappings hold.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::address::{D1, D2, S1, S2, WAN, at};
use testkit::capture::Keep;
use testkit::{Lab, packet, socket, tcp, traffic, wait_for};

/// Linux takes the ports of its own sockets from these.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;
const UNSPECIFIED: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[test]
fn five_hundred_dns_queries_of_the_router_are_answered_while_a_device_holds_every_ephemeral_port() {
    let Some(lab) = Lab::household()
        .natd("max_sessions = 65536\nmax_sessions_per_device = 40000")
        .beyond_kernel("it gives up after 128 tries to find the query a free port")
        .start()
    else {
        return;
    };
    // Answers that nobody waits for must not come back as errors.
    lab.d1.nft("table ip quiet {\n chain output {\n  type filter hook output priority 0;\n  ip protocol icmp drop\n }\n}\n");
    lab.router.sysctl("netfilter/nf_conntrack_udp_timeout", "300");
    let server = lab.s1.udp(at(S1, 53));
    let device = lab.d1.raw();
    let ports: Vec<u16> = EPHEMERAL.collect();
    for batch in ports.chunks(100) {
        for port in batch {
            device.send(&packet::udp(at(D1, *port), at(S1, 53), b"map me"));
        }
        let mut seen: Vec<u16> = batch
            .iter()
            .map(|_| socket::receive(&server).unwrap_or_else(|error| panic!("ports {batch:?}: {error}")))
            .map(|(_, from)| from.port())
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, batch, "each port is preserved");
    }
    drop(server);

    let servers = [traffic::udp_echo(&lab.s1, at(S1, 53)), traffic::udp_echo(&lab.s2, at(S2, 53))];
    let mut sockets = Vec::new();
    for query in 0..500u16 {
        let resolver = lab.router.udp(at(UNSPECIFIED, 0));
        let server = if query % 2 == 0 { S1 } else { S2 };
        resolver.send_to(&query.to_be_bytes(), at(server, 53)).expect("it is sent");
        let (answer, from) = socket::receive(&resolver)
            .unwrap_or_else(|error| panic!("query {query} from {:?}: {error}", resolver.local_addr()));
        assert_eq!((answer, from), (query.to_be_bytes().to_vec(), at(server, 53)));
        // Kept open, so that each query has a port of its own.
        sockets.push(resolver);
    }
    drop((servers, sockets));

    let inside = lab.d1.capture("eth0", Keep::All);
    let server = lab.s1.udp(at(S1, 53));
    for (number, batch) in ports.chunks(100).enumerate() {
        for port in batch {
            server.send_to(b"still mapped?", at(WAN, *port)).expect("it is sent");
        }
        let expected = u64::try_from(number * 100 + batch.len()).expect("a small number");
        wait_for("answers to mappings", Duration::from_secs(5), || inside.count() >= expected);
    }
    let mut reached: Vec<u16> =
        inside.find(|wire| wire.from() == at(S1, 53)).iter().map(|seen| seen.wire.dst_port).collect();
    reached.sort_unstable();
    reached.dedup();
    assert_eq!(reached.len(), ports.len(), "mappings that still work");
}

#[test]
fn the_routers_own_programs_work_beside_the_devices() {
    let Some(lab) = Lab::household().start() else { return };
    let _answers =
        [traffic::tcp_answer(&lab.s1, at(S1, 80), b"s1"), traffic::tcp_answer(&lab.s2, at(S2, 80), b"s2")];
    assert_eq!(traffic::ask(&lab.d1, at(D1, 45_000), at(S1, 80)).unwrap(), b"s1");
    for server in [S1, S2] {
        let said = lab.router.run(&["ping", "-c", "5", "-i", "0.01", "-W", "2", &server.to_string()]);
        assert!(said.stdout.contains(" 0% packet loss"), "{said}");
        traffic::ask(&lab.router, at(UNSPECIFIED, 0), at(server, 80)).expect("the router's own client");
    }
    // The same source port that a device's mapping holds.
    assert_eq!(traffic::ask(&lab.router, at(UNSPECIFIED, 45_000), at(S2, 80)).unwrap(), b"s2");
    let said = lab.router.run(&["traceroute", "-n", "-w", "2", "-q", "1", &testkit::address::S3.to_string()]);
    assert!(said.stdout.contains("203.0.113.10"), "{said}");
}

#[test]
fn a_router_socket_that_opened_after_a_mapping_took_its_port_gets_its_answers() {
    let Some(lab) = Lab::household().start() else { return };
    let (one, two) = (lab.s1.udp(at(S1, 53)), lab.s2.udp(at(S2, 53)));
    let device = lab.d1.udp(at(D1, 45_000));
    let wan = socket::deliver(&device, at(S1, 53), &one, b"map me");
    assert_eq!(wan, at(WAN, 45_000));
    for local in [UNSPECIFIED, WAN] {
        let router = lab.router.udp(at(local, 45_000));
        let seen = socket::deliver(&router, at(S2, 53), &two, b"router's question");
        assert_eq!(*seen.ip(), WAN);
        assert_eq!(socket::deliver(&two, seen, &router, b"router's answer"), at(S2, 53), "bound to {local}");
    }
    assert_eq!(socket::deliver(&one, wan, &device, b"the device's answer"), at(S1, 53));
}

#[test]
fn a_router_connection_from_a_mapped_port_works_and_so_does_the_mapping() {
    let Some(lab) = Lab::household().start() else { return };
    let mut device = tcp::pair(&lab.d1, at(D1, 45_000), &lab.s1, at(S1, 80));
    assert_eq!(device.peer, at(WAN, 45_000));
    let mut router = tcp::pair(&lab.router, at(UNSPECIFIED, 45_000), &lab.s2, at(S2, 80));
    router.expect_alive("the router's");
    device.expect_alive("the device's");
    // Even towards the same server and port.
    let mut same = tcp::pair(&lab.router, at(WAN, 45_001), &lab.s2, at(S2, 81));
    same.expect_alive("the router's second");
    device.expect_alive("the device's, still");
}

#[test]
fn a_wildcard_listener_of_the_router_does_not_take_a_devices_answers() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 53));
    let device = lab.d1.udp(at(D1, 45_000));
    let wan = socket::deliver(&device, at(S1, 53), &server, b"map me");
    let _listener = lab.router.udp(at(UNSPECIFIED, 45_000));
    assert_eq!(socket::deliver(&server, wan, &device, b"for the device"), at(S1, 53));
}

#[test]
fn a_device_does_not_get_a_port_that_the_router_is_using() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 53));
    let router = lab.router.udp(at(UNSPECIFIED, 45_000));
    let own = socket::deliver(&router, at(S1, 53), &server, b"the router's");
    assert_eq!(own, at(WAN, 45_000), "the router's own packets keep their port");
    let device = lab.d1.udp(at(D1, 45_000));
    let other = socket::deliver(&device, at(S1, 53), &server, b"the device's");
    assert_ne!(other, own, "no port is given out twice");
    assert_eq!(socket::deliver(&server, own, &router, b"to the router"), at(S1, 53));
    assert_eq!(socket::deliver(&server, other, &device, b"to the device"), at(S1, 53));
}

#[test]
fn the_router_reaches_its_devices_and_itself() {
    let Some(lab) = Lab::household().start() else { return };
    let _web = traffic::tcp_answer(&lab.d2, at(D2, 80), b"d2");
    assert_eq!(traffic::ask(&lab.router, at(UNSPECIFIED, 0), at(D2, 80)).unwrap(), b"d2");
    let _own = traffic::tcp_answer(&lab.router, at(UNSPECIFIED, 8081), b"router");
    assert_eq!(traffic::ask(&lab.router, at(UNSPECIFIED, 0), at(WAN, 8081)).unwrap(), b"router");
}
