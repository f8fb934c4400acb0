//! Packets without ports: ESP, AH, L2TPv3 and GRE with a key.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::address::{D1, D2, S1, S2, WAN, at, is_lan};
use testkit::capture::Keep;
use testkit::clock::{self, holds_within};
use testkit::vpn::raw::{self, End};
use testkit::vpn::{AH, ESP, GRE, L2TPV3};
use testkit::{Capture, Lab, Nat, pause};

use crate::ike::Initiator;
use crate::tables::{conntrack_counter, text};
use crate::{Cell, Finding, share};

/// How long a packet may be under way; longer than one of an unknown owner may be held.
const WAIT: Duration = Duration::from_millis(2500);
/// Packets that each side sends.
const ROUNDS: usize = 2;

/// A protocol without ports.
struct Kind {
    protocol: u8,
    /// A packet from, to, with this identifier.
    packet: fn(Ipv4Addr, Ipv4Addr, u32) -> Vec<u8>,
    /// The identifier, from the first two words.
    id: fn((u32, u32)) -> u32,
}

const ESP_PACKETS: Kind =
    Kind { protocol: ESP, packet: |from, to, id| raw::esp(from, to, id, 1), id: |words| words.0 };
const L2TPV3_PACKETS: Kind =
    Kind { protocol: L2TPV3, packet: |from, to, id| raw::l2tpv3(from, to, id, 0x77), id: |words| words.0 };
const GRE_PACKETS: Kind =
    Kind { protocol: GRE, packet: |from, to, id| raw::keyed_gre(from, to, id, 0x77), id: |words| words.1 };

/// A device and a server that talk.
struct Talk {
    name: &'static str,
    device: End,
    server: End,
    /// The identifier that the device sends, and the one that it gets.
    ids: (u32, u32),
    left: usize,
    answered: usize,
}

impl Talk {
    fn new(lab: &Lab, kind: &Kind, number: u32, server: Ipv4Addr, ids: (u32, u32)) -> Self {
        let (name, node, addr) = if number == 1 { ("d1", &lab.d1, D1) } else { ("d2", &lab.d2, D2) };
        let server_node = if server == S1 { &lab.s1 } else { &lab.s2 };
        let device = End::new(node, addr, kind.protocol);
        Self { name, device, server: End::new(server_node, server, kind.protocol), ids, left: 0, answered: 0 }
    }

    /// A packet each way; the server answers whether it heard one or not.
    fn round(&mut self, kind: &Kind) {
        self.device.send(&(kind.packet)(self.device.addr, self.server.addr, self.ids.0));
        self.left += usize::from(grows(&self.server, WAN, kind, self.ids.0, self.left));
        self.server.send(&(kind.packet)(self.server.addr, WAN, self.ids.1));
        self.answered += usize::from(grows(&self.device, self.server.addr, kind, self.ids.1, self.answered));
    }

    fn works(&self) -> bool {
        (self.left, self.answered) == (ROUNDS, ROUNDS)
    }

    /// Packets that were another device's.
    fn strays(&self, kind: &Kind) -> usize {
        self.device.got(self.server.addr).into_iter().filter(|words| (kind.id)(*words) != self.ids.1).count()
    }
}

fn grows(end: &End, from: Ipv4Addr, kind: &Kind, id: u32, known: usize) -> bool {
    let count = || end.got(from).into_iter().filter(|words| (kind.id)(*words) == id).count();
    holds_within(WAIT, || count() > known)
}

/// Lets all talk, in turns.
fn talk(kind: &Kind, talks: &mut [Talk]) -> Finding {
    for _ in 0..ROUNDS {
        talks.iter_mut().for_each(|talk| talk.round(kind));
    }
    let mut parts: Vec<String> = talks
        .iter()
        .map(|talk| {
            format!("{} {} out, {} back", talk.name, share(talk.left, ROUNDS), share(talk.answered, ROUNDS))
        })
        .collect();
    let mut right = talks.iter().all(Talk::works);
    for talk in talks.iter() {
        let strays = talk.strays(kind);
        if strays > 0 {
            right = false;
            parts.push(format!("{} also got {strays} of the other's", talk.name));
        }
    }
    Finding { words: parts.join("; "), right }
}

pub(crate) fn one_device(lab: &mut Lab) -> Cell {
    let mut finding = talk(&ESP_PACKETS, &mut [Talk::new(lab, &ESP_PACKETS, 1, S1, (0x2001, 0x1001))]);
    finding.words.push_str(&how(lab));
    Ok(finding)
}

pub(crate) fn one_server(lab: &mut Lab) -> Cell {
    Ok(two_devices(lab, [S1, S1]))
}

pub(crate) fn two_servers(lab: &mut Lab) -> Cell {
    Ok(two_devices(lab, [S1, S2]))
}

fn two_devices(lab: &mut Lab, [first, second]: [Ipv4Addr; 2]) -> Finding {
    let mut talks = [
        Talk::new(lab, &ESP_PACKETS, 1, first, (0x2001, 0x1001)),
        Talk::new(lab, &ESP_PACKETS, 2, second, (0x2002, 0x1002)),
    ];
    let mut finding = talk(&ESP_PACKETS, &mut talks);
    finding.words.push_str(&how(lab));
    finding
}

