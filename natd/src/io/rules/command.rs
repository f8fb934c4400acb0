//! Runs a tool without a shell: text in, text out, bounded in time.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longest time that a tool may take; iptables may wait 5 s for its lock.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a tool said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Did it exit with 0?
    pub success: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Where `name` is: on PATH, or where administrators' tools are even if PATH leaves them out.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// Runs `program` with `stdin` as its input. A tool that takes longer than 15 s is killed (`TimedOut`).
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], stdin: &str) -> io::Result<Answer> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (Some(mut input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("the child has no pipes"));
    };
    let text = stdin.as_bytes().to_vec();
    // A tool that gives up early closes its input; what it says about that is in its own message.
    thread::spawn(move || {
        let _ = input.write_all(&text);
    });
    let (stdout, stderr) = (collect(output), collect(errors));
    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(PATIENCE), stderr.recv_timeout(PATIENCE)) else {
        child.kill()?;
        child.wait()?;
        return Err(io::ErrorKind::TimedOut.into());
    };
    Ok(Answer { success: child.wait()?.success(), stdout, stderr })
}

fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_larger_than_a_pipe_goes_through() {
        let text = "x".repeat(1 << 20);
        let answer = run::<&str>(&find("cat").unwrap(), &[], &text).unwrap();
        assert_eq!(answer, Answer { success: true, stdout: text, stderr: String::new() });
    }

    #[test]
    fn failure_and_its_message_are_reported() {
        let answer = run(&find("ls").unwrap(), &["/nowhere"], "").unwrap();
        assert!(!answer.success && answer.stderr.contains("/nowhere"), "{answer:?}");
    }

    #[test]
    fn a_missing_tool_is_not_found() {
        assert_eq!(find("natd-has-no-such-tool"), None);
    }
}
