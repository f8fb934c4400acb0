//! L2TP without IPsec (RFC 2661): xl2tpd as server (LNS) and client (LAC).

use std::fs;
use std::net::Ipv4Addr;

use super::{INNER, ppp, spawn};
use crate::Lab;
use crate::node::Node;
use crate::process::Background;

/// What these programs need beyond a lab's own programs.
pub const PROGRAMS: [(&str, &str); 3] =
    [("xl2tpd", "xl2tpd"), ("/usr/sbin/pppd", "ppp"), ("unshare", "util-linux")];

/// Both sides' well-known port.
pub const PORT: u16 = 1701;

/// Starts an LNS in `node` on `addr`.
pub fn server(lab: &Lab, node: &Node, addr: Ipv4Addr) -> Background {
    let config = format!(
        "[global]\nlisten-addr = {addr}\nport = {PORT}\naccess control = no\n\
         [lns default]\nip range = 10.9.0.101-10.9.0.199\nlocal ip = {INNER}\nrequire chap = no\nrefuse pap = yes\n\
         require authentication = no\nname = lns\npppoptfile = /dev/null\nlength bit = yes\n"
    );
    start(lab, node, &config)
}

/// Starts a LAC in `node` that dials the LNS at `addr` from port 1701; its interface is [`ppp::DEVICE`].
pub fn client(lab: &Lab, node: &Node, addr: Ipv4Addr) -> Background {
    let config = format!(
        "[global]\nport = {PORT}\naccess control = no\n\
         [lac vpn]\nlns = {addr}:{PORT}\nname = lac\npppoptfile = /dev/null\nlength bit = yes\n\
         require authentication = no\nautodial = yes\nredial = yes\nredial timeout = 2\nmax redials = 3\n"
    );
    start(lab, node, &config)
}

fn start(lab: &Lab, node: &Node, config: &str) -> Background {
    let path =
        |what: &str| lab.dir().join(format!("{}-{what}", node.namespace())).to_string_lossy().into_owned();
    let (file, pid, control) = (path("xl2tpd.conf"), path("xl2tpd.pid"), path("xl2tpd.ctl"));
    fs::write(&file, config).expect("the lab's folder is writable");
    // The path of pppd is compiled into xl2tpd.
    let before = format!("mkdir -p /run/xl2tpd; mount --bind {} /usr/sbin/pppd;", ppp::program().display());
    spawn(node, &before, &["xl2tpd", "-D", "-c", &file, "-s", "/dev/null", "-p", &pid, "-C", &control])
}
