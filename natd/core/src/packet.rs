//! One parse per packet: what an IPv4 packet says, and where its changeable fields lie.
//!
//! [`PacketView::parse`] reads a whole packet as the kernel hands it over. [`PacketView::parse_quote`] reads
//! the packet that an ICMP error quotes: it may be cut off after eight bytes behind its IP header (RFC 792),
//! so lengths are not held against it, but its header checksum is (RFC 5508 REQ-3).

use core::net::Ipv4Addr;

use etherparse::{Ipv4HeaderSlice, TcpHeaderSlice, TcpOptionElement, UdpHeaderSlice};

use crate::flow::{Endpoint, Protocol, Tuple};
use crate::rewrite::{Layout, internet_checksum};

/// A parsed IPv4 packet. Borrows nothing but the quote of an ICMP error.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Total length in bytes, header included.
    pub total_len: u16,
    /// Does the sender forbid fragmentation (DF)?
    pub dont_fragment: bool,
    /// Where the changeable fields lie.
    pub layout: Layout,
    /// What it carries.
    pub body: Body<'a>,
    /// The packet itself, for the head that an ICMP error made by us quotes.
    pub bytes: &'a [u8],
}

/// What an IPv4 packet carries.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// A TCP segment.
    Tcp(TcpSegment),
    /// A UDP datagram.
    Udp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
    },
    /// An ICMP query message (RFC 5508 section 3).
    IcmpQuery {
        /// Question or answer?
        role: QueryRole,
        /// Query id.
        id: u16,
    },
    /// An ICMP error message that quotes a packet.
    IcmpError(IcmpError<'a>),
    /// A fragment: the kernel reassembles before it queues, so this means that it does not.
    Fragment,
    /// Another protocol, or an ICMP message that is neither query nor error: IPv4 protocol number.
    Other(u8),
}

/// Which half of a query an ICMP message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryRole {
    /// Echo, timestamp or address mask request.
    Request,
    /// The answer.
    Reply,
}

/// The TCP flags that matter to a NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of the header")]
pub struct TcpFlags {
    /// SYN.
    pub syn: bool,
    /// ACK.
    pub ack: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

/// A TCP segment's header, as far as a NAT reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSegment {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; meaningless without the ACK flag.
    pub ack: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Window field, unscaled.
    pub window: u16,
    /// Payload length in bytes, SYN and FIN not counted.
    pub payload_len: u32,
    /// SYN only: the window scale option.
    pub window_scale: Option<u8>,
    /// SYN only: the MSS option's value, and the offset of that value from the start of the packet.
    pub mss: Option<(u16, u16)>,
}

/// An ICMP error (RFC 792, RFC 1812): type, code, and the packet that it is about.
#[derive(Clone, Copy, Debug)]
pub struct IcmpError<'a> {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Next-hop MTU of "fragmentation needed" (RFC 1191); whatever stood there otherwise.
    pub mtu: u16,
    /// The quoted packet, from its IP header to the end of the message.
    pub quote: &'a [u8],
    /// Offset of the quote from the start of the packet.
    pub quote_offset: u16,
}

/// Why a packet could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// No complete IPv4 header, or one that contradicts itself.
    Header,
    /// The header announces more bytes than there are.
    Truncated,
    /// The transport header is incomplete or contradicts itself.
    Transport,
    /// A checksum that RFC 5508 has us verify is wrong.
    Checksum,
}

const ICMP_UNREACHABLE: u8 = 3;
/// ICMP type of "destination unreachable", code "fragmentation needed" (RFC 1191).
pub const FRAGMENTATION_NEEDED: (u8, u8) = (ICMP_UNREACHABLE, 4);

