//! The demonstration: one household, the same traffic through natd and through the kernel's masquerade.
//! tests/demo.sh builds and starts it.

use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use testkit::address::{D1, D2, D3, GATEWAY, ROUTER_LAN, S1, S2, S3, WAN, at};
use testkit::capture::Keep;
use testkit::packet::{self, Segment};
use testkit::{Forward, Lab, Nat, Node, clock, pause, socket, tcp, traffic};

/// What a check found, in a few words; it panics when it fails.
type Check = fn(&Lab) -> String;

const CHECKS: [(&str, Check); 14] = [
    ("100 MB download, equal SHA-256", download),
    ("100 MB upload, equal SHA-256", upload),
    ("8 parallel TCP streams", parallel_streams),
    ("three devices ping one server with one identifier", ping),
    ("traceroute shows every hop", traceroute),
    ("UDP datagrams of 4000 bytes, both ways", large_datagrams),
    ("GSO sender: 30 datagrams in one send", segments),
    ("port forward, the device sees the client", forward),
    ("device to device through the WAN address", hairpin),
    ("one port towards everyone, also after a collision", collision),
    ("a server answers from another port", other_port),
    ("inbound after the kernel forgot the flow", idle),
    ("forged ICMP errors do not reach the device", forged),
    ("the router's own queries beside a device's mappings", router),
];

/// What one NAT made of the checks.
struct Run {
    results: Vec<Result<String, String>>,
    leaks: Result<String, String>,
    flows: String,
}

/// Lines of the flow table that are printed.
const FLOWS_SHOWN: usize = 30;

static REASON: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    if let Some(missing) = testkit::requirements::missing() {
        println!("The demo {missing}");
        return ExitCode::FAILURE;
    }
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload().downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.payload().downcast_ref::<&str>().copied()).unwrap_or("failed");
        if let Ok(mut reason) = REASON.lock() {
            text.lines().next().unwrap_or("failed").clone_into(&mut reason);
        }
    }));
    picture();
    let natd = guarded(|| run("natd", Nat::Natd));
    let kernel = guarded(|| run("kernel masquerade", Nat::KernelMasquerade));
    let (natd, kernel) = match (natd, kernel) {
        (Ok(natd), Ok(kernel)) => (natd, kernel),
        (natd, kernel) => {
            for reason in [natd.err(), kernel.err()].into_iter().flatten() {
                println!("The household did not come up: {reason}");
            }
            return ExitCode::FAILURE;
        }
    };
    report(&natd, &kernel)
}

fn picture() {
    println!(
        "
  d1 192.168.1.11 --+                                             +-- s1 198.51.100.10
  d2 192.168.1.12 --+-- 192.168.1.1 ROUTER 198.51.100.1 ----------+-- s2 198.51.100.20
  d3 192.168.1.13 --+   stateful firewall, policy drop; NAT       |
                                                              internet
                                                                  +-- s3 203.0.113.10
"
    );
}

fn run(name: &str, nat: Nat) -> Run {
    let lab = Lab::household()
        .nat(nat)
        .forward(Forward::tcp(8080, D1, 80))
        .forward(Forward::udp(5000, D1, 5001))
        .start();
    let mut lab = lab.expect("needs root; run tests/demo.sh");
    let watch = lab.watch_for_leaks();
    let mut results = Vec::new();
    for (title, check) in CHECKS {
        println!("  {name}: {title} ...");
        results.push(guarded(|| check(&lab)));
    }
    let leaks = guarded(|| {
        watch.expect_no_leak();
        format!("{} packets", watch.count())
    });
    let flows = if nat == Nat::Natd { show_flows(&mut lab) } else { String::new() };
    Run { results, leaks, flows }
}

