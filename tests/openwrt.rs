//! conf/openwrt: what the init script makes of /etc/config/natd, and what it tells procd.
//!
//! The script runs as it is, under every shell that is here, between the stand-ins of tests/openwrt: rc.sh for
//! rc.common, uci and procd, network.sh for netifd, natd.sh for natd.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use natd::config::Config;
use natd::config::schema::TABLES;

const SHIPPED: &str = include_str!("../conf/openwrt/natd.config");
const ENABLED: &str = "config natd 'main'\n\toption enabled '1'\n";
const FIREWALL: &str = "\
config defaults
	option auto_helper '0'
config zone
	option name 'home'
	list network 'lan'
config zone
	option name 'uplink'
	list network 'wan'
	list network 'wan6'
	option masq '1'
";
const UP: &str = "lan br-lan\nguest br-guest\nwan pppoe-wan\ndefault wan\n";

#[test]
fn the_shipped_file_starts_nothing() {
    for shell in shells() {
        let router = Router::new(shell, SHIPPED);
        router.run("start");
        assert_eq!(router.toml(), None);
        assert_eq!(router.log(), "");
        assert!(!router.calls().contains("procd_open_instance"), "{}", router.calls());
        assert!(router.calls().contains("procd_add_reload_trigger [natd] [network] [firewall]\n"));
        assert!(!router.calls().contains("interface"), "nothing waits: {}", router.calls());
    }
}

