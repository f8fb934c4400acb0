//! Traffic between two endpoints, and what it cost.
//!
//! Sockets are made inside the namespaces; the threads that use them are this process's own, so their CPU
//! time is known exactly. On a veth pair the sender's system call carries a packet through the router into
//! the receiver's socket, so that the router's work is part of that time; the daemon and the kernel's soft
//! interrupt threads do the rest.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::lab::{Lab, SERVER};
use super::{cpu, sys};
use crate::clock;
use crate::sample::Samples;

const PATIENCE: Duration = Duration::from_millis(500);

/// What some traffic cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Wall time.
    pub(super) time: Duration,
    /// CPU time of sender, receiver, daemon and soft interrupts.
    pub(super) cpu: Duration,
    /// Of these, the daemon's.
    pub(super) daemon: Duration,
    /// Bytes or packets that arrived.
    pub(super) arrived: u64,
}

fn address(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(SERVER), port)
}

/// Which way the bulk of the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// Runs `work`, which answers its own threads' CPU time and what arrived, and adds the CPU time of the others.
fn costing(lab: &Lab, work: impl FnOnce() -> io::Result<(Duration, u64)>) -> io::Result<Cost> {
    let others = || (lab.cpu_of_daemon(), cpu::of_soft_interrupts());
    let before = others();
    let begin = clock::now();
    let (own, arrived) = work()?;
    let time = begin.elapsed();
    clock::pause(Duration::from_millis(20)); // a thread's account is complete when it sleeps
    let after = others();
    let daemon = after.0.saturating_sub(before.0);
    Ok(Cost { time, cpu: own + daemon + after.1.saturating_sub(before.1), daemon, arrived })
}

/// As many bytes as go through `streams` TCP connections in `time`.
pub(super) fn tcp_bulk(lab: &Lab, streams: usize, way: Way, time: Duration) -> io::Result<Cost> {
    let listener = sys::within(&lab.name("server"), || TcpListener::bind(address(9001)))?;
    let mut pairs = Vec::new();
    for _ in 0..streams {
        let near =
            sys::within(&lab.name("client"), || TcpStream::connect_timeout(&address(9001).into(), PATIENCE))?;
        let far = listener.accept()?.0;
        pairs.push(if way == Way::Up { (near, far) } else { (far, near) });
    }
    costing(lab, || {
        let end = clock::now() + time;
        let pour = |mut stream: TcpStream| {
            let block = vec![0_u8; 128 * 1024];
            while clock::now() < end {
                stream.write_all(&block)?;
            }
            io::Result::Ok((sys::cpu_of_thread(), 0))
        };
        let drain = |mut stream: TcpStream| {
            let mut block = vec![0_u8; 256 * 1024];
            let mut total = 0;
            loop {
                match stream.read(&mut block)? {
                    0 => return io::Result::Ok((sys::cpu_of_thread(), total)),
                    n => total += n as u64,
                }
            }
        };
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (sender, receiver) in pairs {
                threads.push(scope.spawn(move || pour(sender)));
                threads.push(scope.spawn(move || drain(receiver)));
            }
            let mut sum = (Duration::ZERO, 0);
            for thread in threads {
                let (cpu, bytes) = thread.join().map_err(|_| io::Error::other("panic"))??;
                sum = (sum.0 + cpu, sum.1 + bytes);
            }
            Ok(sum)
        })
    })
}

/// `count` small datagrams of one flow, at most a window's worth of them on the way at any time.
pub(super) fn udp_small(lab: &Lab, count: u64) -> io::Result<Cost> {
    let (near, far) = udp_pair(lab, 9002)?;
    sys::set_receive_buffer(&far, 8 << 20)?;
    let mut payload = [0; 36]; // 64 bytes with the headers
    closed_loop(lab, &far, count, 512, || sys::send_batch(&near, &mut payload))
}

/// A first datagram from each of the ports in `ports`, which were never used before.
pub(super) fn udp_new_flows(lab: &Lab, ports: std::ops::Range<u16>) -> io::Result<Cost> {
    let far = sys::within(&lab.name("server"), || UdpSocket::bind(address(9003)))?;
    far.set_read_timeout(Some(PATIENCE))?;
    let near = sys::within(&lab.name("client"), || {
        ports
            .map(|port| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
                socket.connect(address(9003)).map(|()| socket)
            })
            .collect::<io::Result<Vec<_>>>()
    })?;
    let mut unused = near.iter();
    closed_loop(lab, &far, near.len() as u64, 128, || match unused.next() {
        Some(socket) => socket.send(&[0; 36]).map(|_| 1),
        None => Err(ErrorKind::UnexpectedEof.into()),
    })
}

