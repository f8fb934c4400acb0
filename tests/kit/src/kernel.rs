//! The router's rules that are not natd's: its stateful firewall, and the kernel's own NAT.

use std::net::Ipv4Addr;

use crate::nat::Forward;

/// Does the firewall let through what the kernel's own port forwards have translated? natd gets no such rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptKernelForwards {
    /// Yes: `ct status dnat accept`.
    Yes,
    /// No.
    No,
}

/// The stateful firewall that every lab's router has.
pub fn firewall(accept: AcceptKernelForwards) -> String {
    let dnat = match accept {
        AcceptKernelForwards::Yes => "ct status dnat accept",
        AcceptKernelForwards::No => "",
    };
    format!(
        r#"table ip lab_firewall {{
 chain forward {{
  type filter hook forward priority 0; policy drop;
  ct state established,related accept
  iifname {{ "br-lan", "br-iot" }} oifname "wan0" accept
  iifname {{ "br-lan", "br-iot" }} oifname {{ "br-lan", "br-iot" }} accept
  {dnat}
 }}
}}
"#
    )
}

/// The kernel's masquerade with port forwards that also work from the LAN.
pub fn masquerade(wan: Ipv4Addr, forwards: &[Forward]) -> String {
    let mut rules = String::new();
    for forward in forwards {
        let (protocol, host) = (forward.transport.protocol(), forward.host);
        let (first, last) = forward.external;
        if first == 0 {
            rules.push_str(&format!("  ip daddr {wan} ip protocol {protocol} dnat to {host}\n"));
            continue;
        }
        for (port, internal) in (first..=last).zip(forward.internal..) {
            rules.push_str(&format!(
                "  ip daddr {wan} ip protocol {protocol} th dport {port} dnat to {host}:{internal}\n"
            ));
        }
    }
    format!(
        r#"table ip lab_nat {{
 chain prerouting {{
  type nat hook prerouting priority -100;
{rules} }}
 chain postrouting {{
  type nat hook postrouting priority 100;
  oifname "wan0" masquerade
  oifname {{ "br-lan", "br-iot" }} ct status dnat ct original ip daddr {wan} iifname {{ "br-lan", "br-iot" }} snat to {wan}
 }}
}}
"#
    )
}

/// The same as a script of `iptables` commands, for forwards of TCP and UDP from outside.
pub fn masquerade_by_iptables(wan: Ipv4Addr, forwards: &[Forward]) -> String {
    let mut script = "iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE\n".to_owned();
    for forward in forwards {
        let (name, (first, last), host) = (forward.transport.name(), forward.external, forward.host);
        for (port, internal) in (first..=last).zip(forward.internal..) {
            script.push_str(&format!(
                "iptables -t nat -A PREROUTING -d {wan} -p {name} --dport {port} -j DNAT --to {host}:{internal}\n"
            ));
        }
    }
    script
}

/// Only a masquerade rule, as someone forgot it in an older set-up.
pub const FORGOTTEN_MASQUERADE: &str = r#"table ip forgotten {
 chain postrouting {
  type nat hook postrouting priority 100;
  oifname "wan0" masquerade
 }
}
"#;
