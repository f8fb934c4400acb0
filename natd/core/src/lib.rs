//! NAT44 decisions as pure values.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod decision;
pub mod flow;
pub mod policy;
pub mod time;
