//! VPN sessions as they are reported.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use nat_core::time::Timestamp;

/// A VPN protocol, or a part of one that has a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vpn {
    /// IKE (RFC 7296), UDP 500.
    Ike,
    /// IKE and ESP behind a NAT (RFC 3948), UDP 4500.
    NatTraversal,
    /// ESP (RFC 4303) as it is.
    Esp,
    /// L2TP (RFC 2661), UDP 1701.
    L2tp,
    /// L2TPv3 (RFC 3931), protocol 115.
    L2tpV3,
    /// PPTP's control connection (RFC 2637), TCP 1723.
    Pptp,
    /// GRE (RFC 2784) other than PPTP's.
    Gre,
    /// OpenVPN, UDP or TCP 1194.
    OpenVpn,
    /// WireGuard, UDP 51820.
    WireGuard,
}

impl Vpn {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ike => "IKE",
            Self::NatTraversal => "IPsec NAT-T",
            Self::Esp => "IPsec ESP",
            Self::L2tp => "L2TP",
            Self::L2tpV3 => "L2TPv3",
            Self::Pptp => "PPTP",
            Self::Gre => "GRE",
            Self::OpenVpn => "OpenVPN",
            Self::WireGuard => "WireGuard",
        }
    }
}

/// How far a VPN session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The two sides have not agreed yet.
    Handshake,
    /// They have; no payload yet.
    Established,
    /// Payload flows.
    Data,
    /// Only keepalives flow.
    Keepalive,
    /// Nothing for two minutes.
    Idle,
    /// New keys are being agreed on.
    Rekey,
    /// It is over.
    Closed,
}

impl Phase {
    /// Its name in reports.
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

    /// Why a session is over of which no more is known.
    pub(crate) fn reason(self) -> &'static str {
        if self == Self::Closed { "ended" } else { "" }
    }
}

/// How it is known whose an inbound SPI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// No other device could be meant.
    Evidence,
    /// It is not: each of several devices gets the packets.
    FanOut,
    /// Only one device sends ESP there, but its key exchange was not seen.
    Guess,
    /// The owner's forward leads there.
    Forward,
    /// It was in use before natd started, and only one device was.
    Restart,
}

impl Learned {
    /// Its name in reports.
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

/// Numbers by which a session is told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// "ike", "spi", "call", "tunnel", "session" or "key".
    pub what: &'static str,
    /// What the device chose.
    pub inside: Option<u64>,
    /// What stands for it on the WAN.
    pub outside: Option<u64>,
    /// What the other side chose.
    pub remote: Option<u64>,
    /// For an SPI.
    pub learned: Option<Learned>,
}

/// A VPN session as reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelView {
    /// Its protocol.
    pub vpn: Vpn,
    /// The device on the LAN.
    pub device: Ipv4Addr,
    /// The other side.
    pub server: Ipv4Addr,
    /// How far it is.
    pub phase: Phase,
    /// Why it is over; empty while it is not.
    pub reason: &'static str,
    /// Its first packet.
    pub created: Timestamp,
    /// Its last packet.
    pub last_seen: Timestamp,
    /// Packets outbound and inbound.
    pub packets: [u64; 2],
    /// Bytes outbound and inbound.
    pub bytes: [u64; 2],
    /// Its numbers.
    pub ids: Vec<Ids>,
    /// What its owner should know; mostly empty.
    pub remark: &'static str,
}

impl TunnelView {
    /// Takes a part of the session into account.
    pub(crate) fn add(&mut self, created: Timestamp, last: Timestamp, packets: [u64; 2], bytes: [u64; 2]) {
        self.created = self.created.min(created);
        self.last_seen = self.last_seen.max(last);
        for (sum, part) in self.packets.iter_mut().zip(packets) {
            *sum += part;
        }
        for (sum, part) in self.bytes.iter_mut().zip(bytes) {
            *sum += part;
        }
    }
}
