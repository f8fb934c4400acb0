//! What the owner of the router is told of packets that are refused, each kind once in a while.

use nat_core::decision::DropReason;
use nat_core::packet::PacketView;
use nat_core::time::Timestamp;

use crate::{COMPLAIN_EVERY, MAX_COMPLAINTS, Passthrough, Switch, pptp};

impl Passthrough {
    /// Says once in a while why a device's VPN does not pass.
    pub(super) fn complain(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        switch: Switch,
        reason: DropReason,
    ) {
        if self.is_news(now, packet, reason) {
            log::warn!(
                "{} is refused the VPN server {}: {} (see passthrough.{})",
                packet.src,
                packet.dst,
                reason.explanation(),
                switch.name()
            );
        }
    }

    /// The same where no switch of the owner's is the cause.
    pub(super) fn complain_of(&mut self, now: Timestamp, packet: &PacketView<'_>, reason: DropReason) {
        if self.is_news(now, packet, reason) {
            log::warn!("{} → {}: {}", packet.src, packet.dst, reason.explanation());
        }
    }

    /// The same of a PPTP call.
    pub(super) fn complain_of_call(&mut self, now: Timestamp, packet: &PacketView<'_>, reason: DropReason) {
        let Some(id) = pptp::packets::call_id(packet).filter(|_| self.is_news(now, packet, reason)) else {
            return;
        };
        log::warn!("{} → {}, GRE with Call ID {}: {}", packet.src, packet.dst, id.0, reason.explanation());
    }

    /// Has it not been said lately that these packets are dropped?
    pub(super) fn is_news(&mut self, now: Timestamp, packet: &PacketView<'_>, reason: DropReason) -> bool {
        let key = (packet.src, packet.dst, reason);
        if self.complaints.get(&key).is_some_and(|&last| now.since(last) < COMPLAIN_EVERY) {
            return false;
        }
        if self.complaints.len() >= MAX_COMPLAINTS {
            self.complaints.retain(|_, &mut last| now.since(last) < COMPLAIN_EVERY);
            if self.complaints.len() >= MAX_COMPLAINTS {
                return false;
            }
        }
        self.complaints.insert(key, now);
        true
    }
}
