//! The kernel rules around natd: values in, text for `nft` and `iptables-restore` out.
//!
//! # Theory of operation
//!
//! natd sees a packet only where a rule queues it. Everything that can be said in nft lives in one table, `ip natd`;
//! the table `ip natd_guard` is apart because it outlives natd. Where the kernel's nft has no `queue` statement, the
//! statement alone moves to iptables (`NATD-PRE` in raw, `NATD-IN` and `NATD-POST` in mangle); marks, null binding
//! and guard stay in nft.
//!
//! A packet's way, with the priority of each chain (nft path; iptables path where it differs):
//!
//! | hook | priority | what happens |
//! |---|---|---|
//! | prerouting | -301 | WAN or LAN packet to a WAN address that a local socket wants: mark bit [`LOCAL_SOCKET`] |
//! | prerouting | -299 (-300) | to a WAN address, from the WAN or (hairpin, first pass) from the LAN: **queue** |
//! | | -200 | conntrack; it sees the LAN's view because natd has already rewritten the destination |
//! | input | -151 | from the WAN, TCP, new, no socket wants it: mark [`Mark::Unwanted`] |
//! | input | -149 (-150) | that mark: **queue** (RFC 5382 REQ-4: an unsolicited SYN waits 6 s) |
//! | forward | 300 | LAN to WAN: mark [`Mark::Forwarded`], unless the kernel's own NAT owns the flow |
//! | output | -300 | [`Mark::Final`] to the WAN: not tracked, its flow has an entry already |
//! | output | 300 | the router's own to the WAN: mark [`Mark::Own`], unless the kernel's own NAT owns the flow |
//! | postrouting | 99 | null binding: a masquerade at 100 leaves natd's packets alone |
//! | postrouting | 300 (-150) | those marks towards the WAN, [`Mark::Hairpin`] towards the LAN: **queue** |
//! | postrouting | 310 | guard: no untranslated LAN packet leaves through the WAN |
//!
//! Reasons that the table cannot show:
//!
//! * Chains of equal priority run in an order that depends on who loaded last, so the queue stands one beside the
//!   usual -300: other people's raw chains always see the packet as it is on the wire.
//! * Forward and output are marked last. A firewall that writes the whole mark cannot erase ours there, none sees
//!   a strange mark in its own chains, and a redirect made in output (-100) is already known to conntrack.
//! * An accepted packet goes on at the next hook, not at the next rule of the same chain. So the iptables jumps
//!   stand at the end of their chains: other people's rules there are not skipped.
//! * A plain range of queues spreads by a hash of the addresses, so one flow's packets stay in order; fan-out by
//!   receiving CPU would not promise that.
//! * `ct status` matches nothing on an untracked packet. Hence "return if the kernel translates, then mark (or
//!   drop)" and never "mark if it does not": an untracked packet is translated, or caught by the guard.
//! * Only packets to a WAN address are queued on their way in. Multicast (IPTV) and routed public prefixes cost
//!   nothing.
//!
//! While the WAN has no address nothing is queued: LAN to WAN packets are dropped and counted (`no_wan_address`)
//! rather than answered with an ICMP error, since a TCP client retries after a second but gives up on an error. The
//! router's own packets pass (DHCP needs them) and the guard is in force.
//!
//! # Scope vpn
//!
//! The kernel's masquerade stays and keeps everything but the VPN protocols. The chains are the same; `jump only_vpn`
//! in them ends a chain for a packet that is no VPN's, so it is neither queued nor marked nor guarded. A VPN's are:
//! IP protocols 47, 50, 51 and 115; UDP from or to port 500, 1701 or 4500; TCP from or to port 1723; and ICMP errors
//! that quote one of those (by ports only where the quoted header has no options). What differs:
//!
//! | hook | priority | scope vpn |
//! |---|---|---|
//! | prerouting | -301 | iptables path: what is to be queued gets [`INBOUND_VPN`], since iptables has no short way to say it |
//! | prerouting | -298 | iptables path: that mark goes again, natd has seen it |
//! | input | | nothing is held: a refused TCP 1723 is refused at once |
//! | forward | 310 | guard: a VPN packet from LAN to WAN without [`Mark::Forwarded`] is dropped, or the masquerade takes it |
//!
//! * An ICMP error belongs to the conntrack entry of the packet that it quotes and shows that entry's status. So
//!   errors about flows that the kernel translates are left to it by the same `ct status`, and the null binding does
//!   not touch any error: the kernel translates errors by the entry and asks no nat chain.
//! * What the kernel redirects (`ct status dnat`, a user's own server inside) stays the kernel's, answers included.
//!   A VPN flow that only its masquerade translates began before these rules; it is dropped here until the daemon
//!   has deleted its entry, for it would never come to natd.
//! * nft 1.0.6 joins `tcp sport != x tcp dport != x` into one comparison of four bytes, which is "or". So the list
//!   is said in positive words only.
//!
//! Installing replaces whole tables in one transaction, leftovers of a killed natd included. Refreshing keeps the
//! chains and changes only rules and set elements: a base chain that goes away makes the kernel drop every
//! packet that waits in a queue, held SYNs too.

