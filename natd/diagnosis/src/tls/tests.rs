use nat_core::flow::Direction::{self, Inbound, Outbound};

use super::*;
use crate::finding::Finding;
use crate::flow::exercise::{ask, household};
use crate::observation::Peers;
use crate::router::Router;

const FIN_ACK: u8 = 17;
const SYN: u8 = 2;
const RST: u8 = 4;
const RST_ACK: u8 = 20;
const SYN_ACK: u8 = 18;
const PSH_ACK: u8 = 24;
const WAY: u8 = 52;

#[test]
fn a_connection_that_works_is_nothing() {
    let mut story = Story::default();
    story.connect(0);
    for millis in [50, 60, 70, 80] {
        story.server(millis, PSH_ACK, 1000, WAY, &[0x17; 900]);
    }
    story.server(9_000, RST_ACK, 5000, WAY, &[]);
    assert_eq!(story.codes(60_000), []);
}

#[test]
fn a_refused_connection_is_a_server_that_is_down() {
    let mut story = Story::default();
    story.device(0, SYN, &[]);
    story.server(30, RST_ACK, 0, WAY, &[]);
    assert_eq!(story.codes(1_000), [(Code::ServerDown, Confidence::Medium)]);
    story.port += 1;
    story.device(2_000, SYN, &[]);
    story.server(2_030, RST_ACK, 0, WAY, &[]);
    assert_eq!(story.codes(3_000), [(Code::ServerDown, Confidence::High)]);
    story.port += 1;
    story.connect(4_000);
    story.server(4_100, PSH_ACK, 1000, WAY, &[0x16; 90]);
    assert_eq!(story.codes(5_000), []);
}

#[test]
fn a_website_that_resets_hangs_or_refuses_is_nobodys_vpn() {
    for end in 0..3 {
        let mut story = Story { vpn: false, ..Story::default() };
        if end == 0 {
            story.device(0, SYN, &[]);
            story.server(30, RST_ACK, 0, WAY, &[]);
        } else {
            story.connect(0);
            for millis in [1_000, 3_000, 7_000] {
                story.device(millis, PSH_ACK, &hello("www.example.com"));
            }
            if end == 2 {
                story.server(7_100, RST, 1, 200, &[]);
            }
        }
        assert_eq!(story.codes(60_000), []);
        // The same with a server that the user named is one.
        story.vpn = true;
        assert_eq!(story.codes(60_000).len(), 1, "{end}");
    }
}

#[test]
fn the_name_that_the_device_asks_for_makes_a_server_a_vpns() {
    let mut story = Story { vpn: false, name: "vpn.example.com", ..Story::default() };
    story.connect(0);
    story.server(60, RST_ACK, 1, WAY, &[]);
    assert_eq!(story.codes(1_000), [(Code::TlsVpnRst, Confidence::Medium)]);
    assert!(story.watch.names_vpn(Peers::default().server));
}

#[test]
fn a_rst_after_the_first_message_is_the_servers_unless_its_ttl_is_odd() {
    for (ttl, code) in [(WAY, Code::TlsVpnRst), (WAY + 2, Code::TlsVpnRst), (WAY + 3, Code::DpiRst)] {
        let mut story = Story::default();
        for round in 0..2 {
            story.port += 1;
            story.connect(round * 1_000);
            story.server(round * 1_000 + 60, RST, 1, ttl, &[]);
        }
        assert_eq!(story.codes(3_000), [(code, Confidence::High)]);
    }
}

#[test]
fn a_server_that_goes_on_after_its_rst_did_not_send_it() {
    let mut story = Story::default();
    story.connect(0);
    story.server(60, RST, 1, WAY, &[]);
    story.server(75, PSH_ACK, 1, WAY, &[0x16; 900]);
    assert_eq!(story.codes(1_000), [(Code::DpiRst, Confidence::Medium)]);
}

