//! The coarse choice, made in the kernel: a filter in libpcap's language.
//!
//! It lets through whatever [`super::choice`] may want, and little of what makes up a home's traffic: of TCP only
//! the ports of PPTP and OpenVPN and what looks like OpenVPN's first packet, of UDP the ports of VPNs and what
//! begins like a message of WireGuard or OpenVPN.

use std::fmt::Write as _;
use std::net::IpAddr;

/// What begins like WireGuard (type, three bytes of 0) or OpenVPN (opcodes 4 to 11), where UDP's data begins.
const UDP4: &str = "udp[8:4] & 0xf8ffffff = 0 or (udp[8] >= 0x20 and udp[8] < 0x60)";
const UDP6: &str = "ip6[6] = 17 and (ip6[48:4] & 0xf8ffffff = 0 or (ip6[48] >= 0x20 and ip6[48] < 0x60))";
/// OpenVPN's hard resets behind their length, shorter than 1024 bytes.
const TCP4: &str = "tcp[(tcp[12] & 0xf0) >> 2] < 4 and (tcp[((tcp[12] & 0xf0) >> 2) + 2] = 0x38 \
                    or tcp[((tcp[12] & 0xf0) >> 2) + 2] = 0x40 or tcp[((tcp[12] & 0xf0) >> 2) + 2] = 0x50)";

/// The filter for these interfaces and, if named, this server.
pub(super) fn filter(interfaces: impl IntoIterator<Item = u32>, server: Option<IpAddr>) -> String {
    let mut text = String::new();
    for (place, index) in interfaces.into_iter().enumerate() {
        let _ = write!(text, "{}ifindex {index}", if place == 0 { "(" } else { " or " });
    }
    if text.is_empty() {
        // None of them is there just now.
        return "greater 1000000".into();
    }
    if let Some(server) = server {
        let _ = write!(text, ") and (host {server} or icmp or icmp6)");
        return text;
    }
    text.push_str(") and (ip proto 47 or ip proto 50 or ip proto 51 or ip proto 115 or icmp");
    text.push_str(" or ip[6:2] & 0x1fff != 0");
    // Of IPv6 all but plain TCP and UDP: ESP and the like, ICMPv6, fragments, other extension headers.
    text.push_str(" or (ip6 and ip6[6] != 6 and ip6[6] != 17)");
    for port in super::choice::UDP_PORTS {
        let _ = write!(text, " or udp port {port}");
    }
    for port in super::choice::TCP_PORTS {
        let _ = write!(text, " or tcp port {port}");
    }
    for content in [UDP4, UDP6, TCP4] {
        let _ = write!(text, " or ({content})");
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap::{BpfProgram, Capture, Linktype};

    fn program(server: Option<IpAddr>) -> BpfProgram {
        let capture = Capture::dead(Linktype(276)).unwrap();
        capture.compile(&filter([3, 5], server), true).unwrap()
    }

    /// A packet of IPv4 from .11 to .10 in Linux cooked version 2.
    fn v4(interface: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![8, 0, 0, 0, 0, 0, 0, interface, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame.extend([0x45, 0, 0, 20 + u8::try_from(payload.len()).unwrap(), 0, 1, 0, 0, 64, protocol, 0, 0]);
        frame.extend([192, 168, 1, 11, 198, 51, 100, 10]);
        frame.extend(payload);
        frame
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x86, 0xdd, 0, 0, 0, 0, 0, 5, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame.extend([0x60, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap(), next, 64]);
        frame.extend([0x20; 32]);
        frame.extend(payload);
        frame
    }

    fn udp(src: u16, dst: u16, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(data.len() + 8).unwrap().to_be_bytes();
        [&src.to_be_bytes()[..], &dst.to_be_bytes(), &len, &[0, 0], data].concat()
    }

    fn tcp(src: u16, dst: u16, data: &[u8]) -> Vec<u8> {
        let head = [0, 0, 0, 1, 0, 0, 0, 1, 0x60, 0x18, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0];
        [&src.to_be_bytes()[..], &dst.to_be_bytes(), &head, data].concat()
    }

    #[test]
    fn vpns_pass_and_most_else_does_not() {
        let program = program(None);
        let wireguard = [1, 0, 0, 0, 9, 9, 9, 9];
        let openvpn = [0x38, 1, 2, 3, 4, 5, 6, 7, 8];
        let dns = [0x12, 0x34, 1, 0, 0, 1, 0, 0];
        let rows = [
            ("ESP", v4(3, 50, &[0; 8]), true),
            ("ESP elsewhere", v4(4, 50, &[0; 8]), false),
            ("AH", v4(5, 51, &[0; 12]), true),
            ("GRE", v4(5, 47, &[0; 8]), true),
            ("L2TPv3", v4(5, 115, &[0; 8]), true),
            ("ICMP", v4(5, 1, &[3, 3, 0, 0]), true),
            ("IKE", v4(5, 17, &udp(500, 40_000, &dns)), true),
            ("L2TP", v4(5, 17, &udp(40_000, 1701, &dns)), true),
            ("WireGuard", v4(5, 17, &udp(40_000, 443, &wireguard)), true),
            ("OpenVPN", v4(5, 17, &udp(40_000, 443, &openvpn)), true),
            ("DNS", v4(5, 17, &udp(40_000, 53, &dns)), false),
            ("QUIC", v4(5, 17, &udp(40_000, 443, &[0xc0, 0, 0, 0, 1])), false),
            ("PPTP", v4(5, 6, &tcp(40_000, 1723, &[])), true),
            ("OpenVPN in TCP", v4(5, 6, &tcp(40_000, 443, &[&[0, 14][..], &openvpn].concat())), true),
            ("HTTPS", v4(5, 6, &tcp(40_000, 443, &[0x16, 3, 1, 2, 0])), false),
            ("HTTPS, no data", v4(5, 6, &tcp(40_000, 443, &[])), false),
            ("IKE, IPv6", v6(17, &udp(500, 500, &dns)), true),
            ("WireGuard, IPv6", v6(17, &udp(40_000, 443, &wireguard)), true),
            ("OpenVPN, IPv6", v6(17, &udp(40_000, 443, &openvpn)), true),
            ("ESP, IPv6", v6(50, &[0; 8]), true),
            ("fragment, IPv6", v6(44, &[17, 0, 0, 1, 0, 0, 0, 1]), true),
            ("DNS, IPv6", v6(17, &udp(40_000, 53, &dns)), false),
            ("HTTPS, IPv6", v6(6, &tcp(40_000, 443, &[])), false),
        ];
        for (name, frame, passes) in rows {
            assert_eq!(program.filter(&frame), passes, "{name}");
        }
        let mut later = v4(5, 17, &[9; 40]);
        later[20 + 6..20 + 8].copy_from_slice(&[0, 185]);
        assert!(program.filter(&later), "a later fragment");
    }

    #[test]
    fn all_of_a_named_server_passes() {
        let program = program(Some([198, 51, 100, 10].into()));
        assert!(program.filter(&v4(3, 6, &tcp(40_000, 443, &[]))));
        assert!(!program.filter(&v4(4, 6, &tcp(40_000, 443, &[]))));
        let mut other = v4(3, 50, &[0; 8]);
        other[20 + 19] = 11;
        assert!(!program.filter(&other));
        assert_eq!(filter([], None), "greater 1000000");
    }
}
