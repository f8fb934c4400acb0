//! One conversation between two ports: who spoke when, and what became of it on the way.

use core::time::Duration;
use std::net::IpAddr;

use nat_core::time::Timestamp;
use passthrough::view::{Phase, Vpn};

use crate::attempts::Attempts;
use crate::code::Code;
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::household::Context;
use crate::observation::{IcmpKind, IcmpReport, Observation, Passage, Trace};
use crate::session::Session;
use crate::tally::{out_of_reach, wording};

/// Silence after which a NAT may have forgotten the way: no line forgets sooner.
pub(crate) const QUIET: Duration = Duration::from_secs(20);
/// A mapping lives that long without packets at the least (RFC 4787 REQ-5).
pub(crate) const MAPPING_LIFE: Duration = Duration::from_secs(120);
/// Who follows to another address of ours does it within that time.
const FOLLOWS: Duration = Duration::from_secs(30);
/// What the router did with a packet is known that much later at most.
const PASSAGE: Duration = Duration::from_secs(5);
/// A conversation that breaks off so soon after its first answer was not merely forgotten.
pub(crate) const EARLY: Duration = Duration::from_secs(30);

/// An ICMP error and its repetitions.
#[derive(Clone, Copy, Debug)]
struct Said {
    from: IpAddr,
    kind: IcmpKind,
    count: u64,
    first: Mark,
    last: Mark,
}

/// The router forgot the way while nobody spoke.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expired {
    /// How long nobody had spoken.
    pub(crate) silence: Duration,
    /// The packet that shows it.
    pub(crate) first: Mark,
    last: Mark,
    /// Inbound packets that did not reach the LAN; 0: an outbound one left with another port.
    pub(crate) undelivered: u64,
}

/// One conversation between two ports.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) server: IpAddr,
    /// IP protocol number, the device's port, the server's port.
    pub(crate) ports: (u8, u16, u16),
    pub(crate) first: Mark,
    /// The last packet outbound and inbound.
    pub(crate) last: [Option<Mark>; 2],
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
    /// The first inbound packet.
    pub(crate) heard: Option<Mark>,
    /// Outbound packets since the last inbound one.
    pub(crate) unanswered: Option<Attempts>,
    /// The last silence of at least [`QUIET`] that the device ended: how long, and its packet.
    pub(crate) gap: Option<(Duration, Mark)>,
    /// The source on the WAN, and whether it outlived the gap.
    wan: Option<(IpAddr, u16)>,
    kept: bool,
    pub(crate) expired: Option<Expired>,
    /// How often that happened.
    pub(crate) expiries: u32,
    /// From the server itself, and from somebody on the way.
    said: [Option<Said>; 2],
}

impl Flow {
    pub(crate) fn new(seen: &Observation<'_>) -> Self {
        Self {
            server: seen.server,
            ports: (seen.transport.protocol(), seen.device_port, seen.server_port),
            first: seen.mark,
            last: [None; 2],
            packets: [0; 2],
            bytes: [0; 2],
            heard: None,
            unanswered: None,
            gap: None,
            wan: None,
            kept: false,
            expired: None,
            expiries: 0,
            said: [None; 2],
        }
    }

    /// Is the packet one of this conversation's?
    pub(crate) fn holds(&self, seen: &Observation<'_>) -> bool {
        self.ports == (seen.transport.protocol(), seen.device_port, seen.server_port)
    }

    /// The last packet of either side.
    pub(crate) fn last_seen(&self) -> Timestamp {
        self.last.iter().flatten().map(|mark| mark.at).max().unwrap_or(self.first.at)
    }

    /// Was anything heard after `mark`?
    pub(crate) fn heard_since(&self, mark: Mark) -> bool {
        let [_, inbound] = self.last;
        inbound.is_some_and(|last| last.at > mark.at)
    }

    pub(crate) fn observe(&mut self, seen: &Observation<'_>) {
        let silence = seen.at().since(self.last_seen());
        let [out, into] = &mut self.last;
        let [packets_out, packets_in] = &mut self.packets;
        let [bytes_out, bytes_in] = &mut self.bytes;
        let (last, packets, bytes) = if seen.is_outbound() {
            match &mut self.unanswered {
                Some(sends) => sends.again(seen.mark),
                None => self.unanswered = Some(Attempts::new(seen.mark)),
            }
            if silence >= QUIET {
                (self.gap, self.kept) = (Some((silence, seen.mark)), false);
            }
            (out, packets_out, bytes_out)
        } else {
            self.heard.get_or_insert(seen.mark);
            self.unanswered = None;
            (into, packets_in, bytes_in)
        };
        *last = Some(seen.mark);
        *packets += 1;
        *bytes += u64::from(seen.ip_len);
    }

