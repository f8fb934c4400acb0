//! TCP connections with chosen ends and deadlines, and ways to prove that data goes through them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::node::Node;
use crate::{clock, sys};

/// How long a connection may take to open, and a read to bring something.
pub const TCP_WAIT: Duration = Duration::from_secs(5);

/// Connects from `from` (port 0: any) to `to`, for at most `deadline`.
///
/// # Errors
/// As the kernel says: refused, unreachable, timed out (`WouldBlock` or `EINPROGRESS`).
pub fn connect(
    node: &Node,
    from: SocketAddrV4,
    to: SocketAddrV4,
    deadline: Duration,
) -> io::Result<TcpStream> {
    node.enter(|| {
        let fd = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        let milliseconds = u32::try_from(deadline.as_millis()).map_err(io::Error::other)?;
        sys::set_timeout(fd.as_fd(), libc::SO_SNDTIMEO, milliseconds)?;
        sys::bind(fd.as_fd(), from)?;
        sys::connect(fd.as_fd(), to)?;
        let stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(TCP_WAIT))?;
        stream.set_write_timeout(Some(TCP_WAIT))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// Takes the next connection that `listener` gets within [`TCP_WAIT`], and its peer's address.
///
/// # Panics
/// When none comes.
pub fn accept(listener: &TcpListener) -> (TcpStream, SocketAddrV4) {
    listener.set_nonblocking(true).expect("a listener can be non-blocking");
    let mut taken = None;
    clock::wait_for("a connection to accept", TCP_WAIT, || {
        taken = listener.accept().ok();
        taken.is_some()
    });
    let (stream, peer) = taken.expect("waited for");
    stream.set_nonblocking(false).expect("a stream can block");
    stream.set_read_timeout(Some(TCP_WAIT)).expect("a timeout can be set");
    stream.set_write_timeout(Some(TCP_WAIT)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("nodelay can be set");
    match peer {
        SocketAddr::V4(peer) => (stream, peer),
        SocketAddr::V6(peer) => panic!("IPv6 peer {peer}"),
    }
}

/// A connection and both its ends, opened from `client` at `from` to `to`, where `server` listens.
///
/// # Panics
/// When it does not come about.
pub fn pair(client: &Node, from: SocketAddrV4, server: &Node, to: SocketAddrV4) -> Connection {
    pair_through(client, from, to, server, to)
}

/// The same where the client connects to `to` and the server listens on `listen` (a port forward lies between).
///
/// # Panics
/// When it does not come about.
pub fn pair_through(
    client: &Node,
    from: SocketAddrV4,
    to: SocketAddrV4,
    server: &Node,
    listen: SocketAddrV4,
) -> Connection {
    let listener = server.listen(listen);
    let client =
        connect(client, from, to, TCP_WAIT).unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
    let (server, peer) = accept(&listener);
    Connection { client, server, peer }
}

/// Lets `stream` send at most so many bytes a second.
///
/// # Panics
/// When the kernel cannot.
pub fn set_pace(stream: &TcpStream, bytes_per_second: i32) {
    sys::set_option(stream.as_fd(), libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, bytes_per_second)
        .expect("SO_MAX_PACING_RATE");
}

/// Both ends of one TCP connection.
#[derive(Debug)]
pub struct Connection {
    /// The end that connected.
    pub client: TcpStream,
    /// The end that accepted.
    pub server: TcpStream,
    /// The client's address as the server sees it.
    pub peer: SocketAddrV4,
}

impl Connection {
    /// Sends different bytes both ways and checks that they arrive.
    ///
    /// # Panics
    /// When they do not; `when` names the moment.
    pub fn expect_alive(&mut self, when: &str) {
        exchange(&mut self.client, &mut self.server, b"from the client").unwrap_or_else(|error| {
            panic!("{when}: client to server: {error}");
        });
        exchange(&mut self.server, &mut self.client, b"from the server").unwrap_or_else(|error| {
            panic!("{when}: server to client: {error}");
        });
    }
}

/// Sends `bytes` from one end and reads them at the other.
///
/// # Errors
/// As the kernel says; other bytes than sent are `InvalidData`.
pub fn exchange(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    from.write_all(bytes)?;
    let mut got = vec![0; bytes.len()];
    to.read_exact(&mut got)?;
    if got == bytes { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// One block of the stream that [`send_blocks`] sends: its number, then bytes that depend on the place.
fn block(number: u32) -> Vec<u8> {
    let mut block: Vec<u8> = (0..BLOCK).map(|place| (place * 31 / 8).to_be_bytes()[3]).collect();
    for (place, byte) in block.iter_mut().zip(number.to_be_bytes()) {
        *place = byte;
    }
    block
}

/// Bytes in one block of [`send_blocks`].
pub const BLOCK: u32 = 65_536;

/// Sends `count` blocks and closes the sending side.
///
/// # Errors
/// As the kernel says.
pub fn send_blocks(stream: &mut TcpStream, count: u32) -> io::Result<()> {
    let mut bytes = block(0);
    for number in 0..count {
        for (place, byte) in bytes.iter_mut().zip(number.to_be_bytes()) {
            *place = byte;
        }
        stream.write_all(&bytes)?;
    }
    stream.shutdown(Shutdown::Write)
}

/// Reads until the other side closes and answers with the number of whole blocks that came as sent.
///
/// # Errors
/// As the kernel says; a block that differs is `InvalidData`.
pub fn receive_blocks(stream: &mut TcpStream) -> io::Result<u32> {
    let mut expected = block(0);
    let mut got = vec![0; expected.len()];
    let mut number = 0u32;
    loop {
        match stream.read_exact(&mut got) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(number),
            Err(error) => return Err(error),
        }
        for (place, byte) in expected.iter_mut().zip(number.to_be_bytes()) {
            *place = byte;
        }
        if got != expected {
            return Err(io::ErrorKind::InvalidData.into());
        }
        number += 1;
    }
}
