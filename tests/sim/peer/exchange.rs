//! Exchanges: message ids, retransmissions, and which request may go out.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Context, Exchange, Peer, REMEMBER_EXCHANGE, Side};
use crate::wire::{self, Head, IKE_PORT, Note, Op};

const RESPONSE: u8 = 0x20;
const INITIATOR: u8 = 0x08;
const ENCRYPTED: u8 = 0x01;

impl Peer {
    /// Sends again what waits for an answer; gives up where that was done often enough.
    pub(super) fn retransmit(&mut self, context: &mut Context<'_>, uid: u32) {
        let retry = self.profile.retry;
        let mut again = Vec::new();
        let mut dead = Vec::new();
        let Some(sa) = self.sa_mut(uid) else { return };
        for (at, exchange) in sa.exchanges.iter_mut().enumerate() {
            if exchange.retry_at.is_none_or(|due| due > context.now) {
                continue;
            }
            if exchange.tries == 0 {
                dead.push((exchange.op, exchange.mine, exchange.note.old));
                exchange.retry_at = None;
                continue;
            }
            exchange.tries -= 1;
            exchange.interval = (exchange.interval * retry.tenths / 10).min(retry.longest);
            exchange.retry_at = Some(context.now + exchange.interval);
            again.push(at);
        }
        for at in again {
            self.transmit(context, uid, at);
        }
        for (op, mine, old) in dead {
            context.tally.totals.exhausted += 1;
            if self.dialect.v2 || op != Op::Child {
                // RFC 7296 section 2.4, RFC 3706: the other end is dead, and its SAs with it.
                let was_up = self.sa(uid).is_some_and(|sa| sa.up);
                if was_up {
                    for child in std::mem::take(&mut self.children) {
                        if child.ike == uid || !self.dialect.v2 {
                            self.ended(context, child.attempt);
                        } else {
                            self.children.push(child);
                        }
                    }
                }
                self.drop_sa(context, uid);
                return;
            }
            if mine {
                if old == 0 {
                    self.drop_sa(context, uid);
                    return;
                }
                self.renew_later(context.now, old);
            }
        }
    }

    pub(super) fn receive_ike(
        &mut self,
        context: &mut Context<'_>,
        from: (Ipv4Addr, u16),
        head: &Head,
        note: &Note,
    ) {
        if note.client != self.client || (head.version == 0x20) != self.dialect.v2 {
            return;
        }
        let known = self.sas.iter().position(|sa| {
            sa.spi_i == head.spi_i
                && (sa.spi_r == head.spi_r
                    || (sa.initiator && sa.spi_r == 0)
                    || (!sa.initiator && head.spi_r == 0))
        });
        let at = match known {
            Some(at) => at,
            None => {
                let opens = note.op == Op::Phase1 && note.step == 1 && head.spi_r == 0;
                // A client answers only renewals of what it has.
                let wanted =
                    self.side == Side::Server || (!self.dialect.v2 && !note.fresh && !self.sas.is_empty());
                if !opens || !wanted {
                    return;
                }
                let spi_r = self.dice.next() | 1;
                self.add_sa(context.now, head.spi_i, spi_r, false, note.fresh, from)
            }
        };
        let sa = &mut self.sas[at];
        let uid = sa.uid;
        let response = head.flags & RESPONSE != 0;
        let position = sa.exchanges.iter().position(|exchange| {
            exchange.id == head.id
                && exchange.op == note.op
                && (!self.dialect.v2 || exchange.mine == response)
        });
        let Some(position) = position else {
            if note.step != 1 || (self.dialect.v2 && (response || head.id != sa.expected_id)) {
                return;
            }
            if !sa.up && !matches!(note.op, Op::Phase1 | Op::Auth) {
                return;
            }
            sa.expected_id += 1;
            let exchange = Exchange {
                id: head.id,
                op: note.op,
                mine: false,
                note: *note,
                last: None,
                got: 0,
                retry_at: None,
                interval: self.profile.retry.first,
                tries: self.profile.retry.tries,
                rival: None,
                forget_at: context.now + REMEMBER_EXCHANGE,
            };
            self.heard = context.now;
            self.follow(from, uid);
            self.advance(context, uid, exchange, note);
            return;
        };
        let sent = sa.exchanges[position].last.map_or(0, |last| last.step);
        if note.step == sent + 1 && note.step > sa.exchanges[position].got {
            if sa.initiator && sa.spi_r == 0 {
                sa.spi_r = head.spi_r;
            }
            let exchange = sa.exchanges.swap_remove(position);
            self.heard = context.now;
            self.follow(from, uid);
            self.advance(context, uid, exchange, note);
        } else if note.step + 1 == sent {
            self.heard = context.now;
            self.follow(from, uid);
            self.transmit(context, uid, position);
        }
    }

    /// The server answers to where the client was seen last.
    fn follow(&mut self, from: (Ipv4Addr, u16), uid: u32) {
        if self.side == Side::Server {
            if let Some(sa) = self.sa_mut(uid) {
                sa.remote = from;
            }
        }
    }

    /// The next message of an exchange has come.
    fn advance(&mut self, context: &mut Context<'_>, uid: u32, mut exchange: Exchange, got: &Note) {
        let total = self.messages(exchange.op);
        exchange.retry_at = None;
        exchange.got = got.step;
        exchange.forget_at = context.now + REMEMBER_EXCHANGE;
        let reply = self.act(context, uid, &mut exchange, got);
        if let Some(mut reply) = reply {
            reply.step = got.step + 1;
            if reply.attempt == 0 {
                reply.attempt = got.attempt;
            }
            exchange.last = Some(reply);
            if reply.step < total {
                exchange.interval = self.profile.retry.first;
                exchange.tries = self.profile.retry.tries;
                exchange.retry_at = Some(context.now + exchange.interval);
            }
        }
        let answers = reply.is_some();
        if let Some(sa) = self.sa_mut(uid) {
            sa.exchanges.push(exchange);
            let at = sa.exchanges.len() - 1;
            if answers {
                self.transmit(context, uid, at);
            }
        }
        self.settle(context, uid, got);
        self.next_request(context, uid);
    }

