//! What IPsec shows of NATs.

use sha1::{Digest, Sha1};

use super::*;
use Confidence::{High, Medium};

/// RFC 7296 section 2.23.
fn hash(spis: (u64, u64), addr: [u8; 4], port: u16) -> Vec<u8> {
    let over = [&spis.0.to_be_bytes()[..], &spis.1.to_be_bytes(), &addr, &port.to_be_bytes()].concat();
    Sha1::digest(over).to_vec()
}

/// IKE_SA_INIT whose hashes say that the device has `source`, and that the server saw `seen`.
fn detect(line: &mut Line, source: ([u8; 4], u16), seen: ([u8; 4], u16)) {
    let ours = notify2(16388, &hash((1, 0), source.0, source.1));
    let theirs = notify2(16389, &hash((1, 9), seen.0, seen.1));
    line.ike(0, Outbound, 500, &sa_init(1, &[(41, &ours)]));
    line.ike(30, Inbound, 500, &sa_init_answer(1, &[(41, &theirs)]));
}

const DEVICE: ([u8; 4], u16) = ([192, 168, 1, 11], 500);

#[test]
fn a_second_nat_shows_in_what_the_server_saw() {
    let rows = [
        ([203, 0, 113, 5], [203, 0, 113, 5], None),
        ([10, 0, 0, 5], [203, 0, 113, 5], Some(Code::DoubleNat)),
        ([100, 64, 0, 5], [203, 0, 113, 5], Some(Code::Cgnat)),
        ([203, 0, 113, 5], [203, 0, 113, 9], Some(Code::Cgnat)),
    ];
    for (wan, seen, code) in rows {
        let mut line = Line::new();
        detect(&mut line, DEVICE, (seen, 500));
        assert_eq!(line.codes(1000), [], "from the LAN alone it cannot be told");
        line.left(0, 500, wan, 500);
        let expected: Vec<_> = code.map(|code| (code, High)).into_iter().collect();
        assert_eq!(line.codes(1000), expected, "{wan:?} {seen:?}");
    }
}

#[test]
fn a_device_that_claims_another_address() {
    let mut line = Line::new();
    detect(&mut line, ([0, 0, 0, 1], 500), ([203, 0, 113, 5], 500));
    assert_eq!(line.codes(1000), [(Code::ClientFakesNat, High)]);
    let mut line = Line::new();
    line.point = Point::Wan;
    detect(&mut line, ([0, 0, 0, 1], 500), DEVICE);
    assert_eq!(line.codes(1000), [], "beyond the NAT it is no claim");
}

#[test]
fn esp_as_it_is_without_nat_traversal_is_noted() {
    let mut line = Line::new();
    line.init(0, 1);
    line.ike(60, Outbound, 500, &sealed(V2, 35, 1, REQUEST, 1, 300));
    line.ike(90, Inbound, 500, &sealed(V2, 35, 1, RESPONSE, 1, 250));
    line.raw(1000, Outbound, 0xd1, 1, 140);
    line.raw(1030, Inbound, 0xc1, 1, 140);
    assert_eq!(line.codes(2000), [(Code::NattNotNegotiated, Medium)]);
    assert_eq!(Code::NattNotNegotiated.group(), crate::Group::Note);
}

#[test]
fn windows_and_a_server_behind_a_nat() {
    let windows = 0x1e2b_5169_0599_1c7d_7c96_fcbf_b587_e461_u128.to_be_bytes();
    let windows = [&windows[..], &[0, 0, 0, 9]].concat();
    let try_with = |server: [u8; 4], vendor: &[(u8, &[u8])]| {
        let mut line = Line::new();
        let chain: Vec<(u8, &[u8])> = [&[(1, &[1; 48][..])], vendor].concat();
        line.ike(0, Outbound, 500, &clear(V1, 2, (1, 0), 0, 0, &chain));
        line.ike(10, Inbound, 500, &clear(V1, 2, (1, 9), 0, 0, &[(1, &[1; 40])]));
        line.ike(20, Outbound, 500, &clear(V1, 2, (1, 9), 0, 0, &[(4, &[1; 128]), (10, &[1; 16])]));
        let (seen, own) = (hash((1, 9), [203, 0, 113, 5], 500), hash((1, 9), server, 500));
        let keys: &[(u8, &[u8])] = &[(4, &[2; 128]), (10, &[2; 16]), (20, &seen), (20, &own)];
        line.ike(30, Inbound, 500, &clear(V1, 2, (1, 9), 0, 0, keys));
        line.codes(9000)
    };
    assert_eq!(try_with([10, 1, 1, 1], &[(13, &windows)]), [(Code::L2tpServerBehindNat, Medium)]);
    assert_eq!(try_with([198, 51, 100, 10], &[(13, &windows)]), [], "the server has that address");
    assert_eq!(try_with([10, 1, 1, 1], &[]), [], "not Windows");
}

