//! The daemon: start, the main loop, and an orderly end.
//!
//! One thread a queue asks the engine about packets (`worker`); the main thread, here, waits for signals,
//! for changes of the interfaces, for the wishes of clients, and for time to pass.
//!
//! The order of the start matters. Flows that the kernel knows are taken over before any packet is decided,
//! or the first one would seem to come from nowhere and be refused; the queues are ready before rules send
//! packets into them. At the end the rules go first, the queues are emptied, and only then conntrack forgets
//! the flows, so that none of them can leave untranslated beside a NAT that takes our place.

mod error;
mod handover;
mod memory;
mod observer;
mod session_log;
mod status;
mod worker;
mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nat_core::nat::Nat;
use nat_core::policy::{Filtering, Policy};
use nat_core::time::Timestamp;
use passthrough::Passthrough;

use crate::config::{Config, Rules};
use crate::engine::Engine;
use crate::io::conntrack::Conntrack;
use crate::io::control::{Control, Limits, Request, Server};
use crate::io::netlink::{Links, neighbours};
use crate::io::nfqueue::{Queue, Trains};
use crate::io::rules::{Kernel, Want};
use crate::io::sandbox;
use crate::io::signals::{Signal, Signals};
use crate::io::sysctl::Verification;
use crate::io::transmit::Transmitter;
use crate::io::{clock, files};
use crate::report::State;
use crate::rules::{InterfaceName, Queues, Scope, Surroundings};

pub use self::error::RunError;
use self::observer::Observer;
use self::session_log::SessionLog;
use self::worker::Carrier;
use self::world::World;
use crate::io::poll::{Wake, wait};

/// Time passes at least this often in the main loop: expiry of sessions, release of held packets.
const TICK: Duration = Duration::from_secs(1);
/// How often the router's own listening sockets are looked up.
const LISTENERS_EVERY: Duration = Duration::from_secs(5);
/// How long after the rules went in the kernel's own NAT may still finish what it had begun.
const SWEEP: Duration = Duration::from_secs(5);
/// How often the rules are checked to be there: a firewall restart may have flushed them.
const RULES_EVERY: Duration = Duration::from_secs(20);

/// What the threads share.
pub(crate) struct Shared {
    engine: Mutex<Engine>,
    world: Mutex<World>,
    carrier: Carrier,
    /// Raised when there is something to write down.
    news: Wake,
    /// Index of the WAN interface; packets are told apart by it.
    wan_index: AtomicU32,
    /// `None`: the owner does not want VPNs watched.
    observer: Option<Arc<Observer>>,
    started: Timestamp,
}

