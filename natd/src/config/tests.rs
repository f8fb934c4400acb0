//! What becomes of whole files; the problems of single lines are in `problems`.

use std::time::Duration;

use nat_core::flow::Protocol;
use nat_core::policy::{Filtering, Forward, Limits, MssClamp, PortRange};

use super::schema::{TABLES, Times};
use super::*;

mod passthrough;
mod problems;

#[test]
fn the_least_a_file_needs_gives_the_defaults() {
    let (config, remarks) = Config::parse("[nat]\nlan = [\"br-lan\"]\nwan = \"eth1\"\n").unwrap();
    assert_eq!(config, Config::new(["br-lan"], "eth1"));
    assert_eq!(remarks, []);
}

#[test]
fn every_key_sets_its_field() {
    let text = r#"
        [nat]
        lan = ["br-lan", "br-guest.2"]
        wan = "pppoe-wan"
        scope = "all"
        filtering = "endpoint-independent"
        ports = "2048-40000"
        hairpin = true
        inbound_refresh = false
        mss_clamp = 1412
        exposed_host = "192.168.1.2"
        max_sessions = 2_000
        max_sessions_per_device = 100
        max_held_syns = 1
        [[forward]]
        protocol = "tcp+udp"
        external = "6000-6010"
        host = "192.168.1.3"
        internal = 7000
        comment = "console"
        [[forward]]
        protocol = "tcp"
        external = 443
        host = "192.168.1.4"
        [timeout]
        tcp_established = "1d"
        tcp_transitory = 241
        tcp_reset = "5m"
        udp = "2h4m3s"
        icmp = "61s"
        tcp_syn_hold = 7
        [kernel]
        rules = "iptables"
        queue = 65532
        queues = 4
        queue_length = 1024
        [control]
        socket = "/tmp/natd.sock"
        [log]
        level = "trace"
        [diagnosis]
        observe = false
        [sessions]
        log = "/var/log/natd/vpn.log"
        format = "text"
        max_size = "64K"
    "#;
    let forward = |protocol, first, last, host: [u8; 4], internal_first| Forward {
        protocol,
        external: PortRange::new(first, last).unwrap(),
        host: host.into(),
        internal_first,
    };
    let mut expected = Config::new(["br-lan", "br-guest.2"], "pppoe-wan");
    expected.policy.filtering = Filtering::EndpointIndependent;
    expected.policy.ports = PortRange::new(2048, 40000).unwrap();
    expected.policy.inbound_refresh = false;
    expected.policy.mss_clamp = MssClamp::To(1412);
    expected.policy.exposed_host = Some([192, 168, 1, 2].into());
    expected.policy.limits = Limits { sessions: 2000, sessions_per_device: 100, held_syns: 1 };
    expected.policy.forwards = vec![
        forward(Protocol::Tcp, 6000, 6010, [192, 168, 1, 3], 7000),
        forward(Protocol::Udp, 6000, 6010, [192, 168, 1, 3], 7000),
        forward(Protocol::Tcp, 443, 443, [192, 168, 1, 4], 443),
    ];
    expected.policy.timeouts = nat_core::policy::Timeouts {
        tcp_established: Duration::from_secs(86_400),
        tcp_transitory: Duration::from_secs(241),
        tcp_reset: Duration::from_secs(300),
        udp: Duration::from_secs(7443),
        icmp: Duration::from_secs(61),
        tcp_syn_hold: Duration::from_secs(7),
    };
    expected.kernel = Kernel { rules: Rules::Iptables, queue: 65532, queues: 4, queue_length: 1024 };
    expected.socket = "/tmp/natd.sock".into();
    expected.log = LevelFilter::Trace;
    expected.observe = false;
    expected.sessions = SessionLog {
        to: LogTo::File("/var/log/natd/vpn.log".into()),
        format: LogFormat::Text,
        max_size: 65_536,
    };
    let (config, remarks) = Config::parse(text).unwrap();
    assert_eq!(config, expected);
    let remarks: Vec<String> = remarks.iter().map(ToString::to_string).collect();
    assert_eq!(remarks, ["line 44: sessions.log: nothing is written down while diagnosis.observe is false"]);
}

#[test]
fn sizes_are_bytes_or_have_a_unit() {
    let size = |value: &str| {
        let text = format!("[nat]\n{MINIMUM}\n[sessions]\nlog = \"log\"\nmax_size = {value}\n");
        Config::parse(&text).unwrap().0.sessions.max_size
    };
    assert_eq!(size("5000"), 5000);
    assert_eq!(size("\"5000\""), 5000);
    assert_eq!(size("\"4K\""), 4096);
    assert_eq!(size("\"1024M\""), 1 << 30);
}

