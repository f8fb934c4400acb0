//! Packets of natd's own making: ICMP errors, resets. A raw socket that takes whole IPv4 packets.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use super::netlink::{check, family, set_option, socklen};

/// Mark of natd's own packets: already final, so no rule queues them again.
pub const OWN_PACKET: u32 = 0x0400_0000;

/// What a link can carry at once, in bytes, unless the daemon says otherwise.
const ETHERNET_MTU: usize = 1500;

/// A raw socket for whole IPv4 packets.
#[derive(Debug)]
pub struct Transmitter {
    fd: OwnedFd,
    /// Of the link, in bytes.
    mtu: AtomicUsize,
    /// For packets in fragments that have none of their own.
    identification: AtomicU16,
    /// Packets that were lost because they were too large for their link.
    too_large: AtomicUsize,
}

impl Transmitter {
    /// Opens the socket and gives everything that it sends the mark [`OWN_PACKET`].
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW and CAP_NET_ADMIN (the latter for the mark).
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers. IPPROTO_RAW implies IP_HDRINCL and never receives.
        let fd = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_RAW) };
        check(fd)?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, &OWN_PACKET)?;
        Ok(Self {
            fd,
            mtu: AtomicUsize::new(ETHERNET_MTU),
            identification: AtomicU16::new(0),
            too_large: AtomicUsize::new(0),
        })
    }

    /// Sets the size, in bytes, of the fragments that a packet too large for its link is sent in: the smallest MTU
    /// of the links that packets go out on. 1500 until this is called.
    pub fn set_mtu(&self, mtu: usize) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// How many packets so far were too large for their link and could not go in fragments.
    pub fn too_large(&self) -> usize {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Sends `packet`, which begins with its IPv4 header, to the destination named there. The kernel writes
    /// the header's total length and checksum, and an identification where it is 0. A packet larger than the link's
    /// MTU goes in fragments, unless it says "don't fragment".
    ///
    /// # Errors
    /// `InvalidInput` when it is no IPv4 packet; else what the kernel says: no route (`ENETUNREACH`), larger
    /// than the MTU and not to be fragmented, or than the MTU of [`Transmitter::set_mtu`] (`EMSGSIZE`), refused by
    /// a firewall rule (`EPERM`), no room now (`WouldBlock`). Of a packet in fragments some may have gone out.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self.send_whole(packet) {
            Err(error) if is_too_large(&error) => {
                let result = self.send_in_fragments(packet, error);
                if result.as_ref().is_err_and(is_too_large) {
                    self.too_large.fetch_add(1, Ordering::Relaxed);
                }
                result
            }
            result => result,
        }
    }

    fn send_in_fragments(&self, packet: &[u8], error: io::Error) -> io::Result<()> {
        let mut packet = packet.to_vec();
        if field(&packet, 4) == Some(0) {
            // The kernel would give every fragment another one.
            let count = self.identification.fetch_add(1, Ordering::Relaxed);
            write(&mut packet, 4, count % u16::MAX + 1);
        }
        let mut fragments = fragments(&packet, self.mtu.load(Ordering::Relaxed)).peekable();
        if fragments.peek().is_none() {
            return Err(error);
        }
        fragments.try_for_each(|fragment| self.send_whole(&fragment))
    }

    fn send_whole(&self, packet: &[u8]) -> io::Result<()> {
        let destination = destination(packet)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an IPv4 packet"))?;
        let address = libc::sockaddr_in {
            sin_family: family(libc::AF_INET),
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(destination.octets()) },
            sin_zero: [0; 8],
        };
        loop {
            // SAFETY: both pointers and lengths describe live values.
            let sent = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    packet.as_ptr().cast(),
                    packet.len(),
                    libc::MSG_NOSIGNAL,
                    (&raw const address).cast(),
                    socklen(&address),
                )
            };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Cuts an IPv4 packet into packets of at most `mtu` bytes (RFC 791 section 3.2), in order; each has the packet's
/// header with length, fragment offset and checksum of its own, and those behind the first only the options that
/// are to be copied. A packet that fits comes out as it is, and a fragment can be cut again.
///
/// Nothing comes out when the packet must not be fragmented (DF), is malformed, or does not fit in fragments of
/// `mtu`.
pub fn fragments(packet: &[u8], mtu: usize) -> impl Iterator<Item = Vec<u8>> {
    Plan::of(packet, mtu).into_iter().flatten()
}

