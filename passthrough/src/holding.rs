//! Packets that wait until it is known whose they are.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use nat_core::decision::{Decision, DropReason, HoldId, Note};
use nat_core::flow::Direction;
use nat_core::nat::Nat;
use nat_core::packet::{Body, PacketView};
use nat_core::time::Timestamp;

use crate::carry::Answer;
use crate::ipsec::Inbound;
use crate::{ESP, GRE, Held, MAX_HELD, MAX_HELD_PER_REMOTE, Passthrough, far_end, release_as};

impl Passthrough {
    /// Keeps a packet until its owner is known.
    pub(super) fn hold(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        direction: Direction,
        reason: DropReason,
        until: Timestamp,
        nat: &mut Nat,
    ) -> Decision {
        if until <= now {
            return nat.refuse(reason);
        }
        let remote = far_end(packet, direction);
        let of_remote = self.held.range((remote, HoldId(0))..=(remote, HoldId(u64::MAX))).count();
        if of_remote >= MAX_HELD_PER_REMOTE || self.held.len() >= MAX_HELD {
            return nat.refuse(DropReason::VpnHoldFull);
        }
        let id = nat.new_hold();
        nat.note(Note::VpnHeld);
        let changes = self.changes(remote);
        let held = Held { id, direction, until, reason, changes, bytes: packet.bytes.to_vec() };
        self.held.insert((remote, id), held);
        Decision::Hold(id)
    }

    /// How often something changed that the owner of a held packet depends on.
    pub(super) fn changes(&self, remote: Ipv4Addr) -> u32 {
        self.ipsec.changes(remote).wrapping_add(self.pptp.generation())
    }

    /// Lets go what was held of `remote` and is now known.
    pub(super) fn release(&mut self, now: Timestamp, remote: Ipv4Addr, nat: &mut Nat) {
        if self.held.is_empty() {
            return;
        }
        let changes = self.changes(remote);
        let of_remote = self.held.range((remote, HoldId(0))..=(remote, HoldId(u64::MAX)));
        let waiting: Vec<HoldId> =
            of_remote.filter(|(_, held)| held.changes != changes).map(|(key, _)| key.1).collect();
        for id in waiting {
            let Some(mut held) = self.held.remove(&(remote, id)) else { continue };
            held.changes = changes;
            let Ok(packet) = PacketView::parse(&held.bytes) else { continue };
            match self.again(now, &packet, held.direction, nat) {
                Answer::Decided(decision) => release_as(id, decision, nat),
                Answer::Wait { .. } => {
                    self.held.insert((remote, id), held);
                }
            }
        }
    }

    /// Asks anew about a held packet.
    pub(super) fn again(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        direction: Direction,
        nat: &mut Nat,
    ) -> Answer {
        match (packet.body, direction) {
            (Body::Other(ESP), _) => match self.ipsec.esp_inbound(now, packet, nat, &self.settings) {
                Inbound::Decided(decision) => Answer::Decided(decision),
                Inbound::Wait(reason) => Answer::Wait { reason, until: now },
            },
            (Body::Other(GRE), Direction::Outbound) => self.pptp.carry_outbound(now, packet, nat),
            (Body::Other(GRE), Direction::Inbound) => self.call_inbound(now, packet, nat),
            (
                Body::Tcp(_)
                | Body::Udp { .. }
                | Body::IcmpQuery { .. }
                | Body::IcmpError(_)
                | Body::Fragment
                | Body::Other(_),
                _,
            ) => Answer::Decided(nat.refuse(DropReason::Internal)),
        }
    }
}
