//! What concerns the line and the router as a whole, and what several pairs show together.

use core::time::Duration;
use std::net::IpAddr;

use nat_core::time::Timestamp;
use passthrough::view::{Phase, Vpn};

use crate::attempts::CERTAIN;
use crate::code::Code;
use crate::finding::{Confidence, Evidence, Findings};
use crate::household::Context;
use crate::pair::Pair;
use crate::router::Router;

/// Changes of the WAN within that time belong together, and a lack of ports is forgotten after it.
const SPELL: Duration = Duration::from_secs(600);
/// So many changes are no mere reconnection, which is two.
const FLAPS: usize = 3;
/// Certificates are judged by a clock that is wrong by no more, in seconds.
const SKEW: u64 = 300;

/// What is wrong with the line; here device and server of a finding are to be filled in where it has them.
///
/// Split traffic (a device that uses its tunnel and sends much beside it) is not among it: no tracker sees what
/// a device sends to servers that are no VPN's.
pub fn findings(context: &Context<'_>, findings: &mut Findings) {
    let now = context.now;
    let pairs = || context.household.pairs();
    let fails = pairs().any(|pair| fails(pair, now));
    let ipsec = pairs().any(|pair| pair.ipsec.is_some());
    of_router(now, context.router, fails, ipsec, findings);
    let works = context.household.tls.works_since(now, SPELL);
    if let (Some(works), Some((sure, mut evidence))) = (works, silent_all(pairs(), now)) {
        evidence.push(works);
        findings.add(Code::Only443, sure, None, 0, now, evidence);
    }
}

/// What the router knows of itself. `fails`: some VPN does not come up; `ipsec`: somebody uses IPsec.
fn of_router(now: Timestamp, router: &Router, fails: bool, ipsec: bool, findings: &mut Findings) {
    let mut add = |code, sure, since, what: String| {
        findings.add(code, sure, None, 0, since, vec![Evidence::fact(what)]);
    };
    if router.wan_up == Some(false) {
        let since = router.link_changes.last().copied().unwrap_or(now);
        add(Code::WanDown, Confidence::High, since, "the WAN is down or has no address".to_owned());
    }
    let recent = || router.link_changes.iter().filter(|change| now.since(**change) <= SPELL);
    if let Some(first) = recent().next().filter(|_| recent().count() >= FLAPS) {
        let what = format!("the WAN went up or down {} times in ten minutes", recent().count());
        add(Code::WanLinkFlap, Confidence::High, *first, what);
    }
    let exhausted = router.exhausted.filter(|&(count, last)| count > 0 && now.since(last) <= SPELL);
    if let Some((count, last)) = exhausted {
        let what = format!("{count} times there was no port or no room left");
        add(Code::NatTableFull, Confidence::High, last, what);
    }
    if let Some(skew) = router.clock_skew.filter(|skew| skew.unsigned_abs() > SKEW && fails) {
        let what = format!("the router's clock is wrong by {} s", skew.unsigned_abs());
        add(Code::ClockWrong, Confidence::Medium, now, what);
    }
    for wan in &router.wan {
        let IpAddr::V4(address) = wan else { continue };
        let code = match address.octets() {
            _ if address.is_private() => Code::DoubleNat,
            // RFC 6598.
            [100, 64..=127, ..] => Code::Cgnat,
            _ => continue,
        };
        add(code, Confidence::High, now, format!("the WAN's own address is {wan}"));
    }
    let has = |port| router.shared_ports.iter().any(|ports| ports.contains(&port));
    if ipsec && !router.shared_ports.is_empty() && !(has(500) && has(4500)) {
        let what = "the line's share of the address has no port 500 or 4500".to_owned();
        add(Code::SharedIpv4Port, Confidence::High, now, what);
    }
}

/// What else works, to tell a blocked protocol from a dead server or line: the same protocol of the same device
/// with another server, and other traffic with this one.
pub(crate) fn control(context: &Context<'_>, vpn: Vpn) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    let Some(pair) = context.pair else { return evidence };
    let recent = |at: Timestamp| context.now.since(at) <= SPELL;
    let works = |other: &&Pair| {
        recent(other.last_seen)
            && other.sessions(context.now).iter().any(|session| {
                session.vpn == vpn && matches!(session.phase, Phase::Data | Phase::Keepalive | Phase::Rekey)
            })
    };
    if let Some(other) = context.others_of_device().find(works) {
        evidence.push(Evidence::fact(format!("{} works with {}", vpn.name(), other.server)));
    }
    if let Some(heard) = pair.beside.heard.filter(|heard| recent(heard.at)) {
        evidence.push(Evidence::packet("other traffic with this server works", heard));
    }
    evidence
}

/// Is nothing of this pair's working?
fn fails(pair: &Pair, now: Timestamp) -> bool {
    let sessions = pair.sessions(now);
    !sessions.is_empty()
        && sessions.iter().all(|session| matches!(session.phase, Phase::Handshake | Phase::Closed))
}

/// Several servers, several protocols, and no answer to any.
fn silent_all<'a>(
    pairs: impl Iterator<Item = &'a Pair>,
    now: Timestamp,
) -> Option<(Confidence, Vec<Evidence>)> {
    let (mut servers, mut kinds, mut evidence) = (Vec::new(), 0_u8, Vec::new());
    for pair in pairs.filter(|pair| now.since(pair.last_seen) <= SPELL) {
        if pair.heard.is_some() {
            return None;
        }
        if now.since(pair.since) < CERTAIN || !pair.errors.is_empty() {
            continue;
        }
        let there = [
            pair.ipsec.is_some(),
            pair.pptp.is_some(),
            pair.l2tp.is_some(),
            pair.wireguard.is_some(),
            pair.openvpn.is_some(),
        ];
        for (kind, _) in there.iter().enumerate().filter(|(_, there)| **there) {
            kinds |= 1 << kind;
        }
        if !servers.contains(&pair.server) && servers.len() < 8 {
            servers.push(pair.server);
            evidence.push(Evidence::fact(format!("no answer of {}", pair.server)));
        }
    }
    let sure = match (servers.len(), kinds.count_ones()) {
        (0 | 1, _) | (_, 0 | 1) => return None,
        (_, 2) => Confidence::Medium,
        _ => Confidence::High,
    };
    Some((sure, evidence))
}

#[cfg(test)]
mod tests;
