//! What is wrong with L2TP, told from what was seen.

use nat_core::flow::Direction;
use passthrough::l2tp::message::Assigned;

use super::{L2TP_IP, PORT, Tracker, Tunnel, UDP, refusal_words};
use crate::attempts::Attempts;
use crate::code::{Code, Party};
use crate::finding::{Confidence, Evidence, Finding, Findings};
use crate::household::Context;
use crate::tally::{Barred, QUIET, barred, shared_line};

/// One tunnel, while it is judged.
struct Case<'a, 'b> {
    tunnel: &'a Tunnel,
    context: &'a Context<'a>,
    mine: &'a Tracker,
    others: &'a [&'a Tracker],
    findings: &'b mut Findings,
}

impl Tracker {
    pub(super) fn judge(&self, context: &Context<'_>, others: &[&Self], findings: &mut Findings) {
        for tunnel in &self.tunnels {
            // A server at home, whose clients are outside, is not judged.
            if tunnel.opener != Some(Direction::Inbound) {
                Case { tunnel, context, mine: self, others, findings: &mut *findings }.judge();
            }
        }
    }
}

impl Case<'_, '_> {
    fn add(&mut self, code: Code, sure: Confidence, evidence: Vec<Evidence>) -> &mut Finding {
        let Tunnel { attempt, since, vpn, .. } = *self.tunnel;
        self.findings.add(code, sure, Some(vpn), attempt, since, evidence)
    }

    fn judge(&mut self) {
        let tunnel = self.tunnel;
        let answered = tunnel.flow.inbound.count > 0;
        if self.barred() {
            return;
        }
        match tunnel.stop.inbound {
            // What ends a tunnel whose beginning was not seen refuses nothing.
            Some((mark, result))
                if tunnel.request.is_some()
                    && tunnel.connected.is_none()
                    && tunnel.stop.outbound.is_none() =>
            {
                self.refused(Evidence::packet(refusal_words(result), mark), result);
            }
            Some(_) => {}
            None if answered => self.dies(),
            None => self.unanswered(),
        }
    }

    fn barred(&mut self) -> bool {
        let (tunnel, context) = (self.tunnel, self.context);
        // Where it worked before it was switched off.
        let since = tunnel.flow.inbound.last().map_or(tunnel.since, |mark| mark.at);
        let port = if tunnel.carrier.0 == UDP { PORT } else { 0 };
        let found = barred(context, tunnel.carrier.0, port, (since, tunnel.last.at))
            .filter(|_| tunnel.unheard.is_some());
        if let Some((barred, evidence)) = found {
            let code = if barred == Barred::Off { Code::L2tpPassOff } else { Code::L2tpTunnelClash };
            self.add(code, Confidence::High, vec![evidence]);
            return true;
        }
        let sent = tunnel.unheard.is_some_and(|sent| sent.unanswered(context.now).is_some());
        if context.router.l2tp == Some(false) && (sent || tunnel.errors.is_some()) {
            self.add(Code::L2tpPassOff, Confidence::High, vec![Evidence::fact("passthrough.l2tp is off")]);
            return true;
        }
        false
    }

    /// Another device's tunnel with the same server, which is up.
    fn rival(&self) -> Option<&Tunnel> {
        let now = self.context.now;
        self.others.iter().flat_map(|other| &other.tunnels).find(|tunnel| tunnel.is_up(now))
    }

    fn refused(&mut self, evidence: Evidence, result: u16) {
        let rival = self.rival().is_some();
        let (code, sure) = match result {
            3 if self.is_hidden() && rival => (Code::L2tpHiddenId, Confidence::High),
            3 => (Code::L2tpTunnelClash, if rival { Confidence::High } else { Confidence::Medium }),
            4 => (Code::L2tpPlainRefused, Confidence::High),
            _ => (Code::L2tpPlainRefused, Confidence::Medium),
        };
        self.add(code, sure, vec![evidence]);
    }

    fn is_hidden(&self) -> bool {
        self.tunnel.assigned == Assigned::Hidden
    }

    fn unanswered(&mut self) {
        let (tunnel, context) = (self.tunnel, self.context);
        if let Some(errors) = tunnel.errors {
            if errors.find(context, tunnel.vpn, (tunnel.attempt, tunnel.since), self.findings) {
                return;
            }
        }
        let sent = if tunnel.carrier.0 == L2TP_IP { tunnel.unheard } else { tunnel.request };
        let Some(sent) = sent.filter(|sent| sent.sends >= 2) else { return };
        let Some(sure) = sent.unanswered(context.now) else { return };
        if tunnel.carrier.0 == L2TP_IP {
            if let Some((sure, line)) = shared_line(context) {
                let evidence = vec![line, sent.evidence("L2TPv3 without UDP sent, no answer")];
                self.add(Code::SharedIpv4Proto, sure, evidence);
            }
            return;
        }
        self.silent(sent, sure);
    }

