//! Packets of protocols without ports, on their way through the NAT.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::decision::{Admission, Decision, DropReason, Effect, Forward, KernelTuple};
use nat_core::flow::{Direction, Endpoint, Protocol, Tuple};
use nat_core::nat::Nat;
use nat_core::packet::{Body, PacketView};
use nat_core::rewrite::WordEdit;
use nat_core::time::Timestamp;

use crate::bytes::be16;

/// Longer than a packet waits in a queue: conntrack enters a flow when its first packet has left, and drops what came
/// meanwhile as a flow of its own.
pub(crate) const FIRST_BURST: Duration = Duration::from_millis(200);
/// How long conntrack keeps what it cannot follow (nf_conntrack_generic_timeout).
const KERNEL_MEMORY: Duration = Duration::from_secs(600);

/// What conntrack tells a device's conversations with one host apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Nothing.
    None,
    /// GRE version 1: the Call ID in packets to the device.
    Call(u16),
}

/// What is to be done with a packet.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This.
    Decided(Decision),
    /// Keep it: what tells whose it is may come.
    Wait {
        /// Why it is dropped if that does not come.
        reason: DropReason,
        /// When waiting is of no use any more.
        until: Timestamp,
    },
}

/// The packet leaves with the WAN address. `resend`: by a copy, because conntrack would lose it.
pub(crate) fn outbound(now: Timestamp, packet: &PacketView<'_>, resend: bool, nat: &mut Nat) -> Decision {
    if nat.in_lan(packet.dst) {
        return nat.refuse(DropReason::Guarded);
    }
    let Some(wan) = nat.address() else { return nat.refuse(DropReason::NoAddress) };
    nat.carried(now, Direction::Outbound, packet.src, packet.total_len);
    let mut forward = Forward::to_addresses(packet, wan, packet.dst);
    forward.resend = resend;
    Decision::Forward(forward)
}

/// The packet goes to `device`, once conntrack has its `admission`.
pub(crate) fn inbound(
    now: Timestamp,
    packet: &PacketView<'_>,
    device: Ipv4Addr,
    admission: Option<Admission>,
    nat: &mut Nat,
) -> Decision {
    nat.carried(now, Direction::Inbound, device, packet.total_len);
    let mut forward = Forward::to_addresses(packet, packet.src, device);
    forward.admission = admission;
    Decision::Forward(forward)
}

/// What conntrack must know before an inbound packet goes to `device`.
pub(crate) fn admission(packet: &PacketView<'_>, device: Ipv4Addr, key: Key) -> Admission {
    let protocol = match packet.body {
        Body::Other(protocol) => protocol,
        Body::Tcp(_) => Protocol::Tcp.number(),
        Body::Udp { .. } => Protocol::Udp.number(),
        Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment => Protocol::Icmp.number(),
    };
    let id = match key {
        Key::None => 0,
        Key::Call(call) => call,
    };
    let original =
        KernelTuple { protocol, src: Endpoint::new(device, id), dst: Endpoint::new(packet.src, 0) };
    Admission { original, tcp: None, timeout: KERNEL_MEMORY }
}

/// The same for UDP between `device` and `remote`.
pub(crate) fn udp_admission(device: Endpoint, remote: Endpoint) -> Admission {
    let original = Tuple { protocol: Protocol::Udp, src: device, dst: remote };
    Admission { original: original.into(), tcp: None, timeout: KERNEL_MEMORY }
}

/// Sends a copy of the packet, changed, beside the packet itself.
pub(crate) fn copy(nat: &mut Nat, packet: &PacketView<'_>, forward: Forward) {
    let mut bytes = packet.bytes.to_vec();
    forward.carry_out(&mut bytes, nat_core::decision::ChecksumState::Complete);
    if let Some(admission) = forward.admission {
        nat.push_effect(Effect::Admit(admission));
    }
    nat.push_effect(Effect::Transmit(bytes));
}

/// The change of the 16-bit word at `offset` behind the IPv4 header.
pub(crate) fn word(packet: &PacketView<'_>, offset: u16, old: u16, new: u16) -> Option<WordEdit> {
    (old != new).then_some(WordEdit { offset: packet.layout.transport + offset, old, new })
}

