//! Whose an SPI may be that is seen for the first time.

use alloc::vec::Vec;

use nat_core::time::Timestamp;

use super::{Child, FRESH, LISTENS, MAX_UNKNOWN, Origin, RECOVERS, Remote, Unknown, devices, is_subset};
use crate::ipsec::evidence::{Score, Sender};
use crate::view::Learned;

impl Remote {
    /// Enters an SPI that was never seen. `None`: it can be nobody's.
    pub(super) fn first_seen(&mut self, now: Timestamp, spi: u32, cap: u8) -> Option<usize> {
        let all = self.candidates(now);
        let (mut candidates, mut chosen) = (all.clone(), false);
        if devices(&self.children, &all).len() > usize::from(cap) {
            candidates.retain(|id| self.is_lively(now, *id));
            // Where there is room, those that are unlikely but have just spoken are asked too.
            let prompted = |id: &&u32| self.is_prompted(now, **id) && !candidates.contains(id);
            let unlikely: Vec<u32> = all.iter().filter(prompted).copied().collect();
            let together = [candidates.as_slice(), &unlikely].concat();
            if devices(&self.children, &together).len() <= usize::from(cap) {
                candidates = together;
            }
            if devices(&self.children, &candidates).len() > usize::from(cap) {
                let spoken_for = self.spoken_for();
                candidates.retain(|id| {
                    !spoken_for.contains(id) || self.is_prompted(now, *id) || self.is_recalled(now, *id)
                });
            }
            chosen = candidates.len() < all.len();
            if candidates.is_empty() {
                (candidates, chosen) = (all, false);
            }
        }
        if candidates.is_empty() {
            return None;
        }
        if self.unknown.len() >= MAX_UNKNOWN {
            let oldest = self.unknown.iter().enumerate().min_by_key(|(_, unknown)| unknown.last);
            let oldest = oldest.map_or(0, |(place, _)| place);
            self.unknown.remove(oldest);
        }
        let mut score = Score::default();
        score.begin(candidates.iter().filter_map(|id| {
            let child = self.children.get(id)?;
            Some((child.device, self.hazard(now, child)))
        }));
        self.unknown.push(Unknown { spi, last: now, packets: 0, candidates, chosen, score });
        self.changes = self.changes.wrapping_add(1);
        Some(self.unknown.len() - 1)
    }

    /// Gates that are owed to as many SPIs as there are of them: nobody knows which is whose, but a further SPI is
    /// none of theirs.
    pub(super) fn spoken_for(&self) -> Vec<u32> {
        // Compared by number: a subset test is one pass then.
        let mut owed: Vec<Vec<u32>> = Vec::new();
        for unknown in self.unknown.iter().filter(|unknown| unknown.packets > 1) {
            let mut gates: Vec<u32> =
                unknown.candidates.iter().copied().filter(|id| self.is_open(*id)).collect();
            gates.sort_unstable();
            if !gates.is_empty() {
                owed.push(gates);
            }
        }
        let mut all = Vec::new();
        for group in &owed {
            let is_inside = |gates: &&Vec<u32>| gates.len() <= group.len() && is_subset(gates, group);
            if owed.iter().filter(is_inside).count() >= group.len() {
                all.extend(group);
            }
        }
        all
    }

    pub(super) fn is_open(&self, id: u32) -> bool {
        self.children.get(&id).is_some_and(Child::is_open)
    }

    /// Is this pair known from before a restart that was a moment ago?
    pub(super) fn is_recalled(&self, now: Timestamp, id: u32) -> bool {
        let child = self.children.get(&id);
        child.is_some_and(|c| c.learned == Learned::Restart && now.since(c.created) <= FRESH)
    }

    /// Has the device of this pair just sent something?
    pub(super) fn is_prompted(&self, now: Timestamp, id: u32) -> bool {
        let sender = self.children.get(&id).and_then(|child| self.senders.get(&child.device));
        sender.is_some_and(|sender| sender.may_be_answered(now))
    }

    /// Is it likely that the remote host uses this pair for the first time now?
    pub(super) fn is_lively(&self, now: Timestamp, id: u32) -> bool {
        let Some(child) = self.children.get(&id) else { return false };
        let since = child.renewed;
        let listens = || {
            let of_device = self.children.values().filter(|c| c.device == child.device);
            let (sent, received) =
                of_device.fold((0, 0), |(sent, received), c| (sent + c.packets[0], received + c.packets[1]));
            received >= 4 * sent || received == 0
        };
        if child.must_have_shown(now) {
            return false;
        }
        let sender = self.senders.get(&child.device);
        if sender.is_some_and(Sender::speaks_first) {
            return sender.is_some_and(|sender| sender.may_be_answered(now));
        }
        now.since(since) <= FRESH
            || sender.is_some_and(|sender| sender.may_be_answered(now))
            || (now.since(since) <= LISTENS && listens())
            || (child.origin == Origin::Restart && now.since(since) <= RECOVERS)
            // Who spoke, and who listens, was forgotten with the restart.
            || self.is_recalled(now, id)
    }

    /// How often, in times a second, pairs in this state are used by the remote host for the first time. Only the
    /// relation of such figures matters.
    pub(super) fn hazard(&self, now: Timestamp, child: &Child) -> f32 {
        let age = now.since(child.renewed);
        let spontaneous = match age.as_millis() {
            0..=700 => 2.0,
            701..=5_000 => 0.3,
            5_001..=15_000 => 0.1,
            _ => 0.005,
        };
        let fits = self.senders.get(&child.device).is_some_and(|sender| sender.may_be_answered(now));
        let answers = if fits { 5.0 } else { 0.0 };
        // What has been asked before has most likely been answered before.
        let unseen = if child.must_have_shown(now) { 1e-4 } else { 1.0 };
        (spontaneous + answers) * unseen
    }

    /// Children that an SPI which is seen for the first time may belong to.
    pub(super) fn candidates(&self, now: Timestamp) -> Vec<u32> {
        if !self.open.is_empty() {
            return self.open.clone();
        }
        // Whoever could forge the remote host's address could use up a gate with one packet: doubt that.
        self.doubted.iter().filter(|id| self.is_doubtful(now, id)).copied().collect()
    }

    pub(super) fn is_doubtful(&self, now: Timestamp, id: &u32) -> bool {
        self.children.get(id).is_some_and(|child| child.is_doubtful(now))
    }

    /// What is known of `id` may have to be doubted for a while.
    pub(super) fn doubt(&mut self, now: Timestamp, id: u32) {
        let mut doubted = core::mem::take(&mut self.doubted);
        doubted.retain(|other| *other != id && self.is_doubtful(now, other));
        doubted.insert(doubted.partition_point(|other| *other < id), id);
        self.doubted = doubted;
    }
}
