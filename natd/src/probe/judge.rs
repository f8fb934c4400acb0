//! The findings that follow from the answers.

use std::cmp::Reverse;
use std::net::IpAddr;

use diagnosis::words::words;
use diagnosis::{Code, Confidence, Evidence, Finding, Group, Party};
use passthrough::view::Vpn;

use super::ladder::{Lane, Reach};
use super::messages::{L2tpAnswer, Said};
use super::rows::{Found, Nat, because};
use super::{Control, Ending, FRAGMENTED, Failure, Kind, LARGE, Probe, Tls};

pub(super) struct Judge<'a> {
    probe: &'a Probe,
    out: Vec<Found>,
}

impl<'a> Judge<'a> {
    pub(super) const fn new(probe: &'a Probe) -> Self {
        Self { probe, out: Vec::new() }
    }

    /// What shows the same twice is one finding.
    fn add(
        &mut self,
        code: Code,
        confidence: Confidence,
        vpn: Option<Vpn>,
        evidence: Vec<String>,
    ) -> &mut Found {
        let evidence = evidence.into_iter().map(Evidence::fact);
        if let Some(at) = self.out.iter().position(|found| found.finding.code == code) {
            let found = self.out.get_mut(at).expect("it was found there");
            let finding = &mut found.finding;
            for fact in evidence {
                if !finding.evidence.contains(&fact) {
                    finding.evidence.push(fact);
                }
            }
            finding.confidence = finding.confidence.max(confidence);
            finding.vpn = finding.vpn.filter(|earlier| Some(*earlier) == vpn);
            return found;
        }
        let finding = Finding {
            code,
            confidence,
            owner: code.owner(),
            vpn,
            device: Some(self.probe.target.local),
            server: Some(self.probe.target.server),
            attempt: 0,
            since: self.probe.start.unwrap_or_default(),
            overcome: false,
            evidence: evidence.collect(),
        };
        let words = words(code);
        self.out.push(Found { finding, says: words.says.to_owned(), fix: words.fix.to_owned() });
        self.out.last_mut().expect("just pushed")
    }

    /// "name: note", as in the row.
    fn fact(&self, kind: Kind) -> String {
        let (verdict, note) = self.probe.verdict(kind);
        let gap = if note.is_empty() { "" } else { ", " };
        format!("{}: {}{gap}{note}", kind.name(), super::show::result(verdict))
    }

    fn sent(&self, kind: Kind) -> String {
        let asked = self.probe.of(kind);
        let time = asked.first.map_or(0, |first| self.probe.end.since(first).as_secs());
        format!("{}: {} sent, no answer in {time} s", kind.name(), asked.sent)
    }

    /// Nobody answers and nobody refuses.
    fn silent(&self, kind: Kind) -> bool {
        let asked = self.probe.of(kind);
        asked.sent > 0 && !asked.answered && asked.said.is_none()
    }

    /// All findings, in the order in which `natd diagnose` has them.
    pub(super) fn all(mut self) -> Vec<Found> {
        let alive = self.alive();
        self.nats();
        self.server(alive);
        self.ike();
        self.esp();
        self.sizes();
        self.pptp(alive);
        self.l2tp();
        self.tls();
        self.out.sort_by_key(|Found { finding, .. }| {
            let group = finding.code.group();
            let is_vague = finding.confidence == Confidence::Low;
            (group == Group::Note, is_vague, group, Reverse(finding.confidence))
        });
        self.out
    }

    /// Something of the server's own came.
    pub(super) fn alive(&self) -> bool {
        let probe = self.probe;
        let here = |(by, _): (IpAddr, Said)| by == probe.target.server;
        Kind::ALL.into_iter().any(|kind| {
            let asked = probe.of(kind);
            asked.answered || asked.said.is_some_and(here) || self.connects(kind)
        }) || probe.ladder.server().is_some()
    }

    /// A TCP connection came about or was refused, by the server as far as is known.
    fn connects(&self, kind: Kind) -> bool {
        let failure = match (kind, self.probe.control, self.probe.tls) {
            (Kind::Pptp, Control::Failed(failure), _) | (Kind::Tls, _, Tls::Failed(failure)) => failure,
            _ => return false,
        };
        match failure {
            Failure::NoAnswer | Failure::Ended(Ending::Unreachable | Ending::Forbidden) => false,
            Failure::Ended(Ending::Reset | Ending::Closed) => self.probe.of(kind).said.is_none(),
            Failure::Broken(_)
            | Failure::Mute
            | Failure::Foreign
            | Failure::Start(_)
            | Failure::Call(_)
            | Failure::NoCall => true,
        }
    }

