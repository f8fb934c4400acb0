//! ICMP: queries, traceroute, and the errors that the router itself makes (RFC 5508).

use std::io;
use std::time::Duration;

use testkit::address::{D1, D2, GATEWAY, ROUTER_LAN, S1, S3, SWITCHED_OFF, WAN, at};
use testkit::{Forward, Lab, packet, socket, tcp};

#[test]
fn ping_loses_nothing() {
    let Some(lab) = Lab::household().start() else { return };
    let leaks = lab.watch_for_leaks();
    for size in ["0", "56", "4000"] {
        let said = lab.d1.run(&["ping", "-c", "10", "-i", "0.01", "-W", "2", "-s", size, &S1.to_string()]);
        assert!(said.stdout.contains(" 0% packet loss"), "{size} bytes: {said}");
    }
    leaks.expect_no_leak();
}

#[test]
fn two_devices_ping_the_same_server_with_the_same_identifier() {
    let Some(lab) = Lab::household().start() else { return };
    let capture = lab.capture_wan();
    let (answers1, answers2) = (
        lab.d1.capture("eth0", testkit::capture::Keep::All),
        lab.d2.capture("eth0", testkit::capture::Keep::All),
    );
    let (raw1, raw2) = (lab.d1.raw(), lab.d2.raw());
    for seq in 1..=5 {
        raw1.send(&packet::echo_request(D1, S1, 4711, seq));
        raw2.send(&packet::echo_request(D2, S1, 4711, seq));
        capture.wait_for("two requests for each sequence number", Duration::from_secs(2), |_| {
            capture.find(|wire| wire.is_icmp(8, 0) && wire.src == WAN).len() == 2 * usize::from(seq)
        });
    }
    for (answers, device) in [(answers1, D1), (answers2, D2)] {
        answers.wait_for("fifth answer", Duration::from_secs(2), |_| {
            answers.find(|wire| wire.is_icmp(0, 0) && wire.dst == device && wire.src_port == 4711).len() == 5
        });
    }
    let mut ids: Vec<u16> =
        capture.find(|wire| wire.is_icmp(8, 0)).iter().map(|seen| seen.wire.src_port).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2, "each device has an identifier of its own on the WAN: {ids:?}");
}

/// The hops that traceroute prints: second word of each numbered line.
fn hops(said: &str) -> Vec<String> {
    said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

#[test]
fn traceroute_from_a_device_shows_every_hop() {
    let Some(lab) = Lab::household().start() else { return };
    let leaks = lab.watch_for_leaks();
    let expected = [ROUTER_LAN, GATEWAY, S3].map(|hop| hop.to_string());
    for method in ["-U", "--icmp", "--tcp"] {
        let said = lab.d1.run(&["traceroute", "-n", "-w", "2", "-q", "1", method, &S3.to_string()]);
        assert_eq!(hops(&said.stdout), expected, "{method}: {said}");
    }
    leaks.expect_no_leak();
}

#[test]
fn traceroute_from_the_internet_to_a_forwarded_port_shows_no_lan_address() {
    let Some(lab) =
        Lab::household().forward(Forward::udp(5000, D1, 5001)).forward(Forward::tcp(8080, D1, 80)).start()
    else {
        return;
    };
    let leaks = lab.watch_for_leaks();
    let _listener = lab.d1.listen(at(D1, 80));
    let wan = WAN.to_string();
    for probe in [&["-U", "-p", "5000"][..], &["-T", "-p", "8080"]] {
        let mut words = vec!["traceroute", "-n", "-w", "2", "-q", "1", "-m", "6"];
        words.extend(probe);
        words.push(&wan);
        let said = lab.s3.run(&words);
        // The router answers for itself, then the device behind it, by the same address.
        assert_eq!(hops(&said.stdout), ["203.0.113.1", &wan, &wan], "{probe:?}: {said}");
    }
    leaks.expect_no_leak();
}

#[test]
fn a_forward_to_a_switched_off_host_is_answered_with_host_unreachable() {
    let Some(lab) = Lab::household().forward(Forward::tcp(8080, SWITCHED_OFF, 80)).start() else { return };
    let capture = lab.capture_wan();
    let refused = tcp::connect(&lab.s1, at(S1, 0), at(WAN, 8080), Duration::from_secs(10));
    assert_eq!(refused.map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::HostUnreachable));
    let error = capture
        .wait_for("host unreachable", Duration::from_secs(1), |wire| wire.is_icmp(3, 1) && wire.src == WAN);
    assert_eq!(
        error.wire.quote.expect("it quotes").to(),
        at(WAN, 8080),
        "the quote names what the client asked"
    );
    assert!(packet::checksums_are_right(&error.bytes));
    capture.expect_no_leak();
}

