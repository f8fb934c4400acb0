//! A line for each VPN session when it begins, changes and ends.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use diagnosis::{Session, SessionEvent};
use nat_core::time::Timestamp;
use passthrough::view::Phase;
use serde::Serialize;

use crate::config::{self, LogFormat, LogTo};

/// Where lines go.
#[derive(Debug)]
pub(super) struct SessionLog {
    format: LogFormat,
    /// `None`: natd's own log.
    file: Option<LogFile>,
}

impl SessionLog {
    /// Opens what the configuration names; to be called while natd still has all its rights. `None`: nothing is
    /// written down. A file that cannot be had is a warning: natd goes on without.
    pub(super) fn open(config: &config::SessionLog) -> Option<Self> {
        let file = match &config.to {
            LogTo::Off => return None,
            LogTo::Log => None,
            LogTo::File(path) => match LogFile::open(path, config.max_size) {
                Ok(file) => Some(file),
                Err(error) => {
                    log::warn!(
                        "sessions.log: {}: {error}; no sessions are written down until natd is restarted",
                        path.display()
                    );
                    return None;
                }
            },
        };
        Some(Self { format: config.format, file })
    }

    /// Writes down what happened; `unix` makes natd's times the wall clock's, in microseconds.
    pub(super) fn write(&mut self, event: &SessionEvent, unix: i64) {
        let line = match self.format {
            LogFormat::Json => json(event, unix),
            LogFormat::Text => text(event, unix, self.file.is_some()),
        };
        match &mut self.file {
            None => log::info!("session: {line}"),
            Some(file) => file.line(&line),
        }
    }

    /// natd stops at `now`: for the reader of the log, every session that is not over ends with it.
    pub(super) fn end(&mut self, now: Timestamp, sessions: Vec<Session>, unix: i64) {
        for session in sessions {
            let before = session.phase;
            if before != Phase::Closed {
                let session = Session { phase: Phase::Closed, reason: "natd stops", ..session };
                self.write(&SessionEvent { at: now, before: Some(before), session }, unix);
            }
        }
    }
}

/// A file of limited size, and the one before it.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
    /// The last line could not be written, and that was said.
    failing: bool,
}

impl LogFile {
    fn open(path: &Path, max_size: u64) -> io::Result<Self> {
        // Who uses which VPN is nobody else's business; and a pipe would not be waited for.
        let mut options = File::options();
        options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file"));
        }
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, max_size, failing: false })
    }

    fn line(&mut self, line: &str) {
        match self.append(line) {
            Ok(()) if self.failing => {
                self.failing = false;
                log::info!("{}: sessions are written down again", self.path.display());
            }
            Ok(()) => {}
            Err(error) if !self.failing => {
                self.failing = true;
                log::warn!("{}: {error}; sessions are not written down", self.path.display());
            }
            Err(_) => {}
        }
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX).saturating_add(1);
        if self.size > 0 && self.size.saturating_add(length) > self.max_size {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            *self = Self { failing: self.failing, ..Self::open(&self.path, self.max_size)? };
        }
        self.file.write_all(format!("{line}\n").as_bytes()).inspect_err(|_| {
            // A part of the line may be there: no reader shall see it joined with the next one.
            let _ = self.file.set_len(self.size);
        })?;
        self.size = self.size.saturating_add(length);
        Ok(())
    }
}

/// The names of a line's fields.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    event: &'static str,
    protocol: &'static str,
    device: String,
    server: String,
    attempt: u32,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'static str>,
    duration_secs: u64,
    bytes_out: u64,
    bytes_in: u64,
    packets_out: u64,
    packets_in: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
}

fn kind(event: &SessionEvent) -> &'static str {
    match (event.before, event.session.phase) {
        (_, Phase::Closed) => "end",
        (None, _) => "start",
        (Some(_), _) => "change",
    }
}

/// Until its last packet when it is over, else until now.
fn duration(event: &SessionEvent) -> u64 {
    let Session { since, last_seen, phase, .. } = event.session;
    let until = if phase == Phase::Closed { last_seen } else { event.at };
    until.since(since).as_secs()
}

fn json(event: &SessionEvent, unix: i64) -> String {
    let session = &event.session;
    let ([packets_out, packets_in], [bytes_out, bytes_in]) = (session.packets, session.bytes);
    let line = Line {
        time: &utc(event.at, unix),
        event: kind(event),
        protocol: session.vpn.name(),
        device: session.device.to_string(),
        server: session.server.to_string(),
        attempt: session.attempt,
        phase: session.phase.name(),
        before: event.before.map(Phase::name),
        duration_secs: duration(event),
        bytes_out,
        bytes_in,
        packets_out,
        packets_in,
        reason: session.reason,
    };
    serde_json::to_string(&line).unwrap_or_default()
}

fn text(event: &SessionEvent, unix: i64, with_time: bool) -> String {
    let session = &event.session;
    let [bytes_out, bytes_in] = session.bytes;
    let mut line = String::new();
    if with_time {
        line.push_str(&utc(event.at, unix));
        line.push(' ');
    }
    let _ = write!(
        line,
        "{} {} {} → {}, {}, {} s, {bytes_out} bytes out, {bytes_in} bytes in",
        kind(event),
        session.vpn.name(),
        session.device,
        session.server,
        session.phase.name(),
        duration(event),
    );
    if !session.reason.is_empty() {
        let _ = write!(line, ", {}", session.reason);
    }
    line
}

