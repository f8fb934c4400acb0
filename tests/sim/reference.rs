//! Two NATs as they are in the field, for one WAN address and one server.
//!
//! Both keep IKE on port 500 and tell devices apart by the initiator's SPI, which is in clear in each
//! message; they differ in how they learn whose an inbound ESP SPI is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::nat::{NatUnderTest, Sent};
use crate::wire::{self, Body, Head, IKE_PORT, Packet, WAN};

/// Whose an IKE SA is, by the initiator's SPI.
#[derive(Default)]
struct Ike {
    devices: BTreeMap<u64, Ipv4Addr>,
}

impl Ike {
    fn outbound(&mut self, device: Ipv4Addr, head: &Head) {
        self.devices.insert(head.spi_i, device);
    }

    /// An unknown SPI is for the only device that speaks IKE, if it is the only one.
    fn inbound(&mut self, head: &Head) -> Option<Ipv4Addr> {
        if let Some(&device) = self.devices.get(&head.spi_i) {
            return Some(device);
        }
        let all: BTreeSet<Ipv4Addr> = self.devices.values().copied().collect();
        let device = *all.first().filter(|_| all.len() == 1)?;
        self.devices.insert(head.spi_i, device);
        Some(device)
    }
}

fn to_wan(packet: &[u8]) -> Sent {
    Sent::ToWan(wire::readdress(packet, Some((WAN, IKE_PORT)), None))
}

fn to_lan(packet: &[u8], device: Ipv4Addr) -> Sent {
    Sent::ToLan(wire::readdress(packet, None, Some((device, IKE_PORT))))
}

/// An entry that was never answered lives so long after its last packet.
const UNANSWERED: Duration = Duration::from_secs(20);

struct Outgoing {
    last: Duration,
    answered: bool,
}

/// Gives an unknown inbound SPI to the device that has waited longest for an answer to a new outbound SPI
/// (the ESP connection tracking that was proposed for Linux in 2021 and is in vendors' firmware).
#[derive(Default)]
pub(crate) struct OldestWaiting {
    ike: Ike,
    outgoing: BTreeMap<(Ipv4Addr, u32), Outgoing>,
    incoming: BTreeMap<u32, Ipv4Addr>,
    waiting: VecDeque<(Ipv4Addr, u32)>,
    known: u64,
    guess: u64,
    drop: u64,
}

impl OldestWaiting {
    fn claim(&mut self, now: Duration, spi: u32) -> Option<Ipv4Addr> {
        let outgoing = &mut self.outgoing;
        self.waiting.retain(|key| {
            let alive = outgoing.get(key).is_some_and(|entry| now - entry.last <= UNANSWERED);
            if !alive {
                outgoing.remove(key);
            }
            alive
        });
        let key = self.waiting.pop_front()?;
        outgoing.get_mut(&key)?.answered = true;
        self.incoming.insert(spi, key.0);
        Some(key.0)
    }
}

impl NatUnderTest for OldestWaiting {
    fn outbound(&mut self, now: Duration, packet: &[u8], out: &mut Vec<Sent>) {
        let Some(seen) = Packet::parse(packet) else { return };
        match seen.body {
            Body::Ike { head, .. } => self.ike.outbound(seen.src, &head),
            Body::Esp { spi, .. } => {
                let key = (seen.src, spi);
                let expired = |entry: &Outgoing| !entry.answered && now - entry.last > UNANSWERED;
                if self.outgoing.get(&key).is_none_or(expired) {
                    self.waiting.retain(|&waiting| waiting != key);
                    self.waiting.push_back(key);
                    self.outgoing.insert(key, Outgoing { last: now, answered: false });
                } else if let Some(entry) = self.outgoing.get_mut(&key) {
                    entry.last = now;
                }
            }
        }
        out.push(to_wan(packet));
    }

    fn inbound(&mut self, now: Duration, packet: &[u8], out: &mut Vec<Sent>) {
        let Some(seen) = Packet::parse(packet) else { return };
        let device = match seen.body {
            Body::Ike { head, .. } => self.ike.inbound(&head),
            Body::Esp { spi, .. } => match self.incoming.get(&spi) {
                Some(&device) => {
                    self.known += 1;
                    Some(device)
                }
                None => {
                    let claimed = self.claim(now, spi);
                    *if claimed.is_some() { &mut self.guess } else { &mut self.drop } += 1;
                    claimed
                }
            },
        };
        out.extend(device.map(|device| to_lan(packet, device)));
    }

    fn poll_timeout(&mut self) -> Option<Duration> {
        None
    }

    fn handle_timeout(&mut self, _now: Duration, _out: &mut Vec<Sent>) {}

    fn restart(&mut self, _now: Duration) {
        *self = Self { known: self.known, guess: self.guess, drop: self.drop, ..Self::default() };
    }

    fn shares(&self) -> Vec<(&'static str, u64)> {
        vec![("known", self.known), ("guess", self.guess), ("drop", self.drop)]
    }
}

/// How long a gate stays open, and how long an unfinished exchange keeps others out.
const GATE: Duration = Duration::from_secs(30);

/// A Phase 2 exchange and what is still missing of the ESP session that it announces.
#[derive(Clone, Copy)]
struct Gate {
    device: Ipv4Addr,
    exchange: (u64, u8, u32),
    ends: Duration,
    from_inside: bool,
    answered: bool,
    complete: bool,
    spi_out: Option<u32>,
    spi_in: Option<u32>,
}