    /// SCCRQ on UDP and nothing comes back.
    fn silent(&mut self, sent: Attempts, sure: Confidence) {
        let (tunnel, context) = (self.tunnel, self.context);
        let evidence = vec![sent.evidence("SCCRQ to UDP 1701, no answer")];
        let same_id = |other: &Tunnel| match (tunnel.assigned, other.assigned) {
            (Assigned::Clear { id: one, .. }, Assigned::Clear { id, .. }) => one == id,
            _ => false,
        };
        let rival = self.rival().map(|rival| (same_id(rival), rival.outside.source));
        if self.is_hidden() && rival.is_some() {
            self.add(Code::L2tpHiddenId, sure.min(Confidence::Medium), evidence);
            return;
        }
        if let Some(port) = self.foreign_port() {
            let mut evidence = evidence;
            evidence.push(Evidence::fact(format!(
                "it left from port {port}; the server has answered only to port 1701"
            )));
            self.add(Code::L2tpSourcePort, sure, evidence);
            return;
        }
        // natd tells tunnels of one ID apart, where it may change the ID.
        let told_apart = context.vantage.router && !tunnel.sealed;
        if let Some((true, _)) = rival.filter(|_| context.vantage.lan && !told_apart) {
            let mut evidence = evidence;
            evidence.push(Evidence::fact("another device has the same tunnel ID with the same server"));
            self.add(Code::L2tpTunnelClash, sure.min(Confidence::Medium), evidence);
            return;
        }
        let finding = self.add(Code::L2tpNoReply, sure, evidence);
        if rival.is_some() {
            // The line lets it through.
            finding.owner = &[Party::Server, Party::Router];
        }
    }

    /// The port on the WAN, where it is another one than 1701 and the server answers to 1701 and never to another.
    fn foreign_port(&self) -> Option<u16> {
        let (_, port) = self.tunnel.outside.source.filter(|&(_, port)| port != PORT)?;
        let theirs = self.others.iter().flat_map(|other| &other.tunnels).chain(&self.mine.tunnels);
        let mut seen = false;
        for tunnel in theirs.filter(|tunnel| tunnel.carrier.0 == UDP && tunnel.reply.is_some()) {
            let (_, port) = tunnel.outside.source?;
            if port != PORT {
                return None;
            }
            seen = true;
        }
        seen.then_some(port)
    }

    /// It was answered once.
    fn dies(&mut self) {
        let (tunnel, context) = (self.tunnel, self.context);
        if tunnel.stop.outbound.is_some() {
            return;
        }
        let heard = tunnel.flow.inbound.last();
        let who = (tunnel.attempt, tunnel.since);
        let sent = tunnel.unheard;
        if tunnel.outside.find(context, tunnel.vpn, who, heard, sent.as_ref(), self.findings) {
            return;
        }
        if self.forgotten() {
            return;
        }
        let Some((hello, _)) = tunnel.hello.filter(|(hello, _)| hello.sends >= 3) else { return };
        if let Some(sure) = hello.unanswered(context.now) {
            let mut evidence = vec![hello.evidence("HELLO, not acknowledged")];
            evidence
                .extend(heard.map(|mark| Evidence::packet("heard of the server for the last time", mark)));
            self.add(Code::L2tpHelloLost, sure, evidence);
        }
    }

    /// The server goes on, and the router does not know any more for whom.
    fn forgotten(&mut self) -> bool {
        let (tunnel, context) = (self.tunnel, self.context);
        let (Some(pair), Assigned::Clear { id, .. }) = (context.pair, tunnel.assigned) else { return false };
        let stray = context.router.strays.iter().find(|stray| {
            let quiet = stray.first.since(tunnel.last.at);
            let ours = stray.trace.protocol == UDP && stray.trace.id == u32::from(id);
            stray.server == pair.server && ours && stray.count >= 3 && quiet >= QUIET
        });
        let Some(stray) = stray else { return false };
        let words = "from the server after a silence, for this tunnel, reached no device";
        let mut lost = Evidence::packet(words, stray.trace.mark);
        lost.count = stray.count;
        let evidence = vec![Evidence::packet("the tunnel's last packet", tunnel.last), lost];
        self.add(Code::NatIdleTimeout, Confidence::Medium, evidence);
        true
    }
}
