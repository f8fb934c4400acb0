//! Verdicts, many in one system call.
//!
//! Answering each packet by itself is the largest single cost of a queue. Verdicts are netlink messages, and
//! one datagram can hold many: they are collected here and sent together. A small packet's bytes are copied
//! into the batch; a large one's are sent from where they lie, behind the batch, in the same call.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use super::{Ticket, open};
use crate::io::netlink::message::{self, attribute_header};
use crate::io::netlink::socket::{send, send_parts};

/// More than this in one batch gained nothing when measured.
const BATCH: usize = 32;
/// Bytes of one batch: 32 packets of an Ethernet frame's size.
const BATCH_BYTES: usize = 52 * 1024;
/// Payloads from this size on are not copied.
const LARGE: usize = 8 * 1024;
/// Headers and attributes of a verdict without payload.
const ENVELOPE: usize = 48;

// linux/netfilter/nfnetlink.h, nfnetlink_queue.h, linux/netfilter.h
const NFNL_SUBSYS_QUEUE: u16 = 3;
const NFQNL_MSG_VERDICT: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_MARK: u16 = 3;
const NFQA_PAYLOAD: u16 = 10;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// What the kernel is told about a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer<'a> {
    /// It goes on, with a new mark or new bytes where given.
    Accept { mark: Option<u32>, payload: Option<&'a [u8]> },
    /// It is dropped.
    Refuse,
}

/// A batch of verdicts that has not been sent.
#[derive(Debug)]
pub(super) struct Verdicts {
    fd: RawFd,
    bytes: Vec<u8>,
    tickets: Vec<Ticket>,
    lost: u64,
}

impl Verdicts {
    /// An empty batch for the queue behind `fd`, which stays open for as long as the batch lives.
    pub(super) fn new(fd: RawFd) -> Self {
        Self { fd, bytes: Vec::with_capacity(BATCH_BYTES), tickets: Vec::with_capacity(BATCH), lost: 0 }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as this batch, see `new`.
        unsafe { open::borrow(self.fd) }
    }

    /// Packets whose verdicts the kernel did not take.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Adds a verdict; sends the batch when it is full.
    pub(super) fn push(&mut self, ticket: Ticket, answer: Answer<'_>) -> io::Result<()> {
        let payload = match answer {
            Answer::Accept { payload, .. } => payload.unwrap_or_default(),
            Answer::Refuse => &[],
        };
        if payload.len() < LARGE {
            if self.bytes.len() + ENVELOPE + payload.len() > BATCH_BYTES {
                self.flush()?;
            }
            write(&mut self.bytes, ticket, answer);
            self.tickets.push(ticket);
            return if self.tickets.len() >= BATCH { self.flush() } else { Ok(()) };
        }
        let start = self.bytes.len();
        let mark = match answer {
            Answer::Accept { mark, .. } => mark,
            Answer::Refuse => None,
        };
        write(&mut self.bytes, ticket, Answer::Accept { mark, payload: None });
        self.bytes.extend_from_slice(&attribute_header(NFQA_PAYLOAD, payload.len()));
        message::lengthen(&mut self.bytes, start, payload.len());
        self.tickets.push(ticket);
        self.send(payload)
    }

    /// Sends what has been collected.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.tickets.is_empty() { Ok(()) } else { self.send(&[]) }
    }

    fn send(&mut self, last_payload: &[u8]) -> io::Result<()> {
        let sent = send_parts(self.fd, &self.bytes, last_payload);
        self.bytes.clear();
        if sent.is_err() {
            // Without a verdict they would fill the queue for ever. A few bytes each may still go through.
            for ticket in &self.tickets {
                self.lost += 1;
                let _ = send_one(self.fd, *ticket, Answer::Refuse);
            }
        }
        self.tickets.clear();
        sent
    }
}

