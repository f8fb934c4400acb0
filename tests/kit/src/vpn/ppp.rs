//! PPP without the kernel's help: `minippp` in the place of pppd.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::natd::built;

/// The PPP interface of a device.
pub const DEVICE: &str = "ppp0";

/// Where `minippp` is: built by cargo when it runs the tests, as natd is.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("minippp"))
}
