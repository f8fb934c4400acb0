//! The messages in one direction of a control connection (RFC 2637 section 2), read from what was captured.

/// As much of a message as is looked at: up to the error behind the result.
const HEAD: u16 = 18;
const MIN_LENGTH: u16 = 12;
/// Incoming-Call-Request, the longest.
const MAX_LENGTH: u16 = 220;
/// PPTP message type 1 and the magic cookie.
const MARK: [u8; 6] = [0, 1, 0x1a, 0x2b, 0x3c, 0x4d];

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    head: [u8; HEAD as usize],
}

impl Message {
    fn word(&self, at: usize) -> u16 {
        self.head.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |&word| u16::from_be_bytes(word))
    }

    /// Control message type.
    pub(super) fn kind(&self) -> u16 {
        self.word(8)
    }

    /// The Call ID, in messages that have one.
    pub(super) fn first_id(&self) -> u16 {
        self.word(12)
    }

    /// The Call ID of the other side, in replies to a call's request.
    pub(super) fn second_id(&self) -> u16 {
        self.word(14)
    }

    /// The result of a Start-Control-Connection-Reply.
    pub(super) fn start_result(&self) -> u8 {
        self.head.get(14).copied().unwrap_or(0)
    }

    /// The result of an Outgoing-Call-Reply.
    pub(super) fn call_result(&self) -> u8 {
        self.head.get(16).copied().unwrap_or(0)
    }
}

/// What a segment brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Message(Message),
    /// Bytes that are no PPTP.
    Foreign,
}

/// One direction. Missing segments are skipped: it goes on at the next one that begins with a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    /// Sequence number of the next byte; `None` before the first one.
    next: Option<u32>,
    /// Is the next byte within a message, or the first one of one?
    aligned: bool,
    head: [u8; HEAD as usize],
    read: u16,
    length: u16,
}

impl Stream {
    /// The SYN was seen: the first byte is the one behind it.
    pub(super) const fn begin(&mut self, syn: u32) {
        self.next = Some(syn.wrapping_add(1));
        self.aligned = true;
        self.read = 0;
    }

    /// Reads a segment, of whose `length` bytes `payload` is there.
    pub(super) fn read(&mut self, sequence: u32, length: u32, payload: &[u8], mut take: impl FnMut(Item)) {
        let next = self.next.unwrap_or(sequence);
        let known = next.wrapping_sub(sequence);
        let end = sequence.wrapping_add(length);
        if known < 1 << 31 && known >= length {
            return; // a repetition
        }
        let mut rest = payload;
        if known < 1 << 31 {
            rest = usize::try_from(known).ok().and_then(|known| payload.get(known..)).unwrap_or_default();
        }
        if known >= 1 << 31 || self.next.is_none() {
            // Something is missing.
            self.read = 0;
            self.aligned = payload.get(2..8) == Some(&MARK);
        }
        self.next = Some(end);
        while self.aligned && !rest.is_empty() {
            if let Some(item) = self.step(&mut rest) {
                self.aligned = item != Item::Foreign;
                take(item);
            }
        }
        if u32::try_from(payload.len()).is_ok_and(|there| there < length) {
            self.aligned = false; // the capture cut it off
        }
        if !self.aligned {
            self.next = None; // the next segment may begin with a message
        }
    }

    fn step(&mut self, rest: &mut &[u8]) -> Option<Item> {
        if self.read >= HEAD {
            let wanted = usize::from(self.length.saturating_sub(self.read)).min(rest.len());
            *rest = rest.get(wanted..).unwrap_or_default();
            self.read += u16::try_from(wanted).unwrap_or(MAX_LENGTH);
        } else {
            let (&byte, tail) = rest.split_first()?;
            if let Some(place) = self.head.get_mut(usize::from(self.read)) {
                *place = byte;
            }
            *rest = tail;
            self.read += 1;
        }
        let message = Message { head: self.head };
        if self.read == 8 {
            self.length = message.word(0);
            let fits = (MIN_LENGTH..=MAX_LENGTH).contains(&self.length);
            if !fits || self.head.get(2..8) != Some(&MARK) {
                return Some(Item::Foreign);
            }
        }
        let told = self.read >= 8 && self.read == self.length.min(HEAD);
        if self.read >= 8 && self.read >= self.length {
            self.read = 0;
        }
        told.then_some(Item::Message(message))
    }
}