use std::fmt::{self, Display};
use std::net::Ipv4Addr;
use std::str::FromStr;

use nat_core::decision::InterfaceAddress;

mod nft;
mod xtables;

pub use nft::{probe_binding, probe_queue, probe_secpath, probe_socket};
pub use xtables::{Present, probe_chain, probe_chain_removal};

/// Bits 24 to 27 of the packet mark belong to natd.
pub const MARK_MASK: u32 = 0x0f00_0000;
/// The bits of [`Mark`].
pub const KIND_MASK: u32 = 0x0700_0000;
/// Set on a packet to a WAN address that an established or specifically bound local socket wants.
pub const LOCAL_SOCKET: u32 = 0x0800_0000;
/// On the iptables path of [`Scope::Vpn`]: set on what is to be queued on its way in, cleared behind the queue. No
/// [`Mark`].
pub const INBOUND_VPN: u32 = 6 << 24;
/// The table that goes when natd stops.
pub const TABLE: &str = "natd";
/// The table that stays.
pub const GUARD_TABLE: &str = "natd_guard";

/// What a packet is to natd; bits 24 to 26 of the packet mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// LAN to WAN, to be translated.
    Forwarded,
    /// The router's own packet to the WAN.
    Own,
    /// From the LAN to the LAN through the WAN address; natd sets it with the first pass's verdict.
    Hairpin,
    /// Sent by natd itself, already final, never queued.
    Final,
    /// TCP for the router itself that no socket wants.
    Unwanted,
}

impl Mark {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Forwarded, Self::Own, Self::Hairpin, Self::Final, Self::Unwanted];

    /// The bits in the packet mark.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Forwarded => 1 << 24,
            Self::Own => 2 << 24,
            Self::Hairpin => 3 << 24,
            Self::Final => 4 << 24,
            Self::Unwanted => 5 << 24,
        }
    }

    /// The kind that a packet's mark says; `None` when natd's bits are unset or unknown.
    pub fn of(packet_mark: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mark| mark.bits() == packet_mark & KIND_MASK)
    }
}

/// Which packets are natd's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All that pass the WAN.
    #[default]
    All,
    /// Those of VPN protocols; the kernel's own NAT has the rest.
    Vpn,
}

/// What runs the queue statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nft's own `queue`.
    Nft,
    /// The NFQUEUE target of iptables.
    Iptables,
}

impl Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        })
    }
}

/// The name of a network interface that rule text can hold without changing its meaning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceName(String);

/// Why a text is not the name of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Empty, `.` or `..`.
    Reserved(String),
    /// Linux allows 15 bytes.
    TooLong(String),
    /// A character that the kernel or the rule languages give a meaning of their own.
    Character(String, char),
}

impl Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved(name) => write!(f, "{name:?} is not a name for an interface"),
            Self::TooLong(name) => write!(f, "interface name {name:?} is longer than 15 bytes"),
            Self::Character(name, c) => {
                write!(
                    f,
                    "interface name {name:?} holds {c:?}, which firewall rules cannot express; rename it"
                )
            }
        }
    }
}