    fn nats(&mut self) {
        let target = &self.probe.target;
        let nat = [Kind::Ike500, Kind::Ike4500].map(|kind| self.probe.nat(kind));
        let behind = nat.contains(&Nat::Address);
        if shared(target.local) {
            let what = format!("our own address is {}, from a provider's shared range", target.local);
            self.add(Code::Cgnat, Confidence::High, None, vec![what]);
            return;
        }
        if let Some((hop, router)) =
            self.probe.ladder.routers().find(|(_, router)| shared(*router)).filter(|_| behind)
        {
            let what = format!("hop {hop} is {router}, from a provider's shared range");
            let seen = "the server sees another address than ours".to_owned();
            self.add(Code::Cgnat, Confidence::Medium, None, vec![what, seen]);
            return;
        }
        if !behind {
            return;
        }
        let seen = format!("the server sees another address than {}", target.local);
        if !private(target.local) {
            self.add(Code::Cgnat, Confidence::Medium, None, vec![seen]);
        } else if target.routes {
            let own = format!("our own address {} is private, and this machine is a router", target.local);
            self.add(Code::DoubleNat, Confidence::Medium, None, vec![own, seen]);
        }
    }

    /// Is there anything at all?
    fn server(&mut self, alive: bool) {
        let probe = self.probe;
        let away = |said: Said| matches!(said, Said::Unreachable | Said::TimeExceeded);
        let lost = Kind::ALL.into_iter().find_map(|kind| {
            probe.of(kind).said.filter(|(by, said)| away(*said) && *by != probe.target.local)
        });
        if !alive {
            if let Some((by, said)) = lost {
                self.add(
                    Code::ServerPath,
                    Confidence::Medium,
                    None,
                    vec![format!("{by}: {}", because(said))],
                );
            }
            return;
        }
        let udp = [Kind::Ike500, Kind::Ike4500, Kind::L2tp, Kind::OpenVpn];
        let silent = udp.iter().all(|kind| self.silent(*kind));
        let no_pptp = probe.control == Control::Failed(Failure::NoAnswer);
        if silent && no_pptp && matches!(probe.tls, Tls::Answered { .. }) {
            let facts = vec![
                "TCP 443 is answered".to_owned(),
                "UDP 500, 4500, 1701, 1194 and TCP 1723 are not; one server alone does not prove it"
                    .to_owned(),
            ];
            self.add(Code::Only443, Confidence::Low, None, facts);
        }
    }

    fn ike(&mut self) {
        let probe = self.probe;
        let answered = |kind| probe.of(kind).answered;
        let lost = probe.ladder.reach(Lane::Udp);
        if self.silent(Kind::Ike500) {
            let sent = self.sent(Kind::Ike500);
            if answered(Kind::Ike4500) {
                let facts =
                    vec![sent, "the same to UDP 4500 is answered".to_owned(), self.fact(Kind::Ike500)];
                self.add(Code::Ike500NoReply, Confidence::High, Some(Vpn::Ike), facts);
            } else if let Reach::Lost { .. } = lost {
                let facts = vec![sent, self.fact(Kind::Ike500)];
                let found = self.add(Code::Ike500NoReply, Confidence::Medium, Some(Vpn::Ike), facts);
                found.finding.owner = &[Party::Line];
            }
        }
        if self.silent(Kind::Ike4500) && answered(Kind::Ike500) {
            let facts = vec![self.sent(Kind::Ike4500), "the same to UDP 500 is answered".to_owned()];
            self.add(Code::Ike4500NoReply, Confidence::High, Some(Vpn::NatTraversal), facts);
        }
        let mut forbidden = Vec::new();
        for (kind, port) in [(Kind::Ike500, "500"), (Kind::Ike4500, "4500")] {
            let Some((by, said)) = probe.of(kind).said.filter(|_| !answered(kind)) else { continue };
            let facts = vec![self.fact(kind)];
            let server = by == probe.target.server;
            if probe.of(kind).unsent {
                self.local_firewall(Vpn::Ike, facts);
            } else if said == Said::Prohibited || said == Said::NoPort && !server {
                let sure = if said == Said::Prohibited { Confidence::High } else { Confidence::Medium };
                forbidden.push(port);
                let found = self.add(Code::Ike500Admin, sure, Some(Vpn::Ike), facts);
                let s = if forbidden.len() > 1 { "s" } else { "" };
                let ports = forbidden.join(" and ");
                found.says = format!("{by} says that it forbids the VPN (IKE, UDP port{s} {ports}).");
                found.fix = "Ask whoever runs that network. A VPN over TCP port 443 often passes.".to_owned();
            } else if said == Said::NoPort && kind == Kind::Ike500 && answered(Kind::Ike4500) {
                self.add(Code::Ike500IcmpPort, Confidence::Medium, Some(Vpn::Ike), facts);
            }
        }
    }

