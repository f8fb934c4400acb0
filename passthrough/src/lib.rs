//! What natd knows of VPN protocols.
#![no_std]
#![forbid(unsafe_code)]
