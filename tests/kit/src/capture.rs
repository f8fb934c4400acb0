//! Captures by packet socket: what passed an interface, without a start-up race and with losses counted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::packet::Wire;
use crate::{clock, sys};

/// Bytes kept of each packet: headers and a whole quote.
const SNAP: usize = 2048;
/// How long a capture may take to read what the kernel holds for it.
const CATCH_UP: Duration = Duration::from_millis(300);
/// Receive buffer of a capture.
const BUFFER: i32 = 64 << 20;

/// Which packets a capture keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All of them.
    All,
    /// Received ones that show a household address in a header or a quote; the others are only counted.
    Leaks,
}

/// One captured packet.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// Did the machine with the capture send it (rather than receive it)?
    pub outgoing: bool,
    /// From its IP header on, at most 2048 bytes.
    pub bytes: Vec<u8>,
    /// The same, read.
    pub wire: Wire,
}

impl Seen {
    fn is_leak(&self) -> bool {
        !self.outgoing && self.wire.shows_lan()
    }
}

/// A running capture of IPv4 packets; ends when dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    stop: AtomicBool,
    count: AtomicU64,
    lost: AtomicU64,
    /// How often there was nothing to read.
    idle: AtomicU64,
    kept: Mutex<Vec<Seen>>,
}

impl Capture {
    /// Starts capturing on `interface` of the calling thread's namespace.
    ///
    /// # Errors
    /// As the kernel says: no such interface, no permission.
    pub fn start(interface: &str, keep: Keep) -> io::Result<Self> {
        let socket = sys::packet_socket(interface)?;
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
        sys::set_timeout(socket.as_fd(), libc::SO_RCVTIMEO, 20)?;
        let shared = Arc::new(Shared {
            socket,
            stop: AtomicBool::new(false),
            count: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            kept: Mutex::new(Vec::new()),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(keep)
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many IPv4 packets passed.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// The kept packets that had passed when this was called.
    pub fn seen(&self) -> Vec<Seen> {
        self.catch_up();
        self.read_so_far()
    }

    /// The kept packets that had passed when this was called and for which `wanted` holds.
    pub fn find(&self, wanted: impl Fn(&Wire) -> bool) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| wanted(&seen.wire)).collect()
    }

    fn read_so_far(&self) -> Vec<Seen> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the capture has read what the kernel holds for it; under steady load for as long as that
    /// surely takes.
    fn catch_up(&self) {
        let before = self.shared.idle.load(Ordering::Relaxed);
        clock::holds_within(CATCH_UP, || self.shared.idle.load(Ordering::Relaxed) > before + 1);
    }

    /// Waits for a packet for which `wanted` holds and answers with the last one such.
    ///
    /// # Panics
    /// When none comes within `deadline`; `what` names it.
    pub fn wait_for(&self, what: &str, deadline: Duration, wanted: impl Fn(&Wire) -> bool) -> Seen {
        let mut found = None;
        clock::holds_within(deadline, || {
            found = self.read_so_far().into_iter().rfind(|seen| wanted(&seen.wire));
            found.is_some()
        });
        found.unwrap_or_else(|| {
            let last: Vec<String> =
                self.seen().iter().rev().take(12).rev().map(|seen| format!("{:?}", seen.wire)).collect();
            panic!("no {what} within {deadline:?}; the last packets:\n{}", last.join("\n"))
        })
    }

    /// No received packet showed a household address in its header or quote, packets were seen, and none was
    /// missed. Packets that the capturing machine itself sent do not count: the kernel writes their later
    /// translation into the memory that the capture shares (seen with fragments).
    ///
    /// # Panics
    /// When that is not so.
    pub fn expect_no_leak(&self) {
        let mut leaks = self.seen();
        leaks.retain(Seen::is_leak);
        let shown: Vec<String> = leaks.iter().take(5).map(|seen| format!("{:?}", seen.wire)).collect();
        assert!(
            leaks.is_empty(),
            "{} packets on the WAN show a household address, the first:\n{}",
            leaks.len(),
            shown.join("\n")
        );
        assert!(self.count() > 0, "the capture saw no packet at all");
        assert_eq!(self.shared.lost.load(Ordering::Relaxed), 0, "packets that the capture missed");
    }
}

impl Shared {
    fn run(&self, keep: Keep) {
        let mut buffer = vec![0; SNAP];
        while !self.stop.load(Ordering::Relaxed) {
            match sys::receive_frame(self.socket.as_fd(), &mut buffer) {
                Ok(frame) if frame.ipv4 => {
                    let bytes = buffer.get(..frame.len.min(SNAP)).unwrap_or_default();
                    self.take(keep, frame.outgoing, bytes);
                }
                Ok(_) => {}
                Err(_) => {
                    self.idle.fetch_add(1, Ordering::Relaxed);
                    let lost = sys::packets_lost(self.socket.as_fd()).unwrap_or(0);
                    self.lost.fetch_add(u64::from(lost), Ordering::Relaxed);
                }
            }
        }
    }

    fn take(&self, keep: Keep, outgoing: bool, bytes: &[u8]) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let Some(wire) = Wire::parse(bytes) else {
            return;
        };
        let seen = Seen { at: clock::now(), outgoing, bytes: bytes.to_vec(), wire };
        if keep == Keep::All || seen.is_leak() {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed already.
            let _ = thread.join();
        }
    }
}
