//! `[nat]`: interfaces, behaviour and bounds of the translation.

use nat_core::policy::{Filtering, Limits, MssClamp, Policy, PortRange};

use super::document::Document;
use super::item::Item;
use super::{Findings, Problem};

/// How many LAN interfaces there may be.
pub(super) const MAX_LANS: usize = 16;

const FILTERING: [(&str, Filtering); 3] = [
    ("endpoint-independent", Filtering::EndpointIndependent),
    ("address-dependent", Filtering::AddressDependent),
    ("address-and-port-dependent", Filtering::AddressAndPortDependent),
];
/// Ports that devices share are never below this (RFC 4787 REQ-3a: the classes stay apart).
const FIRST_SHARED_PORT: u16 = 1024;
const FEWEST_SHARED_PORTS: u32 = 1024;
/// RFC 879: what every host takes; RFC 9293: an IPv4 host may not be asked for less.
const SMALLEST_MSS: u16 = 536;
const LARGEST_MSS: u16 = 9000;
const SESSIONS: std::ops::RangeInclusive<u32> = 1024..=4_000_000;
const FEWEST_SESSIONS_PER_DEVICE: u32 = 64;
const MOST_HELD_SYNS: u32 = 4096;

/// `lan` and `wan`; `None` when either is missing or wrong.
pub(super) fn interfaces(document: &Document<'_>, findings: &mut Findings) -> Option<(Vec<String>, String)> {
    let section = document.section("nat");
    let lan_item = section.item("lan");
    let wan_item = section.item("wan");
    if lan_item.is_none() {
        findings
            .problems
            .extend(section.missing("lan", "add lan = [\"br-lan\"] below [nat], with your LAN interfaces"));
    }
    if wan_item.is_none() {
        findings
            .problems
            .extend(section.missing("wan", "add wan = \"eth1\" below [nat], with your WAN interface"));
    }
    let lan = lans(lan_item, findings);
    let wan = findings.take(wan_item, |item| interface(item, "such as \"eth1\""))?;
    if let (Some(item), Some(line)) = (wan_item, lan_item.and_then(|lan| line_of(&lan, wan))) {
        let expected = "use the interface towards the internet for wan alone";
        findings.problems.push(item.refused(&format!("is also in lan, on line {line}"), expected));
    }
    Some((lan?, wan.to_owned()))
}

/// Everything else in `[nat]`.
pub(super) fn policy(document: &Document<'_>, findings: &mut Findings) -> Policy {
    let section = document.section("nat");
    let mut policy = Policy::default();
    findings.set(&mut policy.filtering, section.item("filtering"), |item| item.choice(&FILTERING));
    findings.set(&mut policy.ports, section.item("ports"), shared_ports);
    findings.set(&mut policy.hairpin, section.item("hairpin"), Item::boolean);
    findings.set(&mut policy.inbound_refresh, section.item("inbound_refresh"), Item::boolean);
    findings.set(&mut policy.mss_clamp, section.item("mss_clamp"), mss_clamp);
    policy.exposed_host = findings.take(section.item("exposed_host"), Item::host);
    if let (false, Some(item)) = (policy.hairpin, section.item("hairpin")) {
        findings.remarks.push(
            item.remark(
                "devices cannot reach each other through the WAN address; RFC 4787 REQ-9 requires it",
            ),
        );
    }
    policy.limits = limits(document, findings);
    policy
}

fn limits(document: &Document<'_>, findings: &mut Findings) -> Limits {
    let section = document.section("nat");
    let mut limits = Limits::default();
    let sessions = section.item("max_sessions");
    let all = findings.take(sessions, |item| item.number(SESSIONS));
    limits.sessions = all.unwrap_or(limits.sessions);
    limits.sessions_per_device = limits.sessions_per_device.min(limits.sessions);
    // While max_sessions itself is wrong, only its own bound can be held against the other.
    let most = if sessions.is_some() && all.is_none() { *SESSIONS.end() } else { limits.sessions };
    findings.set(&mut limits.sessions_per_device, section.item("max_sessions_per_device"), |item| {
        let of_device = item.number(FEWEST_SESSIONS_PER_DEVICE..=*SESSIONS.end())?;
        if of_device > most {
            let place = sessions.map_or(String::new(), |sessions| format!(" on line {}", sessions.line));
            return Err(item.refused(
                &format!("is more than max_sessions, {most}{place}"),
                format!("use a whole number from {FEWEST_SESSIONS_PER_DEVICE} to {most}"),
            ));
        }
        Ok(of_device)
    });
    findings
        .set(&mut limits.held_syns, section.item("max_held_syns"), |item| item.number(0..=MOST_HELD_SYNS));
    if let (0, Some(item)) = (limits.held_syns, section.item("max_held_syns")) {
        findings.remarks.push(item.remark(super::timeout::NO_SYN_HOLD));
    }
    limits
}

