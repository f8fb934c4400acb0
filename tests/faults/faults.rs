//! What goes wrong on lines, at servers and on devices.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use testkit::address::at;
use testkit::capture::Keep;
use testkit::packet::{self, Segment};
use testkit::{Node, pause, vpn};

use crate::case::Run;
use crate::net::{C1, SERVER};
use crate::programs::{self, Running};

/// A provider's router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    One,
    Two,
}

/// Which packets a rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the household.
    Out,
    /// To the household.
    In,
    Either,
}

impl Run {
    /// Either of the two providers' routers.
    pub(crate) fn some_hop(&mut self) -> Hop {
        self.seed.pick(&[Hop::One, Hop::Two])
    }

    fn hop(&self, hop: Hop) -> (&Node, &'static str) {
        match hop {
            Hop::One => (&self.net.isp1, "home"),
            Hop::Two => (&self.net.isp2, "down0"),
        }
    }

    /// What `hop` does with packets for which the nft expression holds.
    pub(crate) fn rule(&self, hop: Hop, way: Way, expression: &str, verdict: &str) {
        let (node, home) = self.hop(hop);
        let side = match way {
            Way::Out => format!("iifname \"{home}\""),
            Way::In => format!("oifname \"{home}\""),
            Way::Either => String::new(),
        };
        // Before the priority at which fragments would be put together.
        node.nft(&format!(
            "table ip fault {{\n chain passing {{\n  type filter hook forward priority -500;\n  {side} {expression} {verdict}\n }}\n}}\n"
        ));
    }

    /// Some hop drops a protocol's packets of this port, in the one or the other direction or both.
    pub(crate) fn drop_port(&mut self, protocol: &str, port: u16) {
        let hop = self.some_hop();
        match self.seed.pick(&[Way::Out, Way::Out, Way::In, Way::Either]) {
            Way::Out => self.rule(hop, Way::Out, &format!("{protocol} dport {port}"), "drop"),
            Way::In => self.rule(hop, Way::In, &format!("{protocol} sport {port}"), "drop"),
            Way::Either => {
                self.rule(hop, Way::Either, &format!("meta l4proto {protocol} th dport {port}"), "drop")
            }
        }
    }

    /// Some hop drops an IP protocol.
    pub(crate) fn drop_protocol(&mut self, way: Way, number: u8) {
        let hop = self.some_hop();
        self.rule(hop, way, &format!("ip protocol {number}"), "drop");
    }

    /// Some hop drops fragments without saying so: those that show no ports, or on their way out all of them.
    pub(crate) fn drop_fragments(&mut self, way: Way) {
        let hop = self.some_hop();
        // Of an answer whose first fragment is lost as well, nobody at home could know.
        let all = way == Way::Out && self.seed.coin();
        let mask = if all { "0x3fff" } else { "0x1fff" };
        self.rule(hop, way, &format!("ip frag-off & {mask} != 0"), "drop");
    }

    /// The connection behind the router has no power, or its cable is out.
    pub(crate) fn cut_line(&self) {
        self.net.isp1.ip("link set home down\n");
    }

    /// The provider gives the router another address.
    pub(crate) fn change_wan_address(&self) {
        self.net.router.ip(
            "addr del 198.51.100.1/24 dev wan0\naddr add 198.51.100.77/24 dev wan0\nroute replace default via 198.51.100.254\n",
        );
    }

    /// The server's machine is gone.
    pub(crate) fn switch_server_off(&self) {
        self.net.server.ip("link set eth0 down\n");
    }

    /// The cable behind the router has a loose contact.
    pub(crate) fn shake_line(&mut self) {
        for _ in 0..self.seed.between(3, 5) {
            self.net.isp1.ip("link set home down\n");
            self.seed.wait(1200, 3000);
            self.net.isp1.ip("link set home up\n");
            self.seed.wait(1500, 4000);
        }
    }

    /// The server's machine starts again, and its program with it, which knows nothing of what was.
    pub(crate) fn reboot_server(&mut self) {
        self.server_is_silent("meta l4proto udp");
        self.server = Running::default();
        self.seed.wait(3000, 7000);
        self.server = programs::server(self.vpn, &self.net, &self.setup);
        self.net.server.run(&["nft", "flush", "ruleset"]);
    }

    /// Nothing reaches the server any more, nor comes from it, and nobody says so.
    pub(crate) fn swallow_server(&mut self) {
        let hop = self.some_hop();
        self.rule(hop, Way::Either, &format!("ip daddr {SERVER} drop\n  ip saddr {SERVER}"), "drop");
    }

    /// The first provider has no way to the server's network.
    pub(crate) fn lose_route(&self) {
        self.net.isp1.ip("route del 192.0.2.0/23\nroute add 192.0.3.0/24 via 203.0.113.2\n");
    }

    /// The device's own firewall drops what it sends for which the expression holds.
    pub(crate) fn device_drops_sent(&self, expression: &str) {
        self.net.c1.nft(&format!(
            "table ip own {{\n chain out {{\n  type filter hook output priority 0;\n  {expression} drop\n }}\n}}\n"
        ));
    }