/// ISO 8601 with milliseconds, as UTC.
fn utc(at: Timestamp, unix: i64) -> String {
    let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX).saturating_add(unix);
    let millis = u64::try_from(micros / 1000).unwrap_or(0);
    let (secs, days) = (millis / 1000 % 86_400, millis / 86_400_000);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        secs / 3600,
        secs / 60 % 60,
        secs % 60,
        millis % 1000
    )
}

/// Year, month and day, so many days after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // 400 years of the Gregorian calendar have 146,097 days.
    let (mut year, mut rest) = (1970 + days / 146_097 * 400, days % 146_097);
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use passthrough::Vpn;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    /// 2026-03-01 12:00:00 is 1,772,366,400 s after 1970.
    const UNIX: i64 = 1_772_366_400_000_000 - 100_000_000;

    fn ended() -> SessionEvent {
        let session = Session {
            vpn: Vpn::Esp,
            device: [192, 168, 1, 11].into(),
            server: [198, 51, 100, 10].into(),
            attempt: 2,
            phase: Phase::Closed,
            reason: "closed by the server",
            since: at(40),
            last_seen: at(97),
            packets: [5, 6],
            bytes: [700, 800],
        };
        SessionEvent { at: at(100), before: Some(Phase::Data), session }
    }

    fn begun() -> SessionEvent {
        let mut event = ended();
        event.session.phase = Phase::Handshake;
        event.session.reason = "";
        SessionEvent { before: None, ..event }
    }

    #[test]
    fn a_line_says_who_how_long_how_much_and_why() {
        assert_eq!(
            json(&ended(), UNIX),
            "{\"time\":\"2026-03-01T12:00:00.000Z\",\"event\":\"end\",\"protocol\":\"IPsec ESP\",\
             \"device\":\"192.168.1.11\",\"server\":\"198.51.100.10\",\"attempt\":2,\"phase\":\"closed\",\
             \"before\":\"data\",\"duration_secs\":57,\"bytes_out\":700,\"bytes_in\":800,\"packets_out\":5,\
             \"packets_in\":6,\"reason\":\"closed by the server\"}"
        );
        assert_eq!(
            text(&ended(), UNIX, true),
            "2026-03-01T12:00:00.000Z end IPsec ESP 192.168.1.11 → 198.51.100.10, closed, 57 s, 700 bytes out, \
             800 bytes in, closed by the server"
        );
        assert_eq!(
            text(&begun(), UNIX, false),
            "start IPsec ESP 192.168.1.11 → 198.51.100.10, handshake, 60 s, 700 bytes out, 800 bytes in"
        );
        assert!(!json(&begun(), UNIX).contains("reason") && !json(&begun(), UNIX).contains("before"));
    }

    #[test]
    fn sessions_that_are_not_over_end_with_natd() {
        let folder = Folder::new("end");
        let path = folder.0.join("log");
        let config =
            config::SessionLog { to: LogTo::File(path.clone()), format: LogFormat::Text, max_size: 1000 };
        let mut log = SessionLog::open(&config).unwrap();
        log.end(at(100), vec![ended().session, begun().session], UNIX);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "2026-03-01T12:00:00.000Z end IPsec ESP 192.168.1.11 → 198.51.100.10, closed, 57 s, 700 bytes out, \
             800 bytes in, natd stops\n"
        );
    }

    #[test]
    fn days_have_their_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_453, (2025, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (146_097, (2370, 1, 1)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("natd-sessions-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_full_file_becomes_the_one_before() {
        let folder = Folder::new("full");
        let path = folder.0.join("log");
        fs::write(&path, "before\n").unwrap();
        let mut file = LogFile::open(&path, 20).unwrap();
        for line in ["one", "two", "three", "four", "five", "six"] {
            file.line(line);
        }
        let read = |name: &str| fs::read_to_string(folder.0.join(name)).unwrap();
        assert_eq!(read("log"), "three\nfour\nfive\nsix\n");
        assert_eq!(read("log.1"), "before\none\ntwo\n");
    }

    #[test]
    fn a_line_larger_than_the_file_may_be_is_written_alone() {
        let folder = Folder::new("large");
        let path = folder.0.join("log");
        let mut file = LogFile::open(&path, 10).unwrap();
        file.line("0123456789012345");
        file.line("next");
        assert_eq!(fs::read_to_string(&path).unwrap(), "next\n");
    }

    #[test]
    fn a_full_disk_is_said_once_and_ends() {
        let mut file = LogFile {
            path: "/dev/full".into(),
            file: File::options().append(true).open("/dev/full").unwrap(),
            size: 0,
            max_size: 1000,
            failing: false,
        };
        file.line("lost");
        assert!(file.failing);
        let folder = Folder::new("disk");
        let path = folder.0.join("log");
        file.file = File::options().append(true).create(true).open(&path).unwrap();
        file.line("kept");
        assert!(!file.failing);
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept\n");
    }

    #[test]
    fn what_cannot_be_opened_is_no_log() {
        let to = |path: &str| config::SessionLog { to: LogTo::File(path.into()), ..Default::default() };
        assert!(SessionLog::open(&to("/nowhere/at/all")).is_none());
        assert!(SessionLog::open(&to("/dev/full")).is_none());
        assert!(SessionLog::open(&config::SessionLog::default()).is_none());
    }
}
