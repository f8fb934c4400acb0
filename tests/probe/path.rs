//! The path with the servers, and how it is probed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use diagnosis::{Code, Group};
use serde_json::Value;
use testkit::vpn::openvpn::{self, Pki};
use testkit::vpn::strongswan::{self, Charon};
use testkit::vpn::{l2tp, pptp};
use testkit::{Background, Lab, Nat, Node, Outcome, address};

use crate::cases::{CASES, Case, NAT, OPEN};

/// The server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// The path with the servers at its end.
pub(crate) struct Path {
    lab: Lab,
    _charon: Charon,
    _servers: Vec<Background>,
}

impl Path {
    /// Builds it; `None` when the test is skipped.
    pub(crate) fn start() -> Option<Self> {
        let needs =
            [&strongswan::PROGRAMS[..], &pptp::PROGRAMS[..], &l2tp::PROGRAMS[..], &openvpn::PROGRAMS[..]]
                .concat();
        let devices = u8::try_from(CASES.len()).expect("a few");
        let lab = Lab::household().nat(Nat::Routed).devices(devices).needs(&needs).start()?;
        let Lab { internet, s2, s3, .. } = &lab;
        // Its link stays: without it the bridge would have another address than its neighbours remember.
        s2.ip("link set eth0 down\naddr flush dev eth0\nlink set eth0 name old0\n");
        s3.ip(&format!(
            "link add far0 type veth peer name eth0 netns {}\naddr add 192.0.2.1/24 dev far0\nlink set far0 up\n",
            s2.namespace()
        ));
        s3.sysctl("ipv4/ip_forward", "1");
        s3.sysctl("ipv4/icmp_ratelimit", "0");
        s2.sysctl("ipv4/icmp_ratelimit", "0");
        s2.ip(&format!("addr add {SERVER}/24 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.1\n"));
        internet.ip(&format!("route add 192.0.2.0/24 via {}\n", address::S3));
        let pki = Pki::make(&lab);
        let charon = strongswan::server(&lab, s2, SERVER);
        let keys = |what: &str| lab.dir().join(format!("pki/server.{what}")).to_string_lossy().into_owned();
        let servers = vec![
            pptp::server(&lab, s2, SERVER),
            l2tp::server(&lab, s2, SERVER),
            openvpn::server(s2, &pki, SERVER),
            s2.spawn(&[
                "openssl",
                "s_server",
                "-accept",
                "443",
                "-cert",
                &keys("crt"),
                "-key",
                &keys("key"),
                "-www",
            ]),
        ];
        testkit::wait_for("the path", Duration::from_secs(20), || {
            lab.d1.run(&["ping", "-n", "-c1", "-W1", &SERVER.to_string()]).success()
        });
        let path = Self { lab, _charon: charon, _servers: servers };
        for (number, case) in (1..).zip(CASES) {
            path.block(number, case);
        }
        Some(path)
    }

    /// Gives everything between the first two devices and the server an IPv6 address, and has hop 2 drop the second
    /// device's ESP.
    pub(crate) fn add_ipv6(&self) {
        let Lab { router, d1, d2, internet, s2, s3, .. } = &self.lab;
        for node in [router, internet, s3] {
            node.sysctl("ipv6/conf/all/forwarding", "1");
            node.sysctl("ipv6/icmp/ratelimit", "0");
        }
        s2.sysctl("ipv6/icmp/ratelimit", "0");
        for (node, last) in [(d1, "11"), (d2, "12")] {
            node.ip(&format!(
                "addr add 2001:db8:1::{last}/64 dev eth0 nodad\nroute add default via 2001:db8:1::1\n"
            ));
        }
        router.ip("addr add 2001:db8:1::1/64 dev br-lan nodad\naddr add 2001:db8:2::1/64 dev wan0 nodad\nroute add default via 2001:db8:2::2\n");
        internet.ip("addr add 2001:db8:2::2/64 dev br0 nodad\naddr add 2001:db8:3::1/64 dev ps3 nodad\nroute add 2001:db8:1::/64 via 2001:db8:2::1\nroute add 2001:db8:4::/64 via 2001:db8:3::3\n");
        s3.ip("addr add 2001:db8:3::3/64 dev eth0 nodad\naddr add 2001:db8:4::1/64 dev far0 nodad\nroute add default via 2001:db8:3::1\n");
        s2.ip("addr add 2001:db8:4::10/64 dev eth0 nodad\nroute add default via 2001:db8:4::1\n");
        internet.nft("table ip6 six {\n chain c {\n  type filter hook forward priority 0; policy accept;\n  ip6 saddr 2001:db8:1::12 meta l4proto esp drop\n }\n}\n");
        testkit::wait_for("the path of IPv6", Duration::from_secs(20), || {
            [d1, d2].iter().all(|node| node.run(&["ping", "-n", "-c1", "-W1", "2001:db8:4::10"]).success())
        });
    }

