//! Packets from the kernel's queues, and verdicts back.
//!
//! The `nfq` crate opens, binds and configures a queue and receives its packets. Three things it does not do,
//! and this module does on the same socket: raise the receive buffer (the default holds two or three trains of
//! segments), let the caller poll, and answer many packets with one system call.
//!
//! A packet's way:
//!
//! 1. [`Queue::next`] receives it. It lies in the crate's buffer of about 70 KiB, which is used again for the
//!    next one if no [`Packet`] is kept; so decide, answer, then ask for the next.
//! 2. [`Queue::accept`], [`Queue::accept_modified`] or [`Queue::refuse`] puts the answer into a batch, or
//!    [`Queue::hold`] keeps the packet in the kernel until [`Queue::release`].
//! 3. The batch goes out when it is full. When `next` has nothing more, call [`Queue::flush`] before waiting.
//!
//! Configure before any rule sends packets: the crate discards what arrives during its configuration.
//!
//! Large packets (GSO): the kernel hands over trains of segments and unfinished checksums;
//! [`Packet::checksum`] says which. What has been cut off for lack of room can not be answered with a payload,
//! since that would replace the whole packet: see [`Packet::truncated`].

mod open;
mod stats;
mod verdicts;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nat_core::decision::ChecksumState;

pub use open::{OpenError, Trains};
pub use stats::QueueStats;
use verdicts::{Answer, Verdicts};

/// More errors in a row than this are left for the next call, so that one call always ends.
const ERRORS_IN_A_ROW: usize = 64;

/// Which way through the kernel a packet was on when it was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Just arrived.
    Prerouting,
    /// For the router itself.
    Input,
    /// Passing through.
    Forward,
    /// From the router itself.
    Output,
    /// About to leave.
    Postrouting,
    /// A number that IPv4 does not have.
    Other(u8),
}

/// A packet that waits in the kernel for its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The queue that it is in.
    pub queue: u16,
    /// The queue's number for it.
    pub id: u32,
}

/// What becomes of a held packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It goes on as it is.
    Accept,
    /// It is dropped.
    Refuse,
}

/// What went wrong on a queue since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueErrors {
    /// Times the kernel said that packets did not fit into the receive buffer.
    pub overruns: u64,
    /// Verdicts for packets that the kernel had given up meanwhile (its interface went away).
    pub stale: u64,
    /// Packets dropped because the kernel did not take their verdicts (out of memory).
    pub lost: u64,
    /// Changed packets dropped because only a part of them had been received.
    pub truncated: u64,
}

/// One queue. Belongs to one thread at a time.
pub struct Queue {
    // Dropped first, so that the last verdicts go out while the socket is open.
    verdicts: Verdicts,
    socket: nfq::Queue,
    number: u16,
    errors: QueueErrors,
}

impl Queue {
    /// Takes queue `number`: whole packets, `trains` of segments as told, at most `max_len` waiting.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(number: u16, max_len: u32, trains: Trains) -> Result<Self, OpenError> {
        let (socket, fd) = open::open(number, max_len, trains)?;
        Ok(Self { verdicts: Verdicts::new(fd), socket, number, errors: QueueErrors::default() })
    }

    /// The queue's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Readable when a packet is there.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.verdicts.fd()
    }

    /// The next packet, or `None` when none is there. Never waits.
    ///
    /// # Errors
    /// What the kernel says of the socket; passing disturbances are counted in [`Queue::errors`] instead.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and a queue has no end")]
    pub fn next(&mut self) -> io::Result<Option<Packet>> {
        for _ in 0..ERRORS_IN_A_ROW {
            let error = match self.socket.recv() {
                Ok(message) => return Ok(Some(Packet { message })),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(None),
                Some(libc::EINTR) => {}
                Some(libc::ENOBUFS) => self.errors.overruns += 1,
                // The answer to a verdict, not to this call.
                Some(libc::ENOENT) => self.errors.stale += 1,
                _ => return Err(error),
            }
        }
        Ok(None)
    }

    /// The packet goes on as it came; `mark` replaces its whole mark.
    pub fn accept(&mut self, packet: Packet, mark: Option<u32>) {
        self.answer(packet.ticket(), Answer::Accept { mark, payload: None });
    }

    /// The packet goes on with the bytes that it has now; `mark` replaces its whole mark. One that was not
    /// received whole is dropped and counted, because it would leave cut off.
    pub fn accept_modified(&mut self, packet: Packet, mark: Option<u32>) {
        if packet.truncated() {
            self.errors.truncated += 1;
            self.answer(packet.ticket(), Answer::Refuse);
        } else {
            self.answer(packet.ticket(), Answer::Accept { mark, payload: Some(packet.bytes()) });
        }
    }

    /// The packet is dropped.
    pub fn refuse(&mut self, packet: Packet) {
        self.answer(packet.ticket(), Answer::Refuse);
    }

    /// The packet stays in the kernel, counted against the queue's length, until it is released.
    pub fn hold(&mut self, packet: Packet) -> Ticket {
        packet.ticket()
    }

    /// Decides on a packet that was held. A second release of one ticket only counts as stale.
    pub fn release(&mut self, ticket: Ticket, release: Release) {
        self.answer(ticket, release.into());
    }

    /// Sends the verdicts that have been collected.
    ///
    /// # Errors
    /// When the kernel did not take them: their packets are dropped and counted as lost.
    pub fn flush(&mut self) -> io::Result<()> {
        self.verdicts.flush().inspect_err(|_| self.errors.lost = self.verdicts.lost())
    }

    /// What went wrong so far.
    pub fn errors(&self) -> QueueErrors {
        QueueErrors { lost: self.verdicts.lost(), ..self.errors }
    }

    /// A way for another thread to release held packets. The kernel takes verdicts from this queue's socket
    /// only, so it shares that, and the queue stays bound until both are gone.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn releaser(&self) -> io::Result<Releaser> {
        Ok(Releaser { fd: self.fd().try_clone_to_owned()?, queue: self.number })
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer<'_>) {
        // A failure is counted by the batch and the packets are dropped: nothing that the caller could add.
        let _ = self.verdicts.push(ticket, answer);
    }
}

