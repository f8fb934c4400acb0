//! The subcommands' end of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{EndLine, ErrorLine, Refusal, Request};

/// How long a subcommand waits for each piece of an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The longest line of an answer: a status with thousands of devices.
const LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens.
    NotRunning(PathBuf),
    /// The socket may not be opened.
    Permission(PathBuf),
    /// The daemon refuses the request.
    Refused(String, Refusal),
    /// The daemon is there and does not answer.
    Silent(PathBuf),
    /// The connection closed in the middle of the answer.
    BrokeOff,
    /// The answer is not what this version understands.
    Strange(String),
    /// The system refuses.
    System(PathBuf, io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(path) => write!(
                f,
                "natd is not running: nothing listens on {}; start it with \
                 `natd run --config /etc/natd/natd.toml` or `systemctl start natd`",
                path.display()
            ),
            Self::Permission(path) => {
                write!(f, "no permission to open {}; run this as root", path.display())
            }
            Self::Refused(problem, _) => write!(f, "natd refuses: {problem}"),
            Self::Silent(path) => {
                write!(f, "natd does not answer on {}; its log may say why", path.display())
            }
            Self::BrokeOff => f.write_str("the answer broke off: natd ended or gave up on a slow reader"),
            Self::Strange(problem) => {
                write!(f, "natd answers in another way than this version expects ({problem}); restart natd")
            }
            Self::System(path, error) => write!(f, "cannot talk to natd on {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    fn system(path: &Path, error: io::Error) -> Self {
        let path = path.to_path_buf();
        let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
        if is(&[io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]) {
            Self::NotRunning(path)
        } else if is(&[io::ErrorKind::PermissionDenied]) {
            Self::Permission(path)
        } else if is(&[io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut]) {
            Self::Silent(path)
        } else if is(&[io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe]) {
            Self::BrokeOff
        } else {
            Self::System(path, error)
        }
    }
}

/// Sends `request` to the daemon at `path`; `patience` bounds the wait for each piece of the answer.
///
/// # Errors
/// The daemon cannot be reached. Refusals come with the first [`Reply::next_line`].
pub fn request(path: &Path, request: &Request, patience: Duration) -> Result<Reply, ClientError> {
    let failed = |error| ClientError::system(path, error);
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    match stream.write_all(request.line().as_bytes()) {
        // A busy daemon refuses without reading: its answer says more than this error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    Ok(Reply { lines: BufReader::new(stream), line: String::new(), count: 0, path: path.to_path_buf() })
}

/// An answer on its way.
#[derive(Debug)]
pub struct Reply {
    lines: BufReader<UnixStream>,
    line: String,
    count: u64,
    path: PathBuf,
}

impl Reply {
    /// The next line of the answer, without its newline; `None` after the last.
    ///
    /// # Errors
    /// The daemon refuses the request, or the answer is incomplete.
    pub fn next_line(&mut self) -> Result<Option<&str>, ClientError> {
        self.line.clear();
        let read = (&mut self.lines).take(LINE_BYTES).read_line(&mut self.line);
        read.map_err(|error| ClientError::system(&self.path, error))?;
        let Some(line) = self.line.strip_suffix('\n') else { return Err(ClientError::BrokeOff) };
        if line.starts_with("{\"error\":") {
            let ErrorLine { error, code } = parse(line)?;
            return Err(ClientError::Refused(error, code));
        }
        if line.starts_with("{\"end\":") {
            let EndLine { end } = parse(line)?;
            return if end == self.count { Ok(None) } else { Err(ClientError::BrokeOff) };
        }
        self.count += 1;
        Ok(Some(line))
    }

    /// The only line of an answer that has one.
    ///
    /// # Errors
    /// As [`Reply::next_line`]; also when there is none or another.
    pub fn only_line(mut self) -> Result<String, ClientError> {
        let line = self.next_line()?.map(str::to_owned);
        let another = line.is_some() && self.next_line()?.is_some();
        match line {
            Some(line) if !another => Ok(line),
            Some(_) | None => Err(ClientError::Strange("not one line".into())),
        }
    }
}

/// Reads a line of an answer.
///
/// # Errors
/// [`ClientError::Strange`].
pub(crate) fn parse<'a, T: serde::Deserialize<'a>>(line: &'a str) -> Result<T, ClientError> {
    serde_json::from_str(line).map_err(|error| ClientError::Strange(error.to_string()))
}
