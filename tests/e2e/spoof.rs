//! Forged packets change nothing (RFC 5961, RFC 7857 section 2.2, RFC 4787 REQ-12, RFC 5508 REQ-3 to REQ-6):
//! resets and ICMP errors from the internet against real TCP connections.

use std::io::{self, Read, Write};
use std::time::Duration;

use testkit::address::{D1, S1, STRANGER, WAN, at};
use testkit::capture::{Keep, Seen};
use testkit::packet::{self, Segment};
use testkit::socket::RawSocket;
use testkit::tcp::{self, Connection};
use testkit::{Capture, Lab, LabBuilder, pause, socket};

const WAIT: Duration = Duration::from_secs(3);
/// What [`Target::put_data_in_flight`] sends.
const UNHEARD: &[u8; 7] = b"unheard";
/// Bytes that each side says in [`Connection::expect_alive`].
const SAID: u32 = 15;
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
const PORT_UNREACHABLE: (u8, u8) = (3, 3);

/// A quiet TCP connection from d1 to s1, what an attacker needs to know of it, and the means to forge.
struct Target {
    lab: Lab,
    connection: Connection,
    /// The next byte that the client will send.
    client_next: u32,
    /// The next byte that the server will send.
    server_next: u32,
    /// What reaches d1.
    inside: Capture,
    forge: RawSocket,
}

impl Target {
    fn new(builder: LabBuilder) -> Option<Self> {
        let lab = builder.start()?;
        let (outside, inside) = (lab.capture_wan(), lab.d1.capture("eth0", Keep::All));
        let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
        connection.expect_alive("at first");
        assert_eq!(connection.peer, at(WAN, 40_000));
        // The last acknowledgments tell where both sides stand, once they agree with what was sent.
        let (mut client_next, mut server_next) = (0, 0);
        testkit::wait_for("the connection to fall quiet", WAIT, || {
            client_next = next_byte(&outside, S1);
            server_next = next_byte(&outside, WAN);
            let both_spoke = [S1, WAN]
                .into_iter()
                .all(|to| !outside.find(|wire| wire.dst == to && wire.payload_len > 0).is_empty());
            both_spoke
                && acknowledged(&outside, S1) == server_next
                && acknowledged(&outside, WAN) == client_next
        });
        let forge = lab.internet.raw();
        Some(Self { lab, connection, client_next, server_next, inside, forge })
    }

    /// Forges a segment from the server.
    fn segment(&self, seq: u32, segment: Segment) {
        self.forge.send(&packet::tcp(at(S1, 80), at(WAN, 40_000), seq, segment, b""));
    }

    /// Forges an ICMP error that quotes a segment of the client's with sequence number `seq`, sent `from`
    /// port 40000 of the WAN address `to` a server.
    fn error(
        &self,
        from: std::net::Ipv4Addr,
        kind: (u8, u8),
        mtu: u16,
        seq: u32,
        to: std::net::SocketAddrV4,
    ) {
        let quoted = packet::tcp(at(WAN, 40_000), to, seq, Segment::Ack(self.server_next), b"");
        self.forge.send(&packet::icmp_error(from, WAN, kind.0, kind.1, mtu, &quoted));
    }

    /// Lets the client send something that the server does not hear, so that a router on the way may complain
    /// about it.
    fn put_data_in_flight(&mut self) {
        self.lab.s1.nft(
            "table ip deaf {\n chain input {\n  type filter hook input priority 0;\n  tcp dport 80 drop\n }\n}\n",
        );
        self.connection.client.write_all(UNHEARD).expect("it is sent");
    }

    /// The server hears it after all.
    fn hear_data_in_flight(&mut self) {
        self.lab.s1.nft("delete table ip deaf\n");
        let mut heard = [0; UNHEARD.len()];
        self.connection.server.read_exact(&mut heard).expect("it is sent again");
        assert_eq!(heard, *UNHEARD);
    }

    /// ICMP errors that reached d1.
    fn errors_inside(&self) -> Vec<Seen> {
        self.inside.find(|wire| wire.quote.is_some())
    }

    /// The connection carries data both ways, so whatever was forged before is through, and none of it reached d1
    /// as an ICMP error.
    fn expect_unharmed(&mut self, after: &str) {
        self.connection.expect_alive(after);
        self.client_next = self.client_next.wrapping_add(SAID);
        self.server_next = self.server_next.wrapping_add(SAID);
        let errors = self.errors_inside();
        assert!(errors.is_empty(), "{after}: an error reached the device: {:?}", errors.first());
    }
}

/// One past the last byte that went towards `to`.
fn next_byte(capture: &Capture, to: std::net::Ipv4Addr) -> u32 {
    let sent = capture.find(|wire| wire.dst == to && wire.tcp.is_some());
    sent.iter()
        .filter_map(|seen| seen.wire.tcp.map(|tcp| (tcp, seen.wire.payload_len)))
        .map(|(tcp, len)| {
            tcp.seq.wrapping_add(u32::try_from(len).unwrap_or(0)).wrapping_add(u32::from(tcp.syn))
        })
        .reduce(|a, b| if b.wrapping_sub(a) < 1 << 31 { b } else { a })
        .unwrap_or(0)
}

