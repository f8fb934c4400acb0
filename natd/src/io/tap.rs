//! Copies of packets, for the diagnosis: AF_PACKET sockets with a filter in the kernel.
//!
//! A tap is bound to one interface and gets what comes in and what goes out there, from the IP header on, if
//! its filter wants it. Nothing is held up or changed. When copies come faster than they are read, the kernel drops
//! copies, and counts them.

mod bpf;
mod filter;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nat_core::time::Timestamp;

use super::clock;
use super::netlink::{check, set_option, socklen};

/// Room for copies that wait to be read, in bytes of kernel memory. It counts what the whole packet occupies there.
const ROOM: libc::c_int = 512 * 1024;
/// `PACKET_OUTGOING`.
const OUTGOING: u8 = 4;
/// A time stamp that is older was made before the system's clock was set.
const OLDEST: Duration = Duration::from_secs(10);

/// Gets copies of one interface's packets.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    index: u32,
}

/// What has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// When the kernel had it.
    pub at: Timestamp,
    /// Bytes of it that were copied.
    pub len: usize,
    /// Does it leave by this interface? Else it came in by it.
    pub outgoing: bool,
}

impl Tap {
    /// Watches the interface numbered `index`, which must be up to show anything.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW; no such interface; a kernel without packet sockets.
    pub fn open(index: u32) -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers. Protocol 0 receives nothing until it is bound.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        check(fd)?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let raw = fd.as_raw_fd();
        let program = filter::program();
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).unwrap_or(u16::MAX),
            filter: program.as_ptr().cast_mut().cast(),
        };
        set_option(raw, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)?;
        set_option(raw, libc::SOL_SOCKET, libc::SO_RCVBUF, &ROOM)?;
        set_option(raw, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)?;
        // Only a socket of all protocols sees what goes out.
        let mut address = link_address();
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(3).to_be();
        address.sll_ifindex = i32::try_from(index).unwrap_or(-1);
        // SAFETY: pointer and length describe `address`.
        check(unsafe { libc::bind(raw, (&raw const address).cast(), socklen(&address)) })?;
        Ok(Self { fd, index })
    }

    /// Readable when there is a copy, or when the interface is gone.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The interface it was opened on.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Does it still watch the interface? One that was removed and made anew is another one.
    pub fn is_bound(&self) -> bool {
        let mut address = link_address();
        let mut length = socklen(&address);
        // SAFETY: pointer and length describe `address`.
        let answer =
            unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
        answer == 0 && u32::try_from(address.sll_ifindex) == Ok(self.index)
    }

    /// The next copy, written into `buffer` from its IP header on; `None` when there is none now.
    ///
    /// # Errors
    /// `ENETDOWN` once after the interface went down; it goes on when that comes up again.
    pub fn next(&self, buffer: &mut [u8]) -> io::Result<Option<Copied>> {
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = [0u64; 8];
        // SAFETY: all zeros is a valid header without anything.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut from = link_address();
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = socklen(&from);
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let length = loop {
            // SAFETY: the header's pointers and lengths describe `from`, `vector`, `buffer` and
            // `control`.
            let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
            match usize::try_from(length) {
                Ok(length) => break length,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() == io::ErrorKind::WouldBlock {
                        return Ok(None);
                    }
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        };
        let outgoing = from.sll_pkttype == OUTGOING;
        Ok(Some(Copied { at: since_boot(stamp(&message)), len: length.min(buffer.len()), outgoing }))
    }

    /// How many copies the kernel had no room for since this was last asked.
    pub fn dropped(&self) -> u64 {
        // `struct tpacket_stats`: packets, drops.
        let mut counts = [0u32; 2];
        let mut length = socklen(&counts);
        // SAFETY: pointer and length describe `counts`.
        let answer = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                counts.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let [_, drops] = counts;
        if answer == 0 { drops.into() } else { 0 }
    }
}

fn link_address() -> libc::sockaddr_ll {
    // SAFETY: all zeros is a valid address of no interface.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = super::netlink::family(libc::AF_PACKET);
    address
}

/// The kernel's time stamp, by the wall clock, since 1970.
fn stamp(message: &libc::msghdr) -> Option<Duration> {
    // SAFETY: the header is one that the kernel has filled in, and its buffers are still there.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it is a whole control message's.
        let found = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if found == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
            // SAFETY: this type of control message holds a timespec.
            let time = unsafe { libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned() };
            let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
            return Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanos));
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// The same by natd's clock. What the wall clock cannot have meant is now.
fn since_boot(stamp: Option<Duration>) -> Timestamp {
    let now = clock::now();
    let age = stamp.and_then(|stamp| clock::wall().checked_sub(stamp)).filter(|age| *age < OLDEST);
    let age = age.and_then(|age| u64::try_from(age.as_micros()).ok()).unwrap_or(0);
    Timestamp::from_micros(now.as_micros().saturating_sub(age))
}
