//! The network of one run: a household, natd as its router, two providers, a server.
//!
//! ```text
//!  c1 .11 ┐
//!  c2 .12 ┼ br-lan 192.168.1.1 ─ r ─ wan0 ─ i1 ─ i2 ┬ s   192.0.2.10
//!  c3 .13 ┘                 198.51.100.1    .254     └ web 192.0.3.53
//! ```
//!
//! c1 is the device whose VPN is asked about, c2 does other things on the internet, c3 is a second device of the same
//! server where a case wants one. Seen from the router, i1 is hop 1, i2 hop 2 and the server hop 3.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use testkit::kernel::{self, AcceptKernelForwards};
use testkit::natd::Natd;
use testkit::vpn::POOL;
use testkit::{Background, Node, nat, sys, wait_for};

use crate::seed::Seed;

/// The device in question.
pub(crate) const C1: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
/// The device that browses.
pub(crate) const C2: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 12);
/// The second device of the same server.
pub(crate) const C3: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 13);
/// The VPN server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// DNS and web pages.
pub(crate) const WEB: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 53);

/// Which traffic natd translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of it.
    All,
    /// VPNs; the rest is the kernel's.
    Vpn,
}

impl Scope {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Vpn => "vpn",
        }
    }
}

/// Does the provider translate as well?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    No,
    /// In a box in front of the router.
    SecondNat,
    /// In its own network, for many customers.
    Carrier,
}

impl Upstream {
    /// The router's address and its gateway's on the WAN link.
    fn wan(self) -> (Ipv4Addr, Ipv4Addr) {
        match self {
            Self::No => (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 254)),
            Self::Carrier => (Ipv4Addr::new(100, 64, 7, 20), Ipv4Addr::new(100, 64, 7, 1)),
            Self::SecondNat => (Ipv4Addr::new(192, 168, 178, 20), Ipv4Addr::new(192, 168, 178, 1)),
        }
    }
}

/// The running network; dropping it ends its programs and deletes its namespaces.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) c1: Node,
    pub(crate) c2: Node,
    pub(crate) c3: Node,
    pub(crate) router: Node,
    pub(crate) isp1: Node,
    pub(crate) isp2: Node,
    pub(crate) server: Node,
    pub(crate) web: Node,
    /// Packet captures of the router's two sides.
    captures: Vec<Background>,
    natd: Option<Natd>,
    dir: PathBuf,
    names: Vec<String>,
}

