//! Frames of a capture: link layer, IP of both versions, and the household that they are told to.

use std::time::Duration;

use diagnosis::link::{self, LinkType};
use diagnosis::{Fragment, Household, Packet, Point, Settings, Vantage};
use nat_core::time::Timestamp;

/// Every link type that can be read, and one that cannot.
const LINKS: [u16; 14] = [1, 276, 113, 101, 9, 0, 108, 12, 14, 50, 51, 228, 229, 127];

/// The first byte is the link type; then frames follow, each behind a byte of time and two of length.
pub(crate) fn run(input: &[u8]) {
    let Some((&first, mut rest)) = input.split_first() else { return };
    let link = LinkType(LINKS[usize::from(first) % LINKS.len()]);
    let mut household = Household::new(settings());
    let (mut at, mut number) = (0, 0);
    while let [pause, high, low, frames @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(frames.len());
        let (frame, more) = frames.split_at(len);
        rest = more;
        // From nothing to two minutes.
        at += u64::from(*pause) * u64::from(*pause) * 2000;
        number += 1;
        let at = Timestamp::from_micros(at);
        one(link, frame, |point, packet| household.packet(at, number, point, None, packet));
    }
    let end = Timestamp::from_micros(at);
    for now in [end, end + Duration::from_secs(600)] {
        let _ = household.findings(now, None, None);
        let _ = household.sessions(now);
        household.pass_time(now);
    }
}

fn one(link: LinkType, frame: &[u8], mut tell: impl FnMut(Point, &Packet<'_>)) {
    let Some((bytes, origin)) = link::ip(link, frame) else { return };
    assert!(bytes.len() <= frame.len(), "more packet than frame");
    if link == LinkType::LINUX_SLL2 {
        let again = [&origin.header(bytes[0] >> 4)[..], bytes].concat();
        let read = link::ip(link, &again).map(|(again, read)| (again == bytes, read.interface, read.point));
        assert_eq!(read, Some((true, origin.interface, origin.point)), "a header of ours is read otherwise");
    }
    for on_wire in [0, u32::try_from(bytes.len()).unwrap_or(0), u32::MAX] {
        let Some(packet) = Packet::parse_cut(bytes, on_wire) else { continue };
        let there = u32::try_from(packet.payload.len()).unwrap_or(u32::MAX);
        assert!(there <= packet.payload_len && packet.payload_len <= packet.ip_len, "lengths: {packet:?}");
        assert_eq!(packet.src.is_ipv4(), packet.dst.is_ipv4());
        assert!(packet.fragment == Fragment::Whole || packet.src.is_ipv4() || packet.ip_len > 40);
        if on_wire != 0 {
            tell(origin.point.unwrap_or(Point::Unknown), &packet);
        }
        // Whatever is cut off behind the headers, the rest is read the same.
        let headers = bytes.len() - bytes.len().min(packet.payload.len());
        let cut = Packet::parse_cut(&bytes[..headers.min(bytes.len())], on_wire);
        if let Some(cut) = cut {
            assert_eq!(Packet { payload: packet.payload, ..cut }, packet, "cut off");
        }
    }
}

fn settings() -> Settings {
    Settings {
        events: false,
        lan: Vec::new(),
        pairs: 8,
        memory: Duration::from_secs(3600),
        vantage: Vantage { lan: true, wan: true, router: false, dns: true },
        servers: Vec::new(),
    }
}
