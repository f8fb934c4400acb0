//! What can be told of the internet line without sending anything: its address, its kind and its MTU.

use std::net::Ipv4Addr;

use super::{Expected, Finding, Level, Seen, proc};

/// `ARPHRD_PPP` of linux/if_arp.h.
const PPP: u16 = 512;
/// `ARPHRD_TUNNEL6`: IPv4 (or IPv6) within IPv6.
const TUNNEL6: u16 = 769;
/// 1,500 bytes less the IPv6 header that MAP-E and DS-Lite add.
const WITHIN_IPV6: u32 = 1460;
/// What PPPoE adds (RFC 2516 section 7).
const PPPOE: u32 = 8;
/// Every host takes that much (RFC 791).
const LEAST: u32 = 576;
/// What Ethernet carries, and so the internet.
const MOST: u32 = 1500;

/// What a WAN interface is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Its hardware type, `ARPHRD_*` of linux/if_arp.h.
    pub kind: Option<u16>,
    /// Its largest packet, in bytes.
    pub mtu: Option<u32>,
    /// For PPPoE: the interface that carries it, and that one's MTU.
    pub below: Option<(String, u32)>,
}

/// The interface that carries PPPoE, from `/proc/net/pppoe`; `None` if it is not the only one.
pub fn pppoe_device(text: &str) -> Option<&str> {
    let mut devices = proc::third_words(text).skip(1);
    let device = devices.next()?;
    devices.all(|other| other == device).then_some(device)
}

/// Is it a PPP interface?
pub fn is_ppp(kind: Option<u16>) -> bool {
    kind == Some(PPP)
}

/// What its owner should know of the line.
pub(super) fn findings(expected: &Expected<'_>, seen: &Seen) -> Vec<Finding> {
    let wan = expected.wan.as_str();
    [address(wan, seen), shared(wan, seen), mtu(wan, &seen.line)].into_iter().flatten().collect()
}

/// A WAN address that the internet does not know: another NAT is in front.
fn address(wan: &str, seen: &Seen) -> Option<Finding> {
    let address = seen.wan_addresses.first()?.addr;
    let cgnat = within(address, Ipv4Addr::new(100, 64, 0, 0), 10); // RFC 6598
    if cgnat {
        return Some(Finding::warning(
            "cgnat",
            format!(
                "{wan} has the address {address}: the provider shares its internet address among customers (CGNAT)"
            ),
            "ask the provider for a public IPv4 address if somebody has to reach your devices from outside, or if \
             PPTP or IPsec without NAT-T fails",
        ));
    }
    address.is_private().then(|| {
        Finding::warning(
            "double-nat",
            format!("{wan} has the private address {address}: a router in front translates once more"),
            "set that router to bridge mode, or forward its ports (or its \"DMZ host\") to this one and turn its VPN \
             passthrough on",
        )
    })
}

/// IPv4 within IPv6, with an address that is shared by port numbers: what has no ports does not pass.
fn shared(wan: &str, seen: &Seen) -> Option<Finding> {
    const FIX: &str = "use IPsec with NAT-T, WireGuard, OpenVPN or IPv6; or ask the provider for IPv4 of its own, such as by PPPoE";
    let b4 = |addr| within(addr, Ipv4Addr::new(192, 0, 0, 0), 29); // RFC 6333 section 5.7
    if seen.line.kind == Some(TUNNEL6) || seen.wan_addresses.iter().any(|address| b4(address.addr)) {
        let text = format!(
            "{wan} carries IPv4 within IPv6, as DS-Lite and MAP-E do: on such lines ESP and GRE (bare IPsec, PPTP) get \
             no answer"
        );
        return Some(Finding::warning("shared-ipv4", text, FIX));
    }
    (seen.line.mtu == Some(WITHIN_IPV6)).then(|| Finding {
        code: "shared-ipv4",
        level: Level::Note,
        text: format!(
            "{wan} has an MTU of {WITHIN_IPV6}, as behind DS-Lite and MAP-E: if IPv4 is shared there, ESP and GRE get no \
             answer"
        ),
        fix: Some(FIX.to_owned()),
    })
}

/// An MTU that cannot be right.
fn mtu(wan: &str, line: &Line) -> Option<Finding> {
    let mtu = line.mtu?;
    if let Some((device, below)) = &line.below {
        let room = below.saturating_sub(PPPOE);
        if mtu > room {
            return Some(Finding::warning(
                "wan-mtu",
                format!(
                    "{wan} has an MTU of {mtu}, but PPPoE over {device} leaves room for {room}: large packets vanish"
                ),
                format!("set the MTU of {wan} to {room}"),
            ));
        }
    }
    let (text, fix) = match mtu {
        0..LEAST => ("is less than every host takes: little will work", "set it to 1500, or 1492 for PPPoE"),
        LEAST..=MOST => return Some(Finding::ok("wan-mtu", format!("{wan} has an MTU of {mtu}"))),
        _ => (
            "is more than the internet carries: large packets may vanish",
            "set it to 1500, or 1492 for PPPoE",
        ),
    };
    Some(Finding::warning("wan-mtu", format!("{wan} has an MTU of {mtu}, which {text}"), fix))
}

fn within(address: Ipv4Addr, network: Ipv4Addr, length: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
}