    pub(super) fn begin_phase1(&mut self, context: &mut Context<'_>, fresh: bool, remote: (Ipv4Addr, u16)) {
        let spi_i = self.dice.next() | 1;
        let at = self.add_sa(context.now, spi_i, 0, true, fresh, remote);
        let uid = self.sas[at].uid;
        // Until it is up its retransmissions end it.
        self.sas[at].ends_at = context.now + Duration::from_secs(600);
        let initial_contact = fresh && self.profile.initial_contact;
        self.begin(context, uid, Note { fresh, initial_contact, ..Note::new(Op::Phase1, self.client) });
    }

    pub(super) fn begin_auth(&mut self, context: &mut Context<'_>, uid: u32) {
        let initial_contact = self.profile.initial_contact;
        let Some(sa) = self.sa(uid) else { return };
        let (spi, attempt) = sa.offered;
        self.begin(context, uid, Note { spi, attempt, initial_contact, ..Note::new(Op::Auth, self.client) });
    }

    /// A new child SA in place of the one with this inbound SPI; 0 for the first.
    pub(super) fn begin_child(&mut self, context: &mut Context<'_>, uid: u32, old: u32) {
        let attempt = self.new_attempt(context, old != 0);
        let note = Note {
            old,
            attempt,
            spi: self.new_spi(context),
            nonce: self.dice.next(),
            ..Note::new(Op::Child, self.client)
        };
        self.begin(context, uid, note);
    }

    pub(super) fn begin(&mut self, context: &mut Context<'_>, uid: u32, note: Note) {
        if let Some(sa) = self.sa_mut(uid) {
            sa.queue.push_back(note);
            self.next_request(context, uid);
        }
    }

    /// Sends what waits; IKEv2 has a window of one request (RFC 7296 section 2.3).
    pub(super) fn next_request(&mut self, context: &mut Context<'_>, uid: u32) {
        let v2 = self.dialect.v2;
        loop {
            let id = self.dice.word() | 1;
            let total = |op| self.messages(op);
            let retry = self.profile.retry;
            let Some(sa) = self.sas.iter().find(|sa| sa.uid == uid) else { return };
            if v2 && sa.exchanges.iter().any(|exchange| exchange.mine && exchange.retry_at.is_some()) {
                return;
            }
            let Some(&note) = sa.queue.front() else { return };
            let answers = total(note.op) > 1;
            let stale = note.op == Op::Child
                && note.old != 0
                && !self
                    .children
                    .iter()
                    .any(|child| child.spi_in == note.old && !child.rekeyed && !child.closing);
            let Some(sa) = self.sa_mut(uid) else { return };
            sa.queue.pop_front();
            if stale {
                continue;
            }
            let id = match (v2, note.op) {
                (true, _) => {
                    sa.next_id += 1;
                    sa.next_id - 1
                }
                (false, Op::Phase1) => 0,
                (false, _) => id,
            };
            sa.exchanges.push(Exchange {
                id,
                op: note.op,
                mine: true,
                note,
                last: Some(note),
                got: 0,
                retry_at: answers.then_some(context.now + retry.first),
                interval: retry.first,
                tries: retry.tries,
                rival: None,
                forget_at: context.now + REMEMBER_EXCHANGE,
            });
            let at = sa.exchanges.len() - 1;
            self.transmit(context, uid, at);
        }
    }

    fn transmit(&mut self, context: &mut Context<'_>, uid: u32, at: usize) {
        let Some(sa) = self.sa(uid) else { return };
        let exchange = &sa.exchanges[at];
        let Some(note) = exchange.last else { return };
        let v2 = self.dialect.v2;
        let clear = note.op == Op::Phase1 && (v2 || note.step < if self.dialect.aggressive { 3 } else { 5 });
        let flags = match v2 {
            true => (u8::from(sa.initiator) * INITIATOR) | (u8::from(!exchange.mine) * RESPONSE),
            false => u8::from(!clear) * ENCRYPTED,
        };
        let code = match (note.op, v2) {
            (Op::Phase1, true) => 34,
            (Op::Phase1, false) if self.dialect.aggressive => 4,
            (Op::Phase1, false) => 2,
            (Op::Auth, _) => 35,
            (Op::Xauth | Op::ModeCfg, _) => 6,
            (Op::Child | Op::RekeyIke, true) => 36,
            (Op::Child | Op::RekeyIke, false) => 32,
            (_, true) => 37,
            (_, false) => 5,
        };
        let opens = note.op == Op::Phase1 && note.step == 1;
        let head = Head {
            spi_i: sa.spi_i,
            spi_r: if opens { 0 } else { sa.spi_r },
            version: if v2 { 0x20 } else { 0x10 },
            exchange: code,
            flags,
            id: exchange.id,
        };
        context.out.push(wire::ike((self.local, IKE_PORT), sa.remote, &head, clear, &note));
    }

    pub(super) fn messages(&self, op: Op) -> u8 {
        match op {
            _ if self.dialect.v2 => 2,
            Op::Phase1 if self.dialect.aggressive => 3,
            Op::Phase1 => 6,
            Op::Xauth => 4,
            Op::Child => 3,
            Op::DeleteChild | Op::DeleteIke => 1,
            _ => 2,
        }
    }
}
