//! What watching costs: iperf3 through natd with `diagnosis.observe` and without, in both scopes.
//!
//! Each of the two has a household of its own, so that they alternate without being set up anew; every second round
//! goes in reverse. A first round is not counted. Argument: rounds (7).

use std::time::Duration;

use testkit::address::S2;
use testkit::{Lab, Masquerade, Nat};

const SECONDS: &str = "3";

fn main() {
    let rounds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(7);
    // A line of log for each packet would be measured too.
    assert!(std::env::var_os("NATD_LAB_LOG").is_some(), "set NATD_LAB_LOG=info");
    for (name, nat) in [("vpn", Nat::NatdBeside(Masquerade::Nft)), ("all", Nat::Natd)] {
        scope(name, nat, rounds);
    }
}

fn scope(name: &str, nat: Nat, rounds: u32) {
    let lab = |observe| {
        let section = format!("[diagnosis]\nobserve = {observe}\n");
        Lab::household().nat(nat).natd_section(&section).start().expect("needs root")
    };
    let labs = [lab(false), lab(true)];
    let _servers = labs.each_ref().map(|lab| {
        let server = lab.s2.spawn(&["iperf3", "--server", "--forceflush"]);
        server.wait_for_log("listening", Duration::from_secs(5));
        server
    });
    let [off, on] = &labs;
    println!("| scope {name} | off, Gbit/s | on, Gbit/s | ratio | load |");
    println!("|---|---|---|---|---|");
    let mut results = Vec::new();
    for round in 0..=rounds {
        let (off, on) = if round % 2 == 1 {
            let on = iperf3(on);
            (iperf3(off), on)
        } else {
            (iperf3(off), iperf3(on))
        };
        if round > 0 {
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            let load = load.split(' ').next().unwrap_or_default().to_owned();
            println!("| {round} | {off:.2} | {on:.2} | {:.3} | {load} |", on / off);
            results.push((off, on));
        }
    }
    println!(
        "| median | {:.2} | {:.2} | {:.3} | |\n",
        median(results.iter().map(|(off, _)| *off)),
        median(results.iter().map(|(_, on)| *on)),
        median(results.iter().map(|(off, on)| on / off))
    );
}

/// Gigabits a second that arrive.
fn iperf3(lab: &Lab) -> f64 {
    let server = S2.to_string();
    let words = ["iperf3", "--client", &server, "--time", SECONDS, "--format", "m"];
    let said = lab.d3.run(&words).expect_success();
    let line = said.lines().rfind(|line| line.ends_with("receiver")).expect("iperf3 prints a sum");
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "Mbits/sec").expect("iperf3 prints a rate");
    let rate = unit.checked_sub(1).and_then(|at| words.get(at)?.parse::<f64>().ok());
    rate.expect("a rate is a number") / 1000.0
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
