//! What a large household costs. Asked for by name: `cargo test --release --test diagnosis -- --ignored --nocapture`.

use std::fs;
use std::time::Duration;

use diagnosis::{Household, Packet, Point, Settings, Vantage};
use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use testkit::clock;

use crate::ipsec::{Ike, Login};
use crate::net::{Fate, Fault, Line, Place};
use crate::others::{OpenVpn, Pptp, WireGuard};

const PAIRS: u16 = 512;
const ATTEMPTS: usize = 8;

/// Attempts of each kind, none of which comes to an end.
fn attempts(line: &mut Line, nth: u16) {
    for attempt in 0..ATTEMPTS {
        match nth % 4 {
            0 => {
                let login = Login::ALL[attempt % 5];
                Ike::new(line, login, true).connect(line);
            }
            1 => {
                WireGuard::new(line).handshake(line, 3);
            }
            2 => {
                OpenVpn::new(line, false).unwrap().connect(line);
            }
            _ => {
                Pptp::call(line);
            }
        }
        line.wait(1_000);
    }
}

fn kilobytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn measure(name: &str, fault: Fault) {
    let mut sights = Vec::new();
    for nth in 0..PAIRS {
        let mut line = Line::new(0, false, u64::from(nth), fault);
        let [high, low] = nth.to_be_bytes();
        line.device = [192, 168, high, low].into();
        line.server =
            if name.contains("one server") { [198, 51, 100, 10].into() } else { [198, 51, high, low].into() };
        attempts(&mut line, nth);
        sights.append(&mut line.sights);
    }
    sights.retain(|sight| sight.place == Place::Lan);
    sights.sort_by_key(|sight| sight.at);
    let vantage = Vantage { lan: true, wan: true, router: true, dns: true };
    let before = kilobytes();
    let settings = Settings {
        lan: vec![([192, 168, 0, 0].into(), 16)],
        pairs: usize::from(PAIRS) + 1,
        memory: Duration::from_secs(7200),
        vantage,
        servers: Vec::new(),
        events: true,
    };
    let mut household = Household::new(settings);
    let begun = clock::now();
    for (nth, sight) in sights.iter().enumerate() {
        let packet = Packet::parse(&sight.bytes).unwrap();
        let way = if sight.outbound { Direction::Outbound } else { Direction::Inbound };
        let number = u64::try_from(nth).unwrap();
        household.packet(Timestamp::from_micros(sight.at), number, Point::Lan, Some(way), &packet);
    }
    let fed = begun.elapsed();
    let now = household.now();
    let asked = clock::now();
    let found = household.findings(now, None, None).len();
    let findings = asked.elapsed();
    let asked = clock::now();
    let sessions = household.sessions(now).len();
    println!(
        "{name}: {} pairs, {} packets in {fed:?}; {found} findings in {findings:?}, {sessions} sessions in {:?}; {} KiB more",
        household.pairs().count(),
        sights.len(),
        asked.elapsed(),
        kilobytes().saturating_sub(before),
    );
    assert_eq!(household.pairs().count(), usize::from(PAIRS));
    let limit = if cfg!(debug_assertions) { 2_000 } else { 50 };
    assert!(findings < Duration::from_millis(limit), "{findings:?}");
}

#[test]
#[ignore = "measures time"]
fn a_household_at_its_limit_is_judged_at_once() {
    measure("silent servers", |_| Fate::LostOnTheWay);
    measure("one server, silent", |_| Fate::LostOnTheWay);
    measure("one server, all fine", |_| Fate::Arrives);
}
