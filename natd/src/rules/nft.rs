//! The nft side of the rules; the parent module tells what and why.

use std::net::Ipv4Addr;

use super::{
    Backend, GUARD_TABLE, INBOUND_VPN, KIND_MASK, LOCAL_SOCKET, MARK_MASK, Mark, Queues, Scope, Surroundings,
    TABLE,
};
use crate::order;

/// What is left of the mark when our bits are cleared.
const UNMARK: u32 = !MARK_MASK;

/// One of these holds for a packet that any socket wants. `socket wildcard` would not do: it says nothing of a
/// connection in its handshake or in TIME-WAIT, neither 0 nor 1.
const ANY_SOCKET: [&str; 2] = ["socket transparent 0", "socket transparent 1"];

/// Returns for what is a VPN's, accepts the rest: which ends the chain that jumped here, and no other.
const ONLY_VPN_CHAIN: &str = "only_vpn";

/// What is a VPN's in [`Scope::Vpn`], one rule each: GRE, ESP, AH and L2TPv3; IKE, L2TP and NAT-T; PPTP; ICMP errors
/// that quote one of those, whose quoted header begins 8 bytes and, without options, whose quoted ports lie 28 and
/// 30 bytes behind the beginning of the ICMP message (RFC 792). TCP is decided first, it is most of what passes.
const ONLY_VPN: [&str; 14] = [
    "tcp sport 1723 return",
    "tcp dport 1723 return",
    "ip protocol 6 accept",
    "udp sport { 500, 1701, 4500 } return",
    "udp dport { 500, 1701, 4500 } return",
    "ip protocol { 47, 50, 51, 115 } return",
    "ip protocol != 1 accept",
    "icmp type != { 3, 4, 11, 12 } accept",
    "@th,136,8 { 47, 50, 51, 115 } return",
    "@th,64,8 0x45 @th,136,8 6 @th,224,16 1723 return",
    "@th,64,8 0x45 @th,136,8 6 @th,240,16 1723 return",
    "@th,64,8 0x45 @th,136,8 17 @th,224,16 { 500, 1701, 4500 } return",
    "@th,64,8 0x45 @th,136,8 17 @th,240,16 { 500, 1701, 4500 } return",
    "accept",
];

/// The block of the table that goes when natd stops.
pub(super) fn table(s: &Surroundings) -> String {
    let waits = s.wan_addresses.is_empty();
    let queue = |rules: Vec<String>| match s.backend {
        Backend::Nft if !waits => rules,
        Backend::Nft | Backend::Iptables => Vec::new(),
    };
    let marks_inbound = s.scope == Scope::Vpn && s.backend == Backend::Iptables;
    let sockets = |wanted: bool, rules: Vec<String>| if wanted && !waits { rules } else { Vec::new() };
    let see_sockets = sockets(s.socket_match || marks_inbound, see_sockets(s));
    [
        format!("table ip {TABLE} {{\n  counter no_wan_address {{ }}\n  counter inbound_to_lan {{ }}\n"),
        address_set("wan_addresses", &wan_addresses(s)),
        only_vpn_chain(s),
        match s.scope {
            Scope::All => [
                chain("refuse_direct", "filter hook prerouting priority -302", &refuse_direct(s)),
                chain("see_sockets", "filter hook prerouting priority -301", &see_sockets),
            ]
            .concat(),
            // One chain less for what is no VPN's.
            Scope::Vpn => chain(
                "see_sockets",
                "filter hook prerouting priority -301",
                &[refuse_direct(s), see_sockets].concat(),
            ),
        },
        chain("queue_prerouting", "filter hook prerouting priority -299", &queue(queue_prerouting(s))),
        if marks_inbound {
            chain("forget_inbound", "filter hook prerouting priority -298", &forget_inbound())
        } else {
            String::new()
        },
        chain(
            "mark_input",
            "filter hook input priority -151",
            &sockets(s.socket_match && s.scope == Scope::All, mark_input(s)),
        ),
        chain(
            "queue_input",
            "filter hook input priority -149",
            &queue(match s.scope {
                Scope::All => vec![queue_marked("", &[Mark::Unwanted], s)],
                Scope::Vpn => Vec::new(),
            }),
        ),
        chain("mark_forward", "filter hook forward priority 300", &mark_forward(s)),
        chain("untrack_final", "filter hook output priority -300", &untrack_final(s)),
        chain(
            "mark_output",
            "filter hook output priority 300",
            &if waits { Vec::new() } else { mark_output(s) },
        ),
        chain("null_binding", "nat hook postrouting priority 99", &null_binding()),
        chain("queue_postrouting", "filter hook postrouting priority 300", &queue(queue_postrouting(s))),
        "}\n".to_owned(),
    ]
    .concat()
}