impl Shared {
    /// The engine, for as short as possible: every packet waits for it.
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The WAN interface's index; 0 while there is none.
    fn wan_index(&self) -> u32 {
        self.wan_index.load(Ordering::Relaxed)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the configuration file at `path`; logs its remarks.
pub(crate) fn read_config(path: &Path) -> Result<Config, RunError> {
    let text = files::read_config(path)?;
    match Config::parse(&text) {
        Ok((config, remarks)) => {
            for remark in remarks {
                log::warn!("{}: {remark}", path.display());
            }
            Ok(config)
        }
        Err(problems) => {
            Err(RunError::Config(problems.iter().map(|p| format!("{}: {p}", path.display())).collect()))
        }
    }
}

/// Starts logging; [`set_log_level`] says how much of it.
fn start_log() {
    // A second start in one process (tests) keeps the first logger.
    let _ = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Trace)
        .parse_default_env()
        .format_target(false)
        .try_init();
    set_log_level(log::LevelFilter::Info);
}

/// Takes over the configuration's level unless the environment has one.
fn set_log_level(level: log::LevelFilter) {
    if std::env::var_os("RUST_LOG").is_none() {
        log::set_max_level(level);
    }
}

/// Runs natd until it is told to stop. `socket` overrides the configuration's.
///
/// # Errors
/// What kept it from starting; nothing is left behind then.
pub fn run(config: &Path, socket: Option<&Path>) -> Result<(), RunError> {
    start_log();
    let parsed = read_config(config)?;
    set_log_level(parsed.log);
    let mut daemon = Daemon::start(config.to_owned(), parsed, socket)?;
    let ended = daemon.serve();
    let message = daemon.stop();
    ended?;
    log::info!("stopped; {message}");
    Ok(())
}

struct Daemon {
    path: PathBuf,
    config: Config,
    shared: Arc<Shared>,
    kernel: Kernel,
    surroundings: Surroundings,
    links: Links,
    signals: Signals,
    conntrack: Conntrack,
    workers: Vec<JoinHandle<()>>,
    observer: Option<JoinHandle<()>>,
    stop_workers: Wake,
    /// Restored when natd ends.
    _verification: Option<Verification>,
    wishes: Arc<Mutex<Option<bool>>>,
    wished: Arc<Wake>,
    server: Option<Server>,
    next_listeners: Timestamp,
    next_rules: Timestamp,
    /// Where IPsec sessions are written down.
    written: PathBuf,
    /// Until then, flows that a kernel NAT began while the rules went in may come to light.
    sweep_until: Timestamp,
    /// `natd stop --open`: the guard goes too.
    open: bool,
}

impl Daemon {
    fn start(path: PathBuf, config: Config, socket: Option<&Path>) -> Result<Self, RunError> {
        let control = Control::bind(socket.unwrap_or(&config.socket))?;
        let session_log = if config.observe { SessionLog::open(&config.sessions) } else { None };
        sandbox::enter()?;
        let signals = Signals::open().map_err(|error| RunError::System("catch signals", error))?;
        let mut links = Links::open().map_err(|error| RunError::System("open rtnetlink", error))?;
        let world = World::look(&mut links, &config)?;
        let kernel = Kernel::probe(want(config.kernel.rules))?;
        let mut conntrack = Conntrack::open()?;
        let verification = Verification::switch_off();
        let trains = match &verification {
            Ok(_) => Trains::Whole,
            Err(error) => {
                log::warn!(
                    "net.netfilter.nf_conntrack_checksum cannot be set to 0 ({error}); large packets come in \
                     pieces and bulk transfers are slow until you set it"
                );
                Trains::Split
            }
        };
        let queues: Vec<Queue> = (0..config.kernel.queues)
            .map(|n| Queue::open(config.kernel.queue.saturating_add(n), config.kernel.queue_length, trains))
            .collect::<Result<_, _>>()?;
        let started = clock::now();
        let mut nat = Nat::new(policy(&config), clock::random_seed(), started);
        world.tell_nat(&mut nat);
        nat.set_address(world.wan_address());
        nat.set_listeners(world::listeners());
        nat.set_patience(world::patience());
        let surroundings = surroundings(&config, &kernel, &world)?;
        for line in world.remarks(&kernel) {
            log::warn!("{line}");
        }
        let mut engine = Engine::new(nat, Passthrough::new(config.passthrough.clone()));
        let written = socket.unwrap_or(&config.socket).with_extension("ipsec");
        recall(&written, &config, &mut engine, started);
        let adopted = handover::adopt(&mut conntrack, &mut engine, started)?;
        let releasers = queues.iter().map(Queue::releaser).collect::<io::Result<_>>();
        let releasers = releasers.map_err(|error| RunError::System("share a queue", error))?;
        let transmitter =
            Transmitter::open().map_err(|error| RunError::System("open a raw socket", error))?;
        transmitter.set_mtu(world.smallest_mtu());
        let news = Wake::new().map_err(|error| RunError::System("make a wake-up", error))?;
        let observer = config.observe.then(|| Arc::new(Observer::new(&config, &world, started)));
        let shared = Arc::new(Shared {
            observer,
            news,
            engine: Mutex::new(engine),
            wan_index: AtomicU32::new(world.wan_index()),
            world: Mutex::new(world),
            carrier: Carrier::new(transmitter, releasers, Conntrack::open()?),
            started,
        });
        let wake = || Wake::new().map_err(|error| RunError::System("make a wake-up", error));
        let stop_workers = wake()?;
        let workers = worker::spawn(queues, &shared, &stop_workers)?;
        let observer = match &shared.observer {
            Some(observer) => Some(observer::spawn(&shared, observer, session_log, &stop_workers)?),
            None => None,
        };
        let (wishes, wished) = (Arc::new(Mutex::new(None)), Arc::new(wake()?));
        // The rules come last: whatever fails before leaves none of them behind.
        kernel.install(&surroundings)?;
        // What the kernel began to translate until the rules stood is ours as well.
        if let Err(error) = handover::end_kernel_nat(&mut conntrack, &shared) {
            log::warn!("flows of another NAT may go on beside natd: {error}");
        }
        let server = serve(control, &shared, &wishes, &wished, kernel.clone()).inspect_err(|_| {
            if let Err(error) = kernel.remove() {
                log::error!("rules may have stayed behind: {error}");
            }
        })?;
        let mut daemon = Self {
            path,
            config,
            shared,
            kernel,
            surroundings,
            links,
            signals,
            conntrack,
            workers,
            observer,
            stop_workers,
            _verification: verification.ok(),
            wishes,
            wished,
            server: Some(server),
            next_listeners: started + LISTENERS_EVERY,
            next_rules: started + RULES_EVERY,
            written,
            sweep_until: started + SWEEP,
            open: false,
        };
        if adopted > 0 {
            log::info!("took over {adopted} flows that the kernel knew");
        }
        daemon.announce();
        if let Err(error) = sandbox::notify_ready() {
            log::warn!("the service manager was not told that natd is ready: {error}");
        }
        Ok(daemon)
    }

