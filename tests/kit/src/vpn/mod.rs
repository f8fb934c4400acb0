//! Real VPN programs in a lab, and packets of VPN protocols by hand.
//!
//! # Theory of operation
//!
//! The kernel of a test machine need not know IPsec, PPP or WireGuard: every program here does its work in user space
//! over TUN devices. strongSwan uses its plugin kernel-libipsec, PPP is done by `minippp` of this kit, WireGuard by
//! wireguard-go. Every program gets a /run of its own in a mount namespace of its own, since two of a kind would
//! otherwise find each other's sockets and process ids there.
//!
//! One server on the internet has the inner address [`INNER`] and devices get theirs from [`POOL`], or as the VPN's
//! own file says. A tunnel works when a ping to the inner address loses nothing ([`ping`]).

pub mod l2tp;
pub mod openvpn;
pub mod ppp;
pub mod pptp;
pub mod raw;
pub mod strongswan;
pub mod vpnc;
pub mod wireguard;

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::address::{WAN, at};
use crate::capture::{Capture, Seen};
use crate::clock::{holds_within, wait_for};
use crate::node::Node;
use crate::process::{Background, Outcome};
use crate::{Lab, Nat, sys, tcp};

/// The server's address inside the tunnels.
pub const INNER: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
/// The network of the devices' addresses inside the tunnels.
pub const POOL: &str = "10.9.0.0/24";
/// How long a tunnel may take to come up.
pub const UP: Duration = Duration::from_secs(12);
/// How long a transfer may stand still.
const TRANSFER: Duration = Duration::from_secs(20);

/// IP protocol number of GRE.
pub const GRE: u8 = 47;
/// IP protocol number of ESP.
pub const ESP: u8 = 50;
/// IP protocol number of AH.
pub const AH: u8 = 51;
/// IP protocol number of L2TPv3.
pub const L2TPV3: u8 = 115;

/// Starts a program in the background with a /run of its own, after the shell commands `before` (each with a `;`).
pub fn spawn(node: &Node, before: &str, words: &[&str]) -> Background {
    let log = node.dir().join(format!("{}-minippp.log", node.namespace()));
    let script = format!(
        "set -e; export MINIPPP_LOG={}; mount -t tmpfs tmpfs /run; {before} exec \"$@\"",
        log.display()
    );
    let mut line = vec!["unshare", "--mount", "--propagation", "private", "sh", "-c", &script];
    // The shell's own name, for its messages.
    line.push(words.first().copied().unwrap_or("sh"));
    line.extend(words);
    node.spawn(&line)
}

/// Waits until the way to [`INNER`] leads into `interface`.
///
/// # Panics
/// When it does not after [`UP`]; the message has the log of `program`.
pub fn wait_for_tunnel(node: &Node, interface: &str, program: &Background) {
    let up = holds_within(UP, || has_tunnel(node, interface));
    assert!(up, "{interface} in {} is not up after {UP:?}; the log:\n{}", node.namespace(), program.log());
}

/// Does the way to [`INNER`] lead into `interface`?
pub fn has_tunnel(node: &Node, interface: &str) -> bool {
    let way = node.run(&["ip", "-o", "route", "get", &INNER.to_string()]).stdout;
    way.contains(&format!("dev {interface} "))
}

/// Three pings from `node` to `to`, 0.2 s apart.
pub fn try_ping(node: &Node, to: Ipv4Addr) -> Outcome {
    node.run(&["ping", "-n", "-c3", "-i0.2", "-W1", &to.to_string()])
}

/// Three pings to the server's inner address lose nothing.
///
/// # Panics
/// When one is lost; `when` names the moment.
pub fn ping(node: &Node, when: &str) {
    let outcome = try_ping(node, INNER);
    let whole = outcome.stdout.contains(" 0% packet loss");
    assert!(whole, "{when}: {} does not reach {INNER}: {outcome}", node.namespace());
}

