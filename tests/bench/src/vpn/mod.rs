//! VPN passthrough: what its packets cost beside UDP's, what more sessions add, and what a session takes of memory.

mod decide;
mod household;
pub(crate) mod memory;
pub(crate) mod wire;

use nat_core::decision::Decision;
use nat_core::time::Timestamp;
use natd::engine::{Arrival, Engine, Stage};

use self::decide::Unknown;
use self::household::{Kind, Servers};
use crate::sample::{Samples, verdict};

const MANY: u32 = 1000;

/// A packet from the WAN that must reach nobody.
fn refuse(engine: &mut Engine, now: Timestamp, packet: &[u8]) {
    let stage = Stage::FromWan { local_socket: false };
    let decision = engine.decide(now, &Arrival { stage, bytes: packet, truncated: false });
    assert!(matches!(decision, Decision::Drop(_)), "a packet that is nobody's: {decision:?}");
}

/// Prints every table that needs no rights.
pub(crate) fn print() {
    print_memory();
    println!();
    print_known();
    println!();
    print_unknown();
}

fn print_known() {
    println!(
        "| decision and rewrite, known sessions with one server, both ways | ns/packet, median (min..max) of 9 | × one session | target | kept | × UDP |"
    );
    println!("|---|---|---|---|---|---|");
    let kinds = [(Kind::Udp, false), (Kind::Esp, false), (Kind::Pptp, false), (Kind::Pptp, true)];
    let rows: Vec<(Kind, u32, bool)> = [1, MANY]
        .into_iter()
        .flat_map(|count| kinds.map(|(kind, equal)| (kind, count, equal)))
        .filter(|&(_, count, equal)| count > 1 || !equal)
        .collect();
    let samples = decide::known(&rows);
    let median = |kind: Kind, count: u32, equal: bool| {
        let at = rows.iter().position(|row| *row == (kind, count, equal));
        at.map_or(f64::NAN, |at| samples[at].median())
    };
    for (&(kind, count, equal), samples) in rows.iter().zip(&samples) {
        let ratio = samples.median() / median(kind, 1, false);
        let limited = count > 1 && kind != Kind::Udp;
        println!(
            "| {}{}, {count} | {samples} | {ratio:.2} | {} | {} | {:.2} |",
            name(kind),
            if equal { ", equal Call IDs" } else { "" },
            if limited { "≤ 2" } else { "-" },
            if limited { verdict(ratio <= 2.0) } else { "-" },
            samples.median() / median(Kind::Udp, count, false),
        );
    }
}

fn print_unknown() {
    println!(
        "| ESP with an unknown SPI, bound sessions with the same server | 1 | {MANY} | ratio | target | kept |"
    );
    println!("|---|---|---|---|---|---|");
    for (what, name) in [
        (Unknown::Owed, "one gate open: learned, ns/packet"),
        (Unknown::Nobodys, "no gate open: nobody's, ns/packet"),
    ] {
        let [one, many] = decide::unknown(what, [1, MANY]);
        let ratio = many.median() / one.median();
        println!("| {name} | {one} | {many} | {ratio:.2} | ≤ 2 | {} |", verdict(ratio <= 2.0));
    }
    println!();
    println!("| forgetting, every 5 s, {MANY} sessions with one server | ms, median (min..max) of 9 |");
    println!("|---|---|");
    for kind in [Kind::Udp, Kind::Esp, Kind::Pptp] {
        let samples: Samples = decide::housekeeping(kind, MANY);
        println!("| {} | {samples} |", name(kind));
    }
}

fn print_memory() {
    println!(
        "| heap of an idle session | sessions | bytes for each | most at any number from a tenth on | without the NAT's part | target | kept |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (kind, servers, count) in [
        (Kind::Esp, Servers::Shared, MANY),
        (Kind::Esp, Servers::Own, MANY),
        (Kind::Pptp, Servers::Shared, 128), // the limit of control connections with one server
        (Kind::Pptp, Servers::Own, MANY),
        (Kind::L2tp, Servers::Shared, 250), // the limit is 256
        (Kind::L2tp, Servers::Own, MANY),
    ] {
        let heap = memory::measure(kind, count, servers);
        println!(
            "| {}, {} | {count} | {:.0} | {:.0} | {:.0} | ≤ 1024 | {} |",
            match kind {
                Kind::Esp => "ESP with its IKE SA",
                Kind::Pptp => "PPTP call with its control connection",
                Kind::L2tp => "L2TP tunnel",
                Kind::Udp => "UDP flow",
            },
            if servers == Servers::Shared { "one server" } else { "a server each" },
            heap.each,
            heap.most,
            heap.vpn,
            verdict(heap.most <= 1024.0)
        );
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Udp => "UDP",
        Kind::Esp => "ESP",
        Kind::Pptp => "PPTP's GRE",
        Kind::L2tp => "L2TP",
    }
}
