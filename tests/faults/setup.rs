//! What the programs of a run are set to; the default is what works.

use testkit::vpn::strongswan;
use testkit::vpn::{l2tp, openvpn, pptp, vpnc, wireguard};

use crate::seed::Seed;

/// The name of the server.
pub(crate) const NAME: &str = "vpn.example.com";

/// The program that a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// strongSwan to strongSwan: IKEv2, ESP in UDP.
    Ike,
    /// vpnc to strongSwan: IKEv1, bare ESP.
    Vpnc,
    /// pptp to pptpd.
    Pptp,
    /// xl2tpd to xl2tpd, without IPsec.
    L2tp,
    /// OpenVPN.
    OpenVpn,
    /// wireguard-go.
    WireGuard,
    /// A TLS connection to port 443 of the server, as TLS VPNs begin.
    Tls,
    /// No program: the case sends packets by itself.
    None,
}

impl Program {
    /// What it needs beyond a lab's own programs.
    pub(crate) fn programs(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Ike => strongswan::PROGRAMS.to_vec(),
            Self::Vpnc => [&strongswan::PROGRAMS[..], &vpnc::PROGRAMS].concat(),
            Self::Pptp => pptp::PROGRAMS.to_vec(),
            Self::L2tp => l2tp::PROGRAMS.to_vec(),
            Self::OpenVpn => openvpn::PROGRAMS.to_vec(),
            Self::WireGuard => wireguard::PROGRAMS.to_vec(),
            Self::Tls | Self::None => vec![("openssl", "openssl"), ("tcpdump", "tcpdump")],
        }
    }
}

/// How IKEv2's client shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// A pre-shared key.
    Psk,
    /// A long certificate; the server has one too.
    Certificate,
    /// Name and password (EAP-MSCHAPv2); the server has a long certificate.
    Eap,
}

/// What PPP's server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PppLogin {
    None,
    Chap,
    Pap,
}

/// Why L2TP's server does not want a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum L2tpRefusal {
    /// It does.
    None,
    /// The client does not have its secret.
    Challenge,
    /// It is only for certain clients.
    Peer,
}

/// What DNS says of the server's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dns {
    Right,
    Silent,
    ServFail,
    NoSuchName,
    Lies([u8; 4]),
}

/// Settings of the programs.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Does the server's program run?
    pub(crate) served: bool,
    /// Seconds that it starts after the clients.
    pub(crate) late: u64,
    /// Do clients use the name of the server?
    pub(crate) by_name: bool,
    pub(crate) dns: Dns,
    /// Milliseconds between a device's pings into the tunnel; 0: none.
    pub(crate) pings: u64,
    /// Seconds after which a user whose client gave up tries again.
    pub(crate) again: u64,

    pub(crate) login: Login,
    /// The secret that c1 uses; `sekret` is right.
    pub(crate) secret: &'static str,
    /// c1's proposal for IKE.
    pub(crate) proposal: &'static str,
    /// Does IKE split its own messages (RFC 7383)?
    pub(crate) ike_fragments: bool,
    /// Seconds, of IKE.
    pub(crate) retransmit: &'static str,
    pub(crate) dpd: u64,
    /// Seconds between NAT keepalives of IKEv2's client; 0: none.
    pub(crate) keep_alive: u64,
    /// Seconds; the server's.
    pub(crate) rekey: Option<u64>,

    pub(crate) ppp_login: PppLogin,
    /// Does PPP's server wait for the client to begin?
    pub(crate) ppp_passive: bool,
    /// Does c1 have a PPP that works?
    pub(crate) ppp_works: bool,
    pub(crate) l2tp_refusal: L2tpRefusal,
    /// Does OpenVPN have TCP to fall back to?
    pub(crate) ovpn_tcp: bool,
    pub(crate) ovpn_port: u16,
    /// Does WireGuard's server know c1's key?
    pub(crate) wg_known: bool,
    /// Seconds; 0: none.
    pub(crate) wg_keepalive: u64,
}

impl Setup {
    /// What works, as different people have it.
    pub(crate) fn healthy(seed: &mut Seed) -> Self {
        Self {
            served: true,
            late: 0,
            by_name: seed.coin(),
            dns: Dns::Right,
            pings: seed.between(300, 1500),
            again: seed.between(3, 9),
            login: Login::Psk,
            secret: "sekret",
            proposal: "aes128-sha256-modp2048",
            ike_fragments: true,
            retransmit: seed.pick(&["1.0", "2.0", "4.0"]),
            dpd: 30,
            keep_alive: 20,
            rekey: None,
            ppp_login: seed.pick(&[PppLogin::None, PppLogin::Chap, PppLogin::Pap]),
            ppp_passive: false,
            ppp_works: true,
            l2tp_refusal: L2tpRefusal::None,
            ovpn_tcp: false,
            ovpn_port: 1194,
            wg_known: true,
            wg_keepalive: seed.pick(&[0, 25]),
        }
    }

    /// The same for another device, whose own settings are right.
    pub(crate) fn of_neighbour(&self) -> Self {
        Self {
            secret: "sekret",
            proposal: "aes128-sha256-modp2048",
            ppp_works: true,
            wg_known: true,
            ..self.clone()
        }
    }
}
