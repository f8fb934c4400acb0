//! Keyed hashing and random choice. Both take their secret once, from the caller.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::flow::{Endpoint, Tuple};

/// A secret of the daemon's life: an outsider who could predict hashes could flood one bucket, one who could
/// predict ports could spoof (RFC 6056).
#[derive(Debug)]
pub(crate) struct Secret {
    keys: (u64, u64),
    drawn: u64,
}

impl Secret {
    pub(crate) fn new(seed: [u8; 16]) -> Self {
        let value = u128::from_ne_bytes(seed);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are wanted")]
        let keys = ((value >> 64) as u64, value as u64);
        Self { keys, drawn: 0 }
    }

    #[inline]
    fn hash(&self, first: u64, second: u64) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.keys.0, self.keys.1);
        hasher.write_u64(first);
        hasher.write_u64(second);
        hasher.finish()
    }

    /// Hash of what one packet shows.
    #[inline]
    pub(crate) fn of_tuple(&self, tuple: &Tuple) -> u64 {
        let ids = (u64::from(tuple.src.id.0) << 16) | u64::from(tuple.dst.id.0);
        let addrs = (u64::from(u32::from(tuple.src.addr)) << 32) | u64::from(u32::from(tuple.dst.addr));
        self.hash(addrs, (u64::from(tuple.protocol.number()) << 32) | ids)
    }

    /// Hash of one endpoint of a protocol.
    #[inline]
    pub(crate) fn of_endpoint(&self, protocol: u8, endpoint: Endpoint) -> u64 {
        let addr = u64::from(u32::from(endpoint.addr));
        self.hash(addr, (1 << 40) | (u64::from(protocol) << 32) | u64::from(endpoint.id.0))
    }

    /// Hash of a pair of numbers.
    #[inline]
    pub(crate) fn of_pair(&self, a: u32, b: u32) -> u64 {
        self.hash((u64::from(a) << 32) | u64::from(b), 1 << 41)
    }

    /// The next random number below `bound`, which is not 0. No one without the secret can tell it beforehand.
    pub(crate) fn draw(&mut self, bound: u32) -> u32 {
        self.drawn += 1;
        let value = self.hash(self.drawn, 1 << 42) >> 32;
        ((value * u64::from(bound)) >> 32) as u32
    }
}
