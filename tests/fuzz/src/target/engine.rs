//! The whole engine over a course of packets, both ways, and time.
//!
//! An input begins with the owner's settings. Every event after it is a packet at one of the places where the
//! kernel stops them, an answer to or an error about a packet that went before, a step of a PPTP dialogue, time, or
//! a change of the surroundings. After each of them must hold what a router owes its owner: no address of the LAN
//! leaves, checksums that were right stay right, nothing grows without bound; and in the end everything is over.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::{
    ChecksumState, Decision, Effect, HoldId, InterfaceAddress, KernelFlow, KernelTuple, Outcome, TcpProgress,
};
use nat_core::flow::{Endpoint, Protocol};
use nat_core::nat::{Nat, Origin};
use nat_core::packet::{Body, PacketView};
use nat_core::policy::{Filtering, Forward, Limits, Policy, PortRange, Timeouts};
use nat_core::time::Timestamp;
use natd::engine::{Arrival, Engine, Stage};
use passthrough::Passthrough;
use passthrough::pptp::{CallId, exercise};
use passthrough::settings::{Access, Carrier, InsideServer, Scope, Settings};

use super::script::{DEVICES, REMOTES, Script};
use super::wire;

const WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const NEW_WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const LAN: InterfaceAddress = InterfaceAddress { addr: ROUTER, prefix: 24 };
const HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

const PROTOCOLS: [u8; 8] = [17, 6, 50, 47, 115, 1, 51, 132];
const PORTS: [u16; 8] = [500, 4500, 1701, 1723, 40_000, 40_001, 80, 0];
const SESSIONS: u32 = 48;
const HELD_SYNS: u32 = 4;
/// What passthrough holds at most.
const HELD: usize = 64;
/// Packets that an answer or an error may be about.
const REMEMBERED: usize = 8;

pub(crate) fn run(input: &[u8]) {
    let mut script = Script(input);
    let mut course = Course::new(&mut script);
    while let Some(event) = script.event() {
        course.event(event, &mut script);
        course.check();
    }
    course.end();
}

/// A control connection of PPTP from a device to a remote host.
#[derive(Clone, Copy, Default)]
struct Dial {
    /// Next sequence number of the device and of the remote host.
    sequences: (u32, u32),
    /// The device's port as the remote host sees it; 0: not dialled.
    external: u16,
}

struct Course {
    engine: Engine,
    now: Timestamp,
    wan: Option<Ipv4Addr>,
    held: BTreeMap<HoldId, Vec<u8>>,
    /// What the WAN has seen leave, and what a device has got.
    left: Vec<Vec<u8>>,
    arrived: Vec<Vec<u8>>,
    dials: [[Dial; REMOTES.len()]; DEVICES.len()],
    events: u32,
}

impl Course {
    fn new(script: &mut Script<'_>) -> Self {
        let now = Timestamp::from_secs(5000);
        let mut nat = Nat::new(policy(script), [7; 16], now);
        nat.set_lan(vec![LAN]);
        nat.set_address(Some(WAN));
        Self {
            engine: Engine::new(nat, Passthrough::new(settings(script))),
            now: now + Duration::from_secs(1000),
            wan: Some(WAN),
            held: BTreeMap::new(),
            left: Vec::new(),
            arrived: Vec::new(),
            dials: Default::default(),
            events: 0,
        }
    }

    fn event(&mut self, event: u8, script: &mut Script<'_>) {
        match event % 16 {
            0 => self.pass_time(script.time()),
            1 => self.settle(),
            2 => self.change(script),
            3 => {
                let stage = stage(script);
                let bytes = script.bytes().to_vec();
                self.at(stage, &bytes);
            }
            4 | 5 => self.answer(event & 0x10 != 0, script),
            6 => self.complain(event & 0x10 != 0, script),
            7 => self.dial(event & 0x10 != 0, script),
            8 => self.control(event & 0x10 != 0, script),
            9 => {
                // Anything at any place.
                let stage = stage(script);
                let addresses = [DEVICES[0], REMOTES[0], WAN, ROUTER, HOP, Ipv4Addr::BROADCAST, DEVICES[1]];
                let (src, dst) = (script.pick(&addresses), script.pick(&addresses));
                let bytes = built(script, src, dst);
                self.at(stage, &bytes);
            }
            10..=12 => {
                let (src, dst) = (script.device(), script.remote());
                let bytes = built(script, src, dst);
                self.at(Stage::ToWan(Origin::Lan), &bytes);
            }
            15 => self.flood(event & 0x10 != 0, script),
            _ => {
                let (src, dst) = (script.remote(), self.wan.unwrap_or(WAN));
                let bytes = built(script, src, dst);
                self.at(Stage::FromWan { local_socket: event & 0xf0 == 0xf0 }, &bytes);
            }
        }
    }

