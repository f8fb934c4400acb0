//! What was seen of one control connection and its calls.

use core::time::Duration;
use std::collections::VecDeque;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::gre::GreHeader;

use super::stream::{Item, Message, Stream};
use crate::attempts::Attempts;
use crate::finding::Mark;
use crate::observation::{Observation, Point, TcpHead};
use crate::ppp::Ppp;
use crate::tally::{Both, Flow, Outside, Unreachable, again};

/// Calls that are remembered of a connection.
const CALLS: usize = 4;
/// "Connected", "successful".
pub(super) const OK: u8 = 1;
/// An LCP echo every 30 s and a PPTP echo every 60 s: nobody is silent for so long who is still there.
const GONE: Duration = Duration::from_secs(300);

/// A segment that says something about where it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal {
    pub(super) mark: Mark,
    pub(super) ttl: u8,
    pub(super) point: Point,
    sequence: u32,
}

impl Signal {
    fn of(seen: &Observation<'_>, head: TcpHead) -> Self {
        Self { mark: seen.mark, ttl: seen.ttl, point: seen.point, sequence: head.seq }
    }
}

/// A segment of the device's that is not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    sequence: u32,
    pub(super) attempts: Attempts,
    /// How long the connection had been silent before.
    pub(super) quiet: Duration,
}

/// A call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The device's Call ID.
    pub(super) own: Option<u16>,
    /// The server's.
    pub(super) remote: Option<u16>,
    /// The device's request, or the first packet where that was not seen.
    pub(super) since: Mark,
    pub(super) reply: Option<(Mark, u8)>,
    /// Call-Clear-Request or Call-Disconnect-Notify, the first.
    pub(super) ended: Option<(Mark, Direction)>,
    pub(super) gre: Both<Flow>,
    /// What the device sent before the server showed that anything reached it.
    pub(super) tries: Option<Attempts>,
    pub(super) heard_us: Option<Mark>,
    /// The server's GRE with the device's Call ID, and what the device sent since the first of it before it showed
    /// that any reached it.
    pub(super) arrived: u64,
    pub(super) unheeded: Option<Attempts>,
    pub(super) heard_them: bool,
    /// What the device sent since the server's last packet.
    pub(super) unheard: Option<Attempts>,
    pub(super) ppp: Ppp,
    /// ICMP errors about its GRE.
    pub(super) errors: Option<Unreachable>,
}

impl Call {
    pub(super) fn new(since: Mark, own: Option<u16>) -> Self {
        Self {
            own,
            remote: None,
            since,
            reply: None,
            ended: None,
            gre: Both::default(),
            tries: None,
            heard_us: None,
            arrived: 0,
            unheeded: None,
            heard_them: false,
            unheard: None,
            ppp: Ppp::default(),
            errors: None,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.reply.is_some_and(|(_, result)| result == OK)
    }

    pub(super) fn gre(&mut self, seen: &Observation<'_>, id: u16, header: &GreHeader) {
        self.gre.of_mut(seen.direction).add(seen, header.seq);
        let mut heard = false;
        if header.seq.is_some() {
            let frame = seen.payload.get(header.header_len..).unwrap_or_default();
            heard = self.ppp.read(seen.direction, seen.mark, frame);
        }
        // The number of a packet that it received (RFC 2637 section 4.1).
        let heard = heard || header.ack.is_some_and(|ack| ack != u32::MAX);
        if seen.is_outbound() {
            self.heard_them |= heard;
            if header.seq.is_some() && self.arrived > 0 && !self.heard_them {
                again(&mut self.unheeded, seen.mark);
            }
            again(&mut self.unheard, seen.mark);
            if header.seq.is_some() && self.heard_us.is_none() {
                again(&mut self.tries, seen.mark);
            }
            return;
        }
        self.unheard = None;
        self.arrived += u64::from(self.own.is_none_or(|own| own == id));
        if heard {
            self.heard_us.get_or_insert(seen.mark);
        }
    }
}

/// A control connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) attempt: u32,
    /// The device's port and the server's; 0 where only GRE was seen.
    pub(super) ports: (u16, u16),
    /// Its beginning was not seen.
    pub(super) joined: bool,
    pub(super) since: Timestamp,
    pub(super) last: Mark,
    /// Of the control connection alone.
    pub(super) flow: Both<Flow>,
    pub(super) syn: Option<Attempts>,
    pub(super) number: u32,
    pub(super) syn_ack: Option<Signal>,
    pub(super) reset: Both<Option<Signal>>,
    pub(super) fin: Both<Option<Mark>>,
    /// What the server sent behind a reset of "its".
    pub(super) after_reset: Option<Mark>,
    streams: Both<Stream>,
    pub(super) acknowledged: Option<Mark>,
    pub(super) pending: Option<Pending>,
    pub(super) start: Option<Mark>,
    pub(super) start_reply: Option<(Mark, u8)>,
    /// The server sent something else than PPTP.
    pub(super) foreign: Option<Mark>,
    /// Stop-Control-Connection-Requests.
    pub(super) stop: Both<Option<Mark>>,
    pub(super) calls: VecDeque<Call>,
    pub(super) outside: Outside,
    /// ICMP errors about the control connection.
    pub(super) errors: Option<Unreachable>,
}