fn lans(item: Option<Item<'_>>, findings: &mut Findings) -> Option<Vec<String>> {
    let item = item?;
    let entries = findings.take(Some(item), |item| {
        let example = item.as_text().map_or("[\"br-lan\"]".to_owned(), |_| format!("[{}]", item.shown()));
        let entries = item.list(format!("use a list in brackets: {example}"))?;
        match entries.len() {
            0 => {
                Err(item
                    .refused("is empty", "name the interfaces of your home network, such as [\"br-lan\"]"))
            }
            1..=MAX_LANS => Ok(entries),
            many => Err(item.problem(format!("has {many} interfaces"), format!("name at most {MAX_LANS}"))),
        }
    })?;
    let mut names: Vec<String> = Vec::new();
    for entry in &entries {
        let Some(name) = findings.take(Some(*entry), |entry| interface(entry, "such as \"br-lan\"")) else {
            continue;
        };
        if names.iter().any(|earlier| earlier == name) {
            findings.problems.push(entry.refused("is there twice", "name every interface once"));
        } else {
            names.push(name.to_owned());
        }
    }
    Some(names)
}

/// The line on which the list `lan` names `wan`.
fn line_of(lan: &Item<'_>, wan: &str) -> Option<usize> {
    let entries = lan.list("").ok()?;
    entries.iter().find(|entry| entry.as_text() == Some(wan)).map(|entry| entry.line)
}

/// A name that Linux takes and that means one interface only, also in the rules of nft and iptables.
fn interface<'d>(item: &Item<'d>, example: &str) -> Result<&'d str, Problem> {
    let expected =
        format!("use an interface name, {example}: 1 to 15 letters, digits, \".\", \"_\" or \"-\"");
    let name = item.text(&expected)?;
    let fits = (1..=15).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !name.starts_with('-')
        && !matches!(name, "." | "..");
    if !fits {
        return Err(item.refused("is not an interface name", expected));
    }
    if name == "lo" {
        return Err(item.refused("is the router's own loopback", expected));
    }
    Ok(name)
}

fn shared_ports(item: &Item<'_>) -> Result<PortRange, Problem> {
    let expected = "use a range such as \"1024-65535\", within it and at least 1024 ports wide";
    let range =
        port_range(item.text(expected)?).ok_or_else(|| item.refused("is not a range of ports", expected))?;
    if range.first() < FIRST_SHARED_PORT {
        return Err(item.refused("begins below 1024", expected));
    }
    if range.count() < FEWEST_SHARED_PORTS {
        return Err(item.refused(&format!("has {} ports", range.count()), expected));
    }
    Ok(range)
}

/// `"6000-6010"`; `None` when it is not two ports in order.
pub(super) fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-')?;
    PortRange::new(port(first)?, port(last)?)
}

/// `"443"`; digits alone, since `parse` would take a plus sign.
pub(super) fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn mss_clamp(item: &Item<'_>) -> Result<MssClamp, Problem> {
    let expected = format!("use \"auto\", a whole number from {SMALLEST_MSS} to {LARGEST_MSS}, or false");
    match (item.as_text(), item.as_bool()) {
        (Some("auto"), _) => Ok(MssClamp::Auto),
        (Some(_), _) => Err(item.unknown_word(["auto"], expected)),
        (None, Some(false)) => Ok(MssClamp::Off),
        (None, Some(true)) => Err(item.wrong_kind(expected)),
        (None, None) => match item.number(SMALLEST_MSS..=LARGEST_MSS) {
            Ok(mss) => Ok(MssClamp::To(mss)),
            Err(problem) => Err(Problem { expected, ..problem }),
        },
    }
}