/// Pings from every device of the lab at once, each as in [`ping`]; says which fail, not only the first.
///
/// # Panics
/// When one is lost.
pub fn ping_from_all(lab: &Lab, when: &str) {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let pings: Vec<_> = lab
            .devices()
            .into_iter()
            .map(|(node, addr)| (addr, scope.spawn(move || try_ping(node, INNER))))
            .collect();
        let outcomes =
            pings.into_iter().map(|(addr, ping)| (addr, ping.join().expect("a ping does not panic")));
        outcomes
            .filter(|(_, outcome)| !outcome.stdout.contains(" 0% packet loss"))
            .map(|(addr, outcome)| {
                let line = outcome.stdout.lines().find(|line| line.contains("packet loss"));
                format!("{addr}: {}", line.unwrap_or(&outcome.stderr))
            })
            .collect()
    });
    let all = lab.devices().len();
    assert!(failed.is_empty(), "{when}: {} of {all} devices fail:\n{}", failed.len(), failed.join("\n"));
}

/// `blocks` blocks of 64 KiB each way through the tunnel of `device` to the inner port `port` of `server`.
///
/// # Panics
/// When it does not arrive as it was sent.
pub fn transfer(device: &Node, server: &Node, port: u16, blocks: u32) {
    let any = at(Ipv4Addr::UNSPECIFIED, 0);
    let mut connection = tcp::pair(device, any, server, at(INNER, port));
    connection.expect_alive("in the tunnel");
    let (client, server) = (&connection.client, &connection.server);
    for (from, to) in [(client, server), (server, client)] {
        let mut from = from.try_clone().expect("a socket can be cloned");
        let mut to = to.try_clone().expect("a socket can be cloned");
        // TCP in a tunnel whose programs get no processor for a while backs off for seconds.
        to.set_read_timeout(Some(TRANSFER)).expect("a timeout can be set");
        from.set_write_timeout(Some(TRANSFER)).expect("a timeout can be set");
        let sending = std::thread::spawn(move || tcp::send_blocks(&mut from, blocks));
        assert_eq!(tcp::receive_blocks(&mut to).expect("the connection lives"), blocks);
        sending.join().expect("no panic").expect("all is sent");
    }
}

/// A megabyte each way from every device of the lab at once.
///
/// # Panics
/// When one fails.
pub fn transfer_from_all(lab: &Lab, server: &Node) {
    std::thread::scope(|scope| {
        for (port, (node, _)) in (7001..).zip(lab.devices()) {
            scope.spawn(move || transfer(node, server, port, 16));
        }
    });
}

/// What came from the household in a capture of [`Lab::capture_wan`].
pub fn from_household(wan: &Capture) -> Vec<Seen> {
    wan.seen().into_iter().filter(|seen| !seen.outgoing).collect()
}

/// In a capture of [`Lab::capture_wan`] all that came from the household has the WAN address as its source, and
/// some of it is of IP protocol `protocol`. Without a NAT only the latter.
///
/// # Panics
/// When that is not so.
pub fn expect_on_wan(lab: &Lab, wan: &Capture, protocol: u8) {
    let sent = from_household(wan);
    let counted = sent.iter().filter(|seen| seen.wire.protocol == protocol).count();
    assert!(counted > 0, "no packet of IP protocol {protocol} left the household");
    if lab.nat() == Nat::Routed {
        return;
    }
    let foreign: Vec<_> = sent.iter().filter(|seen| seen.wire.src != WAN).take(3).collect();
    assert!(foreign.is_empty(), "not from {WAN}: {foreign:?}");
    wan.expect_no_leak();
}

/// Ends every program of `node` at once, without a farewell, as a power cut does; waits until their ports are free.
///
/// # Panics
/// When one does not end.
pub fn cut_power(node: &Node) {
    let listed = node.run(&["ip", "netns", "pids", node.namespace()]).stdout;
    let pids: Vec<i32> = listed.split_whitespace().flat_map(str::parse).collect();
    for pid in &pids {
        // The one that made the list has ended.
        let _ = sys::kill(*pid, libc::SIGKILL);
    }
    wait_for("programs to end", Duration::from_secs(5), || pids.iter().all(|pid| has_ended(*pid)));
}

/// Is there no such process, or nothing left of it but its exit code?
fn has_ended(pid: i32) -> bool {
    // The state stands after the name, which is in parentheses (proc(5)).
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')))
}