impl Connection {
    pub(super) fn new(attempt: u32, ports: (u16, u16), joined: bool, mark: Mark) -> Self {
        Self {
            attempt,
            ports,
            joined,
            since: mark.at,
            last: mark,
            flow: Both::default(),
            syn: None,
            number: 0,
            syn_ack: None,
            reset: Both::default(),
            fin: Both::default(),
            after_reset: None,
            streams: Both::default(),
            acknowledged: None,
            pending: None,
            start: None,
            start_reply: None,
            foreign: None,
            stop: Both::default(),
            calls: VecDeque::new(),
            outside: Outside::default(),
            errors: None,
        }
    }

    /// A segment of it.
    pub(super) fn segment(&mut self, seen: &Observation<'_>, head: TcpHead) {
        let quiet = seen.at().since(self.control_last().unwrap_or(seen.at()));
        self.flow.of_mut(seen.direction).add(seen, None);
        self.last = seen.mark;
        if head.syn() {
            self.syn(seen, head);
            return;
        }
        if !seen.is_outbound() {
            self.inbound(seen, head);
        }
        if head.rst() {
            self.reset.of_mut(seen.direction).get_or_insert(Signal::of(seen, head));
            return;
        }
        if head.fin() {
            self.fin.of_mut(seen.direction).get_or_insert(seen.mark);
        }
        if seen.payload_len == 0 {
            return;
        }
        if seen.is_outbound() {
            match &mut self.pending {
                Some(pending) if pending.sequence == head.seq => pending.attempts.again(seen.mark),
                Some(_) => {}
                None => {
                    let attempts = Attempts::new(seen.mark);
                    self.pending = Some(Pending { sequence: head.seq, attempts, quiet });
                }
            }
        }
        let mut stream = *self.streams.of(seen.direction);
        stream.read(head.seq, seen.payload_len, seen.payload, |item| {
            self.item(seen.direction, seen.mark, item)
        });
        *self.streams.of_mut(seen.direction) = stream;
    }

    fn syn(&mut self, seen: &Observation<'_>, head: TcpHead) {
        self.streams.of_mut(seen.direction).begin(head.seq);
        if seen.is_outbound() {
            again(&mut self.syn, seen.mark);
            self.number = head.seq;
        } else {
            if self.reset.inbound.is_some() && self.syn_ack.is_none() {
                self.after_reset.get_or_insert(seen.mark);
            }
            self.syn_ack.get_or_insert(Signal::of(seen, head));
        }
    }

    fn inbound(&mut self, seen: &Observation<'_>, head: TcpHead) {
        if let Some(reset) = self.reset.inbound.filter(|_| !head.rst() && seen.payload_len > 0) {
            // What was overtaken by the reset lies before it.
            if head.seq.wrapping_sub(reset.sequence) < 1 << 31 {
                self.after_reset.get_or_insert(seen.mark);
            }
        }
        if !head.ack() || head.rst() {
            return;
        }
        if self
            .pending
            .is_some_and(|pending| head.ack.wrapping_sub(pending.sequence).wrapping_sub(1) < 1 << 31)
        {
            self.pending = None;
            self.acknowledged.get_or_insert(seen.mark);
        }
    }

