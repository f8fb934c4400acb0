//! The command line: what can be said, and what was said.
//!
//! Two tables, one of options and one of subcommands, serve the parser, the help and the suggestions, so that
//! the three cannot disagree.

mod help;
mod vpn;

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use nat_core::flow::Protocol;

use crate::config::schema::distance;
use crate::io::control;
pub(super) use help::help;
pub use vpn::{CaptureOptions, DiagnoseOptions, IpVersion, ProbeOptions};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/natd/natd.toml";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Invocation {
    /// Help, for all of natd or for a subcommand.
    Help(Option<&'static Subcommand>),
    /// The version.
    Version,
    /// The daemon itself.
    Run(RunOptions),
    /// An end to the running daemon.
    Stop(StopOptions),
    /// A look at configuration, kernel and surroundings.
    Check(CheckOptions),
    /// The daemon's state, once.
    Status(StatusOptions),
    /// The daemon's state, live.
    Watch {
        /// The control socket.
        socket: PathBuf,
    },
    /// The sessions.
    Flows(FlowsOptions),
    /// The VPN sessions, once.
    Sessions(SessionsOptions),
    /// The VPN sessions, live.
    WatchSessions {
        /// The control socket.
        socket: PathBuf,
    },
    /// What keeps VPNs from working, live or from a capture.
    Diagnose(DiagnoseOptions),
    /// What reaches a VPN server.
    Probe(ProbeOptions),
    /// A recording of VPN packets.
    Capture(CaptureOptions),
}

/// For `natd run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// The control socket, if not the configuration's.
    pub socket: Option<PathBuf>,
}

/// For `natd check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// The control socket, if not the configuration's.
    pub socket: Option<PathBuf>,
    /// JSON instead of text.
    pub json: bool,
}

/// For `natd stop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopOptions {
    /// The control socket.
    pub socket: PathBuf,
    /// Remove the guard too.
    pub open: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// For `natd status` without `--watch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusOptions {
    /// The control socket.
    pub socket: PathBuf,
    /// How to show it.
    pub form: StatusForm,
}

/// How `natd status` shows what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusForm {
    /// Aligned text.
    Text,
    /// One JSON object.
    Json,
    /// Prometheus text exposition.
    Prometheus,
}

/// For `natd flows`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsOptions {
    /// The control socket.
    pub socket: PathBuf,
    /// Only this device's.
    pub device: Option<Ipv4Addr>,
    /// Only this protocol's.
    pub protocol: Option<Protocol>,
    /// JSON instead of a table.
    pub json: bool,
}

/// For `natd sessions` without `--watch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionsOptions {
    /// The control socket.
    pub socket: PathBuf,
    /// JSON instead of a table.
    pub json: bool,
}

/// A row of the table of subcommands.
#[derive(Debug)]
pub struct Subcommand {
    /// Its name.
    pub name: &'static str,
    summary: &'static str,
    /// What it takes beside options.
    operand: Option<Operand>,
    options: &'static [Flag],
    /// Exit codes and examples.
    details: &'static str,
    build: fn(&Given) -> Result<Invocation, String>,
}

impl PartialEq for Subcommand {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A row of the table of options.
#[derive(Debug, PartialEq, Eq)]
struct Flag {
    name: &'static str,
    /// What its value is called, when it has one.
    value: Option<&'static str>,
    help: &'static str,
    times: Times,
}

/// How often an option may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    /// Once or not at all.
    Optional,
    /// Once; the subcommand cannot do without.
    Required,
    /// Any number of times.
    Many,
}

/// What a subcommand takes without a name.
#[derive(Debug, PartialEq, Eq)]
struct Operand {
    name: &'static str,
    help: &'static str,
    required: bool,
}

const CONFIG: Flag = flag("--config", Some("FILE"), "configuration file [/etc/natd/natd.toml]");
const SOCKET: Flag = flag("--socket", Some("PATH"), "control socket [/run/natd/natd.sock]");
const JSON: Flag = flag("--json", None, "JSON for programs; README.md lists the fields");
const OPEN: Flag = flag("--open", None, "also remove the guard: the WAN is open to untranslated packets");
const WATCH: Flag = flag("--watch", None, "live view, renewed every second; q quits");
const PROMETHEUS: Flag = flag("--prometheus", None, "Prometheus text exposition");
const DEVICE: Flag = flag("--device", Some("ADDR"), "only flows of this device on the LAN");
const PROTOCOL: Flag = flag("--protocol", Some("P"), "only flows of this protocol: tcp, udp or icmp");
const HELP: Flag = flag("--help", None, "this help");

const fn flag(name: &'static str, value: Option<&'static str>, help: &'static str) -> Flag {
    Flag { name, value, help, times: Times::Optional }
}

