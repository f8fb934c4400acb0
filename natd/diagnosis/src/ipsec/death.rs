//! Why an IPsec session that worked does not work any more.

use core::time::Duration;

use nat_core::time::Timestamp;
use passthrough::ike::{Exchange, IkeVersion};

use super::exchange::{Sa, Step};
use super::handshake::{asked, blamed};
use super::{Scene, Tracker, find, line};
use crate::attempts::{Attempts, SENDS};
use crate::code::{Code, Party};
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::tally::wording;

/// A session that recovers within this time from a new WAN address is well.
const RECOVERY: Duration = Duration::from_secs(30);
/// So many packets in vain after a new WAN address, over so long a time.
const LEFT_BEHIND: (u64, Duration) = (10, Duration::from_secs(10));
/// What dies that soon after new keys dies of them.
const REKEY: Duration = Duration::from_secs(10);
/// Requests for new keys from both sides within this time cross.
const CROSSING: Duration = Duration::from_secs(2);
/// New keys oftener than that are too often; RFC 7296 leaves lifetimes to both sides, hours are usual.
const OFTEN: Duration = Duration::from_secs(600);
/// New keys within this time are of one occasion: several SAs for ESP. Unless they replace others each time.
const OCCASION: Duration = Duration::from_secs(30);
/// NAT keepalives come every 20 s (RFC 3948 section 4); a mapping lives for at least two minutes on good routers.
const NO_KEEPALIVE: Duration = Duration::from_secs(60);
/// What dies that soon after it began was let begin, and then stopped.
const EARLY: Duration = Duration::from_secs(60);

/// A session that gets no answer any more.
struct Death {
    /// The last packet from the server.
    heard: Mark,
    /// What was sent in vain.
    asked: Attempts,
    confidence: Confidence,
    evidence: Vec<Evidence>,
}

impl Tracker {
    /// Every IKE SA that came to be.
    pub(super) fn lives(&self, context: &Scene<'_>, findings: &mut Findings) {
        for (at, sa) in self.sas.iter().enumerate() {
            if sa.established.is_none() {
                continue;
            }
            self.rekey_short(sa, findings);
            if self.rebooted(at, sa, findings)
                || self.rekey_refused(at, sa, context, findings)
                || self.left_behind(at, sa, context, findings)
                || self.several_at_server(at, sa, context, findings)
            {
                continue;
            }
            if let Some(death) = self.death(at, sa, context) {
                self.cause(at, sa, death, context, findings);
            }
        }
    }

    fn death(&self, at: usize, sa: &Sa, context: &Scene<'_>) -> Option<Death> {
        let [_, inbound] = sa.esp;
        let esp_heard = inbound.map(|(_, last)| last);
        let heard = sa.heard.max(esp_heard)?;
        let next = self.after(at);
        let end = next.map_or(context.now, |next| next.first.at);
        let step = sa.waiting().filter(|step| step.sends.first > heard);
        if let Some((step, confidence)) = step.and_then(|step| Some((step, step.sends.unanswered(end)?))) {
            let evidence = vec![step.sends.evidence(asked(step)), Evidence::packet("the last answer", heard)];
            return Some(Death { heard, asked: step.sends, confidence, evidence });
        }
        // IKEv1's DPD has a new message ID each time.
        let lone = |step: &&Step| {
            step.exchange == Exchange::Informational1 && step.outbound && step.sends.first > heard
        };
        let lone: Vec<&Step> = sa.steps.iter().filter(lone).collect();
        if let ([first, ..], [.., last]) = (&lone[..], &lone[..]) {
            let sends = lone.iter().map(|step| step.sends.sends).sum();
            let asked = Attempts { sends, first: first.sends.first, last: last.sends.last };
            let lasted = asked.last.at.since(asked.first.at) >= crate::attempts::PATIENCE;
            if sends >= SENDS && lasted {
                let evidence = vec![asked.evidence("sent to ask whether the server lives, no answer")];
                return Some(Death { heard, asked, confidence: asked.unanswered(end)?, evidence });
            }
        }
        let last = self.sas.iter().skip(at + 1).all(|next| next.established.is_none());
        let alone = self.children.silence(0, context.vantage.router)?;
        let lasted = alone.last.at.since(alone.first.at);
        if !last || esp_heard.is_none() || alone.first <= heard || alone.packets < 10 {
            return None;
        }
        let asked = Attempts { sends: alone.packets, first: alone.first, last: alone.last };
        let evidence = vec![
            asked.evidence("sent with ESP, nothing came back"),
            Evidence::packet("the last answer", heard),
        ];
        (lasted >= Duration::from_secs(20)).then_some(Death {
            heard,
            asked,
            confidence: Confidence::Low,
            evidence,
        })
    }

