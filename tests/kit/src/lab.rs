//! A household, its router and a small internet, each machine a network namespace.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::address::{self, GATEWAY, ROUTER_LAN, S1, WAN, at};
use crate::capture::{Capture, Keep};
use crate::clock::wait_for;
use crate::kernel::{self, AcceptKernelForwards};
use crate::nat::{self, Chosen, Forward, Masquerade, Nat};
use crate::natd::Natd;
use crate::node::Node;
use crate::{requirements, sys};

/// Does the household have a second LAN?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecondLan {
    /// Yes, and natd serves it.
    Served,
    /// Yes, and something else serves it.
    Foreign,
    /// No.
    None,
}

/// Does the router's kernel pass bridged packets to its IP hooks (br_netfilter, as Docker sets it)?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BridgeFilter {
    On,
    Off,
}

/// A port that nobody listens on.
const DISCARD: u16 = 9;

/// What a lab shall be like.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    nat: Option<Nat>,
    beyond_kernel: Option<&'static str>,
    natd_lines: String,
    natd_sections: String,
    forwards: Vec<Forward>,
    needs: Vec<(&'static str, &'static str)>,
    devices: u8,
    needs_nat: bool,
    second_lan: SecondLan,
    bridge_filter: BridgeFilter,
    wan_address: Option<Ipv4Addr>,
    wan_mtu: u32,
    lan_mtu: u32,
    far_mtu: u32,
}

impl LabBuilder {
    /// Runs this NAT, whatever `NATD_LAB_NAT` says.
    pub fn nat(mut self, nat: Nat) -> Self {
        self.nat = Some(nat);
        self
    }

    /// Kernel masquerade is known to fail this scenario, for the reason given.
    pub fn beyond_kernel(mut self, why: &'static str) -> Self {
        self.beyond_kernel = Some(why);
        self
    }

    /// The scenario is about what a NAT does: it is skipped where the lab is routed.
    pub fn needs_nat(mut self) -> Self {
        self.needs_nat = true;
        self
    }

    /// Programs beyond those that every lab needs, each with the Debian package that has it; an absolute path
    /// names a file.
    pub fn needs(mut self, programs: &[(&'static str, &'static str)]) -> Self {
        self.needs.extend(programs);
        self
    }

    /// The number of devices on the first LAN, at least three; [`Lab::devices`] lists them.
    pub fn devices(mut self, count: u8) -> Self {
        self.devices = count;
        self
    }

    /// Further lines in natd's `[nat]` section.
    pub fn natd(mut self, lines: &str) -> Self {
        self.natd_lines.push_str(lines);
        self.natd_lines.push('\n');
        self
    }

    /// Further sections of natd's configuration.
    pub fn natd_section(mut self, text: &str) -> Self {
        self.natd_sections.push_str(text);
        self.natd_sections.push('\n');
        self
    }

    /// A port forward.
    pub fn forward(mut self, forward: Forward) -> Self {
        self.forwards.push(forward);
        self
    }

    /// A second LAN with the machine `guest`.
    pub fn second_lan(mut self) -> Self {
        self.second_lan = SecondLan::Served;
        self
    }

    /// A second LAN with the machine `guest` that natd is not told of, as a container network is.
    pub fn foreign_lan(mut self) -> Self {
        self.second_lan = SecondLan::Foreign;
        self
    }

    /// Bridged packets pass the router's IP hooks too (br_netfilter), where this kernel can do that.
    pub fn bridge_filter(mut self) -> Self {
        self.bridge_filter = BridgeFilter::On;
        self
    }

    /// The router's WAN address; `None`: it has none yet.
    pub fn wan_address(mut self, addr: Option<Ipv4Addr>) -> Self {
        self.wan_address = addr;
        self
    }

    /// MTU of the link between the router and the internet.
    pub fn wan_mtu(mut self, mtu: u32) -> Self {
        self.wan_mtu = mtu;
        self
    }

    /// MTU of the first LAN on the router's side.
    pub fn lan_mtu(mut self, mtu: u32) -> Self {
        self.lan_mtu = mtu;
        self
    }

    /// MTU of the link behind the internet's router, towards s3.
    pub fn far_mtu(mut self, mtu: u32) -> Self {
        self.far_mtu = mtu;
        self
    }