/// Changes of single bytes of what a UDP datagram or a TCP segment carries, by their offsets in it, which ascend, and
/// what shall stand there.
pub(crate) fn byte_edits(
    packet: &PacketView<'_>,
    edits: impl IntoIterator<Item = (usize, u8)>,
) -> Vec<WordEdit> {
    let mut words: Vec<WordEdit> = Vec::new();
    let Some((start, _)) = packet.data() else { return words };
    for (offset, new) in edits {
        let (at, new) = (usize::from(start) + offset, u16::from(new));
        let ends_at = |word: &WordEdit, end: usize| usize::from(word.offset) + 1 == end;
        if let Some(word) = words.last_mut().filter(|word| ends_at(word, at)) {
            word.new = word.new & 0xff00 | new;
            continue;
        }
        let is_last = at + 1 >= usize::from(packet.layout.total);
        let first = if is_last { at - 1 } else { at };
        let (Ok(offset), Some(old)) = (u16::try_from(first), be16(packet.bytes, first)) else { continue };
        let word = if is_last {
            // The byte before it may have been changed already.
            let changed = words.last().filter(|word| ends_at(word, first)).map(|word| word.new << 8);
            let before = changed.unwrap_or(old & 0xff00);
            WordEdit { offset, old: before | old & 0xff, new: before | new }
        } else {
            WordEdit { offset, old, new: new << 8 | old & 0xff }
        };
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::noise::Noise;
    use nat_core::decision::ChecksumState;
    use nat_core::rewrite::{internet_checksum, pseudo_header_sum};

    const SRC: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
    const DST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

    #[test]
    fn changed_bytes_leave_a_right_checksum_wherever_they_stand() {
        let mut noise = Noise(7);
        for round in 0..20_000 {
            let (protocol, header, field) =
                if round % 2 == 0 { (Protocol::Tcp, 20, 16) } else { (Protocol::Udp, 8, 6) };
            let mut payload = noise.bytes(9);
            payload.push(noise.byte());
            let mut packet = alloc::vec![0; 20 + header];
            packet.extend(&payload);
            packet[0] = 0x45;
            packet[9] = protocol.number();
            packet[12..16].copy_from_slice(&SRC.octets());
            packet[16..20].copy_from_slice(&DST.octets());
            if protocol == Protocol::Tcp {
                packet[32] = 0x50;
            }
            let total = u16::try_from(packet.len()).unwrap();
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            if protocol == Protocol::Udp {
                packet[24..26].copy_from_slice(&(total - 20).to_be_bytes());
            }
            let sum = |packet: &[u8]| {
                let pseudo = pseudo_header_sum(SRC, DST, protocol, total - 20);
                internet_checksum(&packet[20..], u32::from(pseudo))
            };
            // 0 would say that there is none (RFC 768).
            let checksum = if sum(&packet) == 0 { 0xffff } else { sum(&packet) };
            packet[20 + field..22 + field].copy_from_slice(&checksum.to_be_bytes());

            let at: Vec<usize> = (0..payload.len()).filter(|_| noise.below(2) == 0).collect();
            let edits: Vec<(usize, u8)> = at.into_iter().map(|at| (at, noise.byte())).collect();
            let view = PacketView::parse(&packet).unwrap();
            let words = byte_edits(&view, edits.iter().copied());
            let forward = Forward::to_endpoints(&view, Endpoint::new(SRC, 0), Endpoint::new(DST, 0)).unwrap();
            let mut expected = payload.clone();
            edits.iter().for_each(|&(at, new)| expected[at] = new);
            for state in [ChecksumState::Complete, ChecksumState::Partial] {
                let mut changed = packet.clone();
                forward.clone().with_edits(words.clone()).carry_out(&mut changed, state);
                assert_eq!(changed[20 + header..], expected, "round {round}: {edits:?}");
                assert_eq!(sum(&changed), 0, "round {round}: {edits:?}");
            }
        }
    }
}