    fn cause(&self, at: usize, sa: &Sa, death: Death, context: &Scene<'_>, findings: &mut Findings) {
        let Death { heard, asked, confidence, mut evidence } = death;
        let sure = confidence.max(Confidence::Medium);
        let within = |changed: &Timestamp| *changed >= heard.at && *changed <= asked.last.at;
        let known = context.router.wan_changed.map(|(changed, _)| changed).filter(within);
        if let Some(changed) = known.or(self.wan_change(heard)) {
            return self.wan_changed(at, sa, changed, asked, evidence, context, findings);
        }
        let said = self.said.iter().rev().find(|said| said.attempt == sa.attempt && said.last > heard);
        let blame = said.and_then(|said| Some((said, blamed(context, said.report.from, said.report.kind)?)));
        if let Some((said, (code, owner, most))) = blame {
            let what = format!("{} answered: {}", said.report.from, wording(said.report.kind));
            evidence.push(Evidence::packets(what, said.count, said.first, said.last));
            let code = if code == Code::Ike500IcmpPort { Code::ServerDown } else { code };
            find(findings, code, sure.min(most), sa, evidence).owner = owner;
            return;
        }
        let timeouts = context.router.timeouts;
        let limit = timeouts.map_or(line::PAUSE, |timeouts| Duration::from_secs(timeouts.udp));
        let moved = self.flows.iter().filter_map(|flow| flow.moved).find(|moved| moved.at > heard);
        let paused = moved.filter(|moved| {
            let long = limit.min(Duration::from_secs(3600));
            moved.pause.is_some_and(|(before, after)| after.at.since(before.at) >= long)
        });
        if let Some(moved) = paused {
            let (_, old) = moved.before;
            let (_, new) = moved.after;
            evidence.push(Evidence::packet(
                format!("left with port {new} instead of {old} after a silence"),
                moved.at,
            ));
            let confidence = if timeouts.is_some() { Confidence::High } else { Confidence::Medium };
            find(findings, Code::NatIdleTimeout, confidence, sa, evidence);
            return;
        }
        if let Some(code) = rekeying(sa, heard, asked.first) {
            let again = self.sas.iter().take(at).filter(|before| {
                before.esp.iter().flatten().any(|(_, last)| rekeying(before, *last, before.last).is_some())
            });
            let repeated = again.count() > 0;
            let confidence = if repeated { Confidence::High } else { Confidence::Medium };
            find(findings, code, confidence, sa, evidence);
            return;
        }
        let pause = self.flows.iter().filter_map(|flow| flow.pause).find(|(before, after)| {
            *after > heard
                && *before >= heard
                && after.at.since(before.at) > NO_KEEPALIVE
                && *after <= asked.last
        });
        if let Some((before, after)) = pause.filter(|_| sa.floated) {
            let what = "no packet and no keepalive for a minute or more before that";
            evidence.push(Evidence::packets(what, 0, before, after));
            find(findings, Code::NatKeepaliveMissing, Confidence::Medium, sa, evidence);
            return;
        }
        // Let begin and then silenced, and so the try before or after it: no chance.
        let early = |sa: &Sa| {
            let heard = sa.heard.max(sa.esp[1].map(|(_, last)| last));
            let soon = heard.is_some_and(|heard| heard.at.since(sa.first.at) < EARLY);
            soon && sa.established.is_some() && sa.by_device && !sa.joined && sa.waiting().is_some()
        };
        let before = at.checked_sub(1).and_then(|before| self.sas.get(before));
        if early(sa) && (before.is_some_and(early) || self.after(at).is_some_and(early)) {
            evidence.push(Evidence::fact("another try was answered, and fell silent as well"));
            find(findings, Code::DpiUdpBlackhole, Confidence::Medium, sa, evidence);
            return;
        }
        find(findings, Code::DpdDead, confidence, sa, evidence);
    }

    /// Did a flow get another WAN address after `heard`? When.
    fn wan_change(&self, heard: Mark) -> Option<Timestamp> {
        let other = |moved: &super::Moved| moved.before.0 != moved.after.0 && moved.at > heard;
        self.flows.iter().filter_map(|flow| flow.moved).find(other).map(|moved| moved.at.at)
    }

