//! Why the daemon did not start or had to end.

use std::fmt;
use std::io;

use crate::io::conntrack::ConntrackError;
use crate::io::control::ControlError;
use crate::io::files;
use crate::io::nfqueue::OpenError;
use crate::io::rules::RulesError;
use crate::io::sandbox::SandboxError;

/// Why the daemon did not start or had to end. Each is one line that says what, where and what to do.
#[derive(Debug)]
pub enum RunError {
    /// The configuration file cannot be read.
    File(files::ReadError),
    /// It has mistakes; one line each.
    Config(Vec<String>),
    /// An interface of the configuration is not there.
    Interface(String),
    /// Privileges are missing.
    Sandbox(SandboxError),
    /// The control socket cannot be had.
    Control(ControlError),
    /// A queue cannot be had.
    Queue(OpenError),
    /// Conntrack cannot be reached.
    Conntrack(ConntrackError),
    /// Rules cannot be put in or out.
    Rules(RulesError),
    /// Something else of the system.
    System(&'static str, io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Config(lines) => f.write_str(&lines.join("\n")),
            Self::Interface(line) => f.write_str(line),
            Self::Sandbox(error) => error.fmt(f),
            Self::Control(error) => error.fmt(f),
            Self::Queue(error) => error.fmt(f),
            Self::Conntrack(error) => error.fmt(f),
            Self::Rules(error) => error.fmt(f),
            Self::System(attempt, error) => write!(f, "cannot {attempt}: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

impl RunError {
    /// Is it for lack of permission?
    pub fn is_permission(&self) -> bool {
        matches!(
            self,
            Self::Sandbox(_)
                | Self::Queue(OpenError::NoPermission)
                | Self::Rules(RulesError::NotPermitted(_))
        )
    }
}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => {
        $(impl From<$error> for RunError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}
from!(files::ReadError => File, SandboxError => Sandbox, ControlError => Control, OpenError => Queue,
      ConntrackError => Conntrack, RulesError => Rules);
