//! The codes of everything that can be found: stable names, shown to people and programs.

use crate::router::Vantage;

/// Who can be to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// This router.
    Router,
    /// The line, the provider, or another network on the way.
    Line,
    /// The VPN server.
    Server,
    /// The device at home.
    Device,
    /// Who typed the password.
    User,
}

impl Party {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Line => "line",
            Self::Server => "server",
            Self::Device => "device",
            Self::User => "user",
        }
    }
}

/// What kind of cause a code names; the first kind that is found hides the later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The router itself keeps it out.
    Local,
    /// The line as a whole.
    Line,
    /// Somebody said no.
    Refusal,
    /// Nobody answers.
    Silence,
    /// It works, and then no more.
    Dies,
    /// It works badly.
    Performance,
    /// Worth knowing; no problem by itself.
    Note,
}

/// From where a code can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// From anywhere.
    Anywhere,
    /// Only from the LAN: the devices' own addresses are needed.
    Lan,
    /// Only from the WAN.
    Wan,
    /// Only where both sides of the router are seen.
    Both,
    /// Only by the router that runs natd.
    Router,
    /// Only where the devices' DNS is seen.
    Dns,
    /// Only by `natd probe` or `natd check`, which ask.
    Asking,
    /// From nowhere yet: the name is kept for it.
    Nowhere,
}

macro_rules! codes {
    ($($variant:ident $name:literal $group:ident $sight:ident [$($owner:ident)*],)*) => {
        /// What can be found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $name] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Which kind of cause it is.
            pub const fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group,)* }
            }

            /// Who is to blame as a rule, the likeliest first.
            pub const fn owner(self) -> &'static [Party] {
                match self { $(Self::$variant => &[$(Party::$owner),*],)* }
            }

            /// From where it can be seen.
            pub const fn sight(self) -> Sight {
                match self { $(Self::$variant => Sight::$sight,)* }
            }
        }
    };
}

