//! Packets of natd's own making: ICMP errors, resets. A raw socket that takes whole IPv4 packets.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::netlink::{check, family, set_option, socklen};

/// Mark of natd's own packets: already final, so no rule queues them again.
pub const OWN_PACKET: u32 = 0x0400_0000;

/// A raw socket for whole IPv4 packets.
#[derive(Debug)]
pub struct Transmitter {
    fd: OwnedFd,
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
        Ok(Self { fd })
    }

    /// Sends `packet`, which begins with its IPv4 header, to the destination named there. The kernel writes
    /// the header's total length and checksum, and an identification where it is 0.
    ///
    /// # Errors
    /// `InvalidInput` when it is no IPv4 packet; else what the kernel says: no route (`ENETUNREACH`), larger
    /// than the MTU (`EMSGSIZE`), refused by a firewall rule (`EPERM`), no room now (`WouldBlock`).
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
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

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let [version_ihl, .., a, b, c, d] = *header;
    (version_ihl >> 4 == 4 && version_ihl & 15 >= 5).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

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
