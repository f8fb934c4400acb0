//! The daemon's end of the control socket.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Answer, ErrorLine, REQUEST_BYTES, Refusal, Request, StopLine};

/// How much clients may ask of the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients at one time.
    pub clients: usize,
    /// How long each read of a request waits.
    pub request: Duration,
    /// How long each write of an answer waits; a pager that is not scrolled holds it up.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { clients: 16, request: Duration::from_secs(1), answer: Duration::from_secs(60) }
    }
}

/// A request comes in one piece from every honest client; this bounds the time of others.
const REQUEST_READS: usize = 4;

/// Enough for a handler that writes a status; threads take no more of it than they touch.
const CLIENT_STACK: usize = 256 * 1024;

/// How long to wait after the kernel had no descriptor or thread for a client.
const SHORTAGE: Duration = Duration::from_millis(200);

/// Why the control socket cannot be had.
#[derive(Debug)]
pub enum ControlError {
    /// Another natd answers there.
    AlreadyRunning {
        /// Its socket.
        path: PathBuf,
        /// Its process id.
        pid: u32,
    },
    /// Something else stands at the path.
    NotASocket(PathBuf),
    /// The system refuses.
    System {
        /// What was tried.
        attempt: &'static str,
        /// Where.
        path: PathBuf,
        /// Its reason.
        error: io::Error,
    },
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRunning { path, pid } => {
                let path = path.display();
                write!(f, "natd already runs as process {pid} and answers on {path}; end it with `natd stop`")
            }
            Self::NotASocket(path) => {
                let path = path.display();
                write!(f, "{path} exists and is not a socket; move it away or name another with --socket")
            }
            Self::System { attempt, path, error } => {
                write!(f, "cannot {attempt} {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for ControlError {}

/// A bound control socket that nobody serves yet. Its file is removed when it goes away.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    file: SocketFile,
}

impl Control {
    /// Binds `path`, creating its folder if missing and replacing a socket that nobody answers on.
    ///
    /// # Errors
    /// Another natd runs, or the path cannot be had.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |attempt| move |error| ControlError::System { attempt, path: path.to_path_buf(), error };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(failed("create the folder of the control socket"))?;
        let _one_at_a_time = File::open(folder)
            .and_then(lock)
            .map_err(failed("lock the folder of the control socket, where another natd is starting,"))?;
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(failed("bind the control socket"))?;
        let metadata = fs::symlink_metadata(path).map_err(failed("look at the control socket"))?;
        let identity = (metadata.dev(), metadata.ino());
        let file = SocketFile { path: path.to_path_buf(), identity };
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            .map_err(failed("set the permissions of the control socket"))?;
        Ok(Self { listener, file })
    }

    /// Serves clients from now on, each with `handler` on a thread of its own.
    ///
    /// The handler writes the lines of the answer; it must not hold a lock while it writes, since the client
    /// may read slowly. For [`Request::Stop`] it only passes the wish on and returns.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn serve<H>(self, limits: Limits, handler: H) -> io::Result<Server>
    where
        H: Fn(&Request, &mut Answer<'_>) -> io::Result<()> + Send + Sync + 'static,
    {
        let Self { listener, file } = self;
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            limits,
            state: Mutex::new(Serving { clients: 0, closing: false, waiting: Vec::new() }),
            closing: Condvar::new(),
        });
        let accepting = {
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            thread::Builder::new()
                .name("control".into())
                .stack_size(CLIENT_STACK)
                .spawn(move || accept(&listener, &shared))?
        };
        Ok(Server { listener, shared, accepting: Some(accepting), message: String::new(), _file: file })
    }
}

/// The control socket while it is served; [`Server::close`] or dropping it ends that.
pub struct Server {
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    message: String,
    _file: SocketFile,
}

impl Server {
    /// Ends serving, tells `message` to those who asked for the stop, and removes the socket. To be called
    /// when everything else is cleaned up.
    pub fn close(mut self, message: &str) {
        self.message = message.into();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.state();
            state.closing = true;
            std::mem::take(&mut state.waiting)
        };
        self.shared.closing.notify_all();
        // SAFETY: the descriptor is open as long as `self.listener` lives. Shutting down a listening socket
        // makes the accept that blocks on it return.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(accepting) = self.accepting.take() {
            // A panic in there has been reported already, and there is nothing to clean up after it.
            let _ = accepting.join();
        }
        for mut client in waiting {
            let mut lines = Vec::new();
            let mut answer = Answer { out: &mut lines, lines: 0 };
            let last = StopLine { stopped: true, message: self.message.clone() };
            // A client that does not wait any longer misses nothing.
            let _ = answer.line(&last).and_then(|()| answer.end());
            let _ = client.write_all(&lines);
        }
    }
}

