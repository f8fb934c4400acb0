//! `natd check`: is the configuration valid, the kernel able, the surroundings friendly?
//!
//! Everything here is pure: [`findings`] turns what [`crate::io::rules::survey`] has read ([`Seen`]) and what the owner
//! wants ([`Expected`]) into [`Finding`]s, each one line with what to do about it.

use std::fmt::{self, Display};
use std::net::Ipv4Addr;

use nat_core::decision::InterfaceAddress;
use nat_core::flow::Protocol;
use nat_core::policy::Forward;
use passthrough::settings::{Scope, Settings};
use serde::Serialize;

use crate::rules::{Backend, InterfaceName, Queues};

pub mod firewall;
pub mod line;
pub mod proc;

use firewall::{Cover, Firewall};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// natd works, but something will not as the owner may expect.
    Warning,
    /// natd cannot work.
    Problem,
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that `check` has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Names the kind of finding; scripts may rely on it.
    pub code: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What is the case.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn ok(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, level: Level::Ok, text: text.into(), fix: None }
    }

    fn note(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, level: Level::Note, text: text.into(), fix: None }
    }

    fn warning(code: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, level: Level::Warning, text: text.into(), fix: Some(fix.into()) }
    }

    fn problem(code: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, level: Level::Problem, text: text.into(), fix: Some(fix.into()) }
    }
}

impl Display for Finding {
    /// `warning  flow-offload: text; fix`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}: {}", self.level, self.code, self.text.replace('\n', " "))?;
        self.fix.iter().try_for_each(|fix| write!(f, "; {}", fix.replace('\n', " ")))
    }
}

/// The gravest level among `findings`; `Ok` when there are none.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

/// What the owner wants.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// The interface to the internet.
    pub wan: &'a InterfaceName,
    /// The interfaces to the household.
    pub lan: &'a [InterfaceName],
    /// The household's prefixes, as far as known.
    pub lan_prefixes: &'a [(Ipv4Addr, u8)],
    /// The port forwards.
    pub forwards: &'a [Forward],
    /// Which traffic is natd's, and which VPNs cross.
    pub passthrough: &'a Settings,
    /// The queues that natd reads.
    pub queues: Queues,
}

/// Is an interface there?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No such interface.
    Missing,
    /// There, but administratively down.
    Down,
    /// Up.
    Up,
}

/// What the kernel's rules can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Who queues.
    pub backend: Backend,
    /// The `socket` expression.
    pub socket_match: bool,
    /// `snat to ct original ip saddr`.
    pub null_binding: bool,
}

/// What there is. A text is `None` when the file or tool is not there.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Each interface of [`Expected`] and its state.
    pub links: Vec<(InterfaceName, Link)>,
    /// IPv4 addresses of the WAN interface.
    pub wan_addresses: Vec<InterfaceAddress>,
    /// What the WAN interface is.
    pub line: line::Line,
    /// Is a natd at work here? Its process id.
    pub running: Option<u32>,
    /// The kernel's abilities, or why nothing can be queued.
    pub abilities: Result<Abilities, String>,
    /// Does ctnetlink answer? If not, the reason.
    pub ctnetlink: Result<(), String>,
    /// Is there a `/proc/sys/net/netfilter/nf_conntrack_max`?
    pub conntrack: bool,
    /// `/proc/net/netfilter/nfnetlink_queue`.
    pub nfnetlink_queue: Option<String>,
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Option<String>,
    /// `net.ipv6.conf.all.forwarding`.
    pub ipv6_forwarding: Option<String>,
    /// `net.ipv4.conf.{all,WAN}.rp_filter`.
    pub rp_filter: [Option<String>; 2],
    /// `/proc/net/route`.
    pub routes: Option<String>,
    /// `net.netfilter.nf_conntrack_helper`; newer kernels do not have it.
    pub conntrack_helper: Option<String>,
    /// `/proc/modules`.
    pub modules: Option<String>,
    /// `nft -j list ruleset`.
    pub nft: Option<String>,
    /// `iptables-legacy-save`.
    pub iptables_legacy: Option<String>,
    /// `iptables-save` of the variant on nf_tables: nft does not show the parameters of its targets.
    pub iptables_nft: Option<String>,
    /// `/proc/net/tcp` and `/proc/net/tcp6`, one after the other.
    pub tcp: String,
    /// `/proc/net/udp` and `/proc/net/udp6`, one after the other.
    pub udp: String,
}

