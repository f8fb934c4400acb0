//! Whose is an ESP packet from the WAN?
//!
//! Its SPI was chosen by the device that shall receive it, inside an encrypted message, and nothing in the clear
//! ties it to the SPI of the other direction (RFC 4303 section 2.1). It cannot be changed on the way either. What
//! can be seen is when each device and the remote host agree on a new pair: from then on exactly one new SPI is
//! owed to that device. Such a debt is a **gate**; a pair with its gate, and later with its SPIs, is a [`Child`].
//!
//! An SPI that is not known belongs to a device whose gate was open when it was first seen. So:
//!
//! * One device: the SPI is its own from now on, and the gate is closed.
//! * A few devices, at most `fan_out`: each gets a copy. ESP's integrity check makes the wrong ones discard it.
//! * More: the packet is held and then dropped, never given to some of them.
//! * None: it is for nobody.
//!
//! Who was a candidate is settled when the SPI is first seen. A gate that opened later cannot be its own, and each
//! gate that another SPI turns out to belong to is one candidate less.
//!
//! Where more devices than the fan-out allows have gates open, most of them have been open for a while: the tunnel
//! was rekeyed, and nobody has said anything since. Such a gate counts only if its device has just sent something
//! that the packet may answer, or if it is one that only listens.
//!
//! What stays undecided is decided by conversation ([`super::evidence`]): packets with the SPI come a round trip
//! after what one device sends, or one device sends whenever it was given one. That takes several exchanges and
//! more coincidence than there is; the result is called a guess all the same.
//!
//! After a rekey, old and new pair live side by side until the old one has been silent for long. Gates of a device
//! that moved on to a newer pair, or did not move at all, close after a while.

mod candidates;

use crate::sorted::SortedMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;

use super::evidence::{ANSWERS_WITHIN, Score, Sender};
use super::memory::KnownPair;
use crate::ike::IkeSpi;
use crate::view::Learned;

/// A gate older than the pair in use closes after this long: packets of the older pair may still be under way.
const SUPERSEDED: Duration = Duration::from_secs(120);
/// An SPI whose owner is not known is remembered this long after its last packet.
const UNKNOWN_MEMORY: Duration = Duration::from_secs(1800);
/// A server that has something to say after an exchange says it within this time.
const FRESH: Duration = Duration::from_secs(10);
/// And to a device that only listens, or has not been heard of, within this time.
const LISTENS: Duration = Duration::from_secs(30);
/// After a restart, what was in use before shows within this time.
const RECOVERS: Duration = Duration::from_secs(60);
/// So many packets are not all lost, nor all their answers.
const ASKED_OFTEN: u8 = 5;
/// An exchange that made a pair has the remote host use it within this time.
const MOVES: Duration = Duration::from_secs(5);
/// What a single packet proved is doubted this long.
const DOUBT: Duration = Duration::from_secs(60);
/// Pairs that one device may have with one remote host.
const MAX_CHILDREN: usize = 64;
/// SPIs without an owner that are remembered of one remote host.
const MAX_UNKNOWN: usize = 128;

/// What opened a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An exchange that the device takes part in: the IKE SA's initiator SPI, and what names the exchange in it.
    Exchange(IkeSpi, u32),
    /// Outbound ESP with a new SPI, without an exchange that explains it.
    Esp,
    /// Conntrack knew of ESP when natd started: any number of SPIs may be owed.
    Restart,
    /// The owner's forward to a server on the LAN.
    Forward,
}

