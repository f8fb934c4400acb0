//! `[[forward]]`: port forwards.

use std::collections::BTreeSet;

use nat_core::flow::Protocol;
use nat_core::policy::{Forward, PortRange};

use super::document::{Document, Section};
use super::item::Item;
use super::nat::{port, port_range};
use super::{Findings, Problem};

const PROTOCOLS: [(&str, &[Protocol]); 3] =
    [("tcp", &[Protocol::Tcp]), ("udp", &[Protocol::Udp]), ("tcp+udp", &[Protocol::Tcp, Protocol::Udp])];

/// External ports that are taken: for the search of overlaps.
struct Taken<'d> {
    protocol: Protocol,
    ports: PortRange,
    item: Item<'d>,
}

/// Every forward, in the order of the file; `"tcp+udp"` makes two.
pub(super) fn read(document: &Document<'_>, findings: &mut Findings) -> Vec<Forward> {
    let mut forwards = Vec::new();
    let mut taken = Vec::new();
    for section in document.sections("forward") {
        let protocols =
            required(&section, "protocol", "add protocol = \"tcp\", \"udp\" or \"tcp+udp\"", findings)
                .and_then(|item| findings.take(Some(item), |item| item.choice(&PROTOCOLS)));
        let external =
            required(&section, "external", "add the port on the WAN address: external = 443", findings);
        let ports = findings.take(external, external_ports);
        let host = required(&section, "host", "add the device's address: host = \"192.168.1.10\"", findings)
            .and_then(|item| findings.take(Some(item), Item::host));
        let internal = match (section.item("internal"), ports) {
            (None, ports) => ports.map(PortRange::first),
            (item, ports) => findings.take(item, |item| internal_port(item, ports)),
        };
        findings.take(section.item("comment"), |item| item.text("put it in quotes"));

        for protocol in protocols.unwrap_or_default() {
            if let (Some(item), Some(ports)) = (external, ports) {
                taken.push(Taken { protocol: *protocol, ports, item });
            }
            if let (Some(external), Some(host), Some(internal_first)) = (ports, host, internal) {
                forwards.push(Forward { protocol: *protocol, external, host, internal_first });
            }
        }
    }
    findings.problems.extend(overlaps(taken));
    forwards
}

fn required<'d>(
    section: &Section<'d>,
    key: &'static str,
    expected: &str,
    findings: &mut Findings,
) -> Option<Item<'d>> {
    let item = section.item(key);
    if item.is_none() {
        findings.problems.extend(section.missing(key, expected));
    }
    item
}

fn external_ports(item: &Item<'_>) -> Result<PortRange, Problem> {
    let expected = "use a port from 1 to 65535, or a range such as \"6000-6010\"";
    if item.as_number().is_some() {
        let single =
            item.number(1..=u16::MAX).map_err(|problem| Problem { expected: expected.to_owned(), ..problem });
        return single
            .and_then(|port| PortRange::new(port, port).ok_or_else(|| item.refused("is no port", expected)));
    }
    let text = item.text(expected)?;
    let range = port(text).and_then(|port| PortRange::new(port, port)).or_else(|| port_range(text));
    range.ok_or_else(|| item.refused("is neither a port nor a range of ports", expected))
}

fn internal_port(item: &Item<'_>, external: Option<PortRange>) -> Result<u16, Problem> {
    let first = item.number(1..=u16::MAX)?;
    let count = external.map_or(1, PortRange::count);
    let highest = u32::from(u16::MAX) + 1 - count;
    if u32::from(first) > highest {
        return Err(item.refused(
            &format!("leaves no room for {count} ports below 65536"),
            format!("use a port from 1 to {highest}"),
        ));
    }
    Ok(first)
}

/// One problem for each pair of forwards that claim the same port, on the later one's line.
fn overlaps(mut taken: Vec<Taken<'_>>) -> Vec<Problem> {
    taken.sort_by_key(|entry| (entry.protocol, entry.ports.first(), entry.item.line));
    let mut problems = Vec::new();
    let mut told = BTreeSet::new();
    let mut widest: Option<Taken<'_>> = None;
    for entry in taken {
        if let Some(other) = widest.as_ref().filter(|other| other.protocol == entry.protocol) {
            let (earlier, later) =
                if other.item.line <= entry.item.line { (other, &entry) } else { (&entry, other) };
            let shared = entry.ports.first();
            if other.ports.contains(shared) && told.insert((earlier.item.line, later.item.line)) {
                problems.push(later.item.refused(
                    &format!(
                        "overlaps line {}: both forward {} port {shared}",
                        earlier.item.line, entry.protocol
                    ),
                    "give every forward ports of its own",
                ));
            }
            if other.ports.last() >= entry.ports.last() {
                continue;
            }
        }
        widest = Some(entry);
    }
    problems
}
