//! What every VPN session counts, and how its phase follows from what was seen.

use core::time::Duration;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;

use crate::view::Phase;

/// What has been seen of a session that its phase follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Has the remote side answered?
    pub answered: bool,
    /// Has one side ended it?
    pub closed: bool,
    /// The last packet with payload.
    pub payload: Option<Timestamp>,
    /// The last keepalive.
    pub keepalive: Option<Timestamp>,
}

/// Payload or keepalives that are older do not describe a session any more: most keepalives come every minute.
const FRESH: Duration = Duration::from_secs(70);
const QUIET: Duration = Duration::from_secs(120);

impl Pulse {
    /// How far the session is at `now`.
    pub fn phase(&self, usage: &Usage, now: Timestamp) -> Phase {
        let fresh = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) < FRESH);
        if self.closed {
            Phase::Closed
        } else if !self.answered {
            Phase::Handshake
        } else if now.since(usage.last_seen) >= QUIET {
            Phase::Idle
        } else if fresh(self.payload) {
            Phase::Data
        } else if fresh(self.keepalive) {
            Phase::Keepalive
        } else {
            Phase::Established
        }
    }
}

/// When a session began and was last heard of, and what it carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its first packet.
    pub created: Timestamp,
    /// Its last packet, either way.
    pub last_seen: Timestamp,
    /// Packets: outbound, inbound.
    pub packets: [u64; 2],
    /// Bytes behind the IPv4 header of protocols without ports, behind the UDP header otherwise: outbound,
    /// inbound.
    pub bytes: [u64; 2],
}

impl Usage {
    /// A session that begins at `now` and has carried nothing.
    pub const fn new(now: Timestamp) -> Self {
        Self { created: now, last_seen: now, packets: [0; 2], bytes: [0; 2] }
    }

    /// Counts `packets` of `bytes` in all, the last of them at `now`.
    pub fn add(&mut self, now: Timestamp, direction: Direction, packets: u64, bytes: u64) {
        let [outbound, inbound] = &mut self.packets;
        let [bytes_out, bytes_in] = &mut self.bytes;
        let (count, sum) = match direction {
            Direction::Outbound => (outbound, bytes_out),
            Direction::Inbound => (inbound, bytes_in),
        };
        *count = count.saturating_add(packets);
        *sum = sum.saturating_add(bytes);
        self.last_seen = self.last_seen.max(now);
    }

    /// Counts one packet of `len` bytes.
    pub fn count(&mut self, now: Timestamp, direction: Direction, len: usize) {
        self.add(now, direction, 1, u64::try_from(len).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_is_counted_apart_and_time_does_not_run_back() {
        let at = Timestamp::from_secs;
        let mut usage = Usage::new(at(1));
        usage.count(at(3), Direction::Outbound, 100);
        usage.add(at(2), Direction::Inbound, 2, 30);
        let whole = Usage { created: at(1), last_seen: at(3), packets: [1, 2], bytes: [100, 30] };
        assert_eq!(usage, whole);
    }
}