    /// Hands in a packet, carries out what is decided, and answers what goes on.
    fn at(&mut self, stage: Stage, bytes: &[u8]) -> Option<Vec<u8>> {
        // The kernel forwards nothing that claims to come from the router itself.
        let own = [WAN, NEW_WAN, ROUTER].contains(&address(bytes, 12));
        let stage =
            if own && stage == Stage::ToWan(Origin::Lan) { Stage::ToWan(Origin::Router) } else { stage };
        let decision = self.engine.decide(self.now, &Arrival { stage, bytes, truncated: false });
        let out = match decision {
            Decision::Forward(forward) => {
                if let (Some(admission), Stage::FromWan { .. }) = (forward.admission, stage) {
                    let KernelTuple { src, dst, .. } = admission.original;
                    let device = forward.endpoints().1.addr;
                    assert!(
                        [src.addr, dst.addr].contains(&device),
                        "conntrack is told of another: {admission:?}"
                    );
                }
                let mut changed = bytes.to_vec();
                forward.carry_out(&mut changed, ChecksumState::Complete);
                let right = wire::checksums_hold(&changed) || !wire::checksums_hold(bytes);
                assert!(right, "a checksum goes wrong: {bytes:02x?} becomes {changed:02x?}");
                Some(changed)
            }
            // What the kernel's own NAT gets still has its address in it.
            Decision::Pass if self.engine.vpn.is_alone() => None,
            Decision::Pass => Some(bytes.to_vec()),
            Decision::Hold(id) => {
                assert!(self.held.insert(id, bytes.to_vec()).is_none(), "{id:?} twice");
                None
            }
            Decision::Drop(_) => None,
        };
        if let Some(packet) = &out {
            match stage {
                Stage::ToWan(_) => {
                    guard(packet);
                    remember(&mut self.left, packet);
                }
                Stage::FromWan { .. } => remember(&mut self.arrived, packet),
                Stage::HairpinIn | Stage::HairpinOut | Stage::Unclaimed => {}
            }
        }
        out
    }

    fn pass_time(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.engine.poll_timeout().filter(|&next| next <= end) {
            self.now = next.max(self.now);
            self.engine.handle_timeout(self.now);
            assert!(self.engine.poll_timeout().is_none_or(|next| next > self.now), "a timeout is overdue");
        }
        self.now = end;
        self.engine.handle_timeout(end);
    }

    fn settle(&mut self) {
        while let Some(effect) = self.engine.nat.poll_effect() {
            match effect {
                Effect::Release { hold, outcome } => {
                    let bytes = self.held.remove(&hold).expect("only what is held is released");
                    if let Outcome::Forward(forward) = outcome {
                        let mut changed = bytes.clone();
                        forward.carry_out(&mut changed, ChecksumState::Complete);
                        assert!(wire::checksums_hold(&changed) || !wire::checksums_hold(&bytes));
                        self.released(&changed);
                    }
                }
                Effect::Transmit(bytes) => {
                    assert!(wire::checksums_hold(&bytes), "sent with a wrong checksum: {bytes:02x?}");
                    self.released(&bytes);
                }
                Effect::Admit(admission) => {
                    assert!(
                        self.wan != Some(admission.original.src.addr),
                        "the WAN's address: {admission:?}"
                    );
                }
            }
        }
        assert!(self.held.len() <= HELD + HELD_SYNS as usize, "{} held", self.held.len());
    }

    fn released(&mut self, packet: &[u8]) {
        if LAN.contains(address(packet, 16)) {
            remember(&mut self.arrived, packet);
        } else {
            guard(packet);
            remember(&mut self.left, packet);
        }
    }

