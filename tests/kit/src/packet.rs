//! IPv4 packets: built with correct checksums, and read back from the wire, ICMP quotes included.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{
    Icmpv4Header, Icmpv4Slice, IpNumber, Ipv4Header, Ipv4HeaderSlice, PacketBuilder, TcpHeaderSlice,
    UdpHeaderSlice,
};

use crate::address::is_lan;

/// Time to live of packets that tests build.
const TTL: u8 = 64;

/// The TCP header fields that tests look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFields {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number; 0 when the ACK flag is off.
    pub ack: u32,
    /// SYN flag.
    pub syn: bool,
    /// RST flag.
    pub rst: bool,
    /// FIN flag.
    pub fin: bool,
    /// The MSS option.
    pub mss: Option<u16>,
}

/// What stands in an IPv4 packet; ports are 0 where there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Is it part of a fragmented packet?
    pub fragment: bool,
    /// Source port; for ICMP queries the identifier.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TCP fields.
    pub tcp: Option<TcpFields>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// The packet that an ICMP error quotes.
    pub quote: Option<Box<Wire>>,
    /// Bytes after the transport header, by the lengths in the headers.
    pub payload_len: usize,
}

impl Wire {
    /// Reads a packet that may be cut off after its transport header; `None` when even that is not whole.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let ip = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        let header_len = ip.slice().len();
        let body = bytes.get(header_len..)?;
        let body_len = usize::from(ip.total_len()).checked_sub(header_len)?;
        let mut wire = Self {
            src: ip.source_addr(),
            dst: ip.destination_addr(),
            protocol: ip.protocol().0,
            ttl: ip.ttl(),
            fragment: ip.is_fragmenting_payload(),
            src_port: 0,
            dst_port: 0,
            tcp: None,
            icmp: None,
            quote: None,
            payload_len: body_len,
        };
        if ip.fragments_offset().value() == 0 {
            wire.read_transport(body, body_len)?;
        }
        Some(wire)
    }

    fn read_transport(&mut self, body: &[u8], body_len: usize) -> Option<()> {
        match IpNumber(self.protocol) {
            IpNumber::TCP => {
                // A quote may hold no more than the ports and the sequence number (RFC 792).
                self.src_port = word(body, 0)?;
                self.dst_port = word(body, 2)?;
                let Ok(tcp) = TcpHeaderSlice::from_slice(body) else {
                    return Some(());
                };
                let mss = tcp.options_iterator().flatten().find_map(|option| {
                    if let etherparse::TcpOptionElement::MaximumSegmentSize(mss) = option {
                        Some(mss)
                    } else {
                        None
                    }
                });
                self.tcp = Some(TcpFields {
                    seq: tcp.sequence_number(),
                    ack: tcp.acknowledgment_number(),
                    syn: tcp.syn(),
                    rst: tcp.rst(),
                    fin: tcp.fin(),
                    mss,
                });
                self.payload_len = body_len.saturating_sub(tcp.slice().len());
            }
            IpNumber::UDP => {
                let udp = UdpHeaderSlice::from_slice(body).ok()?;
                self.src_port = udp.source_port();
                self.dst_port = udp.destination_port();
                self.payload_len = body_len.saturating_sub(8);
            }
            IpNumber::ICMP => {
                let icmp = Icmpv4Slice::from_slice(body).ok()?;
                self.icmp = Some((icmp.type_u8(), icmp.code_u8()));
                self.payload_len = body_len.saturating_sub(8);
                match icmp.type_u8() {
                    0 | 8 => self.src_port = word(body, 4)?,
                    3 | 4 | 5 | 11 | 12 => self.quote = Self::parse(body.get(8..)?).map(Box::new),
                    _ => {}
                }
            }
            _ => {}
        }
        Some(())
    }

    /// Source as address and port.
    pub fn from(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.src, self.src_port)
    }

    /// Destination as address and port.
    pub fn to(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.dst, self.dst_port)
    }

    /// Does a household address stand in its header or in its quote? On the WAN that is a leak.
    pub fn shows_lan(&self) -> bool {
        is_lan(self.src) || is_lan(self.dst) || self.quote.as_ref().is_some_and(|quote| quote.shows_lan())
    }

    /// Is it an ICMP error of this type and code?
    pub fn is_icmp(&self, kind: u8, code: u8) -> bool {
        self.icmp == Some((kind, code))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A UDP packet.
pub fn udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), TTL).udp(from.port(), to.port());
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).expect("a vector takes all");
    packet
}

/// What a forged TCP segment says.
#[derive(Clone, Copy, Debug)]
pub enum Segment {
    /// RST without ACK.
    Rst,
    /// RST with this acknowledgment number.
    RstAck(u32),
    /// Data with this acknowledgment number.
    Ack(u32),
    /// SYN.
    Syn,
}