/// The subcommands, in the order of the help.
static SUBCOMMANDS: [Subcommand; 9] = [
    Subcommand {
        name: "run",
        summary: "translate until a signal or `natd stop` ends it",
        operand: None,
        options: &[CONFIG, SOCKET, HELP],
        details: "\
natd stays in the foreground and logs to standard error. SIGTERM and SIGINT end it, SIGHUP reads the
configuration again, SIGUSR1 writes the state to the log.

Exit codes: 0 ended as asked, 1 cannot start or go on, 2 usage, 5 no permission.

Example:
  natd run --config /etc/natd/natd.toml
",
        build: |given| {
            Ok(Invocation::Run(RunOptions { config: given.config(), socket: given.socket_named() }))
        },
    },
    Subcommand {
        name: "stop",
        summary: "end the running natd and wait until it has cleaned up",
        operand: None,
        options: &[OPEN, JSON, SOCKET, HELP],
        details: "\
The guard against untranslated packets stays, unless another NAT serves the WAN or --open is given.

Exit codes: 0 stopped, 1 it did not stop, 2 usage, 4 natd is not running, 5 no permission.

Example:
  natd stop && systemctl start another-nat
",
        build: |given| {
            let (socket, open, json) = (given.socket(), given.has(&OPEN), given.has(&JSON));
            Ok(Invocation::Stop(StopOptions { socket, open, json }))
        },
    },
    Subcommand {
        name: "check",
        summary: "look at configuration, kernel and surroundings; change nothing",
        operand: None,
        options: &[CONFIG, JSON, SOCKET, HELP],
        details: "\
Is the configuration valid, the kernel able, and does nothing else translate on the same interface?

Exit codes: 0 all is well, 1 something would keep natd from working, 2 usage.

Example:
  natd check --config natd.toml && systemctl reload natd
",
        build: |given| {
            let (config, socket, json) = (given.config(), given.socket_named(), given.has(&JSON));
            Ok(Invocation::Check(CheckOptions { config, socket, json }))
        },
    },
    Subcommand {
        name: "status",
        summary: "what natd does, how much, and what it drops",
        operand: None,
        options: &[WATCH, JSON, PROMETHEUS, SOCKET, HELP],
        details: "\
Exit codes: 0 up and translating, 1 starting or stopping, 2 usage, 3 up and waiting for a WAN address,
4 natd is not running, 5 no permission.

Examples:
  natd status --watch
  until natd status > /dev/null 2>&1; do sleep 1; done
  natd status --json | jq '.drops'
",
        build: status,
    },
    Subcommand {
        name: "flows",
        summary: "the sessions: who talks to whom, through which port",
        operand: None,
        options: &[DEVICE, PROTOCOL, JSON, SOCKET, HELP],
        details: "\
Sorted by device, protocol and port; with --json a list in no particular order.

Exit codes: 0 shown, 1 the answer broke off, 2 usage, 4 natd is not running, 5 no permission.

Examples:
  natd flows --device 192.168.1.10 --protocol udp
  natd flows --json | jq -r '.[] | select(.bytes_in > 1000000) | .remote'
",
        build: |given| {
            Ok(Invocation::Flows(FlowsOptions {
                socket: given.socket(),
                device: given.text(&DEVICE, control::address)?,
                protocol: given.text(&PROTOCOL, control::protocol_named)?,
                json: given.has(&JSON),
            }))
        },
    },
    Subcommand {
        name: "sessions",
        summary: "the VPN sessions: who uses which server, how far it is",
        operand: None,
        options: &[WATCH, JSON, SOCKET, HELP],
        details: "\
IDS are SPIs, Call IDs and the like, as inside/remote: by the first the server addresses the device, by the
second the device the server. It is inside=outside/remote where another id stands for the device's on the
WAN. In brackets: how it became known whose an SPI is, such as evidence, fan-out or guess.

Exit codes: 0 shown, 1 the answer broke off, 2 usage, 4 natd is not running, 5 no permission.

Examples:
  natd sessions --watch
  natd sessions --json | jq -r '.[] | select(.phase == \"handshake\") | .server'
",
        build: |given| match (given.socket(), given.has(&WATCH), given.has(&JSON)) {
            (_, true, true) => Err("--watch and --json exclude each other".into()),
            (socket, true, false) => Ok(Invocation::WatchSessions { socket }),
            (socket, false, json) => Ok(Invocation::Sessions(SessionsOptions { socket, json })),
        },
    },
    vpn::DIAGNOSE,
    vpn::PROBE,
    vpn::CAPTURE,
];

fn status(given: &Given) -> Result<Invocation, String> {
    let socket = given.socket();
    let one = |form| Ok(Invocation::Status(StatusOptions { socket: given.socket(), form }));
    match (given.has(&WATCH), given.has(&JSON), given.has(&PROMETHEUS)) {
        (false, false, false) => one(StatusForm::Text),
        (true, false, false) => Ok(Invocation::Watch { socket }),
        (false, true, false) => one(StatusForm::Json),
        (false, false, true) => one(StatusForm::Prometheus),
        _ => Err("--watch, --json and --prometheus exclude each other".into()),
    }
}

/// Options as they were given.
struct Given {
    operand: Option<OsString>,
    options: Vec<(&'static str, OsString)>,
}

impl Given {
    fn has(&self, flag: &Flag) -> bool {
        self.value(flag).is_some()
    }

    fn value(&self, flag: &Flag) -> Option<&OsStr> {
        let given = self.options.iter().find(|(name, _)| *name == flag.name)?;
        Some(&given.1)
    }

