//! Packets of the simulation: real IPv4, UDP, IKE and ESP headers; behind them, where a real packet has
//! ciphertext, a note in clear that says what it is and for whom.

use std::net::Ipv4Addr;

pub(crate) const WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub(crate) const IKE_PORT: u16 = 500;

const UDP: u8 = 17;
const ESP: u8 = 50;
const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const IKE_LEN: usize = 28;
const NOTE_LEN: usize = 48;
/// A proposal with one transform, the same bytes in IKEv1 and IKEv2.
const PROPOSAL: [u8; 16] = [0, 0, 0, 16, 1, 1, 0, 1, 0, 0, 0, 8, 1, 1, 0, 0];
const MAGIC: [u8; 8] = *b"simulate";

/// The address of the client with this index.
pub(crate) fn device(client: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 11 + client)
}

/// The client that has this address.
pub(crate) fn client_at(address: Ipv4Addr) -> Option<u8> {
    let [192, 168, 1, last] = address.octets() else { return None };
    last.checked_sub(11)
}

/// IKE header (RFC 2408 section 3.1, RFC 7296 section 3.1) without next payload and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
    pub(crate) version: u8,
    pub(crate) exchange: u8,
    pub(crate) flags: u8,
    pub(crate) id: u32,
}

/// What an IKE message or ESP packet means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// IKEv1 phase 1, IKEv2 IKE_SA_INIT.
    Phase1,
    Auth,
    Xauth,
    ModeCfg,
    /// IKEv1 Quick Mode, IKEv2 CREATE_CHILD_SA for a child.
    Child,
    RekeyIke,
    DeleteChild,
    DeleteIke,
    Dpd,
    /// ESP: a question that wants an answer.
    Ask,
    Answer,
    /// ESP: asks for a burst.
    Fetch,
    Data,
    Ack,
    Push,
}

const OPS: [Op; 15] = [
    Op::Phase1,
    Op::Auth,
    Op::Xauth,
    Op::ModeCfg,
    Op::Child,
    Op::RekeyIke,
    Op::DeleteChild,
    Op::DeleteIke,
    Op::Dpd,
    Op::Ask,
    Op::Answer,
    Op::Fetch,
    Op::Data,
    Op::Ack,
    Op::Push,
];

/// Why a request is refused (RFC 7296 section 2.25).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    TemporaryFailure,
    ChildSaNotFound,
}

/// The secret part of a packet; fields that an operation does not use are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) op: Op,
    /// The client at the LAN end of this conversation, whoever sends.
    pub(crate) client: u8,
    /// Which message of its exchange, from 1.
    pub(crate) step: u8,
    pub(crate) verdict: Verdict,
    /// A connection from nothing, not a renewal.
    pub(crate) fresh: bool,
    /// INITIAL_CONTACT.
    pub(crate) initial_contact: bool,
    /// The pair of child SAs that this is about, as the tally counts them; 0 for none.
    pub(crate) attempt: u32,
    pub(crate) spi: u32,
    pub(crate) old: u32,
    pub(crate) ike: u64,
    pub(crate) nonce: u64,
    /// ESP from the server: its number in the tally.
    pub(crate) serial: u64,
}

