//! What must outlive natd, so that IPsec goes on after a restart: nothing on the wire would tell it again before the
//! next rekey.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use nat_core::flow::Endpoint;
use nat_core::time::Timestamp;

use crate::ike::IkeSpi;

/// A pair of SPIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownPair {
    /// The host outside.
    pub remote: Ipv4Addr,
    /// The device.
    pub device: Ipv4Addr,
    /// What comes in with.
    pub inbound: Option<u32>,
    /// What goes out with.
    pub outbound: Option<u32>,
    /// When it was last agreed on.
    pub renewed: Timestamp,
}

/// An SPI that may be several devices'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The host outside.
    pub remote: Ipv4Addr,
    /// What comes in with.
    pub spi: u32,
    /// Whose it may be.
    pub devices: Vec<Ipv4Addr>,
}

/// An IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownIkeSa {
    /// The host outside.
    pub remote: Ipv4Addr,
    /// The SPI of its initiator.
    pub initiator: IkeSpi,
    /// The SPI of its responder.
    pub responder: IkeSpi,
    /// 1 or 2.
    pub version: u8,
    /// The device's endpoint.
    pub device: Endpoint,
    /// Its port on the WAN address.
    pub external: u16,
    /// It shares port 500.
    pub shared: bool,
    /// It went on to port 4500.
    pub floated: bool,
}

/// Everything that is known of IPsec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pairs of SPIs.
    pub pairs: Vec<KnownPair>,
    /// SPIs whose owner is not known.
    pub undecided: Vec<Undecided>,
    /// IKE SAs.
    pub ike: Vec<KnownIkeSa>,
}
