//! Sorting in little code: the standard library's sort is compiled anew, at 5 KB, for every type that it is used on.

/// `items` by `key`; those with equal keys keep their order.
pub(crate) fn by<T>(items: Vec<T>, key: impl Fn(&T) -> u64) -> Vec<T> {
    let mut places: Vec<(u64, usize)> = items.iter().enumerate().map(|(at, item)| (key(item), at)).collect();
    pairs(&mut places);
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    places.into_iter().filter_map(|(_, at)| items.get_mut(at)?.take()).collect()
}

/// Sorts pairs: the one sort of any size.
#[inline(never)]
pub(crate) fn pairs(pairs: &mut [(u64, usize)]) {
    pairs.sort_unstable();
}

/// `items` in ascending order, each once. For short lists: inserting moves what comes after.
pub(crate) fn distinct<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut sorted = Vec::new();
    for item in items {
        insert(&mut sorted, item);
    }
    sorted
}

/// Puts `item` in its place; `false` when it is there already.
pub(crate) fn insert<T: Ord>(sorted: &mut Vec<T>, item: T) -> bool {
    let place = sorted.binary_search(&item);
    if let Err(at) = place {
        sorted.insert(at, item);
    }
    place.is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_keeps_its_order_and_nothing_is_lost() {
        let words = vec!["three", "two", "seven", "one", "eight", ""];
        let length = |word: &&str| word.len() as u64;
        assert_eq!(by(words, length), ["", "two", "one", "three", "seven", "eight"]);
        assert_eq!(by(Vec::<&str>::new(), length), [""; 0]);
    }

    #[test]
    fn distinct_items_ascend() {
        assert_eq!(distinct([3, 1, 2, 3, 1]), [1, 2, 3]);
        let mut sorted = vec!["a", "c"];
        assert!(insert(&mut sorted, "b") && !insert(&mut sorted, "c"));
        assert_eq!(sorted, ["a", "b", "c"]);
    }
}
