//! The one place that reads a clock or asks the kernel for randomness.

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
    fn two_seeds_differ() {
        assert_ne!(random_seed(), random_seed());
    }
}
