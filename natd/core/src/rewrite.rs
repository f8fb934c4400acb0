//! Changing a packet: addresses, identifiers, and the checksums that cover them.
//!
//! A [`Rewrite`] is sixteen plain bytes made once for a pair of tuples; applying it costs a few additions
//! because it carries the checksum differences (RFC 1624). What must stand in the transport checksum field
//! depends on what the kernel left open ([`ChecksumState`]):
//!
//! | state | field |
//! |---|---|
//! | `Complete` | old value adjusted by the difference; a UDP checksum of 0 ("none") stays 0, a computed 0 is 0xffff |
//! | `Partial` | the complete checksum over header and payload |
//! | `PartialGso` | the un-complemented sum of the pseudo-header: the kernel finishes it for each segment |

use core::net::Ipv4Addr;

use crate::decision::ChecksumState;
use crate::flow::{Endpoint, Protocol, Tuple};

/// Where the changeable fields of a packet lie, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The transport header, right behind the IPv4 header and its options.
    pub transport: u16,
    /// The end of the packet.
    pub total: u16,
}

/// New addresses and identifiers, in network byte order, with the checksum differences that follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    src: [u8; 4],
    dst: [u8; 4],
    src_id: [u8; 2],
    dst_id: [u8; 2],
    /// What to add to the complement of the IPv4 header checksum.
    ip_delta: u16,
    /// The same for the transport checksum.
    transport_delta: u16,
}

impl Rewrite {
    /// The change that turns a packet showing `from` into one showing `to`. Both are of one protocol.
    #[inline]
    pub fn between(from: &Tuple, to: &Tuple) -> Self {
        let ip_delta = delta_addr(from.src.addr, to.src.addr) + delta_addr(from.dst.addr, to.dst.addr);
        let ids = delta_word(from.src.id.0, to.src.id.0) + delta_word(from.dst.id.0, to.dst.id.0);
        let transport_delta = match from.protocol {
            Protocol::Tcp | Protocol::Udp => ip_delta + ids,
            Protocol::Icmp => ids, // RFC 792: no pseudo-header
        };
        Self {
            src: to.src.addr.octets(),
            dst: to.dst.addr.octets(),
            src_id: to.src.id.0.to_be_bytes(),
            dst_id: to.dst.id.0.to_be_bytes(),
            ip_delta: fold(ip_delta),
            transport_delta: fold(transport_delta),
        }
    }

    /// Changes `packet`, which is of `protocol` and laid out as `layout`, in place. Fields that lie beyond its
    /// end are left out, so that it serves for the cut-off quote of an ICMP error too.
    #[inline]
    pub fn apply(&self, packet: &mut [u8], layout: Layout, protocol: Protocol, state: ChecksumState) {
        self.apply_addresses(packet);
        let transport = usize::from(layout.transport);
        match protocol {
            Protocol::Tcp | Protocol::Udp => {
                put(packet, transport, self.src_id);
                put(packet, transport + 2, self.dst_id);
            }
            Protocol::Icmp => {
                let id = if self.src_id == [0, 0] { self.dst_id } else { self.src_id };
                put(packet, transport + 4, id);
            }
        }
        fix_transport_checksum(packet, layout, protocol, state, self.transport_delta);
    }

    /// Source and destination afterwards.
    pub fn endpoints(&self) -> (Endpoint, Endpoint) {
        let endpoint = |addr: [u8; 4], id| Endpoint::new(addr.into(), u16::from_be_bytes(id));
        (endpoint(self.src, self.src_id), endpoint(self.dst, self.dst_id))
    }

    /// Changes the addresses and the IPv4 header checksum only: for the outer header of an ICMP error.
    #[inline]
    pub fn apply_addresses(&self, packet: &mut [u8]) {
        put(packet, 12, self.src);
        put(packet, 16, self.dst);
        adjust(packet, 10, self.ip_delta);
    }
}

/// A change of one 16-bit word behind the transport header's start, such as the MSS option. Where the protocol has
/// a checksum that the NAT keeps right, it covers the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordEdit {
    /// Offset from the start of the packet; may be odd.
    pub offset: u16,
    /// What stands there, host byte order.
    pub old: u16,
    /// What shall stand there, host byte order.
    pub new: u16,
}

impl WordEdit {
    /// Carries the change out. With [`ChecksumState::Complete`] the checksum is adjusted; otherwise the caller
    /// applies a [`Rewrite`] afterwards, which writes the checksum anew.
    #[inline]
    pub fn apply(
        &self,
        packet: &mut [u8],
        layout: Layout,
        transport: Option<Protocol>,
        state: ChecksumState,
    ) {
        put(packet, usize::from(self.offset), self.new.to_be_bytes());
        if let (Some(protocol), ChecksumState::Complete) = (transport, state) {
            let delta = fold(delta_word(self.old, self.new));
            let odd = self.offset.wrapping_sub(layout.transport) % 2 == 1;
            let delta = if odd { delta.swap_bytes() } else { delta };
            fix_transport_checksum(packet, layout, protocol, state, delta);
        }
    }
}

