//! What the way through user space costs, beside plain kernel masquerade in the same run.
//!
//! Each path has namespaces of its own, so that they alternate without being set up anew; every second round
//! goes through them in reverse. Within a round one figure is measured on every path before the next, and a
//! ratio is that of two figures of one round: what disturbs the machine for longer than a few seconds disturbs
//! both. The table shows the medians. A first round is not counted.
//!
//! The router's CPU time for small packets cannot be read anywhere, since the packets travel on the time of
//! whoever sends them. It is the difference: CPU time of sender, receiver, daemon and soft interrupts for a
//! packet, less the same on two endpoints that are connected directly, in the same round.

mod cpu;
mod lab;
mod load;
mod sys;
pub(crate) mod vpn;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use self::lab::{Kind, Lab};
use self::load::Way;
use crate::sample::{Samples, verdict};

const BULK: Duration = Duration::from_millis(800);
const SMALL_PACKETS: u64 = 40_000;
const ROUND_TRIPS: u32 = 2000;
const NEW_FLOWS: u16 = 1000;
const CONNECTS: u64 = 500;

/// What is compared with masquerade.
pub(crate) enum Subject {
    /// natd, from this binary.
    Natd(PathBuf),
    /// Masquerade once more: shows how far the ratios are from 1 by chance.
    Masquerade,
}

/// One figure of one round on one path.
struct Figure {
    name: &'static str,
    unit: &'static str,
    /// Is the direct connection's figure to be taken off?
    net: bool,
    /// The ratio to masquerade that the project has set itself.
    target: Option<Target>,
}

#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

const FIGURES: [Figure; 10] = [
    figure("TCP, 1 stream up", "Gbit/s", Some(Target::AtLeast(0.45))),
    figure("TCP, 8 streams up", "Gbit/s", Some(Target::AtLeast(0.25))),
    figure("TCP, 1 stream down", "Gbit/s", None),
    figure("CPU of all, 8 streams up", "s/GB", None),
    Figure { net: true, ..figure("router CPU, 64-byte UDP", "ns/packet", Some(Target::AtMost(12.0))) },
    figure("64-byte UDP, closed loop", "packets/s", None),
    figure("UDP request to response, p50", "µs", Some(Target::AtMost(3.0))),
    figure("UDP request to response, p99", "µs", None),
    figure("new UDP flows", "1/s", None),
    figure("TCP connections opened and closed", "1/s", None),
];

const fn figure(name: &'static str, unit: &'static str, target: Option<Target>) -> Figure {
    Figure { name, unit, net: false, target }
}

type Figures = [f64; FIGURES.len()];

/// Runs `rounds` rounds and prints the table.
///
/// # Errors
/// Says which step failed; everything that was set up is taken down all the same.
pub(crate) fn compare(subject: Subject, rounds: u16) -> io::Result<()> {
    sys::allow_files(8192);
    let (label, kind) = match subject {
        Subject::Natd(program) => ("natd", Kind::Natd(program)),
        Subject::Masquerade => ("masquerade again", Kind::Masquerade),
    };
    let labs = [
        Lab::build("z", &Kind::Direct)?,
        Lab::build("a", &Kind::Forward)?,
        Lab::build("b", &Kind::Masquerade)?,
        Lab::build("n", &kind)?,
    ];
    let mut results: Vec<[Figures; 4]> = Vec::new();
    for round in 0..=rounds {
        let mut row = [[f64::NAN; FIGURES.len()]; 4];
        let mut order = [0, 1, 2, 3];
        if round % 2 == 1 {
            order.reverse();
        }
        for traffic in TRAFFIC {
            for path in order {
                traffic(&labs[path], round, &mut row[path])?;
            }
        }
        if round > 0 {
            results.push(row);
        }
    }
    print(label, &results);
    Ok(())
}

/// One kind of traffic, and the figures that it gives.
type Traffic = fn(&Lab, u16, &mut Figures) -> io::Result<()>;

const TRAFFIC: [Traffic; 7] = [
    |lab, _, figures| {
        figures[0] = gigabits(load::tcp_bulk(lab, 1, Way::Up, BULK)?);
        Ok(())
    },
    |lab, _, figures| {
        let cost = load::tcp_bulk(lab, 8, Way::Up, BULK)?;
        figures[1] = gigabits(cost);
        figures[3] = cost.cpu.as_secs_f64() * 1e9 / cost.arrived as f64;
        Ok(())
    },
    |lab, _, figures| {
        figures[2] = gigabits(load::tcp_bulk(lab, 1, Way::Down, BULK)?);
        Ok(())
    },
    |lab, _, figures| {
        let cost = load::udp_small(lab, SMALL_PACKETS)?;
        figures[4] = cost.cpu.as_nanos() as f64 / cost.arrived as f64;
        figures[5] = rate(cost);
        Ok(())
    },
    |lab, _, figures| {
        let latency = load::latency(lab, ROUND_TRIPS)?;
        figures[6] = latency.median();
        figures[7] = latency.percentile(99);
        Ok(())
    },
    |lab, round, figures| {
        let first = 2000 + round * NEW_FLOWS;
        figures[8] = rate(load::udp_new_flows(lab, first..first + NEW_FLOWS)?);
        Ok(())
    },
    |lab, _, figures| {
        figures[9] = rate(load::tcp_connects(lab, CONNECTS)?);
        Ok(())
    },
];

fn gigabits(cost: load::Cost) -> f64 {
    cost.arrived as f64 * 8e-9 / cost.time.as_secs_f64()
}

fn rate(cost: load::Cost) -> f64 {
    cost.arrived as f64 / cost.time.as_secs_f64()
}

fn print(label: &str, results: &[[Figures; 4]]) {
    println!(
        "| way of a packet | unit | direct | forwarded | masquerade | {label} | × masquerade (min..max) | target | kept |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (at, figure) in FIGURES.iter().enumerate() {
        let value = |round: &[Figures; 4], path: usize| {
            let base = if figure.net && path > 0 { round[0][at] } else { 0.0 };
            round[path][at] - base
        };
        let median = |path: usize| {
            let samples: Samples = results.iter().map(|round| value(round, path)).collect();
            crate::sample::short(samples.median())
        };
        let ratios: Samples = results.iter().map(|round| value(round, 3) / value(round, 2)).collect();
        let (target, kept) = match figure.target {
            Some(Target::AtLeast(least)) => (format!("≥ {least}"), verdict(ratios.median() >= least)),
            Some(Target::AtMost(most)) => (format!("≤ {most}"), verdict(ratios.median() <= most)),
            None => (String::from("-"), "-"),
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {ratios} | {target} | {kept} |",
            figure.name,
            figure.unit,
            median(0),
            median(1),
            median(2),
            median(3),
        );
    }
}
