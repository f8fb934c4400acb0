use super::super::bpf::machine::{Frame, run};
use super::*;

const ALL: Option<u32> = Some(WHOLE);
const SOME: Option<u32> = Some(PART);
const NUMBERS: Option<u32> = Some(HEAD);
const NO: Option<u32> = None;

/// The random number of a packet that is not picked, and of one that is.
const UNPICKED: u32 = 0xffff_ffe1;
const PICKED: u32 = 0xffff_ffe0;

fn v4(protocol: u8, payload: &[u8]) -> Frame {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
    bytes.extend([192, 168, 1, 11, 198, 51, 100, 10]);
    bytes.extend(payload);
    Frame { bytes, ethertype: 0x0800, packet_type: 0, vlan: false, random: UNPICKED }
}

/// With 12 bytes of options.
fn v4_options(protocol: u8, payload: &[u8]) -> Frame {
    let mut frame = v4(protocol, payload);
    frame.bytes[0] = 0x48;
    frame.bytes.splice(20..20, [1; 12]);
    frame
}

fn v6(protocol: u8, payload: &[u8]) -> Frame {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
    bytes.extend([0x20; 32]);
    bytes.extend(payload);
    Frame { bytes, ethertype: 0x86dd, packet_type: 0, vlan: false, random: UNPICKED }
}

fn v6_fragment(protocol: u8, payload: &[u8], offset: u16, more: bool) -> Frame {
    let field = (offset | u16::from(more)).to_be_bytes();
    let header = [protocol, 0, field[0], field[1], 0, 0, 0, 7];
    v6(44, &[&header, payload].concat())
}

