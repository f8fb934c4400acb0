//! Public captures, from the folder that NATD_CAPTURES names.

use std::net::IpAddr;
use std::{env, fs};

use passthrough::sighting::recognise_payload;

use super::*;
use crate::observation::{Observation, Transport};

/// What a classic little-endian capture of Ethernet or raw IP holds, of the first two hosts that speak IKE.
fn read(name: &str) -> Option<Line> {
    let folder = env::var_os("NATD_CAPTURES")?;
    let file = fs::read(std::path::Path::new(&folder).join(name)).unwrap();
    let word = |at: usize| file.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    assert_eq!(word(0), Some(0xa1b2_c3d4), "{name}");
    let behind = if word(20) == Some(1) { 14 } else { 0 };
    let (mut line, mut begin, mut number, mut place) = (None, None, 0, 24);
    let mut ports = [0; 2];
    while let (Some(secs), Some(micros), Some(len)) = (word(place), word(place + 4), word(place + 8)) {
        let millis = u64::from(secs) * 1000 + u64::from(micros) / 1000;
        let frame = &file[place + 16..place + 16 + usize::try_from(len).unwrap()];
        (place, number) = (place + 16 + frame.len(), number + 1);
        let packet = &frame[behind..];
        let (Some([a, b, c, d]), true) = (packet.get(12..16), packet[0] == 0x45) else { continue };
        let src: IpAddr = [*a, *b, *c, *d].into();
        let dst: IpAddr = <[u8; 4]>::try_from(&packet[16..20]).unwrap().into();
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let (protocol, payload) = (packet[9], &packet[20..total.min(packet.len())]);
        let fragment = match (packet[6] & 0x20 != 0, u16::from_be_bytes([packet[6] & 0x1f, packet[7]])) {
            (false, 0) => Fragment::Whole,
            (true, 0) => Fragment::First,
            _ => Fragment::Later,
        };
        if !matches!(protocol, 17 | 50) || protocol == 17 && payload.len() < 8 {
            continue;
        }
        let line = line.get_or_insert_with(|| {
            let mut line = Line::new();
            line.peers = Peers { device: src, server: dst };
            line.pair = Pair::new(src, dst, at(0));
            line
        });
        let base = *begin.get_or_insert(millis);
        let outbound = src == line.peers.device;
        let sighting = if fragment == Fragment::Later { None } else { recognise_payload(protocol, payload) };
        if protocol == 17 && fragment != Fragment::Later {
            ports = [0, 2].map(|at| u16::from_be_bytes([payload[at], payload[at + 1]]));
        }
        let ends = if protocol == 50 { [0; 2] } else { ports };
        let [device_port, server_port] = if outbound { ends } else { [ends[1], ends[0]] };
        let udp_len =
            if protocol == 17 { u32::from(u16::from_be_bytes([payload[4], payload[5]])) - 8 } else { 0 };
        let mark = crate::finding::Mark { at: at(millis - base), number };
        line.pair.observe(&Observation {
            mark,
            direction: if outbound { Outbound } else { Inbound },
            device: line.peers.device,
            server: line.peers.server,
            device_port,
            server_port,
            point: Point::Unknown,
            transport: if protocol == 17 { Transport::Udp } else { Transport::Other(50) },
            ttl: packet[8],
            ident: u32::from(u16::from_be_bytes([packet[4], packet[5]])),
            dont_fragment: packet[6] & 0x40 != 0,
            fragment,
            ip_len: u32::try_from(total).unwrap(),
            payload_len: if fragment == Fragment::Later { 0 } else { udp_len },
            payload: &[],
            sighting,
        });
    }
    line
}

#[test]
fn public_captures_show_what_their_packets_say() {
    let rows: [(&str, u64, &[Code]); 5] = [
        ("zeek-ipsec_client.pcap", 2100, &[Code::IkeAuthFragLost]),
        ("zeek-ipsec.cap", 17_000, &[Code::IkeNoProposal]),
        ("tcpdump-isakmp4500.pcap", 60_000, &[]),
        ("zeek-ikev1-certs.pcap", 15_000, &[]),
        ("zeek-ipsec-ikev1-isakmp-aggressive-mode.pcap", 60_000, &[]),
    ];
    for (name, now, expected) in rows {
        let Some(line) = read(name) else {
            eprintln!("skipped, NATD_CAPTURES is not set");
            return;
        };
        let codes: Vec<Code> = line.findings(now).iter().map(|finding| finding.code).collect();
        assert_eq!(codes, expected, "{name}: {:#?}", line.sessions(now));
        if name == "zeek-ipsec.cap" {
            let first = (Phase::Closed, "refused: no proposal chosen");
            assert_eq!(line.phases(now), [first, (Phase::Data, "")]);
        }
    }
}
