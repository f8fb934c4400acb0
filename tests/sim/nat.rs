//! What a NAT is to the simulation.

use std::time::Duration;

/// A packet that leaves the NAT: a whole IPv4 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    ToWan(Vec<u8>),
    /// Its destination address names the device.
    ToLan(Vec<u8>),
}

/// A NAT between 192.168.1.0/24 and the WAN address [`crate::wire::WAN`].
pub(crate) trait NatUnderTest {
    /// A LAN packet on its way out; what leaves now on either side goes to `out`.
    fn outbound(&mut self, now: Duration, packet: &[u8], out: &mut Vec<Sent>);
    /// A WAN packet on its way in.
    fn inbound(&mut self, now: Duration, packet: &[u8], out: &mut Vec<Sent>);
    /// When it wants [`NatUnderTest::handle_timeout`] to be called.
    fn poll_timeout(&mut self) -> Option<Duration>;
    fn handle_timeout(&mut self, now: Duration, out: &mut Vec<Sent>);
    /// Its process is restarted: it forgets everything but what it can get back itself.
    fn restart(&mut self, now: Duration);
    /// Counters to print: evidence, guess, fan-out, hold, drop.
    fn shares(&self) -> Vec<(&'static str, u64)>;
}