/// A pair of SPIs, as far as it is known.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) device: Ipv4Addr,
    pub(super) origin: Origin,
    /// From when on its inbound SPI may be in use.
    opened: Timestamp,
    pub(super) created: Timestamp,
    /// Whether an inbound packet needs an entry in conntrack depends on this.
    pub(super) last: Timestamp,
    pub(super) outbound: Option<u32>,
    pub(super) inbound: Option<u32>,
    pub(super) learned: Learned,
    bound: Timestamp,
    closes: Option<Timestamp>,
    /// Last message of the exchange.
    pub(super) renewed: Timestamp,
    /// Outbound packets, those of one burst counted once, and when the last of them went: whatever the remote host
    /// answers to several of them has shown its SPI.
    asked: (u8, Timestamp),
    /// Packets of an older pair that came when this one should have been in use.
    unused: u8,
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
    window: Window,
    /// Another device picked the same SPI.
    pub(super) rival: Option<Ipv4Addr>,
}

/// Which sequence numbers came lately, like the receiver's own window against replay (RFC 4303 section 3.4.3).
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    highest: u32,
    seen: u64,
}

impl Window {
    /// Takes note of `seq`. Has it come before, or is it older than the window?
    fn repeats(&mut self, seq: u32) -> bool {
        if seq > self.highest || self.seen == 0 {
            let ahead = seq.wrapping_sub(self.highest);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = seq;
            return false;
        }
        let bit = 1u64.checked_shl(self.highest - seq).unwrap_or(0);
        let repeats = bit == 0 || self.seen & bit != 0;
        self.seen |= bit;
        repeats
    }
}

/// An SPI that may be several devices'.
#[derive(Clone, Debug)]
pub(super) struct Unknown {
    pub(super) spi: u32,
    last: Timestamp,
    packets: u32,
    /// Children whose it may be, those whose gate opened first in front.
    candidates: Vec<u32>,
    /// Were others left out because their gates are old?
    chosen: bool,
    score: Score,
}

/// ESP with one remote host.
#[derive(Debug, Default)]
pub(super) struct Remote {
    children: SortedMap<u32, Child>,
    next: u32,
    by_inbound: SortedMap<u32, u32>,
    by_outbound: SortedMap<(u32, Ipv4Addr), u32>,
    /// Children whose inbound SPI is not known, those whose gate opened first in front.
    open: Vec<u32>,
    unknown: Vec<Unknown>,
    /// Children whose inbound SPI was learned lately, if they still are to be doubted.
    doubted: Vec<u32>,
    /// When devices sent ESP, and how far the remote host is from them.
    senders: SortedMap<Ipv4Addr, Sender>,
    /// Changes with whatever may change a verdict on a packet that is held.
    changes: u32,
    /// Is there no room for further pairs, this remote host's and all others' together?
    pub(super) is_full: bool,
}

/// Whose an inbound packet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This device's. `stale`: since when its pair had been silent.
    Device { device: Ipv4Addr, silent_since: Timestamp, new: Option<Learned> },
    /// Each of these may be meant.
    Several(Vec<Ipv4Addr>),
    /// More devices than the fan-out allows.
    TooMany,
    /// No device is owed an SPI.
    Nobody,
    /// A device picked an SPI that another one uses: both get it. `new`: this was not known before.
    Rivals { devices: [Ipv4Addr; 2], new: bool },
}

/// What came of an outbound packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The packet may go; it is the n-th of its pair, which began then.
    Counted { nth: u64, created: Timestamp },
    /// The device has too many pairs.
    Full,
}

