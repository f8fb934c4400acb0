//! The only clock of the driver.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "the driver's running time is real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A seed that another run does not have.
#[expect(clippy::disallowed_methods, reason = "a seed that is printed")]
pub(crate) fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs())
}
