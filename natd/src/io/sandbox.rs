//! Giving up what natd does not need, and telling the service manager how it goes.
//!
//! natd changes packets, rules and conntrack (CAP_NET_ADMIN) and sends packets of its own (CAP_NET_RAW).
//! [`enter`] gives up everything else, for itself and for the `nft` and `iptables` that it starts: bounding
//! set, inheritable and ambient set, and no new privileges by set-uid programs. Started as root it stays user
//! 0 but without the right to pass over file permissions: it can go on using what root owns. Capabilities
//! belong to threads: enter before the first thread is started, and after the directory of the control
//! socket has been made.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::netlink::check;

const CAP_SETPCAP: u32 = 8;
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const NEEDED: [(u32, &str); 2] = [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_NET_RAW, "CAP_NET_RAW")];

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 capabilities each.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Why privileges could not be given up.
#[derive(Debug)]
pub enum SandboxError {
    /// Some that natd needs are missing.
    Missing(Vec<&'static str>),
    /// The kernel refuses.
    Other(io::Error),
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(names) => write!(
                f,
                "natd needs {}: run it as root, or as a service with AmbientCapabilities=CAP_NET_ADMIN \
                 CAP_NET_RAW",
                names.join(" and ")
            ),
            Self::Other(error) => write!(f, "privileges cannot be given up: {error}"),
        }
    }
}

impl std::error::Error for SandboxError {}

impl From<io::Error> for SandboxError {
    fn from(error: io::Error) -> Self {
        Self::Other(error)
    }
}

/// Keeps CAP_NET_ADMIN and CAP_NET_RAW, also for children, and gives up all else.
///
/// # Errors
/// [`SandboxError::Missing`] names what is not there, and nothing has been changed.
pub fn enter() -> Result<(), SandboxError> {
    let have = Capabilities::read()?;
    let missing: Vec<_> =
        NEEDED.iter().filter(|(number, _)| !have.permits(*number)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        return Err(SandboxError::Missing(missing));
    }
    // Without CAP_SETPCAP the bounding set stays, which no_new_privs makes harmless.
    if have.permits(CAP_SETPCAP) {
        drop_bounding_set()?;
    }
    Capabilities::only_needed().write()?;
    for (number, _) in NEEDED {
        prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            libc::c_ulong::from(number),
        )?;
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    Ok(())
}

/// Has this thread CAP_NET_ADMIN in effect?
pub(crate) fn has_net_admin() -> bool {
    Capabilities::read().is_ok_and(|have| have.effective & (1 << CAP_NET_ADMIN) != 0)
}

/// Tells the service manager that natd translates.
///
/// # Errors
/// See [`notify`].
pub fn notify_ready() -> io::Result<()> {
    notify("READY=1")
}

/// Sends `state` (`READY=1`, `STATUS=…`, `STOPPING=1`, several separated by newlines) to the service manager
/// that `NOTIFY_SOCKET` names; does nothing without one.
///
/// # Errors
/// When that socket does not take it.
pub fn notify(state: &str) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(name) => notify_at(&name, state),
        None => Ok(()),
    }
}

/// A leading `@` stands for the abstract namespace.
fn notify_at(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// The lower 32 capabilities of a thread. Those above are all given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Capabilities {
    fn only_needed() -> Self {
        let mask = NEEDED.iter().fold(0, |mask, (number, _)| mask | 1 << number);
        Self { effective: mask, permitted: mask, inheritable: mask }
    }

    const fn permits(self, number: u32) -> bool {
        self.permitted & (1 << number) != 0
    }

    fn read() -> io::Result<Self> {
        let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
        let mut words = [Word::default(); 2];
        // SAFETY: version 3 reads and writes a header and two words.
        let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let [low, _] = words;
        Ok(Self { effective: low.effective, permitted: low.permitted, inheritable: low.inheritable })
    }

    fn write(self) -> io::Result<()> {
        let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
        let low =
            Word { effective: self.effective, permitted: self.permitted, inheritable: self.inheritable };
        let words = [low, Word::default()];
        // SAFETY: version 3 reads a header and two words.
        let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Takes every capability but the needed ones out of the bounding set, so that no child can get one.
fn drop_bounding_set() -> io::Result<()> {
    for number in 0..64 {
        if NEEDED.iter().any(|(needed, _)| *needed == number) {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: none of the options used here takes a pointer.
    check(unsafe { libc::prctl(option, first, second, zero, zero) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_reaches_an_abstract_socket() {
        let name = format!("natd-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();

        notify_at(OsStr::new(&format!("@{name}")), "READY=1").unwrap();

        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn ready_reaches_a_socket_with_a_path() {
        let path = env::temp_dir().join(format!("natd-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).unwrap();

        notify_at(path.as_os_str(), "STATUS=waiting for an address").unwrap();

        std::fs::remove_file(&path).unwrap();
        assert_eq!(received(&manager), "STATUS=waiting for an address");
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error() {
        assert!(notify_at(OsStr::new("@natd-notify-nobody"), "READY=1").is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            SandboxError::Missing(vec!["CAP_NET_ADMIN", "CAP_NET_RAW"]).to_string(),
            "natd needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root, or as a service with \
             AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW"
        );
    }

    fn received(manager: &UnixDatagram) -> String {
        manager.set_nonblocking(true).unwrap();
        let mut bytes = [0; 64];
        let got = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..got].to_vec()).unwrap()
    }
}
