//! OpenVPN's packet header, which its protocol description calls opcode, key ID and session ID.
//!
//! Nothing in a data packet proves that it is OpenVPN's, and there are many ports beside 1194. So [`parse_udp`]
//! and [`parse_tcp`] believe only packets of the control channel whose form leaves hardly room for chance, hard
//! resets above all, with which every conversation begins. [`read_udp`] and [`read_tcp`] are for conversations
//! that are OpenVPN's by their port or by an earlier packet.

use core::ops::RangeInclusive;

use crate::bytes::{be16, be32, be64};

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A client begins, key method 1: 1.
    HardResetClientV1,
    /// A server answers, key method 1: 2.
    HardResetServerV1,
    /// New keys for a living session: 3.
    SoftReset,
    /// Part of the TLS conversation: 4.
    Control,
    /// Acknowledges packets of the control channel: 5.
    Ack,
    /// A tunnelled packet: 6.
    DataV1,
    /// A client begins, key method 2: 7.
    HardResetClientV2,
    /// A server answers, key method 2: 8.
    HardResetServerV2,
    /// A tunnelled packet with a peer ID: 9.
    DataV2,
    /// A client begins, with a key of its own behind the packet (tls-crypt-v2): 10.
    HardResetClientV3,
    /// The first control packet, with that key again: 11.
    ControlWkc,
}

/// What a packet shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is for.
    pub opcode: Opcode,
    /// Which of a session's keys, 0 to 7.
    pub key_id: u8,
    /// The sender's session ID; data packets have none.
    pub session: Option<u64>,
}

/// Opcode and session ID.
const HEAD: usize = 9;
/// An empty acknowledgement array and a packet ID.
const SHORTEST_CONTROL: usize = HEAD + 1 + 4;
/// A keepalive.
const SHORTEST_TUNNELLED: usize = 16;
/// Behind the session ID: packet ID, time and tag of tls-crypt; then, encrypted, no acknowledgement and an ID.
const TLS_CRYPT_RESET: usize = HEAD + 8 + 32 + 5;
/// One acknowledgement: a packet ID and the session ID of the peer.
const ONE_ACK: usize = 4 + 8;
/// The flags of early negotiation, which OpenVPN 2.6 puts behind a reset.
const EARLY_NEGOTIATION: usize = 6;
/// What a replay packet ID may be in the first seconds of a session.
const FIRST_REPLAY_IDS: RangeInclusive<u32> = 1..=0xff;
/// The same where early negotiation is offered.
const EARLY_REPLAY_IDS: RangeInclusive<u32> = 0x0f00_0000..=0x0f00_00ff;
/// The wrapped key of tls-crypt-v2: a tag, two keys and its own length; metadata may make it longer.
const SHORTEST_WRAPPED_KEY: usize = 32 + 256 + 2;

/// Reads a UDP payload that proves to be OpenVPN's on whatever port.
pub fn parse_udp(udp_payload: &[u8]) -> Option<Packet> {
    let packet = read_udp(udp_payload)?;
    proves(packet.opcode, udp_payload).then_some(packet)
}

/// Reads the first packet in a TCP segment's payload if it proves to be OpenVPN's on whatever port.
pub fn parse_tcp(tcp_payload: &[u8]) -> Option<Packet> {
    parse_udp(first_of_stream(tcp_payload)?)
}

/// Reads a UDP payload of a conversation known to be OpenVPN's.
pub fn read_udp(udp_payload: &[u8]) -> Option<Packet> {
    let &first = udp_payload.first()?;
    let (opcode, shortest) = match first >> 3 {
        1 => (Opcode::HardResetClientV1, SHORTEST_CONTROL),
        2 => (Opcode::HardResetServerV1, SHORTEST_CONTROL),
        3 => (Opcode::SoftReset, SHORTEST_CONTROL),
        4 => (Opcode::Control, SHORTEST_CONTROL),
        5 => (Opcode::Ack, HEAD + 1 + ONE_ACK),
        6 => (Opcode::DataV1, 1 + SHORTEST_TUNNELLED),
        7 => (Opcode::HardResetClientV2, SHORTEST_CONTROL),
        8 => (Opcode::HardResetServerV2, SHORTEST_CONTROL),
        9 => (Opcode::DataV2, 4 + SHORTEST_TUNNELLED),
        10 => (Opcode::HardResetClientV3, SHORTEST_CONTROL),
        11 => (Opcode::ControlWkc, SHORTEST_CONTROL),
        _ => return None,
    };
    if udp_payload.len() < shortest {
        return None;
    }
    let session = if matches!(opcode, Opcode::DataV1 | Opcode::DataV2) {
        None
    } else {
        Some(be64(udp_payload, 1).filter(|&session| session != 0)?)
    };
    Some(Packet { opcode, key_id: first & 7, session })
}

