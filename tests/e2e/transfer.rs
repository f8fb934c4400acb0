//! Ordinary traffic, made by real programs.

use std::time::Duration;

use testkit::address::{D1, D2, D3, S1, S2, WAN, at};
use testkit::{Lab, socket, tcp, traffic, wait_for};

/// A file of 200 MB at `node`, and its SHA-256.
fn make_file(lab: &Lab, node: &testkit::Node) -> (String, String) {
    let path = lab.dir().join("200MB").to_string_lossy().into_owned();
    let hash = node.sh(&format!("head -c 200000000 /dev/urandom | tee {path} | sha256sum"));
    (path, hash)
}

#[test]
fn a_download_of_200_mb_arrives_with_an_equal_hash() {
    let Some(lab) = Lab::household().start() else { return };
    let leaks = lab.watch_for_leaks();
    let (path, hash) = make_file(&lab, &lab.s1);
    let server =
        lab.s1.spawn(&["socat", "-d", "-d", "-u", &format!("OPEN:{path}"), "TCP-LISTEN:80,reuseaddr"]);
    server.wait_for_log("listening", Duration::from_secs(5));
    let got = lab.d1.sh(&format!("socat -u TCP:{S1}:80 - | sha256sum"));
    assert_eq!(got, hash);
    leaks.expect_no_leak();
}

#[test]
fn an_upload_of_200_mb_arrives_with_an_equal_hash() {
    let Some(lab) = Lab::household().start() else { return };
    let leaks = lab.watch_for_leaks();
    let (path, hash) = make_file(&lab, &lab.d1);
    let copy = format!("{path}.copy");
    let mut server =
        lab.s1.spawn(&["socat", "-d", "-d", "-u", "TCP-LISTEN:80,reuseaddr", &format!("CREATE:{copy}")]);
    server.wait_for_log("listening", Duration::from_secs(5));
    lab.d1.sh(&format!("socat -u OPEN:{path} TCP:{S1}:80"));
    assert!(server.wait(Duration::from_secs(20)).success(), "{}", server.log());
    assert_eq!(lab.s1.sh(&format!("sha256sum < {copy}")), hash);
    leaks.expect_no_leak();
}

#[test]
fn eight_parallel_iperf3_streams_all_carry_data_both_ways() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.spawn(&["iperf3", "--server", "--forceflush"]);
    server.wait_for_log("listening", Duration::from_secs(5));
    let server_addr = S1.to_string();
    for direction in [&["--reverse"][..], &[]] {
        let mut words = vec!["iperf3", "--client", &server_addr, "--parallel", "8", "--time", "3", "--json"];
        words.extend(direction);
        let report = lab.d1.run(&words).expect_success();
        let report: serde_json::Value = serde_json::from_str(&report).expect("iperf3 prints JSON");
        let streams = report["end"]["streams"].as_array().expect("iperf3 lists its streams");
        let bytes: Vec<u64> =
            streams.iter().map(|stream| stream["receiver"]["bytes"].as_u64().unwrap_or(0)).collect();
        assert_eq!(bytes.len(), 8, "{bytes:?}");
        assert!(bytes.iter().all(|bytes| *bytes > 1_000_000), "{direction:?}: {bytes:?}");
    }
}

#[test]
fn three_devices_talk_to_two_servers_at_once() {
    let Some(lab) = Lab::household().start() else { return };
    let leaks = lab.watch_for_leaks();
    let _answers =
        [traffic::tcp_answer(&lab.s1, at(S1, 80), b"s1"), traffic::tcp_answer(&lab.s2, at(S2, 80), b"s2")];
    for (device, addr) in [(&lab.d1, D1), (&lab.d2, D2), (&lab.d3, D3)] {
        // The same source port everywhere: only one of the three can keep it.
        for (server, answer) in [(S1, b"s1"), (S2, b"s2")] {
            assert_eq!(traffic::ask(device, at(addr, 40_000), at(server, 80)).unwrap(), answer, "{addr}");
        }
    }
    leaks.expect_no_leak();
}

