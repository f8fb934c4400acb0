//! Every problem and remark, word for word.

use std::time::Duration;

use nat_core::flow::Protocol;
use nat_core::policy::{Filtering, Forward, Limits, MssClamp, PortRange};

use super::schema::{TABLES, Times};
use super::*;

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
    assert_eq!(Config::parse(text), Ok((expected, Vec::new())));
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
fn problems_of_nat() {
    let names = "use an interface name, such as \"br-lan\": 1 to 15 letters, digits, \".\", \"_\" or \"-\"";
    let wan_name = "use an interface name, such as \"eth1\": 1 to 15 letters, digits, \".\", \"_\" or \"-\"";
    let home = "name the interfaces of your home network, such as [\"br-lan\"]";
    let ports = "use a range such as \"1024-65535\", within it and at least 1024 ports wide";
    let host = "use the device's IPv4 address, such as \"192.168.1.10\"";
    let mss = "use \"auto\", a whole number from 536 to 9000, or false";
    let filtering = "use \"endpoint-independent\", \"address-dependent\" or \"address-and-port-dependent\"";
    let seventeen = (0..17).map(|n| format!("\"eth{n}\"")).collect::<Vec<_>>().join(", ");
    let rows: &[(&str, &str)] = &[
        (
            "lan = [\"br-lan\"]",
            "line 1: nat.wan: is missing; add wan = \"eth1\" below [nat], with your WAN interface",
        ),
        (
            "wan = \"eth1\"",
            "line 1: nat.lan: is missing; add lan = [\"br-lan\"] below [nat], with your LAN interfaces",
        ),
        (
            "wan = \"eth1\"\nlan = \"br-lan\"",
            "line 3: nat.lan: \"br-lan\" is text; use a list in brackets: [\"br-lan\"]",
        ),
        ("wan = \"eth1\"\nlan = 3", "line 3: nat.lan: 3 is a number; use a list in brackets: [\"br-lan\"]"),
        ("wan = \"eth1\"\nlan = []", &format!("line 3: nat.lan: [] is empty; {home}")),
        (
            &format!("wan = \"wan\"\nlan = [{seventeen}]"),
            "line 3: nat.lan: has 17 interfaces; name at most 16",
        ),
        (
            "wan = \"eth1\"\nlan = [\n\"a\",\n\"b\",\n\"a\"]",
            "line 6: nat.lan: \"a\" is there twice; name every interface once",
        ),
        ("wan = \"eth1\"\nlan = [\"a\", 2]", &format!("line 3: nat.lan: 2 is a number; {names}")),
        (
            "wan = \"eth1\"\nlan = [\"eth*\"]",
            &format!("line 3: nat.lan: \"eth*\" is not an interface name; {names}"),
        ),
        ("wan = \"eth1\"\nlan = [\"\"]", &format!("line 3: nat.lan: \"\" is not an interface name; {names}")),
        (
            "wan = \"eth1\"\nlan = [\"-i\"]",
            &format!("line 3: nat.lan: \"-i\" is not an interface name; {names}"),
        ),
        (
            "wan = \"eth1\"\nlan = [\"..\"]",
            &format!("line 3: nat.lan: \"..\" is not an interface name; {names}"),
        ),
        (
            "wan = \"eth1\"\nlan = [\"lo\"]",
            &format!("line 3: nat.lan: \"lo\" is the router's own loopback; {names}"),
        ),
        (
            "lan = [\"br-lan\"]\nwan = \"sixteen-letters-\"",
            &format!("line 3: nat.wan: \"sixteen-letters-\" is not an interface name; {wan_name}"),
        ),
        ("lan = [\"br-lan\"]\nwan = [\"a\"]", &format!("line 3: nat.wan: [\"a\"] is a list; {wan_name}")),
        (
            "wan = \"eth1\"\nlan = [\"eth0\",\n\"eth1\"]",
            "line 2: nat.wan: \"eth1\" is also in lan, on line 4; use the interface towards the internet for wan alone",
        ),
        (
            &nat("scope = \"vpn\""),
            "line 4: nat.scope: \"vpn\" comes with VPN passthrough, which this version does not have; use \"all\"",
        ),
        (&nat("scope = \"lan\""), "line 4: nat.scope: \"lan\" is not known; use \"all\""),
        (
            &nat("filtering = \"adress-dependent\""),
            &format!(
                "line 4: nat.filtering: \"adress-dependent\" is not known (did you mean \"address-dependent\"?); {filtering}"
            ),
        ),
        (
            &nat("filtering = \"strict\""),
            &format!("line 4: nat.filtering: \"strict\" is not known; {filtering}"),
        ),
        (
            &nat("filtering = true"),
            &format!("line 4: nat.filtering: true is not a value of this key; {filtering}"),
        ),
        (&nat("ports = 1024"), &format!("line 4: nat.ports: 1024 is a number; {ports}")),
        (&nat("ports = \"all\""), &format!("line 4: nat.ports: \"all\" is not a range of ports; {ports}")),
        (
            &nat("ports = \"+1024-65535\""),
            &format!("line 4: nat.ports: \"+1024-65535\" is not a range of ports; {ports}"),
        ),
        (
            &nat("ports = \"5000-4000\""),
            &format!("line 4: nat.ports: \"5000-4000\" is not a range of ports; {ports}"),
        ),
        (
            &nat("ports = \"1023-65535\""),
            &format!("line 4: nat.ports: \"1023-65535\" begins below 1024; {ports}"),
        ),
        (&nat("ports = \"2000-3022\""), &format!("line 4: nat.ports: \"2000-3022\" has 1023 ports; {ports}")),
        (&nat("hairpin = \"yes\""), "line 4: nat.hairpin: \"yes\" is text; use true or false"),
        (&nat("inbound_refresh = 1"), "line 4: nat.inbound_refresh: 1 is a number; use true or false"),
        (&nat("mss_clamp = true"), &format!("line 4: nat.mss_clamp: true is not a value of this key; {mss}")),
        (&nat("mss_clamp = 535"), &format!("line 4: nat.mss_clamp: 535 is out of range; {mss}")),
        (&nat("mss_clamp = 9001"), &format!("line 4: nat.mss_clamp: 9001 is out of range; {mss}")),
        (&nat("mss_clamp = 1.5"), &format!("line 4: nat.mss_clamp: 1.5 is not a whole number; {mss}")),
        (
            &nat("mss_clamp = \"aut\""),
            &format!("line 4: nat.mss_clamp: \"aut\" is not known (did you mean \"auto\"?); {mss}"),
        ),
        (
            &nat("exposed_host = \"nas\""),
            &format!("line 4: nat.exposed_host: \"nas\" is not an IPv4 address; {host}"),
        ),
        (
            &nat("exposed_host = false"),
            &format!("line 4: nat.exposed_host: false is not a value of this key; {host}"),
        ),
        (
            &nat("exposed_host = \"127.0.0.1\""),
            &format!(
                "line 4: nat.exposed_host: \"127.0.0.1\" is not an address that a device can have; {host}"
            ),
        ),
        (
            &nat("max_sessions = 1023"),
            "line 4: nat.max_sessions: 1023 is out of range; use a whole number from 1024 to 4000000",
        ),
        (
            &nat("max_sessions = 4_000_001"),
            "line 4: nat.max_sessions: 4_000_001 is out of range; use a whole number from 1024 to 4000000",
        ),
        (
            &nat("max_sessions = 99999999999999999999999999"),
            "line 4: nat.max_sessions: 99999999999999999999999999 is out of range; use a whole number from 1024 to 4000000",
        ),
        (
            &nat("max_sessions_per_device = 63"),
            "line 4: nat.max_sessions_per_device: 63 is out of range; use a whole number from 64 to 4000000",
        ),
        (
            &nat("max_sessions_per_device = 65537"),
            "line 4: nat.max_sessions_per_device: 65537 is more than max_sessions, 65536; use a whole number from 64 to 65536",
        ),
        (
            &nat("max_sessions_per_device = 5000\nmax_sessions = 4096"),
            "line 4: nat.max_sessions_per_device: 5000 is more than max_sessions, 4096 on line 5; use a whole number from 64 to 4096",
        ),
        (
            &nat("max_held_syns = -1"),
            "line 4: nat.max_held_syns: -1 is out of range; use a whole number from 0 to 4096",
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(problems(&format!("[nat]\n{body}\n")), [*expected], "{body}");
    }
}

#[test]
fn problems_of_forwards() {
    let external = "use a port from 1 to 65535, or a range such as \"6000-6010\"";
    let own = "give every forward ports of its own";
    let rows: &[(&str, &[&str])] = &[
        (
            "[[forward]]",
            &[
                "line 5: forward.protocol: is missing; add protocol = \"tcp\", \"udp\" or \"tcp+udp\"",
                "line 5: forward.external: is missing; add the port on the WAN address: external = 443",
                "line 5: forward.host: is missing; add the device's address: host = \"192.168.1.10\"",
            ],
        ),
        (
            &forward("\"TCP\"", "1", "\"192.168.1.10\"", ""),
            &[
                "line 6: forward.protocol: \"TCP\" is not known (did you mean \"tcp\"?); use \"tcp\", \"udp\" or \"tcp+udp\"",
            ],
        ),
        (
            &forward("\"tcp\"", "0", "\"192.168.1.10\"", ""),
            &[&format!("line 7: forward.external: 0 is out of range; {external}")],
        ),
        (
            &forward("\"tcp\"", "\"80-\"", "\"192.168.1.10\"", ""),
            &[&format!(
                "line 7: forward.external: \"80-\" is neither a port nor a range of ports; {external}"
            )],
        ),
        (
            &forward("\"tcp\"", "[80]", "\"192.168.1.10\"", ""),
            &[&format!("line 7: forward.external: [80] is a list; {external}")],
        ),
        (
            &forward("\"tcp\"", "80", "\"192.168.1.256\"", ""),
            &[
                "line 8: forward.host: \"192.168.1.256\" is not an IPv4 address; use the device's IPv4 address, such as \"192.168.1.10\"",
            ],
        ),
        (
            &forward("\"tcp\"", "80", "\"192.168.1.10\"", "internal = 65536"),
            &["line 9: forward.internal: 65536 is out of range; use a whole number from 1 to 65535"],
        ),
        (
            &forward("\"tcp\"", "\"80-89\"", "\"192.168.1.10\"", "internal = 65527"),
            &[
                "line 9: forward.internal: 65527 leaves no room for 10 ports below 65536; use a port from 1 to 65526",
            ],
        ),
        (
            &forward("\"tcp\"", "80", "\"192.168.1.10\"", "comment = 5"),
            &["line 9: forward.comment: 5 is a number; put it in quotes"],
        ),
        (
            &(forward("\"tcp\"", "\"80-90\"", "\"192.168.1.10\"", "")
                + &forward("\"tcp+udp\"", "85", "\"192.168.1.11\"", "")
                + &forward("\"udp\"", "\"84-86\"", "\"192.168.1.12\"", "")),
            &[
                &format!("line 12: forward.external: 85 overlaps line 7: both forward tcp port 85; {own}"),
                &format!(
                    "line 17: forward.external: \"84-86\" overlaps line 12: both forward udp port 85; {own}"
                ),
            ],
        ),
        (
            &(forward("\"tcp+udp\"", "80", "\"192.168.1.10\"", "")
                + &forward("\"tcp+udp\"", "\"80\"", "\"192.168.1.10\"", "")),
            &[&format!("line 12: forward.external: \"80\" overlaps line 7: both forward tcp port 80; {own}")],
        ),
        (
            "[forward]",
            &[
                "line 5: forward: is not a list of tables; write [[forward]], with two brackets, above each forward",
            ],
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(problems(&format!("[nat]\n{MINIMUM}\n\n{body}\n")), *expected, "{body}");
    }
}

#[test]
fn neighbouring_forwards_and_forwards_of_other_protocols_do_not_overlap() {
    let text = format!("[nat]\n{MINIMUM}\n")
        + &forward("\"tcp\"", "\"80-89\"", "\"192.168.1.10\"", "")
        + &forward("\"tcp\"", "\"90-99\"", "\"192.168.1.10\"", "internal = 65526")
        + &forward("\"udp\"", "85", "\"192.168.1.10\"", "");
    assert_eq!(Config::parse(&text).unwrap().0.policy.forwards.len(), 3);
}

#[test]
fn problems_of_the_other_tables() {
    let week = "use 1s to 7d: seconds as a number, or text such as \"2h4m\", \"5m\" or \"90s\"";
    let hold = "use 0s to 1m: seconds as a number, or text such as \"2h4m\", \"5m\" or \"90s\"";
    let path = "use an absolute path of at most 107 bytes, such as \"/run/natd/natd.sock\"";
    let long = format!("/{}", "x".repeat(107));
    let rows: &[(&str, &str)] = &[
        ("[timeout]\nudp = 0", &format!("line 5: timeout.udp: 0 is out of range; {week}")),
        ("[timeout]\nudp = \"0s\"", &format!("line 5: timeout.udp: \"0s\" is out of range; {week}")),
        ("[timeout]\nudp = \"7d1s\"", &format!("line 5: timeout.udp: \"7d1s\" is out of range; {week}")),
        ("[timeout]\nudp = -5", &format!("line 5: timeout.udp: -5 is out of range; {week}")),
        (
            "[timeout]\nudp = \"99999999999999999999d\"",
            &format!("line 5: timeout.udp: \"99999999999999999999d\" is out of range; {week}"),
        ),
        ("[timeout]\nudp = \"300\"", &format!("line 5: timeout.udp: \"300\" is not a duration; {week}")),
        ("[timeout]\nudp = \"\"", &format!("line 5: timeout.udp: \"\" is not a duration; {week}")),
        ("[timeout]\nudp = \"m\"", &format!("line 5: timeout.udp: \"m\" is not a duration; {week}")),
        ("[timeout]\nudp = \"4m2h\"", &format!("line 5: timeout.udp: \"4m2h\" is not a duration; {week}")),
        ("[timeout]\nudp = \"5m5m\"", &format!("line 5: timeout.udp: \"5m5m\" is not a duration; {week}")),
        ("[timeout]\nudp = 1.5", &format!("line 5: timeout.udp: 1.5 is not a whole number; {week}")),
        ("[timeout]\nudp = 07:32:00", &format!("line 5: timeout.udp: 07:32:00 is a date; {week}")),
        (
            "[timeout]\ntcp_syn_hold = 61",
            &format!("line 5: timeout.tcp_syn_hold: 61 is out of range; {hold}"),
        ),
        (
            "[kernel]\nrules = \"nftables\"",
            "line 5: kernel.rules: \"nftables\" is not known (did you mean \"nft\"?); use \"auto\", \"nft\" or \"iptables\"",
        ),
        (
            "[kernel]\nqueue = 65536",
            "line 5: kernel.queue: 65536 is out of range; use a whole number from 0 to 65535",
        ),
        (
            "[kernel]\nqueues = 17",
            "line 5: kernel.queues: 17 is out of range; use a whole number from 1 to 16",
        ),
        ("[kernel]\nqueues = 0", "line 5: kernel.queues: 0 is out of range; use a whole number from 1 to 16"),
        (
            "[kernel]\nqueue = 65533\nqueues = 4",
            "line 5: kernel.queue: 65533 leaves no room for 4 queues below 65536; use a whole number from 0 to 65532",
        ),
        (
            "[kernel]\nqueue_length = 255",
            "line 5: kernel.queue_length: 255 is out of range; use a whole number from 256 to 65535",
        ),
        (
            "[control]\nsocket = \"natd.sock\"",
            &format!("line 5: control.socket: \"natd.sock\" is not the absolute path of a file; {path}"),
        ),
        (
            "[control]\nsocket = \"/run/\"",
            &format!("line 5: control.socket: \"/run/\" is not the absolute path of a file; {path}"),
        ),
        (
            "[control]\nsocket = \"/run/\\u0000\"",
            &format!("line 5: control.socket: \"/run/\\u0000\" has a zero byte; {path}"),
        ),
        (
            &format!("[control]\nsocket = \"{long}\""),
            &format!("line 5: control.socket: the path has 108 bytes; {path}"),
        ),
        (
            "[log]\nlevel = \"warm\"",
            "line 5: log.level: \"warm\" is not known (did you mean \"warn\"?); use \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(problems(&format!("[nat]\n{MINIMUM}\n{body}\n")), [*expected], "{body}");
    }
}

#[test]
fn unknown_tables_and_keys() {
    let tables = "natd's tables are [nat], [[forward]], [timeout], [kernel], [control] and [log]";
    let rows: &[(&str, &str)] = &[
        ("filtring = \"a\"", "line 4: nat.filtring: is not a key of [nat]; did you mean filtering?"),
        ("mss-clamp = false", "line 4: nat.mss-clamp: is not a key of [nat]; did you mean mss_clamp?"),
        ("udp = 300", "line 4: nat.udp: is not a key of [nat]; move it below [timeout]"),
        ("[log]\nfile = \"x\"", "line 5: log.file: is not a key of [log]; [log] has level"),
        (
            "[kernel]\ncolour = \"x\"",
            "line 5: kernel.colour: is not a key of [kernel]; [kernel] has rules, queue, queues and queue_length",
        ),
        (
            "[nat.extra]\na = 1",
            "line 4: nat.extra: is not a key of [nat]; [nat] has lan, wan, scope, filtering, ports, hairpin, inbound_refresh, mss_clamp, exposed_host, max_sessions, max_sessions_per_device and max_held_syns",
        ),
        ("[timeouts]\nudp = 5", "line 4: timeouts: is not a table of natd; did you mean [timeout]?"),
        ("[[forwards]]", "line 4: forwards: is not a table of natd; did you mean [[forward]]?"),
        ("[lock]", &format!("line 4: lock: is not a table of natd; {tables}")),
        ("[[log]]\nlevel = \"info\"", "line 4: log: is not a table; write [log] on a line of its own"),
        (
            "[log.level]",
            "line 4: log.level: [log.level] is a table; use \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(problems(&format!("[nat]\n{MINIMUM}\n{body}\n")), [*expected], "{body}");
    }
    assert_eq!(
        problems(&format!("level = \"info\"\ncolour = 1\nlog = 5\n[nat]\n{MINIMUM}\n")),
        [
            "line 1: level: stands outside of any table; move it below [log]",
            &format!("line 2: colour: stands outside of any table; {tables}"),
            "line 3: log: is not a table; write [log] on a line of its own",
        ]
    );
}

#[test]
fn what_is_not_toml() {
    let rows: &[(&str, &[&str])] = &[
        ("wan = eth1", &["line 3, column 7: eth1 is neither a number nor in quotes; write \"eth1\""]),
        (
            "wan = \"eth1\"\nports = 1024-65535 # all",
            &["line 4, column 9: 1024-65535 is neither a number nor in quotes; write \"1024-65535\""],
        ),
        (
            "wan = \"eth1\"\nexposed_host = 192.168.1.10",
            &["line 4, column 23: 192.168.1.10 is neither a number nor in quotes; write \"192.168.1.10\""],
        ),
        ("wan =", &["line 3, column 6: no value stands after =; write one, or remove the line"]),
        ("wan = \"eth1\"\nhairpin = True", &["line 4, column 11: True is not in small letters; write true"]),
        ("wan \"eth1\"", &["line 3, column 5: key with no value; expected `=`"]),
        (
            "wan = \"eth1\"\nwan = \"eth2\"",
            &["line 4, column 1: wan is there twice, first on line 3; keep one of them"],
        ),
        (
            "wan = \"eth1\"\n[log]\n[nat]\n",
            &["line 5, column 2: [nat] is there twice, first on line 1; keep one of them"],
        ),
        ("wan = \"eth1\"\n[log\nlevel = \"x\"", &["line 4, column 5: unclosed table; expected `]`"]),
        (
            "wan = \"eth1\nhairpin = 5",
            &[
                "line 3, column 12: invalid basic string; expected `\"`",
                "line 4: nat.hairpin: 5 is a number; use true or false",
            ],
        ),
        (
            "wan = \"\"\"eth1\nhairpin = 5",
            &[
                "line 3, column 7: the text is not closed; end it with the quotes it began with",
                "line 4: nat.hairpin: 5 is a number; use true or false",
            ],
        ),
        (
            "wan = \"eth1\"\nexposed_host = [\"a\"\nhairpin = 5\n[log]\nlevel = 5",
            &[
                "line 4, column 16: the list is not closed or lacks a comma; write it as [\"a\", \"b\"]",
                "line 5: nat.hairpin: 5 is a number; use true or false",
                "line 7: log.level: 5 is a number; use \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
            ],
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(problems(&format!("[nat]\nlan = [\"br-lan\"]\n{body}\n")), *expected, "{body}");
    }
}

#[test]
fn a_text_that_is_no_configuration_at_all_ends() {
    let text = "<html>\n".repeat(10_000);
    let problems = Config::parse(&text).unwrap_err();
    assert_eq!(problems.iter().filter(|problem| problem.column.is_some()).count(), 32, "{problems:?}");
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
    let expected = format!("line 4: nat.scope: \"{}… is not known; use \"all\"", "x".repeat(47));
    assert_eq!(problems(&format!("[nat]\n{MINIMUM}\nscope = \"{long}\"")), [expected]);
    let problem = problems(&format!("[nat]\n{MINIMUM}\nscope = \"\u{1b}[2J\""));
    assert_eq!(problem.len(), 1);
    assert!(problem.iter().all(|line| !line.contains('\u{1b}')), "{problem:?}");
}

#[test]
fn a_reload_takes_over_all_but_queues_and_socket() {
    let old = Config::new(["br-lan"], "eth1");
    let mut new = Config::new(["br-lan", "br-guest"], "eth2");
    new.policy.hairpin = false;
    new.log = LevelFilter::Debug;
    new.kernel.rules = Rules::Nft;
    assert_eq!(old.needs_restart(&new), Vec::<&str>::new());
    new.kernel = Kernel { rules: Rules::Nft, queue: 1, queues: 2, queue_length: 300 };
    new.socket = "/tmp/natd.sock".into();
    assert_eq!(
        old.needs_restart(&new),
        ["kernel.queue", "kernel.queues", "kernel.queue_length", "control.socket",]
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
