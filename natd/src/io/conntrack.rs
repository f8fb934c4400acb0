//! The kernel's connection tracking: flows admitted, listed, deleted (ctnetlink).
//!
//! A router's own firewall lives from conntrack: it drops what is NEW from the WAN. natd knows better what
//! belongs to a flow: its filtering may accept another port of a known server, its mappings outlive the
//! kernel's timeouts (UDP 30 s), a port forward is open to anyone. So before such a packet is released, the
//! entry that makes it ESTABLISHED is created, in the LAN's view, which is all that conntrack ever sees.
//!
//! What makes the next packet ESTABLISHED, by protocol:
//!
//! * UDP and ICMP: an entry with SEEN_REPLY, in either direction.
//! * TCP that carries data: an entry in ESTABLISHED, and "liberal" both ways because the kernel has not seen
//!   the window. An entry that is there, in whatever state, is set to the same.
//! * TCP that opens: conntrack drops a SYN in the reply direction in every state but SYN_SENT, SYN_SENT2 and
//!   a TIME_WAIT of its own, and in state NONE too; SYN_SENT takes it in both directions and learns window and
//!   scale from it. What is left of an older connection (TIME_WAIT, CLOSE and so on) makes the kernel forget
//!   the entry and call the SYN NEW, or measures it by the old window: it is deleted first. A connection that is
//!   alive and was opened in the admission's direction is left as it is: a SYN passes it, unheeded.
//! * GRE: the kernel takes a GRE entry's timeouts from the packet that made it, so one that was made here would be
//!   over with its first packet. Its timeout is therefore fixed: no packet changes it, and to prolong it takes a
//!   new entry. One that a packet has made is changed like any other.
//!
//! Example: 192.168.1.2:5000 has a mapping and spoke to 192.0.2.9:53; 192.0.2.9:54 answers. The filtering is
//! address-dependent, so natd accepts, rewrites the destination, and asks for
//! `udp 192.168.1.2:5000 → 192.0.2.9:54` before it releases the packet: the firewall sees an answer.

use std::fmt;
use std::io;
use std::time::Duration;

use nat_core::decision::{Admission, KernelFlow, KernelTuple, TcpProgress};
use nat_core::flow::Endpoint;

use super::netlink::message::{Message, Writer, attributes, be16, be32};
use super::netlink::socket::{Socket, flags};

// linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h, nf_conntrack_common.h, nf_conntrack_tcp.h
const NFPROTO_IPV4: u8 = 2;
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const IPCTNL_MSG_CT_GET_STATS: u16 = 5;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
const IPS_SEEN_REPLY: u32 = 1 << 1;
const IPS_ASSURED: u32 = 1 << 2;
const IPS_CONFIRMED: u32 = 1 << 3;
const IPS_SRC_NAT: u32 = 1 << 4;
const IPS_DST_NAT: u32 = 1 << 5;
const IPS_FIXED_TIMEOUT: u32 = 1 << 10;
const TCP_SYN_SENT: u8 = 1;
const TCP_SYN_RECV: u8 = 2;
const TCP_ESTABLISHED: u8 = 3;
const TCP_LAST_ACK: u8 = 6;
const TCP_SYN_SENT2: u8 = 9;
const IP_CT_TCP_FLAG_BE_LIBERAL: u8 = 0x08;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const NFGENMSG: usize = 4;

/// An entry that comes and goes under our hands is tried this often.
const ATTEMPTS: usize = 4;

/// Why conntrack did not do what was asked.
#[derive(Debug)]
pub enum ConntrackError {
    /// CAP_NET_ADMIN is missing.
    NoPermission,
    /// The kernel has no ctnetlink.
    NoKernelSupport,
    /// The kernel's table has no room.
    TableFull,
    /// Anything else.
    Other(io::Error),
}

impl fmt::Display for ConntrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPermission => {
                f.write_str("no permission to use conntrack: run natd as root or give it CAP_NET_ADMIN")
            }
            Self::NoKernelSupport => f.write_str(
                "the kernel's conntrack cannot be reached: load or install the module nf_conntrack_netlink \
                 (OpenWrt: kmod-nf-conntrack-netlink)",
            ),
            Self::TableFull => {
                f.write_str("the kernel's conntrack table is full: raise net.netfilter.nf_conntrack_max")
            }
            Self::Other(error) => write!(f, "conntrack refuses: {error}"),
        }
    }
}

impl std::error::Error for ConntrackError {}

