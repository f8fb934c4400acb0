//! From a captured frame to the IP packet in it.
//!
//! | number | link type | what leads to the packet |
//! |---|---|---|
//! | 0, 108 | BSD loopback | address family |
//! | 1 | Ethernet | Ethertype behind any VLAN tags (802.1Q, 802.1ad), PPPoE session included |
//! | 9, 50 | PPP | PPP protocol, behind HDLC's two bytes if they are there |
//! | 51 | PPPoE session | PPP protocol |
//! | 12, 14, 101, 228, 229 | IP itself | its version |
//! | 113, 276 | Linux cooked, versions 1 and 2 | as Ethernet |
//!
//! The numbers are those of capture files (<https://www.tcpdump.org/linktypes.html>), and 12 and 14, by which
//! libpcap calls IP itself.

use crate::observation::Point;

/// How the frames of a capture begin, by its number in capture files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkType(pub u16);

impl LinkType {
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// Linux cooked, version 2.
    pub const LINUX_SLL2: Self = Self(276);

    /// Can [`ip`] read it?
    pub const fn is_supported(self) -> bool {
        matches!(self.0, 0 | 1 | 9 | 12 | 14 | 50 | 51 | 101 | 108 | 113 | 228 | 229 | 276)
    }
}

/// Where a frame came from, as far as its link layer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Number of the interface on the host that captured.
    pub interface: Option<u32>,
    /// Did that host send it? `None`: not known.
    pub outgoing: Option<bool>,
    /// On which side of the NAT it was seen: only where [`Origin::header`] made the frame's beginning.
    pub point: Option<Point>,
}

/// What stands where Linux cooked has the sender's hardware address, said to be 0 bytes long: others do not look
/// at it, and the address is nobody's business in a file that is shared.
const SIDES: [([u8; 8], Point); 2] = [(*b"natd-lan", Point::Lan), (*b"natd-wan", Point::Wan)];

impl Origin {
    /// What to begin a frame of [`LinkType::LINUX_SLL2`] with, for a packet of IP version `version`.
    pub fn header(&self, version: u8) -> [u8; 20] {
        let ethertype = if version == 6 { IPV6 } else { IPV4 }.to_be_bytes();
        let interface = self.interface.unwrap_or(0).to_be_bytes();
        let side =
            SIDES.iter().find(|(_, point)| Some(*point) == self.point).map_or([0; 8], |(side, _)| *side);
        let mut header = [0; 20];
        let (fixed, address) = header.split_at_mut(12);
        let kind = if self.outgoing == Some(true) { 4 } else { 0 };
        let ([a, b], [c, d, e, f]) = (ethertype, interface);
        // ARPHRD_NONE (0xfffe): there is no hardware address.
        fixed.copy_from_slice(&[a, b, 0, 0, c, d, e, f, 0xff, 0xfe, kind, 0]);
        address.copy_from_slice(&side);
        header
    }
}

