use std::net::Ipv4Addr;

use nat_core::policy::PortRange;
use passthrough::settings::Access;

use super::*;

const LAN: [(Ipv4Addr, u8); 1] = [(Ipv4Addr::new(192, 168, 1, 0), 24)];

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

/// A router on which everything is as it should be.
fn healthy() -> Seen {
    Seen {
        links: vec![(name("eth1"), Link::Up), (name("br-lan"), Link::Up)],
        wan_addresses: vec![InterfaceAddress { addr: Ipv4Addr::new(203, 0, 113, 7), prefix: 24 }],
        line: line::Line { kind: Some(1), mtu: Some(1500), below: None },
        running: None,
        abilities: Ok(Abilities { backend: Backend::Nft, socket_match: true, null_binding: true }),
        ctnetlink: Ok(()),
        conntrack: true,
        nfnetlink_queue: Some("  700   4711     0 2 65531     0     0      200  1\n".to_owned()),
        ip_forward: Some("1\n".to_owned()),
        ipv6_forwarding: Some("0\n".to_owned()),
        rp_filter: [Some("0\n".to_owned()), Some("0\n".to_owned())],
        routes: Some(routes("eth1")),
        conntrack_helper: None,
        modules: Some("nf_conntrack 176128 6 nf_nat_pptp, Live 0x0\n".to_owned()),
        nft: Some(nft(&[])),
        iptables_legacy: None,
        iptables_nft: None,
        tcp: String::new(),
        udp: String::new(),
    }
}

