//! One end of the IKE and ESP association between one client and the server, client's or server's.
//!
//! Written from RFC 2409 (main, aggressive and quick mode), draft-beaulieu-ike-xauth, RFC 3706 and RFC 7296
//! (message ids 2.2, rekeying 2.8, simultaneous rekeying 2.8.1, refusals 2.25), with the timers of real
//! programs. Both ends are the same code with another [`Side`]; authentication and encryption are not
//! simulated, but a host believes nothing that names an SA it does not have.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::clock::Dice;
use crate::tally::Tally;
use crate::wire::{self, Body, Head, IKE_PORT, Note, Op, Packet, Verdict};

const RESPONSE: u8 = 0x20;
const INITIATOR: u8 = 0x08;
const ENCRYPTED: u8 = 0x01;

/// Finished exchanges answer retransmissions for so long.
const REMEMBER_EXCHANGE: Duration = Duration::from_secs(240);
/// A half-open IKE SA (WIRE-FACTS: strongSwan, 30 s) and the tail of a closed one.
const LINGER_IKE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// When a request or an unanswered message is sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    pub(crate) first: Duration,
    /// Each next interval is so many tenths of the one before.
    pub(crate) tenths: u32,
    pub(crate) longest: Duration,
    pub(crate) tries: u32,
}

/// What both ends speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) v2: bool,
    pub(crate) aggressive: bool,
    pub(crate) xauth: bool,
    /// Exchanges of IKE_AUTH; more than one with EAP.
    pub(crate) auth_rounds: u8,
}

/// How this end behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    pub(crate) retry: Retry,
    /// This end renews a child SA at this age; `None` leaves it to the other.
    pub(crate) child_renewal: Option<Duration>,
    /// A child SA lives no longer.
    pub(crate) child_life: Duration,
    /// This end renews the IKE SA at this age.
    pub(crate) ike_renewal: Option<Duration>,
    pub(crate) ike_life: Duration,
    pub(crate) dpd: Option<Duration>,
    /// As responder of an IKEv2 rekey it sends on the new SA at once, not only when the old one is deleted
    /// or something came on the new one (RFC 7296 section 2.8 allows both).
    pub(crate) eager: bool,
    pub(crate) initial_contact: bool,
    /// The server lets a client's new connection replace its old one.
    pub(crate) replaces: bool,
    /// The old SA goes on receiving for so long after it was deleted.
    pub(crate) child_tail: Duration,
}

/// What an end needs from outside for one step.
pub(crate) struct Context<'a> {
    pub(crate) now: Duration,
    pub(crate) round_trip: Duration,
    pub(crate) tally: &'a mut Tally,
    /// SPIs that the server has given out.
    pub(crate) spis: &'a mut BTreeSet<u32>,
    pub(crate) out: &'a mut Vec<Vec<u8>>,
}

struct Exchange {
    id: u32,
    op: Op,
    mine: bool,
    /// What I began it with, or what I know of it as responder.
    note: Note,
    /// The last message that I sent.
    last: Option<Note>,
    /// The last step that came.
    got: u8,
    retry_at: Option<Duration>,
    interval: Duration,
    tries: u32,
    /// The lower nonce of the other end's exchange that rekeys the same SA.
    rival: Option<u64>,
    forget_at: Duration,
}

struct IkeSa {
    uid: u32,
    spi_i: u64,
    spi_r: u64,
    /// Did I begin it?
    initiator: bool,
    up: bool,
    /// Closed or renewed: it only answers.
    replaced: bool,
    fresh: bool,
    /// It was renewed by this end, which deletes it when it ends.
    farewell: bool,
    remote: (Ipv4Addr, u16),
    next_id: u32,
    expected_id: u32,
    auth_round: u8,
    /// From the first IKE_AUTH: the other end's SPI and the attempt.
    offered: (u32, u32),
    exchanges: Vec<Exchange>,
    queue: VecDeque<Note>,
    renew_at: Option<Duration>,
    ends_at: Duration,
}