impl From<io::Error> for ConntrackError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::NoPermission,
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => Self::NoKernelSupport,
            Some(libc::ENOMEM) => Self::TableFull,
            _ => Self::Other(error),
        }
    }
}

/// A connection to ctnetlink.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Connects, and makes sure that the kernel answers.
    ///
    /// # Errors
    /// [`ConntrackError::NoPermission`], [`ConntrackError::NoKernelSupport`].
    pub fn open() -> Result<Self, ConntrackError> {
        let mut socket = Socket::open(libc::NETLINK_NETFILTER, 0)?;
        let kind = kind(IPCTNL_MSG_CT_GET_STATS);
        match socket.request(kind, 0, |message| message.fixed(&nfgenmsg()), |_| {}) {
            // nfnetlink's answer for a subsystem that is not there.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(ConntrackError::NoKernelSupport),
            other => Ok(other.map(|()| Self { socket })?),
        }
    }

    /// Makes sure that the packet that is released next passes as ESTABLISHED. For a TCP connection that
    /// opens, `original` is the SYN's own direction; else the packet may run in either.
    ///
    /// # Errors
    /// [`ConntrackError::TableFull`], or what the kernel says.
    pub fn admit(&mut self, admission: &Admission) -> Result<(), ConntrackError> {
        let entry = Entry::wanted(admission);
        // An opening must not touch an entry that is there before it has been looked at.
        let exclusive = if admission.tcp == Some(TcpProgress::Opening) { flags::EXCL } else { 0 };
        for _ in 0..ATTEMPTS {
            match errno(self.put(&entry, flags::CREATE | exclusive))? {
                None => return Ok(()),
                // There is one; or one that the kernel keeps some status bits of (a helper expected it).
                Some(libc::EEXIST | libc::EBUSY) => {}
                Some(other) => return Err(io::Error::from_raw_os_error(other).into()),
            }
            let Some(found) = self.find(&entry.original)? else { continue };
            let Some(change) = found.change_to(&entry) else {
                self.delete(&entry.original)?;
                continue;
            };
            match errno(self.put(&change, 0))? {
                None => return Ok(()),
                Some(libc::ENOENT | libc::EBUSY) => {}
                Some(other) => return Err(io::Error::from_raw_os_error(other).into()),
            }
        }
        Err(ConntrackError::Other(io::Error::from_raw_os_error(libc::EBUSY)))
    }

    /// Hands every IPv4 flow that the kernel knows to `each`, of ICMP only echo; needs no memory for them. One that comes or goes meanwhile may be missing or seen twice.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn for_each(&mut self, mut each: impl FnMut(KernelFlow)) -> Result<(), ConntrackError> {
        let dumped = self.socket.request(
            kind(IPCTNL_MSG_CT_GET),
            flags::DUMP,
            |message| message.fixed(&nfgenmsg()),
            |message| {
                if let Some(found) = Found::read(message) {
                    each(found.flow());
                }
            },
        );
        match dumped {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => Ok(other?),
        }
    }

    /// Deletes the flow that `original`, or its answer, belongs to. Was there one?
    ///
    /// # Errors
    /// What the kernel says.
    pub fn delete(&mut self, original: &KernelTuple) -> Result<bool, ConntrackError> {
        let request = self.socket.request(
            kind(IPCTNL_MSG_CT_DELETE),
            0,
            |message| {
                message.fixed(&nfgenmsg());
                message.nested(CTA_TUPLE_ORIG, |inner| write_tuple(inner, original, Side::Original));
            },
            |_| {},
        );
        match errno(request)? {
            None => Ok(true),
            Some(libc::ENOENT) => Ok(false),
            Some(other) => Err(io::Error::from_raw_os_error(other).into()),
        }
    }

    fn find(&mut self, original: &KernelTuple) -> Result<Option<Found>, ConntrackError> {
        let mut found = None;
        let request = self.socket.request(
            kind(IPCTNL_MSG_CT_GET),
            0,
            |message| {
                message.fixed(&nfgenmsg());
                message.nested(CTA_TUPLE_ORIG, |inner| write_tuple(inner, original, Side::Original));
            },
            |message| found = Found::read(message),
        );
        match errno(request)? {
            None => Ok(found),
            Some(libc::ENOENT) => Ok(None),
            Some(other) => Err(io::Error::from_raw_os_error(other).into()),
        }
    }

    fn put(&mut self, entry: &Entry, flags: u16) -> io::Result<()> {
        self.socket.request(kind(IPCTNL_MSG_CT_NEW), flags, |message| entry.write(message), |_| {})
    }
}

