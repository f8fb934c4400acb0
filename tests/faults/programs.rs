//! The VPN programs of a run: servers, and clients that a user tries again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use testkit::clock::holds_within;
use testkit::vpn::strongswan::Charon;
use testkit::vpn::{INNER, POOL, ppp, spawn};
use testkit::{Background, Node};

use crate::net::{Net, SERVER, WEB};
use crate::pki;
use crate::setup::{L2tpRefusal, Login, NAME, PppLogin, Program, Setup};

/// What runs until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Running {
    pub(crate) programs: Vec<Background>,
    pub(crate) charons: Vec<Charon>,
}

/// Plugins of charon for certificates and passwords, beside those of the kit.
const PLUGINS: &str = "load = nonce random openssl kdf hmac sha1 sha2 md4 gmp aes pem pkcs1 pkcs8 x509 pubkey \
    kernel-libipsec kernel-netlink socket-default vici updown eap-identity eap-mschapv2";

/// Starts the server's program.
///
/// # Panics
/// When it does not start.
pub(crate) fn server(vpn: Program, net: &Net, setup: &Setup) -> Running {
    let mut running = Running::default();
    let node = &net.server;
    match vpn {
        Program::Ike => {
            inner_address(node);
            offer_keys(node);
            let charon = Charon::plain(node, PLUGINS, "");
            charon.load(&ike_server(setup));
            running.charons.push(charon);
        }
        Program::Vpnc => {
            inner_address(node);
            let charon = Charon::raw(node, "");
            charon.load(&vpnc_server(setup));
            running.charons.push(charon);
        }
        Program::Pptp => running.programs.push(pptpd(node, setup)),
        Program::L2tp => running.programs.push(xl2tpd(
            node,
            setup,
            &format!(
                "[lns default]\nip range = 10.9.0.101-10.9.0.199\nlocal ip = {INNER}\nrequire chap = no\n\
                 refuse pap = yes\nrequire authentication = no\nname = lns\npppoptfile = /dev/null\n\
                 length bit = yes\nchallenge = {}\n",
                match setup.l2tp_refusal {
                    L2tpRefusal::Challenge => "yes",
                    L2tpRefusal::Peer => "no\nlac = 192.0.2.77",
                    L2tpRefusal::None => "no",
                }
            ),
        )),
        Program::OpenVpn => {
            running.programs.push(openvpn_server(node, setup, "udp4", "tun0", "10.8.0.0"));
            if setup.ovpn_tcp {
                running.programs.push(openvpn_server(node, setup, "tcp4-server", "tun1", "10.8.1.0"));
            }
        }
        Program::WireGuard => running.programs.push(wireguard_server(net)),
        Program::Tls => {
            let dir = pki::folder();
            let (cert, key) = (dir.join("server.crt"), dir.join("server.key"));
            running.programs.push(node.spawn(&[
                "openssl",
                "s_server",
                "-accept",
                "443",
                "-www",
                "-cert",
                &cert.to_string_lossy(),
                "-key",
                &key.to_string_lossy(),
            ]));
        }
        Program::None => {}
    }
    let port = match vpn {
        Program::Pptp => Some(("-tlnH", 1723)),
        Program::L2tp => Some(("-ulnH", 1701)),
        Program::WireGuard => Some(("-ulnH", 51_820)),
        Program::Tls => Some(("-tlnH", 443)),
        // These were waited for.
        Program::Ike | Program::Vpnc | Program::OpenVpn | Program::None => None,
    };
    if let Some((kind, port)) = port {
        let own = format!(":{port}");
        let listens = || node.run(&["ss", kind, "sport", "=", &own]).stdout.contains(&own);
        assert!(holds_within(Duration::from_secs(8), listens), "the server does not listen on port {port}");
    }
    running
}

