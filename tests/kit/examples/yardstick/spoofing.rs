//! Forged resets and ICMP errors against a quiet TCP connection.

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::address::{D1, S1, STRANGER, WAN, at};
use testkit::capture::Keep;
use testkit::clock::holds_within;
use testkit::packet::{self, Segment};
use testkit::socket::RawSocket;
use testkit::tcp::{self, Connection};
use testkit::{Capture, Lab, pause};

use crate::{Cell, Finding, share, tables};

/// Long enough for a forged packet to be through.
const SETTLED: Duration = Duration::from_millis(400);
/// Seconds that a table's clock may have gone on while a row was measured.
const SLACK: u64 = 15;
/// The server's port.
const PORT: u16 = 80;

/// A quiet connection from d1 to s1.
struct Target {
    connection: Connection,
    client_next: u32,
    server_next: u32,
    /// What reaches d1.
    inside: Capture,
    forge: RawSocket,
    before: tables::Connection,
}

impl Target {
    fn new(lab: &mut Lab) -> Result<Self, String> {
        let inside = lab.d1.capture("eth0", Keep::All);
        let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, PORT));
        connection.expect_alive("at first");
        let (mut client_next, mut server_next) = (0, 0);
        // Each side's last acknowledgment tells where the other stands, once it agrees with what was sent.
        let quiet = holds_within(Duration::from_secs(3), || {
            (client_next, server_next) = (next_byte(&inside, S1), next_byte(&inside, D1));
            acknowledged(&inside, S1) == server_next && acknowledged(&inside, D1) == client_next
        });
        let before = tables::connection(lab, PORT).ok_or("the NAT's table has no such connection")?;
        let forge = lab.internet.raw();
        let target = Self { connection, client_next, server_next, inside, forge, before };
        if quiet { Ok(target) } else { Err("the connection did not fall quiet".to_owned()) }
    }

    fn reset(&self, distance: u32) {
        let seq = self.server_next.wrapping_add(distance);
        self.forge.send(&packet::tcp(at(S1, PORT), at(WAN, 40_000), seq, Segment::Rst, b""));
        pause(SETTLED);
    }

    fn error(&self, from: Ipv4Addr, code: u8, seq: u32) {
        let quoted = packet::tcp(at(WAN, 40_000), at(S1, PORT), seq, Segment::Ack(self.server_next), b"");
        let mtu = if code == 4 { 1200 } else { 0 };
        self.forge.send(&packet::icmp_error(from, WAN, 3, code, mtu, &quoted));
    }

    /// Does data pass both ways?
    fn lives(&mut self) -> bool {
        let Connection { client, server, .. } = &mut self.connection;
        for stream in [&mut *client, &mut *server] {
            stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout can be set");
        }
        tcp::exchange(client, server, b"up").is_ok() && tcp::exchange(server, client, b"down").is_ok()
    }
}

/// One past the last byte that went towards `to`.
fn next_byte(capture: &Capture, to: Ipv4Addr) -> u32 {
    let sent = capture.find(|wire| wire.dst == to && wire.tcp.is_some());
    sent.iter()
        .filter_map(|seen| seen.wire.tcp.map(|tcp| (tcp, seen.wire.payload_len)))
        .map(|(tcp, len)| {
            tcp.seq.wrapping_add(u32::try_from(len).unwrap_or(0)).wrapping_add(u32::from(tcp.syn))
        })
        .reduce(|a, b| if b.wrapping_sub(a) < 1 << 31 { b } else { a })
        .unwrap_or(0)
}

/// The last acknowledgment that went towards `to`.
fn acknowledged(capture: &Capture, to: Ipv4Addr) -> u32 {
    let sent = capture.find(|wire| wire.dst == to && wire.tcp.is_some());
    sent.last().and_then(|seen| seen.wire.tcp).map_or(0, |tcp| tcp.ack)
}

/// The table's word for a connection and its time.
fn shown(connection: Option<&tables::Connection>) -> String {
    connection.map_or("gone".to_owned(), |now| format!("{} {} s", now.state, now.expires))
}

/// Is it as it was, but for the time that went by?
fn unchanged(before: &tables::Connection, after: Option<&tables::Connection>) -> bool {
    after.is_some_and(|after| after.state == before.state && after.expires + SLACK >= before.expires)
}

fn harmless_reset(lab: &mut Lab, distances: &[u32]) -> Cell {
    let mut target = Target::new(lab)?;
    for distance in distances {
        target.reset(*distance);
    }
    let after = tables::connection(lab, PORT);
    let lives = target.lives();
    let kept = unchanged(&target.before, after.as_ref());
    let words = format!(
        "{} → {}, data {}",
        shown(Some(&target.before)),
        shown(after.as_ref()),
        if lives { "passes" } else { "lost" }
    );
    Ok(Finding { words, right: kept && lives })
}

pub(crate) fn far_reset(lab: &mut Lab) -> Cell {
    harmless_reset(lab, &[1 << 30, 1 << 31, 3 << 30])
}

pub(crate) fn near_reset(lab: &mut Lab) -> Cell {
    harmless_reset(lab, &[100])
}

pub(crate) fn exact_reset(lab: &mut Lab) -> Cell {
    let target = Target::new(lab)?;
    target.reset(0);
    let forwarded =
        !target.inside.find(|wire| wire.dst == D1 && wire.tcp.is_some_and(|tcp| tcp.rst)).is_empty();
    let after = tables::connection(lab, PORT);
    let words = format!(
        "{} → {}, RST {}",
        shown(Some(&target.before)),
        shown(after.as_ref()),
        if forwarded { "forwarded" } else { "dropped" }
    );
    // RFC 7857 section 2.2: 4 minutes.
    let kept = after.is_some_and(|after| (240 - SLACK..=240).contains(&after.expires));
    Ok(Finding { words, right: forwarded && kept })
}

pub(crate) fn wrong_quotes(lab: &mut Lab) -> Cell {
    let mut target = Target::new(lab)?;
    for from in [S1, STRANGER] {
        for code in [1, 3, 4] {
            target.error(from, code, target.client_next.wrapping_add(1 << 30));
        }
    }
    pause(SETTLED);
    let errors = |target: &Target| target.inside.find(|wire| wire.quote.is_some()).len();
    let wrong = errors(&target);
    let after = tables::connection(lab, PORT);
    let kept = unchanged(&target.before, after.as_ref());
    let lives = target.lives();
    // A true one quotes what is under way: the server does not hear it for a moment.
    target.client_next = next_byte(&target.inside, S1);
    lab.s1.nft(
        "table ip deaf {\n chain input {\n  type filter hook input priority 0;\n  tcp dport 80 drop\n }\n}\n",
    );
    target.connection.client.write_all(b"unheard").map_err(|error| error.to_string())?;
    target.error(STRANGER, 1, target.client_next);
    pause(SETTLED);
    let true_ones = errors(&target) - wrong;
    let words = format!(
        "{} wrong ones delivered, {} right ones; {} → {}, data {}",
        share(wrong, 6),
        share(true_ones, 1),
        shown(Some(&target.before)),
        shown(after.as_ref()),
        if lives { "passes" } else { "lost" }
    );
    Ok(Finding { words, right: (wrong, true_ones) == (0, 1) && kept && lives })
}
