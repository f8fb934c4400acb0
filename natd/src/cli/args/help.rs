//! The help texts, made from the tables.

use std::fmt::Write as _;

use super::{Flag, Operand, SUBCOMMANDS, Subcommand, Times};

/// Usage lines are broken after so many characters.
const WIDTH: usize = 108;

/// The help for all of natd, or for a subcommand.
pub(in crate::cli) fn help(subcommand: Option<&Subcommand>) -> String {
    subcommand.map_or_else(overview, of_subcommand)
}

fn overview() -> String {
    let mut text = String::from(
        "\
natd translates a household's traffic, NAT44 for TCP, UDP and ICMP on Linux's packet queues, lets its VPNs
through (IPsec, PPTP, L2TP, GRE, WireGuard, OpenVPN) and says what keeps one from working.

Usage: natd SUBCOMMAND [OPTIONS]

Subcommands:
",
    );
    for subcommand in &SUBCOMMANDS {
        // Writing to a String does not fail, here and below.
        let _ = writeln!(text, "  {:<8} {}", subcommand.name, subcommand.summary);
    }
    text.push_str(
        "
Options:
  -h, --help     this help; `natd SUBCOMMAND --help` tells more
  -V, --version  the version

Exit codes: 0 fine, 1 a problem was found or natd is not translating, 2 usage, 3 natd waits for a WAN
address, 4 natd is not running, 5 no permission, 6 no VPN was seen.

Examples:
  natd check && natd run
  natd diagnose --device 192.168.1.10
",
    );
    text
}

fn of_subcommand(subcommand: &Subcommand) -> String {
    let Subcommand { name, summary, operand, options, details, .. } = subcommand;
    let mut text = format!("natd {name}: {summary}\n\n");
    let mut line = format!("Usage: natd {name}");
    let mut add = |part: &str| {
        if line.len() + 1 + part.len() > WIDTH {
            text.push_str(&std::mem::replace(&mut line, "\n           ".into()));
        }
        line.push(' ');
        line.push_str(part);
    };
    match operand {
        Some(Operand { name, required: true, .. }) => add(name),
        Some(Operand { name, .. }) => add(&format!("[{name}]")),
        None => {}
    }
    for flag in *options {
        let said = said(flag);
        match flag.times {
            Times::Required => add(&said),
            Times::Optional => add(&format!("[{said}]")),
            Times::Many => add(&format!("[{said}]...")),
        }
    }
    text.push_str(&line);
    text.push_str("\n\nOptions:\n");
    if let Some(Operand { name, help, .. }) = operand {
        let _ = writeln!(text, "  {name:<16} {help}");
    }
    for flag in *options {
        let _ = writeln!(text, "  {:<16} {}", said(flag), flag.help);
    }
    text.push('\n');
    text.push_str(details);
    text
}

/// `--name VALUE`.
fn said(flag: &Flag) -> String {
    flag.value.map_or_else(|| flag.name.to_owned(), |value| format!("{} {value}", flag.name))
}