    /// The WAN has another address, and ESP of the server's still goes to the old one, though IKE may go on from
    /// the new one: without NAT traversal or MOBIKE nothing tells the server (RFC 4555 section 1).
    fn left_behind(&self, at: usize, sa: &Sa, context: &Scene<'_>, findings: &mut Findings) -> bool {
        let Some((_, heard)) = self.children.span[1] else { return false };
        let known =
            context.router.wan_changed.filter(|_| context.pair.is_none_or(|pair| pair.server.is_ipv4()));
        let Some(changed) = known.map(|(changed, _)| changed).or_else(|| self.wan_change(heard)) else {
            return false;
        };
        // What was underway may still come in.
        let grace = Duration::from_secs(1);
        let owns = |sa: &Sa| sa.agreed().is_some_and(|agreed| agreed.at <= changed);
        if !owns(sa) || self.after(at).is_some_and(owns) || heard.at > changed + grace {
            return false;
        }
        let Some((alone, since)) = self.children.unanswered_since(changed, context.vantage.router) else {
            return false;
        };
        let lasted = alone.last.at.since(since);
        let (packets, patience) = LEFT_BEHIND;
        if alone.packets < packets || lasted < patience {
            return false;
        }
        let confidence = if lasted >= RECOVERY { Confidence::High } else { Confidence::Medium };
        let what = match known {
            Some((_, old)) => format!("the WAN address changed, it was {old}"),
            None => "the WAN address changed".into(),
        };
        let mark = Mark { at: changed, number: alone.first.number };
        let evidence = vec![
            Evidence::packet(what, mark),
            Evidence::packets(
                "sent with ESP since, nothing came back",
                alone.packets,
                alone.first,
                alone.last,
            ),
            Evidence::packet("the last ESP from the server", heard),
        ];
        find(findings, Code::WanAddrChanged, confidence, sa, evidence);
        true
    }

    #[expect(clippy::too_many_arguments, reason = "all of them describe the one death")]
    fn wan_changed(
        &self,
        at: usize,
        sa: &Sa,
        changed: Timestamp,
        asked: Attempts,
        mut evidence: Vec<Evidence>,
        context: &Scene<'_>,
        findings: &mut Findings,
    ) {
        let recovered = |next: &Sa| next.heard.is_some() && next.first.at.since(changed) <= RECOVERY;
        if self.sas.iter().skip(at + 1).any(recovered) || context.now.since(changed) < RECOVERY {
            return;
        }
        let old = context.router.wan_changed.map(|(_, old)| old);
        evidence.push(Evidence {
            what: old.map_or("the WAN address changed".into(), |old| {
                format!("the WAN address changed, it was {old}")
            }),
            count: 0,
            first: Some(Mark { at: changed, number: asked.first.number }),
            last: None,
        });
        find(findings, Code::WanAddrChanged, Confidence::High, sa, evidence);
    }

    /// The server has forgotten the session.
    fn rebooted(&self, at: usize, sa: &Sa, findings: &mut Findings) -> bool {
        let end = self.after(at).map(|next| next.first);
        let within =
            |mark: Mark| sa.established.is_some_and(|begin| mark > begin) && end.is_none_or(|end| mark < end);
        let [_, complaint] = &self.unknown_spi;
        let [_, inbound] = sa.esp;
        let unsolved = |mark: Mark| within(mark) && inbound.is_none_or(|(_, last)| last < mark);
        let ours = |spi: u32| self.children.of(true).any(|child| child.spi == spi);
        let (evidence, count) = match (complaint, sa.forgotten) {
            (Some((spi, said)), _) if ours(*spi) && unsolved(said.last) => {
                (said.evidence("the server does not know the session's ESP any more"), said.sends)
            }
            (_, Some(mark)) if unsolved(mark) => {
                (Evidence::packet("the server does not know the session any more", mark), 1)
            }
            _ => return false,
        };
        let confidence = if count > 1 { Confidence::High } else { Confidence::Medium };
        find(findings, Code::PeerReboot, confidence, sa, vec![evidence]);
        true
    }

    /// The server refused new keys.
    fn rekey_refused(&self, at: usize, sa: &Sa, context: &Scene<'_>, findings: &mut Findings) -> bool {
        let gave_up = |mark: Mark| {
            self.after(at).is_some_and(|next| next.by_device && next.first.at.since(mark.at) < RECOVERY)
        };
        let refused = sa.rekey_refused.filter(|refused| refused.sends >= SENDS || gave_up(refused.last));
        // In IKEv1 the refusal is an informational message of its own.
        let unanswered = sa.waiting().filter(|step| {
            step.exchange == Exchange::QuickMode
                && sa.heard.is_some_and(|heard| heard > step.sends.first)
                && step.sends.unanswered(context.now).is_some()
        });
        let evidence = match (refused, unanswered) {
            (Some(refused), _) => refused.evidence("the server refused new keys"),
            (None, Some(step)) => step.sends.evidence("asked for new keys, and got something else"),
            (None, None) => return false,
        };
        find(findings, Code::RekeyFail, Confidence::Medium, sa, vec![evidence]);
        true
    }

