//! Waiting for several descriptors at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Wakes whoever polls its descriptor, until it is settled.
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    /// One that has not been raised.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the descriptor is new and ours.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes.
    pub(crate) fn raise(&self) {
        let one = 1u64;
        // SAFETY: the buffer is eight bytes long. It can fail only when raised 2^64 - 1 times before.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Takes back that it was raised.
    pub(crate) fn settle(&self) {
        let mut count = 0u64;
        // SAFETY: the buffer is eight bytes long. Where it was not raised, there is nothing to take back.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }

    /// Readable once raised.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The same wake-up for another thread.
    pub(crate) fn share(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// Waits until one of `fds` is readable or `limit` is over; answers for each whether it is. A signal ends the
/// wait early.
pub(crate) fn wait(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let limit = limit.map_or(-1, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
    // SAFETY: the array has `count` elements.
    let answer = unsafe { libc::poll(polled.as_mut_ptr(), count, limit) };
    if answer < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        return Ok(vec![false; polled.len()]);
    }
    Ok(polled.iter().map(|fd| fd.revents != 0).collect())
}
