//! What messages do: SAs come up, are renewed and go.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Context, Exchange, LINGER_IKE, Peer, Side};
use crate::wire::{Note, Op, Verdict};

impl Peer {
    /// What a message does and what is answered.
    pub(super) fn act(
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
    pub(super) fn settle(&mut self, context: &mut Context<'_>, uid: u32, got: &Note) {
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
}
