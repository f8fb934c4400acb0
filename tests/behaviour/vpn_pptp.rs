//! PPTP through the whole engine: control connections as TCP segments, calls as GRE.

use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::{Decision, DropReason};
use nat_core::flow::{Endpoint, Protocol};
use nat_core::nat::Origin;
use nat_core::policy::{Forward, Policy, PortRange};
use natd::engine::{Arrival, Stage};
use passthrough::settings::{Access, Prefix, Scope, Settings};
use passthrough::view::{Phase, Vpn};

use crate::packets::{A, B, HOP, Packet, S, T, WAN, Wire, error, portless, tcp, too_big, udp};
use crate::world::{Out, World, sent};

const C: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 13);
const GRE: u8 = 47;

#[test]
fn three_clients_with_one_call_id_and_one_port_at_one_server() {
    let mut w = world();
    let mut calls = Vec::new();
    for (n, device) in [(0u16, A), (1, B), (2, C)] {
        let mut dial = dial(&mut w, (device, 40_000), S);
        let asked = dial.says(&mut w, &request(7));
        assert_eq!(word(&asked, 12), 7 + n);
        assert_eq!(asked, changed(&request(7), 12, 7 + n), "nothing else changes");
        let heard = dial.hears(&mut w, &reply(100 + n, 7 + n));
        assert_eq!(heard, reply(100 + n, 7));
        calls.push((device, n));
    }
    for (device, n) in calls {
        assert_eq!(w.lan(&gre(device, S, 100 + n)), sent(&gre(WAN, S, 100 + n)));
        assert!(!w.resend, "the first of its flow");
        assert_eq!(w.wan(&gre(S, WAN, 7 + n)), sent(&gre(S, device, 7)));
        let admission = w.admission.unwrap();
        assert_eq!((admission.original.protocol, admission.tcp), (GRE, None));
        assert_eq!((admission.original.src, admission.original.dst), (end(device, 7), end(S, 0)));
        assert_eq!(w.wan(&gre(S, WAN, 7 + n)), sent(&gre(S, device, 7)));
        assert_eq!(w.admission, None, "conntrack knows it");
        w.lan(&gre(device, S, 100 + n)).sent();
        assert!(w.resend, "conntrack has not entered the first one yet");
    }
    assert_eq!(w.wan(&gre(S, WAN, 10)), Out::Dropped(DropReason::GreNoControl));
    assert_eq!(w.wan(&gre(T, WAN, 7)), Out::Passed, "nobody's, as far as is known");
    w.pass_time(Duration::from_secs(25));
    w.lan(&gre(A, S, 100)).sent();
    assert!(!w.resend);
    w.wan(&gre(S, WAN, 7)).sent();
    assert!(w.admission.is_some(), "conntrack may have forgotten it");
}

#[test]
fn a_request_may_be_cut_and_joined_anywhere() {
    let echo = message(5, 16, 0, 0, 0);
    let all = [echo.clone(), request(0x1ff), echo].concat();
    for cut in 1..all.len() {
        let mut w = world();
        let mut first = dial(&mut w, (A, 40_000), S);
        first.says(&mut w, &request(0x1ff));
        let mut second = dial(&mut w, (B, 40_000), S);
        let (head, tail) = all.split_at(cut);
        let came = [second.says(&mut w, head), second.says(&mut w, tail)].concat();
        assert_eq!(came, changed(&all, 16 + 12, 0x100), "cut at {cut}");
        // Sent again as a whole, and byte by byte.
        second.seq -= u32::try_from(all.len()).unwrap();
        assert_eq!(second.says(&mut w, &all), changed(&all, 16 + 12, 0x100), "cut at {cut}");
        let back = u32::try_from(all.len()).unwrap();
        if cut == 1 {
            second.seq -= back;
            let bytes: Vec<u8> = all.iter().flat_map(|&byte| second.says(&mut w, &[byte])).collect();
            assert_eq!(bytes, changed(&all, 16 + 12, 0x100));
        }
    }
}

#[test]
fn gre_ahead_of_its_reply_waits_for_it() {
    let mut w = world();
    call(&mut w, A, 7, 100);
    let mut second = dial(&mut w, (B, 40_000), S);
    second.says(&mut w, &request(7));
    let Out::Held(_) = w.wan(&gre(S, WAN, 8)) else { panic!("not held") };
    assert_eq!(w.released(), []);
    second.hears(&mut w, &reply(101, 8));
    assert_eq!(w.released(), [Some(Wire(gre(S, B, 7).bytes()))]);
    assert_eq!(w.admission.unwrap().original.src, end(B, 7));
    assert_eq!(w.wan(&gre(S, WAN, 8)), sent(&gre(S, B, 7)));
}

