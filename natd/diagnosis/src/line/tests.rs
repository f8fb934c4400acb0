use std::net::IpAddr;

use nat_core::flow::Direction::{Inbound, Outbound};

use super::*;
use crate::flow::exercise::{VANTAGE, ask, household};
use crate::observation::{Peers, at};

const NOW: Timestamp = Timestamp::from_secs(3_600);

#[test]
fn a_router_that_is_well_has_nothing_to_say() {
    let router = Router {
        wan: vec![[203, 0, 113, 5].into(), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])],
        wan_up: Some(true),
        // One reconnection, and an older one.
        link_changes: [100, 130, 3_500, 3_530].map(Timestamp::from_secs).to_vec(),
        exhausted: Some((9, Timestamp::from_secs(60))),
        clock_skew: Some(-299),
        ..Router::default()
    };
    assert_eq!(codes(&router, true, true), []);
    assert_eq!(codes(&Router::default(), true, true), []);
}

#[test]
fn each_trouble_of_the_router_has_its_code() {
    let wan = |address: [u8; 4]| Router { wan: vec![address.into()], ..Router::default() };
    let rows = [
        (Router { wan_up: Some(false), ..Router::default() }, Code::WanDown),
        (
            Router {
                link_changes: [3_400, 3_430, 3_500].map(Timestamp::from_secs).to_vec(),
                ..Router::default()
            },
            Code::WanLinkFlap,
        ),
        (
            Router { exhausted: Some((9, Timestamp::from_secs(3_590))), ..Router::default() },
            Code::NatTableFull,
        ),
        (Router { clock_skew: Some(-301), ..Router::default() }, Code::ClockWrong),
        (wan([10, 0, 0, 7]), Code::DoubleNat),
        (wan([172, 31, 0, 7]), Code::DoubleNat),
        (wan([100, 64, 0, 1]), Code::Cgnat),
        (wan([100, 127, 255, 1]), Code::Cgnat),
        (Router { shared_ports: vec![1024..=1039, 5120..=5135], ..Router::default() }, Code::SharedIpv4Port),
    ];
    for (router, code) in rows {
        assert_eq!(codes(&router, true, true), [code]);
    }
    assert_eq!(codes(&wan([100, 128, 0, 1]), true, true), []);
    assert_eq!(codes(&wan([172, 32, 0, 1]), true, true), []);
}

#[test]
fn a_wrong_clock_counts_only_while_a_vpn_fails_and_ports_only_for_ipsec() {
    let clock = Router { clock_skew: Some(4_000), ..Router::default() };
    assert_eq!(codes(&clock, false, true), []);
    let ports = Router { shared_ports: vec![1024..=1039], ..Router::default() };
    assert_eq!(codes(&ports, true, false), []);
}

#[test]
fn two_servers_and_two_protocols_in_silence_are_the_line() {
    let silent = |server, port| pair(server, port, false);
    let found =
        |pairs: &[Pair]| silent_all(pairs.iter(), at(20_000)).map(|(sure, evidence)| (sure, evidence.len()));
    let both = [silent(10, 51_820), silent(11, 1194)];
    assert_eq!(found(&both), Some((Confidence::Medium, 2)));
    assert_eq!(found(&[silent(10, 51_820), silent(11, 51_820)]), None);
    assert_eq!(found(&[silent(10, 51_820)]), None);
    assert_eq!(found(&[silent(10, 51_820), silent(11, 1194), pair(12, 1194, true)]), None);
    // Without a connection that works it may be anything.
    let house = household(Vec::new());
    assert_eq!(ask(20_000, &house, None, &Router::default(), findings), []);
}

#[test]
fn other_traffic_with_the_server_is_a_control() {
    let pairs = [false, true].map(|beside| {
        let mut pair = pair(10, 51_820, false);
        pair.beside.heard = beside.then_some(crate::Mark { at: at(50_000), number: 3 });
        pair
    });
    let house = household(Vec::new());
    let router = Router::default();
    let context = |pair| Context {
        now: at(60_000),
        household: &house,
        pair: Some(pair),
        router: &router,
        vantage: &VANTAGE,
    };
    let counts = pairs.each_ref().map(|pair| control(&context(pair), Vpn::WireGuard).len());
    assert_eq!(counts, [0, 1]);
}

fn pair(server: u8, port: u16, answered: bool) -> Pair {
    let peers = Peers { server: [198, 51, 100, server].into(), ..Peers::default() };
    let mut pair = Pair::new(peers.device, peers.server, at(0));
    let (first, len) = if port == 1194 { (0x38, 14) } else { (1, 148) };
    let mut payload = vec![first];
    payload.resize(len, 0);
    if port == 1194 {
        payload[1..9].fill(5);
    }
    for millis in [0, 5_000, 10_000] {
        pair.observe(&peers.packet(millis, Outbound, 17, &Peers::udp(40_000, port, &payload)));
    }
    if answered {
        pair.observe(&peers.packet(11_000, Inbound, 17, &Peers::udp(port, 40_000, &payload)));
    }
    pair
}

fn codes(router: &Router, fails: bool, ipsec: bool) -> Vec<Code> {
    let mut findings = Findings::default();
    of_router(NOW, router, fails, ipsec, &mut findings);
    findings.list.iter().map(|finding| finding.code).collect()
}