/// A TCP packet with sequence number `seq`.
pub fn tcp(from: SocketAddrV4, to: SocketAddrV4, seq: u32, segment: Segment, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), TTL).tcp(
        from.port(),
        to.port(),
        seq,
        u16::MAX,
    );
    let builder = match segment {
        Segment::Rst => builder.rst(),
        Segment::RstAck(ack) => builder.rst().ack(ack),
        Segment::Ack(ack) => builder.psh().ack(ack),
        Segment::Syn => builder.syn(),
    };
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).expect("a vector takes all");
    packet
}

/// An ICMP echo request.
pub fn echo_request(from: Ipv4Addr, to: Ipv4Addr, id: u16, seq: u16) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), TTL).icmpv4_echo_request(id, seq);
    let payload = b"natd lab";
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload).expect("a vector takes all");
    packet
}

/// An ICMP error (type, code, last two bytes of the header's second word, for instance the next hop's MTU)
/// that quotes the first 28 bytes, or as many as there are, of `quoted`.
pub fn icmp_error(from: Ipv4Addr, to: Ipv4Addr, kind: u8, code: u8, rest: u16, quoted: &[u8]) -> Vec<u8> {
    let quote = quoted.get(..28).unwrap_or(quoted);
    let [high, low] = rest.to_be_bytes();
    let builder =
        PacketBuilder::ipv4(from.octets(), to.octets(), TTL).icmpv4_raw(kind, code, [0, 0, high, low]);
    let mut packet = Vec::with_capacity(builder.size(quote.len()));
    builder.write(&mut packet, quote).expect("a vector takes all");
    packet
}

/// Cuts a packet into fragments of at most `mtu` bytes, all with the identification `id`, in order.
///
/// # Panics
/// When `packet` is no IPv4 packet without options.
pub fn fragments(packet: &[u8], id: u16, mtu: usize) -> Vec<Vec<u8>> {
    let (header, body) = Ipv4Header::from_slice(packet).expect("an IPv4 packet");
    assert_eq!(header.header_len(), 20, "no options");
    let step = (mtu - 20) / 8 * 8;
    let pieces: Vec<&[u8]> = body.chunks(step).collect();
    let last = pieces.len().saturating_sub(1);
    let mut offset = 0;
    let mut cut = Vec::new();
    for (number, piece) in pieces.into_iter().enumerate() {
        let mut head = header.clone();
        head.identification = id;
        head.dont_fragment = false;
        head.more_fragments = number != last;
        head.fragment_offset = u16::try_from(offset / 8)
            .ok()
            .and_then(|value| etherparse::IpFragOffset::try_new(value).ok())
            .expect("a packet is at most 65,535 bytes");
        head.set_payload_len(piece.len()).expect("a piece is smaller than the packet");
        head.header_checksum = head.calc_header_checksum();
        let mut bytes = head.to_bytes().to_vec();
        bytes.extend_from_slice(piece);
        cut.push(bytes);
        offset += piece.len();
    }
    cut
}

/// Are the IP header's and, for ICMP, the message's checksums right?
pub fn checksums_are_right(packet: &[u8]) -> bool {
    let Ok((header, body)) = Ipv4Header::from_slice(packet) else {
        return false;
    };
    if header.header_checksum != header.calc_header_checksum() {
        return false;
    }
    header.protocol != IpNumber::ICMP
        || Icmpv4Header::from_slice(body)
            .is_ok_and(|(icmp, payload)| icmp.checksum == icmp.icmp_type.calc_checksum(payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{D1, S1, STRANGER, WAN, at};

    #[test]
    fn a_lan_address_in_a_quote_is_seen() {
        let inner = udp(at(D1, 5000), at(S1, 53), b"question");
        let error = icmp_error(STRANGER, S1, 3, 3, 0, &inner);
        let wire = Wire::parse(&error).unwrap();
        assert!(wire.is_icmp(3, 3) && wire.shows_lan());
        assert_eq!(wire.quote.unwrap().from(), at(D1, 5000));
        assert!(checksums_are_right(&error));
    }

    #[test]
    fn a_quote_of_the_wan_address_is_no_leak() {
        let inner = tcp(at(WAN, 5000), at(S1, 80), 7, Segment::Ack(9), b"");
        assert!(!Wire::parse(&icmp_error(STRANGER, S1, 11, 0, 0, &inner)).unwrap().shows_lan());
    }

    #[test]
    fn fragments_hold_the_whole_packet() {
        let packet = udp(at(D1, 5000), at(S1, 53), &[7; 4000]);
        let cut = fragments(&packet, 99, 1500);
        assert_eq!(cut.iter().map(|piece| piece.len() - 20).collect::<Vec<_>>(), [1480, 1480, 1048]);
        let wires: Vec<Wire> = cut.iter().filter_map(|piece| Wire::parse(piece)).collect();
        assert!(wires.iter().all(|wire| wire.fragment));
        assert_eq!(wires.iter().map(|wire| wire.dst_port).collect::<Vec<_>>(), [53, 0, 0]);
    }

    #[test]
    fn cut_off_packets_are_refused() {
        let packet = udp(at(D1, 5000), at(S1, 53), b"question");
        for len in 0..28 {
            assert_eq!(Wire::parse(packet.get(..len).unwrap()), None, "{len} bytes");
        }
    }
}
