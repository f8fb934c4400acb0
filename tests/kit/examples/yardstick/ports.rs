//! Protocols with a fixed port: IKE on UDP 500, L2TP on UDP 1701.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use testkit::address::{S1, S2, WAN, at};
use testkit::vpn::raw::{Ike, Stage};
use testkit::{Lab, Node, socket};

use crate::{Cell, Finding, share};

/// How long a datagram may be under way.
const WAIT: Duration = Duration::from_millis(700);

fn impatient(node: &Node, addr: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = node.udp(at(addr, port));
    socket.set_read_timeout(Some(WAIT)).expect("a timeout can be set");
    socket
}

/// Sends `payload` and answers with what the server sees, and from where.
fn ask(
    from: &UdpSocket,
    to: SocketAddrV4,
    server: &UdpSocket,
    payload: &[u8],
) -> Option<(Vec<u8>, SocketAddrV4)> {
    from.send_to(payload, to).ok()?;
    socket::receive(server).ok()
}

/// Does `socket` get a datagram for which `wanted` holds?
fn gets(socket: &UdpSocket, wanted: impl Fn(&[u8]) -> bool) -> bool {
    while let Ok((payload, _)) = socket::receive(socket) {
        if wanted(&payload) {
            return true;
        }
    }
    false
}

/// External ports as the server saw them.
fn listed(seen: &[Option<(Vec<u8>, SocketAddrV4)>]) -> String {
    let ports =
        seen.iter().map(|seen| seen.as_ref().map_or("none".to_owned(), |(_, from)| from.port().to_string()));
    ports.collect::<Vec<_>>().join(", ")
}

/// Vendor ID "RFC 3947" (RFC 3947 section 3.1).
const NAT_T: [u8; 20] = [
    0, 0, 0, 20, 0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28, 0xf2, 0x0e, 0x95, 0x45,
    0x2f,
];

/// An IKEv1 proposal, or its answer, with a sign of NAT traversal or without.
fn proposal(spi: u64, responder: u64, vendor: Option<&[u8; 20]>) -> Vec<u8> {
    let mut bytes = Ike { initiator: spi, responder, stage: Stage::Proposal }.bytes();
    let Some(vendor) = vendor else { return bytes };
    bytes.extend(vendor);
    let len = u32::try_from(bytes.len()).expect("it is short");
    // The header's length, and what follows the association: a vendor ID.
    if let Some(place) = bytes.get_mut(24..28) {
        place.copy_from_slice(&len.to_be_bytes());
    }
    if let Some(next) = bytes.get_mut(28) {
        *next = 13;
    }
    bytes
}

pub(crate) fn ike(lab: &mut Lab) -> Cell {
    let devices: Vec<UdpSocket> =
        lab.devices().into_iter().map(|(node, addr)| impatient(node, addr, 500)).collect();
    let (old, new) = devices.split_at(2);
    let (capable, works) = with_nat_t(new, &impatient(&lab.s2, S2, 500));
    let (legacy, right) = without_nat_t(old, &impatient(&lab.s1, S1, 500));
    Ok(Finding { words: format!("{capable}. {legacy}"), right: right && works })
}

/// The server answers to port 500, whatever port it was asked from.
fn without_nat_t(devices: &[UdpSocket], server: &UdpSocket) -> (String, bool) {
    let spis = [0x1111_u64, 0x2222];
    let asked: Vec<_> = devices
        .iter()
        .zip(spis)
        .map(|(device, spi)| ask(device, at(S1, 500), server, &proposal(spi, 0, None)))
        .collect();
    for spi in spis {
        server.send_to(&proposal(spi, !spi, None), at(WAN, 500)).expect("it is sent");
    }
    let own = devices
        .iter()
        .zip(spis)
        .filter(|(device, spi)| gets(device, |payload| payload.starts_with(&spi.to_be_bytes())))
        .count();
    let kept = asked.iter().flatten().filter(|(_, from)| from.port() == 500).count();
    let words = format!(
        "Without NAT-T: from ports {}; answers to 500: {} reach their device",
        listed(&asked),
        share(own, 2)
    );
    (words, (kept, own) == (2, 2))
}

