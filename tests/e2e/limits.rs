//! Quotas, a full table, exhausted ports: the sender hears of it (RFC 5508 REQ-8) and nobody else suffers.

use std::io;
use std::time::Duration;

use testkit::address::{D1, D2, ROUTER_LAN, S1, WAN, at};
use testkit::capture::Keep;
use testkit::{Lab, Node, packet, socket, tcp};

const WAIT: Duration = Duration::from_secs(3);

/// Makes one mapping for each of `ports`; all must come through.
fn fill(device: &Node, addr: std::net::Ipv4Addr, server: &std::net::UdpSocket, ports: std::ops::Range<u16>) {
    let raw = device.raw();
    for port in ports {
        raw.send(&packet::udp(at(addr, port), at(S1, 53), b"map me"));
        socket::receive(server).unwrap_or_else(|error| panic!("port {port}: {error}"));
    }
}

/// `device` is told with ICMP 3/13 that its datagram from `port` was not sent.
fn expect_prohibited(device: &Node, addr: std::net::Ipv4Addr, server: &std::net::UdpSocket, port: u16) {
    let inside = device.capture("eth0", Keep::All);
    device.raw().send(&packet::udp(at(addr, port), at(S1, 53), b"one too many"));
    let error = inside.wait_for("administratively prohibited", WAIT, |wire| wire.is_icmp(3, 13));
    assert_eq!((error.wire.src, error.wire.dst), (ROUTER_LAN, addr));
    let quote = error.wire.quote.clone().expect("it quotes");
    assert_eq!((quote.from(), quote.to()), (at(addr, port), at(S1, 53)));
    assert!(packet::checksums_are_right(&error.bytes));
    socket::expect_silence(server, "the datagram was refused");
}

#[test]
fn a_device_over_its_quota_is_told_and_the_others_are_served() {
    let Some(lab) =
        Lab::household().natd("max_sessions_per_device = 64").beyond_kernel("it has no quota").start()
    else {
        return;
    };
    let server = lab.s1.udp(at(S1, 53));
    fill(&lab.d1, D1, &server, 20_000..20_064);
    expect_prohibited(&lab.d1, D1, &server, 20_064);
    let refused = tcp::connect(&lab.d1, at(D1, 0), at(S1, 80), WAIT).map(drop);
    assert_eq!(
        refused.map_err(|error| error.kind()),
        Err(io::ErrorKind::HostUnreachable),
        "TCP hears of it too"
    );
    fill(&lab.d2, D2, &server, 20_100..20_110);
    fill(&lab.d1, D1, &server, 20_000..20_010);
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old_ones() {
    let Some(lab) = Lab::household()
        .natd("max_sessions = 1024\nmax_sessions_per_device = 1024")
        .beyond_kernel("its table is the kernel's")
        .start()
    else {
        return;
    };
    let server = lab.s1.udp(at(S1, 53));
    fill(&lab.d1, D1, &server, 20_000..21_024);
    expect_prohibited(&lab.d2, D2, &server, 30_000);
    fill(&lab.d1, D1, &server, 20_000..20_010);
    let device = lab.d1.udp(at(D1, 20_000));
    assert_eq!(socket::deliver(&server, at(WAN, 20_000), &device, b"inbound, too"), at(S1, 53));
}

#[test]
fn exhausted_ports_are_refused_and_never_shared() {
    let Some(lab) = Lab::household()
        .natd("ports = \"2000-3023\"")
        .beyond_kernel("it shares a port between devices that talk to different servers")
        .start()
    else {
        return;
    };
    let server = lab.s1.udp(at(S1, 53));
    let raw = lab.d1.raw();
    let mut external: Vec<u16> = (40_000..41_024)
        .map(|port| {
            raw.send(&packet::udp(at(D1, port), at(S1, 53), b"map me"));
            let (_, from) = socket::receive(&server).unwrap_or_else(|error| panic!("port {port}: {error}"));
            from.port()
        })
        .collect();
    external.sort_unstable();
    assert_eq!(external, (2000..3024).collect::<Vec<u16>>(), "every port of the range, each once");
    expect_prohibited(&lab.d2, D2, &server, 30_000);
}
