//! One IP packet, of either version, whole or cut off by a capture's snap length.

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// Its beginning.
    First,
    /// A part behind its beginning.
    Later,
}

/// An IP packet behind whatever link layer it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// The protocol behind all extension headers of IPv6. AH (51) is a protocol here, not such a header.
    pub protocol: u8,
    /// IPv4 identification, or that of IPv6's fragment header; 0 without one.
    pub ident: u32,
    /// The don't-fragment bit; always set in IPv6.
    pub dont_fragment: bool,
    /// Which part it is.
    pub fragment: Fragment,
    /// Bytes of the whole packet on the wire, from the IP header on.
    pub ip_len: u32,
    /// Bytes behind all IP headers, on the wire.
    pub payload_len: u32,
    /// What follows the IP headers, as far as it was captured.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet from its IP header on; `bytes` may be cut off anywhere behind the IP headers.
    ///
    /// `None`: no IP header, a cut-off one, or one that contradicts itself. Checksums are not looked at: network
    /// cards fill them in behind a capture's back. Bytes behind the packet's own length are ignored.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::parse_cut(bytes, u32::try_from(bytes.len()).ok()?)
    }

    /// As [`Self::parse`], where the link layer says that `on_wire` bytes were sent. That is the packet's length
    /// if its header says 0, as it does before the network card has cut it into segments.
    pub fn parse_cut(bytes: &'a [u8], on_wire: u32) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::v4(bytes, on_wire),
            6 => Self::v6(bytes, on_wire),
            _ => None,
        }
    }

    fn v4(bytes: &'a [u8], on_wire: u32) -> Option<Self> {
        let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        let ip_len = match header.total_len() {
            0 => on_wire,
            said => u32::from(said),
        };
        let (payload_len, payload) = behind(bytes, header.slice().len(), ip_len)?;
        Some(Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            ttl: header.ttl(),
            protocol: header.protocol().0,
            ident: u32::from(header.identification()),
            dont_fragment: header.dont_fragment(),
            fragment: part(header.fragments_offset().value(), header.more_fragments()),
            ip_len,
            payload_len,
            payload,
        })
    }

    fn v6(bytes: &'a [u8], on_wire: u32) -> Option<Self> {
        const NO_NEXT_HEADER: u8 = 59;
        let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
        let ip_len = match (header.payload_length(), header.next_header().0) {
            (0, next) if next != NO_NEXT_HEADER => on_wire,
            (said, _) => 40 + u32::from(said),
        };
        let extensions = Extensions::walk(bytes, header.next_header().0)?;
        let (payload_len, payload) = behind(bytes, extensions.end, ip_len)?;
        Some(Self {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            ttl: header.hop_limit(),
            protocol: extensions.next,
            ident: extensions.ident,
            dont_fragment: true,
            fragment: extensions.fragment,
            ip_len,
            payload_len,
            payload,
        })
    }
}

/// IPv6's extension headers (RFC 8200 section 4). etherparse would go on behind AH too, which is a VPN's here.
struct Extensions {
    /// The protocol behind them. Of a later fragment what its first one goes on with, which may be another
    /// extension header.
    next: u8,
    /// Where they end, from the packet's beginning.
    end: usize,
    ident: u32,
    fragment: Fragment,
}

impl Extensions {
    /// More than any sender uses: RFC 8200 has each once, destination options twice.
    const MOST: usize = 12;

    fn walk(bytes: &[u8], next: u8) -> Option<Self> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION_OPTIONS: u8 = 60;
        let mut seen = Self { next, end: 40, ident: 0, fragment: Fragment::Whole };
        for _ in 0..Self::MOST {
            let len = match seen.next {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8 + usize::from(*bytes.get(seen.end + 1)?) * 8,
                FRAGMENT => 8,
                _ => return Some(seen),
            };
            let header = bytes.get(seen.end..seen.end + len)?;
            if seen.next == FRAGMENT {
                let &[_, _, high, low, ref ident @ ..] = header else { return None };
                let field = u16::from_be_bytes([high, low]);
                seen.fragment = part(field >> 3, field & 1 != 0);
                seen.ident = u32::from_be_bytes(*ident.first_chunk()?);
            }
            seen.next = *header.first()?;
            seen.end += len;
            if seen.fragment == Fragment::Later {
                return Some(seen);
            }
        }
        None
    }
}

