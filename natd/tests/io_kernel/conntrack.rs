//! What conntrack admissions do to a firewall that only lets answers in.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nat_core::decision::{Admission, TcpProgress};
use nat_core::flow::{Endpoint, Protocol, Tuple};
use natd::io::conntrack::Conntrack;
use natd::io::transmit::Transmitter;

use crate::lab::{LAN, Lab, PATIENCE, SILENCE, WAN, packet, possible, receive, tcp};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const PSH_ACK: u8 = 0x18;

#[test]
fn udp_from_a_new_remote_port_passes_once_admitted() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    let device = lab.lan.udp(LAN, 5000);
    let known = lab.wan.udp(WAN, 53);
    let other = lab.wan.udp(WAN, 54);
    device.send_to(b"query", (WAN, 53)).unwrap();
    assert!(receive(&known, PATIENCE).is_some());

    assert!(!arrives(&other, &device), "the firewall is not there");
    conntrack.admit(&admission(udp(5000, 54))).unwrap();

    assert!(arrives(&other, &device));
    // Neither its flow nor the first one has suffered.
    assert!(arrives(&known, &device));
    device.send_to(b"to 54", (WAN, 54)).unwrap();
    assert_eq!(receive(&other, PATIENCE).as_deref(), Some(&b"to 54"[..]));
}

#[test]
fn udp_passes_again_after_the_kernel_forgot_the_flow() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    let device = lab.lan.udp(LAN, 5000);
    let server = lab.wan.udp(WAN, 53);
    device.send_to(b"query", (WAN, 53)).unwrap();
    assert!(receive(&server, PATIENCE).is_some());
    lab.router.run("conntrack -F");

    assert!(!arrives(&server, &device));
    conntrack.admit(&admission(udp(5000, 53))).unwrap();

    assert!(arrives(&server, &device));
}

#[test]
fn udp_is_admitted_over_an_entry_without_an_answer_in_either_direction() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    let device = lab.lan.udp(LAN, 5000);
    let server = lab.wan.udp(WAN, 53);
    for original in [udp(5000, 53), udp(5000, 53).reverse()] {
        for entry in [
            format!("-s {LAN} -d {WAN} --sport 5000 --dport 53"),
            format!("-s {WAN} -d {LAN} --sport 53 --dport 5000"),
        ] {
            lab.router.run("conntrack -F");
            lab.router.run(&format!("conntrack -I -p udp {entry} -t 60"));

            conntrack.admit(&admission(original)).unwrap();

            assert!(arrives(&server, &device), "{original} over {entry}");
        }
    }
}

#[test]
fn an_echo_reply_passes_once_admitted() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    let transmitter = lab.wan.enter(|| Transmitter::open().unwrap());
    let device = lab.lan.raw(libc::IPPROTO_ICMP);
    let reply = packet(1, WAN, LAN, vec![0, 0, 0, 0, 0, 77, 0, 1, b'x'], 2);
    let passes = || {
        transmitter.send(&reply).unwrap();
        receive(&device, SILENCE).is_some()
    };

    assert!(!passes());
    let original =
        Tuple { protocol: Protocol::Icmp, src: Endpoint::new(LAN, 77), dst: Endpoint::new(WAN, 0) };
    conntrack.admit(&admission(original)).unwrap();

    assert!(passes());
    assert!(listed(&mut conntrack).contains(&original));
    assert!(conntrack.delete(&original.into()).unwrap());
    assert!(!passes());
}

#[test]
fn a_connection_from_the_wan_opens_once_admitted_in_either_direction() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    let listener = lab.lan.enter(|| TcpListener::bind((LAN, 8080)).unwrap());
    for (port, original) in [(6000, connection(6000).reverse()), (6001, connection(6001))] {
        let client = lab.wan.enter(|| bound_stream(port));
        assert!(client.connect(SILENCE).is_err(), "the firewall is not there");
        let client = lab.wan.enter(|| bound_stream(port));
        conntrack.admit(&opening(original)).unwrap();

        let mut client = client.connect(PATIENCE).unwrap();

        let (mut server, peer) = listener.accept().unwrap();
        assert_eq!(peer.port(), port);
        exchange(&mut client, &mut server);
        exchange(&mut server, &mut client);
    }
}

#[test]
fn a_connection_in_mid_stream_goes_on_once_admitted() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    // Pick up nothing in mid-stream: then the entry must be right, not just be there.
    lab.router.sysctl("netfilter/nf_conntrack_tcp_loose", "0");
    let mut conntrack = open(&lab);
    let listener = lab.wan.enter(|| TcpListener::bind((WAN, 443)).unwrap());
    let mut device = lab.lan.enter(|| TcpStream::connect((WAN, 443)).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    exchange(&mut device, &mut server);
    exchange(&mut server, &mut device);
    let internal = Endpoint::new(LAN, device.local_addr().unwrap().port());
    let original = Tuple { protocol: Protocol::Tcp, src: internal, dst: Endpoint::new(WAN, 443) };
    for original in [original, original.reverse()] {
        lab.router.run("conntrack -F");
        server.write_all(&[7; 50_000]).unwrap();
        device.set_read_timeout(Some(SILENCE)).unwrap();
        let mut bytes = vec![0; 50_000];
        assert!(device.read(&mut bytes).is_err(), "the firewall is not there");

        conntrack.admit(&Admission { tcp: Some(TcpProgress::Established), ..admission(original) }).unwrap();

        device.set_read_timeout(Some(PATIENCE)).unwrap();
        device.read_exact(&mut bytes).unwrap();
        exchange(&mut device, &mut server);
    }
}

