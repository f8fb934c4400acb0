//! VPN sessions as they are logged and reported.

use std::net::IpAddr;

use nat_core::time::Timestamp;
use passthrough::view::{Phase, Vpn};

/// A VPN session, from its first packet to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its protocol.
    pub vpn: Vpn,
    /// The device.
    pub device: IpAddr,
    /// The other side.
    pub server: IpAddr,
    /// Tells the attempts and sessions of one tracker apart; counts up. The same as in findings.
    pub attempt: u32,
    /// How far it is.
    pub phase: Phase,
    /// Why it is over: few words, e.g. "closed by the server", "no answer"; empty while it is not.
    pub reason: &'static str,
    /// Its first packet.
    pub since: Timestamp,
    /// Its last packet.
    pub last_seen: Timestamp,
    /// Packets outbound and inbound, as far as they were seen or counted.
    pub packets: [u64; 2],
    /// IP bytes outbound and inbound, as far as they were seen.
    pub bytes: [u64; 2],
}

/// A session began, changed its phase, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEvent {
    /// When that was noticed.
    pub at: Timestamp,
    /// The phase before; `None`: it began.
    pub before: Option<Phase>,
    /// The session now.
    pub session: Session,
}
