//! Maps and sets in a sorted vector.
//!
//! They behave like those of `alloc::collections`, with far less code for each pair of types, and a router's
//! flash is small. An entry that comes or goes moves those behind it; all tables here are bounded, and mostly a
//! handful. Keys lie apart from the values, so that a search touches little memory, and the vectors grow by a
//! quarter instead of to the double: moving the entries costs as much anyhow.

use alloc::vec::{IntoIter, Vec};
use core::cmp::Ordering;
use core::iter::Zip;
use core::net::{IpAddr, Ipv4Addr};
use core::ops::RangeInclusive;

use nat_core::decision::{DropReason, HoldId};
use nat_core::flow::Endpoint;
use nat_core::time::Timestamp;

use crate::ike::IkeSpi;
use crate::keyed::{self, Carrier};
use crate::l2tp::message::Id;
use crate::pptp::{CallId, CallRef, Connection};

/// The order of keys: their own, but addresses are compared as numbers. Code that is to be small has a call of
/// `memcmp` for each comparison of theirs.
pub trait Key {
    /// Which comes first.
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! by_themselves {
    ($($key:ty),*) => {
        $(impl Key for $key {
            #[inline(always)]
            fn order(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
        })*
    };
}

by_themselves!(
    u8,
    u16,
    u32,
    usize,
    DropReason,
    HoldId,
    Timestamp,
    CallId,
    CallRef,
    IkeSpi,
    Carrier,
    keyed::Key,
    Id
);

impl Key for Ipv4Addr {
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        self.to_bits().cmp(&other.to_bits())
    }
}

impl Key for IpAddr {
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::V4(one), Self::V4(other)) => one.order(other),
            (Self::V6(one), Self::V6(other)) => one.to_bits().cmp(&other.to_bits()),
            (Self::V4(_), Self::V6(_)) => Ordering::Less,
            (Self::V6(_), Self::V4(_)) => Ordering::Greater,
        }
    }
}

impl Key for Endpoint {
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        (self.addr, self.id.0).order(&(other.addr, other.id.0))
    }
}

impl Key for Connection {
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        (self.remote, self.device).order(&(other.remote, other.device))
    }
}

impl<A: Key> Key for Option<A> {
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Some(one), Some(other)) => one.order(other),
            _ => self.is_some().cmp(&other.is_some()),
        }
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        self.0.order(&other.0).then_with(|| self.1.order(&other.1))
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        self.0.order(&other.0).then_with(|| self.1.order(&other.1)).then_with(|| self.2.order(&other.2))
    }
}

impl<A: Key, B: Key, C: Key, D: Key> Key for (A, B, C, D) {
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        let rest = || self.2.order(&other.2).then_with(|| self.3.order(&other.3));
        self.0.order(&other.0).then_with(|| self.1.order(&other.1)).then_with(rest)
    }
}

/// Where `key` is, or where it belongs.
fn find<K: Key>(keys: &[K], key: &K) -> Result<usize, usize> {
    keys.binary_search_by(|other| other.order(key))
}

/// A map in sorted vectors.
#[derive(Clone, Debug)]
pub struct SortedMap<K, V> {
    keys: Vec<K>,
    /// Each at the place of its key.
    values: Vec<V>,
}

fn insert<T>(vector: &mut Vec<T>, at: usize, item: T) {
    if vector.len() == vector.capacity() {
        vector.reserve_exact(vector.len() / 4 + 1);
    }
    vector.insert(at, item);
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> SortedMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self { keys: Vec::new(), values: Vec::new() }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
    }

    /// Every entry, in the order of keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.keys.iter().zip(&self.values)
    }

    /// Every entry, its value to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.keys.iter().zip(&mut self.values)
    }

    pub(crate) fn pop_first(&mut self) {
        if !self.is_empty() {
            self.take(0);
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.keys.iter()
    }

    /// Every value, in the order of keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.values.iter()
    }

    /// Drops the entries that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut kept = 0;
        for at in 0..self.len() {
            if let (Some(key), Some(value)) = (self.keys.get(at), self.values.get_mut(at)) {
                if keep(key, value) {
                    self.keys.swap(kept, at);
                    self.values.swap(kept, at);
                    kept += 1;
                }
            }
        }
        self.keys.truncate(kept);
        self.values.truncate(kept);
    }

    fn take(&mut self, at: usize) -> V {
        self.keys.remove(at);
        self.values.remove(at)
    }
}