/// The last acknowledgment that went towards `to`.
fn acknowledged(capture: &Capture, to: std::net::Ipv4Addr) -> u32 {
    let sent = capture.find(|wire| wire.dst == to && wire.tcp.is_some());
    sent.last().and_then(|seen| seen.wire.tcp).map_or(0, |tcp| tcp.ack)
}

#[test]
fn a_reset_far_outside_the_window_changes_nothing() {
    let Some(mut target) = Target::new(Lab::household()) else { return };
    for distance in [1 << 30, 1 << 31, 3 << 30, u32::MAX - 1000] {
        target.segment(target.server_next.wrapping_add(distance), Segment::Rst);
        target.segment(target.server_next.wrapping_add(distance), Segment::RstAck(target.client_next));
    }
    target.expect_unharmed("after resets outside the window");
}

#[test]
fn a_reset_in_the_window_that_is_not_exact_changes_nothing() {
    let Some(mut target) = Target::new(Lab::household()) else { return };
    for distance in [1, 100, 1000] {
        target.segment(target.server_next.wrapping_add(distance), Segment::Rst);
    }
    target.expect_unharmed("after resets in the window");
}

#[test]
fn an_exact_reset_reaches_the_device() {
    let Some(target) = Target::new(Lab::household()) else { return };
    target.segment(target.server_next, Segment::Rst);
    target.inside.wait_for("reset", WAIT, |wire| wire.tcp.is_some_and(|tcp| tcp.rst));
    let mut client = target.connection.client.try_clone().expect("a stream can be cloned");
    let read = socket::uninterrupted(|| client.read(&mut [0; 16])).map_err(|error| error.kind());
    assert_eq!(read, Err(io::ErrorKind::ConnectionReset));
}

/// As [`Target::new`], but d1 never sees a reset, as if the forged one had been lost behind the NAT.
fn immune(builder: LabBuilder) -> Option<Target> {
    let target = Target::new(builder)?;
    target.lab.d1.nft(
        "table ip immune {\n chain input {\n  type filter hook input priority 0;\n  tcp flags & rst == rst drop\n }\n}\n",
    );
    Some(target)
}

#[test]
fn data_after_an_exact_reset_restores_the_connection() {
    let short = Lab::household().natd_section("[timeout]\ntcp_reset = \"2s\"");
    let Some(mut target) = immune(short) else { return };
    target.segment(target.server_next, Segment::Rst);
    target.inside.wait_for("reset", WAIT, |wire| wire.tcp.is_some_and(|tcp| tcp.rst));
    target.connection.expect_alive("right after the reset");
    pause(Duration::from_secs(4));
    let Connection { client, server, .. } = &mut target.connection;
    tcp::exchange(server, client, b"server first").expect("the mapping outlived the time of a reset one");
    target.connection.expect_alive("after the time of a reset mapping");
}

#[test]
fn a_mapping_outlives_an_exact_reset_in_silence() {
    let Some(mut target) = immune(Lab::household().beyond_kernel("its entry is gone after 10 s")) else {
        return;
    };
    target.segment(target.server_next, Segment::Rst);
    target.inside.wait_for("reset", WAIT, |wire| wire.tcp.is_some_and(|tcp| tcp.rst));
    pause(Duration::from_secs(12));
    let Connection { client, server, .. } = &mut target.connection;
    tcp::exchange(server, client, b"server first").expect("RFC 7857 section 2.2: kept for 4 minutes");
}

#[test]
fn an_error_that_quotes_a_wrong_sequence_number_is_dropped() {
    let Some(mut target) = Target::new(Lab::household().beyond_kernel("it checks no quoted sequence number"))
    else {
        return;
    };
    for source in [S1, STRANGER] {
        for kind in [(3, 1), PORT_UNREACHABLE, (3, 13), (11, 0), FRAGMENTATION_NEEDED] {
            target.error(source, kind, 1200, 0xdead_beef, at(S1, 80));
            target.error(source, kind, 1200, target.client_next.wrapping_add(1 << 30), at(S1, 80));
        }
    }
    target.expect_unharmed("after errors with a wrong sequence number");
}

#[test]
fn an_error_that_quotes_a_connection_we_do_not_have_is_dropped() {
    let Some(mut target) = Target::new(Lab::household()) else { return };
    for kind in [(3, 1), PORT_UNREACHABLE, FRAGMENTATION_NEEDED, (11, 0)] {
        target.error(S1, kind, 1200, target.client_next, at(S1, 81));
        target.error(S1, kind, 1200, target.client_next, at(STRANGER, 80));
    }
    target.expect_unharmed("after errors with a wrong tuple");
}