    /// The surroundings change.
    fn change(&mut self, script: &mut Script<'_>) {
        match script.byte() % 8 {
            0 => {
                let settings = settings(script);
                // Passthrough is alone or not for as long as the daemon runs.
                let scope = if self.engine.vpn.is_alone() { Scope::Vpn } else { Scope::All };
                self.engine.vpn.set_settings(Settings { scope, ..settings });
            }
            1 => {
                let policy = policy(script);
                self.engine.nat.set_policy(policy);
            }
            2 => {
                let address = script.pick(&[Some(NEW_WAN), Some(WAN), None]);
                let before = self.wan;
                self.wan = address;
                self.engine.nat.set_address(address);
                if before.is_some() && address.is_some() && before != address {
                    self.engine.vpn.address_changed(&mut self.engine.nat);
                }
            }
            3 => self.engine.kernel_forgot(&kernel_tuple(script)),
            4 => {
                let original = kernel_tuple(script);
                let flags = script.byte();
                let mut reply = original.reverse();
                if flags & 1 != 0 {
                    reply.dst = Endpoint::new(WAN, script.word());
                }
                let flow = KernelFlow {
                    original,
                    reply,
                    snat: flags & 1 != 0,
                    dnat: flags & 2 != 0,
                    replied: flags & 4 != 0,
                    tcp: (original.protocol == 6).then_some(if flags & 8 == 0 {
                        TcpProgress::Opening
                    } else {
                        TcpProgress::Established
                    }),
                    timeout: script.time(),
                };
                let _ = self.engine.adopt(self.now, &flow);
            }
            5 => {
                // The daemon starts anew and is told what the one before it knew.
                let memory = self.engine.vpn.memory();
                self.engine.vpn.recall(self.now, &memory);
                assert!(
                    memory.pairs.len() + memory.undecided.len() + memory.ike.len() < 4096,
                    "too much to recall"
                );
            }
            6 => {
                self.engine.nat.set_mtu(script.pick(&[None, Some(0), Some(576), Some(1492), Some(u16::MAX)]))
            }
            _ => self.engine.nat.set_patience(script.time()),
        }
    }

    /// Many packets that differ in their source port, SPI, key or session alone.
    fn flood(&mut self, inside: bool, script: &mut Script<'_>) {
        let (device, remote) = (script.device(), script.remote());
        let (src, dst) = if inside { (device, remote) } else { (remote, self.wan.unwrap_or(WAN)) };
        let (how, protocol) = (script.byte(), script.pick(&PROTOCOLS));
        let stage = if !inside && how & 0x80 != 0 { Stage::Unclaimed } else { stage_from(inside) };
        let (near, far) = (script.pick(&PORTS), script.pick(&PORTS));
        let mut payload = match protocol {
            1 => vec![8, 0, 0, 0, 0, 0, 0, 1],
            6 => segment(script),
            _ => payload(script, protocol),
        };
        let at = match protocol {
            50 | 115 => 3,
            1 => 5,
            47 => 7,
            _ => usize::MAX,
        };
        for number in 0..how & 0x7f {
            if let Some(byte) = payload.get_mut(at) {
                *byte = number;
            }
            let ports = (near.wrapping_add(u16::from(number)), far);
            self.at(stage, &wire::packet(protocol, src, dst, ports, &payload));
        }
    }

    /// The other side answers a packet.
    fn answer(&mut self, inside: bool, script: &mut Script<'_>) {
        let Some(packet) = self.recall(inside, script.byte()) else { return };
        let (src, dst) = (address(&packet, 16), address(&packet, 12));
        let ports = (wire::word(&packet, 22), wire::word(&packet, 20));
        let protocol = packet[9];
        let payload = match protocol {
            6 => segment(script),
            1 => vec![
                0,
                0,
                0,
                0,
                packet.get(24).copied().unwrap_or(0),
                packet.get(25).copied().unwrap_or(0),
                0,
                1,
            ],
            _ if script.byte() & 1 == 0 => {
                // The same again, which for many a protocol is an answer.
                packet.get(if protocol == 17 { 28 } else { 20 }..).unwrap_or_default().to_vec()
            }
            _ => payload(script, protocol),
        };
        let bytes = wire::packet(protocol, src, dst, ports, &payload);
        self.at(stage_from(inside), &bytes);
    }

    /// An ICMP error about a packet.
    fn complain(&mut self, inside: bool, script: &mut Script<'_>) {
        let Some(packet) = self.recall(inside, script.byte()) else { return };
        let (victim, sender) = (address(&packet, 16), address(&packet, 12));
        let from = if script.byte() % 4 == 0 { if inside { ROUTER } else { HOP } } else { victim };
        let (kind, code) = script.pick(&[(3, 4), (3, 3), (3, 1), (11, 0), (12, 0), (5, 1), (4, 0), (3, 2)]);
        let mtu = script.pick(&[1400_u16, 576, 575, 0]);
        let length = 20 + usize::from(script.pick(&[8_u8, 12, 16, 28, 48, 255]));
        let mut message = vec![kind, code, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend(packet.get(..length).unwrap_or(&packet));
        let mut bytes = wire::packet(1, from, sender, (0, 0), &message);
        let harm = script.byte();
        if harm > 0xf0 {
            let at = usize::from(script.byte());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (harm & 7);
            }
            wire::fix(&mut bytes);
        }
        self.at(stage_from(inside), &bytes);
    }

