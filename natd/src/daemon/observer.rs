//! Watching the household's VPNs: copies of packets in, findings and the session log out.
//!
//! A thread of its own reads the taps and tells [`Household`]. Its lock is never held together with the engine's, so
//! that no packet on its way waits for the diagnosis; when that is slow, the kernel drops copies. Of what anybody
//! could make the thread do there is a limit: [`MOST_A_SECOND`] packets.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use diagnosis::router::{Refusal, Timeouts};
use diagnosis::{Household, Packet, Point, Settings, Vantage};
use nat_core::decision::DropReason;
use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::refused::Refused;

use super::session_log::SessionLog;
use super::world::World;
use super::{RunError, Shared};
use crate::config::Config;
use crate::io::clock;
use crate::io::poll::{Wake, wait};
use crate::io::tap::Tap;
use crate::order;
use crate::report::diagnosis::DiagnosisReport;

/// How often the router's own state is looked at, and time passes without packets.
const TICK: Duration = Duration::from_secs(1);
/// IPv6 addresses come and go without notice: they are looked up every so many ticks.
const LOOK_EVERY: u64 = 10;
/// Copies that are looked at in a second; the kernel keeps a few more and drops the rest.
const MOST_A_SECOND: usize = 20_000;
/// Copies read from a tap before the next one's turn.
const BATCH: usize = 64;
/// Longer than any link's packets; IKE in one piece is shorter.
const LONGEST: usize = 16 * 1024;
/// Devices' VPNs that are remembered, and how long after their last packet.
const PAIRS: usize = 512;
const MEMORY: Duration = Duration::from_secs(3600);
/// Comings and goings of the WAN that are remembered.
const LINK_CHANGES: usize = 16;
/// 2026-11-01 UTC, in seconds since 1970. natd is newer: an earlier date is a clock that was not set, as routers
/// without a battery have after they were switched on.
const WRITTEN: u64 = 1_793_491_200;
/// Reasons for which there was no room or no port.
const EXHAUSTED: [DropReason; 4] =
    [DropReason::TableFull, DropReason::DeviceQuota, DropReason::NoPort, DropReason::VpnLimit];

/// What was watched so far.
#[derive(Debug)]
pub(super) struct Observer {
    household: Mutex<Household>,
}

impl Observer {
    /// One that has seen nothing yet.
    pub(super) fn new(config: &Config, world: &World, now: Timestamp) -> Self {
        // Until taps are open nothing can be seen; whoever asks meanwhile is told so.
        let vantage = Vantage { lan: false, wan: false, router: true, dns: false };
        let mut household = Household::new(Settings {
            lan: Vec::new(),
            pairs: PAIRS,
            memory: MEMORY,
            vantage,
            servers: Vec::new(),
            events: config.sessions.to != crate::config::LogTo::Off,
        });
        configure(&mut household, config);
        follow(&mut household, world, now);
        Self { household: Mutex::new(household) }
    }

    fn household(&self) -> MutexGuard<'_, Household> {
        self.household.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the configuration's switches.
    pub(super) fn configure(&self, config: &Config) {
        configure(&mut self.household(), config);
    }

    /// Takes over what became of the interfaces.
    pub(super) fn follow(&self, world: &World) {
        follow(&mut self.household(), world, clock::now());
    }

    /// What there is to say now.
    pub(super) fn report(&self, device: Option<IpAddr>, server: Option<IpAddr>) -> DiagnosisReport {
        let mut household = self.household();
        let now = clock::now();
        household.pass_time(now);
        DiagnosisReport::of(&household, now, clock::unix_offset(), device, server)
    }
}

fn configure(household: &mut Household, config: &Config) {
    let vpn = &config.passthrough;
    let router = &mut household.router;
    router.ipsec = Some(vpn.ipsec.on);
    router.pptp = Some(vpn.pptp.on);
    router.l2tp = Some(vpn.l2tp.on);
    router.multi = Some(vpn.multi);
    router.timeouts = Some(Timeouts {
        udp: config.policy.timeouts.udp.as_secs(),
        esp: vpn.esp_idle.as_secs(),
        gre: vpn.gre_idle.as_secs(),
        tcp: config.policy.timeouts.tcp_established.as_secs(),
    });
}

