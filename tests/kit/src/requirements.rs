//! What a lab needs of the machine, and what happens when that is missing.

use std::path::Path;
use std::sync::OnceLock;

use crate::sys;

/// Program, Debian package.
const PROGRAMS: [(&str, &str); 13] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
    ("socat", "socat"),
    ("iperf3", "iperf3"),
    ("turnserver", "coturn"),
    ("turnutils_natdiscovery", "coturn"),
    ("setpriv", "util-linux"),
    ("sha256sum", "coreutils"),
    ("sysctl", "procps"),
];

/// Everything that is missing, one line that says what to do; `None` when nothing is.
pub fn missing() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING
        .get_or_init(|| {
            if !sys::is_root() {
                return Some("needs root for network namespaces: run tests/run.sh".to_owned());
            }
            missing_of(&PROGRAMS)
        })
        .clone()
}

fn missing_of(programs: &[(&str, &str)]) -> Option<String> {
    let mut packages: Vec<&str> =
        programs.iter().filter(|(program, _)| !installed(program)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    (!packages.is_empty()).then(|| format!("needs: apt-get install {}", packages.join(" ")))
}

/// May this test run, which needs `more` programs (with their packages) beside those that every lab needs?
/// `false`, with a line printed, when `NATD_TESTS_NO_ROOT` is 1.
///
/// # Panics
/// When something is missing; the message says what to install.
pub fn met_with(more: &[(&str, &str)]) -> bool {
    if std::env::var("NATD_TESTS_NO_ROOT").is_ok_and(|value| value == "1") {
        skip("NATD_TESTS_NO_ROOT=1");
        return false;
    }
    if let Some(missing) = missing().or_else(|| missing_of(more)) {
        panic!("this kernel test {missing} (or set NATD_TESTS_NO_ROOT=1 to skip all kernel tests)");
    }
    true
}

/// Prints that the running test is skipped, and why.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    eprintln!("skipped: {name}: {why}");
}

fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    // An absolute path replaces the folder it is joined to.
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_by_its_packages_once() {
        let programs =
            [("sh", "dash"), ("no-such-program", "some"), ("/no/such/file", "other"), ("nor-this", "some")];
        assert_eq!(missing_of(&programs).as_deref(), Some("needs: apt-get install other some"));
        assert_eq!(missing_of(&[("sh", "dash"), ("/bin/sh", "dash")]), None);
    }
}
