//! Sockets that send exactly what a test says.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::sys;

/// How long a test waits for a datagram that should come.
pub const UDP_WAIT: Duration = Duration::from_secs(3);
/// How long a test waits to see that a datagram does not come.
pub const UDP_SILENCE: Duration = Duration::from_millis(400);

/// A raw IPv4 socket; what is sent starts with the IP header.
#[derive(Debug)]
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// As the kernel says, for instance no permission.
    pub fn open() -> io::Result<Self> {
        let fd = sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
        sys::set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_HDRINCL, 1)?;
        Ok(Self(fd))
    }

    /// Sends `packet` to the destination in its header.
    ///
    /// # Panics
    /// When it has no IPv4 header or the kernel refuses it, for instance as larger than the MTU.
    pub fn send(&self, packet: &[u8]) {
        let to = packet.get(16..20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let to = Ipv4Addr::from(to.expect("a packet has an IPv4 header"));
        sys::send_to(self.0.as_fd(), packet, to).unwrap_or_else(|error| panic!("raw send to {to}: {error}"));
    }
}

/// Repeats `call` while it is interrupted: a socket with a time limit answers so when the machine was halted for a
/// moment (signal(7)), though nobody sent a signal.
///
/// # Errors
/// Every other one of `call`.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What a UDP socket gets within [`UDP_WAIT`]: the payload and who sent it.
///
/// # Errors
/// As the kernel says; nothing came is `WouldBlock`, a refusal by ICMP is `ConnectionRefused`.
pub fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddrV4)> {
    let mut buffer = vec![0; 65_535];
    let (len, from) = uninterrupted(|| socket.recv_from(&mut buffer))?;
    buffer.truncate(len);
    match from {
        SocketAddr::V4(from) => Ok((buffer, from)),
        SocketAddr::V6(from) => Err(io::Error::other(format!("IPv6 sender {from}"))),
    }
}

/// Nothing arrives at `socket` for [`UDP_SILENCE`].
///
/// # Panics
/// When something does, or the socket has an error.
pub fn expect_silence(socket: &UdpSocket, why: &str) {
    socket.set_read_timeout(Some(UDP_SILENCE)).expect("a timeout can be set");
    match receive(socket) {
        Ok((payload, from)) => panic!("{why}: yet {} bytes came from {from}", payload.len()),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{why}: {error}"),
    }
    socket.set_read_timeout(Some(UDP_WAIT)).expect("a timeout can be set");
}

/// Sends `payload` from `from` to `to` and answers with the sender's address that `receiver` saw.
///
/// # Panics
/// When it does not arrive as it was sent.
pub fn deliver(from: &UdpSocket, to: SocketAddrV4, receiver: &UdpSocket, payload: &[u8]) -> SocketAddrV4 {
    from.send_to(payload, to).unwrap_or_else(|error| panic!("send to {to}: {error}"));
    let (got, seen) = receive(receiver).unwrap_or_else(|error| panic!("datagram for {to}: {error}"));
    assert!(got == payload, "{} bytes for {to} arrived as {} other bytes", payload.len(), got.len());
    seen
}

/// Makes every send a train of segments of `size` bytes that the kernel (or a network card) cuts: UDP GSO.
///
/// # Panics
/// When the kernel cannot.
pub fn set_segment_size(socket: &UdpSocket, size: u16) {
    sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(size)).expect("UDP_SEGMENT");
}

/// Sets "don't fragment" on every datagram and forgets no path MTU (`IP_PMTUDISC_DO`).
///
/// # Panics
/// When the kernel cannot.
pub fn set_dont_fragment(socket: &UdpSocket) {
    sys::set_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
        .expect("IP_MTU_DISCOVER");
}