#[test]
fn a_syn_passes_over_an_entry_in_any_state() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    every_state(&lab, SYN, opening, &[connection(6000).reverse()]);
}

#[test]
fn data_passes_over_an_entry_in_any_state() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let established = |original| Admission { tcp: Some(TcpProgress::Established), ..admission(original) };
    every_state(&lab, PSH_ACK, established, &[connection(6000), connection(6000).reverse()]);
}

#[test]
fn a_connection_opens_over_what_a_real_one_left_behind() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    let device = lab.lan.raw(libc::IPPROTO_TCP);
    let transmitter = lab.wan.enter(|| Transmitter::open().unwrap());
    let answers = lab.lan.enter(|| Transmitter::open().unwrap());
    let server = lab.wan.raw(libc::IPPROTO_TCP);
    let listener = lab.wan.enter(|| TcpListener::bind((WAN, 443)).unwrap());
    // One of the two sequence numbers is below the old connection's window, the other above it.
    for (last_words, seq) in [("fin", 1), ("fin", 1 << 31), ("rst", 1), ("rst", 1 << 31)] {
        let client = lab.lan.enter(|| TcpStream::connect((WAN, 443)).unwrap());
        let (accepted, _) = listener.accept().unwrap();
        let port = client.local_addr().unwrap().port();
        if last_words == "rst" {
            (&accepted).write_all(b"unread, so that closing resets").unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.peek(&mut [0]).unwrap();
        }
        drop(client);
        drop(accepted);
        while receive(&device, SILENCE).is_some() {}
        let syn = tcp((WAN, 443), (LAN, port), seq, 0, SYN, &[]);
        transmitter.send(&syn).unwrap();
        assert_eq!(receive(&device, SILENCE), None, "{last_words} {seq}: it passes by itself");

        let original =
            Tuple { protocol: Protocol::Tcp, src: Endpoint::new(WAN, 443), dst: Endpoint::new(LAN, port) };
        conntrack.admit(&opening(original)).unwrap();
        mute(&lab);
        while receive(&server, SILENCE).is_some() {}
        let (remote, internal) = ((WAN, 443), (LAN, port));
        transmitter.send(&syn).unwrap();
        assert!(receive(&device, PATIENCE).is_some(), "{last_words} {seq}: SYN");
        answers.send(&tcp(internal, remote, 7, seq + 1, SYN_ACK, &[])).unwrap();
        assert!(receive(&server, PATIENCE).is_some(), "{last_words} {seq}: SYN-ACK");
        transmitter.send(&tcp(remote, internal, seq + 1, 8, PSH_ACK, b"data")).unwrap();
        assert!(receive(&device, PATIENCE).is_some(), "{last_words} {seq}: data");
        for host in [&lab.lan, &lab.wan] {
            host.run("nft delete table ip mute");
        }
    }
}

#[test]
fn a_live_connection_survives_an_opening() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    let listener = lab.wan.enter(|| TcpListener::bind((WAN, 443)).unwrap());
    let mut device = lab.lan.enter(|| TcpStream::connect((WAN, 443)).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    exchange(&mut device, &mut server);
    let internal = Endpoint::new(LAN, device.local_addr().unwrap().port());

    let original = Tuple { protocol: Protocol::Tcp, src: internal, dst: Endpoint::new(WAN, 443) };
    conntrack.admit(&opening(original)).unwrap();

    exchange(&mut server, &mut device);
    exchange(&mut device, &mut server);
}

#[test]
fn the_kernel_measures_no_window_of_a_flow_that_it_did_not_see_open() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    mute(&lab);
    let device = lab.lan.raw(libc::IPPROTO_TCP);
    let transmitter = lab.wan.enter(|| Transmitter::open().unwrap());
    let original = connection(6000);
    conntrack.admit(&Admission { tcp: Some(TcpProgress::Established), ..admission(original) }).unwrap();
    let base = 1u32 << 31;
    for (seq, ack) in
        [(base, base), (base + (1 << 30), base), (base - (1 << 30), base), (base, 1), (base, 3 << 30)]
    {
        let segment = tcp((WAN, 6000), (LAN, 8080), seq, ack, PSH_ACK, b"data");

        transmitter.send(&segment).unwrap();

        assert!(receive(&device, PATIENCE).is_some(), "seq {seq} ack {ack}");
    }
}

