//! What the owner of the router decides: plain values, already checked.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::flow::{Endpoint, Protocol};

/// Which inbound packets a mapping lets through (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filtering {
    /// From anyone.
    EndpointIndependent,
    /// From addresses that the device has sent to, any port.
    #[default]
    AddressDependent,
    /// From endpoints that the device has sent to.
    AddressAndPortDependent,
}

/// What to do with the MSS option of TCP SYN segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// Lower it to the smaller of the two links' MTU minus 40.
    #[default]
    Auto,
    /// Lower it to this value, in bytes.
    To(u16),
    /// Leave it alone.
    Off,
}

/// A non-empty range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range `first..=last`; `None` when it is empty or holds port 0.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    /// Lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports it holds.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Is `port` in it?
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// A port forward: what arrives for `external` on the WAN address goes to `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Ports on the WAN address.
    pub external: PortRange,
    /// The device on the LAN.
    pub host: Ipv4Addr,
    /// The device's port for `external.first()`; the others follow in order.
    pub internal_first: u16,
}

impl Forward {
    /// Where the external `port` leads; `None` when this forward does not hold it.
    pub fn internal(&self, protocol: Protocol, port: u16) -> Option<Endpoint> {
        (protocol == self.protocol && self.external.contains(port))
            .then(|| Endpoint::new(self.host, self.internal_first.wrapping_add(port - self.external.first)))
    }

    /// The external port that leads to `internal`; `None` when this forward does not lead there.
    pub fn external(&self, protocol: Protocol, internal: Endpoint) -> Option<u16> {
        if protocol != self.protocol || internal.addr != self.host {
            return None;
        }
        let offset = u32::from(internal.id.0).checked_sub(u32::from(self.internal_first))?;
        (offset < self.external.count())
            .then(|| u16::try_from(u32::from(self.external.first) + offset).ok())
            .flatten()
    }
}

/// How long a session without traffic lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP connection; RFC 5382 REQ-5: at least 2 h 4 min.
    pub tcp_established: Duration,
    /// TCP connection being opened or closed; RFC 5382 REQ-5: at least 4 min.
    pub tcp_transitory: Duration,
    /// TCP connection after an exact RST; RFC 7857 section 2.2: 4 min.
    pub tcp_reset: Duration,
    /// UDP; RFC 4787 REQ-5: at least 2 min, 5 min recommended.
    pub udp: Duration,
    /// ICMP query; RFC 5508 REQ-2: at least 60 s.
    pub icmp: Duration,
    /// How long an unsolicited SYN waits for its counterpart; RFC 5382 REQ-4: 6 s.
    pub tcp_syn_hold: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            tcp_reset: Duration::from_secs(240),
            udp: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
            tcp_syn_hold: Duration::from_secs(6),
        }
    }
}

/// Bounds on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of all devices together.
    pub sessions: u32,
    /// Sessions of one device.
    pub sessions_per_device: u32,
    /// Unsolicited SYNs held at one time.
    pub held_syns: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 65_536, sessions_per_device: 16_384, held_syns: 256 }
    }
}

/// Everything the owner decides about translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// RFC 4787 section 5; forwards always accept from anyone.
    pub filtering: Filtering,
    /// External ports given out to devices whose own port is 1024 or higher.
    pub ports: PortRange,
    /// Does an inbound packet keep a session alive (RFC 4787 REQ-6)? Only sessions that the device has
    /// spoken on are ever refreshed by one.
    pub inbound_refresh: bool,
    /// Do devices reach each other through the WAN address (RFC 4787 REQ-9)?
    pub hairpin: bool,
    /// MSS clamping.
    pub mss_clamp: MssClamp,
    /// Port forwards, no two of which share an external port of one protocol.
    pub forwards: Vec<Forward>,
    /// Gets every inbound TCP and UDP packet that nothing else claims.
    pub exposed_host: Option<Ipv4Addr>,
    /// Idle times.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            filtering: Filtering::default(),
            ports: PortRange { first: 1024, last: 65_535 },
            inbound_refresh: true,
            hairpin: true,
            mss_clamp: MssClamp::default(),
            forwards: Vec::new(),
            exposed_host: None,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

impl Policy {
    /// Where the owner wants packets for the external `port` to go: a port forward or the exposed host.
    pub fn forwarded(&self, protocol: Protocol, port: u16) -> Option<Endpoint> {
        let forward = self.forwards.iter().find_map(|forward| forward.internal(protocol, port));
        let exposed = || match protocol {
            Protocol::Tcp | Protocol::Udp => self.exposed_host.map(|host| Endpoint::new(host, port)),
            Protocol::Icmp => None,
        };
        forward.or_else(exposed)
    }

    /// Is the external `port` forwarded, the exposed host aside?
    pub fn has_forward(&self, protocol: Protocol, port: u16) -> bool {
        self.forwards.iter().any(|forward| forward.internal(protocol, port).is_some())
    }

    /// The external port of the forward that leads to `internal`.
    pub fn forward_of(&self, protocol: Protocol, internal: Endpoint) -> Option<u16> {
        self.forwards.iter().find_map(|forward| forward.external(protocol, internal))
    }
}