#[test]
fn gre_whose_reply_does_not_come_is_dropped() {
    let mut w = world();
    let mut dial = dial(&mut w, (A, 40_000), S);
    dial.says(&mut w, &request(7));
    let Out::Held(_) = w.wan(&gre(S, WAN, 7)) else { panic!("not held") };
    w.pass_time(Duration::from_secs(2));
    assert_eq!(w.released(), [None]);
    assert_eq!(w.drops(DropReason::GreNoControl), 1);
}

#[test]
fn a_device_that_answers_may_be_ahead_of_its_reply() {
    let mut w = world();
    let mut dial = dial(&mut w, (A, 40_000), S);
    dial.hears(&mut w, &message(7, 168, 50, 0, 0));
    let Out::Held(_) = w.lan(&gre(A, S, 50)) else { panic!("not held") };
    dial.says(&mut w, &message(8, 32, 9, 50, 1));
    assert_eq!(w.released(), [Some(Wire(gre(WAN, S, 50).bytes()))]);
}

#[test]
fn switched_off_it_is_refused_at_once() {
    let mut w = World::both(forwarded(), Settings::default(), [7; 16]);
    assert_eq!(w.lan(&tcp((A, 40_000), (S, 1723)).syn(100)), Out::Dropped(DropReason::PptpOff));
    let rst = w.transmits().remove(0);
    assert_eq!((rst.src(), rst.dst()), ((S, 1723), (A, 40_000)));
    assert_eq!(rst.0[28..34], [0, 0, 0, 101, 0x50, 0x14], "RST and ACK of the SYN");
    assert_eq!(w.lan(&gre(A, S, 7)), Out::Dropped(DropReason::PptpOff));
    let icmp = w.transmits().remove(0);
    assert_eq!(icmp.carried()[..2], [3, 13]);
    assert_eq!(icmp.dst().0, A);
    assert_eq!(w.wan(&tcp((S, 40_000), (WAN, 1723)).syn(100)), Out::Dropped(DropReason::PptpOff));
    assert_eq!(w.sessions().len(), 0);
    // Other GRE is not PPTP's.
    w.lan(&portless(GRE, A, S, &[0x20, 0, 8, 0, 0, 0, 0, 1])).sent();
}

#[test]
fn switched_off_in_the_middle_its_calls_stop() {
    let mut w = world();
    call(&mut w, A, 7, 100);
    w.engine.vpn.set_settings(Settings::default());
    assert_eq!(w.lan(&gre(A, S, 100)), Out::Dropped(DropReason::PptpOff));
    assert_eq!(w.wan(&gre(S, WAN, 7)), Out::Dropped(DropReason::PptpOff));
}

#[test]
fn gre_without_a_control_connection_is_refused_and_named() {
    let mut w = world();
    assert_eq!(w.lan(&gre(A, S, 7)), Out::Dropped(DropReason::GreNoControl));
    assert_eq!(w.transmits().remove(0).carried()[..2], [3, 13]);
    assert_eq!(w.wan(&gre(S, WAN, 7)), Out::Passed, "the kernel says what the router has");
    call(&mut w, A, 7, 100);
    assert_eq!(w.lan(&gre(A, S, 99)), Out::Dropped(DropReason::GreNoControl));
    assert_eq!(w.lan(&gre(B, S, 100)), Out::Dropped(DropReason::GreNoControl), "another's call");
    assert_eq!(
        w.lan(&portless(GRE, A, S, &[0x30, 1, 0x88, 0x0b, 0, 0])),
        Out::Dropped(DropReason::Malformed)
    );
}

#[test]
fn the_router_s_own_pptp_is_left_to_the_kernel() {
    let mut w = world();
    call(&mut w, A, 7, 100);
    assert_eq!(w.wan(&gre(S, WAN, 50)), Out::Dropped(DropReason::GreNoControl));
    assert_eq!(w.router(&gre(WAN, S, 3)), Out::Passed);
    assert_eq!(w.wan(&gre(S, WAN, 50)), Out::Passed);
    assert_eq!(w.wan(&gre(S, WAN, 7)), sent(&gre(S, A, 7)), "the device's stays the device's");
    let quote = gre(WAN, S, 3).bytes();
    assert_eq!(w.wan(&error(3, 3, HOP, WAN, &quote)), Out::Passed);
}

