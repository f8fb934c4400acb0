//! A client: a device on the LAN, its VPN program and the person before it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Dice;
use crate::peer::{Context, Peer};
use crate::tally::Tally;
use crate::traffic::{Pattern, Traffic};
use crate::wire::{self, Body, IKE_PORT, Op, Packet};

/// What a host needs from the world.
pub(crate) struct Surroundings<'a> {
    pub(crate) now: Duration,
    pub(crate) tally: &'a mut Tally,
    pub(crate) spis: &'a mut BTreeSet<u32>,
    pub(crate) out: &'a mut Vec<Vec<u8>>,
}

pub(crate) struct Client {
    index: u8,
    round_trip: Duration,
    pub(crate) peer: Peer,
    traffic: Traffic,
    dice: Dice,
    online: bool,
    dial_at: Option<Duration>,
    dialed_at: Duration,
    up_at: Option<Duration>,
    heard_at: Option<Duration>,
    /// How long this person bears a dead tunnel.
    patience: Duration,
    first_dial: Option<Duration>,
    /// It worked when the NAT restarted, and nothing has come since.
    pub(crate) recovers_since: Option<Duration>,
    /// It sends something as soon as it is connected, as vpnc does.
    greets: bool,
    pub(crate) first_traffic: Option<Duration>,
}

impl Client {
    pub(crate) fn new(index: u8, round_trip: Duration, peer: Peer, traffic: Traffic, mut dice: Dice) -> Self {
        let patience = dice.secs(30, 60);
        Self {
            index,
            round_trip,
            peer,
            traffic,
            // All within one second.
            dial_at: Some(dice.ms(0, 1000)),
            greets: dice.chance(300),
            dice,
            online: true,
            dialed_at: Duration::ZERO,
            up_at: None,
            heard_at: None,
            patience,
            first_dial: None,
            recovers_since: None,
            first_traffic: None,
        }
    }

    /// Power off; it comes back and dials by itself.
    pub(crate) fn reboot(&mut self, around: &mut Surroundings<'_>) {
        self.online = false;
        self.recovers_since = None;
        self.peer.forget(&mut context(self.round_trip, around));
        self.down(around.now, 5, 30);
        around.tally.totals.reboots += 1;
    }

    /// Can it receive on this SA?
    pub(crate) fn owns(&self, spi: u32, attempt: u32) -> bool {
        self.online && self.peer.owns(spi, attempt)
    }

    pub(crate) fn nat_restarts(&mut self, now: Duration) {
        if self.works(now) && self.traffic.pattern != Pattern::Idle {
            self.recovers_since.get_or_insert(now);
        }
    }

    pub(crate) fn works(&self, now: Duration) -> bool {
        self.up_at.is_some() && self.heard_at.is_some_and(|at| now - at <= self.traffic.longest_silence())
    }

    pub(crate) fn receive(&mut self, around: &mut Surroundings<'_>, bytes: &[u8]) {
        if !self.online {
            return;
        }
        let at_port = |packet: &Packet| match packet.body {
            Body::Ike { dst_port, .. } => dst_port == IKE_PORT,
            Body::Esp { .. } => true,
        };
        let packet =
            Packet::parse(bytes).filter(|packet| packet.dst == wire::device(self.index) && at_port(packet));
        let Some(packet) = packet else {
            around.tally.totals.malformed += 1;
            return;
        };
        if let Some(heard) = self.peer.receive(&mut context(self.round_trip, around), &packet) {
            self.heard_at = Some(around.now);
            if let Some(since) = self.recovers_since.take() {
                around.tally.totals.recovered.push(around.now - since);
            }
            let since = self.first_dial.unwrap_or_default();
            self.first_traffic.get_or_insert(around.now - since);
            if let Some(answer) = self.traffic.hear(around.now, heard.op) {
                self.peer.send(&mut context(self.round_trip, around), answer);
            }
        }
        self.after(around);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        if !self.online {
            return self.dial_at;
        }
        let dead = self.dial_at.is_none().then(|| self.dead_at());
        let times = [self.dial_at, dead, self.peer.poll_timeout(), self.traffic.poll_timeout()];
        times.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, around: &mut Surroundings<'_>) {
        let now = around.now;
        if self.dial_at.is_some_and(|at| at <= now) {
            self.online = true;
            self.dial_at = None;
            self.dialed_at = now;
            self.first_dial.get_or_insert(now);
            self.peer.hang_up(&mut context(self.round_trip, around));
            self.peer.dial(&mut context(self.round_trip, around));
            around.tally.totals.dials += 1;
        }
        if !self.online {
            return;
        }
        self.peer.handle_timeout(&mut context(self.round_trip, around));
        while let Some(op) = self.traffic.fire(now) {
            self.peer.send(&mut context(self.round_trip, around), op);
        }
        self.after(around);
        if self.dial_at.is_none() && self.dead_at() <= now {
            around.tally.totals.dead_tunnels += 1;
            self.peer.hang_up(&mut context(self.round_trip, around));
            self.down(now, 1, 15);
        }
    }