#[test]
fn an_error_with_a_correct_quote_is_delivered_from_any_address_and_ends_nothing() {
    let Some(mut target) = Target::new(Lab::household()) else { return };
    target.put_data_in_flight();
    for source in [S1, STRANGER] {
        target.error(source, PORT_UNREACHABLE, 0, target.client_next, at(S1, 80));
        let error = target.inside.wait_for("error", WAIT, |wire| wire.is_icmp(3, 3) && wire.src == source);
        assert_eq!(error.wire.dst, D1);
        let quote = error.wire.quote.clone().expect("it quotes");
        assert_eq!((quote.from(), quote.to()), (at(D1, 40_000), at(S1, 80)));
        assert!(packet::checksums_are_right(&error.bytes));
    }
    target.hear_data_in_flight();
    target.connection.expect_alive("after true errors");
}

#[test]
fn fragmentation_needed_is_delivered_but_not_below_576() {
    let Some(mut target) = Target::new(Lab::household().beyond_kernel("it believes every MTU")) else {
        return;
    };
    target.put_data_in_flight();
    for mtu in [0, 68, 500, 575] {
        target.error(STRANGER, FRAGMENTATION_NEEDED, mtu, target.client_next, at(S1, 80));
    }
    target.error(STRANGER, FRAGMENTATION_NEEDED, 1200, target.client_next, at(S1, 80));
    target.inside.wait_for("fragmentation needed", WAIT, |wire| wire.is_icmp(3, 4));
    assert_eq!(target.errors_inside().len(), 1, "only the one that can be true");
    target.hear_data_in_flight();
    target.connection.expect_alive("with a smaller path MTU");
}

#[test]
fn no_icmp_error_ends_a_udp_mapping() {
    let Some(lab) = Lab::household().start() else { return };
    let (server, device) = (lab.s1.udp(at(S1, 53)), lab.d1.udp(at(D1, 6000)));
    let wan = socket::deliver(&device, at(S1, 53), &server, b"map me");
    let forge = lab.internet.raw();
    let quoted = packet::udp(wan, at(S1, 53), b"map me");
    for (kind, code) in [(3, 0), (3, 1), (3, 2), (3, 3), (3, 9), (3, 10), (3, 13), (11, 0), (12, 0)] {
        for source in [S1, STRANGER] {
            forge.send(&packet::icmp_error(source, WAN, kind, code, 0, &quoted));
        }
    }
    assert_eq!(socket::deliver(&server, wan, &device, b"still mapped"), at(S1, 53));
    assert_eq!(socket::deliver(&device, at(S1, 53), &server, b"to the same port"), wan);
}

#[test]
fn no_icmp_error_keeps_a_udp_mapping_alive() {
    let Some(lab) = Lab::household()
        .natd_section("[timeout]\nudp = \"3s\"")
        .beyond_kernel("its timeouts are not the configuration's")
        .start()
    else {
        return;
    };
    let (server, device) = (lab.s1.udp(at(S1, 53)), lab.d1.udp(at(D1, 6000)));
    let wan = socket::deliver(&device, at(S1, 53), &server, b"map me");
    let forge = lab.internet.raw();
    let (from_outside, from_inside) =
        (packet::udp(wan, at(S1, 53), b"map me"), packet::udp(at(S1, 53), at(D1, 6000), b""));
    for _ in 0..11 {
        pause(Duration::from_millis(500));
        forge.send(&packet::icmp_error(STRANGER, WAN, 3, 1, 0, &from_outside));
        lab.d1.raw().send(&packet::icmp_error(D1, S1, 3, 3, 0, &from_inside));
    }
    server.send_to(b"still mapped?", wan).expect("it is sent");
    socket::expect_silence(&device, "5.5 s after the last datagram a mapping of 3 s is gone");
}

#[test]
fn an_error_with_a_broken_checksum_is_dropped() {
    let Some(mut target) = Target::new(Lab::household()) else { return };
    let quoted = packet::tcp(
        at(WAN, 40_000),
        at(S1, 80),
        target.client_next.wrapping_sub(1),
        Segment::Ack(target.server_next),
        b"",
    );
    let mut error = packet::icmp_error(STRANGER, WAN, 3, 3, 0, &quoted);
    if let Some(byte) = error.get_mut(22) {
        *byte ^= 0x55;
    }
    target.forge.send(&error);
    target.expect_unharmed("after an error with a broken checksum");
}

#[test]
fn nobody_on_the_wan_reaches_a_device_by_its_own_address() {
    let Some(mut lab) = Lab::household().beyond_kernel("its entry shows the WAN address").start() else {
        return;
    };
    let (server, device) = (lab.s1.udp(at(S1, 53)), lab.d1.udp(at(D1, 6000)));
    let wan = socket::deliver(&device, at(S1, 53), &server, b"map me");
    // The firewall would let this in: conntrack knows the two by these very addresses.
    lab.s1.ip("route add 192.168.1.0/24 via 198.51.100.1\n");
    server.send_to(b"straight to you", at(D1, 6000)).expect("it is sent");
    socket::expect_silence(&device, "it was not addressed to the WAN address");
    let status = lab.natd().command(&["status", "--json"]).expect_success();
    assert!(status.contains("\"inbound-to-lan\":1"), "{status}");
    assert_eq!(socket::deliver(&server, wan, &device, b"properly"), at(S1, 53));
}
