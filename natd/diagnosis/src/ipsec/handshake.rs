//! Why an IKE SA does not come to be.

use core::time::Duration;
use std::net::IpAddr;

use passthrough::ike::{Exchange, IkeVersion};

use super::exchange::{SHORT, Sa, Step};
use super::{ESP, Scene, Tracker, find};
use crate::attempts::{Attempts, SENDS};
use crate::code::{Code, Party};
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::household::Context;
use crate::observation::IcmpKind;
use crate::tally::{out_of_reach, wording};

/// After that long a silence a device has given up.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// Attempts with less between them are one.
const RUN: Duration = Duration::from_secs(60);
/// Bytes of the largest IP packet that any line carries in one piece.
const MTU: u32 = 1500;
/// By that many seconds a clock may be wrong before certificates are not valid yet or no more.
const SKEW: i64 = 600;

impl Tracker {
    /// What natd itself refuses, which explains everything else.
    pub(super) fn refused_here(&self, context: &Scene<'_>, findings: &mut Findings) -> bool {
        let Some(pair) = context.pair else { return false };
        let (vpn, attempt, since) = match (self.sas.last(), &self.bare) {
            (Some(sa), _) => (Some(sa.vpn()), sa.attempt, sa.first.at),
            (None, Some(bare)) => (ESP, bare.attempt, bare.first.at),
            (None, None) => (ESP, 0, pair.since),
        };
        let mut found = false;
        let mut tell = |code, confidence, evidence: Evidence| {
            if !found {
                findings.add(code, confidence, vpn, attempt, since, vec![evidence]);
            }
            found = true;
        };
        for protocol in [17, 50] {
            for refusal in context.router.refused(pair.device, pair.server, protocol) {
                let about_ipsec = protocol != 17 || matches!(refusal.port, 500 | 4500);
                let answered = self.heard.is_some_and(|heard| heard.at > refusal.last);
                let code = match refusal.reason {
                    "ipsec-off" | "vpn-not-allowed" => Code::EspPassOff,
                    "vpn-second-device" => Code::MultiClash,
                    _ => continue,
                };
                if about_ipsec && !answered {
                    let sure = refusal.device.is_some() || code == Code::EspPassOff;
                    let confidence = if sure { Confidence::High } else { Confidence::Medium };
                    tell(code, confidence, refusal.evidence());
                }
            }
        }
        if context.router.ipsec == Some(false) && self.heard.is_none() && attempt > 0 {
            tell(Code::EspPassOff, Confidence::High, Evidence::fact("passthrough.ipsec is off"));
        }
        found
    }

    /// AH, which no NAT can let through.
    pub(super) fn ah(&self, findings: &mut Findings) {
        let is_ipv4 = self.seen_at.is_some_and(|(_, device)| device.is_ipv4());
        if let ([Some(sent), None], true) = (&self.ah, is_ipv4) {
            let evidence = vec![sent.evidence("sent with AH, which signs the addresses")];
            findings.add(Code::IpsecAh, Confidence::High, ESP, self.attempts, sent.first.at, evidence);
        }
    }

    /// Every IKE SA that did not come to be.
    pub(super) fn handshakes(&self, context: &Scene<'_>, findings: &mut Findings) {
        for (at, sa) in self.sas.iter().enumerate() {
            if sa.established.is_none() && !sa.joined {
                self.handshake(at, sa, context, findings);
            }
        }
    }

