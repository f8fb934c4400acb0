//! A capture file, read into a [`Household`].
//!
//! libpcap reads the file: classic pcap and pcapng, in either byte order, microseconds or nanoseconds. What it
//! cannot read is a pcapng file whose interfaces differ in link type or snap length; that is said, and what comes
//! before the second interface is diagnosed. Memory does not grow with the file.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use diagnosis::link::LinkType;
use diagnosis::{Household, Settings};
use nat_core::time::Timestamp;

#[cfg(feature = "pcap")]
mod read;
#[cfg(feature = "pcap")]
mod vantage;

/// What a capture file held.
#[derive(Debug)]
pub struct Read {
    /// All its packets, taken in.
    pub household: Household,
    /// Frames in the file.
    pub packets: u64,
    /// IP packets among them that could be read.
    pub ip_packets: u64,
    /// How the frames begin.
    pub link: LinkType,
    /// Time of the first frame, since the Unix epoch.
    pub first: Timestamp,
    /// The latest time of any frame, since the Unix epoch. Behind a place where the clock was set back, times go on
    /// from there.
    pub last: Timestamp,
    /// Why the file was not read to its end, if so: a sentence.
    pub remark: Option<String>,
}

/// How far reading is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes of the file.
    pub bytes: u64,
    /// Its size; `None` of a pipe.
    pub total: Option<u64>,
    /// Frames.
    pub packets: u64,
}

/// Why a capture could not be read. Its `Display` is one line that begins with the path.
#[derive(Debug)]
pub struct CaptureError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
#[cfg_attr(not(feature = "pcap"), expect(dead_code, reason = "what a build that reads none cannot say"))]
enum Reason {
    #[cfg(not(feature = "pcap"))]
    NotBuilt,
    NotFound,
    Denied,
    Directory,
    NoFile,
    Empty,
    NotACapture,
    Compressed,
    NoPackets,
    Link(String),
    Interfaces,
    Damaged(String),
    Other(io::Error),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.reason {
            #[cfg(not(feature = "pcap"))]
            Reason::NotBuilt => f.write_str(
                "this natd was built without libpcap and cannot read captures; use one built with it, on a PC",
            ),
            Reason::NotFound => f.write_str("no such file"),
            Reason::Denied => f.write_str("not readable for this user"),
            Reason::Directory => f.write_str("is a directory, not a capture"),
            Reason::NoFile => f.write_str("is neither a file nor a pipe"),
            Reason::Empty => f.write_str("is empty: not even the head of a capture was written"),
            Reason::NotACapture => f.write_str("not a capture: neither pcap nor pcapng"),
            Reason::Compressed => f.write_str("is compressed; unpack it first, as with gunzip"),
            Reason::NoPackets => f.write_str("a capture without packets"),
            Reason::Link(name) => write!(
                f,
                "link type {name} cannot be read; capture on Ethernet, PPP or with tcpdump -i any"
            ),
            Reason::Interfaces => f.write_str(INTERFACES),
            Reason::Damaged(text) => write!(f, "damaged before its first packet: {text}"),
            Reason::Other(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

const INTERFACES: &str = "holds several interfaces of different kinds, which libpcap cannot read; \
                          save the packets of each interface on their own";

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Reason::Other(error) = &self.reason { Some(error) } else { None }
    }
}

impl CaptureError {
    /// Is it a capture, but nothing is in it?
    pub fn is_without_packets(&self) -> bool {
        matches!(self.reason, Reason::NoPackets)
    }

    /// May the user not read it?
    pub fn is_permission(&self) -> bool {
        matches!(self.reason, Reason::Denied)
    }
}

/// Reads the capture at `path`, or standard input for `-`, into a household made with `settings`, whose vantage
/// is replaced by what the first packets show. `progress` is called at most ten times a second.
///
/// What is cut off in the middle or damaged there is read up to there, see [`Read::remark`].
///
/// # Errors
/// [`CaptureError`]: nothing in the file could be read.
pub fn read(
    path: &Path,
    settings: Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<Read, CaptureError> {
    #[cfg(feature = "pcap")]
    let read = read::read(path, settings, progress);
    #[cfg(not(feature = "pcap"))]
    let read = {
        let _ = (settings, progress);
        Err(Reason::NotBuilt)
    };
    read.map_err(|reason| CaptureError { path: path.to_owned(), reason })
}

/// A progress bar on standard error, if that is a terminal. It is gone when this is dropped.
#[derive(Debug, Default)]
pub struct Bar {
    shown: bool,
}

impl Bar {
    /// Shows how far reading is.
    pub fn show(&mut self, progress: Progress) {
        if io::stderr().is_terminal() {
            self.shown = true;
            // A terminal that is gone does not matter here.
            let _ = write!(io::stderr(), "\r{}\x1b[K", line(progress));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(Progress { bytes, total, packets }: Progress) -> String {
    const WIDTH: u64 = 30;
    let Some(total) = total.filter(|&total| total > 0) else {
        return format!("reading  {packets} packets");
    };
    let part = |of: u64| bytes.min(total).saturating_mul(of) / total;
    let full = usize::try_from(part(WIDTH)).unwrap_or(0);
    format!("reading [{:<30}] {:>3} %  {packets} packets", "#".repeat(full), part(100))
}

#[cfg(feature = "pcap")]
#[cfg(test)]
mod tests;