#[test]
fn a_late_packet_from_before_the_rst_is_no_sign_of_forgery() {
    let mut story = Story::default();
    story.connect(0);
    story.server(60, RST, 5_000, WAY, &[]);
    story.server(75, PSH_ACK, 1, WAY, &[0x16; 900]);
    assert_eq!(story.codes(1_000), [(Code::TlsVpnRst, Confidence::Medium)]);
}

#[test]
fn a_rst_after_the_device_closed_is_nothing() {
    let mut story = Story::default();
    story.connect(0);
    story.server(60, PSH_ACK, 1, WAY, &[0x15; 7]);
    story.device(70, FIN_ACK, &[]);
    story.server(90, RST, 8, 64, &[]);
    assert_eq!(story.codes(1_000), []);
}

#[test]
fn silence_after_the_first_message_or_the_syn_is_found() {
    let mut story = Story::default();
    story.connect(0);
    for millis in [1_000, 3_000] {
        story.device(millis, PSH_ACK, &hello("www.example.com"));
    }
    assert_eq!(story.codes(3_000), [(Code::TlsVpnSilent, Confidence::Medium)]);
    story.device(7_000, PSH_ACK, &hello("www.example.com"));
    story.device(15_000, FIN_ACK, &[]);
    assert_eq!(story.codes(60_000), [(Code::TlsVpnSilent, Confidence::High)]);
    let mut syn = Story::default();
    for millis in [0, 1_000] {
        syn.device(millis, SYN, &[]);
    }
    assert_eq!(syn.codes(3_000), []);
    for millis in [3_000, 7_000] {
        syn.device(millis, SYN, &[]);
    }
    assert_eq!(syn.codes(11_000), [(Code::TlsVpnSilent, Confidence::High)]);
    syn.server(12_000, SYN_ACK, 0, WAY, &[]);
    assert_eq!(syn.codes(13_000), []);
}

#[test]
fn one_that_works_spares_its_neighbours_and_not_what_comes_much_later() {
    for (millis, expected) in [(10_000, vec![]), (400_000, vec![(Code::ServerDown, Confidence::Medium)])] {
        let mut story = Story::default();
        story.connect(0);
        story.server(60, PSH_ACK, 1, WAY, &[0x16; 900]);
        story.port += 1;
        story.device(millis, SYN, &[]);
        story.server(millis + 30, RST_ACK, 0, WAY, &[]);
        assert_eq!(story.codes(millis + 1_000), expected);
    }
}

#[test]
fn a_rst_long_after_the_first_message_and_what_follows_it_is_nothing() {
    let mut late = Story::default();
    late.connect(0);
    late.server(11_000, RST, 1, 200, &[]);
    assert_eq!(late.codes(12_000), []);
    // A long first message in several segments was not sent several times.
    let mut long = Story::default();
    long.connect(0);
    for seq in [500, 1_000, 1_500] {
        let segment = Peers::tcp(long.port, 443, seq, 1, PSH_ACK, &[7; 500]);
        long.watch.observe(&Peers::default().packet(u64::from(seq), Outbound, 6, &segment));
    }
    assert_eq!(long.codes(6_000), []);
}

#[test]
fn dtls_without_an_answer_beside_tls_that_works_is_a_fallback() {
    let mut story = Story::default();
    story.connect(0);
    story.server(60, PSH_ACK, 1, WAY, &[0x16; 900]);
    for millis in [1_000, 2_000, 4_000, 8_000] {
        story.udp(millis, Outbound, &[0x16, 0xfe, 0xff, 0]);
    }
    assert_eq!(story.codes(12_000), [(Code::DtlsFallback, Confidence::High)]);
    story.udp(12_500, Inbound, &[0x16, 0xfe, 0xfd, 0]);
    assert_eq!(story.codes(13_000), []);
    // QUIC.
    let mut quic = Story::default();
    quic.connect(0);
    quic.server(60, PSH_ACK, 1, WAY, &[0x16; 900]);
    for millis in [1_000, 2_000, 4_000, 8_000] {
        quic.udp(millis, Outbound, &[0xc0, 0, 0, 1]);
    }
    assert_eq!(quic.codes(12_000), []);
}

