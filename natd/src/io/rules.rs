//! Puts rules into the kernel and takes them out, by `nft` and `iptables-restore`.
//!
//! The text comes from [`crate::rules`]; here it is given to the tools. Each tool's part is one transaction. Their order
//! closes the gaps between them: marks and guard come before an iptables queue and go after it, so a LAN packet meets
//! the guard whenever it does not meet the queue.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

use crate::rules::{self, Backend, GUARD_TABLE, Present, Ruleset, Surroundings, TABLE};

pub mod command;
pub mod survey;

/// Which backend the owner asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// nft where its `queue` works, else iptables.
    #[default]
    Auto,
    /// nft only.
    Nft,
    /// iptables only.
    Iptables,
}

/// What went wrong, in the tool's own words.
#[derive(Debug)]
pub enum RulesError {
    /// `nft` is not installed.
    NoNft,
    /// The kernel refuses rules from this process.
    NotPermitted(String),
    /// No way to queue: what nft and what iptables said.
    CannotQueue {
        /// nft's answer, or why it was not asked.
        nft: String,
        /// iptables' answer, or why it was not asked.
        iptables: String,
    },
    /// A tool refused a text.
    Refused {
        /// Which.
        tool: String,
        /// What it said.
        message: String,
        /// The line of our text that it named.
        line: Option<String>,
    },
    /// A tool could not be run, or took too long.
    Tool(String, io::Error),
}

impl Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNft => f.write_str("nft is not installed; install the package nftables"),
            Self::NotPermitted(message) => {
                write!(
                    f,
                    "no permission to change firewall rules ({message}); run as root or with CAP_NET_ADMIN"
                )
            }
            Self::CannotQueue { nft, iptables } => write!(
                f,
                "the kernel cannot queue packets (nft: {nft}; iptables: {iptables}); install kmod-nft-queue \
                 (OpenWrt) or iptables (Debian), or a kernel with NFT_QUEUE or NETFILTER_XT_TARGET_NFQUEUE"
            ),
            Self::Refused { tool, message, line: Some(line) } => {
                write!(f, "{tool}: {message}, in the line `{line}`")
            }
            Self::Refused { tool, message, line: None } => write!(f, "{tool}: {message}"),
            Self::Tool(tool, error) => write!(f, "cannot run {tool}: {error}"),
        }
    }
}

impl std::error::Error for RulesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tool(_, error) => Some(error),
            Self::NoNft | Self::NotPermitted(_) | Self::CannotQueue { .. } | Self::Refused { .. } => None,
        }
    }
}

/// A pair of iptables tools that belong together.
#[derive(Clone, Debug)]
struct Iptables {
    restore: PathBuf,
    save: PathBuf,
}

/// The tools of this machine and what its kernel can do with them.
#[derive(Clone, Debug)]
pub struct Kernel {
    nft: PathBuf,
    iptables: Option<Iptables>,
    /// Who runs the queue statement.
    pub backend: Backend,
    /// Has nft the `socket` expression?
    pub socket_match: bool,
    /// Has nft the `meta secpath` expression?
    pub secpath: bool,
    /// Can a foreign masquerade be kept off our packets?
    pub null_binding: bool,
}

/// Packets that rules of ours dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// From the LAN while the WAN had no address.
    pub no_wan_address: u64,
    /// From the WAN, addressed to the LAN directly.
    pub inbound_to_lan: u64,
    /// By the guard: with a LAN source address.
    pub lan_source: u64,
    /// By the guard: from the LAN with a source that is neither the LAN's nor the WAN's.
    pub foreign_source: u64,
    /// By the guard: ICMP errors quoting an address of the LAN.
    pub lan_quote: u64,
    /// By the guard, in scope vpn: VPN packets that the kernel's own NAT would have translated.
    pub kernel_nat: u64,
}

impl Kernel {
    /// Asks the kernel what it can do. Changes nothing; where iptables is asked, its `raw` table may come to exist.
    pub fn probe(want: Want) -> Result<Self, RulesError> {
        let nft = command::find("nft").ok_or(RulesError::NoNft)?;
        let mut kernel = Self {
            nft,
            iptables: None,
            backend: Backend::Nft,
            socket_match: false,
            secpath: false,
            null_binding: false,
        };
        // Fails only without permission or without nf_tables: then nothing below could tell the reason.
        kernel.nft_check("table ip natd_probe { }\n")?;
        kernel.socket_match = kernel.nft_check(&rules::probe_socket()).is_ok();
        kernel.secpath = kernel.nft_check(&rules::probe_secpath()).is_ok();
        kernel.null_binding = kernel.nft_check(&rules::probe_binding()).is_ok();
        let by_nft = match want {
            Want::Auto | Want::Nft => {
                kernel.nft_check(&rules::probe_queue()).map_err(|error| error.to_string())
            }
            Want::Iptables => Err("not wanted".to_owned()),
        };
        if by_nft.is_ok() {
            // A natd that was killed may have used the other backend.
            kernel.iptables = candidates().next();
            return Ok(kernel);
        }
        kernel.backend = Backend::Iptables;
        let mut by_iptables = "not wanted".to_owned();
        if want != Want::Nft {
            by_iptables = "not installed".to_owned();
            for candidate in candidates() {
                match candidate.probe() {
                    Ok(()) => {
                        kernel.iptables = Some(candidate);
                        return Ok(kernel);
                    }
                    Err(error) => by_iptables = error.to_string(),
                }
            }
        }
        Err(RulesError::CannotQueue { nft: by_nft.err().unwrap_or_default(), iptables: by_iptables })
    }