impl Remote {
    /// Is nothing remembered?
    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.unknown.is_empty()
    }

    /// How often something changed that a verdict depends on.
    pub(super) fn changes(&self) -> u32 {
        self.changes
    }

    /// How many pairs there are.
    pub(super) fn pairs(&self) -> usize {
        self.children.len()
    }

    /// Every pair, oldest first.
    pub(super) fn children(&self) -> impl Iterator<Item = &Child> {
        self.children.values()
    }

    /// SPIs whose owner is not known.
    pub(super) fn unknown(&self) -> &[Unknown] {
        &self.unknown
    }

    /// An exchange between `device` and the remote host has come so far that a new pair may be in use. The same
    /// `origin` again, with `anew`, moves the gate: what was agreed on before it cannot have been a pair.
    pub(super) fn open_gate(&mut self, now: Timestamp, device: Ipv4Addr, origin: Origin, anew: bool) {
        let known = self.children.iter().find(|(_, c)| c.device == device && c.origin == origin);
        match known.map(|(&id, child)| (id, child.inbound.is_none() && anew)) {
            Some((id, true)) => {
                self.open.retain(|&other| other != id);
                if let Some(child) = self.children.get_mut(&id) {
                    child.opened = now;
                    child.renewed = now;
                    child.asked = (0, now);
                    self.open.push(id);
                }
            }
            // A message is repeated: the one before was lost, and the pair is not in use yet.
            Some((id, false)) => {
                if let Some(child) = self.children.get_mut(&id).filter(|child| child.is_open()) {
                    child.renewed = now;
                    child.asked = (0, now);
                    child.unused = 0;
                }
            }
            None => {
                let _ = self.add(now, now, device, origin, Learned::Evidence);
            }
        }
    }

    /// The exchange behind a gate made something else than a pair, a new IKE SA.
    pub(super) fn close_gate(&mut self, device: Ipv4Addr, of: IkeSpi) {
        let ours = |id: &&u32| {
            self.children.get(id).is_some_and(|c| {
                c.device == device
                    && c.outbound.is_none()
                    && matches!(c.origin, Origin::Exchange(spi, _) if spi == of)
            })
        };
        if let Some(&id) = self.open.iter().rev().find(ours) {
            self.remove(id);
        }
    }

    /// Closes every gate that IKE opened for `device`: its ESP goes inside UDP.
    pub(super) fn close_gates(&mut self, device: Ipv4Addr, of: IkeSpi) {
        let idle = |c: &Child| {
            c.device == device
                && c.inbound.is_none()
                && c.outbound.is_none()
                && matches!(c.origin, Origin::Exchange(spi, _) if spi == of)
        };
        let over: Vec<u32> = self.children.iter().filter(|(_, c)| idle(c)).map(|(&id, _)| id).collect();
        for id in over {
            self.remove(id);
        }
    }

    /// Conntrack knew ESP between `device` and the remote host when natd started.
    pub(super) fn adopt(&mut self, now: Timestamp, device: Ipv4Addr) {
        let _ = self.add(now, Timestamp::ZERO, device, Origin::Restart, Learned::Restart);
    }

    /// The IKE SA `of` goes on from another address of the LAN (RFC 4555): its pairs go with it.
    pub(super) fn relocate(&mut self, from: Ipv4Addr, to: Ipv4Addr, of: IkeSpi) {
        let only_esp = !self
            .children
            .values()
            .any(|c| c.device == from && matches!(c.origin, Origin::Exchange(spi, _) if spi != of));
        for (&id, child) in self.children.iter_mut() {
            let moves = match child.origin {
                Origin::Exchange(spi, _) => spi == of,
                Origin::Esp | Origin::Restart => only_esp,
                Origin::Forward => false,
            };
            if child.device == from && moves {
                child.device = to;
                if let Some(spi) = child.outbound {
                    self.by_outbound.remove(&(spi, from));
                    self.by_outbound.insert((spi, to), id);
                }
            }
        }
    }

    /// What was known of a pair before natd was restarted.
    pub(super) fn recall(&mut self, now: Timestamp, known: &KnownPair) {
        let KnownPair { device, inbound, outbound, renewed, .. } = *known;
        let Some(id) = self.add(now, Timestamp::ZERO, device, Origin::Esp, Learned::Restart) else { return };
        if let Some(child) = self.children.get_mut(&id) {
            child.renewed = renewed;
            child.outbound = outbound;
            child.inbound = inbound;
            child.last = now;
        }
        if let Some(spi) = outbound {
            self.by_outbound.insert((spi, device), id);
        }
        if let Some(spi) = inbound {
            self.by_inbound.insert(spi, id);
            self.open.retain(|&other| other != id);
            self.doubt(now, id);
        }
    }

    /// An SPI that was not decided upon before natd was restarted.
    pub(super) fn recall_undecided(&mut self, now: Timestamp, spi: u32, devices: &[Ipv4Addr]) {
        let may_be = |id: &&u32| self.children.get(id).is_some_and(|child| devices.contains(&child.device));
        let candidates: Vec<u32> = self.open.iter().filter(may_be).copied().collect();
        if !candidates.is_empty() && self.unknown.len() < MAX_UNKNOWN {
            let score = Score::default();
            self.unknown.push(Unknown { spi, last: now, packets: 2, candidates, chosen: true, score });
        }
    }

    /// Devices whose `unknown` may be.
    pub(super) fn may_be(&self, unknown: &Unknown) -> Vec<Ipv4Addr> {
        devices(&self.children, &unknown.candidates)
    }

    /// A packet from `device`.
    pub(super) fn outbound(&mut self, now: Timestamp, device: Ipv4Addr, spi: u32, len: u16) -> Sent {
        let id = match self.by_outbound.get(&(spi, device)) {
            Some(&id) => id,
            None => match self.begin_outbound(now, device, spi) {
                Some(id) => id,
                None => return Sent::Full,
            },
        };
        self.heard_from(now, device);
        let Some(child) = self.children.get_mut(&id) else { return Sent::Full };
        child.count(now, Direction::Outbound, len);
        Sent::Counted { nth: child.packets[0], created: child.created }
    }

    fn begin_outbound(&mut self, now: Timestamp, device: Ipv4Addr, spi: u32) -> Option<u32> {
        // The pair that the last exchange made; else one that the remote host has used first.
        let waits = |c: &Child| c.device == device && c.outbound.is_none() && c.origin != Origin::Restart;
        let found = self.children.iter().rev().find(|(_, c)| waits(c)).map(|(&id, _)| id);
        let taken = self.by_outbound.range((spi, Ipv4Addr::UNSPECIFIED)..=(spi, Ipv4Addr::BROADCAST)).next();
        let id = match (found, taken) {
            (Some(id), _) => id,
            // The remote host chose this SPI for another device, which has perhaps moved: nothing is owed for it.
            (None, Some(_)) => {
                let id = self.add(now, Timestamp::ZERO, device, Origin::Esp, Learned::Guess)?;
                self.open.retain(|&other| other != id);
                id
            }
            // When the remote host learned of the pair is not known.
            (None, None) => self.add(now, Timestamp::ZERO, device, Origin::Esp, Learned::Guess)?,
        };
        self.children.get_mut(&id)?.outbound = Some(spi);
        self.changes = self.changes.wrapping_add(1);
        self.by_outbound.insert((spi, device), id);
        Some(id)
    }

    /// A packet with `spi` and sequence number `seq` from the remote host.
    pub(super) fn inbound(&mut self, now: Timestamp, spi: u32, seq: u32, len: u16, cap: u8) -> Verdict {
        if let Some(&id) = self.by_inbound.get(&spi) {
            if let Some(verdict) = self.known(now, id, seq, len) {
                return verdict;
            }
        }
        let place = match self.unknown.iter().position(|unknown| unknown.spi == spi) {
            Some(place) => place,
            None => match self.first_seen(now, spi, cap) {
                Some(place) => place,
                // Nothing is owed, so nothing is remembered either: strangers send what they like.
                None => return Verdict::Nobody,
            },
        };
        let Self { unknown, children, senders, .. } = self;
        let Some(unknown) = unknown.get_mut(place) else { return Verdict::Nobody };
        unknown.last = now;
        unknown.packets = unknown.packets.saturating_add(1);
        unknown
            .candidates
            .retain(|id| children.get(id).is_some_and(|c| c.inbound.is_none() || c.is_doubtful(now)));
        if unknown.candidates.is_empty() {
            self.unknown.remove(place);
            return Verdict::Nobody;
        }
        let devices = devices(children, &unknown.candidates);
        let convinced = unknown.score.arrives(now, &devices, senders);
        let only = match devices.as_slice() {
            &[device] if !unknown.chosen => Some((device, false)),
            _ => convinced.map(|device| (device, true)),
        };
        if let Some((device, guessed)) = only {
            let newest = |id: &&u32| children.get(id).is_some_and(|c| c.device == device);
            let Some(&id) = unknown.candidates.iter().rev().find(newest) else { return Verdict::Nobody };
            let learned = self.bind(now, id, spi, guessed);
            self.known(now, self.by_inbound.get(&spi).copied().unwrap_or(id), seq, len);
            return Verdict::Device { device, silent_since: Timestamp::ZERO, new: Some(learned) };
        }
        if devices.len() > usize::from(cap) {
            return Verdict::TooMany;
        }
        unknown.score.delivered(now);
        for id in &unknown.candidates {
            if let Some(child) = children.get_mut(id) {
                child.last = now;
            }
        }
        Verdict::Several(devices)
    }

    /// A device has sent ESP while somebody's SPI is being looked for.
    fn heard_from(&mut self, now: Timestamp, device: Ipv4Addr) {
        // Whichever pair carries a question: the answer comes by the one that was agreed on last.
        for id in &self.open {
            if let Some(child) = self.children.get_mut(id).filter(|child| child.device == device) {
                child.asks(now);
            }
        }
        let sender = self.senders.or_default(device);
        let often = sender.per_second(now);
        sender.sends(now);
        for unknown in &mut self.unknown {
            unknown.score.answered(now, device, often);
        }
    }

    /// How far the remote host is from `device`.
    pub(super) fn set_round_trip(&mut self, device: Ipv4Addr, round_trip: Duration) {
        self.senders.or_default(device).round_trip = Some(round_trip);
    }

    /// A server on the LAN gets what nobody else is owed.
    pub(super) fn give_to_server(&mut self, now: Timestamp, spi: u32, server: Ipv4Addr) -> bool {
        let Some(id) = self.add(now, now, server, Origin::Forward, Learned::Forward) else { return false };
        self.bind(now, id, spi, false);
        true
    }

    fn known(&mut self, now: Timestamp, id: u32, seq: u32, len: u16) -> Option<Verdict> {
        let child = self.children.get_mut(&id)?;
        let repeats = child.window.repeats(seq);
        let (device, silent_since, bound) = (child.device, child.last, child.bound);
        let has_rival = child.rival.is_some();
        if let Some(sender) = self.senders.get_mut(&device) {
            sender.receives(now);
        }
        if self.open.is_empty() && !has_rival {
            child.count(now, Direction::Inbound, len);
            return Some(Verdict::Device { device, silent_since, new: None });
        }
        if !self.open.is_empty() {
            self.stays(now, device, bound);
        }
        let mut new = false;
        if repeats && !has_rival {
            // A sequence that begins again is another sender's state, if somebody is owed an SPI.
            let mut owed = self.open.iter().rev().filter_map(|id| Some(self.children.get(id)?.device));
            let rival = owed.find(|&other| other != device);
            if let Some(rival) = rival {
                new = true;
                // The gate stays open: the network, or a stranger, may have repeated the packet.
                self.children.get_mut(&id)?.rival = Some(rival);
            }
        }
        let child = self.children.get_mut(&id)?;
        child.count(now, Direction::Inbound, len);
        Some(match child.rival {
            Some(rival) => Verdict::Rivals { devices: [device, rival], new },
            None => Verdict::Device { device, silent_since, new: None },
        })
    }

    /// The remote host still uses a pair of `device` that was known at `bound`. If it does so long after an exchange,
    /// that made no pair.
    fn stays(&mut self, now: Timestamp, device: Ipv4Addr, bound: Timestamp) {
        let over = |id: &&u32| {
            self.children.get(id).is_some_and(|c| {
                c.device == device
                    && matches!(c.origin, Origin::Exchange(..))
                    && c.opened > bound
                    && now.since(c.renewed) > MOVES
            })
        };
        let Some(&id) = self.open.iter().find(over) else { return };
        let Some(child) = self.children.get_mut(&id) else { return };
        child.unused = child.unused.saturating_add(1);
        if child.unused > 1 {
            self.remove(id);
        }
    }

    /// The inbound SPI of `id` is known now.
    fn bind(&mut self, now: Timestamp, id: u32, spi: u32, guessed: bool) -> Learned {
        self.unknown.retain(|unknown| unknown.spi != spi);
        if self.unknown.is_empty() {
            self.unknown = Vec::new(); // most remote hosts never have one again for hours
        }
        let Some(child) = self.children.get(&id) else { return Learned::Guess };
        let (device, opened) = (child.device, child.opened);
        let learned = if guessed { Learned::Guess } else { child.learned };
        // Of a conversation from before the start, more SPIs may follow; of a doubted one, both may be right.
        let id = if child.origin == Origin::Restart || child.inbound.is_some() {
            match self.add(now, opened, device, child.origin, learned) {
                Some(new) => new,
                None => id,
            }
        } else {
            id
        };
        self.open.retain(|&other| other != id);
        self.changes = self.changes.wrapping_add(1);
        if !self.open.iter().any(|id| self.children.get(id).is_some_and(|c| c.device == device)) {
            // Nothing is owed to it any more, so the SPI that it seemed to share is another's alone.
            for (_, other) in self.children.iter_mut().filter(|(_, c)| c.rival == Some(device)) {
                other.rival = None;
            }
        }
        for &older in &self.open {
            if let Some(older) = self.children.get_mut(&older) {
                if older.device == device && older.opened < opened {
                    older.closes.get_or_insert(now + SUPERSEDED);
                }
            }
        }
        if let Some(child) = self.children.get_mut(&id) {
            child.inbound = Some(spi);
            child.learned = learned;
            child.bound = now;
            child.last = Timestamp::ZERO; // conntrack has not seen it
            self.by_inbound.insert(spi, id);
            self.doubt(now, id);
        }
        learned
    }

    fn add(
        &mut self,
        now: Timestamp,
        opened: Timestamp,
        device: Ipv4Addr,
        origin: Origin,
        learned: Learned,
    ) -> Option<u32> {
        let same = |c: &&Child| c.device == device;
        if self.is_full || self.children.values().filter(same).count() >= MAX_CHILDREN {
            let oldest = self.children.iter().filter(|(_, c)| c.device == device).min_by_key(|(_, c)| c.last);
            let (&id, child) = oldest?;
            if now.since(child.last) < SUPERSEDED {
                return None;
            }
            self.remove(id);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let child = Child {
            device,
            origin,
            opened,
            created: now,
            last: now,
            outbound: None,
            inbound: None,
            learned,
            bound: now,
            closes: None,
            renewed: now,
            asked: (0, Timestamp::ZERO),
            unused: 0,
            packets: [0; 2],
            bytes: [0; 2],
            window: Window::default(),
            rival: None,
        };
        self.children.insert(id, child);
        let place = self.open.partition_point(|id| self.children.get(id).is_some_and(|c| c.opened <= opened));
        self.open.insert(place, id);
        self.changes = self.changes.wrapping_add(1);
        Some(id)
    }

    fn remove(&mut self, id: u32) {
        let Some(child) = self.children.remove(&id) else { return };
        self.changes = self.changes.wrapping_add(1);
        self.open.retain(|&other| other != id);
        if let Some(spi) = child.inbound {
            if self.by_inbound.get(&spi) == Some(&id) {
                self.by_inbound.remove(&spi);
            }
        }
        if let Some(spi) = child.outbound {
            self.by_outbound.remove(&(spi, child.device));
        }
    }

    /// Which device sent `spi`, which the remote host chose? `None` where nobody did, or more than one.
    pub(super) fn sender(&self, spi: u32) -> Option<Ipv4Addr> {
        let mut senders = self
            .by_outbound
            .range((spi, Ipv4Addr::UNSPECIFIED)..=(spi, Ipv4Addr::BROADCAST))
            .map(|(key, _)| key.1);
        let first = senders.next()?;
        senders.next().is_none().then_some(first)
    }

    /// Has `device` got `spi` from the remote host?
    pub(super) fn received(&self, device: Ipv4Addr, spi: u32) -> bool {
        let owner = self.by_inbound.get(&spi).and_then(|id| self.children.get(id));
        owner.is_some_and(|c| c.device == device || c.rival == Some(device))
            || self.unknown.iter().any(|unknown| unknown.spi == spi)
    }

    /// Does any device talk to the remote host?
    pub(super) fn users(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.children.values().map(|child| child.device)
    }

    /// Forgets what has been silent for `idle`, and gates that have been open for too long.
    pub(super) fn forget(&mut self, now: Timestamp, idle: Duration) {
        let over = |c: &Child| {
            now.since(c.last.max(c.bound)) >= idle
                || c.closes.is_some_and(|closes| closes <= now && c.inbound.is_none())
        };
        let over: Vec<u32> = self.children.iter().filter(|(_, c)| over(c)).map(|(&id, _)| id).collect();
        for id in over {
            self.remove(id);
        }
        // What conntrack knew of is used up when its device has been heard for a while.
        let heard = |device: Ipv4Addr| {
            self.children.values().any(|c| {
                c.device == device
                    && c.inbound.is_some()
                    && c.packets[1] > 1
                    && now.since(c.bound) >= SUPERSEDED
            })
        };
        let used: Vec<u32> = self
            .children
            .iter()
            .filter(|(_, c)| c.origin == Origin::Restart && c.inbound.is_none() && heard(c.device))
            .map(|(&id, _)| id)
            .collect();
        for id in used {
            self.remove(id);
        }
        self.unknown.retain(|unknown| now.since(unknown.last) < UNKNOWN_MEMORY);
        let children = &self.children;
        self.senders.retain(|&device, _| children.values().any(|c| c.device == device));
    }
}

