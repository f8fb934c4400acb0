//! A queue's thread: packet in, decision, verdict out.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nat_core::decision::{Admission, ChecksumState, Decision, Effect, HoldId, Outcome};
use nat_core::nat::Origin;

use super::{RunError, Shared};
use crate::engine::{Arrival, Stage};
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
    conntrack: Mutex<Conntrack>,
    held: Mutex<BTreeMap<HoldId, Held>>,
    /// Conntrack entries that the kernel did not take.
    pub(super) admit_failed: AtomicCounter,
}

/// A packet that waits in the kernel, and what is needed to let it go changed.
struct Held {
    ticket: Ticket,
    bytes: Vec<u8>,
    checksum: ChecksumState,
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
    pub(super) fn new(transmitter: Transmitter, releasers: Vec<Releaser>, conntrack: Conntrack) -> Self {
        Self {
            transmitter,
            releasers,
            conntrack: Mutex::new(conntrack),
            held: Mutex::default(),
            admit_failed: AtomicCounter::default(),
        }
    }

    /// Packets of natd's own are cut to this size, in bytes.
    pub(super) fn set_mtu(&self, mtu: usize) {
        self.transmitter.set_mtu(mtu);
    }

    /// To be called while the NAT is still locked: its release may follow at once.
    fn keep(&self, hold: HoldId, packet: &Packet) {
        let held =
            Held { ticket: packet.ticket(), bytes: packet.bytes().to_vec(), checksum: packet.checksum() };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(hold, held);
    }

    /// Carries out everything that the NAT wants by now.
    pub(super) fn carry_out_all(&self, shared: &Shared) {
        loop {
            let effect = shared.engine().nat.poll_effect();
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
            Effect::Admit(admission) => {
                let mut conntrack = self.conntrack.lock().unwrap_or_else(PoisonError::into_inner);
                self.admit(&mut conntrack, admission);
            }
            Effect::Release { hold, outcome } => self.release(*hold, outcome),
        }
    }

    fn release(&self, hold: HoldId, outcome: &Outcome) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&hold);
        let Some(Held { ticket, mut bytes, checksum }) = held else { return };
        if let Outcome::Forward(forward) = outcome {
            if let Some(admission) = &forward.admission {
                self.carry_out(&Effect::Admit(*admission));
            }
            forward.carry_out(&mut bytes, checksum);
        }
        for releaser in &self.releasers {
            let released = match outcome {
                Outcome::Pass => releaser.release(ticket, Release::Accept),
                Outcome::Drop => releaser.release(ticket, Release::Refuse),
                Outcome::Forward(_) => releaser.release_modified(ticket, &bytes),
            };
            if let Err(error) = released {
                log::debug!("a held packet was not released: {error}");
            }
        }
    }

    /// Without its conntrack entry a packet would meet the firewall as a stranger's.
    fn admit(&self, conntrack: &mut Conntrack, admission: &Admission) {
        log::trace!("admitted: {}", admission.original);
        if let Err(error) = conntrack.admit(admission) {
            let failures = self.admit_failed.raise();
            if failures.is_power_of_two() {
                log::warn!(
                    "conntrack does not take {} ({failures} failures so far): {error}",
                    admission.original
                );
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
        let (decision, effect, news) = {
            let mut engine = self.shared.engine();
            let decision = engine.decide(now, &arrival);
            if let Decision::Hold(hold) = decision {
                self.shared.carrier.keep(hold, &packet);
            }
            (decision, engine.nat.poll_effect(), engine.vpn.tells_news())
        };
        match decision {
            Decision::Forward(forward) => {
                if let Some(admission) = &forward.admission {
                    self.shared.carrier.admit(&mut self.conntrack, admission);
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
        if news {
            self.shared.news.raise();
        }
        if let Some(effect) = effect {
            self.shared.carrier.carry_out(&effect);
            self.shared.carrier.carry_out_all(&self.shared);
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
