//! First messages of IKEv2 (RFC 7296) and IKEv1 (RFC 2409), and what can be read from an answer.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use super::bytes::{Reader, Writer};

/// Which version of IKE a message is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IKEv1, main mode.
    One,
    /// IKEv2.
    Two,
}

/// Which algorithms a message offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Those that servers take, with a key of this Diffie-Hellman group (RFC 7296 section 3.3.2).
    Usual {
        /// Its number.
        group: u16,
    },
    /// One that no server knows: it is refused at once, and the server keeps no half-open session.
    Unknown,
}

/// A first message.
#[derive(Clone, Copy, Debug)]
pub struct Init<'a> {
    /// Which version.
    pub version: Version,
    /// The initiator's SPI or cookie, not 0.
    pub spi: [u8; 8],
    /// What it offers.
    pub offer: Offer,
    /// Where it comes from, as far as the sender knows: address and port.
    pub from: (IpAddr, u16),
    /// Where it goes to.
    pub to: (IpAddr, u16),
    /// Padded with vendor IDs to this many bytes, where that is more.
    pub length: usize,
    /// What the server asked to be sent back (RFC 7296 section 2.6).
    pub cookie: Option<Cookie>,
    /// Unpredictable bytes for the key and the nonce, at least 300.
    pub random: &'a [u8],
}

/// A cookie of version 2: 1 to 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    length: u8,
    bytes: [u8; 64],
}

impl Cookie {
    fn new(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; 64];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        let length = u8::try_from(from.len()).ok().filter(|length| *length > 0)?;
        Some(Self { length, bytes })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The group offered at first: 2048-bit MODP (RFC 3526).
pub const FIRST_GROUP: u16 = 14;

const INIT_EXCHANGE: u8 = 34;
const MAIN_MODE: u8 = 2;
const COOKIE: u16 = 16_390;
const NAT_DETECTION_SOURCE: u16 = 16_388;
const NAT_DETECTION_DESTINATION: u16 = 16_389;
/// Of transforms: the IANA registry "Internet Key Exchange Version 2 (IKEv2) Parameters" keeps it for private use.
const PRIVATE_USE: u16 = 65_301;
/// A public point of P-256 that every library accepts: the generator (FIPS 186-4 section D.1.2.3).
const P256_GENERATOR: [u8; 64] = [
    0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77,
    0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3,
    0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33,
    0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];
/// RFC 3947 section 3.1.
const NAT_TRAVERSAL: [u8; 16] =
    [0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28, 0xf2, 0x0e, 0x95, 0x45, 0x2f];

impl Init<'_> {
    /// Its bytes, without the non-ESP marker of port 4500.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.put(&self.spi);
        out.put(&[0; 8]);
        let version_two = self.version == Version::Two;
        // Next payload: SA, or the cookie.
        out.put(match (version_two, self.cookie) {
            (true, Some(_)) => &[41, 0x20, INIT_EXCHANGE, 0x08],
            (true, None) => &[33, 0x20, INIT_EXCHANGE, 0x08],
            (false, _) => &[1, 0x10, MAIN_MODE, 0],
        });
        out.put(&[0; 8]);
        if version_two {
            self.payloads_two(&mut out)
        } else {
            self.payloads_one(&mut out)
        }
        let length = out.len();
        out.patch32(24, length);
        out.0
    }

    fn payloads_two(&self, out: &mut Writer) {
        let group = match self.offer {
            Offer::Usual { group } => group,
            Offer::Unknown => 2,
        };
        if let Some(cookie) = self.cookie {
            out.nest(&[33, 0], |notify| {
                notify.put(&[0, 0]);
                notify.put16(COOKIE);
                notify.put(cookie.bytes());
            });
        }
        out.nest(&[34, 0], |sa| match self.offer {
            Offer::Usual { .. } => {
                proposal_two(sa, 1, &[(12, 256), (12, 128), (3, 0)], &[2, 5], &[2, 12]);
                proposal_two(sa, 2, &[(20, 256), (20, 128)], &[2, 5, 6], &[]);
            }
            Offer::Unknown => {
                sa.nest(&[0, 0], |proposal| {
                    proposal.put(&[1, 1, 0, 4]);
                    for (kind, more) in [(1, 3), (2, 3), (3, 3), (4, 0)] {
                        transform_two(proposal, more, kind, PRIVATE_USE, 0);
                    }
                });
            }
        });
        out.nest(&[40, 0], |key| {
            key.put16(group);
            key.put16(0);
            match group {
                19 => key.put(&P256_GENERATOR),
                _ => key.put(self.random.get(..key_length(group)).unwrap_or_default()),
            }
        });
        out.nest(&[41, 0], |nonce| {
            nonce.put(self.random.last_chunk::<32>().map_or(&[], |bytes| &bytes[..]));
        });
        let notify = |out: &mut Writer, next: u8, kind: u16, (addr, port)| {
            out.nest(&[next, 0], |notify| {
                notify.put(&[0, 0]);
                notify.put16(kind);
                notify.put(&nat_hash(self.spi, [0; 8], addr, port));
            });
        };
        notify(out, 41, NAT_DETECTION_SOURCE, self.from);
        let padding = self.padding(out.len() + 28);
        let next = if padding.is_empty() { 0 } else { 43 };
        notify(out, next, NAT_DETECTION_DESTINATION, self.to);
        vendor_ids(out, 43, &padding);
    }

    fn payloads_one(&self, out: &mut Writer) {
        out.nest(&[13, 0], |sa| {
            // The IPsec DOI (RFC 2407), situation "identity only".
            sa.put(&[0, 0, 0, 1, 0, 0, 0, 1]);
            let ciphers: [(u16, u16); 3] = [(7, 256), (7, 128), (5, 0)];
            let (groups, methods): ([u16; 2], [u16; 3]) = ([14, 2], [1, 3, 65_001]);
            let all = ciphers.into_iter().flat_map(|cipher| {
                groups.into_iter().flat_map(move |group| methods.into_iter().map(move |m| (cipher, group, m)))
            });
            sa.nest(&[0, 0], |proposal| {
                proposal.put(&[1, 1, 0, 18]);
                for (number, ((cipher, bits), group, method)) in (1u8..).zip(all) {
                    proposal.nest(&[if number == 18 { 0 } else { 3 }, 0], |transform| {
                        transform.put(&[number, 1, 0, 0]);
                        let mut attribute = |kind: u16, value: u16| {
                            transform.put16(0x8000 | kind);
                            transform.put16(value);
                        };
                        // RFC 2409, appendix A: cipher, hash (SHA-1), method, group, seconds of life.
                        attribute(1, if self.offer == Offer::Unknown { PRIVATE_USE } else { cipher });
                        attribute(2, 2);
                        attribute(3, method);
                        attribute(4, group);
                        attribute(11, 1);
                        attribute(12, 28_800);
                        if bits > 0 {
                            attribute(14, bits);
                        }
                    });
                }
            });
        });
        let padding = self.padding(out.len() + 20);
        let next = if padding.is_empty() { 0 } else { 13 };
        out.nest(&[next, 0], |vendor| vendor.put(&NAT_TRAVERSAL));
        vendor_ids(out, 13, &padding);
    }

    /// The lengths of the vendor IDs that fill a message of `length` bytes up.
    fn padding(&self, length: usize) -> Vec<usize> {
        const WHOLE: usize = 132;
        let mut missing = self.length.saturating_sub(length);
        let mut lengths = Vec::new();
        while missing > 5 {
            // The last one takes what would be too short for one of its own.
            let this = if missing > WHOLE + 8 { WHOLE } else { missing };
            lengths.push(this);
            missing -= this;
        }
        lengths
    }
}

