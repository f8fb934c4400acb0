//! Packet builders and network-namespace labs for tests.