    /// Builds the lab and starts its NAT. `None` when the test is skipped, which has been printed.
    ///
    /// # Panics
    /// When something needed is missing, or the lab or the NAT does not come up.
    pub fn start(self) -> Option<Lab> {
        if !requirements::met_with(&self.needs) {
            return None;
        }
        let chosen = Chosen::from_environment();
        if let (Chosen::Kernel, Some(why)) = (chosen, self.beyond_kernel) {
            requirements::skip(&format!("kernel masquerade cannot pass it: {why}"));
            return None;
        }
        if chosen == Chosen::Routed && (self.needs_nat || !self.forwards.is_empty()) {
            requirements::skip("there is no NAT");
            return None;
        }
        let nat = self.nat.unwrap_or(match chosen {
            Chosen::Natd => Nat::Natd,
            Chosen::NatdBeside => Nat::NatdBeside(Masquerade::Nft),
            Chosen::Kernel | Chosen::KernelAll => Nat::KernelMasquerade,
            Chosen::Routed => Nat::Routed,
        });
        Some(Lab::build(self, nat))
    }
}

/// A running lab; dropping it ends its processes and deletes its namespaces.
#[derive(Debug)]
pub struct Lab {
    /// The router.
    pub router: Node,
    /// First device, 192.168.1.11.
    pub d1: Node,
    /// Second device, 192.168.1.12.
    pub d2: Node,
    /// Third device, 192.168.1.13.
    pub d3: Node,
    /// The router of the internet, 198.51.100.254.
    pub internet: Node,
    /// First server, 198.51.100.10.
    pub s1: Node,
    /// Second server, 198.51.100.20.
    pub s2: Node,
    /// Third server, 203.0.113.10, behind the internet's router.
    pub s3: Node,
    more: Vec<Node>,
    guest: Option<Node>,
    builder: LabBuilder,
    nat: Nat,
    natd: Option<Natd>,
    namespaces: Namespaces,
    _slot: Slot,
}

impl Lab {
    /// A household of three devices with an ordinary connection; change what a test needs, then
    /// [`LabBuilder::start`] it.
    pub fn household() -> LabBuilder {
        LabBuilder {
            nat: None,
            beyond_kernel: None,
            natd_lines: String::new(),
            natd_sections: String::new(),
            forwards: Vec::new(),
            needs: Vec::new(),
            devices: 3,
            needs_nat: false,
            second_lan: SecondLan::None,
            bridge_filter: BridgeFilter::Off,
            wan_address: Some(WAN),
            wan_mtu: 1500,
            lan_mtu: 1500,
            far_mtu: 1500,
        }
    }

    fn build(builder: LabBuilder, nat: Nat) -> Self {
        let slot = Slot::take();
        let mut namespaces = Namespaces::new();
        let [router, d1, d2, d3, internet, s1, s2, s3] =
            ["r", "d1", "d2", "d3", "w", "s1", "s2", "s3"].map(|name| namespaces.add(name));
        let more = (4..=builder.devices).map(|number| namespaces.add(&format!("d{number}"))).collect();
        let guest = (builder.second_lan != SecondLan::None).then(|| namespaces.add("g"));
        namespaces.create();
        let mut lab = Self {
            router,
            d1,
            d2,
            d3,
            internet,
            s1,
            s2,
            s3,
            more,
            guest,
            builder,
            nat: Nat::None,
            natd: None,
            namespaces,
            _slot: slot,
        };
        lab.wire_up();
        lab.wait_for_links();
        lab.start_nat(nat);
        lab
    }

    /// The device on the second LAN.
    ///
    /// # Panics
    /// When the lab was built without one.
    pub fn guest(&self) -> &Node {
        self.guest.as_ref().expect("built with second_lan()")
    }

    /// All devices on the first LAN with their addresses: d1, d2, d3 and what [`LabBuilder::devices`] added.
    pub fn devices(&self) -> Vec<(&Node, Ipv4Addr)> {
        let nodes = [&self.d1, &self.d2, &self.d3].into_iter().chain(&self.more);
        nodes.zip(1..).map(|(node, number)| (node, address::device(number))).collect()
    }

    /// Which NAT runs.
    pub fn nat(&self) -> Nat {
        self.nat
    }

