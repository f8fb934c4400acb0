//! What a flow and a VPN session cost in memory.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::address::{D1, WAN, at, device};
use testkit::vpn::raw;
use testkit::{Lab, Nat, packet, pause};

use crate::{Cell, Finding, tables};

/// UDP flows, and after them ESP sessions.
const FLOWS: u16 = 4096;
const DEVICES: u8 = 64;
const SHARED_SERVERS: u16 = 16;
const LONE_SERVERS: u16 = 512;
/// Bytes that an idle VPN session may take.
const SESSION_MAY_TAKE: u64 = 1024;
/// Packets sent in a row; the queue is longer.
const BURST: u16 = 128;
/// Long enough for a burst to be through.
const SETTLED: Duration = Duration::from_millis(40);

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
    let words =
        format!("{object} B an entry, with its extensions {per_flow} B ({entries} flows); ESP's is the same");
    Ok(Finding { words, right: per_flow <= SESSION_MAY_TAKE })
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
    // Not the pages of the program itself, which come in when they are first used.
    let resident = || kilobytes(&status, "RssAnon:");
    let before = resident()?;
    open_flows(lab);
    let with_flows = resident()?;
    // Servers that several devices use, then one server for each session.
    for number in 1..=DEVICES {
        open_sessions(lab, device(number), u32::from(number) << 16, &(0..SHARED_SERVERS).collect::<Vec<_>>());
    }
    let with_shared = resident()?;
    let servers: Vec<u16> = (SHARED_SERVERS..SHARED_SERVERS + LONE_SERVERS).collect();
    // Spread over the devices, since one may not have very many remote hosts.
    for (number, servers) in (1..=DEVICES).zip(servers.chunks(usize::from(LONE_SERVERS / u16::from(DEVICES))))
    {
        open_sessions(lab, device(number), 0x4000_0000 | (u32::from(number) << 16), servers);
    }
    let with_lone = resident()?;
    // Answers to questions take memory too, so they are asked last.
    let flows =
        tables::number(&lab.natd().command(&["status", "--json"]).expect_success(), "udp").unwrap_or(0);
    let listed = lab.natd().command(&["sessions", "--json"]).expect_success();
    let sessions = u64::try_from(listed.matches("\"learned\":\"").count()).unwrap_or(0);
    let shared = u64::from(DEVICES) * u64::from(SHARED_SERVERS);
    let lone = u64::from(LONE_SERVERS);
    if flows < u64::from(FLOWS) || sessions != shared + lone {
        return Err(format!("natd has {flows} flows and {sessions} ESP sessions with both SPIs"));
    }
    let per_flow = with_flows.saturating_sub(before) / flows;
    let per_shared = with_shared.saturating_sub(with_flows) / shared;
    let per_lone = with_lone.saturating_sub(with_shared) / lone;
    let words = format!(
        "{per_flow} B a flow ({flows} flows), beside the kernel's entry; an ESP session {per_shared} B ({DEVICES} devices, each with the same {SHARED_SERVERS} servers), {per_lone} B when its server has no other ({lone} servers)"
    );
    Ok(Finding { words, right: per_shared.max(per_lone) <= SESSION_MAY_TAKE })
}

/// ESP between `device` and each of `servers`, all of which answer.
fn open_sessions(lab: &Lab, device: Ipv4Addr, spis: u32, servers: &[u16]) {
    let (inside, internet) = (lab.d1.raw(), lab.internet.raw());
    for number in servers {
        inside.send(&raw::esp(device, server(*number), spis + u32::from(*number) + 0x2000, 1));
    }
    pause(SETTLED);
    for number in servers {
        internet.send(&raw::esp(server(*number), WAN, spis + u32::from(*number) + 0x1000, 1));
    }
    pause(SETTLED);
}