    /// Puts the rules in place, whatever is there of ours. On an error nothing new is left behind.
    pub fn install(&self, surroundings: &Surroundings) -> Result<(), RulesError> {
        let guarded = self.has_table(GUARD_TABLE)?;
        self.apply(|present| surroundings.install(present)).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.remove();
            if !guarded {
                let _ = self.remove_guard();
            }
        })
    }

    /// Brings installed rules to new addresses or prefixes; packets that wait in a queue stay there. Installs
    /// where somebody has taken our tables away.
    pub fn refresh(&self, surroundings: &Surroundings) -> Result<(), RulesError> {
        if self.has_table(TABLE)? && self.has_table(GUARD_TABLE)? {
            self.apply(|present| surroundings.refresh(present))
        } else {
            self.apply(|present| surroundings.install(present))
        }
    }

    /// Takes everything out but the guard.
    pub fn remove(&self) -> Result<(), RulesError> {
        let by_iptables = self.each_iptables(rules::removal);
        self.nft(&rules::removal(&Present::default()).nft)?;
        by_iptables
    }

    /// Takes the guard out.
    pub fn remove_guard(&self) -> Result<(), RulesError> {
        self.nft(&rules::guard_removal().nft)
    }

    /// Is everything still where it was put? A firewall that reloads with `flush ruleset` takes our rules with it.
    pub fn is_intact(&self) -> Result<bool, RulesError> {
        let chains = match self.backend {
            Backend::Nft => true,
            Backend::Iptables => self.present()?.is_complete(),
        };
        Ok(chains && self.has_table(TABLE)? && self.has_table(GUARD_TABLE)?)
    }

    /// What our rules have dropped since they were installed; 0 for a table that is not there.
    pub fn dropped(&self) -> Result<Dropped, RulesError> {
        let answer = self.ask(&["-j", "list", "counters"])?;
        let listed: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        let count = |table: &str, name: &str| {
            let objects = listed.get("nftables").and_then(|list| list.as_array());
            objects
                .into_iter()
                .flatten()
                .filter_map(|object| object.get("counter"))
                .find(|c| {
                    let is = |key: &str, value: &str| c.get(key).and_then(|v| v.as_str()) == Some(value);
                    is("family", "ip") && is("table", table) && is("name", name)
                })
                .and_then(|counter| counter.get("packets")?.as_u64())
                .unwrap_or(0)
        };
        Ok(Dropped {
            no_wan_address: count(TABLE, "no_wan_address"),
            inbound_to_lan: count(TABLE, "inbound_to_lan"),
            lan_source: count(GUARD_TABLE, "lan_source"),
            foreign_source: count(GUARD_TABLE, "foreign_source"),
            lan_quote: count(GUARD_TABLE, "lan_quote"),
            kernel_nat: count(GUARD_TABLE, "kernel_nat"),
        })
    }

    fn apply(&self, text: impl Fn(&Present) -> Ruleset) -> Result<(), RulesError> {
        match self.backend {
            Backend::Nft => {
                self.each_iptables(&text)?;
                self.nft(&text(&Present::default()).nft)
            }
            Backend::Iptables => {
                self.nft(&text(&Present::default()).nft)?;
                self.each_iptables(&text)
            }
        }
    }

    /// Gives iptables its part. Between reading and changing somebody else may have changed the same chain; a
    /// second reading settles that.
    fn each_iptables(&self, text: impl Fn(&Present) -> Ruleset) -> Result<(), RulesError> {
        let Some(iptables) = &self.iptables else { return Ok(()) };
        let once = || {
            let present = match self.present() {
                // An iptables that has no say in queueing and cannot even list has nothing of ours.
                Err(_) if self.backend == Backend::Nft => return Ok(()),
                read => read?,
            };
            text(&present).iptables.iter().try_for_each(|table| iptables.restore(table))
        };
        once().or_else(|_| once())
    }

    fn present(&self) -> Result<Present, RulesError> {
        let Some(iptables) = &self.iptables else { return Ok(Present::default()) };
        let saved = tool::<&str>(&iptables.save, &[], "")?;
        Ok(Present::parse(&saved))
    }

    fn has_table(&self, name: &str) -> Result<bool, RulesError> {
        Ok(self.ask(&["list", "tables", "ip"])?.lines().any(|line| line.trim() == format!("table ip {name}")))
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, RulesError> {
        tool(&self.nft, arguments, "")
    }

    fn nft(&self, text: &str) -> Result<(), RulesError> {
        tool(&self.nft, &["-f", "-"], text).map(|_| ())
    }

    fn nft_check(&self, text: &str) -> Result<(), RulesError> {
        tool(&self.nft, &["--check", "-f", "-"], text).map(|_| ())
    }
}

