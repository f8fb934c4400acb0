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
}

/// What `NATD_LAB_NAT` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// natd.
    Natd,
    /// Kernel masquerade, without the scenarios that it is known to fail.
    Kernel,
    /// Kernel masquerade for every scenario.
    KernelAll,
}

impl Chosen {
    /// Reads the environment.
    ///
    /// # Panics
    /// When `NATD_LAB_NAT` has another value.
    pub fn from_environment() -> Self {
        match std::env::var("NATD_LAB_NAT").as_deref() {
            Err(_) | Ok("" | "natd") => Self::Natd,
            Ok("kernel") => Self::Kernel,
            Ok("kernel-all") => Self::KernelAll,
            Ok(other) => panic!("NATD_LAB_NAT={other}: should be natd, kernel or kernel-all"),
        }
    }
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its name in lower case, as nft and natd's configuration write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port forward that the lab's router shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub transport: Transport,
    /// First and last port on the WAN address.
    pub external: (u16, u16),
    /// The device.
    pub host: Ipv4Addr,
    /// The device's port for the first external one.
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

    /// As natd's configuration writes it.
    pub fn toml(&self) -> String {
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
