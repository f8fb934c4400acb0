//! Names of counters in words.

use nat_core::decision::{DropReason, Note};

/// What a counter counts, in a few words; `None` for a name that this version does not know.
pub fn explain(name: &str) -> Option<&'static str> {
    let drop = DropReason::ALL.iter().find(|reason| reason.name() == name).map(|reason| reason.explanation());
    drop.or_else(|| Note::ALL.iter().find(|note| note.name() == name).map(|note| note.explanation()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_kebab_case_and_explained_in_one_line() {
        let names = DropReason::ALL.iter().map(|r| r.name()).chain(Note::ALL.iter().map(|n| n.name()));
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
            let words = explain(name).unwrap();
            assert!((1..=90).contains(&words.len()) && !words.ends_with('.'), "{name}: {words}");
        }
        assert_eq!(explain("never-heard-of"), None);
    }
}
