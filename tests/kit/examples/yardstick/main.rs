//! The yardstick: the cases in which home NAT goes wrong, measured with real packets behind the kernel's masquerade
//! and behind natd. tests/yardstick.sh builds and starts it.
//!
//! Every cell is made of what arrived, what left and what the NAT's own tables say. One function measures a row for
//! both NATs and judges both by what natd must do, so a row that cannot fail would show as one that the kernel passes.

mod discovery;
#[path = "../../../vpn/ike.rs"]
mod ike;
mod memory;
mod portless;
mod ports;
mod pptp;
mod report;
mod spoofing;
mod tables;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use testkit::{Lab, LabBuilder, Nat};

/// What was measured of one NAT.
struct Finding {
    words: String,
    /// Is it what natd must do?
    right: bool,
}

/// What was measured, or why it could not be.
type Cell = Result<Finding, String>;

/// Whether a row's two labs may run at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labs {
    AtOnce,
    /// They would disturb what is measured of the whole machine.
    OneByOne,
}

/// One case.
struct Row {
    name: &'static str,
    case: &'static str,
    /// What natd must do.
    target: &'static str,
    builder: fn() -> LabBuilder,
    measure: fn(&mut Lab) -> Cell,
    labs: Labs,
}

const fn row(
    name: &'static str,
    case: &'static str,
    target: &'static str,
    measure: fn(&mut Lab) -> Cell,
) -> Row {
    Row { name, case, target, builder: household, measure, labs: Labs::AtOnce }
}

#[rustfmt::skip]
const ROWS: [Row; 19] = [
    row("Y1", "ESP, one device", "works", portless::one_device),
    row("Y2", "ESP, two devices, one server", "works for both", portless::one_server),
    row("Y3", "ESP, two devices, two servers", "works for both", portless::two_servers),
    row("Y4", "ESP, the server speaks first, after IKE", "delivered to the device whose IKE it was; without IKE to nobody", portless::server_first),
    row("Y5", "L2TPv3 over IP, keyed GRE, AH: two devices, one server", "L2TPv3 by session id, GRE by key; AH refused, and the owner told", portless::other_protocols),
    row("Y6", "PPTP's GRE without a control connection", "named for the owner", pptp::no_control),
    row("Y7", "PPTP, two devices with one Call ID (kernel: with its helper)", "works for both", pptp::equal_ids),
    row("Y8", "PPTP, call request split 13 + 155 bytes; its Call ID is taken", "works", pptp::split),
    row("Y9", "PPTP, echo and call request in one segment; its Call ID is taken", "works", pptp::merged),
    row("Y10", "PPTP, two calls in one control connection", "both work", pptp::two_calls),
    Row { builder: four_devices, ..row("Y11", "IKE on UDP 500, two devices, one server", "without NAT-T both keep 500, told apart by SPI; with NAT-T answers to the port used arrive", ports::ike) },
    Row { builder: four_devices, ..row("Y12", "L2TP on UDP 1701, two devices with one tunnel id", "each gets its own answer, sent to 1701 or from another port", ports::l2tp) },
    row("Y13", "RST far outside the window", "changes nothing", spoofing::far_reset),
    row("Y14", "RST in the window, not exact", "changes nothing", spoofing::near_reset),
    row("Y15", "RST, exact", "forwarded, kept for 4 minutes (RFC 7857)", spoofing::exact_reset),
    row("Y16", "ICMP errors that quote a wrong TCP sequence", "dropped; a right one is delivered; no state changes", spoofing::wrong_quotes),
    row("Y16b", "ESP and L2TPv3 that conntrack does not track", "translated; nothing leaves untranslated when the NAT is down", portless::untracked),
    Row { labs: Labs::OneByOne, ..row("Y17", "Memory", "stated; a VPN session takes at most 1,024 bytes", memory::measure) },
    row("Y18", "RFC 5780 test after another device took the port", "endpoint-independent mapping", discovery::measure),
];

fn household() -> LabBuilder {
    Lab::household().natd_section("[passthrough]\npptp = true")
}

fn four_devices() -> LabBuilder {
    household().devices(4)
}

fn main() -> ExitCode {
    let (options, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument == "--markdown");
    let form = if options.is_empty() { report::Form::Text } else { report::Form::Markdown };
    if let Some(unknown) = wanted.iter().find(|name| !ROWS.iter().any(|row| row.name == **name)) {
        eprintln!("yardstick: there is no row {unknown}\nusage: tests/yardstick.sh [--markdown] [ROW...]");
        return ExitCode::from(2);
    }
    if let Some(missing) = testkit::requirements::missing() {
        eprintln!("The yardstick {missing}");
        return ExitCode::FAILURE;
    }
    // What went wrong stands in the cell.
    std::panic::set_hook(Box::new(|_| {}));
    let mut results = Vec::new();
    for row in ROWS.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|name| name == row.name)) {
        eprintln!("  {}: {} ...", row.name, row.case);
        let (kernel, natd) = measure(row);
        results.push(report::Line { row, kernel, natd });
    }
    report::print(form, &results);
    if results.iter().all(|line| line.natd.as_ref().is_ok_and(|finding| finding.right)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn measure(row: &Row) -> (Cell, Cell) {
    if row.labs == Labs::OneByOne {
        return (cell(row, Nat::KernelMasquerade), cell(row, Nat::Natd));
    }
    std::thread::scope(|scope| {
        let kernel = scope.spawn(|| cell(row, Nat::KernelMasquerade));
        let natd = cell(row, Nat::Natd);
        (kernel.join().unwrap_or_else(|_| Err("its thread ended".to_owned())), natd)
    })
}

fn cell(row: &Row, nat: Nat) -> Cell {
    let lab = catch_unwind(|| (row.builder)().nat(nat).start());
    let mut lab = lab.map_err(said)?.ok_or("kernel tests are switched off")?;
    let watch = lab.watch_for_leaks();
    // The lab outlives a panic in the measurement, so that it does not print its state.
    let cell = catch_unwind(AssertUnwindSafe(|| (row.measure)(&mut lab)));
    let mut finding = cell.unwrap_or_else(|panic| Err(said(panic)))?;
    let leaked = watch.seen().len();
    if leaked > 0 {
        finding.words.push_str(&format!("; household addresses on the WAN: {leaked} packets"));
        finding.right = false;
    }
    Ok(finding)
}

/// The first line of a panic's message.
fn said(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
    text.lines().next().unwrap_or_default().to_owned()
}

/// `n/of`.
fn share(n: usize, of: usize) -> String {
    format!("{n}/{of}")
}