fn follow(household: &mut Household, world: &World, now: Timestamp) {
    let ipv6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let ipv6: Vec<Address6<'_>> = ipv6.lines().filter_map(Address6::read).collect();
    let on_lan = |address: &&Address6<'_>| world.lan.iter().any(|side| side.name == address.interface);
    let v4 = world.lan_prefixes().into_iter().map(|(network, length)| (IpAddr::V4(network), length));
    let v6 = ipv6.iter().filter(on_lan).map(|address| (IpAddr::V6(address.address), address.length));
    household.settings_mut().lan = v4.chain(v6).collect();

    let own = world.lan.iter().flat_map(|side| &side.addresses).map(|address| IpAddr::V4(address.addr));
    let own6 = ipv6.iter().filter(on_lan).map(|address| IpAddr::V6(address.address));
    let router = &mut household.router;
    router.own = own.chain(own6).collect();
    let up = world.wan_address().is_some() && world.wan.running;
    if router.wan_up.is_some_and(|before| before != up) {
        if router.link_changes.len() >= LINK_CHANGES {
            router.link_changes.remove(0);
        }
        router.link_changes.push(now);
    }
    router.wan_up = Some(up);
    router.wan_mtu = Some(world.wan.mtu).filter(|mtu| *mtu > 0);
    // While there is none, the last one stays: the next is compared with it, and packets may still show it.
    let Some(new) = world.wan_address().map(IpAddr::V4) else { return };
    let before = router.wan.first().copied().filter(IpAddr::is_ipv4);
    if let Some(old) = before.filter(|old| *old != new) {
        router.wan_changed = Some((now, old));
    }
    let wan6 = ipv6.iter().filter(|address| address.interface == world.wan.name);
    router.wan = [new].into_iter().chain(wan6.map(|address| IpAddr::V6(address.address))).collect();
}

/// A line of /proc/net/if_inet6: address, index, prefix length, scope, flags, interface.
struct Address6<'a> {
    address: Ipv6Addr,
    length: u8,
    interface: &'a str,
}

impl<'a> Address6<'a> {
    /// `None` too for one that is valid on its link only.
    fn read(line: &'a str) -> Option<Self> {
        const LINK: &str = "20";
        let mut words = line.split_ascii_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let length = u8::from_str_radix(words.nth(1)?, 16).ok()?;
        let scope = words.next()?;
        let interface = words.nth(1)?;
        (scope != LINK).then_some(Self { address: Ipv6Addr::from(address), length, interface })
    }
}

/// Starts to watch; ends when `stop` is raised.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    observer: &Arc<Observer>,
    log: Option<SessionLog>,
    stop: &Wake,
) -> Result<JoinHandle<()>, RunError> {
    let failed = |error| RunError::System("start the thread that watches", error);
    let stop = stop.share().map_err(failed)?;
    let mut watch = Watch {
        shared: Arc::clone(shared),
        observer: Arc::clone(observer),
        log,
        taps: Vec::new(),
        dropped: 0,
        number: 0,
        exhausted: 0,
        refused: Vec::new(),
        ticks: 0,
    };
    // Before the first packet, so that none is missed.
    watch.bind();
    thread::Builder::new()
        .name("observer".into())
        .spawn(move || {
            if let Err(error) = watch.run(&stop) {
                log::error!("VPNs are not watched any more: {error}");
                watch.observer.household().settings_mut().vantage =
                    Vantage { lan: false, wan: false, router: true, dns: false };
            }
        })
        .map_err(failed)
}

/// One interface.
struct Watched {
    name: String,
    point: Point,
    tap: Option<Tap>,
    /// It could not be opened, and that was said.
    failing: bool,
}

struct Watch {
    shared: Arc<Shared>,
    observer: Arc<Observer>,
    log: Option<SessionLog>,
    taps: Vec<Watched>,
    /// Copies that there was no room for.
    dropped: u64,
    /// Packets so far.
    number: u64,
    /// How often there was no room or no port, when last looked at.
    exhausted: u64,
    refused: Vec<Refused>,
    ticks: u64,
}

