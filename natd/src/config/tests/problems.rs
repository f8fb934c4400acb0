//! Every problem, word for word.

use super::*;

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
            &nat("scope = \"vpns\""),
            "line 4: nat.scope: \"vpns\" is not known (did you mean \"vpn\"?); use \"all\" or \"vpn\"",
        ),
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
                "line 5: forward.protocol: is missing; add protocol = \"tcp\", \"udp\", \"tcp+udp\", \"esp\", \"gre\" or \"l2tpv3\"",
                "line 5: forward.external: is missing; add the port on the WAN address: external = 443",
                "line 5: forward.host: is missing; add the device's address: host = \"192.168.1.10\"",
            ],
        ),
        (
            &forward("\"TCP\"", "1", "\"192.168.1.10\"", ""),
            &[
                "line 6: forward.protocol: \"TCP\" is not known (did you mean \"tcp\"?); use \"tcp\", \"udp\", \"tcp+udp\", \"esp\", \"gre\" or \"l2tpv3\"",
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
            &(forward("\"tcp\"", "\"10-100\"", "\"192.168.1.10\"", "")
                + &forward("\"tcp\"", "\"20-30\"", "\"192.168.1.10\"", "")
                + &forward("\"tcp\"", "50", "\"192.168.1.10\"", "")),
            &[
                &format!(
                    "line 12: forward.external: \"20-30\" overlaps line 7: both forward tcp port 20; {own}"
                ),
                &format!("line 17: forward.external: 50 overlaps line 7: both forward tcp port 50; {own}"),
            ],
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
    let log_to =
        "use \"off\", \"log\" or the absolute path of a file, such as \"/var/log/natd/sessions.log\"";
    let size = "use a size from \"4K\" to \"1024M\", or a number of bytes";
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
        ("[diagnosis]\nobserve = 1", "line 5: diagnosis.observe: 1 is a number; use true or false"),
        (
            "[sessions]\nlog = \"sessions.log\"",
            &format!(
                "line 5: sessions.log: \"sessions.log\" is neither of the two words nor the absolute path of a file; {log_to}"
            ),
        ),
        (
            "[sessions]\nlog = true",
            &format!("line 5: sessions.log: true is not a value of this key; {log_to}"),
        ),
        (
            "[sessions]\nlog = \"/a\\u0000\"",
            &format!("line 5: sessions.log: \"/a\\u0000\" has a zero byte; {log_to}"),
        ),
        (
            "[sessions]\nformat = \"xml\"",
            "line 5: sessions.format: \"xml\" is not known; use \"json\" or \"text\"",
        ),
        (
            "[sessions]\nmax_size = \"4095\"",
            &format!("line 5: sessions.max_size: \"4095\" is out of range; {size}"),
        ),
        (
            "[sessions]\nmax_size = 1073741825",
            &format!("line 5: sessions.max_size: 1073741825 is out of range; {size}"),
        ),
        (
            "[sessions]\nmax_size = \"1G\"",
            &format!("line 5: sessions.max_size: \"1G\" is not a size; {size}"),
        ),
        ("[sessions]\nmax_size = [1]", &format!("line 5: sessions.max_size: [1] is a list; {size}")),
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
    let tables = "natd's tables are [nat], [[forward]], [passthrough], [ipsec], [pptp], [l2tp], [timeout], [kernel], [control], [log], [diagnosis] and [sessions]";
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
        (
            "wan = \"eth1\"\n[forward]\n[forward]",
            &[
                "line 4: forward: is not a list of tables; write [[forward]], with two brackets, above each forward",
                "line 5, column 2: [forward] is there twice, first on line 4; write [[forward]], with two brackets, above each forward",
            ],
        ),
        ("wan = \"eth1\"\n[kernel]\nqueues = 01", &["line 5, column 10: unexpected leading zero; remove it"]),
        ("wan = \"eth1\"\n[log\nlevel = \"x\"", &["line 4, column 5: unclosed table; expected `]`"]),
        (
            "wan = \"eth1\nhairpin = 5",
            &[
                "line 3, column 12: invalid basic string; expected `\"`",
                "line 4: nat.hairpin: 5 is a number; use true or false",
            ],
        ),
        (
            "wan = \"\"\"eth1\nsome words\nhairpin = 5",
            &[
                "line 3, column 7: the text is not closed; end it with the quotes it began with",
                "line 5: nat.hairpin: 5 is a number; use true or false",
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