/// What the NAT says of its ESP.
fn how(lab: &mut Lab) -> String {
    if lab.nat() == Nat::Natd {
        let sessions = lab.natd().command(&["sessions", "--json"]).expect_success();
        let mut learned: Vec<&str> = sessions.split('}').filter_map(|ids| text(ids, "learned")).collect();
        learned.dedup();
        return if learned.is_empty() {
            String::new()
        } else {
            format!("; SPIs learned by {}", learned.join(", "))
        };
    }
    let entries = lab.router.run(&["conntrack", "-L", "-p", "50"]).stdout;
    let lifetime = entries.split_whitespace().nth(2).unwrap_or("?").to_owned();
    let failed = conntrack_counter(lab, "insert_failed");
    let failed = if failed > 0 { format!("; insert_failed {failed}") } else { String::new() };
    format!("; kept {lifetime} s{failed}")
}

pub(crate) fn server_first(lab: &mut Lab) -> Cell {
    let ike = lab.s1.udp(at(S1, 500));
    let ends = [(&lab.d1, D1), (&lab.d2, D2)].map(|(node, addr)| End::new(node, addr, ESP));
    let [server, stranger] = [(&lab.s1, S1), (&lab.s2, S2)].map(|(node, addr)| End::new(node, addr, ESP));
    // The gate stays open while the initiator's socket is.
    let mut initiator = Initiator::start(&lab.d1, D1, &ike, 0x1111);
    initiator.quick_mode(&ike);
    let start = clock::now();
    server.send(&raw::esp(S1, WAN, 0x1001, 1));
    stranger.send(&raw::esp(S2, WAN, 0x1001, 1));
    let [first, second] = &ends;
    let heard = holds_within(WAIT, || first.got(S1).contains(&(0x1001, 1)));
    pause(WAIT.saturating_sub(start.elapsed()));
    let strays = second.got(S1).len() + ends.iter().map(|end| end.got(S2).len()).sum::<usize>();
    let first = if heard { "delivered to d1" } else { "lost" };
    let words = format!("the first word is {first}; {strays} delivered to others or without IKE");
    Ok(Finding { words, right: heard && strays == 0 })
}

pub(crate) fn other_protocols(lab: &mut Lab) -> Cell {
    let mut parts = Vec::new();
    let mut right = true;
    for (name, kind, ids) in [("115", &L2TPV3_PACKETS, [101, 102]), ("GRE", &GRE_PACKETS, [7, 8])] {
        let [first, second] = ids;
        let mut talks =
            [Talk::new(lab, kind, 1, S1, (first, first)), Talk::new(lab, kind, 2, S1, (second, second))];
        let finding = talk(kind, &mut talks);
        parts.push(format!("{name}: {}", finding.words));
        right &= finding.right;
    }
    let (ah, told) = authentication_header(lab);
    parts.push(ah);
    Ok(Finding { words: parts.join(". "), right: right && told })
}

/// What becomes of AH, and whether the devices and the owner learn of it.
fn authentication_header(lab: &mut Lab) -> (String, bool) {
    let server = End::new(&lab.s1, S1, AH);
    let devices = [(&lab.d1, D1), (&lab.d2, D2)];
    let links = devices.map(|(node, _)| node.capture("eth0", Keep::All));
    for (node, addr) in devices {
        node.raw().send(&raw::ah(addr, S1, 0x2001, 1));
    }
    let refusals = || links.iter().map(|link| link.find(|wire| wire.is_icmp(3, 13)).len()).sum::<usize>();
    holds_within(Duration::from_secs(1), || refusals() == 2);
    let (left, refused) = (server.got(WAN).len(), refusals());
    let status = if lab.nat() == Nat::Natd { lab.natd().command(&["status"]).stdout } else { String::new() };
    let named = status.lines().find(|line| line.split_whitespace().any(|word| word == "AH"));
    let told = named.map_or("nobody is told".to_owned(), |line| format!("status: \"{}\"", one_line(line)));
    let words = format!("AH: {} out, {} refused by ICMP 3/13, {told}", share(left, 2), share(refused, 2));
    (words, left == 0 && refused == 2 && named.is_some())
}

/// A line without runs of spaces.
pub(crate) fn one_line(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn untracked(lab: &mut Lab) -> Cell {
    lab.router.nft(
        "table ip untracked {\n chain prerouting {\n  type filter hook prerouting priority -300;\n  ip protocol { 50, 115 } notrack\n }\n}\n",
    );
    let (out, bare) = leaving(lab);
    let running = format!("{} out, {bare} untranslated", share(out, 4));
    if lab.nat() != Nat::Natd {
        return Ok(Finding { words: running, right: (out, bare) == (4, 0) });
    }
    lab.natd().kill();
    let (after, _) = leaving(lab);
    let words = format!("{running}; natd killed: {} out", share(after, 4));
    Ok(Finding { words, right: (out, bare, after) == (4, 0, 0) })
}

/// Both devices send ESP and L2TPv3: how many of the four packets leave, and how many of these untranslated.
fn leaving(lab: &Lab) -> (usize, usize) {
    let wan: Capture = lab.capture_wan();
    // Otherwise a server's kernel would say that it does not know the protocol.
    let _servers = [ESP, L2TPV3].map(|protocol| End::new(&lab.s1, S1, protocol));
    for (node, addr, id) in [(&lab.d1, D1, 1), (&lab.d2, D2, 2)] {
        let device = node.raw();
        device.send(&raw::esp(addr, S1, 0x2000 + id, 1));
        device.send(&raw::l2tpv3(addr, S1, 100 + id, 0x77));
    }
    let sent = || {
        wan.find(|wire| wire.dst == S1 && [ESP, L2TPV3].contains(&wire.protocol))
            .into_iter()
            .filter(|seen| !seen.outgoing)
            .collect::<Vec<_>>()
    };
    holds_within(Duration::from_secs(1), || sent().len() == 4);
    let sent = sent();
    (sent.len(), sent.iter().filter(|seen| is_lan(seen.wire.src)).count())
}
