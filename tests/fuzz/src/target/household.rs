//! The diagnosis of any course of packets: whatever comes, questions are answered, and what is remembered is bounded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use diagnosis::router::{Refusal, Timeouts};
use diagnosis::{Household, Packet, Point, Settings, Vantage};
use nat_core::flow::Direction;
use nat_core::time::Timestamp;

use super::script::Script;
use super::wire;

const WAN: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// Somebody on the way.
const HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);
const PROTOCOLS: [u8; 9] = [17, 17, 6, 50, 47, 1, 17, 51, 115];
const PORTS: [u16; 8] = [500, 4500, 1701, 1723, 1194, 51820, 443, 53];
const REASONS: [&str; 4] = ["pptp-off", "l2tp-off", "vpn-not-allowed", "vpn-second-device"];

struct World {
    household: Household,
    live: bool,
    now: Timestamp,
    /// The clock may be set back, but nobody asks about an earlier time than before.
    latest: Timestamp,
    number: u64,
    /// The last packet, to be quoted, or seen again elsewhere.
    last: Vec<u8>,
    /// What becomes of the next packet's IPv4 fragment field.
    fragment: u16,
}

pub(crate) fn run(input: &[u8]) {
    let script = &mut Script(input);
    let live = script.byte() & 1 != 0;
    let vantage = Vantage { lan: true, wan: live, router: live, dns: true };
    let lan = if live { vec![(IpAddr::from([192, 168, 1, 0]), 24)] } else { Vec::new() };
    let servers = vec![script.remote().into()];
    let memory = Duration::from_secs(3600);
    let mut household = Household::new(Settings { lan, pairs: 4, memory, vantage, servers, events: live });
    if live {
        household.router.wan = vec![WAN[0].into()];
        household.router.own = vec![ROUTER.into()];
        (household.router.ipsec, household.router.pptp) = (Some(true), Some(script.byte() & 1 != 0));
    }
    let now = Timestamp::from_secs(1000);
    let mut world =
        World { household, live, now, latest: now, number: 0, last: Vec::new(), fragment: 0x4000 };
    while let Some(event) = script.event() {
        world.step(script, event);
    }
    world.ask();
    world.now = world.now + Duration::from_secs(60);
    world.ask();
}

impl World {
    fn step(&mut self, script: &mut Script<'_>, event: u8) {
        self.latest = self.latest.max(self.now);
        match event % 16 {
            0 => {
                self.now = self.now + script.time();
                self.household.pass_time(self.now);
            }
            1 => self.ask(),
            // As it is: IPv6, fragments, and what is none.
            2 => {
                self.last = script.bytes().to_vec();
                self.take(script);
            }
            // A clock that is set back.
            3 => self.now = Timestamp::from_micros(self.now.as_micros() - micros(script.time(), self.now)),
            4 => self.error(script),
            // More follows, or an offset.
            5 => self.fragment = script.word(),
            6 => self.elsewhere(script),
            7 => self.router(script),
            8 => {
                let (outbound, protocol, (device_port, port)) = header(script, event);
                let (device, server) = (Ipv6Addr::from([0xfd; 16]), Ipv6Addr::from([0x20; 16]));
                let (src, dst) = if outbound { (device, server) } else { (server, device) };
                let ports = if outbound { (device_port, port) } else { (port, device_port) };
                let v4 = wire::packet(protocol, WAN[0], HOP, ports, &payload(script, event));
                let behind = v4.get(20..).unwrap_or_default();
                self.last = vec![0x60, 0, 0, 0];
                self.last.extend(u16::try_from(behind.len()).unwrap_or(0).to_be_bytes());
                self.last.extend([protocol, 64]);
                self.last.extend(src.octets().into_iter().chain(dst.octets()));
                self.last.extend(behind);
                self.take(script);
            }
            _ => {
                let (device, remote) =
                    (if event & 64 != 0 { WAN[0] } else { script.device() }, script.remote());
                let (outbound, protocol, (device_port, port)) = header(script, event);
                let payload = payload(script, event);
                self.last = if outbound {
                    wire::packet(protocol, device, remote, (device_port, port), &payload)
                } else {
                    wire::packet(protocol, remote, device, (port, device_port), &payload)
                };
                let number = u8::try_from(self.number % 256).unwrap_or(0);
                let fragment = std::mem::replace(&mut self.fragment, 0x4000).to_be_bytes();
                // Fragments of one datagram have one identification.
                let id = if fragment == [0x40, 0] { number } else { 77 };
                self.last.splice(5..8, [id, fragment[0], fragment[1]]);
                self.take(script);
            }
        }
    }

    /// An ICMP error about the last packet.
    fn error(&mut self, script: &mut Script<'_>) {
        let (kind, code) = (script.byte() % 16, script.byte() % 16);
        let from = script.pick(&[HOP, ROUTER, super::script::REMOTES[0], super::script::REMOTES[1]]);
        let quoted = &self.last;
        let Some(&[a, b, c, d]) = quoted.get(12..16) else { return };
        let mut message = vec![kind, code, 0, 0, 0, 0, 5, 0x14];
        message.extend(quoted.iter().take(usize::from(script.byte())));
        let error = wire::packet(1, from, Ipv4Addr::new(a, b, c, d), (0, 0), &message);
        let last = std::mem::replace(&mut self.last, error);
        self.take(script);
        self.last = last;
    }