#[test]
fn icmp_errors_follow_the_call() {
    let mut w = world();
    call(&mut w, A, 7, 100);
    call(&mut w, B, 7, 101);
    for len in [8, 12, 16] {
        let (out, inner) = (gre(WAN, S, 101).head(len), gre(B, S, 101).head(len));
        assert_eq!(w.wan(&too_big(1400, HOP, WAN, &out)), sent(&too_big(1400, HOP, B, &inner)), "{len}");
        let original = w.admission.unwrap().original;
        assert_eq!((original.src, original.dst), (end(B, 0), end(S, 101)));
        let (got, on_wan) = (gre(S, B, 7).head(len), gre(S, WAN, 8).head(len));
        assert_eq!(w.lan(&error(3, 2, B, S, &got)), sent(&error(3, 2, WAN, S, &on_wan)), "{len}");
    }
    assert_eq!(
        w.wan(&error(3, 3, HOP, WAN, &gre(WAN, S, 99).head(8))),
        Out::Dropped(DropReason::UnknownQuote)
    );
    assert_eq!(w.lan(&error(3, 2, B, S, &gre(S, B, 99).head(8))), Out::Dropped(DropReason::UnknownQuote));
    let small = too_big(500, HOP, WAN, &gre(WAN, S, 101).head(8));
    assert_eq!(w.wan(&small), Out::Dropped(DropReason::MtuTooSmall));
}

#[test]
fn only_a_reset_that_the_nat_believes_ends_the_calls() {
    let mut w = world();
    let dial = call(&mut w, A, 7, 100);
    let from_server = || tcp((S, 1723), (WAN, dial.external));
    for stray in [
        from_server().rst(dial.ack.wrapping_add(10)),
        from_server().rst(dial.ack.wrapping_sub(200_000)),
        from_server().fin(dial.ack.wrapping_sub(100_000), dial.seq),
        from_server().fin(dial.ack, dial.seq.wrapping_add(500_000)),
    ] {
        let _ = w.wan(&stray);
        w.pass_time(Duration::from_secs(3));
        assert_eq!(w.wan(&gre(S, WAN, 7)), sent(&gre(S, A, 7)), "{stray:?}");
    }
    w.wan(&from_server().rst(dial.ack)).sent();
    w.pass_time(Duration::from_secs(3));
    assert_eq!(w.wan(&gre(S, WAN, 7)), Out::Dropped(DropReason::GreNoControl));
    assert_eq!(w.lan(&gre(A, S, 100)), Out::Dropped(DropReason::GreNoControl));
}

#[test]
fn what_the_nat_does_not_believe_opens_no_call() {
    let mut w = world();
    let mut dial = dial(&mut w, (A, 40_000), S);
    dial.says(&mut w, &request(7));
    let forged = tcp((S, 1723), (WAN, dial.external)).ack(dial.ack, dial.seq.wrapping_add(500_000));
    w.wan(&forged.payload(&reply(66, 7))).sent();
    let Out::Held(_) = w.wan(&gre(S, WAN, 7)) else { panic!("the call is up") };
    dial.hears(&mut w, &reply(100, 7));
    assert_eq!(w.released().len(), 1);
    w.lan(&gre(A, S, 100)).sent();
    assert_eq!(w.lan(&gre(A, S, 66)), Out::Dropped(DropReason::GreNoControl));
}

#[test]
fn calls_end_with_the_nat_s_session() {
    let mut w = world();
    call(&mut w, A, 7, 100);
    assert_eq!(w.engine.sessions(w.now).len(), 1);
    w.advance(3 * 3600);
    assert_eq!(w.sessions().len(), 0);
    assert_eq!(w.wan(&gre(S, WAN, 7)), Out::Passed, "nothing is known of that server any more");
    assert_eq!(w.lan(&gre(A, S, 100)), Out::Dropped(DropReason::GreNoControl));
    w.advance(3600);
    assert_eq!((w.engine.sessions(w.now), w.engine.poll_timeout()), (vec![], None));
}

#[test]
fn a_segment_behind_a_gap_is_dropped_and_passes_when_it_comes_again() {
    let mut w = world();
    call(&mut w, A, 7, 100);
    let mut dial = dial(&mut w, (B, 40_000), S);
    let (head, tail) = (request(7)[..10].to_vec(), request(7)[10..].to_vec());
    let late = tcp((B, 40_000), (S, 1723)).ack(dial.seq + 10, dial.ack).payload(&tail);
    assert_eq!(w.lan(&late), Out::Dropped(DropReason::PptpGap));
    dial.says(&mut w, &head);
    assert_eq!(word(&dial.says(&mut w, &tail), 2), 8);
}

