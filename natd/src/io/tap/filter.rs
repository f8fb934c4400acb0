//! Which packets are copied for the diagnosis.
//!
//! The filter sees a packet from its IP header on. It copies, of IPv4 and IPv6 (the next header directly behind the
//! IPv6 header or behind one fragment header; behind other extension headers nothing is looked for):
//!
//! | what | copied |
//! |---|---|
//! | UDP 500 | all but WireGuard's data, whole |
//! | UDP 4500 | IKE whole; keepalives and what is too short for ESP; ESP as below |
//! | ESP, AH, ESP in UDP, PPTP's GRE | sequence number below 64, or a multiple of 64 |
//! | PPTP's GRE, L2TP on UDP 1701 | PPP's control protocols (LCP, authentication, IPCP…) |
//! | L2TP on UDP 1701 and IP protocol 115 | control messages whole; data 1 in 32 at random |
//! | other GRE | keepalives, NHRP; else 1 in 32 at random |
//! | WireGuard on any UDP port | handshake; counter below 64 or a multiple of 64; keepalives |
//! | OpenVPN on any UDP port | hard resets, first TLS messages; what could be data 1 in 32 |
//! | OpenVPN on UDP 1194 | all but data; data 1 in 32 |
//! | DTLS on any UDP port | handshake |
//! | TCP | SYN, FIN, RST; ClientHello, ServerHello and alerts in clear; OpenVPN's resets and TLS; all of 1723; 1 in 32 of 1194 |
//! | DNS, UDP 53 | all, whole |
//! | ICMP, ICMPv6 | errors, redirects |
//! | UDP fragments behind the first | those that begin in the datagram's first 8 KiB, 64 bytes |
//!
//! not what is for another host, nor what has a VLAN tag (it belongs to the VLAN's own interface). Random means that
//! a packet that leaves on the WAN may be copied there and not on the LAN.
//!
//! TCP's data and QUIC, most of what a router carries, end in "no" after some twenty instructions.

use super::bpf::{Ancillary, If, Instruction, Label, Program, code};

const PACKET_OTHERHOST: u32 = 3;
/// Whatever an IP packet may have.
const WHOLE: u32 = 0xffff;
/// All headers and what is said in clear of a control message.
const PART: u32 = 600;
/// Headers and numbers.
const HEAD: u32 = 128;
/// IP header of a later fragment.
const FRAGMENT: u32 = 64;
/// Fragments that begin farther behind in their datagram are no IKE message's.
const FRAGMENT_END: u32 = 8192;
/// One in so many, a power of two.
const SAMPLE: u32 = 32;
/// Sequence numbers that are a multiple of this, a power of two, and those below it.
const STEP: u32 = 64;

/// Where several ways meet.
struct Places {
    drop: Label,
    whole: Label,
    part: Label,
    head: Label,
    fragment: Label,
    sample: Label,
    /// A is a sequence number.
    sequence: Label,
    /// UDP of no port that says anything.
    content: Label,
}

/// The filter.
///
/// # Panics
/// Never: the program is always the same, and tests run it.
pub(super) fn program() -> Vec<Instruction> {
    let mut p = Program::default();
    let at = Places {
        drop: p.label(),
        whole: p.label(),
        part: p.label(),
        head: p.label(),
        fragment: p.label(),
        sample: p.label(),
        sequence: p.label(),
        content: p.label(),
    };
    let [tcp, udp, other] = [p.label(), p.label(), p.label()];
    ip(&mut p, &at, [tcp, udp, other]);
    p.here(tcp);
    on_tcp(&mut p, &at);
    p.here(udp);
    on_udp(&mut p, &at);
    p.here(other);
    on_other(&mut p, &at);
    answers(&mut p, &at);
    p.assemble().expect("every jump leads forwards to a label that is there")
}

