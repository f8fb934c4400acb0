//! One direction of a control connection: messages out of segments, and the changes made to its bytes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::message::{FIRST_ID_END, FirstId, MARK, MAX_LENGTH, MIN_LENGTH, Message, SECOND_ID_END, Strange};
use super::{CallId, Edit, Refusal};

/// How much of a message is kept: up to the result of a call's reply.
const HEAD: usize = 17;

/// Changes kept for retransmissions. One segment of 1,460 bytes holds at most 60 (Set-Link-Info, 24 bytes), so
/// that a sender with nothing in flight can always go on.
const EDITS: usize = 64;

/// How far behind the last byte a retransmission is still looked at; far above every window (RFC 7323: 1 GiB).
const REACH: u32 = 1 << 30;

/// What a stream has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The last byte read ends the first Call ID.
    FirstId(Message, CallId),
    /// The last byte read ends a reply's second Call ID.
    SecondId(Message, CallId),
    /// A whole message has been read.
    Message(Message),
    /// A message that is left alone begins.
    Strange(Strange),
    /// No PPTP.
    Foreign,
}

/// What a reply to a call's request says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    /// The Call ID that its sender has chosen.
    pub(super) sender: CallId,
    /// The one in the request.
    pub(super) receiver: CallId,
    pub(super) result: u8,
}

/// A changed byte.
#[derive(Clone, Copy, Debug)]
struct Changed {
    sequence: u32,
    byte: u8,
}

/// One direction, parsed from its first byte on.
#[derive(Debug)]
pub(super) struct Stream {
    syn: u32,
    /// Sequence number of the next byte to parse.
    next: u32,
    /// Everything before it is acknowledged.
    acknowledged: u32,
    /// The changes from here on are all kept.
    floor: u32,
    edits: VecDeque<Changed>,
    head: [u8; HEAD],
    /// Bytes read of the message at hand.
    read: u16,
    length: u16,
    message: Option<Message>,
}

impl Stream {
    /// The stream whose SYN has this sequence number.
    pub(super) const fn new(syn: u32) -> Self {
        let next = syn.wrapping_add(1);
        Self {
            syn,
            next,
            acknowledged: next,
            floor: syn, // a keep-alive repeats the byte before the next one, even when that is the SYN
            edits: VecDeque::new(),
            head: [0; HEAD],
            read: 0,
            length: 0,
            message: None,
        }
    }

    /// How many bytes lie between a segment's `sequence` and the next byte to parse; `None` if some are missing.
    pub(super) fn known(&self, sequence: u32) -> Option<usize> {
        let known = self.next.wrapping_sub(sequence);
        (known < 1 << 31).then_some(usize::try_from(known).ok()?)
    }

    /// May a segment that starts at `sequence` carry changes that are forgotten?
    pub(super) const fn is_stale(&self, sequence: u32) -> bool {
        sequence.wrapping_sub(self.floor) >= 1 << 31
    }

    /// The other side has everything before `sequence`.
    pub(super) const fn acknowledge(&mut self, sequence: u32) {
        let fin = self.next.wrapping_add(1);
        let gain = sequence.wrapping_sub(self.acknowledged);
        if gain <= fin.wrapping_sub(self.acknowledged) {
            self.acknowledged = sequence;
        }
    }

    /// Reads from `rest` up to the next thing worth telling; `None` when it is used up.
    pub(super) fn step(&mut self, rest: &mut &[u8]) -> Option<Step> {
        while let Some((&byte, tail)) = rest.split_first() {
            let read = if let Some(place) = self.head.get_mut(usize::from(self.read)) {
                *place = byte;
                *rest = tail;
                1
            } else {
                let wanted = usize::from(self.length - self.read).min(rest.len());
                *rest = rest.get(wanted..).unwrap_or_default();
                u16::try_from(wanted).unwrap_or(MAX_LENGTH)
            };
            self.read += read;
            self.next = self.next.wrapping_add(u32::from(read));
            if let Some(step) = self.told() {
                return Some(step);
            }
        }
        None
    }

