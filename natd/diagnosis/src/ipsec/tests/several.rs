//! Several devices at one server.

use super::*;
use Confidence::{High, Medium};

#[test]
fn answers_that_another_device_gets() {
    let (mut line, mut other) = (Line::new(), Line::other());
    other.up(0, 2);
    for millis in [10_000, 12_000, 16_000] {
        line.ike(millis, Outbound, 500, &sa_init(1, &[]));
        other.ike(millis + 30, Inbound, 500, &sa_init_answer(1, &[]));
    }
    assert_eq!(line.codes_among(21_000, &[&other]), [(Code::MultiClash, High)]);
    assert_eq!(line.codes(21_000), [(Code::Ike500NoReply, High)]);
    assert_eq!(other.codes_among(21_000, &[&line]), [], "it is well itself");
}

#[test]
fn only_port_500_is_answered() {
    let (mut line, mut other) = (Line::new(), Line::other());
    other.up(0, 2);
    other.left(0, 500, [203, 0, 113, 5], 500);
    for millis in [10_000, 12_000, 16_000] {
        line.ike(millis, Outbound, 500, &sa_init(1, &[]));
        line.left(millis, 500, [203, 0, 113, 5], 40_500);
    }
    assert_eq!(line.codes_among(21_000, &[&other]), [(Code::IkePortRewritten, High)]);
}

#[test]
fn two_devices_at_one_server_are_healthy() {
    let (mut line, mut other) = (Line::new(), Line::other());
    for (line, spi) in [(&mut line, 1), (&mut other, 2)] {
        line.up(spi * 700, spi);
    }
    assert_eq!(line.codes_among(60_000, &[&other]), []);
    assert_eq!(other.codes_among(60_000, &[&line]), []);
}

/// L2TP/IPsec in UDP, up at `millis`, and ESP each second until `end`: inbound only until `heard`.
fn l2tp(line: &mut Line, millis: u64, heard: u64, end: u64) {
    line.main_mode(millis, millis + 1, &[]);
    line.quick_mode(millis + 100, millis + 1, 8);
    for seq in 1.. {
        let now = millis + u64::from(seq) * 1000;
        if now >= end {
            return;
        }
        line.esp(now, Outbound, 0xd1, seq, 400);
        if now < heard {
            line.esp(now + 30, Inbound, 0xc1, seq, 400);
        }
    }
}

#[test]
fn a_server_that_takes_one_l2tp_session_for_the_other() {
    let (mut line, mut other) = (Line::new(), Line::other());
    l2tp(&mut line, 0, 22_000, 50_000);
    l2tp(&mut other, 20_000, 50_000, 50_000);
    assert_eq!(line.codes_among(50_000, &[&other]), [(Code::L2tpIpsecMultiServer, Confidence::Low)]);
    assert_eq!(other.codes_among(50_000, &[&line]), []);
    let (mut line, mut other) = (Line::new(), Line::other());
    l2tp(&mut line, 0, 50_000, 50_000);
    l2tp(&mut other, 20_000, 50_000, 50_000);
    assert_eq!(line.codes_among(50_000, &[&other]), []);
}

#[test]
fn esp_of_one_device_that_another_gets() {
    let (mut line, mut other) = (Line::new(), Line::other());
    other.up(0, 2);
    line.up(0, 1);
    for millis in [3000, 4000, 5000] {
        let complaint = clear(V2, 37, (0, 0), 0, 0, &[(41, &notify2(11, &[0, 0, 0, 0xc9]))]);
        line.ike(millis, Outbound, 500, &complaint);
    }
    assert_eq!(line.codes_among(9000, &[&other]), [(Code::EspMisrouted, Medium)]);
    assert_eq!(line.codes(9000), [], "a lone device has forgotten something itself");
}
