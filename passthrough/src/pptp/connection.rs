//! One control connection: its handshake, and what its messages do.

use alloc::vec::Vec;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;

use super::call::{Call, Calls, Phase};
use super::message::{Asked, FirstId, Message, RESULT_OK, Strange};
use super::stream::{Reply, Step, Stream};
use super::{CallId, CallRef, Connection, Counters, Limits, REQUEST_LIFETIME, Refusal, Segment, Verdict};

/// Requests of the remote that wait for the device's answer, at most.
const OFFERS: usize = 16;

/// How far a control connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Found in mid-stream: never parsed.
    Unknown,
    /// One SYN.
    Opening,
    /// Both SYNs.
    Open,
    /// Start-Control-Connection-Request seen.
    Requested,
    /// Start-Control-Connection-Reply agreed.
    Established,
    /// Refused, stopped, or one side has closed: nothing is opened any more.
    Closed,
    /// What came is no PPTP: not parsed any further.
    Foreign,
}

/// A call that the remote asks for.
#[derive(Clone, Copy, Debug)]
struct Offer {
    asked: Asked,
    id: CallId,
    until: Timestamp,
}

/// One control connection.
#[derive(Debug)]
pub(super) struct Control {
    /// Which way its first SYN goes.
    opener: Direction,
    pub(super) stage: Stage,
    /// The sequence number of a SYN that waits for its answer.
    syn: Option<u32>,
    outbound: Stream,
    inbound: Stream,
    offers: Vec<Offer>,
    pub(super) since: Timestamp,
    /// When the last whole message came.
    pub(super) spoke: Timestamp,
}

/// What the messages of a connection work on.
pub(super) struct Context<'a> {
    pub(super) now: Timestamp,
    pub(super) connection: Connection,
    pub(super) direction: Direction,
    pub(super) calls: &'a mut Calls,
    pub(super) limits: &'a Limits,
    pub(super) counters: &'a mut Counters,
}

impl Control {
    /// A connection of which one segment has been seen: the opener's SYN, or one in mid-stream.
    pub(super) const fn new(now: Timestamp, opener: Direction, stage: Stage) -> Self {
        Self {
            opener,
            stage,
            syn: None,
            outbound: Stream::new(0),
            inbound: Stream::new(0),
            offers: Vec::new(),
            since: now,
            spoke: now,
        }
    }

    /// A SYN that can open the connection, or open it anew; not the late copy of one that has.
    pub(super) fn ask(&mut self, sequence: u32) {
        let open = self.is_tracked();
        if !open || self.stream(self.opener).syn() != sequence {
            self.syn = Some(sequence);
        }
    }

    /// Is it known from its first byte on?
    pub(super) const fn is_tracked(&self) -> bool {
        match self.stage {
            Stage::Unknown | Stage::Opening => false,
            Stage::Open | Stage::Requested | Stage::Established | Stage::Closed | Stage::Foreign => true,
        }
    }

    /// The answer to the opener's SYN. Both streams begin here, unless it only repeats what began them.
    pub(super) fn answer(&mut self, sequence: u32, acknowledgement: u32, context: &mut Context<'_>) {
        let Some(syn) = self.syn.filter(|syn| syn.wrapping_add(1) == acknowledgement) else { return };
        context.calls.end_all(context.now, context.connection);
        *self = Self::new(context.now, self.opener, Stage::Open);
        *self.stream(self.opener) = Stream::new(syn);
        *self.stream(self.opener.reverse()) = Stream::new(sequence);
    }

    /// The connection ends, and its calls with it.
    pub(super) fn close(&mut self, context: &mut Context<'_>) {
        match self.stage {
            Stage::Open | Stage::Requested | Stage::Established => self.stage = Stage::Closed,
            Stage::Unknown | Stage::Opening | Stage::Closed | Stage::Foreign => {}
        }
        context.calls.end_all(context.now, context.connection);
    }

