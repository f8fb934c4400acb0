use super::*;
use crate::code::Code;
use crate::observation::IcmpKind;

const DEVICE: [u8; 4] = [192, 168, 1, 11];
const OTHER: [u8; 4] = [192, 168, 1, 12];
const SERVER: [u8; 4] = [198, 51, 100, 10];
const WAN: [u8; 4] = [203, 0, 113, 5];
const HOP: [u8; 4] = [203, 0, 113, 1];

fn live() -> Household {
    let vantage = Vantage { lan: true, wan: true, router: true, dns: true };
    let mut household = Household::new(Settings {
        lan: vec![(IpAddr::from([192, 168, 1, 0]), 24)],
        pairs: 8,
        memory: Duration::from_secs(3600),
        vantage,
        servers: Vec::new(),
        events: true,
    });
    household.router.wan = vec![WAN.into()];
    household.router.own = vec![[192, 168, 1, 1].into()];
    household
}

fn capture() -> Household {
    let mut household = live();
    household.settings.lan = Vec::new();
    household.settings.vantage = Vantage { lan: true, wan: false, router: false, dns: true };
    household.router = Router::default();
    household
}

fn ip(src: [u8; 4], dst: [u8; 4], protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 1, 0, 0, ttl, protocol, 0, 0];
    packet.extend(src);
    packet.extend(dst);
    packet.extend(payload);
    packet
}

