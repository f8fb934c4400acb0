//! All devices and servers: who is who in a packet, which packets are the same one, and who is told.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::sighting::{Sighting, recognise_payload};
use passthrough::view::Phase;

use crate::code::Group;
use crate::finding::{Confidence, Finding, Findings, Mark};
use crate::observation::{Fragment, IcmpKind, IcmpReport, Observation, Passage, Point, TcpHead, Transport};
use crate::packet::Packet;
use crate::pair::Pair;
use crate::router::{Router, Vantage};
use crate::session::{Session, SessionEvent};
use crate::{dns, line, tls};

/// How the household is watched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Networks of the devices: address and length of the prefix. Empty: private addresses are devices'.
    pub lan: Vec<(IpAddr, u8)>,
    /// The most pairs of a device and a server that are remembered.
    pub pairs: usize,
    /// How long a pair is remembered after its last packet.
    pub memory: Duration,
    /// What can be seen.
    pub vantage: Vantage,
    /// Servers that the user named: whatever goes there is a VPN.
    pub servers: Vec<IpAddr>,
}

/// What a question is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The moment.
    pub now: Timestamp,
    /// Everything.
    pub household: &'a Household,
    /// The pair in question; `None` for what is not about one.
    pub pair: Option<&'a Pair>,
    /// What the router knows of itself.
    pub router: &'a Router,
    /// What can be seen.
    pub vantage: &'a Vantage,
}

impl<'a> Context<'a> {
    /// Other devices' pairs with the same server.
    pub fn others_to_server(&self) -> impl Iterator<Item = &'a Pair> {
        let pair = self.pair;
        self.household.pairs().filter(move |other| {
            pair.is_some_and(|pair| other.server == pair.server && other.device != pair.device)
        })
    }

    /// The same device's pairs with other servers.
    pub fn others_of_device(&self) -> impl Iterator<Item = &'a Pair> {
        let pair = self.pair;
        self.household.pairs().filter(move |other| {
            pair.is_some_and(|pair| other.device == pair.device && other.server != pair.server)
        })
    }
}

/// All devices and servers.
#[derive(Debug)]
pub struct Household {
    settings: Settings,
    /// What the router knows of itself; to be kept up to date by whoever runs on it.
    pub router: Router,
    /// TLS connections.
    pub tls: tls::Watch,
    /// DNS.
    pub dns: dns::Watch,
    pairs: BTreeMap<(IpAddr, IpAddr), Box<Pair>>,
    events: VecDeque<SessionEvent>,
    packets: u64,
    now: Timestamp,
    next_round: Timestamp,
    /// The last packet from any server to any device.
    heard: Option<Mark>,
}

/// How often sessions are looked at for what has changed, and old ones are forgotten.
const ROUND: Duration = Duration::from_secs(1);
/// Session events that wait for somebody to fetch them.
const EVENTS: usize = 256;

impl Household {
    /// An empty household.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            router: Router::default(),
            tls: tls::Watch::default(),
            dns: dns::Watch::default(),
            pairs: BTreeMap::new(),
            events: VecDeque::new(),
            packets: 0,
            now: Timestamp::ZERO,
            next_round: Timestamp::ZERO,
            heard: None,
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every pair, by device and server.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.values().map(|pair| &**pair)
    }

    /// How many packets were taken in.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The last packet from any server to any device.
    pub fn heard(&self) -> Option<Mark> {
        self.heard
    }

    /// The time of the last packet or [`Self::pass_time`].
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Is this a server that a VPN is likely run with, though a packet does not show it?
    pub fn is_vpn_server(&self, server: IpAddr) -> bool {
        self.settings.servers.contains(&server)
            || self.dns.names_vpn(server)
            || self.pairs().any(|pair| pair.server == server)
    }

    /// Takes in a packet, seen at `at` as number `number`, at `point`.
    pub fn packet(&mut self, at: Timestamp, number: u64, point: Point, packet: &Packet<'_>) {
        let _ = (number, point, packet);
        self.pass_time(at);
    }

    /// Time passed without a packet.
    pub fn pass_time(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// What is wrong at `now`, the most important first; `device` and `server` narrow it down.
    pub fn findings(&self, now: Timestamp, device: Option<IpAddr>, server: Option<IpAddr>) -> Vec<Finding> {
        let _ = (now, device, server);
        Vec::new()
    }

    /// Every session at `now`.
    pub fn sessions(&self, now: Timestamp) -> Vec<Session> {
        self.pairs().flat_map(|pair| pair.sessions(now)).collect()
    }

    /// The next thing that happened to a session.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }
}