    /// A device opens a control connection.
    fn dial(&mut self, whole: bool, script: &mut Script<'_>) {
        let (device, remote) =
            (usize::from(script.byte()) % DEVICES.len(), usize::from(script.byte()) % REMOTES.len());
        let near = 40_000 + u16::from(script.byte() % 2);
        self.dials[device][remote] = Dial { sequences: (100, 500), external: 0 };
        let syn = tcp(99, 0, 0x02, &[]);
        let syn = wire::packet(6, DEVICES[device], REMOTES[remote], (near, 1723), &syn);
        let Some(out) = self.at(Stage::ToWan(Origin::Lan), &syn) else { return };
        self.dials[device][remote].external = wire::word(&out, 20);
        self.server_says(device, remote, 499, 100, 0x12, &[]);
        self.device_says(device, remote, near, 100, 500, &[]);
        if whole {
            let request = exercise::message(1, CallId(0), CallId(0), 0);
            self.device_says(device, remote, near, 100, 500, &request);
            let reply = exercise::message(2, CallId(0), CallId(0), 1);
            self.server_says(device, remote, 500, 256, 0x18, &reply);
            self.dials[device][remote].sequences = (256, 656);
        }
    }

    /// A control message of either side.
    fn control(&mut self, inside: bool, script: &mut Script<'_>) {
        let (device, remote) =
            (usize::from(script.byte()) % DEVICES.len(), usize::from(script.byte()) % REMOTES.len());
        let how = script.byte();
        let number = u16::from(script.byte() % 18);
        let id = |byte: u8| CallId(u16::from(byte & 0x80) << 8 | u16::from(byte & 7));
        let (first, second) = (id(script.byte()), id(script.byte()));
        let mut message = exercise::message(number, first, second, how % 3);
        if how & 0x80 != 0 {
            let at = usize::from(script.byte());
            if let Some(byte) = message.get_mut(at) {
                *byte = script.byte();
            }
        }
        let cut = if how & 0x40 == 0 { message.len() } else { usize::from(script.byte()) };
        let (head, tail) = message.split_at_checked(cut).unwrap_or((&message, &[]));
        for bytes in [head, tail] {
            let length = u32::try_from(bytes.len()).unwrap_or(0);
            let (own, peer) = self.dials[device][remote].sequences;
            if inside {
                self.device_says(device, remote, 40_000, own, peer, bytes);
                self.dials[device][remote].sequences.0 = own.wrapping_add(length);
            } else {
                self.server_says(device, remote, peer, own, 0x18, bytes);
                self.dials[device][remote].sequences.1 = peer.wrapping_add(length);
            }
        }
    }

    fn device_says(&mut self, device: usize, remote: usize, near: u16, seq: u32, ack: u32, payload: &[u8]) {
        let segment = tcp(seq, ack, 0x10, payload);
        let bytes = wire::packet(6, DEVICES[device], REMOTES[remote], (near, 1723), &segment);
        self.at(Stage::ToWan(Origin::Lan), &bytes);
    }

    fn server_says(&mut self, device: usize, remote: usize, seq: u32, ack: u32, flags: u8, payload: &[u8]) {
        let external = self.dials[device][remote].external;
        let segment = tcp(seq, ack, flags, payload);
        let bytes = wire::packet(6, REMOTES[remote], self.wan.unwrap_or(WAN), (1723, external), &segment);
        self.at(Stage::FromWan { local_socket: false }, &bytes);
    }

    fn recall(&self, inside: bool, which: u8) -> Option<Vec<u8>> {
        let log = if inside { &self.arrived } else { &self.left };
        log.get(usize::from(which) % log.len().max(1)).cloned()
    }

    fn check(&mut self) {
        let sizes = self.engine.nat.sizes();
        assert!(sizes.sessions.iter().sum::<u32>() <= SESSIONS, "{sizes:?}");
        assert!(sizes.held <= HELD_SYNS, "{sizes:?}");
        self.events += 1;
        if self.events % 16 == 0 {
            let views = self.engine.sessions(self.now);
            assert!(views.len() < 2048, "{} VPN sessions", views.len());
        }
    }

