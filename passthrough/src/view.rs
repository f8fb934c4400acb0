//! VPN sessions as reports show them.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use nat_core::time::Timestamp;

use crate::Vpn;

/// How far a VPN session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The two sides are finding out who they are.
    Handshake,
    /// Both sides are agreed; no data yet.
    Established,
    /// Data flows.
    Data,
    /// Nothing but keepalives.
    Keepalive,
    /// Nothing at all.
    Idle,
    /// New keys are being agreed on beside the old ones.
    Rekey,
    /// It has ended.
    Closed,
}

impl Phase {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Established => "established",
            Self::Data => "data",
            Self::Keepalive => "keepalive",
            Self::Idle => "idle",
            Self::Rekey => "rekey",
            Self::Closed => "closed",
        }
    }
}

/// How it became known whose an inbound SPI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// What IKE and ESP showed left one device only.
    Evidence,
    /// A packet went to several devices, and one of them answered.
    FanOut,
    /// The likeliest of several devices.
    Guess,
    /// The owner has forwarded it to this device.
    Forward,
    /// Taken up in the middle of a session, after a restart of natd.
    Restart,
}

impl Learned {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::FanOut => "fan-out",
            Self::Guess => "guess",
            Self::Forward => "forward",
            Self::Restart => "restart",
        }
    }
}

/// The identifiers of one direction pair; what is not known is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// What they are: `spi`, `call`, `tunnel`, `session`, `key` or `ike`.
    pub what: &'static str,
    /// By which the device is addressed.
    pub inside: Option<u64>,
    /// What stands for it on the WAN; the same where it is not translated.
    pub outside: Option<u64>,
    /// By which the server is addressed.
    pub remote: Option<u64>,
    /// How `inside` became known, where it had to be learned.
    pub learned: Option<Learned>,
}

/// A VPN session as reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelView {
    /// The protocol.
    pub vpn: Vpn,
    /// The device on the LAN.
    pub device: Ipv4Addr,
    /// The other side.
    pub server: Ipv4Addr,
    /// How far it is.
    pub phase: Phase,
    /// Why it is closed; otherwise empty.
    pub reason: &'static str,
    /// When its first packet came.
    pub created: Timestamp,
    /// When its latest packet came.
    pub last_seen: Timestamp,
    /// Packets: outbound, inbound.
    pub packets: [u64; 2],
    /// Bytes of those packets, IPv4 headers included: outbound, inbound.
    pub bytes: [u64; 2],
    /// Its identifiers, the newest first.
    pub ids: Vec<Ids>,
    /// What its owner should know; mostly empty.
    pub remark: &'static str,
}
