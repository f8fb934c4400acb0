//! Unsolicited SYNs (RFC 5382 REQ-4).
//!
//! Two devices behind two NATs may open one connection at the same time. A SYN that finds nobody is therefore
//! held for six seconds; if the counterpart's own SYN leaves in that time, the held one is dropped and the
//! connection opens, else it is released and the router's kernel refuses it.

use core::time::Duration;

use super::{Body, Decision, DropReason, Effect, HoldId, Nat, Note, PacketView, Timestamp, Tuple};
use crate::decision::Outcome;

/// A SYN that waits.
#[derive(Debug)]
pub(super) struct HeldSyn {
    pub(super) until: Timestamp,
    tuple: Tuple,
}

/// TCP in mid-stream that nobody claims is not refused so soon after the start: its device may not have
/// spoken yet, and a refusal would end a connection that can go on.
const GRACE: Duration = Duration::from_secs(120);

impl Nat {
    /// A TCP packet for the router itself that no socket wants and conntrack does not know.
    pub fn unclaimed(&mut self, now: Timestamp, packet: &PacketView<'_>) -> Decision {
        let (Body::Tcp(segment), Some(tuple)) = (packet.body, packet.tuple()) else {
            return self.pass(packet);
        };
        if !segment.flags.syn || segment.flags.ack {
            let early = now.since(self.started) < GRACE;
            return if early { self.refuse(DropReason::AfterStart) } else { self.pass(packet) };
        }
        let limits = self.policy.limits;
        if self.policy.timeouts.tcp_syn_hold.is_zero() {
            return self.pass(packet);
        }
        if self.held.values().any(|held| held.tuple == tuple) {
            return self.refuse(DropReason::HoldRepeated);
        }
        if self.held.len() >= limits.held_syns as usize {
            return self.refuse(DropReason::HoldFull);
        }
        let id = self.new_hold();
        self.held.insert(id, HeldSyn { until: now + self.policy.timeouts.tcp_syn_hold, tuple });
        self.counters.note(Note::SynHeld);
        Decision::Hold(id)
    }

    /// Lets go what has waited long enough.
    pub(super) fn release_held(&mut self, now: Timestamp) {
        let due = |held: &HeldSyn| held.until <= now;
        let over: alloc::vec::Vec<HoldId> =
            self.held.iter().filter(|(_, held)| due(held)).map(|(&id, _)| id).collect();
        for hold in over {
            self.held.remove(&hold);
            self.effects.push_back(Effect::Release { hold, outcome: Outcome::Pass });
        }
    }

    /// Drops everything that waits: the address that it was sent to is gone.
    pub(super) fn drop_held(&mut self) {
        while let Some((hold, _)) = self.held.pop_first() {
            self.effects.push_back(Effect::Release { hold, outcome: Outcome::Drop });
        }
    }

    /// A SYN has left whose answers show `inbound`: a held one with the same endpoints has met its counterpart.
    pub(super) fn meet_held(&mut self, inbound: &Tuple) {
        let met = self.held.iter().find(|(_, held)| held.tuple == *inbound).map(|(&id, _)| id);
        if let Some(hold) = met {
            self.held.remove(&hold);
            self.counters.drop(DropReason::HoldAnswered);
            self.effects.push_back(Effect::Release { hold, outcome: Outcome::Drop });
        }
    }
}
