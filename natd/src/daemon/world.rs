//! The router's surroundings as the daemon sees them now: interfaces, addresses, listening sockets, sysctls.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::InterfaceAddress;
use nat_core::nat::{Listeners, Nat};

use super::RunError;
use crate::check::proc;
use crate::config::Config;
use crate::engine::Engine;
use crate::io::netlink::{Interface, Interfaces, Links};
use crate::io::rules::Kernel;
use crate::order;
use crate::report::State;

/// One side of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) name: String,
    index: u32,
    up: bool,
    /// Can it carry packets: is there a cable, a session?
    pub(super) running: bool,
    pub(super) mtu: u32,
    pub(super) addresses: Vec<InterfaceAddress>,
}

impl Side {
    fn of(name: &str, interfaces: &Interfaces) -> Self {
        let nothing =
            Self { name: name.into(), index: 0, up: false, running: false, mtu: 0, addresses: Vec::new() };
        let Some(interface) = interfaces.named(name) else { return nothing };
        let Interface { index, up, running, mtu, ref addresses, .. } = *interface;
        let addresses = addresses.iter().map(|address| address.address).collect();
        Self { name: name.into(), index, up, running, mtu, addresses }
    }
}

impl Side {
    /// Its number; 0 while it is not there.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The networks on it: address and length.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (Ipv4Addr, u8)> {
        self.addresses.iter().map(|address| {
            let mask = u32::MAX.checked_shl(32 - u32::from(address.prefix.min(32))).unwrap_or(0);
            (Ipv4Addr::from(u32::from(address.addr) & mask), address.prefix)
        })
    }
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct World {
    pub(super) wan: Side,
    pub(super) lan: Vec<Side>,
    wan_address: Option<Ipv4Addr>,
    pub(super) state: State,
    ipv6: bool,
}

impl World {
    /// Looks at the interfaces that `config` names.
    ///
    /// # Errors
    /// One of them does not exist.
    pub(super) fn look(links: &mut Links, config: &Config) -> Result<Self, RunError> {
        let interfaces = snapshot(links)?;
        let there: Vec<&str> =
            interfaces.list.iter().map(|i| i.name.as_str()).filter(|&n| n != "lo").collect();
        let named =
            [("nat.wan", &config.wan)].into_iter().chain(config.lan.iter().map(|lan| ("nat.lan", lan)));
        for (key, name) in named {
            if interfaces.named(name).is_none() {
                let there = there.join(", ");
                return Err(RunError::Interface(format!(
                    "{key}: there is no interface {name:?}; this machine has {there}"
                )));
            }
        }
        Ok(Self::of(&interfaces, config))
    }

    /// The same later, when an interface may have gone away for a while.
    pub(super) fn look_again(links: &mut Links, config: &Config) -> Result<Self, RunError> {
        Ok(Self::of(&snapshot(links)?, config))
    }

    fn of(interfaces: &Interfaces, config: &Config) -> Self {
        let wan = Side::of(&config.wan, interfaces);
        let address =
            interfaces.named(&config.wan).filter(|i| i.up).and_then(Interface::address).map(|a| a.addr);
        Self {
            wan,
            lan: config.lan.iter().map(|name| Side::of(name, interfaces)).collect(),
            wan_address: address,
            state: if address.is_some() { State::Translating } else { State::WaitingForAddress },
            ipv6: interfaces.named(&config.wan).is_some_and(|i| i.ipv6_global),
        }
    }

    /// Tells the engine what concerns it.
    pub(super) fn tell(&self, engine: &mut Engine) {
        self.tell_nat(&mut engine.nat);
        engine.set_address(self.wan_address);
    }

    /// Tells the NAT what concerns it.
    pub(super) fn tell_nat(&self, nat: &mut Nat) {
        nat.set_lan(self.lan.iter().flat_map(|side| side.addresses.iter().copied()).collect());
        nat.set_mtu(self.mtu().map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX)));
    }

    fn mtu(&self) -> Option<u32> {
        self.lan.iter().chain([&self.wan]).map(|side| side.mtu).filter(|&mtu| mtu > 0).min()
    }

    /// What every link carries, in bytes.
    pub(super) fn smallest_mtu(&self) -> usize {
        self.mtu().and_then(|mtu| usize::try_from(mtu).ok()).unwrap_or(1500)
    }

    pub(super) fn wan_address(&self) -> Option<Ipv4Addr> {
        self.wan_address
    }

    pub(super) fn wan_addresses(&self) -> &[InterfaceAddress] {
        if self.wan_address.is_some() { &self.wan.addresses } else { &[] }
    }

    pub(super) fn wan_index(&self) -> u32 {
        self.wan.index
    }

    pub(super) fn lan_indices(&self) -> Vec<u32> {
        self.lan.iter().map(|side| side.index).collect()
    }

    pub(super) fn lan_prefixes(&self) -> Vec<(Ipv4Addr, u8)> {
        order::distinct(self.lan.iter().flat_map(Side::prefixes))
    }

    /// Why nothing is translated.
    pub(super) fn waiting_reason(&self) -> String {
        let name = &self.wan.name;
        match self.wan {
            Side { index: 0, .. } => format!("waiting for the interface {name} to appear"),
            Side { up: false, .. } => format!("waiting for {name} to come up"),
            Side { .. } => format!("waiting for an IPv4 address on {name}"),
        }
    }

    /// What the owner should know at start.
    pub(super) fn remarks(&self, kernel: &Kernel) -> Vec<String> {
        let mut lines = Vec::new();
        let lan = self.lan.iter().flat_map(|side| &side.addresses);
        for address in lan.filter(|lan| self.wan_address.is_some_and(|wan| lan.contains(wan))) {
            lines.push(format!(
                "the WAN address lies in the LAN's network {}/{}; give the LAN another (RFC 4787 REQ-7)",
                address.addr, address.prefix
            ));
        }
        if !kernel.socket_match {
            lines.push("the kernel has no socket match: unsolicited connections are refused at once".into());
        }
        if fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "0") {
            lines.push("net.ipv4.ip_forward is 0: this machine does not route; set it to 1".into());
        }
        if self.ipv6 {
            lines.push("IPv6 on the WAN is routed, not touched".into());
        }
        lines
    }
}

fn snapshot(links: &mut Links) -> Result<Interfaces, RunError> {
    links.snapshot().map_err(|error| RunError::System("read the interfaces", error))
}

/// The ports on which sockets of this router wait for anyone.
pub(super) fn listeners() -> Listeners {
    const TCP_LISTEN: u8 = 0x0a;
    const UDP_UNCONNECTED: u8 = 0x07;
    let ports = |file, state| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut ports = BTreeSet::new();
        // Not collect, which brings a sort with it.
        for port in proc::wildcard_listeners(&text, state) {
            ports.insert(port);
        }
        ports
    };
    Listeners { tcp: ports("/proc/net/tcp", TCP_LISTEN), udp: ports("/proc/net/udp", UDP_UNCONNECTED) }
}

/// How long a flow may be idle before conntrack can have forgotten it: two thirds of the shortest timeout, and
/// no longer than a connection pauses that has lost its entry to somebody's flush.
pub(super) fn patience() -> Duration {
    let secs = [
        "udp_timeout",
        "udp_timeout_stream",
        "icmp_timeout",
        "tcp_timeout_established",
        "tcp_timeout_unacknowledged",
    ]
    .iter()
    .filter_map(|name| fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok())
    .filter_map(|text| text.trim().parse::<u64>().ok())
    .min()
    .unwrap_or(30);
    Duration::from_millis((secs * 667).min(3_000))
}