    fn item(&mut self, direction: Direction, mark: Mark, item: Item) {
        let message = match item {
            Item::Message(message) => message,
            Item::Foreign => {
                if direction == Direction::Inbound {
                    self.foreign.get_or_insert(mark);
                }
                return;
            }
        };
        let outbound = direction == Direction::Outbound;
        match message.kind() {
            1 if outbound => {
                self.start.get_or_insert(mark);
            }
            2 if !outbound => {
                self.start_reply.get_or_insert((mark, message.start_result()));
            }
            3 => {
                self.stop.of_mut(direction).get_or_insert(mark);
            }
            7 if outbound => {
                let own = Some(message.first_id());
                if self.calls.back().is_some_and(|call| call.own == own && call.reply.is_none()) {
                    return; // repeated, where the stream could not be followed
                }
                if self.calls.len() >= CALLS {
                    self.calls.pop_front();
                }
                self.calls.push_back(Call::new(mark, own));
            }
            8 if !outbound => self.reply(mark, message),
            12 | 13 => self.clear(direction, mark, message),
            _ => {}
        }
    }

    fn reply(&mut self, mark: Mark, message: Message) {
        let waits = |call: &&mut Call| call.reply.is_none() && call.own.is_some();
        // A NAT between here and the device may have changed the ID of the request.
        let own = Some(message.second_id());
        let by_id = self.calls.iter().position(|call| call.reply.is_none() && call.own == own);
        let call = match by_id {
            Some(at) => self.calls.get_mut(at),
            None => self.calls.iter_mut().rev().find(waits),
        };
        if let Some(call) = call {
            call.reply = Some((mark, message.call_result()));
            call.remote = Some(message.first_id());
        }
    }

    /// Call-Clear-Request has the device's ID, Call-Disconnect-Notify either's.
    fn clear(&mut self, direction: Direction, mark: Mark, message: Message) {
        let id = Some(message.first_id());
        let lives = |call: &&mut Call| call.ended.is_none();
        let named = |call: &Call| call.ended.is_none() && (call.own == id || call.remote == id);
        let call = match self.calls.iter().rposition(named) {
            Some(at) => self.calls.get_mut(at),
            None => self.calls.iter_mut().rev().find(lives),
        };
        if let Some(call) = call {
            call.ended = Some((mark, direction));
        }
    }

    pub(super) fn control_last(&self) -> Option<Timestamp> {
        let Both { outbound, inbound } = &self.flow;
        [outbound.last(), inbound.last()].into_iter().flatten().map(|mark| mark.at).max()
    }

    /// The device's call that is up, or the last one.
    pub(super) fn call(&self) -> Option<&Call> {
        self.calls.back()
    }

    /// The first sign of either side's that it is over, and whose it is.
    pub(super) fn over(&self) -> Option<(Mark, Direction)> {
        let of = |direction| {
            let signs = [
                *self.fin.of(direction),
                *self.stop.of(direction),
                self.reset.of(direction).map(|reset| reset.mark),
            ];
            let first = signs.into_iter().flatten().min()?;
            Some((first, direction))
        };
        [of(Direction::Outbound), of(Direction::Inbound)].into_iter().flatten().min_by_key(|&(mark, _)| mark)
    }

    /// When the call ended, with its connection if not before.
    pub(super) fn end_of(&self, call: &Call) -> Option<(Mark, Direction)> {
        call.ended.or(self.over())
    }

    /// Was nothing heard for so long that it cannot be there any more?
    pub(super) fn is_gone(&self, now: Timestamp) -> bool {
        now.since(self.last.at) >= GONE
    }

    pub(super) fn lives(&self, now: Timestamp) -> bool {
        self.over().is_none() && !self.is_gone(now)
    }

    /// Does payload, or what comes right before it, flow in the last call?
    pub(super) fn works(&self) -> bool {
        self.call().is_some_and(|call| call.ppp.network.is_some())
    }

    /// The server's last packet.
    pub(super) fn heard(&self) -> Option<Mark> {
        let gre = self.calls.iter().filter_map(|call| call.gre.inbound.last()).max();
        self.flow.inbound.last().max(gre)
    }
}