/// Finds the transport header: X from here on.
fn ip(p: &mut Program, at: &Places, [tcp, udp, other]: [Label; 3]) {
    let [v4, later_v4, later_v6, protocol] = [(); 4].map(|()| p.label());
    p.load(Ancillary::Protocol);
    p.branch(If::Is(0x0800), v4);
    p.branch(If::Not(0x86dd), at.drop);

    p.op(code::LDX_IMM, 40);
    p.op(code::LD_B_ABS, 6);
    p.branch(If::Not(44), protocol);
    p.op(code::LD_H_ABS, 42);
    p.branch(If::Any(0xfff8), later_v6);
    p.op(code::LDX_IMM, 48);
    p.op(code::LD_B_ABS, 40);
    p.go(protocol);
    p.here(later_v6);
    // The three bits behind the offset count as fractions.
    p.branch(If::AtLeast(FRAGMENT_END), at.drop);
    p.op(code::LD_B_ABS, 40);
    p.branch(If::Is(17), at.fragment);
    p.op(code::RET_K, 0);

    p.here(v4);
    p.op(code::LD_H_ABS, 6);
    p.branch(If::Any(0x1fff), later_v4);
    p.op(code::LDX_MSH, 0);
    p.op(code::LD_B_ABS, 9);
    p.here(protocol);
    p.branch(If::Is(6), tcp);
    p.branch(If::Is(17), udp);
    p.go(other);

    p.here(later_v4);
    p.op(code::AND_K, 0x1fff);
    p.branch(If::AtLeast(FRAGMENT_END / 8), at.drop);
    p.op(code::LD_B_ABS, 9);
    p.branch(If::Is(17), at.fragment);
    p.op(code::RET_K, 0);
}

fn on_tcp(p: &mut Program, at: &Places) {
    let [openvpn_port, tls, alert] = [(); 3].map(|()| p.label());
    let to_payload = |p: &mut Program| {
        p.op(code::LD_B_IND, 12);
        p.op(code::AND_K, 0xf0);
        p.op(code::RSH_K, 2);
        p.op(code::ADD_X, 0);
        p.op(code::TAX, 0);
        // A segment without payload ends here.
        p.op(code::LD_H_IND, 0);
    };
    p.op(code::LD_B_IND, 13);
    p.branch(If::Any(0x07), at.part);
    for port in [0, 2] {
        p.op(code::LD_H_IND, port);
        p.branch(If::Is(1723), at.whole);
        p.branch(If::Is(1194), openvpn_port);
    }
    to_payload(p);
    p.branch(If::Is(0x1603), tls);
    p.branch(If::Is(0x1503), alert);
    // The length of an OpenVPN packet, then its opcode; resets and TLS messages, the first key's.
    p.branch(If::AtLeast(0x0500), at.drop);
    p.branch(If::Below(14), at.drop);
    p.op(code::LD_B_IND, 2);
    for opcode in [7, 8, 10, 4, 5] {
        p.branch(If::Is(opcode << 3), at.part);
    }
    p.op(code::RET_K, 0);

    p.here(tls);
    p.op(code::LD_B_IND, 5);
    p.branch(If::Is(1), at.whole);
    p.branch(If::Is(2), at.part);
    p.op(code::RET_K, 0);
    p.here(alert);
    p.op(code::LD_H_IND, 3);
    p.branch(If::Is(2), at.head);
    p.op(code::RET_K, 0);

    p.here(openvpn_port);
    to_payload(p);
    p.branch(If::Below(14), at.sample);
    p.branch(If::AtLeast(0x0500), at.sample);
    p.op(code::LD_B_IND, 2);
    p.op(code::AND_K, 0xf8);
    for opcode in [7, 8, 10, 3, 4, 5] {
        p.branch(If::Is(opcode << 3), at.part);
    }
    p.go(at.sample);
}

