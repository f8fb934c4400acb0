//! `[timeout]`: how long idle sessions live.

use std::ops::RangeInclusive;
use std::time::Duration;

use nat_core::policy::Timeouts;
use passthrough::settings::Settings;

use super::document::Document;
use super::item::Item;
use super::{Findings, Problem};

/// What it means not to hold SYNs at all.
pub(super) const NO_SYN_HOLD: &str = "an unsolicited SYN is refused at once; RFC 5382 REQ-4 asks to hold it for 6s, which lets two devices open a \
     connection to each other";

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const LONGEST: u64 = 7 * DAY;
const LONGEST_SYN_HOLD: u64 = 60;
/// Largest first: text names them in this order.
const UNITS: [(char, u64); 4] = [('d', DAY), ('h', HOUR), ('m', MINUTE), ('s', 1)];

/// One key of the table.
struct Row {
    key: &'static str,
    field: for<'a> fn(&'a mut Timeouts, &'a mut Settings) -> &'a mut Duration,
    /// Accepted, in seconds.
    range: RangeInclusive<u64>,
    /// Shorter than this, in seconds, earns a remark; 0 where no RFC has a word on it.
    minimum: u64,
    rfc: &'static str,
}

const ROWS: [Row; 8] = [
    Row {
        key: "tcp_established",
        field: |timeouts, _| &mut timeouts.tcp_established,
        range: 1..=LONGEST,
        minimum: 2 * HOUR + 4 * MINUTE,
        rfc: "RFC 5382 REQ-5",
    },
    Row {
        key: "tcp_transitory",
        field: |timeouts, _| &mut timeouts.tcp_transitory,
        range: 1..=LONGEST,
        minimum: 4 * MINUTE,
        rfc: "RFC 5382 REQ-5",
    },
    Row {
        key: "tcp_reset",
        field: |timeouts, _| &mut timeouts.tcp_reset,
        range: 1..=LONGEST,
        minimum: 4 * MINUTE,
        rfc: "RFC 7857 section 2.2",
    },
    Row {
        key: "udp",
        field: |timeouts, _| &mut timeouts.udp,
        range: 1..=LONGEST,
        minimum: 2 * MINUTE,
        rfc: "RFC 4787 REQ-5",
    },
    Row {
        key: "icmp",
        field: |timeouts, _| &mut timeouts.icmp,
        range: 1..=LONGEST,
        minimum: MINUTE,
        rfc: "RFC 5508 REQ-2",
    },
    Row {
        key: "tcp_syn_hold",
        field: |timeouts, _| &mut timeouts.tcp_syn_hold,
        range: 0..=LONGEST_SYN_HOLD,
        minimum: 6,
        rfc: "RFC 5382 REQ-4",
    },
    Row { key: "esp", field: |_, settings| &mut settings.esp_idle, range: 1..=LONGEST, minimum: 0, rfc: "" },
    Row { key: "gre", field: |_, settings| &mut settings.gre_idle, range: 1..=LONGEST, minimum: 0, rfc: "" },
];

/// The timeouts, of VPNs into `settings`; what the file does not name keeps its default.
pub(super) fn read(document: &Document<'_>, settings: &mut Settings, findings: &mut Findings) -> Timeouts {
    let section = document.section("timeout");
    let mut timeouts = Timeouts::default();
    for row in &ROWS {
        let item = section.item(row.key);
        let Some((item, secs)) = item.zip(findings.take(item, |item| duration(item, &row.range))) else {
            continue;
        };
        *(row.field)(&mut timeouts, settings) = Duration::from_secs(secs);
        if secs == 0 {
            findings.remarks.push(item.remark(NO_SYN_HOLD));
        } else if secs < row.minimum {
            let (secs, minimum) = (spelled(secs), spelled(row.minimum));
            findings.remarks.push(item.remark(format!("{secs} is less than the {minimum} of {}", row.rfc)));
        }
    }
    timeouts
}

pub(super) fn duration(item: &Item<'_>, range: &RangeInclusive<u64>) -> Result<u64, Problem> {
    let (low, high) = (spelled(*range.start()), spelled(*range.end()));
    let expected =
        format!("use {low} to {high}: seconds as a number, or text such as \"2h4m\", \"5m\" or \"90s\"");
    let secs = match (item.as_number(), item.as_text()) {
        (Some(number), _) => number,
        (None, Some(text)) => match seconds(text) {
            Some(secs) => Some(secs),
            None => return Err(item.refused("is not a duration", expected)),
        },
        (None, None) => return Err(item.wrong_kind(expected)),
    };
    secs.filter(|secs| range.contains(secs)).ok_or_else(|| item.refused("is out of range", expected))
}

/// `"2h4m"` in seconds; `None` when it is not numbers with units, largest first, each at most once.
fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    for (unit, secs) in UNITS {
        let Some((number, after)) = rest.split_once(unit) else {
            continue;
        };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // Too long a number is too long a time, which the caller reports.
        let number: u64 = if number.is_empty() { return None } else { number.parse().unwrap_or(u64::MAX) };
        total = total.saturating_add(number.saturating_mul(secs));
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

/// Seconds as the file may spell them: `7440` is `2h4m`.
fn spelled(secs: u64) -> String {
    let mut rest = secs;
    let mut text = String::new();
    for (unit, length) in UNITS {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