fn udp(src: ([u8; 4], u16), dst: ([u8; 4], u16), ttl: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram = [src.1, dst.1, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    ip(src.0, dst.0, 17, ttl, &datagram)
}

/// An IKE_SA_INIT request (RFC 7296 section 1.2) with this initiator SPI.
fn ike(spi: u8) -> Vec<u8> {
    let mut message = vec![spi, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0x20, 34, 8];
    message.extend([0, 0, 0, 0, 0, 0, 0, 68, 0, 0, 0, 40]);
    message.resize(68, spi);
    message
}

fn esp(spi: u8, seq: u8) -> Vec<u8> {
    let mut packet = vec![0xc0, 0, 0, spi, 0, 0, 0, seq];
    packet.resize(64, seq);
    packet
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(millis * 1000)
}

use Direction::{Inbound, Outbound};

fn lan(household: &mut Household, millis: u64, direction: Direction, bytes: &[u8]) {
    household.packet(at(millis), millis, Point::Lan, Some(direction), &Packet::parse(bytes).unwrap());
}

fn wan(household: &mut Household, millis: u64, direction: Direction, bytes: &[u8]) {
    household.packet(at(millis), millis, Point::Wan, Some(direction), &Packet::parse(bytes).unwrap());
}

fn seen(household: &mut Household, millis: u64, bytes: &[u8]) {
    household.packet(at(millis), millis, Point::Unknown, None, &Packet::parse(bytes).unwrap());
}

fn ends(household: &Household) -> Vec<(IpAddr, IpAddr)> {
    household.pairs().map(|pair| (pair.device, pair.server)).collect()
}

fn only(household: &Household) -> &Pair {
    assert_eq!(ends(household), [(DEVICE.into(), SERVER.into())]);
    household.pairs().next().unwrap()
}

#[test]
fn a_packet_on_both_sides_of_the_router_is_one_packet_that_left() {
    let mut household = live();
    lan(&mut household, 10, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    wan(&mut household, 11, Outbound, &udp((WAN, 1024), (SERVER, 500), 63, &ike(1)));
    household.pass_time(at(5000));
    let crossing = only(&household).crossings[0];
    assert_eq!((crossing.left, crossing.swallowed, crossing.wan), (1, 0, Some((WAN.into(), 1024))));
}

#[test]
fn the_outer_sight_may_be_heard_of_first() {
    let mut household = live();
    lan(&mut household, 10, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    wan(&mut household, 11, Outbound, &udp((WAN, 1024), (SERVER, 500), 63, &ike(1)));
    wan(&mut household, 20, Outbound, &udp((WAN, 1024), (SERVER, 500), 63, &ike(2)));
    lan(&mut household, 20, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(2)));
    household.pass_time(at(5000));
    let crossing = only(&household).crossings[0];
    assert_eq!((crossing.left, crossing.swallowed), (2, 0));
}

#[test]
fn of_what_comes_in_the_inner_sight_may_be_heard_of_first() {
    let mut household = live();
    lan(&mut household, 10, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    wan(&mut household, 11, Outbound, &udp((WAN, 1024), (SERVER, 500), 63, &ike(1)));
    let reply = [&ike(1)[..8], &[9; 8], &ike(1)[16..]].concat();
    lan(&mut household, 41, Inbound, &udp((SERVER, 500), (DEVICE, 500), 49, &reply));
    wan(&mut household, 40, Inbound, &udp((SERVER, 500), (WAN, 1024), 50, &reply));
    household.pass_time(at(5000));
    let crossing = only(&household).crossings[0];
    assert_eq!((crossing.left, crossing.delivered, crossing.undelivered), (1, 1, 0));
    assert!(household.router.strays.is_empty());
}

#[test]
fn what_stays_in_the_router_is_swallowed_or_undelivered() {
    let mut household = live();
    for round in 0..4 {
        lan(&mut household, round * 3000, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    }
    household.pass_time(at(20_000));
    let crossing = only(&household).crossings[0];
    assert_eq!((crossing.left, crossing.swallowed), (0, 4));
    let findings = household.findings(at(20_000), None, None);
    assert_eq!(findings[0].code, Code::LocalFirewall, "{findings:?}");

    let mut household = live();
    lan(&mut household, 10, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    wan(&mut household, 11, Outbound, &udp((WAN, 1024), (SERVER, 500), 63, &ike(1)));
    for round in 1..4 {
        let mut reply = ike(1);
        reply[8] = 9;
        wan(&mut household, round * 3000, Inbound, &udp((SERVER, 500), (WAN, 1024), 50, &reply));
    }
    household.pass_time(at(20_000));
    let crossing = only(&household).crossings[0];
    assert_eq!((crossing.undelivered, crossing.delivered), (3, 0));
    assert_eq!(household.findings(at(20_000), None, None)[0].code, Code::LocalFirewall);
}

#[test]
fn inbound_esp_of_two_devices_that_nobody_got_is_a_stray() {
    let mut household = live();
    for (device, spi) in [(DEVICE, 1), (OTHER, 2)] {
        lan(&mut household, 10, Outbound, &ip(device, SERVER, 50, 64, &esp(spi, 1)));
        wan(&mut household, 11, Outbound, &ip(WAN, SERVER, 50, 63, &esp(spi, 1)));
    }
    for seq in 1..3 {
        wan(&mut household, 20, Inbound, &ip(SERVER, WAN, 50, 50, &esp(7, seq)));
    }
    household.pass_time(at(9000));
    let [stray] = household.router.strays[..] else { panic!("{:?}", household.router.strays) };
    assert_eq!((stray.count, stray.trace.id), (2, 0xc000_0007));
    assert!(household.pairs().all(|pair| pair.crossings[0].undelivered == 0));
}

#[test]
fn inbound_packets_are_delivered_to_the_device() {
    let mut household = live();
    lan(&mut household, 10, Outbound, &ip(DEVICE, SERVER, 50, 64, &esp(1, 1)));
    wan(&mut household, 11, Outbound, &ip(WAN, SERVER, 50, 63, &esp(1, 1)));
    wan(&mut household, 30, Inbound, &ip(SERVER, WAN, 50, 50, &esp(9, 1)));
    assert_eq!(only(&household).heard, None);
    lan(&mut household, 31, Inbound, &ip(SERVER, DEVICE, 50, 49, &esp(9, 1)));
    household.pass_time(at(9000));
    let pair = only(&household);
    assert_eq!(pair.heard, Some(Mark { at: at(31), number: 31 }));
    assert_eq!((pair.crossings[0].delivered, pair.crossings[0].undelivered), (1, 0));
}

#[test]
fn a_packet_that_goes_to_several_devices_reaches_each_of_them() {
    let mut household = live();
    for (device, spi) in [(DEVICE, 1), (OTHER, 2)] {
        lan(&mut household, 10, Outbound, &ip(device, SERVER, 50, 64, &esp(spi, 1)));
        wan(&mut household, 11, Outbound, &ip(WAN, SERVER, 50, 63, &esp(spi, 1)));
    }
    wan(&mut household, 30, Inbound, &ip(SERVER, WAN, 50, 50, &esp(9, 1)));
    for device in [DEVICE, OTHER] {
        lan(&mut household, 31, Inbound, &ip(SERVER, device, 50, 49, &esp(9, 1)));
    }
    household.pass_time(at(9000));
    for pair in household.pairs() {
        assert_eq!(pair.heard, Some(Mark { at: at(31), number: 31 }), "{}", pair.device);
        assert_eq!((pair.crossings[0].delivered, pair.crossings[0].undelivered), (1, 0));
    }
}

#[test]
fn the_router_s_own_vpn_is_seen_on_the_wan_alone() {
    let mut household = live();
    wan(&mut household, 11, Outbound, &udp((WAN, 500), (SERVER, 500), 64, &ike(1)));
    let mut reply = ike(1);
    reply[8] = 9;
    wan(&mut household, 20, Inbound, &udp((SERVER, 500), (WAN, 500), 50, &reply));
    // A device that uses the same server is another one.
    lan(&mut household, 30, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(3)));
    wan(&mut household, 31, Outbound, &udp((WAN, 1024), (SERVER, 500), 63, &ike(3)));
    let mut reply = ike(3);
    reply[8] = 9;
    wan(&mut household, 40, Inbound, &udp((SERVER, 500), (WAN, 1024), 50, &reply));
    lan(&mut household, 41, Inbound, &udp((SERVER, 500), (DEVICE, 500), 49, &reply));
    assert_eq!(ends(&household), [(DEVICE.into(), SERVER.into()), (WAN.into(), SERVER.into())]);
    assert_eq!(household.pairs().map(|pair| pair.heard.is_some()).collect::<Vec<_>>(), [true, true]);
}

#[test]
fn a_capture_of_both_sides_has_no_device_beyond_the_nat() {
    let mut household = capture();
    seen(&mut household, 10, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    seen(&mut household, 11, &udp((WAN, 1024), (SERVER, 500), 63, &ike(1)));
    let mut reply = ike(1);
    reply[8] = 9;
    seen(&mut household, 40, &udp((SERVER, 500), (WAN, 1024), 50, &reply));
    seen(&mut household, 41, &udp((SERVER, 500), (DEVICE, 500), 49, &reply));
    let pair = only(&household);
    assert_eq!(pair.heard.map(|heard| heard.number), Some(41));
    assert_eq!((pair.crossings[0].left, pair.crossings[0].delivered), (1, 1));
}

#[test]
fn two_devices_that_say_the_same_are_two() {
    let request = [&[0xc8, 2, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0x80, 8, 0, 0, 0, 0, 0, 1]].concat();
    for mut household in [live(), capture()] {
        let point = if household.settings.lan.is_empty() { Point::Unknown } else { Point::Lan };
        for (millis, device) in [(10, DEVICE), (400, OTHER)] {
            let bytes = udp((device, 1701), (SERVER, 1701), 64, &request);
            household.packet(at(millis), millis, point, Some(Outbound), &Packet::parse(&bytes).unwrap());
        }
        assert_eq!(ends(&household), [(DEVICE.into(), SERVER.into()), (OTHER.into(), SERVER.into())]);
        assert!(household.pairs().all(|pair| pair.crossings.is_empty()));
    }
}

#[test]
fn on_a_bridge_everything_is_there_twice_and_counts_once() {
    let mut household = capture();
    for millis in [10, 10, 4000, 4000] {
        seen(&mut household, millis, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    }
    let pair = only(&household);
    assert!(pair.crossings.is_empty());
    assert_eq!(household.packets(), 4);
}

#[test]
fn the_first_sender_is_the_device_where_no_address_is_private() {
    let (a, b) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let mut household = capture();
    seen(&mut household, 1, &udp((a, 500), (b, 500), 64, &ike(1)));
    seen(&mut household, 2, &udp((b, 500), (a, 500), 64, &ike(2)));
    assert_eq!(ends(&household), [(a.into(), b.into())]);
    // An answer's ports give it away.
    let mut household = capture();
    seen(&mut household, 1, &udp((b, 500), (a, 40_000), 64, &ike(1)));
    assert_eq!(ends(&household), [(a.into(), b.into())]);
}

#[test]
fn an_error_is_told_once_to_whom_the_quoted_packet_belongs() {
    let mut household = live();
    lan(&mut household, 10, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    wan(&mut household, 11, Outbound, &udp((WAN, 1024), (SERVER, 500), 63, &ike(1)));
    let error = |quote: &[u8], to| {
        let mut icmp = vec![3, 13, 0, 0, 0, 0, 0, 0];
        icmp.extend(&quote[..28]);
        ip(HOP, to, 1, 60, &icmp)
    };
    wan(&mut household, 20, Inbound, &error(&udp((WAN, 1024), (SERVER, 500), 62, &ike(1)), WAN));
    lan(&mut household, 21, Inbound, &error(&udp((DEVICE, 500), (SERVER, 500), 62, &ike(1)), DEVICE));
    let [report] = only(&household).errors[..] else { panic!("{:?}", only(&household).errors) };
    assert_eq!((report.kind, report.from, report.about_outbound), (IcmpKind::Prohibited, HOP.into(), true));
    assert_eq!((report.device_port, report.server_port), (500, 500));
}

#[test]
fn a_flood_of_servers_displaces_the_oldest_and_no_more() {
    let mut household = live();
    for n in 0..100 {
        lan(
            &mut household,
            10 + n,
            Outbound,
            &ip(DEVICE, [198, 51, 100, u8::try_from(n).unwrap()], 50, 64, &esp(1, 1)),
        );
        assert!(household.pairs().count() <= 8);
    }
    assert!(ends(&household).contains(&(DEVICE.into(), IpAddr::from([198, 51, 100, 99]))));
}

#[test]
fn a_session_that_moves_to_another_port_begins_once() {
    let mut household = live();
    lan(&mut household, 10, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    household.pass_time(at(2000));
    let marked = [&[0; 4], &ike(1)[..]].concat();
    lan(&mut household, 2010, Outbound, &udp((DEVICE, 4500), (SERVER, 4500), 64, &marked));
    household.pass_time(at(4000));
    let events: Vec<_> =
        std::iter::from_fn(|| household.poll_event()).map(|e| (e.before, e.session.phase)).collect();
    assert_eq!(events, [(None, Phase::Handshake)]);
    assert_eq!(household.sessions(at(4000)).len(), 1);
}

#[test]
fn what_stays_at_home_is_no_vpn() {
    let mut household = live();
    let packet = udp((DEVICE, 500), (OTHER, 500), 64, &ike(1));
    seen(&mut household, 1, &packet);
    lan(&mut household, 2, Outbound, &packet);
    lan(&mut household, 3, Inbound, &packet);
    assert!(ends(&household).is_empty());
}

/// A question for the address of vpn.example.com, or the answer to it (RFC 1035 section 4).
fn dns(address: Option<[u8; 4]>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(b"\x03vpn\x07example\x03com\0\0\x01\0\x01");
    if let Some(address) = address {
        (message[2], message[3], message[7]) = (0x81, 0x80, 1);
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(address);
    }
    message
}

const RESOLVER: [u8; 4] = [192, 0, 2, 53];

/// The name is looked up; everything is seen on both sides.
fn look_up(household: &mut Household, millis: u64, address: [u8; 4]) {
    lan(household, millis, Outbound, &udp((DEVICE, 4000), (RESOLVER, 53), 64, &dns(None)));
    wan(household, millis + 1, Outbound, &udp((WAN, 4001), (RESOLVER, 53), 63, &dns(None)));
    wan(household, millis + 5, Inbound, &udp((RESOLVER, 53), (WAN, 4001), 60, &dns(Some(address))));
    lan(household, millis + 6, Inbound, &udp((RESOLVER, 53), (DEVICE, 4000), 59, &dns(Some(address))));
}

#[test]
fn a_name_that_is_looked_up_through_the_nat_is_answered() {
    let mut household = live();
    for round in 0..4 {
        look_up(&mut household, 10 + round * 7000, SERVER);
    }
    assert_eq!(household.findings(at(60_000), None, None), []);
    assert!(household.is_vpn_server(SERVER.into()));
}

#[test]
fn a_wrong_address_that_nobody_answers_at_is_a_lie_of_dns() {
    let mut household = live();
    let portal = [10, 10, 34, 36];
    look_up(&mut household, 10, portal);
    for round in 0..4 {
        let begin = 100 + round * 4000;
        lan(&mut household, begin, Outbound, &udp((DEVICE, 500), (portal, 500), 64, &ike(1)));
        wan(&mut household, begin + 1, Outbound, &udp((WAN, 500), (portal, 500), 63, &ike(1)));
    }
    let found = household.findings(at(20_000), None, None);
    assert_eq!(found.first().map(|finding| finding.code), Some(Code::DnsLies), "{found:?}");
    // A company's own resolver says the same, and it works.
    let mut reply = ike(1);
    reply[8] = 9;
    lan(&mut household, 20_100, Inbound, &udp((portal, 500), (DEVICE, 500), 60, &reply));
    let found = household.findings(at(20_200), None, None);
    assert!(found.iter().all(|finding| finding.code != Code::DnsLies), "{found:?}");
}

/// IKE_AUTH's request, or its answer, which is longer than a packet holds.
fn ike_auth(response: bool) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 46, 0x20, 35];
    message.extend([if response { 0x20 } else { 8 }, 0, 0, 0, 1, 0, 0]);
    let len: u16 = if response { 2200 } else { 256 };
    message.extend(len.to_be_bytes());
    message.extend([35, 0]);
    message.extend((len - 28).to_be_bytes());
    message.resize(usize::from(len) + 4, 7);
    message
}

/// The two fragments of a datagram.
fn cut(mut whole: Vec<u8>, ident: u8) -> [Vec<u8>; 2] {
    whole[5] = ident;
    let mut later = [&whole[..20], &whole[1500..]].concat();
    whole.truncate(1500);
    for (part, offset) in [(&mut whole, 0x2000), (&mut later, 1480 / 8)] {
        let [high, low] = u16::try_from(part.len()).unwrap().to_be_bytes();
        part[2..4].copy_from_slice(&[high, low]);
        part[6..8].copy_from_slice(&u16::to_be_bytes(offset));
    }
    [whole, later]
}

/// A login that is sent four times; which of the answer's fragments come to the WAN, and does it reach the LAN?
fn fragmented(parts: &[usize], delivered: bool) -> Household {
    let mut household = live();
    lan(&mut household, 0, Outbound, &udp((DEVICE, 500), (SERVER, 500), 64, &ike(1)));
    wan(&mut household, 1, Outbound, &udp((WAN, 500), (SERVER, 500), 63, &ike(1)));
    let mut answer = ike(1);
    (answer[8], answer[19]) = (9, 0x20);
    wan(&mut household, 30, Inbound, &udp((SERVER, 500), (WAN, 500), 50, &answer));
    lan(&mut household, 31, Inbound, &udp((SERVER, 500), (DEVICE, 500), 49, &answer));
    for (ident, millis) in [(1, 100), (2, 2100), (3, 5700), (4, 12_200)] {
        lan(&mut household, millis, Outbound, &udp((DEVICE, 4500), (SERVER, 4500), 64, &ike_auth(false)));
        wan(&mut household, millis + 1, Outbound, &udp((WAN, 4500), (SERVER, 4500), 63, &ike_auth(false)));
        let pieces = cut(udp((SERVER, 4500), (WAN, 4500), 50, &ike_auth(true)), ident);
        for &part in parts {
            wan(&mut household, millis + 30, Inbound, &pieces[part]);
        }
        if delivered {
            for piece in cut(udp((SERVER, 4500), (DEVICE, 4500), 49, &ike_auth(true)), ident) {
                lan(&mut household, millis + 31, Inbound, &piece);
            }
            household.pass_time(at(20_000));
            return household;
        }
    }
    household.pass_time(at(20_000));
    household
}

#[test]
fn an_answer_of_which_a_fragment_is_lost_before_the_router() {
    for part in [0, 1] {
        let household = fragmented(&[part], false);
        let findings = household.findings(at(20_000), None, None);
        let codes: Vec<Code> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [Code::IkeReplyFragLost], "fragment {part}");
        assert_eq!(findings[0].confidence, crate::Confidence::High);
        assert_eq!(only(&household).crossings.iter().map(|crossing| crossing.undelivered).sum::<u64>(), 0);
    }
}

#[test]
fn an_answer_in_fragments_that_arrives_is_healthy_in_any_order() {
    for parts in [[0, 1], [1, 0]] {
        let household = fragmented(&parts, true);
        assert_eq!(household.findings(at(20_000), None, None), []);
    }
}

#[test]
fn a_clock_that_is_set_back_ends_no_session_before_it_began() {
    let mut household = live();
    let (out, back) = ((DEVICE, 500), (SERVER, 500));
    // Sessions began later than their last packets, and findings lay in the future.
    for (number, millis) in [(1, 5000), (2, 4000), (3, 0)] {
        let bytes = udp(out, back, 64, &ike(u8::try_from(number).unwrap()));
        let packet = Packet::parse(&bytes).unwrap();
        household.packet(at(millis), number, Point::Lan, Some(Outbound), &packet);
    }
    let now = household.now();
    assert_eq!(now, at(5000));
    let sessions = household.sessions(now);
    assert!(!sessions.is_empty());
    assert!(sessions.iter().all(|s| s.since == now && s.last_seen == now), "{sessions:?}");
    assert!(household.pairs().all(|pair| pair.since <= pair.last_seen));
}