/// natd's flow table while each device has something open.
fn show_flows(lab: &mut Lab) -> String {
    let _open = [
        tcp::pair(&lab.d1, at(D1, 43_210), &lab.s1, at(S1, 443)),
        tcp::pair(&lab.d2, at(D2, 43_210), &lab.s1, at(S1, 444)),
        tcp::pair_through(&lab.s3, at(S3, 0), at(WAN, 8080), &lab.d1, at(D1, 80)),
    ];
    lab.d3.run(&["ping", "-c", "1", "-W", "1", &S2.to_string()]);
    let flows = lab.natd().command(&["flows"]);
    // Traceroute's unanswered datagrams would fill the screen.
    let (unanswered, lines): (Vec<&str>, Vec<&str>) =
        flows.stdout.lines().partition(|line| line.split_whitespace().nth(4) == Some("new"));
    let mut shown = lines.get(..FLOWS_SHOWN).unwrap_or(&lines).join("\n");
    let hidden = unanswered.len() + lines.len().saturating_sub(FLOWS_SHOWN);
    shown.push_str(&format!("\n... and {hidden} more, most of them not answered"));
    shown
}

fn report(natd: &Run, kernel: &Run) -> ExitCode {
    println!("\n{:<52} {:<24} kernel masquerade", "", "natd");
    let mut failed = 0;
    let titles = CHECKS.iter().map(|(title, _)| *title).chain(["no household address on the WAN, ever"]);
    let results = |run: &Run| [&run.results[..], std::slice::from_ref(&run.leaks)].concat();
    let (natd_results, kernel_results) = (results(natd), results(kernel));
    for ((title, natd), kernel) in titles.zip(&natd_results).zip(&kernel_results) {
        println!("{title:<52} {:<24} {}", cell(natd), cell(kernel));
        failed += u32::from(natd.is_err());
    }
    println!("\nnatd's flow table while each device has something open:\n{}\n", natd.flows);
    for (title, result) in CHECKS.iter().map(|(title, _)| *title).chain(["leaks"]).zip(&natd_results) {
        if let Err(reason) = result {
            println!("natd failed: {title}: {reason}");
        }
    }
    if failed == 0 {
        println!("natd passed all {} checks.", natd_results.len());
        ExitCode::SUCCESS
    } else {
        println!("natd failed {failed} of {} checks.", natd_results.len());
        ExitCode::FAILURE
    }
}

fn cell(result: &Result<String, String>) -> String {
    match result {
        Ok(detail) if detail.is_empty() => "passed".to_owned(),
        Ok(detail) => format!("passed  {detail}"),
        Err(_) => "FAILED".to_owned(),
    }
}

/// Runs `work`; the first line of its panic is the error.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| REASON.lock().map(|text| text.clone()).unwrap_or_default())
}

fn rate(bytes: u32, start: std::time::Instant) -> String {
    format!("{:.0} MB/s", f64::from(bytes) / 1e6 / start.elapsed().as_secs_f64())
}

const FILE: u32 = 100_000_000;

fn copy(lab: &Lab, from: &Node, server: &[&str], client: &str) -> String {
    let path = lab.dir().join("file").to_string_lossy().into_owned();
    let hash = from.sh(&format!("head -c {FILE} /dev/urandom | tee {path} | sha256sum"));
    let mut program = lab.s1.spawn(server);
    program.wait_for_log("listening", Duration::from_secs(5));
    let start = clock::now();
    let got = lab.d1.sh(client);
    let rate = rate(FILE, start);
    if got.is_empty() {
        program.wait(Duration::from_secs(20));
        assert_eq!(lab.s1.sh(&format!("sha256sum < {path}.copy")), hash, "another hash");
    } else {
        assert_eq!(got, hash, "another hash");
    }
    rate
}

fn download(lab: &Lab) -> String {
    let file = format!("OPEN:{}", lab.dir().join("file").display());
    let server = ["socat", "-d", "-d", "-u", &file, "TCP-LISTEN:81,reuseaddr"];
    copy(lab, &lab.s1, &server, &format!("socat -u TCP:{S1}:81 - | sha256sum"))
}