    /// A second device's L2TP/IPsec session at the same server took this one's place there.
    fn several_at_server(&self, at: usize, sa: &Sa, context: &Scene<'_>, findings: &mut Findings) -> bool {
        let Some(alone) = self.children.silence(0, context.vantage.router) else { return false };
        let newest = self.sas.len() == at + 1;
        let ([_, Some((_, heard))], IkeVersion::V1) = (sa.esp, sa.version) else { return false };
        let lasted = alone.last.at.since(alone.first.at) >= Duration::from_secs(10);
        if !newest || !sa.floated || sa.transactions || alone.packets < 10 || !lasted {
            return false;
        }
        let took = |other: &Sa| {
            let since = other.established.map(|mark| mark.at);
            other.version == IkeVersion::V1
                && other.floated
                && !other.transactions
                && other.windows == sa.windows
                && other.esp[1].is_some()
                && since.is_some_and(|since| {
                    since > sa.first.at && heard.at.since(since) < REKEY && alone.last.at > since
                })
        };
        let mut others = context.others.iter();
        let other = others.find(|pair| pair.ipsec.as_ref().is_some_and(|other| other.sas.iter().any(took)));
        let Some(other) = other else { return false };
        let evidence = vec![
            Evidence::packets("sent with ESP, nothing came back", alone.packets, alone.first, alone.last),
            Evidence::packet("the last answer", heard),
            Evidence::fact(format!("{} began a session with the same server", other.device)),
        ];
        let confidence = if sa.windows { Confidence::Medium } else { Confidence::Low };
        find(findings, Code::L2tpIpsecMultiServer, confidence, sa, evidence).owner = &[Party::Server];
        true
    }

    /// New keys too often.
    fn rekey_short(&self, sa: &Sa, findings: &mut Findings) {
        let mut last = sa.established.filter(|_| !sa.joined);
        let mut begin: Option<Mark> = None;
        let mut renewed = 0;
        for renewal in &sa.rekeys {
            let Some(before) = last else {
                last = Some(renewal.at);
                continue;
            };
            let gap = renewal.at.at.since(before.at);
            if gap < CROSSING || gap < OCCASION && !renewal.replaces {
                continue;
            }
            (renewed, begin) = if gap < OFTEN { (renewed + 1, begin.or(Some(before))) } else { (0, None) };
            last = Some(renewal.at);
        }
        // Each of several SAs has its own turn.
        let cycles = renewed / self.children.parallel();
        if let (Some(first), Some(last), true) = (begin, last, cycles >= 3) {
            let evidence = vec![Evidence::packets("new keys were agreed on", renewed, first, last)];
            let confidence = if cycles > 3 { Confidence::High } else { Confidence::Medium };
            find(findings, Code::RekeyShort, confidence, sa, evidence);
        }
    }
}

/// Did new keys kill it, or two requests for them that crossed?
fn rekeying(sa: &Sa, heard: Mark, first: Mark) -> Option<Code> {
    let renews = |step: &&Step| {
        let kind = matches!(step.exchange, Exchange::CreateChildSa | Exchange::QuickMode);
        // Neither long over when it fell silent, nor begun long after.
        kind && step.asks
            && step.sends.first > sa.established.unwrap_or_default()
            && heard.at.since(step.sends.first.at) < REKEY
            && step.sends.first.at.since(heard.at) < REKEY
            && step.sends.first.at.since(first.at) < CROSSING
    };
    let steps: Vec<&Step> = sa.steps.iter().filter(renews).collect();
    let apart = |a: Mark, b: Mark| a.at.since(b.at).max(b.at.since(a.at));
    let crossing = steps.iter().any(|ours| {
        let theirs =
            |other: &&&Step| !other.outbound && apart(ours.sends.first, other.sends.first) < CROSSING;
        ours.outbound && steps.iter().any(|other| theirs(&other))
    });
    if steps.is_empty() {
        None
    } else if crossing {
        Some(Code::RekeyCollision)
    } else {
        Some(Code::RekeyFail)
    }
}
