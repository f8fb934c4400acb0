use super::super::samples;
use super::*;

const PLAIN: Style = Style { colour: false, blocks: true };
const SECOND: Duration = Duration::from_secs(1);

fn screen(columns: u16, rows: u16) -> Size {
    Size { columns, rows }
}

fn after_a_second(size: Size, style: Style) -> String {
    render(Some(&samples::status()), &samples::second_later(), SECOND, size, style)
}

#[test]
fn a_usual_terminal_shows_everything() {
    let expected = "\
\x20● translating   natd 0.1.0  up 2h04m   q quits
 WAN eth1 203.0.113.7 MTU 1500   LAN br-lan 192.168.1.0/24 br-guest 192.0.2.0/2…

 ↓ down   94.3 Mbit/s                           █    9,000/s packets    1.0 GiB
 ↑ up      3.1 Mbit/s                           █    1,500/s packets   48.0 MiB

 █░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  1,234 of 65,536 sessions, 1 %
 1,000 TCP  200 UDP  34 ICMP   peak 2,000   900 mappings   3 SYNs held

 DEVICE           SESSIONS           DOWN             UP
 192.168.1.200          22    70.3 Mbit/s     2.4 Mbit/s  █████████████████████
 192.168.1.10        1,200    24.0 Mbit/s   720.0 kbit/s  ████████░░░░░░░░░░░░░
 192.168.1.9            12        0 bit/s        0 bit/s  ░░░░░░░░░░░░░░░░░░░░░

 DROPPED                    PACKETS       RATE
 filtered                     1,237      3.0/s  the device never sent anything …
 malformed                        2          -  its headers contradict each oth…
 something-new                    1          -

 queue 0  3 waiting  none lost
 queue 1  0 waiting  9 lost
 conntrack did not take 1 of 457 flows: a firewall may drop their packets
";
    assert_eq!(after_a_second(screen(80, 24), PLAIN), expected);
}

#[test]
fn a_wide_terminal_has_room_for_the_last_minute_of_every_device() {
    let expected = "\
\x20↓ down    1.6 Mbit/s                                                      ▁▄█▂      0.0/s packets    1.0 GiB
 ↑ up         0 bit/s                                                      ▁▁▁▁      0.0/s packets   47.6 MiB

 █░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  1,234 of 65,536 sessions, 1 %
 1,000 TCP  200 UDP  34 ICMP   peak 2,000   900 mappings   3 SYNs held

 DEVICE           SESSIONS           DOWN             UP
 192.168.1.9            12     1.6 Mbit/s        0 bit/s  ██████████                                     ▁▄█▂
 192.168.1.10        1,200        0 bit/s        0 bit/s  ░░░░░░░░░░                                     ▁▁▁▁
";
    let mut view = View::default();
    let mut status = samples::status();
    view.observe(status.clone(), Duration::ZERO);
    for step in [100_000u64, 400_000, 800_000, 200_000] {
        status.uptime_secs += 1;
        status.bytes.inbound += step;
        if let Some(device) = status.devices.first_mut() {
            device.bytes_in += step;
        }
        view.observe(status.clone(), SECOND);
    }
    let shown = view.render(screen(110, 40), PLAIN);
    let start: Vec<&str> = shown.lines().skip(3).take(9).collect();
    assert_eq!(format!("{}\n", start.join("\n")), expected);
}

#[test]
fn a_small_terminal_shows_the_busiest_and_counts_the_rest() {
    let expected = "\
\x20● translating   natd 0.1.0  up 2h04m   q quits
 WAN eth1 203.0.113.7 MTU 1500   LAN br-lan 192.168.1.0/24 …

 ↓ down   94.3 Mbit/s       █    9,000/s packets    1.0 GiB
 ↑ up      3.1 Mbit/s       █    1,500/s packets   48.0 MiB

 █░░░░░░░░░░░░░░░░░░░░░░░░░░  1,234 of 65,536 sessions, 1 %
 1,000 TCP  200 UDP  34 ICMP   peak 2,000   900 mappings   …

 DEVICE           SESSIONS           DOWN             UP
 192.168.1.200          22    70.3 Mbit/s     2.4 Mbit/s
 … and 2 more

 queue 0  3 waiting  none lost
 queue 1  0 waiting  9 lost
";
    let mut later = samples::second_later();
    later.kernel.admit_failed = 0;
    assert_eq!(render(Some(&samples::status()), &later, SECOND, screen(60, 18), PLAIN), expected);
}

#[test]
fn no_size_is_too_small_and_no_line_too_long() {
    for (columns, rows) in (0..130).step_by(7).flat_map(|c| (0..40).step_by(3).map(move |r| (c, r))) {
        let text = after_a_second(screen(columns, rows), PLAIN);
        assert!(text.lines().count() <= usize::from(rows), "{columns}x{rows}:\n{text}");
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest <= usize::from(columns), "{columns}x{rows}:\n{text}");
    }
}

