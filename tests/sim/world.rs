//! One run: 32 clients, a NAT, a WAN and a server, from one seed.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::clock::{Dice, Queue};
use crate::host::{Client, Remote, Surroundings};
use crate::nat::{NatUnderTest, Sent};
use crate::net::{self, LAN_DELAY, Passage, Wan, Way};
use crate::peer::{Dialect, Peer, Profile, Retry, Side};
use crate::server::Server;
use crate::tally::{Mishap, Tally, Totals};
use crate::traffic::{PATTERNS, Traffic};
use crate::wire::{Body, Packet, client_at};

/// What is the same in all runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    pub(crate) clients: u8,
    pub(crate) duration: Duration,
    /// No loss, no reordering.
    pub(crate) calm: bool,
    /// Machines restart.
    pub(crate) restarts: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { clients: 32, duration: Duration::from_secs(1200), calm: false, restarts: true }
    }
}

const REBOOT_PER_MILLE: u64 = 100;
const SERVER_RESTART_PER_MILLE: u64 = 300;
const NAT_RESTART_PER_MILLE: u64 = 300;

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (loss, reorder) =
            if self.calm { (0, 0) } else { (net::LOSS_PER_MILLE / 10, net::REORDER_PER_MILLE / 10) };
        write!(
            f,
            "{} clients of one server, all dialling within 1 s, {} s; WAN: loss {loss} %, reordering {reorder} % \
             (2-{} ms late), delay {}-{} ms each way and client, 5 % jitter; child SAs 90-400 s, IKE SAs \
             300-1500 s; restarts: client {} %, server {} % and NAT {} % of seeds, in the first 60 % of the time",
            self.clients,
            self.duration.as_secs(),
            net::REORDER_MS,
            net::MIN_DELAY_MS,
            net::MAX_DELAY_MS,
            if self.restarts { REBOOT_PER_MILLE / 10 } else { 0 },
            if self.restarts { SERVER_RESTART_PER_MILLE / 10 } else { 0 },
            if self.restarts { NAT_RESTART_PER_MILLE / 10 } else { 0 },
        )
    }
}

enum Event {
    /// From a client, at the NAT.
    Outbound(Vec<u8>),
    /// From the server, at the NAT.
    Inbound(Vec<u8>),
    AtServer(Vec<u8>),
    AtClient(u8, Vec<u8>),
    WakeClient(u8),
    WakeServer(u8),
    WakeNat,
    Reboot(u8),
    RestartServer(Duration),
    RestartNat,
}

struct World<'a> {
    now: Duration,
    queue: Queue<Event>,
    clients: Vec<Client>,
    server: Server,
    nat: &'a mut dyn NatUnderTest,
    wan: Wan,
    tally: Tally,
    spis: BTreeSet<u32>,
    wakes: Wakes,
}

/// The wake-ups that are in the queue and count.
struct Wakes {
    clients: Vec<Option<Duration>>,
    server: Vec<Option<Duration>>,
    nat: Option<Duration>,
}

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, parameters: &Parameters, nat: &mut dyn NatUnderTest) -> Totals {
    let count = parameters.clients;
    let wan = Wan::new(seed, count, parameters.calm);
    let mut common = Dice::new(seed, 2);
    let server_retry = draw_retry(&mut common);
    let mut clients = Vec::new();
    let mut remotes = Vec::new();
    for index in 0..count {
        let mut dice = Dice::new(seed, 100 + u64::from(index));
        let (dialect, profiles) = draw_profiles(&mut dice, server_retry);
        let pattern = dice.pick(&PATTERNS);
        let round_trip = wan.round_trip(index);
        let end = |side, profile, stream: u64| {
            let stream = stream + 10 * u64::from(index);
            let peer = Peer::new(side, index, dialect, profile, Dice::new(seed, stream));
            (peer, Traffic::new(side, pattern, Dice::new(seed, stream + 1)))
        };
        let (peer, traffic) = end(Side::Client, profiles.0, 10_000);
        clients.push(Client::new(index, round_trip, peer, traffic, dice));
        let (peer, traffic) = end(Side::Server, profiles.1, 20_000);
        remotes.push(Remote::new(round_trip, peer, traffic));
    }
    let mut world = World {
        now: Duration::ZERO,
        queue: Queue::new(),
        clients,
        server: Server::new(remotes),
        nat,
        wan,
        tally: Tally::default(),
        spis: BTreeSet::new(),
        wakes: Wakes { clients: vec![None; count.into()], server: vec![None; count.into()], nat: None },
    };
    if parameters.restarts {
        world.plan_restarts(parameters, &mut common);
    }
    for index in 0..count {
        world.arm_client(index);
    }
    world.play(parameters.duration);
    world.close(parameters.duration)
}

