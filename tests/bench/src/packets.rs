//! Packets of benchmark conversations, written byte by byte, and the check of what came out.

use std::net::Ipv4Addr;

/// Room for one packet.
pub(crate) type Buffer = [u8; LEN];

/// Every packet is as long as this.
pub(crate) const LEN: usize = 64;
/// Bytes of payload in a TCP packet.
pub(crate) const TCP_PAYLOAD: u32 = 24;

const TRANSPORT: usize = 20;

/// What a packet shall say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    pub(crate) protocol: u8,
    pub(crate) src: (Ipv4Addr, u16),
    pub(crate) dst: (Ipv4Addr, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// TCP flags, or the ICMP type.
    pub(crate) kind: u8,
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const ECHO_REQUEST: u8 = 8;
pub(crate) const ECHO_REPLY: u8 = 0;

/// Writes a packet of `LEN` bytes with right checksums.
pub(crate) fn write(buffer: &mut Buffer, words: &Words) {
    *buffer = [0; LEN];
    let mut put = |at: usize, bytes: &[u8]| {
        buffer.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    };
    put(0, &[0x45, 0, 0, LEN as u8, 0, 0, 0x40, 0, 64, words.protocol]);
    put(12, &words.src.0.octets());
    put(16, &words.dst.0.octets());
    match words.protocol {
        ICMP => {
            put(TRANSPORT, &[words.kind, 0]);
            put(TRANSPORT + 4, &words.src.1.max(words.dst.1).to_be_bytes());
        }
        _ => {
            put(TRANSPORT, &words.src.1.to_be_bytes());
            put(TRANSPORT + 2, &words.dst.1.to_be_bytes());
        }
    }
    if words.protocol == UDP {
        put(TRANSPORT + 4, &((LEN - TRANSPORT) as u16).to_be_bytes());
    }
    if words.protocol == TCP {
        put(TRANSPORT + 4, &words.seq.to_be_bytes());
        put(TRANSPORT + 8, &words.ack.to_be_bytes());
        // A SYN has the options MSS and window scale in place of payload, and a few of no operation.
        let syn = words.kind & SYN != 0;
        put(TRANSPORT + 12, &[if syn { 0xb0 } else { 0x50 }, words.kind, 0xff, 0xff]);
        if syn {
            put(TRANSPORT + 20, &[2, 4, 0x05, 0xb4, 3, 3, 7]);
            put(TRANSPORT + 27, &[1; 17]);
        }
    }
    let header = !sum(buffer, 0..TRANSPORT, 0);
    buffer[10..12].copy_from_slice(&header.to_be_bytes());
    let transport = match !transport_sum(buffer) {
        0 if words.protocol == UDP => 0xffff, // RFC 768: 0 says that there is none
        sum => sum,
    };
    let field = checksum_field(words.protocol);
    buffer[field..field + 2].copy_from_slice(&transport.to_be_bytes());
}

/// The endpoints that a packet shows: source, destination. An ICMP query shows its id at both.
pub(crate) fn endpoints(packet: &Buffer) -> [(Ipv4Addr, u16); 2] {
    let addr = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let (src, dst) = if packet[9] == ICMP { (24, 24) } else { (20, 22) };
    [(addr(12), word(src)), (addr(16), word(dst))]
}

/// Are both checksums of `packet` right?
pub(crate) fn is_intact(packet: &Buffer) -> bool {
    sum(packet, 0..TRANSPORT, 0) == 0xffff && transport_sum(packet) == 0xffff
}

fn checksum_field(protocol: u8) -> usize {
    TRANSPORT
        + match protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        }
}

fn transport_sum(packet: &Buffer) -> u16 {
    let protocol = packet[9];
    let pseudo = if protocol == ICMP {
        0
    } else {
        u32::from(sum(packet, 12..20, 0)) + u32::from(protocol) + (LEN - TRANSPORT) as u32
    };
    sum(packet, TRANSPORT..LEN, pseudo)
}

/// RFC 1071, not complemented.
fn sum(packet: &Buffer, part: std::ops::Range<usize>, initial: u32) -> u16 {
    let words = packet[part].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = initial + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
