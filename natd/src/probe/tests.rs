//! A server behind three routers in a few lines, and what the probe makes of it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::*;
use crate::report::diagnosis::Verdict as Outcome;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));
/// The server's hop.
const HOPS: u8 = 4;

/// What a server does, and a path with it.
#[derive(Clone, Copy)]
struct World {
    /// UDP ports that are answered.
    udp: &'static [u16],
    /// Does TCP connect?
    tcp: bool,
    /// Is GRE answered?
    gre: bool,
    fragments: bool,
    /// As which address the server sees us.
    seen_as: IpAddr,
    ping: bool,
    /// Does the path say anything?
    routers: bool,
    /// Does it answer other groups than 19?
    any_group: bool,
    /// Does it know only version 1 of IKE?
    old: bool,
    /// Does it want its cookie back first?
    cookie: bool,
    /// The largest packet that comes through.
    mtu: usize,
}

const OPEN: World = World {
    udp: &[500, 4500, 1701, 1194],
    tcp: true,
    gre: true,
    fragments: true,
    seen_as: LOCAL,
    ping: true,
    routers: true,
    any_group: true,
    old: false,
    cookie: false,
    mtu: 1500,
};
const SILENT: World =
    World { udp: &[], tcp: false, gre: false, fragments: false, ping: false, routers: false, ..OPEN };

fn target() -> Target {
    Target {
        name: Some("vpn.example".to_owned()),
        server: SERVER,
        local: LOCAL,
        mtu: 1500,
        routes: false,
        ports: std::array::from_fn(|number| 40_000 + u16::try_from(number).unwrap()),
    }
}

/// What was done, and when.
struct Run {
    report: ProbeReport,
    packets: Vec<(Timestamp, Outgoing)>,
    connections: usize,
}

impl Run {
    fn of(world: World) -> Self {
        let mut probe = Probe::new(target(), [5; 16]);
        let (mut now, mut packets, mut connections) = (Timestamp::from_secs(1000), Vec::new(), 0);
        loop {
            match probe.poll(now) {
                Action::Send(packet) => {
                    world.answer(now, &packet, &mut probe);
                    packets.push((now, packet));
                }
                Action::Connect(service) => {
                    connections += 1;
                    if world.tcp {
                        probe.connected(now, service);
                    }
                }
                Action::Write(Service::Tls, _) => probe.received(now, Service::Tls, &[22, 3, 3, 0, 0]),
                Action::Write(Service::Pptp, bytes) => {
                    let kind = bytes[9];
                    let mut reply = bytes.clone();
                    match kind {
                        1 => (reply[9], reply[14]) = (2, 1),
                        7 => {
                            reply.truncate(32);
                            (reply[0], reply[1], reply[9], reply[16]) = (0, 32, 8, 1);
                        }
                        _ => continue,
                    }
                    probe.received(now, Service::Pptp, &reply);
                }
                Action::Close(_) => {}
                Action::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
                Action::Done => break,
            }
        }
        Self { report: probe.report(), packets, connections }
    }

    fn codes(&self) -> Vec<&'static str> {
        self.report.findings.iter().map(|found| found.finding.code.name()).collect()
    }

    fn row(&self, kind: Kind) -> (Verdict, &str) {
        let row = self.report.rows.iter().find(|row| row.kind == kind).unwrap();
        (row.verdict, &row.note)
    }
}

