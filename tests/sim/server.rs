//! The server: one machine with one address and an end for each client.

use std::time::Duration;

use crate::host::{Remote, Surroundings};
use crate::wire::{self, Body, IKE_PORT, Packet};

pub(crate) struct Server {
    remotes: Vec<Remote>,
    /// Off until then.
    boots_at: Duration,
}

impl Server {
    pub(crate) fn new(remotes: Vec<Remote>) -> Self {
        Self { remotes, boots_at: Duration::ZERO }
    }

    /// Forgets all and is off for a while.
    pub(crate) fn restart(&mut self, around: &mut Surroundings<'_>, off_for: Duration) {
        self.boots_at = around.now + off_for;
        for remote in &mut self.remotes {
            remote.forget(around);
        }
        around.tally.totals.server_restarts += 1;
    }

    /// Takes a packet; returns whose end it concerned.
    ///
    /// The note says who sent it, as the identity in the authentication does; each end then believes only
    /// what names an SA of its own.
    pub(crate) fn receive(&mut self, around: &mut Surroundings<'_>, bytes: &[u8]) -> Option<u8> {
        if around.now < self.boots_at {
            return None;
        }
        let from_nat = |packet: &Packet| match packet.body {
            Body::Ike { dst_port, .. } => dst_port == IKE_PORT,
            Body::Esp { .. } => true,
        };
        let packet = Packet::parse(bytes)
            .filter(|packet| packet.dst == wire::SERVER && packet.src == wire::WAN && from_nat(packet));
        let Some(packet) = packet else {
            around.tally.totals.malformed += 1;
            return None;
        };
        self.remotes.get_mut(usize::from(packet.note.client))?.receive(around, &packet);
        Some(packet.note.client)
    }

    pub(crate) fn poll_timeout(&self, client: u8) -> Option<Duration> {
        self.remotes[usize::from(client)].poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, around: &mut Surroundings<'_>, client: u8) {
        self.remotes[usize::from(client)].handle_timeout(around);
    }
}
