//! The targets.

#![expect(
    clippy::indexing_slicing,
    reason = "a target that panics by itself is found as quickly as what it tests"
)]

pub(crate) mod engine;
pub(crate) mod frame;
pub(crate) mod gre_keyed;
pub(crate) mod household;
pub(crate) mod ike;
pub(crate) mod l2tp;
pub(crate) mod packet;
mod script;
mod wire;

use nat_core::packet::PacketView;
use passthrough::sighting::{Sighting, recognise};
use passthrough::{openvpn, pptp, wireguard};

pub(crate) fn pptp(input: &[u8]) {
    // Its course asserts what must hold.
    let _ = pptp::exercise::exercise(input);
}

/// The input as a packet, and as what a packet of the protocol and ports that it begins with carries.
pub(crate) fn sighting(input: &[u8]) {
    see(input);
    if let Some((&[protocol, ports], payload)) = input.split_first_chunk() {
        let protocol = [17, 6, 47, 50, 51, 115, 17, protocol][usize::from(protocol % 8)];
        let known = [500, 4500, 1701, 1723, 1194, 51820, 443, 40_000];
        let ports = (known[usize::from(ports % 8)], known[usize::from(ports >> 4) % 8]);
        see(&wire::packet(protocol, [192, 168, 1, 10].into(), [203, 0, 113, 1].into(), ports, payload));
    }
}

fn see(bytes: &[u8]) {
    for packet in [PacketView::parse(bytes), PacketView::parse_quote(bytes)].into_iter().flatten() {
        match recognise(&packet) {
            Some(Sighting::Ike { message, .. }) => {
                assert!(passthrough::ike::IkeHeader::parse(message).is_some(), "IKE that cannot be read");
            }
            Some(Sighting::Esp(header) | Sighting::NatTEsp(header)) => {
                assert_eq!(Some(header), passthrough::esp::EspHeader::parse(&raw(&header)));
            }
            Some(
                Sighting::NatTKeepalive
                | Sighting::Ah(_)
                | Sighting::PptpControl
                | Sighting::PptpGre { .. }
                | Sighting::Gre { .. }
                | Sighting::L2tp { .. }
                | Sighting::L2tpIp { .. }
                | Sighting::WireGuard(_)
                | Sighting::OpenVpn(_),
            )
            | None => {}
        }
    }
}

/// The eight bytes of an ESP header.
fn raw(header: &passthrough::esp::EspHeader) -> [u8; 8] {
    let mut bytes = [0; 8];
    let (spi, sequence) = bytes.split_at_mut(4);
    spi.copy_from_slice(&header.spi.0.to_be_bytes());
    sequence.copy_from_slice(&header.seq.to_be_bytes());
    bytes
}

pub(crate) fn openvpn_wireguard(input: &[u8]) {
    let (proven, read) = (openvpn::parse_udp(input), openvpn::read_udp(input));
    assert!(proven.is_none() || proven == read, "proven to be what it does not read as");
    assert!(openvpn::parse_tcp(input).is_none_or(|packet| openvpn::read_tcp(input) == Some(packet)));
    if let Some((_, behind)) = input.split_at_checked(2) {
        assert!(
            openvpn::read_tcp(input)
                .is_none_or(|packet| { openvpn::read_udp(behind).is_some_and(|longer| longer == packet) })
        );
    }
    let message = wireguard::parse(input);
    assert!(message.is_none() || input.len() >= 32, "too short for WireGuard: {message:?}");
}