/// Computes an ICMP message's checksum anew.
pub fn refresh_icmp_checksum(packet: &mut [u8], layout: Layout) {
    let at = usize::from(layout.transport) + 2;
    put(packet, at, [0, 0]);
    if let Some(message) = packet.get(usize::from(layout.transport)..usize::from(layout.total)) {
        let sum = internet_checksum(message, 0);
        put(packet, at, sum.to_be_bytes());
    }
}

/// The Internet checksum (RFC 1071) of `bytes`, complemented, `initial` being a sum to start from.
#[inline]
pub fn internet_checksum(bytes: &[u8], initial: u32) -> u16 {
    !fold64(sum(bytes) + u64::from(initial))
}

/// The un-complemented sum of the pseudo-header (RFC 9293 section 3.1, RFC 768), folded to 16 bits.
pub fn pseudo_header_sum(src: Ipv4Addr, dst: Ipv4Addr, protocol: Protocol, len: u16) -> u16 {
    fold64(sum(&src.octets()) + sum(&dst.octets()) + u64::from(protocol.number()) + u64::from(len))
}

fn fix_transport_checksum(
    packet: &mut [u8],
    layout: Layout,
    protocol: Protocol,
    state: ChecksumState,
    delta: u16,
) {
    let transport = usize::from(layout.transport);
    let field = transport
        + match protocol {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
            Protocol::Icmp => 2,
        };
    let state = if protocol == Protocol::Icmp { ChecksumState::Complete } else { state };
    match state {
        ChecksumState::Complete => {
            if protocol == Protocol::Udp {
                if packet.get(field..field + 2) == Some(&[0, 0]) {
                    return; // RFC 768: the sender made none
                }
                adjust(packet, field, delta);
                if packet.get(field..field + 2) == Some(&[0, 0]) {
                    put(packet, field, [0xff, 0xff]);
                }
            } else {
                adjust(packet, field, delta);
            }
        }
        ChecksumState::Partial | ChecksumState::PartialGso => {
            let Some((src, dst)) = addresses(packet) else { return };
            let pseudo = pseudo_header_sum(src, dst, protocol, layout.total - layout.transport);
            if state == ChecksumState::PartialGso {
                put(packet, field, pseudo.to_be_bytes());
                return;
            }
            put(packet, field, [0, 0]);
            let Some(body) = packet.get(transport..usize::from(layout.total)) else { return };
            let checksum = internet_checksum(body, u32::from(pseudo));
            let checksum = if checksum == 0 && protocol == Protocol::Udp { 0xffff } else { checksum };
            put(packet, field, checksum.to_be_bytes());
        }
    }
}

fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let src: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let dst: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some((src.into(), dst.into()))
}

#[inline]
fn put<const N: usize>(packet: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(field) = packet.get_mut(at..at + N) {
        field.copy_from_slice(&bytes);
    }
}

/// RFC 1624 equation 3: HC' = ~(~HC + delta).
#[inline]
fn adjust(packet: &mut [u8], at: usize, delta: u16) {
    if let Some(&mut [ref mut high, ref mut low]) = packet.get_mut(at..at + 2) {
        let old = u16::from_be_bytes([*high, *low]);
        let new = !fold(u32::from(!old) + u32::from(delta));
        [*high, *low] = new.to_be_bytes();
    }
}

#[inline]
fn delta_word(old: u16, new: u16) -> u32 {
    u32::from(!old) + u32::from(new)
}

#[inline]
fn delta_addr(old: Ipv4Addr, new: Ipv4Addr) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (old.octets(), new.octets());
    delta_word(u16::from_be_bytes([a, b]), u16::from_be_bytes([e, f]))
        + delta_word(u16::from_be_bytes([c, d]), u16::from_be_bytes([g, h]))
}

#[inline]
fn fold(sum: u32) -> u16 {
    fold64(u64::from(sum))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "folded below 16 bits first")]
