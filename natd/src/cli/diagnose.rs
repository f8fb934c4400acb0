//! `natd diagnose`, `natd probe` and `natd capture`.

use std::io::Write;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use super::args::{CaptureOptions, DiagnoseOptions, ProbeOptions};
use super::{ExitCode, Failure, with_output};
use crate::io::control::{self, PATIENCE, Request};

/// `natd diagnose` in each of its forms.
pub(super) fn diagnose(options: &DiagnoseOptions) -> ExitCode {
    with_output(|out| match &options.file {
        Some(file) => capture_file(options, file, out),
        None => live(options, out),
    })
}

fn live(options: &DiagnoseOptions, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let servers = options.server.as_deref().map(addresses).transpose()?.unwrap_or_default();
    let request = Request::Diagnose { device: options.device, server: servers.first().copied() };
    let line = control::request(&options.socket, &request, PATIENCE)?.only_line()?;
    writeln!(out, "{line}")?;
    Ok(ExitCode::Fine)
}

/// The addresses of a server that was named.
fn addresses(server: &str) -> Result<Vec<IpAddr>, Failure> {
    let found = (server, 0).to_socket_addrs();
    let found = found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>());
    found.map_err(|error| Failure::Problem(format!("cannot find the address of {server}: {error}")))
}

fn capture_file(_: &DiagnoseOptions, _: &Path, _: &mut dyn Write) -> Result<ExitCode, Failure> {
    Err(Failure::Problem("diagnosing a capture is not built yet".into()))
}

/// `natd probe`.
pub(super) fn probe(_: &ProbeOptions, _: &mut dyn Write) -> Result<ExitCode, Failure> {
    Err(Failure::Problem("probing is not built yet".into()))
}

/// `natd capture`.
pub(super) fn capture(_: &CaptureOptions, _: &mut dyn Write) -> Result<ExitCode, Failure> {
    Err(Failure::Problem("capturing is not built yet".into()))
}