impl Note {
    pub(crate) fn new(op: Op, client: u8) -> Self {
        Self {
            op,
            client,
            step: 1,
            verdict: Verdict::Fine,
            fresh: false,
            initial_contact: false,
            attempt: 0,
            spi: 0,
            old: 0,
            ike: 0,
            nonce: 0,
            serial: 0,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let verdict = match self.verdict {
            Verdict::Fine => 0,
            Verdict::TemporaryFailure => 1,
            Verdict::ChildSaNotFound => 2,
        };
        let flags = verdict | u8::from(self.fresh) << 4 | u8::from(self.initial_contact) << 5;
        out.extend(MAGIC);
        out.extend([self.op as u8, self.client, self.step, flags]);
        out.extend(self.attempt.to_be_bytes());
        out.extend(self.spi.to_be_bytes());
        out.extend(self.old.to_be_bytes());
        out.extend(self.ike.to_be_bytes());
        out.extend(self.nonce.to_be_bytes());
        out.extend(self.serial.to_be_bytes());
    }

    fn read(packet: &[u8]) -> Option<Self> {
        let bytes = packet.get(packet.len().checked_sub(NOTE_LEN)?..)?;
        if bytes[..8] != MAGIC {
            return None;
        }
        Some(Self {
            op: *OPS.get(usize::from(bytes[8]))?,
            client: bytes[9],
            step: bytes[10],
            verdict: match bytes[11] & 15 {
                0 => Verdict::Fine,
                1 => Verdict::TemporaryFailure,
                _ => Verdict::ChildSaNotFound,
            },
            fresh: bytes[11] & 16 != 0,
            initial_contact: bytes[11] & 32 != 0,
            attempt: quad(bytes, 12),
            spi: quad(bytes, 16),
            old: quad(bytes, 20),
            ike: long(bytes, 24),
            nonce: long(bytes, 32),
            serial: long(bytes, 40),
        })
    }
}

/// A packet read back; what stands in `note` is for hosts and judges, not for NATs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) body: Body,
    pub(crate) note: Note,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Ike { src_port: u16, dst_port: u16, head: Head },
    Esp { spi: u32, seq: u32 },
}

impl Packet {
    /// `None` when it is not a packet of the simulation or a checksum is wrong.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < IP_LEN || bytes[0] != 0x45 || sum(&bytes[..IP_LEN], 0) != 0xffff {
            return None;
        }
        let src = address(bytes, 12);
        let dst = address(bytes, 16);
        if usize::from(pair(bytes, 2)) != bytes.len() {
            return None;
        }
        let note = Note::read(bytes)?;
        let rest = &bytes[IP_LEN..];
        let body = match bytes[9] {
            UDP => {
                if sum(rest, pseudo_header(src, dst, rest.len())) != 0xffff {
                    return None;
                }
                let ike = rest.get(UDP_LEN..UDP_LEN + IKE_LEN)?;
                let head = Head {
                    spi_i: long(ike, 0),
                    spi_r: long(ike, 8),
                    version: ike[17],
                    exchange: ike[18],
                    flags: ike[19],
                    id: quad(ike, 20),
                };
                Body::Ike { src_port: pair(rest, 0), dst_port: pair(rest, 2), head }
            }
            ESP => Body::Esp { spi: quad(rest, 0), seq: quad(rest, 4) },
            _ => return None,
        };
        Some(Self { src, dst, body, note })
    }
}

/// An IKE message; one in clear has a payload chain that can be read, without any sign of NAT-T.
pub(crate) fn ike(
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    head: &Head,
    clear: bool,
    note: &Note,
) -> Vec<u8> {
    // v1: SA 1, HASH 8, NONCE 10, VENDOR-ID 13; v2: SA 33, VID 43, SK 46.
    let v2 = head.version == 0x20;
    let (vendor, sealed) = if v2 { (43, 46) } else { (13, 8) };
    let (kind, content): (u8, &[u8]) = match (v2, note.step) {
        (true, _) => (33, &PROPOSAL),
        (false, 1 | 2) => (1, &[&[0, 0, 0, 1, 0, 0, 0, 1], &PROPOSAL[..]].concat()),
        (false, _) => (10, &[0x5a; 16]),
    };
    let mut payloads = Vec::with_capacity(NOTE_LEN + 16);
    if clear {
        payloads.extend([vendor, 0]);
        payloads.extend((content.len() as u16 + 4).to_be_bytes());
        payloads.extend(content);
    }
    payloads.extend([0, 0]);
    payloads.extend((NOTE_LEN as u16 + 4).to_be_bytes());
    note.write(&mut payloads);
    let len = UDP_LEN + IKE_LEN + payloads.len();
    let mut packet = ip(src.0, dst.0, UDP, len);
    packet.extend(src.1.to_be_bytes());
    packet.extend(dst.1.to_be_bytes());
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(head.spi_i.to_be_bytes());
    packet.extend(head.spi_r.to_be_bytes());
    packet.extend([if clear { kind } else { sealed }, head.version, head.exchange, head.flags]);
    packet.extend(head.id.to_be_bytes());
    packet.extend(((IKE_LEN + payloads.len()) as u32).to_be_bytes());
    packet.extend(payloads);
    seal(&mut packet);
    packet
}