fn fold64(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sum of the big-endian words of `bytes`, an odd last byte padded with zero.
fn sum(bytes: &[u8]) -> u64 {
    // Eight bytes at a time: a sum of 32-bit halves folds to the same 16-bit sum.
    let mut chunks = bytes.chunks_exact(8);
    let mut total = 0u64;
    for chunk in &mut chunks {
        let value = u64::from_be_bytes(chunk.try_into().unwrap_or_default());
        total += (value >> 32) + (value & 0xffff_ffff);
    }
    let mut words = chunks.remainder().chunks_exact(2);
    for pair in &mut words {
        if let &[high, low] = pair {
            total += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    if let &[last] = words.remainder() {
        total += u64::from(last) << 8;
    }
    total
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::flow::Endpoint;

    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 32) as u32
        }
    }

    fn packet(protocol: Protocol, tuple: &Tuple, payload: &[u8]) -> (Vec<u8>, Layout) {
        let header = match protocol {
            Protocol::Tcp => 20,
            Protocol::Udp | Protocol::Icmp => 8,
        };
        let total = 20 + header + payload.len();
        let mut bytes = alloc::vec![0u8; total];
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        bytes[9] = protocol.number();
        bytes[12..16].copy_from_slice(&tuple.src.addr.octets());
        bytes[16..20].copy_from_slice(&tuple.dst.addr.octets());
        if protocol == Protocol::Icmp {
            bytes[24..26].copy_from_slice(&(tuple.src.id.0 | tuple.dst.id.0).to_be_bytes());
        } else {
            bytes[20..22].copy_from_slice(&tuple.src.id.0.to_be_bytes());
            bytes[22..24].copy_from_slice(&tuple.dst.id.0.to_be_bytes());
        }
        bytes[20 + header..].copy_from_slice(payload);
        let layout = Layout { transport: 20, total: total as u16 };
        fill(&mut bytes, protocol, layout);
        (bytes, layout)
    }

    fn fill(bytes: &mut [u8], protocol: Protocol, layout: Layout) {
        bytes[10..12].copy_from_slice(&[0, 0]);
        let sum = internet_checksum(&bytes[..20], 0);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        if protocol == Protocol::Icmp {
            refresh_icmp_checksum(bytes, layout);
        } else {
            fix_transport_checksum(bytes, layout, protocol, ChecksumState::Partial, 0);
        }
    }

    fn random_tuple(dice: &mut Dice, protocol: Protocol) -> Tuple {
        let mut endpoint = || Endpoint::new(dice.roll().to_be_bytes().into(), dice.roll() as u16 | 1);
        let (src, mut dst) = (endpoint(), endpoint());
        if protocol == Protocol::Icmp {
            dst.id.0 = 0;
        }
        Tuple { protocol, src, dst }
    }

    #[test]
    fn a_rewrite_equals_a_packet_built_anew_and_can_be_undone() {
        let mut dice = Dice(1);
        for round in 0..60_000 {
            let protocol = Protocol::ALL[round % 3];
            let (from, to) = (random_tuple(&mut dice, protocol), random_tuple(&mut dice, protocol));
            let payload: Vec<u8> = (0..dice.roll() % 40).map(|_| dice.roll() as u8).collect();
            let (original, layout) = packet(protocol, &from, &payload);
            let (expected, _) = packet(protocol, &to, &payload);
            let mut changed = original.clone();
            Rewrite::between(&from, &to).apply(&mut changed, layout, protocol, ChecksumState::Complete);
            assert_eq!(changed, expected, "round {round}: {from} becomes {to}");
            Rewrite::between(&to, &from).apply(&mut changed, layout, protocol, ChecksumState::Complete);
            assert_eq!(changed, original, "round {round}, back");
        }
    }

    #[test]
    fn a_partial_checksum_is_completed_whatever_stood_there() {
        let mut dice = Dice(2);
        for round in 0..20_000 {
            let protocol = [Protocol::Tcp, Protocol::Udp][round % 2];
            let (from, to) = (random_tuple(&mut dice, protocol), random_tuple(&mut dice, protocol));
            let (mut changed, layout) = packet(protocol, &from, b"natd!");
            let field = if protocol == Protocol::Tcp { 36 } else { 26 };
            changed[field..field + 2].copy_from_slice(&(dice.roll() as u16).to_be_bytes());
            Rewrite::between(&from, &to).apply(&mut changed, layout, protocol, ChecksumState::Partial);
            assert_eq!(changed, packet(protocol, &to, b"natd!").0, "round {round}");
        }
    }

    #[test]
    fn a_train_of_segments_gets_the_pseudo_header_sum() {
        let from = random_tuple(&mut Dice(3), Protocol::Udp);
        let to = random_tuple(&mut Dice(4), Protocol::Udp);
        let (mut changed, layout) = packet(Protocol::Udp, &from, &[7; 99]);
        Rewrite::between(&from, &to).apply(&mut changed, layout, Protocol::Udp, ChecksumState::PartialGso);
        let sum = pseudo_header_sum(to.src.addr, to.dst.addr, Protocol::Udp, 107);
        assert_eq!(changed[26..28], sum.to_be_bytes());
    }

    #[test]
    fn a_udp_checksum_of_none_stays_none() {
        let from = random_tuple(&mut Dice(5), Protocol::Udp);
        let to = random_tuple(&mut Dice(6), Protocol::Udp);
        let (mut changed, layout) = packet(Protocol::Udp, &from, b"x");
        changed[26..28].copy_from_slice(&[0, 0]);
        Rewrite::between(&from, &to).apply(&mut changed, layout, Protocol::Udp, ChecksumState::Complete);
        assert_eq!(changed[26..28], [0, 0]);
    }

    #[test]
    fn a_word_edit_keeps_the_checksum_right_at_even_and_odd_offsets() {
        let mut dice = Dice(7);
        for offset in 40..50u16 {
            let tuple = random_tuple(&mut dice, Protocol::Tcp);
            let (mut changed, layout) = packet(Protocol::Tcp, &tuple, &[9; 16]);
            let edit = WordEdit { offset, old: 0x0909, new: 0x1234 };
            edit.apply(&mut changed, layout, Some(Protocol::Tcp), ChecksumState::Complete);
            let adjusted = changed.clone();
            fill(&mut changed, Protocol::Tcp, layout);
            assert_eq!(adjusted, changed, "offset {offset}");
        }
    }
}
