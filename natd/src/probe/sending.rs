//! The packets of a probe.

use nat_core::time::Timestamp;

use super::ike::{Init, Offer, Version};
use super::ladder::Lane;
use super::messages;
use super::mtu::Search;
use super::{Carrier, Control, Cutting, FRAGMENTED, Kind, LARGE, Outgoing, Probe, Slot, TRIES};

impl Probe {
    pub(super) fn message(&mut self, kind: Kind, now: Timestamp) -> Outgoing {
        let udp = |slot, port, bytes| Outgoing {
            carrier: Carrier::Udp(slot, port),
            hops: None,
            cutting: Cutting::Allowed,
            bytes,
        };
        let raw = |carrier, bytes| Outgoing { carrier, hops: None, cutting: Cutting::Allowed, bytes };
        let port = self.ike_port().unwrap_or(500);
        match kind {
            Kind::Ike500 => udp(Slot::Ike500, 500, self.init(Slot::Ike500, 500, kind, 0)),
            Kind::Ike4500 => udp(Slot::Ike4500, 4500, self.init(Slot::Ike4500, 4500, kind, 0)),
            Kind::IkeLarge => Outgoing {
                cutting: Cutting::Forbidden,
                ..udp(Slot::Large, port, self.init(Slot::Large, port, kind, LARGE))
            },
            Kind::IkeFragmented => {
                udp(Slot::Fragmented, port, self.init(Slot::Fragmented, port, kind, FRAGMENTED))
            }
            Kind::L2tp => udp(Slot::L2tp, 1701, messages::l2tp_start(self.seed.tunnel)),
            Kind::OpenVpn => udp(Slot::OpenVpn, 1194, messages::openvpn_reset(self.seed.ike_spi(0x0a))),
            Kind::PptpGre => {
                let call = if let Control::Call(call) = self.control { call } else { 0 };
                let sequence = u32::from(self.of(kind).sent.saturating_sub(1));
                raw(Carrier::Gre, messages::gre(call, sequence, 0))
            }
            Kind::Mtu if !self.of(Kind::Ping).answered => {
                if self.of(kind).sent == 1 {
                    self.search = Search::by_ike(self.target.mtu, self.target.server.is_ipv6());
                }
                let (number, size) = self.search.next(now);
                Outgoing {
                    cutting: Cutting::Forbidden,
                    ..udp(Slot::Mtu, port, self.measuring(port, number, size))
                }
            }
            Kind::Mtu => {
                let (number, size) = self.search.next(now);
                Outgoing { cutting: Cutting::Forbidden, ..raw(Carrier::Icmp, self.echo(number, size)) }
            }
            Kind::Ping | Kind::Esp | Kind::Gre | Kind::WireGuard | Kind::Pptp | Kind::Tls => {
                raw(Carrier::Icmp, self.echo(0, 84))
            }
        }
    }

    pub(super) fn init(&self, slot: Slot, port: u16, kind: Kind, packet: usize) -> Vec<u8> {
        // Version 2 first; version 1 for servers that do not know it.
        let guess = if self.of(kind).sent > TRIES { Version::One } else { Version::Two };
        let version = self.version.unwrap_or(guess);
        let [five, four] = self.cookies;
        let init = Init {
            version,
            spi: self.seed.ike_spi(kind as u8),
            offer: Offer::Usual { group: self.group },
            from: (self.target.local, self.port(slot)),
            to: (self.target.server, port),
            length: 0,
            cookie: match slot {
                Slot::Ike500 => five,
                Slot::Ike4500 => four,
                Slot::Large | Slot::Fragmented | Slot::Ladder | Slot::L2tp | Slot::OpenVpn | Slot::Mtu => {
                    None
                }
            },
            random: &self.seed.random,
        };
        self.sized(init, packet)
    }

    /// One that the server refuses at once, in a packet of `size` bytes.
    fn measuring(&self, port: u16, number: u16, size: u16) -> Vec<u8> {
        let number = u8::try_from(number).unwrap_or(0) & 0x3f;
        let init = Init {
            version: self.version.unwrap_or(Version::Two),
            spi: self.seed.ike_spi(0x40 | number),
            offer: Offer::Unknown,
            from: (self.target.local, self.port(Slot::Mtu)),
            to: (self.target.server, port),
            length: 0,
            cookie: None,
            random: &self.seed.random,
        };
        self.sized(init, usize::from(size))
    }

    /// Padded, so that the whole packet has `size` bytes.
    fn sized(&self, mut init: Init<'_>, size: usize) -> Vec<u8> {
        let marker = if init.to.1 == 4500 { 4 } else { 0 };
        let header = if self.target.server.is_ipv6() { 48 } else { 28 };
        init.length = size.saturating_sub(header + marker);
        let mut bytes = vec![0; marker];
        bytes.extend(init.bytes());
        bytes
    }

    pub(super) fn echo(&self, number: u16, packet: u16) -> Vec<u8> {
        let (header, kind) = if self.target.server.is_ipv6() { (40, 128) } else { (20, 8) };
        let mut out = vec![kind, 0, 0, 0];
        out.extend(self.seed.echo.to_be_bytes());
        out.extend(number.to_be_bytes());
        out.resize(usize::from(packet).saturating_sub(header).max(8), 0x6e);
        // Of IPv6 the kernel writes it.
        if kind == 8 {
            let sum = checksum(&out);
            if let Some(place) = out.get_mut(2..4) {
                place.copy_from_slice(&sum.to_be_bytes());
            }
        }
        out
    }

    /// A packet of the ladder. Its kind and time to live show in its first eight bytes, which errors quote.
    pub(super) fn rung(&self, lane: Lane, ttl: u8) -> Outgoing {
        let (carrier, bytes) = match lane {
            Lane::Udp => (Carrier::Udp(Slot::Ladder, 500), self.ladder_init(ttl)),
            Lane::Esp => (Carrier::Esp, messages::esp(self.seed.spi, u32::from(ttl), &self.seed.random)),
            Lane::Gre => (Carrier::Gre, messages::gre(self.ladder_call(), 0, ttl)),
        };
        Outgoing { carrier, hops: Some(ttl), cutting: Cutting::Allowed, bytes }
    }

    pub(super) fn ladder_call(&self) -> u16 {
        if let Control::Call(call) = self.control { call } else { self.seed.call }
    }

    pub(super) fn ladder_init(&self, ttl: u8) -> Vec<u8> {
        let mut init = Init {
            version: self.version.unwrap_or(Version::Two),
            spi: self.seed.ike_spi(0x80 | ttl),
            offer: Offer::Unknown,
            from: (self.target.local, self.port(Slot::Ladder)),
            to: (self.target.server, 500),
            length: 0,
            cookie: None,
            random: &self.seed.random,
        };
        // The shortest padding is six bytes.
        init.length = init.bytes().len() + 6 + usize::from(ttl);
        init.bytes()
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}
