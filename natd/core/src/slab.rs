//! Storage whose places are numbered and used again.

use alloc::vec::Vec;

/// The number of a place in a [`Slab`].
pub(crate) type Index = u32;

/// "No place": ends a list of indices.
pub(crate) const NIL: Index = Index::MAX;

/// Values at numbered places. A place that is freed is given out again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<Index>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Stores `value` and answers its place.
    pub(crate) fn insert(&mut self, value: T) -> Index {
        if let Some(index) = self.free.pop() {
            if let Some(place) = self.places.get_mut(index as usize) {
                *place = Some(value);
                return index;
            }
        }
        let index = Index::try_from(self.places.len()).unwrap_or(NIL);
        self.places.push(Some(value));
        index
    }

    pub(crate) fn remove(&mut self, index: Index) -> Option<T> {
        let value = self.places.get_mut(index as usize)?.take();
        if value.is_some() {
            self.free.push(index);
        }
        value
    }

    #[inline]
    pub(crate) fn at(&self, index: Index) -> Option<&T> {
        self.places.get(index as usize)?.as_ref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, index: Index) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Every place from `from` on that holds something, in order.
    pub(crate) fn iter_from(&self, from: Index) -> impl Iterator<Item = (Index, &T)> {
        (from..)
            .zip(self.places.get(from as usize..).unwrap_or_default())
            .filter_map(|(i, v)| Some((i, v.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_place_is_used_again() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!((slab.remove(a), slab.len()), (None, 1));
        assert_eq!(slab.insert('c'), a);
        assert_eq!(slab.iter_from(0).collect::<Vec<_>>(), [(a, &'c'), (b, &'b')]);
    }
}