/// What is still to be cut.
struct Plan<'a> {
    /// Of the next fragment.
    header: Vec<u8>,
    /// Of the fragments behind it.
    later_header: Vec<u8>,
    rest: &'a [u8],
    /// In units of 8 bytes.
    offset: usize,
    /// Do fragments of the same packet follow behind what is cut here?
    more: bool,
    mtu: usize,
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

impl<'a> Plan<'a> {
    fn of(packet: &'a [u8], mtu: usize) -> Option<Self> {
        destination(packet)?;
        let header_length = usize::from(packet.first()? & 15) * 4;
        let total = usize::from(field(packet, 2)?);
        let (header, rest) = packet.get(..total)?.split_at_checked(header_length)?;
        let flags = field(packet, 6)?;
        if total > mtu && flags & DONT_FRAGMENT != 0 {
            return None;
        }
        let offset = usize::from(flags & OFFSET);
        // 8 bytes of data in every fragment but the last, or it would never end; and offsets of 13 bits.
        let fits = total <= mtu || header_length + 8 <= mtu;
        (fits && offset + rest.len() / 8 <= usize::from(OFFSET)).then(|| Self {
            header: header.to_vec(),
            later_header: copied_options(header),
            rest,
            offset,
            more: flags & MORE_FRAGMENTS != 0,
            mtu,
        })
    }
}

impl Iterator for Plan<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.header.is_empty() {
            return None;
        }
        let header = std::mem::replace(&mut self.header, self.later_header.clone());
        let room = self.mtu.saturating_sub(header.len());
        let last = self.rest.len() <= room;
        let (data, rest) =
            self.rest.split_at_checked(room & !7).filter(|_| !last).unwrap_or((self.rest, &[]));
        let mut fragment = header;
        let header_length = fragment.len();
        fragment.extend_from_slice(data);
        let length = u16::try_from(fragment.len()).ok()?;
        let more = if last && !self.more { 0 } else { MORE_FRAGMENTS };
        let kept = field(&fragment, 6)? & !(MORE_FRAGMENTS | OFFSET);
        let offset = u16::try_from(self.offset).ok()?;
        write(&mut fragment, 2, length);
        write(&mut fragment, 6, kept | more | offset);
        write(&mut fragment, 10, 0);
        let sum = checksum(fragment.get(..header_length)?);
        write(&mut fragment, 10, sum);
        self.offset += data.len() / 8;
        self.rest = rest;
        if last {
            self.header = Vec::new();
        }
        Some(fragment)
    }
}

/// The header as later fragments have it: of the options only those whose highest bit says "copy" (RFC 791 section
/// 3.1), padded to words of 4 bytes. A malformed option ends them.
fn copied_options(header: &[u8]) -> Vec<u8> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPY: u8 = 0x80;
    let (fixed, mut options) = header.split_at_checked(20).unwrap_or((header, &[]));
    let mut copied = fixed.to_vec();
    loop {
        let length = match *options {
            [] | [END, ..] => break,
            [NO_OPERATION, ..] => 1,
            [_, length, ..] if length >= 2 => usize::from(length),
            [_, ..] => break,
        };
        let Some((option, rest)) = options.split_at_checked(length) else { break };
        if option.first().is_some_and(|kind| kind & COPY != 0) {
            copied.extend_from_slice(option);
        }
        options = rest;
    }
    let padded = copied.len().next_multiple_of(4);
    copied.resize(padded, END);
    if let (Ok(words), Some(first)) = (u8::try_from(padded / 4), copied.first_mut()) {
        *first = 0x40 | words;
    }
    copied
}

/// The 16 bits at `at`.
fn field(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn write(packet: &mut [u8], at: usize, value: u16) {
    if let Some(bytes) = packet.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *bytes = value.to_be_bytes();
    }
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}

fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let [version_ihl, .., a, b, c, d] = *header;
    (version_ihl >> 4 == 4 && version_ihl & 15 >= 5).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP packet from 192.0.2.1 to 192.0.2.9 with identification 0x1234 and these flags, options and data.
    fn packet(flags: u16, options: &[u8], data: usize) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 9];
        packet.extend_from_slice(options);
        packet[0] += u8::try_from(options.len() / 4).unwrap();
        packet.extend((0..data).map(|i| u8::try_from(i % 251).unwrap()));
        let length = u16::try_from(packet.len()).unwrap();
        write(&mut packet, 2, length);
        write(&mut packet, 6, flags);
        let sum = checksum(&packet[..20 + options.len()]);
        write(&mut packet, 10, sum);
        packet
    }

    fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        fragments(packet, mtu).collect()
    }

    /// Puts fragments together by their offsets.
    fn data(fragments: &[Vec<u8>]) -> Vec<u8> {
        let mut data = Vec::new();
        for fragment in fragments {
            let header = usize::from(fragment[0] & 15) * 4;
            assert_eq!(usize::from(field(fragment, 2).unwrap()), fragment.len());
            assert_eq!(checksum(&fragment[..header]), 0, "the header's checksum");
            assert_eq!(usize::from(field(fragment, 6).unwrap() & OFFSET) * 8, data.len());
            data.extend_from_slice(&fragment[header..]);
        }
        data
    }

    #[test]
    fn fragments_put_together_are_the_packet() {
        for (length, mtu, sizes) in [
            (1481, 1500, vec![1500, 21]),
            (2961, 1500, vec![1500, 1500, 21]),
            (1600, 576, vec![572, 572, 516]),
            (17, 28, vec![28, 28, 21]),
            (24, 35, vec![28, 28, 28]),
        ] {
            let whole = packet(0, &[], length);
            let cut = cut(&whole, mtu);
            assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            assert_eq!(data(&cut), whole[20..]);
            for (i, fragment) in cut.iter().enumerate() {
                assert_eq!(fragment[4..6], whole[4..6], "one identification");
                assert_eq!(fragment[8..10], whole[8..10]);
                assert_eq!(fragment[12..20], whole[12..20]);
                let more = field(fragment, 6).unwrap() & MORE_FRAGMENTS != 0;
                assert_eq!(more, i + 1 < cut.len());
            }
        }
    }

    #[test]
    fn a_packet_that_fits_comes_out_as_it_is() {
        for flags in [0, DONT_FRAGMENT, MORE_FRAGMENTS | 7] {
            let whole = packet(flags, &[0x94, 4, 0, 0], 1476);
            assert_eq!(cut(&whole, 1500), [whole]);
        }
    }

    #[test]
    fn a_packet_that_must_not_be_fragmented_is_not() {
        assert_eq!(cut(&packet(DONT_FRAGMENT, &[], 1481), 1500), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_fragment_is_cut_again_where_it_lies_in_its_packet() {
        let middle = packet(MORE_FRAGMENTS | 100, &[], 64);
        let cut = cut(&middle, 60);
        let fields: Vec<u16> = cut.iter().map(|fragment| field(fragment, 6).unwrap()).collect();
        assert_eq!(fields, [MORE_FRAGMENTS | 100, MORE_FRAGMENTS | 105]);
        let last = packet(100, &[], 64);
        assert_eq!(field(&fragments(&last, 60).last().unwrap(), 6), Some(105));
    }

    #[test]
    fn later_fragments_have_only_the_options_that_are_copied() {
        // Record route (not copied), no operation, router alert (copied), end.
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x94, 4, 0, 0];
        let whole = packet(0, &options, 100);
        let cut = cut(&whole, 64);
        assert_eq!(cut[0][20..32], options);
        assert!(cut.len() > 2);
        assert!(cut[1..].iter().all(|later| later[0] == 0x46 && later[20..24] == [0x94, 4, 0, 0]));
        assert_eq!(data(&cut), whole[32..]);
        // A broken option ends them and is in no later fragment.
        let broken = cut_first_and_second(&packet(0, &[0x94, 40, 0, 0], 100));
        assert_eq!(broken, (0x46, 0x45));
    }

    fn cut_first_and_second(packet: &[u8]) -> (u8, u8) {
        let cut = cut(packet, 64);
        (cut[0][0], cut[1][0])
    }

    #[test]
    fn nothing_comes_of_what_is_no_packet_or_of_an_mtu_without_room() {
        let whole = packet(0, &[], 100);
        for length in 0..whole.len() {
            assert_eq!(cut(&whole[..length], 64), Vec::<Vec<u8>>::new(), "{length}");
        }
        for mtu in 0..28 {
            assert_eq!(cut(&whole, mtu), Vec::<Vec<u8>>::new(), "{mtu}");
        }
        // What lies behind the packet does not belong to it.
        let padded = [whole.clone(), vec![0; 9]].concat();
        assert_eq!(data(&cut(&padded, 64)), whole[20..]);
        // An offset that passes the end of the largest packet.
        assert_eq!(cut(&packet(OFFSET, &[], 100), 64), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn the_destination_is_the_headers() {
        let mut packet = [0; 28];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[192, 0, 2, 9]);
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(192, 0, 2, 9)));
    }

    #[test]
    fn what_is_no_ipv4_packet_has_no_destination() {
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x45; 19]), None);
        assert_eq!(destination(&[0x65; 40]), None);
        assert_eq!(destination(&[0x44; 40]), None);
    }
}