struct Child {
    ike: u32,
    attempt: u32,
    spi_in: u32,
    spi_out: u32,
    sent: u32,
    can_send: bool,
    /// Another one takes its place.
    rekeyed: bool,
    /// It is deleted and only receives.
    closing: bool,
    renew_at: Option<Duration>,
    /// IKEv1: when its renewer deletes it.
    delete_at: Option<Duration>,
    ends_at: Duration,
}

/// What an ESP packet said to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) op: Op,
    pub(crate) attempt: u32,
}

pub(crate) struct Peer {
    side: Side,
    client: u8,
    local: Ipv4Addr,
    pub(crate) dialect: Dialect,
    profile: Profile,
    dice: Dice,
    sas: Vec<IkeSa>,
    children: Vec<Child>,
    next_uid: u32,
    heard: Duration,
    /// It can send where before it could not; the owner takes it.
    pub(crate) came_up: bool,
    /// The last IKE SA is gone; the owner takes it.
    pub(crate) went_down: bool,
}

impl Peer {
    pub(crate) fn new(side: Side, client: u8, dialect: Dialect, profile: Profile, dice: Dice) -> Self {
        let local = match side {
            Side::Client => wire::device(client),
            Side::Server => wire::SERVER,
        };
        Self {
            side,
            client,
            local,
            dialect,
            profile,
            dice,
            sas: Vec::new(),
            children: Vec::new(),
            next_uid: 0,
            heard: Duration::ZERO,
            came_up: false,
            went_down: false,
        }
    }

    /// Forgets everything, as after a loss of power.
    pub(crate) fn forget(&mut self, context: &mut Context<'_>) {
        self.sas.clear();
        for child in std::mem::take(&mut self.children) {
            self.ended(context, child.attempt);
        }
        (self.came_up, self.went_down) = (false, false);
    }

    /// Says goodbye as far as one message goes, and forgets.
    pub(crate) fn hang_up(&mut self, context: &mut Context<'_>) {
        for uid in self.uids() {
            let Some(sa) = self.sa(uid) else { continue };
            if sa.up && !sa.replaced {
                // A request that waits for its answer keeps an IKEv2 goodbye back; then there is none.
                let note = Note::new(Op::DeleteIke, self.client);
                self.begin(context, uid, note);
            }
        }
        self.forget(context);
    }

    /// Begins a connection from nothing.
    pub(crate) fn dial(&mut self, context: &mut Context<'_>) {
        self.begin_phase1(context, true, (wire::SERVER, IKE_PORT));
    }

    pub(crate) fn can_send(&self) -> bool {
        self.children.iter().any(|child| child.can_send && !child.closing)
    }

    /// Does this inbound SA exist here?
    pub(crate) fn owns(&self, spi: u32, attempt: u32) -> bool {
        self.children.iter().any(|child| child.spi_in == spi && child.attempt == attempt)
    }

    /// Sends ESP on the newest SA that may be sent on.
    pub(crate) fn send(&mut self, context: &mut Context<'_>, op: Op) -> bool {
        let Some(child) = self.children.iter_mut().rev().find(|child| child.can_send && !child.closing)
        else {
            return false;
        };
        let remote = match self.side {
            Side::Client => wire::SERVER,
            Side::Server => wire::WAN,
        };
        let mut note = Note { attempt: child.attempt, ..Note::new(op, self.client) };
        if self.side == Side::Server {
            note.serial = context.tally.server_sends(context.now, self.client, child.attempt);
        }
        child.sent += 1;
        context.out.push(wire::esp(self.local, remote, child.spi_out, child.sent, &note));
        true
    }

