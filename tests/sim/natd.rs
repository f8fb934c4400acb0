//! natd's engine as a NAT under test.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::{
    ChecksumState, Decision, Effect, HoldId, InterfaceAddress, KernelTuple, Note, Outcome,
};
use nat_core::flow::Endpoint;
use nat_core::nat::{Nat, Origin};
use nat_core::policy::Policy;
use nat_core::time::Timestamp;
use natd::engine::{Arrival, Engine, Stage};
use passthrough::settings::Settings;
use passthrough::{Memory, Passthrough};

use crate::nat::{NatUnderTest, Sent};

/// The engine, and beside it what the kernel would remember: which devices spoke ESP to whom.
pub(crate) struct Natd {
    engine: Engine,
    held: BTreeMap<HoldId, Vec<u8>>,
    conntrack: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    /// What the daemon writes down.
    written: Memory,
    lan: InterfaceAddress,
    wan: Ipv4Addr,
    seed: u64,
    /// Counted before the last restart.
    before: BTreeMap<&'static str, u64>,
}

impl Natd {
    pub(crate) fn new(wan: Ipv4Addr, lan: InterfaceAddress, seed: u64) -> Self {
        let mut this = Self {
            engine: engine(Duration::ZERO, wan, lan, seed),
            held: BTreeMap::new(),
            conntrack: BTreeSet::new(),
            written: Default::default(),
            lan,
            wan,
            seed,
            before: BTreeMap::new(),
        };
        this.engine.handle_timeout(Timestamp::ZERO);
        this
    }

    fn decide(&mut self, now: Duration, stage: Stage, packet: &[u8], out: &mut Vec<Sent>) {
        let decision = self.engine.decide(at(now), &Arrival { stage, bytes: packet, truncated: false });
        match decision {
            Decision::Forward(forward) => {
                let mut bytes = packet.to_vec();
                forward.carry_out(&mut bytes, ChecksumState::Complete);
                self.send(bytes, out);
            }
            Decision::Hold(id) => {
                self.held.insert(id, packet.to_vec());
            }
            Decision::Pass | Decision::Drop(_) => {}
        }
        self.carry_out(out);
        if self.engine.vpn.take_news() {
            self.written = self.engine.vpn.memory();
        }
    }

    fn carry_out(&mut self, out: &mut Vec<Sent>) {
        while let Some(effect) = self.engine.nat.poll_effect() {
            match effect {
                Effect::Transmit(bytes) => self.send(bytes, out),
                Effect::Admit(_) => {}
                Effect::Release { hold, outcome } => {
                    let Some(mut bytes) = self.held.remove(&hold) else { continue };
                    match outcome {
                        Outcome::Forward(forward) => {
                            forward.carry_out(&mut bytes, ChecksumState::Complete);
                            self.send(bytes, out);
                        }
                        Outcome::Pass | Outcome::Drop => {}
                    }
                }
            }
        }
    }

    fn send(&mut self, bytes: Vec<u8>, out: &mut Vec<Sent>) {
        let dst = Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]);
        out.push(if self.lan.contains(dst) { Sent::ToLan(bytes) } else { Sent::ToWan(bytes) });
    }

    fn counted(&self) -> BTreeMap<&'static str, u64> {
        let counters = self.engine.nat.counters();
        let wanted = [Note::EspEvidence, Note::EspGuess, Note::EspFanOut, Note::EspConflict, Note::VpnHeld];
        let notes =
            counters.notes().filter(|(note, _)| wanted.contains(note)).map(|(note, n)| (note.name(), n));
        let drops = counters.drops().filter(|&(_, n)| n > 0).map(|(reason, n)| (reason.name(), n));
        notes.chain(drops).collect()
    }
}

impl NatUnderTest for Natd {
    fn outbound(&mut self, now: Duration, packet: &[u8], out: &mut Vec<Sent>) {
        if packet[9] == 50 {
            let addr = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
            self.conntrack.insert((addr(12), addr(16)));
        }
        self.decide(now, Stage::ToWan(Origin::Lan), packet, out);
    }

    fn inbound(&mut self, now: Duration, packet: &[u8], out: &mut Vec<Sent>) {
        self.decide(now, Stage::FromWan { local_socket: false }, packet, out);
    }

    fn poll_timeout(&mut self) -> Option<Duration> {
        self.engine.poll_timeout().map(|at| Duration::from_micros(at.as_micros()))
    }

    fn handle_timeout(&mut self, now: Duration, out: &mut Vec<Sent>) {
        self.engine.handle_timeout(at(now));
        self.carry_out(out);
    }

    fn restart(&mut self, now: Duration) {
        for (name, count) in self.counted() {
            *self.before.entry(name).or_default() += count;
        }
        self.held.clear();
        self.engine = engine(now, self.wan, self.lan, self.seed);
        self.engine.vpn.recall(at(now), &self.written);
        for &(device, server) in &self.conntrack {
            let original =
                KernelTuple { protocol: 50, src: Endpoint::new(device, 0), dst: Endpoint::new(server, 0) };
            self.engine.vpn.adopt(at(now), &original);
        }
    }

    fn shares(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.before.clone();
        for (name, count) in self.counted() {
            *all.entry(name).or_default() += count;
        }
        all.into_iter().collect()
    }
}

fn engine(now: Duration, wan: Ipv4Addr, lan: InterfaceAddress, seed: u64) -> Engine {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut nat = Nat::new(Policy::default(), bytes, at(now));
    nat.set_lan(vec![lan]);
    nat.set_address(Some(wan));
    Engine::new(nat, Passthrough::new(Settings::default()))
}

fn at(now: Duration) -> Timestamp {
    Timestamp::from_micros(u64::try_from(now.as_micros()).unwrap())
}

/// natd with its defaults.
pub(crate) fn natd() -> Option<Box<dyn NatUnderTest>> {
    let lan = InterfaceAddress { addr: Ipv4Addr::new(192, 168, 1, 1), prefix: 24 };
    Some(Box::new(Natd::new(crate::wire::WAN, lan, 7)))
}