/// Allows one Phase 2 exchange at a time per server; the first ESP packet each way after it fills the gate
/// (as carrier-class NATs document it, with their default of 30 s).
#[derive(Default)]
pub(crate) struct OnePhase2 {
    ike: Ike,
    gate: Option<Gate>,
    /// Finished exchanges, whose retransmissions pass.
    done: BTreeSet<(u64, u8, u32)>,
    outgoing: BTreeSet<(Ipv4Addr, u32)>,
    incoming: BTreeMap<u32, Ipv4Addr>,
    known: u64,
    gated: u64,
    drop: u64,
    exchange_refused: u64,
    gates_expired: u64,
}

impl OnePhase2 {
    fn expire(&mut self, now: Duration) {
        if let Some(gate) = self.gate.filter(|gate| gate.ends <= now) {
            self.gates_expired += 1;
            if gate.complete {
                self.done.insert(gate.exchange);
            }
            self.gate = None;
        }
    }

    /// May this message pass?
    fn admit(&mut self, now: Duration, device: Ipv4Addr, head: &Head, from_inside: bool) -> bool {
        // Quick Mode, IKE_AUTH, CREATE_CHILD_SA.
        if !matches!(head.exchange, 32 | 35 | 36) {
            return true;
        }
        self.expire(now);
        let exchange = (head.spi_i, head.exchange, head.id);
        if self.done.contains(&exchange) {
            return true;
        }
        match &mut self.gate {
            Some(gate) if gate.device != device => {
                self.exchange_refused += 1;
                return false;
            }
            Some(gate) if gate.exchange == exchange => {
                let answer = gate.from_inside != from_inside;
                gate.answered |= answer;
                // Quick Mode has a third message.
                let complete = if head.exchange == 32 { gate.answered && !answer } else { gate.answered };
                if complete && !gate.complete {
                    (gate.complete, gate.ends) = (true, now + GATE);
                }
            }
            // Another exchange of the same device, as with EAP, takes the gate over.
            Some(_) | None => {
                if let Some(gate) = self.gate.filter(|gate| gate.complete) {
                    self.done.insert(gate.exchange);
                }
                self.gate = Some(Gate {
                    device,
                    exchange,
                    ends: now + GATE,
                    from_inside,
                    answered: false,
                    complete: false,
                    spi_out: None,
                    spi_in: None,
                });
            }
        }
        true
    }

    fn close_if_filled(&mut self) {
        let filled = |gate: &Gate| gate.spi_in.is_some() && gate.spi_out.is_some();
        if let Some(gate) = self.gate.filter(filled) {
            self.done.insert(gate.exchange);
            self.gate = None;
        }
    }

    fn whose(&mut self, now: Duration, spi: u32) -> Option<Ipv4Addr> {
        if let Some(&device) = self.incoming.get(&spi) {
            self.known += 1;
            return Some(device);
        }
        self.expire(now);
        let Some(gate) = self.gate.as_mut().filter(|gate| gate.complete && gate.spi_in.is_none()) else {
            self.drop += 1;
            return None;
        };
        gate.spi_in = Some(spi);
        let device = gate.device;
        self.incoming.insert(spi, device);
        self.gated += 1;
        self.close_if_filled();
        Some(device)
    }
}

impl NatUnderTest for OnePhase2 {
    fn outbound(&mut self, now: Duration, packet: &[u8], out: &mut Vec<Sent>) {
        let Some(seen) = Packet::parse(packet) else { return };
        match seen.body {
            Body::Ike { head, .. } => {
                self.ike.outbound(seen.src, &head);
                if !self.admit(now, seen.src, &head, true) {
                    return;
                }
            }
            Body::Esp { spi, .. } => {
                self.expire(now);
                let new = self.outgoing.insert((seen.src, spi));
                let gate = self.gate.as_mut().filter(|gate| new && gate.complete && gate.device == seen.src);
                if let Some(gate) = gate {
                    gate.spi_out = Some(spi);
                }
                self.close_if_filled();
            }
        }
        out.push(to_wan(packet));
    }

    fn inbound(&mut self, now: Duration, packet: &[u8], out: &mut Vec<Sent>) {
        let Some(seen) = Packet::parse(packet) else { return };
        let device = match seen.body {
            Body::Ike { head, .. } => {
                let device = self.ike.inbound(&head);
                device.filter(|&device| self.admit(now, device, &head, false))
            }
            Body::Esp { spi, .. } => self.whose(now, spi),
        };
        out.extend(device.map(|device| to_lan(packet, device)));
    }

    fn poll_timeout(&mut self) -> Option<Duration> {
        None
    }

    fn handle_timeout(&mut self, _now: Duration, _out: &mut Vec<Sent>) {}

    fn restart(&mut self, _now: Duration) {
        *self = Self {
            known: self.known,
            gated: self.gated,
            drop: self.drop,
            exchange_refused: self.exchange_refused,
            gates_expired: self.gates_expired,
            ..Self::default()
        };
    }

    fn shares(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("known", self.known),
            ("gated", self.gated),
            ("drop", self.drop),
            ("exchange-refused", self.exchange_refused),
            ("gates-expired", self.gates_expired),
        ]
    }
}
