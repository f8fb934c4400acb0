//! The way from the file to the household.

use std::fs::File;
use std::io::{self, Read as _, Seek};
use std::path::Path;
use std::time::Duration;

use diagnosis::link::{self, LinkType, Origin};
use diagnosis::{Household, Packet, Point, Settings};
use nat_core::time::Timestamp;

use super::vantage::Scout;
use super::{INTERFACES, Progress, Read, Reason};
use crate::io::clock;
use crate::io::savefile::{self, Frame, Reader};

/// How many packets are looked at before the first is taken in, to learn what can be seen in the capture.
const SCOUTED: u64 = 20_000;
/// How often the clock is asked whether progress is due, in packets.
const STRIDE: u64 = 4096;
const UPDATE: Duration = Duration::from_millis(100);
/// Packets of several interfaces come in another order than that of their times. If they are further apart, the
/// clock was set back, or files were joined: time goes on from there.
const DISORDER: Duration = Duration::from_secs(5);

pub(super) fn read(
    path: &Path,
    mut settings: Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<Read, Reason> {
    let mut file = savefile::open(path).map_err(reason)?;
    let kind = file.metadata().map_err(reason)?;
    let total = if kind.is_file() { Some(kind.len()) } else { None };
    if kind.is_dir() {
        return Err(Reason::Directory);
    }
    if let Some(total) = total {
        looks_like_one(&mut file, total)?;
        settings.vantage = scout(&file, &settings)?;
        file.rewind().map_err(Reason::Other)?;
    } else {
        use std::os::unix::fs::FileTypeExt;
        let kind = kind.file_type();
        let given = path.as_os_str() == "-" && kind.is_char_device();
        if !(kind.is_fifo() || kind.is_socket() || given) {
            return Err(Reason::NoFile);
        }
        settings.vantage = Scout::unseen();
    }
    let mut reader = Reader::new(file).map_err(|error| opening(&error))?;
    let link = supported(&reader)?;
    let mut read = Read {
        household: Household::new(settings),
        packets: 0,
        ip_packets: 0,
        link,
        first: Timestamp::ZERO,
        last: Timestamp::ZERO,
        remark: None,
    };
    let mut due = clock::now() + UPDATE;
    let mut ahead = Duration::ZERO;
    loop {
        match reader.next() {
            Ok(Some(frame)) => take(&mut read, &mut ahead, &frame),
            Ok(None) if read.packets == 0 => return Err(Reason::NoPackets),
            Ok(None) => return Ok(read),
            Err(error) if read.packets == 0 => return Err(at_once(&error)),
            Err(error) => {
                read.remark = Some(remark(&error, read.packets));
                return Ok(read);
            }
        }
        if read.packets % STRIDE == 0 && clock::now() >= due {
            due = clock::now() + UPDATE;
            progress(Progress { bytes: reader.place().unwrap_or(0), total, packets: read.packets });
        }
    }
}

/// `ahead` is by how much the clock was set back so far.
fn take(read: &mut Read, ahead: &mut Duration, frame: &Frame<'_>) {
    read.packets += 1;
    if read.packets == 1 {
        read.first = frame.at;
    }
    let mut at = frame.at + *ahead;
    let behind = read.last.since(at);
    if behind > DISORDER {
        *ahead += behind;
        at = read.last;
    }
    read.last = read.last.max(at);
    let Some((packet, origin)) = packet(read.link, frame) else { return };
    read.ip_packets += 1;
    let point = origin.point.unwrap_or(Point::Unknown);
    read.household.packet(at, read.packets, point, None, &packet);
}

/// The IP packet in a frame.
fn packet<'a>(link: LinkType, frame: &Frame<'a>) -> Option<(Packet<'a>, Origin)> {
    let (bytes, origin) = link::ip(link, frame.bytes)?;
    let headers = u32::try_from(frame.bytes.len() - bytes.len()).ok()?;
    let packet = Packet::parse_cut(bytes, frame.on_wire.saturating_sub(headers))?;
    Some((packet, origin))
}

/// Is there anything, and not what everybody tries once?
fn looks_like_one(file: &mut File, total: u64) -> Result<(), Reason> {
    if total == 0 {
        return Err(Reason::Empty);
    }
    let mut head = [0; 4];
    let got = file.read(&mut head).map_err(reason)?;
    file.rewind().map_err(Reason::Other)?;
    match head.get(..got) {
        Some(
            [0x1f, 0x8b, ..]
            | [0x28, 0xb5, 0x2f, 0xfd]
            | b"BZh"
            | [b'B', b'Z', b'h', _]
            | [0xfd, b'7', b'z', b'X'],
        ) => Err(Reason::Compressed),
        _ => Ok(()),
    }
}

fn scout(file: &File, settings: &Settings) -> Result<diagnosis::Vantage, Reason> {
    let mut reader =
        Reader::new(file.try_clone().map_err(Reason::Other)?).map_err(|error| opening(&error))?;
    let link = supported(&reader)?;
    let mut scout = Scout::new(&settings.lan);
    for _ in 0..SCOUTED {
        // What is wrong is said when the packets are taken in.
        let Ok(Some(frame)) = reader.next() else { break };
        if let Some((packet, origin)) = packet(link, &frame) {
            scout.see(origin.point, &packet);
        }
    }
    Ok(scout.vantage())
}

fn supported(reader: &Reader) -> Result<LinkType, Reason> {
    let link = reader.link().filter(|link| link.is_supported());
    link.ok_or_else(|| Reason::Link(reader.link_name()))
}

fn reason(error: io::Error) -> Reason {
    let is = |kind| error.kind() == kind;
    if is(io::ErrorKind::NotFound) {
        Reason::NotFound
    } else if is(io::ErrorKind::PermissionDenied) {
        Reason::Denied
    } else if is(io::ErrorKind::IsADirectory) {
        Reason::Directory
    } else {
        Reason::Other(error)
    }
}

/// libpcap has no codes for what is wrong with a file, only sentences.
fn said(error: &pcap::Error) -> String {
    if let pcap::Error::PcapError(text) = error { text.clone() } else { error.to_string() }
}

fn opening(error: &pcap::Error) -> Reason {
    let text = said(error);
    if text.contains("unknown file format") || text.contains("file header") {
        Reason::NotACapture
    } else {
        Reason::Damaged(text)
    }
}

fn of_interfaces(text: &str) -> bool {
    text.contains("an interface has a")
}

fn at_once(error: &pcap::Error) -> Reason {
    let text = said(error);
    if of_interfaces(&text) { Reason::Interfaces } else { Reason::Damaged(text) }
}

fn remark(error: &pcap::Error, packets: u64) -> String {
    let text = said(error);
    if of_interfaces(&text) {
        format!("the file {INTERFACES}; {packets} packets before that were read")
    } else if text.contains("truncated") {
        format!("the file is cut off after packet {packets}")
    } else {
        format!("the file is damaged after packet {packets}: {text}")
    }
}
