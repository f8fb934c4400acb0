//! vpnc: Cisco's kind of IPsec (IKEv1 aggressive mode, XAUTH, mode config) with its own ESP in user space; here
//! without NAT traversal, so that bare ESP goes over the wire and IKE stays on port 500.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use super::{INNER, spawn};
use crate::Lab;
use crate::node::Node;
use crate::process::Background;

/// What it needs beyond a lab's own programs.
pub const PROGRAMS: [(&str, &str); 2] = [("vpnc", "vpnc"), ("unshare", "util-linux")];

/// Its interface.
pub const DEVICE: &str = "tun0";

/// Takes the address and routes only the server's inner address into the tunnel.
const SCRIPT: &str = r#"#!/bin/sh
[ "$reason" = connect ] || exit 0
ip addr add "$INTERNAL_IP4_ADDRESS/32" dev "$TUNDEV"
ip link set "$TUNDEV" mtu 1300 up
"#;

/// Dials the server at `addr` from `node`; see [`super::strongswan::vpnc_server`].
///
/// # Panics
/// When a file cannot be written.
pub fn client(lab: &Lab, node: &Node, addr: Ipv4Addr) -> Background {
    let script = lab.dir().join("vpnc-script");
    if !script.exists() {
        let other = lab.dir().join(format!("vpnc-script-{}", node.namespace()));
        fs::write(&other, format!("{SCRIPT}ip route add {INNER}/32 dev \"$TUNDEV\"\n"))
            .and_then(|()| fs::set_permissions(&other, fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::rename(&other, &script))
            .expect("the lab's folder is writable");
    }
    let file = lab.dir().join(format!("{}-vpnc.conf", node.namespace()));
    // A server gives one user one inner address, however many devices there are.
    let user = node.namespace().rsplit('-').next().expect("a name has parts");
    let config = format!(
        "IPSec gateway {addr}\nIPSec ID {name}\nIPSec secret sekret\nIKE Authmode psk\nIKE DH Group dh2\n\
         Perfect Forward Secrecy nopfs\nXauth username {user}\nXauth password pw\nNAT Traversal Mode none\n\
         Local Port 500\nInterface name {DEVICE}\nScript {script}\n",
        name = node.namespace(),
        script = script.display(),
    );
    fs::write(&file, config).expect("the lab's folder is writable");
    let words = [
        "vpnc",
        "--non-inter",
        "--no-detach",
        "--debug",
        "1",
        "--pid-file",
        "/run/pid",
        &file.to_string_lossy(),
    ];
    spawn(node, "", &words)
}