codes! {
    // The router and its surroundings.
    LocalFirewall "LOCAL-FIREWALL" Local Both [Router],
    // IPsec.
    EspPassOff "IPSEC-ESP-PASS-OFF" Local Router [Router],
    EspMisrouted "IPSEC-ESP-MISROUTED" Local Wan [Router],
    MultiClash "IPSEC-MULTI-CLASH" Local Lan [Router],
    IkePortRewritten "IPSEC-IKE-PORT-REWRITTEN" Silence Both [Router],
    Ike500NoReply "IKE-500-NO-REPLY" Silence Anywhere [Line Server],
    Ike500IcmpPort "IKE-500-ICMP-PORT" Refusal Anywhere [Server],
    Ike500Admin "IKE-500-ADMIN" Refusal Anywhere [Line],
    Ike4500NoReply "IKE-4500-NO-REPLY" Silence Anywhere [Line],
    IkeAuthFragLost "IKE-AUTH-FRAG-LOST" Silence Anywhere [Line Device],
    IkeReplyFragLost "IKE-REPLY-FRAG-LOST" Silence Wan [Line Router],
    IkeNoProposal "IKE-NO-PROPOSAL" Refusal Anywhere [Server Device],
    IkeInvalidKe "IKE-INVALID-KE" Refusal Anywhere [Server Device],
    IkeVersion "IKE-VERSION" Refusal Anywhere [Server Device],
    IkeAuthRejected "IKE-AUTH-REJECTED" Refusal Anywhere [User Server],
    IkeAuthClock "IKE-AUTH-CLOCK" Refusal Router [Device],
    NattNotNegotiated "IPSEC-NATT-NOT-NEGOTIATED" Note Anywhere [Device Server],
    IpsecAh "IPSEC-AH" Refusal Anywhere [Device Server],
    EspNoReturn "IPSEC-ESP-NO-RETURN" Silence Anywhere [Line Server],
    EspOnewayIn "IPSEC-ESP-ONEWAY-IN" Dies Anywhere [Device],
    PmtuBlackhole "IPSEC-PMTU-BLACKHOLE" Performance Anywhere [Line],
    FragNeededSeen "IPSEC-ICMP-FRAG-NEEDED-SEEN" Performance Anywhere [Device],
    RekeyShort "IPSEC-REKEY-SHORT" Dies Anywhere [Server Device],
    RekeyCollision "IPSEC-REKEY-COLLISION" Dies Anywhere [Server Device],
    RekeyFail "IPSEC-REKEY-FAIL" Dies Anywhere [Server Device],
    DpdDead "IPSEC-DPD-DEAD" Dies Anywhere [Line Server],
    ClientFakesNat "IPSEC-CLIENT-FAKES-NAT" Note Lan [],
    PeerReboot "IPSEC-PEER-REBOOT" Dies Anywhere [Server],
    // NAT and the line.
    NatIdleTimeout "NAT-IDLE-TIMEOUT" Dies Both [Router],
    NatKeepaliveMissing "NAT-KEEPALIVE-MISSING" Dies Anywhere [Device],
    NatUpstreamTimeout "NAT-UPSTREAM-TIMEOUT" Dies Both [Line],
    WanAddrChanged "WAN-ADDR-CHANGED" Line Router [Line],
    WanLinkFlap "WAN-LINK-FLAP" Line Router [Line],
    WanDown "WAN-DOWN" Line Router [Line],
    DoubleNat "DOUBLE-NAT" Note Wan [Line],
    Cgnat "CGNAT" Note Wan [Line],
    SharedIpv4Proto "SHARED-IPV4-PROTO" Line Router [Line],
    SharedIpv4Port "SHARED-IPV4-PORT" Note Nowhere [Line],
    NatTableFull "NAT-TABLE-FULL" Local Router [Router Line],
    DnsFail "DNS-FAIL" Line Dns [Line User],
    DnsLies "DNS-LIES" Line Dns [Line],
    ClockWrong "CLOCK-WRONG" Line Router [Device],
    CaptivePortal "CAPTIVE-PORTAL" Line Nowhere [Line],
    Only443 "ONLY-443" Line Anywhere [Line],
    FragmentsDropped "FRAGMENTS-DROPPED" Line Asking [Line],
    MtuWanWrong "MTU-WAN-WRONG" Line Asking [Router],
    DpiRst "DPI-RST" Refusal Anywhere [Line],
    DpiUdpBlackhole "DPI-UDP-BLACKHOLE" Dies Anywhere [Line],
    ServerDown "SERVER-DOWN" Refusal Anywhere [Server],
    ServerPath "SERVER-PATH" Refusal Anywhere [Line],
    TrafficSplit "TRAFFIC-SPLIT" Note Nowhere [],
    // PPTP and GRE.
    PptpNoReply "PPTP-1723-NO-REPLY" Silence Anywhere [Line Server],
    PptpRefused "PPTP-1723-REFUSED" Refusal Anywhere [Server],
    PptpNoSccrp "PPTP-CONTROL-NO-SCCRP" Silence Anywhere [Server],
    PptpControlRefused "PPTP-CONTROL-REFUSED" Refusal Anywhere [Server],
    PptpCallRefused "PPTP-CALL-REFUSED" Refusal Anywhere [Server],
    PptpGrePassOff "PPTP-GRE-PASS-OFF" Local Router [Router],
    PptpGreBlocked "PPTP-GRE-BLOCKED-OUT-OR-IN" Silence Anywhere [Line Server],
    PptpGreNoOut "PPTP-GRE-NO-OUT" Dies Anywhere [Device],
    PptpGreInOnly "PPTP-GRE-IN-ONLY" Dies Anywhere [Device],
    PptpGreMisrouted "PPTP-GRE-MISROUTED" Local Wan [Router],
    PptpCallIdClash "PPTP-CALLID-CLASH" Local Lan [Router],
    PptpAuthFail "PPTP-AUTH-FAIL" Refusal Anywhere [User],
    PptpMppeFail "PPTP-MPPE-FAIL" Refusal Anywhere [Server Device],
    PptpIdleKilled "PPTP-CONTROL-IDLE-KILLED" Dies Anywhere [Router],
    PptpOnePerIp "PPTP-ONE-PER-IP" Refusal Anywhere [Server],
    GreV0Multi "GRE-V0-MULTI" Local Lan [Router],
    // L2TP.
    L2tpPassOff "L2TP-PASS-OFF" Local Router [Router],
    L2tpNoReply "L2TP-1701-NO-REPLY" Silence Anywhere [Line Server],
    L2tpPlainRefused "L2TP-PLAIN-REFUSED" Refusal Anywhere [Server],
    L2tpSourcePort "L2TP-SOURCE-PORT" Silence Both [Router],
    L2tpTunnelClash "L2TP-TUNNEL-CLASH" Local Lan [Router],
    L2tpHiddenId "L2TP-HIDDEN-ID" Refusal Lan [Device Server],
    L2tpHelloLost "L2TP-HELLO-LOST" Dies Anywhere [Line],
    L2tpIpsecNoPpp "L2TP-IPSEC-ESP-OK-NO-PPP" Silence Anywhere [User Server],
    L2tpServerBehindNat "L2TP-IPSEC-SERVER-BEHIND-NAT" Silence Anywhere [Device],
    L2tpIpsecMultiServer "L2TP-IPSEC-MULTI-SERVER" Dies Lan [Server],
    // WireGuard, OpenVPN, TLS.
    WgNoReply "WG-HANDSHAKE-NO-REPLY" Silence Anywhere [Server Line User],
    WgLoop "WG-HANDSHAKE-LOOP" Dies Anywhere [Device],
    WgStale "WG-STALE" Dies Anywhere [Line],
    WgNoKeepalive "WG-NO-KEEPALIVE" Dies Anywhere [Device],
    OvpnNoReply "OVPN-RESET-NO-REPLY" Silence Anywhere [Server Line],
    OvpnTlsStall "OVPN-TLS-STALL" Silence Anywhere [Line User],
    OvpnUdpBlocked "OVPN-UDP-BLOCKED-TCP-OK" Silence Anywhere [Line],
    TlsVpnRst "TLSVPN-RST" Refusal Anywhere [Line],
    TlsVpnSilent "TLSVPN-SILENT" Silence Anywhere [Line],
    DtlsFallback "DTLS-FALLBACK" Note Anywhere [Line],
}

impl Sight {
    /// Can it be seen from there?
    pub const fn within(self, vantage: &Vantage) -> bool {
        match self {
            Self::Anywhere => vantage.lan || vantage.wan,
            Self::Lan => vantage.lan,
            Self::Wan => vantage.wan,
            Self::Both => vantage.lan && vantage.wan,
            Self::Router => vantage.router,
            Self::Dns => vantage.dns,
            Self::Asking | Self::Nowhere => false,
        }
    }

    /// What is missing where it cannot be seen.
    pub const fn wants(self) -> &'static str {
        match self {
            Self::Anywhere => "packets of the VPN",
            Self::Lan => "packets seen on the LAN side",
            Self::Wan => "packets seen on the WAN side",
            Self::Both => "packets seen on both sides of the router",
            Self::Router => "natd running on the router",
            Self::Dns => "the devices' DNS answers",
            Self::Asking => "`natd probe` or `natd check`, which send packets of their own",
            Self::Nowhere => "what natd does not look at: web pages, other traffic, a provider's port sets",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_capitals() {
        let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
        assert!(names.iter().all(|name| name.chars().all(allowed)));
    }
}
