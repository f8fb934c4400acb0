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
//! each of the ladder's three kinds; nothing more of a kind once it is answered; only to the server named; ports and
//! SPIs of its own. At most four IKE messages leave a half-open session there: strongSwan ignores an address that
//! has five.

pub mod ike;
pub mod judge;
pub mod ladder;
pub mod show;

mod bytes;
mod messages;
mod mtu;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use nat_core::time::Timestamp;

use bytes::Reader;
use ike::{Init, Offer, Version};
pub use judge::{ProbeReport, Row, Verdict};
use ladder::{Ladder, Lane};
pub use messages::Said;
use messages::{Icmp, L2tpAnswer, PptpAnswer, Quoted};
use mtu::Search;

/// Which server is asked from where.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name, where it was named by one.
    pub name: Option<String>,
    /// The server.
    pub server: IpAddr,
    /// Our address on the way there.
    pub local: IpAddr,
    /// Of the interface on the way there, in bytes.
    pub mtu: u16,
    /// Is this machine a router?
    pub routes: bool,
    /// Our UDP ports, by [`Slot`].
    pub ports: [u16; Slot::COUNT],
}

/// What a UDP port of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// IKE to port 500.
    Ike500,
    /// IKE to port 4500.
    Ike4500,
    /// IKE in one large packet.
    Large,
    /// IKE in fragments.
    Fragmented,
    /// The ladder's UDP.
    Ladder,
    /// L2TP.
    L2tp,
    /// OpenVPN.
    OpenVpn,
}

impl Slot {
    /// How many there are.
    pub const COUNT: usize = 7;
    const ALL: [Self; Self::COUNT] =
        [Self::Ike500, Self::Ike4500, Self::Large, Self::Fragmented, Self::Ladder, Self::L2tp, Self::OpenVpn];
}

/// What a packet is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP from the port of this slot to the server's port.
    Udp(Slot, u16),
    /// IP protocol 50.
    Esp,
    /// IP protocol 47.
    Gre,
    /// ICMP.
    Icmp,
}

/// May a packet be cut on its way?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// It may.
    Allowed,
    /// It may not (DF).
    Forbidden,
}

/// A packet to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What it is sent in.
    pub carrier: Carrier,
    /// Its time to live, where it is not the usual one.
    pub hops: Option<u8>,
    /// May it be cut?
    pub cutting: Cutting,
    /// What the carrier carries.
    pub bytes: Vec<u8>,
}

/// A TCP service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// PPTP's control connection.
    Pptp,
    /// TLS, as SSTP and others use it.
    Tls,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Pptp, Self::Tls];

    /// Its port.
    pub const fn port(self) -> u16 {
        match self {
            Self::Pptp => 1723,
            Self::Tls => 443,
        }
    }
}

/// Why there is no connection, or none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was refused or reset.
    Reset,
    /// The server closed it.
    Closed,
    /// There is no way there.
    Unreachable,
    /// This machine forbids it.
    Forbidden,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Outgoing),
    /// Connect.
    Connect(Service),
    /// Write this to the connection.
    Write(Service, Vec<u8>),
    /// Close the connection, where there is one.
    Close(Service),
    /// Nothing until then, unless something comes.
    Wait(Timestamp),
    /// Nothing any more.
    Done,
}

/// Something that is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ICMP echo.
    Ping,
    /// IKE to UDP 500.
    Ike500,
    /// IKE to UDP 4500.
    Ike4500,
    /// IKE in one packet of [`LARGE`] bytes.
    IkeLarge,
    /// IKE in a packet of [`FRAGMENTED`] bytes.
    IkeFragmented,
    /// ESP.
    Esp,
    /// GRE.
    Gre,
    /// PPTP's control connection.
    Pptp,
    /// LCP in PPTP's GRE.
    PptpGre,
    /// L2TP.
    L2tp,
    /// OpenVPN over UDP.
    OpenVpn,
    /// WireGuard.
    WireGuard,
    /// TLS.
    Tls,
    /// The path's MTU.
    Mtu,
}