type Handler = Box<dyn Fn(&Request, &mut Answer<'_>) -> io::Result<()> + Send + Sync>;

struct Shared {
    handler: Handler,
    limits: Limits,
    state: Mutex<Serving>,
    closing: Condvar,
}

struct Serving {
    clients: usize,
    closing: bool,
    /// Those who asked for the stop.
    waiting: Vec<UnixStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Serving> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.state().closing {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // Out of descriptors or memory, or interrupted: others may give some back.
            let state = shared.state();
            let _ = shared.closing.wait_timeout_while(state, SHORTAGE, |state| !state.closing);
            continue;
        };
        let full = {
            let mut state = shared.state();
            let full = state.clients >= shared.limits.clients;
            state.clients += usize::from(!full);
            full
        };
        if full {
            let _ = stream.set_write_timeout(Some(shared.limits.request));
            refuse(&stream, "too many clients at one time; try again", Refusal::Busy);
            continue;
        }
        let place = Place(Arc::clone(shared));
        // When no thread can be had the closure is dropped, and with it the client and its place.
        let _ = thread::Builder::new()
            .name("control-client".into())
            .stack_size(CLIENT_STACK)
            .spawn(move || attend(stream, &place.0));
    }
}

/// One of the places for clients; given back when dropped.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.clients = state.clients.saturating_sub(1);
    }
}

/// Reads a request and answers it. Errors of the connection end it and concern nobody else.
fn attend(stream: UnixStream, shared: &Shared) {
    let limits = shared.limits;
    let timeouts = stream
        .set_read_timeout(Some(limits.request))
        .and_then(|()| stream.set_write_timeout(Some(limits.answer)));
    let Ok(Some(line)) = timeouts.and_then(|()| read_request(&stream)) else { return };
    let request = match Request::parse(&line) {
        Ok(request) => request,
        Err(problem) => return refuse(&stream, &problem, Refusal::Malformed),
    };
    if request.changes_state() && !may_change(&stream) {
        let problem = "only root or the user that natd runs as may do that";
        return refuse(&stream, problem, Refusal::Permission);
    }
    let mut out = BufWriter::with_capacity(16 * 1024, &stream);
    let mut answer = Answer { out: &mut out, lines: 0 };
    match request {
        Request::Status | Request::Flows { .. } | Request::Sessions | Request::Diagnose { .. } => {
            let _ = (shared.handler)(&request, &mut answer).and_then(|()| answer.end());
        }
        Request::Stop { .. } => {
            // Under the lock, so that `close` finds the client even when it comes at once.
            let mut state = shared.state();
            if state.closing {
                return refuse(&stream, "natd is stopping already", Refusal::Failed);
            }
            let passed_on = (shared.handler)(&request, &mut answer);
            drop(out);
            match passed_on {
                Ok(()) => state.waiting.push(stream),
                Err(error) => refuse(&stream, &error.to_string(), Refusal::Failed),
            }
        }
    }
}

/// The request line; `None` when the client went away, was silent or sent too much.
fn read_request(mut stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut piece = [0; REQUEST_BYTES];
    for _ in 0..REQUEST_READS {
        let n = stream.read(&mut piece)?;
        let Some(piece) = piece.get(..n).filter(|piece| !piece.is_empty()) else { return Ok(None) };
        line.extend_from_slice(piece);
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(Some(line));
        }
        if line.len() >= REQUEST_BYTES {
            let problem = format!("a request has at most {REQUEST_BYTES} bytes");
            refuse(stream, &problem, Refusal::Malformed);
            return Ok(None);
        }
    }
    Ok(None)
}

fn refuse(mut stream: &UnixStream, problem: &str, code: Refusal) {
    let line = ErrorLine { error: problem.into(), code };
    if let Ok(mut line) = serde_json::to_vec(&line) {
        line.push(b'\n');
        // A client that has gone away misses nothing.
        let _ = stream.write_all(&line);
    }
}

/// Is the client root or the user that the daemon runs as?
fn may_change(stream: &UnixStream) -> bool {
    // SAFETY: no arguments, cannot fail.
    let own = unsafe { libc::geteuid() };
    peer(stream).is_ok_and(|peer| peer.uid == 0 || peer.uid == own)
}

/// Who holds the other end of a socket (`SO_PEERCRED`, unix(7)).
fn peer(stream: &UnixStream) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let size = size_of::<libc::ucred>();
    let mut length = libc::socklen_t::try_from(size).expect("twelve bytes");
    // SAFETY: pointer and length describe `peer`, and the kernel writes at most that much.
    let answer = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if answer == 0 { Ok(peer) } else { Err(io::Error::last_os_error()) }
}

/// Makes room for a new socket at `path`.
fn clear(path: &Path) -> Result<(), ControlError> {
    let failed = |attempt| move |error| ControlError::System { attempt, path: path.to_path_buf(), error };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at the control socket")(error)),
    };
    if !kind.is_socket() {
        return Err(ControlError::NotASocket(path.to_path_buf()));
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let pid = peer(&stream).map_err(failed("ask who answers on the control socket"))?.pid;
            Err(ControlError::AlreadyRunning { path: path.to_path_buf(), pid: pid.unsigned_abs() })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the control socket that a crash left behind"))
        }
        Err(error) => Err(failed("find out whether natd answers on")(error)),
    }
}

/// Takes an exclusive lock that ends with the descriptor; fails when somebody has it.
fn lock(folder: File) -> io::Result<File> {
    // SAFETY: the descriptor is open.
    let answer = unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if answer == 0 { Ok(folder) } else { Err(io::Error::last_os_error()) }
}

/// The socket's place in the file system; removed when dropped, unless another natd has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let own = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(own) {
            // What cannot be removed is found to be stale at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
