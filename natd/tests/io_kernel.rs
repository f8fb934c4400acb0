//! What natd's system calls do in a real kernel: queues, conntrack, links, privileges.
//!
//! Needs root; every test makes network namespaces of its own and takes them away again.
#![expect(unsafe_code, reason = "namespaces and socket options")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what goes wrong here fails the test")]

#[path = "io_kernel/conntrack.rs"]
mod conntrack;
#[path = "io_kernel/lab.rs"]
mod lab;
#[path = "io_kernel/links.rs"]
mod links;
#[path = "io_kernel/queue.rs"]
mod queue;
#[path = "io_kernel/sandbox.rs"]
mod sandbox;
#[path = "io_kernel/tap.rs"]
mod tap;
