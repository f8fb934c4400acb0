//! What the stateful firewall beside natd must know before a packet is released, and hand-over with the
//! kernel's conntrack.

use std::time::Duration;

use nat_core::decision::{Admission, DropReason, KernelFlow, Note, TcpProgress};
use nat_core::flow::{Protocol, Tuple};
use nat_core::nat::Handover;
use nat_core::policy::Filtering;
use nat_core::session::SessionState;

use crate::packets::{A, B, End, HOP, NEW_WAN, ROUTER, S, T, WAN, error, ping, pong, tcp, udp};
use crate::world::{Out, World, endpoint, forward, sent};

fn tuple(protocol: Protocol, src: End, dst: End) -> Tuple {
    Tuple { protocol, src: endpoint(src), dst: endpoint(dst) }
}

fn wanted(original: Tuple, tcp: Option<TcpProgress>, secs: u64) -> Option<Admission> {
    Some(Admission { original: original.into(), tcp, timeout: Duration::from_secs(secs) })
}

const DEVICE: End = (A, 40_000);
const SERVER: End = (S, 53);

#[test]
fn an_answer_needs_no_admission() {
    let mut w = World::new();
    for _ in 0..10 {
        w.lan(&udp(DEVICE, SERVER)).sent();
        assert_eq!(w.admission, None);
        w.wan(&udp(SERVER, (WAN, 40_000))).sent();
        assert_eq!(w.admission, None);
        w.advance(19);
    }
    assert_eq!(w.notes(Note::Admitted), 0);
}

#[test]
fn the_first_packet_of_an_inbound_session_needs_one() {
    let mut w = World::filtering(Filtering::EndpointIndependent);
    w.lan(&udp(DEVICE, SERVER)).sent();
    w.wan(&udp((T, 9), (WAN, 40_000))).sent();
    assert_eq!(w.admission, wanted(tuple(Protocol::Udp, (T, 9), DEVICE), None, 300));
    w.wan(&udp((T, 9), (WAN, 40_000))).sent();
    assert_eq!(w.admission, None);
    assert_eq!(w.notes(Note::Admitted), 1);
}

#[test]
fn an_address_dependent_answer_from_another_port_needs_one() {
    let mut w = World::new();
    w.lan(&udp(DEVICE, SERVER)).sent();
    w.wan(&udp((S, 54), (WAN, 40_000))).sent();
    assert_eq!(w.admission, wanted(tuple(Protocol::Udp, (S, 54), DEVICE), None, 300));
}

#[test]
fn a_forwarded_connection_needs_one_for_its_syn() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 443, 443, A, 8443)]);
    w.wan(&tcp((S, 5000), (WAN, 443)).syn(1)).sent();
    let original = tuple(Protocol::Tcp, (S, 5000), (A, 8443));
    assert_eq!(w.admission, wanted(original, Some(TcpProgress::Opening), 240));
    w.lan(&tcp((A, 8443), (S, 5000)).syn_ack(9, 2)).sent();
    w.wan(&tcp((S, 5000), (WAN, 443)).ack(2, 10)).sent();
    assert_eq!(w.admission, None);
}

#[test]
fn a_forwarded_connection_taken_up_in_midstream_is_established() {
    let mut w = World::forwards(&[forward(Protocol::Tcp, 443, 443, A, 8443)]);
    w.wan(&tcp((S, 5000), (WAN, 443)).data(1, 1, 10)).sent();
    assert_eq!(w.admission.unwrap().tcp, Some(TcpProgress::Established));
}

#[test]
fn after_a_pause_longer_than_the_kernels_patience_it_is_renewed() {
    for (pause, renewed) in [(20, false), (21, true), (200, true)] {
        let mut w = World::new();
        w.lan(&udp(DEVICE, SERVER)).sent();
        w.advance(pause);
        w.wan(&udp(SERVER, (WAN, 40_000))).sent();
        let expected = wanted(tuple(Protocol::Udp, DEVICE, SERVER), None, 300);
        assert_eq!(w.admission, expected.filter(|_| renewed), "{pause} s");
    }
    let mut w = World::new();
    w.engine.nat.set_patience(Duration::from_secs(100));
    w.lan(&udp(DEVICE, SERVER)).sent();
    w.advance(100);
    w.wan(&udp(SERVER, (WAN, 40_000))).sent();
    assert_eq!(w.admission, None);
}