impl std::error::Error for NameError {}

impl InterfaceName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    /// Takes what the kernel takes, less quotes, backslash and the wildcards `*` (nft) and `+` (iptables).
    fn from_str(name: &str) -> Result<Self, NameError> {
        if matches!(name, "" | "." | "..") {
            return Err(NameError::Reserved(name.to_owned()));
        }
        if name.len() > 15 {
            return Err(NameError::TooLong(name.to_owned()));
        }
        let odd = |c: &char| c.is_whitespace() || c.is_control() || "/:\"'\\*+!".contains(*c);
        match name.chars().find(odd) {
            Some(c) => Err(NameError::Character(name.to_owned(), c)),
            None => Ok(Self(name.to_owned())),
        }
    }
}

impl Display for InterfaceName {
    /// Quoted, as both rule languages want it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// One or more queues with consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    first: u16,
    last: u16,
}

impl Queues {
    /// `count` queues from `first` on; `None` when there are none or they pass 65535.
    pub fn new(first: u16, count: u16) -> Option<Self> {
        let last = first.checked_add(count.checked_sub(1)?)?;
        Some(Self { first, last })
    }

    /// Their numbers.
    pub fn numbers(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

/// Everything that the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The interface to the internet.
    pub wan: InterfaceName,
    /// Its addresses; empty while there is none.
    pub wan_addresses: Vec<InterfaceAddress>,
    /// The interfaces to the household.
    pub lan: Vec<InterfaceName>,
    /// The household's prefixes: address and length.
    pub lan_prefixes: Vec<(Ipv4Addr, u8)>,
    /// The queues that natd reads.
    pub queues: Queues,
    /// Which packets are natd's.
    pub scope: Scope,
    /// Who queues.
    pub backend: Backend,
    /// Has the kernel's nft the `socket` expression? Without it local sockets are known only by what they send,
    /// and unsolicited SYNs are refused at once.
    pub socket_match: bool,
    /// Can nft tell what the router's own IPsec has decrypted? Without it there is no such IPsec.
    pub secpath: bool,
}

/// Text for the tools. Each part is atomic for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// One transaction for `nft -f -`; empty when nothing is to be done.
    pub nft: String,
    /// Input for `iptables-restore --noflush`, one text a table.
    pub iptables: Vec<String>,
}

impl Surroundings {
    /// Text that puts the rules in place whatever is there of ours already, leftovers of a killed natd included.
    pub fn install(&self, present: &Present) -> Ruleset {
        Ruleset {
            nft: [delete(TABLE), nft::table(self), delete(GUARD_TABLE), nft::guard(self)].concat(),
            iptables: self.iptables(present),
        }
    }

    /// Text that brings installed rules to these surroundings and loses no waiting packet and no counter. `nft`
    /// refuses it when a table is not there any more: then install.
    pub fn refresh(&self, present: &Present) -> Ruleset {
        let sets = format!(
            "flush table ip {TABLE}\nflush table ip {GUARD_TABLE}\n\
             flush set ip {TABLE} wan_addresses\n\
             flush set ip {GUARD_TABLE} wan_addresses\nflush set ip {GUARD_TABLE} lan_prefixes\n"
        );
        Ruleset { nft: [sets, nft::table(self), nft::guard(self)].concat(), iptables: self.iptables(present) }
    }

    fn iptables(&self, present: &Present) -> Vec<String> {
        match self.backend {
            Backend::Nft => xtables::removal(present),
            Backend::Iptables => xtables::install(self, present),
        }
    }
}

/// Text that takes everything away but the guard, whatever is there.
pub fn removal(present: &Present) -> Ruleset {
    Ruleset { nft: delete(TABLE), iptables: xtables::removal(present) }
}

/// Text that takes the guard away, whether it is there or not.
pub fn guard_removal() -> Ruleset {
    Ruleset { nft: delete(GUARD_TABLE), iptables: Vec::new() }
}

/// `add` first, so that `delete` finds a table in any case.
fn delete(table: &str) -> String {
    format!("add table ip {table}\ndelete table ip {table}\n")
}

#[cfg(test)]
mod tests;
