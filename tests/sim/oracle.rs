//! A NAT that reads the notes that no NAT can read: what the hosts can do when the NAT makes no mistake.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::nat::{NatUnderTest, Sent};
use crate::wire::{self, IKE_PORT, Packet, WAN, device};

/// Knows for whom each packet is.
#[derive(Default)]
pub(crate) struct Oracle {
    /// IKE leaves from a port of each device's own instead of 500.
    pub(crate) translates_ports: bool,
    pub(crate) delivered: BTreeMap<&'static str, u64>,
}

impl NatUnderTest for Oracle {
    fn outbound(&mut self, _now: Duration, packet: &[u8], out: &mut Vec<Sent>) {
        let Some(seen) = Packet::parse(packet) else { return };
        let port = IKE_PORT + u16::from(self.translates_ports) * 1000 * (1 + u16::from(seen.note.client));
        out.push(Sent::ToWan(wire::readdress(packet, Some((WAN, port)), None)));
    }

    fn inbound(&mut self, _now: Duration, packet: &[u8], out: &mut Vec<Sent>) {
        let Some(seen) = Packet::parse(packet) else { return };
        *self.delivered.entry("delivered").or_default() += 1;
        out.push(Sent::ToLan(wire::readdress(packet, None, Some((device(seen.note.client), IKE_PORT)))));
    }

    fn poll_timeout(&mut self) -> Option<Duration> {
        None
    }

    fn handle_timeout(&mut self, _now: Duration, _out: &mut Vec<Sent>) {}

    fn restart(&mut self, _now: Duration) {}

    fn shares(&self) -> Vec<(&'static str, u64)> {
        self.delivered.iter().map(|(&name, &count)| (name, count)).collect()
    }
}