fn upload(lab: &Lab) -> String {
    let path = lab.dir().join("file");
    let file = format!("CREATE:{}.copy", path.display());
    let server = ["socat", "-d", "-d", "-u", "TCP-LISTEN:82,reuseaddr", &file];
    copy(lab, &lab.d1, &server, &format!("socat -u OPEN:{} TCP:{S1}:82", path.display()))
}

fn parallel_streams(lab: &Lab) -> String {
    let server = lab.s1.spawn(&["iperf3", "--server", "--one-off", "--forceflush"]);
    server.wait_for_log("listening", Duration::from_secs(5));
    let address = S1.to_string();
    let words =
        ["iperf3", "--client", &address, "--parallel", "8", "--time", "3", "--reverse", "--format", "g"];
    let said = lab.d2.run(&words).expect_success();
    let sum = said.lines().rfind(|line| line.starts_with("[SUM]") && line.contains("receiver"));
    let words: Vec<&str> = sum.expect("iperf3 prints a sum").split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "Gbits/sec").expect("iperf3 prints a rate");
    let rate = words.get(unit - 1).and_then(|rate| rate.parse::<f64>().ok()).unwrap_or(0.0);
    assert!(rate > 0.05, "only {rate} Gbit/s");
    format!("{rate} Gbit/s")
}

fn ping(lab: &Lab) -> String {
    let answers = [(&lab.d1, D1), (&lab.d2, D2), (&lab.d3, D3)]
        .map(|(device, addr)| (device.capture("eth0", Keep::All), device.raw(), addr));
    for seq in 1..=5 {
        for (_, raw, addr) in &answers {
            raw.send(&packet::echo_request(*addr, S2, 4711, seq));
        }
    }
    for (capture, _, addr) in &answers {
        let arrived =
            || capture.find(|wire| wire.is_icmp(0, 0) && wire.dst == *addr && wire.src_port == 4711).len();
        clock::wait_for("five answers for each device", Duration::from_secs(3), || arrived() == 5);
    }
    String::new()
}

fn traceroute(lab: &Lab) -> String {
    let said = lab.d1.run(&["traceroute", "-n", "-w", "2", "-q", "1", &S3.to_string()]).stdout;
    let hops: Vec<&str> = said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    let expected = [ROUTER_LAN, GATEWAY, S3].map(|hop| hop.to_string());
    assert_eq!(hops, expected, "other hops");
    "3 hops".to_owned()
}

fn large_datagrams(lab: &Lab) -> String {
    let (server, device) = (lab.s1.udp(at(S1, 6000)), lab.d1.udp(at(D1, 6000)));
    let wan = socket::deliver(&device, at(S1, 6000), &server, &[1; 4000]);
    socket::deliver(&server, wan, &device, &[2; 4000]);
    String::new()
}

fn segments(lab: &Lab) -> String {
    let (server, device) = (lab.s1.udp(at(S1, 4433)), lab.d2.udp(at(D2, 4433)));
    socket::set_segment_size(&device, 1200);
    device.send_to(&[7; 36_000], at(S1, 4433)).expect("it is sent");
    for number in 1..=30 {
        let (segment, _) =
            socket::receive(&server).unwrap_or_else(|error| panic!("segment {number}: {error}"));
        assert!(segment == [7; 1200], "segment {number} differs");
    }
    String::new()
}

fn forward(lab: &Lab) -> String {
    let mut connection = tcp::pair_through(&lab.s1, at(S1, 41_000), at(WAN, 8080), &lab.d1, at(D1, 80));
    assert_eq!(connection.peer, at(S1, 41_000));
    connection.expect_alive("forwarded");
    String::new()
}

fn hairpin(lab: &Lab) -> String {
    let (host, peer) = (lab.d1.udp(at(D1, 5001)), lab.d2.udp(at(D2, 6001)));
    let seen = socket::deliver(&peer, at(WAN, 5000), &host, b"hello");
    assert_eq!(*seen.ip(), WAN, "the peer shows the WAN address");
    assert_eq!(socket::deliver(&host, seen, &peer, b"answer"), at(WAN, 5000));
    String::new()
}