    /// A segment without SYN and RST.
    pub(super) fn segment(&mut self, segment: &Segment<'_>, context: &mut Context<'_>) -> Verdict {
        if !self.is_tracked() {
            return Verdict::Pass;
        }
        if let Some(acknowledgement) = segment.acknowledgement {
            self.stream(context.direction.reverse()).acknowledge(acknowledgement);
        }
        match self.data(segment, context) {
            Ok(()) => Verdict::of(self.stream(context.direction).edits(segment.sequence, segment.payload)),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Reads what is new in a segment.
    fn data(&mut self, segment: &Segment<'_>, context: &mut Context<'_>) -> Result<(), Refusal> {
        let length = segment.payload.len();
        if length == 0 && !segment.fin {
            return Ok(());
        }
        let stream = self.stream(context.direction);
        let (known, stale) = (stream.known(segment.sequence), stream.is_stale(segment.sequence));
        if self.stage == Stage::Foreign {
            return Ok(());
        }
        let known = known.ok_or(Refusal::Gap)?;
        if stale && length > 0 {
            return Err(Refusal::Stale);
        }
        self.read(segment.payload.get(known..).unwrap_or_default(), context)?;
        if segment.fin && known <= length {
            self.close(context);
        }
        Ok(())
    }

    fn read(&mut self, mut rest: &[u8], context: &mut Context<'_>) -> Result<(), Refusal> {
        while let Some(step) = self.stream(context.direction).step(&mut rest) {
            match step {
                Step::FirstId(message, id) => {
                    let stands_for = self.first_id(message, id, context);
                    self.change(id, stands_for, context.direction)?;
                }
                Step::SecondId(_, id) => {
                    let stands_for = self.second_id(id, context);
                    self.change(id, stands_for, context.direction)?;
                }
                Step::Message(message) => {
                    self.spoke = context.now;
                    self.message(message, context);
                }
                Step::Strange(Strange::Type) => context.counters.unknown += 1,
                Step::Strange(Strange::Length) => context.counters.malformed += 1,
                Step::Foreign => {
                    context.counters.foreign += 1;
                    self.stage = Stage::Foreign;
                    context.calls.end_all(context.now, context.connection);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Puts the name that an id has on the other side in its place: only the low byte differs.
    fn change(
        &mut self,
        id: CallId,
        name: Result<CallId, Refusal>,
        direction: Direction,
    ) -> Result<(), Refusal> {
        let stream = self.stream(direction);
        let [.., low] = id.0.to_be_bytes();
        let changed = name.and_then(|name| match name.0.to_be_bytes() {
            [.., new] if new == low => Ok(()),
            [.., new] => stream.change(new),
        });
        if changed.is_err() {
            stream.unread();
        }
        changed
    }

    /// What the first Call ID of a message is called on the other side. Requests and replies of the device get
    /// a name here, since its bytes may leave before the rest of the message has come.
    fn first_id(
        &mut self,
        message: Message,
        id: CallId,
        context: &mut Context<'_>,
    ) -> Result<CallId, Refusal> {
        let open = self.stage == Stage::Established;
        let first = message.first_id();
        match (first, context.direction) {
            (FirstId::Asks(asked), Direction::Outbound) if open => context.open(id, Phase::Asked(asked)),
            (FirstId::Asks(asked), Direction::Inbound) if open => self.offer(asked, id, context),
            (FirstId::Answers(asked), Direction::Outbound) if open => {
                match context
                    .calls
                    .by_inside(context.connection, id)
                    .and_then(|call| context.calls.find(call))
                {
                    Some(call) => Ok(call.outside),
                    None if self.offered(asked, None, context.now).is_some() => {
                        context.open(id, Phase::Answering)
                    }
                    None => Ok(id),
                }
            }
            (FirstId::Sender | FirstId::Receiver, _) => Ok(context.named(first, id).name),
            (FirstId::Asks(_) | FirstId::Answers(_) | FirstId::Absent, _) => Ok(id),
        }
    }

    /// What the second Call ID of a reply, the receiver's, is called on the other side.
    fn second_id(&self, id: CallId, context: &Context<'_>) -> Result<CallId, Refusal> {
        match context.direction {
            Direction::Outbound => Ok(id),
            Direction::Inbound => Ok(context.device_half(id).map_or(id, |(_, name)| name)),
        }
    }

    /// Takes down a request of the remote.
    fn offer(&mut self, asked: Asked, id: CallId, context: &Context<'_>) -> Result<CallId, Refusal> {
        self.offers.retain(|offer| offer.id != id && offer.until > context.now);
        if self.offers.len() >= OFFERS {
            return Err(Refusal::CallLimit);
        }
        self.offers.push(Offer { asked, id, until: context.now + REQUEST_LIFETIME });
        Ok(id)
    }

    /// The place of a request of the remote that can still be answered: the one with `id`, or any.
    fn offered(&self, asked: Asked, id: Option<CallId>, now: Timestamp) -> Option<usize> {
        let fits =
            |offer: &Offer| offer.asked == asked && offer.until > now && id.is_none_or(|id| id == offer.id);
        self.offers.iter().position(fits)
    }

    /// Until when the device may still answer a request in which the remote calls itself `id`.
    pub(super) fn awaits_answer(&self, id: CallId, now: Timestamp) -> Option<Timestamp> {
        let waits = |offer: &&Offer| offer.id == id && offer.until > now;
        self.offers.iter().find(waits).map(|offer| offer.until)
    }

    /// A whole message.
    fn message(&mut self, message: Message, context: &mut Context<'_>) {
        let from_opener = context.direction == self.opener;
        match message {
            Message::StartRequest if self.stage == Stage::Open && from_opener => {
                self.stage = Stage::Requested
            }
            Message::StartReply if self.stage == Stage::Requested && !from_opener => {
                let agreed = self.stream(context.direction).start_result() == RESULT_OK;
                self.stage = if agreed { Stage::Established } else { Stage::Closed };
            }
            Message::StopRequest | Message::StopReply => self.close(context),
            Message::OutgoingCallReply => self.call_reply(Asked::Outgoing, context),
            Message::IncomingCallReply => self.call_reply(Asked::Incoming, context),
            Message::CallDisconnectNotify => {
                let named = context.named(message.first_id(), self.stream(context.direction).first_id());
                if let Some(call) = named.call.filter(|_| !named.ambiguous) {
                    context.calls.end(context.now, call);
                }
            }
            Message::OutgoingCallRequest | Message::IncomingCallRequest
                if self.stage == Stage::Established => {}
            Message::StartRequest
            | Message::StartReply
            | Message::OutgoingCallRequest
            | Message::IncomingCallRequest => context.counters.unasked += 1,
            Message::Echo
            | Message::IncomingCallConnected
            | Message::CallClearRequest
            | Message::WanErrorNotify
            | Message::SetLinkInfo => {}
        }
    }

    fn call_reply(&mut self, asked: Asked, context: &mut Context<'_>) {
        let reply = self.stream(context.direction).reply();
        let answered = self.stage == Stage::Established
            && match context.direction {
                Direction::Outbound => self.device_answers(asked, reply, context),
                Direction::Inbound => remote_answers(asked, reply, context),
            };
        context.counters.unasked += u32::from(!answered);
    }

    /// The device has answered a request of the remote; was there one?
    fn device_answers(&mut self, asked: Asked, reply: Reply, context: &mut Context<'_>) -> bool {
        let offer = self.offered(asked, Some(reply.receiver), context.now);
        if let Some(place) = offer {
            self.offers.swap_remove(place);
        }
        if let Some(call) = context.calls.by_inside(context.connection, reply.sender) {
            if offer.is_some() && reply.result == RESULT_OK {
                context.calls.connect(call, reply.receiver);
            } else if context.calls.find(call).is_some_and(|call| call.phase == Phase::Answering) {
                context.calls.remove(call);
            }
        }
        offer.is_some()
    }

    const fn stream(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::Outbound => &mut self.outbound,
            Direction::Inbound => &mut self.inbound,
        }
    }
}

/// The remote has answered a request; had the device asked?
fn remote_answers(asked: Asked, reply: Reply, context: &mut Context<'_>) -> bool {
    let asks = |call: &Call| call.phase == Phase::Asked(asked);
    let called =
        context.device_half(reply.receiver).filter(|(call, _)| context.calls.find(*call).is_some_and(asks));
    let Some((call, _)) = called else { return false };
    if reply.result == RESULT_OK {
        context.calls.connect(call, reply.sender);
    } else {
        context.calls.remove(call);
    }
    true
}

/// What a Call ID stands for.
struct Named {
    call: Option<CallRef>,
    /// What it is called on the other side.
    name: CallId,
    /// It could be two different calls'.
    ambiguous: bool,
}

impl Context<'_> {
    fn open(&mut self, inside: CallId, phase: Phase) -> Result<CallId, Refusal> {
        self.calls.open(self.now, self.connection, inside, phase, self.limits)
    }

    /// The call of this connection whose device's side is called `id` where the segment comes from, and what
    /// that is called where it goes.
    fn device_half(&self, id: CallId) -> Option<(CallRef, CallId)> {
        let reference = match self.direction {
            Direction::Outbound => self.calls.by_inside(self.connection, id)?,
            Direction::Inbound => self.calls.by_outside(self.connection.remote.addr, id)?,
        };
        let call = self.calls.find(reference).filter(|call| call.connection == self.connection)?;
        let name = match self.direction {
            Direction::Outbound => call.outside,
            Direction::Inbound => call.inside,
        };
        Some((reference, name))
    }

    /// The call of this connection whose remote side is called `id`, on either side of the NAT.
    fn remote_half(&self, id: CallId) -> Option<(CallRef, CallId)> {
        let Connection { remote, device } = self.connection;
        let here =
            |call: &CallRef| self.calls.find(*call).is_some_and(|call| call.connection == self.connection);
        self.calls.by_remote(remote.addr, id, device.addr).find(here).map(|call| (call, id))
    }

    /// Whose `id` is, by its value: first the side that the RFC means, then the one that some implementations
    /// name instead.
    fn named(&self, first: FirstId, id: CallId) -> Named {
        let device = self.device_half(id);
        let remote = self.remote_half(id);
        let (meant, instead) = match (first == FirstId::Sender, self.direction) {
            (true, Direction::Outbound) | (false, Direction::Inbound) => (device, remote),
            (true, Direction::Inbound) | (false, Direction::Outbound) => (remote, device),
        };
        let ambiguous = meant.is_some_and(|(call, _)| instead.is_some_and(|(other, _)| other != call));
        let found = meant.or(instead);
        Named { call: found.map(|(call, _)| call), name: found.map_or(id, |(_, name)| name), ambiguous }
    }
}