/// Reads the first packet in a TCP segment's payload, of a conversation known to be OpenVPN's; `None` where the
/// segment does not begin with a whole packet.
pub fn read_tcp(tcp_payload: &[u8]) -> Option<Packet> {
    read_udp(first_of_stream(tcp_payload)?)
}

/// On TCP each packet comes behind its length in two bytes.
fn first_of_stream(tcp_payload: &[u8]) -> Option<&[u8]> {
    let length = usize::from(be16(tcp_payload, 0)?);
    tcp_payload.get(2..)?.get(..length)
}

fn proves(opcode: Opcode, packet: &[u8]) -> bool {
    match opcode {
        Opcode::HardResetClientV2 | Opcode::HardResetServerV2 | Opcode::HardResetClientV3 => {
            packet.first().is_some_and(|first| first & 7 == 0)
                && (resets_in_clear(packet) || resets_under_tls_crypt(opcode, packet))
        }
        Opcode::Control => carries_tls(packet),
        // Key method 1 is history; acknowledgements and soft resets are short and look like anything.
        Opcode::HardResetClientV1
        | Opcode::HardResetServerV1
        | Opcode::SoftReset
        | Opcode::Ack
        | Opcode::DataV1
        | Opcode::DataV2
        | Opcode::ControlWkc => false,
    }
}

/// Is packet 0 of the control channel all there is, and in the clear? With tls-auth an HMAC, a replay packet ID
/// and a time come before it; the HMAC's length depends on its hash.
fn resets_in_clear(packet: &[u8]) -> bool {
    let resets = |at| packet_id(packet, at) == Some((0, packet.len()));
    resets(HEAD)
        || [16, 20, 28, 32, 48, 64].into_iter().any(|hmac| {
            let replay = be32(packet, HEAD + hmac);
            replay.is_some_and(|id| FIRST_REPLAY_IDS.contains(&id)) && resets(HEAD + hmac + 8)
        })
}

/// Does the packet have the length of a reset under tls-crypt, and a replay packet ID of the first seconds?
fn resets_under_tls_crypt(opcode: Opcode, packet: &[u8]) -> bool {
    let replay = be32(packet, HEAD).unwrap_or(0);
    let mut head = TLS_CRYPT_RESET;
    match (opcode, packet.last_chunk()) {
        (Opcode::HardResetClientV3, Some(&length)) => {
            let wrapped_key = usize::from(u16::from_be_bytes(length));
            if wrapped_key < SHORTEST_WRAPPED_KEY {
                return false;
            }
            head += wrapped_key;
        }
        (Opcode::HardResetServerV2, _) => head += ONE_ACK,
        _ => {}
    }
    (FIRST_REPLAY_IDS.contains(&replay) || EARLY_REPLAY_IDS.contains(&replay))
        && (packet.len() == head || packet.len() == head + EARLY_NEGOTIATION)
}

/// Does a control packet without tls-auth carry the beginning of a TLS record?
fn carries_tls(packet: &[u8]) -> bool {
    let record = packet_id(packet, HEAD).and_then(|(_, behind)| packet.get(behind..));
    matches!(record, Some([0x14..=0x17, 3, 0..=4, _, _, ..]))
}

