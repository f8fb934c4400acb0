//! Servers and senders that run beside a test in threads of their own until they are dropped.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock;
use crate::node::Node;
use crate::{socket, tcp};

/// Work in a thread that goes on until this is dropped.
#[derive(Debug)]
pub struct Ongoing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    count: AtomicU64,
}

impl Ongoing {
    fn start(mut work: impl FnMut(&Shared) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    work(&shared);
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// How many datagrams, connections or blocks so far; each function below says which.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Waits until the count has grown by `more`.
    ///
    /// # Panics
    /// When it has not after ten seconds.
    pub fn wait_for_more(&self, what: &str, more: u64) {
        let goal = self.count() + more;
        clock::wait_for(what, Duration::from_secs(10), || self.count() >= goal);
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed already.
            let _ = thread.join();
        }
    }
}

fn impatient(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
    socket
}

/// Sends back every datagram that reaches `addr`; counts them.
pub fn udp_echo(node: &Node, addr: SocketAddrV4) -> Ongoing {
    let socket = impatient(node.udp(addr));
    Ongoing::start(move |shared| {
        let mut buffer = [0; 2048];
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            shared.count.fetch_add(1, Ordering::Relaxed);
            // The asker may be gone.
            let _ = socket.send_to(buffer.get(..len).unwrap_or_default(), from);
        }
    })
}

/// Sends a datagram from `from` to `to` every `pause` and reads the answers; counts the answers.
pub fn udp_talk(node: &Node, from: SocketAddrV4, to: SocketAddrV4, pause: Duration) -> Ongoing {
    let socket = node.udp(from);
    socket.set_nonblocking(true).expect("a socket can be non-blocking");
    Ongoing::start(move |shared| {
        // Errors that ICMP left behind come out of either call; talking goes on.
        let _ = socket.send_to(b"are you there?", to);
        clock::pause(pause);
        let mut buffer = [0; 2048];
        while socket.recv_from(&mut buffer).is_ok() {
            shared.count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// Accepts connections on `addr` and sends `answer` back for whatever is asked first; counts them.
pub fn tcp_answer(node: &Node, addr: SocketAddrV4, answer: &'static [u8]) -> Ongoing {
    let listener = node.listen(addr);
    listener.set_nonblocking(true).expect("a listener can be non-blocking");
    Ongoing::start(move |shared| {
        let Ok((mut stream, _)) = listener.accept() else {
            return clock::pause(Duration::from_millis(2));
        };
        shared.count.fetch_add(1, Ordering::Relaxed);
        stream.set_nonblocking(false).expect("a stream can block");
        stream.set_read_timeout(Some(tcp::TCP_WAIT)).expect("a timeout can be set");
        let mut question = [0; 64];
        // A client that goes away early is its own affair.
        let _ = socket::uninterrupted(|| stream.read(&mut question)).and_then(|_| stream.write_all(answer));
    })
}

/// What `to` answers to a question over a fresh connection from `node`.
///
/// # Errors
/// As the kernel says.
pub fn ask(node: &Node, from: SocketAddrV4, to: SocketAddrV4) -> std::io::Result<Vec<u8>> {
    let mut stream = tcp::connect(node, from, to, tcp::TCP_WAIT)?;
    stream.write_all(b"who are you?")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A TCP stream that flows without end from `sender` to `receiver`, blocks counted as they arrive.
pub fn tcp_flow(mut sender: TcpStream, mut receiver: TcpStream) -> (Ongoing, Ongoing) {
    let short = Some(Duration::from_millis(50));
    sender.set_write_timeout(short).expect("a timeout can be set");
    receiver.set_read_timeout(short).expect("a timeout can be set");
    let sending = Ongoing::start(move |shared| {
        match sender.write(&[0x5a; 16_384]) {
            Ok(_) => drop(shared.count.fetch_add(1, Ordering::Relaxed)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // A broken connection stays broken; the count stands still and the test sees it.
            Err(_) => clock::pause(Duration::from_millis(20)),
        }
    });
    let receiving = Ongoing::start(move |shared| {
        let mut buffer = [0; 16_384];
        match socket::uninterrupted(|| receiver.read(&mut buffer)) {
            Ok(0) | Err(_) => clock::pause(Duration::from_millis(5)),
            Ok(_) => drop(shared.count.fetch_add(1, Ordering::Relaxed)),
        }
    });
    (sending, receiving)
}
