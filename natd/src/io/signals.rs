//! Signals as values: a descriptor to poll, and what arrived.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{SigId, flag, low_level};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM or INT: end cleanly.
    Stop,
    /// HUP: read the configuration again.
    Reload,
    /// USR1: write the state to the log.
    Dump,
}

const WANTED: [(i32, Signal); 4] =
    [(SIGTERM, Signal::Stop), (SIGINT, Signal::Stop), (SIGHUP, Signal::Reload), (SIGUSR1, Signal::Dump)];

/// Catches the signals for as long as it lives.
#[derive(Debug)]
pub struct Signals {
    wakeup: UnixStream,
    raised: Vec<(Signal, Arc<AtomicBool>)>,
    registered: Vec<SigId>,
}

impl Signals {
    /// Starts to catch.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn open() -> io::Result<Self> {
        let (wakeup, writer) = UnixStream::pair()?;
        wakeup.set_nonblocking(true)?;
        let mut signals = Self { wakeup, raised: Vec::new(), registered: Vec::new() };
        for (number, signal) in WANTED {
            let raised = Arc::new(AtomicBool::new(false));
            // Actions run in the order of registration: the flag stands before the wake-up is written.
            signals.registered.push(flag::register(number, Arc::clone(&raised))?);
            signals.registered.push(low_level::pipe::register(number, writer.try_clone()?)?);
            signals.raised.push((signal, raised));
        }
        Ok(signals)
    }

    /// Readable when a signal has arrived.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    /// What has arrived since the last call, each at most once, [`Signal::Stop`] first.
    pub fn pending(&mut self) -> Vec<Signal> {
        let mut bytes = [0; 64];
        while matches!(self.wakeup.read(&mut bytes), Ok(got) if got > 0) {}
        let mut pending = Vec::new();
        for (signal, raised) in &self.raised {
            if raised.swap(false, Ordering::SeqCst) && !pending.contains(signal) {
                pending.push(*signal);
            }
        }
        pending
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_wakes_and_is_reported_once() {
        let mut signals = Signals::open().unwrap();
        assert_eq!(signals.pending(), []);

        for number in [SIGUSR1, SIGHUP, SIGTERM, SIGHUP, SIGINT] {
            low_level::raise(number).unwrap();
        }

        let mut poll = libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(&signals.fd()),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 1);
        assert_eq!(signals.pending(), [Signal::Stop, Signal::Reload, Signal::Dump]);
        assert_eq!(signals.pending(), []);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 0);
    }
}