    /// Takes note of an ICMP error; `false`: it is about another conversation.
    pub(crate) fn error(&mut self, report: &IcmpReport) -> bool {
        if self.ports != (report.protocol, report.device_port, report.server_port) {
            return false;
        }
        let unreachable = match report.kind {
            IcmpKind::TooBig(_) | IcmpKind::Other(..) => false,
            IcmpKind::NetUnreachable
            | IcmpKind::HostUnreachable
            | IcmpKind::ProtocolUnreachable
            | IcmpKind::PortUnreachable
            | IcmpKind::Prohibited
            | IcmpKind::HopLimit => true,
        };
        if report.about_outbound && unreachable {
            let [server, path] = &mut self.said;
            let said = if report.from == self.server { server } else { path };
            let (from, kind, mark) = (report.from, report.kind, report.mark);
            let said = said.get_or_insert(Said { from, kind, count: 0, first: mark, last: mark });
            (said.count, said.last) = (said.count + 1, mark);
        }
        true
    }

    /// Takes note of what became of a packet; `false`: it is another conversation's.
    pub(crate) fn passage(&mut self, trace: &Trace, passage: Passage) -> bool {
        if self.ports != (trace.protocol, trace.device_port, trace.server_port) {
            return false;
        }
        match passage {
            Passage::Left { wan, port } => {
                let after = self
                    .gap
                    .filter(|(_, end)| trace.mark.at >= end.at && trace.mark.at.since(end.at) < PASSAGE);
                match (self.wan, after) {
                    (Some((address, before)), Some((silence, end))) if address == wan && before != port => {
                        self.expire(silence, end, 0);
                    }
                    (Some(same), Some(_)) if same == (wan, port) => self.kept = true,
                    _ => {}
                }
                self.wan = Some((wan, port));
            }
            Passage::Undelivered => {
                let [out, _] = self.last;
                let silence = out.map_or(Duration::ZERO, |out| trace.mark.at.since(out.at));
                if silence >= QUIET {
                    self.expire(silence, trace.mark, 1);
                }
            }
            Passage::Swallowed | Passage::Delivered => {}
        }
        true
    }

    fn expire(&mut self, silence: Duration, mark: Mark, undelivered: u64) {
        let [out, _] = self.last;
        match &mut self.expired {
            // The same silence still.
            Some(known) if undelivered > 0 && out.is_none_or(|out| out.at < known.first.at) => {
                known.undelivered += undelivered;
                known.last = mark;
            }
            _ => {
                self.expiries += 1;
                self.expired = Some(Expired { silence, first: mark, last: mark, undelivered });
            }
        }
    }

    /// What somebody says is wrong with the server or the way to it. `true`: that explains any silence.
    pub(crate) fn refused(
        &self,
        context: &Context<'_>,
        vpn: Vpn,
        attempt: u32,
        findings: &mut Findings,
    ) -> bool {
        for said in self.said.iter().flatten() {
            let waited = context.now.since(said.first.at);
            if self.heard_since(said.last) || said.count < 2 && waited < crate::attempts::PATIENCE {
                continue;
            }
            let (code, owner, most) = out_of_reach(context, said.from, said.kind);
            let sure = if said.count >= 2 { most } else { Confidence::Medium };
            let what = format!("ICMP from {}: {}", said.from, wording(said.kind));
            let evidence = vec![Evidence::packets(what, said.count, said.first, said.last)];
            findings.add(code, sure, Some(vpn), attempt, self.first.at, evidence).owner = owner;
            return true;
        }
        false
    }

    /// Did the server not follow to our new address?
    pub(crate) fn left_behind(
        &self,
        context: &Context<'_>,
        vpn: Vpn,
        attempt: u32,
        findings: &mut Findings,
    ) -> bool {
        let Some((changed, before)) = context.router.wan_changed else { return false };
        let ([_, Some(heard)], Some(sends)) = (self.last, &self.unanswered) else { return false };
        let stopped_then = heard.at <= changed && changed.since(heard.at) <= MAPPING_LIFE;
        let waited = context.now.since(changed) >= FOLLOWS && sends.last.at > changed && sends.sends >= 2;
        if !(self.server.is_ipv4() && stopped_then && waited) {
            return false;
        }
        let evidence = vec![
            Evidence::packet("last packet from the server", heard),
            Evidence::fact(format!("the WAN address was {before} until then")),
            sends.evidence("sent since, no answer"),
        ];
        findings.add(Code::WanAddrChanged, Confidence::High, Some(vpn), attempt, self.first.at, evidence);
        true
    }

    /// Did the router forget the way, and does nobody find it again? Inbound packets that came for it meanwhile
    /// count too.
    pub(crate) fn forgotten(&self, context: &Context<'_>) -> Option<(Confidence, Expired)> {
        let known = self.expired.filter(|expired| {
            let [out, _] = self.last;
            let recovered = if expired.undelivered > 0 {
                out.is_some_and(|out| out.at > expired.last.at)
            } else {
                self.heard_since(expired.first)
            };
            !recovered
        });
        if let Some(expired) = known {
            let sure = if expired.undelivered > 0 {
                (expired.undelivered >= 3).then_some(Confidence::High)
            } else {
                let sends = self.unanswered.filter(|sends| sends.sends >= 3);
                sends.and_then(|sends| sends.unanswered(context.now))
            };
            return sure.map(|sure| (sure, expired));
        }
        let ([Some(out), _], Some((_, port))) = (self.last, self.wan) else { return None };
        let (protocol, _, server_port) = self.ports;
        let stray = context.router.strays.iter().find(|stray| {
            stray.server == self.server
                && (stray.trace.protocol, stray.trace.server_port) == (protocol, server_port)
                && stray.trace.device_port == port
                && stray.first.since(out.at) >= QUIET
                && stray.count >= 3
        })?;
        let mark = Mark { at: stray.first, number: stray.trace.mark.number };
        let silence = stray.first.since(out.at);
        let expired = Expired { silence, first: mark, last: stray.trace.mark, undelivered: stray.count };
        Some((Confidence::Medium, expired))
    }

