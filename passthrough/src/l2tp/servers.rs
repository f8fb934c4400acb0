//! Servers that answer to port 1701 alone.

use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::time::Timestamp;

use crate::sorted::SortedMap;

/// How that is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It was seen.
    Seen,
    /// It did not answer to another port; it may as well have been down.
    Silent,
}

#[derive(Debug)]
struct Memory {
    evidence: Evidence,
    until: Timestamp,
}

const SEEN_MEMORY: Duration = Duration::from_secs(24 * 3600);
const SILENT_MEMORY: Duration = Duration::from_secs(3600);
/// Most servers remembered.
pub(super) const MAX_MEMORIES: usize = 256;

/// What is remembered of servers.
#[derive(Debug, Default)]
pub(super) struct Servers(SortedMap<Ipv4Addr, Memory>);

impl Servers {
    pub(super) fn evidence(&self, server: Ipv4Addr) -> Option<Evidence> {
        self.0.get(&server).map(|memory| memory.evidence)
    }

    /// Remembers `server`, in the place of the one that would be forgotten first if there is no room. Answers
    /// until when.
    pub(super) fn remember(&mut self, now: Timestamp, server: Ipv4Addr, evidence: Evidence) -> Timestamp {
        let until = match evidence {
            Evidence::Seen => now + SEEN_MEMORY,
            Evidence::Silent => now + SILENT_MEMORY,
        };
        if let Some(known) = self.0.get(&server).filter(|known| known.evidence == Evidence::Seen) {
            if evidence == Evidence::Silent {
                return known.until;
            }
        }
        if self.0.len() >= MAX_MEMORIES && !self.0.contains_key(&server) {
            let first = self.0.iter().min_by_key(|(_, memory)| memory.until).map(|(&server, _)| server);
            first.and_then(|server| self.0.remove(&server));
        }
        self.0.insert(server, Memory { evidence, until });
        until
    }

    /// A server answers to another port after all, or to none.
    pub(super) fn forget_silence(&mut self, server: Ipv4Addr) {
        if self.evidence(server) == Some(Evidence::Silent) {
            self.0.remove(&server);
        }
    }

    /// Forgets what is too old, and answers when the next one will be.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.0.retain(|_, memory| memory.until > now);
        self.0.values().map(|memory| memory.until).min()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