/// A copy, of which the bytes are in a common store.
struct Copy {
    at: Timestamp,
    point: Point,
    direction: Direction,
    from: usize,
    to: usize,
}

impl Watch {
    fn run(&mut self, stop: &Wake) -> io::Result<()> {
        let (mut store, mut buffer) = (Vec::new(), vec![0; LONGEST]);
        let (mut next, mut left) = (clock::now() + TICK, MOST_A_SECOND);
        loop {
            let now = clock::now();
            if now >= next {
                next = now + TICK;
                left = MOST_A_SECOND;
                self.tick(now);
            }
            let mut fds = vec![stop.fd()];
            if left > 0 {
                fds.extend(self.taps.iter().filter_map(|watched| Some(watched.tap.as_ref()?.fd())));
            }
            let ready = wait(&fds, Some(next.since(now)))?;
            if ready.first() == Some(&true) {
                self.read(&mut store, &mut buffer);
                self.finish(clock::now());
                return Ok(());
            }
            if ready.contains(&true) {
                let count = self.read(&mut store, &mut buffer);
                left = left.saturating_sub(count);
            }
        }
    }

    /// Takes in what the taps have, in the order of time; answers how much that was.
    fn read(&mut self, store: &mut Vec<u8>, buffer: &mut [u8]) -> usize {
        store.clear();
        let mut copies = Vec::new();
        for watched in &self.taps {
            let Some(tap) = &watched.tap else { continue };
            for _ in 0..BATCH {
                // What is wrong with it shows at the next tick.
                let Ok(Some(copied)) = tap.next(buffer) else { break };
                let direction = match (watched.point, copied.outgoing) {
                    (Point::Wan, true) | (Point::Lan | Point::Unknown, false) => Direction::Outbound,
                    (Point::Wan, false) | (Point::Lan | Point::Unknown, true) => Direction::Inbound,
                };
                let from = store.len();
                store.extend(buffer.iter().take(copied.len));
                copies.push(Copy { at: copied.at, point: watched.point, direction, from, to: store.len() });
            }
        }
        let copies = order::by(copies, |copy| copy.at.as_micros());
        let mut household = self.observer.household();
        for copy in &copies {
            self.number += 1;
            let Some(packet) = store.get(copy.from..copy.to).and_then(Packet::parse) else { continue };
            log::trace!(
                "observed on the {:?}: {} → {}, protocol {}, {} bytes",
                copy.point,
                packet.src,
                packet.dst,
                packet.protocol,
                packet.ip_len
            );
            household.packet(copy.at, self.number, copy.point, Some(copy.direction), &packet);
        }
        copies.len()
    }

    fn tick(&mut self, now: Timestamp) {
        self.bind();
        let (refused, exhausted) = {
            let engine = self.shared.engine();
            let drops = engine.nat.counters().drops();
            let exhausted =
                drops.filter(|(reason, _)| EXHAUSTED.contains(reason)).map(|(_, count)| count).sum();
            let news = engine.vpn.refusals() != self.refused;
            (news.then(|| engine.vpn.refusals().to_vec()), exhausted)
        };
        self.ticks += 1;
        let world = (self.ticks % LOOK_EVERY == 0).then(|| self.shared.world().clone());
        let mut household = self.observer.household();
        if let Some(world) = world {
            follow(&mut household, &world, now);
        }
        if let Some(refused) = refused {
            household.router.refusals = refused.iter().map(refusal).collect();
            self.refused = refused;
        }
        if exhausted > self.exhausted {
            self.exhausted = exhausted;
            household.router.exhausted = Some((exhausted, now));
        }
        household.router.clock_skew = skew(clock::wall());
        household.pass_time(now);
        write_events(&mut self.log, &mut household);
        drop(household);
        let dropped: u64 =
            self.taps.iter().filter_map(|watched| watched.tap.as_ref()).map(Tap::dropped).sum();
        if dropped > 0 {
            if self.dropped == 0 {
                log::warn!("more VPN packets than can be watched; a diagnosis may lack some");
            }
            self.dropped += dropped;
            log::debug!("{} copies of packets were dropped so far", self.dropped);
        }
    }

