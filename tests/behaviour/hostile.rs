//! Arbitrary, mutated, repeated and flooding packets at every stage: nothing panics, and what must hold holds.
//!
//! Every run prints its seed when it fails; a seed makes the same packets again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::{ChecksumState, Decision, DropReason, Effect};
use nat_core::flow::Protocol;
use nat_core::nat::Origin;
use nat_core::policy::{Filtering, Limits, Policy, PortRange};
use natd::engine::{Arrival, Stage, decide};

use crate::packets::{
    A, B, HOP, NEW_WAN, Packet, ROUTER, S, T, WAN, Wire, checksums_hold, error, naive_sum, query, tcp,
    too_big, udp,
};
use crate::world::{Out, World, forward};

pub(crate) const STAGES: [Stage; 7] = [
    Stage::FromWan { local_socket: false },
    Stage::FromWan { local_socket: true },
    Stage::ToWan(Origin::Lan),
    Stage::ToWan(Origin::Router),
    Stage::HairpinIn,
    Stage::HairpinOut,
    Stage::Unclaimed,
];

/// Repeatable randomness (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).unwrap()
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.roll().to_be_bytes()[0]
    }

    fn word(&mut self) -> u32 {
        let bytes = self.roll().to_be_bytes();
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn address(&mut self) -> Ipv4Addr {
        self.pick(&[A, B, S, T, WAN, WAN, ROUTER, HOP, NEW_WAN, Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED])
    }

    /// Few ports, so that packets meet.
    fn port(&mut self) -> u16 {
        self.pick(&[0, 1, 53, 80, 443, 4000, 4001, 4002, 65_535])
    }

    /// A sequence number near a few places.
    fn seq(&mut self) -> u32 {
        let near = self.pick(&[0u32, 100, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
        let step = self.pick(&[0u32, 1, 2, 1000, 65_535, 70_000]);
        if self.below(20) == 0 { self.word() } else { near.wrapping_add(step) }
    }

    /// A packet that a real host could have made.
    fn packet(&mut self, depth: usize) -> Packet {
        let (src, dst) = ((self.address(), self.port()), (self.address(), self.port()));
        let mut packet = match self.below(if depth == 0 { 8 } else { 5 }) {
            0..2 => udp(src, dst),
            2..4 => {
                let (seq, ack) = (self.seq(), self.seq());
                let t = tcp(src, dst);
                let t = match self.below(8) {
                    0 => t.syn(seq),
                    1 => t.syn_ack(seq, ack),
                    2 => t.ack(seq, ack),
                    3 => t.fin(seq, ack),
                    4 => t.rst(seq),
                    5 => t.rst_ack(seq, ack),
                    6 => t.syn(seq).mss(self.pick(&[0, 536, 1460, 65_535])),
                    _ => {
                        let len = self.below(2000);
                        t.data(seq, ack, len)
                    }
                };
                t.window(self.pick(&[0, 1, 1000, 65_535]))
            }
            4 => query(self.pick(&[0, 8, 13, 14, 17, 18]), src.0, dst.0, src.1),
            _ => {
                let inner = self.packet(depth + 1);
                let len = self.pick(&[8, 12, 20, 1000]);
                if self.below(3) == 0 {
                    too_big(self.pick(&[0, 575, 576, 1400]), src.0, dst.0, &inner.head(len))
                } else {
                    let kind = self.pick(&[3, 3, 4, 5, 11, 12]);
                    error(kind, self.byte() % 16, src.0, dst.0, &inner.head(len))
                }
            }
        };
        if self.below(10) == 0 {
            packet = packet.options(&[1; 8]);
        }
        packet
    }

    /// Harm done to bytes on the way. Half of the time the checksums are made right again, so that it gets
    /// further.
    pub(crate) fn harm(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes[at] = self.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                2 => bytes[at] = self.byte(),
                3 => bytes.extend_from_slice(&[0; 3]),
                _ => bytes[at] ^= 1 << self.below(8),
            }
        }
        let header = crate::packets::header_len(bytes);
        if self.below(2) == 0 && bytes.len() >= header && header >= 20 {
            bytes[10..12].fill(0);
            let sum = !naive_sum(&bytes[..header]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            if bytes[9] == 1 && bytes.len() >= header + 8 {
                bytes[header + 2..header + 4].fill(0);
                let sum = !naive_sum(&bytes[header..]);
                bytes[header + 2..header + 4].copy_from_slice(&sum.to_be_bytes());
            }
        }
    }
}

fn policy(dice: &mut Dice) -> Policy {
    Policy {
        filtering: dice.pick(&[
            Filtering::EndpointIndependent,
            Filtering::AddressDependent,
            Filtering::AddressAndPortDependent,
        ]),
        ports: dice.pick(&[PortRange::new(1024, 65_535).unwrap(), PortRange::new(4000, 4009).unwrap()]),
        forwards: vec![
            forward(Protocol::Tcp, 80, 80, A, 4000),
            forward(Protocol::Udp, 443, 443, A, 4001),
            forward(Protocol::Udp, 444, 444, A, 4001),
        ],
        exposed_host: dice.pick(&[None, Some(B)]),
        limits: Limits { sessions: 60, sessions_per_device: 40, held_syns: 5 },
        ..Policy::default()
    }
}

/// What must hold between packets.
fn check(w: &World, seed: u64) {
    let limits = w.engine.nat.policy().limits;
    let sessions = w.sessions();
    let sizes = w.engine.nat.sizes();
    let count = u32::try_from(sessions.len()).unwrap();
    assert_eq!(sizes.sessions.iter().sum::<u32>(), count, "seed {seed}");
    assert!(count <= limits.sessions && sizes.held <= limits.held_syns, "seed {seed}");
    assert!(sizes.mappings <= count, "seed {seed}: a mapping without session: {sizes:?}");
    let mut owner = BTreeMap::new();
    let mut flows = BTreeSet::new();
    let mut per_device = BTreeMap::new();
    for session in &sessions {
        let other = owner.insert((session.protocol, session.external), session.internal);
        assert!(other.is_none_or(|other| other == session.internal), "seed {seed}: shared: {session:?}");
        let flow = (session.protocol, session.external, session.remote);
        assert!(flows.insert(flow), "seed {seed}: two sessions show the same: {session:?}");
        // A session ends within the second after its deadline.
        assert!(session.deadline + Duration::from_secs(1) > w.now, "seed {seed}: {session:?}");
        assert_eq!(session.external.addr, sessions[0].external.addr, "seed {seed}");
        assert!(w.engine.nat.address().is_none_or(|wan| wan == session.external.addr), "seed {seed}");
        *per_device.entry(session.internal.addr).or_insert(0u32) += 1;
    }
    for device in w.engine.nat.devices() {
        let counted = per_device.get(&device.addr).copied().unwrap_or(0);
        assert_eq!(device.sessions, counted, "seed {seed}: {device:?}");
        assert!(device.sessions <= limits.sessions_per_device, "seed {seed}");
    }
}

/// Hands in `bytes` at every stage's mercy; [`World::at`] checks the result.
fn throw(w: &mut World, dice: &mut Dice, bytes: &[u8]) {
    let stage = dice.pick(&STAGES);
    if let Out::Sent(between) = w.at(stage, bytes) {
        if stage == Stage::HairpinIn {
            w.at(Stage::HairpinOut, &between.0);
        }
    }
}

#[test]
fn no_packets_break_the_nat() {
    for seed in 0..60u64 {
        let dice = &mut Dice(seed);
        let policy = policy(dice);
        let mut w = World::seeded(policy, [dice.byte(); 16]);
        w.listen(&[80, 4002], &[53, 4002]);
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for _ in 0..1500 {
            let mut bytes = match dice.below(10) {
                0 if !seen.is_empty() => seen[dice.below(seen.len())].clone(), // a replay
                _ => dice.packet(0).bytes(),
            };
            if dice.below(4) == 0 {
                dice.harm(&mut bytes);
            }
            throw(&mut w, dice, &bytes);
            seen.push(bytes);
            if dice.below(30) == 0 {
                let micros = dice.roll() % dice.pick(&[1_000, 10_000_000, 200_000_000, 8_000_000_000]);
                w.pass_time(Duration::from_micros(micros));
            }
            match dice.below(400) {
                0 => w.engine.nat.set_policy(self::policy(dice)),
                1 => w.engine.nat.set_address(dice.pick(&[None, Some(WAN), Some(NEW_WAN)])),
                2..6 => w.engine.nat.set_address(Some(WAN)),
                _ => {}
            }
            if dice.below(20) == 0 {
                check(&w, seed);
                w.effects();
            }
        }
        check(&w, seed);
        // In the end everything ends.
        w.advance(20_000);
        assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (0, 0), "seed {seed}");
        assert_eq!((w.engine.nat.sizes().held, w.engine.nat.poll_timeout()), (0, None), "seed {seed}");
    }
}

