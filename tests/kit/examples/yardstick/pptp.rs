//! PPTP (RFC 2637), both sides played over real TCP connections, and its GRE by hand.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use testkit::address::{D1, D2, S1, WAN, at};
use testkit::capture::Keep;
use testkit::clock::holds_within;
use testkit::tcp::{self, Connection};
use testkit::vpn::GRE;
use testkit::vpn::raw::{self, End};
use testkit::{Lab, Nat, Node, pause};

use crate::portless::one_line;
use crate::{Cell, Finding, share};

const CONTROL_PORT: u16 = 1723;
/// How long a packet may be under way; longer than one that comes early may be held.
const WAIT: Duration = Duration::from_millis(1500);

/// Control message types (RFC 2637 section 2).
const START_REQUEST: u16 = 1;
const START_REPLY: u16 = 2;
const ECHO_REQUEST: u16 = 5;
const CALL_REQUEST: u16 = 7;
const CALL_REPLY: u16 = 8;

/// Who calls: a device with its control connection.
struct Caller {
    addr: Ipv4Addr,
    control: Connection,
    gre: End,
}

/// What the two sides of a call know.
struct Call {
    /// The client's own Call ID.
    own: u16,
    /// The same as the server saw it.
    seen: u16,
    /// The same as the server's reply, when it came to the client, named it.
    told: u16,
    /// The server's own.
    server: u16,
    /// The same as the client saw it.
    server_seen: u16,
}

/// How the call request goes into segments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segments {
    Plain,
    Split,
    AfterEcho,
}

impl Caller {
    /// Opens the control connection, up to Start-Control-Connection-Reply.
    fn dial(lab: &Lab, node: &Node, addr: Ipv4Addr) -> io::Result<Self> {
        let mut control = tcp::pair(node, at(addr, 0), &lab.s1, at(S1, CONTROL_PORT));
        control.client.write_all(&message(START_REQUEST, 156, &[(12, 0x0100)]))?;
        read_message(&mut control.server, START_REQUEST)?;
        control.server.write_all(&message(START_REPLY, 156, &[(12, 0x0100), (14, 0x0100)]))?;
        read_message(&mut control.client, START_REPLY)?;
        Ok(Self { addr, control, gre: End::new(node, addr, GRE) })
    }

    /// Asks for a call with the Call ID `own`; the server takes `server`.
    fn call(&mut self, own: u16, server: u16, segments: Segments) -> io::Result<Call> {
        let request = message(CALL_REQUEST, 168, &[(12, own), (14, own)]);
        let client = &mut self.control.client;
        match segments {
            Segments::Plain => client.write_all(&request)?,
            Segments::Split => {
                let (head, rest) = request.split_at(13);
                client.write_all(head)?;
                // Long enough to be a segment of its own.
                pause(Duration::from_millis(100));
                client.write_all(rest)?;
            }
            Segments::AfterEcho => client.write_all(&[message(ECHO_REQUEST, 16, &[]), request].concat())?,
        }
        let seen = word(&read_message(&mut self.control.server, CALL_REQUEST)?, 12)?;
        let reply = message(CALL_REPLY, 32, &[(12, server), (14, seen), (16, 0x0100)]);
        self.control.server.write_all(&reply)?;
        let reply = read_message(&mut self.control.client, CALL_REPLY)?;
        Ok(Call { own, seen, told: word(&reply, 14)?, server, server_seen: word(&reply, 12)? })
    }

    /// One packet up and one down; which of them arrived with the Call ID of the receiver.
    fn exchange(&self, call: &Call, server: &End) -> (bool, bool) {
        self.gre.send(&raw::pptp_gre(self.addr, S1, call.server_seen, 1));
        let up = holds_within(WAIT, || call_ids(server, WAN).contains(&call.server));
        server.send(&raw::pptp_gre(S1, WAN, call.seen, 1));
        let down = holds_within(WAIT, || call_ids(&self.gre, S1).contains(&call.own));
        (up, down)
    }
}

/// The Call IDs of the GRE packets that came from `from`.
fn call_ids(end: &End, from: Ipv4Addr) -> Vec<u16> {
    // Payload length and Call ID are the second word.
    end.got(from).into_iter().filter_map(|(_, second)| u16::try_from(second & 0xffff).ok()).collect()
}

/// A control message of type `kind` and `len` bytes with 16-bit `fields` at their offsets.
fn message(kind: u16, len: u16, fields: &[(usize, u16)]) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(len)];
    let fixed = [(0, len), (2, 1), (4, 0x1a2b), (6, 0x3c4d), (8, kind)];
    for (at, value) in fixed.iter().chain(fields) {
        if let Some(place) = bytes.get_mut(*at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }
    bytes
}

