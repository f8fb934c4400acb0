//! How far packets of three kinds come: each is sent with a time to live of 1, 2, 3 …, and the routers where it is
//! over say so. A router that says so for one kind and not for another has not got the other.
//!
//! ```text
//!  we ── r1 ── r2 ── r3 ── server        r2 drops ESP when it forwards:  UDP 1 2 3 server, ESP 1 2 – –
//!                                        r2 drops ESP as it comes in:    UDP 1 2 3 server, ESP 1 – – –
//! ```
//!
//! So ESP is lost at or just after the last hop that answered for it, whichever way that hop drops. A hop that is
//! silent for all kinds shows nothing, and the server's own silence shows nothing either: few servers answer ESP that
//! they have no key for.

use std::net::IpAddr;
use std::time::Duration;

use nat_core::time::Timestamp;

use super::messages::Said;

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// UDP to port 500.
    Udp,
    /// ESP.
    Esp,
    /// PPTP's GRE.
    Gre,
}

const LANES: [Lane; 3] = [Lane::Udp, Lane::Esp, Lane::Gre];
/// The farthest hop, and the most packets of a kind.
pub(super) const HOPS: u8 = 16;
/// So many hops that say nothing end the search.
const SILENT_HOPS: u8 = 4;
const TRIES: u8 = 3;
/// The server is asked once more, not twice.
const SERVER_TRIES: u8 = 2;
/// How long an answer is waited for before the next try.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came back for one kind with one time to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Echoed {
    tries: u8,
    /// Here its time was over.
    router: Option<IpAddr>,
    server: bool,
    /// Somebody else than the server does not let it pass.
    refused: Option<(IpAddr, Said)>,
}

impl Echoed {
    fn silent(&self) -> bool {
        self.router.is_none() && !self.server && self.refused.is_none()
    }
}

#[derive(Clone, Debug, Default)]
struct Track {
    off: bool,
    sent: u8,
    hops: [Echoed; HOPS as usize],
}

impl Track {
    fn hop(&self, ttl: u8) -> Option<&Echoed> {
        self.hops.get(usize::from(ttl).checked_sub(1)?)
    }

    /// With each time to live.
    fn all(&self) -> impl DoubleEndedIterator<Item = (u8, &Echoed)> {
        // Sixteen of them.
        self.hops.iter().enumerate().map(|(at, hop)| (u8::try_from(at + 1).unwrap_or(HOPS), hop))
    }

    /// The farthest router that answered; 0: none.
    fn last(&self) -> u8 {
        self.all().rev().find(|(_, hop)| hop.router.is_some()).map_or(0, |(ttl, _)| ttl)
    }

    fn server(&self) -> Option<u8> {
        self.all().find(|(_, hop)| hop.server).map(|(ttl, _)| ttl)
    }

    fn refused(&self) -> Option<(u8, IpAddr, Said)> {
        self.all().find_map(|(ttl, hop)| hop.refused.map(|(by, said)| (ttl, by, said)))
    }

    /// Is more of it sent with this time to live?
    fn wants(&self, ttl: u8) -> bool {
        !self.off
            && self.sent < HOPS
            && self.server().is_none_or(|at| ttl < at)
            && self.refused().is_none_or(|(at, ..)| ttl < at)
    }
}

/// How far one kind came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The server itself answered.
    Server,
    /// `by` does not let it pass.
    Refused {
        /// Who says so.
        by: IpAddr,
        /// What it says.
        said: Said,
        /// The last hop that it reached.
        after: u8,
    },
    /// Hop `after` answered for it, and only for other kinds those behind; 0: none answered for it.
    Lost {
        /// That hop.
        after: u8,
    },
    /// It came to the last hop before the server, which says nothing.
    LastHop {
        /// That hop.
        hop: u8,
    },
    /// Behind hop `after` nobody answered for any kind.
    Unknown {
        /// That hop; 0: none.
        after: u8,
    },
    /// It was not sent.
    NotSent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sweep { ttl: u8 },
    Settle,
    Retry,
    Done,
}

/// The three kinds on their way.
#[derive(Clone, Debug)]
pub struct Ladder {
    tracks: [Track; 3],
    phase: Phase,
    sent_at: Timestamp,
    round: u8,
}

impl Ladder {
    /// Nothing sent yet.
    pub(super) fn new() -> Self {
        Self {
            tracks: Default::default(),
            phase: Phase::Sweep { ttl: 1 },
            sent_at: Timestamp::ZERO,
            round: 1,
        }
    }

    /// Leaves `lane` out.
    pub(super) fn leave_out(&mut self, lane: Lane) {
        self.track_mut(lane).off = true;
    }

    /// Is everything sent and waited for?
    pub(super) fn done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// How many packets of `lane` were sent.
    pub fn sent(&self, lane: Lane) -> u8 {
        self.track(lane).sent
    }

    /// The routers that answered, by their hop from 1.
    pub fn routers(&self) -> impl Iterator<Item = (u8, IpAddr)> {
        (1..=HOPS).filter_map(|ttl| {
            let router = |track: &Track| track.hop(ttl).and_then(|hop| hop.router);
            self.tracks.iter().find_map(router).map(|router| (ttl, router))
        })
    }

