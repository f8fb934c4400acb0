//! What ends PPTP that worked.

use core::time::Duration;

use nat_core::flow::Direction;
use passthrough::view::Vpn;

use super::judge::Case;
use super::{PORT, TCP};
use crate::code::Code;
use crate::finding::{Confidence, Evidence};

/// Idle devices and servers ask after each other once a minute (RFC 2637 section 2.5).
const ECHO_IDLE: Duration = Duration::from_secs(55);

impl Case<'_, '_> {
    /// It worked, or came near to it.
    pub(super) fn dies(&mut self) {
        let connection = self.connection;
        let calls = &connection.calls;
        let sent = connection.pending.map(|pending| pending.attempts);
        let sent = sent.or(connection.call().and_then(|call| call.unheard));
        let gre = calls.iter().filter_map(|call| call.gre.inbound.last()).max();
        let heard = connection.heard();
        let who = (connection.attempt, connection.since);
        if connection.stop.inbound.is_some() || connection.fin.inbound.is_some() || self.forgotten() {
            return;
        }
        if connection.outside.find(self.context, Vpn::Pptp, who, heard, sent.as_ref(), self.findings) {
            return;
        }
        if self.unknown_echo() {
            return;
        }
        let Some(pending) = connection.pending.filter(|pending| pending.quiet >= ECHO_IDLE) else { return };
        let asked = pending.attempts.first.at;
        let cleared = calls.iter().filter_map(|call| call.ended).chain(connection.over());
        if cleared.into_iter().any(|(mark, by)| by == Direction::Outbound && mark.at <= asked) {
            return;
        }
        let alive = gre.filter(|gre| gre.at > asked);
        let reset = connection.reset.inbound.filter(|reset| reset.mark.at > asked);
        let mut evidence = vec![
            pending
                .attempts
                .evidence(format!("on TCP 1723 after {} s of silence, no answer", pending.quiet.as_secs())),
        ];
        let sure = match (alive, reset, pending.attempts.unanswered(self.context.now)) {
            (Some(_), Some(_), _) => Confidence::High,
            (Some(gre), None, Some(sure)) if gre.at.since(asked) >= Duration::from_secs(2) => sure,
            (None, Some(_), _) if gre.is_some_and(|gre| asked.since(gre.at) < ECHO_IDLE) => {
                Confidence::Medium
            }
            _ => return,
        };
        evidence.extend(reset.map(|reset| Evidence::packet("reset in answer", reset.mark)));
        evidence.extend(alive.map(|gre| Evidence::packet("while GRE still comes in from the server", gre)));
        self.add(Code::PptpIdleKilled, sure, evidence);
    }

    /// The server asks after the device, and the router does not know any more whom that is for.
    fn unknown_echo(&mut self) -> bool {
        let connection = self.connection;
        let (Some(pair), Some(last)) = (self.context.pair, connection.control_last()) else { return false };
        let port = connection.outside.source.map_or(connection.ports.0, |(_, port)| port);
        let stray = self.context.router.strays.iter().find(|stray| {
            let (trace, quiet) = (&stray.trace, stray.first.since(last));
            let ours = trace.protocol == TCP && (trace.device_port, trace.server_port) == (port, PORT);
            stray.server == pair.server && ours && quiet >= ECHO_IDLE
        });
        let Some(stray) = stray.filter(|_| connection.over().is_none()) else { return false };
        let words = "from the server's TCP 1723 after a silence reached no device";
        let mut lost = Evidence::packet(words, stray.trace.mark);
        lost.count = stray.count;
        self.add(Code::PptpIdleKilled, Confidence::Medium, vec![lost]);
        true
    }

    /// The router's own reset of a connection whose WAN address is gone.
    fn forgotten(&mut self) -> bool {
        let Some(reset) = self.connection.reset.inbound else { return false };
        let Some((at, before)) = self.context.router.wan_changed else { return false };
        if at < self.connection.since
            || reset.mark.at.since(at) > Duration::from_secs(120)
            || reset.mark.at < at
        {
            return false;
        }
        let evidence = vec![
            Evidence::fact(format!("the internet address was {before} before")),
            Evidence::packet("the connection was reset", reset.mark),
        ];
        self.add(Code::WanAddrChanged, Confidence::High, evidence);
        true
    }
}
