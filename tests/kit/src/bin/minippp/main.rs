//! A pppd for machines whose kernel has no PPP: LCP and IPCP in async HDLC framing (RFC 1661, 1662, 1332) on standard
//! input, IP packets through a TUN device. It takes the place of pppd under pptpd, xl2tpd and pptp, no more: no
//! compression, no true authentication (see below), and of pppd's arguments only these:
//!
//! | argument | meaning |
//! |---|---|
//! | `LOCAL:REMOTE` | addresses; who names the remote one decides both |
//! | `pty COMMAND` | talks to this program instead of standard input |
//! | `ifname NAME` | name of the device, else the first free `pppN` |
//!
//! What it does goes to the file named in `MINIPPP_LOG`. Further environment variables:
//!
//! | variable | meaning |
//! |---|---|
//! | `MINIPPP_REQUIRE` | `chap` (MS-CHAP-V2) or `pap`: the peer has to authenticate itself |
//! | `MINIPPP_PASSWORD` | what both sides should have alike |
//! | `MINIPPP_RESTART` | milliseconds between requests (500); thirty times that is all it waits for the peer |
//! | `MINIPPP_PASSIVE` | asks for nothing before the peer has asked |
//!
//! The messages of authentication look as the RFCs have them (1334, 1994, 2759), but no cryptography is in them: who
//! only listens cannot tell.

mod auth;
mod framing;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use auth::{Auth, Due, Method};
use framing::{Deframer, frame, protocol_of};
use testkit::{clock, sys};

const LCP: u16 = 0xc021;
const PAP: u16 = 0xc023;
const CHAP: u16 = 0xc223;
const IPCP: u16 = 0x8021;
const IPV4: u16 = 0x0021;

const CONFIGURE_REQUEST: u8 = 1;
const CONFIGURE_ACK: u8 = 2;
const CONFIGURE_NAK: u8 = 3;
const CONFIGURE_REJECT: u8 = 4;
const TERMINATE_REQUEST: u8 = 5;
const TERMINATE_ACK: u8 = 6;
const PROTOCOL_REJECT: u8 = 8;
const ECHO_REQUEST: u8 = 9;
const ECHO_REPLY: u8 = 10;

/// LCP: maximum receive unit.
const MRU: [u8; 4] = [1, 4, 0x05, 0x78];
/// The same as a number.
const MTU: u32 = 1400;
/// LCP: magic number.
const MAGIC: u8 = 5;
/// LCP: authentication protocol.
const AUTHENTICATION: u8 = 3;
/// IPCP: address.
const ADDRESS: u8 = 3;

/// How often a request is repeated unless the environment says otherwise.
const RESTART: Duration = Duration::from_millis(500);
/// So many times that both layers may take to come up.
const PATIENCE: u32 = 30;

