//! Resident memory per flow, taken in a process of its own so that nothing freed before is used again.

use std::time::Duration;

use nat_core::time::Timestamp;
use natd::engine::Engine;

use crate::conversation::{conversations, engine, open_all};
use crate::packets::TCP;

const FLOWS: u32 = 65_536;

/// Prints resident bytes per TCP flow: `full expired refilled`, and bytes per flow at each power of two
/// while the table fills.
pub(crate) fn report() {
    // Everything else that needs memory comes first, once through a NAT of its own.
    let mut conversations = conversations(TCP, FLOWS);
    open_all(&mut engine(), Timestamp::ZERO, &mut conversations.clone()[..1]);
    let before = resident();
    let per = |flows: usize| resident().saturating_sub(before) as f64 / flows as f64;

    let mut engine = engine();
    let mut growth = Vec::new();
    let mut done = 0;
    for step in 10..=16 {
        let (_, rest) = conversations.split_at_mut(done);
        open_all(&mut engine, Timestamp::from_secs(step), &mut rest[..(1 << step) - done]);
        done = 1 << step;
        growth.push(format!("{done}={:.0}", per(done)));
    }
    let full = per(done);
    let mut now = expire(&mut engine, Timestamp::from_secs(16));
    let expired = per(done);
    open_all(&mut engine, now, &mut conversations);
    let refilled = per(done);
    for _ in 0..4 {
        now = expire(&mut engine, now);
        open_all(&mut engine, now, &mut conversations);
    }
    println!("{full:.0} {expired:.0} {refilled:.0} {:.0} {}", per(done), growth.join(","));
}

/// Lets every session end; answers the time.
fn expire(engine: &mut Engine, now: Timestamp) -> Timestamp {
    let later = now + Duration::from_secs(8000);
    engine.handle_timeout(later);
    let sizes = engine.nat.sizes();
    assert_eq!((sizes.sessions, sizes.mappings), ([0; 3], 0), "sessions outlive their time");
    later
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.expect("/proc/self/status has VmRSS") * 1024
}