/// Reads the acknowledgement array at `at` and the packet ID behind it; also says where that ends.
fn packet_id(packet: &[u8], at: usize) -> Option<(u32, usize)> {
    let acks = usize::from(*packet.get(at)?);
    let id = match acks {
        0 => at + 1,
        1..=8 => at + 1 + 4 * acks + 8,
        _ => return None,
    };
    Some((be32(packet, id)?, id + 4))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::bytes::noise::Noise;

    const SESSION: u64 = 0x0102_0304_0506_0708;
    const FIRST_ID: [u8; 5] = [0, 0, 0, 0, 0];

    #[test]
    fn resets_of_every_kind_prove_openvpn() {
        let rows: [(&str, Opcode, Vec<u8>); 10] = [
            ("plain client", Opcode::HardResetClientV2, packet(0x38, &[&FIRST_ID])),
            ("plain server", Opcode::HardResetServerV2, packet(0x40, &[&one_ack(), &[0; 4]])),
            ("tls-auth MD5", Opcode::HardResetClientV2, packet(0x38, &[&[9; 16], &replay(1), &FIRST_ID])),
            ("tls-auth SHA-1", Opcode::HardResetClientV2, packet(0x38, &[&[9; 20], &replay(1), &FIRST_ID])),
            (
                "tls-auth SHA-256, server",
                Opcode::HardResetServerV2,
                packet(0x40, &[&[9; 32], &replay(1), &one_ack(), &[0; 4]]),
            ),
            ("tls-auth SHA-512", Opcode::HardResetClientV2, packet(0x38, &[&[9; 64], &replay(3), &FIRST_ID])),
            ("tls-crypt", Opcode::HardResetClientV2, packet(0x38, &[&replay(1), &[9; 37]])),
            ("tls-crypt, server", Opcode::HardResetServerV2, packet(0x40, &[&replay(1), &[9; 49]])),
            (
                "tls-crypt-v2",
                Opcode::HardResetClientV3,
                packet(0x50, &[&replay(0x0f00_0001), &[9; 37], &[7; 288], &[1, 0x22]]),
            ),
            (
                "tls-crypt-v2, server",
                Opcode::HardResetServerV2,
                packet(0x40, &[&replay(0x0f00_0001), &[9; 55]]),
            ),
        ];
        for (name, opcode, bytes) in rows {
            let expected = Packet { opcode, key_id: 0, session: Some(SESSION) };
            assert_eq!(parse_udp(&bytes), Some(expected), "{name}");
            assert_eq!(parse_tcp(&on_tcp(&bytes)), Some(expected), "{name} on TCP");
            // Without the flags of early negotiation a reset is as good a reset.
            for len in (0..bytes.len()).filter(|len| len + EARLY_NEGOTIATION != bytes.len()) {
                assert_eq!(parse_udp(&bytes[..len]), None, "{name} cut off after {len} bytes");
            }
            for len in 0..bytes.len() + 2 {
                assert_eq!(parse_tcp(&on_tcp(&bytes)[..len]), None, "{name} on TCP, cut off");
            }
        }
    }

    #[test]
    fn a_control_packet_proves_openvpn_by_its_tls_record() {
        let hello = packet(0x20, &[&[0, 0, 0, 0, 1], &[0x16, 3, 1, 2, 0, 1]]);
        assert_eq!(
            parse_udp(&hello),
            Some(Packet { opcode: Opcode::Control, key_id: 0, session: Some(SESSION) })
        );
        assert_eq!(parse_udp(&packet(0x20, &[&[0, 0, 0, 0, 1], &[0x55; 6]])), None);
    }

    #[test]
    fn what_proves_nothing_is_read_only_where_openvpn_is_known() {
        let rows = [
            (0x30, 1 + 16, Some((Opcode::DataV1, 0))),
            (0x4a, 4 + 16, Some((Opcode::DataV2, 2))),
            (0x4a, 4 + 15, None),
            (0x29, 22, Some((Opcode::Ack, 1))),
            (0x29, 21, None),
            (0x18, 14, Some((Opcode::SoftReset, 0))),
            (0x58, 300, Some((Opcode::ControlWkc, 0))),
            (0x08, 14, Some((Opcode::HardResetClientV1, 0))),
            (0x00, 50, None),
            (0x60, 50, None),
            (0xff, 50, None),
        ];
        for (first, len, expected) in rows {
            let mut bytes = packet(first, &[]);
            bytes.resize(len, 0x77);
            let seen = read_udp(&bytes);
            assert_eq!(
                seen.map(|packet| (packet.opcode, packet.key_id)),
                expected,
                "{first:#x}, {len} bytes"
            );
            assert_eq!(read_tcp(&on_tcp(&bytes)), seen);
            assert_eq!(parse_udp(&bytes), None, "{first:#x}, {len} bytes");
        }
        assert_eq!(read_udp(&[0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None, "no session ID");
    }

    #[test]
    fn a_reset_with_a_wrong_field_proves_nothing() {
        let keyless = packet(0x50, &[&replay(1), &[9; 37], &[0, 2]]);
        assert_eq!(parse_udp(&keyless), None, "a wrapped key of 2 bytes");
        let good = packet(0x38, &[&[9; 20], &replay(1), &FIRST_ID]);
        assert!(parse_udp(&good).is_some());
        for (at, value) in [(0, 0x39), (29, 1), (37, 9), (37, 1), (41, 1)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(parse_udp(&bytes), None, "byte {at} = {value}");
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic_and_chance_proves_nothing() {
        let mut noise = Noise(1194);
        let reset = packet(0x50, &[&replay(1), &[9; 37], &[7; 288], &[1, 0x22]]);
        for _ in 0..200_000 {
            let mut bytes = noise.bytes(100);
            if let Some(first) = bytes.first_mut() {
                *first = [0x38, 0x40, 0x50, 0x20][noise.below(4)];
            }
            assert_eq!(parse_udp(&bytes), None, "{bytes:x?}");
            let _ = parse_tcp(&bytes);
            let _ = parse_udp(&noise.mutant(&reset));
            let _ = read_tcp(&noise.mutant(&on_tcp(&reset)));
        }
    }

    fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::from([first]);
        bytes.extend(SESSION.to_be_bytes());
        parts.iter().for_each(|part| bytes.extend(*part));
        bytes
    }

    fn replay(id: u32) -> [u8; 8] {
        let [a, b, c, d] = id.to_be_bytes();
        [a, b, c, d, 0x65, 0, 0, 0]
    }

    fn one_ack() -> [u8; 13] {
        [1, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]
    }

    fn on_tcp(packet: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(u16::try_from(packet.len()).unwrap().to_be_bytes());
        bytes.extend(packet);
        bytes
    }
}