/// `count` TCP connections, one after the other, opened and closed.
pub(super) fn tcp_connects(lab: &Lab, count: u64) -> io::Result<Cost> {
    let listener = sys::within(&lab.name("server"), || TcpListener::bind(address(9004)))?;
    let name = lab.name("client");
    costing(lab, || {
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                for _ in 0..count {
                    let (mut stream, _) = listener.accept()?;
                    let _end = stream.read(&mut [0; 1])?;
                }
                io::Result::Ok(sys::cpu_of_thread())
            });
            let near = sys::within(&name, || {
                for _ in 0..count {
                    drop(TcpStream::connect_timeout(&address(9004).into(), Duration::from_secs(3))?);
                }
                Ok(sys::cpu_of_thread())
            })?;
            let far = server.join().map_err(|_| io::Error::other("panic"))??;
            Ok((near + far, count))
        })
    })
}

/// Microseconds from request to response, `count` times.
pub(super) fn latency(lab: &Lab, count: u32) -> io::Result<Samples> {
    let (near, far) = udp_pair(lab, 9005)?;
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&far));
        let mut nanos = Vec::new();
        for _ in 0..count {
            let begin = clock::now();
            near.send(&[1; 40])?;
            let mut buffer = [0; 64];
            near.recv(&mut buffer)?;
            nanos.push(begin.elapsed().as_nanos() as f64 / 1000.0);
        }
        near.send(&[])?;
        Ok(nanos.into_iter().collect())
    })
}

/// Answers until an empty datagram or silence.
fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 64];
    while let Ok((len @ 1.., from)) = socket.recv_from(&mut buffer) {
        if socket.send_to(&buffer[..len], from).is_err() {
            return;
        }
    }
}

/// Two UDP sockets that have heard of each other.
fn udp_pair(lab: &Lab, port: u16) -> io::Result<(UdpSocket, UdpSocket)> {
    let far = sys::within(&lab.name("server"), || UdpSocket::bind(address(port)))?;
    let near = sys::within(&lab.name("client"), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(address(port)).map(|()| socket)
    })?;
    far.set_read_timeout(Some(PATIENCE))?;
    near.set_read_timeout(Some(PATIENCE))?;
    near.send(&[1])?;
    let (_, from) = far.recv_from(&mut [0; 8])?;
    far.send_to(&[1], from)?;
    near.recv(&mut [0; 8])?;
    Ok((near, far))
}

/// Sends until `count` datagrams have gone to `far`, no more than `window` of them unreceived.
pub(super) fn closed_loop(
    lab: &Lab,
    far: &(impl AsRawFd + Sync),
    count: u64,
    window: u64,
    mut send: impl FnMut() -> io::Result<usize>,
) -> io::Result<Cost> {
    let arrived = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let (lock, half_empty) = (Mutex::new(()), Condvar::new());
    costing(lab, || {
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut told = 0;
                while arrived.load(Ordering::Relaxed) < count {
                    let Ok(n) = sys::receive_batch(far) else {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        continue;
                    };
                    let total = arrived.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
                    if total - told >= window / 4 {
                        told = total;
                        half_empty.notify_one();
                    }
                }
                sys::cpu_of_thread()
            });
            let begin = sys::cpu_of_thread();
            let (mut sent, mut lost) = (0, 0);
            while sent < count {
                sent += send()? as u64;
                let waiting = |()| {
                    let on_the_way = sent.saturating_sub(lost + arrived.load(Ordering::Relaxed));
                    on_the_way + sys::BATCH as u64 > window
                };
                if waiting(()) {
                    let guard = lock.lock().map_err(|_| io::Error::other("panic"))?;
                    let empty = half_empty.wait_timeout_while(guard, PATIENCE, |()| waiting(()));
                    if empty.map_err(|_| io::Error::other("panic"))?.1.timed_out() {
                        lost = sent.saturating_sub(arrived.load(Ordering::Relaxed));
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
            let own = sys::cpu_of_thread().saturating_sub(begin);
            let other = receiver.join().map_err(|_| io::Error::other("panic"))?;
            Ok((own + other, arrived.load(Ordering::Relaxed)))
        })
    })
}
