//! `[[forward]]`: port forwards.

use nat_core::flow::Protocol;
use nat_core::policy::{Forward, PortRange};
use passthrough::settings::{Carrier, InsideServer, Scope, Settings};

use super::document::{Document, Section};
use super::item::Item;
use super::nat::{port, port_range};
use super::{Findings, Problem, Remark};
use crate::order;

const PROTOCOLS: [(&str, Kind); 6] = [
    ("tcp", Kind::Ports(&[Protocol::Tcp])),
    ("udp", Kind::Ports(&[Protocol::Udp])),
    ("tcp+udp", Kind::Ports(&[Protocol::Tcp, Protocol::Udp])),
    (Carrier::Esp.name(), Kind::Portless(Carrier::Esp)),
    (Carrier::Gre.name(), Kind::Portless(Carrier::Gre)),
    (Carrier::L2tpIp.name(), Kind::Portless(Carrier::L2tpIp)),
];
/// A VPN's port on a server, and the switch of `[passthrough]` that it hangs on.
struct VpnPort {
    protocol: Protocol,
    port: u16,
    switch: &'static str,
    is_on: fn(&Settings) -> bool,
}

/// What natd can forward in scope "vpn".
const VPN_PORTS: [VpnPort; 4] = [
    VpnPort { protocol: Protocol::Udp, port: 500, switch: "ipsec", is_on: |settings| settings.ipsec.on },
    VpnPort { protocol: Protocol::Udp, port: 4500, switch: "ipsec", is_on: |settings| settings.ipsec.on },
    VpnPort { protocol: Protocol::Udp, port: 1701, switch: "l2tp", is_on: |settings| settings.l2tp.on },
    VpnPort { protocol: Protocol::Tcp, port: 1723, switch: "pptp", is_on: |settings| settings.pptp.on },
];

/// What a forward's protocol is told by.
#[derive(Clone, Copy)]
enum Kind {
    Ports(&'static [Protocol]),
    Portless(Carrier),
}

/// External ports that are taken: for the search of overlaps.
struct Taken<'d> {
    protocol: Protocol,
    ports: PortRange,
    item: Item<'d>,
}

/// Every forward by port, in the order of the file; `"tcp+udp"` makes two. Those without ports go into
/// `settings`.
pub(super) fn read(
    document: &Document<'_>,
    settings: &mut Settings,
    findings: &mut Findings,
) -> Vec<Forward> {
    let mut forwards = Vec::new();
    let mut taken = Vec::new();
    let mut servers: Vec<(Carrier, usize)> = Vec::new();
    for section in document.sections("forward") {
        let wanted = "add protocol = \"tcp\", \"udp\", \"tcp+udp\", \"esp\", \"gre\" or \"l2tpv3\"";
        let protocol = required(&section, "protocol", wanted, findings);
        let kind = findings.take(protocol, |item| item.choice(&PROTOCOLS));
        let (external, internal) = (section.item("external"), section.item("internal"));
        let is_portless = matches!(kind, Some(Kind::Portless(_)));
        // Whether a protocol that is not known has ports is not known either.
        if !is_portless && (kind.is_some() || protocol.is_none()) {
            required(&section, "external", "add the port on the WAN address: external = 443", findings);
        }
        let ports = findings.take(external.filter(|_| !is_portless), external_ports);
        let host = required(&section, "host", "add the device's address: host = \"192.168.1.10\"", findings)
            .and_then(|item| findings.take(Some(item), Item::host));
        findings.take(section.item("comment"), |item| item.text("put it in quotes"));
        if let (Some(Kind::Portless(carrier)), Some(item)) = (kind, protocol) {
            portless(carrier, item, [external, internal], &servers, settings, findings);
            servers.push((carrier, item.line));
            settings.servers.extend(host.map(|host| InsideServer { carrier, host }));
            continue;
        }
        let internal_first = match (internal, ports) {
            (None, ports) => ports.map(PortRange::first),
            (item, ports) => findings.take(item, |item| internal_port(item, ports)),
        };
        let Some(Kind::Ports(protocols)) = kind else { continue };
        for protocol in protocols {
            let (Some(item), Some(ports)) = (external, ports) else { continue };
            taken.push(Taken { protocol: *protocol, ports, item });
            of_a_vpn(*protocol, ports, [external, internal], internal_first, settings, findings);
            if let (Some(host), Some(internal_first)) = (host, internal_first) {
                forwards.push(Forward { protocol: *protocol, external: ports, host, internal_first });
            }
        }
    }
    findings.problems.extend(overlaps(taken));
    forwards
}