    fn path(&self, flag: &Flag, usual: &str) -> PathBuf {
        self.value(flag).map_or_else(|| PathBuf::from(usual), PathBuf::from)
    }

    fn config(&self) -> PathBuf {
        self.path(&CONFIG, DEFAULT_CONFIG)
    }

    fn socket(&self) -> PathBuf {
        self.path(&SOCKET, control::DEFAULT_PATH)
    }

    fn socket_named(&self) -> Option<PathBuf> {
        self.value(&SOCKET).map(PathBuf::from)
    }

    fn text<T>(&self, flag: &Flag, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        let Some(value) = self.value(flag) else { return Ok(None) };
        read(&value.to_string_lossy()).map(Some).map_err(|problem| format!("{}: {problem}", flag.name))
    }

    /// Every value of an option that may be given several times.
    fn texts<T>(&self, flag: &Flag, read: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        let given = self.options.iter().filter(|(name, _)| *name == flag.name);
        given
            .map(|(name, value)| {
                read(&value.to_string_lossy()).map_err(|problem| format!("{name}: {problem}"))
            })
            .collect()
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// What is wrong with them, in one line.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    let mut args = args.into_iter();
    let Some(first) = args.next() else {
        return Err("no subcommand; `natd --help` lists them".into());
    };
    let first = first.to_string_lossy();
    match &*first {
        "-h" | "--help" => return Ok(Invocation::Help(None)),
        "-V" | "--version" => return Ok(Invocation::Version),
        "help" => {
            let Some(name) = args.next() else { return Ok(Invocation::Help(None)) };
            return subcommand(&name.to_string_lossy()).map(|found| Invocation::Help(Some(found)));
        }
        _ => {}
    }
    let subcommand = subcommand(&first)?;
    let mut given = Given { operand: None, options: Vec::new() };
    while let Some(arg) = args.next() {
        let (name, attached) = split(&arg);
        if name == "-h" || name == HELP.name {
            return Ok(Invocation::Help(Some(subcommand)));
        }
        // "-" alone is standard input.
        let bare = name == "-" || !name.starts_with('-');
        if bare && subcommand.operand.is_some() && given.operand.is_none() {
            given.operand = Some(arg);
            continue;
        }
        let flag = option(subcommand, &name)?;
        let value = match (flag.value, attached) {
            (None, None) => OsString::new(),
            (None, Some(_)) => return Err(format!("{} takes no value", flag.name)),
            (Some(_), Some(value)) => value,
            (Some(called), None) => {
                let missing = || format!("{} needs a value: {} {called}", flag.name, flag.name);
                args.next().filter(|value| !value.is_empty()).ok_or_else(missing)?
            }
        };
        if given.has(flag) && flag.times != Times::Many {
            return Err(format!("{} is given twice", flag.name));
        }
        given.options.push((flag.name, value));
    }
    if let (Some(Operand { name, required: true, .. }), None) = (&subcommand.operand, &given.operand) {
        let command = subcommand.name;
        return Err(format!("natd {command} needs a {name}; `natd {command} --help` tells more"));
    }
    (subcommand.build)(&given)
}

/// Divides `--name=value`; a value need not be text.
fn split(arg: &OsStr) -> (String, Option<OsString>) {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = arg.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=').filter(|_| bytes.starts_with(b"--"));
    match equals.and_then(|at| bytes.split_at_checked(at)) {
        Some((name, value)) => {
            let value = value.iter().skip(1).copied().collect();
            (String::from_utf8_lossy(name).into_owned(), Some(OsString::from_vec(value)))
        }
        None => (arg.to_string_lossy().into_owned(), None),
    }
}

fn subcommand(name: &str) -> Result<&'static Subcommand, String> {
    SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name).ok_or_else(|| {
        let what = if name.starts_with('-') { "option" } else { "subcommand" };
        let names = SUBCOMMANDS.iter().map(|subcommand| subcommand.name).chain(["--help", "--version"]);
        format!("unknown {what} {name:?}{}; `natd --help` lists them", suggestion(name, names))
    })
}

fn option(subcommand: &'static Subcommand, name: &str) -> Result<&'static Flag, String> {
    if let Some(flag) = subcommand.options.iter().find(|flag| flag.name == name) {
        return Ok(flag);
    }
    let command = subcommand.name;
    if name == "-" || !name.starts_with('-') {
        return Err(format!(
            "natd {command} does not take {name:?}; `natd {command} --help` says what it takes"
        ));
    }
    let suggestion = suggestion(name, subcommand.options.iter().map(|flag| flag.name));
    Err(format!("unknown option {name:?}{suggestion}; `natd {command} --help` lists them"))
}

/// `, did you mean ...?` with the nearest of `names`, if one is near.
fn suggestion(given: &str, names: impl Iterator<Item = &'static str>) -> String {
    // A letter in three may be wrong.
    let far = 1 + given.trim_start_matches('-').chars().count() / 3;
    let nearest = names.map(|name| (distance(given, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= far => format!(", did you mean {name}?"),
        Some(_) | None => String::new(),
    }
}

#[cfg(test)]
mod tests;
