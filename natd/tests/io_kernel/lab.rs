//! A LAN host, a router behind a stateful firewall, and a server, each in a network namespace of its own.
//!
//! The router translates nothing: conntrack sees the LAN's view, as it does behind natd's own rewriting.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
pub(crate) const WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub(crate) const LAN_GATEWAY: &str = "192.168.1.1";
pub(crate) const WAN_GATEWAY: &str = "192.0.2.1";

/// How long a packet that must arrive may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long we wait for one that must not; the way takes microseconds.
pub(crate) const SILENCE: Duration = Duration::from_millis(150);

/// Can kernel tests run? Without root they fail, unless the environment says that this is known.
pub(crate) fn possible() -> bool {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } == 0 {
        return true;
    }
    assert_eq!(
        std::env::var("NATD_TESTS_NO_ROOT").as_deref(),
        Ok("1"),
        "kernel tests need root; NATD_TESTS_NO_ROOT=1 leaves them out"
    );
    eprintln!("LEFT OUT: this kernel test needs root, and NATD_TESTS_NO_ROOT=1 is set");
    false
}

/// A network namespace; gone with this value.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("nio-{}-{count}-{role}", std::process::id()) };
        run(Command::new("ip").args(["netns", "add", &namespace.name]));
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` with `arguments`, separated by spaces, in here.
    pub(crate) fn ip(&self, arguments: &str) {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split(' ')));
    }

    /// Runs any command line, separated by spaces, in here.
    pub(crate) fn run(&self, line: &str) -> String {
        run(Command::new("ip").args(["netns", "exec", &self.name]).args(line.split(' ')))
    }

    pub(crate) fn nft(&self, rules: &str) {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "nft refuses {rules}");
    }

    /// Calls `work` on a thread that is in here; sockets that it opens stay here.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
                // SAFETY: changes this thread only.
                assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.enter(|| std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap());
    }

    /// A UDP socket on `port`.
    pub(crate) fn udp(&self, addr: Ipv4Addr, port: u16) -> UdpSocket {
        self.enter(|| UdpSocket::bind((addr, port)).unwrap())
    }

    /// A raw socket that gets a copy of every packet of `protocol` for this host, from the IPv4 header on.
    pub(crate) fn raw(&self, protocol: i32) -> UdpSocket {
        self.enter(|| {
            // SAFETY: no pointers; the descriptor is fresh, and the calls used on it fit any datagram socket.
            unsafe {
                let fd = libc::socket(libc::AF_INET, libc::SOCK_RAW, protocol);
                assert!(fd >= 0);
                UdpSocket::from_raw_fd(fd)
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// `LAN` — router — `WAN`; only answers and what the LAN begins pass.
pub(crate) struct Lab {
    pub(crate) lan: Namespace,
    pub(crate) router: Namespace,
    pub(crate) wan: Namespace,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab =
            Self { lan: Namespace::new("lan"), router: Namespace::new("router"), wan: Namespace::new("wan") };
        lab.join(&lab.lan, "lan0", &format!("{LAN}/24"), LAN_GATEWAY);
        lab.join(&lab.wan, "wan0", &format!("{WAN}/24"), WAN_GATEWAY);
        lab.router.sysctl("ipv4/ip_forward", "1");
        lab.router.nft(
            "table ip firewall {
                chain passing {
                    type filter hook forward priority 0; policy drop;
                    ct state invalid drop
                    ct state established,related accept
                    iifname lan0 oifname wan0 accept
                }
            }",
        );
        lab
    }

    fn join(&self, host: &Namespace, port: &str, address: &str, gateway: &str) {
        host.ip(&format!("link add eth0 type veth peer name {port} netns {}", self.router.name));
        self.router.ip(&format!("addr add {gateway}/24 dev {port}"));
        self.router.ip(&format!("link set {port} up"));
        host.ip(&format!("addr add {address} dev eth0"));
        host.ip("link set eth0 up");
        host.ip(&format!("route add default via {gateway}"));
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?} fails: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// An IPv4 packet around `segment`, whose checksum at `checksum_at` is filled in; the kernel does the header's.
pub(crate) fn packet(
    protocol: u8,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    mut segment: Vec<u8>,
    checksum_at: usize,
) -> Vec<u8> {
    let len = u16::try_from(segment.len()).unwrap();
    let mut sum: u32 = 0;
    if protocol != 1 {
        let [a, b, c, d] = src.octets();
        let [e, f, g, h] = dst.octets();
        let [i, j] = len.to_be_bytes();
        sum = words(&[a, b, c, d, e, f, g, h, 0, protocol, i, j]);
    }
    sum += words(&segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&(len + 20).to_be_bytes());
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(segment);
    packet
}

/// A TCP segment with the given flags; `data` behind it.
pub(crate) fn tcp(
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(src.1.to_be_bytes());
    segment.extend(dst.1.to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend(data);
    packet(6, src.0, dst.0, segment, 16)
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

/// What arrives on `socket` within `patience`.
pub(crate) fn receive(socket: &UdpSocket, patience: Duration) -> Option<Vec<u8>> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut bytes = vec![0; 70_000];
    let got = socket.recv(&mut bytes).ok()?;
    bytes.truncate(got);
    Some(bytes)
}
