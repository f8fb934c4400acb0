//! Talking netlink with the kernel, and what it says of links and addresses.
//!
//! `message` writes and reads the bytes, `socket` carries them; both serve conntrack and the queues as
//! well. [`Links`] follows the interfaces: it does not interpret single events, which get lost when many come
//! at once, but says that something changed; then one [`Links::snapshot`] shows how things are now.

mod links;
pub(crate) mod message;
pub mod neighbours;
pub(crate) mod socket;

pub use links::{Address, Interface, Interfaces, Links, Scope};
pub(crate) use socket::{check, family, set_option, socklen};
