//! `[nat] scope`, `[passthrough]`, `[ipsec]`, `[pptp]`, `[l2tp]`: which VPNs cross, for whom.

use std::time::Duration;

use passthrough::settings::{Access, Prefix, Scope, Settings};

use super::document::{Document, Section};
use super::item::Item;
use super::timeout::duration;
use super::{Findings, Problem, nat};

const SCOPES: [(&str, Scope); 2] = [("all", Scope::All), ("vpn", Scope::Vpn)];
const MOST_FAN_OUT: u8 = 8;
/// In seconds. An IKE or ESP exchange gives up or repeats itself before.
const LONGEST_HOLD: u64 = 5;
/// How many entries a list may have: each is compared with when a session begins.
const MOST_PREFIXES: usize = 64;

/// The settings; what the file does not name keeps its default.
pub(super) fn read(document: &Document<'_>, findings: &mut Findings) -> Settings {
    let mut settings = Settings::default();
    let nat = document.section("nat");
    findings.set(&mut settings.scope, nat.item("scope"), |item| item.choice(&SCOPES));
    if settings.scope == Scope::Vpn {
        beside_the_kernel(&nat, findings);
    }
    let switches = document.section("passthrough");
    for (name, access) in
        [("ipsec", &mut settings.ipsec), ("pptp", &mut settings.pptp), ("l2tp", &mut settings.l2tp)]
    {
        findings.set(&mut access.on, switches.item(name), Item::boolean);
        lists(&document.section(name), access, findings);
    }
    if let (true, Some(item)) = (settings.pptp.on, switches.item("pptp")) {
        findings
            .remarks
            .push(item.remark("PPTP's encryption is broken: whoever can record the tunnel can read it"));
    }
    findings.set(&mut settings.multi, switches.item("multi"), Item::boolean);
    let ipsec = document.section("ipsec");
    findings.set(&mut settings.fan_out, ipsec.item("fan_out"), |item| item.number(0..=MOST_FAN_OUT));
    if let (0, Some(item)) = (settings.fan_out, ipsec.item("fan_out")) {
        findings.remarks.push(item.remark(
            "ESP that could be for one of several devices is then dropped, until their tunnels start anew",
        ));
    }
    let hold = findings.take(ipsec.item("hold"), |item| duration(item, &(0..=LONGEST_HOLD)));
    settings.hold = hold.map_or(settings.hold, Duration::from_secs);
    settings
}

/// What of `[nat]` makes no sense in scope "vpn".
fn beside_the_kernel(nat: &Section<'_>, findings: &mut Findings) {
    if let Some(item) = nat.item("exposed_host") {
        findings.problems.push(item.problem(
            "does not go with scope = \"vpn\", in which natd sees nothing but VPNs",
            "remove it, and let the firewall forward to that device",
        ));
    }
    for key in ["hairpin", "max_held_syns"] {
        let unused = nat.item(key).map(|item| item.remark("does nothing in scope = \"vpn\""));
        findings.remarks.extend(unused);
    }
}

/// `devices` and `servers` of one kind of VPN.
fn lists(section: &Section<'_>, access: &mut Access, findings: &mut Findings) {
    for (key, list, whose) in
        [("devices", &mut access.devices, "device"), ("servers", &mut access.servers, "server")]
    {
        let item = section.item(key);
        *list = prefixes(item, whose, findings);
        if let (false, false, Some(item)) = (access.on, list.is_empty(), item) {
            let switch = section.name;
            findings
                .remarks
                .push(item.remark(format!("does nothing as long as {switch} is false in [passthrough]")));
        }
    }
}

fn prefixes(item: Option<Item<'_>>, whose: &str, findings: &mut Findings) -> Vec<Prefix> {
    let entries = findings.take(item, |item| {
        let entries = item.list("use a list in brackets: [\"192.0.2.10\", \"198.51.100.0/24\"]")?;
        match entries.len() {
            0..=MOST_PREFIXES => Ok(entries),
            many => Err(item.problem(
                format!("has {many} entries"),
                format!("name at most {MOST_PREFIXES}; a network is one"),
            )),
        }
    });
    let mut prefixes: Vec<Prefix> = Vec::new();
    for entry in entries.unwrap_or_default() {
        match findings.take(Some(entry), |entry| prefix(entry, whose)) {
            Some(prefix) if prefixes.contains(&prefix) => {
                findings.problems.push(entry.refused("is there twice", "name every entry once"));
            }
            Some(prefix) => prefixes.push(prefix),
            None => {}
        }
    }
    prefixes
}

/// `"192.0.2.10"` or `"192.0.2.0/24"`.
fn prefix(item: &Item<'_>, whose: &str) -> Result<Prefix, Problem> {
    let expected = "use an IPv4 address or network, such as \"192.0.2.10\" or \"192.0.2.0/24\"";
    let text = item.text(expected)?;
    let (addr, len) = text.split_once('/').unwrap_or((text, "32"));
    let len = nat::port(len).and_then(|len| u8::try_from(len).ok()).filter(|len| *len <= 32);
    let (Ok(addr), Some(len)) = (addr.parse::<std::net::Ipv4Addr>(), len) else {
        return Err(item.refused("is neither an IPv4 address nor a network", expected));
    };
    let host_bits = u32::MAX.checked_shr(len.into()).unwrap_or(0);
    if addr.to_bits() & host_bits != 0 {
        let network = std::net::Ipv4Addr::from_bits(addr.to_bits() & !host_bits);
        return Err(item.refused(
            &format!("is not the address of a network of length {len}"),
            format!("use \"{network}/{len}\" for the network or \"{addr}\" for the {whose}"),
        ));
    }
    let [first, ..] = addr.octets();
    if (first == 0 && len > 0) || first >= 224 || addr.is_loopback() {
        return Err(item.refused(&format!("is not an address that a {whose} can have"), expected));
    }
    Ok(Prefix { addr, len })
}