/// The block of the table that stays.
pub(super) fn guard(s: &Surroundings) -> String {
    let mut rules = vec![format!("oifname != {} return", s.wan)];
    rules.extend(only_vpn(s));
    rules.extend(s.lan_prefixes.iter().flat_map(|&prefix| quotes(prefix)));
    rules.extend([
        "ip saddr @wan_addresses return".to_owned(),
        "ip saddr @lan_prefixes counter name \"lan_source\" drop".to_owned(),
        "ct status snat return".to_owned(),
    ]);
    rules.extend(lan(s).map(|lan| format!("iifname {lan} counter name \"foreign_source\" drop")));
    [
        format!("table ip {GUARD_TABLE} {{\n  counter lan_source {{ }}\n  counter foreign_source {{ }}\n  counter lan_quote {{ }}\n"),
        if s.scope == Scope::Vpn { "  counter kernel_nat { }\n".to_owned() } else { String::new() },
        address_set("wan_addresses", &wan_addresses(s)),
        prefix_set("lan_prefixes", &s.lan_prefixes),
        only_vpn_chain(s),
        match s.scope {
            Scope::All => String::new(),
            Scope::Vpn => chain("guard_forward", "filter hook forward priority 310", &guard_forward(s)),
        },
        chain("guard", "filter hook postrouting priority 310", &rules),
        "}\n".to_owned(),
    ]
    .concat()
}

/// While the guard stands no VPN of the household goes to the kernel's masquerade, be natd's table there or not.
fn guard_forward(s: &Surroundings) -> Vec<String> {
    let Some(lan) = lan(s) else { return Vec::new() };
    vec![
        format!("oifname != {} return", s.wan),
        format!("jump {ONLY_VPN_CHAIN}"),
        format!("{} return", marked(&[Mark::Forwarded])),
        format!("iifname != {lan} return"),
        "ct status dnat return".to_owned(),
        "counter name \"kernel_nat\" drop".to_owned(),
    ]
}

/// Rules against ICMP errors that quote a packet from or to the household: the router makes them seconds after the
/// packet came in, when whoever would have translated them may be gone. The quoted addresses lie 20 and 24 bytes
/// behind the beginning of the ICMP message.
fn quotes((addr, length): (Ipv4Addr, u8)) -> [String; 2] {
    let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
    let network = u32::from(addr) & mask;
    [160, 192].map(|bit| {
        format!(
            "ip protocol icmp icmp type {{ 3, 4, 5, 11, 12 }} @th,{bit},32 & {mask:#010x} == {network:#010x} \
             counter name \"lan_quote\" drop"
        )
    })
}

/// Text for `nft --check`: can the kernel queue by nft?
pub fn probe_queue() -> String {
    probe("filter hook prerouting priority -299", "queue num 0")
}

/// Text for `nft --check`: has the kernel the `socket` expression?
pub fn probe_socket() -> String {
    probe("filter hook prerouting priority -301", "socket wildcard 0 socket transparent 0 accept")
}

/// Text for `nft --check`: can a rule see what IPsec has decrypted?
pub fn probe_secpath() -> String {
    probe("filter hook prerouting priority -302", "meta secpath missing accept")
}

/// Text for `nft --check`: can a nat chain give the null binding?
pub fn probe_binding() -> String {
    probe("nat hook postrouting priority 99", "snat to ct original ip saddr")
}

fn probe(kind: &str, rule: &str) -> String {
    ["table ip natd_probe {\n".to_owned(), chain("probe", kind, &[rule.to_owned()]), "}\n".to_owned()]
        .concat()
}

/// Nobody on the WAN may address the household directly: conntrack, which sees the household's view, would take
/// such a packet for one that natd let in. What the router's own IPsec has decrypted also comes from the WAN.
fn refuse_direct(s: &Surroundings) -> Vec<String> {
    let list: Vec<String> =
        disjoint(&s.lan_prefixes).iter().map(|(network, length)| format!("{network}/{length}")).collect();
    if list.is_empty() {
        return list;
    }
    let decrypted = if s.secpath { "meta secpath missing " } else { "" };
    let direct = format!(
        "iifname {} ip daddr != @wan_addresses ip daddr {{ {} }} {decrypted}",
        s.wan,
        list.join(", ")
    );
    let mut rules: Vec<String> = only_vpn(s).map(|jump| format!("{direct}{jump}")).into_iter().collect();
    rules.push(format!("{direct}counter name \"inbound_to_lan\" drop"));
    rules
}

