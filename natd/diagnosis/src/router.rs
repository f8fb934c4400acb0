//! What the router knows of itself; all unknown in a capture.

use core::ops::RangeInclusive;
use std::net::IpAddr;

use nat_core::time::Timestamp;

use crate::finding::{Evidence, Mark};
use crate::observation::Trace;

/// What can be seen from where the packets were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vantage {
    /// Packets on the LAN, with the devices' own addresses.
    pub lan: bool,
    /// Packets on the WAN.
    pub wan: bool,
    /// The router's own state: [`Router`] is filled in.
    pub router: bool,
    /// Names that devices ask for.
    pub dns: bool,
}

/// A switch of the configuration; `None`: not known.
pub type Switch = Option<bool>;

/// What natd refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The device, where it is known.
    pub device: Option<IpAddr>,
    /// The server.
    pub server: Option<IpAddr>,
    /// IP protocol number.
    pub protocol: u8,
    /// The server's port; 0 where there are none.
    pub port: u16,
    /// natd's name of the reason, as `natd status` shows it.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
}

impl Refusal {
    /// This as evidence. The packets have number 0: natd counts them, whether or not they were watched.
    pub(crate) fn evidence(&self) -> Evidence {
        let mark = |at| Mark { at, number: 0 };
        let what = format!("natd refused it: {}", self.reason);
        Evidence::packets(what, self.count, mark(self.first), mark(self.last))
    }
}

/// Inbound packets on the WAN that did not reach the LAN and belong to no device that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Who sent them.
    pub server: IpAddr,
    /// The last one.
    pub trace: Trace,
    /// How many.
    pub count: u64,
    /// The first one's time.
    pub first: Timestamp,
}

/// The router's state.
#[derive(Clone, Debug, Default)]
pub struct Router {
    /// `passthrough.ipsec`.
    pub ipsec: Switch,
    /// `passthrough.pptp`.
    pub pptp: Switch,
    /// `passthrough.l2tp`.
    pub l2tp: Switch,
    /// `passthrough.multi`.
    pub multi: Switch,
    /// The router's own addresses on the LAN: what it sends to a device itself comes from one of them.
    pub own: Vec<IpAddr>,
    /// The WAN's addresses now: IPv4 first.
    pub wan: Vec<IpAddr>,
    /// When the IPv4 address last became another one, and what it was before.
    pub wan_changed: Option<(Timestamp, IpAddr)>,
    /// When the WAN went down or came up; the last 16.
    pub link_changes: Vec<Timestamp>,
    /// Is the WAN up and has it an address?
    pub wan_up: Option<bool>,
    /// The ports that the line gives us where it shares an IPv4 address (MAP-E, RFC 7597); empty: all, or unknown.
    pub shared_ports: Vec<RangeInclusive<u16>>,
    /// MTU of the WAN interface.
    pub wan_mtu: Option<u32>,
    /// Seconds that a silent UDP mapping, ESP session and GRE flow are kept.
    pub timeouts: Option<Timeouts>,
    /// What natd refused, at most 64 kinds.
    pub refusals: Vec<Refusal>,
    /// How often there was no port or no room left, and when last.
    pub exhausted: Option<(u64, Timestamp)>,
    /// Inbound packets for nobody, at most 64 kinds; kept by the household itself.
    pub strays: Vec<Stray>,
    /// Seconds by which the router's clock is wrong, where it can tell.
    pub clock_skew: Option<i64>,
}

/// How long silence is tolerated, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP mappings.
    pub udp: u64,
    /// ESP sessions.
    pub esp: u64,
    /// GRE other than PPTP's.
    pub gre: u64,
    /// Established TCP connections.
    pub tcp: u64,
}

impl Router {
    /// What natd refused this device with this server, or everybody, in this protocol.
    pub fn refused(&self, device: IpAddr, server: IpAddr, protocol: u8) -> impl Iterator<Item = &Refusal> {
        self.refusals.iter().filter(move |refusal| {
            refusal.protocol == protocol
                && refusal.device.is_none_or(|other| other == device)
                && refusal.server.is_none_or(|other| other == server)
        })
    }
}
