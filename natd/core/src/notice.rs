//! Packets that the NAT itself sends: refusals and resets.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::decision::ChecksumState;
use crate::flow::{Protocol, Tuple};
use crate::packet::PacketView;
use crate::rewrite::{Layout, Rewrite, internet_checksum, refresh_icmp_checksum};
use crate::time::Timestamp;

const IPV4_HEADER: u16 = 20;

/// "Communication administratively prohibited" (RFC 1812 section 5.2.7.1) from `router` to the sender of
/// `refused`, quoting as much of it as RFC 1812 section 4.3.2.3 wants (576 bytes in all).
pub(crate) fn prohibited(router: Ipv4Addr, refused: &PacketView<'_>) -> Vec<u8> {
    let quote = refused.bytes.get(..refused.bytes.len().min(576 - 28)).unwrap_or_default();
    let mut packet = header(Protocol::Icmp, router, refused.src, 8 + quote.len());
    packet.extend_from_slice(&[3, 13, 0, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(quote);
    let layout = layout(&packet);
    refresh_icmp_checksum(&mut packet, layout);
    packet
}

/// A RST that shows `tuple`, with these sequence and acknowledgement numbers.
pub(crate) fn reset(tuple: &Tuple, seq: u32, ack: u32) -> Vec<u8> {
    let mut packet = header(Protocol::Tcp, tuple.src.addr, tuple.dst.addr, 20);
    packet.extend_from_slice(&tuple.src.id.0.to_be_bytes());
    packet.extend_from_slice(&tuple.dst.id.0.to_be_bytes());
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&ack.to_be_bytes());
    packet.extend_from_slice(&[0x50, 0x14, 0, 0, 0, 0, 0, 0]); // 20-byte header, RST and ACK
    let layout = layout(&packet);
    Rewrite::between(tuple, tuple).apply(&mut packet, layout, Protocol::Tcp, ChecksumState::Partial);
    packet
}

fn header(protocol: Protocol, src: Ipv4Addr, dst: Ipv4Addr, payload: usize) -> Vec<u8> {
    let total = u16::try_from(payload).unwrap_or(u16::MAX).saturating_add(IPV4_HEADER);
    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend_from_slice(&[0x45, 0xc0]); // internetwork control, as the kernel marks its own errors
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol.number(), 0, 0]);
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst.octets());
    let sum = internet_checksum(&packet, 0).to_be_bytes();
    if let Some(field) = packet.get_mut(10..12) {
        field.copy_from_slice(&sum);
    }
    packet
}

fn layout(packet: &[u8]) -> Layout {
    Layout { transport: IPV4_HEADER, total: u16::try_from(packet.len()).unwrap_or(u16::MAX) }
}

/// Lets a burst through, then a steady rate: what strangers can trigger must not become a flood.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    tokens: u32,
    capacity: u32,
    interval: Duration,
    last: Timestamp,
}

impl TokenBucket {
    /// `capacity` at once, then one every `interval`.
    pub(crate) const fn new(capacity: u32, interval: Duration) -> Self {
        Self { tokens: capacity, capacity, interval, last: Timestamp::ZERO }
    }

    pub(crate) fn take(&mut self, now: Timestamp) -> bool {
        let elapsed = now.since(self.last).as_micros() / self.interval.as_micros().max(1);
        if elapsed > 0 {
            let gained = u32::try_from(elapsed).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(gained).min(self.capacity);
            self.last = now;
        }
        let allowed = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        allowed
    }
}
