//! Scope vpn: natd's rules beside a masquerade of the kernel's.

use natd::rules::INBOUND_VPN;

use super::*;

#[test]
fn what_is_no_vpns_passes_by_the_masquerade_though_nobody_reads_the_queue() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    kernel.install(&vpn(&kernel)).unwrap();
    let _servers = [home.wan.serve("TCP-LISTEN", 80), home.wan.serve("UDP-RECVFROM", 53)];
    assert!(home.lan.run("ping -c 2 -i 0.2 -W 2 203.0.113.99"));
    for service in ["TCP:203.0.113.99:80", "UDP:203.0.113.99:53"] {
        let ask = format!("test \"$(echo hello | socat -t2 - {service})\" = hello");
        assert!(home.lan.run(&ask) && sh(&ask), "{service}");
    }
    assert!(sh("ping -c 1 -W 2 203.0.113.99"));
    assert!(home.wan.run("ping -c 1 -W 2 203.0.113.1"));
    // ICMP errors: to the device, and by the device.
    assert!(home.lan.is_refused("UDP:203.0.113.99:9,bind=:5555"));
    assert!(home.wan.is_refused("UDP:203.0.113.1:5555,bind=:9"));
    // A refused connection to the router is refused at once.
    assert!(home.wan.is_refused("TCP:203.0.113.1:9"));
    assert_eq!(kernel.dropped().unwrap(), Dropped::default());
    assert_eq!(counted("marked"), 0);
    assert_eq!(home.wan.counted("vpn"), 0);
    assert!(home.wan.received_nothing_from_the_lan());
}

#[test]
fn vpns_wait_for_natd_and_the_masquerade_never_gets_them_while_the_guard_stands() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    kernel.install(&vpn(&kernel)).unwrap();
    let packets = vpn_packets("203.0.113.99");
    let send = || {
        for script in &packets {
            home.lan.run(script);
        }
    };
    let count = u64::try_from(packets.len()).unwrap();

    // Marked, and queued to nobody.
    send();
    assert_eq!(home.wan.counted("vpn"), 0);
    assert_eq!(kernel.dropped().unwrap(), Dropped::default());
    // Towards the router: queued to nobody either.
    for script in vpn_packets("203.0.113.1") {
        home.wan.run(&script);
    }
    assert_eq!((counted("vpn_at_input"), counted("vpn_at_forward")), (0, count));

    // natd has gone without a word; its guard has not.
    kernel.remove().unwrap();
    sh("conntrack -F");
    send();
    assert_eq!(home.wan.counted("vpn"), 0);
    assert_eq!(kernel.dropped().unwrap(), Dropped { kernel_nat: count, ..Dropped::default() });
    assert!(home.lan.run("ping -c 1 -W 2 203.0.113.99"), "the rest passes");

    // natd was told to stop: the masquerade serves.
    kernel.remove_guard().unwrap();
    send();
    assert!(home.wan.counted("vpn") >= count);
    assert!(home.wan.received_nothing_from_the_lan());
}

#[test]
fn vpns_are_queued_once_each_way_and_the_masquerade_is_kept_off() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    let seen = read_queue(|message| {
        let mut packet = message.get_payload().to_vec();
        match (message.get_hook(), packet[9]) {
            (POSTROUTING, _) => readdress(&mut packet, 12, ROUTER),
            (PREROUTING, 50) => readdress(&mut packet, 16, DEVICE),
            _ => {}
        }
        message.set_payload(packet);
        Verdict::Accept
    });
    kernel.install(&vpn(&kernel)).unwrap();
    let inbound = if kernel.backend == Backend::Iptables { INBOUND_VPN } else { 0 };

    assert!(home.lan.run("echo x | socat -u - IP-SENDTO:203.0.113.99:50"));
    assert_eq!(next(&seen), (POSTROUTING, Mark::Forwarded.bits()));
    // The server knows no ESP. Its refusal quotes it.
    assert_eq!(next(&seen), (PREROUTING, inbound));
    assert_eq!((home.wan.counted("vpn"), home.wan.counted("vpn_from_router")), (1, 1));

    assert!(home.wan.run("echo x | socat -u - IP-SENDTO:203.0.113.1:50"));
    assert_eq!(next(&seen), (PREROUTING, inbound));
    // Nor does the device: its ICMP error about an entry of ours is ours.
    assert_eq!(next(&seen), (POSTROUTING, Mark::Forwarded.bits()));

    // The router's own.
    assert!(sh("echo x | socat -u - IP-SENDTO:203.0.113.99:115"));
    assert_eq!(next(&seen), (POSTROUTING, Mark::Own.bits()));
    assert_eq!(next(&seen), (PREROUTING, inbound));

    // The masquerade would give this one source port 7777.
    assert!(home.lan.run("echo x | socat -u - UDP-SENDTO:203.0.113.99:4500,bind=:40000"));
    assert_eq!(next(&seen), (POSTROUTING, Mark::Forwarded.bits()));
    assert_eq!(home.wan.counted("from_40000"), 1);

    // The rest meanwhile.
    assert!(home.lan.run("ping -c 1 -W 2 203.0.113.99"));
    assert!(seen.recv_timeout(Duration::from_millis(200)).is_err());
    assert_eq!(counted("inbound_mark"), 0, "nobody behind the queue meets the mark");
    // Nobody here translates what the device's error quotes.
    assert_eq!(kernel.dropped().unwrap(), Dropped { lan_quote: 1, ..Dropped::default() });
    assert!(home.wan.received_nothing_from_the_lan());
}

