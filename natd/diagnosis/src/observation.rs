//! What the trackers are told.

use std::net::IpAddr;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::sighting::Sighting;

use crate::finding::Mark;
pub use crate::packet::Fragment;

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Where devices have their own addresses.
    Lan,
    /// Beyond the NAT.
    Wan,
    /// In a capture that does not say; addresses tell then.
    Unknown,
}

/// The fixed part of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHead {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub flags: u8,
    /// Window as it stands in the header.
    pub window: u16,
}

impl TcpHead {
    /// FIN.
    pub const fn fin(self) -> bool {
        self.flags & 1 != 0
    }

    /// SYN.
    pub const fn syn(self) -> bool {
        self.flags & 2 != 0
    }

    /// RST.
    pub const fn rst(self) -> bool {
        self.flags & 4 != 0
    }

    /// ACK.
    pub const fn ack(self) -> bool {
        self.flags & 16 != 0
    }
}

/// What a packet travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(TcpHead),
    /// UDP.
    Udp,
    /// Another IP protocol, by its number.
    Other(u8),
}

impl Transport {
    /// Its IP protocol number.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp => 17,
            Self::Other(number) => number,
        }
    }
}

/// A packet between a device and a server. Each is told once, however often it was seen.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// When, and which packet of the capture.
    pub mark: Mark,
    /// Outbound: from the device.
    pub direction: Direction,
    /// The device, by its address on the LAN where that is known.
    pub device: IpAddr,
    /// The other side.
    pub server: IpAddr,
    /// The device's port; 0 where there are none.
    pub device_port: u16,
    /// The server's port; 0 where there are none.
    pub server_port: u16,
    /// Where it was seen.
    pub point: Point,
    /// What it travels in.
    pub transport: Transport,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Identification of the IP header; 0 without one.
    pub ident: u32,
    /// The don't-fragment bit.
    pub dont_fragment: bool,
    /// Which part of a datagram it is. Of later fragments nothing but addresses and lengths is known; ports
    /// are those of the first one where that was seen before, 0 otherwise.
    pub fragment: Fragment,
    /// Bytes of the whole IP packet.
    pub ip_len: u32,
    /// Bytes behind the UDP or TCP header, or behind the IP header of other protocols. For a first fragment of
    /// UDP that of the whole datagram, as its header says.
    pub payload_len: u32,
    /// The same bytes, as far as they are there.
    pub payload: &'a [u8],
    /// What it is, if a VPN's.
    pub sighting: Option<Sighting<'a>>,
}

impl Observation<'_> {
    /// When.
    pub const fn at(&self) -> Timestamp {
        self.mark.at
    }

    /// Does the device send it?
    pub fn is_outbound(&self) -> bool {
        self.direction == Direction::Outbound
    }

    /// What is remembered of it.
    pub fn trace(&self) -> Trace {
        Trace {
            mark: self.mark,
            direction: self.direction,
            device_port: self.device_port,
            server_port: self.server_port,
            protocol: self.transport.protocol(),
            id: packet_id(self.sighting.as_ref()),
            payload_len: self.payload_len,
        }
    }
}

/// SPI, Call ID or Tunnel ID as it stands in the packet, i.e. the receiver's; 0 without one.
pub(crate) fn packet_id(sighting: Option<&Sighting<'_>>) -> u32 {
    match sighting {
        Some(Sighting::NatTEsp(header) | Sighting::Esp(header)) => header.spi.0,
        Some(Sighting::Ah(header)) => header.spi.0,
        Some(Sighting::PptpGre { call_id, .. }) => u32::from(*call_id),
        Some(Sighting::Gre { key, .. }) => key.unwrap_or(0),
        Some(Sighting::L2tp { tunnel, .. }) => *tunnel,
        Some(Sighting::L2tpIp { session }) => *session,
        Some(
            Sighting::Ike { .. }
            | Sighting::NatTKeepalive
            | Sighting::PptpControl
            | Sighting::WireGuard(_)
            | Sighting::OpenVpn(_),
        )
        | None => 0,
    }
}

/// What is remembered of an observation when its bytes are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// When, and which packet.
    pub mark: Mark,
    /// Outbound: from the device.
    pub direction: Direction,
    /// The device's port; 0 where there are none.
    pub device_port: u16,
    /// The server's port; 0 where there are none.
    pub server_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// SPI (ESP, also in UDP; AH), PPTP's Call ID, GRE's key, L2TP's tunnel: the receiver's. 0 without one.
    pub id: u32,
    /// As in [`Observation::payload_len`].
    pub payload_len: u32,
}

