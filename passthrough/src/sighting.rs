//! What a single packet is, seen without memory.
//!
//! Ports decide first, the server's before the client's: the destination's, then the source's, because a client
//! need not use the port of its protocol and a NAT on the way may have changed it. What the packet says decides
//! where ports say nothing, and only if it could hardly be chance. A sighting is no proof of a session: whoever
//! opens anything on its strength must have seen more.

use nat_core::packet::{Body, PacketView};

use crate::bytes::{be16, be32};
use crate::esp::{AhHeader, EspHeader};
use crate::ike::{IkeHeader, NatTPacket, nat_t_packet};
use crate::{openvpn, wireguard};

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting<'a> {
    /// A message of IKE, or the first IP packet's worth of it.
    Ike {
        /// Its header.
        header: IkeHeader,
        /// Did it come behind a non-ESP marker, as on UDP 4500?
        nat_t_port: bool,
        /// The message from its header on, the marker not included.
        message: &'a [u8],
    },
    /// A NAT keepalive (RFC 3948 section 2.3).
    NatTKeepalive,
    /// ESP in UDP (RFC 3948 section 2.1).
    NatTEsp(EspHeader),
    /// ESP, IP protocol 50.
    Esp(EspHeader),
    /// AH, IP protocol 51.
    Ah(AhHeader),
    /// Part of a PPTP control connection (RFC 2637): bytes on TCP 1723, or a whole message's head elsewhere.
    PptpControl,
    /// The GRE of PPTP (RFC 2637 section 4.1).
    PptpGre {
        /// The call, in the receiver's numbering. 0 is as good as any.
        call_id: u16,
        /// Sequence number; `None` in a packet that only acknowledges, or that is cut off before it.
        sequence: Option<u32>,
    },
    /// Other GRE (RFC 2784, RFC 2890; version 1 of other inventions).
    Gre {
        /// The key; `None` where there is none, and in version 1.
        key: Option<u32>,
        /// Ethertype of what it carries.
        protocol: u16,
    },
    /// L2TP on UDP 1701 (RFC 2661, RFC 3931).
    L2tp {
        /// 2 or 3.
        version: u8,
        /// A control message?
        control: bool,
        /// Version 2: tunnel ID. Version 3: control connection ID, 0 in data. In the receiver's numbering.
        tunnel: u32,
        /// Session ID in the receiver's numbering; version 3: 0 in control messages.
        session: u32,
    },
    /// L2TPv3 on IP protocol 115 (RFC 3931 section 4.1.1).
    L2tpIp {
        /// Session ID in the receiver's numbering; 0: a control message.
        session: u32,
    },
    /// A WireGuard message.
    WireGuard(wireguard::Message),
    /// An OpenVPN packet.
    OpenVpn(openvpn::Packet),
}

/// Says what a packet is; `None`: no VPN's, or too little of it to tell.
///
/// Also takes a packet that an ICMP error quotes; of UDP and TCP such a quote rarely shows more than the ports,
/// which is too little. A fragment gives `None`, the first one too: fragments are put together before this.
pub fn recognise<'a>(packet: &PacketView<'a>) -> Option<Sighting<'a>> {
    match packet.body {
        Body::Udp { .. } => recognise_payload(17, ip_payload(packet)?),
        Body::Tcp(_) => recognise_payload(6, ip_payload(packet)?),
        Body::Other(protocol) => recognise_payload(protocol, ip_payload(packet)?),
        Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment => None,
    }
}

/// Says what the payload of an IP packet of either version is; `protocol` is its number, behind all extension
/// headers.
///
/// `payload` may be cut off, or be the first fragment's: then less is recognised.
pub fn recognise_payload(protocol: u8, payload: &[u8]) -> Option<Sighting<'_>> {
    let ports = || Some((be16(payload, 0)?, be16(payload, 2)?));
    match protocol {
        6 => {
            let (src, dst) = ports()?;
            let header = usize::from(payload.get(12)? >> 4) * 4;
            on_tcp(src, dst, payload.get(header..)?)
        }
        17 => {
            let (src, dst) = ports()?;
            let end = usize::from(be16(payload, 4)?).min(payload.len());
            on_udp(src, dst, payload.get(8..end)?)
        }
        47 => on_gre(payload),
        50 => EspHeader::parse(payload).map(Sighting::Esp),
        51 => AhHeader::parse(payload).map(Sighting::Ah),
        115 => be32(payload, 0).map(|session| Sighting::L2tpIp { session }),
        _ => None,
    }
}