/// An entry to be created or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    original: KernelTuple,
    status: u32,
    timeout: Duration,
    tcp: Option<TcpEntry>,
}

/// The part of a TCP entry that is ours to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TcpEntry {
    state: u8,
    liberal: bool,
}

impl Entry {
    fn wanted(admission: &Admission) -> Self {
        let tcp = admission.tcp.filter(|_| admission.original.protocol == TCP);
        let fixed = if admission.original.protocol == GRE { IPS_FIXED_TIMEOUT } else { 0 };
        Self {
            original: admission.original,
            status: IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED | fixed,
            timeout: admission.timeout,
            tcp: tcp.map(|progress| match progress {
                TcpProgress::Opening => TcpEntry { state: TCP_SYN_SENT, liberal: false },
                TcpProgress::Established => TcpEntry { state: TCP_ESTABLISHED, liberal: true },
            }),
        }
    }

    fn write(&self, message: &mut Writer<'_>) {
        message.fixed(&nfgenmsg());
        message.nested(CTA_TUPLE_ORIG, |inner| write_tuple(inner, &self.original, Side::Original));
        message.nested(CTA_TUPLE_REPLY, |inner| write_tuple(inner, &self.original.reverse(), Side::Reply));
        message.attribute(CTA_STATUS, &self.status.to_be_bytes());
        let secs = u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        message.attribute(CTA_TIMEOUT, &secs.to_be_bytes());
        let Some(tcp) = self.tcp else { return };
        message.nested(CTA_PROTOINFO, |inner| {
            inner.nested(CTA_PROTOINFO_TCP, |inner| {
                inner.attribute(CTA_PROTOINFO_TCP_STATE, &[tcp.state]);
                if tcp.liberal {
                    // struct nf_ct_tcp_flags: flags, mask.
                    let flags = [IP_CT_TCP_FLAG_BE_LIBERAL; 2];
                    inner.attribute(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &flags);
                    inner.attribute(CTA_PROTOINFO_TCP_FLAGS_REPLY, &flags);
                }
            });
        });
    }
}

/// An entry that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    original: KernelTuple,
    reply: KernelTuple,
    status: u32,
    timeout: Duration,
    tcp_state: Option<u8>,
}

impl Found {
    /// `None` for what natd does not deal with: other protocols, other zones.
    fn read(message: &Message<'_>) -> Option<Self> {
        let (mut original, mut reply, mut status, mut timeout, mut tcp_state) = (None, None, 0, 0, None);
        for (kind, payload) in message.attributes(NFGENMSG) {
            match kind {
                CTA_TUPLE_ORIG => original = read_tuple(payload, Side::Original),
                CTA_TUPLE_REPLY => reply = read_tuple(payload, Side::Reply),
                CTA_STATUS => status = be32(payload)?,
                CTA_TIMEOUT => timeout = be32(payload)?,
                CTA_PROTOINFO => tcp_state = read_tcp_state(payload),
                CTA_ZONE => return None,
                _ => {}
            }
        }
        let timeout = Duration::from_secs(u64::from(timeout));
        Some(Self { original: original?, reply: reply?, status, timeout, tcp_state })
    }

    /// What to ask for so that this entry does what the `wanted` one would; `None`: only a new one can.
    fn change_to(&self, wanted: &Entry) -> Option<Entry> {
        if self.status & IPS_FIXED_TIMEOUT != 0 {
            return None;
        }
        let opening = wanted.tcp.is_some_and(|tcp| tcp.state == TCP_SYN_SENT);
        let tcp = match self.tcp_state {
            // It takes a SYN as it is.
            Some(TCP_SYN_SENT | TCP_SYN_SENT2) if opening => None,
            Some(TCP_SYN_RECV | TCP_ESTABLISHED) if opening && self.original == wanted.original => None,
            _ if opening => return None,
            _ => wanted.tcp,
        };
        Some(Entry { status: (self.status | wanted.status) & !IPS_FIXED_TIMEOUT, tcp, ..*wanted })
    }

