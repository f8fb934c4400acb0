//! The subcommands that ask the running daemon and show its answer.

use std::io::Write;
use std::time::Duration;

use super::args::{FlowsOptions, SessionsOptions, StatusForm, StatusOptions, StopOptions};
use super::{ExitCode, Failure};
use crate::io::control::{self, ClientError, PATIENCE, Reply, Request, StopLine};
use crate::report::{FlowRow, State, Status, TunnelRow, prometheus, text};

/// How long `stop` waits for the daemon to clean up; taking the rules out runs nft or iptables several times.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// `natd status` in one of its three forms.
pub(super) fn status(options: &StatusOptions, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let line = control::request(&options.socket, &Request::Status, PATIENCE)?.only_line()?;
    let status: Status = control::parse(&line)?;
    match options.form {
        StatusForm::Text => text::status(&status, out)?,
        StatusForm::Json => writeln!(out, "{line}")?,
        StatusForm::Prometheus => prometheus::exposition(&status, out)?,
    }
    Ok(match status.state {
        State::Translating => ExitCode::Fine,
        State::WaitingForAddress => ExitCode::Waiting,
        State::Starting | State::Stopping => ExitCode::Problem,
    })
}

/// `natd flows`: JSON passes through row by row; the table needs all rows, to sort them.
pub(super) fn flows(options: &FlowsOptions, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let request = Request::Flows { device: options.device, protocol: options.protocol };
    let mut reply = control::request(&options.socket, &request, PATIENCE)?;
    if options.json {
        return list(&mut reply, out);
    }
    let mut flows = text::Flows::default();
    while let Some(row) = reply.next_line()? {
        flows.add(&control::parse::<FlowRow>(row)?);
    }
    flows.print(out)?;
    Ok(ExitCode::Fine)
}

/// `natd sessions`, once.
pub(super) fn sessions(options: &SessionsOptions, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let mut reply = control::request(&options.socket, &Request::Sessions, PATIENCE)?;
    if options.json {
        return list(&mut reply, out);
    }
    text::sessions(&tunnels(&mut reply)?, out)?;
    Ok(ExitCode::Fine)
}

/// The rows of an answer to [`Request::Sessions`].
pub(super) fn tunnels(reply: &mut Reply) -> Result<Vec<TunnelRow>, ClientError> {
    let mut tunnels = Vec::new();
    while let Some(row) = reply.next_line()? {
        tunnels.push(control::parse(row)?);
    }
    Ok(tunnels)
}

/// Rows as a JSON list.
fn list(reply: &mut Reply, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let mut between = "[\n";
    while let Some(row) = reply.next_line()? {
        write!(out, "{between}{row}")?;
        between = ",\n";
    }
    // An answer that breaks off leaves the list open, so that no program takes it for whole.
    out.write_all(if between == "[\n" { b"[]\n" } else { b"\n]\n" })?;
    Ok(ExitCode::Fine)
}

/// `natd stop`: comes back when the daemon has cleaned up.
pub(super) fn stop(options: &StopOptions, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let request = Request::Stop { open: options.open };
    let line = control::request(&options.socket, &request, STOP_PATIENCE)?.only_line()?;
    if options.json {
        writeln!(out, "{line}")?;
    } else {
        let StopLine { message, .. } = control::parse(&line)?;
        let (gap, message) = if message.is_empty() { ("", "") } else { ("; ", message.as_str()) };
        writeln!(out, "natd has stopped{gap}{message}")?;
    }
    Ok(ExitCode::Fine)
}