    fn end(&mut self) {
        self.settle();
        self.pass_time(Duration::from_secs(200_000));
        self.settle();
        let sizes = self.engine.nat.sizes();
        assert_eq!((sizes.sessions, sizes.mappings, self.held.len()), ([0; 3], 0, 0), "something has no end");
        let views = self.engine.sessions(self.now);
        assert!(views.is_empty(), "sessions without end: {views:?}");
        assert_eq!(self.engine.poll_timeout(), None, "waits for nothing");
    }
}

fn stage(script: &mut Script<'_>) -> Stage {
    script.pick(&[
        Stage::FromWan { local_socket: false },
        Stage::FromWan { local_socket: true },
        Stage::ToWan(Origin::Lan),
        Stage::ToWan(Origin::Router),
        Stage::HairpinIn,
        Stage::HairpinOut,
        Stage::Unclaimed,
    ])
}

const fn stage_from(inside: bool) -> Stage {
    if inside { Stage::ToWan(Origin::Lan) } else { Stage::FromWan { local_socket: false } }
}

fn settings(script: &mut Script<'_>) -> Settings {
    let (one, two) = (script.byte(), script.byte());
    let bit = |at: u8| one >> at & 1 == 0;
    let servers = [(Carrier::Gre, DEVICES[0]), (Carrier::L2tpIp, DEVICES[1]), (Carrier::Esp, DEVICES[2])];
    let servers = servers.map(|(carrier, host)| InsideServer { carrier, host });
    let mut settings = Settings {
        scope: if bit(0) || bit(1) { Scope::All } else { Scope::Vpn },
        multi: bit(2) || bit(3),
        fan_out: [8, 0, 1, 2][usize::from(two & 3)],
        hold: Duration::from_millis([1000, 0, 5000, 10][usize::from(two >> 2 & 3)]),
        esp_idle: Duration::from_secs(600),
        gre_idle: Duration::from_secs(300),
        servers: if bit(4) { Vec::new() } else { servers.to_vec() },
        ..Settings::default()
    };
    let access = |on, settings: &Access| Access { on, ..settings.clone() };
    settings.pptp = access(bit(5), &settings.pptp);
    settings.l2tp = access(bit(6) || bit(3), &settings.l2tp);
    settings.ipsec = access(bit(7) || bit(3), &settings.ipsec);
    settings
}

fn policy(script: &mut Script<'_>) -> Policy {
    let byte = script.byte();
    let forward = |protocol, port: u16, host| {
        let external = PortRange::new(port, port).expect("no port here is 0");
        Forward { protocol, external, host, internal_first: port }
    };
    let forwards = vec![
        forward(Protocol::Tcp, 1723, DEVICES[1]),
        forward(Protocol::Udp, 1701, DEVICES[0]),
        forward(Protocol::Udp, 500, DEVICES[2]),
    ];
    Policy {
        forwards: if byte & 1 == 0 { Vec::new() } else { forwards },
        exposed_host: (byte & 2 != 0).then_some(DEVICES[0]),
        filtering: [Filtering::default(), Filtering::EndpointIndependent][usize::from(byte >> 2 & 1)],
        hairpin: byte & 8 == 0,
        // Short ones, so that an input sees them end.
        timeouts: Timeouts {
            tcp_established: Duration::from_secs(600),
            tcp_transitory: Duration::from_secs(60),
            tcp_reset: Duration::from_secs(20),
            ..Timeouts::default()
        },
        limits: Limits { sessions: SESSIONS, sessions_per_device: 32, held_syns: HELD_SYNS },
        ..Policy::default()
    }
}

fn kernel_tuple(script: &mut Script<'_>) -> KernelTuple {
    let protocol = script.pick(&PROTOCOLS);
    let (src, dst) = (script.device(), script.remote());
    let (near, far) = (script.pick(&PORTS), script.pick(&PORTS));
    KernelTuple { protocol, src: Endpoint::new(src, near), dst: Endpoint::new(dst, far) }
}

/// A packet between these hosts with few ports and identifiers, so that packets meet.
fn built(script: &mut Script<'_>, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    let protocol = script.pick(&PROTOCOLS);
    let ports = script.byte();
    let ports = (PORTS[usize::from(ports & 7)], PORTS[usize::from(ports >> 4 & 7)]);
    let payload = match protocol {
        1 => vec![[8, 0, 13, 14][usize::from(script.byte() & 3)], 0, 0, 0, 0, script.byte(), 0, 1],
        6 => segment(script),
        _ => payload(script, protocol),
    };
    wire::packet(protocol, src, dst, ports, &payload)
}

