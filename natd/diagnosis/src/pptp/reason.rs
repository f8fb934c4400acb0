//! How far a connection is, and why it is over.

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::view::Phase;

use super::connection::{Connection, OK};
use super::judge::GRE_PATIENCE;
use crate::attempts::Attempts;

/// What a Start-Control-Connection-Reply says (RFC 2637 section 2.2).
pub(super) const fn start_words(result: u8) -> &'static str {
    match result {
        2 => "refused by the server: general error",
        3 => "refused by the server: control channel already exists",
        4 => "refused by the server: not authorised",
        5 => "refused by the server: protocol version",
        _ => "refused by the server: unknown result",
    }
}

/// What an Outgoing-Call-Reply says (RFC 2637 section 2.8).
pub(super) const fn call_words(result: u8) -> &'static str {
    match result {
        2 => "call refused by the server: general error",
        3 => "call refused by the server: no carrier",
        4 => "call refused by the server: busy",
        5 => "call refused by the server: no dial tone",
        6 => "call refused by the server: time-out",
        7 => "call refused by the server: do not accept",
        _ => "call refused by the server: unknown result",
    }
}

impl Connection {
    /// How far it is, and why it is over.
    pub(super) fn phase(&self, now: Timestamp) -> (Phase, &'static str) {
        if let Some(reason) = self.reason(now) {
            return (Phase::Closed, reason);
        }
        let quiet = now.since(self.last.at).as_secs();
        let phase = match self.call() {
            None => Phase::Handshake,
            Some(call) if !self.joined && !call.is_connected() => Phase::Handshake,
            Some(call) if !self.joined && call.ppp.is_opening() => Phase::Handshake,
            Some(_) if quiet >= 120 => Phase::Idle,
            Some(call) => match call.ppp.network {
                Some(last) if now.since(last.at).as_secs() < 60 => Phase::Data,
                Some(_) => Phase::Keepalive,
                None => Phase::Established,
            },
        };
        (phase, "")
    }

    /// Why it is over.
    fn reason(&self, now: Timestamp) -> Option<&'static str> {
        if self.syn_ack.is_none() && !self.joined {
            let asked = self.syn.map_or(self.last.at, |syn| syn.last.at);
            return match (self.reset.inbound, self.errors) {
                (Some(_), _) => Some("refused by the server"),
                (None, Some(_)) => Some("unreachable"),
                (None, None) => (now.since(asked).as_secs() >= 60).then_some("no answer"),
            };
        }
        let ended = self.call().and_then(|call| call.ended);
        let over = self.over();
        if over.is_none() && ended.is_none() {
            return self.is_gone(now).then_some("silent");
        }
        if let Some((_, result)) = self.start_reply.filter(|&(_, result)| result > OK) {
            return Some(start_words(result));
        }
        if let Some(call) = self.call() {
            if let Some((_, result)) = call.reply.filter(|&(_, result)| result != OK) {
                return Some(call_words(result));
            }
            let end = self.end_of(call);
            let theirs = end.filter(|&(_, by)| by == Direction::Inbound).map(|(mark, _)| mark);
            if call.ppp.refusal().is_some() || call.ppp.hung_up(theirs).is_some() {
                return Some("login refused");
            }
            let silent =
                |tries: Attempts| end.is_some_and(|(end, _)| end.at.since(tries.first.at) >= GRE_PATIENCE);
            if call.is_connected() && call.heard_us.is_none() && call.tries.is_some_and(silent) {
                return Some("GRE silent");
            }
        }
        let (_, by) = ended.or(over)?;
        Some(if by == Direction::Outbound { "closed by the device" } else { "closed by the server" })
    }
}
