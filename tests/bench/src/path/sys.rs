//! The system calls that the standard library lacks.
#![expect(unsafe_code, reason = "setns, batched datagrams and the thread clock have no safe interface")]

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
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
pub(super) fn set_receive_buffer(socket: &impl AsRawFd, bytes: i32) -> io::Result<()> {
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
pub(super) fn receive_batch(socket: &impl AsRawFd) -> io::Result<usize> {
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

/// Sends `packets`, at most [`BATCH`], over the connected `socket` at once; answers how many went.
///
/// # Errors
/// As `sendmmsg`.
pub(super) fn send_packets(socket: &impl AsRawFd, packets: &mut [Vec<u8>]) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> = packets
        .iter_mut()
        .take(BATCH)
        .map(|packet| libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts.iter_mut().map(|part| header(part)).collect();
    // SAFETY: header, part and packet of each message are distinct and outlive the call, which only reads.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// A socket that sends whole IPv4 packets to `to`.
///
/// # Errors
/// Without CAP_NET_RAW.
pub(super) fn raw_sender(to: Ipv4Addr) -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(to).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: `name` is a valid sockaddr_in and its size is given.
    let result = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const name).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// A socket that gets every IPv4 packet that the namespace receives, from its header on, and gives up waiting after
/// `patience`.
///
/// # Errors
/// Without CAP_NET_RAW.
pub(super) fn tap(patience: Duration) -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_DGRAM, i32::from((libc::ETH_P_IP as u16).to_be()))?;
    let wait = libc::timeval {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(patience.subsec_micros()),
    };
    let ignore = 1_i32;
    // SAFETY: the values are of the types that the options have, and their sizes are given.
    let results = unsafe {
        [
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const wait).cast(),
                size_of::<libc::timeval>() as libc::socklen_t,
            ),
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_IGNORE_OUTGOING,
                (&raw const ignore).cast(),
                size_of::<i32>() as libc::socklen_t,
            ),
        ]
    };
    if results == [0, 0] { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// The start of the next packet.
///
/// # Errors
/// As `recv`, time-out of the socket included.
pub(super) fn receive(socket: &impl AsRawFd) -> io::Result<[u8; MESSAGE]> {
    let mut bytes = [0; MESSAGE];
    // SAFETY: the buffer is valid for its length.
    let received = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), MESSAGE, 0) };
    if received < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket takes three numbers.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
