//! Interfaces and their addresses, by rtnetlink.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use nat_core::decision::InterfaceAddress;

use crate::order;

use super::message::{Message, ne32};
use super::socket::{Socket, flags};

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_SECONDARY: u32 = 0x1;
const IFF_UP: u32 = 0x1;
const IFF_RUNNING: u32 = 0x40;

/// A dump that changes under our hands is repeated this often.
const ATTEMPTS: usize = 4;

/// Where an address is valid (`rtm_scope`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// Within the site; unused in practice.
    Site,
    /// On this link only (169.254/16).
    Link,
    /// On this host only (127/8).
    Host,
    /// Something else.
    Other(u8),
}

impl Scope {
    /// Widest first.
    fn rank(self) -> u16 {
        match self {
            Self::Global => 0,
            Self::Site => 1,
            Self::Link => 2,
            Self::Host => 3,
            Self::Other(scope) => 4 + u16::from(scope),
        }
    }
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address and its prefix length.
    pub address: InterfaceAddress,
    /// Where it is valid.
    pub scope: Scope,
    /// Is it a further one in the prefix of another, so not the one that the kernel would use as source?
    pub secondary: bool,
}

/// A network interface as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it; a link that is made anew (PPPoE) gets a new one.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Switched on?
    pub up: bool,
    /// Able to carry packets (cable in, session established)?
    pub running: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// The index of the bridge or bond that it is a port of: then packets arrive from that one instead.
    pub master: Option<u32>,
    /// Its IPv4 addresses; global primary ones first, then global secondary ones, then the others.
    pub addresses: Vec<Address>,
    /// Has it a global IPv6 address (natd does not touch IPv6)?
    pub ipv6_global: bool,
}

impl Interface {
    /// Its first global primary address: what a WAN interface is known by on the internet.
    pub fn address(&self) -> Option<InterfaceAddress> {
        let global = |address: &&Address| address.scope == Scope::Global;
        self.addresses.iter().find(global).map(|address| address.address)
    }
}

/// All interfaces at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// In the kernel's order.
    pub list: Vec<Interface>,
}

impl Interfaces {
    /// The interface called `name`.
    pub fn named(&self, name: &str) -> Option<&Interface> {
        self.list.iter().find(|interface| interface.name == name)
    }

    /// The interface numbered `index`.
    pub fn numbered(&self, index: u32) -> Option<&Interface> {
        self.list.iter().find(|interface| interface.index == index)
    }

    /// Every IPv4 address of the router.
    pub fn addresses(&self) -> impl Iterator<Item = InterfaceAddress> + '_ {
        self.list.iter().flat_map(|interface| interface.addresses.iter().map(|address| address.address))
    }
}

/// Follows links and IPv4 addresses.
#[derive(Debug)]
pub struct Links {
    events: Socket,
    requests: Socket,
}

impl Links {
    /// Subscribes to changes; whatever happens after this is noticed.
    ///
    /// # Errors
    /// When the kernel has no rtnetlink, or no descriptor is left.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            events: Socket::open(libc::NETLINK_ROUTE, RTMGRP_LINK | RTMGRP_IPV4_IFADDR)?,
            requests: Socket::open(libc::NETLINK_ROUTE, 0)?,
        })
    }

    /// Readable when something changed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Has anything changed since the last call? Takes everything that is there and never waits. Lost events
    /// count as a change.
    pub fn drain(&mut self) -> bool {
        let mut changed = false;
        loop {
            match self.events.event() {
                Ok(None) => return changed,
                Ok(Some(_)) => changed = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(_) => return true,
            }
        }
    }

    /// How links and addresses are now.
    ///
    /// # Errors
    /// What the kernel answers; `Interrupted` when they keep changing.
    pub fn snapshot(&mut self) -> io::Result<Interfaces> {
        let mut attempt = 1;
        loop {
            match self.try_snapshot() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && attempt < ATTEMPTS => {
                    attempt += 1
                }
                other => return other,
            }
        }
    }

    fn try_snapshot(&mut self) -> io::Result<Interfaces> {
        let mut list = Vec::new();
        self.requests.request(
            RTM_GETLINK,
            flags::DUMP,
            |message| message.fixed(&[0; IFINFOMSG]),
            |message| list.extend(link(message)),
        )?;
        self.requests.request(
            RTM_GETADDR,
            flags::DUMP,
            |message| message.fixed(&[0; IFADDRMSG]),
            |message| add_address(&mut list, message),
        )?;
        for interface in &mut list {
            let addresses = std::mem::take(&mut interface.addresses);
            interface.addresses = order::by(addresses, |address| {
                u64::from(address.scope.rank()) << 1 | u64::from(address.secondary)
            });
        }
        Ok(Interfaces { list })
    }
}

/// Reads RTM_NEWLINK: `struct ifinfomsg` (family, type, index, flags, change), then attributes.
fn link(message: &Message<'_>) -> Option<Interface> {
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let index = ne32(message.body.get(4..)?)?;
    let flags = ne32(message.body.get(8..)?)?;
    let mut interface = Interface {
        index,
        name: String::new(),
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        mtu: 0,
        master: None,
        addresses: Vec::new(),
        ipv6_global: false,
    };
    for (kind, payload) in message.attributes(IFINFOMSG) {
        match kind {
            IFLA_IFNAME => {
                let name = payload.split(|byte| *byte == 0).next().unwrap_or_default();
                interface.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_MTU => interface.mtu = ne32(payload).unwrap_or(0),
            IFLA_MASTER => interface.master = ne32(payload),
            _ => {}
        }
    }
    Some(interface)
}

/// Reads RTM_NEWADDR: `struct ifaddrmsg` (family, prefix length, flags, scope, index), then attributes.
fn add_address(list: &mut [Interface], message: &Message<'_>) {
    if message.kind != RTM_NEWADDR {
        return;
    }
    let Some(&[family, prefix, flags, scope, ..]) = message.body.first_chunk::<IFADDRMSG>() else { return };
    let Some(index) = message.body.get(4..).and_then(ne32) else { return };
    let Some(interface) = list.iter_mut().find(|interface| interface.index == index) else { return };
    let scope = match scope {
        0 => Scope::Global,
        200 => Scope::Site,
        253 => Scope::Link,
        254 => Scope::Host,
        other => Scope::Other(other),
    };
    let (mut local, mut peer, mut flags) = (None, None, u32::from(flags));
    for (kind, payload) in message.attributes(IFADDRMSG) {
        match kind {
            IFA_LOCAL => local = Some(payload),
            IFA_ADDRESS => peer = Some(payload),
            IFA_FLAGS => flags = ne32(payload).unwrap_or(flags),
            _ => {}
        }
    }
    // On a point-to-point link `IFA_ADDRESS` is the other end.
    let own = local.or(peer).unwrap_or_default();
    match i32::from(family) {
        libc::AF_INET => {
            let Some(octets) = own.first_chunk::<4>() else { return };
            interface.addresses.push(Address {
                address: InterfaceAddress { addr: Ipv4Addr::from(*octets), prefix: prefix.min(32) },
                scope,
                secondary: flags & IFA_F_SECONDARY != 0,
            });
        }
        libc::AF_INET6 => {
            let Some(octets) = own.first_chunk::<16>() else { return };
            // Unique local addresses (fc00::/7) have global scope but do not lead to the internet.
            let unique_local = Ipv6Addr::from(*octets).is_unique_local();
            interface.ipv6_global |= scope == Scope::Global && !unique_local;
        }
        _ => {}
    }
}