#[test]
fn a_server_inside_serves_while_a_device_is_a_client_elsewhere() {
    let mut w = World::both(forwarded(), settings(), [7; 16]);
    call(&mut w, B, 7, 100);
    // S dials in, and has a Call ID that its own server has given too.
    let (client, server) = ((S, 40_000), (A, 1723));
    w.wan(&tcp(client, (WAN, 1723)).syn(500)).sent();
    w.lan(&tcp(server, client).syn_ack(100, 501)).sent();
    w.wan(&tcp(client, (WAN, 1723)).ack(501, 101)).sent();
    let mut dial = Dial { device: server, remote: client, external: 1723, seq: 101, ack: 501 };
    dial.hears(&mut w, &message(1, 156, 0x100, 0, 0));
    dial.says(&mut w, &message(2, 156, 0x100, 0x100, 0));
    dial.hears(&mut w, &message(7, 168, 100, 0, 0));
    let answer = dial.says(&mut w, &message(8, 32, 7, 100, 1));
    assert_eq!(answer, message(8, 32, 8, 100, 1), "7 is the other device's name at that address");
    assert_eq!(w.wan(&gre(S, WAN, 8)), sent(&gre(S, A, 7)));
    assert_eq!(w.lan(&gre(A, S, 100)), sent(&gre(WAN, S, 100)));
    assert_eq!(w.wan(&gre(S, WAN, 7)), sent(&gre(S, B, 7)));
}

#[test]
fn a_port_of_a_device_s_own_that_happens_to_be_1723_is_no_pptp() {
    let mut w = world();
    w.connect((A, 1723), (S, 443));
    w.lan(&tcp((A, 1723), (S, 443)).data(101, 501, 20)).sent();
    assert_eq!(w.engine.sessions(w.now), vec![]);
}

#[test]
fn the_second_device_at_a_server_is_refused_without_multi() {
    let mut w = World::vpn(Settings { multi: false, ..settings() });
    call(&mut w, A, 7, 100);
    assert_eq!(w.lan(&tcp((B, 40_000), (S, 1723)).syn(100)), Out::Dropped(DropReason::VpnSecondDevice));
    assert_eq!(w.lan(&gre(B, S, 1)), Out::Dropped(DropReason::VpnSecondDevice));
    w.lan(&tcp((B, 40_000), (T, 1723)).syn(100)).sent();
    w.lan(&gre(A, S, 100)).sent();
}

#[test]
fn lists_of_devices_and_servers_are_obeyed() {
    let pptp = Access { on: true, devices: vec![Prefix { addr: A, len: 32 }], servers: Vec::new() };
    let mut w = World::vpn(Settings { pptp, ..settings() });
    call(&mut w, A, 7, 100);
    assert_eq!(w.lan(&tcp((B, 40_000), (S, 1723)).syn(100)), Out::Dropped(DropReason::VpnNotAllowed));
}

#[test]
fn another_wan_address_ends_every_call() {
    let mut w = world();
    let mut dial = call(&mut w, A, 7, 100);
    dial.says(&mut w, &request(8));
    let Out::Held(_) = w.wan(&gre(S, WAN, 8)) else { panic!("not held") };
    w.engine.vpn.address_changed(&mut w.engine.nat);
    assert_eq!(w.released(), [None]);
    assert_eq!(w.lan(&gre(A, S, 100)), Out::Dropped(DropReason::GreNoControl));
    assert_eq!(w.engine.sessions(w.now), vec![]);
}

#[test]
fn a_connection_older_than_natd_passes_and_its_gre_is_told_to_dial_again() {
    let mut w = world();
    w.lan(&tcp((A, 40_000), (S, 1723)).ack(1000, 2000).payload(&request(7))).sent();
    assert_eq!(w.lan(&gre(A, S, 100)), Out::Dropped(DropReason::GreAfterStart));
    assert_eq!(w.wan(&gre(S, WAN, 7)), Out::Dropped(DropReason::GreAfterStart));
    let views = w.engine.sessions(w.now);
    assert_eq!((views[0].phase, views[0].reason), (Phase::Closed, "older than natd: dial again"));
}

#[test]
fn in_scope_vpn_pptp_is_natd_s_and_the_rest_the_kernel_s() {
    let mut w = World::vpn(Settings { scope: Scope::Vpn, ..settings() });
    call(&mut w, A, 7, 100);
    w.lan(&gre(A, S, 100)).sent();
    let other = udp((A, 40_000), (S, 53)).bytes();
    let arrival = Arrival { stage: Stage::ToWan(Origin::Lan), bytes: &other, truncated: false };
    assert_eq!(w.engine.decide(w.now, &arrival), Decision::Pass);
    assert_eq!(w.wan(&tcp((S, 1723), (WAN, 50_000)).ack(1, 1)), Out::Passed, "the kernel may know it");
}

