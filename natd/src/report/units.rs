//! Numbers as people read them.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in powers of 1024 with one decimal, rounded down: `999 B`, `1.2 MiB`.
pub fn bytes(n: u64) -> String {
    scaled(n, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Bytes a second as bits a second in powers of 1000: `94.3 Mbit/s`.
pub fn bit_rate(bytes_per_second: u64) -> String {
    scaled(bytes_per_second.saturating_mul(8), 1000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

fn scaled(n: u64, base: u64, units: &[&str]) -> String {
    let mut size = 1u64;
    let mut last = "";
    for (power, unit) in units.iter().enumerate() {
        last = unit;
        if power + 1 == units.len() || n / size < base {
            break;
        }
        size = size.saturating_mul(base);
    }
    if size == 1 {
        return format!("{n} {last}");
    }
    let tenths = u128::from(n) * 10 / u128::from(size);
    format!("{}.{} {last}", tenths / 10, tenths % 10)
}

/// Whole seconds in the two largest units: `12s`, `5m02s`, `2h04m`, `3d04h`.
pub fn span(secs: u64) -> String {
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", secs % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// How many whole percent `part` is of `whole`, at most 999; `whole` 0 counts as 1.
pub fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX).min(999)
}

/// How many a second, when a counter went from `earlier` to `later` in `elapsed`; 0 when it went backwards
/// (the daemon was restarted) or no time has passed. Rounded to the nearest.
pub fn per_second(earlier: u64, later: u64, elapsed: Duration) -> u64 {
    per_seconds(later.saturating_sub(earlier), elapsed, 1)
}

/// The same in tenths, as text: `2.5/s`; a whole number from 100 on.
pub fn rate(earlier: u64, later: u64, elapsed: Duration) -> String {
    let tenths = per_seconds(later.saturating_sub(earlier), elapsed, 10);
    if tenths >= 1000 {
        format!("{}/s", count(tenths / 10))
    } else {
        format!("{}.{}/s", tenths / 10, tenths % 10)
    }
}

fn per_seconds(n: u64, elapsed: Duration, factor: u64) -> u64 {
    let millis = elapsed.as_millis();
    if millis == 0 {
        return 0;
    }
    let scaled = u128::from(n) * u128::from(factor) * 1000;
    u64::try_from((scaled + millis / 2) / millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_in_threes() {
        let shown: Vec<String> = [0, 999, 1000, 65_536, 1_234_567, u64::MAX].map(count).into();
        assert_eq!(shown, ["0", "999", "1,000", "65,536", "1,234,567", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn bytes_are_powers_of_1024() {
        let shown: Vec<String> = [0, 1023, 1024, 1_300_000, 1 << 30, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.2 MiB", "1.0 GiB", "15.9 EiB"]);
    }

    #[test]
    fn rates_on_the_line_are_powers_of_1000_and_bits() {
        let shown: Vec<String> = [0, 124, 125, 11_787_500, u64::MAX].map(bit_rate).into();
        assert_eq!(shown, ["0 bit/s", "992 bit/s", "1.0 kbit/s", "94.3 Mbit/s", "18446744.0 Tbit/s"]);
    }

    #[test]
    fn spans_show_the_two_largest_units() {
        let shown: Vec<String> = [0, 59, 60, 302, 7440, 86_399, 86_400, 273_600].map(span).into();
        assert_eq!(shown, ["0s", "59s", "1m00s", "5m02s", "2h04m", "23h59m", "1d00h", "3d04h"]);
    }

    #[test]
    fn percentages_are_rounded_down_and_bounded() {
        assert_eq!([percent(1, 3), percent(7, 0), percent(5, 5), percent(u64::MAX, 1)], [33, 700, 100, 999]);
    }

    #[test]
    fn a_counter_that_went_back_has_no_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(per_second(100, 40, second), 0);
        assert_eq!(per_second(40, 100, Duration::ZERO), 0);
        assert_eq!(per_second(0, 150, Duration::from_millis(1500)), 100);
        assert_eq!(rate(0, 3, Duration::from_secs(2)), "1.5/s");
        assert_eq!(rate(0, 12_345, second), "12,345/s");
    }
}
