//! For fuzzing: any bytes become a course of events over a few connections, well formed where that leads
//! further, and what must always hold is asserted after each of them.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::flow::{Direction, Endpoint};
use nat_core::time::Timestamp;

use super::connection::Stage;
use super::{CallId, Connection, Counters, Edit, GreVerdict, Limits, Pptp, Segment, Verdict};

/// What a course of events has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Packets of GRE that were let go.
    pub forwarded: u32,
    /// Bytes that were changed.
    pub changed: u32,
    /// The same counters as after live traffic.
    pub counters: Counters,
}

/// A control message of type `number` as long as RFC 2637 has it, its first two Call IDs and result as given.
pub fn message(number: u16, first: CallId, second: CallId, result: u8) -> Vec<u8> {
    let length: u16 = match number {
        1 | 2 => 156,
        6 => 20,
        7 => 168,
        8 => 32,
        9 => 220,
        10 | 15 => 24,
        11 => 28,
        13 => 148,
        14 => 40,
        _ => 16,
    };
    let mut bytes = Vec::new();
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 1, 0x1a, 0x2b, 0x3c, 0x4d]);
    bytes.extend(number.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(first.0.to_be_bytes());
    bytes.extend(if number == 2 { [result, 0] } else { second.0.to_be_bytes() });
    bytes.push(result);
    bytes.resize(usize::from(length), 0xee);
    bytes
}

/// Runs `input`; what it does depends on nothing else.
///
/// # Panics
///
/// When something that must always hold does not.
pub fn exercise(input: &[u8]) -> Outcome {
    let mut course = Course {
        input,
        now: Timestamp::from_secs(1),
        pptp: Pptp::new(Limits { connections: 5, calls: 24, calls_per_connection: 6, ..Limits::default() }),
        sequences: [(0, 0); CONNECTIONS],
        outcome: Outcome::default(),
    };
    while let Some(kind) = course.byte() {
        course.event(kind);
        assert!(course.pptp.is_consistent(), "the tables contradict each other");
        let _ = course.pptp.views(course.now);
    }
    Outcome { counters: course.pptp.counters(), ..course.outcome }
}

const CONNECTIONS: usize = 8;

struct Course<'a> {
    input: &'a [u8],
    now: Timestamp,
    pptp: Pptp,
    /// The next sequence number of each connection, outbound and inbound.
    sequences: [(u32, u32); CONNECTIONS],
    outcome: Outcome,
}

