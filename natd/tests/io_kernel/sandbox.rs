//! Privileges given up: what is left, and what `nft` and `iptables` can still do.

use std::collections::BTreeMap;
use std::process::Command;

use natd::io::conntrack::Conntrack;
use natd::io::nfqueue::{Queue, Trains};
use natd::io::sandbox::{self, SandboxError};
use natd::io::transmit::Transmitter;

use crate::lab::{Namespace, possible};

const NOBODY: libc::uid_t = 65_534;
/// CAP_NET_ADMIN (12) and CAP_NET_RAW (13).
const KEPT: &str = "0000000000003000";

#[test]
fn root_keeps_two_capabilities_and_its_children_work() {
    if !possible() {
        return;
    }
    let namespace = Namespace::new("root");
    namespace.enter(|| {
        sandbox::enter().unwrap();
        assert_eq!(capabilities(), all_of(KEPT));
        everything_works();
    });
}

#[test]
fn an_ordinary_user_with_ambient_capabilities_can_run_natd() {
    if !possible() {
        return;
    }
    let namespace = Namespace::new("nobody");
    namespace.enter(|| {
        become_nobody();
        sandbox::enter().unwrap();
        let mut capabilities = capabilities();
        // Only CAP_SETPCAP could have lowered it.
        capabilities.remove("CapBnd");
        let mut expected = all_of(KEPT);
        expected.remove("CapBnd");
        assert_eq!(capabilities, expected);
        everything_works();
    });
}

#[test]
fn what_is_missing_is_named_and_nothing_changes() {
    if !possible() {
        return;
    }
    let namespace = Namespace::new("bare");
    namespace.enter(|| {
        give_up_everything();
        let before = capabilities();
        let error = sandbox::enter().unwrap_err();
        assert!(matches!(&error, SandboxError::Missing(names) if names == &["CAP_NET_ADMIN", "CAP_NET_RAW"]));
        assert_eq!(capabilities(), before);
        assert!(Transmitter::open().is_err());
        assert!(Conntrack::open().unwrap_err().to_string().contains("CAP_NET_ADMIN"));
    });
}

/// Takes every capability from this thread.
pub(crate) fn give_up_everything() {
    set_capabilities(0);
}

fn everything_works() {
    Queue::open(3, 64, Trains::Whole).unwrap();
    Conntrack::open().unwrap();
    Transmitter::open().unwrap();
    for line in [
        "nft add table ip natd_test",
        "nft list ruleset",
        "nft delete table ip natd_test",
        "iptables -w -t raw -N natd_test",
        "iptables -w -t raw -A natd_test -j NFQUEUE --queue-num 3",
        "iptables -w -t raw -I PREROUTING -j natd_test",
        "iptables -w -t mangle -A POSTROUTING -m mark --mark 1/1 -j NFQUEUE --queue-num 3",
        "iptables-save",
        "iptables -w -t raw -F PREROUTING",
    ] {
        let mut words = line.split(' ');
        let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // no_new_privs and the bounding set hold for children too.
    let status = Command::new("cat").arg("/proc/self/status").output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(line(&status, "NoNewPrivs"), "1");
    assert_eq!(line(&status, "CapEff"), KEPT);
    assert_eq!(line(&status, "CapPrm"), KEPT);
}

fn become_nobody() {
    // SAFETY: the raw calls change this thread only; libc's would change the whole process.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
        assert_eq!(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY), 0);
    }
    set_capabilities(0x3000);
}

fn set_capabilities(mask: u32) {
    let mut header = [0x2008_0522u32, 0];
    let words = [mask, mask, mask, 0, 0, 0];
    // SAFETY: version 3 reads a header of two and a body of six words.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), words.as_ptr()) };
    assert_eq!(done, 0);
}

fn capabilities() -> BTreeMap<&'static str, String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| (name, line(&status, name))).into()
}

fn all_of(value: &str) -> BTreeMap<&'static str, String> {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| (name, value.to_owned())).into()
}

fn line(status: &str, name: &str) -> String {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    found.unwrap_or_default().to_owned()
}
