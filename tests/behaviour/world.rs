//! One household's NAT with a virtual clock, and what must hold whatever passes it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::{
    Admission, ChecksumState, Decision, DropReason, Effect, HoldId, InterfaceAddress, Note, Outcome,
};
use nat_core::flow::{Endpoint, Protocol};
use nat_core::nat::{Listeners, Nat, Origin};
use nat_core::policy::{Filtering, Forward, Policy, PortRange};
use nat_core::session::SessionView;
use nat_core::time::Timestamp;
use natd::engine::{Arrival, Engine, Stage};
use passthrough::Passthrough;
use passthrough::settings::Settings;

use crate::packets::{Packet, ROUTER, WAN, Wire, checksums_hold, tcp};

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    /// Sent on, changed to this.
    Sent(Wire),
    /// Sent on untouched.
    Passed,
    /// Kept.
    Held(HoldId),
    /// Dropped.
    Dropped(DropReason),
}

impl Out {
    /// The packet that was sent on; panics if none was.
    pub(crate) fn sent(self) -> Wire {
        match self {
            Self::Sent(wire) => wire,
            Self::Passed | Self::Held(_) | Self::Dropped(_) => panic!("{self:?}"),
        }
    }
}

/// The decision that the packet goes on as `packet`.
pub(crate) fn sent(packet: &Packet) -> Out {
    Out::Sent(Wire(packet.bytes()))
}

/// A NAT that translates to [`WAN`] for the LAN 192.168.1.0/24, some time after its start.
pub(crate) struct World {
    /// The code under test.
    pub(crate) engine: Engine,
    /// The virtual clock.
    pub(crate) now: Timestamp,
    /// What conntrack had to know before the last packet was released.
    pub(crate) admission: Option<Admission>,
    /// Was the last packet to be sent as one of the daemon's own?
    pub(crate) resend: bool,
    /// Packets that are held.
    held: BTreeMap<HoldId, Vec<u8>>,
}

impl World {
    /// With the default policy.
    pub(crate) fn new() -> Self {
        Self::with(Policy::default())
    }

    /// With this policy.
    pub(crate) fn with(policy: Policy) -> Self {
        Self::seeded(policy, [7; 16])
    }

    /// With this policy and seed.
    pub(crate) fn seeded(policy: Policy, seed: [u8; 16]) -> Self {
        Self::both(policy, Settings::default(), seed)
    }

    /// With these settings of VPN passthrough.
    pub(crate) fn vpn(settings: Settings) -> Self {
        Self::both(Policy::default(), settings, [7; 16])
    }

    /// With this policy and these settings of VPN passthrough.
    pub(crate) fn both(policy: Policy, settings: Settings, seed: [u8; 16]) -> Self {
        let start = Timestamp::from_secs(5000);
        let mut nat = Nat::new(policy, seed, start);
        nat.set_lan(vec![InterfaceAddress { addr: ROUTER, prefix: 24 }]);
        nat.set_address(Some(WAN));
        let engine = Engine::new(nat, Passthrough::new(settings));
        Self {
            engine,
            now: start + Duration::from_secs(1000),
            admission: None,
            resend: false,
            held: BTreeMap::new(),
        }
    }

    /// With this filtering.
    pub(crate) fn filtering(filtering: Filtering) -> Self {
        Self::with(Policy { filtering, ..Policy::default() })
    }

    /// With these port forwards.
    pub(crate) fn forwards(forwards: &[Forward]) -> Self {
        Self::with(Policy { forwards: forwards.to_vec(), ..Policy::default() })
    }

