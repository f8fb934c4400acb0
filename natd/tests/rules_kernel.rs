//! The rules in a real kernel, in network namespaces of their own that vanish with the test.
//!
//! These tests need root. They fail without it unless `NATD_TESTS_NO_ROOT=1` says that this is known.
#![expect(unsafe_code, reason = "a test moves its thread into a network namespace")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, where a panic is the report"
)]

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nat_core::decision::InterfaceAddress;
use natd::check::{self, Level};
use natd::io::rules::{Dropped, Kernel, RulesError, Want, command, survey};
use natd::rules::{Backend, LOCAL_SOCKET, MARK_MASK, Mark, Present, Queues, Scope, Surroundings};
use nfq::{Message, Verdict};

#[path = "rules_kernel/vpn.rs"]
mod vpn;

const QUEUE: u16 = 4100;
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
const PREROUTING: u8 = 0;
const INPUT: u8 = 1;
const POSTROUTING: u8 = 4;

#[test]
fn rules_come_and_go_and_only_the_guard_stays() {
    let Some(kernel) = kernel() else { return };
    let everything = kernel_text();
    kernel.install(&surroundings(&kernel)).unwrap();
    assert!(kernel.is_intact().unwrap());
    kernel.install(&surroundings(&kernel)).unwrap();
    assert!(kernel.is_intact().unwrap());
    kernel.remove().unwrap();
    assert!(!kernel.is_intact().unwrap());
    assert_eq!(ours(), ["table ip natd_guard {"]);
    kernel.remove().unwrap();
    kernel.remove_guard().unwrap();
    kernel.remove_guard().unwrap();
    assert_eq!(ours(), Vec::<String>::new());
    assert_eq!(without_empty_chains(&kernel_text()), without_empty_chains(&everything));
}

#[test]
fn leftovers_of_a_killed_natd_are_replaced() {
    let Some(kernel) = kernel() else { return };
    let other = Surroundings { queues: Queues::new(QUEUE + 50, 3).unwrap(), ..surroundings(&kernel) };
    kernel.install(&other).unwrap();
    if kernel.backend == Backend::Iptables {
        // Half of a removal, and a jump too many.
        sh("iptables -t raw -A PREROUTING -j NATD-PRE; iptables -t mangle -D INPUT -j NATD-IN");
    }
    sh("nft delete table ip natd_guard");
    assert!(!kernel.is_intact().unwrap());
    kernel.install(&surroundings(&kernel)).unwrap();
    assert!(kernel.is_intact().unwrap());
    let text = kernel_text();
    assert!(!text.contains("4150") && text.contains("4100"), "{text}");
    kernel.remove().unwrap();
    assert_eq!(ours(), ["table ip natd_guard {"]);
}

#[test]
fn a_text_that_one_tool_refuses_leaves_nothing_behind() {
    let Some(kernel) = kernel() else { return };
    // Tables of our names that a refresh cannot take over: a chain of the name hangs elsewhere.
    assert!(sh("nft 'add table ip natd_guard; add set ip natd_guard wan_addresses { type ipv4_addr; }'"));
    assert!(sh("nft 'add set ip natd_guard lan_prefixes { type ipv4_addr; flags interval; }'"));
    assert!(sh("nft 'add table ip natd; add set ip natd wan_addresses { type ipv4_addr; }'"));
    assert!(sh("nft 'add chain ip natd see_sockets { type filter hook output priority 7; }'"));
    let error = kernel.refresh(&surroundings(&kernel)).unwrap_err();
    assert!(matches!(&error, RulesError::Refused { tool, .. } if tool == "nft"), "{error}");
    assert!(!kernel_text().contains("NFQUEUE"));
    kernel.install(&surroundings(&kernel)).unwrap();
    assert!(kernel.is_intact().unwrap());
}