/// The next message of type `kind`; others are passed over.
fn read_message(stream: &mut TcpStream, kind: u16) -> io::Result<Vec<u8>> {
    loop {
        let mut bytes = vec![0; 2];
        stream.read_exact(&mut bytes)?;
        bytes.resize(usize::from(word(&bytes, 0)?).max(12), 0);
        stream.read_exact(bytes.get_mut(2..).unwrap_or_default())?;
        if word(&bytes, 8)? == kind {
            return Ok(bytes);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> io::Result<u16> {
    let bytes = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u16::from_be_bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Gives the kernel its PPTP helper; natd needs none.
fn prepare(lab: &Lab) -> Result<(), String> {
    if lab.nat() == Nat::Natd {
        return Ok(());
    }
    let rules = "table ip lab_helper {\n ct helper pptp {\n  type \"pptp\" protocol tcp;\n }\n chain prerouting {\n  type filter hook prerouting priority -150;\n  tcp dport 1723 ct helper set \"pptp\"\n }\n}";
    let loaded = lab.router.run(&["sh", "-c", &format!("echo '{rules}' | nft -f -")]);
    let why =
        || format!("this kernel has no PPTP helper ({})", loaded.stderr.lines().next().unwrap_or_default());
    if loaded.success() { Ok(()) } else { Err(why()) }
}

/// Tries GRE on each call after all are up.
fn judge(server: &End, calls: &[(&Caller, Call)]) -> Finding {
    let each = |field: fn(&Call) -> u16| {
        calls.iter().map(|(_, call)| field(call).to_string()).collect::<Vec<_>>().join(", ")
    };
    let results: Vec<(bool, bool)> =
        calls.iter().map(|(caller, call)| caller.exchange(call, server)).collect();
    let up = results.iter().filter(|(up, _)| *up).count();
    let down = results.iter().filter(|(_, down)| *down).count();
    let all = calls.len();
    let told = calls.iter().filter(|(_, call)| call.told == call.own).count();
    let words = format!(
        "Call IDs {} reach the server as {}, {} come back right; GRE {} up, {} down",
        each(|call| call.own),
        each(|call| call.seen),
        share(told, all),
        share(up, all),
        share(down, all)
    );
    Finding { words, right: (told, up, down) == (all, all, all) }
}

/// A control connection that broke is a result too.
fn broken(error: &io::Error) -> Finding {
    Finding { words: format!("the control connection stalls: {error}"), right: false }
}

fn attempt(lab: &mut Lab, work: impl FnOnce(&Lab) -> io::Result<Finding>) -> Cell {
    prepare(lab)?;
    Ok(work(lab).unwrap_or_else(|error| broken(&error)))
}

pub(crate) fn equal_ids(lab: &mut Lab) -> Cell {
    attempt(lab, |lab| second_caller(lab, 100, Segments::Plain))
}

pub(crate) fn split(lab: &mut Lab) -> Cell {
    let link = lab.d1.capture("eth0", Keep::All);
    let cell = attempt(lab, |lab| second_caller(lab, 200, Segments::Split));
    let heads = link.find(|wire| wire.dst_port == CONTROL_PORT && wire.payload_len == 13).len();
    if heads == 1 { cell } else { Err(format!("{heads} segments of 13 bytes were sent")) }
}

pub(crate) fn merged(lab: &mut Lab) -> Cell {
    let link = lab.d1.capture("eth0", Keep::All);
    let cell = attempt(lab, |lab| second_caller(lab, 200, Segments::AfterEcho));
    let merged = link.find(|wire| wire.dst_port == CONTROL_PORT && wire.payload_len == 184).len();
    if merged == 1 { cell } else { Err(format!("{merged} segments of 184 bytes were sent")) }
}

/// d2 has a call with the Call ID `id`; then d1 wants one with the same.
fn second_caller(lab: &Lab, id: u16, segments: Segments) -> io::Result<Finding> {
    let server = End::new(&lab.s1, S1, GRE);
    let mut other = Caller::dial(lab, &lab.d2, D2)?;
    let others = other.call(id, 1001, Segments::Plain)?;
    let mut caller = Caller::dial(lab, &lab.d1, D1)?;
    let call = caller.call(id, 1002, segments)?;
    Ok(judge(&server, &[(&other, others), (&caller, call)]))
}

pub(crate) fn two_calls(lab: &mut Lab) -> Cell {
    attempt(lab, |lab| {
        let server = End::new(&lab.s1, S1, GRE);
        let mut caller = Caller::dial(lab, &lab.d1, D1)?;
        let first = caller.call(300, 2001, Segments::Plain)?;
        let second = caller.call(301, 2002, Segments::Plain)?;
        Ok(judge(&server, &[(&caller, first), (&caller, second)]))
    })
}

pub(crate) fn no_control(lab: &mut Lab) -> Cell {
    prepare(lab)?;
    let (device, server) = (End::new(&lab.d1, D1, GRE), End::new(&lab.s1, S1, GRE));
    device.send(&raw::pptp_gre(D1, S1, 7, 1));
    let out = holds_within(WAIT, || call_ids(&server, WAN).contains(&7));
    server.send(&raw::pptp_gre(S1, WAN, 100, 1));
    let back = holds_within(WAIT, || call_ids(&device, S1).contains(&100));
    let words = format!("{} out, {} back", share(usize::from(out), 1), share(usize::from(back), 1));
    let said = if lab.nat() == Nat::Natd { lab.natd().log() } else { String::new() };
    let named = [7, 100].into_iter().find_map(|id| complaint(&said, id));
    let right = named.is_some();
    let reason = named.map_or("nothing names the reason".to_owned(), |said| format!("log: \"{said}\""));
    Ok(Finding { words: format!("{words}; {reason}"), right })
}

/// What the log says of GRE with this Call ID between a device and the server.
fn complaint(log: &str, call_id: u16) -> Option<String> {
    let id = format!("Call ID {call_id}:");
    let line = log.lines().find(|line| line.contains(&S1.to_string()) && line.contains(&id))?;
    Some(one_line(line))
}
