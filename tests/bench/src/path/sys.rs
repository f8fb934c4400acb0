//! The system calls that the standard library lacks.
#![expect(unsafe_code, reason = "setns, batched datagrams and the thread clock have no safe interface")]

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Datagrams in one system call.
pub(super) const BATCH: usize = 32;
const MESSAGE: usize = 64;

/// Runs `work` in the network namespace `name`. Sockets made there stay in it, whoever uses them later.
///
/// # Errors
/// When there is no such namespace, the caller may not enter it, or `work` fails.
pub(super) fn within<T: Send>(name: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(format!("/run/netns/{name}"))?;
    let enter = move || {
        // SAFETY: setns takes two numbers; the thread that it moves ends with `work`.
        match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => work(),
            _ => Err(io::Error::last_os_error()),
        }
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
}

/// The CPU time that the calling thread has used, soft interrupts that ran on top of it included.
pub(super) fn cpu_of_thread() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Gives `socket` a receive buffer of `bytes`, whatever the system's limit.
///
/// # Errors
/// Without CAP_NET_ADMIN.
pub(super) fn set_receive_buffer(socket: &UdpSocket, bytes: i32) -> io::Result<()> {
    // SAFETY: the value is a valid i32 and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Allows this process `count` open files.
pub(super) fn allow_files(count: u64) {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: `limit` is a valid rlimit. Where it is refused, opening too many files will say so.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// Sends [`BATCH`] datagrams of `payload` over the connected `socket` at once; answers how many went.
///
/// # Errors
/// As `sendmmsg`.
pub(super) fn send_batch(socket: &UdpSocket, payload: &mut [u8]) -> io::Result<usize> {
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let mut messages = [header(&raw mut part); BATCH];
    // SAFETY: every header points to `part`, which points to `payload`; both outlive the call, which only reads.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Waits for a datagram and takes up to [`BATCH`] that are there; answers how many. Their content is dropped.
///
/// # Errors
/// As `recvmmsg`, time-out of the socket included.
pub(super) fn receive_batch(socket: &UdpSocket) -> io::Result<usize> {
    let mut bytes = [[0_u8; MESSAGE]; BATCH];
    let mut parts =
        bytes.each_mut().map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: MESSAGE });
    let mut messages = parts.each_mut().map(|part| header(part));
    // SAFETY: header, part and buffer of each message are distinct and outlive the call; no address is asked for.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            BATCH as u32,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

fn header(part: *mut libc::iovec) -> libc::mmsghdr {
    libc::mmsghdr {
        msg_hdr: libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: part,
            msg_iovlen: 1,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        },
        msg_len: 0,
    }
}
