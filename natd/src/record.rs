//! `natd capture`: VPN packets as seen on the LAN and on the WAN, before and after translation, in one file.
//!
//! ```text
//!  kernel: filter.rs ─→ choice.rs: a VPN's? of this device and server? ─→ cut.rs: without payload ─→ file
//! ```
//!
//! The file is classic pcap of Linux cooked packets, version 2, so that everybody can read it. Hardware addresses
//! are left out; where they would stand a packet's side of the NAT is noted ([`diagnosis::link::Origin`]).

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "pcap")]
mod choice;
#[cfg(feature = "pcap")]
mod cut;
#[cfg(feature = "pcap")]
mod filter;
#[cfg(feature = "pcap")]
mod run;

/// What to record.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Interfaces of the home network.
    pub lan: Vec<String>,
    /// The interface towards the internet.
    pub wan: String,
    /// Where to write to; `-` is standard output. A file that is there already is overwritten, as tcpdump does.
    pub file: PathBuf,
    /// Only this device; on the WAN, the servers that it was heard to speak with.
    pub device: Option<IpAddr>,
    /// Only this server, but all that is spoken with it.
    pub server: Option<IpAddr>,
    /// For how long.
    pub time: Duration,
    /// The size of the file, in bytes, at which the recording ends.
    pub bytes: u64,
    /// Is payload recorded too?
    pub whole: bool,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// How many packets; one that crosses the router counts on both sides.
    pub packets: u64,
    /// How many of them on the LAN.
    pub lan: u64,
    /// How many on the WAN.
    pub wan: u64,
    /// Size of the file.
    pub bytes: u64,
    /// How many more there were that the kernel had no room for.
    pub lost: u32,
    /// Why it ended.
    pub end: End,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    #[default]
    Time,
    /// The file was as long as it may be.
    Size,
    /// Somebody ended it, by Ctrl-C.
    Stopped,
}

/// How far a recording is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What was recorded so far.
    pub recorded: Recorded,
    /// What is left of its time.
    pub left: Duration,
}

/// Why nothing was, or no more could be, recorded. Its `Display` is one line.
#[derive(Debug)]
pub enum RecordError {
    /// A natd without libpcap.
    NotBuilt,
    /// There is no such interface.
    Interface(String),
    /// The user may not capture.
    Denied,
    /// libpcap cannot do it.
    Libpcap(String),
    /// The file cannot be made.
    Create(PathBuf, io::Error),
    /// The file cannot be written on; so many packets came before.
    Write(PathBuf, io::Error, u64),
    /// Waiting for packets failed.
    System(io::Error),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => f.write_str(
                "this natd was built without libpcap and cannot capture; use tcpdump -i any -w FILE",
            ),
            Self::Interface(name) => {
                write!(f, "there is no interface {name}; is it up? [nat] names it")
            }
            Self::Denied => f.write_str("capturing needs root or CAP_NET_RAW"),
            Self::Libpcap(text) => write!(f, "cannot capture: {text}"),
            Self::Create(path, error) => write!(f, "{}: cannot be written: {error}", path.display()),
            Self::Write(path, error, packets) => {
                write!(f, "{}: {error}; the first {packets} packets may not all be there", path.display())
            }
            Self::System(error) => write!(f, "cannot wait for packets: {error}"),
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Create(_, error) | Self::Write(_, error, _) | Self::System(error) => Some(error),
            Self::NotBuilt | Self::Interface(_) | Self::Denied | Self::Libpcap(_) => None,
        }
    }
}

impl RecordError {
    /// May the user not do that?
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Denied => true,
            Self::Create(_, error) => error.kind() == io::ErrorKind::PermissionDenied,
            Self::NotBuilt | Self::Interface(_) | Self::Libpcap(_) | Self::Write(..) | Self::System(_) => {
                false
            }
        }
    }
}

/// Records until time or size is reached or a signal ends it. `progress` is called about four times a second.
///
/// # Errors
/// [`RecordError`]. What was written before a failure stays.
pub fn record(recording: &Recording, progress: &mut dyn FnMut(Progress)) -> Result<Recorded, RecordError> {
    #[cfg(feature = "pcap")]
    return run::record(recording, progress);
    #[cfg(not(feature = "pcap"))]
    {
        let _ = (recording, progress);
        Err(RecordError::NotBuilt)
    }
}

/// A line of progress on standard error, if that is a terminal. It is gone when this is dropped.
#[derive(Debug, Default)]
pub struct Line {
    shown: bool,
}

impl Line {
    /// Shows how far the recording is.
    pub fn show(&mut self, progress: Progress) {
        if io::stderr().is_terminal() {
            self.shown = true;
            // A terminal that is gone does not matter here.
            let _ = write!(io::stderr(), "\r{}\x1b[K", line(progress));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(Progress { recorded, left }: Progress) -> String {
    let left = left.as_secs();
    format!(
        "{} packets on the LAN, {} on the WAN, {} kB; {}:{:02} left, Ctrl-C ends",
        recorded.lan,
        recorded.wan,
        recorded.bytes.div_ceil(1000),
        left / 60,
        left % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_and_how_long() {
        let recorded = Recorded { packets: 5, lan: 3, wan: 2, bytes: 1001, ..Recorded::default() };
        let progress = Progress { recorded, left: Duration::from_secs(245) };
        assert_eq!(line(progress), "3 packets on the LAN, 2 on the WAN, 2 kB; 4:05 left, Ctrl-C ends");
    }
}