fn collision(lab: &Lab) -> String {
    let (one, two) = (lab.s1.udp(at(S1, 3478)), lab.s2.udp(at(S2, 3478)));
    socket::deliver(&lab.d2.udp(at(D2, 42_000)), at(S2, 3478), &two, b"first");
    let device = lab.d1.udp(at(D1, 42_000));
    let towards_one = socket::deliver(&device, at(S1, 3478), &one, b"second");
    let towards_two = socket::deliver(&device, at(S2, 3478), &two, b"second");
    assert_eq!(towards_one, towards_two, "another port towards each server");
    format!("port {}", towards_one.port())
}

fn other_port(lab: &Lab) -> String {
    let (asked, answers) = (lab.s1.udp(at(S1, 69)), lab.s1.udp(at(S1, 50_069)));
    let device = lab.d3.udp(at(D3, 6002));
    let wan = socket::deliver(&device, at(S1, 69), &asked, b"read");
    assert_eq!(socket::deliver(&answers, wan, &device, b"a block"), at(S1, 50_069));
    String::new()
}

fn idle(lab: &Lab) -> String {
    for name in ["udp_timeout", "udp_timeout_stream"] {
        lab.router.sysctl(&format!("netfilter/nf_conntrack_{name}"), "2");
    }
    let (server, device) = (lab.s2.udp(at(S2, 3479)), lab.d1.udp(at(D1, 6003)));
    let wan = socket::deliver(&device, at(S2, 3479), &server, b"map me");
    pause(Duration::from_secs(4));
    for (name, value) in [("udp_timeout", "30"), ("udp_timeout_stream", "120")] {
        lab.router.sysctl(&format!("netfilter/nf_conntrack_{name}"), value);
    }
    socket::deliver(&server, wan, &device, b"still there?");
    String::new()
}

fn forged(lab: &Lab) -> String {
    let inside = lab.d1.capture("eth0", Keep::All);
    let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 83));
    let raw = lab.internet.raw();
    // Sequence numbers that an attacker guesses: all four quarters of the space but the right one are wrong.
    let quoted = |seq: u32| packet::tcp(connection.peer, at(S1, 83), seq, Segment::Ack(1), b"");
    let right = inside.wait_for("SYN", Duration::from_secs(2), |wire| wire.to() == at(S1, 83));
    let right = right.wire.tcp.map_or(0, |tcp| tcp.seq);
    let errors: Vec<Vec<u8>> = [1u32 << 30, 1 << 31, 3 << 30]
        .map(|distance| packet::icmp_error(S1, WAN, 3, 1, 0, &quoted(right.wrapping_add(distance))))
        .into();
    for error in &errors {
        raw.send(error);
    }
    connection.expect_alive("after forged errors");
    let arrived = inside.find(|wire| wire.quote.is_some()).len();
    assert_eq!(arrived, 0, "forged errors arrived");
    String::new()
}

fn router(lab: &Lab) -> String {
    let _echo = traffic::udp_echo(&lab.s2, at(S2, 53));
    let _talk = traffic::udp_talk(&lab.d1, at(D1, 45_000), at(S2, 53), Duration::from_millis(20));
    for _ in 0..50 {
        let resolver = lab.router.udp(at(Ipv4Addr::UNSPECIFIED, 0));
        resolver.send_to(b"question", at(S2, 53)).expect("it is sent");
        socket::receive(&resolver).expect("an answer");
    }
    let same = lab.router.udp(at(Ipv4Addr::UNSPECIFIED, 45_000));
    same.send_to(b"question", at(S2, 53)).expect("it is sent");
    socket::receive(&same).expect("an answer at a port that a device holds, too");
    String::new()
}
