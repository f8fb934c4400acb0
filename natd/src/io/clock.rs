//! The one place that reads a clock or asks the kernel for randomness.

use std::time::Duration;

use nat_core::time::Timestamp;

/// Time since boot, suspend included: a router or laptop that slept must find its idle mappings expired.
pub fn now() -> Timestamp {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing. The call fails only for an unknown clock, which Linux has had
    // since 2.6.39; `time` then stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec / 1_000).unwrap_or(0);
    Timestamp::from_micros(secs.saturating_mul(1_000_000).saturating_add(micros))
}

/// The wall clock: time since 1970. It may be wrong, and be set at any moment.
pub fn wall() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What has to be added to a time of [`now`] for the wall clock's, in microseconds since 1970.
pub fn unix_offset() -> i64 {
    let wall = i64::try_from(wall().as_micros()).unwrap_or(0);
    wall.saturating_sub(i64::try_from(now().as_micros()).unwrap_or(0))
}

/// By how many seconds local time is ahead of UTC at `unix`, seconds since 1970; 0 where that is not known.
pub fn local_offset(unix: i64) -> i64 {
    // By way of i128, for time_t and c_long have 32 bits on some routers and 64 on others.
    let Ok(time) = libc::time_t::try_from(i128::from(unix)) else { return 0 };
    // SAFETY: all zeros is a valid `tm`: numbers, and a pointer that is never read here.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid, and the call keeps neither.
    let done = unsafe { libc::localtime_r(&time, &mut local) };
    if done.is_null() { 0 } else { i64::try_from(i128::from(local.tm_gmtoff)).unwrap_or(0) }
}

/// Sixteen bytes that nobody can guess, for hash keys and the choice of ports.
///
/// Waits for the kernel's entropy early at boot, so it never returns predictable bytes.
///
/// # Panics
/// When the kernel refuses `getrandom` (seccomp): without it ports would be guessable.
pub fn random_seed() -> [u8; 16] {
    let mut seed = [0; 16];
    loop {
        // SAFETY: the pointer and length describe `seed`.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if usize::try_from(got) == Ok(seed.len()) {
            return seed;
        }
        let error = std::io::Error::last_os_error();
        assert!(error.kind() == std::io::ErrorKind::Interrupted, "getrandom is not available: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards_and_has_begun() {
        let first = now();
        let second = now();
        assert!(first > Timestamp::ZERO);
        assert!(second >= first);
    }

    #[test]
    fn the_clock_is_the_one_that_counts_suspend() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let ours = now().as_micros() as f64 / 1e6;
        assert!((ours - uptime).abs() < 60.0, "{ours} s against {uptime} s");
    }

    #[test]
    fn local_time_is_within_a_day_of_utc() {
        for unix in [0, 1_795_348_800, -1, i64::MAX] {
            assert!(local_offset(unix).abs() <= 86_400, "{unix}");
        }
    }

    #[test]
    fn two_seeds_differ() {
        assert_ne!(random_seed(), random_seed());
    }
}
