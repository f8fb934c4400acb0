//! The addresses of a lab; documentation ranges for the internet, 192.168/16 for the household.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The router on its first LAN.
pub const ROUTER_LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// First device.
pub const D1: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
/// Second device.
pub const D2: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 12);
/// Third device.
pub const D3: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 13);
/// The device with this number on the first LAN, counted from 1.
///
/// # Panics
/// Above 80: another machine has the address.
pub const fn device(number: u8) -> Ipv4Addr {
    assert!(number <= 80, "addresses from .99 on are taken");
    Ipv4Addr::new(192, 168, 1, 10 + number)
}
/// An address on the first LAN that no machine has.
pub const SWITCHED_OFF: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 99);
/// The router on its second LAN.
pub const ROUTER_IOT: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 1);
/// The device on the second LAN.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 21);
/// The router's WAN address unless the builder says otherwise.
pub const WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A second address for the WAN, for tests in which it changes.
pub const WAN_AFTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// The router's next hop.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
/// The internet's router on the link to the third server.
pub const FAR_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// First server.
pub const S1: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Second server.
pub const S2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
/// The server behind another hop.
pub const S3: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A router somewhere that nobody knows.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);

/// `addr:port`.
pub const fn at(addr: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(addr, port)
}

/// Does `addr` belong to the household?
pub const fn is_lan(addr: Ipv4Addr) -> bool {
    let [a, b, _, _] = addr.octets();
    a == 192 && b == 168
}