impl World {
    fn answer(&self, now: Timestamp, packet: &Outgoing, probe: &mut Probe) {
        let number = match packet.carrier {
            Carrier::Udp(..) => 17,
            Carrier::Esp => 50,
            Carrier::Gre => 47,
            Carrier::Icmp => 1,
        };
        let mut head = Vec::new();
        let (mut from, mut port) = (0, 0);
        if let Carrier::Udp(slot, to) = packet.carrier {
            (from, port) = (probe.port(slot), to);
            head.extend(from.to_be_bytes());
            head.extend(to.to_be_bytes());
            head.extend(u16::try_from(packet.bytes.len() + 8).unwrap().to_be_bytes());
            head.extend([0, 0]);
        }
        let whole = [&head[..], &packet.bytes].concat();
        if let Some(hop) = packet.hops.filter(|hop| *hop < HOPS) {
            if self.routers {
                let mut error = vec![11, 0, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 1, number, 0, 0];
                error.extend([203, 0, 113, 5, 198, 51, 100, 10]);
                error.extend(&whole[..8]);
                probe.packet(now, [10, 0, 0, hop].into(), 1, &error);
            }
            return;
        }
        if packet.cutting == Cutting::Forbidden && whole.len() + 20 > self.mtu {
            return;
        }
        if packet.cutting == Cutting::Allowed && whole.len() > 1480 && !self.fragments {
            return;
        }
        let reply = match packet.carrier {
            Carrier::Udp(_, port) if !self.udp.contains(&port) => return,
            Carrier::Udp(_, port @ (500 | 4500)) => {
                let marker = if port == 4500 { 4 } else { 0 };
                [&vec![0; marker][..], &self.ike(from, port, &packet.bytes[marker..])].concat()
            }
            Carrier::Udp(_, 1701) => {
                let mut reply = packet.bytes.clone();
                reply[19] = 2;
                reply
            }
            Carrier::Udp(..) => [&[0x40], &packet.bytes[1..]].concat(),
            Carrier::Gre if self.gre => {
                let call = probe.seed.call;
                let mut reply = messages::gre(call, 0, 0);
                // Configure-Reject.
                reply[16] = 4;
                return probe.packet(now, SERVER, 47, &reply);
            }
            Carrier::Icmp if self.ping => {
                let reply = [&[0], &packet.bytes[1..]].concat();
                return probe.packet(now, SERVER, 1, &reply);
            }
            Carrier::Esp | Carrier::Gre | Carrier::Icmp => return,
        };
        let mut datagram = [port.to_be_bytes(), from.to_be_bytes()].concat();
        datagram.extend([0; 4]);
        datagram.extend(reply);
        probe.packet(now, SERVER, 17, &datagram);
    }

    fn ike(&self, from: u16, port: u16, message: &[u8]) -> Vec<u8> {
        let spi: [u8; 8] = message[..8].try_into().unwrap();
        let mut out = bytes::Writer::default();
        out.put(&spi);
        out.put(&[9; 8]);
        out.put(&[41, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 0]);
        if self.old {
            // Version 1 chooses, version 2 is refused.
            let (head, rest): ([u8; 4], &[u8]) = match message[17] >> 4 {
                1 => ([1, 0x10, 2, 0], &[0, 0, 0, 4]),
                _ => ([41, 0x20, 34, 0x20], &[0, 0, 0, 8, 0, 0, 0, 14]),
            };
            out.0.truncate(16);
            out.put(&head);
            out.put(&[0; 8]);
            out.put(rest);
            return out.0;
        }
        if self.cookie && message[16] != 41 {
            out.put(&[0, 0, 0, 16, 0, 0, 0x40, 6, 1, 2, 3, 4, 5, 6, 7, 8]);
            return out.0;
        }
        if !self.any_group && !message.windows(6).any(|at| at == [0, 72, 0, 19, 0, 0]) {
            out.put(&[0, 0, 0, 10, 0, 0, 0, 17, 0, 19]);
            return out.0;
        }
        for (next, kind, hash) in [
            (41, 4, ike::nat_hash(spi, [9; 8], SERVER, port)),
            (0, 5, ike::nat_hash(spi, [9; 8], self.seen_as, from)),
        ] {
            out.put(&[next, 0, 0, 28, 0, 0, 0x40, kind]);
            out.put(&hash);
        }
        out.0
    }
}

#[test]
fn an_open_path_gives_no_finding_and_takes_few_packets() {
    let run = Run::of(OPEN);
    assert_eq!(run.codes(), [""; 0]);
    for kind in [Kind::Ping, Kind::Ike500, Kind::Ike4500, Kind::IkeLarge, Kind::IkeFragmented] {
        assert_eq!(run.row(kind).0, Verdict::Answers, "{kind:?}");
    }
    assert_eq!(run.row(Kind::Ike500).1, "IKEv2, no NAT on the way");
    assert_eq!(run.row(Kind::PptpGre), (Verdict::Answers, "both ways"));
    assert_eq!(run.row(Kind::L2tp), (Verdict::Answers, "opens a tunnel without IPsec"));
    assert_eq!(run.row(Kind::Esp).0, Verdict::ReachesHop(3));
    assert!(run.report.end.since(run.report.start) < Duration::from_secs(40));
    let usual =
        run.report.rows.iter().filter(|row| !matches!(row.kind, Kind::Esp | Kind::WireGuard | Kind::Gre));
    assert!(usual.clone().all(|row| row.sent == 1), "{:?}", run.report.rows);
}