impl World<'_> {
    fn plan_restarts(&mut self, parameters: &Parameters, dice: &mut Dice) {
        let (from, to) = (Duration::from_secs(20), parameters.duration * 6 / 10);
        for index in 0..parameters.clients {
            if dice.chance(REBOOT_PER_MILLE) {
                self.queue.push(dice.between(from, to), Event::Reboot(index));
            }
        }
        if dice.chance(SERVER_RESTART_PER_MILLE) {
            let off_for = dice.secs(5, 20);
            self.queue.push(dice.between(from, to), Event::RestartServer(off_for));
        }
        if dice.chance(NAT_RESTART_PER_MILLE) {
            self.queue.push(dice.between(from, to), Event::RestartNat);
        }
    }

    fn play(&mut self, end: Duration) {
        let mut packets = Vec::new();
        let mut sent = Vec::new();
        while let Some((now, event)) = self.queue.pop() {
            if now > end {
                break;
            }
            self.now = now;
            self.tally.totals.events += 1;
            match event {
                Event::Outbound(packet) => self.outbound(now, &packet, &mut sent),
                Event::Inbound(packet) => self.inbound(now, &packet, &mut sent),
                Event::WakeNat if self.wakes.nat == Some(now) => {
                    self.wakes.nat = None;
                    self.nat.handle_timeout(now, &mut sent);
                    self.forward(now, &mut sent);
                }
                Event::RestartNat => {
                    self.tally.totals.nat_restarts += 1;
                    self.tally.disturb(None);
                    self.clients.iter_mut().for_each(|client| client.nat_restarts(now));
                    self.nat.restart(now);
                    self.arm_nat();
                }
                Event::AtServer(packet) => {
                    let (server, mut around) = self.server_and_surroundings(now, &mut packets);
                    if let Some(client) = server.receive(&mut around, &packet) {
                        self.arm_server(client);
                    }
                    self.server_sends(now, &mut packets);
                }
                Event::WakeServer(client) if self.wakes.server[usize::from(client)] == Some(now) => {
                    self.wakes.server[usize::from(client)] = None;
                    let (server, mut around) = self.server_and_surroundings(now, &mut packets);
                    server.handle_timeout(&mut around, client);
                    self.arm_server(client);
                    self.server_sends(now, &mut packets);
                }
                Event::RestartServer(off_for) => {
                    self.tally.disturb(None);
                    let (server, mut around) = self.server_and_surroundings(now, &mut packets);
                    server.restart(&mut around, off_for);
                }
                Event::AtClient(index, packet) => {
                    let (client, mut around) = self.client_and_surroundings(now, index, &mut packets);
                    client.receive(&mut around, &packet);
                    self.client_sends(now, index, &mut packets);
                }
                Event::WakeClient(index) if self.wakes.clients[usize::from(index)] == Some(now) => {
                    self.wakes.clients[usize::from(index)] = None;
                    let (client, mut around) = self.client_and_surroundings(now, index, &mut packets);
                    client.handle_timeout(&mut around);
                    self.client_sends(now, index, &mut packets);
                }
                Event::Reboot(index) => {
                    self.tally.disturb(Some(index));
                    let (client, mut around) = self.client_and_surroundings(now, index, &mut packets);
                    client.reboot(&mut around);
                    self.client_sends(now, index, &mut packets);
                }
                // Wake-ups that another one has overtaken.
                Event::WakeNat | Event::WakeServer(_) | Event::WakeClient(_) => {}
            }
        }
    }

    fn outbound(&mut self, now: Duration, packet: &[u8], sent: &mut Vec<Sent>) {
        self.nat.outbound(now, packet, sent);
        let passed = sent.iter().any(|sent| matches!(sent, Sent::ToWan(_)));
        match Packet::parse(packet).map(|packet| packet.body) {
            Some(Body::Esp { .. }) => {
                self.tally.totals.outbound += 1;
                self.tally.totals.outbound_kept += u64::from(!passed);
            }
            Some(Body::Ike { .. }) => self.tally.totals.ike_dropped += u64::from(!passed),
            None => self.tally.totals.malformed += 1,
        }
        self.forward(now, sent);
    }

    fn inbound(&mut self, now: Duration, packet: &[u8], sent: &mut Vec<Sent>) {
        let parsed = Packet::parse(packet);
        if let Some(Packet { body: Body::Esp { spi, .. }, note, .. }) = parsed {
            let has_it = self.clients[usize::from(note.client)].owns(spi, note.attempt);
            self.tally.reaches_nat(now, note.serial, note.attempt, has_it);
        }
        self.nat.inbound(now, packet, sent);
        if let Some(Body::Ike { .. }) = parsed.map(|packet| packet.body) {
            self.tally.totals.ike_dropped += u64::from(sent.is_empty());
        }
        self.forward(now, sent);
    }

    /// What left the NAT goes on its way.
    fn forward(&mut self, now: Duration, sent: &mut Vec<Sent>) {
        for sent in sent.drain(..) {
            match sent {
                Sent::ToWan(bytes) => {
                    if let Some(packet) = Packet::parse(&bytes) {
                        if let Some(at) = self.cross(now, &packet, Way::ToServer) {
                            self.queue.push(at, Event::AtServer(bytes));
                        }
                    } else {
                        self.tally.totals.malformed += 1;
                    }
                }
                Sent::ToLan(bytes) => {
                    let Some(packet) = Packet::parse(&bytes) else {
                        self.tally.totals.malformed += 1;
                        continue;
                    };
                    let device =
                        client_at(packet.dst).filter(|&index| usize::from(index) < self.clients.len());
                    if let Body::Esp { .. } = packet.body {
                        self.tally.leaves_nat(now, packet.note.serial, device);
                    }
                    if let Some(index) = device {
                        self.queue.push(now + LAN_DELAY, Event::AtClient(index, bytes));
                    }
                }
            }
        }
        self.arm_nat();
    }

    /// Over the WAN; `None` when it gets lost.
    fn cross(&mut self, now: Duration, packet: &Packet, way: Way) -> Option<Duration> {
        let note = &packet.note;
        let is_esp = matches!(packet.body, Body::Esp { .. });
        match self.wan.send(now, note.client, way) {
            Passage::Lost => {
                self.tally.mishap(now, note.attempt, is_esp, Mishap::Lost);
                None
            }
            Passage::Arrives { at, reordered } => {
                if reordered {
                    self.tally.mishap(now, note.attempt, is_esp, Mishap::Reordered);
                }
                Some(at)
            }
        }
    }

    fn server_sends(&mut self, now: Duration, packets: &mut Vec<Vec<u8>>) {
        for bytes in packets.drain(..) {
            let packet = Packet::parse(&bytes).expect("the server writes what can be read");
            if let Some(at) = self.cross(now, &packet, Way::ToNat) {
                self.queue.push(at, Event::Inbound(bytes));
            }
        }
    }

    fn client_sends(&mut self, now: Duration, index: u8, packets: &mut Vec<Vec<u8>>) {
        for bytes in packets.drain(..) {
            self.queue.push(now + LAN_DELAY, Event::Outbound(bytes));
        }
        self.arm_client(index);
    }

    fn arm_client(&mut self, index: u8) {
        let next = self.clients[usize::from(index)].poll_timeout();
        arm(
            &mut self.queue,
            self.now,
            &mut self.wakes.clients[usize::from(index)],
            next,
            Event::WakeClient(index),
        );
    }

    fn arm_server(&mut self, client: u8) {
        let next = self.server.poll_timeout(client);
        arm(
            &mut self.queue,
            self.now,
            &mut self.wakes.server[usize::from(client)],
            next,
            Event::WakeServer(client),
        );
    }

    fn arm_nat(&mut self) {
        let next = self.nat.poll_timeout();
        arm(&mut self.queue, self.now, &mut self.wakes.nat, next, Event::WakeNat);
    }

    fn server_and_surroundings<'a>(
        &'a mut self,
        now: Duration,
        out: &'a mut Vec<Vec<u8>>,
    ) -> (&'a mut Server, Surroundings<'a>) {
        (&mut self.server, Surroundings { now, tally: &mut self.tally, spis: &mut self.spis, out })
    }

    fn client_and_surroundings<'a>(
        &'a mut self,
        now: Duration,
        index: u8,
        out: &'a mut Vec<Vec<u8>>,
    ) -> (&'a mut Client, Surroundings<'a>) {
        let client = &mut self.clients[usize::from(index)];
        (client, Surroundings { now, tally: &mut self.tally, spis: &mut self.spis, out })
    }

    fn close(mut self, end: Duration) -> Totals {
        let totals = &mut self.tally.totals;
        for client in &self.clients {
            totals.clients += 1;
            totals.not_recovered += u64::from(client.recovers_since.is_some());
            totals.works_at_end += u64::from(client.works(end));
            match client.first_traffic {
                Some(after) => totals.first_traffic.push(after),
                None => totals.never_traffic += 1,
            }
        }
        for (name, count) in self.nat.shares() {
            *totals.shares.entry(name).or_default() += count;
        }
        self.tally.finish(end)
    }
}

