//! Every packet is counted once, as what became of it, and every drop under its own reason.

use std::collections::BTreeSet;

use nat_core::decision::{DropReason, Note};
use nat_core::flow::Protocol;
use nat_core::nat::{Origin, Traffic};
use nat_core::policy::{Limits, Policy, PortRange};
use natd::engine::Stage;

use crate::packets::{A, B, Kind, S, T, WAN, error, tcp, too_big, udp};
use crate::world::{Out, World, forward};

/// A household in which something of everything goes on.
fn world() -> World {
    let mut w = World::with(Policy {
        ports: PortRange::new(40_000, 40_003).unwrap(),
        limits: Limits { sessions: 8, sessions_per_device: 4, held_syns: 1 },
        forwards: vec![forward(Protocol::Udp, 80, 80, B, 80), forward(Protocol::Udp, 81, 81, B, 80)],
        ..Policy::default()
    });
    w.lan(&udp((A, 40_000), (S, 53))).sent();
    w.connect((A, 40_001), (S, 443));
    w.effects();
    w
}

/// What `act` is dropped for, and that it is counted there and nowhere else.
fn dropped(expected: DropReason, act: impl FnOnce(&mut World) -> Out) {
    let mut w = world();
    let before: Vec<(DropReason, u64)> = w.engine.nat.counters().drops().collect();
    assert_eq!(act(&mut w), Out::Dropped(expected));
    for ((reason, after), (_, before)) in w.engine.nat.counters().drops().zip(before) {
        assert_eq!(after - before, u64::from(reason == expected), "{}", reason.name());
    }
}

#[test]
fn every_drop_is_counted_under_its_reason() {
    let quoted = |packet: &crate::packets::Packet| packet.bytes();
    let sent = udp((WAN, 40_000), (S, 53));
    dropped(DropReason::Malformed, |w| w.at(Stage::ToWan(Origin::Lan), &[0x45, 0, 0]));
    dropped(DropReason::BadChecksum, |w| {
        let mut bytes = error(3, 3, S, WAN, &quoted(&sent)).bytes();
        bytes[23] ^= 1;
        w.at(Stage::FromWan { local_socket: false }, &bytes)
    });
    dropped(DropReason::UnsupportedProtocol, |w| {
        let mut sctp = udp((A, 0), (S, 0));
        sctp.kind = Kind::Other(132);
        w.lan(&sctp)
    });
    dropped(DropReason::NoAddress, |w| {
        w.engine.nat.set_address(None);
        w.lan(&udp((A, 40_000), (S, 53)))
    });
    dropped(DropReason::InboundToLan, |w| w.wan(&udp((S, 53), (A, 40_000))));
    dropped(DropReason::ForgedSource, |w| w.wan(&udp((B, 53), (WAN, 40_000))));
    dropped(DropReason::Filtered, |w| w.wan(&udp((T, 53), (WAN, 40_000))));
    dropped(DropReason::NoSession, |w| w.lan(&tcp((B, 1), (S, 1)).rst(1)));
    dropped(DropReason::BogusReset, |w| w.wan(&tcp((S, 443), (WAN, 40_001)).rst(9_999_999)));
    dropped(DropReason::UnknownQuote, |w| w.wan(&error(3, 3, S, WAN, &quoted(&sent.to(T, 1)))));
    dropped(DropReason::StaleQuote, |w| {
        let old = tcp((WAN, 40_001), (S, 443)).data(9_999_999, 1, 8);
        w.wan(&error(3, 3, S, WAN, &quoted(&old)))
    });
    dropped(DropReason::MtuTooSmall, |w| w.wan(&too_big(575, S, WAN, &quoted(&sent))));
    dropped(DropReason::RefusedIcmp, |w| w.wan(&error(4, 0, S, WAN, &quoted(&sent))));
    dropped(DropReason::DeviceQuota, |w| {
        w.lan(&udp((A, 40_000), (S, 1))).sent();
        w.lan(&udp((A, 40_000), (S, 2))).sent();
        w.lan(&udp((A, 40_000), (S, 3)))
    });
    dropped(DropReason::TableFull, |w| {
        for port in 1..4 {
            w.lan(&udp((B, 40_002), (S, port))).sent();
            w.lan(&udp(([192, 168, 1, 13].into(), 40_003), (S, port))).sent();
        }
        w.lan(&udp((B, 40_002), (S, 9)))
    });
    dropped(DropReason::NoPort, |w| {
        w.lan(&udp((A, 40_002), (S, 1))).sent();
        w.lan(&udp((B, 40_000), (S, 1)))
    });
    dropped(DropReason::Conflict, |w| {
        w.wan(&udp((S, 1), (WAN, 80))).sent();
        w.wan(&udp((S, 1), (WAN, 81)))
    });
    dropped(DropReason::HoldRepeated, |w| {
        w.unclaimed(&tcp((S, 1), (WAN, 1)).syn(1));
        w.unclaimed(&tcp((S, 1), (WAN, 1)).syn(1))
    });
    dropped(DropReason::HoldFull, |w| {
        w.unclaimed(&tcp((S, 1), (WAN, 1)).syn(1));
        w.unclaimed(&tcp((S, 1), (WAN, 2)).syn(1))
    });
    dropped(DropReason::AfterStart, |w| {
        w.now = nat_core::time::Timestamp::from_secs(5001);
        w.unclaimed(&tcp((S, 1), (WAN, 1)).ack(1, 1))
    });
    dropped(DropReason::HairpinRefused, |w| w.hairpin_in(&udp((B, 1024), (WAN, 40_000))));
    dropped(DropReason::Guarded, |w| w.lan(&udp((A, 40_000), (B, 53))));
}

