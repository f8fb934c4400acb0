//! What is wrong with PPTP, told from what was seen.

use core::time::Duration;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::view::Vpn;

use super::connection::{Call, Connection, OK, Signal};
use super::reason::{call_words, start_words};
use super::{GRE, PORT, TCP, Tracker};
use crate::attempts::{Attempts, CERTAIN};
use crate::code::{Code, Party};
use crate::finding::{Confidence, Evidence, Finding, Findings, Mark};
use crate::household::Context;
use crate::observation::{IcmpKind, Point};
use crate::tally::{Barred, barred, shared_line};

/// A reset whose TTL differs by so much from the SYN-ACK's comes from elsewhere. Routes that change, or a capture
/// on the other side of a router, make one or two.
const TTL_APART: u8 = 3;
/// So many connections with the same two TTLs are no chance.
const EACH_TIME: usize = 3;
/// Before that, GRE may still be on its way up at a slow server: LCP is repeated every three seconds.
pub(super) const GRE_PATIENCE: Duration = Duration::from_secs(8);
/// A call that is kept for longer without any GRE has it where the capture does not see it: devices give up
/// after 30 seconds.
const NO_GRE_AT_ALL: Duration = Duration::from_secs(60);

/// One connection, while it is judged.
pub(super) struct Case<'a, 'b> {
    pub(super) connection: &'a Connection,
    pub(super) context: &'a Context<'a>,
    mine: &'a Tracker,
    others: &'a [&'a Tracker],
    pub(super) findings: &'b mut Findings,
}

impl Tracker {
    pub(super) fn judge(&self, context: &Context<'_>, others: &[&Self], findings: &mut Findings) {
        for connection in &self.connections {
            let mut case = Case { connection, context, mine: self, others, findings: &mut *findings };
            case.judge(self.strange.filter(|(strange, _)| strange.first.at >= connection.since));
        }
    }
}

impl Case<'_, '_> {
    pub(super) fn add(&mut self, code: Code, sure: Confidence, evidence: Vec<Evidence>) -> &mut Finding {
        let Connection { attempt, since, .. } = *self.connection;
        self.findings.add(code, sure, Some(Vpn::Pptp), attempt, since, evidence)
    }

    fn judge(&mut self, strange: Option<(Attempts, u16)>) {
        let connection = self.connection;
        if self.barred() || self.forged_reset() {
            return;
        }
        if connection.works() {
            self.dies();
            return;
        }
        if connection.joined {
            return;
        }
        if connection.syn_ack.is_none() {
            self.unconnected();
        } else if let Some(call) = connection.call() {
            self.call(call, strange);
        } else {
            self.control();
        }
    }

    /// Is another device of the household connected with the server?
    fn rival(&self) -> bool {
        let since = self.connection.since;
        // Beyond the NAT all devices have one address.
        let mine = !self.context.vantage.lan && self.mine.is_up(since);
        mine || self.others.iter().any(|other| other.is_up(since))
    }

    fn barred(&mut self) -> bool {
        let connection = self.connection;
        // Where it worked before it was switched off.
        let since = if connection.works() {
            connection.heard().map_or(connection.since, |mark| mark.at)
        } else {
            connection.since
        };
        let span = (since, connection.last.at);
        let found = barred(self.context, TCP, PORT, span).or_else(|| barred(self.context, GRE, 0, span));
        if let Some((barred, evidence)) = found {
            let code = if barred == Barred::Off { Code::PptpGrePassOff } else { Code::PptpCallIdClash };
            self.add(code, Confidence::High, vec![evidence]);
            return true;
        }
        let off = self.context.router.pptp == Some(false) && connection.syn_ack.is_none();
        if off && (connection.reset.inbound.is_some() || self.syn_unanswered().is_some()) {
            let evidence = vec![Evidence::fact("passthrough.pptp is off")];
            self.add(Code::PptpGrePassOff, Confidence::High, evidence);
            return true;
        }
        false
    }

    fn syn_unanswered(&self) -> Option<Confidence> {
        let syn = self.connection.syn.filter(|syn| syn.sends >= 2)?;
        syn.unanswered(self.context.now)
    }

