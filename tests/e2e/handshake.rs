//! Opening and closing TCP connections (RFC 5382 REQ-2, REQ-4).

use std::io;
use std::time::Duration;

use testkit::address::{D1, S1, WAN, at};
use testkit::{Lab, clock, pause, socket, tcp};

/// Packets with SYN and without ACK that reach the node.
const DROP_SYN: &str = "table ip deaf {\n chain input {\n  type filter hook input priority 0;\n  \
                        tcp flags & (syn | ack) == syn drop\n }\n}\n";

#[test]
fn an_unsolicited_syn_is_held_six_seconds_before_it_is_refused() {
    let Some(lab) = Lab::household().beyond_kernel("it refuses at once").start() else { return };
    let start = clock::now();
    let refused = tcp::connect(&lab.s1, at(S1, 0), at(WAN, 4444), Duration::from_secs(12));
    let waited = start.elapsed();
    let kind = refused.map(drop).map_err(|error| error.kind());
    assert!(
        matches!(
            kind,
            Err(io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable)
        ),
        "{kind:?} after {waited:?}"
    );
    assert!(waited >= Duration::from_millis(5900), "RFC 5382 REQ-4: at least 6 s, but {waited:?}");
    assert!(waited < Duration::from_secs(9), "{waited:?}");
}

#[test]
fn a_syn_to_a_port_that_the_router_listens_on_is_answered_at_once() {
    let Some(lab) = Lab::household().start() else { return };
    let _listener = lab.router.listen(at(std::net::Ipv4Addr::UNSPECIFIED, 22));
    let start = clock::now();
    tcp::connect(&lab.s1, at(S1, 0), at(WAN, 22), tcp::TCP_WAIT).expect("the router answers");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_held_syn_is_dropped_when_the_device_calls_the_same_peer() {
    let Some(lab) = Lab::household().beyond_kernel("it refuses at once").start() else { return };
    let outside = lab.capture_wan();
    std::thread::scope(|scope| {
        let caller =
            scope.spawn(|| tcp::connect(&lab.s1, at(S1, 5555), at(WAN, 4444), Duration::from_secs(12)));
        outside.wait_for("SYN from outside", Duration::from_secs(3), |wire| wire.to() == at(WAN, 4444));
        pause(Duration::from_millis(500));
        let mut device = tcp::connect(&lab.d1, at(D1, 4444), at(S1, 5555), Duration::from_secs(8))
            .expect("the device's SYN crosses the other one");
        let mut caller = caller.join().expect("no panic").expect("the peer is connected, not refused");
        tcp::exchange(&mut device, &mut caller, b"one connection").expect("data to the peer");
        tcp::exchange(&mut caller, &mut device, b"from two SYNs").expect("data to the device");
    });
    let refused =
        outside.find(|wire| wire.src == WAN && (wire.quote.is_some() || wire.tcp.is_some_and(|tcp| tcp.rst)));
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn a_simultaneous_open_becomes_one_connection() {
    let Some(lab) = Lab::household().start() else { return };
    // The peer does not hear the device's SYN, so both ends are in SYN-SENT when its own arrives.
    lab.s1.nft(DROP_SYN);
    let outside = lab.capture_wan();
    std::thread::scope(|scope| {
        let device =
            scope.spawn(|| tcp::connect(&lab.d1, at(D1, 4444), at(S1, 5555), Duration::from_secs(8)));
        outside.wait_for("the device's SYN", Duration::from_secs(3), |wire| wire.to() == at(S1, 5555));
        let mut peer = tcp::connect(&lab.s1, at(S1, 5555), at(WAN, 4444), Duration::from_secs(8))
            .expect("the peer's SYN passes, and the SYN-ACK to it");
        let mut device = device.join().expect("no panic").expect("the device is connected");
        tcp::exchange(&mut device, &mut peer, b"one connection").expect("data to the peer");
        tcp::exchange(&mut peer, &mut device, b"from two SYNs").expect("data to the device");
    });
}

#[test]
fn a_half_closed_connection_still_carries_data() {
    let Some(lab) = Lab::household().start() else { return };
    let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    connection.client.shutdown(std::net::Shutdown::Write).expect("FIN");
    assert_eq!(io::Read::read(&mut connection.server, &mut [0; 1]).expect("end of stream"), 0);
    let mut server = connection.server;
    let sending = std::thread::spawn(move || tcp::send_blocks(&mut server, 32));
    assert_eq!(tcp::receive_blocks(&mut connection.client).expect("2 MB after the FIN"), 32);
    sending.join().expect("no panic").expect("all is sent");
}

#[test]
fn a_port_can_be_used_again_right_after_closing() {
    let Some(lab) = Lab::household().start() else { return };
    for round in 0..5 {
        let connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
        assert_eq!(connection.peer, at(WAN, 40_000), "round {round}");
        // The server closes first, so that TIME-WAIT is not at the device.
        drop(connection.server);
        let mut client = connection.client;
        assert_eq!(
            socket::uninterrupted(|| io::Read::read(&mut client, &mut [0; 1])).expect("end of stream"),
            0
        );
        drop(client);
        // The device may use the port again when its own FIN is acknowledged.
        clock::wait_for("the device's end to be gone", tcp::TCP_WAIT, || {
            !lab.d1.sh("ss -tanH").contains("192.168.1.11:40000")
        });
    }
}

#[test]
fn a_refused_connection_is_refused_to_the_device() {
    let Some(lab) = Lab::household().start() else { return };
    let start = clock::now();
    let refused = tcp::connect(&lab.d1, at(D1, 0), at(S1, 81), tcp::TCP_WAIT).map(drop);
    assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionRefused));
    assert!(start.elapsed() < Duration::from_secs(1));
}
