//! Configuration: TOML text in, a [`Config`] or every [`Problem`] out.
//!
//! # How it works
//!
//! An owner who edits a file on a router wants to hear of all mistakes at once, each with its line and with
//! what would be right. A derived deserialiser stops at its first structural mistake, so this module walks the
//! parsed document itself:
//!
//! 1. `syntax` parses the text. A statement that is not TOML becomes a problem with line and column, is blanked
//!    out, and the rest is parsed again, so that one forgotten quote hides nothing else. `document` holds what
//!    remains.
//! 2. [`schema`] holds the list of tables and keys. Whatever is in the document and not in the list is a
//!    problem, with the nearest known spelling.
//! 3. `nat`, `forward`, `timeout`, `passthrough`, `diagnosis` and `daemon` read their tables, through the typed readers of
//!    `item`; a wrong value becomes a problem and reading goes on.
//!
//! Only when no problem was found does a [`Config`] leave this module: what holds a `Config` need not check it
//! again. Values that work but ask for trouble, such as a timeout below an RFC's minimum, are [`Remark`]s.
//!
//! Not judged here, since the file alone does not show it: do the interfaces exist, do the hosts of forwards
//! lie in a LAN. `natd check` does that.
//!
//! A new table needs a row in [`schema::TABLES`], a file beside `nat` that reads it, and its lines in
//! conf/natd.toml.

use std::fmt;
use std::path::PathBuf;

use ::passthrough::settings::Settings;
use log::LevelFilter;
use nat_core::policy::Policy;
use serde::Serialize;

use crate::order;

mod daemon;
mod diagnosis;
mod document;
mod forward;
mod item;
mod nat;
mod passthrough;
pub mod schema;
mod syntax;
mod timeout;

#[cfg(test)]
mod tests;

use document::Document;

/// Everything the configuration file says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Interfaces of the home network: 1 to 16, all different.
    pub lan: Vec<String>,
    /// The interface towards the internet; not one of `lan`.
    pub wan: String,
    /// What the engine needs to know: `[nat]`, `[[forward]]` and `[timeout]`.
    pub policy: Policy,
    /// What crosses of VPNs: `scope`, `[passthrough]` and the tables of the single VPNs.
    pub passthrough: Settings,
    /// How packets come from the kernel.
    pub kernel: Kernel,
    /// Where the subcommands reach the daemon; an absolute path.
    pub socket: PathBuf,
    /// How much goes to the log.
    pub log: LevelFilter,
    /// Are copies of VPN packets looked at, to say what keeps a VPN from working?
    pub observe: bool,
    /// Where VPN sessions are written down.
    pub sessions: SessionLog,
}

/// `[sessions]`: where VPN sessions are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLog {
    /// Whereto.
    pub to: LogTo,
    /// How.
    pub format: LogFormat,
    /// Bytes after which the file is renamed and a new one begun.
    pub max_size: u64,
}

impl Default for SessionLog {
    fn default() -> Self {
        Self { to: LogTo::Off, format: LogFormat::Json, max_size: 1 << 20 }
    }
}

/// Where VPN sessions are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// Nowhere.
    Off,
    /// In natd's own log, at level info.
    Log,
    /// In a file of their own; an absolute path.
    File(PathBuf),
}

/// How VPN sessions are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// Words.
    Text,
}

/// `[kernel]`: how packets come from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Which program sets the rules that queue packets.
    pub rules: Rules,
    /// Number of the first queue; `queue + queues - 1` fits 16 bits.
    pub queue: u16,
    /// How many queues, each with a thread of its own.
    pub queues: u16,
    /// How many packets the kernel keeps waiting in one queue.
    pub queue_length: u32,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { rules: Rules::default(), queue: 6100, queues: 1, queue_length: 4096 }
    }
}

/// Which program sets the rules that queue packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// nft where the kernel can queue from it, else iptables.
    #[default]
    Auto,
    /// nft, or an error.
    Nft,
    /// iptables for the queue rules, or an error.
    Iptables,
}

/// Something in the file that keeps natd from running with it. Its `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line in the file, from 1. What is missing has the line of its table, or 1.
    pub line: usize,
    /// Column in characters, from 1, where the text is not TOML at all.
    pub column: Option<usize>,
    /// The key with its table, `nat.lan`; empty where the text is not TOML at all.
    pub key: String,
    /// What is wrong, with the value that is.
    pub message: String,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}; {}", self.message, self.expected)
    }
}

