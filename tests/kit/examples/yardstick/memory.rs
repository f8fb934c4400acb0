//! What a flow and a VPN session cost in memory.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::address::{D1, WAN, at};
use testkit::clock::holds_within;
use testkit::vpn::raw;
use testkit::{Lab, Nat, packet, pause};

use crate::{Cell, Finding, tables};

/// UDP flows, and after them ESP sessions.
const FLOWS: u16 = 4096;
const SESSIONS: u16 = 1024;
/// Bytes that an idle VPN session may take.
const SESSION_MAY_TAKE: u64 = 1024;
/// Packets sent in a row; the queue is longer.
const BURST: u16 = 128;
const WAIT: Duration = Duration::from_secs(10);

/// A server that swallows what it gets; `number` tells many apart.
fn server(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 20, high, low)
}

pub(crate) fn measure(lab: &mut Lab) -> Cell {
    lab.internet.ip("route add blackhole 10.20.0.0/16\n");
    if lab.nat() == Nat::Natd { natd(lab) } else { kernel(lab) }
}

fn kernel(lab: &mut Lab) -> Cell {
    let object = slab_object().ok_or("no nf_conntrack in /proc/slabinfo")?;
    let before = kernel_memory()?;
    open_flows(lab);
    let entries = entries(lab);
    let per_flow = kernel_memory()?.saturating_sub(before) / entries.max(1);
    let words = format!("{object} B an entry, with its extensions {per_flow} B ({entries} flows)");
    Ok(Finding { words, right: false })
}

/// Bytes of one conntrack entry, without its extensions.
fn slab_object() -> Option<u64> {
    let slabs = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = slabs.lines().find(|line| line.starts_with("nf_conntrack "))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Bytes of the kernel's memory that it cannot give back: entries and their extensions are in it.
fn kernel_memory() -> Result<u64, String> {
    kilobytes("/proc/meminfo", "SUnreclaim:")
}

fn kilobytes(file: &str, name: &str) -> Result<u64, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    value.map(|value| value * 1024).ok_or_else(|| format!("{file} has no {name}"))
}

/// Conntrack's entries.
fn entries(lab: &Lab) -> u64 {
    lab.router.run(&["conntrack", "-C"]).stdout.trim().parse().unwrap_or(0)
}

fn open_flows(lab: &Lab) {
    let device = lab.d1.raw();
    for number in 0..FLOWS {
        device.send(&packet::udp(at(D1, 10_000 + number), at(server(1), 9), b"?"));
        if number % BURST == 0 {
            pause(Duration::from_millis(10));
        }
    }
    pause(Duration::from_millis(500));
}

fn natd(lab: &mut Lab) -> Cell {
    let status = format!("/proc/{}/status", lab.natd().process().pid());
    let resident = || kilobytes(&status, "VmRSS:");
    let before = resident()?;
    open_flows(lab);
    let flows =
        tables::number(&lab.natd().command(&["status", "--json"]).expect_success(), "udp").unwrap_or(0);
    let with_flows = resident()?;
    let sessions = open_sessions(lab);
    let with_sessions = resident()?;
    let per_flow = with_flows.saturating_sub(before) / flows.max(1);
    let per_session = with_sessions.saturating_sub(with_flows) / sessions.max(1);
    let words = format!(
        "{per_flow} B a flow ({flows} flows), beside the kernel's entry; {per_session} B an ESP session ({sessions} sessions)"
    );
    let all = flows >= u64::from(FLOWS) && sessions == u64::from(SESSIONS);
    Ok(Finding { words, right: all && per_session <= SESSION_MAY_TAKE })
}

/// ESP between d1 and many servers, each of which answers; says how many natd has.
fn open_sessions(lab: &mut Lab) -> u64 {
    let (device, internet) = (lab.d1.raw(), lab.internet.raw());
    for number in 0..SESSIONS {
        let spi = u32::from(number) + 0x2000;
        device.send(&raw::esp(D1, server(number), spi, 1));
        if number % BURST == 0 {
            pause(Duration::from_millis(10));
        }
    }
    pause(Duration::from_millis(300));
    for number in 0..SESSIONS {
        internet.send(&raw::esp(server(number), WAN, u32::from(number) + 0x1000_0000, 1));
        if number % BURST == 0 {
            pause(Duration::from_millis(10));
        }
    }
    let natd = lab.natd();
    let mut count = 0;
    holds_within(WAIT, || {
        let listed = natd.command(&["sessions", "--json"]).stdout;
        count = listed.matches("\"learned\":\"").count();
        count == usize::from(SESSIONS)
    });
    u64::try_from(count).unwrap_or(0)
}
