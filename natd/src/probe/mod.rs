//! `natd probe`: what a VPN server's packets come through, found by asking, without credentials.
//!
//! # Theory of operation
//!
//! ```text
//!  Probe::poll(now) → Send, Connect, Write, Close, Wait, Done     natd::io::probe does it
//!  Probe::packet(now, …), connected, refused, received, closed  ← and tells what came back
//!  Probe::report() → rows and findings                            show prints them
//! ```
//!
//! Every protocol has a first message that a server answers before it asks who is there: IKE_SA_INIT or main mode
//! (any answer will do, a refusal too), PPTP's control connection and LCP in its GRE, L2TP's SCCRQ, OpenVPN's hard
//! reset, TLS's ClientHello. ESP and GRE have none; for them [`ladder`] compares how far they come with how far UDP
//! 500 comes. WireGuard answers only those whose key it knows.
//!
//! An IKE answer carries a hash of the address and port that the server saw. Where it is not that of our own, there
//! is a NAT on the way (RFC 7296 section 2.23).
//!
//! Limits, so that no server minds: one packet a second, three of the ladder's; at most ten of a kind and sixteen of
//! each of the ladder's three kinds; nothing more of a kind once it is answered, but twice what an answer asks for:
//! another group, a cookie, or version 1 instead of 2; only to the server named; ports and SPIs of its own. At most four IKE messages leave a half-open session there: strongSwan ignores an address that
//! has five.

pub mod ike;
pub mod ladder;
pub mod show;

mod action;
mod answers;
mod bytes;
mod connections;
mod judge;
mod kind;
mod messages;
mod mtu;
mod rows;
mod sending;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use nat_core::time::Timestamp;

pub use action::{Action, Carrier, Cutting, Ending, Outgoing, Service, Slot, Target};
use bytes::Reader;
pub(crate) use connections::{Control, Failure, Tls};
use ike::Version;
pub use kind::{FRAGMENTED, Kind, LARGE};
use ladder::{Ladder, Lane};
use messages::L2tpAnswer;
pub use messages::Said;
use mtu::Search;
pub(crate) use rows::Nat;
pub use rows::{Found, ProbeReport, Row, Verdict};

/// Between two packets.
const PACE: Duration = Duration::from_secs(1);
/// Between two packets of the ladder.
const LADDER_PACE: Duration = Duration::from_millis(334);
/// Between two packets of a kind.
const AGAIN: Duration = Duration::from_secs(2);
/// So long nothing comes back before nothing is said to come: what "no answer" needs to be sure.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the last packet.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// The ladder begins without PPTP when that takes longer.
const LADDER_START: Duration = Duration::from_secs(25);
/// Everything ends then.
const LIMIT: Duration = Duration::from_secs(75);
/// Between two looks at the time.
const TICK: Duration = Duration::from_millis(100);
const TRIES: u8 = 3;
const TRIES_VERSION_ONE: u8 = 2;

/// What is known of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Packets, or connections.
    pub(crate) sent: u8,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Timestamp,
    /// An answer of the protocol itself came.
    pub(crate) answered: bool,
    /// Somebody said no, or that there is no way.
    pub(crate) said: Option<(IpAddr, Said)>,
    /// This machine could not send it.
    pub(crate) unsent: bool,
    pub(crate) done: bool,
    /// Sent once more because the server asked for something else.
    again: u8,
    told: bool,
}

/// Asks one address of a server.
#[derive(Debug)]
pub struct Probe {
    pub(crate) target: Target,
    seed: Seed,
    pub(crate) start: Option<Timestamp>,
    pub(crate) end: Timestamp,
    queue: VecDeque<Action>,
    asked: [Asked; Kind::ALL.len()],
    next_probe: Timestamp,
    next_step: Timestamp,
    pub(crate) ladder: Ladder,
    stepping: bool,
    pub(crate) search: Search,
    pub(crate) control: Control,
    pub(crate) tls: Tls,
    stream: Vec<u8>,
    pub(crate) group: u16,
    /// The version of IKE that the server answers.
    pub(crate) version: Option<Version>,
    pub(crate) answers: [Option<ike::Answer>; 2],
    pub(crate) nats: [Nat; 2],
    cookies: [Option<ike::Cookie>; 2],
    pub(crate) l2tp: Option<L2tpAnswer>,
    pub(crate) invalid_spi: bool,
    /// PPTP's GRE came in.
    pub(crate) gre_in: bool,
    told: VecDeque<Kind>,
}

/// Unpredictable numbers of one run.
#[derive(Clone, Debug)]
struct Seed {
    random: Vec<u8>,
    spi: u32,
    call: u16,
    tunnel: u16,
    echo: u16,
}

impl Seed {
    fn new(seed: [u8; 16]) -> Self {
        use sha1::{Digest, Sha1};
        let random: Vec<u8> = (0..20u8)
            .flat_map(|number| {
                <[u8; 20]>::from(Sha1::new().chain_update(seed).chain_update([number]).finalize())
            })
            .collect();
        let mut reader = Reader(&random);
        let mut number = || u32::from_be_bytes(reader.array().unwrap_or_default());
        let mut short = || u16::try_from(number() >> 16).unwrap_or(0);
        let (call, tunnel, echo) = (short(), short() | 1, short());
        // Not among those that are reserved (RFC 4303 section 2.1).
        let spi = number() | 0x0001_0000;
        Self { random, spi, call, tunnel, echo }
    }