    /// Probes over IPv6 with the first two devices; answers the texts, and what is not as expected.
    pub(crate) fn check_ipv6(&self) -> Vec<(String, Vec<String>)> {
        let server = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 4, 0, 0, 0, 0, 0x10));
        let rows = [("ping", "answers"), ("ike-500", "answers"), ("ike-4500", "answers"), ("mtu", "reaches")];
        let check = |node: &Node, esp: (&str, Option<u64>)| {
            let (_, seconds, page) = run(node, server);
            let seen = |probe: &str| {
                let rows = page["probes"].as_array().expect("a list");
                let row = rows.iter().find(|row| row["probe"] == probe).expect("a row for each");
                (row["result"].as_str().unwrap_or("?").to_owned(), row["after_hop"].as_u64())
            };
            let expected = rows.map(|(probe, result)| (probe, (result, None)));
            let wrong = expected.into_iter().chain([("esp", esp)]).filter_map(|(probe, (result, hop))| {
                let seen = seen(probe);
                (seen != (result.to_owned(), hop))
                    .then(|| format!("IPv6: {probe}: {seen:?}, not {result} {hop:?}"))
            });
            (format!("== IPv6, ESP {} ({seconds} s)\n{}", esp.0, table(&page)), wrong.collect())
        };
        std::thread::scope(|scope| {
            let open = scope.spawn(|| check(&self.lab.d1, ("reaches", None)));
            let blocked = scope.spawn(|| check(&self.lab.d2, ("lost", Some(2))));
            [open, blocked].map(|case| case.join().expect("a case does not panic")).into()
        })
    }

    /// Probes the server by a name that has an address of each version, with the first device; answers what is not
    /// as expected.
    pub(crate) fn check_name(&self) -> Vec<String> {
        let hosts = self.lab.dir().join("hosts");
        std::fs::write(&hosts, format!("{SERVER} vpn.example.test\n2001:db8:4::10 vpn.example.test\n"))
            .expect("the lab's folder is writable");
        let line = format!(
            "mount --bind {} /etc/hosts && exec {} probe vpn.example.test",
            hosts.display(),
            testkit::natd::binary().display()
        );
        let outcome = self.lab.d1.run_within(&["unshare", "--mount", "sh", "-c", &line], DEADLINE);
        let ends = "\nNothing was found that keeps a VPN from working.\n";
        let expected = [
            format!("vpn.example.test, {SERVER} from 192.168.1.11, in "),
            "\nvpn.example.test, 2001:db8:4::10 from 2001:db8:1::11, in ".to_owned(),
            ends.to_owned(),
        ];
        let missing = expected.iter().filter(|part| !outcome.stdout.contains(*part));
        let mut wrong: Vec<String> = missing.map(|part| format!("by name: no {part:?}: {outcome}")).collect();
        if (outcome.code, &*outcome.stderr) != (Some(0), "") {
            wrong.push(format!("by name: {outcome}"));
        }
        wrong
    }

    /// Probes a server that knows only IKEv1, with the router; answers what is not as expected.
    pub(crate) fn check_version_one(&self) -> Vec<String> {
        let _charon = strongswan::server_of_version(&self.lab, &self.lab.s1, address::S1, 1);
        let (code, _, page) = run(&self.lab.router, address::S1.into());
        println!("== IKEv1 only\n{}", table(&page));
        let rows = page["probes"].as_array().expect("a list");
        let answers =
            |probe: &str| rows.iter().any(|row| row["probe"] == probe && row["result"] == "answers");
        let one =
            rows.iter().filter(|row| row["note"].as_str().is_some_and(|note| note.starts_with("IKEv1")));
        let fine = code == 0
            && one.count() == 2
            && answers("ike-500")
            && answers("ike-4500")
            && answers("ike-large");
        if fine { Vec::new() } else { vec![format!("IKEv1: exit code {code}, {page:#}")] }
    }

    /// A hop of the path from device `number`.
    fn hop(&self, hop: u8, number: u8) -> &Node {
        match hop {
            0 => self.device(number),
            1 => &self.lab.router,
            2 => &self.lab.internet,
            _ => &self.lab.s3,
        }
    }

    pub(crate) fn device(&self, number: u8) -> &Node {
        let mut devices = self.lab.devices().into_iter();
        devices.find(|(_, addr)| *addr == address::device(number)).expect("one for each case").0
    }

    fn block(&self, number: u8, case: Case) {
        let device = address::device(number).to_string();
        for (hop, line) in case.setup {
            self.hop(*hop, number).sh(&line.replace("DEV", &device));
        }
        for (place, (hop, hook, rule)) in case.rules.iter().enumerate() {
            let kind = if *hook == NAT { "nat" } else { "filter" };
            self.hop(*hop, number).nft(&format!(
                "table ip case{number}x{place} {{\n chain c {{\n  type {kind} hook {hook}; policy accept;\n  {}\n }}\n}}\n",
                rule.replace("DEV", &device)
            ));
        }
    }

    /// Probes with the devices from `first` on at once; for each the text, and what is not as expected.
    pub(crate) fn check_all(&self, first: u8, cases: &[Case]) -> Vec<(String, Vec<String>)> {
        std::thread::scope(|scope| {
            let running: Vec<_> = (first..)
                .zip(cases)
                .map(|(number, case)| scope.spawn(move || self.check(number, *case)))
                .collect();
            running.into_iter().map(|case| case.join().expect("a case does not panic")).collect()
        })
    }

    /// Probes with device `number`; answers the text, and what is not as expected.
    pub(crate) fn check(&self, number: u8, case: Case) -> (String, Vec<String>) {
        let (code, seconds, page) = run(self.device(number), SERVER.into());
        let mut wrong = Vec::new();
        for (probe, result, hop) in OPEN {
            let expected =
                case.rows.iter().find(|row| row.0 == probe).map_or((result, hop), |row| (row.1, row.2));
            let rows = page["probes"].as_array().expect("a list");
            let row = rows.iter().find(|row| row["probe"] == probe).expect("a row for each");
            let seen = (row["result"].as_str().unwrap_or("?"), row["after_hop"].as_u64());
            let note = row["note"].as_str().unwrap_or("?");
            if case.notes.iter().any(|(kind, part)| *kind == probe && !note.contains(part)) {
                wrong.push(format!("{}: {row}, not {:?}", case.name, case.notes));
            }
            if seen != (expected.0, expected.1.map(u64::from)) {
                wrong.push(format!("{}: {probe}: {row}, not {expected:?}", case.name));
            }
        }
        let findings = page["findings"].as_array().expect("a list");
        let codes: Vec<&str> = findings.iter().filter_map(|finding| finding["code"].as_str()).collect();
        if codes != case.codes {
            wrong.push(format!("{}: {codes:?}, not {:?}: {findings:#?}", case.name, case.codes));
        }
        if code != i32::from(case.codes.iter().any(|code| is_problem(code))) {
            wrong.push(format!("{}: it exits with {code}", case.name));
        }
        if seconds > 75 {
            wrong.push(format!("{}: it takes {seconds} s", case.name));
        }
        (format!("== {} ({seconds} s)\n{}", case.name, table(&page)), wrong)
    }
}

