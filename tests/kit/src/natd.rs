//! natd as a process in a lab's router.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use crate::clock;
use crate::node::Node;
use crate::process::{Background, Outcome};

/// How long natd may take to start, to stop and to answer a question.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where the built natd is: `NATD_BIN`, else beside the running test binary, built anew when cargo runs the tests.
///
/// # Panics
/// When it is not there; the message says how to build it.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(find_binary).clone()
}

fn find_binary() -> PathBuf {
    let path = std::env::var_os("NATD_BIN").map_or_else(|| built("natd"), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace`, or set NATD_BIN", path.display());
    path
}

/// A program of the workspace, built by cargo when cargo runs the tests: it builds a test without the programs of
/// other packages, and what lies there may be old or not be there.
pub(crate) fn built(program: &str) -> PathBuf {
    let dir = profile_dir();
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(["build", "--workspace", "--bin", program, "--quiet", "--locked"]);
        if dir.ends_with("release") {
            command.arg("--release");
        }
        let built = command.status().is_ok_and(|status| status.success());
        assert!(built, "{program} does not build");
    }
    dir.join(program)
}

/// The folder that cargo builds this profile into; it lies in the target folder.
pub(crate) fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    let dir = test.ancestors().find(|dir| dir.ends_with("debug") || dir.ends_with("release"));
    dir.expect("cargo builds into debug or release").to_path_buf()
}

/// A natd, running or ended.
#[derive(Debug)]
pub struct Natd {
    node: Node,
    dir: PathBuf,
    process: Background,
}

impl Natd {
    /// Starts natd in `node` with the configuration `config`, its files in `dir`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(node: &Node, dir: &Path, config: &str) -> Self {
        fs::write(dir.join("natd.toml"), config).expect("the lab's folder is writable");
        let process = Self::launch(node, dir);
        Self { node: node.clone(), dir: dir.to_owned(), process }
    }

    fn launch(node: &Node, dir: &Path) -> Background {
        node.spawn(&[
            &binary().to_string_lossy(),
            "run",
            "--config",
            &dir.join("natd.toml").to_string_lossy(),
            "--socket",
            &dir.join("natd.sock").to_string_lossy(),
        ])
    }

    /// Waits until `natd status` says that it translates.
    ///
    /// # Panics
    /// When it ends first or takes longer than ten seconds; the message has its log.
    pub fn wait_ready(&mut self) {
        let start = clock::now();
        loop {
            let status = self.command(&["status"]);
            let ended = self.process.ended();
            if status.success() && ended.is_none() {
                return;
            }
            assert!(
                ended.is_none() && start.elapsed() < DEADLINE,
                "natd is not ready (ended: {ended:?})\n{status}\nits log:\n{}",
                self.process.log()
            );
            clock::pause(Duration::from_millis(20));
        }
    }

    /// Starts it again after it ended, with the same files, and waits until it is ready.
    pub fn restart(&mut self) {
        self.process = Self::launch(&self.node, &self.dir);
        self.wait_ready();
    }

    /// Runs `natd WORDS --socket …`.
    pub fn command(&self, words: &[&str]) -> Outcome {
        let program = binary();
        let program = program.to_string_lossy();
        let socket = self.dir.join("natd.sock");
        let socket = socket.to_string_lossy();
        let mut line: Vec<&str> = vec![&program];
        line.extend(words);
        line.extend(["--socket", &*socket]);
        self.node.run_within(&line, DEADLINE)
    }

    /// Runs `natd check` on its configuration, or on `config` when given.
    pub fn check(&self, config: Option<&Path>) -> Outcome {
        let program = binary();
        let path = config.map_or_else(|| self.config_path(), Path::to_path_buf);
        self.node.run_within(
            &[&*program.to_string_lossy(), "check", "--config", &*path.to_string_lossy()],
            DEADLINE,
        )
    }

    /// The configuration file that it reads.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("natd.toml")
    }

    /// Writes another configuration; it takes effect by SIGHUP or a restart.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write_config(&self, config: &str) {
        fs::write(self.config_path(), config).expect("the lab's folder is writable");
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Background {
        &mut self.process
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// kill -9, and waits for its end.
    pub fn kill(&mut self) {
        self.process.signal(libc::SIGKILL);
        self.process.wait(DEADLINE);
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(libc::SIGTERM);
        self.process.wait(DEADLINE)
    }
}