impl<'a> PacketView<'a> {
    /// Reads a whole packet, `bytes` beginning with its IPv4 header. Bytes behind the total length are ignored.
    ///
    /// # Errors
    /// [`PacketError`] says which part was wrong. Never panics, whatever `bytes` holds.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| PacketError::Header)?;
        let total_len = header.total_len();
        let packet = bytes.get(..usize::from(total_len)).ok_or(PacketError::Truncated)?;
        let payload = packet.get(header.slice().len()..).ok_or(PacketError::Header)?;
        if header.is_fragmenting_payload() {
            return Ok(Self::assemble(&header, Body::Fragment, packet));
        }
        let transport = header_len(&header);
        let body = match header.protocol().0 {
            6 => Body::Tcp(parse_tcp(payload, transport)?),
            17 => parse_udp(payload)?,
            1 => parse_icmp(payload, transport)?,
            other => Body::Other(other),
        };
        Ok(Self::assemble(&header, body, packet))
    }

    /// Reads a packet that an ICMP error quotes: at least the header and eight bytes of what follows.
    ///
    /// # Errors
    /// As [`PacketView::parse`], and [`PacketError::Checksum`] for a wrong header checksum. A quoted ICMP
    /// error is [`PacketError::Transport`]: no host sends an error about an error (RFC 1122 section 3.2.2).
    pub fn parse_quote(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| PacketError::Header)?;
        if internet_checksum(header.slice(), 0) != 0 {
            return Err(PacketError::Checksum);
        }
        let rest = bytes.get(header.slice().len()..).ok_or(PacketError::Header)?;
        let body = match header.protocol().0 {
            _ if header.fragments_offset().value() != 0 => Body::Fragment,
            6 => Body::Tcp(TcpSegment {
                src_port: word(rest, 0)?,
                dst_port: word(rest, 2)?,
                seq: (u32::from(word(rest, 4)?) << 16) | u32::from(word(rest, 6)?),
                ack: 0,
                flags: TcpFlags::default(),
                window: 0,
                payload_len: 0,
                window_scale: None,
                mss: None,
            }),
            17 => Body::Udp { src_port: word(rest, 0)?, dst_port: word(rest, 2)? },
            1 => {
                let role = query_role(*rest.first().ok_or(PacketError::Transport)?);
                let role = role.ok_or(PacketError::Transport)?;
                Body::IcmpQuery { role, id: word(rest, 4)? }
            }
            other => Body::Other(other),
        };
        Ok(Self::assemble(&header, body, bytes))
    }

    /// What the IPv4 header carries, transport header included; a quote's may be cut off.
    pub fn payload(&self) -> &'a [u8] {
        let end = usize::from(self.layout.total).min(self.bytes.len());
        self.bytes.get(usize::from(self.layout.transport)..end).unwrap_or_default()
    }

    /// What a UDP datagram or a TCP segment carries, and its offset from the start of the packet.
    pub fn data(&self) -> Option<(u16, &'a [u8])> {
        let payload = self.payload();
        let header = match self.body {
            Body::Udp { .. } => 8,
            Body::Tcp(_) => u16::from(payload.get(12)? >> 4) * 4,
            Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment | Body::Other(_) => return None,
        };
        Some((self.layout.transport + header, payload.get(usize::from(header)..)?))
    }

    fn assemble(header: &Ipv4HeaderSlice<'_>, body: Body<'a>, bytes: &'a [u8]) -> Self {
        Self {
            src: header.source_addr(),
            dst: header.destination_addr(),
            total_len: header.total_len(),
            dont_fragment: header.dont_fragment(),
            layout: Layout { transport: header_len(header), total: header.total_len() },
            body,
            bytes,
        }
    }

    /// The packet's tuple; `None` when it has none of its own (ICMP errors, fragments, other protocols).
    #[inline]
    pub fn tuple(&self) -> Option<Tuple> {
        let (protocol, src, dst) = match self.body {
            Body::Tcp(TcpSegment { src_port, dst_port, .. }) => (Protocol::Tcp, src_port, dst_port),
            Body::Udp { src_port, dst_port } => (Protocol::Udp, src_port, dst_port),
            Body::IcmpQuery { role: QueryRole::Request, id } => (Protocol::Icmp, id, 0),
            Body::IcmpQuery { role: QueryRole::Reply, id } => (Protocol::Icmp, 0, id),
            Body::IcmpError(_) | Body::Fragment | Body::Other(_) => return None,
        };
        Some(Tuple { protocol, src: Endpoint::new(self.src, src), dst: Endpoint::new(self.dst, dst) })
    }
}

fn header_len(header: &Ipv4HeaderSlice<'_>) -> u16 {
    u16::from(header.ihl()) * 4
}

fn word(bytes: &[u8], at: usize) -> Result<u16, PacketError> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(PacketError::Transport),
    }
}

#[inline]
fn parse_tcp(payload: &[u8], transport: u16) -> Result<TcpSegment, PacketError> {
    let tcp = TcpHeaderSlice::from_slice(payload).map_err(|_| PacketError::Transport)?;
    let header = tcp.slice().len();
    let flags = TcpFlags { syn: tcp.syn(), ack: tcp.ack(), fin: tcp.fin(), rst: tcp.rst() };
    let mut segment = TcpSegment {
        src_port: tcp.source_port(),
        dst_port: tcp.destination_port(),
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        flags,
        window: tcp.window_size(),
        payload_len: u32::try_from(payload.len() - header).map_err(|_| PacketError::Transport)?,
        window_scale: None,
        mss: None,
    };
    if flags.syn {
        let mut options = tcp.options_iterator();
        while let Some(Ok(option)) = options.next() {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the other options pass unread")]
            match option {
                TcpOptionElement::WindowScale(shift) => segment.window_scale = Some(shift.min(14)), // RFC 7323 §2.3
                TcpOptionElement::MaximumSegmentSize(mss) => {
                    let behind = header - options.rest().len();
                    segment.mss = u16::try_from(behind - 2).ok().map(|at| (mss, transport + at));
                }
                _ => {}
            }
        }
    }
    Ok(segment)
}