    /// The initiator's SPI of one kind of IKE message.
    fn ike_spi(&self, kind: u8) -> [u8; 8] {
        let mut spi: [u8; 8] = self.random.last_chunk().copied().unwrap_or([1; 8]);
        let [first, .., last] = &mut spi;
        *first |= 1;
        *last = kind;
        spi
    }
}

impl Probe {
    /// Nothing sent yet. `seed` are bytes that nobody can guess.
    pub fn new(target: Target, seed: [u8; 16]) -> Self {
        let mtu = target.mtu;
        let six = target.server.is_ipv6();
        Self {
            target,
            seed: Seed::new(seed),
            start: None,
            end: Timestamp::ZERO,
            queue: VecDeque::new(),
            asked: Default::default(),
            next_probe: Timestamp::ZERO,
            next_step: Timestamp::ZERO,
            ladder: Ladder::new(),
            stepping: false,
            search: Search::new(mtu, six),
            control: Control::Waiting,
            tls: Tls::Waiting,
            stream: Vec::new(),
            group: ike::FIRST_GROUP,
            version: None,
            answers: [None; 2],
            nats: [Nat::Unknown; 2],
            cookies: [None; 2],
            l2tp: None,
            invalid_spi: false,
            gre_in: false,
            told: VecDeque::new(),
        }
    }

    /// What is to be done now. After every action it is to be asked again.
    pub fn poll(&mut self, now: Timestamp) -> Action {
        let start = *self.start.get_or_insert(now);
        self.end = self.end.max(now);
        if let Some(action) = self.queue.pop_front() {
            return action;
        }
        if now.since(start) >= LIMIT {
            for asked in &mut self.asked {
                asked.done = true;
            }
            self.tell();
            return Action::Done;
        }
        self.settle(now);
        if let Some(action) = self.queue.pop_front() {
            return action;
        }
        if now >= self.next_probe {
            if let Some(action) = self.ask(now) {
                self.next_probe = now + PACE;
                return action;
            }
        }
        if self.stepping && now >= self.next_step {
            if let Some((lane, ttl)) = self.ladder.step(now) {
                self.next_step = now + LADDER_PACE;
                return Action::Send(self.rung(lane, ttl));
            }
        }
        self.tell();
        if Kind::ALL.into_iter().all(|kind| self.of(kind).done) {
            return Action::Done;
        }
        Action::Wait(now + TICK)
    }

    /// A kind that is settled, each once.
    pub fn settled(&mut self) -> Option<Kind> {
        self.told.pop_front()
    }

    fn tell(&mut self) {
        for kind in Kind::ALL {
            let asked = self.of_mut(kind);
            if asked.done && !asked.told {
                asked.told = true;
                self.told.push_back(kind);
            }
        }
    }

