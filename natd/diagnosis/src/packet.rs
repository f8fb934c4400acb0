//! One IP packet, of either version, whole or cut off by a capture's snap length.

use std::net::IpAddr;

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// Its beginning.
    First,
    /// A part behind its beginning.
    Later,
}

/// An IP packet behind whatever link layer it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// The protocol behind all extension headers of IPv6.
    pub protocol: u8,
    /// IPv4 identification, or that of IPv6's fragment header; 0 without one.
    pub ident: u32,
    /// The don't-fragment bit; always set in IPv6.
    pub dont_fragment: bool,
    /// Which part it is.
    pub fragment: Fragment,
    /// Bytes of the whole packet on the wire, from the IP header on.
    pub ip_len: u32,
    /// Bytes behind all IP headers, on the wire.
    pub payload_len: u32,
    /// What follows the IP headers, as far as it was captured.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet from its IP header on; `bytes` may be cut off anywhere behind the IP headers.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let _ = bytes;
        None
    }

    /// Reads what an ICMP error quotes: at least the IP header.
    pub fn parse_quote(bytes: &'a [u8]) -> Option<Self> {
        Self::parse(bytes)
    }
}
