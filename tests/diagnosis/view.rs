//! Watching: which packets somebody sees from where he stands, and what the household makes of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use diagnosis::{Confidence, Group};
use diagnosis::{Finding, Household, Packet, Point, Session, SessionEvent, Settings, Vantage};
use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::view::{Phase, Vpn};

use crate::net::{Dice, Place, Sight};

/// From where the packets are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// natd, by the filtered copies of both sides.
    Live,
    /// natd with a tap on the LAN only.
    LiveLan,
    /// A capture on the LAN, everything in it.
    CaptureLan,
    /// A capture on a bridge: everything twice.
    CaptureBridge,
    /// A capture cut off behind 128 bytes of each packet.
    CaptureCut,
    /// A capture on all interfaces of the router.
    CaptureBoth,
    /// A capture on the WAN.
    CaptureWan,
}

impl View {
    pub(crate) const ALL: [Self; 7] = [
        Self::Live,
        Self::LiveLan,
        Self::CaptureLan,
        Self::CaptureBridge,
        Self::CaptureCut,
        Self::CaptureBoth,
        Self::CaptureWan,
    ];

    pub(crate) const fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::LiveLan)
    }

    pub(crate) const fn sees(self, place: Place) -> bool {
        match place {
            Place::Lan => !matches!(self, Self::CaptureWan),
            Place::Wan => matches!(self, Self::Live | Self::CaptureBoth | Self::CaptureWan),
        }
    }

    fn household(self) -> Household {
        let (lan, wan) = (self.sees(Place::Lan), self.sees(Place::Wan));
        let live = self.is_live();
        let networks =
            vec![(IpAddr::from([192, 168, 1, 0]), 24), (IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0]), 64)];
        let mut household = Household::new(Settings {
            lan: if live { networks } else { Vec::new() },
            pairs: 512,
            memory: Duration::from_secs(3600),
            vantage: Vantage { lan, wan, router: live, dns: lan },
            servers: Vec::new(),
            events: true,
        });
        if live {
            household.router.own = vec![[192, 168, 1, 1].into()];
            household.router.wan = vec![[203, 0, 113, 5].into()];
            household.router.wan_up = Some(true);
            (household.router.ipsec, household.router.pptp) = (Some(true), Some(true));
            (household.router.l2tp, household.router.multi) = (Some(true), Some(true));
            household.router.timeouts =
                Some(diagnosis::router::Timeouts { udp: 300, esp: 600, gre: 600, tcp: 7440 });
        }
        household
    }
}

/// What is learnt in the course of a conversation.
#[derive(Debug)]
pub(crate) struct Told {
    /// The findings at every moment that was asked about, in seconds; Notes aside.
    pub(crate) findings: Vec<(u64, Vec<Finding>)>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) events: Vec<SessionEvent>,
    pub(crate) wrong: Vec<String>,
}

impl Told {
    /// Codes of the last answer.
    pub(crate) fn last(&self) -> Vec<&'static str> {
        let mut codes: Vec<_> = self
            .findings
            .last()
            .map(|(_, list)| list.iter().map(|f| f.code.name()).collect())
            .unwrap_or_default();
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// Everything that was ever found, and when.
    pub(crate) fn ever(&self) -> BTreeMap<&'static str, (u64, u64, Confidence)> {
        let mut ever = BTreeMap::new();
        for (second, list) in &self.findings {
            for finding in list {
                let entry = ever.entry(finding.code.name()).or_insert((*second, *second, finding.confidence));
                entry.1 = *second;
                entry.2 = entry.2.max(finding.confidence);
            }
        }
        ever
    }
}

/// What else happens: at this second the router learns something.
pub(crate) type Happening<'a> = &'a dyn Fn(u64, &mut Household);

/// Of conversations that last longer, in seconds, every moment is not asked about.
const LONG: u64 = 1200;

/// Lets the household see it, asks every second (every 15 s where it lasts long), and goes on asking for `after`
/// seconds.
pub(crate) fn watch(view: View, sights: &[Sight], after: u64, seed: u64, happens: Happening<'_>) -> Told {
    let mut dice = Dice(seed);
    let mut household = view.household();
    let mut seen: Vec<Sight> = Vec::new();
    for sight in sights.iter().filter(|sight| view.sees(sight.place)) {
        let mut sight = sight.clone();
        match view {
            View::Live | View::LiveLan => match copied(&sight.bytes, &mut dice) {
                Some(length) => sight.bytes.truncate(length),
                None => continue,
            },
            View::CaptureCut => sight.bytes.truncate(128),
            View::CaptureBridge => {
                seen.push(Sight { at: sight.at + dice.between(4, 40), ..sight.clone() });
            }
            View::CaptureLan | View::CaptureBoth | View::CaptureWan => {}
        }
        seen.push(sight);
    }
    // Two taps are read in turn: one side may be heard of a little later than it was seen.
    let late = if view == View::Live { 3_000 * (seed % 2) } else { 0 };
    seen.sort_by_cached_key(|sight| sight.at + if sight.place == Place::Wan { late } else { 0 });
    let end = seen.last().map_or(0, |sight| sight.at) / 1_000_000 + after;
    let mut told = Told { findings: Vec::new(), sessions: Vec::new(), events: Vec::new(), wrong: Vec::new() };
    let mut packets = seen.iter().enumerate().peekable();
    let step = if end > LONG { 15 } else { 1 };
    let end = end.next_multiple_of(step);
    for second in (0..=end).step_by(usize::try_from(step).unwrap()) {
        let limit = second * 1_000_000;
        while let Some((nth, sight)) = packets.next_if(|(_, sight)| sight.at < limit) {
            let Some(packet) = Packet::parse(&sight.bytes) else { panic!("unreadable: {:x?}", sight.bytes) };
            let (point, direction) = match (view.is_live(), sight.place, sight.outbound) {
                (false, ..) => (Point::Unknown, None),
                (true, Place::Lan, outbound) => (Point::Lan, Some(way(outbound))),
                (true, Place::Wan, outbound) => (Point::Wan, Some(way(outbound))),
            };
            let number = u64::try_from(nth).unwrap() + 1;
            household.packet(Timestamp::from_micros(sight.at), number, point, direction, &packet);
        }
        happens(second, &mut household);
        let now = Timestamp::from_micros(limit);
        household.pass_time(now);
        let mut list = household.findings(now, None, None);
        list.retain(|finding| finding.code.group() != Group::Note);
        told.findings.push((second, list));
        while let Some(event) = household.poll_event() {
            told.events.push(event);
        }
    }
    told.sessions = household.sessions(Timestamp::from_micros(end * 1_000_000));
    sessions_are_sound(&mut told);
    told
}

