//! What is wrong with ESP while IKE is well.

use core::time::Duration;
use std::net::IpAddr;

use passthrough::ike::IkeVersion;
use passthrough::view::Vpn;

use super::child::BIG;
use super::exchange::Sa;
use super::{ESP, Scene, Tracker, find};
use crate::attempts::SENDS;
use crate::code::{Code, Party};
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::observation::IcmpKind;
use crate::tally::{out_of_reach, wording};

/// So many packets in vain, over so long a time.
const IN_VAIN: (u64, Duration) = (10, Duration::from_secs(5));
/// So many packets in that time are more than chance; it is not certain before [`DEAF`].
const DEAF_SOON: (u64, Duration) = (10, crate::attempts::CERTAIN);
/// A device that is there sends something within that time.
const DEAF: Duration = Duration::from_secs(30);
/// The MTU of lines that share one IPv4 address and carry IPv4 in IPv6.
const TUNNELLED: u32 = 1460;
/// IP packets of PPP's own negotiation, in L2TP and ESP, are shorter.
const NEGOTIATION: u32 = 250;

impl Tracker {
    /// What is wrong with ESP.
    pub(super) fn esp_findings(&self, context: &Scene<'_>, findings: &mut Findings) {
        if !self.misrouted(context, findings) {
            self.no_return(context, findings);
        }
        self.one_way_in(context, findings);
        self.black_hole(context, findings);
        self.no_ppp(context, findings);
    }

    /// Adds a finding about ESP: to the IKE SA that was agreed on last, or to none.
    fn add(
        &self,
        findings: &mut Findings,
        code: Code,
        sure: Confidence,
        evidence: Vec<Evidence>,
        owner: &'static [Party],
    ) {
        let finding = match (self.sas.iter().rev().find(|sa| sa.agreed().is_some()), &self.bare) {
            (Some(sa), _) => find(findings, code, sure, sa, evidence),
            (None, Some(bare)) => findings.add(code, sure, ESP, bare.attempt, bare.first.at, evidence),
            (None, None) => return,
        };
        finding.owner = owner;
    }

    /// ESP comes back and does not find its device.
    fn misrouted(&self, context: &Scene<'_>, findings: &mut Findings) -> bool {
        let Some(pair) = context.pair else { return false };
        let several = context.others.iter().any(|other| other.ipsec.is_some());
        let stray = context.router.strays.iter().find(|stray| {
            stray.server == pair.server
                && stray.trace.protocol == 50
                && self.known_inbound(stray.trace.id).is_none()
        });
        let [complaint, _] = &self.unknown_spi;
        let lacking = |since: Mark| self.children.span[1].is_none_or(|(_, last)| last < since);
        let waits = self
            .children
            .silence(0, context.vantage.router)
            .filter(|alone| alone.packets >= 3 && lacking(alone.first));
        let sent_raw = self.children.of(true).any(|child| !child.in_udp);
        let mut evidence = Vec::new();
        if let (Some(stray), Some(alone), true) = (stray, waits, sent_raw) {
            evidence.push(Evidence::packets(
                "sent with ESP, nothing came back",
                alone.packets,
                alone.first,
                alone.last,
            ));
            let first = Mark { at: stray.first, number: stray.trace.mark.number };
            let what = "came to the WAN with ESP that no device was known for";
            evidence.push(Evidence::packets(what, stray.count, first, stray.trace.mark));
        } else if let Some((_, said)) = complaint.filter(|(_, said)| several && said.sends > 1) {
            evidence.push(said.evidence("the device got ESP that is not its own"));
        } else {
            return false;
        }
        let confidence = if several && stray.is_some() { Confidence::High } else { Confidence::Medium };
        self.add(findings, Code::EspMisrouted, confidence, evidence, Code::EspMisrouted.owner());
        true
    }

    /// An inbound SA by its SPI.
    pub(super) fn known_inbound(&self, spi: u32) -> Option<&super::child::Child> {
        self.children.of(false).find(|child| child.spi == spi)
    }

