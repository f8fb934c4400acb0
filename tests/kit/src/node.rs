//! One machine of a lab: a network namespace to run programs and open sockets in.

use std::fs;
use std::io;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::capture::{Capture, Keep};
use crate::process::{self, Background, Outcome};
use crate::socket::{RawSocket, UDP_WAIT};
use crate::sys;

/// How long a program may run unless a test says otherwise.
const RUN_DEADLINE: Duration = Duration::from_secs(60);

/// A network namespace; [`crate::Lab`] makes and deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    namespace: String,
    dir: PathBuf,
}

impl Node {
    /// The machine in the existing namespace `namespace`; logs of its programs go to `dir`.
    pub fn new(namespace: String, dir: &Path) -> Self {
        Self { namespace, dir: dir.to_owned() }
    }

    /// The namespace's name.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The folder for logs of its programs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs `work` in a thread of its own inside the namespace; sockets that it opens stay there.
    ///
    /// # Panics
    /// When the namespace cannot be entered, and when `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/run/netns").join(&self.namespace);
        let inside = || {
            sys::enter_netns(&path)
                .unwrap_or_else(|error| panic!("cannot enter {}: {error}", path.display()));
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs a program (first word) with arguments and waits for it, at most a minute.
    pub fn run(&self, words: &[&str]) -> Outcome {
        self.run_within(words, RUN_DEADLINE)
    }

    /// Runs a program and waits for it, at most `deadline`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run_within(&self, words: &[&str], deadline: Duration) -> Outcome {
        let mut command = command(words);
        let line = words.join(" ");
        let child = self
            .enter(|| process::own_group(&mut command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
            .unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        process::finish(child, line, deadline)
    }

    /// Runs a line of shell and answers its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn sh(&self, script: &str) -> String {
        self.run(&["sh", "-c", script]).expect_success()
    }

    /// Starts a program in the background.
    pub fn spawn(&self, words: &[&str]) -> Background {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let program = words.first().and_then(|word| word.rsplit('/').next()).unwrap_or("program");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.join(format!("{}-{program}-{number}.log", self.namespace));
        let mut command = command(words);
        self.enter(|| Background::start(&mut command, program, &log))
    }

    /// Loads nft rules.
    ///
    /// # Panics
    /// When nft refuses them.
    pub fn nft(&self, rules: &str) {
        let file = self.dir.join(format!("{}.nft", self.namespace));
        fs::write(&file, rules).expect("the lab's folder is writable");
        let outcome = self.run(&["nft", "-f", &file.to_string_lossy()]);
        assert!(outcome.success(), "nft refuses:\n{rules}\n{outcome}");
    }

    /// Runs many `ip` commands at once.
    ///
    /// # Panics
    /// When one fails.
    pub fn ip(&self, lines: &str) {
        let file = self.dir.join(format!("{}.ip", self.namespace));
        fs::write(&file, lines).expect("the lab's folder is writable");
        let outcome = self.run(&["ip", "-batch", &file.to_string_lossy()]);
        assert!(outcome.success(), "ip refuses:\n{lines}\n{outcome}");
    }

    /// Writes a setting below /proc/sys/net, named as in `ipv4/ip_forward`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(name);
        self.enter(|| fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{} = {value}: {error}", path.display()));
    }

    /// A UDP socket bound to `addr`; a receive waits at most [`UDP_WAIT`].
    ///
    /// # Panics
    /// When it cannot be had.
    pub fn udp(&self, addr: SocketAddrV4) -> UdpSocket {
        self.try_udp(addr).unwrap_or_else(|error| panic!("UDP {addr} in {}: {error}", self.namespace))
    }

    /// A UDP socket bound to `addr`.
    ///
    /// # Errors
    /// As the kernel says, for instance address in use.
    pub fn try_udp(&self, addr: SocketAddrV4) -> io::Result<UdpSocket> {
        self.enter(|| {
            let socket = UdpSocket::bind(addr)?;
            socket.set_read_timeout(Some(UDP_WAIT))?;
            Ok(socket)
        })
    }

    /// A TCP socket that listens on `addr`.
    ///
    /// # Panics
    /// When it cannot be had.
    pub fn listen(&self, addr: SocketAddrV4) -> TcpListener {
        self.enter(|| TcpListener::bind(addr))
            .unwrap_or_else(|error| panic!("TCP {addr} in {}: {error}", self.namespace))
    }

    /// A raw socket that sends packets with the IP header that the test made.
    ///
    /// # Panics
    /// When it cannot be had.
    pub fn raw(&self) -> RawSocket {
        self.enter(RawSocket::open)
            .unwrap_or_else(|error| panic!("raw socket in {}: {error}", self.namespace))
    }

    /// Captures the IPv4 packets on `interface`, those that `keep` wants.
    ///
    /// # Panics
    /// When the interface does not exist.
    pub fn capture(&self, interface: &str, keep: Keep) -> Capture {
        self.enter(|| Capture::start(interface, keep))
            .unwrap_or_else(|error| panic!("capture on {interface} in {}: {error}", self.namespace))
    }
}

fn command(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a program");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
