//! Programs that run inside a lab: with their output captured and a deadline, or in the background.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::{clock, sys};

/// How a program ended and what it printed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; `None` when a signal or the deadline ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Did it exit with 0?
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its standard output.
    ///
    /// # Panics
    /// When it did not exit with 0; the message has all it printed.
    pub fn expect_success(self) -> String {
        assert!(self.success(), "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {:?}\n{}\n{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// Waits for `child` for at most `deadline`, reading what it prints meanwhile; then it is killed.
///
/// # Panics
/// When its output cannot be read.
pub fn finish(mut child: Child, command: String, deadline: Duration) -> Outcome {
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let start = clock::now();
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break Some(status),
            None if start.elapsed() > deadline => {
                kill_group(&child, libc::SIGKILL);
                child.wait().expect("a killed child ends");
                break None;
            }
            None => clock::pause(Duration::from_millis(3)),
        }
    };
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.map(|reader| reader.join().expect("the reader does not panic")).unwrap_or_default()
    };
    let mut stderr = text(stderr);
    if status.is_none() {
        stderr.push_str(&format!("\n(killed after {deadline:?})"));
    }
    Outcome { command, code: status.and_then(|status| status.code()), stdout: text(stdout), stderr }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks ends what there is to read.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn kill_group(child: &Child, signal: i32) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended by itself.
        let _ = sys::kill(-pid, signal);
    }
}

/// Prepares `command` to be a process group of its own, so that it can be killed with its children.
pub fn own_group(command: &mut Command) -> &mut Command {
    command.process_group(0).stdin(Stdio::null())
}

/// A program in the background; killed with its children when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Background {
    /// Starts `command`, its output going to the file `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command, name: &str, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the lab's folder is writable");
        let errors = file.try_clone().expect("a file can be opened twice");
        let child = own_group(command)
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, name: name.to_owned(), log: log.to_owned() }
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it `signal` (not to its children).
    pub fn signal(&self, signal: i32) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended by itself.
            let _ = sys::kill(pid, signal);
        }
    }

    /// Has it ended, and how?
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not within `deadline`; the message has its log.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let mut status = None;
        clock::holds_within(deadline, || {
            status = self.ended();
            status.is_some()
        });
        status.unwrap_or_else(|| {
            panic!("{} still runs after {deadline:?}; its log:\n{}", self.name, self.log())
        })
    }

    /// Waits until its log contains `text`.
    ///
    /// # Panics
    /// When it does not within `deadline`; the message has the log.
    pub fn wait_for_log(&self, text: &str, deadline: Duration) {
        let found = clock::holds_within(deadline, || self.log().contains(text));
        assert!(found, "{} did not say {text:?} within {deadline:?}; its log:\n{}", self.name, self.log());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        kill_group(&self.child, libc::SIGKILL);
        // Nothing can be done about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}
