//! What several trackers count, and what several of them ask.

use core::time::Duration;
use std::net::IpAddr;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::view::Vpn;

use crate::attempts::Attempts;
use crate::code::{Code, Party};
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::household::Context;
use crate::observation::{IcmpKind, IcmpReport, Observation, Passage};

/// One for each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Both<T> {
    pub(crate) outbound: T,
    pub(crate) inbound: T,
}

impl<T> Both<T> {
    pub(crate) const fn of(&self, direction: Direction) -> &T {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }

    pub(crate) const fn of_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::Outbound => &mut self.outbound,
            Direction::Inbound => &mut self.inbound,
        }
    }
}

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    pub(crate) span: Option<(Mark, Mark)>,
    sequences: Option<(u32, u32)>,
}

impl Flow {
    pub(crate) fn add(&mut self, seen: &Observation<'_>, sequence: Option<u32>) {
        self.count += 1;
        self.bytes += u64::from(seen.ip_len);
        self.span = Some((self.span.map_or(seen.mark, |(first, _)| first), seen.mark));
        if let Some(sequence) = sequence {
            let (first, last) = self.sequences.unwrap_or((sequence, sequence));
            let newer = sequence.wrapping_sub(last) < 1 << 31;
            self.sequences = Some((first, if newer { sequence } else { last }));
        }
    }

    /// How many there were: by sequence numbers where not each is seen.
    pub(crate) fn volume(&self) -> u64 {
        let numbered = self.sequences.map_or(0, |(first, last)| u64::from(last.wrapping_sub(first)) + 1);
        self.count.max(numbered)
    }

    pub(crate) fn last(&self) -> Option<Mark> {
        self.span.map(|(_, last)| last)
    }

    pub(crate) fn evidence(&self, what: &'static str) -> Option<Evidence> {
        self.span.map(|(first, last)| Evidence::packets(what, self.count, first, last))
    }
}

/// Counts one more of what is sent until it is answered.
pub(crate) fn again(known: &mut Option<Attempts>, mark: Mark) {
    match known {
        Some(attempts) => attempts.again(mark),
        None => *known = Some(Attempts::new(mark)),
    }
}

/// ICMP errors about what a device sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreachable {
    pub(crate) first: Mark,
    pub(crate) last: IcmpReport,
    count: u64,
}

impl Unreachable {
    /// Takes note of an error that is not about a packet's size.
    pub(crate) fn note(known: &mut Option<Self>, report: &IcmpReport) {
        let IcmpReport { kind, about_outbound, .. } = *report;
        if !about_outbound || matches!(kind, IcmpKind::TooBig(_) | IcmpKind::Other(..)) {
            return;
        }
        let Some(known) = known else {
            *known = Some(Self { first: report.mark, last: *report, count: 1 });
            return;
        };
        known.last = *report;
        known.count += 1;
    }

    pub(crate) fn evidence(&self) -> Evidence {
        let what = wording(self.last.kind);
        Evidence::packets(format!("{what}, says {}", self.last.from), self.count, self.first, self.last.mark)
    }

    /// Adds a finding that says who stands behind it, unless another try may still succeed.
    pub(crate) fn find(
        &self,
        context: &Context<'_>,
        vpn: Vpn,
        (attempt, since): (u32, Timestamp),
        findings: &mut Findings,
    ) -> bool {
        if context.now.since(self.first.at) < Duration::from_secs(1) {
            return false;
        }
        let (code, owner, most) = out_of_reach(context, self.last.from, self.last.kind);
        let sure = if self.count > 1 { most } else { Confidence::Medium };
        findings.add(code, sure, Some(vpn), attempt, since, vec![self.evidence()]).owner = owner;
        true
    }
}

/// Who is to blame when `from` says that packets to the server come no further, and how sure that is at the most.
///
/// A router that has no route to a network says so (code 0); "host unreachable" (code 1) is said by one that has,
/// and that the host on a network of its own does not answer, as to ARP (RFC 1812 section 5.2.7.1). So the server
/// is off, or some routers' null routes say the same; not if it is the home router, whose own networks are the
/// line and the home.
pub(crate) fn out_of_reach(
    context: &Context<'_>,
    from: IpAddr,
    kind: IcmpKind,
) -> (Code, &'static [Party], Confidence) {
    let server = context.pair.map(|pair| pair.server);
    if server == Some(from) {
        return (Code::ServerDown, &[Party::Server], Confidence::High);
    }
    let router = context.router;
    let home = router.own.contains(&from) || router.wan.contains(&from) || is_private(from);
    if kind != IcmpKind::HostUnreachable || home {
        return (Code::ServerPath, &[Party::Line], Confidence::High);
    }
    // It is not the only one that it does not reach.
    let others = context.household.pairs().filter(|other| Some(other.server) != server);
    let same = |error: &IcmpReport| error.kind == kind && error.from == from && error.about_outbound;
    if others.flat_map(|other| &other.errors).any(|error| same(error) && is_recent(context, error)) {
        return (Code::ServerPath, &[Party::Line, Party::Server], Confidence::Medium);
    }
    (Code::ServerDown, &[Party::Server, Party::Line], Confidence::Medium)
}