fn v4_fragment(protocol: u8, payload: &[u8], offset: u16, more: bool) -> Frame {
    let mut frame = v4(protocol, payload);
    let field = ((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes();
    frame.bytes[6..8].copy_from_slice(&field);
    frame
}

fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram = [src, dst, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    datagram
}

/// With 12 bytes of options.
fn tcp(src: u16, dst: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = [src, dst].map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x80, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend([1; 12]);
    segment.extend(payload);
    segment
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).chain([0xa5; 40]).collect()
}

fn asked(frame: &Frame) -> (Option<u32>, usize) {
    let (bytes, steps) = run(&program(), frame);
    ((bytes != 0).then_some(bytes), steps)
}

/// Each in every kind of IP header that there is.
fn check(rows: &[(&str, u8, Vec<u8>, Option<u32>)]) {
    for (name, protocol, payload, expected) in rows {
        let (protocol, payload) = (*protocol, payload.as_slice());
        let frames = [
            ("IPv4", v4(protocol, payload)),
            ("IPv4 with options", v4_options(protocol, payload)),
            ("IPv4, first fragment", v4_fragment(protocol, payload, 0, true)),
            ("IPv6", v6(protocol, payload)),
            ("IPv6, first fragment", v6_fragment(protocol, payload, 0, true)),
        ];
        for (header, frame) in frames {
            assert_eq!(asked(&frame).0, *expected, "{name}, {header}");
        }
    }
}

/// Sampled at random, but for that not copied.
fn check_sampled(rows: &[(&str, u8, Vec<u8>)]) {
    for (name, protocol, payload) in rows {
        for frame in [v4(*protocol, payload), v6(*protocol, payload)] {
            assert_eq!(asked(&frame).0, NO, "{name}, not picked");
            assert_eq!(asked(&Frame { random: PICKED, ..frame }).0, NUMBERS, "{name}, picked");
        }
    }
}

/// Whose SPIs are not the beginning of a WireGuard message.
fn ike(major: u8) -> Vec<u8> {
    let mut message = vec![0x5a; 28];
    message[17] = major << 4;
    message[24..28].copy_from_slice(&28u32.to_be_bytes());
    message
}

#[test]
fn ike_is_copied_whole_on_both_ports() {
    let marked = [&[0; 4], &ike(2)[..]].concat();
    let large = [&[0; 4], &ike(2)[..], &[7; 1300]].concat();
    check(&[
        ("IKEv2", 17, udp(500, 500, &ike(2)), ALL),
        ("IKEv1, port changed on the way", 17, udp(1024, 500, &ike(1)), ALL),
        ("answer", 17, udp(500, 61_024, &ike(1)), ALL),
        ("marked", 17, udp(4500, 4500, &marked), ALL),
        ("marked, answer, port changed", 17, udp(4500, 1025, &marked), ALL),
        ("marked, large", 17, udp(61_025, 4500, &large), ALL),
        ("marked, the client's port is 500", 17, udp(500, 4500, &marked), ALL),
        ("unmarked, the client's port is 4500", 17, udp(4500, 500, &ike(2)), ALL),
        ("unmarked, the client's port is 4500, answer", 17, udp(500, 4500, &ike(1)), ALL),
        ("keepalive on 500", 17, udp(500, 500, &[0xff]), NUMBERS),
        ("keepalive on 4500", 17, udp(4500, 4500, &[0xff]), NUMBERS),
        ("keepalive on 4500, answer", 17, udp(4500, 14_500, &[0xff]), NUMBERS),
    ]);
}

#[test]
fn sequence_numbers_decide_about_esp_and_ah() {
    for (sequence, expected) in [
        (0, NUMBERS),
        (1, NUMBERS),
        (63, NUMBERS),
        (64, NUMBERS),
        (65, NO),
        (127, NO),
        (128, NUMBERS),
        (0xffff_ffc0, NUMBERS),
        (0xffff_ffff, NO),
        (0x0100_0001, NO),
    ] {
        let esp = words(&[0xc000_0001, sequence]);
        let ah = words(&[0x3204_0000, 0xc000_0001, sequence]);
        check(&[
            ("ESP", 50, esp.clone(), expected),
            ("AH", 51, ah, expected),
            ("ESP in UDP", 17, udp(4500, 4500, &esp), expected),
            ("ESP in UDP, port changed", 17, udp(1025, 4500, &esp), expected),
            ("ESP in UDP, the client's port is 500", 17, udp(500, 4500, &esp), expected),
            ("ESP in UDP, answer to port 500", 17, udp(4500, 500, &esp), expected),
        ]);
    }
}

#[test]
fn pptp_gre_goes_by_its_sequence_or_acknowledgement_and_ppp_control_always() {
    const DATA: u32 = 0x3001_880b;
    const BOTH: u32 = 0x3081_880b;
    const ACK: u32 = 0x2081_880b;
    let lcp = |head: &[u32]| [&words(head)[..head.len() * 4], &[0xff, 3, 0xc0, 0x21, 9, 1, 0, 8]].concat();
    let ip = |head: &[u32]| [&words(head)[..head.len() * 4], &[0xff, 3, 0x00, 0x21, 0x45, 0]].concat();
    let short = |head: &[u32]| [&words(head)[..head.len() * 4], &[0x21, 0x45, 0, 0, 9]].concat();
    let mppe = |head: &[u32]| [&words(head)[..head.len() * 4], &[0xfd, 0x90, 0, 0, 9]].concat();
    check(&[
        ("first", 47, words(&[DATA, 7, 0]), SOME),
        ("63", 47, words(&[DATA, 7, 63]), SOME),
        ("64", 47, words(&[DATA, 7, 64]), SOME),
        ("65", 47, ip(&[DATA, 7, 65]), NO),
        ("early acknowledgement", 47, words(&[ACK, 7, 63]), SOME),
        ("later acknowledgement", 47, words(&[ACK, 7, 1001]), NO),
        ("LCP", 47, lcp(&[DATA, 7, 1001]), SOME),
        ("LCP with an acknowledgement", 47, lcp(&[BOTH, 7, 1001, 77]), SOME),
        ("IP with an acknowledgement", 47, ip(&[BOTH, 7, 1001, 77]), NO),
        ("compressed header", 47, short(&[DATA, 7, 1001]), NO),
        ("encrypted, protocol of one byte", 47, mppe(&[DATA, 7, 1001]), NO),
    ]);
}

#[test]
fn l2tp_control_and_ppp_control_are_copied_and_data_at_random() {
    let data = |head: &[u16], ppp: &[u8]| {
        let head: Vec<u8> = head.iter().flat_map(|half| half.to_be_bytes()).collect();
        udp(1701, 1701, &[&head, ppp, &[0; 30][..]].concat())
    };
    let (lcp, ip) = ([0xff, 3, 0xc0, 0x21], [0xff, 3, 0, 0x21]);
    check(&[
        ("control", 17, udp(1701, 1701, &words(&[0xc802_0014, 0, 0])), ALL),
        ("control, port changed", 17, udp(40_000, 1701, &words(&[0xc802_0014, 0, 0])), ALL),
        ("control, answer", 17, udp(1701, 40_000, &words(&[0xc802_0014, 0, 0])), ALL),
        ("L2TPv3 over IP, control", 115, words(&[0, 0xc803_0014]), ALL),
        ("LCP", 17, data(&[2, 7, 9], &lcp), SOME),
        ("LCP, with length", 17, data(&[0x4002, 40, 7, 9], &lcp), SOME),
        ("LCP, with length and sequence", 17, data(&[0x4802, 40, 7, 9, 1, 1], &lcp), SOME),
        ("IPCP without address field", 17, data(&[0x0802, 7, 9, 1, 1], &[0x80, 0x21]), SOME),
    ]);
    check_sampled(&[
        ("data", 17, data(&[2, 7, 9], &ip)),
        ("data, with length and sequence", 17, data(&[0x4802, 40, 7, 9, 1, 1], &ip)),
        ("data, with an offset", 17, data(&[0x0202, 7, 9, 0], &lcp)),
        ("L2TPv3 over UDP", 17, udp(1701, 1701, &words(&[3, 77]))),
        ("L2TPv3 over IP", 115, words(&[77])),
        ("GRE", 47, words(&[0x2000_0800, 5])),
        ("GRE version 1 of others", 47, words(&[0x2001_0800, 5, 6])),
    ]);
    check(&[("GRE keepalive", 47, words(&[0]), NUMBERS), ("NHRP", 47, words(&[0x2000_2001, 5]), SOME)]);
}

fn wireguard(kind: u8, length: usize, counter: u64) -> Vec<u8> {
    let mut message = vec![0xa5; length];
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    if kind == 4 {
        message[8..16].copy_from_slice(&counter.to_le_bytes());
    }
    message
}

#[test]
fn wireguard_is_known_on_any_port() {
    for (src, dst) in [(51_820, 51_820), (40_000, 443), (443, 40_000), (30_000, 500), (500, 30_000)] {
        let rows = [
            ("initiation", wireguard(1, 148, 0), SOME),
            ("response", wireguard(2, 92, 0), SOME),
            ("cookie", wireguard(3, 64, 0), SOME),
            ("not an initiation", wireguard(1, 149, 0), NO),
            ("not a response", wireguard(2, 91, 0), NO),
            ("not a cookie", wireguard(3, 60, 0), NO),
            ("keepalive", wireguard(4, 32, 1001), NUMBERS),
            ("first", wireguard(4, 96, 0), NUMBERS),
            ("63", wireguard(4, 96, 63), NUMBERS),
            ("64", wireguard(4, 96, 64), NUMBERS),
            ("65", wireguard(4, 96, 65), NO),
            ("0x1_0001", wireguard(4, 96, 0x1_0001), NO),
            ("0x1_0000_0001", wireguard(4, 96, 0x1_0000_0001), NO),
            ("0x1_0000_0040", wireguard(4, 96, 0x1_0000_0040), NUMBERS),
            ("too short", wireguard(4, 31, 0), NO),
        ];
        check(&rows.map(|(name, message, expected)| (name, 17, udp(src, dst, &message), expected)));
    }
    check(&[
        ("on OpenVPN's port", 17, udp(40_000, 1194, &wireguard(1, 148, 0)), SOME),
        ("on OpenVPN's port, data", 17, udp(1194, 40_000, &wireguard(4, 96, 65)), NO),
    ]);
}

/// Opcode, session ID, then what follows.
fn openvpn(opcode: u8, rest: &[u8]) -> Vec<u8> {
    [&[opcode << 3][..], &[9; 8], rest].concat()
}

#[test]
fn openvpn_s_handshake_is_copied_and_its_data_at_random() {
    let (plain, far) = ([0; 5], [0x77; 300]);
    let wrapped = [&[0, 0, 0, 1][..], &[0x77; 300]].concat();
    let negotiated = [&[0x0f, 0, 0, 1][..], &[0x77; 300]].concat();
    for (src, dst) in [(40_000, 1194), (1194, 40_000), (40_000, 443), (443, 40_000), (40_000, 41_000)] {
        check(&[
            ("client's reset", 17, udp(src, dst, &openvpn(7, &plain)), SOME),
            ("server's reset", 17, udp(src, dst, &openvpn(8, &plain)), SOME),
            ("server's reset, tls-crypt", 17, udp(src, dst, &openvpn(8, &wrapped)), SOME),
            ("client's reset, tls-crypt-v2", 17, udp(src, dst, &openvpn(10, &wrapped)), SOME),
            ("client's reset, early negotiation", 17, udp(src, dst, &openvpn(10, &negotiated)), SOME),
            ("TLS", 17, udp(src, dst, &openvpn(4, &far)), SOME),
            ("acknowledgement", 17, udp(src, dst, &openvpn(5, &far)), SOME),
        ]);
        check_sampled(&[
            ("data", 17, udp(src, dst, &[vec![0x48, 0, 0, 1], vec![7; 60]].concat())),
            ("data of a later key", 17, udp(src, dst, &[vec![0x4b, 0, 0, 1], vec![7; 60]].concat())),
            ("data, version 1", 17, udp(src, dst, &[vec![0x30], vec![7; 60]].concat())),
        ]);
    }
    check(&[
        ("soft reset", 17, udp(40_000, 1194, &openvpn(3, &far)), SOME),
        ("soft reset elsewhere", 17, udp(40_000, 443, &openvpn(3, &far)), NO),
        ("too short for a reset", 17, udp(40_000, 443, &openvpn(7, &[0; 4])), NO),
        (
            "TCP, client's reset",
            6,
            tcp(40_000, 443, 0x18, &[&[0, 14], &openvpn(7, &plain)[..]].concat()),
            SOME,
        ),
        (
            "TCP, server's reset",
            6,
            tcp(443, 40_000, 0x18, &[&[0, 26], &openvpn(8, &plain)[..]].concat()),
            SOME,
        ),
        ("TCP, TLS", 6, tcp(443, 40_000, 0x18, &[&[1, 40], &openvpn(4, &far)[..]].concat()), SOME),
        ("TCP, on its port", 6, tcp(40_000, 1194, 0x18, &[&[0, 40], &openvpn(3, &far)[..]].concat()), SOME),
        ("TCP, on its port, empty", 6, tcp(40_000, 1194, 0x10, &[]), NO),
    ]);
    check_sampled(&[
        ("TCP data", 6, tcp(40_000, 1194, 0x18, &[&[0, 90, 0x48][..], &[7; 88]].concat())),
        ("TCP, amid a packet", 6, tcp(1194, 40_000, 0x10, &[0xee; 900])),
    ]);
}

#[test]
fn of_tcp_only_beginnings_and_ends_and_tls_in_clear_and_pptp() {
    let record = |kind, version, length: [u8; 2], handshake| {
        [&[kind, 3, version, length[0], length[1], handshake][..], &[9; 500]].concat()
    };
    check(&[
        ("SYN", 6, tcp(40_000, 80, 0x02, &[]), SOME),
        ("SYN-ACK", 6, tcp(80, 40_000, 0x12, &[]), SOME),
        ("FIN", 6, tcp(40_000, 80, 0x11, &[]), SOME),
        ("RST", 6, tcp(40_000, 80, 0x04, &[]), SOME),
        ("empty ACK", 6, tcp(40_000, 80, 0x10, &[]), NO),
        ("data", 6, tcp(40_000, 80, 0x18, &[0x47; 1400]), NO),
        ("zeros", 6, tcp(40_000, 80, 0x18, &[0; 1400]), NO),
        ("ClientHello", 6, tcp(40_000, 443, 0x18, &record(0x16, 1, [2, 0], 1)), ALL),
        ("ServerHello", 6, tcp(443, 40_000, 0x18, &record(0x16, 3, [2, 0], 2)), SOME),
        ("other handshake", 6, tcp(443, 40_000, 0x18, &record(0x16, 3, [2, 0], 11)), NO),
        ("alert", 6, tcp(443, 40_000, 0x18, &record(0x15, 3, [0, 2], 2)), NUMBERS),
        ("encrypted alert", 6, tcp(443, 40_000, 0x18, &record(0x15, 3, [0, 26], 2)), NO),
        ("TLS data", 6, tcp(443, 40_000, 0x18, &record(0x17, 3, [2, 0], 1)), NO),
        ("PPTP, empty", 6, tcp(40_000, 1723, 0x10, &[]), ALL),
        ("PPTP, answer", 6, tcp(1723, 40_000, 0x18, &[0, 16, 0, 1]), ALL),
    ]);
}

#[test]
fn of_udp_dns_and_dtls_but_not_quic() {
    let quic = |first: u8| udp(40_000, 443, &[&[first][..], &[0xa5; 1199]].concat());
    check(&[
        ("DNS query", 17, udp(40_000, 53, &[9; 40]), ALL),
        ("DNS answer", 17, udp(53, 40_000, &[9; 400]), ALL),
        ("DTLS 1.2", 17, udp(40_000, 443, &[&[22, 0xfe, 0xfd][..], &[0; 90]].concat()), SOME),
        ("AnyConnect's DTLS", 17, udp(40_000, 443, &[&[22, 1, 0][..], &[0; 90]].concat()), SOME),
        ("not DTLS", 17, udp(40_000, 443, &[&[22, 2, 0][..], &[0; 90]].concat()), NO),
        ("QUIC, Initial", 17, quic(0xc3), NO),
        ("QUIC, like a server's reset", 17, quic(0x40), NO),
        ("QUIC, like a client's reset", 17, quic(0x50), NO),
        ("RTP", 17, udp(40_000, 41_000, &[&[0x80, 96][..], &[9; 160]].concat()), NO),
        ("STUN", 17, udp(40_000, 3478, &[&[0, 1, 0, 0][..], &[9; 16]].concat()), NO),
        ("empty", 17, udp(40_000, 41_000, &[]), NO),
    ]);
}

#[test]
fn of_icmp_only_errors() {
    for (kind, expected) in
        [(0, NO), (3, SOME), (4, SOME), (5, SOME), (8, NO), (11, SOME), (12, SOME), (13, NO)]
    {
        assert_eq!(asked(&v4(1, &words(&[kind << 24]))).0, expected, "type {kind}");
    }
    for (kind, expected) in
        [(0, NO), (1, SOME), (2, SOME), (3, SOME), (4, SOME), (5, NO), (128, NO), (135, NO)]
    {
        assert_eq!(asked(&v6(58, &words(&[kind << 24]))).0, expected, "type {kind}");
    }
}

#[test]
fn later_fragments_of_udp_s_first_eight_kibibytes_are_copied() {
    let rest = [7; 200];
    for (protocol, offset, more, expected) in [
        (17, 1480, false, Some(FRAGMENT)),
        (17, 8, true, Some(FRAGMENT)),
        (17, 8184, false, Some(FRAGMENT)),
        (17, 8192, false, NO),
        (17, 65_528, false, NO),
        (6, 1480, false, NO),
        (50, 1480, false, NO),
    ] {
        let frames = [v4_fragment(protocol, &rest, offset, more), v6_fragment(protocol, &rest, offset, more)];
        for frame in frames {
            assert_eq!(asked(&frame).0, expected, "protocol {protocol} at {offset}");
        }
    }
}

#[test]
fn what_is_not_for_this_interface_is_left_alone() {
    let frame = v4(50, &words(&[1, 1]));
    assert_eq!(asked(&frame).0, NUMBERS);
    assert_eq!(asked(&Frame { packet_type: 4, ..frame.clone() }).0, NUMBERS, "what goes out");
    assert_eq!(asked(&Frame { packet_type: PACKET_OTHERHOST, ..frame.clone() }).0, NO);
    assert_eq!(asked(&Frame { vlan: true, ..frame.clone() }).0, NO);
    assert_eq!(asked(&Frame { ethertype: 0x0806, ..frame.clone() }).0, NO);
    assert_eq!(asked(&Frame { ethertype: 0x8864, ..frame }).0, NO);
    assert_eq!(asked(&v6(0, &words(&[0x3200_0000, 0]))).0, NO, "behind hop-by-hop options");
    for protocol in [2, 4, 41, 89, 132] {
        assert_eq!(asked(&v4(protocol, &[0; 64])).0, NO, "protocol {protocol}");
    }
}

/// What most packets are must be through soon.
#[test]
fn the_bulk_is_soon_refused() {
    for (name, frame, most) in [
        ("TCP data", v4(6, &tcp(40_000, 443, 0x10, &[0xa5; 1400])), 26),
        ("TCP data, IPv6", v6(6, &tcp(40_000, 443, 0x10, &[0xa5; 1400])), 26),
        ("empty ACK", v4(6, &tcp(443, 40_000, 0x10, &[])), 24),
        ("QUIC", v4(17, &udp(40_000, 443, &[0x5b; 1200])), 38),
        ("QUIC, answer", v4(17, &udp(443, 40_000, &[0x5b; 1200])), 38),
        ("ESP", v4(50, &words(&[1, 1001])), 15),
    ] {
        let (answer, steps) = asked(&frame);
        assert_eq!(answer, NO, "{name}");
        assert!(steps <= most, "{name}: {steps} instructions");
    }
    assert!(program().len() < 400, "{} instructions", program().len());
}

/// Cut off anywhere, and with any byte changed, it ends; and never copies more than there is to gain.
#[test]
fn cut_and_mutilated_packets_end_the_filter() {
    let program = program();
    let mut state = 0x9e37_79b9_u32;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let samples = [
        v4(17, &udp(4500, 4500, &words(&[1, 2, 3]))),
        v4(6, &tcp(40_000, 443, 0x18, &[0x16, 3, 1, 2, 0, 1])),
        v6(47, &words(&[0x3081_880b, 7, 1001, 77])),
        v6_fragment(17, &udp(1701, 1701, &words(&[0x4802_0028, 7, 9])), 0, true),
    ];
    for sample in samples {
        for length in 0..=sample.bytes.len() {
            run(&program, &Frame { bytes: sample.bytes[..length].to_vec(), ..sample.clone() });
        }
        for _ in 0..20_000 {
            let mut frame = sample.clone();
            for _ in 0..3 {
                let at = random() as usize % frame.bytes.len();
                frame.bytes[at] = random().to_be_bytes()[1];
            }
            let (answer, _) = run(&program, &frame);
            assert!([0, HEAD, PART, WHOLE, FRAGMENT].contains(&answer));
        }
    }
}
