//! strongSwan's charon with ESP in user space (kernel-libipsec), controlled by swanctl.
//!
//! Bare ESP (`raw_esp`) came with strongSwan 6. Where the system's is older, tests/setup.sh unpacks a newer one beside
//! it, with the C library that it was built for, into `strongswan6` in cargo's target folder; `NATD_STRONGSWAN6` names
//! another folder. It runs through its own loader.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::{INNER, POOL, spawn};
use crate::Lab;
use crate::clock::holds_within;
use crate::natd::profile_dir;
use crate::node::Node;
use crate::process::{Background, Outcome};

/// What it needs beyond a lab's own programs.
pub const PROGRAMS: [(&str, &str); 7] = [
    (CHARON, "strongswan-charon"),
    ("swanctl", "strongswan-swanctl"),
    ("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so", "libcharon-extra-plugins"),
    ("/usr/lib/ipsec/plugins/libstrongswan-openssl.so", "libstrongswan-standard-plugins"),
    ("/usr/lib/ipsec/plugins/libstrongswan-curve25519.so", "libstrongswan-extra-plugins"),
    ("/usr/lib/ipsec/plugins/libstrongswan-xauth-generic.so", "libcharon-extauth-plugins"),
    ("unshare", "util-linux"),
];

const CHARON: &str = "/usr/lib/ipsec/charon";

/// Plugins, in the order that makes charon take kernel-libipsec for ESP.
const PLUGINS: &str = "nonce random openssl kdf hmac sha1 sha2 gmp aes kernel-libipsec kernel-netlink \
                       socket-default vici updown xauth-generic unity";

/// A charon of at least version 6.
#[derive(Clone, Debug)]
enum Six {
    /// The system's.
    System,
    /// In this folder.
    Unpacked(PathBuf),
}

/// # Panics
/// When there is none; the message says how to get it.
fn six() -> &'static Six {
    static SIX: OnceLock<Six> = OnceLock::new();
    SIX.get_or_init(|| {
        let version = Command::new(CHARON).arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let major = version.ok().and_then(|text| {
            let digits = text.split_once("strongSwan ")?.1.split('.').next()?;
            digits.trim_start_matches('U').parse::<u32>().ok()
        });
        if major.is_some_and(|major| major >= 6) {
            return Six::System;
        }
        let folder = std::env::var_os("NATD_STRONGSWAN6").map(PathBuf::from);
        let folder = folder.unwrap_or_else(|| {
            let target = profile_dir();
            target.parent().unwrap_or(&target).join("strongswan6")
        });
        assert!(
            folder.join("usr/lib/ipsec/charon").exists(),
            "this test needs strongSwan 6 (package strongswan-charon of Debian 13): neither the system's nor in {}; \
             run tests/setup.sh (or set NATD_TESTS_NO_ROOT=1 to skip all kernel tests)",
            folder.display()
        );
        Six::Unpacked(folder)
    })
}

/// A charon, running or ended.
#[derive(Debug)]
pub struct Charon {
    node: Node,
    process: Background,
    settings: String,
    socket: String,
    connections: String,
}

