//! What a VPN packet of a known session costs beside a UDP packet, and what more sessions add.

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use natd::engine::Engine;

use super::household::{Household, Kind, Servers, Session};
use super::wire;
use crate::clock;
use crate::conversation::{WAN, Way, translate};
use crate::decide::Random;
use crate::sample::Samples;

const BATCH: usize = 32;
const REPETITIONS: usize = 9;
const PACKETS: usize = 131_072;
/// Unknown SPIs in one repetition.
const UNKNOWN: usize = 64;

/// What is measured: sessions of one kind.
struct Row {
    household: Household,
    random: Random,
    samples: Samples,
}

/// Nanoseconds per packet for each of `rows`: kind, sessions with one server, equal Call IDs. They alternate.
pub(super) fn known(rows: &[(Kind, u32, bool)]) -> Vec<Samples> {
    let mut rows: Vec<Row> = rows
        .iter()
        .map(|&(kind, count, equal_ids)| Row {
            household: Household::with(kind, count, Servers::Shared, 10, equal_ids),
            random: Random::new(),
            samples: Samples::default(),
        })
        .collect();
    for repetition in 0..=REPETITIONS {
        let run = |row: &mut Row| {
            let nanos = row.run();
            if repetition > 0 {
                row.samples.add(nanos); // the first one warms up
            }
        };
        if repetition % 2 == 0 {
            rows.iter_mut().for_each(run);
        } else {
            rows.iter_mut().rev().for_each(run);
        }
    }
    rows.into_iter().map(|row| row.samples).collect()
}

impl Row {
    fn run(&mut self) -> f64 {
        let Household { engine, now, sessions, .. } = &mut self.household;
        let batches = (0..PACKETS / BATCH).map(|_| {
            *now = *now + std::time::Duration::from_micros(100);
            batch(engine, *now, sessions, &mut self.random) as f64 / BATCH as f64
        });
        // A batch during which another program had the processor is none of natd's.
        batches.collect::<Samples>().median()
    }
}

/// Only the engine's part is timed; packets are in the cache, as after the kernel's copy.
fn batch(engine: &mut Engine, now: Timestamp, sessions: &mut [Session], random: &mut Random) -> u128 {
    let mut packets: Vec<(usize, Direction, Vec<u8>)> = (0..BATCH)
        .map(|_| {
            let n = random.below(sessions.len());
            let direction = if random.below(2) == 0 { Direction::Outbound } else { Direction::Inbound };
            (n, direction, sessions[n].next(direction))
        })
        .collect();
    let begin = clock::now();
    for (_, direction, packet) in &mut packets {
        translate(engine, Way::Daemon, now, *direction, packet);
    }
    let nanos = begin.elapsed().as_nanos();
    for (n, direction, packet) in &packets {
        assert!(sessions[*n].fits(*direction, packet), "{direction:?} {:?} became {packet:?}", sessions[*n]);
    }
    while engine.nat.poll_effect().is_some() {}
    nanos
}

/// An ESP packet from the server whose SPI was never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// One device is owed an SPI: this one is its own from now on.
    Owed,
    /// None is: the packet is nobody's.
    Nobodys,
}

/// Nanoseconds per packet with an unknown SPI, beside `counts` bound sessions with the same server; each SPI
/// meets one session more than the last one only where the count is large.
pub(super) fn unknown(what: Unknown, counts: [u32; 2]) -> [Samples; 2] {
    let mut samples = [Samples::default(), Samples::default()];
    for repetition in 0..=REPETITIONS {
        for (count, samples) in counts.iter().zip(&mut samples) {
            let nanos = unknown_once(what, *count);
            if repetition > 0 {
                samples.add(nanos);
            }
        }
    }
    samples
}

fn unknown_once(what: Unknown, count: u32) -> f64 {
    // Where a learned SPI would change the count by much, each meets a household of its own.
    let fresh = || Household::with(Kind::Esp, count, Servers::Shared, 1, false);
    let mut household = fresh();
    let mut samples = Vec::new();
    for n in 0..UNKNOWN {
        if count < 100 {
            household = fresh();
        }
        household.now = household.now + std::time::Duration::from_millis(10);
        let Household { engine, now, sessions, .. } = &mut household;
        let mut session = sessions[n % sessions.len()];
        if what == Unknown::Owed {
            // The device's first packet with a new SPI says that another pair was made.
            session.renew(0x7000_0000 + n as u32);
            translate(engine, Way::Daemon, *now, Direction::Outbound, &mut session.next(Direction::Outbound));
        }
        let mut packet = match what {
            Unknown::Owed => session.next(Direction::Inbound),
            Unknown::Nobodys => wire::esp(session.server(), WAN, 0x6000_0000 + n as u32, 1, 64),
        };
        // A packet of another session lies between, as it would.
        let other = n % sessions.len();
        let mut known = sessions[other].next(Direction::Inbound);
        translate(engine, Way::Daemon, *now, Direction::Inbound, &mut known);
        let begin = clock::now();
        match what {
            Unknown::Owed => translate(engine, Way::Daemon, *now, Direction::Inbound, &mut packet),
            Unknown::Nobodys => super::refuse(engine, *now, &packet),
        }
        samples.push(begin.elapsed().as_nanos() as f64);
        assert!(what == Unknown::Nobodys || session.fits(Direction::Inbound, &packet), "{packet:?}");
        if what == Unknown::Owed {
            // What a single packet proved would stay in doubt.
            translate(engine, Way::Daemon, *now, Direction::Inbound, &mut session.next(Direction::Inbound));
        }
        while engine.nat.poll_effect().is_some() {}
    }
    samples.into_iter().collect::<Samples>().median()
}

/// Milliseconds that forgetting takes, which is done every few seconds, with `count` sessions of `kind`.
pub(super) fn housekeeping(kind: Kind, count: u32) -> Samples {
    let mut household = Household::with(kind, count, Servers::Shared, 10, false);
    (0..REPETITIONS)
        .map(|_| {
            household.now = household.now + std::time::Duration::from_secs(6);
            let Household { engine, now, .. } = &mut household;
            let begin = clock::now();
            engine.handle_timeout(*now);
            begin.elapsed().as_nanos() as f64 / 1e6
        })
        .collect()
}