/// Something in the file that natd accepts and its owner should know. Its `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// Line in the file, from 1.
    pub line: usize,
    /// The key with its table, `timeout.udp`.
    pub key: String,
    /// What to know about it, with the RFC.
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.key, self.message)
    }
}

impl Config {
    /// Where the control socket is unless the file says otherwise.
    pub const DEFAULT_SOCKET: &'static str = "/run/natd/natd.sock";

    /// The defaults, for these interfaces; `lan` and `wan` alone have none. The names are not checked.
    pub fn new<L: Into<String>>(lan: impl IntoIterator<Item = L>, wan: impl Into<String>) -> Self {
        Self {
            lan: lan.into_iter().map(Into::into).collect(),
            wan: wan.into(),
            policy: Policy::default(),
            passthrough: Settings::default(),
            kernel: Kernel::default(),
            socket: PathBuf::from(Self::DEFAULT_SOCKET),
            log: LevelFilter::Info,
            observe: true,
            sessions: SessionLog::default(),
        }
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// Every problem of the text, at least one, in the order of their lines.
    pub fn parse(text: &str) -> Result<(Self, Vec<Remark>), Vec<Problem>> {
        let mut findings = Findings::default();
        let readable = syntax::readable(text, &mut findings.problems);
        let document = Document::new(&readable);
        schema::check(&document, &mut findings.problems);

        let interfaces = nat::interfaces(&document, &mut findings);
        let mut policy = nat::policy(&document, &mut findings);
        let mut passthrough = passthrough::read(&document, &mut findings);
        policy.forwards = forward::read(&document, &mut passthrough, &mut findings);
        policy.timeouts = timeout::read(&document, &mut passthrough, &mut findings);
        let kernel = daemon::kernel(&document, &mut findings);
        let socket = daemon::socket(&document, &mut findings);
        let log = daemon::log(&document, &mut findings);
        let observe = diagnosis::observe(&document, &mut findings);
        let sessions = diagnosis::sessions(&document, observe, &mut findings);

        let Findings { problems, remarks } = findings;
        let problems = order::by(problems, |problem| problem.line as u64);
        let remarks = order::by(remarks, |remark| remark.line as u64);
        match interfaces {
            Some((lan, wan)) if problems.is_empty() => {
                let config = Self { lan, wan, policy, passthrough, kernel, socket, log, observe, sessions };
                Ok((config, remarks))
            }
            Some(_) | None => Err(problems),
        }
    }

    /// The keys whose value differs in `new` and that a reload cannot take over: the queues are bound, the
    /// rules in place and the socket open already. Empty when a reload is enough.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        [
            ("nat.scope", self.passthrough.scope != new.passthrough.scope),
            ("kernel.rules", self.kernel.rules != new.kernel.rules),
            ("kernel.queue", self.kernel.queue != new.kernel.queue),
            ("kernel.queues", self.kernel.queues != new.kernel.queues),
            ("kernel.queue_length", self.kernel.queue_length != new.kernel.queue_length),
            ("control.socket", self.socket != new.socket),
            ("diagnosis.observe", self.observe != new.observe),
            ("sessions.log", self.sessions.to != new.sessions.to),
            ("sessions.format", self.sessions.format != new.sessions.format),
            ("sessions.max_size", self.sessions.max_size != new.sessions.max_size),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// What has been found so far.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    remarks: Vec<Remark>,
}

impl Findings {
    /// Reads `item`, if the file has it; a problem is kept and answers `None`, like a missing key.
    fn take<'d, T>(
        &mut self,
        item: Option<item::Item<'d>>,
        read: impl FnOnce(&item::Item<'d>) -> Result<T, Problem>,
    ) -> Option<T> {
        read(&item?).map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Sets `field` from `item`, if the file has it and it is right.
    fn set<'d, T>(
        &mut self,
        field: &mut T,
        item: Option<item::Item<'d>>,
        read: impl FnOnce(&item::Item<'d>) -> Result<T, Problem>,
    ) {
        if let Some(value) = self.take(item, read) {
            *field = value;
        }
    }
}