    /// Takes a packet that is addressed to this host; `None` for all but ESP on an SA of its own.
    pub(crate) fn receive(&mut self, context: &mut Context<'_>, packet: &Packet) -> Option<Heard> {
        match packet.body {
            Body::Ike { src_port, head, .. } => {
                self.receive_ike(context, (packet.src, src_port), &head, &packet.note);
                None
            }
            Body::Esp { spi, .. } => {
                let note = &packet.note;
                let at = self.children.iter().position(|child| child.spi_in == spi)?;
                // Another client's packet under the same SPI fails the integrity check.
                if note.client != self.client || self.children[at].attempt != note.attempt {
                    return None;
                }
                self.heard = context.now;
                if !self.children[at].can_send && self.dialect.v2 && !self.children[at].closing {
                    self.children[at].can_send = true;
                }
                if self.side == Side::Client {
                    context.tally.client_receives(context.now, note.attempt);
                }
                Some(Heard { op: note.op, attempt: note.attempt })
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let mut next = None::<Duration>;
        let mut take = |at: Duration| next = Some(next.map_or(at, |next| next.min(at)));
        for sa in &self.sas {
            take(sa.ends_at);
            let mut busy = false;
            for exchange in &sa.exchanges {
                busy |= exchange.mine && exchange.retry_at.is_some();
                exchange.retry_at.into_iter().for_each(&mut take);
            }
            if sa.up && !sa.replaced {
                sa.renew_at.into_iter().for_each(&mut take);
                if let (Some(dpd), false) = (self.profile.dpd, busy) {
                    take(self.heard + dpd);
                }
            }
        }
        for child in &self.children {
            take(child.ends_at);
            child.delete_at.into_iter().for_each(&mut take);
            child.renew_at.into_iter().for_each(&mut take);
        }
        next
    }

    pub(crate) fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        for uid in self.uids() {
            self.retransmit(context, uid);
            let Some(sa) = self.sa_mut(uid) else { continue };
            sa.exchanges.retain(|exchange| exchange.retry_at.is_some() || exchange.forget_at > now);
            if sa.ends_at <= now {
                let closes = sa.up && (!sa.replaced || sa.farewell);
                if closes {
                    let note = Note::new(Op::DeleteIke, self.client);
                    self.begin(context, uid, note);
                }
                self.drop_sa(context, uid);
                continue;
            }
            if !sa.up || sa.replaced {
                continue;
            }
            let busy = sa.exchanges.iter().any(|exchange| exchange.mine && exchange.retry_at.is_some());
            if sa.renew_at.is_some_and(|at| at <= now) {
                sa.renew_at = None;
                let remote = sa.remote;
                if self.dialect.v2 {
                    let note = Note { ike: self.dice.next(), ..Note::new(Op::RekeyIke, self.client) };
                    self.begin(context, uid, note);
                } else {
                    self.begin_phase1(context, false, remote);
                }
            } else if !busy && self.profile.dpd.is_some_and(|dpd| self.heard + dpd <= now) {
                self.begin(context, uid, Note::new(Op::Dpd, self.client));
            }
        }
        self.mind_children(context);
    }

    fn mind_children(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let spis: Vec<u32> = self.children.iter().map(|child| child.spi_in).collect();
        for spi in spis {
            let Some(at) = self.children.iter().position(|child| child.spi_in == spi) else { continue };
            let child = &mut self.children[at];
            if child.ends_at <= now || child.delete_at.is_some_and(|at| at <= now) {
                let closing = child.closing;
                let ike = child.ike;
                if closing {
                    let gone = self.children.remove(at);
                    self.ended(context, gone.attempt);
                } else if let Some(uid) = self.speaking_sa(ike) {
                    self.close_child(now, spi);
                    self.begin(context, uid, Note { spi, ..Note::new(Op::DeleteChild, self.client) });
                } else {
                    let gone = self.children.remove(at);
                    self.ended(context, gone.attempt);
                }
                continue;
            }
            if child.renew_at.is_some_and(|at| at <= now) {
                child.renew_at = None;
                let ike = child.ike;
                // Simultaneous Quick Modes leave two SAs; the older one is left to expire.
                let newer = at + 1 < self.children.len() && !self.dialect.v2;
                if self.children[at].rekeyed || self.children[at].closing || newer {
                    continue;
                }
                match self.speaking_sa(ike) {
                    Some(uid) => self.begin_child(context, uid, spi),
                    None => self.children[at].renew_at = Some(now + Duration::from_secs(5)),
                }
            }
        }
    }

    /// Sends again what waits for an answer; gives up where that was done often enough.
    fn retransmit(&mut self, context: &mut Context<'_>, uid: u32) {
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

    fn receive_ike(&mut self, context: &mut Context<'_>, from: (Ipv4Addr, u16), head: &Head, note: &Note) {
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

    /// What a message does and what is answered.
    fn act(
        &mut self,
        context: &mut Context<'_>,
        uid: u32,
        exchange: &mut Exchange,
        got: &Note,
    ) -> Option<Note> {
        let now = context.now;
        let mut reply = Note::new(got.op, self.client);
        reply.fresh = got.fresh;
        reply.initial_contact = got.fresh && self.profile.initial_contact && self.side == Side::Client;
        match got.op {
            Op::Phase1 => {
                if !self.dialect.v2 && got.step + 1 >= self.messages(Op::Phase1) {
                    self.ike_up(context, uid, got);
                }
                (got.step < self.messages(Op::Phase1)).then_some(reply)
            }
            Op::Auth => self.act_auth(context, uid, exchange, got, reply),
            Op::Xauth => (got.step < 4).then_some(reply),
            Op::ModeCfg | Op::Dpd => (got.step < 2).then_some(reply),
            Op::Child if self.dialect.v2 => self.act_create_child(context, uid, exchange, got, reply),
            Op::Child => {
                match got.step {
                    1 => {
                        reply.spi = self.new_spi(context);
                        exchange.note.old = reply.spi;
                        self.add_child(context, uid, got.attempt, reply.spi, got.spi, false);
                    }
                    2 => {
                        self.mark_rekeyed(now, exchange.note.old, true);
                        self.add_child(context, uid, got.attempt, exchange.note.spi, got.spi, true);
                    }
                    _ => {
                        let spi = exchange.note.old;
                        if self.children.iter().any(|child| child.spi_in == spi) {
                            self.mark_rekeyed_but(spi);
                            self.allow(spi);
                        }
                    }
                }
                (got.step < 3).then_some(reply)
            }
            Op::RekeyIke => self.act_rekey_ike(context, uid, exchange, got, reply),
            Op::DeleteChild => {
                if got.step == 1 {
                    let mine =
                        self.children.iter().find(|child| child.spi_out == got.spi).map(|child| child.spi_in);
                    if let Some(spi) = mine {
                        self.close_child(now, spi);
                    }
                    // RFC 7296 section 2.8: the old SA is gone, so the new one may be sent on.
                    let ready: Vec<u32> =
                        self.children.iter().filter(|c| !c.closing).map(|c| c.spi_in).collect();
                    if self.dialect.v2 {
                        ready.into_iter().for_each(|spi| self.allow(spi));
                    }
                }
                (self.dialect.v2 && got.step == 1).then_some(reply)
            }
            // The SA goes in `settle`, after the answer.
            Op::DeleteIke => (self.dialect.v2 && got.step == 1).then_some(reply),
            Op::Ask | Op::Answer | Op::Fetch | Op::Data | Op::Ack | Op::Push => None,
        }
    }

    fn act_auth(
        &mut self,
        context: &mut Context<'_>,
        uid: u32,
        exchange: &Exchange,
        got: &Note,
        mut reply: Note,
    ) -> Option<Note> {
        if got.step == 1 {
            let rounds = self.dialect.auth_rounds;
            let sa = self.sa_mut(uid)?;
            sa.auth_round += 1;
            if sa.auth_round == 1 {
                sa.offered = (got.spi, got.attempt);
            }
            if sa.auth_round == rounds {
                let (spi_out, attempt) = sa.offered;
                self.ike_up(context, uid, got);
                reply.spi = self.new_spi(context);
                reply.attempt = attempt;
                self.add_child(context, uid, attempt, reply.spi, spi_out, true);
            }
            return Some(reply);
        }
        if got.spi != 0 {
            self.ike_up(context, uid, got);
            let (spi_in, attempt) = self.sa(uid)?.offered;
            debug_assert_eq!(attempt, exchange.note.attempt);
            self.add_child(context, uid, attempt, spi_in, got.spi, true);
        }
        None
    }

    fn act_create_child(
        &mut self,
        context: &mut Context<'_>,
        uid: u32,
        exchange: &mut Exchange,
        got: &Note,
        mut reply: Note,
    ) -> Option<Note> {
        let now = context.now;
        if got.step == 1 {
            let old = self.children.iter().find(|child| child.spi_out == got.old && child.ike == uid);
            let busy = self
                .sa(uid)?
                .exchanges
                .iter()
                .any(|e| e.mine && e.op == Op::RekeyIke && e.retry_at.is_some());
            let (old, eager) = match (got.old, old) {
                (0, _) => (None, true),
                (_, None) => {
                    reply.verdict = Verdict::ChildSaNotFound;
                    return Some(reply);
                }
                (_, Some(child)) if child.closing || busy => {
                    reply.verdict = Verdict::TemporaryFailure;
                    return Some(reply);
                }
                (_, Some(child)) => (Some(child.spi_in), self.profile.eager),
            };
            reply.spi = self.new_spi(context);
            reply.nonce = self.dice.next();
            if let Some(old) = old {
                let lower = reply.nonce.min(got.nonce);
                let sa = self.sa_mut(uid)?;
                sa.queue.retain(|note| note.op != Op::Child || note.old != old);
                let mine =
                    sa.exchanges.iter_mut().find(|e| e.mine && e.retry_at.is_some() && e.note.old == old);
                if let Some(mine) = mine.filter(|mine| mine.op == Op::Child) {
                    mine.rival = Some(lower);
                    context.tally.totals.simultaneous += 1;
                }
                self.mark_rekeyed(now, old, false);
            }
            self.add_child(context, uid, got.attempt, reply.spi, got.spi, eager);
            return Some(reply);
        }
        let Note { old, spi, nonce, attempt, .. } = exchange.note;
        match got.verdict {
            Verdict::Fine => {}
            Verdict::TemporaryFailure => {
                self.renew_later(now, old);
                return None;
            }
            Verdict::ChildSaNotFound => {
                // The other end is ahead, by a rekey of its own or of the IKE SA.
                self.renew_later(now, old);
                if !self.can_send() {
                    self.begin_child(context, uid, 0);
                }
                return None;
            }
        }
        let mine_is_redundant = exchange.rival.is_some_and(|rival| nonce.min(got.nonce) < rival);
        self.add_child(context, uid, attempt, spi, got.spi, true);
        let goes = if mine_is_redundant {
            spi
        } else {
            self.mark_rekeyed_but(spi);
            old
        };
        if self.children.iter().any(|child| child.spi_in == goes && !child.closing) {
            self.close_child(now, goes);
            self.begin(context, uid, Note { spi: goes, ..Note::new(Op::DeleteChild, self.client) });
        }
        None
    }

    fn act_rekey_ike(
        &mut self,
        context: &mut Context<'_>,
        uid: u32,
        exchange: &Exchange,
        got: &Note,
        mut reply: Note,
    ) -> Option<Note> {
        let sa = self.sa(uid)?;
        let remote = sa.remote;
        if got.step == 1 {
            // RFC 7296 section 2.25.2: not while a child SA is being made or closed.
            if sa.replaced || sa.exchanges.iter().any(|e| e.mine && e.retry_at.is_some() && e.op != Op::Dpd) {
                reply.verdict = Verdict::TemporaryFailure;
                return Some(reply);
            }
            reply.ike = self.dice.next();
            self.renew_ike(context, uid, got.ike, reply.ike, false, remote);
            return Some(reply);
        }
        if got.verdict == Verdict::Fine {
            self.renew_ike(context, uid, exchange.note.ike, got.ike, true, remote);
            self.begin(context, uid, Note::new(Op::DeleteIke, self.client));
        } else {
            let later = context.now + self.dice.ms(2_000, 10_000);
            self.sa_mut(uid)?.renew_at = Some(later);
        }
        None
    }

    fn renew_ike(
        &mut self,
        context: &mut Context<'_>,
        uid: u32,
        spi_i: u64,
        spi_r: u64,
        initiator: bool,
        remote: (Ipv4Addr, u16),
    ) {
        context.tally.totals.ike_renewals += u64::from(initiator);
        let at = self.add_sa(context.now, spi_i, spi_r, initiator, false, remote);
        let new = self.sas[at].uid;
        self.lives(context.now, new);
        for child in self.children.iter_mut().filter(|child| child.ike == uid) {
            child.ike = new;
        }
        if let Some(old) = self.sa_mut(uid) {
            old.replaced = true;
            let waiting: VecDeque<Note> = old.queue.drain(..).collect();
            old.ends_at = context.now + LINGER_IKE;
            self.sas[at].queue = waiting;
            self.next_request(context, new);
        }
    }

    /// What follows from a message once it is answered.
    fn settle(&mut self, context: &mut Context<'_>, uid: u32, got: &Note) {
        match (got.op, self.side) {
            (Op::Phase1, Side::Client) if self.dialect.v2 && got.step == 2 => {
                let spi = self.new_spi(context);
                let attempt = self.new_attempt(context, false);
                if let Some(sa) = self.sa_mut(uid) {
                    sa.offered = (spi, attempt);
                }
                self.begin_auth(context, uid);
            }
            (Op::Auth, Side::Client) if got.step == 2 && got.spi == 0 => self.begin_auth(context, uid),
            (Op::Phase1, Side::Server) if self.starts_xauth(uid, got) => {
                self.begin(context, uid, Note::new(Op::Xauth, self.client));
            }
            (Op::Phase1, Side::Client) if self.starts_child(uid) => self.begin_child(context, uid, 0),
            (Op::Xauth, Side::Client) if got.step == 3 => {
                self.begin(context, uid, Note::new(Op::ModeCfg, self.client));
            }
            (Op::ModeCfg, Side::Client) => self.begin_child(context, uid, 0),
            (Op::DeleteIke, _) => {
                if self.sa(uid).is_some_and(|sa| !sa.replaced) && got.step == 1 {
                    let ike = uid;
                    for child in std::mem::take(&mut self.children) {
                        if child.ike == ike {
                            self.ended(context, child.attempt);
                        } else {
                            self.children.push(child);
                        }
                    }
                    if let Some(sa) = self.sa_mut(uid) {
                        sa.replaced = true;
                    }
                }
                if got.step == 2 || !self.dialect.v2 {
                    self.drop_sa(context, uid);
                } else {
                    if let Some(sa) = self.sa_mut(uid) {
                        sa.ends_at = context.now + LINGER_IKE;
                    }
                    self.note_down();
                }
            }
            _ => {}
        }
    }

    /// RFC order: the server asks for the user after phase 1, on a new connection only.
    fn starts_xauth(&self, uid: u32, got: &Note) -> bool {
        self.dialect.xauth
            && !self.dialect.v2
            && got.step + 1 >= self.messages(Op::Phase1)
            && self.sa(uid).is_some_and(|sa| sa.up && sa.fresh)
    }

    fn starts_child(&self, uid: u32) -> bool {
        !self.dialect.xauth
            && !self.dialect.v2
            && self.sa(uid).is_some_and(|sa| sa.up && sa.fresh && sa.initiator)
    }

    /// Phase 1 or the authentication is complete.
    fn ike_up(&mut self, context: &mut Context<'_>, uid: u32, got: &Note) {
        let now = context.now;
        self.lives(now, uid);
        let Some(sa) = self.sa(uid) else { return };
        let (fresh, initiator) = (sa.fresh, sa.initiator);
        if self.side == Side::Server && fresh && (got.initial_contact || self.profile.replaces) {
            for old in self.uids().into_iter().filter(|&old| old != uid) {
                self.drop_sa(context, old);
            }
            for child in std::mem::take(&mut self.children) {
                self.ended(context, child.attempt);
            }
        }
        if !fresh {
            // IKEv1 phase 1 anew: the child SAs stay, the old IKE SA goes.
            for old in self.uids().into_iter().filter(|&old| old < uid) {
                if let Some(sa) = self.sa_mut(old) {
                    // The last message of the new one may be lost: the old one is deleted a little later.
                    sa.farewell = initiator && !sa.replaced;
                    sa.replaced = true;
                    sa.ends_at = sa.ends_at.min(now + if initiator { LINGER_IKE / 3 } else { LINGER_IKE });
                }
            }
            context.tally.totals.ike_renewals += u64::from(initiator);
            for child in &mut self.children {
                child.ike = uid;
            }
        }
    }

    fn lives(&mut self, now: Duration, uid: u32) {
        let profile = self.profile;
        let spread = self.dice.ms(0, 2_000);
        self.heard = now;
        if let Some(sa) = self.sa_mut(uid) {
            sa.up = true;
            sa.renew_at = profile.ike_renewal.map(|age| now + age + spread);
            sa.ends_at = now + profile.ike_life;
        }
    }

    fn begin_phase1(&mut self, context: &mut Context<'_>, fresh: bool, remote: (Ipv4Addr, u16)) {
        let spi_i = self.dice.next() | 1;
        let at = self.add_sa(context.now, spi_i, 0, true, fresh, remote);
        let uid = self.sas[at].uid;
        // Until it is up its retransmissions end it.
        self.sas[at].ends_at = context.now + Duration::from_secs(600);
        let initial_contact = fresh && self.profile.initial_contact;
        self.begin(context, uid, Note { fresh, initial_contact, ..Note::new(Op::Phase1, self.client) });
    }

    fn begin_auth(&mut self, context: &mut Context<'_>, uid: u32) {
        let initial_contact = self.profile.initial_contact;
        let Some(sa) = self.sa(uid) else { return };
        let (spi, attempt) = sa.offered;
        self.begin(context, uid, Note { spi, attempt, initial_contact, ..Note::new(Op::Auth, self.client) });
    }

    /// A new child SA in place of the one with this inbound SPI; 0 for the first.
    fn begin_child(&mut self, context: &mut Context<'_>, uid: u32, old: u32) {
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

    fn begin(&mut self, context: &mut Context<'_>, uid: u32, note: Note) {
        if let Some(sa) = self.sa_mut(uid) {
            sa.queue.push_back(note);
            self.next_request(context, uid);
        }
    }

    /// Sends what waits; IKEv2 has a window of one request (RFC 7296 section 2.3).
    fn next_request(&mut self, context: &mut Context<'_>, uid: u32) {
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
            true => u8::from(sa.initiator) * INITIATOR | u8::from(!exchange.mine) * RESPONSE,
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

    fn messages(&self, op: Op) -> u8 {
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

    fn add_sa(
        &mut self,
        now: Duration,
        spi_i: u64,
        spi_r: u64,
        initiator: bool,
        fresh: bool,
        remote: (Ipv4Addr, u16),
    ) -> usize {
        self.next_uid += 1;
        self.sas.push(IkeSa {
            uid: self.next_uid,
            spi_i,
            spi_r,
            initiator,
            up: false,
            replaced: false,
            fresh,
            farewell: false,
            remote,
            next_id: 0,
            expected_id: 0,
            auth_round: 0,
            offered: (0, 0),
            exchanges: Vec::new(),
            queue: VecDeque::new(),
            renew_at: None,
            ends_at: now + LINGER_IKE * 4,
        });
        self.sas.len() - 1
    }

    fn add_child(
        &mut self,
        context: &mut Context<'_>,
        uid: u32,
        attempt: u32,
        spi_in: u32,
        spi_out: u32,
        can_send: bool,
    ) {
        let now = context.now;
        let spread = self.dice.ms(0, 500);
        self.children.push(Child {
            ike: uid,
            attempt,
            spi_in,
            spi_out,
            sent: 0,
            can_send,
            rekeyed: false,
            closing: false,
            renew_at: self.profile.child_renewal.map(|age| now + age + spread),
            delete_at: None,
            ends_at: now + self.profile.child_life,
        });
        if self.side == Side::Client {
            context.tally.client_installs(now, attempt);
        }
        self.came_up |= can_send;
    }

    fn allow(&mut self, spi: u32) {
        if let Some(child) = self.children.iter_mut().find(|child| child.spi_in == spi && !child.can_send) {
            child.can_send = true;
            self.came_up = true;
        }
    }

    /// The SA is renewed; in IKEv1 the renewer deletes it after a while.
    fn mark_rekeyed(&mut self, now: Duration, spi: u32, deletes: bool) {
        let delay = self.dice.secs(5, 30);
        if let Some(child) = self.children.iter_mut().find(|child| child.spi_in == spi) {
            child.rekeyed = true;
            if deletes {
                child.delete_at = Some(now + delay);
            }
        }
    }

    fn mark_rekeyed_but(&mut self, spi: u32) {
        if let Some(at) = self.children.iter().position(|child| child.spi_in == spi) {
            self.children[..at].iter_mut().for_each(|child| child.rekeyed = true);
        }
    }

    fn close_child(&mut self, now: Duration, spi: u32) {
        let tail = self.profile.child_tail;
        if let Some(child) = self.children.iter_mut().find(|child| child.spi_in == spi && !child.closing) {
            (child.closing, child.can_send, child.ends_at) = (true, false, now + tail);
            (child.renew_at, child.delete_at) = (None, None);
        }
    }

    fn renew_later(&mut self, now: Duration, spi: u32) {
        let wait = self.dice.ms(2_000, 10_000);
        let child =
            self.children.iter_mut().find(|child| child.spi_in == spi && !child.rekeyed && !child.closing);
        if let Some(child) = child {
            child.renew_at = Some(now + wait);
        }
    }

    fn drop_sa(&mut self, context: &mut Context<'_>, uid: u32) {
        self.sas.retain(|sa| sa.uid != uid);
        if self.dialect.v2 {
            for child in std::mem::take(&mut self.children) {
                if child.ike == uid {
                    self.ended(context, child.attempt);
                } else {
                    self.children.push(child);
                }
            }
        }
        self.note_down();
    }

    fn note_down(&mut self) {
        if self.sas.iter().all(|sa| sa.replaced) {
            self.went_down = true;
        }
    }

    fn ended(&self, context: &mut Context<'_>, attempt: u32) {
        if self.side == Side::Client {
            context.tally.client_ends(context.now, attempt);
        }
    }

    /// The IKE SA to speak on about a child of this one.
    fn speaking_sa(&self, ike: u32) -> Option<u32> {
        let speaks = |sa: &&IkeSa| sa.up && !sa.replaced && (!self.dialect.v2 || sa.uid == ike);
        self.sas.iter().rev().find(speaks).map(|sa| sa.uid)
    }

    fn new_attempt(&mut self, context: &mut Context<'_>, rekey: bool) -> u32 {
        context.tally.attempt(
            self.client,
            self.side == Side::Server,
            rekey,
            context.round_trip,
            self.profile.retry.first,
        )
    }

    fn new_spi(&mut self, context: &mut Context<'_>) -> u32 {
        loop {
            let spi = self.dice.word();
            // RFC 4303 section 2.1: 0 to 255 are reserved.
            if spi > 255 && (self.side == Side::Client || context.spis.insert(spi)) {
                return spi;
            }
        }
    }

    fn uids(&self) -> Vec<u32> {
        self.sas.iter().map(|sa| sa.uid).collect()
    }

    fn sa(&self, uid: u32) -> Option<&IkeSa> {
        self.sas.iter().find(|sa| sa.uid == uid)
    }

    fn sa_mut(&mut self, uid: u32) -> Option<&mut IkeSa> {
        self.sas.iter_mut().find(|sa| sa.uid == uid)
    }
}
