//! VPN passthrough: every key, every problem and every remark.

use std::net::Ipv4Addr;

use ::passthrough::settings::{Access, Carrier, InsideServer, Prefix, Scope, Settings};

use super::*;

#[test]
fn every_key_of_passthrough_sets_its_field() {
    let text = format!(
        r#"
        [nat]
        {MINIMUM}
        scope = "vpn"
        [passthrough]
        ipsec = true
        pptp = true
        l2tp = false
        multi = false
        [ipsec]
        devices = ["192.168.1.10", "192.168.2.0/24"]
        servers = ["198.51.100.0/25"]
        fan_out = 8
        hold = 5
        [pptp]
        devices = ["0.0.0.0/0"]
        [l2tp]
        servers = ["203.0.113.9/32"]
        [timeout]
        esp = "2h"
        gre = 1
        [[forward]]
        protocol = "udp"
        external = 500
        host = "192.168.1.5"
        internal = 500
        [[forward]]
        protocol = "esp"
        host = "192.168.1.5"
        [[forward]]
        protocol = "gre"
        host = "192.168.1.6"
        comment = "EoIP"
        [[forward]]
        protocol = "l2tpv3"
        host = "192.168.1.7"
    "#
    );
    let (config, remarks) = Config::parse(&text).unwrap();
    let prefix = |addr: [u8; 4], len| Prefix { addr: addr.into(), len };
    let server = |carrier, last| InsideServer { carrier, host: Ipv4Addr::new(192, 168, 1, last) };
    let expected = Settings {
        scope: Scope::Vpn,
        ipsec: Access {
            on: true,
            devices: vec![prefix([192, 168, 1, 10], 32), prefix([192, 168, 2, 0], 24)],
            servers: vec![prefix([198, 51, 100, 0], 25)],
        },
        pptp: Access { on: true, devices: vec![prefix([0; 4], 0)], servers: vec![] },
        l2tp: Access { on: false, devices: vec![], servers: vec![prefix([203, 0, 113, 9], 32)] },
        multi: false,
        fan_out: 8,
        hold: Duration::from_secs(5),
        esp_idle: Duration::from_secs(7200),
        gre_idle: Duration::from_secs(1),
        servers: vec![server(Carrier::Esp, 5), server(Carrier::Gre, 6), server(Carrier::L2tpIp, 7)],
    };
    assert_eq!(config.passthrough, expected);
    assert_eq!(config.policy.forwards.len(), 1, "those without ports are no port forwards");
    let remarked: Vec<_> = remarks.iter().map(|remark| remark.key.as_str()).collect();
    assert_eq!(remarked, ["passthrough.pptp", "l2tp.servers", "forward.protocol"]);
}