#[test]
fn an_idle_tcp_connection_is_renewed_with_its_own_timeout() {
    let mut w = World::new();
    w.connect(DEVICE, (S, 443));
    w.advance(3600);
    w.wan(&tcp((S, 443), (WAN, 40_000)).data(501, 101, 10)).sent();
    let original = tuple(Protocol::Tcp, DEVICE, (S, 443));
    assert_eq!(w.admission, wanted(original, Some(TcpProgress::Established), 7440));
}

#[test]
fn an_error_after_a_pause_renews_what_it_is_related_to() {
    let mut w = World::new();
    let quote = w.lan(&udp(DEVICE, SERVER)).sent().0;
    w.wan(&error(3, 3, HOP, WAN, &quote)).sent();
    assert_eq!(w.admission, None);
    w.advance(100);
    w.wan(&error(3, 3, HOP, WAN, &quote)).sent();
    assert_eq!(w.admission.unwrap().original, tuple(Protocol::Udp, DEVICE, SERVER));
}

#[test]
fn nothing_that_is_dropped_or_the_routers_is_admitted() {
    let mut w = World::new();
    w.lan(&udp(DEVICE, SERVER)).sent();
    w.advance(100);
    for packet in [udp((T, 53), (WAN, 40_000)), udp((T, 53), (WAN, 9)), pong(T, WAN, 1)] {
        w.wan(&packet);
        assert_eq!(w.admission, None);
    }
    assert_eq!(w.notes(Note::Admitted), 0);
}

fn kernel_flow(protocol: Protocol, src: End, dst: End) -> KernelFlow {
    let original = tuple(protocol, src, dst);
    KernelFlow {
        original: original.into(),
        reply: original.reverse().into(),
        snat: false,
        dnat: false,
        replied: true,
        tcp: (protocol == Protocol::Tcp).then_some(TcpProgress::Established),
        timeout: Duration::from_secs(100),
    }
}

#[test]
fn a_flow_from_before_a_crash_is_adopted_and_its_server_may_speak_first() {
    let mut w = World::new();
    let flow = kernel_flow(Protocol::Tcp, DEVICE, (S, 443));
    assert_eq!(w.engine.nat.adopt(w.now, &flow), Handover::Adopted);
    assert_eq!((w.sessions()[0].state, w.left()), (SessionState::Established, 7440));
    let data = tcp((S, 443), (WAN, 40_000)).data(123_456, 654_321, 1000);
    assert_eq!(w.wan(&data), sent(&data.to(A, 40_000)));
    assert_eq!(w.admission, None); // conntrack has it
    w.lan(&tcp(DEVICE, (S, 443)).ack(654_321, 124_456)).sent();
    assert_eq!((w.notes(Note::Adopted), w.notes(Note::OutOfWindow)), (1, 0));
    // A second time it is ours already.
    assert_eq!(w.engine.nat.adopt(w.now, &flow), Handover::Foreign);
    assert_eq!(w.sessions().len(), 1);
}

#[test]
fn a_flow_of_the_kernels_nat_is_adopted_with_its_external_port() {
    let mut w = World::new();
    let flow = KernelFlow {
        reply: tuple(Protocol::Udp, SERVER, (WAN, 41_234)).into(),
        snat: true,
        ..kernel_flow(Protocol::Udp, DEVICE, SERVER)
    };
    assert_eq!(w.engine.nat.adopt(w.now, &flow), Handover::AdoptedFromKernel);
    let packet = udp(DEVICE, SERVER);
    assert_eq!(w.lan(&packet), sent(&packet.from(WAN, 41_234)));
    // Before the device spoke again, conntrack would not know the answer.
    let mut w = World::new();
    w.engine.nat.adopt(w.now, &flow);
    w.wan(&udp(SERVER, (WAN, 41_234))).sent();
    assert_eq!(w.admission.unwrap().original, flow.original);
}