#[test]
fn no_bytes_break_the_nat() {
    let dice = &mut Dice(1);
    let mut w = World::new();
    for _ in 0..100_000 {
        let len = dice.below(90);
        let mut bytes: Vec<u8> = (0..len).map(|_| dice.byte()).collect();
        if len > 20 && dice.below(2) == 0 {
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            bytes[9] = dice.pick(&[1, 6, 17]);
            bytes[16..20].copy_from_slice(&WAN.octets());
            bytes[6..8].fill(0);
        }
        throw(&mut w, dice, &bytes);
    }
}

#[test]
fn every_cut_of_every_packet_is_taken() {
    let dice = &mut Dice(2);
    let mut w = World::new();
    for _ in 0..300 {
        let bytes = dice.packet(0).bytes();
        for len in 0..bytes.len().min(120) {
            for stage in STAGES {
                assert_eq!(w.at(stage, &bytes[..len]), Out::Dropped(DropReason::Malformed));
            }
        }
    }
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn unfinished_checksums_come_out_right_too() {
    // Offloads leave the transport checksum to be computed (`Partial`) or to be done for each segment.
    let dice = &mut Dice(3);
    let mut w = World::new();
    w.engine.nat.set_mtu(Some(1000));
    let mut carried = 0;
    for _ in 0..3000 {
        let packet = dice.packet(1).from(A, 4000).to(S, 80);
        let mut bytes = packet.bytes();
        let arrival = Arrival { stage: Stage::ToWan(Origin::Lan), bytes: &bytes, truncated: false };
        let Decision::Forward(forward) = decide(&mut w.engine.nat, w.now, &arrival) else { continue };
        let mut complete = bytes.clone();
        forward.carry_out(&mut complete, ChecksumState::Complete);
        let at = crate::packets::header_len(&bytes);
        let field = at
            + match bytes[9] {
                6 => 16,
                17 => 6,
                _ => continue,
            };
        bytes[field..field + 2].copy_from_slice(&[0x12, 0x34]);
        let mut gso = bytes.clone();
        forward.carry_out(&mut bytes, ChecksumState::Partial);
        assert!(checksums_hold(&bytes));
        assert_eq!(Wire(bytes), Wire(complete.clone()));
        forward.carry_out(&mut gso, ChecksumState::PartialGso);
        let len = u16::try_from(gso.len() - at).unwrap().to_be_bytes();
        let pseudo = naive_sum(&[&gso[12..20], &[0, gso[9]], &len].concat());
        assert_eq!(gso[field..field + 2], pseudo.to_be_bytes());
        gso[field..field + 2].copy_from_slice(&complete[field..field + 2]);
        assert_eq!(Wire(gso), Wire(complete));
        carried += 1;
    }
    assert!(carried > 500, "{carried}");
}

#[test]
fn a_flood_from_one_device_leaves_the_others_their_share() {
    let mut w = World::new();
    w.lan(&udp((B, 50_000), (S, 53))).sent();
    let limits = w.engine.nat.policy().limits;
    for n in 0..30_000u32 {
        let [_, _, c, d] = n.to_be_bytes();
        let _ = w.lan(&udp((A, 40_000), ([203, 0, c, d].into(), 9)));
    }
    assert_eq!(w.engine.nat.sizes().sessions[1], limits.sessions_per_device + 1);
    assert_eq!(w.drops(DropReason::DeviceQuota), u64::from(30_000 - limits.sessions_per_device));
    w.lan(&udp((B, 50_001), (T, 53))).sent();
    w.wan(&udp((S, 53), (WAN, 50_000))).sent();
    assert!(w.effects().len() < 100);
}

#[test]
fn a_flood_from_forged_addresses_is_bounded_and_established_flows_go_on() {
    let mut w = World::new();
    w.connect((B, 50_000), (S, 443));
    let limits = w.engine.nat.policy().limits;
    for n in 0..100_000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let _ = w.lan(&udp(([10, b, c, d].into(), 1000), (T, 9)));
        if n % 1000 == 0 {
            w.advance(1);
        }
    }
    let sizes = w.engine.nat.sizes();
    assert!(sizes.sessions.iter().sum::<u32>() <= limits.sessions && sizes.mappings <= limits.sessions);
    assert!(w.engine.nat.devices().count() <= 8192);
    assert!(w.effects().len() < 10_000);
    w.wan(&tcp((S, 443), (WAN, 50_000)).data(501, 101, 10)).sent();
    w.lan(&tcp((B, 50_000), (S, 443)).ack(101, 511)).sent();
    // And it is over five minutes later.
    w.advance(301);
    w.lan(&udp(([10, 9, 9, 9].into(), 1000), (T, 9))).sent();
    assert_eq!(w.sessions().len(), 2);
}

