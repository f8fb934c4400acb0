//! What a finding means, for the person at home.

use passthrough::view::Vpn;

use crate::code::Code;

/// A code in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// What is wrong, in one sentence.
    pub says: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// The configuration key of natd that mends it.
    pub key: Option<&'static str>,
}

const fn other(says: &'static str, fix: &'static str) -> Words {
    Words { says, fix, key: None }
}

const fn ours(says: &'static str, fix: &'static str, key: &'static str) -> Words {
    Words { says, fix, key: Some(key) }
}

const HOTSPOT: &str = "Try the same device on a phone's hotspot. If the VPN works there, this line blocks it: ask the \
                       provider, or use a VPN over TCP port 443.";
const SERVER_IS_DOWN: &str =
    "Check that the address is right, and ask the owner of the VPN whether the server runs.";
const UPDATE: &str =
    "Update the VPN program, and ask the owner of the VPN which settings the server expects.";
const LOGIN: &str = "Type name and password again, and ask the owner of the VPN whether the account is open.";
const SERVER_OWNER: &str = "Ask the owner of the VPN server: its log names the reason.";
const RECONNECT: &str = "Disconnect the VPN and connect it again.";
const MULTI: &str = "Set multi = true. If it is, let one device use this server at a time, or switch the VPN to NAT-T, \
                     WireGuard or OpenVPN.";
const KEEPALIVE: &str =
    "Set the keepalive of the VPN program to 25 seconds (WireGuard: PersistentKeepalive = 25).";