impl Iptables {
    fn probe(&self) -> Result<(), RulesError> {
        self.restore(&rules::probe_chain())?;
        self.restore(&rules::probe_chain_removal())
    }

    fn restore(&self, table: &str) -> Result<(), RulesError> {
        tool(&self.restore, &["--noflush", "-w", "5"], table).map(|_| ())
    }
}

/// The iptables variants that are installed, the one on nf_tables first.
fn candidates() -> impl Iterator<Item = Iptables> {
    ["iptables-nft", "iptables", "iptables-legacy"].into_iter().filter_map(|name| {
        Some(Iptables {
            restore: command::find(&format!("{name}-restore"))?,
            save: command::find(&format!("{name}-save"))?,
        })
    })
}

/// Runs a tool; its output, or its complaint together with the line of `text` that it is about.
fn tool<A: AsRef<std::ffi::OsStr>>(
    program: &Path,
    arguments: &[A],
    text: &str,
) -> Result<String, RulesError> {
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    match command::run(program, arguments, text) {
        Err(error) => Err(RulesError::Tool(name, error)),
        Ok(answer) if answer.success => Ok(answer.stdout),
        Ok(answer) => Err(complaint(name, &answer.stderr, text)),
    }
}

fn complaint(tool: String, stderr: &str, text: &str) -> RulesError {
    let said = |words: &str| stderr.lines().find(|line| line.contains(words));
    let denied = said("Operation not permitted")
        .or_else(|| said("Permission denied"))
        .or_else(|| said("must be root"));
    if let Some(line) = denied {
        return RulesError::NotPermitted(format!("{tool}: {}", line.trim()));
    }
    let first = stderr.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let message = first.unwrap_or("failed without a word").to_owned();
    let number = stderr.lines().find_map(line_number);
    let line =
        number.and_then(|n: usize| text.lines().nth(n.checked_sub(1)?)).map(|line| line.trim().to_owned());
    RulesError::Refused { tool, message, line }
}

/// The line that a complaint names: `/dev/stdin:5:3-10: Error` (nft), `line 5 failed` or `at line: 5` (iptables).
fn line_number(complaint: &str) -> Option<usize> {
    let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
    for start in ["/dev/stdin:", "line: ", "line "] {
        if let Some((_, rest)) = complaint.split_once(start) {
            return digits(rest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "table ip x {\n  chain c {\n    queue num 3\n  }\n}\n";

    #[test]
    fn complaints_name_the_line() {
        for (stderr, message) in [
            (
                "/dev/stdin:3:8-13: Error: Could not process rule: No such file or directory\n queue\n ^^^^^\n",
                "/dev/stdin:3:8-13: Error: Could not process rule: No such file or directory",
            ),
            (
                "# Warning: table ip raw is managed by iptables-nft, do not touch!\n\
                 iptables-restore v1.8.9 (nf_tables): unknown option \"--foo\"\nError occurred at line: 3\nTry `-h'\n",
                "iptables-restore v1.8.9 (nf_tables): unknown option \"--foo\"",
            ),
            ("iptables-restore: line 3 failed\n", "iptables-restore: line 3 failed"),
        ] {
            let error = complaint("tool".to_owned(), stderr, TEXT);
            assert_eq!(error.to_string(), format!("tool: {message}, in the line `queue num 3`"));
        }
    }

    #[test]
    fn a_line_beyond_the_text_is_left_out() {
        let error = complaint("nft".to_owned(), "/dev/stdin:99:1-2: Error: odd\n", TEXT);
        assert_eq!(error.to_string(), "nft: /dev/stdin:99:1-2: Error: odd");
    }

    #[test]
    fn a_missing_permission_is_told_as_such() {
        let error =
            complaint("nft".to_owned(), "Error: Could not process rule: Operation not permitted\n", TEXT);
        assert!(matches!(error, RulesError::NotPermitted(_)), "{error}");
    }
}
