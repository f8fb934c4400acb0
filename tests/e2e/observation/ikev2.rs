//! IKEv2 messages made by hand (RFC 7296 section 3): what stands outside the encryption is right, the rest is not.

/// From the initiator, or the answer to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Request,
    Response,
}

/// The exchange begins.
pub(super) fn sa_init(role: Role, initiator: u64) -> Vec<u8> {
    // Security association, key exchange, nonce; the responder has no SPI yet when it is asked.
    let responder = match role {
        Role::Request => 0,
        Role::Response => RESPONDER,
    };
    let bodies = [&[1; 40][..], &[2; 64], &[3; 32]];
    let chain: Vec<(u8, &[u8])> = [33, 34, 40].into_iter().zip(bodies).collect();
    message(34, role, (initiator, responder), 0, &chain)
}

/// Encrypted: IKE_AUTH is exchange 35, INFORMATIONAL 37.
pub(super) fn sealed(exchange: u8, role: Role, initiator: u64, id: u32, len: usize) -> Vec<u8> {
    message(exchange, role, (initiator, RESPONDER), id, &[(46, &vec![0x5a; len])])
}

const RESPONDER: u64 = 0x2222;

fn message(exchange: u8, role: Role, spis: (u64, u64), id: u32, chain: &[(u8, &[u8])]) -> Vec<u8> {
    let flags = match role {
        Role::Request => 0x08,
        Role::Response => 0x20,
    };
    let mut payloads = Vec::new();
    for (place, (_, body)) in chain.iter().enumerate() {
        let next = chain.get(place + 1).map_or(0, |(kind, _)| *kind);
        let len = u16::try_from(body.len() + 4).expect("it is short");
        payloads.extend([next, 0]);
        payloads.extend(len.to_be_bytes());
        payloads.extend(*body);
    }
    let first = chain.first().map_or(0, |(kind, _)| *kind);
    let len = u32::try_from(28 + payloads.len()).expect("it is short");
    [
        &spis.0.to_be_bytes()[..],
        &spis.1.to_be_bytes(),
        &[first, 0x20, exchange, flags],
        &id.to_be_bytes(),
        &len.to_be_bytes(),
        &payloads,
    ]
    .concat()
}