/// The words for `code`.
pub const fn words(code: Code) -> Words {
    match code {
        Code::LocalFirewall => other(
            "The router's own firewall drops packets of the VPN after natd has let them through.",
            "Look for a rule that drops them: `nft list ruleset` or `iptables-save` on the router; `natd check` helps.",
        ),
        Code::EspPassOff => ours(
            "This router is set to refuse IPsec, and did.",
            "Set ipsec = true under [passthrough], and look at devices and servers under [ipsec]; then reload natd.",
            "passthrough.ipsec",
        ),
        Code::EspMisrouted => ours(
            "Encrypted packets came in that fit none of the connections that devices at home have with this server.",
            "Reconnect the VPN on each device that uses this server. If it comes back, let natd offer such packets to \
             more devices.",
            "ipsec.fan_out",
        ),
        Code::MultiClash => ours(
            "Two devices at home use the same VPN server in a way that makes the server's answers look alike.",
            MULTI,
            "passthrough.multi",
        ),
        Code::IkePortRewritten => other(
            "The server answers only to source port 500, and another device at home has that port.",
            "Disconnect the other device's VPN for a try. To use both, let the server's owner allow other source ports.",
        ),
        Code::Ike500NoReply => {
            other("The VPN's first messages (IKE, UDP port 500) go out, but nothing comes back.", HOTSPOT)
        }
        Code::Ike500IcmpPort => {
            other("The server says that no IPsec VPN runs on it: its UDP port 500 is closed.", SERVER_IS_DOWN)
        }
        Code::Ike500Admin => other(
            "A firewall on the way says that it forbids the VPN (IKE, UDP port 500).",
            "Ask whoever runs that network; `natd probe SERVER` finds what passes. A VPN over TCP port 443 often does.",
        ),
        Code::Ike4500NoReply => other(
            "The server answered, but after the switch to UDP port 4500 nothing comes back: that port is blocked.",
            HOTSPOT,
        ),
        Code::IkeAuthFragLost => other(
            "The login message is too big for one packet, and its pieces get lost on the way.",
            "Turn on IKE fragmentation (RFC 7383) on device and server; a smaller certificate or a pre-shared key \
             helps too.",
        ),
        Code::IkeReplyFragLost => other(
            "The server's answer is too big for one packet, and some of its pieces never arrive.",
            "Turn on IKE fragmentation (RFC 7383) on device and server, or use smaller certificates.",
        ),
        Code::IkeNoProposal => other(
            "The server answered and refused: it accepts none of the kinds of encryption that the device offers.",
            UPDATE,
        ),
        Code::IkeInvalidKe => other(
            "Device and server do not agree on a key exchange (Diffie-Hellman group), however often they try.",
            "Choose a group on the device that the server accepts, such as 14 or 19.",
        ),
        Code::IkeVersion => other(
            "Device and server speak different versions of IPsec's key exchange, IKEv1 and IKEv2.",
            "Choose the other version in the device's VPN settings: IKEv2, or IPsec/L2TP with IKEv1.",
        ),
        Code::IkeAuthRejected => other(
            "The server answered and refused the login: password, shared key or certificate do not fit.",
            "Type password and shared key again. With a certificate, check that it has not run out and that the device trusts its issuer.",
        ),
        Code::IkeAuthClock => other(
            "The login was refused, and a clock is wrong: certificates look not yet valid, or no longer.",
            "Set date and time on the device and on the router to automatic, and try again.",
        ),
        Code::NattNotNegotiated => ours(
            "Device and server did not switch to the form of IPsec that is made for routers (NAT-T, UDP port 4500).",
            "Turn on NAT traversal (NAT-T) on both. Without it the VPN works as long as IPsec may pass the router.",
            "passthrough.ipsec",
        ),
        Code::IpsecAh => other(
            "The VPN uses AH, which seals the device's address; a router must change it, so this can never work.",
            "Set the VPN to ESP with NAT-T instead of AH, on device and server.",
        ),
        Code::EspNoReturn => other(
            "Login worked, but the encrypted packets (ESP, which has no ports) get no answer.",
            "Turn on NAT-T (UDP encapsulation) on device or server, or use another kind of VPN. `natd probe SERVER` \
             shows where they get lost.",
        ),
        Code::EspOnewayIn => other(
            "The server sends to a device that sends nothing back: the device has forgotten this connection.",
            "Connect again on the device. If that does not help, restart it.",
        ),
        Code::PmtuBlackhole => other(
            "Small packets pass, big ones vanish without a word: pages hang or load halfway.",
            "Lower the MTU of the VPN on the device to 1300, and raise it again as far as it works.",
        ),
        Code::FragNeededSeen => other(
            "The network tells the device that its packets are too big, but it goes on to send them as big.",
            "Lower the MTU of the VPN on the device to 1300.",
        ),
        Code::RekeyShort => other(
            "The VPN changes its keys every few minutes, which interrupts it each time.",
            "Ask the owner of the VPN for a longer lifetime of keys: at least one hour, the same on both sides.",
        ),
        Code::RekeyCollision => other(
            "Device and server changed keys at the same moment and got in each other's way.",
            "Reconnect. If it comes back, ask the owner of the VPN to set different lifetimes on the two sides.",
        ),
        Code::RekeyFail => other(
            "The VPN breaks each time that its keys are to be changed.",
            "Compare the settings for the second phase on both sides: encryption, lifetime, PFS group.",
        ),
        Code::DpdDead => other(
            "The VPN was up, and then the server did not answer any more when the device asked whether it is there.",
            "See whether other pages still load. If they do, ask the owner of the VPN whether the server was restarted.",
        ),
        Code::ClientFakesNat => other(
            "The device says on purpose that it is behind a NAT, to get the form of IPsec that is made for routers.",
            "Nothing to do; Android and some others always do that.",
        ),
        Code::PeerReboot => {
            other("The server does not know the connection any more: it was probably restarted.", RECONNECT)
        }
        Code::NatIdleTimeout => ours(
            "The VPN was silent for so long that this router forgot it.",
            "Raise the time that silent connections are kept, or let the VPN program send a keepalive more often.",
            "timeout.udp",
        ),
        Code::NatKeepaliveMissing => other(
            "The device sends no sign of life while the VPN is silent, so routers on the way forget it.",
            KEEPALIVE,
        ),
        Code::NatUpstreamTimeout => other(
            "This router still knew the VPN, but after a short silence another router on the way had forgotten it.",
            KEEPALIVE,
        ),
        Code::WanAddrChanged => other(
            "Your internet address changed, and the VPN did not follow.",
            "Reconnect the VPN. IKEv2 with MOBIKE and WireGuard follow by themselves.",
        ),
        Code::WanLinkFlap => other(
            "The internet connection comes and goes, every few minutes.",
            "Check the cable to the modem, restart the modem, and tell the provider if it goes on.",
        ),
        Code::WanDown => other(
            "The router has no internet connection.",
            "Check cable and modem. `natd status` says what the router waits for.",
        ),
        Code::DoubleNat => other(
            "There is a second router between this one and the internet, which translates addresses once more.",
            "If a VPN does not work, set that router to bridge mode, or turn on its VPN passthrough.",
        ),
        Code::Cgnat => other(
            "The provider shares one internet address among many customers (CGNAT).",
            "VPNs in UDP or TCP work; PPTP and IPsec without NAT-T may not. The provider may give you an address of \
             your own.",
        ),
        Code::SharedIpv4Proto => other(
            "This line shares an IPv4 address (MAP-E, DS-Lite): it carries only TCP, UDP and ping, but not ESP or GRE.",
            "Use IPsec with NAT-T, WireGuard or OpenVPN, or IPv6 to the server; or ask the provider for plain IPv4.",
        ),
        Code::SharedIpv4Port => other(
            "This line shares an IPv4 address, and ports 500 and 4500 belong to somebody else.",
            "Most servers do not mind. If one answers only to port 500, turn on NAT-T on the device.",
        ),
        Code::NatTableFull => ours(
            "The router had no room left for new connections.",
            "See with `natd status` who has so many, and restart that device; or raise the limit.",
            "nat.max_sessions",
        ),
        Code::DnsFail => other(
            "The server's name was not found, so the device did not even try to reach it.",
            "Check the spelling of the name. If other names are not found either, set another DNS server, such as 9.9.9.9.",
        ),
        Code::DnsLies => other(
            "The server's name leads to an address that cannot be right, such as that of a login page.",
            "Open a web page first, in case this network wants a login; or set another DNS server, such as 9.9.9.9.",
        ),
        Code::ClockWrong => other(
            "The router's clock is wrong by minutes or more; certificates then look invalid.",
            "Turn on automatic time (NTP) on the router and on the device.",
        ),
        Code::CaptivePortal => other(
            "This network wants a login on a web page before it lets anything through.",
            "Open any page that starts with http:// in a browser, log in there, and connect the VPN then.",
        ),
        Code::Only443 => other(
            "This network lets only web traffic out; no kind of VPN gets an answer, while web pages do.",
            "Use a VPN over TCP port 443: SSTP, OpenVPN over TCP, or a TLS VPN.",
        ),
        Code::FragmentsDropped => other(
            "The line drops packets that were cut into pieces.",
            "Turn on IKE fragmentation (RFC 7383) in IPsec VPNs, and lower the MTU of other VPNs to 1300.",
        ),
        Code::MtuWanWrong => other(
            "The router believes that bigger packets fit through the line than do (its MTU is too large).",
            "Set the MTU of the WAN interface to the measured value; for PPPoE it is 1492 as a rule.",
        ),
        Code::DpiRst => {
            other("Something on the way cut the connection and pretended to be the server.", HOTSPOT)
        }
        Code::DpiUdpBlackhole => other(
            "The VPN was answered, and moments later all its packets vanished: something on the way recognised it.",
            "Use a VPN that looks like web traffic, over TCP port 443, or try another network.",
        ),
        Code::ServerDown => other(
            "The server says, or its network does, that nothing there takes the VPN's packets.",
            SERVER_IS_DOWN,
        ),
        Code::ServerPath => other(
            "A router on the way says that it knows no way to the server.",
            "Wait some minutes and try again; if other pages load, tell the provider the server's address.",
        ),
        Code::TrafficSplit => other(
            "The VPN is up, and part of the device's traffic goes around it.",
            "If all of it is meant to go through the VPN, turn split tunnelling off in the VPN program.",
        ),
        Code::PptpNoReply => other(
            "The server does not answer at all on PPTP's port (TCP 1723).",
            "Check the server's address. Try a phone's hotspot: if it works there, this line blocks PPTP.",
        ),
        Code::PptpRefused => other(
            "The server is there, but no PPTP VPN runs on it (TCP port 1723 is closed).",
            SERVER_IS_DOWN,
        ),
        Code::PptpNoSccrp => other(
            "The server takes the connection on TCP port 1723 but does not speak PPTP, or is stuck.",
            "Check the server's address, and ask the owner of the VPN to restart its PPTP service.",
        ),
        Code::PptpControlRefused => {
            other("The server answered and refused the PPTP connection.", SERVER_OWNER)
        }
        Code::PptpCallRefused => other(
            "The server let the device in and then refused its call, as when all its lines are busy.",
            "Wait a minute and try again. If it stays so, ask the owner of the VPN whether it is full.",
        ),
        Code::PptpGrePassOff => ours(
            "This router is set to refuse PPTP, and did.",
            "Set pptp = true under [passthrough], and reload natd. A newer VPN is better: PPTP's encryption is broken.",
            "passthrough.pptp",
        ),
        Code::PptpGreBlocked => other(
            "PPTP's control connection works, but its data packets (GRE, which has no ports) get no answer.",
            "Ask the provider whether it blocks GRE, IP protocol 47; a router in front needs PPTP passthrough. Better: \
             another kind of VPN.",
        ),
        Code::PptpGreNoOut => other(
            "PPTP was agreed on, but the device sends no data packets (GRE).",
            "Look at the firewall of the device: GRE, IP protocol 47, must be allowed to go out.",
        ),
        Code::PptpGreInOnly => other(
            "The server's data packets (GRE) arrive, but the device answers none of them.",
            "Look at the firewall of the device: GRE, IP protocol 47, must be allowed to come in.",
        ),
        Code::PptpGreMisrouted => ours(
            "PPTP data packets came in that fit no call of any device at home.",
            "Disconnect PPTP on all devices and connect again, so that natd sees each call from its start.",
            "passthrough.pptp",
        ),
        Code::PptpCallIdClash => ours(
            "Two devices at home use the same number (Call ID) with the same PPTP server, and nobody changes it.",
            "Turn natd's PPTP on, which keeps them apart; or let one device use this server at a time.",
            "passthrough.pptp",
        ),
        Code::PptpAuthFail => other("The server answered and refused name or password.", LOGIN),
        Code::PptpMppeFail => other(
            "Login worked, but device and server do not agree on encryption (MPPE).",
            "In the VPN's settings choose MS-CHAP v2 and \"require encryption\", as the server does.",
        ),
        Code::PptpIdleKilled => ours(
            "PPTP's control connection was silent for so long that it was forgotten, and the VPN ended with it.",
            "Raise the time that open connections are kept, and turn on echo requests in the VPN program.",
            "timeout.tcp_established",
        ),
        Code::PptpOnePerIp => other(
            "The server takes only one PPTP connection from your internet address, and another device has it.",
            "Disconnect the other device, or ask the owner of the VPN to allow several.",
        ),
        Code::GreV0Multi => other(
            "Two devices at home have a plain GRE tunnel to the same server, and nothing tells them apart.",
            "Give each tunnel a key of its own, on both ends; or use one device only.",
        ),
        Code::L2tpPassOff => ours(
            "This router is set to refuse L2TP, and did.",
            "Set l2tp = true under [passthrough], and look at devices and servers under [l2tp]; then reload natd.",
            "passthrough.l2tp",
        ),
        Code::L2tpNoReply => other(
            "The L2TP server (UDP port 1701) does not answer.",
            "Most servers want L2TP within IPsec: choose L2TP/IPsec on the device, with the shared key. Otherwise check \
             the address.",
        ),
        Code::L2tpPlainRefused => other(
            "The server refuses this L2TP tunnel: it wants encryption (IPsec), or another secret.",
            "Choose L2TP/IPsec on the device, or check the tunnel's secret; what was seen says which.",
        ),
        Code::L2tpSourcePort => other(
            "The server answers only to source port 1701, and another device at home has that port.",
            "Disconnect the other device's L2TP for a try; or use L2TP/IPsec.",
        ),
        Code::L2tpTunnelClash => ours(
            "Two devices at home use the same number (tunnel ID) with the same L2TP server.",
            MULTI,
            "passthrough.multi",
        ),
        Code::L2tpHiddenId => other(
            "The device hides its tunnel number, so the router cannot tell it from another device's.",
            "Turn off hidden AVPs (the L2TP secret) on the device, or let one device use this server at a time.",
        ),
        Code::L2tpHelloLost => other(
            "The L2TP tunnel was up, and then the server did not answer any more.",
            "See whether other pages still load; then reconnect.",
        ),
        Code::L2tpIpsecNoPpp => {
            other("The encrypted part is up, but the login within it does not come to an end.", LOGIN)
        }
        Code::L2tpServerBehindNat => other(
            "The server is behind a router itself, and Windows refuses such L2TP/IPsec servers unless told otherwise.",
            "On Windows set AssumeUDPEncapsulationContextOnSendRule to 2 under HKLM\\SYSTEM\\CurrentControlSet\\Services\\\
             PolicyAgent, and restart.",
        ),
        Code::L2tpIpsecMultiServer => other(
            "When a second device at home connects to this L2TP/IPsec server, the server mixes the two up.",
            "The router is right. Use another kind of VPN (IKEv2, WireGuard), or one device at a time.",
        ),
        Code::WgNoReply => other(
            "WireGuard knocks and nobody answers: a wrong key, a wrong address, or a blocked port look the same.",
            "Compare the keys and the endpoint (address and port) on both sides; then try a phone's hotspot.",
        ),
        Code::WgLoop => other(
            "The WireGuard server answers, but the device asks again and again as if it did not hear.",
            "Check the device's clock and firewall, and that no second device uses the same key.",
        ),
        Code::WgStale => other(
            "WireGuard worked, and then nothing came back any more.",
            "Turn the tunnel off and on. If it comes back after silence, set PersistentKeepalive = 25.",
        ),
        Code::WgNoKeepalive => ours(
            "WireGuard sends nothing while it is silent, so after a while nobody can reach the device any more.",
            "Set PersistentKeepalive = 25 on the device, or raise the time that silent connections are kept.",
            "timeout.udp",
        ),
        Code::OvpnNoReply => other(
            "OpenVPN's first message gets no answer: wrong address, port or key (tls-auth), or a blocked port.",
            "Compare the configuration with the owner's, try proto tcp or port 443, then a phone's hotspot.",
        ),
        Code::OvpnTlsStall => other(
            "The OpenVPN server answers, but the exchange of certificates does not come to an end.",
            "Check certificates and clock; if big packets get lost, set mssfix 1300 or use proto tcp.",
        ),
        Code::OvpnUdpBlocked => other(
            "OpenVPN gets no answer over UDP, but does over TCP: this network blocks it in UDP.",
            "Write proto tcp in the device's OpenVPN configuration, with the server's TCP port.",
        ),
        Code::TlsVpnRst => {
            other("The connection was cut as soon as the device said which server it wants.", HOTSPOT)
        }
        Code::TlsVpnSilent => other(
            "The server takes the connection, but there is no answer to the first message (TLS).",
            HOTSPOT,
        ),
        Code::DtlsFallback => other(
            "The VPN works over TCP because its faster way over UDP is blocked.",
            "Works, only slower. Ask whoever runs this network to let the VPN's UDP port out.",
        ),
    }
}