    /// Hands in `bytes`, carries the decision out, and checks what must hold for every packet: checksums stay
    /// right, and nothing with an address of the LAN in header or quote goes to the WAN.
    pub(crate) fn at(&mut self, stage: Stage, bytes: &[u8]) -> Out {
        let decision = self.engine.decide(self.now, &Arrival { stage, bytes, truncated: false });
        (self.admission, self.resend) = (None, false);
        let out = match decision {
            Decision::Forward(forward) => {
                let mut changed = bytes.to_vec();
                forward.carry_out(&mut changed, ChecksumState::Complete);
                (self.admission, self.resend) = (forward.admission, forward.resend);
                let right = checksums_hold(&changed) || !checksums_hold(bytes);
                assert!(right, "{stage:?}: {:?} became {:?}", Wire(bytes.to_vec()), Wire(changed));
                assert_eq!(forward.hairpin, stage == Stage::HairpinIn);
                Out::Sent(Wire(changed))
            }
            Decision::Pass => Out::Passed,
            Decision::Hold(id) => {
                self.held.insert(id, bytes.to_vec());
                Out::Held(id)
            }
            Decision::Drop(reason) => Out::Dropped(reason),
        };
        if matches!(stage, Stage::ToWan(_)) {
            let leaving = match &out {
                Out::Sent(wire) => Some(wire.clone()),
                Out::Passed => Some(Wire(bytes.to_vec())),
                Out::Held(_) | Out::Dropped(_) => None,
            };
            if let Some(wire) = leaving {
                assert!(!wire.shows(&in_lan), "an address of the LAN leaves: {wire:?}");
            }
        }
        out
    }

    /// A packet from a device to the WAN.
    pub(crate) fn lan(&mut self, packet: &Packet) -> Out {
        self.at(Stage::ToWan(Origin::Lan), &packet.bytes())
    }

    /// A packet from the router itself to the WAN.
    pub(crate) fn router(&mut self, packet: &Packet) -> Out {
        self.at(Stage::ToWan(Origin::Router), &packet.bytes())
    }

    /// A packet from the WAN.
    pub(crate) fn wan(&mut self, packet: &Packet) -> Out {
        self.at(Stage::FromWan { local_socket: false }, &packet.bytes())
    }

    /// A packet from the WAN that a socket of the router, connected or bound to the WAN address, wants.
    pub(crate) fn wan_socket(&mut self, packet: &Packet) -> Out {
        self.at(Stage::FromWan { local_socket: true }, &packet.bytes())
    }

    /// A TCP packet for the router that no socket wants.
    pub(crate) fn unclaimed(&mut self, packet: &Packet) -> Out {
        self.at(Stage::Unclaimed, &packet.bytes())
    }

    /// The first pass of a packet from the LAN to the WAN address.
    pub(crate) fn hairpin_in(&mut self, packet: &Packet) -> Out {
        self.at(Stage::HairpinIn, &packet.bytes())
    }

    /// A packet from the LAN to the WAN address: both passes, if it takes two.
    pub(crate) fn across(&mut self, packet: &Packet) -> Out {
        match self.hairpin_in(packet) {
            Out::Sent(between) => {
                let admission = self.admission;
                let out = self.at(Stage::HairpinOut, &between.0);
                self.admission = admission;
                out
            }
            other @ (Out::Passed | Out::Held(_) | Out::Dropped(_)) => other,
        }
    }

    /// Lets `secs` seconds pass, calling the NAT's timer whenever it wants.
    pub(crate) fn advance(&mut self, secs: u64) {
        self.pass_time(Duration::from_secs(secs));
    }

    /// Lets time pass, calling the NAT's timer whenever it wants.
    pub(crate) fn pass_time(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.engine.poll_timeout().filter(|&next| next <= end) {
            self.now = next.max(self.now);
            self.engine.handle_timeout(self.now);
            assert!(self.engine.poll_timeout().is_none_or(|next| next > self.now), "a timeout in the past");
        }
        self.now = end;
        self.engine.handle_timeout(end);
    }