    /// The running natd.
    ///
    /// # Panics
    /// When another NAT was chosen.
    pub fn natd(&mut self) -> &mut Natd {
        self.natd.as_mut().expect("this scenario is about natd itself; it needs NATD_LAB_NAT=natd")
    }

    /// The lab's own folder, for configuration and logs.
    pub fn dir(&self) -> &Path {
        &self.namespaces.dir
    }

    /// natd's configuration for this lab.
    pub fn natd_config(&self) -> String {
        let lans: &[&str] = match self.builder.second_lan {
            SecondLan::Served => &["br-lan", "br-iot"],
            SecondLan::Foreign | SecondLan::None => &["br-lan"],
        };
        let builder = &self.builder;
        let (beside, _) = self.forwards();
        match self.nat {
            Nat::NatdBeside(_) => {
                let lines = format!("scope = \"vpn\"\n{}", builder.natd_lines);
                nat::natd_toml(lans, &lines, &builder.natd_sections, &beside)
            }
            Nat::None | Nat::KernelMasquerade | Nat::Natd | Nat::Routed => {
                nat::natd_toml(lans, &builder.natd_lines, &builder.natd_sections, &builder.forwards)
            }
        }
    }

    /// Forwards of VPNs, and the others.
    fn forwards(&self) -> (Vec<Forward>, Vec<Forward>) {
        self.builder.forwards.iter().partition(|forward| forward.is_vpn())
    }