#[test]
fn the_limits_hold_whatever_the_path_does() {
    for world in [OPEN, SILENT, World { gre: false, ..OPEN }, World { routers: true, ..SILENT }] {
        let run = Run::of(world);
        let took = run.report.end.since(run.report.start);
        assert!(took < Duration::from_secs(75), "{took:?}");
        assert_eq!(run.connections, 2);
        let (ladder, usual): (Vec<_>, Vec<_>) =
            run.packets.iter().partition(|(_, packet)| packet.hops.is_some());
        let apart = |list: &[&(Timestamp, Outgoing)], gap: u64| {
            list.windows(2).all(|two| two[1].0.since(two[0].0) >= Duration::from_millis(gap))
        };
        assert!(apart(&ladder, 333), "the ladder");
        // L2TP's farewell goes with the answer.
        let asking: Vec<_> =
            usual.iter().copied().filter(|(_, packet)| packet.bytes.get(19) != Some(&4)).collect();
        assert!(apart(&asking, 999), "one a second");
        let mut counts = BTreeMap::new();
        for row in &run.report.rows {
            *counts.entry(row.kind.key()).or_insert(0) += row.sent;
        }
        assert!(
            counts.iter().all(|(key, sent)| *sent <= if matches!(*key, "esp" | "gre") { 16 } else { 10 })
        );
    }
}

#[test]
fn what_cannot_be_told_is_no_problem_and_no_health() {
    for world in [SILENT, World { routers: true, ..SILENT }, World { ping: true, ..SILENT }] {
        let run = Run::of(world);
        assert_eq!((run.codes(), run.report.outcome()), (vec![], Outcome::NothingSeen));
        assert_eq!(run.report.alive, world.ping);
    }
    assert_eq!(Run::of(OPEN).report.outcome(), Outcome::Healthy);
    assert_eq!(Run::of(World { udp: &[500], ..OPEN }).report.outcome(), Outcome::Problem);
}

#[test]
fn what_shows_the_same_is_one_finding_and_the_surest_come_first() {
    let mut probe = Probe::new(target(), [5; 16]);
    let firewall = IpAddr::from([10, 0, 0, 2]);
    for kind in [Kind::Ike500, Kind::Ike4500] {
        let asked = probe.of_mut(kind);
        (asked.sent, asked.said) = (1, Some((firewall, Said::Prohibited)));
    }
    probe.tls = Tls::Failed(Failure::Mute);
    let found = probe.report().findings;
    let codes: Vec<&str> = found.iter().map(|found| found.finding.code.name()).collect();
    assert_eq!(codes, ["IKE-500-ADMIN", "TLSVPN-SILENT"]);
    assert_eq!(found[0].finding.evidence.len(), 2);
    assert_eq!(found[0].says, "10.0.0.2 says that it forbids the VPN (IKE, UDP ports 500 and 4500).");
}

#[test]
fn one_port_that_is_silent_is_named() {
    let run = Run::of(World { udp: &[4500], ..OPEN });
    assert_eq!(run.codes(), ["IKE-500-NO-REPLY"]);
    let run = Run::of(World { udp: &[500], ..OPEN });
    assert_eq!(run.codes(), ["IKE-4500-NO-REPLY"]);
    assert_eq!(run.row(Kind::L2tp).0, Verdict::CannotTell);
    let run = Run::of(World { fragments: false, ..OPEN });
    assert_eq!(run.codes(), ["FRAGMENTS-DROPPED"]);
    let run = Run::of(World { gre: false, ..OPEN });
    assert_eq!(run.codes(), ["PPTP-GRE-BLOCKED-OUT-OR-IN"]);
    let run = Run::of(World { tcp: true, routers: true, ..SILENT });
    assert_eq!(run.codes(), ["PPTP-GRE-BLOCKED-OUT-OR-IN"]);
}

