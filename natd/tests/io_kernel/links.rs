//! Links and addresses as the kernel shows them, and packets sent by hand.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use nat_core::decision::InterfaceAddress;
use natd::io::netlink::{Links, Scope};
use natd::io::transmit::Transmitter;

use crate::lab::{LAN, Lab, Namespace, PATIENCE, SILENCE, WAN, packet, possible, receive};
use crate::queue::readable;

#[test]
fn links_and_addresses_are_seen_and_followed() {
    if !possible() {
        return;
    }
    let namespace = Namespace::new("links");
    let mut links = namespace.enter(|| Links::open().unwrap());
    namespace.ip("link add wan0 type veth peer name far0");
    namespace.ip("link set wan0 mtu 1400");
    for address in ["169.254.7.7/16 scope link", "198.51.100.7/24", "198.51.100.8/24", "203.0.113.5/25"] {
        namespace.ip(&format!("addr add {address} dev wan0"));
    }
    assert!(links.drain());
    assert!(!links.drain());

    let before = links.snapshot().unwrap();

    let wan = before.named("wan0").unwrap();
    assert_eq!(
        (wan.up, wan.running, wan.mtu, wan.master, wan.ipv6_global),
        (false, false, 1400, None, false)
    );
    let order: Vec<_> = wan
        .addresses
        .iter()
        .map(|a| (a.address.addr.octets()[3], a.address.prefix, a.scope, a.secondary))
        .collect();
    assert_eq!(
        order,
        [
            (7, 24, Scope::Global, false),
            (5, 25, Scope::Global, false),
            (8, 24, Scope::Global, true),
            (7, 16, Scope::Link, false)
        ]
    );
    let address = |d, prefix| Some(InterfaceAddress { addr: d, prefix });
    assert_eq!(wan.address(), address(Ipv4Addr::new(198, 51, 100, 7), 24));
    assert_eq!(before.numbered(wan.index), Some(wan));

    namespace.ip("addr flush dev wan0");
    namespace.ip("addr add 203.0.113.9 peer 203.0.113.1/32 dev wan0");
    namespace.ip("-6 addr add fd00::1/64 dev wan0 nodad");
    namespace.ip("link set wan0 up");
    namespace.ip("link set far0 up");
    assert!(readable(links.fd().as_raw_fd(), PATIENCE));
    assert!(links.drain());
    let after = links.snapshot().unwrap();
    let wan = after.named("wan0").unwrap();
    assert_eq!((wan.up, wan.running, wan.ipv6_global), (true, true, false));
    assert_eq!(wan.address(), address(Ipv4Addr::new(203, 0, 113, 9), 32), "the near end, not the peer");

    namespace.ip("-6 addr add 2001:db8::1/64 dev wan0 nodad");
    namespace.ip("link add br0 type bridge");
    namespace.ip("link set far0 master br0");
    let last = links.snapshot().unwrap();
    assert!(last.named("wan0").unwrap().ipv6_global);
    assert_eq!(last.named("far0").unwrap().master, Some(last.named("br0").unwrap().index));
    namespace.ip("link del wan0");
    assert!(links.drain());
    assert_eq!(links.snapshot().unwrap().named("wan0"), None);
}

#[test]
fn lost_events_count_as_a_change() {
    if !possible() {
        return;
    }
    let namespace = Namespace::new("events");
    let mut links = namespace.enter(|| Links::open().unwrap());
    let small: libc::c_int = 1;
    // SAFETY: pointer and length describe `small`.
    unsafe {
        let fd = links.fd().as_raw_fd();
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const small).cast(), 4);
    }
    for _ in 0..4 {
        namespace.ip("link add wan0 type veth peer name far0");
        namespace.ip("link del wan0");
    }
    assert!(links.drain());
    assert!(!links.drain());
    namespace.ip("addr add 192.0.2.77/32 dev lo");
    assert!(links.drain(), "it listens on");
}

#[test]
fn own_packets_are_marked_and_arrive_as_they_were_made() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    lab.router.nft(
        "table ip marks {
            chain out {
                type filter hook output priority 0
                meta mark & 0x0f000000 != 0x04000000 drop
            }
        }",
    );
    let transmitter = lab.router.enter(|| Transmitter::open().unwrap());
    let device = lab.lan.raw(libc::IPPROTO_ICMP);
    // From an address that is not the router's: an error in the name of a server.
    let unreachable = packet(1, WAN, LAN, vec![3, 13, 0, 0, 0, 0, 0, 0], 2);

    transmitter.send(&unreachable).unwrap();

    let received = receive(&device, PATIENCE).unwrap();
    assert_eq!(received[12..], unreachable[12..]);
    assert_eq!(received[8], 64, "sent by the router itself, not forwarded");
    let nowhere = packet(1, WAN, Ipv4Addr::new(203, 0, 113, 1), vec![3, 13, 0, 0, 0, 0, 0, 0], 2);
    let error = transmitter.send(&nowhere).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
    lab.router.nft("add rule ip marks out drop");
    let error = transmitter.send(&unreachable).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(receive(&device, SILENCE), None);
}

#[test]
fn own_packets_larger_than_the_link_arrive_whole_unless_they_must_not_be_cut() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    lab.router.ip("link set lan0 mtu 1280");
    lab.lan.nft(
        "table ip t {
            counter fragments { }
            chain early {
                type filter hook prerouting priority -500
                ip frag-off & 0x3fff != 0 counter name fragments
            }
        }",
    );
    let transmitter = lab.router.enter(|| Transmitter::open().unwrap());
    let device = lab.lan.raw(50);
    let large = |id: u8, flags: u8, number: u8| {
        let mut esp = packet(50, WAN, LAN, vec![number; 3000], 0);
        (esp[5], esp[6]) = (id, flags);
        esp
    };
    // Too large for the link in any case until the daemon says what the link carries.
    let error = transmitter.send(&large(7, 0, 1)).unwrap_err();
    assert_eq!((error.raw_os_error(), transmitter.too_large()), (Some(libc::EMSGSIZE), 1));
    transmitter.set_mtu(1280);

    for (id, number) in [(7, 2), (0, 3), (0, 4)] {
        transmitter.send(&large(id, 0, number)).unwrap();
        let received = receive(&device, PATIENCE).unwrap();
        assert_eq!(received.len(), 3020);
        assert_eq!(received[22..], large(id, 0, number)[22..]);
        let arrived = u16::from_be_bytes([received[4], received[5]]);
        assert!(if id == 0 { arrived != 0 } else { arrived == 7 }, "{arrived}");
    }
    assert!(lab.lan.run("nft list counter ip t fragments").contains("packets 9 "));

    let error = transmitter.send(&large(7, 0x40, 5)).unwrap_err();
    assert_eq!((error.raw_os_error(), transmitter.too_large()), (Some(libc::EMSGSIZE), 2));
    assert_eq!(receive(&device, SILENCE), None);
}
