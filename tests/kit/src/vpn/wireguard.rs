//! WireGuard in user space: wireguard-go, set up by wg.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{INNER, spawn};
use crate::Lab;
use crate::clock::holds_within;
use crate::node::Node;
use crate::process::Background;

/// What it needs beyond a lab's own programs.
pub const PROGRAMS: [(&str, &str); 3] =
    [("wireguard-go", "wireguard-go"), ("wg", "wireguard-tools"), ("unshare", "util-linux")];

/// Both sides' port.
pub const PORT: u16 = 51_820;

const DEVICE: &str = "wg0";

/// Makes a server at `addr` in `server` and a client in each device of the lab, all on port 51820.
///
/// # Panics
/// When one does not start.
pub fn network(lab: &Lab, server: &Node, addr: Ipv4Addr) -> Vec<Background> {
    let dir = lab.dir().display();
    let names = (0..=lab.devices().len()).map(|number| number.to_string());
    let names = names.collect::<Vec<_>>().join(" ");
    server.sh(&format!(
        "umask 077; cd {dir}; for n in {names}; do wg genkey | tee wg$n.key | wg pubkey >wg$n.pub; done"
    ));
    let peers: String = (1..=lab.devices().len())
        .map(|number| format!(" peer $(cat {dir}/wg{number}.pub) allowed-ips {}/32", inner(number)))
        .collect();
    let mut running = vec![start(server, 0, &format!("private-key {dir}/wg0.key{peers}"), INNER, &dir)];
    for (number, (node, _)) in (1..).zip(lab.devices()) {
        let settings = format!(
            "private-key {dir}/wg{number}.key peer $(cat {dir}/wg0.pub) endpoint {addr}:{PORT} allowed-ips {INNER}/32"
        );
        running.push(start(node, number, &settings, inner(number), &dir));
    }
    running
}

fn inner(number: usize) -> Ipv4Addr {
    let last = u8::try_from(number).expect("a household has less than 90 devices");
    Ipv4Addr::new(10, 9, 0, 10 + last)
}

fn start(
    node: &Node,
    number: usize,
    settings: &str,
    own: Ipv4Addr,
    dir: &std::path::Display<'_>,
) -> Background {
    // Whatever is set is set from within the program's own mount namespace, where its socket is.
    let script = format!(
        "set -e
         (until wg set {DEVICE} listen-port {PORT} {settings} 2>/dev/null; do sleep 0.05; done
          ip addr add {own}/32 dev {DEVICE}; ip link set {DEVICE} up
          ip route add {route} dev {DEVICE}; touch {dir}/wg{number}.up) &
         exec env LOG_LEVEL=error wireguard-go -f {DEVICE}",
        route = if number == 0 { "10.9.0.0/24".to_owned() } else { format!("{INNER}/32") },
    );
    let program = spawn(node, "mkdir -p /run/wireguard;", &["sh", "-c", &script]);
    let file = format!("{dir}/wg{number}.up");
    let up = holds_within(Duration::from_secs(8), || std::path::Path::new(&file).exists());
    assert!(up, "wireguard-go is not up: {}", program.log());
    program
}
