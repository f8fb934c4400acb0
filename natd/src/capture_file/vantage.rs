//! What can be seen in a capture, told from its first packets.

use std::net::IpAddr;

use diagnosis::household::is_within;
use diagnosis::{Fragment, Packet, Point, Vantage};

use crate::order;

/// Looks at packets only to learn where they were captured.
///
/// Somebody is taken to have captured on both sides of the NAT if the same remote host speaks with an address of
/// the LAN and with another one. Too little said is better than too much: a side wrongly believed to be watched
/// makes packets look lost.
pub(super) struct Scout<'a> {
    lan: &'a [(IpAddr, u8)],
    marked: [bool; 2],
    /// Hosts that speak with the LAN, sorted.
    with_lan: Vec<IpAddr>,
    /// Hosts that speak with hosts elsewhere, sorted.
    with_wan: Vec<IpAddr>,
    dns: bool,
}

/// Enough to learn it from.
const HOSTS: usize = 4096;

impl<'a> Scout<'a> {
    pub(super) fn new(lan: &'a [(IpAddr, u8)]) -> Self {
        Self { lan, marked: [false; 2], with_lan: Vec::new(), with_wan: Vec::new(), dns: false }
    }

    /// What is assumed of packets that can be read only once.
    pub(super) fn unseen() -> Vantage {
        Vantage { lan: true, wan: false, router: false, dns: true }
    }

    pub(super) fn see(&mut self, point: Option<Point>, packet: &Packet<'_>) {
        self.dns |= is_dns(packet);
        match point {
            Some(Point::Lan) => self.marked[0] = true,
            Some(Point::Wan) => self.marked[1] = true,
            Some(Point::Unknown) | None => {}
        }
        let (src, dst) = (packet.src, packet.dst);
        if !is_unicast(src) || !is_unicast(dst) {
            return;
        }
        let hosts: &[IpAddr] = match (self.is_lan(src), self.is_lan(dst)) {
            // Within the LAN, or on a WAN that is somebody else's LAN: says nothing.
            (Some(true), Some(true)) | (None, _) | (_, None) => return,
            (Some(true), Some(false)) => &[dst],
            (Some(false), Some(true)) => &[src],
            (Some(false), Some(false)) => &[src, dst],
        };
        let set = if hosts.len() == 1 { &mut self.with_lan } else { &mut self.with_wan };
        for &host in hosts {
            if set.len() < HOSTS {
                order::insert(set, host);
            }
        }
    }

    pub(super) fn vantage(&self) -> Vantage {
        let (lan, wan) = match self.marked {
            [false, false] if self.with_lan.is_empty() && !self.with_wan.is_empty() => (false, true),
            // natd's own recording has both, though one may have nothing in it: what the router refuses is on
            // the LAN only.
            [true, _] | [_, true] => (true, true),
            [false, false] => {
                (true, self.with_lan.iter().any(|host| self.with_wan.binary_search(host).is_ok()))
            }
        };
        Vantage { lan, wan, router: false, dns: self.dns }
    }

    /// `None`: cannot be told. IPv6 addresses are the same on both sides.
    fn is_lan(&self, addr: IpAddr) -> Option<bool> {
        if !self.lan.is_empty() {
            return Some(self.lan.iter().any(|&(network, len)| is_within(addr, network, len)));
        }
        match addr {
            IpAddr::V4(addr) => Some(addr.is_private()),
            IpAddr::V6(_) => None,
        }
    }
}

fn is_unicast(addr: IpAddr) -> bool {
    let special = match addr {
        IpAddr::V4(addr) => addr.is_broadcast() || addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    !special && !addr.is_multicast() && !addr.is_unspecified() && !addr.is_loopback()
}

fn is_dns(packet: &Packet<'_>) -> bool {
    packet.protocol == 17
        && packet.fragment != Fragment::Later
        && matches!(packet.payload, [0, 53, ..] | [_, _, 0, 53, ..])
}