    fn handshake(&self, at: usize, sa: &Sa, context: &Scene<'_>, findings: &mut Findings) {
        if refused(sa, context, self.after(at), findings) || self.icmp(sa, context, findings) {
            return;
        }
        if self.auth_rejected(at, sa, context, findings) || !sa.by_device {
            return;
        }
        let Some(step) = sa.waiting() else { return };
        if sa.heard.is_none() && !step.marked {
            self.silent(at, sa, step, context, findings);
            return;
        }
        let Some(confidence) = step.sends.unanswered(context.now) else { return };
        let orphans = |piece: &&super::Piece| piece.first != piece.later && piece.mark > step.sends.first;
        let orphans: Vec<Mark> = self.pieces.iter().filter(orphans).map(|piece| piece.mark).collect();
        let mut evidence = vec![step.sends.evidence(asked(step))];
        if let ([first, ..], [.., last]) = (&orphans[..], &orphans[..]) {
            let count = u64::try_from(orphans.len()).unwrap_or(u64::MAX);
            evidence.push(Evidence::packets(
                "answered in fragments that are not complete",
                count,
                *first,
                *last,
            ));
            let confidence = if count > 1 { Confidence::High } else { Confidence::Medium };
            find(findings, Code::IkeReplyFragLost, confidence, sa, evidence);
            return;
        }
        if let Some(heard) = sa.heard {
            evidence.push(Evidence::packet("the last answer", heard));
        }
        let mtu = context.router.wan_mtu.unwrap_or(MTU).min(MTU);
        if step.cut || step.datagram > mtu {
            evidence.push(Evidence::fact(format!("{} bytes, more than one packet holds", step.datagram)));
            if sa.fragmentation != [true; 2] {
                evidence.push(Evidence::fact("device and server did not agree on IKE fragmentation"));
            }
            find(findings, Code::IkeAuthFragLost, confidence, sa, evidence);
        } else if step.marked && !sa.heard_4500 {
            find(findings, Code::Ike4500NoReply, confidence, sa, evidence);
        } else if step.exchange == Exchange::SaInit || sa.version == IkeVersion::V1 && !encrypted(step, sa) {
            // It answered, and then no more: a filter that looks into packets, or a server in trouble.
            find(findings, Code::DpiUdpBlackhole, Confidence::Low, sa, evidence).owner =
                &[Party::Line, Party::Server];
        } else {
            // A server that cannot read a message, or waits for who knows the password, keeps silent.
            find(findings, Code::IkeAuthRejected, Confidence::Low, sa, evidence).owner =
                &[Party::Server, Party::User];
        }
    }

    /// Errors that routers and the server send about IKE.
    fn icmp(&self, sa: &Sa, context: &Scene<'_>, findings: &mut Findings) -> bool {
        let Some(server) = context.pair.map(|pair| pair.server) else { return false };
        let unheard = |said: &&super::Said| {
            sa.heard.is_none_or(|heard| heard <= said.last) && said.attempt == sa.attempt
        };
        let mut about_ike = self.said.iter().filter(|said| said.report.protocol == 17).filter(unheard);
        let Some(said) = about_ike.next_back() else { return false };
        let (kind, from) = (said.report.kind, said.report.from);
        let Some((code, mut owner, most)) = blamed(context, from, kind) else { return false };
        let at_home = |addr: IpAddr| matches!(addr, IpAddr::V4(addr) if addr.is_private());
        if code == Code::Ike500Admin && at_home(from) && !at_home(server) {
            owner = &[Party::Router, Party::Line];
        }
        let what = format!("{from} answered: {} (UDP {})", wording(kind), said.report.server_port);
        let evidence = Evidence::packets(what, said.count, said.first, said.last);
        let confidence = if said.count > 1 { most } else { Confidence::Medium };
        let finding = find(findings, code, confidence, sa, vec![evidence]);
        finding.owner = owner;
        true
    }

    /// The server answered the login, and then all was over.
    fn auth_rejected(&self, at: usize, sa: &Sa, context: &Scene<'_>, findings: &mut Findings) -> bool {
        let next = self.after(at);
        let over = next.is_some() || context.now.since(sa.last.at) >= GIVEN_UP;
        let soon = next.is_some_and(|next| next.first.at.since(sa.last.at) < RUN);
        let mut owner = Code::IkeAuthRejected.owner();
        let (what, mark) = match (sa.version, sa.auth) {
            (IkeVersion::V2, Some((mark, len))) if len < SHORT && over && !answers_after(sa, mark) => {
                ("answered the login in few bytes, and nothing followed", mark)
            }
            // With EAP the server proves who it is in its first answer, and the last ones are about the user.
            (IkeVersion::V2, Some((mark, _))) if soon && sa.broken_off(mark) && sa.rounds > 1 => {
                ("the device broke off after the server's answer to the password", mark)
            }
            (IkeVersion::V2, Some((mark, _))) if soon && sa.broken_off(mark) => {
                owner = &[Party::Server, Party::Device];
                ("the device broke off after the server's proof of identity", mark)
            }
            (IkeVersion::V1, _) => {
                let Some(mark) = sa.not_authentic.or(sa.told_before) else {
                    return self.broken_off(sa, over, findings);
                };
                let phase2 = |step: &Step| step.exchange == Exchange::QuickMode && step.sends.first < mark;
                let aggressive = |step: &Step| step.exchange == Exchange::Aggressive;
                if sa.steps.iter().any(phase2) && !sa.steps.iter().any(aggressive) && over {
                    let what = "answered Quick Mode with a message that says why not";
                    let evidence = vec![Evidence::packet(what, mark)];
                    find(findings, Code::IkeNoProposal, Confidence::Medium, sa, evidence);
                    return true;
                }
                let logged_in = sa.steps.iter().filter(|step| step.outbound).count() >= 2;
                if !over || !logged_in {
                    return false;
                }
                ("answered the login with a message that says why not", mark)
            }
            _ => return false,
        };
        let mut evidence = vec![Evidence::packet(what, mark)];
        let code = match context.router.clock_skew.filter(|skew| skew.abs() > SKEW) {
            Some(skew) => {
                evidence.push(Evidence::fact(format!("the clock is wrong by {} s", skew.abs())));
                owner = Code::IkeAuthClock.owner();
                Code::IkeAuthClock
            }
            None => Code::IkeAuthRejected,
        };
        find(findings, code, Confidence::Medium, sa, evidence).owner = owner;
        true
    }

