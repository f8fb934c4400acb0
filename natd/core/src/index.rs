//! Finds numbers by the hash of what they stand for.
//!
//! One array of 32-bit slots, searched from a hash's home place on until an empty one (linear probing). A slot
//! holds a number in as many of its lower bits as the largest needs and, above them, bits of the hash that are
//! not part of the home place. So a look-up touches one cache line of a small array, and asks what a number
//! stands for only where it will agree. The array grows by a half and a third in turn, since it has to share
//! the cache with the sessions: for 65,536 of them, two flows each, it takes 768 KiB.

use alloc::vec::Vec;

/// A hash table of small numbers: none may be as large as the most that were in it at one time.
#[derive(Debug, Default)]
pub(crate) struct HashIndex {
    /// None, a power of two, or one and a half. Empty is 0; a number is kept one larger than it is.
    slots: Vec<u32>,
    /// The bits of a slot that hold its number: enough for one of as many as there are slots.
    low: u32,
    len: usize,
}

const FIRST_SIZE: usize = 16;

impl HashIndex {
    /// The number entered with `hash` that is the `same` as what is sought.
    #[inline]
    pub(crate) fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        let (low, tag) = (self.low, self.tag(hash));
        let mut place = self.home(hash);
        loop {
            let slot = *self.slots.get(place)?;
            if slot == 0 {
                return None;
            }
            let number = value(slot, low);
            if slot & !low == tag && same(number) {
                return Some(number);
            }
            place = self.after(place);
        }
    }

    /// Enters `number`, which must not be in yet. `hash_of` answers the hash of another that is.
    pub(crate) fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow(hash_of);
        }
        self.len += 1;
        self.place(hash, number);
    }

    /// Takes out `number`, which was entered with `hash`. `hash_of` answers the hash of any that is in.
    pub(crate) fn remove(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        let low = self.low;
        let mut gap = self.home(hash);
        loop {
            match self.slots.get(gap) {
                None | Some(0) => return,
                Some(&slot) if value(slot, low) == number => break,
                Some(_) => gap = self.after(gap),
            }
        }
        self.len -= 1;
        // Whatever lies behind and would not be found over the gap moves into it.
        let mut next = gap;
        loop {
            next = self.after(next);
            let slot = self.slots.get(next).copied().unwrap_or(0);
            if slot != 0 {
                let home = self.home(hash_of(value(slot, low)));
                if self.distance(home, next) < self.distance(gap, next) {
                    continue;
                }
            }
            if let Some(hole) = self.slots.get_mut(gap) {
                *hole = slot;
            }
            if slot == 0 {
                return;
            }
            gap = next;
        }
    }

    #[inline]
    fn tag(&self, hash: u64) -> u32 {
        (hash >> 32) as u32 & !self.low
    }

    /// Where to begin: the lower half of the hash as a fraction of the array.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u64::from(lower(hash)) * u64::from(size_of_slots(&self.slots))) >> 32) as usize
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        if place + 1 < self.slots.len() { place + 1 } else { 0 }
    }

    /// How many steps it is from one place to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.slots.len() - from }
    }

    fn place(&mut self, hash: u64, number: u32) {
        let tag = self.tag(hash);
        debug_assert!((number as usize) < self.slots.len(), "{number} does not fit beside the tag");
        let mut place = self.home(hash);
        while let Some(slot) = self.slots.get_mut(place) {
            if *slot == 0 {
                *slot = tag | (number + 1);
                return;
            }
            place = self.after(place);
        }
    }

    fn grow(&mut self, hash_of: impl Fn(u32) -> u64) {
        let (low, size) = (self.low, self.slots.len());
        let size = if size.is_power_of_two() { size + size / 2 } else { size / 3 * 4 };
        let old = core::mem::replace(&mut self.slots, alloc::vec![0; size.max(FIRST_SIZE)]);
        self.low = u32::MAX >> size_of_slots(&self.slots).leading_zeros();
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            let number = value(slot, low);
            self.place(hash_of(number), number);
        }
    }
}

#[inline]
fn value(slot: u32, low: u32) -> u32 {
    (slot & low).wrapping_sub(1)
}

#[expect(clippy::cast_possible_truncation, reason = "tables have fewer than 2^32 places")]
#[inline]
const fn size_of_slots(slots: &[u32]) -> u32 {
    slots.len() as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
#[inline]
const fn lower(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(number: u32) -> u64 {
        u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    }

    /// Few homes, so that every search runs over others' slots and round the end of the array.
    fn crowded(number: u32) -> u64 {
        u64::from(number % 7) | 0xffff_fffc
    }

    #[test]
    fn an_empty_index_finds_nothing_and_removes_nothing() {
        let mut index = HashIndex::default();
        index.remove(spread(7), 7, spread);
        assert_eq!(index.find(spread(7), |_| true), None);
        assert_eq!(index.len, 0);
    }

    #[test]
    fn numbers_of_one_hash_are_told_apart() {
        let mut index = HashIndex::default();
        for number in 0..5 {
            index.insert(3, number, |_| 3);
        }
        index.remove(3, 2, |_| 3);
        let found: Vec<_> = (0..5).map(|number| index.find(3, |n| n == number)).collect();
        assert_eq!(found, [Some(0), Some(1), None, Some(3), Some(4)]);
    }

    #[test]
    fn random_entries_and_removals_agree_with_a_list() {
        for hash_of in [spread, crowded] {
            let (mut index, mut inside) = (HashIndex::default(), [false; 300]);
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            for round in 0..40_000_u32 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // A number comes in only when all smaller ones are, as places of a slab are given out.
                let most = inside.iter().position(|&is_in| !is_in).unwrap_or(299);
                let number = (state >> 33) as usize % (most + 1);
                let hash = hash_of(number as u32);
                if inside[number] {
                    index.remove(hash, number as u32, hash_of);
                } else {
                    index.insert(hash, number as u32, hash_of);
                }
                inside[number] = !inside[number];
                assert_eq!(index.len, inside.iter().filter(|&&is_in| is_in).count(), "round {round}");
                let wrong = (0..300)
                    .find(|&n| index.find(hash_of(n), |found| found == n).is_some() != inside[n as usize]);
                assert_eq!(wrong, None, "round {round}");
            }
        }
    }
}