    /// The next packet: kind and time to live.
    pub(super) fn step(&mut self, now: Timestamp) -> Option<(Lane, u8)> {
        loop {
            match self.phase {
                Phase::Sweep { ttl } => {
                    let end = self.server().unwrap_or_else(|| HOPS.min(self.heard() + SILENT_HOPS));
                    if ttl > end {
                        self.phase = Phase::Settle;
                        continue;
                    }
                    let fresh = |lane: &Lane| {
                        let track = self.track(*lane);
                        track.wants(ttl) && track.hop(ttl).is_some_and(|hop| hop.tries == 0)
                    };
                    match LANES.into_iter().find(fresh) {
                        Some(lane) => return Some(self.send(lane, ttl, now)),
                        None => self.phase = Phase::Sweep { ttl: ttl + 1 },
                    }
                }
                Phase::Settle => {
                    if now.since(self.sent_at) < PATIENCE {
                        return None;
                    }
                    self.round += 1;
                    self.phase = if self.round > TRIES { Phase::Done } else { Phase::Retry };
                }
                Phase::Retry => {
                    if let Some((lane, ttl)) = self.retry() {
                        return Some(self.send(lane, ttl, now));
                    }
                    // A round in which nothing was sent is the last.
                    let fresh = now.since(self.sent_at) < PATIENCE;
                    self.phase = if fresh { Phase::Settle } else { Phase::Done };
                }
                Phase::Done => return None,
            }
        }
    }

    fn send(&mut self, lane: Lane, ttl: u8, now: Timestamp) -> (Lane, u8) {
        self.sent_at = now;
        let track = self.track_mut(lane);
        track.sent += 1;
        if let Some(hop) = usize::from(ttl).checked_sub(1).and_then(|at| track.hops.get_mut(at)) {
            hop.tries += 1;
        }
        (lane, ttl)
    }

    /// What was silent and is worth another try.
    fn retry(&self) -> Option<(Lane, u8)> {
        let end = self.server().unwrap_or(self.heard());
        (1..=end).find_map(|ttl| {
            let tries = if self.server() == Some(ttl) { SERVER_TRIES } else { TRIES };
            let wanting = |lane: &Lane| {
                let track = self.track(*lane);
                let tried = track
                    .hop(ttl)
                    .is_some_and(|hop| hop.silent() && hop.tries > 0 && hop.tries < self.round.min(tries));
                tried && track.wants(ttl)
            };
            LANES.into_iter().find(wanting).map(|lane| (lane, ttl))
        })
    }

    /// The time of a packet was over at `router`.
    pub(super) fn passed(&mut self, lane: Lane, ttl: u8, router: IpAddr) {
        self.note(lane, ttl, |hop| hop.router = Some(router));
    }

    /// The server reacted to a packet.
    pub(super) fn arrived(&mut self, lane: Lane, ttl: u8) {
        self.note(lane, ttl, |hop| hop.server = true);
    }

    /// `by` does not let a packet pass.
    pub(super) fn refused(&mut self, lane: Lane, ttl: u8, by: IpAddr, said: Said) {
        self.note(lane, ttl, |hop| hop.refused = Some((by, said)));
    }

    fn note(&mut self, lane: Lane, ttl: u8, write: impl FnOnce(&mut Echoed)) {
        let hops = &mut self.track_mut(lane).hops;
        if let Some(hop) = usize::from(ttl).checked_sub(1).and_then(|at| hops.get_mut(at)) {
            if hop.tries > 0 {
                write(hop);
            }
        }
    }

    /// At how many hops the server is, where it answered anything.
    pub fn server(&self) -> Option<u8> {
        self.tracks.iter().filter_map(Track::server).min()
    }

    /// The farthest router that answered for any kind.
    pub fn heard(&self) -> u8 {
        self.tracks.iter().map(Track::last).max().unwrap_or(0)
    }

    /// How far `lane` came.
    pub fn reach(&self, lane: Lane) -> Reach {
        let track = self.track(lane);
        if track.sent == 0 {
            return Reach::NotSent;
        }
        let after = track.last();
        if track.server().is_some() {
            return Reach::Server;
        }
        if let Some((_, by, said)) = track.refused() {
            return Reach::Refused { by, said, after };
        }
        if self.heard() > after {
            return Reach::Lost { after };
        }
        match self.server() {
            Some(server) if server <= after + 1 => Reach::LastHop { hop: after },
            Some(_) | None => Reach::Unknown { after },
        }
    }

    fn track(&self, lane: Lane) -> &Track {
        let [udp, esp, gre] = &self.tracks;
        match lane {
            Lane::Udp => udp,
            Lane::Esp => esp,
            Lane::Gre => gre,
        }
    }

