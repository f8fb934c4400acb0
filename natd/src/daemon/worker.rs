//! A queue's thread: packet in, decision, verdict out.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nat_core::decision::{Admission, Decision, Effect, HoldId};
use nat_core::nat::Origin;

use super::{RunError, Shared};
use crate::engine::{self, Arrival, Stage};
use crate::io::clock;
use crate::io::conntrack::Conntrack;
use crate::io::nfqueue::{Hook, Packet, Queue, Release, Releaser, Ticket};
use crate::io::poll::{Wake, wait};
use crate::io::transmit::Transmitter;
use crate::rules::{LOCAL_SOCKET, MARK_MASK, Mark};

/// Carries out what the NAT wants beside verdicts, for whichever thread comes by.
pub(crate) struct Carrier {
    transmitter: Transmitter,
    releasers: Vec<Releaser>,
    held: Mutex<BTreeMap<HoldId, Ticket>>,
    /// Conntrack entries that the kernel did not take.
    pub(super) admit_failed: AtomicCounter,
}

/// A counter that any thread may raise. 32-bit routers have no 64-bit atomics.
#[derive(Debug, Default)]
pub(crate) struct AtomicCounter(Mutex<u64>);

impl AtomicCounter {
    pub(crate) fn raise(&self) -> u64 {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        *count
    }

    pub(crate) fn value(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Carrier {
    pub(super) fn new(transmitter: Transmitter, releasers: Vec<Releaser>) -> Self {
        Self { transmitter, releasers, held: Mutex::default(), admit_failed: AtomicCounter::default() }
    }

    /// To be called while the NAT is still locked: its release may follow at once.
    fn keep(&self, hold: HoldId, ticket: Ticket) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(hold, ticket);
    }

    /// Carries out everything that the NAT wants by now.
    pub(super) fn carry_out_all(&self, shared: &Shared) {
        loop {
            let effect = shared.nat().poll_effect();
            match effect {
                Some(effect) => self.carry_out(&effect),
                None => return,
            }
        }
    }

    fn carry_out(&self, effect: &Effect) {
        match effect {
            Effect::Transmit(packet) => {
                if let Err(error) = self.transmitter.send(packet) {
                    log::debug!("a packet of natd's own was not sent: {error}");
                }
            }
            Effect::Release { hold, pass } => {
                let ticket = self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(hold);
                let release = if *pass { Release::Accept } else { Release::Refuse };
                for releaser in ticket.iter().flat_map(|_| &self.releasers) {
                    let Some(ticket) = ticket else { return };
                    if let Err(error) = releaser.release(ticket, release) {
                        log::debug!("a held packet was not released: {error}");
                    }
                }
            }
        }
    }
}

/// One thread for each queue; they end when `stop` is raised and their queue is empty.
pub(super) fn spawn(
    queues: Vec<Queue>,
    shared: &Arc<Shared>,
    stop: &Wake,
) -> Result<Vec<JoinHandle<()>>, RunError> {
    let failed = |error| RunError::System("start a queue's thread", error);
    queues
        .into_iter()
        .map(|queue| {
            let (shared, stop) = (Arc::clone(shared), stop.share().map_err(failed)?);
            let worker = Worker { queue, conntrack: Conntrack::open()?, shared };
            thread::Builder::new()
                .name(format!("queue-{}", worker.queue.number()))
                .spawn(move || {
                    let number = worker.queue.number();
                    if let Err(error) = worker.run(&stop) {
                        log::error!("queue {number} cannot be read any more: {error}");
                    }
                })
                .map_err(failed)
        })
        .collect()
}

struct Worker {
    queue: Queue,
    conntrack: Conntrack,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self, stop: &Wake) -> io::Result<()> {
        loop {
            while let Some(packet) = self.queue.next()? {
                self.handle(packet);
            }
            self.flush();
            let ready = wait(&[self.queue.fd(), stop.fd()], None)?;
            if ready == [false, true] {
                return Ok(());
            }
        }
    }

    /// Sends the verdicts collected so far.
    fn flush(&mut self) {
        if let Err(error) = self.queue.flush() {
            log::debug!("verdicts were not taken: {error}");
        }
    }

    fn handle(&mut self, mut packet: Packet) {
        let Some(stage) = self.stage(&packet) else {
            log::debug!("a packet came from a rule that is not natd's");
            self.queue.refuse(packet);
            return;
        };
        let arrival = Arrival { stage, bytes: packet.bytes(), truncated: packet.truncated() };
        let now = clock::now();
        let (decision, effect) = {
            let mut nat = self.shared.nat();
            let decision = engine::decide(&mut nat, now, &arrival);
            if let Decision::Hold(hold) = decision {
                self.shared.carrier.keep(hold, packet.ticket());
            }
            (decision, nat.poll_effect())
        };
        match decision {
            Decision::Forward(forward) => {
                if let Some(admission) = &forward.admission {
                    self.admit(admission);
                }
                let state = packet.checksum();
                forward.carry_out(packet.bytes_mut(), state);
                if forward.resend {
                    // The first one of the burst goes first: kernels before 6.9 look a changed packet up anew, and
                    // would take it for a part of the flow that the copy begins.
                    self.flush();
                    self.shared.carrier.carry_out(&Effect::Transmit(packet.bytes().to_vec()));
                    self.queue.refuse(packet);
                } else {
                    let mark = forward.hairpin.then(|| (packet.mark() & !MARK_MASK) | Mark::Hairpin.bits());
                    self.queue.accept_modified(packet, mark);
                }
            }
            Decision::Pass => self.queue.accept(packet, None),
            Decision::Hold(_) => {
                self.queue.hold(packet);
            }
            Decision::Drop(reason) => {
                log::trace!("dropped: {}", reason.name());
                self.queue.refuse(packet);
            }
        }
        if let Some(effect) = effect {
            self.shared.carrier.carry_out(&effect);
            self.shared.carrier.carry_out_all(&self.shared);
        }
    }

    /// Without its conntrack entry the packet would meet the firewall as a stranger's.
    fn admit(&mut self, admission: &Admission) {
        log::trace!("admitted: {}", admission.original);
        if let Err(error) = self.conntrack.admit(admission) {
            let failures = self.shared.carrier.admit_failed.raise();
            if failures.is_power_of_two() {
                log::warn!(
                    "conntrack does not take {} ({failures} failures so far): {error}",
                    admission.original
                );
            }
        }
    }

    fn stage(&self, packet: &Packet) -> Option<Stage> {
        let mark = Mark::of(packet.mark());
        match packet.hook() {
            Hook::Prerouting if packet.indev() == Some(self.shared.wan_index()) => {
                Some(Stage::FromWan { local_socket: packet.mark() & LOCAL_SOCKET != 0 })
            }
            Hook::Prerouting => Some(Stage::HairpinIn),
            Hook::Input => Some(Stage::Unclaimed),
            Hook::Postrouting => match mark? {
                Mark::Forwarded => Some(Stage::ToWan(Origin::Lan)),
                Mark::Own => Some(Stage::ToWan(Origin::Router)),
                Mark::Hairpin => Some(Stage::HairpinOut),
                Mark::Final | Mark::Unwanted => None,
            },
            Hook::Forward | Hook::Output | Hook::Other(_) => None,
        }
    }
}
