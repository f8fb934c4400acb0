//! ICMP errors: which packet they are about, and who is to be told.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use passthrough::sighting::recognise_payload;

use super::{Household, is_private};
use crate::attempts::COPY;
use crate::finding::Mark;
use crate::observation::{IcmpKind, IcmpReport, packet_id};
use crate::packet::Packet;

/// Errors that are remembered, so that the same one on the other side of the router is not a second one.
const REMEMBERED: usize = 64;

impl Household {
    pub(super) fn icmp(&mut self, mark: Mark, packet: &Packet<'_>) {
        let Some(kind) = kind(packet) else { return };
        let Some(quote) = packet.payload.get(8..).and_then(Packet::parse) else { return };
        let port =
            |at: usize| quote.payload.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
        let ports = match quote.protocol {
            6 | 17 => (port(0).unwrap_or(0), port(2).unwrap_or(0)),
            _ => (0, 0),
        };
        // The device is one that is known with the other address, or behind a mapping.
        let mut found = None;
        for (device, server, (device_port, server_port), about_outbound) in
            [(quote.src, quote.dst, ports, true), (quote.dst, quote.src, (ports.1, ports.0), false)]
        {
            let mapping = self.mappings.get(&(quote.protocol, device_port, server));
            let behind = mapping.filter(|_| self.is_own(device)).map(|&(inside, port, _)| (inside, port));
            let (device, device_port) = behind.unwrap_or((device, device_port));
            if self.pairs.contains_key(&(device, server)) {
                found = Some((device, server, device_port, server_port, about_outbound));
                break;
            }
        }
        let Some((device, server, device_port, server_port, about_outbound)) = found else { return };
        if self.is_repeated(mark, packet.src, kind, &quote, server) {
            return;
        }
        let id =
            recognise_payload(quote.protocol, quote.payload).map_or(0, |sighting| packet_id(Some(&sighting)));
        let report = IcmpReport {
            mark,
            from: packet.src,
            about_outbound,
            kind,
            protocol: quote.protocol,
            device_port,
            server_port,
            id,
        };
        if let Some(pair) = self.pairs.get_mut(&(device, server)) {
            pair.error(&report);
        }
    }

    /// Was the same error seen a moment ago, on the other side of the router?
    fn is_repeated(
        &mut self,
        mark: Mark,
        from: IpAddr,
        kind: IcmpKind,
        quote: &Packet<'_>,
        server: IpAddr,
    ) -> bool {
        let mut hasher = DefaultHasher::new();
        let from = if is_private(from) { None } else { Some(from) };
        (from, kind, quote.protocol, quote.ident, quote.ip_len, server).hash(&mut hasher);
        let key = hasher.finish();
        let fresh = COPY.min(Duration::from_millis(100));
        let seen = self.errors.iter().any(|&(at, known)| known == key && mark.at.since(at) < fresh);
        if !seen {
            if self.errors.len() >= REMEMBERED {
                self.errors.pop_front();
            }
            self.errors.push_back((mark.at, key));
        }
        seen
    }
}

fn kind(packet: &Packet<'_>) -> Option<IcmpKind> {
    let &[kind, code, _, _, a, b, c, d, ..] = packet.payload else { return None };
    let mtu = u32::from_be_bytes([a, b, c, d]);
    Some(match (packet.src, kind, code) {
        (IpAddr::V4(_), 3, 0) | (IpAddr::V6(_), 1, 0) => IcmpKind::NetUnreachable,
        (IpAddr::V4(_), 3, 1) | (IpAddr::V6(_), 1, 3) => IcmpKind::HostUnreachable,
        (IpAddr::V4(_), 3, 2) | (IpAddr::V6(_), 4, 1) => IcmpKind::ProtocolUnreachable,
        (IpAddr::V4(_), 3, 3) | (IpAddr::V6(_), 1, 4) => IcmpKind::PortUnreachable,
        (IpAddr::V4(_), 3, 4) => IcmpKind::TooBig(mtu & 0xffff),
        (IpAddr::V6(_), 2, _) => IcmpKind::TooBig(mtu),
        (IpAddr::V4(_), 3, 9 | 10 | 13) | (IpAddr::V6(_), 1, 1 | 5 | 6) => IcmpKind::Prohibited,
        (IpAddr::V4(_), 11, 0) | (IpAddr::V6(_), 3, 0) => IcmpKind::HopLimit,
        (IpAddr::V4(_), 3 | 4 | 5 | 11 | 12, _) | (IpAddr::V6(_), 1..=4, _) => IcmpKind::Other(kind, code),
        _ => return None,
    })
}
