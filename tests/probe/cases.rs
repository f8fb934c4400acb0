//! What is wrong with a path, and what the probe is to make of it.

/// One way in which a path is blocked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// What is wrong.
    pub(crate) name: &'static str,
    /// Hop (0: the device) and a line of shell that is run there.
    pub(crate) setup: &'static [(u8, &'static str)],
    /// Hop, nft hook with its priority, and what is dropped there; `DEV` is the device's address.
    pub(crate) rules: &'static [(u8, &'static str, &'static str)],
    /// Rows that differ from [`OPEN`], as in JSON: probe, result and hop.
    pub(crate) rows: &'static [(&'static str, &'static str, Option<u8>)],
    /// Parts of notes.
    pub(crate) notes: &'static [(&'static str, &'static str)],
    /// The findings.
    pub(crate) codes: &'static [&'static str],
}

/// What a path with nothing blocked shows.
pub(crate) const OPEN: [(&str, &str, Option<u8>); 14] = [
    ("ping", "answers", None),
    ("ike-500", "answers", None),
    ("ike-4500", "answers", None),
    ("ike-large", "answers", None),
    ("ike-fragmented", "answers", None),
    ("esp", "reaches", None),
    ("gre", "reaches", None),
    ("pptp", "answers", None),
    ("pptp-gre", "answers", None),
    ("l2tp", "answers", None),
    ("openvpn", "answers", None),
    ("wireguard", "cannot be told", None),
    ("tls", "answers", None),
    ("mtu", "reaches", None),
];

const FORWARD: &str = "forward priority 0";
// Before the kernel puts fragments together.
const EARLY: &str = "prerouting priority -450";
pub(crate) const NAT: &str = "postrouting priority srcnat";
const OUTPUT: &str = "output priority 0";