/// Starts a device's client, which its user starts again when it gives up.
///
/// # Panics
/// When it cannot be started.
pub(crate) fn client(vpn: Program, net: &Net, node: &Node, setup: &Setup) -> Running {
    let mut running = Running::default();
    let server = if setup.by_name { NAME.to_owned() } else { SERVER.to_string() };
    let resolver = resolver(node, setup);
    match vpn {
        Program::Ike => {
            let settings = format!(
                "{PLUGINS}\n  retransmit_timeout = {}\n  retransmit_tries = 5\n  retransmit_base = 1.8\n  keep_alive = {}\n",
                setup.retransmit, setup.keep_alive
            );
            offer_keys(node);
            let charon = Charon::plain(node, &settings, &resolver);
            charon.load(&ike_client(node, setup, &server));
            let dial = charon.swanctl_line(&["--initiate", "--child", "net", "--timeout", "60"]).join(" ");
            let taps = format!("until {dial}; do sleep {}; done", setup.again);
            running.programs.push(node.spawn(&["sh", "-c", &taps]));
            running.charons.push(charon);
        }
        Program::Vpnc => {
            let file = vpnc_files(node, setup, &server);
            let dial = format!("vpnc --non-inter --no-detach --debug 1 --pid-file /run/pid {file}");
            running.programs.push(again_and_again(node, &resolver, &dial, setup));
        }
        Program::Pptp => {
            let program = ppp::program().display();
            let before = format!("{resolver} mkdir -p /run/pptp; {}", ppp_environment(setup, false));
            let pptp = format!("exec pptp {server} --nolaunchpppd --nohostroute --nobuffer --loglevel 2");
            let dial = if setup.ppp_works {
                format!("{program} noauth ifname {} pty '{pptp}'", ppp::DEVICE)
            } else {
                // It dials, and nothing speaks PPP.
                format!("sleep 45 | {pptp} >/dev/null")
            };
            running.programs.push(again_and_again(node, &before, &dial, setup));
        }
        Program::L2tp => running.programs.push(xl2tpd(
            node,
            setup,
            &format!(
                "[lac vpn]\nlns = {SERVER}:1701\nname = lac\npppoptfile = /dev/null\nlength bit = yes\n\
                 require authentication = no\nautodial = yes\nredial = yes\nredial timeout = {}\nmax redials = 9\n",
                setup.again
            ),
        )),
        Program::OpenVpn => running.programs.push(openvpn_client(node, setup, &server, &resolver)),
        Program::WireGuard => running.programs.push(wireguard_client(net, node, setup, &server, &resolver)),
        Program::Tls => {
            let dial = format!("echo GET / | timeout 20 openssl s_client -connect {server}:443 -servername {NAME}");
            running.programs.push(again_and_again(node, &resolver, &dial, setup));
        }
        Program::None => {}
    }
    running
}

/// Shell commands that make the run's DNS server that of a program.
fn resolver(node: &Node, _: &Setup) -> String {
    let file = node.dir().join("resolv.conf");
    fs::write(&file, format!("nameserver {WEB}\noptions timeout:3 attempts:2\n"))
        .expect("the lab's folder is writable");
    format!("mount --bind {} /etc/resolv.conf;", file.display())
}

fn again_and_again(node: &Node, before: &str, dial: &str, setup: &Setup) -> Background {
    let script = format!("while :; do {dial}; sleep {}; done", setup.again);
    spawn(node, before, &["sh", "-c", &script])
}

/// swanctl looks for private keys beside its file.
fn offer_keys(node: &Node) {
    let link = node.dir().join("private");
    if !link.exists() {
        // Two machines of a run may do it at one time.
        let _ = std::os::unix::fs::symlink(pki::folder().join("private"), link);
    }
}

fn inner_address(node: &Node) {
    // It is there already when a server is started again.
    node.run(&["ip", "addr", "add", &format!("{INNER}/32"), "dev", "lo"]);
}

fn rekey(setup: &Setup) -> String {
    setup.rekey.map_or_else(String::new, |seconds| {
        format!("rekey_time = {seconds}s\n    rand_time = 0s\n    life_time = {}s\n", seconds * 3)
    })
}

