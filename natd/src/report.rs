//! What natd says of itself: counters, status, flow rows; JSON, text and Prometheus forms.
//!
//! # Theory of operation
//!
//! The daemon fills in a [`Status`], a [`diagnosis::DiagnosisReport`], or one [`FlowRow`] or [`TunnelRow`] after
//! another, and writes them to its control socket as JSON lines. The subcommands read them back and show them in one of four ways:
//!
//! | form | for | where |
//! |---|---|---|
//! | JSON, as the daemon wrote it | scripts | `--json` |
//! | aligned text | people | [`text`], [`diagnosis::text`] |
//! | Prometheus exposition | monitoring | [`prometheus`] |
//! | a screen that renews itself | people who wait for something | [`watch`] |
//!
//! Everything here is pure: values in, text out. Nothing knows of sockets, clocks or terminals; the watch
//! view is told how long ago the previous status was and how large the screen is.
//!
//! # The JSON form is an interface
//!
//! The names of the fields are the names of the fields below, in the same nesting. They are listed with their
//! meaning in README.md, and a test compares that list with what is emitted: adding, renaming or removing one
//! without saying so fails. Fields are added freely; a name keeps its meaning for ever. Numbers are plain
//! integers, counters count from the daemon's start, addresses are strings, and what may be unknown is `null`.

pub mod diagnosis;
pub mod prometheus;
pub mod reasons;
mod table;
pub mod text;
pub mod units;
pub mod watch;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What the daemon is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Rules and queues are not all in place yet.
    #[default]
    Starting,
    /// Ready, but the WAN interface has no address: nothing is forwarded.
    WaitingForAddress,
    /// Packets are translated.
    Translating,
    /// Rules and queues are being removed.
    Stopping,
}

impl State {
    /// Every state, in the order of a daemon's life.
    pub const ALL: [Self; 4] = [Self::Starting, Self::WaitingForAddress, Self::Translating, Self::Stopping];

    /// The name of the JSON form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WaitingForAddress => "waiting-for-address",
            Self::Translating => "translating",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for State {
    /// The state in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::WaitingForAddress => "waiting for an address",
            Self::Translating => "translating",
            Self::Stopping => "stopping",
        })
    }
}

/// The daemon as a whole, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon that answers.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Whole seconds since it started.
    pub uptime_secs: u64,
    /// What it is doing.
    pub state: State,
    /// Why it is not translating, in words; `None` while it is.
    pub reason: Option<String>,
    /// The side of the internet.
    pub wan: Wan,
    /// The sides of the devices.
    pub lan: Vec<Lan>,
    /// Filtering behaviour (RFC 4787 section 5): `endpoint-independent`, `address-dependent` or
    /// `address-and-port-dependent`.
    pub filtering: String,
    /// What queues the packets: `nft` or `iptables`.
    pub backend: String,
    /// Use of the session table.
    pub sessions: Sessions,
    /// Mappings in use.
    pub mappings: u64,
    /// Unsolicited SYNs that are held (RFC 5382 REQ-4).
    pub held_syns: u64,
    /// Devices that have sessions or have had some, in the order of their addresses.
    pub devices: Vec<Device>,
    /// Packets by the way they went.
    pub packets: Traffic,
    /// Bytes of those packets, IPv4 headers included.
    pub bytes: Traffic,
    /// Packets dropped, by reason; the names are stable and in kebab-case.
    pub drops: BTreeMap<String, u64>,
    /// Other things that were counted, by name: what was seen and not dropped for it.
    pub notes: BTreeMap<String, u64>,
    /// VPN sessions now, by protocol.
    #[serde(default)]
    pub vpn_sessions: BTreeMap<String, u64>,
    /// The kernel's packet queues.
    pub queues: Vec<Queue>,
    /// Dealings with the kernel's connection tracking.
    pub kernel: Kernel,
}

/// The WAN interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wan {
    /// Its name.
    pub interface: String,
    /// Its IPv4 address, when it has one.
    pub address: Option<String>,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// A LAN interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// Its name.
    pub interface: String,
    /// The prefixes on it, such as `192.168.1.0/24`.
    pub prefixes: Vec<String>,
}

/// Use of the session table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Sessions now.
    pub current: u64,
    /// How many there may be.
    pub limit: u64,
    /// The most there have been at one time.
    pub peak: u64,
    /// Sessions now, by protocol.
    pub by_protocol: ByProtocol,
}