#[test]
fn a_call_is_reported_with_its_ids() {
    let mut w = world();
    call(&mut w, A, 7, 100);
    call(&mut w, B, 7, 101);
    w.lan(&gre(B, S, 101)).sent();
    w.wan(&gre(S, WAN, 8)).sent();
    let views = w.engine.sessions(w.now);
    assert_eq!(views.len(), 2);
    let view = &views[1];
    assert_eq!((view.vpn, view.device, view.server, view.phase), (Vpn::Pptp, B, S, Phase::Data));
    let ids = view.ids[0];
    assert_eq!((ids.what, ids.inside, ids.outside, ids.remote), ("call", Some(7), Some(8), Some(101)));
    assert_eq!((view.packets, view.bytes), ([1, 1], [36, 36]));
}

fn settings() -> Settings {
    Settings { pptp: Access { on: true, ..Settings::default().pptp }, ..Settings::default() }
}

fn world() -> World {
    World::vpn(settings())
}

fn forwarded() -> Policy {
    let external = PortRange::new(1723, 1723).unwrap();
    let forward = Forward { protocol: Protocol::Tcp, external, host: A, internal_first: 1723 };
    Policy { forwards: vec![forward], ..Policy::default() }
}

fn end(addr: Ipv4Addr, id: u16) -> Endpoint {
    Endpoint::new(addr, id)
}

/// A control connection as its device sees it.
pub(crate) struct Dial {
    device: (Ipv4Addr, u16),
    remote: (Ipv4Addr, u16),
    pub(crate) external: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
}

impl Dial {
    /// The device sends `bytes`; what leaves.
    fn says(&mut self, w: &mut World, bytes: &[u8]) -> Vec<u8> {
        let packet = tcp(self.device, self.remote).ack(self.seq, self.ack).payload(bytes);
        let wire = w.lan(&packet).sent();
        assert_eq!((wire.src(), wire.dst()), ((WAN, self.external), self.remote));
        self.seq += u32::try_from(bytes.len()).unwrap();
        wire.carried().to_vec()
    }

    /// The remote side sends `bytes`; what the device gets.
    fn hears(&mut self, w: &mut World, bytes: &[u8]) -> Vec<u8> {
        let packet = tcp(self.remote, (WAN, self.external)).ack(self.ack, self.seq).payload(bytes);
        let wire = w.wan(&packet).sent();
        assert_eq!((wire.src(), wire.dst()), (self.remote, self.device));
        self.ack += u32::try_from(bytes.len()).unwrap();
        wire.carried().to_vec()
    }
}

/// A control connection that both sides have agreed on.
fn dial(w: &mut World, device: (Ipv4Addr, u16), server: Ipv4Addr) -> Dial {
    let external = w.connect(device, (server, 1723));
    let mut dial = Dial { device, remote: (server, 1723), external, seq: 101, ack: 501 };
    dial.says(w, &message(1, 156, 0x100, 0, 0));
    dial.hears(w, &message(2, 156, 0x100, 0x100, 0));
    dial
}

/// A call with S: the device calls itself `own`, the server itself `peer`.
pub(crate) fn call(w: &mut World, device: Ipv4Addr, own: u16, peer: u16) -> Dial {
    let mut dial = dial(w, (device, 40_000), S);
    let outside = word(&dial.says(w, &request(own)), 12);
    dial.hears(w, &reply(peer, outside));
    dial
}

/// A control message (RFC 2637 section 2) with the two words and the byte that follow its header.
pub(crate) fn message(kind: u16, length: u16, first: u16, second: u16, result: u8) -> Vec<u8> {
    let words = [length, 1, 0x1a2b, 0x3c4d, kind, 0, first, second];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.push(result);
    bytes.resize(usize::from(length), 0x11);
    bytes
}

/// Outgoing-Call-Request.
fn request(own: u16) -> Vec<u8> {
    message(7, 168, own, 1, 0)
}

/// Outgoing-Call-Reply: connected.
fn reply(own: u16, peer: u16) -> Vec<u8> {
    message(8, 32, own, peer, 1)
}

/// Enhanced GRE (RFC 2637 section 4.1) to the side that calls itself `id`.
pub(crate) fn gre(src: Ipv4Addr, dst: Ipv4Addr, id: u16) -> Packet {
    let [high, low] = id.to_be_bytes();
    portless(GRE, src, dst, &[0x30, 1, 0x88, 0x0b, 0, 4, high, low, 0, 0, 0, 9, 0xff, 3, 0xc0, 0x21])
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn changed(bytes: &[u8], at: usize, word: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
    bytes
}
