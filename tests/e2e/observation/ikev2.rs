//! A tunnel of IKEv2 made by hand (RFC 7296): what stands outside the encryption is right, the rest means nothing.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use sha1::{Digest, Sha1};
use testkit::address::{D1, S1, WAN, at};
use testkit::{Lab, socket};

const INITIATOR: u64 = 0x1111;
const RESPONDER: u64 = 0x2222;
const IKE_AUTH: u8 = 35;
const INFORMATIONAL: u8 = 37;

/// Between d1 and s1; it goes on in UDP 4500 (RFC 3948).
pub(super) struct Tunnel {
    device: [UdpSocket; 2],
    server: [UdpSocket; 2],
}

impl Tunnel {
    /// Nothing is sent yet.
    pub(super) fn new(lab: &Lab) -> Self {
        Self {
            device: [500, 4500].map(|port| lab.d1.udp(at(D1, port))),
            server: [500, 4500].map(|port| lab.s1.udp(at(S1, port))),
        }
    }

    /// IKE_SA_INIT and its answer.
    pub(super) fn begin(&self) {
        let [device, wan, server] = [D1, WAN, S1].map(|addr| SocketAddr::V4(at(addr, 500)));
        let request = sa_init(Role::Request, device, server);
        self.both_ways(500, &request, &sa_init(Role::Response, server, wan));
    }

    /// IKE_AUTH and its answer.
    pub(super) fn authenticate(&self) {
        let [request, response] = [(Role::Request, 268), (Role::Response, 220)]
            .map(|(role, len)| marked(&sealed(IKE_AUTH, role, 1, len)));
        self.both_ways(4500, &request, &response);
    }

    /// Five packets of ESP and their answers.
    pub(super) fn data(&self) {
        for sequence in 1..=5u32 {
            let esp = |spi: u32| [&spi.to_be_bytes()[..], &sequence.to_be_bytes(), &[0xa5; 88]].concat();
            self.both_ways(4500, &esp(0x2001), &esp(0x1001));
        }
    }

    /// Asks whether the server still lives, and expects no answer.
    pub(super) fn ask(&self) {
        let [_, device] = &self.device;
        let request = marked(&sealed(INFORMATIONAL, Role::Request, 2, 48));
        device.send_to(&request, at(S1, 4500)).expect("it is sent");
    }

    fn both_ways(&self, port: u16, request: &[u8], response: &[u8]) {
        let ([device, floated], [server, other]) = (&self.device, &self.server);
        let (device, server) = if port == 500 { (device, server) } else { (floated, other) };
        device.send_to(request, at(S1, port)).expect("it is sent");
        let (_, seen) = socket::receive(server).expect("the server gets it");
        server.send_to(response, seen).expect("it is sent");
        socket::receive(device).expect("the device gets it");
    }
}

/// From the initiator, or the answer to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Request,
    Response,
}

/// The exchange begins; `source` and `destination` are what its sender knows of both addresses.
pub(super) fn sa_init(role: Role, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    // The responder has no SPI yet when it is asked.
    let responder = match role {
        Role::Request => 0,
        Role::Response => RESPONDER,
    };
    // NAT_DETECTION_SOURCE_IP is 16388, NAT_DETECTION_DESTINATION_IP 16389.
    let hashes = [(4, source), (5, destination)]
        .map(|(kind, addr)| [&[0, 0, 0x40, kind][..], &nat_detection(responder, addr)].concat());
    let [from, to] = &hashes;
    // Security association, key exchange, nonce, two notifications.
    let chain: [(u8, &[u8]); 5] = [(33, &[1; 40]), (34, &[2; 64]), (40, &[3; 32]), (41, from), (41, to)];
    message(34, role, (INITIATOR, responder), 0, &chain)
}

/// What tells both sides whether there is NAT between them (RFC 7296 section 2.23).
fn nat_detection(responder: u64, addr: SocketAddr) -> Vec<u8> {
    let hash = Sha1::new().chain_update(INITIATOR.to_be_bytes()).chain_update(responder.to_be_bytes());
    let hash = match addr.ip() {
        IpAddr::V4(ip) => hash.chain_update(ip.octets()),
        IpAddr::V6(ip) => hash.chain_update(ip.octets()),
    };
    hash.chain_update(addr.port().to_be_bytes()).finalize().to_vec()
}

/// Encrypted.
fn sealed(exchange: u8, role: Role, id: u32, len: usize) -> Vec<u8> {
    message(exchange, role, (INITIATOR, RESPONDER), id, &[(46, &vec![0x5a; len])])
}

/// In UDP 4500 IKE begins with a marker that ESP cannot have (RFC 3948 section 2.2).
fn marked(message: &[u8]) -> Vec<u8> {
    [&[0; 4], message].concat()
}

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