fn main() -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let ended = Session::open(&arguments).and_then(|mut session| {
        let ended = session.run();
        writeln!(session.log, "the end: {ended:?}")?;
        ended
    });
    match ended {
        Ok(why) => {
            eprintln!("minippp: {why}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("minippp: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
struct Arguments {
    local: Option<Ipv4Addr>,
    remote: Option<Ipv4Addr>,
    program: Option<String>,
    interface: String,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self { local: None, remote: None, program: None, interface: "ppp%d".to_owned() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "pty" => arguments.program = words.next(),
                "ifname" => arguments.interface = words.next().unwrap_or_default(),
                "file" => drop(words.next()),
                other => {
                    if let Some((local, remote)) = other.split_once(':') {
                        arguments.local = local.parse().ok().or(arguments.local);
                        arguments.remote = remote.parse().ok().or(arguments.remote);
                    }
                }
            }
        }
        arguments
    }
}

/// One of the two negotiations.
#[derive(Debug, Default)]
struct Layer {
    /// Of our latest request.
    id: u8,
    /// Has the peer agreed to it?
    agreed: bool,
    /// Have we agreed to the peer's?
    granted: bool,
}

impl Layer {
    fn is_up(&self) -> bool {
        self.agreed && self.granted
    }
}

#[derive(Debug)]
struct Session {
    line: File,
    program: Option<Child>,
    log: File,
    interface: String,
    local: Ipv4Addr,
    remote: Option<Ipv4Addr>,
    /// Do we say which address the peer has?
    decides: bool,
    magic: [u8; 4],
    lcp: Layer,
    ipcp: Layer,
    auth: Auth,
    restart: Duration,
    tun: Option<File>,
    /// What the line has not taken yet.
    unsent: Vec<u8>,
}

impl Session {
    fn open(arguments: &Arguments) -> io::Result<Self> {
        // pptpd ignores it, and then children cannot be waited for.
        sys::reset_signal(libc::SIGCHLD)?;
        let (line, program) = match &arguments.program {
            Some(program) => {
                let (line, child) = start(program)?;
                (line, Some(child))
            }
            None => {
                let line = io::stdin().as_fd().try_clone_to_owned()?;
                // A pipe is as good.
                let _ = sys::make_raw(line.as_fd());
                (line, None)
            }
        };
        sys::set_nonblocking(line.as_fd())?;
        let log = std::env::var_os("MINIPPP_LOG").unwrap_or_else(|| "/dev/null".into());
        Ok(Self {
            line: line.into(),
            program,
            log: File::options().create(true).append(true).open(log)?,
            interface: arguments.interface.clone(),
            local: arguments.local.unwrap_or(Ipv4Addr::UNSPECIFIED),
            remote: arguments.remote,
            decides: arguments.remote.is_some(),
            magic: std::process::id().to_be_bytes(),
            lcp: Layer::default(),
            ipcp: Layer::default(),
            auth: Auth::from_environment(),
            restart: std::env::var("MINIPPP_RESTART")
                .ok()
                .and_then(|text| text.parse().ok())
                .map_or(RESTART, Duration::from_millis),
            tun: None,
            unsent: Vec::new(),
        })
    }

    fn run(&mut self) -> io::Result<&'static str> {
        let mut deframer = Deframer::default();
        let mut buffer = vec![0; 4096];
        let start = clock::now();
        let mut next = Duration::ZERO;
        loop {
            if self.tun.is_none() && start.elapsed() >= next {
                next = start.elapsed() + self.restart;
                if next > self.restart * PATIENCE {
                    return Ok("the peer does not negotiate");
                }
                self.ask()?;
            }
            let (line, device) = self.wait()?;
            if line & libc::POLLOUT != 0 {
                self.write_on()?;
            }
            // A terminal whose other side is closed is ready to say so.
            if line & !libc::POLLOUT != 0 {
                let len = self.line.read(&mut buffer).unwrap_or(0);
                if len == 0 {
                    return Ok(self.hang_up());
                }
                for frame in deframer.feed(buffer.get(..len).unwrap_or_default()) {
                    if let Some(why) = self.take(&frame)? {
                        return Ok(why);
                    }
                }
            }
            if device != 0 {
                let len = self.tun.as_mut().map_or(Ok(0), |tun| tun.read(&mut buffer))?;
                self.transmit(&frame(IPV4, buffer.get(..len).unwrap_or_default()))?;
            }
        }
    }

    /// Waits for something to do; no packets are taken from the device while the line has not taken the last one.
    fn wait(&self) -> io::Result<(libc::c_short, libc::c_short)> {
        match &self.tun {
            _ if !self.unsent.is_empty() => {
                let [line] = sys::poll([(self.line.as_fd(), libc::POLLIN | libc::POLLOUT)], 200)?;
                Ok((line, 0))
            }
            Some(tun) => {
                let fds = [(self.line.as_fd(), libc::POLLIN), (tun.as_fd(), libc::POLLIN)];
                sys::poll(fds, 200).map(|[line, device]| (line, device))
            }
            None => sys::poll([(self.line.as_fd(), libc::POLLIN)], 200).map(|[line]| (line, 0)),
        }
    }

    /// Sends bytes over the line. It never waits: the program at the other end may itself be waiting to write.
    fn transmit(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unsent.extend_from_slice(bytes);
        self.write_on()
    }

    fn write_on(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.line.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hang_up(&mut self) -> &'static str {
        if let Some(program) = &mut self.program {
            // It closed the line, and is ending or has ended.
            let _ = program.wait();
        }
        "the line was closed"
    }

    fn send(&mut self, protocol: u16, code: u8, id: u8, body: &[u8]) -> io::Result<()> {
        let len = u16::try_from(body.len() + 4).map_err(io::Error::other)?.to_be_bytes();
        let packet = [&[code, id], &len[..], body].concat();
        self.transmit(&frame(protocol, &packet))
    }

    /// Asks for whatever is due.
    fn ask(&mut self) -> io::Result<()> {
        if !self.lcp.is_up() {
            return if self.auth.passive { Ok(()) } else { self.request(LCP) };
        }
        match self.auth.due() {
            Some(Due::Challenge) => {
                let value = [&[16][..], &[0x5c; 16], b"server"].concat();
                self.send(CHAP, 1, 1, &value)
            }
            Some(Due::Login) => {
                let password = self.auth.password.as_bytes();
                let len = u8::try_from(password.len()).unwrap_or(0);
                let body = [&[4][..], b"user", &[len], password].concat();
                self.send(PAP, 1, 1, &body)
            }
            Some(Due::Nothing) => Ok(()),
            None => self.request(IPCP),
        }
    }

    fn request(&mut self, protocol: u16) -> io::Result<()> {
        let (id, options) = if protocol == LCP {
            let option = self.auth.require.map_or(&[][..], Method::option);
            (self.lcp.id, [&MRU[..], option, &[MAGIC, 6], &self.magic].concat())
        } else {
            (self.ipcp.id, address_option(self.local))
        };
        self.send(protocol, CONFIGURE_REQUEST, id, &options)
    }

    /// Takes a frame; answers with a reason when the session is over.
    fn take(&mut self, frame: &[u8]) -> io::Result<Option<&'static str>> {
        let Some((protocol, body)) = protocol_of(frame) else { return Ok(None) };
        match (protocol, &mut self.tun) {
            (LCP | IPCP, _) => {
                let lcp_was_up = self.lcp.is_up();
                let over = self.control(protocol, body)?;
                if self.lcp.is_up() && !lcp_was_up {
                    self.ask()?;
                }
                if self.lcp.is_up() && self.ipcp.is_up() && self.tun.is_none() {
                    self.tun = Some(self.make_device()?);
                }
                Ok(over)
            }
            (PAP | CHAP, _) => self.authenticate(protocol, body),
            (IPV4, Some(tun)) => tun.write_all(body).map(|()| None),
            (IPV4, None) => Ok(None),
            (other, _) => {
                let rejected = [&other.to_be_bytes()[..], body.get(..64).unwrap_or(body)].concat();
                self.send(LCP, PROTOCOL_REJECT, 1, &rejected).map(|()| None)
            }
        }
    }

    fn control(&mut self, protocol: u16, packet: &[u8]) -> io::Result<Option<&'static str>> {
        let &[code, id, high, low, ..] = packet else { return Ok(None) };
        let body = packet.get(4..usize::from(u16::from_be_bytes([high, low]))).unwrap_or_default();
        writeln!(self.log, "{protocol:04x} code {code} id {id} {body:02x?}")?;
        let layer = if protocol == LCP { &mut self.lcp } else { &mut self.ipcp };
        match code {
            CONFIGURE_REQUEST => {
                let (answer, options) = self.judge(protocol, body);
                self.send(protocol, answer, id, &options)?;
                let layer = if protocol == LCP { &mut self.lcp } else { &mut self.ipcp };
                layer.granted |= answer == CONFIGURE_ACK;
                if protocol == LCP && !layer.agreed {
                    self.request(LCP)?;
                }
            }
            CONFIGURE_ACK => layer.agreed |= id == layer.id,
            CONFIGURE_NAK if protocol == IPCP => {
                layer.id = layer.id.wrapping_add(1);
                for (kind, value) in Options(body) {
                    if let (ADDRESS, Ok(value)) = (kind, <[u8; 4]>::try_from(value)) {
                        self.local = value.into();
                    }
                }
                self.request(IPCP)?;
            }
            CONFIGURE_NAK | CONFIGURE_REJECT => layer.id = layer.id.wrapping_add(1),
            ECHO_REQUEST if protocol == LCP => {
                let magic = self.magic;
                self.send(LCP, ECHO_REPLY, id, &magic)?;
            }
            TERMINATE_REQUEST => {
                self.send(protocol, TERMINATE_ACK, id, &[])?;
                return Ok(Some("the peer hung up"));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Takes a message of PAP or CHAP.
    fn authenticate(&mut self, protocol: u16, packet: &[u8]) -> io::Result<Option<&'static str>> {
        let &[code, id, ..] = packet else { return Ok(None) };
        let body = packet.get(4..).unwrap_or_default();
        writeln!(self.log, "{protocol:04x} code {code} id {id} {body:02x?}")?;
        match (protocol, code) {
            (CHAP, 1) => {
                let value = [&[49][..], &self.auth.proof(), &[0; 33], b"user"].concat();
                self.send(CHAP, 2, id, &value)?;
            }
            (CHAP, 2) | (PAP, 1) => {
                let right = if protocol == CHAP {
                    body.get(1..17) == Some(&self.auth.proof()[..])
                } else {
                    body.ends_with(self.auth.password.as_bytes())
                };
                self.auth.done = right;
                match (protocol, right) {
                    (CHAP, true) => self.send(CHAP, 3, id, b"S=0000000000000000000000000000000000000000")?,
                    (CHAP, false) => {
                        self.send(
                            CHAP,
                            4,
                            id,
                            b"E=691 R=0 C=00000000000000000000000000000000 V=3 M=Access denied",
                        )?;
                    }
                    (_, right) => self.send(PAP, if right { 2 } else { 3 }, id, &[0])?,
                }
                if !right {
                    self.send(LCP, TERMINATE_REQUEST, 9, b"Authentication failed")?;
                    return Ok(Some("the password is wrong"));
                }
                self.request(IPCP)?;
            }
            (CHAP, 3) | (PAP, 2) => {
                self.auth.login = None;
                self.request(IPCP)?;
            }
            (CHAP, 4) | (PAP, 3) => return Ok(Some("the password was refused")),
            _ => {}
        }
        Ok(None)
    }

    /// The answer to a peer's request, and the options that go with it.
    fn judge(&mut self, protocol: u16, body: &[u8]) -> (u8, Vec<u8>) {
        let (mut refused, mut other) = (Vec::new(), Vec::new());
        for (kind, value) in Options(body) {
            let address = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from);
            match (protocol, kind, address) {
                // MRU, character map, magic number, and the two header compressions, which are understood.
                (LCP, 1 | 2 | MAGIC | 7 | 8, _) => {}
                (LCP, AUTHENTICATION, _) => {
                    let pap = value.starts_with(&PAP.to_be_bytes());
                    self.auth.login = Some(if pap { Method::Pap } else { Method::Chap });
                }
                (IPCP, ADDRESS, Some(address)) if !self.decides => self.remote = Some(address),
                (IPCP, ADDRESS, Some(address)) => {
                    let own = self.remote.unwrap_or(Ipv4Addr::UNSPECIFIED);
                    if address != own {
                        other = address_option(own);
                    }
                }
                _ => {
                    refused.extend([kind, u8::try_from(value.len() + 2).unwrap_or(2)]);
                    refused.extend(value);
                }
            }
        }
        match (refused.is_empty(), other.is_empty()) {
            (false, _) => (CONFIGURE_REJECT, refused),
            (true, false) => (CONFIGURE_NAK, other),
            (true, true) => (CONFIGURE_ACK, body.to_vec()),
        }
    }

    fn make_device(&mut self) -> io::Result<File> {
        let (tun, name) = sys::open_tun(&self.interface)?;
        let (local, remote) = (self.local, self.remote.unwrap_or(Ipv4Addr::UNSPECIFIED));
        let lines = format!("addr add {local} peer {remote} dev {name}\nlink set {name} mtu {MTU} up\n");
        let mut ip =
            Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        if let Some(mut input) = ip.stdin.take() {
            input.write_all(lines.as_bytes())?;
        }
        if !ip.wait()?.success() {
            return Err(io::Error::other(format!("ip refuses {lines}")));
        }
        writeln!(self.log, "up: {name} {local} to {remote}")?;
        Ok(tun)
    }
}