#[inline]
fn parse_udp(payload: &[u8]) -> Result<Body<'_>, PacketError> {
    let udp = UdpHeaderSlice::from_slice(payload).map_err(|_| PacketError::Transport)?;
    let length = usize::from(udp.length());
    if length < 8 || length > payload.len() {
        return Err(PacketError::Transport);
    }
    Ok(Body::Udp { src_port: udp.source_port(), dst_port: udp.destination_port() })
}

fn query_role(kind: u8) -> Option<QueryRole> {
    match kind {
        8 | 13 | 15 | 17 => Some(QueryRole::Request),
        0 | 14 | 16 | 18 => Some(QueryRole::Reply),
        _ => None,
    }
}

fn parse_icmp(payload: &[u8], transport: u16) -> Result<Body<'_>, PacketError> {
    let (&[kind, code, ..], Some(rest)) = (payload, payload.get(8..)) else {
        return Err(PacketError::Transport);
    };
    if let Some(role) = query_role(kind) {
        return Ok(Body::IcmpQuery { role, id: word(payload, 4)? });
    }
    if !matches!(kind, 3 | 4 | 5 | 11 | 12) {
        return Ok(Body::Other(1));
    }
    // RFC 5508 REQ-3: verify before believing.
    if internet_checksum(payload, 0) != 0 {
        return Err(PacketError::Checksum);
    }
    Ok(Body::IcmpError(IcmpError {
        kind,
        code,
        mtu: word(payload, 6)?,
        quote: rest,
        quote_offset: transport + 8,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: [u8; 44] = [
        0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 168, 1, 11, 198, 51, 100, 10, //
        0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x60, 0x02, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 5, 0xb4,
    ];

    #[test]
    fn a_syn_shows_its_ports_and_where_its_mss_lies() {
        let view = PacketView::parse(&SYN).unwrap();
        let Body::Tcp(segment) = view.body else { panic!("not TCP") };
        assert_eq!((segment.src_port, segment.dst_port, segment.seq), (40000, 80, 7));
        assert!(segment.flags.syn && !segment.flags.ack);
        assert_eq!(segment.mss, Some((1460, 42)));
        assert_eq!(view.layout, Layout { transport: 20, total: 44 });
    }

    #[test]
    fn every_cut_of_a_packet_is_an_error() {
        for len in 0..SYN.len() {
            assert!(PacketView::parse(&SYN[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_later_fragment_has_no_tuple() {
        let mut packet = SYN;
        packet[7] = 8;
        assert!(matches!(PacketView::parse(&packet).unwrap().body, Body::Fragment));
        assert_eq!(PacketView::parse(&packet).unwrap().tuple(), None);
    }

    #[test]
    fn a_udp_length_beyond_the_packet_is_refused() {
        let mut packet = SYN;
        packet[9] = 17;
        packet[24..26].copy_from_slice(&100u16.to_be_bytes());
        assert_eq!(PacketView::parse(&packet).unwrap_err(), PacketError::Transport);
    }

    #[test]
    fn a_quote_needs_only_eight_bytes_but_a_right_header_checksum() {
        let mut quote = SYN[..28].to_vec();
        assert_eq!(PacketView::parse_quote(&quote).unwrap_err(), PacketError::Checksum);
        let sum = internet_checksum(&quote[..20], 0);
        quote[10..12].copy_from_slice(&sum.to_be_bytes());
        let view = PacketView::parse_quote(&quote).unwrap();
        assert_eq!(view.tuple().unwrap().src, Endpoint::new(Ipv4Addr::new(192, 168, 1, 11), 40000));
        assert!(PacketView::parse_quote(&quote[..27]).is_err());
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut state = seed;
        for round in 0..200_000 {
            let mut packet = SYN.to_vec();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % packet.len();
                packet[at] = (state >> 20) as u8;
            }
            packet.truncate((state >> 40) as usize % 60);
            let (view, _) = (PacketView::parse(&packet), PacketView::parse_quote(&packet));
            if let Ok(view) = view {
                assert!(usize::from(view.layout.transport) <= packet.len(), "seed {seed} round {round}");
            }
        }
    }
}
