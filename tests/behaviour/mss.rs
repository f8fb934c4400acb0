//! MSS clamping: a SYN never promises more than the links carry.

use nat_core::policy::{MssClamp, Policy};

use crate::packets::{A, End, Packet, S, WAN, tcp};
use crate::world::{World, sent};

const SERVER: End = (S, 443);

fn up() -> Packet {
    tcp((A, 40_000), SERVER)
}

fn down() -> Packet {
    tcp(SERVER, (WAN, 40_000))
}

#[test]
fn mss_is_lowered_to_what_the_links_carry_in_both_directions() {
    let mut w = World::new();
    w.engine.nat.set_mtu(Some(1492));
    assert_eq!(w.lan(&up().syn(100).mss(1460)), sent(&up().from(WAN, 40_000).syn(100).mss(1452)));
    assert_eq!(
        w.wan(&down().syn_ack(500, 101).mss(8960)),
        sent(&down().to(A, 40_000).syn_ack(500, 101).mss(1452))
    );
    // Not raised, and only in a SYN.
    assert_eq!(w.lan(&up().syn(100).mss(1400)), sent(&up().from(WAN, 40_000).syn(100).mss(1400)));
    let late = up().ack(101, 501).mss(1460);
    assert_eq!(w.lan(&late), sent(&late.from(WAN, 40_000)));
}

#[test]
fn mss_is_found_behind_other_options_at_odd_offsets() {
    let mut w = World::new();
    w.engine.nat.set_mtu(Some(1400));
    let with = |mss: u16| {
        let [high, low] = mss.to_be_bytes();
        up().syn(100).tcp_options(&[1, 3, 3, 7, 1, 2, 4, high, low, 4, 2, 0])
    };
    assert_eq!(w.lan(&with(1460)), sent(&with(1360).from(WAN, 40_000)));
    let with = |mss: u16| {
        let [high, low] = mss.to_be_bytes();
        up().syn(100).tcp_options(&[1, 2, 4, high, low, 1, 1, 1]).options(&[1, 1, 1, 1])
    };
    assert_eq!(w.lan(&with(1460)), sent(&with(1360).from(WAN, 40_000)));
}

#[test]
fn mss_clamping_follows_the_policy() {
    for (mss_clamp, mtu, expected) in [
        (MssClamp::Off, Some(1400), 1460),
        (MssClamp::To(1200), None, 1200),
        (MssClamp::Auto, None, 1460),
        (MssClamp::Auto, Some(100), 536), // RFC 9293: never below
    ] {
        let mut w = World::with(Policy { mss_clamp, ..Policy::default() });
        w.engine.nat.set_mtu(mtu);
        let out = w.lan(&up().syn(100).mss(1460));
        assert_eq!(out, sent(&up().from(WAN, 40_000).syn(100).mss(expected)), "{mss_clamp:?}");
    }
}

#[test]
fn mss_is_lowered_for_the_routers_own_connections() {
    let mut w = World::new();
    w.engine.nat.set_mtu(Some(1400));
    let syn = tcp((WAN, 50_000), SERVER);
    assert_eq!(w.router(&syn.clone().syn(1).mss(1460)), sent(&syn.syn(1).mss(1360)));
}