    /// Says what state natd is in now.
    fn announce(&mut self) {
        let world = self.shared.world();
        match world.wan_address() {
            Some(address) => log::info!(
                "translating {} behind {address} on {} (rules by {})",
                self.config.lan.join(", "),
                self.config.wan,
                self.kernel.backend
            ),
            None => log::warn!("{}; nothing is forwarded until then", world.waiting_reason()),
        }
    }

    /// Waits and acts until a stop is asked for.
    fn serve(&mut self) -> Result<(), RunError> {
        loop {
            let news = self.shared.news.fd();
            let ready = wait(&[self.signals.fd(), self.links.fd(), self.wished.fd(), news], Some(TICK))
                .map_err(|error| RunError::System("wait for events", error))?;
            if ready.first() == Some(&true) {
                for signal in self.signals.pending() {
                    match signal {
                        Signal::Stop => return Ok(()),
                        Signal::Reload => self.reload(),
                        Signal::Dump => self.dump(),
                    }
                }
            }
            if ready.get(1) == Some(&true) && self.links.drain() {
                self.follow_interfaces();
            }
            if let Some(open) = self.wishes.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.open = open;
                return Ok(());
            }
            self.pass_time();
            if self.workers.iter().any(JoinHandle::is_finished) {
                let gone = io::Error::other("a queue's thread ended");
                return Err(RunError::System("go on", gone));
            }
        }
    }

    fn pass_time(&mut self) {
        let (now, patience) = (clock::now(), world::patience());
        {
            let mut engine = self.shared.engine();
            engine.nat.set_patience(patience);
            engine.handle_timeout(now);
        }
        self.shared.carrier.carry_out_all(&self.shared);
        self.write_down();
        if now >= self.next_listeners {
            self.next_listeners = now + LISTENERS_EVERY;
            let listeners = world::listeners();
            self.shared.engine().nat.set_listeners(listeners);
        }
        if now < self.sweep_until {
            if let Err(error) = handover::end_kernel_nat(&mut self.conntrack, &self.shared) {
                log::warn!("flows of another NAT may go on beside natd: {error}");
            }
        }
        if now >= self.next_rules {
            self.next_rules = now + RULES_EVERY;
            if !self.kernel.is_intact().unwrap_or(true) {
                log::warn!(
                    "natd's rules were removed by someone else (a firewall restart?); putting them back"
                );
                if let Err(error) = self.kernel.install(&self.surroundings) {
                    log::error!("the rules cannot be put back: {error}");
                }
            }
        }
    }

    /// Writes down what IPsec sessions need to go on after a restart, if that has changed.
    fn write_down(&mut self) {
        self.shared.news.settle();
        let (wan, memory) = {
            let mut engine = self.shared.engine();
            let Some(wan) = engine.nat.address().filter(|_| engine.vpn.take_news()) else { return };
            (wan, engine.vpn.memory())
        };
        let path = &self.written;
        if let Err(error) = files::replace(path, &memory::render(wan, &memory)) {
            log::warn!("{}: {error}; IPsec sessions would not outlive a restart", path.display());
        }
    }

