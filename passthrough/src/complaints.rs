//! What the owner of the router is told of packets that are refused: each kind once in a while, and of many kinds
//! at once, as forged senders make them, only a few.

use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::decision::DropReason;
use nat_core::packet::PacketView;
use nat_core::time::Timestamp;

use crate::sorted::SortedMap;
use crate::{Passthrough, Switch, pptp};

/// A refusal is logged again after this long.
const COMPLAIN_EVERY: Duration = Duration::from_secs(600);
/// Refusals that are remembered as logged.
const MAX_COMPLAINTS: usize = 256;
/// So many lines are written in so long.
const MAX_LINES: u8 = 20;
const LINES_EVERY: Duration = Duration::from_secs(60);

/// Who is refused what, and why.
type Kind = (Ipv4Addr, Ipv4Addr, DropReason);

/// What was logged lately.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    known: SortedMap<Kind, Timestamp>,
    /// When the time is over that `lines` and `unsaid` count for.
    until: Timestamp,
    lines: u8,
    /// Refusals that were news and not logged.
    unsaid: u32,
}

impl Complaints {
    /// Is a refusal of this kind to be logged?
    fn admit(&mut self, now: Timestamp, kind: Kind) -> bool {
        if self.known.get(&kind).is_some_and(|&last| now.since(last) < COMPLAIN_EVERY) {
            return false;
        }
        self.handle_timeout(now);
        if self.lines < MAX_LINES && self.known.len() >= MAX_COMPLAINTS {
            self.known.retain(|_, &mut last| now.since(last) < COMPLAIN_EVERY);
        }
        if self.lines >= MAX_LINES || self.known.len() >= MAX_COMPLAINTS {
            self.unsaid = self.unsaid.saturating_add(1);
            return false;
        }
        self.lines += 1;
        self.known.insert(kind, now);
        true
    }

    /// When [`Self::handle_timeout`] has something to say.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        (self.unsaid > 0).then_some(self.until)
    }

    /// Says what was not logged when its time is over.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        if let Some(count) = self.count_unsaid(now) {
            log::warn!("{count} further refusals were not logged");
        }
    }

    /// How many refusals were not logged in the time that is over now; begins another.
    fn count_unsaid(&mut self, now: Timestamp) -> Option<u32> {
        if now < self.until {
            return None;
        }
        self.until = now + LINES_EVERY;
        self.lines = 0;
        Some(core::mem::take(&mut self.unsaid)).filter(|&count| count > 0)
    }
}

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

    /// Has it not been said lately that these packets are dropped, and is there room in the log?
    fn is_news(&mut self, now: Timestamp, packet: &PacketView<'_>, reason: DropReason) -> bool {
        self.complaints.admit(now, (packet.src, packet.dst, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(device: u32) -> Kind {
        (Ipv4Addr::from(0xc0a8_0100 + device), Ipv4Addr::new(198, 51, 100, 10), DropReason::PptpOff)
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1000 + secs)
    }

    #[test]
    fn the_same_is_said_once_in_ten_minutes() {
        let mut complaints = Complaints::default();
        let said: [bool; 4] = [0, 1, 599, 600].map(|secs| complaints.admit(at(secs), kind(1)));
        assert_eq!(said, [true, false, false, true]);
        assert_eq!(complaints.poll_timeout(), None, "what was said is not left out");
    }

    #[test]
    fn of_a_flood_twenty_lines_a_minute_are_said_and_the_rest_is_counted() {
        let mut complaints = Complaints::default();
        let said = |complaints: &mut Complaints, secs| {
            (0..5000).filter(|&device| complaints.admit(at(secs), kind(device))).count()
        };
        assert_eq!(said(&mut complaints, 0), 20);
        assert_eq!(said(&mut complaints, 59), 0);
        assert_eq!(complaints.poll_timeout(), Some(at(60)));
        assert_eq!(complaints.count_unsaid(at(59)), None);
        assert_eq!(complaints.count_unsaid(at(60)), Some(2 * (5000 - 20)));
        assert_eq!((complaints.poll_timeout(), complaints.count_unsaid(at(200))), (None, None));
        assert_eq!(said(&mut complaints, 201), 20, "others than before");
        assert_eq!(complaints.known.len(), 40);
    }

    #[test]
    fn an_hour_of_flood_fills_no_more_than_the_table() {
        let mut complaints = Complaints::default();
        let said = (0..360_000).filter(|&n| complaints.admit(at(u64::from(n / 100)), kind(n))).count();
        assert!((400..=20 * 60).contains(&said), "{said}");
        assert!(complaints.known.len() <= MAX_COMPLAINTS);
    }
}