impl<K: Key + Copy, V: Default> SortedMap<K, V> {
    /// The value of `key`, which is a default one where there was none.
    pub(crate) fn or_default(&mut self, key: K) -> &mut V {
        let at = match self.find(&key) {
            Ok(at) => at,
            Err(at) => {
                self.put(at, key, V::default());
                at
            }
        };
        // The place was just found or made.
        match self.values.get_mut(at) {
            Some(value) => value,
            None => unreachable!("the place exists"),
        }
    }
}

impl<K: Key, V> SortedMap<K, V> {
    fn find(&self, key: &K) -> Result<usize, usize> {
        find(&self.keys, key)
    }

    fn put(&mut self, at: usize, key: K, value: V) {
        insert(&mut self.keys, at, key);
        insert(&mut self.values, at, value);
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.values.get(self.find(key).ok()?)
    }

    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.values.get_mut(at)
    }

    /// Is there such an entry?
    pub fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// Answers what was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => self.values.get_mut(at).map(|old| core::mem::replace(old, value)),
            Err(at) => {
                self.put(at, key, value);
                None
            }
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        Some(self.take(at))
    }

    pub(crate) fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = (&K, &V)> {
        let first = self.find(keys.start()).unwrap_or_else(|at| at);
        let found = self.keys.get(first..).unwrap_or_default();
        let values = self.values.get(first..).unwrap_or_default();
        found.iter().zip(values).take_while(move |&(key, _)| key.order(keys.end()) != Ordering::Greater)
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = Zip<IntoIter<K>, IntoIter<V>>;

    fn into_iter(self) -> Self::IntoIter {
        self.keys.into_iter().zip(self.values)
    }
}

/// A set in a sorted vector.
#[derive(Clone, Debug)]
pub(crate) struct SortedSet<K>(SortedMap<K, ()>);

impl<K> Default for SortedSet<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> SortedSet<K> {
    pub(crate) const fn new() -> Self {
        Self(SortedMap::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn first(&self) -> Option<&K> {
        self.iter().next()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

impl<K: Key> SortedSet<K> {
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn insert(&mut self, key: K) {
        self.0.insert(key, ());
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    pub(crate) fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = &K> {
        self.0.range(keys).map(|(key, ())| key)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::bytes::noise::Noise;

    #[test]
    fn it_behaves_like_a_map_of_the_standard_library() {
        let mut noise = Noise(3);
        let (mut map, mut model) = (SortedMap::new(), BTreeMap::new());
        for round in 0..20_000 {
            let (key, value) = (noise.below(40), noise.byte());
            match noise.below(4) {
                0 => assert_eq!(map.remove(&key), model.remove(&key), "round {round}"),
                1 if noise.below(50) == 0 => {
                    map.retain(|key, value| key % 2 == 0 || *value > 99);
                    model.retain(|key, value| key % 2 == 0 || *value > 99);
                }
                1 => {
                    let end = key + noise.below(20);
                    assert!(map.range(key..=end).eq(model.range(key..=end)), "round {round}");
                }
                _ => assert_eq!(map.insert(key, value), model.insert(key, value), "round {round}"),
            }
            assert!(map.iter().eq(model.iter()) && map.len() == model.len(), "round {round}");
            assert_eq!((map.get(&key), map.contains_key(&key)), (model.get(&key), model.contains_key(&key)));
        }
        assert!(map.into_iter().eq(model));
    }
}
