//! What differs from run to run, repeatable.

use std::time::Duration;

use testkit::pause;

/// A sequence of choices (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Seed(u64);

impl Seed {
    /// The choices of run `number` of the case `name`.
    pub(crate) fn new(number: u64, name: &str) -> Self {
        let start =
            name.bytes().fold(number, |sum, byte| sum.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        let mut seed = Self(start);
        seed.next();
        seed
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `from` to `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    /// Heads or tails.
    pub(crate) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        let index = usize::try_from(self.next() % (all.len() as u64)).expect("it is less than a length");
        *all.get(index).expect("it is less than the length")
    }

    /// Lets between `from` and `to` milliseconds pass.
    pub(crate) fn wait(&mut self, from: u64, to: u64) {
        pause(Duration::from_millis(self.between(from, to)));
    }
}