#[test]
fn inbound_packets_for_a_mapping_that_is_gone() {
    let mut line = Line::new();
    line.router.timeouts = Some(Timeouts { udp: 120, esp: 600, gre: 600, tcp: 7200 });
    line.up(0, 1);
    line.left(600, 4500, [203, 0, 113, 5], 4500);
    let datagram = Peers::udp(4500, 4500, &esp(0xc1, 9, 100));
    let trace = line.peers.packet(130_000, Inbound, 17, &datagram).trace();
    let server = [198, 51, 100, 10].into();
    line.router.strays.push(Stray { server, trace, count: 2, first: at(125_000) });
    assert_eq!(line.codes(131_000), [], "too few");
    line.router.strays[0].count = 5;
    assert_eq!(line.codes(131_000), [(Code::NatIdleTimeout, High)]);
    line.esp(140_000, Outbound, 0xd1, 6, 140);
    line.esp(140_030, Inbound, 0xc1, 40, 140);
    assert_eq!(line.codes(150_000), [], "the device woke up, and it goes on");
}

#[test]
fn inbound_packets_that_the_router_keeps_after_a_long_silence() {
    let lost = |millis: u64| {
        let mut line = Line::new();
        line.up(0, 1);
        for round in 0..3 {
            let datagram = Peers::udp(4500, 4500, &esp(0xc1, 9, 100));
            let trace = line.peers.packet(millis + round * 1000, Inbound, 17, &datagram).trace();
            line.pair.passage(&trace, Passage::Undelivered);
        }
        line.codes(millis + 3000)
    };
    assert_eq!(lost(70_000), [(Code::NatIdleTimeout, Medium)]);
    assert_eq!(lost(20_000), [], "no mapping is gone that soon");
}

/// Silences in which the server's packets are lost, until the device sends something.
fn lulls(rounds: u32, keepalives: bool) -> Line {
    let mut line = Line::new();
    line.up(0, 1);
    for round in 1..=rounds {
        let millis = u64::from(round) * 90_000;
        if keepalives {
            line.udp(millis - 1000, Outbound, 4500, &[0xff]);
        }
        line.esp(millis, Outbound, 0xd1, 5 + round, 140);
        line.esp(millis + 30, Inbound, 0xc1, 5 + round * 12, 140);
    }
    line
}

#[test]
fn mappings_beyond_the_router_that_time_out() {
    assert_eq!(lulls(1, true).codes(400_000), [], "once is chance");
    assert_eq!(lulls(2, true).codes(400_000), [(Code::NatUpstreamTimeout, Medium)]);
    assert_eq!(lulls(3, true).codes(400_000), [(Code::NatUpstreamTimeout, High)]);
    assert_eq!(lulls(2, false).codes(400_000), [(Code::NatKeepaliveMissing, Medium)]);
}

#[test]
fn packets_lost_in_a_silence_that_the_server_ends_are_not_the_mappings_fault() {
    let mut line = Line::new();
    line.up(0, 1);
    for round in 1..=3_u32 {
        line.esp(u64::from(round) * 90_000, Inbound, 0xc1, 60 + round * 200, 140);
    }
    let found = line.codes(400_000);
    let blamed = |code| found.iter().any(|(found, _)| *found == code);
    assert!(!blamed(Code::NatUpstreamTimeout) && !blamed(Code::NatKeepaliveMissing), "{found:?}");
}

#[test]
fn hostile_bytes_do_no_harm() {
    let mut line = Line::new();
    let mut noise: u64 = 7296;
    let mut byte = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(noise >> 56).unwrap()
    };
    let bases = [
        sa_init(1, &[(41, &notify2(16388, &[3; 20]))]),
        sealed(V2, 36, 1, REQUEST, 1, 100),
        clear(V1, 2, (1, 9), 0, 0, &[(4, &[2; 128]), (20, &[2; 16]), (20, &[2; 20])]),
        clear(V1, 5, (1, 9), 0, 0, &[(11, &notify1(14))]),
    ];
    for round in 0..20_000_u64 {
        let mut bytes = bases[usize::try_from(round).unwrap() % bases.len()].clone();
        for _ in 0..byte() % 4 {
            let place = usize::from(byte()) % bytes.len();
            bytes[place] = byte();
        }
        bytes.truncate(bytes.len() - usize::from(byte() % 2) * (bytes.len() / 3));
        let direction = if byte() % 2 == 0 { Outbound } else { Inbound };
        let port = if byte() % 2 == 0 { 500 } else { 4500 };
        line.ike(round * 50, direction, port, &bytes);
        line.raw(round * 50 + 1, direction, u32::from(byte()), u32::from(byte()) << 24, 100);
        if round % 500 == 0 {
            line.findings(round * 50);
            line.sessions(round * 50);
        }
    }
    let tracker = line.pair.ipsec.as_ref().unwrap();
    assert!(tracker.sas.len() <= 8 && tracker.children.list.len() <= 24 && tracker.flows.len() <= 8);
    assert!(tracker.sas.iter().all(|sa| sa.steps.len() <= 16 && sa.rekeys.len() <= 16));
}