    /// Keys are agreed on, and ESP gets no answer.
    fn no_return(&self, context: &Scene<'_>, findings: &mut Findings) {
        let [Some(alone), _] = self.children.alone else { return };
        let agreed = self.sas.iter().rev().find_map(Sa::agreed);
        let answered =
            self.children.span[1].is_some_and(|(_, last)| agreed.is_none_or(|agreed| last >= agreed));
        let since = agreed.map_or(alone.first, |agreed| agreed.max(alone.first));
        let lasted = alone.last.at.since(since.at);
        let refusal = |said: &&super::Said| {
            said.report.protocol == 50 && self.children.span[1].is_none_or(|(_, last)| last < said.last)
        };
        if let Some(said) = self.said.iter().rev().find(refusal) {
            let itself = context.pair.is_some_and(|pair| pair.server == said.report.from);
            let what = format!("{} answered ESP: {}", said.report.from, wording(said.report.kind));
            let evidence = vec![Evidence::packets(what, said.count, said.first, said.last)];
            let (code, owner, most): (_, &'static [Party], _) = match said.report.kind {
                IcmpKind::NetUnreachable | IcmpKind::HostUnreachable | IcmpKind::HopLimit => {
                    out_of_reach(context, said.report.from, said.report.kind)
                }
                IcmpKind::TooBig(_) | IcmpKind::Other(..) => return,
                IcmpKind::ProtocolUnreachable | IcmpKind::PortUnreachable | IcmpKind::Prohibited => {
                    let owner: &[Party] = if itself { &[Party::Server] } else { &[Party::Line] };
                    (Code::EspNoReturn, owner, Confidence::High)
                }
            };
            let confidence = if said.count > 1 { most } else { Confidence::Medium };
            self.add(findings, code, confidence, evidence, owner);
            return;
        }
        let (packets, patience) = IN_VAIN;
        if self.children.silence(0, context.vantage.router).is_none() {
            return;
        }
        if answered || alone.packets < packets || lasted < patience {
            return;
        }
        let in_udp = self.children.of(true).max_by_key(|child| child.last).is_some_and(|child| child.in_udp);
        let mut evidence = vec![Evidence::packets(
            "sent with ESP, nothing came back",
            alone.packets,
            alone.first,
            alone.last,
        )];
        if let Some(agreed) = agreed {
            evidence.push(Evidence::packet("keys were agreed on", agreed));
        }
        let long = lasted >= crate::attempts::CERTAIN && agreed.is_some();
        let confidence = if long && !in_udp { Confidence::High } else { Confidence::Medium };
        let v4 = context.pair.is_some_and(|pair| pair.server.is_ipv4());
        let mapped =
            |addr: &IpAddr| matches!(addr, IpAddr::V4(addr) if addr.octets().starts_with(&[192, 0, 0]));
        let shared = context.router.wan.iter().any(mapped);
        if !in_udp && v4 && (shared || context.router.wan_mtu == Some(TUNNELLED)) {
            let what = "the line shares its IPv4 address with others, and carries UDP and TCP only";
            evidence.push(Evidence::fact(what));
            let confidence = if shared { Confidence::High } else { Confidence::Medium };
            self.add(findings, Code::SharedIpv4Proto, confidence, evidence, Code::SharedIpv4Proto.owner());
            return;
        }
        let owner: &'static [Party] =
            if in_udp { &[Party::Server, Party::Line] } else { Code::EspNoReturn.owner() };
        self.add(findings, Code::EspNoReturn, confidence, evidence, owner);
    }

    /// ESP comes in, and the device does not answer.
    fn one_way_in(&self, context: &Scene<'_>, findings: &mut Findings) {
        let [sent, _] = self.children.span;
        let Some(alone) = self.children.silence(1, context.vantage.router) else { return };
        let keepalive = self.sas.iter().any(|sa| sa.keepalive.is_some_and(|mark| mark > alone.first));
        let lasted = alone.last.at.since(alone.first.at);
        let (packets, patience) = DEAF_SOON;
        let spoke = self.sas.iter().filter_map(|sa| sa.spoke).max().filter(|spoke| *spoke > alone.first);
        // A device that sent before may have nothing to say for a while; one that is awake and answered such
        // packets before does not.
        let owes = sent.is_none() || spoke.is_some() && self.children.rhythm(alone);
        let soon = owes && alone.packets >= packets && lasted >= patience;
        let late = alone.packets >= 30 && lasted >= DEAF * 4 && !keepalive;
        if !soon && !late {
            return;
        }
        let confidence = if owes && lasted >= DEAF { Confidence::Medium } else { Confidence::Low };
        let what = "came in with ESP, and the device sent none";
        let mut evidence = vec![Evidence::packets(what, alone.packets, alone.first, alone.last)];
        if let Some(spoke) = spoke {
            evidence.push(Evidence::packet("the device's IKE goes on", spoke));
        }
        self.add(findings, Code::EspOnewayIn, confidence, evidence, Code::EspOnewayIn.owner());
    }

