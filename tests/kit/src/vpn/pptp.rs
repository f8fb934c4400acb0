//! PPTP (RFC 2637): pptpd, and pptp as its client.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{INNER, ppp, spawn};
use crate::Lab;
use crate::node::Node;
use crate::process::Background;

/// What these programs need beyond a lab's own programs.
pub const PROGRAMS: [(&str, &str); 3] =
    [("pptpd", "pptpd"), ("pptp", "pptp-linux"), ("unshare", "util-linux")];

/// Starts pptpd in `node` on `addr`; its clients get 10.9.0.101 and on.
///
/// # Panics
/// When it does not listen.
pub fn server(lab: &Lab, node: &Node, addr: Ipv4Addr) -> Background {
    let file = lab.dir().join("pptpd.conf");
    let config = format!(
        "ppp {}\noption /dev/null\nnoipparam\nlisten {addr}\nlocalip {INNER}\nremoteip 10.9.0.101-199\nstimeout 10\n",
        ppp::program().display()
    );
    fs::write(&file, config).expect("the lab's folder is writable");
    let pid = lab.dir().join("pptpd.pid");
    let program = ["pptpd", "-f", "-c", &file.to_string_lossy(), "-p", &pid.to_string_lossy()];
    let server = spawn(node, "", &program);
    let listens = || node.run(&["ss", "-tlnH", "sport", "=", ":1723"]).stdout.contains(":1723");
    assert!(crate::clock::holds_within(Duration::from_secs(5), listens), "pptpd: {}", server.log());
    server
}

/// Which Call IDs a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallIds {
    /// Random ones.
    Random,
    /// This one first.
    Fixed(u16),
}

/// Starts a client in `node` of the server at `addr`; its interface is [`ppp::DEVICE`].
///
/// # Panics
/// When a file cannot be written.
pub fn client(lab: &Lab, node: &Node, addr: Ipv4Addr, ids: CallIds) -> Background {
    let before = match ids {
        CallIds::Random => String::new(),
        CallIds::Fixed(id) => {
            // The client reads its first Call ID from there, in the machine's own byte order.
            let file = lab.dir().join(format!("call-id-{id}"));
            fs::write(&file, id.to_ne_bytes()).expect("the lab's folder is writable");
            format!("mount --bind {} /dev/random;", file.display())
        }
    };
    let dial = format!("exec pptp {addr} --nolaunchpppd --nohostroute --nobuffer --loglevel 2");
    let program = ppp::program().to_string_lossy();
    let words = [&*program, "noauth", "ifname", ppp::DEVICE, "pty", &dial];
    spawn(node, &format!("mkdir -p /run/pptp; {before}"), &words)
}