    /// When the person gives up on this connection if nothing comes until then.
    fn dead_at(&self) -> Duration {
        let Some(up_at) = self.up_at else { return self.dialed_at + self.patience * 2 };
        let asked = self.traffic.unanswered_since.map(|since| since + self.patience);
        let silent =
            self.heard_at.unwrap_or_default().max(up_at) + self.patience + self.traffic.longest_silence();
        asked.map_or(silent, |asked| asked.min(silent))
    }

    fn after(&mut self, around: &mut Surroundings<'_>) {
        let now = around.now;
        if std::mem::take(&mut self.peer.came_up) {
            if self.up_at.replace(self.up_at.unwrap_or(now)).is_none() && self.greets {
                self.peer.send(&mut context(self.round_trip, around), Op::Push);
            }
            self.traffic.start(now);
        }
        if std::mem::take(&mut self.peer.went_down) && self.dial_at.is_none() {
            self.down(now, 1, 15);
        }
    }

    fn down(&mut self, now: Duration, from: u64, to: u64) {
        self.up_at = None;
        self.heard_at = None;
        self.traffic.stop();
        self.dial_at = Some(now + self.dice.secs(from, to));
    }
}

/// The server's end for one client.
pub(crate) struct Remote {
    round_trip: Duration,
    pub(crate) peer: Peer,
    traffic: Traffic,
}

impl Remote {
    pub(crate) fn new(round_trip: Duration, peer: Peer, traffic: Traffic) -> Self {
        debug_assert!(!peer.can_send());
        Self { round_trip, peer, traffic }
    }

    pub(crate) fn forget(&mut self, around: &mut Surroundings<'_>) {
        self.peer.forget(&mut context(self.round_trip, around));
        self.traffic.stop();
    }

    pub(crate) fn receive(&mut self, around: &mut Surroundings<'_>, packet: &Packet) {
        let heard = self.peer.receive(&mut context(self.round_trip, around), packet);
        if let Some(answer) = heard.and_then(|heard| self.traffic.hear(around.now, heard.op)) {
            self.peer.send(&mut context(self.round_trip, around), answer);
        }
        self.after(around.now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.peer.poll_timeout().into_iter().chain(self.traffic.poll_timeout()).min()
    }

    pub(crate) fn handle_timeout(&mut self, around: &mut Surroundings<'_>) {
        self.peer.handle_timeout(&mut context(self.round_trip, around));
        while let Some(op) = self.traffic.fire(around.now) {
            self.peer.send(&mut context(self.round_trip, around), op);
        }
        self.after(around.now);
    }

    fn after(&mut self, now: Duration) {
        self.peer.went_down = false;
        if std::mem::take(&mut self.peer.came_up) {
            self.traffic.start(now);
        }
        if !self.peer.can_send() {
            self.traffic.stop();
        }
    }
}

fn context<'a>(round_trip: Duration, around: &'a mut Surroundings<'_>) -> Context<'a> {
    Context { now: around.now, round_trip, tally: around.tally, spis: around.spis, out: around.out }
}