#[test]
fn problems_of_passthrough() {
    let network = "use an IPv4 address or network, such as \"192.0.2.10\" or \"192.0.2.0/24\"";
    let hold = "use 0s to 5s: seconds as a number, or text such as \"2h4m\", \"5m\" or \"90s\"";
    let many = (0..65).map(|n| format!("\"192.0.2.{n}\"")).collect::<Vec<_>>().join(",");
    let not_one = |text: &str| {
        format!("line 5: ipsec.devices: {text} is neither an IPv4 address nor a network; {network}")
    };
    let no_device = |text: &str| {
        format!("line 5: ipsec.devices: {text} is not an address that a device can have; {network}")
    };
    let rows: &[(&str, &str)] = &[
        ("[passthrough]\nipsec = \"on\"", "line 5: passthrough.ipsec: \"on\" is text; use true or false"),
        ("[passthrough]\nmulti = 2", "line 5: passthrough.multi: 2 is a number; use true or false"),
        (
            "[passthrough]\nl2pt = true",
            "line 5: passthrough.l2pt: is not a key of [passthrough]; did you mean l2tp?",
        ),
        (
            "[passthrough]\nfan_out = 2",
            "line 5: passthrough.fan_out: is not a key of [passthrough]; move it below [ipsec]",
        ),
        ("[ipsek]", "line 4: ipsek: is not a table of natd; did you mean [ipsec]?"),
        ("[ipsec]\nfan_out = 9", "line 5: ipsec.fan_out: 9 is out of range; use a whole number from 0 to 8"),
        ("[ipsec]\nhold = \"6s\"", &format!("line 5: ipsec.hold: \"6s\" is out of range; {hold}")),
        ("[ipsec]\nhold = 0.5", &format!("line 5: ipsec.hold: 0.5 is not a whole number; {hold}")),
        ("[ipsec]\nhold = \"100ms\"", &format!("line 5: ipsec.hold: \"100ms\" is not a duration; {hold}")),
        (
            "[ipsec]\ndevices = \"192.0.2.1\"",
            "line 5: ipsec.devices: \"192.0.2.1\" is text; use a list in brackets: [\"192.0.2.10\", \"198.51.100.0/24\"]",
        ),
        ("[ipsec]\ndevices = [1]", &format!("line 5: ipsec.devices: 1 is a number; {network}")),
        ("[ipsec]\ndevices = [\"nas\"]", &not_one("\"nas\"")),
        ("[ipsec]\ndevices = [\"192.0.2.0/33\"]", &not_one("\"192.0.2.0/33\"")),
        ("[ipsec]\ndevices = [\"192.0.2.0/+8\"]", &not_one("\"192.0.2.0/+8\"")),
        ("[ipsec]\ndevices = [\"192.0.2.0/\"]", &not_one("\"192.0.2.0/\"")),
        ("[ipsec]\ndevices = [\"192.0.2.0/24/24\"]", &not_one("\"192.0.2.0/24/24\"")),
        ("[ipsec]\ndevices = [\"fe80::1\"]", &not_one("\"fe80::1\"")),
        ("[ipsec]\ndevices = [\"127.0.0.1\"]", &no_device("\"127.0.0.1\"")),
        ("[ipsec]\ndevices = [\"224.0.0.0/4\"]", &no_device("\"224.0.0.0/4\"")),
        ("[ipsec]\ndevices = [\"0.0.0.0\"]", &no_device("\"0.0.0.0\"")),
        (
            "[pptp]\nservers = [\"198.51.100.1/24\"]",
            "line 5: pptp.servers: \"198.51.100.1/24\" is not the address of a network of length 24; use \"198.51.100.0/24\" for the network or \"198.51.100.1\" for the server",
        ),
        (
            "[ipsec]\nservers = [\"192.0.2.1\",\n\"192.0.2.1/32\"]",
            "line 6: ipsec.servers: \"192.0.2.1/32\" is there twice; name every entry once",
        ),
        (
            &format!("[l2tp]\ndevices = [{many}]"),
            "line 5: l2tp.devices: has 65 entries; name at most 64; a network is one",
        ),
        (
            "[timeout]\nesp = \"8d\"",
            "line 5: timeout.esp: \"8d\" is out of range; use 1s to 7d: seconds as a number, or text such as \"2h4m\", \"5m\" or \"90s\"",
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(problems(&format!("[nat]\n{MINIMUM}\n{body}\n")), [*expected], "{body}");
    }
}

#[test]
fn problems_of_forwards_without_ports() {
    let esp = |host: &str, more: &str| format!("[[forward]]\nprotocol = \"esp\"\nhost = {host}\n{more}\n");
    let rows: &[(&str, &[&str])] = &[
        (
            &esp("\"192.168.1.10\"", "external = 50\ninternal = 51"),
            &[
                "line 7: forward.external: esp has no ports; remove it; host alone is needed",
                "line 8: forward.internal: esp has no ports; remove it; host alone is needed",
            ],
        ),
        (
            &(esp("\"192.168.1.10\"", "") + &esp("\"192.168.1.11\"", "")),
            &[
                "line 9: forward.protocol: \"esp\" is also forwarded on line 5; forward it to one host: without ports, nothing tells two apart",
            ],
        ),
        (
            "[[forward]]\nprotocol = \"gre\"",
            &["line 4: forward.host: is missing; add the device's address: host = \"192.168.1.10\""],
        ),
        (
            "[[forward]]\nprotocol = \"ESP\"\nhost = \"192.168.1.10\"",
            &[
                "line 5: forward.protocol: \"ESP\" is not known (did you mean \"esp\"?); use \"tcp\", \"udp\", \"tcp+udp\", \"esp\", \"gre\" or \"l2tpv3\"",
            ],
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(problems(&format!("[nat]\n{MINIMUM}\n{body}\n")), *expected, "{body}");
    }
}

#[test]
fn problems_of_scope_vpn() {
    let here = "forward UDP 500, 4500 and 1701, TCP 1723, esp, gre and l2tpv3 here, and anything else in the firewall";
    let forward =
        |protocol: &str, external: &str, more: &str| forward(protocol, external, "\"192.168.1.10\"", more);
    let rows: &[(&str, &[&str])] = &[
        (
            "exposed_host = \"192.168.1.10\"",
            &[
                "line 5: nat.exposed_host: does not go with scope = \"vpn\", in which natd sees nothing but VPNs; remove it, and let the firewall forward to that device",
            ],
        ),
        (
            &forward("\"tcp\"", "443", ""),
            &[&format!(
                "line 7: forward.external: 443 as tcp is not a VPN's port, and scope is \"vpn\"; {here}"
            )],
        ),
        (
            &forward("\"tcp+udp\"", "4500", ""),
            &[&format!(
                "line 7: forward.external: 4500 as tcp is not a VPN's port, and scope is \"vpn\"; {here}"
            )],
        ),
        (
            &forward("\"udp\"", "\"500-501\"", ""),
            &[&format!(
                "line 7: forward.external: \"500-501\" as udp is not a VPN's port, and scope is \"vpn\"; {here}"
            )],
        ),
        (
            &forward("\"udp\"", "500", "internal = 5000"),
            &[
                "line 9: forward.internal: 5000 is another port than external, which natd would not see in scope \"vpn\"; remove it, and let the server listen on the VPN's own port",
            ],
        ),
    ];
    for (body, expected) in rows {
        let text = format!("[nat]\n{MINIMUM}\nscope = \"vpn\"\n{body}\n");
        assert_eq!(problems(&text), *expected, "{body}");
        let in_all = Config::parse(&text.replace("\"vpn\"", "\"all\""));
        assert!(in_all.is_ok(), "{body}: {in_all:?}");
    }
    for (protocol, port) in [("udp", 500), ("udp", 4500), ("udp", 1701), ("tcp", 1723)] {
        let forward = forward(&format!("\"{protocol}\""), &port.to_string(), "");
        let text = format!("[nat]\n{MINIMUM}\nscope = \"vpn\"\n{forward}\n");
        assert!(Config::parse(&text).is_ok(), "{protocol} {port}");
    }
}

#[test]
fn what_does_nothing_or_is_unsafe_is_remarked() {
    let refused = "is false in [passthrough]: no tunnel of such a server crosses";
    let rows: &[(&str, &str)] = &[
        ("scope = \"vpn\"\nhairpin = true", "line 5: nat.hairpin: does nothing in scope = \"vpn\""),
        ("scope = \"vpn\"\nmax_held_syns = 9", "line 5: nat.max_held_syns: does nothing in scope = \"vpn\""),
        (
            "[passthrough]\npptp = true",
            "line 5: passthrough.pptp: PPTP's encryption is broken: whoever can record the tunnel can read it",
        ),
        (
            "[pptp]\ndevices = [\"192.168.1.10\"]",
            "line 5: pptp.devices: does nothing as long as pptp is false in [passthrough]",
        ),
        (
            "[ipsec]\nfan_out = 0",
            "line 5: ipsec.fan_out: ESP that could be for one of several devices is then dropped, until their tunnels start anew",
        ),
        (
            "[passthrough]\nipsec = false\n[[forward]]\nprotocol = \"esp\"\nhost = \"192.168.1.10\"",
            &format!("line 7: forward.protocol: ipsec {refused}"),
        ),
        (
            &forward("\"tcp\"", "\"1700-1800\"", "\"192.168.1.10\"", ""),
            &format!("line 6: forward.external: pptp {refused}"),
        ),
    ];
    for (body, expected) in rows {
        let (_, remarks) = parse_nat(body).unwrap();
        assert_eq!(remarks.iter().map(ToString::to_string).collect::<Vec<_>>(), [*expected], "{body}");
    }
    for silent in [
        "[ipsec]\nhold = 0",
        "[pptp]\ndevices = []",
        "[passthrough]\npptp = false\n[[forward]]\nprotocol = \"gre\"\nhost = \"192.168.1.10\"",
    ] {
        assert_eq!(parse_nat(silent).unwrap().1, [], "{silent}");
    }
}