#[test]
fn other_spellings_of_values() {
    let policy = |line: &str| parse_nat(line).unwrap().0.policy;
    assert_eq!(policy("mss_clamp = false").mss_clamp, MssClamp::Off);
    assert_eq!(policy("mss_clamp = \"auto\"").mss_clamp, MssClamp::Auto);
    assert_eq!(policy("max_sessions = 0x1000").limits.sessions, 4096);
    assert_eq!(
        policy("filtering = 'address-and-port-dependent'").filtering,
        Filtering::AddressAndPortDependent
    );
    assert!(!policy("hairpin = false").hairpin);
    let dotted = "nat.lan = [\"br-lan\"]\nnat.wan = \"eth1\"\n";
    assert_eq!(Config::parse(dotted), Ok((Config::new(["br-lan"], "eth1"), Vec::new())));
    let windows = "\u{feff}[nat]\r\nlan = [\"br-lan\"]\r\nwan = \"eth1\"\r\n";
    assert_eq!(Config::parse(windows), Ok((Config::new(["br-lan"], "eth1"), Vec::new())));
}

#[test]
fn a_small_table_lowers_the_default_for_one_device() {
    let limits = parse_nat("max_sessions = 4096").unwrap().0.policy.limits;
    assert_eq!(limits, Limits { sessions: 4096, sessions_per_device: 4096, held_syns: 256 });
}

#[test]
fn a_text_that_is_no_configuration_at_all_ends() {
    let text = "<html>\n".repeat(10_000);
    let problems = Config::parse(&text).unwrap_err();
    assert_eq!(problems.iter().filter(|problem| problem.column.is_some()).count(), 32, "{problems:?}");
}

#[test]
fn no_depth_of_nesting_overflows_the_stack() {
    let texts = [
        "a.".repeat(100_000) + "a = 1",
        format!("[{}a]", "a.".repeat(100_000)),
        "a = ".to_owned() + &"[".repeat(100_000),
        "a = ".to_owned() + &"{ a = ".repeat(100_000),
    ];
    for text in texts {
        let problems = Config::parse(&text).unwrap_err();
        assert!(problems.iter().any(|problem| problem.message.contains("recur")), "{problems:?}");
    }
}

#[test]
fn an_empty_file_lacks_both_interfaces() {
    for text in ["", "# nothing\n\n", "[nat]"] {
        assert_eq!(
            problems(text),
            [
                "line 1: nat.lan: is missing; add lan = [\"br-lan\"] below [nat], with your LAN interfaces",
                "line 1: nat.wan: is missing; add wan = \"eth1\" below [nat], with your WAN interface",
            ]
        );
    }
}

#[test]
fn all_problems_come_at_once_in_the_order_of_their_lines() {
    let text = r#"
[nat]
lan = ["br-lan", "br lan"]
hairpin = yes
filtering = "open"
[timeout]
udp = 0
[[forward]]
protocol = "sctp"
external = 80
host = "192.168.1.10"
[kernal]
queue = 1
[log]
levle = "info"
"#;
    let problems = Config::parse(text).unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.key.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, "nat.wan"),
            (3, "nat.lan"),
            (4, ""),
            (5, "nat.filtering"),
            (7, "timeout.udp"),
            (9, "forward.protocol"),
            (12, "kernal"),
            (15, "log.levle"),
        ]
    );
}

#[test]
fn values_that_an_rfc_advises_against_are_taken_with_a_remark() {
    let hold = "an unsolicited SYN is refused at once; RFC 5382 REQ-4 asks to hold it for 6s, which lets two devices \
                open a connection to each other";
    let rows: &[(&str, &str)] = &[
        (
            "hairpin = false",
            "line 4: nat.hairpin: devices cannot reach each other through the WAN address; RFC 4787 REQ-9 requires it",
        ),
        ("max_held_syns = 0", &format!("line 4: nat.max_held_syns: {hold}")),
        (
            "[timeout]\ntcp_established = \"2h3m59s\"",
            "line 5: timeout.tcp_established: 2h3m59s is less than the 2h4m of RFC 5382 REQ-5",
        ),
        (
            "[timeout]\ntcp_transitory = 239",
            "line 5: timeout.tcp_transitory: 3m59s is less than the 4m of RFC 5382 REQ-5",
        ),
        (
            "[timeout]\ntcp_reset = 1",
            "line 5: timeout.tcp_reset: 1s is less than the 4m of RFC 7857 section 2.2",
        ),
        ("[timeout]\nudp = 119", "line 5: timeout.udp: 1m59s is less than the 2m of RFC 4787 REQ-5"),
        ("[timeout]\nicmp = 59", "line 5: timeout.icmp: 59s is less than the 1m of RFC 5508 REQ-2"),
        (
            "[timeout]\ntcp_syn_hold = 5",
            "line 5: timeout.tcp_syn_hold: 5s is less than the 6s of RFC 5382 REQ-4",
        ),
        ("[timeout]\ntcp_syn_hold = \"0s\"", &format!("line 5: timeout.tcp_syn_hold: {hold}")),
    ];
    for (body, expected) in rows {
        let (_, remarks) = parse_nat(body).unwrap();
        assert_eq!(remarks.iter().map(ToString::to_string).collect::<Vec<_>>(), [*expected], "{body}");
    }
}