#[test]
fn a_flood_of_connections_is_forgotten_and_those_that_work_first() {
    let mut story = Story::default();
    story.device(0, SYN, &[]);
    for round in 0..1_000 {
        story.port += 1;
        story.connect(round);
        story.server(round, PSH_ACK, 1, WAY, &[0x16; 9]);
    }
    assert_eq!(story.watch.connections.len(), CONNECTIONS);
    assert_eq!(story.watch.order.len(), CONNECTIONS);
    assert!(story.watch.connections.values().any(|connection| connection.accepted.is_none()));
}

#[test]
fn no_bytes_make_the_reader_of_names_panic() {
    let whole = hello("vpn.example.com");
    assert_eq!(hello::server_name(&whole).as_deref(), Some("vpn.example.com"));
    for len in 0..whole.len() {
        assert_eq!(hello::server_name(&whole[..len]), None);
    }
    let mut state = 443_u32;
    for _ in 0..50_000 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = usize::try_from(state >> 8).unwrap() % bytes.len();
            bytes[at] = u8::try_from(state >> 24).unwrap();
        }
        let _ = hello::server_name(&bytes);
    }
}

fn hello(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x16, 3, 1, 1, 0, 1, 0, 0, 200, 3, 3];
    bytes.extend([7; 32]);
    bytes.extend([0, 0, 2, 0x13, 1, 1, 0, 0, 90]);
    // Another extension first.
    bytes.extend([0, 43, 0, 3, 2, 3, 4]);
    let length = u8::try_from(name.len()).unwrap();
    bytes.extend([0, 0, 0, length + 5, 0, length + 3, 0, 0, length]);
    bytes.extend(name.as_bytes());
    bytes
}

struct Story {
    watch: Watch,
    port: u16,
    vpn: bool,
    name: &'static str,
}

impl Default for Story {
    fn default() -> Self {
        Self { watch: Watch::default(), port: 40_000, vpn: true, name: "www.example.com" }
    }
}

impl Story {
    fn device(&mut self, millis: u64, flags: u8, payload: &[u8]) {
        let segment = Peers::tcp(self.port, 443, 1, 1, flags, payload);
        self.watch.observe(&Peers::default().packet(millis, Outbound, 6, &segment));
    }

    fn server(&mut self, millis: u64, flags: u8, seq: u32, ttl: u8, payload: &[u8]) {
        let segment = Peers::tcp(443, self.port, seq, 1, flags, payload);
        let mut seen = Peers::default().packet(millis, Inbound, 6, &segment);
        seen.ttl = ttl;
        self.watch.observe(&seen);
    }

    fn udp(&mut self, millis: u64, direction: Direction, payload: &[u8]) {
        let (src, dst) = if direction == Outbound { (50_000, 443) } else { (443, 50_000) };
        let datagram = Peers::udp(src, dst, payload);
        self.watch.observe(&Peers::default().packet(millis, direction, 17, &datagram));
    }

    /// From the SYN to the device's first message.
    fn connect(&mut self, millis: u64) {
        self.device(millis, SYN, &[]);
        self.server(millis + 20, SYN_ACK, 0, WAY, &[]);
        self.device(millis + 30, PSH_ACK, &hello(self.name));
    }

    fn found(&self, millis: u64) -> Vec<Finding> {
        let servers = if self.vpn { vec![Peers::default().server] } else { Vec::new() };
        ask(millis, &household(servers), None, &Router::default(), |context, findings| {
            self.watch.findings(context, findings);
        })
    }

    fn codes(&self, millis: u64) -> Vec<(Code, Confidence)> {
        self.found(millis).iter().map(|finding| (finding.code, finding.confidence)).collect()
    }
}