#[test]
fn nft_accepts_every_word_of_the_nft_path() {
    let Some(kernel) = kernel() else { return };
    let nft = command::find("nft").unwrap();
    let known = Surroundings { backend: Backend::Nft, ..surroundings(&kernel) };
    let odd = Surroundings {
        wan: "we#i{r};d$".parse().unwrap(),
        lan: vec!["-x".parse().unwrap(), "10".parse().unwrap(), "@a".parse().unwrap()],
        ..known.clone()
    };
    let waiting = Surroundings { wan_addresses: Vec::new(), lan_prefixes: Vec::new(), ..known.clone() };
    let vpn = [&known, &odd, &waiting].map(|s| Surroundings { scope: Scope::Vpn, ..s.clone() });
    let marks_inbound = Surroundings { backend: Backend::Iptables, scope: Scope::Vpn, ..known.clone() };
    for s in [known, odd, waiting, marks_inbound].into_iter().chain(vpn) {
        let text = s.install(&Present::default()).nft;
        let answer = command::run(&nft, &["--check", "-f", "-"], &text).unwrap();
        // A kernel without NFT_QUEUE refuses exactly the queue statements, each with ENOENT; a word that nft itself
        // did not understand would be a syntax error and the only complaint.
        let complaints: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("Error")).collect();
        let queues = text.matches("queue num").count();
        let refused =
            complaints.iter().filter(|c| c.ends_with("Could not process rule: No such file or directory"));
        assert!(complaints.is_empty() || refused.count() == queues, "{}", answer.stderr);
        assert_eq!(complaints.len(), if answer.success { 0 } else { queues }, "{}", answer.stderr);
        let rest = text.replace("queue num 4100", "counter");
        let answer = command::run(&nft, &["--check", "-f", "-"], &rest).unwrap();
        assert!(answer.success, "{}", answer.stderr);
    }
}

#[test]
fn names_with_odd_characters_reach_iptables_unchanged() {
    let Some(kernel) = kernel() else { return };
    let s = Surroundings {
        wan: "we#i{r};d$".parse().unwrap(),
        lan: vec!["-x".parse().unwrap()],
        ..surroundings(&kernel)
    };
    kernel.install(&s).unwrap();
    let text = kernel_text();
    assert!(text.contains("we#i{r};d$"), "{text}");
    assert!(kernel.is_intact().unwrap());
}

#[test]
fn marks_are_set_before_the_queue_and_the_guard_stops_what_is_not_translated() {
    let Some(kernel) = kernel() else { return };
    let home = Home::new();
    let seen = read_queue(|_| Verdict::Accept);
    kernel.install(&surroundings(&kernel)).unwrap();

    // LAN to WAN: queued once, on its way out, and stopped by the guard since nobody translated it.
    home.lan.run("ping -c 1 -W 1 203.0.113.99");
    assert_eq!(next(&seen), (POSTROUTING, Mark::Forwarded.bits()));
    assert_eq!(kernel.dropped().unwrap(), Dropped { lan_source: 1, ..Dropped::default() });

    // The router's own, and the answer to it.
    assert!(sh("ping -c 1 -W 2 203.0.113.99"));
    assert_eq!(next(&seen), (POSTROUTING, Mark::Own.bits()));
    assert_eq!(next(&seen).0, PREROUTING);

    // natd's own raw packets are not queued.
    assert!(sh(&format!("ping -m {} -c 1 -W 2 203.0.113.99", Mark::Final.bits())));
    assert_eq!(next(&seen).0, PREROUTING);

    // A SYN that no socket wants is queued a second time, at input. The RST is the router's own.
    home.wan.run("socat -T1 - TCP:203.0.113.1:9,connect-timeout=1 </dev/null");
    assert_eq!(next(&seen), (PREROUTING, 0));
    assert_eq!(next(&seen), (INPUT, Mark::Unwanted.bits()));
    assert_eq!(next(&seen), (POSTROUTING, Mark::Own.bits()));

    // From the LAN to the WAN address: queued on its way in, never marked as forwarded.
    home.lan.run("ping -c 1 -W 1 203.0.113.1");
    assert_eq!(next(&seen).0, PREROUTING);
    assert!(seen.recv_timeout(Duration::from_millis(200)).is_err());

    // Nobody reads: nothing passes, and nothing passes after natd has gone either.
    kernel.remove().unwrap();
    home.lan.run("ping -c 2 -i 0.2 -W 1 203.0.113.99");
    assert_eq!(kernel.dropped().unwrap().lan_source, 3);
    assert!(home.wan.received_nothing_from_the_lan());
}

