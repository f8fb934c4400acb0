//! A NAT of sixty lines, slow and obvious, that must agree with the real one.
//!
//! Random packets and time steps go into both; every answer, and every few steps all sessions with their
//! deadlines, must be equal. Only the choice of a port is left to the real one, and judged. A failure names
//! its seed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nat_core::decision::DropReason;
use nat_core::flow::Protocol;
use nat_core::policy::{Filtering, Policy, Timeouts};
use nat_core::time::Timestamp;

use crate::hostile::Dice;
use crate::packets::{A, B, End, S, T, WAN, udp};
use crate::world::{Out, World, endpoint, forward, sent};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dynamic,
    Forwarded,
    Router,
}

/// A mapping, and its sessions by remote endpoint: when they end, and whether the device has spoken.
#[derive(Debug)]
struct Mapping {
    kind: Kind,
    internal: End,
    external: u16,
    sessions: BTreeMap<End, (Timestamp, bool)>,
}

/// What becomes of a packet, but for the bytes.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Inside(End),
    Passed,
    Filtered,
}

struct Model {
    now: Timestamp,
    filtering: Filtering,
    refresh: bool,
    forwards: BTreeMap<u16, End>,
    mappings: Vec<Mapping>,
}

impl Model {
    fn expire(&mut self) {
        let now = self.now;
        for mapping in &mut self.mappings {
            mapping.sessions.retain(|_, (deadline, _)| *deadline > now);
        }
        self.mappings.retain(|m| match m.kind {
            Kind::Forwarded => !m.sessions.is_empty(),
            Kind::Dynamic | Kind::Router => m.sessions.values().any(|&(_, spoken)| spoken),
        });
    }

    /// The device at `internal` speaks to `remote`; `port` is what the real NAT chose if it had to.
    fn outbound(&mut self, kind: Kind, internal: End, remote: End, port: u16) -> u16 {
        let deadline = self.now + Timeouts::default().udp;
        if let Some(mapping) = self.mappings.iter_mut().find(|m| m.internal == internal) {
            mapping.sessions.insert(remote, (deadline, true));
            return mapping.external;
        }
        let taken = |port| self.mappings.iter().any(|m| m.external == port);
        let forward = self.forwards.iter().find(|&(_, &end)| end == internal).map(|(&port, _)| port);
        let kind = match forward {
            Some(wanted) => {
                assert_eq!(port, wanted, "a forwarded endpoint has its forward's port");
                Kind::Forwarded
            }
            None if taken(internal.1) || self.forwards.contains_key(&internal.1) => {
                assert!(!taken(port) && !self.forwards.contains_key(&port), "{port} is not free");
                assert!(port >= 1024 && port % 2 == internal.1 % 2, "{internal:?} became {port}");
                kind
            }
            None => {
                assert_eq!(port, internal.1, "the port is free");
                kind
            }
        };
        let sessions = [(remote, (deadline, true))].into();
        self.mappings.push(Mapping { kind, internal, external: port, sessions });
        port
    }

    fn inbound(&mut self, remote: End, port: u16) -> Fate {
        let deadline = self.now + Timeouts::default().udp;
        if let Some(mapping) = self.mappings.iter_mut().find(|m| m.external == port) {
            if let Some((end, spoken)) = mapping.sessions.get_mut(&remote) {
                if *spoken && self.refresh {
                    *end = deadline;
                }
                return Fate::Inside(mapping.internal);
            }
            let mut spoken = mapping.sessions.iter().filter(|(_, (_, spoken))| *spoken);
            let accepted = match (mapping.kind, self.filtering) {
                (Kind::Router, _) => return Fate::Passed,
                (Kind::Forwarded, _) | (Kind::Dynamic, Filtering::EndpointIndependent) => true,
                (Kind::Dynamic, Filtering::AddressDependent) => spoken.any(|(end, _)| end.0 == remote.0),
                (Kind::Dynamic, Filtering::AddressAndPortDependent) => false,
            };
            if !accepted {
                return Fate::Filtered;
            }
            mapping.sessions.insert(remote, (deadline, false));
            return Fate::Inside(mapping.internal);
        }
        let Some(&internal) = self.forwards.get(&port) else { return Fate::Passed };
        let sessions = [(remote, (deadline, false))].into();
        self.mappings.push(Mapping { kind: Kind::Forwarded, internal, external: port, sessions });
        Fate::Inside(internal)
    }

    fn is_devices(&self, port: u16) -> bool {
        match self.mappings.iter().find(|m| m.external == port) {
            Some(mapping) => mapping.kind != Kind::Router,
            None => self.forwards.contains_key(&port),
        }
    }
}