    /// IKEv1: a login that ended without a word in the clear.
    fn broken_off(&self, sa: &Sa, over: bool, findings: &mut Findings) -> bool {
        // Keys of an IKE SA are renewed without Quick Mode.
        let renews = |other: &Sa| other.established.is_some() && other.last >= sa.first;
        if !sa.by_device || self.sas.iter().any(renews) {
            return false;
        }
        let Some((what, mark)) = unproven(sa, over).or_else(|| xauth_refused(sa, over)) else { return false };
        let evidence = vec![Evidence::packet(what, mark)];
        find(findings, Code::IkeAuthRejected, Confidence::Medium, sa, evidence);
        true
    }

    /// Nothing at all came back.
    fn silent(&self, at: usize, sa: &Sa, step: &Step, context: &Scene<'_>, findings: &mut Findings) {
        let unheard = |other: &&Sa| other.heard.is_none() && other.by_device && !other.joined;
        if self.after(at).filter(unheard).is_some_and(|next| next.first.at.since(sa.last.at) < RUN) {
            return; // told of with the last one of the run
        }
        let mut sends = step.sends;
        let mut begin = sa.first;
        for before in self.sas.iter().take(at).rev().take_while(unheard) {
            if begin.at.since(before.last.at) >= RUN {
                break;
            }
            begin = before.first;
            let count: u64 = before.steps.iter().map(|step| step.sends.sends).sum();
            sends = Attempts { sends: sends.sends + count, first: begin, ..sends };
        }
        let Some(confidence) = sends.unanswered(context.now) else { return };
        let clash = context.others.iter().find(|other| {
            other.ipsec.as_ref().is_some_and(|tracker| tracker.foreign.contains(&sa.initiator))
        });
        let mut evidence = vec![sends.evidence("sent to UDP 500, no answer")];
        if let Some(other) = clash {
            evidence.push(Evidence::fact(format!("the answers went to {}", other.device)));
            find(findings, Code::MultiClash, Confidence::High, sa, evidence);
            return;
        }
        let flow = self.flows.iter().find(|flow| flow.ports == (sa.device_port, 500));
        let wan = flow.and_then(|flow| flow.wan);
        if let Some((_, port)) = wan.filter(|(_, port)| *port != 500 && sa.device_port == 500) {
            let answered = context.others.iter().any(|other| {
                other.ipsec.as_ref().is_some_and(|tracker| {
                    let kept = |flow: &super::Flow| flow.wan.is_some_and(|(_, port)| port == 500);
                    tracker.heard.is_some() && tracker.flows.iter().any(kept)
                })
            });
            let mut evidence = evidence.clone();
            evidence.push(Evidence::fact(format!("left with source port {port} instead of 500")));
            if answered {
                evidence
                    .push(Evidence::fact("another device's requests left with port 500 and were answered"));
                find(findings, Code::IkePortRewritten, Confidence::High.min(confidence), sa, evidence);
                return;
            }
            find(findings, Code::IkePortRewritten, Confidence::Low, sa, evidence);
        }
        let works_elsewhere = context.others_of_device().any(|other| {
            other.ipsec.as_ref().is_some_and(|other| other.heard.is_some_and(|heard| heard > begin))
        });
        let finding = find(findings, Code::Ike500NoReply, confidence, sa, evidence);
        finding.since = begin.at;
        if works_elsewhere {
            finding.owner = &[Party::Server, Party::Line];
        }
    }
}