    /// A reset that the server did not send: false negatives are better than the opposite (Weaver, Sommer, Paxson:
    /// "Detecting Forged TCP Reset Packets").
    fn forged_reset(&mut self) -> bool {
        let connection = self.connection;
        let Some(reset) = connection.reset.inbound else { return false };
        let over = |direction| {
            let signs = [*connection.fin.of(direction), *connection.stop.of(direction)];
            signs.into_iter().flatten().any(|mark| mark.at <= reset.mark.at)
        };
        let device_first = connection.reset.outbound.is_some_and(|own| own.mark.at <= reset.mark.at);
        let changed = self.context.router.wan_changed.is_some_and(|(at, _)| {
            let (one, other) = (at.since(reset.mark.at), reset.mark.at.since(at));
            one.max(other) < Duration::from_secs(120)
        });
        if over(Direction::Outbound) || over(Direction::Inbound) || device_first || changed {
            return false;
        }
        // What the home router sends itself has not crossed any router yet.
        let local = reset.point == Point::Lan && matches!(reset.ttl, 64 | 128 | 255);
        // Two routers fewer prove nothing once: ways change. The same two each time are another sender's place.
        let each_time = || {
            let same = |other: &&Connection| {
                let (syn_ack, rst) = (other.syn_ack.map(|s| s.ttl), other.reset.inbound.map(|r| r.ttl));
                (syn_ack, rst) == (connection.syn_ack.map(|s| s.ttl), Some(reset.ttl))
            };
            self.mine.connections.iter().filter(same).count() >= EACH_TIME
        };
        let apart = |syn_ack: Signal| {
            let routers = syn_ack.ttl.abs_diff(reset.ttl);
            let other = routers >= TTL_APART || routers + 1 == TTL_APART && each_time();
            syn_ack.mark.at <= reset.mark.at && other
        };
        let apart = connection.syn_ack.filter(|&syn_ack| apart(syn_ack));
        let mut evidence = Vec::new();
        if let Some(syn_ack) = apart {
            evidence.push(Evidence::packet(format!("SYN-ACK with TTL {}", syn_ack.ttl), syn_ack.mark));
        }
        evidence.push(Evidence::packet(format!("reset with TTL {}", reset.ttl), reset.mark));
        if let Some(mark) = connection.after_reset {
            evidence.push(Evidence::packet("the server goes on behind its reset", mark));
            self.add(Code::DpiRst, Confidence::High, evidence);
            return true;
        }
        if apart.is_some() && !local {
            self.add(Code::DpiRst, Confidence::Medium, evidence);
            return true;
        }
        false
    }

    /// Did something answer before the SYN was out? Then it is the router itself.
    fn is_from_home(&self) -> bool {
        let vantage = self.context.vantage;
        vantage.lan && vantage.wan && !self.connection.outside.is_known()
    }

    /// natd, as far as a capture can tell; live natd gives its own account of what it refused, a little later.
    fn refused_at_home(&mut self, reset: Mark) {
        const ACCOUNT: Duration = Duration::from_secs(2);
        let code = match self.context.vantage.router {
            false => Code::PptpGrePassOff,
            true if self.context.now.since(reset.at) < ACCOUNT => return,
            true => Code::LocalFirewall,
        };
        let what = "reset in answer to a SYN that had not left on the WAN";
        self.add(code, Confidence::Medium, vec![Evidence::packet(what, reset)]);
    }

    /// No SYN-ACK.
    fn unconnected(&mut self) {
        let connection = self.connection;
        if let Some(reset) = connection.reset.inbound {
            if self.is_from_home() {
                self.refused_at_home(reset.mark);
                return;
            }
            let code = if self.rival() { Code::PptpOnePerIp } else { Code::PptpRefused };
            let sure = if code == Code::PptpRefused { Confidence::High } else { Confidence::Medium };
            self.add(code, sure, vec![Evidence::packet("reset in answer to the SYN", reset.mark)]);
            return;
        }
        if let Some(errors) = connection.errors {
            let server = self.context.pair.map(|pair| pair.server);
            let refuses = matches!(errors.last.kind, IcmpKind::PortUnreachable | IcmpKind::Prohibited);
            if refuses && server == Some(errors.last.from) {
                self.add(Code::PptpRefused, Confidence::High, vec![errors.evidence()]);
                return;
            }
            let who = (connection.attempt, connection.since);
            if errors.find(self.context, Vpn::Pptp, who, self.findings) {
                return;
            }
        }
        if let (Some(sure), Some(syn)) = (self.syn_unanswered(), connection.syn) {
            self.add(Code::PptpNoReply, sure, vec![syn.evidence("SYN to TCP 1723, no answer")]);
        }
    }

