//! natd as a program: signals, a second one, missing permissions, and what it leaves behind.

use std::time::Duration;

use testkit::address::{D1, D2, S1, WAN, at};
use testkit::{Forward, Lab, LabBuilder, Nat, clock, natd, socket, tcp, traffic};

const ABOUT_NATD: &str = "it is about natd as a program";
const WAIT: Duration = Duration::from_secs(10);

fn household() -> LabBuilder {
    Lab::household().beyond_kernel(ABOUT_NATD)
}

/// Runs `natd run` with the lab's configuration under `wrapper`, which must end by itself within ten seconds.
fn run_and_fail(lab: &Lab, wrapper: &[&str], config: &std::path::Path) -> testkit::Outcome {
    let (program, config) = (natd::binary(), config.to_string_lossy().into_owned());
    let socket = lab.dir().join("other.sock").to_string_lossy().into_owned();
    let program = program.to_string_lossy();
    let mut words = wrapper.to_vec();
    words.extend([&*program, "run", "--config", &config, "--socket", &socket]);
    let outcome = lab.router.run_within(&words, WAIT);
    assert!(outcome.code.is_some_and(|code| code != 0), "it should have failed by itself: {outcome}");
    let lines = outcome.stderr.lines().filter(|line| !line.trim().is_empty()).count();
    assert!((1..=6).contains(&lines), "one clear message, not {lines} lines: {outcome}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    outcome
}

fn ruleset(lab: &Lab) -> String {
    // Counters differ from one listing to the next.
    lab.router.sh("nft -s list ruleset; iptables-save | grep -v '^[#:]' || true")
}

fn write_config(lab: &Lab, text: &str) -> std::path::PathBuf {
    let path = lab.dir().join("other.toml");
    std::fs::write(&path, text).expect("the lab's folder is writable");
    path
}

#[test]
fn a_bad_file_on_sighup_keeps_the_old_configuration_and_says_why() {
    let Some(mut lab) = household().forward(Forward::udp(5000, D1, 5001)).start() else { return };
    let (client, host) = (lab.s1.udp(at(S1, 6000)), lab.d1.udp(at(D1, 5001)));
    lab.natd().write_config("[nat]\nlan = [\"br-lan\"]\nwan = \"wan0\"\nfiltering = \"whatever\"\n");
    lab.natd().signal(1);
    clock::wait_for("the complaint", WAIT, || lab.natd().log().contains("whatever"));
    lab.natd().wait_ready();
    socket::deliver(&client, at(WAN, 5000), &host, b"still forwarded");
}

#[test]
fn a_good_file_on_sighup_takes_effect_and_keeps_the_flows() {
    let Some(mut lab) = household().start() else { return };
    let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    let config = lab.natd_config() + &Forward::udp(5000, D2, 5001).toml();
    lab.natd().write_config(&config);
    lab.natd().signal(1);
    let (client, host) = (lab.s1.udp(at(S1, 6000)), lab.d2.udp(at(D2, 5001)));
    host.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
    let forwarded = clock::holds_within(WAIT, || {
        client.send_to(b"forwarded?", at(WAN, 5000)).expect("it is sent");
        socket::receive(&host).is_ok()
    });
    assert!(forwarded, "{}", lab.natd().log());
    connection.expect_alive("after the reload");
}

#[test]
fn usr1_writes_the_state_to_the_log() {
    let Some(mut lab) = household().start() else { return };
    let connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    let before = lab.natd().log().len();
    lab.natd().signal(10);
    clock::wait_for("the state in the log", WAIT, || {
        let log = lab.natd().log();
        log.get(before..)
            .is_some_and(|new| new.contains("wan0  198.51.100.1") && new.contains("sessions   1 of"))
    });
    drop(connection);
}

#[test]
fn a_second_natd_is_refused_and_the_first_goes_on() {
    let Some(mut lab) = household().start() else { return };
    let rules = ruleset(&lab);
    let config = lab.natd().config_path();
    run_and_fail(&lab, &[], &config);
    assert_eq!(ruleset(&lab), rules, "the second one changes nothing");
    lab.natd().wait_ready();
    let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    connection.expect_alive("through the first");
}

#[test]
fn without_permission_it_says_so_and_leaves_nothing_behind() {
    let Some(lab) = household().nat(Nat::None).start() else { return };
    let rules = ruleset(&lab);
    let config = write_config(&lab, &lab.natd_config());
    let none = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let outcome = run_and_fail(&lab, &none, &config);
    let said = outcome.stderr.to_uppercase();
    assert!(
        said.contains("CAP_NET_ADMIN") || said.contains("ROOT") || said.contains("PERMISSION"),
        "{outcome}"
    );
    assert_eq!(ruleset(&lab), rules);
}

#[test]
fn it_runs_with_net_admin_and_net_raw_only() {
    let Some(lab) = household().nat(Nat::None).start() else { return };
    let config = write_config(&lab, &lab.natd_config()).to_string_lossy().into_owned();
    let (program, socket) = (natd::binary(), lab.dir().join("two.sock").to_string_lossy().into_owned());
    let program = program.to_string_lossy();
    let two = "-all,+net_admin,+net_raw";
    let process = lab.router.spawn(&[
        "setpriv",
        &format!("--bounding-set={two}"),
        &format!("--inh-caps={two}"),
        &program,
        "run",
        "--config",
        &config,
        "--socket",
        &socket,
    ]);
    let ready = || lab.router.run(&[&program, "status", "--socket", &socket]).success();
    assert!(clock::holds_within(WAIT, ready), "{}", process.log());
    let leaks = lab.watch_for_leaks();
    let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    connection.expect_alive("with two capabilities");
    leaks.expect_no_leak();
}

#[test]
fn an_unknown_interface_is_named_and_nothing_is_left_behind() {
    let Some(lab) = household().nat(Nat::None).start() else { return };
    let rules = ruleset(&lab);
    let config = write_config(&lab, "[nat]\nlan = [\"br-nope\"]\nwan = \"wan0\"\n");
    let outcome = run_and_fail(&lab, &[], &config);
    assert!(outcome.stderr.contains("br-nope"), "{outcome}");
    assert_eq!(ruleset(&lab), rules);
}

#[test]
fn a_missing_file_and_a_wrong_file_are_named() {
    let Some(lab) = household().nat(Nat::None).start() else { return };
    let outcome = run_and_fail(&lab, &[], &lab.dir().join("absent.toml"));
    assert!(outcome.stderr.contains("absent.toml"), "{outcome}");
    let config = write_config(&lab, "[nat]\nlan = [\"br-lan\"]\nwna = \"wan0\"\n");
    let outcome = run_and_fail(&lab, &[], &config);
    assert!(outcome.stderr.contains("wna") && outcome.stderr.contains('3'), "line and key: {outcome}");
}

#[test]
fn a_queue_number_taken_by_another_process_is_named() {
    let Some(mut lab) = household().start() else { return };
    // The same queue, but interfaces of its own: only the queue is in the way.
    lab.router.ip("link add br-x type bridge\nlink set br-x up\naddr add 192.168.9.1/24 dev br-x\n");
    let config = write_config(&lab, "[nat]\nlan = [\"br-x\"]\nwan = \"wan0\"\n");
    let rules = ruleset(&lab);
    let outcome = run_and_fail(&lab, &[], &config);
    assert!(outcome.stderr.contains("6100") || outcome.stderr.contains("natd"), "{outcome}");
    assert_eq!(ruleset(&lab), rules);
    lab.natd().wait_ready();
}

#[test]
fn a_normal_stop_leaves_only_the_guard() {
    let Some(mut lab) = household().nat(Nat::None).start() else { return };
    let before = ruleset(&lab);
    lab.start_nat(Nat::Natd);
    traffic::ask(&lab.d1, at(D1, 0), at(S1, 80)).expect_err("nobody listens there");
    assert!(lab.natd().stop().success());
    let status = lab.natd().command(&["status"]);
    assert!(status.code.is_some_and(|code| code != 0), "{status}");
    let after = lab
        .router
        .sh("nft delete table ip natd_guard; nft -s list ruleset; iptables-save | grep -v '^[#:]' || true");
    let rules = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| {
                !line.starts_with('*')
                    && *line != "COMMIT"
                    && !line.contains("chain ")
                    && !line.contains("table ")
            })
            .filter(|line| {
                !line.contains("type filter hook") && line.trim() != "}" && !line.trim().is_empty()
            })
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(rules(&after), rules(&before));
}

#[test]
fn status_and_flows_speak_json_and_prometheus() {
    let Some(mut lab) = household().start() else { return };
    let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    connection.expect_alive("at first");
    for words in [&["status", "--json"][..], &["flows", "--json"]] {
        let text = lab.natd().command(words).expect_success();
        let _: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    let flows = lab.natd().command(&["flows"]).expect_success();
    for endpoint in ["192.168.1.11:40000", "198.51.100.1:40000", "198.51.100.10:80"] {
        assert!(flows.contains(endpoint), "{endpoint} in\n{flows}");
    }
    let metrics = lab.natd().command(&["status", "--prometheus"]).expect_success();
    assert!(metrics.lines().any(|line| line.starts_with("natd_")), "{metrics}");
}
