//! The diagnosis of any course of packets: whatever comes, questions are answered, and what is remembered is bounded.

use std::net::IpAddr;
use std::time::Duration;

use diagnosis::{Household, Packet, Point, Settings, Vantage};
use nat_core::flow::Direction;
use nat_core::time::Timestamp;

use super::script::Script;
use super::wire;

const WAN: std::net::Ipv4Addr = std::net::Ipv4Addr::new(198, 51, 100, 1);

pub(crate) fn run(input: &[u8]) {
    let script = &mut Script(input);
    let live = script.byte() & 1 != 0;
    let vantage = Vantage { lan: true, wan: live, router: live, dns: true };
    let lan = if live { vec![(IpAddr::from([192, 168, 1, 0]), 24)] } else { Vec::new() };
    let servers = vec![script.remote().into()];
    let memory = Duration::from_secs(3600);
    let mut household = Household::new(Settings { lan, pairs: 4, memory, vantage, servers, events: live });
    if live {
        household.router.wan = vec![WAN.into()];
        household.router.own = vec![[192, 168, 1, 1].into()];
        (household.router.ipsec, household.router.pptp) = (Some(true), Some(script.byte() & 1 != 0));
    }
    let mut now = Timestamp::from_secs(1000);
    let mut number = 0;
    while let Some(event) = script.event() {
        match event % 16 {
            0 => {
                now = now + script.time();
                household.pass_time(now);
            }
            1 => ask(&mut household, now),
            // As it is: IPv6, fragments, and what is none.
            2 => {
                let bytes = script.bytes();
                take(&mut household, script, live, &mut number, now, bytes);
            }
            _ => {
                let (device, remote) = (if event & 64 != 0 { WAN } else { script.device() }, script.remote());
                let kind = script.byte();
                let protocol = [17, 17, 6, 50, 47, 1, 17, 51, 115][usize::from(kind % 9)];
                let known = [500, 4500, 1701, 1723, 1194, 51820, 443, 53];
                let port = known[usize::from(kind >> 4) % 8];
                let own = if event & 128 != 0 { port } else { 40_000 };
                let payload = script.bytes();
                let packet = if event & 32 != 0 {
                    wire::packet(protocol, remote, device, (port, own), payload)
                } else {
                    wire::packet(protocol, device, remote, (own, port), payload)
                };
                take(&mut household, script, live, &mut number, now, &packet);
            }
        }
    }
    ask(&mut household, now);
}

fn take(
    household: &mut Household,
    script: &mut Script<'_>,
    live: bool,
    number: &mut u64,
    now: Timestamp,
    bytes: &[u8],
) {
    let place = script.byte();
    let (point, direction) = match place % 4 {
        _ if !live => (Point::Unknown, None),
        0 => (Point::Lan, Some(Direction::Outbound)),
        1 => (Point::Lan, Some(Direction::Inbound)),
        2 => (Point::Wan, Some(Direction::Outbound)),
        _ => (Point::Wan, Some(Direction::Inbound)),
    };
    let cut = bytes.len() - usize::from(place >> 3).min(bytes.len());
    *number += 1;
    if let Some(packet) = bytes.get(..cut).and_then(Packet::parse) {
        household.packet(now, *number, point, direction, &packet);
    }
}

fn ask(household: &mut Household, now: Timestamp) {
    assert!(household.pairs().count() <= 4, "too many pairs");
    let findings = household.findings(now, None, None);
    assert!(findings.len() <= 200, "{} findings", findings.len());
    for finding in &findings {
        assert!(finding.since <= now, "{finding:?} is about what is still to come");
        assert!(!finding.evidence.is_empty(), "nothing shows {finding:?}");
        assert!(finding.evidence.len() <= 16, "too much shows {finding:?}");
    }
    let sessions = household.sessions(now);
    assert!(sessions.len() <= 200, "{} sessions", sessions.len());
    assert!(sessions.iter().all(|session| session.since <= session.last_seen), "{sessions:?}");
    while household.poll_event().is_some() {}
}
