//! Time as the engine sees it: an argument, never a call.

use core::ops::Add;
use core::time::Duration;

/// Microseconds since an arbitrary origin: boot for live traffic, the first packet for a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin itself.
    pub const ZERO: Self = Self(0);

    /// A timestamp `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// A timestamp `secs` seconds after the origin.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the origin, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// A time in four bytes, to a sixteenth of a second; whole seconds are exact. After eight and a half years it
/// stands still: sessions then end in the second in which they begin, until natd is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u32);

impl Tick {
    /// Ticks a second.
    pub(crate) const RATE: u32 = 16;
    const MICROS: u64 = 1_000_000 / Self::RATE as u64;

    /// The last one that is not after `time`.
    #[inline]
    pub(crate) fn before(time: Timestamp) -> Self {
        Self(u32::try_from(time.0 / Self::MICROS).unwrap_or(u32::MAX))
    }

    /// The first one that is not before `time`.
    #[inline]
    pub(crate) fn after(time: Timestamp) -> Self {
        Self(u32::try_from(time.0.div_ceil(Self::MICROS)).unwrap_or(u32::MAX))
    }

    /// Whole seconds since the origin, rounded up.
    pub(crate) const fn as_secs_rounded_up(self) -> u32 {
        self.0.div_ceil(Self::RATE)
    }
}

impl From<Tick> for Timestamp {
    #[inline]
    fn from(tick: Tick) -> Self {
        Self(u64::from(tick.0) * Tick::MICROS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_holds_whole_seconds_and_rounds_the_rest_as_told() {
        for (micros, before, after) in [
            (5_000_000, 5_000_000, 5_000_000),
            (5_000_001, 5_000_000, 5_062_500),
            (5_999_999, 5_937_500, 6_000_000),
            (0, 0, 0),
        ] {
            let time = Timestamp::from_micros(micros);
            let found = (Timestamp::from(Tick::before(time)), Timestamp::from(Tick::after(time)));
            assert_eq!(found, (Timestamp::from_micros(before), Timestamp::from_micros(after)), "{micros}");
        }
        let last = Timestamp::from(Tick::after(Timestamp::from_micros(u64::MAX)));
        assert_eq!(last.as_secs(), 268_435_455);
    }
}