impl Kind {
    /// All of them, as they are shown.
    pub const ALL: [Self; 14] = [
        Self::Ping,
        Self::Ike500,
        Self::Ike4500,
        Self::IkeLarge,
        Self::IkeFragmented,
        Self::Esp,
        Self::Gre,
        Self::Pptp,
        Self::PptpGre,
        Self::L2tp,
        Self::OpenVpn,
        Self::WireGuard,
        Self::Tls,
        Self::Mtu,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Ike500 => "IKE, UDP 500",
            Self::Ike4500 => "IKE, UDP 4500",
            Self::IkeLarge => "IKE, 1,400 bytes",
            Self::IkeFragmented => "IKE, 1,600 bytes in fragments",
            Self::Esp => "ESP, protocol 50",
            Self::Gre => "GRE, protocol 47",
            Self::Pptp => "PPTP control, TCP 1723",
            Self::PptpGre => "PPTP data, GRE",
            Self::L2tp => "L2TP, UDP 1701",
            Self::OpenVpn => "OpenVPN, UDP 1194",
            Self::WireGuard => "WireGuard",
            Self::Tls => "TLS, TCP 443",
            Self::Mtu => "path MTU",
        }
    }

    /// For programs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Ike500 => "ike-500",
            Self::Ike4500 => "ike-4500",
            Self::IkeLarge => "ike-large",
            Self::IkeFragmented => "ike-fragmented",
            Self::Esp => "esp",
            Self::Gre => "gre",
            Self::Pptp => "pptp",
            Self::PptpGre => "pptp-gre",
            Self::L2tp => "l2tp",
            Self::OpenVpn => "openvpn",
            Self::WireGuard => "wireguard",
            Self::Tls => "tls",
            Self::Mtu => "mtu",
        }
    }
}

/// Size of the large IKE packet with its IP header, in bytes.
pub const LARGE: usize = 1400;
/// Size of the IKE packet in fragments with its IP header, in bytes.
pub const FRAGMENTED: usize = 1600;

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
    told: bool,
}

/// How PPTP's control connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Not connected yet.
    Waiting,
    /// Connected, SCCRQ sent.
    Starting,
    /// SCCRP came, OCRQ sent.
    Calling,
    /// OCRP came, with the server's Call ID.
    Call(u16),
    /// It went wrong.
    Failed(Failure),
}

/// What went wrong on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    NoAnswer,
    Ended(Ending),
    /// After it was open.
    Broken(Ending),
    /// Open, and nothing comes.
    Mute,
    /// Something else runs there.
    Foreign,
    /// SCCRP with this result.
    Start(u8),
    /// OCRP with this result.
    Call(u8),
    /// SCCRP, and no OCRP.
    NoCall,
}