/// The server answers to the port that it was asked from.
fn with_nat_t(devices: &[UdpSocket], server: &UdpSocket) -> (String, bool) {
    let mut own = 0;
    let mut asked = Vec::new();
    for (device, spi) in devices.iter().zip([0x3333_u64, 0x4444]) {
        let seen = ask(device, at(S2, 500), server, &proposal(spi, 0, Some(&NAT_T)));
        if let Some((_, from)) = seen {
            server.send_to(&proposal(spi, !spi, Some(&NAT_T)), from).expect("it is sent");
            own += usize::from(gets(device, |payload| payload.starts_with(&spi.to_be_bytes())));
        }
        asked.push(seen);
    }
    let words = format!("With NAT-T: from ports {}; answers to these: {}", listed(&asked), share(own, 2));
    (words, own == 2)
}

/// The tunnel id that every device wants.
const TUNNEL: u16 = 7;

/// SCCRQ (1) or SCCRP (2) to tunnel `to` from one that wants to be `own` (RFC 2661 sections 3.1, 6.1 and 6.2).
fn start_control(kind: u16, to: u16, own: u16) -> Vec<u8> {
    let avp = |attribute: u16, value: &[u8]| {
        let len = u16::try_from(6 + value.len()).expect("it is short");
        [&(0x8000 | len).to_be_bytes()[..], &[0, 0], &attribute.to_be_bytes(), value].concat()
    };
    let avps = [
        avp(0, &kind.to_be_bytes()),
        avp(2, &[1, 0]),
        avp(3, &[0, 0, 0, 3]),
        avp(7, b"yardstick"),
        avp(9, &own.to_be_bytes()),
        avp(10, &[0, 4]),
    ]
    .concat();
    let len = u16::try_from(12 + avps.len()).expect("it is short");
    let received = kind - 1;
    let header = [0xc802, len, to, 0, 0, received].map(u16::to_be_bytes).concat();
    [header, avps].concat()
}

/// The tunnel id in the header.
fn header_tunnel(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(4..6)?.try_into().ok()?))
}

/// The value of AVP 9.
fn assigned_tunnel(message: &[u8]) -> Option<u16> {
    let mut rest = message.get(12..)?;
    loop {
        let len = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?) & 0x3ff).max(6);
        if rest.get(4..6)? == [0, 9] {
            return Some(u16::from_be_bytes(rest.get(6..8)?.try_into().ok()?));
        }
        rest = rest.get(len..)?;
    }
}

/// How an LNS answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    ToFixedPort,
    FromAnotherPort,
}

pub(crate) fn l2tp(lab: &mut Lab) -> Cell {
    let devices: Vec<UdpSocket> =
        lab.devices().into_iter().map(|(node, addr)| impatient(node, addr, 1701)).collect();
    let (first, second) = devices.split_at(2);
    let (fixed, right) = tunnels(first, &lab.s1, S1, Answers::ToFixedPort);
    let (other, works) = tunnels(second, &lab.s2, S2, Answers::FromAnotherPort);
    let words = format!("Answers to 1701: {fixed}. Answers from another port: {other}");
    Ok(Finding { words, right: right && works })
}

fn tunnels(devices: &[UdpSocket], node: &Node, addr: Ipv4Addr, answers: Answers) -> (String, bool) {
    let server = impatient(node, addr, 1701);
    let another = impatient(node, addr, 1702);
    let asked: Vec<_> = devices
        .iter()
        .map(|device| ask(device, at(addr, 1701), &server, &start_control(1, 0, TUNNEL)))
        .collect();
    let ids: Vec<String> = asked
        .iter()
        .map(|seen| seen.as_ref().and_then(|(message, _)| assigned_tunnel(message)))
        .map(|id| id.map_or("none".to_owned(), |id| id.to_string()))
        .collect();
    for (seen, own) in asked.iter().zip(101..) {
        let Some((message, from)) = seen else { continue };
        let answer = start_control(2, assigned_tunnel(message).unwrap_or(0), own);
        let sent = match answers {
            Answers::ToFixedPort => server.send_to(&answer, at(WAN, 1701)),
            Answers::FromAnotherPort => another.send_to(&answer, *from),
        };
        sent.expect("it is sent");
    }
    let own = devices
        .iter()
        .zip(101..)
        .filter(|(device, own)| {
            gets(device, |message| {
                assigned_tunnel(message) == Some(*own) && header_tunnel(message) == Some(TUNNEL)
            })
        })
        .count();
    let words = format!("ports {}, tunnels {}, {} arrive", listed(&asked), ids.join(", "), share(own, 2));
    (words, own == 2)
}