fn ike_server(setup: &Setup) -> String {
    let pki = pki::folder();
    let pki = pki.display();
    let certificate = format!("auth = pubkey\n   id = server\n   certs = {pki}/server.crt");
    let (local, remote) = match setup.login {
        Login::Psk => ("auth = psk\n   id = server".to_owned(), "auth = psk".to_owned()),
        Login::Certificate => (certificate, format!("auth = pubkey\n   cacerts = {pki}/ca.crt")),
        Login::Eap => (certificate, "auth = eap-mschapv2\n   eap_id = %any".to_owned()),
    };
    format!(
        "connections {{\n srv {{\n  version = 2\n  local_addrs = {SERVER}\n  proposals = aes128-sha256-modp2048\n  \
         pools = p\n  unique = never\n  fragmentation = {fragments}\n  dpd_delay = {dpd}s\n  \
         send_certreq = no\n  send_cert = always\n  local {{\n   {local}\n  }}\n  remote {{\n   {remote}\n  }}\n  \
         children {{\n   net {{\n    local_ts = {INNER}/32\n    esp_proposals = aes128-sha256\n    {rekey}\n   }}\n  }}\n }}\n}}\n\
         pools {{\n p {{\n  addrs = {POOL}\n }}\n}}\n\
         secrets {{\n {psk}eap-user {{\n  id = user\n  secret = sekret\n }}\n \
         }}\n",
        fragments = if setup.ike_fragments { "yes" } else { "no" },
        dpd = setup.dpd,
        rekey = rekey(setup),
        psk = if setup.login == Login::Psk { "ike-a {\n  secret = sekret\n }\n " } else { "" },
    )
}

fn ike_client(node: &Node, setup: &Setup, server: &str) -> String {
    let pki = pki::folder();
    let pki = pki.display();
    let (local, remote) = match setup.login {
        Login::Psk => (format!("auth = psk\n   id = {}", node.namespace()), "auth = psk".to_owned()),
        Login::Certificate => (
            format!("auth = pubkey\n   id = client\n   certs = {pki}/client.crt"),
            format!("auth = pubkey\n   cacerts = {pki}/ca.crt"),
        ),
        Login::Eap => (
            format!("auth = eap-mschapv2\n   id = {}\n   eap_id = user", node.namespace()),
            format!("auth = pubkey\n   cacerts = {pki}/ca.crt"),
        ),
    };
    let secret = setup.secret;
    format!(
        "connections {{\n cl {{\n  version = 2\n  remote_addrs = {server}\n  vips = 0.0.0.0\n  proposals = {proposal}\n  \
         fragmentation = {fragments}\n  dpd_delay = {dpd}s\n  send_certreq = no\n  send_cert = always\n  local {{\n   {local}\n  }}\n  \
         remote {{\n   {remote}\n   id = server\n  }}\n  \
         children {{\n   net {{\n    remote_ts = {INNER}/32\n    esp_proposals = aes128-sha256\n   }}\n  }}\n }}\n}}\n\
         secrets {{\n ike-a {{\n  secret = {secret}\n }}\n eap-user {{\n  id = user\n  secret = {secret}\n }}\n \
         }}\n",
        proposal = setup.proposal,
        fragments = if setup.ike_fragments { "yes" } else { "no" },
        dpd = setup.dpd,
    )
}

fn vpnc_server(setup: &Setup) -> String {
    let users: String = ["c1", "c2", "c3"]
        .map(|name| format!("xauth-{name} {{\n  id = {name}\n  secret = pw\n }}\n "))
        .concat();
    format!(
        "connections {{\n srv {{\n  version = 1\n  aggressive = yes\n  local_addrs = {SERVER}\n  \
         proposals = aes128-sha1-modp1024\n  pools = p\n  unique = never\n  dpd_delay = {dpd}s\n  \
         local {{\n   auth = psk\n   id = {SERVER}\n  }}\n  \
         remote-1 {{\n   auth = psk\n  }}\n  remote-2 {{\n   auth = xauth-generic\n  }}\n  \
         children {{\n   net {{\n    local_ts = {INNER}/32,0.0.0.0/0\n    esp_proposals = aes128-sha1\n    {rekey}\n   }}\n  }}\n }}\n}}\n\
         pools {{\n p {{\n  addrs = {POOL}\n }}\n}}\n\
         secrets {{\n ike-a {{\n  secret = sekret\n }}\n {users}}}\n",
        dpd = setup.dpd,
        rekey = rekey(setup),
    )
}

