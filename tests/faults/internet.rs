//! The rest of the internet: DNS, web pages, and a device that uses them.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::address::at;
use testkit::traffic::{self, Ongoing};
use testkit::{Background, Node, pause};

use crate::net::{C2, Net, SERVER, WEB};
use crate::seed::Seed;
use crate::setup::{Dns, NAME};

/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct Internet {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _web: Vec<Ongoing>,
    _pings: Background,
}

impl Internet {
    /// Starts it all.
    pub(crate) fn start(net: &Net, dns: Dns, seed: &mut Seed) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let page = traffic::tcp_answer(&net.web, at(WEB, 80), b"HTTP/1.0 200 OK\r\n\r\nhello");
        let secure = traffic::tcp_answer(&net.web, at(WEB, 443), &[0x15, 3, 3, 0, 2, 2, 40]);
        let game = traffic::udp_echo(&net.web, at(WEB, 3478));
        let talk = traffic::udp_talk(
            &net.c2,
            at(C2, 0),
            at(WEB, 3478),
            Duration::from_millis(seed.between(50, 900)),
        );
        let server = net.web.udp(at(WEB, 53));
        let answering = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || answer(&server, dns, &stop))
        };
        let browsing = {
            let (stop, node, seed) = (Arc::clone(&stop), net.c2.clone(), seed.clone());
            std::thread::spawn(move || browse(&node, seed, &stop))
        };
        let pings = format!("exec ping -n -i {} {WEB}", seed.between(1, 4));
        let pings = net.c2.spawn(&["sh", "-c", &pings]);
        let _web = vec![page, secure, game, talk];
        Self { stop, threads: vec![answering, browsing], _web, _pings: pings }
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic in it was printed already.
            let _ = thread.join();
        }
    }
}

/// The second device: names, and pages over new connections.
fn browse(node: &Node, mut seed: Seed, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let names = ["www.example.net", "mail.example.org", "cdn.example.net"];
        let socket = node.udp(at(C2, 0));
        // A lost answer is not what is tested.
        let _ = socket.set_read_timeout(Some(Duration::from_millis(500)));
        let _ = socket.send_to(&question(&mut seed, &names), at(WEB, 53));
        let _ = socket.recv(&mut [0; 512]);
        let _ = traffic::ask(node, at(C2, 0), at(WEB, seed.pick(&[80, 80, 443])));
        let _ = traffic::ask(node, at(C2, 0), at(WEB, 80));
        for _ in 0..seed.between(5, 30) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            pause(Duration::from_millis(100));
        }
    }
}

/// A query for an address (RFC 1035 section 4.1).
fn question(seed: &mut Seed, names: &[&str]) -> Vec<u8> {
    let id = u16::try_from(seed.between(0, 0xffff)).unwrap_or(1);
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in seed.pick(names).split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn answer(socket: &UdpSocket, mood: Dns, stop: &AtomicBool) {
    // Failing only ends it a little later.
    let _ = socket.set_read_timeout(Some(Duration::from_millis(100)));
    let mut buffer = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(reply) = buffer.get(..len).and_then(|query| reply(query, mood)) else { continue };
        // The asker may be gone.
        let _ = socket.send_to(&reply, from);
    }
}

/// The reply to a query of one question, `None` for silence.
fn reply(query: &[u8], mood: Dns) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut rest = query.get(12..)?;
    while let [len @ 1..=63, tail @ ..] = rest {
        labels.push(String::from_utf8_lossy(tail.get(..usize::from(*len))?).to_lowercase());
        rest = tail.get(usize::from(*len)..)?;
    }
    let [0, 0, kind, _, _, ..] = rest else { return None };
    let end = query.len() - rest.len() + 5;
    let mood = if labels.join(".") == NAME { Some(mood) } else { None };
    let (code, address) = match mood {
        None => (0, Some(WEB)),
        Some(Dns::Right) => (0, Some(SERVER)),
        Some(Dns::Lies(address)) => (0, Some(Ipv4Addr::from(address))),
        Some(Dns::ServFail) => (2, None),
        Some(Dns::NoSuchName) => (3, None),
        Some(Dns::Silent) => return None,
    };
    let address = address.filter(|_| *kind == 1);
    let mut reply = query.get(..2)?.to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    reply.extend(query.get(12..end)?);
    if let Some(address) = address {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}