fn routes(default: &str) -> String {
    format!(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
         {default}\t00000000\t017100CB\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
         br-lan\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
}

/// `nft -j list ruleset` with one nat chain at postrouting, `post`, and a chain `sub` beside it.
fn nft(objects: &[&str]) -> String {
    let chains = [
        r#"{"chain":{"family":"inet","table":"fw4","name":"post","type":"nat","hook":"postrouting","prio":100}}"#,
        r#"{"chain":{"family":"inet","table":"fw4","name":"sub"}}"#,
    ];
    format!(r#"{{"nftables":[{{"metainfo":{{}}}},{}]}}"#, [&chains, objects].concat().join(","))
}

fn rule(chain: &str, expr: &str) -> String {
    format!(r#"{{"rule":{{"family":"inet","table":"fw4","chain":"{chain}","handle":2,"expr":[{expr}]}}}}"#)
}

/// What `check` says of `seen` beyond what it says of a healthy router, as `level code`.
fn said(seen: &Seen) -> Vec<String> {
    said_with(&Settings::default(), seen)
}

fn said_with(passthrough: &Settings, seen: &Seen) -> Vec<String> {
    let forwards = [Forward {
        protocol: Protocol::Tcp,
        external: PortRange::new(440, 443).unwrap(),
        host: Ipv4Addr::new(192, 168, 1, 10),
        internal_first: 440,
    }];
    let expected = Expected {
        wan: &name("eth1"),
        lan: &[name("br-lan")],
        lan_prefixes: &LAN,
        forwards: &forwards,
        passthrough,
        queues: Queues::new(100, 2).unwrap(),
    };
    let found = findings(&expected, seen);
    found.iter().filter(|f| f.level != Level::Ok).map(|f| format!("{} {}", f.level, f.code)).collect()
}

#[test]
fn a_healthy_router_gets_only_ok() {
    assert_eq!(said(&healthy()), Vec::<String>::new());
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    type Fault = (&'static str, fn(&mut Seen));
    let faults: [Fault; 20] = [
        ("problem interface", |s| s.links[0].1 = Link::Missing),
        ("problem interface", |s| s.links[1].1 = Link::Down),
        ("warning wan-address", |s| s.wan_addresses.clear()),
        ("problem queue-rules", |s| s.abilities = Err("no".to_owned())),
        ("warning socket-match", |s| s.abilities.as_mut().unwrap().socket_match = false),
        ("problem null-binding", |s| s.abilities.as_mut().unwrap().null_binding = false),
        ("problem queue", |s| s.nfnetlink_queue = None),
        ("problem queue", |s| {
            s.nfnetlink_queue = Some("  101   4711     0 2 65531     0     0  200  1\n".to_owned())
        }),
        ("note queue", |s| s.running = Some(4711)),
        ("problem conntrack", |s| s.conntrack = false),
        ("problem conntrack", |s| s.ctnetlink = Err("Invalid argument".to_owned())),
        ("problem ip-forward", |s| s.ip_forward = Some("0\n".to_owned())),
        ("problem ip-forward", |s| s.ip_forward = None),
        ("problem flow-offload", |s| {
            s.nft = Some(nft(&[&rule("sub", r#"{"flow":{"op":"add","flowtable":"@ft"}}"#)]));
        }),
        ("warning conntrack-helper", |s| s.nft = Some(nft(&[&rule("sub", r#"{"ct helper":"ftp"}"#)]))),
        ("warning conntrack-helper", |s| s.conntrack_helper = Some("1\n".to_owned())),
        ("warning conntrack-helper", |s| {
            s.iptables_nft =
                Some("# (nf_tables)\n*raw\n-A PREROUTING -p tcp -j CT --helper pptp\nCOMMIT\n".to_owned());
        }),
        ("warning reverse-path", |s| {
            s.rp_filter[1] = Some("1\n".to_owned());
            s.routes = Some(routes("wg0"));
        }),
        ("note ipv6", |s| s.ipv6_forwarding = Some("1\n".to_owned())),
        ("warning forwarded-listener", |s| {
            s.tcp =
                "  sl  local_address rem_address   st\n   0: 00000000:01BB 00000000:0000 0A 0:0\n".to_owned();
        }),
    ];
    for (expected, fault) in faults {
        let mut seen = healthy();
        fault(&mut seen);
        assert_eq!(said(&seen), [expected]);
    }
}

#[test]
fn the_line_is_told_by_address_kind_and_mtu() {
    let ethernet = line::Line { kind: Some(1), mtu: Some(1500), below: None };
    let pppoe = |mtu, below: u32| line::Line {
        kind: Some(512),
        mtu: Some(mtu),
        below: Some(("eth1".to_owned(), below)),
    };
    let cases: [([u8; 4], line::Line, &[&str]); 19] = [
        ([10, 0, 0, 2], ethernet.clone(), &["warning double-nat"]),
        ([172, 16, 0, 2], ethernet.clone(), &["warning double-nat"]),
        ([172, 32, 0, 2], ethernet.clone(), &[]),
        ([192, 168, 178, 20], ethernet.clone(), &["warning double-nat"]),
        ([100, 64, 0, 1], ethernet.clone(), &["warning cgnat"]),
        ([100, 127, 255, 254], ethernet.clone(), &["warning cgnat"]),
        ([100, 128, 0, 1], ethernet.clone(), &[]),
        ([100, 63, 255, 255], ethernet.clone(), &[]),
        (
            [192, 0, 0, 2],
            line::Line { kind: Some(769), mtu: Some(1460), below: None },
            &["warning shared-ipv4"],
        ),
        ([203, 0, 113, 7], line::Line { kind: Some(769), ..ethernet.clone() }, &["warning shared-ipv4"]),
        ([192, 0, 0, 8], ethernet.clone(), &[]),
        ([203, 0, 113, 7], line::Line { mtu: Some(1460), ..ethernet.clone() }, &["note shared-ipv4"]),
        ([203, 0, 113, 7], pppoe(1492, 1500), &[]),
        ([203, 0, 113, 7], pppoe(1500, 1508), &[]), // RFC 4638
        ([203, 0, 113, 7], pppoe(1500, 1500), &["warning wan-mtu"]),
        ([203, 0, 113, 7], line::Line { mtu: Some(9000), ..ethernet.clone() }, &["warning wan-mtu"]),
        ([203, 0, 113, 7], line::Line { mtu: Some(575), ..ethernet.clone() }, &["warning wan-mtu"]),
        ([203, 0, 113, 7], line::Line { mtu: Some(576), ..ethernet.clone() }, &[]),
        ([203, 0, 113, 7], line::Line { mtu: None, ..ethernet }, &[]),
    ];
    for (address, line, expected) in cases {
        let wan_addresses = vec![InterfaceAddress { addr: address.into(), prefix: 24 }];
        let seen = Seen { wan_addresses, line: line.clone(), ..healthy() };
        assert_eq!(said(&seen), expected, "{address:?} {line:?}");
    }
}

#[test]
fn pppoe_is_carried_by_the_only_device_of_its_table() {
    let head = "Id       Address              Device\n";
    let row = |device: &str| format!("00000100 00:11:22:33:44:55    {device}\n");
    assert_eq!(line::pppoe_device(&[head, &row("eth1")].concat()), Some("eth1"));
    assert_eq!(line::pppoe_device(&[head, &row("eth1"), &row("eth1")].concat()), Some("eth1"));
    assert_eq!(line::pppoe_device(&[head, &row("eth1"), &row("eth2")].concat()), None);
    assert_eq!([head, "", "a b"].map(line::pppoe_device), [None; 3]);
}

#[test]
fn strict_reverse_path_is_no_fault_where_the_default_route_uses_the_wan() {
    let seen = Seen { rp_filter: [Some("1".to_owned()), Some("1".to_owned())], ..healthy() };
    assert_eq!(said(&seen), Vec::<String>::new());
}

#[test]
fn only_wildcard_listeners_on_forwarded_ports_count() {
    let line = |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 0:0 0:0 0 0 1\n");
    let tcp = [
        line("0100007F:01BB", "0A"),                              // 127.0.0.1:443
        line("00000000:01BB", "01"),                              // established
        line("00000000:01BC", "0A"),                              // 444
        "garbage\n   0: 00000000 0A\n 1: zz:zz x y\n".to_owned(), // not of the form
    ];
    let seen = Seen { tcp: tcp.concat(), udp: line("00000000:01BB", "07"), ..healthy() };
    assert_eq!(said(&seen), Vec::<String>::new());
    let v6 = line(&format!("{}:01B8", "0".repeat(32)), "0A"); // [::]:440
    assert_eq!(said(&Seen { tcp: v6, ..healthy() }), ["warning forwarded-listener"]);
}

#[test]
fn other_nat_is_told_by_how_much_of_the_lan_it_covers() {
    let to = |op: &str, right: &str| {
        format!(r#"{{"match":{{"op":"{op}","left":{{"meta":{{"key":"oifname"}}}},"right":{right}}}}}"#)
    };
    let from = |addr: &str, len: u8| {
        format!(
            r#"{{"match":{{"op":"==","left":{{"payload":{{"protocol":"ip","field":"saddr"}}}},"right":{{"prefix":{{"addr":"{addr}","len":{len}}}}}}}}}"#
        )
    };
    let masquerade = r#"{"masquerade":null}"#;
    let xt = r#"{"xt":{"type":"target","name":"MASQUERADE"}}"#;
    let tcp = r#"{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}}"#;
    let ipv4 = r#"{"match":{"op":"==","left":{"meta":{"key":"nfproto"}},"right":"ipv4"}}"#;
    let jump = r#"{"jump":{"target":"sub"}}"#;
    let by_map = |wan: &str| {
        format!(
            r#"{{"vmap":{{"key":{{"meta":{{"key":"oifname"}}}},"data":{{"set":[["{wan}",{{"jump":{{"target":"sub"}}}}]]}}}}}}"#
        )
    };
    let post = |parts: &[&str]| rule("post", &parts.join(","));
    let sub = rule("sub", masquerade);
    let cases: Vec<(Vec<String>, Option<Cover>)> = vec![
        (vec![post(&[masquerade])], Some(Cover::All)),
        (vec![post(&[&to("==", r#""eth1""#), xt])], Some(Cover::All)),
        (vec![post(&[&to("==", r#"{"set":["eth0","eth1"]}"#), ipv4, masquerade])], Some(Cover::All)),
        (vec![post(&[&to("==", r#""eth*""#), masquerade])], Some(Cover::All)),
        (vec![post(&[&to("!=", r#""br-lan""#), &from("192.168.0.0", 16), masquerade])], Some(Cover::All)),
        (vec![post(&[&to("==", r#""eth1""#), jump]), sub.clone()], Some(Cover::All)),
        (vec![post(&[&by_map("eth1")]), sub.clone()], Some(Cover::All)),
        (vec![post(&[&by_map("eth2")]), sub.clone()], None),
        (vec![sub.clone()], None),
        (vec![post(&[jump]), rule("sub", jump)], None),
        (vec![post(&[&to("!=", r#""eth1""#), masquerade])], None),
        (vec![post(&[&to("==", r#""eth2""#), jump]), sub], None),
        (vec![post(&[&to("==", r#""@wans""#), masquerade])], Some(Cover::Some)),
        (vec![post(&[&from("172.17.0.0", 16), masquerade])], Some(Cover::Some)),
        (vec![post(&[tcp, masquerade])], Some(Cover::Some)),
        (vec![post(&[tcp, r#"{"accept":null}"#]), post(&[masquerade])], Some(Cover::Some)),
        (vec![post(&[jump]), rule("sub", r#"{"accept":null}"#), post(&[masquerade])], Some(Cover::Some)),
    ];
    for (rules, cover) in cases {
        let text = nft(&rules.iter().map(String::as_str).collect::<Vec<_>>());
        let found = Firewall::read(Some(&text), [None, None]).nat_towards(&name("eth1"), &LAN);
        assert_eq!(found.first().map(|nat| nat.cover), cover, "{rules:#?}");
        assert_eq!(another_nat_serves(&name("eth1"), &LAN, Some(&text), None), cover == Some(Cover::All));
        let level = match cover {
            Some(Cover::All) => vec!["warning foreign-nat".to_owned()],
            Some(Cover::Some) => vec!["note foreign-nat".to_owned()],
            None => vec![],
        };
        assert_eq!(said(&Seen { nft: Some(text), ..healthy() }), level);
    }
}

#[test]
fn beside_the_kernel_another_nat_is_wanted() {
    let vpn = Settings { scope: Scope::Vpn, ..Settings::default() };
    assert_eq!(said_with(&vpn, &healthy()), ["warning foreign-nat"]);
    let masquerade = rule("post", r#"{"masquerade":null}"#);
    let seen = Seen { nft: Some(nft(&[&masquerade])), ..healthy() };
    assert_eq!(said_with(&vpn, &seen), Vec::<String>::new());
    let offload = rule("sub", r#"{"flow":{"op":"add","flowtable":"@ft"}}"#);
    let seen = Seen { nft: Some(nft(&[&masquerade, &offload])), ..healthy() };
    assert_eq!(said_with(&vpn, &seen), ["warning flow-offload"]);
}

#[test]
fn a_competing_pptp_helper_is_named_while_pptp_is_on() {
    let on = Settings { pptp: Access { on: true, ..Settings::default().pptp }, ..Settings::default() };
    let object =
        r#"{"ct helper":{"family":"inet","name":"vpn","table":"fw4","type":"pptp","protocol":"tcp"}}"#;
    let [vpn, ftp] = ["vpn", "ftp"].map(|name| rule("sub", &format!(r#"{{"ct helper":"{name}"}}"#)));
    let module = |name: &str| Some(format!("nf_nat 57344 1\n{name} 16384 0 - Live 0x0000000000000000\n"));
    let by_rule = Seen { nft: Some(nft(&[object, &vpn])), ..healthy() };
    let by_target = Seen {
        iptables_legacy: Some("*raw\n-A PREROUTING -p tcp -j CT --helper pptp\nCOMMIT\n".to_owned()),
        ..healthy()
    };
    let other = Seen { nft: Some(nft(&[object, &ftp])), ..healthy() };
    let cases = [
        (&healthy(), vec![]),
        (&by_rule, vec!["warning conntrack-helper", "warning pptp-helper"]),
        (&by_target, vec!["warning conntrack-helper", "warning pptp-helper"]),
        (&other, vec!["warning conntrack-helper"]),
        (&Seen { modules: module("nf_nat_pptp"), ..healthy() }, vec!["warning pptp-helper"]),
        (&Seen { modules: module("nf_conntrack_pptp"), ..healthy() }, vec!["warning pptp-helper"]),
        (&Seen { modules: module("nf_conntrack_pptpd"), ..healthy() }, vec![]),
        (&Seen { modules: None, ..healthy() }, vec![]),
    ];
    for (seen, expected) in cases {
        assert_eq!(said_with(&on, seen), expected, "{:?}", seen.modules);
        let off: Vec<_> = expected.into_iter().filter(|said| !said.contains("pptp")).collect();
        assert_eq!(said(seen), off);
    }
}

#[test]
fn natds_own_tables_are_no_other_nat() {
    let own = r#"{"chain":{"family":"ip","table":"natd","name":"null_binding","type":"nat","hook":"postrouting","prio":99}}"#;
    let rule = r#"{"rule":{"family":"ip","table":"natd","chain":"null_binding","expr":[{"snat":{"addr":{"ct":{"key":"ip saddr"}}}}]}}"#;
    assert_eq!(said(&Seen { nft: Some(nft(&[own, rule])), ..healthy() }), Vec::<String>::new());
}

#[test]
fn legacy_iptables_is_read_as_well() {
    let saved =
        |rules: &str| format!("# iptables-save v1.8.9\n*nat\n:POSTROUTING ACCEPT [0:0]\n{rules}COMMIT\n");
    for (rules, level) in [
        ("-A POSTROUTING -o eth1 -j MASQUERADE\n", Some("warning")),
        ("-A POSTROUTING -o eth+ -m comment --comment \"out of here\" -j MASQUERADE\n", Some("warning")),
        ("-A POSTROUTING -s 192.168.1.0/24 ! -o br-lan -j SNAT --to-source 203.0.113.7\n", Some("warning")),
        ("-A POSTROUTING -o eth1 -j WAN\n-A WAN -j MASQUERADE\n", Some("warning")),
        ("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n", Some("note")),
        ("-A POSTROUTING -s 192.168.1.9/32 -j ACCEPT\n-A POSTROUTING -o eth1 -j MASQUERADE\n", Some("note")),
        ("-A POSTROUTING -o eth2 -j MASQUERADE\n", None),
        ("-A POSTROUTING ! -o eth1 -j MASQUERADE\n", None),
        ("-A PREROUTING -j REDIRECT --to-ports 53\n", None),
    ] {
        let text = saved(rules);
        let level: Vec<String> = level.iter().map(|level| format!("{level} foreign-nat")).collect();
        assert_eq!(said(&Seen { iptables_legacy: Some(text.clone()), ..healthy() }), level, "{rules}");
        let on_nft = text.replace("v1.8.9", "v1.8.9 (nf_tables)");
        assert_eq!(
            said(&Seen { iptables_legacy: Some(on_nft), ..healthy() }),
            Vec::<String>::new(),
            "{rules}"
        );
    }
}

#[test]
fn nonsense_in_place_of_rules_is_passed_over() {
    for text in
        ["", "{", "[]", r#"{"nftables":7}"#, r#"{"nftables":[{"rule":{"expr":[7,{}]}},{"chain":[]}]}"#]
    {
        assert_eq!(said(&Seen { nft: Some(text.to_owned()), ..healthy() }), Vec::<String>::new());
    }
}

#[test]
fn findings_are_one_line_each_and_json_keeps_their_parts() {
    let found = configuration(&["line 3: unknown key\n`wam`".to_owned()]);
    assert_eq!(
        found[0].to_string(),
        "problem  configuration: line 3: unknown key `wam`; correct the configuration; conf/natd.toml explains every key"
    );
    assert_eq!(
        serde_json::to_value(Finding::note("ipv6", "x")).unwrap(),
        serde_json::json!({"code": "ipv6", "level": "note", "text": "x"})
    );
    assert_eq!(worst(&found), Level::Problem);
    assert_eq!(worst(&configuration(&[])), Level::Ok);
    assert_eq!(worst(&[]), Level::Ok);
}
