//! The links: a LAN that loses nothing and a WAN that loses, delays and reorders.

use std::time::Duration;

use crate::clock::Dice;

pub(crate) const LAN_DELAY: Duration = Duration::from_micros(300);
pub(crate) const LOSS_PER_MILLE: u64 = 20;
pub(crate) const REORDER_PER_MILLE: u64 = 50;
pub(crate) const MIN_DELAY_MS: u64 = 5;
pub(crate) const MAX_DELAY_MS: u64 = 200;
/// How much later a reordered packet comes, at most.
pub(crate) const REORDER_MS: u64 = 60;

/// What the WAN does to one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    Lost,
    Arrives { at: Duration, reordered: bool },
}

/// One direction between the NAT and the server, for one client's packets.
#[derive(Clone, Debug)]
struct Link {
    delay: Duration,
    last: Duration,
}

/// The WAN: each client's packets have a delay of their own each way, so that packets of different clients
/// overtake each other freely.
pub(crate) struct Wan {
    links: Vec<[Link; 2]>,
    dice: Dice,
    calm: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToNat,
}

impl Wan {
    /// `calm` turns loss and reordering off.
    pub(crate) fn new(seed: u64, clients: u8, calm: bool) -> Self {
        let mut dice = Dice::new(seed, 1);
        let mut link = || Link { delay: dice.ms(MIN_DELAY_MS, MAX_DELAY_MS), last: Duration::ZERO };
        let links = (0..clients).map(|_| [link(), link()]).collect();
        Self { links, dice, calm }
    }

    pub(crate) fn send(&mut self, now: Duration, client: u8, way: Way) -> Passage {
        let link = &mut self.links[usize::from(client)][way as usize];
        let jitter = self.dice.between(Duration::ZERO, link.delay / 20);
        let fate = self.dice.below(1000);
        let extra = self.dice.ms(2, REORDER_MS);
        let at = now + link.delay + jitter;
        if self.calm || fate >= LOSS_PER_MILLE + REORDER_PER_MILLE {
            let at = at.max(link.last);
            link.last = at;
            Passage::Arrives { at, reordered: false }
        } else if fate < LOSS_PER_MILLE {
            Passage::Lost
        } else {
            Passage::Arrives { at: at + extra, reordered: true }
        }
    }

    /// The longest round trip of a client's packets that are not reordered.
    pub(crate) fn round_trip(&self, client: u8) -> Duration {
        let wan: Duration = self.links[usize::from(client)].iter().map(|link| link.delay).sum();
        wan * 21 / 20 + LAN_DELAY * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wan_is_as_bad_as_promised() {
        let mut wan = Wan::new(1, 32, false);
        let (mut lost, mut late, mut last) = (0, 0, Duration::ZERO);
        for n in 0..100_000_u64 {
            let now = Duration::from_millis(n);
            match wan.send(now, 3, Way::ToNat) {
                Passage::Lost => lost += 1,
                Passage::Arrives { reordered: true, .. } => late += 1,
                Passage::Arrives { at, reordered: false } => {
                    assert!(at >= last, "only reordered packets are overtaken");
                    assert!(at - now <= wan.round_trip(3));
                    last = at;
                }
            }
        }
        assert!((1800..2200).contains(&lost), "{lost}");
        assert!((4700..5300).contains(&late), "{late}");
    }
}
