//! Capture files through libpcap: read, with the place in the file for a progress bar, and written.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::IntoRawFd;

use diagnosis::link::LinkType;
use nat_core::time::Timestamp;
use pcap::{Capture, Offline};

/// A capture file that is being read.
pub(crate) struct Reader {
    capture: Capture<Offline>,
    /// The same open file, to ask how far it was read.
    place: File,
}

/// What a capture file holds next.
pub(crate) struct Frame<'a> {
    /// Since the Unix epoch.
    pub(crate) at: Timestamp,
    /// How long it was before the capture cut it.
    pub(crate) on_wire: u32,
    /// Its bytes.
    pub(crate) bytes: &'a [u8],
}

impl Reader {
    /// Reads `file` from its beginning.
    pub(crate) fn new(file: File) -> Result<Self, pcap::Error> {
        let place = file.try_clone()?;
        // SAFETY: the descriptor is open and, from here on, nobody else's. Where this fails it stays open, which
        // the caller's end makes good.
        let capture = unsafe { Capture::from_raw_fd(file.into_raw_fd()) }?;
        Ok(Self { capture, place })
    }

    /// How the frames begin.
    pub(crate) fn link(&self) -> Option<LinkType> {
        u16::try_from(self.capture.get_datalink().0).ok().map(LinkType)
    }

    /// What libpcap calls that.
    pub(crate) fn link_name(&self) -> String {
        let link = self.capture.get_datalink();
        link.get_name().unwrap_or_else(|_| link.0.to_string())
    }

    /// How many bytes were read so far; `None` of a pipe.
    pub(crate) fn place(&mut self) -> Option<u64> {
        self.place.stream_position().ok()
    }

    /// The next frame; `None` at the end. libpcap turns nanoseconds, or whatever pcapng counts in, into
    /// microseconds.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, pcap::Error> {
        match self.capture.next_packet() {
            Ok(packet) => {
                Ok(Some(Frame { at: time(packet.header.ts), on_wire: packet.header.len, bytes: packet.data }))
            }
            Err(pcap::Error::NoMorePackets) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Classic files have 32 bits of seconds, which libpcap takes for signed: 2038 and later is not before 1970.
#[allow(clippy::useless_conversion, reason = "some targets have 32 bits there")]
fn time(ts: libc::timeval) -> Timestamp {
    const WRAP: i64 = 1 << 32;
    let seconds = if ts.tv_sec < 0 { i64::from(ts.tv_sec) + WRAP } else { i64::from(ts.tv_sec) };
    let micros = i64::from(ts.tv_usec).clamp(0, 999_999);
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros.unsigned_abs()))
}

/// The file at `path`; `-` is standard input.
pub(crate) fn open(path: &std::path::Path) -> io::Result<File> {
    use std::os::fd::AsFd;
    if path.as_os_str() == "-" {
        return io::stdin().as_fd().try_clone_to_owned().map(File::from);
    }
    File::open(path)
}