/// What follows the IP header, as far as it is there.
fn ip_payload<'a>(packet: &PacketView<'a>) -> Option<&'a [u8]> {
    let end = usize::from(packet.layout.total).min(packet.bytes.len());
    packet.bytes.get(usize::from(packet.layout.transport)..end)
}

fn on_udp(src: u16, dst: u16, payload: &[u8]) -> Option<Sighting<'_>> {
    let by_port = |(port, other)| match (port, other) {
        // One of the two was changed on the way: only the marker tells, and 4500 looks for it.
        (500, 4500) => None,
        (4500, 500) => whole_ike(payload).or_else(|| on_4500(payload)),
        (500, _) => on_500(payload),
        (4500, _) => on_4500(payload),
        (1194, _) => openvpn::read_udp(payload).map(Sighting::OpenVpn),
        (1701, _) => on_1701(payload),
        _ => None,
    };
    [(dst, src), (src, dst)]
        .into_iter()
        .find_map(by_port)
        .or_else(|| wireguard::parse(payload).map(Sighting::WireGuard))
        .or_else(|| openvpn::parse_udp(payload).map(Sighting::OpenVpn))
}

fn on_500(payload: &[u8]) -> Option<Sighting<'_>> {
    // The drafts of NAT traversal, before 4500 was assigned, sent keepalives here.
    if payload == [0xff] {
        return Some(Sighting::NatTKeepalive);
    }
    // WireGuard is at home on any port, and one message in eight has something like a version where IKE has it.
    whole_ike(payload)
        .or_else(|| if wireguard::parse(payload).is_none() { ike(payload, false) } else { None })
}

fn on_4500(payload: &[u8]) -> Option<Sighting<'_>> {
    match nat_t_packet(payload) {
        NatTPacket::Keepalive => Some(Sighting::NatTKeepalive),
        NatTPacket::Ike(message) => ike(message, true),
        NatTPacket::Esp(header) => Some(Sighting::NatTEsp(header)),
        NatTPacket::Malformed => None,
    }
}

fn ike(message: &[u8], nat_t_port: bool) -> Option<Sighting<'_>> {
    IkeHeader::parse(message).map(|header| Sighting::Ike { header, nat_t_port, message })
}

/// An IKE message without marker, exactly as long as it says.
fn whole_ike(message: &[u8]) -> Option<Sighting<'_>> {
    let header = IkeHeader::parse(message)?;
    let whole = usize::try_from(header.length) == Ok(message.len());
    whole.then_some(Sighting::Ike { header, nat_t_port: false, message })
}

/// L2TP's header in version 2 (RFC 2661 section 3.1) and version 3 (RFC 3931 sections 3.2.1 and 4.1.2.1).
fn on_1701(payload: &[u8]) -> Option<Sighting<'_>> {
    const TYPE: u16 = 0x8000;
    const LENGTH: u16 = 0x4000;
    const SEQUENCE: u16 = 0x0800;
    let flags = be16(payload, 0)?;
    let control = flags & TYPE != 0;
    let length = if flags & LENGTH != 0 { Some(usize::from(be16(payload, 2)?)) } else { None };
    // A control message always has a length and sequence numbers: 12 bytes.
    let plausible = length.is_none_or(|length| length <= payload.len())
        && (!control || flags & SEQUENCE != 0 && length.is_some_and(|length| length >= 12));
    let (version, tunnel, session) = match flags & 0xf {
        2 => {
            let at = if length.is_some() { 4 } else { 2 };
            (2, u32::from(be16(payload, at)?), u32::from(be16(payload, at + 2)?))
        }
        3 if control => (3, be32(payload, 4)?, 0),
        3 => (3, 0, be32(payload, 4).filter(|&session| session != 0)?),
        _ => return None,
    };
    plausible.then_some(Sighting::L2tp { version, control, tunnel, session })
}

fn on_tcp(src: u16, dst: u16, payload: &[u8]) -> Option<Sighting<'_>> {
    if payload.is_empty() {
        return None;
    }
    let ports = [dst, src];
    if ports.contains(&1723) || begins_pptp_message(payload) {
        return Some(Sighting::PptpControl);
    }
    let packet = if ports.contains(&1194) { openvpn::read_tcp(payload) } else { openvpn::parse_tcp(payload) };
    packet.map(Sighting::OpenVpn)
}