#[test]
fn before_the_second_status_no_rate_is_claimed() {
    let first = render(None, &samples::status(), Duration::ZERO, screen(80, 24), PLAIN);
    let rates: Vec<&str> = first.lines().filter(|line| line.contains("packets ")).collect();
    assert_eq!(
        rates,
        [
            " ↓ down             …                                  …/s packets    1.0 GiB",
            " ↑ up               …                                  …/s packets   47.6 MiB",
        ]
    );
}

#[test]
fn a_restarted_daemon_starts_afresh() {
    let restarted = Status { pid: 99, ..samples::second_later() };
    let fresh = render(None, &restarted, Duration::ZERO, screen(80, 24), PLAIN);
    assert_eq!(render(Some(&samples::status()), &restarted, SECOND, screen(80, 24), PLAIN), fresh);
}

#[test]
fn waiting_for_an_address_is_said_at_the_top() {
    let status = Status {
        version: "0.1.0".into(),
        state: State::WaitingForAddress,
        reason: Some("ppp0 has no IPv4 address".into()),
        wan: super::super::Wan { interface: "ppp0".into(), address: None, mtu: 1492 },
        ..Status::default()
    };
    let shown = render(None, &status, Duration::ZERO, screen(80, 24), PLAIN);
    let top: Vec<&str> = shown.lines().take(3).collect();
    assert_eq!(
        top,
        [
            " ● waiting for an address   natd 0.1.0  up 0s   q quits",
            "   ppp0 has no IPv4 address",
            " WAN ppp0 no address MTU 1492   LAN",
        ]
    );
    assert!(shown.contains("no device has sent anything yet") && shown.contains("nothing dropped"));
}

#[test]
fn a_lost_daemon_is_named_above_what_was_last_seen() {
    let mut view = View::default();
    let reason = "natd is not running";
    let never_seen = view.render_lost(reason, screen(80, 24), PLAIN);
    assert_eq!(never_seen, " ● no answer   trying again every second; q quits\n natd is not running\n");
    view.observe(samples::status(), Duration::ZERO);
    let lost = view.render_lost(reason, screen(80, 24), PLAIN);
    let seen = view.render(screen(80, 20), PLAIN);
    assert_eq!(lost, format!("{never_seen}\n last seen:\n{seen}"));
}

#[test]
fn colours_say_what_is_well_and_change_nothing_else() {
    let coloured = after_a_second(screen(80, 24), Style { colour: true, blocks: true });
    assert!(coloured.starts_with("\x1b[32m ● translating\x1b[0m\x1b[2m   natd 0.1.0"), "{coloured}");
    assert!(coloured.contains("\x1b[33m filtered "), "what is being dropped just now stands out");
    assert!(coloured.contains("\x1b[32mnone lost\x1b[0m") && coloured.contains("\x1b[33m9 lost\x1b[0m"));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').expect("every sequence ends").1;
    }
    plain.push_str(rest);
    assert_eq!(plain, after_a_second(screen(80, 24), PLAIN));
}

#[test]
fn a_full_table_and_fresh_losses_are_red() {
    let before = samples::status();
    let mut now = samples::second_later();
    now.sessions.current = now.sessions.limit;
    if let Some(queue) = now.queues.get_mut(0) {
        queue.user_dropped += 5;
    }
    let shown = render(Some(&before), &now, SECOND, screen(80, 24), Style { colour: true, blocks: true });
    assert!(shown.contains("\x1b[1;31m██████"), "{shown}");
    assert!(shown.contains("\x1b[1;31m5 lost\x1b[0m"), "{shown}");
}

#[test]
fn a_table_fits_the_screen_and_stays_when_the_daemon_is_lost() {
    let text = "DEVICE  SERVER\n192.168.1.9  a\n192.168.1.10  b\n192.168.1.11  c\n";
    let whole = table("VPN sessions", text, None, screen(30, 24), PLAIN);
    assert_eq!(
        whole,
        " ● VPN sessions   q quits\n\n DEVICE  SERVER\n 192.168.1.9  a\n 192.168.1.10  b\n 192.168.1.11  c\n"
    );
    let small = table("VPN sessions", text, None, screen(12, 5), PLAIN);
    assert_eq!(small, " ● VPN sess…\n\n DEVICE  SE…\n 192.168.1.…\n … and 2 mo…\n");
    let lost = table("VPN sessions", text, Some("natd is not running"), screen(30, 24), PLAIN);
    assert_eq!(lost.lines().nth(1), Some(" natd is not running"));
    assert!(lost.ends_with(" 192.168.1.11  c\n"));
    for rows in 0..4 {
        assert!(
            table("VPN sessions", text, Some("x"), screen(3, rows), PLAIN).lines().count() <= rows.into()
        );
    }
}
