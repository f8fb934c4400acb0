//! A diagnosis as text for a person.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{DiagnosisReport, EvidenceRow, FindingRow, PacketRow, SessionRow};
use crate::report::units::{bytes, count, span};

/// Sentences are broken after so many columns.
const WIDTH: usize = 88;
/// Longer lists help nobody.
const MOST: usize = 40;

/// Writes `report`. `offset` tells by how many seconds local time is ahead of UTC at a Unix time in seconds.
///
/// # Errors
/// Those of `out`.
pub fn text(report: &DiagnosisReport, offset: &dyn Fn(i64) -> i64, out: &mut dyn Write) -> io::Result<()> {
    let clock = Clock { offset, today: day(report.time_ms, offset) };
    let problems: Vec<&FindingRow> = report.findings.iter().filter(|f| f.is_problem()).collect();
    let mut shown: Vec<&FindingRow> = Vec::new();
    for problem in &problems {
        if !shown.iter().any(|earlier| earlier.is_like(problem)) {
            let times = problems.iter().filter(|other| other.is_like(problem)).count();
            clock.problem(problem, times, out)?;
            shown.push(problem);
        }
    }
    sessions(report, out)?;
    if report.sessions.is_empty() && problems.is_empty() {
        let (packets, s) = (count(report.packets), if report.packets == 1 { "" } else { "s" });
        let of = report.asked_of.map(|device| format!(" of {device}")).unwrap_or_default();
        writeln!(out, "No VPN{of} was seen in {packets} packet{s}. Let the device connect, and look again.")?;
    }
    let over = report.findings.iter().filter(|finding| finding.overcome);
    clock.list("Earlier, and over by now:", over, out)?;
    let notes = report.findings.iter().filter(|finding| !finding.overcome && !finding.is_problem());
    clock.list("Worth knowing, no problem by itself:", notes, out)?;
    blind(report, out)
}

impl FindingRow {
    /// The same about another attempt?
    fn is_like(&self, other: &Self) -> bool {
        (&self.code, &self.vpn, &self.device, &self.server)
            == (&other.code, &other.vpn, &other.device, &other.server)
    }

    /// Who with whom.
    fn subject(&self) -> String {
        let mut text = self.device.clone().unwrap_or_else(|| "All devices".into());
        if let Some(server) = &self.server {
            // Where a name was asked for is not where the VPN is.
            text = text + if self.is_about_names() { ", asking " } else { " → " } + server;
        }
        match &self.vpn {
            Some(vpn) => text + " (" + vpn + ")",
            None => text,
        }
    }

    /// "the VPN server, or the device; likely".
    fn blame(&self) -> String {
        let mut text = String::new();
        for (place, owner) in self.owner.iter().enumerate() {
            text.push_str(if place > 0 { ", or " } else { "" });
            text.push_str(match owner.as_str() {
                "router" => "this router",
                "line" => "the line or its provider",
                "server" => "the VPN server",
                "device" => "the device",
                "user" => "what was typed in",
                other => other,
            });
        }
        text + "; " + sure(&self.confidence) + " (" + &self.code + ")"
    }
}

fn sure(confidence: &str) -> &str {
    match confidence {
        "high" => "certain",
        "medium" => "likely",
        "low" => "possible",
        other => other,
    }
}

struct Clock<'a> {
    offset: &'a dyn Fn(i64) -> i64,
    /// The day of the report.
    today: i64,
}

impl Clock<'_> {
    fn problem(&self, finding: &FindingRow, times: usize, out: &mut dyn Write) -> io::Result<()> {
        wrapped("", &[&finding.subject(), ": ", &finding.says].concat(), "  ", out)?;
        const INDENT: &str = "              ";
        wrapped("  to blame    ", &finding.blame(), INDENT, out)?;
        wrapped("  what to do  ", &finding.fix, INDENT, out)?;
        if let Some(key) = &finding.key {
            writeln!(out, "  setting     {key} in natd's configuration")?;
        }
        if !finding.windows.is_empty() {
            let codes: Vec<String> = finding.windows.iter().map(u16::to_string).collect();
            writeln!(out, "  Windows     may show error {}", codes.join(", "))?;
        }
        if times > 1 {
            writeln!(out, "  how often   {times} attempts")?;
        }
        let times: Vec<String> = finding.evidence.iter().map(|evidence| self.times(evidence)).collect();
        let widest = times.iter().map(String::len).max().unwrap_or(0);
        let mut heading = "  seen        ";
        for (evidence, times) in finding.evidence.iter().zip(&times) {
            let gap = if widest == 0 { 0 } else { widest + 2 };
            writeln!(out, "{heading}{times:gap$}{}", shown(evidence))?;
            heading = INDENT;
        }
        writeln!(out)
    }

    /// From when to when it was seen.
    fn times(&self, evidence: &EvidenceRow) -> String {
        let (Some(first), Some(last)) = (evidence.first, evidence.last) else { return String::new() };
        match (self.time(first), self.time(last)) {
            (first, last) if first == last => first,
            (first, last) => first + " to " + &last,
        }
    }

    fn list<'f>(
        &self,
        heading: &str,
        findings: impl Iterator<Item = &'f FindingRow>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut lines: Vec<String> = Vec::new();
        for finding in findings {
            let line = [&finding.subject(), ": ", &finding.says, " (", &finding.code, ")"].concat();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        writeln!(out, "{heading}")?;
        lines.iter().take(MOST).try_for_each(|line| wrapped("  ", line, "    ", out))?;
        more(lines.len(), out)?;
        writeln!(out)
    }

    /// The local time; with the date, if that is not the report's.
    fn time(&self, packet: PacketRow) -> String {
        let secs = packet.time_ms.div_euclid(1000);
        let local = secs + (self.offset)(secs);
        let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let mut text = String::new();
        if days != self.today {
            let (year, month, day) = date(days);
            let _ = write!(text, "{year}-{month:02}-{day:02} ");
        }
        let _ = write!(text, "{hour:02}:{minute:02}:{second:02}");
        text
    }
}