fn vpnc_files(node: &Node, setup: &Setup, server: &str) -> String {
    let path = |what: &str| node.dir().join(format!("{}-{what}", node.namespace()));
    let (script, file) = (path("vpnc-script"), path("vpnc.conf"));
    let text = format!(
        "#!/bin/sh\n[ \"$reason\" = connect ] || exit 0\nip addr add \"$INTERNAL_IP4_ADDRESS/32\" dev \"$TUNDEV\"\n\
         ip link set \"$TUNDEV\" mtu 1300 up\nip route add {INNER}/32 dev \"$TUNDEV\"\n"
    );
    let user = node.namespace().rsplit('-').next().unwrap_or("c1");
    let config = format!(
        "IPSec gateway {server}\nIPSec ID {name}\nIPSec secret {secret}\nIKE Authmode psk\nIKE DH Group dh2\n\
         Perfect Forward Secrecy nopfs\nXauth username {user}\nXauth password pw\nNAT Traversal Mode none\n\
         Local Port 500\nInterface name tun0\nDPD idle timeout (our side) {dpd}\nScript {script}\n",
        name = node.namespace(),
        secret = setup.secret,
        dpd = setup.dpd.max(10),
        script = script.display(),
    );
    fs::write(&script, text)
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::write(&file, config))
        .expect("the lab's folder is writable");
    file.to_string_lossy().into_owned()
}

/// The environment of minippp, in shell.
fn ppp_environment(setup: &Setup, server: bool) -> String {
    let require = match setup.ppp_login {
        PppLogin::None => "",
        PppLogin::Chap => "chap",
        PppLogin::Pap => "pap",
    };
    // pppd asks every three seconds.
    let mut text = "export MINIPPP_RESTART=3000;".to_owned();
    if server {
        text.push_str(&format!(" export MINIPPP_PASSWORD=sekret MINIPPP_REQUIRE={require};"));
        if setup.ppp_passive {
            text.push_str(" export MINIPPP_PASSIVE=yes;");
        }
    } else {
        text.push_str(&format!(" export MINIPPP_PASSWORD={};", setup.secret));
    }
    text
}

fn pptpd(node: &Node, setup: &Setup) -> Background {
    let file = node.dir().join("pptpd.conf");
    let config = format!(
        "ppp {}\noption /dev/null\nnoipparam\nlisten {SERVER}\nlocalip {INNER}\nremoteip 10.9.0.101-199\nstimeout 10\n",
        ppp::program().display()
    );
    fs::write(&file, config).expect("the lab's folder is writable");
    let pid = node.dir().join("pptpd.pid");
    let words = ["pptpd", "-f", "-c", &file.to_string_lossy(), "-p", &pid.to_string_lossy()];
    spawn(node, &ppp_environment(setup, true), &words)
}

fn xl2tpd(node: &Node, setup: &Setup, sections: &str) -> Background {
    let path =
        |what: &str| node.dir().join(format!("{}-{what}", node.namespace())).to_string_lossy().into_owned();
    let (file, pid, control, secrets) =
        (path("xl2tpd.conf"), path("xl2tpd.pid"), path("xl2tpd.ctl"), path("l2tp-secrets"));
    let server = sections.starts_with("[lns");
    let access = if server && setup.l2tp_refusal == L2tpRefusal::Peer { "yes" } else { "no" };
    let listen = if server { format!("listen-addr = {SERVER}\n") } else { String::new() };
    let text = format!(
        "[global]\n{listen}port = 1701\naccess control = {access}\nauth file = {secrets}\n{sections}"
    );
    let secret = if server { "* * server-secret\n" } else { "* * another-secret\n" };
    fs::write(&file, text).and_then(|()| fs::write(&secrets, secret)).expect("the lab's folder is writable");
    // Only the server may ask for a password: who dials decides which address it gets by saying nothing.
    let before = format!(
        "mkdir -p /run/xl2tpd; {} mount --bind {} /usr/sbin/pppd;",
        ppp_environment(setup, server),
        ppp::program().display()
    );
    spawn(node, &before, &["xl2tpd", "-D", "-c", &file, "-s", &secrets, "-p", &pid, "-C", &control])
}

