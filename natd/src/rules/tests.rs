use super::*;

fn home(backend: Backend) -> Surroundings {
    Surroundings {
        wan: "eth1".parse().unwrap(),
        wan_addresses: vec![InterfaceAddress { addr: Ipv4Addr::new(203, 0, 113, 7), prefix: 24 }],
        lan: vec!["br-lan".parse().unwrap(), "br-guest".parse().unwrap()],
        lan_prefixes: vec![(Ipv4Addr::new(192, 168, 1, 1), 24), (Ipv4Addr::new(192, 168, 2, 1), 24)],
        queues: Queues::new(100, 2).unwrap(),
        scope: Scope::All,
        backend,
        socket_match: true,
        secpath: true,
    }
}

#[test]
fn names_that_rules_cannot_express_are_refused() {
    for good in ["eth1", "br-lan", "ppp0", "we#i{r};d", "wan.7", "eth0@if3", "15-bytes-long--"] {
        assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
    }
    for reserved in ["", ".", ".."] {
        assert_eq!(reserved.parse::<InterfaceName>(), Err(NameError::Reserved(reserved.to_owned())));
    }
    assert_eq!(
        "16-bytes-long---".parse::<InterfaceName>(),
        Err(NameError::TooLong("16-bytes-long---".to_owned()))
    );
    for (bad, c) in [
        ("a\"b", '"'),
        ("a'b", '\''),
        ("a\nb", '\n'),
        ("a b", ' '),
        ("a/b", '/'),
        ("a:b", ':'),
        ("a\\b", '\\'),
        ("eth*", '*'),
        ("eth+", '+'),
        ("!eth", '!'),
        ("a\0b", '\0'),
        ("a\u{a0}b", '\u{a0}'),
    ] {
        assert_eq!(bad.parse::<InterfaceName>(), Err(NameError::Character(bad.to_owned(), c)));
    }
}

