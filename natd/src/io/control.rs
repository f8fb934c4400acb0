//! The control socket: how the subcommands talk to the running daemon.
//!
//! # Theory of operation
//!
//! A UNIX stream socket, mode 0660. The client writes one line, a JSON object that names a command; the daemon
//! answers with JSON lines and closes:
//!
//! ```text
//! client  {"command":"flows","device":"192.168.1.10","protocol":"udp"}
//! daemon  {"protocol":"udp","internal":"192.168.1.10:500",...}
//! daemon  {"protocol":"udp","internal":"192.168.1.10:53211",...}
//! daemon  {"end":2}
//! ```
//!
//! The last line counts those before it, so that an answer which broke off is never taken for a whole one. A
//! request that is refused gets `{"error":"...","code":"..."}` instead. Rows go out one by one and are shown
//! or packed one by one, so a table of 65,536 flows needs no memory on the daemon's side.
//!
//! `stop` is answered when the daemon has cleaned up: the connection is kept until [`Server::close`], which
//! sends what the daemon has to say at the end. A client that sees the connection close without a last line
//! knows that the daemon died on the way.
//!
//! # What a client cannot do
//!
//! * block the daemon: clients are served by threads of their own, at most [`Limits::clients`] at a time, each
//!   read and write with a time limit;
//! * make it use memory: a request has at most [`REQUEST_BYTES`];
//! * stop it, unless its user is root or the daemon's own (`SO_PEERCRED`). Whoever may open the socket may
//!   read.

mod client;
mod server;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};

use nat_core::flow::Protocol;
use serde::{Deserialize, Serialize};

pub(crate) use client::parse;
pub use client::{ClientError, PATIENCE, Reply, request};
pub use server::{Control, ControlError, Limits, Server};

/// Where the socket is unless `--socket` says otherwise.
pub const DEFAULT_PATH: &str = "/run/natd/natd.sock";

/// The longest request, newline included.
pub const REQUEST_BYTES: usize = 4096;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// One line: [`crate::report::Status`].
    Status,
    /// A line for each flow: [`crate::report::FlowRow`], in any order.
    Flows {
        /// Only those of this device.
        device: Option<Ipv4Addr>,
        /// Only those of this protocol.
        protocol: Option<Protocol>,
    },
    /// A line for each VPN session: [`crate::report::TunnelRow`], in any order.
    Sessions,
    /// One line: [`crate::report::diagnosis::DiagnosisReport`].
    Diagnose {
        /// Only what is about this device.
        device: Option<IpAddr>,
        /// Only what is about this server.
        server: Option<IpAddr>,
    },
    /// Clean up and end; the connection tells when that is done.
    Stop {
        /// Remove the guard too.
        open: bool,
    },
}

impl Request {
    /// Does it change anything, so that not everyone may ask for it?
    pub const fn changes_state(&self) -> bool {
        match self {
            Self::Status | Self::Flows { .. } | Self::Sessions | Self::Diagnose { .. } => false,
            Self::Stop { .. } => true,
        }
    }

    /// Reads a request line.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let wire: WireRequest = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let WireRequest { command, device, server, protocol, open } = wire;
        if command == "diagnose" && (&protocol, open) == (&None, None) {
            let read = |text: Option<String>| text.map(|text| any_address(&text)).transpose();
            return Ok(Self::Diagnose { device: read(device)?, server: read(server)? });
        }
        let device = device.map(|text| address(&text)).transpose()?;
        let protocol = protocol.map(|text| protocol_named(&text)).transpose()?;
        match (command.as_str(), device, protocol, open, server) {
            ("status", None, None, None, None) => Ok(Self::Status),
            ("flows", device, protocol, None, None) => Ok(Self::Flows { device, protocol }),
            ("sessions", None, None, None, None) => Ok(Self::Sessions),
            ("stop", None, None, open, None) => Ok(Self::Stop { open: open.unwrap_or(false) }),
            ("status" | "flows" | "sessions" | "diagnose" | "stop", ..) => {
                Err(format!("{command:?} does not take all of these fields"))
            }
            _ => Err(format!(
                "no command is called {command:?}; there are status, flows, sessions, diagnose and stop"
            )),
        }
    }

    /// The request line, newline included.
    pub fn line(&self) -> String {
        let name = |command: &str| WireRequest { command: command.into(), ..WireRequest::default() };
        let wire = match self {
            Self::Status => name("status"),
            Self::Flows { device, protocol } => WireRequest {
                device: device.map(|device| device.to_string()),
                protocol: protocol.map(|protocol| protocol.to_string()),
                ..name("flows")
            },
            Self::Sessions => name("sessions"),
            Self::Diagnose { device, server } => WireRequest {
                device: device.map(|device| device.to_string()),
                server: server.map(|server| server.to_string()),
                ..name("diagnose")
            },
            Self::Stop { open } => WireRequest { open: Some(*open), ..name("stop") },
        };
        let mut line = serde_json::to_string(&wire).expect("strings and booleans are JSON");
        line.push('\n');
        line
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRequest {
    command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<bool>,
}

/// Reads an IPv4 address.
///
/// # Errors
/// What is wrong with it, in words.
pub fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IPv4 address such as 192.168.1.10"))
}

