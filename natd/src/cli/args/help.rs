//! The help texts, made from the tables.

use std::fmt::Write as _;

use super::{SUBCOMMANDS, Subcommand};

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
    let mut text =
        format!("natd {}: {}\n\nUsage: natd {}", subcommand.name, subcommand.summary, subcommand.name);
    let operand = subcommand.operand.as_ref();
    if let Some(operand) = operand {
        let (open, close) = if operand.required { ("", "") } else { ("[", "]") };
        let _ = write!(text, " {open}{}{close}", operand.name);
    }
    for flag in subcommand.options {
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        let more = if flag.many { "..." } else { "" };
        let _ = write!(text, " [{}{value}]{more}", flag.name);
    }
    text.push_str("\n\nOptions:\n");
    if let Some(operand) = operand {
        let _ = writeln!(text, "  {:<16} {}", operand.name, operand.help);
    }
    for flag in subcommand.options {
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        let name = format!("{}{value}", flag.name);
        let _ = writeln!(text, "  {name:<16} {}", flag.help);
    }
    text.push('\n');
    text.push_str(subcommand.details);
    text
}