    /// The device's own firewall drops what comes to it for which the expression holds.
    pub(crate) fn device_drops_received(&self, expression: &str) {
        self.net.c1.nft(&format!(
            "table ip own {{\n chain in {{\n  type filter hook prerouting priority -500;\n  {expression} drop\n }}\n}}\n"
        ));
    }

    /// The server speaks first, to whoever has its first inner address.
    pub(crate) fn server_speaks_first(&mut self) {
        let line =
            format!("while :; do ping -n -c1 -W1 -I {} 10.9.0.1; sleep 1; done >/dev/null 2>&1", vpn::INNER);
        self.more.push(self.net.server.spawn(&["sh", "-c", &line]));
    }

    /// Whoever sends resets at hop 1 takes care that they look as if they came from as far as the server.
    pub(crate) fn resets_come_from_afar(&self) {
        self.net.server.sysctl("ipv4/ip_default_ttl", "64");
        self.net.isp1.sysctl("ipv4/ip_default_ttl", "62");
    }

    /// A rule of the router's own firewall, as an administrator added it.
    pub(crate) fn router_drops(&self, expression: &str) {
        self.net.router.nft(&format!(
            "table ip admin {{\n chain forward {{\n  type filter hook forward priority 10;\n  {expression} drop\n }}\n}}\n"
        ));
    }

    /// Somebody on the way ends connections to this port once data flows on them, by resets of his own to both ends.
    pub(crate) fn reset_by_hop(&mut self, port: u16) {
        let (node, home) = self.hop(Hop::One);
        let from_household = node.capture(home, Keep::All);
        let socket = node.raw();
        self.repeat(20, move |done: &mut usize| {
            let data = from_household.find(|wire| wire.dst == SERVER && wire.dst_port == port);
            for seen in data.iter().skip(*done).filter(|seen| !seen.outgoing && seen.bytes.len() > 100) {
                let sequence = seen.bytes.get(24..28).and_then(|bytes| bytes.try_into().ok());
                let sequence = u32::from_be_bytes(sequence.unwrap_or_default());
                let segment = Segment::Rst;
                socket.send(&packet::tcp(seen.wire.from(), seen.wire.to(), sequence, segment, &[]));
            }
            *done = data.len();
        });
        let (node, home) = self.hop(Hop::One);
        node.nft(&format!(
            "table ip fault {{\n chain passing {{\n  type filter hook forward priority 0;\n  \
             iifname \"{home}\" ip daddr {SERVER} tcp dport {port} meta length > 100 reject with tcp reset\n }}\n}}\n"
        ));
    }

    /// A hop says that it does not let these through.
    pub(crate) fn prohibit(&mut self, expression: &str) {
        let hop = self.some_hop();
        let (node, home) = self.hop(hop);
        node.nft(&format!(
            "table ip fault {{\n chain passing {{\n  type filter hook forward priority 0;\n  iifname \"{home}\" {expression} reject with icmp type admin-prohibited\n }}\n}}\n"
        ));
    }

