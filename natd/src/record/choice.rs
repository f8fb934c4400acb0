//! The fine choice: which packets are a VPN's, and of the device and server that were asked for.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use diagnosis::{Fragment, Packet, Point};
use passthrough::sighting::recognise_payload;

use crate::order;

/// IKE, its other port, L2TP, OpenVPN, WireGuard.
pub(super) const UDP_PORTS: [u16; 5] = [500, 4500, 1701, 1194, 51_820];
/// PPTP, OpenVPN.
pub(super) const TCP_PORTS: [u16; 2] = [1723, 1194];

/// Chooses packets in the order in which they come.
pub(super) struct Choice {
    device: Option<IpAddr>,
    server: Option<IpAddr>,
    /// With whom the device speaks: behind the NAT it cannot be told from the others but by that.
    peers: Recent,
    /// Conversations that were a VPN's by what a packet said: protocol, and both ends with the lower first.
    known: Recent,
    /// Datagrams whose first fragment was chosen.
    begun: Recent,
}

impl Choice {
    pub(super) fn new(device: Option<IpAddr>, server: Option<IpAddr>) -> Self {
        Self { device, server, peers: Recent::default(), known: Recent::default(), begun: Recent::default() }
    }

    pub(super) fn wants(&mut self, point: Point, packet: &Packet<'_>) -> bool {
        let datagram = (packet.src, packet.dst, packet.ident, packet.protocol);
        if packet.fragment == Fragment::Later {
            return self.begun.has(&datagram);
        }
        let wanted = match quote(packet) {
            Some(quote) => self.concerns(point, &quote) && self.is_vpn(&quote, false),
            None => self.concerns(point, packet) && self.is_vpn(packet, true),
        };
        if wanted && packet.fragment == Fragment::First {
            self.begun.add(&datagram);
        }
        if wanted && point == Point::Lan {
            for (one, other) in [(packet.src, packet.dst), (packet.dst, packet.src)] {
                if Some(one) == self.device {
                    self.peers.add(&other);
                }
            }
        }
        wanted
    }

    /// Is it between the device and the server that were asked for?
    fn concerns(&self, point: Point, packet: &Packet<'_>) -> bool {
        let ends = [packet.src, packet.dst];
        let with_server = self.server.is_none_or(|server| ends.contains(&server));
        let with_device = self.device.is_none_or(|device| {
            // IPv6 has the device's address on the WAN too.
            ends.contains(&device) || point == Point::Wan && ends.iter().any(|end| self.peers.has(end))
        });
        with_server && with_device
    }

    fn is_vpn(&mut self, packet: &Packet<'_>, remember: bool) -> bool {
        if self.server.is_some() || matches!(packet.protocol, 47 | 50 | 51 | 115) {
            return true;
        }
        let (&[a, b, c, d, ..], ports) = (match packet.protocol {
            17 => (packet.payload, &UDP_PORTS[..]),
            6 => (packet.payload, &TCP_PORTS[..]),
            _ => return false,
        }) else {
            return false;
        };
        let (src, dst) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if ports.contains(&src) || ports.contains(&dst) {
            return true;
        }
        let (one, other) = ((packet.src, src), (packet.dst, dst));
        let conversation = (packet.protocol, one.min(other), one.max(other));
        if self.known.has(&conversation) {
            return true;
        }
        let seen = remember && recognise_payload(packet.protocol, packet.payload).is_some();
        if seen {
            self.known.add(&conversation);
        }
        seen
    }
}

/// The packet that an ICMP error is about.
pub(super) fn quote<'a>(packet: &Packet<'a>) -> Option<Packet<'a>> {
    match (packet.protocol, packet.payload.first()?) {
        (1, 3 | 4 | 5 | 11 | 12) | (58, 1..=4) => Packet::parse(packet.payload.get(8..)?),
        _ => None,
    }
}

/// The last ones of many, by their hashes: should two be equal, a packet too much is recorded.
#[derive(Default)]
struct Recent {
    sorted: Vec<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    const MOST: usize = 1024;

    fn has(&self, item: &impl Hash) -> bool {
        self.sorted.binary_search(&hash(item)).is_ok()
    }