/// What follows the ports of a TCP segment.
fn segment(script: &mut Script<'_>) -> Vec<u8> {
    let (seq, ack) = (u32::from(script.byte()) + 90, u32::from(script.byte()) + 490);
    let flags = script.byte();
    let options = script.byte();
    let mut segment = tcp(seq, ack, flags & 0x3f, script.bytes());
    if options & 0x80 != 0 {
        segment.splice(16..16, [2, 4, 5, options]);
        segment[8] = 0x60;
    }
    segment
}

fn tcp(seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

/// What a VPN would send, or bytes of the script.
fn payload(script: &mut Script<'_>, protocol: u8) -> Vec<u8> {
    let kind = script.byte();
    let (own, peer) = (script.byte(), script.byte());
    match (protocol, kind % 4) {
        (_, 3) => script.bytes().to_vec(),
        (50, _) => [&[0, 0, 1, own % 8][..], &[0, 0, 0, peer], &[own; 24]].concat(),
        (47, 0 | 1) => {
            [&[0x30, 1, 0x88, 0x0b, 0, 4, own & 0x80, own & 7], &[0, 0, 0, peer][..], &[0; 4]].concat()
        }
        (47, _) => vec![0x20, 0, 8, 0, 0, 0, 0, own % 8, 0x45, 0],
        (115, 0) => [&[0, 0, 0, own % 8][..], &[7; 8]].concat(),
        (17, 0) => ike(script, kind, own, peer),
        (17, 1) => [&[0; 4][..], &ike(script, kind, own, peer)].concat(),
        (17 | 115, _) => {
            let version = if protocol == 115 || kind & 4 != 0 { 3 } else { 2 };
            let mut avps = vec![0x80, 8, 0, 0, 0, 0, 0, kind >> 3 & 15, 0x80, 8, 0, 0, 0, 9, 0, own % 8];
            avps.extend([0x80, 10, 0, 0, 0, 61, 0, 0, 0, own % 8]);
            let to = if version == 3 { [0, 0, 0, peer % 8] } else { [0, peer % 8, 0, 0] };
            let mut message = vec![0; if protocol == 115 { 4 } else { 0 }];
            message.extend([0xc8, version, 0, u8::try_from(12 + avps.len()).unwrap_or(0)]);
            message.extend(to);
            message.extend([0, 0, 0, 0]);
            message.extend(avps);
            message
        }
        _ => script.bytes().to_vec(),
    }
}

/// A message of IKE, version 1 or 2, with whatever payloads the script has.
fn ike(script: &mut Script<'_>, kind: u8, own: u8, peer: u8) -> Vec<u8> {
    let first = kind >> 4;
    let mut message = vec![0; 28];
    message[7] = own % 8 + 1;
    message[15] = peer % 8;
    message[16] = [33, 1, 46, 0, 41, 132, 34, 35, 8, 13, 53, 40, 11, 12, 16, 2][usize::from(first)];
    message[17] = if kind & 4 == 0 { 0x20 } else { 0x10 };
    message[18] = [34, 35, 36, 37, 2, 4, 5, 32][usize::from(own >> 3 & 7)];
    message[19] = peer & 0x3d;
    message[23] = peer >> 6;
    message.extend(script.bytes());
    let length = u32::try_from(message.len()).unwrap_or(0);
    message[24..28].copy_from_slice(&length.to_be_bytes());
    message
}

fn remember(log: &mut Vec<Vec<u8>>, packet: &[u8]) {
    if log.len() >= REMEMBERED {
        log.remove(0);
    }
    // What cannot be answered is not worth remembering.
    if packet.len() >= 28 {
        log.push(packet.to_vec());
    }
}

/// No address of the LAN leaves, in the header or in what an ICMP error quotes.
fn guard(packet: &[u8]) {
    let shown = |bytes: &[u8]| LAN.contains(address(bytes, 12)) || LAN.contains(address(bytes, 16));
    assert!(!shown(packet), "an address of the LAN leaves: {packet:02x?}");
    if let Ok(PacketView { body: Body::IcmpError(error), .. }) = PacketView::parse(packet) {
        assert!(
            error.quote.len() < 20 || !shown(error.quote),
            "an address of the LAN is quoted: {packet:02x?}"
        );
    }
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    let octets = bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
    octets.map_or(Ipv4Addr::UNSPECIFIED, |&octets| octets.into())
}
