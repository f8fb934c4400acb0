//! IPsec sessions as they are reported.

use core::time::Duration;

use nat_core::time::Timestamp;
use passthrough::ike::Exchange;
use passthrough::view::{Phase, Vpn};

use super::exchange::{SHORT, Sa, Step};
use super::{Bare, Tracker};
use crate::finding::Mark;
use crate::session::Session;

/// After that long a silence a session is idle.
const IDLE: Duration = Duration::from_secs(120);
/// After that long a silence a session is over, and so is an attempt after the second.
const OVER: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(60));
/// An answer to IKE_AUTH that no other round of EAP followed by then was the last one.
const SETTLED: Duration = Duration::from_secs(1);
/// Why an attempt ended whose answer the device did not like.
const BROKEN_OFF: &str = "broken off by the device";
/// Nothing followed: it was a deletion.
const DELETED: Duration = Duration::from_secs(5);

/// A session of IKE and its ESP.
pub(super) fn session(tracker: &Tracker, at: usize, sa: &Sa, now: Timestamp) -> Session {
    let silent = now.since(sa.last.at);
    let replaced = tracker.after(at).is_some_and(|next| next.agreed().is_some() || sa.established.is_none());
    let settled = sa.established.is_some() || silent >= SETTLED;
    let (phase, reason) = match sa.agreed() {
        Some(_) if settled => match deleted(sa, silent) {
            Some(reason) => (Phase::Closed, reason),
            None if replaced && silent >= DELETED => (Phase::Closed, "replaced by a new one"),
            None if silent >= OVER.0 => (Phase::Closed, "ended"),
            None => (alive(sa, now), ""),
        },
        Some(_) | None => match failed(sa) {
            reason if replaced || silent >= OVER.1 => (Phase::Closed, reason),
            "no answer" | "ended" | BROKEN_OFF => (Phase::Handshake, ""),
            reason if silent >= DELETED => (Phase::Closed, reason),
            _ => (Phase::Handshake, ""),
        },
    };
    Session {
        vpn: sa.vpn(),
        device: [0, 0, 0, 0].into(),
        server: [0, 0, 0, 0].into(),
        attempt: sa.attempt,
        phase,
        reason,
        since: sa.first.at,
        last_seen: sa.last.at,
        packets: sa.packets,
        bytes: sa.bytes,
    }
}

/// A session of ESP alone.
pub(super) fn bare(bare: &Bare, now: Timestamp) -> Session {
    let silent = now.since(bare.last.at);
    let (phase, reason) = match silent {
        _ if silent >= OVER.0 => (Phase::Closed, "ended"),
        _ if silent >= IDLE => (Phase::Idle, ""),
        _ => (Phase::Data, ""),
    };
    Session {
        vpn: Vpn::Esp,
        device: [0, 0, 0, 0].into(),
        server: [0, 0, 0, 0].into(),
        attempt: bare.attempt,
        phase,
        reason,
        since: bare.first.at,
        last_seen: bare.last.at,
        packets: bare.packets,
        bytes: bare.bytes,
    }
}

/// Why an attempt came to nothing.
fn failed(sa: &Sa) -> &'static str {
    let short = sa.auth.is_some_and(|(_, len)| len < SHORT) && sa.waiting().is_none();
    if sa.no_proposal.iter().any(Option::is_some) {
        "refused: no proposal chosen"
    } else if sa.version_refused.is_some() || sa.other_version.is_some() {
        "refused: version of IKE"
    } else if sa.not_authentic.is_some() || sa.told_before.is_some() || short {
        "login refused"
    } else if sa.waiting().is_some() {
        "no answer"
    } else if sa.auth.is_some_and(|(mark, _)| sa.broken_off(mark)) {
        BROKEN_OFF
    } else {
        "ended"
    }
}

fn alive(sa: &Sa, now: Timestamp) -> Phase {
    let recent = |mark: Option<Mark>| mark.is_some_and(|mark| now.since(mark.at) < IDLE);
    let rekey = |step: &&Step| {
        matches!(step.exchange, Exchange::CreateChildSa | Exchange::QuickMode)
            && step.asks
            && step.answered.is_none()
            && now.since(step.sends.last.at) < DELETED
    };
    let last = sa.esp.iter().flatten().map(|(_, last)| *last).max();
    if sa.steps.iter().any(|step| rekey(&step)) && sa.established.is_some() {
        Phase::Rekey
    } else if recent(last) {
        Phase::Data
    } else if now.since(sa.last.at) >= IDLE {
        Phase::Idle
    } else if recent(sa.keepalive) || last.is_some() {
        Phase::Keepalive
    } else {
        Phase::Established
    }
}

/// Deletions are encrypted: longer than DPD where that was seen, and nothing follows them.
fn deleted(sa: &Sa, silent: Duration) -> Option<&'static str> {
    let (side, mark) = sa.deletion?;
    let last = sa.last.at.since(mark.at) < Duration::from_secs(1);
    let reason = if side == 0 { "closed by the device" } else { "closed by the server" };
    (last && silent >= DELETED).then_some(reason)
}