    /// The way was forgotten by this router.
    pub(crate) fn nat_idle(
        &self,
        context: &Context<'_>,
        vpn: Vpn,
        attempt: u32,
        findings: &mut Findings,
    ) -> bool {
        let Some((sure, expired)) = self.forgotten(context) else { return false };
        findings.add(
            Code::NatIdleTimeout,
            sure,
            Some(vpn),
            attempt,
            self.first.at,
            expired.evidence(context),
        );
        true
    }

    /// Silent since a long silence that another NAT may have taken for the end, though ours kept the mapping.
    pub(crate) fn lost_upstream(&self, context: &Context<'_>) -> Option<Vec<Evidence>> {
        let (silence, end) = self.gap?;
        let sends = self.unanswered.filter(|sends| sends.first.at >= end.at && sends.sends >= 3)?;
        let certain = sends.unanswered(context.now) == Some(Confidence::High);
        (context.vantage.wan && self.kept && certain).then(|| {
            vec![
                Evidence::packet(format!("first packet after {} s of silence", silence.as_secs()), end),
                sends.evidence("sent from the same port as before, no answer"),
            ]
        })
    }

    /// Broke off soon after the first answer, though the device went on.
    pub(crate) fn died_early(&self) -> bool {
        let [_, last] = self.last;
        let (Some(first), Some(last), Some(sends)) = (self.heard, last, &self.unanswered) else {
            return false;
        };
        last.at.since(first.at) <= EARLY
            && sends.first.at.since(last.at) <= EARLY
            && sends.sends >= 3
            && sends.last.at.since(sends.first.at) >= crate::attempts::CERTAIN
    }

    pub(crate) fn session(&self, vpn: Vpn, attempt: u32, phase: Phase, reason: &'static str) -> Session {
        Session {
            vpn,
            device: std::net::Ipv4Addr::UNSPECIFIED.into(),
            server: self.server,
            attempt,
            phase,
            reason,
            since: self.first.at,
            last_seen: self.last_seen(),
            packets: self.packets,
            bytes: self.bytes,
        }
    }
}

impl Expired {
    pub(crate) fn evidence(&self, context: &Context<'_>) -> Vec<Evidence> {
        let what = if self.undelivered > 0 {
            "from the server, reached the router and not the device"
        } else {
            "left with another port than before"
        };
        let mut evidence = vec![
            Evidence::fact(format!("{} s without a packet from the device", self.silence.as_secs())),
            Evidence::packets(what, self.undelivered.max(1), self.first, self.last),
        ];
        if let Some(timeouts) = context.router.timeouts {
            evidence.push(Evidence::fact(format!("the router keeps silent UDP mappings {} s", timeouts.udp)));
        }
        evidence
    }
}

/// Is the server or the way to it alive at a time after `mark`, though this conversation is silent? Says why.
pub(crate) fn alive_since(context: &Context<'_>, mark: Mark) -> Option<Evidence> {
    let later = |heard: Option<Mark>| heard.filter(|heard| heard.at > mark.at);
    if let Some(heard) = context.pair.and_then(|pair| later(pair.beside.heard)) {
        return Some(Evidence::packet("other traffic from this server arrives", heard));
    }
    let heard = context.others_to_server().find_map(|other| later(other.heard))?;
    Some(Evidence::packet("the server answers another device", heard))
}

/// Questions for tests of trackers.
#[cfg(test)]
pub(crate) mod exercise {
    use super::*;
    use crate::household::{Household, Settings};
    use crate::observation::at;
    use crate::pair::Pair;
    use crate::router::{Router, Vantage};

    pub(crate) const VANTAGE: Vantage = Vantage { lan: true, wan: true, router: true, dns: true };

    pub(crate) fn household(servers: Vec<IpAddr>) -> Household {
        Household::new(Settings {
            events: false,
            lan: Vec::new(),
            pairs: 16,
            memory: Duration::from_secs(3600),
            vantage: VANTAGE,
            servers,
        })
    }

    /// What is found `millis` after the origin.
    pub(crate) fn ask(
        millis: u64,
        household: &Household,
        pair: Option<&Pair>,
        router: &Router,
        findings: impl Fn(&Context<'_>, &mut Findings),
    ) -> Vec<crate::Finding> {
        let mut found = Findings::default();
        let context = Context { now: at(millis), household, pair, router, vantage: &VANTAGE };
        findings(&context, &mut found);
        found.list
    }
}