    /// Everything that the NAT wants done.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.engine.nat.poll_effect()).collect()
    }

    /// Carries everything out that the engine wants done; what must hold for every packet holds for those too.
    pub(crate) fn settle(&mut self) {
        for effect in self.effects() {
            let leaving = match effect {
                Effect::Release { hold, outcome } => {
                    let bytes = self.held.remove(&hold).unwrap();
                    match outcome {
                        Outcome::Forward(forward) => {
                            let mut changed = bytes.clone();
                            forward.carry_out(&mut changed, ChecksumState::Complete);
                            assert!(checksums_hold(&changed) || !checksums_hold(&bytes));
                            Some(changed)
                        }
                        // The router's own, on their way in.
                        Outcome::Pass | Outcome::Drop => None,
                    }
                }
                Effect::Transmit(bytes) => Some(bytes),
                Effect::Admit(admission) => {
                    assert_ne!(admission.original.src.addr, WAN);
                    None
                }
            };
            if let Some(wire) = leaving.map(Wire).filter(|wire| !in_lan(wire.dst().0)) {
                assert!(!wire.shows(&in_lan), "an address of the LAN leaves: {wire:?}");
            }
        }
    }

    /// How many packets are held.
    pub(crate) fn holds(&self) -> usize {
        self.held.len()
    }

    /// What became of the packets that were held: what was sent on, in order; `None` for one that was dropped.
    pub(crate) fn released(&mut self) -> Vec<Option<Wire>> {
        let effects = self.effects().into_iter();
        let released = effects.map(|effect| match effect {
            Effect::Release { hold, outcome } => {
                let mut bytes = self.held.remove(&hold).unwrap();
                match outcome {
                    Outcome::Forward(forward) => {
                        self.admission = forward.admission;
                        forward.carry_out(&mut bytes, ChecksumState::Complete);
                        assert!(checksums_hold(&bytes), "{:?}", Wire(bytes));
                        Some(Wire(bytes))
                    }
                    Outcome::Pass => Some(Wire(bytes)),
                    Outcome::Drop => None,
                }
            }
            Effect::Transmit(_) | Effect::Admit(_) => panic!("{effect:?}"),
        });
        released.collect()
    }

    /// The packets that the NAT wants sent; panics if it wants anything else. Their checksums are right.
    pub(crate) fn transmits(&mut self) -> Vec<Wire> {
        let effects = self.effects().into_iter();
        effects
            .map(|effect| match effect {
                Effect::Transmit(bytes) => {
                    assert!(checksums_hold(&bytes), "{:?}", Wire(bytes));
                    Wire(bytes)
                }
                Effect::Release { .. } | Effect::Admit(_) => panic!("{effect:?}"),
            })
            .collect()
    }

    /// How often `reason` was one.
    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.engine.nat.counters().drops().find(|&(r, _)| r == reason).map_or(0, |(_, n)| n)
    }

    /// How often `note` was counted.
    pub(crate) fn notes(&self, note: Note) -> u64 {
        self.engine.nat.counters().notes().find(|&(n, _)| n == note).map_or(0, |(_, n)| n)
    }

    /// Every session.
    pub(crate) fn sessions(&self) -> Vec<SessionView> {
        self.engine.nat.sessions(0, usize::MAX).0
    }

    /// The seconds that the only session still has.
    pub(crate) fn left(&self) -> u64 {
        let sessions = self.sessions();
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        sessions[0].deadline.since(self.now).as_secs()
    }

    /// A connection from `src` to `dst` over the port `external` is opened: the device stands at 101, the
    /// server at 501, nothing is in flight; windows are 60,000 bytes, unscaled.
    pub(crate) fn connect(&mut self, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> u16 {
        let port = self.lan(&tcp(src, dst).syn(100)).sent().src().1;
        self.wan(&tcp(dst, (WAN, port)).syn_ack(500, 101)).sent();
        self.lan(&tcp(src, dst).ack(101, 501)).sent();
        port
    }

    /// Tells on which ports the router listens.
    pub(crate) fn listen(&mut self, tcp: &[u16], udp: &[u16]) {
        let listeners = Listeners { tcp: tcp.iter().copied().collect(), udp: udp.iter().copied().collect() };
        self.engine.nat.set_listeners(listeners);
    }
}

/// Is `addr` one of the LAN's?
pub(crate) fn in_lan(addr: Ipv4Addr) -> bool {
    InterfaceAddress { addr: ROUTER, prefix: 24 }.contains(addr)
}

/// A port forward of the external ports `first..=last` to `host`, whose first port is `internal`.
pub(crate) fn forward(protocol: Protocol, first: u16, last: u16, host: Ipv4Addr, internal: u16) -> Forward {
    let external = PortRange::new(first, last).unwrap();
    Forward { protocol, external, host, internal_first: internal }
}

/// An endpoint as the code under test writes it.
pub(crate) fn endpoint((addr, port): (Ipv4Addr, u16)) -> Endpoint {
    Endpoint::new(addr, port)
}