#[test]
fn remarks_come_in_the_order_of_their_lines() {
    let text = format!("[timeout]\nicmp = 5\nudp = 5\n[nat]\n{MINIMUM}\nhairpin = false\n");
    let (_, remarks) = Config::parse(&text).unwrap();
    let places: Vec<_> = remarks.iter().map(|remark| (remark.line, remark.key.as_str())).collect();
    assert_eq!(places, [(2, "timeout.icmp"), (3, "timeout.udp"), (7, "nat.hairpin")]);
}

/// No key may be in the schema and be read by nobody.
#[test]
fn every_key_of_the_schema_is_read() {
    for table in TABLES {
        for key in table.keys {
            let header = match table.times {
                Times::Once => format!("[{}]", table.name),
                Times::Many => format!("[[{}]]", table.name),
            };
            let found = Config::parse(&format!("{header}\n{key} = {{ }}\n")).unwrap_err();
            let name = format!("{}.{key}", table.name);
            assert!(
                found.iter().any(|p| p.key == name && p.message == "{ } is a table"),
                "{name}: {found:?}"
            );
        }
    }
}

#[test]
fn long_and_unprintable_values_stay_on_one_short_line() {
    let long = "x".repeat(5000);
    let expected = format!("line 4: nat.scope: \"{}… is not known; use \"all\" or \"vpn\"", "x".repeat(47));
    assert_eq!(problems(&format!("[nat]\n{MINIMUM}\nscope = \"{long}\"")), [expected]);
    let problem = problems(&format!("[nat]\n{MINIMUM}\nscope = \"\u{1b}[2J\""));
    assert_eq!(problem.len(), 1);
    assert!(problem.iter().all(|line| !line.contains('\u{1b}')), "{problem:?}");
}

#[test]
fn a_reload_takes_over_all_but_scope_kernel_and_socket() {
    let old = Config::new(["br-lan"], "eth1");
    let mut new = Config::new(["br-lan", "br-guest"], "eth2");
    new.policy.hairpin = false;
    new.log = LevelFilter::Debug;
    new.passthrough.pptp.on = true;
    assert_eq!(old.needs_restart(&new), Vec::<&str>::new());
    new.kernel = Kernel { rules: Rules::Nft, queue: 1, queues: 2, queue_length: 300 };
    new.socket = "/tmp/natd.sock".into();
    new.passthrough.scope = ::passthrough::settings::Scope::Vpn;
    new.observe = false;
    new.sessions = SessionLog { to: LogTo::Log, format: LogFormat::Text, max_size: 5000 };
    assert_eq!(
        old.needs_restart(&new),
        [
            "nat.scope",
            "kernel.rules",
            "kernel.queue",
            "kernel.queues",
            "kernel.queue_length",
            "control.socket",
            "diagnosis.observe",
            "sessions.log",
            "sessions.format",
            "sessions.max_size"
        ]
    );
}

const MINIMUM: &str = "lan = [\"br-lan\"]\nwan = \"eth1\"";

fn nat(line: &str) -> String {
    format!("{MINIMUM}\n{line}")
}

fn parse_nat(body: &str) -> Result<(Config, Vec<Remark>), Vec<Problem>> {
    Config::parse(&format!("[nat]\n{}\n", nat(body)))
}

fn forward(protocol: &str, external: &str, host: &str, more: &str) -> String {
    format!("[[forward]]\nprotocol = {protocol}\nexternal = {external}\nhost = {host}\n{more}\n")
}

fn problems(text: &str) -> Vec<String> {
    Config::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}