/// What became of a packet inside the router; known only where both sides of it are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// An outbound packet left the WAN with this source.
    Left {
        /// Source address on the WAN.
        wan: IpAddr,
        /// Source port on the WAN; 0 where there are none.
        port: u16,
    },
    /// An outbound packet was seen on the LAN and within two seconds not on the WAN.
    Swallowed,
    /// An inbound packet was seen on both sides.
    Delivered,
    /// An inbound packet was seen on the WAN and within two seconds not on the LAN. It went to where this device
    /// was known to be; packets that nobody could be named for are in [`crate::Router::strays`].
    Undelivered,
}

/// An ICMP or ICMPv6 error about a packet between a device and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpReport {
    /// When, and which packet.
    pub mark: Mark,
    /// Who says it.
    pub from: IpAddr,
    /// Does the quoted packet come from the device? (Then the error is for the device.)
    pub about_outbound: bool,
    /// What it says.
    pub kind: IcmpKind,
    /// IP protocol number of the quoted packet.
    pub protocol: u8,
    /// Its device port; 0 where there are none.
    pub device_port: u16,
    /// Its server port; 0 where there are none.
    pub server_port: u16,
    /// SPI or Call ID of the quoted packet; 0 without one.
    pub id: u32,
}

/// What an ICMP error says, the same for both IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IcmpKind {
    /// 3/0; ICMPv6 1/0.
    NetUnreachable,
    /// 3/1; ICMPv6 1/3.
    HostUnreachable,
    /// 3/2; ICMPv6 4/1 (unrecognised next header).
    ProtocolUnreachable,
    /// 3/3; ICMPv6 1/4.
    PortUnreachable,
    /// 3/4; ICMPv6 2/0. The MTU, 0 if it does not say.
    TooBig(u32),
    /// 3/9, 3/10, 3/13; ICMPv6 1/1, 1/5, 1/6.
    Prohibited,
    /// 11/0; ICMPv6 3/0.
    HopLimit,
    /// Any other: type and code.
    Other(u8, u8),
}

#[cfg(test)]
pub(crate) use exercise::{Peers, at};

/// Observations for tests of trackers.
#[cfg(test)]
mod exercise {
    use super::*;
    use passthrough::sighting::recognise_payload;

    /// `millis` milliseconds after the origin.
    pub(crate) fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    /// A device and a server.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Peers {
        pub(crate) device: IpAddr,
        pub(crate) server: IpAddr,
    }

    impl Default for Peers {
        fn default() -> Self {
            Self { device: [192, 168, 1, 11].into(), server: [198, 51, 100, 10].into() }
        }
    }

    impl Peers {
        /// A packet whose IP payload (UDP header included) is `ip_payload`, `millis` after the origin. The packet's
        /// number is its time in milliseconds.
        pub(crate) fn packet<'a>(
            self,
            millis: u64,
            direction: Direction,
            protocol: u8,
            ip_payload: &'a [u8],
        ) -> Observation<'a> {
            let port = |at: usize| u16::from_be_bytes([ip_payload[at], ip_payload[at + 1]]);
            let (src, dst) = if matches!(protocol, 6 | 17) { (port(0), port(2)) } else { (0, 0) };
            let (device_port, server_port) =
                if direction == Direction::Outbound { (src, dst) } else { (dst, src) };
            let (transport, header) = match protocol {
                6 => {
                    let word = |at: usize| (u32::from(port(at)) << 16) | u32::from(port(at + 2));
                    let head =
                        TcpHead { seq: word(4), ack: word(8), flags: ip_payload[13], window: port(14) };
                    (Transport::Tcp(head), usize::from(ip_payload[12] >> 4) * 4)
                }
                17 => (Transport::Udp, 8),
                other => (Transport::Other(other), 0),
            };
            Observation {
                mark: Mark { at: at(millis), number: millis },
                direction,
                device: self.device,
                server: self.server,
                device_port,
                server_port,
                point: Point::Lan,
                transport,
                ttl: 64,
                ident: 0,
                dont_fragment: false,
                fragment: Fragment::Whole,
                ip_len: u32::try_from(20 + ip_payload.len()).unwrap(),
                payload_len: u32::try_from(ip_payload.len() - header).unwrap(),
                payload: &ip_payload[header..],
                sighting: recognise_payload(protocol, ip_payload),
            }
        }

        /// The bytes of a UDP datagram, header included.
        pub(crate) fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
            let length = u16::try_from(8 + payload.len()).unwrap();
            let mut datagram = [src, dst, length, 0].map(u16::to_be_bytes).concat();
            datagram.extend(payload);
            datagram
        }

        /// The bytes of a TCP segment, header included.
        pub(crate) fn tcp(src: u16, dst: u16, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
            let mut segment = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            segment.extend(seq.to_be_bytes());
            segment.extend(ack.to_be_bytes());
            segment.extend([0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
            segment.extend(payload);
            segment
        }
    }
}