    /// Writes down what is still to be said of sessions.
    fn finish(&mut self, now: Timestamp) {
        let mut household = self.observer.household();
        household.finish(now);
        write_events(&mut self.log, &mut household);
        if let Some(log) = &mut self.log {
            log.end(now, household.sessions(now), clock::unix_offset());
        }
    }

    /// Sees to it that each interface has its tap: one may have come, gone, or been made anew.
    fn bind(&mut self) {
        let wanted: Vec<(String, u32, Point)> = {
            let world = self.shared.world();
            let lan = world.lan.iter().map(|side| (side.name.clone(), side.index(), Point::Lan));
            lan.chain([(world.wan.name.clone(), world.wan.index(), Point::Wan)]).collect()
        };
        self.taps.retain(|watched| {
            wanted.iter().any(|(name, _, point)| *name == watched.name && *point == watched.point)
        });
        for (name, index, point) in wanted {
            let known = self.taps.iter().position(|watched| watched.name == name);
            let at = known.unwrap_or_else(|| {
                self.taps.push(Watched { name, point, tap: None, failing: false });
                self.taps.len() - 1
            });
            if let Some(watched) = self.taps.get_mut(at) {
                watched.bind(index);
            }
        }
        let sees = |point| {
            let mut of = self.taps.iter().filter(|watched| watched.point == point);
            of.all(|watched| watched.tap.is_some() || !watched.failing)
        };
        let vantage =
            Vantage { lan: sees(Point::Lan), wan: sees(Point::Wan), router: true, dns: sees(Point::Lan) };
        self.observer.household().settings_mut().vantage = vantage;
    }
}

fn write_events(log: &mut Option<SessionLog>, household: &mut Household) {
    let unix = clock::unix_offset();
    while let Some(event) = household.poll_event() {
        if let Some(log) = log {
            log.write(&event, unix);
        }
    }
}

impl Watched {
    /// `index` 0: the interface is not there.
    fn bind(&mut self, index: u32) {
        if self.tap.as_ref().is_some_and(|tap| tap.index() == index && tap.is_bound()) {
            return;
        }
        self.tap = None;
        if index == 0 {
            return;
        }
        match Tap::open(index) {
            Ok(tap) => {
                self.tap = Some(tap);
                self.failing = false;
            }
            Err(error) if !self.failing => {
                self.failing = true;
                log::warn!("{} cannot be watched: {error}; `natd diagnose` sees less", self.name);
            }
            Err(_) => {}
        }
    }
}

/// By how many seconds a clock that shows `wall` is wrong at least; `None`: it may be right.
fn skew(wall: Duration) -> Option<i64> {
    let behind = WRITTEN.checked_sub(wall.as_secs()).filter(|&behind| behind > 0)?;
    i64::try_from(behind).ok().map(|behind| -behind)
}

fn refusal(refused: &Refused) -> Refusal {
    let Refused { device, server, protocol, port, reason, count, first, last } = *refused;
    Refusal {
        device: device.map(IpAddr::V4),
        server: Some(IpAddr::V4(server)),
        protocol,
        port,
        reason: reason.name(),
        count,
        first,
        last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_from_before_natd_is_wrong() {
        assert_eq!(skew(Duration::from_secs(WRITTEN)), None);
        assert_eq!(skew(Duration::from_secs(WRITTEN - 10)), Some(-10));
        assert_eq!(skew(Duration::ZERO), Some(-1_793_491_200));
    }

    #[test]
    fn ipv6_addresses_are_read_but_for_the_link_s_own() {
        let text = "20010db8000100000000000000000001 02 40 00 80     br-lan\n\
                    fe8000000000000002163efffe123456 02 40 20 80     br-lan\n\
                    fd000000000000000000000000000001 03 30 00 82 br-iot.7\n\
                    00000000000000000000000000000001 01 80 10 80       lo\n\
                    nonsense\n";
        let read: Vec<(String, u8, &str)> = text
            .lines()
            .filter_map(Address6::read)
            .map(|found| (found.address.to_string(), found.length, found.interface))
            .collect();
        let expected = [("2001:db8:1::1", 64, "br-lan"), ("fd00::1", 48, "br-iot.7"), ("::1", 128, "lo")];
        assert_eq!(read, expected.map(|(address, length, name)| (address.to_owned(), length, name)));
    }
}