#[test]
fn a_vpn_that_the_masquerade_had_before_waits_until_its_entry_is_deleted() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    home.wan.run("sysctl -qw net.ipv4.icmp_ratelimit=0; nft add rule ip t c icmp type 3 drop");
    let send = || assert!(home.lan.run("echo x | socat -u - IP-SENDTO:203.0.113.99:50"));
    send();
    assert_eq!(home.wan.counted("vpn_from_router"), 1);
    let seen = read_queue(|_| Verdict::Drop);
    kernel.install(&vpn(&kernel)).unwrap();
    send();
    assert!(sh("ping -c 1 -W 2 203.0.113.99"));
    assert_eq!(home.wan.counted("vpn"), 1);
    assert_eq!(kernel.dropped().unwrap(), Dropped { kernel_nat: 1, ..Dropped::default() });
    assert!(sh("conntrack -D -s 192.168.1.10 -d 203.0.113.99 -p 50"));
    send();
    assert_eq!(next_at(&seen, POSTROUTING), Mark::Forwarded.bits());
    assert_eq!(home.wan.counted("vpn"), 1);
}

#[test]
fn a_server_inside_that_the_kernel_redirects_to_stays_the_kernels() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    sh("nft add rule inet fw forward ct status dnat accept");
    sh("iptables -t nat -A PREROUTING -i wan0 -p tcp --dport 1723 -j DNAT --to 192.168.1.10");
    sh("iptables -t nat -A PREROUTING -i wan0 -p 47 -j DNAT --to 192.168.1.10");
    let seen = read_queue(|_| Verdict::Accept);
    kernel.install(&vpn(&kernel)).unwrap();
    let _server = home.lan.serve("TCP-LISTEN", 1723);
    assert!(
        home.wan.run("test \"$(echo hello | socat -t2 - TCP:203.0.113.1:1723,connect-timeout=2)\" = hello")
    );
    assert!(home.wan.run(r"printf '\0\0\010\0xxxxxxxx' | socat -u - IP-SENDTO:203.0.113.1:47"));
    // The device's refusal of GRE comes back, translated by the kernel.
    home.wan.run("ping -c 1 -W 2 203.0.113.1");
    assert_eq!(home.wan.counted("refusals"), 1);
    while let Ok((hook, _)) = seen.recv_timeout(Duration::from_millis(300)) {
        assert_eq!(hook, PREROUTING);
    }
    assert_eq!(kernel.dropped().unwrap(), Dropped::default());
    assert!(home.wan.received_nothing_from_the_lan());
}

#[test]
fn only_vpns_are_refused_when_the_wan_addresses_the_household_directly() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    kernel.install(&vpn(&kernel)).unwrap();
    assert!(home.wan.run("ip route add 192.168.1.0/24 via 203.0.113.1"));
    let packets = vpn_packets("192.168.1.10");
    for script in &packets {
        home.wan.run(script);
    }
    let inbound_to_lan = u64::try_from(packets.len()).unwrap();
    home.wan.run("echo x | socat -u - UDP-SENDTO:192.168.1.10:53");
    assert_eq!(kernel.dropped().unwrap(), Dropped { inbound_to_lan, ..Dropped::default() });
    assert_eq!(counted("direct"), 1, "the firewall decides about the rest");
}