    fn track_mut(&mut self, lane: Lane) -> &mut Track {
        let [udp, esp, gre] = &mut self.tracks;
        match lane {
            Lane::Udp => udp,
            Lane::Esp => esp,
            Lane::Gre => gre,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A path: what each hop (from 1) does with a kind; the last one is the server.
    #[derive(Clone, Copy, PartialEq)]
    enum Does {
        /// Forwards, and tells when the time is over.
        Tells,
        /// Forwards, and says nothing.
        Mute,
        /// Drops when it forwards; the time's end comes first.
        DropsForward,
        /// Drops before it looks at the time.
        DropsEarly,
        /// Says no.
        Rejects,
        /// The server answers, or not.
        Answers,
        Silent,
    }

    use Does::{Answers, DropsEarly, DropsForward, Mute, Rejects, Silent, Tells};

    fn router(hop: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, hop])
    }

    /// Runs a ladder over `paths` (UDP, ESP, GRE); every `lost`th packet is lost.
    fn run(paths: [&[Does]; 3], lost: usize) -> Ladder {
        let (mut ladder, mut now, mut count) = (Ladder::new(), Timestamp::from_secs(100), 0);
        while !ladder.done() {
            now = now + Duration::from_millis(334);
            assert!(now.as_secs() < 160, "it takes too long");
            let Some((lane, ttl)) = ladder.step(now) else { continue };
            count += 1;
            if lost > 0 && count % lost == 0 {
                continue;
            }
            let path = paths[lane as usize];
            for (hop, does) in (1..).zip(path) {
                match does {
                    Tells | DropsForward | Rejects if hop == ttl => ladder.passed(lane, ttl, router(hop)),
                    Rejects => ladder.refused(lane, ttl, router(hop), Said::Prohibited),
                    Answers => ladder.arrived(lane, ttl),
                    Mute if hop < ttl => continue,
                    Tells => continue,
                    Mute | DropsForward | DropsEarly | Silent => {}
                }
                break;
            }
        }
        for lane in LANES {
            assert!(ladder.sent(lane) <= HOPS);
        }
        ladder
    }

    #[test]
    fn where_a_kind_is_lost_is_told_whichever_way_it_is_dropped() {
        let open: &[Does] = &[Tells, Tells, Tells, Answers];
        let quiet: &[Does] = &[Tells, Tells, Tells, Silent];
        let cases: [([&[Does]; 3], [Reach; 3]); 9] = [
            ([open, open, open], [Reach::Server; 3]),
            (
                [open, quiet, &[Tells, DropsForward]],
                [Reach::Server, Reach::LastHop { hop: 3 }, Reach::Lost { after: 2 }],
            ),
            (
                [open, &[Tells, DropsEarly], &[DropsForward]],
                [Reach::Server, Reach::Lost { after: 1 }, Reach::Lost { after: 1 }],
            ),
            (
                [open, &[DropsEarly], quiet],
                [Reach::Server, Reach::Lost { after: 0 }, Reach::LastHop { hop: 3 }],
            ),
            // Blocked is UDP 500 itself: the others are its measure.
            (
                [&[Tells, DropsForward], quiet, open],
                [Reach::Lost { after: 2 }, Reach::LastHop { hop: 3 }, Reach::Server],
            ),
            // The last hop before the server says nothing for UDP either.
            (
                [&[Tells, Tells, Mute, Answers], &[Tells, Tells, DropsEarly], &[Tells, Tells, Mute, Silent]],
                [Reach::Server, Reach::Unknown { after: 2 }, Reach::Unknown { after: 2 }],
            ),
            // A mute hop in the middle is no reason to stop.
            (
                [&[Tells, Mute, Tells, Answers], &[Tells, Mute, DropsEarly], &[Tells, Mute, Tells, Silent]],
                [Reach::Server, Reach::Lost { after: 1 }, Reach::LastHop { hop: 3 }],
            ),
            // Nobody knows where the server is.
            ([quiet, quiet, quiet], [Reach::Unknown { after: 3 }; 3]),
            (
                [open, &[Tells, Rejects], open],
                [
                    Reach::Server,
                    Reach::Refused { by: router(2), said: Said::Prohibited, after: 2 },
                    Reach::Server,
                ],
            ),
        ];
        for (paths, expected) in cases {
            for lost in [0, 7, 11] {
                let ladder = run(paths, lost);
                assert_eq!(LANES.map(|lane| ladder.reach(lane)), expected, "{lost}");
            }
        }
    }

    #[test]
    fn a_long_path_takes_no_more_packets_than_are_allowed() {
        let long: Vec<Does> = [Tells; 30].to_vec();
        let ladder = run([&long, &long, &long], 5);
        assert_eq!(ladder.heard(), 16);
        let routers: BTreeMap<u8, IpAddr> = ladder.routers().collect();
        assert_eq!(routers.get(&1), Some(&router(1)));
    }

    #[test]
    fn answers_to_what_was_not_sent_count_for_nothing() {
        let mut ladder = Ladder::new();
        for ttl in 0..=255 {
            ladder.passed(Lane::Esp, ttl, router(1));
            ladder.arrived(Lane::Esp, ttl);
        }
        assert_eq!((ladder.heard(), ladder.server()), (0, None));
    }
}
