//! The system calls that the standard library does not offer: entering a namespace, raw and packet
//! sockets, socket options, signals. The only file of the kit with `unsafe`.
#![expect(unsafe_code, reason = "setns, raw sockets and socket options exist only as C calls")]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use libc::{c_int, c_void, sockaddr, sockaddr_in, sockaddr_ll, socklen_t};

/// Is this process root (effective user id 0)?
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Moves the calling thread into the network namespace at `path`.
///
/// # Errors
/// As the kernel says: no such namespace, no permission.
pub fn enter_netns(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open for the whole call; only this thread's namespace changes.
    done(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Sends `signal` to the process `pid`; a negative pid means its process group.
///
/// # Errors
/// As the kernel says, for instance that there is no such process.
pub fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: plain numbers.
    done(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Gives `signal` its usual effect on this process, whatever its parent chose.
///
/// # Errors
/// As the kernel says, for instance that there is no such signal.
pub fn reset_signal(signal: c_int) -> io::Result<()> {
    // SAFETY: plain numbers; no handler is installed.
    let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a socket of the calling thread's namespace.
///
/// # Errors
/// As the kernel says, for instance no permission for raw sockets.
pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor is checked and then owned by nobody else.
    unsafe {
        let fd = done(libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets a socket option that is an int.
///
/// # Errors
/// As the kernel says.
pub fn set_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which lives through the call.
    done(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast::<c_void>(), len_of::<c_int>())
    })
    .map(drop)
}

/// Sets how long a blocking receive or send (`libc::SO_RCVTIMEO`, `libc::SO_SNDTIMEO`) may take.
///
/// # Errors
/// As the kernel says.
pub fn set_timeout(fd: BorrowedFd<'_>, name: c_int, milliseconds: u32) -> io::Result<()> {
    let value = libc::timeval {
        tv_sec: i64::from(milliseconds / 1000),
        tv_usec: i64::from(milliseconds % 1000) * 1000,
    };
    // SAFETY: pointer and length describe `value`, which lives through the call.
    done(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast::<c_void>(),
            len_of::<libc::timeval>(),
        )
    })
    .map(drop)
}

/// Binds an IPv4 socket.
///
/// # Errors
/// As the kernel says, for instance address in use.
pub fn bind(fd: BorrowedFd<'_>, addr: SocketAddrV4) -> io::Result<()> {
    let addr = c_address(addr);
    // SAFETY: pointer and length describe `addr`, which lives through the call.
    done(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast::<sockaddr>(), len_of::<sockaddr_in>()) })
        .map(drop)
}

/// Connects an IPv4 socket; blocks for at most the socket's send timeout.
///
/// # Errors
/// As the kernel says; a timeout is `EINPROGRESS` or `EAGAIN`.
pub fn connect(fd: BorrowedFd<'_>, addr: SocketAddrV4) -> io::Result<()> {
    let addr = c_address(addr);
    // SAFETY: pointer and length describe `addr`, which lives through the call.
    done(unsafe {
        libc::connect(fd.as_raw_fd(), (&raw const addr).cast::<sockaddr>(), len_of::<sockaddr_in>())
    })
    .map(drop)
}

/// Sends `packet` to `to` through an IPv4 socket, raw ones included.
///
/// # Errors
/// As the kernel says.
pub fn send_to(fd: BorrowedFd<'_>, packet: &[u8], to: Ipv4Addr) -> io::Result<()> {
    let addr = c_address(SocketAddrV4::new(to, 0));
    // SAFETY: pointers and lengths describe `packet` and `addr`, which live through the call.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            packet.as_ptr().cast::<c_void>(),
            packet.len(),
            0,
            (&raw const addr).cast::<sockaddr>(),
            len_of::<sockaddr_in>(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One packet from a packet socket.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// How long it was on the wire, from its IP header on; may exceed the buffer.
    pub len: usize,
    /// Is it IPv4?
    pub ipv4: bool,
    /// Did this machine send it?
    pub outgoing: bool,
}

/// Opens a packet socket on `interface` that delivers from the IP header on.
///
/// # Errors
/// As the kernel says: no such interface, no permission.
pub fn packet_socket(interface: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(interface).map_err(io::Error::other)?;
    // SAFETY: `name` is a C string that lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // Protocol 0 receives nothing until bind names both the interface and the protocol.
    let fd = socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut addr: sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = c_family(libc::AF_PACKET);
    addr.sll_protocol = ethertype(libc::ETH_P_ALL);
    addr.sll_ifindex = c_int::try_from(index).map_err(io::Error::other)?;
    let borrowed = fd.as_raw_fd();
    // SAFETY: pointer and length describe `addr`, which lives through the call.
    done(unsafe { libc::bind(borrowed, (&raw const addr).cast::<sockaddr>(), len_of::<sockaddr_ll>()) })?;
    Ok(fd)
}

/// Receives one packet from a packet socket into `buffer`, cut off where that ends.
///
/// # Errors
/// `WouldBlock` after the receive timeout; otherwise as the kernel says.
pub fn receive_frame(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Frame> {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut from: sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut from_len = len_of::<sockaddr_ll>();
    // SAFETY: pointers and lengths describe `buffer` and `from`, which live through the call.
    let len = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast::<c_void>(),
            buffer.len(),
            libc::MSG_TRUNC,
            (&raw mut from).cast::<sockaddr>(),
            &raw mut from_len,
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(Frame {
        len,
        ipv4: from.sll_protocol == ethertype(libc::ETH_P_IP),
        outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
    })
}

/// How many packets a packet socket lost for want of room since the last call.
///
/// # Errors
/// As the kernel says.
pub fn packets_lost(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: all-zero is a valid tpacket_stats.
    let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut len = len_of::<libc::tpacket_stats>();
    // SAFETY: pointer and length describe `stats`, which lives through the call.
    done(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast::<c_void>(),
            &raw mut len,
        )
    })?;
    Ok(stats.tp_drops)
}

