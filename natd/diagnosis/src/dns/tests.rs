use nat_core::flow::Direction::{self, Inbound, Outbound};

use super::*;
use crate::finding::Finding;
use crate::flow::exercise::{ask, household};
use crate::observation::Peers;
use crate::router::Router;

const PUBLIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

#[test]
fn names_of_vpns_are_told_from_others() {
    let vpns = [
        "vpn.example.com",
        "vpn3.example.com",
        "vpn-tokyo.example.com",
        "jp-vpn.example.com",
        "my-vpn2.example.com",
        "wg.example.com",
        "wg0.example.net",
        "remote.example.com",
        "l2tp.example.com",
        "sstp.example.com",
    ];
    let others =
        ["www.example.com", "vpnshop.example.com", "remotes.example.com", "pike.example.com", "", "wgx.com"];
    for name in vpns {
        assert!(looks_like_vpn(name), "{name}");
    }
    for name in others {
        assert!(!looks_like_vpn(name), "{name}");
    }
}

#[test]
fn the_address_of_a_vpns_name_is_remembered_through_its_alias() {
    let mut watch = Watch::default();
    send(&mut watch, 0, Outbound, &query("VPN.example.com"));
    let mut answer = message(0x81, 0, "VPN.example.com", 2);
    record(&mut answer, 5, &[4, b'e', b'd', b'g', b'e', 0xc0, 16]);
    record(&mut answer, 1, &[203, 0, 113, 9]);
    send(&mut watch, 20, Inbound, &answer);
    assert!(watch.names_vpn(PUBLIC));
    assert!(!watch.names_vpn([203, 0, 113, 8].into()));
    assert_eq!(codes(&watch, 60_000), []);
    // The alias tells as well.
    let mut answer = message(0x81, 0, "www.example.com", 2);
    record(&mut answer, 5, &[3, b'v', b'p', b'n', 0xc0, 16]);
    record(&mut answer, 1, &[203, 0, 113, 8]);
    send(&mut watch, 20, Inbound, &answer);
    assert!(watch.names_vpn([203, 0, 113, 8].into()));
}

#[test]
fn addresses_of_websites_are_not_remembered() {
    let mut watch = Watch::default();
    send(&mut watch, 0, Outbound, &query("www.example.com"));
    send(&mut watch, 20, Inbound, &answer("www.example.com", [203, 0, 113, 9]));
    // What a device itself answers counts as little.
    send(&mut watch, 40, Outbound, &answer("vpn.example.com", [203, 0, 113, 9]));
    assert!(!watch.names_vpn(PUBLIC));
    assert!(watch.lookups.is_empty());
}

#[test]
fn a_name_that_does_not_exist_or_cannot_be_looked_up_fails() {
    for code in [2, 3, 5] {
        let mut watch = Watch::default();
        send(&mut watch, 0, Outbound, &query("vpn.example.com"));
        send(&mut watch, 20, Inbound, &message(0x81, code, "vpn.example.com", 0));
        assert_eq!(codes(&watch, 1_000), []);
        let found = found(&watch, 6_000);
        assert_eq!((found[0].code, found[0].confidence), (Code::DnsFail, Confidence::Medium));
        assert_eq!(found[0].device, Some(Peers::default().device));
        assert_eq!(found.len(), 1);
    }
}

#[test]
fn who_asks_again_and_again_is_told_no_longer_than_who_asks_once() {
    let mut watch = Watch::default();
    for second in [0, 8, 24] {
        send(&mut watch, second * 1000, Outbound, &query("vpn.example.com"));
        send(&mut watch, second * 1000 + 2, Inbound, &message(0x81, 3, "vpn.example.com", 0));
    }
    assert_eq!(codes(&watch, 26_000), [(Code::DnsFail, Confidence::Medium)]);
}

#[test]
fn a_resolver_that_is_silent_fails_and_one_lost_question_does_not() {
    let mut watch = Watch::default();
    for millis in [0, 1_000, 3_000, 7_000] {
        send(&mut watch, millis, Outbound, &query("vpn.example.com"));
    }
    assert_eq!(codes(&watch, 11_000), [(Code::DnsFail, Confidence::High)]);
    send(&mut watch, 12_000, Inbound, &answer("vpn.example.com", [203, 0, 113, 9]));
    assert_eq!(codes(&watch, 20_000), []);
    let mut once = Watch::default();
    send(&mut once, 0, Outbound, &query("vpn.example.com"));
    assert_eq!(codes(&once, 60_000), []);
}

#[test]
fn a_search_list_and_a_missing_ipv6_address_are_nothing() {
    let mut watch = Watch::default();
    send(&mut watch, 0, Outbound, &query("vpn.example.com.home"));
    send(&mut watch, 20, Inbound, &message(0x81, 3, "vpn.example.com.home", 0));
    send(&mut watch, 30, Outbound, &query("vpn.example.com"));
    send(&mut watch, 50, Inbound, &message(0x81, 0, "vpn.example.com", 0));
    send(&mut watch, 60, Inbound, &answer("vpn.example.com", [203, 0, 113, 9]));
    assert_eq!(codes(&watch, 60_000), []);
}