    /// Connected, but no call is asked for yet.
    fn control(&mut self) {
        let connection = self.connection;
        let Some(start) = connection.start else { return };
        if let Some((mark, result)) = connection.start_reply {
            if result > OK {
                let code =
                    if result == 3 && self.rival() { Code::PptpOnePerIp } else { Code::PptpControlRefused };
                self.add(code, Confidence::High, vec![Evidence::packet(start_words(result), mark)]);
            }
            return;
        }
        let mut evidence = vec![Evidence::packet("Start-Control-Connection-Request, no reply", start)];
        if let Some(foreign) = connection.foreign {
            evidence.push(Evidence::packet("something else than PPTP answers", foreign));
            self.add(Code::PptpNoSccrp, Confidence::High, evidence);
            return;
        }
        // A device that gives up sooner was asked to by its user.
        let (end, sure) = match connection.over() {
            Some((mark, Direction::Inbound)) => (Some(mark), Confidence::High),
            Some((mark, Direction::Outbound)) if mark.at.since(start.at) < CERTAIN => return,
            _ if self.context.now.since(start.at) < CERTAIN => return,
            Some((mark, Direction::Outbound)) => (Some(mark), Confidence::High),
            None => (None, Confidence::High),
        };
        let closed = matches!(connection.over(), Some((_, Direction::Inbound)));
        if let Some(end) = end.filter(|_| closed) {
            if self.rival() {
                evidence.push(Evidence::packet("closed by the server, as another device is connected", end));
                self.add(Code::PptpOnePerIp, Confidence::Medium, evidence);
                return;
            }
            evidence.push(Evidence::packet("closed by the server", end));
        }
        let swallowed = connection.pending.filter(|_| connection.acknowledged.is_none() && !closed);
        if let Some(pending) = swallowed {
            evidence.push(pending.attempts.evidence("sent again, never acknowledged"));
        }
        let finding = self.add(Code::PptpNoSccrp, sure, evidence);
        if swallowed.is_some() {
            finding.owner = &[Party::Line, Party::Server];
        }
    }

    fn call(&mut self, call: &Call, strange: Option<(Attempts, u16)>) {
        let Some((answered, result)) = call.reply else {
            self.unanswered_call(call);
            return;
        };
        if result != OK {
            let policy = matches!(result, 4 | 7) && self.rival();
            let code = if policy { Code::PptpOnePerIp } else { Code::PptpCallRefused };
            self.add(code, Confidence::High, vec![Evidence::packet(call_words(result), answered)]);
            return;
        }
        let end = self.connection.end_of(call).map(|(mark, _)| mark);
        let until = end.map_or(self.context.now, |end| end.at);
        if self.deaf(call, until) {
            return;
        }
        if call.heard_us.is_some() {
            self.link(call);
            return;
        }
        match call.tries {
            None => self.no_gre(call, answered, until),
            Some(tries) => self.gre_unheard(call, tries, until, strange),
        }
    }

    fn unanswered_call(&mut self, call: &Call) {
        let mut evidence = vec![Evidence::packet("Outgoing-Call-Request, no reply", call.since)];
        match self.connection.over() {
            Some((end, Direction::Inbound)) => evidence.push(Evidence::packet("closed by the server", end)),
            Some((end, Direction::Outbound)) if end.at.since(call.since.at) < CERTAIN => return,
            Some(_) | None if self.context.now.since(call.since.at) < CERTAIN => return,
            Some(_) | None => {}
        }
        self.add(Code::PptpCallRefused, Confidence::Medium, evidence);
    }

