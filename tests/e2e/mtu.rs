//! Path-MTU discovery and MSS clamping (RFC 4787 REQ-13, RFC 1191).

use std::time::Duration;

use testkit::address::{D1, S1, S3, WAN, at};
use testkit::{Forward, Lab, packet, socket, tcp, wait_for};

const WAIT: Duration = Duration::from_secs(3);
/// Linux: message too long.
const EMSGSIZE: i32 = 90;

/// Sends `payload` with "don't fragment" until the kernel has learned a path MTU that forbids it.
fn expect_too_big(sender: &std::net::UdpSocket, to: std::net::SocketAddrV4) {
    socket::set_dont_fragment(sender);
    let mut refusal = None;
    wait_for("the path MTU to be learned", WAIT, || {
        refusal = sender.send_to(&[1; 1472], to).err();
        refusal.is_some()
    });
    let refusal = refusal.and_then(|error| error.raw_os_error());
    assert_eq!(refusal, Some(EMSGSIZE), "the message is too long for the path");
}

#[test]
fn a_device_learns_the_mtu_of_the_wan_link() {
    let Some(lab) = Lab::household().wan_mtu(1400).natd("mss_clamp = false").start() else { return };
    let server = lab.s1.udp(at(S1, 6000));
    let device = lab.d1.udp(at(D1, 6000));
    socket::deliver(&device, at(S1, 6000), &server, b"small");
    expect_too_big(&device, at(S1, 6000));
    socket::deliver(&device, at(S1, 6000), &server, &[2; 1372]);
}

#[test]
fn a_device_learns_the_mtu_of_a_link_far_away() {
    let Some(lab) = Lab::household().far_mtu(1400).natd("mss_clamp = false").start() else { return };
    let server = lab.s3.udp(at(S3, 6000));
    let device = lab.d1.udp(at(D1, 6000));
    socket::deliver(&device, at(S3, 6000), &server, b"small");
    expect_too_big(&device, at(S3, 6000));
    socket::deliver(&device, at(S3, 6000), &server, &[2; 1372]);
}

#[test]
fn a_server_learns_the_mtu_of_the_wan_link() {
    let Some(lab) = Lab::household().wan_mtu(1400).natd("mss_clamp = false").start() else { return };
    let server = lab.s3.udp(at(S3, 6000));
    let device = lab.d1.udp(at(D1, 6000));
    let wan = socket::deliver(&device, at(S3, 6000), &server, b"small");
    expect_too_big(&server, wan);
    socket::deliver(&server, wan, &device, &[2; 1372]);
}

#[test]
fn a_server_learns_the_mtu_of_the_lan_without_seeing_a_lan_address() {
    let Some(lab) = Lab::household().lan_mtu(1300).forward(Forward::udp(6000, D1, 6001)).start() else {
        return;
    };
    let capture = lab.capture_wan();
    let server = lab.s1.udp(at(S1, 6000));
    let device = lab.d1.udp(at(D1, 6001));
    socket::deliver(&server, at(WAN, 6000), &device, b"small");
    expect_too_big(&server, at(WAN, 6000));
    let error = capture.wait_for("fragmentation needed", WAIT, |wire| wire.is_icmp(3, 4));
    assert_eq!(error.wire.quote.clone().expect("it quotes").to(), at(WAN, 6000));
    assert!(packet::checksums_are_right(&error.bytes));
    capture.expect_no_leak();
}

/// 4 MB each way over one connection, with no MSS clamp in the way.
fn expect_tcp_to_pass(lab: &Lab, server: &testkit::Node, addr: std::net::Ipv4Addr) {
    let mut connection = tcp::pair(&lab.d1, at(D1, 0), server, at(addr, 80));
    let mut up = connection.client.try_clone().expect("a stream can be cloned");
    let mut down = connection.server.try_clone().expect("a stream can be cloned");
    std::thread::scope(|scope| {
        scope.spawn(move || tcp::send_blocks(&mut up, 64).expect("the upload is sent"));
        scope.spawn(move || tcp::send_blocks(&mut down, 64).expect("the download is sent"));
        let server = scope.spawn(|| tcp::receive_blocks(&mut connection.server));
        assert_eq!(tcp::receive_blocks(&mut connection.client).expect("the download"), 64);
        assert_eq!(server.join().expect("no panic").expect("the upload"), 64);
    });
}

#[test]
fn tcp_finds_the_mtu_of_the_wan_link_without_a_clamp() {
    let Some(lab) = Lab::household().wan_mtu(1400).natd("mss_clamp = false").start() else { return };
    let capture = lab.capture_wan();
    expect_tcp_to_pass(&lab, &lab.s3, S3);
    let syn = capture.wait_for("SYN", WAIT, |wire| wire.tcp.is_some_and(|tcp| tcp.syn && tcp.ack == 0));
    assert_eq!(syn.wire.tcp.and_then(|tcp| tcp.mss), Some(1460), "the clamp is off");
    capture.expect_no_leak();
}

#[test]
fn tcp_finds_the_mtu_of_a_link_far_away_without_a_clamp() {
    let Some(lab) = Lab::household().far_mtu(1400).natd("mss_clamp = false").start() else { return };
    expect_tcp_to_pass(&lab, &lab.s3, S3);
}

/// The MSS of the SYN and the SYN-ACK of a connection that a device opens.
fn negotiated(lab: &Lab) -> (Option<u16>, Option<u16>) {
    let (outside, inside) = (lab.capture_wan(), lab.d1.capture("eth0", testkit::capture::Keep::All));
    let _connection = tcp::pair(&lab.d1, at(D1, 0), &lab.s3, at(S3, 80));
    let syn = outside.wait_for("SYN", WAIT, |wire| wire.tcp.is_some_and(|tcp| tcp.syn && tcp.ack == 0));
    let answer = inside.wait_for("SYN-ACK", WAIT, |wire| wire.tcp.is_some_and(|tcp| tcp.syn && tcp.ack != 0));
    (syn.wire.tcp.and_then(|tcp| tcp.mss), answer.wire.tcp.and_then(|tcp| tcp.mss))
}

#[test]
fn the_automatic_clamp_follows_the_smaller_link() {
    let Some(lab) = Lab::household().wan_mtu(1400).beyond_kernel("masquerade alone does not clamp").start()
    else {
        return;
    };
    assert_eq!(negotiated(&lab), (Some(1360), Some(1360)));
}

#[test]
fn a_fixed_clamp_lowers_and_never_raises() {
    let clamped = Lab::household().natd("mss_clamp = 1200").beyond_kernel("masquerade alone does not clamp");
    let Some(lab) = clamped.start() else { return };
    assert_eq!(negotiated(&lab), (Some(1200), Some(1200)));
    drop(lab);
    let Some(lab) = Lab::household().natd("mss_clamp = 9000").start() else { return };
    assert_eq!(negotiated(&lab), (Some(1460), Some(1460)));
}

#[test]
fn a_datagram_too_large_for_the_wan_is_fragmented_when_it_may_be() {
    let Some(lab) = Lab::household().wan_mtu(1400).start() else { return };
    let server = lab.s1.udp(at(S1, 6000));
    let mut packet = packet::udp(at(D1, 6000), at(S1, 6000), &[9; 1472]);
    // Flags: "don't fragment" off; the kernel completes the header's checksum of a raw packet.
    if let Some(flags) = packet.get_mut(6) {
        *flags = 0;
    }
    lab.d1.raw().send(&packet);
    let (payload, _) = socket::receive(&server).expect("it arrives");
    assert!(payload == [9; 1472]);
}