fn is_recent(context: &Context<'_>, error: &IcmpReport) -> bool {
    context.now.since(error.mark.at) <= Duration::from_secs(600)
}

/// Does the address belong to nobody on the internet?
pub(crate) fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_private() || addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unique_local() || addr.is_unicast_link_local(),
    }
}

/// What an ICMP error says.
pub(crate) const fn wording(kind: IcmpKind) -> &'static str {
    match kind {
        IcmpKind::NetUnreachable => "network unreachable",
        IcmpKind::HostUnreachable => "host unreachable",
        IcmpKind::ProtocolUnreachable => "protocol unreachable",
        IcmpKind::PortUnreachable => "port unreachable",
        IcmpKind::TooBig(_) => "packet too big",
        IcmpKind::Prohibited => "prohibited",
        IcmpKind::HopLimit => "hop limit exceeded",
        IcmpKind::Other(..) => "other error",
    }
}

/// Source on the WAN of a device's port, and when it became another one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outside {
    pub(crate) source: Option<(IpAddr, u16)>,
    last: Timestamp,
    pub(crate) moved: Option<Moved>,
}

/// A change of the source on the WAN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) mark: Mark,
    /// Is the address another one too?
    pub(crate) address: bool,
    /// How long nothing had been sent.
    pub(crate) quiet: Duration,
}

impl Outside {
    /// Did any packet leave on the WAN?
    pub(crate) const fn is_known(&self) -> bool {
        self.source.is_some()
    }

    pub(crate) fn note(&mut self, mark: Mark, passage: Passage) {
        let Passage::Left { wan, port } = passage else { return };
        if let Some(before) = self.source.filter(|&before| before != (wan, port)) {
            let quiet = mark.at.since(self.last);
            self.moved = Some(Moved { mark, address: before.0 != wan, quiet });
        }
        self.source = Some((wan, port));
        self.last = mark.at;
    }

    /// The end of a session whose way the NAT forgot, or whose address changed. `sent`: what is unanswered now.
    pub(crate) fn find(
        &self,
        context: &Context<'_>,
        vpn: Vpn,
        (attempt, since): (u32, Timestamp),
        heard: Option<Mark>,
        sent: Option<&Attempts>,
        findings: &mut Findings,
    ) -> bool {
        let Some(heard) = heard else { return false };
        let unanswered = sent.and_then(|sent| sent.unanswered(context.now));
        let changed = context.router.wan_changed.map(|(at, _)| at);
        let changed = changed.or(self.moved.filter(|moved| moved.address).map(|moved| moved.mark.at));
        // What was on its way when it changed may still come in.
        let lost = |at: Timestamp| at > since && heard.at <= at + Duration::from_secs(2);
        if let (Some(at), Some(sure), Some(sent)) = (changed.filter(|&at| lost(at)), unanswered, sent) {
            if sent.last.at >= at {
                let evidence = vec![
                    Evidence::packet("heard of the server for the last time", heard),
                    sent.evidence("sent since the internet address changed, no answer"),
                ];
                findings.add(Code::WanAddrChanged, sure, Some(vpn), attempt, since, evidence);
                return true;
            }
        }
        let Some(moved) = self.moved.filter(|moved| !moved.address && heard.at <= moved.mark.at) else {
            return false;
        };
        if moved.quiet < QUIET || unanswered.is_none() {
            return false;
        }
        let evidence = vec![
            Evidence::packet("heard of the server for the last time", heard),
            Evidence::packet(
                format!("left from another port after {} s of silence, no answer", moved.quiet.as_secs()),
                moved.mark,
            ),
        ];
        findings.add(Code::NatIdleTimeout, Confidence::High, Some(vpn), attempt, since, evidence);
        true
    }
}

/// A NAT forgets nothing that was used more recently than that.
pub(crate) const QUIET: Duration = Duration::from_secs(25);

/// Why natd did not let it through: "off", or "multi" where only the second device is not let.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    Off,
    Second,
}

/// Did natd refuse this pair such packets at some time from `since` to `until`?
pub(crate) fn barred(
    context: &Context<'_>,
    protocol: u8,
    port: u16,
    (since, until): (Timestamp, Timestamp),
) -> Option<(Barred, Evidence)> {
    let pair = context.pair?;
    // The queue reports a refusal, and the copy of the packet comes on another way.
    let slack = Duration::from_secs(1);
    context.router.refused(pair.device, pair.server, protocol).find_map(|refusal| {
        let barred = match refusal.reason {
            "pptp-off" | "l2tp-off" | "vpn-not-allowed" => Barred::Off,
            "vpn-second-device" => Barred::Second,
            _ => return None,
        };
        let fits = (port == 0 || refusal.port == port)
            && refusal.last + slack >= since
            && refusal.first <= until + slack;
        fits.then(|| (barred, refusal.evidence()))
    })
}

