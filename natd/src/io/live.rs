//! Packets as they come, through libpcap, and a capture file to write them to.
//!
//! One socket for all interfaces (`any`, Linux cooked version 2): the kernel keeps the order of packets that come
//! in on one interface and leave on another, whatever link layer each has.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::path::Path;

use diagnosis::link::{self, LinkType, Origin};
use pcap::{Active, Capture, Linktype, Packet, PacketHeader, Savefile};

/// Packets of all interfaces.
pub(crate) struct Live(Capture<Active>);

/// One of them.
pub(crate) struct Caught<'a> {
    /// When, as the file wants it.
    pub(crate) ts: libc::timeval,
    /// Interface and direction.
    pub(crate) origin: Origin,
    /// Bytes of the frame that are no part of the packet, however much of it was captured.
    pub(crate) on_wire: u32,
    /// The IP packet and any padding behind it.
    pub(crate) bytes: &'a [u8],
}

/// How long the kernel gathers packets before it hands them over, in milliseconds.
pub(crate) const GATHER: i32 = 100;
const BUFFER: i32 = 4 << 20;

impl Live {
    /// Starts to capture what [`Self::choose`] will choose; until then nothing.
    pub(crate) fn open() -> Result<Self, pcap::Error> {
        let capture = Capture::from_device("any")?.snaplen(65_535).timeout(GATHER).buffer_size(BUFFER);
        let mut capture = capture.open()?;
        capture.set_datalink(Linktype(i32::from(LinkType::LINUX_SLL2.0)))?;
        // The longest packet is shorter than this.
        capture.filter("greater 1000000", true)?;
        Ok(Self(capture.setnonblock()?))
    }

    /// From now on only packets that match `filter`, in libpcap's language.
    pub(crate) fn choose(&mut self, filter: &str) -> Result<(), pcap::Error> {
        self.0.filter(filter, true)
    }

    /// Readable when there are packets.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The next IP packet: `Some(None)` for one that is none, `None` if there are no more just now.
    pub(crate) fn next(&mut self) -> Result<Option<Option<Caught<'_>>>, pcap::Error> {
        match self.0.next_packet() {
            Ok(packet) => Ok(Some(caught(packet.header, packet.data))),
            Err(pcap::Error::TimeoutExpired) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many packets the kernel had no room for.
    pub(crate) fn lost(&mut self) -> u32 {
        self.0.stats().map_or(0, |stat| stat.dropped)
    }
}

fn caught<'a>(header: &PacketHeader, frame: &'a [u8]) -> Option<Caught<'a>> {
    let (bytes, origin) = link::ip(LinkType::LINUX_SLL2, frame)?;
    let headers = u32::try_from(frame.len() - bytes.len()).ok()?;
    Some(Caught { ts: header.ts, origin, on_wire: header.len.saturating_sub(headers), bytes })
}

/// A capture file that is being written.
pub(crate) struct Writer {
    file: Savefile,
    frame: Vec<u8>,
}

impl Writer {
    /// Begins the capture file `file`.
    pub(crate) fn new(file: File) -> Result<Self, pcap::Error> {
        let format = Capture::dead(Linktype(i32::from(LinkType::LINUX_SLL2.0)))?;
        // SAFETY: the descriptor is open and, from here on, nobody else's.
        let file = unsafe { format.savefile_raw_fd(file.into_raw_fd()) }?;
        Ok(Self { file, frame: Vec::new() })
    }

    /// Writes the first `kept` bytes of an IP packet of version `version`; answers how many bytes that is in the
    /// file. Whether there was room is known after [`Self::flush`].
    pub(crate) fn write(&mut self, caught: &Caught<'_>, version: u8, kept: usize) -> u64 {
        const RECORD_HEADER: u64 = 16;
        let header = caught.origin.header(version);
        self.frame.clear();
        self.frame.extend(header);
        self.frame.extend(caught.bytes.iter().take(kept));
        let caplen = u32::try_from(self.frame.len()).unwrap_or(0);
        let len = caught.on_wire.saturating_add(20).max(caplen);
        self.file.write(&Packet { header: &PacketHeader { ts: caught.ts, caplen, len }, data: &self.frame });
        RECORD_HEADER + u64::from(caplen)
    }

    /// Hands everything written to the system.
    ///
    /// # Errors
    /// What the system says, as when the disk is full.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| {
            if let pcap::Error::ErrnoError(number) = error {
                return io::Error::from_raw_os_error(number.0);
            }
            io::Error::other(error.to_string())
        })
    }
}

/// Makes the file at `path`, which only its owner may read; `-` is standard output.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    if path.as_os_str() == "-" {
        return io::stdout().as_fd().try_clone_to_owned().map(File::from);
    }
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The number of the interface `name`; `None`: there is none.
pub(crate) fn index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: the string ends in a zero byte.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}
