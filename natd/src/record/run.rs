//! The recording itself.

use std::io;
use std::time::Duration;

use diagnosis::{Packet, Point};
use nat_core::time::Timestamp;

use super::choice::Choice;
use super::cut::kept;
use super::filter::filter;
use super::{End, Progress, RecordError, Recorded, Recording};
use crate::io::clock;
use crate::io::live::{self, Caught, Live, Writer};
use crate::io::poll;
use crate::io::signals::{Signal, Signals};

/// How often progress is shown and the file brought up to date.
const ROUND: Duration = Duration::from_millis(250);
/// How often interfaces are looked up: PPP has a new one after each reconnect.
const LOOKUP: Duration = Duration::from_secs(1);
/// The kernel gathers packets before it hands them over: what came before the end is here after this time.
const GATHERED: Duration = Duration::from_millis(2 * live::GATHER.unsigned_abs() as u64);
/// The most packets between two looks at signals and clock.
const BATCH: usize = 1024;
/// Head of the file.
const FILE_HEADER: u64 = 24;

pub(super) fn record(
    recording: &Recording,
    progress: &mut dyn FnMut(Progress),
) -> Result<Recorded, RecordError> {
    let mut interfaces = Interfaces::default();
    interfaces.look_up(recording);
    if let Some((name, _, _)) = interfaces.0.iter().find(|(_, _, index)| index.is_none()) {
        return Err(RecordError::Interface(name.clone()));
    }
    // Before the file is made, and with it an older one lost.
    let mut signals = Signals::open().map_err(RecordError::System)?;
    let mut live = Live::open().map_err(libpcap)?;
    let file = live::create(&recording.file).map_err(|error| create(recording, error))?;
    let mut writer = Writer::new(file).map_err(libpcap)?;
    let mut choice = Choice::new(recording.device, recording.server);
    let mut recorded = Recorded { bytes: FILE_HEADER, ..Recorded::default() };
    live.choose(&filter(interfaces.indices(), recording.server)).map_err(libpcap)?;

    let begin = clock::now();
    let (mut next_round, mut next_lookup) = (begin, begin + LOOKUP);
    let end = loop {
        let now = clock::now();
        if now >= next_round {
            next_round = now + ROUND;
            flush(&mut writer, recording, &recorded)?;
            let left = recording.time.saturating_sub(now.since(begin));
            progress(Progress { recorded, left });
        }
        if now >= next_lookup {
            next_lookup = now + LOOKUP;
            if interfaces.look_up(recording) {
                live.choose(&filter(interfaces.indices(), recording.server)).map_err(libpcap)?;
            }
        }
        if now.since(begin) >= recording.time {
            break End::Time;
        }
        if signals.pending().contains(&Signal::Stop) {
            break End::Stopped;
        }
        if take(&mut live, &interfaces, &mut choice, recording, &mut writer, &mut recorded)? {
            break End::Size;
        }
        let limit = until(now, next_round).min(recording.time.saturating_sub(now.since(begin)));
        // Rounded up, or the last millisecond would be waited for without waiting.
        poll::wait(&[signals.fd(), live.fd()], Some(limit + Duration::from_millis(1)))
            .map_err(RecordError::System)?;
    };
    let last = clock::now() + GATHERED;
    while end != End::Size && clock::now() < last {
        let limit = last.since(clock::now()) + Duration::from_millis(1);
        poll::wait(&[live.fd()], Some(limit)).map_err(RecordError::System)?;
        if take(&mut live, &interfaces, &mut choice, recording, &mut writer, &mut recorded)? {
            break;
        }
    }
    flush(&mut writer, recording, &recorded)?;
    recorded.lost = live.lost();
    recorded.end = end;
    Ok(recorded)
}

/// Takes what has come, at most a batch; answers whether the file is full.
fn take(
    live: &mut Live,
    interfaces: &Interfaces,
    choice: &mut Choice,
    recording: &Recording,
    writer: &mut Writer,
    recorded: &mut Recorded,
) -> Result<bool, RecordError> {
    for _ in 0..BATCH {
        let Some(caught) = live.next().map_err(libpcap)? else { break };
        let Some(mut caught) = caught else { continue };
        let Some(point) = caught.origin.interface.and_then(|index| interfaces.point(index)) else { continue };
        let Some(packet) = Packet::parse_cut(caught.bytes, caught.on_wire) else { continue };
        if !choice.wants(point, &packet) {
            continue;
        }
        caught.origin.point = Some(point);
        let headers = headers(&caught, &packet);
        let version = if packet.src.is_ipv6() { 6 } else { 4 };
        let bytes = headers + kept(&packet, recording.whole);
        recorded.bytes += writer.write(&caught, version, bytes);
        recorded.packets += 1;
        match point {
            Point::Lan => recorded.lan += 1,
            Point::Wan | Point::Unknown => recorded.wan += 1,
        }
        if recorded.bytes >= recording.bytes {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How long the IP headers are.
fn headers(caught: &Caught<'_>, packet: &Packet<'_>) -> usize {
    let len = packet.ip_len.saturating_sub(packet.payload_len);
    usize::try_from(len).unwrap_or(0).min(caught.bytes.len())
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    then.since(now)
}

fn flush(writer: &mut Writer, recording: &Recording, recorded: &Recorded) -> Result<(), RecordError> {
    writer.flush().map_err(|error| RecordError::Write(recording.file.clone(), error, recorded.packets))
}

fn create(recording: &Recording, error: io::Error) -> RecordError {
    RecordError::Create(recording.file.clone(), error)
}

/// libpcap tells by sentences what went wrong.
fn libpcap(error: pcap::Error) -> RecordError {
    let pcap::Error::PcapError(text) = error else { return RecordError::Libpcap(error.to_string()) };
    if text.contains("permi") || text.contains("CAP_NET_RAW") {
        return RecordError::Denied;
    }
    RecordError::Libpcap(text)
}

/// Name, side and, while it exists, number of each interface.
#[derive(Default)]
struct Interfaces(Vec<(String, Point, Option<u32>)>);

impl Interfaces {
    /// Answers whether anything is not as before.
    fn look_up(&mut self, recording: &Recording) -> bool {
        let lan = recording.lan.iter().map(|name| (name, Point::Lan));
        let all = lan.chain([(&recording.wan, Point::Wan)]);
        let now: Vec<_> = all.map(|(name, point)| (name.clone(), point, live::index(name))).collect();
        let changed = now != self.0;
        self.0 = now;
        changed
    }

    fn indices(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|(_, _, index)| *index)
    }

    fn point(&self, index: u32) -> Option<Point> {
        self.0.iter().find(|(_, _, known)| *known == Some(index)).map(|(_, point, _)| *point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libpcap_says_of_a_missing_right_is_known() {
        let rows = [
            ("socket: Operation not permitted", "capturing needs root or CAP_NET_RAW"),
            (
                "Attempt to create packet socket failed - CAP_NET_RAW may be required",
                "capturing needs root or CAP_NET_RAW",
            ),
            ("syntax error", "cannot capture: syntax error"),
        ];
        for (text, expected) in rows {
            assert_eq!(libpcap(pcap::Error::PcapError(text.into())).to_string(), expected);
        }
    }
}