/// Is the line one that shares its IPv4 address by ports, so that nothing without ports passes?
pub(crate) fn shared_line(context: &Context<'_>) -> Option<(Confidence, Evidence)> {
    let b4 = |addr: &IpAddr| matches!(addr, IpAddr::V4(v4) if matches!(v4.octets(), [192, 0, 0, 0..8]));
    if context.router.wan.iter().any(b4) {
        return Some((Confidence::High, Evidence::fact("the WAN address is that of DS-Lite (RFC 6333)")));
    }
    let tunnelled = context.router.wan_mtu == Some(1460);
    let words = "the WAN's MTU of 1460 is that of MAP-E and DS-Lite";
    tunnelled.then(|| (Confidence::Medium, Evidence::fact(words)))
}

#[cfg(test)]
pub(crate) mod scene {
    use super::*;
    use crate::household::{Household, Settings};
    use crate::pair::Pair;
    use crate::router::{Router, Vantage};

    /// What a tracker is asked in, for tests.
    pub(crate) struct Scene {
        pub(crate) household: Household,
        pub(crate) pair: Pair,
        pub(crate) router: Router,
        pub(crate) vantage: Vantage,
    }

    impl Default for Scene {
        fn default() -> Self {
            let vantage = Vantage { lan: true, wan: true, router: false, dns: false };
            let settings = Settings {
                events: false,
                lan: Vec::new(),
                pairs: 8,
                memory: Duration::from_secs(600),
                vantage,
                servers: Vec::new(),
            };
            let peers = crate::observation::Peers::default();
            Self {
                household: Household::new(settings),
                pair: Pair::new(peers.device, peers.server, Timestamp::ZERO),
                router: Router::default(),
                vantage,
            }
        }
    }

    impl Scene {
        pub(crate) fn at(&self, millis: u64) -> Context<'_> {
            Context {
                now: crate::observation::at(millis),
                household: &self.household,
                pair: Some(&self.pair),
                router: &self.router,
                vantage: &self.vantage,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::at;

    const LAST_HOP: [u8; 4] = [203, 0, 113, 2];
    const WAN: [u8; 4] = [203, 0, 113, 77];

    fn report(from: impl Into<IpAddr>, kind: IcmpKind) -> IcmpReport {
        IcmpReport {
            mark: Mark { at: at(1000), number: 1 },
            from: from.into(),
            about_outbound: true,
            kind,
            protocol: 17,
            device_port: 500,
            server_port: 500,
            id: 0,
        }
    }

    #[test]
    fn a_host_that_the_last_router_does_not_reach_is_off_and_a_network_that_none_reaches_is_far() {
        let mut scene = scene::Scene::default();
        scene.router.wan = vec![WAN.into()];
        scene.router.own = vec![[100, 64, 0, 1].into()];
        let server = scene.pair.server;
        let host = IcmpKind::HostUnreachable;
        for (from, kind, code, owner) in [
            (server, host, Code::ServerDown, Party::Server),
            (server, IcmpKind::PortUnreachable, Code::ServerDown, Party::Server),
            (LAST_HOP.into(), host, Code::ServerDown, Party::Server),
            (LAST_HOP.into(), IcmpKind::NetUnreachable, Code::ServerPath, Party::Line),
            (LAST_HOP.into(), IcmpKind::HopLimit, Code::ServerPath, Party::Line),
            (WAN.into(), host, Code::ServerPath, Party::Line),
            ([100, 64, 0, 1].into(), host, Code::ServerPath, Party::Line),
            ([192, 168, 1, 1].into(), host, Code::ServerPath, Party::Line),
        ] {
            let (found, parties, _) = out_of_reach(&scene.at(2000), from, kind);
            assert_eq!((found, parties[0]), (code, owner), "{kind:?} from {from}");
        }
        let (_, parties, most) = out_of_reach(&scene.at(2000), LAST_HOP.into(), host);
        assert_eq!((parties, most), (&[Party::Server, Party::Line][..], Confidence::Medium));
    }

    #[test]
    fn a_router_that_reaches_no_server_at_all_is_the_path_s() {
        let mut scene = scene::Scene::default();
        let device = scene.pair.device;
        let code = |scene: &scene::Scene, millis| {
            out_of_reach(&scene.at(millis), LAST_HOP.into(), IcmpKind::HostUnreachable).0
        };
        let other = scene.household.pair_between(device, [192, 0, 2, 44].into());
        other.errors.push(report([203, 0, 113, 3], IcmpKind::HostUnreachable));
        assert_eq!(code(&scene, 2000), Code::ServerDown, "another router's word");
        let other = scene.household.pair_between(device, [192, 0, 2, 44].into());
        other.errors.push(report(LAST_HOP, IcmpKind::HostUnreachable));
        assert_eq!(code(&scene, 2000), Code::ServerPath);
        assert_eq!(code(&scene, 900_000), Code::ServerDown, "long ago");
    }
}