fn see_sockets(s: &Surroundings) -> Vec<String> {
    let sides: Vec<String> = both_sides(s).collect();
    let mark = |key: &str| format!("{key} meta mark set meta mark | {LOCAL_SOCKET:#010x}");
    let mut rules = vec!["ip daddr != @wan_addresses return".to_owned()];
    rules.extend(only_vpn(s));
    // A tunnel's inner packet may bring the mark of the outer one.
    rules.push(format!("iifname {} meta mark set meta mark & {UNMARK:#010x}", s.wan));
    if s.scope == Scope::Vpn && s.backend == Backend::Iptables {
        rules.extend(sides.iter().map(|from| format!("iifname {from} {}", set_bits(INBOUND_VPN))));
    }
    if !s.socket_match {
        return rules;
    }
    rules.push("socket wildcard 1 return".to_owned());
    rules.extend(sides.iter().flat_map(|from| ANY_SOCKET.map(|any| mark(&format!("iifname {from} {any}")))));
    rules
}

fn queue_prerouting(s: &Surroundings) -> Vec<String> {
    let only_vpn = only_vpn(s).map(|jump| ["ip daddr != @wan_addresses return".to_owned(), jump]);
    let queues =
        both_sides(s).map(|from| format!("iifname {from} ip daddr @wan_addresses {}", queue(s.queues)));
    only_vpn.into_iter().flatten().chain(queues).collect()
}

/// Nobody behind the queue is to meet the mark: policy routing, or the kernel when it reflects marks.
fn forget_inbound() -> Vec<String> {
    let kept = !KIND_MASK;
    vec![format!(
        "meta mark & {KIND_MASK:#010x} == {INBOUND_VPN:#010x} meta mark set meta mark & {kept:#010x}"
    )]
}

fn mark_input(s: &Surroundings) -> Vec<String> {
    let [any, other] = ANY_SOCKET;
    vec![
        format!("iifname != {} return", s.wan),
        "meta l4proto != tcp return".to_owned(),
        "ct state != new return".to_owned(),
        format!("{any} return"),
        format!("{other} return"),
        set_mark(Mark::Unwanted),
    ]
}

fn mark_forward(s: &Surroundings) -> Vec<String> {
    let Some(lan) = lan(s) else { return Vec::new() };
    let last = if s.wan_addresses.is_empty() {
        "counter name \"no_wan_address\" drop".to_owned()
    } else {
        set_mark(Mark::Forwarded)
    };
    let (from_lan, to_wan) = (format!("iifname != {lan} return"), format!("oifname != {} return", s.wan));
    let mut rules = match only_vpn(s) {
        None => vec![from_lan, to_wan],
        // The set of names is looked up last: most of what passes is no VPN's.
        Some(jump) => vec![to_wan, jump, from_lan],
    };
    rules.extend(["ct status snat,dnat return".to_owned(), last]);
    rules
}

/// What natd itself sends to the WAN is of a flow that conntrack knows in the LAN's view. A second entry, of the WAN
/// address, would outlive natd, and keep the NAT after it from giving that address to the flow: ESP has no other port.
fn untrack_final(s: &Surroundings) -> Vec<String> {
    vec![format!("oifname {} ip saddr @wan_addresses {} notrack", s.wan, marked(&[Mark::Final]))]
}

fn mark_output(s: &Surroundings) -> Vec<String> {
    // natd's own raw packets. The socket bit does not count: fwmark_reflect may bring it here.
    let mut rules = vec![format!("meta mark & {KIND_MASK:#010x} != 0 return")];
    rules.extend(only_vpn(s));
    // What the router says of a hairpinned packet quotes a device that the sender knows by another address. Such a
    // packet's flow is confirmed by the admission; the kernel drops errors about others rather than queue them.
    rules.extend(lan(s).map(|lan| {
        format!(
            "oifname {lan} ct status confirmed ip protocol icmp icmp type {{ 3, 11, 12 }} {}",
            set_mark(Mark::Hairpin)
        )
    }));
    rules.extend([
        format!("oifname != {} return", s.wan),
        "ct status snat,dnat return".to_owned(),
        // A DHCP client has no address yet; multicast and broadcast do not come back as a flow.
        "ip saddr 0.0.0.0 return".to_owned(),
        "ip daddr { 224.0.0.0/4, 255.255.255.255 } return".to_owned(),
        set_mark(Mark::Own),
    ]);
    rules
}

