//! The packets and bytes of one direction of a session in four bytes.
//!
//! Eight bits count packets, and what is over moves to larger counts elsewhere before they are full. The other
//! 24 bits count bytes and are never full before: 255 packets have 255 × 65,535 bytes at most.

/// Packets and bytes since the last [`Carry`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally(u32);

/// Packets and bytes for the larger counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carry {
    pub(crate) packets: u32,
    pub(crate) bytes: u32,
}

const PACKETS: u32 = 0xff;
const BYTES_SHIFT: u32 = 8;

impl Tally {
    /// Counts a packet of `len` bytes. When no further one fits, starts again and answers what was counted.
    #[inline]
    pub(crate) fn add(&mut self, len: u16) -> Option<Carry> {
        self.0 += (u32::from(len) << BYTES_SHIFT) + 1;
        if self.0 & PACKETS != PACKETS {
            return None;
        }
        let carry = self.counted();
        self.0 = 0;
        Some(carry)
    }

    /// What was counted since the last carry.
    #[inline]
    pub(crate) const fn counted(self) -> Carry {
        Carry { packets: self.0 & PACKETS, bytes: self.0 >> BYTES_SHIFT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_packets_are_all_counted() {
        let (mut tally, mut packets, mut bytes) = (Tally::default(), 0, 0);
        for n in 1..=1000_u64 {
            if let Some(carry) = tally.add(u16::MAX) {
                packets += u64::from(carry.packets);
                bytes += u64::from(carry.bytes);
            }
            let rest = tally.counted();
            let sum = (packets + u64::from(rest.packets), bytes + u64::from(rest.bytes));
            assert_eq!(sum, (n, n * u64::from(u16::MAX)));
        }
        assert_eq!(packets, 765);
    }
}
