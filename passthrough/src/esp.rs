//! The clear fields of ESP (RFC 4303 section 2) and AH (RFC 4302 section 2).
//!
//! The receiver of a packet chose its SPI, so the two directions of a pair of SAs show two unrelated numbers.
//! AH authenticates the addresses in the IP header: it is read only so that it can be named.

use crate::bytes::{be16, be32};

/// A Security Parameters Index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

impl Spi {
    /// 0 is for use inside a host, 1 to 255 belong to IANA (RFC 4303 section 2.1): no SA negotiates them.
    pub const fn is_reserved(self) -> bool {
        self.0 <= 255
    }
}

/// What an ESP packet shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspHeader {
    /// The SA, in the receiver's numbering.
    pub spi: Spi,
    /// Sequence number: 1 in the first packet of an SA.
    pub seq: u32,
}

impl EspHeader {
    /// Reads what follows the IP header. Eight bytes are enough, which is what an ICMP error quotes.
    pub fn parse(ip_payload: &[u8]) -> Option<Self> {
        Some(Self { spi: Spi(be32(ip_payload, 0)?), seq: be32(ip_payload, 4)? })
    }
}

/// What an AH packet shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AhHeader {
    /// The SA, in the receiver's numbering.
    pub spi: Spi,
    /// Sequence number.
    pub seq: u32,
    /// Length of the whole header in bytes, integrity check value included.
    pub len: u16,
}

impl AhHeader {
    /// Reads what follows the IP header: 12 bytes at least; the integrity check value may be cut off.
    pub fn parse(ip_payload: &[u8]) -> Option<Self> {
        let words = be16(ip_payload, 0)? & 0xff; // counted in 32-bit words, less two
        let len = (words + 2) * 4;
        let header = Self { spi: Spi(be32(ip_payload, 4)?), seq: be32(ip_payload, 8)?, len };
        (len >= 12).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::noise::Noise;

    #[test]
    fn eight_bytes_of_esp_show_spi_and_sequence_number() {
        let packet = [0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1, 0xff];
        let header = EspHeader { spi: Spi(0x1234_5678), seq: 1 };
        assert_eq!(EspHeader::parse(&packet), Some(header));
        assert_eq!(EspHeader::parse(&packet[..8]), Some(header));
        assert_eq!(EspHeader::parse(&packet[..7]), None);
    }

    #[test]
    fn spis_up_to_255_are_reserved() {
        let reserved = [0, 1, 255, 256, u32::MAX].map(|spi| Spi(spi).is_reserved());
        assert_eq!(reserved, [true, true, true, false, false]);
    }

    #[test]
    fn ah_counts_its_length_in_words_less_two() {
        let mut packet = [6, 4, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 9, 0xaa, 0xbb];
        assert_eq!(AhHeader::parse(&packet), Some(AhHeader { spi: Spi(0x1001), seq: 9, len: 24 }));
        assert_eq!(AhHeader::parse(&packet[..11]), None);
        packet[1] = 0;
        assert_eq!(AhHeader::parse(&packet), None, "8 bytes cannot hold the fixed fields");
    }

    #[test]
    fn no_bytes_make_the_parsers_panic() {
        let mut noise = Noise(4303);
        for _ in 0..50_000 {
            let bytes = noise.bytes(20);
            assert_eq!(EspHeader::parse(&bytes).is_some(), bytes.len() >= 8);
            assert!(AhHeader::parse(&bytes).is_none_or(|header| header.len >= 12 && bytes.len() >= 12));
        }
    }
}