impl Charon {
    /// Starts charon for clients like vpnc that want bare ESP: at least version 6. `settings` come below `charon` in
    /// strongswan.conf and overrule the kit's own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn raw(node: &Node, settings: &str) -> Self {
        let plugin = "raw_esp = yes\n    allow_peer_ts = yes";
        match six() {
            Six::System => Self::start(node, plugin, settings, "", &[CHARON]),
            Six::Unpacked(folder) => {
                let at = |path: &str| folder.join(path).to_string_lossy().into_owned();
                let libraries = multiarch(folder);
                let loader = loader(&libraries);
                let paths = format!("{}:{}", at("usr/lib/ipsec"), libraries.display());
                // Its plugins and helpers are looked for where the system's are.
                let before = format!("mount --bind {} /usr/lib/ipsec;", at("usr/lib/ipsec"));
                let words =
                    [&*loader.to_string_lossy(), "--library-path", &paths, &at("usr/lib/ipsec/charon")];
                Self::start(node, plugin, settings, &before, &words)
            }
        }
    }

    /// Starts the system's charon, which puts ESP into UDP, with further settings below `charon` in strongswan.conf,
    /// after the shell commands `before` (each with a `;`).
    ///
    /// # Panics
    /// When it does not start.
    pub fn plain(node: &Node, settings: &str, before: &str) -> Self {
        Self::start(node, "allow_peer_ts = yes", settings, before, &[CHARON])
    }

    fn start(node: &Node, plugin: &str, more: &str, before: &str, words: &[&str]) -> Self {
        let path = |what: &str| {
            node.dir().join(format!("{}-{what}", node.namespace())).to_string_lossy().into_owned()
        };
        let (settings, socket, connections) = (path("strongswan.conf"), path("vici"), path("swanctl.conf"));
        let text = format!(
            "charon {{\n  load = {PLUGINS}\n  install_routes = yes\n  cisco_unity = yes\n  \
             i_dont_care_about_security_and_use_aggressive_mode_psk = yes\n  \
             retransmit_timeout = 1.0\n  retransmit_tries = 3\n  \
             plugins {{\n   vici {{\n    socket = unix://{socket}\n   }}\n   kernel-libipsec {{\n    {plugin}\n   }}\n  }}\n  \
             filelog {{\n   stderr {{\n    default = 1\n    ike = 2\n   }}\n  }}\n}}\ncharon {{\n  {more}\n}}\n"
        );
        // An earlier one that was killed leaves its socket.
        let _ = fs::remove_file(&socket);
        fs::write(&settings, text).expect("the lab's folder is writable");
        let before = format!("{before} export STRONGSWAN_CONF={settings};");
        let process = spawn(node, &before, words);
        let charon = Self { node: node.clone(), process, settings, socket, connections };
        let ready = holds_within(Duration::from_secs(10), || charon.swanctl(&["--stats"]).success());
        assert!(ready, "charon is not ready: {}", charon.log());
        charon
    }

    /// Runs swanctl.
    pub fn swanctl(&self, words: &[&str]) -> Outcome {
        let line = self.swanctl_line(words);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.node.run_within(&line, Duration::from_secs(30))
    }

    /// The command line that runs swanctl in the node.
    pub fn swanctl_line(&self, words: &[&str]) -> Vec<String> {
        let settings = format!("STRONGSWAN_CONF={}", self.settings);
        let uri = format!("unix://{}", self.socket);
        let mut line = vec!["env", &settings, "swanctl"];
        line.extend(words);
        line.extend(["--uri", &uri]);
        line.into_iter().map(str::to_owned).collect()
    }

    /// Loads connections, pools and secrets, as swanctl.conf has them.
    ///
    /// # Panics
    /// When charon refuses them.
    pub fn load(&self, connections: &str) {
        fs::write(&self.connections, connections).expect("the lab's folder is writable");
        let outcome = self.swanctl(&["--load-all", "--noprompt", "--file", &self.connections]);
        assert!(outcome.success(), "{outcome}");
    }

    /// Brings the tunnel of [`client`] up.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn initiate(&self) {
        let outcome = self.swanctl(&["--initiate", "--child", "net", "--timeout", "12"]);
        assert!(outcome.success(), "{outcome}");
    }

    /// Its security associations, as swanctl lists them.
    pub fn associations(&self) -> String {
        self.swanctl(&["--list-sas"]).expect_success()
    }

    /// Its tunnels: old ones too that live on beside newer ones.
    pub fn children(&self) -> Vec<Child> {
        children(&self.associations())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// One pair of ESP associations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The peer's identity; of a client of this kit the name of its namespace.
    pub peer: String,
    /// Counts up.
    pub number: u32,
    /// SPI of packets to this side.
    pub incoming: u32,
    /// SPI of packets from this side.
    pub outgoing: u32,
    /// The peer's address inside.
    pub address: String,
}

fn children(listed: &str) -> Vec<Child> {
    let (mut all, mut peer) = (Vec::<Child>::new(), String::new());
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
        let spi = |text: &str| u32::from_str_radix(text, 16).unwrap_or(0);
        match (words.as_slice(), all.last_mut()) {
            (["remote", identity, "@", ..], _) => peer = identity.trim_matches('\'').to_owned(),
            (["net:", number, ..], _) => {
                let number = number.trim_start_matches('#').parse().unwrap_or(0);
                let (peer, address) = (peer.clone(), String::new());
                all.push(Child { peer, number, incoming: 0, outgoing: 0, address });
            }
            (["in", value, ..], Some(child)) => child.incoming = spi(value),
            (["out", value, ..], Some(child)) => child.outgoing = spi(value),
            (["remote", inner], Some(child)) => inner.trim_end_matches("/32").clone_into(&mut child.address),
            _ => {}
        }
    }
    all
}

/// The folder of an unpacked system that has its libraries.
fn multiarch(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder.join("usr/lib")).expect("an unpacked system has usr/lib");
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("libc.so.6").exists())
        .expect("an unpacked system has a C library")
}

fn loader(libraries: &Path) -> PathBuf {
    let entries = fs::read_dir(libraries).expect("it was found there");
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux"))
        .expect("a C library has a loader")
        .path()
}