impl Net {
    /// Builds it, without natd.
    ///
    /// # Panics
    /// When the machine does not let it.
    pub(crate) fn build(upstream: Upstream, seed: &mut Seed) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(1);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let prefix =
            std::env::var("NATD_LAB_PREFIX").unwrap_or_else(|_| format!("fl{}x", std::process::id()));
        let prefix = format!("{prefix}{number}-");
        let dir = std::env::temp_dir().join(format!("natd-lab-{prefix}"));
        fs::create_dir_all(&dir).expect("the folder for temporary files is writable");
        let names: Vec<String> =
            ["c1", "c2", "c3", "r", "i1", "i2", "s", "web"].map(|name| format!("{prefix}{name}")).into();
        let lines: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
        let made = batch(&dir, &lines);
        let node = |name: &str| Node::new(format!("{prefix}{name}"), &dir);
        let net = Self {
            c1: node("c1"),
            c2: node("c2"),
            c3: node("c3"),
            router: node("r"),
            isp1: node("i1"),
            isp2: node("i2"),
            server: node("s"),
            web: node("web"),
            captures: Vec::new(),
            natd: None,
            dir: dir.clone(),
            names,
        };
        assert!(made, "cannot make network namespaces {prefix}*");
        net.wire_up(upstream, seed);
        net.wait_for_links(upstream);
        net
    }

    /// The run's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn wire_up(&self, upstream: Upstream, seed: &mut Seed) {
        let (wan, gateway) = upstream.wan();
        let mut links = String::new();
        for (a, name, b, peer) in [
            (&self.router, "d1", &self.c1, "eth0"),
            (&self.router, "d2", &self.c2, "eth0"),
            (&self.router, "d3", &self.c3, "eth0"),
            (&self.router, "wan0", &self.isp1, "home"),
            (&self.isp1, "up0", &self.isp2, "down0"),
            (&self.isp2, "srv", &self.server, "eth0"),
            (&self.isp2, "web", &self.web, "eth0"),
        ] {
            let (a, b) = (a.namespace(), b.namespace());
            links.push_str(&format!("link add {name} netns {a} type veth peer name {peer} netns {b}\n"));
        }
        self.router.ip(&links);
        self.router.ip(&format!(
            "link set lo up\nlink add br-lan type bridge\nlink set d1 master br-lan up\nlink set d2 master br-lan up\n\
             link set d3 master br-lan up\nlink set br-lan up\naddr add 192.168.1.1/24 dev br-lan\n\
             addr add {wan}/24 dev wan0\nlink set wan0 up\nroute add default via {gateway}\n"
        ));
        self.isp1.ip(&format!(
            "link set lo up\naddr add {gateway}/24 dev home\nlink set home up\naddr add 203.0.113.1/30 dev up0\n\
             link set up0 up\nroute add 192.0.2.0/23 via 203.0.113.2\n"
        ));
        self.isp2.ip(
            "link set lo up\naddr add 203.0.113.2/30 dev down0\nlink set down0 up\naddr add 192.0.2.1/24 dev srv\n\
             link set srv up\naddr add 192.0.3.1/24 dev web\nlink set web up\nroute add 198.51.100.0/24 via 203.0.113.1\n",
        );
        for (node, addr) in [(&self.c1, C1), (&self.c2, C2), (&self.c3, C3)] {
            join(node, addr, Ipv4Addr::new(192, 168, 1, 1));
        }
        join(&self.server, SERVER, Ipv4Addr::new(192, 0, 2, 1));
        join(&self.web, WEB, Ipv4Addr::new(192, 0, 3, 1));
        for node in [&self.router, &self.isp1, &self.isp2] {
            node.sysctl("ipv4/ip_forward", "1");
        }
        if Path::new("/proc/sys/net/bridge").is_dir() {
            self.router.sysctl("bridge/bridge-nf-call-iptables", "0");
        }
        // What providers' boxes and servers run differs.
        self.isp1.sysctl("ipv4/ip_default_ttl", seed.pick(&["64", "128", "255"]));
        self.server.sysctl("ipv4/ip_default_ttl", seed.pick(&["64", "64", "128"]));
        if upstream != Upstream::No {
            self.isp1.nft(
                "table ip second {\n chain postrouting {\n  type nat hook postrouting priority 100;\n  \
                 oifname \"up0\" masquerade\n }\n}\n",
            );
        }
    }

    fn wait_for_links(&self, upstream: Upstream) {
        let (_, gateway) = upstream.wan();
        let router = Ipv4Addr::new(192, 168, 1, 1);
        let ways = [
            (&self.c1, router),
            (&self.c2, router),
            (&self.c3, router),
            (&self.router, gateway),
            (&self.isp1, SERVER),
            (&self.web, SERVER),
        ];
        for (node, to) in ways {
            wait_for("the lab's links", Duration::from_secs(10), || {
                node.run(&["ping", "-n", "-c1", "-W1", &to.to_string()]).success()
            });
        }
    }

    /// Starts natd as the router, with further lines of its configuration: of `[nat]`, and whole sections.
    ///
    /// # Panics
    /// When it does not get ready.
    pub(crate) fn start_natd(&mut self, scope: Scope, nat_lines: &str, sections: &str) {
        let lines = match scope {
            Scope::All => {
                self.router.nft(&kernel::firewall(AcceptKernelForwards::No));
                nat_lines.to_owned()
            }
            Scope::Vpn => {
                self.router.nft(&kernel::firewall(AcceptKernelForwards::Yes));
                self.router.nft(&kernel::masquerade(Ipv4Addr::UNSPECIFIED, &[]));
                format!("scope = \"vpn\"\n{nat_lines}")
            }
        };
        let config = nat::natd_toml(&["br-lan"], &lines, sections, &[]);
        let mut natd = Natd::start(&self.router, &self.dir, &config);
        natd.wait_ready();
        self.natd = Some(natd);
    }

    /// The running natd.
    ///
    /// # Panics
    /// Before it was started.
    pub(crate) fn natd(&self) -> &Natd {
        self.natd.as_ref().expect("natd was started")
    }

    /// Records both sides of the router from now on.
    pub(crate) fn record(&mut self) {
        for (interface, name) in [("br-lan", "lan.pcap"), ("wan0", "wan.pcap")] {
            let file = self.dir.join(name);
            let file = file.to_string_lossy();
            self.captures
                .push(self.router.spawn(&[
                    "tcpdump", "-Z", "root", "-n", "-U", "-s", "300", "-i", interface, "-w", &file,
                ]));
        }
        let started = || self.captures.iter().all(|capture| capture.log().contains("listening on"));
        wait_for("tcpdump", Duration::from_secs(10), started);
    }

    /// Copies the captures and all logs to `to`.
    pub(crate) fn keep(&self, to: &Path) {
        let copied = fs::create_dir_all(to).and_then(|()| {
            for entry in fs::read_dir(&self.dir)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    fs::copy(entry.path(), to.join(entry.file_name()))?;
                }
            }
            Ok(())
        });
        if let Err(error) = copied {
            eprintln!("{}: {error}", to.display());
        }
    }
}

fn join(node: &Node, addr: Ipv4Addr, gateway: Ipv4Addr) {
    // What belongs in a tunnel stays at home while there is none.
    node.ip(&format!(
        "link set lo up\naddr add {addr}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n\
         route add unreachable 10.8.0.0/24 metric 9999\nroute add unreachable {POOL} metric 9999\n"
    ));
}

fn batch(dir: &Path, lines: &str) -> bool {
    let file = dir.join("namespaces.ip");
    fs::write(&file, lines).expect("the lab's folder is writable");
    let outcome = Command::new("ip").arg("-force").arg("-batch").arg(&file).status();
    outcome.is_ok_and(|status| status.success())
}

impl Drop for Net {
    fn drop(&mut self) {
        self.captures.clear();
        self.natd = None;
        for name in &self.names {
            let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() else { continue };
            let own = i32::try_from(std::process::id());
            for pid in String::from_utf8_lossy(&output.stdout).split_whitespace().flat_map(str::parse::<i32>)
            {
                if Ok(pid) != own {
                    // It may have ended by itself. 9 is SIGKILL.
                    let _ = sys::kill(pid, 9);
                }
            }
        }
        let lines: String = self.names.iter().map(|name| format!("netns del {name}\n")).collect();
        if !batch(&self.dir, &lines) {
            eprintln!("namespaces are left over: {:?}", self.names);
        }
        // Left-over files in the folder for temporary files do no harm.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
