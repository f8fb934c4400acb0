//! `natd probe`'s sockets: raw ones for what comes back and for ESP, GRE and pings, UDP and TCP ones for the rest.

use std::fmt;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nat_core::time::Timestamp;

use super::clock;
use super::netlink::{check, family, set_option, socklen};
use crate::probe::{
    Action, Carrier, Cutting, Ending, Outgoing, Probe, ProbeReport, Said, Service, Slot, Target, show,
};
use crate::report::diagnosis::Verdict;

/// What is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Name or address of the server.
    pub server: String,
    /// Over this version of IP only.
    pub version: Option<IpVersion>,
    /// JSON instead of a table.
    pub json: bool,
}

/// A version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why there is no result.
#[derive(Debug)]
pub enum ProbeError {
    /// It is neither a name nor an address.
    Argument(String),
    /// The name has no address, or not of the version asked for.
    Name(String, Option<IpVersion>),
    /// The name service does not answer.
    Resolver(String, io::Error),
    /// There is no way there.
    NoRoute(IpAddr),
    /// Raw sockets are for root.
    Permission,
    /// Something else that the system says, while doing this.
    System(&'static str, io::Error),
    /// Nowhere to write to.
    Output(io::Error),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(text) => write!(f, "{text:?} is neither a name nor an address"),
            Self::Name(name, None) => write!(f, "{name} has no address: no such name"),
            Self::Name(name, Some(IpVersion::V4)) => write!(f, "{name} has no IPv4 address"),
            Self::Name(name, Some(IpVersion::V6)) => write!(f, "{name} has no IPv6 address"),
            Self::Resolver(name, error) => write!(f, "{name} cannot be resolved: {error}"),
            Self::NoRoute(addr) => write!(f, "there is no route to {addr}"),
            Self::Permission => f.write_str("probing needs root, or CAP_NET_RAW"),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Output(error) => write!(f, "cannot write: {error}"),
        }
    }
}

impl std::error::Error for ProbeError {}

