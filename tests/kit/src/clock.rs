//! The one place of the kit that looks at the clock: kernel tests wait for other programs.

use std::time::{Duration, Instant};

/// Now.
#[expect(clippy::disallowed_methods, reason = "kernel tests run in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets `time` pass. Only where time itself is what is tested; otherwise [`wait_for`] a condition.
#[expect(clippy::disallowed_methods, reason = "kernel tests run in real time")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits until `condition` holds; `false` when it still does not after `deadline`.
pub fn holds_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > deadline {
            return false;
        }
        pause(Duration::from_millis(10));
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it still does not after `deadline`; `what` names it.
pub fn wait_for(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(deadline, condition), "waited {deadline:?} in vain for: {what}");
}
