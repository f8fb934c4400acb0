//! Opening a queue: the crate's calls in the only order that works, and its hidden descriptor.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::PoisonError;

use super::stats::QueueStats;
use crate::io::netlink::socket::OPENING;
use crate::io::netlink::{check, set_option, socklen};

/// The default of 208 KiB holds two or three trains of segments; with 8 MiB (of which the kernel makes 16 to
/// account for its own overhead) no loss was measured.
const RECEIVE_BUFFER: libc::c_int = 8 << 20;
/// One batch, one large packet and the kernel's overhead.
const SEND_BUFFER: libc::c_int = 256 << 10;
/// The kernel's limit: an attribute's length has 16 bits.
const WHOLE_PACKETS: u16 = 65_531;
/// How far descriptors are searched; natd uses a few dozen.
const DESCRIPTORS: RawFd = 4096;

/// Why a queue could not be had.
#[derive(Debug)]
pub enum OpenError {
    /// CAP_NET_ADMIN is missing.
    NoPermission,
    /// The kernel has no NFQUEUE.
    NoKernelSupport,
    /// Another process has this queue.
    Taken {
        /// The queue's number.
        number: u16,
        /// The netlink port that has it, usually that process's id.
        owner: Option<u32>,
    },
    /// Anything else.
    Other(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPermission => {
                f.write_str("no permission to open a packet queue: run natd as root or give it CAP_NET_ADMIN")
            }
            Self::NoKernelSupport => f.write_str(
                "the kernel has no packet queues (NFQUEUE): load or install the module nfnetlink_queue \
                 (OpenWrt: kmod-nfnetlink-queue)",
            ),
            Self::Taken { number, owner: Some(owner) } => write!(
                f,
                "queue {number} is taken by another program (netlink port {owner}, usually its process id): \
                 stop it or choose another queue number"
            ),
            Self::Taken { number, owner: None } => {
                write!(
                    f,
                    "queue {number} is taken by another program: stop it or choose another queue number"
                )
            }
            Self::Other(error) => write!(f, "the packet queue cannot be opened: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// How trains of segments (GSO) are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trains {
    /// As one packet, its checksum unfinished: fast, but only where conntrack does not verify checksums.
    Whole,
    /// Segment by segment, each complete.
    Split,
}

/// The crate's queue, bound and configured, and its descriptor, which lives as long as it.
pub(super) fn open(number: u16, max_len: u32, trains: Trains) -> Result<(nfq::Queue, RawFd), OpenError> {
    let (mut socket, fd) =
        open_socket().map_err(|error| refused(&error, number).unwrap_or(OpenError::Other(error)))?;
    let configure = |socket: &mut nfq::Queue| {
        socket.bind(number)?;
        socket.set_copy_range(number, WHOLE_PACKETS)?;
        socket.set_queue_max_len(number, max_len)?;
        socket.set_recv_gso(number, trains == Trains::Whole)
    };
    configure(&mut socket).map_err(|error| refused(&error, number).unwrap_or(OpenError::Other(error)))?;
    socket.set_nonblocking(true);
    tune(fd).map_err(OpenError::Other)?;
    Ok((socket, fd))
}

/// The crate has no accessor: its descriptor is the nfnetlink socket that was not there before.
fn open_socket() -> io::Result<(nfq::Queue, RawFd)> {
    /// Another thread may open such a socket at the same moment, for conntrack.
    const ATTEMPTS: usize = 16;
    let _guard = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS {
        let before: Vec<RawFd> = nfnetlink_sockets().collect();
        let socket = nfq::Queue::open()?;
        let mut new = nfnetlink_sockets().filter(|fd| !before.contains(fd));
        if let (Some(fd), None) = (new.next(), new.next()) {
            return Ok((socket, fd));
        }
    }
    Err(io::Error::other("the queue's descriptor was not found"))
}

fn nfnetlink_sockets() -> impl Iterator<Item = RawFd> {
    (0..DESCRIPTORS).filter(|fd| {
        option(*fd, libc::SO_DOMAIN) == Some(libc::AF_NETLINK)
            && option(*fd, libc::SO_PROTOCOL) == Some(libc::NETLINK_NETFILTER)
    })
}

fn option(fd: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = socklen(&value);
    // SAFETY: both pointers are valid for writing, `len` is the size of `value`; a descriptor that is not open
    // or no socket gives an error.
    let answer =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    (answer == 0).then_some(value)
}

fn tune(fd: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open. The crate leaves it open for children (nft, iptables).
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    for (force, plain, size) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER),
    ] {
        // Forcing needs CAP_NET_ADMIN in the first user namespace; the plain one stops at the sysctl's limit.
        set_option(fd, libc::SOL_SOCKET, force, &size)
            .or_else(|_| set_option(fd, libc::SOL_SOCKET, plain, &size))?;
    }
    // So that a refused verdict does not come back with its whole payload.
    let one: libc::c_int = 1;
    let _ = set_option(fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &one);
    Ok(())
}

/// What the kernel means by refusing to open or bind; `None` for an unusual error.
fn refused(error: &io::Error, number: u16) -> Option<OpenError> {
    match error.raw_os_error()? {
        // nfnetlink asks for the capability first, then the queue refuses whoever is not its owner.
        libc::EPERM if !crate::io::sandbox::has_net_admin() => Some(OpenError::NoPermission),
        libc::EPERM | libc::EBUSY => {
            let owner = QueueStats::read(number).ok().flatten().map(|stats| stats.owner);
            // A user namespace's root lacks the capability over a network namespace that is not its own.
            if owner.is_none() {
                Some(OpenError::NoPermission)
            } else {
                Some(OpenError::Taken { number, owner })
            }
        }
        // No nfnetlink; no queue subsystem in it; a kernel older than GSO in queues (3.10).
        libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP => {
            Some(OpenError::NoKernelSupport)
        }
        _ => None,
    }
}

/// Borrows the queue's descriptor.
///
/// # Safety
/// `fd` is open for as long as `'a`.
pub(super) const unsafe fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the caller's promise.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