/// Probes the server, over IPv4 and IPv6 where it has both, and writes what was found to `out`. `progress` gets a
/// line for each kind of packet as it is settled. Takes up to 75 seconds for each address.
///
/// Answers what was found, of all addresses: a problem of one is one; what works with one works.
///
/// # Errors
/// See [`ProbeError`].
pub fn run(
    options: &ProbeOptions,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(&str),
) -> Result<Verdict, ProbeError> {
    let (name, addrs) = resolve(options)?;
    let mut reports = Vec::new();
    let mut failed = None;
    for addr in &addrs {
        match probe(name.clone(), *addr, progress) {
            Ok(report) => reports.push(report),
            // A name with both kinds of addresses is often asked from where there is one.
            Err(error @ ProbeError::NoRoute(_)) if addrs.len() > 1 => {
                progress(&format!("{error}: not probed"));
                failed = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let (true, Some(error)) = (reports.is_empty(), failed) {
        return Err(error);
    }
    // Apart from the report, where both are on one terminal.
    progress("");
    if options.json {
        show::json(&reports, out).map_err(ProbeError::Output)?;
    } else {
        for (number, report) in reports.iter().enumerate() {
            let gap = if number == 0 { "" } else { "\n" };
            out.write_all(gap.as_bytes())
                .and_then(|()| show::text(report, out))
                .map_err(ProbeError::Output)?;
        }
    }
    let some = |outcome| reports.iter().any(|report| report.outcome() == outcome);
    let found = [Verdict::Problem, Verdict::Healthy].into_iter().find(|outcome| some(*outcome));
    Ok(found.unwrap_or(Verdict::NothingSeen))
}

/// The server's name, where it is one, and an address of each version.
fn resolve(options: &ProbeOptions) -> Result<(Option<String>, Vec<IpAddr>), ProbeError> {
    let text = options.server.as_str();
    let wanted = |addr: &IpAddr| match options.version {
        None => true,
        Some(IpVersion::V4) => addr.is_ipv4(),
        Some(IpVersion::V6) => addr.is_ipv6(),
    };
    if let Ok(addr) = text.parse::<IpAddr>() {
        let usable = !addr.is_unspecified() && !addr.is_multicast() && addr != Ipv4Addr::BROADCAST;
        return match (usable, wanted(&addr)) {
            (false, _) => Err(ProbeError::Argument(text.to_owned())),
            (true, false) => Err(ProbeError::Name(text.to_owned(), options.version)),
            (true, true) => Ok((None, vec![addr])),
        };
    }
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || text.len() > 253 || text.starts_with('-') || !text.chars().all(allowed) {
        return Err(ProbeError::Argument(text.to_owned()));
    }
    let found: Vec<IpAddr> = match (text, 0).to_socket_addrs() {
        Ok(found) => found.map(|addr| addr.ip()).collect(),
        Err(error) => return Err(ProbeError::Resolver(text.to_owned(), error)),
    };
    let of = |six: bool| found.iter().copied().filter(wanted).find(|addr| addr.is_ipv6() == six);
    let addrs: Vec<IpAddr> = [of(false), of(true)].into_iter().flatten().collect();
    if addrs.is_empty() {
        return Err(ProbeError::Name(text.to_owned(), options.version));
    }
    Ok((Some(text.to_owned()), addrs))
}

fn probe(
    name: Option<String>,
    server: IpAddr,
    progress: &mut dyn FnMut(&str),
) -> Result<ProbeReport, ProbeError> {
    let local = local_address(server)?;
    let mut sockets = Sockets::open(server, local)?;
    let target = Target {
        name,
        server,
        local,
        mtu: interface_mtu(local).unwrap_or(1500),
        routes: is_router(server),
        ports: sockets.ports(),
    };
    progress(&format!("probing {server}"));
    let mut probe = Probe::new(target, clock::random_seed());
    let mut done = false;
    while !done {
        let now = clock::now();
        match probe.poll(now) {
            Action::Send(packet) => {
                if let Err(error) = sockets.send(&packet) {
                    if let Some(said) = local_reason(&error) {
                        probe.unsent(now, packet.carrier, said);
                    }
                }
            }
            Action::Connect(service) => {
                if let Some(ending) = sockets.connect(service) {
                    probe.closed(service, false, ending);
                }
            }
            // What cannot be written shows when the connection is read.
            Action::Write(service, bytes) => sockets.write(service, &bytes),
            Action::Close(service) => sockets.close(service),
            Action::Wait(until) => sockets.wait(now, until, &mut probe)?,
            Action::Done => done = true,
        }
        while let Some(kind) = probe.settled() {
            progress(&show::line(&probe.row(kind)));
        }
    }
    Ok(probe.report())
}

/// Why a packet did not leave; `None`: no reason that stays.
fn local_reason(error: &io::Error) -> Option<Said> {
    match error.raw_os_error()? {
        libc::EMSGSIZE => Some(Said::TooBig(None)),
        libc::EPERM | libc::EACCES => Some(Said::Prohibited),
        libc::ENETUNREACH | libc::EHOSTUNREACH => Some(Said::Unreachable),
        _ => None,
    }
}

/// Our address on the way to `server`.
fn local_address(server: IpAddr) -> Result<IpAddr, ProbeError> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((server, 500))?;
        socket.local_addr()
    });
    match connected {
        Ok(addr) => Ok(addr.ip()),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
            ) =>
        {
            Err(ProbeError::NoRoute(server))
        }
        Err(error) => Err(ProbeError::System("find the way to the server", error)),
    }
}