#[test]
fn without_a_wan_address_only_vpns_are_dropped() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    kernel.install(&Surroundings { wan_addresses: Vec::new(), ..vpn(&kernel) }).unwrap();
    assert!(home.lan.run("echo x | socat -u - IP-SENDTO:203.0.113.99:50"));
    assert!(home.lan.run("ping -c 1 -W 2 203.0.113.99"));
    assert_eq!(kernel.dropped().unwrap(), Dropped { no_wan_address: 1, ..Dropped::default() });
    // The address comes.
    kernel.refresh(&vpn(&kernel)).unwrap();
    let seen = read_queue(|_| Verdict::Accept);
    assert!(home.lan.run("echo x | socat -u - IP-SENDTO:203.0.113.99:50"));
    assert_eq!(next(&seen), (POSTROUTING, Mark::Forwarded.bits()));
    // And the scope goes: everything is queued.
    kernel.refresh(&surroundings(&kernel)).unwrap();
    sh("conntrack -F");
    home.lan.run("ping -c 1 -W 0.2 203.0.113.99");
    assert_eq!(next_at(&seen, POSTROUTING), Mark::Forwarded.bits());
}

#[test]
fn nfts_own_queue_would_take_only_vpns() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    let text = Surroundings { backend: Backend::Nft, ..vpn(&kernel) }.install(&Present::default()).nft;
    // A counter in the place of each queue statement: also for a kernel whose nft cannot queue.
    let counted = text.replace("queue num 4100", "counter");
    assert!(command::run(&command::find("nft").unwrap(), &["-f", "-"], &counted).unwrap().success);
    let counts = |chain: &str| -> Vec<u64> {
        let listed = output(&format!("nft list chain ip natd {chain}"));
        let after = listed.split("counter packets ").skip(1);
        after.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    assert!(home.lan.run("ping -c 1 -W 2 203.0.113.99"));
    assert!(sh("ping -c 1 -W 2 203.0.113.99"));
    assert!(home.lan.is_refused("UDP:203.0.113.99:9,bind=:5555"));
    assert_eq!((counts("queue_prerouting"), counts("queue_postrouting")), (vec![0, 0], vec![0, 0]));
    let packets = vpn_packets("203.0.113.99");
    for script in &packets {
        home.lan.run(script);
    }
    let count = u64::try_from(packets.len()).unwrap();
    assert_eq!((counts("queue_prerouting"), counts("queue_postrouting")), (vec![0, 0], vec![count, 0]));
    // What nobody translated is stopped.
    assert_eq!(kernel.dropped().unwrap(), Dropped { lan_source: count, ..Dropped::default() });
    // From the LAN to the WAN address, and from the WAN.
    home.lan.run("echo x | socat -u - IP-SENDTO:203.0.113.1:50");
    assert_eq!(counts("queue_prerouting"), [0, 1]);
    home.wan.run("echo x | socat -u - IP-SENDTO:203.0.113.1:50");
    assert_eq!(counts("queue_prerouting")[0], 1);
    assert!(home.wan.received_nothing_from_the_lan());
}

#[test]
fn icmp_errors_are_a_vpns_when_they_quote_one() {
    let Some(kernel) = kernel() else { return };
    let home = beside_a_masquerade();
    let text = Surroundings { backend: Backend::Nft, ..vpn(&kernel) }.install(&Present::default()).nft;
    let counted = text.replace("queue num 4100", "counter");
    assert!(command::run(&command::find("nft").unwrap(), &["-f", "-"], &counted).unwrap().success);
    // The router answers each packet with an error.
    sh("sysctl -qw net.ipv4.icmp_ratelimit=0; iptables -A INPUT -i wan0 -p tcp -j REJECT");
    let errors = || packets(&output("nft list chain ip natd queue_postrouting | grep wan0"));
    let vpns = vpn_packets("203.0.113.1");
    for (count, script) in (1..).zip(&vpns) {
        home.wan.run(script);
        assert_eq!(errors(), count, "{script}");
    }
    for other in ["UDP-SENDTO:203.0.113.1:40001,bind=:40000", "IP-SENDTO:203.0.113.1:99"] {
        home.wan.run(&format!("echo x | socat -u - {other}"));
    }
    home.wan.run("socat -u /dev/null TCP:203.0.113.1:40001,connect-timeout=0.2");
    home.wan.run("ping -c 1 -W 2 203.0.113.1");
    let count = u64::try_from(vpns.len()).unwrap();
    assert_eq!((errors(), home.wan.counted("refusals")), (count, count + 3));
}

fn vpn(kernel: &Kernel) -> Surroundings {
    Surroundings { scope: Scope::Vpn, ..surroundings(kernel) }
}

