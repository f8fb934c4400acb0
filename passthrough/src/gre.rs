//! The header of Generic Routing Encapsulation.
//!
//! Version 0 (RFC 2784) has no session identifier unless it carries the key of RFC 2890, which the owners of a
//! tunnel configure alike on both ends as a rule. Version 1 (RFC 2637 section 4.1) is PPTP's: the key's place
//! holds the payload's length and the Call ID that the receiver chose. MikroTik's EoIP sends version 1 too,
//! with protocol 0x6400 and a configured tunnel id, little endian, where PPTP has the Call ID; it knows no
//! control connection, so it is told apart here and has its tunnel id as `key`.

/// PPTP's payload, PPP (RFC 2637 section 4.1).
pub const PPP: u16 = 0x880b;
/// MikroTik's Ethernet over IP.
pub const EOIP: u16 = 0x6400;

/// What the header of one GRE packet says. Numbers are in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreHeader {
    /// 0 or 1.
    pub version: u8,
    /// The Ethernet type of the payload.
    pub protocol: u16,
    /// Is there a checksum (RFC 2784 section 2.1)? It covers the payload and nothing outside of GRE.
    pub checksum: bool,
    /// Is it source-routed (RFC 1701)? The routes lie behind `header_len`.
    pub routed: bool,
    /// RFC 2890's key, or EoIP's tunnel id.
    pub key: Option<u32>,
    /// PPTP's Call ID, chosen by the receiver.
    pub call_id: Option<u16>,
    /// Version 1: how many bytes of payload the header announces.
    pub payload_len: Option<u16>,
    /// The sequence number.
    pub seq: Option<u32>,
    /// PPTP's acknowledgement number.
    pub ack: Option<u32>,
    /// Where the payload begins.
    pub header_len: usize,
}

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
const ACK: u16 = 0x0080;
const VERSION: u16 = 0x0007;

impl GreHeader {
    /// Offset of the Call ID in a PPTP packet.
    pub const CALL_ID_AT: usize = 6;

    /// Reads the header at the start of `packet`, the payload of IP protocol 47. `None` when it is cut off, or
    /// of a version that nobody has defined.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let flags = word(packet, 0)?;
        let mut header = Self {
            version: 0,
            protocol: word(packet, 2)?,
            checksum: flags & CHECKSUM != 0,
            routed: flags & ROUTING != 0,
            key: None,
            call_id: None,
            payload_len: None,
            seq: None,
            ack: None,
            header_len: 4,
        };
        match flags & VERSION {
            0 => header.key_and_sequence(packet, flags)?,
            1 => {
                header.version = 1;
                header.lengths_and_ids(packet, flags)?;
            }
            _ => return None,
        }
        Some(header)
    }

    /// Is it a packet of a PPTP call?
    pub const fn is_pptp(&self) -> bool {
        self.call_id.is_some()
    }

    fn key_and_sequence(&mut self, packet: &[u8], flags: u16) -> Option<()> {
        if self.checksum || self.routed {
            long(packet, 4)?; // checksum, and an offset that only routes use
            self.header_len += 4;
        }
        if flags & KEY != 0 {
            self.key = Some(self.next(packet)?);
        }
        if flags & SEQUENCE != 0 {
            self.seq = Some(self.next(packet)?);
        }
        Some(())
    }

    fn lengths_and_ids(&mut self, packet: &[u8], flags: u16) -> Option<()> {
        if flags & KEY != 0 {
            self.payload_len = word(packet, 4);
            let id = word(packet, Self::CALL_ID_AT)?;
            self.header_len += 4;
            match self.protocol {
                PPP => self.call_id = Some(id),
                EOIP => self.key = Some(u32::from(id.swap_bytes())),
                _ => self.key = Some(u32::from(id)),
            }
        }
        if flags & SEQUENCE != 0 {
            self.seq = Some(self.next(packet)?);
        }
        if flags & ACK != 0 {
            self.ack = Some(self.next(packet)?);
        }
        Some(())
    }

    fn next(&mut self, packet: &[u8]) -> Option<u32> {
        let value = long(packet, self.header_len)?;
        self.header_len += 4;
        Some(value)
    }
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..)?.first_chunk().map(|&bytes| u16::from_be_bytes(bytes))
}

fn long(packet: &[u8], at: usize) -> Option<u32> {
    packet.get(at..)?.first_chunk().map(|&bytes| u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: GreHeader = GreHeader {
        version: 0,
        protocol: 0x0800,
        checksum: false,
        routed: false,
        key: None,
        call_id: None,
        payload_len: None,
        seq: None,
        ack: None,
        header_len: 4,
    };

    #[test]
    fn every_combination_of_fields_is_found_where_it_stands() {
        let pptp = GreHeader { version: 1, protocol: PPP, call_id: Some(7), ..PLAIN };
        for (name, bytes, expected) in [
            ("plain", &[0, 0, 8, 0][..], PLAIN),
            ("key", &[0x20, 0, 8, 0, 0, 0, 1, 2], GreHeader { key: Some(0x0102), header_len: 8, ..PLAIN }),
            (
                "checksum, key, sequence",
                &[0xb0, 0, 8, 0, 9, 9, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6],
                GreHeader { checksum: true, key: Some(5), seq: Some(6), header_len: 16, ..PLAIN },
            ),
            (
                "routes",
                &[0x60, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 5],
                GreHeader { routed: true, key: Some(5), header_len: 12, ..PLAIN },
            ),
            (
                "pptp data",
                &[0x30, 1, 0x88, 0x0b, 0, 4, 0, 7, 0, 0, 0, 9],
                GreHeader { payload_len: Some(4), seq: Some(9), header_len: 12, ..pptp },
            ),
            (
                "pptp data and ack",
                &[0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 7, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff],
                GreHeader { payload_len: Some(4), seq: Some(9), ack: Some(u32::MAX), header_len: 16, ..pptp },
            ),
            (
                "pptp ack",
                &[0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 7, 0, 0, 0, 3],
                GreHeader { payload_len: Some(0), ack: Some(3), header_len: 12, ..pptp },
            ),
            (
                "eoip",
                &[0x20, 1, 0x64, 0, 0, 60, 42, 0],
                GreHeader {
                    version: 1,
                    protocol: EOIP,
                    key: Some(42),
                    payload_len: Some(60),
                    header_len: 8,
                    ..PLAIN
                },
            ),
        ] {
            assert_eq!(GreHeader::parse(bytes), Some(expected), "{name}");
            for short in 0..bytes.len() {
                assert_eq!(GreHeader::parse(&bytes[..short]), None, "{name} cut off at {short}");
            }
        }
        assert_eq!(GreHeader::parse(&[0, 2, 8, 0, 0, 0, 0, 0]), None, "version 2");
    }

    #[test]
    fn only_a_call_id_before_ppp_makes_it_pptp() {
        for (bytes, pptp) in [
            (&[0x20, 1, 0x88, 0x0b, 0, 0, 0, 7][..], true),
            (&[0x20, 1, 0x64, 0x00, 0, 0, 0, 7], false),
            (&[0x20, 0, 0x88, 0x0b, 0, 0, 0, 7], false),
            (&[0x00, 1, 0x88, 0x0b], false),
        ] {
            assert_eq!(GreHeader::parse(bytes).map(|header| header.is_pptp()), Some(pptp), "{bytes:02x?}");
        }
    }
}