#[test]
fn queues_stay_within_16_bits() {
    assert_eq!(Queues::new(65535, 1).unwrap().numbers().collect::<Vec<_>>(), [65535]);
    assert_eq!(Queues::new(7, 3).unwrap().numbers().collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(Queues::new(65535, 2), None);
    assert_eq!(Queues::new(5, 0), None);
}

#[test]
fn marks_read_back_with_and_without_other_bits() {
    for mark in Mark::ALL {
        assert_eq!(Mark::of(mark.bits()), Some(mark));
        assert_eq!(Mark::of(mark.bits() | LOCAL_SOCKET | 0xf0ff_ffff), Some(mark));
        assert_eq!(mark.bits() & !KIND_MASK, 0);
    }
    assert_eq!(Mark::of(0xf8ff_ffff), None);
}

#[test]
fn the_queue_statement_is_in_nft_or_in_iptables_and_never_in_both() {
    let nft = home(Backend::Nft).install(&Present::default());
    assert_eq!(nft.nft.matches("queue num 100-101").count(), 5);
    assert_eq!(nft.iptables, Vec::<String>::new());
    let iptables = home(Backend::Iptables).install(&Present::default());
    assert_eq!(iptables.nft.matches("queue num").count(), 0);
    assert_eq!(
        iptables.iptables,
        [
            "*raw\n\
             :NATD-PRE - [0:0]\n\
             -A NATD-PRE -i \"eth1\" -d 203.0.113.7 -j NFQUEUE --queue-balance 100:101\n\
             -A NATD-PRE -i \"br-guest\" -d 203.0.113.7 -j NFQUEUE --queue-balance 100:101\n\
             -A NATD-PRE -i \"br-lan\" -d 203.0.113.7 -j NFQUEUE --queue-balance 100:101\n\
             -A PREROUTING -j NATD-PRE\n\
             COMMIT\n",
            "*mangle\n\
             :NATD-IN - [0:0]\n\
             :NATD-POST - [0:0]\n\
             -A NATD-IN -m mark --mark 0x05000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A INPUT -j NATD-IN\n\
             -A NATD-POST -o \"eth1\" -m mark --mark 0x01000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A NATD-POST -o \"eth1\" -m mark --mark 0x02000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A NATD-POST -o \"br-guest\" -m mark --mark 0x03000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A NATD-POST -o \"br-lan\" -m mark --mark 0x03000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A POSTROUTING -j NATD-POST\n\
             COMMIT\n",
        ]
    );
}

#[test]
fn the_whole_nft_text() {
    let text = home(Backend::Nft).install(&Present::default()).nft;
    assert_eq!(text, include_str!("tests.nft"), "got:\n{text}");
}

fn vpn(backend: Backend) -> Surroundings {
    Surroundings { scope: Scope::Vpn, ..home(backend) }
}

#[test]
fn the_whole_nft_text_of_scope_vpn() {
    let text = vpn(Backend::Nft).install(&Present::default()).nft;
    assert_eq!(text, include_str!("tests-vpn.nft"), "got:\n{text}");
}

#[test]
fn scope_vpn_on_the_iptables_path_queues_inbound_by_a_mark_that_goes_again() {
    let rules = vpn(Backend::Iptables).install(&Present::default());
    assert!(!rules.nft.contains("queue num"), "{}", rules.nft);
    let marks = "    ip daddr != @wan_addresses return
    jump only_vpn
    iifname \"eth1\" meta mark set meta mark & 0xf0ffffff
    iifname \"eth1\" meta mark set meta mark & 0xf0ffffff | 0x06000000
    iifname { \"br-guest\", \"br-lan\" } meta mark set meta mark & 0xf0ffffff | 0x06000000
    socket wildcard 1 return
";
    let forgets = "  chain forget_inbound {
    type filter hook prerouting priority -298; policy accept;
    meta mark & 0x07000000 == 0x06000000 meta mark set meta mark & 0xf8ffffff
  }
";
    assert!(rules.nft.contains(marks) && rules.nft.contains(forgets), "{}", rules.nft);
    assert_eq!(Mark::of(INBOUND_VPN), None);
    assert_eq!(
        rules.iptables,
        [
            "*raw\n\
             :NATD-PRE - [0:0]\n\
             -A NATD-PRE -m mark --mark 0x06000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A PREROUTING -j NATD-PRE\n\
             COMMIT\n",
            "*mangle\n\
             :NATD-IN - [0:0]\n\
             :NATD-POST - [0:0]\n\
             -A INPUT -j NATD-IN\n\
             -A NATD-POST -o \"eth1\" -m mark --mark 0x01000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A NATD-POST -o \"eth1\" -m mark --mark 0x02000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A NATD-POST -o \"br-guest\" -m mark --mark 0x03000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A NATD-POST -o \"br-lan\" -m mark --mark 0x03000000/0x07000000 -j NFQUEUE --queue-balance 100:101\n\
             -A POSTROUTING -j NATD-POST\n\
             COMMIT\n",
        ]
    );
    // Without the socket match the mark is still set, and no rule needs the match.
    let s = Surroundings { socket_match: false, ..vpn(Backend::Iptables) };
    let text = s.install(&Present::default()).nft;
    assert!(text.contains("| 0x06000000") && !text.contains("socket "), "{text}");
}

#[test]
fn in_scope_vpn_no_chain_acts_on_a_packet_before_it_is_known_to_be_a_vpns() {
    for backend in [Backend::Nft, Backend::Iptables] {
        for wan_addresses in [Vec::new(), home(backend).wan_addresses] {
            let text = Surroundings { wan_addresses, ..vpn(backend) }.install(&Present::default()).nft;
            for chain in text.split("  chain ").skip(1).filter(|chain| !chain.starts_with("only_vpn")) {
                let acts = |rule: &&str| {
                    ["queue num", "drop", "meta mark set", "snat to"].iter().any(|act| rule.contains(act))
                        && !rule.contains("meta mark & 0x07000000 == ")
                };
                if let Some(first) = chain.lines().position(|rule| acts(&rule)) {
                    let before = chain.lines().take(first);
                    assert!(before.into_iter().any(|rule| rule.ends_with("jump only_vpn")), "{chain}");
                }
            }
        }
    }
}

#[test]
fn without_a_wan_address_scope_vpn_drops_only_vpns() {
    for backend in [Backend::Nft, Backend::Iptables] {
        let waiting = Surroundings { wan_addresses: Vec::new(), ..vpn(backend) };
        let rules = waiting.install(&Present::default());
        assert!(!rules.nft.contains("queue num"), "{}", rules.nft);
        assert!(!rules.nft.contains("0x06000000 |"), "{}", rules.nft);
        assert!(rules.nft.contains(
            "    jump only_vpn\n    iifname != { \"br-guest\", \"br-lan\" } return\n    ct status snat,dnat return\n    counter name \"no_wan_address\" drop\n"
        ));
        assert!(!rules.iptables.concat().contains("-d "), "{:?}", rules.iptables);
    }
}

#[test]
fn without_a_wan_address_nothing_is_queued_and_lan_packets_are_dropped() {
    for backend in [Backend::Nft, Backend::Iptables] {
        let waiting = Surroundings { wan_addresses: Vec::new(), ..home(backend) };
        let rules = waiting.install(&Present::default());
        assert!(!rules.nft.contains("queue num"), "{}", rules.nft);
        assert!(!rules.nft.contains("meta mark set"), "{}", rules.nft);
        assert!(rules.nft.contains("ct status snat,dnat return\n    counter name \"no_wan_address\" drop\n"));
        assert!(rules.nft.contains("ip saddr @lan_prefixes counter name \"lan_source\" drop"));
        assert!(!rules.iptables.concat().contains("NFQUEUE"), "{:?}", rules.iptables);
    }
}

#[test]
fn without_the_socket_match_no_rule_needs_it() {
    let text = Surroundings { socket_match: false, ..home(Backend::Nft) }.install(&Present::default()).nft;
    assert!(!text.contains("socket "), "{text}");
    assert!(!text.contains("0x05000000 |"), "{text}");
}

#[test]
fn prefixes_inside_another_one_are_left_out() {
    let mut s = home(Backend::Nft);
    s.lan_prefixes = vec![
        (Ipv4Addr::new(192, 168, 1, 1), 24),
        (Ipv4Addr::new(192, 168, 77, 1), 16),
        (Ipv4Addr::new(192, 168, 1, 1), 32),
        (Ipv4Addr::new(10, 0, 0, 1), 32),
    ];
    let text = s.install(&Present::default()).nft;
    assert!(text.contains("elements = { 192.168.0.0/16, 10.0.0.1/32 }"), "{text}");
    s.lan_prefixes = vec![(Ipv4Addr::new(1, 2, 3, 4), 0), (Ipv4Addr::new(10, 0, 0, 1), 8)];
    assert!(s.install(&Present::default()).nft.contains("elements = { 0.0.0.0/0 }"));
}

#[test]
fn leftovers_are_unhooked_as_often_as_they_are_hooked() {
    let saved = "# Generated\n*raw\n:PREROUTING ACCEPT [3:4]\n:NATD-PRE - [0:0]\n\
                 -A PREROUTING -j NATD-PRE\n-A PREROUTING -i eth9 -j NATD-PRE\n-A PREROUTING -j OTHER\n\
                 -A NATD-PRE -j NFQUEUE --queue-num 1\nCOMMIT\n*filter\n:NATD-IN - [0:0]\nCOMMIT\n";
    let present = Present::parse(saved);
    assert!(!present.is_empty() && !present.is_complete());
    let raw = home(Backend::Iptables).install(&present).iptables.remove(0);
    assert!(
        raw.starts_with(
            "*raw\n:NATD-PRE - [0:0]\n-D PREROUTING -j NATD-PRE\n-D PREROUTING -i eth9 -j NATD-PRE\n-A NATD-PRE"
        ),
        "{raw}"
    );
    assert_eq!(
        removal(&present).iptables,
        [
            "*raw\n-D PREROUTING -j NATD-PRE\n-D PREROUTING -i eth9 -j NATD-PRE\n-F NATD-PRE\n-X NATD-PRE\nCOMMIT\n"
        ]
    );
}

#[test]
fn removal_touches_no_table_without_our_chains() {
    let rules = removal(&Present::parse("*raw\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"));
    assert_eq!(
        rules,
        Ruleset { nft: "add table ip natd\ndelete table ip natd\n".to_owned(), iptables: vec![] }
    );
}

#[test]
fn a_complete_set_of_chains_is_recognised() {
    let saved = "*mangle\n:NATD-IN - [0:0]\n:NATD-POST - [0:0]\n-A INPUT -j NATD-IN\n-A POSTROUTING -j NATD-POST\n\
                 COMMIT\n*raw\n:NATD-PRE - [0:0]\n-A PREROUTING -j NATD-PRE\nCOMMIT\n";
    assert!(Present::parse(saved).is_complete());
    for (part, other) in [
        ("-A INPUT -j NATD-IN\n", ""),
        ("-A INPUT -j NATD-IN\n", "-A INPUT -j NATD-IN\n-A INPUT -j NATD-IN\n"),
        ("-A INPUT -j NATD-IN\n", "-A INPUT -i lo -j NATD-IN\n"),
        (":NATD-PRE - [0:0]\n", ""),
    ] {
        assert!(!Present::parse(&saved.replace(part, other)).is_complete());
    }
}