/// Makes a TUN device of the calling thread's namespace that gives bare IP packets, one in each read.
/// Answers with its name: in `name`, `%d` stands for the first free number.
///
/// # Errors
/// As the kernel says: no TUN, no permission, name in use.
pub fn open_tun(name: &str) -> io::Result<(File, String)> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let places = request.ifr_name.len() - 1;
    for (place, byte) in request.ifr_name.iter_mut().take(places).zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = TUN_PACKETS;
    // SAFETY: the kernel reads and writes `request`, which lives through the call.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    Ok((file, name.flat_map(|byte| byte.to_ne_bytes()).map(char::from).collect()))
}

/// TUN device, no header before the packet.
#[expect(clippy::cast_possible_truncation, reason = "both flags are below 2^15")]
const TUN_PACKETS: libc::c_short = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;

/// A new pseudo-terminal: its master, and the side for a program.
///
/// # Errors
/// As the kernel says, for instance too many open files.
pub fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut master, mut program) = (-1, -1);
    // SAFETY: the two descriptors live through the call; null asks for no name and the usual settings. What
    // comes back is owned by nobody else.
    unsafe {
        done(libc::openpty(
            &raw mut master,
            &raw mut program,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        ))?;
        let pair = (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(program));
        done(libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC))?;
        Ok(pair)
    }
}

/// Makes a terminal pass every byte as it is, without echo.
///
/// # Errors
/// As the kernel says, for instance that it is no terminal.
pub fn make_raw(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero is a valid termios; the kernel fills it in, and it lives through the calls.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        done(libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings))?;
        libc::cfmakeraw(&raw mut settings);
        done(libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const settings)).map(drop)
    }
}

/// Makes reads and writes of a descriptor fail with `WouldBlock` where they would wait.
///
/// # Errors
/// As the kernel says.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain numbers.
    unsafe {
        let flags = done(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        done(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

/// Waits at most `milliseconds` until one of the descriptors is ready for the events that stand beside it
/// (`libc::POLLIN`, `libc::POLLOUT`); answers with the events of each, errors and ends included.
///
/// # Errors
/// As the kernel says.
pub fn poll<const N: usize>(
    fds: [(BorrowedFd<'_>, libc::c_short); N],
    milliseconds: c_int,
) -> io::Result<[libc::c_short; N]> {
    let mut polled = fds.map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
    let count = libc::nfds_t::try_from(N).map_err(io::Error::other)?;
    // SAFETY: pointer and count describe `polled`, which lives through the call.
    done(unsafe { libc::poll(polled.as_mut_ptr(), count, milliseconds) })?;
    Ok(polled.map(|one| one.revents))
}

fn done(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_address(addr: SocketAddrV4) -> sockaddr_in {
    sockaddr_in {
        sin_family: c_family(libc::AF_INET),
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

#[expect(clippy::cast_possible_truncation, reason = "address families are below 64")]
fn c_family(family: c_int) -> libc::sa_family_t {
    family as libc::sa_family_t
}

#[expect(clippy::cast_possible_truncation, reason = "ethertypes have 16 bits")]
fn ethertype(value: c_int) -> u16 {
    (value as u16).to_be()
}

#[expect(clippy::cast_possible_truncation, reason = "sizes of C structs are small")]
fn len_of<T>() -> socklen_t {
    size_of::<T>() as socklen_t
}