fn null_binding() -> Vec<String> {
    let ours = [Mark::Forwarded, Mark::Own, Mark::Hairpin, Mark::Final];
    vec![format!("{} snat to ct original ip saddr", marked(&ours))]
}

fn queue_postrouting(s: &Surroundings) -> Vec<String> {
    let mut rules = match s.scope {
        Scope::All => Vec::new(),
        Scope::Vpn => vec![format!("meta mark & {KIND_MASK:#010x} == 0 return")],
    };
    rules.push(queue_marked(&format!("oifname {} ", s.wan), &[Mark::Forwarded, Mark::Own], s));
    rules.extend(lan(s).map(|lan| queue_marked(&format!("oifname {lan} "), &[Mark::Hairpin], s)));
    rules
}

fn queue_marked(condition: &str, marks: &[Mark], s: &Surroundings) -> String {
    format!("{condition}{} {}", marked(marks), queue(s.queues))
}

fn marked(marks: &[Mark]) -> String {
    let values: Vec<String> = marks.iter().map(|mark| format!("{:#010x}", mark.bits())).collect();
    format!("meta mark & {KIND_MASK:#010x} == {{ {} }}", values.join(", "))
}

fn set_mark(mark: Mark) -> String {
    set_bits(mark.bits())
}

fn set_bits(bits: u32) -> String {
    format!("meta mark set meta mark & {UNMARK:#010x} | {bits:#010x}")
}

/// The rule that leaves only a VPN's packets to the rules behind it, where the scope wants that.
fn only_vpn(s: &Surroundings) -> Option<String> {
    (s.scope == Scope::Vpn).then(|| format!("jump {ONLY_VPN_CHAIN}"))
}

fn only_vpn_chain(s: &Surroundings) -> String {
    match s.scope {
        Scope::All => String::new(),
        Scope::Vpn => {
            let rules: String = ONLY_VPN.iter().map(|rule| format!("    {rule}\n")).collect();
            format!("  chain {ONLY_VPN_CHAIN} {{\n{rules}  }}\n")
        }
    }
}

fn queue(queues: Queues) -> String {
    let Queues { first, last } = queues;
    if first == last { format!("queue num {first}") } else { format!("queue num {first}-{last}") }
}

/// The WAN, then the LAN interfaces, each as one operand of `iifname`.
fn both_sides(s: &Surroundings) -> impl Iterator<Item = String> {
    std::iter::once(s.wan.to_string()).chain(lan(s))
}

/// The LAN interfaces as an anonymous set; `None` when there are none, since nft has no empty one.
fn lan(s: &Surroundings) -> Option<String> {
    let names = order::distinct(s.lan.iter().map(ToString::to_string));
    (!names.is_empty()).then(|| format!("{{ {} }}", names.join(", ")))
}

fn wan_addresses(s: &Surroundings) -> Vec<Ipv4Addr> {
    order::distinct(s.wan_addresses.iter().map(|address| address.addr))
}

fn address_set(name: &str, addresses: &[Ipv4Addr]) -> String {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("  set {name} {{\n    type ipv4_addr\n{}  }}\n", elements(&list))
}

fn prefix_set(name: &str, prefixes: &[(Ipv4Addr, u8)]) -> String {
    let list: Vec<String> =
        disjoint(prefixes).iter().map(|(network, length)| format!("{network}/{length}")).collect();
    format!("  set {name} {{\n    type ipv4_addr\n    flags interval\n{}  }}\n", elements(&list))
}

fn elements(list: &[String]) -> String {
    if list.is_empty() { String::new() } else { format!("    elements = {{ {} }}\n", list.join(", ")) }
}

/// The prefixes as networks, without those inside another one: an interval set refuses overlaps. A length above
/// 32 counts as 32.
fn disjoint(prefixes: &[(Ipv4Addr, u8)]) -> Vec<(Ipv4Addr, u8)> {
    let mut kept: Vec<(Ipv4Addr, u8)> = Vec::new();
    let networks = prefixes.iter().map(|&(addr, length)| (length.min(32), network(addr, length.min(32))));
    let widest_first: Vec<(u8, Ipv4Addr)> = order::distinct(networks);
    for (length, addr) in widest_first {
        if !kept.iter().any(|&(wide, wide_length)| network(addr, wide_length) == wide) {
            kept.push((addr, length));
        }
    }
    kept
}

fn network(addr: Ipv4Addr, length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    Ipv4Addr::from_bits(addr.to_bits() & mask)
}

fn chain(name: &str, kind: &str, rules: &[String]) -> String {
    let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
    format!("  chain {name} {{\n    type {kind}; policy accept;\n{rules}  }}\n")
}