#[test]
fn the_marks_stand_where_nfts_own_queue_would_take_the_packet() {
    let Some(kernel) = kernel() else { return };
    let home = Home::new();
    // A counter in the place of each queue statement: also for a kernel whose nft cannot queue.
    let text =
        Surroundings { backend: Backend::Nft, ..surroundings(&kernel) }.install(&Present::default()).nft;
    let counted = text.replace("queue num 4100", "counter");
    assert!(command::run(&command::find("nft").unwrap(), &["-f", "-"], &counted).unwrap().success);
    let counts = |chain: &str| -> Vec<u64> {
        let listed = output(&format!("nft list chain ip natd {chain}"));
        let after = listed.split("counter packets ").skip(1);
        after.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    home.lan.run("ping -c 1 -W 1 203.0.113.99");
    assert_eq!((counts("queue_prerouting"), counts("queue_postrouting")), (vec![0, 0], vec![1, 0]));
    assert!(sh("ping -c 1 -W 2 203.0.113.99"));
    assert_eq!((counts("queue_prerouting"), counts("queue_postrouting")), (vec![1, 0], vec![2, 0]));
    home.lan.run("ping -c 1 -W 1 203.0.113.1");
    assert_eq!((counts("queue_prerouting"), counts("queue_postrouting")), (vec![1, 1], vec![2, 0]));
    home.wan.run("socat -T1 - TCP:203.0.113.1:9,connect-timeout=1 </dev/null");
    assert_eq!((counts("queue_prerouting"), counts("queue_postrouting")), (vec![2, 1], vec![3, 0]));
    assert_eq!(counts("queue_input"), [1]);
    // The second pass of a hairpin, with the mark that the first pass would leave.
    sh(&format!("ping -m {} -c 1 -W 1 192.168.1.10", Mark::Hairpin.bits()));
    assert_eq!(counts("queue_postrouting"), [3, 1]);
}

#[test]
fn packets_of_a_local_connection_are_marked_from_its_handshake_on_and_a_wildcard_listener_is_not() {
    let Some(kernel) = kernel() else { return };
    let home = Home::new();
    let seen = read_queue(|_| Verdict::Accept);
    kernel.install(&surroundings(&kernel)).unwrap();
    let _server = Background::start("socat -u TCP-LISTEN:8080 /dev/null");
    assert!(
        (0..50)
            .any(|_| sh("ss -Hltn sport = 8080 | grep -q . || { ping -c 1 -W 0.1 127.1.1.1 >&2; false; }"))
    );
    home.wan.run("echo hello | socat -u - TCP:203.0.113.1:8080,connect-timeout=2");
    let inbound: Vec<u32> = std::iter::from_fn(|| seen.recv_timeout(Duration::from_millis(300)).ok())
        .filter(|seen| seen.0 == PREROUTING)
        .map(|seen| seen.1)
        .collect();
    assert_eq!(inbound.first(), Some(&0), "the SYN finds only the wildcard listener");
    assert!(inbound.len() > 2 && inbound.iter().skip(1).all(|mark| *mark == LOCAL_SOCKET), "{inbound:x?}");
}

#[test]
fn the_hairpin_mark_of_the_first_pass_queues_the_second() {
    let Some(kernel) = kernel() else { return };
    let home = Home::new();
    let seen = read_queue(|message| {
        if message.get_hook() == PREROUTING {
            let mut packet = message.get_payload().to_vec();
            readdress(&mut packet, 16, Ipv4Addr::new(192, 168, 1, 20));
            message.set_payload(packet);
            message.set_nfmark(Mark::Hairpin.bits());
        }
        Verdict::Accept
    });
    kernel.install(&surroundings(&kernel)).unwrap();
    home.lan.run("ping -c 1 -W 1 203.0.113.1");
    assert_eq!(next(&seen).0, PREROUTING);
    assert_eq!(next(&seen), (POSTROUTING, Mark::Hairpin.bits()));
}

#[test]
fn translated_packets_pass_a_stateful_firewall_beside_a_masquerade() {
    let Some(kernel) = kernel() else { return };
    let home = Home::new();
    sh("iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE --random");
    assert!(sh("nft '
        table inet fw {
          chain forward {
            type filter hook forward priority 0; policy drop;
            ct state established,related accept
            iifname lan0 oifname wan0 accept
          }
        }'"));
    let seen = read_queue(|message| {
        let mut packet = message.get_payload().to_vec();
        match message.get_hook() {
            POSTROUTING => readdress(&mut packet, 12, ROUTER),
            PREROUTING => readdress(&mut packet, 16, DEVICE),
            _ => {}
        }
        message.set_payload(packet);
        Verdict::Accept
    });
    kernel.install(&surroundings(&kernel)).unwrap();
    assert!(home.lan.run("ping -c 3 -i 0.2 -W 2 203.0.113.99"));
    for _ in 0..3 {
        assert_eq!(next(&seen), (POSTROUTING, Mark::Forwarded.bits()));
        assert_eq!(next(&seen).0, PREROUTING);
    }
    assert_eq!(kernel.dropped().unwrap(), Dropped::default());
    assert!(home.wan.received_nothing_from_the_lan());

    // Without natd the masquerade serves, and the guard does not stand in its way.
    kernel.remove().unwrap();
    sh("conntrack -F");
    assert!(home.lan.run("ping -c 1 -W 2 203.0.113.99"));
    let nft = survey::nft_ruleset();
    let lan = surroundings(&kernel).lan_prefixes;
    assert!(check::another_nat_serves(&"wan0".parse().unwrap(), &lan, nft.as_deref(), None));
    assert!(!check::another_nat_serves(&"lan0".parse().unwrap(), &[], None, None));
}

#[test]
fn flows_of_the_kernels_own_nat_are_left_alone() {
    let Some(kernel) = kernel() else { return };
    let home = Home::new();
    // The first packet of a flow shows its destination NAT at once, its source NAT only in conntrack's next one.
    sh("iptables -t nat -A PREROUTING -i lan0 -p icmp -d 203.0.113.98 -j DNAT --to 203.0.113.99");
    sh("iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE");
    let seen = read_queue(|_| Verdict::Accept);
    kernel.install(&surroundings(&kernel)).unwrap();
    assert!(home.lan.run("ping -c 2 -i 0.2 -W 2 203.0.113.98"));
    let hooks: Vec<u8> =
        std::iter::from_fn(|| seen.recv_timeout(Duration::from_millis(300)).ok()).map(|s| s.0).collect();
    assert_eq!(hooks, [PREROUTING; 2], "only the answers are shown, before conntrack");
    assert_eq!(kernel.dropped().unwrap(), Dropped::default());
}

#[test]
fn a_refresh_keeps_waiting_packets_and_counters_and_follows_the_address() {
    let Some(kernel) = kernel() else { return };
    let home = Home::new();
    let surroundings = surroundings(&kernel);
    let refreshed = Surroundings {
        wan_addresses: vec![surroundings.wan_addresses[0], address(Ipv4Addr::new(203, 0, 113, 2))],
        ..surroundings.clone()
    };
    let (again, next_text) = (kernel.clone(), refreshed.clone());
    let seen = read_queue(move |message| {
        if message.get_hook() == POSTROUTING {
            again.refresh(&next_text).unwrap();
        }
        Verdict::Accept
    });
    kernel.install(&surroundings).unwrap();
    home.lan.run("ping -c 1 -W 1 203.0.113.99");
    next(&seen);
    assert_eq!(kernel.dropped().unwrap(), Dropped { lan_source: 1, ..Dropped::default() });
    assert!(sh("ping -c 1 -W 2 203.0.113.99"), "the packet that waited during the refresh was lost");
    assert_eq!(kernel.dropped().unwrap(), Dropped { lan_source: 1, ..Dropped::default() });
    assert!(kernel.is_intact().unwrap());
    assert_eq!((next(&seen).0, next(&seen).0), (POSTROUTING, PREROUTING));
    sh("ip addr add 203.0.113.2/24 dev wan0");
    assert!(home.wan.run("ping -c 1 -W 2 203.0.113.2"));
    assert_eq!(next(&seen).0, PREROUTING);
}

#[test]
fn without_a_wan_address_lan_packets_are_counted_and_dropped_and_the_router_still_speaks() {
    let Some(kernel) = kernel() else { return };
    let home = Home::new();
    let seen = read_queue(|_| Verdict::Accept);
    kernel.install(&Surroundings { wan_addresses: Vec::new(), ..surroundings(&kernel) }).unwrap();
    home.lan.run("ping -c 2 -i 0.2 -W 1 203.0.113.99");
    assert_eq!(kernel.dropped().unwrap(), Dropped { no_wan_address: 2, ..Dropped::default() });
    assert!(sh("ping -c 1 -W 2 203.0.113.99"));
    assert!(seen.recv_timeout(Duration::from_millis(100)).is_err());
    // The address comes.
    kernel.refresh(&surroundings(&kernel)).unwrap();
    assert!(sh("ping -c 1 -W 2 203.0.113.99"));
    assert_eq!(next(&seen), (POSTROUTING, Mark::Own.bits()));
}

#[test]
fn the_survey_of_a_router_in_order_finds_no_problem() {
    let Some(kernel) = kernel() else { return };
    let _home = Home::new();
    let s = surroundings(&kernel);
    let look = |wan: &str| {
        let expected = check::Expected {
            wan: &wan.parse().unwrap(),
            lan: &s.lan,
            lan_prefixes: &s.lan_prefixes,
            forwards: &[],
            passthrough: &passthrough::settings::Settings::default(),
            queues: s.queues,
        };
        let seen = survey::survey(&expected, Want::Auto, s.wan_addresses.clone(), None);
        check::findings(&expected, &seen)
    };
    let found = look("wan0");
    assert!(check::worst(&found) < Level::Problem, "{found:#?}");
    let codes =
        |level| look("gone0").into_iter().filter(|f| f.level == level).map(|f| f.code).collect::<Vec<_>>();
    assert_eq!(codes(Level::Problem), ["interface"]);
    let _reader = read_queue(|_| Verdict::Accept);
    assert_eq!(codes(Level::Problem), ["interface", "queue"]);
}

/// Moves this thread into a network namespace of its own and probes; `None` when the test is to be skipped.
fn kernel() -> Option<Kernel> {
    // SAFETY: affects this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let error = std::io::Error::last_os_error();
        if std::env::var_os("NATD_TESTS_NO_ROOT").is_some_and(|value| value == "1") {
            eprintln!("SKIPPED: no network namespace without root ({error}), and NATD_TESTS_NO_ROOT=1");
            return None;
        }
        panic!("this test needs root ({error}); NATD_TESTS_NO_ROOT=1 skips it");
    }
    assert!(sh("ip link set lo up"));
    Some(Kernel::probe(Want::Auto).unwrap())
}

fn address(addr: Ipv4Addr) -> InterfaceAddress {
    InterfaceAddress { addr, prefix: 24 }
}

fn surroundings(kernel: &Kernel) -> Surroundings {
    Surroundings {
        wan: "wan0".parse().unwrap(),
        wan_addresses: vec![address(ROUTER)],
        lan: vec!["lan0".parse().unwrap()],
        lan_prefixes: vec![(Ipv4Addr::new(192, 168, 1, 1), 24)],
        queues: Queues::new(QUEUE, 1).unwrap(),
        scope: Scope::All,
        backend: kernel.backend,
        socket_match: kernel.socket_match,
        secpath: kernel.secpath,
    }
}

fn sh(script: &str) -> bool {
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    eprintln!(
        "$ {script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.status.success()
}

fn output(script: &str) -> String {
    String::from_utf8(Command::new("sh").args(["-c", script]).output().unwrap().stdout).unwrap()
}

fn kernel_text() -> String {
    output("nft list ruleset; iptables-save 2>/dev/null | grep -v '^#'")
}

/// Lines that are ours outermost: tables, chains, jumps.
fn ours() -> Vec<String> {
    let text = kernel_text();
    let heads = text.lines().filter(|line| line.starts_with("table ip natd") || line.contains("NATD-"));
    heads.map(str::to_owned).collect()
}

/// What iptables makes of its own accord and does not take away: empty built-in chains that accept.
fn without_empty_chains(text: &str) -> Vec<&str> {
    let empty = |line: &&str| {
        let line = line.trim();
        let built_in = ["table ip raw", "table ip mangle", "type filter hook", "type route hook"];
        !(line.is_empty()
            || line == "}"
            || line == "COMMIT"
            || line.starts_with(':') && line.contains(" ACCEPT ")
            || line.starts_with('*')
            || line.starts_with("chain ") && line.to_uppercase() == line.replace("chain", "CHAIN")
            || built_in.iter().any(|start| line.starts_with(start)))
    };
    text.lines().filter(empty).collect()
}

/// Reads the queue in a thread; each packet's hook and mark (our bits) come out.
fn read_queue(decide: impl Fn(&mut Message) -> Verdict + Send + 'static) -> Receiver<(u8, u32)> {
    let (sender, receiver) = channel();
    let mut queue = nfq::Queue::open().unwrap();
    queue.bind(QUEUE).unwrap();
    thread::spawn(move || {
        while let Ok(mut message) = queue.recv() {
            let seen = (message.get_hook(), message.get_nfmark() & MARK_MASK);
            let verdict = decide(&mut message);
            message.set_verdict(verdict);
            if queue.verdict(message).is_err() || sender.send(seen).is_err() {
                return;
            }
        }
    });
    receiver
}

fn next(seen: &Receiver<(u8, u32)>) -> (u8, u32) {
    seen.recv_timeout(Duration::from_secs(3)).expect("a packet reaches the queue")
}

/// Writes an address at `at` of an IPv4 header and makes the header's checksum right again.
fn readdress(packet: &mut [u8], at: usize, addr: Ipv4Addr) {
    packet[at..at + 4].copy_from_slice(&addr.octets());
    packet[10..12].fill(0);
    let words = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// A program that is killed when it goes out of scope.
struct Background(Child);

impl Background {
    fn start(script: &str) -> Self {
        let exec = format!("exec {script}");
        Self(Command::new("sh").args(["-c", &exec]).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A host in a namespace of its own that lives as long as this value.
struct Host {
    holder: Background,
}

impl Host {
    /// A host whose `eth0` is connected to our `link`.
    fn behind(link: &str, addr: &str, gateway: Option<&str>) -> Self {
        let holder = Background(
            Command::new("unshare")
                .args(["-n", "sh", "-c", "echo; exec sleep 120"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut host = Self { holder };
        let mut line = String::new();
        let output = host.holder.0.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
        let pid = host.holder.0.id();
        assert!(sh(&format!("ip link add {link} type veth peer name eth0 netns {pid}")));
        assert!(
            host.run(&format!("ip addr add {addr} dev eth0 && ip link set eth0 up && ip link set lo up"))
        );
        if let Some(gateway) = gateway {
            assert!(host.run(&format!(
                "ip route add default via {gateway} || ip route add default via {gateway} onlink dev eth0"
            )));
        }
        host
    }

    fn run(&self, script: &str) -> bool {
        let pid = self.holder.0.id();
        let status = Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n", "sh", "-c", script])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (said, errors) =
            (String::from_utf8_lossy(&status.stdout), String::from_utf8_lossy(&status.stderr));
        eprintln!("host$ {script}\n{said}{errors}");
        status.status.success()
    }

    /// A counter that is there from the host's first moment says that no LAN source ever arrived.
    fn received_nothing_from_the_lan(&self) -> bool {
        self.run("nft list counter ip t lan | grep -q 'packets 0 '")
    }
}

/// A device, this thread's namespace as the router, and a server: `lan0` and `wan0`.
struct Home {
    lan: Host,
    wan: Host,
}

impl Home {
    fn new() -> Self {
        let lan = Host::behind("lan0", "192.168.1.10/24", Some("192.168.1.1"));
        let wan = Host::behind("wan0", "203.0.113.99/24", None);
        assert!(wan.run(
            "nft '
            table ip t {
              counter lan { }
              chain c {
                type filter hook prerouting priority 0;
                ip saddr 192.168.0.0/16 counter name lan
              }
            }'"
        ));
        assert!(sh(
            "ip addr add 192.168.1.1/24 dev lan0; ip link set lan0 up; ip addr add 203.0.113.1/24 dev wan0; \
                    ip link set wan0 up; sysctl -qw net.ipv4.ip_forward=1"
        ));
        Self { lan, wan }
    }
}