/// Reads an IPv4 or IPv6 address.
///
/// # Errors
/// What is wrong with it, in words.
pub fn any_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an address such as 192.168.1.10 or 2001:db8::10"))
}

/// Reads a protocol's name.
///
/// # Errors
/// What is wrong with it, in words.
pub fn protocol_named(text: &str) -> Result<Protocol, String> {
    let named = Protocol::ALL.into_iter().find(|protocol| protocol.to_string() == text);
    named.ok_or_else(|| format!("{text:?} is not a protocol; there are tcp, udp and icmp"))
}

/// Why a request was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The request makes no sense.
    Malformed,
    /// The user may not ask for this.
    Permission,
    /// Too many clients at a time.
    Busy,
    /// The daemon tried and could not.
    Failed,
}

/// The line of a refused request.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorLine {
    /// What is wrong, in one line.
    pub error: String,
    /// The same for programs.
    pub code: Refusal,
}

/// The last line of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndLine {
    /// How many lines came before.
    pub end: u64,
}

/// The answer to `stop`, once the daemon has cleaned up.
#[derive(Debug, Serialize, Deserialize)]
pub struct StopLine {
    /// Always true.
    pub stopped: bool,
    /// What stays behind, in words.
    pub message: String,
}

/// Where a handler writes its answer, line by line.
pub struct Answer<'a> {
    out: &'a mut dyn Write,
    lines: u64,
}

impl Answer<'_> {
    /// Writes one value as a line.
    ///
    /// # Errors
    /// The client has gone away or reads too slowly; there is no use in going on.
    pub fn line<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer(&mut *self.out, value)?;
        self.lines += 1;
        self.out.write_all(b"\n")
    }

    fn end(&mut self) -> io::Result<()> {
        let end = EndLine { end: self.lines };
        self.line(&end)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        let device = Some(Ipv4Addr::new(192, 168, 1, 10));
        for request in [
            Request::Status,
            Request::Sessions,
            Request::Flows { device: None, protocol: None },
            Request::Flows { device, protocol: Some(Protocol::Udp) },
            Request::Diagnose { device: None, server: None },
            Request::Diagnose {
                device: Some(Ipv4Addr::new(192, 168, 1, 10).into()),
                server: Some("2001:db8::9".parse().unwrap()),
            },
            Request::Stop { open: true },
            Request::Stop { open: false },
        ] {
            assert_eq!(Request::parse(request.line().as_bytes()), Ok(request));
        }
    }

    #[test]
    fn requests_look_as_documented() {
        assert_eq!(Request::Status.line(), "{\"command\":\"status\"}\n");
        assert_eq!(Request::Stop { open: true }.line(), "{\"command\":\"stop\",\"open\":true}\n");
        let by_hand = br#"{"command":"flows","protocol":"tcp"}"#;
        assert_eq!(
            Request::parse(by_hand),
            Ok(Request::Flows { device: None, protocol: Some(Protocol::Tcp) })
        );
    }

    #[test]
    fn wrong_requests_are_named() {
        for (line, part) in [
            ("", "EOF"),
            ("{}", "missing field `command`"),
            (r#"{"command":"reboot"}"#, r#"no command is called "reboot""#),
            (r#"{"command":"status","open":true}"#, r#""status" does not take"#),
            (r#"{"command":"sessions","protocol":"udp"}"#, r#""sessions" does not take"#),
            (r#"{"command":"flows","server":"198.51.100.9"}"#, r#""flows" does not take"#),
            (r#"{"command":"diagnose","protocol":"udp"}"#, r#""diagnose" does not take"#),
            (r#"{"command":"diagnose","server":"vpn.example"}"#, "not an address"),
            (r#"{"command":"flows","device":"fe80::1"}"#, "not an IPv4 address"),
            (r#"{"command":"flows","protocol":"gre"}"#, "not a protocol"),
            (r#"{"command":"stop","now":true}"#, "unknown field `now`"),
        ] {
            let error = Request::parse(line.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
