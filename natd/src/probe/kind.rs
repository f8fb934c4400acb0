//! What is found out.

/// Something that is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ICMP echo.
    Ping,
    /// IKE to UDP 500.
    Ike500,
    /// IKE to UDP 4500.
    Ike4500,
    /// IKE in one packet of [`LARGE`] bytes.
    IkeLarge,
    /// IKE in a packet of [`FRAGMENTED`] bytes.
    IkeFragmented,
    /// ESP.
    Esp,
    /// GRE.
    Gre,
    /// PPTP's control connection.
    Pptp,
    /// LCP in PPTP's GRE.
    PptpGre,
    /// L2TP.
    L2tp,
    /// OpenVPN over UDP.
    OpenVpn,
    /// WireGuard.
    WireGuard,
    /// TLS.
    Tls,
    /// The path's MTU.
    Mtu,
}

impl Kind {
    /// All of them, as they are shown.
    pub const ALL: [Self; 14] = [
        Self::Ping,
        Self::Ike500,
        Self::Ike4500,
        Self::IkeLarge,
        Self::IkeFragmented,
        Self::Esp,
        Self::Gre,
        Self::Pptp,
        Self::PptpGre,
        Self::L2tp,
        Self::OpenVpn,
        Self::WireGuard,
        Self::Tls,
        Self::Mtu,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Ike500 => "IKE, UDP 500",
            Self::Ike4500 => "IKE, UDP 4500",
            Self::IkeLarge => "IKE, 1,400 bytes",
            Self::IkeFragmented => "IKE, 1,600 bytes in fragments",
            Self::Esp => "ESP, protocol 50",
            Self::Gre => "GRE, protocol 47",
            Self::Pptp => "PPTP control, TCP 1723",
            Self::PptpGre => "PPTP data, GRE",
            Self::L2tp => "L2TP, UDP 1701",
            Self::OpenVpn => "OpenVPN, UDP 1194",
            Self::WireGuard => "WireGuard",
            Self::Tls => "TLS, TCP 443",
            Self::Mtu => "path MTU",
        }
    }

    /// For programs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Ike500 => "ike-500",
            Self::Ike4500 => "ike-4500",
            Self::IkeLarge => "ike-large",
            Self::IkeFragmented => "ike-fragmented",
            Self::Esp => "esp",
            Self::Gre => "gre",
            Self::Pptp => "pptp",
            Self::PptpGre => "pptp-gre",
            Self::L2tp => "l2tp",
            Self::OpenVpn => "openvpn",
            Self::WireGuard => "wireguard",
            Self::Tls => "tls",
            Self::Mtu => "mtu",
        }
    }
}

/// Size of the large IKE packet with its IP header, in bytes.
pub const LARGE: usize = 1400;

/// Size of the IKE packet in fragments with its IP header, in bytes.
pub const FRAGMENTED: usize = 1600;