    /// Small packets get through and large ones do not.
    fn black_hole(&self, context: &Scene<'_>, findings: &mut Findings) {
        if let Some(big) = &self.too_big {
            if let Some(after) = big.after.filter(|after| after.sends >= SENDS) {
                let what = format!("too big: the line carries {} bytes", big.mtu);
                let evidence = vec![
                    Evidence::packet(what, big.mark),
                    after.evidence("sent with ESP and larger all the same"),
                ];
                self.add(
                    findings,
                    Code::FragNeededSeen,
                    Confidence::Medium,
                    evidence,
                    Code::FragNeededSeen.owner(),
                );
            }
            return;
        }
        let newest = |outbound| self.children.of(outbound).max_by_key(|child| child.last);
        let (Some(out), Some(inn)) = (newest(true), newest(false)) else { return };
        let all_shown = !(context.vantage.router && out.is_sampled());
        let resent = out.resent().filter(|&(_, first, _)| inn.last >= first && all_shown);
        if let Some((sends, first, last)) = resent {
            let what = format!("sent with ESP, {} bytes each, after ever longer pauses", out.longest);
            let evidence = vec![
                Evidence::packets(what, sends, first, last),
                Evidence::packet("small ones came back", inn.last),
            ];
            let confidence = if sends > 4 { Confidence::High } else { Confidence::Medium };
            self.add(findings, Code::PmtuBlackhole, confidence, evidence, Code::PmtuBlackhole.owner());
            return;
        }
        let lasted = inn.last.at.since(inn.first.at) >= Duration::from_secs(3)
            && context.now.since(inn.first.at) >= crate::attempts::PATIENCE;
        if inn.missing() >= 5
            && inn.missing() * 3 >= inn.early // chance loses fewer
            && inn.first_seq <= 2
            && inn.longest < BIG
            && lasted
            && self.children.lulls.is_empty()
        {
            let what = format!(
                "{} of the server's first packets did not arrive, none over {} bytes did",
                inn.missing(),
                inn.longest
            );
            let evidence = vec![Evidence::packets(what, u64::from(inn.early), inn.first, inn.last)];
            self.add(
                findings,
                Code::PmtuBlackhole,
                Confidence::Medium,
                evidence,
                Code::PmtuBlackhole.owner(),
            );
        }
    }

    /// L2TP in IPsec whose PPP comes to nothing.
    fn no_ppp(&self, context: &Scene<'_>, findings: &mut Findings) {
        for (at, sa) in self.sas.iter().enumerate() {
            let [Some((first, sent)), Some((_, came))] = sa.esp else { continue };
            let last = sent.max(came);
            let lasted = last.at.since(first.at);
            let [out, inn] = sa.packets;
            let small = sa.esp_longest < NEGOTIATION && out.max(inn) < 100;
            let brief = lasted >= Duration::from_secs(1) && lasted < Duration::from_secs(45);
            // It gave up: a new try, or a deletion.
            let next =
                self.after(at).filter(|next| next.by_device && next.first.at.since(last.at) < DEAF * 2);
            let deleted = sa.deletion.is_some_and(|(side, mark)| side == 0 && mark.at.since(last.at) < DEAF)
                && context.now.since(last.at) >= crate::attempts::PATIENCE;
            if sa.version != IkeVersion::V1
                || sa.transactions
                || !small
                || !brief
                || !(next.is_some() || deleted)
            {
                continue;
            }
            let packets = sa.packets.iter().sum();
            let what = "sent and received with ESP, all of them small, and then given up";
            let evidence = vec![Evidence::packets(what, packets, first, last)];
            let confidence = if next.is_some() { Confidence::Medium } else { Confidence::Low };
            findings.add(
                Code::L2tpIpsecNoPpp,
                confidence,
                Some(Vpn::L2tp),
                sa.attempt,
                sa.first.at,
                evidence,
            );
        }
    }
}
