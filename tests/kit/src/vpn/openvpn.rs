//! OpenVPN over UDP with a small PKI of its own.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::{INNER, spawn};
use crate::Lab;
use crate::node::Node;
use crate::process::Background;

/// What it needs beyond a lab's own programs.
pub const PROGRAMS: [(&str, &str); 3] =
    [("openvpn", "openvpn"), ("openssl", "openssl"), ("unshare", "util-linux")];

/// Its interface.
pub const DEVICE: &str = "tun0";
/// Port of the server.
pub const PORT: u16 = 1194;

/// A certification authority and one certificate each for the server and all clients.
#[derive(Debug)]
pub struct Pki(PathBuf);

impl Pki {
    /// Makes it.
    ///
    /// # Panics
    /// When openssl fails.
    pub fn make(lab: &Lab) -> Self {
        let dir = lab.dir().join("pki");
        let script = format!(
            "set -e; mkdir -p {dir}; cd {dir}
             key() {{ openssl ecparam -name prime256v1 -genkey -noout -out $1.key; }}
             key ca; openssl req -x509 -new -key ca.key -subj /CN=ca -days 30 -out ca.crt
             for who in server client; do
                key $who
                openssl req -new -key $who.key -subj /CN=$who -out $who.csr
                printf 'extendedKeyUsage=%sAuth\\nkeyUsage=digitalSignature\\n' $who >$who.ext
                openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile $who.ext -out $who.crt
             done",
            dir = dir.display()
        );
        lab.s1.sh(&script);
        Self(dir)
    }

    fn words(&self, who: &str) -> Vec<String> {
        let file = |name: String| self.0.join(name).to_string_lossy().into_owned();
        let mut words = vec!["--ca".to_owned(), file("ca.crt".to_owned())];
        words.extend(["--cert".to_owned(), file(format!("{who}.crt"))]);
        words.extend(["--key".to_owned(), file(format!("{who}.key"))]);
        words
    }
}

/// Starts a server in `node` on UDP port 1194 and waits until it is ready.
///
/// # Panics
/// When it does not get ready.
pub fn server(node: &Node, pki: &Pki, addr: Ipv4Addr) -> Background {
    // Its own address inside is the first of the network.
    let [a, b, c, _] = INNER.octets();
    let network = Ipv4Addr::new(a, b, c, 0).to_string();
    let options =
        ["--local", &addr.to_string(), "--server", &network, "255.255.255.0", "--topology", "subnet"];
    let options = [&options[..], &["--dh", "none", "--duplicate-cn", "--keepalive", "10", "60"]].concat();
    let server = start(node, pki, "server", &options);
    server.wait_for_log("Initialization Sequence Completed", Duration::from_secs(10));
    server
}

/// Starts a client in `node` of the server at `addr`; its interface is [`DEVICE`].
pub fn client(node: &Node, pki: &Pki, addr: Ipv4Addr) -> Background {
    let (addr, port) = (addr.to_string(), PORT.to_string());
    start(
        node,
        pki,
        "client",
        &["--client", "--nobind", "--remote", &addr, &port, "--remote-cert-tls", "server"],
    )
}

fn start(node: &Node, pki: &Pki, who: &str, options: &[&str]) -> Background {
    let keys = pki.words(who);
    let mut words = vec!["openvpn", "--dev", DEVICE, "--dev-type", "tun", "--proto", "udp4", "--verb", "3"];
    // Where the kernel could carry the data, user space does it all the same.
    words.push("--disable-dco");
    words.extend(options);
    words.extend(keys.iter().map(String::as_str));
    spawn(node, "", &words)
}