/// A server for vpnc in `node` at `addr`: IKEv1 and, since vpnc offers no NAT traversal, bare ESP. The inner address
/// is put on its loopback. A tunnel's keys are replaced after `rekey` where that is given.
///
/// # Panics
/// When it does not start.
pub fn vpnc_server(_: &Lab, node: &Node, addr: Ipv4Addr, rekey: Option<Duration>) -> Charon {
    node.ip(&format!("addr add {INNER}/32 dev lo\n"));
    let charon = Charon::raw(node, "");
    let rekey = rekey.map_or_else(String::new, |time| {
        let seconds = time.as_secs();
        format!("rekey_time = {seconds}s\n    rand_time = 0s\n    life_time = {}s", seconds * 3)
    });
    let names = (1..=8).flat_map(|n| [format!("d{n}"), format!("s{n}")]);
    let users: String =
        names.map(|name| format!("xauth-{name} {{\n  id = {name}\n  secret = pw\n }}\n ")).collect();
    charon.load(&format!(
        "connections {{\n srv {{\n  version = 1\n  aggressive = yes\n  local_addrs = {addr}\n  \
         proposals = aes128-sha1-modp1024\n  pools = p\n  unique = never\n  local {{\n   auth = psk\n   id = {addr}\n  }}\n  \
         remote-1 {{\n   auth = psk\n  }}\n  remote-2 {{\n   auth = xauth-generic\n  }}\n  \
         children {{\n   net {{\n    local_ts = {INNER}/32,0.0.0.0/0\n    esp_proposals = aes128-sha1\n    {rekey}\n   }}\n  }}\n }}\n}}\n\
         pools {{\n p {{\n  addrs = {POOL}\n }}\n}}\n\
         secrets {{\n ike-a {{\n  secret = sekret\n }}\n {users}}}\n"
    ));
    charon
}

/// A server for [`client`] in `node` at `addr`: IKEv2, which behind a NAT means ESP in UDP.
///
/// # Panics
/// When it does not start.
pub fn server(lab: &Lab, node: &Node, addr: Ipv4Addr) -> Charon {
    server_of_version(lab, node, addr, 2)
}

/// As [`server`], of this version of IKE; version 1 with SHA-1, as its clients have it.
///
/// # Panics
/// When it does not start.
pub fn server_of_version(_: &Lab, node: &Node, addr: Ipv4Addr, version: u8) -> Charon {
    node.ip(&format!("addr add {INNER}/32 dev lo\n"));
    let charon = Charon::plain(node, "", "");
    let hash = if version == 1 { "sha1" } else { "sha256" };
    charon.load(&format!(
        "connections {{\n srv {{\n  version = {version}\n  local_addrs = {addr}\n  proposals = aes128-{hash}-modp2048\n  \
         pools = p\n  local {{\n   auth = psk\n   id = server\n  }}\n  remote {{\n   auth = psk\n  }}\n  \
         children {{\n   net {{\n    local_ts = {INNER}/32\n    esp_proposals = aes128-sha256\n   }}\n  }}\n }}\n}}\n\
         pools {{\n p {{\n  addrs = {POOL}\n }}\n}}\nsecrets {{\n ike-a {{\n  secret = sekret\n }}\n}}\n"
    ));
    charon
}

/// A client in `node` of the server at `addr`; [`Charon::initiate`] dials.
///
/// # Panics
/// When it does not start.
pub fn client(_: &Lab, node: &Node, addr: Ipv4Addr) -> Charon {
    let charon = Charon::plain(node, "", "");
    charon.load(&format!(
        "connections {{\n cl {{\n  version = 2\n  remote_addrs = {addr}\n  vips = 0.0.0.0\n  \
         proposals = aes128-sha256-modp2048\n  local {{\n   auth = psk\n   id = {name}\n  }}\n  \
         remote {{\n   auth = psk\n   id = server\n  }}\n  \
         children {{\n   net {{\n    remote_ts = {INNER}/32\n    esp_proposals = aes128-sha256\n   }}\n  }}\n }}\n}}\n\
         secrets {{\n ike-a {{\n  secret = sekret\n }}\n}}\n",
        name = node.namespace(),
    ));
    charon
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_read_from_swanctls_list() {
        let listed = "srv: #3, ESTABLISHED, IKEv1, db10_i bd3b_r*
  local  '198.51.100.10' @ 198.51.100.10[500]
  remote 'lab-d3' @ 198.51.100.1[500] XAuth: 'user' [10.9.0.3]
  net: #6, reqid 3, INSTALLED, TUNNEL, ESP:AES_CBC-128/HMAC_SHA1_96
    in  8affee01,      0 bytes,     0 packets
    out a910a0b0,      0 bytes,     0 packets
    local  0.0.0.0/0
    remote 10.9.0.3/32
";
        let expected = Child {
            peer: "lab-d3".to_owned(),
            number: 6,
            incoming: 0x8aff_ee01,
            outgoing: 0xa910_a0b0,
            address: "10.9.0.3".to_owned(),
        };
        assert_eq!(children(listed), [expected]);
    }
}