/// The external port of the real NAT's session, 0 if there is none.
fn chosen(w: &World, internal: End, remote: End) -> u16 {
    let found =
        w.sessions().into_iter().find(|s| (s.internal, s.remote) == (endpoint(internal), endpoint(remote)));
    found.map_or(0, |s| s.external.id.0)
}

fn compare(w: &World, model: &Model, seed: u64) {
    let mut real: Vec<_> =
        w.sessions().iter().map(|s| (s.internal, s.external, s.remote, s.deadline)).collect();
    let mut expected: Vec<_> = model
        .mappings
        .iter()
        .flat_map(|m| {
            let row = |(&remote, &(deadline, _)): (&End, &(Timestamp, bool))| {
                (endpoint(m.internal), endpoint((WAN, m.external)), endpoint(remote), deadline)
            };
            m.sessions.iter().map(row).collect::<Vec<_>>()
        })
        .collect();
    real.sort();
    expected.sort();
    assert_eq!(real, expected, "seed {seed}");
    assert_eq!(w.engine.nat.sizes().mappings as usize, model.mappings.len(), "seed {seed}");
}

fn run(seed: u64) {
    let dice = &mut Dice(seed);
    let filtering = dice.pick(&[
        Filtering::EndpointIndependent,
        Filtering::AddressDependent,
        Filtering::AddressAndPortDependent,
    ]);
    let refresh = dice.pick(&[true, false]);
    let mut w = World::with(Policy {
        filtering,
        inbound_refresh: refresh,
        forwards: vec![
            forward(Protocol::Udp, 4003, 4003, A, 4001),
            forward(Protocol::Udp, 5000, 5001, B, 4005),
        ],
        ..Policy::default()
    });
    let forwards = [(4003, (A, 4001)), (5000, (B, 4005)), (5001, (B, 4006))].into();
    let mut model = Model { now: w.now, filtering, refresh, forwards, mappings: Vec::new() };
    let ports = [4000, 4001, 4002, 4003, 4005, 4006, 5000, 5001];
    let device = |dice: &mut Dice| -> End {
        let addr: Ipv4Addr = dice.pick(&[A, B, [192, 168, 1, 13].into()]);
        (addr, dice.pick(&ports))
    };
    for step in 0..1200 {
        let remote = (dice.pick(&[S, T]), dice.pick(&[53, 54]));
        // A port that somebody has, or any.
        let any = dice.pick(&ports);
        let external = match model.mappings.len() {
            0 => any,
            n => [model.mappings[dice.below(n)].external, any][dice.below(2)],
        };
        let context = format!("seed {seed} step {step}");
        match dice.below(10) {
            0..3 => {
                let internal = device(dice);
                let packet = udp(internal, remote);
                let out = w.lan(&packet);
                let port = model.outbound(Kind::Dynamic, internal, remote, chosen(&w, internal, remote));
                assert_eq!(out, sent(&packet.from(WAN, port)), "{context}");
            }
            3 => {
                let internal = (WAN, dice.pick(&ports));
                let packet = udp(internal, remote);
                let out = w.router(&packet);
                let port = model.outbound(Kind::Router, internal, remote, chosen(&w, internal, remote));
                let own = port == internal.1;
                assert_eq!(out, if own { Out::Passed } else { sent(&packet.from(WAN, port)) }, "{context}");
            }
            4..7 => {
                let packet = udp(remote, (WAN, external));
                let expected = match model.inbound(remote, external) {
                    Fate::Inside(end) if end == (WAN, external) => Out::Passed,
                    Fate::Inside((addr, port)) => sent(&packet.to(addr, port)),
                    Fate::Passed => Out::Passed,
                    Fate::Filtered => Out::Dropped(DropReason::Filtered),
                };
                assert_eq!(w.wan(&packet), expected, "{context}");
            }
            7..9 => {
                let internal = device(dice);
                let packet = udp(internal, (WAN, external));
                let out = w.across(&packet);
                let expected = if model.is_devices(external) {
                    let chosen = chosen(&w, internal, (WAN, external));
                    let port = model.outbound(Kind::Dynamic, internal, (WAN, external), chosen);
                    match model.inbound((WAN, port), external) {
                        Fate::Inside((addr, id)) => sent(&packet.from(WAN, port).to(addr, id)),
                        Fate::Passed => Out::Passed,
                        Fate::Filtered => Out::Dropped(DropReason::HairpinRefused),
                    }
                } else {
                    Out::Passed
                };
                assert_eq!(out, expected, "{context}");
            }
            _ => {
                w.advance(dice.pick(&[1, 10, 60, 150, 299, 300]));
                model.now = w.now;
                model.expire();
            }
        }
        if step % 10 == 0 {
            compare(&w, &model, seed);
        }
    }
}

#[test]
fn the_nat_agrees_with_a_naive_one() {
    for seed in 1000..1100 {
        run(seed);
    }
}
