//! Reads what `natd check` judges: files under /proc, the rules of others, one question to ctnetlink.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nat_core::decision::InterfaceAddress;

use super::{Kernel, Want, command};
use crate::check::line::{Line, is_ppp, pppoe_device};
use crate::check::{Abilities, Expected, Link, Seen};
use crate::rules::InterfaceName;

/// Looks around. `wan_addresses` come from whoever reads addresses, `running` is the process id of a natd at work.
pub fn survey(
    expected: &Expected<'_>,
    want: Want,
    wan_addresses: Vec<InterfaceAddress>,
    running: Option<u32>,
) -> Seen {
    let sysctl = |key: &str| file(&format!("/proc/sys/net/{key}"));
    let table = |name: &str| file(&format!("/proc/thread-self/net/{name}"));
    let rp_filter = |of: &str| sysctl(&format!("ipv4/conf/{of}/rp_filter"));
    let wan = expected.wan;
    Seen {
        links: std::iter::once(wan).chain(expected.lan).map(|name| (name.clone(), link(name))).collect(),
        wan_addresses,
        line: line(wan, table("pppoe").as_deref()),
        running,
        abilities: Kernel::probe(want)
            .map(|kernel| Abilities::from(&kernel))
            .map_err(|error| error.to_string()),
        ctnetlink: ask_ctnetlink().map_err(|error| error.to_string()),
        conntrack: sysctl("netfilter/nf_conntrack_max").is_some(),
        nfnetlink_queue: table("netfilter/nfnetlink_queue"),
        ip_forward: sysctl("ipv4/ip_forward"),
        ipv6_forwarding: sysctl("ipv6/conf/all/forwarding"),
        rp_filter: [rp_filter("all"), rp_filter(wan.as_str())],
        routes: table("route"),
        conntrack_helper: sysctl("netfilter/nf_conntrack_helper"),
        modules: file("/proc/modules"),
        nft: nft_ruleset(),
        iptables_legacy: iptables_legacy(),
        iptables_nft: output("iptables-nft-save"),
        tcp: [table("tcp"), table("tcp6")].into_iter().flatten().collect(),
        udp: [table("udp"), table("udp6")].into_iter().flatten().collect(),
    }
}

/// `nft -j list ruleset`; `None` when nft is missing or fails.
pub fn nft_ruleset() -> Option<String> {
    let answer = command::run(&command::find("nft")?, &["-j", "list", "ruleset"], "").ok()?;
    answer.success.then_some(answer.stdout)
}

/// The output of `iptables-legacy-save`, or of `iptables-save` where there is only one kind.
pub fn iptables_legacy() -> Option<String> {
    output("iptables-legacy-save").or_else(|| output("iptables-save"))
}

impl From<&Kernel> for Abilities {
    fn from(kernel: &Kernel) -> Self {
        Self { backend: kernel.backend, socket_match: kernel.socket_match, null_binding: kernel.null_binding }
    }
}

/// Is the interface there, and is it up?
pub fn link(name: &InterfaceName) -> Link {
    match flags(name) {
        Ok(flags) if flags & libc::IFF_UP != 0 => Link::Up,
        Ok(_) => Link::Down,
        Err(_) => Link::Missing,
    }
}

fn file(path: &str) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn output(tool: &str) -> Option<String> {
    let answer = command::run::<&str>(&command::find(tool)?, &[], "").ok()?;
    answer.success.then_some(answer.stdout)
}

fn flags(name: &InterfaceName) -> io::Result<i32> {
    let answer = ask(name.as_str(), libc::SIOCGIFFLAGS as _)?;
    // SAFETY: SIOCGIFFLAGS has filled this field in.
    Ok(i32::from(unsafe { answer.ifr_ifru.ifru_flags }))
}

/// What the WAN interface is; `pppoe` is `/proc/net/pppoe`.
fn line(wan: &InterfaceName, pppoe: Option<&str>) -> Line {
    let mtu = |name: &str| {
        let answer = ask(name, libc::SIOCGIFMTU as _).ok()?;
        // SAFETY: SIOCGIFMTU has filled this field in.
        u32::try_from(unsafe { answer.ifr_ifru.ifru_mtu }).ok()
    };
    // SAFETY: SIOCGIFHWADDR has filled this field in.
    let kind = |answer: libc::ifreq| unsafe { answer.ifr_ifru.ifru_hwaddr.sa_family };
    let kind = ask(wan.as_str(), libc::SIOCGIFHWADDR as _).ok().map(kind);
    let device = pppoe.and_then(pppoe_device).filter(|_| is_ppp(kind));
    let below = device.and_then(|device| Some((device.to_owned(), mtu(device)?)));
    Line { kind, mtu: mtu(wan.as_str()), below }
}

/// Asks about an interface.
fn ask(name: &str, question: libc::Ioctl) -> io::Result<libc::ifreq> {
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // An interface's name has at most 15 bytes, so a NUL remains.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes().iter().take(libc::IFNAMSIZ - 1)) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: the kernel reads and writes an ifreq, which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), question, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request)
}

/// Asks for conntrack's statistics; any answer but an error means that ctnetlink is there.
fn ask_ctnetlink() -> io::Result<()> {
    const GET_STATS: u16 = 0x0105; // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS
    const REQUEST: u16 = 1; // NLM_F_REQUEST
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)?;
    let mut question = Vec::with_capacity(20);
    question.extend_from_slice(&20_u32.to_ne_bytes());
    question.extend_from_slice(&GET_STATS.to_ne_bytes());
    question.extend_from_slice(&REQUEST.to_ne_bytes());
    question.extend_from_slice(&[0; 12]); // sequence, port, nfgenmsg of any family
    let mut answer = [0_u8; 4096];
    // SAFETY: both buffers outlive the calls and their lengths are given.
    let received = unsafe {
        if libc::send(socket.as_raw_fd(), question.as_ptr().cast(), question.len(), 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    let Ok(length) = usize::try_from(received) else { return Err(io::Error::last_os_error()) };
    let field =
        |at: usize| answer.get(..length).and_then(|got| got.get(at..at + 4)).and_then(|b| b.try_into().ok());
    let kind = field(4).map(|b: [u8; 4]| u16::from_ne_bytes([b[0], b[1]]));
    match (kind, field(16).map(i32::from_ne_bytes)) {
        (Some(kind), Some(code)) if i32::from(kind) == libc::NLMSG_ERROR && code != 0 => {
            Err(io::Error::from_raw_os_error(-code))
        }
        (Some(_), _) => Ok(()),
        (None, _) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; a descriptor that is not negative is ours.
    unsafe {
        match libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}