/// The configuration key of natd that mends `code` in a VPN of kind `vpn`: silence is timed by protocol.
pub const fn key(code: Code, vpn: Option<Vpn>) -> Option<&'static str> {
    match (code, vpn) {
        (Code::NatIdleTimeout, Some(Vpn::Esp)) => Some("timeout.esp"),
        (Code::NatIdleTimeout, Some(Vpn::Gre | Vpn::L2tpV3)) => Some("timeout.gre"),
        (Code::NatIdleTimeout, Some(Vpn::Pptp)) => Some("timeout.tcp_established"),
        (code, _) => words(code).key,
    }
}

/// The error numbers that Windows may show for `code`.
pub const fn windows(code: Code) -> &'static [u16] {
    match code {
        Code::Ike500NoReply | Code::Ike4500NoReply | Code::IkeAuthFragLost | Code::IkeReplyFragLost => &[809],
        Code::Ike500IcmpPort | Code::Ike500Admin | Code::Only443 => &[800, 809],
        Code::IkeNoProposal => &[789, 13868],
        Code::IkeInvalidKe | Code::IkeVersion => &[789, 13868],
        Code::IkeAuthRejected => &[691, 789, 811, 13801, 13806],
        Code::IkeAuthClock => &[810, 13801, 13806],
        Code::RekeyFail | Code::DpdDead => &[829],
        Code::DnsFail => &[868],
        Code::ServerDown | Code::ServerPath => &[800],
        Code::PptpNoReply => &[800],
        Code::PptpRefused => &[800, 808],
        Code::PptpControlRefused | Code::PptpCallRefused => &[619],
        Code::PptpGrePassOff | Code::PptpGreBlocked => &[619, 721, 806],
        Code::PptpGreNoOut | Code::PptpGreInOnly | Code::PptpGreMisrouted | Code::PptpCallIdClash => {
            &[721, 806]
        }
        Code::PptpAuthFail => &[691, 734],
        Code::PptpMppeFail => &[741, 742],
        Code::PptpOnePerIp => &[619, 800],
        Code::L2tpNoReply => &[809],
        Code::L2tpIpsecNoPpp => &[628, 691, 718, 720],
        Code::L2tpServerBehindNat => &[789, 809],
        Code::LocalFirewall
        | Code::EspPassOff
        | Code::EspMisrouted
        | Code::MultiClash
        | Code::IkePortRewritten
        | Code::NattNotNegotiated
        | Code::IpsecAh
        | Code::EspNoReturn
        | Code::EspOnewayIn
        | Code::PmtuBlackhole
        | Code::FragNeededSeen
        | Code::RekeyShort
        | Code::RekeyCollision
        | Code::ClientFakesNat
        | Code::PeerReboot
        | Code::NatIdleTimeout
        | Code::NatKeepaliveMissing
        | Code::NatUpstreamTimeout
        | Code::WanAddrChanged
        | Code::WanLinkFlap
        | Code::WanDown
        | Code::DoubleNat
        | Code::Cgnat
        | Code::SharedIpv4Proto
        | Code::SharedIpv4Port
        | Code::NatTableFull
        | Code::DnsLies
        | Code::ClockWrong
        | Code::CaptivePortal
        | Code::FragmentsDropped
        | Code::MtuWanWrong
        | Code::DpiRst
        | Code::DpiUdpBlackhole
        | Code::TrafficSplit
        | Code::PptpNoSccrp
        | Code::PptpIdleKilled
        | Code::GreV0Multi
        | Code::L2tpPassOff
        | Code::L2tpPlainRefused
        | Code::L2tpSourcePort
        | Code::L2tpTunnelClash
        | Code::L2tpHiddenId
        | Code::L2tpHelloLost
        | Code::L2tpIpsecMultiServer
        | Code::WgNoReply
        | Code::WgLoop
        | Code::WgStale
        | Code::WgNoKeepalive
        | Code::OvpnNoReply
        | Code::OvpnTlsStall
        | Code::OvpnUdpBlocked
        | Code::TlsVpnRst
        | Code::TlsVpnSilent
        | Code::DtlsFallback => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_said_in_one_short_sentence_and_mended_in_a_few() {
        for code in Code::ALL {
            let Words { says, fix, .. } = words(*code);
            for text in [says, fix] {
                let length = text.chars().count();
                assert!((15..=200).contains(&length), "{}: {length}: {text}", code.name());
                assert!(text.ends_with('.') && !text.contains("  "), "{}: {text}", code.name());
                assert!(text.starts_with(char::is_uppercase), "{}: {text}", code.name());
            }
            assert!(!says.trim_end_matches('.').contains(". "), "{}: {says}", code.name());
        }
    }

    #[test]
    fn no_two_codes_say_the_same() {
        let mut all: Vec<&str> = Code::ALL.iter().map(|code| words(*code).says).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), Code::ALL.len());
    }

    #[test]
    fn what_only_the_router_can_mend_names_a_setting_of_it() {
        let off = [Code::EspPassOff, Code::PptpGrePassOff, Code::L2tpPassOff];
        let keys = off.map(|code| words(code).key);
        assert_eq!(keys, [Some("passthrough.ipsec"), Some("passthrough.pptp"), Some("passthrough.l2tp")]);
    }

    #[test]
    fn windows_numbers_are_those_of_its_vpns_in_order() {
        for code in Code::ALL {
            let numbers = windows(*code);
            assert!(numbers.is_sorted_by(|a, b| a < b), "{}", code.name());
            assert!(numbers.iter().all(|n| (600..900).contains(n) || (13_801..=13_868).contains(n)));
        }
    }
}
