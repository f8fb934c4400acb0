//! What natd knows of VPN protocols.
//!
//! For now: which VPN a conversation is by its ports, so that reports can call it by its name. Ports are a
//! convention, not a proof; what the packets say is looked at when passthrough is.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod pptp;

use nat_core::flow::Protocol;

/// A VPN protocol, or a part of one that has a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vpn {
    /// IKE (RFC 7296), UDP 500.
    Ike,
    /// IKE and ESP behind a NAT (RFC 3948), UDP 4500.
    NatTraversal,
    /// L2TP (RFC 2661), UDP 1701.
    L2tp,
    /// PPTP's control connection (RFC 2637), TCP 1723.
    Pptp,
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
            Self::L2tp => "L2TP",
            Self::Pptp => "PPTP",
            Self::OpenVpn => "OpenVPN",
            Self::WireGuard => "WireGuard",
        }
    }
}

/// The VPN that a conversation's ports speak of: the remote one, or the device's own where a device serves.
pub fn by_port(protocol: Protocol, internal: u16, remote: u16) -> Option<Vpn> {
    let known = |port| match (protocol, port) {
        (Protocol::Udp, 500) => Some(Vpn::Ike),
        (Protocol::Udp, 4500) => Some(Vpn::NatTraversal),
        (Protocol::Udp, 1701) => Some(Vpn::L2tp),
        (Protocol::Tcp, 1723) => Some(Vpn::Pptp),
        (Protocol::Tcp | Protocol::Udp, 1194) => Some(Vpn::OpenVpn),
        (Protocol::Udp, 51820) => Some(Vpn::WireGuard),
        (Protocol::Tcp | Protocol::Udp | Protocol::Icmp, _) => None,
    };
    known(remote).or_else(|| known(internal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vpn_is_named_by_its_server_s_port_or_the_device_s_own() {
        assert_eq!(by_port(Protocol::Udp, 40_000, 500), Some(Vpn::Ike));
        assert_eq!(by_port(Protocol::Udp, 51_820, 40_000), Some(Vpn::WireGuard));
        assert_eq!(by_port(Protocol::Tcp, 40_000, 500), None);
        assert_eq!(by_port(Protocol::Udp, 1723, 1723), None);
    }
}