/// The configuration's problems, one finding each; or that there are none.
pub fn configuration(problems: &[String]) -> Vec<Finding> {
    if problems.is_empty() {
        return vec![Finding::ok("configuration", "the configuration is valid")];
    }
    let fix = "correct the configuration; conf/natd.toml explains every key";
    problems.iter().map(|problem| Finding::problem("configuration", problem, fix)).collect()
}

/// Something odd, though allowed, in the configuration.
pub fn remark(text: String) -> Finding {
    Finding { code: "configuration", level: Level::Warning, text, fix: None }
}

/// Everything that can be said of the kernel and the surroundings.
pub fn findings(expected: &Expected<'_>, seen: &Seen) -> Vec<Finding> {
    let firewall =
        Firewall::read(seen.nft.as_deref(), [seen.iptables_legacy.as_deref(), seen.iptables_nft.as_deref()]);
    [
        links(expected, seen),
        vec![wan_address(expected, seen)],
        line::findings(expected, seen),
        abilities(seen),
        vec![queues(expected, seen), conntrack(seen), ip_forward(seen)],
        foreign_nat(expected, &firewall),
        vec![offload(expected, &firewall), helpers(&firewall, seen)],
        pptp_helper(expected, &firewall, seen),
        reverse_path(expected, seen),
        ipv6(seen),
        listeners(expected, seen),
    ]
    .concat()
}

/// Does another NAT translate everything that these LANs send to this WAN? Then the guard may go with natd.
/// `false` when in doubt.
pub fn another_nat_serves(
    wan: &InterfaceName,
    lan_prefixes: &[(Ipv4Addr, u8)],
    nft: Option<&str>,
    iptables_legacy: Option<&str>,
) -> bool {
    Firewall::read(nft, [iptables_legacy, None])
        .nat_towards(wan, lan_prefixes)
        .iter()
        .any(|nat| nat.cover == Cover::All)
}

fn links(expected: &Expected<'_>, seen: &Seen) -> Vec<Finding> {
    seen.links
        .iter()
        .map(|(name, link)| {
            let (key, name) = (if name == expected.wan { "wan" } else { "lan" }, name.as_str());
            match link {
                Link::Up => Finding::ok("interface", format!("interface {name} is up")),
                Link::Down => Finding::problem(
                    "interface",
                    format!("interface {name} is down"),
                    format!("bring it up: ip link set {name} up"),
                ),
                Link::Missing => Finding::problem(
                    "interface",
                    format!("there is no interface {name}"),
                    format!("correct `{key}` under [nat]; `ip link` lists the interfaces"),
                ),
            }
        })
        .collect()
}

fn wan_address(expected: &Expected<'_>, seen: &Seen) -> Finding {
    let wan = expected.wan.as_str();
    match seen.wan_addresses.first() {
        Some(address) => Finding::ok("wan-address", format!("{wan} has the address {}", address.addr)),
        None => Finding::warning(
            "wan-address",
            format!("{wan} has no IPv4 address"),
            "natd waits for one and forwards nothing until then; look at the DHCP or PPPoE client",
        ),
    }
}

fn abilities(seen: &Seen) -> Vec<Finding> {
    let able = match &seen.abilities {
        Ok(able) => able,
        Err(reason) => {
            let fix = "install kmod-nft-queue (OpenWrt) or iptables and nftables (Debian)";
            return vec![Finding::problem("queue-rules", reason, fix)];
        }
    };
    let mut found = vec![Finding::ok("queue-rules", format!("packets can be queued by {}", able.backend))];
    found.push(if able.socket_match {
        Finding::ok("socket-match", "the kernel tells which packets a local socket wants")
    } else {
        Finding::warning(
            "socket-match",
            "the kernel's nft has no `socket` match: local sockets are known only by what they send, and unsolicited \
             SYNs are refused at once",
            "install kmod-nft-socket (OpenWrt) or a kernel with NFT_SOCKET",
        )
    });
    found.push(if able.null_binding {
        Finding::ok("null-binding", "a masquerade can be kept off natd's packets")
    } else {
        Finding::problem(
            "null-binding",
            "the kernel's nft takes no `snat to ct original ip saddr`",
            "install kmod-nft-nat (OpenWrt) or a kernel with NFT_NAT and NFT_CT",
        )
    });
    found
}

