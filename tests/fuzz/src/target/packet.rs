//! The IPv4 reader, and changes carried out on what it read.

use nat_core::decision::{ChecksumState, Forward};
use nat_core::flow::Endpoint;
use nat_core::packet::{Body, PacketView};
use nat_core::rewrite::WordEdit;

use super::script::{DEVICES, REMOTES, Script};
use super::wire;

pub(crate) fn run(input: &[u8]) {
    for bytes in [input, &built(input)] {
        whole(bytes);
        if let Ok(quote) = PacketView::parse_quote(bytes) {
            let _ = (quote.payload(), quote.data(), quote.tuple());
        }
    }
}

/// A well formed packet of the protocol that the input begins with.
fn built(input: &[u8]) -> Vec<u8> {
    let script = &mut Script(input);
    let protocol = script.pick(&[6, 17, 1, 47, 50]);
    let (src, dst) = (script.device(), script.remote());
    let ports = (script.word(), script.word());
    if protocol == 1 && script.byte() % 2 == 0 {
        let quoted = script.pick(&[6, 17, 1, 47]);
        let ports = (script.word(), script.word());
        let inner = wire::packet(quoted, dst, src, ports, script.0);
        let mut message = vec![3, 4, 0, 0, 0, 0, 5, 0];
        message.extend(inner.get(..28 + usize::from(ports.0 % 64)).unwrap_or(&inner));
        return wire::packet(1, src, dst, (0, 0), &message);
    }
    wire::packet(protocol, src, dst, ports, script.0)
}

fn whole(bytes: &[u8]) {
    let Ok(packet) = PacketView::parse(bytes) else { return };
    assert!(usize::from(packet.total_len) <= bytes.len(), "longer than what there is");
    assert!(packet.payload().len() <= usize::from(packet.total_len), "more payload than packet");
    if let Some((at, data)) = packet.data() {
        assert!(usize::from(at) + data.len() <= usize::from(packet.total_len), "data behind the end");
    }
    let (src, dst) = (Endpoint::new(REMOTES[0], 40_000), Endpoint::new(DEVICES[0], 0));
    // A word of the data, at an even and at an odd place.
    let edits = packet.data().into_iter().flat_map(|(at, data)| {
        let word = |offset: u16, pair: &[u8]| WordEdit { offset, old: wire::word(pair, 0), new: 0x1234 };
        let even = data.get(..2).map(|pair| word(at, pair));
        let odd = data.get(3..5).map(|pair| word(at + 3, pair));
        [even, odd].into_iter().flatten()
    });
    if let Some(forward) = Forward::to_endpoints(&packet, src, dst) {
        carry_out(&forward, bytes, true);
        carry_out(&forward.with_edits(edits), bytes, true);
    }
    let addresses = Forward::to_addresses(&packet, src.addr, dst.addr);
    carry_out(&addresses, bytes, !matches!(packet.body, Body::Tcp(_) | Body::Udp { .. }));
    let Body::IcmpError(error) = packet.body else { return };
    let outer = (src.addr, dst.addr);
    if let Some(forward) = Forward::of_error(&packet, &error, outer, outer, None) {
        carry_out(&forward, bytes, true);
    }
    let Some(shown) = PacketView::parse_quote(error.quote).ok().and_then(|quote| quote.tuple()) else {
        return;
    };
    let original = nat_core::flow::Tuple { src: shown.dst, dst: shown.src, ..shown };
    if let Some(forward) = Forward::of_udp_error(&packet, &error, outer, &shown, &original) {
        carry_out(&forward, bytes, true);
    }
}

/// Whatever was right before is right afterwards, and no byte behind the packet's end is touched.
fn carry_out(forward: &Forward, bytes: &[u8], transport: bool) {
    let end = usize::from(wire::word(bytes, 2));
    for state in [ChecksumState::Complete, ChecksumState::Partial, ChecksumState::PartialGso] {
        let mut changed = bytes.to_vec();
        forward.carry_out(&mut changed, state);
        assert_eq!(changed.get(end..), bytes.get(end..), "a change behind the end");
        if transport && state == ChecksumState::Complete && wire::checksums_hold(bytes) {
            assert!(
                wire::checksums_hold(&changed),
                "a checksum goes wrong: {bytes:02x?} becomes {changed:02x?}"
            );
        }
    }
}