    /// Puts `nat` in place.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_nat(&mut self, nat: Nat) {
        match nat {
            Nat::None => self.router.nft(&kernel::firewall(AcceptKernelForwards::No)),
            Nat::KernelMasquerade => {
                self.router.nft("table ip lab_firewall\ndelete table ip lab_firewall\n");
                self.router.nft(&kernel::firewall(AcceptKernelForwards::Yes));
                let wan = self.builder.wan_address.unwrap_or(WAN);
                self.router.nft(&kernel::masquerade(wan, &self.builder.forwards));
            }
            Nat::Routed => {
                // No firewall either: it would have to know the protocols.
                self.router.nft("table ip lab_firewall\ndelete table ip lab_firewall\n");
                self.internet.ip(&format!("route add 192.168.0.0/16 via {WAN}\n"));
            }
            Nat::NatdBeside(by) => {
                if self.nat != Nat::KernelMasquerade {
                    self.masquerade(by);
                }
                self.nat = nat;
                self.launch_natd();
                self.natd().wait_ready();
            }
            Nat::Natd => {
                self.router.nft("table ip lab_firewall\ndelete table ip lab_firewall\n");
                self.router.nft(&kernel::firewall(AcceptKernelForwards::No));
                self.launch_natd();
                if self.builder.wan_address.is_some() {
                    self.natd().wait_ready();
                }
            }
        }
        self.nat = nat;
    }

    /// The kernel's masquerade, with those forwards that are not natd's.
    fn masquerade(&self, by: Masquerade) {
        let (wan, (_, forwards)) = (self.builder.wan_address.unwrap_or(WAN), self.forwards());
        self.router.nft("table ip lab_firewall\ndelete table ip lab_firewall\n");
        self.router.nft(&kernel::firewall(AcceptKernelForwards::Yes));
        match by {
            Masquerade::Nft => self.router.nft(&kernel::masquerade(wan, &forwards)),
            Masquerade::Iptables => drop(self.router.sh(&kernel::masquerade_by_iptables(wan, &forwards))),
        }
    }

    fn launch_natd(&mut self) {
        let config = self.natd_config();
        let natd = Natd::start(&self.router, &self.namespaces.dir, &config);
        self.natd = Some(natd);
    }

    /// Captures everything on the WAN link, on the internet's side of it; "outgoing" is towards the router.
    pub fn capture_wan(&self) -> Capture {
        self.internet.capture("pr", Keep::All)
    }

    /// Captures only packets on the WAN link that show a household address.
    pub fn watch_for_leaks(&self) -> Capture {
        self.internet.capture("pr", Keep::Leaks)
    }

    fn wire_up(&self) {
        self.make_links();
        let builder = &self.builder;
        self.configure_router();
        self.internet.ip(&format!(
            "link add br0 type bridge\nlink set pr master br0 mtu {wan} up\nlink set ps1 master br0 mtu {wan} up\n\
             link set ps2 master br0 mtu {wan} up\nlink set br0 mtu {wan} up\naddr add 198.51.100.254/24 dev br0\n\
             addr add 203.0.113.1/24 dev ps3\nlink set ps3 mtu {far} up\nlink set lo up\n",
            wan = builder.wan_mtu,
            far = builder.far_mtu,
        ));
        self.internet.sysctl("ipv4/ip_forward", "1");
        for (node, addr) in self.devices() {
            join(node, &addr.to_string(), "192.168.1.1", 1500);
        }
        if let Some(guest) = &self.guest {
            join(guest, "192.168.2.21", "192.168.2.1", 1500);
        }
        for (node, last) in [(&self.s1, 10), (&self.s2, 20)] {
            join(node, &format!("198.51.100.{last}"), "198.51.100.254", builder.wan_mtu);
        }
        join(&self.s3, "203.0.113.10", "203.0.113.1", 1500);
        for node in [&self.router, &self.internet] {
            // A lab has more errors in a second than a router in an hour.
            node.sysctl("ipv4/icmp_ratelimit", "0");
        }
        if Path::new("/proc/sys/net/bridge").is_dir() {
            let on = if builder.bridge_filter == BridgeFilter::On { "1" } else { "0" };
            self.router.sysctl("bridge/bridge-nf-call-iptables", on);
            self.internet.sysctl("bridge/bridge-nf-call-iptables", "0");
        }
    }

    /// Bridges forward only once the kernel has noticed that their ports are up, which may take a second.
    fn wait_for_links(&self) {
        let gateways = [
            (&self.d1, ROUTER_LAN),
            (&self.d2, ROUTER_LAN),
            (&self.d3, ROUTER_LAN),
            (&self.s1, GATEWAY),
            (&self.s2, GATEWAY),
            (&self.s3, address::FAR_GATEWAY),
            (&self.router, GATEWAY),
        ];
        let more = self.more.iter().map(|device| (device, ROUTER_LAN));
        let guest = self.guest.iter().map(|guest| (guest, address::ROUTER_IOT));
        let wan = self.builder.wan_address.map_or(6, |_| 7);
        for (node, gateway) in gateways.into_iter().take(wan).chain(more).chain(guest) {
            let socket = node.udp(at(Ipv4Addr::UNSPECIFIED, 0));
            socket.connect(at(gateway, DISCARD)).expect("there is a route");
            socket.set_read_timeout(Some(Duration::from_millis(30))).expect("a timeout can be set");
            wait_for("the lab's links", Duration::from_secs(5), || {
                // Nobody listens there; the refusal shows that packets pass both ways.
                socket
                    .send(b"?")
                    .and_then(|_| socket.recv(&mut [0]))
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            });
        }
    }

    fn make_links(&self) {
        let (router, internet) = (self.router.namespace(), self.internet.namespace());
        let mut lines = format!("link add wan0 netns {router} type veth peer name pr netns {internet}\n");
        for (number, (node, _)) in (1..).zip(self.devices()) {
            let device = node.namespace();
            lines.push_str(&format!(
                "link add d{number} netns {router} type veth peer name eth0 netns {device}\n"
            ));
        }
        if let Some(guest) = &self.guest {
            let device = guest.namespace();
            lines.push_str(&format!("link add g netns {router} type veth peer name eth0 netns {device}\n"));
        }
        for (port, node) in [("ps1", &self.s1), ("ps2", &self.s2), ("ps3", &self.s3)] {
            let server = node.namespace();
            lines.push_str(&format!(
                "link add {port} netns {internet} type veth peer name eth0 netns {server}\n"
            ));
        }
        // Links between two namespaces can be made from any third one.
        self.router.ip(&lines);
    }

    fn configure_router(&self) {
        let (wan, lan) = (self.builder.wan_mtu, self.builder.lan_mtu);
        let mut lines = format!("link set lo up\nlink set wan0 mtu {wan} up\nlink add br-lan type bridge\n");
        for number in 1..=self.devices().len() {
            lines.push_str(&format!("link set d{number} master br-lan mtu {lan} up\n"));
        }
        lines.push_str(&format!("link set br-lan mtu {lan} up\naddr add 192.168.1.1/24 dev br-lan\n"));
        if self.guest.is_some() {
            lines.push_str("link add br-iot type bridge\nlink set g master br-iot up\n");
            lines.push_str("link set br-iot up\naddr add 192.168.2.1/24 dev br-iot\n");
        }
        if let Some(addr) = self.builder.wan_address {
            lines.push_str(&format!("addr add {addr}/24 dev wan0\nroute add default via 198.51.100.254\n"));
        }
        self.router.ip(&lines);
        self.router.sysctl("ipv4/ip_forward", "1");
    }
}