    fn esp(&mut self) {
        match self.probe.ladder.reach(Lane::Esp) {
            Reach::Refused { by, .. } if by == self.probe.target.local => {
                let facts = vec![self.fact(Kind::Esp)];
                self.local_firewall(Vpn::Esp, facts);
            }
            reach @ (Reach::Lost { .. } | Reach::Refused { .. }) => {
                let facts = vec![self.fact(Kind::Esp)];
                let says = match reach {
                    Reach::Refused { by, .. } => {
                        format!(
                            "{by} says that it does not let ESP through, IPsec's data packets without NAT-T."
                        )
                    }
                    Reach::Lost { after: 0 } => {
                        "ESP, IPsec's data packets without NAT-T, comes to no router: \
                                                 it is lost at or just after this machine."
                            .to_owned()
                    }
                    Reach::Lost { after } => {
                        let routers = self.probe.ladder.routers();
                        let router = routers.into_iter().find(|(hop, _)| *hop == after);
                        let router = router.map_or(String::new(), |(_, router)| format!(" ({router})"));
                        format!(
                            "ESP, IPsec's data packets without NAT-T, does not get past hop {after}{router}."
                        )
                    }
                    Reach::Server | Reach::LastHop { .. } | Reach::Unknown { .. } | Reach::NotSent => return,
                };
                let found = self.add(Code::EspNoReturn, Confidence::High, Some(Vpn::Esp), facts);
                found.finding.owner = &[Party::Line];
                found.says = says;
                found.fix =
                    "Turn on NAT-T (UDP encapsulation) on device or server, or use another kind of VPN."
                        .to_owned();
            }
            Reach::Server | Reach::LastHop { .. } | Reach::Unknown { .. } | Reach::NotSent => {}
        }
    }

    fn local_firewall(&mut self, vpn: Vpn, facts: Vec<String>) {
        let found = self.add(Code::LocalFirewall, Confidence::High, Some(vpn), facts);
        found.says = "This machine's own firewall does not let the VPN's packets out.".to_owned();
        found.fix = "Look for a rule that drops them: `nft list ruleset` or `iptables-save` on this machine."
            .to_owned();
    }

    fn sizes(&mut self) {
        let probe = self.probe;
        let large = probe.of(Kind::IkeLarge);
        let vpn = Some(Vpn::Ike);
        // Where large packets get lost without a word, so do the fragments, which are as large.
        let hole = probe.search.teller.is_none() && probe.search.found().1.is_some();
        let hole = hole && probe.measures();
        if self.silent(Kind::IkeFragmented) && large.answered && !hole {
            let facts = vec![
                format!("IKE in one packet of {LARGE} bytes is answered"),
                format!("{} of {FRAGMENTED} bytes in fragments are not", probe.of(Kind::IkeFragmented).sent),
            ];
            self.add(Code::FragmentsDropped, Confidence::High, vpn, facts);
        }
        let (fits, Some(too_big)) = probe.search.found() else { return };
        if !probe.of(Kind::Mtu).done || !probe.measures() {
            return;
        }
        let mut facts = vec![self.fact(Kind::Mtu)];
        let confidence = match probe.search.teller {
            // The path tells what it takes; only where the first hops say so is it the line's own.
            Some((by, hop)) => {
                facts.push(format!("{by} says that packets are too big"));
                if hop.is_none_or(|hop| hop > 2) {
                    return;
                }
                Confidence::Low
            }
            None => {
                facts.push(format!("packets of {too_big} bytes get lost, and nobody says why"));
                Confidence::Medium
            }
        };
        let known = [1492, 1480, 1460, 1454].contains(&fits);
        let sure = if known { confidence } else { Confidence::Low };
        let found = self.add(Code::MtuWanWrong, sure, None, facts);
        found.says = format!("Packets of more than {fits} bytes do not get through whole.");
        found.fix = format!("Set the MTU of the router's WAN interface to {fits}.");
    }