fn openvpn(who: &str, device: &str) -> Vec<String> {
    let dir = pki::folder();
    let file = |name: String| dir.join(name).to_string_lossy().into_owned();
    let mut words: Vec<String> =
        ["openvpn", "--dev", device, "--dev-type", "tun", "--verb", "3", "--disable-dco"]
            .map(str::to_owned)
            .into();
    for (option, name) in
        [("--ca", "ca.crt".to_owned()), ("--cert", format!("{who}.crt")), ("--key", format!("{who}.key"))]
    {
        words.extend([option.to_owned(), file(name)]);
    }
    words
}

fn openvpn_server(node: &Node, setup: &Setup, proto: &str, device: &str, network: &str) -> Background {
    let mut words = openvpn("server", device);
    let (local, port) = (SERVER.to_string(), setup.ovpn_port.to_string());
    let options = [
        "--proto",
        proto,
        "--local",
        &local,
        "--port",
        &port,
        "--server",
        network,
        "255.255.255.0",
        "--topology",
        "subnet",
        "--dh",
        "none",
        "--duplicate-cn",
        "--keepalive",
        "10",
        "60",
    ];
    words.extend(options.map(str::to_owned));
    if device == "tun1" {
        words.extend(["--push", &format!("route {INNER} 255.255.255.255")].map(str::to_owned));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let server = spawn(node, "", &words);
    server.wait_for_log("Initialization Sequence Completed", Duration::from_secs(15));
    server
}

fn openvpn_client(node: &Node, setup: &Setup, server: &str, resolver: &str) -> Background {
    let mut words = openvpn("client", "tun0");
    let port = setup.ovpn_port.to_string();
    words.extend(["--client", "--nobind", "--remote-cert-tls", "server"].map(str::to_owned));
    words.extend(["--remote", server, &port, "udp4"].map(str::to_owned));
    if setup.ovpn_tcp {
        words.extend(["--remote", server, &port, "tcp4", "--server-poll-timeout", "10"].map(str::to_owned));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    spawn(node, resolver, &words)
}

/// WireGuard's keys of all machines, in the run's folder.
pub(crate) fn wireguard_keys(net: &Net) {
    net.server.sh(&format!(
        "umask 077; cd {}; for n in s c1 c3 stranger; do wg genkey | tee wg-$n.key | wg pubkey >wg-$n.pub; done",
        net.dir().display()
    ));
}

fn wireguard_server(net: &Net) -> Background {
    let dir = net.dir().display();
    let settings = format!(
        "private-key {dir}/wg-s.key peer $(cat {dir}/wg-c1.pub) allowed-ips 10.9.0.11/32 \
         peer $(cat {dir}/wg-c3.pub) allowed-ips 10.9.0.13/32"
    );
    wireguard(&net.server, &settings, &INNER.to_string(), POOL, "")
}

fn wireguard_client(net: &Net, node: &Node, setup: &Setup, server: &str, resolver: &str) -> Background {
    let dir = net.dir().display();
    let (own, address) = if node == &net.c3 { ("c3", "10.9.0.13") } else { ("c1", "10.9.0.11") };
    let key = if setup.wg_known { own } else { "stranger" };
    let settings = format!(
        "private-key {dir}/wg-{key}.key peer $(cat {dir}/wg-s.pub) endpoint {server}:51820 allowed-ips {INNER}/32 \
         persistent-keepalive {}",
        setup.wg_keepalive
    );
    wireguard(node, &settings, address, &format!("{INNER}/32"), resolver)
}

fn wireguard(node: &Node, settings: &str, own: &str, route: &str, resolver: &str) -> Background {
    let script = format!(
        "set -e
         (until wg set wg0 listen-port 51820 {settings} 2>/dev/null; do sleep 0.3; done
          ip addr add {own}/32 dev wg0; ip link set wg0 up; ip route add {route} dev wg0) &
         while :; do LOG_LEVEL=error wireguard-go -f wg0 || sleep 0.5; done"
    );
    spawn(node, &format!("{resolver} mkdir -p /run/wireguard;"), &["sh", "-c", &script])
}
