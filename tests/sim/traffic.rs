//! What runs through a tunnel.

use std::time::Duration;

use crate::clock::Dice;
use crate::peer::Side;
use crate::wire::Op;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// The client asks every 1–3 s, the server answers.
    ClientAsks,
    /// The server asks every 1–3 s, from right after the exchange, and the client answers.
    ServerAsks,
    BothAsk,
    /// The client fetches a burst every 10–30 s and acknowledges every second packet.
    Bulk,
    /// The server sends every 2–10 s and the client never.
    Push,
    /// The client asks every 60–180 s, again after 5 s when there was no answer.
    Idle,
}

pub(crate) const PATTERNS: [Pattern; 6] =
    [Pattern::ClientAsks, Pattern::ServerAsks, Pattern::BothAsk, Pattern::Bulk, Pattern::Push, Pattern::Idle];

const BURST: u32 = 20;

/// One end's part.
pub(crate) struct Traffic {
    side: Side,
    pub(crate) pattern: Pattern,
    dice: Dice,
    next: Option<Duration>,
    /// Packets of a burst that are still to be sent, and when the next one is.
    burst: (u32, Duration),
    received: u32,
    /// Since when this end has asked in vain.
    pub(crate) unanswered_since: Option<Duration>,
}

impl Traffic {
    pub(crate) fn new(side: Side, pattern: Pattern, dice: Dice) -> Self {
        Self {
            side,
            pattern,
            dice,
            next: None,
            burst: (0, Duration::ZERO),
            received: 0,
            unanswered_since: None,
        }
    }

    fn speaks(&self) -> bool {
        match self.pattern {
            Pattern::ClientAsks | Pattern::Bulk | Pattern::Idle => self.side == Side::Client,
            Pattern::ServerAsks | Pattern::Push => self.side == Side::Server,
            Pattern::BothAsk => true,
        }
    }

    /// The tunnel is there.
    pub(crate) fn start(&mut self, now: Duration) {
        if self.speaks() && self.next.is_none() {
            self.next = Some(now + self.dice.ms(0, if self.side == Side::Server { 50 } else { 200 }));
        }
    }

    pub(crate) fn stop(&mut self) {
        (self.next, self.burst.0, self.unanswered_since) = (None, 0, None);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let burst = (self.burst.0 > 0).then_some(self.burst.1);
        self.next.into_iter().chain(burst).min()
    }

    /// What is to be sent now.
    pub(crate) fn fire(&mut self, now: Duration) -> Option<Op> {
        if self.burst.0 > 0 && self.burst.1 <= now {
            self.burst = (self.burst.0 - 1, now + self.dice.ms(3, 8));
            return Some(Op::Data);
        }
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let (op, wait) = match self.pattern {
            Pattern::ClientAsks | Pattern::ServerAsks | Pattern::BothAsk => {
                (Op::Ask, self.dice.ms(1000, 3000))
            }
            Pattern::Bulk if self.unanswered_since.is_some() => (Op::Fetch, self.dice.ms(2000, 5000)),
            Pattern::Bulk => (Op::Fetch, self.dice.secs(10, 30)),
            Pattern::Push => (Op::Push, self.dice.secs(2, 10)),
            Pattern::Idle => (Op::Ask, Duration::from_secs(5)),
        };
        self.next = Some(now + wait);
        if op != Op::Push {
            self.unanswered_since.get_or_insert(now);
        }
        Some(op)
    }

    /// What a packet is answered with.
    pub(crate) fn hear(&mut self, now: Duration, op: Op) -> Option<Op> {
        if self.unanswered_since.take().is_some() && self.pattern == Pattern::Idle {
            self.next = Some(now + self.dice.secs(60, 180));
        }
        match op {
            Op::Ask => Some(Op::Answer),
            Op::Fetch => {
                self.burst = (BURST, now);
                None
            }
            Op::Data => {
                self.received += 1;
                (self.received % 2 == 0).then_some(Op::Ack)
            }
            _ => None,
        }
    }

    /// For how long a working tunnel may be silent towards the client.
    pub(crate) fn longest_silence(&self) -> Duration {
        Duration::from_secs(match self.pattern {
            Pattern::ClientAsks | Pattern::ServerAsks | Pattern::BothAsk => 15,
            Pattern::Bulk => 60,
            Pattern::Push => 50,
            Pattern::Idle => 200,
        })
    }
}