/// The IP packet in a frame, with whatever padding follows it; `None`: none, or the frame is cut off before it.
pub fn ip(link: LinkType, frame: &[u8]) -> Option<(&[u8], Origin)> {
    let (packet, origin) = match link.0 {
        0 | 108 => {
            loopback(*frame.first_chunk()?)?;
            (frame.get(4..)?, Origin::default())
        }
        1 => (behind_ethertype(frame, 12)?, Origin::default()),
        9 | 50 => (ppp(frame)?, Origin::default()),
        51 => (pppoe(frame)?, Origin::default()),
        12 | 14 | 101 | 228 | 229 => (frame, Origin::default()),
        113 => {
            let origin = Origin { outgoing: outgoing(be16(frame, 0)?), ..Origin::default() };
            (behind_ethertype(frame, 14)?, origin)
        }
        276 => cooked_v2(frame)?,
        _ => return None,
    };
    let version = packet.first()? >> 4;
    matches!(version, 4 | 6).then_some((packet, origin))
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const PPPOE_SESSION: u16 = 0x8864;

/// What follows the Ethertype at `at`, and all tags.
fn behind_ethertype(frame: &[u8], mut at: usize) -> Option<&[u8]> {
    // More tags than two are rare; frames end somewhere.
    loop {
        let ethertype = be16(frame, at)?;
        let behind = frame.get(at + 2..)?;
        match ethertype {
            0x8100 | 0x88a8 | 0x9100 | 0x9200 => at += 4,
            IPV4 | IPV6 => return Some(behind),
            PPPOE_SESSION => return pppoe(behind),
            _ => return None,
        }
    }
}

/// RFC 2516 section 4: version and type, code (0: session data), session, length.
fn pppoe(bytes: &[u8]) -> Option<&[u8]> {
    let &[0x11, 0, _, _, high, low, ref frame @ ..] = bytes else { return None };
    let len = usize::from(u16::from_be_bytes([high, low]));
    ppp(frame.get(..len).unwrap_or(frame))
}

/// RFC 1661 section 2, with or without RFC 1662's address and control, the protocol in one byte or two.
fn ppp(bytes: &[u8]) -> Option<&[u8]> {
    let bytes = bytes.strip_prefix(&[0xff, 0x03]).unwrap_or(bytes);
    match bytes {
        // Direction, as pppd records it: 0 received, 1 sent.
        [0 | 1, 0xff, 0x03, frame @ ..] => ppp(frame),
        [0, 0x21 | 0x57, packet @ ..] | [0x21 | 0x57, packet @ ..] => Some(packet),
        _ => None,
    }
}

/// Packet type 4 is "sent by us" in both versions of Linux cooked.
fn outgoing(kind: u16) -> Option<bool> {
    (kind <= 4).then_some(kind == 4)
}

/// Protocol, two bytes of nothing, interface, ARPHRD, packet type, address.
fn cooked_v2(frame: &[u8]) -> Option<(&[u8], Origin)> {
    let interface = u32::from_be_bytes(*frame.get(4..)?.first_chunk()?);
    let &[kind, address_len, ref address @ ..] = frame.get(10..20)? else { return None };
    let side = SIDES.iter().find(|(side, _)| address_len == 0 && side == address);
    let origin = Origin {
        interface: Some(interface),
        outgoing: outgoing(u16::from(kind)),
        point: side.map(|(_, point)| *point),
    };
    let behind = frame.get(20..)?;
    let packet = match be16(frame, 0)? {
        IPV4 | IPV6 => behind,
        PPPOE_SESSION => pppoe(behind)?,
        // The rest of the tag: its value, then the Ethertype.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => behind_ethertype(behind, 2)?,
        _ => return None,
    };
    Some((packet, origin))
}

/// An address family of IP, in either byte order: 2 is IPv4 everywhere, IPv6 has a number on each BSD.
fn loopback(family: [u8; 4]) -> Option<()> {
    let is_ip = |family| matches!(family, 2 | 10 | 24 | 28 | 30);
    (is_ip(u32::from_be_bytes(family)) || is_ip(u32::from_le_bytes(family))).then_some(())
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [u8; 6] = [0x45, 0, 0, 40, 1, 2];
    const V6: [u8; 6] = [0x60, 0, 0, 0, 0, 9];
    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn of(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn every_link_type_leads_to_its_packet() {
        let tag = [0x81, 0, 0, 7];
        let service_tag = [0x88, 0xa8, 0, 9];
        let session = [0x11, 0, 0x12, 0x34, 0, 8];
        let rows: [(&str, u16, Vec<u8>, &[u8]); 26] = [
            ("null, little endian", 0, of(&[&[2, 0, 0, 0], &V4]), &V4),
            ("null, big endian", 0, of(&[&[0, 0, 0, 2], &V4]), &V4),
            ("null, IPv6 of FreeBSD", 0, of(&[&[28, 0, 0, 0], &V6]), &V6),
            ("loop", 108, of(&[&[0, 0, 0, 30], &V6]), &V6),
            ("Ethernet", 1, of(&[&MACS, &[8, 0], &V4]), &V4),
            ("Ethernet, IPv6", 1, of(&[&MACS, &[0x86, 0xdd], &V6]), &V6),
            ("VLAN", 1, of(&[&MACS, &tag, &[8, 0], &V4]), &V4),
            ("VLAN in VLAN", 1, of(&[&MACS, &service_tag, &tag, &[8, 0], &V4]), &V4),
            ("PPPoE", 1, of(&[&MACS, &[0x88, 0x64], &session, &[0, 0x21], &V4]), &V4),
            ("PPPoE, IPv6", 1, of(&[&MACS, &[0x88, 0x64], &session, &[0, 0x57], &V6]), &V6),
            (
                "PPPoE in VLAN, padded",
                1,
                of(&[&MACS, &tag, &[0x88, 0x64], &session, &[0, 0x21], &V4, &[0; 9]]),
                &V4,
            ),
            ("PPPoE, cut off", 1, of(&[&MACS, &[0x88, 0x64], &session, &[0, 0x21], &V4[..3]]), &V4[..3]),
            ("PPP", 9, of(&[&[0, 0x21], &V4]), &V4),
            ("PPP with HDLC", 9, of(&[&[0xff, 3, 0, 0x21], &V4]), &V4),
            ("PPP, short protocol", 9, of(&[&[0x21], &V4]), &V4),
            ("PPP of pppd", 9, of(&[&[1, 0xff, 3, 0, 0x57], &V6]), &V6),
            ("PPP, serial", 50, of(&[&[0xff, 3, 0, 0x57], &V6]), &V6),
            ("PPPoE alone", 51, of(&[&session, &[0, 0x21], &V4]), &V4),
            ("raw", 12, V4.to_vec(), &V4),
            ("raw", 14, V6.to_vec(), &V6),
            ("raw", 101, V6.to_vec(), &V6),
            ("IPv4", 228, V4.to_vec(), &V4),
            ("IPv6", 229, V6.to_vec(), &V6),
            ("cooked", 113, of(&[&[0; 14], &[8, 0], &V4]), &V4),
            ("cooked, PPPoE", 113, of(&[&[0; 14], &[0x88, 0x64], &session, &[0, 0x21], &V4]), &V4),
            ("cooked 2, VLAN", 276, of(&[&[0x81, 0], &[0; 18], &[0, 7, 8, 0], &V4]), &V4),
        ];
        for (name, link, frame, packet) in rows {
            assert!(LinkType(link).is_supported());
            assert_eq!(ip(LinkType(link), &frame).map(|(packet, _)| packet), Some(packet), "{name}");
            let headers = frame.windows(packet.len()).position(|window| window == packet).unwrap();
            for cut in 0..=headers {
                assert_eq!(ip(LinkType(link), &frame[..cut]), None, "{name}, cut off at {cut}");
            }
        }
    }

    #[test]
    fn linux_says_where_a_packet_went() {
        for (kind, outgoing) in [(0, Some(false)), (3, Some(false)), (4, Some(true)), (9, None)] {
            let frame = of(&[&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, kind, 6], &[0; 8], &V4]);
            let origin = Origin { interface: Some(3), outgoing, point: None };
            assert_eq!(ip(LinkType::LINUX_SLL2, &frame), Some((&V4[..], origin)));
            let frame = of(&[&[0, kind, 0, 1, 0, 6], &[0; 8], &[8, 0], &V4]);
            assert_eq!(ip(LinkType(113), &frame), Some((&V4[..], Origin { outgoing, ..Origin::default() })));
        }
    }

    #[test]
    fn a_header_says_where_its_packet_was_seen() {
        for (packet, point, sent) in
            [(V4, Some(Point::Lan), false), (V6, Some(Point::Wan), true), (V4, None, true)]
        {
            let origin = Origin { interface: Some(70_000), outgoing: Some(sent), point };
            let frame = of(&[&origin.header(packet[0] >> 4), &packet]);
            assert_eq!(ip(LinkType::LINUX_SLL2, &frame), Some((&packet[..], origin)));
        }
    }

    #[test]
    fn what_is_not_ip_is_none() {
        let rows: [(&str, u16, Vec<u8>); 9] = [
            ("ARP", 1, of(&[&MACS, &[8, 6], &V4])),
            ("an 802.3 length", 1, of(&[&MACS, &[0, 40], &V4])),
            ("PPPoE discovery", 1, of(&[&MACS, &[0x88, 0x63, 0x11, 9, 0, 0, 0, 6, 0, 0x21], &V4])),
            ("LCP", 9, of(&[&[0xff, 3, 0xc0, 0x21], &V4])),
            ("AppleTalk on loopback", 0, of(&[&[16, 0, 0, 0], &V4])),
            ("not a version of IP", 101, vec![0x50; 40]),
            ("tags only", 1, of(&[&MACS, &[0x81, 0, 0, 7].repeat(100)])),
            ("cooked ARP", 276, of(&[&[8, 6], &[0; 18], &V4])),
            ("Wi-Fi with radiotap", 127, V4.to_vec()),
        ];
        for (name, link, frame) in rows {
            assert_eq!(ip(LinkType(link), &frame), None, "{name}");
        }
        assert!(!LinkType(127).is_supported());
    }
}