/// Which part has this offset, and more behind it or not.
fn part(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// How much follows `headers` bytes in a packet of `ip_len`, and what of it is there.
fn behind(bytes: &[u8], headers: usize, ip_len: u32) -> Option<(u32, &[u8])> {
    let payload_len = ip_len.checked_sub(u32::try_from(headers).ok()?)?;
    let payload = bytes.get(headers..)?;
    let there = payload.len().min(usize::try_from(payload_len).ok()?);
    Some((payload_len, payload.get(..there)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet without checksum that carries `payload`.
    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 63, protocol, 0, 0];
        packet.extend([192, 168, 1, 11, 198, 51, 100, 10]);
        packet.extend(payload);
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet
    }

    /// An IPv6 packet whose first next header is `next`.
    fn v6(next: u8, behind: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 55];
        packet[4..6].copy_from_slice(&u16::try_from(behind.len()).unwrap().to_be_bytes());
        packet.extend("2001:db8::11".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8:1::10".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend(behind);
        packet
    }

    #[test]
    fn ipv4_is_read_without_its_padding_and_without_its_checksum() {
        let mut bytes = v4(50, &[1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend([0; 18]);
        let expected = Packet {
            src: [192, 168, 1, 11].into(),
            dst: [198, 51, 100, 10].into(),
            ttl: 63,
            protocol: 50,
            ident: 0x1234,
            dont_fragment: true,
            fragment: Fragment::Whole,
            ip_len: 28,
            payload_len: 8,
            payload: &[1, 2, 3, 4, 5, 6, 7, 8],
        };
        assert_eq!(Packet::parse(&bytes), Some(expected));
        assert_eq!(Packet::parse(&bytes[..22]), Some(Packet { payload: &[1, 2], ..expected }), "cut off");
        assert_eq!(Packet::parse(&bytes[..20]), Some(Packet { payload: &[], ..expected }));
        assert_eq!(Packet::parse(&bytes[..19]), None);
    }

    #[test]
    fn ipv4_options_are_passed_over() {
        let mut bytes = v4(17, &[7, 7, 7, 7, 1, 2]);
        bytes[0] = 0x46;
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.payload_len, packet.payload), (2, &[1, 2][..]));
        bytes[0] = 0x44;
        assert_eq!(Packet::parse(&bytes), None, "a header shorter than a header");
        bytes[0] = 0x45;
        bytes[3] = 19;
        assert_eq!(Packet::parse(&bytes), None, "a packet shorter than its header");
    }

    #[test]
    fn a_length_of_0_is_that_on_the_wire() {
        let mut bytes = v4(6, &[1, 2, 3, 4]);
        bytes[2..4].fill(0);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.ip_len, packet.payload_len, packet.payload.len()), (24, 4, 4));
        let packet = Packet::parse_cut(&bytes, 70_020).unwrap();
        assert_eq!((packet.ip_len, packet.payload_len, packet.payload.len()), (70_020, 70_000, 4));

        let mut bytes = v6(6, &[1, 2, 3, 4]);
        bytes[4..6].fill(0);
        let packet = Packet::parse_cut(&bytes, 70_040).unwrap();
        assert_eq!((packet.ip_len, packet.payload_len, packet.payload.len()), (70_040, 70_000, 4));
        bytes[6] = 59;
        assert_eq!(Packet::parse(&bytes).unwrap().payload_len, 0, "nothing follows");
    }

    #[test]
    fn fragments_of_ipv4_are_told_apart() {
        let rows = [
            ([0x40, 0], Fragment::Whole),
            ([0x20, 0], Fragment::First),
            ([0x20, 185], Fragment::Later),
            ([0, 185], Fragment::Later),
            ([0x1f, 0xff], Fragment::Later),
        ];
        for (field, fragment) in rows {
            let mut bytes = v4(17, &[1, 2, 3, 4]);
            bytes[6..8].copy_from_slice(&field);
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!(
                (packet.fragment, packet.dont_fragment),
                (fragment, field[0] & 0x40 != 0),
                "{field:?}"
            );
        }
    }

    #[test]
    fn ipv6_is_read_behind_its_extension_headers() {
        let plain = v6(50, &[1, 2, 3, 4]);
        let expected = Packet {
            src: "2001:db8::11".parse().unwrap(),
            dst: "2001:db8:1::10".parse().unwrap(),
            ttl: 55,
            protocol: 50,
            ident: 0,
            dont_fragment: true,
            fragment: Fragment::Whole,
            ip_len: 44,
            payload_len: 4,
            payload: &[1, 2, 3, 4],
        };
        assert_eq!(Packet::parse(&plain), Some(expected));
        assert_eq!(Packet::parse(&plain[..39]), None);

        let hop_by_hop = [43, 0, 5, 2, 0, 0, 1, 0];
        let routing = [60, 1, 4, 1, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9];
        let options = [44, 0, 1, 4, 0, 0, 0, 0];
        let fragment = [17, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef];
        let all = v6(0, &[&hop_by_hop[..], &routing, &options, &fragment, &[1, 2, 3, 4]].concat());
        let seen = Packet::parse(&all).unwrap();
        let read = Packet { protocol: 17, ident: 0xdead_beef, ip_len: 84, ..expected };
        assert_eq!(seen, read);
        for cut in 40..80 {
            assert_eq!(Packet::parse(&all[..cut]), None, "cut off within its headers, at {cut}");
        }
        assert_eq!(Packet::parse(&all[..82]), Some(Packet { payload: &[1, 2], ..read }));
    }

    #[test]
    fn ah_is_a_protocol_in_both_versions() {
        let ah = [50, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for bytes in [v4(51, &ah), v6(51, &ah)] {
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((packet.protocol, packet.payload), (51, &ah[..]));
        }
    }

    #[test]
    fn fragments_of_ipv6_are_told_apart() {
        let rows = [
            ([0, 1], Fragment::First),
            ([0, 0], Fragment::Whole),
            ([0x05, 0xa9], Fragment::Later),
            ([0x05, 0xa8], Fragment::Later),
        ];
        for ([high, low], fragment) in rows {
            let bytes = v6(44, &[17, 0, high, low, 0, 0, 0, 7, 1, 2, 3, 4]);
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((packet.fragment, packet.ident, packet.protocol), (fragment, 7, 17));
        }
        // What looks like a header there is the middle of a datagram.
        let later = v6(44, &[60, 0, 0x05, 0xa8, 0, 0, 0, 7, 17, 200, 3, 4]);
        let packet = Packet::parse(&later).unwrap();
        assert_eq!((packet.protocol, packet.payload), (60, &[17, 200, 3, 4][..]));
    }

    #[test]
    fn headers_without_end_and_noise_are_refused() {
        let endless = v6(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(100));
        assert_eq!(Packet::parse(&endless), None);
        let longer_than_the_packet = {
            let mut bytes = v6(60, &[17, 0, 1, 4, 0, 0, 0, 0, 1, 2]);
            bytes[5] = 7;
            bytes
        };
        assert_eq!(Packet::parse(&longer_than_the_packet), None);
        for bytes in [&[][..], &[0x45], &[0x60], &[0x50; 64], &[0xff; 64], &[0x4f; 30], &[0; 64]] {
            assert_eq!(Packet::parse(bytes), None, "{bytes:x?}");
        }
    }
}