/// Refusals in the clear.
fn refused(sa: &Sa, context: &Scene<'_>, next: Option<&Sa>, findings: &mut Findings) -> bool {
    let [ours, theirs] = &sa.no_proposal;
    if let Some(refusal) = theirs.as_ref().or(ours.as_ref()).filter(|_| sa.rounds == 0) {
        let evidence = vec![refusal.evidence("no proposal chosen")];
        let finding = find(findings, Code::IkeNoProposal, Confidence::High, sa, evidence);
        if theirs.is_none() {
            finding.owner = &[Party::Device, Party::Server];
        }
        return true;
    }
    if let Some(mark) = sa.version_refused.or(sa.other_version).filter(|_| sa.rounds == 0) {
        let evidence = vec![Evidence::packet("answered that it does not speak this version of IKE", mark)];
        find(findings, Code::IkeVersion, Confidence::High, sa, evidence);
        return true;
    }
    let Some(group) = sa.invalid_ke.filter(|_| sa.rounds == 0) else { return false };
    let stopped = group.last == sa.last
        && next.is_none()
        && context.now.since(group.last.at) >= crate::attempts::CERTAIN;
    if group.sends < 2 && !stopped {
        return false;
    }
    let confidence = if group.sends < 2 { Confidence::Medium } else { Confidence::High };
    let evidence = vec![group.evidence("answered that the key exchange must use another group")];
    find(findings, Code::IkeInvalidKe, confidence, sa, evidence);
    true
}

/// Aggressive Mode's second message proves that the server knows the shared key (RFC 2409 section 5.4); a device
/// whose key is another one just ends.
fn unproven(sa: &Sa, over: bool) -> Option<(&'static str, Mark)> {
    let [first, proof] = &sa.steps[..] else { return None };
    let aggressive = |step: &Step| step.exchange == Exchange::Aggressive;
    let unanswered = aggressive(first) && first.outbound && aggressive(proof) && !proof.outbound;
    let what = "the device broke off after the server's proof of identity";
    (unanswered && (over || proof.sends.sends >= SENDS)).then_some((what, proof.sends.first))
}

/// The device sent its password and confirmed the verdict, and did not go on: a good one is followed by its
/// request for an address, or by Quick Mode (draft-beaulieu-ike-xauth-02).
fn xauth_refused(sa: &Sa, over: bool) -> Option<(&'static str, Mark)> {
    let mut exchanges = sa.steps.iter().filter(|step| step.exchange == Exchange::Transaction);
    let asked = exchanges.clone().filter(|step| step.outbound && step.asks).count();
    let told = exchanges.clone().filter(|step| !step.outbound).count();
    let last = sa.steps.last().filter(|step| step.exchange == Exchange::Transaction && step.outbound)?;
    let verdict = exchanges.rfind(|step| !step.outbound)?;
    let what = "answered user name and password, and the device did not go on";
    (over && asked == 0 && told >= 2 && !last.asks).then_some((what, verdict.sends.first))
}

/// What an ICMP error says of whom, and how sure that is at the most.
pub(super) fn blamed(
    context: &Context<'_>,
    from: IpAddr,
    kind: IcmpKind,
) -> Option<(Code, &'static [Party], Confidence)> {
    let itself = context.pair.is_some_and(|pair| pair.server == from);
    Some(match kind {
        IcmpKind::PortUnreachable if itself => (Code::Ike500IcmpPort, &[Party::Server], Confidence::High),
        // The server's own filter.
        IcmpKind::Prohibited if itself => (Code::Ike500Admin, &[Party::Server], Confidence::High),
        IcmpKind::PortUnreachable | IcmpKind::Prohibited => {
            (Code::Ike500Admin, Code::Ike500Admin.owner(), Confidence::High)
        }
        IcmpKind::NetUnreachable | IcmpKind::HostUnreachable | IcmpKind::HopLimit => {
            out_of_reach(context, from, kind)
        }
        IcmpKind::ProtocolUnreachable if itself => out_of_reach(context, from, kind),
        IcmpKind::ProtocolUnreachable | IcmpKind::TooBig(_) | IcmpKind::Other(..) => return None,
    })
}

/// A step that waits, in words.
pub(super) fn asked(step: &Step) -> &'static str {
    match (step.exchange, step.marked) {
        (Exchange::Auth, true) => "IKE_AUTH sent to UDP 4500, no answer",
        (Exchange::Auth, false) => "IKE_AUTH sent to UDP 500, no answer",
        (_, true) => "IKE sent to UDP 4500, no answer",
        (_, false) => "IKE sent to UDP 500, no answer",
    }
}

/// Is this the step of IKEv1 by which the device proves who it is, or one behind it?
fn encrypted(step: &Step, sa: &Sa) -> bool {
    let outbound = |other: &&Step| other.outbound && other.sends.first < step.sends.first;
    step.exchange != Exchange::Aggressive && sa.steps.iter().filter(outbound).count() >= 2
}

/// Did anything but repetitions follow that answer?
fn answers_after(sa: &Sa, mark: Mark) -> bool {
    sa.steps.iter().any(|step| step.sends.first > mark) || sa.esp.iter().any(|span| span.is_some())
}
