//! Reading the configuration file; keeping what must outlive natd.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/natd/natd.toml";

/// A longer file is no configuration.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Why a configuration file could not be read. Its `Display` is one line that begins with the path.
#[derive(Debug)]
pub struct ReadError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    NotFound,
    Denied,
    Directory,
    TooLong,
    NotUtf8 { line: usize },
    Other(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.reason {
            Reason::NotFound => f.write_str("not found; copy conf/natd.toml there or pass --config FILE"),
            Reason::Denied => f.write_str("not readable for this user; run natd as root or change its owner"),
            Reason::Directory => f.write_str("is a directory; pass --config FILE"),
            Reason::TooLong => f.write_str("longer than 1 MiB; pass the right file with --config FILE"),
            Reason::NotUtf8 { line } => write!(f, "line {line} is not UTF-8 text; save the file as UTF-8"),
            Reason::Other(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Other(error) => Some(error),
            Reason::NotFound
            | Reason::Denied
            | Reason::Directory
            | Reason::TooLong
            | Reason::NotUtf8 { .. } => None,
        }
    }
}

/// The text of the configuration file at `path`, for [`Config::parse`](crate::config::Config::parse).
///
/// # Errors
/// The file does not exist, may not be read, is longer than 1 MiB or is not UTF-8.
pub fn read_config(path: &Path) -> Result<String, ReadError> {
    let failed = |reason| ReadError { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(Reason::from(error)))?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(failed(Reason::TooLong));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        failed(Reason::NotUtf8 { line: good.filter(|byte| **byte == b'\n').count() + 1 })
    })
}

/// Replaces the file at `path`, which only its owner may read, by one that holds `text`: never by a part of it.
///
/// # Errors
/// What the system says: no right to write there, no room.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

/// The text of the file at `path` and how long ago it was written; `None` where there is none that can be read.
pub fn recall(path: &Path) -> Option<(String, std::time::Duration)> {
    let file = File::open(path).ok()?;
    let age = file.metadata().ok()?.modified().ok()?.elapsed().unwrap_or_default();
    let mut text = String::new();
    file.take(4 * MAX_CONFIG_BYTES).read_to_string(&mut text).ok()?;
    Some((text, age))
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        let is = |kind| error.kind() == kind;
        if is(io::ErrorKind::NotFound) {
            Self::NotFound
        } else if is(io::ErrorKind::PermissionDenied) {
            Self::Denied
        } else if is(io::ErrorKind::IsADirectory) {
            Self::Directory
        } else {
            Self::Other(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_one_line_that_says_what_to_do() {
        let folder = Folder::new();
        let rows: [(&str, Option<&[u8]>, &str); 4] = [
            ("absent.toml", None, "not found; copy conf/natd.toml there or pass --config FILE"),
            ("", None, "is a directory; pass --config FILE"),
            ("latin1.toml", Some(b"[nat]\n# f\xfcr\n"), "line 2 is not UTF-8 text; save the file as UTF-8"),
            (
                "long.toml",
                Some(&[b'#'; 1024 * 1024 + 1]),
                "longer than 1 MiB; pass the right file with --config FILE",
            ),
        ];
        for (name, bytes, expected) in rows {
            let path = folder.0.join(name);
            if let Some(bytes) = bytes {
                fs::write(&path, bytes).unwrap();
            }
            let error = read_config(&path).unwrap_err().to_string();
            assert_eq!(error, format!("{}: {expected}", path.display()));
        }
    }

    #[test]
    fn a_file_of_the_greatest_length_is_read() {
        let folder = Folder::new();
        let text = "#".repeat(1024 * 1024);
        fs::write(folder.0.join("natd.toml"), &text).unwrap();
        assert_eq!(read_config(&folder.0.join("natd.toml")).unwrap(), text);
    }

    /// A folder of this test alone, removed with its files at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let unique = format!("natd-files-{}-{:?}", std::process::id(), std::thread::current().id());
            let path = std::env::temp_dir().join(unique);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }
}
