//! Reads the IPv4 packets in a capture: the classic pcap format, either byte order, and pcapng.

use std::collections::BTreeMap;

/// The IPv4 packets of a capture, each from its IP header on and as far as it was captured.
pub(crate) fn packets(file: &[u8]) -> Vec<Vec<u8>> {
    let frames = match file {
        [0x0a, 0x0d, 0x0d, 0x0a, ..] => pcapng(file),
        _ => classic(file),
    };
    frames.into_iter().filter_map(|(link, frame)| ipv4(link, frame)).map(<[u8]>::to_vec).collect()
}

/// Puts fragments together, as the kernel does before it queues a packet: those that come in order and none
/// missing, which is all that these captures need. Packets that are whole pass as they are.
pub(crate) fn reassembled(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut whole, mut begun) = (Vec::new(), BTreeMap::<Vec<u8>, Vec<u8>>::new());
    for packet in packets {
        let &[0x45, _, _, _, id_high, id_low, flags, low, _, protocol, ..] = &packet[..] else {
            whole.push(packet.clone());
            continue;
        };
        let (more, offset) = (flags & 0x20 != 0, usize::from(u16::from_be_bytes([flags & 0x1f, low])) * 8);
        if !more && offset == 0 {
            whole.push(packet.clone());
            continue;
        }
        let key = [&packet[12..20], &[id_high, id_low, protocol]].concat();
        let end = packet.len().min(usize::from(u16::from_be_bytes([packet[2], packet[3]])));
        match begun.get_mut(&key) {
            _ if offset == 0 => drop(begun.insert(key.clone(), packet[..end].to_vec())),
            Some(head) if head.len() == 20 + offset => head.extend(&packet[20..end]),
            _ => continue,
        }
        let done = if more { None } else { begun.remove(&key) };
        if let Some(mut head) = done {
            let total = u16::try_from(head.len()).unwrap().to_be_bytes();
            head[2..4].copy_from_slice(&total);
            head[6..8].fill(0);
            whole.push(head);
        }
    }
    whole
}

/// Which end of a number comes first in this file.
#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let field = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Big => u16::from_be_bytes(field),
            Self::Little => u16::from_le_bytes(field),
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let field = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Big => u32::from_be_bytes(field),
            Self::Little => u32::from_le_bytes(field),
        })
    }

    fn len(self, bytes: &[u8], at: usize) -> Option<usize> {
        self.u32(bytes, at).and_then(|len| usize::try_from(len).ok())
    }
}

/// A frame behind its link type.
type Frame<'a> = (u16, &'a [u8]);

/// A 24-byte header, then records; the last one may be cut off. Whether its times count in microseconds or
/// nanoseconds does not matter here.
fn classic(file: &[u8]) -> Vec<Frame<'_>> {
    let order = match file.get(..4) {
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => Order::Big,
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => Order::Little,
        other => panic!("not a capture: it begins with {other:x?}"),
    };
    let link = order.u32(file, 20).expect("a whole file header");
    let link = u16::try_from(link & 0xffff).unwrap();
    let mut frames = Vec::new();
    let mut at = 24;
    while let Some(len) = order.len(file, at + 8) {
        let begin = at + 16;
        let Some(frame) = file.get(begin..begin.saturating_add(len)) else { break };
        frames.push((link, frame));
        at = begin + len;
    }
    frames
}

/// Blocks, each with its type and length: section header, interface description, enhanced and simple packet.
fn pcapng(file: &[u8]) -> Vec<Frame<'_>> {
    let (mut frames, mut links, mut order) = (Vec::new(), Vec::new(), Order::Big);
    let mut rest = file;
    while rest.len() >= 12 {
        // The section header's type reads the same both ways; its magic number tells the order.
        if rest.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
            order = if rest[8..12] == [0x1a, 0x2b, 0x3c, 0x4d] { Order::Big } else { Order::Little };
            links.clear();
        }
        let (Some(kind), Some(len)) = (order.u32(rest, 0), order.len(rest, 4)) else { break };
        let Some(block) = rest.get(8..len.saturating_sub(4)) else { break };
        match kind {
            1 => links.extend(order.u16(block, 0)),
            6 => {
                let interface = order.len(block, 0).and_then(|number| links.get(number));
                let frame = order.len(block, 12).and_then(|len| block.get(20..)?.get(..len));
                frames.extend(interface.copied().zip(frame));
            }
            3 => {
                let original = order.len(block, 0).unwrap_or(0);
                let captured = block.get(4..).unwrap_or_default();
                let frame = captured.get(..original).unwrap_or(captured);
                frames.extend(links.first().map(|&link| (link, frame)));
            }
            _ => {}
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    frames
}