impl Drop for Verdicts {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Sends one verdict by itself.
pub(super) fn send_one(fd: RawFd, ticket: Ticket, answer: Answer<'_>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(ENVELOPE);
    write(&mut bytes, ticket, answer);
    send(fd, &bytes)
}

fn write(buf: &mut Vec<u8>, ticket: Ticket, answer: Answer<'_>) {
    let kind = (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_VERDICT;
    message::write(buf, kind, message::REQUEST, 0, |message| {
        // struct nfgenmsg: family, version, queue number.
        let [high, low] = ticket.queue.to_be_bytes();
        message.fixed(&[0, 0, high, low]);
        // struct nfqnl_msg_verdict_hdr: verdict, packet id.
        let (verdict, mark, payload) = match answer {
            Answer::Accept { mark, payload } => (NF_ACCEPT, mark, payload),
            Answer::Refuse => (NF_DROP, None, None),
        };
        let header = (u64::from(verdict) << 32) | u64::from(ticket.id);
        message.attribute(NFQA_VERDICT_HDR, &header.to_be_bytes());
        if let Some(mark) = mark {
            message.attribute(NFQA_MARK, &mark.to_be_bytes());
        }
        if let Some(payload) = payload {
            message.attribute(NFQA_PAYLOAD, payload);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn verdicts_wait_until_the_batch_is_full() {
        let (ours, kernel) = stream();
        let mut verdicts = Verdicts::new(ours.as_raw_fd());
        for id in 1..32 {
            verdicts.push(ticket(id), Answer::Refuse).unwrap();
        }
        assert_eq!(sent(&kernel), 0);

        verdicts.push(ticket(32), Answer::Refuse).unwrap();

        assert_eq!(sent(&kernel), 32 * 32);
        verdicts.flush().unwrap();
        assert_eq!(sent(&kernel), 0);
    }

    #[test]
    fn a_large_payload_leaves_at_once_behind_what_came_before() {
        let (ours, mut kernel) = stream();
        let mut verdicts = Verdicts::new(ours.as_raw_fd());
        let payload: Vec<u8> = (0..20_001u32).map(|n| n.to_le_bytes()[0]).collect();
        verdicts.push(ticket(1), Answer::Refuse).unwrap();

        verdicts.push(ticket(2), Answer::Accept { mark: Some(7), payload: Some(&payload) }).unwrap();

        let mut bytes = vec![0; 70_000];
        let got = kernel.read(&mut bytes).unwrap();
        let read: Vec<_> = message::messages(&bytes[..got]).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].attributes(4).collect::<Vec<_>>(), [(2, &[0, 0, 0, 0, 0, 0, 0, 1][..])]);
        assert_eq!(
            read[1].attributes(4).collect::<Vec<_>>(),
            [(2, &[0, 0, 0, 1, 0, 0, 0, 2][..]), (3, &[0, 0, 0, 7][..]), (10, &payload[..])]
        );
    }

    #[test]
    fn a_batch_never_outgrows_its_buffer() {
        let (ours, kernel) = stream();
        let mut verdicts = Verdicts::new(ours.as_raw_fd());
        let payload = vec![1; LARGE - 1];
        for id in 0..31 {
            verdicts.push(ticket(id), Answer::Accept { mark: Some(1), payload: Some(&payload) }).unwrap();
            assert!(verdicts.bytes.len() <= BATCH_BYTES);
            let _ = sent(&kernel);
        }
        assert_eq!(verdicts.bytes.capacity(), BATCH_BYTES);
    }

    #[test]
    fn verdicts_that_cannot_be_sent_are_counted() {
        let (ours, kernel) = stream();
        drop(kernel);
        let mut verdicts = Verdicts::new(ours.as_raw_fd());
        verdicts.push(ticket(1), Answer::Refuse).unwrap();
        verdicts.push(ticket(2), Answer::Refuse).unwrap();

        assert!(verdicts.flush().is_err());

        assert_eq!(verdicts.lost(), 2);
        assert!(verdicts.flush().is_ok());
    }

    fn ticket(id: u32) -> Ticket {
        Ticket { queue: 3, id }
    }

    fn stream() -> (UnixStream, UnixStream) {
        let (ours, kernel) = UnixStream::pair().unwrap();
        kernel.set_nonblocking(true).unwrap();
        (ours, kernel)
    }

    fn sent(mut kernel: &UnixStream) -> usize {
        let mut bytes = vec![0; 200_000];
        kernel.read(&mut bytes).unwrap_or(0)
    }
}