/// Releases held packets of one queue from any thread.
#[derive(Debug)]
pub struct Releaser {
    fd: OwnedFd,
    queue: u16,
}

impl Releaser {
    /// Decides on a packet that was held, at once. Tickets of other queues are ignored.
    ///
    /// # Errors
    /// When the kernel did not take the verdict: the packet is still held.
    pub fn release(&self, ticket: Ticket, release: Release) -> io::Result<()> {
        if ticket.queue != self.queue {
            return Ok(());
        }
        verdicts::send_one(self.fd.as_raw_fd(), ticket, release.into())
    }

    /// A packet that was held goes on with these bytes, at once. Tickets of other queues are ignored.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub fn release_modified(&self, ticket: Ticket, bytes: &[u8]) -> io::Result<()> {
        if ticket.queue != self.queue {
            return Ok(());
        }
        let answer = Answer::Accept { mark: None, payload: Some(bytes) };
        verdicts::send_one(self.fd.as_raw_fd(), ticket, answer)
    }
}

impl AsFd for Releaser {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Release> for Answer<'_> {
    fn from(release: Release) -> Self {
        match release {
            Release::Accept => Self::Accept { mark: None, payload: None },
            Release::Refuse => Self::Refuse,
        }
    }
}

/// A packet as the kernel handed it over. Answer it; one that is merely dropped stays in the kernel, held.
#[must_use = "a packet without a verdict stays in the kernel"]
pub struct Packet {
    message: nfq::Message,
}

impl Packet {
    /// The packet from its IPv4 header on; cut off at the end when it is truncated.
    pub fn bytes(&self) -> &[u8] {
        self.message.get_payload()
    }

    /// The same, to change in place; [`Queue::accept_modified`] sends it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.message.get_payload_mut()
    }

    /// What the kernel left open in the transport checksum.
    pub fn checksum(&self) -> ChecksumState {
        match (self.message.is_checksum_ready(), self.message.is_seg_offloaded()) {
            (true, false) => ChecksumState::Complete,
            (false, false) => ChecksumState::Partial,
            (_, true) => ChecksumState::PartialGso,
        }
    }

    /// Is it longer than what was received (more than 65,531 bytes)?
    pub fn truncated(&self) -> bool {
        self.message.get_original_len() > self.bytes().len()
    }

    /// Its mark.
    pub fn mark(&self) -> u32 {
        self.message.get_nfmark()
    }

    /// The index of the interface that it came in by, where the hook knows one.
    pub fn indev(&self) -> Option<u32> {
        Some(self.message.get_indev()).filter(|index| *index != 0)
    }

    /// The index of the interface that it will leave by, where the hook knows one.
    pub fn outdev(&self) -> Option<u32> {
        Some(self.message.get_outdev()).filter(|index| *index != 0)
    }

    /// Where it was queued.
    pub fn hook(&self) -> Hook {
        match self.message.get_hook() {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            other => Hook::Other(other),
        }
    }

    /// What it is called in the kernel.
    pub fn ticket(&self) -> Ticket {
        Ticket { queue: self.message.get_queue_num(), id: self.message.get_packet_id() }
    }
}