/// The devices of these children, each once.
fn devices(children: &SortedMap<u32, Child>, ids: &[u32]) -> Vec<Ipv4Addr> {
    let mut devices = Vec::with_capacity(ids.len());
    for child in ids.iter().filter_map(|id| children.get(id)) {
        if !devices.contains(&child.device) {
            devices.push(child.device);
        }
    }
    devices
}

/// Is every number of `few` among `many`? Both are sorted.
fn is_subset(few: &[u32], many: &[u32]) -> bool {
    let mut many = many.iter();
    few.iter().all(|number| many.any(|other| other == number))
}

impl Child {
    fn count(&mut self, now: Timestamp, direction: Direction, len: u16) {
        let slot = usize::from(direction == Direction::Inbound);
        if let (Some(packets), Some(bytes)) = (self.packets.get_mut(slot), self.bytes.get_mut(slot)) {
            *packets += 1;
            *bytes += u64::from(len);
        }
        self.last = now;
    }

    fn asks(&mut self, now: Timestamp) {
        if now.since(self.asked.1.max(self.opened)) >= ANSWERS_WITHIN {
            self.asked = (self.asked.0.saturating_add(1), now);
        }
    }

    /// Has the remote host surely answered by now?
    fn must_have_shown(&self, now: Timestamp) -> bool {
        let (asked, last) = self.asked;
        asked > ASKED_OFTEN || (asked == ASKED_OFTEN && now.since(last) >= ANSWERS_WITHIN)
    }

    /// Is its inbound SPI known from a single packet, which may have been forged?
    fn is_doubtful(&self, now: Timestamp) -> bool {
        self.inbound.is_some() && self.packets[1] <= 1 && now.since(self.bound) < DOUBT
    }

    /// May an inbound SPI still be owed?
    pub(super) fn is_open(&self) -> bool {
        self.inbound.is_none()
    }
}
