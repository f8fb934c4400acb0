//! The names of drop reasons and notes, in plain English.
//!
//! The daemon counts under stable names; this is what they mean to the owner of the router. A name that is
//! not here is shown as it is.

/// What was dropped and why, in a few words; `None` for a name that is not in the list.
pub fn explain(name: &str) -> Option<&'static str> {
    REASONS.iter().find(|(known, _)| *known == name).map(|(_, words)| *words)
}

/// Every name that has an explanation.
pub fn names() -> impl Iterator<Item = &'static str> {
    REASONS.iter().map(|(name, _)| *name)
}

const REASONS: [(&str, &str); 27] = [
    // Drops.
    ("bad-checksum", "the checksum of its header is wrong"),
    ("device-limit", "the device has as many sessions as one may have"),
    ("filtered", "the device never sent anything to that sender"),
    ("fragment", "a fragment that could not be put together"),
    ("held-syn-limit", "too many unsolicited connection attempts at once"),
    ("icmp-below-minimum-mtu", "it claims a path MTU below 576, as attacks do"),
    ("icmp-bad-quote", "an ICMP error about a packet that nobody here sent"),
    ("icmp-out-of-window", "an ICMP error that quotes TCP data never sent: a forgery"),
    ("malformed", "its headers contradict each other"),
    ("martian", "an address that cannot be on that side"),
    ("no-mapping", "nobody on the LAN has asked for it"),
    ("no-port", "every external port of its kind is in use"),
    ("no-route", "no LAN holds the device's address"),
    ("no-wan-address", "the WAN has no address yet"),
    ("not-translatable", "a protocol that natd cannot translate"),
    ("rst-out-of-window", "a reset that is not from the connection: a forgery"),
    ("session-limit", "the session table is full"),
    ("syn-refused", "an unsolicited connection attempt that nobody met"),
    ("too-large", "too large to go through the queue"),
    ("transmit-failed", "the kernel did not take the packet back"),
    ("truncated", "shorter than its headers say"),
    ("ttl-exceeded", "its time to live ran out"),
    ("unsupported-protocol", "a protocol that natd cannot translate"),
    // Notes.
    ("address-changes", "the WAN address changed"),
    ("mss-clamped", "connections whose segment size was lowered to fit"),
    ("out-of-window-segments", "TCP data outside the window, passed without effect"),
    ("rst-ignored", "resets that were not exact, without effect"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_kebab_case_and_explained_in_one_line() {
        let mut seen = std::collections::BTreeSet::new();
        for name in names() {
            assert!(seen.insert(name), "{name} stands twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
            let words = explain(name).unwrap();
            assert!((1..=60).contains(&words.len()) && !words.ends_with('.'), "{name}: {words}");
        }
        assert_eq!(explain("never-heard-of"), None);
    }
}