#[test]
fn effects_nobody_fetches_are_bounded() {
    let limits = Limits { sessions: 0, ..Limits::default() };
    let mut w = World::with(Policy { limits, ..Policy::default() });
    for _ in 0..20_000 {
        let _ = w.lan(&udp((A, 40_000), (T, 9)));
        w.pass_time(Duration::from_millis(100));
    }
    let effects = w.effects();
    assert!(effects.len() <= 8192 && effects.iter().all(|e| matches!(e, Effect::Transmit(_))));
}

#[test]
fn the_conntrack_view_never_names_the_wan_address() {
    for seed in 100..110u64 {
        let dice = &mut Dice(seed);
        let policy = policy(dice);
        let mut w = World::seeded(policy, [1; 16]);
        for _ in 0..1000 {
            let bytes = dice.packet(0).bytes();
            throw(&mut w, dice, &bytes);
            if let Some(admission) = w.admission {
                let ends = [admission.original.src.addr, admission.original.dst.addr];
                assert!(!ends.contains(&WAN), "seed {seed}: {admission:?} for {:?}", Wire(bytes));
            }
            if dice.below(10) == 0 {
                w.advance(30);
            }
        }
    }
}

#[test]
fn a_session_that_meets_anothers_tuple_leaves_no_mapping_behind() {
    let far = ([10, 0, 0, 9].into(), 5000); // behind another router of the LAN, later reached over the WAN
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp((A, 4000), (S, 53))).sent();
    for _ in 0..4 {
        w.across(&udp(far, (WAN, 4000)));
        w.advance(100);
    }
    // The device's mapping is gone; the other's session that leads to it is not.
    assert_eq!(w.sessions().len(), 1);
    assert_eq!(w.lan(&udp((A, 4000), far)), Out::Dropped(DropReason::Conflict));
    assert_eq!((w.sessions().len(), w.engine.nat.sizes().mappings), (1, 1));
}

#[test]
fn what_is_for_the_lan_does_not_leave_by_the_wan() {
    // The LAN's interface went down, and the default route takes over.
    let mut w = World::new();
    w.lan(&udp((A, 4000), (S, 53))).sent();
    let seen = w.wan(&udp((S, 53), (WAN, 4000))).sent().0;
    for origin in [Origin::Lan, Origin::Router] {
        for bytes in [&seen, &udp((WAN, 9), (A, 4000)).bytes(), &udp((B, 9), (A, 4000)).bytes()] {
            assert_eq!(w.at(Stage::ToWan(origin), bytes), Out::Dropped(DropReason::Guarded));
        }
    }
}
