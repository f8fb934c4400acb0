//! Who talks with whom? Evidence from the times at which packets pass.
//!
//! Two signs tie an SPI of the remote host to a device:
//!
//! * **Answers of the remote host.** What it sends comes a round trip after what the device sent. The round trip is
//!   known from IKE.
//! * **Answers of the device.** It sends at once whenever it has been given a packet.
//!
//! Any device shows a sign now and then by chance: the more often it sends, the more. How often it would is summed
//! up beside how often it did, and the sign is believed when chance is out of the question. At most one event in a
//! while is counted, since the packets of one burst say the same thing many times.

use crate::sorted::SortedMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::time::Timestamp;

/// Sends of a device that are remembered.
const SENDS: usize = 8;
/// Events closer together are one.
const APART: Duration = Duration::from_millis(400);
/// A device on the LAN answers within this time.
const PROMPT: Duration = Duration::from_millis(20);
/// Chance of being wrong that is accepted.
const DOUBT: f32 = 1e-11;
/// What was seen at the beginning does not count for more than this.
const LEAST_PRIOR: f32 = 1e-3;
/// A sign shown this rarely by chance cannot be measured: assume more.
const RARE: f32 = 0.01;
/// A rate is measured over no less than this, unless more is remembered than the memory holds.
const LEAST_SPAN: Duration = Duration::from_secs(4);
/// What is sent within this time counts as sent at once.
const BURST: Duration = Duration::from_millis(5);
/// So many answers and nothing else show a device that always speaks first.
const ANSWERS_ONLY: u16 = 10;
/// Nobody waits longer for an answer.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_millis(700);
/// How much later than others a packet may come.
const LATE: Duration = Duration::from_millis(100);
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(500);

/// When a device sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Sender {
    /// The last ones, oldest first.
    times: Vec<Timestamp>,
    /// To the remote host and back.
    pub(super) round_trip: Option<Duration>,
    /// Packets that it got soon after it had sent something, and others.
    prompted: u16,
    unprompted: u16,
}

impl Sender {
    pub(super) fn sends(&mut self, now: Timestamp) {
        if self.times.last().is_some_and(|&last| now.since(last) < BURST) {
            return;
        }
        if self.times.len() >= SENDS {
            self.times.remove(0);
        }
        self.times.push(now);
    }

    /// It gets a packet.
    pub(super) fn receives(&mut self, now: Timestamp) {
        let count = if self.may_be_answered(now) { &mut self.prompted } else { &mut self.unprompted };
        *count = count.saturating_add(1);
    }

    /// Has it never got anything but answers?
    pub(super) fn speaks_first(&self) -> bool {
        self.unprompted == 0 && self.prompted >= ANSWERS_ONLY
    }

    /// Times since a send at which its answer comes unless something delays it.
    fn window(&self) -> (Duration, Duration) {
        match self.round_trip {
            Some(trip) => (trip * 15 / 16, trip * 9 / 8 + Duration::from_millis(10)),
            None => (Duration::from_millis(2), UNKNOWN_ROUND_TRIP),
        }
    }

    fn fits(&self, now: Timestamp, (from, to): (Duration, Duration)) -> bool {
        self.times.iter().any(|&sent| (from..=to).contains(&now.since(sent)))
    }

    /// May something that comes now be an answer, even one that was delayed?
    pub(super) fn may_be_answered(&self, now: Timestamp) -> bool {
        // What was measured may have been late itself.
        let longest = self.round_trip.unwrap_or(UNKNOWN_ROUND_TRIP) * 3 / 2 + LATE;
        self.fits(now, (Duration::ZERO, longest.min(ANSWERS_WITHIN)))
    }

    /// How often it sends, in packets a second.
    pub(super) fn per_second(&self, now: Timestamp) -> f32 {
        let Some(&first) = self.times.first() else { return 0.0 };
        let least = if self.times.len() < SENDS { LEAST_SPAN } else { BURST };
        count(self.times.len()) / now.since(first).max(least).as_secs_f32()
    }

    /// How likely it is that something fits by chance.
    fn chance(&self, now: Timestamp) -> f32 {
        let (from, to) = self.window();
        (self.per_second(now) * (to - from).as_secs_f32()).clamp(RARE, 1.0)
    }
}

/// What speaks for one device.
#[derive(Clone, Debug)]
struct Signs {
    device: Ipv4Addr,
    /// How likely it was to be meant when the SPI was first seen, compared with others.
    prior: f32,
    /// Arrivals that fit what it sent, and how many would by chance.
    fits: u16,
    fits_by_chance: f32,
    /// Arrivals that came some time after what it sent.
    follows: u16,
    /// Deliveries that it answered, and how many it would have by chance.
    answers: u16,
    answers_by_chance: f32,
    /// Did it answer the last one?
    answered: bool,
}

/// What speaks for each device whose an SPI may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Score {
    signs: Vec<Signs>,
    arrivals: u16,
    deliveries: u16,
    last: Option<Timestamp>,
    delivered: Option<Timestamp>,
}