#[test]
fn packets_and_bytes_are_counted_by_what_became_of_them() {
    let mut w = World::new();
    let packet = udp((A, 40_000), (S, 53)); // 32 bytes
    w.lan(&packet).sent();
    w.lan(&packet).sent();
    w.wan(&udp((S, 53), (WAN, 40_000))).sent();
    assert_eq!(w.wan(&udp((S, 53), (WAN, 9))), Out::Passed);
    assert_eq!(w.wan(&udp((T, 53), (WAN, 40_000))), Out::Dropped(DropReason::Filtered));
    let counters = w.engine.nat.counters();
    assert_eq!(counters.outbound, Traffic { packets: 2, bytes: 64 });
    assert_eq!(counters.inbound, Traffic { packets: 1, bytes: 32 });
    assert_eq!(counters.passed, Traffic { packets: 1, bytes: 32 });
    assert_eq!(counters.hairpin, Traffic::default());
    let session = w.sessions()[0];
    assert_eq!((session.packets, session.bytes), ([2, 1], [64, 32]));
    let device = w.engine.nat.devices().next().unwrap();
    assert_eq!((device.addr, device.packets, device.bytes), (A, [2, 1], [64, 32]));
}

#[test]
fn a_long_sessions_packets_and_bytes_are_all_counted() {
    let mut w = World::new();
    let (small, large) = (udp((A, 40_000), (S, 53)), udp((S, 53), (WAN, 40_000)).payload(&[7; 60_000]));
    for _ in 0..600 {
        w.lan(&small).sent();
        w.wan(&large).sent();
    }
    w.lan(&small).sent();
    let session = w.sessions()[0];
    assert_eq!((session.packets, session.bytes), ([601, 600], [601 * 32, 600 * 60_028]));
}

#[test]
fn names_of_counters_are_distinct_and_explained() {
    let names: BTreeSet<&str> = DropReason::ALL.iter().map(|r| r.name()).collect();
    assert_eq!(names.len(), DropReason::ALL.len());
    let notes: BTreeSet<&str> = Note::ALL.iter().map(|n| n.name()).collect();
    assert_eq!(notes.len(), Note::ALL.len());
    for (at, reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), at);
        assert!(!reason.explanation().is_empty() && !reason.name().contains([' ', '_']), "{reason:?}");
    }
}