#[test]
fn a_closed_port_of_a_device_refuses_the_outside_client() {
    let Some(lab) = Lab::household().forward(Forward::udp(5000, D1, 5001)).start() else { return };
    let capture = lab.capture_wan();
    let client = lab.s1.udp(at(S1, 6000));
    client.connect(at(WAN, 5000)).expect("a UDP socket can be connected");
    client.send(b"anyone?").expect("it is sent");
    let refused = socket::receive(&client).map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused), "port unreachable finds the right socket");
    let error = capture.wait_for("port unreachable", Duration::from_secs(1), |wire| wire.is_icmp(3, 3));
    assert_eq!(error.wire.src, WAN);
    assert!(packet::checksums_are_right(&error.bytes));
    capture.expect_no_leak();
}

#[test]
fn a_closed_port_of_a_server_refuses_the_device() {
    let Some(lab) = Lab::household().start() else { return };
    let device = lab.d1.udp(at(D1, 6000));
    device.connect(at(S3, 7)).expect("a UDP socket can be connected");
    device.send(b"anyone?").expect("it is sent");
    let refused = socket::receive(&device).map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
}

#[test]
fn a_reject_of_the_routers_firewall_is_translated_back() {
    let Some(lab) = Lab::household().forward(Forward::udp(7777, D1, 7778)).start() else { return };
    lab.router.nft(
        "table ip lab_reject {\n chain forward {\n  type filter hook forward priority -10;\n  \
         iifname \"wan0\" udp dport 7778 reject with icmp type admin-prohibited\n }\n}\n",
    );
    let capture = lab.capture_wan();
    lab.s1.udp(at(S1, 6000)).send_to(b"let me in", at(WAN, 7777)).expect("it is sent");
    let error = capture.wait_for("rejection", Duration::from_secs(2), |wire| wire.is_icmp(3, 13));
    assert_eq!((error.wire.src, error.wire.dst), (WAN, S1));
    let quote = error.wire.quote.clone().expect("it quotes");
    assert_eq!((quote.from(), quote.to()), (at(S1, 6000), at(WAN, 7777)));
    assert!(packet::checksums_are_right(&error.bytes));
    capture.expect_no_leak();
}

#[test]
fn an_expired_ttl_on_the_way_in_is_answered_with_the_quote_translated_back() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 53));
    let device = lab.d1.udp(at(D1, 5353));
    let wan = socket::deliver(&device, at(S1, 53), &server, b"question");
    let capture = lab.capture_wan();
    // One hop to the router, none left behind it.
    server.set_ttl(1).expect("a TTL can be set");
    server.send_to(b"answer", wan).expect("it is sent");
    let error = capture.wait_for("time exceeded", Duration::from_secs(2), |wire| wire.is_icmp(11, 0));
    assert_eq!((error.wire.src, error.wire.dst), (WAN, S1));
    let quote = error.wire.quote.clone().expect("it quotes");
    assert_eq!((quote.from(), quote.to()), (at(S1, 53), wan));
    assert!(packet::checksums_are_right(&error.bytes));
    capture.expect_no_leak();
}

#[test]
fn the_quote_of_an_error_to_a_device_is_translated_with_right_checksums() {
    let Some(lab) = Lab::household().start() else { return };
    let inside = lab.d1.capture("eth0", testkit::capture::Keep::All);
    // Another device takes the port first, so that the external one differs from the internal one.
    let server = lab.s3.udp(at(S3, 53));
    socket::deliver(&lab.d2.udp(at(D2, 5353)), at(S3, 53), &server, b"first");
    drop(server);
    let device = lab.d1.udp(at(D1, 5353));
    device.send_to(b"second", at(S3, 53)).expect("it is sent");
    let error = inside.wait_for("port unreachable", Duration::from_secs(2), |wire| wire.is_icmp(3, 3));
    assert_eq!((error.wire.src, error.wire.dst), (S3, D1));
    let quote = error.wire.quote.clone().expect("it quotes");
    assert_eq!((quote.from(), quote.to()), (at(D1, 5353), at(S3, 53)));
    assert!(packet::checksums_are_right(&error.bytes));
    let quoted = error.bytes.get(28..48).expect("an IP header");
    assert_eq!(internet_checksum(quoted), 0, "the quoted header's checksum fits the quoted header");
}

/// The Internet checksum over `bytes`; 0 when the checksum in them is right.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).filter_map(|pair| <[u8; 2]>::try_from(pair).ok()).map(u16::from_be_bytes);
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