#[test]
fn the_shipped_file_says_the_defaults() {
    for shell in shells() {
        let shipped = Router::new(shell, &SHIPPED.replace("enabled '0'", "enabled '1'"));
        let bare = Router::new(shell, ENABLED);
        // Without wan it is the interface with the default route, here the same.
        for router in [&shipped, &bare] {
            router.run("start");
            assert_eq!(
                router.toml().unwrap(),
                "\
# Made from /etc/config/natd by its init script, which overwrites it.
[nat]
lan = [\"br-lan\"]
wan = \"pppoe-wan\"
scope = \"vpn\"

[passthrough]
ipsec = true
pptp = false
l2tp = true
multi = true

[log]
level = \"info\"
"
            );
            assert_eq!(router.log(), "");
        }
        // Written beside it and renamed, for natd must not read half a file.
        assert_eq!(fs::read_to_string(shipped.path("checked")).ok(), shipped.toml());
        assert!(!shipped.path("var/run/natd/natd.toml.new").exists());
        let (config, remarks) = Config::parse(&understood(&shipped.toml().unwrap())).unwrap();
        assert_eq!((config.lan, config.wan), (vec!["br-lan".to_owned()], "pppoe-wan".to_owned()));
        assert_eq!(remarks, []);
    }
}

#[test]
fn every_option_arrives() {
    let text = "\
config natd 'main'
	option enabled 'yes'
	option scope 'all'
	list lan 'lan'
	list lan 'guest'
	option wan 'wan'
	option log_level 'debug'
config passthrough 'passthrough'
	option ipsec 'off'
	option pptp '1'
	option l2tp 'false'
	option multi '0'
config forward
	option protocol 'tcp+udp'
	option external '6000-6010'
	option host '192.168.1.10'
	option internal '7000'
	option comment 'games'
config forward
	option protocol 'esp'
	option host '192.168.1.20'
config forward
	option protocol 'tcp'
	option external '443'
	option host '192.168.1.30'
";
    for shell in shells() {
        let router = Router::new(shell, text);
        router.run("start");
        let toml = router.toml().unwrap();
        let expected = "\
lan = [\"br-lan\", \"br-guest\"]
wan = \"pppoe-wan\"
scope = \"all\"

[passthrough]
ipsec = false
pptp = true
l2tp = false
multi = false

[log]
level = \"debug\"

[[forward]]
protocol = \"tcp+udp\"
external = \"6000-6010\"
host = \"192.168.1.10\"
internal = 7000
comment = \"games\"

[[forward]]
protocol = \"esp\"
host = \"192.168.1.20\"

[[forward]]
protocol = \"tcp\"
external = \"443\"
host = \"192.168.1.30\"
";
        assert!(toml.ends_with(expected), "{toml}");
        let (config, _) = Config::parse(&understood(&toml)).unwrap();
        assert_eq!(config.lan, ["br-lan", "br-guest"]);
        assert!(config.policy.forwards.len() >= 3, "{:?}", config.policy.forwards);
    }
}

/// Whatever a value holds, it stays a value: nothing of it is run, and nothing of it becomes another key.
#[test]
fn hostile_values_stay_values() {
    // As uci quotes, and as they are.
    let values = [
        (r#"a"b"#, r#"a\"b"#),
        (r"a\b\n", r"a\\b\\n"),
        ("$(touch $IPKG_INSTROOT/owned)`touch $IPKG_INSTROOT/owned`", ""),
        ("'\\''; touch $IPKG_INSTROOT/owned; '\\''", "'; touch $IPKG_INSTROOT/owned; '"),
        ("x\"\n[control]\nsocket = \"/tmp/x", "x\\\"\\u000A[control]\\u000Asocket = \\\"/tmp/x"),
        ("tab\there, \u{1b}[1m, \u{7f}", "tab\\u0009here, \\u001B[1m, \\u007F"),
        ("* ?  [a-z]", ""),
        ("-n", ""),
        ("%s%n", ""),
        ("größer, 東京", ""),
        ("two\nlines\n\n", "two\\u000Alines\\u000A\\u000A"),
    ];
    for shell in shells() {
        for (quoted, expected) in values {
            let expected = if expected.is_empty() { quoted } else { expected };
            let text = format!(
                "{ENABLED}\toption scope all\nconfig forward\n\toption protocol 'tcp'\n\toption external '80'\n\toption host '192.168.1.5'\n\
                 \toption comment '{quoted}'\n"
            );
            let router = Router::new(shell, &text);
            router.run("start");
            let toml = router.toml().unwrap();
            assert!(toml.ends_with(&format!("\ncomment = \"{expected}\"\n")), "{shell:?}: {toml}");
            let (config, remarks) = Config::parse(&understood(&toml)).unwrap();
            assert_eq!((config.policy.forwards.len(), remarks), (1, vec![]));
            assert_eq!(config.socket, Path::new(Config::DEFAULT_SOCKET));

            // In the other options it is natd that refuses it, each on its line.
            let text = format!(
                "{ENABLED}\toption scope all\nconfig forward\n\toption protocol '{quoted}'\n\toption external '{quoted}'\n\
                 \toption host '{quoted}'\n\toption internal '{quoted}'\n"
            );
            let router = Router::new(shell, &text);
            router.run("start");
            let problems = Config::parse(&understood(&router.toml().unwrap())).unwrap_err();
            let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
            assert_eq!(
                keys,
                ["forward.protocol", "forward.external", "forward.host", "forward.internal"],
                "{problems:?}"
            );

            for option in ["scope", "log_level", "enabled", "lan", "wan"] {
                let text = format!("{ENABLED}\toption {option} '{quoted}'\n");
                let router = Router::new(shell, &text);
                router.run("start");
                assert_eq!(router.toml(), None, "{option} {quoted}");
                // An unquoted tab or line break separates words for uci, so a name of it may just be not up.
                let log = router.log();
                assert!(
                    log.starts_with("err refused: natd.main") || log.starts_with("notice waiting:"),
                    "{log}"
                );
                assert_eq!(log.lines().count(), 1, "{log}");
            }
        }
    }
}

#[test]
fn procd_is_told_what_to_run_and_when() {
    for shell in shells() {
        let router =
            Router::new(shell, &format!("{ENABLED}\tlist lan lan\n\tlist lan guest\n\toption wan wan\n"));
        router.run("start");
        let root = router.root.display();
        assert_eq!(
            router.calls(),
            format!(
                "\
procd_open_instance [main]
procd_set_param [command] [{root}/usr/sbin/natd] [run] [--config] [{root}/var/run/natd/natd.toml]
procd_set_param [respawn] [3600] [5] [0]
procd_set_param [file] [{root}/var/run/natd/natd.toml]
procd_set_param [netdev] [br-lan] [br-guest] [pppoe-wan]
procd_set_param [reload_signal] [HUP]
procd_set_param [term_timeout] [10]
procd_set_param [stdout] [1]
procd_set_param [stderr] [1]
procd_set_param [no_new_privs] [1]
procd_close_instance
procd_add_reload_trigger [natd] [network] [firewall]
procd_add_reload_interface_trigger [lan]
procd_add_reload_interface_trigger [guest]
procd_add_reload_interface_trigger [wan]
validation [natd] [enabled:bool:0] [scope:or(\"vpn\",\"all\"):vpn] [lan:list(string):lan] [wan:string] \
[log_level:or(\"error\",\"warn\",\"info\",\"debug\",\"trace\"):info]
validation [natd] [ipsec:bool:1] [pptp:bool:0] [l2tp:bool:1] [multi:bool:1]
validation [natd] [protocol:string] [external:string] [host:string] [internal:string] [comment:string]
"
            )
        );
    }
}

#[test]
fn without_a_wan_every_interface_may_bring_it() {
    for shell in shells() {
        let router = Router::new(shell, ENABLED);
        router.write("interfaces", "lan br-lan\n");
        router.run("start");
        assert_eq!(router.toml(), None);
        assert!(
            router.log().starts_with("notice waiting: no interface has a default route"),
            "{}",
            router.log()
        );
        assert!(!router.calls().contains("procd_open_instance"));
        assert!(
            router
                .calls()
                .contains("procd_add_raw_trigger [interface.*] [2000] [/etc/init.d/natd] [reload]\n")
        );

        router.write("interfaces", UP);
        router.run("reload");
        assert!(router.toml().unwrap().contains("wan = \"pppoe-wan\"\n"));
        assert!(router.calls().contains("procd_open_instance"));
    }
}

#[test]
fn what_is_not_up_is_waited_for() {
    let text = format!("{ENABLED}\toption lan 'lan guest'\n\toption wan 'wan'\n");
    for shell in shells() {
        for (up, missing) in [
            ("lan br-lan\nguest br-guest\n", "notice waiting: the WAN interface wan is not up\n"),
            ("lan br-lan\nwan eth1\n", "notice waiting: the LAN interface guest is not up\n"),
        ] {
            let router = Router::new(shell, &text);
            router.write("interfaces", up);
            router.run("start");
            assert_eq!((router.toml(), router.log().as_str()), (None, missing));
            assert!(!router.calls().contains("procd_open_instance"));
            assert!(router.calls().contains("procd_add_reload_interface_trigger [wan]\n"));
            assert!(router.calls().contains("procd_add_reload_interface_trigger [guest]\n"));
        }
    }
}

#[test]
fn in_scope_all_the_firewall_does_not_masquerade_and_in_scope_vpn_it_does() {
    for shell in shells() {
        let router = Router::new(shell, &format!("{ENABLED}\toption scope all\n\toption wan wan\n"));
        router.run("start");
        let exemption = "\
procd_open_data
json_add_array [firewall]
json_add_object []
json_add_string [type] [nat]
json_add_string [target] [ACCEPT]
json_add_string [src] [uplink]
json_add_string [family] [ipv4]
json_close_object
json_close_array
procd_close_data
procd_close_instance
";
        assert!(router.calls().contains(exemption), "{}", router.calls());
        assert!(!router.calls().contains("procd_set_config_changed"), "the firewall sees it by itself");

        let router = Router::new(shell, &format!("{ENABLED}\toption scope all\n\toption wan wan\n"));
        router.write("etc/config/firewall", "config zone\n\toption name 'home'\n\tlist network 'lan'\n");
        router.run("start");
        assert!(!router.calls().contains("json_"), "{}", router.calls());
        assert!(router.log().contains("warning no firewall zone has the network wan"), "{}", router.log());

        let router = Router::new(shell, &format!("{ENABLED}\toption wan wan\n"));
        router.run("start");
        assert!(!router.calls().contains("json_") && !router.calls().contains("_data"), "{}", router.calls());
    }
}

/// Before 24.10 the firewall has to be told, though not each time: it is one of our triggers.
#[test]
fn an_old_firewall_is_told_when_its_data_change() {
    for shell in shells() {
        let text = format!("{ENABLED}\toption scope all\n\toption wan wan\n");
        let mut router = Router::new(shell, &text);
        router.old_procd = true;
        let told = |action| {
            router.run(action);
            router.calls().contains("procd_set_config_changed [firewall]\n")
        };
        assert!(told("start"));
        router.write("status", "0");
        assert!(!told("reload"));
        assert!(told("stop"));
        router.write("etc/config/natd", &format!("{ENABLED}\toption wan wan\n"));
        assert!(!told("start"));
        assert!(!told("stop"));
    }
}

#[test]
fn what_natd_refuses_is_not_started() {
    for shell in shells() {
        let router = Router::new(shell, ENABLED);
        router.write(
            "findings",
            "ok       interface: interface br-lan is up\nwarning  wan-address: none; natd waits\n\
             problem  queue-rules: $(reboot) `x`; install kmod-nft-queue\n",
        );
        router.run("start");
        assert!(router.path("checked").exists());
        assert_eq!(router.toml(), None);
        assert!(!router.path("var/run/natd/natd.toml.new").exists());
        assert_eq!(
            router.log(),
            "warning warning  wan-address: none; natd waits\n\
             err problem  queue-rules: $(reboot) `x`; install kmod-nft-queue\n\
             err refused: natd check ends with 1; see the lines before\n"
        );
        assert!(!router.calls().contains("procd_open_instance"));
    }
}

#[test]
fn a_running_natd_survives_a_refused_change() {
    for shell in shells() {
        let router = Router::new(shell, &format!("{ENABLED}\toption scope all\n\toption wan wan\n"));
        router.run("start");
        let (toml, calls) = (router.toml(), router.calls());
        router.write("status", "3");
        for (file, broken) in [
            ("findings", "problem  configuration: broken\n"),
            ("interfaces", "lan br-lan\n"),
            (
                "etc/config/natd",
                "config natd 'main'\n\toption enabled 1\n\toption scope 'some'\n\toption wan wan\n",
            ),
            (
                "etc/config/natd",
                "config natd 'main'\n\toption enabled 1\n\toption wan wan\nconfig passthrough 'passthrough'\n\
                 \toption pptp 'maybe'\n",
            ),
        ] {
            let good = fs::read_to_string(router.path(file)).unwrap();
            router.write(file, broken);
            router.run("reload");
            assert_eq!(router.toml(), toml);
            assert_eq!(router.calls(), calls, "{broken}");
            assert!(router.log().ends_with("notice natd goes on with the configuration that it has\n"));
            router.write(file, &good);
        }
        assert!(router.log().contains("refused"));

        // Switching it off is no mistake.
        router.write("etc/config/natd", SHIPPED);
        router.run("reload");
        assert!(!router.calls().contains("procd_open_instance"));
    }
}

#[test]
fn a_reload_signals_and_only_other_devices_or_another_scope_restart() {
    for shell in shells() {
        let first = format!("{ENABLED}\toption wan wan\n");
        let router = Router::new(shell, &first);
        router.run("start");
        router.write("status", "0");

        // procd sees the other content of the file and sends its signal.
        router.write("etc/config/natd", &format!("{first}\toption log_level debug\n"));
        router.run("reload");
        assert!(router.toml().unwrap().ends_with("level = \"debug\"\n"));
        assert!(!router.calls().contains("ubus"), "{}", router.calls());

        for (file, text) in [
            ("interfaces", "lan br-lan\nwan eth7\n"),
            ("etc/config/natd", &format!("{first}\toption scope all\n")),
        ] {
            router.write("status", "0");
            router.write(file, text);
            router.run("reload");
            assert!(
                router.calls().starts_with(
                    "ubus [call] [service] [delete] [{ \"name\": \"natd\" }]\nsleep\nprocd_open_instance [main]\n"
                ),
                "{}",
                router.calls()
            );
            assert!(router.log().ends_with("notice restarting natd for other devices or another scope\n"));
        }
    }
}

#[test]
fn flow_offloading_and_the_kernels_pptp_helper_are_named() {
    for shell in shells() {
        let offload = FIREWALL.replace("auto_helper '0'", "flow_offloading '1'");
        for (scope, what) in [
            ("vpn", "TCP 1723 and UDP 500, 4500 and 1701 reach natd"),
            ("all", "all of TCP and UDP reach natd"),
        ] {
            let router = Router::new(shell, &format!("{ENABLED}\toption wan wan\n\toption scope {scope}\n"));
            router.write("etc/config/firewall", &offload);
            router.run("start");
            assert!(router.log().starts_with("warning flow offloading is on:"), "{}", router.log());
            assert!(router.log().contains(what), "{}", router.log());
            // Whether natd starts with it is for natd's check to say.
            assert!(router.calls().contains("procd_open_instance"));
        }

        let automatic = FIREWALL.replace("option auto_helper '0'", "");
        let named = FIREWALL.replace("option masq '1'", "list helper 'pptp'");
        for (firewall, loaded, pptp, warned) in [
            (automatic.as_str(), true, '1', true),
            (named.as_str(), true, '1', true),
            (FIREWALL, true, '1', false),
            (automatic.as_str(), false, '1', false),
            (automatic.as_str(), true, '0', false),
        ] {
            let text = format!("{ENABLED}config passthrough passthrough\n\toption pptp {pptp}\n");
            let router = Router::new(shell, &text);
            router.write("etc/config/firewall", firewall);
            if loaded {
                fs::create_dir_all(router.path("sys/module/nf_conntrack_pptp")).unwrap();
            }
            router.run("start");
            assert_eq!(router.log().contains("nf_conntrack_pptp"), warned, "{firewall} {loaded} {pptp}");
        }
    }
}

#[test]
fn a_stop_waits_for_natd_to_end() {
    for shell in shells() {
        let router = Router::new(shell, ENABLED);
        router.run("start");
        router.run("stop");
        assert_eq!(router.calls(), "ubus [call] [service] [delete] [natd]\nsleep\n");
        assert!(!router.path("var/run/natd/in-force").exists());
    }
}

/// The file as this natd reads it: a natd without passthrough knows neither the table nor the scope nor the
/// protocols.
fn understood(toml: &str) -> String {
    if TABLES.iter().any(|table| table.name == "passthrough") {
        return toml.to_owned();
    }
    let (before, rest) = toml.split_once("[passthrough]\n").expect("the table is there");
    let (_, after) = rest.split_once("\n\n").expect("a table follows");
    let text = format!("{}{after}", before.replace("scope = \"vpn\"", "scope = \"all\""));
    text.replace("protocol = \"esp\"", "protocol = \"udp\"\nexternal = 9")
}

/// A shell with its first arguments.
type Shell = &'static [&'static str];

/// Every shell here that can run the script: busybox's is the one on routers.
fn shells() -> Vec<Shell> {
    let mut shells: Vec<Shell> = vec![&["sh"]];
    if Command::new("busybox").args(["ash", "-c", "true"]).status().is_ok_and(|status| status.success()) {
        shells.push(&["busybox", "ash"]);
    }
    shells
}

/// A directory that looks enough like a router.
struct Router {
    shell: Shell,
    root: PathBuf,
    old_procd: bool,
}

impl Router {
    /// Everything is up; natd is not running and finds nothing wrong.
    fn new(shell: Shell, config: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("openwrt-{}-{number}", std::process::id()));
        for folder in ["etc/config", "usr/sbin", "lib/functions", "var/run"] {
            fs::create_dir_all(root.join(folder)).expect("the test's folder can be used");
        }
        symlink(stand_in("network.sh"), root.join("lib/functions/network.sh"))
            .expect("the test's folder can be used");
        symlink(stand_in("natd.sh"), root.join("usr/sbin/natd")).expect("the test's folder can be used");
        let router = Self { shell, root, old_procd: false };
        for (file, text) in [
            ("etc/config/natd", config),
            ("etc/config/firewall", FIREWALL),
            ("interfaces", UP),
            ("status", "4"),
            ("findings", ""),
            ("log", ""),
            ("calls", ""),
        ] {
            router.write(file, text);
        }
        router
    }

    /// Runs the init script; what it did before is forgotten but for the log.
    fn run(&self, action: &str) {
        self.write("calls", "");
        let (program, arguments) = self.shell.split_first().expect("a shell has a name");
        let output = Command::new(program)
            .args(arguments)
            .arg(stand_in("rc.sh"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/openwrt/natd.init"))
            .arg(action)
            .env("IPKG_INSTROOT", &self.root)
            .env("OLD_PROCD", if self.old_procd { "1" } else { "" })
            .output()
            .expect("the shell starts");
        assert!(!self.path("owned").exists(), "{:?} {action} ran a value", self.shell);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.is_empty() && output.stdout.is_empty(), "{:?} {action}: {said}", self.shell);
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).expect("the test's folder can be used");
    }

    fn toml(&self) -> Option<String> {
        fs::read_to_string(self.path("var/run/natd/natd.toml")).ok()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).expect("the test's folder can be used")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("the test's folder can be used")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // What a failed test leaves helps to see why.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

fn stand_in(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openwrt").join(name)
}