fn on_udp(p: &mut Program, at: &Places) {
    let [destination, from_500, from_4500, ike, mixed, nat_t] = [(); 6].map(|()| p.label());
    let [l2tp, openvpn] = [(); 2].map(|()| p.label());
    p.op(code::LD_H_IND, 0);
    p.branch(If::Above(4500), destination);
    p.branch(If::Is(500), from_500);
    p.branch(If::Is(4500), from_4500);
    p.branch(If::Is(53), at.whole);
    p.branch(If::Is(1701), l2tp);
    p.branch(If::Is(1194), openvpn);
    p.here(destination);
    p.op(code::LD_H_IND, 2);
    p.branch(If::Above(4500), at.content);
    p.branch(If::Is(500), ike);
    p.branch(If::Is(4500), nat_t);
    p.branch(If::Is(53), at.whole);
    p.branch(If::Is(1701), l2tp);
    p.branch(If::Is(1194), openvpn);
    p.go(at.content);

    p.here(from_500);
    p.op(code::LD_H_IND, 2);
    p.branch(If::Is(4500), mixed);
    p.go(ike);
    p.here(from_4500);
    p.op(code::LD_H_IND, 2);
    p.branch(If::Not(500), nat_t);
    // Between 500 and 4500 a message of IKE may be marked or not: unmarked ones are known by their version.
    p.here(mixed);
    p.op(code::LD_H_IND, 4);
    p.branch(If::Below(8 + 28), nat_t);
    p.op(code::LD_B_IND, 8 + 17);
    p.branch(If::Is(0x10), at.whole);
    p.branch(If::Is(0x20), at.whole);
    p.here(nat_t);
    p.op(code::LD_H_IND, 4);
    p.branch(If::Below(8 + 8), at.head);
    p.op(code::LD_W_IND, 8);
    p.branch(If::Is(0), at.whole);
    p.op(code::LD_W_IND, 12);
    p.go(at.sequence);

    p.here(l2tp);
    on_l2tp(p, at);

    p.here(ike);
    let wireguard: [Label; 4] = [(); 4].map(|()| p.label());
    p.op(code::LD_H_IND, 4);
    p.branch(If::Below(8 + 8), at.head);
    p.op(code::LD_W_IND, 8);
    for (kind, label) in (1..).zip(wireguard) {
        p.branch(If::Is(kind << 24), label);
    }
    p.go(at.whole);

    p.here(openvpn);
    p.op(code::LD_B_IND, 8);
    p.branch(If::Below(8), at.content);
    p.op(code::AND_K, 0xf8);
    p.branch(If::Is(6 << 3), at.sample);
    p.branch(If::Is(9 << 3), at.sample);
    p.go(at.part);

    p.here(at.content);
    let [from_client, from_server, wrapped, dtls] = [(); 4].map(|()| p.label());
    p.op(code::LD_W_IND, 8);
    for (kind, label) in (1..).zip(wireguard) {
        p.branch(If::Is(kind << 24), label);
    }
    p.op(code::RSH_K, 24);
    p.branch(If::Is(7 << 3), from_client);
    p.branch(If::Is(8 << 3), from_server);
    p.branch(If::Is(10 << 3), wrapped);
    // TLS messages and acknowledgements of the first key.
    p.branch(If::Is(4 << 3), at.part);
    p.branch(If::Is(5 << 3), at.part);
    p.branch(If::Is(22), dtls);
    p.op(code::AND_K, 0xf8);
    p.branch(If::Is(6 << 3), at.sample);
    p.branch(If::Is(9 << 3), at.sample);
    p.op(code::RET_K, 0);
    p.here(from_client);
    p.op(code::LD_H_IND, 4);
    p.branch(If::AtLeast(8 + 14), at.part);
    p.op(code::RET_K, 0);
    // QUIC's short header may begin with the same byte as the other two: a server's reset is short, or has, as
    // tls-crypt writes it behind the session ID, a packet number that has just begun.
    p.here(from_server);
    p.op(code::LD_H_IND, 4);
    p.branch(If::Below(8 + 14), at.drop);
    p.branch(If::Below(8 + 100), at.part);
    p.here(wrapped);
    p.op(code::LD_W_IND, 8 + 9);
    p.branch(If::None(0xf0ff_ff00), at.part);
    p.op(code::RET_K, 0);
    p.here(dtls);
    p.op(code::LD_B_IND, 9);
    p.branch(If::Is(0xfe), at.part);
    p.branch(If::Is(0x01), at.part);
    p.op(code::RET_K, 0);

    on_wireguard(p, at, wireguard);
}

/// RFC 2661 section 3.1, and PPP behind it.
fn on_l2tp(p: &mut Program, at: &Places) {
    const OFFSET: u32 = 0x0200;
    let protocol = p.label();
    p.op(code::LD_H_IND, 8);
    p.branch(If::Any(0x8000), at.whole);
    p.branch(If::Any(OFFSET), at.sample);
    p.op(code::AND_K, 0x000f);
    p.branch(If::Not(2), at.sample);
    // Two more bytes with a length, four more with sequence numbers.
    p.op(code::LD_H_IND, 8);
    p.op(code::AND_K, 0x4000);
    p.op(code::RSH_K, 13);
    p.op(code::ADD_K, 8 + 6);
    p.op(code::ADD_X, 0);
    p.op(code::ST, 0);
    p.op(code::LD_H_IND, 8);
    p.op(code::AND_K, 0x0800);
    p.op(code::RSH_K, 9);
    p.op(code::LDX_MEM, 0);
    p.op(code::ADD_X, 0);
    p.op(code::TAX, 0);
    p.op(code::LD_H_IND, 0);
    p.branch(If::Not(0xff03), protocol);
    p.op(code::LD_H_IND, 2);
    p.here(protocol);
    is_ppp_control(p, at.part, at.sample);
}

/// A is PPP's protocol field (RFC 1661 section 2). Below 0x8000 is data; an odd first byte is a field of one byte.
fn is_ppp_control(p: &mut Program, yes: Label, no: Label) {
    p.branch(If::Any(0x0100), no);
    p.branch(If::AtLeast(0x8000), yes);
    p.go(no);
}