impl Course<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.input.split_first()?;
        self.input = rest;
        Some(byte)
    }

    fn event(&mut self, kind: u8) {
        let which = self.byte().unwrap_or(0);
        let direction = if which & 0x80 == 0 { Direction::Outbound } else { Direction::Inbound };
        let index = usize::from(which) % CONNECTIONS;
        let connection = connection(index);
        let (device, remote) = (connection.device.addr, connection.remote.addr);
        match kind % 16 {
            0 if which & 0x30 == 0 || !self.is_established(connection) => self.handshake(index),
            1 | 2 => {
                let number = u16::from(self.byte().unwrap_or(0) % 18);
                let bytes = self.built(number);
                self.send(index, direction, &bytes, false);
            }
            3 => {
                // A message with a byte that is not as it should be, sent twice.
                let number = u16::from(self.byte().unwrap_or(0) % 18);
                let mut bytes = self.built(number);
                let (place, byte) = (self.byte().unwrap_or(0), self.byte().unwrap_or(0));
                if let Some(place) = bytes.get_mut(usize::from(place)) {
                    *place = byte;
                }
                self.send(index, direction, &bytes, true);
            }
            4 => {
                let id = self.id();
                let verdict = self.pptp.gre_outbound(self.now, device, remote, id);
                self.gre(verdict, Direction::Outbound);
            }
            5 => {
                let id = self.id();
                let verdict = self.pptp.gre_inbound(self.now, remote, id);
                if let GreVerdict::Forward { device, call_id, .. } = verdict {
                    let back = self.pptp.quoted_inbound(device, remote, call_id);
                    assert!(
                        back.is_none_or(|outside| outside == id || self.ended()),
                        "a quote finds another name"
                    );
                }
                self.gre(verdict, Direction::Inbound);
            }
            6 => {
                self.now = self.now + Duration::from_secs(u64::from(self.byte().unwrap_or(0)) / 8);
                self.pptp.handle_timeout(self.now);
                assert!(self.pptp.poll_timeout().is_none_or(|due| due > self.now), "a timeout is overdue");
            }
            7 => self.pptp.end_connection(self.now, connection),
            8 if which & 0x10 != 0 => {
                let rst = which & 0x40 != 0;
                let sequence = self.sequence(index, direction);
                let segment = Segment { sequence, rst, fin: !rst, ..Segment::default() };
                let _ = self.pptp.control(self.now, connection, direction, opener(index), &segment);
            }
            9 => {
                // A segment of anything anywhere near.
                let back = u32::from(self.byte().unwrap_or(0));
                let sequence = self.sequence(index, direction).wrapping_sub(back);
                let count = usize::from(self.byte().unwrap_or(0)).min(self.input.len());
                let payload = self.input.get(..count).unwrap_or_default();
                let flags = self.byte().unwrap_or(0);
                let segment = Segment {
                    sequence,
                    acknowledgement: (flags & 1 != 0).then_some(sequence),
                    syn: flags & 0xe == 0xe,
                    fin: flags & 0x10 != 0,
                    rst: flags & 0xe0 == 0xe0,
                    payload,
                };
                self.show(index, direction, &segment);
            }
            _ => {
                // A request and its answer.
                let (asks, answers) = if which & 0x20 == 0 { (7, 8) } else { (9, 10) };
                let (own, peer) = (self.id(), self.id());
                self.send(index, direction, &message(asks, own, CallId(0), 0), false);
                let calls = &self.pptp.calls;
                let named = calls.by_inside(connection, own).and_then(|call| calls.find(call));
                let own = match direction {
                    Direction::Outbound => named.map_or(own, |call| call.outside),
                    Direction::Inbound => own,
                };
                self.send(index, direction.reverse(), &message(answers, peer, own, 1), false);
            }
        }
    }

    fn is_established(&self, connection: Connection) -> bool {
        self.pptp.connections.get(&connection).is_some_and(|control| control.stage == Stage::Established)
    }

    fn handshake(&mut self, index: usize) {
        let opener = opener(index);
        let start = u32::from(self.byte().unwrap_or(0)).wrapping_mul(0x0101_0101);
        let syn = Segment { sequence: start, syn: true, ..Segment::default() };
        let answer = Segment { acknowledgement: Some(start.wrapping_add(1)), ..syn };
        self.show(index, opener, &syn);
        self.show(index, opener.reverse(), &answer);
        if let Some(sequences) = self.sequences.get_mut(index) {
            *sequences = (start.wrapping_add(1), start.wrapping_add(1));
        }
        self.send(index, opener, &message(1, CallId(0), CallId(0), 0), false);
        self.send(index, opener.reverse(), &message(2, CallId(0), CallId(0), 1), false);
    }

    fn built(&mut self, number: u16) -> Vec<u8> {
        let (first, second) = (self.id(), self.id());
        let result = self.byte().unwrap_or(0) % 3;
        message(number, first, second, result)
    }

    fn id(&mut self) -> CallId {
        let byte = self.byte().unwrap_or(0);
        CallId(u16::from(byte & 0x80) << 8 | u16::from(byte & 7))
    }

    fn sequence(&mut self, index: usize, direction: Direction) -> u32 {
        self.sequences.get(index).map_or(0, |&(outbound, inbound)| match direction {
            Direction::Outbound => outbound,
            Direction::Inbound => inbound,
        })
    }

    /// Sends the next bytes of a stream, whole or in two segments, and again if told so.
    fn send(&mut self, index: usize, direction: Direction, bytes: &[u8], again: bool) {
        let cut = usize::from(self.byte().unwrap_or(0));
        let (first, second) = bytes.split_at_checked(cut).unwrap_or((bytes, &[]));
        let start = self.sequence(index, direction);
        let middle = start.wrapping_add(u32::try_from(first.len()).unwrap_or(0));
        let heads =
            self.show(index, direction, &Segment { sequence: start, payload: first, ..Segment::default() });
        self.show(index, direction, &Segment { sequence: middle, payload: second, ..Segment::default() });
        let end = middle.wrapping_add(u32::try_from(second.len()).unwrap_or(0));
        if let Some((outbound, inbound)) = self.sequences.get_mut(index) {
            match direction {
                Direction::Outbound => *outbound = end,
                Direction::Inbound => *inbound = end,
            }
        }
        if again {
            let whole = Segment { sequence: start, payload: bytes, ..Segment::default() };
            let repeated = self.show(index, direction, &whole);
            assert!(
                heads.iter().all(|edit| repeated.contains(edit)),
                "a retransmission is changed otherwise"
            );
        } else {
            let acknowledgement = Some(end);
            let sequence = self.sequence(index, direction.reverse());
            let segment = Segment { sequence, acknowledgement, ..Segment::default() };
            self.show(index, direction.reverse(), &segment);
        }
    }

    fn show(&mut self, index: usize, direction: Direction, segment: &Segment<'_>) -> Vec<Edit> {
        let verdict = self.pptp.control(self.now, connection(index), direction, opener(index), segment);
        let Verdict::Edit(edits) = verdict else { return Vec::new() };
        assert!(edits.is_sorted_by(|one, other| one.offset < other.offset), "changes out of order");
        for edit in &edits {
            assert_eq!(segment.payload.get(edit.offset), Some(&edit.old), "a change of what is not there");
            assert_ne!(edit.old, edit.new, "a change that is none");
        }
        self.outcome.changed += u32::try_from(edits.len()).unwrap_or(0);
        edits
    }

    fn gre(&mut self, verdict: GreVerdict, direction: Direction) {
        match verdict {
            GreVerdict::Forward { call, .. } => {
                self.pptp.account(self.now, call, direction, 100);
                self.outcome.forwarded += 1;
            }
            GreVerdict::Hold { until } => assert!(until >= self.now, "held until it is too late"),
            GreVerdict::Drop(_) => {}
        }
    }

    /// Is there a call that has ended but is still known?
    fn ended(&self) -> bool {
        self.pptp.views(self.now).iter().any(|view| view.phase == super::ViewPhase::Closed)
    }
}

/// Three devices and two remotes; the last two connections have the server inside.
fn connection(index: usize) -> Connection {
    let number = u8::try_from(index).unwrap_or(0);
    let port = 40_000 + u16::from(number);
    let (device, remote) = if opener(index) == Direction::Outbound { (port, 1723) } else { (1723, port) };
    Connection {
        remote: Endpoint::new(Ipv4Addr::new(198, 51, 100, 7 + number % 2), remote),
        device: Endpoint::new(Ipv4Addr::new(192, 168, 1, 10 + number % 3), device),
    }
}

fn opener(index: usize) -> Direction {
    if index < CONNECTIONS - 2 { Direction::Outbound } else { Direction::Inbound }
}