impl Score {
    /// How likely each device is to be meant, compared with others.
    pub(super) fn begin(&mut self, priors: impl Iterator<Item = (Ipv4Addr, f32)>) {
        for (device, prior) in priors {
            match self.signs.iter_mut().find(|signs| signs.device == device) {
                Some(signs) => signs.prior = signs.prior.max(prior),
                None => self.signs.push(Signs {
                    device,
                    prior,
                    fits: 0,
                    fits_by_chance: 0.0,
                    follows: 0,
                    answers: 0,
                    answers_by_chance: 0.0,
                    answered: false,
                }),
            }
        }
    }

    /// A packet has come, and may be for any of `devices`. Answers the one whose it is beyond doubt.
    pub(super) fn arrives(
        &mut self,
        now: Timestamp,
        devices: &[Ipv4Addr],
        senders: &SortedMap<Ipv4Addr, Sender>,
    ) -> Option<Ipv4Addr> {
        if self.last.is_some_and(|last| now.since(last) < APART) {
            return None;
        }
        self.last = Some(now);
        self.arrivals = self.arrivals.saturating_add(1);
        for &device in devices {
            let place = match self.signs.iter().position(|signs| signs.device == device) {
                Some(place) => place,
                None => {
                    self.signs.push(Signs {
                        device,
                        prior: 1.0,
                        fits: 0,
                        fits_by_chance: 0.0,
                        follows: 0,
                        answers: 0,
                        answers_by_chance: 0.0,
                        answered: false,
                    });
                    self.signs.len() - 1
                }
            };
            let Some(signs) = self.signs.get_mut(place) else { continue };
            match senders.get(&device) {
                Some(sender) => {
                    signs.fits += u16::from(sender.fits(now, sender.window()));
                    signs.follows += u16::from(sender.may_be_answered(now));
                    signs.fits_by_chance += sender.chance(now);
                }
                None => signs.fits_by_chance += RARE,
            }
        }
        self.signs.retain(|signs| devices.contains(&signs.device));
        self.verdict()
    }

    /// The packet was given to every device whose it may be.
    pub(super) fn delivered(&mut self, now: Timestamp) {
        if self.last != Some(now) {
            return; // part of a burst
        }
        self.delivered = Some(now);
        self.deliveries = self.deliveries.saturating_add(1);
        for signs in &mut self.signs {
            signs.answered = false;
            signs.answers_by_chance += RARE;
        }
    }

    /// `device`, which sends `often` a second, has sent.
    pub(super) fn answered(&mut self, now: Timestamp, device: Ipv4Addr, often: f32) {
        let prompt = self.delivered.is_some_and(|at| now.since(at) <= PROMPT);
        let Some(signs) = self.signs.iter_mut().find(|signs| signs.device == device) else { return };
        if prompt && !signs.answered {
            signs.answered = true;
            signs.answers += 1;
            signs.answers_by_chance += (often * PROMPT.as_secs_f32()).min(1.0);
        }
    }

    /// The device that both signs and its state at the beginning speak for, if no other comes close.
    fn verdict(&self) -> Option<Ipv4Addr> {
        let all: f32 = self.signs.iter().map(|signs| signs.prior).sum();
        let chance = |signs: &Signs| {
            let fits = chance_of(signs.fits, signs.fits_by_chance, self.arrivals);
            let answers = chance_of(signs.answers, signs.answers_by_chance, self.deliveries);
            let others = ((all - signs.prior) / signs.prior).clamp(LEAST_PRIOR, 1.0);
            fits * answers * others
        };
        let mut found: Option<&Signs> = None;
        for signs in &self.signs {
            let chance = chance(signs);
            if chance <= DOUBT && found.is_none() {
                found = Some(signs);
            } else if chance <= 1e-4 {
                return None;
            }
        }
        // Two devices that send at the same times, as timers make them, explain the same arrivals.
        let found = found?;
        let alike = |other: &Signs| {
            other.device != found.device && 4 * u32::from(other.follows) >= 3 * u32::from(found.fits.max(1))
        };
        let by_fits = found.fits > found.answers;
        (!by_fits || !self.signs.iter().any(alike)).then_some(found.device)
    }
}

/// An upper bound for the chance of seeing a sign `seen` times in `events` where `expected` is the mean (Chernoff).
fn chance_of(seen: u16, expected: f32, events: u16) -> f32 {
    let seen_count = f32::from(seen);
    // A device that shows it only now and then may be half of a conversation of others.
    if seen_count <= expected || 2 * seen < events {
        return 1.0;
    }
    let ratio = core::f32::consts::E * expected / seen_count;
    (0..seen).fold(1.0, |product, _| product * ratio).min(1.0)
}

fn count(n: usize) -> f32 {
    f32::from(u16::try_from(n).unwrap_or(u16::MAX))
}