    /// Who keeps GRE from the device, or the device's from us.
    fn device(&self) -> &'static [Party] {
        let beyond = self.context.vantage.wan && !self.context.vantage.lan;
        if beyond { &[Party::Device, Party::Router] } else { &[Party::Device] }
    }

    /// GRE comes in, and the device goes on as if it did not.
    fn deaf(&mut self, call: &Call, until: Timestamp) -> bool {
        let Some(unheeded) = call.unheeded.filter(|_| !call.heard_them && call.arrived >= 3) else {
            return false;
        };
        let Some(sure) = patience(unheeded, until) else { return false };
        let mut evidence = vec![unheeded.evidence("GRE sent, none of it acknowledges the server's")];
        evidence.extend(call.gre.inbound.evidence("GRE from the server for this call"));
        let owner = self.device();
        self.add(Code::PptpGreInOnly, sure, evidence).owner = owner;
        true
    }

    /// The call is up, and the device sends no PPP.
    fn no_gre(&mut self, call: &Call, answered: Mark, until: Timestamp) {
        let waited = until.since(answered.at);
        let device = self.device();
        if let Some((first, last)) = call.gre.inbound.span {
            let count = call.gre.inbound.count;
            if count >= 3 && last.at.since(first.at).max(waited) >= GRE_PATIENCE {
                let evidence = vec![
                    Evidence::packets("GRE from the server", count, first, last),
                    Evidence::fact("the device sends no GRE"),
                ];
                self.add(Code::PptpGreInOnly, Confidence::High, evidence).owner = device;
            }
            return;
        }
        let ended = self.connection.end_of(call).is_some();
        let sure = match waited {
            _ if waited >= NO_GRE_AT_ALL => return,
            _ if waited >= CERTAIN => Confidence::Medium,
            _ if ended => Confidence::Low,
            _ => return,
        };
        let evidence = vec![
            Evidence::packet("the server connects the call", answered),
            Evidence::fact("no GRE either way, if it was captured at all"),
        ];
        self.add(Code::PptpGreNoOut, sure, evidence).owner = device;
    }

    /// The device sends PPP, and the server does not show that any of it arrived.
    fn gre_unheard(
        &mut self,
        call: &Call,
        tries: Attempts,
        until: Timestamp,
        strange: Option<(Attempts, u16)>,
    ) {
        let rejected = call.errors.filter(|errors| errors.first.at >= call.since.at);
        let soon = rejected.filter(|_| until.since(tries.first.at) >= Duration::from_secs(1));
        let Some(sure) = soon.map(|_| Confidence::High).or(patience(tries, until)) else { return };
        let mut evidence = vec![tries.evidence("GRE sent, no sign that it arrived")];
        evidence.extend(call.gre.inbound.evidence("GRE from the server, none of it an answer"));
        let other = self.misled(call, tries, strange, sure);
        let other = other || self.clashes(call, tries, sure);
        if let Some((sure, line)) =
            shared_line(self.context).filter(|_| call.gre.inbound.count == 0 && !other)
        {
            self.add(Code::SharedIpv4Proto, sure, vec![line, tries.evidence("GRE sent, no answer")]);
        }
        if other {
            return;
        }
        // The line lets GRE through where another device has it.
        let elsewhere = self.rival();
        let server = self.context.pair.map(|pair| pair.server);
        let owner: &[Party] = match rejected {
            Some(errors) if Some(errors.last.from) == server => &[Party::Server],
            Some(_) => &[Party::Line],
            None if elsewhere && !self.context.vantage.router => &[Party::Router, Party::Server],
            None if elsewhere => &[Party::Server],
            None => Code::PptpGreBlocked.owner(),
        };
        evidence.extend(rejected.map(|errors| errors.evidence()));
        self.add(Code::PptpGreBlocked, sure, evidence).owner = owner;
    }

    /// GRE that comes in and does not find its device.
    fn misled(
        &mut self,
        call: &Call,
        tries: Attempts,
        strange: Option<(Attempts, u16)>,
        sure: Confidence,
    ) -> bool {
        if let Some((strange, id)) = strange {
            let theirs = self.others.iter().any(|other| other.announces(id));
            let mut evidence = vec![tries.evidence("GRE sent, no answer")];
            let words = if theirs { "another device's" } else { "no device's" };
            evidence.push(strange.evidence(format!("GRE came in with Call ID {id}, {words}")));
            self.add(Code::PptpGreMisrouted, sure, evidence);
            return true;
        }
        let Some(pair) = self.context.pair else { return false };
        // Right after a call the server may not know yet that it is over.
        let begun = call.reply.map_or(call.since.at, |(mark, _)| mark.at);
        let stray = self.context.router.strays.iter().find(|stray| {
            let trace = &stray.trace;
            stray.server == pair.server
                && trace.protocol == GRE
                && trace.mark.at >= begun
                && stray.first >= begun
        });
        if let Some(stray) = stray {
            let words = format!("GRE from the server with Call ID {} reached no device", stray.trace.id);
            let mut lost = Evidence::packet(words, stray.trace.mark);
            lost.count = stray.count;
            let evidence = vec![tries.evidence("GRE sent, no answer"), lost];
            let sure = if self.others.is_empty() { Confidence::Medium } else { sure };
            self.add(Code::PptpGreMisrouted, sure, evidence);
            return true;
        }
        let lost = self.context.router.refused(pair.device, pair.server, GRE).find(|refusal| {
            matches!(refusal.reason, "gre-no-control" | "gre-after-start") && refusal.last >= begun
        });
        if let Some(refusal) = lost {
            let mut fact = Evidence::fact(format!("natd refused GRE: {}", refusal.reason));
            fact.count = refusal.count;
            self.add(Code::PptpGreMisrouted, Confidence::Medium, vec![fact]);
            return true;
        }
        false
    }

    /// Two devices' calls with one Call ID, which only a router that changes Call IDs can tell apart.
    fn clashes(&mut self, call: &Call, tries: Attempts, sure: Confidence) -> bool {
        let Some(own) = call.own.filter(|_| self.context.vantage.lan && !self.context.vantage.router) else {
            return false;
        };
        let at = tries.first.at;
        if !self.others.iter().any(|other| other.announces(own) && other.is_up(at)) {
            return false;
        }
        let evidence = vec![
            tries.evidence("GRE sent, no answer"),
            Evidence::fact(format!("another device has Call ID {own} with the same server")),
        ];
        self.add(Code::PptpCallIdClash, sure.min(Confidence::Medium), evidence);
        true
    }

    /// GRE works both ways: what PPP says.
    fn link(&mut self, call: &Call) {
        let end = self.connection.end_of(call);
        // Only the server's end of the call answers a login.
        let theirs = end.filter(|&(_, by)| by == Direction::Inbound).map(|(mark, _)| mark);
        if let Some((mark, number)) = call.ppp.refusal() {
            let words = number.map_or_else(
                || "the server refuses the login".into(),
                |number| format!("the server refuses the login, error {number}"),
            );
            self.add(Code::PptpAuthFail, Confidence::High, vec![Evidence::packet(words, mark)]);
        } else if let Some((login, end)) = call.ppp.hung_up(theirs) {
            let evidence = vec![
                Evidence::packet("login sent", login),
                Evidence::packet("the server hangs up instead of an answer", end),
            ];
            self.add(Code::PptpAuthFail, Confidence::Medium, evidence);
        } else if let Some((failed, end, said)) = call.ppp.unencrypted(end.map(|(mark, _)| mark)) {
            let sure = if said { Confidence::High } else { Confidence::Medium };
            let evidence = vec![
                Evidence::packet("no agreement on encryption (MPPE)", failed),
                Evidence::packet("the link ends", end),
            ];
            self.add(Code::PptpMppeFail, sure, evidence);
        } else {
            self.dies();
        }
    }
}

/// How sure it is at `until` that nobody answers this GRE.
fn patience(tries: Attempts, until: Timestamp) -> Option<Confidence> {
    match (until.since(tries.first.at), tries.sends) {
        (waited, 3..) if waited >= CERTAIN => Some(Confidence::High),
        (waited, 2..) if waited >= GRE_PATIENCE => Some(Confidence::Medium),
        _ => None,
    }
}

impl Tracker {
    /// Has a call with this Call ID of the device's been up, and is it not over?
    fn announces(&self, id: u16) -> bool {
        let has = |call: &Call| call.own == Some(id) && call.ended.is_none();
        self.connections.iter().any(|known| known.over().is_none() && known.calls.iter().any(has))
    }
}
