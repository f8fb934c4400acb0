//! Client, router and server in three network namespaces, once for each path that is compared.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cpu;
use crate::clock;

/// Where the server listens.
pub(super) const SERVER: [u8; 4] = [203, 0, 113, 10];

/// What the router does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is none: the baseline that endpoints cost.
    Direct,
    /// Stateful firewall only.
    Forward,
    /// Stateful firewall and nft masquerade.
    Masquerade,
    /// Stateful firewall and natd, from this binary.
    Natd(PathBuf),
    /// The same, and PPTP is allowed.
    NatdPptp(PathBuf),
}

/// One such set, with whatever runs in it. Taken down when dropped.
pub(super) struct Lab {
    prefix: String,
    daemon: Option<Child>,
    folder: PathBuf,
}

/// A firewall as a careful owner has it, in place on every path.
const FIREWALL: &str = r#"
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" oifname "wan" accept
    }
}
"#;

const MASQUERADE: &str = r#"
table ip kernel_nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade
    }
}
"#;

const CONFIG: &str = "[nat]\nlan = [\"lan\"]\nwan = \"wan\"\n";
const PPTP: &str = "[passthrough]\npptp = true\n";

impl Lab {
    /// Builds the set whose namespaces begin with `nbe-` and `tag`.
    ///
    /// # Errors
    /// Says which step failed.
    pub(super) fn build(tag: &str, kind: &Kind) -> io::Result<Self> {
        let prefix = format!("nbe-{tag}-");
        let folder = std::env::temp_dir().join(format!("{prefix}{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut lab = Self { prefix, daemon: None, folder };
        lab.remove_namespaces(); // of a run that was killed
        let (client, router, server) = (lab.name("client"), lab.name("router"), lab.name("server"));
        if *kind == Kind::Direct {
            shell(&format!(
                "ip netns add {client}; ip netns add {server}
                 ip -n {client} link add lan type veth peer name wan netns {server}
                 ip -n {client} addr add 203.0.113.2/24 dev lan; ip -n {client} link set lan up
                 ip -n {server} addr add 203.0.113.10/24 dev wan; ip -n {server} link set wan up"
            ))?;
            return Ok(lab);
        }
        shell(&format!(
            "ip netns add {client}; ip netns add {router}; ip netns add {server}
             ip -n {router} link add lan type veth peer name eth0 netns {client}
             ip -n {router} link add wan type veth peer name eth0 netns {server}
             for n in {client} {router} {server}; do ip -n $n link set lo up; done
             ip -n {client} addr add 192.168.1.11/24 dev eth0; ip -n {client} link set eth0 up
             ip -n {router} addr add 192.168.1.1/24 dev lan; ip -n {router} link set lan up
             ip -n {router} addr add 203.0.113.2/24 dev wan; ip -n {router} link set wan up
             ip -n {server} addr add 203.0.113.10/24 dev eth0; ip -n {server} link set eth0 up
             ip -n {client} route add default via 192.168.1.1
             ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1"
        ))?;
        lab.nft(FIREWALL)?;
        match kind {
            Kind::Direct => {}
            Kind::Forward => shell(&format!("ip -n {server} route add 192.168.1.0/24 via 203.0.113.2"))?,
            Kind::Masquerade => lab.nft(MASQUERADE)?,
            Kind::Natd(program) => lab.start(program, CONFIG)?,
            Kind::NatdPptp(program) => lab.start(program, &[CONFIG, PPTP].concat())?,
        }
        Ok(lab)
    }

    /// The namespace of `role`: client, router or server.
    pub(super) fn name(&self, role: &str) -> String {
        format!("{}{role}", self.prefix)
    }

    /// CPU time of the daemon so far, with all its threads.
    pub(super) fn cpu_of_daemon(&self) -> Duration {
        self.daemon.as_ref().map_or(Duration::ZERO, |daemon| cpu::of_process(daemon.id()))
    }

    fn nft(&self, rules: &str) -> io::Result<()> {
        self.nft_in("router", rules)
    }

    /// Gives the namespace of `role` these rules.
    ///
    /// # Errors
    /// When nft refuses them.
    pub(super) fn nft_in(&self, role: &str, rules: &str) -> io::Result<()> {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.name(role), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = nft.stdin.take() {
            input.write_all(rules.as_bytes())?;
        }
        if nft.wait()?.success() { Ok(()) } else { Err(io::Error::other("nft refused the rules above")) }
    }

    fn start(&mut self, program: &Path, settings: &str) -> io::Result<()> {
        let (config, socket) = (self.folder.join("natd.toml"), self.folder.join("natd.sock"));
        std::fs::write(&config, settings)?;
        let log = std::fs::File::create(self.folder.join("natd.log"))?;
        let router = self.name("router");
        let daemon = Command::new("ip")
            .args(["netns", "exec", &router])
            .arg(program)
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--socket")
            .arg(&socket)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.daemon = Some(daemon);
        for _ in 0..200 {
            clock::pause(Duration::from_millis(50));
            let mut status = Command::new("ip");
            status.args(["netns", "exec", &router]).arg(program).arg("status").arg("--socket").arg(&socket);
            if status.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
                return Ok(());
            }
            if let Some(daemon) = &mut self.daemon {
                if daemon.try_wait()?.is_some() {
                    break;
                }
            }
        }
        let log = std::fs::read_to_string(self.folder.join("natd.log")).unwrap_or_default();
        Err(io::Error::other(format!("{} did not come up:\n{log}", program.display())))
    }

    fn remove_namespaces(&self) {
        for role in ["client", "router", "server"] {
            let name = self.name(role);
            if Path::new("/run/netns").join(&name).exists() {
                let removed = Command::new("ip").args(["netns", "del", &name]).status();
                if !removed.is_ok_and(|status| status.success()) {
                    eprintln!("namespace {name} stays behind");
                }
            }
        }
    }

    fn stop(&mut self) -> io::Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        Command::new("kill").arg(daemon.id().to_string()).status()?;
        for _ in 0..60 {
            if daemon.try_wait()?.is_some() {
                return Ok(());
            }
            clock::pause(Duration::from_millis(50));
        }
        daemon.kill()?;
        daemon.wait().map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("the daemon of {} could not be stopped: {error}", self.prefix);
        }
        self.remove_namespaces();
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{} stays behind: {error}", self.folder.display());
        }
    }
}

fn shell(script: &str) -> io::Result<()> {
    let output = Command::new("sh").args(["-e", "-c", script]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{}in:\n{script}", String::from_utf8_lossy(&output.stderr))))
}
