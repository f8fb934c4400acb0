//! Arbitrary and mutated packets of PPTP, L2TP and keyed protocols: nothing panics, nothing of the LAN leaks, what is
//! held is bounded, and everything ends.
//!
//! A failing run prints its seed; a seed makes the same packets again.

use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::nat::Origin;
use nat_core::policy::Policy;
use natd::engine::Stage;
use passthrough::settings::{Access, Carrier, InsideServer, Scope, Settings};

use crate::hostile::{Dice, STAGES};
use crate::packets::{A, B, HOP, Packet, S, T, WAN, error, tcp, too_big, udp};
use crate::vpn_pptp::{Dial, call};
use crate::world::{Out, World, forward};
use crate::{vpn_keyed as keyed, vpn_l2tp as l2tp, vpn_pptp as pptp};

#[test]
fn no_vpn_packets_break_the_engine() {
    let (mut sent, mut held, mut opened) = (0, 0, 0);
    for seed in 0..150u64 {
        let dice = &mut Dice(seed);
        let mut w = World::both(policy(), settings(dice), [dice.byte(); 16]);
        let all = Settings { pptp: on(true), ..Settings::default() };
        w.engine.vpn.set_settings(all);
        let dials = [call(&mut w, A, 7, 100), call(&mut w, B, 7, 101)];
        w.engine.vpn.set_settings(settings(dice));
        for _ in 0..1000 {
            let (stage, packet) = packet(dice, &dials);
            let mut bytes = packet.bytes();
            if dice.below(4) == 0 {
                dice.harm(&mut bytes);
            }
            let stage = if dice.below(20) == 0 { dice.pick(&STAGES) } else { stage };
            // What the kernel's NAT would translate afterwards still has its address in it.
            if matches!(stage, Stage::ToWan(_)) && w.engine.vpn.is_alone() {
                continue;
            }
            match w.at(stage, &bytes) {
                Out::Sent(_) => sent += 1,
                Out::Held(_) => held += 1,
                Out::Passed | Out::Dropped(_) => {}
            }
            if w.admission.is_some_and(|a| a.original.src.addr == WAN || a.original.dst.addr == WAN) {
                panic!("seed {seed}: {:?}", w.admission);
            }
            if dice.below(5) == 0 {
                w.settle();
                assert!(w.holds() <= 64, "seed {seed}: {} held", w.holds());
            }
            if dice.below(30) == 0 {
                let micros = dice.roll() % dice.pick(&[1_000, 3_000_000, 200_000_000]);
                w.pass_time(Duration::from_micros(micros));
            }
            if dice.below(200) == 0 {
                let settings = settings(dice);
                w.engine.vpn.set_settings(settings);
            }
        }
        opened += w.engine.sessions(w.now).len();
        w.advance(90_000);
        w.settle();
        let sizes = w.engine.nat.sizes();
        assert_eq!((w.engine.sessions(w.now), sizes.mappings), (vec![], 0), "seed {seed}");
        assert_eq!((w.engine.poll_timeout(), w.holds()), (None, 0), "seed {seed}");
    }
    assert!(sent > 20_000 && held > 10 && opened > 500, "{sent} sent, {held} held, {opened} opened");
}

fn on(on: bool) -> Access {
    Access { on, ..Settings::default().pptp }
}

fn policy() -> Policy {
    use nat_core::flow::Protocol::{Tcp, Udp};
    let forwards = vec![forward(Tcp, 1723, 1723, B, 1723), forward(Udp, 1701, 1701, A, 1701)];
    Policy { forwards, ..Policy::default() }
}

fn settings(dice: &mut Dice) -> Settings {
    let servers = [(Carrier::Gre, A), (Carrier::L2tpIp, B)];
    let servers = servers.map(|(carrier, host)| InsideServer { carrier, host }).to_vec();
    Settings {
        scope: dice.pick(&[Scope::All, Scope::All, Scope::All, Scope::Vpn]),
        pptp: on(dice.below(8) != 0),
        l2tp: on(dice.below(8) != 0),
        multi: dice.below(8) != 0,
        servers: if dice.below(2) == 0 { servers } else { Vec::new() },
        ..Settings::default()
    }
}