/// What is wrong or odd about a forward of a protocol without ports.
fn portless(
    carrier: Carrier,
    item: Item<'_>,
    ports: [Option<Item<'_>>; 2],
    earlier: &[(Carrier, usize)],
    settings: &Settings,
    findings: &mut Findings,
) {
    findings.problems.extend(ports.into_iter().flatten().map(|port| {
        port.problem(format!("{} has no ports", carrier.name()), "remove it; host alone is needed")
    }));
    if let Some((_, line)) = earlier.iter().find(|(other, _)| *other == carrier) {
        findings.problems.push(item.refused(
            &format!("is also forwarded on line {line}"),
            "forward it to one host: without ports, nothing tells two apart",
        ));
    }
    let switch = match carrier {
        Carrier::Esp => Some("ipsec").filter(|_| !settings.ipsec.on),
        Carrier::L2tpIp => Some("l2tp").filter(|_| !settings.l2tp.on),
        // GRE has other uses than PPTP.
        Carrier::Gre => None,
    };
    findings.remarks.extend(switch.map(|switch| is_off(item, switch)));
}

/// What is wrong or odd about a forward of ports, seen as that of a VPN server.
fn of_a_vpn(
    protocol: Protocol,
    ports: PortRange,
    items: [Option<Item<'_>>; 2],
    internal: Option<u16>,
    settings: &Settings,
    findings: &mut Findings,
) {
    let [Some(external), inside] = items else { return };
    let mut found = VPN_PORTS.iter().filter(|vpn| vpn.protocol == protocol && ports.contains(vpn.port));
    if let Some(vpn) = found.clone().find(|vpn| !(vpn.is_on)(settings)) {
        findings.remarks.push(is_off(external, vpn.switch));
    }
    if settings.scope == Scope::All {
        return;
    }
    if found.next().is_none() || ports.count() > 1 {
        findings.problems.push(external.refused(
            &format!("as {protocol} is not a VPN's port, and scope is \"vpn\""),
            "forward UDP 500, 4500 and 1701, TCP 1723, esp, gre and l2tpv3 here, and anything else in the firewall",
        ));
    } else if let (Some(inside), true) = (inside, internal.is_some_and(|port| port != ports.first())) {
        findings.problems.push(inside.refused(
            "is another port than external, which natd would not see in scope \"vpn\"",
            "remove it, and let the server listen on the VPN's own port",
        ));
    }
}

fn is_off(item: Item<'_>, switch: &str) -> Remark {
    item.remark(format!("{switch} is false in [passthrough]: no tunnel of such a server crosses"))
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
fn overlaps(taken: Vec<Taken<'_>>) -> Vec<Problem> {
    // They come in the order of their lines, and equal keys keep it.
    let taken = order::by(taken, |entry| (entry.protocol as u64) << 16 | u64::from(entry.ports.first()));
    let mut problems = Vec::new();
    let mut told = Vec::new();
    let mut widest: Option<Taken<'_>> = None;
    for entry in taken {
        if let Some(other) = widest.as_ref().filter(|other| other.protocol == entry.protocol) {
            let (earlier, later) =
                if other.item.line <= entry.item.line { (other, &entry) } else { (&entry, other) };
            let shared = entry.ports.first();
            if other.ports.contains(shared) && order::insert(&mut told, (earlier.item.line, later.item.line))
            {
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
