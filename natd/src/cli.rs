//! Arguments and subcommands.
//!
//! [`args`] turns the command line into an [`Invocation`] with the help of one table of subcommands; here it
//! is carried out. A further subcommand is a row in that table, a variant of [`Invocation`] and an arm below.

pub mod args;
mod check;
mod diagnose;
mod query;
mod watch;

use std::io::{self, BufWriter, Write};

pub use args::{
    CaptureOptions, CheckOptions, DiagnoseOptions, Invocation, IpVersion, ProbeOptions, RunOptions,
};

/// What the exit code of natd says. The numbers are an interface for scripts and do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done; for `status`: natd is up and translating.
    Fine = 0,
    /// A problem was found, or natd is starting or stopping; the text says which.
    Problem = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// `status`: natd is up and waits for a WAN address.
    Waiting = 3,
    /// natd is not running.
    NotRunning = 4,
    /// The user may not do that.
    NoPermission = 5,
    /// `diagnose` and `capture`: no VPN was seen, or not enough of one to say anything; `probe`: none answered.
    NothingSeen = 6,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Runs the command line and answers with the exit code.
pub fn main() -> std::process::ExitCode {
    let code = match args::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => carry_out(&invocation),
        Err(problem) => complain(&problem, ExitCode::Usage),
    };
    code.into()
}

fn carry_out(invocation: &Invocation) -> ExitCode {
    match invocation {
        Invocation::Help(subcommand) => print(&args::help(*subcommand)),
        Invocation::Version => print(concat!("natd ", env!("CARGO_PKG_VERSION"), "\n")),
        Invocation::Run(options) => run(options),
        Invocation::Check(options) => with_output(|out| check::check(options, out)),
        Invocation::Stop(options) => with_output(|out| query::stop(options, out)),
        Invocation::Status(options) => with_output(|out| query::status(options, out)),
        Invocation::Watch { socket } => live(&mut watch::Household::new(socket)),
        Invocation::WatchSessions { socket } => live(&mut watch::Sessions::new(socket)),
        Invocation::Flows(options) => with_output(|out| query::flows(options, out)),
        Invocation::Sessions(options) => with_output(|out| query::sessions(options, out)),
        Invocation::Diagnose(options) => diagnose::diagnose(options),
        Invocation::Probe(options) => with_output(|out| diagnose::probe(options, out)),
        Invocation::Capture(options) => with_output(|out| diagnose::capture(options, out)),
    }
}

fn live(view: &mut dyn watch::Live) -> ExitCode {
    watch::watch(view).unwrap_or_else(|failure| failure.report())
}

fn run(options: &RunOptions) -> ExitCode {
    match crate::daemon::run(&options.config, options.socket.as_deref()) {
        Ok(()) => ExitCode::Fine,
        Err(error) => {
            let text = error.to_string();
            let code = if error.is_permission() { ExitCode::NoPermission } else { ExitCode::Problem };
            for line in text.lines() {
                complain(line, code);
            }
            code
        }
    }
}

/// Why a subcommand ended early.
enum Failure {
    /// No answer from the daemon.
    Client(crate::io::control::ClientError),
    /// Nowhere to write to.
    Output(io::Error),
    /// The output cannot be what was asked for.
    Usage(&'static str),
    /// Something else is in the way.
    Problem(String),
    /// The user may not do that.
    Permission(String),
}

impl From<crate::io::control::ClientError> for Failure {
    fn from(error: crate::io::control::ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// Says on standard error what is wrong, and answers with the exit code.
    fn report(&self) -> ExitCode {
        use crate::io::control::{ClientError, Refusal};
        match self {
            Self::Client(error) => {
                let code = match error {
                    ClientError::NotRunning(_) => ExitCode::NotRunning,
                    ClientError::Permission(_) | ClientError::Refused(_, Refusal::Permission) => {
                        ExitCode::NoPermission
                    }
                    ClientError::Refused(_, Refusal::Malformed | Refusal::Busy | Refusal::Failed)
                    | ClientError::Silent(_)
                    | ClientError::BrokeOff
                    | ClientError::Strange(_)
                    | ClientError::System(..) => ExitCode::Problem,
                };
                complain(&error.to_string(), code)
            }
            // The reader, such as head(1), has had enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::Fine,
            Self::Output(error) => complain(&format!("cannot write: {error}"), ExitCode::Problem),
            Self::Usage(problem) => complain(problem, ExitCode::Usage),
            Self::Problem(problem) => complain(problem, ExitCode::Problem),
            Self::Permission(problem) => complain(problem, ExitCode::NoPermission),
        }
    }
}

fn with_output(subcommand: impl FnOnce(&mut dyn Write) -> Result<ExitCode, Failure>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = subcommand(&mut out);
    // What was written before a failure is shown before the failure.
    let flushed = out.flush();
    match done {
        Ok(code) => flushed.map_or_else(|error| Failure::Output(error).report(), |()| code),
        Err(failure) => failure.report(),
    }
}

fn print(text: &str) -> ExitCode {
    with_output(|out| {
        out.write_all(text.as_bytes())?;
        Ok(ExitCode::Fine)
    })
}

fn complain(problem: &str, code: ExitCode) -> ExitCode {
    // Where even standard error is closed, the exit code has to do.
    let _ = writeln!(io::stderr(), "natd: {problem}");
    code
}