/// A number for each protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByProtocol {
    /// TCP.
    pub tcp: u64,
    /// UDP.
    pub udp: u64,
    /// ICMP queries.
    pub icmp: u64,
}

/// A device on the LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its address.
    pub address: String,
    /// Sessions it has now.
    pub sessions: u64,
    /// Mappings it has now, when they are counted by device.
    pub mappings: Option<u64>,
    /// Bytes it sent.
    pub bytes_out: u64,
    /// Bytes it received.
    pub bytes_in: u64,
    /// Packets it sent.
    pub packets_out: u64,
    /// Packets it received.
    pub packets_in: u64,
    /// Sessions that were refused because a limit was reached.
    pub refused: u64,
}

/// A number for each way through the router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From the LAN to the WAN, translated.
    pub outbound: u64,
    /// From the WAN to the LAN, translated.
    pub inbound: u64,
    /// From the LAN back to the LAN through the WAN address (RFC 4787 REQ-9).
    pub hairpin: u64,
    /// The router's own, passed untouched.
    pub local: u64,
}

/// A packet queue of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its number.
    pub number: u16,
    /// Packets that wait in it.
    pub waiting: u64,
    /// Packets the kernel dropped because it was full.
    pub queue_dropped: u64,
    /// Packets the kernel dropped because natd's socket was full.
    pub user_dropped: u64,
}

/// Dealings with the kernel's connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Flows entered so that a stateful firewall accepts them.
    pub admitted: u64,
    /// Flows the kernel did not take.
    pub admit_failed: u64,
}

/// One session, as `natd flows` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// The device's endpoint, `address:port`; for ICMP the query id stands for the port.
    pub internal: String,
    /// The endpoint that stands for it on the WAN.
    pub external: String,
    /// The other side's endpoint.
    pub remote: String,
    /// How far it is: `opening`, `established`, `closing`, `reset`, `new`, `replied`.
    pub state: String,
    /// Whole seconds since it began.
    pub age_secs: u64,
    /// Whole seconds since its last packet.
    pub idle_secs: u64,
    /// Whole seconds until it ends if nothing more comes.
    pub expires_secs: u64,
    /// Bytes the device sent.
    pub bytes_out: u64,
    /// Bytes the device received.
    pub bytes_in: u64,
    /// Packets the device sent.
    pub packets_out: u64,
    /// Packets the device received.
    pub packets_in: u64,
    /// Who began it: `outbound`, `inbound`, `router` or `hairpin`.
    pub origin: String,
    /// What it is, when natd knows: a VPN's name such as `IKE`.
    pub name: Option<String>,
}

/// One VPN session, as `natd sessions` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelRow {
    /// What it is: a VPN's name such as `IPsec ESP`.
    pub protocol: String,
    /// The device's address.
    pub device: String,
    /// The server's address.
    pub server: String,
    /// How far it is: `handshake`, `established`, `data`, `keepalive`, `idle`, `rekey` or `closed`.
    pub phase: String,
    /// Why it is closed.
    pub reason: Option<String>,
    /// Whole seconds since it began.
    pub age_secs: u64,
    /// Whole seconds since its last packet.
    pub idle_secs: u64,
    /// Bytes the device sent.
    pub bytes_out: u64,
    /// Bytes the device received.
    pub bytes_in: u64,
    /// Packets the device sent.
    pub packets_out: u64,
    /// Packets the device received.
    pub packets_in: u64,
    /// Its identifiers, the newest first.
    pub ids: Vec<TunnelIds>,
    /// What its owner should know, in words.
    pub remark: Option<String>,
}

/// Identifiers of a VPN session, as packet dumps spell them: SPIs in hexadecimal, the others in decimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelIds {
    /// What they are: `spi`, `call`, `tunnel`, `session`, `key` or `ike`.
    pub kind: String,
    /// By which the device is addressed.
    pub inside: Option<String>,
    /// What stands for it on the WAN.
    pub outside: Option<String>,
    /// By which the server is addressed.
    pub remote: Option<String>,
    /// How it became known whose it is: `evidence`, `fan-out`, `guess`, `forward` or `restart`.
    pub learned: Option<String>,
}

#[cfg(test)]
pub(crate) mod samples;