/// Commands that send `to` one packet each of every kind that is a VPN's.
fn vpn_packets(to: &str) -> Vec<String> {
    let protocols = [47, 50, 51, 115].map(|protocol| format!("IP-SENDTO:{to}:{protocol}"));
    let ports = [500, 1701, 4500].into_iter().flat_map(|port| {
        [format!("UDP-SENDTO:{to}:{port},bind=:40000"), format!("UDP-SENDTO:{to}:40001,bind=:{port}")]
    });
    let tcp = [("1723", "40000"), ("40001", "1723")]
        .map(|(port, own)| format!("socat -u /dev/null TCP:{to}:{port},bind=:{own},connect-timeout=0.2"));
    let datagrams = protocols.into_iter().chain(ports).map(|to| format!("echo x | socat -u - {to}"));
    datagrams.chain(tcp).collect()
}

/// The usual home behind a masquerade that gives port 4500 another source port, and a firewall that drops what nobody asked for,
/// with counters of what passes where.
fn beside_a_masquerade() -> Home {
    let Home { lan, wan } = Home::new();
    sh("iptables -t nat -A POSTROUTING -o wan0 -p udp --dport 4500 -j MASQUERADE --to-ports 7777");
    sh("iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE");
    assert!(sh("nft '
        table inet fw {
          chain forward {
            type filter hook forward priority 0; policy drop;
            ct state established,related accept
            iifname lan0 oifname wan0 accept
          }
        }
        table ip natd_seen {
          counter marked { }
          counter inbound_mark { }
          counter vpn_at_input { }
          counter vpn_at_forward { }
          counter direct { }
          chain prerouting {
            type filter hook prerouting priority -297;
            meta mark & 0x0f000000 != 0 counter name marked
            meta mark & 0x07000000 == 0x06000000 counter name inbound_mark
          }
          chain input {
            type filter hook input priority 0;
            iifname wan0 ip protocol { 47, 50, 51, 115 } counter name vpn_at_input
            iifname wan0 udp dport { 500, 1701, 4500, 40001 } counter name vpn_at_input
            iifname wan0 tcp dport { 1723, 40001 } counter name vpn_at_input
          }
          chain forward {
            type filter hook forward priority -1;
            iifname wan0 udp dport 53 counter name direct
            iifname lan0 ip protocol { 47, 50, 51, 115 } counter name vpn_at_forward
            iifname lan0 udp dport { 500, 1701, 4500, 40001 } counter name vpn_at_forward
            iifname lan0 tcp dport { 1723, 40001 } counter name vpn_at_forward
          }
          chain postrouting {
            type filter hook postrouting priority 320;
            meta mark & 0x0f000000 != 0 counter name marked
          }
        }'"));
    assert!(wan.run(
        "sysctl -qw net.ipv4.icmp_ratelimit=0; nft '
        table ip natd_seen {
          counter vpn { }
          counter vpn_from_router { }
          counter from_40000 { }
          counter refusals { }
          chain vpn {
            counter name vpn
            ip saddr 203.0.113.1 counter name vpn_from_router
          }
          chain c {
            type filter hook prerouting priority 0;
            udp sport 40000 counter name from_40000
            icmp type 3 counter name refusals
            ip protocol { 47, 50, 51, 115 } jump vpn
            udp sport { 500, 1701, 4500 } jump vpn
            udp dport { 500, 1701, 4500, 40001 } jump vpn
            tcp dport { 1723, 40001 } jump vpn
          }
        }'"
    ));
    assert!(lan.run("sysctl -qw net.ipv4.icmp_ratelimit=0"));
    Home { lan, wan }
}

/// A counter of this thread's namespace.
fn counted(name: &str) -> u64 {
    packets(&output(&format!("nft list counter ip natd_seen {name}")))
}

fn packets(listed: &str) -> u64 {
    listed.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// The mark of the next packet at `hook`.
fn next_at(seen: &Receiver<(u8, u32)>, hook: u8) -> u32 {
    std::iter::repeat_with(|| next(seen)).find(|seen| seen.0 == hook).unwrap().1
}

impl Host {
    fn counted(&self, name: &str) -> u64 {
        let pid = self.holder.0.id();
        packets(&output(&format!("nsenter -t {pid} -n nft list counter ip natd_seen {name}")))
    }

    /// A server that answers what it is told; listens when this returns.
    fn serve(&self, listen: &str, port: u16) -> Background {
        let pid = self.holder.0.id();
        let server = Background::start(&format!("nsenter -t {pid} -n socat {listen}:{port},fork EXEC:cat"));
        let listens =
            format!("ss -Hltun sport = {port} | grep -q . || {{ ping -c 1 -W 0.1 127.1.1.1 >&2; false; }}");
        assert!((0..50).any(|_| self.run(&listens)));
        server
    }

    /// Does something say so when this host speaks to a closed port?
    fn is_refused(&self, to: &str) -> bool {
        self.run(&format!("{{ echo x; sleep 0.3; }} | socat -t1 - {to} 2>&1 | grep -q 'Connection refused'"))
    }
}