fn vendor_ids(out: &mut Writer, kind: u8, lengths: &[usize]) {
    for (number, length) in (1..).zip(lengths) {
        let next = if number == lengths.len() { 0 } else { kind };
        out.nest(&[next, 0], |vendor| vendor.put(&vec![0x6e; length.saturating_sub(4)]));
    }
}

/// A proposal for IKE: number, ciphers with their key's bits, pseudo-random functions, integrity, groups.
fn proposal_two(sa: &mut Writer, number: u8, ciphers: &[(u16, u16)], prfs: &[u16], integrity: &[u16]) {
    const GROUPS: [u16; 8] = [14, 2, 5, 15, 16, 19, 20, 31];
    let count = ciphers.len() + prfs.len() + integrity.len() + GROUPS.len();
    sa.nest(&[if number == 2 { 0 } else { 2 }, 0], |proposal| {
        proposal.put(&[number, 1, 0, u8::try_from(count).unwrap_or(0)]);
        for (cipher, bits) in ciphers {
            transform_two(proposal, 3, 1, *cipher, *bits);
        }
        for (kind, ids) in [(2, prfs), (3, integrity), (4, &GROUPS[..])] {
            for (place, id) in (1..).zip(ids) {
                let last = kind == 4 && place == GROUPS.len();
                transform_two(proposal, if last { 0 } else { 3 }, kind, *id, 0);
            }
        }
    });
}

fn transform_two(proposal: &mut Writer, more: u8, kind: u8, id: u16, bits: u16) {
    proposal.nest(&[more, 0], |transform| {
        transform.put(&[kind, 0]);
        transform.put16(id);
        if bits > 0 {
            transform.put16(0x800e);
            transform.put16(bits);
        }
    });
}