    fn add(&mut self, item: &impl Hash) {
        let hash = hash(item);
        if !order::insert(&mut self.sorted, hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > Self::MOST {
            let oldest = self.order.pop_front().map(|oldest| self.sorted.binary_search(&oldest));
            if let Some(Ok(at)) = oldest {
                self.sorted.remove(at);
            }
        }
    }
}

fn hash(item: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    item.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: [u8; 4] = [192, 168, 1, 11];
    const OTHER: [u8; 4] = [192, 168, 1, 12];
    const WAN: [u8; 4] = [203, 0, 113, 1];
    const SERVER: [u8; 4] = [198, 51, 100, 10];
    const ELSEWHERE: [u8; 4] = [198, 51, 100, 20];

    fn packet<'a>(src: [u8; 4], dst: [u8; 4], protocol: u8, payload: &'a [u8]) -> Packet<'a> {
        let len = u32::try_from(payload.len()).unwrap();
        Packet {
            src: src.into(),
            dst: dst.into(),
            ttl: 64,
            protocol,
            ident: 7,
            dont_fragment: false,
            fragment: Fragment::Whole,
            ip_len: 20 + len,
            payload_len: len,
            payload,
        }
    }

    fn udp(src: u16, dst: u16, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(data.len() + 8).unwrap().to_be_bytes();
        [&src.to_be_bytes()[..], &dst.to_be_bytes(), &len, &[0, 0], data].concat()
    }

    #[test]
    fn without_a_name_every_vpn_is_wanted_and_nothing_else() {
        let mut choice = Choice::new(None, None);
        let ike = udp(500, 40_000, &[]);
        let dns = udp(40_000, 53, &[1; 20]);
        let rows: [(&str, u8, &[u8], bool); 7] = [
            ("ESP", 50, &[0; 8], true),
            ("GRE", 47, &[0; 8], true),
            ("IKE", 17, &ike, true),
            ("DNS", 17, &dns, false),
            ("ping", 1, &[8, 0, 0, 0, 0, 0, 0, 0], false),
            ("UDP without ports", 17, &[1, 2, 3], false),
            ("SCTP", 132, &[0; 12], false),
        ];
        for (name, protocol, payload, wanted) in rows {
            assert_eq!(
                choice.wants(Point::Lan, &packet(DEVICE, SERVER, protocol, payload)),
                wanted,
                "{name}"
            );
        }
    }

    #[test]
    fn a_conversation_known_by_its_first_packet_is_wanted_both_ways() {
        let mut choice = Choice::new(None, None);
        let reset = udp(40_000, 443, &[&[0x38, 1, 2, 3, 4, 5, 6, 7, 8][..], &[0; 5]].concat());
        let (data, answer) = (udp(40_000, 443, &[0x48; 40]), udp(443, 40_000, &[0x48; 40]));
        assert!(!choice.wants(Point::Lan, &packet(SERVER, DEVICE, 17, &answer)));
        assert!(choice.wants(Point::Lan, &packet(DEVICE, SERVER, 17, &reset)));
        assert!(choice.wants(Point::Lan, &packet(DEVICE, SERVER, 17, &data)));
        assert!(choice.wants(Point::Lan, &packet(SERVER, DEVICE, 17, &answer)));
        assert!(!choice.wants(Point::Lan, &packet(OTHER, SERVER, 17, &data)));
    }

    #[test]
    fn on_the_wan_a_device_is_known_by_its_servers() {
        let mut choice = Choice::new(Some(DEVICE.into()), None);
        let esp = [0; 8];
        assert!(!choice.wants(Point::Wan, &packet(SERVER, WAN, 50, &esp)), "nobody spoke with it yet");
        assert!(!choice.wants(Point::Lan, &packet(OTHER, ELSEWHERE, 50, &esp)));
        assert!(choice.wants(Point::Lan, &packet(DEVICE, SERVER, 50, &esp)));
        assert!(choice.wants(Point::Wan, &packet(WAN, SERVER, 50, &esp)));
        assert!(choice.wants(Point::Wan, &packet(SERVER, WAN, 50, &esp)));
        assert!(!choice.wants(Point::Wan, &packet(WAN, ELSEWHERE, 50, &esp)), "another device's server");
        assert!(!choice.wants(Point::Lan, &packet(OTHER, SERVER, 50, &esp)), "another device");
    }

    #[test]
    fn of_a_named_server_everything_is_wanted() {
        let mut choice = Choice::new(None, Some(SERVER.into()));
        let https = udp(40_000, 443, &[]);
        assert!(choice.wants(Point::Wan, &packet(WAN, SERVER, 17, &https)));
        assert!(!choice.wants(Point::Wan, &packet(WAN, ELSEWHERE, 50, &[0; 8])));
        let mut both = Choice::new(Some(DEVICE.into()), Some(SERVER.into()));
        assert!(both.wants(Point::Lan, &packet(DEVICE, SERVER, 17, &https)));
        assert!(!both.wants(Point::Lan, &packet(OTHER, SERVER, 17, &https)));
        assert!(!both.wants(Point::Lan, &packet(DEVICE, ELSEWHERE, 50, &https)));
    }

    #[test]
    fn errors_are_wanted_for_what_they_are_about() {
        let router = [203, 0, 113, 254];
        let error = |protocol: u8, to: [u8; 4]| {
            let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
            message.extend([0x45, 0, 0, 60, 0, 1, 0, 0, 63, protocol, 0, 0]);
            message.extend(WAN);
            message.extend(to);
            message.extend([0x9c, 0x40, 0, 53, 0, 0, 0, 0]);
            message
        };
        let mut choice = Choice::new(None, None);
        assert!(choice.wants(Point::Wan, &packet(router, WAN, 1, &error(50, SERVER))));
        assert!(!choice.wants(Point::Wan, &packet(router, WAN, 1, &error(17, SERVER))));
        let mut choice = Choice::new(None, Some(SERVER.into()));
        assert!(choice.wants(Point::Wan, &packet(router, WAN, 1, &error(17, SERVER))));
        assert!(!choice.wants(Point::Wan, &packet(router, WAN, 1, &error(17, ELSEWHERE))));
    }

    #[test]
    fn fragments_follow_their_first() {
        let mut choice = Choice::new(None, None);
        let ike = udp(4500, 4500, &[]);
        let first = Packet { fragment: Fragment::First, ..packet(DEVICE, SERVER, 17, &ike) };
        let later = Packet { fragment: Fragment::Later, payload: &[9; 8], ..first };
        assert!(!choice.wants(Point::Lan, &later));
        assert!(choice.wants(Point::Lan, &first));
        assert!(choice.wants(Point::Lan, &later));
        assert!(!choice.wants(Point::Lan, &Packet { ident: 8, ..later }));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        for number in 0..5000_u32 {
            recent.add(&number);
            recent.add(&number);
        }
        assert_eq!((recent.sorted.len(), recent.order.len()), (1024, 1024));
        assert!(recent.has(&4999) && !recent.has(&0));
    }
}