/// Puts a wake-up into the queue unless an earlier or equal one is there.
fn arm(
    queue: &mut Queue<Event>,
    now: Duration,
    armed: &mut Option<Duration>,
    next: Option<Duration>,
    event: Event,
) {
    if let Some(next) = next {
        let next = next.max(now);
        if armed.is_none_or(|armed| next < armed) {
            *armed = Some(next);
            queue.push(next, event);
        }
    }
}

/// The timers of real programs (strongSwan, libreswan, a client with a fixed second, Windows).
fn draw_retry(dice: &mut Dice) -> Retry {
    let retry = |first, tenths, longest, tries| Retry {
        first: Duration::from_millis(first),
        tenths,
        longest: Duration::from_secs(longest),
        tries,
    };
    dice.pick(&[
        retry(4000, 18, 80, 5),
        retry(500, 20, 60, 7),
        retry(1000, 10, 1, 10),
        retry(1000, 20, 16, 6),
    ])
}

/// What a client and the server's end for it are like.
fn draw_profiles(dice: &mut Dice, server_retry: Retry) -> (Dialect, (Profile, Profile)) {
    let v2 = dice.chance(500);
    let aggressive = dice.chance(500);
    let xauth = dice.chance(if aggressive { 700 } else { 300 });
    let dialect = Dialect { v2, aggressive, xauth, auth_rounds: dice.pick(&[1, 1, 3]) };

    let life = dice.secs(90, 400);
    let part = |age: Duration, per_mille: u64| age * per_mille as u32 / 1000;
    let early = Some(part(life, 750 + dice.below(150)));
    let late = Some(part(life, 850 + dice.below(120)));
    let renewals = match dice.below(100) {
        // Both at about the same time.
        0..=29 => (early, early),
        30..=44 => (early, None),
        45..=59 => (None, early),
        60..=79 => (early, late),
        _ => (late, early),
    };
    let ike_life = dice.secs(300, 1500);
    let by_server = if v2 { dice.chance(500) } else { !aggressive && !xauth && dice.chance(150) };
    let ike_renewal = part(ike_life, 800);
    let profile = |dice: &mut Dice, retry, child_renewal, renews_ike: bool, dpd| Profile {
        retry,
        child_renewal,
        child_life: life * 11 / 10 + Duration::from_secs(20),
        ike_renewal: renews_ike.then_some(ike_renewal),
        ike_life: ike_life * 11 / 10 + Duration::from_secs(120),
        dpd,
        eager: dice.chance(500),
        initial_contact: dice.chance(500),
        replaces: dice.chance(700),
        child_tail: dice.ms(1000, 5000),
    };
    let retry = draw_retry(dice);
    let client_dpd = dice.chance(900).then(|| dice.secs(30, 60));
    let server_dpd = dice.chance(800).then(|| dice.secs(30, 120));
    let client = profile(dice, retry, renewals.0, !by_server, client_dpd);
    let server = profile(dice, server_retry, renewals.1, by_server, server_dpd);
    (dialect, (client, server))
}