    fn pptp(&mut self, alive: bool) {
        let probe = self.probe;
        let vpn = Some(Vpn::Pptp);
        let fact = self.fact(Kind::Pptp);
        match probe.control {
            Control::Failed(Failure::Start(_)) => {
                self.add(Code::PptpControlRefused, Confidence::High, vpn, vec![fact]);
            }
            Control::Failed(Failure::Call(_)) => {
                self.add(Code::PptpCallRefused, Confidence::High, vpn, vec![fact]);
            }
            Control::Failed(Failure::Mute | Failure::Foreign | Failure::Broken(_)) => {
                self.add(Code::PptpNoSccrp, Confidence::Medium, vpn, vec![fact]);
            }
            // A server without a firewall would have refused it, as it does 443.
            Control::Failed(Failure::NoAnswer) if alive => {
                if probe.tls == Tls::Failed(Failure::Ended(Ending::Reset))
                    && probe.of(Kind::Tls).said.is_none()
                {
                    let other = "TCP 443 is refused by the server: no firewall there drops it".to_owned();
                    self.add(Code::PptpNoReply, Confidence::Low, vpn, vec![fact, other]);
                }
            }
            Control::Call(_) if probe.of(Kind::PptpGre).sent > 0 && !probe.of(Kind::PptpGre).answered => {
                let mut facts = vec![
                    "PPTP's control connection sets a call up".to_owned(),
                    self.sent(Kind::PptpGre),
                    self.fact(Kind::PptpGre),
                    self.fact(Kind::Gre),
                ];
                let lost =
                    matches!(probe.ladder.reach(Lane::Gre), Reach::Lost { .. } | Reach::Refused { .. });
                let nat = [Kind::Ike500, Kind::Ike4500].iter().any(|kind| probe.nat(*kind) == Nat::Address);
                if nat {
                    facts.push("a NAT on the way may not know PPTP".to_owned());
                }
                // Without its helper for PPTP a router's kernel takes the server's GRE for a stranger's.
                let own = probe.target.routes && !probe.gre_in && !lost;
                if own {
                    facts.push(
                        "this router's own firewall may drop it: probe from a device behind it too"
                            .to_owned(),
                    );
                }
                let sure = match (own, nat) {
                    (true, _) => Confidence::Low,
                    (false, true) => Confidence::Medium,
                    (false, false) => Confidence::High,
                };
                let found = self.add(Code::PptpGreBlocked, sure, vpn, facts);
                if lost {
                    found.finding.owner = &[Party::Line];
                } else if own {
                    found.finding.owner = &[Party::Router, Party::Line, Party::Server];
                }
            }
            Control::Waiting
            | Control::Starting
            | Control::Calling
            | Control::Call(_)
            | Control::Failed(Failure::NoAnswer | Failure::Ended(_) | Failure::NoCall) => {}
        }
    }

    fn l2tp(&mut self) {
        if let Some(L2tpAnswer::Stop { result: 2 | 4 }) = self.probe.l2tp {
            let facts = vec![self.fact(Kind::L2tp)];
            self.add(Code::L2tpPlainRefused, Confidence::Medium, Some(Vpn::L2tp), facts);
        }
    }

    fn tls(&mut self) {
        let fact = self.fact(Kind::Tls);
        match self.probe.tls {
            Tls::Failed(Failure::Broken(Ending::Reset)) => {
                self.add(Code::TlsVpnRst, Confidence::Low, None, vec![fact]);
            }
            Tls::Failed(Failure::Mute) => {
                self.add(Code::TlsVpnSilent, Confidence::Low, None, vec![fact]);
            }
            Tls::Waiting | Tls::Greeted | Tls::Answered { .. } | Tls::Failed(_) => {}
        }
    }
}

/// 100.64.0.0/10 (RFC 6598).
fn shared(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, ..] = addr.octets();
            a == 100 && b & 0xc0 == 64
        }
        IpAddr::V6(_) => false,
    }
}

fn private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_private() || addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unique_local() || addr.is_unicast_link_local(),
    }
}