#[test]
fn order_does_not_matter_to_a_search_list_nor_a_kind_of_address_that_cannot_be_looked_up() {
    let mut watch = Watch::default();
    send(&mut watch, 0, Inbound, &answer("vpn.example.com", [203, 0, 113, 9]));
    send(&mut watch, 50, Inbound, &message(0x81, 3, "vpn.example.com.home", 0));
    assert_eq!(codes(&watch, 60_000), []);
    let mut watch = Watch::default();
    send(&mut watch, 0, Inbound, &message(0x81, 0, "vpn.example.com", 0));
    send(&mut watch, 50, Inbound, &message(0x81, 2, "vpn.example.com", 0));
    assert_eq!(codes(&watch, 60_000), []);
}

#[test]
fn a_private_address_beside_a_public_one_is_no_lie() {
    let mut watch = Watch::default();
    let mut both = message(0x81, 0, "vpn.example.com", 2);
    record(&mut both, 1, &[10, 1, 2, 3]);
    record(&mut both, 1, &[203, 0, 113, 9]);
    send(&mut watch, 0, Inbound, &both);
    assert_eq!(codes(&watch, 60_000), []);
}

#[test]
fn a_second_resolver_that_knows_the_name_is_enough() {
    let mut watch = Watch::default();
    send(&mut watch, 0, Outbound, &query("vpn.example.com"));
    send(&mut watch, 20, Inbound, &message(0x81, 2, "vpn.example.com", 0));
    send(&mut watch, 5_000, Inbound, &answer("vpn.example.com", [203, 0, 113, 9]));
    assert_eq!(codes(&watch, 60_000), []);
}

#[test]
fn addresses_that_are_none_are_lies_and_private_ones_perhaps() {
    let rows = [
        ("vpn.example.com", [0, 0, 0, 0], Some(Confidence::Medium)),
        ("vpn.example.com", [127, 0, 0, 1], Some(Confidence::Medium)),
        ("vpn.example.com", [10, 1, 2, 3], Some(Confidence::Low)),
        ("vpn.example.com", [203, 0, 113, 9], None),
        ("vpn.home.lan", [192, 168, 1, 1], None),
        ("vpn", [192, 168, 1, 1], None),
    ];
    for (name, address, sure) in rows {
        let mut watch = Watch::default();
        send(&mut watch, 0, Outbound, &query(name));
        send(&mut watch, 20, Inbound, &answer(name, address));
        assert_eq!(codes(&watch, 6_000), Vec::from_iter(sure.map(|sure| (Code::DnsLies, sure))), "{name}");
    }
}

#[test]
fn loops_of_pointers_end_and_no_bytes_make_it_panic() {
    let mut looping = message(0x81, 0, "vpn.example.com", 1);
    let at = u16::try_from(looping.len()).unwrap() | 0xc000;
    looping.extend(at.to_be_bytes());
    looping.extend([0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
    assert_eq!(Message::parse(&looping).unwrap().addresses, Vec::<IpAddr>::new());
    assert_eq!(
        Message::parse(&[&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0xc0, 12, 0, 1]].concat()),
        None
    );
    let whole = answer("vpn.example.com", [203, 0, 113, 9]);
    let mut state = 53_u32;
    for _ in 0..50_000 {
        let mut bytes = whole.clone();
        for _ in 0..4 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = usize::try_from(state >> 8).unwrap() % bytes.len();
            bytes[at] = (state & 0xff) as u8;
        }
        bytes.truncate(usize::try_from(state >> 4).unwrap() % (bytes.len() + 1));
        let _ = Message::parse(&bytes);
    }
}

#[test]
fn a_name_may_be_as_long_as_it_gets_and_not_longer() {
    let label = "a".repeat(63);
    let long = format!("vpn.{label}.{label}.{label}.b");
    assert!(Message::parse(&query(&long)).is_some());
    let longer = format!("vpn.{label}.{label}.{label}.{label}");
    assert!(Message::parse(&query(&longer)).is_none());
}

#[test]
fn a_flood_of_names_and_addresses_is_forgotten() {
    let mut watch = Watch::default();
    for round in 0..1_000_u16 {
        let [high, low] = round.to_be_bytes();
        send(&mut watch, 0, Inbound, &answer(&format!("vpn{round}.example.com"), [203, 0, high, low]));
    }
    assert_eq!((watch.lookups.len(), watch.addresses.len()), (LOOKUPS, ADDRESSES));
}

fn query(name: &str) -> Vec<u8> {
    message(1, 0, name, 0)
}

fn answer(name: &str, address: [u8; 4]) -> Vec<u8> {
    let mut bytes = message(0x81, 0, name, 1);
    record(&mut bytes, 1, &address);
    bytes
}

fn message(flags: u8, code: u8, name: &str, answers: u8) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, flags, code, 0, 1, 0, answers, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn record(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    bytes.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, u8::try_from(content.len()).unwrap()]);
    bytes.extend(content);
}

fn send(watch: &mut Watch, millis: u64, direction: Direction, payload: &[u8]) {
    let (src, dst) = if direction == Outbound { (40_000, 53) } else { (53, 40_000) };
    let datagram = Peers::udp(src, dst, payload);
    watch.observe(&Peers::default().packet(millis, direction, 17, &datagram));
}

fn found(watch: &Watch, millis: u64) -> Vec<Finding> {
    ask(millis, &household(Vec::new()), None, &Router::default(), |context, findings| {
        watch.findings(context, findings);
    })
}

fn codes(watch: &Watch, millis: u64) -> Vec<(Code, Confidence)> {
    found(watch, millis).iter().map(|finding| (finding.code, finding.confidence)).collect()
}
