//! Everything that reads IKE.

use passthrough::ike::{self, IkeHeader, NatTPacket};

pub(crate) fn run(input: &[u8]) {
    read(input);
    match ike::nat_t_packet(input) {
        NatTPacket::Ike(message) => {
            assert!(IkeHeader::parse(message).is_some(), "IKE that cannot be read");
            read(message);
        }
        NatTPacket::Esp(_) => assert!(input.len() >= 8 && input[..4] != [0; 4], "ESP without an SPI"),
        NatTPacket::Keepalive => assert_eq!(input, [0xff]),
        NatTPacket::Malformed => {}
    }
}

fn read(message: &[u8]) {
    if let Some(header) = IkeHeader::parse(message) {
        let _ = (header.is_response(), header.from_initiator(), header.is_encrypted(), header.begins());
    }
    let payloads: Vec<_> = ike::payloads(message).collect();
    let taken: usize = payloads.iter().map(|payload| payload.body.len() + 4).sum();
    assert!(payloads.len() <= 64 && taken <= message.len(), "more payloads than there are bytes");
    for notify in ike::notifies(message) {
        assert!(notify.spi.len() + notify.data.len() <= message.len(), "a notify longer than its message");
    }
    let _ = (ike::nat_t(message), ike::invalid_spi(message));
    if let Some(fragment) = ike::fragment(message) {
        assert!(fragment.number != 0 && fragment.first == (fragment.number == 1), "{fragment:?}");
        assert!(fragment.total == 0 || fragment.number <= fragment.total, "{fragment:?}");
    }
}
