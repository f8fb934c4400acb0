//! A netlink socket: one request at a time, answered in full before the next; or events.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use super::message::{self, Message, Writer};

/// Held while a socket is opened, so that the queue's own socket, which the `nfq` crate hides, can be told
/// apart as the one that came into being meanwhile.
pub(crate) static OPENING: Mutex<()> = Mutex::new(());

/// The kernel fills at most 32 KiB into one datagram of a dump.
const RECEIVE_BUFFER: usize = 32 * 1024;
/// The kernel answers within the system call that asks; only a bug makes us wait this long.
const PATIENCE: libc::timeval = libc::timeval { tv_sec: 5, tv_usec: 0 };

/// A request's own flag bits; `REQUEST` and `ACK` are always added.
pub(crate) mod flags {
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Socket {
    /// Opens a socket of the netlink `protocol`, subscribed to the multicast groups in the bitmask `groups`.
    pub(crate) fn open(protocol: libc::c_int, groups: u32) -> io::Result<Self> {
        let _guard = OPENING.lock();
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        check(fd)?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zero is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = family(libc::AF_NETLINK);
        address.nl_groups = groups;
        // SAFETY: pointer and length describe `address`.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), socklen(&address)) })?;
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, &PATIENCE)?;
        // Kernels before 4.2 lack it and echo the request, which fits as well.
        let one: libc::c_int = 1;
        let _ = set_option(fd.as_raw_fd(), libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &one);
        Ok(Self { fd, seq: 0, outgoing: Vec::new(), incoming: Vec::new() })
    }

    /// Sends a request and hands every message of the answer to `each`, until the kernel says that it is done.
    ///
    /// # Errors
    /// The kernel's own error number, or `Interrupted` when a dump is inconsistent and worth repeating (every
    /// message of it has been handed out).
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer<'_>),
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.outgoing.clear();
        message::write(&mut self.outgoing, kind, flags | message::REQUEST | flags::ACK, self.seq, fill);
        send(self.fd.as_raw_fd(), &self.outgoing)?;
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.resize(RECEIVE_BUFFER, 0);
        let answer = self.answer(&mut incoming, &mut each);
        self.incoming = incoming;
        answer
    }

    fn answer(&self, incoming: &mut [u8], each: &mut impl FnMut(&Message<'_>)) -> io::Result<()> {
        let mut interrupted = false;
        loop {
            let got = match receive(self.fd.as_raw_fd(), incoming, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer"));
                }
                other => other?,
            };
            for message in message::messages(incoming.get(..got).unwrap_or_default()) {
                if message.seq != self.seq {
                    continue; // the rest of an answer that was given up
                }
                interrupted |= message.flags & flags::DUMP_INTERRUPTED != 0;
                if message.kind != NLMSG_ERROR && message.kind != NLMSG_DONE {
                    each(&message);
                    continue;
                }
                // Both carry a negative error number, or 0 for success.
                let code = message.body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                return if interrupted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
            }
        }
    }

    /// The messages of one datagram that is already there, or `None`.
    ///
    /// # Errors
    /// `ENOBUFS` when the kernel had to discard events.
    pub(crate) fn event(&mut self) -> io::Result<Option<message::Messages<'_>>> {
        self.incoming.resize(RECEIVE_BUFFER, 0);
        match receive(self.fd.as_raw_fd(), &mut self.incoming, libc::MSG_DONTWAIT) {
            Ok(got) => Ok(Some(message::messages(self.incoming.get(..got).unwrap_or_default()))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends `bytes` to the kernel, which has dealt with all of their messages when this returns.
pub(crate) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    send_parts(fd, bytes, &[])
}

/// Sends `first` and `second` as one datagram.
pub(crate) fn send_parts(fd: RawFd, first: &[u8], second: &[u8]) -> io::Result<()> {
    let part =
        |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut parts = [part(first), part(second)];
    // SAFETY: all zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len() as _;
    loop {
        // SAFETY: `header` points to `parts`, which point to the two slices; the kernel only reads them.
        let sent = unsafe { libc::sendmsg(fd, &header, 0) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn receive(fd: RawFd, buf: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length describe `buf`.
        let got = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), flags) };
        if let Ok(got) = usize::try_from(got) {
            return Ok(got);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// `setsockopt` with a value of any plain type.
pub(crate) fn set_option<T: Copy>(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`.
    check(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), socklen(value)) })
}

/// Turns the -1 of a system call into its error.
pub(crate) fn check(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An address family in the form that addresses hold it.
pub(crate) fn family(number: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or_default()
}

/// The size of a value in the form that socket calls take it.
pub(crate) fn socklen<T>(_: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}
