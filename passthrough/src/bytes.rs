//! Checked reading of fields in network byte order.

/// The two bytes at `at`; `None` where they are not there.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

/// The four bytes at `at`; `None` where they are not there.
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_be_bytes(*field))
}

/// The eight bytes at `at`; `None` where they are not there.
pub(crate) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|field| u64::from_be_bytes(*field))
}

/// Bytes for tests that throw anything at a parser: the same seed gives the same bytes.
#[cfg(test)]
pub(crate) mod noise {
    use alloc::vec::Vec;

    pub(crate) struct Noise(pub(crate) u64);

    impl Noise {
        /// A number below `bound`.
        pub(crate) fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
        }

        pub(crate) fn byte(&mut self) -> u8 {
            u8::try_from(self.below(256)).unwrap()
        }

        pub(crate) fn bytes(&mut self, longest: usize) -> Vec<u8> {
            let len = self.below(longest + 1);
            (0..len).map(|_| self.byte()).collect()
        }

        /// `base` with up to four bytes changed and its end cut off half of the time.
        pub(crate) fn mutant(&mut self, base: &[u8]) -> Vec<u8> {
            let mut bytes = base.to_vec();
            for _ in 0..self.below(5) {
                let (at, new) = (self.below(bytes.len()), self.byte());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = new;
                }
            }
            if self.below(2) == 0 {
                bytes.truncate(self.below(base.len() + 1));
            }
            bytes
        }
    }
}