#[test]
fn a_nat_on_the_way_shows_in_the_answer() {
    let other = World { seen_as: [192, 0, 2, 77].into(), ..OPEN };
    let run = Run::of(other);
    assert_eq!(run.codes(), ["CGNAT"]);
    assert_eq!(run.row(Kind::Ike500).1, "IKEv2, a NAT on the way");
    for (any_group, cookie) in [(false, false), (true, true), (false, true)] {
        let run = Run::of(World { any_group, cookie, ..other });
        assert_eq!(run.codes(), ["CGNAT"], "{:?}", run.report.rows);
        let sent = run.report.rows.iter().find(|row| row.kind == Kind::Ike500).map(|row| row.sent);
        assert_eq!(sent, Some(1 + u8::from(!any_group) + u8::from(cookie)));
    }
}

#[test]
fn the_readme_lists_the_fields_of_the_json() {
    fn fields(value: &serde_json::Value, path: &str, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Array(list) => fields(&list[0], &format!("{path}[]"), out),
            serde_json::Value::Object(object) => {
                for (name, value) in object {
                    fields(value, &format!("{path}.{name}"), out);
                }
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => out.push(path.to_owned()),
        }
    }
    let readme = include_str!("../../../README.md");
    let (_, section) = readme.split_once("**`natd probe --json`**").unwrap();
    let (section, _) = section.split_once("\n**`natd stop").unwrap();
    let row = |line: &str| line.strip_prefix("| `")?.split('`').next().map(str::to_owned);
    let listed: Vec<String> = section.lines().filter_map(row).collect();
    let mut json = Vec::new();
    show::json(&[Run::of(World { udp: &[500], ..OPEN }).report], &mut json).unwrap();
    let mut emitted = Vec::new();
    fields(&serde_json::from_slice(&json).unwrap(), "", &mut emitted);
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(sorted(listed), sorted(emitted));
}

#[test]
fn a_server_of_version_one_is_found_out() {
    let run = Run::of(World { old: true, ..OPEN });
    assert_eq!(run.row(Kind::Ike500), (Verdict::Answers, "IKEv1"));
    assert_eq!(run.row(Kind::Ike4500), (Verdict::Answers, "IKEv1"));
    assert_eq!(run.row(Kind::IkeLarge).0, Verdict::Answers);
    assert_eq!((run.codes(), run.report.outcome()), (vec![], Outcome::Healthy));
    assert!(run.report.rows.iter().all(|row| row.sent <= 10));
}

#[test]
fn where_pings_are_silent_ike_measures_the_path() {
    for mtu in [1500, 1454] {
        let run = Run::of(World { ping: false, mtu, ..OPEN });
        let note = if mtu == 1500 {
            "1500 bytes, as much as the interface takes"
        } else {
            "1454 bytes; the interface takes 1500"
        };
        assert_eq!(run.row(Kind::Mtu), (Verdict::Reaches, note));
        assert_eq!(run.codes().contains(&"MTU-WAN-WRONG"), mtu == 1454);
        assert!(
            run.packets.iter().filter(|(_, packet)| packet.carrier == Carrier::Udp(Slot::Mtu, 500)).count()
                <= 10
        );
    }
    let silent = Run::of(World { udp: &[], ping: false, ..OPEN });
    assert_eq!(silent.row(Kind::Mtu), (Verdict::CannotTell, "neither ping nor IKE is answered"));
}

#[test]
fn what_strangers_send_is_no_answer() {
    let mut probe = Probe::new(target(), [1; 16]);
    let now = Timestamp::from_secs(1);
    probe.poll(now);
    let mut noise = 1u32;
    for length in 0..600 {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_be_bytes()[0]
            })
            .collect();
        for protocol in [1, 17, 47, 50, 58] {
            probe.packet(now, SERVER, protocol, &bytes);
            probe.packet(now, LOCAL, protocol, &bytes);
        }
        probe.received(now, Service::Pptp, &bytes);
    }
    assert!(probe.report().rows.iter().all(|row| row.verdict != Verdict::Answers));
}
