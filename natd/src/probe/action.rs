//! What is asked of natd::io::probe.

use std::net::IpAddr;

use nat_core::time::Timestamp;

/// Which server is asked from where.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name, where it was named by one.
    pub name: Option<String>,
    /// The server.
    pub server: IpAddr,
    /// Our address on the way there.
    pub local: IpAddr,
    /// Of the interface on the way there, in bytes.
    pub mtu: u16,
    /// Is this machine a router?
    pub routes: bool,
    /// Our UDP ports, by [`Slot`].
    pub ports: [u16; Slot::COUNT],
}

/// What a UDP port of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// IKE to port 500.
    Ike500,
    /// IKE to port 4500.
    Ike4500,
    /// IKE in one large packet.
    Large,
    /// IKE in fragments.
    Fragmented,
    /// The ladder's UDP.
    Ladder,
    /// L2TP.
    L2tp,
    /// OpenVPN.
    OpenVpn,
    /// IKE that measures the path's MTU.
    Mtu,
}

impl Slot {
    /// How many there are.
    pub const COUNT: usize = 8;
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::Ike500,
        Self::Ike4500,
        Self::Large,
        Self::Fragmented,
        Self::Ladder,
        Self::L2tp,
        Self::OpenVpn,
        Self::Mtu,
    ];
}

/// What a packet is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP from the port of this slot to the server's port.
    Udp(Slot, u16),
    /// IP protocol 50.
    Esp,
    /// IP protocol 47.
    Gre,
    /// ICMP.
    Icmp,
}

/// May a packet be cut on its way?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// It may.
    Allowed,
    /// It may not (DF).
    Forbidden,
}

/// A packet to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What it is sent in.
    pub carrier: Carrier,
    /// Its time to live, where it is not the usual one.
    pub hops: Option<u8>,
    /// May it be cut?
    pub cutting: Cutting,
    /// What the carrier carries.
    pub bytes: Vec<u8>,
}

/// A TCP service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// PPTP's control connection.
    Pptp,
    /// TLS, as SSTP and others use it.
    Tls,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Pptp, Self::Tls];

    /// Its port.
    pub const fn port(self) -> u16 {
        match self {
            Self::Pptp => 1723,
            Self::Tls => 443,
        }
    }
}

/// Why there is no connection, or none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was refused or reset.
    Reset,
    /// The server closed it.
    Closed,
    /// There is no way there.
    Unreachable,
    /// This machine forbids it.
    Forbidden,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Outgoing),
    /// Connect.
    Connect(Service),
    /// Write this to the connection.
    Write(Service, Vec<u8>),
    /// Close the connection, where there is one.
    Close(Service),
    /// Nothing until then, unless something comes.
    Wait(Timestamp),
    /// Nothing any more.
    Done,
}