#[test]
fn a_server_sees_the_wan_address_and_the_devices_port() {
    let Some(lab) = Lab::household().start() else { return };
    let mut connection = tcp::pair(&lab.d1, at(D1, 40_001), &lab.s1, at(S1, 80));
    assert_eq!(connection.peer, at(WAN, 40_001), "the port is preserved (RFC 4787 section 4.2.1)");
    connection.expect_alive("after opening");

    let server = lab.s1.udp(at(S1, 53));
    let device = lab.d2.udp(at(D2, 40_002));
    assert_eq!(socket::deliver(&device, at(S1, 53), &server, b"question"), at(WAN, 40_002));
    assert_eq!(socket::deliver(&server, at(WAN, 40_002), &device, b"answer"), at(S1, 53));
}

#[test]
fn every_datagram_of_a_gso_sender_arrives_both_ways() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 4433));
    let device = lab.d1.udp(at(D1, 4433));
    let wan = socket::deliver(&device, at(S1, 4433), &server, b"hello");
    for (sender, receiver, to) in [(&device, &server, at(S1, 4433)), (&server, &device, wan)] {
        socket::set_segment_size(sender, 1200);
        let train: Vec<u8> = (0..30u8).flat_map(|number| [number; 1200]).collect();
        for _ in 0..10 {
            sender.send_to(&train, to).expect("a train of 36,000 bytes is sent");
            for number in 0..30u8 {
                let (payload, _) = socket::receive(receiver)
                    .unwrap_or_else(|error| panic!("segment {number} to {to}: {error}"));
                assert!(
                    payload == [number; 1200],
                    "segment {number} arrived as {} other bytes",
                    payload.len()
                );
            }
        }
    }
}

#[test]
fn datagrams_without_a_checksum_arrive_without_one() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 53));
    let capture = lab.capture_wan();
    let mut packet = testkit::packet::udp(at(D1, 5353), at(S1, 53), b"no checksum");
    for byte in packet.iter_mut().skip(26).take(2) {
        *byte = 0;
    }
    lab.d1.raw().send(&packet);
    let (payload, from) = socket::receive(&server).expect("it arrives");
    assert_eq!((&*payload, from), (&b"no checksum"[..], at(WAN, 5353)));
    let seen = capture.wait_for("datagram", Duration::from_secs(1), |wire| wire.to() == at(S1, 53));
    assert_eq!(seen.bytes.get(26..28), Some(&[0, 0][..]), "RFC 768: 0 means none, and stays");
}

#[test]
fn ip_protocols_without_ports_do_not_leave_untranslated() {
    let Some(lab) =
        Lab::household().beyond_kernel("it lets packets out that conntrack calls invalid").start()
    else {
        return;
    };
    let leaks = lab.watch_for_leaks();
    let ongoing = traffic::udp_echo(&lab.s1, at(S1, 7));
    let _talk = traffic::udp_talk(&lab.d1, at(D1, 7000), at(S1, 7), Duration::from_millis(5));
    // 47 GRE, 50 ESP, 51 AH, 115 L2TPv3, 132 SCTP, 253 for experiments.
    for protocol in [47, 50, 51, 115, 132, 253] {
        let mut packet = testkit::packet::udp(at(D1, 5353), at(S1, 53), b"whatever");
        if let Some(place) = packet.get_mut(9) {
            *place = protocol;
        }
        lab.d1.raw().send(&packet);
    }
    wait_for("talk to go on", Duration::from_secs(5), || ongoing.count() > 20);
    leaks.expect_no_leak();
}

#[test]
fn several_queues_share_the_work() {
    let lab = Lab::household().natd_section("[kernel]\nqueues = 3").beyond_kernel("it has no queues");
    let Some(mut lab) = lab.start() else { return };
    for (node, device) in [(&lab.d1, D1), (&lab.d2, D2), (&lab.d3, D3)] {
        for (server, addr) in [(&lab.s1, S1), (&lab.s2, S2)] {
            let mut connection = tcp::pair(node, at(device, 0), server, at(addr, 80));
            connection.expect_alive("over any queue");
            let (mut sender, mut receiver) = (connection.server, connection.client);
            let sending = std::thread::spawn(move || tcp::send_blocks(&mut sender, 64));
            assert_eq!(tcp::receive_blocks(&mut receiver).expect("4 MB"), 64);
            sending.join().expect("no panic").expect("all is sent");
        }
    }
    let status = lab.natd().command(&["status", "--json"]).expect_success();
    for number in 6100..6103 {
        assert!(status.contains(&format!("{{\"number\":{number},")), "{status}");
    }
}