#[test]
fn flows_that_are_not_ours_are_left_alone() {
    let mut w = World::new();
    let udp = Protocol::Udp;
    let redirected = KernelFlow { dnat: true, ..kernel_flow(udp, DEVICE, SERVER) };
    let other_nat = KernelFlow {
        reply: tuple(udp, SERVER, (NEW_WAN, 1)).into(),
        snat: true,
        ..kernel_flow(udp, DEVICE, SERVER)
    };
    for flow in [
        redirected,
        other_nat,
        kernel_flow(udp, DEVICE, (B, 1)),
        kernel_flow(udp, DEVICE, (ROUTER, 53)),
        kernel_flow(udp, (WAN, 1), SERVER),
        kernel_flow(udp, SERVER, (WAN, 1)),
        kernel_flow(udp, SERVER, (T, 1)),
    ] {
        assert_eq!(w.engine.nat.adopt(w.now, &flow), Handover::Foreign, "{flow:?}");
    }
    assert_eq!(w.sessions().len(), 0);
}

#[test]
fn a_kernel_flow_that_cannot_be_kept_ends() {
    let mut w = World::forwards(&[forward(Protocol::Udp, 7000, 7000, B, 7000)]);
    w.lan(&udp((B, 50_000), SERVER)).sent();
    let masqueraded = |src, port| KernelFlow {
        reply: tuple(Protocol::Udp, SERVER, (WAN, port)).into(),
        snat: true,
        ..kernel_flow(Protocol::Udp, src, SERVER)
    };
    // Its port is taken; forwarded; its device has another mapping; one external port would be shared.
    assert_eq!(w.engine.nat.adopt(w.now, &masqueraded(DEVICE, 50_000)), Handover::Ended);
    assert_eq!(w.engine.nat.adopt(w.now, &masqueraded(DEVICE, 7000)), Handover::Ended);
    assert_eq!(w.engine.nat.adopt(w.now, &masqueraded(DEVICE, 6000)), Handover::AdoptedFromKernel);
    assert_eq!(
        w.engine.nat.adopt(
            w.now,
            &KernelFlow {
                original: tuple(Protocol::Udp, DEVICE, (T, 1)).into(),
                reply: tuple(Protocol::Udp, (T, 1), (WAN, 6002)).into(),
                ..masqueraded(DEVICE, 6002)
            }
        ),
        Handover::Ended
    );
    let half_open = KernelFlow {
        reply: tuple(Protocol::Tcp, SERVER, (WAN, 40_000)).into(),
        snat: true,
        tcp: None,
        ..kernel_flow(Protocol::Tcp, DEVICE, SERVER)
    };
    assert_eq!(w.engine.nat.adopt(w.now, &half_open), Handover::Ended);
    assert_eq!(w.sessions().len(), 2);
}

#[test]
fn without_an_address_nothing_is_adopted() {
    let mut w = World::new();
    w.engine.nat.set_address(None);
    assert_eq!(w.engine.nat.adopt(w.now, &kernel_flow(Protocol::Udp, DEVICE, SERVER)), Handover::Foreign);
    assert_eq!(w.lan(&udp(DEVICE, SERVER)), Out::Dropped(DropReason::NoAddress));
}

#[test]
fn queries_that_overtake_their_first_ones_entry_are_sent_anew() {
    let mut w = World::new();
    let resent = |w: &mut World, millis: u64| {
        w.pass_time(Duration::from_millis(millis));
        w.lan(&ping(A, S, 7)).sent();
        w.resend
    };
    assert_eq!([0, 0, 100, 100].map(|millis| resent(&mut w, millis)), [false, true, true, false]);
    w.lan(&udp(DEVICE, SERVER)).sent();
    w.lan(&udp(DEVICE, SERVER)).sent();
    assert!(!w.resend);
}
