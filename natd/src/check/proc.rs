//! Reads tables that the kernel shows under /proc/net. A line that is not as expected is passed over.

/// The state of a listening TCP socket in `/proc/net/tcp`.
pub const TCP_LISTEN: u8 = 0x0a;
/// The state of an unconnected UDP socket in `/proc/net/udp`.
pub const UDP_UNCONNECTED: u8 = 0x07;

/// A line of `/proc/net/netfilter/nfnetlink_queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its number.
    pub number: u16,
    /// The netlink port of the program that reads it; often its process id.
    pub reader: u32,
}

/// The queues in use.
pub fn queues(text: &str) -> impl Iterator<Item = Queue> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(Queue { number: words.next()?.parse().ok()?, reader: words.next()?.parse().ok()? })
    })
}

/// Ports of sockets in `state` that are bound to no address, IPv4 or IPv6, in ascending order, each once.
pub fn wildcard_listeners(text: &str, state: u8) -> impl Iterator<Item = u16> {
    let ports = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (addr, port) = words.next()?.split_once(':')?;
        let st = u8::from_str_radix(words.nth(1)?, 16).ok()?;
        let wildcard = matches!(addr.len(), 8 | 32) && addr.bytes().all(|digit| digit == b'0');
        (wildcard && st == state).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    });
    crate::order::distinct(ports).into_iter()
}

/// The interfaces of the default routes in `/proc/net/route`.
pub fn default_routes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let interface = words.next()?;
        let (destination, mask) = (words.next()?, words.nth(5)?);
        (destination == "00000000" && mask == "00000000").then_some(interface)
    })
}

/// The third word of each line, such as the device in `/proc/net/pppoe`.
pub fn third_words(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_whitespace().nth(2))
}