fn on_wireguard(p: &mut Program, at: &Places, kinds: [Label; 4]) {
    let [initiation, response, cookie, data] = kinds;
    for (kind, length) in [(initiation, 148), (response, 92), (cookie, 64)] {
        p.here(kind);
        p.op(code::LD_H_IND, 4);
        p.branch(If::Is(8 + length), at.part);
        p.op(code::RET_K, 0);
    }
    p.here(data);
    p.op(code::LD_H_IND, 4);
    p.branch(If::Is(8 + 32), at.head);
    p.branch(If::Below(8 + 32), at.drop);
    // The counter is little-endian.
    p.op(code::LD_W_IND, 8 + 8);
    p.branch(If::None((STEP - 1) << 24), at.head);
    p.branch(If::Any(!((STEP - 1) << 24)), at.drop);
    p.op(code::LD_W_IND, 8 + 12);
    p.branch(If::Is(0), at.head);
    p.op(code::RET_K, 0);
}

fn on_other(p: &mut Program, at: &Places) {
    let [esp, ah, gre, pptp, protocol, l2tp, icmp, icmp6] = [(); 8].map(|()| p.label());
    for (number, label) in [(50, esp), (47, gre), (1, icmp), (58, icmp6), (51, ah), (115, l2tp)] {
        p.branch(If::Is(number), label);
    }
    p.op(code::RET_K, 0);

    p.here(icmp);
    p.op(code::LD_B_IND, 0);
    for kind in [3, 11, 12, 5, 4] {
        p.branch(If::Is(kind), at.part);
    }
    p.op(code::RET_K, 0);
    p.here(icmp6);
    p.op(code::LD_B_IND, 0);
    p.branch(If::Is(0), at.drop);
    p.branch(If::Below(5), at.part);
    p.op(code::RET_K, 0);

    p.here(l2tp);
    p.op(code::LD_W_IND, 0);
    p.branch(If::Is(0), at.whole);
    p.go(at.sample);

    p.here(gre);
    p.op(code::LD_H_IND, 0);
    p.op(code::AND_K, 7);
    p.branch(If::Is(1), pptp);
    p.op(code::LD_H_IND, 2);
    p.branch(If::Is(0), at.head);
    p.branch(If::Is(0x2001), at.part);
    p.go(at.sample);
    p.here(pptp);
    p.op(code::LD_H_IND, 2);
    p.branch(If::Not(0x880b), at.sample);
    // The sequence number; in a packet without one the number that it acknowledges.
    p.op(code::LD_W_IND, 8);
    p.branch(If::Below(STEP), at.part);
    p.branch(If::None(STEP - 1), at.part);
    p.op(code::LD_H_IND, 0);
    p.branch(If::None(0x1000), at.drop);
    p.op(code::AND_K, 0x0080);
    p.op(code::RSH_K, 5);
    p.op(code::ADD_K, 12);
    p.op(code::ADD_X, 0);
    p.op(code::TAX, 0);
    p.op(code::LD_H_IND, 0);
    p.branch(If::Not(0xff03), protocol);
    p.op(code::LD_H_IND, 2);
    p.here(protocol);
    is_ppp_control(p, at.part, at.drop);

    p.here(ah);
    p.op(code::LD_W_IND, 8);
    p.go(at.sequence);
    p.here(esp);
    p.op(code::LD_W_IND, 4);
    p.here(at.sequence);
    p.branch(If::Below(STEP), at.head);
    p.branch(If::None(STEP - 1), at.head);
    p.op(code::RET_K, 0);
}

fn answers(p: &mut Program, at: &Places) {
    let accept = p.label();
    p.here(at.sample);
    p.load(Ancillary::Random);
    p.branch(If::Any(SAMPLE - 1), at.drop);
    for (label, bytes) in [(at.head, HEAD), (at.part, PART), (at.whole, WHOLE), (at.fragment, FRAGMENT)] {
        p.here(label);
        p.op(code::LDX_IMM, bytes);
        p.go(accept);
    }
    p.here(accept);
    p.load(Ancillary::PacketType);
    p.branch(If::Is(PACKET_OTHERHOST), at.drop);
    p.load(Ancillary::VlanTagPresent);
    p.branch(If::Not(0), at.drop);
    p.op(code::TXA, 0);
    p.op(code::RET_A, 0);
    p.here(at.drop);
    p.op(code::RET_K, 0);
}

#[cfg(test)]
mod tests;