/// An ESP packet (RFC 4303 section 2).
pub(crate) fn esp(src: Ipv4Addr, dst: Ipv4Addr, spi: u32, seq: u32, note: &Note) -> Vec<u8> {
    let mut packet = ip(src, dst, ESP, 8 + 16 + NOTE_LEN);
    packet.extend(spi.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    // An initialisation vector's place.
    packet.extend([0xa5; 16]);
    note.write(&mut packet);
    seal(&mut packet);
    packet
}

/// Gives a packet other addresses, and IKE other ports, as a NAT does.
pub(crate) fn readdress(
    packet: &[u8],
    src: Option<(Ipv4Addr, u16)>,
    dst: Option<(Ipv4Addr, u16)>,
) -> Vec<u8> {
    let mut changed = packet.to_vec();
    let is_udp = changed[9] == UDP;
    for (end, at, port_at) in [(src, 12, IP_LEN), (dst, 16, IP_LEN + 2)] {
        let Some((address, port)) = end else { continue };
        changed[at..at + 4].copy_from_slice(&address.octets());
        if is_udp {
            changed[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
        }
    }
    seal(&mut changed);
    changed
}

fn ip(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) -> Vec<u8> {
    let mut packet = Vec::with_capacity(IP_LEN + len);
    packet.extend([0x45, 0]);
    packet.extend(((IP_LEN + len) as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet
}

fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = !sum(&packet[..IP_LEN], 0);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    if packet[9] == UDP {
        packet[26..28].fill(0);
        let pseudo = pseudo_header(address(packet, 12), address(packet, 16), packet.len() - IP_LEN);
        // RFC 768: a checksum of 0 is sent as all ones.
        let udp = match !sum(&packet[IP_LEN..], pseudo) {
            0 => 0xffff,
            other => other,
        };
        packet[26..28].copy_from_slice(&udp.to_be_bytes());
    }
}

fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, len: usize) -> u32 {
    let halves = |address: Ipv4Addr| (address.to_bits() >> 16) + (address.to_bits() & 0xffff);
    halves(src) + halves(dst) + u32::from(UDP) + len as u32
}

/// The one's complement sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = start;
    for word in bytes.chunks(2) {
        total += u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(quad(bytes, at))
}

fn pair(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn quad(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_back_as_written() {
        let head = Head { spi_i: 7, spi_r: 9, version: 0x20, exchange: 36, flags: 8, id: 3 };
        let note = Note { attempt: 5, spi: 0x1234_5678, fresh: true, ..Note::new(Op::Child, 31) };
        for clear in [false, true] {
            let bytes = ike((device(31), 500), (SERVER, 500), &head, clear, &note);
            let body = Body::Ike { src_port: 500, dst_port: 500, head };
            assert_eq!(Packet::parse(&bytes), Some(Packet { src: device(31), dst: SERVER, body, note }));
            assert!(testkit::packet::checksums_are_right(&bytes), "by the other implementation");
        }
        let bytes = esp(SERVER, WAN, 77, 1, &note);
        let body = Body::Esp { spi: 77, seq: 1 };
        assert_eq!(Packet::parse(&bytes), Some(Packet { src: SERVER, dst: WAN, body, note }));
    }

    #[test]
    fn a_wrong_checksum_is_seen() {
        let head = Head { spi_i: 7, spi_r: 9, version: 0x10, exchange: 32, flags: 1, id: 3 };
        let mut bytes = ike((SERVER, 500), (WAN, 500), &head, false, &Note::new(Op::Child, 0));
        let readdressed = readdress(&bytes, None, Some((device(0), 501)));
        assert_eq!(Packet::parse(&readdressed).unwrap().dst, device(0));
        bytes[21] ^= 1;
        assert_eq!(Packet::parse(&bytes), None);
    }
}