/// What was seen, and in which packets.
fn shown(evidence: &EvidenceRow) -> String {
    let mut text = clean(&evidence.what);
    let (Some(first), Some(last)) = (evidence.first, evidence.last) else { return text };
    // Writing to a String does not fail, here and below.
    let _ = match (evidence.count, first.packet, last.packet) {
        // Counted by natd itself, not watched.
        (0 | 1, 0, _) => Ok(()),
        (n, 0, _) => write!(text, "  [{} packets]", count(n)),
        (0 | 1, number, _) => write!(text, "  [packet {number}]"),
        (n, first, last) => write!(text, "  [{} packets, {first} to {last}]", count(n)),
    };
    text
}

/// Sessions that nothing is wrong with, a line each.
fn sessions(report: &DiagnosisReport, out: &mut dyn Write) -> io::Result<()> {
    let fine: Vec<&SessionRow> = report.sessions.iter().filter(|session| is_fine(session, report)).collect();
    for session in fine.iter().take(MOST) {
        let SessionRow { device, server, vpn, phase, .. } = session;
        let how = match (phase.as_str(), session.reason.as_deref()) {
            ("closed", Some(reason)) => ["over (", reason, ") after"].concat(),
            ("closed", None) => "over after".into(),
            ("handshake", _) => "is being set up,".into(),
            (phase, _) if session.came_about() => ["works (", phase, ") for"].concat(),
            (..) => "seen one way only,".into(),
        };
        let (age, sent, received) =
            (span(session.duration_secs), bytes(session.bytes_out), bytes(session.bytes_in));
        writeln!(out, "{device} → {server} ({vpn}): {how} {age}, {sent} sent, {received} received")?;
    }
    more(fine.len(), out)?;
    if fine.is_empty() { Ok(()) } else { writeln!(out) }
}

/// Is `session` not what a finding is about, and no trace of it either?
fn is_fine(session: &SessionRow, report: &DiagnosisReport) -> bool {
    let over = ["closed", "handshake"].contains(&session.phase.as_str());
    let about = |finding: &&FindingRow| {
        finding.device.as_ref() == Some(&session.device) && finding.server.as_ref() == Some(&session.server)
    };
    !report.findings.iter().filter(about).any(|finding| {
        let vpn = finding.vpn.as_deref().map(family);
        let same = finding.attempt == session.attempt && vpn == Some(family(&session.vpn));
        finding.is_problem() && (same || over) || finding.overcome && same && over
    })
}

/// IKE and ESP are parts of one VPN.
fn family(vpn: &str) -> &str {
    match vpn {
        "IKE" | "IPsec NAT-T" => "IPsec ESP",
        other => other,
    }
}

fn more(all: usize, out: &mut dyn Write) -> io::Result<()> {
    if all > MOST { writeln!(out, "  ... and {} more", all - MOST) } else { Ok(()) }
}

fn blind(report: &DiagnosisReport, out: &mut dyn Write) -> io::Result<()> {
    if report.blind.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for group in &report.blind {
        let between = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{between}{} ({})", group.wants, group.codes.len());
    }
    let head = "Not visible from here, and so not ruled out: causes that need ";
    wrapped("", &[head, &text, ". `--json` names them."].concat(), "  ", out)
}

/// The day of a time, local, counted from 1970.
fn day(time_ms: i64, offset: &dyn Fn(i64) -> i64) -> i64 {
    let secs = time_ms.div_euclid(1000);
    (secs + offset(secs)).div_euclid(86_400)
}

/// Year, month and day of a day counted from 1970.
fn date(days: i64) -> (i64, i64, i64) {
    // Counted from a first of March, so that the leap day comes last: 146,097 days are 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month, next) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 }, month >= 10);
    (era * 400 + year + i64::from(next), month, day)
}

/// Text of packets, without what a terminal would obey.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Writes `text` after `first`, broken into lines that begin with `indent`.
fn wrapped(first: &str, text: &str, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut line = first.to_owned();
    let mut columns = line.chars().count();
    let mut empty = true;
    for word in clean(text).split_ascii_whitespace() {
        let width = word.chars().count();
        if !empty && columns + 1 + width > WIDTH {
            writeln!(out, "{line}")?;
            line.clear();
            line.push_str(indent);
            (columns, empty) = (indent.len(), true);
        }
        if !empty {
            line.push(' ');
            columns += 1;
        }
        line.push_str(word);
        (columns, empty) = (columns + width, false);
    }
    writeln!(out, "{line}")
}