fn queues(expected: &Expected<'_>, seen: &Seen) -> Finding {
    let Some(text) = &seen.nfnetlink_queue else {
        return Finding::problem(
            "queue",
            "the kernel has no nfnetlink_queue",
            "install kmod-nfnetlink-queue (OpenWrt), load nfnetlink_queue, or use a kernel with \
             NETFILTER_NETLINK_QUEUE",
        );
    };
    if let Some(pid) = seen.running {
        return Finding::note("queue", format!("natd is running (process {pid}) and reads its queues"));
    }
    match proc::queues(text).find(|taken| expected.queues.numbers().any(|ours| ours == taken.number)) {
        Some(taken) => Finding::problem(
            "queue",
            format!("queue {} is read by another program (netlink port {})", taken.number, taken.reader),
            "stop that program, or choose another queue number in natd's configuration",
        ),
        None => Finding::ok("queue", "the queue numbers are free"),
    }
}

fn conntrack(seen: &Seen) -> Finding {
    if !seen.conntrack {
        return Finding::problem(
            "conntrack",
            "the kernel does not track connections",
            "load nf_conntrack, or install kmod-nf-conntrack (OpenWrt)",
        );
    }
    match &seen.ctnetlink {
        Ok(()) => Finding::ok("conntrack", "connection tracking can be read and written"),
        Err(reason) => Finding::problem(
            "conntrack",
            format!("connection tracking does not answer to netlink ({reason})"),
            "load nf_conntrack_netlink, install kmod-nf-conntrack-netlink (OpenWrt), or run as root",
        ),
    }
}

fn ip_forward(seen: &Seen) -> Finding {
    match seen.ip_forward.as_deref().map(str::trim) {
        Some("1") => Finding::ok("ip-forward", "IPv4 forwarding is on"),
        Some(_) | None => Finding::problem(
            "ip-forward",
            "IPv4 forwarding is off: the kernel passes nothing between LAN and WAN",
            "sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d/",
        ),
    }
}

fn foreign_nat(expected: &Expected<'_>, firewall: &Firewall) -> Vec<Finding> {
    let wan = expected.wan.as_str();
    let found = firewall.nat_towards(expected.wan, expected.lan_prefixes);
    let beside = expected.passthrough.scope == Scope::Vpn;
    if found.is_empty() && beside {
        return vec![Finding::warning(
            "foreign-nat",
            format!(
                "no NAT rule is in force towards {wan}, and scope is \"vpn\": nobody translates the rest"
            ),
            "turn masquerade on in the firewall, or set scope = \"all\"",
        )];
    }
    if found.is_empty() {
        return vec![Finding::ok("foreign-nat", format!("no other NAT rule is in force towards {wan}"))];
    }
    found
        .iter()
        .map(|nat| match nat.cover {
            Cover::All if beside => Finding::ok(
                "foreign-nat",
                format!("{} translates what is not VPN towards {wan}", nat.place),
            ),
            Cover::All => Finding::warning(
                "foreign-nat",
                format!(
                    "{} translates everything towards {wan}; natd keeps it off its own packets, but while natd is \
                     stopped it takes over",
                    nat.place
                ),
                "remove that rule unless it is meant as a fallback",
            ),
            Cover::Some => Finding::note(
                "foreign-nat",
                format!("{} translates some packets towards {wan}; natd's own are kept from it", nat.place),
            ),
        })
        .collect()
}

fn offload(expected: &Expected<'_>, firewall: &Firewall) -> Finding {
    match firewall.offload.first() {
        Some(place) if expected.passthrough.scope == Scope::Vpn => Finding::warning(
            "flow-offload",
            format!(
                "{place} offloads flows: a VPN's UDP and TCP must not be among them, or they pass by natd, and \
                 `natd diagnose` does not see them"
            ),
            "turn flow offloading off, or exempt UDP 500, 4500 and 1701 and TCP 1723 from it",
        ),
        Some(place) => Finding::problem(
            "flow-offload",
            format!("{place} offloads flows: their packets pass by natd and the guard, untranslated"),
            "turn flow offloading off (OpenWrt: uci set firewall.@defaults[0].flow_offloading=0 and \
             flow_offloading_hw=0, commit, fw4 reload)",
        ),
        None => Finding::ok("flow-offload", "no flow offload is in force"),
    }
}