/// Does this machine forward packets of the server's version?
fn is_router(server: IpAddr) -> bool {
    let file = if server.is_ipv4() { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
    std::fs::read_to_string(format!("/proc/sys/net/{file}")).is_ok_and(|text| text.trim() == "1")
}

/// The MTU of the interface that has the address `local`.
fn interface_mtu(local: IpAddr) -> Option<u16> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the list is filled by the call and freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return None;
    }
    let (mut entry, mut name) = (list, None);
    while !entry.is_null() {
        // SAFETY: an entry of the list, which lives until it is freed.
        let current = unsafe { &*entry };
        // SAFETY: null, or a socket address of the family that it names.
        if unsafe { address_of(current.ifa_addr) } == Some(local) {
            let mut bytes = [0; libc::IFNAMSIZ];
            // SAFETY: a string that ends with 0.
            let text = unsafe { std::ffi::CStr::from_ptr(current.ifa_name) }.to_bytes();
            if let Some(place) = bytes.get_mut(..text.len()) {
                place.copy_from_slice(text);
                name = Some(bytes);
            }
            break;
        }
        entry = current.ifa_next;
    }
    // SAFETY: as it was filled.
    unsafe { libc::freeifaddrs(list) };
    let name = name?;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // SAFETY: the request is for this call, which fills the union's MTU in.
    let mtu = unsafe {
        (libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) == 0)
            .then_some(request.ifr_ifru.ifru_mtu)
    };
    // A loopback's 65,536 is more than a packet can have.
    mtu.map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// # Safety
