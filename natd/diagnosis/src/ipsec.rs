//! IPsec.

use nat_core::time::Timestamp;

use crate::finding::Findings;
use crate::household::Context;
use crate::observation::{IcmpReport, Observation, Passage, Trace};
use crate::session::Session;

/// What was seen of IPsec between a device and a server.
#[derive(Debug, Default)]
pub struct Tracker {}

impl Tracker {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        let _ = seen;
    }

    /// Takes note of an ICMP error about one of its packets.
    pub fn error(&mut self, report: &IcmpReport) {
        let _ = report;
    }

    /// Takes note of what became of a packet inside the router.
    pub fn passage(&mut self, trace: &Trace, passage: Passage) {
        let _ = (trace, passage);
    }

    /// What is wrong.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        let _ = (context, findings);
    }

    /// The sessions; device and server are filled in later.
    pub fn sessions(&self, now: Timestamp, sessions: &mut Vec<Session>) {
        let _ = (now, sessions);
    }
}