fn join(node: &Node, addr: &str, gateway: &str, mtu: u32) {
    node.ip(&format!(
        "link set lo up\naddr add {addr}/24 dev eth0\nlink set eth0 mtu {mtu} up\nroute add default via {gateway}\n"
    ));
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_state();
        }
        self.natd = None;
    }
}

impl Lab {
    /// The logs of all other programs, by name.
    fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir()).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        logs.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".log") && !name.contains("-natd-")
        });
        logs.sort_unstable();
        logs
    }

    fn show_state(&self) {
        let mut text = String::from("\n---- the router when the test failed ----\n");
        for words in [&["nft", "list", "ruleset"][..], &["conntrack", "-L"], &["iptables-save"]] {
            let outcome = self.router.run(words);
            text.push_str(&format!("$ {}\n{}\n", outcome.command, tail(&outcome.stdout, 120)));
        }
        if let Some(natd) = &self.natd {
            text.push_str(&format!("---- natd's log ----\n{}\n", tail(&natd.log(), 200)));
        }
        for path in self.logs() {
            let log = fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            text.push_str(&format!("---- {}\n{}\n", path.display(), tail(&log, 40)));
        }
        eprintln!("{text}---- end (s1 is {S1}) ----");
    }
}

/// The last `lines` lines of `text`.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

/// The namespaces of one lab; dropping deletes them.
#[derive(Debug)]
struct Namespaces {
    prefix: String,
    names: Vec<String>,
    dir: PathBuf,
}

impl Namespaces {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(1);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let prefix =
            std::env::var("NATD_LAB_PREFIX").unwrap_or_else(|_| format!("nlb{}x", std::process::id()));
        let prefix = format!("{prefix}{number}-");
        let dir = std::env::temp_dir().join(format!("natd-lab-{prefix}"));
        fs::create_dir_all(&dir).expect("the folder for temporary files is writable");
        Self { prefix, names: Vec::new(), dir }
    }

    fn add(&mut self, name: &str) -> Node {
        let name = format!("{}{name}", self.prefix);
        self.names.push(name.clone());
        Node::new(name, &self.dir)
    }

    fn create(&self) {
        let lines: String = self.names.iter().map(|name| format!("netns add {name}\n")).collect();
        let (done, said) = self.batch(&lines);
        assert!(done, "cannot make network namespaces: {said}");
    }

    fn batch(&self, lines: &str) -> (bool, String) {
        let file = self.dir.join("namespaces.ip");
        fs::write(&file, lines).expect("the lab's folder is writable");
        let output = Command::new("ip").arg("-force").arg("-batch").arg(&file).output();
        match output {
            Ok(output) => (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => (false, error.to_string()),
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() else { continue };
            let own = i32::try_from(std::process::id());
            for pid in String::from_utf8_lossy(&output.stdout).split_whitespace().flat_map(str::parse::<i32>)
            {
                if Ok(pid) != own {
                    // It may have ended by itself.
                    let _ = sys::kill(pid, libc::SIGKILL);
                }
            }
        }
        let lines: String = self.names.iter().map(|name| format!("netns del {name}\n")).collect();
        let (done, said) = self.batch(&lines);
        if !done {
            eprintln!("namespaces {}* are left over: {said}", self.prefix);
        }
        // Left-over files in the folder for temporary files do no harm.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The right to run a lab; as many at one time as there are processors, at most four.
#[derive(Debug)]
struct Slot;

static LABS: Mutex<usize> = Mutex::new(0);
static LAB_ENDED: Condvar = Condvar::new();

impl Slot {
    fn take() -> Self {
        let most = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4);
        let mut running = LABS.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= most {
            running = LAB_ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *LABS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LAB_ENDED.notify_one();
    }
}