    /// A service on this TCP port of the server that speaks something else, and then closes.
    pub(crate) fn serve_something_else(&mut self, port: u16, answer: Vec<u8>) {
        let listener = self.net.server.listen(at(SERVER, port));
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        self.repeat(20, move |_: &mut ()| {
            let Ok((mut stream, _)) = listener.accept() else { return };
            // A client that goes away early is its own affair.
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(3)));
            let mut buffer = [0; 512];
            let _ = stream.read(&mut buffer).and_then(|_| stream.write_all(&answer));
            let _ = stream.shutdown(Shutdown::Write);
            while stream.read(&mut buffer).is_ok_and(|len| len > 0) {}
        });
    }

    /// A PPTP server whose lines are all in use.
    pub(crate) fn serve_busy_pptp(&mut self) {
        let listener = self.net.server.listen(at(SERVER, 1723));
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        self.repeat(20, move |_: &mut ()| {
            let Ok((mut stream, _)) = listener.accept() else { return };
            // A client that goes away early is its own affair.
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let (mut request, mut call) = ([0; 156], [0; 168]);
            let _ = stream.read_exact(&mut request).and_then(|()| stream.write_all(&started(1)));
            if stream.read_exact(&mut call).is_ok() {
                let [.., high, low] = *call.first_chunk::<14>().expect("it is longer");
                let _ = stream.write_all(&busy([high, low]));
            }
            while stream.read(&mut request).is_ok_and(|len| len > 0) {}
        });
    }

    /// The server drops unknown ports silently instead of refusing them.
    pub(crate) fn server_is_silent(&self, expression: &str) {
        self.net.server.nft(&format!(
            "table ip quiet {{\n chain in {{\n  type filter hook input priority 0;\n  {expression} drop\n }}\n}}\n"
        ));
    }

    /// Does this every so many milliseconds until the run ends.
    fn repeat<T: Default + Send + 'static>(
        &mut self,
        milliseconds: u64,
        mut work: impl FnMut(&mut T) + Send + 'static,
    ) {
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let wait = Duration::from_millis(milliseconds);
            let mut state = T::default();
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                work(&mut state);
            }
        });
        self.kept.push(Box::new(stop));
    }

    /// The device sends AH, which no NAT can translate.
    pub(crate) fn send_ah(&mut self) {
        let spi = u32::try_from(self.seed.between(0x1000_0000, 0xf000_0000)).unwrap_or(0x1234_5678);
        self.server_is_silent("ip protocol 51");
        let socket = self.net.c1.raw();
        self.repeat(700, move |sent: &mut u32| {
            *sent += 1;
            socket.send(&vpn::raw::ah(C1, SERVER, spi, *sent));
        });
    }

    /// Many connections of the device that stay open, so that nothing is left for others.
    pub(crate) fn open_many(&mut self, count: u16) {
        let mut sockets = Vec::new();
        for port in 0..count {
            let socket = self.net.c1.udp(at(C1, 20_000 + port));
            // Whether it got through is seen later.
            let _ = socket.send_to(b"?", at(crate::net::WEB, 3478));
            sockets.push(socket);
        }
        self.kept.push(Box::new(sockets));
    }

    /// The client's programs are frozen, as a phone's are that sleeps.
    pub(crate) fn sleep_and_wake(&mut self, seconds: u64) {
        let pids = self.device_pids();
        for (signal, wait) in [(STOP, seconds), (CONTINUE, 1)] {
            for pid in &pids {
                // It may have ended by itself.
                let _ = testkit::sys::kill(*pid, signal);
            }
            pause(Duration::from_secs(wait));
        }
    }

    fn device_pids(&self) -> Vec<i32> {
        let name = self.net.c1.namespace();
        let listed = self.net.c1.run(&["ip", "netns", "pids", name]).stdout;
        listed.split_whitespace().flat_map(str::parse).collect()
    }

    /// The user ends the VPN properly and dials again.
    pub(crate) fn hang_up_and_dial(&mut self) {
        for charon in &self.client.charons {
            charon.swanctl(&["--terminate", "--ike", "cl", "--timeout", "5"]);
        }
        self.seed.wait(1500, 4000);
        // The old one goes first: both would use the same ports.
        self.client = Running::default();
        self.dial();
    }

    /// The device changes the keys, of the tunnel or of IKE too, as it does every few hours.
    pub(crate) fn change_keys(&mut self) {
        let all = self.seed.coin();
        for charon in &self.client.charons {
            let done = charon.swanctl(&["--rekey", "--child", "net"]);
            assert!(done.success(), "{done}");
            if all {
                pause(Duration::from_secs(2));
                let done = charon.swanctl(&["--rekey", "--ike", "cl"]);
                assert!(done.success(), "{done}");
            }
        }
    }

    /// Someone works over the tunnel: much data both ways.
    pub(crate) fn move_data(&mut self) {
        let inner = vpn::INNER;
        for (listen, dial) in [
            (
                format!("exec socat -u TCP-LISTEN:7001,bind={inner},fork,reuseaddr OPEN:/dev/null"),
                format!("head -c 400000 /dev/zero | socat -u - TCP:{inner}:7001,connect-timeout=10"),
            ),
            (
                format!(
                    "exec socat -U TCP-LISTEN:7002,bind={inner},fork,reuseaddr EXEC:'head -c 400000 /dev/zero'"
                ),
                format!("socat -u TCP:{inner}:7002,connect-timeout=10 OPEN:/dev/null"),
            ),
        ] {
            self.more.push(self.net.server.spawn(&["sh", "-c", &listen]));
            let dial = format!("sleep 0.5; while :; do timeout 30 {dial}; sleep 2; done");
            self.more.push(self.net.c1.spawn(&["sh", "-c", &dial]));
        }
    }

    /// The server accepts connections to this port, and that is all.
    pub(crate) fn accept_and_say_nothing(&mut self, port: u16) {
        self.kept.push(Box::new(self.net.server.listen(at(SERVER, port))));
    }

    /// The first packet for which the expression holds is lost.
    pub(crate) fn drop_first(&mut self, way: Way, expression: &str) {
        let hop = self.some_hop();
        self.rule(hop, way, &format!("{expression} limit rate 1/day burst 1 packets"), "drop");
    }

    /// As long as the server's program does not run, its machine does not even refuse.
    pub(crate) fn boot_server_late(&self) {
        self.server_is_silent("meta l4proto { udp, tcp }");
    }
}

/// Start-Control-Connection-Reply (RFC 2637 section 2.2); 1: all is well, 4: "requester is not authorized".
pub(crate) fn started(result: u8) -> Vec<u8> {
    let head = [
        0, 156, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 2, 0, 0, 1, 0, result, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1,
    ];
    let mut bytes = head.to_vec();
    bytes.resize(156, 0);
    bytes
}

/// Outgoing-Call-Reply (RFC 2637 section 2.8) to the caller of this Call ID: "busy".
fn busy(caller: [u8; 2]) -> Vec<u8> {
    let [high, low] = caller;
    let mut bytes = vec![0, 32, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 8, 0, 0, 0, 1, high, low, 4];
    bytes.resize(32, 0);
    bytes
}

/// SIGSTOP.
const STOP: i32 = 19;
/// SIGCONT.
const CONTINUE: i32 = 18;