    /// The interfaces changed: takes over addresses and MTUs.
    fn follow_interfaces(&mut self) {
        match World::look_again(&mut self.links, &self.config) {
            Ok(world) => self.settle(world),
            Err(error) => log::error!("cannot read the interfaces: {error}"),
        }
    }

    /// Makes `world` the state of things: for the NAT, the rules and the reports.
    fn settle(&mut self, world: World) {
        let before = self.shared.world().clone();
        if before == world {
            return;
        }
        let moved = before.wan_address() != world.wan_address();
        if moved {
            match (before.wan_address(), world.wan_address()) {
                (_, None) => log::warn!("{}; nothing is forwarded until then", world.waiting_reason()),
                (None, Some(new)) => log::info!("the WAN address is {new}"),
                (Some(old), Some(new)) => {
                    log::warn!("the WAN address changed from {old} to {new}; connections start anew");
                }
            }
        }
        world.tell(&mut self.shared.engine());
        self.shared.carrier.set_mtu(world.smallest_mtu());
        self.shared.wan_index.store(world.wan_index(), Ordering::Relaxed);
        *self.shared.world() = world.clone();
        if let Some(observer) = &self.shared.observer {
            observer.follow(&world);
        }
        match surroundings(&self.config, &self.kernel, &world) {
            Ok(surroundings) if surroundings != self.surroundings => {
                self.surroundings = surroundings;
                if let Err(error) = self.kernel.refresh(&self.surroundings) {
                    log::error!("the rules cannot follow the interfaces: {error}");
                }
            }
            Ok(_) => {}
            Err(error) => log::error!("{error}"),
        }
        self.shared.carrier.carry_out_all(&self.shared);
    }

    /// HUP: takes over a new configuration, or keeps the old one and says why.
    fn reload(&mut self) {
        let new = match read_config(&self.path) {
            Ok(new) => new,
            Err(error) => {
                for line in error.to_string().lines() {
                    log::error!("{line}");
                }
                log::error!("the configuration was not reloaded; the old one stays in force");
                return;
            }
        };
        let world = match World::look(&mut self.links, &new) {
            Ok(world) => world,
            Err(error) => {
                log::error!("{error}");
                log::error!("the configuration was not reloaded; the old one stays in force");
                return;
            }
        };
        for key in self.config.needs_restart(&new) {
            log::warn!("{key} changes only when natd is restarted");
        }
        set_log_level(new.log);
        let old = std::mem::replace(&mut self.config, new);
        self.config.kernel = old.kernel;
        self.config.passthrough.scope = old.passthrough.scope;
        self.config.observe = old.observe;
        self.config.sessions = old.sessions;
        if let Some(observer) = &self.shared.observer {
            observer.configure(&self.config);
        }
        {
            let mut engine = self.shared.engine();
            engine.nat.set_policy(policy(&self.config));
            engine.vpn.set_settings(self.config.passthrough.clone());
        }
        self.settle(world);
        log::info!("configuration reloaded");
    }

    /// USR1: the state, to the log.
    fn dump(&self) {
        let status = status::status(&self.shared, &self.kernel);
        let mut text = Vec::new();
        if crate::report::text::status(&status, &mut text).is_ok() {
            for line in String::from_utf8_lossy(&text).lines() {
                log::info!("{line}");
            }
        }
    }

    /// Takes everything out; answers what stays behind.
    fn stop(mut self) -> String {
        self.shared.world().state = State::Stopping;
        // Where the service manager is gone, there is nobody to tell.
        let _ = sandbox::notify("STOPPING=1");
        if let Err(error) = self.kernel.remove() {
            log::error!("rules may have stayed behind: {error}");
        }
        self.write_down();
        self.stop_workers.raise();
        for worker in self.workers.drain(..).chain(self.observer.take()) {
            if worker.join().is_err() {
                log::error!("a thread panicked");
            }
        }
        // What the router would say of packets that still wait for a device must be said under the guard's eyes.
        let lan = self.shared.world().lan_indices();
        if let Err(error) = neighbours::give_up_on_silent(&lan) {
            log::warn!("packets may still wait for devices that do not answer: {error}");
        }
        let ended = handover::end_ours(&mut self.conntrack, &self.shared);
        if let Err(error) = ended {
            log::error!("conntrack still knows flows of ours: {error}");
        }
        let message = self.leave_guard();
        if let Some(server) = self.server.take() {
            server.close(&message);
        }
        message
    }