#[test]
fn flows_are_listed_and_deleted_by_either_direction() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let mut conntrack = open(&lab);
    for port in 1..=500 {
        conntrack.admit(&admission(udp(port, 53))).unwrap();
    }
    let mut opened = connection(6000).reverse();
    conntrack.admit(&opening(opened)).unwrap();

    let mut flows = Vec::new();
    conntrack.for_each(|flow| flows.push(flow)).unwrap();

    assert_eq!(flows.len(), 501);
    let found = flows.iter().find(|flow| flow.original == udp(500, 53)).unwrap();
    assert_eq!(found.reply, udp(500, 53).reverse());
    assert_eq!((found.snat, found.dnat, found.replied, found.tcp), (false, false, true, None));
    assert!(found.timeout > Duration::from_secs(110) && found.timeout <= Duration::from_secs(120));
    let found = flows.iter().find(|flow| flow.original == opened).unwrap();
    assert_eq!(found.tcp, Some(TcpProgress::Opening));
    assert!(conntrack.delete(&udp(1, 53).reverse().into()).unwrap());
    assert!(conntrack.delete(&opened.into()).unwrap());
    assert!(!conntrack.delete(&opened.into()).unwrap());
    opened = udp(1, 53);
    let left = listed(&mut conntrack);
    assert_eq!(left.len(), 499);
    assert!(!left.contains(&opened));
}

/// Puts an entry of every TCP state, in both directions, in the way of a packet from the WAN.
fn every_state(lab: &Lab, flags: u8, admission: impl Fn(Tuple) -> Admission, originals: &[Tuple]) {
    const STATES: [&str; 10] = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "LISTEN",
    ];
    let mut conntrack = open(lab);
    let device = lab.lan.raw(libc::IPPROTO_TCP);
    let transmitter = lab.wan.enter(|| Transmitter::open().unwrap());
    let segment = tcp((WAN, 6000), (LAN, 8080), 1000, 1, flags, b"");
    transmitter.send(&segment).unwrap();
    assert_eq!(receive(&device, SILENCE), None, "the firewall is not there");
    for state in STATES {
        for entry in [
            format!("-s {LAN} -d {WAN} --sport 8080 --dport 6000"),
            format!("-s {WAN} -d {LAN} --sport 6000 --dport 8080"),
        ] {
            for original in originals {
                lab.router.run("conntrack -F");
                lab.router.run(&format!("conntrack -I -p tcp {entry} --state {state} -t 60"));

                conntrack.admit(&admission(*original)).unwrap();
                transmitter.send(&segment).unwrap();

                assert!(receive(&device, PATIENCE).is_some(), "{original} over {state} {entry}");
            }
        }
    }
}

/// Keeps the hosts' own TCP from answering what is sent by hand.
fn mute(lab: &Lab) {
    for host in [&lab.lan, &lab.wan] {
        host.nft(
            "table ip mute {
                chain out {
                    type filter hook output priority 0; policy drop;
                    meta mark 0x04000000 accept
                }
            }",
        );
    }
}

fn open(lab: &Lab) -> Conntrack {
    lab.router.enter(|| Conntrack::open().unwrap())
}

fn admission(original: Tuple) -> Admission {
    Admission { original: original.into(), tcp: None, timeout: Duration::from_secs(120) }
}

fn opening(original: Tuple) -> Admission {
    Admission { tcp: Some(TcpProgress::Opening), ..admission(original) }
}

fn udp(internal: u16, remote: u16) -> Tuple {
    Tuple { protocol: Protocol::Udp, src: Endpoint::new(LAN, internal), dst: Endpoint::new(WAN, remote) }
}

/// LAN port 8080 to the given port of the WAN.
fn connection(remote: u16) -> Tuple {
    Tuple { protocol: Protocol::Tcp, src: Endpoint::new(LAN, 8080), dst: Endpoint::new(WAN, remote) }
}

fn listed(conntrack: &mut Conntrack) -> Vec<Tuple> {
    let mut flows = Vec::new();
    conntrack.for_each(|flow| flows.extend(flow.original.tuple())).unwrap();
    flows
}

fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
    receive(to, SILENCE).is_some()
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"hello").unwrap();
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 5];
    to.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
}

/// A TCP socket bound to a port of the WAN host, not yet connected.
struct BoundStream {
    socket: TcpStream,
}

fn bound_stream(port: u16) -> BoundStream {
    use std::os::fd::FromRawFd;
    let address = address(WAN, port);
    // SAFETY: the descriptor is fresh, and pointer and length describe `address`.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!(libc::bind(fd, (&raw const address).cast(), 16), 0);
        TcpStream::from_raw_fd(fd)
    };
    BoundStream { socket }
}

impl BoundStream {
    /// Connects to port 8080 of the LAN host.
    fn connect(self, patience: Duration) -> std::io::Result<TcpStream> {
        use std::os::fd::AsRawFd;
        let address = address(LAN, 8080);
        // `SO_SNDTIMEO` bounds connect().
        self.socket.set_write_timeout(Some(patience)).unwrap();
        // SAFETY: pointer and length describe `address`.
        let done = unsafe { libc::connect(self.socket.as_raw_fd(), (&raw const address).cast(), 16) };
        if done == 0 { Ok(self.socket) } else { Err(std::io::Error::last_os_error()) }
    }
}

fn address(addr: std::net::Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: 2,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.octets()) },
        sin_zero: [0; 8],
    }
}
