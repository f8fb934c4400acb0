//! Which NAT a lab's router runs, and what the lab asks of it, in words of its own that both can be told.

use std::net::Ipv4Addr;

/// The NAT under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// None yet; the test starts one itself.
    None,
    /// The kernel's masquerade.
    KernelMasquerade,
    /// natd.
    Natd,
    /// natd for VPNs only (`scope = "vpn"`), and the kernel's masquerade for the rest.
    NatdBeside(Masquerade),
    /// No NAT and no firewall: the internet has a route to the household. It shows that a scenario's programs can do
    /// what is asked of them.
    Routed,
}

/// Which tool the kernel's masquerade beside natd is set up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// nft.
    Nft,
    /// iptables.
    Iptables,
}

/// What `NATD_LAB_NAT` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// natd.
    Natd,
    /// natd for VPNs only, beside the kernel's masquerade.
    NatdBeside,
    /// Kernel masquerade, without the scenarios that it is known to fail.
    Kernel,
    /// Kernel masquerade for every scenario.
    KernelAll,
    /// Neither NAT nor firewall.
    Routed,
}

impl Chosen {
    /// Reads the environment.
    ///
    /// # Panics
    /// When `NATD_LAB_NAT` has another value.
    pub fn from_environment() -> Self {
        match std::env::var("NATD_LAB_NAT").as_deref() {
            Err(_) | Ok("" | "natd") => Self::Natd,
            Ok("natd-vpn") => Self::NatdBeside,
            Ok("kernel") => Self::Kernel,
            Ok("kernel-all") => Self::KernelAll,
            Ok("routed") => Self::Routed,
            Ok(other) => {
                panic!("NATD_LAB_NAT={other}: should be natd, natd-vpn, kernel, kernel-all or routed")
            }
        }
    }
}

/// What a port forward forwards; protocols without ports as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// IPsec ESP.
    Esp,
    /// GRE.
    Gre,
    /// L2TPv3 over IP.
    L2tpv3,
}

impl Transport {
    /// Its name in lower case, as natd's configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Esp => "esp",
            Self::Gre => "gre",
            Self::L2tpv3 => "l2tpv3",
        }
    }

    /// Its IP protocol number.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Gre => 47,
            Self::Esp => 50,
            Self::L2tpv3 => 115,
        }
    }

    const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// A port forward that the lab's router shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// What is forwarded.
    pub transport: Transport,
    /// First and last port on the WAN address; 0 where there are no ports.
    pub external: (u16, u16),
    /// The device.
    pub host: Ipv4Addr,
    /// The device's port for the first external one; 0 where there are no ports.
    pub internal: u16,
}

impl Forward {
    /// One TCP port.
    pub const fn tcp(external: u16, host: Ipv4Addr, internal: u16) -> Self {
        Self { transport: Transport::Tcp, external: (external, external), host, internal }
    }

    /// One UDP port.
    pub const fn udp(external: u16, host: Ipv4Addr, internal: u16) -> Self {
        Self { transport: Transport::Udp, external: (external, external), host, internal }
    }

    /// All of a protocol without ports.
    pub const fn whole(transport: Transport, host: Ipv4Addr) -> Self {
        Self { transport, external: (0, 0), host, internal: 0 }
    }

    /// Does natd take it where the rest is the kernel's?
    pub fn is_vpn(&self) -> bool {
        match self.transport {
            Transport::Tcp => self.external == (1723, 1723),
            Transport::Udp => [500, 1701, 4500].iter().any(|&port| self.external == (port, port)),
            Transport::Esp | Transport::Gre | Transport::L2tpv3 => true,
        }
    }

    /// As natd's configuration writes it.
    pub fn toml(&self) -> String {
        if !self.transport.has_ports() {
            return format!(
                "[[forward]]\nprotocol = \"{}\"\nhost = \"{}\"\n",
                self.transport.name(),
                self.host
            );
        }
        let (first, last) = self.external;
        let external = if first == last { format!("{first}") } else { format!("\"{first}-{last}\"") };
        format!(
            "[[forward]]\nprotocol = \"{}\"\nexternal = {external}\nhost = \"{}\"\ninternal = {}\n",
            self.transport.name(),
            self.host,
            self.internal
        )
    }
}

/// The configuration file of natd for a lab: `nat` are further lines of its `[nat]` section, `more` whole
/// sections.
pub fn natd_toml(lans: &[&str], nat: &str, more: &str, forwards: &[Forward]) -> String {
    let lans: Vec<String> = lans.iter().map(|lan| format!("\"{lan}\"")).collect();
    let level = std::env::var("NATD_LAB_LOG").unwrap_or_else(|_| "debug".to_owned());
    let mut text = format!(
        "[nat]\nlan = [{}]\nwan = \"wan0\"\n{nat}\n[log]\nlevel = \"{level}\"\n{more}\n",
        lans.join(", ")
    );
    for forward in forwards {
        text.push_str(&forward.toml());
    }
    text
}