fn is_problem(code: &str) -> bool {
    let code = Code::ALL.iter().find(|known| known.name() == code).expect("a code that there is");
    code.group() != Group::Note
}

/// A bound, so that a probe that hangs fails its test; it ends itself after 75 seconds for each address.
const DEADLINE: Duration = Duration::from_secs(180);

/// `natd probe WORDS` on `node`.
pub(crate) fn natd_probe(node: &Node, words: &[&str]) -> Outcome {
    let program = testkit::natd::binary();
    let program = program.to_string_lossy();
    let line = [&[&*program, "probe"], words].concat();
    node.run_within(&line, DEADLINE)
}

/// Probes `server` from `device`: exit code, seconds, and the page of JSON.
///
/// # Panics
/// When it does not end as it should, or says anything but JSON.
pub(crate) fn run(device: &Node, server: IpAddr) -> (i32, u64, Value) {
    let outcome = natd_probe(device, &[&server.to_string(), "--json"]);
    assert!(outcome.stderr.is_empty(), "progress is for terminals: {outcome}");
    let code = outcome.code.unwrap_or_else(|| panic!("{outcome}"));
    let pages: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome}"));
    let page = pages[0].clone();
    (code, page["seconds"].as_u64().expect("a number"), page)
}

/// A page as text.
pub(crate) fn table(page: &Value) -> String {
    let rows = page["probes"].as_array().expect("a list");
    let mut text: String = rows
        .iter()
        .map(|row| {
            format!(
                "{:<15} {:>2}  {:<18} {:<4} {}\n",
                row["probe"].as_str().unwrap_or("?"),
                row["sent"].to_string(),
                row["result"].as_str().unwrap_or("?"),
                row["after_hop"].to_string(),
                row["note"].as_str().unwrap_or("?")
            )
        })
        .collect();
    for finding in page["findings"].as_array().expect("a list") {
        text.push_str(&format!("{} {} {}\n", finding["code"], finding["confidence"], finding["owner"]));
    }
    text
}