    fn flow(&self) -> KernelFlow {
        KernelFlow {
            original: self.original,
            reply: self.reply,
            snat: self.status & IPS_SRC_NAT != 0,
            dnat: self.status & IPS_DST_NAT != 0,
            replied: self.status & IPS_SEEN_REPLY != 0,
            tcp: self.tcp_state.and_then(|state| match state {
                TCP_SYN_SENT | TCP_SYN_RECV | TCP_SYN_SENT2 => Some(TcpProgress::Opening),
                TCP_ESTABLISHED..=TCP_LAST_ACK => Some(TcpProgress::Established),
                _ => None,
            }),
            timeout: self.timeout,
        }
    }
}

/// Which tuple of an entry: an ICMP query and its answer differ in more than the order of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Original,
    Reply,
}

fn write_tuple(message: &mut Writer<'_>, tuple: &KernelTuple, side: Side) {
    message.nested(CTA_TUPLE_IP, |ip| {
        ip.attribute(CTA_IP_V4_SRC, &tuple.src.addr.octets());
        ip.attribute(CTA_IP_V4_DST, &tuple.dst.addr.octets());
    });
    message.nested(CTA_TUPLE_PROTO, |proto| {
        proto.attribute(CTA_PROTO_NUM, &[tuple.protocol]);
        match tuple.protocol {
            // A kernel without GRE tracking knows GRE by its addresses, and takes no notice of the key.
            TCP | UDP | GRE => {
                proto.attribute(CTA_PROTO_SRC_PORT, &tuple.src.id.0.to_be_bytes());
                proto.attribute(CTA_PROTO_DST_PORT, &tuple.dst.id.0.to_be_bytes());
            }
            ICMP => {
                let (kind, id) = match side {
                    Side::Original => (ICMP_ECHO, tuple.src.id),
                    Side::Reply => (ICMP_ECHO_REPLY, tuple.dst.id),
                };
                proto.attribute(CTA_PROTO_ICMP_TYPE, &[kind]);
                proto.attribute(CTA_PROTO_ICMP_CODE, &[0]);
                proto.attribute(CTA_PROTO_ICMP_ID, &id.0.to_be_bytes());
            }
            _ => {}
        }
    });
}

fn read_tuple(bytes: &[u8], side: Side) -> Option<KernelTuple> {
    let (mut src, mut dst, mut number, mut ports, mut icmp) = (None, None, 0, (0, 0), (None, 0));
    for (kind, payload) in attributes(bytes) {
        match kind {
            CTA_TUPLE_IP => {
                for (kind, payload) in attributes(payload) {
                    match kind {
                        CTA_IP_V4_SRC => src = payload.first_chunk::<4>(),
                        CTA_IP_V4_DST => dst = payload.first_chunk::<4>(),
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_PROTO => {
                for (kind, payload) in attributes(payload) {
                    match kind {
                        CTA_PROTO_NUM => number = *payload.first()?,
                        CTA_PROTO_SRC_PORT => ports.0 = be16(payload)?,
                        CTA_PROTO_DST_PORT => ports.1 = be16(payload)?,
                        CTA_PROTO_ICMP_TYPE => icmp.0 = payload.first().copied(),
                        CTA_PROTO_ICMP_ID => icmp.1 = be16(payload)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let ids = match (number, side, icmp.0) {
        (ICMP, Side::Original, Some(ICMP_ECHO)) => (icmp.1, 0),
        (ICMP, Side::Reply, Some(ICMP_ECHO_REPLY)) => (0, icmp.1),
        (ICMP, ..) => return None,
        _ => ports, // 0 where there are none
    };
    Some(KernelTuple {
        protocol: number,
        src: Endpoint::new((*src?).into(), ids.0),
        dst: Endpoint::new((*dst?).into(), ids.1),
    })
}

fn read_tcp_state(protoinfo: &[u8]) -> Option<u8> {
    let find =
        |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, payload)| payload);
    find(find(protoinfo, CTA_PROTOINFO_TCP)?, CTA_PROTOINFO_TCP_STATE)?.first().copied()
}

const fn kind(message: u16) -> u16 {
    (NFNL_SUBSYS_CTNETLINK << 8) | message
}

/// `struct nfgenmsg`: family, version, resource.
const fn nfgenmsg() -> [u8; NFGENMSG] {
    [NFPROTO_IPV4, 0, 0, 0]
}

/// The kernel's number for a refusal; errors of our own stay errors.
fn errno(result: io::Result<()>) -> io::Result<Option<libc::c_int>> {
    match result {
        Ok(()) => Ok(None),
        Err(error) => match error.raw_os_error() {
            Some(code) => Ok(Some(code)),
            None => Err(error),
        },
    }
}
