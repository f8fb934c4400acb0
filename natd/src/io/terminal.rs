//! The terminal: its size, its keys, and a screen of our own that is always given back.
//!
//! A [`Screen`] switches to the alternate screen and takes keys as they are pressed. Whatever ends the program
//! gives the terminal back: dropping the screen, a panic (the release profile aborts then, without dropping),
//! or a signal, which [`Screen::wait`] reports like a key.

use std::io::{self, IsTerminal, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::low_level::{pipe, unregister};

use crate::report::watch::Size;

/// The size of the terminal on standard output; failing that, what COLUMNS and LINES say, or 80 by 24.
pub fn size() -> Size {
    let mut window = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize to the pointer (ioctl_tty(2)).
    unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut window) };
    let or_said = |n: u16, variable: &str, usual: u16| {
        let said = || std::env::var(variable).ok()?.parse().ok().filter(|n| *n > 0);
        if n > 0 { n } else { said().unwrap_or(usual) }
    };
    Size { columns: or_said(window.ws_col, "COLUMNS", 80), rows: or_said(window.ws_row, "LINES", 24) }
}

/// Is standard output a terminal?
pub fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// What [`Screen::wait`] waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// This many seconds have passed since the last of these; more than one when the program was stopped.
    Tick(u64),
    /// A key: its first byte.
    Key(u8),
    /// The terminal has another size.
    Resized,
    /// A signal asks the program to end.
    Terminated,
}

const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// The terminal's modes before [`Screen::enter`]; here, since the panic hook needs them.
static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);

/// The alternate screen with single keys, a second's tick, and signals as events.
pub struct Screen {
    keys: bool,
    timer: OwnedFd,
    ending: UnixStream,
    resized: UnixStream,
    registered: Vec<signal_hook::SigId>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// The system gives no timer or no socket pair.
    pub fn enter() -> io::Result<Self> {
        let timer = every_second()?;
        let (ending, ending_writer) = UnixStream::pair()?;
        let (resized, resized_writer) = UnixStream::pair()?;
        resized.set_nonblocking(true)?;
        let mut registered = Vec::new();
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            registered.push(pipe::register(signal, ending_writer.try_clone()?)?);
        }
        registered.push(pipe::register(SIGWINCH, resized_writer)?);
        restore_on_panic();
        let keys = take_keys();
        let mut stdout = io::stdout().lock();
        stdout.write_all(ENTER)?;
        stdout.flush()?;
        Ok(Self { keys, timer, ending, resized, registered })
    }

    /// Shows `frame`, whose lines end in a newline, in place of the one before, without flicker.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&mut self, frame: &str) -> io::Result<()> {
        let lines = frame.strip_suffix('\n').unwrap_or(frame);
        let mut bytes = String::from("\x1b[H");
        for (place, line) in lines.split('\n').enumerate() {
            bytes.push_str(if place == 0 { "" } else { "\r\n" });
            bytes.push_str(line);
            bytes.push_str("\x1b[K");
        }
        bytes.push_str("\x1b[J");
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes.as_bytes())?;
        stdout.flush()
    }

    /// Waits for what comes first.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait(&mut self) -> io::Result<Wakeup> {
        loop {
            let stdin = if self.keys { libc::STDIN_FILENO } else { -1 };
            let watched = [self.ending.as_raw_fd(), self.resized.as_raw_fd(), stdin, self.timer.as_raw_fd()];
            let [ending, resized, key, tick] = readable(watched)?;
            if ending {
                return Ok(Wakeup::Terminated);
            }
            if resized {
                // However often it changed: only the last size counts. Emptied, or would block.
                while self.resized.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
                return Ok(Wakeup::Resized);
            }
            if key {
                match next_key() {
                    Some(byte) => return Ok(Wakeup::Key(byte)),
                    // No more keys will come; the view goes on without.
                    None => self.keys = false,
                }
            }
            if tick {
                return Ok(Wakeup::Tick(ticks(&self.timer)?));
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            unregister(id);
        }
        give_back();
    }
}

/// Turns off line editing, echo and signal keys; `false` when standard input is no terminal.
fn take_keys() -> bool {
    let mut modes = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr fills the structure when it answers 0, and only then it is read.
    let mut modes = unsafe {
        if libc::tcgetattr(libc::STDIN_FILENO, modes.as_mut_ptr()) != 0 {
            return false;
        }
        modes.assume_init()
    };
    if let Ok(mut before) = BEFORE.lock() {
        *before = Some(modes);
    }
    modes.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
    if let Some(least) = modes.c_cc.get_mut(libc::VMIN) {
        *least = 1;
    }
    if let Some(patience) = modes.c_cc.get_mut(libc::VTIME) {
        *patience = 0;
    }
    // SAFETY: the pointer is to a filled structure.
    unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &raw const modes) == 0 }
}

/// The next byte from standard input, past its buffer so that poll(2) knows of what is left; `None` at the end.
fn next_key() -> Option<u8> {
    let mut byte = [0; 1];
    // SAFETY: pointer and length describe `byte`.
    let n = unsafe { libc::read(libc::STDIN_FILENO, byte.as_mut_ptr().cast(), byte.len()) };
    (n == 1).then_some(byte[0])
}

/// Undoes what [`Screen::enter`] did to the terminal.
fn give_back() {
    let mut stdout = io::stdout().lock();
    // Where the terminal is gone there is nothing to give back.
    let _ = stdout.write_all(LEAVE).and_then(|()| stdout.flush());
    if let Ok(mut before) = BEFORE.try_lock() {
        if let Some(modes) = before.take() {
            // SAFETY: the pointer is to a structure that tcgetattr filled.
            unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &raw const modes) };
        }
    }
}

fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        report(panic);
    }));
}

fn every_second() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let timer = unsafe { OwnedFd::from_raw_fd(fd) };
    let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    let setting = libc::itimerspec { it_interval: second, it_value: second };
    // SAFETY: the setting is read during the call; the old one is not asked for.
    let answer = unsafe { libc::timerfd_settime(fd, 0, &raw const setting, std::ptr::null_mut()) };
    if answer == 0 { Ok(timer) } else { Err(io::Error::last_os_error()) }
}

/// How often the timer has run out since it was last asked.
fn ticks(timer: &OwnedFd) -> io::Result<u64> {
    let mut count = [0; 8];
    // SAFETY: pointer and length describe `count`.
    let n = unsafe { libc::read(timer.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    if n == 8 { Ok(u64::from_ne_bytes(count)) } else { Err(io::Error::last_os_error()) }
}

/// Waits until at least one of the descriptors can be read, and says which; negative ones are left out.
fn readable<const N: usize>(descriptors: [RawFd; N]) -> io::Result<[bool; N]> {
    let mut polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let number = libc::nfds_t::try_from(N).expect("a handful");
    loop {
        // SAFETY: pointer and number describe `polled`.
        let answer = unsafe { libc::poll(polled.as_mut_ptr(), number, -1) };
        if answer >= 0 {
            return Ok(polled.map(|polled| polled.revents != 0));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
