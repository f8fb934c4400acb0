//! What was refused lately, for whoever asks why a VPN does not come up.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use nat_core::decision::DropReason;
use nat_core::flow::Direction;
use nat_core::packet::{Body, PacketView};
use nat_core::time::Timestamp;

/// Kinds of packets that are remembered, of devices.
const MAX_OUTBOUND: usize = 48;
/// The same of packets from the WAN, where anybody can send anything.
const MAX_INBOUND: usize = 16;

/// Packets that were dropped for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The device that sent them; `None`: they came from the WAN.
    pub device: Option<Ipv4Addr>,
    /// The other side.
    pub server: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    /// The server's port; 0 where there are none.
    pub port: u16,
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub count: u64,
    /// The first one's time.
    pub first: Timestamp,
    /// The last one's time.
    pub last: Timestamp,
}

/// Memory of refusals.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    list: Vec<Refused>,
}

impl Refusals {
    /// All of them, in no order.
    pub(crate) fn list(&self) -> &[Refused] {
        &self.list
    }

    /// A packet was dropped. Where there is no room, the one of its direction goes that is the longest ago.
    pub(crate) fn note(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        direction: Direction,
        reason: DropReason,
    ) {
        let outbound = direction == Direction::Outbound;
        let (device, server) = if outbound { (Some(packet.src), packet.dst) } else { (None, packet.src) };
        let (protocol, [src, dst]) = match packet.body {
            Body::Tcp(segment) => (6, [segment.src_port, segment.dst_port]),
            Body::Udp { src_port, dst_port } => (17, [src_port, dst_port]),
            Body::Other(protocol) => (protocol, [0, 0]),
            Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment => return,
        };
        let port = if outbound { dst } else { src };
        let new = Refused { device, server, protocol, port, reason, count: 1, first: now, last: now };
        let key = |entry: &Refused| (entry.device, entry.server, entry.protocol, entry.port, entry.reason);
        if let Some(known) = self.list.iter_mut().find(|known| key(known) == key(&new)) {
            known.count += 1;
            known.last = now;
            return;
        }
        let most = if outbound { MAX_OUTBOUND } else { MAX_INBOUND };
        let alike = |entry: &&mut Refused| entry.device.is_some() == outbound;
        if self.list.iter_mut().filter(alike).count() < most {
            self.list.push(new);
        } else if let Some(oldest) = self.list.iter_mut().filter(alike).min_by_key(|entry| entry.last) {
            *oldest = new;
        }
    }
}

/// Is it a reason of a VPN's, or one for which a VPN's packet cannot be translated? Others befall whatever a stranger
/// sends.
pub(crate) fn matters_inbound(reason: DropReason) -> bool {
    let vpn = DropReason::IpsecOff.index()..=DropReason::L2tpRefused.index();
    vpn.contains(&reason.index()) || matches!(reason, DropReason::TableFull | DropReason::NoPort)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

    fn esp(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 50, 0, 0];
        bytes.extend(from.octets());
        bytes.extend(to.octets());
        bytes.extend([0, 0, 1, 1, 0, 0, 0, 1]);
        bytes
    }

    fn device(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 1, number)
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    fn note(refusals: &mut Refusals, secs: u64, from: Ipv4Addr, to: Ipv4Addr, reason: DropReason) {
        let direction = if from == SERVER { Direction::Inbound } else { Direction::Outbound };
        let bytes = esp(from, to);
        refusals.note(at(secs), &PacketView::parse(&bytes).unwrap(), direction, reason);
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut refusals = Refusals::default();
        note(&mut refusals, 1, device(1), SERVER, DropReason::IpsecOff);
        note(&mut refusals, 3, device(1), SERVER, DropReason::IpsecOff);
        note(&mut refusals, 4, SERVER, device(1), DropReason::EspNoGate);
        let outbound = Refused {
            device: Some(device(1)),
            server: SERVER,
            protocol: 50,
            port: 0,
            reason: DropReason::IpsecOff,
            count: 2,
            first: at(1),
            last: at(3),
        };
        let inbound = Refused {
            device: None,
            reason: DropReason::EspNoGate,
            count: 1,
            first: at(4),
            last: at(4),
            ..outbound
        };
        assert_eq!(refusals.list(), [outbound, inbound]);
    }

    #[test]
    fn strangers_cannot_make_a_device_s_refusal_forgotten() {
        let mut refusals = Refusals::default();
        note(&mut refusals, 1, device(1), SERVER, DropReason::IpsecOff);
        for number in 0..200 {
            let bytes = esp([203, 0, 113, number].into(), device(1));
            let packet = PacketView::parse(&bytes).unwrap();
            refusals.note(at(2), &packet, Direction::Inbound, DropReason::EspNoGate);
        }
        assert_eq!(refusals.list().len(), 1 + MAX_INBOUND);
        assert_eq!(refusals.list().first().map(|refused| refused.device), Some(Some(device(1))));
    }

    #[test]
    fn the_one_longest_ago_makes_room() {
        let mut refusals = Refusals::default();
        for number in 1..=48 {
            note(&mut refusals, number.into(), device(number), SERVER, DropReason::IpsecOff);
        }
        note(&mut refusals, 60, device(1), SERVER, DropReason::IpsecOff);
        note(&mut refusals, 61, device(100), SERVER, DropReason::IpsecOff);
        let kept = |number| refusals.list().iter().any(|refused| refused.device == Some(device(number)));
        assert_eq!(refusals.list().len(), MAX_OUTBOUND);
        assert_eq!([1, 2, 3, 100].map(kept), [true, false, true, true]);
    }

    #[test]
    fn what_befalls_any_stranger_does_not_matter() {
        assert!(matters_inbound(DropReason::EspNoGate) && matters_inbound(DropReason::NoPort));
        assert!(!matters_inbound(DropReason::Filtered) && !matters_inbound(DropReason::Guarded));
    }
}