/// The cases.
pub(crate) const CASES: [Case; 21] = [
    Case {
        name: "open",
        setup: &[],
        rules: &[],
        rows: &[],
        notes: &[("ike-500", "no NAT"), ("ike-4500", "no NAT")],
        codes: &[],
    },
    Case {
        name: "behind a NAT",
        setup: &[],
        rules: &[(1, NAT, "ip saddr DEV masquerade")],
        rows: &[("pptp-gre", "lost", None)],
        notes: &[("ike-500", "a NAT on the way"), ("ike-4500", "a NAT on the way")],
        // The kernel's NAT does not know PPTP.
        codes: &["PPTP-GRE-BLOCKED-OUT-OR-IN"],
    },
    Case {
        name: "UDP 500 at hop 2",
        setup: &[],
        rules: &[(2, FORWARD, "ip saddr DEV udp dport 500 drop")],
        rows: &[("ike-500", "lost", Some(2))],
        notes: &[],
        codes: &["IKE-500-NO-REPLY"],
    },
    Case {
        name: "answers from UDP 500 at hop 2",
        setup: &[],
        rules: &[(2, FORWARD, "ip daddr DEV udp sport 500 drop")],
        rows: &[("ike-500", "cannot be told", None)],
        notes: &[],
        codes: &["IKE-500-NO-REPLY"],
    },
    Case {
        name: "UDP 4500 at hop 2",
        setup: &[],
        rules: &[(2, FORWARD, "ip saddr DEV udp dport 4500 drop")],
        rows: &[("ike-4500", "lost", None)],
        notes: &[],
        codes: &["IKE-4500-NO-REPLY"],
    },
    Case {
        name: "ESP when hop 2 forwards",
        setup: &[],
        rules: &[(2, FORWARD, "ip saddr DEV ip protocol esp drop")],
        rows: &[("esp", "lost", Some(2))],
        notes: &[],
        codes: &["IPSEC-ESP-NO-RETURN"],
    },
    Case {
        name: "ESP as it comes to hop 2",
        setup: &[],
        rules: &[(2, EARLY, "ip saddr DEV ip protocol esp drop")],
        rows: &[("esp", "lost", Some(1))],
        notes: &[],
        codes: &["IPSEC-ESP-NO-RETURN"],
    },
    Case {
        name: "ESP as it comes to hop 1",
        setup: &[],
        rules: &[(1, EARLY, "ip saddr DEV ip protocol esp drop")],
        rows: &[("esp", "lost", Some(0))],
        notes: &[],
        codes: &["IPSEC-ESP-NO-RETURN"],
    },
    Case {
        name: "ESP as it comes to hop 3, which is silent",
        setup: &[],
        rules: &[
            (3, EARLY, "ip saddr DEV ip protocol esp drop"),
            (3, OUTPUT, "ip daddr DEV icmp type time-exceeded drop"),
        ],
        rows: &[("esp", "cannot be told", None)],
        notes: &[],
        codes: &[],
    },
    Case {
        name: "ESP when hop 3 forwards, the last before the server",
        setup: &[],
        rules: &[(3, FORWARD, "ip saddr DEV ip protocol esp drop")],
        rows: &[("esp", "reaches the last hop", Some(3))],
        notes: &[],
        codes: &[],
    },
    Case {
        name: "GRE at hop 2",
        setup: &[],
        rules: &[(2, FORWARD, "ip saddr DEV ip protocol gre drop")],
        rows: &[("gre", "lost", Some(2)), ("pptp-gre", "lost", Some(2))],
        notes: &[],
        codes: &["PPTP-GRE-BLOCKED-OUT-OR-IN"],
    },
    Case {
        name: "GRE to the device at hop 2",
        setup: &[],
        rules: &[(2, FORWARD, "ip daddr DEV ip protocol gre drop")],
        rows: &[("pptp-gre", "lost", None)],
        notes: &[],
        codes: &["PPTP-GRE-BLOCKED-OUT-OR-IN"],
    },
    Case {
        name: "TCP 1723 at hop 2",
        setup: &[],
        rules: &[(2, FORWARD, "ip saddr DEV tcp dport 1723 drop")],
        rows: &[("pptp", "cannot be told", None), ("pptp-gre", "not tried", None)],
        notes: &[],
        codes: &[],
    },
    Case {
        name: "UDP 1701 and 1194 at hop 2",
        setup: &[],
        rules: &[(2, FORWARD, "ip saddr DEV udp dport { 1701, 1194 } drop")],
        rows: &[("l2tp", "cannot be told", None), ("openvpn", "cannot be told", None)],
        notes: &[],
        codes: &[],
    },
    Case {
        name: "fragments at hop 2",
        setup: &[],
        rules: &[(2, EARLY, "ip saddr DEV ip frag-off & 0x3fff != 0 drop")],
        rows: &[("ike-fragmented", "lost", None)],
        notes: &[],
        codes: &["FRAGMENTS-DROPPED"],
    },
    Case {
        name: "large packets at hop 2, without a word",
        setup: &[],
        rules: &[(2, EARLY, "ip saddr DEV meta length > 1454 drop")],
        rows: &[("ike-fragmented", "lost", None)],
        notes: &[],
        codes: &["MTU-WAN-WRONG"],
    },
    Case {
        name: "pings and large packets at hop 2, without a word",
        setup: &[],
        rules: &[(
            2,
            EARLY,
            "ip saddr DEV icmp type echo-request drop\n  ip saddr DEV meta length > 1454 drop",
        )],
        rows: &[("ping", "cannot be told", None), ("ike-fragmented", "lost", None)],
        notes: &[("mtu", "1454 bytes")],
        codes: &["MTU-WAN-WRONG"],
    },
    Case {
        name: "on a router behind a NAT at hop 2",
        setup: &[(0, "sysctl -qw net.ipv4.ip_forward=1")],
        rules: &[(2, NAT, "ip saddr DEV masquerade")],
        rows: &[("pptp-gre", "lost", None)],
        notes: &[("ike-500", "a NAT on the way")],
        codes: &["PPTP-GRE-BLOCKED-OUT-OR-IN", "DOUBLE-NAT"],
    },
    Case {
        // Two devices behind one masquerade cannot both have ESP with a server.
        name: "an address from a provider's shared range",
        setup: &[
            (
                0,
                "ip addr add 100.64.0.9/32 dev eth0 && ip route replace default via 192.168.1.1 src 100.64.0.9",
            ),
            (1, "ip route add 100.64.0.9 via DEV"),
            (2, "ip route add 100.64.0.9 via 198.51.100.1"),
        ],
        rules: &[(2, NAT, "ip saddr 100.64.0.9 meta l4proto { tcp, udp, icmp } masquerade")],
        rows: &[("pptp-gre", "lost", None)],
        notes: &[("ike-500", "a NAT on the way")],
        codes: &["PPTP-GRE-BLOCKED-OUT-OR-IN", "CGNAT"],
    },
    Case {
        name: "all but TCP 443 at hop 1",
        setup: &[],
        rules: &[(1, FORWARD, "ip saddr DEV tcp dport != 443 drop\n  ip saddr DEV ip protocol != tcp drop")],
        rows: &[
            ("ping", "cannot be told", None),
            ("ike-500", "cannot be told", None),
            ("ike-4500", "cannot be told", None),
            ("ike-large", "not tried", None),
            ("ike-fragmented", "not tried", None),
            ("esp", "cannot be told", None),
            ("gre", "cannot be told", None),
            ("pptp", "cannot be told", None),
            ("pptp-gre", "not tried", None),
            ("l2tp", "cannot be told", None),
            ("openvpn", "cannot be told", None),
            ("mtu", "cannot be told", None),
        ],
        notes: &[],
        codes: &["ONLY-443"],
    },
    Case {
        name: "UDP 500 refused at hop 2, TCP 443 dropped",
        setup: &[],
        rules: &[(
            2,
            FORWARD,
            "ip saddr DEV udp dport 500 reject with icmp type admin-prohibited\n  ip saddr DEV tcp dport 443 drop",
        )],
        rows: &[("ike-500", "refused on the way", None), ("tls", "cannot be told", None)],
        notes: &[],
        codes: &["IKE-500-ADMIN"],
    },
];