/// Starts a shell command on a terminal of its own and answers with the terminal's other side.
fn start(program: &str) -> io::Result<(OwnedFd, Child)> {
    let (line, side) = sys::open_terminal()?;
    sys::make_raw(side.as_fd())?;
    let child = Command::new("sh").args(["-c", program]).stdin(side.try_clone()?).stdout(side).spawn()?;
    Ok((line, child))
}

fn address_option(addr: Ipv4Addr) -> Vec<u8> {
    [&[ADDRESS, 6], &addr.octets()[..]].concat()
}

/// The options in a Configure packet: kind and value (RFC 1661 section 6).
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[kind, len, ..] = self.0 else { return None };
        let value = self.0.get(2..usize::from(len))?;
        self.0 = self.0.get(usize::from(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_pppd_that_do_not_matter_are_passed_over() {
        let words =
            ["/dev/pts/3", "passive", "file", "10.0.0.1:10.0.0.2", "10.8.0.1:10.9.0.101", "ifname", "p"];
        let arguments = Arguments::parse(words.into_iter().map(str::to_owned));
        assert_eq!(arguments.local, Some(Ipv4Addr::new(10, 8, 0, 1)));
        assert_eq!(arguments.remote, Some(Ipv4Addr::new(10, 9, 0, 101)));
        assert_eq!(arguments.interface, "p");
    }
}
