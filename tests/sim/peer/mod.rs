//! One end of the IKE and ESP association between one client and the server, client's or server's.
//!
//! Written from RFC 2409 (main, aggressive and quick mode), draft-beaulieu-ike-xauth, RFC 3706 and RFC 7296
//! (message ids 2.2, rekeying 2.8, simultaneous rekeying 2.8.1, refusals 2.25), with the timers of real
//! programs. Both ends are the same code with another [`Side`]; authentication and encryption are not
//! simulated, but a host believes nothing that names an SA it does not have.

mod action;
mod exchange;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::clock::Dice;
use crate::tally::Tally;
use crate::wire::{self, Body, IKE_PORT, Note, Op, Packet};

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
