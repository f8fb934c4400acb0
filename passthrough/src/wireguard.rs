//! WireGuard's four messages (the WireGuard paper, section 5.4), known by their form on whatever port.
//!
//! A server answers nobody whose key it does not know, so silence proves nothing; a cookie reply proves that
//! the server is reached.

/// A message. The indices are each side's own number for the session; little-endian on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1: begins a handshake.
    Initiation {
        /// The sender's index.
        sender: u32,
    },
    /// Type 2: answers an initiation.
    Response {
        /// The sender's index.
        sender: u32,
        /// The index that the initiation announced.
        receiver: u32,
    },
    /// Type 3: the responder is under load and wants the handshake again, with a cookie.
    CookieReply {
        /// The index that the refused message announced.
        receiver: u32,
    },
    /// Type 4: an encrypted packet, or a keepalive if it is empty.
    Data {
        /// The receiver's index.
        receiver: u32,
        /// Counts the packets of a session from 0.
        counter: u64,
    },
}

/// No session sends that many packets: its keys are refused after 180 seconds (section 6.1).
const COUNTER_LIMIT: u64 = 1 << 48;

/// Reads a UDP payload; `None` unless type, reserved bytes and length all fit.
///
/// A tunnelled packet is padded to a multiple of 16 bytes, but not beyond the tunnel's MTU: full ones have any
/// length.
pub fn parse(udp_payload: &[u8]) -> Option<Message> {
    let (&[kind, 0, 0, 0], rest) = udp_payload.split_first_chunk()? else { return None };
    let (first, second) = (le32(rest, 0)?, le32(rest, 4)?);
    match (kind, udp_payload.len()) {
        (1, 148) => Some(Message::Initiation { sender: first }),
        (2, 92) => Some(Message::Response { sender: first, receiver: second }),
        (3, 64) => Some(Message::CookieReply { receiver: first }),
        (4, 32..) => {
            let counter = u64::from(le32(rest, 8)?) << 32 | u64::from(second);
            (counter < COUNTER_LIMIT).then_some(Message::Data { receiver: first, counter })
        }
        _ => None,
    }
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::bytes::noise::Noise;

    #[test]
    fn each_message_has_its_type_and_length() {
        let rows = [
            (1, 148, Some(Message::Initiation { sender: 0x0403_0201 })),
            (2, 92, Some(Message::Response { sender: 0x0403_0201, receiver: 7 })),
            (3, 64, Some(Message::CookieReply { receiver: 0x0403_0201 })),
            (4, 32, Some(Message::Data { receiver: 0x0403_0201, counter: 7 })),
            (4, 1452, Some(Message::Data { receiver: 0x0403_0201, counter: 7 })),
            (1, 147, None),
            (1, 149, None),
            (2, 148, None),
            (3, 92, None),
            (4, 16, None),
            (4, 31, None),
            (5, 148, None),
            (0, 148, None),
        ];
        for (kind, len, expected) in rows {
            assert_eq!(parse(&message(kind, len)), expected, "type {kind}, {len} bytes");
        }
    }

    #[test]
    fn reserved_bytes_and_the_top_of_the_counter_are_zero() {
        for at in [1, 2, 3, 14, 15] {
            let mut bytes = message(4, 64);
            bytes[at] = 1;
            assert_eq!(parse(&bytes), None, "byte {at}");
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic_and_chance_makes_no_message() {
        let mut noise = Noise(51_820);
        for _ in 0..50_000 {
            assert_eq!(parse(&noise.bytes(200)), None);
            let _ = parse(&noise.mutant(&message(4, 32)));
        }
    }

    fn message(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes = Vec::from([kind, 0, 0, 0, 1, 2, 3, 4, 7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.resize(len, 0xee);
        bytes
    }
}