    /// The last packet beyond the NAT, or inside it.
    fn elsewhere(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let (address, port) = (WAN[usize::from(what & 1)], 40_000 + u16::from(what >> 4));
        let inside = super::script::DEVICES[usize::from(what >> 1) % 3];
        let Some(src) = self.last.get(12..16) else { return };
        let outbound = src.starts_with(&[192, 168]) || what & 8 != 0;
        let to_wan = src.starts_with(&[192, 168]) || self.last.get(16..18) == Some(&[192, 168]);
        let (at, port_at) = if outbound { (12, 20) } else { (16, 22) };
        let address = if to_wan { address } else { inside };
        if self.last.len() < 24 || self.last[0] != 0x45 {
            return;
        }
        self.last.splice(at..at + 4, address.octets());
        if matches!(self.last.get(9), Some(6 | 17)) && what & 0x80 != 0 {
            self.last.splice(port_at..port_at + 2, port.to_be_bytes());
        }
        self.last[8] -= u8::from(self.last[8] > 1);
        self.take(script);
    }

    /// What the router knows of itself changes.
    fn router(&mut self, script: &mut Script<'_>) {
        let (what, number) = (script.byte(), u32::from(script.byte()));
        let router = &mut self.household.router;
        match what % 8 {
            0 => router.wan_changed = Some((self.now, WAN[1].into())),
            1 => router.wan_up = Some(what & 8 != 0),
            2 if router.link_changes.len() < 16 => router.link_changes.push(self.now),
            3 => router.wan_mtu = Some(1400 + number),
            4 => {
                let seconds = u64::from(number);
                router.timeouts = Some(Timeouts { udp: seconds, esp: seconds, gre: seconds, tcp: seconds });
            }
            5 => router.shared_ports = vec![1024..=1024 + u16::try_from(number).unwrap_or(0)],
            6 => router.exhausted = Some((u64::from(number), self.now)),
            _ if router.refusals.len() < 64 => router.refusals.push(Refusal {
                device: (what & 8 == 0).then_some(super::script::DEVICES[0].into()),
                server: (what & 16 == 0).then_some(super::script::REMOTES[0].into()),
                protocol: script.pick(&PROTOCOLS),
                port: if what & 32 == 0 { 0 } else { script.pick(&PORTS) },
                reason: script.pick(&REASONS),
                count: u64::from(number),
                first: self.now,
                last: self.now,
            }),
            _ => router.clock_skew = Some(i64::from(number) * 1_000_000),
        }
    }

    fn take(&mut self, script: &mut Script<'_>) {
        let place = script.byte();
        let (point, direction) = match place % 4 {
            _ if !self.live => (Point::Unknown, None),
            0 => (Point::Lan, Some(Direction::Outbound)),
            1 => (Point::Lan, Some(Direction::Inbound)),
            2 => (Point::Wan, Some(Direction::Outbound)),
            _ => (Point::Wan, Some(Direction::Inbound)),
        };
        let cut = self.last.len() - usize::from(place >> 3).min(self.last.len());
        self.number += 1;
        if let Some(packet) = self.last.get(..cut).and_then(Packet::parse) {
            self.household.packet(self.now, self.number, point, direction, &packet);
        }
    }

    fn ask(&mut self) {
        let household = &mut self.household;
        assert!(household.pairs().count() <= 4, "too many pairs");
        self.latest = self.latest.max(self.now);
        let now = self.latest;
        let findings = household.findings(now, None, None);
        assert!(findings.len() <= 200, "{} findings", findings.len());
        for finding in &findings {
            assert!(finding.since <= now, "{finding:?} is about what is still to come");
            assert!(!finding.evidence.is_empty(), "nothing shows {finding:?}");
            assert!(finding.evidence.len() <= 16, "too much shows {finding:?}");
            for evidence in &finding.evidence {
                let (Some(first), Some(last)) = (evidence.first, evidence.last) else { continue };
                assert!(
                    first <= last && last.number <= self.number,
                    "{evidence:?} of {} packets",
                    self.number
                );
            }
        }
        let sessions = household.sessions(now);
        assert!(sessions.len() <= 200, "{} sessions", sessions.len());
        assert!(sessions.iter().all(|session| session.since <= session.last_seen), "{sessions:?}");
        while household.poll_event().is_some() {}
    }
}

/// Which way it goes, its protocol, and the device's and the server's port.
fn header(script: &mut Script<'_>, event: u8) -> (bool, u8, (u16, u16)) {
    let kind = script.byte();
    let protocol = PROTOCOLS[usize::from(kind % 16) % PROTOCOLS.len()];
    let port = PORTS[usize::from(kind >> 4) % PORTS.len()];
    // Two ports of each device.
    let own = 40_000 + u16::from(kind >> 7);
    (event & 32 == 0, protocol, (if event & 128 != 0 { port } else { own }, port))
}

/// Bytes, and zeros behind them where more was sent than tells anything.
fn payload(script: &mut Script<'_>, event: u8) -> Vec<u8> {
    let more = if event & 16 != 0 { usize::from(script.byte()) * 8 } else { 0 };
    let mut payload = script.bytes().to_vec();
    payload.resize(payload.len() + more, 0);
    payload
}

fn micros(time: Duration, at_most: Timestamp) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(0).min(at_most.as_micros())
}
