//! Deadlines of many things, cheap to push back.
//!
//! A deadline that moves later costs nothing: the thing stays in its bucket, and when the bucket is due the
//! owner answers with the new time. Only one that moves earlier is entered again; the owner keeps the second
//! of the bucket that counts, so a stale entry is told from it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::slab::Index;
use crate::time::{Tick, Timestamp};

/// The second in which a bucket is due.
pub(crate) type Second = u32;

/// Buckets of indices, one a second.
#[derive(Debug, Default)]
pub(crate) struct Buckets(BTreeMap<Second, Vec<Index>>);

impl Buckets {
    /// Enters `index` so that it comes up at `deadline` or within a second after. Answers the bucket.
    pub(crate) fn enter(&mut self, index: Index, deadline: Tick) -> Second {
        let second = deadline.as_secs_rounded_up();
        self.0.entry(second).or_default().push(index);
        second
    }

    /// When the next bucket is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first_key_value().map(|(&second, _)| Timestamp::from_secs(u64::from(second)))
    }

    /// Takes out one bucket that is due at `now`.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<(Second, Vec<Index>)> {
        let (&second, _) = self.0.first_key_value()?;
        if u64::from(second) > now.as_secs() {
            return None;
        }
        self.0.pop_first()
    }
}
