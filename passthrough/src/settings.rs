//! What the owner decides about VPN passthrough: plain values, already checked.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

/// An IPv4 network; a single host is a /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The network's address.
    pub addr: Ipv4Addr,
    /// Length in bits, 0 to 32.
    pub len: u8,
}

impl Prefix {
    /// Is `addr` in it?
    pub const fn contains(self, addr: Ipv4Addr) -> bool {
        let differing = self.addr.to_bits() ^ addr.to_bits();
        // A shift by 32 leaves nothing to compare, which checked_shr says by None.
        match 32_u32.checked_sub(self.len as u32) {
            Some(host) => matches!(differing.checked_shr(host), None | Some(0)),
            None => differing == 0,
        }
    }
}

/// Who may use one kind of VPN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `false` refuses it to everyone.
    pub on: bool,
    /// The devices that may; empty: all.
    pub devices: Vec<Prefix>,
    /// The servers that they may use; empty: all.
    pub servers: Vec<Prefix>,
}

impl Access {
    const fn new(on: bool) -> Self {
        Self { on, devices: Vec::new(), servers: Vec::new() }
    }

    /// May `device` use this kind of VPN with `server`?
    pub fn allows(&self, device: Ipv4Addr, server: Ipv4Addr) -> bool {
        let among =
            |list: &[Prefix], addr| list.is_empty() || list.iter().any(|prefix| prefix.contains(addr));
        self.on && among(&self.devices, device) && among(&self.servers, server)
    }
}

/// A protocol without ports that carries a VPN's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// ESP (RFC 4303).
    Esp,
    /// GRE (RFC 2784, RFC 2890; version 1: RFC 2637).
    Gre,
    /// L2TPv3 directly over IP (RFC 3931 section 4.1.1).
    L2tpIp,
}

impl Carrier {
    /// Its IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Esp => 50,
            Self::Gre => 47,
            Self::L2tpIp => 115,
        }
    }

    /// What the configuration calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Esp => "esp",
            Self::Gre => "gre",
            Self::L2tpIp => "l2tpv3",
        }
    }
}

/// A VPN server on the LAN: what arrives by `carrier` and belongs to nobody else goes to `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsideServer {
    /// The protocol.
    pub carrier: Carrier,
    /// The device.
    pub host: Ipv4Addr,
}

/// Which traffic is natd's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everything that leaves by the WAN.
    #[default]
    All,
    /// VPN protocols; the kernel's own NAT keeps the rest.
    Vpn,
}

/// Everything the owner decides about VPN passthrough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which traffic is natd's.
    pub scope: Scope,
    /// IPsec: UDP 500 and 4500, ESP and AH.
    pub ipsec: Access,
    /// PPTP: TCP 1723 and GRE version 1.
    pub pptp: Access,
    /// L2TP: UDP 1701 and IP protocol 115.
    pub l2tp: Access,
    /// May more than one device use the same server at the same time?
    pub multi: bool,
    /// To how many devices an ESP packet may go that could be any of theirs; at most 8, and 0 sends it to
    /// nobody.
    pub fan_out: u8,
    /// How long an ESP packet waits for what tells whose it is; at most 5 s, and 0 does not hold it.
    pub hold: Duration,
    /// How long silent ESP is remembered.
    pub esp_idle: Duration,
    /// How long silent keyed GRE or L2TPv3 over IP is remembered. GRE of PPTP lives as long as its control
    /// connection.
    pub gre_idle: Duration,
    /// VPN servers on the LAN, at most one for each carrier.
    pub servers: Vec<InsideServer>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scope: Scope::default(),
            ipsec: Access::new(true),
            pptp: Access::new(false),
            l2tp: Access::new(true),
            multi: true,
            fan_out: 8,
            hold: Duration::from_secs(1),
            esp_idle: Duration::from_secs(3600),
            gre_idle: Duration::from_secs(600),
            servers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn prefix(addr: [u8; 4], len: u8) -> Prefix {
        Prefix { addr: Ipv4Addr::new(addr[0], addr[1], addr[2], addr[3]), len }
    }

    #[test]
    fn a_prefix_holds_the_addresses_that_share_its_bits() {
        let rows = [
            (prefix([192, 168, 1, 0], 24), [192, 168, 1, 255], true),
            (prefix([192, 168, 1, 0], 24), [192, 168, 2, 0], false),
            (prefix([192, 168, 1, 10], 32), [192, 168, 1, 10], true),
            (prefix([192, 168, 1, 10], 32), [192, 168, 1, 11], false),
            (prefix([128, 0, 0, 0], 1), [255, 255, 255, 255], true),
            (prefix([128, 0, 0, 0], 1), [127, 255, 255, 255], false),
            (prefix([0, 0, 0, 0], 0), [203, 0, 113, 7], true),
            (prefix([203, 0, 113, 7], 33), [203, 0, 113, 6], false),
        ];
        for (prefix, addr, expected) in rows {
            assert_eq!(prefix.contains(addr.into()), expected, "{prefix:?} {addr:?}");
        }
    }

    #[test]
    fn an_empty_list_lets_everyone_and_off_nobody() {
        let (device, other) = (Ipv4Addr::new(192, 168, 1, 10), Ipv4Addr::new(192, 168, 1, 11));
        let (server, elsewhere) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
        let mut access = Access::new(true);
        assert!(access.allows(device, server) && access.allows(other, elsewhere));
        access.devices = Vec::from([prefix([192, 168, 1, 10], 32)]);
        assert!(access.allows(device, elsewhere) && !access.allows(other, server));
        access.servers = Vec::from([prefix([203, 0, 113, 0], 24), prefix([198, 51, 100, 0], 31)]);
        assert!(access.allows(device, server) && !access.allows(device, elsewhere));
        access.on = false;
        assert!(!access.allows(device, server));
    }
}