fn helpers(firewall: &Firewall, seen: &Seen) -> Finding {
    let automatic = seen.conntrack_helper.as_deref().map(str::trim) == Some("1");
    match firewall.helpers.first() {
        Some((place, _)) => Finding::warning(
            "conntrack-helper",
            format!("{place} binds a conntrack helper, which rewrites payload as if the kernel did the NAT"),
            "remove that rule",
        ),
        None if automatic => Finding::warning(
            "conntrack-helper",
            "the kernel binds conntrack helpers by itself",
            "sysctl -w net.netfilter.nf_conntrack_helper=0",
        ),
        None => Finding::ok("conntrack-helper", "no conntrack helper is bound"),
    }
}

/// The kernel's own PPTP passthrough rewrites the same Call IDs as natd's.
fn pptp_helper(expected: &Expected<'_>, firewall: &Firewall, seen: &Seen) -> Vec<Finding> {
    if !expected.passthrough.pptp.on {
        return Vec::new();
    }
    let rule = firewall.helpers.iter().find(|(_, helper)| helper == "pptp");
    let loaded = |name: &&str| {
        let modules = seen.modules.as_deref().unwrap_or_default();
        modules.lines().any(|line| line.split(' ').next() == Some(name))
    };
    let (text, fix) = match (rule, ["nf_nat_pptp", "nf_conntrack_pptp"].iter().find(|name| loaded(name))) {
        (Some((place, _)), _) => (
            format!("{place} binds the kernel's PPTP helper, which rewrites the Call IDs that natd does"),
            "remove that rule, or set pptp = false under [passthrough]".to_owned(),
        ),
        (None, Some(module)) => (
            format!(
                "the kernel's PPTP helper {module} is loaded; bound by a rule, it would rewrite what natd does"
            ),
            "unload it: rmmod nf_nat_pptp nf_conntrack_pptp".to_owned(),
        ),
        (None, None) => return vec![Finding::ok("pptp-helper", "no other PPTP passthrough is in force")],
    };
    vec![Finding::warning("pptp-helper", text, fix)]
}

/// Strict reverse-path filtering harms only a WAN that the default route does not use (two uplinks).
fn reverse_path(expected: &Expected<'_>, seen: &Seen) -> Vec<Finding> {
    let wan = expected.wan.as_str();
    let values: Vec<u8> =
        seen.rp_filter.iter().flatten().filter_map(|text| text.trim().parse().ok()).collect();
    let strict = values.iter().max() == Some(&1);
    let elsewhere = seen.routes.as_deref().is_some_and(|routes| {
        let mut defaults = proc::default_routes(routes).peekable();
        defaults.peek().is_some() && defaults.all(|interface| interface != wan)
    });
    if !(strict && elsewhere) {
        return Vec::new();
    }
    vec![Finding::warning(
        "reverse-path",
        format!("rp_filter is strict on {wan} and the default route leaves elsewhere: answers are dropped"),
        format!("sysctl -w net.ipv4.conf.{wan}.rp_filter=2"),
    )]
}

fn ipv6(seen: &Seen) -> Vec<Finding> {
    let routed = seen.ipv6_forwarding.as_deref().map(str::trim) == Some("1");
    let text = "IPv6 is routed; natd does not touch it, so only the firewall stands between the LAN and the internet";
    if routed { vec![Finding::note("ipv6", text)] } else { Vec::new() }
}

fn listeners(expected: &Expected<'_>, seen: &Seen) -> Vec<Finding> {
    let tcp: Vec<u16> = proc::wildcard_listeners(&seen.tcp, proc::TCP_LISTEN).collect();
    let udp: Vec<u16> = proc::wildcard_listeners(&seen.udp, proc::UDP_UNCONNECTED).collect();
    let mut found = Vec::new();
    for forward in expected.forwards {
        for (protocol, name, ports) in [(Protocol::Tcp, "TCP", &tcp), (Protocol::Udp, "UDP", &udp)] {
            let taken =
                ports.iter().filter(|port| forward.protocol == protocol && forward.external.contains(**port));
            found.extend(taken.map(|port| {
                Finding::warning(
                    "forwarded-listener",
                    format!(
                        "a program on the router listens on {name} port {port}, which is forwarded to {}: from the \
                         internet the forward wins",
                        forward.host
                    ),
                    "bind the program to a LAN address, or forward another port",
                )
            }));
        }
    }
    found
}

#[cfg(test)]
mod tests;