/// `address` is null or points to a socket address of the family that it names.
unsafe fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: by the caller.
    unsafe {
        match libc::c_int::from((*address).sa_family) {
            libc::AF_INET => {
                let four = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(Ipv4Addr::from(four.sin_addr.s_addr.to_ne_bytes()).into())
            }
            libc::AF_INET6 => {
                let six = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(Ipv6Addr::from(six.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// A connection, or one that is being made.
struct Connection {
    stream: TcpStream,
    open: bool,
}

struct Sockets {
    server: IpAddr,
    icmp: OwnedFd,
    esp: OwnedFd,
    gre: OwnedFd,
    /// Gets a copy of all UDP from the server.
    udp_in: OwnedFd,
    udp: [UdpSocket; Slot::COUNT],
    tcp: [Option<Connection>; 2],
    buffer: Vec<u8>,
}

const GRE: libc::c_int = 47;
const ESP: libc::c_int = 50;

impl Sockets {
    fn open(server: IpAddr, local: IpAddr) -> Result<Self, ProbeError> {
        let icmp = if server.is_ipv4() { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
        let refused = |error: io::Error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => ProbeError::Permission,
            _ => ProbeError::System("open a raw socket", error),
        };
        let raw = |protocol| raw_socket(server, protocol);
        let udp_in = raw(libc::IPPROTO_UDP)
            .and_then(|socket| connect(&socket, server, 0).map(|()| socket))
            .map_err(refused)?;
        let mut udp = Vec::with_capacity(Slot::COUNT);
        for _ in 0..Slot::COUNT {
            let socket =
                UdpSocket::bind((local, 0)).map_err(|error| ProbeError::System("open a socket", error))?;
            udp.push(socket);
        }
        Ok(Self {
            server,
            icmp: raw(icmp).map_err(refused)?,
            esp: raw(ESP).map_err(refused)?,
            gre: raw(GRE).map_err(refused)?,
            udp_in,
            udp: udp.try_into().expect("as many as there are slots"),
            tcp: [None, None],
            buffer: vec![0; 65_536],
        })
    }

    fn ports(&self) -> [u16; Slot::COUNT] {
        self.udp.each_ref().map(|socket| socket.local_addr().map_or(0, |addr| addr.port()))
    }

    fn send(&self, packet: &Outgoing) -> io::Result<()> {
        let (fd, port) = match packet.carrier {
            Carrier::Udp(slot, port) => (self.udp.get(slot as usize).map(AsRawFd::as_raw_fd), port),
            Carrier::Esp => (Some(self.esp.as_raw_fd()), 0),
            Carrier::Gre => (Some(self.gre.as_raw_fd()), 0),
            Carrier::Icmp => (Some(self.icmp.as_raw_fd()), 0),
        };
        let fd = fd.ok_or(io::ErrorKind::NotFound)?;
        let six = self.server.is_ipv6();
        // -1 is the usual one.
        let hops: libc::c_int = packet.hops.map_or(-1, libc::c_int::from);
        // Whole whatever path MTU is remembered, or cut on the way or here.
        let discover: libc::c_int = match (six, packet.cutting) {
            (false, Cutting::Forbidden) => libc::IP_PMTUDISC_PROBE,
            (false, Cutting::Allowed) => libc::IP_PMTUDISC_DONT,
            (true, Cutting::Forbidden) => libc::IPV6_PMTUDISC_PROBE,
            (true, Cutting::Allowed) => libc::IPV6_PMTUDISC_DONT,
        };
        let (level, ttl, mtu) = if six {
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_MTU_DISCOVER)
        } else {
            (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_MTU_DISCOVER)
        };
        set_option(fd, level, ttl, &hops)?;
        set_option(fd, level, mtu, &discover)?;
        with_address(self.server, port, |address, length| {
            // SAFETY: both pointers and lengths describe live values.
            let sent = unsafe {
                libc::sendto(
                    fd,
                    packet.bytes.as_ptr().cast(),
                    packet.bytes.len(),
                    libc::MSG_NOSIGNAL,
                    address,
                    length,
                )
            };
            if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        })
    }

    /// Begins to connect; answers why it cannot.
    fn connect(&mut self, service: Service) -> Option<Ending> {
        let stream = match tcp_socket(self.server) {
            Ok(stream) => stream,
            Err(_) => return Some(Ending::Forbidden),
        };
        let result = with_address(self.server, service.port(), |address, length| {
            // SAFETY: pointer and length describe a live value.
            if unsafe { libc::connect(stream.as_raw_fd(), address, length) } == 0 {
                return Ok(());
            }
            Err(io::Error::last_os_error())
        });
        match result {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Some(ending(&error)),
            _ => {
                if let Some(place) = self.tcp.get_mut(service as usize) {
                    *place = Some(Connection { stream, open: false });
                }
                None
            }
        }
    }

    fn write(&mut self, service: Service, bytes: &[u8]) {
        if let Some(Some(connection)) = self.tcp.get_mut(service as usize) {
            // A few hundred bytes always fit.
            let _ = connection.stream.write_all(bytes);
        }
    }

    fn close(&mut self, service: Service) {
        if let Some(place) = self.tcp.get_mut(service as usize) {
            *place = None;
        }
    }

    /// Waits until `until` or until something comes, and hands it to `probe`.
    fn wait(&mut self, now: Timestamp, until: Timestamp, probe: &mut Probe) -> Result<(), ProbeError> {
        let poll = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
        let mut fds = vec![
            poll(self.icmp.as_raw_fd(), libc::POLLIN),
            poll(self.esp.as_raw_fd(), libc::POLLIN),
            poll(self.gre.as_raw_fd(), libc::POLLIN),
            poll(self.udp_in.as_raw_fd(), libc::POLLIN),
        ];
        for connection in self.tcp.iter().flatten() {
            let events = if connection.open { libc::POLLIN } else { libc::POLLOUT };
            fds.push(poll(connection.stream.as_raw_fd(), events));
        }
        let count = libc::nfds_t::try_from(fds.len()).unwrap_or(0);
        let limit = i32::try_from(until.since(now).as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: the array has `count` elements.
        if unsafe { libc::poll(fds.as_mut_ptr(), count, limit) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(ProbeError::System("wait for answers", error));
            }
            return Ok(());
        }
        let now = clock::now();
        self.read_raw(now, probe);
        for service in Service::ALL {
            self.read_connection(now, service, probe);
        }
        Ok(())
    }

    fn read_raw(&mut self, now: Timestamp, probe: &mut Probe) {
        let six = self.server.is_ipv6();
        let icmp = if six { 58 } else { 1 };
        let sockets = [
            (self.icmp.as_raw_fd(), icmp),
            (self.gre.as_raw_fd(), 47),
            (self.udp_in.as_raw_fd(), 17),
            (self.esp.as_raw_fd(), 50),
        ];
        for (fd, protocol) in sockets {
            // A flood does not keep us from the clock.
            for _ in 0..64 {
                let Some((from, length)) = receive(fd, &mut self.buffer) else { break };
                let packet = self.buffer.get(..length).unwrap_or_default();
                // Of IPv4 the header comes too.
                let header =
                    if six { 0 } else { packet.first().map_or(0, |first| usize::from(first & 15) * 4) };
                if let Some(payload) = packet.get(header..) {
                    probe.packet(now, from, protocol, payload);
                }
            }
        }
    }

    fn read_connection(&mut self, now: Timestamp, service: Service, probe: &mut Probe) {
        let Some(place) = self.tcp.get_mut(service as usize) else { return };
        let Some(connection) = place else { return };
        if !connection.open {
            match connection.stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => {
                    *place = None;
                    return probe.closed(service, false, ending(&error));
                }
            }
            // Without an error it is open once it has a peer.
            if connection.stream.peer_addr().is_err() {
                return;
            }
            connection.open = true;
            probe.connected(now, service);
        }
        let mut bytes = [0; 2048];
        match connection.stream.read(&mut bytes) {
            Ok(0) => {
                *place = None;
                probe.closed(service, true, Ending::Closed);
            }
            Ok(length) => probe.received(now, service, bytes.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                *place = None;
                probe.closed(service, true, ending(&error));
            }
        }
    }
}

fn ending(error: &io::Error) -> Ending {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Ending::Forbidden,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ETIMEDOUT) => Ending::Unreachable,
        _ => Ending::Reset,
    }
}

fn tcp_socket(server: IpAddr) -> io::Result<TcpStream> {
    // SAFETY: no pointers.
    let fd = unsafe {
        libc::socket(domain(server), libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    check(fd)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn raw_socket(server: IpAddr, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(domain(server), kind, protocol) };
    check(fd)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const fn domain(server: IpAddr) -> libc::c_int {
    if server.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// From then on it receives only from `server`.
fn connect(socket: &OwnedFd, server: IpAddr, port: u16) -> io::Result<()> {
    with_address(server, port, |address, length| {
        // SAFETY: pointer and length describe a live value.
        check(unsafe { libc::connect(socket.as_raw_fd(), address, length) }).map(drop)
    })
}

fn with_address<T>(
    addr: IpAddr,
    port: u16,
    call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> T,
) -> T {
    match SocketAddr::new(addr, port) {
        SocketAddr::V4(addr) => {
            let address = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                sin_zero: [0; 8],
            };
            call((&raw const address).cast(), socklen(&address))
        }
        SocketAddr::V6(addr) => {
            let address = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: 0,
            };
            call((&raw const address).cast(), socklen(&address))
        }
    }
}

/// The next packet of a raw socket: who sent it, and its length.
fn receive(fd: RawFd, buffer: &mut [u8]) -> Option<(IpAddr, usize)> {
    // SAFETY: all zero is a valid sockaddr_storage.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).unwrap_or(0);
    // A raw socket tells errors of earlier packets first; the next try has what came.
    for _ in 0..4 {
        // SAFETY: the pointers and lengths describe live values.
        let got = unsafe {
            libc::recvfrom(
                fd,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw mut address).cast(),
                &raw mut length,
            )
        };
        if let Ok(got) = usize::try_from(got) {
            // SAFETY: the kernel wrote an address of the socket's family.
            return unsafe { address_of((&raw const address).cast()) }.map(|from| (from, got));
        }
        if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(server: &str, version: Option<IpVersion>) -> String {
        let options = ProbeOptions { server: server.to_owned(), version, json: false };
        resolve(&options).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_probed_is_named() {
        for text in ["", "a b", "-x", "http://vpn.example/", "0.0.0.0", "224.0.0.1", "ff02::1"] {
            assert_eq!(refusal(text, None), format!("{text:?} is neither a name nor an address"));
        }
        assert_eq!(refusal("192.0.2.1", Some(IpVersion::V6)), "192.0.2.1 has no IPv6 address");
        assert!(refusal("no-such-host.invalid", None).starts_with("no-such-host.invalid "));
    }

    #[test]
    fn an_address_is_its_own() {
        let options = ProbeOptions { server: "2001:db8::1".to_owned(), version: None, json: false };
        assert_eq!(resolve(&options).unwrap(), (None, vec!["2001:db8::1".parse().unwrap()]));
    }

    #[test]
    fn the_loopback_has_an_mtu() {
        assert!(interface_mtu(Ipv4Addr::LOCALHOST.into()).is_some_and(|mtu| mtu >= 1280));
        assert_eq!(interface_mtu(Ipv4Addr::new(192, 0, 2, 254).into()), None);
    }
}