const fn way(outbound: bool) -> Direction {
    if outbound { Direction::Outbound } else { Direction::Inbound }
}

/// How much of a packet the live filter copies; the table at the head of natd's filter.
fn copied(bytes: &[u8], dice: &mut Dice) -> Option<usize> {
    const HEAD: usize = 128;
    const PART: usize = 600;
    let packet = Packet::parse(bytes)?;
    let payload = packet.payload;
    if packet.fragment == diagnosis::Fragment::Later {
        return (packet.protocol == 17).then_some(64);
    }
    let word = |at: usize| payload.get(at..at + 4).map_or(0, |b| u32::from_be_bytes(b.try_into().unwrap()));
    let numbered = |number: u32| (number < 64 || number % 64 == 0).then_some(HEAD);
    let port = |at: usize| word(at & !3) >> if at & 2 == 0 { 16 } else { 0 } & 0xffff;
    match packet.protocol {
        6 => {
            let flags = payload[13];
            let body = payload.get(20..).unwrap_or_default();
            let (src, dst) = (word(0) >> 16, word(0) & 0xffff);
            let of = |port| src == port || dst == port;
            if flags & 7 != 0 || of(1723) || body.first().is_some_and(|kind| matches!(kind, 21 | 22)) {
                Some(PART)
            } else if of(1194) {
                let control = body.get(2).is_some_and(|byte| !matches!(byte >> 3, 6 | 9));
                (control || dice.one_in(32)).then_some(PART)
            } else {
                None
            }
        }
        17 => {
            let (src, dst) = (port(0), port(2));
            let of = |port| src == port || dst == port;
            let body = payload.get(8..).unwrap_or_default();
            if of(53) || of(500) {
                Some(bytes.len())
            } else if of(4500) {
                if body.len() < 8 || body[..4] == [0; 4] { Some(bytes.len()) } else { numbered(word(12)) }
            } else if of(1701) {
                if body[0] & 0x80 != 0 { Some(bytes.len()) } else { dice.one_in(32).then_some(HEAD) }
            } else if body.first() == Some(&4) && body.get(1..4) == Some(&[0; 3]) {
                let counter = u64::from_le_bytes(body[8..16].try_into().unwrap());
                (counter < 64 || counter % 64 == 0 || body.len() == 32).then_some(HEAD)
            } else if body.first().is_some_and(|kind| matches!(kind, 1..=3))
                && body.get(1..4) == Some(&[0; 3])
            {
                Some(bytes.len())
            } else if of(1194) {
                let data = matches!(body[0] >> 3, 6 | 9);
                (!data || dice.one_in(32)).then_some(PART)
            } else {
                None
            }
        }
        47 => {
            let ppp = payload.get(if payload[1] & 0x80 != 0 { 16 } else { 12 }..).unwrap_or_default();
            let ppp = ppp.strip_prefix(&[0xff, 3]).unwrap_or(ppp);
            let control =
                payload[0] & 0x10 != 0 && ppp.first().is_some_and(|byte| matches!(byte, 0x80..=0xcf));
            if control { Some(PART) } else { numbered(word(8)) }
        }
        50 => numbered(word(4)),
        51 => numbered(word(8)),
        1 | 58 => Some(bytes.len()),
        _ => None,
    }
}

/// Sessions begin once, go forwards and end once, and everything is told of once.
fn sessions_are_sound(told: &mut Told) {
    let mut last: BTreeMap<(IpAddr, IpAddr, String, u32), Phase> = BTreeMap::new();
    for event in &told.events {
        let session = &event.session;
        let name = format!("{:?}", family(session.vpn));
        let key = (session.device, session.server, name, session.attempt);
        let before = last.insert(key.clone(), session.phase);
        let mut wrong = |what: &str| {
            told.wrong
                .push(format!("{what}: {key:?} {:?} -> {:?} at {:?}", event.before, session.phase, event.at));
        };
        if event.before != before {
            wrong("told out of turn");
        }
        if before == Some(session.phase) {
            wrong("told twice");
        }
        if before.is_some() && session.phase == Phase::Handshake {
            wrong("backwards");
        }
        if before == Some(Phase::Closed) {
            wrong("after its end");
        }
        if (session.phase == Phase::Closed) == session.reason.is_empty() {
            wrong("a reason without end, or an end without reason");
        }
    }
}

pub(crate) const fn family(vpn: Vpn) -> Vpn {
    match vpn {
        Vpn::Ike | Vpn::NatTraversal | Vpn::Esp => Vpn::Ike,
        Vpn::L2tp | Vpn::L2tpV3 => Vpn::L2tp,
        Vpn::Pptp => Vpn::Pptp,
        Vpn::Gre => Vpn::Gre,
        Vpn::OpenVpn => Vpn::OpenVpn,
        Vpn::WireGuard => Vpn::WireGuard,
    }
}