    /// What the byte just read makes known.
    fn told(&mut self) -> Option<Step> {
        match self.read {
            8 => {
                self.length = self.word(0);
                let fits = (MIN_LENGTH..=MAX_LENGTH).contains(&self.length);
                let marked = self.head.get(2..8) == Some(MARK.as_slice());
                return (!fits || !marked).then_some(Step::Foreign);
            }
            10 => {
                let found = Message::of(self.word(8), self.length);
                self.message = found.ok();
                return found.err().map(Step::Strange);
            }
            FIRST_ID_END => {
                if let Some(message) = self.message.filter(|message| message.first_id() != FirstId::Absent) {
                    return Some(Step::FirstId(message, self.first_id()));
                }
            }
            SECOND_ID_END => {
                let replies = |message: &Message| matches!(message.first_id(), FirstId::Answers(_));
                if let Some(message) = self.message.filter(replies) {
                    return Some(Step::SecondId(message, self.reply().receiver));
                }
            }
            _ => {}
        }
        if self.read < MIN_LENGTH || self.read != self.length {
            return None;
        }
        self.read = 0;
        self.forget_far_behind();
        self.message.take().map(Step::Message)
    }

    /// Takes the last byte back, which ended a Call ID: it cannot be let through yet.
    pub(super) const fn unread(&mut self) {
        self.read -= 1;
        self.next = self.next.wrapping_sub(1);
    }

    /// The byte just read is to be `byte`, now and whenever it is sent again.
    pub(super) fn change(&mut self, byte: u8) -> Result<(), Refusal> {
        if self.edits.len() == EDITS {
            let oldest = self.edits.front().map_or(self.next, |edit| edit.sequence);
            if self.acknowledged.wrapping_sub(oldest).wrapping_sub(1) >= 1 << 31 {
                return Err(Refusal::Unacknowledged);
            }
            self.edits.pop_front();
            self.floor = oldest.wrapping_add(1);
        }
        self.edits.push_back(Changed { sequence: self.next.wrapping_sub(1), byte });
        Ok(())
    }

    /// The changes to a segment of `payload` at `sequence`.
    pub(super) fn edits(&self, sequence: u32, payload: &[u8]) -> Vec<Edit> {
        let edit = |changed: &Changed| {
            let offset = usize::try_from(changed.sequence.wrapping_sub(sequence)).ok()?;
            payload.get(offset).map(|&old| Edit { offset, old, new: changed.byte })
        };
        self.edits.iter().filter_map(edit).filter(|edit| edit.old != edit.new).collect()
    }

    /// The first Call ID of the message last read.
    pub(super) fn first_id(&self) -> CallId {
        CallId(self.word(12))
    }

    /// The result of the Start-Control-Connection-Reply last read.
    pub(super) const fn start_result(&self) -> u8 {
        let [.., result, _, _] = self.head;
        result
    }

    /// The call's reply last read.
    pub(super) fn reply(&self) -> Reply {
        let [.., result] = self.head;
        Reply { sender: self.first_id(), receiver: CallId(self.word(14)), result }
    }

    /// The sequence number of the SYN that it begins with.
    pub(super) const fn syn(&self) -> u32 {
        self.syn
    }

    fn word(&self, at: usize) -> u16 {
        self.head.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&bytes| u16::from_be_bytes(bytes))
    }

    /// Moves the floor along with a stream that runs for gigabytes, before sequence numbers come round.
    fn forget_far_behind(&mut self) {
        if self.next.wrapping_sub(self.floor) > REACH {
            self.floor = self.next.wrapping_sub(REACH / 2);
            let (next, reach) = (self.next, REACH / 2);
            self.edits.retain(|edit| next.wrapping_sub(edit.sequence) <= reach);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_gigabytes_forgets_what_is_far_behind() {
        let mut stream = Stream::new(0);
        let echo = crate::pptp::exercise::message(5, CallId(0), CallId(0), 0);
        assert_eq!(stream.step(&mut echo.as_slice()), Some(Step::Message(Message::Echo)));
        stream.change(1).unwrap();
        for _ in 0..10 {
            assert!(stream.edits(16, &[0]).len() <= 1);
            stream.next = stream.next.wrapping_add(REACH / 2);
            stream.acknowledge(stream.next);
            assert_eq!(stream.step(&mut echo.as_slice()), Some(Step::Message(Message::Echo)));
            assert!(!stream.is_stale(stream.next.wrapping_sub(16)));
            assert!(stream.is_stale(stream.next.wrapping_sub(REACH + 1)));
        }
        assert!(stream.edits.is_empty());
    }
}