/// Length, message type 1 and the magic cookie (RFC 2637 section 1.4 and 2).
fn begins_pptp_message(payload: &[u8]) -> bool {
    be32(payload, 4) == Some(0x1a2b_3c4d)
        && be16(payload, 2) == Some(1)
        && be16(payload, 0).is_some_and(|length| length >= 12)
}

fn on_gre(payload: &[u8]) -> Option<Sighting<'_>> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000; // RFC 1701
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const VERSION: u16 = 0x0007;
    const PPP: u16 = 0x880b;
    let (flags, protocol) = (be16(payload, 0)?, be16(payload, 2)?);
    match (flags & VERSION, protocol) {
        (0, _) => {
            let at = if flags & (CHECKSUM | ROUTING) != 0 { 8 } else { 4 };
            let key = if flags & KEY != 0 { Some(be32(payload, at)?) } else { None };
            Some(Sighting::Gre { key, protocol })
        }
        (1, PPP) if flags & KEY != 0 => {
            let sequence = if flags & SEQUENCE != 0 { be32(payload, 8) } else { None };
            Some(Sighting::PptpGre { call_id: be16(payload, 6)?, sequence })
        }
        (1, PPP) => None,
        (1, _) => Some(Sighting::Gre { key: None, protocol }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::bytes::noise::Noise;
    use crate::esp::Spi;
    use crate::ike::{Exchange, IkeSpi, IkeVersion};
    use nat_core::rewrite::internet_checksum;

    /// What it is, source port, destination port, payload, and what is seen.
    type Row<'a> = (&'static str, u16, u16, &'a [u8], Option<Sighting<'a>>);

    const ESP: EspHeader = EspHeader { spi: Spi(0xc000_0001), seq: 5 };
    const ESP_BYTES: [u8; 12] = [0xc0, 0, 0, 1, 0, 0, 0, 5, 1, 2, 3, 4];

    #[test]
    fn udp_is_known_by_its_port_and_then_by_what_it_says() {
        let ike = ike_message();
        let marked = [&[0; 4], &ike[..]].concat();
        let seen = |nat_t_port| {
            Some(Sighting::Ike { header: IkeHeader::parse(&ike).unwrap(), nat_t_port, message: &ike })
        };
        let wireguard = wireguard_data();
        let message = wireguard::parse(&wireguard).map(Sighting::WireGuard);
        let reset = [&[0x38, 1, 2, 3, 4, 5, 6, 7, 8][..], &[0; 5]].concat();
        let openvpn = openvpn::parse_udp(&reset).map(Sighting::OpenVpn);
        let mut tunnelled = vec![0x30; 40];
        let openvpn_data = openvpn::read_udp(&tunnelled).map(Sighting::OpenVpn);
        assert!(message.is_some() && openvpn.is_some() && openvpn_data.is_some());
        let esp = Some(Sighting::NatTEsp(ESP));
        let rows: [Row<'_>; 26] = [
            ("IKE", 500, 500, &ike, seen(false)),
            ("IKE, another port of the client", 10_500, 500, &ike, seen(false)),
            ("IKE, answer", 500, 10_500, &ike, seen(false)),
            ("IKE with its tail cut off", 500, 500, &ike[..60], None),
            ("IKE behind a marker on 500", 500, 500, &marked, None),
            ("IKE elsewhere", 40_000, 40_001, &ike, None),
            ("draft keepalive", 500, 500, &[0xff], Some(Sighting::NatTKeepalive)),
            ("WireGuard on 500", 40_000, 500, &wireguard, message),
            ("marked IKE", 4500, 4500, &marked, seen(true)),
            ("marked IKE, another port", 14_500, 4500, &marked, seen(true)),
            ("marked IKE, answer", 4500, 14_500, &marked, seen(true)),
            ("marked IKE, client's port 500", 500, 4500, &marked, seen(true)),
            ("marked IKE, client's port 500, answer", 4500, 500, &marked, seen(true)),
            ("IKE, client's port 4500", 4500, 500, &ike, seen(false)),
            ("IKE, client's port 4500, answer", 500, 4500, &ike, seen(false)),
            ("ESP in UDP", 4500, 4500, &ESP_BYTES, esp),
            ("ESP in UDP, client's port 500", 500, 4500, &ESP_BYTES, esp),
            ("ESP in UDP elsewhere", 40_000, 40_001, &ESP_BYTES, None),
            ("keepalive", 4500, 14_500, &[0xff], Some(Sighting::NatTKeepalive)),
            ("keepalive elsewhere", 40_000, 40_001, &[0xff], None),
            ("too short for ESP", 4500, 4500, &ESP_BYTES[..7], None),
            ("WireGuard", 40_000, 40_001, &wireguard, message),
            ("WireGuard on OpenVPN's port", 40_000, 1194, &wireguard, message),
            ("OpenVPN's reset", 40_000, 443, &reset, openvpn),
            ("OpenVPN's data", 1194, 40_000, &tunnelled.clone(), openvpn_data),
            ("OpenVPN's data elsewhere", 40_000, 443, &tunnelled, None),
        ];
        for (name, src, dst, payload, expected) in rows {
            let packet = udp(src, dst, payload);
            let seen = recognise(&PacketView::parse(&packet).unwrap());
            if name == "IKE with its tail cut off" {
                let Some(Sighting::Ike { header, message, .. }) = seen else { panic!("{name}: {seen:?}") };
                assert_eq!((header.length, message.len()), (68, 60));
                continue;
            }
            assert_eq!(seen, expected, "{name}");
        }
        tunnelled.truncate(3);
        assert_eq!(recognise(&PacketView::parse(&udp(40_000, 1194, &tunnelled)).unwrap()), None);
    }

    /// Were the marker taken for its beginning, this message would still have a version and a length.
    #[test]
    fn a_marker_is_seen_although_the_client_s_port_is_500() {
        let mut ike = ike_message();
        ike[8..16].fill(0x20);
        ike[20..24].fill(0x20);
        let header = IkeHeader::parse(&ike).unwrap();
        let packet = udp(4500, 500, &[&[0; 4], &ike[..]].concat());
        let seen = recognise(&PacketView::parse(&packet).unwrap());
        assert_eq!(seen, Some(Sighting::Ike { header, nat_t_port: true, message: &ike }));
    }

    #[test]
    fn bytes_behind_the_udp_datagram_are_not_its_payload() {
        let mut packet = udp(500, 4500, &[0xff, 0, 0, 0, 0, 0, 0, 0]);
        packet[25] = 9;
        assert_eq!(recognise(&PacketView::parse(&packet).unwrap()), Some(Sighting::NatTKeepalive));
    }

    #[test]
    fn l2tp_of_both_versions_is_read() {
        let l2tp =
            |version, control, tunnel, session| Some(Sighting::L2tp { version, control, tunnel, session });
        let rows: [(&str, &[u8], Option<Sighting<'_>>); 12] = [
            ("SCCRQ", &[0xc8, 2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0], l2tp(2, true, 0, 0)),
            ("control", &[0xc8, 2, 0, 12, 0, 7, 0, 9, 0, 1, 0, 1], l2tp(2, true, 7, 9)),
            ("control, cut off", &[0xc8, 2, 0, 13, 0, 7, 0, 9, 0, 1, 0, 1], None),
            ("control without a length", &[0x88, 2, 0, 7, 0, 9, 0, 1, 0, 1, 0, 0], None),
            ("control without numbers", &[0xc0, 2, 0, 12, 0, 7, 0, 9, 0, 1, 0, 1], None),
            ("data", &[0, 2, 0, 7, 0, 9, 0xff, 3], l2tp(2, false, 7, 9)),
            ("data with a length", &[0x40, 2, 0, 10, 0, 7, 0, 9, 0xff, 3], l2tp(2, false, 7, 9)),
            ("data, cut off", &[0x40, 2, 0, 10, 0, 7], None),
            ("v3 control", &[0xc8, 3, 0, 12, 1, 2, 3, 4, 0, 0, 0, 0], l2tp(3, true, 0x0102_0304, 0)),
            ("v3 data", &[0, 3, 0, 0, 1, 2, 3, 4, 9, 9], l2tp(3, false, 0, 0x0102_0304)),
            ("v3 data of no session", &[0, 3, 0, 0, 0, 0, 0, 0, 9, 9], None),
            ("L2F", &[0, 1, 0, 7, 0, 9, 0xff, 3], None),
        ];
        for (name, payload, expected) in rows {
            for (src, dst) in [(1701, 1701), (40_000, 1701), (1701, 40_000)] {
                let packet = udp(src, dst, payload);
                assert_eq!(recognise(&PacketView::parse(&packet).unwrap()), expected, "{name}");
            }
            let elsewhere = udp(40_000, 40_001, payload);
            assert_eq!(recognise(&PacketView::parse(&elsewhere).unwrap()), None, "{name} elsewhere");
        }
    }

    #[test]
    fn tcp_shows_pptp_and_openvpn() {
        let pptp = [0, 16, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 5, 0, 0, 0, 0, 0, 1];
        let reset = [&[0, 14, 0x38, 1, 2, 3, 4, 5, 6, 7, 8][..], &[0; 5]].concat();
        let openvpn = openvpn::parse_tcp(&reset).map(Sighting::OpenVpn);
        assert!(openvpn.is_some());
        let tunnelled = [&[0, 40][..], &[0x30; 40]].concat();
        let data = openvpn::read_tcp(&tunnelled).map(Sighting::OpenVpn);
        assert!(data.is_some());
        let rows: [Row<'_>; 9] = [
            ("PPTP", 40_000, 1723, &pptp, Some(Sighting::PptpControl)),
            ("PPTP, answer in parts", 1723, 40_000, &pptp[..3], Some(Sighting::PptpControl)),
            ("PPTP, no bytes", 40_000, 1723, &[], None),
            ("PPTP elsewhere", 40_000, 1724, &pptp, Some(Sighting::PptpControl)),
            ("PPTP elsewhere in parts", 40_000, 1724, &pptp[..7], None),
            ("OpenVPN on HTTPS", 40_000, 443, &reset, openvpn),
            ("OpenVPN's data", 40_000, 1194, &tunnelled, data),
            ("OpenVPN's data elsewhere", 40_000, 443, &tunnelled, None),
            ("TLS", 40_000, 443, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], None),
        ];
        for (name, src, dst, payload, expected) in rows {
            let packet = tcp(src, dst, payload);
            assert_eq!(recognise(&PacketView::parse(&packet).unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn other_ip_protocols_are_known_by_their_number() {
        let gre = |key, protocol| Some(Sighting::Gre { key, protocol });
        let pptp = |call_id, sequence| Some(Sighting::PptpGre { call_id, sequence });
        let ah = AhHeader { spi: Spi(9), seq: 1, len: 24 };
        let rows: [(&str, u8, &[u8], Option<Sighting<'_>>); 19] = [
            ("ESP", 50, &ESP_BYTES, Some(Sighting::Esp(ESP))),
            ("ESP, cut off", 50, &ESP_BYTES[..7], None),
            ("AH", 51, &[4, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1], Some(Sighting::Ah(ah))),
            ("PPTP", 47, &[0x30, 1, 0x88, 0x0b, 0, 1, 0, 0, 0, 0, 0, 3, 9], pptp(0, Some(3))),
            ("PPTP, acknowledgement", 47, &[0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 7, 0, 0, 0, 3], pptp(7, None)),
            ("PPTP, quoted", 47, &[0x30, 1, 0x88, 0x0b, 0, 1, 0, 7], pptp(7, None)),
            ("PPTP, cut off", 47, &[0x30, 1, 0x88, 0x0b, 0, 1, 0], None),
            ("PPTP without a call", 47, &[0x10, 1, 0x88, 0x0b, 0, 1, 0, 7], None),
            ("EoIP", 47, &[0x20, 1, 0x64, 0, 0, 1, 7, 0], gre(None, 0x6400)),
            ("GRE", 47, &[0, 0, 8, 0], gre(None, 0x0800)),
            ("GRE with a key", 47, &[0x20, 0, 8, 0, 1, 2, 3, 4], gre(Some(0x0102_0304), 0x0800)),
            (
                "GRE with checksum and key",
                47,
                &[0xa0, 0, 8, 0, 9, 9, 0, 0, 1, 2, 3, 4],
                gre(Some(0x0102_0304), 0x0800),
            ),
            ("GRE, key cut off", 47, &[0x20, 0, 8, 0, 1, 2, 3], None),
            ("GRE version 2", 47, &[0, 2, 8, 0, 1, 2, 3, 4], None),
            ("GRE, cut off", 47, &[0, 0, 8], None),
            ("L2TPv3", 115, &[0, 0, 1, 0, 9], Some(Sighting::L2tpIp { session: 256 })),
            ("L2TPv3 control", 115, &[0; 12], Some(Sighting::L2tpIp { session: 0 })),
            ("L2TPv3, cut off", 115, &[0; 3], None),
            ("SCTP", 132, &[0; 12], None),
        ];
        for (name, protocol, payload, expected) in rows {
            let packet = ip(protocol, payload);
            assert_eq!(recognise(&PacketView::parse(&packet).unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn a_quote_of_eight_bytes_shows_esp_and_the_call_of_pptp() {
        let pptp = Sighting::PptpGre { call_id: 7, sequence: None };
        let rows: [(u8, &[u8], Option<Sighting<'_>>); 3] = [
            (50, &ESP_BYTES, Some(Sighting::Esp(ESP))),
            (47, &[0x30, 1, 0x88, 0x0b, 0, 1, 0, 7, 0, 0, 0, 1], Some(pptp)),
            (17, &udp(4500, 4500, &ESP_BYTES)[20..], None),
        ];
        for (protocol, payload, expected) in rows {
            let mut packet = ip(protocol, payload);
            let sum = internet_checksum(&packet[..20], 0);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(recognise(&PacketView::parse_quote(&packet[..28]).unwrap()), expected);
        }
    }

    #[test]
    fn a_fragment_is_nobody_s() {
        let mut packet = ip(50, &ESP_BYTES);
        packet[6] = 0x20;
        assert_eq!(recognise(&PacketView::parse(&packet).unwrap()), None);
    }

    #[test]
    fn no_packet_makes_recognition_panic_and_chance_is_no_vpn_on_unknown_ports() {
        let bases = [
            udp(500, 500, &ike_message()),
            udp(4500, 4500, &[&[0; 4], &ike_message()[..]].concat()),
            udp(1701, 1701, &[0xc8, 2, 0, 12, 0, 7, 0, 9, 0, 1, 0, 1]),
            tcp(40_000, 1723, &[0; 16]),
            ip(47, &[0xb0, 1, 0x88, 0x0b, 0, 1, 0, 7, 0, 0, 0, 1]),
            ip(50, &ESP_BYTES),
        ];
        let mut noise = Noise(4500);
        for round in 0..100_000 {
            let mut packet = noise.mutant(&bases[round % bases.len()]);
            // Cut-off packets reach the recogniser if their header agrees.
            if let (Some(total), Ok(len)) = (packet.len().checked_sub(20), u16::try_from(packet.len())) {
                packet[2..4].copy_from_slice(&len.to_be_bytes());
                if packet[9] == 17 && total >= 8 {
                    packet[24..26].copy_from_slice(&(len - 20).to_be_bytes());
                }
            }
            if let Ok(view) = PacketView::parse(&packet) {
                let _ = recognise(&view);
            }
            let chance = udp(40_000, 40_001, &noise.bytes(100));
            assert_eq!(recognise(&PacketView::parse(&chance).unwrap()), None, "round {round}");
        }
    }

    #[test]
    fn the_ike_message_of_these_tests_is_an_sa_init_request() {
        let header = IkeHeader::parse(&ike_message()).unwrap();
        assert_eq!((header.version, header.exchange), (IkeVersion::V2, Exchange::SaInit));
        assert_eq!((header.initiator, header.length), (IkeSpi(0x0102_0304_0506_0708), 68));
    }

    fn ike_message() -> Vec<u8> {
        let mut message = vec![1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0x20, 34, 8];
        message.extend([0, 0, 0, 0, 0, 0, 0, 68, 0, 0, 0, 40]);
        message.resize(68, 0x55);
        message
    }

    fn wireguard_data() -> Vec<u8> {
        // Where IKE has its version, this has 0x20.
        let mut message = vec![4, 0, 0, 0, 1, 2, 3, 4, 7, 0, 0, 0, 0, 0, 0, 0, 0x20, 0x20, 0x20, 0x20];
        message.resize(96, 0x20);
        message
    }

    fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0];
        packet.extend([192, 168, 1, 11, 198, 51, 100, 10]);
        packet.extend(payload);
        packet
    }

    fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap();
        let mut datagram = [src, dst, length, 0].map(u16::to_be_bytes).concat();
        datagram.extend(payload);
        ip(17, &datagram)
    }

    fn tcp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
        let mut segment = [src, dst, 0, 7, 0, 9, 0x5018, 0xfaf0, 0, 0].map(u16::to_be_bytes).concat();
        segment.extend(payload);
        ip(6, &segment)
    }
}