/// Of a public key, in bytes.
const fn key_length(group: u16) -> usize {
    match group {
        2 => 128,
        5 => 192,
        31 => 32,
        _ => 256,
    }
}

/// Can a message offer a key of this group?
pub const fn knows(group: u16) -> bool {
    matches!(group, 2 | 5 | 14 | 19 | 31)
}

/// What stands for an address and a port in a NAT detection notify (RFC 7296 section 2.23).
pub fn nat_hash(initiator: [u8; 8], responder: [u8; 8], addr: IpAddr, port: u16) -> [u8; 20] {
    let mut hash = Sha1::new();
    hash.update(initiator);
    hash.update(responder);
    match addr {
        IpAddr::V4(addr) => hash.update(addr.octets()),
        IpAddr::V6(addr) => hash.update(addr.octets()),
    }
    hash.update(port.to_be_bytes());
    hash.finalize().into()
}

/// What an answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The initiator's SPI, as sent.
    pub initiator: [u8; 8],
    /// The responder's.
    pub responder: [u8; 8],
    /// 1 or 2.
    pub major: u8,
    /// A notify that is an error or asks for another try (RFC 7296 section 3.10.1).
    pub notify: Option<u16>,
    /// The group that an INVALID_KE_PAYLOAD asks for.
    pub group: Option<u16>,
    /// What the server wants back before it looks at the message.
    pub cookie: Option<Cookie>,
    /// The SPI that an INVALID_SPI names.
    pub invalid_spi: Option<u32>,
    /// Of the address and port that the server saw the message come from.
    pub destination_hash: Option<[u8; 20]>,
    /// Of the server's own address and port, as it knows them.
    pub source_hash: Option<[u8; 20]>,
}

impl Answer {
    /// Does the server want nothing of what was offered?
    pub(super) const fn refuses(&self) -> bool {
        const INVALID_MAJOR_VERSION: u16 = 5;
        const NO_PROPOSAL_CHOSEN: u16 = 14;
        matches!(self.notify, Some(INVALID_MAJOR_VERSION | NO_PROPOSAL_CHOSEN))
    }
}

/// Reads an answer; `None` when it is no IKE message.
pub fn answer(message: &[u8]) -> Option<Answer> {
    let mut reader = Reader(message);
    let mut answer = Answer { initiator: reader.array()?, responder: reader.array()?, ..Answer::default() };
    let [mut next, version, exchange, _flags] = reader.array()?;
    reader.array::<8>()?;
    answer.major = version >> 4;
    if !matches!(answer.major, 1 | 2) {
        return None;
    }
    let clear = answer.major == 2 && exchange == INIT_EXCHANGE
        || exchange == 5
        || exchange == 37
        || exchange == MAIN_MODE;
    // A message that ends early still is one.
    for _ in 0..32 {
        if next == 0 || !clear {
            break;
        }
        let Some([following, _]) = reader.array() else { break };
        let Some(body) = reader.take16(4) else { break };
        match next {
            41 => notify(&mut answer, &mut Reader(body)),
            11 => {
                let mut body = Reader(body);
                // The domain of interpretation.
                body.array::<4>();
                notify(&mut answer, &mut body);
            }
            _ => {}
        }
        next = following;
    }
    Some(answer)
}

fn notify(answer: &mut Answer, body: &mut Reader<'_>) {
    const INVALID_SPI: u16 = 11;
    const INVALID_KE_PAYLOAD: u16 = 17;
    const REDIRECT: u16 = 16_407;
    let Some([_protocol, spi_length, high, low]) = body.array() else { return };
    let kind = u16::from_be_bytes([high, low]);
    let spi = body.take(usize::from(spi_length));
    match kind {
        NAT_DETECTION_SOURCE => answer.source_hash = answer.source_hash.or(body.array()),
        NAT_DETECTION_DESTINATION => answer.destination_hash = body.array(),
        INVALID_KE_PAYLOAD if answer.major == 2 => {
            answer.group = body.array().map(u16::from_be_bytes);
        }
        COOKIE => answer.cookie = Cookie::new(body.0),
        INVALID_SPI => {
            let named = body.array().or_else(|| spi?.first_chunk().copied());
            answer.invalid_spi = named.map(u32::from_be_bytes);
        }
        _ => {}
    }
    if kind < 8192 || kind == COOKIE || kind == REDIRECT {
        answer.notify = Some(kind);
    }
}

