//! `natd diagnose`, `natd probe` and `natd capture`.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use diagnosis::{Settings, Vantage};

use super::args::{CaptureOptions, DiagnoseOptions, ProbeOptions};
use super::watch::{self, Live};
use super::{ExitCode, Failure, complain, live, with_output};
use crate::capture_file::Bar;
use crate::config::Config;
use crate::io::control::{self, ClientError, PATIENCE, Request};
use crate::io::probe::ProbeError;
use crate::io::{clock, files};
use crate::record::{self, Recorded, Recording};
use crate::report::diagnosis::{DiagnosisReport, Verdict, text};
use crate::report::watch::{Size, Style, table};

/// `natd diagnose` in each of its forms.
pub(super) fn diagnose(options: &DiagnoseOptions) -> ExitCode {
    if let Some(file) = &options.file {
        return with_output(|out| capture_file(options, file, out));
    }
    let question = Question::new(options);
    if options.watch {
        return live(&mut Watched { question, text: String::new() });
    }
    with_output(|out| show(&question.ask(PATIENCE)?, options.json, out))
}

/// Shows a diagnosis, and sums it up in an exit code.
fn show(report: &DiagnosisReport, json: bool, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    if json {
        serde_json::to_writer(&mut *out, report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        text(report, &clock::local_offset, out)?;
    }
    Ok(exit_code(report.verdict))
}

const fn exit_code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Healthy => ExitCode::Fine,
        Verdict::Problem => ExitCode::Problem,
        Verdict::NothingSeen => ExitCode::NothingSeen,
    }
}

/// What the running natd is asked.
struct Question<'a> {
    socket: &'a Path,
    device: Option<IpAddr>,
    /// Any of these addresses; `None`: any server.
    servers: Option<Vec<IpAddr>>,
}

impl<'a> Question<'a> {
    fn new(options: &'a DiagnoseOptions) -> Self {
        let servers = options.server.as_deref().map(addresses);
        Self { socket: &options.socket, device: options.device, servers }
    }

    fn ask(&self, patience: Duration) -> Result<DiagnosisReport, ClientError> {
        let server = match self.servers.as_deref() {
            Some([server]) => Some(*server),
            Some(_) | None => None,
        };
        let request = Request::Diagnose { device: self.device, server };
        let line = control::request(self.socket, &request, patience)?.only_line()?;
        let mut report: DiagnosisReport = control::parse(&line)?;
        report.asked_of = self.device;
        if let Some(servers) = &self.servers {
            report.narrow(servers);
        }
        Ok(report)
    }
}

/// The addresses of a server that was named. None is known of a name that cannot be found, which may be what is
/// wrong: then what is said about names is left to show.
fn addresses(server: &str) -> Vec<IpAddr> {
    if let Ok(address) = server.parse() {
        return vec![address];
    }
    match (server, 0).to_socket_addrs() {
        Ok(found) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.dedup();
            addresses
        }
        Err(error) => {
            let text = format!(
                "cannot find the address of {server}: {error}. A device that cannot either does not reach it; give \
                 the address instead of the name, or leave --server away, to see more"
            );
            complain(&text, ExitCode::Problem);
            Vec::new()
        }
    }
}

/// `natd diagnose --watch`.
struct Watched<'a> {
    question: Question<'a>,
    text: String,
}

impl Live for Watched<'_> {
    fn needs_terminal(&self) -> &'static str {
        "diagnose --watch needs a terminal; for programs there is diagnose --json"
    }

    fn ask(&mut self, _: Duration) -> Result<(), ClientError> {
        let report = self.question.ask(watch::PATIENCE)?;
        let mut shown = Vec::new();
        // Writing to memory does not fail.
        let _ = text(&report, &clock::local_offset, &mut shown);
        self.text = String::from_utf8_lossy(&shown).into_owned();
        Ok(())
    }

    fn render(&self, trouble: Option<&str>, size: Size, style: Style) -> String {
        table("VPN diagnosis", &self.text, trouble, size, style)
    }
}

/// Pairs of a device and a server that are remembered of a capture.
const PAIRS: usize = 4096;

fn capture_file(options: &DiagnoseOptions, file: &Path, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let servers = options.server.as_deref().map(addresses);
    let settings = Settings {
        lan: options.lan.clone(),
        pairs: PAIRS,
        memory: Duration::MAX,
        vantage: Vantage { lan: true, wan: false, router: false, dns: true },
        servers: servers.clone().unwrap_or_default(),
        events: false,
    };
    let read = {
        let mut bar = Bar::default();
        crate::capture_file::read(file, settings, &mut |progress| bar.show(progress))
    };
    let read = match read {
        Ok(read) => read,
        Err(error) if error.is_without_packets() => {
            return Ok(complain(&error.to_string(), ExitCode::NothingSeen));
        }
        Err(error) if error.is_permission() => return Err(Failure::Permission(error.to_string())),
        Err(error) => return Err(Failure::Problem(error.to_string())),
    };
    if let Some(remark) = &read.remark {
        complain(remark, ExitCode::Problem);
    }
    let mut report = DiagnosisReport::of(&read.household, read.last, 0, options.device, None);
    if let Some(servers) = &servers {
        report.narrow(servers);
    }
    show(&report, options.json, out)
}

/// `natd probe`.
pub(super) fn probe(options: &ProbeOptions, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let shows = std::io::stderr().is_terminal();
    let mut progress = |line: &str| {
        if shows {
            // A terminal that is gone does not matter here.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    };
    match crate::io::probe::run(options, out, &mut progress) {
        Ok(verdict) => Ok(exit_code(verdict)),
        Err(ProbeError::Output(error)) => Err(Failure::Output(error)),
        Err(error @ ProbeError::Permission) => Err(Failure::Permission(error.to_string())),
        Err(
            error @ (ProbeError::Argument(_)
            | ProbeError::Name(..)
            | ProbeError::Resolver(..)
            | ProbeError::NoRoute(_)
            | ProbeError::System(..)),
        ) => Err(Failure::Problem(error.to_string())),
    }
}

/// `natd capture`.
pub(super) fn capture(options: &CaptureOptions, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let problem = |error: &dyn std::fmt::Display| Failure::Problem(error.to_string());
    let text = files::read_config(&options.config).map_err(|error| problem(&error))?;
    let (config, _) = Config::parse(&text).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        Failure::Problem(format!("{}: {first}; `natd check` lists all mistakes", options.config.display()))
    })?;
    let recording = Recording {
        lan: config.lan,
        wan: config.wan,
        file: options.file.clone(),
        device: options.device,
        server: options.server,
        time: Duration::from_secs(options.seconds),
        bytes: options.bytes,
        whole: options.whole,
    };
    let recorded = {
        let mut line = record::Line::default();
        record::record(&recording, &mut |progress| line.show(progress))
    };
    let recorded = recorded.map_err(|error| {
        if error.is_permission() { Failure::Permission(error.to_string()) } else { problem(&error) }
    })?;
    let Recorded { packets, lan, wan, lost, .. } = recorded;
    let lost = if lost > 0 { format!("; {lost} more came too fast") } else { String::new() };
    let said = format!("recorded {packets} packets, {lan} on the LAN and {wan} on the WAN{lost}");
    // Standard output may be the recording.
    if options.file.as_os_str() == "-" {
        complain(&said, ExitCode::Fine);
    } else {
        writeln!(out, "{said}")?;
    }
    Ok(if packets > 0 { ExitCode::Fine } else { ExitCode::NothingSeen })
}
