//! What is wrong, gathered from all trackers, the most important first.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

use nat_core::time::Timestamp;
use passthrough::sorted::SortedMap;
use passthrough::view::{Phase, Vpn};

use super::{Context, Household};
use crate::code::{Code, Group};
use crate::finding::{Confidence, Evidence, Finding, Findings};
use crate::line;
use crate::observation::IcmpKind;
use crate::pair::{Crossing, Pair};
use crate::session::Session;

impl Household {
    /// What is wrong at `now`, the most important first; `device` and `server` narrow it down.
    pub fn findings(&self, now: Timestamp, device: Option<IpAddr>, server: Option<IpAddr>) -> Vec<Finding> {
        let context = Context {
            now,
            household: self,
            pair: None,
            router: &self.router,
            vantage: &self.settings.vantage,
        };
        let mut all = Findings::default();
        for pair in self.pairs() {
            if device.is_some_and(|device| pair.device != device) {
                continue;
            }
            let context = Context { pair: Some(pair), ..context };
            let mut found = Findings::default();
            pair.findings(&context, &mut found);
            firewall(pair, &context, &mut found);
            let sessions = pair.sessions(now);
            for mut finding in found.list {
                (finding.device, finding.server) = (Some(pair.device), Some(pair.server));
                finding.overcome |= sessions.iter().any(|session| overcomes(session, &finding));
                all.list.push(finding);
            }
        }
        self.tls.findings(&context, &mut all);
        self.dns.findings(&context, &mut all);
        line::findings(&context, &mut all);
        let asked =
            |wanted: Option<IpAddr>, has: Option<IpAddr>| wanted.is_none() || has.is_none() || wanted == has;
        // What is about a name has its resolver there, and nobody knows the server's address.
        let nameless = |code| matches!(code, Code::DnsFail | Code::DnsLies);
        all.list.retain(|finding| {
            asked(device, finding.device) && (asked(server, finding.server) || nameless(finding.code))
        });
        // Each is put in its place by one move of pointers; the standard library's sort is a lot of code.
        let mut list: Vec<Box<Finding>> = Vec::new();
        for finding in prune(all.list) {
            let at = list.partition_point(|other| rank(other) <= rank(&finding));
            list.insert(at, Box::new(finding));
        }
        list.into_iter().map(|finding| *finding).collect()
    }
}

/// What comes first in a list.
fn rank(finding: &Finding) -> (bool, bool, bool, Group, Reverse<Confidence>, Reverse<Timestamp>) {
    let group = finding.code.group();
    let is_vague = finding.confidence == Confidence::Low;
    (
        finding.overcome,
        group == Group::Note,
        is_vague,
        group,
        Reverse(finding.confidence),
        Reverse(finding.since),
    )
}

/// Did this session show that what was found is over?
fn overcomes(session: &Session, finding: &Finding) -> bool {
    let works = match session.phase {
        Phase::Handshake | Phase::Closed => false,
        Phase::Established | Phase::Data | Phase::Keepalive | Phase::Idle | Phase::Rekey => true,
    };
    works
        && session.attempt > finding.attempt
        && finding.vpn.is_some_and(|vpn| family(vpn) == family(session.vpn))
}

/// Protocols that are parts of one VPN.
pub(super) const fn family(vpn: Vpn) -> u8 {
    match vpn {
        Vpn::Ike | Vpn::NatTraversal | Vpn::Esp => 0,
        Vpn::L2tp | Vpn::L2tpV3 => 1,
        Vpn::Pptp => 2,
        Vpn::Gre => 3,
        Vpn::OpenVpn => 4,
        Vpn::WireGuard => 5,
    }
}

/// Takes out what another finding explains: where the router or somebody on the way said no, silence is no
/// second problem.
fn prune(list: Vec<Finding>) -> Vec<Finding> {
    // The strongest kind of cause that is found of each pair, each device, each server, and the line.
    let mut causes: SortedMap<(Option<IpAddr>, Option<IpAddr>), Group> = SortedMap::new();
    for finding in &list {
        let group = finding.code.group();
        if group <= Group::Refusal && finding.confidence >= Confidence::Medium && !finding.overcome {
            let about = (finding.device, finding.server);
            let known = causes.get(&about).copied().unwrap_or(group);
            causes.insert(about, group.min(known));
        }
    }
    let explained = |finding: &Finding| {
        let (device, server) = (finding.device, finding.server);
        let stronger = |about| causes.get(&about).is_some_and(|&group| group < finding.code.group());
        finding.code.group() != Group::Note
            && [(device, server), (device, None), (None, server), (None, None)].into_iter().any(stronger)
    };
    let mut list = list;
    list.retain(|finding| finding.overcome || !explained(finding));
    list
}

/// Packets that came to the router and did not leave it, though natd refused nothing.
fn firewall(pair: &Pair, context: &Context<'_>, findings: &mut Findings) {
    const PACKETS: u64 = 3;
    const RECENT: Duration = Duration::from_secs(600);
    let router = context.router;
    if !(context.vantage.lan && context.vantage.wan) || router.wan_up == Some(false) {
        return;
    }
    for crossing in &pair.crossings {
        let (protocol, _) = crossing.protocol;
        if router.refused(pair.device, pair.server, protocol).any(|r| context.now.since(r.last) < RECENT) {
            continue;
        }
        let own = |kind: fn(IcmpKind) -> bool| {
            pair.errors.iter().any(|error| {
                error.protocol == protocol && router.own.contains(&error.from) && kind(error.kind)
            })
        };
        // No way out is no firewall.
        if own(|kind| {
            matches!(kind, IcmpKind::HostUnreachable | IcmpKind::NetUnreachable | IcmpKind::TooBig(_))
        }) {
            continue;
        }
        let refused = own(|kind| matches!(kind, IcmpKind::Prohibited | IcmpKind::PortUnreachable));
        if let Some(evidence) = outbound(crossing, PACKETS).or_else(|| inbound(crossing, PACKETS)) {
            let confidence = if refused { Confidence::High } else { Confidence::Medium };
            let since = evidence.first.map_or(pair.since, |first| first.at);
            findings.add(
                Code::LocalFirewall,
                confidence,
                vpn(crossing.protocol),
                u32::MAX,
                since,
                vec![evidence],
            );
            return;
        }
    }
}

fn outbound(crossing: &Crossing, enough: u64) -> Option<Evidence> {
    let (first, last) = crossing.swallowed_at?;
    let dropped = crossing.swallowed >= enough && !crossing.left_since;
    dropped.then(|| {
        Evidence::packets(
            "came from the device and did not leave on the WAN",
            crossing.swallowed,
            first,
            last,
        )
    })
}

fn inbound(crossing: &Crossing, enough: u64) -> Option<Evidence> {
    let (first, last) = crossing.undelivered_at?;
    let dropped = crossing.undelivered >= enough && crossing.delivered == 0;
    dropped.then(|| {
        Evidence::packets("came in on the WAN and did not reach the LAN", crossing.undelivered, first, last)
    })
}

const fn vpn((protocol, port): (u8, u16)) -> Option<Vpn> {
    Some(match (protocol, port) {
        (17, 500) => Vpn::Ike,
        (17, 4500) => Vpn::NatTraversal,
        (17, 1701) => Vpn::L2tp,
        (17, 1194) | (6, 1194) => Vpn::OpenVpn,
        (6, 1723) => Vpn::Pptp,
        (47, _) => Vpn::Gre,
        (50 | 51, _) => Vpn::Esp,
        (115, _) => Vpn::L2tpV3,
        _ => return None,
    })
}