    pub(crate) fn of(&self, kind: Kind) -> &Asked {
        const NOTHING: &Asked = &Asked {
            sent: 0,
            first: None,
            last: Timestamp::ZERO,
            answered: false,
            said: None,
            unsent: false,
            done: true,
            again: 0,
            told: true,
        };
        self.asked.get(kind as usize).unwrap_or(NOTHING)
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Asked {
        self.asked.get_mut(kind as usize).expect("it has as many places as there are kinds")
    }

    /// Decides what needs no packet: what has waited long enough, and what follows from something else.
    fn settle(&mut self, now: Timestamp) {
        for kind in Kind::ALL {
            let limit = self.limit(kind);
            let asked = self.of_mut(kind);
            let Some(first) = asked.first else { continue };
            let waited = now.since(first) >= PATIENCE && now.since(asked.last) >= LAST_PATIENCE;
            if !asked.done && asked.sent >= limit && waited {
                match kind {
                    Kind::Pptp => self.end_control(match self.control {
                        Control::Starting => Failure::Mute,
                        Control::Calling => Failure::NoCall,
                        Control::Waiting | Control::Call(_) | Control::Failed(_) => Failure::NoAnswer,
                    }),
                    Kind::Tls => {
                        let open = self.tls != Tls::Waiting;
                        self.end_tls(Tls::Failed(if open { Failure::Mute } else { Failure::NoAnswer }));
                    }
                    Kind::Ping
                    | Kind::Ike500
                    | Kind::Ike4500
                    | Kind::IkeLarge
                    | Kind::IkeFragmented
                    | Kind::PptpGre
                    | Kind::L2tp
                    | Kind::OpenVpn => asked.done = true,
                    Kind::Esp | Kind::Gre | Kind::WireGuard | Kind::Mtu => {}
                }
            }
        }
        // The large ones only where a small one is answered.
        let ike = [Kind::Ike500, Kind::Ike4500].map(|kind| *self.of(kind));
        if ike.iter().all(|asked| asked.done && !asked.answered) {
            self.of_mut(Kind::IkeLarge).done = true;
            self.of_mut(Kind::IkeFragmented).done = true;
        }
        self.of_mut(Kind::WireGuard).done = true;
        self.search.expire(now);
        let deaf = [Kind::Ping, Kind::Ike500, Kind::Ike4500].map(|kind| *self.of(kind));
        if deaf.iter().all(|asked| asked.done && !asked.answered) || self.search.done() {
            self.of_mut(Kind::Mtu).done = true;
        }
        if matches!(self.control, Control::Failed(_)) {
            self.of_mut(Kind::PptpGre).done = true;
        }
        let late = self.start.is_some_and(|start| now.since(start) >= LADDER_START);
        if !self.stepping && (self.of(Kind::PptpGre).done || late) {
            self.stepping = true;
            if self.of(Kind::PptpGre).answered {
                self.ladder.leave_out(Lane::Gre);
                self.hang_up();
            }
        }
        if self.ladder.done() {
            let esp = self.of_mut(Kind::Esp);
            if !esp.done {
                esp.done = true;
                self.of_mut(Kind::Gre).done = true;
                self.hang_up();
            }
        }
    }

    /// The next first message or repetition: of the kind whose last one is longest ago.
    fn ask(&mut self, now: Timestamp) -> Option<Action> {
        let ready = |kind: &Kind| {
            let asked = self.of(*kind);
            let again = asked.first.is_none() || now.since(asked.last) >= AGAIN;
            !asked.done && again && asked.sent < self.limit(*kind) && self.may(*kind, now)
        };
        let kind = Kind::ALL.into_iter().filter(ready).min_by_key(|kind| self.of(*kind).last)?;
        let asked = self.of_mut(kind);
        asked.sent += 1;
        asked.first.get_or_insert(now);
        asked.last = now;
        Some(match kind {
            Kind::Pptp => Action::Connect(Service::Pptp),
            Kind::Tls => Action::Connect(Service::Tls),
            Kind::Ping
            | Kind::Ike500
            | Kind::Ike4500
            | Kind::IkeLarge
            | Kind::IkeFragmented
            | Kind::Esp
            | Kind::Gre
            | Kind::PptpGre
            | Kind::L2tp
            | Kind::OpenVpn
            | Kind::WireGuard
            | Kind::Mtu => Action::Send(self.message(kind, now)),
        })
    }

    /// How many packets at most.
    fn limit(&self, kind: Kind) -> u8 {
        match kind {
            Kind::Ike500 | Kind::Ike4500 if self.version.is_none() => TRIES + TRIES_VERSION_ONE,
            Kind::Ping
            | Kind::Ike500
            | Kind::Ike4500
            | Kind::IkeLarge
            | Kind::IkeFragmented
            | Kind::PptpGre
            | Kind::L2tp
            | Kind::OpenVpn => TRIES,
            Kind::Pptp | Kind::Tls => 1,
            Kind::Mtu => Search::LIMIT,
            Kind::Esp | Kind::Gre | Kind::WireGuard => 0,
        }
    }

    /// Is its turn come?
    fn may(&self, kind: Kind, now: Timestamp) -> bool {
        match kind {
            Kind::IkeLarge | Kind::IkeFragmented => self.ike_port().is_some(),
            Kind::PptpGre => matches!(self.control, Control::Call(_)),
            Kind::Mtu => self.measures() && self.search.ready(now),
            // Where port 500 is silent, its turn comes first: it may know the version.
            Kind::Ike4500 => self.of(Kind::Ike500).sent > 0,
            Kind::Ping | Kind::Ike500 | Kind::Pptp | Kind::L2tp | Kind::OpenVpn | Kind::Tls => true,
            Kind::Esp | Kind::Gre | Kind::WireGuard => false,
        }
    }

    /// Is there something to measure the path's MTU with: pings, or IKE where those are not answered?
    pub(crate) fn measures(&self) -> bool {
        let ping = self.of(Kind::Ping);
        ping.answered || ping.done && self.ike_port().is_some() && !self.search.vain()
    }

    /// The port on which IKE is answered, 500 where both are or may yet be.
    pub(crate) fn ike_port(&self) -> Option<u16> {
        if self.of(Kind::Ike500).answered {
            return Some(500);
        }
        (self.of(Kind::Ike500).done && self.of(Kind::Ike4500).answered).then_some(4500)
    }

    pub(crate) fn port(&self, slot: Slot) -> u16 {
        self.target.ports.get(slot as usize).copied().unwrap_or(0)
    }

    fn kind_of(slot: Slot) -> Option<Kind> {
        match slot {
            Slot::Ike500 => Some(Kind::Ike500),
            Slot::Ike4500 => Some(Kind::Ike4500),
            Slot::Large => Some(Kind::IkeLarge),
            Slot::Fragmented => Some(Kind::IkeFragmented),
            Slot::L2tp => Some(Kind::L2tp),
            Slot::OpenVpn => Some(Kind::OpenVpn),
            Slot::Ladder | Slot::Mtu => None,
        }
    }
}

#[cfg(test)]
mod tests;