/// A packet that comes near what is going on, and where.
fn packet(dice: &mut Dice, dials: &[Dial]) -> (Stage, Packet) {
    let out = dice.below(2) == 0;
    let (device, server) = (dice.pick(&[A, B]), dice.pick(&[S, S, S, T]));
    let stage = if out {
        Stage::ToWan(dice.pick(&[Origin::Lan, Origin::Lan, Origin::Lan, Origin::Router]))
    } else {
        Stage::FromWan { local_socket: false }
    };
    let (inside, outside) = if dice.below(20) == 0 { (server, device) } else { (device, server) };
    let (src, dst) = if out { (inside, outside) } else { (outside, WAN) };
    let built = match dice.below(6) {
        5 => {
            let quoted = body(dice, dials, (dst, src), !out);
            let len = dice.pick(&[8, 12, 16, 30, 1000]);
            if dice.below(2) == 0 {
                too_big(dice.pick(&[500, 1400]), dice.pick(&[src, HOP]), dst, &quoted.head(len))
            } else {
                error(3, dice.byte() % 16, src, dst, &quoted.head(len))
            }
        }
        _ => body(dice, dials, (src, dst), out),
    };
    (stage, built)
}

fn body(dice: &mut Dice, dials: &[Dial], (src, dst): (Ipv4Addr, Ipv4Addr), out: bool) -> Packet {
    let id = dice.pick(&[7u16, 8, 9, 100, 101, 102]);
    match dice.below(8) {
        0..2 => {
            let dial = &dials[usize::from(src == B || dst == B)];
            let kind = dice.pick(&[1, 2, 5, 7, 7, 8, 8, 12, 13, 15]);
            let length = dice.pick(&[16u16, 24, 32, 156, 168, 168]);
            let length = match kind {
                1 | 2 => 156,
                7 => 168,
                8 => 32,
                12 => 16,
                13 => 148,
                15 => 24,
                _ => length,
            };
            let bytes = pptp::message(kind, length, id, dice.pick(&[7, 8, 100]), 1);
            let cut = dice.below(bytes.len()) * dice.below(2);
            let back = u32::from(dice.byte()) * u32::from(dice.below(3) == 0);
            let (near, far) = ((if out { 40_000 } else { 1723 }), if out { 1723 } else { dial.external });
            let (seq, ack) = if out { (dial.seq, dial.ack) } else { (dial.ack, dial.seq) };
            let segment = tcp((src, near), (dst, far)).ack(seq.wrapping_sub(back), ack);
            let segment = segment.payload(&bytes[cut..]);
            match dice.below(60) {
                0 => tcp((src, near), (dst, far)).syn(1),
                1 => segment.fin(seq, ack),
                2 => tcp((src, near), (dst, far)).rst(seq),
                3 => tcp((src, 1723), (dst, 1723)).ack(seq, ack).payload(&bytes),
                _ => segment,
            }
        }
        2..4 => pptp::gre(src, dst, id),
        4..6 => {
            let kind = dice.pick(&[1, 1, 2, 3, 4, 6, 14]);
            let own = dice.pick(&[1u16, 2, 0x8001, 0x8002]);
            let to = if kind == 1 { 0 } else { dice.pick(&[1, 2, 0x8001, 0x8002]) };
            let bytes = match dice.below(3) {
                0 => l2tp::data(to),
                _ => l2tp::v2(to, kind, &own.to_be_bytes()),
            };
            udp((src, dice.pick(&[1701, 1701, 1701, 50_000])), (dst, dice.pick(&[1701, 1701, 40_001])))
                .payload(&bytes)
        }
        6 => keyed::gre(src, dst, dice.pick(&[1, 2, 3])),
        _ => match dice.below(3) {
            0 => keyed::session(src, dst, dice.pick(&[7, 8, 9])),
            1 => keyed::control(src, dst, dice.pick(&[0x1000, 0x1001])),
            _ => keyed::sccrq(src, dst, dice.pick(&[0x1000, 0x1001])),
        },
    }
}