    /// The guard stays unless someone else translates or the owner wants it open.
    fn leave_guard(&self) -> String {
        let another = handover::another_nat(&self.surroundings);
        if !self.open && !another {
            return format!(
                "the guard stays: nothing from the LAN leaves {} untranslated \
                 (`nft delete table ip natd_guard` removes it)",
                self.config.wan
            );
        }
        match self.kernel.remove_guard() {
            Ok(()) if another => {
                format!("another NAT serves {}, so the guard is gone", self.config.wan)
            }
            Ok(()) => format!("the guard is gone too: {} is open", self.config.wan),
            Err(error) => format!("the guard could not be removed: {error}"),
        }
    }
}

/// The backend that the configuration asks for.
pub(crate) fn want(rules: Rules) -> Want {
    match rules {
        Rules::Auto => Want::Auto,
        Rules::Nft => Want::Nft,
        Rules::Iptables => Want::Iptables,
    }
}

/// Takes up IPsec sessions that were written down at `path` not too long ago.
fn recall(path: &Path, config: &Config, engine: &mut Engine, now: Timestamp) {
    let Some((text, age)) = files::recall(path) else { return };
    let memory = engine.nat.address().and_then(|wan| memory::parse(wan, &text));
    if let Some(memory) = memory.filter(|_| age < config.passthrough.esp_idle) {
        engine.vpn.recall(now, &memory);
        log::info!("IPsec: {} pairs of SPIs are known from before the restart", memory.pairs.len());
    }
}

/// What the NAT shall do.
fn policy(config: &Config) -> Policy {
    let policy = config.policy.clone();
    match config.passthrough.scope {
        passthrough::settings::Scope::All => policy,
        // The kernel's NAT may use the same external port towards another host.
        passthrough::settings::Scope::Vpn => {
            Policy { filtering: Filtering::AddressAndPortDependent, ..policy }
        }
    }
}

/// What the rules depend on.
fn surroundings(config: &Config, kernel: &Kernel, world: &World) -> Result<Surroundings, RunError> {
    let name = |name: &str| {
        name.parse::<InterfaceName>()
            .map_err(|error| RunError::Interface(format!("interface {name:?}: {error}")))
    };
    let queues = Queues::new(config.kernel.queue, config.kernel.queues)
        .ok_or_else(|| RunError::Interface("kernel.queues: the queue numbers pass 65535".into()))?;
    Ok(Surroundings {
        wan: name(&config.wan)?,
        wan_addresses: world.wan_addresses().to_vec(),
        lan: config.lan.iter().map(|lan| name(lan)).collect::<Result<_, _>>()?,
        lan_prefixes: world.lan_prefixes(),
        queues,
        scope: match config.passthrough.scope {
            passthrough::settings::Scope::All => Scope::All,
            passthrough::settings::Scope::Vpn => Scope::Vpn,
        },
        backend: kernel.backend,
        socket_match: kernel.socket_match,
        secpath: kernel.secpath,
    })
}

/// Lets clients ask; a wish to stop reaches the main loop.
fn serve(
    control: Control,
    shared: &Arc<Shared>,
    wishes: &Arc<Mutex<Option<bool>>>,
    wished: &Arc<Wake>,
    kernel: Kernel,
) -> Result<Server, RunError> {
    let (shared, wishes, wished) = (Arc::clone(shared), Arc::clone(wishes), Arc::clone(wished));
    let server = control.serve(Limits::default(), move |request, answer| match request {
        Request::Status => answer.line(&status::status(&shared, &kernel)),
        Request::Flows { device, protocol } => status::flows(&shared, *device, *protocol, answer),
        Request::Sessions => status::sessions(&shared, answer),
        Request::Diagnose { device, server } => status::diagnosis(&shared, *device, *server, answer),
        Request::Stop { open } => {
            *wishes.lock().unwrap_or_else(PoisonError::into_inner) = Some(*open);
            wished.raise();
            Ok(())
        }
    });
    server.map_err(|error| RunError::System("serve the control socket", error))
}
