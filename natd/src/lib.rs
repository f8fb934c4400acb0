//! natd: a NAT44 daemon for home routers on NFQUEUE.

pub mod capture_file;
pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod io;
mod order;
pub mod record;
pub mod report;
pub mod rules;
