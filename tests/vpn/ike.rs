//! The clear side of an IKEv1 negotiation, played between a device's socket and a server's.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use testkit::address::at;
use testkit::vpn::raw::{Ike, Stage};
use testkit::{Node, socket};

/// IKE of one device with a server, both on port 500.
pub(crate) struct Initiator {
    socket: UdpSocket,
    spi: u64,
    message_id: u32,
}

impl Initiator {
    /// Main mode.
    pub(crate) fn start(node: &Node, addr: Ipv4Addr, server: &UdpSocket, spi: u64) -> Self {
        let initiator = Self { socket: node.udp(at(addr, 500)), spi, message_id: 0 };
        for stage in [Stage::Proposal, Stage::KeyExchange, Stage::Identity] {
            let first = stage == Stage::Proposal;
            let seen = initiator.ask(server, stage, first);
            initiator.answer(server, stage, seen);
        }
        initiator
    }

    /// Quick mode, which ends with the initiator's message.
    pub(crate) fn quick_mode(&mut self, server: &UdpSocket) {
        self.message_id += 1;
        let stage = Stage::Quick(self.message_id);
        let seen = self.ask(server, stage, false);
        self.answer(server, stage, seen);
        self.ask(server, stage, false);
    }

    fn ask(&self, server: &UdpSocket, stage: Stage, first: bool) -> SocketAddrV4 {
        let responder = if first { 0 } else { !self.spi };
        let message = Ike { initiator: self.spi, responder, stage }.bytes();
        let to = server.local_addr().expect("it is bound");
        let SocketAddr::V4(to) = to else { panic!("IPv4") };
        socket::deliver(&self.socket, to, server, &message)
    }

    fn answer(&self, server: &UdpSocket, stage: Stage, to: SocketAddrV4) {
        let message = Ike { initiator: self.spi, responder: !self.spi, stage }.bytes();
        socket::deliver(server, to, &self.socket, &message);
    }
}
