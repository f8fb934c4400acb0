//! Which external identifiers are taken, and the choice of a free one (RFC 4787 section 4.2).

use alloc::boxed::Box;

use crate::policy::PortRange;
use crate::random::Secret;

/// One bit for each of the 65,536 identifiers of one protocol on the WAN address.
#[derive(Debug)]
pub(crate) struct Ports {
    taken: Box<[u64; 1024]>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { taken: Box::new([0; 1024]) }
    }
}

impl Ports {
    pub(crate) fn is_taken(&self, port: u16) -> bool {
        self.taken.get(usize::from(port / 64)).is_none_or(|word| word & (1 << (port % 64)) != 0)
    }

    pub(crate) fn take(&mut self, port: u16) {
        if let Some(word) = self.taken.get_mut(usize::from(port / 64)) {
            *word |= 1 << (port % 64);
        }
    }

    pub(crate) fn give_back(&mut self, port: u16) {
        if let Some(word) = self.taken.get_mut(usize::from(port / 64)) {
            *word &= !(1 << (port % 64));
        }
    }

    /// A free query id: `wanted` itself if it can be, else a random one (RFC 5508 section 3.1). Never 0: a
    /// question from outside has no id on our side, and must not meet a device's mapping.
    pub(crate) fn choose_any(&self, wanted: u16, secret: &mut Secret) -> Option<u16> {
        let range = PortRange::new(1, u16::MAX)?;
        // Only a port below 1024 is confined to its class.
        if wanted == 0 || self.is_taken(wanted) {
            self.choose(wanted.max(1024), range, false, secret, |_| true)
        } else {
            Some(wanted)
        }
    }

    /// A free port for a device that uses `wanted`: `wanted` itself if it can be, else a random one of the
    /// same class (RFC 4787 REQ-3a: below 1024 or not) and, where `parity` asks for it, the same parity
    /// (REQ-4), as far as `usable` allows (forwarded ports are not). `None` when none is free.
    pub(crate) fn choose(
        &self,
        wanted: u16,
        range: PortRange,
        parity: bool,
        secret: &mut Secret,
        usable: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let free = |port: u16| !self.is_taken(port) && usable(port);
        if free(wanted) && (wanted < 1024 || range.contains(wanted)) {
            return Some(wanted);
        }
        let (first, last) = if wanted < 1024 { (1, 1023) } else { (range.first(), range.last()) };
        let step: u32 = if parity { 2 } else { 1 };
        let first = if parity && first % 2 != wanted % 2 { u32::from(first) + 1 } else { u32::from(first) };
        let count = (u32::from(last).checked_sub(first)?) / step + 1;
        let start = secret.draw(count);
        (0..count)
            .filter_map(|n| u16::try_from(first + ((start + n) % count) * step).ok())
            .find(|&port| free(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: PortRange = match PortRange::new(1024, 65_535) {
        Some(range) => range,
        None => panic!("a range"),
    };

    #[test]
    fn the_wanted_port_is_kept_while_it_is_free() {
        let (mut ports, mut secret) = (Ports::default(), Secret::new([1; 16]));
        assert_eq!(ports.choose(40_000, RANGE, true, &mut secret, |_| true), Some(40_000));
        ports.take(40_000);
        let other = ports.choose(40_000, RANGE, true, &mut secret, |_| true).unwrap();
        assert!(other != 40_000 && other >= 1024 && other % 2 == 0);
        ports.give_back(40_000);
        assert_eq!(ports.choose(40_000, RANGE, true, &mut secret, |_| true), Some(40_000));
    }

    #[test]
    fn class_and_parity_hold_until_the_last_port() {
        let (mut ports, mut secret) = (Ports::default(), Secret::new([2; 16]));
        let mut given = 0;
        while let Some(port) = ports.choose(501, RANGE, true, &mut secret, |port| port != 701) {
            assert!(port < 1024 && port % 2 == 1 && port != 701 && !ports.is_taken(port));
            ports.take(port);
            given += 1;
        }
        assert_eq!(given, 511);
    }

    #[test]
    fn a_replacement_cannot_be_told_from_the_last_one() {
        let (mut ports, mut secret) = (Ports::default(), Secret::new([3; 16]));
        ports.take(40_000);
        let mut small = 0;
        for _ in 0..1000 {
            let port = ports.choose(40_000, RANGE, true, &mut secret, |_| true).unwrap();
            small += u32::from(port < 33_280);
        }
        assert!((400..600).contains(&small), "{small} of 1000 in the lower half");
    }
}