/// How TLS goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    Waiting,
    /// Connected, ClientHello sent.
    Greeted,
    /// ServerHello, or an alert.
    Answered {
        alert: bool,
    },
    Failed(Failure),
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
        if self.of(Kind::Ping).done && !self.of(Kind::Ping).answered || self.search.done() {
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
            Kind::Mtu => self.of(Kind::Ping).answered && self.search.ready(now),
            // Where port 500 is silent, its turn comes first: it may know the version.
            Kind::Ike4500 => self.of(Kind::Ike500).sent > 0,
            Kind::Ping | Kind::Ike500 | Kind::Pptp | Kind::L2tp | Kind::OpenVpn | Kind::Tls => true,
            Kind::Esp | Kind::Gre | Kind::WireGuard => false,
        }
    }

    /// The port on which IKE is answered, 500 where both are or may yet be.
    pub(crate) fn ike_port(&self) -> Option<u16> {
        if self.of(Kind::Ike500).answered {
            return Some(500);
        }
        (self.of(Kind::Ike500).done && self.of(Kind::Ike4500).answered).then_some(4500)
    }

    fn message(&mut self, kind: Kind, now: Timestamp) -> Outgoing {
        let udp = |slot, port, bytes| Outgoing {
            carrier: Carrier::Udp(slot, port),
            hops: None,
            cutting: Cutting::Allowed,
            bytes,
        };
        let raw = |carrier, bytes| Outgoing { carrier, hops: None, cutting: Cutting::Allowed, bytes };
        let port = self.ike_port().unwrap_or(500);
        match kind {
            Kind::Ike500 => udp(Slot::Ike500, 500, self.init(Slot::Ike500, 500, kind, 0)),
            Kind::Ike4500 => udp(Slot::Ike4500, 4500, self.init(Slot::Ike4500, 4500, kind, 0)),
            Kind::IkeLarge => Outgoing {
                cutting: Cutting::Forbidden,
                ..udp(Slot::Large, port, self.init(Slot::Large, port, kind, LARGE))
            },
            Kind::IkeFragmented => {
                udp(Slot::Fragmented, port, self.init(Slot::Fragmented, port, kind, FRAGMENTED))
            }
            Kind::L2tp => udp(Slot::L2tp, 1701, messages::l2tp_start(self.seed.tunnel)),
            Kind::OpenVpn => udp(Slot::OpenVpn, 1194, messages::openvpn_reset(self.seed.ike_spi(0x0a))),
            Kind::PptpGre => {
                let call = if let Control::Call(call) = self.control { call } else { 0 };
                let sequence = u32::from(self.of(kind).sent.saturating_sub(1));
                raw(Carrier::Gre, messages::gre(call, sequence, 0))
            }
            Kind::Mtu => {
                let (number, size) = self.search.next(now);
                Outgoing { cutting: Cutting::Forbidden, ..raw(Carrier::Icmp, self.echo(number, size)) }
            }
            Kind::Ping | Kind::Esp | Kind::Gre | Kind::WireGuard | Kind::Pptp | Kind::Tls => {
                raw(Carrier::Icmp, self.echo(0, 84))
            }
        }
    }

    fn init(&self, slot: Slot, port: u16, kind: Kind, packet: usize) -> Vec<u8> {
        // Version 2 first; version 1 for servers that do not know it.
        let guess = if self.of(kind).sent > TRIES { Version::One } else { Version::Two };
        let version = self.version.unwrap_or(guess);
        let marker = if port == 4500 { 4 } else { 0 };
        let header = if self.target.server.is_ipv6() { 48 } else { 28 };
        let init = Init {
            version,
            spi: self.seed.ike_spi(kind as u8),
            offer: Offer::Usual { group: self.group },
            from: (self.target.local, self.port(slot)),
            to: (self.target.server, port),
            length: packet.saturating_sub(header + marker),
            random: &self.seed.random,
        };
        let mut bytes = vec![0; marker];
        bytes.extend(init.bytes());
        bytes
    }

    fn echo(&self, number: u16, packet: u16) -> Vec<u8> {
        let (header, kind) = if self.target.server.is_ipv6() { (40, 128) } else { (20, 8) };
        let mut out = vec![kind, 0, 0, 0];
        out.extend(self.seed.echo.to_be_bytes());
        out.extend(number.to_be_bytes());
        out.resize(usize::from(packet).saturating_sub(header).max(8), 0x6e);
        // Of IPv6 the kernel writes it.
        if kind == 8 {
            let sum = checksum(&out);
            if let Some(place) = out.get_mut(2..4) {
                place.copy_from_slice(&sum.to_be_bytes());
            }
        }
        out
    }

    /// A packet of the ladder. Its kind and time to live show in its first eight bytes, which errors quote.
    fn rung(&self, lane: Lane, ttl: u8) -> Outgoing {
        let (carrier, bytes) = match lane {
            Lane::Udp => (Carrier::Udp(Slot::Ladder, 500), self.ladder_init(ttl)),
            Lane::Esp => (Carrier::Esp, messages::esp(self.seed.spi, u32::from(ttl), &self.seed.random)),
            Lane::Gre => (Carrier::Gre, messages::gre(self.ladder_call(), 0, ttl)),
        };
        Outgoing { carrier, hops: Some(ttl), cutting: Cutting::Allowed, bytes }
    }

    fn ladder_call(&self) -> u16 {
        if let Control::Call(call) = self.control { call } else { self.seed.call }
    }

    fn ladder_init(&self, ttl: u8) -> Vec<u8> {
        let mut init = Init {
            version: self.version.unwrap_or(Version::Two),
            spi: self.seed.ike_spi(0x80 | ttl),
            offer: Offer::Unknown,
            from: (self.target.local, self.port(Slot::Ladder)),
            to: (self.target.server, 500),
            length: 0,
            random: &self.seed.random,
        };
        // The shortest padding is six bytes.
        init.length = init.bytes().len() + 6 + usize::from(ttl);
        init.bytes()
    }

    pub(crate) fn port(&self, slot: Slot) -> u16 {
        self.target.ports.get(slot as usize).copied().unwrap_or(0)
    }

    /// The packet of the last action could not be sent from this machine: it is larger than the interface carries
    /// (`TooBig`), or not allowed (`Prohibited`), or there is no way (`Unreachable`).
    pub fn unsent(&mut self, now: Timestamp, carrier: Carrier, said: Said) {
        let kind = match carrier {
            Carrier::Udp(slot, _) => Self::kind_of(slot),
            Carrier::Esp => Some(Kind::Esp),
            Carrier::Gre => (!self.stepping).then_some(Kind::PptpGre),
            Carrier::Icmp => Some(if self.of(Kind::Ping).done { Kind::Mtu } else { Kind::Ping }),
        };
        if let (Some(Kind::Mtu), Said::TooBig(_)) = (kind, said) {
            self.search.too_big(now, None);
            return;
        }
        let local = self.target.local;
        match kind {
            Some(Kind::Esp) => self.ladder.refused(Lane::Esp, 1, local, said),
            Some(kind) => {
                let asked = self.of_mut(kind);
                asked.unsent = true;
                asked.said = Some((local, said));
                asked.done = true;
            }
            None if carrier == Carrier::Gre => self.ladder.refused(Lane::Gre, 1, local, said),
            None => self.ladder.refused(Lane::Udp, 1, local, said),
        }
    }

    fn kind_of(slot: Slot) -> Option<Kind> {
        match slot {
            Slot::Ike500 => Some(Kind::Ike500),
            Slot::Ike4500 => Some(Kind::Ike4500),
            Slot::Large => Some(Kind::IkeLarge),
            Slot::Fragmented => Some(Kind::IkeFragmented),
            Slot::L2tp => Some(Kind::L2tp),
            Slot::OpenVpn => Some(Kind::OpenVpn),
            Slot::Ladder => None,
        }
    }

    /// A packet came: who sent it, its IP protocol, and what follows the IP header.
    pub fn packet(&mut self, now: Timestamp, from: IpAddr, protocol: u8, bytes: &[u8]) {
        let ours = from == self.target.server;
        match protocol {
            17 if ours => self.udp(now, bytes),
            47 if ours => self.gre(now, bytes),
            1 | 58 => match messages::icmp(protocol == 58, bytes) {
                Some(Icmp::Echo { id, sequence }) if ours && id == self.seed.echo => {
                    if sequence == 0 {
                        self.answered(Kind::Ping);
                    } else {
                        self.search.answered(now, sequence);
                    }
                }
                Some(Icmp::Error { said, to, quoted }) if to == self.target.server => {
                    self.error(now, from, said, quoted);
                }
                Some(Icmp::Echo { .. } | Icmp::Error { .. }) | None => {}
            },
            _ => {}
        }
    }

    fn answered(&mut self, kind: Kind) {
        let asked = self.of_mut(kind);
        if asked.sent > 0 {
            asked.answered = true;
            asked.done = true;
        }
    }

    fn udp(&mut self, _now: Timestamp, bytes: &[u8]) {
        let mut reader = Reader(bytes);
        let Some([from, to, _, _]) = reader.array::<8>().map(|header| {
            let [a, b, c, d, ..] = header;
            [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), 0, 0]
        }) else {
            return;
        };
        let payload = reader.0;
        let message = if from == 4500 { payload.strip_prefix(&[0; 4]).unwrap_or_default() } else { payload };
        if matches!(from, 500 | 4500) {
            let Some(answer) = ike::answer(message) else { return };
            if answer.invalid_spi == Some(self.seed.spi) {
                self.invalid_spi = true;
                for ttl in 1..=ladder::HOPS {
                    // Which of them it was cannot be told; the one that went farthest at most.
                    if self.ladder.heard() < ttl {
                        self.ladder.arrived(Lane::Esp, ttl);
                        break;
                    }
                }
                return;
            }
            self.ike(to, answer);
            return;
        }
        if from == 1701 && to == self.port(Slot::L2tp) {
            if let Some(answer) = messages::l2tp_answer(payload) {
                if let (L2tpAnswer::Open { theirs }, None) = (answer, self.l2tp) {
                    self.queue.push_back(Action::Send(Outgoing {
                        carrier: Carrier::Udp(Slot::L2tp, 1701),
                        hops: None,
                        cutting: Cutting::Allowed,
                        bytes: messages::l2tp_stop(self.seed.tunnel, theirs),
                    }));
                }
                self.l2tp.get_or_insert(answer);
                self.answered(Kind::L2tp);
            }
        } else if from == 1194 && to == self.port(Slot::OpenVpn) && messages::is_openvpn_answer(payload) {
            self.answered(Kind::OpenVpn);
        }
    }

    fn ike(&mut self, to: u16, answer: ike::Answer) {
        let Some(slot) = Slot::ALL.into_iter().find(|slot| self.port(*slot) == to) else { return };
        let [.., number] = answer.initiator;
        let Some(kind) = Self::kind_of(slot) else {
            let ttl = number & 0x7f;
            if answer.initiator == self.seed.ike_spi(0x80 | ttl) {
                self.ladder.arrived(Lane::Udp, ttl);
            }
            return;
        };
        if answer.initiator != self.seed.ike_spi(kind as u8) || self.of(kind).sent == 0 {
            return;
        }
        let version = if answer.major == 1 { Version::One } else { Version::Two };
        // A server that knows only version 1 may answer version 2 with a refusal: the same version then.
        self.version.get_or_insert(version);
        let first = !self.of(kind).answered;
        if first {
            let [five, four] = &mut self.answers;
            if kind == Kind::Ike500 {
                *five = Some(answer);
            } else if kind == Kind::Ike4500 {
                *four = Some(answer);
            }
        }
        // With another group it says from where it saw us come. Once.
        let other = answer.group.filter(|group| *group != self.group && ike::knows(*group));
        if let (Some(group), true, Kind::Ike500 | Kind::Ike4500) = (other, first, kind) {
            self.group = group;
            let asked = self.of_mut(kind);
            asked.answered = true;
            asked.sent += 1;
            let message = self.message_again(kind);
            self.queue.push_back(Action::Send(message));
        } else if answer.destination_hash.is_some() && matches!(kind, Kind::Ike500 | Kind::Ike4500) {
            // The answer to that.
            let [five, four] = &mut self.answers;
            let before = if kind == Kind::Ike4500 { four } else { five };
            if let Some(before) = before.as_mut().filter(|before| before.destination_hash.is_none()) {
                *before = answer;
            }
        }
        self.answered(kind);
    }

    fn message_again(&mut self, kind: Kind) -> Outgoing {
        self.message(kind, self.end)
    }

    fn gre(&mut self, _now: Timestamp, bytes: &[u8]) {
        let ours = messages::gre_call(bytes).is_some_and(|(call, _)| call == self.seed.call);
        if !ours || !matches!(self.control, Control::Calling | Control::Call(_)) {
            return;
        }
        // Servers send LCP of their own accord: it shows the way in, not the way out.
        self.gre_in = true;
        if messages::gre_answers(bytes) {
            self.answered(Kind::PptpGre);
            if self.stepping {
                self.ladder.arrived(Lane::Gre, self.ladder.heard() + 1);
            }
        }
    }

    fn error(&mut self, now: Timestamp, from: IpAddr, said: Said, quoted: Quoted) {
        let server = from == self.target.server;
        let (lane, ttl) = match quoted {
            Quoted::Udp { from: port, length } if port == self.port(Slot::Ladder) => {
                let lengths =
                    (1..=ladder::HOPS).find(|ttl| self.ladder_init(*ttl).len() + 8 == usize::from(length));
                (Lane::Udp, lengths)
            }
            Quoted::Esp { spi, sequence } if spi == self.seed.spi => (Lane::Esp, u8::try_from(sequence).ok()),
            Quoted::Gre { call, length } if call == self.ladder_call() && self.stepping => {
                let plain = messages::gre(call, 0, 0).len() - 12;
                let filler = usize::from(length).checked_sub(plain + 6);
                (Lane::Gre, filler.and_then(|filler| u8::try_from(filler).ok()))
            }
            Quoted::Gre { .. } => return self.refused(Kind::PptpGre, from, said),
            Quoted::Tcp { to } if to == Service::Pptp.port() => {
                return self.of_mut(Kind::Pptp).said = Some((from, said));
            }
            Quoted::Tcp { to } if to == Service::Tls.port() => {
                return self.of_mut(Kind::Tls).said = Some((from, said));
            }
            Quoted::Echo { id, sequence } if id == self.seed.echo => {
                return match said {
                    Said::TooBig(mtu) if sequence > 0 => {
                        let hop =
                            self.ladder.routers().find(|(_, router)| *router == from).map(|(hop, _)| hop);
                        self.search.told(from, hop);
                        self.search.too_big(now, mtu);
                    }
                    Said::TimeExceeded
                    | Said::NoPort
                    | Said::NoProtocol
                    | Said::Prohibited
                    | Said::Unreachable
                    | Said::TooBig(_) => self.refused(Kind::Ping, from, said),
                };
            }
            Quoted::Udp { from: port, .. } => {
                let slot = Slot::ALL.into_iter().find(|slot| self.port(*slot) == port);
                if let Some(kind) = slot.and_then(Self::kind_of) {
                    self.refused(kind, from, said);
                }
                return;
            }
            Quoted::Esp { .. } | Quoted::Tcp { .. } | Quoted::Echo { .. } => return,
        };
        let Some(ttl) = ttl else { return };
        match said {
            Said::TimeExceeded => self.ladder.passed(lane, ttl, from),
            Said::NoPort | Said::NoProtocol | Said::Prohibited | Said::Unreachable if server => {
                self.ladder.arrived(lane, ttl);
            }
            Said::NoPort | Said::NoProtocol | Said::Prohibited | Said::Unreachable => {
                self.ladder.refused(lane, ttl, from, said);
            }
            Said::TooBig(_) => {}
        }
    }

    fn refused(&mut self, kind: Kind, from: IpAddr, said: Said) {
        let asked = self.of_mut(kind);
        if asked.sent > 0 && !asked.answered {
            asked.said = Some((from, said));
            // A server may answer a call before it listens for its GRE.
            asked.done = kind != Kind::PptpGre;
        }
    }

    /// The connection is open.
    pub fn connected(&mut self, now: Timestamp, service: Service) {
        match service {
            Service::Pptp if self.control == Control::Waiting => {
                self.control = Control::Starting;
                self.again(now, Kind::Pptp);
                self.queue.push_back(Action::Write(service, messages::pptp_start()));
            }
            Service::Tls if self.tls == Tls::Waiting => {
                self.tls = Tls::Greeted;
                self.again(now, Kind::Tls);
                let hello = messages::client_hello(self.target.name.as_deref(), &self.seed.random);
                self.queue.push_back(Action::Write(service, hello));
            }
            Service::Pptp | Service::Tls => {}
        }
    }

    /// Patience begins again.
    fn again(&mut self, now: Timestamp, kind: Kind) {
        let asked = self.of_mut(kind);
        (asked.first, asked.last) = (Some(now), now);
    }

    /// Bytes came on the connection.
    pub fn received(&mut self, now: Timestamp, service: Service, bytes: &[u8]) {
        match (service, self.tls) {
            (Service::Tls, Tls::Greeted) => {
                let answer = match bytes.first() {
                    Some(22) => Tls::Answered { alert: false },
                    Some(21) => Tls::Answered { alert: true },
                    _ => Tls::Failed(Failure::Foreign),
                };
                self.of_mut(Kind::Tls).answered = true;
                self.end_tls(answer);
            }
            (Service::Tls, _) => {}
            (Service::Pptp, _) => {
                let room = 2048usize.saturating_sub(self.stream.len());
                self.stream.extend(bytes.iter().take(room));
                self.control_messages(now);
            }
        }
    }

    fn control_messages(&mut self, now: Timestamp) {
        loop {
            let message = match messages::pptp_answer(&mut self.stream) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(()) => {
                    self.stream.clear();
                    return self.end_control(Failure::Foreign);
                }
            };
            match (self.control, message) {
                (Control::Starting, PptpAnswer::Start(1)) => {
                    self.of_mut(Kind::Pptp).answered = true;
                    self.control = Control::Calling;
                    self.again(now, Kind::Pptp);
                    self.queue.push_back(Action::Write(Service::Pptp, messages::pptp_call(self.seed.call)));
                }
                (Control::Starting, PptpAnswer::Start(result)) => self.end_control(Failure::Start(result)),
                (Control::Calling, PptpAnswer::Call { id, result: 1 }) => {
                    self.control = Control::Call(id);
                    self.of_mut(Kind::Pptp).done = true;
                }
                (Control::Calling, PptpAnswer::Call { result, .. }) => {
                    self.end_control(Failure::Call(result));
                }
                _ => {}
            }
        }
    }

    /// The connection could not be made (`open` is false) or has ended.
    pub fn closed(&mut self, service: Service, open: bool, ending: Ending) {
        let failure = if open { Failure::Broken(ending) } else { Failure::Ended(ending) };
        match service {
            Service::Pptp => match self.control {
                Control::Waiting | Control::Starting | Control::Calling => self.end_control(failure),
                // The server gave up on a call without LCP; GRE has been asked.
                Control::Call(_) | Control::Failed(_) => {}
            },
            Service::Tls => match self.tls {
                Tls::Waiting | Tls::Greeted => self.end_tls(Tls::Failed(failure)),
                Tls::Answered { .. } | Tls::Failed(_) => {}
            },
        }
    }

    fn end_control(&mut self, failure: Failure) {
        let answered = matches!(failure, Failure::Start(_) | Failure::Call(_) | Failure::NoCall);
        let asked = self.of_mut(Kind::Pptp);
        asked.answered |= answered;
        asked.done = true;
        if answered {
            self.queue.push_back(Action::Write(Service::Pptp, messages::pptp_stop()));
        }
        self.queue.push_back(Action::Close(Service::Pptp));
        self.control = Control::Failed(failure);
    }

    /// Ends a call in good order.
    fn hang_up(&mut self) {
        if let Control::Call(_) = self.control {
            for message in [messages::pptp_clear(self.seed.call), messages::pptp_stop()] {
                self.queue.push_back(Action::Write(Service::Pptp, message));
            }
            self.queue.push_back(Action::Close(Service::Pptp));
        }
    }

    fn end_tls(&mut self, state: Tls) {
        self.tls = state;
        self.of_mut(Kind::Tls).done = true;
        self.queue.push_back(Action::Close(Service::Tls));
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}

#[cfg(test)]
mod tests;
