//! Packets of VPN protocols, written by hand. What they carry means nothing.

use std::net::Ipv4Addr;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;
pub(crate) const ESP: u8 = 50;

/// Length of the IPv4 header.
const HEADER: usize = 20;

/// An address and a port.
pub(crate) type Port = (Ipv4Addr, u16);

/// IPv4 of any protocol; checksums of TCP and UDP are filled in.
pub(crate) fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let total = (HEADER + body.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let header = !sum(&packet, 0);
    put(&mut packet, 10, header);
    packet.extend(body);
    let field = match protocol {
        TCP => Some(HEADER + 16),
        UDP => Some(HEADER + 6),
        _ => None,
    };
    if let Some(field) = field {
        let checksum = match !transport_sum(&packet) {
            0 => 0xffff,
            sum => sum,
        };
        put(&mut packet, field, checksum);
    }
    packet
}

/// UDP over IPv4.
pub(crate) fn udp(src: Port, dst: Port, data: &[u8]) -> Vec<u8> {
    let len = (8 + data.len()) as u16;
    let head = [src.1.to_be_bytes(), dst.1.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
    ipv4(src.0, dst.0, UDP, &[&head, data].concat())
}

/// TCP over IPv4: flags, sequence and acknowledgement number. A SYN has no options.
pub(crate) fn tcp(src: Port, dst: Port, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    let mut body = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    body.extend(seq.to_be_bytes());
    body.extend(ack.to_be_bytes());
    body.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    body.extend(data);
    ipv4(src.0, dst.0, TCP, &body)
}

/// ESP (RFC 4303 section 2) of `len` bytes in all.
pub(crate) fn esp(src: Ipv4Addr, dst: Ipv4Addr, spi: u32, seq: u32, len: usize) -> Vec<u8> {
    let mut body = [spi.to_be_bytes(), seq.to_be_bytes()].concat();
    body.resize(len - HEADER, 0xa5);
    ipv4(src, dst, ESP, &body)
}

/// PPTP's GRE (RFC 2637 section 4.1) of `len` bytes in all, with a sequence number.
pub(crate) fn pptp_gre(src: Ipv4Addr, dst: Ipv4Addr, call_id: u16, seq: u32, len: usize) -> Vec<u8> {
    let payload = (len - HEADER - 12) as u16;
    let mut body = vec![0x30, 0x01, 0x88, 0x0b];
    body.extend(payload.to_be_bytes());
    body.extend(call_id.to_be_bytes());
    body.extend(seq.to_be_bytes());
    body.resize(len - HEADER, 0xa5);
    ipv4(src, dst, GRE, &body)
}

/// A control message of PPTP (RFC 2637 section 2) with 16-bit `fields` at their offsets.
pub(crate) fn pptp_message(kind: u16, len: u16, fields: &[(usize, u16)]) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(len)];
    for &(at, value) in [(0, len), (2, 1), (4, 0x1a2b), (6, 0x3c4d), (8, kind)].iter().chain(fields) {
        put(&mut bytes, at, value);
    }
    bytes
}

/// The header of an IKEv2 message (RFC 7296 section 3.1) without payloads.
pub(crate) fn ike(initiator: u64, responder: u64, exchange: u8, flags: u8, id: u32) -> Vec<u8> {
    let mut bytes = [initiator.to_be_bytes(), responder.to_be_bytes()].concat();
    bytes.extend([0, 0x20, exchange, flags]);
    bytes.extend(id.to_be_bytes());
    bytes.extend(28_u32.to_be_bytes());
    bytes
}

/// A control message of L2TP version 2 (RFC 2661 section 4.1) of `kind` to `tunnel`, with the sender's own Tunnel
/// ID where there is one.
pub(crate) fn l2tp_message(tunnel: u16, sequence: (u16, u16), kind: u16, own: Option<u16>) -> Vec<u8> {
    let mut avps = vec![0x80, 8, 0, 0, 0, 0];
    avps.extend(kind.to_be_bytes());
    if let Some(own) = own {
        avps.extend([0x80, 8, 0, 0, 0, 9]);
        avps.extend(own.to_be_bytes());
    }
    let mut bytes = vec![0xc8, 0x02];
    bytes.extend((12 + avps.len() as u16).to_be_bytes());
    for word in [tunnel, 0, sequence.0, sequence.1] {
        bytes.extend(word.to_be_bytes());
    }
    [bytes, avps].concat()
}

/// Source and destination of a packet, with ports where it has them.
pub(crate) fn ends(packet: &[u8]) -> [Port; 2] {
    let addr = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    [(addr(12), word(packet, 20)), (addr(16), word(packet, 22))]
}

/// The 16-bit word at `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Is every checksum of `packet` right that its kind has?
pub(crate) fn is_intact(packet: &[u8]) -> bool {
    let transport = match packet[9] {
        TCP | UDP => transport_sum(packet),
        _ => 0xffff,
    };
    sum(&packet[..HEADER], 0) == 0xffff && transport == 0xffff
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn transport_sum(packet: &[u8]) -> u16 {
    let pseudo = u32::from(sum(&packet[12..20], 0)) + u32::from(packet[9]) + (packet.len() - HEADER) as u32;
    sum(&packet[HEADER..], pseudo)
}

/// RFC 1071, not complemented.
fn sum(bytes: &[u8], initial: u32) -> u16 {
    let pairs =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum = initial + pairs.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