/// A notify's name, as in RFC 7296 section 3.10.1.
pub const fn notify_name(kind: u16) -> &'static str {
    match kind {
        5 => "INVALID_MAJOR_VERSION",
        7 => "INVALID_SYNTAX",
        11 => "INVALID_SPI",
        14 => "NO_PROPOSAL_CHOSEN",
        17 => "INVALID_KE_PAYLOAD",
        16_390 => "COOKIE",
        16_407 => "REDIRECT",
        _ => "an error",
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const US: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_000);
    const SERVER: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10)), 500);

    fn init(version: Version, offer: Offer, length: usize) -> Vec<u8> {
        let random = [7; 300];
        let spi = [1, 2, 3, 4, 5, 6, 7, 8];
        Init { version, spi, offer, from: US, to: SERVER, length, cookie: None, random: &random }.bytes()
    }

    #[test]
    fn a_cookie_comes_first_and_is_sent_back_as_it_was() {
        for length in [0, 1, 64, 65] {
            let mut asked = vec![9; 16];
            asked.extend([41, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 0]);
            asked.extend([0, 0, 0, 8 + length, 0, 0, 0x40, 6]);
            asked.extend(vec![0xc0; usize::from(length)]);
            let read = answer(&asked).unwrap();
            assert_eq!((read.notify, read.cookie.is_some()), (Some(16_390), (1..=64).contains(&length)));
            let message = Init {
                version: Version::Two,
                spi: [1; 8],
                offer: Offer::Usual { group: 14 },
                from: US,
                to: SERVER,
                length: 0,
                cookie: read.cookie,
                random: &[7; 300],
            }
            .bytes();
            assert!(payloads_fit(&message));
            assert_eq!(answer(&message).unwrap().cookie, read.cookie);
            if read.cookie.is_some() {
                assert_eq!(message[28..36], [33, 0, 0, 8 + length, 0, 0, 0x40, 6]);
            }
        }
    }

    #[test]
    fn every_message_is_as_long_as_it_says_and_as_asked() {
        for version in [Version::One, Version::Two] {
            for offer in [Offer::Usual { group: 14 }, Offer::Usual { group: 19 }, Offer::Unknown] {
                let short = init(version, offer, 0).len();
                for length in (short + 6..short + 300).chain([1372, 1572]) {
                    let message = init(version, offer, length);
                    assert_eq!(message.len(), length, "{version:?} {offer:?}");
                    assert_eq!(message[24..28], u32::try_from(length).unwrap().to_be_bytes());
                    assert!(payloads_fit(&message), "{version:?} {offer:?} {length}");
                }
            }
        }
    }

    #[test]
    fn an_answer_tells_where_the_message_seemed_to_come_from() {
        let read = answer(&init(Version::Two, Offer::Usual { group: 14 }, 0)).unwrap();
        let spi = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!((read.initiator, read.major, read.notify), (spi, 2, None));
        assert_eq!(read.source_hash, Some(nat_hash(spi, [0; 8], US.0, US.1)));
        assert_eq!(read.destination_hash, Some(nat_hash(spi, [0; 8], SERVER.0, SERVER.1)));
    }

    #[test]
    fn a_refusal_is_read_in_both_versions() {
        let mut two = vec![9; 16];
        two.extend([41, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 38, 0, 0, 0, 10, 0, 0, 0, 17, 0, 19]);
        let read = answer(&two).unwrap();
        assert_eq!((read.notify, read.group), (Some(17), Some(19)));
        let mut one = vec![9; 16];
        one.extend([11, 0x10, 5, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 12, 0, 0, 0, 1, 1, 0, 0, 14]);
        assert_eq!(answer(&one).unwrap().notify, Some(14));
        let mut spi = vec![9; 16];
        spi.extend([41, 0x20, 37, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 12, 0, 0, 0, 11, 0xca, 0xfe, 0, 1]);
        assert_eq!(answer(&spi).unwrap().invalid_spi, Some(0xcafe_0001));
    }

    #[test]
    fn hostile_answers_end_the_reading() {
        let whole = init(Version::Two, Offer::Usual { group: 14 }, 900);
        for length in 0..whole.len() {
            answer(&whole[..length]);
        }
        let mut endless = vec![9; 16];
        endless.extend([41, 0x20, 34, 0x20, 0, 0, 0, 0, 0, 0, 0, 38]);
        endless.extend([41, 0, 0, 0].repeat(64));
        assert_eq!(answer(&endless).unwrap().notify, None);
        assert_eq!(answer(&[0x36; 400]), None);
    }

    fn payloads_fit(message: &[u8]) -> bool {
        let (mut next, mut rest) = (message[16], &message[28..]);
        while next != 0 {
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            if length < 4 || length > rest.len() {
                return false;
            }
            next = rest[0];
            rest = &rest[length..];
        }
        rest.is_empty()
    }
}