/// The IPv4 packet in a frame of link type `link`.
fn ipv4(link: u16, frame: &[u8]) -> Option<&[u8]> {
    const IPV4: u16 = 0x0800;
    let big = Order::Big;
    match link {
        // Null and loopback: address family AF_INET in the order of the host that captured.
        0 | 108 if frame.starts_with(&[2, 0, 0, 0]) || frame.starts_with(&[0, 0, 0, 2]) => frame.get(4..),
        1 => {
            let mut at = 12;
            while matches!(big.u16(frame, at), Some(0x8100 | 0x88a8)) {
                at += 4;
            }
            if big.u16(frame, at)? == IPV4 { frame.get(at + 2..) } else { None }
        }
        12 | 14 | 101 if frame.first().is_some_and(|first| first >> 4 == 4) => Some(frame),
        228 => Some(frame),
        113 if big.u16(frame, 14)? == IPV4 => frame.get(16..),
        276 if big.u16(frame, 0)? == IPV4 => frame.get(20..),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: [u8; 4] = [0x45, 1, 2, 3];

    #[test]
    fn classic_captures_of_either_order_are_read_up_to_a_cut_off_record() {
        for (magic, order) in [
            ([0xa1, 0xb2, 0xc3, 0xd4], Order::Big),
            ([0xa1, 0xb2, 0x3c, 0x4d], Order::Big),
            ([0xd4, 0xc3, 0xb2, 0xa1], Order::Little),
            ([0x4d, 0x3c, 0xb2, 0xa1], Order::Little),
        ] {
            let mut file = [&magic[..], &[0; 16], &number(order, 101)].concat();
            for _ in 0..2 {
                file.extend([&[0; 8][..], &number(order, 4), &number(order, 60), &IP].concat());
            }
            assert_eq!(packets(&file), [IP, IP]);
            file.pop();
            assert_eq!(packets(&file), [IP]);
        }
    }

    #[test]
    fn pcapng_of_either_order_is_read() {
        for order in [Order::Big, Order::Little] {
            let section = [&number(order, 0x1a2b_3c4d)[..], &[0; 12]].concat();
            let linux = [&number(order, 0)[..], &[0; 4]].concat();
            let mut interface = linux.clone();
            match order {
                Order::Big => interface[1] = 101,
                Order::Little => interface[0] = 101,
            }
            let enhanced =
                [number(order, 0), [0; 4], [0; 4], number(order, 4), number(order, 60), IP].concat();
            let simple = [number(order, 4), IP].concat();
            let file = [(0x0a0d_0d0a, section), (1, interface), (6, enhanced), (99, linux), (3, simple)]
                .map(|(kind, body)| block(order, kind, &body))
                .concat();
            assert_eq!(packets(&file), [IP, IP]);
        }
    }

    #[test]
    fn every_link_type_gives_up_its_packet() {
        let ethernet = [&[0; 12][..], &[8, 0], &IP].concat();
        let vlan = [&[0; 12][..], &[0x81, 0, 0, 7, 8, 0], &IP].concat();
        let ipv6 = [&[0; 12][..], &[0x86, 0xdd], &IP].concat();
        let cooked = [&[0; 14][..], &[8, 0], &IP].concat();
        let cooked2 = [&[8, 0][..], &[0; 18], &IP].concat();
        let rows: [(u16, &[u8], bool); 9] = [
            (1, &ethernet, true),
            (1, &vlan, true),
            (1, &ipv6, false),
            (0, &[&[2, 0, 0, 0][..], &IP].concat(), true),
            (108, &[&[0, 0, 0, 2][..], &IP].concat(), true),
            (101, &IP, true),
            (228, &IP, true),
            (113, &cooked, true),
            (276, &cooked2, true),
        ];
        for (link, frame, there) in rows {
            assert_eq!(ipv4(link, frame), there.then_some(&IP[..]), "link type {link}");
        }
    }

    #[test]
    fn fragments_in_order_become_one_packet() {
        let fragment = |flags, offset, payload: &[u8]| {
            let len = u8::try_from(20 + payload.len()).unwrap();
            let mut packet = vec![0x45, 0, 0, len, 0, 7, flags, offset, 64, 17];
            packet.resize(20, 1);
            [packet, payload.to_vec()].concat()
        };
        let whole = fragment(0, 0, &[9; 4]);
        let (first, last) = (fragment(0x20, 0, &[1; 8]), fragment(0, 1, &[2; 3]));
        let joined = fragment(0, 0, &[1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]);
        let packets = [first.clone(), whole.clone(), last.clone()];
        assert_eq!(reassembled(&packets), [whole, joined]);
        assert_eq!(reassembled(&[last, first]), Vec::<Vec<u8>>::new());
    }

    fn number(order: Order, value: u32) -> [u8; 4] {
        match order {
            Order::Big => value.to_be_bytes(),
            Order::Little => value.to_le_bytes(),
        }
    }

    fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
        let len = number(order, u32::try_from(body.len() + 12).unwrap());
        [&number(order, kind)[..], &len, body, &len].concat()
    }
}
