//! What natd for VPNs only costs the rest: iperf3 through the kernel's masquerade alone, and with natd beside it
//! carrying the bare ESP of two devices. `tests/bench.sh scope` builds and runs it.
//!
//! Each of the two has a household of its own, so that they alternate without being set up anew; every second round
//! goes in reverse. A first round is not counted.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::address::{D1, D2, S1, S2, WAN};
use testkit::vpn::ESP;
use testkit::vpn::raw::{self, End};
use testkit::{Lab, Masquerade, Nat, clock};

/// Packets a second of each device, and as many back.
const RATE: u32 = 100;
const SECONDS: &str = "4";
/// The project's own target.
const LEAST: f64 = 0.90;

fn main() -> ExitCode {
    let rounds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(5);
    // A line of log for each packet would be measured too.
    if std::env::var_os("NATD_LAB_LOG").is_none() {
        println!("scope_speed: set NATD_LAB_LOG=info");
        return ExitCode::FAILURE;
    }
    let lab = |nat| Lab::household().nat(nat).start().expect("needs root");
    let (alone, beside) = (lab(Nat::KernelMasquerade), lab(Nat::NatdBeside(Masquerade::Nft)));
    let _servers = [&alone, &beside].map(|lab| {
        let server = lab.s2.spawn(&["iperf3", "--server", "--forceflush"]);
        server.wait_for_log("listening", Duration::from_secs(5));
        server
    });
    let tunnels = Tunnels::start(&beside);
    let (mut results, mut shares) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let mut of_natd = || {
            let (speed, share) = tunnels.carried_during(|| iperf3(&beside));
            shares.push(share);
            speed
        };
        let (masquerade, natd) = if round % 2 == 1 {
            let natd = of_natd();
            (iperf3(&alone), natd)
        } else {
            (iperf3(&alone), of_natd())
        };
        if round > 0 {
            results.push((masquerade, natd));
        }
    }
    report(&results, &shares)
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

/// Bare ESP of two devices to one server, and back.
struct Tunnels {
    devices: [End; 2],
    server: End,
}

impl Tunnels {
    fn start(lab: &Lab) -> Self {
        let end = |node, addr| End::new(node, addr, ESP);
        let tunnels = Self { devices: [end(&lab.d1, D1), end(&lab.d2, D2)], server: end(&lab.s1, S1) };
        // One after the other: so natd knows whose answer it is.
        for (device, spi) in tunnels.devices.iter().zip(1..) {
            device.send(&raw::esp(device.addr, S1, 0x2000 + spi, 0));
            tunnels.server.expect("the first packet", WAN, (0x2000 + spi, 0));
            tunnels.server.send(&raw::esp(S1, WAN, 0x1000 + spi, 0));
            device.expect("the answer", S1, (0x1000 + spi, 0));
        }
        tunnels
    }

    fn arrived(&self) -> usize {
        self.server.got(WAN).len() + self.devices.iter().map(|device| device.got(S1).len()).sum::<usize>()
    }

    /// What `work` says, and packets that arrived and were sent while it was done.
    fn carried_during(&self, work: impl FnOnce() -> f64) -> (f64, (usize, usize)) {
        let (before, done) = (self.arrived(), AtomicBool::new(false));
        let (speed, sent) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.send_until(&done));
            let speed = work();
            done.store(true, Ordering::Relaxed);
            (speed, sending.join().expect("it does not panic"))
        });
        clock::holds_within(Duration::from_secs(1), || self.arrived() - before >= sent);
        (speed, (self.arrived() - before, sent))
    }

    fn send_until(&self, done: &AtomicBool) -> usize {
        let (start, mut number) = (clock::now(), 0);
        while !done.load(Ordering::Relaxed) {
            number += 1;
            for (device, spi) in self.devices.iter().zip(1..) {
                device.send(&raw::esp(device.addr, S1, 0x2000 + spi, number));
                self.server.send(&raw::esp(S1, WAN, 0x1000 + spi, number));
            }
            let next = Duration::from_secs(1) * number / RATE;
            clock::pause(next.saturating_sub(start.elapsed()));
        }
        number as usize * 4
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(results: &[(f64, f64)], shares: &[(usize, usize)]) -> ExitCode {
    println!("| round | masquerade alone, Gbit/s | natd and two ESP devices beside it, Gbit/s | ratio |");
    println!("|---|---|---|---|");
    for (round, (alone, beside)) in (1..).zip(results) {
        println!("| {round} | {alone:.2} | {beside:.2} | {:.3} |", beside / alone);
    }
    let alone = median(results.iter().map(|result| result.0));
    let beside = median(results.iter().map(|result| result.1));
    let ratio = median(results.iter().map(|(alone, beside)| beside / alone));
    println!("| median | {alone:.2} | {beside:.2} | {ratio:.3} |");
    let (arrived, sent) = shares.iter().fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
    let kept = ratio >= LEAST && arrived * 100 >= sent * 99;
    println!(
        "\nESP meanwhile, {RATE} packets/s each way of each device: {arrived} of {sent} packets arrived."
    );
    println!(
        "Target: median ratio ≥ {LEAST}, and ≥ 99 % of the ESP: {}",
        if kept { "kept" } else { "**not kept**" }
    );
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
